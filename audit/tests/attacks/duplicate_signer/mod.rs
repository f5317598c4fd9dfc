//! One key counts as two: it signs twice, or under another name as well.

use crate::support::{Forged, NOW, at, expected, identity, payload_of, sealed, trusting};
use isotherm_audit::{OpenError, open};

fn refused(envelope: &[u8], keys: &[u8], threshold: usize) -> OpenError {
    open(envelope, &trusting(keys, threshold), at(NOW), &expected()).expect_err("an attack")
}

#[test]
fn one_key_signing_twice_counts_once() {
    let payload = payload_of(&sealed(&[1]).envelope);
    let refused = refused(&Forged::signed(&payload, &[1, 1, 1]).bytes(), &[1, 2], 2);
    assert!(matches!(refused, OpenError::BelowThreshold { distinct: 1, threshold: 2, .. }));
}

#[test]
fn one_signature_under_the_names_of_two_trusted_keys_is_refused() {
    let payload = payload_of(&sealed(&[1]).envelope);
    let mut forged = Forged::signed(&payload, &[1, 1]);
    forged.signatures[1].0 = identity(2).id().to_string();
    assert!(matches!(refused(&forged.bytes(), &[1, 2], 2), OpenError::BadSignature { .. }));
}
