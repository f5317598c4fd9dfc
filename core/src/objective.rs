//! What a plan is worth: the one definition of its time per output token, its time to first token and its
//! throughput. The planner stores these figures, the checker recomputes them, the book prints them.
//!
//! Coefficients (step times, ways, rates) come from [`PlacementProblem`]; everything made of them here is exact
//! rational arithmetic, rounded once at the end.
//!
//! For one route, a chain of stops `1..=n` each serving some layers on one device:
//!
//! ```text
//! tpot = entry(first, 1 token) + sum of decode_time(stop) + sum of decode_hop(stop, next) + exit(last, 1 token)
//! ttft = entry(first, prompt) + finish(last chunk, last stop) + exit(last, 1 token)
//! finish(c, s) = max(finish(c - 1, s), finish(c, s - 1) + hop(c, s - 1, s)) + step(c, s)
//! ```
//!
//! `finish` is the flow-shop recurrence: a stage takes the chunks of a prompt one after another, and starts one when
//! it has arrived and the one before is done. With one chunk it is the sum of steps and hops. A plan's figure is the
//! mean over its routes, weighted by share.
//!
//! Throughput is the largest `F` (output tokens per second over all routes) such that, with batches of `b` requests,
//!
//! ```text
//! stage:        sum of share * F over its routes <= T_b(device, layers that the stage holds)
//! in flight:    sum over routes of share * F * residence_b(route) / output <= requests_max
//! pair:         sum of share * F over the routes that pass from one device to the next <= hop_rate(pair)
//! link, group:  sum of share * F * bytes per output token over the pairs whose way uses it <= its bandwidth
//! source, sink: sum of share * F over the routes that begin (end) at a device <= the stated rate of that link
//!
//! residence_b(route) = entry + sum over stops of L_b(device, layers that the stage holds) + sum of ways + exit
//! ```
//!
//! `b` is the plan's `batch`; where it states none, the best of [`PlacementProblem::batches`]. `T_b`, `L_b` and the
//! residence on a way are those of a batch that goes round while requests keep coming, see [`PlacementProblem::life`].
//! The row in flight is Little's law: no more than `requests_max` requests are anywhere at once, so a chain of many
//! stages works on small batches (which are slow) or stands idle for part of the time. A device of which only rates
//! are known has no residence.
//!
//! A pair moves `row * (prompt + output - 1) / output` bytes per output token (`row` bytes of the residual
//! stream; every token but the last crosses once). A pair whose link states tokens per second is bound by that
//! alone. Source and sink bind only where the graph has places of these names with links that state rates.
//!
//! In a divided plan ([`Role`]) the time to first token is that of the routes that prefill. The time per output token
//! is that of the routes that decode, and the time that the cache takes to come is spread over the tokens that follow.
//! Stages, pairs and links are loaded by what each route does; the cache of a prompt loads the ways between the two
//! routes that a request takes, which it chooses independently; and the residence of a request is the sum of both and
//! of that way:
//!
//! ```text
//! stage:        sum of share * F / o over its routes <= R_p(device)     requests per second, where it prefills
//!               sum of share * F over its routes     <= T_b(device)     where it decodes
//! link, group:  ... + sum of share_p * share_d * F * cache(p, d) / o    bytes of the layers that both hold
//! in flight:    F * (residence_p + cache's way + residence_d) / o <= requests_max
//! ```

mod divided;

use crate::exact::{Exact, exact, larger, mean, nearest, positive, whole};
use crate::graph::{Link, Path};
use crate::ids::{DeviceId, Layers};
use crate::plan::Plan;
use crate::problem::{Life, Objective, PlacementProblem, Role};
use crate::spending;
use crate::units::{Bytes, Seconds, TokensPerSecond};
use divided::Sides;
use num_traits::{One, Zero};
use std::collections::BTreeMap;
use std::fmt;

/// Place where the requests of a flow scenario come in.
pub const SOURCE: &str = "source";
/// Place where its answers go out.
pub const SINK: &str = "sink";

/// What bounds a plan's throughput.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bottleneck {
    /// The stage on this device.
    Stage(String),
    /// The way between two devices.
    Pair(String, String),
    /// One link, over all pairs whose way uses it.
    Link(String, String),
    /// A shared capacity.
    Group(String),
    /// The link on which requests reach this device.
    Source(String),
    /// The link on which answers leave this device.
    Sink(String),
    /// The number of requests that are admitted at once.
    InFlight(u32),
}

