//! Plans of blocks and rails.
//!
//! The layers are divided into *blocks*; in a block, *rails* run side by side, each a chain of devices from its first layer
//! to its last. A chain of single devices is a row of blocks of one rail, disjoint pipelines are one block of many rails,
//! and a crowd of devices is a block for each layer. Blocks lie in sites, sites follow one another in some order, and only
//! between two sites do ways bind here; what a plan really carries is replayed by whoever asks.

use super::clip::Span;

/// What a border between sites weighs, in layers.
const BORDER: f64 = 4.0;

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
    /// Rate by type and number of layers.
    exact: Vec<Vec<f64>>,
    /// Layers held by type and position of the rate: in the middle, with the first layer, the last, both.
    holds: [Vec<u16>; 4],
    /// Whether the ends of the model cost more than its middle.
    pub(super) ends: bool,
}

/// Share of a target that is lacking, squared.
pub(super) fn lacking(rate: f64, target: f64) -> f64 {
    let short = (target - rate).max(0.0) / target;
    short * short
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
        let of_type = |t: &Type| {
            let mut exact = vec![0.0_f64; layers + 1];
            spans[t.kind].iter().for_each(|s| exact[s.held] = exact[s.held].max(s.rate));
            exact
        };
        let exact = types.iter().map(of_type).collect();
        Self { layers, types, sites, between, trunk, rates, exact, holds, ends }
    }

    /// Rate of a device of a type with so many layers of the model's middle.
    pub(super) fn rate_of(&self, t: usize, held: usize) -> f64 {
        self.exact[t][held]
    }

    fn held(&self, flag: usize, t: u16, rate: usize) -> usize {
        self.holds[flag][t as usize * self.rates.len() + rate] as usize
    }

    /// Rate of a chain of devices that holds so many layers, with these ends of the model among them.
    pub(super) fn rail(&self, types: &[u16], layers: usize, flag: usize) -> f64 {
        let (mut low, mut high) = (0, self.rates.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.hold(types, flag, middle) >= layers as isize { high = middle } else { low = middle + 1 }
        }
        self.rates.get(low).copied().unwrap_or(0.0)
    }

    /// The same in the model's middle, where a device with fewer layers may be slower: each holds what it has at its
    /// own rate.
    pub(super) fn rail_of(&self, types: &[u16], layers: usize) -> f64 {
        if let [only] = types {
            return self.exact[*only as usize][layers];
        }
        if let [a, b] = types {
            let (a, b) = (&self.exact[*a as usize], &self.exact[*b as usize]);
            let both = (1..layers).map(|held| a[held].min(b[layers - held]));
            return both.fold(a[layers].max(b[layers]), f64::max);
        }
        // By layers: the best of the devices so far, some of which may be left out.
        let mut best = vec![0.0_f64; layers + 1];
        best[0] = f64::INFINITY;
        for &t in types {
            let exact = &self.exact[t as usize];
            for all in (1..=layers).rev() {
                let with = (1..=all).map(|held| best[all - held].min(exact[held]));
                best[all] = with.fold(best[all], f64::max);
            }
        }
        best[layers]
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
        let rates = |block: &Block| block.rails.iter().map(|rail| rail.rate).collect::<Vec<f64>>();
        let way = self.between[from.site][to.site];
        handed(&rates(from), &rates(to), way).min(self.trunk[from.site][to.site])
    }
}

