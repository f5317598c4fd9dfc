//! What the world does when a device or link is lost, slowed or repaired.
//!
//! A lost device loses what it works on, what waits for it and all cache of the routes through it. From that moment
//! these routes send no batch any more; batches that have passed the device still bring their tokens home. The
//! coordinator acts once the loss is detected: what is left on such a route is given up, and its requests go to routes
//! that work, where they are computed again from their prompt and the tokens they have, or they are answered with an
//! error. Requests that find no route wait until one comes back, or are answered with an error where none ever will.
//!
//! A lost link costs nothing while another way leads around it. Where none does, messages wait; a repair before the
//! detection lets them go on, the detection gives the route up as above.

use super::{Event, World};
use crate::SimulateError;
use crate::failures::{Hit, Incident, Timeline};
use crate::setup::Setup;
use isotherm_core::conditions::{InFlight, Recovery, Severity};
use isotherm_core::ids::RequestId;
use isotherm_core::record::Reliability;
use isotherm_core::serving::Request;
use isotherm_core::units::{Seconds, SimTime};
use std::collections::{BTreeSet, VecDeque};

/// A route that was given up, from the loss until its requests get on again.
#[derive(Debug, Clone, Copy)]
struct Outage {
    began: SimTime,
    /// Requests thrown back that have not got a token since.
    waiting: u32,
    /// When one of them last got its next token; none where none has.
    resumed: Option<SimTime>,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    route: Option<u32>,
    /// Tokens that it has.
    produced: u32,
    attempts: u32,
    /// The outage that threw it back, until its next token.
    outage: Option<u32>,
    over: bool,
}

/// How a route stands.
#[derive(Debug, Clone, Default)]
struct RouteState {
    /// Since when it sends nothing, because of a loss that was not dealt with yet or lasts.
    halted: Option<SimTime>,
    /// Whether cache on it is gone, so that it cannot simply go on.
    broken: bool,
    /// Whether the coordinator has given it up and it has not come back.
    given_up: bool,
    /// Whether it is of a plan that does not serve: not yet, or not any more.
    shut: bool,
    /// Batches that are lost; their slots are not used again.
    doomed: BTreeSet<u32>,
    /// Stops that the batch of each slot has passed.
    passed: Vec<u32>,
}

impl RouteState {
    /// A route at the start; one of a prepared plan does not serve.
    fn of(prepared: bool) -> Self {
        Self { given_up: prepared, shut: prepared, ..Self::default() }
    }
}

/// Everything about failures in one replication.
#[derive(Debug)]
pub(super) struct Failing {
    timeline: Timeline,
    policy: Recovery,
    /// Moment of the pending incident.
    event: Option<SimTime>,
    /// Losses under way of each server, and the share of its speed that slowdowns leave.
    servers: Vec<(u32, f64)>,
    /// Share of the bandwidth that each link keeps, where it is not whole: losses, slowdowns.
    links: Vec<(u32, f64)>,
    routes: Vec<RouteState>,
    requests: Vec<Standing>,
    /// The request of each job: a request that is computed again is a new job for its route.
    jobs: Vec<u32>,
    /// Requests without a route.
    orphans: VecDeque<u32>,
    outages: Vec<Outage>,
    /// Whether the prepared plan has taken over, or is about to.
    switched: bool,
    /// Loads that it still waits for.
    loading: usize,
    tally: Reliability,
    /// When the routes that are open changed last.
    since: SimTime,
    recovered: Vec<f64>,
}

impl Failing {
    pub(super) fn new(
        setup: &Setup<'_>,
        policy: Recovery,
        (servers, links): (usize, usize),
        (seed, replication): (u64, u32),
    ) -> Self {
        Self {
            timeline: Timeline::new(&setup.failures, seed, replication),
            policy,
            event: None,
            servers: vec![(0, 1.0); servers],
            links: vec![(0, 1.0); links],
            routes: setup.routes.iter().map(|r| RouteState::of(r.prepared)).collect(),
            switched: false,
            loading: 0,
            requests: Vec::new(),
            jobs: Vec::new(),
            orphans: VecDeque::new(),
            outages: Vec::new(),
            tally: Reliability::default(),
            since: SimTime::ZERO,
            recovered: Vec::new(),
        }
    }

    /// Share of its speed that slowdowns leave a server.
    pub(super) fn speed(&self, server: usize) -> f64 {
        self.servers[server].1
    }

