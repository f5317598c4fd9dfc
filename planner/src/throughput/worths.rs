//! The configuration bound: worths of devices that prove a rate impossible, whatever the links.
//!
//! At a rate `F`, every layer is held by devices whose rates add to at least `F`: a *cover*. Give each device a worth
//! `u >= 0`, paid on the layers it holds in proportion to their weights `w`: of an interval of weight `w(I)`, a layer of
//! weight `w` gets `u w / w(I)`. Where every cover pays at least the weight of its layer, which is to say that its `u / w(I)`
//! add to at least 1, all layers collect at least `w(all)`; so if all worths add to less than that, no plan reaches `F`. The
//! best worths for one `F` solve
//!
//! ```text
//! min  sum over devices of u    s.t.  sum over the devices of a cover of u / w(I) >= 1   for every cover
//! ```
//!
//! a linear program with a column per kind, whose rows are found one at a time: the cheapest cover at the worths so far
//! is a knapsack. Dividing all worths by its price makes them valid at every step, so the search for `F` may stop as
//! soon as the sum says so. A larger `F` has fewer covers, so its least sum is smaller: `F` is found by halving.
//!
//! *Crossing.* Let devices be divided into sites such that no way between two sites carries `F`, and let no site alone be
//! worth all layers. Were every layer held by one device, the plan would be a chain, some pair of consecutive devices
//! would lie in two sites, and all of `F` would pass between them. So some layer is held by two devices or more; where
//! every such cover pays at least `1 + m`, the layers collect at least `w(all) + m`, and it suffices that all worths add to
//! less than that.

use super::clip::{Span, Weights};
use crate::budget::{Budget, GAP_NONE};
use crate::formulation::program::{Program, Relation};
use crate::formulation::solve::{SolverFault, Verdict, solve};
use std::collections::BTreeMap;

/// Most partial covers looked at for one cheapest cover: a tenth of what the checker allows itself.
const COVERS_MAX: u64 = 200_000;
/// Work of looking at one.
const LOOK_WORK: u64 = 5;
/// Most rows added at one rate.
const ROWS_MAX: usize = 400;
/// Most rails of a pattern.
const RAILS_MAX: usize = 6;
/// Halvings between what is had and what is known to be impossible.
const HALVINGS: usize = 24;
/// Share of the weight of all layers by which the worths stay below it: enough to be seen in exact arithmetic.
const MARGIN: f64 = 1e-9;
/// What makes up for rounding in the price of a cover.
const ROUNDING: f64 = 1e-11;

/// A bound, and the worth of a device of each kind that proves it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Worths {
    /// No plan is faster.
    pub bound: f64,
    /// By kind.
    pub worth: Vec<f64>,
    /// Of the layers.
    pub weights: Weights,
}

/// A way to use a device on a layer: the weight of the interval it holds, and its rate. Of one kind, a lighter interval
/// is faster.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Slot {
    weight: f64,
    rate: f64,
}

/// How many devices, by kind and position of the slot.
type Cover = BTreeMap<(usize, usize), usize>;

/// The search for worths.
#[derive(Debug, Clone)]
pub(crate) struct Covers {
    counts: Vec<usize>,
    /// By kind, heaviest first.
    slots: Vec<Vec<Slot>>,
    weights: Weights,
    whole: f64,
    known: Vec<Cover>,
    /// Devices of each kind by site, where some layer must be held by several because no way between sites carries the
    /// rate; none where ways are left aside.
    sites: Option<Vec<Vec<usize>>>,
}

