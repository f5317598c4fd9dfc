//! Plans found from the first layer to the last.
//!
//! Blocks of rails nest: what begins side by side ends side by side. The best plans often do not, since a slow device may
//! begin beside one row of others and end beside the next. Here a plan is made from left to right: wherever devices end,
//! others begin, so many that all that hold the next layer carry the rate. At the worths of devices that bound the rate
//! ([`super::worths`]) such devices are paid 1 or more for a layer, so what is paid beyond that is *waste*, and all that a plan
//! may waste is what all devices are worth beyond all layers. Of the beginnings of plans that end at a layer those of least
//! waste are kept, if what requests take between their devices is a flow of the rate. Shaken worths keep others.

use super::Flows;
use super::blocks::{Type, Yard};
use super::clip::Span;
use super::groups;
use super::profiles::placed;
use super::random::Random;
use super::replay::Carried;
use super::worths::Covers;
use crate::budget::Budget;
use crate::formulation::solve::SolverFault;
use crate::latency::chains::Link;
use flow::Flow;
use std::collections::BTreeSet;

mod flow;

/// Beginnings kept for each layer.
const WIDTH: usize = 160;
/// Beginnings looked at for each layer.
const LOOKED: usize = 4 * WIDTH;
/// Sets of devices that one beginning goes on with, at most, and how many are looked at for it.
const BRANCHES: usize = 24;
const SETS: usize = 1_500;
/// Share by which worths are shaken.
const SHAKEN: f64 = 0.12;
/// What waste may be more than what is left of worths, in layers: shaken worths are not those of the bound.
const LENIENT: f64 = 0.5;
/// What luck weighs, in layers.
const LUCK: f64 = 0.3;
/// Where between what is had and the bound a rate is looked at, in turn.
const TARGETS: [f64; 6] = [0.5, 0.9, 0.2, 0.7, 0.35, 0.08];
/// Sweeps of one search.
const SWEEPS: u64 = 60;
/// Work of looking at one set.
const SET_WORK: u64 = 10;
/// Plans whose flow is computed at the end of one sweep.
const ENDS: usize = 4;
/// What makes up for rounding.
const ROUNDING: f64 = 1e-9;

/// A way to use a device: its type, how many layers it holds, at what rate, and what it is paid for each.
#[derive(Debug, Clone, Copy)]
struct Way {
    of: usize,
    held: usize,
    rate: f64,
    price: f64,
}

/// The beginning of a plan.
#[derive(Debug, Clone)]
struct Beginning {
    free: Vec<u16>,
    /// Ways and where they end, of those that hold the next layer or end before it.
    active: Vec<(usize, usize)>,
    waste: f64,
    luck: f64,
    /// Where the last devices are noted.
    trail: usize,
    /// What sites pass, and what has crossed between each two.
    shares: Vec<f64>,
    crossed: Vec<f64>,
}

/// Devices that begin at a layer, after others.
struct Step {
    before: usize,
    start: usize,
    ways: Vec<usize>,
}

struct Sweep<'a> {
    yard: &'a Yard,
    rate: f64,
    /// Cheapest per rate first.
    ways: Vec<Way>,
    /// What a plan may waste.
    slack: f64,
    steps: Vec<Step>,
    looked: u64,
}

impl<'a> Sweep<'a> {
    fn new(yard: &'a Yard, rate: f64, worths: &[f64]) -> Self {
        let mut ways = Vec::new();
        for (of, worth) in worths.iter().enumerate() {
            for held in 1..=yard.layers {
                let rate = yard.rate_of(of, held).min(rate);
                if rate > 0.0 {
                    ways.push(Way { of, held, rate, price: worth / held as f64 });
                }
            }
        }
        ways.sort_by(|a, b| (a.price / a.rate).total_cmp(&(b.price / b.rate)).then(b.held.cmp(&a.held)));
        let all: f64 = yard.types.iter().zip(worths).map(|(t, worth)| t.count as f64 * worth).sum();
        let slack = all - yard.layers as f64;
        Self { yard, rate, ways, slack, steps: Vec::new(), looked: 0 }
    }

    /// The devices of a beginning: ways and first layers.
    fn devices(&self, beginning: &Beginning) -> Vec<(usize, usize)> {
        let (mut devices, mut at) = (Vec::new(), beginning.trail);
        while let Some(step) = self.steps.get(at) {
            devices.extend(step.ways.iter().map(|&way| (way, step.start)));
            at = step.before;
        }
        devices
    }

