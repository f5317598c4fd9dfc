//! The tree as static files, in the layout of C2SP tlog-tiles.
//!
//! A tile of level L holds up to 256 hashes, each the root over 256^L entries; `tile/L/N` is the N-th of them and
//! `tile/L/N.p/W` its first W while it is not full. `tile/entries/N` holds the 256 entries under tile N of level 0, each
//! after its length in two bytes. Indices are written in groups of three digits, all but the last after an `x`:
//! 1234067 is `x001/x234/067`.
//!
//! Only the right edge of a tree ever changes. Its partial tiles, at most one for each level, lead to the root; any full
//! tile leads to a hash in the tile above it. So a reader believes what it reads after as many hashes as a proof has.

use crate::log::LogError;
use crate::log::entry::{ENTRY_BYTES_MAX, EntryError};
use crate::log::merkle::{self, Frontier, Hash};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Hashes of a full tile.
pub const TILE_WIDTH: u64 = 256;
/// Folder of all tiles inside a log folder.
pub const TILE_FOLDER: &str = "tile";
const HASH_BYTES: usize = 32;
const LENGTH_BYTES: usize = 2;
/// Levels of tiles under 2^64 entries.
const LEVELS_MAX: usize = 8;
/// Full tiles of hashes kept in memory, about 8 KiB each.
const CACHED_TILES_MAX: usize = 512;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TileKind {
    /// Hashes of a level.
    Hashes(u8),
    /// The entries themselves.
    Entries,
}

/// Path of a tile inside a log folder; `width` is 256 for a full one.
#[must_use]
pub fn tile_path(kind: TileKind, index: u64, width: u64) -> String {
    let mut groups = vec![format!("{:03}", index % 1000)];
    let mut rest = index / 1000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    groups.reverse();
    let place = match kind {
        TileKind::Hashes(level) => level.to_string(),
        TileKind::Entries => "entries".to_owned(),
    };
    let partial = if width == TILE_WIDTH { String::new() } else { format!(".p/{width}") };
    format!("{TILE_FOLDER}/{place}/{}{partial}", groups.join("/"))
}

/// Complete hashes of a level in a tree of that many entries.
pub(super) const fn hashes_of_level(size: u64, level: usize) -> u64 {
    if level >= LEVELS_MAX { 0 } else { size >> (8 * level) }
}

/// Bytes of a tile of hashes.
fn hash_bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.concat()
}

/// Bytes of a bundle of entries.
fn bundle_bytes(lines: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(lines.iter().map(|line| line.len() + LENGTH_BYTES).sum());
    for line in lines {
        let length = u16::try_from(line.len()).expect("an entry has at most 65,535 bytes");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(line);
    }
    bytes
}

/// Entries of a bundle.
pub(super) type Lines = Vec<Vec<u8>>;
/// Full tiles by level and index.
type FullTiles = BTreeMap<(usize, u64), Arc<Vec<Hash>>>;

/// The entries of a bundle, and whether all `width` of them and nothing else are in it.
pub(crate) fn read_bundle(bytes: &[u8], width: usize) -> (Lines, bool) {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while lines.len() < width {
        let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() else { return (lines, false) };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((line, after)) = after.split_at_checked(length) else { return (lines, false) };
        lines.push(line.to_vec());
        rest = after;
    }
    (lines, rest.is_empty())
}

/// The hashes of a tile of that width; `None` for any other length.
pub(crate) fn read_hashes(bytes: &[u8], width: usize) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    (rest.is_empty() && hashes.len() == width).then(|| hashes.to_vec())
}

/// A file to be written: its path inside the log folder, and its bytes.
pub(super) type NewFile = (String, Vec<u8>);

/// The right edge of a tree: its partial tiles, and what is needed to add to it.
#[derive(Debug, Clone)]
pub(super) struct Edge {
    /// Hashes of the partial tile of each level; empty where the level has full tiles only.
    pub levels: Vec<Vec<Hash>>,
    /// Entries of the partial bundle.
    pub lines: Vec<Vec<u8>>,
    /// Roots of the full subtrees.
    pub frontier: Frontier,
    /// Hash of the last entry; what the first entry has before it, where there is none.
    pub last: Hash,
}

