//! Formats and groups: the best plan is the best over every way to choose them, each solved by enumeration.

use crate::oracle;
use crate::world::{Random, Recipe, closed, problem};
use isotherm_core::check::ProblemRecord;
use isotherm_core::cost::{Curve, Experts};
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DeviceGraph, DevicesFile};
use isotherm_core::ids::{DeviceId, Layers};
use isotherm_core::plan::{BoundKind, Plan};
use isotherm_core::problem::{Choices, Group, Limits, Objective, Parallel, PlacementProblem, ProblemParts};
use isotherm_core::units::{Bytes, Seconds};
use isotherm_planner::{Budget, Outcome, plan};
use serde_json::json;
use std::fmt::Write as _;

/// The problem with other devices and choices, and no pins.
fn changed(problem: &PlacementProblem, file: DevicesFile, choices: Choices) -> PlacementProblem {
    PlacementProblem::new(ProblemParts {
        name: problem.name.clone(),
        model: problem.model.clone(),
        graph: DeviceGraph::new(file).expect("a well-formed graph"),
        workload: problem.workload.clone(),
        serving: problem.serving,
        objective: problem.objective,
        limits: Limits { choices, pinned: Vec::new(), ..problem.limits.clone() },
        ambient: problem.ambient,
        inputs: problem.inputs.clone(),
    })
    .expect("a well-formed problem")
}

/// Devices measured in one or two formats, of which neither need be the quicker.
fn with_formats(seed: u64, objective: Objective) -> PlacementProblem {
    let recipe = Recipe { objective, devices_max: 3, layers_max: 4, shared: false, partial: false };
    let plain = problem(seed, recipe);
    let random = &mut Random(seed.wrapping_mul(31) + 5);
    let mut file = plain.graph.file().clone();
    for device in &mut file.devices {
        if random.chance(80) {
            let mut other = device.profiles[0].clone();
            other.geometry.quantisation = "Q8_0".into();
            other.step_seconds = Seconds::of(random.real(0.0, 4e-3));
            device.profiles.push(other);
        }
    }
    let quantisations = if random.chance(50) { ["F16", "Q8_0"] } else { ["Q8_0", "F16"] };
    changed(&plain, file, Choices { quantisations: quantisations.map(str::to_owned).to_vec(), ..Choices::default() })
}

/// The best over every format of every device.
fn best_in_formats(problem: &PlacementProblem) -> Option<f64> {
    let devices = problem.graph.devices().len();
    let better = |a: f64, b: f64| if problem.objective.maximises() { a.max(b) } else { a.min(b) };
    let ways = problem.formats().len().pow(devices as u32);
    let of = |way: usize| {
        let digit = |id: DeviceId| way / problem.formats().len().pow(id.index() as u32) % problem.formats().len();
        oracle::best(&problem.in_formats(|id| Some(problem.formats()[digit(id)].as_str())))
    };
    (0..ways).filter_map(of).reduce(better)
}

