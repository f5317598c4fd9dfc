//! What is the same in every replication: the lanes, the channels and what is known of their conditions.

use super::alone;
use super::traffic::SourceLayout;
use crate::SimulateError;
use isotherm_core::conditions::{Between, Conditions, Place, Sharing, Spread};
use isotherm_core::graph::{DeviceGraph, Path};
use isotherm_core::ids::LinkId;
use isotherm_core::units::{Bytes, Seconds};
use std::collections::{BTreeMap, BTreeSet};

/// Where a lane begins and ends; none where getting there costs nothing.
pub type LaneEnds<'a> = Option<(&'a str, &'a str)>;

/// A lane.
#[derive(Debug, Clone)]
pub struct LaneLayout<'a> {
    /// Its ends.
    pub(super) ends: LaneEnds<'a>,
    /// Whether it shares no channel with another lane, and its capacities never change.
    pub(super) apart: bool,
}

/// One link of a way.
#[derive(Debug, Clone)]
pub(super) struct Leg {
    pub(super) latency: Seconds,
    /// Channels that the message occupies here, and for how long with nothing else there.
    pub(super) uses: Vec<(u32, Seconds)>,
}

/// The way of a message of one size.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) links: Vec<u32>,
    pub(super) legs: Vec<Leg>,
    /// Links and shared capacities, each once.
    pub(super) channels: Vec<u32>,
    pub(super) latency: Seconds,
    /// Time with nothing else on it.
    pub(super) alone: Seconds,
}

/// The lanes of a plan on the links of a device graph. Channels are the links, then the shared capacities.
#[derive(Debug)]
pub struct Layout<'a> {
    graph: &'a DeviceGraph,
    sharing: Sharing,
    lanes: Vec<LaneLayout<'a>>,
    /// Position of each group.
    groups: BTreeMap<&'a str, u32>,
    jitter: BTreeMap<u32, Spread>,
    loss: BTreeMap<u32, f64>,
    traffic: Vec<SourceLayout>,
}

impl<'a> Layout<'a> {
    /// The layout of these lanes, whose messages have from `sizes.0` to `sizes.1` bytes. `unsteady` are links that may
    /// fail.
    pub fn new(
        graph: &'a DeviceGraph,
        lanes: Vec<(LaneEnds<'a>, (Bytes, Bytes))>,
        conditions: &Conditions,
        unsteady: &BTreeSet<LinkId>,
    ) -> Result<Self, SimulateError> {
        let file = graph.file();
        let first = u32::try_from(file.links.len()).unwrap_or(u32::MAX);
        let groups: BTreeMap<&str, u32> = file.groups.iter().map(|g| g.name.as_str()).zip(first..).collect();
        let mut layout = Self {
            graph,
            sharing: conditions.sharing,
            lanes: Vec::with_capacity(lanes.len()),
            groups,
            jitter: BTreeMap::new(),
            loss: BTreeMap::new(),
            traffic: Vec::new(),
        };
        for condition in &conditions.links {
            let link = link_of(graph, &condition.link)?;
            if let Some(jitter) = &condition.jitter {
                layout.jitter.insert(link.0, jitter.clone());
            }
            layout.loss.extend(condition.loss.map(|loss| (link.0, loss)));
        }
        for other in &conditions.cross_traffic {
            let channel = match &other.place {
                Place::Link(between) => link_of(graph, between)?.0,
                Place::Group(name) => {
                    let unknown = || SimulateError::UnknownGroup(name.clone());
                    *layout.groups.get(name.as_str()).ok_or_else(unknown)?
                }
            };
            layout.traffic.push(SourceLayout { channel, share: other.share, on_off: other.on_off });
        }
        let changing = !unsteady.is_empty() || layout.traffic.iter().any(|source| source.on_off.is_some());
        if conditions.sharing == Sharing::Fifo && changing {
            return Err(SimulateError::ChangingFifo);
        }
        let mut passed: Vec<BTreeSet<u32>> = Vec::with_capacity(lanes.len());
        for (ends, sizes) in lanes {
            passed.push(ends.map(|ends| layout.footprint(ends, sizes)).unwrap_or_default());
            layout.lanes.push(LaneLayout { ends, apart: false });
        }
        layout.set_apart(&passed, unsteady);
        Ok(layout)
    }

    /// Marks the lanes that nothing else can delay.
    fn set_apart(&mut self, passed: &[BTreeSet<u32>], unsteady: &BTreeSet<LinkId>) {
        let mut lanes_on: BTreeMap<u32, usize> = BTreeMap::new();
        for channel in passed.iter().flatten() {
            *lanes_on.entry(*channel).or_default() += 1;
        }
        let moody: BTreeSet<u32> =
            self.traffic.iter().filter(|source| source.on_off.is_some()).map(|source| source.channel).collect();
        // Where any link may fail, ways change.
        let steady = unsteady.is_empty();
        for (lane, channels) in self.lanes.iter_mut().zip(passed) {
            lane.apart = steady && channels.iter().all(|channel| lanes_on[channel] == 1 && !moody.contains(channel));
        }
    }

    /// Every channel that a message of any of these sizes may take. Where the quickest way of the smallest and of the
    /// largest is the same, it is that of all between them, since times are affine in the size.
    fn footprint(&self, (from, to): (&str, &str), (least, most): (Bytes, Bytes)) -> BTreeSet<u32> {
        let mut channels = BTreeSet::new();
        let links = |size: u64| self.graph.path(from, to, Bytes(size)).map(|path| path.links);
        let mut open = vec![(least.0, links(least.0), most.0.max(least.0), links(most.0.max(least.0)))];
        while let Some((low, first, high, last)) = open.pop() {
            for link in [&first, &last].into_iter().flatten().flatten() {
                channels.insert(link.0);
                channels.extend(self.groups_of(*link));
            }
            if first != last && high - low > 1 {
                let middle = low + (high - low) / 2;
                let between = links(middle);
                open.push((low, first, middle, between.clone()));
                open.push((middle, between, high, last));
            }
        }
        channels
    }

    fn groups_of(&self, link: LinkId) -> impl Iterator<Item = u32> + '_ {
        self.graph.link(link).groups.iter().filter_map(|name| self.groups.get(name.as_str()).copied())
    }

