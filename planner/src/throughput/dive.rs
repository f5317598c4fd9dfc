//! Plans of blocks by column generation and diving.
//!
//! A *block* holds some layers of the model at the rate asked for, by devices of one site joined as a [piece](Piece); a
//! plan is blocks one after the other, site by site. Master program: how often each block is used, within the devices
//! there are, for the most layers. At its duals, the cheapest block of every length is made by a table. Blocks have
//! whole devices and whole layers, so little is lost when the master's answer is rounded: the block that it uses most
//! is taken, what is left is solved again, until all layers are held or it is seen that they will not be. Draws tell
//! ties apart; many dives are made, each at a rate a little above the best plan or, where that fails, nearer to it.
//!
//! Where ways between sites are slow, the last block of a site and the first of the next are *doors*: their ends pass
//! so little each that every pair of devices, by a way of rate `w`, hands over its share: ends of rates `x` and `y`
//! share `x y / F`, which is at most `w` where neither exceeds the root of `w F`. Instead of two such doors there may be one
//! block of both sites, in which rails of the one stand beside rails of the other: requests cross before it or after it. Its
//! rails pass at most `w` each, so that whatever is before and after may be a single device. So no site has to hold a whole
//! number of layers.

use super::Flows;
use super::blocks::{Type, Yard};
use super::clip::Span;
use super::groups;
use super::profiles::placed;
use super::random::Random;
use super::replay::Carried;
use super::series::{Holds, PARTS, Piece, Series};
use super::sites::Sites;
use crate::budget::Budget;
use crate::formulation::program::{Program, Relation};
use crate::formulation::solve::{SolverFault, Verdict, solve};
use crate::latency::chains::Link;

/// Most layers of a block.
const BLOCK_MAX: usize = 24;
/// The same where there are very many devices.
const BLOCK_MIN: usize = 6;
/// Most layers of a block of two sites.
const BOTH_MAX: usize = 8;
/// Rounds of pricing before the first block is taken, where nothing is known yet.
pub(super) const ROUNDS_FIRST: usize = 6;
/// The same where other dives at the rate have been made.
pub(super) const ROUNDS_AGAIN: usize = 1;
/// Dives at a rate before it is given up.
const TRIES: usize = 4;
/// Layers short of all at which a dive is given up.
pub(super) const SHORT: f64 = 3.5;
/// Most by which a column's price may exceed its layers, as a share, for it to be kept: dives have use for near misses.
pub(super) const KEPT: f64 = 0.02;
/// Share by which duals are shaken to make other blocks.
pub(super) const SHAKEN: f64 = 0.3;
/// Relative distance of rates at which halving ends.
pub(super) const NEAR: f64 = 3e-4;
/// How often blocks are made again because they ask for more devices than there are.
pub(super) const DEARER: usize = 2;
/// What a door is worth beyond its layers, so that none is forgone.
const DOOR_WORTH: f64 = 100.0;
/// Nodes of the budget for each dive.
const NODES_DIVE: u64 = 400;

/// Intervals: type of the device, first layer, end.
pub(super) type Laid = Vec<(usize, usize, usize)>;

/// Which ends of a site a block is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Inner,
    /// The first block of the site.
    In,
    /// The last block of the site.
    Out,
    /// The last block of the site and the first of the next in one: both sites have rails in it.
    Both,
}

#[derive(Debug, Clone, PartialEq)]
struct Column {
    /// Position in the order of the sites.
    place: usize,
    door: Door,
    layers: usize,
    /// Devices by type.
    counts: Vec<u16>,
    piece: Piece,
}

impl Column {
    /// The doors that it is.
    fn doors(&self) -> Vec<(usize, Door)> {
        match self.door {
            Door::Inner => Vec::new(),
            Door::In | Door::Out => vec![(self.place, self.door)],
            Door::Both => vec![(self.place, Door::Out), (self.place + 1, Door::In)],
        }
    }
}

/// Most layers of a block of a yard.
pub(super) fn longest_block(yard: &Yard) -> usize {
    let devices: usize = yard.types.iter().map(|t| t.count).sum();
    (BLOCK_MAX * yard.layers / devices.max(1)).clamp(BLOCK_MIN, BLOCK_MAX)
}

