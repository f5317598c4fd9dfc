//! Hosts, sites and the ways between devices.
//!
//! `[network]` saves writing a link for each pair. It builds a tree: devices hang on their host, hosts on their site,
//! sites on one place between them. The stated latency is what a small message takes between two devices of one host,
//! of two hosts of one site, or of two sites; each of the two legs gets half of what the level below does not take
//! already. The stated bandwidth is that of each leg, so that all traffic of one host shares its leg, as it shares a
//! network card.

use super::fault::{Fault, nearest};
use super::reader::{At, Reader, Says};
use crate::device::Device;
use crate::figure::{Figure, How};
use crate::graph::{CoRun, Link, LinkKind, SharedCapacity};
use crate::objective::{SINK, SOURCE};
use crate::units::{BytesPerSecond, Seconds, TokensPerSecond};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Most devices whose pairs `[flow]` connects one by one.
const FLOW_DEVICES_MAX: usize = 1_000;

/// Most links of a scenario.
const LINKS_MAX: usize = 1_000_000;

/// Where the sites of `[network]` meet.
const BETWEEN: &str = "between-sites";

/// Everything of a device graph but the devices.
#[derive(Debug, Default)]
pub(super) struct Network {
    pub(super) junctions: Vec<String>,
    pub(super) links: Vec<Link>,
    pub(super) groups: Vec<SharedCapacity>,
    pub(super) co_run: Vec<CoRun>,
    pub(super) coordinator: Option<String>,
}

/// Latency and bandwidth of one level.
#[derive(Debug, Clone)]
struct Level {
    latency: Figure<Seconds>,
    bandwidth: Figure<BytesPerSecond>,
    kind: LinkKind,
    groups: Vec<String>,
}

/// A host as the scenario describes it.
#[derive(Debug, Default)]
struct Host {
    site: Option<String>,
    uplink: Option<Level>,
    devices: Vec<String>,
    span: Range<usize>,
}

const KINDS: [(&str, LinkKind); 7] = [
    ("in_process", LinkKind::InProcess),
    ("peer_to_peer", LinkKind::PeerToPeer),
    ("host_staged", LinkKind::HostStaged),
    ("pcie", LinkKind::Pcie),
    ("socket", LinkKind::Socket),
    ("rdma", LinkKind::Rdma),
    ("declared", LinkKind::Declared),
];

fn says(reader: &Reader<'_, '_>) -> Says {
    let source = reader.text("source").map_or_else(|| "scenario".to_owned(), |s| s.value);
    Says { how: reader.how().unwrap_or(How::Declared), source }
}

/// Reads the network, and gives every device the site of its host.
pub(super) fn read(root: &Reader<'_, '_>, devices: &mut [At<Device>]) -> Network {
    let mut network = Network::default();
    for name in root.texts("junctions") {
        network.junctions.push(name.value);
    }
    for reader in root.tables("groups") {
        let (name, says) = (reader.name("name"), says(&reader));
        let bandwidth = reader.figure("bandwidth", &says);
        require(&reader, &["name", "bandwidth"]);
        if let (Some(name), Some(bandwidth_bytes_per_second)) = (name, bandwidth) {
            network.groups.push(SharedCapacity { name: name.value, bandwidth_bytes_per_second });
        }
        reader.done();
    }
    let hosts = hosts(root, devices);
    levels(root, &hosts, &mut network);
    flow(root, devices, &mut network);
    let places: Vec<String> =
        devices.iter().map(|d| d.value.name.clone()).chain(network.junctions.iter().cloned()).collect();
    links(root, &places, &mut network);
    cards(root, devices, &mut network);
    co_run(root, devices, &mut network);
    network.coordinator = root.name("coordinator").and_then(|name| place(root, "coordinator", &name, &places));
    unique_groups(root, &network);
    network
}

