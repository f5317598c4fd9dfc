//! Helix's planner: its integer program, begun from the better of two rules of thumb.

use super::{Proposal, spread};
use crate::budget::Budget;
use crate::formulation::helix::HelixProgram;
use crate::formulation::program::Relation;
use crate::formulation::solve::{HIGHS, Verdict, solve_once};
use crate::latency::walk::Link;
use crate::outcome::PlanError;
use crate::throughput::Flows;
use crate::throughput::replay::Carried;

/// Share of its early-stop bound at which Helix is content.
const CONTENT: f64 = 0.995;

/// The plan of the integer program; none where it has no device or finds nothing.
pub(super) fn helix(flows: &Flows<'_>, budget: &Budget<'_>) -> Result<Option<Proposal>, PlanError> {
    let (tables, network) = (flows.tables, flows.network);
    let partial = tables.problem.limits.partial;
    let Some(mut helix) = HelixProgram::new(tables, network) else { return Ok(None) };
    // The early-stop bound is one: no plan carries more, and within the gap of it the search may end.
    let objective = helix.program.columns.iter().enumerate().filter(|(_, c)| c.cost > 0.0).map(|(i, _)| (i, 1.0));
    let objective = objective.collect();
    helix.program.row(objective, Relation::AtMost, 1.0);
    let mut start: Option<(Vec<f64>, Vec<Link>, Carried)> = None;
    for placement in [spread::petals(tables, network), spread::swarm(tables, network)] {
        let carried = flows.carried(&placement)?;
        let better = start.as_ref().is_none_or(|(_, _, known)| carried.rate > known.rate);
        if let Some(at) = helix.assignment(&placement, &carried.paths, partial).filter(|_| better && carried.rate > 0.0)
        {
            start = Some((at, placement, carried));
        }
    }
    let answer = solve_once(&helix.program, start.as_ref().map(|s| s.0.as_slice()), 1.0 - CONTENT, budget)?;
    let mut best = start.map(|(_, placement, carried)| (placement, carried));
    if let Some(at) = &answer.assignment {
        let placement = helix.placement(at);
        let carried = flows.carried(&placement)?;
        if best.as_ref().is_none_or(|(_, known)| carried.rate >= known.rate) {
            best = Some((placement, carried));
        }
    }
    let Some((placement, carried)) = best.filter(|(_, carried)| carried.rate > 0.0) else { return Ok(None) };
    let stopped = match answer.verdict {
        Verdict::Stopped(limit) => Some(limit),
        Verdict::Optimal | Verdict::Infeasible => None,
    };
    let bound = Some(answer.bound * helix.unit).filter(|bound| bound.is_finite()).map(|b| b.max(carried.rate));
    let proposal = Proposal::of(&placement, carried);
    Ok(proposal.map(|found| Proposal { bound, solver: Some(HIGHS), nodes: answer.nodes, stopped, ..found }))
}
