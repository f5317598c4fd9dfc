//! Opening: the only way from foreign bytes to a [`Verified`] statement.
//!
//! The order is the point. Sizes first, then the envelope's shell, then the signatures over the raw payload, then the
//! count of distinct keys; only a payload that enough trusted keys signed is parsed. What it says is compared with what
//! the caller holds in its own hands last.

use crate::envelope::{Envelope, EnvelopeError};
use crate::keys::{KeyId, TrustedKeys};
use crate::keyset::KeySet;
use crate::manifest::{ExecutionManifest, Manifest};
use crate::run::{RunClaim, SignedRun};
use crate::statement::{DEVICES, MANIFEST, MODEL, PLAN, Predicate, Statement, StatementError};
use crate::time::Timestamp;
use isotherm_core::digest::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Deref;

/// Why bytes were not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not an envelope.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Signed in the name of a trusted key, but not by it: the bytes were altered after signing, or forged.
    #[error("signature by key {key} does not fit the content: it was altered after signing, or forged")]
    BadSignature {
        /// The trusted key.
        key: KeyId,
    },
    /// Too few of the trusted keys signed.
    #[error("{distinct} distinct trusted keys signed; {threshold} are needed{}", untrusted(strangers))]
    BelowThreshold {
        /// Distinct trusted keys whose signatures hold.
        distinct: usize,
        /// How many are needed.
        threshold: usize,
        /// Keys named in the envelope that are not trusted.
        strangers: Vec<KeyId>,
    },
    /// Well signed, but not a statement of the kind asked for.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// Too few keys of one role signed.
    #[error("{distinct} distinct keys of the role {role} signed; {threshold} are needed")]
    BelowRole {
        /// The role.
        role: String,
        /// Distinct keys of the role whose signatures hold.
        distinct: usize,
        /// How many are needed.
        threshold: usize,
    },
    /// Used for something else than it is for.
    #[error("{what}")]
    OtherUse {
        /// What differs.
        what: String,
    },
    /// Its time has not come.
    #[error("not valid before {not_before}; it is {now}")]
    NotYetValid {
        /// First second of validity.
        not_before: Timestamp,
        /// The time it was opened for.
        now: Timestamp,
    },
    /// Its time is over.
    #[error("expired on {expires_on}; it is {now}")]
    Expired {
        /// First second after validity.
        expires_on: Timestamp,
        /// The time it was opened for.
        now: Timestamp,
    },
    /// It says it was sealed later than now.
    #[error("{what} is {claimed}, in the future; it is {now}")]
    FromTheFuture {
        /// The field.
        what: &'static str,
        /// What it says.
        claimed: Timestamp,
        /// The time it was opened for.
        now: Timestamp,
    },
    /// For somebody else.
    #[error("it is for the {what} {found:?}; this is {expected:?}")]
    OtherPlace {
        /// `cluster`, `host` or `node`.
        what: &'static str,
        /// What this place is called.
        expected: String,
        /// What it says.
        found: String,
    },
    /// An old manifest came back.
    #[error("counter {counter} is below {minimum}: a newer manifest was accepted before")]
    Rollback {
        /// What it says.
        counter: u64,
        /// The least that is accepted.
        minimum: u64,
    },
    /// It does not follow the manifest it has to follow.
    #[error("it follows the manifest {}; the last accepted one is {expected}", found.map_or_else(|| "(none)".to_owned(), |digest| digest.to_string()))]
    OtherPredecessor {
        /// The last accepted manifest.
        expected: Digest,
        /// What it says.
        found: Option<Digest>,
    },
    /// The caller has to hold these files to rely on the statement.
    #[error("nothing was presented to compare with {}", names.join(", "))]
    NotPresented {
        /// Names of the subjects.
        names: Vec<String>,
    },
    /// Files other than the sealed ones.
    #[error("{}", mismatches.iter().map(SubjectMismatch::to_string).collect::<Vec<_>>().join("; "))]
    Subjects {
        /// All that differ.
        mismatches: Vec<SubjectMismatch>,
    },
    /// A run that the manifest did not allow.
    #[error("the run began on {started_on}, outside the manifest's {not_before} to {expires_on}")]
    RunOutsideWindow {
        /// When the run began.
        started_on: Timestamp,
        /// First second of the manifest's validity.
        not_before: Timestamp,
        /// First second after it.
        expires_on: Timestamp,
    },
}

