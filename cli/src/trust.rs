//! Identity, clock and log of this host, and the sealing of what commands made.

use crate::failure::{Code, Failure};
use crate::files;
use crate::ui::Ui;
use isotherm_audit::figures::{self, Figures};
use isotherm_audit::keys::{Identity, PublicKey, Seed, TrustedKeys};
use isotherm_audit::keyset::KeySet;
use isotherm_audit::log::{
    CHECKPOINT_FILE, Detail, Event, EventKind, Log, LogError, LogView, OLD_ENTRIES_FILE, OnLock, Severity, TILE_FOLDER,
};
use isotherm_audit::manifest::{CertificateFigures, ExecutionManifest, LogPosition, Manifest, Nonce};
use isotherm_audit::time::Timestamp;
use isotherm_audit::{Expectations, Inspected, OpenError, Verified};
use isotherm_core::digest::Digest;
use isotherm_core::plan::{Certificate, Plan};
use isotherm_core::trace::Statistic;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// The cluster of a host that never joined one.
pub const LOCAL_CLUSTER: &str = "local";

/// The present second, from the system's clock.
pub fn now() -> Result<Timestamp, Failure> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Timestamp::from_unix_seconds(seconds)
        .map_err(|e| Failure::io(format!("the system clock is off: {e}")).remedy("set the clock"))
}

/// This host's name, as the kernel has it.
pub fn host_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Folder of this host's keys.
///
/// Errors: no home, or one in which others could put another folder in the place of this one.
pub fn key_directory() -> Result<PathBuf, Failure> {
    let home = files::home()?;
    match isotherm_audit::storage::refuse_shared(&home) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(Failure::new(Code::Verification, format!("the home {}: {error}", home.display())))
        }
        // What is not there yet is made private; what cannot be looked at fails where it is used.
        _ => Ok(home.join("keys")),
    }
}

/// This host's identity, made on first use together with the rules of who may do what, with one message for both.
pub fn identity(ui: &Ui) -> Result<Identity, Failure> {
    let directory = key_directory()?;
    let loaded = Identity::load_or_create(&directory, Seed::draw).map_err(|e| Failure::io(e.to_string()))?;
    let begun = crate::access::begin(&loaded.identity)?;
    if loaded.created || begun {
        ui.note(format!(
            "note: {} signing identity {} (kept in {}) is the administrator of this host; `isotherm access` shares it",
            if loaded.created { "the new" } else { "the" },
            loaded.identity.id(),
            directory.display()
        ));
    }
    if loaded.created {
        record(&loaded.identity, EventKind::KeysCreated, Severity::Info, Note::default())?;
    }
    Ok(loaded.identity)
}

/// File in the folder of keys with the least number of keys that must have signed.
pub const THRESHOLD_FILE: &str = "threshold";

/// Distinct keys that must have signed where `asked` were asked for: never less than the host's own minimum.
///
/// Errors: the file of the minimum cannot be read or holds no number of keys. Then nothing counts as signed.
pub fn threshold(asked: u32) -> Result<u32, Failure> {
    // Without a home there are no keys of this host, and no rule about them.
    if files::home().is_err() {
        return Ok(asked);
    }
    let path = key_directory()?.join(THRESHOLD_FILE);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(asked),
        read => read.map_err(|e| Failure::file(&path, e))?,
    };
    let least = text.trim().parse::<u32>().ok().filter(|least| *least > 0).ok_or_else(|| {
        Failure::new(Code::Verification, format!("{} holds no number of keys", path.display()))
            .remedy("set it with `isotherm keys threshold N`")
    })?;
    // Zero is refused where it is used, whatever the minimum.
    Ok(if asked == 0 { 0 } else { asked.max(least) })
}

/// Whose signatures count here: the keys beside this host's, and over them a set of keys where one is in force.
pub struct Trusted {
    /// The keys, and how many of them have to have signed.
    pub keys: TrustedKeys,
    /// The set in force, which says by role who signs manifests.
    pub set: Option<KeySet>,
}

impl Trusted {
    /// Keys that were named for this once.
    pub const fn of(keys: TrustedKeys) -> Self {
        Self { keys, set: None }
    }

    /// Verifies the signatures of a manifest, for showing it. Under a set of keys enough of each role have to have signed
    /// and, where more were asked for, so many in all.
    pub fn inspect(&self, envelope: &[u8], now: Timestamp) -> Result<Inspected<ExecutionManifest>, OpenError> {
        let Some(set) = &self.set else { return isotherm_audit::inspect(envelope, &self.keys) };
        let inspected = isotherm_audit::inspect_by_roles(envelope, set, now)?;
        let (distinct, threshold) = (inspected.signers.len(), self.keys.threshold());
        if distinct < threshold {
            return Err(OpenError::BelowThreshold { distinct, threshold, strangers: Vec::new() });
        }
        Ok(inspected)
    }

