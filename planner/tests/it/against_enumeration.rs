//! The optimum is what enumeration finds.

use crate::oracle;
use crate::world::{Recipe, closed, problem, with_offload};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_planner::{Budget, Outcome, plan};

/// Compares on the problems of these seeds; on so many times as many where `ISOTHERM_SEEDS_TIMES` says so.
fn compare(seeds: std::ops::Range<u64>, recipe: Recipe) {
    compare_as(seeds, recipe, |_, problem| problem);
}

/// The same for problems made of these.
fn compare_as(seeds: std::ops::Range<u64>, recipe: Recipe, change: impl Fn(u64, PlacementProblem) -> PlacementProblem) {
    let (mut plans, mut none, mut open) = (0, 0, 0);
    let times = std::env::var("ISOTHERM_SEEDS_TIMES").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let count = (seeds.end - seeds.start) * times;
    for seed in seeds.start..seeds.start + count {
        let problem = change(seed, problem(seed, recipe));
        let expected = oracle::best(&problem);
        let outcome = plan(&problem, &Budget::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        match (&outcome, expected) {
            (outcome, Some(expected)) if closed(outcome).is_some() => {
                let plan = closed(outcome).expect("asked above");
                let value = plan.plan().objective_value.expect("a plan has a value");
                assert!((value - expected).abs() <= 2e-6 * expected, "seed {seed}: {value} instead of {expected}");
                plans += 1;
            }
            (Outcome::Infeasible(_), None) => none += 1,
            // A proof may stay open, but neither plan nor bound may contradict what is best.
            (Outcome::Feasible { plan, .. }, Some(expected)) => {
                let (value, bound) =
                    (plan.plan().objective_value, plan.plan().certificate.as_ref().and_then(|c| c.bound));
                let (value, bound) = (value.expect("a plan has a value"), bound.expect("a bound"));
                let (low, high) = (value.min(bound), value.max(bound));
                assert!(low <= expected * (1.0 + 2e-6) && expected <= high * (1.0 + 2e-6), "seed {seed}: {outcome:?}");
                open += 1;
            }
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(open * 100 <= count, "{open} proofs of {count} are open");
    assert!(plans > 20 && none > 0, "{plans} plans, {none} without: too one-sided to mean much");
}

fn recipe(objective: Objective) -> Recipe {
    Recipe { objective, devices_max: 4, layers_max: 6, shared: false, partial: false }
}

#[test]
fn the_least_time_per_token_is_what_enumeration_finds() {
    compare(0..200, recipe(Objective::Tpot));
}

#[test]
fn layers_that_lie_elsewhere_do_not_mislead_any_objective() {
    // Two buffers have to pay: that takes many layers on few devices.
    let deep = |objective| Recipe { devices_max: 3, layers_max: 9, ..recipe(objective) };
    compare_as(0..150, deep(Objective::Tpot), with_offload);
    compare_as(0..150, deep(Objective::Ttft), with_offload);
    compare_as(0..120, Recipe { devices_max: 2, layers_max: 8, ..recipe(Objective::Throughput) }, with_offload);
    let away = (0..150).map(|seed| with_offload(seed, problem(seed, deep(Objective::Tpot))));
    let away = away.filter_map(|problem| {
        let outcome = plan(&problem, &Budget::default()).ok()?;
        Some(closed(&outcome)?.plan().stages.iter().map(|stage| stage.bytes.away_layers).sum::<u32>())
    });
    assert!(away.filter(|&layers| layers > 0).count() > 10, "too few plans use it to mean much");
}

#[test]
fn the_least_time_to_first_token_is_what_enumeration_finds() {
    compare(0..200, recipe(Objective::Ttft));
}

#[test]
fn the_highest_throughput_is_what_enumeration_finds() {
    compare(0..150, Recipe { devices_max: 3, layers_max: 4, ..recipe(Objective::Throughput) });
}

#[test]
fn shared_capacities_and_pins_and_short_routes_do_not_mislead_throughput() {
    compare(1000..1150, Recipe { devices_max: 3, layers_max: 4, shared: true, ..recipe(Objective::Throughput) });
}

#[test]
fn partial_inference_finds_what_enumeration_finds() {
    let recipe = Recipe { devices_max: 3, layers_max: 4, partial: true, ..recipe(Objective::Throughput) };
    compare(2000..2150, recipe);
    compare(3000..3080, Recipe { shared: true, ..recipe });
}
