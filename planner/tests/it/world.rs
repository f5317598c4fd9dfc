//! Small random problems: a few devices, a few layers, links some of which are missing, memory that is tight.

use isotherm_core::artefact::Header;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::cost::{Curve, Grid, OperatorProfile, Resident};
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::figure::{Figure, How};
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile, Link, LinkKind, SharedCapacity};
use isotherm_core::model::Model;
use isotherm_core::offload::{Offload, Store};
use isotherm_core::problem::{Limits, Objective, PlacementProblem, ProblemParts};
use isotherm_core::units::{Bytes, BytesPerSecond, Celsius, Seconds};
use isotherm_core::workload::{Arrivals, Length, Serving, Workload};
use isotherm_planner::Outcome;
use std::collections::BTreeMap;

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers everywhere.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A whole number of `low..=high`.
    pub fn whole(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// Whether an event of this chance, in percent, happens.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.whole(1, 100) <= percent
    }

    /// A number of `low..high`.
    pub fn real(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A link between two places.
pub fn link(from: &str, to: &str, latency: f64, bandwidth: f64, groups: &[&str]) -> Link {
    Link {
        from: from.into(),
        to: to.into(),
        kind: LinkKind::Declared,
        latency_seconds: Some(Figure::declared(Seconds::of(latency), "test")),
        bandwidth_bytes_per_second: Some(Figure::declared(BytesPerSecond::of(bandwidth), "test")),
        tokens_per_second: None,
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
    }
}

/// A model of small numbers.
pub fn model(layers: usize, layer_bytes: impl FnMut(usize) -> u64) -> Model {
    Model {
        name: "tiny".into(),
        architecture: "llama".into(),
        hidden: 64,
        feed_forward: 128,
        heads: 4,
        kv_heads: 2,
        head_size: 16,
        vocabulary: 100,
        context_max: 4096,
        quantisation: "F16".into(),
        layer_bytes: (0..layers).map(layer_bytes).map(Bytes).collect(),
        embedding_bytes: Bytes(3000),
        head_bytes: Bytes(4000),
        tied: false,
        kv_element_bytes: 2,
        digest: None,
    }
}

/// Operator times: per layer and token `dense`, per chunk token and cached token `attention`, per sequence `head`.
pub fn profile(model: &Model, dense: f64, attention: f64, head: f64, step: f64) -> OperatorProfile {
    let line = |slope: f64| {
        Curve::new(vec![(1, Seconds::of(slope)), (2, Seconds::of(1.7 * slope)), (8, Seconds::of(5.0 * slope))])
            .expect("rising")
    };
    let (rows, columns) = (vec![1, 4], vec![0, 64]);
    let grid = || {
        let times = [1.0, 3.0, 2.0, 9.0].map(|t| Seconds::of(t * attention)).to_vec();
        Grid::new(rows.clone(), columns.clone(), times).expect("four values")
    };
    OperatorProfile {
        geometry: model.geometry(),
        arithmetic: "f32".into(),
        how: How::Measured,
        source: None,
        samples: None,
        spread: None,
        when: None,
        dense_seconds: line(dense),
        attention_prefill_seconds: grid(),
        attention_decode_seconds: grid(),
        head_seconds: line(head),
        embedding_seconds: Curve::constant(Seconds::of(head / 3.0)),
        step_seconds: Seconds::of(step),
        iterations: None,
        experts: None,
        resident: None,
        conditions: None,
    }
}

/// Lets the caches of some devices keep some of the weights of small stages; equal devices stay equal.
fn keep_layers(random: &mut Random, layers: usize, devices: &mut [Device]) {
    let mut kept: Vec<(OperatorProfile, Option<Resident>)> = Vec::new();
    for profile in devices.iter_mut().flat_map(|device| &mut device.profiles) {
        let known = kept.iter().find(|(before, _)| before == profile).map(|(_, resident)| resident.clone());
        let resident = known.unwrap_or_else(|| {
            let few = random.real(0.3, 1.0);
            let shares = vec![few, 1.0, random.real(few, 1.0), 1.0, 1.0, 1.0];
            let all = layers as f64 + random.real(0.0, 1.5);
            let knots = vec![1.0, 1.0 + 0.5 * (all - 1.0), all];
            let table = Resident::new(all - layers as f64, knots, vec![1, 6], shares).expect("shares that rise");
            random.chance(70).then_some(table)
        });
        kept.push((profile.clone(), resident.clone()));
        profile.resident = resident;
    }
}

/// What a random problem may contain.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    pub objective: Objective,
    pub devices_max: u64,
    pub layers_max: u64,
    pub shared: bool,
    pub partial: bool,
}

