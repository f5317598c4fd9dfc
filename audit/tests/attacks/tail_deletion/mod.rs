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

#[test]
fn a_log_does_not_fill_its_witnesss_memory_until_it_cannot_be_read() {
    let (log, memory) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    let key = identity(7);
    let witness = Witness::open(NAME, &key, memory.path()).expect("a witness");
    grow(log.path(), 0..3);
    // As many lines of others as a note may have: with one more the witness could not read its own memory, and whoever
    // removed that would take the next log for the first.
    let mut flooded = request(log.path(), 0);
    let own = identity(1);
    let checkpoint = Checkpoint::open(request_note(&flooded).as_bytes(), ORIGIN, own.public()).expect("signed");
    for number in 0..99 {
        flooded.push_str(&checkpoint.cosign(&format!("flood.example/{number}"), at(NOW), &own));
    }
    witness.answer(flooded.as_bytes(), &watched(), at(NOW)).expect("it is signed");
    assert_eq!(witness.known(&watched()).expect("readable").map(|known| known.size), Some(3));
    // Long lines instead of many.
    let long = format!("\u{2014} flood.example/long {}\n", "A".repeat(120_000));
    let flooded = request(log.path(), 3) + &long;
    witness.answer(flooded.as_bytes(), &watched(), at(NOW)).expect("it is signed");
    grow(log.path(), 3..5);
    witness.answer(request(log.path(), 3).as_bytes(), &watched(), at(NOW)).expect("it goes on");
    assert_eq!(witness.known(&watched()).expect("readable").map(|known| known.size), Some(5));
}

fn request_note(request: &str) -> &str {
    request.split_once("\n\n").expect("a request").1
}

#[test]
fn a_witness_with_a_new_key_remembers_what_it_saw_under_its_old_one_and_not_under_a_strangers() {
    let (log, memory) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    let (old, new) = (identity(7), identity(8));
    grow(log.path(), 0..3);
    let first = Witness::open(NAME, &old, memory.path()).expect("a witness");
    first.answer(request(log.path(), 0).as_bytes(), &watched(), at(NOW)).expect("the first state seen");
    let rotated = || Witness::open(NAME, &new, memory.path()).expect("a witness");
    assert!(matches!(rotated().known(&watched()), Err(WitnessError::Memory { .. })));
    let stranger = rotated().formerly(vec![identity(9).public().clone()]);
    assert!(matches!(stranger.known(&watched()), Err(WitnessError::Memory { .. })));
    let witness = rotated().formerly(vec![old.public().clone()]);
    let short = files_of(log.path());
    grow(log.path(), 3..5);
    witness.answer(request(log.path(), 3).as_bytes(), &watched(), at(NOW)).expect("it goes on");
    restore(log.path(), &short);
    let refused = witness.answer(request(log.path(), 3).as_bytes(), &watched(), at(NOW)).expect_err("cut back");
    assert!(matches!(refused, WitnessError::Rollback { size: 3, known: 5 }), "{refused}");
    assert!(rotated().known(&watched()).is_ok(), "the newer state has the new key's cosignature");
}