    /// Whether a server is lost now.
    pub(super) fn is_lost(&self, server: usize) -> bool {
        self.servers[server].0 > 0
    }

    /// Whether a route sends batches now.
    pub(super) fn sends(&self, route: u32) -> bool {
        self.routes[route as usize].halted.is_none()
    }

    /// Whether a batch is lost.
    pub(super) fn is_doomed(&self, route: u32, slot: u32) -> bool {
        self.routes[route as usize].doomed.contains(&slot)
    }

    /// Notes how many stops a batch has passed.
    pub(super) fn passes(&mut self, route: u32, slot: u32, stops: u32) {
        let passed = &mut self.routes[route as usize].passed;
        if passed.len() <= slot as usize {
            passed.resize(slot as usize + 1, 0);
        }
        passed[slot as usize] = stops;
    }

    /// The request of a job.
    pub(super) fn request_of(&self, job: RequestId) -> usize {
        self.jobs[job.index()] as usize
    }

    /// A request got a token.
    pub(super) fn token(&mut self, now: SimTime, request: usize) {
        self.requests[request].produced += 1;
        self.resume(request, Some(now));
    }

    /// A request is answered.
    pub(super) fn over(&mut self, request: usize) {
        self.requests[request].over = true;
    }

    /// A request that was thrown back got a token, or none since it was lost again or is given up. An outage after
    /// which no request got on is not one that was recovered from.
    fn resume(&mut self, request: usize, token: Option<SimTime>) {
        let Some(outage) = self.requests[request].outage.take() else { return };
        let outage = &mut self.outages[outage as usize];
        outage.waiting -= 1;
        outage.resumed = token.or(outage.resumed);
        if let (0, Some(last)) = (outage.waiting, outage.resumed) {
            self.recovered.push(last.since(outage.began).seconds().value());
        }
    }

    /// Adds up the time since routes opened or closed last.
    fn settle(&mut self, now: SimTime, shares: &[f64]) {
        let span = now.since(self.since).seconds();
        self.since = now;
        let open = |route: &RouteState| route.halted.is_none() && !route.given_up;
        // The shares of a plan add to one, and one plan serves at a time.
        let whole = 1.0_f64;
        let up: f64 = self.routes.iter().zip(shares).filter(|(route, _)| open(route)).map(|(_, share)| share).sum();
        self.tally.available_seconds += span * (up / whole);
        if self.routes.iter().any(open) {
            self.tally.serving_seconds += span;
        }
    }

    /// What came of it all.
    pub(super) fn finish(mut self, end: SimTime, shares: &[f64]) -> Reliability {
        self.settle(end, shares);
        self.tally.total_seconds = end.seconds();
        self.tally.outages = self.outages.len() as u64;
        self.tally.recoveries = self.recovered.len() as u64;
        let sum = self.recovered.iter().fold(0.0, |sum, span| sum + span);
        let most = self.recovered.iter().copied().reduce(f64::max);
        self.tally.recovery_seconds_sum = Seconds::of(sum);
        self.tally.recovery_seconds_max = most.map(Seconds::of);
        self.tally
    }
}

/// Losses under way, and the share of the speed that slowdowns leave, after one more of these begins or ends.
fn turn(state: &mut (u32, f64), severity: Severity, begins: bool) -> (u32, f64) {
    match (severity, begins) {
        (Severity::Lost, true) => state.0 += 1,
        (Severity::Lost, false) => state.0 -= 1,
        (Severity::Slowed(factor), true) => state.1 *= factor,
        (Severity::Slowed(factor), false) => state.1 /= factor,
    }
    // Dividing by what was multiplied by may leave the last digit wrong.
    if (state.1 - 1.0).abs() < 1e-12 {
        state.1 = 1.0;
    }
    *state
}

