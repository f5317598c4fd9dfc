//! The bound by the cheapest route, with prices for work on devices and for time in flight.
//!
//! Each token takes some route over all layers, on which devices work for it and it is in flight. At any prices for a
//! second of work on a device of a kind and for a second in flight, what the cheapest route pays, times the rate, is at
//! most what all devices can work and all requests can be in flight; why is said in the checker. The best prices for a rate
//! `F` solve
//!
//! ```text
//! min  sum over kinds of count u + in_flight p    s.t.  sum over stages of u / min(T(I), F) + p stay >= 1   for every route
//! ```
//!
//! a linear program whose rows are found one at a time: the cheapest route at the prices so far is a shortest path over
//! (layers passed, place of the device). Each route found bounds the rate, and at a lower rate devices work longer for a
//! token, so `F` goes down to what was found until both agree. Unlike the clip bound with a price on requests in flight, it
//! knows that stages have to add up to all layers, and that a route cannot be of the best kind of device throughout.

use super::network::Network;
use super::stay::Stay;
use crate::budget::Budget;
use crate::formulation::program::{Program, Relation};
use crate::formulation::solve::{SolverFault, Verdict, solve};
use crate::tables::Tables;
use isotherm_core::check::WAYS_DEVICES_MAX;
use std::collections::BTreeMap;

/// Most routes that are looked for.
const ROUTES_MAX: usize = 300;
/// Relative distance at which two rates, or what a route pays and should, are the same.
const NEAR: f64 = 1e-7;
/// Work of one search for a route, by stage and way that is looked at.
const STEPS_EACH: u64 = 100;

/// A bound, and the prices that prove it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Routed {
    /// No plan is faster.
    pub bound: f64,
    /// What a token pays for each second in flight.
    pub price: f64,
    /// What it pays for each second of a device's work, by kind.
    pub worth: Vec<f64>,
}

/// A route: its stages by kind, and how long a request stays on it.
struct Route {
    stages: Vec<(usize, usize, usize)>,
    stay: f64,
}

/// Devices of a kind to and from which ways take the same time.
struct Place {
    kind: usize,
    entry: f64,
    exit: f64,
}

/// All that routes lead over.
struct Roads<'a> {
    network: &'a Network,
    stay: &'a Stay,
    places: Vec<Place>,
    /// Time on the way from a place to another, or to itself.
    ways: Vec<Vec<f64>>,
}

/// The least bound that was found, no plan being faster than `above`; what is no faster than `reach` is as good as any.
/// None where no route passes all layers, or the times of a device are unknown.
pub(crate) fn bound(
    tables: &Tables<'_>,
    network: &Network,
    stay: &Stay,
    (above, reach): (f64, f64),
    budget: &Budget<'_>,
) -> Result<Option<Routed>, SolverFault> {
    // The checker takes prices for work and time where all times are known.
    if tables.candidates.iter().any(|candidate| tables.problem.profile(candidate.id).is_none()) {
        return Ok(None);
    }
    let roads = Roads::new(tables, network, stay);
    let mut counts = vec![0.0; tables.kinds.len()];
    tables.candidates.iter().for_each(|candidate| counts[candidate.kind] += 1.0);
    let mut asked = Routed { bound: above, price: 1.0, worth: vec![0.0; counts.len()] };
    let (mut at, mut best, mut routes) = (above, None, Vec::<Route>::new());
    for _ in 0..ROUTES_MAX {
        if budget.exhausted().is_some() {
            break;
        }
        let Some((paid, route)) = roads.cheapest(&asked, at) else { return Ok(None) };
        budget.did(STEPS_EACH * roads.steps());
        let most: f64 = asked.worth.iter().zip(&counts).map(|(u, n)| u * n).sum();
        let found = if paid > 0.0 { (most + asked.price * stay.in_flight) / paid } else { f64::INFINITY };
        if best.as_ref().is_none_or(|best: &Routed| found < best.bound) {
            best = Some(Routed { bound: found, ..asked.clone() });
        }
        let lower = found < at * (1.0 - NEAR);
        if found <= reach || (!lower && !routes.is_empty() && paid >= 1.0 - NEAR) {
            break;
        }
        at = at.min(found);
        routes.push(route);
        let Some(better) = prices(network, stay, &counts, &routes, at, budget)? else { break };
        asked = better;
    }
    Ok(best)
}

/// The prices at which every known route pays at least 1 and all pay the least, for a plan of rate `at`.
fn prices(
    network: &Network,
    stay: &Stay,
    counts: &[f64],
    routes: &[Route],
    at: f64,
    budget: &Budget<'_>,
) -> Result<Option<Routed>, SolverFault> {
    let mut program = Program::default();
    let columns: Vec<usize> = counts.iter().map(|&count| program.column(count, 0.0, f64::INFINITY, false)).collect();
    let second = program.column(1.0, 0.0, f64::INFINITY, false);
    for route in routes {
        let mut terms: BTreeMap<usize, f64> = BTreeMap::new();
        for &(kind, start, end) in &route.stages {
            *terms.entry(columns[kind]).or_insert(0.0) += at / network.stage[kind].at(start, end).min(at);
        }
        terms.insert(second, route.stay * at / stay.in_flight);
        program.row(terms.into_iter().collect(), Relation::AtLeast, 1.0);
    }
    let answer = solve(&program, None, 0.0, &Budget { progress: None, ..*budget })?;
    let Some(found) = answer.assignment.filter(|_| answer.verdict == Verdict::Optimal) else { return Ok(None) };
    let worth = columns.iter().map(|&column| found[column].max(0.0) * at).collect();
    Ok(Some(Routed { bound: at, price: found[second].max(0.0) * at / stay.in_flight, worth }))
}

