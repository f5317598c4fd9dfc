//! Writing a log: one writer, entries on disk before the signature over them.

use crate::keys::Identity;
use crate::log::checkpoint::{self, Checkpoint};
use crate::log::entry::{self, Event};
use crate::log::merkle::{Frontier, Hash, leaf_hash};
use crate::log::view::{self, LogView};
use crate::log::{CHECKPOINT_FILE, ENTRIES_FILE, LOCK_FILE, LogError};
use crate::storage;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Deref;
use std::path::Path;

/// What to do while another process writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLock {
    /// Wait until it has ended.
    Wait,
    /// Say so.
    Refuse,
}

/// What was found when a log was opened for writing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The log is new.
    pub created: bool,
    /// Whole entries beyond the checkpoint that an interrupted append left; they verified and are covered again.
    pub kept: u64,
    /// The torn entry that an interrupted append left at the end; it was never acknowledged and is cut.
    pub torn: Vec<u8>,
}

/// A log open for writing. It is also a [`LogView`] of itself.
#[derive(Debug)]
pub struct Log<'k> {
    view: LogView,
    identity: &'k Identity,
    frontier: Frontier,
    unusable: bool,
    _lock: File,
}

impl Deref for Log<'_> {
    type Target = LogView;

    fn deref(&self) -> &LogView {
        &self.view
    }
}

/// What an append adds: bytes, and of each line its leaf hash and the offset of its end.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    leaves: Vec<Hash>,
    ends: Vec<u64>,
}

impl<'k> Log<'k> {
    /// Opens the log of that name in a folder, which is made if absent, verifies all of it, and finishes what a crash
    /// interrupted.
    ///
    /// Errors: another writer; any entry or checkpoint that is not what this identity signed. Nothing is changed then.
    pub fn open(
        folder: &Path,
        origin: &str,
        identity: &'k Identity,
        on_lock: OnLock,
    ) -> Result<(Self, Recovery), LogError> {
        if !checkpoint::is_origin(origin) {
            return Err(LogError::Origin { name: origin.chars().take(300).collect() });
        }
        storage::private_folder(folder).map_err(LogError::io("making", folder))?;
        let lock = lock(folder, on_lock)?;
        storage::sweep(folder).map_err(LogError::io("tidying", folder))?;
        let path = folder.join(ENTRIES_FILE);
        let mut recovery = Recovery::default();
        let note = match view::read_note(folder)? {
            Some(note) if path.exists() => note,
            Some(note) => match view::without_entries(folder, &note, origin, identity.public()) {
                LogError::NoLog { .. } => note,
                refused => return Err(refused),
            },
            None if path.exists() => return Err(LogError::NoCheckpoint { path: folder.to_owned() }),
            None => {
                // The checkpoint is made before the entries: entries alone always mean that somebody removed it.
                recovery.created = true;
                publish(
                    folder,
                    &Checkpoint { origin: origin.to_owned(), size: 0, root: Frontier::default().root() },
                    identity,
                )?
            }
        };
        let entries = open_entries(&path)?;
        let found = view::scan(&entries).map_err(LogError::io("reading", &path))?;
        let mut view = LogView::covered(folder, entries, &found, note, origin, identity.public())?;
        if found.overlong {
            return Err(view::overlong(&found));
        }
        let covered = view.leaves.len();
        view::verify_lines(&view.entries, &found, covered..found.leaves.len(), origin, identity.public())?;
        recovery.kept = (found.leaves.len() - covered) as u64;
        if !found.torn.is_empty() {
            cut(&view.entries, found.ends.last().copied().unwrap_or(0))
                .map_err(LogError::io("cutting a torn entry off", &path))?;
            recovery.torn = found.torn;
        }
        let mut frontier = Frontier::default();
        for leaf in &found.leaves {
            frontier.push(*leaf);
        }
        (view.leaves, view.ends) = (found.leaves, found.ends);
        let mut log = Self { view, identity, frontier, unusable: false, _lock: lock };
        if recovery.kept > 0 {
            // The lines may still be in the page cache of a crashed process only.
            log.view.entries.sync_all().map_err(LogError::io("syncing", &path))?;
            log.sign_state()?;
        }
        Ok((log, recovery))
    }

