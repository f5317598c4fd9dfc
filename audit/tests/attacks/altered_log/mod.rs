//! Somebody edits, reorders or re-signs a log.

use crate::crash::{files_of, restore};
use crate::support::{ORIGIN, event, identity};
use isotherm_audit::log::{CHECKPOINT_FILE, Log, LogError, LogView, OnLock, fsck, merkle};
use isotherm_audit::manifest::LogPosition;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::{TempDir, tempdir};

pub(super) const ENTRIES: u64 = 4;
pub(super) const BUNDLE: &str = "tile/entries/000.p/4";
pub(super) const TILE: &str = "tile/0/000.p/4";

pub(super) struct Sample {
    pub(super) folder: TempDir,
    files: BTreeMap<PathBuf, Vec<u8>>,
    position: LogPosition,
}

pub(super) fn fill(folder: &Path, numbers: impl Iterator<Item = u64>) -> LogPosition {
    let key = identity(1);
    let (mut log, _) = Log::open(folder, ORIGIN, &key, OnLock::Refuse).expect("sound");
    log.append_all(&numbers.map(event).collect::<Vec<_>>()).expect("logged");
    log.position()
}

pub(super) fn sample() -> Sample {
    let folder = tempdir().expect("a folder");
    let position = fill(folder.path(), 0..ENTRIES);
    Sample { files: files_of(folder.path()), position, folder }
}

impl Sample {
    pub(super) fn file(&self, name: &str) -> Vec<u8> {
        self.files[Path::new(name)].clone()
    }

    pub(super) fn lines(&self) -> Vec<Vec<u8>> {
        lines(&self.file(BUNDLE))
    }

    /// Puts one file in place of its own; reader, writer and check must refuse. Gives the reader's reason.
    pub(super) fn refused(&self, name: &str, bytes: Option<&[u8]>, what: &str) -> LogError {
        let mut files = self.files.clone();
        match bytes {
            Some(bytes) => files.insert(name.into(), bytes.to_vec()),
            None => files.remove(Path::new(name)),
        };
        restore(self.folder.path(), &files);
        let key = identity(1);
        let found = fsck(self.folder.path(), ORIGIN, key.public(), &[]).expect("readable");
        assert!(!found.is_sound(), "{what}: the check found nothing");
        if Log::open(self.folder.path(), ORIGIN, &key, OnLock::Refuse).is_ok() {
            panic!("{what}: opened for writing");
        }
        let mut left = files_of(self.folder.path());
        left.remove(Path::new("lock"));
        files.remove(Path::new("lock"));
        assert_eq!(left, files, "{what}: evidence was changed");
        match LogView::read(self.folder.path(), ORIGIN, key.public()) {
            Ok(_) => panic!("{what}: opened for reading"),
            Err(error) => error,
        }
    }
}

pub(super) fn lines(mut bundle: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    while let [high, low, rest @ ..] = bundle {
        let (line, rest) = rest.split_at(usize::from(*high) << 8 | usize::from(*low));
        lines.push(line.to_vec());
        bundle = rest;
    }
    lines
}

pub(super) fn bundle(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| [&(line.len() as u16).to_be_bytes(), line.as_slice()].concat()).collect()
}

/// Position of the entry that a byte of a bundle belongs to.
pub(super) fn entry_at(lines: &[Vec<u8>], byte: usize) -> u64 {
    let mut end = 0;
    for (line, index) in lines.iter().zip(0..) {
        end += line.len() + 2;
        if byte < end {
            return index;
        }
    }
    panic!("byte {byte} is in no entry")
}

#[test]
fn the_untouched_log_is_sound() {
    let sample = sample();
    assert!(fsck(sample.folder.path(), ORIGIN, identity(1).public(), &[sample.position]).expect("readable").is_sound());
}

#[test]
fn every_altered_byte_of_every_entry_is_refused_and_its_entry_named() {
    let sample = sample();
    let (bytes, lines) = (sample.file(BUNDLE), sample.lines());
    for position in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[position] ^= 1;
        let refused = sample.refused(BUNDLE, Some(&altered), &format!("byte {position}"));
        let index = entry_at(&lines, position);
        match refused {
            LogError::Altered { index: named, .. } => assert_eq!(named, index, "byte {position}"),
            // A length that reaches beyond the end leaves entries missing.
            LogError::Truncated { have, .. } => assert_eq!(have, index, "byte {position}"),
            other => panic!("byte {position}: {other}"),
        }
    }
}

#[test]
fn every_altered_byte_of_a_tile_is_refused() {
    let sample = sample();
    let bytes = sample.file(TILE);
    for position in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[position] ^= 0x80;
        let refused = sample.refused(TILE, Some(&altered), &format!("byte {position}"));
        assert!(matches!(refused, LogError::Altered { index, .. } if index == position as u64 / 32), "{refused}");
    }
}

#[test]
fn every_altered_byte_of_the_checkpoint_is_refused() {
    let sample = sample();
    let bytes = sample.file(CHECKPOINT_FILE);
    for position in 0..bytes.len() {
        for bit in [0, 6] {
            let mut altered = bytes.clone();
            altered[position] ^= 1 << bit;
            let refused = sample.refused(CHECKPOINT_FILE, Some(&altered), &format!("bit {bit} of byte {position}"));
            assert!(matches!(refused, LogError::Checkpoint(_)), "{refused}");
        }
    }
}

