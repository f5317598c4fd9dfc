//! Messages on links: each link, and each capacity that links share, serves its messages in the order of their
//! sending.
//!
//! A message's head takes the latency of each link in turn; its bytes occupy each link, and each shared capacity that
//! the link belongs to, for `bytes / bandwidth` from the moment the head gets in. It has arrived when its tail has
//! left the last link (virtual cut-through). With nothing else on the way that is `latency + bytes / least bandwidth`,
//! exactly [`Path::time`].

use isotherm_core::graph::{DeviceGraph, Path};
use isotherm_core::units::{Bytes, Seconds, SimTime};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Something that serves one message at a time: a link or a shared capacity.
#[derive(Debug, Clone, Default)]
struct Channel {
    /// When it is free again.
    free: SimTime,
    /// What `free` lacks to the full nanosecond.
    carried: f64,
}

/// One link of a way.
#[derive(Debug, Clone)]
struct Leg {
    latency: Seconds,
    /// Channels that the message occupies here, and for how long.
    uses: Vec<(usize, Seconds)>,
}

/// The way of a message of one size.
#[derive(Debug, Clone)]
struct Way {
    legs: Vec<Leg>,
    /// Time with nothing else on it.
    alone: Seconds,
}

/// All links of a device graph.
#[derive(Debug)]
pub struct Network<'a> {
    graph: &'a DeviceGraph,
    /// The links, then the shared capacities.
    channels: Vec<Channel>,
}

/// Where messages of one kind go: from one place to another, in order. Either place is none where getting there costs
/// nothing.
#[derive(Debug, Clone)]
pub struct Lane<'a> {
    ends: Option<(&'a str, &'a str)>,
    ways: BTreeMap<Bytes, Way>,
    last_arrival: SimTime,
    carried: f64,
}

impl<'a> Lane<'a> {
    /// The lane between two places; without ends it takes no time.
    #[must_use]
    pub const fn new(ends: Option<(&'a str, &'a str)>) -> Self {
        Self { ends, ways: BTreeMap::new(), last_arrival: SimTime::ZERO, carried: 0.0 }
    }
}

impl<'a> Network<'a> {
    /// The network of a device graph, with nothing on it.
    #[must_use]
    pub fn new(graph: &'a DeviceGraph) -> Self {
        let channels = graph.file().links.len() + graph.file().groups.len();
        Self { graph, channels: vec![Channel::default(); channels] }
    }

