//! Blocks of several sites, improved by simulated annealing.
//!
//! What all blocks and borders lack of a target decides, as squares of shares. A move changes two blocks at most, or
//! the order of all; the number of draws is given, so that the same problem gives the same plan.

use super::super::blocks::{Block, Rail, Yard};
use super::super::random::Random;
use super::{Mixed, NOBODY, Scratch};
use crate::budget::Budget;

/// Rise of the shortfall that is taken at most when it begins, from a rough start.
const HOT: f64 = 3e-3;
/// The same when it ends.
const COLD: f64 = 3e-8;
/// Steps in which it cools, a power of two.
const STAGES: u32 = 64;
/// Moves between two looks at the clock.
const LOOK: u64 = 512;
/// Work of a move.
const MOVE_WORK: u64 = 150;
/// Most rails of a block.
const RAILS_MAX: usize = 32;
/// Draws for a device of the same kind at another site.
const DRAWS: usize = 8;

/// The search.
pub(super) struct Annealing<'a> {
    yard: &'a Yard,
    state: Mixed,
    random: Random,
    scratch: Scratch,
    /// What was touched, as it was before.
    before: Vec<(usize, Block)>,
    order: Option<Vec<usize>>,
    free: Option<Vec<u16>>,
    edges: Vec<(usize, f64)>,
}

impl<'a> Annealing<'a> {
    /// From a start.
    pub fn new(yard: &'a Yard, state: Mixed, seed: u64) -> Self {
        let edges = state.edges.clone();
        let (random, scratch) = (Random::new(seed), Scratch::default());
        Self { yard, state, random, scratch, before: Vec::new(), order: None, free: None, edges }
    }

    /// The best state seen in so many moves, or in the share of the time that it may take, from this share of the heat
    /// on; stops where `target` is reached.
    pub fn run(mut self, target: f64, (moves, share): (u64, f64), heat: f64, budget: &Budget<'_>) -> Mixed {
        self.state.edges.fill((NOBODY, 0.0));
        self.state.join(self.yard, target, &mut self.scratch);
        let mut best = (self.state.rate(), self.state.clone());
        let mut now = self.state.short(target);
        let mut least = now;
        // The sixty-fourth root, by square roots alone: these round alike everywhere.
        let (mut warmth, mut stage) = (HOT * heat, 0);
        let cooling = (0..STAGES.ilog2()).fold(COLD / warmth, |root, _| root.sqrt());
        let begun = budget.seconds_left();
        for step in 0..moves {
            if step % LOOK == 0 {
                // Where time runs out before the moves do, it cools with the time.
                let left = begun.zip(budget.seconds_left());
                let spent = left.map_or(0.0, |(begun, left)| (begun - left) / (share * begun).max(1e-9));
                let passed = spent.max(step as f64 / moves as f64);
                if best.0 >= target || passed >= 1.0 || budget.exhausted().is_some() {
                    break;
                }
                while f64::from(stage + 1) <= passed * f64::from(STAGES) {
                    stage += 1;
                    warmth *= cooling;
                }
                budget.did(LOOK.min(moves - step) * MOVE_WORK);
            }
            self.edges.clone_from(&self.state.edges);
            if !self.change() {
                self.undo();
                continue;
            }
            // What is taken is drawn first: where blocks alone lack more than that, borders need not be looked at.
            let most = warmth * self.random.real();
            let short = self.after(target, now + most);
            let risen = short - now;
            if risen <= 0.0 || risen < most {
                self.before.clear();
                (self.order, self.free) = (None, None);
                now = short;
                // The weakest is looked for only where the sum of all is about as good as it was.
                if risen < 0.0 && now < 1.2 * least {
                    least = least.min(now);
                    let rate = self.state.rate();
                    if rate > best.0 {
                        best = (rate, self.state.clone());
                    }
                }
            } else {
                self.undo();
            }
        }
        best.1
    }

    /// The shortfall after a change, or some of it that exceeds `most`.
    fn after(&mut self, target: f64, most: f64) -> f64 {
        let state = &mut self.state;
        for (b, before) in &self.before {
            let b = *b;
            state.refresh(self.yard, b, before);
            state.edges[b].0 = NOBODY;
        }
        for at in 1..state.order.len() {
            if self.before.iter().any(|(b, _)| *b == state.order[at]) {
                state.edges[state.order[at - 1]].0 = NOBODY;
            }
        }
        let short = state.short(target);
        if short > most {
            return short;
        }
        state.join(self.yard, target, &mut self.scratch);
        state.short(target)
    }

