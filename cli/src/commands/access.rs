//! `isotherm access`: who may do what with which device, and why.

use crate::access::{self, Wish};
use crate::args::{AccessCommand, Asked, Grant, LendLease, UseLease};
use crate::commands::audit::existing_identity;
use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::trust;
use crate::ui::{Ui, table};
use isotherm_access::authority::{PolicyError, SYSTEM};
use isotherm_access::directory::RateLimit;
use isotherm_access::permission::Unknown;
use isotherm_access::{Authority, Decision, Directory, Gate, Permission, Principal, Question, Role};
use isotherm_audit::keys::{Identity, KeyId, PublicKey};
use isotherm_audit::lease::{LEASE_SECONDS_MAX, Lease, LeaseUse, USE_SECONDS_MAX, lease, lease_use, open_lease};
use isotherm_audit::log::{Event, EventKind, EventResult};
use isotherm_audit::manifest::Nonce;
use isotherm_core::units::{Bytes, Seconds};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;

/// Runs the command.
pub fn run(ui: &Ui, command: &AccessCommand) -> Done {
    if let AccessCommand::Policies { file, dry_run: true } = command {
        return validate(ui, file);
    }
    let identity = trust::identity(ui)?;
    if let AccessCommand::Use(using) = command {
        return use_lease(ui, &identity, using);
    }
    let mut gate = access::gate(&identity)?;
    match command {
        AccessCommand::List => list(ui, &mut gate),
        AccessCommand::Check(asked) => {
            let (principal, decision) = decide(&mut gate, &identity, asked)?;
            logged(&identity, principal, asked, &decision)?;
            let answer = Answer::of(asked, principal, &decision);
            ui.result(&answer, || format!("{}\n", if decision.allowed { "allowed" } else { "denied" }))?;
            if decision.allowed { Ok(()) } else { Err(denied(asked, &decision)) }
        }
        AccessCommand::Explain(asked) => {
            let (principal, decision) = decide(&mut gate, &identity, asked)?;
            let answer = Answer::of(asked, principal, &decision);
            ui.result(&answer, || answer.text())
        }
        AccessCommand::Grant(grant) => let_in(ui, &identity, &mut gate, grant),
        AccessCommand::Revoke { who } => revoke(ui, &identity, &mut gate, who),
        AccessCommand::Cordon { device, lift } => {
            let what = if *lift { "back in use" } else { "out of use" };
            change(&identity, &mut gate, EventKind::SecurityPolicyUpdated, &format!("{device} {what}"), |rules, _| {
                if *lift {
                    rules.cordoned.remove(device)
                } else {
                    rules.cordoned.insert(device.clone())
                };
            })?;
            ui.result(&device, || format!("{device} is {what}\n"))
        }
        AccessCommand::Pool { pool, devices } => {
            let what = format!("pool {pool}: {}", devices.join(", "));
            change(&identity, &mut gate, EventKind::SecurityPolicyUpdated, &what, |rules, _| {
                if devices.is_empty() {
                    rules.pools.remove(pool);
                } else {
                    rules.pools.insert(pool.clone(), devices.iter().cloned().collect());
                }
            })?;
            ui.result(&devices, || format!("{what}\n"))
        }
        AccessCommand::Policies { file, .. } => {
            let text = files::read_text(file)?;
            let before = access::directory()?.join(isotherm_access::gate::SITE_POLICIES_FILE);
            let had = std::fs::metadata(before).is_ok_and(|found| found.len() > 0);
            let kind = match (had, text.is_empty()) {
                (false, _) => EventKind::SecurityPolicyAdded,
                (true, false) => EventKind::SecurityPolicyUpdated,
                (true, true) => EventKind::SecurityPolicyRemoved,
            };
            change(&identity, &mut gate, kind, "the policies of this host", |_, site| {
                *site = text;
            })?;
            list(ui, &mut gate)
        }
        AccessCommand::Lease(lend) => lend_lease(ui, &identity, &mut gate, lend),
        AccessCommand::Use(_) => unreachable!("handled above, without the rules of this host"),
    }
}

