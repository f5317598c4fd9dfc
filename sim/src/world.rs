//! One replication: the devices, links and schedulers of a plan, and the one `match` on events.
//!
//! A batch leaves the coordinator, passes every stop of its route and returns with its tokens. A device serves batches
//! one at a time, in order of arrival. The speed of what it works on changes when its clock does (heat, power cap) and
//! when another device of a co-run set starts or stops; the work left is then rescheduled exactly.

use crate::body::Samples;
use crate::carry::Carry;
use crate::events::Log;
use crate::heat::Heat;
use crate::load::Load;
use crate::network::{Delivery, Network};
use crate::policy::{Policy, PolicyName};
use crate::queue::EventQueue;
use crate::random::Stream;
use crate::router::Router;
use crate::setup::{Role, Setup};
use crate::tally::{Requests, Tally};
use crate::{Options, SimulateError};
use accounts::Accounts;
use failing::Failing;
use isotherm_core::digest::Digest;
use isotherm_core::ids::RequestId;
use isotherm_core::record::{CacheMoves, Reliability};
use isotherm_core::serving::{Batch, Request};
use isotherm_core::trace::{StageRecord, StepRecord, Trace};
use isotherm_core::units::{Bytes, Seconds, SimDuration, SimTime};
use moves::Moves;
use std::collections::VecDeque;

mod accounts;
mod failing;
mod moves;
mod outcome;
mod pace;
mod pools;
mod recovery;
mod series;

pub use accounts::Sums;

/// What can happen.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// A request arrives at the coordinator.
    Arrive,
    /// The coordinator forms batches for a route; after everything else that is scheduled for the same moment so far.
    Schedule { route: u32 },
    /// A batch has arrived at a stop.
    Reach { route: u32, stop: u32, slot: u32 },
    /// A device is done with its batch, unless its speed changed since this was scheduled.
    Finish { server: u32, version: u32 },
    /// A batch is back at the coordinator.
    Return { route: u32, slot: u32 },
    /// A device's clock may change, unless an earlier moment was found since.
    Clock { server: u32, version: u32 },
    /// Something happens on the links, unless an earlier moment was found since.
    Links { version: u32 },
    /// Something fails or comes back.
    Incident,
    /// The coordinator learns of a loss on a route.
    Detect { route: u32 },
    /// Weights of the prepared plan are where they belong.
    Loaded { load: u32 },
    /// Cache of a request is where it belongs, or a part of it.
    Moved { route: u32, request: u32 },
    /// The coordinator learns that cache gets from one route to another no more.
    Severed { from: u32, to: u32 },
}

/// A batch at a stop.
#[derive(Debug, Clone, Copy)]
struct Task {
    route: u32,
    stop: u32,
    slot: u32,
}

/// What a device works on.
#[derive(Debug)]
struct Current {
    task: Task,
    tokens: u32,
    started: SimTime,
    /// Work left at `since`, as time at full speed.
    left: Seconds,
    since: SimTime,
    /// What the true start, or the true moment of the last change, was past `since`, in nanoseconds.
    offset: f64,
    speed: f64,
    /// What its scheduled end leaves of the last nanosecond.
    rest: f64,
}

#[derive(Debug)]
struct Server {
    waiting: VecDeque<Task>,
    current: Option<Current>,
    carry: Carry,
    version: u32,
    /// Moment of the pending clock event.
    clock_event: Option<SimTime>,
    clock_version: u32,
    record: StageRecord,
}

#[derive(Debug)]
struct Chain {
    policy: Box<dyn Policy>,
    /// Batches in flight; a slot is reused when its batch is back.
    batches: Vec<Option<Batch>>,
    scheduling: bool,
}

/// A replication under way.
#[derive(Debug)]
pub struct World<'a> {
    setup: &'a Setup<'a>,
    queue: EventQueue<Event>,
    log: Log,
    load: Load<'a>,
    router: Router,
    /// Requests that no route has room for, with the names of their prompts' blocks.
    held: VecDeque<(Request, Vec<u64>)>,
    options: &'a Options,
    network: Network<'a, Event>,
    /// Moment of the pending event of the links.
    links_event: Option<SimTime>,
    links_version: u32,
    servers: Vec<Server>,
    heat: Heat,
    /// Number of busy members of each co-run set.
    busy: Vec<usize>,
    chains: Vec<Chain>,
    requests: Requests,
    /// None where nothing may fail.
    failing: Option<Failing>,
    /// None where no cache moves.
    moves: Option<Moves>,
    /// None where nobody asked where the time went.
    accounts: Option<Accounts>,
    /// How full each device's routes are over time; empty where nobody asked.
    series: Vec<Samples>,
    /// Steps that are kept, at most `steps_max`.
    steps: Vec<StepRecord>,
    steps_max: usize,
}

