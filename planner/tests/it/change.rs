//! Losses, repairs and promises, each against something dumber.

use crate::oracle;
use crate::world::{Recipe, problem};
use isotherm_core::check::FeasiblePlan;
use isotherm_core::objective::evaluate;
use isotherm_core::plan::Plan;
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::units::{Bytes, Seconds};
use isotherm_planner::change::{Way, Weighing, change};
use isotherm_planner::refine::{Metric, Promise, Refined, refine};
use isotherm_planner::survive::{Scope, survive};
use isotherm_planner::{Budget, plan};
use std::convert::Infallible;

fn small(seed: u64, objective: Objective) -> PlacementProblem {
    problem(seed, Recipe { objective, devices_max: 3, layers_max: 4, shared: false, partial: false })
}

fn planned(problem: &PlacementProblem) -> Option<Plan> {
    plan(problem, &Budget::default()).expect("planned").plan().map(|found| found.plan().clone())
}

fn without(problem: &PlacementProblem, device: &str) -> PlacementProblem {
    let mut left = problem.clone();
    left.limits.pinned.retain(|pin| pin != device);
    left.limits.banned.push(device.to_owned());
    left
}

/// Layer by layer: bytes of those that nobody else than this device holds, embedding and head left aside.
fn lost_alone(problem: &PlacementProblem, plan: &Plan, device: &str) -> Bytes {
    let held = |layer: u32| {
        let stages = plan.stages.iter().filter(|stage| stage.devices[0] != device);
        stages.into_iter().any(|stage| (stage.layers.start..stage.layers.end).contains(&layer))
    };
    let lost = (0..problem.layers()).filter(|&layer| !held(layer));
    lost.map(|layer| problem.model.layer_bytes[layer as usize]).sum()
}

#[test]
fn a_repair_moves_no_less_than_what_nobody_holds_and_leaves_the_rest_where_it_is() {
    let (mut repairs, mut within) = (0, 0);
    for objective in [Objective::Throughput, Objective::Tpot] {
        for seed in 0..25 {
            let problem = small(seed, objective);
            let Some(before) = planned(&problem) else { continue };
            for device in before.stages.iter().map(|stage| stage.devices[0].clone()) {
                let left = without(&problem, &device);
                let found = change(&left, &before, &Weighing::default(), &Budget::default()).expect("answered");
                let Some(found) = found else {
                    assert!(planned(&left).is_none(), "seed {seed}: a plan without {device} was missed");
                    continue;
                };
                let body = lost_alone(&problem, &before, &device);
                let ends = problem.model.embedding_bytes.saturating_add(problem.model.head_bytes);
                assert!(found.least >= body && found.least <= body.saturating_add(ends), "seed {seed}, {device}");
                assert!(found.moved >= found.least, "seed {seed}: {} of {}", found.moved, found.least);
                let after = found.outcome.plan().expect("a plan").plan();
                assert!(after.stages.iter().all(|stage| stage.devices[0] != device));
                if found.way == Way::Afresh {
                    continue;
                }
                repairs += 1;
                within += usize::from(found.moved.0 as f64 <= 1.2 * found.least.0 as f64 + 1.0);
                for stage in &after.stages {
                    let old = before.stages.iter().find(|old| old.devices == stage.devices);
                    assert!(old.is_none_or(|old| stage.layers.contains(old.layers)), "seed {seed}: {stage:?}");
                }
            }
        }
    }
    assert!(repairs > 10 && within * 10 >= repairs * 8, "{repairs} repairs, {within} with little to move");
}

#[test]
fn a_plan_that_lost_nothing_stays() {
    for seed in 0..20 {
        let problem = small(seed, Objective::Throughput);
        let Some(before) = planned(&problem) else { continue };
        let found = change(&problem, &before, &Weighing::default(), &Budget::default()).expect("answered");
        let found = found.expect("it still serves");
        assert_eq!((found.way, found.moved), (Way::Kept, Bytes::ZERO), "seed {seed}");
        let after = found.outcome.plan().expect("a plan").plan();
        assert_eq!(after.stages, before.stages, "seed {seed}");
    }
}

