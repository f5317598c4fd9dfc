//! A plan, its names resolved and its figures looked up, once for all replications.

use crate::SimulateError;
use crate::failures::{self, FailureSetup};
use crate::heat::Heat;
use crate::network::{LaneEnds, LaneId, Layout};
use isotherm_core::figure::How;
use isotherm_core::ids::{DeviceId, Layers};
use isotherm_core::objective::{InFlight, in_flight};
use isotherm_core::plan::{Plan, Stage};
use isotherm_core::problem::{PlacementProblem, Role as PlanRole};
use isotherm_core::serving::{Resources, blocks_for, cache_blocks, divided_blocks};
use isotherm_core::units::{Bytes, Watts};
use isotherm_core::workload::replay::Replay;
use isotherm_core::workload::{Arrivals, Length, Serving, Workload};

mod moves;
mod warmth;

pub use moves::{MoveSetup, Role};

/// A device that holds a stage. Positions in [`Setup::servers`] are those of the plan's stages.
#[derive(Debug, Clone)]
pub struct ServerSetup {
    /// The device.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Where the figures of its power and heat come from.
    pub source: String,
    /// Most power that the plan lets it draw.
    pub power_cap: Option<Watts>,
    /// How well its step times are known.
    pub timing: How,
    /// Co-run sets it belongs to, as positions in [`Setup::sets`].
    pub sets: Vec<usize>,
    /// For each of these, the time of a step with 1, 2 ... of the set busy over its time alone.
    pub slowdowns: Vec<Vec<f64>>,
}

/// Devices that slow one another, those of the plan.
#[derive(Debug, Clone)]
pub struct SetSetup {
    /// Positions in [`Setup::servers`].
    pub members: Vec<usize>,
}

/// A route: a chain of stops.
#[derive(Debug, Clone)]
pub struct RouteSetup {
    /// Server and layers of each stop, in order.
    pub stops: Vec<(usize, Layers)>,
    /// Share of the requests.
    pub share: f64,
    /// What its scheduler may use.
    pub resources: Resources,
    /// Its first lane in [`Setup::layout`]: to the first stop. The next ones lead from stop to stop, the last one back to
    /// the coordinator.
    pub lane: LaneId,
    /// Whether it is of the plan that is kept for a loss.
    pub prepared: bool,
    /// What it does with its requests.
    pub role: Role,
}

/// Weights that a device needs for the plan that is kept for a loss, and does not hold yet.
#[derive(Debug, Clone, Copy)]
pub struct LoadSetup {
    /// How much.
    pub bytes: Bytes,
    /// The lane from the coordinator to the device.
    pub lane: LaneId,
}

/// Everything that replications share.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The problem.
    pub problem: &'a PlacementProblem,
    /// The load.
    pub workload: &'a Workload,
    /// Its requests, where they are recorded.
    pub recording: Option<&'a Replay>,
    /// The devices of the stages, in the plan's order.
    pub servers: Vec<ServerSetup>,
    /// Their power and heat before the first request.
    pub heat: Heat,
    /// Co-run sets.
    pub sets: Vec<SetSetup>,
    /// The routes, in the plan's order.
    pub routes: Vec<RouteSetup>,
    /// The lanes of all routes.
    pub layout: Layout<'a>,
    /// What may fail.
    pub failures: Vec<FailureSetup>,
    /// Servers whose loss brings the prepared plan: those that it does without.
    pub avoided: Vec<usize>,
    /// What it has to load first.
    pub loads: Vec<LoadSetup>,
    /// Ways of cache.
    pub moves: MoveSetup,
}

