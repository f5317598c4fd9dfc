//! The in-toto statement: these files (subjects), and what is claimed about them (the predicate).
//!
//! Source: in-toto attestation framework, Statement v1. A reader of version 1 ignores predicate fields it does not
//! know, because later versions only add. A field that must not be ignored is named in the predicate's
//! `mustUnderstand`, and a reader that does not know it refuses the document.

use crate::canonical::{self, CanonicalError};
use crate::figures::FigureError;
use crate::hex;
use crate::text::{self, LINE_BYTES_MAX, NAME_BYTES_MAX, TextError};
use crate::time::Timestamp;
use isotherm_core::digest::Digest;
use isotherm_core::ids::Layers;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// `_type` of every statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Most subjects of one statement.
pub const SUBJECTS_MAX: usize = 1024;

/// The plan a manifest allows.
pub const PLAN: &str = "plan";
/// The model file. Further files of one model are `model/00002`, `model/00003` and so on.
pub const MODEL: &str = "model";
/// The scenario the plan answers.
pub const SCENARIO: &str = "scenario";
/// The devices the plan was made for.
pub const DEVICES: &str = "devices";
/// The simulation that promises the predicted figures.
pub const SIMULATION: &str = "simulation";
/// The payload of the manifest that allowed a run.
pub const MANIFEST: &str = "manifest";
/// The sampled tokens of a run.
pub const TOKENS: &str = "tokens";
/// The run record with its trace.
pub const RUN: &str = "run";
/// The program that sealed, and that may run.
pub const BINARY: &str = "binary";
/// The key that a lease is for, by its id.
pub const PRINCIPAL: &str = "principal";
/// The payload of the lease that is used.
pub const LEASE: &str = "lease";

/// Why a statement says nothing that could be relied on.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// Not canonical JSON.
    #[error("statement is {0}")]
    Canonical(#[from] CanonicalError),
    /// JSON of another shape.
    #[error("statement has another shape than its type: {0}")]
    Shape(#[source] serde_json::Error),
    /// Not an in-toto statement of version 1.
    #[error("statement type {found:?} is not {STATEMENT_TYPE:?}")]
    Type {
        /// What it says.
        found: String,
    },
    /// A statement about something else, for example a run record where a manifest is needed.
    #[error("predicate type {found:?} is not {expected:?}")]
    Predicate {
        /// What it says.
        found: String,
        /// The type that was asked for.
        expected: String,
    },
    /// A later major version, whose fields may mean something else.
    #[error(
        "predicate type {found:?} has major version {major}; this isotherm reads version {expected}, so use a newer one"
    )]
    Major {
        /// What it says.
        found: String,
        /// Its major version.
        major: u32,
        /// The version read.
        expected: u32,
    },
    /// A field that restricts what is allowed, and that this version does not know.
    #[error(
        "statement has the field {field:?}, which must be understood and is not known to this isotherm; use a newer one"
    )]
    MustUnderstand {
        /// The field.
        field: String,
    },
    /// A name or identifier that cannot be shown or held.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A figure that is no figure.
    #[error(transparent)]
    Figure(#[from] FigureError),
    /// Two subjects of one name.
    #[error("subject {name:?} is there twice")]
    SubjectTwice {
        /// The name.
        name: String,
    },
    /// A statement without what it is about.
    #[error("subject {name:?} is missing")]
    SubjectMissing {
        /// The name.
        name: &'static str,
    },
    /// More parts than a reader should hold.
    #[error("{found} {what}; the limit is {limit}")]
    TooMany {
        /// The parts.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// Most allowed.
        limit: usize,
    },
    /// A plan that places nothing.
    #[error("manifest places no layers")]
    NoPlacement,
    /// A stage without layers, or with a reversed interval.
    #[error("stage {stage} has the layers {layers}, which is no interval")]
    Layers {
        /// The stage.
        stage: u32,
        /// Its interval.
        layers: Layers,
    },
    /// Times in an impossible order.
    #[error("{earlier} {first} is not before {later} {second}")]
    Order {
        /// Name of the time that has to come first.
        earlier: &'static str,
        /// Its value.
        first: Timestamp,
        /// Name of the time that has to come later.
        later: &'static str,
        /// Its value.
        second: Timestamp,
    },
    /// Longer than such a document may hold.
    #[error("{what} is valid for {seconds} s; the limit is {limit} s")]
    ValidTooLong {
        /// The document.
        what: &'static str,
        /// Its validity.
        seconds: u64,
        /// Most allowed.
        limit: u64,
    },
    /// A set of keys that cannot be lived with.
    #[error("key set: {why}")]
    KeySet {
        /// What is wrong.
        why: String,
    },
    /// A handover of a log that nobody could follow.
    #[error("handover of a log: {why}")]
    HandOver {
        /// What is wrong.
        why: String,
    },
    /// Only a plan that was found can be executed.
    #[error("a plan with status {status} cannot be sealed")]
    Status {
        /// What the planner said.
        status: String,
    },
}

