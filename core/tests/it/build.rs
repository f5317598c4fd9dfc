//! Small problems and plans, written out.

use isotherm_core::artefact::Header;
use isotherm_core::cost::{Curve, Grid, OperatorProfile};
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::digest::Digest;
use isotherm_core::figure::{Figure, How};
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile, Link, LinkKind};
use isotherm_core::ids::Layers;
use isotherm_core::model::Model;
use isotherm_core::objective::evaluate;
use isotherm_core::plan::{
    BoundKind, Certificate, Evidence, PLAN_SCHEMA, Plan, Provenance, Route, Stage, Status, Stop, Unused,
};
use isotherm_core::problem::{Division, Limits, Objective, Parallel, PlacementProblem, ProblemParts, StageBytes};
use isotherm_core::units::{Bytes, BytesPerSecond, Celsius, Seconds, TokensPerSecond};
use isotherm_core::workload::{Arrivals, Length, Serving, Workload};
use std::collections::BTreeMap;

/// A model of equal layers of 1000 bytes; embedding and head take 100 bytes each.
pub fn model(layers: usize) -> Model {
    Model {
        name: "toy".into(),
        architecture: "llama".into(),
        hidden: 8,
        feed_forward: 16,
        heads: 2,
        kv_heads: 1,
        head_size: 4,
        vocabulary: 32,
        context_max: 1024,
        quantisation: "F32".into(),
        layer_bytes: vec![Bytes(1000); layers],
        embedding_bytes: Bytes(100),
        head_bytes: Bytes(100),
        tied: false,
        kv_element_bytes: 4,
        digest: None,
    }
}

/// A profile in which a layer takes `dense` seconds per token, attention nothing, the head `head` seconds and the
/// embedding `embedding` seconds per step.
pub fn profile(model: &Model, dense: f64, head: f64, embedding: f64, step: f64) -> OperatorProfile {
    let zero = || Grid::new(vec![1], vec![0], vec![Seconds::ZERO]).expect("one knot");
    OperatorProfile {
        geometry: model.geometry(),
        arithmetic: "f32".into(),
        how: How::Measured,
        source: Some("test".into()),
        samples: Some(1),
        spread: Some(0.0),
        when: None,
        dense_seconds: Curve::new(vec![(1, Seconds::of(dense)), (2, Seconds::of(2.0 * dense))]).expect("rising"),
        attention_prefill_seconds: zero(),
        attention_decode_seconds: zero(),
        head_seconds: Curve::constant(Seconds::of(head)),
        embedding_seconds: Curve::constant(Seconds::of(embedding)),
        step_seconds: Seconds::of(step),
        iterations: None,
        experts: None,
        resident: None,
        conditions: None,
    }
}

/// A device of this speed and memory.
pub fn device(name: &str, model: &Model, dense: f64, memory: u64) -> Device {
    let mut device = Device::named(name, "host", DeviceKind::Gpu);
    device.memory_bytes = Some(Figure::declared(Bytes(memory), "test"));
    device.profiles = vec![profile(model, dense, 0.25, 0.125, 0.0625)];
    device
}

/// A link of one direction.
pub fn link(from: &str, to: &str, latency: f64, bandwidth: f64) -> Link {
    Link {
        from: from.into(),
        to: to.into(),
        kind: LinkKind::Socket,
        latency_seconds: Some(Figure::declared(Seconds::of(latency), "test")),
        bandwidth_bytes_per_second: Some(Figure::declared(BytesPerSecond::of(bandwidth), "test")),
        tokens_per_second: None,
        groups: Vec::new(),
    }
}

/// A link that states only tokens per second.
pub fn flow_link(from: &str, to: &str, rate: f64) -> Link {
    Link {
        from: from.into(),
        to: to.into(),
        kind: LinkKind::Declared,
        latency_seconds: None,
        bandwidth_bytes_per_second: None,
        tokens_per_second: Some(TokensPerSecond::of(rate)),
        groups: Vec::new(),
    }
}

pub fn devices_file(devices: Vec<Device>, links: Vec<Link>) -> DevicesFile {
    DevicesFile {
        header: Header::new(DEVICES_SCHEMA, Vec::new()),
        host: BTreeMap::new(),
        devices,
        junctions: Vec::new(),
        links,
        groups: Vec::new(),
        co_run: Vec::new(),
        coordinator: None,
    }
}

/// The parts of a problem with 4 prompt and 3 output tokens, two tokens to a step, one request at a time.
pub fn parts(model: Model, file: DevicesFile, objective: Objective) -> ProblemParts {
    ProblemParts {
        name: "test".into(),
        model,
        graph: DeviceGraph::new(file).expect("a valid graph"),
        workload: Workload {
            arrivals: Arrivals::ClosedLoop { clients: 1 },
            prompt_tokens: Length::fixed(4),
            output_tokens: Length::fixed(3),
            requests: 4,
        },
        serving: Serving { requests_max: 1, step_tokens_max: 2, kv_block_tokens: 16, ..Serving::default() },
        objective,
        limits: Limits { reserve_bytes: Bytes(10), ..Limits::default() },
        ambient: Celsius::of(25.0),
        inputs: vec![Digest::of(b"scenario"), Digest::of(b"devices")],
    }
}

