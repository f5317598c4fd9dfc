//! Flow problems of Helix (ASPLOS 2025), read from shared data: rates by number of layers, capacities of links.

use isotherm_core::artefact::Header;
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile, Link, LinkKind};
use isotherm_core::objective::{SINK, SOURCE};
use isotherm_core::problem::{Limits, Objective, PlacementProblem, ProblemParts};
use isotherm_core::units::{Celsius, TokensPerSecond};
use isotherm_core::workload::{Arrivals, Length, Serving, Workload};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::world::model;

/// The folder of shared data; none where it is absent.
pub fn shared() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("ISOTHERM_SHARED") {
        return Some(PathBuf::from(folder));
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().map(|folder| folder.join("shared")).find(|folder| folder.join("data").is_dir())
}

/// The instances of the shared data, or a word about their absence.
pub fn instances(test: &str) -> Option<Value> {
    let path = shared().map(|folder| folder.join("data/helix/instances/parsed.json"));
    let text = path.and_then(|path| std::fs::read_to_string(path).ok());
    if text.is_none() {
        eprintln!("skipped: {test}: the shared data folder is absent");
    }
    text.map(|text| serde_json::from_str(&text).expect("the instances are JSON"))
}

/// One instance as a problem.
pub fn problem(name: &str, instance: &Value, partial: bool) -> PlacementProblem {
    let number = |value: &Value| value.as_f64().expect("a number");
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    let layers = instance["layers"].as_u64().expect("a count") as usize;
    let place = |name: &str| if name == SOURCE || name == SINK { name.to_owned() } else { format!("n{name:0>2}") };
    let mut rates: BTreeMap<String, Vec<(u32, TokensPerSecond)>> = BTreeMap::new();
    for (node, table) in instance["nodes"].as_object().expect("nodes") {
        let table = table.as_object().expect("a table");
        let mut rows: Vec<_> =
            table.iter().map(|(k, t)| (k.parse().expect("a count"), TokensPerSecond::of(number(t)))).collect();
        rows.sort_by_key(|row: &(u32, TokensPerSecond)| row.0);
        rates.insert(place(node), rows);
    }
    let links = instance["links"].as_array().expect("links").iter().map(|link| Link {
        from: place(&text(&link[0])),
        to: place(&text(&link[1])),
        kind: LinkKind::Declared,
        latency_seconds: None,
        bandwidth_bytes_per_second: None,
        tokens_per_second: Some(TokensPerSecond::of(number(&link[2]))),
        groups: Vec::new(),
    });
    flow_problem(name, layers, rates, links.collect(), partial)
}

/// A flow problem.
pub fn flow_problem(
    name: &str,
    layers: usize,
    rates: BTreeMap<String, Vec<(u32, TokensPerSecond)>>,
    links: Vec<Link>,
    partial: bool,
) -> PlacementProblem {
    let devices = rates
        .into_iter()
        .map(|(name, rates)| Device { rates, ..Device::named(name, "cluster", DeviceKind::Gpu) })
        .collect();
    let file = DevicesFile {
        header: Header::new(DEVICES_SCHEMA, Vec::new()),
        host: BTreeMap::new(),
        devices,
        junctions: vec![SOURCE.to_owned(), SINK.to_owned()],
        links,
        groups: Vec::new(),
        co_run: Vec::new(),
        coordinator: None,
    };
    PlacementProblem::new(ProblemParts {
        name: name.to_owned(),
        model: model(layers, |_| 1),
        graph: DeviceGraph::new(file).expect("a well-formed graph"),
        workload: Workload {
            arrivals: Arrivals::ClosedLoop { clients: 1 },
            prompt_tokens: Length::fixed(1),
            output_tokens: Length::fixed(1),
            requests: 1,
        },
        serving: Serving::default(),
        objective: Objective::Throughput,
        limits: Limits { partial, ..Limits::default() },
        ambient: Celsius::of(25.0),
        inputs: Vec::new(),
    })
    .expect("a well-formed problem")
}
