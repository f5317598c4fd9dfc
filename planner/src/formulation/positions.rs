//! Highest throughput as an integer program over positions, requests entering every interval at its start.
//!
//! Columns: `n[class, start, end]`, how many devices of a class of twins hold these layers; `g[class, start, end]`, what
//! passes through them; `f[layer, class, class]`, what passes from one class to the next at a layer. Rates are in units
//! of an upper bound `most` on every plan's rate, and clipped at it, which loses no plan and tightens the continuous
//! relaxation. Where no link can bind, `g` is kept per interval, not per class, and `f` falls away.
//!
//! With several twins in a class, a limit on the way between two devices becomes one on the way between two classes; that
//! admits more than the devices can do. The program's bound holds all the same, and what its placement really carries is
//! replayed.

use super::program::{Program, Relation};
use crate::latency::walk::Link;
use crate::tables::Tables;
use crate::throughput::network::Network;
use crate::throughput::replay::Path;
use std::collections::BTreeMap;

type Interval = (usize, usize);

/// The program and what its columns mean.
pub(crate) struct PositionProgram {
    /// The program; its objective is in units of `most`.
    pub program: Program,
    classes: Vec<Vec<usize>>,
    class_of: Vec<usize>,
    count: BTreeMap<(usize, usize, usize), usize>,
    /// Flow by (class, start, end); by (0, start, end) where links do not bind.
    flow: BTreeMap<(usize, usize, usize), usize>,
    passing: BTreeMap<(usize, usize, usize), usize>,
    merged: bool,
    most: f64,
    layers: usize,
}

impl PositionProgram {
    /// The program for devices in `classes` of twins on a network relieved of what cannot bind at `most`.
    pub fn new(tables: &Tables<'_>, network: &Network, classes: Vec<Vec<usize>>, most: f64) -> Self {
        let mut class_of = vec![0; tables.candidates.len()];
        for (class, members) in classes.iter().enumerate() {
            members.iter().for_each(|&member| class_of[member] = class);
        }
        let merged = !network.binds();
        let mut built = Self {
            program: Program { maximise: true, ..Program::default() },
            classes,
            class_of,
            count: BTreeMap::new(),
            flow: BTreeMap::new(),
            passing: BTreeMap::new(),
            merged,
            most,
            layers: network.layers,
        };
        built.columns(tables, network);
        built.carry(tables, network);
        if built.merged {
            built.balance()
        } else {
            built.hand_over(network)
        }
        built.devices(tables);
        if tables.problem.limits.stages_exact.is_some() {
            built.one_chain(tables);
        }
        built
    }

    fn columns(&mut self, tables: &Tables<'_>, network: &Network) {
        for (class, members) in self.classes.iter().enumerate() {
            let kind = tables.candidates[members[0]].kind;
            for start in 0..self.layers {
                for end in start + 1..=tables.kinds[kind].reach[start] {
                    if network.stage[kind].at(start, end) <= 0.0 {
                        continue;
                    }
                    let program = &mut self.program;
                    let column = program.column(0.0, 0.0, members.len() as f64, true);
                    self.count.insert((class, start, end), column);
                    let key = (if self.merged { 0 } else { class }, start, end);
                    let enters = f64::from(u8::from(start == 0));
                    self.flow.entry(key).or_insert_with(|| program.column(enters, 0.0, 1.0, false));
                }
            }
        }
        if self.merged {
            return;
        }
        let ends: BTreeMap<(usize, usize), ()> = self.flow.keys().map(|&(c, _, e)| ((e, c), ())).collect();
        let starts: BTreeMap<(usize, usize), ()> = self.flow.keys().map(|&(c, s, _)| ((s, c), ())).collect();
        for &(layer, from) in ends.keys() {
            for &(_, to) in starts.range((layer, 0)..(layer + 1, 0)).map(|(key, ())| key) {
                if way(network, &self.classes, from, to).is_some_and(|rate| rate > 0.0) && layer < self.layers {
                    let column = self.program.column(0.0, 0.0, f64::INFINITY, false);
                    self.passing.insert((layer, from, to), column);
                }
            }
        }
    }

