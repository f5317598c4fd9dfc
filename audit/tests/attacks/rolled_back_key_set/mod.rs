//! Somebody brings an old set of keys back, makes one without enough keys, or signs a manifest without enough roles.

use crate::support::{NOW, at, expected, identity, sealed, trusting};
use isotherm_audit::keyset::{APPROVER, KeySet, KeySetClaim, PLANNER, ROOT, Role, statement};
use isotherm_audit::{OpenError, open_by_roles, seal};
use isotherm_core::digest::Digest;
use std::collections::{BTreeMap, BTreeSet};

const EXPIRES: &str = "2026-12-31T00:00:00Z";

fn role(threshold: u32, keys: &[u8]) -> Role {
    Role { threshold, keys: keys.iter().map(|n| identity(*n).id()).collect() }
}

fn claim(version: u64, previous: Option<Digest>, roles: &[(&str, Role)]) -> KeySetClaim {
    let ids: BTreeSet<_> = roles.iter().flat_map(|(_, role)| role.keys.clone()).collect();
    let pem = |n: u8| (identity(n).id().to_string(), identity(n).public().to_pem().expect("encodes"));
    KeySetClaim {
        cluster_id: "home".to_owned(),
        version,
        keys: (1..=9).filter(|n| ids.contains(&identity(*n).id())).map(pem).collect(),
        roles: roles.iter().map(|(name, role)| ((*name).to_owned(), role.clone())).collect(),
        created_on: at("2026-11-01T00:00:00Z"),
        expires_on: at(EXPIRES),
        previous,
    }
}

fn signed(claim: KeySetClaim, by: &[u8]) -> Vec<u8> {
    let signers: Vec<_> = by.iter().map(|n| identity(*n)).collect();
    seal(&statement(claim), &signers.iter().collect::<Vec<_>>()).expect("it holds together").envelope
}

