//! Plans of blocks and rails, improved by simulated annealing.
//!
//! The layers are divided into *blocks*; in a block, *rails* run side by side, each a chain of devices from its first layer
//! to its last. A chain of single devices is a row of blocks of one rail, disjoint pipelines are one block of many rails,
//! and a crowd of devices is a block for each layer. Blocks lie in sites, sites follow one another in some order, and only
//! between two sites do ways bind here; what a plan really carries is replayed by whoever asks.
//!
//! The rate of such a plan is that of its weakest block. Moves exchange devices, layers and whole rails between two blocks
//! at a time; the sum over layers of the squared share by which a block falls short of a target is what they are judged
//! by. The draws come from one seeded generator and their number is given, so that the same problem gives the same plan.

use super::clip::Span;
use super::random::Random;
use crate::budget::Budget;

/// Rise of the shortfall that annealing takes at most when it begins, from a rough start.
const HOT: f64 = 3e-3;
/// The same when it ends.
const COLD: f64 = 3e-8;
/// What a border between sites weighs, in layers.
const BORDER: f64 = 4.0;
/// Moves between two looks at the clock.
const LOOK: u64 = 1024;
/// Most rails of a block.
const RAILS_MAX: usize = 96;

/// Devices that are alike in kind and site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Type {
    /// Position of the site.
    pub site: usize,
    /// Kind of the device.
    pub kind: usize,
    /// How many there are.
    pub count: usize,
}

/// Devices of several sites and what joins them.
pub(crate) struct Yard {
    /// Layers of the model.
    pub layers: usize,
    /// The devices.
    pub types: Vec<Type>,
    /// Number of sites.
    pub sites: usize,
    /// Rate of the way between two devices of two sites.
    pub between: Vec<Vec<f64>>,
    /// Rate of everything between two sites.
    pub trunk: Vec<Vec<f64>>,
    /// Distinct rates, greatest first.
    rates: Vec<f64>,
    /// Layers held by type and position of the rate: in the middle, with the first layer, the last, both.
    holds: [Vec<u16>; 4],
    /// Whether the ends of the model cost more than its middle.
    ends: bool,
}

impl Yard {
    /// Devices that may hold layers as `spans` say by kind.
    pub fn new(
        layers: usize,
        types: Vec<Type>,
        spans: &[Vec<Span>],
        between: Vec<Vec<f64>>,
        trunk: Vec<Vec<f64>>,
    ) -> Self {
        let of_types = |t: &Type| spans[t.kind].iter();
        let mut rates: Vec<f64> = types.iter().flat_map(of_types).map(|span| span.rate).collect();
        rates.sort_by(|a, b| b.total_cmp(a));
        rates.dedup();
        let table = |flag: usize| {
            let mut table = Vec::with_capacity(types.len() * rates.len());
            for t in &types {
                // Whoever holds more of the model's ends holds as much of its middle at least as fast.
                let fits = |span: &&Span| {
                    let ends = usize::from(span.first) + 2 * usize::from(span.last);
                    ends & flag == flag
                };
                let mut most = vec![0.0_f64; layers + 1];
                spans[t.kind].iter().filter(fits).for_each(|s| most[s.held] = most[s.held].max(s.rate));
                for k in (1..layers).rev() {
                    most[k] = most[k].max(most[k + 1]);
                }
                let mut held = 0;
                for &rate in &rates {
                    while held < layers && most[held + 1] >= rate {
                        held += 1;
                    }
                    table.push(held as u16);
                }
            }
            table
        };
        let holds = [table(0), table(1), table(2), table(3)];
        let ends = holds[1..].iter().any(|table| *table != holds[0]);
        let sites = between.len();
        Self { layers, types, sites, between, trunk, rates, holds, ends }
    }

    fn held(&self, flag: usize, t: u16, rate: usize) -> usize {
        self.holds[flag][t as usize * self.rates.len() + rate] as usize
    }

