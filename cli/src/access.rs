//! The doors of this host: each request to a device goes through the gate, which decides, books and logs.

use crate::failure::{Code, Failure};
use crate::{files, trust};
use isotherm_access::authority::PolicyError;
use isotherm_access::directory::DirectoryError;
use isotherm_access::gate::Request;
use isotherm_access::{Admission, Directory, Gate, GateError, Permission};
use isotherm_audit::Verified;
use isotherm_audit::keys::{Identity, TrustedKeys};
use isotherm_audit::lease::{SignedLease, open_lease};
use isotherm_audit::log::Event;
use isotherm_core::digest::Digest;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the first administrator of a host.
const FIRST_NAME: &str = "owner";

/// Folder of this host's rules and books.
pub fn directory() -> Result<PathBuf, Failure> {
    files::home().map(|home| home.join("access"))
}

/// Makes the rules of a host that has none: its own key is the administrator. Says whether they were made now.
pub fn begin(identity: &Identity) -> Result<bool, Failure> {
    let first = Directory::first(FIRST_NAME, identity.public(), trust::now()?);
    let first = first.map_err(|e| Failure::io(e.to_string()))?;
    Gate::begin(&directory()?, &first).map_err(|e| failure(&e))
}

/// The gate of this host. What jobs held that are gone is given back first.
pub fn gate(identity: &Identity) -> Result<Gate, Failure> {
    let gate = Gate::open(&directory()?).map_err(|e| failure(&e))?;
    let ended = gate.ledger().sweep(trust::now()?, alive).map_err(|e| failure(&e.into()))?;
    if !ended.is_empty() {
        let mut swept = Event::new(isotherm_audit::log::EventKind::QuotaSwept, trust::now()?, identity.id());
        swept.metadata.insert("bookings".to_owned(), i64::try_from(ended.len()).unwrap_or(i64::MAX).into());
        trust::record_all(identity, &[swept])?;
    }
    Ok(gate)
}

/// Somebody else than this host's own key, who comes under a lease that this host signed.
pub struct Guest {
    lease: Verified<SignedLease>,
    uses: Vec<Vec<u8>>,
}

impl Guest {
    /// The guest whose lease and uses are named; `None` where none is.
    ///
    /// Errors: a lease that this host's key did not sign, or whose time is not now; uses that are no list of envelopes.
    pub fn open(identity: &Identity, named: &crate::args::Guest) -> Result<Option<Self>, Failure> {
        let (Some(lease), Some(uses)) = (&named.lease, &named.uses) else { return Ok(None) };
        let own = TrustedKeys::new([identity.public().clone()], 1).map_err(|e| Failure::io(e.to_string()))?;
        let opened = open_lease(&files::read(lease)?, &own, trust::now()?, trust::LOCAL_CLUSTER);
        let opened = opened.map_err(|e| crate::commands::verify::refused(lease, &e))?;
        let list: Vec<serde_json::Value> =
            serde_json::from_slice(&files::read(uses)?).map_err(|e| Failure::file(uses, e))?;
        let signed = list.iter().map(|envelope| envelope.to_string().into_bytes()).collect();
        Ok(Some(Self { lease: opened, uses: signed }))
    }
}

/// Something a command wants to do with devices.
pub struct Wish<'a> {
    /// The holder of a lease who wants it; this host's own key where absent.
    pub guest: Option<&'a Guest>,
    /// What.
    pub permissions: &'a [Permission],
    /// On which devices, and how much memory of each.
    pub devices: &'a [(&'a str, u64)],
    /// The files it is about, by their role, for the log.
    pub subjects: &'a [(&'a str, Digest)],
}

impl Wish<'_> {
    /// The wish as a request to the gate, now.
    pub fn request<'a>(&'a self, identity: &Identity, owner: &'a str) -> Result<Request<'a>, Failure> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Request {
            principal: self.guest.map_or_else(|| identity.id(), |guest| guest.lease.predicate.principal),
            permissions: self.permissions,
            devices: self.devices,
            lease: self.guest.map(|guest| (&guest.lease, guest.uses.as_slice())),
            now: trust::now()?,
            now_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            owner,
            subjects: self.subjects,
        })
    }
}

