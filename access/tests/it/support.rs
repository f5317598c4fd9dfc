//! Principals, a gate, and requests to it.

use isotherm_access::gate::Gate;
use isotherm_access::{
    Admission, Authority, Decision, Directory, GateError, Permission, Principal, Question, Request, Role,
};
use isotherm_audit::keys::{Identity, KeyId, Seed};
use isotherm_audit::log::Event;
use isotherm_audit::time::Timestamp;
use std::path::Path;

pub const NOW: &str = "2026-11-23T12:00:00Z";
pub const GIB: u64 = 1 << 30;

pub fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

pub fn identity(number: u8) -> Identity {
    Identity::from_seed(&Seed::from_bytes([number; 32])).expect("any seed is a key")
}

pub fn id(number: u8) -> KeyId {
    identity(number).id()
}

/// One principal of each role: 1 admin, 2 power user, 3 user, 4 monitor; gpu0 and gpu1 in the pool `lab`.
pub fn directory() -> Directory {
    let mut directory = Directory::first("admin", identity(1).public(), at(NOW)).expect("encodes");
    for (number, role) in [(2, Role::PowerUser), (3, Role::User), (4, Role::Monitor)] {
        let principal = Principal::new(role.name(), identity(number).public(), role, at(NOW)).expect("encodes");
        directory.principals.insert(id(number), principal);
    }
    directory.pools.insert("lab".to_owned(), ["gpu0".to_owned(), "gpu1".to_owned()].into());
    directory
}

pub fn edited(number: u8, edit: impl FnOnce(&mut Principal)) -> Directory {
    let mut directory = directory();
    edit(directory.principals.get_mut(&id(number)).expect("there"));
    directory
}

pub fn question(number: u8, permission: Permission, device: &str) -> Question<'_> {
    let (now, used_bytes, request_bytes) = (at(NOW), 0, 0);
    Question { principal: id(number), permission, device, now, used_bytes, request_bytes, lease: None }
}

pub fn decide(directory: Directory, site: &str, question: &Question<'_>) -> Decision {
    Authority::new(directory, site).expect("sound rules").decide(question)
}

pub fn gate(folder: &Path, directory: &Directory) -> Gate {
    assert!(Gate::begin(folder, directory).expect("begun"));
    Gate::open(folder).expect("opens")
}

pub fn request<'a>(number: u8, permissions: &'a [Permission], devices: &'a [(&'a str, u64)]) -> Request<'a> {
    let now = at(NOW);
    let now_ms = now.unix_seconds() * 1000;
    Request { principal: id(number), permissions, devices, lease: None, now, now_ms, owner: "test", subjects: &[] }
}

/// Asks the gate, and gives what it wrote down beside its answer.
pub fn enter(gate: &mut Gate, request: &Request<'_>) -> (Result<Admission, GateError>, Vec<Event>) {
    let mut written = Vec::new();
    let answer = gate.enter(request, &mut |events| {
        written.extend(events);
        Ok(())
    });
    (answer, written)
}