    fn touch(&mut self, block: usize) {
        if !self.before.iter().any(|(b, _)| *b == block) {
            self.before.push((block, self.state.blocks[block].clone()));
        }
    }

    fn touch_order(&mut self) {
        if self.order.is_none() {
            self.order = Some(self.state.order.clone());
        }
    }

    fn touch_free(&mut self) {
        if self.free.is_none() {
            self.free = Some(self.state.free.clone());
        }
    }

    fn undo(&mut self) {
        while let Some((b, block)) = self.before.pop() {
            self.state.blocks[b] = block;
        }
        if let Some(order) = self.order.take() {
            self.state.order = order;
        }
        if let Some(free) = self.free.take() {
            self.state.free = free;
        }
        self.state.edges.clone_from(&self.edges);
    }

    /// A block; the weaker of two where `weak`.
    fn pick(&mut self, weak: bool) -> usize {
        let count = self.state.order.len();
        let (i, j) = (self.random.below(count), self.random.below(count));
        let strength = |at: usize| {
            let b = self.state.order[at];
            let before = at.checked_sub(1).map_or(f64::INFINITY, |before| self.state.edges[self.state.order[before]].1);
            self.state.blocks[b].flow.min(self.state.edges[b].1).min(before)
        };
        self.state.order[if weak && strength(j) < strength(i) { j } else { i }]
    }

    fn spot(&mut self, block: usize) -> Option<(usize, usize)> {
        let rails = self.state.blocks[block].rails.len();
        if rails == 0 {
            return None;
        }
        let rail = self.random.below(rails);
        Some((rail, self.random.below(self.state.blocks[block].rails[rail].types.len())))
    }

    /// Makes a change; false where it came to nothing.
    fn change(&mut self) -> bool {
        match self.random.below(16) {
            0..=3 => self.exchange(),
            4..=6 => self.alike(),
            7..=8 => self.transfer(),
            9 => self.shift(),
            10 => self.transfer() && self.shift(),
            11 => self.exchange() && self.shift(),
            12 => self.exchange_free(),
            13 => {
                if self.random.below(2) == 0 {
                    self.split()
                } else {
                    self.merge()
                }
            }
            _ => self.turn(),
        }
    }

    /// Two devices change places.
    fn exchange(&mut self) -> bool {
        let (a, b) = (self.pick(true), self.pick(false));
        let (Some(x), Some(y)) = (self.spot(a), self.spot(b)) else { return false };
        self.swap((a, x), (b, y))
    }

    /// Two devices of one kind and two sites change places: all blocks carry what they did.
    fn alike(&mut self) -> bool {
        let a = self.pick(true);
        let Some(x) = self.spot(a) else { return false };
        let types = &self.yard.types;
        let one = types[self.state.blocks[a].rails[x.0].types[x.1] as usize];
        for _ in 0..DRAWS {
            let b = self.pick(false);
            let Some(y) = self.spot(b) else { continue };
            let other = types[self.state.blocks[b].rails[y.0].types[y.1] as usize];
            if other.kind == one.kind && other.site != one.site {
                return self.swap((a, x), (b, y));
            }
        }
        false
    }

    fn swap(&mut self, (a, x): (usize, (usize, usize)), (b, y): (usize, (usize, usize))) -> bool {
        let (one, other) = (self.state.blocks[a].rails[x.0].types[x.1], self.state.blocks[b].rails[y.0].types[y.1]);
        if one == other {
            return false;
        }
        self.touch(a);
        self.touch(b);
        self.state.blocks[a].rails[x.0].types[x.1] = other;
        self.state.blocks[b].rails[y.0].types[y.1] = one;
        true
    }

    /// A device goes to a rail of another block, or makes a new one.
    fn transfer(&mut self) -> bool {
        let (from, to) = (self.pick(false), self.pick(true));
        let Some(x) = self.spot(from) else { return false };
        self.touch(from);
        self.touch(to);
        let device = self.state.blocks[from].rails[x.0].types.swap_remove(x.1);
        self.give(to, device)
    }

    fn give(&mut self, to: usize, device: u16) -> bool {
        let rails = self.state.blocks[to].rails.len();
        let at = self.random.below(rails + 1);
        if at < rails {
            self.state.blocks[to].rails[at].types.push(device);
        } else if rails < RAILS_MAX {
            self.state.blocks[to].rails.push(Rail { types: vec![device], rate: 0.0 });
        }
        at < rails || rails < RAILS_MAX
    }

