//! Small problems whose every duration is a multiple of 1/512 s, which is both an exact `f64` and a whole number of
//! nanoseconds: sums of them are exact however they are made, so a test can demand equality.

use isotherm_core::artefact::Header;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::cost::{Curve, Grid, OperatorProfile};
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::figure::{Figure, How};
use isotherm_core::graph::{CoRun, DEVICES_SCHEMA, DeviceGraph, DevicesFile, Link, LinkKind};
use isotherm_core::ids::{DeviceId, Layers};
use isotherm_core::model::Model;
use isotherm_core::objective::evaluate;
use isotherm_core::plan::{BoundKind, Certificate, PLAN_SCHEMA, Plan, Provenance, Route, Stage, Status, Stop, Unused};
use isotherm_core::problem::{Division, Limits, Objective, Parallel, PlacementProblem, ProblemParts};
use isotherm_core::record::SimulationReport;
use isotherm_core::trace::{RequestRecord, Trace};
use isotherm_core::units::{Bytes, BytesPerSecond, Celsius, Hertz, Seconds};
use isotherm_core::workload::{Arrivals, Length, Serving, Workload};
use isotherm_sim::{Options, simulate};
use std::collections::BTreeMap;

/// The unit of time in nanoseconds.
pub const UNIT: u64 = 1_953_125;

/// So many units in seconds.
pub fn units(count: f64) -> Seconds {
    Seconds::of(count / 512.0)
}

/// Times of a device's operators, in units. Attention costs one unit per cached token and layer, in prefill and in
/// decode (at the mean context), whatever the number of sequences.
#[derive(Clone, Copy)]
pub struct Costs {
    pub step: f64,
    pub token: f64,
    pub cached: f64,
    pub head: f64,
    pub embedding: f64,
}

impl Costs {
    /// Every step takes the same time.
    pub fn fixed(step: f64) -> Self {
        Self { step, token: 0.0, cached: 0.0, head: 0.0, embedding: 0.0 }
    }

    /// Time of a step by hand, in whole units. `contexts` are the cached tokens that attention reads.
    pub fn units(&self, layers: u64, first: bool, last: bool, tokens: u64, contexts: u64, sequences: u64) -> u64 {
        let whole = |count: f64| count as u64;
        whole(self.step)
            + layers * (whole(self.token) * tokens + whole(self.cached) * contexts)
            + if first { whole(self.embedding) * tokens } else { 0 }
            + if last { whole(self.head) * sequences } else { 0 }
    }

    fn profile(&self, model: &Model) -> OperatorProfile {
        let line = |slope: f64| Curve::new(vec![(0, Seconds::ZERO), (256, units(256.0 * slope))]).expect("two knots");
        let cached = |slope: f64| {
            let row = [Seconds::ZERO, units(256.0 * slope)];
            Grid::new(vec![0, 256], vec![0, 256], [row, row].concat()).expect("two by two")
        };
        OperatorProfile {
            geometry: model.geometry(),
            arithmetic: "f32".into(),
            how: How::Declared,
            source: None,
            samples: None,
            spread: None,
            when: None,
            dense_seconds: line(self.token),
            attention_prefill_seconds: cached(self.cached),
            attention_decode_seconds: cached(self.cached),
            head_seconds: line(self.head),
            embedding_seconds: line(self.embedding),
            step_seconds: units(self.step),
            iterations: None,
            experts: None,
            resident: None,
            conditions: None,
        }
    }
}

/// Everything a test may want to set.
pub struct Case {
    pub costs: Vec<Costs>,
    /// Layers of each device's stage.
    pub layers: Vec<Layers>,
    /// Stages of each route, and its share.
    pub routes: Vec<(Vec<u32>, f64)>,
    pub serving: Serving,
    pub workload: Workload,
    /// Whether there are links, and a coordinator behind them.
    pub links: bool,
    /// Slowdown of all devices together.
    pub co_run: Vec<f64>,
    /// The same of single devices, by their position, where it is another for them.
    pub co_run_of: Vec<(usize, Vec<f64>)>,
    /// Requests in a batch, where the plan states it.
    pub batch: Option<u32>,
    /// How much quicker links are than stated below.
    pub haste: f64,
    /// Changes devices before they are used.
    pub adjust: fn(usize, &mut Device),
}

pub fn closed(clients: u32, requests: u32, prompt: u32, output: u32) -> Workload {
    let arrivals = Arrivals::ClosedLoop { clients };
    Workload { arrivals, prompt_tokens: Length::fixed(prompt), output_tokens: Length::fixed(output), requests }
}

pub fn poisson(rate: f64, requests: u32, prompt: u32, output: u32) -> Workload {
    Workload { arrivals: Arrivals::Poisson { rate: Hertz::of(rate) }, ..closed(1, requests, prompt, output) }
}