/// Prices of which each is moved by up to half of a share, to make other blocks.
pub(super) fn shaken(prices: &[f64], much: f64, random: &mut Random) -> Vec<f64> {
    prices.iter().map(|price| price * (1.0 + much * (random.real() - 0.5))).collect()
}

/// Sites in the order in which they are passed, and what an end of a door may pass, in parts of the rate.
struct Row<'a> {
    yard: &'a Yard,
    order: &'a [usize],
    /// Before each place but the first.
    ends: Vec<usize>,
    /// What the slowest way passes there, in parts of the rate.
    ways: Vec<usize>,
    holds: Holds,
    /// Most layers of a block: the more devices there are, the fewer.
    longest: usize,
}

impl<'a> Row<'a> {
    fn new(yard: &'a Yard, order: &'a [usize], rate: f64) -> Option<Self> {
        let end = |pair: &[usize]| {
            let (way, trunk) = (yard.between[pair[0]][pair[1]], yard.trunk[pair[0]][pair[1]]);
            let parts = ((way / rate).min(1.0).sqrt() * PARTS as f64).floor() as usize;
            (trunk >= rate && parts > 0).then_some(parts)
        };
        let ends = order.windows(2).map(end).collect::<Option<Vec<usize>>>()?;
        let way = |pair: &[usize]| ((yard.between[pair[0]][pair[1]] / rate).min(1.0) * PARTS as f64).floor() as usize;
        let ways = order.windows(2).map(way).collect();
        let longest = longest_block(yard);
        Some(Self { yard, order, ends, ways, holds: Holds::new(yard, rate, PARTS), longest })
    }

    /// What an end may pass at a door of a place; none where there is no such door.
    fn most(&self, place: usize, door: Door) -> Option<usize> {
        match door {
            Door::Inner => Some(PARTS),
            Door::In => place.checked_sub(1).and_then(|before| self.ends.get(before)).copied(),
            Door::Out => self.ends.get(place).copied(),
            Door::Both => self.ways.get(place).copied(),
        }
    }

    fn types(&self) -> &[Type] {
        &self.yard.types
    }
}

/// A dive and the blocks that were made for it and those before it.
struct Dive<'a> {
    row: &'a Row<'a>,
    columns: Vec<Column>,
    free: Vec<u16>,
    left: usize,
    /// Doors not yet made.
    doors: Vec<(usize, Door)>,
    taken: Vec<usize>,
}

/// What the master says: its value, how often each column is used, and the duals of types and doors.
struct Master {
    value: f64,
    used: Vec<(usize, f64)>,
    types: Vec<f64>,
}