/// A random problem; the same for the same seed.
pub fn problem(seed: u64, recipe: Recipe) -> PlacementProblem {
    let random = &mut Random(seed.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(7));
    let layers = random.whole(2, recipe.layers_max) as usize;
    let uneven = random.chance(50);
    let bytes: Vec<u64> = (0..layers).map(|_| if uneven { random.whole(500, 3000) } else { 1500 }).collect();
    let mut model = model(layers, |i| bytes[i]);
    model.tied = random.chance(30);
    let count = random.whole(2, recipe.devices_max) as usize;
    let twins = random.chance(35);
    let mut devices: Vec<Device> = Vec::new();
    for i in 0..count {
        let mut device = Device::named(format!("d{i}"), "host", DeviceKind::Gpu);
        if twins && i % 2 == 1 {
            device = Device { name: format!("d{i}"), ..devices[i - 1].clone() };
        } else {
            let dense = random.real(1e-3, 5e-3);
            let parts = [random.real(0.0, 1e-3), random.real(0.0, 4e-3), random.real(0.0, 2e-3)];
            device.profiles = vec![profile(&model, dense, parts[0], parts[1], parts[2])];
            let whole: u64 = bytes.iter().sum::<u64>() + 7000 + 40_000;
            let memory = if random.chance(30) { whole * 3 } else { random.whole(whole / 12, whole) };
            device.memory_bytes = Some(Figure::declared(Bytes(memory), "test"));
            if random.chance(4) {
                device.memory_bytes = None;
            }
        }
        devices.push(device);
    }
    if random.chance(25) {
        for device in devices.iter_mut().take(2) {
            device.memory_pool = Some("pool".into());
        }
    }
    if seed.is_multiple_of(3) {
        keep_layers(&mut Random(seed), layers, &mut devices);
    }
    let coordinator = random.chance(50);
    let mut links = Vec::new();
    let mut junctions = Vec::new();
    let place = |i: usize| format!("d{i}");
    let uniform = random.chance(30);
    for i in 0..count {
        for j in (0..count).filter(|&j| j != i) {
            if random.chance(15) && !uniform {
                continue;
            }
            let groups: &[&str] = if recipe.shared && random.chance(40) { &["trunk"] } else { &[] };
            let (latency, bandwidth) =
                if uniform { (1e-4, 1e6) } else { (random.real(0.0, 4e-3), random.real(3e4, 2e6)) };
            links.push(link(&place(i), &place(j), latency, bandwidth, groups));
        }
    }
    if coordinator {
        junctions.push("hub".to_owned());
        for i in 0..count {
            if random.chance(90) {
                links.push(link("hub", &place(i), random.real(0.0, 3e-3), 1e6, &[]));
            }
            if random.chance(90) {
                links.push(link(&place(i), "hub", random.real(0.0, 3e-3), 1e6, &[]));
            }
        }
    }
    let groups = vec![SharedCapacity {
        name: "trunk".into(),
        bandwidth_bytes_per_second: Figure::declared(BytesPerSecond::of(random.real(3e4, 5e5)), "test"),
    }];
    let mut limits = Limits { reserve_bytes: Bytes(100), partial: recipe.partial, ..Limits::default() };
    if random.chance(15) {
        limits.pinned.push(place(random.whole(0, count as u64 - 1) as usize));
    }
    if random.chance(15) {
        limits.banned.push(place(random.whole(0, count as u64 - 1) as usize));
    }
    match random.whole(1, 8) {
        1 => limits.stages_max = Some(random.whole(1, 3) as u32),
        2 => limits.stages_exact = Some(random.whole(1, 3) as u32),
        _ => {}
    }
    let file = DevicesFile {
        header: Header::new(DEVICES_SCHEMA, Vec::new()),
        host: BTreeMap::new(),
        devices,
        junctions,
        links,
        groups,
        co_run: Vec::new(),
        coordinator: coordinator.then(|| "hub".to_owned()),
    };
    let prompt = random.whole(1, 12) as u32;
    PlacementProblem::new(ProblemParts {
        name: format!("random {seed}"),
        model,
        graph: DeviceGraph::new(file).expect("a well-formed graph"),
        workload: Workload {
            arrivals: Arrivals::ClosedLoop { clients: 1 },
            prompt_tokens: Length::fixed(prompt),
            output_tokens: Length { min: 1, max: random.whole(1, 20) as u32 },
            requests: 1,
        },
        serving: Serving {
            requests_max: random.whole(1, 3) as u32,
            step_tokens_max: 4,
            kv_block_tokens: 4,
            ..Serving::default()
        },
        objective: recipe.objective,
        limits,
        ambient: Celsius::of(25.0),
        inputs: Vec::new(),
    })
    .expect("a well-formed problem")
}

