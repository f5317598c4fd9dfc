//! Serving cheaply, or fast for little, as an integer program over positions.
//!
//! Columns: `n[class, start, end]`, how many devices of a class of twins hold these layers; `g[class, start, end]`,
//! what passes through them; `F`, what passes in all. Where a device has operating points, what passes it is the sum of
//! pieces, each no more than one piece of its least load allows (see `isotherm_core::power`); what they cost is convex,
//! so the cheaper pieces come first by themselves. Rates are in units of an upper bound `most` on every plan's rate.
//! What devices cost is linear in `n`, `g` and pieces, so a limit on a cost per token is a row, and the least cost per
//! token comes of programs that minimise `cost - ratio * F` for falling ratios (Dinkelbach, "On nonlinear fractional
//! programming", Management Science 13, 1967).
//!
//! Where ways between devices matter and are few enough, there are columns for them too, `f[layer, class, class]`, what
//! passes from one class to the next at a layer; else ways are left aside but for the least time that any of them
//! takes. Twins share what limits one of them. All this admits more than the devices can do, so the program bounds
//! every plan in which requests pass whole stages; what its placement really is worth is valued elsewhere.

use super::program::{Program, Relation};
use crate::latency::chains::Link;
use crate::tables::{Intervals, Tables};
use crate::throughput::network::Network;
use crate::throughput::replay::Path;
use isotherm_core::power::Draw;
use isotherm_core::spending::Cost;
use isotherm_core::sustained::{Envelope, Row};
use std::collections::BTreeMap;

/// Share of all that passes which a pinned device has at least.
const PINNED_SHARE: f64 = 1e-4;

/// Columns of ways that are worth having.
const WAYS_MAX: usize = 4_000;

/// A class, and the layers that its devices hold.
type Held = (usize, usize, usize);

/// Columns of the pieces of a flow, with the load of a unit of each.
type Pieces = Vec<(usize, f64)>;

/// What a program is to find.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Aim {
    /// The greatest rate.
    Rate,
    /// The least cost.
    Cost,
    /// The least cost beyond this much for each unit of the rate.
    Beyond(f64),
}

/// What a program has to know beside tables and network.
#[derive(Debug, Clone)]
pub(crate) struct Asked<'a> {
    /// Devices that are alike, pinned ones alone.
    pub classes: &'a [Vec<usize>],
    /// Rates by kind where heat did not limit how much a device works.
    pub cool: &'a [Intervals<f64>],
    /// Costs of the candidates, for what is to be least; nothing where that is no cost.
    pub costs: &'a [Cost],
    /// What the candidates draw at each speed, where that is known; those of a class are alike.
    pub draws: &'a [Option<Draw>],
    /// Least rate.
    pub floor: f64,
    /// Costs of the candidates and the most that they may be: for each unit of the rate, or in all.
    pub limits: &'a [(Vec<Cost>, f64, bool)],
    /// What heat and power limit; nothing where nothing does.
    pub envelope: Option<&'a Envelope>,
    /// No plan's rate is greater.
    pub most: f64,
}

/// The program and what its columns mean.
pub(crate) struct SpendingProgram {
    /// The program; costs are in units of `scale`.
    pub program: Program,
    count: BTreeMap<(usize, usize, usize), usize>,
    flow: BTreeMap<(usize, usize, usize), usize>,
    /// Pieces of a flow with the load of a unit of each, as a share of that at full speed.
    pieces: BTreeMap<Held, Pieces>,
    /// `f` by (layer, from, to); none where ways are left aside.
    passing: BTreeMap<(usize, usize, usize), usize>,
    rate: usize,
    classes: Vec<Vec<usize>>,
    most: f64,
    /// One unit of the program's costs.
    pub scale: f64,
    layers: usize,
}

