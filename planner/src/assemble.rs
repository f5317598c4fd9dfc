//! Puts what was found into a plan, and has it checked.

use crate::budget::{GAP_NONE, Limit, relative_gap};
use crate::latency::chains::Link;
use crate::outcome::{Outcome, PlanError};
use crate::tables::{Tables, interval};
use isotherm_core::artefact::Header;
use isotherm_core::check::Violation;
use isotherm_core::objective::evaluate;
use isotherm_core::plan::{
    BoundKind, Certificate, Evidence, PLAN_SCHEMA, Plan, Provenance, Route, Stage, Status, Stop, Unused,
};
use isotherm_core::problem::{Division, Parallel, PlacementProblem};

/// What is to become a plan.
pub(crate) struct Parts {
    /// The stages.
    pub placement: Vec<Link>,
    /// Ways through them by position, and their weights: shares are in proportion.
    pub routes: Vec<(Vec<usize>, f64)>,
    /// Why each candidate that holds nothing is left out.
    pub unused: Vec<Unused>,
    /// Bound on the objective, where there is one.
    pub bound: Option<f64>,
    /// Evidence for it, to be tried in order; then it is the solver's word, or where none was asked a weaker bound's
    /// turn.
    pub evidence: Vec<Evidence>,
    /// How plan and bound were found.
    pub method: String,
    /// Solver, where one was used.
    pub solver: Option<String>,
    /// Nodes or labels.
    pub nodes: Option<u64>,
    /// What ended the search early.
    pub stopped: Option<Limit>,
    /// Requests in a batch, for throughput.
    pub batch: Option<u32>,
}

/// The checked plan, in its outcome.
pub(crate) fn assemble(tables: &Tables<'_>, parts: Parts) -> Result<Outcome, PlanError> {
    assemble_or(tables, parts, Vec::new())
}

/// The same. Where the checker verifies no evidence for the bound, and no solver vouches for it, the first of these
/// bounds is stated that it verifies, if there is one.
pub(crate) fn assemble_or(
    tables: &Tables<'_>,
    parts: Parts,
    weaker: Vec<(f64, Evidence)>,
) -> Result<Outcome, PlanError> {
    let plan = bare(tables, &parts);
    let found = Found {
        bound: parts.bound,
        evidence: parts.evidence,
        method: parts.method,
        solver: parts.solver,
        nodes: parts.nodes,
        stopped: parts.stopped,
    };
    certify_or(tables.problem, plan, found, weaker)
}

/// What is known of a plan beside its stages and routes.
pub(crate) struct Found {
    /// Bound on the objective, where there is one.
    pub bound: Option<f64>,
    /// Evidence for it, to be tried in order; then it is the solver's word, or where none was asked a weaker bound's
    /// turn.
    pub evidence: Vec<Evidence>,
    /// How plan and bound were found.
    pub method: String,
    /// Solver, where one was used.
    pub solver: Option<String>,
    /// Nodes or labels.
    pub nodes: Option<u64>,
    /// What ended the search early.
    pub stopped: Option<Limit>,
}

impl Found {
    /// Nothing but how a plan was found.
    pub fn nothing(method: &str) -> Self {
        let method = method.to_owned();
        Self { bound: None, evidence: Vec::new(), method, solver: None, nodes: None, stopped: None }
    }
}

/// A plan that was chosen by another measure, with the bound on all plans of the problem. `how` is said behind the
/// method that found it.
pub(crate) fn restated(
    problem: &PlacementProblem,
    mut plan: Plan,
    bounds: Option<&Certificate>,
    how: &str,
    stopped: Option<Limit>,
) -> Result<Outcome, PlanError> {
    let method = plan.certificate.take().map_or_else(String::new, |own| own.method);
    let certified = bounds.filter(|bounds| bounds.bound_kind == BoundKind::Certified);
    let found = Found {
        bound: bounds.and_then(|bounds| bounds.bound),
        evidence: certified.and_then(|bounds| bounds.evidence.clone()).into_iter().collect(),
        method: format!("{method}; {how}"),
        solver: bounds.and_then(|bounds| bounds.solver.clone()),
        nodes: None,
        stopped,
    };
    certify(problem, plan, found)
}

