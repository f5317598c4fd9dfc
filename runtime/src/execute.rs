//! The door to execution: a feasible plan in, tokens as they come, a trace of what happened out.
//!
//! The thread that calls is the coordinator: it drives the scheduler (the very same state machine that the simulator
//! drives), sends batches into the first stage and takes them from the last. As many batches are on their way at once
//! as there are stages.

use crate::cpu::attention::CACHE_BLOCK;
use crate::engine::cache::blocks_for;
use crate::engine::pass::Pass;
use crate::engine::pipeline::{Pipeline, StagePlace, StartError};
use crate::engine::stage::{StageSpec, supported};
use crate::engine::{CpuDevice, Kernels, Sampling};
use crate::model::Geometry;
use crate::model::gguf::Gguf;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::graph::DeviceGraph;
use isotherm_core::ids::RequestId;
use isotherm_core::plan::{Plan, Stage};
use isotherm_core::serving::{Batch, Request, Resources, Scheduler, ServingError, Work};
use isotherm_core::trace::{DeviceRecord, Origin, RequestRecord, StageRecord, Trace};
use isotherm_core::units::{Bytes, SimDuration, SimTime};
use isotherm_core::workload::Serving;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// What to run on.
pub struct Orders<'a> {
    /// The plan.
    pub plan: &'a FeasiblePlan,
    /// The devices it was made with.
    pub graph: &'a DeviceGraph,
    /// The model's file.
    pub gguf: &'a Gguf,
    /// Its geometry.
    pub geometry: &'a Geometry,
    /// Limits of the serving loop.
    pub serving: Serving,
    /// How kernels compute.
    pub kernels: Kernels,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens that end an answer; none to always give as many as asked for.
    pub stop: &'a [u32],
    /// Memory that is free on this host; unknown where absent.
    pub memory_available: Option<Bytes>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Its tokens, at least one.
    pub tokens: Vec<u32>,
    /// Most tokens of the answer, at least 1.
    pub output_tokens: u32,
}

/// When requests come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arriving {
    /// So many at once; each further one when an earlier is answered.
    Clients(u32),
    /// At these times after the start, rising, one per prompt.
    At(Vec<SimTime>),
}

/// A token that came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Position of its request among the prompts.
    pub request: u32,
    /// Which token of its answer it is, from 1.
    pub ordinal: u32,
    /// The token.
    pub token: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Executed {
    /// Times of requests and stages.
    pub trace: Trace,
    /// The answers, in the order of the prompts; those cut short by an interruption hold what there was.
    pub answers: Vec<Vec<u32>>,
    /// Whether the observer ended the run.
    pub interrupted: bool,
}

