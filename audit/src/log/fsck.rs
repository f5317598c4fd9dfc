//! Checking a log from nothing but its files and its public key.

use crate::keys::PublicKey;
use crate::log::checkpoint::Checkpoint;
use crate::log::merkle;
use crate::log::view::{self, LogView};
use crate::log::{ENTRIES_FILE, LogError};
use crate::manifest::LogPosition;
use std::fs::File;
use std::io;
use std::path::Path;

/// What a check of a whole log found.
#[derive(Debug)]
#[must_use = "a log is sound only if there are no findings"]
pub struct Fsck {
    /// The signed state; absent where it is not believed.
    pub checkpoint: Option<Checkpoint>,
    /// Whole lines.
    pub entries: u64,
    /// Whole lines beyond the checkpoint, which a writer at work or a crash leaves.
    pub pending: u64,
    /// Bytes after the last whole line, for the same reasons.
    pub torn_bytes: u64,
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

/// Derives every hash, signature and root of a log again, and compares it with states that were written down elsewhere
/// (in manifests, run records and reports).
///
/// Errors: the files cannot be read. Whatever is wrong with their content is a finding.
pub fn fsck(folder: &Path, origin: &str, key: &PublicKey, elsewhere: &[LogPosition]) -> Result<Fsck, LogError> {
    let note = view::read_note(folder)?;
    let path = folder.join(ENTRIES_FILE);
    let entries = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened.map_err(LogError::io("opening", &path))?),
    };
    let mut findings = Vec::new();
    let checkpoint = match &note {
        None if entries.is_none() => return Err(LogError::NoLog { path: folder.to_owned() }),
        None => {
            findings.push(LogError::NoCheckpoint { path: folder.to_owned() });
            None
        }
        Some(note) => Checkpoint::open(note, origin, key).map_err(|error| findings.push(error.into())).ok(),
    };
    let signed = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
    let Some(entries) = entries else {
        if signed > 0 {
            findings.push(LogError::Truncated { have: 0, signed });
        }
        return Ok(Fsck { checkpoint, entries: 0, pending: 0, torn_bytes: 0, findings });
    };
    let found = view::scan(&entries).map_err(LogError::io("reading", &path))?;
    let count = found.count();
    match view::verify_lines(&entries, &found, 0..found.leaves.len(), origin, key) {
        Err(error @ LogError::Io { .. }) => return Err(error),
        Err(error) => findings.push(error),
        Ok(()) if found.overlong => findings.push(view::overlong(&found)),
        Ok(()) => {}
    }
    if count < signed {
        findings.push(LogError::Truncated { have: count, signed });
    } else if let Some(checkpoint) = &checkpoint
        && findings.is_empty()
    {
        findings.extend(view::check_covered(&entries, &found, checkpoint, key).err());
    }
    if let (Some(note), true) = (note, findings.is_empty()) {
        let view = LogView::covered(folder, entries, &found, note, origin, key)?;
        findings.extend(elsewhere.iter().filter_map(|position| view.continues(position).err()));
    } else {
        findings.extend(elsewhere.iter().filter_map(|position| differs(&found.leaves, position)));
    }
    let torn_bytes = found.torn.len() as u64;
    Ok(Fsck { checkpoint, entries: count, pending: count.saturating_sub(signed), torn_bytes, findings })
}

/// Compares the bare lines of an unsound log with a state written down elsewhere.
fn differs(leaves: &[merkle::Hash], position: &LogPosition) -> Option<LogError> {
    match usize::try_from(position.size).ok().and_then(|size| leaves.get(..size)) {
        None => Some(LogError::Truncated { have: leaves.len() as u64, signed: position.size }),
        Some(earlier) if merkle::root(earlier) == position.root_hash.0 => None,
        Some(_) => Some(LogError::Forked { size: position.size }),
    }
}
