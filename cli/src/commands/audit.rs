//! `isotherm audit`: the log of this host, and being a witness of another's.

use crate::args::{AuditCommand, EventAbout, WatchedLog, WitnessArgs};
use crate::failure::{Code, Done, Failure};
use crate::models::causes;
use crate::ui::{Ui, print, table};
use crate::{access, files, trust};
use isotherm_access::Permission;
use isotherm_access::authority::{Question, SYSTEM};
use isotherm_audit::handover::{HandOver, open_hand_over};
use isotherm_audit::keys::{Identity, KeyError, KeyId, PublicKey, TrustedKeys};
use isotherm_audit::log::witness::{Watched, Witness, WitnessError};
use isotherm_audit::log::{Checkpoint, Entry, EventKind, EventResult, Query, Severity, verify_inclusion_proof};
use isotherm_audit::manifest::{ExecutionManifest, LogPosition, RootHash};
use isotherm_audit::time::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Runs the command.
pub fn run(ui: &Ui, command: &AuditCommand) -> Done {
    match command {
        AuditCommand::Witness(args) => return witness(ui, args),
        AuditCommand::Follow { handover, watched } => return follow(ui, handover, watched),
        AuditCommand::Bench(args) => return super::audit_bench::run(ui, args),
        AuditCommand::Verify { proof, entry, key } => return verify(ui, proof, entry.as_deref(), key.as_deref()),
        _ => {}
    }
    let identity = existing_identity()?;
    match command {
        AuditCommand::Log { last } => log(ui, &identity, *last),
        AuditCommand::Query(about) => query(ui, &identity, about),
        AuditCommand::Fsck { against } => fsck(ui, &identity, against),
        AuditCommand::Checkpoint => print(trust::read_log(&identity)?.note().as_bytes()),
        AuditCommand::Prove { index, output } => prove(ui, &identity, *index, output),
        AuditCommand::Export { output, from } => export(ui, &identity, *from, output.as_deref()),
        AuditCommand::Retain { older_than, keep, archive } => {
            let age = older_than.map(|age| age.value() as u64);
            retain(ui, &identity, age, *keep, archive)
        }
        AuditCommand::Request { old, handover, old_key, output } => {
            let view = trust::read_log(&identity)?;
            let text = match (handover, old_key) {
                (Some(handover), Some(key)) => {
                    let handed = open_hand_over(&files::read(handover)?, &view.checkpoint().origin, &public_key(key)?);
                    let handed = handed.map_err(|e| not_verified(handover, &e))?;
                    view.request_handed_over(*old, &handed)
                }
                _ => view.request_witness(*old),
            };
            put(output.as_deref(), text.map_err(|e| trust::log_failure(&e))?.as_bytes())
        }
        AuditCommand::Cosign { line, name, key } => {
            let line = files::read_text(line)?;
            let mut log = trust::open_log(&identity)?;
            let time = log.add_cosignature(&line, name, &public_key(key)?).map_err(|e| trust::log_failure(&e))?;
            ui.result(&time.to_string(), || format!("cosigned by {name} on {time}\n"))
        }
        AuditCommand::Bench(_)
        | AuditCommand::Witness(_)
        | AuditCommand::Follow { .. }
        | AuditCommand::Verify { .. } => {
            unreachable!("handled above, without an identity")
        }
    }
}

fn put(output: Option<&Path>, bytes: &[u8]) -> Done {
    output.map_or_else(|| print(bytes), |path| files::write(path, bytes))
}

fn public_key(path: &Path) -> Result<PublicKey, Failure> {
    PublicKey::read(&files::read_text(path)?).map_err(|e| Failure::file(path, e))
}

fn log(ui: &Ui, identity: &Identity, last: Option<usize>) -> Done {
    let view = trust::read_log(identity)?;
    let entries: Vec<Entry> = view
        .iter()
        .rev()
        .take(last.unwrap_or(usize::MAX))
        .collect::<Result<_, _>>()
        .map_err(|e| trust::log_failure(&e))?;
    let rows: Vec<Row> = entries.iter().rev().map(Row::of).collect();
    ui.result(&rows, || text(&rows))
}

fn given<T: FromStr>(what: &str, word: Option<&String>) -> Result<Option<T>, Failure>
where
    T::Err: std::fmt::Display,
{
    word.map(|word| word.parse().map_err(|e: T::Err| Failure::new(Code::Usage, format!("--{what}: {e}")))).transpose()
}

