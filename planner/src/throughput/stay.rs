//! How long a request stays where, and what Little's law makes of it: no more than `requests_max` requests are in
//! flight, so rate times residence cannot exceed them. It is one row, linear in what flows where.

use super::replay::{self, Carried};
use super::{BestFlow, Flows, Proof, priced, routes};
use crate::budget::{Budget, GAP_NONE};
use crate::formulation::solve::SolverFault;
use crate::latency::chains::{Band, Chains, Link, StageCount};
use crate::latency::costs::{Costs, Steps};
use crate::latency::{best_chain, good_chain};
use crate::tables::{Intervals, Kind, Tables, interval};
use crate::throughput::network::Network;
use isotherm_core::graph::Path;
use isotherm_core::ids::DeviceId;
use isotherm_core::problem::Life;
use isotherm_core::units::Seconds;

/// Residence of a request on everything, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stay {
    /// Requests in flight times their output tokens: the most that rate times residence may be.
    pub in_flight: f64,
    /// On a stage, by kind; zero where no times are known.
    pub stage: Vec<Intervals<f64>>,
    /// On the way between two candidates; zero where there is none.
    pub pair: Vec<Vec<f64>>,
    /// On the way in.
    pub source: Vec<f64>,
    /// On the way out.
    pub sink: Vec<f64>,
    /// Latency of the way between two candidates, and the time of one token's activations on it: the same for every
    /// batch.
    ways: Vec<Vec<(f64, f64)>>,
}

fn seconds(time: Option<Seconds>) -> f64 {
    time.map_or(0.0, Seconds::value)
}

impl Stay {
    /// Asks the problem; none where it knows no times.
    pub fn new(tables: &Tables<'_>, life: &Life) -> Option<Self> {
        let problem = tables.problem;
        if !problem.knows_times() {
            return None;
        }
        let row = problem.model.boundary_bytes_per_token();
        let ids: Vec<DeviceId> = tables.candidates.iter().map(|candidate| candidate.id).collect();
        let spent = |path: &Path| (path.latency.value(), path.bandwidth.map_or(0.0, |rate| (row / rate).value()));
        let ways_from = |&from: &DeviceId| {
            let paths = problem.graph.paths_from(from, row);
            let way = |to: &DeviceId| paths[to.index()].as_ref().filter(|_| from != *to).map_or((0.0, 0.0), spent);
            ids.iter().map(way).collect()
        };
        let ways = ids.iter().map(ways_from).collect();
        Some(Self::of(tables, life, ways))
    }

    /// The same for batches of another life.
    pub fn again(&self, tables: &Tables<'_>, life: &Life) -> Self {
        Self::of(tables, life, self.ways.clone())
    }

    fn of(tables: &Tables<'_>, life: &Life, ways: Vec<Vec<(f64, f64)>>) -> Self {
        let problem = tables.problem;
        let stage = |kind: &Kind| {
            let time = |s, e| seconds(problem.residence(kind.example, interval(s, e), life));
            Intervals::of_lengths(tables.layers, time).where_held(kind)
        };
        let (count, tokens) = (life.count(), life.tokens());
        let spent = |&(latency, moving): &(f64, f64)| latency * count + moving * tokens;
        let ids = || tables.candidates.iter().map(|candidate| candidate.id);
        Self {
            in_flight: problem.tokens_in_flight(),
            stage: tables.kinds.iter().map(stage).collect(),
            pair: ways.iter().map(|row| row.iter().map(spent).collect()).collect(),
            source: ids().map(|id| seconds(problem.entry_residence(id, life))).collect(),
            sink: ids().map(|id| seconds(problem.exit_residence(id, life))).collect(),
            ways,
        }
    }

    /// Residence on a chain of stages.
    pub fn of_route(&self, tables: &Tables<'_>, route: &[Link]) -> f64 {
        let (Some(first), Some(last)) = (route.first(), route.last()) else { return 0.0 };
        let stages: f64 = route.iter().map(|&(d, s, e)| self.stage[tables.candidates[d].kind].at(s, e)).sum();
        let ways: f64 = route.windows(2).map(|pair| self.pair[pair[0].0][pair[1].0]).sum();
        self.source[first.0] + stages + ways + self.sink[last.0]
    }

    /// Whether what is carried would need more requests in flight than there may be.
    pub fn exceeded(&self, tables: &Tables<'_>, placement: &[Link], carried: &Carried) -> bool {
        let needed = |path: &replay::Path| {
            let route: Vec<Link> = path.stops.iter().map(|&stop| placement[stop]).collect();
            path.rate * self.of_route(tables, &route)
        };
        carried.paths.iter().map(needed).sum::<f64>() > self.in_flight * (1.0 + 1e-12)
    }

    /// Whether no plan of rate `most` can have so many requests in flight: not even by the longest way there could be.
    pub fn idle(&self, tables: &Tables<'_>, most: f64) -> bool {
        // A stage stays no longer than its layers one by one would.
        let longest = |layer: usize| self.stage.iter().map(|times| times.at(layer, layer + 1)).fold(0.0, f64::max);
        let greatest = |times: &mut dyn Iterator<Item = f64>| times.fold(0.0, f64::max);
        let hops = tables.layers.min(tables.candidates.len()).saturating_sub(1) as f64;
        let stages: f64 = (0..tables.layers).map(longest).sum();
        let ways = hops * greatest(&mut self.pair.iter().flatten().copied());
        let ends = greatest(&mut self.source.iter().copied()) + greatest(&mut self.sink.iter().copied());
        most * (stages + ways + ends) <= self.in_flight
    }

