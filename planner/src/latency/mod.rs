//! Least latency of a request that has the devices to itself: one chain of stages.
//!
//! Several routes would be no better: a plan's latency is the mean over its routes, and the quickest route alone is
//! at most that.

pub(crate) mod costs;
pub(crate) mod labels;
pub(crate) mod prices;
pub(crate) mod walk;

use crate::budget::{Budget, GAP_NONE, Limit, relative_gap};
use crate::formulation::chain::ChainProgram;
use crate::formulation::solve::{HIGHS, SolverFault, Verdict, solve};
use walk::{Chains, Link, Prices, StageCount};

/// Labels taken up before an integer program is called for help, per node of the budget.
const LABELS_PER_NODE: u64 = 100;
/// Labels of the first search.
const LABELS_FIRST: u64 = 20_000;
/// Most columns of a program that is worth loading.
const COLUMNS_MAX: usize = 400_000;

/// What is known about the best chain.
pub(crate) struct BestChain {
    /// The best chain found and its value in seconds.
    pub chain: Option<(Vec<Link>, f64)>,
    /// No chain is quicker; infinite where there is none.
    pub bound: f64,
    /// Prices that prove the bound without a solver.
    pub proof: Option<Prices>,
    /// How the bound was found.
    pub method: &'static str,
    /// Solver, where the bound is its word.
    pub solver: Option<&'static str>,
    /// Branch-and-bound nodes or labels.
    pub nodes: u64,
    /// What ended the search early.
    pub stopped: Option<Limit>,
}

/// Finds the best chain.
pub(crate) fn best_chain(chains: &Chains<'_>, budget: &Budget<'_>) -> Result<BestChain, SolverFault> {
    let priced = prices::search(chains, Prices::none(chains.tables), None, budget);
    let mut best = BestChain {
        chain: priced.best,
        bound: priced.bound,
        proof: Some(priced.prices),
        method: "device prices",
        solver: None,
        nodes: 0,
        stopped: None,
    };
    if best.bound == f64::INFINITY {
        best.proof = None;
        return Ok(best);
    }
    search(chains, &mut best, LABELS_FIRST, budget);
    if !closed(&best) && chains.costs.chunks == 1 {
        program(chains, &mut best, budget)?;
    } else if !closed(&best) && best.stopped == Some(Limit::Nodes) {
        search(chains, &mut best, budget.nodes_max.saturating_mul(LABELS_PER_NODE), budget);
    }
    fewest_stages(chains, &mut best, budget);
    Ok(best)
}

fn closed(best: &BestChain) -> bool {
    best.chain.as_ref().is_some_and(|(_, value)| relative_gap(*value, best.bound) <= GAP_NONE)
}

/// Raises the bound; one that no prices prove is somebody's word.
fn raise(best: &mut BestChain, bound: f64, method: &'static str, solver: Option<&'static str>) {
    if bound > best.bound {
        (best.bound, best.proof, best.method, best.solver) = (bound, None, method, solver);
    }
}

/// A label-setting search: exact where it ends by itself.
fn search(chains: &Chains<'_>, best: &mut BestChain, labels_max: u64, budget: &Budget<'_>) {
    if closed(best) {
        return;
    }
    let none = Prices::none(chains.tables);
    let limit = best.chain.as_ref().map_or(f64::INFINITY, |(_, value)| *value);
    let found = labels::search(chains, best.proof.as_ref().unwrap_or(&none), limit, labels_max, budget);
    best.nodes += found.labels;
    best.stopped = found.stopped;
    if found.best.is_some() {
        best.chain = found.best;
    }
    let value = best.chain.as_ref().map_or(f64::INFINITY, |c| c.1);
    raise(best, found.bound.min(value), "label-setting search", None);
    budget.report(best.chain.as_ref().map(|c| c.1), Some(best.bound));
}

/// The integer program over what can still be part of a better chain: first relaxed, for prices that may prove the
/// bound; then whole.
fn program(chains: &Chains<'_>, best: &mut BestChain, budget: &Budget<'_>) -> Result<(), SolverFault> {
    let value = best.chain.as_ref().map_or(f64::INFINITY, |c| c.1);
    let prices = best.proof.clone().unwrap_or_else(|| Prices::none(chains.tables));
    let kept = chains.survivors(&prices, &chains.completions(&prices), value * (1.0 + GAP_NONE));
    if kept.len() > COLUMNS_MAX {
        return Ok(());
    }
    let scale = if value.is_finite() { value } else { best.bound };
    let scale = if scale > 0.0 && scale.is_finite() { scale } else { 1.0 };
    let mut program = ChainProgram::new(chains, labels::twins(chains), &kept, scale);
    let relaxed = solve(&program.program.relaxed(), None, 0.0, budget)?;
    if relaxed.verdict == Verdict::Optimal {
        let prices = program.prices(chains, &relaxed.duals);
        let bound = chains.bound(&prices, &chains.completions(&prices));
        if bound > best.bound {
            (best.bound, best.method, best.solver, best.proof) = (bound, "device prices", None, Some(prices));
        }
    }
    if closed(best) {
        best.stopped = None;
        return Ok(());
    }
    loop {
        let start = best.chain.as_ref().and_then(|(chain, _)| program.assignment(chain));
        let answer = solve(&program.program, start.as_deref(), budget.solver_gap(), budget)?;
        best.nodes += answer.nodes;
        let chain = answer.assignment.as_deref().and_then(|at| program.chain(at));
        if let Some(chain) = &chain
            && !chains.holds(chain)
            && let Some(at) = &answer.assignment
        {
            // The solver stretched a memory pool by its tolerance.
            program.forbid(at);
            continue;
        }
        let found = chain.map(|chain| (chains.value(&chain), chain));
        if let Some((value, chain)) = found.filter(|(v, _)| best.chain.as_ref().is_none_or(|(_, known)| v < known)) {
            best.chain = Some((chain, value));
        }
        let value = best.chain.as_ref().map_or(f64::INFINITY, |c| c.1);
        best.stopped = None;
        match answer.verdict {
            // Every chain that is not in the program is worth more than the value kept for it.
            Verdict::Optimal | Verdict::Infeasible => {
                let bound = if answer.verdict == Verdict::Optimal { answer.bound * scale } else { value };
                raise(best, bound.min(value), "integer program", Some(HIGHS));
            }
            Verdict::Stopped(limit) => {
                best.stopped = Some(limit);
                raise(best, (answer.bound * scale).min(value), "integer program", Some(HIGHS));
            }
        }
        return Ok(());
    }
}

/// Among chains of the best value, one of fewest stages, so that equal optima do not flip.
fn fewest_stages(chains: &Chains<'_>, best: &mut BestChain, budget: &Budget<'_>) {
    let Some((chain, value)) = best.chain.clone().filter(|_| closed(best)) else { return };
    let within = value * (1.0 + 1e-12);
    let prices = best.proof.clone().unwrap_or_else(|| Prices::none(chains.tables));
    for count in 1..chain.len() {
        if chains.count != StageCount::Any && !matches!(chains.count, StageCount::AtMost(_)) {
            return;
        }
        let fewer = Chains::new(chains.tables, chains.costs, StageCount::Exactly(count));
        if fewer.bound(&prices, &fewer.completions(&prices)) > within {
            continue;
        }
        let found = labels::search(&fewer, &prices, within.next_up(), LABELS_FIRST, budget).best;
        if found.is_some() {
            best.chain = found;
            return;
        }
    }
}
