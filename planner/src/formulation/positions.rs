//! Highest throughput as an integer program over positions, requests passing every interval from start to end.
//!
//! Columns: `n[class, start, end]`, how many devices of a class of twins hold these layers; `g[hop, class, start, end]`,
//! what passes through them; `f[hop, layer, class, class]`, what passes from one class to the next at a layer. Hops are
//! counted only where routes may have so many stages. Rates are in units of an upper bound `most` on every plan's rate,
//! and clipped at it, which loses no plan and tightens the continuous relaxation. Where no link can bind and no device is
//! pinned, `g` is kept per interval, not per class, and `f` falls away.
//!
//! With several twins in a class, a limit on the way between two devices becomes one on the way between two classes; that
//! admits more than the devices can do. The program's bound holds all the same, and what its placement really carries is
//! replayed.
//!
//! A pinned device must serve somebody, be it ever so few. So that the best plan need not send it a measurable share, each
//! pinned device has a unit of a commodity of its own that must find a way through it, over intervals that are held.

use super::program::{Program, Relation};
use crate::latency::chains::Link;
use crate::tables::Tables;
use crate::throughput::network::Network;
use crate::throughput::replay::Path;
use std::collections::{BTreeMap, BTreeSet};

type Terms = Vec<(usize, f64)>;

/// What travels: requests, or the unit that shows a pinned device to be on some way.
#[derive(Default)]
struct Commodity {
    /// `g` by (hop, class, start, end); the class is 0 where merged.
    flow: BTreeMap<(usize, usize, usize, usize), usize>,
    /// `f` by (hop, layer, from, to).
    passing: BTreeMap<(usize, usize, usize, usize), usize>,
}

/// The program and what its columns mean.
pub(crate) struct PositionProgram {
    /// The program; its objective is in units of `most`.
    pub program: Program,
    classes: Vec<Vec<usize>>,
    class_of: Vec<usize>,
    /// `n` by (class, start, end).
    count: BTreeMap<(usize, usize, usize), usize>,
    requests: Commodity,
    /// The units of pinned devices.
    pins: Vec<(usize, Commodity)>,
    merged: bool,
    hops: Option<usize>,
    most: f64,
    layers: usize,
}

impl PositionProgram {
    /// The program for devices in `classes` of twins, pinned ones alone, on a network relieved of what cannot bind at
    /// `most`, routes having at most `hops` stages.
    pub fn new(
        tables: &Tables<'_>,
        network: &Network,
        classes: Vec<Vec<usize>>,
        hops: Option<usize>,
        most: f64,
    ) -> Self {
        let mut class_of = vec![0; tables.candidates.len()];
        for (class, members) in classes.iter().enumerate() {
            members.iter().for_each(|&member| class_of[member] = class);
        }
        let mut built = Self {
            program: Program { maximise: true, unit: most, ..Program::default() },
            classes,
            class_of,
            count: BTreeMap::new(),
            requests: Commodity::default(),
            pins: Vec::new(),
            merged: !network.binds() && tables.candidates.iter().all(|c| !c.pinned),
            hops,
            most,
            layers: network.layers,
        };
        built.counts(tables, network);
        super::device_rows(&mut built.program, tables, &built.classes, &built.count);
        let requests = built.commodity(network, 1.0);
        built.carry(&requests, |start, end, device| {
            let mut rate = network.stage[tables.candidates[device].kind].at(start, end);
            if start == 0 {
                rate = rate.min(network.source[device]);
            }
            if end == network.layers {
                rate = rate.min(network.sink[device]);
            }
            (rate / most).min(1.0)
        });
        built.ways(network, &requests);
        built.stay(tables, network, &requests);
        built.requests = requests;
        for device in (0..tables.candidates.len()).filter(|&device| tables.candidates[device].pinned) {
            built.pin(network, device);
        }
        if let Some(stages) = tables.problem.limits.stages_exact {
            built.one_chain(stages);
        }
        built
    }

