//! The configuration bound: worths of devices that prove a rate impossible, whatever the links.
//!
//! At a rate `F`, every layer is held by devices whose rates add to at least `F`: a *cover*. Give each device a worth
//! `u >= 0`, paid in equal parts on the layers it holds. Where every cover pays at least 1, the layers collect at least
//! `L`; so if all worths add to less than `L`, no plan reaches `F`. The best worths for one `F` solve
//!
//! ```text
//! min  sum over devices of u    s.t.  sum over the devices of a cover of u / k >= 1   for every cover
//! ```
//!
//! a linear program with a column per kind, whose rows are found one at a time: the cheapest cover at the worths so far
//! is a knapsack. Dividing all worths by its price makes them valid at every step, so the search for `F` may stop as
//! soon as the sum says so. A larger `F` has fewer covers, so its least sum is smaller: `F` is found by halving.

use super::clip::{counts, greatest_rates};
use super::network::Network;
use crate::budget::{Budget, GAP_NONE};
use crate::formulation::program::{Program, Relation};
use crate::formulation::solve::{SolverFault, Verdict, solve};
use crate::tables::Tables;
use std::collections::BTreeMap;

/// Most partial covers looked at for one cheapest cover: a tenth of what the checker allows itself.
const COVERS_MAX: u64 = 200_000;
/// Most rows added at one rate.
const ROWS_MAX: usize = 400;
/// Halvings between what is had and what is known to be impossible.
const HALVINGS: usize = 24;
/// What all worths stay below the number of layers by: enough for the checker to see it in exact arithmetic.
const MARGIN: f64 = 1e-9;
/// What makes up for rounding in the price of a cover.
const ROUNDING: f64 = 1e-11;

/// A way to use the devices of a kind on a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Slot {
    kind: usize,
    /// Layers held.
    held: usize,
    /// What it adds to the rate of a layer, at most the rate asked for.
    rate: f64,
    copies: usize,
}

/// A bound, and the worth of a device of each kind that proves it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Worths {
    /// No plan is faster.
    pub bound: f64,
    /// By kind.
    pub worth: Vec<f64>,
}

/// The kinds' rates, and the covers known so far: slots of (kind, layers held) and how many of each.
struct Covers<'a> {
    counts: &'a [usize],
    greatest: &'a [Vec<f64>],
    layers: f64,
    known: Vec<BTreeMap<(usize, usize), usize>>,
}

/// The best such bound between `rate`, which a plan has, and `above`, which none reaches; none where no worths beat
/// `above`, or the knapsacks are too hard.
pub(crate) fn bound(
    tables: &Tables<'_>,
    network: &Network,
    rate: f64,
    above: f64,
    budget: &Budget<'_>,
) -> Result<Option<Worths>, SolverFault> {
    let (counts, greatest) = (counts(tables), greatest_rates(tables, network));
    let mut covers = Covers { counts: &counts, greatest: &greatest, layers: network.layers as f64, known: Vec::new() };
    // The checker asks a billionth above the bound stated.
    let just_above = |rate: f64| rate * (1.0 + 1e-9);
    if rate > 0.0
        && let Some(worth) = covers.impossible(just_above(rate))?
    {
        return Ok(Some(Worths { bound: rate, worth }));
    }
    let (mut low, mut high, mut best) = (rate, above, None);
    for _ in 0..HALVINGS {
        if high - low <= GAP_NONE * high || budget.exhausted().is_some() {
            break;
        }
        let middle = f64::midpoint(low, high);
        match covers.impossible(just_above(middle))? {
            Some(worth) => {
                best = Some(Worths { bound: middle, worth });
                high = middle;
            }
            None => low = middle,
        }
    }
    Ok(best)
}