/// Why a plan was not executed.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// A model whose shape the kernels do not take.
    #[error("this model has {0}, which the kernels do not take")]
    Unsupported(String),
    /// The plan is for another model.
    #[error("the plan places {planned} layers, the model has {found}")]
    OtherModel {
        /// Layers of the plan.
        planned: u32,
        /// Layers of the file.
        found: usize,
    },
    /// A stage asks for another format than the file's.
    #[error(
        "stage {stage} holds its layers in {planned}, the model file has them in {found}; this version executes a file as \
         it is: plan without choices.quantisations, or with a file in that format"
    )]
    Format {
        /// Position of the stage.
        stage: usize,
        /// Format of the plan.
        planned: String,
        /// Format of the file.
        found: String,
    },
    /// A stage on several devices.
    #[error(
        "stage {stage} is held by {} together; this version executes one device per stage: plan without \
         choices.tensor_parallel",
        devices.join(" and ")
    )]
    Group {
        /// Position of the stage.
        stage: usize,
        /// Its devices.
        devices: Vec<String>,
    },
    /// The plan has several routes.
    #[error("the plan has {0} routes; this version executes plans of one route")]
    Routes(usize),
    /// A device of the plan is not here.
    #[error("device {device:?} is absent: {why}; probe this host and plan again")]
    Absent {
        /// The device.
        device: String,
        /// What is missing.
        why: String,
    },
    /// The plan needs more memory than is free.
    #[error("the plan needs {needed} of memory, {available} are free; end other programs, or plan for less")]
    Memory {
        /// What all stages need.
        needed: Bytes,
        /// What is free.
        available: Bytes,
    },
    /// The cache is managed in other blocks than the kernels use.
    #[error("serving.kv_block_tokens is {found}; the kernels keep {CACHE_BLOCK} tokens in a block")]
    Blocks {
        /// What the plan says.
        found: u32,
    },
    /// A prompt holds a token that the model does not know.
    #[error("request {request} holds token {token}, the model has {vocabulary}")]
    UnknownToken {
        /// Position among the prompts.
        request: usize,
        /// The token.
        token: u32,
        /// Tokens that the model knows.
        vocabulary: usize,
    },
    /// A request is longer than the model can tell positions apart.
    #[error("request {request} and its answer may take {tokens} tokens, the model's context is {context}; shorten it")]
    TooLong {
        /// Position among the prompts.
        request: usize,
        /// Tokens of prompt and answer.
        tokens: usize,
        /// Longest sequence of the model.
        context: usize,
    },
    /// As many times as prompts are needed.
    #[error("{prompts} prompts come at {times} times; give each prompt one time, rising")]
    Arrivals {
        /// Prompts.
        prompts: usize,
        /// Times.
        times: usize,
    },
    /// A stage did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A request can never be served.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// The operating system gave no thread.
    #[error("the driving thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// Executes a plan on this host's devices. `observe` is told of every token, in order; when it says no, the run ends
