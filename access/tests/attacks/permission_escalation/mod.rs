//! Somebody tries to do more than they may, or to give themselves more rights.

use crate::support::{NOW, at, decide, directory, edited, enter, gate, id, identity, question, request};
use isotherm_access::authority::SYSTEM;
use isotherm_access::{GateError, Permission, Principal, Role};
use isotherm_audit::log::EventKind;
use tempfile::tempdir;

#[test]
fn nobody_but_an_administrator_changes_the_rules() {
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), &directory());
    for number in [2, 3, 4, 9] {
        let mut written = Vec::new();
        let refused = gate.administer(
            id(number),
            at(NOW),
            Vec::new(),
            &mut |events| {
                written.extend(events);
                Ok(())
            },
            |directory, _| {
                directory.principals.get_mut(&id(3)).expect("there").roles.insert(Role::Admin);
            },
        );
        assert!(matches!(refused, Err(GateError::Denied { .. })), "principal {number}");
        assert_eq!(written[0].kind, EventKind::SecurityAccessDenied);
    }
    assert!(enter(&mut gate, &request(3, &[Permission::DeviceAllocate], &[("gpu0", 0)])).0.is_err());
}

#[test]
fn a_denial_outweighs_every_role_grant_and_permit_for_every_permission() {
    let everything = r"permit (principal, action, resource);";
    for permission in Permission::ALL {
        let device = if permission == Permission::AdminFullAccess { SYSTEM } else { "gpu0" };
        let directory = edited(2, |p| {
            p.roles = Role::ALL.into();
            p.granted = Permission::ALL.into();
            p.denied.insert(permission);
        });
        for other in Permission::ALL {
            let device = if other == Permission::AdminFullAccess { SYSTEM } else { device };
            let allowed = decide(
                directory.clone(),
                everything,
                &question(
                    2,
                    other,
                    if device == SYSTEM && other != Permission::AdminFullAccess { "gpu0" } else { device },
                ),
            )
            .allowed;
            assert_eq!(allowed, other != permission, "{permission} denied, {other} asked");
        }
    }
}

#[test]
fn names_of_devices_and_principals_are_data_and_never_policy() {
    let hostile = [
        "gpu0\" || true",
        "x\"};permit(principal,action,resource);//",
        "*",
        "",
        "../gpu0",
        "gpu0\0",
        "Role::\"admin\"",
        "\u{202e}gpu0",
    ];
    for device in hostile {
        let restricted = edited(3, |p| p.devices = Some(["gpu0".to_owned()].into()));
        assert!(!decide(restricted, "", &question(3, Permission::ComputeExecute, device)).allowed, "{device:?}");
    }
    // A principal that calls itself an administrator is none.
    let mut named = directory();
    let principal = Principal::new("Role::\"admin\"", identity(8).public(), Role::Monitor, at(NOW)).expect("encodes");
    named.principals.insert(id(8), principal);
    assert!(!decide(named, "", &question(8, Permission::AdminFullAccess, SYSTEM)).allowed);
}

#[test]
fn a_request_for_many_things_is_let_in_whole_or_not_at_all() {
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), &edited(3, |p| p.devices = Some(["gpu0".to_owned()].into())));
    let asks = [Permission::MemoryAllocate, Permission::ComputeExecute];
    let (answer, written) = enter(&mut gate, &request(3, &asks, &[("gpu0", 10), ("gpu1", 10)]));
    assert!(answer.is_err());
    assert_eq!(written.len(), 4, "the decisions that would have allowed are on record too");
    assert_eq!(gate.ledger().used(id(3)).expect("readable"), 0);
}

#[test]
fn a_flood_is_slowed_and_said_so() {
    let folder = tempdir().expect("a folder");
    let rate = isotherm_access::RateLimit { burst: 3, per_minute: 60 };
    let mut gate = gate(folder.path(), &edited(3, |p| p.rate = Some(rate)));
    let devices = [("gpu0", 0)];
    let mut asking = request(3, &[Permission::DeviceInfo], &devices);
    let through = (0..10).filter(|_| enter(&mut gate, &asking).0.is_ok()).count();
    assert_eq!(through, 3);
    let (refused, written) = enter(&mut gate, &asking);
    assert!(refused.expect_err("too many").to_string().contains("the next counts in 1000 ms"));
    assert_eq!(written[0].kind, EventKind::RateLimited);
    assert!(enter(&mut gate, &request(2, &[Permission::DeviceInfo], &devices)).0.is_ok(), "others go on");
    asking.now_ms += 1000;
    assert!(enter(&mut gate, &asking).0.is_ok());
}

#[test]
fn a_request_for_nothing_is_not_let_in_and_is_on_record() {
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), &directory());
    // Nobody denied anything, since nothing was asked; a caller that computes all the same must not have an admission.
    for (permissions, devices) in
        [(&[Permission::ComputeExecute][..], &[][..]), (&[][..], &[("gpu0", 10)][..]), (&[][..], &[][..])]
    {
        for number in [1, 4, 9] {
            let (answer, written) = enter(&mut gate, &request(number, permissions, devices));
            let refused = answer.expect_err("nothing");
            assert!(matches!(refused, GateError::Nothing) && refused.is_refusal(), "{refused}");
            assert_eq!(written[0].kind, EventKind::SecurityAccessDenied);
        }
    }
}

#[test]
fn a_denial_of_a_hostile_name_is_on_record_in_a_log_that_can_be_read() {
    use isotherm_audit::log::{Log, OnLock};
    let folder = tempdir().expect("a folder");
    let mut gate = gate(&folder.path().join("access"), &directory());
    let key = identity(1);
    let (mut log, _) = Log::open(&folder.path().join("log"), "isotherm.local/log", &key, OnLock::Refuse).expect("new");
    let long = "x".repeat(5000);
    for name in ["gpu0\0", "a\nb", "\u{202e}0upg", "", long.as_str()] {
        let devices = [(name, 0)];
        let asking = request(4, &[Permission::ComputeExecute], &devices);
        let refused =
            gate.enter(&asking, &mut |events| log.append_all(&events).map(|_| ()).map_err(|error| error.to_string()));
        assert!(matches!(refused, Err(GateError::Denied { .. })), "{name:?}: denied, and not merely unlogged");
    }
    assert_eq!(log.size(), 5);
    for entry in log.iter() {
        let entry = entry.expect("sound");
        let device = entry.device.expect("named");
        assert!(!device.is_empty() && device.len() <= 256 && !device.contains(char::is_control), "{device:?}");
    }
}
