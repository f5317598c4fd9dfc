//! Beginnings of walks, where walks are charged a mean over paths: what the cheapest walk leaves open is mostly one
//! that would take longer by another path.
//!
//! A beginning is told by when three chunks leave its last stage, the prices that it has paid added to each: the first,
//! the followed one, and the last. Of two that end on one class and layer, one that is nowhere earlier is dropped: what
//! completes it completes the other no later. One is also dropped where its mean over paths, plus the cheapest
//! completion, is no less than the target. Devices used are not told apart, so that there are few beginnings, but for
//! those that walks may use *once*: of two beginnings, one that has used any of them that the other has not rules
//! nothing out. Elsewhere prices alone keep walks from using a device twice.

use super::chains::ClassLink;
use super::labels::Ground;
use crate::budget::Budget;

/// Most devices that may be used once.
pub(crate) const ONCE_MAX: usize = 64;
/// Comparisons that go with a beginning, at most, all together.
const COMPARED: u64 = 200;

/// What a search found out, and how many beginnings it kept.
pub(crate) struct Look {
    pub sought: Sought,
    pub kept: u64,
}

/// Whether there is a walk that takes less than the target.
pub(crate) enum Sought {
    /// There is none.
    Nothing,
    /// The least value of a walk, which is less than the target, and the walk.
    Walk(f64, Vec<ClassLink>),
    /// The limit came first.
    Stopped,
}

/// When the first, the followed and the last chunk leave, prices added, and which beginning it is.
#[derive(Clone, Copy)]
struct Entry {
    done: [f64; 3],
    /// Those used of what may be used once, as bits.
    used: u64,
    link: u32,
}

impl Entry {
    fn beats(&self, other: &Self) -> bool {
        let earlier = |chunk: usize| self.done[chunk] <= other.done[chunk];
        self.used & !other.used == 0 && earlier(0) && earlier(1) && earlier(2)
    }
}

/// The last stage of a beginning, and what it extends.
struct Step {
    link: ClassLink,
    before: Option<u32>,
}

struct Search<'a> {
    ground: Ground<'a>,
    /// The bit of each class that may be used once; none for the others.
    bits: Vec<u64>,
    /// Beginnings by the layer they end at and the last class, none of which is beaten.
    fronts: Vec<Vec<Entry>>,
    steps: Vec<Step>,
    compared: u64,
    /// What walks must cost less than, prices included.
    cutoff: f64,
    best: Option<(f64, u32)>,
}

/// Looks for a walk of least value below the target, keeping at most `kept_max` beginnings.
pub(crate) fn search(ground: Ground<'_>, once: &[usize], target: f64, kept_max: u64, budget: &Budget<'_>) -> Look {
    let (chains, prices) = (ground.chains, ground.prices);
    let (n, layers, sum) = (chains.classes.len(), chains.costs.layers, chains.price_sum(prices));
    let fronts = vec![Vec::new(); (layers + 1) * n];
    let mut bits = vec![0; n];
    once.iter().enumerate().for_each(|(i, &class)| bits[class] = 1 << i);
    let mut search = Search { ground, bits, fronts, steps: Vec::new(), compared: 0, cutoff: target + sum, best: None };
    let mut stopped = false;
    'all: for layer in 0..layers {
        stopped = budget.exhausted().is_some();
        for class in 0..n {
            stopped |= search.steps.len() as u64 > kept_max || search.compared > kept_max.saturating_mul(COMPARED);
            if stopped {
                break 'all;
            }
            search.extend(layer, class);
        }
        search.fronts[layer * n..][..n].iter_mut().for_each(|front| *front = Vec::new());
    }
    let sought = match (stopped, search.best) {
        (true, _) => Sought::Stopped,
        (false, None) => Sought::Nothing,
        (false, Some((cost, end))) => Sought::Walk(cost - sum, search.walk(end)),
    };
    Look { sought, kept: search.steps.len() as u64 }
}

