//! Log entries: one canonical JSON line per event, signed by the log and chained to the line before it.
//!
//! Attribute names are those of CloudEvents 1.0; `previous` and `signature` are extension attributes. Each line names
//! its log and its position, so a signed line fits one place of one log and no other, and the first altered line of a
//! log can be named without any other copy of it.

use crate::canonical::{self, CanonicalError};
use crate::envelope::pre_authentication_encoding;
use crate::keys::{Identity, KeyId, PublicKey};
use crate::log::merkle::{Hash, empty_root, leaf_hash};
use crate::manifest::RootHash;
use crate::text::{self, LINE_BYTES_MAX, NAME_BYTES_MAX, TextError};
use crate::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use isotherm_core::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Largest entry: tlog-tiles puts a 16-bit length before each.
pub const ENTRY_BYTES_MAX: usize = 65_535;
/// What the signature of an entry covers, beside its bytes.
pub const ENTRY_PAYLOAD_TYPE: &str = "application/vnd.isotherm.log-entry+json";
const SPEC_VERSION: &str = "1.0";
const ELLIPSIS: &str = "...";

/// What happened. The list grows; a reader keeps the name of a kind it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// A key was made.
    KeysCreated,
    /// Devices and links were measured.
    Probe,
    /// A scenario was solved.
    Plan,
    /// A plan was simulated.
    Simulate,
    /// A manifest was signed.
    Seal,
    /// A manifest was signed by a further key.
    Approve,
    /// A document verified.
    VerifyAccepted,
    /// A document did not verify.
    VerifyRefused,
    /// A run began.
    RunStarted,
    /// A run ended.
    RunFinished,
    /// The governor acted before the hardware had to.
    ThermalAction,
    /// The log was found unfinished after a crash.
    LogRecovered,
}

impl EventKind {
    /// Every kind this version writes.
    pub const ALL: [Self; 12] = [
        Self::KeysCreated,
        Self::Probe,
        Self::Plan,
        Self::Simulate,
        Self::Seal,
        Self::Approve,
        Self::VerifyAccepted,
        Self::VerifyRefused,
        Self::RunStarted,
        Self::RunFinished,
        Self::ThermalAction,
        Self::LogRecovered,
    ];

    /// The name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeysCreated => "isotherm.keys.created",
            Self::Probe => "isotherm.probe",
            Self::Plan => "isotherm.plan",
            Self::Simulate => "isotherm.simulate",
            Self::Seal => "isotherm.seal",
            Self::Approve => "isotherm.approve",
            Self::VerifyAccepted => "isotherm.verify.accepted",
            Self::VerifyRefused => "isotherm.verify.refused",
            Self::RunStarted => "isotherm.run.started",
            Self::RunFinished => "isotherm.run.finished",
            Self::ThermalAction => "isotherm.thermal.action",
            Self::LogRecovered => "isotherm.log.recovered",
        }
    }
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For whoever looks for a fault.
    Debug,
    /// Normal.
    Info,
    /// Refused or unusual.
    Warning,
    /// Failed.
    Error,
    /// Needs somebody now.
    Critical,
}

/// One detail of an event. There are no floats: write an integer with its unit in the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Detail {
    /// Yes or no.
    Flag(bool),
    /// A count or a quantity in the unit the key names.
    Integer(i64),
    /// Words.
    Text(String),
}

impl From<&str> for Detail {
    /// Control characters become U+FFFD and long text ends in an ellipsis: a log that refused to record a hostile name
    /// would be silenced by it.
    fn from(words: &str) -> Self {
        let mut shown: String = words.chars().map(|c| if text::misleads(c) { '\u{fffd}' } else { c }).collect();
        if shown.len() > LINE_BYTES_MAX {
            shown.truncate(shown.floor_char_boundary(LINE_BYTES_MAX - ELLIPSIS.len()));
            shown.push_str(ELLIPSIS);
        }
        Self::Text(shown)
    }
}

