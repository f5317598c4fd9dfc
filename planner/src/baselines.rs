//! What other planners do, for comparison: their plans judged by the same checker.
//!
//! The chain rules take the usable devices in the order of the device graph and ignore links. Petals and Swarm spread
//! devices over layers and let requests find their way. Helix's integer program has a column for every single device
//! and link, as it was published.

mod milp;
mod rules;
mod spread;

use crate::assemble::{Parts, assemble};
use crate::budget::{Budget, Limit};
use crate::latency::chains::Link;
use crate::outcome::{Outcome, PlanError};
use crate::tables::Tables;
use crate::throughput::Flows;
use crate::throughput::network::Network;
use crate::throughput::replay::Carried;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::ids::Layers;
use isotherm_core::plan::Unused;
use isotherm_core::problem::{Objective, PlacementProblem};
use rules::Times;

/// Another way to plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Baseline {
    /// The same number of layers on every device: the null model.
    Equal,
    /// Layers in proportion to memory, remainders to the largest: the rule of exo and of llama.cpp without a
    /// `--tensor-split`.
    MemoryProportional,
    /// The fastest device takes all that fits, then the next.
    Greedy,
    /// The division that makes the slowest stage fastest, by dynamic programming over the devices in order, each with
    /// at least one layer or none: the rule of Mesh-LLM.
    MinMax,
    /// Devices join one after another and take the layers that are served worst, as many as they hold: the rule of
    /// Petals.
    Petals,
    /// Stages of equal length, so many that each fits on every device, devices spread over them by their rates: the
    /// rule of Swarm, as Helix compares with it.
    Swarm,
    /// Least time per token with memory as the limit and links left aside: Halda, the planner of prima.cpp, where no
    /// layer is left on disk.
    Halda,
    /// Helix's integer program (ASPLOS 2025) in HiGHS on one thread, begun from the better of Petals and Swarm, ended
    /// at 99.5 % of its early-stop bound. Throughput only.
    HelixMilp,
}

impl Baseline {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Equal,
        Self::MemoryProportional,
        Self::Greedy,
        Self::MinMax,
        Self::Petals,
        Self::Swarm,
        Self::Halda,
        Self::HelixMilp,
    ];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::MemoryProportional => "memory_proportional",
            Self::Greedy => "greedy",
            Self::MinMax => "min_max",
            Self::Petals => "petals",
            Self::Swarm => "swarm",
            Self::Halda => "halda",
            Self::HelixMilp => "helix_milp",
        }
    }

    /// Whether it plans for an objective at all: Helix's program has no column for the time of a request.
    #[must_use]
    pub fn plans_for(self, objective: Objective) -> bool {
        self != Self::HelixMilp || objective.serves()
    }
}

/// A placement and the ways that requests take through it, before it is judged.
struct Proposal {
    placement: Vec<Link>,
    /// Stops by position, and the weight of each way.
    routes: Vec<(Vec<usize>, f64)>,
    /// Bound that whoever proposes it claims.
    bound: Option<f64>,
    solver: Option<&'static str>,
    nodes: u64,
    stopped: Option<Limit>,
}

impl Proposal {
    fn chain(placement: Vec<Link>) -> Self {
        let routes = vec![((0..placement.len()).collect(), 1.0)];
        Self { placement, routes, bound: None, solver: None, nodes: 0, stopped: None }
    }

    /// What a placement carries on the true links; none where that is nothing. Stages that no request passes are left
    /// out: a plan has none.
    fn of(placement: &[Link], carried: &Carried) -> Option<Self> {
        let passed = |stage: &usize| carried.paths.iter().any(|path| path.stops.contains(stage));
        let used: Vec<usize> = (0..placement.len()).filter(passed).collect();
        let position = |stage: &usize| used.binary_search(stage).unwrap_or(0);
        let routes = carried.paths.iter().map(|path| (path.stops.iter().map(position).collect(), path.rate)).collect();
        let placement = used.iter().map(|&stage| placement[stage]).collect();
        let proposal = Self { placement, routes, bound: None, solver: None, nodes: 0, stopped: None };
        Some(proposal).filter(|_| carried.rate > 0.0)
    }

    /// The same, asking what is carried.
    fn carried(flows: &Flows<'_>, placement: &[Link]) -> Result<Option<Self>, PlanError> {
        Ok(Self::of(placement, &flows.carried(placement)?))
    }
}

