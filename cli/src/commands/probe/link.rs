//! Links to other hosts: answering those who measure theirs to this one, and measuring.

use super::into;
use crate::access::{Guest, Wish};
use crate::args::{Probe, ProbeLinks};
use crate::commands::access::{REACHING, pass};
use crate::failure::{Code, Done, Failure};
use crate::ui::{Ui, table};
use crate::{files, interrupt, models, trust};
use isotherm_audit::log::{EventKind, Severity};
use isotherm_core::units::{Bytes, BytesPerSecond, Seconds};
use isotherm_runtime::link::{
    Bounds, Contention, Link, LinkError, MESSAGE_BYTES_MAX, Measured, Secret, Sweep, contention, respond as answer,
};
use serde::Serialize;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

/// How long this side waits for the other.
const PATIENCE: Duration = Duration::from_secs(30);
/// Message of the test whether two links share something, as a share of what one carries in a second.
const CONTENTION_SECONDS: f64 = 2.0;

fn secret(links: &ProbeLinks) -> Result<Secret, Failure> {
    let path = links.secret.as_deref().unwrap_or(Path::new(""));
    Secret::new(&files::read(path)?).ok_or_else(|| {
        Failure::file(path, "holds fewer than 16 bytes")
            .remedy("draw one with `openssl rand -base64 32`, and copy it to both hosts")
    })
}

/// Answers until Ctrl-C.
pub fn respond(ui: &Ui, address: SocketAddr, links: &ProbeLinks) -> Done {
    let secret = secret(links)?;
    let identity = trust::identity(ui)?;
    pass(&identity, &Wish { guest: None, permissions: &REACHING, devices: &[("network", 0)], subjects: &[] })?;
    let listener = TcpListener::bind(address).map_err(|e| Failure::io(format!("cannot listen at {address}: {e}")))?;
    let bound = listener.local_addr().map_err(|e| Failure::io(e.to_string()))?;
    ui.result(&bound.to_string(), || format!("answering at {bound}\n"))?;
    answer(&listener, &secret, Bounds::default(), interrupt::flag()).map_err(|e| failed(bound, &e))
}

pub(super) fn failed(address: SocketAddr, error: &LinkError) -> Failure {
    let code = if matches!(error, LinkError::Stranger) { Code::Denied } else { Code::Device };
    Failure::new(code, format!("the link to {address}: {}", models::causes(error)))
}

#[derive(Serialize)]
struct Links {
    links: Vec<One>,
    contention: Option<Contention>,
}

/// A link and what was measured of it.
#[derive(Serialize)]
pub(super) struct One {
    pub(super) peer: String,
    #[serde(flatten)]
    pub(super) measured: Measured,
}

/// Opens a link to a host that answers.
pub(super) fn open(args: &Probe, peer: SocketAddr) -> Result<Link, Failure> {
    Link::open(peer, &secret(&args.links)?, PATIENCE).map_err(|e| failed(peer, &e))
}

/// Measures an open link in all directions.
pub(super) fn measured(args: &Probe, link: &mut Link, peer: SocketAddr) -> Result<One, Failure> {
    let budget = Duration::from_secs_f64(args.budget.value().clamp(0.1, 3600.0));
    let measured = link.measure(args.links.message.0, budget).map_err(|e| failed(peer, &e))?;
    Ok(One { peer: peer.to_string(), measured })
}

/// Measures the links to the named hosts, and whether the first two share something.
pub fn measure(ui: &Ui, args: &Probe) -> Done {
    let bytes_max = args.links.message.0;
    if bytes_max == 0 || bytes_max > MESSAGE_BYTES_MAX {
        let most = Bytes(MESSAGE_BYTES_MAX);
        return Err(Failure::new(Code::Usage, format!("--message is {}; give 1 B to {most}", args.links.message)));
    }
    let identity = trust::identity(ui)?;
    let guest = Guest::open(&identity, &args.guest)?;
    pass(
        &identity,
        &Wish { guest: guest.as_ref(), permissions: &REACHING, devices: &[("network", 0)], subjects: &[] },
    )?;
    if let (Some(path), true) = (&args.links.into, args.links.refresh) {
        return into::refresh(ui, args, &identity, path);
    }
    let (mut links, mut opened) = (Vec::new(), Vec::new());
    for peer in &args.links.peer {
        ui.note(format!("measuring the link to {peer}"));
        let mut link = open(args, *peer)?;
        links.push(measured(args, &mut link, *peer)?);
        opened.push(link);
    }
    let contention = match (opened.as_mut_slice(), links.as_slice()) {
        ([first, second, ..], [one, other, ..]) => {
            let rate = |one: &One| one.measured.away.fit.map_or(0.0, |fit| fit.bytes_per_second);
            let bytes = (rate(one).min(rate(other)) * CONTENTION_SECONDS) as u64;
            Some(contention(first, second, bytes).map_err(|e| failed(args.links.peer[1], &e))?)
        }
        _ => None,
    };
    let note = trust::Note::default().with("links", i64::try_from(links.len()).unwrap_or(i64::MAX));
    trust::record(&identity, EventKind::Probe, Severity::Info, note)?;
    if let Some(path) = &args.links.into {
        into::write(path, &links, contention.as_ref())?;
        ui.note(format!("wrote the links into {}", path.display()));
    }
    let measured = Links { links, contention };
    ui.result(&measured, || text(&measured))
}

fn text(found: &Links) -> String {
    let mut rows = vec![["peer", "direction", "latency", "rate", "residual", "sizes"].map(str::to_owned).to_vec()];
    let time = |seconds: f64| Seconds::new(seconds).map_or_else(|_| "-".to_owned(), |seconds| seconds.to_string());
    let rate = |rate: f64| BytesPerSecond::new(rate).map_or_else(|_| "-".to_owned(), |rate| rate.to_string());
    for One { peer, measured } in &found.links {
        let mut row = |direction: &str, sweep: &Sweep| {
            let fit = sweep.fit.as_ref();
            rows.push(vec![
                peer.clone(),
                direction.to_owned(),
                fit.map_or_else(|| "-".to_owned(), |fit| time(fit.latency_seconds)),
                fit.map_or_else(|| "-".to_owned(), |fit| rate(fit.bytes_per_second)),
                fit.map_or_else(|| "-".to_owned(), |fit| format!("{:.1} %", fit.residual * 100.0)),
                sweep.points.last().map_or_else(|| "-".to_owned(), |last| format!("to {}", Bytes(last.bytes))),
            ]);
        };
        row("away", &measured.away);
        row("towards", &measured.towards);
        row("there and back", &measured.there_and_back);
    }
    let mut text = table(&rows, &[2, 3, 4]);
    for One { peer, measured } in &found.links {
        let (trip, jitter) = (time(measured.round_trip_seconds), time(measured.jitter_seconds));
        text.push_str(&format!("\n  {peer}: round trip {trip}, jitter {jitter}"));
        if let Some((away, towards)) = measured.both {
            text.push_str(&format!("; both ways at once {} away, {} towards", rate(away), rate(towards)));
        }
    }
    if let Some(found) = &found.contention {
        let word = if found.shared { "share something" } else { "share nothing that was found" };
        let (one, other) = (rate(found.together.0), rate(found.together.1));
        text.push_str(&format!("\n  the first two links {word}: together {one} and {other}"));
    }
    text + "\n"
}
