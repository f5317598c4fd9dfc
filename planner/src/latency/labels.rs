//! Exact search over chains: labels are partial chains, taken in order of a lower bound on what they can become (A*),
//! dropped where another label of the same end is nowhere worse. The same labels, a few of each layer, give a first
//! chain.

use super::chains::{Band, Chains, ClassLink, Link, Prices, StageCount};
use super::walk::Completions;
use crate::budget::{Budget, GAP_NONE, Limit};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

/// Labels between two looks at the clock.
const STRIDE: u64 = 32;
/// Labels of one end that a new one is compared with, beside all those that used the same devices.
const RIVALS: usize = 48;
/// Share of the limit by which a label must beat it: less is rounding.
const ROUNDING: f64 = 1e-12;

/// What the search found.
pub(crate) struct Searched {
    /// The best chain below the limit given, and its value.
    pub best: Option<(Vec<Link>, f64)>,
    /// Every chain is worth at least this; infinite where there is none (below the limit given).
    pub bound: f64,
    /// What ended the search early.
    pub stopped: Option<Limit>,
    /// Labels taken up.
    pub labels: u64,
    /// Labels kept.
    pub kept: u64,
}

#[derive(Debug, Clone)]
struct Label {
    /// The last stage, by class.
    link: ClassLink,
    /// Device of the last stage.
    device: usize,
    /// Label it extends.
    before: Option<usize>,
    /// Stages so far.
    stages: usize,
    /// Devices used by class, in order of the classes; classes without are left out.
    used: Box<[(usize, usize)]>,
    /// Bytes drawn, by pool.
    drawn: Box<[u64]>,
    /// When each chunk leaves the last stage.
    done: Box<[f64]>,
    /// Whether a stage that may be the longest of the band is passed; always so for one chunk.
    turned: bool,
    /// Prices not yet paid.
    unpaid: f64,
    /// Whether a better label has taken its place.
    dropped: bool,
}

impl Label {
    fn count(&self, class: usize) -> usize {
        self.used.binary_search_by_key(&class, |used| used.0).map_or(0, |at| self.used[at].1)
    }
}

/// An entry of the open list: least bound first, then furthest, then oldest.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Open {
    bound: f64,
    layer: usize,
    label: usize,
}

impl Eq for Open {}

impl Ord for Open {
    fn cmp(&self, other: &Self) -> Ordering {
        other.bound.total_cmp(&self.bound).then(self.layer.cmp(&other.layer)).then(other.label.cmp(&self.label))
    }
}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What is searched, and how its completions are bounded.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    /// The chain problem.
    pub chains: &'a Chains<'a>,
    /// The chains searched.
    pub band: &'a Band,
    /// Prices that steer the search and do not change what it finds.
    pub prices: &'a Prices,
    /// Completions at these prices.
    pub completions: &'a Completions,
}

impl Ground<'_> {
    /// The least value of a chain that has been followed up to a layer, where chunks have come at `reached`, the
    /// cheapest walk taking the `rest`.
    fn least(&self, turned: bool, layer: usize, reached: impl Fn(usize) -> f64, rest: impl Fn(usize) -> f64) -> f64 {
        let costs = self.chains.costs;
        match &self.prices.shares {
            Some(shares) => shares.mean(layer, [0, costs.followed(), costs.chunks - 1].map(reached)) + rest(0),
            None => costs.least_to_come(turned, |phase| reached(costs.chunk_of(phase)) + rest(phase)),
        }
    }
}

/// Where labels end, and the devices they have used.
type Place = (usize, Box<[(usize, usize)]>);

