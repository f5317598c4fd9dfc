//! Plans of stretches, by column generation, dives and integer programs.
//!
//! A *stretch* is what lies between two layers that no device passes over: within it devices begin and end as they
//! like, and a plan at one site is stretches in any order. At prices of devices, stretches that waste little are
//! grown from the left ([`grow`]), many at once, of all lengths. Master program: how often each is used, within the
//! devices there are, for the most layers; its duals are the next prices. Then stretches are taken one by one, what
//! is left is solved again and others are grown of the devices left, which the master's duals alone would not ask
//! for. Whatever was grown in many such dives is kept, and an integer program makes the most of all of it.

use super::Flows;
use super::blocks::Yard;
use super::clip::Span;
use super::dive::shaken;
use super::groups;
use super::profiles::placed;
use super::random::Random;
use super::replay::Carried;
use super::worths::Covers;
use crate::budget::Budget;
use crate::formulation::program::{Program, Relation};
use crate::formulation::solve::{SolverFault, Verdict, solve};
use crate::latency::chains::Link;
use grow::{Ground, grow};
use std::collections::BTreeMap;

mod grow;
mod line;

/// Most layers of a stretch.
const LONGEST: usize = 30;
/// Beginnings kept for each layer, and sets that one goes on with: at first, and in a dive.
const WIDTH: usize = 60;
const BRANCHES: usize = 24;
const WIDTH_DIVE: usize = 20;
const BRANCHES_DIVE: usize = 16;
/// Rounds of pricing before dives.
const ROUNDS: usize = 8;
/// Share by which prices are shaken in every second round, and in dives.
const SHAKEN: f64 = 0.12;
/// What luck weighs, in turn.
const LUCKS: [f64; 3] = [0.02, 0.02, 0.2];
/// What a stretch may waste, in layers, beyond what all may; and what all may at least.
const WASTE: f64 = 0.3;
const SLACK: f64 = 0.3;
/// Layers short of all at which the master's best in fractions is given up, before dives and in one.
const HOPELESS: f64 = 2.0;
const SHORT: f64 = 1.5;
/// Dives at one rate.
const DIVES: usize = 24;
/// What chance weighs where a stretch is taken.
const CHANCE: f64 = 0.35;
/// Nodes of the integer program of one rate.
const NODES: u64 = 500;
/// Most stretches that are kept from rate to rate.
const KEPT: usize = 6_000;
/// Where between what is had and the bound a rate is looked at, in turn: first a little above, since the bound may be
/// far off.
const TARGETS: [f64; 8] = [0.15, 0.05, 0.3, 0.1, 0.02, 0.2, 0.07, 0.5];
/// Relative distance of rates at which the search ends.
const NEAR: f64 = 1e-5;
/// What makes up for rounding.
const ROUNDING: f64 = 1e-9;

/// Intervals: type of the device, first layer, end.
type Laid = Vec<(usize, usize, usize)>;

/// The rate of what is known by layers and devices.
type Known = BTreeMap<(usize, Vec<u16>), f64>;

/// Devices that hold some layers in a row, of which none passes over the first or the last border.
#[derive(Debug, Clone, PartialEq)]
struct Stretch {
    layers: usize,
    /// Devices by type.
    counts: Vec<u16>,
    laid: Laid,
    /// What they pass.
    rate: f64,
}

/// What earlier searches have grown.
#[derive(Debug, Clone, Default)]
pub(super) struct Grown {
    stretches: Vec<Stretch>,
    known: Known,
}

/// A search for a plan of one rate.
struct Search<'a> {
    yard: &'a Yard,
    rate: f64,
    grown: &'a mut Grown,
    free: Vec<u16>,
    left: usize,
    taken: Vec<usize>,
}

/// What the master says: its value, how often each stretch is used, and the duals of types.
struct Master {
    value: f64,
    used: Vec<(usize, f64)>,
    duals: Vec<f64>,
}

impl<'a> Search<'a> {
    fn new(yard: &'a Yard, rate: f64, grown: &'a mut Grown) -> Self {
        let free = yard.types.iter().map(|t| u16::try_from(t.count).unwrap_or(u16::MAX)).collect();
        Self { yard, rate, grown, free, left: yard.layers, taken: Vec::new() }
    }

    /// Whether a stretch passes the rate and there are devices for it.
    fn fits(&self, stretch: &Stretch) -> bool {
        stretch.rate >= self.rate * (1.0 - ROUNDING)
            && stretch.layers <= self.left
            && stretch.counts.iter().zip(&self.free).all(|(used, free)| used <= free)
    }

