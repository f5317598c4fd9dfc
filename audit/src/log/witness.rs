//! Witnesses: parties elsewhere who see checkpoints alone, remember the last one of each log, and cosign a later one only
//! with a proof that it continues the one they saw. A log that was cut back, forked or rewritten gets no cosignature.
//!
//! Source: C2SP tlog-witness. A request is `old N`, the hashes of the consistency proof from N entries on, an empty line
//! and the checkpoint; the answer is a cosignature line. Here both are texts, so that they may travel by any way: a file,
//! a pipe, a socket. The order is the specification's: the log's signature, the size the witness knows, the proof, then
//! **the new state on disk before the answer**.

use crate::envelope;
use crate::handover::{HandedOver, open_hand_over};
use crate::keys::{Identity, PublicKey};
use crate::log::checkpoint::{self, Checkpoint, CheckpointError};
use crate::log::merkle::{self, Hash, ProofError};
use crate::log::{Log, LogError, LogView};
use crate::manifest::{LogPosition, RootHash};
use crate::open::OpenError;
use crate::storage;
use crate::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Most hashes a proof may have (C2SP tlog-witness).
const PROOF_HASHES_MAX: usize = 63;
/// Largest request read.
pub const REQUEST_BYTES_MAX: usize = checkpoint::CHECKPOINT_BYTES_MAX + PROOF_HASHES_MAX * 45 + 64;
const LOCK_FILE: &str = "lock";

/// Why a witness does not cosign. The codes in brackets are those of C2SP tlog-witness over HTTP.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
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
    /// Not a request (400).
    #[error("not a request to a witness: {why}")]
    Request {
        /// What is wrong.
        why: &'static str,
    },
    /// A name that no cosignature can carry.
    #[error("witness name {name:?} is empty, longer than 256 bytes, or has spaces, control characters or '+'")]
    Name {
        /// The name.
        name: String,
    },
    /// Not signed by the log (403), or of a log this witness does not watch (404).
    #[error("the request's {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The proof begins elsewhere than at the state this witness cosigned last (409).
    #[error("the proof begins at {claimed} entries; this witness cosigned {known} last")]
    OtherSize {
        /// Entries the request begins at.
        claimed: u64,
        /// Entries of the last state cosigned.
        known: u64,
    },
    /// The log went back behind what this witness saw.
    #[error("the log shows {size} entries; this witness has seen {known}: it was cut back")]
    Rollback {
        /// Entries of the new checkpoint.
        size: u64,
        /// Entries of the last state cosigned.
        known: u64,
    },
    /// The new state does not continue the old one (422).
    #[error("the log does not continue what this witness saw: {0}")]
    Fork(#[from] ProofError),
    /// Not a handover by the log's key, or one at a state this witness did not see.
    #[error("the handover of the log is not followed: {0}")]
    HandOver(#[source] Box<OpenError>),
    /// A handover at another state than the one this witness cosigned last.
    #[error(
        "the log was handed over at {handed} entries; this witness cosigned {known} last, so show it that state first"
    )]
    Unseen {
        /// Entries of the state that was handed over.
        handed: u64,
        /// Entries of the last state cosigned.
        known: u64,
    },
    /// The witness's own memory is damaged, so that nothing it says could be relied on.
    #[error("the witness's memory {path:?} is damaged: {why}")]
    Memory {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl WitnessError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// A request to a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request<'a> {
    old: u64,
    proof: Vec<Hash>,
    note: &'a str,
}

fn read_request(bytes: &[u8]) -> Result<Request<'_>, WitnessError> {
    let wrong = |why| WitnessError::Request { why };
    if bytes.len() > REQUEST_BYTES_MAX {
        return Err(wrong("it is too large"));
    }
    let text = str::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))?;
    let (head, note) = text.split_once("\n\n").ok_or(wrong("no empty line separates proof and checkpoint"))?;
    let mut lines = head.split('\n');
    let old = lines.next().and_then(|line| line.strip_prefix("old ")).ok_or(wrong("it does not begin with 'old N'"))?;
    let old =
        old.parse::<u64>().ok().filter(|number| number.to_string() == old).ok_or(wrong("its old size is no number"))?;
    let mut proof = Vec::new();
    for line in lines {
        let hash = STANDARD.decode(line).ok().and_then(|bytes| bytes.try_into().ok());
        proof.push(hash.ok_or(wrong("a hash is not 32 bytes in base64"))?);
        if proof.len() > PROOF_HASHES_MAX {
            return Err(wrong("it has more than 63 hashes"));
        }
    }
    Ok(Request { old, proof, note })
}

/// A log that a witness watches: its name and its key.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Its name.
    pub origin: String,
    /// Its key.
    pub key: PublicKey,
}

/// A witness with its memory on disk.
#[derive(Debug)]
pub struct Witness<'k> {
    name: String,
    identity: &'k Identity,
    folder: PathBuf,
    former: Vec<PublicKey>,
}