    /// Intervals carry at most what their devices do.
    fn carry(&mut self, tables: &Tables<'_>, network: &Network) {
        let mut rows: BTreeMap<usize, Vec<(usize, f64)>> = BTreeMap::new();
        for (&(class, start, end), &column) in &self.count {
            let device = self.classes[class][0];
            let kind = tables.candidates[device].kind;
            let mut rate = network.stage[kind].at(start, end);
            if start == 0 {
                rate = rate.min(network.source[device]);
            }
            if end == self.layers {
                rate = rate.min(network.sink[device]);
            }
            let flow = self.flow[&(if self.merged { 0 } else { class }, start, end)];
            rows.entry(flow).or_default().push((column, -(rate / self.most).min(1.0)));
        }
        for (flow, mut terms) in rows {
            terms.push((flow, 1.0));
            self.program.row(terms, Relation::AtMost, 0.0);
        }
    }

    /// What ends at a layer begins there.
    fn balance(&mut self) {
        for layer in 1..self.layers {
            let at = |&(_, start, end): &(usize, usize, usize)| {
                if end == layer {
                    1.0
                } else if start == layer {
                    -1.0
                } else {
                    0.0
                }
            };
            let terms: Vec<_> =
                self.flow.iter().map(|(key, &column)| (column, at(key))).filter(|t| t.1 != 0.0).collect();
            if !terms.is_empty() {
                self.program.row(terms, Relation::Equal, 0.0);
            }
        }
    }

    /// What ends on a class at a layer passes on to the classes that begin there, within what the ways carry.
    fn hand_over(&mut self, network: &Network) {
        let mut rows: BTreeMap<(usize, usize, bool), Vec<(usize, f64)>> = BTreeMap::new();
        for (&(class, start, end), &column) in &self.flow {
            if end < self.layers {
                rows.entry((end, class, true)).or_default().push((column, 1.0));
            }
            if start > 0 {
                rows.entry((start, class, false)).or_default().push((column, 1.0));
            }
        }
        for (&(layer, from, to), &column) in &self.passing {
            rows.entry((layer, from, true)).or_default().push((column, -1.0));
            rows.entry((layer, to, false)).or_default().push((column, -1.0));
        }
        for terms in rows.into_values() {
            self.program.row(terms, Relation::Equal, 0.0);
        }
        let mut pairs: BTreeMap<(usize, usize), Vec<(usize, usize)>> = BTreeMap::new();
        for (&(layer, from, to), &column) in &self.passing {
            pairs.entry((from, to)).or_default().push((layer, column));
        }
        for (&(from, to), columns) in &pairs {
            let Some(rate) = way(network, &self.classes, from, to).filter(|rate| rate.is_finite()) else { continue };
            let (senders, takers) = (self.classes[from].len() as f64, self.classes[to].len() as f64);
            let ways = if from == to { senders * (senders - 1.0) } else { senders * takers };
            let terms = columns.iter().map(|&(_, column)| (column, 1.0)).collect();
            self.program.row(terms, Relation::AtMost, rate / self.most * ways);
            if ways > 1.0 {
                for &(layer, column) in columns {
                    self.at_border(rate / self.most, layer, column, (from, to));
                }
            }
        }
        for shared in &network.shared {
            let inside = |&(_, from, to): &(usize, usize, usize)| {
                let example = (self.classes[from][0], *self.classes[to].get(usize::from(from == to)).unwrap_or(&0));
                shared.pairs.binary_search(&example).is_ok()
            };
            let terms = self.passing.iter().filter(|(key, _)| inside(key)).map(|(_, &column)| (column, 1.0)).collect();
            self.program.row(terms, Relation::AtMost, shared.rate / self.most);
        }
    }

    /// At one border only the devices that end or begin there have ways.
    fn at_border(&mut self, rate: f64, layer: usize, column: usize, (from, to): (usize, usize)) {
        let counts = |class: usize, at: &dyn Fn(&Interval) -> bool, factor: f64| -> Vec<(usize, f64)> {
            let of_class = self.count.range((class, 0, 0)..(class + 1, 0, 0));
            of_class.filter(|((_, s, e), _)| at(&(*s, *e))).map(|(_, &column)| (column, factor)).collect()
        };
        let mut sent = counts(from, &|i| i.1 == layer, -rate * self.classes[to].len() as f64);
        let mut taken = counts(to, &|i| i.0 == layer, -rate * self.classes[from].len() as f64);
        sent.push((column, 1.0));
        taken.push((column, 1.0));
        self.program.row(sent, Relation::AtMost, 0.0);
        self.program.row(taken, Relation::AtMost, 0.0);
    }

