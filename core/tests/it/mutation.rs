//! Every figure, name and position of a valid plan is changed, one at a time; the checker must refuse each change.

use crate::build::*;
use isotherm_core::plan::{BatchEvidence, EndWeights, Evidence, Plan};
use isotherm_core::problem::{Objective, PlacementProblem};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Fields that make no promise: who wrote the plan and how, and the words of a reason.
const FREE: [&str; 7] = ["tool_version", "provenance", "method", "solver", "nodes", "reason", "power_cap_watts"];

/// Other values of the same or another kind.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Number(number) => {
            let x = number.as_f64().expect("a float");
            let mut others =
                vec![json!(x * 1.0001 + 1e-6), json!(x * 2.0 + 1.0), json!(-x - 1.0), json!(x / 2.0 - 0.01)];
            if let Some(n) = number.as_u64() {
                others.extend([json!(n + 1), json!(n.saturating_sub(1)), json!(n + 1_000_000), json!(u32::MAX)]);
            }
            others
        }
        Value::String(text) => vec![json!(format!("{text}x")), json!(""), json!("feasible"), json!("solver")],
        Value::Array(items) => {
            let mut changed = Vec::new();
            for i in 0..items.len() {
                let mut fewer = items.clone();
                fewer.remove(i);
                let mut more = items.clone();
                more.push(items[i].clone());
                let mut turned = items.clone();
                turned.rotate_left(1);
                changed.extend([fewer, more, turned].map(Value::Array));
            }
            changed
        }
        Value::Object(_) | Value::Null | Value::Bool(_) => vec![Value::Null],
    }
}

/// Every plan that differs from this one in one place.
pub fn mutants(value: &Value, path: &str, rebuild: &dyn Fn(Value) -> Value, out: &mut Vec<(String, Value)>) {
    if !path.is_empty() {
        out.extend(others(value).into_iter().map(|other| (path.to_owned(), rebuild(other))));
    }
    match value {
        Value::Object(fields) => {
            for (key, field) in fields.iter().filter(|(key, _)| !FREE.contains(&key.as_str())) {
                let put = |new: Value| {
                    let mut fields = fields.clone();
                    fields.insert(key.clone(), new);
                    rebuild(Value::Object(fields))
                };
                let mut without = fields.clone();
                without.remove(key);
                out.push((format!("{path}.{key} removed"), rebuild(Value::Object(without))));
                mutants(field, &format!("{path}.{key}"), &put, out);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                let put = |new: Value| {
                    let mut items = items.clone();
                    items[i] = new;
                    rebuild(Value::Array(items))
                };
                mutants(item, &format!("{path}[{i}]"), &put, out);
            }
        }
        _ => {}
    }
}

/// Changes that leave the promise as it was: an optimal plan may call itself merely feasible, and the order of input
/// digests and of unused devices and of routes says nothing.
fn harmless(path: &str, before: &Plan, after: &Plan) -> bool {
    let sorted = |plan: &Plan| {
        let mut plan = plan.clone();
        plan.header.inputs.sort_unstable();
        plan.unused.sort_by(|a, b| a.device.cmp(&b.device));
        plan.routes.sort_by(|a, b| a.share.total_cmp(&b.share));
        plan.status = before.status;
        plan
    };
    path == ".status" && after.status.has_plan() || sorted(before) == sorted(after)
}

fn every_mutant_is_refused(plan: &Plan, problem: &PlacementProblem) -> usize {
    plan.clone().check(problem).expect("the plan itself is right");
    let value = serde_json::to_value(plan).expect("serialises");
    let mut changed = Vec::new();
    mutants(&value, "", &|v| v, &mut changed);
    let mut refused = 0;
    for (path, value) in changed {
        let Ok(mutant) = serde_json::from_value::<Plan>(value) else { continue };
        if harmless(&path, plan, &mutant) && path != ".status removed" {
            continue;
        }
        assert!(mutant.clone().check(problem).is_err(), "{path} was changed and nobody noticed: {mutant:#?}");
        refused += 1;
    }
    refused
}

#[test]
fn no_change_to_a_latency_plan_goes_unnoticed() {
    let problem = problem(two_devices(Objective::Tpot));
    let mut plan = chain(&problem, &[("fast", 0, 3), ("slow", 3, 4)]);
    let value = plan.objective_value.expect("evaluated");
    certify(&mut plan, value, Evidence::Enumeration);
    let refused = every_mutant_is_refused(&plan, &problem);
    assert!(refused > 150, "only {refused} mutants were readable");
}