fn compare(problem: &PlacementProblem, seed: u64, expected: Option<f64>) -> Option<f64> {
    let outcome = plan(problem, &Budget::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    match (&outcome, expected) {
        (outcome, Some(expected)) if closed(outcome).is_some() => {
            let found = closed(outcome).expect("asked above");
            let value = found.plan().objective_value.expect("a plan has a value");
            assert!((value - expected).abs() <= 2e-6 * expected, "seed {seed}: {value} instead of {expected}");
            found.plan().clone().check(problem).expect("holds for the problem with its choices");
            Some(value)
        }
        (Outcome::Infeasible(_), None) => None,
        other => panic!("seed {seed}: {other:?}"),
    }
}

#[test]
fn the_best_formats_are_what_enumeration_finds() {
    for objective in [Objective::Tpot, Objective::Ttft, Objective::Throughput] {
        let (mut plans, mut mixed) = (0, 0);
        for seed in 0..60 {
            let problem = with_formats(seed, objective);
            if compare(&problem, seed, best_in_formats(&problem)).is_none() {
                continue;
            }
            plans += 1;
            let outcome = plan(&problem, &Budget::default()).expect("planned above");
            let stages = &outcome.plan().expect("a plan").plan().stages;
            mixed += usize::from(stages.iter().any(|stage| stage.quantisation != stages[0].quantisation));
        }
        assert!(plans > 20 && mixed > 0, "{objective:?}: {plans} plans, {mixed} in several formats");
    }
}

#[test]
fn a_smaller_format_is_chosen_where_the_larger_one_does_not_fit_or_reads_more() {
    let mut smaller = 0;
    for seed in 0..40 {
        let recipe =
            Recipe { objective: Objective::Tpot, devices_max: 3, layers_max: 4, shared: false, partial: false };
        let plain = problem(seed, recipe);
        let mut file = plain.graph.file().clone();
        for device in &mut file.devices {
            let mut other = device.profiles[0].clone();
            other.geometry.quantisation = "Q4_0".into();
            device.profiles.push(other);
        }
        let choices = Choices { quantisations: vec!["F16".into(), "Q4_0".into()], ..Choices::default() };
        let alone = oracle::best(&changed(&plain, plain.graph.file().clone(), Choices::default()));
        let chosen = changed(&plain, file, choices);
        let outcome = plan(&chosen, &Budget::default()).expect("planned");
        match (alone, outcome.plan()) {
            (Some(alone), Some(found)) => {
                let value = found.plan().objective_value.expect("a value");
                assert!(value <= alone * (1.0 + 1e-9), "seed {seed}: a choice made {alone} into {value}");
            }
            (None, Some(_)) => smaller += 1,
            (Some(_), None) => panic!("seed {seed}: a choice took the plan away"),
            (None, None) => {}
        }
    }
    assert!(smaller > 0, "no problem became possible");
}

/// Four devices, some of them alike; those may hold a stage together.
fn with_groups(seed: u64, objective: Objective) -> PlacementProblem {
    let recipe = Recipe { objective, devices_max: 3, layers_max: 4, shared: false, partial: false };
    let plain = problem(seed, recipe);
    let random = &mut Random(seed.wrapping_mul(57) + 3);
    let mut file = plain.graph.file().clone();
    for i in 1..file.devices.len() {
        if random.chance(70) {
            let name = file.devices[i].name.clone();
            file.devices[i] = isotherm_core::device::Device { name, ..file.devices[0].clone() };
        }
    }
    for device in &mut file.devices {
        device.memory_pool = None;
    }
    // Ways that are short compared with a layer, or not, and the same between all.
    let latency = if random.chance(70) { 1e-5 } else { 2e-3 };
    let (devices, junctions) = (file.devices.clone(), file.junctions.clone());
    file.links.clear();
    let places: Vec<&String> = devices.iter().map(|d| &d.name).chain(&junctions).collect();
    for from in &places {
        for to in places.iter().filter(|to| *to != from) {
            file.links.push(crate::world::link(from, to, latency, 1e7, &[]));
        }
    }
    changed(&plain, file, Choices { tensor_parallel: vec![1, 2], ..Choices::default() })
}

/// The best over every set of disjoint pairs.
fn best_in_groups(problem: &PlacementProblem) -> Option<f64> {
    let ids: Vec<DeviceId> = problem.graph.device_ids().collect();
    let mut pairs = vec![Vec::new()];
    for (i, &a) in ids.iter().enumerate() {
        pairs.extend(ids[i + 1..].iter().map(|&b| vec![vec![a, b]]));
    }
    let better = |a: f64, b: f64| if problem.objective.maximises() { a.max(b) } else { a.min(b) };
    pairs.iter().filter_map(|groups| oracle::best(&problem.grouped(groups)?)).reduce(better)
}

/// The planner's plan, which holds for the problem and is worth what enumeration expects; none where that finds none.
fn as_expected(problem: &PlacementProblem, expected: Option<f64>, seed: u64) -> Option<Plan> {
    let outcome = plan(problem, &Budget::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let Some(found) = outcome.plan() else {
        assert!(expected.is_none(), "seed {seed}: {expected:?}, and no plan was found");
        return None;
    };
    let (value, expected) = (found.plan().objective_value.expect("a value"), expected.expect("a plan"));
    assert!((value - expected).abs() <= 2e-6 * expected, "seed {seed}: {value} instead of {expected}");
    found.plan().clone().check(problem).expect("holds for the problem with its choices");
    Some(found.plan().clone())
}

#[test]
fn the_best_groups_are_what_enumeration_finds() {
    for objective in [Objective::Tpot, Objective::Ttft, Objective::Throughput] {
        let (mut plans, mut together) = (0, 0);
        for seed in 0..60 {
            let problem = with_groups(seed, objective);
            let Some(found) = as_expected(&problem, best_in_groups(&problem), seed) else { continue };
            let certificate = found.certificate.as_ref().expect("a certificate");
            assert_ne!(certificate.bound_kind, BoundKind::Certified, "no evidence speaks of groups");
            plans += 1;
            together += usize::from(found.stages.iter().any(|stage| stage.devices.len() > 1));
        }
        assert!(plans > 20 && together > 2, "{objective:?}: {plans} plans, {together} with groups");
    }
}

/// The same devices with feed-forward by experts, which pairs may divide among them or by their width.
fn with_experts(seed: u64, objective: Objective, popular: bool) -> PlacementProblem {
    let plain = with_groups(seed, objective);
    let random = &mut Random(seed.wrapping_mul(71) + 11);
    let mut file = plain.graph.file().clone();
    // Of an expert a step reads all or nothing; small pieces take longer than their part.
    let (read, pair) = (random.real(5e-4, 2e-3), random.real(1e-5, 4e-4));
    let layers = if random.chance(60) { plain.layers() } else { plain.layers().div_ceil(2) };
    let row = |activated: u32| {
        let time = |tokens: u32| Seconds::of(read * f64::from(activated) + pair * f64::from(tokens));
        (activated, Curve::new(vec![(1, time(1)), (64, time(64))]).expect("rising"))
    };
    let popularity = if popular { vec![10.0, 1.0, 1.0, 1.0] } else { Vec::new() };
    let experts = Experts {
        count: 4,
        per_token: 1,
        layers,
        devices: 1,
        width: 1,
        measured_per_token: 1,
        popularity,
        by_activated: vec![row(1), row(2), row(4)],
    };
    for device in &mut file.devices {
        device.profiles[0].experts = Some(experts.clone());
    }
    // Half of an expert takes half of the time here, so a lone token is always quicker with the matrices divided.
    let tensor_parallel = if seed.is_multiple_of(3) { vec![1] } else { vec![1, 2] };
    let choices = Choices { tensor_parallel, expert_parallel: vec![2], ..Choices::default() };
    changed(&plain, file, choices)
}

/// The best over every pair that divides experts, every pair that divides matrices, and none.
fn best_with_experts(problem: &PlacementProblem) -> Option<f64> {
    let ids: Vec<DeviceId> = problem.graph.device_ids().collect();
    let mut ways = vec![Vec::new()];
    for (i, &a) in ids.iter().enumerate() {
        for &b in &ids[i + 1..] {
            let group = |parallel| vec![Group { members: vec![a, b], parallel }];
            ways.extend([Parallel::Tensor, Parallel::Experts].map(group));
        }
    }
    let better = |a: f64, b: f64| if problem.objective.maximises() { a.max(b) } else { a.min(b) };
    ways.iter().filter_map(|groups| oracle::best(&problem.grouped_as(groups)?)).reduce(better)
}

#[test]
fn the_best_groups_of_experts_are_what_enumeration_finds() {
    let (mut lines, mut expected_of) = (String::new(), Vec::new());
    for objective in [Objective::Tpot, Objective::Ttft, Objective::Throughput] {
        let (mut plans, mut tensor, mut experts) = (0, 0, 0);
        for seed in 0..40 {
            let problem = with_experts(seed, objective, seed.is_multiple_of(2));
            let Some(found) = as_expected(&problem, best_with_experts(&problem), seed) else { continue };
            let mut swapped = found.clone();
            for stage in swapped.stages.iter_mut().filter(|stage| stage.devices.len() > 1) {
                let tensor = stage.parallel == Parallel::Tensor;
                stage.parallel = if tensor { Parallel::Experts } else { Parallel::Tensor };
            }
            for judged in [&found, &swapped] {
                let case = json!({"plan": judged, "problem": ProblemRecord::of(&problem)});
                writeln!(lines, "{case}").expect("a string grows");
                expected_of.push(judged.violations(&problem).is_empty());
            }
            let together = found.stages.iter().filter(|stage| stage.devices.len() > 1);
            let kinds: Vec<Parallel> = together.map(|stage| stage.parallel).collect();
            plans += 1;
            tensor += usize::from(kinds.contains(&Parallel::Tensor));
            experts += usize::from(kinds.contains(&Parallel::Experts));
        }
        assert!(plans > 10 && experts > 2, "{objective:?}: {plans} plans, {tensor} by matrices, {experts} by experts");
    }
    assert!(expected_of.contains(&false), "none was refused");
    if let Some(judged) = crate::world::second_opinion("experts", &lines) {
        assert_eq!(judged, expected_of);
    }
}

#[test]
fn a_model_larger_than_any_device_is_placed_by_its_experts() {
    let mut placed = 0;
    for seed in 0..40 {
        let mut problem = with_experts(seed, Objective::Throughput, false);
        problem.limits.choices.tensor_parallel = Vec::new();
        let mut alone = problem.clone();
        alone.limits.choices.expert_parallel = Vec::new();
        // One of the ends is too large for one device, and whole on none.
        let least = |id: DeviceId| {
            let ends = [Layers::new(0, 1), Layers::new(problem.layers() - 1, problem.layers())];
            ends.map(|end| problem.stage_bytes(id, end).total).into_iter().max().unwrap_or_default()
        };
        let mut file = problem.graph.file().clone();
        for (device, id) in file.devices.iter_mut().zip(problem.graph.device_ids()) {
            let size = Bytes(least(id).0 - 1);
            device.memory_bytes = Some(Figure::declared(size, "test"));
        }
        let choices = problem.limits.choices.clone();
        let (large, alone) = (changed(&problem, file.clone(), choices), changed(&problem, file, Choices::default()));
        assert!(plan(&alone, &Budget::default()).expect("planned").plan().is_none(), "seed {seed}");
        let outcome = plan(&large, &Budget::default()).expect("planned");
        let Some(found) = outcome.plan() else { continue };
        placed += 1;
        let together: Vec<_> = found.plan().stages.iter().filter(|stage| stage.devices.len() > 1).collect();
        assert!(!together.is_empty(), "seed {seed}: one device holds what it has no room for");
        for stage in together {
            assert_eq!((stage.devices.len(), stage.parallel), (2, Parallel::Experts), "seed {seed}");
            let held = &large.model.layer_bytes[stage.layers.start as usize..stage.layers.end as usize];
            let body: u64 = held.iter().map(|bytes| bytes.0).sum::<u64>().div_ceil(2);
            let ends = large.model.weight_bytes(stage.layers).0 - held.iter().map(|bytes| bytes.0).sum::<u64>();
            assert_eq!(stage.bytes.weights.0, body + ends, "seed {seed}: half of the layers and all of the ends");
        }
        let mut wrong = found.plan().clone();
        wrong.stages.iter_mut().for_each(|stage| stage.parallel = Parallel::Tensor);
        assert!(!wrong.violations(&large).is_empty(), "seed {seed}: matrices may not be divided here");
    }
    assert!(placed > 3, "{placed} placed");
}