impl World<'_> {
    fn failing(&mut self) -> &mut Failing {
        self.failing.as_mut().expect("only worlds in which something may fail come here")
    }

    /// Makes sure that an event is pending no later than the next incident.
    pub(super) fn watch_failures(&mut self) {
        let Some(failing) = &mut self.failing else { return };
        let Some(due) = failing.timeline.due() else { return };
        if failing.event.is_none_or(|pending| due < pending) {
            failing.event = Some(due);
            self.queue.schedule(due, Event::Incident);
        }
    }

    /// What is due by now fails or comes back.
    pub(super) fn incidents(&mut self, now: SimTime) -> Result<(), SimulateError> {
        self.failing().event = None;
        let shares = self.shares();
        self.failing().settle(now, &shares);
        while let Some(incident) = self.failing().timeline.next(now) {
            self.incident(now, incident);
        }
        self.reopen(now)?;
        self.watch_failures();
        self.deliver();
        Ok(())
    }

    fn shares(&self) -> Vec<f64> {
        self.setup.routes.iter().map(|route| route.share).collect()
    }

    fn incident(&mut self, now: SimTime, Incident { hit, severity, begins }: Incident) {
        let failing = self.failing();
        failing.tally.incidents += u64::from(begins);
        match hit {
            Hit::Link(link, back) => {
                for link in std::iter::once(link).chain(back) {
                    let state = turn(&mut self.failing().links[link.index()], severity, begins);
                    self.network.degrade(now, link, if state.0 > 0 { 0.0 } else { state.1 });
                }
                self.halt_cut_routes(now);
            }
            Hit::Server(server) => {
                let losses = turn(&mut failing.servers[server], severity, begins).0;
                match severity {
                    Severity::Lost if begins && losses == 1 => self.lose_server(now, server),
                    Severity::Lost => {}
                    Severity::Slowed(_) => self.reschedule(now, server),
                }
            }
        }
    }

    /// A server is gone with everything on it.
    fn lose_server(&mut self, now: SimTime, server: usize) {
        let held = &mut self.servers[server];
        held.waiting.clear();
        held.version = held.version.wrapping_add(1);
        if let Some(current) = held.current.take() {
            let busy = now.since(current.started).0;
            held.record.busy_ns.0 = held.record.busy_ns.0.saturating_add(busy);
            self.set_busy(now, server, false);
        }
        let setup = self.setup;
        for route in 0..setup.routes.len() {
            let Some(stop) = setup.routes[route].stops.iter().position(|&(at, _)| at == server) else { continue };
            let slots = self.chains[route].batches.len() as u32;
            let in_flight: Vec<u32> =
                (0..slots).filter(|&slot| self.chains[route].batches[slot as usize].is_some()).collect();
            let state = &mut self.failing().routes[route];
            // A route that is given up comes back empty: what it loses now was thrown back before.
            state.broken |= !state.given_up;
            // Whatever has not passed the lost stop never will.
            let lost = in_flight.into_iter().filter(|&slot| state.passed[slot as usize] <= stop as u32);
            let lost: Vec<u32> = lost.collect();
            state.doomed.extend(lost);
            self.halt(now, route);
        }
        self.forget_doomed();
    }

    /// Takes lost batches out of every queue that they wait in.
    fn forget_doomed(&mut self) {
        let Some(failing) = &self.failing else { return };
        for server in &mut self.servers {
            server.waiting.retain(|task| !failing.is_doomed(task.route, task.slot));
        }
    }

    /// Stops a route until the coordinator knows what to do.
    fn halt(&mut self, now: SimTime, route: usize) {
        let detect = self.failing().policy.detect;
        let state = &mut self.failing().routes[route];
        if state.halted.is_none() && !state.given_up {
            state.halted = Some(now);
            let due = now + detect.whole_nanoseconds(0.0).0;
            self.queue.schedule(due, Event::Detect { route: route as u32 });
        }
    }

    fn halt_cut_routes(&mut self, now: SimTime) {
        for route in 0..self.setup.routes.len() {
            if !self.is_connected(route) {
                self.halt(now, route);
            }
        }
    }

    fn is_connected(&mut self, route: usize) -> bool {
        let setup = &self.setup.routes[route];
        let lanes = setup.lane..=setup.lane + setup.stops.len() as u32;
        lanes.into_iter().all(|lane| self.network.connected(lane))
    }

    /// Whether everything on a route is there.
    fn is_whole(&mut self, route: usize) -> bool {
        if self.failing().routes[route].shut {
            return false;
        }
        let setup = self.setup;
        let servers = setup.routes[route].stops.iter().all(|&(server, _)| !self.failing().is_lost(server));
        servers && self.is_connected(route)
    }

    /// The coordinator learns of a loss on a route.
    pub(super) fn detect(&mut self, now: SimTime, route: u32) -> Result<(), SimulateError> {
        let detect = self.failing().policy.detect.whole_nanoseconds(0.0).0;
        if self.failing().routes[route as usize].halted.is_some_and(|began| now < began + detect) {
            // Of a loss that was over before anybody noticed; that of the present one is still to come.
            return Ok(());
        }
        let shares = self.shares();
        self.failing().settle(now, &shares);
        let avoided = |failing: &Failing| self.setup.avoided.iter().any(|&server| failing.is_lost(server));
        let switches = self.failing.as_ref().is_some_and(|failing| !failing.switched && avoided(failing));
        if switches {
            return self.switch(now);
        }
        let whole = self.is_whole(route as usize);
        let state = &mut self.failing().routes[route as usize];
        let Some(began) = state.halted.take() else { return Ok(()) };
        if !state.broken && whole {
            // A link was away for a moment; its messages waited.
            self.schedule_soon(now, route as usize);
            return Ok(());
        }
        state.broken = false;
        state.given_up = !whole;
        self.give_up(now, route as usize, began)?;
        self.reopen(now)
    }

    /// Gives the plan up and begins to load the prepared one.
    fn switch(&mut self, now: SimTime) -> Result<(), SimulateError> {
        let setup = self.setup;
        self.failing().switched = true;
        for route in (0..setup.routes.len()).filter(|&route| !setup.routes[route].prepared) {
            let state = &mut self.failing().routes[route];
            (state.given_up, state.shut, state.broken) = (true, true, false);
            let began = state.halted.take().unwrap_or(now);
            self.give_up(now, route, began)?;
        }
        self.failing().loading = setup.loads.len();
        for (load, of) in (0..).zip(&setup.loads) {
            if !self.network.send(now, of.lane, of.bytes, Event::Loaded { load }) {
                return Err(SimulateError::NoRoute);
            }
        }
        self.deliver();
        if setup.loads.is_empty() { self.take_over(now) } else { Ok(()) }
    }

    /// Weights have arrived.
    pub(super) fn loaded(&mut self, now: SimTime) -> Result<(), SimulateError> {
        let failing = self.failing();
        failing.loading -= 1;
        if failing.loading == 0 { self.take_over(now) } else { Ok(()) }
    }

    /// The prepared plan serves from now on.
    fn take_over(&mut self, now: SimTime) -> Result<(), SimulateError> {
        let (setup, shares) = (self.setup, self.shares());
        self.failing().settle(now, &shares);
        for route in (0..setup.routes.len()).filter(|&route| setup.routes[route].prepared) {
            self.failing().routes[route].shut = false;
        }
        self.reopen(now)
    }

    /// Leaves a route's batches and throws its requests back.
    fn give_up(&mut self, now: SimTime, route: usize, began: SimTime) -> Result<(), SimulateError> {
        let setup = &self.setup.routes[route];
        let slots = (0..).zip(&self.chains[route].batches);
        let in_flight: Vec<u32> = slots.filter(|(_, batch)| batch.is_some()).map(|(slot, _)| slot).collect();
        self.failing().routes[route].doomed.extend(in_flight);
        for lane in setup.lane..=setup.lane + setup.stops.len() as u32 {
            self.network.clear(now, lane);
        }
        self.forget_doomed();
        if let Some(moves) = &mut self.moves {
            moves.forget(route as u32);
        }
        self.chains[route].policy = self.options.policy.start(setup.resources, setup.stops.len(), true)?;
        let failing = self.failing();
        let of_route = |standing: &&Standing| standing.route == Some(route as u32) && !standing.over;
        let waiting = failing.requests.iter().filter(of_route).count() as u32;
        if waiting == 0 {
            return Ok(());
        }
        let outage = failing.outages.len() as u32;
        failing.outages.push(Outage { began, waiting, resumed: None });
        for request in 0..failing.requests.len() {
            let failing = self.failing();
            let standing = &mut failing.requests[request];
            if standing.over || standing.route != Some(route as u32) {
                continue;
            }
            standing.route = None;
            standing.attempts += 1;
            if let Some(accounts) = &mut self.accounts {
                accounts.recover(now, request as u32);
            }
            let Some(failing) = &mut self.failing else { return Ok(()) };
            let standing = &mut failing.requests[request];
            // A request that is thrown back again counts with its latest outage; the one before has it back.
            let (attempts, before) = (standing.attempts, standing.outage);
            if before.is_some() {
                failing.resume(request, None);
            }
            failing.requests[request].outage = Some(outage);
            self.router.settled(route);
            let failing = self.failing();
            if failing.policy.in_flight == InFlight::Fail || attempts > failing.policy.attempts_max {
                self.fail(now, request);
            } else {
                let standing = failing.requests[request];
                failing.tally.recomputed_requests += 1;
                let prompt = self.requests.lengths(RequestId(request as u32)).0;
                self.failing().tally.recomputed_tokens +=
                    u64::from(if standing.produced > 0 { prompt + standing.produced - 1 } else { 0 });
                self.failing().orphans.push_back(request as u32);
            }
        }
        Ok(())
    }

    /// Answers a request with an error.
    fn fail(&mut self, now: SimTime, request: usize) {
        let failing = self.failing();
        failing.requests[request].over = true;
        failing.requests[request].route = None;
        failing.resume(request, None);
        failing.tally.failed_requests += 1;
        if let Some(accounts) = &mut self.accounts {
            accounts.forget(request as u32);
        }
        self.requests.fail(RequestId(request as u32), now);
        if self.load.sends_again() {
            self.queue.schedule(now, Event::Arrive);
        }
    }

    /// Opens routes that are whole again and gives requests without a route one.
    fn reopen(&mut self, now: SimTime) -> Result<(), SimulateError> {
        for route in 0..self.setup.routes.len() {
            if self.failing().routes[route].given_up && self.is_whole(route) {
                self.failing().routes[route].given_up = false;
            }
            // A link that is back before anybody noticed.
            let state = &self.failing().routes[route];
            if state.halted.is_some() && !state.broken && self.is_whole(route) {
                self.failing().routes[route].halted = None;
                self.schedule_soon(now, route);
            }
        }
        self.place_orphans(now)?;
        if self.is_hopeless() {
            let orphans = std::mem::take(&mut self.failing().orphans);
            for request in orphans {
                self.fail(now, request as usize);
            }
        }
        Ok(())
    }

    /// Requests that no route had room for go to one that has now.
    pub(super) fn pull(&mut self, now: SimTime) -> Result<(), SimulateError> {
        if self.failing.is_some() {
            return self.place_orphans(now);
        }
        while !self.held.is_empty()
            && let Some(route) = self.router.route()
            && let Some((request, prompt)) = self.held.pop_front()
        {
            let role = self.setup.routes[route].role;
            super::moves::submit(self.chains[route].policy.as_mut(), role, request, &prompt)?;
            self.schedule_soon(now, route);
        }
        Ok(())
    }

    /// Requests without a route go to one that takes them.
    fn place_orphans(&mut self, now: SimTime) -> Result<(), SimulateError> {
        let orphans = std::mem::take(&mut self.failing().orphans);
        for request in orphans {
            self.place(now, request as usize)?;
        }
        Ok(())
    }

    /// Whether no route is open and none will be.
    fn is_hopeless(&mut self) -> bool {
        let failing = self.failing();
        failing.routes.iter().all(|route| route.given_up) && failing.loading == 0 && !failing.timeline.will_repair()
    }

    /// A request arrives where routes may be lost.
    pub(super) fn admit(&mut self, now: SimTime, request: usize) -> Result<(), SimulateError> {
        self.failing().requests.push(Standing::default());
        if self.is_hopeless() {
            self.fail(now, request);
            return Ok(());
        }
        self.place(now, request)
    }

    /// Gives a request a route that is not given up, or keeps it until there is one. What is not detected yet gets
    /// requests too.
    fn place(&mut self, now: SimTime, request: usize) -> Result<(), SimulateError> {
        let Some(failing) = &mut self.failing else { return Ok(()) };
        let routes = &failing.routes;
        let Some(route) = self.router.route_among(|route| !routes[route].given_up) else {
            failing.orphans.push_back(request as u32);
            return Ok(());
        };
        if let Some(accounts) = &mut self.accounts {
            accounts.recover(now, request as u32);
        }
        failing.requests[request].route = Some(route as u32);
        let produced = failing.requests[request].produced;
        let id = RequestId(failing.jobs.len() as u32);
        failing.jobs.push(request as u32);
        let (prompt, output) = self.requests.lengths(RequestId(request as u32));
        let (prompt_tokens, output_tokens) = (prompt + produced, output - produced);
        self.chains[route].policy.submit(Request { id, prompt_tokens, output_tokens }, &[])?;
        self.schedule_soon(now, route);
        Ok(())
    }
}
