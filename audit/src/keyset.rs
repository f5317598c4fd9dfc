//! Signed sets of keys: who may plan, who may approve, who may name the next set.
//!
//! The rules are those of The Update Framework for its root file: a new set has the next version, is signed by enough
//! keys of the old set **and** by enough of its own, and expires. So an old set cannot come back, and a thief of fewer
//! keys than the threshold cannot make a new one.

use crate::envelope::Envelope;
use crate::keys::{KeyError, KeyId, PublicKey, TrustedKeys};
use crate::open::{Inspected, OpenError, inspect, same_place};
use crate::statement::{self, Predicate, Statement, StatementError, Subject};
use crate::text::{self, NAME_BYTES_MAX};
use crate::time::Timestamp;
use isotherm_core::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Who may name the next set.
pub const ROOT: &str = "root";
/// Who seals plans.
pub const PLANNER: &str = "planner";
/// Who approves what planners sealed.
pub const APPROVER: &str = "approver";
const ROLES: [&str; 3] = [ROOT, PLANNER, APPROVER];
/// Most keys of one set.
pub const KEYS_MAX: usize = 256;

/// A statement that names keys and what they count for. Its subjects are the keys, by their ids.
pub type SignedKeySet = Statement<KeySetClaim>;

/// Keys and what they count for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeySetClaim {
    /// The cluster it is for.
    pub cluster_id: String,
    /// 1 for the first set, and one more for each after it.
    pub version: u64,
    /// The keys as SPKI PEM, by their ids.
    pub keys: BTreeMap<String, String>,
    /// `root`, and where they are needed `planner` and `approver`.
    pub roles: BTreeMap<String, Role>,
    /// When it was made.
    pub created_on: Timestamp,
    /// First second at which nothing counts by it any more.
    pub expires_on: Timestamp,
    /// Digest of the payload of the set before it; absent in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
}

/// Keys of a role, and how many distinct ones of them are needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// How many.
    pub threshold: u32,
    /// Ids of the keys.
    pub keys: BTreeSet<KeyId>,
}

impl KeySetClaim {
    fn public_keys(&self) -> Result<BTreeMap<KeyId, PublicKey>, StatementError> {
        let wrong = |why: String| StatementError::KeySet { why };
        let mut keys = BTreeMap::new();
        for (id, pem) in &self.keys {
            let key = PublicKey::from_pem(pem).map_err(|error| wrong(error.to_string()))?;
            if key.id().to_string() != *id {
                return Err(wrong(format!("the key under {id:?} is {}", key.id())));
            }
            keys.insert(key.id(), key);
        }
        Ok(keys)
    }
}

impl Predicate for KeySetClaim {
    const NAME: &'static str = "urn:isotherm:key-set";
    const MAJOR: u32 = 1;

    fn check(&self, subjects: &[Subject]) -> Result<(), StatementError> {
        let wrong = |why: String| StatementError::KeySet { why };
        text::check("clusterId", &self.cluster_id, NAME_BYTES_MAX)?;
        statement::too_many("keys", self.keys.len(), KEYS_MAX)?;
        let keys = self.public_keys()?;
        if self.version == 0 || (self.version == 1) != self.previous.is_none() {
            return Err(wrong(format!(
                "version {} {} a set before it",
                self.version,
                if self.previous.is_some() { "names" } else { "does not name" }
            )));
        }
        if !self.roles.contains_key(ROOT) {
            return Err(wrong("it has no role root, so no set could follow it".to_owned()));
        }
        for (name, role) in &self.roles {
            if !ROLES.contains(&name.as_str()) {
                return Err(wrong(format!("the role {name:?} is none of {}", ROLES.join(", "))));
            }
            if let Some(stranger) = role.keys.iter().find(|id| !keys.contains_key(id)) {
                return Err(wrong(format!("the role {name} has the key {stranger}, which is not in the set")));
            }
            if role.threshold == 0 || role.threshold as usize > role.keys.len() {
                return Err(wrong(format!(
                    "the role {name} needs {} of {} keys; at least one and at most all can sign",
                    role.threshold,
                    role.keys.len()
                )));
            }
        }
        let of = |name: &str| self.roles.get(name).map(|role| role.keys.clone()).unwrap_or_default();
        if let Some(both) = of(PLANNER).intersection(&of(APPROVER)).next() {
            return Err(wrong(format!("the key {both} plans and approves; two pairs of eyes are two keys")));
        }
        let named: BTreeSet<_> = subjects.iter().map(|subject| (subject.name.clone(), subject.digest)).collect();
        let expected: BTreeSet<_> = keys.keys().map(|id| (id.to_string(), Digest::from_bytes(*id.bytes()))).collect();
        if named != expected {
            return Err(wrong("its subjects are not its keys".to_owned()));
        }
        statement::in_order(("createdOn", self.created_on), ("expiresOn", self.expires_on))
    }
}

/// The statement of a set of keys: its subjects follow from it.
#[must_use]
pub fn statement(claim: KeySetClaim) -> SignedKeySet {
    let ids = claim.keys.keys().filter_map(|id| id.parse::<KeyId>().ok());
    let subjects = ids.map(|id| Subject::new(&id.to_string(), Digest::from_bytes(*id.bytes()))).collect();
    Statement { subjects, predicate: claim }
}

/// A set of keys that was accepted.
#[derive(Debug, Clone)]
pub struct KeySet {
    claim: KeySetClaim,
    keys: BTreeMap<KeyId, PublicKey>,
    payload_digest: Digest,
}

