//! `isotherm keys`: the key that signs here.

use crate::args::KeysCommand;
use crate::commands::audit::existing_identity;
use crate::failure::{Code, Done, Failure};
use crate::ui::Ui;
use crate::{access, files, trust};
use isotherm_access::{Permission, Principal, Role};
use isotherm_audit::handover::{self, HandOver};
use isotherm_audit::keys::{IDENTITY_FILE, Identity, KeyId, PublicKey, Seed, TrustedKeys};
use isotherm_audit::log::{Event, EventKind, EventResult};
use isotherm_audit::manifest::ExecutionManifest;
use isotherm_audit::{ssh, storage};
use serde::Serialize;
use std::path::Path;

/// Runs the command.
pub fn run(ui: &Ui, command: &KeysCommand) -> Done {
    match command {
        KeysCommand::Show { ssh } => show(ui, &existing_identity()?, *ssh),
        KeysCommand::New { import } => new(ui, import.as_deref()),
        KeysCommand::Rotate { keep_old, handover } => rotate(ui, *keep_old, handover),
        KeysCommand::Set(command) => super::key_set::run(ui, command),
        KeysCommand::Threshold { keys } => threshold(ui, *keys),
        KeysCommand::Trust { key } => trust_key(ui, key),
        KeysCommand::Distrust { key } => distrust_key(ui, key),
        KeysCommand::List => list(ui),
        KeysCommand::Approve { manifest } => approve(ui, manifest),
    }
}

#[derive(Serialize)]
struct Shown {
    key: String,
    public_key: String,
}

fn show(ui: &Ui, identity: &Identity, ssh: bool) -> Done {
    let public_key = if ssh {
        format!("{}\n", ssh::write_public(identity.public()))
    } else {
        identity.public().to_pem().map_err(|e| Failure::io(e.to_string()))?
    };
    let shown = Shown { key: identity.id().to_string(), public_key };
    // The line alone, so that it can go into a file of OpenSSH.
    ui.result(&shown, || if ssh { shown.public_key.clone() } else { format!("{}\n{}", shown.key, shown.public_key) })
}

fn new(ui: &Ui, import: Option<&Path>) -> Done {
    let directory = trust::key_directory()?;
    if directory.join(IDENTITY_FILE).exists() {
        return Err(Failure::new(Code::Usage, format!("{} holds a key already", directory.display()))
            .remedy("replace it with `isotherm keys rotate`"));
    }
    if let Some(path) = import {
        let seed = Seed::read(path).map_err(|e| Failure::file(path, e))?;
        Identity::create(&directory, &seed).map_err(|e| Failure::io(e.to_string()))?;
    }
    let identity = trust::identity(ui)?;
    show(ui, &identity, false)
}