impl Case {
    /// A chain of devices, one stage each, of equally many of the model's layers.
    pub fn chain(costs: &[Costs], layers_each: u32, workload: Workload) -> Self {
        let count = u32::try_from(costs.len()).expect("few");
        Self {
            costs: costs.to_vec(),
            layers: (0..count).map(|i| Layers::new(i * layers_each, (i + 1) * layers_each)).collect(),
            routes: vec![((0..count).collect(), 1.0)],
            serving: Serving { requests_max: 1, step_tokens_max: 256, kv_block_tokens: 16, ..Serving::default() },
            workload,
            links: true,
            co_run: Vec::new(),
            co_run_of: Vec::new(),
            batch: None,
            haste: 1.0,
            adjust: |_, _| {},
        }
    }

    /// One device that holds the whole model and is reached at no cost.
    pub fn single(costs: Costs, workload: Workload) -> Self {
        Self { links: false, ..Self::chain(&[costs], 1, workload) }
    }

    /// Replicas of one device each, with equal shares, reached at no cost.
    pub fn replicas(costs: &[Costs], workload: Workload) -> Self {
        let count = u32::try_from(costs.len()).expect("few");
        Self {
            layers: vec![Layers::new(0, 1); costs.len()],
            routes: (0..count).map(|i| (vec![i], 1.0 / f64::from(count))).collect(),
            links: false,
            ..Self::chain(costs, 1, workload)
        }
    }

    pub fn problem(&self) -> PlacementProblem {
        let layers = self.layers.iter().map(|l| l.end).max().expect("a stage");
        let model = model(layers);
        let mut devices: Vec<Device> = self
            .costs
            .iter()
            .enumerate()
            .map(|(i, costs)| {
                let mut device = Device::named(format!("d{i}"), "host", DeviceKind::Gpu);
                device.memory_bytes = Some(Figure::declared(Bytes(1 << 40), "test"));
                device.profiles = vec![costs.profile(&model)];
                (self.adjust)(i, &mut device);
                device
            })
            .collect();
        devices.iter_mut().for_each(|d| d.class = "test".into());
        // A row of activations is 64 bytes and takes one unit from device to device; a token is 4 bytes and takes one
        // unit between coordinator and device. Latencies are 3 and 5 units.
        let mut links = Vec::new();
        if self.links {
            for i in 0..devices.len() {
                links.push(link("driver", &devices[i].name, 5.0, 4.0));
                links.push(link(&devices[i].name, "driver", 5.0, 4.0));
                for j in (0..devices.len()).filter(|&j| j != i) {
                    links.push(link(&devices[i].name, &devices[j].name, 3.0, 64.0));
                }
            }
        }
        for link in &mut links {
            let (latency, bandwidth) = (&mut link.latency_seconds, &mut link.bandwidth_bytes_per_second);
            latency.iter_mut().for_each(|figure| figure.value = figure.value / self.haste);
            bandwidth.iter_mut().for_each(|figure| figure.value = figure.value * self.haste);
        }
        let factors = |of: &[f64]| of.iter().map(|&f| Figure::declared(f, "test")).collect::<Vec<_>>();
        let own = self.co_run_of.iter().map(|(device, of)| (devices[*device].name.clone(), factors(of)));
        let co_run = CoRun {
            name: "bus".into(),
            devices: devices.iter().map(|d| d.name.clone()).collect(),
            slowdown: factors(&self.co_run),
            slowdown_of: own.collect(),
        };
        let file = DevicesFile {
            header: Header::new(DEVICES_SCHEMA, Vec::new()),
            host: BTreeMap::new(),
            devices,
            junctions: if self.links { vec!["driver".into()] } else { Vec::new() },
            links,
            groups: Vec::new(),
            co_run: if self.co_run.is_empty() { Vec::new() } else { vec![co_run] },
            coordinator: self.links.then(|| "driver".to_owned()),
        };
        let parts = ProblemParts {
            name: "case".into(),
            model,
            graph: DeviceGraph::new(file).expect("a valid graph"),
            workload: self.workload.clone(),
            serving: self.serving,
            objective: if self.routes.len() == 1 && self.batch.is_none() {
                Objective::Tpot
            } else {
                Objective::Throughput
            },
            limits: Limits::default(),
            ambient: Celsius::of(25.0),
            inputs: Vec::new(),
        };
        PlacementProblem::new(parts).expect("a valid problem")
    }