/// after the passes on their way.
///
/// # Errors
/// Before anything runs: a device is absent, memory is short, the plan is for another model, a request does not fit.
pub fn execute(
    orders: &Orders<'_>,
    prompts: &[Prompt],
    arriving: &Arriving,
    observe: &mut (dyn FnMut(Token) -> bool + Send),
) -> Result<Executed, ExecuteError> {
    let places = places(orders, prompts)?;
    if let Arriving::At(times) = arriving
        && (times.len() != prompts.len() || !times.is_sorted())
    {
        return Err(ExecuteError::Arrivals { prompts: prompts.len(), times: times.len() });
    }
    // The driver is bound to the first device's core; the caller's thread stays free.
    std::thread::scope(|scope| {
        let driver = std::thread::Builder::new()
            .name("isotherm-driver".to_owned())
            .spawn_scoped(scope, || Driver::start(orders, &places, prompts)?.run(arriving, observe))
            .map_err(ExecuteError::Thread)?;
        driver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether this version can execute a plan on a file whose layers are in a format. Errors: what it cannot do.
pub fn executable(plan: &Plan, format: &str) -> Result<(), ExecuteError> {
    for (stage, held) in plan.stages.iter().enumerate() {
        if held.devices.len() > 1 {
            return Err(ExecuteError::Group { stage, devices: held.devices.clone() });
        }
        if held.quantisation != format {
            let (planned, found) = (held.quantisation.clone(), format.to_owned());
            return Err(ExecuteError::Format { stage, planned, found });
        }
    }
    if plan.routes.len() == 1 { Ok(()) } else { Err(ExecuteError::Routes(plan.routes.len())) }
}

/// Where each stage goes; every reason to refuse is found here, before memory is taken.
fn places(orders: &Orders<'_>, prompts: &[Prompt]) -> Result<Vec<StagePlace>, ExecuteError> {
    supported(orders.geometry).map_err(ExecuteError::Unsupported)?;
    let plan = orders.plan.plan();
    executable(plan, orders.geometry.quantisation(orders.gguf).name())?;
    let [route] = plan.routes.as_slice() else { return Err(ExecuteError::Routes(plan.routes.len())) };
    let planned = route.stages.last().map_or(0, |stop| stop.layers.end);
    if planned as usize != orders.geometry.layers {
        return Err(ExecuteError::OtherModel { planned, found: orders.geometry.layers });
    }
    if orders.serving.kv_block_tokens as usize != CACHE_BLOCK {
        return Err(ExecuteError::Blocks { found: orders.serving.kv_block_tokens });
    }
    for (request, prompt) in prompts.iter().enumerate() {
        let vocabulary = orders.geometry.vocabulary;
        if let Some(&token) = prompt.tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(ExecuteError::UnknownToken { request, token, vocabulary });
        }
    }
    let length = |prompt: &Prompt| prompt.tokens.len().saturating_add(prompt.output_tokens as usize);
    let context = orders.geometry.context;
    if let Some(request) = prompts.iter().position(|prompt| length(prompt) > context) {
        return Err(ExecuteError::TooLong { request, tokens: length(&prompts[request]), context });
    }
    let needed: Bytes = plan.stages.iter().map(|stage| stage.bytes.total).sum();
    if let Some(available) = orders.memory_available.filter(|&available| available < needed) {
        return Err(ExecuteError::Memory { needed, available });
    }
    let positions = prompts.iter().map(length).max().unwrap_or(1).max(1);
    let together = (orders.serving.requests_max as usize).min(prompts.len()).max(1);
    route
        .stages
        .iter()
        .map(|stop| {
            let stage = &plan.stages[stop.stage as usize];
            let device = device(orders.graph, stage.devices.first().map_or("", String::as_str))?;
            Ok(StagePlace {
                device,
                spec: StageSpec {
                    layers: stop.layers.start as usize..stop.layers.end as usize,
                    isa: orders.kernels.isa,
                    arithmetic: orders.kernels.arithmetic,
                    rows_max: orders.serving.step_tokens_max as usize,
                    positions_max: positions,
                    cache_blocks: cache_blocks(orders, stage, positions, together),
                },
            })
        })
        .collect()
}

/// Blocks of a stage's cache: those of the plan, so that requests are admitted and preempted as the simulator says; but
/// no more than `together` requests of `positions` tokens can use, and enough for one of them, which may be longer than
/// the plan's load.
fn cache_blocks(orders: &Orders<'_>, stage: &Stage, positions: usize, together: usize) -> usize {
    let token = orders.geometry.kv_bytes_per_token_layer(size_of::<f32>() as u64) * u64::from(stage.layers.len());
    let planned = stage.bytes.kv.0 / (token * CACHE_BLOCK as u64).max(1);
    let one = blocks_for(positions);
    usize::try_from(planned).unwrap_or(usize::MAX).clamp(one, together * one)
}

/// The cores of a planned device, if they are here.
fn device(graph: &DeviceGraph, name: &str) -> Result<CpuDevice, ExecuteError> {
    let absent = |why: String| ExecuteError::Absent { device: name.to_owned(), why };
    let known = graph.find(name).map(|id| graph.device(id)).ok_or_else(|| absent("no such device is known".into()))?;
    if known.backend != "cpu" {
        return Err(absent(format!("no backend here drives {:?} devices", known.backend)));
    }
    let here = CpuDevice::host_cores();
    let cores: Vec<usize> = known.cores.iter().map(|&core| core as usize).collect();
    match cores.iter().find(|core| !here.is_empty() && !here.contains(core)) {
        Some(core) => Err(absent(format!("this process may not use core {core}"))),
        None if cores.is_empty() => Err(absent("it has no cores".into())),
        None => Ok(CpuDevice::new(name, cores)),
    }
}

/// A batch on its way.
struct Flying {
    batch: Batch,
}

struct Driver<'a> {
    orders: &'a Orders<'a>,
    prompts: &'a [Prompt],
    pipeline: Pipeline,
    scheduler: Scheduler,
    flying: VecDeque<Flying>,
    spare: Vec<Pass>,
    answers: Vec<Vec<u32>>,
    records: BTreeMap<u32, RequestRecord>,
    stages: Vec<StageRecord>,
    begin: Instant,
    submitted: usize,
    last: SimTime,
}

impl<'a> Driver<'a> {
    fn start(orders: &'a Orders<'a>, places: &[StagePlace], prompts: &'a [Prompt]) -> Result<Self, ExecuteError> {
        let blocks = places.iter().map(|place| place.spec.cache_blocks).min().unwrap_or(0);
        let scheduler = Scheduler::new(Resources {
            serving: orders.serving,
            kv_blocks: u32::try_from(blocks).unwrap_or(u32::MAX),
            in_flight_max: orders.plan.plan().batches_of_one_route(orders.serving.requests_max),
        })?;
        let pipeline = Pipeline::start(orders.gguf, orders.geometry, places)?;
        let stages = places
            .iter()
            .zip(orders.plan.plan().routes.iter().flat_map(|route| &route.stages))
            .map(|(place, stop)| StageRecord {
                stage: stop.stage,
                device: place.device.name.clone(),
                steps: 0,
                tokens: 0,
                busy_ns: SimDuration(0),
            })
            .collect();
        Ok(Self {
            orders,
            prompts,
            pipeline,
            scheduler,
            flying: VecDeque::new(),
            spare: Vec::new(),
            answers: vec![Vec::new(); prompts.len()],
            records: BTreeMap::new(),
            stages,
            begin: Instant::now(),
            submitted: 0,
            last: SimTime::ZERO,
        })
    }

    fn run(
        mut self,
        arriving: &Arriving,
        observe: &mut (dyn FnMut(Token) -> bool + Send),
    ) -> Result<Executed, ExecuteError> {
        // Loading is over: time begins here.
        self.begin = Instant::now();
        let mut interrupted = false;
        if let Arriving::Clients(clients) = arriving {
            for _ in 0..*clients {
                self.submit(SimTime::ZERO)?;
            }
        }
        loop {
            if let Arriving::At(times) = arriving {
                while self.submitted < times.len() && times[self.submitted] <= self.now() {
                    self.submit(times[self.submitted])?;
                }
            }
            if !interrupted {
                let now = self.now();
                if let Some(batch) = self.scheduler.next_batch(now) {
                    self.send(batch);
                    // Passes that are back already make room for better batches.
                    while let Some(pass) = self.pipeline.try_receive() {
                        interrupted |= !self.finish(pass, arriving, observe)?;
                    }
                    continue;
                }
            }
            let next = match arriving {
                Arriving::At(times) if !interrupted => times.get(self.submitted),
                _ => None,
            };
            match (self.flying.is_empty(), next) {
                (true, None) => break,
                (true, Some(&time)) => self.rest_until(time),
                (false, None) => {
                    let pass = self.pipeline.receive();
                    interrupted |= !self.finish(pass, arriving, observe)?;
                }
                (false, Some(&time)) => {
                    // Whichever comes first: a pass, or a request that could enter an idle first stage.
                    self.pipeline.wait(self.begin + Duration::from_nanos(time.0));
                    if let Some(pass) = self.pipeline.try_receive() {
                        interrupted |= !self.finish(pass, arriving, observe)?;
                    }
                }
            }
        }
        Ok(self.end(interrupted))
    }

    fn now(&mut self) -> SimTime {
        let elapsed = SimTime(u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.last = self.last.max(elapsed);
        self.last
    }

    /// Waits for a point of time with nothing to do. Sleeping threads wake late, so the last millisecond is watched.
    fn rest_until(&mut self, time: SimTime) {
        const WATCHED: u64 = 1_000_000;
        let left = time.since(self.now()).0;
        std::thread::sleep(Duration::from_nanos(left.saturating_sub(WATCHED)));
        while self.now() < time {
            std::thread::yield_now();
        }
    }

    /// Submits the next prompt, if there is one.
    fn submit(&mut self, arrival: SimTime) -> Result<(), ExecuteError> {
        let Some(prompt) = self.prompts.get(self.submitted) else { return Ok(()) };
        let id = u32::try_from(self.submitted).unwrap_or(u32::MAX);
        let prompt_tokens = u32::try_from(prompt.tokens.len()).unwrap_or(u32::MAX);
        let output_tokens = prompt.output_tokens;
        self.scheduler.submit(Request { id: RequestId(id), prompt_tokens, output_tokens })?;
        self.submitted += 1;
        let record = RequestRecord {
            id,
            arrival_ns: arrival,
            prompt_tokens,
            output_tokens: 0,
            first_token_ns: arrival,
            finished_ns: arrival,
        };
        self.records.insert(id, record);
        Ok(())
    }

    /// Writes a batch into a pass and takes it through the first stage.
    fn send(&mut self, batch: Batch) {
        let mut pass = self.spare.pop().unwrap_or_default();
        pass.clear();
        for item in &batch.items {
            let request = item.request.index();
            let (start, count) = (item.work.start() as usize, item.work.tokens() as usize);
            let (prompt, answer) = (&self.prompts[request].tokens, &self.answers[request]);
            let blocks = self.scheduler.blocks_of(item.request).iter().copied();
            let wanted = item.work.yields().then(|| count - 1);
            match item.work {
                Work::Decode { .. } => pass.push(start, &[known(prompt, answer, start)], blocks, wanted),
                Work::Prefill { .. } => {
                    let tokens: Vec<u32> = (start..start + count).map(|at| known(prompt, answer, at)).collect();
                    pass.push(start, &tokens, blocks, wanted);
                }
            }
            if wanted.is_some() {
                let ordinal = u32::try_from(answer.len() + 1).unwrap_or(u32::MAX);
                pass.choices.push((self.orders.sampling, ordinal));
            }
        }
        self.flying.push_back(Flying { batch });
        self.pipeline.send(pass);
    }

    /// Takes a pass back: its tokens go to the observer, its times into the trace. False to end the run.
    fn finish(
        &mut self,
        pass: Pass,
        arriving: &Arriving,
        observe: &mut (dyn FnMut(Token) -> bool + Send),
    ) -> Result<bool, ExecuteError> {
        let Flying { batch } = self.flying.pop_front().expect("a pass that is back was sent");
        let now = self.now();
        let tokens = u64::from(batch.shape.tokens());
        for (record, busy) in self.stages.iter_mut().zip(&pass.busy_ns) {
            record.steps += 1;
            record.tokens += tokens;
            record.busy_ns = SimDuration(record.busy_ns.0.saturating_add(*busy));
        }
        let yielding = batch.items.iter().filter(|item| item.work.yields()).map(|item| item.request);
        let ended: Vec<RequestId> = yielding
            .zip(&pass.chosen)
            .filter(|(_, token)| self.orders.stop.contains(token))
            .map(|(request, _)| request)
            .collect();
        let completed = self.scheduler.complete(batch, &ended, now);
        let mut go_on = true;
        for (out, &token) in completed.tokens.iter().zip(&pass.chosen) {
            let request = out.request.0;
            self.answers[out.request.index()].push(token);
            if let Some(record) = self.records.get_mut(&request) {
                record.output_tokens = out.ordinal;
                record.finished_ns = now;
                if out.ordinal == 1 {
                    record.first_token_ns = now;
                }
            }
            go_on &= observe(Token { request, ordinal: out.ordinal, token });
        }
        self.spare.push(pass);
        if matches!(arriving, Arriving::Clients(_)) && go_on {
            for _ in &completed.finished {
                let now = self.now();
                self.submit(now)?;
            }
        }
        Ok(go_on)
    }

    fn end(mut self, interrupted: bool) -> Executed {
        let end_ns = self.now();
        let mut devices: Vec<DeviceRecord> = Vec::new();
        for stage in &self.stages {
            devices.push(DeviceRecord {
                name: stage.device.clone(),
                busy_ns: stage.busy_ns,
                energy_joules: None,
                temperature_max_celsius: None,
                throttled_ns: None,
                throttled_after_ns: None,
                sustained_speed: None,
                source: "no sensor".to_owned(),
                samples: Vec::new(),
            });
        }
        let trace = Trace {
            origin: Origin::Measured,
            requests: self.records.into_values().filter(|record| record.output_tokens > 0).collect(),
            stages: self.stages,
            devices,
            end_ns,
            steps: Vec::new(),
        };
        Executed { trace, answers: self.answers, interrupted }
    }
}

/// The token at a position of a request: of its prompt, then of its answer so far.
fn known(prompt: &[u32], answer: &[u32], position: usize) -> u32 {
    prompt.get(position).or_else(|| answer.get(position - prompt.len())).copied().expect("only known tokens are fed")
}
