//! Checking a log from nothing but its files and its public key.

use crate::keys::PublicKey;
use crate::log::checkpoint::Checkpoint;
use crate::log::view::{self, LogView};
use crate::log::{LogError, OLD_ENTRIES_FILE, diagnosis, merkle, tiles};
use crate::manifest::LogPosition;
use std::path::Path;

/// What a check of a whole log found.
#[derive(Debug)]
#[must_use = "a log is sound only if there are no findings"]
pub struct Fsck {
    /// The signed state; absent where it is not believed.
    pub checkpoint: Option<Checkpoint>,
    /// Sound entries, from the first on.
    pub entries: u64,
    /// First entry that is still here; those before it were moved out, which the log itself says.
    pub retained_from: u64,
    /// Everything that is wrong. Of the entries, the first that differs: those after it are chained to it.
    pub findings: Vec<LogError>,
}

impl Fsck {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Derives every hash, tile and root of a log again, and compares it with states that were written down elsewhere (in
/// manifests, run records, reports and by witnesses). No writer may be at work.
///
/// Errors: the files cannot be read. Whatever is wrong with their content is a finding.
pub fn fsck(folder: &Path, origin: &str, key: &PublicKey, elsewhere: &[LogPosition]) -> Result<Fsck, LogError> {
    let note = view::read_note(folder)?;
    let mut findings = Vec::new();
    let checkpoint = match &note {
        None if !folder.join(tiles::TILE_FOLDER).exists() && !folder.join(OLD_ENTRIES_FILE).exists() => {
            return Err(LogError::NoLog { path: folder.to_owned() });
        }
        None => {
            findings.push(LogError::NoCheckpoint { path: folder.to_owned() });
            None
        }
        Some(note) => Checkpoint::open(note, origin, key).map_err(|error| findings.push(error.into())).ok(),
    };
    let retained_from = match view::read_retained(folder) {
        Ok(first) => first,
        Err(error @ LogError::Io { .. }) => return Err(error),
        Err(error) => {
            findings.push(error);
            0
        }
    };
    let Some(checkpoint) = checkpoint else {
        return Ok(Fsck { checkpoint: None, entries: 0, retained_from, findings });
    };
    if checkpoint.size > 0 && !folder.join(tiles::TILE_FOLDER).exists() && folder.join(OLD_ENTRIES_FILE).exists() {
        findings.push(LogError::OldLayout { path: folder.to_owned() });
        return Ok(Fsck { checkpoint: Some(checkpoint), entries: 0, retained_from, findings });
    }
    let walked = diagnosis::walk(folder, origin, checkpoint.size, retained_from)?;
    let entries = walked.leaves.len() as u64;
    if let Some(fault) = walked.fault {
        findings.push(fault);
    } else {
        if merkle::root(&walked.leaves) != checkpoint.root {
            findings.push(LogError::Forked { size: checkpoint.size });
        }
        findings.extend(diagnosis::wrong_tiles(folder, &walked.leaves)?);
    }
    if retained_from > walked.retained_allowed {
        findings.push(LogError::Unannounced { first: retained_from, allowed: walked.retained_allowed });
    }
    if findings.is_empty() {
        let view = LogView::covered(folder, note.as_deref(), origin, key)?;
        for position in elsewhere {
            match view.continues(position) {
                Ok(()) => {}
                Err(error @ LogError::Io { .. }) => return Err(error),
                Err(error) => findings.push(error),
            }
        }
    } else {
        findings.extend(elsewhere.iter().filter_map(|position| differs(&walked.leaves, position)));
    }
    Ok(Fsck { checkpoint: Some(checkpoint), entries, retained_from, findings })
}

/// Compares the sound entries of an unsound log with a state written down elsewhere.
fn differs(leaves: &[merkle::Hash], position: &LogPosition) -> Option<LogError> {
    match usize::try_from(position.size).ok().and_then(|size| leaves.get(..size)) {
        None => Some(LogError::Truncated { have: leaves.len() as u64, signed: position.size }),
        Some(earlier) if merkle::root(earlier) == position.root_hash.0 => None,
        Some(_) => Some(LogError::Forked { size: position.size }),
    }
}