/// What some rails hand over to others where each pair of devices has a way of this rate: the least cut of the complete
/// bipartite network between them. Of any number of rails on the near side of a cut, the fastest are cut off last.
pub(crate) fn handed(from: &[f64], to: &[f64], way: f64) -> f64 {
    let mut left = from.to_vec();
    left.sort_by(|a, b| b.total_cmp(a));
    let mut rest: f64 = left.iter().sum();
    let mut least = rest;
    for (i, rate) in left.iter().enumerate() {
        rest -= rate;
        let ways = (i + 1) as f64 * way;
        least = least.min(rest + to.iter().map(|rate| rate.min(ways)).sum::<f64>());
    }
    least
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
    pub(super) blocks: Vec<Block>,
    /// Devices left over, by site.
    pub(super) free: Vec<Vec<u16>>,
    /// The sites, as requests pass them.
    pub(super) order: Vec<usize>,
    /// Its first and its last block, by site.
    pub(super) doors: Vec<(usize, usize)>,
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

    pub(super) fn flag(&self, block: usize) -> usize {
        let (begin, end) = (self.order[0], self.order[self.order.len() - 1]);
        usize::from(self.doors[begin].0 == block) + 2 * usize::from(self.doors[end].1 == block)
    }

    pub(super) fn live(&self, site: usize) -> impl Iterator<Item = usize> {
        (0..self.blocks.len()).filter(move |&b| self.blocks[b].layers > 0 && self.blocks[b].site == site)
    }

    pub(super) fn borders(&self) -> impl Iterator<Item = (usize, usize)> {
        self.order.windows(2).map(|pair| (self.doors[pair[0]].1, self.doors[pair[1]].0))
    }

    pub(super) fn refresh(&mut self, yard: &Yard, block: usize) {
        let flag = self.flag(block);
        let block = &mut self.blocks[block];
        block.rails.retain(|rail| !rail.types.is_empty());
        let layers = block.layers;
        block.rails.iter_mut().for_each(|rail| rail.rate = yard.rail(&rail.types, layers, flag));
        block.flow = block.rails.iter().map(|rail| rail.rate).sum();
    }

    pub(super) fn refresh_all(&mut self, yard: &Yard) {
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

    pub(super) fn short(&self, yard: &Yard, target: f64) -> f64 {
        let blocks = self.blocks.iter().map(|block| block.layers as f64 * lacking(block.flow, target));
        let border = |(a, b): (usize, usize)| yard.border(&self.blocks[a], &self.blocks[b]);
        let borders = self.borders().map(|border_of| BORDER * lacking(border(border_of), target));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_way_for_each_pair_needs_two_takers() {
        assert_eq!(handed(&[10.0], &[10.0], 5.0), 5.0);
        assert_eq!(handed(&[10.0], &[5.0, 5.0], 5.0), 10.0);
        assert_eq!(handed(&[6.0, 4.0], &[7.0, 3.0], 5.0), 10.0);
        assert_eq!(handed(&[10.0], &[7.0, 3.0], 5.0), 8.0);
        assert_eq!(handed(&[10.0], &[10.0], f64::INFINITY), 10.0);
    }

    #[test]
    fn a_rail_carries_what_the_best_way_to_deal_out_its_layers_does_where_fewer_may_be_slower() {
        // The second kind is slower with two layers than with three.
        let kinds = [[9.0, 4.0, 3.0], [8.0, 2.0, 5.0]];
        let ends = [(false, false), (true, false), (false, true), (true, true)];
        let spans: Vec<Vec<Span>> = kinds
            .iter()
            .map(|rates| {
                let of = |(i, &rate): (usize, &f64)| ends.map(|(first, last)| Span { held: i + 1, first, last, rate });
                rates.iter().enumerate().flat_map(of).collect()
            })
            .collect();
        let types = (0..2).map(|kind| Type { site: 0, kind, count: 9 }).collect();
        let yard = Yard::new(9, types, &spans, vec![vec![f64::INFINITY]], vec![vec![f64::INFINITY]]);
        fn dealt(kinds: &[[f64; 3]; 2], types: &[u16], layers: usize) -> f64 {
            let Some((&t, rest)) = types.split_first() else { return if layers == 0 { f64::INFINITY } else { 0.0 } };
            let rates = kinds[t as usize].iter().enumerate().filter(|(i, _)| *i < layers);
            let with = rates.map(|(i, rate)| rate.min(dealt(kinds, rest, layers - i - 1)));
            with.fold(dealt(kinds, rest, layers), f64::max)
        }
        for types in [&[0][..], &[1], &[0, 1], &[1, 1], &[0, 0, 1], &[1, 1, 1]] {
            for layers in 1..=9 {
                assert_eq!(yard.rail_of(types, layers), dealt(&kinds, types, layers), "{types:?} {layers}");
            }
        }
    }
}
