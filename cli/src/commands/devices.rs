//! `isotherm devices`: what is known of each device, and how.

use crate::args::Devices;
use crate::failure::{Done, Failure};
use crate::roots::roots;
use crate::ui::{Ui, table};
use crate::{files, models, registry};
use isotherm_core::device::{Device, Support};
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile, Link, LinkKind};
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
    if !path.exists() {
        // Nothing was measured yet, but what is there can be said.
        let seen = Seen { devices: None, stale: Vec::new(), routes: listed(&routes) };
        return ui.result(&seen, || format!("{}\n  not measured yet: run `isotherm probe`\n", ways(&routes)));
    }
    let (file, _) = files::read_artefact::<DevicesFile>(&path, DEVICES_SCHEMA)?;
    if let Some(model) = &args.model {
        let model = models::open(ui, model)?;
        let scores = score::scores(&file, &model);
        return ui.result(&scores, || score::text(&scores, &model));
    }
    let stale = stale(&file);
    let said: String = stale.iter().map(|one| format!("  stale: {}: {}; probe again\n", one.device, one.why)).collect();
    let text = format!("{}{said}\n{}", describe(&file), ways(&routes));
    ui.result(&Seen { devices: Some(&file), stale, routes: listed(&routes) }, || text)
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
}

fn listed(routes: &Routes) -> Vec<Way> {
    let of = |found: &Found| {
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
        };
        found.routes.iter().enumerate().map(way).collect::<Vec<_>>()
    };
    routes.devices.iter().flat_map(of).collect()
}

/// What the interfaces of this host find now, beside the processor.
fn ways(routes: &Routes) -> String {
    let heading = ["found now", "through", "hardware", "driver", "PCI", "name"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let unknown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for way in listed(routes) {
        let through = format!("{} ({}){}", way.backend, way.interface, if way.preferred { "" } else { ", second" });
        rows.push(vec![way.device, through, way.hardware.to_owned(), unknown(way.driver), unknown(way.pci), way.name]);
    }
    let mut text = if rows.len() > 1 { table(&rows, &[]) } else { String::new() };
    for (backend, why) in &routes.absent {
        text.push_str(&format!("  {backend}: none ({why})\n"));
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
