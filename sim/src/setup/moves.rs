//! Ways that cache takes: to host memory and back, and from routes that prefill to routes that decode.

use super::{RouteSetup, ServerSetup};
use crate::SimulateError;
use crate::network::{LaneEnds, LaneId};
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::graph::DeviceGraph;
use isotherm_core::ids::Layers;
use isotherm_core::problem::PlacementProblem;
use isotherm_core::units::Bytes;
use std::collections::BTreeMap;

/// What a route does with its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Whole,
    /// Prompts, up to the first token.
    Prefill,
    /// Answers, from the second token on.
    Decode,
}

impl From<isotherm_core::problem::Role> for Role {
    fn from(role: isotherm_core::problem::Role) -> Self {
        match role {
            isotherm_core::problem::Role::Prefill => Self::Prefill,
            isotherm_core::problem::Role::Decode => Self::Decode,
        }
    }
}

/// One part of a copy: the lane it takes, and the bytes of one block on it.
pub type Part = (LaneId, Bytes);

/// All ways.
#[derive(Debug, Default)]
pub struct MoveSetup {
    /// Lanes of each server to its host's memory and back; empty where nothing is swapped.
    host: Vec<(LaneId, LaneId)>,
    /// Bytes of one block at each stop of each route.
    blocks: Vec<Vec<Bytes>>,
    /// Parts of the cache that go from a route that prefills to one that decodes.
    over: BTreeMap<(u32, u32), Vec<Part>>,
    /// The lane between two servers that such parts take.
    between: BTreeMap<(usize, usize), LaneId>,
}

impl MoveSetup {
    /// Whether any cache moves.
    pub fn is_none(&self) -> bool {
        self.host.is_empty() && self.over.is_empty()
    }

    /// Parts of a copy between a route and host memory.
    pub fn host(&self, route: usize, routes: &[RouteSetup], out: bool) -> Vec<Part> {
        let stops = routes[route].stops.iter().zip(&self.blocks[route]);
        let lanes = |server: usize| if out { self.host[server].0 } else { self.host[server].1 };
        stops.map(|(&(server, _), &bytes)| (lanes(server), bytes)).collect()
    }

    /// Parts of a copy from one route to another.
    pub fn over(&self, from: u32, to: u32) -> &[Part] {
        self.over.get(&(from, to)).map_or(&[], Vec::as_slice)
    }

    /// The pairs of a route that prefills and one that may fetch its cache.
    pub fn pairs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.over.keys().copied()
    }

    /// Lanes for cache that begin or end at a server.
    pub fn touching(&self, server: usize) -> impl Iterator<Item = LaneId> + '_ {
        let touch = move |&(&(from, to), _): &(&(usize, usize), &LaneId)| from == server || to == server;
        self.between.iter().filter(touch).map(|(_, &lane)| lane)
    }
}

/// Lanes with the sizes of their messages.
type Lanes<'a> = Vec<(LaneEnds<'a>, (Bytes, Bytes))>;

/// Resolves which routes prefill, and the ways of all cache that may move.
pub(super) fn resolve<'a>(
    problem: &'a PlacementProblem,
    servers: &[ServerSetup],
    routes: &mut [RouteSetup],
    lanes: &mut Lanes<'a>,
) -> Result<MoveSetup, SimulateError> {
    roles(problem, servers, routes)?;
    let mut moves = MoveSetup::default();
    let block = |device, layers| block_bytes(problem, device, layers);
    let at_stops = |route: &RouteSetup| {
        route.stops.iter().map(|&(server, layers)| block(servers[server].device, layers)).collect()
    };
    moves.blocks = routes.iter().map(at_stops).collect();
    let most = routes.iter().map(|route| u64::from(route.resources.kv_blocks)).max().unwrap_or(0);
    let largest = |bytes: Bytes| (bytes, bytes.saturating_mul(most.max(1)));
    if problem.serving.kv_swap_blocks.is_some() {
        for server in servers {
            let device = problem.graph.device(server.device);
            let place = host_memory(&problem.graph, device)?;
            let sizes = largest(block(server.device, Layers::new(0, problem.layers())));
            let sizes = (Bytes(1), sizes.1);
            moves.host.push((
                lane(problem, lanes, (&device.name, place), sizes)?,
                lane(problem, lanes, (place, &device.name), sizes)?,
            ));
        }
    }
    let known = &mut moves.between;
    for (p, prefill) in routes.iter().enumerate().filter(|(_, route)| route.role == Role::Prefill) {
        let fetches = |route: &RouteSetup| route.role == Role::Decode && route.prepared == prefill.prepared;
        for (d, decode) in routes.iter().enumerate().filter(|(_, route)| fetches(route)) {
            let mut parts = Vec::new();
            for &(from, held) in &prefill.stops {
                for &(to, wanted) in &decode.stops {
                    let layers = Layers::new(held.start.max(wanted.start), held.end.min(wanted.end));
                    if layers.is_empty() {
                        continue;
                    }
                    let (a, b) = (servers[from].device, servers[to].device);
                    // Where both are groups each pair of members moves its own heads.
                    let bytes = block(a, layers).max(block(b, layers));
                    let lane = match known.get(&(from, to)) {
                        Some(&lane) => lane,
                        None => {
                            let ends = (problem.graph.device(a).name.as_str(), problem.graph.device(b).name.as_str());
                            let whole = block(a, Layers::new(0, problem.layers()));
                            lane(problem, lanes, ends, (Bytes(1), largest(whole).1))?
                        }
                    };
                    known.insert((from, to), lane);
                    parts.push((lane, bytes));
                }
            }
            moves.over.insert((p as u32, d as u32), parts);
        }
    }
    Ok(moves)
}