impl From<i64> for Detail {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl From<bool> for Detail {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Something that happened, to be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// How much it matters.
    pub severity: Severity,
    /// When.
    pub time: Timestamp,
    /// Who: the key on whose behalf it was done.
    pub principal: KeyId,
    /// Digests of the files it is about, by their role.
    pub subjects: BTreeMap<String, Digest>,
    /// Further details by name. Large things are logged by digest.
    pub metadata: BTreeMap<String, Detail>,
}

impl Event {
    /// An event of severity `info` about nothing yet.
    #[must_use]
    pub const fn new(kind: EventKind, time: Timestamp, principal: KeyId) -> Self {
        Self { kind, severity: Severity::Info, time, principal, subjects: BTreeMap::new(), metadata: BTreeMap::new() }
    }
}

/// An event as it stands in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which log.
    pub origin: String,
    /// Its position, from 0.
    pub index: u64,
    /// Name of the kind, also where this version does not know it.
    pub kind: String,
    /// How much it matters.
    pub severity: Severity,
    /// When.
    pub time: Timestamp,
    /// On whose behalf.
    pub principal: KeyId,
    /// Digests of the files it is about.
    pub subjects: BTreeMap<String, Digest>,
    /// Further details.
    pub metadata: BTreeMap<String, Detail>,
    /// Leaf hash of the entry before it; for the first, the root of the empty tree.
    pub previous: Hash,
    signature: [u8; 64],
    signed: Vec<u8>,
}