#[test]
fn no_change_to_a_throughput_plan_goes_unnoticed() {
    let problem = problem(fork(Objective::Throughput));
    let mut plan = plan(&problem, &[("a", 0, 2), ("b", 2, 4), ("c", 2, 4)], &[(&[0, 1], 0.25), (&[0, 2], 0.75)]);
    certify(&mut plan, 0.75, Evidence::ClipBound);
    let refused = every_mutant_is_refused(&plan, &problem);
    assert!(refused > 200, "only {refused} mutants were readable");
}

#[test]
fn no_change_to_a_certificate_of_worths_goes_unnoticed() {
    let model = model(2);
    let mut flow = [device("a", &model, 1.0, 0), device("b", &model, 1.0, 0)];
    for device in &mut flow {
        let rate = isotherm_core::units::TokensPerSecond::of;
        device.profiles.clear();
        device.rates = vec![(1, rate(10.0)), (2, rate(4.0))];
    }
    let file = devices_file(flow.to_vec(), vec![flow_link("a", "b", 1e9)]);
    let problem = problem(parts(model, file, Objective::Throughput));
    let mut plan = chain(&problem, &[("a", 0, 1), ("b", 1, 2)]);
    // Many worths prove it; these changes leave them.
    let worths = BTreeMap::from([("a".to_owned(), 0.7), ("b".to_owned(), 0.7)]);
    certify(&mut plan, 10.0, Evidence::DeviceWorths { worths: worths.clone() });
    plan.clone().check(&problem).expect("proved");
    for (name, worth) in [("a", 0.6), ("b", 1.5), ("a", -0.5), ("b", f64::NAN), ("z", 0.5)] {
        let mut changed = worths.clone();
        changed.insert(name.into(), worth);
        certify(&mut plan, 10.0, Evidence::DeviceWorths { worths: changed });
        assert!(plan.clone().check(&problem).is_err(), "{name} = {worth}");
    }
}

#[test]
fn no_change_to_a_certificate_layer_by_layer_goes_unnoticed() {
    // Up to 6 on both layers, or 10 on one of them.
    let model = model(2);
    let mut flow = [device("a", &model, 1.0, 0), device("b", &model, 1.0, 0)];
    for device in &mut flow {
        let rate = isotherm_core::units::TokensPerSecond::of;
        device.profiles.clear();
        device.rates = vec![(1, rate(10.0)), (2, rate(3.0))];
    }
    let file = devices_file(flow.to_vec(), vec![flow_link("a", "b", 1e9)]);
    let mut problem = problem(parts(model, file, Objective::Throughput));
    let mut plan = chain(&problem, &[("a", 0, 1), ("b", 1, 2)]);
    let of = |a: f64, b: f64| BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
    let mut holds = |problem: &PlacementProblem, bound: f64, worths: BTreeMap<String, f64>| {
        plan.status = isotherm_core::plan::Status::Feasible;
        certify(&mut plan, bound, Evidence::LayerByLayer { worths });
        plan.clone().check(problem).is_ok()
    };
    assert!(holds(&problem, 10.0, of(1.0, 1.0)), "two devices are needed on each layer, of which one has no other");
    assert!(holds(&problem, 10.0, of(5.0, 1.5)), "all that they waste is looked at");
    assert!(holds(&problem, 12.0, of(0.7, 0.7)), "less than all layers are worth");
    assert!(!holds(&problem, 10.0, of(0.4, 0.4)), "two of them carry a layer for too little");
    assert!(!holds(&problem, 9.9, of(1.0, 1.0)), "the plan beats it");
    for (name, worth) in [("a", -1.0), ("b", f64::NAN), ("a", f64::INFINITY), ("b", 2048.0), ("z", 1.0)] {
        let mut changed = of(1.0, 1.0);
        changed.insert(name.into(), worth);
        assert!(!holds(&problem, 10.0, changed), "{name} = {worth}");
    }
    problem.limits.partial = true;
    assert!(!holds(&problem, 10.0, of(1.0, 1.0)), "of stages entered in the middle nothing is said");
    problem.limits.partial = false;
    // At a rate that both can hold a layer at, they do.
    certify(&mut plan, 9.0, Evidence::LayerByLayer { worths: of(1.0, 1.0) });
    let found = plan.check(&problem).expect_err("refused");
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(found.concat().contains("a from 0 to 1, b from 1 to 2 carry the bound on each layer"), "{found:?}");
}