fn untrusted(strangers: &[KeyId]) -> String {
    if strangers.is_empty() {
        return String::new();
    }
    let names: Vec<_> = strangers.iter().map(KeyId::to_string).collect();
    format!("; signed by the untrusted {}", names.join(", "))
}

/// A presented file that is not the sealed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectMismatch {
    /// Which subject.
    pub name: String,
    /// The digest that was sealed; absent where the statement has no such subject.
    pub expected: Option<Digest>,
    /// The digest that was presented.
    pub found: Digest,
}

impl fmt::Display for SubjectMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, expected, found } = self;
        match expected {
            Some(expected) => write!(f, "{name} differs: sealed {expected}, found {found}"),
            None => write!(f, "{name} was not sealed, found {found}"),
        }
    }
}

/// A statement whose signatures hold and which fits what its reader expected. Only the opening functions of this crate
/// make one.
///
/// ```compile_fail,E0451
/// # use isotherm_audit::Verified;
/// # use std::collections::BTreeSet;
/// # let payload_digest = isotherm_core::digest::Digest::of(b"");
/// let forged = Verified { statement: (), signers: BTreeSet::new(), payload_digest, compared: BTreeSet::new() };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    statement: T,
    signers: BTreeSet<KeyId>,
    payload_digest: Digest,
    compared: BTreeSet<String>,
}

impl<P: Predicate> Verified<Statement<P>> {
    /// For the opening functions of other modules, once they have compared everything.
    pub(crate) fn of(inspected: Inspected<P>, compared: BTreeSet<String>) -> Self {
        let Inspected { statement, signers, payload_digest } = inspected;
        Self { statement, signers, payload_digest, compared }
    }
}

impl<T> Verified<T> {
    /// The distinct trusted keys that signed.
    #[must_use]
    pub const fn signers(&self) -> &BTreeSet<KeyId> {
        &self.signers
    }

    /// Digest of the signed payload, which later statements refer to.
    #[must_use]
    pub const fn payload_digest(&self) -> Digest {
        self.payload_digest
    }

    /// Names of the subjects that were compared with files in the reader's hands.
    #[must_use]
    pub const fn compared(&self) -> &BTreeSet<String> {
        &self.compared
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.statement
    }
}

/// A statement whose signatures hold, compared with nothing yet: good for showing, not for running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected<P> {
    /// What was signed.
    pub statement: Statement<P>,
    /// The distinct trusted keys that signed.
    pub signers: BTreeSet<KeyId>,
    /// Digest of the signed payload.
    pub payload_digest: Digest,
}

/// What the opener of a manifest knows by itself.
#[derive(Debug, Clone)]
pub struct Expectations {
    /// The cluster this host belongs to.
    pub cluster_id: String,
    /// This host.
    pub host_id: String,
    /// Least counter accepted: that of the last accepted manifest, or one more where each may run once.
    pub counter_min: u64,
    /// The last accepted manifest, where manifests have to form a chain.
    pub previous_manifest: Option<Digest>,
    /// Digests, freshly computed, of the files that will be used, by subject name. `plan`, `devices` and every model
    /// file are needed; `scenario` and `simulation` are compared where given.
    pub presented: BTreeMap<String, Digest>,
    /// Identities of the node that is to run it: the ids of its keys. Every placement that names a node has to name one
    /// of them. Absent where the manifest is only looked at.
    pub nodes: Option<BTreeSet<String>>,
}

/// What the opener of a run record knows by itself.
#[derive(Debug, Clone)]
pub struct RunExpectations<'a> {
    /// The manifest that allowed the run, opened for the time at which the run began.
    pub manifest: &'a Verified<Manifest>,
    /// Digests, freshly computed, of files at hand, by subject name (`tokens`, `run`). Each must agree.
    pub presented: BTreeMap<String, Digest>,
    /// Keys that took the place of a node's since the manifest was sealed; mostly none.
    pub successors: BTreeSet<KeyId>,
}