/// What came of a replication.
#[derive(Debug)]
pub struct Outcome {
    /// What happened; its requests are there only where a trace is asked for.
    pub trace: Trace,
    /// What the requests took.
    pub tally: Tally,
    /// Digest of every event.
    pub digest: Digest,
    /// How failures were dealt with; none where nothing may fail.
    pub reliability: Option<Reliability>,
    /// Where the time of requests went; none where nobody asked.
    pub sums: Option<Sums>,
    /// Cache that moved; none where none could.
    pub moves: Option<CacheMoves>,
}

impl<'a> World<'a> {
    /// The world before its first event. The first replication keeps each device's state over time where a trace is
    /// asked for.
    pub fn new(setup: &'a Setup<'a>, options: &'a Options, replication: u32) -> Result<Self, SimulateError> {
        let sampled = options.trace && replication == 0;
        if !setup.moves.is_none() && !options.policy.moves_cache() {
            return Err(SimulateError::MovesNothing(options.policy));
        }
        let mut chains = Vec::with_capacity(setup.routes.len());
        for route in &setup.routes {
            let whole = options.attribution || options.trace || !setup.failures.is_empty();
            let (requests_max, stages) = (route.resources.serving.requests_max, route.stops.len());
            let divides = matches!(options.policy, PolicyName::VidurVllm | PolicyName::VidurSarathi);
            if divides && requests_max > 0 && (requests_max as usize) < stages {
                return Err(SimulateError::FewRequests { policy: options.policy, requests_max, stages });
            }
            let policy = options.policy.start(route.resources, stages, whole)?;
            chains.push(Chain { policy, batches: Vec::new(), scheduling: false });
        }
        let servers = setup.servers.iter().zip(0..).map(|(server, stage)| Server {
            waiting: VecDeque::new(),
            current: None,
            carry: Carry::default(),
            version: 0,
            clock_event: None,
            clock_version: 0,
            record: StageRecord { stage, device: server.name.clone(), steps: 0, tokens: 0, busy_ns: SimDuration(0) },
        });
        let routes = setup.shares_of(Role::Prefill);
        Ok(Self {
            servers: servers.collect(),
            heat: if sampled { setup.heat.clone().sampled() } else { setup.heat.clone() },
            queue: EventQueue::new(),
            log: Log::new(),
            load: Load::new(setup.workload, setup.recording, options.seed, replication),
            router: Router::new(options.router, &routes, Stream::new(options.seed, replication, "routes")),
            held: VecDeque::new(),
            options,
            network: Network::new(&setup.layout, options.seed, replication),
            links_event: None,
            links_version: 0,
            busy: vec![0; setup.sets.len()],
            chains,
            requests: Requests::new(sampled, setup.problem.conditions.slo),
            series: if sampled { vec![Samples::default(); setup.servers.len()] } else { Vec::new() },
            steps: Vec::new(),
            steps_max: if sampled { options.steps_max } else { 0 },
            accounts: options.attribution.then(|| Accounts::new(setup.servers.len(), setup.layout.lane_count())),
            failing: (!setup.failures.is_empty()).then(|| {
                let counts = (setup.servers.len(), setup.problem.graph.file().links.len());
                let recovery = setup.problem.conditions.recovery;
                Failing::new(setup, recovery, counts, (options.seed, replication))
            }),
            moves: Moves::new(setup, options.router, (options.seed, replication)),
            setup,
        })
    }