impl Covers<'_> {
    /// Worths that prove `rate` impossible; none where there are none, or they were not found.
    fn impossible(&mut self, rate: f64) -> Result<Option<Vec<f64>>, SolverFault> {
        let slots = self.slots(rate);
        if slots.is_empty() {
            return Ok(Some(vec![0.0; self.counts.len()]));
        }
        for slot in &slots {
            let needed = (rate / slot.rate).ceil() as usize;
            if needed <= slot.copies {
                self.learn(BTreeMap::from([((slot.kind, slot.held), needed)]));
            }
        }
        for _ in 0..ROWS_MAX {
            let worth = self.cheapest_worths(rate)?;
            let Some((price, cover)) = cheapest_cover(&slots, &worth, rate) else { return Ok(None) };
            let sum: f64 = worth.iter().zip(self.counts).map(|(u, &n)| u * n as f64).sum();
            // Worths of nothing pay for no cover.
            let scale = if price > 0.0 { (1.0 + ROUNDING) / price.min(1.0) } else { f64::INFINITY };
            if sum * scale < self.layers * (1.0 - MARGIN) {
                return Ok(Some(worth.iter().map(|u| u * scale).collect()));
            }
            if price >= 1.0 - MARGIN || !self.learn(cover) {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// For each kind and rate the longest interval, as none shorter is cheaper.
    fn slots(&self, rate: f64) -> Vec<Slot> {
        let mut slots: Vec<Slot> = Vec::new();
        for (kind, rates) in self.greatest.iter().enumerate() {
            let mut best = 0.0;
            for (i, &greatest) in rates.iter().enumerate().rev() {
                let clipped = greatest.min(rate);
                if clipped > best {
                    best = clipped;
                    slots.push(Slot { kind, held: i + 1, rate: clipped, copies: self.counts[kind] });
                }
            }
        }
        slots
    }

    /// Adds a cover; false where it is known.
    fn learn(&mut self, cover: BTreeMap<(usize, usize), usize>) -> bool {
        let new = !self.known.contains(&cover);
        if new {
            self.known.push(cover);
        }
        new
    }

    /// The worths of least sum for which every known cover of `rate` pays at least 1.
    fn cheapest_worths(&self, rate: f64) -> Result<Vec<f64>, SolverFault> {
        let mut program = Program::default();
        for &count in self.counts {
            program.column(count as f64, 0.0, f64::INFINITY, false);
        }
        for cover in &self.known {
            let carried: f64 =
                cover.iter().map(|(&(kind, held), &n)| self.greatest[kind][held - 1].min(rate) * n as f64).sum();
            if carried < rate {
                // Known from a lower rate.
                continue;
            }
            let mut terms: BTreeMap<usize, f64> = BTreeMap::new();
            for (&(kind, held), &n) in cover {
                *terms.entry(kind).or_insert(0.0) += n as f64 / held as f64;
            }
            program.row(terms.into_iter().collect(), Relation::AtLeast, 1.0);
        }
        let answer = solve(&program, None, 0.0, &Budget::default())?;
        let found = answer.assignment.filter(|_| answer.verdict == Verdict::Optimal);
        Ok(found.unwrap_or_else(|| vec![0.0; self.counts.len()]).into_iter().map(|u| u.max(0.0)).collect())
    }
}

/// Depth-first search for the cheapest cover of `need`.
struct Cheapest {
    slots: Vec<(Slot, f64)>,
    chosen: Vec<usize>,
    best: Option<(f64, Vec<usize>)>,
    looked: u64,
    /// A need that may be nothing.
    rounding: f64,
}

/// How many of each slot a cover takes.
type Cover = BTreeMap<(usize, usize), usize>;

/// The cheapest cover of a rate and its price, a device paying its worth over the layers it holds; none where there is
/// none, or the search takes too long.
fn cheapest_cover(slots: &[Slot], worth: &[f64], rate: f64) -> Option<(f64, Cover)> {
    let mut priced: Vec<(Slot, f64)> = slots.iter().map(|s| (*s, worth[s.kind] / s.held as f64)).collect();
    priced.sort_by(|a, b| (a.1 * b.0.rate).total_cmp(&(b.1 * a.0.rate)).then(a.0.kind.cmp(&b.0.kind)));
    let count = priced.len();
    let mut search = Cheapest { slots: priced, chosen: vec![0; count], best: None, looked: 0, rounding: 1e-12 * rate };
    search.cover(0, rate, 0.0);
    if search.looked > COVERS_MAX {
        return None;
    }
    let (price, chosen) = search.best?;
    let mut cover = BTreeMap::new();
    for ((slot, _), n) in search.slots.iter().zip(chosen).filter(|(_, n)| *n > 0) {
        *cover.entry((slot.kind, slot.held)).or_insert(0) += n;
    }
    Some((price, cover))
}

impl Cheapest {
    fn cover(&mut self, i: usize, need: f64, spent: f64) {
        // Rates that differ from the need by rounding alone may cover it.
        if need <= self.rounding {
            if self.best.as_ref().is_none_or(|(price, _)| spent < *price) {
                self.best = Some((spent, self.chosen.clone()));
            }
            return;
        }
        self.looked += 1;
        let Some(&(slot, price)) = self.slots.get(i).filter(|_| self.looked <= COVERS_MAX) else { return };
        // Even in fractions the rest costs so much.
        let least = spent + need / slot.rate * price;
        if self.best.as_ref().is_some_and(|(best, _)| least >= *best) {
            return;
        }
        let most = ((need / slot.rate).ceil() as usize).min(slot.copies);
        for n in (0..=most).rev() {
            self.chosen[i] = n;
            self.cover(i + 1, need - slot.rate * n as f64, spent + price * n as f64);
        }
        self.chosen[i] = 0;
    }
}
