//! Handing a log over to another key: a statement of the old key and the new, so that a witness follows from one to the
//! other instead of taking a stranger's word.
//!
//! Without it a rotated key looks to a witness like a forger's, and whoever tells the witness otherwise by hand can be
//! lied to. The statement carries the last state that the old key signed; a witness that has not seen that state first
//! asks for it, so that nothing is lost between the two keys.

use crate::keys::{PublicKey, TrustedKeys};
use crate::log::checkpoint::{Checkpoint, is_origin};
use crate::open::{OpenError, inspect, same_place};
use crate::statement::{Predicate, Statement, StatementError, Subject};
use crate::text;
use crate::time::Timestamp;
use isotherm_core::digest::Digest;
use serde::{Deserialize, Serialize};

/// Name of the one subject: the key that takes over.
pub const SUCCESSOR: &str = "successor";

/// A statement that a log goes over to another key.
pub type SignedHandOver = Statement<HandOver>;

/// Which log goes from which key to which, and at what state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandOver {
    /// Name of the log, which stays.
    pub origin: String,
    /// The log's state at that moment: a checkpoint that the old key signed.
    pub checkpoint: String,
    /// The old key as SPKI PEM.
    pub predecessor: String,
    /// The new key as SPKI PEM.
    pub successor: String,
    /// When it was made.
    pub handed_on: Timestamp,
}

impl HandOver {
    /// Errors: text that is no key.
    fn key(pem: &str) -> Result<PublicKey, StatementError> {
        PublicKey::from_pem(pem).map_err(|error| StatementError::HandOver { why: error.to_string() })
    }

    /// Errors: no checkpoint of this log by its old key.
    fn state(&self) -> Result<Checkpoint, StatementError> {
        Checkpoint::open(self.checkpoint.as_bytes(), &self.origin, &Self::key(&self.predecessor)?)
            .map_err(|error| StatementError::HandOver { why: error.to_string() })
    }
}

impl Predicate for HandOver {
    const NAME: &'static str = "urn:isotherm:log-handover";
    const MAJOR: u32 = 1;

    fn check(&self, subjects: &[Subject]) -> Result<(), StatementError> {
        let wrong = |why: &str| Err(StatementError::HandOver { why: why.to_owned() });
        if !is_origin(&self.origin) {
            return wrong("its origin is no name of a log");
        }
        text::check("origin", &self.origin, text::NAME_BYTES_MAX)?;
        let (from, to) = (Self::key(&self.predecessor)?, Self::key(&self.successor)?);
        if from.id() == to.id() {
            return wrong("a key takes over from itself");
        }
        self.state()?;
        match subjects {
            [only] if only.name == SUCCESSOR && only.digest == Digest::from_bytes(*to.id().bytes()) => Ok(()),
            _ => wrong("its one subject is not the key that takes over"),
        }
    }
}

/// The statement of a handover: its subject follows from it. Old and new key both have to sign it.
///
/// Errors: text in it that is no key.
pub fn statement(claim: HandOver) -> Result<SignedHandOver, StatementError> {
    let subject = Subject::new(SUCCESSOR, Digest::from_bytes(*HandOver::key(&claim.successor)?.id().bytes()));
    Ok(Statement { subjects: vec![subject], predicate: claim })
}

/// A handover that both keys signed.
#[derive(Debug, Clone)]
pub struct HandedOver {
    /// The key that let go.
    pub from: PublicKey,
    /// The key that took over.
    pub to: PublicKey,
    /// The last state that the old key answers for.
    pub state: Checkpoint,
    /// The same as the note that the old key signed.
    pub note: String,
    /// When it says it was made.
    pub handed_on: Timestamp,
}

/// Opens a handover of the log `origin` by its present key.
///
/// Errors: not signed by that key **and** by the one that takes over; another log; no state of the log by the old key.
pub fn open_hand_over(envelope: &[u8], origin: &str, from: &PublicKey) -> Result<HandedOver, OpenError> {
    let other = |what: String| OpenError::OtherUse { what };
    let old = TrustedKeys::new([from.clone()], 1).map_err(|error| other(error.to_string()))?;
    let claim = inspect::<HandOver>(envelope, &old)?.statement.predicate;
    let to = HandOver::key(&claim.successor)?;
    // Whoever takes over has to show that it can sign; a stranger's key could be named otherwise.
    let both = TrustedKeys::new([from.clone(), to.clone()], 2).map_err(|error| other(error.to_string()))?;
    inspect::<HandOver>(envelope, &both)?;
    same_place("log", origin, &claim.origin)?;
    if HandOver::key(&claim.predecessor)?.id() != from.id() {
        return Err(other(format!("it hands over what is not the key {}'s", from.id())));
    }
    let state = claim.state()?;
    Ok(HandedOver { from: from.clone(), to, state, note: claim.checkpoint, handed_on: claim.handed_on })
}