    /// Runs until every request is answered. Errors: that takes more than `events_max` events, or longer than the
    /// clock can count; or somebody asked to stop.
    pub fn run(mut self, events_max: u64) -> Result<Outcome, SimulateError> {
        for server in 0..self.servers.len() {
            self.watch_clock(server);
        }
        for _ in 0..self.load.at_start() {
            self.queue.schedule(SimTime::ZERO, Event::Arrive);
        }
        self.announce();
        self.watch_links();
        self.watch_failures();
        while self.requests.answered() < self.setup.workload.requests {
            let Some((now, event)) = self.queue.pop() else { return Err(self.stuck()) };
            if now == SimTime::NEVER {
                return Err(SimulateError::Endless);
            }
            self.may_go_on(events_max)?;
            self.handle(now, event)?;
        }
        Ok(self.outcome())
    }

    fn handle(&mut self, now: SimTime, event: Event) -> Result<(), SimulateError> {
        self.log.add(now, event);
        match event {
            Event::Arrive => self.arrive(now)?,
            Event::Schedule { route } => self.form_batches(now, route)?,
            Event::Reach { route, slot, .. } | Event::Return { route, slot } if self.is_doomed(route, slot) => {}
            Event::Reach { route, stop, slot } => {
                let server = self.setup.routes[route as usize].stops[stop as usize].0;
                self.servers[server].waiting.push_back(Task { route, stop, slot });
                if self.servers[server].current.is_none() {
                    self.begin(now, server);
                }
            }
            Event::Finish { server, version } if self.servers[server as usize].version == version => {
                self.finish(now, server as usize)?;
            }
            Event::Return { route, slot } => self.take_back(now, route, slot)?,
            Event::Clock { server, version } if self.servers[server as usize].clock_version == version => {
                self.clock(now, server as usize);
                self.fed()?;
            }
            Event::Links { version } if self.links_version == version => {
                self.links_event = None;
                self.network.wake(now);
                self.deliver();
                self.fed()?;
            }
            Event::Incident => {
                self.incidents(now)?;
                self.fed()?;
            }
            Event::Detect { route } => self.detect(now, route)?,
            Event::Loaded { .. } => self.loaded(now)?,
            Event::Moved { route, request } => self.moved(now, route, RequestId(request)),
            Event::Severed { from, to } => self.severed(now, (from, to))?,
            // Superseded: the speed, or the moment of the change, is another since.
            Event::Finish { .. } | Event::Clock { .. } | Event::Links { .. } => {}
        }
        Ok(())
    }

    /// Schedules the next arrival of an open stream.
    fn announce(&mut self) {
        if let Some(time) = self.load.next_arrival() {
            self.queue.schedule(time, Event::Arrive);
        }
    }

