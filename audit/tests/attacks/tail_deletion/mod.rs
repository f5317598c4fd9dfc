//! The owner of a log, who holds its key, deletes its tail or rewrites the past; a witness elsewhere does not go along.

use crate::crash::{files_of, restore};
use crate::support::{NOW, ORIGIN, at, event, identity};
use isotherm_audit::log::witness::{Watched, Witness, WitnessError};
use isotherm_audit::log::{Checkpoint, CheckpointError, Log, LogView, OnLock};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

pub(super) const NAME: &str = "witness.example/w1";

pub(super) fn grow(folder: &Path, numbers: impl Iterator<Item = u64>) {
    let key = identity(1);
    let (mut log, _) = Log::open(folder, ORIGIN, &key, OnLock::Refuse).expect("sound");
    log.append_all(&numbers.map(event).collect::<Vec<_>>()).expect("logged");
}

pub(super) fn request(folder: &Path, old: u64) -> String {
    LogView::read(folder, ORIGIN, identity(1).public()).expect("sound").request_witness(old).expect("in range")
}

pub(super) fn watched() -> Watched {
    Watched { origin: ORIGIN.to_owned(), key: identity(1).public().clone() }
}

#[test]
fn a_log_that_only_grew_is_cosigned_each_time_and_the_log_keeps_the_line() {
    let (log, memory) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    let key = identity(7);
    let witness = Witness::open(NAME, &key, memory.path()).expect("a witness");
    let mut known = 0;
    for size in [1, 2, 5, 300, 513] {
        grow(log.path(), known..size);
        let line = witness.answer(request(log.path(), known).as_bytes(), &watched(), at(NOW)).expect("it grew");
        assert_eq!(witness.known(&watched()).expect("readable").map(|known| known.size), Some(size));
        let own = identity(1);
        let (mut open, _) = Log::open(log.path(), ORIGIN, &own, OnLock::Refuse).expect("sound");
        assert_eq!(open.add_cosignature(&line, NAME, key.public()).expect("its line"), at(NOW));
        assert!(open.add_cosignature(&line, NAME, identity(8).public()).is_err());
        assert!(open.add_cosignature(&format!("{line}{line}"), NAME, key.public()).is_err());
        drop(open);
        let note = fs::read(log.path().join("checkpoint")).expect("readable");
        let checkpoint = Checkpoint::open(&note, ORIGIN, own.public()).expect("signed");
        assert_eq!(checkpoint.cosigned_by(&note, NAME, key.public()), Ok(Some(at(NOW))));
        known = size;
    }
    // Nothing new is cosigned again: the witness vouches for the present.
    witness.answer(request(log.path(), known).as_bytes(), &watched(), at(NOW)).expect("the same state");
}

#[test]
fn a_deleted_tail_is_refused() {
    let (log, memory) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    let key = identity(7);
    let witness = Witness::open(NAME, &key, memory.path()).expect("a witness");
    grow(log.path(), 0..5);
    let short = files_of(log.path());
    grow(log.path(), 5..9);
    witness.answer(request(log.path(), 0).as_bytes(), &watched(), at(NOW)).expect("the first state seen");
    restore(log.path(), &short);
    for old in [0, 5] {
        let refused = witness.answer(request(log.path(), old).as_bytes(), &watched(), at(NOW)).expect_err("cut back");
        assert!(matches!(refused, WitnessError::Rollback { size: 5, known: 9 }), "{refused}");
    }
    // Grown again to the old size and beyond, in another way.
    grow(log.path(), 50..60);
    let refused = witness.answer(request(log.path(), 9).as_bytes(), &watched(), at(NOW)).expect_err("another past");
    assert!(matches!(refused, WitnessError::Fork(_)), "{refused}");
    let refused = witness.answer(request(log.path(), 5).as_bytes(), &watched(), at(NOW)).expect_err("another past");
    assert!(matches!(refused, WitnessError::OtherSize { claimed: 5, known: 9 }), "{refused}");
    assert_eq!(witness.known(&watched()).expect("unchanged").map(|known| known.size), Some(9));
}

