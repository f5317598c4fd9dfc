//! How long planning takes, proof included: the published flow instances where their data is at hand, and a generated pile
//! of 24 devices of three kinds for each objective.
//!
//! Run with `cargo bench --profile dev -p isotherm-benches --bench planner`. The instances are read from the shared data
//! folder (`ISOTHERM_SHARED`, or `shared/` beside the checkout) and left out with a word where it is absent.

use criterion::{Criterion, criterion_group, criterion_main};
use isotherm_core::artefact::Header;
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile, Link, LinkKind};
use isotherm_core::model::Model;
use isotherm_core::problem::{Limits, Objective, PlacementProblem, ProblemParts};
use isotherm_core::units::{Bytes, BytesPerSecond, Celsius, FlopsPerSecond, Seconds, TokensPerSecond};
use isotherm_core::workload::{Arrivals, Length, Serving, Workload};
use isotherm_planner::{Budget, plan};
use serde_json::Value;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};

fn shared() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("ISOTHERM_SHARED") {
        return Some(PathBuf::from(folder));
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().map(|folder| folder.join("shared")).find(|folder| folder.join("data").is_dir())
}

fn model(layers: usize, hidden: u32) -> Model {
    let (wide, narrow) = (u64::from(hidden), 1024);
    let weights = 2 * wide * wide + 2 * wide * narrow + 3 * wide * wide * 7 / 2;
    Model {
        name: format!("dense-{layers}"),
        architecture: "llama".into(),
        hidden,
        feed_forward: hidden * 7 / 2,
        heads: hidden / 128,
        kv_heads: 8,
        head_size: 128,
        vocabulary: 32_000,
        context_max: 4096,
        quantisation: "F16".into(),
        layer_bytes: vec![Bytes(2 * weights); layers],
        embedding_bytes: Bytes(64_000 * wide),
        head_bytes: Bytes(64_000 * wide),
        tied: false,
        kv_element_bytes: 2,
        digest: None,
    }
}

fn problem(model: Model, devices: Vec<Device>, links: Vec<Link>, objective: Objective) -> PlacementProblem {
    let junctions = ["switch", "source", "sink"].map(str::to_owned).to_vec();
    let file = DevicesFile {
        header: Header::new(DEVICES_SCHEMA, Vec::new()),
        host: BTreeMap::new(),
        devices,
        junctions,
        links,
        groups: Vec::new(),
        co_run: Vec::new(),
        coordinator: None,
    };
    PlacementProblem::new(ProblemParts {
        name: "bench".into(),
        model,
        graph: DeviceGraph::new(file).expect("a well-formed graph"),
        workload: Workload {
            arrivals: Arrivals::ClosedLoop { clients: 8 },
            prompt_tokens: Length::fixed(512),
            output_tokens: Length::fixed(256),
            requests: 100,
        },
        serving: Serving { requests_max: 8, step_tokens_max: 512, kv_block_tokens: 16, ..Serving::default() },
        objective,
        limits: Limits::default(),
        ambient: Celsius::of(25.0),
        inputs: Vec::new(),
    })
    .expect("a well-formed problem")
}

/// A published flow instance.
fn instance(value: &Value) -> PlacementProblem {
    let layers = value["layers"].as_u64().expect("a count") as usize;
    let devices = value["nodes"].as_object().expect("nodes").iter().map(|(node, table)| {
        let rate =
            |(k, t): (&String, &Value)| (k.parse().expect("a count"), TokensPerSecond::of(t.as_f64().expect("a rate")));
        let rates = table.as_object().expect("a table").iter().map(rate).collect();
        Device { rates, ..Device::named(node, "cluster", DeviceKind::Gpu) }
    });
    let links = value["links"].as_array().expect("links").iter().map(|link| Link {
        from: link[0].as_str().expect("a name").into(),
        to: link[1].as_str().expect("a name").into(),
        kind: LinkKind::Declared,
        latency_seconds: None,
        bandwidth_bytes_per_second: None,
        tokens_per_second: Some(TokensPerSecond::of(link[2].as_f64().expect("a rate"))),
        groups: Vec::new(),
    });
    problem(model(layers, 128), devices.collect(), links.collect(), Objective::Throughput)
}

/// Four large, eight middling and twelve small devices on one switch, and an 80-layer model that needs most of them.
fn pile(objective: Objective) -> PlacementProblem {
    let kinds =
        [("large", 4, 40.0, 1555.0, 312.0), ("middling", 8, 24.0, 300.0, 121.0), ("small", 12, 16.0, 320.0, 65.0)];
    let (mut devices, mut links) = (Vec::new(), Vec::new());
    for (name, count, memory, bandwidth, compute) in kinds {
        for i in 0..count {
            let device = Device {
                memory_bytes: Some(Figure::declared(Bytes((memory * 1.073_741_824e9) as u64), "bench")),
                memory_bandwidth_bytes_per_second: Some(Figure::declared(BytesPerSecond::of(bandwidth * 1e9), "bench")),
                compute_flops_per_second: Some(Figure::declared(FlopsPerSecond::of(compute * 1e12), "bench")),
                ..Device::named(format!("{name}-{i}"), format!("host-{name}-{i}"), DeviceKind::Gpu)
            };
            for (from, to) in [(device.name.as_str(), "switch"), ("switch", device.name.as_str())] {
                links.push(Link {
                    from: from.into(),
                    to: to.into(),
                    kind: LinkKind::Socket,
                    latency_seconds: Some(Figure::declared(Seconds::of(3e-5), "bench")),
                    bandwidth_bytes_per_second: Some(Figure::declared(BytesPerSecond::of(1.25e9), "bench")),
                    tokens_per_second: None,
                    groups: Vec::new(),
                });
            }
            devices.push(device);
        }
    }
    problem(model(80, 8192), devices, links, objective)
}

fn published(criterion: &mut Criterion) {
    let path = shared().map(|folder| folder.join("data/helix/instances/parsed.json"));
    let Some(text) = path.and_then(|path| std::fs::read_to_string(path).ok()) else {
        eprintln!("skipped: published instances: the shared data folder is absent");
        return;
    };
    let all: Value = serde_json::from_str(&text).expect("the instances are JSON");
    let mut group = criterion.benchmark_group("published");
    for name in ["single24", "quality10", "l30b_a100"] {
        let problem = instance(&all[name]);
        group.bench_function(name, |bencher| {
            bencher.iter(|| plan(black_box(&problem), &Budget::default()).expect("plans"));
        });
    }
}

fn generated(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pile24");
    group.sample_size(10);
    for objective in [Objective::Tpot, Objective::Ttft, Objective::Throughput] {
        let problem = pile(objective);
        group.bench_function(objective.name(), |bencher| {
            bencher.iter(|| plan(black_box(&problem), &Budget::default()).expect("plans"));
        });
    }
}

criterion_group!(benches, published, generated);
criterion_main!(benches);
