//! The seeds of the fuzz target that signs its input itself are what they say, once signed: otherwise it would only ever
//! see refusals.

use crate::support::{Forged, NOW, at, identity, trusting};
use isotherm_audit::handover::open_hand_over;
use isotherm_audit::keyset::KeySet;
use isotherm_audit::lease::{Lease, lease, open_lease, open_lease_use};
use isotherm_audit::manifest::Nonce;
use isotherm_audit::seal;
use std::path::Path;

fn seed(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/token").join(name);
    std::fs::read(path).expect("seeds are tracked")
}

#[test]
fn the_seeds_of_tokens_open_once_they_are_signed() {
    let (issuer, holder) = (identity(1), identity(2));
    let signed = |name: &str, by: &[u8]| Forged::signed(&seed(name), by).bytes();
    let opened = open_lease(&signed("seed-lease", &[1]), &trusting(&[1], 1), at(NOW), "home").expect("a lease");
    assert_eq!(opened.predicate.memory_bytes_max, Some(1024));
    let claim = Lease {
        lease_id: Nonce([3; 16]),
        cluster_id: "home".to_owned(),
        principal: holder.id(),
        scopes: ["compute:execute".to_owned()].into(),
        devices: None,
        memory_bytes_max: None,
        created_on: at(NOW),
        not_before: at(NOW),
        expires_on: at("2026-11-23T13:00:00Z"),
    };
    let sealed = seal(&lease(claim), &[&issuer]).expect("it holds together");
    let lent = open_lease(&sealed.envelope, &trusting(&[1], 1), at(NOW), "home").expect("rightful");
    open_lease_use(&signed("seed-use", &[2]), &lent, holder.public(), at(NOW)).expect("a use of that lease");
    let set = KeySet::first(&signed("seed-set", &[1, 2]), &trusting(&[1], 1), at(NOW), "home").expect("a set of keys");
    assert_eq!(set.claim().keys.len(), 2);
    let origin = "isotherm.example/fuzz";
    let handed = open_hand_over(&signed("seed-handover", &[1, 2]), origin, issuer.public()).expect("a handover");
    assert_eq!(handed.to.id(), holder.id());
    assert!(String::from_utf8(seed("seed-checkpoint")).expect("text").starts_with(origin));
}
