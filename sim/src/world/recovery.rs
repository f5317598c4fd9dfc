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

use super::failing::{Failing, Outage, Standing};
use super::moves::{self, Prefilled};
use super::{Event, World};
use crate::SimulateError;
use crate::failures::{Hit, Incident};
use crate::setup::Role;
use isotherm_core::conditions::{InFlight, Severity};
use isotherm_core::ids::RequestId;
use isotherm_core::serving::Request;
use isotherm_core::units::SimTime;

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
        let setup = self.setup;
        self.failing().settle(now, setup);
        while let Some(incident) = self.failing().timeline.next(now) {
            self.incident(now, incident);
        }
        self.reopen(now)?;
        self.watch_failures();
        self.deliver();
        Ok(())
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
                self.watch_pairs(now);
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
        self.drop_cache(now, server);
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
        let detect = self.failing().detect();
        let state = &mut self.failing().routes[route];
        if state.halted.is_none() && !state.given_up {
            state.halted = Some(now);
            self.queue.schedule(now + detect, Event::Detect { route: route as u32 });
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
        let (detect, setup) = (self.failing().detect(), self.setup);
        if self.failing().routes[route as usize].halted.is_some_and(|began| now < began + detect) {
            // Of a loss that was over before anybody noticed; that of the present one is still to come.
            return Ok(());
        }
        self.failing().settle(now, setup);
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
        let mut left = Vec::new();
        for route in (0..setup.routes.len()).filter(|&route| !setup.routes[route].prepared) {
            let state = &mut self.failing().routes[route];
            (state.given_up, state.shut, state.broken) = (true, true, false);
            left.push((route, state.halted.take().unwrap_or(now)));
        }
        for (route, began) in left {
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
        let setup = self.setup;
        self.failing().settle(now, setup);
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
        let on = Some(route as u32);
        let hit = |standing: &Standing| !standing.over && (standing.route == on || standing.cache == on);
        let requests = &failing.requests;
        let hit: Vec<usize> = (0..requests.len()).filter(|&request| hit(&requests[request])).collect();
        if hit.is_empty() {
            return Ok(());
        }
        let outage = failing.outages.len() as u32;
        failing.outages.push(Outage { began, waiting: hit.len() as u32, resumed: None });
        let mut rescued = Vec::new();
        for request in hit {
            if let Some(accounts) = &mut self.accounts {
                accounts.recover(now, request as u32);
            }
            let failing = self.failing();
            // A request that is thrown back again counts with its latest outage; the one before has it back.
            if failing.requests[request].outage.is_some() {
                failing.resume(request, None);
            }
            failing.requests[request].outage = Some(outage);
            if let Some(of) = self.take_off(now, route as u32, request) {
                rescued.push(of);
            } else {
                self.throw_back(now, request);
            }
        }
        for of in rescued {
            self.decode(now, of)?;
        }
        Ok(())
    }

    /// Takes a request off a route that is given up. Where its cache is on another one, what another route decodes.
    fn take_off(&mut self, now: SimTime, route: u32, request: usize) -> Option<Prefilled> {
        let failing = self.failing();
        let standing = &mut failing.requests[request];
        let (at, job, cache) = (standing.route, RequestId(standing.job), standing.cache);
        (standing.route, standing.cache) = (None, None);
        let kept = cache.is_some_and(|from| from != route && failing.takes(from as usize));
        let counted = failing.prefilled(request);
        self.router.prefilled(at.unwrap_or(route) as usize, counted);
        let prefilled = self.moves.as_ref().and_then(|moves| moves.jobs.get(&job)).map(|job| job.of);
        match at {
            Some(at) if at == route => self.leave_route(route, job),
            Some(elsewhere) => self.withdraw(now, elsewhere, job),
            None => {
                let unplaced = self.moves.as_mut().map(|moves| &mut moves.unplaced);
                unplaced.into_iter().for_each(|list| list.retain(|of| of.request.index() != request));
            }
        }
        prefilled.filter(|_| kept)
    }

    /// A request lost its cache: it is computed again, or answered with an error.
    fn throw_back(&mut self, now: SimTime, request: usize) {
        let failing = self.failing();
        let standing = &mut failing.requests[request];
        standing.attempts += 1;
        let (attempts, produced) = (standing.attempts, standing.produced);
        if failing.policy.in_flight == InFlight::Fail || attempts > failing.policy.attempts_max {
            self.fail(now, request);
            return;
        }
        failing.tally.recomputed_requests += 1;
        failing.orphans.push_back(request as u32);
        let prompt = self.requests.lengths(RequestId(request as u32)).0;
        let lost = if produced > 0 { prompt + produced - 1 } else { 0 };
        self.failing().tally.recomputed_tokens += u64::from(lost);
    }

    /// Answers a request with an error.
    pub(super) fn fail(&mut self, now: SimTime, request: usize) {
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
        self.place_prefilled(now)?;
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
            && let Some(route) = self.router.route(self.held[0].0.prompt_tokens)
            && let Some((request, prompt)) = self.held.pop_front()
        {
            let role = self.setup.routes[route].role;
            moves::submit(self.chains[route].policy.as_mut(), role, request, &prompt)?;
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

    /// Whether no route that takes prompts is open and none will be.
    fn is_hopeless(&mut self) -> bool {
        let setup = self.setup;
        let failing = self.failing();
        let mut prompts = failing.routes.iter().zip(&setup.routes).filter(|(_, route)| route.role != Role::Decode);
        prompts.all(|(route, _)| route.given_up) && !self.may_open()
    }

    /// Whether routes that are closed may open again.
    pub(super) fn may_open(&mut self) -> bool {
        let failing = self.failing();
        failing.loading > 0 || failing.timeline.will_repair()
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
        self.ask_routes();
        let Some(failing) = &mut self.failing else { return Ok(()) };
        let routes = &failing.routes;
        let tokens = self.requests.lengths(RequestId(request as u32)).0 + failing.produced(request);
        let Some(route) = self.router.route_among(tokens, |route| !routes[route].given_up) else {
            failing.orphans.push_back(request as u32);
            return Ok(());
        };
        if let Some(accounts) = &mut self.accounts {
            accounts.recover(now, request as u32);
        }
        let id = failing.begin(request, route);
        failing.requests[request].counted = tokens;
        let produced = failing.produced(request);
        let (prompt, output) = self.requests.lengths(RequestId(request as u32));
        let left = Request { id, prompt_tokens: prompt + produced, output_tokens: output - produced };
        moves::submit(self.chains[route].policy.as_mut(), self.setup.routes[route].role, left, &[])?;
        self.schedule_soon(now, route);
        Ok(())
    }
}