fn query(ui: &Ui, identity: &Identity, about: &EventAbout) -> Done {
    let principal = match &about.principal {
        None => None,
        Some(name) => {
            let rules = access::gate(identity)?.rules().map_err(|e| access::failure(&e))?;
            let known: Option<KeyId> = rules.directory().find(name);
            Some(known.ok_or_else(|| Failure::new(Code::Usage, format!("{name:?} is no principal and no key id")))?)
        }
    };
    let severity = about.severity.as_ref().map(|word| {
        serde_json::from_value::<Severity>(serde_json::Value::String(word.clone())).map_err(|_| {
            Failure::new(Code::Usage, format!("--severity is {word:?}; give debug, info, warning, error or critical"))
        })
    });
    let result = about.result.as_ref().map(|word| {
        serde_json::from_value::<EventResult>(serde_json::Value::String(word.clone()))
            .map_err(|_| Failure::new(Code::Usage, format!("--result is {word:?}; give success, failure or denied")))
    });
    let query = Query {
        since: given::<Timestamp>("since", about.since.as_ref())?,
        until: given::<Timestamp>("until", about.until.as_ref())?,
        principal,
        device: about.device.clone(),
        kind: about.kind.clone(),
        result: result.transpose()?,
        severity: severity.transpose()?,
        before: about.before,
        limit: about.limit,
    };
    let answer = trust::read_log(identity)?.query(&query).map_err(|e| trust::log_failure(&e))?;
    let found = Found { entries: answer.entries.iter().map(Row::of).collect(), next: answer.next };
    ui.result(&found, || {
        let more = found.next.map_or_else(String::new, |next| format!("  more with --before {next}\n"));
        format!("{}{more}", text(&found.entries))
    })
}

fn fsck(ui: &Ui, identity: &Identity, against: &[PathBuf]) -> Done {
    let elsewhere = against.iter().map(|path| position(identity, path)).collect::<Result<Vec<_>, _>>()?;
    let found = trust::fsck_log(identity, &elsewhere)?;
    let findings: Vec<String> = found.findings.iter().map(|e| causes(e)).collect();
    let summary = Summary {
        verified: found.is_sound(),
        entries: found.entries,
        retained_from: found.retained_from,
        against: elsewhere.len(),
        findings: findings.clone(),
    };
    let verdict = if found.is_sound() { "verifies" } else { "DOES NOT verify" };
    ui.result(&summary, || format!("the log {verdict}: {} entries\n", summary.entries))?;
    if found.is_sound() { Ok(()) } else { Err(Failure::all(Code::Verification, "the log", &findings)) }
}

/// A state of this host's log that somebody kept: a checkpoint, or the one a manifest carries.
fn position(identity: &Identity, path: &Path) -> Result<LogPosition, Failure> {
    let bytes = files::read(path)?;
    if bytes.first() == Some(&b'{') {
        let trusted = TrustedKeys::load(&trust::key_directory()?, 1).map_err(|e| Failure::io(e.to_string()))?;
        let inspected = isotherm_audit::inspect::<ExecutionManifest>(&bytes, &trusted)
            .map_err(|e| Failure::new(Code::Verification, format!("{}: {}", path.display(), causes(&e))))?;
        let position = inspected.statement.predicate.audit_log;
        return position.ok_or_else(|| Failure::file(path, "carries no state of a log"));
    }
    let checkpoint = Checkpoint::open(&bytes, &trust::log_origin(identity)?, identity.public())
        .map_err(|e| Failure::new(Code::Verification, format!("{}: {e}", path.display())))?;
    Ok(LogPosition { origin: checkpoint.origin, size: checkpoint.size, root_hash: RootHash(checkpoint.root) })
}

fn entry_path(proof: &Path) -> PathBuf {
    proof.with_extension("entry.json")
}

fn prove(ui: &Ui, identity: &Identity, index: u64, output: &Path) -> Done {
    let view = trust::read_log(identity)?;
    let (proof, line) =
        (view.prove(index).map_err(|e| trust::log_failure(&e))?, view.line(index).map_err(|e| trust::log_failure(&e))?);
    files::write(output, proof.as_bytes())?;
    files::write(&entry_path(output), &line)?;
    let written = [output.to_owned(), entry_path(output)];
    ui.result(&written, || format!("wrote {} and {}\n", written[0].display(), written[1].display()))
}

