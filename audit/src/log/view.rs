//! Reading a log: nothing is shown that the checkpoint does not cover.

use crate::keys::PublicKey;
use crate::log::checkpoint::{self, Checkpoint};
use crate::log::entry::{self, ENTRY_BYTES_MAX, Entry, EntryError};
use crate::log::merkle::{self, Hash};
use crate::log::{CHECKPOINT_FILE, ENTRIES_FILE, LogError};
use crate::manifest::{LogPosition, RootHash};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A log as its checkpoint describes it, verified.
#[derive(Debug)]
pub struct LogView {
    pub(super) path: PathBuf,
    pub(super) checkpoint: Checkpoint,
    /// The checkpoint's note, with witnesses' signatures if there are any.
    pub(super) note: String,
    /// Leaf hashes of the entries the checkpoint covers.
    pub(super) leaves: Vec<Hash>,
    /// Offset of the byte after each of these lines' newline.
    pub(super) ends: Vec<u64>,
    pub(super) entries: File,
}

/// Every line of an entries file, by its leaf hash, whether anybody signed for it or not.
pub(super) struct Scan {
    pub leaves: Vec<Hash>,
    pub ends: Vec<u64>,
    /// What follows the last newline.
    pub torn: Vec<u8>,
    /// The first line was found here that is longer than an entry; nothing was read beyond it.
    pub overlong: bool,
}

impl Scan {
    pub(super) fn count(&self) -> u64 {
        self.leaves.len() as u64
    }

    fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }
}

/// Reads all lines once, holding one at a time.
pub(super) fn scan(entries: &File) -> io::Result<Scan> {
    let mut file = entries;
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut found = Scan { leaves: Vec::new(), ends: Vec::new(), torn: Vec::new(), overlong: false };
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut reader).take(ENTRY_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        if line.last() == Some(&b'\n') {
            found.leaves.push(merkle::leaf_hash(&line[..length - 1]));
            found.ends.push(found.end() + length as u64);
        } else {
            found.overlong = length > ENTRY_BYTES_MAX;
            found.torn = line;
            return Ok(found);
        }
    }
}

/// Verifies lines `from..to` one by one against the chain and the log's key; the first that fails is named.
pub(super) fn verify_lines(
    entries: &File,
    found: &Scan,
    lines: std::ops::Range<usize>,
    origin: &str,
    key: &PublicKey,
) -> Result<(), LogError> {
    let io = |path: &'static str| LogError::io("reading", Path::new(path));
    let mut file = entries;
    let begin = if lines.start == 0 { 0 } else { found.ends[lines.start - 1] };
    file.seek(SeekFrom::Start(begin)).map_err(io(ENTRIES_FILE))?;
    let mut reader = BufReader::new(file);
    let mut previous = if lines.start == 0 { entry::first_previous() } else { found.leaves[lines.start - 1] };
    let mut line = Vec::new();
    for index in lines {
        line.clear();
        (&mut reader).take(ENTRY_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).map_err(io(ENTRIES_FILE))?;
        line.pop();
        let index = index as u64;
        previous = entry::verify_line(&line, origin, index, &previous, key)
            .map_err(|source| LogError::Altered { index, source })?;
    }
    Ok(())
}

/// Checks all that a checkpoint covers. The root decides; if it differs, the entries themselves say which is to blame.
pub(super) fn check_covered(
    entries: &File,
    found: &Scan,
    checkpoint: &Checkpoint,
    key: &PublicKey,
) -> Result<(), LogError> {
    let covered = usize::try_from(checkpoint.size).ok().and_then(|size| found.leaves.get(..size));
    if covered.is_some_and(|leaves| merkle::root(leaves) == checkpoint.root) {
        return Ok(());
    }
    let present = covered.map_or(found.leaves.len(), <[Hash]>::len);
    verify_lines(entries, found, 0..present, &checkpoint.origin, key)?;
    if covered.is_some() {
        return Err(LogError::Forked { size: checkpoint.size });
    }
    if found.overlong {
        return Err(overlong(found));
    }
    Err(LogError::Truncated { have: found.count(), signed: checkpoint.size })
}

pub(super) fn overlong(found: &Scan) -> LogError {
    LogError::Altered { index: found.count(), source: EntryError::TooLarge { bytes: found.torn.len() } }
}

/// The bytes of a checkpoint file; `None` where there is none.
pub(super) fn read_note(folder: &Path) -> Result<Option<Vec<u8>>, LogError> {
    let path = folder.join(CHECKPOINT_FILE);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(LogError::io("opening", &path))?,
    };
    let mut bytes = Vec::new();
    file.take(checkpoint::CHECKPOINT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(LogError::io("reading", &path))?;
    Ok(Some(bytes))
}

