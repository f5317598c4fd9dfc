//! Helix's integer program (ASPLOS 2025): a column for every device, number of layers and link.
//!
//! ```text
//! max  sum over j of flow[source, j]
//! s.t. sum over k of hold[i, k] = 1                                     every device holds something
//!      start[i] + sum over k of k hold[i, k] <= L                       call the left side end[i]
//!      sum of flow into i <= sum over k of T[i](k) hold[i, k];  flow into i = flow out of i
//!      flow[i, j] <= capacity[i, j] switch[i, j]
//!      start[i] <= L (1 - switch[source, i]);  L switch[i, sink] <= end[i]
//!      |end[i] - start[j]| <= L (1 - switch[i, j])                      requests pass whole stages
//!      start[j] <= end[i] < end[j] where switch[i, j] = 1               with partial inference
//! ```
//!
//! Rates are in units of the early-stop bound, the sum over devices of the largest `k T(k)` over `L`: what devices
//! could carry if no layer were ever served twice. Shared capacities are not part of it. With partial inference the
//! two conditions stand as rows of the switch itself, which is as tight as the indicator columns of the original.

use super::program::{Program, Relation};
use crate::latency::chains::Link;
use crate::tables::Tables;
use crate::throughput::network::Network;
use crate::throughput::replay::{Path, follows};
use std::collections::BTreeMap;

/// An end of a link: a device, or the source or sink.
type End = Option<usize>;

/// The program and what its columns mean.
pub(crate) struct HelixProgram {
    /// The program; its objective is in units of `unit`.
    pub program: Program,
    /// The early-stop bound.
    pub unit: f64,
    layers: usize,
    start: Vec<usize>,
    hold: Vec<BTreeMap<usize, usize>>,
    /// Flow and switch by link.
    link: BTreeMap<(End, End), (usize, usize)>,
}

impl HelixProgram {
    /// The program of a problem; none where some device can hold nothing at any rate, or nothing bounds.
    pub fn new(tables: &Tables<'_>, network: &Network) -> Option<Self> {
        let (layers, devices) = (network.layers, tables.candidates.len());
        // Helix knows a rate for each number of layers, wherever they are.
        let rates: Vec<BTreeMap<usize, f64>> = (0..devices)
            .map(|device| {
                let kind = tables.candidates[device].kind;
                let fits = |k: &usize| (0..=layers - k).all(|start| start + k <= tables.kinds[kind].reach[start]);
                let least = |k: usize| {
                    let all = (0..=layers - k).map(|start| network.stage[kind].at(start, start + k));
                    all.fold(f64::INFINITY, f64::min)
                };
                (1..=layers).filter(fits).map(|k| (k, least(k))).filter(|(_, rate)| *rate > 0.0).collect()
            })
            .collect();
        let most = |table: &BTreeMap<usize, f64>| table.iter().map(|(k, rate)| *k as f64 * rate).fold(0.0, f64::max);
        let unit = rates.iter().map(most).sum::<f64>() / layers as f64;
        if rates.iter().any(BTreeMap::is_empty) || !(unit.is_finite() && unit > 0.0) {
            return None;
        }
        let mut built = Self {
            program: Program { maximise: true, unit, ..Program::default() },
            unit,
            layers,
            start: Vec::new(),
            hold: Vec::new(),
            link: BTreeMap::new(),
        };
        built.devices(&rates);
        built.links(network, devices);
        built.rows(&rates, tables.problem.limits.partial);
        Some(built)
    }

    fn devices(&mut self, rates: &[BTreeMap<usize, f64>]) {
        for table in rates {
            let last = (self.layers - 1) as f64;
            self.start.push(self.program.column(0.0, 0.0, last, true));
            let hold = table.keys().map(|&k| (k, self.program.column(0.0, 0.0, 1.0, true))).collect();
            self.hold.push(hold);
        }
    }

    fn links(&mut self, network: &Network, devices: usize) {
        let mut add = |ends: (End, End), rate: f64| {
            if rate > 0.0 {
                let capacity = (rate / self.unit).min(1.0);
                let cost = if ends.0.is_none() { 1.0 } else { 0.0 };
                let flow = self.program.column(cost, 0.0, capacity, false);
                let switch = self.program.column(0.0, 0.0, 1.0, true);
                self.program.row(vec![(flow, 1.0), (switch, -capacity)], Relation::AtMost, 0.0);
                self.link.insert(ends, (flow, switch));
            }
        };
        for i in 0..devices {
            add((None, Some(i)), network.source[i]);
            add((Some(i), None), network.sink[i]);
            for j in (0..devices).filter(|&j| j != i) {
                add((Some(i), Some(j)), network.pair[i][j]);
            }
        }
    }

    /// The terms of `end[i]`, each times a factor.
    fn end(&self, device: usize, factor: f64) -> Vec<(usize, f64)> {
        let held = self.hold[device].iter().map(|(&k, &column)| (column, factor * k as f64));
        std::iter::once((self.start[device], factor)).chain(held).collect()
    }