    /// Whoever arrives at this moment, so that requests that arrive together can share a batch.
    fn arrive(&mut self, now: SimTime) -> Result<(), SimulateError> {
        loop {
            self.take_in(now)?;
            match self.load.next_arrival() {
                Some(time) if time == now => {}
                Some(time) => {
                    self.queue.schedule(time, Event::Arrive);
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
    }

    fn take_in(&mut self, now: SimTime) -> Result<(), SimulateError> {
        self.ask_routes();
        let (request, prompt) = self.load.request(self.setup.problem.serving.kv_block_tokens);
        // Where routes may be lost, who takes the request is decided when it is placed.
        let chosen = if self.failing.is_some() { None } else { self.router.route(request.prompt_tokens) };
        if self.failing.is_none() && chosen.is_none() && !self.router.pulls() {
            return Err(SimulateError::NoRoute);
        }
        self.requests.arrive(&request, now);
        if let Some(accounts) = &mut self.accounts {
            accounts.arrive(now, request.id.0);
        }
        let Some(route) = chosen else {
            if self.failing.is_some() {
                return self.admit(now, request.id.index());
            }
            self.held.push_back((request, prompt.to_vec()));
            return Ok(());
        };
        moves::submit(self.chains[route].policy.as_mut(), self.setup.routes[route].role, request, prompt)?;
        self.schedule_soon(now, route);
        Ok(())
    }

    /// Tells the router how many requests wait where, if it wants to know.
    fn ask_routes(&mut self) {
        if self.router.asks() {
            for (route, chain) in self.chains.iter().enumerate() {
                self.router.tell(route, chain.policy.fullness().unwrap_or_default().waiting.into());
            }
        }
    }

    fn schedule_soon(&mut self, now: SimTime, route: usize) {
        if !std::mem::replace(&mut self.chains[route].scheduling, true) {
            self.queue.schedule(now, Event::Schedule { route: route as u32 });
        }
    }

    fn form_batches(&mut self, now: SimTime, route: u32) -> Result<(), SimulateError> {
        let chain = &mut self.chains[route as usize];
        chain.scheduling = false;
        if self.failing.as_ref().is_some_and(|failing| !failing.sends(route)) {
            return Ok(());
        }
        while let Some(batch) = chain.policy.next_batch(now) {
            let bytes = Bytes(4).saturating_mul(batch.shape.tokens().into());
            let free = chain.batches.iter().position(Option::is_none);
            let slot = free.unwrap_or_else(|| {
                chain.batches.push(None);
                chain.batches.len() - 1
            });
            chain.batches[slot] = Some(batch);
            if let Some(failing) = &mut self.failing {
                failing.passes(route, slot as u32, 0);
            }
            if let Some(accounts) = &mut self.accounts {
                accounts.form(now, route, slot as u32);
            }
            let (lane, event) =
                (self.setup.routes[route as usize].lane, Event::Reach { route, stop: 0, slot: slot as u32 });
            if !self.network.send(now, lane, bytes, event) {
                return Err(SimulateError::NoRoute);
            }
        }
        self.begin_moves(now, route)?;
        self.deliver();
        Ok(())
    }

    /// Schedules the arrivals that the network knows of, and its next event.
    fn deliver(&mut self) {
        for Delivery { at, alone, message } in self.network.take_arrived() {
            if let Some(accounts) = &mut self.accounts {
                let (route, slot, hop) = match message {
                    Event::Reach { route, stop, slot } => (route, slot, stop),
                    Event::Return { route, slot } => {
                        (route, slot, self.setup.routes[route as usize].stops.len() as u32)
                    }
                    _ => {
                        self.queue.schedule(at, message);
                        continue;
                    }
                };
                accounts.hop((route, slot), self.setup.routes[route as usize].lane + hop, at, alone);
            }
            self.queue.schedule(at, message);
        }
        self.watch_links();
    }

    /// Makes sure that an event of the links is pending no later than the next thing that happens there.
    fn watch_links(&mut self) {
        let Some(due) = self.network.due() else { return };
        if self.links_event.is_none_or(|pending| due < pending) {
            self.links_event = Some(due);
            self.links_version = self.links_version.wrapping_add(1);
            self.queue.schedule(due, Event::Links { version: self.links_version });
        }
    }

    /// An idle device takes the next batch that waits for it.
    fn begin(&mut self, now: SimTime, server: usize) {
        self.take_next(now, server);
        self.observe(now, server);
        if self.servers[server].current.is_some() {
            self.set_busy(now, server, true);
            self.reschedule(now, server);
        }
    }

    /// Puts the next waiting batch on a device, without an end yet.
    fn take_next(&mut self, now: SimTime, server: usize) {
        let Some(task) = self.servers[server].waiting.pop_front() else { return };
        let setup = self.setup;
        let shape = &self.batch(task.route, task.slot).shape;
        let (_, layers) = setup.routes[task.route as usize].stops[task.stop as usize];
        let step = setup.problem.step(setup.servers[server].device, layers, shape);
        let left = step.expect("setup refused devices without a profile");
        let tokens = shape.tokens();
        let offset = self.servers[server].carry.offset(now);
        if let Some(accounts) = &mut self.accounts {
            accounts.begin(now, server, task.route, task.slot);
        }
        let current = Current { task, tokens, started: now, left, since: now, offset, speed: 0.0, rest: 0.0 };
        self.servers[server].current = Some(current);
    }

    fn is_doomed(&self, route: u32, slot: u32) -> bool {
        self.failing.as_ref().is_some_and(|failing| failing.is_doomed(route, slot))
    }

    fn batch(&self, route: u32, slot: u32) -> &Batch {
        self.chains[route as usize].batches[slot as usize].as_ref().expect("a batch keeps its slot until it returns")
    }

    fn finish(&mut self, now: SimTime, server: usize) -> Result<(), SimulateError> {
        let held = &mut self.servers[server];
        let Some(current) = held.current.take() else { return Ok(()) };
        held.carry.end(now, current.rest);
        if let Some(accounts) = &mut self.accounts {
            accounts.finish(now, server, current.task.route, current.task.slot);
        }
        held.record.steps += 1;
        held.record.tokens += u64::from(current.tokens);
        held.record.busy_ns = SimDuration(held.record.busy_ns.0.saturating_add(now.since(current.started).0));
        if self.steps.len() < self.steps_max {
            self.keep_step(now, server, &current);
        }
        self.pass_on(now, current.task)?;
        self.take_next(now, server);
        self.observe(now, server);
        if self.servers[server].current.is_none() {
            self.set_busy(now, server, false);
            return Ok(());
        }
        self.reschedule(now, server);
        self.heat.observe(now, server);
        Ok(())
    }

    /// Sends a batch from a stop to the next, or its tokens back to the coordinator.
    fn pass_on(&mut self, now: SimTime, task: Task) -> Result<(), SimulateError> {
        let Task { route, stop, slot } = task;
        if let Some(failing) = &mut self.failing {
            if failing.is_doomed(route, slot) {
                return Ok(());
            }
            failing.passes(route, slot, stop + 1);
        }
        let shape = &self.batch(route, slot).shape;
        let (tokens, sequences) = (u64::from(shape.tokens()), u64::from(shape.sequences));
        let last = stop as usize + 1 == self.setup.routes[route as usize].stops.len();
        let (bytes, event) = if last {
            (Bytes(4).saturating_mul(sequences), Event::Return { route, slot })
        } else {
            let row = self.setup.problem.model.boundary_bytes_per_token();
            (row.saturating_mul(tokens), Event::Reach { route, stop: stop + 1, slot })
        };
        let lane = self.setup.routes[route as usize].lane + stop + 1;
        if !self.network.send(now, lane, bytes, event) {
            return Err(SimulateError::NoRoute);
        }
        self.deliver();
        Ok(())
    }

    fn take_back(&mut self, now: SimTime, route: u32, slot: u32) -> Result<(), SimulateError> {
        let chain = &mut self.chains[route as usize];
        let batch = chain.batches[slot as usize].take().expect("a batch returns once");
        if let Some(accounts) = &mut self.accounts {
            let (failing, moves, setup) = (&self.failing, &self.moves, self.setup);
            let request_of = |job| moves::request_of(failing.as_ref(), moves.as_ref(), setup, route, RequestId(job)).0;
            accounts.take_back(now, (route, slot), &batch, request_of);
        }
        // Ends of answers depend on what a model says; a simulated answer has its full length.
        let completed = chain.policy.complete(batch, &[], now);
        let watched = self.failing.is_some();
        for token in completed.tokens.iter().filter(|token| token.ordinal == 1 || watched) {
            let request = self.request_of(route, token.request);
            if self.router.counts_tokens() && (watched || token.ordinal == 1) {
                let prompt = self.requests.lengths(request).0;
                let tokens = self.failing.as_mut().map_or(prompt, |failing| failing.prefilled(request.index()));
                self.router.prefilled(route as usize, tokens);
            }
            if token.ordinal == 1
                && self.requests.first_token(request, now)
                && let Some(accounts) = &mut self.accounts
            {
                accounts.first_token(now, request.0);
            }
            if let Some(failing) = &mut self.failing {
                failing.token(now, request.index());
            }
        }
        for &job in &completed.finished {
            let request = self.request_of(route, job);
            if self.hand_over(now, route, job, request)? {
                continue;
            }
            let output_tokens = self.requests.finish(request, now);
            if let Some(accounts) = &mut self.accounts {
                accounts.answered(now, request.0, output_tokens);
            }
            if let Some(failing) = &mut self.failing {
                failing.over(request.index());
            }
            self.settled(route, job);
            if self.load.sends_again() {
                self.queue.schedule(now, Event::Arrive);
            }
        }
        let pulls = self.router.pulls() && !completed.finished.is_empty();
        self.chains[route as usize].policy.reuse(completed);
        self.schedule_soon(now, route as usize);
        if pulls { self.pull(now) } else { Ok(()) }
    }

    /// The request of what a route's policy calls a request: another one only where requests are computed again, or go on
    /// on another route.
    fn request_of(&self, route: u32, job: RequestId) -> RequestId {
        moves::request_of(self.failing.as_ref(), self.moves.as_ref(), self.setup, route, job)
    }
}
