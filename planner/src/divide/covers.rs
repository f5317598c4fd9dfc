//! Quick bounds on sides of a division: what devices cover at a rate, links and requests in flight left aside.
//!
//! The proof stands in `core/src/check/divided.rs`, which verifies what is stated here.

use super::Side;
use crate::budget::Budget;
use crate::tables::Tables;
use isotherm_core::check::DIVISIONS_MAX;
use isotherm_core::device::Device;
use isotherm_core::graph::Path;
use isotherm_core::ids::{DeviceId, Layers};
use isotherm_core::problem::{PlacementProblem, Role};
use isotherm_core::units::{BytesPerSecond, Seconds};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// Halvings of a rate, and of a weight.
const HALVINGS: usize = 60;
/// Part by which a bound is raised, so that rounding does not make it wrong.
const ROUNDING: f64 = 1e-12;

/// The greatest rate of a device with so many layers, in output tokens per second of the whole plan: zero where none
/// fit.
type Rates = Vec<f64>;

/// What each device can do on either side.
pub(super) struct Covers {
    /// Layers to cover, less what rounding may lose.
    layers: f64,
    /// By side, then by device.
    rates: [Vec<Rates>; 2],
    /// Devices that differ in neither, by their first.
    kinds: Vec<Vec<usize>>,
    /// Whether several devices may hold a stage together, of which rates of single devices say nothing.
    grouped: bool,
    /// Bound on all divisions, and the weight that proves it; none where every division is to be looked at.
    bound: Option<(f64, Option<f64>)>,
}

const fn at(role: Role) -> usize {
    match role {
        Role::Prefill => 0,
        Role::Decode => 1,
    }
}

impl Covers {
    /// Asks the sides.
    pub fn new(problem: &PlacementProblem, sides: &[PlacementProblem; 2], budget: &Budget<'_>) -> Self {
        let layers = problem.layers();
        let mut rates = [rates(&sides[0]), rates(&sides[1])];
        for role in Role::ALL {
            for each in rates[at(role)].iter_mut().flatten() {
                *each *= problem.outputs_per(role);
            }
        }
        // Who may only be on one side does nothing on the other.
        if !problem.limits.prefill.is_empty() {
            for id in problem.graph.device_ids() {
                let prefills = problem.limits.prefill.contains(&problem.graph.device(id).name);
                rates[usize::from(prefills)][id.index()].fill(0.0);
            }
        }
        let mut kinds: Vec<Vec<usize>> = Vec::new();
        for device in 0..problem.graph.devices().len() {
            let same = |other: usize| (0..2).all(|side| rates[side][other] == rates[side][device]);
            match kinds.iter_mut().find(|kind| kind.first().is_some_and(|&first| same(first))) {
                Some(kind) => kind.push(device),
                None => kinds.push(vec![device]),
            }
        }
        let grouped = problem.may_group();
        let mut covers = Self { layers: f64::from(layers) * (1.0 - ROUNDING), rates, kinds, grouped, bound: None };
        covers.bound = (!grouped).then(|| covers.over_all(budget));
        covers
    }

    /// Layers that a device covers on a side at a rate.
    fn cover(&self, side: usize, device: usize, rate: f64) -> f64 {
        let rates = self.rates[side][device].iter().zip(1..);
        rates.map(|(&own, layers)| f64::from(layers) * (own / rate).min(1.0)).fold(0.0, f64::max)
    }