    /// Rate of a chain of devices that holds so many layers, with these ends of the model among them.
    fn rail(&self, types: &[u16], layers: usize, flag: usize) -> f64 {
        let (mut low, mut high) = (0, self.rates.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.hold(types, flag, middle) >= layers as isize { high = middle } else { low = middle + 1 }
        }
        self.rates.get(low).copied().unwrap_or(0.0)
    }

    fn hold(&self, types: &[u16], flag: usize, rate: usize) -> isize {
        let mut held: isize = types.iter().map(|&t| self.held(0, t, rate) as isize).sum();
        if flag != 0 && self.ends {
            if let [only] = types {
                return self.held(flag, *only, rate) as isize;
            }
            for end in [1, 2].into_iter().filter(|end| flag & end != 0) {
                let loss = |&t: &u16| self.held(end, t, rate) as isize - self.held(0, t, rate) as isize;
                held += types.iter().map(loss).max().unwrap_or(0);
            }
        }
        held
    }

    /// What rails of one site hand over to rails of another: the least cut of the complete bipartite network between them.
    fn border(&self, from: &Block, to: &Block) -> f64 {
        let (way, trunk) = (self.between[from.site][to.site], self.trunk[from.site][to.site]);
        let mut left: Vec<f64> = from.rails.iter().map(|rail| rail.rate).collect();
        left.sort_by(|a, b| b.total_cmp(a));
        let mut rest: f64 = left.iter().sum();
        let mut least = rest;
        for (i, rate) in left.iter().enumerate() {
            rest -= rate;
            let ways = (i + 1) as f64 * way;
            least = least.min(rest + to.rails.iter().map(|rail| rail.rate.min(ways)).sum::<f64>());
        }
        least.min(trunk)
    }
}

/// A chain of devices, by type.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Rail {
    /// The devices; their order is open.
    pub types: Vec<u16>,
    /// Its rate.
    pub rate: f64,
}

/// Some layers and the rails that hold them.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Block {
    /// Where its devices are.
    pub site: usize,
    /// Number of layers; none where the place is empty.
    pub layers: usize,
    /// The rails.
    pub rails: Vec<Rail>,
    /// Sum of the rates of the rails.
    pub flow: f64,
}

/// A plan of blocks.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// Blocks, in no order; those of no layers are empty places.
    blocks: Vec<Block>,
    /// Devices left over, by site.
    free: Vec<Vec<u16>>,
    /// The sites, as requests pass them.
    order: Vec<usize>,
    /// Its first and its last block, by site.
    doors: Vec<(usize, usize)>,
}

impl State {
    /// The blocks in the order in which requests pass them.
    pub fn in_order(&self) -> Vec<&Block> {
        let mut passed = Vec::new();
        for &site in &self.order {
            let (first, last) = self.doors[site];
            let inner = (0..self.blocks.len())
                .filter(|&b| self.blocks[b].layers > 0 && self.blocks[b].site == site && b != first && b != last);
            passed.push(first);
            passed.extend(inner);
            if last != first {
                passed.push(last);
            }
        }
        passed.into_iter().map(|b| &self.blocks[b]).collect()
    }

    /// Whether it passes just these sites, which are sorted.
    pub fn passes(&self, sites: &[usize]) -> bool {
        let mut passed = self.order.clone();
        passed.sort_unstable();
        passed == sites
    }

    fn flag(&self, block: usize) -> usize {
        let (begin, end) = (self.order[0], self.order[self.order.len() - 1]);
        usize::from(self.doors[begin].0 == block) + 2 * usize::from(self.doors[end].1 == block)
    }

    fn live(&self, site: usize) -> impl Iterator<Item = usize> {
        (0..self.blocks.len()).filter(move |&b| self.blocks[b].layers > 0 && self.blocks[b].site == site)
    }

    fn borders(&self) -> impl Iterator<Item = (usize, usize)> {
        self.order.windows(2).map(|pair| (self.doors[pair[0]].1, self.doors[pair[1]].0))
    }