struct Search<'a> {
    ground: Ground<'a>,
    pinned: Vec<usize>,
    labels: Vec<Label>,
    /// Labels by last layer and class of the last device.
    ends: Vec<Vec<usize>>,
    /// The same by the devices used.
    same: BTreeMap<Place, Vec<usize>>,
    /// Labels to be taken up: all of them in one heap, or by the layer they end at.
    open: Vec<BinaryHeap<Open>>,
    /// Most labels of a layer that are taken up, where so many suffice, and the best so many of each, the worst on top.
    width: Option<usize>,
    best_of: Vec<BinaryHeap<Reverse<Open>>>,
    best: Option<(Vec<Link>, f64)>,
    /// Only chains better than this matter.
    limit: f64,
    /// When each chunk reaches the next device, and leaves it.
    arrived: Vec<f64>,
    left: Vec<f64>,
}

impl<'a> Search<'a> {
    fn new(ground: Ground<'a>, limit: f64, width: Option<usize>) -> Self {
        let (classes, layers) = (ground.chains.classes.len(), ground.chains.costs.layers);
        Self {
            ground,
            pinned: (0..classes).filter(|&class| ground.chains.pinned(class)).collect(),
            labels: Vec::new(),
            ends: vec![Vec::new(); (layers + 1) * classes],
            same: BTreeMap::new(),
            open: vec![BinaryHeap::new(); if width.is_some() { layers + 1 } else { 1 }],
            width,
            best_of: vec![BinaryHeap::new(); if width.is_some() { layers + 1 } else { 0 }],
            best: None,
            limit,
            arrived: vec![0.0; ground.chains.costs.chunks],
            left: vec![0.0; ground.chains.costs.chunks],
        }
    }

    /// What a label must beat.
    fn cutoff(&self) -> f64 {
        if self.limit.is_finite() { self.limit - self.limit.abs() * ROUNDING } else { self.limit }
    }
}

/// Searches for a chain of least value below `limit`, keeping at most `labels_max` labels.
pub(crate) fn search(ground: Ground<'_>, limit: f64, labels_max: u64, budget: &Budget<'_>) -> Searched {
    let mut search = Search::new(ground, limit, None);
    search.extend(None);
    let (mut taken, mut stopped) = (0, None);
    let enough = if budget.gap_target > GAP_NONE { budget.gap_target } else { 0.0 };
    while let Some(&Open { bound, label, .. }) = search.open[0].peek() {
        if bound >= search.cutoff() * (1.0 - enough) {
            break;
        }
        if search.labels.len() as u64 >= labels_max {
            stopped = Some(Limit::Nodes);
        } else if taken % STRIDE == 0 {
            stopped = budget.exhausted();
        }
        if stopped.is_some() {
            break;
        }
        search.open[0].pop();
        if !search.labels[label].dropped {
            taken += 1;
            search.extend(Some(label));
        }
    }
    let open = search.open[0].peek().map_or(f64::INFINITY, |open| open.bound);
    let bound = search.best.as_ref().map_or(f64::INFINITY, |best| best.1).min(open);
    Searched { kept: search.labels.len() as u64, best: search.best, bound, stopped, labels: taken }
}

/// A good chain, by taking up at most `width` labels of each layer.
pub(crate) fn glance(ground: Ground<'_>, limit: f64, width: usize, budget: &Budget<'_>) -> Option<(Vec<Link>, f64)> {
    let mut search = Search::new(ground, limit, Some(width));
    search.extend(None);
    for layer in 1..ground.chains.costs.layers {
        let mut taken = 0;
        if budget.exhausted().is_some() {
            break;
        }
        while let Some(Open { bound, label, .. }) = search.open[layer].pop() {
            if taken >= width || bound >= search.cutoff() {
                break;
            }
            if !search.labels[label].dropped {
                taken += 1;
                search.extend(Some(label));
            }
        }
    }
    search.best
}

