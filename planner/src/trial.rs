//! Planning with simulated throughput in the loop.
//!
//! What a plan is worth counts how batches wait for one another by a formula that is linear in what flows, because
//! bounds are proved with it. Waits are not linear: they hang on the whole chain, on how long prompts are and on which
//! requests end together. So plans whose worth is close may be far apart in a run. Here several plans are run by
//! whoever judges, and the fastest is taken: this planner's own, its best for each batch, and those of rules of thumb;
//! then plans beside the fastest, in which two neighbours exchange a layer or batches are of another size.
//!
//! Nothing is proved about what the judge finds. The certificate is about the worth, of the plan taken as of all
//! others: its bound is that of [`plan`](crate::plan()), and its gap says by how much the worth was given up for speed
//! in the runs.

use crate::assemble::restated;
use crate::baselines::{Baseline, baseline, placed};
use crate::budget::{Budget, Limit};
use crate::door;
use crate::outcome::{Outcome, PlanError};
use crate::refine::RefineError;
use crate::sustained;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::ids::Layers;
use isotherm_core::plan::{Certificate, Plan, Route, Stage};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::sustained::Envelope;

/// Rules of thumb whose plans are tried, for each batch. Helix's program takes too long.
const RULES: [Baseline; 7] = [
    Baseline::Greedy,
    Baseline::MinMax,
    Baseline::Halda,
    Baseline::Petals,
    Baseline::Swarm,
    Baseline::MemoryProportional,
    Baseline::Equal,
];
/// Share of the time for the planner's own plan.
const OWN: f64 = 0.3;
/// Share of what is left then for its best plans in each batch.
const BATCHES: f64 = 0.25;
/// Share of the runs for plans that were made; the others are for plans beside the fastest.
const MADE: f64 = 0.6;

/// A plan that was judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Who made it.
    pub by: String,
    /// Requests in a batch.
    pub batch: Option<u32>,
    /// What it is worth, in output tokens per second.
    pub worth: f64,
    /// What the judge found, in output tokens per second.
    pub found: f64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// The fastest plan and its bound; the planner's own where none was judged.
    pub outcome: Outcome,
    /// The plans that were judged, in order; the outcome's is the first of those that the judge found most of.
    pub trials: Vec<Trial>,
}

/// What is decided about a plan: two plans that agree in it are one.
type Decided = (Vec<Stage>, Vec<Route>, Option<u32>);

/// The plan of most output tokens per second in the judge's eyes, of at most `trials_max` that are judged. The judge
/// gives none for a plan that it cannot run. Where the objective is another than throughput, or no step times are
/// known, nothing is judged.
///
/// # Errors
/// Planning failed, or the judge did.
pub fn fastest<E>(
    problem: &PlacementProblem,
    trials_max: usize,
    budget: &Budget<'_>,
    evaluate: impl FnMut(&FeasiblePlan) -> Result<Option<f64>, E>,
) -> Result<Tried, RefineError<E>> {
    if problem.objective != Objective::Throughput || !problem.knows_times() || trials_max == 0 {
        return Ok(Tried { outcome: door::plan(problem, budget)?, trials: Vec::new() });
    }
    let first = budget.part(OWN, |budget| door::plan(problem, budget))?;
    let Some(own) = first.plan().cloned() else { return Ok(Tried { outcome: first, trials: Vec::new() }) };
    let mut trials = Trials {
        problem,
        bounds: own.plan().certificate.clone(),
        evaluate,
        best: None,
        seen: Vec::new(),
        done: Vec::new(),
    };
    trials.run("isotherm", own.plan())?;
    let made = in_turn(made(problem, budget)?);
    let most = (trials_max as f64 * MADE).ceil() as usize;
    for (by, plan) in &made {
        if trials.done.len() >= most || budget.exhausted().is_some() {
            break;
        }
        trials.run(by, plan)?;
    }
    'better: while let Some((_, plan)) = trials.best.clone() {
        for beside in beside(problem, &plan) {
            if trials.done.len() >= trials_max || budget.exhausted().is_some() {
                break 'better;
            }
            if trials.run("a plan beside", &beside)? {
                continue 'better;
            }
        }
        break;
    }
    let number = trials.done.len();
    // Whatever ended the bounds or the trials before their end is said.
    let limit = budget.exhausted().or(own.plan().provenance.time_limited.then_some(Limit::Time));
    let outcome = match &trials.best {
        Some((_, plan)) => restated(problem, plan.clone(), trials.bounds.as_ref(), &fastest_of(number), limit)?,
        None => first,
    };
    Ok(Tried { outcome, trials: trials.done })
}

/// The plans of each maker by falling worth, and of all makers in turn: the first of each before the second of any.
fn in_turn(mut made: Vec<(String, Plan)>) -> Vec<(String, Plan)> {
    made.sort_by(|a, b| worth(&b.1).total_cmp(&worth(&a.1)));
    let turn = |i: usize| made[..i].iter().filter(|(by, _)| *by == made[i].0).count();
    let mut turns: Vec<(usize, usize)> = (0..made.len()).map(|i| (turn(i), i)).collect();
    turns.sort_unstable();
    turns.into_iter().map(|(_, i)| made[i].clone()).collect()
}

fn worth(plan: &Plan) -> f64 {
    plan.objective_value.unwrap_or(f64::NEG_INFINITY)
}

