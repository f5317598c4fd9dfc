//! The gate: the one way to a device. A request is counted, decided, booked and logged, in this order; what was not logged
//! was not allowed.

mod stood;

use crate::authority::{Authority, Decision, POLICY_BYTES_MAX, PolicyError, Question, SYSTEM};
use crate::directory::{DIRECTORY_BYTES_MAX, Directory, DirectoryError, RateLimit};
use crate::ledger::{Booking, Ledger, LedgerError, Reservation};
use crate::permission::Permission;
use crate::rates::{RateError, Rates};
use crate::record::{event, whole};
use isotherm_audit::OpenError;
use isotherm_audit::Verified;
use isotherm_audit::keys::{KeyError, KeyId, PublicKey};
use isotherm_audit::lease::{SignedLease, open_lease_use};
use isotherm_audit::log::{Event, EventKind, EventResult};
use isotherm_audit::manifest::Nonce;
use isotherm_audit::storage;
use isotherm_audit::time::Timestamp;
use isotherm_core::digest::Digest;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use stood::Stood;

/// File of principals and pools inside an access folder.
pub const DIRECTORY_FILE: &str = "principals.json";
/// File of the installation's own policies inside an access folder.
pub const SITE_POLICIES_FILE: &str = "site.cedar";
const LOCK_FILE: &str = "access.lock";
/// Time between reserving memory and taking it.
const RESERVATION_SECONDS: u64 = 120;
/// Most uses of a lease in one request; each takes a signature to verify.
const USES_MAX: usize = 4096;

/// Why the gate cannot be used, or does not open.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
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
    /// Larger than such a file is.
    #[error("{path:?} is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// Nobody is known here yet.
    #[error("there are no principals in {path:?} yet")]
    NoDirectory {
        /// The folder.
        path: PathBuf,
    },
    /// The principals cannot be relied on.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The policies cannot be relied on.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A key of the directory cannot be read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The quota ledger refused or failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Too many requests, or one twice.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// The use of a lease does not verify.
    #[error("the use of the lease does not verify: {0}")]
    Use(#[source] Box<OpenError>),
    /// A request for no permission or no device: nothing would be decided, so nothing is let in.
    #[error("the request names no permission or no device")]
    Nothing,
    /// More things at once than a signed request may ask for.
    #[error("{found} uses of a lease in one request; the limit is {USES_MAX}")]
    TooManyUses {
        /// How many there are.
        found: usize,
    },
    /// Refused by policy.
    #[error("{permission} on {device} is denied: {}", decision.because())]
    Denied {
        /// The permission.
        permission: Permission,
        /// The device.
        device: String,
        /// Why.
        decision: Decision,
    },
    /// The change would end the rights of the one who makes it, and nobody here could take it back.
    #[error("with this change {permission} would be denied to {principal}, who makes it{}: {}",
        if *later { " (not now, but in time)" } else { "" }, decision.because())]
    LockedOut {
        /// What would be denied.
        permission: Permission,
        /// Who makes the change.
        principal: KeyId,
        /// Whether only a later day would show it.
        later: bool,
        /// Why it would be denied.
        decision: Decision,
    },
    /// The decision could not be written down, so it does not count.
    #[error("the decision was not logged, so nothing is allowed: {0}")]
    NotLogged(String),
}

impl GateError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// Whether somebody was refused, rather than something broken.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Denied { .. }
                | Self::Nothing
                | Self::TooManyUses { .. }
                | Self::Ledger(LedgerError::Exceeded { .. } | LedgerError::LeaseExceeded { .. })
                | Self::Rate(
                    RateError::Limited { .. }
                        | RateError::Replayed { .. }
                        | RateError::ClockWentBack { .. }
                        | RateError::Full
                )
                | Self::Use(_)
        )
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Who.
    pub principal: KeyId,
    /// What: each permission on each device is decided by itself.
    pub permissions: &'a [Permission],
    /// On what, and how much memory of it.
    pub devices: &'a [(&'a str, u64)],
    /// The lease it comes under, opened, and the signed uses of it: one for each permission on each device, in that order.
    pub lease: Option<(&'a Verified<SignedLease>, &'a [Vec<u8>])>,
    /// The server's clock.
    pub now: Timestamp,
    /// The server's clock in milliseconds, for rates.
    pub now_ms: u64,
    /// The process or job it is for.
    pub owner: &'a str,
    /// The files it is about, by their role, for the log.
    pub subjects: &'a [(&'a str, Digest)],
}