impl Edge {
    /// The edge of the empty tree.
    pub(super) fn empty() -> Self {
        Self { levels: Vec::new(), lines: Vec::new(), frontier: Frontier::default(), last: merkle::empty_root() }
    }

    /// Number of entries.
    pub(super) const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Adds an entry; the tiles it fills are appended to `files`.
    pub(super) fn push(&mut self, line: Vec<u8>, leaf: Hash, files: &mut Vec<NewFile>) {
        self.frontier.push(leaf);
        self.last = leaf;
        self.lines.push(line);
        let mut hash = leaf;
        let size = self.size();
        for level in 0..LEVELS_MAX {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(hash);
            if self.levels[level].len() as u64 != TILE_WIDTH {
                return;
            }
            let full = std::mem::take(&mut self.levels[level]);
            let index = hashes_of_level(size, level) / TILE_WIDTH - 1;
            if level == 0 {
                let lines = std::mem::take(&mut self.lines);
                files.push((tile_path(TileKind::Entries, index, TILE_WIDTH), bundle_bytes(&lines)));
            }
            hash = merkle::root(&full);
            files.push((tile_path(TileKind::Hashes(level as u8), index, TILE_WIDTH), hash_bytes(&full)));
        }
    }

    /// The partial tiles of this edge that the edge of `before` entries did not have.
    pub(super) fn partial_files(&self, before: u64) -> Vec<NewFile> {
        let mut files = Vec::new();
        for (level, hashes) in self.levels.iter().enumerate() {
            if hashes.is_empty() || hashes_of_level(before, level) == hashes_of_level(self.size(), level) {
                continue;
            }
            let (index, width) = (hashes_of_level(self.size(), level) / TILE_WIDTH, hashes.len() as u64);
            files.push((tile_path(TileKind::Hashes(level as u8), index, width), hash_bytes(hashes)));
            if level == 0 {
                files.push((tile_path(TileKind::Entries, index, width), bundle_bytes(&self.lines)));
            }
        }
        files
    }
}

/// Paths of the partial tiles that a tree of that many entries has.
pub(super) fn partial_paths(size: u64) -> Vec<String> {
    let mut paths = Vec::new();
    for level in 0..LEVELS_MAX {
        let hashes = hashes_of_level(size, level);
        let (index, width) = (hashes / TILE_WIDTH, hashes % TILE_WIDTH);
        if width > 0 {
            paths.push(tile_path(TileKind::Hashes(level as u8), index, width));
            if level == 0 {
                paths.push(tile_path(TileKind::Entries, index, width));
            }
        }
    }
    paths
}

/// Reads a file of a log whole, up to `limit` bytes; `None` where there is none.
pub(super) fn read_file(folder: &Path, name: &str, limit: usize) -> Result<Option<Vec<u8>>, LogError> {
    let path = folder.join(name);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(LogError::io("opening", &path))?,
    };
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(LogError::io("reading", &path))?;
    Ok(Some(bytes))
}

/// The hashes of a tile as they lie on disk, not compared with anything.
pub(super) fn bare_hashes(folder: &Path, level: usize, index: u64, width: u64) -> Result<Vec<Hash>, LogError> {
    let name = tile_path(TileKind::Hashes(level as u8), index, width);
    let bytes = read_file(folder, &name, TILE_WIDTH as usize * HASH_BYTES)?;
    let bytes = bytes.ok_or_else(|| LogError::Missing { path: folder.join(&name) })?;
    read_hashes(&bytes, width as usize).ok_or(LogError::Tile { path: folder.join(&name) })
}

/// The entries of a bundle as they lie on disk, and whether it is whole; `None` where there is no such file.
pub(super) fn bare_bundle(folder: &Path, index: u64, width: u64) -> Result<Option<(Lines, bool)>, LogError> {
    let name = tile_path(TileKind::Entries, index, width);
    let limit = width as usize * (ENTRY_BYTES_MAX + LENGTH_BYTES);
    Ok(read_file(folder, &name, limit)?.map(|bytes| read_bundle(&bytes, width as usize)))
}

/// The tiles of a log folder, each believed only once it leads to the edge.
#[derive(Debug)]
pub(super) struct Tiles {
    pub folder: PathBuf,
    pub edge: Edge,
    cache: RefCell<FullTiles>,
    bundle: RefCell<Option<(u64, Arc<Lines>)>>,
}

