//! What devices and ways can carry, in output tokens per second.

use super::sites::Sites;
use super::stay::Stay;
use crate::tables::{Intervals, Kind, Tables, interval};
use isotherm_core::ids::DeviceId;
use isotherm_core::objective::{SINK, SOURCE};
use isotherm_core::plan::Capacity;
use isotherm_core::problem::{Life, Role};
use isotherm_core::units::TokensPerSecond;
use std::collections::{BTreeMap, BTreeSet};

/// A way of this share of the fastest between the same sites, or more, is as good as that.
const ALIKE: f64 = 0.9;

/// A capacity that several ways share: a link or a group of links.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shared {
    /// Which it is.
    pub capacity: Capacity,
    /// Its rate.
    pub rate: f64,
    /// The pairs of candidates whose way uses it.
    pub pairs: Vec<(usize, usize)>,
}

/// Rates of everything, by candidate. Zero where there is nothing, infinite where nothing limits.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    /// Number of layers.
    pub layers: usize,
    /// Rate of a stage, by kind; zero where the layers do not fit.
    pub stage: Vec<Intervals<f64>>,
    /// Rate of the way between two candidates.
    pub pair: Vec<Vec<f64>>,
    /// Rate at which requests reach a candidate.
    pub source: Vec<f64>,
    /// Rate at which answers leave it.
    pub sink: Vec<f64>,
    /// Capacities of more than one pair that could bind before the pairs do.
    pub shared: Vec<Shared>,
    /// How long requests stay where, where that limits how many pass; none where no times are known.
    pub stay: Option<Stay>,
}

/// Rate of a capacity, and the pairs that use it.
type Use = (f64, BTreeSet<(usize, usize)>);

/// What the links between named places state, and whether any link of an end states anything.
struct Stated<'a> {
    rates: BTreeMap<(&'a str, &'a str), Option<TokensPerSecond>>,
}

impl<'a> Stated<'a> {
    fn new(tables: &Tables<'a>) -> Self {
        let mut rates = BTreeMap::new();
        for link in &tables.problem.graph.file().links {
            // The first link between two places speaks for them.
            rates.entry((link.from.as_str(), link.to.as_str())).or_insert(link.tokens_per_second);
        }
        Self { rates }
    }

    fn rate(&self, from: &str, to: &str) -> Option<f64> {
        self.rates.get(&(from, to)).copied().flatten().map(TokensPerSecond::value)
    }
}

/// Rate of a stage, by kind; zero where the layers do not fit.
fn stages(tables: &Tables<'_>, life: &Life) -> Vec<Intervals<f64>> {
    let rates = |kind: &Kind| {
        let rate = |s, e| tables.problem.rate(kind.example, interval(s, e), life).map_or(0.0, TokensPerSecond::value);
        Intervals::of_lengths(tables.layers, rate).where_held(kind)
    };
    tables.kinds.iter().map(rates).collect()
}

impl Network {
    /// Asks the problem, for batches of one life.
    pub fn new(tables: &Tables<'_>, life: &Life) -> Self {
        let stated = Stated::new(tables);
        let mut network = Self {
            layers: tables.layers,
            stage: stages(tables, life),
            pair: vec![vec![0.0; tables.candidates.len()]; tables.candidates.len()],
            source: Vec::new(),
            sink: Vec::new(),
            shared: Vec::new(),
            stay: Stay::new(tables, life),
        };
        network.ends(tables, &stated);
        network.ways(tables, &stated);
        network
    }

    /// The same ways for batches of another life.
    pub fn again(&self, tables: &Tables<'_>, life: &Life) -> Self {
        let stay = self.stay.as_ref().map(|stay| stay.again(tables, life));
        Self { stage: stages(tables, life), stay, ..self.clone() }
    }