/// Hands everything that hangs on the key over to a new one: the log first, so that a crash in between leaves a log that
/// either key opens; the rules; the key itself last.
fn rotate(ui: &Ui, keep_old: bool, path: &Path) -> Done {
    let directory = trust::key_directory()?;
    let old = existing_identity()?;
    let mut gate = access::gate(&old)?;
    let now = trust::now()?;
    let seed = Seed::draw().map_err(|e| Failure::io(e.to_string()))?;
    let new = Identity::from_seed(&seed).map_err(|e| Failure::io(e.to_string()))?;
    let mut event = Event::new(EventKind::KeyRotated, now, old.id()).ended(EventResult::Success);
    event.metadata.insert("successor".to_owned(), new.id().to_string().as_str().into());
    event.metadata.insert("old_is_believed".to_owned(), keep_old.into());
    let known = gate.rules().map_err(|e| access::failure(&e))?.directory().principals.get(&old.id()).cloned();
    let successor = match known {
        Some(known) => {
            let fresh = Principal::new(&known.name, new.public(), Role::Admin, now);
            Principal { public_key: fresh.map_err(|e| Failure::io(e.to_string()))?.public_key, ..known }
        }
        None => return Err(Failure::new(Code::Denied, format!("the key {} is no principal here", old.id()))),
    };
    gate.administer(old.id(), now, vec![event], &mut access::recorder(&old), |rules, _| {
        rules.principals.insert(new.id(), successor);
    })
    .map_err(|e| access::failure(&e))?;
    let mut log = trust::open_log(&old)?;
    let claim = HandOver {
        origin: log.checkpoint().origin.clone(),
        checkpoint: log.note().to_owned(),
        predecessor: old.public().to_pem().map_err(|e| Failure::io(e.to_string()))?,
        successor: new.public().to_pem().map_err(|e| Failure::io(e.to_string()))?,
        handed_on: now,
    };
    let claim = handover::statement(claim).map_err(|e| Failure::io(e.to_string()))?;
    let sealed = isotherm_audit::seal(&claim, &[&old, &new]).map_err(|e| Failure::io(e.to_string()))?;
    // Before the old key is gone: nobody could sign it afterwards.
    files::write(path, &sealed.envelope)?;
    log.hand_over(&new).map_err(|e| trust::log_failure(&e))?;
    drop(log);
    let new = Identity::replace(&directory, &seed, keep_old).map_err(|e| Failure::io(e.to_string()))?;
    let mut removed = Event::new(EventKind::SecurityPolicyRemoved, now, new.id()).ended(EventResult::Success);
    removed.metadata.insert("what".to_owned(), format!("principal {}", old.id()).as_str().into());
    gate.administer(new.id(), now, vec![removed], &mut access::recorder(&new), |rules, _| {
        rules.principals.remove(&old.id());
        rules.revoked_keys.insert(old.id());
    })
    .map_err(|e| access::failure(&e))?;
    let believed = if keep_old { "manifests it signed still open" } else { "manifests it signed no longer open" };
    ui.note(format!("note: {} took the place of {}; {believed}", new.id(), old.id()));
    ui.note(format!("note: give {} to the witnesses of this log (`isotherm audit follow`)", path.display()));
    show(ui, &new, false)
}

/// Only an administrator sets it, and the log has it before it counts.
fn threshold(ui: &Ui, keys: Option<u32>) -> Done {
    let identity = trust::identity(ui)?;
    if let Some(least) = keys {
        trust::believed(least)?;
        let now = trust::now()?;
        let mut event = Event::new(EventKind::SecurityPolicyUpdated, now, identity.id()).ended(EventResult::Success);
        event.metadata.insert("what".to_owned(), format!("threshold of {least} keys").as_str().into());
        access::gate(&identity)?
            .administer(identity.id(), now, vec![event], &mut access::recorder(&identity), |_, _| {})
            .map_err(|e| access::failure(&e))?;
        let directory = trust::key_directory()?;
        storage::replace(&directory, trust::THRESHOLD_FILE, format!("{least}\n").as_bytes())
            .map_err(|e| Failure::file(&directory.join(trust::THRESHOLD_FILE), e))?;
    }
    let least = trust::threshold(1)?;
    let noun = if least == 1 { "key" } else { "distinct keys" };
    ui.result(&least, || format!("{least} {noun} must have signed what this host runs or verifies\n"))
}

#[derive(Serialize)]
struct Believed {
    key: String,
    own: bool,
}

fn list(ui: &Ui) -> Done {
    let identity = existing_identity()?;
    let believed = trust::believed(1)?;
    let keys: Vec<Believed> =
        believed.iter().map(|key| Believed { key: key.id().to_string(), own: key.id() == identity.id() }).collect();
    ui.result(&keys, || {
        let line = |key: &Believed| format!("{}{}\n", key.key, if key.own { "  (this host's own)" } else { "" });
        keys.iter().map(line).collect()
    })
}