impl Tiles {
    pub(super) fn new(folder: &Path, edge: Edge) -> Self {
        Self { folder: folder.to_owned(), edge, cache: RefCell::default(), bundle: RefCell::default() }
    }

    /// Reads the edge of a tree of that many entries. Nothing says yet that it is the right one: its root does.
    pub(super) fn read(folder: &Path, size: u64) -> Result<Self, LogError> {
        let mut levels = Vec::new();
        let mut peaks = Vec::new();
        for level in 0..LEVELS_MAX {
            let hashes = hashes_of_level(size, level);
            if hashes == 0 {
                break;
            }
            let (index, width) = (hashes / TILE_WIDTH, hashes % TILE_WIDTH);
            levels.push(if width == 0 { Vec::new() } else { bare_hashes(folder, level, index, width)? });
        }
        for hashes in levels.iter().rev() {
            let mut from = 0;
            for bit in (0..8).rev() {
                let count = 1_usize << bit;
                if hashes.len() & count != 0 {
                    peaks.push(merkle::root(&hashes[from..from + count]));
                    from += count;
                }
            }
        }
        let frontier = Frontier::of_peaks(size, peaks);
        let mut tiles = Self::new(folder, Edge { levels, frontier, ..Edge::empty() });
        tiles.edge.last = match tiles.edge.levels.first() {
            None => merkle::empty_root(),
            Some(hashes) if !hashes.is_empty() => *hashes.last().expect("not empty"),
            Some(_) => tiles.edge.last,
        };
        Ok(tiles)
    }

    /// Reads the rest of the edge, once its root is known to be the signed one.
    pub(super) fn read_lines(&mut self) -> Result<(), LogError> {
        let size = self.edge.size();
        let (index, width) = (size / TILE_WIDTH, size % TILE_WIDTH);
        if width > 0 {
            self.edge.lines = self.check_bundle(index, width, &self.edge.levels[0])?;
        } else if size > 0 {
            self.edge.last = self.hash(0, size - 1)?;
        }
        Ok(())
    }

    fn check_bundle(&self, index: u64, width: u64, leaves: &[Hash]) -> Result<Vec<Vec<u8>>, LogError> {
        let first = index * TILE_WIDTH;
        let found = bare_bundle(&self.folder, index, width)?;
        let (lines, whole) = found
            .ok_or_else(|| LogError::Missing { path: self.folder.join(tile_path(TileKind::Entries, index, width)) })?;
        for ((line, leaf), at) in lines.iter().zip(leaves).zip(first..) {
            if merkle::leaf_hash(line) != *leaf {
                return Err(LogError::Altered { index: at, source: EntryError::OtherBytes });
            }
        }
        if !whole {
            let last = (lines.len() as u64).min(width - 1);
            return Err(LogError::Altered { index: first + last, source: EntryError::OtherBytes });
        }
        Ok(lines)
    }

    /// A full tile, compared with the tile above it.
    fn full(&self, level: usize, index: u64) -> Result<Arc<Vec<Hash>>, LogError> {
        if let Some(tile) = self.cache.borrow().get(&(level, index)) {
            return Ok(Arc::clone(tile));
        }
        let hashes = bare_hashes(&self.folder, level, index, TILE_WIDTH)?;
        if merkle::root(&hashes) != self.hash(level + 1, index)? {
            let name = tile_path(TileKind::Hashes(level as u8), index, TILE_WIDTH);
            return Err(LogError::Tile { path: self.folder.join(name) });
        }
        let tile = Arc::new(hashes);
        let mut cache = self.cache.borrow_mut();
        if cache.len() >= CACHED_TILES_MAX {
            cache.clear();
        }
        cache.insert((level, index), Arc::clone(&tile));
        Ok(tile)
    }

    /// Hash number `index` of a level.
    fn hash(&self, level: usize, index: u64) -> Result<Hash, LogError> {
        let (tile, place) = (index / TILE_WIDTH, (index % TILE_WIDTH) as usize);
        if tile == hashes_of_level(self.edge.size(), level) / TILE_WIDTH {
            return Ok(self.edge.levels[level][place]);
        }
        Ok(self.full(level, tile)?[place])
    }

