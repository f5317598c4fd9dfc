//! The chain problem: who may follow whom, at what times and prices, under which rule on the number of stages.

use super::costs::{Costs, Steps};
use super::shares::{PathSteps, Shares};
use crate::tables::{Kind, Tables};

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

    /// Whether there is a rule.
    pub fn is_rule(self) -> bool {
        self != Self::Any
    }

    /// Levels of the tables: how many stages are still allowed.
    pub fn levels(self) -> usize {
        match self {
            Self::Any => 0,
            Self::AtMost(n) | Self::Exactly(n) => n,
        }
    }

    /// The level after one stage.
    pub fn after(self, level: usize) -> Option<usize> {
        if self == Self::Any { Some(0) } else { level.checked_sub(1) }
    }

    /// Whether a chain may end at a level.
    pub fn may_end(self, level: usize) -> bool {
        !matches!(self, Self::Exactly(_)) || level == 0
    }

    /// Whether a chain may have so many stages.
    pub fn allows(self, stages: usize) -> bool {
        match self {
            Self::Any => true,
            Self::AtMost(n) => stages <= n,
            Self::Exactly(n) => stages == n,
        }
    }
}

/// Prices in seconds: of using a device of a class, and of a byte of a pool. They and the shares are what a bound is
/// made of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prices {
    /// By class.
    pub class: Vec<f64>,
    /// By pool.
    pub byte: Vec<f64>,
    /// Which mean of paths a walk takes; absent where it takes the one path of its band.
    pub shares: Option<Shares>,
}

impl Prices {
    /// The chunks that a walk follows one after another.
    pub fn phases(&self, costs: &Costs) -> usize {
        if self.shares.is_some() { 1 } else { costs.phases() }
    }
}

/// A stage of a chain: candidate, first layer, one past the last.
pub(crate) type Link = (usize, usize, usize);
/// A stage on some device of a class.
pub(crate) type ClassLink = (usize, usize, usize);

/// The chain problem.
#[derive(Debug, Clone)]
pub(crate) struct Chains<'a> {
    /// Devices and memory.
    pub tables: &'a Tables<'a>,
    /// Times.
    pub costs: &'a Costs,
    /// Rule on the number of stages.
    pub count: StageCount,
    /// Candidates that any chain may exchange.
    pub classes: Vec<Vec<usize>>,
    /// Time from a class to the next for the chunk of each phase: `[from][to]` in one row.
    pub ways: Vec<Vec<f64>>,
}

/// Share of the least time of a band's longest stage by which other long stages may be shorter: that of the checker.
const LONG_SHARE: f64 = 0.1;

/// The chains whose longest stage takes, all chunks up to the followed one together, more than `over` and at most
/// `most`. Its *long* stages take more than nine tenths of `over`; every chain of the band has one.
#[derive(Debug, Clone)]
pub(crate) struct Band {
    /// Less than the longest stage.
    pub over: f64,
    /// At least the longest stage.
    pub most: f64,
    /// Times by kind.
    pub steps: Vec<BandSteps>,
    /// Times by kind as means of paths; only of all chains, in several chunks.
    pub paths: Vec<PathSteps>,
}

/// Times of a kind's stages in a band.
#[derive(Debug, Clone)]
pub(crate) struct BandSteps {
    /// What a stage may be in each phase of a walk: the phase that follows, and the times; infinite where it may not.
    pub moves: Vec<Vec<(usize, Steps)>>,
    /// All chunks up to the followed one.
    pub all: Steps,
}

impl Band {
    /// What a stage of a kind may be in a phase of a walk: the phase that follows, and the time.
    pub fn options(
        &self,
        prices: &Prices,
        (kind, phase): (usize, usize),
        (start, end): (usize, usize),
    ) -> impl Iterator<Item = (usize, f64)> {
        let mean = prices.shares.as_ref().map(|shares| (0, self.paths[kind].mean(shares, start, end)));
        let moves = if mean.is_some() { &[] } else { &self.steps[kind].moves[phase][..] };
        mean.into_iter().chain(moves.iter().map(move |(next, times)| (*next, times.at(start, end))))
    }

