//! The device graph: devices, junctions (hosts, switches, network cards, trunks) and the links between them.
//!
//! A directed multigraph (petgraph inside, never outside: its indices change on removal, [`DeviceId`] does not).
//! Links may belong to shared-capacity groups, so that two flows through one network card share it. Devices do not
//! forward traffic; junctions do.

mod co_run;

pub use co_run::CoRun;

use crate::artefact::Header;
use crate::device::Device;
use crate::figure::{Figure, How};
use crate::ids::{DeviceId, LinkId};
use crate::power;
use crate::units::{Bytes, BytesPerSecond, Seconds, TokensPerSecond, Watts};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// How bytes move along a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// Between threads of one process.
    InProcess,
    /// Directly between cards.
    PeerToPeer,
    /// Between cards through host memory.
    HostStaged,
    /// Over PCI Express between card and host.
    Pcie,
    /// Over a socket.
    Socket,
    /// Over remote direct memory access.
    Rdma,
    /// Nobody says.
    Declared,
}

/// A directed link between two places of the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Device or junction where it begins.
    pub from: String,
    /// Device or junction where it ends.
    pub to: String,
    /// How bytes move.
    pub kind: LinkKind,
    /// Time of an empty message, one way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_seconds: Option<Figure<Seconds>>,
    /// Rate of a long message, one way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_bytes_per_second: Option<Figure<BytesPerSecond>>,
    /// Output tokens per second it carries, where somebody states only that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<TokensPerSecond>,
    /// Shared-capacity groups it belongs to, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// A capacity that several links share: a network card, a trunk, a PCI Express switch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SharedCapacity {
    /// Name, unique in the graph.
    pub name: String,
    /// Bytes per second over all its links together.
    pub bandwidth_bytes_per_second: Figure<BytesPerSecond>,
}

/// A device graph as it stands in `devices.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DevicesFile {
    /// Schema, tool and inputs.
    #[serde(flatten)]
    pub header: Header,
    /// Facts of the host that probed, for people: processor, kernel, memory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub host: BTreeMap<String, String>,
    /// The devices.
    pub devices: Vec<Device>,
    /// Places that only forward: hosts, switches, network cards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub junctions: Vec<String>,
    /// The links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Capacities shared by links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<SharedCapacity>,
    /// Devices that slow one another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub co_run: Vec<CoRun>,
    /// Junction where requests come in and tokens go out; absent where that costs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<String>,
}

/// Schema of `devices.json`.
pub const DEVICES_SCHEMA: &str = "isotherm.devices/v1";

/// Bandwidths in bytes per second that a graph may hold: no quotient of a byte count and one of these overflows.
const RATES: std::ops::RangeInclusive<f64> = 1.0..=1e18;
const RATES_MUST: &str = "from 1 to 1e18 bytes per second; leave it out where it is unknown";

/// Something in a device graph that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// Two places of one name.
    #[error("{0:?} names two places of the device graph; names are unique")]
    DuplicateName(String),
    /// A link, group or co-run set names a place that is not there.
    #[error("{what} names {name:?}, which is not in the device graph; known: {known}")]
    UnknownPlace {
        /// Who names it.
        what: String,
        /// The name.
        name: String,
        /// Names that are there.
        known: String,
    },
    /// A figure is outside what is physical.
    #[error("{what} of {name:?} is {value}; it must be {must}")]
    OutOfRange {
        /// Which figure.
        what: &'static str,
        /// Whose.
        name: String,
        /// The value.
        value: f64,
        /// What it must be.
        must: &'static str,
    },
    /// More devices than identifiers.
    #[error("the device graph has {0} devices; at most 1000000 are supported")]
    TooMany(usize),
}

/// The way a message takes between two places.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// Links in order; none where both ends are one place.
    pub links: Vec<LinkId>,
    /// Sum of their latencies.
    pub latency: Seconds,
    /// Smallest bandwidth of its links and their groups; absent on a path of no links.
    pub bandwidth: Option<BytesPerSecond>,
    /// The weakest source among its figures.
    pub how: How,
}

impl Path {
    /// Time of a message of `size` bytes with nothing else on the way.
    #[must_use]
    pub fn time(&self, size: Bytes) -> Seconds {
        self.latency + self.bandwidth.map_or(Seconds::ZERO, |rate| size / rate)
    }
}