    /// The greatest rate at which something holds that fails more and more as it grows.
    fn greatest(&self, holds: impl Fn(f64) -> bool) -> f64 {
        let all = self.rates.iter().flatten().flatten();
        // No layer is passed faster than by all devices together.
        let sum: f64 = all.sum();
        if sum <= 0.0 {
            return 0.0;
        }
        let (mut low, mut high) = (0.0, sum);
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if holds(middle) { low = middle } else { high = middle }
        }
        high * (1.0 + ROUNDING)
    }

    /// A bound on one side of a division: infinite where nothing is known.
    pub fn of_side(&self, role: Role, division: &Side) -> f64 {
        if self.grouped {
            return f64::INFINITY;
        }
        let own = |device: usize| division[device] == (role == Role::Prefill);
        let devices: Vec<usize> = (0..division.len()).filter(|&device| own(device)).collect();
        let covered = |rate| devices.iter().map(|&device| self.cover(at(role), device, rate)).sum::<f64>();
        self.greatest(|rate| covered(rate) >= self.layers)
    }

    /// A bound on a division.
    pub fn of_division(&self, division: &Side) -> f64 {
        Role::ALL.into_iter().map(|role| self.of_side(role, division)).fold(f64::INFINITY, f64::min)
    }

    /// A bound on all divisions, and the weight that proves it.
    pub const fn bound(&self) -> Option<(f64, Option<f64>)> {
        self.bound
    }

    /// Division by division where there are few and the budget lasts, else by a weight.
    fn over_all(&self, budget: &Budget<'_>) -> (f64, Option<f64>) {
        let divisions = self.kinds.iter().fold(1_u128, |all, kind| all.saturating_mul(kind.len() as u128 + 1));
        if divisions <= DIVISIONS_MAX {
            let ended = Cell::new(false);
            let holds = |rate| {
                let found = if ended.get() { None } else { self.some_division(rate, budget) };
                ended.set(found.is_none());
                found.unwrap_or(false)
            };
            let bound = self.greatest(holds);
            if !ended.get() {
                return (bound, None);
            }
        }
        // The bound is a greatest rate of a convex function of the weight at every rate: it falls, then rises.
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..HALVINGS {
            let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
            if self.weighed(a) <= self.weighed(b) { high = b } else { low = a }
        }
        let weight = 0.5 * (low + high);
        (self.weighed(weight), Some(weight))
    }

    /// The bound that a weight proves.
    fn weighed(&self, weight: f64) -> f64 {
        let most = |kind: &Vec<usize>, rate| {
            let (prefill, decode) = (self.cover(0, kind[0], rate), self.cover(1, kind[0], rate));
            kind.len() as f64 * (weight * prefill).max((1.0 - weight) * decode)
        };
        self.greatest(|rate| self.kinds.iter().map(|kind| most(kind, rate)).sum::<f64>() >= self.layers)
    }

    /// Whether both sides of some division cover all layers at a rate; none where the budget ended before that was
    /// known.
    fn some_division(&self, rate: f64, budget: &Budget<'_>) -> Option<bool> {
        // For each number of layers that the devices so far cover on one side at least, the most on the other: only
        // what no other beats in both is kept.
        let mut known: Vec<(f64, f64)> = vec![(0.0, 0.0)];
        for kind in &self.kinds {
            if budget.exhausted().is_some() {
                return None;
            }
            budget.did((known.len() * (kind.len() + 1)) as u64);
            let (prefill, decode) = (self.cover(0, kind[0], rate), self.cover(1, kind[0], rate));
            let with = |&(p, d): &(f64, f64)| {
                (0..=kind.len()).map(move |n| (p + n as f64 * prefill, d + (kind.len() - n) as f64 * decode))
            };
            let mut all: Vec<(f64, f64)> = known.iter().flat_map(with).collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)));
            let mut most = f64::NEG_INFINITY;
            all.retain(|&(_, d)| {
                let kept = d > most;
                most = most.max(d);
                kept
            });
            known = all;
        }
        Some(known.iter().any(|&(p, d)| p >= self.layers && d >= self.layers))
    }

    /// The divisions in which the devices that prefill are the best for it beside what they would decode.
    pub fn in_order(&self, count: usize) -> Vec<Side> {
        let rate = self.bound.map_or(1.0, |(bound, _)| bound.max(f64::MIN_POSITIVE));
        let ratio = |device: usize| {
            let (prefill, decode) = (self.cover(0, device, rate), self.cover(1, device, rate));
            if decode > 0.0 { prefill / decode } else { f64::INFINITY }
        };
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&a, &b| ratio(b).total_cmp(&ratio(a)).then(a.cmp(&b)));
        let first = |number: usize| {
            let mut side = vec![false; count];
            order[..number].iter().for_each(|&device| side[device] = true);
            side
        };
        (0..=count).map(first).collect()
    }

    /// Whether two devices do the same on either side.
    fn same(&self, a: usize, b: usize) -> bool {
        self.kinds.iter().any(|kind| kind.contains(&a) && kind.contains(&b))
    }
}

/// By device: its greatest rates in any format and batch.
fn rates(side: &PlacementProblem) -> Vec<Rates> {
    let layers = side.layers() as usize;
    let mut rates = vec![vec![0.0; layers]; side.graph.devices().len()];
    let lives: Vec<_> = side.batches().into_iter().map(|batch| side.life(batch)).collect();
    for variant in side.variants() {
        let tables = Tables::new(&variant, false);
        let of_kind: Vec<Rates> = tables
            .kinds
            .iter()
            .map(|kind| {
                let mut most: Rates = vec![0.0; layers];
                for count in 1..=layers {
                    let mut seen = Vec::new();
                    for start in 0..=layers - count {
                        let ends = (start == 0, start + count == layers);
                        if kind.reach[start] < start + count || seen.contains(&ends) {
                            continue;
                        }
                        seen.push(ends);
                        let held = Layers::new(start as u32, (start + count) as u32);
                        let each = lives.iter().filter_map(|life| variant.rate(kind.example, held, life));
                        most[count - 1] = each.map(|rate| rate.value()).fold(most[count - 1], f64::max);
                    }
                }
                most
            })
            .collect();
        for candidate in &tables.candidates {
            let known = &mut rates[candidate.id.index()];
            let greater = |(known, &new): (&mut f64, &f64)| *known = known.max(new);
            known.iter_mut().zip(&of_kind[candidate.kind]).for_each(greater);
        }
    }
    rates
}

