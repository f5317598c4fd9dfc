//! Plans against slow devices: what they are worth at their worst is what enumeration of all sets of slow devices finds.

use crate::world::{Recipe, problem};
use isotherm_core::objective::evaluate;
use isotherm_core::plan::Plan;
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_planner::robust::{Guard, Uncertainty, robust, slowness, worst};
use isotherm_planner::{Budget, plan};

/// The worst value of a plan over every set of at most so many slow devices.
fn worst_of_all(plan: &Plan, problem: &PlacementProblem, slow: &[f64], gamma: usize) -> f64 {
    let count = slow.len();
    let sets = (0_u32..1 << count).filter(|set| set.count_ones() as usize <= gamma);
    let value = |set: u32| {
        let at = problem.at_speeds(|id| (set >> id.index() & 1 == 1).then(|| 1.0 / slow[id.index()]));
        evaluate(plan, &at).value(problem.objective).expect("a value")
    };
    sets.map(value).reduce(if problem.objective.maximises() { f64::min } else { f64::max }).expect("the empty set")
}

#[test]
fn the_worst_set_of_slow_devices_is_what_enumeration_of_all_sets_finds() {
    let mut plans = 0;
    for seed in 0..40 {
        let objective = [Objective::Throughput, Objective::Tpot, Objective::Ttft][seed as usize % 3];
        let problem = problem(seed, Recipe { objective, devices_max: 5, layers_max: 6, shared: false, partial: false });
        let outcome = plan(&problem, &Budget::default()).expect("planned");
        let Some(found) = outcome.plan() else { continue };
        let slow: Vec<f64> = (0..problem.graph.devices().len()).map(|i| 1.05 + 0.1 * i as f64).collect();
        for gamma in 0..=3 {
            let (value, set) = worst(found.plan(), &problem, &slow, gamma).expect("a value");
            let expected = worst_of_all(found.plan(), &problem, &slow, gamma);
            assert!((value - expected).abs() <= 1e-9 * expected, "seed {seed}, {gamma}: {value} instead of {expected}");
            assert!(set.len() <= gamma);
        }
        plans += 1;
    }
    assert!(plans > 15);
}

#[test]
fn a_guarded_plan_is_worth_no_less_at_its_worst_than_the_best_as_measured_and_no_more_than_its_bound() {
    let (mut plans, mut ahead) = (0, 0);
    for seed in 0..30 {
        let objective = [Objective::Throughput, Objective::Tpot][seed as usize % 2];
        let problem = problem(seed, Recipe { objective, devices_max: 4, layers_max: 6, shared: false, partial: false });
        for guard in [Guard::Quantile, Guard::Budget(1), Guard::Budget(2)] {
            let uncertainty = Uncertainty { guard, quantile: 0.95, assumed: 0.4 };
            let Ok(found) = robust(&problem, &uncertainty, &Budget::default()).expect("planned") else { continue };
            let better = |a: f64, b: f64| if objective.maximises() { a >= b } else { a <= b };
            let slack = if objective.maximises() { 1.0 - 1e-6 } else { 1.0 + 1e-6 };
            let nominal = found.nominal_worst.expect("known");
            assert!(better(found.worst, nominal * slack), "seed {seed}: {} is worse than {nominal}", found.worst);
            let bound = found.bound.expect("a bound");
            assert!(better(bound, found.worst * slack), "seed {seed}: {} beats its bound {bound}", found.worst);
            let plan = found.outcome.plan().expect("a plan").plan();
            let gamma = if let Guard::Budget(gamma) = guard { gamma } else { problem.graph.devices().len() };
            let expected = worst_of_all(plan, &problem, &slowness(&problem, &uncertainty), gamma);
            assert!((found.worst - expected).abs() <= 1e-9 * expected, "seed {seed}");
            ahead += usize::from(!better(nominal * slack, found.worst));
            plans += 1;
        }
    }
    assert!(plans > 30 && ahead > 0, "{plans} plans, {ahead} better at their worst than the best as measured");
}