/// The plan that another planner gives; none where it does not plan for the objective ([`Baseline::plans_for`]), or
/// gives none that holds (a stage does not fit, a way is missing, a limit is broken): rules of thumb do not look. Of the
/// batches in which requests can go round, each has the best for it. `budget` matters to the integer program alone,
/// whose search is not interruptible.
///
/// # Errors
/// The solver failed.
pub fn baseline(
    problem: &PlacementProblem,
    rule: Baseline,
    budget: &Budget<'_>,
) -> Result<Option<FeasiblePlan>, PlanError> {
    if !rule.plans_for(problem.objective) {
        return Ok(None);
    }
    let tables = Tables::new(problem, !problem.objective.serves());
    let planned = if rule == Baseline::HelixMilp { milp::helix(&tables, budget)? } else { None };
    best(&tables, rule.name(), |flows| {
        let times = Times::new(&tables, flows.network);
        Ok(match rule {
            Baseline::Equal => rules::equal(&tables).map(Proposal::chain),
            Baseline::MemoryProportional => rules::memory_proportional(&tables, &times).map(Proposal::chain),
            Baseline::Greedy => rules::greedy(&tables, &times).map(Proposal::chain),
            Baseline::MinMax => rules::min_max(&tables, &times).map(Proposal::chain),
            Baseline::Halda => rules::halda(&tables, &times).map(Proposal::chain),
            Baseline::Petals => Proposal::carried(flows, &spread::petals(&tables, flows.network))?,
            Baseline::Swarm => Proposal::carried(flows, &spread::swarm(&tables, flows.network))?,
            Baseline::HelixMilp => match &planned {
                Some(planned) => planned.proposal(flows)?,
                None => None,
            },
        })
    })
}

/// The best of what is proposed for each batch. The first of two equals stays.
fn best(
    tables: &Tables<'_>,
    by: &str,
    propose: impl Fn(&Flows<'_>) -> Result<Option<Proposal>, PlanError>,
) -> Result<Option<FeasiblePlan>, PlanError> {
    let problem = tables.problem;
    let throughput = problem.objective.serves();
    let batches = if throughput { problem.batches() } else { vec![problem.serving.requests_max] };
    let mut best: Option<FeasiblePlan> = None;
    for batch in batches {
        let network = Network::new(tables, &problem.life(batch));
        let stated = Some(batch).filter(|_| throughput && problem.knows_times());
        let Some(proposal) = propose(&Flows::new(tables, &network))? else { continue };
        let Ok(found) = judged(tables, proposal, by, stated) else { continue };
        let value = |plan: &FeasiblePlan| plan.plan().objective_value.unwrap_or(0.0);
        let better = |known: &FeasiblePlan| {
            if problem.objective.maximises() { value(&found) > value(known) } else { value(&found) < value(known) }
        };
        if best.as_ref().is_none_or(better) {
            best = Some(found);
        }
    }
    Ok(best)
}

/// The plan that a placement by somebody else makes, by device name: requests take the ways that carry most. None
/// where it carries nothing or does not hold. `bound` is what its maker claims, on the word of `solver`.
///
/// # Errors
/// The solver that finds the ways failed.
pub fn placed(
    problem: &PlacementProblem,
    placement: &[(String, Layers)],
    bound: Option<f64>,
    solver: &'static str,
) -> Result<Option<FeasiblePlan>, PlanError> {
    let tables = Tables::new(problem, !problem.objective.serves());
    let position = |name: &str| (0..tables.candidates.len()).find(|&i| tables.name(i) == name);
    let stage = |(name, layers): &(String, Layers)| {
        let (start, end) = (layers.start as usize, layers.end as usize);
        position(name).map(|i| (i, start, end)).filter(|_| start < end && end <= tables.layers)
    };
    let Some(placement) = placement.iter().map(stage).collect::<Option<Vec<Link>>>() else { return Ok(None) };
    best(&tables, solver, |flows| {
        let proposal = Proposal::carried(flows, &placement)?;
        Ok(proposal.map(|proposal| Proposal { bound, solver: Some(solver), ..proposal }))
    })
}

fn judged(tables: &Tables<'_>, proposal: Proposal, by: &str, batch: Option<u32>) -> Result<FeasiblePlan, PlanError> {
    let idle = (0..tables.candidates.len()).filter(|device| !proposal.placement.iter().any(|link| link.0 == *device));
    let reason = || "it holds nothing there that requests pass".to_owned();
    let unused = idle.map(|device| Unused { device: tables.name(device).to_owned(), reason: reason() }).collect();
    let parts = Parts {
        routes: proposal.routes,
        placement: proposal.placement,
        unused,
        bound: proposal.bound,
        evidence: Vec::new(),
        method: format!("baseline {by}"),
        solver: proposal.solver.map(str::to_owned),
        nodes: Some(proposal.nodes).filter(|&nodes| nodes > 0),
        stopped: proposal.stopped,
        batch,
    };
    match assemble(tables, parts)? {
        Outcome::Optimal(plan) | Outcome::Feasible { plan, .. } => Ok(plan),
        Outcome::Infeasible(_) | Outcome::Unknown { .. } => Err(PlanError::Refused(Vec::new())),
    }
}