impl<'a> Setup<'a> {
    /// Resolves a plan.
    pub fn new(
        plan: &Plan,
        fallback: Option<&Plan>,
        problem: &'a PlacementProblem,
        workload: &'a Workload,
        recording: Option<&'a Replay>,
    ) -> Result<Self, SimulateError> {
        check_workload(workload)?;
        let mut servers: Vec<ServerSetup> =
            plan.stages.iter().map(|stage| server(stage, problem)).collect::<Result<_, _>>()?;
        let primary = servers.len();
        // Where nothing may fail, nothing is kept for a loss.
        let fallback = fallback.filter(|_| !problem.conditions.failures.is_empty());
        let on: Vec<usize> = match fallback {
            Some(fallback) => prepared_servers(fallback, problem, &mut servers)?,
            None => Vec::new(),
        };
        let heat = warmth::heat(problem, &mut servers)?;
        let whole = |prompt: u32, output: u32| (u64::from(prompt) + u64::from(output)).saturating_sub(1);
        let recorded_longest = recording
            .and_then(|recording| recording.requests().iter().map(|r| whole(r.prompt_tokens, r.output_tokens)).max());
        let longest = recorded_longest.unwrap_or_else(|| whole(workload.prompt_tokens.max, workload.output_tokens.max));
        let recorded_prompt =
            recording.and_then(|recording| recording.requests().iter().map(|r| u64::from(r.prompt_tokens)).max());
        let prompt = recorded_prompt.unwrap_or_else(|| u64::from(workload.prompt_tokens.max));
        let longest = Longest { whole: longest, prompt };
        let sets = sets(problem, &mut servers);
        let mut routes = plan_routes(plan, problem, workload, &servers, &(0..primary).collect::<Vec<_>>(), longest)?;
        if routes.is_empty() {
            return Err(SimulateError::NoRoute);
        }
        if let Some(fallback) = fallback {
            let prepared = plan_routes(fallback, problem, workload, &servers, &on, longest)?;
            routes.extend(prepared.into_iter().map(|route| RouteSetup { prepared: true, ..route }));
        }
        let mut lanes = lanes(problem, &servers, &mut routes);
        let loads = fallback.map_or_else(Vec::new, |fallback| loads(plan, fallback, problem, &mut lanes));
        let moves = moves::resolve(problem, &servers, &mut routes, &mut lanes)?;
        let failures = failures::resolve(&problem.conditions, &problem.graph, &servers)?;
        let layout = Layout::new(&problem.graph, lanes, &problem.conditions, &failures::unsteady(&failures))?;
        let avoided =
            if fallback.is_some() { (0..primary).filter(|server| !on.contains(server)).collect() } else { Vec::new() };
        Ok(Self { problem, workload, recording, servers, heat, sets, routes, layout, failures, avoided, loads, moves })
    }
}

impl Setup<'_> {
    /// Whether some routes prefill and others decode.
    #[must_use]
    pub fn is_disaggregated(&self) -> bool {
        self.routes.iter().any(|route| route.role == Role::Prefill)
    }

    /// For a router: share of each route and the requests that it may have at once. Routes of another role get nothing;
    /// those that do everything take prompts.
    #[must_use]
    pub fn shares_of(&self, role: Role) -> Vec<(f64, u64)> {
        let of = |route: &RouteSetup| {
            let takes = route.role == role || (route.role == Role::Whole && role == Role::Prefill);
            let share = if takes { route.share } else { 0.0 };
            (share, u64::from(route.resources.serving.requests_max))
        };
        self.routes.iter().map(of).collect()
    }

    /// The share of what the plan can serve that these routes serve. Where prompts and answers have routes of their own,
    /// the smaller of what is left of either counts.
    #[must_use]
    pub fn open_share(&self, is_open: impl Fn(usize) -> bool) -> f64 {
        let sum = |role: Role, prepared: bool, open: bool| -> f64 {
            let of = |&route: &usize| {
                let setup = &self.routes[route];
                setup.role == role && setup.prepared == prepared && (!open || is_open(route))
            };
            (0..self.routes.len()).filter(of).map(|route| self.routes[route].share).sum()
        };
        // The shares of a plan add to one, and one plan serves at a time.
        let of_plan = |prepared: bool| {
            let pool = |role| (sum(role, prepared, true), sum(role, prepared, false));
            let ((prompts, all_prompts), (answers, all_answers)) = (pool(Role::Prefill), pool(Role::Decode));
            let apart = all_prompts > 0.0 && all_answers > 0.0;
            let apart = if apart { (prompts / all_prompts).min(answers / all_answers) } else { 0.0 };
            sum(Role::Whole, prepared, true) + apart
        };
        of_plan(false) + of_plan(true)
    }
}

/// The servers of a prepared plan's stages: those of the plan that is served first where they are the same device.
fn prepared_servers(
    fallback: &Plan,
    problem: &PlacementProblem,
    servers: &mut Vec<ServerSetup>,
) -> Result<Vec<usize>, SimulateError> {
    let mut on = Vec::with_capacity(fallback.stages.len());
    for stage in &fallback.stages {
        let made = server(stage, problem)?;
        let known = servers.iter().position(|server| server.device == made.device);
        on.push(known.unwrap_or_else(|| {
            servers.push(made);
            servers.len() - 1
        }));
    }
    Ok(on)
}

fn plan_routes(
    plan: &Plan,
    problem: &PlacementProblem,
    workload: &Workload,
    servers: &[ServerSetup],
    on: &[usize],
    longest: Longest,
) -> Result<Vec<RouteSetup>, SimulateError> {
    let in_flight = in_flight(plan, problem).ok_or(SimulateError::NoRoute)?;
    (0..plan.routes.len())
        .map(|r| route_setup(r, plan, problem, workload, (servers, on, longest), &in_flight))
        .collect()
}

