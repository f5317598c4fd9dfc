//! The relaxation of a chain: a *walk* may use a device more than once (not twice in a row) and pays a price each
//! time. Its cheapest cost, less all prices, bounds every chain from below; the same tables say how far any partial
//! chain is from the end at least.
//!
//! Why it is a bound: with prices `u >= 0`, a chain pays the price of each device at most once and of each byte of a
//! pool at most `size` times, so `chain <= priced chain` fails by at most the sum of all prices. A pinned device is
//! used exactly once, so its price may have any sign.

use super::costs::Costs;
use crate::tables::{Intervals, Tables};

/// How many stages a chain may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StageCount {
    /// Any number.
    Any,
    /// At most so many.
    AtMost(usize),
    /// Exactly so many.
    Exactly(usize),
}

impl StageCount {
    /// The rule of a problem: the exact count where both are given and agree.
    pub fn of(tables: &Tables<'_>) -> Self {
        let limits = &tables.problem.limits;
        match (limits.stages_exact, limits.stages_max) {
            (Some(exact), _) => Self::Exactly(exact as usize),
            (None, Some(most)) => Self::AtMost((most as usize).min(tables.candidates.len()).min(tables.layers)),
            (None, None) => Self::Any,
        }
    }

    /// Levels of the tables: how many stages are still allowed.
    fn levels(self) -> usize {
        match self {
            Self::Any => 0,
            Self::AtMost(n) | Self::Exactly(n) => n,
        }
    }

    /// The level after one stage.
    fn after(self, level: usize) -> Option<usize> {
        if self == Self::Any { Some(0) } else { level.checked_sub(1) }
    }

    /// Whether a chain may end at a level.
    fn may_end(self, level: usize) -> bool {
        !matches!(self, Self::Exactly(_)) || level == 0
    }
}

/// Prices in seconds: of using a candidate, and of a byte of a pool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prices {
    /// By candidate.
    pub device: Vec<f64>,
    /// By pool.
    pub byte: Vec<f64>,
}

impl Prices {
    /// No prices.
    pub fn none(tables: &Tables<'_>) -> Self {
        Self { device: vec![0.0; tables.candidates.len()], byte: vec![0.0; tables.pools.len()] }
    }

    /// What a chain may have paid at most.
    pub fn total(&self, tables: &Tables<'_>) -> f64 {
        let bytes: f64 = self.byte.iter().zip(&tables.pools).map(|(price, pool)| price * pool.size as f64).sum();
        self.device.iter().sum::<f64>() + bytes
    }
}

/// The chain problem.
pub(crate) struct Chains<'a> {
    /// Devices and memory.
    pub tables: &'a Tables<'a>,
    /// Times.
    pub costs: &'a Costs,
    /// Rule on the number of stages.
    pub count: StageCount,
    /// By kind: time that an interval adds to any chain: all chunks where it is first, else the last chunk.
    pub lead: Vec<Intervals<f64>>,
}

/// Cheapest completions under given prices.
pub(crate) struct Completions {
    candidates: usize,
    layers: usize,
    /// `[level][layer][candidate]`: cost from the end of a stage there to the end of the chain.
    after: Vec<f64>,
    /// The same, from the start of a stage there.
    from: Vec<f64>,
    /// Level of a whole chain.
    top: usize,
}

impl Completions {
    fn position(&self, level: usize, layer: usize, candidate: usize) -> usize {
        (level * (self.layers + 1) + layer) * self.candidates + candidate
    }

    /// Cost from the end of a stage on `candidate` at `layer`, with `level` more stages allowed.
    pub fn after(&self, level: usize, layer: usize, candidate: usize) -> f64 {
        self.after[self.position(level, layer, candidate)]
    }
}

/// A stage of a chain: candidate, first layer, one past the last.
pub(crate) type Link = (usize, usize, usize);

impl<'a> Chains<'a> {
    /// The chain problem of some times.
    pub fn new(tables: &'a Tables<'a>, costs: &'a Costs, count: StageCount) -> Self {
        let last = costs.chunks - 1;
        let lead = (0..tables.kinds.len())
            .map(|kind| {
                Intervals::of(costs.layers, |s, e| costs.chunks_from(kind, if s == 0 { 0 } else { last }, s, e))
            })
            .collect();
        Self { tables, costs, count, lead }
    }

    /// Priced cost of a stage.
    fn priced(&self, prices: &Prices, (device, start, end): Link) -> f64 {
        let candidate = self.tables.candidates[device];
        let bytes = candidate
            .pool
            .map_or(0.0, |pool| prices.byte[pool] * self.tables.kinds[candidate.kind].bytes.at(start, end) as f64);
        self.lead[candidate.kind].at(start, end) + prices.device[device] + bytes
    }

    /// Cost of the way from one candidate to the next, for the last chunk.
    fn way(&self, from: usize, to: usize) -> f64 {
        self.costs.hop[self.costs.chunks - 1][from][to]
    }

    /// Cheapest completions under these prices.
    pub fn completions(&self, prices: &Prices) -> Completions {
        let (n, layers, top) = (self.tables.candidates.len(), self.costs.layers, self.count.levels());
        let size = (top + 1) * (layers + 1) * n;
        let mut table = Completions {
            candidates: n,
            layers,
            after: vec![f64::INFINITY; size],
            from: vec![f64::INFINITY; size],
            top,
        };
        for level in (0..=top).filter(|&level| self.count.may_end(level)) {
            for device in 0..n {
                let at = table.position(level, layers, device);
                table.after[at] = self.costs.exit[device];
            }
        }
        for level in 0..=top {
            for start in (0..layers).rev() {
                if let Some(below) = self.count.after(level) {
                    for device in 0..n {
                        let reach = self.tables.kind(device).reach[start];
                        let best = (start + 1..=reach)
                            .map(|end| self.priced(prices, (device, start, end)) + table.after(below, end, device))
                            .fold(f64::INFINITY, f64::min);
                        let at = table.position(level, start, device);
                        table.from[at] = best;
                    }
                }
                for device in (0..n).filter(|_| start > 0) {
                    let row = table.position(level, start, 0);
                    let best = (0..n)
                        .map(|next| self.way(device, next) + table.from[row + next])
                        .fold(f64::INFINITY, f64::min);
                    table.after[row + device] = best;
                }
            }
        }
        table
    }

