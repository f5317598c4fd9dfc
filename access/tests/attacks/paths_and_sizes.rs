//! Hostile names never become paths, and hostile sizes never become memory.

use crate::support::{NOW, at, directory, enter, gate, request};
use isotherm_access::authority::POLICY_BYTES_MAX;
use isotherm_access::{Authority, Directory, Gate, GateError, Permission};
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

#[test]
fn oversized_and_malformed_rules_are_refused_and_nobody_gets_in() {
    let folder = tempdir().expect("a folder");
    let mut open = gate(folder.path(), &directory());
    let site = folder.path().join("site.cedar");
    fs::write(&site, vec![b' '; POLICY_BYTES_MAX + 1]).expect("own file");
    assert!(matches!(Gate::open(folder.path()), Err(GateError::TooLarge { .. })));
    let devices = [("gpu0", 0)];
    assert!(enter(&mut open, &request(1, &[Permission::DeviceInfo], &devices)).0.is_err(), "the open gate notices");
    fs::write(&site, [0xff, 0xfe]).expect("own file");
    assert!(matches!(Gate::open(folder.path()), Err(GateError::Policy(_))));
    fs::remove_file(&site).expect("own file");
    assert!(enter(&mut open, &request(1, &[Permission::DeviceInfo], &devices)).0.is_ok(), "and that they are mended");
    for bytes in [b"".as_slice(), b"{}", b"null", b"[[[[", &[0xff; 100]] {
        assert!(Directory::read(bytes).is_err());
    }
    assert!(Directory::read("[".repeat(1 << 20).as_bytes()).is_err());
    let deep =
        format!("permit (principal, action, resource) when {{ {}true{} }};", "(".repeat(200_000), ")".repeat(200_000));
    assert!(Authority::new(directory(), &deep).is_err(), "a nest too deep is an error and no crash");
    let huge = request(1, &[Permission::MemoryAllocate], &[("gpu0", u64::MAX), ("gpu1", u64::MAX)]);
    let mut gate = Gate::open(folder.path()).expect("opens");
    let (answer, _) = enter(&mut gate, &huge);
    drop(answer);
}