    /// No plan is faster: what Little's law makes of the least residence of any walk over all layers. Infinite where
    /// nothing takes time, or there is no walk.
    pub fn most(&self, tables: &Tables<'_>, network: &Network) -> f64 {
        let costs = self.costs(tables, network, 0.0, &[]);
        let chains = Chains::new(tables, &costs, count(tables));
        let (band, prices) = (Band::all(&costs), chains.no_prices());
        let least = chains.bound(&prices, &chains.completions(&band, &prices));
        if least > 0.0 && least.is_finite() { self.in_flight / least } else { f64::INFINITY }
    }

    /// The chain of least residence, and what Little's law makes of the least that any chain could have. A pinned device
    /// may be on another route.
    pub fn quickest(
        &self,
        tables: &Tables<'_>,
        network: &Network,
        budget: &Budget<'_>,
    ) -> Result<(Option<Vec<Link>>, f64), SolverFault> {
        let mut free = tables.clone();
        free.candidates.iter_mut().for_each(|candidate| candidate.pinned = false);
        let costs = self.costs(&free, network, 0.0, &[]);
        let chains = Chains::new(&free, &costs, count(&free));
        // What is told of progress would be times, not rates.
        let best = best_chain(&chains, &Budget { progress: None, ..*budget })?;
        let most = if best.bound > 0.0 && best.bound.is_finite() { self.in_flight / best.bound } else { f64::INFINITY };
        Ok((best.chain.map(|(chain, _)| chain), most))
    }

    /// A chain of little residence of which each part carries at least so much, without the devices in use; none where
    /// none was found.
    pub fn lean(
        &self,
        tables: &Tables<'_>,
        network: &Network,
        (least, used): (f64, &[bool]),
        budget: &Budget<'_>,
    ) -> Option<Vec<Link>> {
        let costs = self.costs(tables, network, least, used);
        good_chain(&Chains::new(tables, &costs, count(tables)), &Budget { progress: None, ..*budget })
    }

    /// Residence of what carries more than nothing and at least `least`, and of no device in use.
    fn costs(&self, tables: &Tables<'_>, network: &Network, least: f64, used: &[bool]) -> Costs {
        let open = |rate: f64, time: f64| if rate > 0.0 && rate >= least { time } else { f64::INFINITY };
        let stage = |((rates, times), kind): ((&Intervals<f64>, &Intervals<f64>), &Kind)| {
            vec![Steps::of(kind, tables.layers, |s, e| open(rates.at(s, e), times.at(s, e)))]
        };
        let ends = |(rates, times): (&Vec<f64>, &Vec<f64>)| -> Vec<f64> {
            let mut found: Vec<f64> = rates.iter().zip(times).map(|(&rate, &time)| open(rate, time)).collect();
            let closed = found.iter_mut().zip(used).filter(|(_, used)| **used);
            closed.for_each(|(time, _)| *time = f64::INFINITY);
            found
        };
        Costs {
            layers: tables.layers,
            chunks: 1,
            stage: network.stage.iter().zip(&self.stage).zip(&tables.kinds).map(stage).collect(),
            candidates: tables.candidates.len(),
            hop: vec![network.pair.iter().zip(&self.pair).flat_map(ends).collect()],
            message_of: vec![0],
            entry: ends((&network.source, &self.source)),
            exit: ends((&network.sink, &self.sink)),
        }
    }
}

/// Lowers the bound by Little's law, and offers the chain of least residence.
pub(super) fn in_flight(
    flows: &Flows<'_>,
    counts: &[usize],
    best: &mut BestFlow,
    budget: &Budget<'_>,
) -> Result<(), SolverFault> {
    let Some(stay) = &flows.network.stay else { return Ok(()) };
    let (chain, most) = stay.quickest(flows.tables, flows.network, budget)?;
    // The checker finds the shortest walk itself.
    best.bound = best.bound.min(stay.most(flows.tables, flows.network));
    if most < best.bound * (1.0 - GAP_NONE) {
        best.lower(most, Proof::Chain);
    }
    best.bound = best.bound.min(most);
    // With partial inference a chain may have too few or too many stages to be the one asked for.
    let asked = flows.tables.problem.limits.stages_exact;
    let chain = chain.filter(|chain| asked.is_none_or(|asked| chain.len() == asked as usize));
    if let Some(chain) = chain.filter(|chain| flows.fits(chain) && flows.pins(chain)) {
        let carried = flows.carried(&chain)?;
        best.offer(chain, carried, "chain of least residence");
    }
    if best.closed() {
        return Ok(());
    }
    best.priced = best.priced.or_else(|| priced::bound(flows.tables, flows.network, stay, counts));
    if let Some(found) = best.priced.filter(|found| found.bound < best.bound * (1.0 - GAP_NONE)) {
        best.lower(found.bound, Proof::InFlight(found));
    }
    if best.routed.is_none() && !best.closed() {
        let rates = (best.bound, best.reach());
        best.routed = routes::bound(flows.tables, flows.network, stay, rates, budget)?;
    }
    if let Some(found) = best.routed.clone().filter(|found| found.bound < best.bound * (1.0 - GAP_NONE)) {
        best.lower(found.bound, Proof::Routes(found));
    }
    Ok(())
}

/// Stages of a route, for a bound: with partial inference an exact number of stages need not be passed whole.
fn count(tables: &Tables<'_>) -> StageCount {
    match StageCount::of(tables) {
        StageCount::Exactly(_) if tables.problem.limits.partial => StageCount::Any,
        count => count,
    }
}