    /// Lower bound on every chain: the cheapest walk less all prices. Infinite where there is no walk at all.
    pub fn bound(&self, prices: &Prices, completions: &Completions) -> f64 {
        let row = completions.position(completions.top, 0, 0);
        let cheapest = (0..self.tables.candidates.len())
            .map(|device| self.costs.entry[device] + completions.from[row + device])
            .fold(f64::INFINITY, f64::min);
        cheapest - prices.total(self.tables)
    }

    /// A cheapest walk; none where there is none.
    pub fn walk(&self, prices: &Prices, completions: &Completions) -> Option<Vec<Link>> {
        let n = self.tables.candidates.len();
        let (mut level, mut start, mut before) = (completions.top, 0, None::<usize>);
        let mut walk = Vec::new();
        while start < self.costs.layers {
            let row = completions.position(level, start, 0);
            let arrive = |device: usize| match before {
                Some(before) => self.way(before, device),
                None => self.costs.entry[device],
            };
            let (device, cost) = least((0..n).map(|device| (device, arrive(device) + completions.from[row + device])))?;
            if !cost.is_finite() {
                return None;
            }
            level = self.count.after(level)?;
            let reach = self.tables.kind(device).reach[start];
            let ends = (start + 1..=reach)
                .map(|end| (end, self.priced(prices, (device, start, end)) + completions.after(level, end, device)));
            let (end, _) = least(ends)?;
            walk.push((device, start, end));
            (start, before) = (end, Some(device));
        }
        Some(walk)
    }

    /// The intervals of candidates that may be part of a chain worth at most `limit`. With a rule on stages, all that
    /// fit.
    pub fn survivors(&self, prices: &Prices, completions: &Completions, limit: f64) -> Vec<Link> {
        let mut kept = Vec::new();
        self.over_intervals(prices, completions, |link, bound| {
            if self.count != StageCount::Any || bound <= limit {
                kept.push(link);
            }
        });
        kept
    }

    /// Calls `visit` with every interval that fits and, without a rule on stages, a lower bound on the chains that use
    /// it.
    fn over_intervals(&self, prices: &Prices, completions: &Completions, mut visit: impl FnMut(Link, f64)) {
        let (n, layers) = (self.tables.candidates.len(), self.costs.layers);
        let total = prices.total(self.tables);
        // Cheapest cost of reaching the start of a stage on a candidate, and of reaching the end of one.
        let mut arrive = vec![f64::INFINITY; (layers + 1) * n];
        let mut leave = vec![f64::INFINITY; (layers + 1) * n];
        arrive[..n].copy_from_slice(&self.costs.entry);
        for start in 0..layers {
            for to in (0..n).filter(|_| start > 0) {
                arrive[start * n + to] =
                    (0..n).map(|from| leave[start * n + from] + self.way(from, to)).fold(f64::INFINITY, f64::min);
            }
            for device in 0..n {
                for end in start + 1..=self.tables.kind(device).reach[start] {
                    let here = arrive[start * n + device] + self.priced(prices, (device, start, end));
                    leave[end * n + device] = leave[end * n + device].min(here);
                    visit((device, start, end), here + completions.after(0, end, device) - total);
                }
            }
        }
    }

    /// For every candidate, a lower bound on the chains that use it. Without a rule on stages it is the least over its
    /// intervals; with one, the rule is left aside.
    pub fn at_least_with(&self, prices: &Prices) -> Vec<f64> {
        let free = Self { tables: self.tables, costs: self.costs, count: StageCount::Any, lead: self.lead.clone() };
        let completions = free.completions(prices);
        let mut least = vec![f64::INFINITY; self.tables.candidates.len()];
        free.over_intervals(prices, &completions, |(device, ..), bound| least[device] = least[device].min(bound));
        least
    }

    /// Whether a walk is a chain: no device twice, pools not overdrawn, every pinned device used.
    pub fn holds(&self, walk: &[Link]) -> bool {
        let mut used = vec![false; self.tables.candidates.len()];
        let mut drawn = vec![0_u64; self.tables.pools.len()];
        for &(device, start, end) in walk {
            if std::mem::replace(&mut used[device], true) {
                return false;
            }
            let candidate = self.tables.candidates[device];
            if let Some(pool) = candidate.pool {
                drawn[pool] = drawn[pool].saturating_add(self.tables.kinds[candidate.kind].bytes.at(start, end));
            }
        }
        let pinned = self.tables.candidates.iter().zip(&used).all(|(c, &used)| used || !c.pinned);
        pinned && drawn.iter().zip(&self.tables.pools).all(|(&drawn, pool)| drawn <= pool.size)
    }

    /// Exact value of a chain.
    pub fn value(&self, chain: &[Link]) -> f64 {
        let kinds: Vec<usize> = self.tables.candidates.iter().map(|c| c.kind).collect();
        self.costs.value(chain, &kinds)
    }
}

/// The first item of least cost.
fn least(items: impl Iterator<Item = (usize, f64)>) -> Option<(usize, f64)> {
    items.reduce(|best, item| if item.1 < best.1 { item } else { best })
}