/// Which routes prefill: those that the plan says, or else those on devices that the conditions name.
fn roles(problem: &PlacementProblem, servers: &[ServerSetup], routes: &mut [RouteSetup]) -> Result<(), SimulateError> {
    if routes.iter().any(|route| route.role != Role::Whole) {
        return Ok(());
    }
    let Some(disaggregation) = &problem.conditions.disaggregation else { return Ok(()) };
    for name in &disaggregation.prefill {
        if problem.graph.find(name).is_none() {
            return Err(SimulateError::UnknownPrefill(name.clone()));
        }
    }
    for route in routes.iter_mut() {
        let prefills = |server: usize| disaggregation.prefill.contains(&servers[server].name);
        let mut stops = route.stops.iter().map(|&(server, _)| server);
        let first = stops.next().is_some_and(prefills);
        if let Some(other) = stops.find(|&server| prefills(server) != first) {
            let (one, other) = (servers[route.stops[0].0].name.clone(), servers[other].name.clone());
            return Err(SimulateError::MixedRoute { one, other });
        }
        route.role = if first { Role::Prefill } else { Role::Decode };
    }
    for (role, what) in [(Role::Prefill, "prefills"), (Role::Decode, "decodes")] {
        let any = |prepared| routes.iter().any(|r| r.role == role && r.prepared == prepared && r.share > 0.0);
        if !any(false) {
            return Err(SimulateError::EmptyPool(what));
        }
        if !any(true) {
            // A plan that is kept for a loss need not divide the work: what is left of a pool may be nothing.
            routes.iter_mut().filter(|route| route.prepared).for_each(|route| route.role = Role::Whole);
        }
    }
    Ok(())
}

/// Bytes that one block of the cache of these layers has on a device, or on each member of a group.
fn block_bytes(problem: &PlacementProblem, device: isotherm_core::ids::DeviceId, layers: Layers) -> Bytes {
    let token = problem.model.kv_bytes_per_token_layer().saturating_mul(layers.len().into());
    let block = token.saturating_mul(problem.serving.kv_block_tokens.into());
    Bytes((block.0 / problem.degree(device)).max(1))
}

/// Where the memory of a device's host is in the graph.
fn host_memory<'a>(graph: &'a DeviceGraph, device: &Device) -> Result<&'a str, SimulateError> {
    if device.kind == DeviceKind::Cpu {
        return Err(SimulateError::SwapsToItself(device.name.clone()));
    }
    let file = graph.file();
    let known = [format!("host:{}", device.host), device.host.clone()];
    let junction = known.iter().find_map(|name| file.junctions.iter().find(|junction| *junction == name));
    let beside = |other: &&Device| other.kind == DeviceKind::Cpu && other.host == device.host;
    let place = junction.or_else(|| file.devices.iter().find(beside).map(|other| &other.name));
    let none = || SimulateError::NoHostMemory { device: device.name.clone(), host: device.host.clone() };
    place.map(String::as_str).ok_or_else(none)
}

fn lane<'a>(
    problem: &'a PlacementProblem,
    lanes: &mut Lanes<'a>,
    ends: (&'a str, &'a str),
    sizes: (Bytes, Bytes),
) -> Result<LaneId, SimulateError> {
    if problem.graph.path(ends.0, ends.1, sizes.0).is_none() {
        return Err(SimulateError::NoWay { from: ends.0.to_owned(), to: ends.1.to_owned() });
    }
    lanes.push((Some(ends), sizes));
    Ok(u32::try_from(lanes.len() - 1).unwrap_or(u32::MAX))
}
