//! A made-up report with everything in it: three plans of a small model on two cards and a processor, five runs each.
//! The numbers are synthetic and say nothing about any hardware; the page carries a notice that says so.

use isotherm_core::artefact::{Header, TOOL_VERSION};
use isotherm_core::device::{Device, DeviceKind, Support};
use isotherm_core::digest::Digest;
use isotherm_core::figure::{Figure, How};
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile, Link, LinkKind};
use isotherm_core::ids::Layers;
use isotherm_core::model::Model;
use isotherm_core::plan::{
    BoundKind, Certificate, Evidence as Proof, PLAN_SCHEMA, Plan, Provenance, Route, Stage, Status, Stop, Unused,
};
use isotherm_core::problem::{Division, Parallel, StageBytes};
use isotherm_core::record::{
    DeviceSummary, RUN_SCHEMA, RunRecord, SIMULATION_SCHEMA, SimulationReport, TruthRow, metrics,
};
use isotherm_core::thermal::ThermalRecord;
use isotherm_core::trace::{DeviceRecord, DeviceSample, Origin, RequestRecord, StageRecord, Trace};
use isotherm_core::units::{
    Bytes, BytesPerSecond, Celsius, Joules, JoulesPerKelvin, KelvinPerWatt, Seconds, SimDuration, SimTime, Watts,
};
use isotherm_core::workload::{Arrivals, Length, Workload};
use isotherm_reports::{
    Case, Command, Environment, Event, Evidence, FileDigest, LogEntry, Manifest, Report, RunStatistic, Sealed,
    SealedFigure, Step, Stored, measured,
};
use std::collections::BTreeMap;

const WHEN: &str = "2026-11-20T09:14:03Z";
const LAYERS: u32 = 24;

/// Even noise between -1 and 1, the same on every machine.
pub struct Noise(u64);

