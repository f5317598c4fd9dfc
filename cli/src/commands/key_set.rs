//! `isotherm keys set`: who signs for a cluster, by role, as a signed set that only the next one replaces.

use crate::args::{DraftKeySet, KeySetCommand};
use crate::failure::{Code, Done, Failure};
use crate::ui::Ui;
use crate::{access, files, keyset, models, trust};
use isotherm_audit::keys::{Identity, KeyId, PublicKey, TrustedKeys};
use isotherm_audit::keyset::{APPROVER, KeySet, KeySetClaim, PLANNER, ROOT, Role, statement};
use isotherm_audit::log::{Event, EventKind, EventResult};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(ui: &Ui, command: &KeySetCommand) -> Done {
    match command {
        KeySetCommand::Show => match keyset::in_force()? {
            Some(set) => show(ui, set.claim()),
            None => Err(Failure::io("no set of keys is in force on this host").remedy(
                "make the first with `isotherm keys set draft`, and put it in force with `isotherm keys set accept`",
            )),
        },
        KeySetCommand::Draft(draft) => self::draft(ui, draft),
        KeySetCommand::Sign { set } => sign(ui, set),
        KeySetCommand::Accept { set } => accept(ui, set),
    }
}

fn failed(what: &str) -> impl FnOnce(isotherm_audit::SealError) -> Failure + '_ {
    move |error| Failure::new(Code::Usage, format!("{what}: {}", models::causes(&error)))
}

fn draft(ui: &Ui, args: &DraftKeySet) -> Done {
    let identity = trust::identity(ui)?;
    let (now, old) = (trust::now()?, keyset::in_force()?);
    let mut keys = BTreeMap::new();
    let mut roles = BTreeMap::new();
    for (name, files, threshold) in [
        (ROOT, &args.root, args.root_threshold),
        (PLANNER, &args.planner, args.planner_threshold),
        (APPROVER, &args.approver, args.approver_threshold),
    ] {
        let known = old.as_ref().and_then(|set| Some((set.role(name)?, set.claim().roles.get(name)?)));
        let (named, threshold): (Vec<PublicKey>, u32) = match known {
            _ if !files.is_empty() => (read_keys(files)?, threshold),
            Some((keys, role)) => (keys.iter().cloned().collect(), role.threshold),
            // The first set names this host where it names nobody else.
            None if name == ROOT => (vec![identity.public().clone()], threshold),
            None => continue,
        };
        let ids: BTreeSet<KeyId> = named.iter().map(PublicKey::id).collect();
        for key in named {
            keys.insert(key.id().to_string(), key.to_pem().map_err(|e| Failure::io(e.to_string()))?);
        }
        roles.insert(name.to_owned(), Role { threshold, keys: ids });
    }
    let claim = KeySetClaim {
        cluster_id: trust::LOCAL_CLUSTER.to_owned(),
        version: old.as_ref().map_or(1, |set| set.claim().version + 1),
        keys,
        roles,
        created_on: now,
        expires_on: now.later_by(args.valid.value() as u64),
        previous: old.as_ref().map(KeySet::payload_digest),
    };
    let sealed =
        isotherm_audit::seal(&statement(claim.clone()), &[&identity]).map_err(failed("no such set of keys"))?;
    files::write(&args.output, &sealed.envelope)?;
    ui.note(format!("wrote {}", args.output.display()));
    show(ui, &claim)
}

fn read_keys(files: &[PathBuf]) -> Result<Vec<PublicKey>, Failure> {
    let read = |path: &PathBuf| PublicKey::read(&files::read_text(path)?).map_err(|e| Failure::file(path, e));
    files.iter().map(read).collect()
}

/// Whoever signs sees that somebody who may have drafted it did: a root of the set in force, or a believed key.
fn sign(ui: &Ui, path: &Path) -> Done {
    let identity = trust::identity(ui)?;
    let bytes = files::read(path)?;
    let mut known: Vec<PublicKey> = trust::believed(1)?.iter().cloned().collect();
    if let Some(root) = keyset::in_force()?.and_then(|set| set.role(ROOT)) {
        known.extend(root.iter().cloned());
    }
    let known = TrustedKeys::new(known, 1).map_err(|e| Failure::io(e.to_string()))?;
    let signed = isotherm_audit::approve::<KeySetClaim>(&bytes, &known, &identity)
        .map_err(|e| Failure::new(Code::Verification, format!("{}: {}", path.display(), models::causes(&e))))?;
    files::write(path, &signed.envelope)?;
    ui.result(&identity.id().to_string(), || format!("{} is signed by {} too\n", path.display(), identity.id()))
}

/// Only an administrator puts a set in force, and the log has it before it counts.
fn accept(ui: &Ui, path: &Path) -> Done {
    let identity: Identity = trust::identity(ui)?;
    let (bytes, now) = (files::read(path)?, trust::now()?);
    let set = match keyset::in_force()? {
        Some(old) => old.next(&bytes, now),
        None => KeySet::first(&bytes, &trust::believed(trust::threshold(1)?)?, now, trust::LOCAL_CLUSTER),
    };
    let set = set.map_err(|e| super::verify::refused(path, &e))?;
    let mut event = Event::new(EventKind::KeySetAccepted, now, identity.id()).ended(EventResult::Success);
    event.subjects.insert("key_set".to_owned(), set.payload_digest());
    event.metadata.insert("version".to_owned(), i64::try_from(set.claim().version).unwrap_or(i64::MAX).into());
    access::gate(&identity)?
        .administer(identity.id(), now, vec![event], &mut access::recorder(&identity), |_, _| {})
        .map_err(|e| access::failure(&e))?;
    keyset::put_in_force(&set, &bytes)?;
    show(ui, set.claim())
}

#[derive(Serialize)]
struct Shown<'a> {
    version: u64,
    cluster_id: &'a str,
    expires_on: String,
    roles: &'a BTreeMap<String, Role>,
}

fn show(ui: &Ui, claim: &KeySetClaim) -> Done {
    let expires_on = claim.expires_on.to_string();
    let shown = Shown { version: claim.version, cluster_id: &claim.cluster_id, expires_on, roles: &claim.roles };
    ui.result(&shown, || {
        let mut text =
            format!("set {} of the cluster {}, until {}\n", shown.version, shown.cluster_id, shown.expires_on);
        for (name, role) in shown.roles {
            let keys: Vec<String> = role.keys.iter().map(|key| key.to_string()[..16].to_owned()).collect();
            text.push_str(&format!("  {name}: {} of {}\n", role.threshold, keys.join(", ")));
        }
        text
    })
}
