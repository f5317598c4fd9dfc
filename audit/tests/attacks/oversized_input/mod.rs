//! Somebody sends more than anybody should have to read, or nests it deeper than a stack holds.

use crate::support::{NOW, ORIGIN, at, expected, identity, sealed, trusting};
use isotherm_audit::envelope::{ENVELOPE_BYTES_MAX, EnvelopeError};
use isotherm_audit::handover::open_hand_over;
use isotherm_audit::keyset::KeySet;
use isotherm_audit::lease::open_lease;
use isotherm_audit::log::{Checkpoint, CheckpointError, Entry, EntryError};
use isotherm_audit::{OpenError, open};

fn accepted(envelope: &[u8], keys: &[u8], threshold: usize) -> bool {
    open(envelope, &trusting(keys, threshold), at(NOW), &expected()).is_ok()
}

#[test]
fn an_envelope_too_large_is_refused_by_its_size_alone() {
    let padded = [sealed(&[1]).envelope, vec![b' '; ENVELOPE_BYTES_MAX]].concat();
    let refused = open(&padded, &trusting(&[1], 1), at(NOW), &expected()).expect_err("too large");
    assert!(matches!(refused, OpenError::Envelope(EnvelopeError::TooLarge { limit: ENVELOPE_BYTES_MAX, .. })));
    for hostile in ["[".repeat(1 << 20), "{\"payload\":".repeat(50_000), format!("\"{}\"", "\\u0000".repeat(100_000))] {
        assert!(!accepted(hostile.as_bytes(), &[1], 1));
    }
}

#[test]
fn no_signed_document_is_read_beyond_its_limit() {
    let (trusted, key) = (trusting(&[1], 1), identity(1));
    let flood = vec![b'['; ENVELOPE_BYTES_MAX + 1];
    let too_large = |refused: OpenError| matches!(refused, OpenError::Envelope(EnvelopeError::TooLarge { .. }));
    assert!(too_large(KeySet::first(&flood, &trusted, at(NOW), "home").expect_err("too large")));
    assert!(too_large(open_lease(&flood, &trusted, at(NOW), "home").expect_err("too large")));
    assert!(too_large(open_hand_over(&flood, ORIGIN, key.public()).expect_err("too large")));
}

#[test]
fn no_checkpoint_or_entry_is_read_beyond_its_limit() {
    let key = identity(1);
    let refused = Checkpoint::open(&vec![b'\n'; 1 << 20], ORIGIN, key.public()).expect_err("too large");
    assert!(matches!(refused, CheckpointError::TooLarge { .. }), "{refused}");
    let refused = Entry::read(&vec![b'{'; 65_536]).expect_err("longer than its length can say");
    assert!(matches!(refused, EntryError::TooLarge { bytes: 65_536 }), "{refused}");
    assert!(Entry::read("[".repeat(65_535).as_bytes()).is_err(), "a deep nest is an error and no crash");
}