impl Dive<'_> {
    fn fits(&self, column: &Column) -> bool {
        column.layers <= self.left
            && column.counts.iter().zip(&self.free).all(|(used, free)| used <= free)
            && column.doors().iter().all(|door| self.doors.contains(door))
    }

    fn master(&self, budget: &Budget<'_>) -> Result<Option<Master>, SolverFault> {
        let mut program = Program { maximise: true, ..Program::default() };
        let open: Vec<usize> = (0..self.columns.len()).filter(|&c| self.fits(&self.columns[c])).collect();
        let mut devices = vec![Vec::new(); self.free.len()];
        let mut doors = vec![Vec::new(); self.doors.len()];
        for &c in &open {
            let column = &self.columns[c];
            let worth = DOOR_WORTH * column.doors().len() as f64;
            let x = program.column(column.layers as f64 + worth, 0.0, f64::INFINITY, false);
            for (t, &used) in column.counts.iter().enumerate().filter(|(_, used)| **used > 0) {
                devices[t].push((x, f64::from(used)));
            }
            for (door, terms) in self.doors.iter().zip(&mut doors) {
                if column.doors().contains(door) {
                    terms.push((x, 1.0));
                }
            }
        }
        for (terms, &free) in devices.into_iter().zip(&self.free) {
            program.row(terms, Relation::AtMost, f64::from(free));
        }
        for terms in doors {
            program.row(terms, Relation::AtMost, 1.0);
        }
        let answer = solve(&program, None, 0.0, &Budget { progress: None, ..*budget })?;
        let Some(at) = answer.assignment.filter(|_| answer.verdict == Verdict::Optimal) else { return Ok(None) };
        Ok(Some(Master {
            value: open.iter().zip(&at).map(|(&c, x)| self.columns[c].layers as f64 * x).sum(),
            used: open.into_iter().zip(at).filter(|(_, x)| *x > 1e-6).collect(),
            types: answer.duals[..self.free.len()].iter().map(|dual| dual.max(0.0)).collect(),
        }))
    }

    /// Makes the cheapest blocks at some prices of types, and keeps those that are of use at others; whether there are
    /// new ones. Only at one place where one is named.
    fn make(&mut self, prices: &[f64], duals: &[f64], only: Option<usize>) -> bool {
        let before = self.columns.len();
        let row = self.row;
        for (place, &site) in row.order.iter().enumerate().filter(|(place, _)| only.is_none_or(|only| only == *place)) {
            let here = self.row.types().iter().zip(&self.free).zip(prices);
            let price = |((t, free), price): ((&Type, &u16), &f64)| (t.site == site && *free > 0).then_some(*price);
            let mut prices: Vec<Option<f64>> = here.map(price).collect();
            // A block may ask for more of a type than there are: those become dearer, and it is made again.
            for _ in 0..=DEARER {
                let wanted = self.make_at(place, &prices, duals);
                if wanted.iter().all(|wanted| !wanted) {
                    break;
                }
                let dearer = |(price, wanted): (&mut Option<f64>, bool)| {
                    *price = price.map(|price| if wanted { price * 1.5 + 0.01 } else { price });
                };
                prices.iter_mut().zip(wanted).for_each(dearer);
            }
        }
        for place in 0..row.ways.len() {
            if only.is_none_or(|only| only == place || only == place + 1) {
                self.make_both(place, prices, duals);
            }
        }
        self.columns.len() > before
    }

    /// Makes blocks of the site at a place and the next.
    fn make_both(&mut self, place: usize, prices: &[f64], duals: &[f64]) {
        let row = self.row;
        let doors = [(place, Door::Out), (place + 1, Door::In)];
        let Some(most) = row.most(place, Door::Both).filter(|&most| most > 0) else { return };
        if !doors.iter().all(|door| self.doors.contains(door)) {
            return;
        }
        let of_site = |site: usize| -> Vec<Option<f64>> {
            let here = row.types().iter().zip(&self.free).zip(prices);
            here.map(|((t, free), price)| (t.site == site && *free > 0).then_some(*price)).collect()
        };
        let longest = self.left.min(row.longest).div_ceil(2).min(BOTH_MAX);
        let [first, second] =
            [row.order[place], row.order[place + 1]].map(|site| Series::new(&row.holds, &of_site(site), longest));
        for layers in 1..=longest {
            let (Some(a), Some(b)) = (first.rails(layers, most), second.rails(layers, most)) else { continue };
            let Some((x, _)) = a.shared(&b) else { continue };
            let (Some(a), Some(b)) = (a.made(x), b.made(PARTS - x)) else { continue };
            let piece = Piece::Beside(Box::new(a), Box::new(b));
            let mut counts = vec![0; self.free.len()];
            piece.count(&mut counts);
            let cost: f64 = counts.iter().zip(duals).map(|(&n, dual)| f64::from(n) * dual).sum();
            if cost < layers as f64 * (1.0 + KEPT) + 4.0 {
                self.keep(Column { place, door: Door::Both, layers, counts, piece });
            }
        }
    }

    /// Keeps a block that is of use and not known.
    fn keep(&mut self, column: Column) {
        let known = |c: &Column| {
            (c.place, c.door, c.layers) == (column.place, column.door, column.layers) && c.counts == column.counts
        };
        if self.fits(&column) && !self.columns.iter().any(known) {
            self.columns.push(column);
        }
    }

    /// The same at one place; the types of which blocks would have had more than there are.
    fn make_at(&mut self, place: usize, prices: &[Option<f64>], duals: &[f64]) -> Vec<bool> {
        let row = self.row;
        let longest = self.left.min(row.longest);
        let series = Series::new(&row.holds, prices, longest);
        let mut wanted = vec![false; self.free.len()];
        for door in [Door::Inner, Door::In, Door::Out] {
            if door != Door::Inner && !self.doors.contains(&(place, door)) {
                continue;
            }
            let Some(most) = row.most(place, door) else { continue };
            let longest = if door == Door::Inner { longest } else { longest.div_ceil(2) };
            for layers in 1..=longest {
                let Some(piece) = series.piece(layers, most) else { continue };
                let mut counts = vec![0; self.free.len()];
                piece.count(&mut counts);
                let cost: f64 = counts.iter().zip(duals).map(|(&n, dual)| f64::from(n) * dual).sum();
                let column = Column { place, door, layers, counts, piece };
                let worth = layers as f64 * (1.0 + KEPT) + if door == Door::Inner { 0.0 } else { 2.0 };
                if cost >= worth {
                    continue;
                }
                let over = column.counts.iter().zip(&self.free).map(|(used, free)| used > free);
                wanted.iter_mut().zip(over).for_each(|(wanted, over)| *wanted |= over);
                self.keep(column);
            }
        }
        wanted
    }

    /// The master with blocks that were made at its duals, again and again.
    fn priced(
        &mut self,
        rounds: usize,
        random: &mut Random,
        budget: &Budget<'_>,
    ) -> Result<Option<Master>, SolverFault> {
        let mut master = self.master(budget)?;
        for _ in 0..rounds {
            let Some(found) = master.as_ref().filter(|_| budget.exhausted().is_none()) else { return Ok(None) };
            let (duals, shaken) = (found.types.clone(), shaken(&found.types, SHAKEN, random));
            let new = self.make(&duals, &duals, None);
            if !(self.make(&shaken, &duals, None) || new) {
                break;
            }
            master = self.master(budget)?;
        }
        Ok(master)
    }

    /// The master with blocks that were made at its shaken duals for one place.
    fn again(&mut self, place: usize, random: &mut Random, budget: &Budget<'_>) -> Result<Option<Master>, SolverFault> {
        let master = self.master(budget)?;
        let Some(found) = master.as_ref().filter(|found| found.value >= self.left as f64 - SHORT) else {
            return Ok(master);
        };
        let (duals, shaken) = (found.types.clone(), shaken(&found.types, SHAKEN, random));
        if self.make(&shaken, &duals, Some(place)) { self.master(budget) } else { Ok(master) }
    }

    /// Takes blocks until all layers are held; whether they are.
    fn run(&mut self, rounds: usize, random: &mut Random, budget: &Budget<'_>) -> Result<bool, SolverFault> {
        let mut master = self.priced(rounds, random, budget)?;
        while self.left > 0 {
            let Some(found) = &master else { return Ok(false) };
            if budget.exhausted().is_some() || found.value < self.left as f64 - SHORT {
                return Ok(false);
            }
            // Doors first, while there is most to make them of.
            let score = |&(c, used): &(usize, f64), random: &mut Random| {
                let door = if self.columns[c].door == Door::Inner { 0.0 } else { 0.5 };
                (used.min(1.0) + 0.35 * random.real() + door, c, used)
            };
            let ranked = found.used.iter().map(|column| score(column, random));
            let Some((_, c, used)) = ranked.reduce(|a, b| if b.0 > a.0 { b } else { a }) else { return Ok(false) };
            for _ in 0..(used + 1e-6).floor().max(1.0) as usize {
                let column = self.columns[c].clone();
                if self.left == 0 || !self.fits(&column) {
                    break;
                }
                self.free.iter_mut().zip(&column.counts).for_each(|(free, used)| *free -= used);
                self.left -= column.layers;
                let made = column.doors();
                self.doors.retain(|door| !made.contains(door));
                self.taken.push(c);
            }
            let place = self.columns[c].place;
            master = if self.left > 0 { self.again(place, random, budget)? } else { None };
        }
        Ok(self.doors.is_empty())
    }

    /// The intervals of what was taken, by type.
    fn laid(&self) -> Laid {
        let (mut laid, mut start) = (Vec::new(), 0);
        for place in 0..self.row.order.len() {
            for door in [Door::In, Door::Inner, Door::Out, Door::Both] {
                let here = self.taken.iter().map(|&c| &self.columns[c]);
                for column in here.filter(|column| (column.place, column.door) == (place, door)) {
                    start = column.piece.lay(start, &mut |t, from, to| laid.push((t, from, to)));
                }
            }
        }
        laid
    }
}

