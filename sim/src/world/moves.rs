//! What the world does with cache that moves: swapped out and in, handed over from routes that prefill to routes that
//! decode.
//!
//! A copy is a message for each stop: every device copies its layers over its own way, side by side with the others, and
//! shares links with whatever else is on them. The copy is over when the last of them has arrived. A route that prefills
//! keeps the cache of a prompt until the decoding route has it; that route fetches it once the request is admitted
//! there, so it comes to blocks that are the request's own.

use super::failing::Failing;
use super::{Event, World};
use crate::SimulateError;
use crate::policy::Policy;
use crate::random::Stream;
use crate::router::{Router, RouterName};
use crate::setup::{Role, Setup};
use isotherm_core::ids::RequestId;
use isotherm_core::record::CacheMoves;
use isotherm_core::serving::{Move, Request, ServingError, Way};
use isotherm_core::units::{Bytes, SimTime};
use std::collections::BTreeMap;

/// A copy under way.
#[derive(Debug, Clone, Copy)]
struct Copy {
    way: Way,
    /// Messages that have not arrived.
    parts: u32,
}

/// A prompt that is prefilled, and whose cache is where that was done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefilled {
    pub(super) request: RequestId,
    /// The route that prefilled it.
    pub(super) from: u32,
    /// What that route's policy calls it.
    pub(super) held: RequestId,
}

/// A request on a route that decodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) of: Prefilled,
    /// Whether its cache has come.
    pub(super) fetched: bool,
}

/// Everything about cache that moves in one replication.
#[derive(Debug)]
pub(super) struct Moves {
    /// Copies under way, by route and what its policy calls the request.
    copies: BTreeMap<(u32, RequestId), Copy>,
    /// Pairs of routes that no cache gets between, and since when.
    pub(super) cut: BTreeMap<(u32, u32), SimTime>,
    /// Prefilled requests that no route decodes yet.
    pub(super) unplaced: Vec<Prefilled>,
    /// Which decoding route takes a request; none where every route does everything.
    pub(super) decoders: Option<Router>,
    /// Requests on decoding routes, which call them by numbers of their own: they come in the order in which their
    /// prompts are done.
    pub(super) jobs: BTreeMap<RequestId, Job>,
    next: u32,
    tally: CacheMoves,
}

impl Moves {
    /// Nothing moves yet; none where nothing ever will.
    pub(super) fn new(setup: &Setup<'_>, rule: RouterName, (seed, replication): (u64, u32)) -> Option<Self> {
        // Requests that have their prompts behind them wait at the route that they go to.
        let rule = if rule == RouterName::Pull { RouterName::LeastOutstanding } else { rule };
        let stream = || Stream::new(seed, replication, "decoding routes");
        let decoders = setup.is_disaggregated().then(|| Router::new(rule, &setup.shares_of(Role::Decode), stream()));
        (!setup.moves.is_none()).then(|| Self {
            copies: BTreeMap::new(),
            cut: BTreeMap::new(),
            unplaced: Vec::new(),
            decoders,
            jobs: BTreeMap::new(),
            next: 0,
            tally: CacheMoves::default(),
        })
    }

    /// The request that a decoding route calls so.
    fn request_of(&self, job: RequestId) -> RequestId {
        self.jobs.get(&job).map_or(job, |job| job.of.request)
    }

    /// Requests of a route that decodes and are not answered.
    pub(super) fn outstanding(&self, route: usize) -> u64 {
        self.decoders.as_ref().map_or(0, |decoders| decoders.outstanding(route))
    }

    /// A route is given up: what was copied for it is nobody's any more.
    pub(super) fn forget(&mut self, route: u32) {
        self.copies.retain(|&(of, _), _| of != route);
    }

    /// A request leaves the decoding route that its cache has not come to.
    pub(super) fn take_back(&mut self, route: u32, job: RequestId) {
        self.copies.remove(&(route, job));
        self.leaves(route, job);
    }

    /// A request is on a decoding route no more.
    pub(super) fn leaves(&mut self, route: u32, job: RequestId) {
        self.jobs.remove(&job);
        if let Some(decoders) = &mut self.decoders {
            decoders.settled(route as usize);
        }
    }

    /// What moved.
    pub(super) const fn tally(&self) -> CacheMoves {
        self.tally
    }
}

/// Gives a request that arrives to a route of this role.
pub(super) fn submit(
    policy: &mut dyn Policy,
    role: Role,
    request: Request,
    prompt: &[u64],
) -> Result<(), ServingError> {
    match role {
        Role::Prefill => policy.submit_kept(Request { output_tokens: 1, ..request }, prompt),
        Role::Whole | Role::Decode => policy.submit(request, prompt),
    }
}

/// The request of what a route's policy calls a request.
pub(super) fn request_of(
    failing: Option<&Failing>,
    moves: Option<&Moves>,
    setup: &Setup<'_>,
    route: u32,
    job: RequestId,
) -> RequestId {
    match (failing, moves) {
        (Some(failing), _) => RequestId(failing.request_of(job) as u32),
        (None, Some(moves)) if setup.routes[route as usize].role == Role::Decode => moves.request_of(job),
        (None, _) => job,
    }
}

