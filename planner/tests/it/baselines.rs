//! Other planners: what they give holds, and is never better than the optimum.

use crate::helix::{self, flow_problem};
use crate::oracle;
use crate::world::{Recipe, problem};
use isotherm_core::graph::{Link, LinkKind};
use isotherm_core::objective::{SINK, SOURCE};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::units::{Seconds, TokensPerSecond};
use isotherm_planner::Budget;
use isotherm_planner::baselines::{Baseline, baseline};
use std::collections::BTreeMap;

fn value(problem: &PlacementProblem, rule: Baseline) -> Option<f64> {
    let plan = baseline(problem, rule, &Budget::default()).expect("answers")?;
    plan.plan().clone().check(problem).expect("what was judged holds");
    plan.plan().objective_value
}

#[test]
fn no_other_planner_beats_the_optimum() {
    let mut plans = BTreeMap::new();
    for objective in [Objective::Throughput, Objective::Tpot, Objective::Ttft] {
        for seed in 0..60 {
            let recipe = Recipe { objective, devices_max: 3, layers_max: 4, shared: false, partial: seed % 2 == 1 };
            let problem = problem(seed, recipe);
            let best = oracle::best(&problem);
            for rule in Baseline::ALL {
                let Some(found) = value(&problem, rule) else { continue };
                let best = best.unwrap_or_else(|| panic!("seed {seed}: {} finds a plan where none is", rule.name()));
                let better =
                    if objective.maximises() { found > best * (1.0 + 1e-9) } else { found < best * (1.0 - 1e-9) };
                assert!(!better, "seed {seed}: {} has {found}, the optimum is {best}", rule.name());
                *plans.entry(rule.name()).or_insert(0) += 1;
            }
        }
    }
    for rule in Baseline::ALL {
        assert!(plans.get(rule.name()).is_some_and(|&count| count > 3), "{plans:?}: too few plans to mean much");
    }
}

/// Devices `a`, `b` ... by table of rates, every link of the same capacity.
pub fn mesh(layers: usize, tables: &[&[f64]], capacity: f64, partial: bool) -> PlacementProblem {
    let names: Vec<String> = (0..tables.len()).map(|i| format!("d{i}")).collect();
    let link = |from: &str, to: &str| Link {
        from: from.to_owned(),
        to: to.to_owned(),
        kind: LinkKind::Declared,
        latency_seconds: None,
        bandwidth_bytes_per_second: None,
        tokens_per_second: Some(TokensPerSecond::of(capacity)),
        groups: Vec::new(),
    };
    let mut links = Vec::new();
    for a in &names {
        links.extend([link(SOURCE, a), link(a, SINK)]);
        links.extend(names.iter().filter(|b| *b != a).map(|b| link(a, b)));
    }
    let table = |rates: &&[f64]| (1..).zip(rates.iter().map(|&rate| TokensPerSecond::of(rate))).collect();
    let rates = names.iter().cloned().zip(tables.iter().map(table)).collect();
    flow_problem("mesh", layers, rates, links, partial)
}

#[test]
fn equal_and_memory_proportional_divide_as_they_say() {
    // Most layers stand in for memory where none is known: 3 and 1 of 4.
    let problem = mesh(4, &[&[90.0, 60.0, 30.0], &[80.0, 20.0]], 1e6, false);
    let layers = |rule| {
        let plan = baseline(&problem, rule, &Budget::default()).expect("answers").expect("a plan");
        plan.plan().stages.iter().map(|stage| stage.layers.len()).collect::<Vec<_>>()
    };
    assert_eq!(layers(Baseline::Equal), [2, 2]);
    assert_eq!(layers(Baseline::MemoryProportional), [2, 2]);
    assert_eq!(layers(Baseline::Greedy), [3, 1]);
    // One layer and two, the other two: the slower of 60 and 20; three and one: of 30 and 80.
    assert_eq!(value(&problem, Baseline::MinMax), Some(30.0));
}

#[test]
fn petals_and_swarm_replicate_what_is_served_worst() {
    // Two stages of two layers fit everywhere: three devices on each give three times one device's rate.
    let same: &[f64] = &[50.0, 20.0];
    let problem = mesh(4, &[same; 6], 1e6, false);
    for rule in [Baseline::Swarm, Baseline::Petals] {
        let found = value(&problem, rule).expect("a plan");
        assert!((found - 60.0).abs() < 1e-9, "{}: {found}", rule.name());
    }
}

#[test]
fn the_integer_program_of_helix_finds_the_optimum_of_small_meshes() {
    for partial in [false, true] {
        // By hand: d0 then d1 carry 40, d2 then d3 carry 30. In one chain of all four the slowest holds it to 70 too.
        let problem = mesh(4, &[&[90.0, 40.0], &[90.0, 40.0], &[70.0, 30.0], &[70.0, 30.0]], 1e6, partial);
        let found = value(&problem, Baseline::HelixMilp).expect("a plan");
        assert!((70.0 * 0.995..=70.0 * (1.0 + 1e-9)).contains(&found), "{found}");
    }
}

#[test]
fn the_integer_program_of_helix_closes_four_a100() {
    let Some(all) = helix::instances("the_integer_program_of_helix_closes_four_a100") else { return };
    let problem = helix::problem("l30b_a100", &all["l30b_a100"], false);
    let minute = || Seconds::of(60.0);
    let budget = Budget { remaining: Some(&minute), ..Budget::default() };
    let plan = baseline(&problem, Baseline::HelixMilp, &budget).expect("answers").expect("a plan");
    let value = plan.plan().objective_value.expect("a value");
    assert!((value - 1044.533).abs() < 1e-3, "{value}");
    let bound = plan.plan().certificate.as_ref().and_then(|c| c.bound).expect("a bound");
    assert!(bound >= value && bound <= value * 1.0051, "{bound}");
}

#[test]
fn the_integer_program_of_helix_is_not_for_the_time_of_one_request() {
    for objective in [Objective::Tpot, Objective::Ttft] {
        let recipe = Recipe { objective, devices_max: 3, layers_max: 4, shared: false, partial: false };
        assert_eq!(value(&problem(1, recipe), Baseline::HelixMilp), None);
        let others = Baseline::ALL.into_iter().filter(|rule| !rule.plans_for(objective));
        assert_eq!(others.collect::<Vec<_>>(), [Baseline::HelixMilp]);
    }
    assert!(Baseline::ALL.into_iter().all(|rule| rule.plans_for(Objective::Throughput)));
}