impl<'a> Request<'a> {
    /// Each permission on each device, and the memory that is asked for by it: none unless memory is to be taken.
    pub fn asked(&self) -> impl Iterator<Item = (Permission, &'a str, u64)> + use<'a> {
        let devices = self.devices;
        self.permissions.iter().flat_map(move |permission| {
            let takes = *permission == Permission::MemoryAllocate;
            devices.iter().map(move |(device, bytes)| (*permission, *device, if takes { *bytes } else { 0 }))
        })
    }
}

/// A request that was let in. Memory it reserved is held until [`Gate::leave`].
#[derive(Debug)]
#[must_use = "memory that was reserved has to be committed and released"]
pub struct Admission {
    /// What was reserved, where memory was asked for.
    pub booking: Option<Booking>,
    /// Digest of the rules that let it in.
    pub policy_digest: Digest,
    principal: KeyId,
    bytes: u64,
}

/// Writes events down before the gate goes on.
pub type Record<'a> = &'a mut dyn FnMut(Vec<Event>) -> Result<(), String>;

/// When, how long and which files the rules on disk were: they are read again when that changes.
type Stamp = [Option<(SystemTime, u64, u64)>; 2];

/// The gate of a host.
pub struct Gate {
    folder: PathBuf,
    authority: Arc<Authority>,
    stamp: Stamp,
    ledger: Ledger,
    rates: Rates,
    stood: Option<Stood>,
}

fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, GateError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(GateError::io("opening", path))?,
    };
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(GateError::io("reading", path))?;
    if bytes.len() > limit {
        return Err(GateError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(Some(bytes))
}

fn stamp(folder: &Path) -> Stamp {
    [DIRECTORY_FILE, SITE_POLICIES_FILE].map(|name| {
        let metadata = fs::metadata(folder.join(name)).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), file_number(&metadata)))
    })
}

