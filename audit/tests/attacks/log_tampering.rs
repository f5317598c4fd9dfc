//! Somebody edits, cuts, reorders, forks or re-signs a log.

use crate::support::{ORIGIN, event, identity};
use isotherm_audit::log::{CHECKPOINT_FILE, ENTRIES_FILE, Log, LogError, LogView, OnLock, fsck};
use isotherm_audit::manifest::LogPosition;
use std::fs;
use std::path::Path;
use tempfile::{TempDir, tempdir};

const ENTRIES: u64 = 4;

struct Sample {
    folder: TempDir,
    entries: Vec<u8>,
    checkpoint: Vec<u8>,
    position: LogPosition,
}

fn fill(folder: &Path, numbers: impl Iterator<Item = u64>) -> LogPosition {
    let key = identity(1);
    let (mut log, _) = Log::open(folder, ORIGIN, &key, OnLock::Refuse).expect("sound");
    log.append_all(&numbers.map(event).collect::<Vec<_>>()).expect("logged");
    log.position()
}

fn sample() -> Sample {
    let folder = tempdir().expect("a folder");
    let position = fill(folder.path(), 0..ENTRIES);
    let read = |name: &str| fs::read(folder.path().join(name)).expect("readable");
    Sample { entries: read(ENTRIES_FILE), checkpoint: read(CHECKPOINT_FILE), position, folder }
}

impl Sample {
    fn lines(&self) -> Vec<Vec<u8>> {
        self.entries.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    }

    /// Puts these files in place; both doors and the check must refuse them. Gives the reader's reason.
    fn refused(&self, entries: &[u8], checkpoint: &[u8], what: &str) -> LogError {
        self.refused_for_writing(entries, checkpoint, what);
        self.refused_for_reading(entries, checkpoint, what)
    }

    /// The reader alone, for attacks at every byte.
    fn refused_for_reading(&self, entries: &[u8], checkpoint: &[u8], what: &str) -> LogError {
        fs::write(self.folder.path().join(ENTRIES_FILE), entries).expect("own file");
        fs::write(self.folder.path().join(CHECKPOINT_FILE), checkpoint).expect("own file");
        match LogView::read(self.folder.path(), ORIGIN, identity(1).public()) {
            Ok(_) => panic!("{what}: opened for reading"),
            Err(error) => error,
        }
    }

    /// The same for changes beyond the checkpoint, which a reader does not look at. Gives the writer's reason.
    fn refused_for_writing(&self, entries: &[u8], checkpoint: &[u8], what: &str) -> LogError {
        fs::write(self.folder.path().join(ENTRIES_FILE), entries).expect("own file");
        fs::write(self.folder.path().join(CHECKPOINT_FILE), checkpoint).expect("own file");
        let key = identity(1);
        let found = fsck(self.folder.path(), ORIGIN, key.public(), &[]).expect("readable");
        assert!(!found.is_sound(), "{what}: the check found nothing");
        let Err(refused) = Log::open(self.folder.path(), ORIGIN, &key, OnLock::Refuse) else {
            panic!("{what}: opened for writing")
        };
        assert_eq!(
            fs::read(self.folder.path().join(ENTRIES_FILE)).expect("readable"),
            entries,
            "{what}: evidence was changed"
        );
        refused
    }
}

#[test]
fn the_untouched_log_is_sound() {
    let sample = sample();
    assert!(fsck(sample.folder.path(), ORIGIN, identity(1).public(), &[sample.position]).expect("readable").is_sound());
}

#[test]
fn every_altered_byte_of_every_entry_is_refused_and_its_entry_named() {
    let sample = sample();
    for position in 0..sample.entries.len() {
        let index = sample.entries[..position].iter().filter(|byte| **byte == b'\n').count() as u64;
        let mut altered = sample.entries.clone();
        altered[position] ^= 1;
        // Reading at every byte, all three doors at some of them: the others share its check.
        let doors = if position % 11 == 0 { Sample::refused } else { Sample::refused_for_reading };
        let refused = doors(&sample, &altered, &sample.checkpoint, &format!("byte {position}"));
        // A newline that is gone makes one line of two; if it was the last, an entry is missing.
        match refused {
            LogError::Altered { index: named, .. } => assert_eq!(named, index, "byte {position}"),
            LogError::Truncated { have, .. } => {
                assert_eq!((have, index, position), (ENTRIES - 1, ENTRIES - 1, altered.len() - 1));
            }
            other => panic!("byte {position}: {other}"),
        }
    }
}

#[test]
fn every_altered_byte_of_the_checkpoint_is_refused() {
    let sample = sample();
    for position in 0..sample.checkpoint.len() {
        for bit in [0, 6] {
            let mut altered = sample.checkpoint.clone();
            altered[position] ^= 1 << bit;
            let refused = sample.refused(&sample.entries, &altered, &format!("bit {bit} of byte {position}"));
            assert!(matches!(refused, LogError::Checkpoint(_)), "{refused}");
        }
    }
}