impl SpendingProgram {
    /// The program for batches of the network's life.
    pub fn new(tables: &Tables<'_>, network: &Network, asked: &Asked<'_>, aim: Aim) -> Self {
        let all: f64 = asked.costs.iter().map(|cost| cost.held + cost.worked).sum();
        let scale = if all > 0.0 { all } else { 1.0 };
        let mut built = Self {
            program: Program::default(),
            count: BTreeMap::new(),
            flow: BTreeMap::new(),
            pieces: BTreeMap::new(),
            passing: BTreeMap::new(),
            rate: 0,
            classes: asked.classes.to_vec(),
            most: asked.most,
            scale,
            layers: network.layers,
        };
        let worth = match aim {
            Aim::Rate => -1.0,
            Aim::Cost => 0.0,
            Aim::Beyond(ratio) => -ratio * asked.most / scale,
        };
        let floor = (asked.floor / asked.most).min(1.0);
        built.rate = built.program.column(worth, floor, 1.0, false);
        let spends = aim != Aim::Rate;
        built.columns(tables, network, asked, spends);
        super::device_rows(&mut built.program, tables, &built.classes, &built.count);
        built.carry(tables, network);
        let ways = asked.classes.len() * asked.classes.len() * network.layers.saturating_sub(1);
        if network.binds() && ways <= WAYS_MAX {
            built.ways(network);
        } else {
            built.balance();
        }
        built.stay(tables, network);
        for (costs, most, each) in asked.limits {
            built.cost(tables, asked, costs, *most, *each);
        }
        if let Some(envelope) = asked.envelope {
            built.heat(tables, asked, envelope);
        }
        if let Some(stages) = tables.problem.limits.stages_exact {
            built.one_chain(stages);
        }
        built
    }

    fn columns(&mut self, tables: &Tables<'_>, network: &Network, asked: &Asked<'_>, spends: bool) {
        for (class, members) in asked.classes.iter().enumerate() {
            let kind = tables.candidates[members[0]].kind;
            let cost = asked.costs.get(members[0]).filter(|_| spends);
            let draw = asked.draws.get(members[0]).and_then(Option::as_ref).filter(|draw| draw.has_points());
            let (held, worked) = cost.map_or((0.0, 0.0), |cost| (cost.held / self.scale, cost.worked / self.scale));
            for start in 0..self.layers {
                for end in start + 1..=tables.kinds[kind].reach[start] {
                    if network.stage[kind].at(start, end) > 0.0 {
                        let load = asked.most / asked.cool[kind].at(start, end);
                        let n = self.program.column(held, 0.0, members.len() as f64, true);
                        let (g, pieces) = self.passed(n, draw, load, worked);
                        self.count.insert((class, start, end), n);
                        self.flow.insert((class, start, end), g);
                        self.pieces.insert((class, start, end), pieces);
                    }
                }
            }
        }
    }

    /// What passes through these layers of `n` devices, and its pieces. All that may pass at `most` would bring one of
    /// them this load at full speed, and such a load costs `worked`.
    fn passed(&mut self, n: usize, draw: Option<&Draw>, load: f64, worked: f64) -> (usize, Vec<(usize, f64)>) {
        let Some(draw) = draw else {
            let flow = self.program.column(worked * load, 0.0, 1.0, false);
            return (flow, vec![(flow, 1.0)]);
        };
        let flow = self.program.column(0.0, 0.0, 1.0, false);
        let (mut sum, mut pieces) = (vec![(flow, -1.0)], Vec::new());
        for (work, each) in draw.pieces() {
            let piece = self.program.column(worked * load * each, 0.0, 1.0, false);
            self.program.row(vec![(piece, 1.0), (n, -(work / load).min(1.0))], Relation::AtMost, 0.0);
            sum.push((piece, 1.0));
            pieces.push((piece, each));
        }
        self.program.row(sum, Relation::Equal, 0.0);
        (flow, pieces)
    }

