//! Highest throughput as an integer program with partial inference: a request may enter an interval in its middle.
//!
//! *Where links cannot bind* and routes may be of any length, the most that intervals carry is the least, over all layers,
//! of what those that hold it carry together: a set of stages cuts the source from the sink exactly where, without it,
//! some layer is held by nobody (max-flow/min-cut). So the rate `F` is a column with one row per layer:
//! `F <= sum over intervals that hold it of rate * n`.
//!
//! *Otherwise* requests are followed through states (hop, device, layer) of single devices: `z` stays or moves from layer
//! to layer, a device passes a layer only where it holds it, and what enters a device is at most its rate.

use super::program::{Program, Relation};
use crate::latency::chains::Link;
use crate::tables::Tables;
use crate::throughput::network::Network;
use std::collections::BTreeMap;

/// The program and what its columns mean.
pub(crate) struct PartialProgram {
    /// The program; its objective is in units of the bound given.
    pub program: Program,
    classes: Vec<Vec<usize>>,
    count: BTreeMap<(usize, usize, usize), usize>,
}

type Terms = Vec<(usize, f64)>;

impl PartialProgram {
    /// The program where no link can bind, for classes of twins.
    pub fn cover(tables: &Tables<'_>, network: &Network, classes: Vec<Vec<usize>>, most: f64) -> Self {
        let mut built = Self::counts(tables, network, classes, most);
        let rate = built.program.column(1.0, 0.0, 1.0, false);
        let mut layers: Vec<Terms> = vec![vec![(rate, 1.0)]; network.layers];
        for (&(class, start, end), &column) in &built.count {
            let kind = tables.candidates[built.classes[class][0]].kind;
            let carried = (network.stage[kind].at(start, end) / most).min(1.0);
            layers[start..end].iter_mut().for_each(|terms| terms.push((column, -carried)));
        }
        for terms in layers {
            built.program.row(terms, Relation::AtMost, 0.0);
        }
        built
    }

    /// The program that follows requests from device to device, through at most `stages_max` of them.
    pub fn routed(tables: &Tables<'_>, network: &Network, stages_max: Option<usize>, most: f64) -> Self {
        let single = (0..tables.candidates.len()).map(|device| vec![device]).collect();
        let mut built = Self::counts(tables, network, single, most);
        let requests = built.states(tables, network, stages_max, 1.0);
        let carried = |&(device, start, end): &Link| {
            (network.stage[tables.candidates[device].kind].at(start, end) / most).min(1.0)
        };
        built.limits(network, &requests, most, carried);
        built.stay(tables, network, &requests, most, carried);
        let open = network.opened();
        for device in (0..tables.candidates.len()).filter(|&device| tables.candidates[device].pinned) {
            // A unit of its own finds a way through a pinned device, over intervals that are held.
            let unit = built.states(tables, &open, stages_max, 0.0);
            built.limits(&open, &unit, most, |_| 1.0);
            let entering = unit.entering.get(&device).cloned().unwrap_or_default();
            built.program.row(entering, Relation::AtLeast, 1.0);
        }
        built
    }

    fn counts(tables: &Tables<'_>, network: &Network, classes: Vec<Vec<usize>>, most: f64) -> Self {
        let mut built = Self {
            program: Program { maximise: true, unit: most, ..Program::default() },
            classes,
            count: BTreeMap::new(),
        };
        for (class, members) in built.classes.iter().enumerate() {
            let kind = tables.candidates[members[0]].kind;
            for start in 0..network.layers {
                for end in start + 1..=tables.kinds[kind].reach[start] {
                    if network.stage[kind].at(start, end) > 0.0 {
                        let column = built.program.column(0.0, 0.0, members.len() as f64, true);
                        built.count.insert((class, start, end), column);
                    }
                }
            }
        }
        super::device_rows(&mut built.program, tables, &built.classes, &built.count);
        built
    }

    fn states(&mut self, tables: &Tables<'_>, network: &Network, stages_max: Option<usize>, value: f64) -> Flows {
        let (n, layers) = (tables.candidates.len(), network.layers);
        let hops = stages_max.map_or(1, |most| most.min(n));
        let mut flows = Flows::default();
        let mut balance: BTreeMap<(usize, usize, usize), Terms> = BTreeMap::new();
        let program = &mut self.program;
        for device in (0..n).filter(|&d| network.source[d] > 0.0 && hops > 0) {
            let column = program.column(value, 0.0, 1.0, false);
            balance.entry((0, device, 1)).or_default().push((column, 1.0));
            flows.enter(device, column);
            flows.source.push((device, column));
            flows.held.entry((device, 0)).or_default().push((column, 1.0));
        }
        for hop in 0..hops {
            let after = if stages_max.is_none() { Some(0) } else { Some(hop + 1).filter(|&h| h < hops) };
            for device in 0..n {
                if network.sink[device] > 0.0 {
                    let column = program.column(0.0, 0.0, 1.0, false);
                    balance.entry((hop, device, layers)).or_default().push((column, -1.0));
                    flows.sink.push((device, column));
                }
                for layer in 1..layers {
                    let column = program.column(0.0, 0.0, 1.0, false);
                    balance.entry((hop, device, layer)).or_default().push((column, -1.0));
                    balance.entry((hop, device, layer + 1)).or_default().push((column, 1.0));
                    flows.held.entry((device, layer)).or_default().push((column, 1.0));
                    let Some(after) = after else { continue };
                    for next in (0..n).filter(|&next| next != device && network.pair[device][next] > 0.0) {
                        let column = program.column(0.0, 0.0, 1.0, false);
                        balance.entry((hop, device, layer)).or_default().push((column, -1.0));
                        balance.entry((after, next, layer + 1)).or_default().push((column, 1.0));
                        flows.enter(next, column);
                        flows.pairs.entry((device, next)).or_default().push((column, 1.0));
                        flows.held.entry((next, layer)).or_default().push((column, 1.0));
                    }
                }
            }
        }
        for terms in balance.into_values() {
            program.row(terms, Relation::Equal, 0.0);
        }
        flows
    }

