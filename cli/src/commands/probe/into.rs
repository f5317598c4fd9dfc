//! Measured links in a file of devices, and keeping them fresh: what is old or contradicted is measured again.

use super::link::{self, One};
use crate::args::Probe;
use crate::failure::{Code, Done, Failure};
use crate::ui::Ui;
use crate::{files, interrupt, trust};
use isotherm_audit::keys::Identity;
use isotherm_audit::log::{EventKind, Severity};
use isotherm_audit::time::Timestamp;
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DEVICES_SCHEMA, DevicesFile, Link, LinkKind, SharedCapacity};
use isotherm_core::units::{BytesPerSecond, Seconds};
use isotherm_runtime::link::{Contention, Freshness, Known, Sweep};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The devices' file, and the place in it where this host's links begin: where requests come in, else a junction of the
/// host's name.
fn opened(path: &Path) -> Result<(DevicesFile, String), Failure> {
    let (mut file, _) = files::read_artefact::<DevicesFile>(path, DEVICES_SCHEMA)?;
    let here = file.coordinator.clone().unwrap_or_else(trust::host_id);
    if !file.junctions.contains(&here) && !file.devices.iter().any(|device| device.name == here) {
        file.junctions.push(here.clone());
    }
    Ok((file, here))
}

/// Writes links into a file of devices: a junction for each host that answered, and both directions of its link; where
/// two links were found to share something, what they carry together bounds both.
pub(super) fn write(path: &Path, links: &[One], contention: Option<&Contention>) -> Result<(), Failure> {
    let (mut file, here) = opened(path)?;
    let now = trust::now()?.to_string();
    for one in links {
        put(&mut file, &here, one, &now);
    }
    if let (Some(found), [first, second, ..]) = (contention.filter(|found| found.shared), links) {
        let name = format!("{} and {}", first.peer, second.peer);
        let rate = BytesPerSecond::of((found.together.0 + found.together.1).max(1.0));
        let figure = Figure::measured(rate, "both links busy at once", 1, 0.0, Some(now));
        file.groups.retain(|group| group.name != name);
        file.groups.push(SharedCapacity { name: name.clone(), bandwidth_bytes_per_second: figure });
        for link in
            file.links.iter_mut().filter(|link| link.from == here && [&first.peer, &second.peer].contains(&&link.to))
        {
            link.groups.retain(|group| *group != name);
            link.groups.push(name.clone());
        }
    }
    files::write_json(path, &file).map(|_| ())
}

fn put(file: &mut DevicesFile, here: &str, one: &One, now: &str) {
    if !file.junctions.contains(&one.peer) {
        file.junctions.push(one.peer.clone());
    }
    for (from, to, sweep) in [(here, one.peer.as_str(), &one.measured.away), (&one.peer, here, &one.measured.towards)] {
        let groups = file.links.iter().find(|link| link.from == from && link.to == to).map(|link| link.groups.clone());
        file.links.retain(|link| link.from != from || link.to != to);
        file.links.push(link_of(from, to, sweep, now, groups.unwrap_or_default()));
    }
}

fn link_of(from: &str, to: &str, sweep: &Sweep, now: &str, groups: Vec<String>) -> Link {
    let samples = sweep.points.iter().map(|point| point.samples).sum();
    // The fit's own residual says how far one line is from all sizes.
    let spread = sweep.fit.map_or(0.0, |fit| fit.residual);
    let when = || Some(now.to_owned());
    let source = "messages of 1 B and more, acknowledged, in powers of two";
    Link {
        from: from.to_owned(),
        to: to.to_owned(),
        kind: LinkKind::Socket,
        latency_seconds: sweep
            .fit
            .and_then(|fit| Seconds::new(fit.latency_seconds).ok())
            .map(|latency| Figure::measured(latency, source, samples, spread, when())),
        bandwidth_bytes_per_second: sweep
            .fit
            .and_then(|fit| BytesPerSecond::new(fit.bytes_per_second).ok())
            .filter(|rate| rate.value() >= 1.0)
            .map(|rate| Figure::measured(rate, source, samples, spread, when())),
        tokens_per_second: None,
        groups,
    }
}

/// What a look at a link came to.
#[derive(Serialize)]
struct Looked {
    peer: String,
    #[serde(flatten)]
    freshness: Freshness,
    measured_again: bool,
}

/// Looks at each named link and measures again those that are old or contradicted; once, or every so often until Ctrl-C.
pub(super) fn refresh(ui: &Ui, args: &Probe, identity: &Identity, path: &Path) -> Done {
    let age_max = Duration::from_secs_f64(args.links.age_max.value().clamp(0.0, 1e9));
    let mut next = Instant::now();
    loop {
        let mut looked = Vec::new();
        for peer in &args.links.peer {
            looked.push(look(ui, args, identity, path, *peer, age_max)?);
        }
        ui.result(&looked, || looked.iter().map(words).collect())?;
        let Some(every) = args.links.every else { return Ok(()) };
        next += Duration::from_secs_f64(every.value().clamp(0.1, 1e6));
        while Instant::now() < next {
            if interrupt::flag().load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50).min(next.saturating_duration_since(Instant::now())));
        }
    }
}

fn look(
    ui: &Ui,
    args: &Probe,
    identity: &Identity,
    path: &Path,
    peer: SocketAddr,
    age_max: Duration,
) -> Result<Looked, Failure> {
    let (file, here) = opened(path)?;
    let name = peer.to_string();
    let known = file.links.iter().find(|link| link.from == here && link.to == name).map(known);
    let known = known.transpose()?;
    let mut open = link::open(args, peer)?;
    let freshness = match known {
        None => Freshness::Stale,
        Some(known) => {
            let glance = open.glance(&known).map_err(|e| link::failed(peer, &e))?;
            known.judged(&glance, age_max)
        }
    };
    let measured_again = freshness != Freshness::Holds;
    if measured_again {
        ui.note(format!("measuring the link to {peer} again"));
        let one = link::measured(args, &mut open, peer)?;
        write(path, &[one], None)?;
        let why = words_of(&freshness);
        let note = trust::Note::default().with("link", name.as_str()).with("measured_again_because", why.as_str());
        trust::record(identity, EventKind::Probe, Severity::Info, note)?;
    }
    Ok(Looked { peer: name, freshness, measured_again })
}

fn known(link: &Link) -> Result<Known, Failure> {
    let (latency, rate) = (link.latency_seconds.as_ref(), link.bandwidth_bytes_per_second.as_ref());
    let when = rate.and_then(|figure| figure.when.as_deref()).or_else(|| latency?.when.as_deref());
    let age = match when.map(str::parse::<Timestamp>) {
        Some(Ok(then)) => Some(Duration::from_secs(trust::now()?.unix_seconds().saturating_sub(then.unix_seconds()))),
        Some(Err(error)) => return Err(Failure::new(Code::Io, error.to_string())),
        None => None,
    };
    Ok(Known {
        latency_seconds: latency.map(|figure| figure.value.value()),
        bytes_per_second: rate.map(|figure| figure.value.value()),
        spread: rate.and_then(|figure| figure.spread).unwrap_or(0.0),
        age,
    })
}

fn words_of(freshness: &Freshness) -> String {
    match freshness {
        Freshness::Holds => "it holds".to_owned(),
        Freshness::Stale => "it is older than what is trusted, or nobody knows how old".to_owned(),
        Freshness::Contradicted { why } => why.clone(),
    }
}

fn words(looked: &Looked) -> String {
    let then = if looked.measured_again { "; measured again" } else { "" };
    format!("  {}: {}{then}\n", looked.peer, words_of(&looked.freshness))
}