    pub fn plan(&self, problem: &PlacementProblem) -> FeasiblePlan {
        let stages = self.layers.iter().zip(problem.graph.device_ids()).map(|(&layers, id)| stage(problem, id, layers));
        let routes = self
            .routes
            .iter()
            .map(|(path, share)| Route {
                stages: path.iter().map(|&stage| Stop { stage, layers: self.layers[stage as usize] }).collect(),
                share: *share,
                role: None,
            })
            .collect();
        checked(problem, stages.collect(), routes, self.batch)
    }

    /// Simulates the case once and returns its trace.
    pub fn trace(&self) -> Trace {
        self.report(&Options { trace: true, ..Options::default() }).trace.expect("asked for")
    }

    pub fn report(&self, options: &Options) -> SimulationReport {
        let problem = self.problem();
        simulate(&self.plan(&problem), &problem, &self.workload, options).expect("simulates")
    }
}

fn stage(problem: &PlacementProblem, id: DeviceId, layers: Layers) -> Stage {
    Stage {
        devices: vec![problem.graph.device(id).name.clone()],
        layers,
        quantisation: problem.model.quantisation.clone(),
        bytes: problem.stage_bytes(id, layers),
        parallel: Parallel::Tensor,
        power_cap_watts: None,
    }
}

/// The whole model on one device.
pub fn whole_on(problem: &PlacementProblem, device: &str) -> FeasiblePlan {
    let layers = Layers::new(0, problem.layers());
    let id = problem.graph.find(device).expect("a device");
    let route = Route { stages: vec![Stop { stage: 0, layers }], share: 1.0, role: None };
    checked(problem, vec![stage(problem, id, layers)], vec![route], None)
}

/// Every device of a problem as a replica of the whole model, with equal shares.
pub fn replicas_of(problem: &PlacementProblem) -> FeasiblePlan {
    let layers = Layers::new(0, problem.layers());
    let stages: Vec<Stage> = problem.graph.device_ids().map(|id| stage(problem, id, layers)).collect();
    let share = 1.0 / stages.len() as f64;
    let route = |stage| Route { stages: vec![Stop { stage, layers }], share, role: None };
    let routes = (0..stages.len() as u32).map(route).collect();
    checked(problem, stages, routes, None)
}

fn checked(problem: &PlacementProblem, stages: Vec<Stage>, routes: Vec<Route>, batch: Option<u32>) -> FeasiblePlan {
    let holds = |name: &String| stages.iter().any(|stage| stage.devices.contains(name));
    let unused = problem.graph.devices().iter().filter(|device| !holds(&device.name));
    let unused = unused.map(|device| Unused { device: device.name.clone(), reason: "test".into() }).collect();
    let mut plan = Plan {
        header: Header::new(PLAN_SCHEMA, problem.inputs.clone()),
        scenario: problem.name.clone(),
        model: problem.model.name.clone(),
        status: Status::Feasible,
        objective_name: problem.objective.name().into(),
        objective_value: None,
        unit: problem.objective.unit().into(),
        certificate: None,
        stages,
        routes,
        unused,
        reasons: Vec::new(),
        batch,
        division: Division::Never,
        sustained: None,
        goals: Vec::new(),
        provenance: Provenance::default(),
    };
    let value = evaluate(&plan, problem).value(problem.objective).expect("a well-formed plan");
    plan.objective_value = Some(value);
    plan.certificate = Some(Certificate {
        objective: value,
        bound: None,
        gap: None,
        bound_kind: BoundKind::None,
        method: "by hand".into(),
        solver: None,
        nodes: None,
        evidence: None,
    });
    plan.check(problem).unwrap_or_else(|violations| panic!("{violations:?}"))
}

fn model(layers: u32) -> Model {
    Model {
        name: "toy".into(),
        architecture: "llama".into(),
        hidden: 16,
        feed_forward: 32,
        heads: 2,
        kv_heads: 1,
        head_size: 8,
        vocabulary: 100,
        context_max: 1 << 20,
        quantisation: "F32".into(),
        layer_bytes: vec![Bytes(1_000); layers as usize],
        embedding_bytes: Bytes(100),
        head_bytes: Bytes(100),
        tied: false,
        kv_element_bytes: 4,
        digest: None,
    }
}

fn link(from: &str, to: &str, latency: f64, bytes_per_unit: f64) -> Link {
    Link {
        from: from.into(),
        to: to.into(),
        kind: LinkKind::Socket,
        latency_seconds: Some(Figure::declared(units(latency), "test")),
        bandwidth_bytes_per_second: Some(Figure::declared(BytesPerSecond::of(bytes_per_unit * 512.0), "test")),
        tokens_per_second: None,
        groups: Vec::new(),
    }
}

/// Time to first token, and to the last, in nanoseconds.
pub fn times(record: &RequestRecord) -> (u64, u64) {
    (record.ttft().0, record.e2e().0)
}
