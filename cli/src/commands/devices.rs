//! `isotherm devices`: what is known of each device, and how.

use crate::args::Devices;
use crate::failure::{Done, Failure};
use crate::receipts::{Checked, Refused, Standing};
use crate::roots::roots;
use crate::ui::{Ui, table};
use crate::{files, models, registry};
use isotherm_core::device::{Device, Support};
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile, Link, LinkKind};
use isotherm_core::units::Bytes;
use isotherm_runtime::backend::routes::{self, Found, Route, Routes};
use isotherm_runtime::engine::Kernels;
use isotherm_runtime::probe::conditions;
use serde::Serialize;
use std::fmt::Display;

pub mod here;
mod score;

/// Runs the command.
pub fn run(ui: &Ui, args: &Devices) -> Done {
    if args.here {
        return here::run(ui);
    }
    let path = match &args.file {
        Some(path) => path.clone(),
        None => registry::last_devices()?,
    };
    if !path.exists() && args.file.is_some() {
        return Err(Failure::io(format!("{} does not exist", path.display())).remedy("run `isotherm probe`"));
    }
    let routes = Routes::discover(routes::platforms(), &[]);
    let standing = Standing::of(&routes);
    if !path.exists() {
        // Nothing was measured yet, but what is there can be said.
        let routes_now = listed(&routes, &standing, None);
        let text = format!("{}\n  not measured yet: run `isotherm probe`\n", ways(&routes, &standing, &routes_now));
        let refused = standing.refused;
        return ui.result(&Seen { devices: None, stale: Vec::new(), routes: routes_now, refused }, || text);
    }
    let (mut file, _) = files::read_artefact::<DevicesFile>(&path, DEVICES_SCHEMA)?;
    if let Some(model) = &args.model {
        let model = models::open(ui, model)?;
        let scores = score::scores(&file, &model);
        return ui.result(&scores, || score::text(&scores, &model));
    }
    let stale = stale(&file);
    // What the file says of its devices was so when it was written. Receipts are asked anew.
    for device in &mut file.devices {
        device.support = standing.of_measured(&routes, device);
    }
    let said: String = stale.iter().map(|one| format!("  stale: {}: {}; probe again\n", one.device, one.why)).collect();
    let routes_now = listed(&routes, &standing, Some(&file));
    let text = format!("{}{said}\n{}", describe(&file), ways(&routes, &standing, &routes_now));
    let refused = standing.refused;
    ui.result(&Seen { devices: Some(&file), stale, routes: routes_now, refused }, || text)
}

/// The measured devices, and what is found now.
#[derive(Serialize)]
struct Seen<'a> {
    #[serde(flatten)]
    devices: Option<&'a DevicesFile>,
    /// Profiles that speak of another state of their device than it is in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stale: Vec<Stale>,
    routes: Vec<Way>,
    /// Receipts that count for nothing here, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<Refused>,
}

/// A profile that was measured under conditions that do not hold any more.
#[derive(Serialize)]
struct Stale {
    device: String,
    why: String,
}

/// The profiles of a file that what is here now contradicts. A device that is not here contradicts nothing.
fn stale(file: &DevicesFile) -> Vec<Stale> {
    let Ok(graph) = DeviceGraph::new(file.clone()) else { return Vec::new() };
    let of = |device: &Device| {
        let before = device.profiles.first()?.conditions.as_ref()?;
        let here = isotherm_runtime::execute::device(&graph, &device.name).ok()?;
        let reasons = before.contradicted_by(&conditions(&roots(), &here, Kernels::detect()));
        (!reasons.is_empty()).then(|| Stale { device: device.name.clone(), why: reasons.join(", ") })
    };
    file.devices.iter().filter_map(of).collect()
}

/// One way to one device.
#[derive(Serialize)]
struct Way {
    device: String,
    backend: &'static str,
    preferred: bool,
    interface: String,
    name: String,
    hardware: &'static str,
    driver: Option<String>,
    pci: Option<String>,
    uuid: Option<String>,
    memory_bytes: Option<u64>,
    support: Support,
    /// The newest self-test of this way to this very card; absent where none counts.
    checked: Option<Checked>,
}

fn listed(routes: &Routes, standing: &Standing, file: Option<&DevicesFile>) -> Vec<Way> {
    let measured = |route: &Route| {
        file.into_iter().flat_map(|file| &file.devices).any(|device| {
            let (uuid, pci) = (device.uuid.as_deref(), device.pci.as_deref());
            let now = routes.find(&device.backend, &device.name, uuid, pci);
            now.is_some_and(|now| (now.info.backend, now.info.index) == (route.info.backend, route.info.index))
        })
    };
    let of = |(d, found): (usize, &Found)| {
        let way = |(i, route): (usize, &Route)| Way {
            device: found.name.clone(),
            backend: route.info.backend,
            preferred: i == 0,
            interface: route.info.interface.clone(),
            name: route.info.name.clone(),
            hardware: route.info.hardware.name(),
            driver: route.info.driver.clone(),
            pci: route.info.pci.clone(),
            uuid: route.info.uuid.clone(),
            memory_bytes: route.info.memory_bytes,
            support: standing.support(routes, d, i, measured(route)),
            checked: standing.checked(d, i).cloned(),
        };
        found.routes.iter().enumerate().map(way).collect::<Vec<_>>()
    };
    routes.devices.iter().enumerate().flat_map(of).collect()
}

