//! Any text as policies of an installation, and as a directory: an error, or rules under which what the shipped policies
//! forbid stays forbidden.

use isotherm_access::{Authority, Directory, Permission, Question};
use isotherm_audit::keys::{Identity, Seed};
use isotherm_audit::time::Timestamp;

/// A directory with an administrator from whom one permission was taken.
pub fn directory() -> Directory {
    let identity = Identity::from_seed(&Seed::from_bytes([1; 32])).expect("any seed is a key");
    let mut directory = Directory::first("admin", identity.public(), now()).expect("encodes");
    for principal in directory.principals.values_mut() {
        principal.denied.insert(Permission::ComputeExecute);
    }
    directory
}

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().expect("an instant")
}

/// Panics where the promise above is broken.
pub fn check(text: &str) {
    if let Ok(directory) = Directory::read(text.as_bytes()) {
        let written = directory.write().expect("what was read can be written");
        assert_eq!(Directory::read(&written).expect("it was written here"), directory);
    }
    let directory = directory();
    let principal = *directory.principals.keys().next().expect("an administrator");
    let Ok(authority) = Authority::new(directory, text) else { return };
    let question = Question {
        principal,
        permission: Permission::ComputeExecute,
        device: "gpu0",
        now: now(),
        used_bytes: 1,
        request_bytes: 1,
        lease: None,
    };
    assert!(!authority.decide(&question).allowed, "a denial was outweighed");
}