    /// Root over the `2^height` entries from `index * 2^height` on, all of them in the tree.
    pub(super) fn subtree(&self, height: u32, index: u64) -> Result<Hash, LogError> {
        let (level, rest) = ((height / 8) as usize, height % 8);
        let first = index << rest;
        let (tile, place) = (first / TILE_WIDTH, (first % TILE_WIDTH) as usize);
        let count = 1_usize << rest;
        if tile == hashes_of_level(self.edge.size(), level) / TILE_WIDTH {
            return Ok(merkle::root(&self.edge.levels[level][place..place + count]));
        }
        Ok(merkle::root(&self.full(level, tile)?[place..place + count]))
    }

    /// The bytes of an entry of the tree.
    pub(super) fn line(&self, index: u64) -> Result<Vec<u8>, LogError> {
        let (bundle, place) = (index / TILE_WIDTH, (index % TILE_WIDTH) as usize);
        if bundle == self.edge.size() / TILE_WIDTH {
            return Ok(self.edge.lines[place].clone());
        }
        if let Some((at, lines)) = &*self.bundle.borrow()
            && *at == bundle
        {
            return Ok(lines[place].clone());
        }
        let leaves = self.full(0, bundle)?;
        let lines = Arc::new(self.check_bundle(bundle, TILE_WIDTH, &leaves)?);
        let line = lines[place].clone();
        *self.bundle.borrow_mut() = Some((bundle, lines));
        Ok(line)
    }

    /// Hash of an entry of the tree.
    pub(super) fn leaf(&self, index: u64) -> Result<Hash, LogError> {
        self.hash(0, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_the_specification_prints() {
        // C2SP tlog-tiles: "tile/<L>/<N>[.p/<W>]", 1234067 is x001/x234/067.
        assert_eq!(tile_path(TileKind::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(tile_path(TileKind::Hashes(3), 0, 256), "tile/3/000");
        assert_eq!(tile_path(TileKind::Entries, 273, 112), "tile/entries/273.p/112");
        assert_eq!(tile_path(TileKind::Hashes(0), 273, 112), "tile/0/273.p/112");
        assert_eq!(tile_path(TileKind::Hashes(1), 1000, 1), "tile/1/x001/000.p/1");
    }

    #[test]
    fn the_files_of_a_tree_are_those_the_specification_lists() {
        // "For example, a log with 70,000 entries": tile/0/000 to 272 and 273.p/112, tile/1/000 and 001.p/17, tile/2/000.p/1.
        let mut edge = Edge::empty();
        let mut files = Vec::new();
        for number in 0..70_000_u32 {
            let line = number.to_be_bytes().to_vec();
            let leaf = merkle::leaf_hash(&line);
            edge.push(line, leaf, &mut files);
        }
        let full: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(full.iter().filter(|path| path.starts_with("tile/0/")).count(), 273);
        assert_eq!(full.iter().filter(|path| path.starts_with("tile/entries/")).count(), 273);
        assert!(full.contains(&"tile/0/272") && full.contains(&"tile/1/000") && !full.contains(&"tile/1/001"));
        let partial: Vec<String> = edge.partial_files(0).into_iter().map(|(path, _)| path).collect();
        assert_eq!(partial, ["tile/0/273.p/112", "tile/entries/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
        assert_eq!(partial_paths(70_000), partial);
        let leaves: Vec<Hash> = (0..70_000_u32).map(|n| merkle::leaf_hash(&n.to_be_bytes())).collect();
        assert_eq!(edge.frontier.root(), merkle::root(&leaves));
    }

    #[test]
    fn any_bytes_are_a_bundle_or_not_without_a_panic_and_a_bundle_survives() {
        let lines: Vec<Vec<u8>> = [b"".as_slice(), b"a", &[7; 65_535]].map(<[u8]>::to_vec).to_vec();
        let bytes = bundle_bytes(&lines);
        assert_eq!(read_bundle(&bytes, 3), (lines.clone(), true));
        for length in 0..bytes.len() {
            assert!(!read_bundle(&bytes[..length], 3).1);
        }
        assert!(!read_bundle(&[bytes.as_slice(), &[0]].concat(), 3).1);
        assert_eq!(read_hashes(&[1; 64], 2), Some(vec![[1; 32]; 2]));
        assert_eq!(read_hashes(&[1; 63], 2), None);
        assert_eq!(read_hashes(&[1; 96], 2), None);
    }
}