fn verify(ui: &Ui, proof: &Path, entry: Option<&Path>, key: Option<&Path>) -> Done {
    let key = match key {
        Some(path) => public_key(path)?,
        None => existing_identity()?.public().clone(),
    };
    let text = files::read(proof)?;
    let line = files::read(&entry.map_or_else(|| entry_path(proof), Path::to_owned))?;
    // The proof says which log it is of; whose log that is the key says.
    let origin = str::from_utf8(&text).ok().and_then(|text| text.split_once("\n\n")?.1.lines().next());
    let (entry, checkpoint) = verify_inclusion_proof(&text, &line, origin.unwrap_or_default(), &key)
        .map_err(|e| Failure::new(Code::Verification, format!("{}: {}", proof.display(), causes(&e))))?;
    let row = Row::of(&entry);
    ui.result(&row, || {
        format!(
            "entry {} is in the log {} of {} entries\n{}",
            entry.index,
            checkpoint.origin,
            checkpoint.size,
            text_of(&row)
        )
    })
}

fn text_of(row: &Row) -> String {
    text(std::slice::from_ref(row))
}

fn export(ui: &Ui, identity: &Identity, from: u64, output: Option<&Path>) -> Done {
    let view = trust::read_log(identity)?;
    let mut lines = Vec::new();
    for index in from.max(view.retained_from())..view.size() {
        // The entries are events already: what the log signed is what leaves.
        lines.extend_from_slice(&view.line(index).map_err(|e| trust::log_failure(&e))?);
        lines.push(b'\n');
    }
    put(output, &lines)?;
    if let Some(path) = output {
        ui.note(format!("wrote {}", path.display()));
    }
    Ok(())
}

fn retain(ui: &Ui, identity: &Identity, age: Option<u64>, keep: Option<u64>, archive: &Path) -> Done {
    let now = trust::now()?;
    let rules = access::gate(identity)?.rules().map_err(|e| access::failure(&e))?;
    let decision = rules.decide(&Question {
        principal: identity.id(),
        permission: Permission::AdminFullAccess,
        device: SYSTEM,
        now,
        used_bytes: 0,
        request_bytes: 0,
        lease: None,
    });
    if !decision.allowed {
        let note = trust::Note::default().with("operation", "audit retain").with("reason", decision.because().as_str());
        trust::record(identity, EventKind::SecurityAccessDenied, Severity::Warning, note)?;
        return Err(Failure::new(Code::Denied, format!("moving entries out is denied: {}", decision.because())));
    }
    let mut log = trust::open_log(identity)?;
    let first = match (age, keep) {
        (Some(age), _) => {
            let since = Timestamp::from_unix_seconds(now.unix_seconds().saturating_sub(age));
            log.first_since(since.map_err(|e| Failure::io(e.to_string()))?).map_err(|e| trust::log_failure(&e))?
        }
        (None, keep) => log.size().saturating_sub(keep.unwrap_or(u64::MAX)),
    };
    let retained = log.retain(first, now, Some(archive)).map_err(|e| trust::log_failure(&e))?;
    let moved = Moved { first: retained.first, moved: retained.moved };
    ui.result(&moved, || format!("moved {} entries out; entries from {} on stay\n", moved.moved, moved.first))
}

fn not_verified(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::new(Code::Verification, format!("{}: {}", path.display(), causes(error)))
}

fn memory_of(watched: &WatchedLog) -> Result<PathBuf, Failure> {
    watched.memory.clone().map_or_else(|| Ok(files::home()?.join("witness")), Ok)
}

/// A witness needs a key of its own, and nothing of the log but its public key.
fn witness(ui: &Ui, args: &WitnessArgs) -> Done {
    let identity = trust::identity(ui)?;
    let request = files::read(&args.request)?;
    // Two hosts have logs of two names; whose name it is the key says, whose signature is over it.
    let named = str::from_utf8(&request).ok().and_then(|text| text.split_once("\n\n")?.1.lines().next());
    let origin = args.watched.log.clone().unwrap_or_else(|| named.unwrap_or_default().to_owned());
    let watched = Watched { origin, key: public_key(&args.watched.log_key)? };
    let former = trust::former_keys()?;
    let answer = Witness::open(&args.watched.name, &identity, &memory_of(&args.watched)?)
        .and_then(|witness| witness.formerly(former).answer(&request, &watched, trust::now().map_err(|_| clock())?));
    match answer {
        Ok(line) => put(args.output.as_deref(), line.as_bytes()),
        Err(error) => Err(not_cosigned(&identity, &watched.origin, "not cosigned", &error)),
    }
}