impl<'k> Witness<'k> {
    /// A witness of that name whose memory is in a folder, which is made if absent.
    ///
    /// Errors: a name that no cosignature can carry, or a folder that cannot be made.
    pub fn open(name: &str, identity: &'k Identity, folder: &Path) -> Result<Self, WitnessError> {
        if !checkpoint::is_origin(name) {
            return Err(WitnessError::Name { name: name.chars().take(300).collect() });
        }
        storage::private_folder(folder).map_err(WitnessError::io("making", folder))?;
        Ok(Self { name: name.to_owned(), identity, folder: folder.to_owned(), former: Vec::new() })
    }

    /// The same witness, which also believes what it remembered under keys of its own that it has replaced since.
    #[must_use]
    pub fn formerly(self, keys: Vec<PublicKey>) -> Self {
        Self { former: keys, ..self }
    }

    fn memory_name(origin: &str) -> String {
        format!("{}.checkpoint", isotherm_core::digest::Digest::of(origin.as_bytes()).hex())
    }

    /// The keys that a log had, oldest first, as far as this witness followed them: the one it is watched by is among
    /// them, and only the last may sign.
    ///
    /// Errors: handovers that cannot be read or do not lead from key to key; a key that is none of them.
    fn keys(&self, log: &Watched) -> Result<Vec<PublicKey>, WitnessError> {
        let mut keys: Vec<PublicKey> = Vec::new();
        for number in 0.. {
            let [pem, envelope] = ["pem", "json"].map(|ending| Self::hand_over_name(&log.origin, number, ending));
            let Some(pem) = self.remembered(&pem)? else { break };
            let damaged = |path: &str, why: String| WitnessError::Memory { path: self.folder.join(path), why };
            let Some(bytes) = self.remembered(&envelope)? else { break };
            let text = String::from_utf8(pem).map_err(|error| damaged(&envelope, error.to_string()))?;
            let from = PublicKey::from_pem(&text).map_err(|error| damaged(&envelope, error.to_string()))?;
            let step = open_hand_over(&bytes, &log.origin, &from);
            let step = step.map_err(|error| damaged(&envelope, error.to_string()))?;
            match keys.last() {
                None => keys.push(step.from),
                Some(last) if last.id() == from.id() => {}
                Some(_) => return Err(damaged(&envelope, "it does not follow the one before".to_owned())),
            }
            keys.push(step.to);
        }
        if keys.is_empty() {
            return Ok(vec![log.key.clone()]);
        }
        if keys.iter().all(|key| key.id() != log.key.id()) {
            return Err(CheckpointError::NotSigned.into());
        }
        Ok(keys)
    }

    fn hand_over_name(origin: &str, number: u32, ending: &str) -> String {
        format!("{}.handover-{number}.{ending}", isotherm_core::digest::Digest::of(origin.as_bytes()).hex())
    }

    fn remembered(&self, name: &str) -> Result<Option<Vec<u8>>, WitnessError> {
        let path = self.folder.join(name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(WitnessError::io("opening", &path))?,
        };
        let mut bytes = Vec::new();
        let limit = envelope::ENVELOPE_BYTES_MAX.max(checkpoint::CHECKPOINT_BYTES_MAX) as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(WitnessError::io("reading", &path))?;
        Ok(Some(bytes))
    }

    /// The last state of a log that this witness cosigned; `None` where it saw none.
    ///
    /// Errors: a memory that cannot be read, or is not what this witness wrote.
    pub fn known(&self, log: &Watched) -> Result<Option<Checkpoint>, WitnessError> {
        let name = Self::memory_name(&log.origin);
        let Some(note) = self.remembered(&name)? else { return Ok(None) };
        let path = self.folder.join(name);
        let damaged = |why: String| WitnessError::Memory { path: path.clone(), why };
        // The state before a handover was signed by the key before it.
        let keys = self.keys(log)?;
        let opened = keys.iter().rev().map(|key| Checkpoint::open(&note, &log.origin, key));
        let known = opened.reduce(|first, next| first.or(next)).expect("a log has a key");
        let known = known.map_err(|error| damaged(error.to_string()))?;
        // Its own cosignature says that it wrote this file, and not whoever else can reach the folder.
        for own in std::iter::once(self.identity.public()).chain(&self.former) {
            match known.cosigned_by(&note, &self.name, own) {
                Ok(Some(_)) => return Ok(Some(known)),
                Ok(None) => {}
                Err(error) => return Err(damaged(error.to_string())),
            }
        }
        Err(damaged("it has no cosignature by this witness".to_owned()))
    }

    fn alone(&self) -> Result<File, WitnessError> {
        let path = self.folder.join(LOCK_FILE);
        let lock = storage::private_file().open(&path);
        let lock = lock.map_err(WitnessError::io("opening", &path))?;
        lock.lock().map_err(WitnessError::io("locking", &path))?;
        Ok(lock)
    }

