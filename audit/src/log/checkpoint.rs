//! Checkpoints: the state of a log in three signed lines.
//!
//! Source: C2SP signed-note and tlog-checkpoint. The text is the origin, the number of entries and the base64 root, one
//! line each; after an empty line come signatures, `— <key name> <base64 of key hash and signature>`. A line by an
//! unknown key is ignored, which is how witnesses add theirs; a wrong signature by the known key refuses the whole note.

use crate::keys::{Identity, PublicKey};
use crate::log::merkle::Hash;
use crate::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// Largest checkpoint read; with sixteen post-quantum cosignatures one stays well below.
pub const CHECKPOINT_BYTES_MAX: usize = 128 * 1024;
/// Most signature lines looked at; the note format asks for at least 16.
pub const SIGNATURE_LINES_MAX: usize = 100;
/// Signature type of plain Ed25519 notes.
const ED25519_TYPE: u8 = 1;
/// Signature type of Ed25519 cosignatures with a time.
const COSIGNATURE_TYPE: u8 = 4;
/// Key hash, time and signature of a cosignature.
const COSIGNATURE_BYTES: usize = 4 + 8 + 64;
const DASH: &str = "\u{2014} ";

/// The state of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: a name without spaces and without `+`.
    pub origin: String,
    /// Entries it has.
    pub size: u64,
    /// Root of the Merkle tree over them.
    pub root: Hash,
}

/// Why a checkpoint is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Larger than any checkpoint.
    #[error("checkpoint has {bytes} bytes; the limit is {CHECKPOINT_BYTES_MAX}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not a signed note.
    #[error("checkpoint is not a signed note: {why}")]
    NotANote {
        /// What is wrong.
        why: &'static str,
    },
    /// A note, but not origin, size and root.
    #[error("checkpoint text is not origin, size and root: {why}")]
    NotACheckpoint {
        /// What is wrong.
        why: &'static str,
    },
    /// Of another log.
    #[error("checkpoint is of the log {found:?}; this is {expected:?}")]
    OtherLog {
        /// The log that was asked for.
        expected: String,
        /// What the checkpoint says.
        found: String,
    },
    /// No signature by the log's key.
    #[error("checkpoint is not signed by the log's key")]
    NotSigned,
    /// Signed in the name of the log's key, but not by it.
    #[error("the signature of the checkpoint does not fit: it was altered after signing, or forged")]
    BadSignature,
}