#[test]
fn every_deleted_doubled_or_swapped_entry_is_named() {
    let sample = sample();
    let lines = sample.lines();
    for index in 0..lines.len() {
        let mut without = lines.clone();
        without.remove(index);
        match sample.refused(BUNDLE, Some(&bundle(&without)), &format!("without {index}")) {
            LogError::Truncated { .. } => assert_eq!(index, lines.len() - 1),
            LogError::Altered { index: named, .. } => assert_eq!(named, index as u64),
            other => panic!("{other}"),
        }
        for other in index + 1..lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(index, other);
            let refused = sample.refused(BUNDLE, Some(&bundle(&swapped)), &format!("{index} and {other} swapped"));
            assert!(matches!(refused, LogError::Altered { index: named, .. } if named == index as u64), "{refused}");
        }
    }
}

#[test]
fn an_entry_altered_together_with_its_tile_is_found() {
    let sample = sample();
    let mut lines = sample.lines();
    let text = String::from_utf8(lines[1].clone()).expect("UTF-8");
    lines[1] = text.replace("\"number\":1", "\"number\":7").into_bytes();
    let leaves: Vec<_> = lines.iter().map(|line| merkle::leaf_hash(line)).collect();
    let mut files = sample.files.clone();
    files.insert(BUNDLE.into(), bundle(&lines));
    files.insert(TILE.into(), leaves.concat());
    restore(sample.folder.path(), &files);
    let refused = LogView::read(sample.folder.path(), ORIGIN, identity(1).public()).expect_err("another tree");
    // The entry after it was chained to the one that was there.
    assert!(matches!(refused, LogError::Altered { index: 2, .. }), "{refused}");
    assert!(!fsck(sample.folder.path(), ORIGIN, identity(1).public(), &[]).expect("readable").is_sound());
}

#[test]
fn files_that_are_missing_are_missed() {
    let sample = sample();
    let refused = sample.refused(BUNDLE, None, "no entries");
    assert!(matches!(refused, LogError::Truncated { have: 0, signed: ENTRIES }), "{refused}");
    let refused = sample.refused(TILE, None, "no hashes");
    assert!(matches!(refused, LogError::Missing { .. }), "{refused}");
    let refused = sample.refused(CHECKPOINT_FILE, None, "no checkpoint");
    assert!(matches!(refused, LogError::NoCheckpoint { .. }), "{refused}");
}

#[test]
fn every_file_of_a_larger_log_is_looked_at() {
    let folder = tempdir().expect("a folder");
    fill(folder.path(), 0..700);
    let files = files_of(folder.path());
    let key = identity(1);
    for name in files.keys().filter(|name| name.as_path() != Path::new("lock")) {
        let path = folder.path().join(name);
        let bytes = &files[name];
        for altered in [Vec::new(), bytes[..bytes.len() / 2].to_vec(), {
            let mut altered = bytes.clone();
            let last = altered.len() - 40;
            altered[last] ^= 4;
            altered
        }] {
            fs::write(&path, altered).expect("own file");
            let found = fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable");
            assert!(!found.is_sound(), "{name:?} altered and nothing found");
            // A reader finds it at the latest when it reads all entries and the proofs of all.
            let read = LogView::read(folder.path(), ORIGIN, key.public()).and_then(|view| {
                for index in 0..view.size() {
                    view.entry(index)?;
                }
                view.root_at(600).map(|_| ())
            });
            let upper = name.starts_with("tile/1");
            assert!(read.is_err() || upper, "{name:?} altered and read");
        }
        fs::write(&path, bytes).expect("own file");
        fs::remove_file(&path).expect("own file");
        assert!(!fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable").is_sound(), "{name:?} is gone");
        fs::write(&path, bytes).expect("own file");
    }
    assert!(fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable").is_sound());
}

#[test]
fn entries_that_go_without_the_logs_own_word_are_missed() {
    let folder = tempdir().expect("a folder");
    fill(folder.path(), 0..600);
    let key = identity(1);
    fs::remove_file(folder.path().join("tile/entries/000")).expect("own file");
    let found = fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable");
    assert!(matches!(found.findings[..], [LogError::Missing { .. }]), "{:?}", found.findings);
    // Saying so beside the log is not enough: the log has to have said it.
    fs::write(folder.path().join("retained"), "256\n").expect("own file");
    let found = fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable");
    assert!(matches!(found.findings[..], [LogError::Unannounced { first: 256, allowed: 0 }]), "{:?}", found.findings);
    for text in ["", "256", "0256\n", "-1\n", "x\n", "99999999999999999999\n"] {
        fs::write(folder.path().join("retained"), text).expect("own file");
        assert!(!fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable").is_sound(), "{text:?}");
    }
}

#[test]
fn a_log_under_another_name_or_key_is_refused() {
    let sample = sample();
    let other_key = identity(2);
    assert!(LogView::read(sample.folder.path(), "isotherm.local/other", identity(1).public()).is_err());
    assert!(LogView::read(sample.folder.path(), ORIGIN, other_key.public()).is_err());
    assert!(Log::open(sample.folder.path(), ORIGIN, &other_key, OnLock::Refuse).is_err());
}