    fn ends(&mut self, tables: &Tables<'_>, stated: &Stated<'_>) {
        let problem = tables.problem;
        let links = &problem.graph.file().links;
        let states = |rate: Option<TokensPerSecond>, at_end: bool| at_end && rate.is_some();
        // Prompts come to who prefills, answers leave from who decodes.
        let (prefills, decodes) = (problem.role() != Some(Role::Decode), problem.role() != Some(Role::Prefill));
        let source_states = prefills && links.iter().any(|l| states(l.tokens_per_second, l.from == SOURCE));
        let sink_states = decodes && links.iter().any(|l| states(l.tokens_per_second, l.to == SINK));
        for (i, candidate) in tables.candidates.iter().enumerate() {
            let limit = |stating: bool, rate: Option<f64>, way: bool| match (way, stating) {
                (false, _) => 0.0,
                (true, true) => rate.unwrap_or(0.0),
                (true, false) => f64::INFINITY,
            };
            let name = tables.name(i);
            let (enters, leaves) = (problem.entry(candidate.id, 1).is_some(), problem.exit(candidate.id, 1).is_some());
            self.source.push(limit(source_states, stated.rate(SOURCE, name), enters));
            self.sink.push(limit(sink_states, stated.rate(name, SINK), leaves));
        }
    }

    fn ways(&mut self, tables: &Tables<'_>, stated: &Stated<'_>) {
        let (problem, graph) = (tables.problem, &tables.problem.graph);
        let row = problem.model.boundary_bytes_per_token();
        let output = problem.workload.output_tokens.mean();
        let bytes = (row.0 as f64 * problem.crossing_tokens()).max(1.0) / output;
        let group_rates: BTreeMap<&str, f64> = graph
            .file()
            .groups
            .iter()
            .map(|g| (g.name.as_str(), g.bandwidth_bytes_per_second.value.value() / bytes))
            .collect();
        // Links are told apart by the names of their ends, as the objective does.
        let mut uses: BTreeMap<(&str, &str), Use> = BTreeMap::new();
        let ids: Vec<DeviceId> = tables.candidates.iter().map(|c| c.id).collect();
        for (i, &from) in ids.iter().enumerate() {
            let paths = graph.paths_from(from, row);
            for (j, &to) in ids.iter().enumerate().filter(|(j, _)| *j != i) {
                if let Some(rate) = stated.rate(tables.name(i), tables.name(j)) {
                    self.pair[i][j] = rate;
                    continue;
                }
                let Some(path) = &paths[to.index()] else { continue };
                self.pair[i][j] = path.bandwidth.map_or(f64::INFINITY, |rate| rate.value() / bytes);
                for &id in &path.links {
                    let link = graph.link(id);
                    if let Some(bandwidth) = &link.bandwidth_bytes_per_second {
                        let entry = uses.entry((&link.from, &link.to));
                        let rate = bandwidth.value.value() / bytes;
                        entry.or_insert_with(|| (rate, BTreeSet::new())).1.insert((i, j));
                    }
                    for group in &link.groups {
                        if let Some(&rate) = group_rates.get(group.as_str()) {
                            // No place is called by an empty name beside a group's.
                            let entry = uses.entry(("", group));
                            entry.or_insert_with(|| (rate, BTreeSet::new())).1.insert((i, j));
                        }
                    }
                }
            }
        }
        let named = |(from, to): (&str, &str)| match from {
            "" => Capacity::Group { name: to.to_owned() },
            _ => Capacity::Link { from: from.to_owned(), to: to.to_owned() },
        };
        let several = uses.into_iter().filter(|(_, (_, pairs))| pairs.len() > 1);
        let shared = |(name, (rate, pairs)): ((&str, &str), Use)| Shared {
            capacity: named(name),
            rate,
            pairs: pairs.into_iter().collect(),
        };
        self.shared = several.map(shared).collect();
    }

