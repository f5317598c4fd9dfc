//! Somebody signs who may not, or moves signatures about.

use crate::support::{
    Forged, NOW, at, edited_payload, expected, identity, payload_of, raw_key, sealed, signed_bytes, trusting,
};
use ed25519_dalek::Signer;
use isotherm_audit::{OpenError, open};

fn refused(envelope: &[u8], keys: &[u8], threshold: usize) -> OpenError {
    open(envelope, &trusting(keys, threshold), at(NOW), &expected()).expect_err("an attack")
}

#[test]
fn the_forgers_tools_make_what_sealing_makes() {
    let envelope = Forged::signed(&payload_of(&sealed(&[1]).envelope), &[1]).bytes();
    open(&envelope, &trusting(&[1], 1), at(NOW), &expected()).expect("rightly signed");
}

#[test]
fn a_key_that_is_not_trusted_does_not_open_and_is_named() {
    let refused = refused(&sealed(&[9]).envelope, &[1], 1);
    assert!(
        matches!(&refused, OpenError::BelowThreshold { distinct: 0, strangers, .. } if strangers == &[identity(9).id()])
    );
    assert!(refused.to_string().contains(&identity(9).id().to_string()));
}

#[test]
fn a_stranger_does_not_complete_a_threshold() {
    let refused = refused(&sealed(&[1, 9]).envelope, &[1, 2], 2);
    assert!(matches!(refused, OpenError::BelowThreshold { distinct: 1, threshold: 2, .. }));
}

#[test]
fn naming_a_trusted_key_does_not_make_a_signature_trusted() {
    let payload = payload_of(&sealed(&[9]).envelope);
    let mut forged = Forged::signed(&payload, &[9]);
    forged.signatures[0].0 = identity(1).id().to_string();
    assert!(matches!(refused(&forged.bytes(), &[1], 1), OpenError::BadSignature { key } if key == identity(1).id()));
}

#[test]
fn a_broken_signature_of_a_trusted_key_is_refused_even_beside_enough_good_ones() {
    let payload = payload_of(&sealed(&[1]).envelope);
    let mut forged = Forged::signed(&payload, &[1, 2]);
    forged.signatures[1].1[10] ^= 1;
    assert!(matches!(refused(&forged.bytes(), &[1, 2], 1), OpenError::BadSignature { key } if key == identity(2).id()));
}

#[test]
fn a_signature_over_another_payload_or_type_does_not_carry_over() {
    let honest = payload_of(&sealed(&[1]).envelope);
    let other = edited_payload(|statement| statement["predicate"]["counter"] = 6.into());
    let moved = Forged { signatures: Forged::signed(&honest, &[1]).signatures, ..Forged::signed(&other, &[1]) };
    assert!(matches!(refused(&moved.bytes(), &[1], 1), OpenError::BadSignature { .. }));

    // Signed as another type, shown as ours: the type is part of what is signed.
    let signature = raw_key(1).sign(&signed_bytes("application/json", &honest)).to_bytes().to_vec();
    let confused =
        Forged { signatures: vec![(identity(1).id().to_string(), signature)], ..Forged::signed(&honest, &[]) };
    assert!(matches!(refused(&confused.bytes(), &[1], 1), OpenError::BadSignature { .. }));

    // The bare payload, as a signer without the encoding would sign it.
    let bare = raw_key(1).sign(&honest).to_bytes().to_vec();
    let bare = Forged { signatures: vec![(identity(1).id().to_string(), bare)], ..Forged::signed(&honest, &[]) };
    assert!(matches!(refused(&bare.bytes(), &[1], 1), OpenError::BadSignature { .. }));
}

#[test]
fn another_payload_type_is_refused_even_when_signed() {
    let payload = payload_of(&sealed(&[1]).envelope);
    for payload_type in ["application/json", "application/vnd.in-toto+json ", "Application/vnd.in-toto+json", ""] {
        let signature = raw_key(1).sign(&signed_bytes(payload_type, &payload)).to_bytes().to_vec();
        let forged =
            Forged { payload_type, payload: &payload, signatures: vec![(identity(1).id().to_string(), signature)] };
        assert!(matches!(refused(&forged.bytes(), &[1], 1), OpenError::Envelope(_)), "{payload_type}");
    }
}

#[test]
fn a_second_encoding_of_a_signature_is_refused() {
    // S + L is the same scalar; strict verification demands the reduced one. L = 2^252 + 277...493, little endian.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let payload = payload_of(&sealed(&[1]).envelope);
    let mut forged = Forged::signed(&payload, &[1]);
    let mut carry = 0;
    for (byte, order) in forged.signatures[0].1[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(carry, 0);
    assert!(matches!(refused(&forged.bytes(), &[1], 1), OpenError::BadSignature { .. }));
}

#[test]
fn no_signature_none_of_64_bytes_and_too_many_are_refused() {
    let payload = payload_of(&sealed(&[1]).envelope);
    assert!(matches!(refused(&Forged::signed(&payload, &[]).bytes(), &[1], 1), OpenError::Envelope(_)));
    for length in [0, 63, 65] {
        let mut forged = Forged::signed(&payload, &[1]);
        forged.signatures[0].1.resize(length, 0);
        assert!(matches!(refused(&forged.bytes(), &[1], 1), OpenError::Envelope(_)));
    }
    let crowd = Forged::signed(&payload, &[1; 65]);
    assert!(matches!(refused(&crowd.bytes(), &[1], 1), OpenError::Envelope(_)));
}

#[test]
fn a_key_id_in_another_spelling_is_refused() {
    let payload = payload_of(&sealed(&[1]).envelope);
    let id = identity(1).id().to_string();
    for other in [id.to_uppercase(), String::new(), id[..63].to_owned(), format!("{id} "), format!("sha256:{id}")] {
        let mut forged = Forged::signed(&payload, &[1]);
        forged.signatures[0].0.clone_from(&other);
        assert!(matches!(refused(&forged.bytes(), &[1], 1), OpenError::Envelope(_)), "{other}");
    }
}

#[cfg(unix)]
#[test]
fn a_believed_key_that_others_can_write_is_believed_no_more() {
    use isotherm_audit::keyring;
    use isotherm_audit::keys::{Identity, KeyError, Seed, TrustedKeys};
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("keys");
    Identity::create(&directory, &Seed::from_bytes([1; 32])).expect("made");
    keyring::believe(&directory, identity(2).public()).expect("put there");
    assert_eq!(TrustedKeys::load(&directory, 2).expect("two").iter().count(), 2);
    for found in std::fs::read_dir(directory.join("trusted")).expect("own folder") {
        let path = found.expect("listed").path();
        for mode in [0o666, 0o620, 0o602, 0o777] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("own file");
            let refused = TrustedKeys::load(&directory, 1).expect_err("others choose whom to believe");
            assert!(matches!(refused, KeyError::Replaceable { .. }), "{refused}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("own file");
    }
    // The same key under two names goes whole.
    let pem = identity(2).public().to_pem().expect("encodes");
    std::fs::write(directory.join("trusted/alice.pem"), pem).expect("own file");
    assert_eq!(keyring::disbelieve(&directory, identity(2).id()).expect("removed"), 2);
    assert!(TrustedKeys::load(&directory, 1).expect("one").get(identity(2).id()).is_none());
}