    fn refresh(&mut self, yard: &Yard, block: usize) {
        let flag = self.flag(block);
        let block = &mut self.blocks[block];
        block.rails.retain(|rail| !rail.types.is_empty());
        let layers = block.layers;
        block.rails.iter_mut().for_each(|rail| rail.rate = yard.rail(&rail.types, layers, flag));
        block.flow = block.rails.iter().map(|rail| rail.rate).sum();
    }

    fn refresh_all(&mut self, yard: &Yard) {
        (0..self.blocks.len()).filter(|&b| self.blocks[b].layers > 0).collect::<Vec<_>>().into_iter().for_each(|b| {
            self.refresh(yard, b);
        });
    }

    /// Rate of the weakest block or border.
    pub fn rate(&self, yard: &Yard) -> f64 {
        let blocks = self.blocks.iter().filter(|block| block.layers > 0).map(|block| block.flow);
        let borders = self.borders().map(|(a, b)| yard.border(&self.blocks[a], &self.blocks[b]));
        blocks.chain(borders).fold(f64::INFINITY, f64::min)
    }

    fn short(&self, yard: &Yard, target: f64) -> f64 {
        let share = |flow: f64| {
            let short = (target - flow).max(0.0) / target;
            short * short
        };
        let blocks = self.blocks.iter().map(|block| block.layers as f64 * share(block.flow));
        let borders = self.borders().map(|(a, b)| BORDER * share(yard.border(&self.blocks[a], &self.blocks[b])));
        blocks.chain(borders).sum()
    }

    /// A start: blocks of about `length` layers, each device where least is had, sites in this order.
    pub fn spread(yard: &Yard, order: &[usize], length: usize) -> Option<Self> {
        let worth = |t: &Type, at: usize| {
            let t = yard.types.iter().position(|other| other == t).unwrap_or(0) as u16;
            yard.rail(&[t], at, 0)
        };
        // Layers by site, in proportion to what its devices carry.
        let power: Vec<f64> = order
            .iter()
            .map(|&site| {
                let here = yard.types.iter().filter(|t| t.site == site);
                here.map(|t| {
                    let best = (1..=yard.layers)
                        .map(|k| k as f64 * worth(t, k).min(worth(t, length.min(k))))
                        .fold(0.0, f64::max);
                    best * t.count as f64
                })
                .sum()
            })
            .collect();
        let whole: f64 = power.iter().sum();
        let (mut left, mut rest) = (yard.layers, whole);
        let mut state = Self {
            blocks: Vec::new(),
            free: vec![Vec::new(); yard.sites],
            order: order.to_vec(),
            doors: vec![(0, 0); yard.sites],
        };
        for (i, (&site, power)) in order.iter().zip(&power).enumerate() {
            let after = order.len() - i - 1;
            if left <= after || rest <= 0.0 {
                return None;
            }
            let share = ((left as f64 * power / rest).round() as usize).clamp(1, left - after);
            let share = if after == 0 { left } else { share };
            (left, rest) = (left - share, rest - power);
            let count = share.div_ceil(length);
            let first = state.blocks.len();
            for b in 0..count {
                let layers = share * (b + 1) / count - share * b / count;
                state.blocks.push(Block { site, layers, ..Block::default() });
            }
            state.doors[site] = (first, state.blocks.len() - 1);
            state.fill(yard, site);
        }
        state.refresh_all(yard);
        Some(state)
    }