    /// So many devices, so much shared memory.
    fn devices(&mut self, tables: &Tables<'_>) {
        for (class, members) in self.classes.iter().enumerate() {
            let of_class = self.count.range((class, 0, 0)..(class + 1, 0, 0));
            let terms = of_class.map(|(_, &column)| (column, 1.0)).collect();
            let pinned = tables.candidates[members[0]].pinned;
            let relation = if pinned { Relation::Equal } else { Relation::AtMost };
            self.program.row(terms, relation, members.len() as f64);
        }
        for (position, pool) in tables.pools.iter().enumerate() {
            let share = |(&(class, start, end), &column): (&(usize, usize, usize), &usize)| {
                let candidate = tables.candidates[self.classes[class][0]];
                let bytes = tables.kinds[candidate.kind].bytes.at(start, end) as f64;
                (candidate.pool == Some(position)).then_some((column, bytes / (pool.size as f64).max(1.0)))
            };
            let terms = self.count.iter().filter_map(share).collect();
            self.program.row(terms, Relation::AtMost, 1.0);
        }
    }

    /// Exactly so many stages, one after another.
    fn one_chain(&mut self, tables: &Tables<'_>) {
        let terms = |at: &dyn Fn(&Interval) -> f64| -> Vec<(usize, f64)> {
            let all = self.count.iter().map(|(&(_, s, e), &column)| (column, at(&(s, e))));
            all.filter(|term| term.1 != 0.0).collect()
        };
        let mut rows = vec![
            (terms(&|_| 1.0), f64::from(tables.problem.limits.stages_exact.unwrap_or(1))),
            (terms(&|i| f64::from(u8::from(i.0 == 0))), 1.0),
        ];
        for layer in 1..self.layers {
            let at = |i: &Interval| f64::from(u8::from(i.1 == layer)) - f64::from(u8::from(i.0 == layer));
            rows.push((terms(&at), 0.0));
        }
        for (terms, right) in rows {
            self.program.row(terms, Relation::Equal, right);
        }
    }

    /// The placement that an assignment is.
    pub fn placement(&self, at: &[f64]) -> Vec<Link> {
        let mut next = vec![0; self.classes.len()];
        let mut placement = Vec::new();
        for (&(class, start, end), &column) in &self.count {
            for _ in 0..at[column].round() as usize {
                if let Some(&device) = self.classes[class].get(next[class]) {
                    placement.push((device, start, end));
                    next[class] += 1;
                }
            }
        }
        placement
    }

    /// The assignment that a placement and the paths through it are; none where the program lacks a part of them.
    pub fn assignment(&self, placement: &[Link], paths: &[Path]) -> Option<Vec<f64>> {
        let mut at = vec![0.0; self.program.columns.len()];
        for &(device, start, end) in placement {
            at[*self.count.get(&(self.class_of[device], start, end))?] += 1.0;
        }
        for path in paths {
            let rate = path.rate / self.most;
            for &stop in &path.stops {
                let (device, start, end) = placement[stop];
                let key = (if self.merged { 0 } else { self.class_of[device] }, start, end);
                at[*self.flow.get(&key)?] += rate;
            }
            for pair in path.stops.windows(2).filter(|_| !self.merged) {
                let (from, to) = (placement[pair[0]], placement[pair[1]]);
                at[*self.passing.get(&(from.2, self.class_of[from.0], self.class_of[to.0]))?] += rate;
            }
        }
        Some(at)
    }
}

/// Rate of the way from a device of one class to one of another; none within a class of one.
fn way(network: &Network, classes: &[Vec<usize>], from: usize, to: usize) -> Option<f64> {
    let taker = if from == to { classes[to].get(1) } else { classes[to].first() };
    taker.map(|&taker| network.pair[classes[from][0]][taker])
}
