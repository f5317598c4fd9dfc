//! Any bytes as an envelope, and any edits of a good one: an error, or the one payload that the key signed. And what is
//! signed says where type and payload begin and end, whatever is in them.

use isotherm_audit::envelope::pre_authentication_encoding;
use isotherm_audit::keys::{Identity, Seed, TrustedKeys};
use isotherm_audit::lease::{LeaseUse, lease_use};
use isotherm_audit::manifest::Nonce;
use isotherm_audit::{inspect, seal};
use std::sync::LazyLock;

/// Most edits of one input.
const EDITS_MAX: usize = 64;

static GOOD: LazyLock<(TrustedKeys, Vec<u8>, isotherm_audit::Inspected<LeaseUse>)> = LazyLock::new(|| {
    let identity = Identity::from_seed(&Seed::from_bytes([1; 32])).expect("any seed is a key");
    let trusted = TrustedKeys::new([identity.public().clone()], 1).expect("one of one");
    let claim = LeaseUse {
        operation: "compute:execute".to_owned(),
        device: "gpu0".to_owned(),
        memory_bytes: Some(7),
        nonce: Nonce([5; 16]),
        made_on: "2026-11-23T12:00:00Z".parse().expect("an instant"),
    };
    let sealed = seal(&lease_use(isotherm_core::digest::Digest::of(b"a lease"), claim), &[&identity]);
    let envelope = sealed.expect("it holds together").envelope;
    let inspected = inspect::<LeaseUse>(&envelope, &trusted).expect("it was sealed");
    (trusted, envelope, inspected)
});

fn opens_to_nothing_else(envelope: &[u8]) {
    let (trusted, _, good) = &*GOOD;
    if let Ok(opened) = inspect::<LeaseUse>(envelope, trusted) {
        assert_eq!(&opened, good, "the key signed something else");
    }
}

/// Type and payload of what is signed, by its lengths alone.
fn taken_apart(signed: &[u8]) -> Option<(&[u8], &[u8])> {
    let field = |bytes: &'static [u8], rest: &'_ [u8]| rest.starts_with(bytes).then_some(bytes.len());
    let after = field(b"DSSEv1 ", signed)?;
    let counted = |rest: &[u8]| -> Option<(usize, usize)> {
        let space = rest.iter().position(|byte| *byte == b' ')?;
        Some((str::from_utf8(&rest[..space]).ok()?.parse().ok()?, space + 1))
    };
    let rest = &signed[after..];
    let (length, from) = counted(rest)?;
    let (kind, rest) = rest[from..].split_at_checked(length)?;
    let rest = rest.strip_prefix(b" ")?;
    let (length, from) = counted(rest)?;
    let payload = &rest[from..];
    (payload.len() == length).then_some((kind, payload))
}

/// Panics where the promise above is broken.
pub fn check(data: &[u8]) {
    opens_to_nothing_else(data);
    let mut edited = GOOD.1.clone();
    let (edits, _) = data.as_chunks::<4>();
    for [high, low, how, byte] in edits.iter().take(EDITS_MAX) {
        let at = (usize::from(*high) << 8 | usize::from(*low)) % (edited.len() + 1);
        match how % 3 {
            0 if at < edited.len() => edited[at] = *byte,
            1 if at < edited.len() => drop(edited.remove(at)),
            _ => edited.insert(at, *byte),
        }
        opens_to_nothing_else(&edited);
    }
    let Some((split, rest)) = data.split_first() else { return };
    let (kind, payload) = rest.split_at(usize::from(*split).min(rest.len()));
    if let Ok(kind) = str::from_utf8(kind) {
        let signed = pre_authentication_encoding(kind, payload);
        assert_eq!(taken_apart(&signed), Some((kind.as_bytes(), payload)));
    }
}