    /// Forgets every way, shared capacity and stay that cannot bind at a rate of `most` over all routes.
    pub fn relieved(mut self, tables: &Tables<'_>, most: f64) -> Self {
        self.stay = self.stay.filter(|stay| !stay.idle(tables, most));
        // One route may pass a shared capacity at each of its hops.
        let hops = self.pair.len().min(self.layers).saturating_sub(1);
        self.shared.retain(|shared| shared.rate < most * shared.pairs.len().min(hops) as f64);
        for rate in self.pair.iter_mut().flatten().chain(&mut self.source).chain(&mut self.sink) {
            if *rate >= most {
                *rate = f64::INFINITY;
            }
        }
        self
    }

    /// The same ways, none of which limits anything.
    pub fn opened(&self) -> Self {
        let mut open = Self { shared: Vec::new(), stay: None, ..self.clone() };
        for rate in open.pair.iter_mut().flatten().chain(&mut open.source).chain(&mut open.sink) {
            if *rate > 0.0 {
                *rate = f64::INFINITY;
            }
        }
        open
    }

    /// The same with the fastest way between two sites, or within one, for each of their pairs; none where no way is
    /// much slower than that at a rate of `most`, or where ways are not all that joins devices.
    pub fn evened(&self, most: f64) -> Option<Self> {
        if !self.shared.is_empty() || self.stay.is_some() {
            return None;
        }
        let sites = Sites::apart(self, most).members;
        let mut even = self.clone();
        for (from, to) in sites.iter().flat_map(|from| sites.iter().map(move |to| (from, to))) {
            let pairs = || from.iter().flat_map(|&i| to.iter().map(move |&j| (i, j))).filter(|(i, j)| i != j);
            let fastest = pairs().map(|(i, j)| self.pair[i][j]).fold(0.0, f64::max);
            pairs().for_each(|(i, j)| even.pair[i][j] = fastest);
        }
        let slower = |(own, even): (&f64, &f64)| own.min(most) < ALIKE * even.min(most);
        let uneven = self.pair.iter().flatten().zip(even.pair.iter().flatten()).any(slower);
        uneven.then_some(even)
    }

    /// Whether any way or shared capacity, or the lack of one, limits what plans can do.
    pub fn binds(&self) -> bool {
        let between = |i: usize, j: usize, rate: f64| i != j && rate.is_finite();
        let pairs = self.pair.iter().enumerate();
        !self.shared.is_empty()
            || self.stay.is_some()
            || pairs
                .flat_map(|(i, row)| row.iter().enumerate().map(move |(j, &r)| (i, j, r)))
                .any(|(i, j, r)| between(i, j, r))
            || self.source.iter().chain(&self.sink).any(|r| r.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_evened_between_sites_and_within_them_where_some_are_much_slower() {
        // Two sites of two devices; within a site ways of 50, between them of 4.
        let network = |change: &dyn Fn(&mut Vec<Vec<f64>>)| {
            let rate = |a: usize, b: usize| if a == b { 0.0 } else { [4.0, 50.0][usize::from(a / 2 == b / 2)] };
            let mut pair: Vec<Vec<f64>> = (0..4).map(|a| (0..4).map(|b| rate(a, b)).collect()).collect();
            change(&mut pair);
            let ends = vec![f64::INFINITY; 4];
            let (source, sink) = (ends.clone(), ends);
            Network { layers: 1, stage: Vec::new(), pair, source, sink, shared: Vec::new(), stay: None }
        };
        let whole = network(&|_| ());
        assert!(whole.evened(10.0).is_none());
        // What is no slower at the rate asked for, or hardly, is left.
        assert!(network(&|pair| pair[0][1] = 11.0).evened(10.0).is_none());
        assert!(network(&|pair| pair[0][2] = 3.7).evened(10.0).is_none());
        for (from, to, rate) in [(0, 2, 1.0), (1, 0, 0.0)] {
            let even = network(&|pair| pair[from][to] = rate).evened(10.0).expect("a way is slower");
            assert_eq!(even.pair, whole.pair);
        }
    }
}