impl fmt::Display for Bottleneck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(device) => write!(f, "the stage on {device}"),
            Self::Pair(from, to) => write!(f, "the way from {from} to {to}"),
            Self::Link(from, to) => write!(f, "the link from {from} to {to}"),
            Self::Group(name) => write!(f, "the shared capacity {name}"),
            Self::Source(device) => write!(f, "the link from the source to {device}"),
            Self::Sink(device) => write!(f, "the link from {device} to the sink"),
            Self::InFlight(most) => write!(f, "the requests in flight, at most {most} at once"),
        }
    }
}

/// A plan's figures. Each is none where the plan is malformed or something it needs is unknown;
/// [`Plan::check`] says what.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Mean time per output token of a request that has the devices to itself.
    pub tpot: Option<Seconds>,
    /// Mean time to first token of such a request.
    pub ttft: Option<Seconds>,
    /// Output tokens per second that the plan sustains.
    pub throughput: Option<TokensPerSecond>,
    /// What bounds the throughput; the first in order of kind and name where several do.
    pub bottleneck: Option<Bottleneck>,
    /// Requests in the batches that give this throughput.
    pub batch: Option<u32>,
    /// What that throughput costs, where that is the problem's objective; see [`crate::spending`].
    pub spent: Option<f64>,
}

impl Evaluation {
    /// The figure that an objective asks for, in its unit.
    #[must_use]
    pub fn value(&self, objective: Objective) -> Option<f64> {
        match objective {
            Objective::Throughput => self.throughput.map(TokensPerSecond::value),
            Objective::Tpot => self.tpot.map(Seconds::value),
            Objective::Ttft => self.ttft.map(Seconds::value),
            Objective::Energy | Objective::Money | Objective::MoneyPerHour => self.spent,
        }
    }
}

/// A plan's figures for a problem. Never panics, whatever the plan says.
#[must_use]
pub fn evaluate(plan: &Plan, problem: &PlacementProblem) -> Evaluation {
    let spent = problem.objective.spends().then(|| spending::spent(plan, problem, problem.objective)).flatten();
    let (problem, plan) = problem.spoken(plan);
    let plan = &*plan;
    let problem = &*problem.capped(plan);
    let Some(routes) = resolve(plan, problem) else {
        return Evaluation { tpot: None, ttft: None, throughput: None, bottleneck: None, batch: None, spent: None };
    };
    let time = |value: Option<Exact>| value.and_then(|v| Seconds::new(nearest(&v)).ok());
    let throughput = throughput(&routes, problem, plan.batch, Waits::Counted);
    Evaluation {
        tpot: time(mean_tpot(&routes, problem)),
        ttft: time(mean_ttft(&routes, problem)),
        throughput: throughput.as_ref().and_then(|best| TokensPerSecond::new(nearest(&best.rate)).ok()),
        batch: throughput.as_ref().map(|best| best.batch),
        bottleneck: throughput.map(|best| best.bottleneck),
        spent,
    }
}

/// The figure of one objective, without rounding.
pub(crate) fn evaluate_exactly(plan: &Plan, problem: &PlacementProblem, objective: Objective) -> Option<Exact> {
    if objective.spends() {
        return spending::spent(plan, problem, objective).and_then(exact);
    }
    let (problem, plan) = problem.spoken(plan);
    let plan = &*plan;
    let problem = &*problem.capped(plan);
    let routes = resolve(plan, problem)?;
    match objective {
        Objective::Throughput => throughput(&routes, problem, plan.batch, Waits::Counted).map(|best| best.rate),
        Objective::Tpot => mean_tpot(&routes, problem),
        Objective::Ttft => mean_ttft(&routes, problem),
        Objective::Energy | Objective::Money | Objective::MoneyPerHour => None,
    }
}

/// A stop, its names resolved.
struct Stop {
    device: DeviceId,
    /// Layers that a request passes here.
    served: Layers,
    /// Layers that the stage holds.
    held: Layers,
}

struct Route {
    share: Exact,
    /// What it does; none where it does everything.
    role: Option<Role>,
    /// At least one.
    stops: Vec<Stop>,
}

