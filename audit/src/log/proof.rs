//! A proof in one text file that an event was logged, to be checked without the log.
//!
//! Source: C2SP tlog-proof. First line `c2sp.org/tlog-proof@v1`, then `index N`, the hashes of the inclusion proof, an
//! empty line, and the checkpoint as signed.

use crate::keys::PublicKey;
use crate::log::checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, CheckpointError};
use crate::log::entry::{Entry, EntryError};
use crate::log::merkle::{self, Hash, ProofError};
use crate::log::{LogError, LogView};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
/// A tree of fewer than 2^64 entries is at most 64 high.
const PATH_HASHES_MAX: usize = 64;

/// Why a proof does not show that an event was logged.
#[derive(Debug, thiserror::Error)]
pub enum InclusionProofError {
    /// Not the text of a proof.
    #[error("not a {FIRST_LINE}: {why}")]
    Form {
        /// What is wrong.
        why: &'static str,
    },
    /// The checkpoint in it is not believed.
    #[error("the proof's {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The hashes do not lead from the entry to the signed root.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The line is not an entry of that log and place.
    #[error("the proven line is no entry: {0}")]
    Entry(#[from] EntryError),
}

impl LogView {
    /// The proof that the entry at `index` is in the log, as text that [`verify_inclusion_proof`] reads.
    ///
    /// Errors: no such entry.
    pub fn prove(&self, index: u64) -> Result<String, LogError> {
        let mut text = format!("{FIRST_LINE}\nindex {index}\n");
        for hash in self.prove_inclusion(index)? {
            writeln!(text, "{}", STANDARD.encode(hash)).expect("writing to a string cannot fail");
        }
        text.push('\n');
        text.push_str(self.note());
        Ok(text)
    }
}

/// Checks that `line` (without its newline) is an entry of the log `origin` that `key` signed for; gives the entry and
/// the state it was proven against.
///
/// Errors: the text is no proof, its checkpoint is not believed, or it is the proof of something else.
pub fn verify_inclusion_proof(
    proof: &[u8],
    line: &[u8],
    origin: &str,
    key: &PublicKey,
) -> Result<(Entry, Checkpoint), InclusionProofError> {
    let wrong = |why| InclusionProofError::Form { why };
    if proof.len() > CHECKPOINT_BYTES_MAX * 2 {
        return Err(wrong("it is too large"));
    }
    let text = str::from_utf8(proof).map_err(|_| wrong("it is not UTF-8"))?;
    let (head, note) = text.split_once("\n\n").ok_or(wrong("it has no checkpoint"))?;
    let mut lines = head.split('\n').peekable();
    if lines.next() != Some(FIRST_LINE) {
        return Err(wrong("its first line is another"));
    }
    // Extra data is not authenticated, and nothing here uses it.
    lines.next_if(|line| line.starts_with("extra "));
    let index = lines.next().and_then(|line| line.strip_prefix("index ")).ok_or(wrong("it has no index"))?;
    let index = index
        .parse::<u64>()
        .ok()
        .filter(|number| number.to_string() == index)
        .ok_or(wrong("its index is no number"))?;
    let mut path: Vec<Hash> = Vec::new();
    for line in lines {
        let hash = STANDARD.decode(line).ok().and_then(|bytes| bytes.try_into().ok());
        path.push(hash.ok_or(wrong("a hash is not 32 bytes in base64"))?);
        if path.len() > PATH_HASHES_MAX {
            return Err(wrong("it has more hashes than any tree needs"));
        }
    }
    let checkpoint = Checkpoint::open(note.as_bytes(), origin, key)?;
    merkle::verify_inclusion(&merkle::leaf_hash(line), index, checkpoint.size, &path, &checkpoint.root)?;
    let entry = Entry::read(line)?;
    entry.belongs(origin, index, &entry.previous)?;
    Ok((entry, checkpoint))
}
