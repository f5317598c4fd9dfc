//! Worths are what planning again says, by the oracle that enumerates.

use crate::oracle;
use crate::world::{Recipe, problem};
use isotherm_core::problem::{Limits, Objective, PlacementProblem, ProblemParts};
use isotherm_planner::{Budget, explain, plan};

fn without(problem: &PlacementProblem, device: &str) -> PlacementProblem {
    let mut limits: Limits = problem.limits.clone();
    limits.pinned.retain(|pinned| pinned != device);
    limits.banned.push(device.to_owned());
    PlacementProblem::new(ProblemParts {
        name: problem.name.clone(),
        model: problem.model.clone(),
        graph: problem.graph.clone(),
        workload: problem.workload.clone(),
        serving: problem.serving,
        objective: problem.objective,
        limits,
        ambient: problem.ambient,
        inputs: problem.inputs.clone(),
    })
    .expect("a ban makes no problem invalid")
}

#[test]
fn a_device_is_worth_what_enumeration_without_it_loses_and_one_more_never_hurts() {
    let recipe = Recipe { objective: Objective::Tpot, devices_max: 3, layers_max: 5, shared: false, partial: false };
    let (mut lost, mut gained) = (0, 0);
    for seed in 0..60 {
        let problem = problem(seed, recipe);
        let outcome = plan(&problem, &Budget::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let Some(found) = outcome.plan() else { continue };
        let value = found.plan().objective_value.expect("a plan has a value");
        let explanation =
            explain(&problem, found.plan(), &Budget::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(explanation.without.len(), found.plan().stages.len(), "seed {seed}");
        for worth in &explanation.without {
            let expected = oracle::best(&without(&problem, &worth.name));
            match (worth.objective, expected) {
                (Some(a), Some(b)) => assert!((a - b).abs() <= 2e-6 * b, "seed {seed}: {a} instead of {b}"),
                (a, b) => assert_eq!(a.is_some(), b.is_some(), "seed {seed}"),
            }
            lost += usize::from(worth.gain.is_none_or(|gain| gain < -1e-6));
        }
        // A pinned device or an exact number of stages could make a twin useless, but never harmful.
        for worth in &explanation.one_more {
            let with = worth.objective.unwrap_or_else(|| panic!("seed {seed}: no plan with one more {}", worth.name));
            assert!(with <= value * (1.0 + 2e-6), "seed {seed}: {with} with one more, {value} without");
            gained += usize::from(with < value * (1.0 - 1e-6));
        }
    }
    assert!(lost > 10 && gained > 3, "{lost} lost, {gained} gained: too one-sided to mean much");
}
