//! What each role may do, and why.

use crate::support::{GIB, NOW, at, decide, directory, edited, enter, gate, id, identity, question, request};
use isotherm_access::authority::{POLICIES, PolicyError, SYSTEM};
use isotherm_access::directory::DirectoryError;
use isotherm_access::{Authority, Directory, GateError, Permission, Principal, Request, Role};
use isotherm_audit::log::EventKind;
use std::collections::BTreeSet;
use tempfile::tempdir;

/// The permissions of each role, written out: monitor 6, user 9, power user 14, admin 15.
fn table(role: Role) -> BTreeSet<&'static str> {
    let monitor =
        ["device:list", "device:info", "monitor:memory", "monitor:temperature", "monitor:power", "monitor:clock"];
    let user = [
        "device:list",
        "device:info",
        "memory:allocate",
        "memory:deallocate",
        "memory:copy_to_device",
        "memory:copy_from_device",
        "compute:execute",
        "compute:synchronize",
        "monitor:memory",
    ];
    let more =
        ["device:allocate", "memory:copy_device_to_device", "monitor:temperature", "monitor:power", "monitor:clock"];
    match role {
        Role::Monitor => monitor.into(),
        Role::User => user.into(),
        Role::PowerUser => user.into_iter().chain(more).collect(),
        Role::Admin => user.into_iter().chain(more).chain(["admin:full_access"]).collect(),
    }
}

#[test]
fn every_role_may_do_exactly_what_its_row_says() {
    assert_eq!(Role::ALL.map(|role| table(role).len()), [6, 9, 14, 15]);
    let authority = Authority::new(directory(), "").expect("the shipped policies hold");
    for (number, role) in [(1, Role::Admin), (2, Role::PowerUser), (3, Role::User), (4, Role::Monitor)] {
        for permission in Permission::ALL {
            let device = if permission == Permission::AdminFullAccess { SYSTEM } else { "gpu0" };
            let decision = authority.decide(&question(number, permission, device));
            assert_eq!(decision.allowed, table(role).contains(permission.name()), "{role} {permission}: {decision:?}");
            if decision.allowed {
                let policy = format!("role-{}", role.name().replace('_', "-"));
                assert_eq!(decision.policies, [policy], "the deciding policy is named");
            } else {
                assert_eq!((decision.policies.len(), decision.because().as_str()), (0, "no policy permits it"));
            }
        }
    }
    assert!(!authority.decide(&question(9, Permission::DeviceList, "gpu0")).allowed, "a stranger");
}

#[test]
fn each_limit_refuses_in_its_own_name_and_only_beyond_itself() {
    use Permission::{ComputeExecute, MemoryAllocate};
    let named = |directory: Directory, question| {
        let decision = decide(directory, "", &question);
        (decision.allowed, decision.policies.join(","))
    };
    let refused = |policy: &str| (false, policy.to_owned());
    let granted = edited(4, |p| {
        p.granted.insert(ComputeExecute);
    });
    assert_eq!(named(granted, question(4, ComputeExecute, "gpu0")), (true, "granted".to_owned()));
    let denied = edited(3, |p| {
        p.denied.insert(ComputeExecute);
    });
    assert_eq!(named(denied, question(3, ComputeExecute, "gpu0")), refused("denied"));
    let until = |text: &str| edited(3, |p| p.expires_on = Some(at(text)));
    assert_eq!(named(until("2026-11-23T12:00:00Z"), question(3, ComputeExecute, "gpu0")), refused("expired"));
    assert!(named(until("2026-11-23T12:00:01Z"), question(3, ComputeExecute, "gpu0")).0);
    for (device, allowed) in [("gpu0", true), ("gpu1", true), ("gpu2", true), ("gpu3", false)] {
        let allotted = edited(3, |p| {
            p.pools = Some(["lab".to_owned()].into());
            p.devices = Some(["gpu2".to_owned()].into());
        });
        let found = named(allotted, question(3, ComputeExecute, device));
        assert_eq!(found.0, allowed, "{device}");
        assert!(allowed || found == refused("outside-allotment"));
    }
    let mut cordoned = directory();
    cordoned.cordoned.insert("gpu0".to_owned());
    assert_eq!(named(cordoned.clone(), question(1, ComputeExecute, "gpu0")), refused("cordoned"));
    assert!(named(cordoned, question(1, Permission::MonitorPower, "gpu0")).0, "it may still be watched");
    let quota = || edited(3, |p| p.quota_bytes = Some(10 * GIB));
    for (used, asked, allowed) in
        [(0, 10, true), (0, 11, false), (9, 1, true), (9, 2, false), (10, 0, true), (11, 0, true)]
    {
        let mut asking = question(3, MemoryAllocate, "gpu0");
        (asking.used_bytes, asking.request_bytes) = (used * GIB, asked * GIB);
        let found = named(quota(), asking);
        assert_eq!(found.0, allowed, "{used} + {asked}");
        assert!(allowed || found == refused("over-quota"));
    }
    // Numbers at the end of the range are refused, not wrapped around.
    let mut huge = question(3, MemoryAllocate, "gpu0");
    (huge.used_bytes, huge.request_bytes) = (u64::MAX, u64::MAX);
    assert_eq!(named(quota(), huge), refused("over-quota"));
}