/// A name that origin and key lines can carry: one to 256 bytes without spaces, control characters or `+`.
#[must_use]
pub fn is_origin(name: &str) -> bool {
    !name.is_empty() && name.len() <= 256 && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// First four bytes of SHA-256 over name, newline, signature type and key.
fn key_hash(name: &str, kind: u8, key: &PublicKey) -> [u8; 4] {
    let hash: Hash =
        Sha256::new().chain_update(name).chain_update([b'\n', kind]).chain_update(key.bytes()).finalize().into();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// The key of a log or witness as other tools take it: name, key hash and typed key, joined by `+` (C2SP signed-note,
/// "verifier keys"). `cosigner` says that its signatures are cosignatures.
#[must_use]
pub fn verifier_key(name: &str, key: &PublicKey, cosigner: bool) -> String {
    let kind = if cosigner { COSIGNATURE_TYPE } else { ED25519_TYPE };
    let hash: String = crate::hex::write(&key_hash(name, kind, key));
    let typed = [[kind].as_slice(), &key.bytes()].concat();
    format!("{name}+{hash}+{}", STANDARD.encode(typed))
}

impl Checkpoint {
    /// The signed lines, final newline included.
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// The checkpoint as a signed note.
    #[must_use]
    pub fn sign(&self, identity: &Identity) -> String {
        self.sign_by(&[identity])
    }

    /// The checkpoint as a note with one signature of the log by each key.
    pub(super) fn sign_by(&self, identities: &[&Identity]) -> String {
        let text = self.text();
        let mut note = format!("{text}\n");
        for identity in identities {
            let mut signature = key_hash(&self.origin, ED25519_TYPE, identity.public()).to_vec();
            signature.extend_from_slice(&identity.sign(text.as_bytes()));
            note.push_str(&format!("{DASH}{} {}\n", self.origin, STANDARD.encode(signature)));
        }
        note
    }

    /// What a witness adds to a checkpoint that it found to continue all it saw before: one line, to be put under the
    /// note's others.
    ///
    /// Source: C2SP tlog-cosignature, `cosignature/v1`.
    #[must_use]
    pub fn cosign(&self, name: &str, now: Timestamp, witness: &Identity) -> String {
        let time = now.unix_seconds();
        let mut signature = key_hash(name, COSIGNATURE_TYPE, witness.public()).to_vec();
        signature.extend_from_slice(&time.to_be_bytes());
        signature.extend_from_slice(&witness.sign(&self.cosigned_bytes(time)));
        format!("{DASH}{name} {}\n", STANDARD.encode(signature))
    }

    fn cosigned_bytes(&self, time: u64) -> Vec<u8> {
        format!("cosignature/v1\ntime {time}\n{}", self.text()).into_bytes()
    }

    /// When a witness cosigned this checkpoint; `None` where the note has no line by it.
    ///
    /// Errors: no signed note, or a line in the witness's name that does not hold.
    pub fn cosigned_by(
        &self,
        note: &[u8],
        name: &str,
        witness: &PublicKey,
    ) -> Result<Option<Timestamp>, CheckpointError> {
        let (text, signatures) = split_note(note)?;
        if text != self.text() {
            return Err(CheckpointError::NotACheckpoint { why: "it is another checkpoint, or has extensions" });
        }
        let hash = key_hash(name, COSIGNATURE_TYPE, witness);
        for line in signatures.split_terminator('\n') {
            let (found, bytes) = read_signature_line(line)?;
            if found != name || bytes[..4] != hash {
                continue;
            }
            let bytes: &[u8; COSIGNATURE_BYTES] =
                bytes.as_slice().try_into().map_err(|_| CheckpointError::BadSignature)?;
            let time = u64::from_be_bytes(bytes[4..12].try_into().expect("eight bytes"));
            let signature: &[u8; 64] = bytes[12..].try_into().expect("64 bytes");
            let instant = Timestamp::from_unix_seconds(time).map_err(|_| CheckpointError::BadSignature)?;
            if !witness.verifies(&self.cosigned_bytes(time), signature) {
                return Err(CheckpointError::BadSignature);
            }
            return Ok(Some(instant));
        }
        Ok(None)
    }

    /// The note with the signature lines by its log's `key` alone: what others put under it is theirs to keep.
    ///
    /// Errors: no signed note.
    pub(super) fn own_note(&self, note: &[u8], key: &PublicKey) -> Result<String, CheckpointError> {
        let (text, signatures) = split_note(note)?;
        let hash = key_hash(&self.origin, ED25519_TYPE, key);
        let mut own = format!("{text}\n");
        let mut seen = false;
        for line in signatures.split_terminator('\n') {
            let (name, bytes) = read_signature_line(line)?;
            // Ed25519 signs one way, so a second line says nothing more.
            if name == self.origin && bytes[..4] == hash && !std::mem::replace(&mut seen, true) {
                own.push_str(line);
                own.push('\n');
            }
        }
        Ok(own)
    }

    /// Reads a checkpoint of the log `origin` that `key` signed.
    ///
    /// Errors: no signed note, another log, no signature by the key, or one that does not hold.
    pub fn open(bytes: &[u8], origin: &str, key: &PublicKey) -> Result<Self, CheckpointError> {
        let (text, signatures) = split_note(bytes)?;
        let hash = key_hash(origin, ED25519_TYPE, key);
        let mut signed = false;
        for line in signatures.split_terminator('\n') {
            let (name, signature) = read_signature_line(line)?;
            if name != origin || signature[..4] != hash {
                continue;
            }
            let signature: &[u8; 64] = signature[4..].try_into().map_err(|_| CheckpointError::BadSignature)?;
            if !key.verifies(text.as_bytes(), signature) {
                return Err(CheckpointError::BadSignature);
            }
            signed = true;
        }
        // What nobody known has signed is not parsed, except for saying whose it is.
        if !signed {
            let found = text.lines().next().unwrap_or_default();
            if found != origin {
                return Err(CheckpointError::OtherLog {
                    expected: origin.to_owned(),
                    found: found.chars().take(256).collect(),
                });
            }
            return Err(CheckpointError::NotSigned);
        }
        let checkpoint = Self::read_text(text)?;
        if checkpoint.origin != origin {
            return Err(CheckpointError::OtherLog { expected: origin.to_owned(), found: checkpoint.origin });
        }
        Ok(checkpoint)
    }

    fn read_text(text: &str) -> Result<Self, CheckpointError> {
        let wrong = |why| CheckpointError::NotACheckpoint { why };
        let mut lines = text.split_terminator('\n');
        let mut next = || lines.next().filter(|line| !line.is_empty()).ok_or(wrong("it has fewer than three lines"));
        let (origin, size, root) = (next()?, next()?, next()?);
        let plain = size.bytes().all(|b| b.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        let size = size.parse().ok().filter(|_| plain).ok_or(wrong("the size is not a decimal number"))?;
        let root = STANDARD
            .decode(root)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(wrong("the root is not 32 bytes in base64"))?;
        // Further lines are extensions, which may be there and mean nothing here; empty ones may not.
        if lines.any(str::is_empty) {
            return Err(wrong("it has an empty line"));
        }
        Ok(Self { origin: origin.to_owned(), size, root })
    }
}

/// Text (with its final newline) and signature lines of a note.
fn split_note(bytes: &[u8]) -> Result<(&str, &str), CheckpointError> {
    if bytes.len() > CHECKPOINT_BYTES_MAX {
        return Err(CheckpointError::TooLarge { bytes: bytes.len() });
    }
    let wrong = |why| CheckpointError::NotANote { why };
    let note = str::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))?;
    if note.bytes().any(|b| b < 0x20 && b != b'\n') {
        return Err(wrong("it has control characters"));
    }
    let gap = note.rfind("\n\n").ok_or(wrong("no empty line separates text and signatures"))?;
    let (text, signatures) = (&note[..=gap], &note[gap + 2..]);
    if signatures.is_empty() || !signatures.ends_with('\n') {
        return Err(wrong("it does not end in a signature line"));
    }
    if signatures.lines().count() > SIGNATURE_LINES_MAX {
        return Err(wrong("it has more than 100 signatures"));
    }
    Ok((text, signatures))
}

/// Key name, and the bytes of key hash and signature.
fn read_signature_line(line: &str) -> Result<(&str, Vec<u8>), CheckpointError> {
    let wrong = |why| CheckpointError::NotANote { why };
    let (name, signature) = line
        .strip_prefix(DASH)
        .and_then(|rest| rest.split_once(' '))
        .ok_or(wrong("a signature line has another form"))?;
    if !is_origin(name) {
        return Err(wrong("a key name has spaces, control characters or '+'"));
    }
    let bytes = STANDARD.decode(signature).map_err(|_| wrong("a signature is not base64"))?;
    if bytes.len() < 5 {
        return Err(wrong("a signature is shorter than its key hash"));
    }
    Ok((name, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Seed;

    fn identity(byte: u8) -> Identity {
        Identity::from_seed(&Seed::from_bytes([byte; 32])).expect("any seed is a key")
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "isotherm.example/log".to_owned(), size: 42, root: [9; 32] }
    }

    fn resigned(text: &str, by: &Identity) -> String {
        let mut bytes = key_hash("isotherm.example/log", ED25519_TYPE, by.public()).to_vec();
        bytes.extend_from_slice(&by.sign(text.as_bytes()));
        format!("{text}\n{DASH}isotherm.example/log {}\n", STANDARD.encode(bytes))
    }

    #[test]
    fn a_checkpoint_survives_signing_and_opening() {
        let note = checkpoint().sign(&identity(1));
        assert_eq!(Checkpoint::open(note.as_bytes(), "isotherm.example/log", identity(1).public()), Ok(checkpoint()));
        assert_eq!(note.lines().next(), Some("isotherm.example/log"));
        assert_eq!(note.lines().nth(3), Some(""));
    }

    #[test]
    fn the_key_hash_is_the_one_of_the_note_specification() {
        // "key ID = SHA-256(key name || 0x0A || 0x01 || 32-byte Ed25519 public key)[:4]"
        let key = identity(3);
        let by_hand = Sha256::digest([b"name\n\x01".as_slice(), &key.public().bytes()].concat());
        assert_eq!(key_hash("name", ED25519_TYPE, key.public()), by_hand[..4]);
    }

    #[test]
    fn every_altered_byte_of_a_checkpoint_is_refused() {
        let note = checkpoint().sign(&identity(1)).into_bytes();
        for position in 0..note.len() {
            for bit in 0..8 {
                let mut altered = note.clone();
                altered[position] ^= 1 << bit;
                let opened = Checkpoint::open(&altered, "isotherm.example/log", identity(1).public());
                assert!(opened.is_err(), "bit {bit} of byte {position} altered and accepted");
            }
            assert!(Checkpoint::open(&note[..position], "isotherm.example/log", identity(1).public()).is_err());
        }
    }

    #[test]
    fn other_keys_and_other_logs_are_refused() {
        let note = checkpoint().sign(&identity(1));
        assert_eq!(
            Checkpoint::open(note.as_bytes(), "isotherm.example/log", identity(2).public()),
            Err(CheckpointError::NotSigned)
        );
        assert!(matches!(
            Checkpoint::open(note.as_bytes(), "elsewhere", identity(1).public()),
            Err(CheckpointError::OtherLog { .. })
        ));
    }

    #[test]
    fn a_line_by_an_unknown_witness_is_ignored_and_a_second_wrong_one_by_the_log_is_not() {
        let note = checkpoint().sign(&identity(1));
        let witness = format!("{note}{DASH}witness.example {}\n", STANDARD.encode([5; 76]));
        assert_eq!(
            Checkpoint::open(witness.as_bytes(), "isotherm.example/log", identity(1).public()),
            Ok(checkpoint())
        );
        let mut forged = key_hash("isotherm.example/log", ED25519_TYPE, identity(1).public()).to_vec();
        forged.extend_from_slice(&[7; 64]);
        let twice = format!("{note}{DASH}isotherm.example/log {}\n", STANDARD.encode(forged));
        assert_eq!(
            Checkpoint::open(twice.as_bytes(), "isotherm.example/log", identity(1).public()),
            Err(CheckpointError::BadSignature)
        );
    }

    #[test]
    fn a_cosignature_is_the_one_of_the_specification_and_fits_its_checkpoint_alone() {
        let (log, witness) = (identity(1), identity(2));
        let now = Timestamp::from_unix_seconds(1_780_000_000).expect("a time");
        let line = checkpoint().cosign("witness.example", now, &witness);
        let note = checkpoint().sign(&log) + &line;
        assert_eq!(checkpoint().cosigned_by(note.as_bytes(), "witness.example", witness.public()), Ok(Some(now)));
        assert_eq!(checkpoint().cosigned_by(note.as_bytes(), "other.example", witness.public()), Ok(None));
        assert_eq!(checkpoint().cosigned_by(note.as_bytes(), "witness.example", identity(3).public()), Ok(None));
        assert_eq!(Checkpoint::open(note.as_bytes(), "isotherm.example/log", log.public()), Ok(checkpoint()));
        // By hand: key hash with type 4, eight bytes of time, signature over the header and the checkpoint's text.
        let bytes = STANDARD.decode(line.trim_end().rsplit(' ').next().expect("base64")).expect("base64");
        let hash = Sha256::digest([b"witness.example\n\x04".as_slice(), &witness.public().bytes()].concat());
        assert_eq!((&bytes[..4], &bytes[4..12]), (&hash[..4], 1_780_000_000_u64.to_be_bytes().as_slice()));
        let text = format!("isotherm.example/log\n42\n{}\n", STANDARD.encode([9; 32]));
        let signed = format!("cosignature/v1\ntime 1780000000\n{text}");
        assert!(witness.public().verifies(signed.as_bytes(), bytes[12..].try_into().expect("64 bytes")));
        for position in 0..line.trim_end().len() {
            let mut altered = line.clone().into_bytes();
            altered[position] ^= 1;
            let note = [checkpoint().sign(&log).into_bytes(), altered].concat();
            let found = checkpoint().cosigned_by(&note, "witness.example", witness.public());
            assert!(!matches!(found, Ok(Some(_))), "byte {position}");
        }
    }

    #[test]
    fn signed_text_of_another_shape_is_refused() {
        let root = STANDARD.encode([9; 32]);
        for text in [
            format!("isotherm.example/log\n042\n{root}\n"),
            format!("isotherm.example/log\n+42\n{root}\n"),
            format!("isotherm.example/log\n99999999999999999999\n{root}\n"),
            format!("isotherm.example/log\n-1\n{root}\n"),
            "isotherm.example/log\n42\n".to_owned(),
            "isotherm.example/log\n42\nAAAA\n".to_owned(),
            format!("other\n42\n{root}\n"),
            "\n".to_owned(),
            format!("isotherm.example/log\n42\n{root}\n\nempty line before\n"),
        ] {
            let note = resigned(&text, &identity(1));
            assert!(Checkpoint::open(note.as_bytes(), "isotherm.example/log", identity(1).public()).is_err(), "{text}");
        }
        let extended = resigned(&format!("isotherm.example/log\n42\n{root}\nextension\n"), &identity(1));
        assert_eq!(
            Checkpoint::open(extended.as_bytes(), "isotherm.example/log", identity(1).public()),
            Ok(checkpoint())
        );
    }
}