/// Classes of devices that nobody can tell apart: they do the same on either side, and have the same ways to and from
/// everybody.
pub(super) fn alike(problem: &PlacementProblem, covers: &Covers) -> Vec<Vec<usize>> {
    let graph = &problem.graph;
    let ids: Vec<DeviceId> = graph.device_ids().collect();
    let ways = ways(problem, &ids);
    let (limits, file) = (&problem.limits, graph.file());
    let alone = |device: usize| {
        let known = graph.device(ids[device]);
        let coordinates = file.coordinator.as_deref() == Some(known.name.as_str());
        coordinates || limits.pinned.contains(&known.name) || known.memory_pool.is_some()
    };
    let lonely = |device: usize| {
        let host = &graph.device(ids[device]).host;
        graph.devices().iter().filter(|other| other.host == *host).count() == 1
    };
    // What groups of devices do is said by all that is known of a device.
    let twins = |one: &Device, other: &Device| {
        let (name, host) = (one.name.clone(), one.host.clone());
        *one == Device { name, host, ..other.clone() }
    };
    let exchange = |a: usize, b: usize| {
        let (one, other) = (graph.device(ids[a]), graph.device(ids[b]));
        let others = (0..ids.len()).filter(|&k| k != a && k != b);
        covers.same(a, b)
            && (!covers.grouped || twins(one, other))
            && !alone(a)
            && !alone(b)
            && one.site == other.site
            && (one.host == other.host || (lonely(a) && lonely(b)))
            && limits.banned.contains(&one.name) == limits.banned.contains(&other.name)
            && ways[a][b] == ways[b][a]
            && others.clone().all(|k| ways[a][k] == ways[b][k] && ways[k][a] == ways[k][b])
            && problem.entry(ids[a], 1) == problem.entry(ids[b], 1)
            && problem.exit(ids[a], 1) == problem.exit(ids[b], 1)
            && problem.draw(ids[a]) == problem.draw(ids[b])
    };
    let mut classes: Vec<Vec<usize>> = Vec::new();
    for device in 0..ids.len() {
        match classes.iter_mut().find(|class| class.iter().all(|&other| exchange(other, device))) {
            Some(class) => class.push(device),
            None => classes.push(vec![device]),
        }
    }
    classes
}

/// A way as somebody at its ends sees it: latency, bandwidth, and the capacities that it shares, those that only its
/// beginning or its end shares with nobody else being told by that and their size.
type Seen = (Seconds, Option<BytesPerSecond>, Vec<String>);

/// The ways between all devices.
fn ways(problem: &PlacementProblem, ids: &[DeviceId]) -> Vec<Vec<Option<Seen>>> {
    let graph = &problem.graph;
    let row = problem.model.boundary_bytes_per_token();
    let paths: Vec<Vec<Option<Path>>> = ids.iter().map(|&from| graph.paths_from(from, row)).collect();
    let groups =
        |path: &Path| -> Vec<String> { path.links.iter().flat_map(|&id| graph.link(id).groups.clone()).collect() };
    // Of each capacity the devices that all ways through it begin or end at.
    let mut ends: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (from, paths) in paths.iter().enumerate() {
        for (to, path) in paths.iter().enumerate().filter(|(to, _)| *to != from) {
            for group in path.iter().flat_map(&groups) {
                let both = BTreeSet::from([from, to]);
                let known = ends.entry(group).or_insert_with(|| both.clone());
                *known = known.intersection(&both).copied().collect();
            }
        }
    }
    let size = |name: &str| {
        let group = graph.file().groups.iter().find(|group| group.name == name);
        group.map_or(f64::INFINITY, |group| group.bandwidth_bytes_per_second.value.value())
    };
    let told = |from: usize, to: usize, name: String| match ends.get(&name) {
        Some(ends) if ends.len() == 1 && ends.contains(&from) => format!("that of the beginning, {}", size(&name)),
        Some(ends) if ends.len() == 1 && ends.contains(&to) => format!("that of the end, {}", size(&name)),
        _ => name,
    };
    let seen = |from: usize, to: usize, path: &Path| {
        (path.latency, path.bandwidth, groups(path).into_iter().map(|name| told(from, to, name)).collect())
    };
    let of = |(from, paths): (usize, &Vec<Option<Path>>)| {
        paths.iter().enumerate().map(|(to, path)| path.as_ref().map(|path| seen(from, to, path))).collect()
    };
    paths.iter().enumerate().map(of).collect()
}