#[test]
fn a_forbid_of_the_installation_overrides_administrators_too() {
    let site = r#"@id("night") @reason("nobody computes on gpu0 at night")
        forbid (principal, action == Action::"compute:execute", resource == Device::"gpu0");"#;
    let decision = decide(directory(), site, &question(1, Permission::ComputeExecute, "gpu0"));
    assert_eq!((decision.allowed, decision.policies), (false, vec!["night".to_owned()]));
    assert_eq!(decision.reasons, ["nobody computes on gpu0 at night"]);
    assert!(decide(directory(), site, &question(1, Permission::ComputeExecute, "gpu1")).allowed);
}

#[test]
fn policies_are_checked_before_they_count() {
    let refused = |site: &str| Authority::new(directory(), site).err().unwrap_or_else(|| panic!("accepted: {site}"));
    assert!(matches!(refused("permit (principal"), PolicyError::Parse(_)));
    // A name that does not exist, a comparison that has no meaning, an attribute that may be absent.
    for site in [
        r#"permit (principal, action == Action::"memory:steal", resource);"#,
        r"permit (principal, action, resource) when { principal.name > 3 };",
        r"permit (principal, action, resource) when { principal.quota_bytes > 3 };",
        r"permit (principal, action, resource) when { resource.colour };",
        r#"permit (principal in Team::"x", action, resource);"#,
    ] {
        assert!(matches!(refused(site), PolicyError::Invalid { .. }), "{site}");
    }
    let twice = POLICIES.lines().find(|line| line.contains("@id")).expect("a shipped policy has a name");
    let twice = refused(&format!("{twice} permit (principal, action, resource);"));
    assert!(matches!(&twice, PolicyError::Twice { id } if id == "role-monitor"), "{twice}");
    assert!(matches!(refused("permit (principal == ?principal, action, resource);"), PolicyError::Template { .. }));
    assert!(matches!(refused(&" ".repeat(2 << 20)), PolicyError::TooLarge { .. }));
}

#[test]
fn a_policy_that_fails_while_it_is_evaluated_refuses() {
    // Cedar skips a policy that errs; a forbid that is skipped would let through what it forbids.
    let site = r#"@id("sum") forbid (principal, action, resource)
        when { context.used_bytes * 9 > 0 && context.used_bytes == 1 };"#;
    let mut asking = question(1, Permission::ComputeExecute, "gpu0");
    asking.used_bytes = u64::MAX;
    let decision = decide(directory(), site, &asking);
    assert!(!decision.allowed && decision.because().contains("could not be evaluated"), "{decision:?}");
    asking.used_bytes = 0;
    assert!(decide(directory(), site, &asking).allowed);
}