impl Covers {
    /// For so many devices of each kind, which may hold layers so.
    pub fn new(counts: &[usize], spans: &[Vec<Span>], layers: usize, weights: Weights) -> Self {
        let of_kind = |spans: &Vec<Span>| {
            let mut all: Vec<Slot> = spans.iter().map(|&s| Slot { weight: weights.of(s), rate: s.rate }).collect();
            all.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(b.rate.total_cmp(&a.rate)));
            let mut fastest = 0.0;
            all.retain(|slot| {
                let faster = slot.rate > fastest;
                fastest = slot.rate.max(fastest);
                faster
            });
            all
        };
        let (slots, whole) = (spans.iter().map(of_kind).collect(), weights.whole(layers));
        Self { counts: counts.to_vec(), slots, weights, whole, known: Vec::new(), sites: None }
    }

    /// The same, for sites between which no way carries the rates that will be asked for.
    pub fn crossing(&self, sites: Vec<Vec<usize>>) -> Self {
        Self { sites: Some(sites), ..self.clone() }
    }

    /// The best bound between `rate`, which a plan has, and `above`, which none exceeds; none where no worths beat
    /// `above`, or the knapsacks are too hard.
    pub fn bound(&mut self, rate: f64, above: f64, budget: &Budget<'_>) -> Result<Option<Worths>, SolverFault> {
        // The checker asks a billionth above the bound stated.
        let just_above = |rate: f64| rate * (1.0 + 1e-9);
        let weights = self.weights;
        if rate > 0.0
            && let Some(worth) = self.impossible(just_above(rate), budget)?
        {
            return Ok(Some(Worths { bound: rate, worth, weights }));
        }
        let (mut low, mut high, mut best) = (rate, above, None);
        for _ in 0..HALVINGS {
            if high - low <= GAP_NONE * high || budget.exhausted().is_some() {
                break;
            }
            let middle = f64::midpoint(low, high);
            match self.impossible(just_above(middle), budget)? {
                Some(worth) => {
                    best = Some(Worths { bound: middle, worth, weights });
                    high = middle;
                }
                None => low = middle,
            }
        }
        Ok(best)
    }

    /// Worths that prove `rate` impossible; none where there are none, or they were not found.
    fn impossible(&mut self, rate: f64, budget: &Budget<'_>) -> Result<Option<Vec<f64>>, SolverFault> {
        for kind in 0..self.slots.len() {
            for position in 0..self.useful(kind, rate) {
                let needed = (rate / self.slots[kind][position].rate.min(rate)).ceil() as usize;
                if needed <= self.counts[kind] {
                    self.learn(Cover::from([((kind, position), needed)]));
                }
            }
        }
        for _ in 0..ROWS_MAX {
            if budget.exhausted().is_some() {
                return Ok(None);
            }
            let Some((worth, more)) = self.cheapest_worths(rate, budget)? else { return Ok(None) };
            let mut dearest = true;
            let Some(cover) = self.cheapest_cover(&worth, rate, 1, budget) else { return Ok(None) };
            // Worths that pay nothing for some cover prove nothing yet.
            let scale = if cover.0 > 0.0 { (1.0 + ROUNDING) / cover.0.min(1.0) } else { f64::INFINITY };
            let mut extra = 0.0;
            if cover.0 < 1.0 - MARGIN {
                dearest = !self.learn(cover.1);
            }
            if self.sites.is_some() {
                let Some(several) = self.cheapest_cover(&worth, rate, 2, budget) else { return Ok(None) };
                extra = (several.0 * scale - 1.0).clamp(0.0, self.whole);
                if several.0 < 1.0 + more - MARGIN {
                    dearest = !self.learn(several.1) && dearest;
                }
            }
            let worth: Vec<f64> = worth.iter().map(|u| u * scale).collect();
            let sum = |counts: &[usize]| -> f64 { worth.iter().zip(counts).map(|(u, &n)| u * n as f64).sum() };
            let below = |sum: f64, least: f64| sum < least * (1.0 - MARGIN);
            let alone = self.sites.iter().flatten().all(|site| below(sum(site), self.whole));
            if alone && below(sum(&self.counts), self.whole + extra) {
                return Ok(Some(worth));
            }
            if dearest {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Worths by kind at which every cover of `rate` pays at least 1, of about the least sum; none where they were not found.
    pub fn worths(&mut self, rate: f64, budget: &Budget<'_>) -> Result<Option<Vec<f64>>, SolverFault> {
        // That there are worths against it or not is beside the point: the covers are learnt.
        self.impossible(rate, budget)?;
        let Some((worth, _)) = self.cheapest_worths(rate, budget)? else { return Ok(None) };
        let cheapest = self.cheapest_cover(&worth, rate, 1, budget).filter(|(price, _)| *price > 0.0);
        Ok(cheapest.map(|(price, _)| worth.iter().map(|u| u / price.min(1.0)).collect()))
    }

    /// How many of a kind's slots are of use at a rate: up to the first that carries all of it.
    fn useful(&self, kind: usize, rate: f64) -> usize {
        let slots = &self.slots[kind];
        slots.iter().position(|slot| slot.rate >= rate).map_or(slots.len(), |i| i + 1)
    }

    /// Rates of rails side by side that the cheapest covers of `rate` would have: each cover's devices, the last as much
    /// slower as the others allow.
    pub fn patterns(&mut self, rate: f64, budget: &Budget<'_>) -> Result<Vec<Vec<f64>>, SolverFault> {
        // That there are worths against it or not is beside the point: the covers are learnt.
        self.impossible(rate, budget)?;
        let mut patterns: Vec<Vec<f64>> = Vec::new();
        for cover in &self.known {
            let mut rails: Vec<f64> = cover
                .iter()
                .flat_map(|(&(kind, at), &n)| std::iter::repeat_n(self.slots[kind][at].rate.min(rate), n))
                .collect();
            rails.sort_by(|a, b| b.total_cmp(a));
            let over = rails.iter().sum::<f64>() - rate;
            let Some(last) = rails.last_mut().filter(|last| over >= -ROUNDING * rate && **last > over) else {
                continue;
            };
            *last -= over.max(0.0);
            if rails.len() <= RAILS_MAX && !patterns.contains(&rails) {
                patterns.push(rails);
            }
        }
        Ok(patterns)
    }

    /// Adds a cover; false where it is known.
    fn learn(&mut self, cover: Cover) -> bool {
        let new = !self.known.contains(&cover);
        if new {
            self.known.push(cover);
        }
        new
    }

    /// The worths of least sum for which every known cover of `rate` pays at least 1; with sites, of least sum less what
    /// every known cover of several devices pays beyond 1, which is the second number.
    fn cheapest_worths(&self, rate: f64, budget: &Budget<'_>) -> Result<Option<(Vec<f64>, f64)>, SolverFault> {
        let mut program = Program::default();
        for &count in &self.counts {
            program.column(count as f64, 0.0, f64::INFINITY, false);
        }
        let more = self.sites.as_ref().map(|_| program.column(-1.0, 0.0, self.whole, false));
        for cover in &self.known {
            let carried: f64 =
                cover.iter().map(|(&(kind, at), &n)| self.slots[kind][at].rate.min(rate) * n as f64).sum();
            if carried < rate * (1.0 - ROUNDING) {
                // Known from a lower rate.
                continue;
            }
            let mut terms: BTreeMap<usize, f64> = BTreeMap::new();
            for (&(kind, at), &n) in cover {
                *terms.entry(kind).or_insert(0.0) += n as f64 / self.slots[kind][at].weight;
            }
            let several = cover.values().sum::<usize>() > 1;
            if let Some(more) = more.filter(|_| several) {
                terms.insert(more, -1.0);
            }
            program.row(terms.into_iter().collect(), Relation::AtLeast, 1.0);
        }
        for site in self.sites.iter().flatten() {
            let terms = site.iter().enumerate().filter(|(_, n)| **n > 0).map(|(kind, &n)| (kind, n as f64)).collect();
            program.row(terms, Relation::AtMost, self.whole * (1.0 - 2.0 * MARGIN));
        }
        let answer = solve(&program, None, 0.0, &Budget { progress: None, ..*budget })?;
        let Some(at) = answer.assignment.filter(|_| answer.verdict == Verdict::Optimal) else { return Ok(None) };
        let worth = at[..self.counts.len()].iter().map(|u| u.max(0.0)).collect();
        Ok(Some((worth, more.map_or(0.0, |more| at[more]))))
    }

    /// The cheapest cover of a rate by at least so many devices (1 or 2), and its price; none where the search takes too
    /// long. Where there is no cover at all, none is dearer than any.
    fn cheapest_cover(
        &self,
        worth: &[f64],
        rate: f64,
        devices_min: usize,
        budget: &Budget<'_>,
    ) -> Option<(f64, Cover)> {
        let mut items: Vec<Item> = Vec::new();
        for (kind, &worth) in worth.iter().enumerate() {
            for at in 0..self.useful(kind, rate) {
                let slot = self.slots[kind][at];
                let (price, rate) = (worth / slot.weight, slot.rate.min(rate));
                items.push(Item { key: (kind, at), price, rate, copies: self.counts[kind] });
            }
        }
        items.sort_by(|a, b| (a.price / a.rate).total_cmp(&(b.price / b.rate)).then(a.key.cmp(&b.key)));
        let count = items.len();
        let least = (0..count).min_by(|&a, &b| items[a].price.total_cmp(&items[b].price));
        let mut search = Cheapest {
            items,
            chosen: vec![0; count],
            best: None,
            looked: 0,
            rounding: 1e-12 * rate,
            second: least.filter(|_| devices_min > 1),
        };
        search.cover(0, rate, 0.0);
        budget.did(search.looked * LOOK_WORK);
        if search.looked > COVERS_MAX {
            return None;
        }
        let Some((price, chosen)) = search.best else { return Some((f64::INFINITY, Cover::new())) };
        let mut cover = Cover::new();
        for (item, n) in search.items.iter().zip(chosen).filter(|(_, n)| *n > 0) {
            *cover.entry(item.key).or_insert(0) += n;
        }
        Some((price, cover))
    }
}

#[derive(Debug, Clone, Copy)]
struct Item {
    key: (usize, usize),
    price: f64,
    rate: f64,
    copies: usize,
}

/// Depth-first search for the cheapest cover of a need.
struct Cheapest {
    /// Cheapest per rate first.
    items: Vec<Item>,
    chosen: Vec<usize>,
    best: Option<(f64, Vec<usize>)>,
    looked: u64,
    /// A need that may be nothing.
    rounding: f64,
    /// Where two devices are asked for: the cheapest item, which stands by one that carries everything.
    second: Option<usize>,
}

impl Cheapest {
    fn cover(&mut self, i: usize, need: f64, spent: f64) {
        // Rates that differ from the need by rounding alone may cover it.
        if need <= self.rounding {
            let second = self.second.filter(|_| self.chosen.iter().sum::<usize>() < 2);
            let spent = spent + second.map_or(0.0, |item| self.items[item].price);
            if let Some(item) = second {
                self.chosen[item] += 1;
            }
            if self.best.as_ref().is_none_or(|(price, _)| spent < *price) {
                self.best = Some((spent, self.chosen.clone()));
            }
            if let Some(item) = second {
                self.chosen[item] -= 1;
            }
            return;
        }
        self.looked += 1;
        let Some(&item) = self.items.get(i).filter(|_| self.looked <= COVERS_MAX) else { return };
        // Even in fractions the rest costs so much.
        let least = spent + need / item.rate * item.price;
        if self.best.as_ref().is_some_and(|(best, _)| least >= *best) {
            return;
        }
        let most = ((need / item.rate).ceil() as usize).min(item.copies);
        for n in (0..=most).rev() {
            self.chosen[i] = n;
            self.cover(i + 1, need - item.rate * n as f64, spent + item.price * n as f64);
        }
        self.chosen[i] = 0;
    }
}
