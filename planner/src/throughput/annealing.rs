//! Plans of blocks and rails, improved by simulated annealing.
//!
//! The rate of such a plan is that of its weakest block. Moves exchange devices, layers and whole rails between two blocks
//! at a time; the sum over layers of the squared share by which a block falls short of a target is what they are judged
//! by. The draws come from one seeded generator and their number is given, so that the same problem gives the same plan.

use super::blocks::{Block, Rail, State, Yard, lacking};
use super::random::Random;
use crate::budget::Budget;

/// Rise of the shortfall that annealing takes at most when it begins, from a rough start.
const HOT: f64 = 3e-3;
/// The same when it ends.
const COLD: f64 = 3e-8;
/// Moves between two looks at the clock.
const LOOK: u64 = 1024;
/// Work of a move.
const MOVE_WORK: u64 = 60;
/// Most rails of a block.
const RAILS_MAX: usize = 96;

/// A place in a block: a rail and a device of it.
type Spot = (usize, usize);

/// Order of the sites, and the doors between them, as a state has them.
type OrderAndDoors = (Vec<usize>, Vec<(usize, usize)>);

/// The search.
pub(crate) struct Annealing<'a> {
    yard: &'a Yard,
    state: State,
    random: Random,
    /// What was touched, as it was before.
    before: Vec<(usize, Block)>,
    touched_free: Option<(usize, Vec<u16>)>,
    touched_doors: Option<OrderAndDoors>,
    live: Vec<Vec<usize>>,
}

impl<'a> Annealing<'a> {
    /// From a start.
    pub fn new(yard: &'a Yard, state: State, seed: u64) -> Self {
        let live = (0..yard.sites).map(|site| state.live(site).collect()).collect();
        let (before, touched_free, touched_doors) = (Vec::new(), None, None);
        Self { yard, state, random: Random::new(seed), before, touched_free, touched_doors, live }
    }