/// A search for faster plans, which may go on where it ended.
pub(crate) struct Dives {
    sites: Sites,
    yard: Yard,
    orders: Vec<Vec<usize>>,
    random: Random,
    /// Rate that was missed last.
    high: f64,
}

impl Dives {
    /// Of a problem of which no plan is faster than `above`.
    pub fn new(flows: &Flows<'_>, spans: &[Vec<Span>], above: f64) -> Self {
        let sites = groups::sites(flows.network, above);
        let yard = groups::yard(flows, &sites, spans);
        let orders = orders(&yard);
        Self { sites, yard, orders, random: Random::new(29), high: above }
    }

    /// Number of sites that are told apart.
    pub const fn sites(&self) -> usize {
        self.yard.sites
    }

    /// The best plan faster than `rate` that so many dives find, no plan being faster than `above`.
    pub fn search(
        &mut self,
        flows: &Flows<'_>,
        rate: f64,
        above: f64,
        dives: u64,
        budget: &Budget<'_>,
    ) -> Result<Option<(Vec<Link>, Carried)>, SolverFault> {
        let (mut low, mut best) = (rate, None);
        self.high = self.high.min(above);
        let mut left = dives.min(budget.nodes_max / NODES_DIVE);
        while left > 0 && budget.exhausted().is_none() && low < above * (1.0 - NEAR) {
            if self.high - low <= NEAR * self.high {
                self.high = f64::midpoint(low, above);
            }
            let target = f64::midpoint(low, self.high);
            let (mut found, before) = (None, left);
            'orders: for at in 0..self.orders.len() {
                let order = self.orders[at].clone();
                let Some(row) = Row::new(&self.yard, &order, target) else { continue };
                let mut columns = Vec::new();
                for _ in 0..TRIES {
                    if left == 0 || budget.exhausted().is_some() {
                        break 'orders;
                    }
                    left -= 1;
                    let (laid, made) = dive(&row, columns, &mut self.random, budget)?;
                    columns = made;
                    let Some(placement) = laid.and_then(|laid| placed(flows, &self.yard, &self.sites, &laid)) else {
                        continue;
                    };
                    let carried = flows.carried(&placement)?;
                    if carried.rate > low {
                        found = Some((placement, carried));
                        // The order that has worked is tried first.
                        self.orders[..=at].rotate_right(1);
                        break 'orders;
                    }
                }
            }
            match found {
                Some((placement, carried)) => {
                    low = carried.rate;
                    best = Some((placement, carried));
                }
                None => self.high = target,
            }
            // A rate that no order of the sites passes counts as a dive: where there are only such, the search ends too.
            left -= u64::from(left == before);
        }
        Ok(best)
    }
}

