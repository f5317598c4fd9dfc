//! Somebody hands a log over who does not hold its key, or hands over another past than the witness saw.

use super::tail_deletion::{NAME, grow, request, watched};
use crate::support::{NOW, ORIGIN, at, event, identity};
use isotherm_audit::handover::{HandOver, open_hand_over, statement};
use isotherm_audit::keys::Identity;
use isotherm_audit::log::witness::{Watched, Witness, WitnessError};
use isotherm_audit::log::{Log, LogView, OnLock};
use isotherm_audit::seal;
use std::path::Path;
use tempfile::tempdir;

fn handed(note: &str, from: &Identity, to: &Identity, by: &[&Identity]) -> Vec<u8> {
    let claim = HandOver {
        origin: ORIGIN.to_owned(),
        checkpoint: note.to_owned(),
        predecessor: from.public().to_pem().expect("encodes"),
        successor: to.public().to_pem().expect("encodes"),
        handed_on: at(NOW),
    };
    seal(&statement(claim).expect("two keys"), by).expect("it holds together").envelope
}

/// Hands the log in a folder over, as `isotherm keys rotate` does, and grows it by the new key.
fn rotate(folder: &Path, from: &Identity, to: &Identity, more: u64) -> Vec<u8> {
    let (mut log, _) = Log::open(folder, ORIGIN, from, OnLock::Refuse).expect("sound");
    let note = log.note().to_owned();
    log.hand_over(to).expect("writable");
    drop(log);
    let (mut log, _) = Log::open(folder, ORIGIN, to, OnLock::Refuse).expect("either key opens it");
    log.append_all(&(0..more).map(event).collect::<Vec<_>>()).expect("logged");
    handed(&note, from, to, &[from, to])
}

#[test]
fn a_witness_follows_a_log_from_key_to_key_and_the_old_key_signs_no_more() {
    let (log, memory) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    let key = identity(7);
    let witness = Witness::open(NAME, &key, memory.path()).expect("a witness");
    let keys = [identity(1), identity(2), identity(3)];
    grow(log.path(), 0..5);
    witness.answer(request(log.path(), 0).as_bytes(), &watched(), at(NOW)).expect("the first state seen");
    let mut known = 5;
    for pair in keys.windows(2) {
        let [from, to] = pair else { unreachable!() };
        let envelope = rotate(log.path(), from, to, 3);
        let view = LogView::read(log.path(), ORIGIN, to.public()).expect("by the new key");
        // The new key alone is a stranger to the witness.
        let early = view.request_witness(known).expect("in range");
        assert!(witness.answer(early.as_bytes(), &watched(), at(NOW)).is_err());
        // Without the state that was handed over it does not follow.
        let handed = open_hand_over(&envelope, ORIGIN, from.public()).expect("both signed");
        if handed.state.size != known {
            let refused = witness.follow(&envelope, &watched()).expect_err("a gap");
            assert!(matches!(refused, WitnessError::Unseen { .. }), "{refused}");
            let shown = view.request_handed_over(known, &handed).expect("this log continues it");
            witness.answer(shown.as_bytes(), &watched(), at(NOW)).expect("the old key's last state");
            known = handed.state.size;
        }
        let followed = witness.follow(&envelope, &watched()).expect("it saw that state");
        assert_eq!(followed.id(), to.id());
        // Watched by its first key or its newest, it is the same log.
        for key in [&keys[0], to] {
            let watched = Watched { key: key.public().clone(), ..watched() };
            let next = view.request_witness(known).expect("in range");
            witness.answer(next.as_bytes(), &watched, at(NOW)).expect("the new key's state");
            known = view.size();
        }
        // The old key, stolen perhaps, can neither go on nor hand over once more.
        let again = handed_by_thief(&envelope, from, to);
        assert!(matches!(witness.follow(&again, &watched()), Err(WitnessError::HandOver(_))));
    }
    let other = Watched { key: identity(9).public().clone(), ..watched() };
    assert!(witness.known(&other).is_err(), "a key that is none of the log's");
}

fn handed_by_thief(envelope: &[u8], from: &Identity, to: &Identity) -> Vec<u8> {
    let state = open_hand_over(envelope, ORIGIN, from.public()).expect("both signed").note;
    assert_ne!(from.id(), to.id());
    let thief = identity(66);
    handed(&state, from, &thief, &[from, &thief])
}

#[test]
fn a_handover_needs_both_keys_and_the_old_keys_state() {
    let log = tempdir().expect("a folder");
    grow(log.path(), 0..5);
    let (old, new, thief) = (identity(1), identity(2), identity(66));
    let view = LogView::read(log.path(), ORIGIN, old.public()).expect("sound");
    let open = |envelope: &[u8]| open_hand_over(envelope, ORIGIN, old.public());
    open(&handed(view.note(), &old, &new, &[&old, &new])).expect("both signed");
    assert!(open(&handed(view.note(), &old, &new, &[&old])).is_err(), "the new key did not sign");
    assert!(open(&handed(view.note(), &old, &new, &[&new])).is_err(), "the old key did not sign");
    assert!(open(&handed(view.note(), &old, &new, &[&new, &thief])).is_err(), "a thief for the old key");
    let good = handed(view.note(), &old, &new, &[&old, &new]);
    assert!(open_hand_over(&good, "isotherm.local/other", old.public()).is_err(), "another log");
    assert!(open_hand_over(&good, ORIGIN, new.public()).is_err(), "from the new key");
    for position in (0..good.len()).step_by(7) {
        let mut altered = good.clone();
        altered[position] ^= 1;
        assert!(open(&altered).is_err(), "byte {position}");
    }
}

#[test]
fn a_state_by_another_key_or_a_key_for_itself_is_not_sealed() {
    let log = tempdir().expect("a folder");
    grow(log.path(), 0..2);
    let note = LogView::read(log.path(), ORIGIN, identity(1).public()).expect("sound").note().to_owned();
    let claim = |from: u8, to: u8, checkpoint: &str, origin: &str| HandOver {
        origin: origin.to_owned(),
        checkpoint: checkpoint.to_owned(),
        predecessor: identity(from).public().to_pem().expect("encodes"),
        successor: identity(to).public().to_pem().expect("encodes"),
        handed_on: at(NOW),
    };
    let sealed = |claim| seal(&statement(claim).expect("keys"), &[&identity(1), &identity(2)]).is_ok();
    assert!(sealed(claim(1, 2, &note, ORIGIN)));
    for wrong in
        [claim(2, 1, &note, ORIGIN), claim(1, 1, &note, ORIGIN), claim(1, 2, "", ORIGIN), claim(1, 2, &note, "x y")]
    {
        assert!(!sealed(wrong));
    }
    assert!(statement(HandOver { successor: "no key".to_owned(), ..claim(1, 2, &note, ORIGIN) }).is_err());
}
