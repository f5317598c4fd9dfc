//! The door to execution: a feasible plan in, tokens as they come, a trace of what happened out.
//!
//! The thread that calls is the coordinator: it drives the scheduler (the very same state machine that the simulator
//! drives), sends batches into the first stage and takes them from the last. As many batches are on their way at once
//! as there are stages.

mod cancels;
mod driver;
mod error;
mod idle;
mod neighbours;

pub use cancels::Cancels;
pub use error::ExecuteError;
pub use idle::Idle;
pub use neighbours::Neighbours;

use crate::backend::routes::{self, Routes};
use crate::cpu::attention::CACHE_BLOCK;
use crate::cpu::neighbours::settle;
use crate::engine::cache::blocks_for;
use crate::engine::pipeline::StagePlace;
use crate::engine::stage::{StageSpec, supported};
use crate::engine::{Card, CpuDevice, Kernels, Likelihood, Offloaded, Sampling};
use crate::model::Geometry;
use crate::model::gguf::Gguf;
use driver::Driver;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::cost::StepShape;
use isotherm_core::graph::DeviceGraph;
use isotherm_core::plan::{Plan, Stage};
use isotherm_core::trace::Trace;
use isotherm_core::units::{Bytes, SimDuration, SimTime};
use isotherm_core::workload::Serving;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

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
    /// Tokens that end an answer; none to always give as many as asked for.
    pub stop: &'a [u32],
    /// Most requests that wait for admission: whoever comes beyond them is refused at once. Any number where absent.
    pub waiting_max: Option<u32>,
    /// Requests that others take back while they run.
    pub cancels: Option<&'a Cancels>,
    /// Memory that is free on this host; unknown where absent.
    pub memory_available: Option<Bytes>,
    /// How much memory the processor's weights may take; as much as they want where absent.
    pub weights_budget: Option<WeightsBudget>,
    /// A folder with room for the layers that the plan leaves on a disk, in a file without a name; the one for temporary
    /// files where absent.
    pub weights_folder: Option<PathBuf>,
    /// Whether stages look after each pass, for some twenty microseconds, for neighbours on their physical cores.
    pub looks_beside: bool,
    /// Steps that are done and timed, in turn, while no request is there: how fast the devices are meanwhile.
    pub idle: &'a [StepShape],
    /// Whether what each step took is kept.
    pub keeps_steps: bool,
}

/// How much memory weights may take, and where those go that do not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightsBudget {
    /// Bytes of weights in memory at most, with the two buffers through which the others pass.
    pub bytes: Bytes,
    /// A folder with room for the others, in a file without a name. It should be on a disk: in memory it saves none.
    pub folder: PathBuf,
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Its tokens, at least one.
    pub tokens: Vec<u32>,
    /// Most tokens of the answer, at least 1.
    pub output_tokens: u32,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// How long after its arrival it is given up, answered or not; never where absent.
    pub deadline: Option<SimDuration>,
}

impl Prompt {
    /// A request whose likeliest tokens are taken, without a deadline.
    #[must_use]
    pub fn greedy(tokens: Vec<u32>, output_tokens: u32) -> Self {
        Self { tokens, output_tokens, sampling: Sampling::GREEDY, deadline: None }
    }
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Token<'a> {
    /// Position of its request among the prompts.
    pub request: u32,
    /// Which token of its answer it is, from 1.
    pub ordinal: u32,
    /// The token.
    pub token: u32,
    /// How likely it was, where its sampling asks for that.
    pub likelihood: Option<&'a Likelihood>,
}

/// What an observer wants after a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    GoOn,
    /// The token ends its answer, as where the text holds a stop string.
    EndAnswer,
    /// The whole run ends after the passes on their way.
    EndRun,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All tokens asked for are out.
    Length,
    /// A token or the observer ended the answer.
    Stopped,
    /// Its deadline passed.
    Deadline,
    /// It was taken back.
    Cancelled,
    /// Too many others were waiting when it came.
    Refused,
    /// The run ended before it did.
    Interrupted,
}

impl Ending {
    /// Its name in tables: `length`, `stop`, `deadline`, `cancelled`, `refused`, `interrupted`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Stopped => "stop",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether the answer is whole.
    #[must_use]
    pub const fn is_answered(self) -> bool {
        matches!(self, Self::Length | Self::Stopped)
    }
}

