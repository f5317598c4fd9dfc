//! Messages on links.
//!
//! A **lane** is a connection between two places: messages on it keep their order, and one drains at a time. A message
//! drains at the rate that its lane gets on the **channels** of its way (links, and capacities that links share) and
//! arrives one latency later, plus jitter. With nothing else on the way that is `latency + bytes / least bandwidth`,
//! exactly [`Path::time`], which planner and checker compute.
//!
//! Lanes share channels max-min fairly ([`fair_rates`]): rates are found anew whenever a lane begins or ends to drain or
//! a capacity changes, and what is left of each message is rescheduled then. A lane that shares no channel with any
//! other, and whose capacities never change, needs none of that: when its messages arrive is known when they are sent.
//! Under [`Sharing::Fifo`] a channel serves one message after another instead (`fifo.rs`).
//!
//! Cross traffic takes its share of a capacity before the lanes do. Loss makes bytes drain again, and each round of it
//! costs a round trip. A link that is lost has no capacity; messages on it begin again on another way where there is
//! one, and wait for the repair where there is none.

mod chance;
mod fair;
mod fifo;
mod layout;
mod traffic;

pub use chance::{draw, normal_quantile, resent};
pub use fair::fair_rates;
pub(crate) use layout::link_of;
pub use layout::{LaneEnds, Layout};

use crate::random::Stream;
use fifo::Channels;
use isotherm_core::conditions::Sharing;
use isotherm_core::graph::Path;
use isotherm_core::ids::LinkId;
use isotherm_core::units::{Bytes, Seconds, SimDuration, SimTime};
use layout::Way;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use traffic::Traffic;

/// A lane of a [`Layout`], by its position.
pub type LaneId = u32;

/// A message that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery<M> {
    /// When.
    pub at: SimTime,
    /// What it would have taken from its sending with nothing else on the way: latency and bytes over bandwidth.
    pub alone: SimDuration,
    /// The message.
    pub message: M,
}

/// A message that waits for its lane.
#[derive(Debug, Clone)]
struct Pending<M> {
    size: Bytes,
    message: M,
}

/// A message that drains.
#[derive(Debug, Clone)]
struct Flow<M> {
    pending: Pending<M>,
    way: Arc<Way>,
    /// Bytes left at `since`.
    left: f64,
    rate: f64,
    since: SimTime,
    /// What the true moment was past `since`, in nanoseconds.
    offset: f64,
    /// When the last byte is gone at this rate; never on a dead way.
    due: SimTime,
    /// What `due` leaves of its last nanosecond.
    rest: f64,
    /// From the last byte to the arrival.
    tail: Seconds,
}

#[derive(Debug, Clone)]
struct Lane<M> {
    waiting: VecDeque<Pending<M>>,
    flow: Option<Flow<M>>,
    /// Ways by size, while the links are as they are.
    ways: BTreeMap<Bytes, Option<Arc<Way>>>,
    chance: Option<Stream>,
    last_arrival: SimTime,
    carried: f64,
}

/// All lanes of a plan on the links of a device graph, with what is on them.
#[derive(Debug)]
pub struct Network<'a, M> {
    layout: &'a Layout<'a>,
    lanes: Vec<Lane<M>>,
    /// Lanes with a flow, in their order.
    active: Vec<LaneId>,
    /// Bytes per second of each channel that the lanes may use now.
    capacity: Vec<f64>,
    /// Share of each channel that a failure leaves.
    intact: Vec<f64>,
    traffic: Traffic,
    channels: Channels,
    lost: BTreeSet<LinkId>,
    arrived: Vec<Delivery<M>>,
    /// Bytes that have drained over each channel, those sent again included.
    moved: Vec<u64>,
    /// In which finding of rates each channel was last met, and the number of this one.
    met: Vec<u64>,
    finding: u64,
    /// Keep their allocations between findings.
    rates: Vec<f64>,
    done: Vec<LaneId>,
}