/// The same problem where most devices may bring layers from elsewhere, in about the time that one takes.
pub fn with_offload(seed: u64, mut problem: PlacementProblem) -> PlacementProblem {
    let random = &mut Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(3));
    let mut file = problem.graph.file().clone();
    for i in 0..file.devices.len() {
        let twin = i > 0 && file.devices[i].profiles == file.devices[i - 1].profiles;
        let offload = random.chance(80).then(|| Offload {
            store: if random.chance(50) { Store::HostMemory } else { Store::Disk },
            beside: random.chance(75),
            bandwidth_bytes_per_second: Figure::declared(BytesPerSecond::of(random.real(2e5, 2e6)), "test"),
            room_bytes: random.chance(30).then(|| Figure::declared(Bytes(random.whole(2000, 9000)), "test")),
        });
        // Memory for some layers and the buffers, so that most of what is held is weights.
        let memory = random.chance(70).then(|| Figure::declared(Bytes(random.whole(12_000, 32_000)), "test"));
        let (before, device) = (i.checked_sub(1).map(|i| file.devices[i].clone()), &mut file.devices[i]);
        device.memory_bytes = memory.or(device.memory_bytes.take());
        device.offload = offload;
        if let Some(before) = before.filter(|_| twin) {
            (device.memory_bytes, device.offload) = (before.memory_bytes, before.offload);
        }
    }
    problem.serving.kv_blocks = Some(1);
    problem.graph = DeviceGraph::new(file).expect("as it was");
    problem.limits.choices.offload = true;
    problem
}

/// The plan of an outcome that leaves no gap, whoever vouches for its bound.
pub fn closed(outcome: &Outcome) -> Option<&FeasiblePlan> {
    match outcome {
        Outcome::Optimal(plan) => Some(plan),
        Outcome::Feasible { plan, gap, .. } if *gap <= 1e-6 => Some(plan),
        _ => None,
    }
}

/// Whether the checker in Python accepts each case, one to a line, in order; none, said aloud, where it cannot be run.
pub fn second_opinion(test: &str, cases: &str) -> Option<Vec<bool>> {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers/check_plan.py");
    let file = std::env::temp_dir().join(format!("isotherm-{test}-{}.jsonl", std::process::id()));
    std::fs::write(&file, cases).expect("a temporary file");
    let output = std::process::Command::new("python3").arg("-B").arg(script).arg("--batch").arg(&file).output();
    std::fs::remove_file(&file).expect("written above");
    let Ok(output) = output else {
        eprintln!("skipped: there is no python3 to run the second checker with");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let ok = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["ok"] == true;
    Some(text.lines().map(ok).collect())
}