/// The routes with devices for names; none where a stage, device or share is not there or a route is empty.
fn resolve(plan: &Plan, problem: &PlacementProblem) -> Option<Vec<Route>> {
    let devices: Vec<Option<DeviceId>> = plan
        .stages
        .iter()
        .map(|stage| match stage.devices.as_slice() {
            [name] => problem.graph.find(name),
            _ => None,
        })
        .collect();
    let stop = |stop: &crate::plan::Stop| {
        let stage = plan.stages.get(stop.stage as usize)?;
        Some(Stop { device: devices[stop.stage as usize]?, served: stop.layers, held: stage.layers })
    };
    let routes: Option<Vec<Route>> = plan
        .routes
        .iter()
        .map(|route| {
            let share = exact(route.share).filter(positive)?;
            let stops: Vec<Stop> = route.stages.iter().map(stop).collect::<Option<_>>()?;
            (!stops.is_empty()).then_some(Route { share, role: route.role, stops })
        })
        .collect();
    routes.filter(|routes| !routes.is_empty())
}

/// The mean of a figure over the routes that do everything or have this role; none where there are none.
fn weighted(routes: &[Route], role: Role, figure: impl Fn(&Route) -> Option<Exact>) -> Option<Exact> {
    let (mut sum, mut shares) = (Exact::zero(), Exact::zero());
    for route in routes.iter().filter(|route| route.role.is_none_or(|own| own == role)) {
        sum += &route.share * figure(route)?;
        shares += &route.share;
    }
    positive(&shares).then(|| sum / shares)
}

fn mean_tpot(routes: &[Route], problem: &PlacementProblem) -> Option<Exact> {
    let mean_time = weighted(routes, Role::Decode, |route| tpot(route, problem))?;
    let further = mean(problem.workload.output_tokens) - Exact::one();
    let fetching = divided::mean_fetching(problem, routes)?;
    Some(if positive(&further) { mean_time + fetching / further } else { mean_time })
}

fn mean_ttft(routes: &[Route], problem: &PlacementProblem) -> Option<Exact> {
    weighted(routes, Role::Prefill, |route| ttft(route, problem))
}

fn seconds(time: Option<Seconds>) -> Option<Exact> {
    time.and_then(|t| exact(t.value()))
}

fn tpot(route: &Route, problem: &PlacementProblem) -> Option<Exact> {
    let (first, last) = (route.stops.first()?, route.stops.last()?);
    let mut total = seconds(problem.entry(first.device, 1))? + seconds(problem.exit(last.device, 1))?;
    for stop in &route.stops {
        total += seconds(problem.decode_time(stop.device, stop.served))?;
    }
    for pair in route.stops.windows(2) {
        total += seconds(problem.decode_hop(pair[0].device, pair[1].device))?;
    }
    Some(total)
}

fn ttft(route: &Route, problem: &PlacementProblem) -> Option<Exact> {
    let row = problem.model.boundary_bytes_per_token();
    let mut finish = vec![Exact::zero(); route.stops.len()];
    let mut prompt = 0;
    for chunk in problem.prefill_chunks() {
        let tokens = u64::from(chunk.tokens());
        prompt += tokens;
        for (s, stop) in route.stops.iter().enumerate() {
            let step = seconds(problem.step(stop.device, stop.served, &chunk))?;
            let ready = match s.checked_sub(1) {
                Some(before) => {
                    let from = route.stops[before].device;
                    &finish[before] + seconds(problem.hop(from, stop.device, row.saturating_mul(tokens)))?
                }
                None => Exact::zero(),
            };
            finish[s] = larger(std::mem::take(&mut finish[s]), ready) + step;
        }
    }
    let (first, last) = (route.stops.first()?, route.stops.last()?);
    Some(seconds(problem.entry(first.device, prompt))? + finish.pop()? + seconds(problem.exit(last.device, 1))?)
}

/// The load that one output token per second puts on each capacity, and the capacity.
type Loads = BTreeMap<Bottleneck, (Exact, Exact)>;

