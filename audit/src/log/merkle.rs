//! The Merkle tree of RFC 6962: one hash for a whole log, short proofs that an entry is in it and that it only grew.
//!
//! Leaves are hashed with a 0x00 byte before them and nodes with 0x01, so that no node passes for a leaf. A tree of
//! `n` leaves splits at the largest power of two below `n`.

use sha2::{Digest as _, Sha256};
use std::ops::Range;

/// A SHA-256 value: of a leaf, a node or a whole tree.
pub type Hash = [u8; 32];

/// Why a proof shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A position that the tree does not have.
    #[error("position {position} is not in a tree of {size} entries")]
    OutOfRange {
        /// The position or the old size.
        position: u64,
        /// Entries of the tree.
        size: u64,
    },
    /// Too many or too few hashes for such a tree.
    #[error("proof has {found} hashes, which is not what a tree of this shape needs")]
    Length {
        /// How many hashes it has.
        found: usize,
    },
    /// The hashes lead to another root: an altered entry, an altered tree or an altered proof.
    #[error("proof leads to another root than the signed one")]
    Root,
    /// Two trees of one size with different roots.
    #[error("two logs of the same size have different roots")]
    Fork,
}

/// Hash of an entry.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

/// Hash of two subtrees side by side.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Root of the tree without entries.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The roots of the full subtrees that a growing log consists of, largest first: as many as its size has binary ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Adds a leaf at the right.
    pub fn push(&mut self, leaf: Hash) {
        let mut peak = leaf;
        // Adding one carries through the trailing ones of the size, and each carry joins two equal subtrees.
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("a size with that many binary ones has that many peaks");
            peak = node_hash(&left, &peak);
        }
        self.peaks.push(peak);
        self.size += 1;
    }

    /// The state of a tree of that many leaves, from the roots of its full subtrees, largest first.
    ///
    /// # Panics
    /// With another number of roots than the size has binary ones.
    pub(crate) fn of_peaks(size: u64, peaks: Vec<Hash>) -> Self {
        assert_eq!(peaks.len(), size.count_ones() as usize, "a tree of {size} leaves has one peak for each binary one");
        Self { size, peaks }
    }

    /// Number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Root over all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return empty_root() };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// Root of the tree over these leaf hashes.
#[must_use]
pub fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.push(*leaf);
    }
    frontier.root()
}

/// The largest power of two below `size`, which is at least 2.
const fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// Root over the leaves of a range, from the roots of full subtrees: `full(level, index)` is the root over the `2^level`
/// leaves from `index * 2^level` on.
pub(crate) fn range_root<E>(range: Range<u64>, full: &mut impl FnMut(u32, u64) -> Result<Hash, E>) -> Result<Hash, E> {
    let size = range.end - range.start;
    if size.is_power_of_two() {
        return full(size.ilog2(), range.start >> size.ilog2());
    }
    let middle = range.start + split(size);
    let left = range_root(range.start..middle, full)?;
    Ok(node_hash(&left, &range_root(middle..range.end, full)?))
}