/// Changes whose signatures count: only an administrator does, and the log has it before it counts.
fn believing(identity: &Identity, kind: EventKind, key: KeyId) -> Done {
    let now = trust::now()?;
    let mut event = Event::new(kind, now, identity.id()).ended(EventResult::Success);
    event.metadata.insert("what".to_owned(), format!("signatures of the key {key}").as_str().into());
    access::gate(identity)?
        .administer(identity.id(), now, vec![event], &mut access::recorder(identity), |_, _| {})
        .map_err(|e| access::failure(&e))
}

fn trust_key(ui: &Ui, path: &Path) -> Done {
    let identity = trust::identity(ui)?;
    let key = PublicKey::read(&files::read_text(path)?).map_err(|e| Failure::file(path, e))?;
    believing(&identity, EventKind::SecurityPolicyAdded, key.id())?;
    isotherm_audit::keyring::believe(&trust::key_directory()?, &key).map_err(|e| Failure::io(e.to_string()))?;
    ui.result(&key.id().to_string(), || format!("{} is believed\n", key.id()))
}

fn distrust_key(ui: &Ui, named: &str) -> Done {
    let identity = existing_identity()?;
    let id = match named.parse::<KeyId>() {
        Ok(id) => id,
        Err(_) => {
            let path = Path::new(named);
            PublicKey::read(&files::read_text(path)?).map_err(|e| Failure::file(path, e))?.id()
        }
    };
    if id == identity.id() {
        return Err(Failure::new(Code::Usage, "this host always believes its own key")
            .remedy("replace it with `isotherm keys rotate`"));
    }
    let believed = trust::believed(1)?;
    if believed.get(id).is_none() {
        return Err(
            Failure::new(Code::Usage, format!("the key {id} is not believed here")).remedy("see `isotherm keys list`")
        );
    }
    let (least, left) = (trust::threshold(1)?, believed.iter().count() - 1);
    if left < least as usize {
        return Err(Failure::new(Code::Verification, format!("{left} keys would be left, and {least} must sign"))
            .remedy("lower it with `isotherm keys threshold N` first"));
    }
    believing(&identity, EventKind::SecurityPolicyRemoved, id)?;
    isotherm_audit::keyring::disbelieve(&trust::key_directory()?, id).map_err(|e| Failure::io(e.to_string()))?;
    ui.result(&id.to_string(), || format!("{id} is believed no more\n"))
}

fn approve(ui: &Ui, path: &Path) -> Done {
    let identity = trust::identity(ui)?;
    let bytes = files::read(path)?;
    // One signature is enough here: this is how a manifest comes by the others.
    let trusted: TrustedKeys = match crate::keyset::in_force()? {
        Some(set) => set.signers(trust::now()?).map_err(|e| crate::commands::verify::refused(path, &e))?,
        None => trust::believed(1)?,
    };
    let inspected = isotherm_audit::inspect::<ExecutionManifest>(&bytes, &trusted)
        .map_err(|e| crate::commands::verify::refused(path, &e))?;
    let devices: Vec<(&str, u64)> =
        inspected.statement.predicate.placements.iter().map(|placement| (placement.device.as_str(), 0)).collect();
    let subjects = [("manifest", inspected.payload_digest)];
    let wish = access::Wish {
        guest: None,
        permissions: &[Permission::ComputeExecute],
        devices: &devices,
        subjects: &subjects,
    };
    crate::commands::access::pass(&identity, &wish)?;
    let approved = isotherm_audit::approve::<ExecutionManifest>(&bytes, &trusted, &identity)
        .map_err(|e| Failure::new(Code::Verification, format!("{}: {e}", path.display())))?;
    files::write(path, &approved.envelope)?;
    let note = trust::Note::default().about("manifest", approved.payload_digest);
    trust::record(&identity, EventKind::Approve, isotherm_audit::log::Severity::Info, note)?;
    let signers: Vec<String> = inspected.signers.iter().chain([&identity.id()]).map(ToString::to_string).collect();
    ui.result(&signers, || format!("{} is signed by {}\n", path.display(), signers.join(", ")))
}
