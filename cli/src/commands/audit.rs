//! `isotherm audit` and `isotherm keys`: the log and the identities of this host.

use crate::args::{AuditCommand, KeysCommand};
use crate::failure::{Code, Done, Failure};
use crate::trust;
use crate::ui::{Ui, table};
use isotherm_audit::keys::{Identity, KeyError};
use isotherm_audit::log::Entry;
use serde::Serialize;
use std::collections::BTreeMap;

/// Runs `isotherm audit`.
pub fn run(ui: &Ui, command: &AuditCommand) -> Done {
    let identity = existing_identity()?;
    match command {
        AuditCommand::Log { last } => {
            let view = trust::read_log(&identity)?;
            let entries: Vec<Entry> =
                view.iter().collect::<Result<_, _>>().map_err(|e| Failure::io(crate::models::causes(&e)))?;
            let skipped = last.map_or(0, |last| entries.len().saturating_sub(last));
            let rows: Vec<Row> = entries.iter().skip(skipped).map(Row::of).collect();
            ui.result(&rows, || text(&rows))
        }
        AuditCommand::Fsck => {
            let found = trust::fsck_log(&identity)?;
            let findings: Vec<String> = found.findings.iter().map(|e| crate::models::causes(e)).collect();
            let summary = Summary {
                verified: found.is_sound(),
                entries: found.entries,
                pending: found.pending,
                findings: findings.clone(),
            };
            let verdict = if found.is_sound() { "verifies" } else { "DOES NOT verify" };
            ui.result(&summary, || format!("the log {verdict}: {} entries\n", summary.entries))?;
            if found.is_sound() { Ok(()) } else { Err(Failure::all(Code::Verification, "the log", &findings)) }
        }
    }
}

/// Runs `isotherm keys`.
pub fn keys(ui: &Ui, command: &KeysCommand) -> Done {
    let KeysCommand::Show = command;
    let identity = existing_identity()?;
    let pem = identity.public().to_pem().map_err(|e| Failure::io(e.to_string()))?;
    let shown = Shown { key: identity.id().to_string(), public_key: pem };
    ui.result(&shown, || format!("{}\n{}", shown.key, shown.public_key))
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
struct Shown {
    key: String,
    public_key: String,
}

#[derive(Serialize)]
struct Summary {
    verified: bool,
    entries: u64,
    pending: u64,
    findings: Vec<String>,
}

#[derive(Serialize)]
struct Row {
    index: u64,
    time: String,
    kind: String,
    principal: String,
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
            principal: entry.principal.to_string(),
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
    let mut cells = vec![["#", "time", "what", "about", "details"].map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|row| {
        let about = row.subjects.iter().map(|(role, digest)| format!("{role} {}", &digest[7..19]));
        let details = row.details.iter().map(|(name, detail)| format!("{name} {detail}"));
        vec![
            row.index.to_string(),
            row.time.clone(),
            row.kind.clone(),
            about.collect::<Vec<_>>().join(", "),
            details.collect::<Vec<_>>().join(", "),
        ]
    }));
    table(&cells, &[0])
}
