//! Any bytes as a lease, a use of one, a set of keys, a handover and a request to a witness: an error, and never a panic;
//! nothing opens under a key that signed nothing.

use isotherm_audit::handover::open_hand_over;
use isotherm_audit::keys::{Identity, Seed, TrustedKeys};
use isotherm_audit::keyset::{KeySet, KeySetClaim};
use isotherm_audit::lease::{Lease, LeaseUse, open_lease};
use isotherm_audit::log::witness::{Watched, Witness};
use isotherm_audit::{inspect, time::Timestamp};
use std::sync::LazyLock;

static STRANGER: LazyLock<(Identity, TrustedKeys)> = LazyLock::new(|| {
    let identity = Identity::from_seed(&Seed::from_bytes([0x5e; 32])).expect("any seed is a key");
    let trusted = TrustedKeys::new([identity.public().clone()], 1).expect("one of one");
    (identity, trusted)
});

/// Panics where the promise above is broken.
pub fn check(data: &[u8]) {
    let (identity, trusted) = &*STRANGER;
    let now: Timestamp = "2026-11-23T12:00:00Z".parse().expect("an instant");
    assert!(open_lease(data, trusted, now, "home").is_err());
    assert!(inspect::<Lease>(data, trusted).is_err());
    assert!(inspect::<LeaseUse>(data, trusted).is_err());
    assert!(inspect::<KeySetClaim>(data, trusted).is_err());
    assert!(KeySet::first(data, trusted, now, "home").is_err());
    assert!(open_hand_over(data, "isotherm.example/fuzz", identity.public()).is_err());
    let memory = std::env::temp_dir().join(format!("isotherm-witness-{}", std::process::id()));
    let witness = Witness::open("witness.example", identity, &memory).expect("the scratch folder is writable");
    let watched = Watched { origin: "isotherm.example/fuzz".to_owned(), key: identity.public().clone() };
    assert!(witness.answer(data, &watched, now).is_err());
    assert!(witness.follow(data, &watched).is_err());
}