/// Roots 1, 2, 3 (two of them); planner 4; approvers 5 and 6 (one of them).
fn roles() -> [(&'static str, Role); 3] {
    [(ROOT, role(2, &[1, 2, 3])), (PLANNER, role(1, &[4])), (APPROVER, role(1, &[5, 6]))]
}

fn first() -> KeySet {
    KeySet::first(&signed(claim(1, None, &roles()), &[1, 2]), &trusting(&[1], 1), at(NOW), "home").expect("accepted")
}

#[test]
fn a_manifest_needs_a_planner_and_an_approver_whoever_else_signed() {
    let set = first();
    for (signers, role) in [
        (vec![4, 5], None),
        (vec![4, 6], None),
        (vec![4, 5, 6], None),
        (vec![4], Some(APPROVER)),
        (vec![5, 6], Some(PLANNER)),
        (vec![4, 1, 2, 3], Some(APPROVER)),
        (vec![4, 9], Some(APPROVER)),
    ] {
        let opened = open_by_roles(&sealed(&signers).envelope, &set, at(NOW), &expected());
        match role {
            None => assert!(opened.is_ok(), "{signers:?}"),
            Some(missing) => assert!(
                matches!(&opened, Err(OpenError::BelowRole { role, distinct: 0, threshold: 1 }) if role == missing),
                "{signers:?}: {opened:?}"
            ),
        }
    }
    let strangers = open_by_roles(&sealed(&[9]).envelope, &set, at(NOW), &expected());
    assert!(matches!(strangers, Err(OpenError::BelowThreshold { .. })));
    let late = open_by_roles(&sealed(&[4, 5]).envelope, &set, at(EXPIRES), &expected());
    assert!(matches!(late, Err(OpenError::Expired { .. })), "by an expired set nothing counts");
}

#[test]
fn the_next_set_needs_enough_of_the_old_root_and_of_its_own() {
    let set = first();
    let next = || {
        let roles = [(ROOT, role(2, &[2, 7, 8])), (PLANNER, role(1, &[4])), (APPROVER, role(1, &[5]))];
        claim(2, Some(set.payload_digest()), &roles)
    };
    for (by, accepted) in [
        (vec![1, 2, 7], true),
        (vec![2, 3, 8], true),
        (vec![1, 2], false),
        (vec![7, 8], false),
        (vec![2, 7], false),
        (vec![4, 5, 7, 8], false),
    ] {
        assert_eq!(set.next(&signed(next(), &by), at(NOW)).is_ok(), accepted, "{by:?}");
    }
    let second = set.next(&signed(next(), &[1, 2, 7]), at(NOW)).expect("accepted");
    assert_eq!(second.claim().version, 2);
    // An approver who was taken out counts no more.
    let out = open_by_roles(&sealed(&[4, 6]).envelope, &second, at(NOW), &expected());
    assert!(matches!(out, Err(OpenError::BelowRole { .. })));
}

#[test]
fn a_rolled_back_or_skipped_set_is_refused() {
    let set = first();
    let second = claim(2, Some(set.payload_digest()), &roles());
    let second = set.next(&signed(second, &[1, 2]), at(NOW)).expect("accepted");
    // The first set again, and another second set, both rightly signed.
    let again = second.next(&signed(claim(1, None, &roles()), &[1, 2]), at(NOW)).expect_err("rolled back");
    assert!(matches!(again, OpenError::Rollback { counter: 1, minimum: 3 }), "{again}");
    let other = claim(2, Some(Digest::of(b"another")), &roles());
    assert!(matches!(second.next(&signed(other, &[1, 2]), at(NOW)), Err(OpenError::Rollback { .. })));
    let skipped = claim(4, Some(second.payload_digest()), &roles());
    assert!(matches!(second.next(&signed(skipped, &[1, 2]), at(NOW)), Err(OpenError::OtherPredecessor { .. })));
    let elsewhere = claim(3, Some(set.payload_digest()), &roles());
    assert!(matches!(second.next(&signed(elsewhere, &[1, 2]), at(NOW)), Err(OpenError::OtherPredecessor { .. })));
    let late = KeySet::first(&signed(claim(1, None, &roles()), &[1, 2]), &trusting(&[1], 1), at(EXPIRES), "home");
    assert!(matches!(late, Err(OpenError::Expired { .. })));
    let other_cluster = KeySet::first(&signed(claim(1, None, &roles()), &[1, 2]), &trusting(&[1], 1), at(NOW), "work");
    assert!(matches!(other_cluster, Err(OpenError::OtherPlace { .. })));
    let not_first = claim(2, Some(Digest::of(b"x")), &roles());
    assert!(KeySet::first(&signed(not_first, &[1, 2]), &trusting(&[1], 1), at(NOW), "home").is_err());
}

#[test]
fn sets_that_could_not_be_lived_with_are_not_sealed() {
    let refused = |edit: &dyn Fn(&mut KeySetClaim)| {
        let mut claim = claim(1, None, &roles());
        edit(&mut claim);
        seal(&statement(claim), &[&identity(1)]).expect_err("contradicts itself").to_string()
    };
    assert!(refused(&|c| c.version = 0).contains("version 0"));
    assert!(refused(&|c| c.version = 2).contains("does not name"));
    assert!(refused(&|c| c.roles = BTreeMap::new()).contains("no role root"));
    assert!(refused(&|c| c.roles.get_mut(ROOT).expect("root").threshold = 0).contains("needs 0 of 3"));
    assert!(refused(&|c| c.roles.get_mut(ROOT).expect("root").threshold = 4).contains("needs 4 of 3"));
    assert!(refused(&|c| drop(c.roles.insert("king".to_owned(), role(1, &[1])))).contains("\"king\""));
    assert!(refused(&|c| drop(c.roles.insert(APPROVER.to_owned(), role(1, &[4])))).contains("plans and approves"));
    assert!(refused(&|c| drop(c.keys.remove(&identity(4).id().to_string()))).contains("not in the set"));
    let swapped = |c: &mut KeySetClaim| {
        let pem = identity(9).public().to_pem().expect("encodes");
        c.keys.insert(identity(4).id().to_string(), pem);
    };
    assert!(refused(&swapped).contains("the key under"));
}

#[test]
fn one_root_key_signing_twice_is_one() {
    use crate::support::{Forged, payload_of};
    let payload = payload_of(&signed(claim(1, None, &roles()), &[1]));
    let forged = Forged::signed(&payload, &[1, 1]).bytes();
    let refused = KeySet::first(&forged, &trusting(&[1], 1), at(NOW), "home").expect_err("one of two roots");
    assert!(matches!(refused, OpenError::BelowThreshold { distinct: 1, threshold: 2, .. }), "{refused}");
}