fn validate(ui: &Ui, file: &Path) -> Done {
    let text = files::read_text(file)?;
    let identity = existing_identity().ok();
    let rules = match &identity {
        Some(identity) => access::gate(identity)?.rules().map_err(|e| access::failure(&e))?.directory().clone(),
        // Policies are held to the schema alone; whom they are for does not matter.
        None => Directory {
            schema: isotherm_access::directory::SCHEMA.to_owned(),
            principals: Default::default(),
            pools: Default::default(),
            cordoned: BTreeSet::new(),
            revoked_keys: BTreeSet::new(),
            revoked_leases: BTreeSet::new(),
            lent: Default::default(),
        },
    };
    let authority = Authority::new(rules, &text)
        .map_err(|error: PolicyError| Failure::new(Code::Verification, format!("{}: {error}", file.display())))?;
    if let Some(identity) = &identity {
        let tried = authority.trial(identity.id(), trust::now()?);
        tried.map_err(|error| Failure::new(Code::Verification, format!("{}: {error}", file.display())))?;
    }
    let policies: Vec<&str> = authority.policies().map(|(id, _)| id).collect();
    ui.result(&policies, || format!("{} holds; with the shipped ones: {}\n", file.display(), policies.join(", ")))
}

/// What somebody wants changed, in the name of this host's identity.
fn change(
    identity: &Identity,
    gate: &mut Gate,
    kind: EventKind,
    what: &str,
    edit: impl FnOnce(&mut Directory, &mut String),
) -> Done {
    let now = trust::now()?;
    let mut event = Event::new(kind, now, identity.id()).ended(EventResult::Success);
    event.metadata.insert("what".to_owned(), what.into());
    gate.administer(identity.id(), now, vec![event], &mut access::recorder(identity), edit)
        .map_err(|e| access::failure(&e))
}

fn parsed<T>(words: &[String]) -> Result<BTreeSet<T>, Failure>
where
    T: FromStr + Ord,
    T::Err: std::fmt::Display,
{
    words.iter().map(|word| word.parse().map_err(|e: T::Err| Failure::new(Code::Usage, e.to_string()))).collect()
}

/// Permissions by name; `run` and `probe` stand for all that these commands ask for, in their order.
fn asked_for(words: &[String]) -> Result<Vec<Permission>, Failure> {
    let mut permissions = Vec::new();
    for word in words {
        match word.as_str() {
            "run" => permissions.extend(RUNNING),
            "probe" => permissions.extend(PROBING),
            name => permissions.push(name.parse().map_err(|e: Unknown| Failure::new(Code::Usage, e.to_string()))?),
        }
    }
    Ok(permissions)
}

fn somebody(rules: &Directory, name: &str) -> Result<KeyId, Failure> {
    rules.find(name).ok_or_else(|| {
        Failure::new(Code::Usage, format!("{name:?} is no principal here, or more than one"))
            .remedy("see `isotherm access list`, or name the key id")
    })
}

