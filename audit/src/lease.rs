//! Leases: a right lent to one key for a short time, and the proof that its holder uses it.
//!
//! A lease is a signed statement that names the holder's key, the permissions and devices it covers and when it ends. It
//! is worth nothing without the holder's private key: every use is a second statement, signed by the holder, with the
//! lease's digest, the operation and a nonce that counts once. So a copied lease opens nothing, and a copied use does not
//! open it twice.

use crate::keys::{KeyId, PublicKey, TrustedKeys};
use crate::manifest::Nonce;
use crate::open::{OpenError, Verified, inspect, same_place};
use crate::statement::{self, Predicate, Statement, StatementError, Subject};
use crate::text::{self, NAME_BYTES_MAX};
use crate::time::Timestamp;
use isotherm_core::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Longest validity of a lease: a day.
pub const LEASE_SECONDS_MAX: u64 = 86_400;
/// How old, and how far in the future, a use may be: clocks differ.
pub const USE_SECONDS_MAX: u64 = 60;
/// Most permissions or devices of one lease.
pub const SCOPES_MAX: usize = 256;

/// A signed lease. Its one subject is the holder's key.
pub type SignedLease = Statement<Lease>;
/// A signed use of a lease. Its one subject is the lease.
pub type SignedLeaseUse = Statement<LeaseUse>;

/// What is lent to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Sixteen random bytes that name it.
    pub lease_id: Nonce,
    /// The cluster it is for.
    pub cluster_id: String,
    /// The key that may use it.
    pub principal: KeyId,
    /// The permissions it covers, each of which the holder must have besides.
    pub scopes: BTreeSet<String>,
    /// The devices it covers; absent for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<BTreeSet<String>>,
    /// Most memory that may be held under it at once, over all its uses; absent for what the holder's quota says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes_max: Option<u64>,
    /// When it was made.
    pub created_on: Timestamp,
    /// First second at which it counts.
    pub not_before: Timestamp,
    /// First second at which it does not count any more.
    pub expires_on: Timestamp,
}

/// What a holder does under a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseUse {
    /// The permission that is used.
    pub operation: String,
    /// The device.
    pub device: String,
    /// Memory asked for, where the operation takes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Sixteen random bytes that count once.
    pub nonce: Nonce,
    /// When it was made.
    pub made_on: Timestamp,
}

impl Predicate for Lease {
    const NAME: &'static str = "urn:isotherm:lease";
    const MAJOR: u32 = 1;

    fn check(&self, subjects: &[Subject]) -> Result<(), StatementError> {
        statement::require(subjects, &[statement::PRINCIPAL])?;
        text::check("clusterId", &self.cluster_id, NAME_BYTES_MAX)?;
        statement::too_many("scopes", self.scopes.len(), SCOPES_MAX)?;
        statement::too_many("devices", self.devices.as_ref().map_or(0, BTreeSet::len), SCOPES_MAX)?;
        for name in self.scopes.iter().chain(self.devices.iter().flatten()) {
            text::check("scope or device", name, NAME_BYTES_MAX)?;
        }
        let digest = subjects.iter().find(|subject| subject.name == statement::PRINCIPAL).map(|found| found.digest);
        if digest != Some(Digest::from_bytes(*self.principal.bytes())) {
            return Err(StatementError::KeySet { why: "the lease's subject is not the key it is for".to_owned() });
        }
        statement::in_order(("createdOn", self.created_on), ("expiresOn", self.expires_on))?;
        statement::in_order(("notBefore", self.not_before), ("expiresOn", self.expires_on))?;
        let from = self.created_on.min(self.not_before);
        let seconds = self.expires_on.unix_seconds() - from.unix_seconds();
        if seconds > LEASE_SECONDS_MAX {
            return Err(StatementError::ValidTooLong { what: "a lease", seconds, limit: LEASE_SECONDS_MAX });
        }
        Ok(())
    }
}

impl Predicate for LeaseUse {
    const NAME: &'static str = "urn:isotherm:lease-use";
    const MAJOR: u32 = 1;

    fn check(&self, subjects: &[Subject]) -> Result<(), StatementError> {
        statement::require(subjects, &[statement::LEASE])?;
        text::check("operation", &self.operation, NAME_BYTES_MAX)?;
        text::check("device", &self.device, NAME_BYTES_MAX)?;
        Ok(())
    }
}

/// The statement of a lease: its subject follows from it.
#[must_use]
pub fn lease(lease: Lease) -> SignedLease {
    let subject = Subject::new(statement::PRINCIPAL, Digest::from_bytes(*lease.principal.bytes()));
    Statement { subjects: vec![subject], predicate: lease }
}

/// The statement of a use of the lease with that payload digest.
#[must_use]
pub fn lease_use(lease: Digest, using: LeaseUse) -> SignedLeaseUse {
    Statement { subjects: vec![Subject::new(statement::LEASE, lease)], predicate: using }
}

/// Opens a lease: signed by enough issuers, for this cluster, within its time by the reader's clock. Whether it was revoked
/// the caller asks its own list, by [`Lease::lease_id`].
///
/// Errors: those of [`inspect`]; another cluster; too early, expired or from the future.
pub fn open_lease(
    envelope: &[u8],
    issuers: &TrustedKeys,
    now: Timestamp,
    cluster_id: &str,
) -> Result<Verified<SignedLease>, OpenError> {
    let inspected = inspect::<Lease>(envelope, issuers)?;
    let lease = &inspected.statement.predicate;
    same_place("cluster", cluster_id, &lease.cluster_id)?;
    if now < lease.not_before {
        return Err(OpenError::NotYetValid { not_before: lease.not_before, now });
    }
    if now >= lease.expires_on {
        return Err(OpenError::Expired { expires_on: lease.expires_on, now });
    }
    if lease.created_on > now {
        return Err(OpenError::FromTheFuture { what: "createdOn", claimed: lease.created_on, now });
    }
    Ok(Verified::of(inspected, BTreeSet::new()))
}

/// Opens a use of a lease: signed by the holder's key, of this lease, made just now. That its nonce counts once is the
/// caller's to keep.
///
/// Errors: those of [`inspect`]; another key than the lease's holder; another lease; too old or from the future.
pub fn open_lease_use(
    envelope: &[u8],
    lease: &Verified<SignedLease>,
    holder: &PublicKey,
    now: Timestamp,
) -> Result<Verified<SignedLeaseUse>, OpenError> {
    if holder.id() != lease.predicate.principal {
        return Err(OpenError::OtherUse {
            what: format!("the lease is for {}; {} uses it", lease.predicate.principal, holder.id()),
        });
    }
    let trusted = TrustedKeys::new([holder.clone()], 1).expect("one of one");
    let inspected = inspect::<LeaseUse>(envelope, &trusted)?;
    let using = &inspected.statement.predicate;
    let expected: BTreeMap<_, _> = [(statement::LEASE, lease.payload_digest())].into();
    for (name, digest) in expected {
        if inspected.statement.subject(name) != Some(digest) {
            return Err(OpenError::OtherUse { what: "it uses another lease".to_owned() });
        }
    }
    if using.made_on > now.later_by(USE_SECONDS_MAX) {
        return Err(OpenError::FromTheFuture { what: "madeOn", claimed: using.made_on, now });
    }
    let until = using.made_on.later_by(USE_SECONDS_MAX);
    if now >= until {
        return Err(OpenError::Expired { expires_on: until, now });
    }
    Ok(Verified::of(inspected, BTreeSet::from([statement::LEASE.to_owned()])))
}