/// The intervals of one dive, where it held all layers, and the columns made so far.
fn dive(
    row: &Row<'_>,
    columns: Vec<Column>,
    random: &mut Random,
    budget: &Budget<'_>,
) -> Result<(Option<Laid>, Vec<Column>), SolverFault> {
    let places = 0..row.order.len();
    let doors = places.flat_map(|place| [(place, Door::In), (place, Door::Out)]);
    let doors = doors.filter(|&(place, door)| row.most(place, door).is_some_and(|most| most < PARTS));
    let free = row.types().iter().map(|t| u16::try_from(t.count).unwrap_or(u16::MAX)).collect();
    let mut dive = Dive { row, columns, free, left: row.yard.layers, doors: doors.collect(), taken: Vec::new() };
    let rounds = if dive.columns.is_empty() { ROUNDS_FIRST } else { ROUNDS_AGAIN };
    if dive.columns.is_empty() {
        let (even, nothing) = (vec![1.0; dive.free.len()], vec![0.0; dive.free.len()]);
        dive.make(&even, &nothing, None);
    }
    let whole = dive.run(rounds, random, budget)?;
    let laid = whole.then(|| dive.laid());
    Ok((laid, dive.columns))
}

/// All orders of all sites; of an order and its reverse only one where ways are alike in both directions.
pub(super) fn every_order(yard: &Yard) -> Vec<Vec<usize>> {
    let even = (0..yard.sites).all(|a| (0..yard.sites).all(|b| yard.between[a][b] == yard.between[b][a]));
    let mut orders: Vec<Vec<usize>> = vec![Vec::new()];
    for _ in 0..yard.sites {
        let longer = |order: &Vec<usize>| -> Vec<Vec<usize>> {
            let next = (0..yard.sites).filter(|site| !order.contains(site));
            next.map(|site| [order.as_slice(), &[site]].concat()).collect()
        };
        orders = orders.iter().flat_map(longer).collect();
    }
    orders.retain(|order| !even || order.first() <= order.last());
    orders
}