fn let_in(ui: &Ui, identity: &Identity, gate: &mut Gate, grant: &Grant) -> Done {
    let now = trust::now()?;
    let rules = gate.rules().map_err(|e| access::failure(&e))?;
    let key = match &grant.key {
        Some(path) => Some(PublicKey::read(&files::read_text(path)?).map_err(|e| Failure::file(path, e))?),
        None => None,
    };
    let roles: BTreeSet<Role> = parsed(&grant.role)?;
    let (allow, deny): (BTreeSet<Permission>, BTreeSet<Permission>) = (parsed(&grant.allow)?, parsed(&grant.deny)?);
    let id = match &key {
        Some(key) => key.id(),
        None => somebody(rules.directory(), &grant.name)?,
    };
    if rules.directory().revoked_keys.contains(&id) && !grant.again {
        return Err(Failure::new(Code::Usage, format!("{} was revoked", grant.name))
            .remedy("give --again if it is to count again with all it had"));
    }
    let known = rules.directory().principals.get(&id).cloned();
    let kind = if known.is_some() { EventKind::SecurityPolicyUpdated } else { EventKind::SecurityPolicyAdded };
    let mut principal = match (known, key) {
        (Some(known), _) => known,
        (None, Some(key)) => {
            let mut new =
                Principal::new(&grant.name, &key, Role::Monitor, now).map_err(|e| Failure::io(e.to_string()))?;
            if roles.is_empty() && allow.is_empty() {
                return Err(Failure::new(Code::Usage, "somebody new needs a --role or an --allow"));
            }
            new.roles.clear();
            new
        }
        (None, None) => return Err(Failure::new(Code::Usage, "somebody new needs a --key")),
    };
    if !roles.is_empty() {
        principal.roles = roles;
    }
    principal.granted.extend(&allow);
    principal.granted.retain(|permission| !deny.contains(permission));
    principal.denied.extend(&deny);
    principal.denied.retain(|permission| !allow.contains(permission));
    if !grant.device.is_empty() {
        principal.devices = Some(grant.device.iter().cloned().collect());
    }
    if !grant.pool.is_empty() {
        principal.pools = Some(grant.pool.iter().cloned().collect());
    }
    principal.quota_bytes = grant.quota.map(|quota| quota.0).or(principal.quota_bytes);
    if grant.burst.is_some() || grant.per_minute.is_some() {
        let before = principal.rate.unwrap_or_default();
        principal.rate = Some(RateLimit {
            burst: grant.burst.unwrap_or(before.burst),
            per_minute: grant.per_minute.unwrap_or(before.per_minute),
        });
    }
    principal.expires_on = grant.valid.map(|valid| now.later_by(valid.value() as u64)).or(principal.expires_on);
    let shown = Row::of(&id, &principal, 0);
    change(identity, gate, kind, &format!("principal {} {id}", principal.name), |rules, _| {
        rules.revoked_keys.remove(&id);
        rules.principals.insert(id, principal);
    })?;
    ui.result(&shown, || format!("{} {} may now: {}\n", shown.name, shown.key, shown.roles.join(", ")))
}

fn revoke(ui: &Ui, identity: &Identity, gate: &mut Gate, who: &str) -> Done {
    let rules = gate.rules().map_err(|e| access::failure(&e))?;
    let directory = rules.directory();
    let key = directory.find(who).filter(|id| directory.principals.contains_key(id));
    let lease = who.parse::<Nonce>().ok().filter(|lease| key.is_none() && directory.lent.contains_key(lease));
    if key.is_none() && lease.is_none() {
        return Err(Failure::new(
            Code::Usage,
            format!("{who:?} is neither one principal nor a lease that was lent here"),
        )
        .remedy("see `isotherm access list`, or name the key id; a lease that has ended needs no revocation"));
    }
    change(identity, gate, EventKind::TokenRevoked, who, |rules, _| {
        rules.revoked_leases.extend(lease);
        rules.revoked_keys.extend(key);
    })?;
    ui.result(&who, || format!("{who} counts for nothing from now on\n"))
}

fn decide(gate: &mut Gate, identity: &Identity, asked: &Asked) -> Result<(KeyId, Decision), Failure> {
    let permission = asked.permission.parse().map_err(|e: Unknown| Failure::new(Code::Usage, e.to_string()))?;
    let rules = gate.rules().map_err(|e| access::failure(&e))?;
    let principal = match &asked.principal {
        Some(name) => somebody(rules.directory(), name)?,
        None => identity.id(),
    };
    let question = Question {
        principal,
        permission,
        device: &asked.device,
        now: trust::now()?,
        used_bytes: gate.ledger().used(principal).map_err(|e| access::failure(&e.into()))?,
        request_bytes: asked.memory.0,
        lease: None,
    };
    Ok((principal, rules.decide(&question)))
}