/// The weights that stages of a prepared plan need beyond those that their devices hold, each with its lane from the
/// coordinator; without a coordinator loading costs nothing, as reaching a device does.
fn loads<'a>(
    plan: &Plan,
    fallback: &Plan,
    problem: &'a PlacementProblem,
    lanes: &mut Vec<(LaneEnds<'a>, (Bytes, Bytes))>,
) -> Vec<LoadSetup> {
    let coordinator = problem.graph.file().coordinator.as_deref();
    let mut loads = Vec::new();
    for stage in &fallback.stages {
        let Some(name) = stage.devices.first() else { continue };
        let Some(device) = problem.graph.find(name) else { continue };
        let held = plan.stages.iter().find(|held| held.devices.first() == Some(name)).map(|held| held.layers);
        // Layer by layer, so that embedding and head go with theirs.
        let missing = (stage.layers.start..stage.layers.end).map(|layer| Layers::new(layer, layer + 1));
        let missing = missing.filter(|&layer| held.is_none_or(|held| !held.contains(layer)));
        let bytes: Bytes = missing.map(|layer| problem.weight_bytes(device, layer)).sum();
        if bytes > Bytes::ZERO {
            let lane = u32::try_from(lanes.len()).unwrap_or(u32::MAX);
            lanes.push((coordinator.zip(Some(problem.graph.device(device).name.as_str())), (bytes, bytes)));
            loads.push(LoadSetup { bytes, lane });
        }
    }
    loads
}

/// Most tokens of a batch that any policy forms, for the sizes of messages.
const BATCH_TOKENS_MAX: u64 = 1 << 20;

/// The lanes of all routes, each with the sizes of its messages; routes learn which are theirs.
fn lanes<'a>(
    problem: &'a PlacementProblem,
    servers: &[ServerSetup],
    routes: &mut [RouteSetup],
) -> Vec<(LaneEnds<'a>, (Bytes, Bytes))> {
    let coordinator = problem.graph.file().coordinator.as_deref();
    let row = problem.model.boundary_bytes_per_token();
    let (token, rows) = (Bytes(4), (row, row.saturating_mul(BATCH_TOKENS_MAX)));
    let mut lanes = Vec::new();
    for route in routes {
        let names = route.stops.iter().map(|&(server, _)| problem.graph.device(servers[server].device).name.as_str());
        let names: Vec<&str> = names.collect();
        route.lane = u32::try_from(lanes.len()).unwrap_or(u32::MAX);
        lanes.push((coordinator.zip(names.first().copied()), (token, token.saturating_mul(BATCH_TOKENS_MAX))));
        lanes.extend(names.windows(2).map(|pair| (Some((pair[0], pair[1])), rows)));
        lanes.push((names.last().copied().zip(coordinator), (Bytes(0), token.saturating_mul(BATCH_TOKENS_MAX))));
    }
    lanes
}

/// Tokens of the longest requests.
#[derive(Debug, Clone, Copy)]
struct Longest {
    /// Prompt and answer, less the last token.
    whole: u64,
    /// The prompt alone.
    prompt: u64,
}

fn check_workload(workload: &Workload) -> Result<(), SimulateError> {
    let zero = |what| Err(SimulateError::Zero(what));
    for (length, what) in
        [(workload.prompt_tokens, "workload.prompt_tokens"), (workload.output_tokens, "workload.output_tokens")]
    {
        let Length { min, max } = length;
        if min == 0 {
            return zero(what);
        }
        if max < min {
            return Err(SimulateError::Reversed { what, min, max });
        }
    }
    if workload.requests == 0 {
        return zero("workload.requests");
    }
    match workload.arrivals {
        Arrivals::ClosedLoop { clients: 0 } => zero("workload.arrivals.clients"),
        Arrivals::Poisson { rate } if rate.value() <= 0.0 => zero("workload.arrivals.rate"),
        _ => Ok(()),
    }
}

fn server(stage: &Stage, problem: &PlacementProblem) -> Result<ServerSetup, SimulateError> {
    // A group is one device of the problem that the plan speaks of.
    let [name] = stage.devices.as_slice() else {
        return Err(SimulateError::UnknownDevice(stage.devices.join(" + ")));
    };
    let device = problem.graph.find(name).ok_or_else(|| SimulateError::UnknownDevice(name.clone()))?;
    let timing = match (problem.profile(device), problem.timing_source(device)) {
        (Some(profile), _) => profile.how,
        (None, Some(_)) => return Err(SimulateError::RatesOnly(name.clone())),
        (None, None) => return Err(SimulateError::NoTimes(name.clone())),
    };
    let (name, power_cap) = (name.clone(), stage.power_cap_watts);
    Ok(ServerSetup { device, name, source: String::new(), power_cap, timing, sets: Vec::new(), slowdowns: Vec::new() })
}