/// States again why candidates hold nothing, where a plan was chosen by more than what its search knew.
pub(crate) fn restate_unused(problem: &PlacementProblem, plan: &mut Plan, bound: Option<f64>) {
    let Some(value) = plan.objective_value else { return };
    let tables = Tables::new(problem, !problem.objective.serves());
    let unit = problem.objective.unit();
    let closed = bound.is_some_and(|bound| relative_gap(value, bound) <= GAP_NONE);
    let reason = match bound.filter(|bound| bound.is_finite()) {
        Some(_) if closed => format!("no gain: no plan, with it or without, is better than {value:.3} {unit}"),
        Some(bound) => format!(
            "no plan with it that is better than {value:.3} {unit} was found; the bound on all plans is {bound:.3}"
        ),
        None => format!("no plan with it that is better than {value:.3} {unit} was found"),
    };
    for unused in &mut plan.unused {
        if (0..tables.candidates.len()).any(|candidate| tables.name(candidate) == unused.device) {
            unused.reason.clone_from(&reason);
        }
    }
}

/// Values a plan, states what is known of it and has it checked.
pub(crate) fn certify(problem: &PlacementProblem, plan: Plan, found: Found) -> Result<Outcome, PlanError> {
    certify_or(problem, plan, found, Vec::new())
}

fn certify_or(
    problem: &PlacementProblem,
    mut plan: Plan,
    found: Found,
    weaker: Vec<(f64, Evidence)>,
) -> Result<Outcome, PlanError> {
    let stopped = found.stopped;
    let Some(value) = evaluate(&plan, problem).value(problem.objective) else {
        return Err(PlanError::Refused(vec![Violation::Unevaluated { objective: problem.objective.name() }]));
    };
    plan.objective_value = Some(value);
    plan.goals.clone_from(&problem.limits.goals);
    // In a plan that is not divided, devices that a scenario names prefill in simulation.
    let simulated = !problem.limits.prefill.is_empty() && !plan.is_divided();
    plan.division = if simulated { Division::Never } else { problem.limits.division };
    // What differs by rounding alone is the same.
    let stated = |bound: Option<f64>| {
        let bound = bound.filter(|bound| bound.is_finite()).map(|bound| {
            let beaten = if problem.objective.maximises() { value > bound } else { value < bound };
            if beaten && relative_gap(value, bound) <= 1e-9 { value } else { bound }
        });
        let gap = bound.map(|bound| relative_gap(value, bound)).filter(|gap| gap.is_finite());
        (bound.filter(|_| gap.is_some()), gap)
    };
    plan.provenance.time_limited = stopped == Some(Limit::Time);
    let mut tried: Vec<(Option<f64>, Option<Evidence>)> =
        found.evidence.into_iter().map(|evidence| (found.bound, Some(evidence))).collect();
    let word = (found.bound, None);
    // A solver's word is better than less that is certain; who asked none tries that first.
    tried.extend(found.solver.is_some().then(|| word.clone()));
    tried.extend(weaker.into_iter().map(|(bound, evidence)| (Some(bound), Some(evidence))));
    tried.push(word);
    let mut refused = Vec::new();
    for (bound, evidence) in tried {
        let (bound, gap) = stated(bound);
        let closed = gap.is_some_and(|gap| gap <= GAP_NONE);
        let bound_kind = match (&evidence, bound) {
            (None, None) => BoundKind::None,
            // Evidence for nothing.
            (Some(_), None) => continue,
            (Some(_), Some(_)) => BoundKind::Certified,
            (None, Some(_)) => BoundKind::Solver,
        };
        let mut candidate = plan.clone();
        // Nobody's word makes a plan optimal.
        let proven = closed && bound_kind == BoundKind::Certified;
        candidate.status = if proven { Status::Optimal } else { Status::Feasible };
        candidate.certificate = Some(Certificate {
            objective: value,
            bound,
            gap,
            bound_kind,
            method: found.method.clone(),
            solver: found.solver.clone(),
            nodes: found.nodes,
            evidence,
        });
        match candidate.check(problem) {
            Ok(plan) if plan.plan().status == Status::Optimal => return Ok(Outcome::Optimal(plan)),
            Ok(plan) => {
                let gap = gap.unwrap_or(f64::INFINITY);
                return Ok(Outcome::Feasible {
                    plan,
                    gap,
                    stopped_by: stopped.unwrap_or(if closed { Limit::Gap } else { Limit::Nodes }),
                });
            }
            Err(violations) => {
                let evidence_only = violations.iter().all(|v| matches!(v, Violation::Bound(_)));
                refused = violations;
                if !evidence_only {
                    break;
                }
            }
        }
    }
    Err(PlanError::Refused(refused))
}