#[test]
fn a_directory_that_misleads_or_has_no_administrator_is_refused() {
    let good = directory().write().expect("writes");
    assert_eq!(Directory::read(&good).expect("reads"), directory());
    let text = String::from_utf8(good).expect("UTF-8");
    let other_key = text.replacen(&id(3).to_string(), &id(9).to_string(), 1);
    assert!(matches!(Directory::read(other_key.as_bytes()), Err(DirectoryError::Principal { .. })));
    assert!(matches!(Directory::read(text.replacen("/v1", "/v2", 1).as_bytes()), Err(DirectoryError::Schema { .. })));
    assert!(matches!(
        Directory::read(text.replacen("\"admin\"\n", "\"user\"\n", 1).as_bytes()),
        Err(DirectoryError::NoAdministrator)
    ));
    assert!(Directory::read(text.replacen("\"roles\"", "\"rolls\"", 1).as_bytes()).is_err());
    assert!(Directory::read(text.replace("\"monitor\"", "\"king\"").as_bytes()).is_err());
    let mut revoked = directory();
    revoked.revoked_keys.insert(id(1));
    assert!(matches!(revoked.check(), Err(DirectoryError::NoAdministrator)));
}

#[test]
fn every_decision_is_written_down_before_it_counts() {
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), &directory());
    let devices = [("gpu0", GIB), ("gpu1", 2 * GIB)];
    let asks = [Permission::MemoryAllocate, Permission::ComputeExecute];
    let (answer, written) = enter(&mut gate, &request(3, &asks, &devices));
    let admission = answer.expect("a user may");
    let kinds: Vec<_> = written.iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        [EventKind::MemoryAllocate, EventKind::MemoryAllocate, EventKind::ComputeExecute, EventKind::ComputeExecute]
    );
    assert_eq!(gate.ledger().used(id(3)).expect("readable"), 3 * GIB);
    gate.commit(&admission, at(NOW)).expect("reserved");
    let mut released = Vec::new();
    gate.leave(admission, at(NOW), &mut |events| {
        released.extend(events);
        Ok(())
    })
    .expect("held");
    assert_eq!(released[0].kind, EventKind::MemoryDeallocate);
    assert_eq!(gate.ledger().used(id(3)).expect("readable"), 0);
    let (answer, written) = enter(&mut gate, &request(4, &[Permission::ComputeExecute], &devices));
    assert!(answer.expect_err("a monitor may not").is_refusal());
    assert!(written.iter().all(|event| event.kind == EventKind::SecurityAccessDenied) && written.len() == 2);
    // A log that cannot be written lets nobody in, and nothing stays reserved.
    let unlogged = gate.enter(&request(3, &asks, &devices), &mut |_| Err("disk full".to_owned()));
    assert!(matches!(unlogged, Err(GateError::NotLogged(_))));
    assert_eq!(gate.ledger().used(id(3)).expect("readable"), 0);
}

#[test]
fn what_an_administrator_changes_counts_at_once_in_every_process() {
    let folder = tempdir().expect("a folder");
    let mut one = gate(folder.path(), &directory());
    let mut other = isotherm_access::Gate::open(folder.path()).expect("opens");
    let devices = [("gpu0", 0)];
    let asks = [Permission::ComputeExecute];
    assert!(enter(&mut other, &request(3, &asks, &devices)).0.is_ok());
    assert!(other.still_allowed(&request(3, &asks, &devices)).expect("readable").is_none(), "remembered for a second");
    one.administer(id(1), at(NOW), Vec::new(), &mut |_| Ok(()), |directory, _| {
        directory.revoked_keys.insert(id(3));
    })
    .expect("an administrator may");
    let refused = enter(&mut other, &request(3, &asks, &devices)).0.expect_err("revoked");
    assert!(refused.to_string().contains("revoked"), "{refused}");
    let stopped = other.still_allowed(&request(3, &asks, &devices)).expect("readable");
    assert!(stopped.is_some_and(|decision| decision.policies == ["revoked"]), "a job that runs is stopped too");
    assert!(other.still_allowed(&request(2, &asks, &devices)).expect("readable").is_none());
    // Rules that would lock everybody out, or do not hold, are not written.
    let before = std::fs::read(folder.path().join("principals.json")).expect("readable");
    let out = one.administer(id(1), at(NOW), Vec::new(), &mut |_| Ok(()), |directory, _| {
        directory.principals.remove(&id(1));
    });
    assert!(matches!(out, Err(GateError::Directory(DirectoryError::NoAdministrator))));
    let wrong = one.administer(id(1), at(NOW), Vec::new(), &mut |_| Ok(()), |_, site| site.push_str("permit"));
    assert!(matches!(wrong, Err(GateError::Policy(_))));
    assert_eq!(std::fs::read(folder.path().join("principals.json")).expect("readable"), before);
}

