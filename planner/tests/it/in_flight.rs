//! Throughput counts the requests in flight: a deep chain wins on flow and loses where few requests keep it busy.

use crate::world::{Random, Recipe, closed, link, model, problem, profile};
use isotherm_core::artefact::Header;
use isotherm_core::check::{BoundFault, Violation};
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile};
use isotherm_core::plan::{BoundKind, Evidence, Plan};
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

/// A plan with other evidence for another bound.
fn claimed(plan: &Plan, bound: f64, evidence: Evidence) -> Plan {
    let mut claimed = plan.clone();
    let certificate = claimed.certificate.as_mut().expect("a certificate");
    certificate.bound_kind = BoundKind::Certified;
    (certificate.bound, certificate.evidence) = (Some(bound), Some(evidence));
    claimed
}

/// Whether prices of routes prove a bound.
fn routes_prove(plan: &Plan, problem: &PlacementProblem, bound: f64, price: f64, worths: &[f64]) -> bool {
    let names = problem.graph.devices().iter().map(|device| device.name.clone());
    let evidence = Evidence::Routes { price, worths: names.zip(worths.iter().copied()).collect() };
    let faults = claimed(plan, bound, evidence).violations(problem);
    !faults.iter().any(|fault| matches!(fault, Violation::Bound(BoundFault::RoutesNotBinding { .. })))
}

#[test]
fn no_prices_of_routes_prove_less_than_the_optimum_and_the_best_come_near() {
    let (mut asked, mut near) = (0, 0);
    for seed in 0..60_u64 {
        let partial = seed.is_multiple_of(3);
        let recipe = Recipe { objective: Objective::Throughput, devices_max: 3, layers_max: 4, shared: false, partial };
        let mut problem = problem(seed, recipe);
        problem.serving.requests_max = 1 + (seed % 3) as u32;
        let outcome = plan(&problem, &Budget::default()).expect("planned");
        let Some(found) = closed(&outcome).map(|plan| plan.plan().clone()) else { continue };
        let value = found.objective_value.expect("a value");
        let mut random = Random(seed);
        let tokens = problem.tokens_in_flight();
        let count = problem.graph.devices().len();
        // Prices at which all pay about as much for work as for time, and better ones nearby.
        let mut best = (f64::INFINITY, vec![0.0; count]);
        for step in 0..60 {
            let off = if step == 0 { 0.0 } else { 0.5 };
            let mut worths = best.1.clone();
            for worth in &mut worths {
                *worth = (*worth + off * random.real(-1.0, 1.0) * tokens / count as f64).max(0.0);
            }
            let proved = |bound: f64| routes_prove(&found, &problem, bound, 1.0, &worths);
            assert!(!proved(value * (1.0 - 1e-6)), "seed {seed}: less than {value} at {worths:?}");
            let most = if best.0.is_finite() { best.0 } else { 1e4 * value };
            if !proved(most) {
                continue;
            }
            let (mut low, mut high) = (value * (1.0 - 1e-6), most);
            for _ in 0..20 {
                let middle = (low * high).sqrt();
                if proved(middle) { high = middle } else { low = middle }
            }
            best = (high, worths);
        }
        asked += 1;
        near += usize::from(best.0 < value * 1.05);
    }
    assert!(asked > 30 && near > asked / 4, "{near} of {asked} proved within a twentieth");
}

#[test]
fn where_a_route_needs_devices_of_several_kinds_its_price_proves_the_bound() {
    // No device holds all layers, and few of the quick ones keep requests for little time.
    let (quick, middle, slow) = ((1e-3, 12_000_000), (2e-3, 16_000_000), (6e-3, 22_000_000));
    let problem =
        pile("several kinds", &[quick, quick, quick, middle, middle, middle, slow, slow, slow, slow, slow], 16);
    let budget = Budget { gap_target: 0.2, ..Budget::default() };
    let outcome = plan(&problem, &budget).expect("planned");
    let (Outcome::Optimal(found) | Outcome::Feasible { plan: found, .. }) = &outcome else { panic!("{outcome:?}") };
    let found = found.plan();
    let certificate = found.certificate.clone().expect("a certificate");
    assert_eq!(certificate.bound_kind, BoundKind::Certified, "{certificate:?}");
    let evidence = certificate.evidence.expect("certified");
    let of = match &evidence {
        Evidence::Batches { batches } => batches.iter().map(|of| &of.evidence).collect(),
        other => vec![other],
    };
    assert!(of.iter().any(|of| matches!(of, Evidence::Routes { .. })), "no route in {evidence:?}");
}

/// Evidence with a price on requests in flight among that for batches, or by itself.
fn priced(evidence: &mut Evidence) -> Vec<&mut f64> {
    match evidence {
        Evidence::InFlight { price, .. } | Evidence::Routes { price, .. } => vec![price],
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