/// A check is a decision, so the log has it.
fn logged(identity: &Identity, principal: KeyId, asked: &Asked, decision: &Decision) -> Done {
    let (kind, result) = if decision.allowed {
        (EventKind::DeviceInfo, EventResult::Success)
    } else {
        (EventKind::SecurityAccessDenied, EventResult::Denied)
    };
    let mut event = Event::new(kind, trust::now()?, principal).ended(result);
    event.device = Some(asked.device.clone());
    event.operation = Some(asked.permission.clone());
    event.error = (!decision.allowed).then(|| decision.because());
    event.metadata.insert("check".to_owned(), true.into());
    trust::record_all(identity, &[event]).map(|_| ())
}

fn denied(asked: &Asked, decision: &Decision) -> Failure {
    let on = if asked.device == SYSTEM { String::new() } else { format!(" on {}", asked.device) };
    Failure::new(Code::Denied, format!("{}{on} is denied: {}", asked.permission, decision.because()))
}

fn lend_lease(ui: &Ui, identity: &Identity, gate: &mut Gate, lend: &LendLease) -> Done {
    let now = trust::now()?;
    let seconds = lend.valid.value() as u64;
    if seconds == 0 || seconds > LEASE_SECONDS_MAX {
        let most = Seconds::of(LEASE_SECONDS_MAX as f64);
        return Err(Failure::new(Code::Usage, format!("--valid is {}; give up to {most}", lend.valid)));
    }
    let scopes: BTreeSet<Permission> = asked_for(&lend.scope)?.into_iter().collect();
    let principal = somebody(gate.rules().map_err(|e| access::failure(&e))?.directory(), &lend.to)?;
    let claim = Lease {
        lease_id: trust::nonce()?,
        cluster_id: trust::LOCAL_CLUSTER.to_owned(),
        principal,
        scopes: scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        devices: (!lend.device.is_empty()).then(|| lend.device.iter().cloned().collect()),
        memory_bytes_max: lend.memory.map(|memory| memory.0),
        created_on: now,
        not_before: now,
        expires_on: now.later_by(seconds),
    };
    let (lent, until) = (claim.lease_id, claim.expires_on);
    let shown =
        Lent { lease: claim.lease_id.to_string(), to: principal.to_string(), until: claim.expires_on.to_string() };
    let sealed = isotherm_audit::seal(&lease(claim), &[identity])
        .map_err(|e| Failure::io(format!("failed to sign the lease: {}", crate::models::causes(&e))))?;
    // Only an administrator lends, and the log has it before anybody holds it.
    let mut event = Event::new(EventKind::TokenIssued, now, identity.id()).ended(EventResult::Success);
    event.subjects.insert("lease".to_owned(), sealed.payload_digest);
    event.metadata.insert("to".to_owned(), shown.to.as_str().into());
    gate.administer(identity.id(), now, vec![event], &mut access::recorder(identity), |rules, _| {
        rules.lent.retain(|_, until| *until > now);
        rules.lent.insert(lent, until);
    })
    .map_err(|e| access::failure(&e))?;
    files::write(&lend.output, &sealed.envelope)?;
    ui.result(&shown, || format!("lease {} for {} until {}\n", shown.lease, shown.to, shown.until))
}