/// Devices and links, validated.
#[derive(Debug, Clone)]
pub struct DeviceGraph {
    file: DevicesFile,
    places: DiGraph<(), LinkId>,
    place_of: BTreeMap<String, NodeIndex>,
    /// The first link between two places, by their positions.
    direct: BTreeMap<(NodeIndex, NodeIndex), LinkId>,
}

impl DeviceGraph {
    /// Validates a device graph. Errors: everything that cannot be, at once.
    pub fn new(file: DevicesFile) -> Result<Self, Vec<GraphError>> {
        let mut errors = Vec::new();
        if file.devices.len() > 1_000_000 {
            return Err(vec![GraphError::TooMany(file.devices.len())]);
        }
        let mut places = DiGraph::new();
        let mut place_of = BTreeMap::new();
        for name in file.devices.iter().map(|d| &d.name).chain(&file.junctions) {
            if place_of.insert(name.clone(), places.add_node(())).is_some() {
                errors.push(GraphError::DuplicateName(name.clone()));
            }
        }
        let unknown = |what: String, name: &str| GraphError::UnknownPlace {
            what,
            name: name.to_owned(),
            known: listed(place_of.keys().map(String::as_str)),
        };
        let groups: BTreeSet<&str> = file.groups.iter().map(|g| g.name.as_str()).collect();
        for (i, link) in file.links.iter().enumerate() {
            let what = || format!("link {:?} -> {:?}", link.from, link.to);
            match (place_of.get(&link.from), place_of.get(&link.to)) {
                (Some(&from), Some(&to)) => {
                    places.add_edge(from, to, LinkId(u32::try_from(i).unwrap_or(u32::MAX)));
                }
                (None, _) => errors.push(unknown(what(), &link.from)),
                (_, None) => errors.push(unknown(what(), &link.to)),
            }
            for group in link.groups.iter().filter(|g| !groups.contains(g.as_str())) {
                errors.push(GraphError::UnknownPlace {
                    what: format!("{} as its group", what()),
                    name: group.clone(),
                    known: listed(groups.iter().copied()),
                });
            }
            if let Some(rate) = &link.bandwidth_bytes_per_second
                && !RATES.contains(&rate.value.value())
            {
                errors.push(GraphError::OutOfRange {
                    what: "bandwidth",
                    name: what(),
                    value: rate.value.value(),
                    must: RATES_MUST,
                });
            }
            if let Some(latency) = &link.latency_seconds
                && latency.value.value() < 0.0
            {
                errors.push(GraphError::OutOfRange {
                    what: "latency",
                    name: what(),
                    value: latency.value.value(),
                    must: "zero or more",
                });
            }
        }
        for group in file.groups.iter().filter(|g| !RATES.contains(&g.bandwidth_bytes_per_second.value.value())) {
            errors.push(GraphError::OutOfRange {
                what: "bandwidth",
                name: format!("group {:?}", group.name),
                value: group.bandwidth_bytes_per_second.value.value(),
                must: RATES_MUST,
            });
        }
        for set in &file.co_run {
            let named = set.devices.iter().chain(set.slowdown_of.keys());
            for device in named.filter(|d| !file.devices.iter().any(|known| &known.name == *d)) {
                errors.push(unknown(format!("co-run set {:?}", set.name), device));
            }
            let factors = set.slowdown.iter().chain(set.slowdown_of.values().flatten());
            for factor in factors.filter(|f| !(f.value.is_finite() && f.value >= 0.5)) {
                errors.push(GraphError::OutOfRange {
                    what: "slowdown",
                    name: set.name.clone(),
                    value: factor.value,
                    must: "a finite factor of at least 0.5",
                });
            }
        }
        if let Some(name) = file.coordinator.as_deref().filter(|name| !place_of.contains_key(*name)) {
            errors.push(unknown("the coordinator".to_owned(), name));
        }
        errors.extend(file.devices.iter().flat_map(device_errors));
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut direct = BTreeMap::new();
        for edge in places.edge_references() {
            // The first link between two places speaks for them; a later one only where there is none yet.
            let first = direct.entry((edge.source(), edge.target())).or_insert(*edge.weight());
            *first = (*first).min(*edge.weight());
        }
        Ok(Self { file, places, place_of, direct })
    }

    /// The first link that leads from one named place straight to another.
    #[must_use]
    pub fn direct(&self, from: &str, to: &str) -> Option<&Link> {
        let ends = (*self.place_of.get(from)?, *self.place_of.get(to)?);
        self.direct.get(&ends).map(|&id| self.link(id))
    }

