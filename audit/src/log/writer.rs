//! Writing a log: one writer, entries and tiles on disk before the signature over them.

use crate::keys::{Identity, KeyId};
use crate::log::checkpoint::{self, Checkpoint};
use crate::log::entry::{self, Event};
use crate::log::merkle::{self, leaf_hash};
use crate::log::tiles::{self, Edge, NewFile, TILE_WIDTH, TileKind, Tiles, tile_path};
use crate::log::view::{self, LogView};
use crate::log::{CHECKPOINT_FILE, LOCK_FILE, LogError, migrate};
use crate::storage;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// What to do while another process writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLock {
    /// Wait until it has ended.
    Wait,
    /// Say so.
    Refuse,
}

/// What was found when a log was opened for writing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The log is new.
    pub created: bool,
    /// Tiles of an interrupted append were removed. Their entries were never acknowledged.
    pub swept: u64,
    /// Entries that were brought over from the layout of earlier versions.
    pub migrated: u64,
}

/// A log open for writing. It is also a [`LogView`] of itself.
#[derive(Debug)]
pub struct Log<'k> {
    view: LogView,
    identity: &'k Identity,
    /// Size of the state before the present one, whose partial tiles are still there for readers.
    earlier: u64,
    unusable: bool,
    _lock: File,
}

impl Deref for Log<'_> {
    type Target = LogView;

    fn deref(&self) -> &LogView {
        &self.view
    }
}