/// One file that a statement is about, named by its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What it is: [`PLAN`], [`MODEL`], [`DEVICES`] and so on.
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Where it lay when it was sealed. A hint for finding it, never a reason to trust it.
    pub path_hint: Option<String>,
    /// Its length in bytes, as a hint.
    pub bytes: Option<u64>,
}

impl Subject {
    /// A subject without hints.
    #[must_use]
    pub fn new(name: &str, digest: Digest) -> Self {
        Self { name: name.to_owned(), digest, path_hint: None, bytes: None }
    }

    /// The same subject with a hint of where its file lies.
    #[must_use]
    pub fn at(self, path_hint: &str) -> Self {
        Self { path_hint: Some(path_hint.to_owned()), ..self }
    }

    fn check(&self) -> Result<(), StatementError> {
        text::check("subject name", &self.name, NAME_BYTES_MAX)?;
        if let Some(hint) = &self.path_hint {
            text::check("path hint", hint, LINE_BYTES_MAX)?;
        }
        Ok(())
    }
}

/// A claim about some files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement<P> {
    /// The files, each name once.
    pub subjects: Vec<Subject>,
    /// The claim.
    pub predicate: P,
}

mod sealed {
    /// Keeps the set of signed claims closed: only this crate says what may be sealed.
    pub trait Sealed {}
    impl Sealed for crate::manifest::ExecutionManifest {}
    impl Sealed for crate::run::RunClaim {}
    impl Sealed for crate::keyset::KeySetClaim {}
    impl Sealed for crate::lease::Lease {}
    impl Sealed for crate::lease::LeaseUse {}
    impl Sealed for crate::handover::HandOver {}
}

/// A kind of claim that this crate seals and opens.
pub trait Predicate: Serialize + DeserializeOwned + sealed::Sealed {
    /// The predicate type without its version.
    const NAME: &'static str;
    /// The major version written and read.
    const MAJOR: u32;

    /// Errors: the claim contradicts itself or its subjects are incomplete.
    fn check(&self, subjects: &[Subject]) -> Result<(), StatementError>;
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire<P> {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<WireSubject>,
    predicate_type: String,
    predicate: P,
}

#[derive(Serialize, Deserialize)]
struct WireSubject {
    name: String,
    digest: WireDigest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<WireHints>,
}

#[derive(Serialize, Deserialize)]
struct WireDigest {
    sha256: Sha256Hex,
}

/// in-toto writes a digest without the `sha256:` that core puts before it: the map's key says it already.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[derive(Clone, Copy)]
struct Sha256Hex(Digest);

#[derive(Debug, thiserror::Error)]
#[error("a sha256 digest has 64 hexadecimal digits in lower case")]
struct NotSha256;

impl TryFrom<String> for Sha256Hex {
    type Error = NotSha256;