    fn hop_range(&self) -> std::ops::Range<usize> {
        0..self.hops.unwrap_or(1)
    }

    /// The hop after one; none where the route is over.
    fn after(&self, hop: usize) -> Option<usize> {
        match self.hops {
            None => Some(0),
            Some(hops) => Some(hop + 1).filter(|&next| next < hops),
        }
    }

    fn flow_class(&self, class: usize) -> usize {
        if self.merged { 0 } else { class }
    }

    fn counts(&mut self, tables: &Tables<'_>, network: &Network) {
        for (class, members) in self.classes.iter().enumerate() {
            let kind = tables.candidates[members[0]].kind;
            for start in 0..self.layers {
                for end in start + 1..=tables.kinds[kind].reach[start] {
                    if network.stage[kind].at(start, end) > 0.0 {
                        let column = self.program.column(0.0, 0.0, members.len() as f64, true);
                        self.count.insert((class, start, end), column);
                    }
                }
            }
        }
    }

    /// Columns of a commodity, worth `value` each, and the rows that keep it whole.
    fn commodity(&mut self, network: &Network, value: f64) -> Commodity {
        let mut made = Commodity::default();
        for &(class, start, end) in self.count.keys() {
            // The first hop begins the model, later hops do not.
            for hop in self.hop_range().filter(|&hop| self.hops.is_none() || (hop == 0) == (start == 0)) {
                let key = (hop, self.flow_class(class), start, end);
                let worth = if start == 0 { value } else { 0.0 };
                made.flow.entry(key).or_insert_with(|| self.program.column(worth, 0.0, 1.0, false));
            }
        }
        if self.merged {
            self.balance(&made);
            return made;
        }
        let starts: BTreeSet<_> = made.flow.keys().map(|&(hop, class, start, _)| (hop, start, class)).collect();
        let ends: BTreeSet<_> = made.flow.keys().map(|&(hop, class, _, end)| (hop, end, class)).collect();
        for (hop, layer, from) in ends {
            let Some(after) = self.after(hop).filter(|_| layer < self.layers) else { continue };
            for &(_, _, to) in starts.range((after, layer, 0)..(after, layer + 1, 0)) {
                if way(network, &self.classes, from, to).is_some_and(|rate| rate > 0.0) {
                    let column = self.program.column(0.0, 0.0, 1.0, false);
                    made.passing.insert((hop, layer, from, to), column);
                }
            }
        }
        self.hand_over(&made);
        made
    }

    /// Intervals carry at most what their devices do.
    fn carry(&mut self, commodity: &Commodity, carried: impl Fn(usize, usize, usize) -> f64) {
        let mut rows: BTreeMap<(usize, usize, usize), Terms> = BTreeMap::new();
        for (&(class, start, end), &column) in &self.count {
            let key = (self.flow_class(class), start, end);
            rows.entry(key).or_default().push((column, -carried(start, end, self.classes[class][0])));
        }
        for (&(_, class, start, end), &column) in &commodity.flow {
            rows.entry((class, start, end)).or_default().push((column, 1.0));
        }
        for terms in rows.into_values() {
            self.program.row(terms, Relation::AtMost, 0.0);
        }
    }

    /// A unit finds a way through a pinned device, over intervals that are held.
    fn pin(&mut self, network: &Network, device: usize) {
        let unit = self.commodity(network, 0.0);
        let reaches = |start: usize, end: usize, device: usize| {
            let barred =
                (start == 0 && network.source[device] <= 0.0) || (end == network.layers && network.sink[device] <= 0.0);
            if barred { 0.0 } else { 1.0 }
        };
        self.carry(&unit, reaches);
        let through = unit.flow.iter().filter(|((_, class, ..), _)| *class == self.class_of[device]);
        let terms = through.map(|(_, &column)| (column, 1.0)).collect();
        self.program.row(terms, Relation::AtLeast, 1.0);
        self.pins.push((device, unit));
    }