/// The co-run sets among the plan's devices; devices that hold nothing are never busy.
fn sets(problem: &PlacementProblem, servers: &mut [ServerSetup]) -> Vec<SetSetup> {
    let mut sets = Vec::new();
    for set in &problem.graph.file().co_run {
        let members: Vec<usize> = (0..servers.len()).filter(|&s| set.devices.contains(&servers[s].name)).collect();
        if members.is_empty() || set.slowdown.is_empty() {
            continue;
        }
        for &member in &members {
            let server = &mut servers[member];
            // What says nothing of a device does not slow it.
            let factors = set.factors_of(&server.name).iter().map(|figure| figure.value);
            let factors: Vec<f64> = factors.collect();
            server.slowdowns.push(if factors.is_empty() { vec![1.0] } else { factors });
            server.sets.push(sets.len());
        }
        sets.push(SetSetup { members });
    }
    sets
}

fn route_setup(
    route_at: usize,
    plan: &Plan,
    problem: &PlacementProblem,
    workload: &Workload,
    (servers, on, longest): (&[ServerSetup], &[usize], Longest),
    in_flight: &[InFlight],
) -> Result<RouteSetup, SimulateError> {
    let (route, own) = (&plan.routes[route_at], in_flight[route_at]);
    let serving = Serving { requests_max: own.requests, ..problem.serving };
    let recorded = matches!(workload.arrivals, Arrivals::Recorded { .. });
    // A prompt's first token is all that a route makes that prefills.
    let longest = if route.role == Some(PlanRole::Prefill) { longest.prompt } else { longest.whole };
    let needed = blocks_for(longest, &serving);
    let mut stops = Vec::with_capacity(route.stages.len());
    let mut kv_blocks = u32::MAX;
    for stop in &route.stages {
        let position = stop.stage as usize;
        let stage = plan.stages.get(position).ok_or(SimulateError::UnknownStage(stop.stage))?;
        // Routes that pass one stage divide its cache.
        let passes = |&other: &usize| plan.routes[other].stages.iter().any(|s| s.stage == stop.stage);
        let through: Vec<usize> = (0..plan.routes.len()).filter(passes).collect();
        let weights: Vec<f64> = through.iter().map(|&other| in_flight[other].weight).collect();
        // A plan states what each member of a group holds: its heads of every block.
        let kv = stage.bytes.kv.saturating_mul(problem.degree(servers[on[position]].device));
        let blocks = cache_blocks(&problem.model, stage.layers, kv, &serving);
        // What is recorded may be longer than any plan allows for: each request is judged by itself.
        let even = u64::from(blocks) / through.len() as u64;
        let needed = if recorded { needed.min(even).max(1) } else { needed };
        let divided = divided_blocks(blocks, &weights, needed).ok_or_else(|| SimulateError::CacheTooSmall {
            device: servers[on[position]].name.clone(),
            needed,
            blocks,
            routes: through.len(),
        })?;
        let of_own = through.iter().position(|&other| other == route_at).map_or(0, |at| divided[at]);
        kv_blocks = kv_blocks.min(of_own);
        stops.push((on[position], stop.layers));
    }
    let (Some(&(first, _)), Some(&(last, _))) = (stops.first(), stops.last()) else {
        return Err(SimulateError::NoRoute);
    };
    let no_way = |from: &str, to: &str| SimulateError::NoWay { from: from.to_owned(), to: to.to_owned() };
    let coordinator = problem.graph.file().coordinator.as_deref().unwrap_or_default();
    if problem.entry(servers[first].device, 1).is_none() {
        return Err(no_way(coordinator, &servers[first].name));
    }
    if problem.exit(servers[last].device, 1).is_none() {
        return Err(no_way(&servers[last].name, coordinator));
    }
    for pair in stops.windows(2) {
        let (from, to) = (&servers[pair[0].0], &servers[pair[1].0]);
        if problem.decode_hop(from.device, to.device).is_none() {
            return Err(no_way(&from.name, &to.name));
        }
    }
    let resources = Resources { serving, kv_blocks, in_flight_max: own.batches };
    let role = route.role.map_or(Role::Whole, Role::from);
    Ok(RouteSetup { stops, share: route.share, resources, lane: 0, prepared: false, role })
}
