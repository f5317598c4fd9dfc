//! The append-only log: what was done, by whom, to which files, in an order that nobody can change unseen.
//!
//! A log is a folder with two files that matter:
//!
//! * `entries.jsonl`: one [`Entry`] per line, canonical JSON. The bytes of a line without its newline are a leaf of the
//!   Merkle tree.
//! * `checkpoint`: the signed number of entries and root, a C2SP note ([`Checkpoint`]).
//!
//! `lock` is held by the one writer. An append writes the lines and syncs them, and only then replaces the checkpoint,
//! itself synced before and after its rename. So a crash leaves at most lines that the checkpoint does not count yet:
//! whole ones carry the log's own signature and are kept, a torn last one was never acknowledged and is cut.
//!
//! Serving [tlog-tiles](https://c2sp.org/tlog-tiles) needs nothing that is not here: `checkpoint` is served as it is, an
//! entry bundle is 256 lines with a 16-bit length before each (hence the limit on their size), and a tile of level 0
//! is their 256 leaf hashes; higher tiles hash those. Lines never move, so whole tiles can be cut once and kept.
//!
//! The log shows every change to anybody who holds an older checkpoint. **Whoever holds the log's key and the only
//! copies of its checkpoints can rewrite all of it**: print checkpoints into manifests and reports, and keep them
//! elsewhere. Folders on NFS and object-store mounts are unsuitable, since locks and renames mean less there.

pub mod checkpoint;
pub mod entry;
mod fsck;
pub mod merkle;
mod proof;
mod view;
mod writer;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use entry::{Detail, Entry, EntryError, Event, EventKind, Severity};
pub use fsck::{Fsck, fsck};
pub use proof::{InclusionProofError, verify_inclusion_proof};
pub use view::LogView;
pub use writer::{Log, OnLock, Recovery};

use merkle::ProofError;
use std::io;
use std::path::{Path, PathBuf};

/// File of the entries inside a log folder.
pub const ENTRIES_FILE: &str = "entries.jsonl";
/// File of the signed state inside a log folder.
pub const CHECKPOINT_FILE: &str = "checkpoint";
/// File whose lock the writer holds.
pub const LOCK_FILE: &str = "lock";

/// Why a log cannot be relied on, or not be written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system refused.
    #[error("{doing} {path:?}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process writes this log.
    #[error("another process writes the log {path:?}; wait for it to end")]
    Locked {
        /// The folder of the log.
        path: PathBuf,
    },
    /// A name that no checkpoint can carry.
    #[error("log name {name:?} is empty, longer than 256 bytes, or has spaces, control characters or '+'")]
    Origin {
        /// The name.
        name: String,
    },
    /// There is nothing.
    #[error("there is no log in {path:?}")]
    NoLog {
        /// The folder.
        path: PathBuf,
    },
    /// Entries without a signed state: somebody removed it.
    #[error("the log in {path:?} has entries and no checkpoint; it was removed")]
    NoCheckpoint {
        /// The folder.
        path: PathBuf,
    },
    /// The signed state is not believed.
    #[error("the log's {0}")]
    Checkpoint(#[from] CheckpointError),
    /// An entry is not what the log wrote there. It is the first such entry.
    #[error("entry {index} is not what was logged: {source}")]
    Altered {
        /// Its position, from 0.
        index: u64,
        /// What is wrong with it.
        #[source]
        source: EntryError,
    },
    /// Entries are missing at the end.
    #[error("the log has {have} entries; {signed} were signed, so the last {} were removed", signed - have)]
    Truncated {
        /// Entries found.
        have: u64,
        /// Entries that were signed for.
        signed: u64,
    },
    /// Entries that the log's key signed, but not in the tree that was signed for: the log was written twice.
    #[error("the first {size} entries are not those that were signed for: the log was replaced by another one")]
    Forked {
        /// Entries of the signed state.
        size: u64,
    },
    /// An event that cannot be logged.
    #[error("event cannot be logged: {0}")]
    Event(#[source] EntryError),
    /// An earlier append failed half way.
    #[error("an earlier append failed; open the log again, which recovers it")]
    Unusable,
    /// No such entry or size.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl LogError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