    /// The most layers by stretches within the devices left, in fractions, or in whole numbers by those that cost no
    /// more beyond their layers than so much at some prices.
    fn master(&self, whole: Option<(&[f64], f64)>, budget: &Budget<'_>) -> Result<Option<Master>, SolverFault> {
        let mut program = Program { maximise: true, ..Program::default() };
        let of_use = |stretch: &Stretch| {
            let cost = |prices: &[f64]| prices.iter().zip(&stretch.counts).map(|(p, &n)| p * f64::from(n)).sum::<f64>();
            self.fits(stretch) && whole.is_none_or(|(prices, beyond)| cost(prices) - stretch.layers as f64 <= beyond)
        };
        let open: Vec<usize> = (0..self.grown.stretches.len()).filter(|&s| of_use(&self.grown.stretches[s])).collect();
        let whole = whole.is_some();
        let mut devices = vec![Vec::new(); self.free.len()];
        for &s in &open {
            let stretch = &self.grown.stretches[s];
            let times = stretch.counts.iter().zip(&self.free).filter(|(used, _)| **used > 0);
            let most = times.map(|(used, free)| f64::from(free / used)).fold(f64::INFINITY, f64::min);
            let x = program.column(stretch.layers as f64, 0.0, if whole { most } else { f64::INFINITY }, whole);
            for (terms, &used) in devices.iter_mut().zip(&stretch.counts).filter(|(_, used)| **used > 0) {
                terms.push((x, f64::from(used)));
            }
        }
        for (terms, &free) in devices.into_iter().zip(&self.free) {
            program.row(terms, Relation::AtMost, f64::from(free));
        }
        // Less than a layer more is none.
        let gap = if whole { 0.9 / self.left.max(1) as f64 } else { 0.0 };
        let answer = solve(&program, None, gap, &Budget { progress: None, ..*budget })?;
        let Some(at) = answer.assignment.filter(|_| whole || answer.verdict == Verdict::Optimal) else {
            return Ok(None);
        };
        Ok(Some(Master {
            value: program.value(&at),
            used: open.into_iter().zip(at).filter(|(_, x)| *x > 1e-6).collect(),
            duals: answer.duals.iter().take(self.free.len()).map(|dual| dual.max(0.0)).collect(),
        }))
    }

    /// Grows stretches of the devices left.
    fn grow(
        &mut self,
        worths: &[f64],
        (width, branches, luck): (usize, usize, f64),
        random: &mut Random,
        budget: &Budget<'_>,
    ) {
        let all: f64 = worths.iter().zip(&self.free).map(|(worth, &free)| worth * f64::from(free)).sum();
        let ground = Ground {
            yard: self.yard,
            rate: self.rate,
            worths,
            free: &self.free,
            waste: (all - self.left as f64).max(SLACK) + WASTE,
            longest: self.left.min(LONGEST),
            width,
            branches,
            luck,
        };
        let new = grow(&ground, &mut self.grown.known, random, budget);
        self.grown.stretches.extend(new);
    }

    /// Takes stretches until all layers are held; whether they are.
    fn dive(&mut self, random: &mut Random, budget: &Budget<'_>) -> Result<bool, SolverFault> {
        let mut found = self.master(None, budget)?;
        while self.left > 0 {
            let Some(master) = found else { return Ok(false) };
            if master.value < self.left as f64 - SHORT || budget.exhausted().is_some() {
                return Ok(false);
            }
            let ranked = master.used.iter().map(|&(s, used)| (used.min(1.0) + CHANCE * random.real(), s, used));
            let Some((_, s, used)) = ranked.reduce(|a, b| if b.0 > a.0 { b } else { a }) else { return Ok(false) };
            for _ in 0..(used + 1e-6).floor().max(1.0) as usize {
                let stretch = &self.grown.stretches[s];
                if self.left == 0 || !self.fits(stretch) {
                    break;
                }
                self.left -= stretch.layers;
                self.free.iter_mut().zip(&stretch.counts).for_each(|(free, used)| *free -= used);
                self.taken.push(s);
            }
            if self.left == 0 {
                break;
            }
            found = self.master(None, budget)?;
            let Some(master) = &found else { return Ok(false) };
            let (prices, before) = (shaken(&master.duals, SHAKEN, random), self.grown.stretches.len());
            self.grow(&prices, (WIDTH_DIVE, BRANCHES_DIVE, LUCKS[0]), random, budget);
            if self.grown.stretches.len() > before {
                found = self.master(None, budget)?;
            }
        }
        Ok(true)
    }