struct Trials<'a, J> {
    problem: &'a PlacementProblem,
    /// Of the planner's own plan.
    bounds: Option<Certificate>,
    evaluate: J,
    best: Option<(f64, Plan)>,
    seen: Vec<Decided>,
    done: Vec<Trial>,
}

impl<J> Trials<'_, J> {
    /// Has a plan judged, if it is new and holds. Whether it is faster than all before.
    fn run<E>(&mut self, by: &str, plan: &Plan) -> Result<bool, RefineError<E>>
    where
        J: FnMut(&FeasiblePlan) -> Result<Option<f64>, E>,
    {
        let decided = (plan.stages.clone(), plan.routes.clone(), plan.batch);
        if self.seen.contains(&decided) {
            return Ok(false);
        }
        self.seen.push(decided);
        // Rules of thumb do not look at everything that is asked of a plan.
        let Ok(outcome) = restated(self.problem, plan.clone(), self.bounds.as_ref(), &fastest_of(1), None) else {
            return Ok(false);
        };
        let Some(feasible) = outcome.plan() else { return Ok(false) };
        let Some(found) = (self.evaluate)(feasible).map_err(RefineError::Judge)? else { return Ok(false) };
        let worth = worth(feasible.plan());
        self.done.push(Trial { by: by.to_owned(), batch: plan.batch, worth, found });
        let better = self.best.as_ref().is_none_or(|(known, _)| found > *known);
        if better {
            self.best = Some((found, plan.clone()));
        }
        Ok(better)
    }
}

/// The same problem in batches of one size.
fn in_batches(problem: &PlacementProblem, batch: u32) -> PlacementProblem {
    let mut alone = problem.clone();
    alone.limits.choices.batches = vec![batch];
    alone
}

/// The planner's best plan for each batch, and those of rules of thumb, slowed as far as heat and power ask for it:
/// they know nothing of either.
fn made(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Vec<(String, Plan)>, PlanError> {
    let batches = problem.batches();
    let mut made: Vec<(String, Plan)> = Vec::new();
    budget.part(BATCHES, |budget| {
        for (i, &batch) in batches.iter().enumerate() {
            let share = 1.0 / (batches.len() - i) as f64;
            let outcome = budget.part(share, |budget| door::plan(&in_batches(problem, batch), budget))?;
            made.extend(outcome.plan().map(|found| ("isotherm".to_owned(), found.plan().clone())));
        }
        Ok::<(), PlanError>(())
    })?;
    for &batch in &batches {
        let alone = in_batches(problem, batch);
        for rule in RULES {
            if budget.exhausted().is_some() {
                return Ok(made);
            }
            let found = baseline(&alone, rule, budget)?;
            let fitting = found.and_then(|found| within_limits(problem, found.plan().clone()));
            made.extend(fitting.map(|plan| (rule.name().to_owned(), plan)));
        }
    }
    Ok(made)
}

/// A plan that knows nothing of heat and power, slowed as far as they ask for it.
fn within_limits(problem: &PlacementProblem, plan: Plan) -> Option<Plan> {
    let envelope = Envelope::of(problem);
    if problem.limits.cold || envelope.is_empty() {
        return Some(plan);
    }
    let certificate = plan.certificate.clone();
    let fitting = sustained::fitted(problem, plan, &envelope.ceilings)?;
    Some(Plan { certificate, ..fitting })
}

/// Plans beside one: in batches of the next sizes, and with a layer handed from one stage of a chain to its neighbour.
fn beside<'a>(problem: &'a PlacementProblem, plan: &Plan) -> impl Iterator<Item = Plan> + use<'a> {
    let placement = |stages: &[Stage]| -> Vec<(String, Layers)> {
        stages.iter().filter_map(|stage| Some((stage.devices.first()?.clone(), stage.layers))).collect()
    };
    let batch = plan.batch.unwrap_or_else(|| problem.serving.requests_max.max(1));
    let sizes = problem.batches();
    let larger = sizes.iter().copied().filter(|&size| size > batch).min();
    let smaller = sizes.iter().copied().filter(|&size| size < batch).max();
    let mut others: Vec<(u32, Vec<(String, Layers)>)> =
        [larger, smaller].into_iter().flatten().map(|size| (size, placement(&plan.stages))).collect();
    let fixed = plan.routes.len() != 1 || plan.stages.iter().any(|stage| stage.devices.len() != 1);
    for i in 1..if fixed { 0 } else { plan.stages.len() } {
        for up in [true, false] {
            let mut stages = placement(&plan.stages);
            let border = stages[i].1.start;
            let border = if up { border + 1 } else { border - 1 };
            stages[i - 1].1.end = border;
            stages[i].1.start = border;
            stages.retain(|(_, layers)| layers.start < layers.end);
            others.push((batch, stages));
        }
    }
    others.into_iter().filter_map(move |(size, stages)| {
        let found = placed(&in_batches(problem, size), &stages, None, "nobody").ok()??;
        let mut plan = found.plan().clone();
        if let Some(certificate) = &mut plan.certificate {
            (certificate.method, certificate.solver) = ("exchange of layers between neighbours".to_owned(), None);
        }
        within_limits(problem, plan)
    })
}

/// How a plan that trials decided on was found.
fn fastest_of(number: usize) -> String {
    format!("the fastest of {number} that were simulated")
}