/// Two sites of one device, each of which holds half of the model at 10; the way between them carries 6.
pub fn two_sites() -> (PlacementProblem, Plan) {
    let model = model(4);
    let mut flow = ["a", "b"].map(|name| device(name, &model, 1.0, 0)).to_vec();
    let rate = isotherm_core::units::TokensPerSecond::of;
    for device in &mut flow {
        device.profiles.clear();
        device.rates = vec![(1, rate(20.0)), (2, rate(10.0))];
    }
    let links = vec![flow_link("a", "b", 6.0), flow_link("b", "a", 6.0)];
    let problem = problem(parts(model, devices_file(flow, links), Objective::Throughput));
    let mut plan = chain(&problem, &[("a", 0, 2), ("b", 2, 4)]);
    let worths = BTreeMap::from([("a".to_owned(), 2.0), ("b".to_owned(), 2.0)]);
    let sites = vec![vec!["a".to_owned()], vec!["b".to_owned()]];
    certify(&mut plan, 6.0, Evidence::WeighedWorths { worths, ends: EndWeights::default(), sites });
    (problem, plan)
}

#[test]
fn no_change_to_a_certificate_of_sites_goes_unnoticed() {
    let (problem, mut plan) = two_sites();
    let of = |a: f64, b: f64| BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
    let apart = || vec![vec!["a".to_owned()], vec!["b".to_owned()]];
    let plain = EndWeights::default();
    let mut holds = |bound: f64, worths: BTreeMap<String, f64>, ends: EndWeights, sites: Vec<Vec<String>>| {
        plan.status = isotherm_core::plan::Status::Feasible;
        certify(&mut plan, bound, Evidence::WeighedWorths { worths, ends, sites });
        plan.clone().check(&problem).is_ok()
    };
    assert!(holds(6.0, of(2.0, 2.0), plain, apart()), "one device a layer, so all passes between the sites");
    assert!(!holds(6.0, of(1.9, 2.0), plain, apart()), "a layer of a pays too little");
    assert!(!holds(6.0, of(4.0, 2.0), plain, apart()), "a alone might hold everything");
    assert!(!holds(6.0, of(3.4, 3.4), plain, apart()), "two devices on a layer pay 2.4 more than one, of 2.8 too much");
    assert!(!holds(6.0, of(-2.0, 2.0), plain, apart()));
    assert!(!holds(5.9, of(2.0, 2.0), plain, apart()), "the plan beats it");
    assert!(!holds(6.0, of(2.0, 2.0), plain, Vec::new()), "without sites nothing is proved");
    assert!(!holds(6.0, of(2.0, 2.0), plain, vec![vec!["a".to_owned(), "b".to_owned()]]), "one site holds everything");
    assert!(!holds(6.0, of(2.0, 2.0), plain, vec![vec!["a".to_owned()]]), "b might be anywhere");
    let twice = vec![vec!["a".to_owned()], vec!["b".to_owned(), "a".to_owned()]];
    assert!(!holds(6.0, of(2.0, 2.0), plain, twice));
    assert!(!holds(6.0, of(2.0, 2.0), plain, vec![vec!["a".to_owned()], vec!["z".to_owned(), "b".to_owned()]]));
    for (first, last) in [(0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (f64::NAN, 0.0)] {
        assert!(!holds(6.0, of(2.0, 2.0), EndWeights { first, last }, apart()), "ends {first} and {last}");
    }
    assert!(holds(10.0, of(1.9, 1.9), plain, Vec::new()), "above 10 each holds one layer");
}

#[test]
fn no_change_to_a_certificate_of_weighed_layers_goes_unnoticed() {
    // Two devices, each with all four layers and a head that costs as much as two: 3 tokens take 6 s a layer, 36 s in all.
    let model = model(4);
    let mut flow = ["a", "b"].map(|name| device(name, &model, 1.0, 1 << 40)).to_vec();
    for device in &mut flow {
        device.profiles = vec![profile(&model, 1.0, 4.0, 0.0, 0.0)];
    }
    let mut parts = parts(model, devices_file(flow, Vec::new()), Objective::Throughput);
    // Enough that the requests in flight bind nothing: each device has a batch of its own, and another at hand.
    parts.serving.requests_max = 8;
    parts.limits.choices.batches = vec![1];
    let problem = problem(parts);
    let mut plan = plan(&problem, &[("a", 0, 4), ("b", 0, 4)], &[(&[0], 0.5), (&[1], 0.5)]);
    let value = plan.objective_value.expect("evaluated");
    let of = |a: f64, b: f64| BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
    let mut holds = |worths: BTreeMap<String, f64>, first: f64, last: f64| {
        let ends = EndWeights { first, last };
        certify(&mut plan, value, Evidence::WeighedWorths { worths, ends, sites: Vec::new() });
        plan.clone().check(&problem).is_ok()
    };
    // A device carries half a token per second and weight; two carry the 6 of all layers only up to the value.
    let enough = 3.0 * (1.0 - 1e-10);
    assert!(holds(of(enough, enough), 0.0, 2.0));
    assert!(!holds(of(enough, enough), 0.0, 1.9), "the layers weigh less than the devices are worth");
    assert!(!holds(of(enough, enough), 2.0, 0.0), "the head costs, not the embedding");
    assert!(!holds(of(enough, 1.9), 0.0, 2.0), "b carries two layers' weight for too little");
    assert!(!holds(of(3.1, 3.1), 0.0, 2.0));
}

#[test]
fn no_change_to_a_certificate_by_batch_goes_unnoticed() {
    let model = model(4);
    let mut flow = ["a", "b"].map(|name| device(name, &model, 1.0, 1 << 40)).to_vec();
    for device in &mut flow {
        device.profiles = vec![profile(&model, 1.0, 4.0, 0.0, 0.0)];
    }
    let mut parts = parts(model, devices_file(flow, Vec::new()), Objective::Throughput);
    parts.serving.requests_max = 8;
    parts.limits.choices.batches = vec![1, 2];
    let problem = problem(parts);
    let mut plan = plan(&problem, &[("a", 0, 4), ("b", 0, 4)], &[(&[0], 0.5), (&[1], 0.5)]);
    let value = plan.objective_value.expect("evaluated");
    let of = |batch: u32, evidence: Evidence| BatchEvidence { batch, evidence };
    let mut holds = |bound: f64, batches: Vec<BatchEvidence>| {
        certify(&mut plan, bound, Evidence::Batches { batches });
        plan.status = isotherm_core::plan::Status::Feasible;
        plan.clone().check(&problem).is_ok()
    };
    let clip = || Evidence::ClipBound;
    let bound = (0..40).map(|i| value * 1.1_f64.powi(i)).find(|&bound| {
        isotherm_core::check::open_batches(&problem, bound).len() == 2
            && holds(bound, vec![of(1, clip()), of(2, clip())])
    });
    let bound = bound.expect("some bound is proved while both batches are open");
    assert!(holds(bound, vec![of(2, clip()), of(1, clip())]), "in any order");
    assert!(!holds(bound, vec![of(1, clip())]), "nothing speaks for batches of 2");
    assert!(!holds(bound, vec![of(2, clip())]), "nothing speaks for batches of 1");
    assert!(!holds(bound, Vec::new()));
    assert!(!holds(bound, vec![of(1, clip()), of(2, clip()), of(2, clip())]), "named twice");
    assert!(!holds(bound, vec![of(1, clip()), of(2, clip()), of(3, clip())]), "no plan has batches of 3");
    assert!(!holds(bound, vec![of(1, clip()), of(2, Evidence::Enumeration)]), "that is for latencies");
    let nested = Evidence::Batches { batches: vec![of(2, clip())] };
    assert!(!holds(bound, vec![of(1, clip()), of(2, nested)]), "batches within a batch");
    let worths = BTreeMap::from([("a".to_owned(), 2.0), ("b".to_owned(), 2.0)]);
    assert!(!holds(bound, vec![of(1, clip()), of(2, Evidence::DeviceWorths { worths })]), "worth all layers");
    assert!(!holds(value * 0.9, vec![of(1, clip()), of(2, clip())]), "the plan beats it");
}