impl KeySet {
    /// Accepts the first set of a cluster: signed by enough of the keys that are trusted already, and by enough of its own
    /// root.
    ///
    /// Errors: those of [`inspect`]; another version than 1; another cluster; expired or from the future.
    pub fn first(envelope: &[u8], trusted: &TrustedKeys, now: Timestamp, cluster_id: &str) -> Result<Self, OpenError> {
        let inspected = inspect::<KeySetClaim>(envelope, trusted)?;
        let version = inspected.statement.predicate.version;
        if version != 1 {
            return Err(OpenError::OtherUse { what: format!("key set {version} is not the first of its cluster") });
        }
        Self::accept(envelope, inspected, now, cluster_id)
    }

    /// Accepts the set after this one: version, predecessor, and signatures by enough of this one's root and of its own.
    /// This one may have expired meanwhile; the new one may not.
    ///
    /// Errors: those of [`inspect`]; a version that is not the next one; another predecessor, cluster or time.
    pub fn next(&self, envelope: &[u8], now: Timestamp) -> Result<Self, OpenError> {
        let root = self.role(ROOT).expect("a checked set has a root");
        let inspected = inspect::<KeySetClaim>(envelope, &root)?;
        let claim = &inspected.statement.predicate;
        if claim.version <= self.claim.version {
            return Err(OpenError::Rollback { counter: claim.version, minimum: self.claim.version + 1 });
        }
        if claim.version != self.claim.version + 1 || claim.previous != Some(self.payload_digest) {
            return Err(OpenError::OtherPredecessor { expected: self.payload_digest, found: claim.previous });
        }
        Self::accept(envelope, inspected, now, &self.claim.cluster_id)
    }

    /// The set that a host accepted before and kept, by the digest of its payload. It may have expired meanwhile: then
    /// nothing counts by it but the set that follows it.
    ///
    /// Errors: another set than the one that was accepted; not signed by enough of its own root.
    pub fn kept(envelope: &[u8], accepted: Digest) -> Result<Self, OpenError> {
        let payload = Envelope::read(envelope)?.payload;
        if Digest::of(&payload) != accepted {
            return Err(OpenError::OtherUse { what: "it is not the set of keys that was accepted here".to_owned() });
        }
        Self::of(envelope, Statement::read(&payload)?.predicate, accepted)
    }

    /// Errors: not signed by enough of its own root: whoever is to name the next set has to show that it can sign.
    fn of(envelope: &[u8], claim: KeySetClaim, payload_digest: Digest) -> Result<Self, OpenError> {
        let keys = claim.public_keys()?;
        let set = Self { claim, keys, payload_digest };
        inspect::<KeySetClaim>(envelope, &set.role(ROOT).expect("a checked set has a root"))?;
        Ok(set)
    }

    fn accept(
        envelope: &[u8],
        inspected: Inspected<KeySetClaim>,
        now: Timestamp,
        cluster_id: &str,
    ) -> Result<Self, OpenError> {
        let set = Self::of(envelope, inspected.statement.predicate, inspected.payload_digest)?;
        same_place("cluster", cluster_id, &set.claim.cluster_id)?;
        if set.claim.created_on > now {
            return Err(OpenError::FromTheFuture { what: "createdOn", claimed: set.claim.created_on, now });
        }
        set.alive(now)?;
        Ok(set)
    }

    fn alive(&self, now: Timestamp) -> Result<(), OpenError> {
        if now >= self.claim.expires_on {
            return Err(OpenError::Expired { expires_on: self.claim.expires_on, now });
        }
        Ok(())
    }

    /// What it says.
    #[must_use]
    pub const fn claim(&self) -> &KeySetClaim {
        &self.claim
    }

    /// Digest of its signed payload.
    #[must_use]
    pub const fn payload_digest(&self) -> Digest {
        self.payload_digest
    }

    /// The keys of a role with its threshold; `None` where the set has no such role.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<TrustedKeys> {
        let role = self.claim.roles.get(name)?;
        let keys = role.keys.iter().filter_map(|id| self.keys.get(id)).cloned();
        Some(TrustedKeys::new(keys, role.threshold as usize).expect("a checked role can reach its threshold"))
    }

    /// All keys whose signatures on manifests count for something.
    ///
    /// Errors: the set has expired, or names neither planners nor approvers.
    pub fn signers(&self, now: Timestamp) -> Result<TrustedKeys, OpenError> {
        self.alive(now)?;
        let signing = [PLANNER, APPROVER].into_iter().filter_map(|name| self.claim.roles.get(name));
        let keys: Vec<_> = signing.flat_map(|role| &role.keys).filter_map(|id| self.keys.get(id)).cloned().collect();
        TrustedKeys::new(keys, 1).map_err(|error: KeyError| OpenError::OtherUse {
            what: format!("the key set names nobody who signs manifests: {error}"),
        })
    }

    /// Errors: fewer distinct signers of planners or approvers than the set asks for.
    pub(crate) fn enough(&self, signers: &BTreeSet<KeyId>) -> Result<(), OpenError> {
        for name in [PLANNER, APPROVER] {
            let Some(role) = self.claim.roles.get(name) else { continue };
            let distinct = role.keys.intersection(signers).count();
            if distinct < role.threshold as usize {
                return Err(OpenError::BelowRole {
                    role: name.to_owned(),
                    distinct,
                    threshold: role.threshold as usize,
                });
            }
        }
        Ok(())
    }
}