    /// Intervals carry at most what their devices do, and a pinned device carries something.
    fn carry(&mut self, tables: &Tables<'_>, network: &Network) {
        for (&(class, start, end), &flow) in &self.flow {
            let device = self.classes[class][0];
            let mut rate = network.stage[tables.candidates[device].kind].at(start, end);
            rate = if start == 0 { rate.min(network.source[device]) } else { rate };
            rate = if end == self.layers { rate.min(network.sink[device]) } else { rate };
            let share = (rate / self.most).min(1.0);
            let terms = vec![(flow, 1.0), (self.count[&(class, start, end)], -share)];
            self.program.row(terms, Relation::AtMost, 0.0);
        }
        for class in 0..self.classes.len() {
            if tables.candidates[self.classes[class][0]].pinned {
                let of_class = self.flow.range((class, 0, 0)..(class + 1, 0, 0));
                let mut terms: Vec<_> = of_class.map(|(_, &flow)| (flow, 1.0)).collect();
                terms.push((self.rate, -PINNED_SHARE));
                self.program.row(terms, Relation::AtLeast, 0.0);
            }
        }
    }

    /// What ends at a layer begins there; all begins at the first.
    fn balance(&mut self) {
        let mut rows = vec![Vec::new(); self.layers];
        for (&(_, start, end), &flow) in &self.flow {
            rows[start].push((flow, -1.0));
            if end < self.layers {
                rows[end].push((flow, 1.0));
            }
        }
        rows[0].push((self.rate, 1.0));
        for terms in rows {
            self.program.row(terms, Relation::Equal, 0.0);
        }
    }

    /// What ends on a class at a layer passes on to those that begin there, by ways that carry so much.
    fn ways(&mut self, network: &Network) {
        let classes = self.classes.len();
        let mut rows: BTreeMap<(usize, usize, bool), Vec<(usize, f64)>> = BTreeMap::new();
        for (&(class, start, end), &flow) in &self.flow {
            if end < self.layers {
                rows.entry((end, class, true)).or_default().push((flow, 1.0));
            }
            if start > 0 {
                rows.entry((start, class, false)).or_default().push((flow, 1.0));
            }
        }
        let ends: Vec<(usize, usize)> = rows.keys().filter(|key| key.2).map(|key| (key.0, key.1)).collect();
        let mut pairs: BTreeMap<(usize, usize), Vec<(usize, f64)>> = BTreeMap::new();
        for (layer, from) in ends {
            for to in 0..classes {
                let taker = self.classes[to].get(usize::from(from == to));
                let rate = taker.map_or(0.0, |&taker| network.pair[self.classes[from][0]][taker]);
                if rate > 0.0 && rows.contains_key(&(layer, to, false)) {
                    let column = self.program.column(0.0, 0.0, 1.0, false);
                    self.passing.insert((layer, from, to), column);
                    rows.entry((layer, from, true)).or_default().push((column, -1.0));
                    rows.entry((layer, to, false)).or_default().push((column, -1.0));
                    pairs.entry((from, to)).or_default().push((column, 1.0));
                }
            }
        }
        for terms in rows.into_values() {
            self.program.row(terms, Relation::Equal, 0.0);
        }
        let first = self.flow.iter().filter(|((_, start, _), _)| *start == 0).map(|(_, &flow)| (flow, -1.0));
        let terms = first.chain([(self.rate, 1.0)]).collect();
        self.program.row(terms, Relation::Equal, 0.0);
        for ((from, to), terms) in pairs {
            let taker = self.classes[to].get(usize::from(from == to)).copied().unwrap_or(0);
            let rate = network.pair[self.classes[from][0]][taker];
            let (senders, takers) = (self.classes[from].len() as f64, self.classes[to].len() as f64);
            let ways = if from == to { senders * (senders - 1.0) } else { senders * takers };
            if rate.is_finite() {
                self.program.row(terms, Relation::AtMost, rate / self.most * ways);
            }
        }
        for shared in &network.shared {
            let inside = |&(_, from, to): &(usize, usize, usize)| {
                let taker = self.classes[to].get(usize::from(from == to));
                taker.is_some_and(|&taker| shared.pairs.binary_search(&(self.classes[from][0], taker)).is_ok())
            };
            let terms = self.passing.iter().filter(|(key, _)| inside(key)).map(|(_, &column)| (column, 1.0)).collect();
            self.program.row(terms, Relation::AtMost, shared.rate / self.most);
        }
    }

