//! Worths are what planning again says, by the oracle that enumerates.

use crate::oracle;
use crate::world::{Recipe, link, problem};
use isotherm_core::graph::DeviceGraph;
use isotherm_core::problem::{Limits, Objective, PlacementProblem, ProblemParts};
use isotherm_planner::{BreakEven, Budget, explain, plan};

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

/// The same devices, each joined to one junction: a message to another takes `latency`, all of it on the way out.
fn star(problem: &PlacementProblem, latency: f64) -> PlacementProblem {
    let mut file = problem.graph.file().clone();
    file.junctions = vec!["middle".into()];
    file.links.clear();
    file.coordinator = None;
    for device in file.devices.clone() {
        file.links.push(link(&device.name, "middle", latency, 1e6, &[]));
        file.links.push(link("middle", &device.name, 0.0, 1e6, &[]));
    }
    let mut star = problem.clone();
    star.graph = DeviceGraph::new(file).expect("a well-formed graph");
    star
}

#[test]
fn a_split_pays_below_the_latency_stated_of_a_way_whatever_links_it_leads_over() {
    let recipe = Recipe { objective: Objective::Tpot, devices_max: 3, layers_max: 5, shared: false, partial: false };
    let mut turns = 0;
    for seed in 0..60 {
        let mut given = problem(seed, recipe);
        let limits = &mut given.limits;
        (limits.stages_max, limits.stages_exact, limits.pinned) = (None, None, Vec::new());
        let given = star(&given, 1e-3);
        let value = |problem: &PlacementProblem| {
            let outcome = plan(problem, &Budget::default()).expect("planned");
            outcome.plan().and_then(|found| found.plan().objective_value)
        };
        let outcome = plan(&given, &Budget::default()).expect("planned");
        let Some(found) = outcome.plan() else { continue };
        let why = explain(&given, found.plan(), &Budget::default()).expect("explained");
        assert!(why.unasked.is_empty(), "seed {seed}: {:?}", why.unasked);
        let Some(BreakEven::At(latency)) = why.split.map(|split| split.latency) else { continue };
        let pays = |factor: f64| {
            let changed = star(&given, latency.value() * factor);
            let mut whole = changed.clone();
            whole.limits.stages_max = Some(1);
            value(&changed).expect("a plan") < value(&whole).expect("a plan whole") * (1.0 - 1e-6)
        };
        assert!(pays(0.97) && !pays(1.03), "seed {seed}: {latency} is not where it turns");
        turns += 1;
    }
    assert!(turns > 3, "{turns} turned");
}