    /// The band between two times.
    pub fn new(costs: &Costs, over: f64, most: f64) -> Self {
        let steps = |kind: usize| {
            let (followed, chunks) = (costs.followed(), costs.chunks);
            let of = |chunks: std::ops::Range<usize>| costs.some_chunks(kind, chunks).expect("chunks in order");
            let all = of(0..followed + 1);
            let long_from = over - over.max(0.0) * LONG_SHARE;
            let long = |times: Steps| times.masked(&all, |all| all > long_from && all <= most);
            let short = |times: Steps| times.masked(&all, |all| all <= long_from);
            let any = |times: Steps| times.masked(&all, |all| all <= most);
            let moves = match costs.phases() {
                1 => vec![vec![(0, any(of(0..1)))]],
                2 => vec![
                    vec![(0, short(of(0..1))), (1, long(of(0..followed + 1)))],
                    vec![(1, any(of(followed..followed + 1)))],
                ],
                _ => vec![
                    vec![(0, short(of(0..1))), (1, long(of(0..followed + 1))), (2, long(of(0..chunks)))],
                    vec![(1, any(of(followed..followed + 1))), (2, long(of(followed..chunks)))],
                    vec![(2, short(of(chunks - 1..chunks)))],
                ],
            };
            BandSteps { moves, all }
        };
        Self { over, most, steps: (0..costs.stage.len()).map(steps).collect(), paths: Vec::new() }
    }

    /// The band of all chains.
    pub fn all(costs: &Costs) -> Self {
        let mut band = Self::new(costs, -1.0, f64::INFINITY);
        if costs.chunks > 1 {
            let paths = band.steps.iter().enumerate().map(|(kind, steps)| PathSteps::new(costs, kind, &steps.all));
            band.paths = paths.collect();
        }
        band
    }
}

/// Candidates that any chain may exchange: same kind and pool, same pin, same links to and from everybody.
fn twins(tables: &Tables<'_>, costs: &Costs) -> Vec<Vec<usize>> {
    let (candidates, n) = (&tables.candidates, tables.candidates.len());
    let same = |a: usize, b: usize| {
        let (x, y) = (candidates[a], candidates[b]);
        (x.kind, x.pool, x.pinned) == (y.kind, y.pool, y.pinned)
            && costs.entry[a] == costs.entry[b]
            && costs.exit[a] == costs.exit[b]
            && costs.hop.iter().all(|hop| {
                hop[a * n + b] == hop[b * n + a]
                    && (0..n).filter(|&other| other != a && other != b).all(|other| {
                        hop[a * n + other] == hop[b * n + other] && hop[other * n + a] == hop[other * n + b]
                    })
            })
    };
    let mut classes: Vec<Vec<usize>> = Vec::new();
    for device in 0..n {
        match classes.iter_mut().find(|class| same(class[0], device)) {
            Some(class) => class.push(device),
            None => classes.push(vec![device]),
        }
    }
    classes
}

impl<'a> Chains<'a> {
    /// The chain problem of some times.
    pub fn new(tables: &'a Tables<'a>, costs: &'a Costs, count: StageCount) -> Self {
        let classes = twins(tables, costs);
        let ways = (0..costs.phases()).map(|phase| costs.chunk_of(phase)).map(|chunk| {
            let way = |(from, to): (&Vec<usize>, &Vec<usize>)| {
                // Between twins all ways take the same time; a device has none to itself.
                let to = if from[0] == to[0] { to.get(1) } else { to.first() };
                to.map_or(f64::INFINITY, |&to| costs.way(chunk, from[0], to))
            };
            classes.iter().flat_map(|from| classes.iter().map(move |to| (from, to))).map(way).collect()
        });
        let ways = ways.collect();
        Self { tables, costs, count, classes, ways }
    }