    fn rows(&mut self, rates: &[BTreeMap<usize, f64>], partial: bool) {
        let layers = self.layers as f64;
        for (device, table) in rates.iter().enumerate() {
            let hold = &self.hold[device];
            self.program.row(hold.values().map(|&column| (column, 1.0)).collect(), Relation::Equal, 1.0);
            let capacity = hold.iter().map(|(k, &column)| (column, -(table[k] / self.unit).min(1.0)));
            let into = self.link.iter().filter(|((_, to), _)| *to == Some(device)).map(|(_, link)| (link.0, 1.0));
            let into: Vec<(usize, f64)> = into.collect();
            let out = self.link.iter().filter(|((from, _), _)| *from == Some(device)).map(|(_, link)| (link.0, -1.0));
            let balance: Vec<(usize, f64)> = into.iter().copied().chain(out).collect();
            let carried: Vec<(usize, f64)> = into.into_iter().chain(capacity).collect();
            self.program.row(carried, Relation::AtMost, 0.0);
            self.program.row(balance, Relation::Equal, 0.0);
            self.program.row(self.end(device, 1.0), Relation::AtMost, layers);
        }
        let links: Vec<((End, End), usize)> = self.link.iter().map(|(ends, link)| (*ends, link.1)).collect();
        for (ends, switch) in links {
            match ends {
                (None, Some(i)) => {
                    self.program.row(vec![(self.start[i], 1.0), (switch, layers)], Relation::AtMost, layers);
                }
                (Some(i), None) => {
                    let mut terms = self.end(i, -1.0);
                    terms.push((switch, layers));
                    self.program.row(terms, Relation::AtMost, 0.0);
                }
                (Some(i), Some(j)) => self.follows(i, j, switch, partial),
                (None, None) => {}
            }
        }
    }

    /// The two rows of a link between devices.
    fn follows(&mut self, i: usize, j: usize, switch: usize, partial: bool) {
        let layers = self.layers as f64;
        let mut before = self.end(i, -1.0);
        before.extend([(self.start[j], 1.0), (switch, layers)]);
        self.program.row(before, Relation::AtMost, layers);
        let mut after = self.end(i, 1.0);
        if partial {
            after.extend(self.end(j, -1.0));
            after.push((switch, layers + 1.0));
            self.program.row(after, Relation::AtMost, layers);
        } else {
            after.extend([(self.start[j], -1.0), (switch, layers)]);
            self.program.row(after, Relation::AtMost, layers);
        }
    }

    /// The placement that an assignment is.
    pub fn placement(&self, at: &[f64]) -> Vec<Link> {
        let held = |device: usize| self.hold[device].iter().find(|&(_, &column)| at[column] > 0.5).map(|(&k, _)| k);
        let of = |device: usize| {
            let start = at[self.start[device]].round().max(0.0) as usize;
            held(device).map(|k| (device, start, (start + k).min(self.layers)))
        };
        (0..self.start.len()).filter_map(of).filter(|link| link.1 < link.2).collect()
    }

    /// The assignment that is a placement of all devices with its paths; none where a device holds nothing or a
    /// number of layers that the program does not know.
    pub fn assignment(&self, placement: &[Link], paths: &[Path], partial: bool) -> Option<Vec<f64>> {
        let mut at = vec![0.0; self.program.columns.len()];
        for device in 0..self.start.len() {
            let &(_, start, end) = placement.iter().find(|link| link.0 == device)?;
            at[self.start[device]] = start as f64;
            at[*self.hold[device].get(&(end - start))?] = 1.0;
        }
        for path in paths {
            let stops = path.stops.iter().map(|&stop| Some(placement[stop].0));
            let ends: Vec<End> = std::iter::once(None).chain(stops).chain([None]).collect();
            for pair in ends.windows(2) {
                let &(flow, switch) = self.link.get(&(pair[0], pair[1]))?;
                at[flow] += path.rate / self.unit;
                at[switch] = 1.0;
            }
            let fits = |pair: &[usize]| follows(partial, placement[pair[0]], placement[pair[1]]);
            if !path.stops.windows(2).all(fits) {
                return None;
            }
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_core::scenario::Scenario;

    #[test]
    fn the_program_has_the_size_of_the_published_one() {
        // Three kinds that know 12, 7 and 4 numbers of layers, 4, 8 and 12 of each, all pairs linked: as single24.
        let rates = |most: u32| {
            let rows: Vec<String> = (1..=most).map(|k| format!("[{k}, \"{} tok/s\"]", 1000.0 / f64::from(k))).collect();
            rows.join(", ")
        };
        let devices: String = [(4, 12), (8, 7), (12, 4)]
            .map(|(count, most)| {
                let rates = rates(most);
                format!("[[devices]]\nname = \"m{most}\"\nkind = \"gpu\"\ncount = {count}\nrates = [{rates}]\n")
            })
            .concat();
        let text = format!(
            "name = \"s\"\nquestion = \"?\"\n[model]\nlayers = 80\n{devices}[flow]\nsource = \"1e6 tok/s\"\n\
             between_devices = \"1e5 tok/s\"\nsink = \"1e6 tok/s\"\n[workload]\nprompt_tokens = 1\noutput_tokens = 1\n"
        );
        let scenario = Scenario::parse(&text, &mut |_, _| Err(Vec::new())).expect("a scenario");
        let problem = scenario.problem(None, None).expect("a problem");
        let tables = Tables::new(&problem, false);
        let helix = HelixProgram::new(&tables, &Network::new(&tables, &problem.life(1))).expect("a program");
        let (columns, rows) = (helix.program.columns.len(), helix.program.rows.len());
        let binary = |c: &&super::super::program::Column| c.integer && c.upper == 1.0;
        let binaries = helix.program.columns.iter().filter(binary).count();
        assert_eq!((rows, columns, binaries), (1848, 1376, 752));
    }
}
