//! Rate limits and single use: what a principal asked lately, shared by all processes of a host.
//!
//! Buckets need not outlive a crash, so they are written without waiting for the disk. Nonces must, or a copied request
//! would open a door twice: each is on disk before the use it stands for is accepted.

use crate::directory::RateLimit;
use isotherm_audit::keys::KeyId;
use isotherm_audit::lease::USE_SECONDS_MAX;
use isotherm_audit::manifest::Nonce;
use isotherm_audit::storage;
use isotherm_audit::time::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const BUCKETS_FILE: &str = "rates.json";
const USES_FILE: &str = "uses.json";
const LOCK_FILE: &str = "rates.lock";
/// Uses remembered at once; each is forgotten once it would be too old anyway.
const USES_MAX: usize = 100_000;
const MINUTE_MS: u64 = 60_000;

/// Why a request is not looked at.
#[derive(Debug, thiserror::Error)]
pub enum RateError {
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
    /// Too many requests in too short a time.
    #[error("too many requests; the limit is {} at once and {} a minute, the next counts in {retry_ms} ms", limit.burst, limit.per_minute)]
    Limited {
        /// The limit.
        limit: RateLimit,
        /// When the next is looked at, in milliseconds.
        retry_ms: u64,
    },
    /// The same use twice.
    #[error("the use {nonce} of a lease was made before")]
    Replayed {
        /// Its nonce.
        nonce: Nonce,
    },
    /// The clock went back, so that what was forgotten as too old would count once more.
    #[error(
        "the clock of this host went back from {latest}, and a use made on {made_on} may be a repeated one; wait, or if that clock was wrong remove {path:?}"
    )]
    ClockWentBack {
        /// The latest time at which a use was made here.
        latest: Timestamp,
        /// When this one says it was made.
        made_on: Timestamp,
        /// The file that remembers.
        path: PathBuf,
    },
    /// More uses within a minute than are remembered.
    #[error("{USES_MAX} uses of leases within two minutes; none can be told from a repeated one until some are older")]
    Full,
}

impl RateError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// Requests that are left, in 60,000ths, and when that was so. The fraction makes any rate per minute exact in
/// milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    left: u64,
    at_ms: u64,
}

impl Bucket {
    /// Takes one request out at a time; gives the time until there is one where there is none. A clock that went back
    /// fills nothing.
    fn take(&mut self, limit: RateLimit, now_ms: u64) -> Result<(), u64> {
        let capacity = u64::from(limit.burst) * MINUTE_MS;
        let passed = now_ms.saturating_sub(self.at_ms);
        self.left = self.left.saturating_add(passed.saturating_mul(limit.per_minute.into())).min(capacity);
        self.at_ms = self.at_ms.max(now_ms);
        if self.left >= MINUTE_MS {
            self.left -= MINUTE_MS;
            return Ok(());
        }
        let missing = MINUTE_MS - self.left;
        Err(if limit.per_minute == 0 || limit.burst == 0 {
            u64::MAX
        } else {
            missing.div_ceil(limit.per_minute.into())
        })
    }
}

/// The buckets and nonces of a host.
#[derive(Debug)]
pub struct Rates {
    folder: PathBuf,
    alone: Mutex<()>,
}

impl Rates {
    /// Those in a folder, which is made if absent.
    ///
    /// Errors: a folder that cannot be made.
    pub fn open(folder: &Path) -> Result<Self, RateError> {
        storage::private_folder(folder).map_err(RateError::io("making", folder))?;
        Ok(Self { folder: folder.to_owned(), alone: Mutex::default() })
    }

    fn locked<T>(&self, step: impl FnOnce() -> Result<T, RateError>) -> Result<T, RateError> {
        let _alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.folder.join(LOCK_FILE);
        let lock: File = storage::private_file().open(&path).map_err(RateError::io("opening", &path))?;
        lock.lock().map_err(RateError::io("locking", &path))?;
        step()
    }

