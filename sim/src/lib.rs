#![forbid(unsafe_code)]
//! Discrete-event simulation of a plan in time and temperature.
//!
//! [`simulate`] answers: if this plan served this load, how long would requests take, how busy, how warm and how hungry
//! would the devices be? It runs the same [`Scheduler`](isotherm_core::serving::Scheduler) that the runtime runs, or
//! another named [`policy`], on devices that take the time that [`PlacementProblem::step`] says.
//!
//! What a replication contains:
//!
//! * a coordinator that forms batches, one [`policy`] per route, and deals requests to routes by share;
//! * one server per device, first come first served, whose speed follows its clock and its co-run sets;
//! * links and shared capacities, divided max-min fairly or served in turn ([`network`]);
//! * power, energy and temperature of each device, exact between events ([`body`]).
//!
//! Time is whole nanoseconds, order is (time, sequence) ([`queue`]), chance is a seeded stream per name ([`random`]).
//! Replications run in parallel, a single one never does, so the digest of a report depends on nothing but plan,
//! problem, load and seed.

pub mod body;
mod carry;
mod events;
mod failures;
pub mod heat;
pub mod holds;
mod load;
pub mod network;
pub mod pile;
pub mod policy;
pub mod queue;
pub mod random;
pub mod replica;
mod report;
pub mod router;
pub mod sample;
pub mod sensitivity;
mod setup;
mod tally;
mod world;

use isotherm_core::check::FeasiblePlan;
use isotherm_core::problem::{Choices, PlacementProblem};
use isotherm_core::record::SimulationReport;
use isotherm_core::serving::ServingError;
use isotherm_core::units::Watts;
use isotherm_core::workload::replay::Replay;
use isotherm_core::workload::{Arrivals, Workload};
use policy::PolicyName;
use rayon::prelude::*;
use router::RouterName;
use std::sync::atomic::AtomicBool;

/// How to simulate.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seed of everything random. Replication `i` draws from streams of (seed, i, name).
    pub seed: u64,
    /// Number of independent replications, at least 1.
    pub seeds: u32,
    /// What decides which request runs next.
    pub policy: PolicyName,
    /// Which route a request takes.
    pub router: RouterName,
    /// Whether the report says where the time of requests went.
    pub attribution: bool,
    /// Whether the report holds the trace of the first replication.
    pub trace: bool,
    /// Most steps of devices in that trace.
    pub steps_max: usize,
    /// Most events of one replication: a guard against inputs that would take for ever.
    pub events_max: u64,
    /// Raised by whoever wants every replication to stop; none where nobody will.
    pub interrupt: Option<&'static AtomicBool>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            seeds: 1,
            policy: PolicyName::Isotherm,
            router: RouterName::Share,
            attribution: false,
            trace: false,
            steps_max: 0,
            events_max: 1_000_000_000,
            interrupt: None,
        }
    }
}