    /// Gives every device of a site to the block that has least.
    fn fill(&mut self, yard: &Yard, site: usize) {
        let blocks: Vec<usize> = self.live(site).collect();
        let mut waiting: Vec<u16> = Vec::new();
        for (t, of) in yard.types.iter().enumerate().filter(|(_, of)| of.site == site) {
            waiting.extend(std::iter::repeat_n(t as u16, of.count));
        }
        let length = self.blocks[blocks[0]].layers;
        let alone = |t: u16| yard.rail(&[t], length, 0);
        let first = |t: u16| yard.rail(&[t], 1, 0);
        waiting.sort_by(|&a, &b| alone(b).total_cmp(&alone(a)).then(first(b).total_cmp(&first(a))).then(a.cmp(&b)));
        // Chains under way by block: those who cannot hold a block alone join one until it is held.
        let mut open: Vec<Option<usize>> = vec![None; self.blocks.len()];
        for t in waiting {
            let least = blocks.iter().copied().min_by(|&a, &b| {
                let flow = |b: usize| self.blocks[b].flow + open[b].map_or(0.0, |_| 1e-3);
                flow(a).total_cmp(&flow(b))
            });
            let Some(b) = blocks.iter().copied().find(|&b| open[b].is_some()).or(least) else { return };
            let rail = open[b].unwrap_or_else(|| {
                self.blocks[b].rails.push(Rail::default());
                self.blocks[b].rails.len() - 1
            });
            self.blocks[b].rails[rail].types.push(t);
            let rate = yard.rail(&self.blocks[b].rails[rail].types, self.blocks[b].layers, 0);
            // A chain that is much slower than its devices could be waits for more of them.
            open[b] = (rate <= 0.0).then_some(rail);
            self.blocks[b].rails[rail].rate = rate;
            self.blocks[b].flow = self.blocks[b].rails.iter().map(|rail| rail.rate).sum();
        }
    }

    /// A start from blocks in the order of passing; none where they use more devices than there are.
    pub fn of(yard: &Yard, blocks: Vec<Block>) -> Option<Self> {
        let mut left: Vec<usize> = yard.types.iter().map(|t| t.count).collect();
        for &t in blocks.iter().flat_map(|block| &block.rails).flat_map(|rail| &rail.types) {
            left[t as usize] = left[t as usize].checked_sub(1)?;
        }
        let mut order: Vec<usize> = Vec::new();
        let mut doors = vec![(0, 0); yard.sites];
        for (b, block) in blocks.iter().enumerate() {
            if order.last() == Some(&block.site) {
                doors[block.site].1 = b;
            } else if order.contains(&block.site) {
                return None;
            } else {
                order.push(block.site);
                doors[block.site] = (b, b);
            }
        }
        let mut free = vec![Vec::new(); yard.sites];
        for (t, &count) in left.iter().enumerate() {
            free[yard.types[t].site].extend(std::iter::repeat_n(t as u16, count));
        }
        let whole = blocks.iter().map(|block| block.layers).sum::<usize>() == yard.layers;
        let mut state = Self { blocks, free, order, doors };
        state.refresh_all(yard);
        (whole && !state.order.is_empty()).then_some(state)
    }
}

/// A place in a block: a rail and a device of it.
type Spot = (usize, usize);

/// The search.
pub(crate) struct Annealing<'a> {
    yard: &'a Yard,
    state: State,
    random: Random,
    /// What was touched, as it was before.
    before: Vec<(usize, Block)>,
    touched_free: Option<(usize, Vec<u16>)>,
    touched_doors: Option<(Vec<usize>, Vec<(usize, usize)>)>,
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
            if step % LOOK == 0 {
                if best.0 >= target || budget.exhausted().is_some() {
                    break;
                }
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
        let share = |flow: f64| {
            let short = (target - flow).max(0.0) / target;
            short * short
        };
        let roles =
            |state: &State, b: usize| state.order.iter().any(|&s| state.doors[s].0 == b || state.doors[s].1 == b);
        let whole = self.touched_doors.is_some()
            || (self.state.order.len() > 1 && self.before.iter().any(|(b, _)| roles(&self.state, *b)));
        let mut sum = now;
        for i in 0..self.before.len() {
            let b = self.before[i].0;
            let old = &self.before[i].1;
            sum -= old.layers as f64 * share(old.flow);
            self.state.refresh(yard, b);
            let new = &self.state.blocks[b];
            sum += new.layers as f64 * share(new.flow);
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
            10..=11 => self.transfer(site) && self.shift(),
            12 => self.from_free(site),
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
        let (from, to) = (self.pick(near, true), self.pick(far, false));
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

    fn from_free(&mut self, site: usize) -> bool {
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