/// Orders of all sites, those with the fastest slowest way first.
fn orders(yard: &Yard) -> Vec<Vec<usize>> {
    /// Most orders that are tried.
    const ORDERS_MAX: usize = 3;
    let mut orders = every_order(yard);
    let slowest = |order: &[usize]| {
        let way = |pair: &[usize]| yard.between[pair[0]][pair[1]].min(yard.trunk[pair[0]][pair[1]]);
        order.windows(2).map(way).fold(f64::INFINITY, f64::min)
    };
    orders.sort_by(|a, b| slowest(b).total_cmp(&slowest(a)).then(a.cmp(b)));
    orders.truncate(ORDERS_MAX);
    orders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yard(layers: usize, types: &[(usize, usize, usize)], way: f64) -> Yard {
        let types = types.iter().map(|&(site, kind, count)| Type { site, kind, count }).collect::<Vec<Type>>();
        let sites = types.iter().map(|t| t.site + 1).max().unwrap_or(1);
        let between = |a: usize| (0..sites).map(|b| if a == b { f64::INFINITY } else { way }).collect();
        let open = vec![vec![f64::INFINITY; sites]; sites];
        Yard::new(
            layers,
            types,
            &[Span::falling(12.0, 4), Span::falling(6.0, 4)],
            (0..sites).map(between).collect(),
            open,
        )
    }

    /// What one of ten dives at `rate` lays out; none where none does.
    fn dived(yard: &Yard, order: &[usize], rate: f64) -> Option<Laid> {
        let row = Row::new(yard, order, rate)?;
        let (mut columns, mut random) = (Vec::new(), Random::new(3));
        for _ in 0..10 {
            let (laid, made) = dive(&row, columns, &mut random, &Budget::default()).expect("the solver answers");
            if laid.is_some() {
                return laid;
            }
            columns = made;
        }
        None
    }

    #[test]
    fn a_dive_finds_the_one_division_that_wastes_nothing_and_none_beyond() {
        // Six devices of 12 / k and three of 6 / k layers: 15 layers at a rate of 6, and no more at any.
        let yard = yard(15, &[(0, 0, 6), (0, 1, 3)], 0.0);
        let laid = dived(&yard, &[0], 6.0).expect("a plan");
        for layer in 0..15 {
            let here = laid.iter().filter(|(_, start, end)| (*start..*end).contains(&layer));
            let rate: f64 = here.map(|&(t, start, end)| [12.0, 6.0][t] / (end - start) as f64).sum();
            assert!(rate >= 6.0 - 1e-9, "layer {layer} has {rate} of {laid:?}");
        }
        for (t, most) in [(0, 6), (1, 3)] {
            assert!(laid.iter().filter(|stage| stage.0 == t).count() <= most, "{laid:?}");
        }
        assert_eq!(dived(&yard, &[0], 6.1), None);
    }

    #[test]
    fn doors_between_sites_have_ends_that_slow_ways_can_serve() {
        // At a rate of 3 a way of 0.75 serves ends that pass 1.5 at most: two at least on either side of the border.
        let yard = yard(10, &[(0, 0, 5), (1, 0, 5)], 0.75);
        let laid = dived(&yard, &[0, 1], 3.0).expect("a plan");
        let border = laid.iter().filter(|stage| stage.0 == 0).map(|stage| stage.2).max().expect("a first site");
        assert!(laid.iter().filter(|stage| stage.0 == 0 && stage.2 == border).count() >= 2, "{laid:?}");
        assert!(laid.iter().filter(|stage| stage.0 == 1 && stage.1 == border).count() >= 2, "{laid:?}");
    }
}