fn load(loads: &mut Loads, on: Bottleneck, amount: &Exact, capacity: impl FnOnce() -> Option<Exact>) -> Option<()> {
    if let Some((sum, _)) = loads.get_mut(&on) {
        *sum += amount;
    } else {
        loads.insert(on, (amount.clone(), capacity()?));
    }
    Some(())
}

/// What routes carry, and what bounds them.
struct Best {
    rate: Exact,
    bottleneck: Bottleneck,
    batch: u32,
}

/// Whether batches wait for one another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    Counted,
    None,
}

/// Output tokens per second that a plan would sustain if no batch ever waited for another. The plan's throughput counts
/// waits as if batches came at random, which is more than they wait where they follow one another evenly; a run is
/// mostly between the two. Where requests are of one length and end together, their prompts follow one another through
/// the stages in the steps of other batches, and runs have been up to 8 % faster than this. None where the plan is
/// malformed or a time it needs is unknown.
#[must_use]
pub fn unhindered(plan: &Plan, problem: &PlacementProblem) -> Option<TokensPerSecond> {
    let (problem, plan) = problem.spoken(plan);
    let plan = &*plan;
    let problem = &*problem.capped(plan);
    let routes = resolve(plan, problem)?;
    let best = throughput(&routes, problem, plan.batch, Waits::None)?;
    TokensPerSecond::new(nearest(&best.rate)).ok()
}

/// The throughput in batches of a stated size, or of the best one.
fn throughput(routes: &[Route], problem: &PlacementProblem, batch: Option<u32>, waits: Waits) -> Option<Best> {
    let mut best: Option<Best> = None;
    let sides = Sides::of(problem, routes);
    for batch in batch.map_or_else(|| problem.batches(), |batch| vec![batch]) {
        let (rate, bottleneck) = throughput_in(routes, &sides, &sides.lives(batch, waits))?;
        if best.as_ref().is_none_or(|known| rate > known.rate) {
            best = Some(Best { rate, bottleneck, batch });
        }
    }
    best
}

fn throughput_in(routes: &[Route], sides: &Sides<'_>, lives: &divided::Lives) -> Option<(Exact, Bottleneck)> {
    let problem = sides.whole;
    let name = |id: DeviceId| problem.graph.device(id).name.clone();
    let mut loads = Loads::new();
    let mut resident = Exact::zero();
    for route in routes {
        let (life, side) = (lives.of(route.role)?, sides.side(route.role));
        for stop in &route.stops {
            divided::load_stage(&mut loads, sides, route, stop, life)?;
        }
        for pair in route.stops.windows(2) {
            load_pair(&mut loads, side, pair[0].device, pair[1].device, &(&route.share * sides.tokens(route.role)))?;
        }
        let (first, last) = (name(route.stops.first()?.device), name(route.stops.last()?.device));
        // Prompts come from the source to where they are prefilled, and answers go to the sink from where they are
        // decoded.
        let role = route.role.or(problem.role());
        if role != Some(Role::Decode) && states_rates(problem, |link| link.from == SOURCE) {
            let rate = || exact(problem.stated_rate(SOURCE, &first)?.value());
            load(&mut loads, Bottleneck::Source(first.clone()), &route.share, rate)?;
        }
        if role != Some(Role::Prefill) && states_rates(problem, |link| link.to == SINK) {
            let rate = || exact(problem.stated_rate(&last, SINK)?.value());
            load(&mut loads, Bottleneck::Sink(last.clone()), &route.share, rate)?;
        }
        resident += &route.share * residence(route, side, life)?;
    }
    divided::load_cache(&mut loads, problem, routes)?;
    resident += divided::mean_fetching(problem, routes)?;
    // A problem of rates alone says nothing about time.
    if problem.knows_times() && positive(&resident) {
        let in_flight = whole(problem.serving.requests_max.into()) * mean(problem.workload.output_tokens);
        load(&mut loads, Bottleneck::InFlight(problem.serving.requests_max), &resident, || Some(in_flight))?;
    }
    let mut least: Option<(Exact, Bottleneck)> = None;
    for (bottleneck, (load, capacity)) in loads {
        let rate = capacity / load;
        if least.as_ref().is_none_or(|(best, _)| rate < *best) {
            least = Some((rate, bottleneck));
        }
    }
    least
}

