//! Planning with a judge in the loop: promises on percentiles that no formula gives.
//!
//! This is logic-based Benders decomposition (Hooker and Ottosson, "Logic-based Benders decomposition", Mathematical
//! Programming 96, 2003). A plan is made and judged; where it breaks a promise, a cut takes it away: either batches are
//! smaller from now on, or routes have fewer stages. Where the problem leaves open whether plans are divided into
//! devices that prefill and devices that decode, the best plan of either kind is a beginning. All cuts are tried, the
//! more promising plan first, so that the first plan that keeps all promises is the best of all that these cuts reach.
//! They are *heuristic*: that a smaller batch and a shorter route help is experience, not proof, and other plans might
//! keep the promises too.
//!
//! One cut is *proven*: where all requests are alike, none is served faster than one that has the devices to itself, so
//! a promise below the least time of that can be kept by no plan.

use crate::assemble::restated;
use crate::budget::{Budget, Limit};
use crate::door;
use crate::outcome::{Outcome, PlanError};
use isotherm_core::check::FeasiblePlan;
use isotherm_core::plan::{BoundKind, Plan};
use isotherm_core::problem::{Division, Objective, PlacementProblem};
use isotherm_core::units::Seconds;
use std::fmt;

/// Share of the least time that is proven: contexts differ from the mean in the course of an answer, and times need not
/// be quite linear in them.
const CURVED: f64 = 0.98;
/// Share of the time for the plan that promises nothing: cuts have to be tried too.
const FIRST: f64 = 0.3;
/// Share of what is left for each other plan.
const CUT: f64 = 0.15;

/// What a promise is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Time to the first token.
    Ttft,
    /// Time per output token after it.
    Tpot,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ttft => "ttft",
            Self::Tpot => "tpot",
        })
    }
}

/// Most of a time that so many percent of all requests take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Promise {
    /// Which time.
    pub metric: Metric,
    /// Of how many percent of the requests.
    pub percent: f64,
    /// The time.
    pub most: Seconds,
}

/// A plan that was judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// Greatest batch that was allowed, where a cut had lowered it.
    pub batch_max: Option<u32>,
    /// Most stages of a route, likewise.
    pub stages_max: Option<u32>,
    /// Whether prompts and answers have devices of their own.
    pub divided: bool,
    /// What the plan is worth; none where there was none under these cuts.
    pub value: Option<f64>,
    /// What the judge found, in seconds, promise by promise; empty without a plan.
    pub found: Vec<f64>,
    /// Whether all promises are kept.
    pub kept: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Refined {
    /// A plan that keeps all promises, in the judge's eyes.
    Kept {
        /// The plan and its bound on all plans, those that break promises included.
        outcome: Outcome,
        /// The plans that were judged.
        rounds: Vec<Round>,
    },
    /// None was found.
    Broken {
        /// The promise that no plan can keep and the least time that any plan takes, where that is proven.
        proven: Option<(Promise, Seconds)>,
        /// The plan that came nearest.
        nearest: Option<Outcome>,
        /// The plans that were judged.
        rounds: Vec<Round>,
        /// Whether plans that the cuts would reach were left unjudged.
        stopped: Option<Limit>,
    },
    /// There is no plan at all.
    NoPlan(Outcome),
}

/// Why nothing was answered.
#[derive(Debug, thiserror::Error)]
pub enum RefineError<E> {
    /// Planning failed.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The judge failed.
    #[error("a plan could not be judged")]
    Judge(#[source] E),
}

/// What plans are kept to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    batch_max: Option<u32>,
    stages_max: Option<u32>,
    division: Division,
}

/// A cut, and the plan under it.
struct Candidate {
    cut: Cut,
    plan: Plan,
}