/// Signs what a job does under a lease, in the order in which the other host's door asks for it.
fn use_lease(ui: &Ui, identity: &Identity, using: &UseLease) -> Done {
    let now = trust::now()?;
    let lease = open_lease(&files::read(&using.lease)?, &trust::believed(1)?, now, trust::LOCAL_CLUSTER)
        .map_err(|e| crate::commands::verify::refused(&using.lease, &e))?;
    if lease.predicate.principal != identity.id() {
        return Err(Failure::new(Code::Usage, format!("the lease is for the key {}", lease.predicate.principal))
            .remedy("sign its uses with that key"));
    }
    let mut asked: Vec<(Permission, String, u64)> = Vec::new();
    match &using.manifest {
        Some(path) => {
            let inspected = trust::trusted(1)?.inspect(&files::read(path)?, now);
            let inspected = inspected.map_err(|e| crate::commands::verify::refused(path, &e))?;
            for permission in RUNNING {
                let on = inspected.statement.predicate.placements.iter();
                asked.extend(on.map(|on| (permission, on.device.clone(), on.memory_bytes)));
            }
        }
        None => {
            for permission in asked_for(&using.permission)? {
                asked.extend(using.device.iter().map(|device| (permission, device.clone(), using.memory.0)));
            }
        }
    }
    let mut uses = Vec::new();
    for (permission, device, bytes) in asked {
        let memory_bytes = (permission == Permission::MemoryAllocate && bytes > 0).then_some(bytes);
        let operation = permission.name().to_owned();
        let claim = LeaseUse { operation, device, memory_bytes, nonce: trust::nonce()?, made_on: now };
        let sealed = isotherm_audit::seal(&lease_use(lease.payload_digest(), claim), &[identity])
            .map_err(|e| Failure::io(format!("failed to sign a use: {}", crate::models::causes(&e))))?;
        let envelope: serde_json::Value =
            serde_json::from_slice(&sealed.envelope).map_err(|e| Failure::io(e.to_string()))?;
        uses.push(envelope);
    }
    files::write_json(&using.output, &uses)?;
    ui.result(&uses.len(), || {
        format!("{} uses in {}; they count for {USE_SECONDS_MAX} s\n", uses.len(), using.output.display())
    })
}

#[derive(Serialize)]
struct Lent {
    lease: String,
    to: String,
    until: String,
}

#[derive(Serialize)]
struct Answer {
    allowed: bool,
    principal: String,
    permission: String,
    device: String,
    policies: Vec<String>,
    reasons: Vec<String>,
}

impl Answer {
    fn of(asked: &Asked, principal: KeyId, decision: &Decision) -> Self {
        Self {
            allowed: decision.allowed,
            principal: principal.to_string(),
            permission: asked.permission.clone(),
            device: asked.device.clone(),
            policies: decision.policies.clone(),
            reasons: decision.reasons.clone(),
        }
    }

    fn text(&self) -> String {
        let verdict = if self.allowed { "allowed" } else { "denied" };
        let mut text = format!("{} on {} is {verdict} for {}\n", self.permission, self.device, self.principal);
        for (policy, reason) in self.policies.iter().zip(&self.reasons) {
            text.push_str(&format!("  policy {policy}: {reason}\n"));
        }
        if self.policies.is_empty() {
            text.push_str(&format!("  {}\n", self.reasons.join("; ")));
        }
        text
    }
}

#[derive(Serialize)]
struct Listing {
    principals: Vec<Row>,
    pools: std::collections::BTreeMap<String, BTreeSet<String>>,
    cordoned: BTreeSet<String>,
    policies: Vec<String>,
    policy_digest: String,
}

#[derive(Serialize)]
struct Row {
    key: String,
    name: String,
    roles: Vec<String>,
    quota_bytes: Option<u64>,
    held_bytes: u64,
    expires_on: Option<String>,
    revoked: bool,
}

impl Row {
    fn of(id: &KeyId, principal: &Principal, held_bytes: u64) -> Self {
        Self {
            key: id.to_string(),
            name: principal.name.clone(),
            roles: principal.roles.iter().map(ToString::to_string).collect(),
            quota_bytes: principal.quota_bytes,
            held_bytes,
            expires_on: principal.expires_on.map(|time| time.to_string()),
            revoked: false,
        }
    }
}

