//! A chain made better by small changes: layers go to another stage, devices change places or give way to others. Where
//! none is better any more, a few changes at random lead elsewhere; the same for the same chain.

use super::chains::{Chains, Link, StageCount};
use crate::budget::Budget;

/// Times that a chain is changed at random.
const KICKS: usize = 8;
/// Changes at random each time.
const CHANGES: usize = 3;
/// Values looked at in all.
const LOOKS: usize = 100_000;

/// The chain after changes, and its value; stages go to the candidates given and to those that have some. None where no
/// change makes it quicker.
pub(crate) fn polish(
    chains: &Chains<'_>,
    chain: &[Link],
    others: &[usize],
    budget: &Budget<'_>,
) -> Option<(Vec<Link>, f64)> {
    // What shares a memory, or is counted, needs more than a look at one stage.
    if chains.count != StageCount::Any || !chains.tables.pools.is_empty() {
        return None;
    }
    let stages: Vec<Stage> = chain.iter().map(|&(device, start, end)| (device, end - start)).collect();
    let mut shop = Shop::new(chains, others);
    let begun = shop.value(&stages);
    let (mut best, mut value) = (stages, begun);
    let mut random = Random(0x0150_7e12);
    for kick in 0..=KICKS {
        let mut tried = best.clone();
        if kick > 0 {
            (0..CHANGES).for_each(|_| shop.kick(&mut tried, &mut random));
        }
        let reached = shop.descend(&mut tried);
        if reached < value {
            (best, value) = (tried, reached);
        }
        if shop.looks > LOOKS || budget.exhausted().is_some() {
            break;
        }
    }
    (value < begun).then(|| (Shop::chain(&best), value))
}

/// Candidate, and number of layers.
type Stage = (usize, usize);

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % count.max(1) as u64) as usize
    }
}

struct Shop<'a> {
    chains: &'a Chains<'a>,
    others: &'a [usize],
    done: Vec<f64>,
    looks: usize,
}

impl<'a> Shop<'a> {
    fn new(chains: &'a Chains<'a>, others: &'a [usize]) -> Self {
        Self { chains, others, done: vec![0.0; chains.costs.chunks], looks: 0 }
    }

    fn chain(stages: &[Stage]) -> Vec<Link> {
        let mut start = 0;
        let link = |&(device, layers): &Stage| {
            start += layers;
            (device, start - layers, start)
        };
        stages.iter().map(link).collect()
    }

    fn pinned(&self, device: usize) -> bool {
        self.chains.tables.candidates[device].pinned
    }

    /// Value of a chain; infinite where it does not hold.
    fn value(&mut self, stages: &[Stage]) -> f64 {
        self.looks += 1;
        let (costs, tables) = (self.chains.costs, self.chains.tables);
        let (mut start, mut before) = (0, None);
        for &(device, layers) in stages {
            let (kind, end) = (tables.candidates[device].kind, start + layers);
            if layers == 0 || start >= costs.layers || end > tables.kinds[kind].reach[start] {
                return f64::INFINITY;
            }
            if before.is_none() {
                self.done.fill(0.0);
            }
            costs.advance(&mut self.done, before, device, kind, start, end);
            (start, before) = (end, Some(device));
        }
        match (stages.first(), before) {
            (Some(first), Some(last)) if start == costs.layers => {
                costs.entry[first.0] + self.done[costs.chunks - 1] + costs.exit[last]
            }
            _ => f64::INFINITY,
        }
    }

    /// Takes every change that makes a chain quicker, until there is none; its value.
    fn descend(&mut self, stages: &mut Vec<Stage>) -> f64 {
        let mut value = self.value(stages);
        loop {
            let before = value;
            self.shift(stages, &mut value);
            self.replace(stages, &mut value);
            if value >= before || self.looks > LOOKS {
                return value;
            }
        }
    }

    /// Takes another chain where it is quicker.
    fn take(&mut self, stages: &mut Vec<Stage>, value: &mut f64, tried: &[Stage]) -> bool {
        let reached = self.value(tried);
        let better = reached < *value * (1.0 - 1e-12);
        if better {
            *value = reached;
            stages.clear();
            stages.extend_from_slice(tried);
        }
        better
    }

    /// Layers to other stages, stages to other places.
    fn shift(&mut self, stages: &mut Vec<Stage>, value: &mut f64) {
        let mut tried = Vec::new();
        for change in 0..7 {
            for a in 0..stages.len() {
                for b in 0..stages.len() {
                    // A stage may have gone.
                    if a == b || a.max(b) >= stages.len() {
                        continue;
                    }
                    tried.clone_from(stages);
                    match change {
                        0 | 1 => {
                            (tried[a].1, tried[b].1) = (stages[a].1 - 1, stages[b].1 + 1);
                            if change == 1 {
                                (tried[a].0, tried[b].0) = (stages[b].0, stages[a].0);
                            }
                            if tried[a].1 == 0 && !self.pinned(tried[a].0) {
                                tried.remove(a);
                            }
                        }
                        2 => tried.swap(a, b),
                        3 => (tried[a].0, tried[b].0) = (stages[b].0, stages[a].0),
                        4 => {
                            let stage = tried.remove(a);
                            tried.insert(b, stage);
                        }
                        5 if a < b => tried[a..=b].reverse(),
                        6 if stages[a].1 > 2 => (tried[a].1, tried[b].1) = (stages[a].1 - 2, stages[b].1 + 2),
                        _ => continue,
                    }
                    self.take(stages, value, &tried);
                }
            }
        }
    }

    /// Other devices in the place of one, or beside it.
    fn replace(&mut self, stages: &mut Vec<Stage>, value: &mut f64) {
        let mut tried = Vec::new();
        for &device in self.others {
            if stages.iter().any(|stage| stage.0 == device) {
                continue;
            }
            'stages: for a in 0..stages.len() {
                if !self.pinned(stages[a].0) {
                    tried.clone_from(stages);
                    tried[a].0 = device;
                    if self.take(stages, value, &tried) {
                        break 'stages;
                    }
                    for b in (0..stages.len()).filter(|&b| b != a) {
                        for (here, there) in [(stages[a].1 + 1, stages[b].1 - 1), (stages[a].1 - 1, stages[b].1 + 1)] {
                            tried.clone_from(stages);
                            (tried[a], tried[b].1) = ((device, here), there);
                            if self.take(stages, value, &tried) {
                                break 'stages;
                            }
                        }
                    }
                }
                for layers in 1..stages[a].1 {
                    tried.clone_from(stages);
                    tried[a].1 -= layers;
                    tried.insert(a, (device, layers));
                    if self.take(stages, value, &tried) {
                        break 'stages;
                    }
                    tried.swap(a, a + 1);
                    if self.take(stages, value, &tried) {
                        break 'stages;
                    }
                }
            }
        }
    }

    /// A change at random, if the chain then holds.
    fn kick(&mut self, stages: &mut Vec<Stage>, random: &mut Random) {
        let mut tried = stages.clone();
        let (a, b) = (random.below(tried.len()), random.below(tried.len()));
        match random.below(4) {
            0 => tried.swap(a, b),
            1 => {
                let stage = tried.remove(a);
                tried.insert(b, stage);
            }
            2 => tried[a.min(b)..=a.max(b)].reverse(),
            _ => {
                let device = self.others.get(random.below(self.others.len())).copied();
                let unused = device.filter(|device| !stages.iter().any(|stage| stage.0 == *device));
                if let Some(device) = unused.filter(|_| !self.pinned(tried[a].0)) {
                    tried[a].0 = device;
                }
            }
        }
        if self.value(&tried).is_finite() {
            *stages = tried;
        }
    }
}