#[test]
fn every_altered_byte_of_a_request_is_refused_or_changes_nothing_that_was_signed() {
    let (log, memory) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    let key = identity(7);
    let witness = Witness::open(NAME, &key, memory.path()).expect("a witness");
    grow(log.path(), 0..3);
    witness.answer(request(log.path(), 0).as_bytes(), &watched(), at(NOW)).expect("the first state seen");
    grow(log.path(), 3..6);
    let good = request(log.path(), 3).into_bytes();
    for position in 0..good.len() {
        let mut altered = good.clone();
        altered[position] ^= 1;
        assert!(witness.answer(&altered, &watched(), at(NOW)).is_err(), "byte {position}");
        assert!(witness.answer(&good[..position], &watched(), at(NOW)).is_err(), "cut at {position}");
    }
    assert_eq!(witness.known(&watched()).expect("unchanged").map(|known| known.size), Some(3));
    for text in ["", "old\n\n", "old 03\n\nx", "old -1\n\nx", "old 3\nAAAA\n\nx"] {
        assert!(witness.answer(text.as_bytes(), &watched(), at(NOW)).is_err(), "{text:?}");
    }
    let flood = format!("old 3\n{}\n", "A".repeat(1 << 20));
    assert!(matches!(witness.answer(flood.as_bytes(), &watched(), at(NOW)), Err(WitnessError::Request { .. })));
    witness.answer(&good, &watched(), at(NOW)).expect("untouched");
}

#[test]
fn a_stranger_to_the_log_gets_no_cosignature_and_a_memory_that_somebody_wrote_is_not_believed() {
    let (log, memory) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    let key = identity(7);
    let witness = Witness::open(NAME, &key, memory.path()).expect("a witness");
    grow(log.path(), 0..3);
    let stranger = Watched { key: identity(2).public().clone(), ..watched() };
    let refused = witness.answer(request(log.path(), 0).as_bytes(), &stranger, at(NOW)).expect_err("not its key");
    assert!(matches!(refused, WitnessError::Checkpoint(CheckpointError::NotSigned)), "{refused}");
    let elsewhere = Watched { origin: "isotherm.local/other".to_owned(), ..watched() };
    assert!(witness.answer(request(log.path(), 0).as_bytes(), &elsewhere, at(NOW)).is_err());
    witness.answer(request(log.path(), 0).as_bytes(), &watched(), at(NOW)).expect("the first state seen");
    // The log's owner reaches the witness's disk and puts an older or uncosigned state there.
    let file = fs::read_dir(memory.path())
        .expect("own folder")
        .map(|entry| entry.expect("listed").path())
        .find(|path| path.extension().is_some_and(|ending| ending == "checkpoint"))
        .expect("a memory");
    let note = fs::read_to_string(log.path().join("checkpoint")).expect("readable");
    fs::write(&file, note).expect("own file");
    let refused = witness.answer(request(log.path(), 3).as_bytes(), &watched(), at(NOW)).expect_err("not believed");
    assert!(matches!(refused, WitnessError::Memory { .. }), "{refused}");
}

#[test]
fn what_was_answered_is_remembered_by_the_next_process() {
    let (log, memory) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    let key = identity(7);
    grow(log.path(), 0..4);
    Witness::open(NAME, &key, memory.path())
        .and_then(|witness| witness.answer(request(log.path(), 0).as_bytes(), &watched(), at(NOW)))
        .expect("the first state seen");
    let again = Witness::open(NAME, &key, memory.path()).expect("a witness");
    let refused = again.answer(request(log.path(), 0).as_bytes(), &watched(), at(NOW)).expect_err("it knows more");
    assert!(matches!(refused, WitnessError::OtherSize { claimed: 0, known: 4 }), "{refused}");
    for name in ["", "two words", "a+b"] {
        assert!(matches!(Witness::open(name, &key, memory.path()), Err(WitnessError::Name { .. })));
    }
}