impl<'a, M: Copy> Network<'a, M> {
    /// The network of a layout with nothing on it, in one replication of a seed.
    #[must_use]
    pub fn new(layout: &'a Layout<'a>, seed: u64, replication: u32) -> Self {
        let lanes = (0..layout.lanes().len()).map(|lane| Lane {
            waiting: VecDeque::new(),
            flow: None,
            ways: BTreeMap::new(),
            chance: layout.is_chancy().then(|| Stream::new(seed, replication, &format!("lane {lane}"))),
            last_arrival: SimTime::ZERO,
            carried: 0.0,
        });
        let channels = layout.channels();
        let traffic = Traffic::new(layout.traffic(), seed, replication);
        let mut network = Self {
            lanes: lanes.collect(),
            active: Vec::new(),
            capacity: vec![0.0; channels],
            intact: vec![1.0; channels],
            traffic,
            channels: Channels::new(channels),
            lost: BTreeSet::new(),
            arrived: Vec::new(),
            moved: vec![0; channels],
            met: vec![0; channels],
            finding: 0,
            rates: Vec::new(),
            done: Vec::new(),
            layout,
        };
        network.weigh();
        network
    }

    /// Sends a message. False where there is no way and none will come back. What has arrived, or is known to arrive,
    /// by then is in [`take_arrived`](Self::take_arrived).
    pub fn send(&mut self, now: SimTime, lane: LaneId, size: Bytes, message: M) -> bool {
        let Some(_) = &self.layout.lanes()[lane as usize].ends else {
            self.arrived.push(Delivery { at: now, alone: SimDuration(0), message });
            return true;
        };
        let pending = Pending { size, message };
        if self.layout.lanes()[lane as usize].apart || self.layout.sharing() == Sharing::Fifo {
            return self.send_in_turn(now, lane, &pending);
        }
        if self.lost.is_empty() && self.way(lane, size).is_none() {
            return false;
        }
        self.lanes[lane as usize].waiting.push_back(pending);
        if self.lanes[lane as usize].flow.is_none() && self.start(now, lane, 0.0) {
            self.share(now);
        }
        true
    }

