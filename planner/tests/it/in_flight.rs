//! Throughput counts the requests in flight: a deep chain wins on flow and loses where few requests keep it busy.

use crate::world::{Recipe, closed, link, model, problem, profile};
use isotherm_core::artefact::Header;
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile};
use isotherm_core::plan::{BoundKind, Evidence};
use isotherm_core::problem::{Limits, Objective, PlacementProblem, ProblemParts};
use isotherm_core::units::{Bytes, Celsius};
use isotherm_core::workload::{Arrivals, Length, Serving, Workload};
use isotherm_planner::{Budget, Outcome, plan};
use std::collections::BTreeMap;

/// Twelve layers. One quick device that holds them all, and six devices of which each holds two, slower by the layer;
/// so many requests at once.
fn deep_or_single(requests_max: u32) -> PlacementProblem {
    let slow = (1.5e-3, 5_500_000);
    pile("deep or single", &[(1e-3, 40_000_000), slow, slow, slow, slow, slow, slow], requests_max)
}

/// Twelve layers on devices of which each takes so long for a layer and has so much memory.
fn pile(name: &str, of: &[(f64, u64)], requests_max: u32) -> PlacementProblem {
    let model = model(12, |_| 2_000_000);
    let mut devices = Vec::new();
    for (i, &(dense, memory)) in of.iter().enumerate() {
        let mut device = Device::named(format!("d{i}"), "host", DeviceKind::Gpu);
        device.profiles = vec![profile(&model, dense, 0.0, 1e-4, 0.0)];
        device.memory_bytes = Some(Figure::declared(Bytes(memory), "test"));
        devices.push(device);
    }
    let mut links = Vec::new();
    for i in 0..of.len() {
        for j in (0..of.len()).filter(|&j| j != i) {
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
        name: name.into(),
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

/// Evidence with a price on requests in flight among that for batches, or by itself.
fn priced(evidence: &mut Evidence) -> Vec<&mut f64> {
    match evidence {
        Evidence::InFlight { price, .. } => vec![price],
        Evidence::Batches { batches } => batches.iter_mut().flat_map(|of| priced(&mut of.evidence)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn where_quick_devices_are_few_and_slow_ones_keep_requests_long_a_price_on_requests_in_flight_proves_the_bound() {
    // Two quick devices hold the model and are full; eight slow ones could as well, but would keep too many requests.
    let (quick, slow) = ((1e-3, 16_000_000), (1e-2, 16_000_000));
    let problem = pile("few are quick", &[quick, quick, slow, slow, slow, slow, slow, slow, slow, slow], 8);
    let budget = Budget { gap_target: 0.1, ..Budget::default() };
    let outcome = plan(&problem, &budget).expect("planned");
    let found = match &outcome {
        Outcome::Optimal(plan) | Outcome::Feasible { plan, .. } => plan.plan().clone(),
        other => panic!("{other:?}"),
    };
    let certificate = found.certificate.clone().expect("a certificate");
    assert_eq!(certificate.bound_kind, BoundKind::Certified, "{certificate:?}");
    let mut evidence = certificate.evidence.expect("certified");
    let prices = priced(&mut evidence).len();
    assert!(prices > 0, "no price in {evidence:?}");
    for factor in [0.0, 0.5, 2.0, -1.0, f64::NAN, f64::INFINITY] {
        let mut changed = found.clone();
        let evidence = changed.certificate.as_mut().and_then(|certificate| certificate.evidence.as_mut());
        priced(evidence.expect("certified")).into_iter().for_each(|price| *price *= factor);
        assert!(changed.check(&problem).is_err(), "a price times {factor} was accepted");
    }
}
