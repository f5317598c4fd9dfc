//! Who there is: principals with their keys, roles and limits, and devices in pools.

use crate::permission::{Permission, Role};
use isotherm_audit::keys::{KeyError, KeyId, PublicKey};
use isotherm_audit::manifest::Nonce;
use isotherm_audit::time::Timestamp;
use isotherm_core::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Schema of a directory.
pub const SCHEMA: &str = "isotherm.access/v1";
/// Most principals of one directory.
pub const PRINCIPALS_MAX: usize = 10_000;
/// Largest directory read.
pub const DIRECTORY_BYTES_MAX: usize = 64 << 20;
const NAME_BYTES_MAX: usize = 256;

/// Requests a principal may make, as a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests in a row.
    pub burst: u32,
    /// Requests that come back in a minute.
    pub per_minute: u32,
}

impl Default for RateLimit {
    /// Sixty at once and ten each second: more than any person or scheduler asks, less than a flood.
    fn default() -> Self {
        Self { burst: 60, per_minute: 600 }
    }
}

/// Somebody: a key and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// A name for people.
    pub name: String,
    /// The public key as SPKI PEM; its id names the principal.
    pub public_key: String,
    /// Its roles.
    pub roles: BTreeSet<Role>,
    /// Permissions beside those of its roles.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub granted: BTreeSet<Permission>,
    /// Permissions taken away, whatever its roles say.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub denied: BTreeSet<Permission>,
    /// The only devices it may use; with `pools` absent too, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<BTreeSet<String>>,
    /// The only pools it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pools: Option<BTreeSet<String>>,
    /// Memory it may hold over all devices, in bytes; absent for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// First second at which it may do nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_on: Option<Timestamp>,
    /// Requests it may make; absent for the usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateLimit>,
    /// When it came in.
    pub created_on: Timestamp,
}

impl Principal {
    /// Somebody with one role and no limit of its own.
    ///
    /// Errors: none in practice; the encoder of the key is fallible.
    pub fn new(name: &str, key: &PublicKey, role: Role, now: Timestamp) -> Result<Self, KeyError> {
        Ok(Self {
            name: name.to_owned(),
            public_key: key.to_pem()?,
            roles: BTreeSet::from([role]),
            granted: BTreeSet::new(),
            denied: BTreeSet::new(),
            devices: None,
            pools: None,
            quota_bytes: None,
            expires_on: None,
            rate: None,
            created_on: now,
        })
    }

    /// Its key.
    ///
    /// Errors: what the directory holds is no key.
    pub fn key(&self) -> Result<PublicKey, KeyError> {
        PublicKey::from_pem(&self.public_key)
    }
}

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Not a directory at all.
    #[error("not a directory of principals: {0}")]
    Json(#[from] serde_json::Error),
    /// Another schema.
    #[error("schema {found:?} is not {SCHEMA:?}")]
    Schema {
        /// What it says.
        found: String,
    },
    /// An entry that cannot be relied on.
    #[error("principal {id}: {why}")]
    Principal {
        /// The key id it stands under.
        id: String,
        /// What is wrong.
        why: String,
    },
    /// A name that cannot be shown or held.
    #[error("the name {name:?} is empty, too long, or has control characters or marks that turn text around")]
    Name {
        /// The name.
        name: String,
    },
    /// A name that reads as the id of something else.
    #[error("the name {name:?} reads as the id of a key or a lease; choose another")]
    Identifier {
        /// The name.
        name: String,
    },
    /// More than a directory holds.
    #[error("{found} principals; the limit is {PRINCIPALS_MAX}")]
    TooMany {
        /// How many there are.
        found: usize,
    },
    /// Nobody could change the rules any more.
    #[error("no administrator would be left; give the role admin to another key first")]
    NoAdministrator,
}

/// Principals, pools, and what was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Kind and version.
    pub schema: String,
    /// Principals by the ids of their keys.
    pub principals: BTreeMap<KeyId, Principal>,
    /// Devices of each pool, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pools: BTreeMap<String, BTreeSet<String>>,
    /// Devices taken out of use.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub cordoned: BTreeSet<String>,
    /// Keys that count for nothing any more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub revoked_keys: BTreeSet<KeyId>,
    /// Leases that were lent here, and when each ends; one may be forgotten from then on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lent: BTreeMap<Nonce, Timestamp>,
    /// Leases that count for nothing any more. One may be forgotten once it has expired.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub revoked_leases: BTreeSet<Nonce>,
}