impl Noise {
    /// A stream of its own per seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next value.
    pub fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// A model of 24 layers.
pub fn model() -> Model {
    Model {
        name: "sample-1.5B".into(),
        architecture: "llama".into(),
        hidden: 2048,
        feed_forward: 5632,
        heads: 16,
        kv_heads: 8,
        head_size: 128,
        vocabulary: 32_000,
        context_max: 4096,
        quantisation: "Q4_1".into(),
        layer_bytes: vec![Bytes(31 << 20); LAYERS as usize],
        embedding_bytes: Bytes(80 << 20),
        head_bytes: Bytes(80 << 20),
        tied: false,
        kv_element_bytes: 4,
        digest: Some(Digest::of(b"sample model")),
    }
}

fn measured_figure<T>(value: T, spread: f64) -> Option<Figure<T>> {
    Some(Figure::measured(value, "probe", 30, spread, Some(WHEN.into())))
}

/// A device with measured memory and bandwidth and declared thermal parameters.
pub fn device(name: &str, kind: DeviceKind, gib: u64, gigabytes_per_second: f64, throttle: f64) -> Device {
    let backend = if kind == DeviceKind::Cpu { "cpu" } else { "cuda" };
    Device {
        backend: backend.into(),
        support: Support::Supported,
        memory_bytes: measured_figure(Bytes(gib << 30), 0.0),
        memory_bandwidth_bytes_per_second: measured_figure(BytesPerSecond::of(gigabytes_per_second * 1e9), 0.012),
        busy_watts: (kind != DeviceKind::Cpu)
            .then(|| Figure::declared(Watts::of(gib as f64 * 14.0), "board power limit")),
        thermal: Some(ThermalRecord {
            resistance_kelvin_per_watt: Figure::declared(KelvinPerWatt::of(0.16), "assumed"),
            capacity_joules_per_kelvin: Figure::declared(JoulesPerKelvin::of(420.0), "assumed"),
            throttle_celsius: Some(Figure::declared(Celsius::of(throttle), "data sheet")),
            resume_celsius: Some(Figure::declared(Celsius::of(throttle - 5.0), "assumed")),
            throttled_speed: None,
            die: None,
            case: None,
            fan: None,
        }),
        ..Device::named(name, if name.starts_with("cpu") { "desk" } else { "rack" }, kind)
    }
}

/// A link with measured latency and bandwidth.
pub fn link(from: &str, to: &str, kind: LinkKind, microseconds: f64, gigabytes_per_second: f64) -> Link {
    Link {
        from: from.into(),
        to: to.into(),
        kind,
        latency_seconds: measured_figure(Seconds::of(microseconds * 1e-6), 0.08),
        bandwidth_bytes_per_second: measured_figure(BytesPerSecond::of(gigabytes_per_second * 1e9), 0.03),
        tokens_per_second: None,
        groups: Vec::new(),
    }
}

/// A device graph from its parts.
pub fn graph(devices: Vec<Device>, links: Vec<Link>) -> Stored<DeviceGraph> {
    let file = DevicesFile {
        header: Header::new(DEVICES_SCHEMA, Vec::new()),
        host: BTreeMap::from([("processor".into(), "made up, 16 cores".into()), ("memory".into(), "64 GiB".into())]),
        devices,
        junctions: Vec::new(),
        links,
        groups: Vec::new(),
        co_run: Vec::new(),
        coordinator: None,
    };
    let digest = Digest::of_json(&file).expect("serialises");
    Stored { file: "devices.json".into(), digest, value: DeviceGraph::new(file).expect("a valid graph") }
}

/// A plan that is one chain: device names and where each stage ends.
pub fn chain(devices: &[&str], ends: &[u32], objective: f64) -> Plan {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let layers: Vec<Layers> = starts.zip(ends).map(|(start, &end)| Layers::new(start, end)).collect();
    let stages = devices
        .iter()
        .zip(&layers)
        .map(|(device, &layers)| {
            let (weights, kv) = (model().weight_bytes(layers), Bytes(u64::from(layers.len()) << 21));
            let reserve = Bytes(64 << 20);
            let total = [weights, kv, Bytes(9 << 20), reserve].into_iter().sum();
            let bytes =
                StageBytes { weights, kv, activations: Bytes(9 << 20), reserve, total, ..StageBytes::default() };
            Stage {
                devices: vec![(*device).into()],
                layers,
                quantisation: "Q4_1".into(),
                bytes,
                parallel: Parallel::Tensor,
                power_cap_watts: None,
            }
        })
        .collect();
    let stops = layers.iter().enumerate().map(|(i, &layers)| Stop { stage: i as u32, layers }).collect();
    Plan {
        header: Header::new(PLAN_SCHEMA, vec![Digest::of(b"sample scenario"), Digest::of(b"sample model")]),
        scenario: "sample".into(),
        model: "sample-1.5B".into(),
        status: Status::Optimal,
        objective_name: "tpot".into(),
        objective_value: Some(objective),
        unit: "s".into(),
        certificate: Some(Certificate {
            objective,
            bound: Some(objective),
            gap: Some(0.0),
            bound_kind: BoundKind::Certified,
            method: "label setting over layers and devices".into(),
            solver: None,
            nodes: None,
            evidence: Some(Proof::Enumeration),
        }),
        stages,
        routes: vec![Route { stages: stops, share: 1.0, role: None }],
        unused: Vec::new(),
        reasons: Vec::new(),
        batch: None,
        division: Division::Never,
        sustained: None,
        goals: Vec::new(),
        provenance: Provenance {
            solve_seconds: Some(0.042),
            machine: Some("desk".into()),
            time_limited: false,
            simulated: None,
        },
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// One stage of a made-up run: its device and the seconds of one step.
type StageTime<'a> = (&'a str, f64);

/// A run of `requests` requests, one after another, each with 64 prompt and 48 output tokens.
pub fn trace(
    origin: Origin,
    stages: &[StageTime<'_>],
    requests: u32,
    noise: &mut Noise,
    sensor: Option<&str>,
) -> Trace {
    let step: f64 = stages.iter().map(|s| s.1).sum();
    let (mut now, mut records) = (0.0, Vec::new());
    for id in 0..requests {
        let first = now + step * 7.5 * (1.0 + 0.02 * noise.next());
        let end = first + 47.0 * step * (1.0 + 0.012 * noise.next());
        records.push(RequestRecord {
            id,
            arrival_ns: SimTime(nanoseconds(now)),
            prompt_tokens: 64,
            output_tokens: 48,
            first_token_ns: SimTime(nanoseconds(first)),
            finished_ns: SimTime(nanoseconds(end)),
        });
        now = end;
    }
    let steps = u64::from(requests) * 48;
    let busy = |seconds: f64| SimDuration(nanoseconds(seconds * steps as f64));
    let stage_records = stages.iter().enumerate().map(|(i, &(device, seconds))| StageRecord {
        stage: i as u32,
        device: device.into(),
        steps,
        tokens: u64::from(requests) * 112,
        busy_ns: busy(seconds),
    });
    let mut names: Vec<&str> = stages.iter().map(|s| s.0).collect();
    names.dedup();
    let devices = names.iter().enumerate().map(|(i, &device)| {
        let seconds = stages[i].1;
        let steady = 31.0 + 44.0 * seconds / step;
        let samples: Vec<DeviceSample> = (0..=60)
            .map(|k| {
                let at = now * f64::from(k) / 60.0;
                let warm = steady - (steady - 28.0) * (-at / (now / 3.5)).exp();
                DeviceSample {
                    at_ns: SimTime(nanoseconds(at)),
                    temperature_celsius: Some(Celsius::of(warm + 0.4 * noise.next())),
                    speed: Some(1.0),
                    power_watts: None,
                    energy_joules: None,
                    utilisation: (k > 0).then_some(0.9),
                    charge: None,
                    waiting: Some(k as u32 % 4),
                    cache: Some(f64::from(k) / 60.0),
                }
            })
            .collect();
        DeviceRecord {
            name: device.into(),
            busy_ns: busy(seconds),
            energy_joules: sensor.map(|_| Joules::of(120.0 * now * seconds / step)),
            temperature_max_celsius: sensor.map(|_| Celsius::of(steady)),
            throttled_ns: sensor.map(|_| SimDuration(0)),
            throttled_after_ns: None,
            sustained_speed: None,
            source: sensor.unwrap_or("no sensor").into(),
            samples: if sensor.is_some() { samples } else { Vec::new() },
        }
    });
    let devices: Vec<DeviceRecord> = devices.collect();
    Trace {
        origin,
        requests: records,
        stages: stage_records.collect(),
        links: Vec::new(),
        devices,
        end_ns: SimTime(nanoseconds(now)),
        steps: Vec::new(),
    }
}

/// The load of every sample.
pub fn workload(requests: u32) -> Workload {
    Workload {
        arrivals: Arrivals::ClosedLoop { clients: 1 },
        prompt_tokens: Length::fixed(64),
        output_tokens: Length::fixed(48),
        requests,
    }
}

fn stored<T: serde::Serialize>(file: String, value: T) -> Stored<T> {
    Stored { file, digest: Digest::of_json(&value).expect("serialises"), value }
}

/// A simulation of a plan whose stages take this long per step.
pub fn simulation(plan: &Plan, stages: &[StageTime<'_>], requests: u32) -> Stored<SimulationReport> {
    let trace = trace(Origin::Predicted, stages, requests, &mut Noise::new(7), Some("simulated, assumed parameters"));
    let devices = trace
        .devices
        .iter()
        .map(|d| DeviceSummary {
            name: d.name.clone(),
            utilisation: 0.9,
            energy_joules: d.energy_joules,
            temperature_max_celsius: d.temperature_max_celsius,
            throttled_seconds: Some(Seconds::ZERO),
            throttled_after_seconds: None,
            sustained_speed: None,
            timing: How::Measured,
            source: d.source.clone(),
        })
        .collect();
    let report = SimulationReport {
        header: Header::new(SIMULATION_SCHEMA, vec![plan.digest()]),
        plan: plan.digest(),
        workload: workload(requests),
        requests,
        seeds: 20,
        metrics: metrics(&trace),
        percentiles: BTreeMap::new(),
        goodput: None,
        devices,
        attribution: None,
        sensitivity: None,
        reliability: None,
        moves: None,
        digest: Digest::of(plan.digest().bytes()),
        trace: Some(trace),
    };
    stored(format!("simulation-{}.json", stages.len()), report)
}

/// One run of a plan whose stages really take this long per step.
pub fn run(plan: &Plan, manifest: Digest, stages: &[StageTime<'_>], requests: u32, seed: u64) -> Stored<RunRecord> {
    let mut noise = Noise::new(seed);
    let slow = 1.0 + 0.012 * noise.next() + if seed % 5 == 4 { 0.03 } else { 0.0 };
    let times: Vec<StageTime<'_>> = stages.iter().map(|&(d, s)| (d, s * slow)).collect();
    let trace = trace(Origin::Measured, &times, requests, &mut noise, None);
    let record = RunRecord {
        header: Header::new(RUN_SCHEMA, vec![manifest, plan.digest()]),
        manifest,
        plan: plan.digest(),
        started: format!("2026-11-20T09:{:02}:11Z", 9 + seed % 50),
        arithmetic: "f16".into(),
        workload: workload(requests),
        tokens: Digest::of(b"sample tokens"),
        metrics: metrics(&trace),
        trace,
    };
    stored(format!("run-{}-{}.json", stages.len(), seed), record)
}

/// A case with `runs` runs: predicted and true seconds per step of each stage.
pub fn case(plan: Plan, predicted: &[StageTime<'_>], truly: &[StageTime<'_>], runs: u64, requests: u32) -> Case {
    let manifest = manifest_of(&plan);
    let simulation = simulation(&plan, predicted, requests);
    let runs: Vec<Stored<RunRecord>> =
        (0..runs).map(|i| run(&plan, manifest, truly, requests, i + 10 * plan.stages.len() as u64)).collect();
    let names = [("tpot", "tpot_seconds"), ("ttft", "ttft_seconds"), ("tokens_per_second", "tokens_per_second")];
    let figures: Vec<SealedFigure> = names
        .iter()
        .map(|(metric, key)| SealedFigure { metric: (*metric).into(), value: simulation.value.metrics[*key].mean })
        .collect();
    let truth = figures
        .iter()
        .filter_map(|f| {
            let spread = measured(runs.iter().map(|r| &r.value), &f.metric, RunStatistic::Mean)?;
            Some(TruthRow::new(plan.stages.len() as u32, &f.metric, f.value, spread.median))
        })
        .collect();
    Case { plan, sealed: Some(Sealed { manifest, figures }), simulation: Some(simulation), runs, truth }
}

fn manifest_of(plan: &Plan) -> Digest {
    Digest::of(format!("manifest of {}", plan.digest()).as_bytes())
}

/// Evidence for these cases: probe, then plans, then seals, then runs.
pub fn evidence(devices: Digest, cases: &[Case]) -> Evidence {
    let mut log = vec![(Event::Probe, devices)];
    log.extend(cases.iter().map(|c| (Event::Plan, c.plan.digest())));
    log.extend(cases.iter().filter_map(|c| Some((Event::Simulate, c.simulation.as_ref()?.digest))));
    log.extend(cases.iter().filter_map(|c| Some((Event::Seal, c.sealed.as_ref()?.manifest))));
    log.extend(cases.iter().flat_map(|c| c.runs.iter().map(|r| (Event::Run, r.digest))));
    let log = log
        .into_iter()
        .enumerate()
        .map(|(i, (event, subject))| LogEntry {
            index: 120 + i as u64,
            time: format!("2026-11-20T09:{:02}:{:02}Z", 14 + i / 2, 30 * (i % 2) + 7),
            event,
            subject: Some(subject),
        })
        .collect();
    let manifests = cases
        .iter()
        .filter_map(|c| c.sealed.as_ref())
        .enumerate()
        .map(|(i, sealed)| Manifest {
            file: format!("manifest-{}.json", i + 1),
            digest: sealed.manifest,
            signers: vec!["planner@desk".into(), "approver@desk".into()],
            threshold: 2,
            not_before: Some("2026-11-20T09:18:00Z".into()),
            expires: Some("2026-11-21T09:18:00Z".into()),
            verification: Some(Ok(())),
        })
        .collect();
    Evidence {
        manifests,
        log,
        checkpoint: Some("sample.log\n140\nMADEUPROOTHASHTHATPROVESNOTHING=\n\n— sample.log made-up-signature".into()),
        files: vec![
            FileDigest { role: "scenario".into(), file: "sample.toml".into(), digest: Digest::of(b"sample scenario") },
            FileDigest { role: "model".into(), file: "sample-1.5B.gguf".into(), digest: Digest::of(b"sample model") },
        ],
    }
}

/// A report of these cases.
pub fn report(devices: Stored<DeviceGraph>, cases: Vec<Case>) -> Report {
    let command = |step, line: &str| Command { step, line: line.into() };
    Report {
        title: "isotherm report".into(),
        scenario: "sample".into(),
        question: "Does splitting this model over two or three devices make a single answer faster?".into(),
        notice: Some("Sample: every number on this page is made up to show what a report looks like.".into()),
        notes: Vec::new(),
        model: Some(model()),
        run_statistic: RunStatistic::Mean,
        evidence: evidence(devices.digest, &cases),
        devices,
        cases,
        frontier: None,
        failures: Vec::new(),
        environment: Environment {
            tool_version: TOOL_VERSION.into(),
            kernel: Some("Linux 6.1.0 (made up)".into()),
            load: Some("0.4 before, 1.1 after (made up)".into()),
            host: vec![("host".into(), "desk".into())],
        },
        commands: vec![
            command(Step::Probe, "isotherm probe -o devices.json"),
            command(Step::Plan, "isotherm plan sample.toml --devices devices.json --objective tpot -o plan.json"),
            command(
                Step::Simulate,
                "isotherm simulate plan.json sample.toml --devices devices.json --seeds 20 -o predicted",
            ),
            command(Step::Seal, "isotherm seal plan.json --simulation predicted -o manifest.json"),
            command(Step::Run, "isotherm run manifest.json --runs 5 -o measured"),
            command(Step::Report, "isotherm report . -o report.html"),
        ],
        commands_inferred: false,
    }
}

/// The whole sample: one, two and three stages, five runs each.
pub fn sample() -> Report {
    let devices = vec![
        device("gpu-a", DeviceKind::Gpu, 24, 930.0, 83.0),
        device("gpu-b", DeviceKind::Gpu, 12, 350.0, 83.0),
        device("cpu-desk", DeviceKind::Cpu, 48, 62.0, 95.0),
    ];
    let pairs =
        [("gpu-a", "gpu-b", LinkKind::HostStaged, 21.0, 11.2), ("gpu-b", "cpu-desk", LinkKind::Socket, 74.0, 1.16)];
    let links = pairs.iter().flat_map(|&(a, b, kind, t, r)| [link(a, b, kind, t, r), link(b, a, kind, t, r)]).collect();
    let graph = graph(devices, links);
    let mut one = chain(&["gpu-a"], &[24], 0.01118);
    one.unused = vec![
        Unused { device: "gpu-b".into(), reason: "slower than gpu-a, and a hop costs more than it saves".into() },
        Unused { device: "cpu-desk".into(), reason: "slower than gpu-a, and a hop costs more than it saves".into() },
    ];
    let two = chain(&["gpu-a", "gpu-b"], &[17, 24], 0.01163);
    let mut three = chain(&["gpu-a", "gpu-b", "cpu-desk"], &[14, 21, 24], 0.0149);
    if let Some(certificate) = &mut three.certificate {
        certificate.bound_kind = BoundKind::Solver;
        certificate.solver = Some("HiGHS 1.12".into());
        certificate.bound = Some(0.01472);
        certificate.gap = Some(0.0121);
        certificate.nodes = Some(1834);
        certificate.method = "mixed-integer program".into();
    }
    three.status = Status::Feasible;
    let cases = vec![
        case(one, &[("gpu-a", 0.01118)], &[("gpu-a", 0.01125)], 5, 8),
        case(two, &[("gpu-a", 0.0079), ("gpu-b", 0.00373)], &[("gpu-a", 0.0080), ("gpu-b", 0.0039)], 5, 8),
        case(
            three,
            &[("gpu-a", 0.0065), ("gpu-b", 0.00368), ("cpu-desk", 0.0047)],
            &[("gpu-a", 0.0066), ("gpu-b", 0.0038), ("cpu-desk", 0.0052)],
            5,
            8,
        ),
    ];
    report(graph, cases)
}

/// Thirty pairs of devices, each serving a thirtieth of the requests.
pub fn sixty() -> Report {
    let names: Vec<(String, String)> = (0..30).map(|i| (format!("card-{i:02}"), format!("phone-{i:02}"))).collect();
    let mut devices = Vec::new();
    let mut links = Vec::new();
    for (card, phone) in &names {
        for (name, gib, rate, class) in [(card, 24, 930.0, "RTX 4090"), (phone, 8, 68.0, "Phone 16")] {
            let mut device = device(name, DeviceKind::Gpu, gib, rate, 83.0);
            device.class = class.into();
            devices.push(device);
        }
        links.push(link(card, phone, LinkKind::Socket, 900.0, 0.11));
        links.push(link(phone, card, LinkKind::Socket, 950.0, 0.10));
    }
    let flat: Vec<&str> = names.iter().flat_map(|(a, b)| [a.as_str(), b.as_str()]).collect();
    let mut plan: Plan = chain(&[flat[0], flat[1]], &[20, 24], 29.4);
    (plan.objective_name, plan.unit) = ("throughput".into(), "tok/s".into());
    let pair = plan.stages.clone();
    plan.stages = (0..60)
        .map(|i| {
            let mut stage = pair[i % 2].clone();
            stage.devices = vec![flat[i].into()];
            stage
        })
        .collect();
    let stop = |stage: usize| Stop { stage: stage as u32, layers: pair[stage % 2].layers };
    plan.routes =
        (0..30).map(|i| Route { stages: vec![stop(2 * i), stop(2 * i + 1)], share: 1.0 / 30.0, role: None }).collect();
    let times: Vec<(&str, f64)> =
        flat.iter().enumerate().map(|(i, name)| (*name, if i % 2 == 0 { 0.000_36 } else { 0.000_64 })).collect();
    let case = case(plan, &times, &times, 3, 12);
    let mut report = report(graph(devices, links), vec![case]);
    report.question = "How many tokens per second do thirty cards and thirty phones give together?".into();
    report
}
