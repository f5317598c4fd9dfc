//! Reading a log: nothing is shown that the checkpoint does not cover.

use crate::keys::PublicKey;
use crate::log::checkpoint::{self, Checkpoint};
use crate::log::entry::Entry;
use crate::log::merkle::{self, Hash, ProofError};
use crate::log::tiles::{self, Tiles};
use crate::log::{CHECKPOINT_FILE, LogError, RETAINED_FILE, diagnosis};
use crate::manifest::{LogPosition, RootHash};
use std::ops::Range;
use std::path::Path;

/// How often a reader starts again because a writer went on in between.
const ATTEMPTS: usize = 16;

/// A log as its checkpoint describes it. What is read of it is compared with the checkpoint when it is read.
#[derive(Debug)]
pub struct LogView {
    pub(super) checkpoint: Checkpoint,
    /// The checkpoint's note, with witnesses' signatures if there are any.
    pub(super) note: String,
    pub(super) tiles: Tiles,
    /// Entries before this one were moved out; their hashes are still here.
    pub(super) retained_from: u64,
}

pub(super) fn read_note(folder: &Path) -> Result<Option<Vec<u8>>, LogError> {
    tiles::read_file(folder, CHECKPOINT_FILE, checkpoint::CHECKPOINT_BYTES_MAX)
}

/// First entry that is still in the log, as the folder says it; the log's entries say whether that was allowed.
pub(super) fn read_retained(folder: &Path) -> Result<u64, LogError> {
    let Some(bytes) = tiles::read_file(folder, RETAINED_FILE, 32)? else { return Ok(0) };
    let text = str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n'));
    let number = text.and_then(|text| text.parse::<u64>().ok().filter(|number| number.to_string() == text));
    number.ok_or_else(|| LogError::Tile { path: folder.join(RETAINED_FILE) })
}

impl LogView {
    /// Opens the log of that name and key in a folder: its checkpoint and the edge of its tree are verified now, and
    /// everything else when it is read. No lock is needed: a writer at work is seen as of its last checkpoint.
    ///
    /// Errors: no log; a checkpoint that is not believed; a tree that is not the one signed for, with the first entry
    /// that is to blame where one can be named.
    pub fn read(folder: &Path, origin: &str, key: &PublicKey) -> Result<Self, LogError> {
        let mut seen = None;
        for _ in 0..ATTEMPTS {
            let note = read_note(folder)?;
            match Self::covered(folder, note.as_deref(), origin, key) {
                // The writer went on and removed a partial tile that this checkpoint had.
                Err(LogError::Missing { .. } | LogError::Truncated { .. }) if seen != note => seen = note,
                answer => return answer,
            }
        }
        Err(LogError::Busy { path: folder.to_owned() })
    }

    /// The log that one checkpoint covers.
    pub(super) fn covered(folder: &Path, note: Option<&[u8]>, origin: &str, key: &PublicKey) -> Result<Self, LogError> {
        let Some(note) = note else {
            let some = folder.join(tiles::TILE_FOLDER).exists() || folder.join(super::OLD_ENTRIES_FILE).exists();
            let path = folder.to_owned();
            return Err(if some { LogError::NoCheckpoint { path } } else { LogError::NoLog { path } });
        };
        let checkpoint = Checkpoint::open(note, origin, key)?;
        let retained_from = read_retained(folder)?;
        let read = Tiles::read(folder, checkpoint.size).and_then(|mut tiles| {
            if tiles.edge.frontier.root() != checkpoint.root {
                return Err(LogError::Forked { size: checkpoint.size });
            }
            tiles.read_lines()?;
            Ok(tiles)
        });
        let tiles = match read {
            Ok(tiles) => tiles,
            Err(error @ LogError::Io { .. }) => return Err(error),
            // Whatever the edge says, the entries say best who is to blame.
            Err(error) => return Err(diagnosis::first_fault(folder, &checkpoint, retained_from)?.unwrap_or(error)),
        };
        let note = String::from_utf8(note.to_vec()).expect("an opened note is UTF-8");
        Ok(Self { checkpoint, note, tiles, retained_from })
    }