/// Each change is a new file, so its number tells two changes within one tick of the clock apart.
#[cfg(unix)]
fn file_number(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn file_number(_: &fs::Metadata) -> u64 {
    0
}

fn load(folder: &Path) -> Result<Authority, GateError> {
    let directory = read(&folder.join(DIRECTORY_FILE), DIRECTORY_BYTES_MAX)?;
    let directory = directory.ok_or_else(|| GateError::NoDirectory { path: folder.to_owned() })?;
    let site = read(&folder.join(SITE_POLICIES_FILE), POLICY_BYTES_MAX)?.unwrap_or_default();
    let site = String::from_utf8(site).map_err(|_| PolicyError::Parse("they are no UTF-8 text".to_owned()))?;
    Ok(Authority::new(Directory::read(&directory)?, &site)?)
}

impl Gate {
    /// The gate whose rules and books are in a folder.
    ///
    /// Errors: no principals yet; rules that cannot be relied on; damaged books.
    pub fn open(folder: &Path) -> Result<Self, GateError> {
        let stamp = stamp(folder);
        let authority = Arc::new(load(folder)?);
        Ok(Self {
            folder: folder.to_owned(),
            authority,
            stamp,
            ledger: Ledger::open(folder)?,
            rates: Rates::open(folder)?,
            stood: None,
        })
    }

    /// Begins a folder with a directory where there is none. Gives whether it was begun now.
    ///
    /// Errors: a directory that cannot be relied on, or a file system that refuses.
    pub fn begin(folder: &Path, first: &Directory) -> Result<bool, GateError> {
        first.check()?;
        storage::private_folder(folder).map_err(GateError::io("making", folder))?;
        match storage::write_new(folder, DIRECTORY_FILE, &first.write()?) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(GateError::io("writing the principals in", folder)(error)),
        }
    }

    /// The rules in force: read again where somebody changed them, so that a revocation counts at once.
    ///
    /// Errors: rules that cannot be relied on. Nothing is allowed then.
    pub fn rules(&mut self) -> Result<Arc<Authority>, GateError> {
        let now = stamp(&self.folder);
        if now != self.stamp {
            self.authority = Arc::new(load(&self.folder)?);
            self.stamp = now;
        }
        Ok(Arc::clone(&self.authority))
    }

    /// The books.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Lets a request in, or says why not. Every decision is recorded before this answers; memory is reserved at once.
    ///
    /// Errors: refused (see [`GateError::is_refusal`]), or something broken. Nothing is held then.
    pub fn enter(&mut self, request: &Request<'_>, record: Record<'_>) -> Result<Admission, GateError> {
        let rules = self.rules()?;
        if let Err(error) = self.count(&rules, request) {
            let kind = match &error {
                GateError::Rate(RateError::Limited { .. } | RateError::Full) => EventKind::RateLimited,
                _ => EventKind::SecurityAccessDenied,
            };
            self.refuse(request, kind, &error, record)?;
            return Err(error);
        }
        let bytes = request.devices.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let used = self.ledger.used(request.principal)?;
        let mut events = Vec::new();
        let mut denied = None;
        for (permission, device, asked) in request.asked() {
            let takes = permission == Permission::MemoryAllocate;
            let question = Question {
                principal: request.principal,
                permission,
                device,
                now: request.now,
                used_bytes: used,
                // Over all devices: a limit of a request is not stretched by cutting it into pieces.
                request_bytes: if takes { bytes } else { 0 },
                lease: request.lease.map(|(lease, _)| &lease.predicate),
            };
            let decision = rules.decide(&question);
            events.push(event(request, permission, device, asked, &decision));
            if !decision.allowed && denied.is_none() {
                denied = Some(GateError::Denied { permission, device: device.to_owned(), decision });
            }
        }
        if let Some(denied) = denied {
            record(events).map_err(GateError::NotLogged)?;
            return Err(denied);
        }
        let takes = request.permissions.contains(&Permission::MemoryAllocate) && bytes > 0;
        let booking = if takes { Some(self.reserve(&rules, request, bytes, record)?) } else { None };
        if let Err(error) = record(events) {
            if let Some(booking) = booking {
                self.ledger.release(booking)?;
            }
            return Err(GateError::NotLogged(error));
        }
        Ok(Admission { booking, policy_digest: rules.digest(), principal: request.principal, bytes })
    }

    /// Counts a request against its principal's rate, and the uses of a lease against being made twice.
    ///
    /// Whoever has a copy of a lease, or of uses that were made, must not use up its holder's requests. So the uses are
    /// opened before anything is counted, and those that do not hold are counted by the lease.
    fn count(&self, rules: &Authority, request: &Request<'_>) -> Result<(), GateError> {
        if request.permissions.is_empty() || request.devices.is_empty() {
            return Err(GateError::Nothing);
        }
        let Some(principal) = rules.directory().principals.get(&request.principal) else { return Ok(()) };
        let limit = principal.rate.unwrap_or_default();
        let Some((lease, uses)) = request.lease else {
            return Ok(self.rates.take(request.principal, limit, request.now_ms)?);
        };
        let opened = self.opened(&principal.key()?, request, lease, uses);
        let made = match opened {
            Ok(made) => made,
            Err(error) => {
                let strangers = lease.payload_digest().hex().parse().expect("a digest has the digits of a key id");
                self.rates.take(strangers, RateLimit::default(), request.now_ms)?;
                return Err(error);
            }
        };
        self.rates.take(request.principal, limit, request.now_ms)?;
        // Only what was asked for as it was signed is spent.
        Ok(self.rates.once(request.principal, &made, request.now)?)
    }

    /// The uses of a lease that came with a request, as far as they hold and were not made before.
    fn opened(
        &self,
        holder: &PublicKey,
        request: &Request<'_>,
        lease: &Verified<SignedLease>,
        uses: &[Vec<u8>],
    ) -> Result<Vec<(Nonce, Timestamp)>, GateError> {
        let refused = |error: OpenError| GateError::Use(Box::new(error));
        let same = |what: &str| refused(OpenError::OtherUse { what: what.to_owned() });
        if uses.len() > USES_MAX {
            return Err(GateError::TooManyUses { found: uses.len() });
        }
        let asked = request.asked().count();
        if uses.len() != asked {
            return Err(same(&format!("{} uses were signed where {asked} things are asked for", uses.len())));
        }
        let mut made = Vec::new();
        let mut nonces = BTreeSet::new();
        for (using, (permission, device, bytes)) in uses.iter().zip(request.asked()) {
            let opened = open_lease_use(using, lease, holder, request.now).map_err(refused)?;
            let using = &opened.predicate;
            if permission.name() != using.operation {
                return Err(same("it was signed for another operation"));
            }
            if device != using.device || using.memory_bytes.unwrap_or(0) != bytes {
                return Err(same("it was signed for another device or amount of memory"));
            }
            if !nonces.insert(using.nonce) {
                return Err(RateError::Replayed { nonce: using.nonce }.into());
            }
            made.push((using.nonce, using.made_on));
        }
        self.rates.fresh(request.principal, &made)?;
        Ok(made)
    }

    fn reserve(
        &self,
        rules: &Authority,
        request: &Request<'_>,
        bytes: u64,
        record: Record<'_>,
    ) -> Result<Booking, GateError> {
        let limit = rules.directory().principals.get(&request.principal).and_then(|found| found.quota_bytes);
        let until = request.now.later_by(RESERVATION_SECONDS);
        let (principal, now, owner) = (request.principal, request.now, request.owner);
        let lease = request.lease.map(|(lease, _)| (lease.predicate.lease_id, lease.predicate.memory_bytes_max));
        match self.ledger.book_in(&Reservation { principal, bytes, limit, lease, now, until, owner }) {
            Ok(booking) => Ok(booking),
            Err(error @ (LedgerError::Exceeded { .. } | LedgerError::LeaseExceeded { .. })) => {
                let error = error.into();
                self.refuse(request, EventKind::SecurityQuotaExceeded, &error, record)?;
                Err(error)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn refuse(
        &self,
        request: &Request<'_>,
        kind: EventKind,
        error: &GateError,
        record: Record<'_>,
    ) -> Result<(), GateError> {
        let mut refused = Event::new(kind, request.now, request.principal).ended(EventResult::Denied);
        refused.operation = request.permissions.first().map(|permission| permission.name().to_owned());
        refused.device = request.devices.first().map(|(device, _)| (*device).to_owned());
        refused.error = Some(error.to_string());
        record(vec![refused]).map_err(GateError::NotLogged)
    }

    /// Says that the memory of an admission was taken.
    ///
    /// Errors: the reservation ran out, or a file system that refuses.
    pub fn commit(&self, admission: &Admission, now: Timestamp) -> Result<(), GateError> {
        admission.booking.map_or(Ok(()), |booking| Ok(self.ledger.commit(booking, now)?))
    }

    /// Gives back what an admission holds, and records it.
    ///
    /// Errors: not held any more, or a file system that refuses.
    #[allow(clippy::needless_pass_by_value, reason = "an admission ends here, and nobody may use it again")]
    pub fn leave(&self, admission: Admission, now: Timestamp, record: Record<'_>) -> Result<(), GateError> {
        let Admission { booking, principal, bytes, .. } = admission;
        let Some(booking) = booking else { return Ok(()) };
        self.ledger.release(booking)?;
        let mut released = Event::new(EventKind::MemoryDeallocate, now, principal).ended(EventResult::Success);
        released.operation = Some(Permission::MemoryDeallocate.name().to_owned());
        released.metadata.insert("bytes".to_owned(), whole(bytes));
        record(vec![released]).map_err(GateError::NotLogged)
    }

    /// Whether a principal, or the lease it uses, still counts: asked between steps of a long job. Policies know time in
    /// seconds, so that as long as the rules are the same, what was allowed is asked of them once a second only.
    ///
    /// Errors: rules that cannot be relied on.
    pub fn still_allowed(&mut self, request: &Request<'_>) -> Result<Option<Decision>, GateError> {
        let rules = self.rules()?;
        if self.stood.as_ref().is_some_and(|stood| stood.is_same(&rules, request)) {
            return Ok(None);
        }
        for (permission, device, _) in request.asked() {
            let question = Question {
                principal: request.principal,
                permission,
                device,
                now: request.now,
                used_bytes: 0,
                request_bytes: 0,
                lease: request.lease.map(|(lease, _)| &lease.predicate),
            };
            let decision = rules.decide(&question);
            if !decision.allowed {
                self.stood = None;
                return Ok(Some(decision));
            }
        }
        self.stood = Some(Stood::new(rules, request));
        Ok(None)
    }

    /// Changes the rules in the name of an administrator: `change` gets the directory and the installation's policies.
    /// Both are checked as a whole before either is written, and recorded first. Commands make changes in the name of
    /// the host's own identity, so a change after which that one could make no more is refused: with it nobody on this host
    /// could take the change back.
    ///
    /// Errors: no administrator; rules that could not be relied on afterwards, cannot be evaluated, or deny
    /// administration to `principal` now or at the end of time where the present ones do not; a file system that
    /// refuses.
    pub fn administer(
        &mut self,
        principal: KeyId,
        now: Timestamp,
        events: Vec<Event>,
        record: Record<'_>,
        change: impl FnOnce(&mut Directory, &mut String),
    ) -> Result<(), GateError> {
        let path = self.folder.join(LOCK_FILE);
        let lock = storage::private_file().open(&path);
        let lock = lock.map_err(GateError::io("opening", &path))?;
        lock.lock().map_err(GateError::io("locking", &path))?;
        let rules = self.rules()?;
        let question = Question {
            principal,
            permission: Permission::AdminFullAccess,
            device: SYSTEM,
            now,
            used_bytes: 0,
            request_bytes: 0,
            lease: None,
        };
        let decision = rules.decide(&question);
        if !decision.allowed {
            let permission = question.permission;
            let error = GateError::Denied { permission, device: SYSTEM.to_owned(), decision };
            let mut refused = Event::new(EventKind::SecurityAccessDenied, now, principal).ended(EventResult::Denied);
            refused.operation = Some(permission.name().to_owned());
            refused.error = Some(error.to_string());
            record(vec![refused]).map_err(GateError::NotLogged)?;
            return Err(error);
        }
        let mut directory = rules.directory().clone();
        let site = read(&self.folder.join(SITE_POLICIES_FILE), POLICY_BYTES_MAX)?.unwrap_or_default();
        let before = String::from_utf8(site).map_err(|_| PolicyError::Parse("they are no UTF-8 text".to_owned()))?;
        let mut site = before.clone();
        change(&mut directory, &mut site);
        directory.check()?;
        directory.check_names(rules.directory())?;
        let new = Authority::new(directory.clone(), &site)?;
        new.trial(principal, now)?;
        for (now, later) in [(now, false), (now.later_by(u64::MAX), true)] {
            let question = Question { now, ..question.clone() };
            let decision = new.decide(&question);
            // What was so before is not this change's doing, and some change has to mend it.
            if !decision.allowed && rules.decide(&question).allowed {
                return Err(GateError::LockedOut { permission: question.permission, principal, later, decision });
            }
        }
        record(events).map_err(GateError::NotLogged)?;
        let folder = &self.folder;
        if site != before {
            storage::replace(folder, SITE_POLICIES_FILE, site.as_bytes())
                .map_err(GateError::io("writing the policies in", folder))?;
        }
        storage::replace(folder, DIRECTORY_FILE, &directory.write()?)
            .map_err(GateError::io("writing the principals in", folder))?;
        // Whatever the file system's clock says: the next decision reads what was written.
        self.stamp = [None, None];
        self.rules()?;
        Ok(())
    }
}
