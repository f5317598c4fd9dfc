//! Large problems of single-stream latency: an 80-layer model on up to hundreds of devices in four sites, all devices
//! and ways different, or of a few classes. The same for the same seed.

use isotherm_core::artefact::Header;
use isotherm_core::cost::{Curve, Grid, OperatorProfile};
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::figure::{Figure, How};
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile, Link, LinkKind};
use isotherm_core::model::Model;
use isotherm_core::problem::{Limits, Objective, PlacementProblem, ProblemParts};
use isotherm_core::units::{Bytes, BytesPerSecond, Celsius, Seconds};
use isotherm_core::workload::{Arrivals, Length, Serving, Workload};
use std::collections::BTreeMap;

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers everywhere.
struct Random(u64);

impl Random {
    fn real(&mut self, low: f64, high: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        low + (high - low) * (z >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How the ways between devices are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ways {
    /// Devices of a few classes; times depend on the sites alone.
    Classes,
    /// All devices different; ways short within a site and long between sites, each different in each direction.
    Sites,
    /// All devices different; ways of any time, without any structure.
    Any,
}

/// Milliseconds of a layer for one token and for 512 tokens, and layers held, of six cards: one large, two middling,
/// three small.
const CARDS: [(f64, f64, f64); 6] =
    [(0.4, 7.0, 12.0), (1.2, 18.0, 7.0), (1.2, 18.0, 7.0), (1.6, 35.0, 4.0), (1.6, 35.0, 4.0), (1.6, 35.0, 4.0)];
const SITES: usize = 4;
const LAYER_BYTES: u64 = 480_000_000;

/// The model: 80 equal layers.
fn model() -> Model {
    Model {
        name: "eighty".into(),
        architecture: "llama".into(),
        hidden: 8192,
        feed_forward: 28672,
        heads: 64,
        kv_heads: 8,
        head_size: 128,
        vocabulary: 32000,
        context_max: 8192,
        quantisation: "Q4_0".into(),
        layer_bytes: vec![Bytes(LAYER_BYTES); 80],
        embedding_bytes: Bytes(150_000_000),
        head_bytes: Bytes(150_000_000),
        tied: false,
        kv_element_bytes: 2,
        digest: None,
    }
}

fn profile(model: &Model, token: f64, chunk: f64, step: f64) -> OperatorProfile {
    let curve = |a: f64, b: f64| Curve::new(vec![(1, Seconds::of(a)), (512, Seconds::of(b))]).expect("rising");
    let grid = |slope: f64| {
        let times = [0.0, slope, 0.0, slope * 40.0].map(Seconds::of).to_vec();
        Grid::new(vec![1, 512], vec![0, 4096], times).expect("four values")
    };
    OperatorProfile {
        geometry: model.geometry(),
        arithmetic: "int8".into(),
        how: How::Declared,
        source: None,
        samples: None,
        spread: None,
        when: None,
        dense_seconds: curve(token, chunk),
        attention_prefill_seconds: grid(token / 8.0),
        attention_decode_seconds: grid(token / 8.0),
        head_seconds: Curve::constant(Seconds::of(token)),
        embedding_seconds: Curve::constant(Seconds::of(token / 20.0)),
        step_seconds: Seconds::of(step),
        iterations: None,
        experts: None,
        resident: None,
        conditions: None,
    }
}

fn link(from: &str, to: &str, latency: f64, bandwidth: f64) -> Link {
    Link {
        from: from.into(),
        to: to.into(),
        kind: LinkKind::Declared,
        latency_seconds: Some(Figure::declared(Seconds::of(latency), "drawn")),
        bandwidth_bytes_per_second: Some(Figure::declared(BytesPerSecond::of(bandwidth), "drawn")),
        tokens_per_second: None,
        groups: Vec::new(),
    }
}

/// A problem of so many devices.
pub fn problem(seed: u64, count: usize, ways: Ways, objective: Objective) -> PlacementProblem {
    let random = &mut Random(seed.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(count as u64));
    let model = model();
    let mut devices: Vec<Device> = Vec::new();
    for i in 0..count {
        let (token, chunk, held) = CARDS[i % CARDS.len()];
        // Factors of speed for one token and for many, of memory, and milliseconds of a step.
        let [a, b, c, d] =
            [random.real(0.8, 1.25), random.real(0.8, 1.25), random.real(0.7, 1.4), random.real(0.05, 0.3)];
        let [a, b, c, d] = if ways == Ways::Classes { [1.0, 1.0, 1.0, 0.1] } else { [a, b, c, d] };
        let mut device = Device::named(format!("d{i}"), "host", DeviceKind::Gpu);
        device.profiles = vec![profile(&model, token * a * 1e-3, chunk * b * 1e-3, d * 1e-3)];
        let memory = ((held * c).round() as u64) * (LAYER_BYTES + 20_000_000) + 500_000_000;
        device.memory_bytes = Some(Figure::declared(Bytes(memory), "drawn"));
        devices.push(device);
    }
    let between: Vec<f64> = (0..SITES * SITES).map(|_| random.real(5.0, 40.0)).collect();
    let mut links = Vec::new();
    for (i, from) in devices.iter().enumerate() {
        for (j, to) in devices.iter().enumerate().filter(|(j, _)| *j != i) {
            let (x, y) = (i / CARDS.len() % SITES, j / CARDS.len() % SITES);
            let [near, far, any, rate] =
                [random.real(0.1, 1.0), random.real(0.8, 1.3), random.real(0.05, 1.0), random.real(0.2, 10.0)];
            let (milliseconds, gigabytes) = match ways {
                Ways::Classes => (if x == y { 0.3 } else { between[x * SITES + y] }, 1.25),
                Ways::Sites => (if x == y { near } else { between[x * SITES + y] * far }, rate),
                Ways::Any => (any * any * any * 30.0, rate),
            };
            links.push(link(&from.name, &to.name, milliseconds * 1e-3, gigabytes * 1e9));
        }
    }
    for (i, device) in devices.iter().enumerate() {
        let [a, b] = [random.real(0.1, 5.0), random.real(0.1, 5.0)];
        let site = 1.0 + (i / CARDS.len() % SITES) as f64;
        let [a, b] = if ways == Ways::Classes { [site, site] } else { [a, b] };
        links.push(link("desk", &device.name, a * 1e-3, 1e9));
        links.push(link(&device.name, "desk", b * 1e-3, 1e9));
    }
    let file = DevicesFile {
        header: Header::new(DEVICES_SCHEMA, Vec::new()),
        host: BTreeMap::new(),
        devices,
        junctions: vec!["desk".into()],
        links,
        groups: Vec::new(),
        co_run: Vec::new(),
        coordinator: Some("desk".into()),
    };
    PlacementProblem::new(ProblemParts {
        name: format!("mesh {seed} of {count}"),
        model,
        graph: DeviceGraph::new(file).expect("a well-formed graph"),
        workload: Workload {
            arrivals: Arrivals::ClosedLoop { clients: 1 },
            prompt_tokens: Length::fixed(2000),
            output_tokens: Length::fixed(200),
            requests: 1,
        },
        serving: Serving { requests_max: 1, step_tokens_max: 512, kv_block_tokens: 16, ..Serving::default() },
        objective,
        limits: Limits::default(),
        ambient: Celsius::of(25.0),
        inputs: Vec::new(),
    })
    .expect("a well-formed problem")
}
