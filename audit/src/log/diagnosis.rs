//! Finding the first thing that is wrong with a log, from its entries up.

use crate::log::checkpoint::Checkpoint;
use crate::log::entry::{Entry, EntryError};
use crate::log::kind::EventKind;
use crate::log::merkle::{self, Hash};
use crate::log::tiles::{self, TILE_WIDTH, TileKind, hashes_of_level, tile_path};
use crate::log::{Detail, LogError, RETAINED_DETAIL};
use std::path::Path;

/// All entries of a log, walked from the first.
pub(super) struct Walk {
    /// Hash of each entry that is sound, up to the first that is not.
    pub leaves: Vec<Hash>,
    /// The first thing that is wrong.
    pub fault: Option<LogError>,
    /// First entry that the log's own entries allow to be kept, all before it having been moved out.
    pub retained_allowed: u64,
}

/// Walks the entries of a tree of that size. Where a bundle was moved out, its tile stands for it.
///
/// Errors: a file that is there and cannot be read.
pub(super) fn walk(folder: &Path, origin: &str, size: u64, retained_from: u64) -> Result<Walk, LogError> {
    let mut found = Walk { leaves: Vec::new(), fault: None, retained_allowed: 0 };
    let mut previous = merkle::empty_root();
    for bundle in 0..size.div_ceil(TILE_WIDTH) {
        let first = bundle * TILE_WIDTH;
        let width = TILE_WIDTH.min(size - first);
        let hashes = match tiles::bare_hashes(folder, 0, bundle, width) {
            Ok(hashes) => Some(hashes),
            Err(error @ LogError::Io { .. }) => return Err(error),
            Err(_) => None,
        };
        let (lines, whole) = match (tiles::bare_bundle(folder, bundle, width)?, hashes.as_ref()) {
            (Some(read), _) => read,
            (None, Some(hashes)) if first + width <= retained_from => {
                found.leaves.extend_from_slice(hashes);
                previous = *hashes.last().expect("a tile has hashes");
                continue;
            }
            (None, _) if size - first <= TILE_WIDTH => (Vec::new(), false),
            (None, _) => {
                let path = folder.join(tile_path(TileKind::Entries, bundle, width));
                found.fault = Some(LogError::Missing { path });
                return Ok(found);
            }
        };
        for (line, index) in lines.iter().zip(first..) {
            let leaf = merkle::leaf_hash(line);
            let expected = hashes.as_ref().map_or(leaf, |hashes| hashes[(index - first) as usize]);
            let read = if expected == leaf { Entry::read(line) } else { Err(EntryError::OtherBytes) };
            match read.and_then(|entry| entry.belongs(origin, index, &previous).map(|()| entry)) {
                Ok(entry) => found.retained_allowed = found.retained_allowed.max(allowed(&entry)),
                Err(source) => {
                    found.fault = Some(LogError::Altered { index, source });
                    return Ok(found);
                }
            }
            found.leaves.push(leaf);
            previous = leaf;
        }
        if !whole {
            let have = found.leaves.len() as u64;
            let last = first + TILE_WIDTH >= size;
            found.fault = Some(if last && have < size {
                LogError::Truncated { have, signed: size }
            } else {
                LogError::Altered { index: have.min(first + width - 1), source: EntryError::OtherBytes }
            });
            return Ok(found);
        }
    }
    Ok(found)
}

/// What an entry allows to be moved out: those before the number it names.
fn allowed(entry: &Entry) -> u64 {
    match entry.metadata.get(RETAINED_DETAIL) {
        Some(Detail::Integer(first)) if entry.event_kind() == Some(EventKind::LogRetained) => {
            u64::try_from(*first).unwrap_or(0)
        }
        _ => 0,
    }
}

/// Every tile that is not what the hashes of the entries give.
///
/// Errors: a file that is there and cannot be read.
pub(super) fn wrong_tiles(folder: &Path, leaves: &[Hash]) -> Result<Vec<LogError>, LogError> {
    let size = leaves.len() as u64;
    let mut findings = Vec::new();
    let mut hashes = leaves.to_vec();
    let mut level = 0;
    while !hashes.is_empty() {
        debug_assert_eq!(hashes.len() as u64, hashes_of_level(size, level));
        for (tile, index) in hashes.chunks(TILE_WIDTH as usize).zip(0..) {
            match tiles::bare_hashes(folder, level, index, tile.len() as u64) {
                Ok(found) if found == tile => {}
                Ok(_) => {
                    let name = tile_path(TileKind::Hashes(level as u8), index, tile.len() as u64);
                    findings.push(LogError::Tile { path: folder.join(name) });
                }
                Err(error @ LogError::Io { .. }) => return Err(error),
                Err(error) => findings.push(error),
            }
        }
        hashes = hashes.chunks_exact(TILE_WIDTH as usize).map(merkle::root).collect();
        level += 1;
    }
    Ok(findings)
}

/// The first thing that is wrong with a log whose edge does not fit its checkpoint.
///
/// Errors: a file that is there and cannot be read.
pub(super) fn first_fault(
    folder: &Path,
    checkpoint: &Checkpoint,
    retained_from: u64,
) -> Result<Option<LogError>, LogError> {
    let walked = walk(folder, &checkpoint.origin, checkpoint.size, retained_from)?;
    if walked.fault.is_some() {
        return Ok(walked.fault);
    }
    if merkle::root(&walked.leaves) != checkpoint.root {
        return Ok(Some(LogError::Forked { size: checkpoint.size }));
    }
    Ok(wrong_tiles(folder, &walked.leaves)?.into_iter().next())
}
