//! Plans chosen by a judge, against enumeration and against the judge itself.

use crate::oracle;
use crate::world::{Recipe, problem};
use isotherm_core::check::FeasiblePlan;
use isotherm_core::plan::Plan;
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_planner::trial::{Tried, fastest};
use isotherm_planner::{Budget, plan};
use std::convert::Infallible;

const TRIALS: usize = 25;

fn small(seed: u64, objective: Objective) -> PlacementProblem {
    problem(seed, Recipe { objective, devices_max: 3, layers_max: 5, shared: false, partial: false })
}

fn worth(plan: &Plan) -> f64 {
    plan.objective_value.expect("a value")
}

/// A judge that likes short routes and large batches much more than the planner does.
fn liked(plan: &Plan) -> f64 {
    let stages = plan.routes.iter().map(|route| route.stages.len()).max().unwrap_or(1) as f64;
    worth(plan).sqrt() / stages * f64::from(plan.batch.unwrap_or(1))
}

fn tried(problem: &PlacementProblem, judge: fn(&Plan) -> f64) -> Option<(Plan, Tried)> {
    let evaluate = |plan: &FeasiblePlan| Ok::<_, Infallible>(Some(judge(plan.plan())));
    let found = fastest(problem, TRIALS, &Budget::default(), evaluate).expect("answered");
    found.outcome.plan().map(|taken| taken.plan().clone()).map(|taken| (taken, found))
}

#[test]
fn the_plan_taken_is_what_the_judge_likes_most_and_its_bound_is_that_of_all_plans() {
    let (mut others, mut judged) = (0, 0);
    for seed in 0..30 {
        let problem = small(seed, Objective::Throughput);
        let Some((taken, found)) = tried(&problem, liked) else { continue };
        taken.clone().check(&problem).unwrap_or_else(|faults| panic!("seed {seed}: {faults:?}"));
        let own = plan(&problem, &Budget::default()).expect("planned").plan().expect("a plan").plan().clone();
        let bound = taken.certificate.as_ref().and_then(|certificate| certificate.bound);
        let best = oracle::best(&problem).expect("a plan");
        assert!(bound.is_none_or(|bound| bound >= best * (1.0 - 1e-9)), "seed {seed}: {bound:?} is below {best}");
        if found.trials.is_empty() {
            continue;
        }
        assert!(found.trials.len() <= TRIALS);
        let most = found.trials.iter().map(|trial| trial.found).fold(0.0, f64::max);
        assert_eq!(liked(&taken), most, "seed {seed}");
        assert!(most >= liked(&own), "seed {seed}: the planner's own plan is liked more");
        judged += 1;
        others += usize::from(liked(&taken) > liked(&own));
    }
    assert!(judged > 10 && others > 3, "{judged} judged, {others} others than the planner's own");
}

#[test]
fn a_judge_that_asks_what_plans_are_worth_takes_what_enumeration_finds() {
    for seed in 0..20 {
        let problem = small(seed, Objective::Throughput);
        let Some((taken, _)) = tried(&problem, worth) else { continue };
        let best = oracle::best(&problem).expect("a plan");
        assert!((worth(&taken) - best).abs() <= 2e-6 * best, "seed {seed}: {} instead of {best}", worth(&taken));
    }
}

#[test]
fn no_plan_is_judged_for_another_objective_and_none_that_cannot_be_run_is_taken_for_fast() {
    let problem = small(3, Objective::Tpot);
    let never = |_: &FeasiblePlan| -> Result<Option<f64>, Infallible> { panic!("judged") };
    fastest(&problem, TRIALS, &Budget::default(), never).expect("answered");
    let problem = small(3, Objective::Throughput);
    let none = |_: &FeasiblePlan| Ok::<_, Infallible>(None);
    let found = fastest(&problem, TRIALS, &Budget::default(), none).expect("answered");
    assert!(found.trials.is_empty());
    let own = plan(&problem, &Budget::default()).expect("planned");
    assert_eq!(found.outcome.plan().map(|plan| worth(plan.plan())), own.plan().map(|plan| worth(plan.plan())));
}