/// What a route's scheduler works with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InFlight {
    /// Requests that the route admits at once.
    pub requests: u32,
    /// Batches that go round on it.
    pub batches: u32,
    /// Its part of the cache of the stages it passes, in proportion to that of the others.
    pub weight: f64,
}

/// What each route's scheduler works with. A plan that states a batch divides the admitted requests over the routes by
/// where they spend their time (share times residence), on either side of a divided plan, in batches of that many; a
/// request alone on its route may have its chunks follow one another through the stages. Else every route admits all
/// and has a batch for each stage. None where the plan is malformed or a time it needs is unknown.
#[must_use]
pub fn in_flight(plan: &Plan, problem: &PlacementProblem) -> Option<Vec<InFlight>> {
    let (problem, plan) = problem.spoken(plan);
    let plan = &*plan;
    let problem = &*problem.capped(plan);
    let routes = resolve(plan, problem)?;
    let most = problem.serving.requests_max;
    let stops = |route: &Route| u32::try_from(route.stops.len()).unwrap_or(u32::MAX);
    let Some(batch) = plan.batch.filter(|&batch| batch > 0 && problem.knows_times()) else {
        let all = |route: &Route| InFlight { requests: most, batches: stops(route), weight: nearest(&route.share) };
        return Some(routes.iter().map(all).collect());
    };
    let sides = Sides::of(problem, &routes);
    let lives = sides.lives(batch, Waits::Counted);
    let time = |at: usize| divided::held_for(at, &routes, &sides, &lives);
    let times: Vec<f64> = (0..routes.len()).map(time).collect::<Option<_>>()?;
    // Each side of a divided plan has room for all that are admitted.
    let beside = |route: &Route| {
        let own = routes.iter().zip(&times).filter(|(other, _)| other.role == route.role);
        own.map(|(_, time)| time).sum::<f64>()
    };
    let of_route = |(route, &time): (&Route, &f64)| {
        let whole = beside(route);
        let weight = if whole > 0.0 { time / whole } else { nearest(&route.share) };
        // What rounding added is no request.
        let up = |count: f64| libm::ceil(count - 1e-9).clamp(1.0, f64::from(most.max(1))) as u32;
        let requests = up(f64::from(most) * weight);
        let batch = if route.role == Some(Role::Prefill) { 1 } else { batch };
        let batches = if requests > 1 { up(f64::from(most) * weight / f64::from(batch)) } else { stops(route) };
        InFlight { requests, batches, weight }
    };
    Some(routes.iter().zip(&times).map(of_route).collect())
}

/// The share of the time that the devices of each stage work while the plan runs at the rate that it is worth: for
/// throughput, as many requests as its devices sustain; else one request after another. None where the plan is
/// malformed or a time that it needs is unknown.
#[must_use]
pub fn utilisation(plan: &Plan, problem: &PlacementProblem) -> Option<Vec<f64>> {
    let (problem, plan) = problem.spoken(plan);
    let plan = &*plan;
    let problem = &*problem.capped(plan);
    let routes = resolve(plan, problem)?;
    let passing = |stage: usize| -> f64 {
        let passes = |route: &&crate::plan::Route| route.stages.iter().any(|stop| stop.stage as usize == stage);
        plan.routes.iter().filter(passes).map(|route| route.share).sum()
    };
    let device = |stage: &crate::plan::Stage| problem.graph.find(stage.devices.first()?);
    let found = match problem.objective {
        objective if objective.serves() => {
            let best = throughput(&routes, problem, plan.batch, Waits::Counted)?;
            let problem = problem.at_duties(|_| Some(1.0));
            let sides = Sides::of(&problem, &routes);
            let (rate, lives, roles) =
                (nearest(&best.rate), sides.lives(best.batch, Waits::Counted), plan.stage_roles());
            let share = |(i, stage): (usize, &crate::plan::Stage)| {
                let (role, id) = (roles[i], device(stage)?);
                let most = sides.side(role).rate(id, stage.layers, lives.of(role)?)?.value();
                Some(rate * nearest(&sides.tokens(role)) * passing(i) / most)
            };
            plan.stages.iter().enumerate().map(share).collect::<Option<Vec<f64>>>()?
        }
        _ => {
            let prompt = problem.objective == Objective::Ttft;
            let whole = if prompt { mean_ttft(&routes, problem)? } else { mean_tpot(&routes, problem)? };
            let whole = nearest(&whole);
            let share = |(i, stage): (usize, &crate::plan::Stage)| {
                let id = device(stage)?;
                let time =
                    if prompt { problem.prefill_time(id, stage.layers) } else { problem.decode_time(id, stage.layers) };
                Some(passing(i) * time?.value() / whole)
            };
            plan.stages.iter().enumerate().map(share).collect::<Option<Vec<f64>>>()?
        }
    };
    Some(found.into_iter().map(|share| if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 }).collect())
}