    /// Time from one class to another before a layer, in a phase of a walk or as a mean over paths.
    pub fn way(&self, prices: &Prices, phase: usize, layer: usize, from: usize, to: usize) -> f64 {
        let way = from * self.classes.len() + to;
        match (&prices.shares, self.ways.get(2)) {
            (Some(shares), Some(last)) if shares.last[layer] > 0.0 => {
                (1.0 - shares.last[layer]) * self.ways[0][way] + shares.last[layer] * last[way]
            }
            _ => self.ways[phase][way],
        }
    }

    /// The same with another rule on stages.
    pub fn with_rule(&self, count: StageCount) -> Self {
        Self { count, ..self.clone() }
    }

    /// The same without a rule on stages.
    pub fn without_rule(&self) -> Self {
        self.with_rule(StageCount::Any)
    }

    /// Position of a class's kind.
    pub fn kind_of(&self, class: usize) -> usize {
        self.tables.candidates[self.classes[class][0]].kind
    }

    /// A class's kind.
    pub fn kind(&self, class: usize) -> &Kind {
        &self.tables.kinds[self.kind_of(class)]
    }

    /// Whether all devices of a class must hold a stage.
    pub fn pinned(&self, class: usize) -> bool {
        self.tables.candidates[self.classes[class][0]].pinned
    }

    /// The pool of a class.
    pub fn pool(&self, class: usize) -> Option<usize> {
        self.tables.candidates[self.classes[class][0]].pool
    }

    /// No prices.
    pub fn no_prices(&self) -> Prices {
        Prices { class: vec![0.0; self.classes.len()], byte: vec![0.0; self.tables.pools.len()], shares: None }
    }

    /// What a chain may have paid at most.
    pub fn price_sum(&self, prices: &Prices) -> f64 {
        let bytes: f64 = prices.byte.iter().zip(&self.tables.pools).map(|(price, pool)| price * pool.size as f64).sum();
        prices.class.iter().zip(&self.classes).map(|(price, class)| price * class.len() as f64).sum::<f64>() + bytes
    }

    /// Price of a byte that a class draws.
    pub fn byte_price(&self, prices: &Prices, class: usize) -> f64 {
        self.pool(class).map_or(0.0, |pool| prices.byte[pool])
    }

    /// What a stage pays.
    pub fn pay(&self, prices: &Prices, (class, start, end): ClassLink) -> f64 {
        let byte = self.byte_price(prices, class);
        let bytes = if byte > 0.0 { byte * self.kind(class).bytes.at(start, end) as f64 } else { 0.0 };
        prices.class[class] + bytes
    }

    /// The chain that a walk is; none where it uses too many devices, leaves out pinned ones, overdraws a pool or
    /// breaks the rule on stages.
    pub fn chain(&self, walk: &[ClassLink]) -> Option<Vec<Link>> {
        let mut used = vec![0; self.classes.len()];
        let mut drawn = vec![0_u64; self.tables.pools.len()];
        let mut chain = Vec::with_capacity(walk.len());
        for &(class, start, end) in walk {
            chain.push((*self.classes[class].get(used[class])?, start, end));
            used[class] += 1;
            if let Some(pool) = self.pool(class) {
                drawn[pool] = drawn[pool].saturating_add(self.kind(class).bytes.at(start, end));
            }
        }
        let pinned = (0..self.classes.len()).all(|c| !self.pinned(c) || used[c] == self.classes[c].len());
        let pools = drawn.iter().zip(&self.tables.pools).all(|(&drawn, pool)| drawn <= pool.size);
        (pinned && pools && self.count.allows(chain.len())).then_some(chain)
    }

    /// Value of a chain.
    pub fn value(&self, chain: &[Link]) -> f64 {
        let kinds: Vec<usize> = self.tables.candidates.iter().map(|c| c.kind).collect();
        self.costs.value(chain, &kinds)
    }
}