/// The best plan that keeps its promises, as far as `evaluate` sees: it gives the seconds of each promise's percentile.
///
/// # Errors
/// Planning failed, or the judge did.
pub fn refine<E>(
    problem: &PlacementProblem,
    promises: &[Promise],
    rounds_max: usize,
    budget: &Budget<'_>,
    mut evaluate: impl FnMut(&FeasiblePlan) -> Result<Vec<f64>, E>,
) -> Result<Refined, RefineError<E>> {
    let first = budget.part(FIRST, |budget| door::plan(problem, budget))?;
    let Some(whole) = first.plan().map(|found| found.plan().clone()) else { return Ok(Refined::NoPlan(first)) };
    for promise in promises {
        if let Some(least) = budget
            .part(CUT, |budget| proven_least(problem, promise.metric, budget))?
            .filter(|&least| least * CURVED > promise.most)
        {
            let (proven, rounds) = (Some((*promise, least)), Vec::new());
            return Ok(Refined::Broken { proven, nearest: None, rounds, stopped: None });
        }
    }
    let bounds = whole.certificate.clone();
    let root = Cut { batch_max: None, stages_max: None, division: problem.division() };
    let mut rounds: Vec<Round> = Vec::new();
    let (mut open, mut seen) = (Vec::new(), vec![root]);
    if root.division == Division::Auto {
        // Which of both keeps promises is nothing that a rate says: each is a beginning.
        let divided = whole.is_divided();
        let (own, other) =
            if divided { (Division::Always, Division::Never) } else { (Division::Never, Division::Always) };
        let (own, other) = (Cut { division: own, ..root }, Cut { division: other, ..root });
        open.push(Candidate { cut: own, plan: whole });
        seen.extend([own, other]);
        if let Some(plan) = budget.part(CUT, |budget| door::plan(&cut_off(problem, other), budget))?.plan() {
            open.push(Candidate { cut: other, plan: plan.plan().clone() });
        }
    } else {
        open.push(Candidate { cut: root, plan: whole });
    }
    let mut nearest: Option<(f64, Plan)> = None;
    let value = |plan: &Plan| plan.objective_value.unwrap_or(f64::NAN);
    let pace = |plan: &Plan| if problem.objective.maximises() { value(plan) } else { -value(plan) };
    let mut stopped = None;
    while let Some(at) =
        (0..open.len()).max_by(|&a, &b| pace(&open[a].plan).total_cmp(&pace(&open[b].plan)).then(b.cmp(&a)))
    {
        let limit = if rounds.len() >= rounds_max { Some(Limit::Nodes) } else { budget.exhausted() };
        if limit.is_some() && !rounds.is_empty() {
            stopped = limit;
            break;
        }
        let candidate = open.swap_remove(at);
        let outcome = restated(problem, candidate.plan.clone(), bounds.as_ref(), &judged(rounds.len() + 1), None)?;
        let Some(feasible) = outcome.plan() else { continue };
        let found = evaluate(feasible).map_err(RefineError::Judge)?;
        let excess = found.iter().zip(promises).map(|(found, promise)| found / promise.most.value());
        let worst = excess.fold(0.0, f64::max);
        let kept = found.len() == promises.len() && worst <= 1.0;
        let Cut { batch_max, stages_max, .. } = candidate.cut;
        let divided = candidate.plan.is_divided();
        rounds.push(Round { batch_max, stages_max, divided, value: Some(value(&candidate.plan)), found, kept });
        if kept {
            return Ok(Refined::Kept { outcome, rounds });
        }
        if nearest.as_ref().is_none_or(|(known, _)| worst < *known) {
            nearest = Some((worst, candidate.plan.clone()));
        }
        for cut in cuts(problem, &candidate) {
            if seen.contains(&cut) {
                continue;
            }
            seen.push(cut);
            match budget.part(CUT, |budget| door::plan(&cut_off(problem, cut), budget))?.plan() {
                Some(plan) => open.push(Candidate { cut, plan: plan.plan().clone() }),
                None => {
                    let Cut { batch_max, stages_max, division } = cut;
                    let divided = division == Division::Always;
                    rounds.push(Round { batch_max, stages_max, divided, value: None, found: Vec::new(), kept: false });
                }
            }
        }
    }
    let nearest =
        nearest.map(|(_, plan)| restated(problem, plan, bounds.as_ref(), &judged(rounds.len()), None)).transpose()?;
    Ok(Refined::Broken { proven: None, nearest, rounds, stopped })
}

/// The least time of any plan, where all requests are alike and the bound is certified.
fn proven_least(problem: &PlacementProblem, metric: Metric, budget: &Budget<'_>) -> Result<Option<Seconds>, PlanError> {
    let (prompt, output) = (problem.workload.prompt_tokens, problem.workload.output_tokens);
    if prompt.min != prompt.max || output.min != output.max || !problem.knows_times() {
        return Ok(None);
    }
    let mut alone = problem.clone();
    alone.objective = match metric {
        Metric::Ttft => Objective::Ttft,
        Metric::Tpot => Objective::Tpot,
    };
    // What no route of one plan reaches, none of several does; nor any that has to fit the heat.
    alone.limits.cold = true;
    // A device that only prefills may hold more layers; one that decodes holds what others do.
    if metric == Metric::Ttft && !problem.division().is_never() {
        return Ok(None);
    }
    alone.limits.division = Division::Never;
    let outcome = door::plan(&alone, budget)?;
    let certificate = outcome.plan().and_then(|found| found.plan().certificate.clone());
    let certified = certificate.filter(|c| c.bound_kind == BoundKind::Certified);
    Ok(certified.and_then(|c| c.bound).and_then(|bound| Seconds::new(bound).ok()))
}

/// The cuts below a plan: the next smaller batch, and routes of one stage less than its longest.
fn cuts(problem: &PlacementProblem, candidate: &Candidate) -> Vec<Cut> {
    let mut cuts = Vec::new();
    let smaller = candidate.plan.batch.and_then(|batch| problem.batches().into_iter().filter(|&b| b < batch).max());
    if let Some(batch) = smaller {
        cuts.push(Cut { batch_max: Some(batch), ..candidate.cut });
    }
    let longest = candidate.plan.routes.iter().map(|route| route.stages.len()).max().unwrap_or(0);
    if let Ok(stages) = u32::try_from(longest.saturating_sub(1))
        && stages > 0
        && problem.limits.stages_exact.is_none()
    {
        cuts.push(Cut { stages_max: Some(stages), ..candidate.cut });
    }
    cuts
}

fn cut_off(problem: &PlacementProblem, own: Cut) -> PlacementProblem {
    let mut cut = problem.clone();
    cut.limits.division = own.division;
    if let Some(most) = own.batch_max {
        cut.limits.choices.batches = problem.batches().into_iter().filter(|&batch| batch <= most).collect();
    }
    cut.limits.stages_max = own.stages_max.or(problem.limits.stages_max);
    cut
}

/// How a plan that promises decided on was found.
fn judged(rounds: usize) -> String {
    format!("judged against promises, {rounds} rounds, heuristic cuts")
}