    /// A layer goes from one block to another.
    fn shift(&mut self) -> bool {
        let (from, mut to) = (self.pick(true), self.pick(false));
        let other = self.pick(false);
        if self.state.blocks[other].flow > self.state.blocks[to].flow {
            to = other;
        }
        let count = 1 + usize::from(self.random.below(4) == 0);
        if from == to || self.state.blocks[from].layers <= count {
            return false;
        }
        self.touch(from);
        self.touch(to);
        self.state.blocks[from].layers -= count;
        self.state.blocks[to].layers += count;
        true
    }

    /// A device that was left over comes in, by itself or for another.
    fn exchange_free(&mut self) -> bool {
        let to = self.pick(true);
        if self.state.free.is_empty() {
            let Some(x) = self.spot(to).filter(|_| self.random.below(8) == 0) else { return self.exchange() };
            self.touch(to);
            self.touch_free();
            let device = self.state.blocks[to].rails[x.0].types.swap_remove(x.1);
            self.state.free.push(device);
            return true;
        }
        let at = self.random.below(self.state.free.len());
        self.touch(to);
        self.touch_free();
        if self.random.below(2) == 0 {
            let device = self.state.free.swap_remove(at);
            return self.give(to, device);
        }
        let Some(x) = self.spot(to) else { return false };
        std::mem::swap(&mut self.state.free[at], &mut self.state.blocks[to].rails[x.0].types[x.1]);
        true
    }

    /// A block becomes two that follow one another; devices of each rail are dealt out.
    fn split(&mut self) -> bool {
        let a = self.pick(false);
        let layers = self.state.blocks[a].layers;
        if layers < 2 {
            return false;
        }
        let b = self.state.blocks.iter().position(|block| block.layers == 0).unwrap_or_else(|| {
            self.state.blocks.push(Block::default());
            self.state.edges.push((NOBODY, 0.0));
            self.edges.push((NOBODY, 0.0));
            self.state.blocks.len() - 1
        });
        let first = 1 + self.random.below(layers - 1);
        self.touch(a);
        self.touch(b);
        self.touch_order();
        self.state.blocks[b] = Block { layers: layers - first, ..Block::default() };
        self.state.blocks[a].layers = first;
        let at = self.state.order.iter().position(|&block| block == a).unwrap_or(0);
        self.state.order.insert(at + 1, b);
        let rails = std::mem::take(&mut self.state.blocks[a].rails);
        for rail in rails {
            let (mut kept, mut gone) = (Rail::default(), Rail::default());
            for t in rail.types {
                if self.random.below(layers) < first { kept.types.push(t) } else { gone.types.push(t) }
            }
            self.state.blocks[a].rails.extend(Some(kept).filter(|rail| !rail.types.is_empty()));
            self.state.blocks[b].rails.extend(Some(gone).filter(|rail| !rail.types.is_empty()));
        }
        true
    }

    /// A block and the next, or another, become one; their rails are joined in the order of their rates.
    fn merge(&mut self) -> bool {
        let count = self.state.order.len();
        if count < 2 {
            return false;
        }
        let at = self.random.below(count - 1);
        let other = if self.random.below(2) == 0 { at + 1 } else { self.random.below(count) };
        if at == other {
            return false;
        }
        let (a, b) = (self.state.order[at], self.state.order[other]);
        self.touch(a);
        self.touch(b);
        self.touch_order();
        self.state.order.remove(other);
        let mut gone = std::mem::take(&mut self.state.blocks[b]);
        let kept = &mut self.state.blocks[a];
        kept.layers += gone.layers;
        let by_rate = |x: &Rail, y: &Rail| y.rate.total_cmp(&x.rate);
        kept.rails.sort_by(by_rate);
        gone.rails.sort_by(by_rate);
        for (i, rail) in gone.rails.into_iter().enumerate() {
            match kept.rails.get_mut(i) {
                Some(other) => other.types.extend(rail.types),
                None => kept.rails.push(rail),
            }
        }
        kept.rails.len() <= RAILS_MAX
    }

    /// Blocks change places: two of them, or some in a row are turned round, or one goes elsewhere.
    fn turn(&mut self) -> bool {
        let count = self.state.order.len();
        let (i, j) = (self.random.below(count), self.random.below(count));
        if i == j {
            return false;
        }
        self.touch_order();
        match self.random.below(3) {
            0 => self.state.order.swap(i, j),
            1 => {
                let block = self.state.order.remove(i);
                self.state.order.insert(j, block);
            }
            _ => {
                let turned = i.min(j)..=i.max(j);
                self.state.order[turned].reverse();
            }
        }
        true
    }
}