impl<'k> Log<'k> {
    /// Opens the log of that name in a folder, which is made if absent, verifies its signed state, and clears away what
    /// a crash left unfinished.
    ///
    /// Errors: another writer; a checkpoint that is not what this identity signed, or a tree that is not what the
    /// checkpoint says. Nothing is changed then.
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
        let mut recovery = Recovery::default();
        let mut note = view::read_note(folder)?;
        if note.is_none() && !folder.join(tiles::TILE_FOLDER).exists() && !folder.join(super::OLD_ENTRIES_FILE).exists()
        {
            recovery.created = true;
            let empty = Checkpoint { origin: origin.to_owned(), size: 0, root: merkle::empty_root() };
            note = Some(publish(folder, &empty.sign(identity))?);
        }
        if let Some(note) = &note {
            recovery.migrated = migrate::from_lines(folder, note, origin, identity.public())?;
        }
        let view = LogView::covered(folder, note.as_deref(), origin, identity.public())?;
        recovery.swept = sweep(folder, view.size()).map_err(LogError::io("tidying", folder))?;
        let earlier = view.size();
        Ok((Self { view, identity, earlier, unusable: false, _lock: lock }, recovery))
    }

    /// Appends one event; when this returns, the entry, its tiles and the checkpoint over them are on disk.
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
        let mut previous = self.view.tiles.edge.last;
        let mut lines = Vec::with_capacity(events.len());
        for (event, index) in events.iter().zip(first..) {
            let line = entry::write(event, &self.view.checkpoint.origin, index, &previous).map_err(LogError::Event)?;
            previous = leaf_hash(&line);
            lines.push((line, previous));
        }
        self.unusable = true;
        let edge = &mut self.view.tiles.edge;
        let mut files = Vec::new();
        for (line, leaf) in lines {
            edge.push(line, leaf, &mut files);
        }
        files.extend(edge.partial_files(first));
        write_files(&self.view.tiles.folder, &files)?;
        self.sign_state()?;
        self.unusable = false;
        self.discard(self.earlier);
        self.earlier = first;
        Ok(first)
    }

    /// Signs the present state once more, by this log's key and by the one that takes its place: whoever holds either can
    /// open the log. The next append by the new key leaves its signature alone.
    ///
    /// Errors: the file system refuses.
    pub fn hand_over(&mut self, successor: &Identity) -> Result<(), LogError> {
        let note = self.view.checkpoint.sign_by(&[self.identity, successor]);
        let bytes = publish(&self.view.tiles.folder, &note)?;
        self.view.note = String::from_utf8(bytes).expect("a note is made of text");
        Ok(())
    }

    /// Adds a witness's line to the checkpoint on disk, if it is of the present state. The caller has verified it.
    pub(super) fn set_note(&mut self, note: String) -> Result<(), LogError> {
        publish(&self.view.tiles.folder, &note)?;
        self.view.note = note;
        Ok(())
    }

    pub(super) fn tiles_folder(&self) -> PathBuf {
        self.view.tiles.folder.clone()
    }

    pub(super) const fn log_key(&self) -> KeyId {
        self.identity.id()
    }

    pub(super) fn view_mut(&mut self) -> &mut LogView {
        &mut self.view
    }

    /// Signs and publishes the state after all entries in hand, which are on disk already.
    fn sign_state(&mut self) -> Result<(), LogError> {
        let frontier = &self.view.tiles.edge.frontier;
        let checkpoint =
            Checkpoint { origin: self.view.checkpoint.origin.clone(), size: frontier.size(), root: frontier.root() };
        let note = publish(&self.view.tiles.folder, &checkpoint.sign(self.identity))?;
        self.view.note = String::from_utf8(note).expect("a note is made of text");
        self.view.checkpoint = checkpoint;
        Ok(())
    }

    /// Removes the partial tiles of a state that is over. One that stays behind takes room and is read by nobody.
    fn discard(&self, size: u64) {
        let kept: BTreeSet<String> = tiles::partial_paths(self.size()).into_iter().collect();
        for path in tiles::partial_paths(size).into_iter().filter(|path| !kept.contains(path)) {
            let path = self.view.tiles.folder.join(path);
            let _ = fs::remove_file(&path);
            // Gone only when empty, that is when its tile became full.
            if let Some(parent) = path.parent() {
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

fn publish(folder: &Path, note: &str) -> Result<Vec<u8>, LogError> {
    let note = note.as_bytes().to_vec();
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

/// Writes tiles that no checkpoint speaks of yet, and makes their bytes and names durable. They need no rename: whoever
/// finds one half written has no checkpoint that leads to it, and the next writer writes it anew.
pub(super) fn write_files(folder: &Path, files: &[NewFile]) -> Result<(), LogError> {
    let mut touched: BTreeSet<PathBuf> = BTreeSet::new();
    for (name, bytes) in files {
        let path = folder.join(name);
        let parent = path.parent().expect("a tile is in a folder");
        write_file(&path, parent, bytes, folder, &mut touched).map_err(LogError::io("writing", &path))?;
    }
    for touched in &touched {
        storage::sync_folder(touched).map_err(LogError::io("syncing", touched))?;
    }
    Ok(())
}

fn write_file(
    path: &Path,
    parent: &Path,
    bytes: &[u8],
    folder: &Path,
    touched: &mut BTreeSet<PathBuf>,
) -> io::Result<()> {
    let open = || private(OpenOptions::new().write(true).create(true).truncate(true)).open(path);
    let mut file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            storage::private_folder(parent)?;
            // Each folder on the way may be new, and a new name is durable only once the folder it is in was synced.
            touched.extend(parent.ancestors().skip(1).take_while(|up| up.starts_with(folder)).map(Path::to_owned));
            open()?
        }
        opened => opened?,
    };
    file.write_all(bytes)?;
    file.sync_data()?;
    touched.insert(parent.to_owned());
    Ok(())
}

/// Removes the tiles beyond a signed state, which only an interrupted append leaves, and the partial ones before it.
/// Gives the number of those beyond it.
fn sweep(folder: &Path, size: u64) -> io::Result<u64> {
    let kept: BTreeSet<PathBuf> = tiles::partial_paths(size).iter().map(|path| folder.join(path)).collect();
    let mut beyond = 0;
    let mut kinds = vec![(TileKind::Entries, 0)];
    kinds.extend((0..8).map(|level| (TileKind::Hashes(level as u8), level)));
    for (kind, level) in kinds {
        let hashes = tiles::hashes_of_level(size, level);
        let edge = hashes / TILE_WIDTH;
        // From the last full tile, whose partial ones may still be there, to the first that is not there at all.
        for index in edge.saturating_sub(1).. {
            let full = folder.join(tile_path(kind, index, TILE_WIDTH));
            let stray = index >= edge && full.exists();
            if stray {
                fs::remove_file(&full)?;
                beyond += 1;
            }
            let partials = folder.join(format!("{}.p", tile_path(kind, index, TILE_WIDTH)));
            let listed = match fs::read_dir(&partials) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                listed => Some(listed?),
            };
            if index > edge && !stray && listed.is_none() {
                break;
            }
            for found in listed.into_iter().flatten() {
                let path = found?.path();
                if kept.contains(&path) {
                    continue;
                }
                let width = path.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok()).unwrap_or(0);
                beyond += u64::from(index * TILE_WIDTH + width > hashes);
                fs::remove_file(path)?;
            }
            let _ = fs::remove_dir(&partials);
        }
    }
    Ok(beyond)
}

/// Writes a whole tree at once: what [`migrate`] makes of an older log.
pub(super) fn write_tree(folder: &Path, lines: Vec<Vec<u8>>) -> Result<Tiles, LogError> {
    let mut edge = Edge::empty();
    let mut files = Vec::new();
    for line in lines {
        let leaf = leaf_hash(&line);
        edge.push(line, leaf, &mut files);
    }
    files.extend(edge.partial_files(0));
    write_files(folder, &files)?;
    Ok(Tiles::new(folder, edge))
}