/// A step that was done for requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Its shape.
    pub shape: StepShape,
    /// How long each stage was busy with it, in the plan's order.
    pub busy: Vec<SimDuration>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Executed {
    /// Times of requests and stages. Requests that were refused, taken back or given up are not in it: their times are not
    /// those of an answer.
    pub trace: Trace,
    /// The answers, in the order of the prompts; those cut short hold what there was.
    pub answers: Vec<Vec<u32>>,
    /// How each request ended, in the order of the prompts.
    pub endings: Vec<Ending>,
    /// How often a request gave up its cache to an older one.
    pub preemptions: u64,
    /// Whether the observer ended the run.
    pub interrupted: bool,
    /// What bringing layers from a file did; absent where all weights were held.
    pub offloaded: Option<Offloaded>,
    /// What neighbours on the same physical cores did; absent where nobody asked.
    pub neighbours: Option<Neighbours>,
    /// What the steps took that were asked for while no request was there; without those that no stage has room for.
    pub idle: Vec<Idle>,
    /// All steps in order; empty where nobody asked.
    pub steps: Vec<Taken>,
}

/// Executes a plan on this host's devices. `observe` is told of every token, in order, and may end its answer or the run.
///
/// # Errors
/// Before anything runs: a device is absent, memory is short, the plan is for another model, a request does not fit.
pub fn execute(
    orders: &Orders<'_>,
    prompts: &[Prompt],
    arriving: &Arriving,
    observe: &mut (dyn FnMut(Token<'_>) -> Verdict + Send),
) -> Result<Executed, ExecuteError> {
    let places = places(orders, prompts)?;
    if let Arriving::At(times) = arriving
        && (times.len() != prompts.len() || !times.is_sorted())
    {
        return Err(ExecuteError::Arrivals { prompts: prompts.len(), times: times.len() });
    }
    if orders.looks_beside {
        let cores: BTreeSet<usize> = places.iter().flat_map(|place| place.device.cores.iter().copied()).collect();
        settle(&Vec::from_iter(cores));
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
    if plan.is_divided() {
        return Err(ExecuteError::Divided);
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
    // What a card does not hold lies in the host's memory.
    let elsewhere = |stage: &Stage| {
        let known = stage.devices.first().and_then(|name| orders.graph.find(name)).map(|id| orders.graph.device(id));
        if known.is_some_and(|device| device.backend == "cpu") { Bytes::ZERO } else { stage.bytes.away }
    };
    let needed: Bytes = plan.stages.iter().map(|stage| stage.bytes.total.saturating_add(elsewhere(stage))).sum();
    // Of the weights no more than the budget is held.
    let weights: Bytes = plan.stages.iter().map(|stage| stage.bytes.weights).sum();
    let spared = orders.weights_budget.as_ref().map_or(0, |budget| weights.0.saturating_sub(budget.bytes.0));
    let needed = Bytes(needed.0.saturating_sub(spared));
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
                    away: stage.bytes.away_layers as usize,
                    folder: orders.weights_folder.clone(),
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

/// The cores or the card of a planned device, if they are here.
///
/// # Errors
/// The device is not known, not here, or nothing here drives it.
pub fn device(graph: &DeviceGraph, name: &str) -> Result<CpuDevice, ExecuteError> {
    let absent = |why: String| ExecuteError::Absent { device: name.to_owned(), why };
    let known = graph.find(name).map(|id| graph.device(id)).ok_or_else(|| absent("no such device is known".into()))?;
    if known.backend != "cpu" {
        return card(known, name).map_err(absent);
    }
    let here = CpuDevice::host_cores();
    let cores: Vec<usize> = known.cores.iter().map(|&core| core as usize).collect();
    match cores.iter().find(|core| !here.is_empty() && !here.contains(core)) {
        Some(core) => Err(absent(format!("this process may not use core {core}"))),
        None if cores.is_empty() => Err(absent("it has no cores".into())),
        None => Ok(CpuDevice::new(name, cores).slowed(known.slowed)),
    }
}

/// The card of a planned device, if it is here. Errors: why it is not.
fn card(known: &isotherm_core::device::Device, name: &str) -> Result<CpuDevice, String> {
    let backend = known.backend.as_str();
    let platforms = routes::platforms();
    if !platforms.iter().any(|platform| platform.name() == backend) {
        return Err(format!("no backend here drives {backend:?} devices"));
    }
    let routes = Routes::discover(platforms, &[backend]);
    if let Some((_, why)) = routes.absent.first() {
        return Err(why.to_string());
    }
    let route = routes.find(backend, name, known.uuid.as_deref(), known.pci.as_deref());
    let route = route.ok_or_else(|| format!("{backend} does not list it"))?;
    let card = Card { platform: Arc::clone(&route.platform), index: route.info.index };
    Ok(CpuDevice::of_card(name, card).slowed(known.slowed))
}
