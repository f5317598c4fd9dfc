//! What is known of failures in one replication: how routes and requests stand, and what came of it all.

use super::moves::Prefilled;
use crate::failures::Timeline;
use crate::setup::Setup;
use isotherm_core::conditions::Recovery;
use isotherm_core::ids::RequestId;
use isotherm_core::record::Reliability;
use isotherm_core::units::{Seconds, SimDuration, SimTime};
use std::collections::{BTreeSet, VecDeque};

/// A route that was given up, from the loss until its requests get on again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    pub(super) began: SimTime,
    /// Requests thrown back that have not got a token since.
    pub(super) waiting: u32,
    /// When one of them last got its next token; none where none has.
    pub(super) resumed: Option<SimTime>,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    pub(super) route: Option<u32>,
    /// What the route calls it.
    pub(super) job: u32,
    /// The route that prefilled it, while it holds the cache that no other has.
    pub(super) cache: Option<u32>,
    /// Tokens that it has.
    pub(super) produced: u32,
    pub(super) attempts: u32,
    /// Tokens of its prompt that the router counts before its route.
    pub(super) counted: u32,
    /// The outage that threw it back, until its next token.
    pub(super) outage: Option<u32>,
    pub(super) over: bool,
}

/// How a route stands.
#[derive(Debug, Clone, Default)]
pub(super) struct RouteState {
    /// Since when it sends nothing, because of a loss that was not dealt with yet or lasts.
    pub(super) halted: Option<SimTime>,
    /// Whether cache on it is gone, so that it cannot simply go on.
    pub(super) broken: bool,
    /// Whether the coordinator has given it up and it has not come back.
    pub(super) given_up: bool,
    /// Whether it is of a plan that does not serve: not yet, or not any more.
    pub(super) shut: bool,
    /// Batches that are lost; their slots are not used again.
    pub(super) doomed: BTreeSet<u32>,
    /// Stops that the batch of each slot has passed.
    pub(super) passed: Vec<u32>,
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
    pub(super) timeline: Timeline,
    pub(super) policy: Recovery,
    /// Moment of the pending incident.
    pub(super) event: Option<SimTime>,
    /// Losses under way of each server, and the share of its speed that slowdowns leave.
    pub(super) servers: Vec<(u32, f64)>,
    /// Share of the bandwidth that each link keeps, where it is not whole: losses, slowdowns.
    pub(super) links: Vec<(u32, f64)>,
    pub(super) routes: Vec<RouteState>,
    pub(super) requests: Vec<Standing>,
    /// The request of each job: a request that is computed again is a new job for its route.
    pub(super) jobs: Vec<u32>,
    /// Requests without a route.
    pub(super) orphans: VecDeque<u32>,
    pub(super) outages: Vec<Outage>,
    /// Whether the prepared plan has taken over, or is about to.
    pub(super) switched: bool,
    /// Loads that it still waits for.
    pub(super) loading: usize,
    pub(super) tally: Reliability,
    /// When the routes that are open changed last.
    pub(super) since: SimTime,
    pub(super) recovered: Vec<f64>,
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

    /// Whether cache on a route is lost and the coordinator does not know it yet.
    pub(super) fn is_broken(&self, route: u32) -> bool {
        self.routes[route as usize].broken
    }

    /// Whether a route may be given requests, as far as the coordinator knows.
    pub(super) fn takes(&self, route: usize) -> bool {
        !self.routes[route].given_up
    }

    /// From a loss to when the coordinator acts on it.
    pub(super) fn detect(&self) -> SimDuration {
        self.policy.detect.whole_nanoseconds(0.0).0
    }

    /// Tokens that a request has.
    pub(super) fn produced(&self, request: usize) -> u32 {
        self.requests[request].produced
    }

    /// Whether a request is on a route.
    pub(super) fn is_on(&self, request: usize, route: u32) -> bool {
        self.requests[request].route == Some(route)
    }

    /// A request's prompt is prefilled, or its route is lost: the tokens that the router counts no more.
    pub(super) fn prefilled(&mut self, request: usize) -> u32 {
        std::mem::take(&mut self.requests[request].counted)
    }

    /// The cache of a request has come to the route that decodes it.
    pub(super) fn fetched(&mut self, request: usize) {
        self.requests[request].cache = None;
    }

    /// A prefilled request waits for a route that decodes it.
    pub(super) fn waits(&mut self, of: &Prefilled) {
        let standing = &mut self.requests[of.request.index()];
        (standing.route, standing.cache) = (None, Some(of.from));
    }

    /// A prefilled request goes to a route that decodes it. What that calls it.
    pub(super) fn decodes(&mut self, of: &Prefilled, to: usize) -> RequestId {
        let job = self.begin(of.request.index(), to);
        self.requests[of.request.index()].cache = Some(of.from);
        job
    }

    /// A request is on a route from now on. What that calls it.
    pub(super) fn begin(&mut self, request: usize, route: usize) -> RequestId {
        let job = RequestId(self.jobs.len() as u32);
        self.jobs.push(request as u32);
        let standing = &mut self.requests[request];
        (standing.route, standing.job, standing.cache) = (Some(route as u32), job.0, None);
        job
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
    pub(super) fn resume(&mut self, request: usize, token: Option<SimTime>) {
        let Some(outage) = self.requests[request].outage.take() else { return };
        let outage = &mut self.outages[outage as usize];
        outage.waiting -= 1;
        outage.resumed = token.or(outage.resumed);
        if let (0, Some(last)) = (outage.waiting, outage.resumed) {
            self.recovered.push(last.since(outage.began).seconds().value());
        }
    }

    /// Adds up the time since routes opened or closed last.
    pub(super) fn settle(&mut self, now: SimTime, setup: &Setup<'_>) {
        let span = now.since(self.since).seconds();
        self.since = now;
        let up = setup.open_share(|route| self.routes[route].halted.is_none() && !self.routes[route].given_up);
        self.tally.available_seconds += span * up;
        if up > 0.0 {
            self.tally.serving_seconds += span;
        }
    }

    /// What came of it all.
    pub(super) fn finish(mut self, end: SimTime, setup: &Setup<'_>) -> Reliability {
        self.settle(end, setup);
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