/// Why a plan cannot be simulated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SimulateError {
    /// Only rates are known of a device.
    #[error(
        "device {0:?} states only output rates, and a simulation needs the time of each step; \
         probe it, or give it an operator profile or its memory bandwidth in place of rates"
    )]
    RatesOnly(String),
    /// Nothing is known of a device's speed.
    #[error("neither the speed nor the memory bandwidth of device {0:?} is known; probe it")]
    NoTimes(String),
    /// The plan names a device that the problem does not have.
    #[error("the plan names device {0:?}, which is not in this problem; simulate it with the devices it was made for")]
    UnknownDevice(String),
    /// A route names a stage that the plan does not have.
    #[error("a route names stage {0}, which the plan does not have")]
    UnknownStage(u32),
    /// No request could be served.
    #[error("the plan has no route that a request could take")]
    NoRoute,
    /// Two places are not connected by links of known latency and bandwidth.
    #[error("there is no way from {from:?} to {to:?} by links whose latency and bandwidth are known; measure them")]
    NoWay {
        /// Where it would begin.
        from: String,
        /// Where it would end.
        to: String,
    },
    /// A condition names a link that is not there.
    #[error(
        "the conditions name a link from {from:?} to {to:?}, and the device graph has none; links of these places: {known}"
    )]
    UnknownLink {
        /// Where it would begin.
        from: String,
        /// Where it would end.
        to: String,
        /// Links that begin or end there.
        known: String,
    },
    /// A condition names a shared capacity that is not there.
    #[error("cross traffic loads the shared capacity {0:?}, which is not in the device graph; name one of its groups")]
    UnknownGroup(String),
    /// A failure names a device that is not there.
    #[error("a failure names device {0:?}, which is not in the device graph; name one of its devices")]
    UnknownFailing(String),
    /// A prepared plan where formats or groups were chosen.
    #[error("a plan can be kept for a loss only where the scenario leaves nothing to choose; take [choices] out")]
    FallbackChoices,
    /// Capacities change while messages are served in turn.
    #[error(
        "links that fail, and cross traffic that comes and goes, change capacities under way, and first-come-first-served \
         links settle each message when it is sent; use fair sharing"
    )]
    ChangingFifo,
    /// A count that must be at least one is zero.
    #[error("{0} is 0; it must be above zero")]
    Zero(&'static str),
    /// A policy that divides the requests by the stages has none for one of them.
    #[error(
        "policy {policy} divides serving.requests_max, which is {requests_max}, by the {stages} stages of a route; raise \
         serving.requests_max to at least the number of stages"
    )]
    FewRequests {
        /// The policy.
        policy: PolicyName,
        /// Requests at once.
        requests_max: u32,
        /// Stages of the route.
        stages: usize,
    },
    /// A length whose most is below its least.
    #[error("{what} has at least {min} and at most {max} tokens; the greatest must not be below the least")]
    Reversed {
        /// Which length.
        what: &'static str,
        /// Its least.
        min: u32,
        /// Its greatest.
        max: u32,
    },
    /// The longest request does not fit the cache of a stage.
    #[error(
        "the longest request of the load needs {needed} cache blocks on each route, and device {device:?} has {blocks} \
         for {routes}; plan for this load, or for fewer routes through one stage"
    )]
    CacheTooSmall {
        /// The device.
        device: String,
        /// Blocks that the longest request needs.
        needed: u64,
        /// Blocks that the plan gives the stage there.
        blocks: u32,
        /// Routes that pass it.
        routes: usize,
    },
    /// A plan caps the power of a device whose power is not known.
    #[error("the plan caps device {device:?} at {cap}, and its idle and busy power are not known; measure them")]
    CapWithoutPower {
        /// The device.
        device: String,
        /// The cap.
        cap: Watts,
    },
    /// A power cap leaves nothing to work with.
    #[error("the plan caps device {device:?} at {cap}, which is not above its idle power of {idle}; raise the cap")]
    CapBelowIdle {
        /// The device.
        device: String,
        /// The cap.
        cap: Watts,
        /// Power that it draws idle.
        idle: Watts,
    },
    /// The guard against endless runs stopped a replication.
    #[error(
        "a replication took {events_max} events and answered {finished} requests by then; \
         simulate fewer requests or raise the limit"
    )]
    TooManyEvents {
        /// The limit.
        events_max: u64,
        /// Requests answered.
        finished: u32,
    },
    /// Somebody raised the flag that stops a simulation.
    #[error("interrupted after {finished} of {requests} requests of a run; simulate fewer requests, or let it end")]
    Interrupted {
        /// Requests answered by then, in one replication.
        finished: u32,
        /// Requests that the replication has.
        requests: u32,
    },
    /// A replication would take longer than 584 years.
    #[error("a replication would take more than 584 simulated years; raise the rates or shorten the load")]
    Endless,
    /// The load is recorded, and the recording was not given.
    #[error("the load is recorded; give the recording")]
    NoRecording,
    /// Nothing is pending and requests are unanswered: the policy can never serve them.
    #[error(
        "policy {policy} can serve none of the {waiting} requests that wait: the next one does not fit the step of at \
         most {step_tokens_max} tokens or the cache; raise serving.step_tokens_max or serving.kv_blocks"
    )]
    Stuck {
        /// The policy.
        policy: PolicyName,
        /// Requests that wait.
        waiting: u32,
        /// Tokens of a step.
        step_tokens_max: u32,
    },
    /// A device stopped for want of energy, and what it held is never answered.
    #[error(
        "the battery of device {device:?} is empty after {finished} answered requests and nothing charges it; \
         shorten the load, enlarge or charge the battery, or plan without the device"
    )]
    BatteryEmpty {
        /// The device.
        device: String,
        /// Requests answered by then.
        finished: u32,
    },
    /// A case names a device twice, or one that is not there.
    #[error("chassis {chassis:?} names device {device:?}, which {why}")]
    Chassis {
        /// The case.
        chassis: String,
        /// The device.
        device: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Cache would move under a policy that moves none.
    #[error(
        "policy {0} neither swaps cache nor hands it over; serve under policy isotherm, or leave serving.kv_swap_blocks and \
         [disaggregation] out"
    )]
    MovesNothing(PolicyName),
    /// Nobody says where a device's host has its memory.
    #[error(
        "device {device:?} swaps cache to the memory of host {host:?}, and no way to it is known; state \
         network.within_host, or leave serving.kv_swap_blocks out"
    )]
    NoHostMemory {
        /// The device.
        device: String,
        /// Its host.
        host: String,
    },
    /// A device whose cache is in its host's memory already.
    #[error(
        "device {0:?} keeps its cache in its host's memory, which is where cache is swapped to; leave \
         serving.kv_swap_blocks out"
    )]
    SwapsToItself(String),
    /// The devices that prefill include one that is not there.
    #[error("disaggregation.prefill names device {0:?}, which is not in the device graph; name devices of the plan")]
    UnknownPrefill(String),
    /// A route both prefills and decodes.
    #[error(
        "a route passes {one:?} and {other:?}, of which disaggregation.prefill names only one; name all devices of a \
         route, or none"
    )]
    MixedRoute {
        /// Its first device.
        one: String,
        /// One of the other kind.
        other: String,
    },
    /// No route does one of the two.
    #[error(
        "no route of the plan {0}; plan more than one route, and name the devices of some in disaggregation.prefill"
    )]
    EmptyPool(&'static str),
    /// The serving policy refused a limit or a request.
    #[error("the serving loop refused: {0}")]
    Serving(#[from] ServingError),
}

/// The requests that a plan is asked to serve.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// Drawn anew for each seed.
    Drawn(&'a Workload),
    /// Recorded; in the place of the problem's own load.
    Recorded(&'a Replay),
}

impl Asked<'_> {
    /// The load in a few figures, and its recording where it has one. Errors: it is called recorded, and nothing was.
    fn parts(&self) -> Result<(Workload, Option<&Replay>), SimulateError> {
        match *self {
            Self::Drawn(workload) if matches!(workload.arrivals, Arrivals::Recorded { .. }) => {
                Err(SimulateError::NoRecording)
            }
            Self::Drawn(workload) => Ok((workload.clone(), None)),
            Self::Recorded(load) => {
                let (prompt_tokens, output_tokens) = load.lengths();
                let requests = u32::try_from(load.requests().len()).unwrap_or(u32::MAX);
                let arrivals = Arrivals::Recorded { digest: load.digest() };
                Ok((Workload { arrivals, prompt_tokens, output_tokens, requests }, Some(load)))
            }
        }
    }
}

/// Predicts what a plan does under a load.
///
/// The metrics are over all requests of all replications; percentiles are of all of them together, never averages of
/// percentiles. The digest is over every event of every replication and does not depend on the number of threads.
///
/// Errors: see [`SimulateError`]. A plan that breaks its promises is an answer, not an error.
pub fn simulate(
    plan: &FeasiblePlan,
    problem: &PlacementProblem,
    workload: &Workload,
    options: &Options,
) -> Result<SimulationReport, SimulateError> {
    replications(plan, None, problem, Asked::Drawn(workload), options)
}

/// Predicts what a plan does under a recorded load, in the place of the problem's own.
///
/// As [`simulate`], but that nothing of the load is drawn.
pub fn replay(
    plan: &FeasiblePlan,
    problem: &PlacementProblem,
    load: &Replay,
    options: &Options,
) -> Result<SimulationReport, SimulateError> {
    replications(plan, None, problem, Asked::Recorded(load), options)
}

/// Predicts what a plan does when devices are lost and a second plan is kept for that: see [`simulate`].
///
/// Once the loss of a device that the second plan does without is detected, the first plan is given up as a whole, the
/// weights that the second one's devices lack come from the coordinator over the links, and then it serves, to the end.
///
/// Errors: see [`SimulateError`].
pub fn rehearse(
    plan: &FeasiblePlan,
    fallback: &FeasiblePlan,
    problem: &PlacementProblem,
    asked: Asked<'_>,
    options: &Options,
) -> Result<SimulationReport, SimulateError> {
    // What lies elsewhere follows from the layers, and is no choice.
    if !(Choices { offload: false, ..problem.limits.choices.clone() }).is_none() {
        return Err(SimulateError::FallbackChoices);
    }
    replications(plan, Some(fallback), problem, asked, options)
}

fn replications(
    plan: &FeasiblePlan,
    fallback: Option<&FeasiblePlan>,
    problem: &PlacementProblem,
    asked: Asked<'_>,
    options: &Options,
) -> Result<SimulationReport, SimulateError> {
    if options.seeds == 0 {
        return Err(SimulateError::Zero("the number of seeds"));
    }
    let (workload, recording) = asked.parts()?;
    let (chosen, spoken) = problem.spoken(plan.plan());
    let setup = setup::Setup::new(&spoken, fallback.map(FeasiblePlan::plan), &chosen, &workload, recording)?;
    let outcomes: Vec<world::Outcome> = (0..options.seeds)
        .into_par_iter()
        .map(|replication| world::World::new(&setup, options, replication)?.run(options.events_max))
        .collect::<Result<_, _>>()?;
    Ok(report::report(plan.plan(), &setup, outcomes, options))
}
