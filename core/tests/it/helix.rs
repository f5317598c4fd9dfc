//! Real instances: the throughput tables and arc capacities of Helix's own programs.

use crate::build::*;
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::plan::{Evidence, Status};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::units::TokensPerSecond;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The folder of shared data, or none with the reason printed.
pub fn shared(test: &str) -> Option<PathBuf> {
    let named = std::env::var_os("ISOTHERM_SHARED").map(PathBuf::from);
    let found =
        named.into_iter().chain(Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared")));
    let folder = found.map(|f| f.join("data/helix")).find(|f| f.is_dir());
    if folder.is_none() {
        eprintln!("skipped: {test}: no shared data beside the checkout (set ISOTHERM_SHARED)");
    }
    folder
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("readable")).expect("JSON")
}

pub fn instance(folder: &Path, name: &str) -> PlacementProblem {
    let parsed = read(&folder.join("instances/parsed.json"));
    let instance = &parsed[name];
    let devices = instance["nodes"].as_object().expect("nodes").iter().map(|(node, table)| {
        let mut device = Device::named(node.as_str(), "host", DeviceKind::Gpu);
        let rates = table.as_object().expect("a table").iter();
        device.rates = rates
            .map(|(k, rate)| (k.parse().expect("layers"), TokensPerSecond::of(rate.as_f64().expect("a rate"))))
            .collect();
        device
    });
    let links = instance["links"].as_array().expect("links").iter().map(|link| {
        let place = |i: usize| link[i].as_str().expect("a place").to_owned();
        flow_link(&place(0), &place(1), link[2].as_f64().expect("a capacity"))
    });
    let mut file = devices_file(devices.collect(), links.collect());
    file.junctions = vec!["source".into(), "sink".into()];
    let layers = usize::try_from(instance["layers"].as_u64().expect("layers")).expect("few");
    problem(parts(model(layers), file, Objective::Throughput))
}

#[test]
fn the_known_optimum_of_single24_is_certified_without_a_solver() {
    let Some(folder) = shared("the_known_optimum_of_single24_is_certified_without_a_solver") else { return };
    let problem = instance(&folder, "single24");
    let solution = read(&folder.join("solutions/single24.ours_2045.64.json"));
    let mut stages: Vec<(String, u32, u32)> = solution
        .as_object()
        .expect("stages")
        .iter()
        .map(|(node, layers)| {
            let at = |i: usize| u32::try_from(layers[i].as_u64().expect("a layer")).expect("few");
            (node.clone(), at(0), at(1))
        })
        .collect();
    stages.sort_by_key(|s| s.1);
    let stages: Vec<(&str, u32, u32)> = stages.iter().map(|(n, a, b)| (n.as_str(), *a, *b)).collect();
    let mut plan = chain(&problem, &stages);
    let value = plan.objective_value.expect("evaluated");
    assert!((value - 2_045.641_047_336_262).abs() < 1e-9, "{value}");
    certify(&mut plan, value, Evidence::ClipBound);
    assert_eq!(plan.status, Status::Optimal);
    plan.clone().check(&problem).expect("the clip bound equals the chain");

    // By worths: an A100 carries 8 layers, an L4 3, a T4 2. That pays for every cover but is worth all 80 layers; with
    // a little less for the A100, which with 8 layers cannot go above the bound, it is a proof.
    let worths: BTreeMap<String, f64> = stages.iter().map(|&(n, a, b)| (n.to_owned(), f64::from(b - a))).collect();
    let less = worths.iter().map(|(n, &u)| (n.clone(), if u == 8.0 { 7.9 } else { u })).collect();
    certify(&mut plan, value, Evidence::DeviceWorths { worths: less });
    plan.clone().check(&problem).expect("every cover pays at least 1 and the devices are worth 79.6 layers");
    certify(&mut plan, value, Evidence::DeviceWorths { worths });
    let refused = refusal(&plan, &problem);
    assert!(refused.contains("worth 80 layers"), "{refused}");
    assert!(!refused.contains("at a price"), "every cover pays at least 1: {refused}");

    certify(&mut plan, value * 0.999, Evidence::ClipBound);
    assert!(refusal(&plan, &problem).contains("is better than its bound"));
}

#[test]
fn the_four_card_optimum_is_certified_without_a_solver() {
    let Some(folder) = shared("the_four_card_optimum_is_certified_without_a_solver") else { return };
    let problem = instance(&folder, "l30b_a100");
    let mut plan = chain(&problem, &[("0", 0, 15), ("1", 15, 30), ("2", 30, 45), ("3", 45, 60)]);
    let value = plan.objective_value.expect("evaluated");
    assert!((value - 1044.533).abs() < 1e-3, "{value}");
    certify(&mut plan, value, Evidence::ClipBound);
    plan.check(&problem).expect("four times 15 layers are all 60");
}

#[test]
fn worths_prove_the_optimum_of_quality10_where_the_clip_bound_is_loose() {
    let Some(folder) = shared("worths_prove_the_optimum_of_quality10_where_the_clip_bound_is_loose") else { return };
    let problem = instance(&folder, "quality10");
    let names: Vec<String> = problem.graph.devices().iter().map(|d| d.name.clone()).collect();
    let stages: Vec<(&str, u32, u32)> = (0..).step_by(6).zip(&names).map(|(a, n)| (n.as_str(), a, a + 6)).collect();
    let mut plan = chain(&problem, &stages);
    let value = plan.objective_value.expect("evaluated");
    assert!((value - 286.587).abs() < 1e-3, "{value}");
    certify(&mut plan, value, Evidence::ClipBound);
    assert!(refusal(&plan, &problem).contains("not proved impossible"));
    // The four devices whose six layers are the bottleneck cannot go above it with more than five layers, or only
    // with help; so they are worth 5.5 layers, the others 6: 58 of 60.
    let worth = |name: &String| {
        let device = problem.graph.device(problem.graph.find(name).expect("known"));
        if device.rates.iter().any(|r| r.0 == 11) { 5.5 } else { 6.0 }
    };
    let worths = names.iter().map(|name| (name.clone(), worth(name))).collect();
    certify(&mut plan, value, Evidence::DeviceWorths { worths });
    assert_eq!(plan.status, Status::Optimal);
    plan.check(&problem).expect("proved optimal without a solver");
}