    fn limits(&mut self, network: &Network, flows: &Flows, most: f64, carried: impl Fn(&Link) -> f64) {
        let mut rows: Vec<(Terms, f64)> = Vec::new();
        for (&device, entering) in &flows.entering {
            let held = self.count.range((device, 0, 0)..(device + 1, 0, 0));
            let mut terms = entering.clone();
            terms.extend(held.map(|(interval, &column)| (column, -carried(interval))));
            rows.push((terms, 0.0));
        }
        for (&(device, layer), passing) in &flows.held {
            let held = self.count.range((device, 0, 0)..(device + 1, 0, 0));
            let mut terms = passing.clone();
            let holds = held.filter(|((_, start, end), _)| (*start..*end).contains(&layer));
            terms.extend(holds.map(|(interval, &column)| (column, -carried(interval))));
            rows.push((terms, 0.0));
        }
        for (&(from, to), terms) in &flows.pairs {
            rows.push((terms.clone(), network.pair[from][to] / most));
        }
        for shared in &network.shared {
            let inside = flows.pairs.iter().filter(|(pair, _)| shared.pairs.binary_search(pair).is_ok());
            rows.push((inside.flat_map(|(_, terms)| terms.clone()).collect(), shared.rate / most));
        }
        for (ends, rates) in [(&flows.source, &network.source), (&flows.sink, &network.sink)] {
            let mut by_device: BTreeMap<usize, Terms> = BTreeMap::new();
            ends.iter().for_each(|&(device, column)| by_device.entry(device).or_default().push((column, 1.0)));
            rows.extend(by_device.into_iter().map(|(device, terms)| (terms, rates[device] / most)));
        }
        for (terms, right) in rows.into_iter().filter(|(terms, right)| !terms.is_empty() && right.is_finite()) {
            self.program.row(terms, Relation::AtMost, right);
        }
    }

    /// No more requests are in flight than are admitted. How long one stays on a device depends on what that holds, so
    /// what enters a device is told apart by interval.
    fn stay(
        &mut self,
        tables: &Tables<'_>,
        network: &Network,
        flows: &Flows,
        most: f64,
        carried: impl Fn(&Link) -> f64,
    ) {
        let Some(stay) = &network.stay else { return };
        let share = |seconds: f64| seconds * most / stay.in_flight;
        let mut spent: Terms = Vec::new();
        for (&device, entering) in &flows.entering {
            let mut split = entering.clone();
            let held: Vec<(Link, usize)> =
                self.count.range((device, 0, 0)..(device + 1, 0, 0)).map(|(&link, &column)| (link, column)).collect();
            for (link, holds) in held {
                let column = self.program.column(0.0, 0.0, 1.0, false);
                self.program.row(vec![(column, 1.0), (holds, -carried(&link))], Relation::AtMost, 0.0);
                let seconds = stay.stage[tables.candidates[device].kind].at(link.1, link.2);
                spent.push((column, share(seconds)));
                split.push((column, -1.0));
            }
            self.program.row(split, Relation::Equal, 0.0);
        }
        for (&(from, to), terms) in &flows.pairs {
            spent.extend(terms.iter().map(|&(column, _)| (column, share(stay.pair[from][to]))));
        }
        spent.extend(flows.source.iter().map(|&(device, column)| (column, share(stay.source[device]))));
        spent.extend(flows.sink.iter().map(|&(device, column)| (column, share(stay.sink[device]))));
        self.program.row(spent, Relation::AtMost, 1.0);
    }

    /// The placement that an assignment is.
    pub fn placement(&self, at: &[f64]) -> Vec<Link> {
        super::placement(&self.classes, &self.count, at)
    }
}

/// Columns of flow by what they load.
#[derive(Default)]
struct Flows {
    entering: BTreeMap<usize, Terms>,
    held: BTreeMap<(usize, usize), Terms>,
    pairs: BTreeMap<(usize, usize), Terms>,
    source: Vec<(usize, usize)>,
    sink: Vec<(usize, usize)>,
}

impl Flows {
    fn enter(&mut self, device: usize, column: usize) {
        self.entering.entry(device).or_default().push((column, 1.0));
    }
}