#[test]
fn what_a_loss_leaves_at_best_is_what_enumeration_finds_without_the_device() {
    let mut losses = 0;
    for seed in 0..20 {
        let problem = small(seed, Objective::Throughput);
        let Some(before) = planned(&problem) else { continue };
        // More than all is never enough, so that every loss is planned for from scratch too.
        for loss in survive(&problem, &before, Scope::Device, 2.0, &Budget::default()).expect("prepared") {
            let best = oracle::best(&without(&problem, &loss.lost[0]));
            match (&loss.fallback, best) {
                (Some(found), Some(best)) => {
                    let plan = found.outcome.plan().expect("a plan");
                    let value = plan.plan().objective_value.expect("a value");
                    assert!((value - best).abs() <= 2e-6 * best, "seed {seed}: {value} instead of {best}");
                    let mut whole = problem.clone();
                    whole.limits.pinned.retain(|pin| !loss.lost.contains(pin));
                    plan.plan().clone().check(&whole).expect("a plan of the whole problem");
                    losses += 1;
                }
                (None, None) => assert_eq!(loss.share, 0.0),
                other => panic!("seed {seed}: {other:?}"),
            }
        }
    }
    assert!(losses > 8, "{losses} losses");
}

/// A judge that knows nothing of simulation: requests of a batch and stages of a route slow one another.
fn judged(problem: &PlacementProblem, plan: &Plan) -> f64 {
    let alone = evaluate(plan, problem).ttft.expect("times are known").value();
    let stages = plan.routes.iter().map(|route| route.stages.len()).max().unwrap_or(1) as f64;
    alone * f64::from(plan.batch.unwrap_or(1)) * stages
}

#[test]
fn the_plan_that_keeps_a_promise_is_the_best_that_enumeration_of_the_cuts_finds() {
    let (mut kept, mut broken) = (0, 0);
    for seed in 0..8 {
        let problem = small(seed, Objective::Throughput);
        if problem.limits.stages_exact.is_some() {
            continue;
        }
        let Some(first) = planned(&problem) else { continue };
        for share in [0.3, 1.1] {
            let most = Seconds::of(judged(&problem, &first) * share);
            let promise = Promise { metric: Metric::Ttft, percent: 95.0, most };
            let judge = |plan: &FeasiblePlan| Ok::<_, Infallible>(vec![judged(&problem, plan.plan())]);
            let found = refine(&problem, &[promise], 1_000, &Budget::default(), judge).expect("answered");
            let mut best: Option<f64> = None;
            for batch in problem.batches() {
                for stages in 1..=problem.layers() {
                    let mut cut = problem.clone();
                    cut.limits.choices.batches = problem.batches().into_iter().filter(|&b| b <= batch).collect();
                    cut.limits.stages_max = Some(problem.limits.stages_max.map_or(stages, |most| most.min(stages)));
                    let Some(plan) = planned(&cut) else { continue };
                    if judged(&problem, &plan) <= most.value() {
                        let value = plan.objective_value.expect("a value");
                        best = Some(best.map_or(value, |known: f64| known.max(value)));
                    }
                }
            }
            match (found, best) {
                (Refined::Kept { outcome, .. }, Some(best)) => {
                    let value = outcome.plan().expect("a plan").plan().objective_value.expect("a value");
                    assert!((value - best).abs() <= 2e-6 * best, "seed {seed}: {value} instead of {best}");
                    kept += 1;
                }
                (Refined::Broken { proven, .. }, None) => {
                    assert!(proven.is_none_or(|(promise, least)| least > promise.most));
                    broken += 1;
                }
                other => panic!("seed {seed}, {share}: {other:?}"),
            }
        }
    }
    assert!(kept > 2 && broken > 2, "{kept} kept, {broken} broken");
}