    /// Takes what an integer program makes of all stretches; whether all layers are held. At the master's duals the
    /// devices are worth its value, and a plan of all layers that uses a stretch leaves out what that costs beyond
    /// its layers: so only those are of use that cost no more than what the value has beyond all layers.
    fn whole(&mut self, budget: &Budget<'_>) -> Result<bool, SolverFault> {
        let beyond = |master: &Master| master.value - self.left as f64 + 1e-6;
        let Some(master) = self.master(None, budget)?.filter(|master| beyond(master) >= 0.0) else { return Ok(false) };
        let nodes = Budget { nodes_max: NODES.min(budget.nodes_max), ..*budget };
        let Some(master) = self.master(Some((&master.duals, beyond(&master))), &nodes)? else { return Ok(false) };
        for (s, used) in master.used {
            self.taken.extend(std::iter::repeat_n(s, used.round() as usize));
        }
        Ok(master.value >= self.left as f64 - 0.5)
    }

    /// The intervals of what was taken, the last of which may be cut short.
    fn laid(&self) -> Laid {
        let (mut laid, mut start) = (Vec::new(), 0);
        for &s in &self.taken {
            let stretch = &self.grown.stretches[s];
            let end = (start + stretch.layers).min(self.yard.layers);
            let held = stretch.laid.iter().map(|&(t, a, b)| (t, start + a, (start + b).min(end)));
            laid.extend(held.filter(|(_, a, b)| a < b));
            start = end;
        }
        laid
    }
}

/// Intervals of a plan of a rate; none where none was found. `worths` are those that bound it.
fn plan(
    yard: &Yard,
    rate: f64,
    worths: &[f64],
    grown: &mut Grown,
    random: &mut Random,
    budget: &Budget<'_>,
) -> Result<Option<Laid>, SolverFault> {
    let (mut prices, layers) = (worths.to_vec(), yard.layers as f64);
    for round in 0..ROUNDS {
        let mut search = Search::new(yard, rate, grown);
        let moved = if round % 2 == 1 { shaken(&prices, SHAKEN, random) } else { prices.clone() };
        search.grow(&moved, (WIDTH, BRANCHES, LUCKS[round % LUCKS.len()]), random, budget);
        let Some(master) = search.master(None, budget)?.filter(|_| budget.exhausted().is_none()) else {
            return Ok(None);
        };
        if round + 1 == ROUNDS && master.value < layers - HOPELESS {
            return Ok(None);
        }
        // Half way, since the duals of few stretches jump to and fro.
        prices.iter_mut().zip(master.duals).for_each(|(price, dual)| *price = f64::midpoint(*price, dual));
    }
    for _ in 0..DIVES {
        let mut search = Search::new(yard, rate, grown);
        if search.dive(random, budget)? {
            return Ok(Some(search.laid()));
        }
        if budget.exhausted().is_some() {
            return Ok(None);
        }
    }
    let mut search = Search::new(yard, rate, grown);
    Ok(if search.whole(budget)? { Some(search.laid()) } else { None })
}