    /// The graph as it is stored.
    #[must_use]
    pub fn file(&self) -> &DevicesFile {
        &self.file
    }

    /// The devices, in order of their identifiers.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.file.devices
    }

    /// All device identifiers.
    pub fn device_ids(&self) -> impl Iterator<Item = DeviceId> + use<> {
        (0..u32::try_from(self.file.devices.len()).unwrap_or(u32::MAX)).map(DeviceId)
    }

    /// One device.
    ///
    /// # Panics
    /// If the identifier is of another graph.
    #[must_use]
    pub fn device(&self, id: DeviceId) -> &Device {
        &self.file.devices[id.index()]
    }

    /// The device of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<DeviceId> {
        let i = self.file.devices.iter().position(|d| d.name == name)?;
        u32::try_from(i).ok().map(DeviceId)
    }

    /// One link.
    ///
    /// # Panics
    /// If the identifier is of another graph.
    #[must_use]
    pub fn link(&self, id: LinkId) -> &Link {
        &self.file.links[id.index()]
    }

    /// The quickest way for a message of `size` bytes between two named places, by links whose latency and bandwidth
    /// are both known. None where there is no such way. Devices do not forward.
    #[must_use]
    pub fn path(&self, from: &str, to: &str, size: Bytes) -> Option<Path> {
        let (&start, &goal) = (self.place_of.get(from)?, self.place_of.get(to)?);
        self.describe_way(&self.ways(start, Some(goal), size, &BTreeSet::new()), start, goal)
    }

    /// The same way where these links are lost.
    #[must_use]
    pub fn path_without(&self, from: &str, to: &str, size: Bytes, lost: &BTreeSet<LinkId>) -> Option<Path> {
        let (&start, &goal) = (self.place_of.get(from)?, self.place_of.get(to)?);
        self.describe_way(&self.ways(start, Some(goal), size, lost), start, goal)
    }

    /// Times of a message of `size` bytes from one device to every device, each as [`Self::device_path`] gives it, in
    /// order of their identifiers; found in one search instead of one for each.
    ///
    /// # Panics
    /// If the identifier is of another graph.
    #[must_use]
    pub fn times_from(&self, from: DeviceId, size: Bytes) -> Vec<Option<Seconds>> {
        self.paths_from(from, size).into_iter().map(|path| Some(path?.time(size))).collect()
    }

    /// The ways themselves. Panics as [`Self::times_from`] does.
    #[must_use]
    pub fn paths_from(&self, from: DeviceId, size: Bytes) -> Vec<Option<Path>> {
        let places = || self.file.devices.iter().map(|device| self.place_of.get(&device.name).copied());
        let Some(start) = self.place_of.get(&self.device(from).name).copied() else { return Vec::new() };
        let came_by = self.ways(start, None, size, &BTreeSet::new());
        places().map(|goal| self.describe_way(&came_by, start, goal?)).collect()
    }

    /// For each place, the link by which the quickest way reaches it, and from where; settled for `goal`, or for all.
    fn ways(
        &self,
        start: NodeIndex,
        goal: Option<NodeIndex>,
        size: Bytes,
        lost: &BTreeSet<LinkId>,
    ) -> Vec<Option<(NodeIndex, LinkId)>> {
        let devices = self.file.devices.len();
        let mut best = vec![f64::INFINITY; self.places.node_count()];
        let mut came_by: Vec<Option<(NodeIndex, LinkId)>> = vec![None; self.places.node_count()];
        let mut open = BinaryHeap::from([Nearest { seconds: 0.0, place: start }]);
        best[start.index()] = 0.0;
        while let Some(Nearest { seconds, place }) = open.pop() {
            if Some(place) == goal {
                break;
            }
            if seconds > best[place.index()] || (place != start && place.index() < devices) {
                continue;
            }
            for edge in self.places.edges(place).filter(|edge| !lost.contains(edge.weight())) {
                let link = &self.file.links[edge.weight().index()];
                let (Some(latency), Some(rate)) = (&link.latency_seconds, self.link_rate(link)) else {
                    continue;
                };
                let reached = seconds + (latency.value + size / rate).value();
                if reached < best[edge.target().index()] {
                    best[edge.target().index()] = reached;
                    came_by[edge.target().index()] = Some((place, *edge.weight()));
                    open.push(Nearest { seconds: reached, place: edge.target() });
                }
            }
        }
        came_by
    }

    fn describe_way(&self, came_by: &[Option<(NodeIndex, LinkId)>], start: NodeIndex, goal: NodeIndex) -> Option<Path> {
        let mut links = Vec::new();
        let mut at = goal;
        while at != start {
            let (before, link) = came_by[at.index()]?;
            links.push(link);
            at = before;
        }
        links.reverse();
        Some(self.describe(links))
    }

    /// The quickest way between two devices.
    #[must_use]
    pub fn device_path(&self, from: DeviceId, to: DeviceId, size: Bytes) -> Option<Path> {
        self.path(&self.device(from).name, &self.device(to).name, size)
    }

    fn link_rate(&self, link: &Link) -> Option<BytesPerSecond> {
        let own = link.bandwidth_bytes_per_second.as_ref()?.value;
        let shared = self.file.groups.iter().filter(|g| link.groups.contains(&g.name));
        Some(shared.fold(own, |rate, group| rate.min(group.bandwidth_bytes_per_second.value)))
    }

    fn describe(&self, links: Vec<LinkId>) -> Path {
        let mut path = Path { links: Vec::new(), latency: Seconds::ZERO, bandwidth: None, how: How::Measured };
        for &id in &links {
            let link = self.link(id);
            if let (Some(latency), Some(rate)) = (&link.latency_seconds, self.link_rate(link)) {
                path.latency += latency.value;
                path.bandwidth = Some(path.bandwidth.map_or(rate, |least| least.min(rate)));
                let rate_how = link.bandwidth_bytes_per_second.as_ref().map_or(How::Estimated, |f| f.how);
                path.how = path.how.weaker(latency.how).weaker(rate_how);
            }
        }
        path.links = links;
        path
    }
}