/// What the interfaces of this host find now, beside the processor.
fn ways(routes: &Routes, standing: &Standing, listed: &[Way]) -> String {
    let heading = ["found now", "through", "state", "hardware", "driver", "memory", "PCI", "name"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let unknown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for way in listed {
        let through = format!("{} ({}){}", way.backend, way.interface, if way.preferred { "" } else { ", second" });
        rows.push(vec![
            way.device.clone(),
            through,
            support(way.support).to_owned(),
            way.hardware.to_owned(),
            unknown(way.driver.clone()),
            unknown(way.memory_bytes.map(|bytes| Bytes(bytes).to_string())),
            unknown(way.pci.clone()),
            way.name.clone(),
        ]);
    }
    let mut text = if rows.len() > 1 { table(&rows, &[5]) } else { String::new() };
    for way in listed {
        text.push_str(&format!("  {} through {}: {}\n", way.device, way.interface, checked(way)));
    }
    for Refused { file, why } in &standing.refused {
        text.push_str(&format!("  receipt {file} counts for nothing: {why}\n"));
    }
    for (backend, why) in &routes.absent {
        text.push_str(&format!("  {backend}: none ({why})\n"));
    }
    text
}

/// What was checked of a way to a device, and when, in words.
fn checked(way: &Way) -> String {
    let Some(checked) = &way.checked else {
        let what = "no self-test of it counts";
        return match way.support {
            Support::Experimental => format!("{}, which no self-test makes a card", way.hardware),
            Support::Partial => format!("{what}; a model's operations have run on it; `isotherm bench device --check`"),
            _ => format!("{what}; `isotherm bench device --check` runs one"),
        };
    };
    let (equal, positions) = checked.equal_top_tokens;
    let mut text = format!(
        "checked on {}: {} cases of the conformance suite, {} failed; {}{}, {equal} of {positions} top tokens; {} operations \
         timed; signed by {}",
        checked.when,
        checked.cases,
        checked.failed,
        checked.model,
        if checked.synthesised { " with random weights" } else { "" },
        checked.operations,
        checked.signer.get(..16).unwrap_or(&checked.signer),
    );
    for short in &checked.shortcomings {
        text.push_str(&format!("\n    does not hold: {short}"));
    }
    text
}

/// The devices, their links and how each figure is known, as text.
pub fn describe(file: &DevicesFile) -> String {
    let heading = ["device", "kind", "backend", "state", "memory", "bandwidth", "layer decode", "known by"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(file.devices.iter().map(row));
    let mut text: String = file.host.iter().map(|(key, value)| format!("  {key}: {value}\n")).collect();
    text.push('\n');
    text.push_str(&table(&rows, &[4, 5, 6]));
    if !file.links.is_empty() {
        let heading = ["from", "to", "way", "latency", "bandwidth", "known by"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(file.links.iter().map(link_row));
        text.push('\n');
        text.push_str(&table(&rows, &[3, 4]));
    }
    for set in &file.co_run {
        let factors: Vec<String> = set.slowdown.iter().map(|f| format!("{:.2}", f.value)).collect();
        let devices = set.devices.join(", ");
        text.push_str(&format!("\n  {devices} busy together: a step takes {} times as long\n", factors.join(", ")));
        for (device, own) in &set.slowdown_of {
            let factors: Vec<String> = own.iter().map(|f| format!("{:.2}", f.value)).collect();
            text.push_str(&format!("    of {device}: {}\n", factors.join(", ")));
        }
    }
    text
}

fn row(device: &Device) -> Vec<String> {
    let profile = device.profiles.first();
    let decode = profile.map(|p| (p.dense_seconds.at(1.0) + p.attention_decode_seconds.at(1.0, 128.0)).to_string());
    let known = profile.map(|p| match p.samples {
        Some(samples) => format!("{}, {samples} samples", p.how),
        None => p.how.to_string(),
    });
    vec![
        device.name.clone(),
        format!("{:?}", device.kind).to_lowercase(),
        device.backend.clone(),
        support(device.support).to_owned(),
        shown(device.memory_bytes.as_ref()),
        shown(device.memory_bandwidth_bytes_per_second.as_ref()),
        decode.unwrap_or_else(|| "unknown".to_owned()),
        known.unwrap_or_else(|| "not measured".to_owned()),
    ]
}

fn link_row(link: &Link) -> Vec<String> {
    let how = link.latency_seconds.as_ref().map_or("unknown".to_owned(), |f| match f.samples {
        Some(samples) => format!("{}, {samples} samples", f.how),
        None => f.how.to_string(),
    });
    let latency = shown(link.latency_seconds.as_ref());
    let bandwidth = shown(link.bandwidth_bytes_per_second.as_ref());
    vec![link.from.clone(), link.to.clone(), way(link.kind).to_owned(), latency, bandwidth, how]
}

const fn way(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::InProcess => "in memory",
        LinkKind::PeerToPeer => "card to card",
        LinkKind::HostStaged => "through the host",
        LinkKind::Pcie => "PCI Express",
        LinkKind::Socket => "socket",
        LinkKind::Rdma => "RDMA",
        LinkKind::Declared => "declared",
    }
}

fn shown<T: Display>(figure: Option<&Figure<T>>) -> String {
    figure.map_or_else(|| "unknown".to_owned(), |f| f.value.to_string())
}

const fn support(state: Support) -> &'static str {
    match state {
        Support::Supported => "supported",
        Support::Partial => "partial",
        Support::Experimental => "experimental",
        Support::Untested => "untested on hardware",
    }
}