/// The best plan faster than `rate` that was found, no plan being faster than `above`; none where devices are of
/// several sites. `grown` is what searches before have grown.
pub(super) fn search(
    flows: &Flows<'_>,
    spans: &[Vec<Span>],
    covers: &mut Covers,
    (rate, above): (f64, f64),
    (seed, grown): (u64, &mut Grown),
    budget: &Budget<'_>,
) -> Result<Option<(Vec<Link>, Carried)>, SolverFault> {
    let sites = groups::sites(flows.network, above);
    let yard = groups::yard(flows, &sites, spans);
    if yard.sites > 1 {
        return Ok(None);
    }
    let (mut best, mut low, mut turn) = (None, rate, 0);
    let mut random = Random::new(101 + seed);
    while turn < TARGETS.len() && above - low > NEAR * above && budget.exhausted().is_none() {
        let target = low + (above - low) * TARGETS[turn];
        turn += 1;
        let found = match covers.worths(target, budget)? {
            Some(worths) => {
                let worths: Vec<f64> = yard.types.iter().map(|t| worths[t.kind]).collect();
                plan(&yard, target, &worths, grown, &mut random, budget)?
            }
            None => None,
        };
        let carried = match found.and_then(|laid| placed(flows, &yard, &sites, &laid)) {
            Some(placement) => Some((flows.carried(&placement)?, placement)),
            None => None,
        };
        if let Some((carried, placement)) = carried.filter(|(carried, _)| carried.rate > low) {
            (low, turn) = (carried.rate, 0);
            best = Some((placement, carried));
        }
        // What is too slow for all rates to come makes room first, then the oldest.
        grown.stretches.retain(|stretch| stretch.rate > low);
        let over = grown.stretches.len().saturating_sub(KEPT);
        grown.stretches.drain(..over);
        let Grown { stretches, known } = grown;
        *known = stretches.iter().map(|s| ((s.layers, s.counts.clone()), s.rate)).collect();
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::super::blocks::Type;
    use super::super::clip::Weights;
    use super::line::passed;
    use super::*;

    const LAYERS: usize = 5;

    /// A yard of one site, and its devices' rates by number of layers.
    fn yard(kinds: &[(usize, Vec<f64>)]) -> (Yard, Vec<Vec<Span>>) {
        let span = |(i, &rate): (usize, &f64)| Span { held: i + 1, first: false, last: false, rate };
        let spans: Vec<Vec<Span>> =
            kinds.iter().map(|(_, rates)| rates.iter().enumerate().map(span).collect()).collect();
        let types = kinds.iter().enumerate().map(|(kind, &(count, _))| Type { site: 0, kind, count }).collect();
        let open = vec![vec![f64::INFINITY]];
        (Yard::new(LAYERS, types, &spans, open.clone(), open), spans)
    }

    /// The greatest flow of any way to give devices layers, by trying everything.
    fn enumerated(devices: &[&[f64]], held: &mut Vec<(usize, usize, f64)>) -> f64 {
        let Some((rates, rest)) = devices.split_first() else { return passed(held, LAYERS, 1e3) };
        let mut best = enumerated(rest, held);
        for (i, &rate) in rates.iter().enumerate() {
            for start in 0..LAYERS - i {
                held.push((start, start + i + 1, rate));
                best = best.max(enumerated(rest, held));
                held.pop();
            }
        }
        best
    }

    fn planned(kinds: &[(usize, Vec<f64>)], rate: f64) -> Option<Laid> {
        let (yard, spans) = yard(kinds);
        let counts: Vec<usize> = kinds.iter().map(|(count, _)| *count).collect();
        let mut covers = Covers::new(&counts, &spans, LAYERS, Weights::PLAIN);
        let worths = covers.worths(rate, &Budget::default()).expect("the solver answers")?;
        plan(&yard, rate, &worths, &mut Grown::default(), &mut Random::new(1), &Budget::default())
            .expect("the solver answers")
    }

    #[test]
    fn most_often_the_rate_that_enumeration_finds_is_planned_for_and_never_a_higher_one() {
        let (mut draws, mut found, mut all) = (Random::new(8), 0, 0);
        for _ in 0..12 {
            let kind = |count: usize, draws: &mut Random| {
                let speed = 8.0 + 16.0 * draws.real();
                (count, (1..=3).map(|k| speed / f64::from(k) * (1.0 - 0.2 * draws.real())).collect::<Vec<f64>>())
            };
            let kinds = [kind(2, &mut draws), kind(1, &mut draws), kind(1, &mut draws)];
            let devices: Vec<&[f64]> =
                kinds.iter().flat_map(|(count, rates)| std::iter::repeat_n(rates.as_slice(), *count)).collect();
            let best = enumerated(&devices, &mut Vec::new());
            assert_eq!(planned(&kinds, best * (1.0 + 1e-6)), None, "{kinds:?} reach {best}");
            all += 1;
            let Some(laid) = planned(&kinds, best * (1.0 - 1e-9)) else { continue };
            found += 1;
            let held: Vec<_> = laid.iter().map(|&(t, a, b)| (a, b, kinds[t].1[b - a - 1])).collect();
            let rate = passed(&held, LAYERS, 1e3);
            assert!((rate - best).abs() < 1e-6 * best, "{laid:?} passes {rate}, not {best}");
            for (t, (count, _)) in kinds.iter().enumerate() {
                assert!(laid.iter().filter(|(of, ..)| *of == t).count() <= *count, "{laid:?}");
            }
        }
        assert!(found * 4 >= all * 3, "{found} of {all}");
    }

    #[test]
    fn the_same_search_finds_the_same_plan() {
        let rates = |speed: f64| (1..=4).map(|k| speed / f64::from(k)).collect::<Vec<f64>>();
        let kinds = [(3, rates(12.0)), (3, rates(7.0))];
        let first = planned(&kinds, 9.0).expect("a plan");
        assert_eq!(planned(&kinds, 9.0), Some(first));
    }

    #[test]
    fn devices_that_overlap_are_one_stretch() {
        // At 10, five layers: two of 4 with three and two layers, beside them one of 6 with two and one with three.
        let kinds = [(1, vec![4.0; 3]), (1, vec![4.0; 2]), (1, vec![6.0; 2]), (1, vec![6.0; 3])];
        let laid = planned(&kinds, 10.0).expect("a plan");
        let held: Vec<_> = laid.iter().map(|&(t, a, b)| (a, b, kinds[t].1[b - a - 1])).collect();
        assert!(passed(&held, LAYERS, 1e3) >= 10.0 - 1e-9, "{laid:?}");
        assert_eq!(planned(&kinds, 10.1), None);
    }
}