    /// Whether what is held before `end` passes the rate on to it.
    fn flows(&self, beginning: &Beginning, end: usize) -> bool {
        let devices = self.devices(beginning);
        let held = |&(way, start): &(usize, usize)| {
            let way = self.ways[way];
            (self.yard.types[way.of].site, start, start + way.held, way.rate)
        };
        Flow::new(self.yard, devices.iter().map(held).collect(), end).most(self.rate) >= self.rate * (1.0 - ROUNDING)
    }

    /// Sets of ways that may begin at a layer and pass `need`, with their prices.
    fn sets(&mut self, free: &[u16], room: usize, need: f64, most: f64) -> Vec<(f64, Vec<usize>)> {
        let (mut found, mut chosen, mut free) = (Vec::new(), Vec::new(), free.to_vec());
        let mut left = SETS;
        self.add(0, room, (need, 0.0, most), &mut free, &mut chosen, (&mut found, &mut left));
        self.looked += (SETS - left) as u64;
        found
    }

    fn add(
        &self,
        from: usize,
        room: usize,
        (need, paid, most): (f64, f64, f64),
        free: &mut [u16],
        chosen: &mut Vec<usize>,
        (found, left): (&mut Vec<(f64, Vec<usize>)>, &mut usize),
    ) {
        if need <= ROUNDING * self.rate {
            found.push((paid, chosen.clone()));
            return;
        }
        for at in from..self.ways.len() {
            let way = self.ways[at];
            if *left == 0 || paid + need * way.price / way.rate > most {
                return;
            }
            if way.held > room || free[way.of] == 0 || paid + way.price > most {
                continue;
            }
            *left -= 1;
            free[way.of] -= 1;
            chosen.push(at);
            self.add(at, room, (need - way.rate, paid + way.price, most), free, chosen, (&mut *found, &mut *left));
            chosen.pop();
            free[way.of] += 1;
        }
    }

    /// What sites pass once these hold the next layer, and what has crossed then; none where trunks do not carry it.
    fn shares(&self, before: &Beginning, active: &[(usize, usize)]) -> Option<(Vec<f64>, Vec<f64>)> {
        let sites = self.yard.sites;
        let mut room = vec![0.0; sites];
        active.iter().for_each(|&(way, _)| room[self.yard.types[self.ways[way].of].site] += self.ways[way].rate);
        if before.shares.is_empty() {
            let all: f64 = room.iter().sum();
            return Some((room.into_iter().map(|room| room * self.rate / all).collect(), vec![0.0; sites * sites]));
        }
        let (mut shares, mut crossed) = (before.shares.clone(), before.crossed.clone());
        for a in 0..sites {
            while shares[a] > room[a] + ROUNDING * self.rate {
                let left = |b: usize| self.yard.trunk[a][b] - crossed[a.min(b) * sites + a.max(b)];
                let open = (0..sites).filter(|&b| b != a && room[b] > shares[b] + ROUNDING && left(b) > ROUNDING);
                let b = open.max_by(|&b, &c| left(b).total_cmp(&left(c)).then(c.cmp(&b)))?;
                let much = (shares[a] - room[a]).min(room[b] - shares[b]).min(left(b));
                shares[a] -= much;
                shares[b] += much;
                crossed[a.min(b) * sites + a.max(b)] += much;
            }
        }
        Some((shares, crossed))
    }