impl Search<'_> {
    /// Adds every stage that may follow a label, or begin a chain.
    fn extend(&mut self, label: Option<usize>) {
        let Ground { chains, prices, completions, band } = self.ground;
        let costs = chains.costs;
        let (layer, stages, unpaid, turned) = match label {
            None => (0, 0, chains.price_sum(prices), costs.chunks == 1),
            Some(l) => {
                let l = &self.labels[l];
                (l.link.2, l.stages, l.unpaid, l.turned)
            }
        };
        let levels = match chains.count {
            StageCount::Any => Some((0, 0)),
            _ => completions.top.checked_sub(stages).and_then(|level| Some((level, level.checked_sub(1)?))),
        };
        let Some((level, below)) = levels else { return };
        let message = |from: usize, to: usize, chunk: usize| costs.way(chunk, from, to);
        for class in 0..chains.classes.len() {
            let used = label.map_or(0, |l| self.labels[l].count(class));
            let Some(&device) = chains.classes[class].get(used) else { continue };
            // Both ends first: most devices are ruled out by them.
            let reach_at = |chunk: usize| match label {
                Some(l) => self.labels[l].done[chunk] + message(self.labels[l].device, device, chunk),
                None => costs.entry[device],
            };
            let rest = |phase: usize| completions.from(phase, level, layer, class);
            let least = self.ground.least(turned, layer, reach_at, rest);
            let cutoff = self.cutoff() + unpaid;
            if least >= cutoff || !least.is_finite() {
                continue;
            }
            for chunk in 0..costs.chunks {
                self.arrived[chunk] = match label {
                    Some(l) => self.labels[l].done[chunk] + message(self.labels[l].device, device, chunk),
                    None => costs.entry[device],
                };
            }
            let kind = chains.kind_of(class);
            for end in layer + 1..=chains.kind(class).reach[layer] {
                let all = band.steps[kind].all.at(layer, end);
                if all > band.most {
                    continue;
                }
                let mut free = 0.0_f64;
                for chunk in 0..costs.chunks {
                    free = free.max(self.arrived[chunk]) + costs.stage[kind][chunk].at(layer, end);
                    self.left[chunk] = free;
                }
                let turned = turned || all > band.over;
                let pay = chains.pay(prices, (class, layer, end));
                let rest = |phase: usize| completions.after(phase, below, end, class);
                let mut bound = self.ground.least(turned, end, |chunk| self.left[chunk], rest);
                if end == costs.layers {
                    bound = bound.max(free + costs.exit[device]);
                }
                let unpaid = unpaid - pay;
                let bound = bound - unpaid;
                if bound < self.cutoff() && self.among_best(bound, end) {
                    self.add(label, (class, layer, end), device, turned, unpaid, bound);
                }
            }
        }
    }

    /// Whether a label of this bound may be taken up, where only the best of a layer are.
    fn among_best(&self, bound: f64, layer: usize) -> bool {
        let (Some(width), Some(best)) = (self.width, self.best_of.get(layer)) else { return true };
        best.len() < width || best.peek().is_none_or(|worst| bound < worst.0.bound)
    }

    fn add(&mut self, before: Option<usize>, link: ClassLink, device: usize, turned: bool, unpaid: f64, bound: f64) {
        let chains = self.ground.chains;
        let (class, start, end) = link;
        let parent = before.map(|b| &self.labels[b]);
        let mut drawn: Box<[u64]> =
            parent.map_or_else(|| vec![0; chains.tables.pools.len()].into(), |p| p.drawn.clone());
        if let Some(pool) = chains.pool(class) {
            drawn[pool] = drawn[pool].saturating_add(chains.kind(class).bytes.at(start, end));
            if drawn[pool] > chains.tables.pools[pool].size {
                return;
            }
        }
        let mut used: Vec<(usize, usize)> = parent.map_or_else(Vec::new, |p| p.used.to_vec());
        match used.binary_search_by_key(&class, |used| used.0) {
            Ok(at) => used[at].1 += 1,
            Err(at) => used.insert(at, (class, 1)),
        }
        let stages = parent.map_or(0, |p| p.stages) + 1;
        let (used, done) = (used.into(), self.left.clone().into());
        let label = Label { link, device, before, stages, used, drawn, done, turned, unpaid, dropped: false };
        if end == chains.costs.layers {
            self.finish(&label);
        } else if self.keeps(&label) {
            let position = self.labels.len();
            if self.ends[end * chains.classes.len() + class].len() >= 2 * RIVALS {
                self.forget(end * chains.classes.len() + class);
            }
            self.ends[end * chains.classes.len() + class].push(position);
            self.labels.push(label);
            let entry = Open { bound, layer: end, label: position };
            self.open[if self.width.is_some() { end } else { 0 }].push(entry);
            if let Some(width) = self.width {
                self.best_of[end].push(Reverse(entry));
                if self.best_of[end].len() > width {
                    self.best_of[end].pop();
                }
            }
        }
    }

    fn finish(&mut self, label: &Label) {
        let chains = self.ground.chains;
        let full = |&class: &usize| label.count(class) == chains.classes[class].len();
        if !self.pinned.iter().all(full) || !chains.count.allows(label.stages) || !label.turned {
            return;
        }
        let stage = |label: &Label| (label.device, label.link.1, label.link.2);
        let mut chain = vec![stage(label)];
        let mut before = label.before;
        while let Some(position) = before {
            chain.push(stage(&self.labels[position]));
            before = self.labels[position].before;
        }
        chain.reverse();
        let value = chains.value(&chain);
        let better = match &self.best {
            None => value < self.limit,
            Some((best, known)) => {
                let rank = |chain: &[Link]| (chain.len(), chain.iter().map(|l| l.0).collect::<Vec<_>>());
                value < *known || (value <= *known && rank(&chain) < rank(best))
            }
        };
        if better {
            self.limit = self.limit.min(value);
            self.best = Some((chain, value));
        }
    }

    /// Leaves only the latest labels of an end, and those not dropped.
    fn forget(&mut self, place: usize) {
        let ends = &mut self.ends[place];
        ends.retain(|&label| !self.labels[label].dropped);
        ends.drain(..ends.len().saturating_sub(RIVALS));
    }

    /// Whether no kept label is everywhere as good, as far as is looked; drops those that this one beats.
    fn keeps(&mut self, label: &Label) -> bool {
        let chains = self.ground.chains;
        let place = label.link.2 * chains.classes.len() + label.link.0;
        let beats = |a: &Label, b: &Label| {
            let stages = match chains.count {
                StageCount::Any => true,
                StageCount::AtMost(_) => a.stages <= b.stages,
                StageCount::Exactly(_) => a.stages == b.stages,
            };
            stages
                && (a.turned || !b.turned)
                && a.done.iter().zip(&b.done).all(|(a, b)| a <= b)
                && a.used.iter().all(|&(class, count)| count <= b.count(class))
                && self.pinned.iter().all(|&class| a.count(class) == b.count(class))
                && a.drawn.iter().zip(&b.drawn).all(|(a, b)| a <= b)
        };
        let labels = &mut self.labels;
        let same = self.same.entry((place, label.used.clone())).or_default();
        let near = &self.ends[place];
        let near = &near[near.len().saturating_sub(RIVALS)..];
        if same.iter().chain(near).any(|&rival| !labels[rival].dropped && beats(&labels[rival], label)) {
            return false;
        }
        for &rival in same.iter().chain(near) {
            if !labels[rival].dropped && beats(label, &labels[rival]) {
                labels[rival].dropped = true;
            }
        }
        same.retain(|&rival| !labels[rival].dropped);
        same.push(labels.len());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_list_gives_the_least_bound_then_the_furthest_then_the_oldest() {
        let entry = |bound, layer, label| Open { bound, layer, label };
        let mut open = BinaryHeap::from([entry(2.0, 9, 0), entry(1.0, 3, 1), entry(1.0, 4, 3), entry(1.0, 4, 2)]);
        let order: Vec<usize> = std::iter::from_fn(|| open.pop()).map(|o| o.label).collect();
        assert_eq!(order, [2, 3, 1, 0]);
    }
}