    /// Opens a manifest for using it.
    pub fn open(
        &self,
        envelope: &[u8],
        now: Timestamp,
        expected: &Expectations,
    ) -> Result<Verified<Manifest>, OpenError> {
        let Some(set) = &self.set else { return isotherm_audit::open(envelope, &self.keys, now, expected) };
        self.inspect(envelope, now)?;
        isotherm_audit::open_by_roles(envelope, set, now, expected)
    }
}

/// Whose signatures count here, and how many of them have to have signed: at least the host's minimum.
pub fn trusted(threshold: u32) -> Result<Trusted, Failure> {
    Ok(Trusted { keys: believed(self::threshold(threshold)?)?, set: crate::keyset::in_force()? })
}

/// The keys whose signatures count here: this host's own and those put beside it.
pub fn believed(threshold: u32) -> Result<TrustedKeys, Failure> {
    TrustedKeys::load(&key_directory()?, threshold as usize).map_err(|e| {
        Failure::new(Code::Verification, e.to_string())
            .remedy("an identity is made by the first `isotherm seal`; or name public keys with --key")
    })
}

/// Ids of this host's keys as a node of its cluster: the one it has, and those it had before and still believes, so that
/// what they sealed goes on running where a rotation said so.
pub fn nodes() -> Result<BTreeSet<String>, Failure> {
    let Some(identity) = crate::commands::audit::identity_if_any()? else { return Ok(BTreeSet::new()) };
    let believed = believed(1)?;
    let former = former_keys()?.into_iter().map(|key| key.id()).filter(|id| believed.get(*id).is_some());
    Ok(former.chain([identity.id()]).map(|id| id.to_string()).collect())
}

/// The public keys that this host had before its present one.
pub fn former_keys() -> Result<Vec<PublicKey>, Failure> {
    isotherm_audit::keyring::retired(&key_directory()?).map_err(|e| Failure::new(Code::Verification, e.to_string()))
}

/// Sixteen random bytes.
pub fn nonce() -> Result<Nonce, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Failure::io(format!("the system gives no random bytes: {e}")))?;
    Ok(Nonce(bytes))
}

/// Metrics of a prediction or a run as the integers that manifests hold: means under the plain names, percentiles
/// with their rank before the unit.
pub fn figures(metrics: &BTreeMap<String, Statistic>) -> Result<Figures, Failure> {
    let mut set = Figures::default();
    for (metric, statistic) in metrics {
        let Some((name, scale)) = integer_name(metric) else { continue };
        let (stem, unit) = name.rsplit_once('_').unwrap_or((name, ""));
        let spread = [("", statistic.mean), ("p50_", statistic.p50), ("p90_", statistic.p90), ("p99_", statistic.p99)];
        for (rank, value) in spread {
            let full = if rank.is_empty() { name.to_owned() } else { format!("{stem}_{rank}{unit}") };
            set.set_scaled(&full, value, scale).map_err(|e| Failure::io(e.to_string()))?;
        }
        // The interval of the mean over independent runs, where there were several.
        if let Some(half) = statistic.ci95 {
            for (end, value) in [("ci95_low", statistic.mean - half), ("ci95_high", statistic.mean + half)] {
                let full = format!("{stem}_{end}_{unit}");
                set.set_scaled(&full, value, scale).map_err(|e| Failure::io(e.to_string()))?;
            }
        }
    }
    Ok(set)
}

/// What a metric is called in a manifest, and how many of its units make one of the metric's.
pub fn integer_name(metric: &str) -> Option<(&'static str, f64)> {
    match metric {
        "ttft_seconds" => Some((figures::TTFT_NS, 1e9)),
        "tpot_seconds" => Some((figures::TPOT_NS, 1e9)),
        "e2e_seconds" => Some((figures::E2E_NS, 1e9)),
        "tokens_per_second" => Some((figures::TOKENS_PER_SECOND_MILLI, 1e3)),
        _ => None,
    }
}

/// A plan's certificate in integers.
pub fn certificate_figures(plan: &Plan, certificate: &Certificate) -> Result<CertificateFigures, Failure> {
    CertificateFigures::new(plan.status, &plan.objective_name, &plan.unit, certificate)
        .map_err(|e| Failure::io(format!("the certificate holds what no manifest can state: {e}")))
}

/// Name of the logs of earlier versions, and the beginning of every name since.
const LOG_ORIGIN: &str = "isotherm.local/log";
/// Digits of the first key's id in the name of a log.
const ORIGIN_DIGITS: usize = 16;