    /// The beginnings that follow one which ends at a layer, each with where it ends.
    fn after(&mut self, beginning: &Beginning, at: usize, random: &mut Random) -> Vec<(usize, Beginning)> {
        let going: Vec<(usize, usize)> = beginning.active.iter().copied().filter(|(_, end)| *end > at).collect();
        let passed: f64 = going.iter().map(|&(way, _)| self.ways[way].rate).sum();
        let paid: f64 = going.iter().map(|&(way, _)| self.ways[way].price).sum();
        let most = 1.0 - paid + self.slack + LENIENT - beginning.waste;
        let mut found: Vec<(f64, usize, Vec<usize>)> = Vec::new();
        for (more, set) in self.sets(&beginning.free, self.yard.layers - at, self.rate - passed, most) {
            let ends = set.iter().map(|&way| at + self.ways[way].held).chain(going.iter().map(|&(_, end)| end));
            let end = ends.min().unwrap_or(at);
            found.push((beginning.waste + (paid + more - 1.0) * (end - at) as f64, end, set));
        }
        found.retain(|(waste, ..)| *waste <= self.slack + LENIENT);
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.2.cmp(&b.2)));
        found.truncate(BRANCHES);
        let mut next = Vec::new();
        for (waste, end, set) in found {
            let mut active = going.clone();
            active.extend(set.iter().map(|&way| (way, at + self.ways[way].held)));
            active.sort_unstable();
            let Some((shares, crossed)) = self.shares(beginning, &active) else { continue };
            let mut free = beginning.free.clone();
            set.iter().for_each(|&way| free[self.ways[way].of] -= 1);
            self.steps.push(Step { before: beginning.trail, start: at, ways: set });
            let (luck, trail) = (waste + LUCK * random.real(), self.steps.len() - 1);
            next.push((end, Beginning { free, active, waste, luck, trail, shares, crossed }));
        }
        next
    }

    /// Intervals of plans of the rate, by type.
    fn plans(&mut self, random: &mut Random, budget: &Budget<'_>) -> Vec<Vec<(usize, usize, usize)>> {
        let layers = self.yard.layers;
        let free = self.yard.types.iter().map(|t: &Type| u16::try_from(t.count).unwrap_or(u16::MAX)).collect();
        let first = Beginning {
            free,
            active: Vec::new(),
            waste: 0.0,
            luck: 0.0,
            trail: usize::MAX,
            shares: Vec::new(),
            crossed: Vec::new(),
        };
        let mut waiting: Vec<Vec<Beginning>> = vec![Vec::new(); layers + 1];
        waiting[0].push(first);
        for at in 0..layers {
            let mut here = std::mem::take(&mut waiting[at]);
            here.sort_by(|a, b| a.luck.total_cmp(&b.luck).then(a.trail.cmp(&b.trail)));
            let (mut known, mut kept) = (BTreeSet::new(), 0);
            for beginning in here.into_iter().take(LOOKED) {
                if kept == WIDTH || budget.exhausted().is_some() {
                    break;
                }
                if !known.insert((beginning.free.clone(), beginning.active.clone()))
                    || at > 0 && !self.flows(&beginning, at)
                {
                    continue;
                }
                kept += 1;
                for (end, next) in self.after(&beginning, at, random) {
                    waiting[end].push(next);
                }
            }
        }
        let mut all = std::mem::take(&mut waiting[layers]);
        all.sort_by(|a, b| a.waste.total_cmp(&b.waste).then(a.trail.cmp(&b.trail)));
        all.retain(|beginning| beginning.trail != usize::MAX);
        let whole = all.iter().filter(|beginning| self.flows(beginning, layers)).take(ENDS);
        let laid = |beginning: &Beginning| {
            let held = |(way, start): (usize, usize)| (self.ways[way].of, start, start + self.ways[way].held);
            self.devices(beginning).into_iter().map(held).collect()
        };
        whole.map(laid).collect()
    }
}

/// The best plan faster than `rate` that was found, no plan being faster than `above`.
pub(crate) fn search(
    flows: &Flows<'_>,
    spans: &[Vec<Span>],
    covers: &mut Covers,
    (rate, above): (f64, f64),
    seed: u64,
    budget: &Budget<'_>,
) -> Result<Option<(Vec<Link>, Carried)>, SolverFault> {
    let sites = groups::sites(flows.network, if seed.is_multiple_of(2) { f64::INFINITY } else { above });
    let yard = groups::yard(flows, &sites, spans);
    let (mut best, mut low): (Option<(Vec<Link>, Carried)>, f64) = (None, rate);
    let mut turn = 0;
    for round in 0..SWEEPS {
        if budget.exhausted().is_some() || low >= above * (1.0 - 1e-6) {
            break;
        }
        let target = low + (above - low) * TARGETS[turn % TARGETS.len()];
        turn += 1;
        let Some(worths) = covers.worths(target, budget)? else { continue };
        let mut random = Random::new(seed * 1000 + round);
        let shaken = |random: &mut Random| if round == 0 { 1.0 } else { 1.0 + SHAKEN * (random.real() - 0.5) };
        let worths: Vec<f64> = yard.types.iter().map(|t| worths[t.kind] * shaken(&mut random)).collect();
        let mut sweep = Sweep::new(&yard, target, &worths);
        let laid = sweep.plans(&mut random, budget);
        if std::env::var_os("TELL").is_some() {
            eprintln!("sweep {round} low {low:.2} target {target:.2} above {above:.2} slack {:.3} looked {} steps {} plans {}", sweep.slack, sweep.looked, sweep.steps.len(), laid.len());
        }
        budget.did(sweep.looked * SET_WORK);
        for laid in laid {
            let Some(placement) = placed(flows, &yard, &sites, &laid) else { continue };
            let carried = flows.carried(&placement)?;
            if std::env::var_os("TELL").is_some() { eprintln!("   carries {}", carried.rate); }
            if carried.rate > low {
                (low, turn) = (carried.rate, 0);
                best = Some((placement, carried));
            }
        }
    }
    Ok(best)
}
