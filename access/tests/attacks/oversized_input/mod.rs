//! Hostile sizes and nests never become memory or a stack that runs out.

use crate::support::{directory, enter, gate, request};
use isotherm_access::authority::POLICY_BYTES_MAX;
use isotherm_access::{Authority, Directory, Gate, GateError, Permission};
use std::fs;
use tempfile::tempdir;

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