fn require(reader: &Reader<'_, '_>, keys: &[&str]) {
    for key in keys.iter().filter(|key| !reader.has(key)) {
        let example = match *key {
            "name" => "name = \"uplink\"",
            "latency" => "latency = \"1 ms\"",
            _ => "bandwidth = \"1 Gbit/s\"",
        };
        reader.missing(key, example);
    }
}

/// Every host in order of its first mention by a device, then those that only `[[hosts]]` knows.
fn hosts(root: &Reader<'_, '_>, devices: &mut [At<Device>]) -> Vec<(String, Host)> {
    let mut stated: BTreeMap<String, Host> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    for reader in root.tables("hosts") {
        let (name, site) = (reader.name("name"), reader.name("site").map(|s| s.value));
        let uplink = reader.table("uplink").and_then(level);
        require(&reader, &["name"]);
        if let Some(name) = name {
            let host = Host { site, uplink, devices: Vec::new(), span: reader.span.clone() };
            if stated.insert(name.value.clone(), host).is_some() {
                root.source.fault(name.span, Fault::Duplicate { what: "host", name: name.value });
            } else {
                order.push(name.value);
            }
        }
        reader.done();
    }
    let mut named: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    for At { value: device, span } in devices {
        if seen.insert(device.host.clone()) {
            named.push(device.host.clone());
        }
        let host = stated.entry(device.host.clone()).or_insert_with(|| Host { span: span.clone(), ..Host::default() });
        host.devices.push(device.name.clone());
        match (&device.site, &host.site) {
            (None, _) => device.site.clone_from(&host.site),
            // The first device of a host that nobody else places gives it its site.
            (Some(_), None) => host.site.clone_from(&device.site),
            (Some(own), Some(site)) if own != site => {
                let what =
                    format!("device {:?} is at site {own:?} and its host {:?} at {site:?}", device.name, device.host);
                let remedy = "a host is at one site: correct one of them".to_owned();
                root.source.fault(span.clone(), Fault::Conflict { what, remedy });
            }
            _ => {}
        }
    }
    named.extend(order.into_iter().filter(|name| !seen.contains(name)));
    named.into_iter().filter_map(|name| stated.remove_entry(&name)).collect()
}

fn level(reader: Reader<'_, '_>) -> Option<Level> {
    let says = says(&reader);
    let (latency, bandwidth) = (reader.figure("latency", &says), reader.figure("bandwidth", &says));
    let kind = reader.word("kind", &KINDS).unwrap_or(LinkKind::Declared);
    let groups = reader.texts("groups").into_iter().map(|g| g.value).collect();
    require(&reader, &["latency", "bandwidth"]);
    reader.done();
    Some(Level { latency: latency?, bandwidth: bandwidth?, kind, groups })
}

/// Both directions of a leg that takes `latency`.
fn leg(network: &mut Network, a: &str, b: &str, level: &Level, latency: Seconds) {
    for (from, to) in [(a, b), (b, a)] {
        network.links.push(Link {
            from: from.to_owned(),
            to: to.to_owned(),
            kind: level.kind,
            latency_seconds: Some(Figure { value: latency, ..level.latency.clone() }),
            bandwidth_bytes_per_second: Some(level.bandwidth.clone()),
            tokens_per_second: None,
            groups: level.groups.clone(),
        });
    }
}

fn junction(network: &mut Network, name: String) -> String {
    if !network.junctions.contains(&name) {
        network.junctions.push(name.clone());
    }
    name
}

/// Half of what a level takes beyond the level below it.
fn half(level: &Level, below: Option<&Level>) -> Seconds {
    let below = below.map_or(Seconds::ZERO, |b| b.latency.value);
    ((level.latency.value - below) / 2.0).max(Seconds::ZERO)
}

