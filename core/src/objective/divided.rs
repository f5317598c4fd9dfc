//! What routes that only prefill or only decode put on devices and ways, and how long requests stay on them.

use super::{Loads, Route, Waits, load, residence};
use crate::exact::{Exact, exact, mean, nearest, whole};
use crate::graph::Path;
use crate::ids::{DeviceId, Layers};
use crate::problem::{Life, PlacementProblem, Role};
use crate::units::{Bytes, Seconds};
use num_traits::{One, Zero};

/// A problem with the sides of its divided plans.
pub(super) struct Sides<'p> {
    pub whole: &'p PlacementProblem,
    divided: Option<[PlacementProblem; 2]>,
}

impl<'p> Sides<'p> {
    /// The sides of a plan with these routes: none where all routes do everything.
    pub fn of(problem: &'p PlacementProblem, routes: &[Route]) -> Self {
        let divided = routes.iter().any(|route| route.role.is_some());
        Self { whole: problem, divided: divided.then(|| Role::ALL.map(|role| problem.side(role))) }
    }

    /// What a route of this role is timed by.
    pub fn side(&self, role: Option<Role>) -> &PlacementProblem {
        match (role, &self.divided) {
            (Some(Role::Prefill), Some([prefill, _])) => prefill,
            (Some(Role::Decode), Some([_, decode])) => decode,
            _ => self.whole,
        }
    }

    /// Output tokens of a route's side for each of the plan.
    pub fn tokens(&self, role: Option<Role>) -> Exact {
        match role {
            Some(Role::Prefill) => Exact::one() / mean(self.whole.workload.output_tokens),
            _ => Exact::one(),
        }
    }

    /// What batches of this size go through on routes of each role.
    pub fn lives(&self, batch: u32, waits: Waits) -> Lives {
        let of = |side: &PlacementProblem, batch| {
            let mut life = side.life(batch);
            if waits == Waits::None {
                life.waits.clone_from(&life.steps);
            }
            life
        };
        match &self.divided {
            None => Lives { whole: Some(of(self.whole, batch)), divided: None },
            Some([prefill, decode]) => Lives { whole: None, divided: Some([of(prefill, 1), of(decode, batch)]) },
        }
    }
}

/// Lives by role.
pub(super) struct Lives {
    whole: Option<Life>,
    divided: Option<[Life; 2]>,
}

impl Lives {
    /// That of a route of this role; none where a plan has routes of roles beside others.
    pub fn of(&self, role: Option<Role>) -> Option<&Life> {
        match role {
            None => self.whole.as_ref(),
            Some(Role::Prefill) => self.divided.as_ref().map(|[prefill, _]| prefill),
            Some(Role::Decode) => self.divided.as_ref().map(|[_, decode]| decode),
        }
    }
}

/// Cache that goes from one device to another for a request that takes these two routes.
pub(super) struct Part {
    pub from: DeviceId,
    pub to: DeviceId,
    pub bytes: Bytes,
}

/// All of it, stop by stop.
pub(super) fn parts(problem: &PlacementProblem, prefill: &Route, decode: &Route) -> Vec<Part> {
    let mut parts = Vec::new();
    for held in &prefill.stops {
        for wanted in &decode.stops {
            let start = held.served.start.max(wanted.served.start);
            let layers = Layers::new(start, held.served.end.min(wanted.served.end).max(start));
            if !layers.is_empty() {
                // Where both are groups each pair of members moves its own heads.
                let of = |device| problem.prompt_cache_bytes(device, layers);
                let (from, to) = (held.device, wanted.device);
                parts.push(Part { from, to, bytes: of(from).max(of(to)) });
            }
        }
    }
    parts
}

fn way(problem: &PlacementProblem, part: &Part) -> Option<Path> {
    problem.graph.device_path(part.from, part.to, part.bytes)
}

/// Pairs of a route that prefills and one that decodes, each with the share of the requests that take both.
fn pairs(routes: &[Route]) -> impl Iterator<Item = (usize, usize, Exact)> + '_ {
    let of = move |role| (0..routes.len()).filter(move |&i| routes[i].role == Some(role));
    of(Role::Prefill).flat_map(move |p| of(Role::Decode).map(move |d| (p, d, &routes[p].share * &routes[d].share)))
}

/// Loads the ways between the sides with the cache of prompts.
pub(super) fn load_cache(loads: &mut Loads, problem: &PlacementProblem, routes: &[Route]) -> Option<()> {
    let output = mean(problem.workload.output_tokens);
    for (p, d, share) in pairs(routes) {
        for part in parts(problem, &routes[p], &routes[d]) {
            let amount = &share * whole(part.bytes.0) / &output;
            super::load_way(loads, problem, &way(problem, &part)?, &amount)?;
        }
    }
    Some(())
}

/// Seconds from the first byte of a prompt's cache to the last: its parts go at once.
fn fetching(problem: &PlacementProblem, prefill: &Route, decode: &Route) -> Option<Seconds> {
    let times = parts(problem, prefill, decode).into_iter().map(|part| Some(way(problem, &part)?.time(part.bytes)));
    times.collect::<Option<Vec<_>>>().map(|times| times.into_iter().fold(Seconds::ZERO, Seconds::max))
}

/// Mean time that the cache of a request takes between the sides; zero where there are none.
pub(super) fn mean_fetching(problem: &PlacementProblem, routes: &[Route]) -> Option<Exact> {
    let mut sum = Exact::zero();
    for (p, d, share) in pairs(routes) {
        sum += share * exact(fetching(problem, &routes[p], &routes[d])?.value())?;
    }
    Some(sum)
}

/// Share of a route times the time that a request holds cache on it.
pub(super) fn held_for(at: usize, routes: &[Route], sides: &Sides<'_>, lives: &Lives) -> Option<f64> {
    let route = &routes[at];
    let mut time = &route.share * residence(route, sides.side(route.role), lives.of(route.role)?)?;
    for (p, d, share) in pairs(routes).filter(|&(p, d, _)| p == at || d == at) {
        time += share * exact(fetching(sides.whole, &routes[p], &routes[d])?.value())?;
    }
    Some(nearest(&time))
}

/// Requests are those of one side alone, where a plan has sides.
pub(super) fn load_stage(
    loads: &mut Loads,
    sides: &Sides<'_>,
    route: &Route,
    stop: &super::Stop,
    life: &Life,
) -> Option<()> {
    let side = sides.side(route.role);
    let name = side.graph.device(stop.device).name.clone();
    let amount = &route.share * sides.tokens(route.role);
    load(loads, super::Bottleneck::Stage(name), &amount, || exact(side.rate(stop.device, stop.held, life)?.value()))
}