/// Verifies signatures and reads what was signed, for showing it or approving it.
///
/// Errors: no envelope, a signature that does not hold, too few distinct trusted keys, or no statement of this kind.
pub fn inspect<P: Predicate>(envelope: &[u8], trusted: &TrustedKeys) -> Result<Inspected<P>, OpenError> {
    let envelope = Envelope::read(envelope)?;
    let signed = envelope.signed_bytes();
    let mut signers = BTreeSet::new();
    let mut strangers = Vec::new();
    for claim in &envelope.signatures {
        match trusted.get(claim.key) {
            None => strangers.push(claim.key),
            Some(key) if key.verifies(&signed, &claim.bytes) => {
                signers.insert(claim.key);
            }
            Some(_) => return Err(OpenError::BadSignature { key: claim.key }),
        }
    }
    if signers.len() < trusted.threshold() {
        return Err(OpenError::BelowThreshold { distinct: signers.len(), threshold: trusted.threshold(), strangers });
    }
    let statement = Statement::read(&envelope.payload)?;
    Ok(Inspected { statement, signers, payload_digest: Digest::of(&envelope.payload) })
}

/// Opens a manifest for running it at the time `now`, on the files whose digests are presented.
///
/// Errors: those of [`inspect`]; outside the validity window; another cluster, host or node; an older counter or another
/// predecessor than expected; a needed file not presented; any presented file that is not the sealed one.
pub fn open(
    envelope: &[u8],
    trusted: &TrustedKeys,
    now: Timestamp,
    expected: &Expectations,
) -> Result<Verified<Manifest>, OpenError> {
    accept(inspect(envelope, trusted)?, now, expected)
}

/// Verifies the signatures of a manifest by the roles of a signed set of keys, for showing it.
///
/// Errors: those of [`inspect`]; a set of keys that has expired; too few signers of a role.
pub fn inspect_by_roles(
    envelope: &[u8],
    keys: &KeySet,
    now: Timestamp,
) -> Result<Inspected<ExecutionManifest>, OpenError> {
    let inspected = inspect::<ExecutionManifest>(envelope, &keys.signers(now)?)?;
    keys.enough(&inspected.signers)?;
    Ok(inspected)
}

/// Opens a manifest by the roles of a signed set of keys: enough planners and enough approvers have to have signed it.
///
/// Errors: those of [`open()`]; a set of keys that has expired; too few signers of a role.
pub fn open_by_roles(
    envelope: &[u8],
    keys: &KeySet,
    now: Timestamp,
    expected: &Expectations,
) -> Result<Verified<Manifest>, OpenError> {
    accept(inspect_by_roles(envelope, keys, now)?, now, expected)
}

/// Compares a well signed manifest with what its reader knows.
fn accept(
    inspected: Inspected<ExecutionManifest>,
    now: Timestamp,
    expected: &Expectations,
) -> Result<Verified<Manifest>, OpenError> {
    let Inspected { statement, signers, payload_digest } = inspected;
    let manifest = &statement.predicate;
    check_window(manifest, now)?;
    same_place("cluster", &expected.cluster_id, &manifest.cluster_id)?;
    if let Some(host) = &manifest.host_id {
        same_place("host", &expected.host_id, host)?;
    }
    if let Some(own) = &expected.nodes {
        same_node(manifest, own)?;
    }
    if manifest.counter < expected.counter_min {
        return Err(OpenError::Rollback { counter: manifest.counter, minimum: expected.counter_min });
    }
    match expected.previous_manifest {
        Some(previous) if manifest.previous_manifest != Some(previous) => {
            return Err(OpenError::OtherPredecessor { expected: previous, found: manifest.previous_manifest });
        }
        _ => {}
    }
    let needed = |name: &str| name == PLAN || name == DEVICES || name.split('/').next() == Some(MODEL);
    let missing = statement.subjects.iter().map(|subject| &subject.name);
    let missing: Vec<_> =
        missing.filter(|name| needed(name) && !expected.presented.contains_key(*name)).cloned().collect();
    if !missing.is_empty() {
        return Err(OpenError::NotPresented { names: missing });
    }
    let compared = compare(&statement, &expected.presented)?;
    Ok(Verified { statement, signers, payload_digest, compared })
}