/// The tree of hosts, sites and the place between sites.
fn levels(root: &Reader<'_, '_>, hosts: &[(String, Host)], network: &mut Network) {
    let table = root.table("network");
    let read = |key: &'static str| table.as_ref().and_then(|reader| reader.table(key)).and_then(level);
    let (within_host, within_site, between) = (read("within_host"), read("within_site"), read("between_sites"));
    for (upper, lower, above, below) in [
        (&within_site, &within_host, "within_site", "within_host"),
        (&between, &within_site, "between_sites", "within_site"),
    ] {
        if let (Some(upper), Some(lower)) = (upper, lower)
            && upper.latency.value < lower.latency.value
        {
            let what = format!("{above} has a latency of {}, {below} of {}", upper.latency.value, lower.latency.value);
            let remedy = "a message between farther devices takes at least as long: correct one of them".to_owned();
            root.fault(Fault::Conflict { what, remedy });
        }
    }
    if let Some(table) = table {
        table.done();
    }
    let mut sites: Vec<String> = Vec::new();
    for (name, host) in hosts {
        let to_site = host.uplink.as_ref().or(within_site.as_ref());
        // A host with one device needs no place of its own, unless something is said about it.
        let attach = match (&within_host, host.devices.as_slice()) {
            (Some(level), devices) => {
                let place = junction(network, format!("host:{name}"));
                for device in devices {
                    leg(network, device, &place, level, half(level, None));
                }
                place
            }
            (None, [device]) => device.clone(),
            (None, []) => junction(network, format!("host:{name}")),
            (None, devices) => {
                if to_site.is_some() {
                    let what = format!("host {name:?} has {} devices and no way between them", devices.len());
                    let remedy =
                        "state network.within_host = { latency = \"10 us\", bandwidth = \"10 GB/s\" }".to_owned();
                    root.source.fault(host.span.clone(), Fault::Conflict { what, remedy });
                }
                continue;
            }
        };
        let Some(level) = to_site else { continue };
        // The unnamed site of a scenario that names none.
        let site = host.site.clone().unwrap_or_else(|| "local".to_owned());
        let place = junction(network, format!("site:{site}"));
        if !sites.contains(&site) {
            sites.push(site);
        }
        let latency = if host.uplink.is_some() { level.latency.value } else { half(level, within_host.as_ref()) };
        leg(network, &attach, &place, level, latency);
    }
    if let Some(level) = between.filter(|_| sites.len() > 1) {
        let place = junction(network, BETWEEN.to_owned());
        for site in sites {
            leg(network, &format!("site:{site}"), &place, &level, half(&level, within_site.as_ref()));
        }
    }
}

/// The flow form: links between all pairs of devices, from a source and to a sink, that state only tokens per second.
fn flow(root: &Reader<'_, '_>, devices: &[At<Device>], network: &mut Network) {
    let Some(reader) = root.table("flow") else { return };
    let rate = |key: &'static str| reader.quantity::<TokensPerSecond>(key);
    let (source, sink, between) = (rate("source"), rate("sink"), rate("between_devices"));
    if !["between_devices", "source", "sink"].iter().any(|key| reader.has(key)) && !root.has("links") {
        reader.missing("between_devices", "between_devices = \"61035 tok/s\"");
    }
    if devices.len() > FLOW_DEVICES_MAX {
        let what = format!("[flow] would connect {} devices pair by pair", devices.len());
        let remedy = format!("use at most {FLOW_DEVICES_MAX} devices, or [network]");
        reader.fault(Fault::Conflict { what, remedy });
        return;
    }
    let mut connect = |from: &str, to: &str, rate: TokensPerSecond| {
        network.links.push(Link {
            from: from.to_owned(),
            to: to.to_owned(),
            kind: LinkKind::Declared,
            latency_seconds: None,
            bandwidth_bytes_per_second: None,
            tokens_per_second: Some(rate),
            groups: Vec::new(),
        });
    };
    for At { value: device, .. } in devices {
        if let Some(rate) = source {
            connect(SOURCE, &device.name, rate);
        }
        if let Some(rate) = sink {
            connect(&device.name, SINK, rate);
        }
        for other in devices.iter().map(|d| &d.value).filter(|other| other.name != device.name) {
            if let Some(rate) = between {
                connect(&device.name, &other.name, rate);
            }
        }
    }
    for (name, given) in [(SOURCE, source), (SINK, sink)] {
        if given.is_some() {
            junction(network, name.to_owned());
        }
    }
    reader.done();
}