/// Goes through the gate: every decision is logged before this returns, and a denial ends the command with 8.
pub fn enter(gate: &mut Gate, identity: &Identity, wish: &Wish<'_>) -> Result<Admission, Failure> {
    let owner = owner();
    let request = wish.request(identity, &owner)?;
    gate.enter(&request, &mut recorder(identity)).map_err(|e| failure(&e))
}

/// What timing the arithmetic of devices takes.
const TIMING: [Permission; 2] = [Permission::ComputeExecute, Permission::ComputeSynchronize];

/// The door of commands that only time the arithmetic of this host's devices. Where the host has rules they count here
/// too; on a host that has none yet, whoever runs the command would be its administrator.
pub fn timing(devices: &[&str]) -> Result<(), Failure> {
    let Some(identity) = crate::commands::audit::identity_if_any()? else { return Ok(()) };
    begin(&identity)?;
    let devices: Vec<(&str, u64)> = devices.iter().map(|device| (*device, 0)).collect();
    if devices.is_empty() {
        return Ok(());
    }
    let wish = Wish { guest: None, permissions: &TIMING, devices: &devices, subjects: &[] };
    enter(&mut gate(&identity)?, &identity, &wish).map(|_| ())
}

/// Writes the gate's decisions to this host's log.
pub fn recorder(identity: &Identity) -> impl FnMut(Vec<Event>) -> Result<(), String> + '_ {
    move |events| trust::record_all(identity, &events).map(|_| ()).map_err(|failure| failure.message)
}

/// A refusal leaves with 8; whatever else went wrong does not look like one.
pub fn failure(error: &GateError) -> Failure {
    let text = crate::models::causes(error);
    if error.is_refusal() {
        return Failure::new(Code::Denied, text).remedy(
            "ask why with `isotherm access explain`, or an administrator to change it with `isotherm access grant`",
        );
    }
    match error {
        // What was asked for is at fault here, not what is in force.
        GateError::LockedOut { .. } => Failure::new(Code::Verification, text)
            .remedy("let another key do it: give it the role admin, and run the command as that one"),
        GateError::Directory(DirectoryError::Identifier { .. } | DirectoryError::Name { .. })
        | GateError::Policy(PolicyError::Undecided { .. }) => Failure::new(Code::Verification, text),
        GateError::Directory(_) | GateError::Policy(_) | GateError::Key(_) => {
            Failure::new(Code::Verification, format!("the access rules of this host cannot be relied on: {text}"))
        }
        _ => Failure::io(text),
    }
}

/// This process, in a way that no later process with the same number is taken for it.
pub fn owner() -> String {
    let pid = std::process::id();
    started(pid).map_or_else(|| format!("{pid}"), |start| format!("{pid}@{start}"))
}

/// When a process began, in clock ticks since the kernel did; `None` where the kernel does not say or there is none.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of a program may hold anything, so what counts begins after its last bracket.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether the process that took memory is still there. Where nothing says so, it is taken to be.
fn alive(owner: &str) -> bool {
    let Some((pid, start)) = owner.split_once('@') else { return true };
    match (pid.parse::<u32>(), start.parse::<u64>()) {
        (Ok(pid), Ok(start)) => started(pid) == Some(start),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_is_alive_until_it_is_gone_and_a_later_one_of_its_number_is_another() {
        let own = owner();
        assert!(alive(&own));
        let (pid, start) = own.split_once('@').expect("linux says when it began");
        let start: u64 = start.parse().expect("ticks");
        assert!(!alive(&format!("{pid}@{}", start + 1)));
        let mut child = std::process::Command::new("true").spawn().expect("true starts");
        let id = format!("{}@{start}", child.id());
        child.wait().expect("it ends");
        assert!(!alive(&id));
        assert!(alive("somebody else"));
    }
}