/// What a checkpoint without an entries file means: entries that were removed, or a log that a crash left half made.
pub(super) fn without_entries(folder: &Path, note: &[u8], origin: &str, key: &PublicKey) -> LogError {
    match Checkpoint::open(note, origin, key) {
        Err(error) => error.into(),
        Ok(checkpoint) if checkpoint.size == 0 => LogError::NoLog { path: folder.to_owned() },
        Ok(checkpoint) => LogError::Truncated { have: 0, signed: checkpoint.size },
    }
}

impl LogView {
    /// Reads and verifies the log of that name and key in a folder. No lock is needed: a writer at work is seen as of
    /// its last checkpoint.
    ///
    /// Errors: no log; a checkpoint that is not believed; entries that are not the ones signed for, the first of which
    /// is named.
    pub fn read(folder: &Path, origin: &str, key: &PublicKey) -> Result<Self, LogError> {
        // The checkpoint comes first: entries only grow, so those read after it include all that it covers.
        let note = read_note(folder)?;
        let path = folder.join(ENTRIES_FILE);
        let entries = match (File::open(&path), &note) {
            (Err(error), None) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LogError::NoLog { path: folder.to_owned() });
            }
            (Err(error), Some(note)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(without_entries(folder, note, origin, key));
            }
            (opened, _) => opened.map_err(LogError::io("opening", &path))?,
        };
        let note = note.ok_or_else(|| LogError::NoCheckpoint { path: folder.to_owned() })?;
        let found = scan(&entries).map_err(LogError::io("reading", &path))?;
        Self::covered(folder, entries, &found, note, origin, key)
    }

    /// The part of a scanned log that its checkpoint covers, verified.
    pub(super) fn covered(
        folder: &Path,
        entries: File,
        found: &Scan,
        note: Vec<u8>,
        origin: &str,
        key: &PublicKey,
    ) -> Result<Self, LogError> {
        let checkpoint = Checkpoint::open(&note, origin, key)?;
        check_covered(&entries, found, &checkpoint, key)?;
        let size = usize::try_from(checkpoint.size).expect("that many leaves are in memory");
        Ok(Self {
            path: folder.to_owned(),
            note: String::from_utf8(note).expect("an opened note is UTF-8"),
            leaves: found.leaves[..size].to_vec(),
            ends: found.ends[..size].to_vec(),
            checkpoint,
            entries,
        })
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

    fn place(&self, index: u64) -> Result<usize, LogError> {
        let place = usize::try_from(index).ok().filter(|place| *place < self.leaves.len());
        place.ok_or(LogError::Proof(merkle::ProofError::OutOfRange { position: index, size: self.size() }))
    }

    /// The bytes of one entry, without the newline.
    ///
    /// Errors: no such entry, or a file that changed since it was verified.
    pub fn line(&self, index: u64) -> Result<Vec<u8>, LogError> {
        let place = self.place(index)?;
        let begin = if place == 0 { 0 } else { self.ends[place - 1] };
        let length = usize::try_from(self.ends[place] - begin - 1).expect("a line is shorter than 64 KiB");
        let mut line = vec![0; length];
        let io = LogError::io("reading", &self.path.join(ENTRIES_FILE));
        let mut file = &self.entries;
        file.seek(SeekFrom::Start(begin)).and_then(|_| file.read_exact(&mut line)).map_err(io)?;
        if merkle::leaf_hash(&line) != self.leaves[place] {
            return Err(LogError::Altered { index, source: EntryError::BadSignature });
        }
        Ok(line)
    }

    /// One entry.
    ///
    /// Errors: as [`LogView::line`], and a line that the log should never have written.
    pub fn entry(&self, index: u64) -> Result<Entry, LogError> {
        Entry::read(&self.line(index)?).map_err(|source| LogError::Altered { index, source })
    }

    /// All entries, oldest first; `.rev()` gives the newest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Result<Entry, LogError>> {
        (0..self.size()).map(|index| self.entry(index))
    }

    /// Hashes that show that an entry is in the tree of the checkpoint.
    ///
    /// Errors: no such entry.
    pub fn prove_inclusion(&self, index: u64) -> Result<Vec<Hash>, LogError> {
        Ok(merkle::prove_inclusion(&self.leaves, self.place(index)?)?)
    }

    /// Hashes that show that the log only added to its first `old` entries.
    ///
    /// Errors: `old` is 0 or more than there are.
    pub fn prove_consistency(&self, old: u64) -> Result<Vec<Hash>, LogError> {
        let old = usize::try_from(old).unwrap_or(usize::MAX);
        Ok(merkle::prove_consistency(&self.leaves, old)?)
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
        let earlier = usize::try_from(position.size).ok().and_then(|size| self.leaves.get(..size));
        let earlier = earlier.ok_or(LogError::Truncated { have: self.size(), signed: position.size })?;
        if merkle::root(earlier) == position.root_hash.0 {
            Ok(())
        } else {
            Err(LogError::Forked { size: position.size })
        }
    }
}
