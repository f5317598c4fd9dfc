//! Somebody steals, stretches, replays or forges a lease.

use crate::support::{NOW, at, identity, trusting};
use isotherm_audit::keys::Identity;
use isotherm_audit::lease::{
    LEASE_SECONDS_MAX, Lease, LeaseUse, SignedLease, lease, lease_use, open_lease, open_lease_use,
};
use isotherm_audit::manifest::Nonce;
use isotherm_audit::{OpenError, Verified, seal};
use isotherm_core::digest::Digest;
use std::collections::BTreeSet;

const HOLDER: u8 = 5;

fn sample() -> Lease {
    Lease {
        lease_id: Nonce([3; 16]),
        cluster_id: "home".to_owned(),
        principal: identity(HOLDER).id(),
        scopes: BTreeSet::from(["compute:execute".to_owned()]),
        devices: Some(BTreeSet::from(["gpu0".to_owned()])),
        memory_bytes_max: Some(1 << 30),
        created_on: at("2026-11-23T11:59:00Z"),
        not_before: at("2026-11-23T11:59:00Z"),
        expires_on: at("2026-11-23T13:00:00Z"),
    }
}

fn issued(edit: impl FnOnce(&mut Lease), by: &Identity) -> Vec<u8> {
    let mut claim = sample();
    edit(&mut claim);
    seal(&lease(claim), &[by]).expect("it holds together").envelope
}

fn opened() -> Verified<SignedLease> {
    open_lease(&issued(|_| {}, &identity(1)), &trusting(&[1], 1), at(NOW), "home").expect("rightful")
}

fn used(lease: Digest, made_on: &str, by: &Identity) -> Vec<u8> {
    let using = LeaseUse {
        operation: "compute:execute".to_owned(),
        device: "gpu0".to_owned(),
        memory_bytes: None,
        nonce: Nonce([9; 16]),
        made_on: at(made_on),
    };
    seal(&lease_use(lease, using), &[by]).expect("it holds together").envelope
}

#[test]
fn a_lease_counts_within_its_time_by_the_readers_clock_alone() {
    let envelope = issued(|_| {}, &identity(1));
    for (now, accepted) in [
        ("2026-11-23T11:58:59Z", false),
        ("2026-11-23T11:59:00Z", true),
        ("2026-11-23T12:59:59Z", true),
        ("2026-11-23T13:00:00Z", false),
        ("2030-01-01T00:00:00Z", false),
    ] {
        assert_eq!(open_lease(&envelope, &trusting(&[1], 1), at(now), "home").is_ok(), accepted, "{now}");
    }
    assert!(matches!(
        open_lease(&envelope, &trusting(&[1], 1), at(NOW), "work"),
        Err(OpenError::OtherPlace { what: "cluster", .. })
    ));
}

#[test]
fn only_an_issuer_issues_and_every_byte_counts() {
    assert!(open_lease(&issued(|_| {}, &identity(HOLDER)), &trusting(&[1], 1), at(NOW), "home").is_err());
    let envelope = issued(|_| {}, &identity(1));
    for position in 0..envelope.len() {
        let mut altered = envelope.clone();
        altered[position] ^= 1;
        assert!(open_lease(&altered, &trusting(&[1], 1), at(NOW), "home").is_err(), "byte {position}");
    }
}

#[test]
fn no_lease_is_longer_than_a_day_or_for_another_key_than_its_subject() {
    let long = |lease: &mut Lease| lease.expires_on = lease.created_on.later_by(LEASE_SECONDS_MAX + 1);
    let mut claim = sample();
    long(&mut claim);
    let refused = seal(&lease(claim), &[&identity(1)]).expect_err("too long").to_string();
    assert!(refused.contains("the limit is 86400 s"), "{refused}");
    issued(|lease| lease.expires_on = lease.created_on.later_by(LEASE_SECONDS_MAX), &identity(1));
    let mut other = lease(sample());
    other.subjects[0].digest = Digest::of(b"another key");
    assert!(seal(&other, &[&identity(1)]).is_err());
}

#[test]
fn a_stolen_lease_opens_nothing_without_the_holders_key() {
    let lease = opened();
    let good = used(lease.payload_digest(), NOW, &identity(HOLDER));
    open_lease_use(&good, &lease, identity(HOLDER).public(), at(NOW)).expect("the holder uses it");
    // The thief signs with a key of its own, under its own or the holder's name.
    let stolen = used(lease.payload_digest(), NOW, &identity(8));
    assert!(open_lease_use(&stolen, &lease, identity(8).public(), at(NOW)).is_err());
    assert!(open_lease_use(&stolen, &lease, identity(HOLDER).public(), at(NOW)).is_err());
    let other = used(Digest::of(b"another lease"), NOW, &identity(HOLDER));
    assert!(matches!(
        open_lease_use(&other, &lease, identity(HOLDER).public(), at(NOW)),
        Err(OpenError::OtherUse { .. })
    ));
    // A lease is no use of itself.
    let issued = issued(|_| {}, &identity(HOLDER));
    assert!(open_lease_use(&issued, &lease, identity(HOLDER).public(), at(NOW)).is_err());
}

#[test]
fn a_use_counts_for_a_minute() {
    let lease = opened();
    let good = used(lease.payload_digest(), NOW, &identity(HOLDER));
    for (now, accepted) in [
        ("2026-11-23T11:58:59Z", false),
        ("2026-11-23T11:59:00Z", true),
        ("2026-11-23T12:00:59Z", true),
        ("2026-11-23T12:01:00Z", false),
    ] {
        let opened = open_lease_use(&good, &lease, identity(HOLDER).public(), at(now));
        assert_eq!(opened.is_ok(), accepted, "{now}");
    }
}