    /// The best state seen in so many moves, between these shares of the heat; stops where `target` is reached.
    pub fn run(mut self, target: f64, moves: u64, heat: f64, budget: &Budget<'_>) -> State {
        let mut best = (self.state.rate(self.yard), self.state.clone());
        let mut now = self.state.short(self.yard, target);
        let mut least = now;
        // The sixty-fourth root, by square roots alone: these round alike everywhere.
        let (mut warmth, stage) = (HOT * heat, (moves / 64).max(1));
        let cooling = (0..6).fold(COLD / warmth, |root, _| root.sqrt());
        for step in 0..moves {
            if step % stage == 0 && step > 0 {
                warmth *= cooling;
            }
            if step % LOOK == 0 && (best.0 >= target || budget.exhausted().is_some()) {
                break;
            }
            if step % LOOK == 0 {
                budget.did(LOOK.min(moves - step) * MOVE_WORK);
            }
            if !self.change() {
                self.undo();
                continue;
            }
            let short = self.after(now, target);
            let risen = short - now;
            if risen <= 0.0 || risen < warmth * self.random.real() {
                self.accept();
                now = short;
                // The weakest block is looked for only where the sum of all is about as good as it was.
                if risen < 0.0 && now < 1.2 * least {
                    least = least.min(now);
                    let rate = self.state.rate(self.yard);
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

    /// The shortfall after a change.
    fn after(&mut self, now: f64, target: f64) -> f64 {
        let yard = self.yard;
        let roles =
            |state: &State, b: usize| state.order.iter().any(|&s| state.doors[s].0 == b || state.doors[s].1 == b);
        let whole = self.touched_doors.is_some()
            || (self.state.order.len() > 1 && self.before.iter().any(|(b, _)| roles(&self.state, *b)));
        let mut sum = now;
        for i in 0..self.before.len() {
            let b = self.before[i].0;
            let old = &self.before[i].1;
            sum -= old.layers as f64 * lacking(old.flow, target);
            self.state.refresh(yard, b);
            let new = &self.state.blocks[b];
            sum += new.layers as f64 * lacking(new.flow, target);
        }
        if whole {
            if self.touched_doors.is_some() && yard.ends {
                self.state.refresh_all(yard);
            }
            return self.state.short(yard, target);
        }
        sum.max(0.0)
    }

    fn touch(&mut self, block: usize) {
        if !self.before.iter().any(|(b, _)| *b == block) {
            self.before.push((block, self.state.blocks[block].clone()));
        }
    }

    fn touch_free(&mut self, site: usize) {
        if self.touched_free.is_none() {
            self.touched_free = Some((site, self.state.free[site].clone()));
        }
    }

    fn touch_doors(&mut self) {
        if self.touched_doors.is_none() {
            self.touched_doors = Some((self.state.order.clone(), self.state.doors.clone()));
        }
    }

    fn accept(&mut self) {
        let shape = self.touched_doors.is_some()
            || self.before.iter().any(|(b, old)| (old.layers > 0) != (self.state.blocks[*b].layers > 0));
        if shape {
            self.live = (0..self.yard.sites).map(|site| self.state.live(site).collect()).collect();
        }
        self.before.clear();
        (self.touched_free, self.touched_doors) = (None, None);
    }

    fn undo(&mut self) {
        let doors = self.touched_doors.take();
        let turned = doors.is_some();
        if let Some((order, doors)) = doors {
            (self.state.order, self.state.doors) = (order, doors);
        }
        while let Some((b, block)) = self.before.pop() {
            self.state.blocks[b] = block;
        }
        if let Some((site, free)) = self.touched_free.take() {
            self.state.free[site] = free;
        }
        if turned && self.yard.ends {
            self.state.refresh_all(self.yard);
        }
    }

    /// A block of a site; the lower of two where `low`.
    fn pick(&mut self, site: usize, low: bool) -> usize {
        let live = &self.live[site];
        let a = live[self.random.below(live.len())];
        let b = live[self.random.below(live.len())];
        if low && self.state.blocks[b].flow < self.state.blocks[a].flow { b } else { a }
    }

    fn site(&mut self) -> usize {
        let at = self.random.below(self.state.order.len());
        self.state.order[at]
    }

    fn spot(&mut self, block: usize) -> Option<Spot> {
        let rails = self.state.blocks[block].rails.len();
        if rails == 0 {
            return None;
        }
        let rail = self.random.below(rails);
        let devices = self.state.blocks[block].rails[rail].types.len();
        Some((rail, self.random.below(devices)))
    }

    /// Makes a change; false where it came to nothing.
    fn change(&mut self) -> bool {
        let site = self.site();
        match self.random.below(16) {
            0..=4 => self.exchange(site),
            5..=7 => self.transfer(site),
            8..=9 => self.shift(),
            10 => self.transfer(site) && self.shift(),
            11 => self.exchange(site) && self.shift(),
            12 => self.take_free(site),
            13 => self.exchange_free(site),
            14 => {
                if self.random.below(2) == 0 {
                    self.split(site)
                } else {
                    self.merge(site)
                }
            }
            _ => self.turn(site),
        }
    }

    /// Two devices change places.
    fn exchange(&mut self, site: usize) -> bool {
        let (a, b) = (self.pick(site, true), self.pick(site, false));
        let (Some(x), Some(y)) = (self.spot(a), self.spot(b)) else { return false };
        let (one, other) = (self.state.blocks[a].rails[x.0].types[x.1], self.state.blocks[b].rails[y.0].types[y.1]);
        if one == other || (a == b && x.0 == y.0) {
            return false;
        }
        self.touch(a);
        self.touch(b);
        self.state.blocks[a].rails[x.0].types[x.1] = other;
        self.state.blocks[b].rails[y.0].types[y.1] = one;
        true
    }

    /// A device goes to a rail of another block, or makes a new one.
    fn transfer(&mut self, site: usize) -> bool {
        let (from, to) = (self.pick(site, false), self.pick(site, true));
        let Some(x) = self.spot(from) else { return false };
        self.touch(from);
        self.touch(to);
        let device = self.state.blocks[from].rails[x.0].types.swap_remove(x.1);
        self.give(to, device)
    }

    fn give(&mut self, to: usize, device: u16) -> bool {
        let rails = self.state.blocks[to].rails.len();
        let at = self.random.below(rails + 1);
        if at == rails {
            if rails >= RAILS_MAX {
                return false;
            }
            self.state.blocks[to].rails.push(Rail { types: vec![device], rate: 0.0 });
        } else {
            self.state.blocks[to].rails[at].types.push(device);
        }
        true
    }

    /// A layer goes from one block to another, of any site.
    fn shift(&mut self) -> bool {
        let (near, far) = (self.site(), self.site());
        let (from, mut to) = (self.pick(near, true), self.pick(far, false));
        let other = self.pick(far, false);
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

    fn take_free(&mut self, site: usize) -> bool {
        if self.state.free[site].is_empty() {
            // Somebody is set free.
            let from = self.pick(site, false);
            let Some(x) = self.spot(from).filter(|_| self.random.below(8) == 0) else { return false };
            self.touch(from);
            self.touch_free(site);
            let device = self.state.blocks[from].rails[x.0].types.swap_remove(x.1);
            self.state.free[site].push(device);
            return true;
        }
        let to = self.pick(site, true);
        self.touch(to);
        self.touch_free(site);
        let at = self.random.below(self.state.free[site].len());
        let device = self.state.free[site].swap_remove(at);
        self.give(to, device)
    }

    fn exchange_free(&mut self, site: usize) -> bool {
        if self.state.free[site].is_empty() {
            return self.exchange(site);
        }
        let a = self.pick(site, true);
        let Some(x) = self.spot(a) else { return false };
        self.touch(a);
        self.touch_free(site);
        let at = self.random.below(self.state.free[site].len());
        std::mem::swap(&mut self.state.free[site][at], &mut self.state.blocks[a].rails[x.0].types[x.1]);
        true
    }

    /// A block becomes two; devices of each rail are dealt out.
    fn split(&mut self, site: usize) -> bool {
        let a = self.pick(site, false);
        let layers = self.state.blocks[a].layers;
        if layers < 2 {
            return false;
        }
        let b = self.state.blocks.iter().position(|block| block.layers == 0).unwrap_or_else(|| {
            self.state.blocks.push(Block::default());
            self.state.blocks.len() - 1
        });
        let first = 1 + self.random.below(layers - 1);
        self.touch(a);
        self.touch(b);
        self.state.blocks[b] = Block { site, layers: layers - first, ..Block::default() };
        self.state.blocks[a].layers = first;
        let rails = std::mem::take(&mut self.state.blocks[a].rails);
        for rail in rails {
            let (mut kept, mut gone) = (Rail::default(), Rail::default());
            for t in rail.types {
                if self.random.below(layers) < first { kept.types.push(t) } else { gone.types.push(t) }
            }
            self.state.blocks[a].rails.extend(Some(kept).filter(|rail| !rail.types.is_empty()));
            self.state.blocks[b].rails.extend(Some(gone).filter(|rail| !rail.types.is_empty()));
        }
        let (start, end) = self.state.doors[site];
        if end == a {
            self.touch_doors();
            self.state.doors[site] = (start, b);
        }
        true
    }

    /// Two blocks become one; their rails are joined in the order of their rates.
    fn merge(&mut self, site: usize) -> bool {
        let (a, b) = (self.pick(site, false), self.pick(site, false));
        if a == b {
            return false;
        }
        self.touch(a);
        self.touch(b);
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
        let (first, last) = self.state.doors[site];
        if first == b || last == b || first == a || last == a {
            self.touch_doors();
            let door = |at: usize| if at == b { a } else { at };
            let (mut first, mut last) = (door(first), door(last));
            if first == last {
                // Both doors fell together: another block, where there is one, takes the last.
                let other = self.state.live(site).find(|&c| c != a);
                (first, last) = (first, other.unwrap_or(a));
            }
            self.state.doors[site] = (first, last);
        }
        true
    }

    /// Sites or doors change places.
    fn turn(&mut self, site: usize) -> bool {
        if self.state.order.len() < 2 && !self.yard.ends {
            return self.exchange(site);
        }
        self.touch_doors();
        if self.state.order.len() > 1 && self.random.below(3) == 0 {
            let sites = self.state.order.len();
            let (a, b) = (self.random.below(sites), self.random.below(sites));
            self.state.order.swap(a, b);
            return a != b;
        }
        if self.live[site].len() < 2 {
            return false;
        }
        let (first, last) = self.state.doors[site];
        let other = self.pick(site, false);
        self.state.doors[site] = match self.random.below(3) {
            0 => (last, first),
            1 if other != last => (other, last),
            _ if other != first => (first, other),
            _ => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throughput::blocks::{Type, handed};
    use crate::throughput::clip::Span;

    /// Spans of a device of so many layers at most, whose rate is `speed / k`.
    fn spans(speed: f64, most: usize) -> Vec<Span> {
        (1..=most).map(|held| Span { held, first: false, last: false, rate: speed / held as f64 }).collect()
    }

    fn all(spans: Vec<Span>) -> Vec<Span> {
        let ends = [(false, false), (true, false), (false, true), (true, true)];
        let with = |span: Span| ends.map(|(first, last)| Span { first, last, ..span });
        spans.into_iter().flat_map(with).collect()
    }

    #[test]
    fn annealing_finds_the_one_division_that_wastes_nothing() {
        // Six devices of 12 / k and three of 6 / k layers: 15 layers' worth at a rate of 6, and 15 layers.
        let types = [(0, 6), (1, 3)].map(|(kind, count)| Type { site: 0, kind, count }).to_vec();
        let kinds = [all(spans(12.0, 4)), all(spans(6.0, 4))];
        let yard = Yard::new(15, types, &kinds, vec![vec![f64::INFINITY]], vec![vec![f64::INFINITY]]);
        let start = State::spread(&yard, &[0], 3).expect("a start");
        let run = || Annealing::new(&yard, start.clone(), 1).run(6.0, 60_000, 1.0, &Budget::default());
        let found = run();
        assert_eq!(found.rate(&yard), 6.0, "{found:?}");
        assert_eq!(found.in_order(), run().in_order(), "the same draws give the same plan");
        assert_eq!(found.in_order().iter().map(|block| block.layers).sum::<usize>(), 15);
    }

    #[test]
    fn sites_that_follow_one_another_hand_over_what_their_ways_carry() {
        // Two sites of four devices that carry 4 with two layers each: 16 layers at 4 need every way between them.
        let types = [0, 1].map(|site| Type { site, kind: 0, count: 4 }).to_vec();
        let kinds = [all(spans(8.0, 4))];
        let between = |way: f64| vec![vec![f64::INFINITY, way], vec![way, f64::INFINITY]];
        let open = vec![vec![f64::INFINITY; 2]; 2];
        let best = |way: f64| {
            let yard = Yard::new(16, types.clone(), &kinds, between(way), open.clone());
            let start = State::spread(&yard, &[0, 1], 2).expect("a start");
            let found = Annealing::new(&yard, start, 3).run(4.0, 60_000, 1.0, &Budget::default());
            (found.rate(&yard), found.in_order().into_iter().cloned().collect::<Vec<_>>())
        };
        assert_eq!(best(4.0).0, 4.0);
        let (rate, blocks) = best(1.0);
        let last = blocks.iter().rposition(|block| block.site == blocks[0].site).expect("a first site");
        let rails = |block: &Block| block.rails.iter().map(|rail| rail.rate).collect::<Vec<_>>();
        assert!(rate <= handed(&rails(&blocks[last]), &rails(&blocks[last + 1]), 1.0));
        assert!(rate > 1.0 && rate <= 4.0, "two rails on either side carry more than one way does, not {rate}");
    }
}