pub fn problem(parts: ProblemParts) -> PlacementProblem {
    PlacementProblem::new(parts).expect("a valid problem")
}

/// Two devices, 4 layers: `fast` (1 s per layer and token) holds at most 3 layers, `slow` (2 s) all.
pub fn two_devices(objective: Objective) -> ProblemParts {
    let model = model(4);
    let devices = vec![device("fast", &model, 1.0, 6_000), device("slow", &model, 2.0, 100_000)];
    let links = vec![link("fast", "slow", 0.5, 64.0), link("slow", "fast", 0.5, 64.0)];
    parts(model, devices_file(devices, links), objective)
}

/// Three devices on two routes: `a` then `b` or `c`.
pub fn fork(objective: Objective) -> ProblemParts {
    let model = model(4);
    let devices =
        vec![device("a", &model, 1.0, 100_000), device("b", &model, 4.0, 100_000), device("c", &model, 2.0, 100_000)];
    let links = vec![link("a", "b", 0.5, 1e6), link("a", "c", 0.5, 1e6)];
    parts(model, devices_file(devices, links), objective)
}

/// A stage on one device, its bytes as the problem has them.
pub fn stage(problem: &PlacementProblem, device: &str, start: u32, end: u32) -> Stage {
    let layers = Layers::new(start, end);
    let bytes = problem.graph.find(device).map_or_else(StageBytes::default, |id| problem.stage_bytes(id, layers));
    Stage {
        devices: vec![device.into()],
        layers,
        quantisation: problem.model.quantisation.clone(),
        bytes,
        parallel: Parallel::Tensor,
        power_cap_watts: None,
    }
}

/// A plan of these stages and routes (positions of stages, share), its objective evaluated, its bound unknown.
pub fn plan(problem: &PlacementProblem, stages: &[(&str, u32, u32)], routes: &[(&[u32], f64)]) -> Plan {
    let stages: Vec<Stage> = stages.iter().map(|&(device, start, end)| stage(problem, device, start, end)).collect();
    let stops = |route: &[u32]| route.iter().map(|&s| Stop { stage: s, layers: stages[s as usize].layers }).collect();
    let used: Vec<&String> = stages.iter().flat_map(|s| &s.devices).collect();
    let unused = problem.graph.devices().iter().filter(|d| !used.contains(&&d.name));
    let mut plan = Plan {
        header: Header::new(PLAN_SCHEMA, problem.inputs.clone()),
        scenario: problem.name.clone(),
        model: problem.model.name.clone(),
        status: Status::Feasible,
        objective_name: problem.objective.name().into(),
        objective_value: None,
        unit: problem.objective.unit().into(),
        certificate: None,
        unused: unused.map(|d| Unused { device: d.name.clone(), reason: "not needed".into() }).collect(),
        routes: routes.iter().map(|&(route, share)| Route { stages: stops(route), share, role: None }).collect(),
        stages,
        reasons: Vec::new(),
        batch: None,
        division: Division::Never,
        sustained: None,
        goals: Vec::new(),
        provenance: Provenance::default(),
    };
    state_objective(&mut plan, problem);
    plan
}

/// Writes the plan's true objective value into it, with a certificate without a bound.
pub fn state_objective(plan: &mut Plan, problem: &PlacementProblem) {
    plan.objective_value = evaluate(plan, problem).value(problem.objective);
    plan.certificate = Some(Certificate {
        objective: plan.objective_value.unwrap_or(0.0),
        bound: None,
        gap: None,
        bound_kind: BoundKind::None,
        method: "by hand".into(),
        solver: None,
        nodes: None,
        evidence: None,
    });
}

/// Gives the plan's certificate a bound with evidence, its gap consistent.
pub fn certify(plan: &mut Plan, bound: f64, evidence: Evidence) {
    let certificate = plan.certificate.as_mut().expect("a plan built here has one");
    certificate.bound = Some(bound);
    certificate.gap = Some((bound - certificate.objective).abs() / certificate.objective.abs());
    certificate.bound_kind = BoundKind::Certified;
    certificate.evidence = Some(evidence);
    if certificate.gap.is_some_and(|gap| gap < 1e-9) {
        plan.status = Status::Optimal;
    }
}

/// A single chain.
pub fn chain(problem: &PlacementProblem, stages: &[(&str, u32, u32)]) -> Plan {
    let route: Vec<u32> = (0..stages.len() as u32).collect();
    plan(problem, stages, &[(&route, 1.0)])
}

/// The violations of a plan, as text.
pub fn refusal(plan: &Plan, problem: &PlacementProblem) -> String {
    match plan.clone().check(problem) {
        Ok(_) => panic!("this plan must be refused: {plan:?}"),
        Err(found) => found.iter().map(|v| format!("{v}\n")).collect(),
    }
}

/// A small generator of its own (xorshift, Marsaglia 2003), so that what is drawn never changes.
pub struct Draw(pub u64);

impl Draw {
    /// A number below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end.max(1) as u64).expect("below end")
    }

    /// Whether a draw of one in `chances` succeeds.
    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    /// A number from `min` to `max` with some digits behind the point.
    pub fn between(&mut self, min: f64, max: f64) -> f64 {
        min + (max - min) * (self.below(10_007) as f64 / 10_007.0)
    }
}
