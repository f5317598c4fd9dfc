//! Throughput counts the requests in flight: a deep chain wins on flow and loses where few requests keep it busy.

use crate::world::{Recipe, closed, link, model, problem, profile};
use isotherm_core::artefact::Header;
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile};
use isotherm_core::problem::{Limits, Objective, PlacementProblem, ProblemParts};
use isotherm_core::units::{Bytes, Celsius};
use isotherm_core::workload::{Arrivals, Length, Serving, Workload};
use isotherm_planner::{Budget, plan};
use std::collections::BTreeMap;

/// Twelve layers. One quick device that holds them all, and six devices of which each holds two, slower by the layer;
/// so many requests at once.
fn deep_or_single(requests_max: u32) -> PlacementProblem {
    let model = model(12, |_| 2_000_000);
    let mut devices = Vec::new();
    for i in 0..7 {
        let single = i == 0;
        let mut device = Device::named(format!("d{i}"), "host", DeviceKind::Gpu);
        let dense = if single { 1e-3 } else { 1.5e-3 };
        device.profiles = vec![profile(&model, dense, 0.0, 1e-4, 0.0)];
        let memory = if single { 40_000_000 } else { 5_500_000 };
        device.memory_bytes = Some(Figure::declared(Bytes(memory), "test"));
        devices.push(device);
    }
    let mut links = Vec::new();
    for i in 0..7 {
        for j in (0..7).filter(|&j| j != i) {
            links.push(link(&format!("d{i}"), &format!("d{j}"), 1e-5, 1e9, &[]));
        }
    }
    let file = DevicesFile {
        header: Header::new(DEVICES_SCHEMA, Vec::new()),
        host: BTreeMap::new(),
        devices,
        junctions: Vec::new(),
        links,
        groups: Vec::new(),
        co_run: Vec::new(),
        coordinator: None,
    };
    PlacementProblem::new(ProblemParts {
        name: "deep or single".into(),
        model,
        graph: DeviceGraph::new(file).expect("a well-formed graph"),
        workload: Workload {
            arrivals: Arrivals::ClosedLoop { clients: requests_max },
            prompt_tokens: Length::fixed(8),
            output_tokens: Length::fixed(32),
            requests: 1,
        },
        serving: Serving { requests_max, step_tokens_max: 16, kv_block_tokens: 4, ..Serving::default() },
        objective: Objective::Throughput,
        limits: Limits { reserve_bytes: Bytes(100), ..Limits::default() },
        ambient: Celsius::of(25.0),
        inputs: Vec::new(),
    })
    .expect("a well-formed problem")
}

/// Devices of the plan, its batch and its value.
fn solved(requests_max: u32) -> (usize, u32, f64) {
    let problem = deep_or_single(requests_max);
    let outcome = plan(&problem, &Budget::default()).expect("planned");
    let found = closed(&outcome).unwrap_or_else(|| panic!("{outcome:?}")).plan();
    (found.stages.len(), found.batch.expect("a batch"), found.objective_value.expect("a value"))
}

#[test]
fn a_deep_chain_that_wins_on_flow_is_not_chosen_where_too_few_requests_would_fill_it() {
    // Alone, a request passes the quick device in two thirds of the time of the chain of six; twelve of them keep all
    // six stages busy, each of which is three times as quick.
    let (stages, batch, one) = solved(1);
    assert_eq!((stages, batch), (1, 1), "one request at a time");
    let (stages, _, many) = solved(12);
    assert!(stages > 1, "twelve requests use {stages} device");
    assert!(many > 2.5 * one, "{many} against {one}");
}

#[test]
fn one_device_more_never_makes_the_optimum_worse() {
    let recipe =
        Recipe { objective: Objective::Throughput, devices_max: 3, layers_max: 4, shared: false, partial: false };
    let (mut better, mut compared) = (0, 0);
    for seed in 0..40 {
        let before = problem(seed, recipe);
        let mut file = before.graph.file().clone();
        let twin = Device { name: "twin".into(), memory_pool: None, ..file.devices[0].clone() };
        for place in file.devices.iter().map(|device| device.name.clone()).chain(file.junctions.clone()) {
            file.links.push(link("twin", &place, 1e-3, 1e6, &[]));
            file.links.push(link(&place, "twin", 1e-3, 1e6, &[]));
        }
        file.devices.push(twin);
        let mut after = before.clone();
        after.limits.stages_exact = None;
        let parts = ProblemParts {
            name: after.name,
            model: after.model,
            graph: DeviceGraph::new(file).expect("a well-formed graph"),
            workload: after.workload,
            serving: after.serving,
            objective: after.objective,
            limits: after.limits,
            ambient: after.ambient,
            inputs: after.inputs,
        };
        let after = PlacementProblem::new(parts).expect("a well-formed problem");
        let value = |problem: &PlacementProblem| {
            let outcome = plan(problem, &Budget::default()).expect("planned");
            outcome.plan().and_then(|found| found.plan().objective_value)
        };
        let (Some(old), new) = (value(&before), value(&after)) else { continue };
        let new = new.unwrap_or_else(|| panic!("seed {seed}: one device more took the plan away"));
        assert!(new >= old * (1.0 - 2e-6), "seed {seed}: {new} with one more, {old} without");
        better += usize::from(new > old * (1.0 + 1e-6));
        compared += 1;
    }
    assert!(compared > 15 && better > 3, "{compared} compared, {better} better");
}
