//! Highest throughput: devices hold intervals of layers, requests flow through them.

pub(crate) mod chain_rule;
pub(crate) mod clip;
pub(crate) mod network;
pub(crate) mod replay;

use crate::budget::{Budget, GAP_NONE, Limit, relative_gap};
use crate::formulation::positions::PositionProgram;
use crate::formulation::solve::{HIGHS, SolverFault, Verdict, solve};
use crate::latency::walk::Link;
use crate::tables::Tables;
use network::Network;
use replay::{Carried, replay};

/// Most columns of a program that is worth loading.
const COLUMNS_MAX: usize = 200_000;

/// What vouches for a bound on the rate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Proof {
    /// The clip bound.
    Clip,
    /// A solver's word.
    Solver(&'static str),
}

/// What is known about the best placement.
pub(crate) struct BestFlow {
    /// The placement and what it carries.
    pub placement: Option<(Vec<Link>, Carried)>,
    /// No plan is faster; zero where there is none.
    pub bound: f64,
    /// Who says so.
    pub proof: Proof,
    /// How the plan was found.
    pub method: &'static str,
    /// Branch-and-bound nodes.
    pub nodes: u64,
    /// What ended the search early.
    pub stopped: Option<Limit>,
}

impl BestFlow {
    fn rate(&self) -> f64 {
        self.placement.as_ref().map_or(0.0, |(_, carried)| carried.rate)
    }

    fn closed(&self) -> bool {
        self.rate() > 0.0 && relative_gap(self.rate(), self.bound) <= GAP_NONE
    }

    fn offer(&mut self, placement: Vec<Link>, carried: Carried, method: &'static str) {
        if carried.rate > self.rate() {
            (self.placement, self.method) = (Some((placement, carried)), method);
        }
    }
}

/// Finds the best placement.
pub(crate) fn best_flow(tables: &Tables<'_>, network: &Network, budget: &Budget<'_>) -> Result<BestFlow, SolverFault> {
    let bound = clip::bound(tables, network);
    let mut best = BestFlow { placement: None, bound, proof: Proof::Clip, method: "none", nodes: 0, stopped: None };
    if bound <= 0.0 {
        return Ok(best);
    }
    let devices: Vec<usize> = (0..tables.candidates.len()).collect();
    let free = tables.problem.limits.stages_exact.is_none() && !tables.candidates.iter().any(|c| c.pinned);
    if free && let Some((placement, _)) = chain_rule::chain(tables, network, &devices) {
        let carried = replay(tables, network, &placement);
        best.offer(placement, carried, "chain rule");
    }
    budget.report(Some(best.rate()).filter(|&r| r > 0.0), Some(best.bound));
    if !best.closed() {
        positions(tables, network, &mut best, budget)?;
    }
    Ok(best)
}

/// Candidates that any plan may exchange.
fn twins(tables: &Tables<'_>, network: &Network) -> Vec<Vec<usize>> {
    let n = tables.candidates.len();
    let same = |a: usize, b: usize| {
        let (x, y) = (tables.candidates[a], tables.candidates[b]);
        let others = || (0..n).filter(|&other| other != a && other != b);
        (x.kind, x.pool, x.pinned) == (y.kind, y.pool, y.pinned)
            && network.source[a] == network.source[b]
            && network.sink[a] == network.sink[b]
            && network.pair[a][b] == network.pair[b][a]
            && others().all(|o| network.pair[a][o] == network.pair[b][o] && network.pair[o][a] == network.pair[o][b])
            && network.shared.iter().all(|shared| {
                let has = |pair: (usize, usize)| shared.pairs.binary_search(&pair).is_ok();
                has((a, b)) == has((b, a)) && others().all(|o| has((a, o)) == has((b, o)) && has((o, a)) == has((o, b)))
            })
    };
    let mut classes: Vec<Vec<usize>> = Vec::new();
    for device in 0..n {
        match classes.iter_mut().find(|class| same(class[0], device)) {
            Some(class) => class.push(device),
            None => classes.push(vec![device]),
        }
    }
    classes
}

/// The integer program over positions.
fn positions(
    tables: &Tables<'_>,
    network: &Network,
    best: &mut BestFlow,
    budget: &Budget<'_>,
) -> Result<(), SolverFault> {
    let relieved = network.clone().relieved(best.bound);
    let classes = twins(tables, &relieved);
    let program = PositionProgram::new(tables, &relieved, classes, best.bound);
    if program.program.columns.len() > COLUMNS_MAX {
        return Ok(());
    }
    let start = best.placement.as_ref().and_then(|(placement, carried)| program.assignment(placement, &carried.paths));
    let answer = solve(&program.program, start.as_deref(), budget.solver_gap(), budget)?;
    best.nodes += answer.nodes;
    if let Some(at) = &answer.assignment {
        let placement = program.placement(at);
        let carried = replay(tables, network, &placement);
        best.offer(placement, carried, "integer program over positions");
    }
    let bound = match answer.verdict {
        Verdict::Infeasible => 0.0,
        Verdict::Optimal => answer.bound * best.bound,
        Verdict::Stopped(limit) => {
            best.stopped = Some(limit);
            answer.bound * best.bound
        }
    };
    let bound = bound.max(best.rate());
    if bound < best.bound && !tables.problem.limits.partial {
        (best.bound, best.proof) = (bound, Proof::Solver(HIGHS));
    }
    Ok(())
}