/// Follows a log to its new key, or says why not: the log of the witness has a refusal.
fn follow(ui: &Ui, handover: &Path, args: &WatchedLog) -> Done {
    let identity = trust::identity(ui)?;
    let envelope = files::read(handover)?;
    let key = public_key(&args.log_key)?;
    let origin = match &args.log {
        Some(log) => log.clone(),
        None => {
            let old = TrustedKeys::new([key.clone()], 1).map_err(|e| Failure::io(e.to_string()))?;
            let claim = isotherm_audit::inspect::<HandOver>(&envelope, &old);
            claim.map_err(|e| not_verified(handover, &e))?.statement.predicate.origin
        }
    };
    let watched = Watched { origin, key };
    let former = trust::former_keys()?;
    let followed = Witness::open(&args.name, &identity, &memory_of(args)?)
        .and_then(|witness| witness.formerly(former).follow(&envelope, &watched))
        .map_err(|error| not_cosigned(&identity, &watched.origin, "not followed", &error))?;
    let note = trust::Note::default()
        .with("log", watched.origin.as_str())
        .with("successor", followed.id().to_string().as_str());
    trust::record(&identity, EventKind::KeyRotated, Severity::Info, note)?;
    ui.result(&followed.id().to_string(), || format!("{} goes on by the key {}\n", watched.origin, followed.id()))
}

fn not_cosigned(identity: &Identity, log: &str, what: &str, error: &WitnessError) -> Failure {
    let reason = causes(error);
    if matches!(error, WitnessError::Io { .. } | WitnessError::Name { .. }) {
        return Failure::io(reason);
    }
    let note = trust::Note::default().with("log", log).with("reason", reason.as_str());
    match trust::record(identity, EventKind::VerifyRefused, Severity::Critical, note) {
        Ok(_) => Failure::new(Code::Verification, format!("{what}: {reason}")),
        Err(unlogged) => unlogged,
    }
}

fn clock() -> WitnessError {
    WitnessError::Request { why: "the clock of this host is off" }
}

/// This host's identity; an error with a remedy where it has none yet.
pub fn existing_identity() -> Result<Identity, Failure> {
    identity_if_any()?.ok_or_else(|| {
        Failure::io("this host has no identity and no log yet")
            .remedy("the first `isotherm seal` or `isotherm tour` makes them")
    })
}

/// This host's identity, where it has one. Errors: it cannot be read.
pub fn identity_if_any() -> Result<Option<Identity>, Failure> {
    match Identity::load(&trust::key_directory()?) {
        Ok(identity) => Ok(Some(identity)),
        Err(KeyError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io(error.to_string())),
    }
}

#[derive(Serialize)]
struct Summary {
    verified: bool,
    entries: u64,
    retained_from: u64,
    against: usize,
    findings: Vec<String>,
}

#[derive(Serialize)]
struct Moved {
    first: u64,
    moved: u64,
}

#[derive(Serialize)]
struct Found {
    entries: Vec<Row>,
    next: Option<u64>,
}

/// Digits of the key id in a table: those by which `isotherm access list` names a principal.
const WHO_DIGITS: usize = 16;

#[derive(Serialize)]
struct Row {
    index: u64,
    time: String,
    kind: String,
    severity: Severity,
    principal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<EventResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    subjects: BTreeMap<String, String>,
    details: BTreeMap<String, String>,
}

impl Row {
    fn of(entry: &Entry) -> Self {
        let details = entry.metadata.iter().map(|(name, detail)| (name.clone(), show(detail))).collect();
        Self {
            index: entry.index,
            time: entry.time.to_string(),
            kind: entry.kind.clone(),
            severity: entry.severity,
            principal: entry.principal.to_string(),
            device: entry.device.clone(),
            operation: entry.operation.clone(),
            node: entry.node.clone(),
            connection: entry.connection.clone(),
            result: entry.result,
            error: entry.error.clone(),
            subjects: entry.subjects.iter().map(|(role, digest)| (role.clone(), digest.to_string())).collect(),
            details,
        }
    }
}

fn show(detail: &isotherm_audit::log::Detail) -> String {
    use isotherm_audit::log::Detail;
    match detail {
        Detail::Flag(flag) => flag.to_string(),
        Detail::Integer(integer) => integer.to_string(),
        Detail::Text(words) => words.clone(),
    }
}

fn text(rows: &[Row]) -> String {
    let mut cells = vec![["#", "time", "who", "what", "device", "about", "details"].map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|row| {
        let about = row.subjects.iter().map(|(role, digest)| format!("{role} {}", &digest[7..19]));
        let details = row.details.iter().map(|(name, detail)| format!("{name} {detail}"));
        vec![
            row.index.to_string(),
            row.time.clone(),
            row.principal[..WHO_DIGITS].to_owned(),
            row.kind.clone(),
            row.device.clone().unwrap_or_default(),
            about.collect::<Vec<_>>().join(", "),
            row.error.iter().cloned().chain(details).collect::<Vec<_>>().join(", "),
        ]
    }));
    table(&cells, &[0])
}