    /// What a file holds; nothing where it is absent. A damaged one counts as `damaged`.
    fn read<T: DeserializeOwned + Default>(&self, name: &str) -> Result<Option<T>, RateError> {
        let path = self.folder.join(name);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(T::default())),
            Err(error) => Err(RateError::io("reading", &path)(error)),
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        }
    }

    /// Counts a request of a principal.
    ///
    /// Errors: too many, or a file system that refuses.
    pub fn take(&self, principal: KeyId, limit: RateLimit, now_ms: u64) -> Result<(), RateError> {
        self.locked(|| {
            // A crash may leave half a file, which begins anew: at worst somebody has a full bucket once more.
            let mut buckets: BTreeMap<KeyId, Bucket> = self.read(BUCKETS_FILE)?.unwrap_or_default();
            let full = Bucket { left: u64::from(limit.burst) * MINUTE_MS, at_ms: now_ms };
            let taken = buckets.entry(principal).or_insert(full).take(limit, now_ms);
            let path = self.folder.join(BUCKETS_FILE);
            let bytes = serde_json::to_vec(&buckets).expect("integers are JSON");
            let written =
                storage::private_file().truncate(true).open(&path).and_then(|mut file| file.write_all(&bytes));
            written.map_err(RateError::io("writing", &path))?;
            taken.map_err(|retry_ms| RateError::Limited { limit, retry_ms })
        })
    }

    fn uses(&self) -> Result<Uses, RateError> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged; remove it in two minutes");
        let path = self.folder.join(USES_FILE);
        self.read(USES_FILE)?.ok_or_else(damaged).map_err(RateError::io("reading", &path))
    }

    /// Whether uses of a holder's lease could be made now; nothing is remembered yet.
    ///
    /// Errors: one was made before, or may have been; a file system that refuses.
    pub fn fresh(&self, holder: KeyId, made: &[(Nonce, Timestamp)]) -> Result<(), RateError> {
        self.locked(|| {
            let uses = self.uses()?;
            made.iter().try_for_each(|(nonce, made_on)| uses.refuse_repeated(holder, *nonce, *made_on, &self.folder))
        })
    }

    /// Remembers that uses of a holder's lease were made, all or none. The caller has opened them, so each is at most
    /// [`USE_SECONDS_MAX`] old.
    ///
    /// Errors: one was made before, or a file system that refuses. Then none counts.
    pub fn once(&self, holder: KeyId, made: &[(Nonce, Timestamp)], now: Timestamp) -> Result<(), RateError> {
        self.locked(|| {
            let mut uses = self.uses()?;
            // The clock that judges uses too old is the one that forgets them.
            uses.made.retain(|_, until| *until > now);
            for (nonce, made_on) in made {
                uses.refuse_repeated(holder, *nonce, *made_on, &self.folder)?;
                if uses.made.len() >= USES_MAX {
                    return Err(RateError::Full);
                }
                uses.made.insert(key(holder, *nonce), made_on.later_by(2 * USE_SECONDS_MAX));
            }
            uses.latest = uses.latest.max(Some(now));
            let bytes = serde_json::to_vec(&uses).expect("text is JSON");
            let path = self.folder.join(USES_FILE);
            storage::replace(&self.folder, USES_FILE, &bytes).map_err(RateError::io("writing", &path))
        })
    }
}

/// The uses of leases that were made lately.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Uses {
    /// The latest time at which some were forgotten: what would have been forgotten by then is not accepted any more.
    latest: Option<Timestamp>,
    /// Until when each is remembered.
    made: BTreeMap<String, Timestamp>,
}

/// A use by its holder and nonce: nobody spends a nonce of somebody else.
fn key(holder: KeyId, nonce: Nonce) -> String {
    format!("{holder} {nonce}")
}

impl Uses {
    fn refuse_repeated(&self, holder: KeyId, nonce: Nonce, made_on: Timestamp, folder: &Path) -> Result<(), RateError> {
        if self.made.contains_key(&key(holder, nonce)) {
            return Err(RateError::Replayed { nonce });
        }
        match self.latest {
            Some(latest) if made_on.later_by(2 * USE_SECONDS_MAX) <= latest => {
                Err(RateError::ClockWentBack { latest, made_on, path: folder.join(USES_FILE) })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit { burst: 3, per_minute: 60 };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket { left: 3 * MINUTE_MS, at_ms: 1000 };
        for _ in 0..3 {
            assert_eq!(bucket.take(LIMIT, 1000), Ok(()));
        }
        assert_eq!(bucket.take(LIMIT, 1000), Err(1000));
        assert_eq!(bucket.take(LIMIT, 1999), Err(1));
        assert_eq!(bucket.take(LIMIT, 2000), Ok(()));
        // A clock that goes back gives nothing, and a long pause no more than the burst.
        assert_eq!(bucket.take(LIMIT, 0), Err(1000));
        let given = (0..10).filter(|_| bucket.take(LIMIT, 1_000_000).is_ok()).count();
        assert_eq!(given, 3);
    }

    #[test]
    fn over_any_minute_no_more_come_through_than_burst_and_rate() {
        let mut bucket = Bucket { left: 3 * MINUTE_MS, at_ms: 0 };
        let given = (0..60_000).filter(|ms| bucket.take(LIMIT, *ms).is_ok()).count();
        assert!((62..=63).contains(&given), "{given}");
    }

    #[test]
    fn extreme_limits_and_times_do_not_overflow() {
        let most = RateLimit { burst: u32::MAX, per_minute: u32::MAX };
        let mut bucket = Bucket { left: u64::MAX, at_ms: 0 };
        assert_eq!(bucket.take(most, u64::MAX), Ok(()));
        let none = RateLimit { burst: 0, per_minute: 0 };
        assert_eq!(bucket.take(none, u64::MAX), Err(u64::MAX));
    }
}
