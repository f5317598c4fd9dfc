//! Least latency of one chain as an integer program.
//!
//! Columns: `x[class, start, end]`, whether a device of a class of twins holds these layers, and `h[layer, class,
//! class]`, the passage from one stage to the next at a layer. Rows: the chain begins once; at each inner layer a class
//! passes on what ends there and takes up what begins there (a path in a graph of layers and classes, so that the
//! continuous relaxation without the rows below is integral); a class has so many devices; a pool so many bytes, in
//! shares of its size, because tolerances are absolute; a rule on the number of stages. Costs are in units of a known
//! value, for the same reason.

use super::program::{Program, Relation};
use crate::latency::chains::{Chains, ClassLink, Link, Prices, StageCount};
use std::collections::{BTreeMap, BTreeSet};

/// The program of a chain problem and what its columns mean.
pub(crate) struct ChainProgram {
    /// The program.
    pub program: Program,
    /// `x`: (class, start, end).
    stages: Vec<((usize, usize, usize), usize)>,
    /// `h`: (layer, from class, to class).
    ways: BTreeMap<(usize, usize, usize), usize>,
    class_of: Vec<usize>,
    /// Seconds of one unit of cost.
    scale: f64,
    /// Row that counts each class.
    count_rows: Vec<usize>,
    /// Row of each pool.
    pool_rows: Vec<usize>,
}

impl ChainProgram {
    /// The program over the intervals in `kept`, with `scale` seconds as its unit of cost. Only for one chunk.
    pub fn new(chains: &Chains<'_>, kept: &[ClassLink], scale: f64) -> Self {
        let (tables, costs, classes) = (chains.tables, chains.costs, &chains.classes);
        let mut class_of = vec![0; tables.candidates.len()];
        for (class, members) in classes.iter().enumerate() {
            members.iter().for_each(|&member| class_of[member] = class);
        }
        let intervals: BTreeSet<ClassLink> = kept.iter().copied().collect();
        let mut program = Program { unit: scale, ..Program::default() };
        let stages: Vec<_> = intervals
            .into_iter()
            .filter_map(|(class, start, end)| {
                let device = classes[class][0];
                let enter = if start == 0 { costs.entry[device] } else { 0.0 };
                let leave = if end == costs.layers { costs.exit[device] } else { 0.0 };
                let cost = costs.stage[tables.candidates[device].kind][0].at(start, end) + enter + leave;
                let add = |_| ((class, start, end), program.column(cost / scale, 0.0, 1.0, true));
                cost.is_finite().then_some(()).map(add)
            })
            .collect();
        let mut ending: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        let mut starting: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for &((class, start, end), column) in &stages {
            starting.entry((start, class)).or_default().push(column);
            ending.entry((end, class)).or_default().push(column);
        }
        let mut ways = BTreeMap::new();
        for &(layer, from) in ending.keys() {
            for &(_, to) in starting.range((layer, 0)..(layer + 1, 0)).map(|(key, _)| key) {
                let cost = chains.ways[0][from * classes.len() + to];
                if cost.is_finite() {
                    ways.insert((layer, from, to), program.column(cost / scale, 0.0, 1.0, false));
                }
            }
        }
        let mut built = Self { program, stages, ways, class_of, scale, count_rows: Vec::new(), pool_rows: Vec::new() };
        built.paths(costs.layers, &starting, &ending);
        built.counts(chains);
        built
    }

    fn paths(
        &mut self,
        layers: usize,
        starting: &BTreeMap<(usize, usize), Vec<usize>>,
        ending: &BTreeMap<(usize, usize), Vec<usize>>,
    ) {
        let ones = |columns: &[usize], factor: f64| columns.iter().map(|&c| (c, factor)).collect::<Vec<_>>();
        let first = starting.range((0, 0)..(1, 0)).flat_map(|(_, columns)| ones(columns, 1.0)).collect();
        self.program.row(first, Relation::Equal, 1.0);
        let through = |layer: usize, class: usize, leaving: bool| -> Vec<(usize, f64)> {
            let passes = |&(at, from, to): &(usize, usize, usize)| {
                at == layer && (if leaving { from == class } else { to == class })
            };
            let near = self.ways.range((layer, 0, 0)..(layer + 1, 0, 0));
            near.filter(|(key, _)| passes(key)).map(|(_, &column)| (column, -1.0)).collect()
        };
        let mut rows = Vec::new();
        for (sets, leaving) in [(ending, true), (starting, false)] {
            for (&(layer, class), columns) in sets.iter().filter(|((layer, _), _)| (1..layers).contains(layer)) {
                let mut terms = ones(columns, 1.0);
                terms.extend(through(layer, class, leaving));
                rows.push(terms);
            }
        }
        for terms in rows {
            self.program.row(terms, Relation::Equal, 0.0);
        }
    }