/// Hashes that lead from the leaf at `index` to the root of a tree of `size` leaves, nearest sibling first (RFC 6962
/// section 2.1.1); `root_of` gives the root over a range of leaves.
pub(crate) fn inclusion_path<E: From<ProofError>>(
    size: u64,
    index: u64,
    mut root_of: impl FnMut(Range<u64>) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    if index >= size {
        return Err(ProofError::OutOfRange { position: index, size }.into());
    }
    let mut tree = 0..size;
    let mut path = Vec::new();
    while tree.end - tree.start > 1 {
        let middle = tree.start + split(tree.end - tree.start);
        if index < middle {
            path.push(root_of(middle..tree.end)?);
            tree.end = middle;
        } else {
            path.push(root_of(tree.start..middle)?);
            tree.start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// Hashes that show that the first `old` leaves are a prefix of all `size` (RFC 6962 section 2.1.2).
pub(crate) fn consistency_path<E: From<ProofError>>(
    size: u64,
    old: u64,
    mut root_of: impl FnMut(Range<u64>) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    if old == 0 || old > size {
        return Err(ProofError::OutOfRange { position: old, size }.into());
    }
    let mut tree = 0..size;
    let mut path = Vec::new();
    // While only left branches were taken, what is left of the old tree is the old tree, whose root the verifier has.
    let mut old_root_known = true;
    while old < tree.end {
        let middle = tree.start + split(tree.end - tree.start);
        if old <= middle {
            path.push(root_of(middle..tree.end)?);
            tree.end = middle;
        } else {
            path.push(root_of(tree.start..middle)?);
            tree.start = middle;
            old_root_known = false;
        }
    }
    if !old_root_known {
        path.push(root_of(tree)?);
    }
    path.reverse();
    Ok(path)
}

fn slice_root(leaves: &[Hash]) -> impl FnMut(Range<u64>) -> Result<Hash, ProofError> {
    |range| Ok(root(&leaves[range.start as usize..range.end as usize]))
}

/// Hashes that lead from the leaf at `index` to the root, nearest sibling first (RFC 6962 section 2.1.1).
///
/// Errors: no such leaf.
pub fn prove_inclusion(leaves: &[Hash], index: usize) -> Result<Vec<Hash>, ProofError> {
    inclusion_path(leaves.len() as u64, index as u64, slice_root(leaves))
}

/// Hashes that show that the first `old` leaves are a prefix of all of them (RFC 6962 section 2.1.2).
///
/// Errors: fewer leaves than `old`, or none to begin with.
pub fn prove_consistency(leaves: &[Hash], old: usize) -> Result<Vec<Hash>, ProofError> {
    consistency_path(leaves.len() as u64, old as u64, slice_root(leaves))
}

/// Checks that a leaf is at `index` of the tree with this size and root (RFC 9162 section 2.1.3.2).
///
/// Errors: it is not, or the proof has another shape.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange { position: index, size });
    }
    let length = ProofError::Length { found: path.len() };
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in path {
        if last == 0 {
            return Err(length);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(length);
    }
    if hash == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Checks that the log with `new` entries and root only added to the one with `old` entries and root (RFC 9162 section
/// 2.1.4.2). Every log continues the empty one, which needs no hashes.
///
/// Errors: it does not, or the proof has another shape.
pub fn verify_consistency(old: (u64, &Hash), new: (u64, &Hash), path: &[Hash]) -> Result<(), ProofError> {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    let length = ProofError::Length { found: path.len() };
    if old_size > new_size {
        return Err(ProofError::OutOfRange { position: old_size, size: new_size });
    }
    if old_size == new_size || old_size == 0 {
        let roots_agree = if old_size == new_size { old_root == new_root } else { *old_root == empty_root() };
        return match (path.is_empty(), roots_agree) {
            (false, _) => Err(length),
            (true, false) => Err(ProofError::Fork),
            (true, true) => Ok(()),
        };
    }
    let mut hashes = path.iter();
    let first = if old_size.is_power_of_two() { old_root } else { hashes.next().ok_or(length)? };
    let (mut node, mut last) = (old_size - 1, new_size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut from_old, mut from_new) = (*first, *first);
    for hash in hashes {
        if last == 0 {
            return Err(length);
        }
        if node & 1 == 1 || node == last {
            from_old = node_hash(hash, &from_old);
            from_new = node_hash(hash, &from_new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            from_new = node_hash(&from_new, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(length);
    }
    if from_old == *old_root && from_new == *new_root { Ok(()) } else { Err(ProofError::Root) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// MTH of RFC 6962 section 2.1, word for word.
    fn defined_root(entries: &[Vec<u8>]) -> Hash {
        match entries {
            [] => Sha256::digest([]).into(),
            [entry] => Sha256::digest([&[0], entry.as_slice()].concat()).into(),
            _ => {
                let (left, right) = halves(entries);
                Sha256::digest([&[1], defined_root(left).as_slice(), defined_root(right).as_slice()].concat()).into()
            }
        }
    }

    /// PATH of section 2.1.1, word for word.
    fn defined_path(m: usize, entries: &[Vec<u8>]) -> Vec<Hash> {
        if entries.len() == 1 {
            return Vec::new();
        }
        let (left, right) = halves(entries);
        if m < left.len() {
            [defined_path(m, left), vec![defined_root(right)]].concat()
        } else {
            [defined_path(m - left.len(), right), vec![defined_root(left)]].concat()
        }
    }

    /// SUBPROOF of section 2.1.2, word for word.
    fn defined_subproof(m: usize, entries: &[Vec<u8>], whole: bool) -> Vec<Hash> {
        if m == entries.len() {
            return if whole { Vec::new() } else { vec![defined_root(entries)] };
        }
        let (left, right) = halves(entries);
        if m <= left.len() {
            [defined_subproof(m, left, whole), vec![defined_root(right)]].concat()
        } else {
            [defined_subproof(m - left.len(), right, false), vec![defined_root(left)]].concat()
        }
    }

    fn halves(entries: &[Vec<u8>]) -> (&[Vec<u8>], &[Vec<u8>]) {
        let mut k = 1;
        while 2 * k < entries.len() {
            k *= 2;
        }
        entries.split_at(k)
    }

    fn entries(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|i| format!("entry {i}").into_bytes()).collect()
    }

    fn leaves(entries: &[Vec<u8>]) -> Vec<Hash> {
        entries.iter().map(|entry| leaf_hash(entry)).collect()
    }

    #[test]
    fn roots_are_those_of_the_published_test_tree() {
        // The eight inputs and two of the roots of the Certificate Transparency test suite (merkletree, "testdata").
        let inputs: [&[u8]; 8] = [
            &[],
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
        ];
        let leaves: Vec<_> = inputs.iter().map(|input| leaf_hash(input)).collect();
        assert_eq!(
            crate::hex::write(&root(&leaves[..0])),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            crate::hex::write(&root(&leaves[..1])),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
        assert_eq!(
            crate::hex::write(&root(&leaves)),
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
        );
    }

    #[test]
    fn every_root_and_proof_up_to_40_entries_is_the_one_of_the_definition() {
        let entries = entries(40);
        let leaves = leaves(&entries);
        for size in 0..=entries.len() {
            assert_eq!(root(&leaves[..size]), defined_root(&entries[..size]));
            for index in 0..size {
                assert_eq!(prove_inclusion(&leaves[..size], index), Ok(defined_path(index, &entries[..size])));
            }
            for old in 1..=size {
                assert_eq!(prove_consistency(&leaves[..size], old), Ok(defined_subproof(old, &entries[..size], true)));
            }
        }
    }

    #[test]
    fn every_proof_up_to_24_entries_holds_for_its_own_place_and_no_other() {
        let entries = entries(24);
        let leaves = leaves(&entries);
        for size in 1..=24_usize {
            let root_now = root(&leaves[..size]);
            for index in 0..size {
                let path = prove_inclusion(&leaves[..size], index).expect("in range");
                for claimed in 0..=size as u64 {
                    let holds = verify_inclusion(&leaves[index], claimed, size as u64, &path, &root_now).is_ok();
                    assert_eq!(holds, claimed == index as u64, "leaf {index} of {size} claimed at {claimed}");
                }
            }
            for old in 1..=size {
                let path = prove_consistency(&leaves[..size], old).expect("in range");
                for claimed in 1..=size {
                    let claimed_root = root(&leaves[..claimed]);
                    let holds =
                        verify_consistency((claimed as u64, &claimed_root), (size as u64, &root_now), &path).is_ok();
                    assert_eq!(holds, claimed == old, "proof for {old} of {size} used for {claimed}");
                }
            }
        }
    }

    #[test]
    fn sizes_at_the_end_of_the_number_range_do_not_overflow() {
        let hash = [7; 32];
        for size in [0, 1, u64::MAX - 1, u64::MAX] {
            for index in [0, 1, u64::MAX - 1, u64::MAX] {
                for length in [0, 1, 63, 64, 65, 200] {
                    assert!(verify_inclusion(&hash, index, size, &vec![hash; length], &[0; 32]).is_err());
                    assert!(verify_consistency((index, &[1; 32]), (size, &[0; 32]), &vec![hash; length]).is_err());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_proof_with_any_bit_changed_shows_nothing(size in 2_usize..300, seed: u64, bit in 0_usize..256) {
            let entries = entries(size);
            let leaves = leaves(&entries);
            let tree = defined_root(&entries);
            let index = (seed % size as u64) as usize;
            let path = prove_inclusion(&leaves, index).expect("in range");
            prop_assert_eq!(verify_inclusion(&leaf_hash(&entries[index]), index as u64, size as u64, &path, &tree), Ok(()));
            for place in 0..path.len() {
                let mut altered = path.clone();
                altered[place][bit / 8] ^= 1 << (bit % 8);
                prop_assert!(verify_inclusion(&leaves[index], index as u64, size as u64, &altered, &tree).is_err());
                altered.truncate(place);
                prop_assert!(verify_inclusion(&leaves[index], index as u64, size as u64, &altered, &tree).is_err());
            }
            let old = 1 + (seed / 7 % size as u64) as usize;
            let before = defined_root(&entries[..old]);
            let path = prove_consistency(&leaves, old).expect("in range");
            prop_assert_eq!(verify_consistency((old as u64, &before), (size as u64, &tree), &path), Ok(()));
            for place in 0..path.len() {
                let mut altered = path.clone();
                altered[place][bit / 8] ^= 1 << (bit % 8);
                prop_assert!(verify_consistency((old as u64, &before), (size as u64, &tree), &altered).is_err());
            }
            let mut longer = path.clone();
            longer.push([0; 32]);
            prop_assert!(verify_consistency((old as u64, &before), (size as u64, &tree), &longer).is_err());
        }

        #[test]
        fn a_log_that_changed_one_old_entry_is_never_a_continuation(size in 2_usize..120, seed: u64) {
            let honest = entries(size);
            let old = 1 + (seed % (size as u64 - 1)) as usize;
            let mut forked = honest.clone();
            forked[(seed / 11 % old as u64) as usize] = b"another".to_vec();
            let path = prove_consistency(&leaves(&forked), old).expect("in range");
            let (before, after) = (defined_root(&honest[..old]), defined_root(&forked));
            prop_assert!(verify_consistency((old as u64, &before), (size as u64, &after), &path).is_err());
        }
    }
}