impl<'a> Roads<'a> {
    fn new(tables: &Tables<'_>, network: &'a Network, stay: &'a Stay) -> Self {
        let count = tables.candidates.len();
        // The checker leaves ways aside where there are many devices.
        if count * tables.problem.formats().len() > WAYS_DEVICES_MAX {
            let kinds = tables.kinds.len();
            let places = (0..kinds).map(|kind| Place { kind, entry: 0.0, exit: 0.0 }).collect();
            return Self { network, stay, places, ways: vec![vec![0.0; kinds]; kinds] };
        }
        let open = |rate: f64, time: f64| if rate > 0.0 { time } else { f64::INFINITY };
        let way = |from: usize, to: usize| {
            if from == to { f64::INFINITY } else { open(network.pair[from][to], stay.pair[from][to]) }
        };
        let entry = |device: usize| open(network.source[device], stay.source[device]);
        let exit = |device: usize| open(network.sink[device], stay.sink[device]);
        let kind = |device: usize| tables.candidates[device].kind;
        let same = |a: f64, b: f64| a.total_cmp(&b).is_eq();
        let alike = |a: usize, b: usize| {
            let others = || (0..count).filter(|&other| other != a && other != b);
            kind(a) == kind(b)
                && same(entry(a), entry(b))
                && same(exit(a), exit(b))
                && same(way(a, b), way(b, a))
                && others().all(|c| same(way(a, c), way(b, c)) && same(way(c, a), way(c, b)))
        };
        let mut members: Vec<Vec<usize>> = Vec::new();
        for device in 0..count {
            match members.iter_mut().find(|place| alike(place[0], device)) {
                Some(place) => place.push(device),
                None => members.push(vec![device]),
            }
        }
        let place = |of: &Vec<usize>| Place { kind: kind(of[0]), entry: entry(of[0]), exit: exit(of[0]) };
        // From a place to itself, from one of its devices to another.
        let between = |from: &Vec<usize>, to: &Vec<usize>| {
            to.iter().find(|&&to| to != from[0]).map_or(f64::INFINITY, |&to| way(from[0], to))
        };
        let ways = members.iter().map(|from| members.iter().map(|to| between(from, to)).collect()).collect();
        Self { network, stay, places: members.iter().map(place).collect(), ways }
    }

    /// Stages and ways that a search looks at.
    fn steps(&self) -> u64 {
        let (layers, places) = (self.network.layers, self.places.len());
        (layers * places * (places + layers / 2)) as u64
    }

    /// The cheapest route at these prices and what a token pays on it, in a plan of rate `at`.
    fn cheapest(&self, prices: &Routed, at: f64) -> Option<(f64, Route)> {
        let (layers, places) = (self.network.layers, &self.places);
        let stage = |kind: usize, start: usize, end: usize| {
            let rate = self.network.stage[kind].at(start, end);
            let stay = prices.price * self.stay.stage[kind].at(start, end);
            if rate > 0.0 { stay + prices.worth[kind] / rate.min(at) } else { f64::INFINITY }
        };
        // A price of nothing for an endless way is no bargain.
        let spent = |time: f64| if time.is_infinite() { time } else { prices.price * time };
        // What is paid until so many layers are passed, the last at a place, with where its stage began and the place
        // before.
        let never = (f64::INFINITY, 0, 0);
        let mut passed = vec![vec![never; places.len()]; layers + 1];
        for start in 0..layers {
            for (to, place) in places.iter().enumerate() {
                let arrives = if start == 0 {
                    (spent(place.entry), to)
                } else {
                    let by =
                        |(from, &(paid, ..)): (usize, &(f64, usize, usize))| (paid + spent(self.ways[from][to]), from);
                    let all = passed[start].iter().enumerate().map(by);
                    all.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::INFINITY, to))
                };
                if arrives.0.is_infinite() {
                    continue;
                }
                for (end, known) in passed.iter_mut().enumerate().skip(start + 1) {
                    let paid = arrives.0 + stage(place.kind, start, end);
                    if paid.is_infinite() {
                        break;
                    }
                    if paid < known[to].0 {
                        known[to] = (paid, start, arrives.1);
                    }
                }
            }
        }
        let leaves = |place: usize| passed[layers][place].0 + spent(places[place].exit);
        let last = (0..places.len()).min_by(|&a, &b| leaves(a).total_cmp(&leaves(b)))?;
        let paid = leaves(last);
        if paid.is_infinite() {
            return None;
        }
        let (mut route, mut end, mut place) = (Route { stages: Vec::new(), stay: places[last].exit }, layers, last);
        while end > 0 {
            let (_, start, before) = passed[end][place];
            let kind = places[place].kind;
            route.stages.push((kind, start, end));
            let way = if start == 0 { places[place].entry } else { self.ways[before][place] };
            route.stay += self.stay.stage[kind].at(start, end) + way;
            (end, place) = (start, before);
        }
        Some((paid, route))
    }
}
