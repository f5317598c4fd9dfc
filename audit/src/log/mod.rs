//! The append-only log: what was done, by whom, to which files, in an order that nobody can change unseen.
//!
//! A log is a folder in the layout of C2SP [tlog-tiles](https://c2sp.org/tlog-tiles), so it can be served as it is by any
//! web server and read by tools that never heard of isotherm:
//!
//! * `checkpoint`: the signed number of entries and root of their Merkle tree, a C2SP note ([`Checkpoint`]);
//! * `tile/`: the tree, and `tile/entries/` the entries, each an [`Entry`] in canonical JSON ([`tile_path`]).
//!
//! `lock` is held by the one writer. An append writes and syncs the tiles and the folders they are in, and only then
//! replaces the checkpoint, itself synced before and after its rename. So a crash leaves at most tiles that no checkpoint
//! leads to, and they are cleared away; what was acknowledged is there.
//!
//! Old entries can be moved out ([`Log::retain`]): their hashes stay, so every proof made before or after still holds.
//!
//! The log shows every change to anybody who holds an older checkpoint. **Whoever holds the log's key and the only
//! copies of its checkpoints can rewrite all of it**: have [`witness`]es cosign them, print them into manifests and
//! reports, and keep them elsewhere. Folders on NFS and object-store mounts are unsuitable, since locks and renames mean
//! less there.

pub mod checkpoint;
mod diagnosis;
pub mod entry;
mod fsck;
pub mod kind;
pub mod merkle;
mod migrate;
mod proof;
pub mod query;
mod retain;
mod tiles;
mod view;
pub mod witness;
mod writer;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use entry::{Detail, Entry, EntryError, Event};
pub use fsck::{Fsck, fsck};
pub use kind::{EventKind, EventResult, Severity};
pub use proof::{InclusionProofError, verify_inclusion_proof};
pub use query::{Answer, Query};
pub use retain::Retained;
pub use tiles::{TILE_FOLDER, TILE_WIDTH, TileKind, tile_path};
pub use view::LogView;
pub use writer::{Log, OnLock, Recovery};

use merkle::ProofError;
use std::io;
use std::path::{Path, PathBuf};

/// File of the signed state inside a log folder.
pub const CHECKPOINT_FILE: &str = "checkpoint";
/// File whose lock the writer holds.
pub const LOCK_FILE: &str = "lock";
/// File that says which entries were moved out, inside a log folder.
pub const RETAINED_FILE: &str = "retained";
/// File of entries, one a line, in which earlier versions kept a log.
pub const OLD_ENTRIES_FILE: &str = "entries.jsonl";
/// Detail of a `log.retained` event: the first entry that stays.
pub(crate) const RETAINED_DETAIL: &str = "first";

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
    /// A tile or another file of the log is not there.
    #[error("{path:?} is missing from the log")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A tile or another file of the log is not what the log wrote.
    #[error("{path:?} is not what the log wrote")]
    Tile {
        /// The file.
        path: PathBuf,
    },
    /// An entry that is kept elsewhere now.
    #[error("entry {index} was moved out; the log keeps entries from {first} on, and the hashes of all")]
    MovedOut {
        /// The entry.
        index: u64,
        /// First entry still here.
        first: u64,
    },
    /// Entries are gone that no entry of the log says may go.
    #[error("entries before {first} are gone; the log itself lets those before {allowed} go")]
    Unannounced {
        /// First entry still here.
        first: u64,
        /// What the log says.
        allowed: u64,
    },
    /// A log of an earlier version.
    #[error(
        "the log in {path:?} is in the layout of an earlier version; the next command that writes to it brings it over"
    )]
    OldLayout {
        /// The folder.
        path: PathBuf,
    },
    /// A writer went on faster than this reader could follow.
    #[error("the log in {path:?} changed each time it was read; try again")]
    Busy {
        /// The folder.
        path: PathBuf,
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