/// Opens a record of a run, given the manifest that allowed it.
///
/// One signature counts if it is that of a node which the manifest names: whoever plans or approves was not there.
///
/// Errors: those of [`inspect`]; signed by none of the manifest's nodes; a run of another manifest, cluster or host,
/// outside the manifest's window, or in the future; any presented file that is not the sealed one.
pub fn open_run(
    envelope: &[u8],
    trusted: &TrustedKeys,
    now: Timestamp,
    expected: &RunExpectations<'_>,
) -> Result<Verified<SignedRun>, OpenError> {
    let Inspected { statement, signers, payload_digest } = inspect::<RunClaim>(envelope, trusted)?;
    let (run, manifest) = (&statement.predicate, &expected.manifest.predicate);
    by_a_node(manifest, &signers, &expected.successors)?;
    if run.finished_on > now {
        return Err(OpenError::FromTheFuture { what: "finishedOn", claimed: run.finished_on, now });
    }
    let mut presented = expected.presented.clone();
    presented.insert(MANIFEST.to_owned(), expected.manifest.payload_digest);
    let compared = compare(&statement, &presented)?;
    same_place("cluster", &manifest.cluster_id, &run.cluster_id)?;
    if let Some(host) = &manifest.host_id {
        same_place("host", host, &run.host_id)?;
    }
    if run.started_on < manifest.not_before || run.started_on >= manifest.expires_on {
        return Err(OpenError::RunOutsideWindow {
            started_on: run.started_on,
            not_before: manifest.not_before,
            expires_on: manifest.expires_on,
        });
    }
    Ok(Verified { statement, signers, payload_digest, compared })
}

/// Errors: a placement on a node that is none of these.
fn same_node(manifest: &ExecutionManifest, own: &BTreeSet<String>) -> Result<(), OpenError> {
    let named = manifest.placements.iter().filter_map(|placement| placement.node_id.as_ref());
    match named.into_iter().find(|node| !own.contains(*node)) {
        None => Ok(()),
        Some(node) => same_place("node", own.first().map_or("", String::as_str), node),
    }
}

/// Errors: the manifest names its nodes, and none of them, nor what took its place, signed.
fn by_a_node(
    manifest: &ExecutionManifest,
    signers: &BTreeSet<KeyId>,
    successors: &BTreeSet<KeyId>,
) -> Result<(), OpenError> {
    let nodes: BTreeSet<&str> = manifest.placements.iter().filter_map(|p| p.node_id.as_deref()).collect();
    let node = |key: &KeyId| successors.contains(key) || nodes.contains(key.to_string().as_str());
    if nodes.is_empty() || signers.iter().any(node) {
        return Ok(());
    }
    let signers: Vec<_> = signers.iter().map(KeyId::to_string).collect();
    let what = format!("the run is signed by {}, none of the nodes that the manifest names", signers.join(", "));
    Err(OpenError::OtherUse { what })
}

fn check_window(manifest: &ExecutionManifest, now: Timestamp) -> Result<(), OpenError> {
    if now < manifest.not_before {
        return Err(OpenError::NotYetValid { not_before: manifest.not_before, now });
    }
    if now >= manifest.expires_on {
        return Err(OpenError::Expired { expires_on: manifest.expires_on, now });
    }
    if manifest.created_on > now {
        return Err(OpenError::FromTheFuture { what: "createdOn", claimed: manifest.created_on, now });
    }
    Ok(())
}

pub(crate) fn same_place(what: &'static str, expected: &str, found: &str) -> Result<(), OpenError> {
    if expected == found {
        return Ok(());
    }
    Err(OpenError::OtherPlace { what, expected: expected.to_owned(), found: found.to_owned() })
}

fn compare<P: Predicate>(
    statement: &Statement<P>,
    presented: &BTreeMap<String, Digest>,
) -> Result<BTreeSet<String>, OpenError> {
    let mismatches: Vec<_> = presented
        .iter()
        .map(|(name, found)| SubjectMismatch { name: name.clone(), expected: statement.subject(name), found: *found })
        .filter(|subject| subject.expected != Some(subject.found))
        .collect();
    if mismatches.is_empty() {
        Ok(presented.keys().cloned().collect())
    } else {
        Err(OpenError::Subjects { mismatches })
    }
}