    /// Number of channels.
    pub(super) fn channels(&self) -> usize {
        self.graph.file().links.len() + self.graph.file().groups.len()
    }

    /// Bandwidth of a channel as the graph states it; infinite where it states none, for no way leads there.
    pub(super) fn bandwidth(&self, channel: usize) -> f64 {
        let file = self.graph.file();
        let figure = match channel.checked_sub(file.links.len()) {
            None => file.links[channel].bandwidth_bytes_per_second.as_ref(),
            Some(group) => Some(&file.groups[group].bandwidth_bytes_per_second),
        };
        figure.map_or(f64::INFINITY, |figure| figure.value.value())
    }

    /// Number of lanes.
    #[must_use]
    pub fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    /// Ends of every lane.
    pub fn lane_ends(&self) -> impl Iterator<Item = LaneEnds<'a>> + '_ {
        self.lanes.iter().map(|lane| lane.ends)
    }

    pub(super) fn lanes(&self) -> &[LaneLayout<'a>] {
        &self.lanes
    }

    pub(super) const fn sharing(&self) -> Sharing {
        self.sharing
    }

    pub(super) fn traffic(&self) -> &[SourceLayout] {
        &self.traffic
    }

    /// Whether messages draw jitter or loss.
    pub(super) fn is_chancy(&self) -> bool {
        !self.jitter.is_empty() || !self.loss.is_empty()
    }

    pub(super) fn jitter(&self, link: u32) -> Option<&Spread> {
        self.jitter.get(&link)
    }

    pub(super) fn loss(&self, link: u32) -> f64 {
        self.loss.get(&link).copied().unwrap_or(0.0)
    }

    /// The quickest way that avoids lost links.
    pub(super) fn path(&self, from: &str, to: &str, size: Bytes, lost: &BTreeSet<LinkId>) -> Option<Path> {
        if lost.is_empty() { self.graph.path(from, to, size) } else { self.graph.path_without(from, to, size, lost) }
    }

    /// The way along a path; none where a figure of it is unknown.
    pub(super) fn way(&self, path: &Path, size: Bytes) -> Option<Way> {
        let file = self.graph.file();
        let mut legs = Vec::with_capacity(path.links.len());
        let mut channels: Vec<u32> = Vec::new();
        for &id in &path.links {
            let link = self.graph.link(id);
            let own = link.bandwidth_bytes_per_second.as_ref()?.value;
            let mut uses = vec![(id.0, size / own)];
            for group in self.groups_of(id) {
                let rate = file.groups[group as usize - file.links.len()].bandwidth_bytes_per_second.value;
                uses.push((group, size / rate));
            }
            channels.extend(uses.iter().map(|&(channel, _)| channel));
            legs.push(Leg { latency: link.latency_seconds.as_ref()?.value, uses });
        }
        channels.sort_unstable();
        channels.dedup();
        let taken = |channel: u32| {
            let constant = self.traffic.iter().filter(|s| s.channel == channel && s.on_off.is_none());
            constant.fold(1.0, |left, source| left * (1.0 - source.share))
        };
        let least = channels.iter().map(|&c| self.bandwidth(c as usize) * taken(c)).fold(f64::INFINITY, f64::min);
        let links = path.links.iter().map(|link| link.0).collect();
        Some(Way { links, legs, channels, latency: path.latency, alone: alone(path, size, least) })
    }
}

/// The first link from one place straight to another. A place that is no device or junction is a host or site.
pub(crate) fn link_of(graph: &DeviceGraph, between: &Between) -> Result<LinkId, SimulateError> {
    let means = |known: &str, name: &str| {
        let rest = known.strip_prefix("host:").or_else(|| known.strip_prefix("site:"));
        known == name || rest == Some(name)
    };
    let mut links = (0..).zip(&graph.file().links);
    let found = links.find(|(_, link)| means(&link.from, &between.from) && means(&link.to, &between.to));
    found.map(|(position, _)| LinkId(position)).ok_or_else(|| {
        let near =
            graph.file().links.iter().filter(|link| means(&link.from, &between.from) || means(&link.to, &between.to));
        let known: Vec<String> = near.take(10).map(|link| format!("{} -> {}", link.from, link.to)).collect();
        SimulateError::UnknownLink { from: between.from.clone(), to: between.to.clone(), known: known.join(", ") }
    })
}