/// The place that a name means: a device or junction, else the host or site of that name.
fn place(reader: &Reader<'_, '_>, key: &str, name: &At<String>, places: &[String]) -> Option<String> {
    let meant = [name.value.clone(), format!("host:{}", name.value), format!("site:{}", name.value)];
    if let Some(found) = meant.into_iter().find(|candidate| places.contains(candidate)) {
        return Some(found);
    }
    let fault = Fault::UnknownName {
        key: key.to_owned(),
        name: name.value.clone(),
        what: "device, junction, host or site with a way to it",
        nearest: nearest(&name.value, places.iter().map(String::as_str)),
        known: places.to_vec(),
    };
    reader.source.fault(name.span.clone(), fault);
    None
}

/// `[[links]]`, each for both directions (`between`) or one (`from`, `to`). Where `from` or `to` is a list, there is a
/// link from each to each other place.
fn links(root: &Reader<'_, '_>, places: &[String], network: &mut Network) {
    for reader in root.tables("links") {
        let says = says(&reader);
        let between = reader.texts("between");
        let (from, to) = (reader.names("from"), reader.names("to"));
        let known = |key: &str, names: &[At<String>]| -> Vec<String> {
            names.iter().filter_map(|name| place(&reader, key, name, places)).collect()
        };
        let (starts, ends, both) = match (between.as_slice(), from.as_slice(), to.as_slice()) {
            ([a, b], [], []) => {
                let ends = (place(&reader, "between", a, places), place(&reader, "between", b, places));
                (ends.0.into_iter().collect(), ends.1.into_iter().collect(), true)
            }
            ([], [_, ..], [_, ..]) => (known("from", &from), known("to", &to), false),
            _ => {
                let what = "a link does not say between which two places it is".to_owned();
                let remedy =
                    "write between = [\"a\", \"b\"] for both directions, or from = \"a\" and to = \"b\" for one";
                reader.fault(Fault::Conflict { what, remedy: remedy.to_owned() });
                (Vec::new(), Vec::new(), false)
            }
        };
        let latency = reader.figure("latency", &says);
        let bandwidth = reader.figure("bandwidth", &says);
        let tokens = reader.quantity("tokens_per_second");
        let kind = reader.word("kind", &KINDS).unwrap_or(LinkKind::Declared);
        let groups: Vec<String> = reader.texts("groups").into_iter().map(|g| g.value).collect();
        if !["latency", "bandwidth", "tokens_per_second"].iter().any(|key| reader.has(key)) {
            require(&reader, &["latency", "bandwidth"]);
        }
        if starts.len().saturating_mul(ends.len()) > LINKS_MAX - network.links.len().min(LINKS_MAX) {
            let what = format!("there are more than {LINKS_MAX} links");
            reader.fault(Fault::Conflict { what, remedy: "shorten the lists, or use [network]".to_owned() });
            return;
        }
        let mut link = |from: &String, to: &String| {
            network.links.push(Link {
                from: from.clone(),
                to: to.clone(),
                kind,
                latency_seconds: latency.clone(),
                bandwidth_bytes_per_second: bandwidth.clone(),
                tokens_per_second: tokens,
                groups: groups.clone(),
            });
        };
        // A list may name a place at both ends; a link from a single place to itself is passed on, to be judged.
        let several = starts.len() > 1 || ends.len() > 1;
        for from in &starts {
            for to in ends.iter().filter(|to| !several || *to != from) {
                link(from, to);
                if both {
                    link(to, from);
                }
            }
        }
        reader.done();
    }
}

