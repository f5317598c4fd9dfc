//! Hostile names never become paths.

use crate::support::{NOW, at, directory, enter, gate, request};
use isotherm_access::Permission;
use std::fs;
use tempfile::tempdir;

#[test]
fn no_name_leads_out_of_the_folder() {
    let outer = tempdir().expect("a folder");
    let folder = outer.path().join("access");
    let mut gate = gate(&folder, &directory());
    let before: Vec<_> =
        fs::read_dir(outer.path()).expect("own folder").map(|e| e.expect("listed").file_name()).collect();
    for name in ["../../outside", "/etc/passwd", "..", ".", "a/b", "con\u{0}", "~root", "%2e%2e%2f"] {
        let devices = [(name, 1)];
        let mut asking = request(1, &[Permission::MemoryAllocate, Permission::ComputeExecute], &devices);
        asking.owner = name;
        if let Ok(admission) = enter(&mut gate, &asking).0 {
            gate.leave(admission, at(NOW), &mut |_| Ok(())).expect("held");
        }
    }
    let after: Vec<_> =
        fs::read_dir(outer.path()).expect("own folder").map(|e| e.expect("listed").file_name()).collect();
    assert_eq!(before, after);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("own folder")
        .map(|e| e.expect("listed").file_name().into_string().expect("UTF-8"))
        .collect();
    files.sort();
    assert_eq!(files, ["principals.json", "quota.journal", "quota.lock", "rates.json", "rates.lock"]);
}