    fn try_from(digits: String) -> Result<Self, NotSha256> {
        hex::read(&digits).map(|bytes| Self(Digest::from_bytes(bytes))).ok_or(NotSha256)
    }
}

impl From<Sha256Hex> for String {
    fn from(digest: Sha256Hex) -> Self {
        digest.0.hex()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireHints {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_hint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

impl From<&Subject> for WireSubject {
    fn from(subject: &Subject) -> Self {
        let hinted = subject.path_hint.is_some() || subject.bytes.is_some();
        let hints = WireHints { path_hint: subject.path_hint.clone(), bytes: subject.bytes };
        Self {
            name: subject.name.clone(),
            digest: WireDigest { sha256: Sha256Hex(subject.digest) },
            annotations: hinted.then_some(hints),
        }
    }
}

impl From<WireSubject> for Subject {
    fn from(wire: WireSubject) -> Self {
        let hints = wire.annotations.unwrap_or(WireHints { path_hint: None, bytes: None });
        Self { name: wire.name, digest: wire.digest.sha256.0, path_hint: hints.path_hint, bytes: hints.bytes }
    }
}

impl<P: Predicate> Statement<P> {
    /// The digest of the subject of that name.
    #[must_use]
    pub fn subject(&self, name: &str) -> Option<Digest> {
        self.subjects.iter().find(|subject| subject.name == name).map(|subject| subject.digest)
    }

    /// `urn:isotherm:...:v1`: what this claim is called in signed text.
    #[must_use]
    pub fn predicate_type() -> String {
        format!("{}:v{}", P::NAME, P::MAJOR)
    }

    /// The payload: canonical JSON of a statement that holds together.
    pub(crate) fn write(&self) -> Result<Vec<u8>, StatementError> {
        self.check()?;
        let wire = Wire {
            kind: STATEMENT_TYPE.to_owned(),
            subject: self.subjects.iter().map(WireSubject::from).collect(),
            predicate_type: Self::predicate_type(),
            predicate: &self.predicate,
        };
        Ok(canonical::write(&wire)?)
    }

    /// Reads a payload. The caller has verified its signatures before, or says to its own caller that it has not.
    pub(crate) fn read(payload: &[u8]) -> Result<Self, StatementError> {
        let wire: Wire<Value> = serde_json::from_value(canonical::read(payload)?).map_err(StatementError::Shape)?;
        if wire.kind != STATEMENT_TYPE {
            return Err(StatementError::Type { found: shortened(&wire.kind) });
        }
        Self::accept_type(&wire.predicate_type)?;
        refuse_unknown_musts(&wire.predicate)?;
        let statement = Self {
            subjects: wire.subject.into_iter().map(Subject::from).collect(),
            predicate: serde_json::from_value(wire.predicate).map_err(StatementError::Shape)?,
        };
        statement.check()?;
        Ok(statement)
    }

    /// Accepts `NAME:v1` and, since minor versions only add, `NAME:v1.MINOR`.
    fn accept_type(found: &str) -> Result<(), StatementError> {
        let other = || StatementError::Predicate { found: shortened(found), expected: Self::predicate_type() };
        let version = found.strip_prefix(P::NAME).and_then(|rest| rest.strip_prefix(":v")).ok_or_else(other)?;
        let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
        let number = |digits: &str| {
            let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
            plain.then(|| digits.parse::<u32>().ok()).flatten()
        };
        let (Some(major), Some(_)) = (number(major), number(minor)) else { return Err(other()) };
        if major == P::MAJOR {
            Ok(())
        } else {
            Err(StatementError::Major { found: shortened(found), major, expected: P::MAJOR })
        }
    }

    /// Errors: whatever would make this statement misleading. Sealing and opening ask the same.
    fn check(&self) -> Result<(), StatementError> {
        too_many("subjects", self.subjects.len(), SUBJECTS_MAX)?;
        let mut names = BTreeSet::new();
        for subject in &self.subjects {
            subject.check()?;
            if !names.insert(&subject.name) {
                return Err(StatementError::SubjectTwice { name: subject.name.clone() });
            }
        }
        self.predicate.check(&self.subjects)
    }
}

/// Version 1 knows no field that an older reader could do without, so nothing named here is understood.
fn refuse_unknown_musts(predicate: &Value) -> Result<(), StatementError> {
    let unknown = |field: &Value| StatementError::MustUnderstand {
        field: field.as_str().map_or_else(|| field.to_string(), str::to_owned),
    };
    match predicate.get("mustUnderstand") {
        None => Ok(()),
        Some(Value::Array(fields)) => fields.first().map_or(Ok(()), |field| Err(unknown(field))),
        Some(other) => Err(unknown(other)),
    }
}

pub(crate) fn too_many(what: &'static str, found: usize, limit: usize) -> Result<(), StatementError> {
    if found > limit { Err(StatementError::TooMany { what, found, limit }) } else { Ok(()) }
}

pub(crate) fn require(subjects: &[Subject], names: &[&'static str]) -> Result<(), StatementError> {
    let missing = names.iter().find(|name| !subjects.iter().any(|subject| subject.name == **name));
    missing.map_or(Ok(()), |name| Err(StatementError::SubjectMissing { name }))
}

/// Errors: the first instant is not before the second.
pub(crate) fn in_order(
    first: (&'static str, Timestamp),
    second: (&'static str, Timestamp),
) -> Result<(), StatementError> {
    if first.1 < second.1 {
        return Ok(());
    }
    Err(StatementError::Order { earlier: first.0, first: first.1, later: second.0, second: second.1 })
}

fn shortened(found: &str) -> String {
    found.chars().take(120).collect()
}
