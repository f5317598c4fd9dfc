//! What a crash leaves behind, at every byte at which it can strike.

use crate::support::{ORIGIN, event, identity};
use isotherm_audit::log::{CHECKPOINT_FILE, ENTRIES_FILE, Log, LogError, LogView, OnLock, Recovery, fsck};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

/// Files of a log after `before` entries, and its entries file after `after`.
fn interrupted(folder: &Path, before: u64, after: u64) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let key = identity(1);
    let (mut log, _) = Log::open(folder, ORIGIN, &key, OnLock::Refuse).expect("new");
    log.append_all(&(0..before).map(event).collect::<Vec<_>>()).expect("logged");
    let checkpoint = fs::read(folder.join(CHECKPOINT_FILE)).expect("readable");
    let old = fs::read(folder.join(ENTRIES_FILE)).expect("readable");
    log.append_all(&(before..after).map(event).collect::<Vec<_>>()).expect("logged");
    (checkpoint, old, fs::read(folder.join(ENTRIES_FILE)).expect("readable"))
}

#[test]
fn a_crash_at_any_byte_of_an_append_keeps_whole_entries_and_cuts_the_torn_one() {
    let folder = tempdir().expect("a folder");
    let (checkpoint, old, new) = interrupted(folder.path(), 2, 4);
    let key = identity(1);
    for length in (old.len()..=new.len()).step_by(41).chain([old.len() + 1, new.len() - 1, new.len()]) {
        fs::write(folder.path().join(ENTRIES_FILE), &new[..length]).expect("own file");
        fs::write(folder.path().join(CHECKPOINT_FILE), &checkpoint).expect("own file");
        let whole = new[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
        let torn = new[..length].rsplit(|byte| *byte == b'\n').next().expect("a last part").to_vec();

        let seen = LogView::read(folder.path(), ORIGIN, key.public()).expect("what was acknowledged is sound");
        assert_eq!(seen.size(), 2);
        let found = fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable");
        assert!(found.is_sound());
        assert_eq!((found.pending, found.torn_bytes), (whole - 2, torn.len() as u64));

        let (mut log, recovery) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("recovers");
        assert_eq!(recovery, Recovery { created: false, kept: whole - 2, torn });
        assert_eq!(log.append(&event(9)).expect("goes on"), whole);
        drop(log);
        let found = fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable");
        assert!(found.is_sound() && found.pending == 0 && found.torn_bytes == 0 && found.entries == whole + 1);
    }
}

#[test]
fn a_crash_while_a_log_is_made_is_made_good() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    drop(Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("new"));
    // The checkpoint was published and the entries were not made yet.
    fs::remove_file(folder.path().join(ENTRIES_FILE)).expect("own file");
    let (mut log, recovery) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("goes on");
    assert_eq!(recovery, Recovery::default());
    log.append(&event(0)).expect("logged");
}

#[test]
fn an_unfinished_checkpoint_is_swept_away() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    drop(Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("new"));
    let left = folder.path().join(".unfinished-abc");
    fs::write(&left, "half a checkpoint").expect("own file");
    drop(Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("sound"));
    assert!(!left.exists());
}

#[test]
fn whole_lines_beyond_the_checkpoint_that_the_log_never_signed_are_refused() {
    let folder = tempdir().expect("a folder");
    let (checkpoint, old, new) = interrupted(folder.path(), 2, 4);
    let key = identity(1);
    let third: Vec<u8> = new[old.len()..].split_inclusive(|byte| *byte == b'\n').next().expect("a line").to_vec();
    let altered = String::from_utf8(third.clone()).expect("UTF-8").replace("\"number\":2", "\"number\":3").into_bytes();
    let forgeries = [altered, [third.clone(), third].concat(), b"{}\n".to_vec(), b"\n".to_vec(), vec![b'x'; 70_000]];
    for forged in forgeries {
        fs::write(folder.path().join(ENTRIES_FILE), [old.as_slice(), &forged].concat()).expect("own file");
        fs::write(folder.path().join(CHECKPOINT_FILE), &checkpoint).expect("own file");
        let before = fs::read(folder.path().join(ENTRIES_FILE)).expect("readable");
        let refused = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect_err("nobody signed that");
        assert!(matches!(refused, LogError::Altered { index: 2 | 3, .. }), "{refused}");
        assert_eq!(fs::read(folder.path().join(ENTRIES_FILE)).expect("readable"), before, "evidence is left as it is");
        assert!(!fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable").is_sound());
    }
}