impl Search<'_> {
    /// Every stage of a class that begins at a layer.
    fn extend(&mut self, layer: usize, class: usize) {
        let Ground { chains, prices, completions, band } = self.ground;
        let Some(shares) = &prices.shares else { return };
        let (n, layers, kind) = (chains.classes.len(), chains.costs.layers, chains.kind_of(class));
        let rest = completions.from(0, 0, layer, class);
        let arrivals = self.arrivals(layer, class, rest);
        if arrivals.is_empty() {
            return;
        }
        for end in layer + 1..=chains.kind(class).reach[layer] {
            let pay = chains.pay(prices, (class, layer, end));
            let rest = completions.after(0, 0, end, class);
            for arrival in &arrivals {
                let mut done = band.paths[kind].pass(arrival.done, layer, end);
                done.iter_mut().for_each(|time| *time += pay);
                let cost = shares.mean(end, done) + rest;
                if cost >= self.cutoff || !cost.is_finite() {
                    continue;
                }
                let before = Some(arrival.link).filter(|_| layer > 0);
                let step = Step { link: (class, layer, end), before };
                let used = arrival.used | self.bits[class];
                let entry = Entry { done, used, link: u32::try_from(self.steps.len()).unwrap_or(u32::MAX) };
                if end == layers {
                    (self.cutoff, self.best) = (cost, Some((cost, entry.link)));
                    self.steps.push(step);
                } else if self.joins(end * n + class, entry) {
                    self.steps.push(step);
                }
            }
        }
    }

    /// The beginnings that reach a class at a layer in time, none of which is beaten by another.
    fn arrivals(&mut self, layer: usize, class: usize, rest: f64) -> Vec<Entry> {
        let Ground { chains, prices, .. } = self.ground;
        let Some(shares) = &prices.shares else { return Vec::new() };
        let n = chains.classes.len();
        if layer == 0 {
            let entry = chains.costs.entry[chains.classes[class][0]];
            return if entry + rest < self.cutoff {
                vec![Entry { done: [entry; 3], used: 0, link: 0 }]
            } else {
                Vec::new()
            };
        }
        let mut found: Vec<(f64, Entry)> = Vec::new();
        for from in 0..n {
            let front = &self.fronts[layer * n + from];
            if front.is_empty() {
                continue;
            }
            let first = chains.ways[0][from * n + class];
            let last = chains.ways.get(2).map_or(first, |ways| ways[from * n + class]);
            if !first.is_finite() {
                continue;
            }
            for entry in front.iter().filter(|entry| entry.used & self.bits[class] == 0) {
                let done = [entry.done[0] + first, entry.done[1] + first, entry.done[2] + last];
                let cost = shares.mean(layer, done) + rest;
                if cost < self.cutoff {
                    found.push((done[0] + done[1] + done[2], Entry { done, ..*entry }));
                }
            }
        }
        // One that beats another has the lesser sum.
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.link.cmp(&b.1.link)));
        let mut kept: Vec<Entry> = Vec::new();
        for (_, entry) in found {
            self.compared += kept.len() as u64;
            if !kept.iter().any(|other| other.beats(&entry)) {
                kept.push(entry);
            }
        }
        kept
    }

    /// Takes a beginning up, unless another is nowhere later; those that it beats go.
    fn joins(&mut self, place: usize, entry: Entry) -> bool {
        let front = &mut self.fronts[place];
        self.compared += front.len() as u64;
        if front.iter().any(|other| other.beats(&entry)) {
            return false;
        }
        front.retain(|other| !entry.beats(other));
        front.push(entry);
        true
    }

    fn walk(&self, end: u32) -> Vec<ClassLink> {
        let mut walk = Vec::new();
        let mut at = Some(end);
        while let Some(step) = at.map(|at| &self.steps[at as usize]) {
            walk.push(step.link);
            at = step.before;
        }
        walk.reverse();
        walk
    }
}

#[cfg(test)]
mod tests {
    use super::super::chains::{Band, Chains, StageCount};
    use super::super::costs::Costs;
    use super::super::labels::glance;
    use super::super::prices;
    use super::super::scale::mesh::{Ways, problem};
    use super::super::shares::Shares;
    use super::*;
    use crate::tables::Tables;
    use isotherm_core::problem::Objective;

    #[test]
    fn the_least_walk_is_found_and_using_devices_once_only_raises_it() {
        let mut raised = 0;
        for seed in 0..3 {
            let problem = problem(seed, 24, Ways::Any, Objective::Ttft);
            let tables = Tables::new(&problem, true);
            let costs = Costs::prefill(&tables);
            let chains = Chains::new(&tables, &costs, StageCount::Any);
            let (band, mut prices) = (Band::all(&costs), chains.no_prices());
            let budget = Budget::default();
            prices.shares = Some(Shares::even(&costs));
            let completions = chains.completions(&band, &prices);
            let ground = Ground { chains: &chains, band: &band, prices: &prices, completions: &completions };
            let (_, known) = glance(ground, f64::INFINITY, 64, &budget).expect("a chain");
            let prices = prices::search(&chains, &band, prices.clone(), (known, 1.0), 800, &budget).prices;
            let completions = chains.completions(&band, &prices);
            let ground = Ground { chains: &chains, band: &band, prices: &prices, completions: &completions };
            let bound = chains.bound(&prices, &completions);
            let look = |once: &[usize], target: f64| search(ground, once, target, 1_000_000, &budget).sought;
            // The nearer the target, the fewer beginnings.
            let walk = |once: &[usize]| {
                let mut looks = (1..100).map(|i| look(once, bound * (1.0 + 0.002 * f64::from(i))));
                match looks.find(|sought| !matches!(sought, Sought::Nothing)) {
                    Some(Sought::Walk(value, walk)) => (value, walk),
                    _ => panic!("seed {seed}: no walk"),
                }
            };
            let times = |walk: &[ClassLink], class: usize| walk.iter().filter(|link| link.0 == class).count();
            let (free, links) = walk(&[]);
            let again: Vec<usize> = (0..chains.classes.len()).filter(|&class| times(&links, class) > 1).collect();
            let (once, links) = walk(&again);
            assert!(again.iter().all(|&class| times(&links, class) < 2), "seed {seed}: {links:?}");
            assert!(bound <= free * (1.0 + 1e-12) && free <= once * (1.0 + 1e-12), "seed {seed}");
            raised += usize::from(once > free * (1.0 + 1e-6));
            assert!(matches!(look(&again, once * (1.0 - 1e-9)), Sought::Nothing), "seed {seed}: below the least");
            let few = search(ground, &[], known, 3, &budget).sought;
            assert!(matches!(few, Sought::Stopped), "seed {seed}");
        }
        assert!(raised > 0, "{raised}");
    }
}