#[test]
fn every_truncation_below_the_checkpoint_is_refused() {
    let sample = sample();
    for length in 0..sample.entries.len() {
        let doors = if length % 11 == 0 { Sample::refused } else { Sample::refused_for_reading };
        let refused = doors(&sample, &sample.entries[..length], &sample.checkpoint, &format!("cut at {length}"));
        let have = sample.entries[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
        assert!(matches!(refused, LogError::Truncated { have: h, signed: ENTRIES } if h == have), "{refused}");
    }
}

#[test]
fn every_deleted_doubled_or_swapped_entry_is_named() {
    let sample = sample();
    let lines = sample.lines();
    for index in 0..lines.len() {
        let mut without = lines.clone();
        without.remove(index);
        let refused = sample.refused(&without.concat(), &sample.checkpoint, &format!("without {index}"));
        match refused {
            LogError::Truncated { .. } => assert_eq!(index, lines.len() - 1),
            LogError::Altered { index: named, .. } => assert_eq!(named, index as u64),
            other => panic!("{other}"),
        }
        let mut doubled = lines.clone();
        doubled.insert(index, lines[index].clone());
        let refused = sample.refused_for_writing(&doubled.concat(), &sample.checkpoint, &format!("{index} doubled"));
        assert!(matches!(refused, LogError::Altered { index: named, .. } if named == index as u64 + 1), "{refused}");
        for other in index + 1..lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(index, other);
            let refused =
                sample.refused(&swapped.concat(), &sample.checkpoint, &format!("{index} and {other} swapped"));
            assert!(matches!(refused, LogError::Altered { index: named, .. } if named == index as u64), "{refused}");
        }
    }
}

#[test]
fn files_that_are_missing_are_missed() {
    let sample = sample();
    let key = identity(1);
    fs::remove_file(sample.folder.path().join(ENTRIES_FILE)).expect("own file");
    let removed = |error| matches!(error, LogError::Truncated { have: 0, signed: ENTRIES });
    assert!(removed(Log::open(sample.folder.path(), ORIGIN, &key, OnLock::Refuse).expect_err("no entries")));
    assert!(removed(LogView::read(sample.folder.path(), ORIGIN, key.public()).expect_err("no entries")));
    assert!(!sample.folder.path().join(ENTRIES_FILE).exists(), "evidence was changed");
    assert!(!fsck(sample.folder.path(), ORIGIN, key.public(), &[]).expect("readable").is_sound());
    fs::write(sample.folder.path().join(ENTRIES_FILE), &sample.entries).expect("own file");
    fs::remove_file(sample.folder.path().join(CHECKPOINT_FILE)).expect("own file");
    let refused = Log::open(sample.folder.path(), ORIGIN, &key, OnLock::Refuse).expect_err("no checkpoint");
    assert!(matches!(refused, LogError::NoCheckpoint { .. }));
    assert!(matches!(LogView::read(sample.folder.path(), ORIGIN, key.public()), Err(LogError::NoCheckpoint { .. })));
    assert!(!fsck(sample.folder.path(), ORIGIN, key.public(), &[]).expect("readable").is_sound());
}

#[test]
fn another_log_of_the_same_key_is_not_this_one() {
    let sample = sample();
    let other = tempdir().expect("a folder");
    fill(other.path(), 10..10 + ENTRIES);
    let read = |name: &str| fs::read(other.path().join(name)).expect("readable");
    // Entries of one and checkpoint of the other: every line is rightly signed, but not for this state.
    let refused = sample.refused(&read(ENTRIES_FILE), &sample.checkpoint, "other entries");
    assert!(matches!(refused, LogError::Forked { size: ENTRIES }), "{refused}");
    // One line of the other at its own place breaks the chain.
    let mut mixed = sample.lines();
    let theirs = read(ENTRIES_FILE);
    mixed[3] = theirs.split_inclusive(|byte| *byte == b'\n').nth(3).expect("a line").to_vec();
    let refused = sample.refused(&mixed.concat(), &sample.checkpoint, "a line of the other");
    assert!(matches!(refused, LogError::Altered { index: 3, .. }), "{refused}");
}

#[test]
fn a_log_under_another_name_or_key_is_refused() {
    let sample = sample();
    let other_key = identity(2);
    assert!(LogView::read(sample.folder.path(), "isotherm.local/other", identity(1).public()).is_err());
    assert!(LogView::read(sample.folder.path(), ORIGIN, other_key.public()).is_err());
    assert!(Log::open(sample.folder.path(), ORIGIN, &other_key, OnLock::Refuse).is_err());
}

#[test]
fn a_log_cut_back_with_its_old_checkpoint_is_found_by_whoever_kept_a_later_one() {
    let folder = tempdir().expect("a folder");
    fill(folder.path(), 0..3);
    let read = |name: &str| fs::read(folder.path().join(name)).expect("readable");
    let (entries, checkpoint) = (read(ENTRIES_FILE), read(CHECKPOINT_FILE));
    let later = fill(folder.path(), 3..5);
    fs::write(folder.path().join(ENTRIES_FILE), entries).expect("own file");
    fs::write(folder.path().join(CHECKPOINT_FILE), checkpoint).expect("own file");
    let key = identity(1);
    // Alone it looks sound: that is why checkpoints are kept elsewhere.
    let view = LogView::read(folder.path(), ORIGIN, key.public()).expect("an old state");
    assert!(matches!(view.continues(&later), Err(LogError::Truncated { have: 3, signed: 5 })));
    let found = fsck(folder.path(), ORIGIN, key.public(), std::slice::from_ref(&later)).expect("readable");
    assert!(matches!(found.findings[..], [LogError::Truncated { .. }]));
    // Grown again in another way, to the same size and beyond.
    fill(folder.path(), 20..24);
    let view = LogView::read(folder.path(), ORIGIN, key.public()).expect("rightly signed");
    assert!(matches!(view.continues(&later), Err(LogError::Forked { size: 5 })));
    let found = fsck(folder.path(), ORIGIN, key.public(), &[later]).expect("readable");
    assert!(matches!(found.findings[..], [LogError::Forked { size: 5 }]));
}