/// `[[network_cards]]`: what all links that leave a device share, and all that reach it.
fn cards(root: &Reader<'_, '_>, devices: &[At<Device>], network: &mut Network) {
    let mut card_of: BTreeMap<String, [Option<String>; 2]> = BTreeMap::new();
    for reader in root.tables("network_cards") {
        let says = says(&reader);
        let ways = [reader.figure("outbound", &says), reader.figure("inbound", &says)];
        if !reader.has("outbound") && !reader.has("inbound") {
            reader.missing("outbound", "outbound = \"10 Gbit/s\"");
        }
        let names = reader.names("devices");
        if !reader.has("devices") {
            reader.missing("devices", "devices = [\"desk\", \"studio\"]");
        }
        for name in known_devices(&reader, names, devices) {
            let groups = [(" out", &ways[0]), (" in", &ways[1])].map(|(end, bandwidth)| {
                let bandwidth_bytes_per_second = bandwidth.clone()?;
                let group = format!("card of {name}{end}");
                network.groups.push(SharedCapacity { name: group.clone(), bandwidth_bytes_per_second });
                Some(group)
            });
            card_of.insert(name, groups);
        }
        reader.done();
    }
    if card_of.is_empty() {
        return;
    }
    for link in &mut network.links {
        let leaving = card_of.get(&link.from).and_then(|card| card[0].clone());
        let reaching = card_of.get(&link.to).and_then(|card| card[1].clone());
        link.groups.extend(leaving.into_iter().chain(reaching));
    }
}

/// The names that are devices of this scenario; a fault for each other one.
fn known_devices(reader: &Reader<'_, '_>, names: Vec<At<String>>, devices: &[At<Device>]) -> Vec<String> {
    let known: BTreeSet<&str> = devices.iter().map(|d| d.value.name.as_str()).collect();
    let mut found = Vec::new();
    for name in names {
        if known.contains(name.value.as_str()) {
            found.push(name.value);
            continue;
        }
        let (key, what) = ("devices".to_owned(), "device of this scenario");
        let nearest = nearest(&name.value, known.iter().copied());
        let known = known.iter().map(|&name| name.to_owned()).collect();
        reader.source.fault(name.span, Fault::UnknownName { key, name: name.value, what, nearest, known });
    }
    found
}

fn co_run(root: &Reader<'_, '_>, devices: &[At<Device>], network: &mut Network) {
    for reader in root.tables("co_run") {
        let (name, says) = (reader.name("name"), says(&reader));
        let names = known_devices(&reader, reader.texts("devices"), devices);
        let factors = reader.list("slowdown", "a list of factors, for example [1.0, 1.3]");
        let slowdown = factors.into_iter().filter_map(|v| reader.number_of("slowdown", v, 0.5, 1e3));
        let figure = |value| Figure { how: says.how, ..Figure::declared(value, says.source.clone()) };
        let slowdown = slowdown.map(figure).collect();
        if let Some(name) = name {
            network.co_run.push(CoRun { name: name.value, devices: names, slowdown, ..CoRun::default() });
        } else {
            require(&reader, &["name"]);
        }
        reader.done();
    }
}

/// Groups have unique names, and links name groups that are there.
fn unique_groups(root: &Reader<'_, '_>, network: &Network) {
    let mut names = BTreeSet::new();
    for group in &network.groups {
        if !names.insert(group.name.as_str()) {
            root.fault(Fault::Duplicate { what: "group", name: group.name.clone() });
        }
    }
    let used: BTreeSet<&str> = network.links.iter().flat_map(|l| &l.groups).map(String::as_str).collect();
    for name in used.into_iter().filter(|name| !names.contains(name)) {
        root.fault(Fault::UnknownName {
            key: "groups".to_owned(),
            name: name.to_owned(),
            what: "name of a [[groups]] section",
            nearest: nearest(name, names.iter().copied()),
            known: names.iter().map(|&n| n.to_owned()).collect(),
        });
    }
}