/// The plan without its value and certificate.
fn bare(tables: &Tables<'_>, parts: &Parts) -> Plan {
    let problem = tables.problem;
    let stage = |&(device, start, end): &Link| {
        let (id, layers) = (tables.candidates[device].id, interval(start, end));
        Stage {
            devices: vec![tables.name(device).to_owned()],
            layers,
            quantisation: problem.format(id).to_owned(),
            bytes: problem.stage_bytes(id, layers),
            parallel: Parallel::Tensor,
            power_cap_watts: None,
        }
    };
    let total: f64 = parts.routes.iter().map(|r| r.1).sum();
    let mut routes: Vec<Route> = parts
        .routes
        .iter()
        .map(|(stops, weight)| Route {
            stages: stops_of(parts, problem.limits.partial, stops),
            share: weight / total,
            role: None,
        })
        .collect();
    // The largest share takes the rounding of the others, which might be all that the smallest is.
    if let Some(largest) = (0..routes.len()).max_by(|&a, &b| routes[a].share.total_cmp(&routes[b].share)) {
        let others = routes.iter().enumerate().filter(|(i, _)| *i != largest).map(|(_, r)| r.share).sum::<f64>();
        routes[largest].share = 1.0 - others;
    }
    let left_out = tables
        .left_out
        .iter()
        .map(|out| Unused { device: problem.graph.device(out.id).name.clone(), reason: out.reason.clone() });
    Plan {
        header: Header::new(PLAN_SCHEMA, problem.inputs.clone()),
        scenario: problem.name.clone(),
        model: problem.model.name.clone(),
        status: Status::Feasible,
        objective_name: problem.objective.name().to_owned(),
        objective_value: None,
        unit: problem.objective.unit().to_owned(),
        certificate: None,
        stages: parts.placement.iter().map(stage).collect(),
        routes,
        unused: parts.unused.iter().cloned().chain(left_out).collect(),
        reasons: Vec::new(),
        batch: parts.batch,
        division: Division::Never,
        sustained: None,
        goals: Vec::new(),
        provenance: Provenance::default(),
    }
}

/// The stops of a way. With partial inference each serves as few layers as the next one's beginning allows, which
/// leaves the later ones most room; else each serves all it holds.
fn stops_of(parts: &Parts, partial: bool, stops: &[usize]) -> Vec<Stop> {
    let mut at = 0;
    let mut served = Vec::new();
    for (i, &position) in stops.iter().enumerate() {
        let (_, _, end) = parts.placement[position];
        let next = stops.get(i + 1).filter(|_| partial).map(|&next| parts.placement[next].1.max(at + 1));
        let layers = interval(at, next.unwrap_or(end));
        at = next.unwrap_or(end);
        served.push(Stop { stage: u32::try_from(position).unwrap_or(u32::MAX), layers });
    }
    served
}