    /// No more requests are in flight than are admitted, ways taking what the quickest of them takes.
    fn stay(&mut self, tables: &Tables<'_>, network: &Network) {
        let Some(stay) = &network.stay else { return };
        let ways = stay.pair.iter().enumerate().flat_map(|(from, row)| {
            let open = row.iter().enumerate().filter(move |(to, _)| *to != from);
            open.filter(move |(to, _)| network.pair[from][*to] > 0.0).map(|(_, time)| *time)
        });
        let way = ways.fold(f64::INFINITY, f64::min);
        let way = if way.is_finite() && self.passing.is_empty() { way } else { 0.0 };
        let mut terms = Vec::new();
        for (&(class, start, end), &flow) in &self.flow {
            let device = self.classes[class][0];
            let mut seconds = stay.stage[tables.candidates[device].kind].at(start, end);
            seconds += if start == 0 { stay.source[device] } else { way };
            seconds += if end == self.layers { stay.sink[device] } else { 0.0 };
            terms.push((flow, seconds * self.most / stay.in_flight));
        }
        for (&(_, from, to), &column) in &self.passing {
            if let Some(&taker) = self.classes[to].get(usize::from(from == to)) {
                terms.push((column, stay.pair[self.classes[from][0]][taker] * self.most / stay.in_flight));
            }
        }
        self.program.row(terms, Relation::AtMost, 1.0);
    }

    /// A cost is at most so much: for each unit of the rate, or in all.
    fn cost(&mut self, tables: &Tables<'_>, asked: &Asked<'_>, costs: &[Cost], most: f64, each: bool) {
        let unit: f64 = costs.iter().map(|cost| cost.held + cost.worked).sum::<f64>().max(f64::MIN_POSITIVE);
        let mut terms = Vec::new();
        for (&(class, start, end), &column) in &self.count {
            let device = self.classes[class][0];
            let load = self.most / asked.cool[tables.candidates[device].kind].at(start, end);
            terms.push((column, costs[device].held / unit));
            for &(piece, each) in &self.pieces[&(class, start, end)] {
                terms.push((piece, costs[device].worked * load * each / unit));
            }
        }
        if each {
            terms.push((self.rate, -most * self.most / unit));
        }
        terms.retain(|term| term.1 != 0.0);
        self.program.row(terms, Relation::AtMost, if each { 0.0 } else { most / unit });
    }

    /// What heat and power leave: each limit of a scope, and those of the temperatures of a class together. Twins that
    /// a limit counts differently are counted as the least of them.
    fn heat(&mut self, tables: &Tables<'_>, asked: &Asked<'_>, envelope: &Envelope) {
        let class_of = |row: &Row| match &row.subject {
            isotherm_core::sustained::Subject::Temperature(name) => {
                self.classes.iter().position(|members| members.iter().any(|&device| tables.name(device) == name))
            }
            isotherm_core::sustained::Subject::Power(_) => None,
        };
        let mut rows: BTreeMap<(usize, usize), (BTreeMap<usize, f64>, f64)> = BTreeMap::new();
        for (position, row) in envelope.rows.iter().enumerate() {
            let key = class_of(row).map_or((usize::MAX, position), |class| (class, 0));
            let sum = rows.entry(key).or_default();
            sum.1 += row.most.max(0.0);
            for &(device, each) in &row.terms {
                *sum.0.entry(device.index()).or_default() += each;
            }
        }
        for (terms, most) in rows.into_values() {
            let of = |device: usize| terms.get(&tables.candidates[device].id.index()).copied().unwrap_or(0.0);
            let least =
                |class: usize| self.classes[class].iter().map(|&device| of(device)).fold(f64::INFINITY, f64::min);
            let scale = if most > 0.0 { most } else { 1.0 };
            let mut terms = Vec::new();
            for (&(class, start, end), pieces) in &self.pieces {
                let kind = tables.candidates[self.classes[class][0]].kind;
                let load = least(class) * self.most / asked.cool[kind].at(start, end) / scale;
                terms.extend(pieces.iter().map(|&(piece, each)| (piece, load * each)).filter(|term| term.1 > 0.0));
            }
            self.program.row(terms, Relation::AtMost, most / scale);
        }
    }