    fn counts(&mut self, chains: &Chains<'_>) {
        let tables = chains.tables;
        for (class, members) in chains.classes.iter().enumerate() {
            let terms = self.stages.iter().filter(|s| s.0.0 == class).map(|s| (s.1, 1.0)).collect();
            let pinned = tables.candidates[members[0]].pinned;
            let relation = if pinned { Relation::Equal } else { Relation::AtMost };
            self.count_rows.push(self.program.row(terms, relation, members.len() as f64));
        }
        for (position, pool) in tables.pools.iter().enumerate() {
            let share = |&((class, start, end), column): &((usize, usize, usize), usize)| {
                let candidate = tables.candidates[chains.classes[class][0]];
                let bytes = tables.kinds[candidate.kind].bytes.at(start, end) as f64;
                (candidate.pool == Some(position)).then_some((column, bytes / (pool.size as f64).max(1.0)))
            };
            let terms = self.stages.iter().filter_map(share).collect();
            self.pool_rows.push(self.program.row(terms, Relation::AtMost, 1.0));
        }
        let all = || self.stages.iter().map(|s| (s.1, 1.0)).collect();
        match chains.count {
            StageCount::Any => {}
            StageCount::AtMost(count) => {
                self.program.row(all(), Relation::AtMost, count as f64);
            }
            StageCount::Exactly(count) => {
                self.program.row(all(), Relation::Equal, count as f64);
            }
        }
    }

    /// The assignment that is a chain; none where the program lacks one of its stages.
    pub fn assignment(&self, chain: &[Link]) -> Option<Vec<f64>> {
        let mut at = vec![0.0; self.program.columns.len()];
        for &(device, start, end) in chain {
            let key = (self.class_of[device], start, end);
            let found = self.stages.binary_search_by(|stage| stage.0.cmp(&key)).ok()?;
            at[self.stages[found].1] = 1.0;
        }
        for pair in chain.windows(2) {
            let key = (pair[0].2, self.class_of[pair[0].0], self.class_of[pair[1].0]);
            at[*self.ways.get(&key)?] = 1.0;
        }
        Some(at)
    }

    /// The stages that an assignment takes, in order.
    pub fn walk(&self, at: &[f64]) -> Vec<ClassLink> {
        let mut taken: Vec<_> = self.stages.iter().filter(|s| at[s.1] > 0.5).map(|s| s.0).collect();
        taken.sort_by_key(|&(_, start, _)| start);
        taken
    }

    /// Forbids the stages of a chain to be taken together.
    pub fn forbid(&mut self, at: &[f64]) {
        let terms: Vec<_> = self.stages.iter().filter(|s| at[s.1] > 0.5).map(|s| (s.1, 1.0)).collect();
        let right = terms.len() as f64 - 1.0;
        self.program.row(terms, Relation::AtMost, right);
    }

    /// Prices from the duals of the continuous relaxation.
    pub fn prices(&self, chains: &Chains<'_>, duals: &[f64]) -> Prices {
        let mut prices = chains.no_prices();
        for (class, &row) in self.count_rows.iter().enumerate() {
            let price = -duals[row] * self.scale;
            prices.class[class] = if chains.pinned(class) { price } else { price.max(0.0) };
        }
        for (pool, &row) in self.pool_rows.iter().enumerate() {
            let size = (chains.tables.pools[pool].size as f64).max(1.0);
            prices.byte[pool] = (-duals[row] * self.scale / size).max(0.0);
        }
        prices
    }
}
