//! Helix's planner: its integer program, begun from the better of two rules of thumb.

use super::{Proposal, spread};
use crate::budget::{Budget, Limit};
use crate::formulation::helix::HelixProgram;
use crate::formulation::program::Relation;
use crate::formulation::solve::{HIGHS, Verdict, solve_once};
use crate::latency::chains::Link;
use crate::outcome::PlanError;
use crate::tables::{Intervals, Tables};
use crate::throughput::Flows;
use crate::throughput::network::Network;

/// Share of its early-stop bound at which Helix is content.
const CONTENT: f64 = 0.995;

/// What the integer program found.
pub(super) struct Planned {
    /// Placements, the program's own first and what it was begun from after it.
    placements: Vec<Vec<Link>>,
    bound: Option<f64>,
    nodes: u64,
    stopped: Option<Limit>,
}

impl Planned {
    /// The better of the placements, as a proposal for batches of one life.
    pub fn proposal(&self, flows: &Flows<'_>) -> Result<Option<Proposal>, PlanError> {
        let mut best = None;
        let mut most = 0.0;
        for placement in &self.placements {
            let carried = flows.carried(placement)?;
            if carried.rate > most {
                most = carried.rate;
                best = Proposal::of(placement, &carried);
            }
        }
        let bound = self.bound.map(|bound| bound.max(most));
        let (nodes, stopped) = (self.nodes, self.stopped);
        Ok(best.map(|found| Proposal { bound, solver: Some(HIGHS), nodes, stopped, ..found }))
    }
}

/// The network whose stages are as fast as in the best batch for each: Helix knows one rate for a number of layers.
fn fastest(tables: &Tables<'_>) -> Network {
    let problem = tables.problem;
    let mut networks = problem.batches().into_iter().map(|batch| Network::new(tables, &problem.life(batch)));
    let mut fastest = networks.next().unwrap_or_else(|| Network::new(tables, &problem.life(1)));
    for other in networks {
        for (stage, rates) in fastest.stage.iter_mut().zip(&other.stage) {
            *stage = Intervals::of(tables.layers, |s, e| stage.at(s, e).max(rates.at(s, e)));
        }
    }
    fastest
}

/// Solves the integer program; none where it has no device or finds nothing.
pub(super) fn helix(tables: &Tables<'_>, budget: &Budget<'_>) -> Result<Option<Planned>, PlanError> {
    let network = fastest(tables);
    let flows = Flows::new(tables, &network);
    let partial = tables.problem.limits.partial;
    let Some(mut helix) = HelixProgram::new(tables, &network) else { return Ok(None) };
    // The early-stop bound is one: no plan carries more, and within the gap of it the search may end.
    let objective = helix.program.columns.iter().enumerate().filter(|(_, c)| c.cost > 0.0).map(|(i, _)| (i, 1.0));
    let objective = objective.collect();
    helix.program.row(objective, Relation::AtMost, 1.0);
    let mut start: Option<(Vec<f64>, f64)> = None;
    let begun = [spread::petals(tables, &network), spread::swarm(tables, &network)];
    for placement in &begun {
        let carried = flows.carried(placement)?;
        let better = start.as_ref().is_none_or(|(_, known)| carried.rate > *known) && carried.rate > 0.0;
        if let Some(at) = helix.assignment(placement, &carried.paths, partial).filter(|_| better) {
            start = Some((at, carried.rate));
        }
    }
    let answer = solve_once(&helix.program, start.as_ref().map(|s| s.0.as_slice()), 1.0 - CONTENT, budget)?;
    let own = answer.assignment.as_ref().map(|at| helix.placement(at));
    let stopped = match answer.verdict {
        Verdict::Stopped(limit) => Some(limit),
        Verdict::Optimal | Verdict::Infeasible => None,
    };
    // Helix's requests pass a stage to its end. Where ours may leave it before, and ways bind, its bound is none.
    let bound = Some(answer.bound * helix.unit).filter(|bound| bound.is_finite() && !(partial && network.binds()));
    let placements = own.into_iter().chain(begun).collect();
    Ok(Some(Planned { placements, bound, nodes: answer.nodes, stopped }))
}