fn device_errors(device: &Device) -> Vec<GraphError> {
    let mut errors = Vec::new();
    let mut require = |what: &'static str, value: Option<f64>, ok: &dyn Fn(f64) -> bool, must: &'static str| {
        if let Some(value) = value.filter(|&v| !ok(v)) {
            errors.push(GraphError::OutOfRange { what, name: device.name.clone(), value, must });
        }
    };
    let positive = |v: f64| v > 0.0;
    let bandwidth = device.memory_bandwidth_bytes_per_second.as_ref().map(|f| f.value.value());
    require("memory bandwidth", bandwidth, &|v| RATES.contains(&v), RATES_MUST);
    require(
        "compute rate",
        device.compute_flops_per_second.as_ref().map(|f| f.value.value()),
        &|v| (1.0..=1e24).contains(&v),
        "from 1 to 1e24; leave it out where it is unknown",
    );
    require("idle power", device.idle_watts.as_ref().map(|f| f.value.value()), &|v| v >= 0.0, "zero or more");
    let (busy, idle) = (device.busy_watts.as_ref(), device.idle_watts.as_ref().map_or(0.0, |f| f.value.value()));
    require("busy power", busy.map(|f| f.value.value()), &|v| v >= idle.max(0.0), "at least the idle power");
    let known = |figure: &Option<Figure<Watts>>| figure.as_ref().map(|figure| figure.value);
    let points = power::fault(&device.power_points, known(&device.idle_watts), known(&device.busy_watts));
    if let Some((value, must)) = points {
        require("power point", Some(value), &|_| false, must);
    }
    if let Some(thermal) = &device.thermal {
        for (what, value) in thermal.above_zero() {
            require(what, Some(value), &positive, "above zero");
        }
        let speed = thermal.throttled_speed.as_ref().map(|f| f.value);
        require("throttled speed", speed, &|v| v > 0.0 && v <= 1.0, "above 0 and at most 1");
        if let (Some(throttle), Some(resume)) = (&thermal.throttle_celsius, &thermal.resume_celsius) {
            let gap = (throttle.value - resume.value).value();
            require("throttle minus resume temperature", Some(gap), &positive, "above zero");
        }
    }
    if device.battery.as_ref().is_some_and(|battery| battery.fault().is_some()) {
        require("battery", Some(-1.0), &positive, "one that holds energy and begins above its cutoff");
    }
    for profile in &device.profiles {
        require("step time", Some(profile.step_seconds.value()), &|v| v >= 0.0, "zero or more");
    }
    for &(layers, rate) in &device.rates {
        require("rate", Some(rate.value()), &|v| v >= 0.0 && layers > 0, "zero or more, for at least one layer");
    }
    errors
}

