//! Bringing a log of earlier versions, one file of lines, into tiles. The lines were the leaves of the same tree, so its
//! signed checkpoint holds on.

use crate::keys::PublicKey;
use crate::log::checkpoint::Checkpoint;
use crate::log::entry::ENTRY_BYTES_MAX;
use crate::log::{LogError, OLD_ENTRIES_FILE, merkle, tiles, writer};
use crate::storage;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

const DONE_SUFFIX: &str = ".migrated";

/// Cuts the lines that a checkpoint covers into tiles, and puts the old file aside. Gives the number of entries; 0 where
/// there is nothing to do. A crash in between leaves the old file, and this begins again.
///
/// Errors: lines that are not those signed for, and then nothing is changed.
pub(super) fn from_lines(folder: &Path, note: &[u8], origin: &str, key: &PublicKey) -> Result<u64, LogError> {
    let old = folder.join(OLD_ENTRIES_FILE);
    if !old.exists() {
        return Ok(0);
    }
    let checkpoint = Checkpoint::open(note, origin, key)?;
    let lines = read_lines(&old, checkpoint.size)?;
    let leaves: Vec<merkle::Hash> = lines.iter().map(|line| merkle::leaf_hash(line)).collect();
    if merkle::root(&leaves) != checkpoint.root {
        return Err(LogError::Forked { size: checkpoint.size });
    }
    let made = writer::write_tree(folder, lines)?;
    debug_assert_eq!(made.edge.frontier.root(), checkpoint.root);
    let done = folder.join(format!("{OLD_ENTRIES_FILE}{DONE_SUFFIX}"));
    fs::rename(&old, done)
        .and_then(|()| storage::sync_folder(folder))
        .map_err(LogError::io("putting the old entries aside", &old))?;
    debug_assert!(folder.join(tiles::TILE_FOLDER).exists() || checkpoint.size == 0);
    Ok(checkpoint.size)
}

fn read_lines(path: &Path, count: u64) -> Result<Vec<Vec<u8>>, LogError> {
    let io = || LogError::io("reading", path);
    let mut reader = BufReader::new(fs::File::open(path).map_err(io())?);
    let mut lines = Vec::new();
    while (lines.len() as u64) < count {
        let mut line = Vec::new();
        (&mut reader).take(ENTRY_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).map_err(io())?;
        if line.pop() != Some(b'\n') {
            return Err(LogError::Truncated { have: lines.len() as u64, signed: count });
        }
        lines.push(line);
    }
    Ok(lines)
}