    /// Sends a message and returns when it has arrived; none where there is no way. Messages of one lane arrive in
    /// the order of their sending.
    pub fn send(&mut self, now: SimTime, lane: &mut Lane<'_>, size: Bytes) -> Option<SimTime> {
        let Some((from, to)) = lane.ends else { return Some(now) };
        let way = match lane.ways.entry(size) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(self.way(&self.graph.path(from, to, size)?, size)),
        };
        let span = self.occupy(now, way);
        let (whole, rest) = span.whole_nanoseconds(lane.carried);
        lane.carried = rest;
        lane.last_arrival = (now + whole).max(lane.last_arrival);
        Some(lane.last_arrival)
    }

    fn way(&self, path: &Path, size: Bytes) -> Way {
        let file = self.graph.file();
        let legs = path.links.iter().filter_map(|&id| {
            let link = self.graph.link(id);
            let own = link.bandwidth_bytes_per_second.as_ref()?.value;
            let shared = file.groups.iter().enumerate().filter(|(_, group)| link.groups.contains(&group.name));
            let shared = shared.map(|(i, group)| (file.links.len() + i, size / group.bandwidth_bytes_per_second.value));
            let uses = std::iter::once((id.index(), size / own)).chain(shared).collect();
            Some(Leg { latency: link.latency_seconds.as_ref()?.value, uses })
        });
        Way { legs: legs.collect(), alone: path.time(size) }
    }

    /// Puts a message on every channel of its way and returns how long it takes.
    fn occupy(&mut self, now: SimTime, way: &Way) -> Seconds {
        let (mut head, mut tail) = (Seconds::ZERO, Seconds::ZERO);
        let mut waited = false;
        for leg in &way.legs {
            let free = leg.uses.iter().map(|&(channel, _)| self.channels[channel].free.since(now).seconds());
            let start = free.fold(head, Seconds::max);
            waited |= start > head;
            tail += leg.latency;
            for &(channel, occupied) in &leg.uses {
                let channel = &mut self.channels[channel];
                let (whole, rest) = (start + occupied).whole_nanoseconds(channel.carried);
                channel.free = now + whole;
                channel.carried = rest;
                tail = tail.max(start + occupied + leg.latency);
            }
            head = start + leg.latency;
        }
        // Without waiting the two agree but for rounding, and this one is what planner and checker compute.
        if waited { tail } else { way.alone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_core::artefact::Header;
    use isotherm_core::device::{Device, DeviceKind};
    use isotherm_core::figure::Figure;
    use isotherm_core::graph::{DEVICES_SCHEMA, DevicesFile, Link, LinkKind, SharedCapacity};
    use isotherm_core::units::BytesPerSecond;

    fn link(from: &str, to: &str, seconds: f64, bytes_per_second: f64, groups: &[&str]) -> Link {
        Link {
            from: from.into(),
            to: to.into(),
            kind: LinkKind::Socket,
            latency_seconds: Some(Figure::declared(Seconds::of(seconds), "test")),
            bandwidth_bytes_per_second: Some(Figure::declared(BytesPerSecond::of(bytes_per_second), "test")),
            tokens_per_second: None,
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        }
    }

    /// `a` and `b` reach `c` and `d` through two switches and a trunk.
    fn graph() -> DeviceGraph {
        let file = DevicesFile {
            header: Header::new(DEVICES_SCHEMA, Vec::new()),
            host: BTreeMap::new(),
            devices: ["a", "b", "c", "d"].map(|n| Device::named(n, "h", DeviceKind::Gpu)).to_vec(),
            junctions: vec!["left".into(), "right".into()],
            links: vec![
                link("a", "left", 1.0, 10.0, &[]),
                link("b", "left", 1.0, 10.0, &[]),
                link("left", "right", 2.0, 100.0, &["trunk"]),
                link("right", "c", 1.0, 10.0, &[]),
                link("right", "d", 1.0, 10.0, &[]),
            ],
            groups: vec![SharedCapacity {
                name: "trunk".into(),
                bandwidth_bytes_per_second: Figure::declared(BytesPerSecond::of(50.0), "test"),
            }],
            co_run: Vec::new(),
            coordinator: None,
        };
        DeviceGraph::new(file).expect("valid")
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_message_alone_takes_the_time_of_its_path() {
        let graph = graph();
        let mut network = Network::new(&graph);
        let mut lane = Lane::new(Some(("a", "c")));
        let path = graph.path("a", "c", Bytes(100)).expect("a way");
        assert_eq!(path.time(Bytes(100)), Seconds::of(14.0));
        assert_eq!(network.send(SimTime::ZERO, &mut lane, Bytes(100)), Some(SimTime(14 * SECOND)));
        assert_eq!(network.send(SimTime(20 * SECOND), &mut lane, Bytes(100)), Some(SimTime(34 * SECOND)));
    }

    #[test]
    fn messages_on_one_link_go_one_after_another() {
        let graph = graph();
        let mut network = Network::new(&graph);
        let mut lane = Lane::new(Some(("a", "c")));
        let arrivals: Vec<_> = (0..3).map(|_| network.send(SimTime::ZERO, &mut lane, Bytes(100))).collect();
        assert_eq!(arrivals, [14, 24, 34].map(|s| Some(SimTime(s * SECOND))));
    }

    #[test]
    fn flows_share_the_trunk_only_as_far_as_it_is_busy() {
        let graph = graph();
        let mut network = Network::new(&graph);
        let (mut one, mut two) = (Lane::new(Some(("a", "c"))), Lane::new(Some(("b", "d"))));
        assert_eq!(network.send(SimTime::ZERO, &mut one, Bytes(100)), Some(SimTime(14 * SECOND)));
        // The trunk is taken from second 1 to 3; the second head waits there for two seconds.
        assert_eq!(network.send(SimTime::ZERO, &mut two, Bytes(100)), Some(SimTime(16 * SECOND)));
    }

    #[test]
    fn messages_of_one_lane_never_overtake() {
        let graph = graph();
        let mut network = Network::new(&graph);
        let mut lane = Lane::new(Some(("a", "c")));
        let long = network.send(SimTime::ZERO, &mut lane, Bytes(1_000));
        assert!(network.send(SimTime(1), &mut lane, Bytes(0)) >= long);
    }

    #[test]
    fn no_way_is_none_and_no_distance_is_no_time() {
        let graph = graph();
        let mut network = Network::new(&graph);
        assert_eq!(network.send(SimTime(5), &mut Lane::new(None), Bytes(9)), Some(SimTime(5)));
        assert_eq!(network.send(SimTime(5), &mut Lane::new(Some(("a", "a"))), Bytes(9)), Some(SimTime(5)));
        assert_eq!(network.send(SimTime(5), &mut Lane::new(Some(("c", "a"))), Bytes(9)), None);
    }
}