/// Time that a request spends on a route, as far as step times are known.
fn residence(route: &Route, problem: &PlacementProblem, life: &Life) -> Option<Exact> {
    let (first, last) = (route.stops.first()?, route.stops.last()?);
    let mut total = seconds(problem.entry_residence(first.device, life))?;
    total += seconds(problem.exit_residence(last.device, life))?;
    for stop in route.stops.iter().filter(|stop| problem.profile(stop.device).is_some()) {
        total += seconds(problem.residence(stop.device, stop.held, life))?;
    }
    for pair in route.stops.windows(2) {
        total += seconds(problem.hop_residence(pair[0].device, pair[1].device, life))?;
    }
    Some(total)
}

/// Whether requests reach this device, where the source's links state rates.
pub(crate) fn reached_from_source(problem: &PlacementProblem, device: DeviceId) -> bool {
    let name = &problem.graph.device(device).name;
    !states_rates(problem, |link| link.from == SOURCE) || problem.stated_rate(SOURCE, name).is_some()
}

/// Whether answers leave this device, where the sink's links state rates.
pub(crate) fn reaches_sink(problem: &PlacementProblem, device: DeviceId) -> bool {
    let name = &problem.graph.device(device).name;
    !states_rates(problem, |link| link.to == SINK) || problem.stated_rate(name, SINK).is_some()
}

fn states_rates(problem: &PlacementProblem, end: impl Fn(&Link) -> bool) -> bool {
    problem.graph.file().links.iter().any(|link| end(link) && link.tokens_per_second.is_some())
}

/// Loads a pair of devices, and every link and group of the way between them.
fn load_pair(loads: &mut Loads, problem: &PlacementProblem, from: DeviceId, to: DeviceId, share: &Exact) -> Option<()> {
    let (graph, name) = (&problem.graph, |id: DeviceId| problem.graph.device(id).name.clone());
    let pair = Bottleneck::Pair(name(from), name(to));
    load(loads, pair, share, || exact(problem.hop_rate(from, to)?.value()))?;
    if problem.stated_rate(&name(from), &name(to)).is_some() {
        return Some(());
    }
    let row = problem.model.boundary_bytes_per_token();
    let amount = share * bytes_per_output_token(problem, row);
    load_way(loads, problem, &graph.device_path(from, to, row)?, &amount)
}

/// Loads every link and group of a way with so many bytes per output token.
fn load_way(loads: &mut Loads, problem: &PlacementProblem, way: &Path, amount: &Exact) -> Option<()> {
    let graph = &problem.graph;
    for &id in &way.links {
        let link = graph.link(id);
        let bandwidth = || exact(link.bandwidth_bytes_per_second.as_ref()?.value.value());
        load(loads, Bottleneck::Link(link.from.clone(), link.to.clone()), amount, bandwidth)?;
        for group in graph.file().groups.iter().filter(|g| link.groups.contains(&g.name)) {
            let bandwidth = || exact(group.bandwidth_bytes_per_second.value.value());
            load(loads, Bottleneck::Group(group.name.clone()), amount, bandwidth)?;
        }
    }
    Some(())
}

/// Bytes that cross a boundary for each output token: `row * (prompt + output - 1) / output` at mean lengths, and at
/// least one byte per request as in [`PlacementProblem::hop_rate`].
pub(crate) fn bytes_per_output_token(problem: &PlacementProblem, row: Bytes) -> Exact {
    let output = mean(problem.workload.output_tokens);
    let prompt =
        if problem.role() == Some(Role::Decode) { Exact::zero() } else { mean(problem.workload.prompt_tokens) };
    let tokens = prompt + &output - Exact::one();
    larger(whole(row.0) * tokens, Exact::one()) / output
}