    /// Appends one event; when this returns, the entry and the checkpoint over it are on disk.
    ///
    /// Returns its position. Errors: as [`Log::append_all`].
    pub fn append(&mut self, event: &Event) -> Result<u64, LogError> {
        self.append_all(std::slice::from_ref(event))
    }

    /// Appends events with one checkpoint for all of them: either all are acknowledged or none is.
    ///
    /// Returns the position of the first. Errors: an event that cannot be logged (the log stays usable), or a file
    /// system that refuses (the log must be opened again).
    pub fn append_all(&mut self, events: &[Event]) -> Result<u64, LogError> {
        if self.unusable {
            return Err(LogError::Unusable);
        }
        let first = self.size();
        if events.is_empty() {
            return Ok(first);
        }
        let Lines { bytes, leaves, ends } = self.lines(events)?;
        self.unusable = true;
        let path = self.view.path.join(ENTRIES_FILE);
        let mut file = &self.view.entries;
        file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(LogError::io("appending to", &path))?;
        for leaf in &leaves {
            self.frontier.push(*leaf);
        }
        self.view.leaves.extend(leaves);
        self.view.ends.extend(ends);
        self.sign_state()?;
        self.unusable = false;
        Ok(first)
    }

    fn lines(&self, events: &[Event]) -> Result<Lines, LogError> {
        let mut previous = self.view.leaves.last().copied().unwrap_or_else(entry::first_previous);
        let begin = self.view.ends.last().copied().unwrap_or(0);
        let Lines { mut bytes, mut leaves, mut ends } = Lines::default();
        for (event, index) in events.iter().zip(self.size()..) {
            let line = entry::write(event, &self.view.checkpoint.origin, index, &previous, self.identity)
                .map_err(LogError::Event)?;
            previous = leaf_hash(&line);
            leaves.push(previous);
            bytes.extend_from_slice(&line);
            bytes.push(b'\n');
            ends.push(begin + bytes.len() as u64);
        }
        Ok(Lines { bytes, leaves, ends })
    }

    /// Signs and publishes the state after all entries in hand, which are on disk already.
    fn sign_state(&mut self) -> Result<(), LogError> {
        let checkpoint = Checkpoint {
            origin: self.view.checkpoint.origin.clone(),
            size: self.frontier.size(),
            root: self.frontier.root(),
        };
        let note = publish(&self.view.path, &checkpoint, self.identity)?;
        self.view.note = String::from_utf8(note).expect("a note is made of text");
        self.view.checkpoint = checkpoint;
        Ok(())
    }
}

fn publish(folder: &Path, checkpoint: &Checkpoint, identity: &Identity) -> Result<Vec<u8>, LogError> {
    let note = checkpoint.sign(identity).into_bytes();
    storage::replace(folder, CHECKPOINT_FILE, &note).map_err(LogError::io("publishing the checkpoint in", folder))?;
    Ok(note)
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn lock(folder: &Path, on_lock: OnLock) -> Result<File, LogError> {
    let path = folder.join(LOCK_FILE);
    let file = private(OpenOptions::new().read(true).write(true).create(true))
        .open(&path)
        .map_err(LogError::io("opening", &path))?;
    match on_lock {
        OnLock::Wait => file.lock().map_err(LogError::io("locking", &path))?,
        OnLock::Refuse => match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogError::Locked { path: folder.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(LogError::io("locking", &path)(source)),
        },
    }
    Ok(file)
}

fn open_entries(path: &Path) -> Result<File, LogError> {
    let fresh = !path.exists();
    let file = private(OpenOptions::new().read(true).append(true).create(true))
        .open(path)
        .map_err(LogError::io("opening", path))?;
    if fresh {
        let folder = path.parent().expect("the file of a log is in its folder");
        file.sync_all().and_then(|()| storage::sync_folder(folder)).map_err(LogError::io("making", path))?;
    }
    Ok(file)
}

fn cut(entries: &File, length: u64) -> io::Result<()> {
    entries.set_len(length)?;
    let mut file = entries;
    file.seek(SeekFrom::Start(length))?;
    entries.sync_all()
}