fn list(ui: &Ui, gate: &mut Gate) -> Done {
    let rules = gate.rules().map_err(|e| access::failure(&e))?;
    let directory = rules.directory();
    let mut principals = Vec::new();
    for (id, principal) in &directory.principals {
        let held = gate.ledger().used(*id).map_err(|e| access::failure(&e.into()))?;
        principals.push(Row { revoked: directory.revoked_keys.contains(id), ..Row::of(id, principal, held) });
    }
    let listing = Listing {
        principals,
        pools: directory.pools.clone(),
        cordoned: directory.cordoned.clone(),
        policies: rules.policies().map(|(id, _)| id.to_owned()).collect(),
        policy_digest: rules.digest().to_string(),
    };
    ui.result(&listing, || {
        let mut rows = vec![["name", "key", "roles", "holds", "quota", "until"].map(str::to_owned).to_vec()];
        rows.extend(listing.principals.iter().map(|row| {
            let quota = row.quota_bytes.map_or_else(|| "-".to_owned(), |quota| Bytes(quota).to_string());
            let until = if row.revoked { Some("revoked".to_owned()) } else { row.expires_on.clone() };
            let (key, roles) = (row.key[..16].to_owned(), row.roles.join(", "));
            let until = until.unwrap_or_else(|| "-".to_owned());
            vec![row.name.clone(), key, roles, Bytes(row.held_bytes).to_string(), quota, until]
        }));
        let mut text = table(&rows, &[3, 4]);
        for (pool, devices) in &listing.pools {
            text.push_str(&format!("\n  pool {pool}: {}", devices.iter().cloned().collect::<Vec<_>>().join(", ")));
        }
        format!("{text}\n  policies: {}\n", listing.policies.join(", "))
    })
}

/// Lists of this module's own doors, so that what a command asks for stands in one place. Running a plan takes memory, puts
/// weights and activations there, computes, waits for the device and reads what it computed. Stages hand over through the
/// host, so nothing goes from device to device here.
pub const RUNNING: [Permission; 5] = [
    Permission::MemoryAllocate,
    Permission::MemoryCopyToDevice,
    Permission::ComputeExecute,
    Permission::ComputeSynchronize,
    Permission::MemoryCopyFromDevice,
];
/// What measuring a device with a model's layers takes.
pub const PROBING: [Permission; 6] = [
    Permission::DeviceInfo,
    Permission::MemoryAllocate,
    Permission::MemoryCopyToDevice,
    Permission::ComputeExecute,
    Permission::ComputeSynchronize,
    Permission::MemoryCopyFromDevice,
];
/// What measuring several cards takes beside it: whether one reaches the other's memory is tried.
pub const PAIRING: [Permission; 1] = [Permission::MemoryCopyDeviceToDevice];
/// What identifying how a device warms takes: it is kept busy alone for minutes, and its sensors are read.
pub const HEATING: [Permission; 5] = [
    Permission::DeviceAllocate,
    Permission::ComputeExecute,
    Permission::ComputeSynchronize,
    Permission::MonitorTemperature,
    Permission::MonitorPower,
];
/// What adding what is known of a device takes.
pub const DESCRIBING: [Permission; 1] = [Permission::DeviceInfo];
/// What taking all the memory that a plan needs, and giving it up again, takes.
pub const FILLING: [Permission; 3] =
    [Permission::MemoryAllocate, Permission::MemoryCopyToDevice, Permission::MemoryCopyFromDevice];
/// What measuring the way to another host takes.
pub const REACHING: [Permission; 2] = [Permission::DeviceInfo, Permission::ComputeExecute];
/// What watching takes.
pub const MONITORING: [Permission; 4] =
    [Permission::MonitorTemperature, Permission::MonitorPower, Permission::MonitorClock, Permission::MonitorMemory];
/// What listing takes.
pub const LISTING: [Permission; 1] = [Permission::DeviceList];
/// What sealing takes: whoever may not run on a device gives nobody leave to.
pub const SEALING: [Permission; 1] = [Permission::ComputeExecute];

/// A door that takes no memory: decided, logged, and done with.
pub fn pass(identity: &Identity, wish: &Wish<'_>) -> Result<isotherm_core::digest::Digest, Failure> {
    let mut gate = access::gate(identity)?;
    access::enter(&mut gate, identity, wish).map(|admission| admission.policy_digest)
}