    /// Exactly so many stages, one after another.
    fn one_chain(&mut self, stages: u32) {
        let all = self.count.values().map(|&column| (column, 1.0)).collect();
        self.program.row(all, Relation::Equal, f64::from(stages));
        let mut rows = vec![Vec::new(); self.layers];
        for (&(_, start, end), &column) in &self.count {
            rows[start].push((column, 1.0));
            if end < self.layers {
                rows[end].push((column, -1.0));
            }
        }
        for (layer, terms) in rows.into_iter().enumerate() {
            self.program.row(terms, Relation::Equal, if layer == 0 { 1.0 } else { 0.0 });
        }
    }

    /// The placement of an assignment, and the paths of what passes through it.
    pub fn read(&self, network: &Network, at: &[f64]) -> (Vec<Link>, Vec<Path>) {
        let placement = super::placement(&self.classes, &self.count, at);
        let class_of = |device: usize| self.classes.iter().position(|members| members.contains(&device)).unwrap_or(0);
        let twins = |link: &Link| {
            let alike = |other: &&Link| (class_of(other.0), other.1, other.2) == (class_of(link.0), link.1, link.2);
            placement.iter().filter(alike).count().max(1) as f64
        };
        let mut left: Vec<f64> = placement
            .iter()
            .map(|link| {
                let column = self.flow.get(&(class_of(link.0), link.1, link.2));
                column.map_or(0.0, |&column| at[column].max(0.0)) * self.most / twins(link)
            })
            .collect();
        let classes: Vec<usize> = placement.iter().map(|link| class_of(link.0)).collect();
        let mut passing: BTreeMap<(usize, usize, usize), f64> =
            self.passing.iter().map(|(&key, &column)| (key, at[column].max(0.0) * self.most)).collect();
        let least = 1e-9 * self.most;
        let mut paths = Vec::new();
        let key = |before: usize, after: usize| (placement[before].2, classes[before], classes[after]);
        loop {
            // What a way still carries; without columns for ways, whatever there is one for.
            let way = |before: usize, after: usize| {
                let open = network.pair[placement[before].0][placement[after].0] > 0.0;
                let carried = if passing.is_empty() {
                    f64::INFINITY
                } else {
                    passing.get(&key(before, after)).copied().unwrap_or(0.0)
                };
                if open { carried } else { 0.0 }
            };
            let Some(path) = next_path(&placement, &left, self.layers, least, &way) else { break };
            for &stop in &path.stops {
                left[stop] -= path.rate;
            }
            for pair in path.stops.windows(2) {
                if let Some(carried) = passing.get_mut(&key(pair[0], pair[1])) {
                    *carried -= path.rate;
                }
            }
            paths.push(path);
            if paths.len() > placement.len() * 2 {
                break;
            }
        }
        (placement, paths)
    }
}

/// A path through what is left, at each layer by the stage that has most of it left.
fn next_path(
    placement: &[Link],
    left: &[f64],
    layers: usize,
    least: f64,
    way: &dyn Fn(usize, usize) -> f64,
) -> Option<Path> {
    let (mut at, mut stops): (usize, Vec<usize>) = (0, Vec::new());
    while at < layers {
        let open = |&i: &usize| {
            let reached = stops.last().is_none_or(|&before| way(before, i) > least);
            placement[i].1 == at && left[i] > least && reached
        };
        let width = |i: usize| stops.last().map_or(left[i], |&before| left[i].min(way(before, i)));
        let next = (0..placement.len()).filter(open).max_by(|&a, &b| width(a).total_cmp(&width(b)))?;
        stops.push(next);
        at = placement[next].2;
    }
    let ways = stops.windows(2).map(|pair| way(pair[0], pair[1]));
    let rate = stops.iter().map(|&stop| left[stop]).chain(ways).fold(f64::INFINITY, f64::min);
    Some(Path { stops, rate })
}