#[test]
fn what_was_allowed_a_moment_ago_says_nothing_about_another_request() {
    let folder = tempdir().expect("a folder");
    let site = r#"forbid (principal, action, resource is Device) when { context.now > 1795478400 };
        forbid (principal, action, resource == Device::"gpu1");"#;
    let mut gate = gate(folder.path(), &directory());
    gate.administer(id(1), at(NOW), Vec::new(), &mut |_| Ok(()), |_, own| own.push_str(site)).expect("it may");
    let (asks, both) = ([Permission::ComputeExecute], [Permission::ComputeExecute, Permission::DeviceAllocate]);
    let devices = [("gpu0", 0)];
    let mut allowed = |asked: &Request<'_>| gate.still_allowed(asked).expect("readable").is_none();
    let one = request(3, &asks, &devices);
    assert!(allowed(&one) && allowed(&one));
    assert!(!allowed(&request(4, &asks, &devices)), "somebody else");
    assert!(allowed(&one));
    assert!(!allowed(&request(3, &both, &devices)), "something else");
    assert!(allowed(&one));
    assert!(!allowed(&request(3, &asks, &[("gpu0", 0), ("gpu1", 0)])), "on something else");
    assert!(allowed(&one));
    assert!(!allowed(&Request { now: at("2026-11-24T00:00:01Z"), ..one.clone() }), "at another time");
    assert!(allowed(&one), "what was refused is not remembered either");
}

#[test]
fn a_name_that_two_have_means_neither() {
    let directory = edited(3, |p| p.name = "monitor".to_owned());
    assert_eq!(directory.find("monitor"), None);
    assert_eq!(directory.find("admin"), Some(id(1)));
    assert_eq!(directory.find(&identity(4).id().to_string()), Some(id(4)));
}

/// Tries a change in the name of the host's own administrator, and says whether the rules on disk stayed as they were.
fn tried(change: impl FnOnce(&mut Directory, &mut String)) -> (Result<(), GateError>, bool) {
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), &edited(2, |p| p.roles = [Role::Admin].into()));
    let rules = |name: &str| std::fs::read(folder.path().join(name)).ok();
    let before = (rules("principals.json"), rules("site.cedar"));
    let answer = gate.administer(id(1), at(NOW), Vec::new(), &mut |_| Ok(()), change);
    (answer, before == (rules("principals.json"), rules("site.cedar")))
}

#[test]
fn no_change_locks_out_the_one_who_makes_it_though_another_administrator_stays() {
    type Change = fn(&mut Directory, &mut String);
    let forbid = "forbid (principal, action == Action::\"admin:full_access\", resource)";
    fn own(directory: &mut Directory) -> &mut Principal {
        directory.principals.get_mut(&id(1)).expect("there")
    }
    let changes: [(&str, Change, bool); 5] = [
        ("revoked", |rules, _| _ = rules.revoked_keys.insert(id(1)), false),
        ("gone", |rules, _| _ = rules.principals.remove(&id(1)), false),
        ("denied", |rules, _| _ = own(rules).denied.insert(Permission::AdminFullAccess), false),
        ("another role", |rules, _| own(rules).roles = [Role::User].into(), false),
        ("a time that ends", |rules, _| own(rules).expires_on = Some(at("2026-11-24T12:00:00Z")), true),
    ];
    for (what, change, in_time) in changes {
        let (answer, kept) = tried(change);
        assert!(matches!(answer, Err(GateError::LockedOut { later, .. }) if later == in_time), "{what}: {answer:?}");
        assert!(kept, "{what}");
    }
    for end in [";".to_owned(), " when { context.now > 2000000000 };".to_owned()] {
        let (answer, kept) = tried(|_, site| *site = format!("{forbid}{end}"));
        assert!(matches!(answer, Err(GateError::LockedOut { .. })) && kept, "{end}: {answer:?}");
    }
    // The same to another administrator, and a policy about another, are no lockout.
    let (answer, kept) = tried(|rules, site| {
        rules.revoked_keys.insert(id(2));
        *site = format!("{forbid} when {{ principal.name == \"guest\" }};");
    });
    assert!(answer.is_ok() && !kept, "{answer:?}");
    let (answer, _) = tried(|rules, _| own(rules).expires_on = None);
    assert!(answer.is_ok(), "{answer:?}");
}