    /// What ends at a layer begins there, a hop later.
    fn balance(&mut self, commodity: &Commodity) {
        let mut rows: BTreeMap<(usize, usize), Terms> = BTreeMap::new();
        for (&(hop, _, start, end), &column) in &commodity.flow {
            if start > 0 {
                rows.entry((hop, start)).or_default().push((column, -1.0));
            }
            if end < self.layers {
                // What could only go on past the last hop is held at zero by a row of its own.
                let after = self.after(hop).unwrap_or(usize::MAX);
                rows.entry((after, end)).or_default().push((column, 1.0));
            }
        }
        for terms in rows.into_values() {
            self.program.row(terms, Relation::Equal, 0.0);
        }
    }

    /// What ends on a class at a layer passes on to the classes that begin there.
    fn hand_over(&mut self, commodity: &Commodity) {
        let mut rows: BTreeMap<(usize, usize, usize, bool), Terms> = BTreeMap::new();
        for (&(hop, class, start, end), &column) in &commodity.flow {
            if end < self.layers {
                rows.entry((hop, end, class, true)).or_default().push((column, 1.0));
            }
            if start > 0 {
                rows.entry((hop, start, class, false)).or_default().push((column, 1.0));
            }
        }
        for (&(hop, layer, from, to), &column) in &commodity.passing {
            rows.entry((hop, layer, from, true)).or_default().push((column, -1.0));
            if let Some(after) = self.after(hop) {
                rows.entry((after, layer, to, false)).or_default().push((column, -1.0));
            }
        }
        for terms in rows.into_values() {
            self.program.row(terms, Relation::Equal, 0.0);
        }
    }

    /// Ways and shared capacities carry so much.
    fn ways(&mut self, network: &Network, commodity: &Commodity) {
        let mut pairs: BTreeMap<(usize, usize), BTreeMap<usize, Terms>> = BTreeMap::new();
        for (&(_, layer, from, to), &column) in &commodity.passing {
            pairs.entry((from, to)).or_default().entry(layer).or_default().push((column, 1.0));
        }
        for (&(from, to), layers) in &pairs {
            let Some(rate) = way(network, &self.classes, from, to).filter(|rate| rate.is_finite()) else { continue };
            let (senders, takers) = (self.classes[from].len() as f64, self.classes[to].len() as f64);
            let ways = if from == to { senders * (senders - 1.0) } else { senders * takers };
            let terms = layers.values().flatten().copied().collect();
            self.program.row(terms, Relation::AtMost, rate / self.most * ways);
            for (&layer, terms) in layers.iter().filter(|_| ways > 1.0) {
                self.at_border(rate / self.most, layer, terms, (from, to));
            }
        }
        for shared in &network.shared {
            let inside = |(from, to): (usize, usize)| {
                let taker = self.classes[to].get(usize::from(from == to));
                taker.is_some_and(|&taker| shared.pairs.binary_search(&(self.classes[from][0], taker)).is_ok())
            };
            let terms = commodity.passing.iter().filter(|((_, _, from, to), _)| inside((*from, *to)));
            let terms: Terms = terms.map(|(_, &column)| (column, 1.0)).collect();
            self.program.row(terms, Relation::AtMost, shared.rate / self.most);
        }
    }

    /// No more requests are in flight than are admitted: rate times residence, over everything that is passed.
    fn stay(&mut self, tables: &Tables<'_>, network: &Network, commodity: &Commodity) {
        let Some(stay) = &network.stay else { return };
        let share = |seconds: f64| seconds * self.most / stay.in_flight;
        let mut terms = Terms::new();
        for (&(_, class, start, end), &column) in &commodity.flow {
            let device = self.classes[class][0];
            let mut seconds = stay.stage[tables.candidates[device].kind].at(start, end);
            seconds += if start == 0 { stay.source[device] } else { 0.0 };
            seconds += if end == self.layers { stay.sink[device] } else { 0.0 };
            terms.push((column, share(seconds)));
        }
        for (&(_, _, from, to), &column) in &commodity.passing {
            if let Some(&taker) = self.classes[to].get(usize::from(from == to)) {
                terms.push((column, share(stay.pair[self.classes[from][0]][taker])));
            }
        }
        self.program.row(terms, Relation::AtMost, 1.0);
    }