/// Name of this host's log in its checkpoints: that of the log that is there, and for a new one a name with the first
/// digits of its first key's id, so that whoever watches two hosts tells their logs apart. It stays when the key changes.
///
/// Errors: a log with a name that no host gives.
pub fn log_origin(identity: &Identity) -> Result<String, Failure> {
    let path = log_directory()?.join(CHECKPOINT_FILE);
    let note = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(format!("{LOG_ORIGIN}/{}", &identity.id().to_string()[..ORIGIN_DIGITS]));
        }
        read => read.map_err(|e| Failure::file(&path, e))?,
    };
    // The signature covers the name, so a name that somebody wrote there opens nothing.
    let name = note.lines().next().unwrap_or_default();
    let own = name == LOG_ORIGIN || name.strip_prefix(LOG_ORIGIN).is_some_and(|rest| rest.starts_with('/'));
    if own {
        return Ok(name.to_owned());
    }
    Err(Failure::new(Code::Verification, format!("{} names no log of isotherm", path.display()))
        .remedy("keep a copy of its folder, find out who changed it, and move it away to begin a new log"))
}

/// Folder of this host's log.
pub fn log_directory() -> Result<PathBuf, Failure> {
    files::home().map(|home| home.join("log"))
}

/// Something to write to the log.
#[derive(Debug, Default)]
pub struct Note {
    /// Digests of the files it is about, by their role.
    pub subjects: BTreeMap<String, Digest>,
    /// Further details by name.
    pub details: BTreeMap<String, Detail>,
}

impl Note {
    /// The same note about one more file.
    #[must_use]
    pub fn about(mut self, role: &str, digest: Digest) -> Self {
        self.subjects.insert(role.to_owned(), digest);
        self
    }

    /// The same note with one more detail.
    #[must_use]
    pub fn with(mut self, name: &str, detail: impl Into<Detail>) -> Self {
        self.details.insert(name.to_owned(), detail.into());
        self
    }
}

/// Appends an event to this host's log; when this returns it is on disk. Gives the log's state after it.
pub fn record(identity: &Identity, kind: EventKind, severity: Severity, note: Note) -> Result<LogPosition, Failure> {
    let mut event = Event::new(kind, now()?, identity.id());
    event.severity = severity;
    event.subjects = note.subjects;
    event.metadata = note.details;
    record_all(identity, &[event])
}

/// The same for what only looked: a log that cannot be written is said and does not end the command.
pub fn record_or_warn(identity: &Identity, kind: EventKind, severity: Severity, note: Note) {
    if let Err(failure) = record(identity, kind, severity, note) {
        eprintln!("warning: {} was not logged: {}", kind.name(), failure.message);
    }
}

/// Appends events to this host's log under one checkpoint.
pub fn record_all(identity: &Identity, events: &[Event]) -> Result<LogPosition, Failure> {
    let mut log = open_log(identity)?;
    log.append_all(events).map_err(|e| log_failure(&e))?;
    Ok(log.position())
}

/// This host's log, to be written.
pub fn open_log(identity: &Identity) -> Result<Log<'_>, Failure> {
    let (mut log, recovery) =
        Log::open(&log_directory()?, &log_origin(identity)?, identity, OnLock::Wait).map_err(|e| log_failure(&e))?;
    if recovery.swept > 0 {
        let mut found = Event::new(EventKind::LogRecovered, now()?, identity.id());
        found.severity = Severity::Warning;
        found.metadata.insert("tiles".to_owned(), i64::try_from(recovery.swept).unwrap_or(i64::MAX).into());
        log.append(&found).map_err(|e| log_failure(&e))?;
    }
    Ok(log)
}

/// This host's log, verified.
pub fn read_log(identity: &Identity) -> Result<LogView, Failure> {
    bring_over(identity)?;
    LogView::read(&log_directory()?, &log_origin(identity)?, identity.public()).map_err(|e| log_failure(&e))
}

/// Brings a log of the layout before tiles over, which opening it does: what is only read would look cut off.
fn bring_over(identity: &Identity) -> Result<(), Failure> {
    let folder = log_directory()?;
    if folder.join(OLD_ENTRIES_FILE).exists() && !folder.join(TILE_FOLDER).exists() {
        open_log(identity)?;
    }
    Ok(())
}

/// Derives everything about this host's log again.
pub fn fsck_log(identity: &Identity, elsewhere: &[LogPosition]) -> Result<isotherm_audit::log::Fsck, Failure> {
    bring_over(identity)?;
    isotherm_audit::log::fsck(&log_directory()?, &log_origin(identity)?, identity.public(), elsewhere)
        .map_err(|e| log_failure(&e))
}

/// A log that cannot be believed is a failed verification; one that cannot be written is a failed write.
pub fn log_failure(error: &LogError) -> Failure {
    let text = crate::models::causes(error);
    match error {
        LogError::Io { .. }
        | LogError::Locked { .. }
        | LogError::NoLog { .. }
        | LogError::Event(_)
        | LogError::Proof(_)
        | LogError::MovedOut { .. }
        | LogError::OldLayout { .. }
        | LogError::Busy { .. } => Failure::io(format!("the log: {text}")),
        _ => Failure::new(Code::Verification, format!("the log of this host does not verify: {text}"))
            .remedy("keep a copy of its folder, find out who changed it, and move it away to begin a new log"),
    }
}
