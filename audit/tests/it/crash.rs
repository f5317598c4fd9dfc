//! What a crash leaves behind.

use crate::support::{ORIGIN, event, identity};
use isotherm_audit::log::{CHECKPOINT_FILE, Log, LogError, LogView, OnLock, Recovery, fsck};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::tempdir;

/// Every file below a folder, by its path in it.
pub fn files_of(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).expect("own folder") {
            let path = entry.expect("listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below it").to_owned();
                found.insert(name, fs::read(&path).expect("readable"));
            }
        }
    }
    found
}

/// Puts a folder into the state of these files.
pub fn restore(folder: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    for name in files_of(folder).keys() {
        fs::remove_file(folder.join(name)).expect("own file");
    }
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("own folder");
        fs::write(path, bytes).expect("own file");
    }
}

/// A log before and after an append, as files.
fn interrupted(folder: &Path, before: u64, after: u64) -> [BTreeMap<PathBuf, Vec<u8>>; 2] {
    let key = identity(1);
    let (mut log, _) = Log::open(folder, ORIGIN, &key, OnLock::Refuse).expect("new");
    log.append_all(&(0..before).map(event).collect::<Vec<_>>()).expect("logged");
    let old = files_of(folder);
    log.append_all(&(before..after).map(event).collect::<Vec<_>>()).expect("logged");
    [old, files_of(folder)]
}

#[test]
fn a_crash_before_the_checkpoint_leaves_what_was_acknowledged_and_nothing_else() {
    let key = identity(1);
    // Within a bundle, over the end of one, and over two of them.
    for (before, after) in [(0, 1), (2, 4), (255, 257), (256, 258), (250, 600)] {
        let folder = tempdir().expect("a folder");
        let [old, new] = interrupted(folder.path(), before, after);
        let written: Vec<_> = new
            .iter()
            .filter(|(name, bytes)| old.get(*name) != Some(bytes) && name.as_path() != Path::new(CHECKPOINT_FILE))
            .collect();
        assert!(!written.is_empty());
        // The first so many of the new files are there, the last of them torn at some byte.
        for count in 1..=written.len() {
            for torn in [0, 1, usize::MAX] {
                let mut files = old.clone();
                for (name, bytes) in &written[..count] {
                    files.insert((*name).clone(), (*bytes).clone());
                }
                let (name, bytes) = written[count - 1];
                files.insert(name.clone(), bytes[..bytes.len().min(torn)].to_vec());
                restore(folder.path(), &files);
                let seen = LogView::read(folder.path(), ORIGIN, key.public()).expect("what was acknowledged is sound");
                assert_eq!(seen.size(), before);
                assert!(fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable").is_sound());
                let (mut log, recovery) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("recovers");
                assert!(!recovery.created && recovery.swept > 0, "{before}..{after}: {count} of {}", written.len());
                assert_eq!(log.append(&event(9)).expect("goes on"), before);
                drop(log);
                let found = fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable");
                assert!(found.is_sound() && found.entries == before + 1, "{:?}", found.findings);
            }
        }
    }
}

#[test]
fn a_log_that_was_closed_well_has_nothing_to_sweep() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    for number in 0..600 {
        // A child that another test starts holds the lock of this process until it has become another program.
        let (mut log, recovery) = Log::open(folder.path(), ORIGIN, &key, OnLock::Wait).expect("sound");
        assert_eq!(recovery, Recovery { created: number == 0, ..Recovery::default() });
        log.append(&event(number)).expect("logged");
    }
    // Full tiles, and the partial ones of the last two states at most.
    let partial = files_of(folder.path()).keys().filter(|name| name.to_string_lossy().contains(".p/")).count();
    assert!(partial <= 6, "{partial}");
    assert!(fsck(folder.path(), ORIGIN, key.public(), &[]).expect("readable").is_sound());
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
fn a_log_whose_folder_cannot_be_written_says_so_and_has_to_be_opened_again() {
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    let (mut log, _) = Log::open(folder.path(), ORIGIN, &key, OnLock::Refuse).expect("new");
    log.append(&event(0)).expect("logged");
    // A file where the next tile's folder has to be.
    fs::remove_dir_all(folder.path().join("tile/0")).expect("own folder");
    fs::write(folder.path().join("tile/0"), "").expect("own file");
    assert!(matches!(log.append(&event(1)), Err(LogError::Io { .. })));
    assert!(matches!(log.append(&event(1)), Err(LogError::Unusable)));
}