/// Why a line is no entry, or not the entry that belongs there.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Longer than tlog-tiles can carry.
    #[error("it has {bytes} bytes; the limit is {ENTRY_BYTES_MAX}, so log the digest of large things")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not canonical JSON.
    #[error("it is {0}")]
    Canonical(#[from] CanonicalError),
    /// JSON of another shape.
    #[error("it has another shape than a log entry: {0}")]
    Shape(#[source] serde_json::Error),
    /// A field with a value that no entry has.
    #[error("its {field} is {found:?}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value, shortened.
        found: String,
    },
    /// A name or detail that cannot be shown or held.
    #[error(transparent)]
    Text(#[from] TextError),
    /// From another log.
    #[error("it belongs to the log {found:?}")]
    OtherLog {
        /// What it says.
        found: String,
    },
    /// From another place of the log.
    #[error("it says it is entry {found}")]
    OtherPlace {
        /// What it says.
        found: u64,
    },
    /// It does not follow the entry before it.
    #[error("it does not follow the entry before it")]
    BrokenChain,
    /// Not signed by the log, or altered since.
    #[error("its signature does not fit: it was altered after signing, or forged")]
    BadSignature,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    specversion: String,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    time: Timestamp,
    previous: RootHash,
    data: WireData,
}

#[derive(Serialize, Deserialize)]
struct WireData {
    severity: Severity,
    principal: KeyId,
    subjects: BTreeMap<String, Digest>,
    metadata: BTreeMap<String, Detail>,
}

/// `previous` of the first entry of any log.
#[must_use]
pub fn first_previous() -> Hash {
    empty_root()
}

/// The line of an event at its place in a log, without the newline.
pub(crate) fn write(
    event: &Event,
    origin: &str,
    index: u64,
    previous: &Hash,
    log: &Identity,
) -> Result<Vec<u8>, EntryError> {
    check_names(&event.subjects, &event.metadata)?;
    let wire = Wire {
        specversion: SPEC_VERSION.to_owned(),
        id: index.to_string(),
        source: origin.to_owned(),
        kind: event.kind.name().to_owned(),
        time: event.time,
        previous: RootHash(*previous),
        data: WireData {
            severity: event.severity,
            principal: event.principal,
            subjects: event.subjects.clone(),
            metadata: event.metadata.clone(),
        },
    };
    let mut value = serde_json::to_value(wire).map_err(EntryError::Shape)?;
    let signature = log.sign(&signed_bytes(&value)?);
    value["signature"] = Value::String(STANDARD.encode(signature));
    let line = canonical::write(&value)?;
    if line.len() > ENTRY_BYTES_MAX {
        return Err(EntryError::TooLarge { bytes: line.len() });
    }
    Ok(line)
}

/// What the log signs: the entry without its signature.
fn signed_bytes(unsigned: &Value) -> Result<Vec<u8>, CanonicalError> {
    Ok(pre_authentication_encoding(ENTRY_PAYLOAD_TYPE, &canonical::write(unsigned)?))
}

impl Entry {
    /// Reads a line (without its newline). It is not verified until [`Entry::verify`] says so.
    ///
    /// Errors: too long, not canonical JSON, or not an entry.
    pub fn read(line: &[u8]) -> Result<Self, EntryError> {
        if line.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge { bytes: line.len() });
        }
        let mut value = canonical::read(line)?;
        let field = |field, found: &str| EntryError::Field { field, found: found.chars().take(100).collect() };
        let signature = value.as_object_mut().and_then(|fields| fields.remove("signature"));
        let signature = signature.as_ref().and_then(Value::as_str).ok_or_else(|| field("signature", "absent"))?;
        let signature_bytes = STANDARD.decode(signature).ok().and_then(|bytes| bytes.try_into().ok());
        let signature = signature_bytes.ok_or_else(|| field("signature", signature))?;
        let signed = signed_bytes(&value)?;
        let wire: Wire = serde_json::from_value(value).map_err(EntryError::Shape)?;
        if wire.specversion != SPEC_VERSION {
            return Err(field("specversion", &wire.specversion));
        }
        let index = wire.id.parse::<u64>().ok().filter(|index| index.to_string() == wire.id);
        let index = index.ok_or_else(|| field("id", &wire.id))?;
        text::check("source", &wire.source, NAME_BYTES_MAX)?;
        text::check("type", &wire.kind, NAME_BYTES_MAX)?;
        check_names(&wire.data.subjects, &wire.data.metadata)?;
        Ok(Self {
            origin: wire.source,
            index,
            kind: wire.kind,
            severity: wire.data.severity,
            time: wire.time,
            principal: wire.data.principal,
            subjects: wire.data.subjects,
            metadata: wire.data.metadata,
            previous: wire.previous.0,
            signature,
            signed,
        })
    }

    /// Checks that this is what the log wrote at that place.
    ///
    /// Errors: another log or place, a broken chain, or a signature that does not hold.
    pub fn verify(&self, origin: &str, index: u64, previous: &Hash, log: &PublicKey) -> Result<(), EntryError> {
        if self.origin != origin {
            return Err(EntryError::OtherLog { found: self.origin.clone() });
        }
        if self.index != index {
            return Err(EntryError::OtherPlace { found: self.index });
        }
        if self.previous != *previous {
            return Err(EntryError::BrokenChain);
        }
        if log.verifies(&self.signed, &self.signature) { Ok(()) } else { Err(EntryError::BadSignature) }
    }

    /// The kind, where this version knows it.
    #[must_use]
    pub fn event_kind(&self) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|kind| kind.name() == self.kind)
    }
}

/// Reads and verifies the line at one place; gives its leaf hash, which is the next one's `previous`.
pub(crate) fn verify_line(
    line: &[u8],
    origin: &str,
    index: u64,
    previous: &Hash,
    log: &PublicKey,
) -> Result<Hash, EntryError> {
    Entry::read(line)?.verify(origin, index, previous, log)?;
    Ok(leaf_hash(line))
}

fn check_names(subjects: &BTreeMap<String, Digest>, metadata: &BTreeMap<String, Detail>) -> Result<(), TextError> {
    for name in subjects.keys().chain(metadata.keys()) {
        text::check("name of a subject or detail", name, NAME_BYTES_MAX)?;
    }
    for detail in metadata.values() {
        // An empty detail says "empty"; only what misleads a reader is refused.
        if let Detail::Text(words) = detail
            && !words.is_empty()
        {
            text::check("detail", words, LINE_BYTES_MAX)?;
        }
    }
    Ok(())
}