/// Names in a row, at most twenty of them.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = names.collect();
    match all.len() {
        0 => "none".to_owned(),
        n if n <= 20 => all.join(", "),
        n => format!("{} and {} more", all[..20].join(", "), n - 20),
    }
}

/// An entry of the open list: the nearest first, then the lower place, so that equal ways do not flip.
struct Nearest {
    seconds: f64,
    place: NodeIndex,
}

impl Ord for Nearest {
    fn cmp(&self, other: &Self) -> Ordering {
        other.seconds.total_cmp(&self.seconds).then(other.place.cmp(&self.place))
    }
}

impl PartialOrd for Nearest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Nearest {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Nearest {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceKind;

    fn link(from: &str, to: &str, milliseconds: f64, group: Option<&str>) -> Link {
        Link {
            from: from.into(),
            to: to.into(),
            kind: LinkKind::Socket,
            latency_seconds: Some(Figure::declared(Seconds::of(milliseconds * 1e-3), "test")),
            bandwidth_bytes_per_second: Some(Figure::declared(BytesPerSecond::of(1e9), "test")),
            tokens_per_second: None,
            groups: group.map(str::to_owned).into_iter().collect(),
        }
    }

    fn file(links: Vec<Link>) -> DevicesFile {
        DevicesFile {
            header: Header::new(DEVICES_SCHEMA, Vec::new()),
            host: BTreeMap::new(),
            devices: ["a", "b", "c"].map(|n| Device::named(n, "h", DeviceKind::Gpu)).to_vec(),
            junctions: vec!["switch".into()],
            links,
            groups: vec![SharedCapacity {
                name: "nic".into(),
                bandwidth_bytes_per_second: Figure::declared(BytesPerSecond::of(1e6), "test"),
            }],
            co_run: Vec::new(),
            coordinator: None,
        }
    }

    #[test]
    fn traffic_goes_the_quicker_way_and_never_through_a_device() {
        let links = vec![
            link("a", "b", 1.0, None),
            link("b", "c", 1.0, None),
            link("a", "switch", 5.0, None),
            link("switch", "c", 5.0, None),
        ];
        let graph = DeviceGraph::new(file(links)).expect("valid");
        let path = graph.path("a", "c", Bytes(0)).expect("a way through the switch");
        assert_eq!(path.links, [LinkId(2), LinkId(3)]);
        assert_eq!(graph.path("c", "a", Bytes(0)), None);
    }

    #[test]
    fn a_shared_group_bounds_the_bandwidth_of_its_links() {
        let graph = DeviceGraph::new(file(vec![link("a", "b", 1.0, Some("nic"))])).expect("valid");
        let path = graph.path("a", "b", Bytes(1_000_000)).expect("a link");
        assert!((path.time(Bytes(1_000_000)).value() - 1.001).abs() < 1e-9);
    }

    #[test]
    fn the_times_to_all_devices_are_those_of_the_single_ways() {
        let links = vec![
            link("a", "b", 1.0, None),
            link("b", "c", 1.0, Some("nic")),
            link("a", "switch", 5.0, None),
            link("switch", "c", 5.0, Some("nic")),
            link("c", "switch", 2.0, None),
            link("switch", "b", 0.1, None),
        ];
        let graph = DeviceGraph::new(file(links)).expect("valid");
        for size in [Bytes(0), Bytes(1_000), Bytes(50_000_000)] {
            for from in graph.device_ids() {
                let single = |to| graph.device_path(from, to, size).map(|path| path.time(size));
                let singles: Vec<_> = graph.device_ids().map(single).collect();
                assert_eq!(graph.times_from(from, size), singles, "{from:?} {size}");
            }
        }
    }

    #[test]
    fn every_error_is_reported_at_once() {
        let mut broken = file(vec![link("a", "nowhere", 1.0, Some("absent")), link("a", "b", -1.0, None)]);
        broken.devices.push(Device::named("a", "h", DeviceKind::Cpu));
        let errors = DeviceGraph::new(broken).expect_err("four faults");
        assert_eq!(errors.len(), 4, "{errors:?}");
    }

    #[test]
    fn a_stored_graph_reads_back_the_same() {
        let before = file(vec![link("a", "b", 1.0, Some("nic"))]);
        let text = serde_json::to_string(&before).expect("serialises");
        assert_eq!(serde_json::from_str::<DevicesFile>(&text).expect("reads"), before);
    }
}