impl World<'_> {
    /// The copies that a route's policy wants begin.
    pub(super) fn begin_moves(&mut self, now: SimTime, route: u32) -> Result<(), SimulateError> {
        if self.moves.is_none() {
            return Ok(());
        }
        let setup = self.setup;
        for Move { request, way, blocks } in self.chains[route as usize].policy.moves() {
            let Some(moves) = &mut self.moves else { return Ok(()) };
            let parts = match way {
                Way::Out | Way::Back => setup.moves.host(route as usize, &setup.routes, way == Way::Out),
                Way::Over => {
                    let from = moves.jobs.get(&request).map_or(route, |job| job.of.from);
                    setup.moves.over(from, route).to_vec()
                }
            };
            moves.copies.insert((route, request), Copy { way, parts: parts.len() as u32 });
            let bytes: Bytes = parts.iter().map(|part| part.1.saturating_mul(blocks.into())).sum();
            moves.tally.begin(way, bytes);
            if way != Way::Out {
                let request = self.request_of(route, request);
                if let Some(accounts) = &mut self.accounts {
                    accounts.turn(now, request.0);
                }
            }
            if way == Way::Over && self.is_severed(route, request) {
                // What is lost sends nothing; whoever waits for it begins anew once the loss is noticed.
                continue;
            }
            for (lane, bytes) in parts {
                let event = Event::Moved { route, request: request.0 };
                if !self.network.send(now, lane, bytes.saturating_mul(blocks.into()), event) {
                    return Err(SimulateError::NoRoute);
                }
            }
        }
        Ok(())
    }

    /// A part of a copy has arrived.
    pub(super) fn moved(&mut self, now: SimTime, route: u32, job: RequestId) {
        if self.is_severed(route, job) {
            return;
        }
        let Some(moves) = &mut self.moves else { return };
        let Some(copy) = moves.copies.get_mut(&(route, job)) else { return };
        copy.parts -= 1;
        if copy.parts > 0 {
            return;
        }
        let way = copy.way;
        moves.copies.remove(&(route, job));
        self.chains[route as usize].policy.moved(job, now);
        self.schedule_soon(now, route as usize);
        let request = self.request_of(route, job);
        if let (Some(accounts), true) = (&mut self.accounts, way != Way::Out) {
            accounts.transferred(now, request.0);
        }
        let fetched = self.moves.as_mut().and_then(|moves| moves.jobs.get_mut(&job));
        if let (Way::Over, Some(fetched)) = (way, fetched) {
            fetched.fetched = true;
            let Prefilled { from, held, .. } = fetched.of;
            if let Some(failing) = &mut self.failing {
                failing.fetched(request.index());
            }
            self.chains[from as usize].policy.release(held);
            self.schedule_soon(now, from as usize);
        }
    }

    /// A route that prefills is done with a request, which its policy calls `held`: the answer goes on elsewhere, unless
    /// this was its last token. Whether it goes on.
    pub(super) fn hand_over(
        &mut self,
        now: SimTime,
        route: u32,
        held: RequestId,
        request: RequestId,
    ) -> Result<bool, SimulateError> {
        if self.setup.routes[route as usize].role != Role::Prefill {
            return Ok(false);
        }
        if self.requests.lengths(request).1 <= self.produced(request) {
            self.chains[route as usize].policy.release(held);
            return Ok(false);
        }
        self.router.settled(route as usize);
        self.decode(now, Prefilled { request, from: route, held })?;
        Ok(true)
    }

    /// Tokens that a request whose prompt is prefilled has.
    fn produced(&self, request: RequestId) -> u32 {
        self.failing.as_ref().map_or(1, |failing| failing.produced(request.index()))
    }

    /// A prefilled request goes to a route that decodes; where none is open it waits for one.
    pub(super) fn decode(&mut self, now: SimTime, of: Prefilled) -> Result<(), SimulateError> {
        let produced = self.produced(of.request);
        let (prompt, output) = self.requests.lengths(of.request);
        let Self { moves, failing, network, setup, .. } = self;
        let Some(moves) = moves else { return Ok(()) };
        let mut reached = |to: usize| setup.moves.over(of.from, to as u32).iter().all(|part| network.connected(part.0));
        let reached: Vec<bool> = (0..setup.routes.len()).map(|to| failing.is_none() || reached(to)).collect();
        let is_open = |to: usize| reached[to] && failing.as_ref().is_none_or(|failing| failing.takes(to));
        let to = moves.decoders.as_mut().and_then(|decoders| decoders.route_among(1, is_open));
        let Some(to) = to else {
            let Some(failing) = failing else { return Err(SimulateError::NoRoute) };
            failing.waits(&of);
            moves.unplaced.push(of);
            self.give_up_prefilled(now);
            return Ok(());
        };
        let id = match failing {
            Some(failing) => failing.decodes(&of, to),
            None => {
                moves.next += 1;
                RequestId(moves.next - 1)
            }
        };
        moves.jobs.insert(id, Job { of, fetched: false });
        // What was computed again counts as a part of the prompt.
        let (prompt_tokens, output_tokens) = (prompt + produced - 1, output - (produced - 1));
        self.chains[to].policy.submit_prefilled(Request { id, prompt_tokens, output_tokens })?;
        self.schedule_soon(now, to);
        Ok(())
    }

    /// A request is answered on a route.
    pub(super) fn settled(&mut self, route: u32, job: RequestId) {
        match (&mut self.moves, self.setup.routes[route as usize].role) {
            (Some(moves), Role::Decode) => moves.leaves(route, job),
            _ => self.router.settled(route as usize),
        }
    }
}