    /// Follows a log to the key that takes over: from now on that one signs, and the old one no more. The witness has to
    /// have cosigned the very state that was handed over, so that nothing lies between the two keys.
    ///
    /// Gives the new key. Errors: a handover that the log's present key did not make; another state; memory as before.
    pub fn follow(&self, envelope: &[u8], log: &Watched) -> Result<PublicKey, WitnessError> {
        let _alone = self.alone()?;
        let keys = self.keys(log)?;
        let from = keys.last().expect("a log has a key");
        let step = open_hand_over(envelope, &log.origin, from).map_err(|e| WitnessError::HandOver(Box::new(e)))?;
        let known = self.known(log)?;
        if known.as_ref() != Some(&step.state) {
            let known = known.map_or(0, |known| known.size);
            return Err(WitnessError::Unseen { handed: step.state.size, known });
        }
        let number = u32::try_from(keys.len() - 1).unwrap_or(u32::MAX);
        let pem = from
            .to_pem()
            .map_err(|error| WitnessError::Memory { path: self.folder.clone(), why: error.to_string() })?;
        let write = |ending: &str, bytes: &[u8]| {
            storage::replace(&self.folder, &Self::hand_over_name(&log.origin, number, ending), bytes)
                .map_err(WitnessError::io("remembering the handover in", &self.folder))
        };
        // The key first: without the envelope beside it, it says nothing.
        write("pem", pem.as_bytes())?;
        write("json", envelope)?;
        Ok(step.to)
    }

    /// Answers a request: the cosignature line, once the new state is on disk.
    ///
    /// Errors: every reason not to cosign; the memory is unchanged then.
    pub fn answer(&self, request: &[u8], log: &Watched, now: Timestamp) -> Result<String, WitnessError> {
        let request = read_request(request)?;
        let _alone = self.alone()?;
        let keys = self.keys(log)?;
        let key = keys.last().expect("a log has a key");
        let new = Checkpoint::open(request.note.as_bytes(), &log.origin, key)?;
        // A checkpoint with further lines would be cosigned without them.
        new.cosigned_by(request.note.as_bytes(), &self.name, self.identity.public())?;
        let known = self.known(log)?;
        let (known_size, known_root) = known.map_or((0, merkle::empty_root()), |known| (known.size, known.root));
        if new.size < known_size {
            return Err(WitnessError::Rollback { size: new.size, known: known_size });
        }
        if request.old != known_size {
            return Err(WitnessError::OtherSize { claimed: request.old, known: known_size });
        }
        if request.old > new.size {
            return Err(WitnessError::Request { why: "it goes back" });
        }
        merkle::verify_consistency((known_size, &known_root), (new.size, &new.root), &request.proof)?;
        let line = new.cosign(&self.name, now, self.identity);
        // Lines of others would fill this witness's memory until it could not be read any more.
        let mut remembered = new.own_note(request.note.as_bytes(), key)?;
        remembered.push_str(&line);
        let name = Self::memory_name(&log.origin);
        storage::replace(&self.folder, &name, remembered.as_bytes())
            .map_err(WitnessError::io("remembering the new state in", &self.folder))?;
        Ok(line)
    }
}

impl LogView {
    /// The request that shows a witness, which saw `old` entries last, the present state.
    ///
    /// Errors: fewer entries than that.
    pub fn request_witness(&self, old: u64) -> Result<String, LogError> {
        let proof = if old == 0 { Vec::new() } else { self.prove_consistency(old)? };
        let mut text = format!("old {old}\n");
        for hash in proof {
            writeln!(text, "{}", STANDARD.encode(hash)).expect("writing to a string cannot fail");
        }
        text.push('\n');
        text.push_str(self.note());
        Ok(text)
    }

    /// The request that shows a witness, which saw `old` entries last, an earlier state: the one that was handed over to
    /// this log's key, by the checkpoint that the key before it signed.
    ///
    /// Errors: a state that this log does not continue; fewer entries than `old`.
    pub fn request_handed_over(&self, old: u64, handed: &HandedOver) -> Result<String, LogError> {
        self.continues(&LogPosition {
            origin: handed.state.origin.clone(),
            size: handed.state.size,
            root_hash: RootHash(handed.state.root),
        })?;
        let proof = if old == 0 { Vec::new() } else { self.prove_consistency_at(handed.state.size, old)? };
        let mut text = format!("old {old}\n");
        for hash in proof {
            writeln!(text, "{}", STANDARD.encode(hash)).expect("writing to a string cannot fail");
        }
        text.push('\n');
        text.push_str(&handed.note);
        Ok(text)
    }
}

impl Log<'_> {
    /// Puts a witness's answer under the checkpoint it was given for. Gives the time the witness states.
    ///
    /// Errors: a line that is not that witness's cosignature of the present state, or a file system that refuses.
    pub fn add_cosignature(&mut self, line: &str, name: &str, witness: &PublicKey) -> Result<Timestamp, LogError> {
        let line = format!("{}\n", line.trim_end_matches('\n'));
        // Only the line itself counts, so that no text of the answer becomes another line of the note.
        let alone = self.checkpoint().sign_by(&[]) + &line;
        let time = self.checkpoint().cosigned_by(alone.as_bytes(), name, witness)?;
        let time = time.ok_or(CheckpointError::NotSigned)?;
        if line.matches('\n').count() != 1 {
            return Err(CheckpointError::NotANote { why: "an answer is one line" }.into());
        }
        let mut note = self.note().to_owned();
        if !note.contains(&line) {
            note.push_str(&line);
            self.set_note(note)?;
        }
        Ok(time)
    }
}