    /// At one border only the devices that end or begin there have ways.
    fn at_border(&mut self, rate: f64, layer: usize, passing: &Terms, (from, to): (usize, usize)) {
        let counts = |class: usize, at: &dyn Fn(usize, usize) -> bool, factor: f64| -> Terms {
            let of_class = self.count.range((class, 0, 0)..(class + 1, 0, 0));
            let here = of_class.filter(|((_, s, e), _)| at(*s, *e)).map(|(_, &column)| (column, factor));
            here.chain(passing.iter().copied()).collect()
        };
        let sent = counts(from, &|_, end| end == layer, -rate * self.classes[to].len() as f64);
        let taken = counts(to, &|start, _| start == layer, -rate * self.classes[from].len() as f64);
        self.program.row(sent, Relation::AtMost, 0.0);
        self.program.row(taken, Relation::AtMost, 0.0);
    }

    /// Exactly so many stages, one after another.
    fn one_chain(&mut self, stages: u32) {
        let terms = |at: &dyn Fn(usize, usize) -> f64| -> Terms {
            let all = self.count.iter().map(|(&(_, s, e), &column)| (column, at(s, e)));
            all.filter(|term| term.1 != 0.0).collect()
        };
        let is = |yes: bool| f64::from(u8::from(yes));
        let mut rows = vec![(terms(&|_, _| 1.0), f64::from(stages)), (terms(&|s, _| is(s == 0)), 1.0)];
        rows.extend((1..self.layers).map(|layer| (terms(&|s, e| is(e == layer) - is(s == layer)), 0.0)));
        for (terms, right) in rows {
            self.program.row(terms, Relation::Equal, right);
        }
    }

    /// The placement that an assignment is.
    pub fn placement(&self, at: &[f64]) -> Vec<Link> {
        super::placement(&self.classes, &self.count, at)
    }

    /// The assignment that a placement and the paths through it are; none where the program lacks a part of them. The
    /// units of pinned devices follow a path each.
    pub fn assignment(&self, placement: &[Link], paths: &[Path]) -> Option<Vec<f64>> {
        let mut at = vec![0.0; self.program.columns.len()];
        for &(device, start, end) in placement {
            at[*self.count.get(&(self.class_of[device], start, end))?] += 1.0;
        }
        for path in paths {
            self.lay(&mut at, &self.requests, placement, path, path.rate / self.most)?;
        }
        for (device, unit) in &self.pins {
            let path = paths.iter().find(|path| path.stops.iter().any(|&stop| placement[stop].0 == *device))?;
            self.lay(&mut at, unit, placement, path, 1.0)?;
        }
        Some(at)
    }

    /// Lays an amount of a commodity along a path.
    fn lay(&self, at: &mut [f64], what: &Commodity, placement: &[Link], path: &Path, amount: f64) -> Option<()> {
        for (position, &stop) in path.stops.iter().enumerate() {
            let (device, start, end) = placement[stop];
            let hop = if self.hops.is_none() { 0 } else { position };
            at[*what.flow.get(&(hop, self.flow_class(self.class_of[device]), start, end))?] += amount;
            if let Some(&next) = path.stops.get(position + 1).filter(|_| !self.merged) {
                let classes = (self.class_of[device], self.class_of[placement[next].0]);
                at[*what.passing.get(&(hop, end, classes.0, classes.1))?] += amount;
            }
        }
        Some(())
    }
}

/// Rate of the way from a device of one class to one of another; none within a class of one.
fn way(network: &Network, classes: &[Vec<usize>], from: usize, to: usize) -> Option<f64> {
    let taker = if from == to { classes[to].get(1) } else { classes[to].first() };
    taker.map(|&taker| network.pair[classes[from][0]][taker])
}