/// Control characters, line separators, and all marks of direction: with them two names look like one.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(misleads)
}

/// Whether a name could be taken for the id of a key or of a lease.
fn is_identifier(name: &str) -> bool {
    let folded = name.to_ascii_lowercase();
    folded.parse::<KeyId>().is_ok() || folded.parse::<Nonce>().is_ok()
}

impl Directory {
    /// The directory of a host that nobody shares yet: its own key is the administrator.
    ///
    /// Errors: none in practice; the encoder of the key is fallible.
    pub fn first(name: &str, key: &PublicKey, now: Timestamp) -> Result<Self, KeyError> {
        let administrator = Principal::new(name, key, Role::Admin, now)?;
        Ok(Self {
            schema: SCHEMA.to_owned(),
            principals: BTreeMap::from([(key.id(), administrator)]),
            pools: BTreeMap::new(),
            cordoned: BTreeSet::new(),
            revoked_keys: BTreeSet::new(),
            revoked_leases: BTreeSet::new(),
            lent: BTreeMap::new(),
        })
    }

    /// Reads a directory and checks all of it.
    ///
    /// Errors: not a directory, a key that is not the one it stands under, a name that misleads, no administrator.
    pub fn read(bytes: &[u8]) -> Result<Self, DirectoryError> {
        let directory: Self = serde_json::from_slice(bytes)?;
        directory.check()?;
        Ok(directory)
    }

    /// Errors: as [`Directory::read`].
    pub fn check(&self) -> Result<(), DirectoryError> {
        if self.schema != SCHEMA {
            return Err(DirectoryError::Schema { found: self.schema.chars().take(80).collect() });
        }
        if self.principals.len() > PRINCIPALS_MAX {
            return Err(DirectoryError::TooMany { found: self.principals.len() });
        }
        for (id, principal) in &self.principals {
            let wrong = |why: String| DirectoryError::Principal { id: id.to_string(), why };
            let key = principal.key().map_err(|error| wrong(error.to_string()))?;
            if key.id() != *id {
                return Err(wrong(format!("its key is {}", key.id())));
            }
        }
        let named = self.principals.values().map(|principal| &principal.name);
        let lists = self.principals.values().flat_map(|p| p.devices.iter().flatten().chain(p.pools.iter().flatten()));
        let pools = self.pools.iter().flat_map(|(pool, devices)| devices.iter().chain([pool]));
        if let Some(name) = named.chain(lists).chain(pools).chain(&self.cordoned).find(|name| !is_name(name)) {
            return Err(DirectoryError::Name { name: name.chars().take(80).collect() });
        }
        let admin = |(id, principal): (&KeyId, &Principal)| {
            principal.roles.contains(&Role::Admin) && !self.revoked_keys.contains(id)
        };
        if self.principals.iter().any(admin) { Ok(()) } else { Err(DirectoryError::NoAdministrator) }
    }

    /// Errors: a principal whose name is new since `before` and reads as the id of a key or a lease. Older ones stay.
    pub fn check_names(&self, before: &Self) -> Result<(), DirectoryError> {
        let kept = |id, name: &str| before.principals.get(id).is_some_and(|principal| principal.name == name);
        let wrong = self.principals.iter().find(|(id, p)| is_identifier(&p.name) && !kept(*id, &p.name));
        wrong.map_or(Ok(()), |(_, p)| Err(DirectoryError::Identifier { name: p.name.clone() }))
    }

    /// The directory as it is stored.
    ///
    /// Errors: none in practice.
    pub fn write(&self) -> Result<Vec<u8>, DirectoryError> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The key of the principal of that name or key id. A name that two have means neither.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<KeyId> {
        if let Ok(id) = name.parse::<KeyId>() {
            return Some(id);
        }
        let mut named = self.principals.iter().filter(|(_, principal)| principal.name == name);
        match (named.next(), named.next()) {
            (Some((id, _)), None) => Some(*id),
            _ => None,
        }
    }

    /// Pools a device is in.
    pub(crate) fn pools_of<'a>(&'a self, device: &'a str) -> impl Iterator<Item = &'a str> {
        self.pools.iter().filter(move |(_, devices)| devices.contains(device)).map(|(pool, _)| pool.as_str())
    }

    /// Digest of who may do what.
    ///
    /// Errors: none in practice.
    pub fn digest(&self) -> Result<Digest, DirectoryError> {
        Ok(Digest::of(&self.write()?))
    }
}
