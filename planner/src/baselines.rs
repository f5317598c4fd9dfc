//! Rules of thumb that other engines place layers by, for comparison: what they give, judged by the same checker.
//!
//! All of them make one chain of the usable devices in the order of the device graph, and ignore links.

use crate::assemble::{Parts, assemble};
use crate::latency::chains::Link;
use crate::latency::costs::Costs;
use crate::outcome::{Outcome, PlanError};
use crate::tables::{Candidate, Intervals, Tables};
use crate::throughput::network::Network;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::plan::Unused;
use isotherm_core::problem::{Objective, PlacementProblem};

/// A rule of thumb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Baseline {
    /// The same number of layers on every device: the null model.
    Equal,
    /// Layers in proportion to memory, remainders to the largest: the rule of exo and of llama.cpp without a
    /// `--tensor-split`.
    MemoryProportional,
    /// The fastest device takes all that fits, then the next.
    Greedy,
    /// The division that makes the slowest stage fastest, by dynamic programming over the devices in order, each with at
    /// least one layer or none.
    MinMax,
}

impl Baseline {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Equal, Self::MemoryProportional, Self::Greedy, Self::MinMax];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::MemoryProportional => "memory_proportional",
            Self::Greedy => "greedy",
            Self::MinMax => "min_max",
        }
    }
}

/// The plan that a rule gives; none where it gives none that holds (a stage does not fit, a way is missing, a limit is
/// broken): such rules do not look.
///
/// # Errors
/// None: what the checker refuses is no plan.
#[must_use]
pub fn baseline(problem: &PlacementProblem, rule: Baseline) -> Option<FeasiblePlan> {
    let tables = Tables::new(problem, problem.objective != Objective::Throughput);
    let times = Times::new(&tables);
    let chain = match rule {
        Baseline::Equal => divided(&tables, &vec![1.0; tables.candidates.len()]),
        Baseline::MemoryProportional => {
            let memory = |c: &Candidate| problem.memory(c.id).map_or(1.0, |bytes| bytes.0 as f64);
            divided(&tables, &tables.candidates.iter().map(memory).collect::<Vec<_>>())
        }
        Baseline::Greedy => greedy(&tables, &times),
        Baseline::MinMax => min_max(&tables, &times),
    }?;
    judged(&tables, chain, rule).ok()
}

/// Time of a stage, by kind.
struct Times(Vec<Intervals<f64>>);

impl Times {
    fn new(tables: &Tables<'_>) -> Self {
        let layers = tables.layers;
        if tables.problem.objective == Objective::Throughput {
            let problem = tables.problem;
            let network = Network::new(tables, &problem.life(problem.serving.requests_max));
            let slow = |rates: &Intervals<f64>| {
                Intervals::of(layers, |s, e| {
                    let rate = rates.at(s, e);
                    if rate > 0.0 { 1.0 / rate } else { f64::INFINITY }
                })
            };
            return Self(network.stage.iter().map(slow).collect());
        }
        let decode = tables.problem.objective == Objective::Tpot;
        let costs = if decode { Costs::decode(tables) } else { Costs::prefill(tables) };
        let all = |kind: usize| {
            let (times, reach) = (costs.all_chunks(kind), &tables.kinds[kind].reach);
            Intervals::of(layers, |s, e| if e <= reach[s] { times.at(s, e) } else { f64::INFINITY })
        };
        Self((0..tables.kinds.len()).map(all).collect())
    }

    fn at(&self, tables: &Tables<'_>, (device, start, end): Link) -> f64 {
        self.0[tables.candidates[device].kind].at(start, end)
    }
}

/// Layers in proportion to `parts`, rounded down, what is left to the largest remainders. Devices with none are left out.
fn divided(tables: &Tables<'_>, parts: &[f64]) -> Option<Vec<Link>> {
    let whole: f64 = parts.iter().sum();
    let ideal: Vec<f64> = parts.iter().map(|part| part / whole * tables.layers as f64).collect();
    let mut layers: Vec<usize> = ideal.iter().map(|ideal| ideal.floor() as usize).collect();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|&a, &b| (ideal[b] - ideal[b].floor()).total_cmp(&(ideal[a] - ideal[a].floor())).then(a.cmp(&b)));
    let left = tables.layers.checked_sub(layers.iter().sum())?;
    order.iter().cycle().take(if order.is_empty() { 0 } else { left }).for_each(|&device| layers[device] += 1);
    let mut chain = Vec::new();
    let mut at = 0;
    for (device, count) in layers.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        chain.push((device, at, at + count));
        at += count;
    }
    (at == tables.layers).then_some(chain)
}

fn greedy(tables: &Tables<'_>, times: &Times) -> Option<Vec<Link>> {
    let middle = tables.layers / 2;
    let speed = |device: &usize| times.at(tables, (*device, middle, middle + 1));
    let mut order: Vec<usize> = (0..tables.candidates.len()).collect();
    order.sort_by(|a, b| speed(a).total_cmp(&speed(b)).then(a.cmp(b)));
    let (mut at, mut chain) = (0, Vec::new());
    for device in order {
        if at < tables.layers && tables.kind(device).reach[at] > at {
            let end = tables.kind(device).reach[at];
            chain.push((device, at, end));
            at = end;
        }
    }
    (at == tables.layers).then_some(chain)
}

fn min_max(tables: &Tables<'_>, times: &Times) -> Option<Vec<Link>> {
    let (layers, devices) = (tables.layers, tables.candidates.len());
    // best[d][l]: least slowest stage of the first d devices holding the first l layers, and where the last begins.
    let mut best = vec![vec![(f64::INFINITY, 0); layers + 1]; devices + 1];
    best[0][0] = (0.0, 0);
    for device in 0..devices {
        for end in 0..=layers {
            best[device + 1][end] = (best[device][end].0, end);
            for start in 0..end {
                let slowest = best[device][start].0.max(times.at(tables, (device, start, end)));
                if slowest < best[device + 1][end].0 {
                    best[device + 1][end] = (slowest, start);
                }
            }
        }
    }
    if !best[devices][layers].0.is_finite() {
        return None;
    }
    let (mut end, mut chain) = (layers, Vec::new());
    for device in (0..devices).rev() {
        let start = best[device + 1][end].1;
        if start < end {
            chain.push((device, start, end));
        }
        end = start;
    }
    chain.reverse();
    Some(chain)
}

fn judged(tables: &Tables<'_>, chain: Vec<Link>, rule: Baseline) -> Result<FeasiblePlan, PlanError> {
    let idle = (0..tables.candidates.len()).filter(|device| !chain.iter().any(|link| link.0 == *device));
    let reason = || "the rule gives it nothing".to_owned();
    let unused = idle.map(|device| Unused { device: tables.name(device).to_owned(), reason: reason() }).collect();
    let parts = Parts {
        routes: vec![((0..chain.len()).collect(), 1.0)],
        placement: chain,
        unused,
        bound: None,
        evidence: Vec::new(),
        method: format!("baseline {}", rule.name()),
        solver: None,
        nodes: None,
        stopped: None,
        batch: None,
    };
    match assemble(tables, parts)? {
        Outcome::Optimal(plan) | Outcome::Feasible { plan, .. } => Ok(plan),
        Outcome::Infeasible(_) | Outcome::Unknown { .. } => Err(PlanError::Refused(Vec::new())),
    }
}