    /// The messages that have arrived, or whose arrival is known, since this was asked last.
    pub fn take_arrived(&mut self) -> std::vec::Drain<'_, Delivery<M>> {
        self.arrived.drain(..)
    }

    /// When something happens on the links next if nothing is sent; none where nothing will.
    #[must_use]
    pub fn due(&self) -> Option<SimTime> {
        let flows = self.active.iter().filter_map(|&lane| self.lanes[lane as usize].flow.as_ref().map(|flow| flow.due));
        let due = flows.chain(self.traffic.due()).min()?;
        (due < SimTime::NEVER).then_some(due)
    }

    /// Lets what is due by now happen.
    pub fn wake(&mut self, now: SimTime) {
        if self.traffic.turn(now) {
            self.weigh();
        }
        let mut done = std::mem::take(&mut self.done);
        let due = |lane: &LaneId| self.lanes[*lane as usize].flow.as_ref().is_some_and(|flow| flow.due <= now);
        done.extend(self.active.iter().copied().filter(due));
        for lane in done.drain(..) {
            self.arrive(lane);
        }
        self.done = done;
        self.share(now);
    }

    /// A link keeps this share of its bandwidth from now on: 0 where it is lost, 1 where it is repaired.
    pub fn degrade(&mut self, now: SimTime, link: LinkId, share: f64) {
        let dies = share <= 0.0;
        let changed = if dies { self.lost.insert(link) } else { self.lost.remove(&link) };
        self.intact[link.index()] = share;
        self.weigh();
        if changed {
            // Another way may be the quickest now. What drains on a way that is still whole goes on there.
            for lane in 0..self.lanes.len() as LaneId {
                let held = &mut self.lanes[lane as usize];
                held.ways.clear();
                let broken = held.flow.as_ref().is_some_and(|flow| dies && flow.way.channels.contains(&link.0));
                if broken && let Some(flow) = held.flow.take() {
                    held.waiting.push_front(flow.pending);
                    self.leave(lane);
                }
                if self.lanes[lane as usize].flow.is_none() {
                    self.start(now, lane, 0.0);
                }
            }
        }
        self.share(now);
    }

    /// Whether messages of a lane have a way now.
    pub fn connected(&mut self, lane: LaneId) -> bool {
        self.layout.lanes()[lane as usize].ends.is_none() || self.way(lane, Bytes(1)).is_some()
    }

    /// Forgets what waits or drains on a lane.
    pub fn clear(&mut self, now: SimTime, lane: LaneId) {
        let held = &mut self.lanes[lane as usize];
        held.waiting.clear();
        if held.flow.take().is_some() {
            self.leave(lane);
            self.share(now);
        }
    }

    /// Bytes that have drained over each link, then over each shared capacity.
    #[must_use]
    pub fn moved(&self) -> &[u64] {
        &self.moved
    }

    /// Capacities of the channels: what the graph says, less cross traffic and failures.
    fn weigh(&mut self) {
        for (channel, capacity) in self.capacity.iter_mut().enumerate() {
            *capacity = self.layout.bandwidth(channel) * self.traffic.left(channel) * self.intact[channel];
        }
    }

    /// The way of a message of this size on a lane, as things are now.
    fn way(&mut self, lane: LaneId, size: Bytes) -> Option<&Arc<Way>> {
        let ends = self.layout.lanes()[lane as usize].ends;
        let (layout, lost) = (self.layout, &self.lost);
        let held = &mut self.lanes[lane as usize];
        let way = held.ways.entry(size).or_insert_with(|| {
            let (from, to) = ends?;
            layout.way(&layout.path(from, to, size, lost)?, size).map(Arc::new)
        });
        way.as_ref()
    }

    /// Jitter of a way, bytes to send again, and time lost with that.
    fn chance(&mut self, lane: LaneId, links: &[u32], latency: Seconds, size: Bytes) -> (Seconds, u64) {
        let layout = self.layout;
        let Some(stream) = &mut self.lanes[lane as usize].chance else { return (Seconds::ZERO, 0) };
        let mut extra = Seconds::ZERO;
        let mut kept = 1.0;
        for &link in links {
            if let Some(spread) = layout.jitter(link) {
                extra += draw(spread, stream);
            }
            kept *= 1.0 - layout.loss(link);
        }
        let (again, rounds) = resent(size.0, 1.0 - kept, stream);
        (extra + latency * 2.0 * f64::from(rounds), again)
    }

    /// A message whose arrival follows from what was sent before it.
    fn send_in_turn(&mut self, now: SimTime, lane: LaneId, pending: &Pending<M>) -> bool {
        let Some(way) = self.way(lane, pending.size) else { return false };
        let way = Arc::clone(way);
        let (extra, again) = self.chance(lane, &way.links, way.latency, pending.size);
        let scale = if again == 0 { 1.0 } else { (pending.size.0 + again) as f64 / pending.size.0.max(1) as f64 };
        let span = self.channels.occupy(now, &way, scale, &self.traffic) + extra;
        self.count(&way.channels, pending.size.0 + again);
        let held = &mut self.lanes[lane as usize];
        let (whole, rest) = span.whole_nanoseconds(held.carried);
        held.carried = rest;
        held.last_arrival = (now + whole).max(held.last_arrival);
        let alone = way.alone.whole_nanoseconds(0.0).0;
        self.arrived.push(Delivery { at: held.last_arrival, alone, message: pending.message });
        true
    }

    /// The first message that waits for a lane begins to drain, where it has a way. Rates are not found anew yet.
    fn start(&mut self, now: SimTime, lane: LaneId, offset: f64) -> bool {
        let Some(size) = self.lanes[lane as usize].waiting.front().map(|pending| pending.size) else { return false };
        let Some(way) = self.way(lane, size) else { return false };
        let way = Arc::clone(way);
        let (extra, again) = self.chance(lane, &way.links, way.latency, size);
        let Some(pending) = self.lanes[lane as usize].waiting.pop_front() else { return false };
        let flow = Flow {
            left: (size.0 + again) as f64,
            rate: 0.0,
            since: now,
            offset,
            due: SimTime::NEVER,
            rest: 0.0,
            tail: way.latency + extra,
            way,
            pending,
        };
        let moved = size.0 + again;
        self.count(&flow.way.channels, moved);
        self.lanes[lane as usize].flow = Some(flow);
        if let Err(place) = self.active.binary_search(&lane) {
            self.active.insert(place, lane);
        }
        true
    }

    /// A lane drains nothing any more.
    fn leave(&mut self, lane: LaneId) {
        if let Ok(place) = self.active.binary_search(&lane) {
            self.active.remove(place);
        }
    }

    fn count(&mut self, channels: &[u32], bytes: u64) {
        for &channel in channels {
            self.moved[channel as usize] += bytes;
        }
    }

    /// The last byte of a lane's message is gone; the next one begins.
    fn arrive(&mut self, lane: LaneId) {
        self.leave(lane);
        let held = &mut self.lanes[lane as usize];
        let Some(flow) = held.flow.take() else { return };
        let (whole, rest) = flow.tail.whole_nanoseconds(flow.rest + held.carried);
        held.carried = rest;
        held.last_arrival = (flow.due + whole).max(held.last_arrival);
        let alone = flow.way.alone.whole_nanoseconds(0.0).0;
        self.arrived.push(Delivery { at: held.last_arrival, alone, message: flow.pending.message });
        self.start(flow.due, lane, flow.rest);
    }

    /// Finds the rates of all flows anew and reschedules those whose rate changed.
    fn share(&mut self, now: SimTime) {
        let rates = self.rates_now();
        for (&lane, &rate) in self.active.iter().zip(&rates) {
            let Some(flow) = &mut self.lanes[lane as usize].flow else { continue };
            if flow.rate.total_cmp(&rate).is_eq() && flow.due < SimTime::NEVER {
                continue;
            }
            let elapsed = now.since(flow.since).0;
            if elapsed > 0 {
                flow.left = (flow.left - flow.rate * ((elapsed as f64 - flow.offset).max(0.0) * 1e-9)).max(0.0);
                flow.offset = 0.0;
                flow.since = now;
            }
            flow.rate = rate;
            // On a dead way the quotient is infinite, or nothing is left and nothing is to be waited for.
            let span = if flow.left > 0.0 { Seconds::new(flow.left / rate).ok() } else { Some(Seconds::ZERO) };
            (flow.due, flow.rest) = match span {
                Some(span) => {
                    let (whole, rest) = span.whole_nanoseconds(flow.offset);
                    (flow.since + whole, rest)
                }
                None => (SimTime::NEVER, 0.0),
            };
        }
        self.rates = rates;
    }

    /// The fair rates of all flows, in the order of their lanes.
    fn rates_now(&mut self) -> Vec<f64> {
        let mut rates = std::mem::take(&mut self.rates);
        rates.clear();
        self.finding += 1;
        for &lane in &self.active {
            let Some(flow) = &self.lanes[lane as usize].flow else { continue };
            let mut least = f64::INFINITY;
            for &channel in &flow.way.channels {
                if std::mem::replace(&mut self.met[channel as usize], self.finding) == self.finding {
                    // Two flows on one channel.
                    let of =
                        |lane: &LaneId| self.lanes[*lane as usize].flow.as_ref().map_or(&[][..], |f| &f.way.channels);
                    return fair_rates(&self.active.iter().map(of).collect::<Vec<_>>(), &self.capacity);
                }
                least = least.min(self.capacity[channel as usize].max(0.0));
            }
            // Where no channel has two flows, each flow has the least capacity on its way.
            rates.push(least);
        }
        rates
    }
}

/// Latency and bandwidth of a path, where anything limits it.
fn alone(path: &Path, size: Bytes, least: f64) -> Seconds {
    let undisturbed = path.bandwidth.is_none_or(|rate| rate.value().total_cmp(&least).is_eq());
    // Undisturbed it is the very number that planner and checker compute.
    if undisturbed { path.time(size) } else { path.latency + Seconds::of(size.0 as f64 / least) }
}

#[cfg(test)]
mod tests;