    /// The signed state.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The signed state as the note that is on disk, for printing and for keeping elsewhere.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The signed state in the form that manifests and run records carry.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        LogPosition {
            origin: self.checkpoint.origin.clone(),
            size: self.checkpoint.size,
            root_hash: RootHash(self.checkpoint.root),
        }
    }

    /// Number of entries.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// The first entry that is still in the log; those before it were moved out and only their hashes are left.
    #[must_use]
    pub const fn retained_from(&self) -> u64 {
        self.retained_from
    }

    fn place(&self, index: u64) -> Result<u64, LogError> {
        if index >= self.size() {
            return Err(ProofError::OutOfRange { position: index, size: self.size() }.into());
        }
        Ok(index)
    }

    /// The bytes of one entry.
    ///
    /// Errors: no such entry, one that was moved out, or one that is not what the log signed.
    pub fn line(&self, index: u64) -> Result<Vec<u8>, LogError> {
        let index = self.place(index)?;
        match self.tiles.line(index) {
            Err(LogError::Missing { .. }) if index < self.retained_from => {
                Err(LogError::MovedOut { index, first: self.retained_from })
            }
            answer => answer,
        }
    }

    /// One entry.
    ///
    /// Errors: as [`LogView::line`], and a text that the log should never have signed.
    pub fn entry(&self, index: u64) -> Result<Entry, LogError> {
        let entry = Entry::read(&self.line(index)?).map_err(|source| LogError::Altered { index, source })?;
        let previous = if index == 0 { merkle::empty_root() } else { self.tiles.leaf(index - 1)? };
        entry
            .belongs(&self.checkpoint.origin, index, &previous)
            .map_err(|source| LogError::Altered { index, source })?;
        Ok(entry)
    }

    /// All entries that are still here, oldest first; `.rev()` gives the newest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Result<Entry, LogError>> {
        (self.retained_from.min(self.size())..self.size()).map(|index| self.entry(index))
    }

    fn root_of(&self) -> impl FnMut(Range<u64>) -> Result<Hash, LogError> {
        |range| merkle::range_root(range, &mut |height, index| self.tiles.subtree(height, index))
    }

    /// Root over the first `size` entries.
    ///
    /// Errors: fewer entries, or a tile that is not what the log signed.
    pub fn root_at(&self, size: u64) -> Result<Hash, LogError> {
        if size > self.size() {
            return Err(ProofError::OutOfRange { position: size, size: self.size() }.into());
        }
        if size == 0 { Ok(merkle::empty_root()) } else { self.root_of()(0..size) }
    }

    /// Hashes that show that an entry is in the tree of the checkpoint.
    ///
    /// Errors: no such entry, or a tile that is not what the log signed.
    pub fn prove_inclusion(&self, index: u64) -> Result<Vec<Hash>, LogError> {
        merkle::inclusion_path(self.size(), index, self.root_of())
    }

    /// Hashes that show that the log only added to its first `old` entries.
    ///
    /// Errors: `old` is 0 or more than there are, or a tile is not what the log signed.
    pub fn prove_consistency(&self, old: u64) -> Result<Vec<Hash>, LogError> {
        self.prove_consistency_at(self.size(), old)
    }

    /// The same for an earlier state of this log of `size` entries.
    pub(super) fn prove_consistency_at(&self, size: u64, old: u64) -> Result<Vec<Hash>, LogError> {
        merkle::consistency_path(size, old, self.root_of())
    }

    /// Checks that this log continues the state that somebody wrote down elsewhere: the only check that finds a log cut
    /// short or rewritten together with its checkpoint.
    ///
    /// Errors: fewer entries than then, other entries, or another log.
    pub fn continues(&self, position: &LogPosition) -> Result<(), LogError> {
        if position.origin != self.checkpoint.origin {
            let found = position.origin.clone();
            return Err(
                checkpoint::CheckpointError::OtherLog { expected: self.checkpoint.origin.clone(), found }.into()
            );
        }
        if position.size > self.size() {
            return Err(LogError::Truncated { have: self.size(), signed: position.size });
        }
        if self.root_at(position.size)? == position.root_hash.0 {
            Ok(())
        } else {
            Err(LogError::Forked { size: position.size })
        }
    }
}