#[test]
fn a_lockout_that_was_there_before_does_not_keep_anybody_from_mending_it() {
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), &edited(1, |p| p.expires_on = Some(at("2026-11-24T12:00:00Z"))));
    let mut mend = |change: fn(&mut Directory)| {
        gate.administer(id(1), at(NOW), Vec::new(), &mut |_| Ok(()), |rules, _| change(rules))
    };
    mend(|rules| _ = rules.cordoned.insert("gpu0".to_owned())).expect("another matter");
    mend(|rules| rules.principals.get_mut(&id(1)).expect("there").expires_on = None).expect("mended");
}

#[test]
fn policies_that_cannot_be_evaluated_are_not_put_in_force() {
    // It fits the schema: the fault is in the sum alone, and shows when it is made.
    let overflow = "@id(\"sum\") forbid (principal, action == Action::\"monitor:power\", resource)
        when { context.now * 9223372036854775807 > 0 };";
    let (answer, kept) = tried(|_, site| *site = overflow.to_owned());
    let undecided = |permission: &Permission| *permission == Permission::MonitorPower;
    assert!(
        matches!(&answer, Err(GateError::Policy(PolicyError::Undecided { permission, .. })) if undecided(permission)),
        "{answer:?}"
    );
    assert!(kept);
}

#[test]
fn the_longest_chain_that_is_read_is_still_held_to_the_schema() {
    let chain = |terms: usize, last: &str| {
        format!("permit (principal, action, resource) when {{ {}{last} > 0 }};", "1 + ".repeat(terms))
    };
    let sound = Authority::new(directory(), &chain(990, "1")).expect("a sum");
    let on_a_small_stack = sound.decide(&question(4, Permission::ComputeExecute, "gpu0"));
    assert!(on_a_small_stack.allowed || on_a_small_stack.because().contains("could not be evaluated"));
    let wrong = Authority::new(directory(), &chain(990, "principal.name")).err();
    assert!(matches!(wrong, Some(PolicyError::Invalid { .. })), "text in a sum at the bottom: {wrong:?}");
    assert!(matches!(Authority::new(directory(), &chain(1001, "1")), Err(PolicyError::TooDeep { .. })));
}

#[test]
fn a_name_that_misleads_or_reads_as_an_id_is_refused() {
    for name in ["a\u{202e}b", "a\u{200f}", "\u{2066}a", "\u{61c}a", "a\u{2028}b", "a\nb", "\u{1b}[2J", ""] {
        let named = edited(3, |p| p.name = name.to_owned());
        assert!(matches!(named.check(), Err(DirectoryError::Name { .. })), "{name:?}");
    }
    assert!(edited(3, |p| p.name = "Zoë Ωmega 名".to_owned()).check().is_ok());
    for name in ["ab".repeat(16), "AB".repeat(16), "0f".repeat(32)] {
        let (answer, kept) = tried(|rules, _| rules.principals.get_mut(&id(3)).expect("there").name.clone_from(&name));
        assert!(matches!(answer, Err(GateError::Directory(DirectoryError::Identifier { .. }))) && kept, "{name}");
    }
    // Rules that hold such a name from before go on.
    let old = edited(3, |p| p.name = "ab".repeat(16));
    assert!(old.check().is_ok() && old.check_names(&old).is_ok());
}
