//! Plans in which requests leave one site for the next little by little.
//!
//! Where a slow way joins each pair of devices of two sites, a border that all requests cross at once takes many devices on
//! either side, each with many layers and therefore slow. But blocks that have devices of both sites cost no more than others:
//! if the share of the second site rises from one of them to the next by no more than what a way carries, all requests have
//! crossed when it is whole. Such *stairs* need steps enough and nothing else, for blocks may stand in any order.
//!
//! A plan is made as by [`super::dive`]: a linear program packs most layers into the devices there are, with a column for each
//! block, made at its duals; the block of most use is taken and the rest solved again. For each two sites that follow one
//! another there are rows beside those of the devices: a step at the share `y` reaches as far as its devices can hand over,
//! and every part of the way from nothing to all must be reached. Then steps are put in the order of their shares.

mod dive;

use super::Flows;
use super::blocks::Yard;
use super::clip::Span;
use super::dive::{Laid, NEAR, ROUNDS_AGAIN, ROUNDS_FIRST, every_order, longest_block};
use super::groups;
use super::profiles::placed;
use super::random::Random;
use super::series::{Holds, PARTS, Piece};
use super::sites::Sites;
use crate::budget::Budget;
use crate::formulation::solve::SolverFault;
use crate::latency::chains::Link;
use dive::Dive;

/// Most and least pieces into which the way from nothing to all is divided.
const CELLS_MAX: usize = 40;
const CELLS_MIN: usize = 12;
/// Dives at a rate before it is given up.
const TRIES: usize = 3;
/// By how much the rate is lowered, at most so often, where the last layers are not held at it.
const SLOWER: f64 = 0.97;
const SLOWER_MAX: usize = 2;
/// Where these are more than one in so many, the plan is given up.
const LAST: usize = 4;
/// Most dives, and nodes of the budget for each.
const DIVES: u64 = 200;
const NODES_DIVE: u64 = 100;
/// Share of the bound that is taken to be laid out with ease, and by which it is lowered where that was wrong.
const BEGIN: f64 = 0.96;
const LOWER: f64 = 0.01;
/// Most orders of the sites that are tried.
const ORDERS_MAX: usize = 4;

#[derive(Debug, Clone, PartialEq)]
struct Column {
    /// Position in the order of the sites.
    place: usize,
    /// Where the next site has devices in it too: their share of the rate, in parts, and the length that the step reaches.
    step: Option<(usize, f64)>,
    layers: usize,
    /// Devices by type.
    counts: Vec<u16>,
    piece: Piece,
}

/// How many devices begin a piece, or end it.
fn ends(piece: &Piece, last: bool) -> usize {
    match piece {
        Piece::Device(..) => 1,
        Piece::Then(a, b) => ends(if last { b } else { a }, last),
        Piece::Beside(a, b) => ends(a, last) + ends(b, last),
    }
}

/// Sites in the order in which they are passed.
struct Row<'a> {
    yard: &'a Yard,
    order: &'a [usize],
    /// What a way of two devices carries to the next place, as a share of the rate.
    ways: Vec<f64>,
    /// Number of pieces into which the way to the next place is divided; none where there is no need of steps.
    cells: Vec<usize>,
    holds: Holds,
    rate: f64,
    /// Most layers of a block: the more devices there are, the fewer.
    longest: usize,
}

impl<'a> Row<'a> {
    fn new(yard: &'a Yard, order: &'a [usize], rate: f64) -> Self {
        let way = |pair: &[usize]| (yard.between[pair[0]][pair[1]] / rate).min(1.0);
        let ways: Vec<f64> = order.windows(2).map(way).collect();
        let cells = |&way: &f64| if way < 1.0 { ((2.0 / way) as usize).clamp(CELLS_MIN, CELLS_MAX) } else { 0 };
        let cells = ways.iter().map(cells).collect();
        let longest = longest_block(yard);
        Self { yard, order, ways, cells, holds: Holds::new(yard, rate, PARTS), rate, longest }
    }

    /// Where a step of a place reaches.
    fn reach(&self, share: usize, length: f64) -> (f64, f64) {
        let share = share as f64 / PARTS as f64;
        ((share - length / 2.0).max(0.0), (share + length / 2.0).min(1.0))
    }
}

/// An order of the sites and what is known of it.
struct Tried {
    order: Vec<usize>,
    /// Rates at which all layers were held, and at which they were not.
    low: f64,
    high: f64,
    /// Dives at the rate between them, and the columns made for it.
    dives: usize,
    columns: Vec<Column>,
}

/// A search for plans, which may go on where it ended.
pub(crate) struct Stairs {
    sites: Sites,
    yard: Yard,
    tried: Vec<Tried>,
    random: Random,
    /// Dives that are left.
    left: u64,
    above: f64,
}

impl Stairs {
    /// Of a problem of which no plan is faster than `above`.
    pub fn new(flows: &Flows<'_>, spans: &[Vec<Span>], above: f64) -> Self {
        let sites = groups::sites(flows.network, above);
        let yard = groups::yard(flows, &sites, spans);
        let new = |order| Tried { order, low: BEGIN * above, high: above, dives: 0, columns: Vec::new() };
        let tried = orders(&yard, above).into_iter().map(new).collect();
        Self { sites, yard, tried, random: Random::new(31), left: DIVES, above }
    }

    /// A plan that holds all layers, and the rate that was asked for, more than `known`: it may carry less, by what its
    /// steps do not hand over or by slower last layers. None where dives find none, or time is up.
    pub fn next(
        &mut self,
        flows: &Flows<'_>,
        known: f64,
        budget: &Budget<'_>,
    ) -> Result<Option<(Vec<Link>, f64)>, SolverFault> {
        let middle = |tried: &Tried| f64::midpoint(tried.low.max(known), tried.high);
        self.left = self.left.min(budget.nodes_max / NODES_DIVE);
        while self.left > 0 && budget.exhausted().is_none() {
            self.left -= 1;
            // Whichever may be the fastest; of equal ones the first.
            let open = self.tried.iter_mut().filter(|tried| tried.high > known * (1.0 + NEAR));
            let ranked = open.reduce(|a, b| if middle(b) > middle(a) { b } else { a });
            let Some(tried) = ranked else { return Ok(None) };
            let target = middle(tried);
            let row = Row::new(&self.yard, &tried.order, target);
            let columns = std::mem::take(&mut tried.columns);
            let (laid, whole, columns) = dive(&row, columns, &mut self.random, budget)?;
            tried.columns = columns;
            if !whole && budget.exhausted().is_some() {
                // Nothing is known of a rate at which there was no time to find a plan.
                return Ok(None);
            }
            tried.dives += 1;
            if whole {
                tried.low = target;
            } else if tried.dives == TRIES || laid.is_none() {
                tried.high = target;
            }
            if target != middle(tried) {
                (tried.dives, tried.columns) = (0, Vec::new());
            }
            if tried.high - tried.low <= NEAR * tried.high {
                tried.low = (tried.low - LOWER * self.above).max(0.0);
            }
            if let Some(placement) = laid.and_then(|laid| placed(flows, &self.yard, &self.sites, &laid)) {
                return Ok(Some((placement, target)));
            }
        }
        Ok(None)
    }
}

/// The intervals of one dive, if they hold all layers, whether they do at the rate asked for, and the columns made so far.
fn dive(
    row: &Row<'_>,
    columns: Vec<Column>,
    random: &mut Random,
    budget: &Budget<'_>,
) -> Result<(Option<Laid>, bool, Vec<Column>), SolverFault> {
    let free: Vec<u16> = row.yard.types.iter().map(|t| u16::try_from(t.count).unwrap_or(u16::MAX)).collect();
    let rounds = if columns.is_empty() { ROUNDS_FIRST } else { ROUNDS_AGAIN };
    let mut first = Dive::new(row, columns, free, row.yard.layers, Vec::new());
    let whole = first.begun(rounds, random, budget)?;
    let Dive { columns, mut free, mut left, mut taken, .. } = first;
    // The last layers more slowly.
    let (mut rate, mut slower) = (row.rate, 0);
    while left > 0 && LAST * left <= row.yard.layers && slower < SLOWER_MAX && budget.exhausted().is_none() {
        (rate, slower) = (rate * SLOWER, slower + 1);
        let row = Row::new(row.yard, row.order, rate);
        let mut rest = Dive::new(&row, Vec::new(), free, left, taken);
        rest.begun(ROUNDS_FIRST, random, budget)?;
        (free, left, taken) = (rest.free, rest.left, rest.taken);
    }
    let laid = (left == 0).then(|| dive::laid(row.order.len(), &taken));
    Ok((laid, whole, columns))
}

/// Orders of all sites in which ways carry something of a rate from each to the next, those with the fewest steps first;
/// of an order and its reverse only one where ways are alike in both directions.
fn orders(yard: &Yard, rate: f64) -> Vec<Vec<usize>> {
    let mut orders = every_order(yard);
    // A part of all is the least that a step may leave.
    let passes = |pair: &[usize]| yard.between[pair[0]][pair[1]] * PARTS as f64 >= rate;
    orders.retain(|order| order.windows(2).all(passes));
    let steps = |order: &[usize]| -> f64 {
        order.windows(2).map(|pair| 1.0 / yard.between[pair[0]][pair[1]].max(f64::MIN_POSITIVE)).sum()
    };
    orders.sort_by(|a, b| steps(a).total_cmp(&steps(b)).then(a.cmp(b)));
    orders.truncate(ORDERS_MAX);
    orders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throughput::blocks::Type;

    /// Devices of two kinds at two sites, four of each, and so fast a way for each two devices of both sites.
    fn yard(layers: usize, way: f64) -> Yard {
        let types = [(0, 0), (0, 1), (1, 0), (1, 1)];
        let types: Vec<Type> = types.into_iter().map(|(site, kind)| Type { site, kind, count: 4 }).collect();
        let between = vec![vec![f64::INFINITY, way], vec![way, f64::INFINITY]];
        let spans = [Span::falling(12.0, 4), Span::falling(6.0, 4)];
        Yard::new(layers, types, &spans, between, vec![vec![f64::INFINITY; 2]; 2])
    }

    /// What one of ten dives at `rate` lays out; none where none does.
    fn dived(yard: &Yard, rate: f64) -> Option<Laid> {
        let row = Row::new(yard, &[0, 1], rate);
        let (mut columns, mut random) = (Vec::new(), Random::new(3));
        for _ in 0..10 {
            let (laid, whole, made) = dive(&row, columns, &mut random, &Budget::default()).expect("the solver answers");
            if whole {
                return laid;
            }
            columns = made;
        }
        None
    }

    fn rate_of((t, start, end): (usize, usize, usize)) -> f64 {
        [12.0, 6.0][t % 2] / (end - start) as f64
    }

    #[test]
    fn a_plan_holds_all_layers_with_the_devices_there_are() {
        let yard = yard(18, 2.0);
        let laid = dived(&yard, 6.0).expect("a plan");
        for layer in 0..18 {
            let here = laid.iter().filter(|stage| (stage.1..stage.2).contains(&layer));
            let rate: f64 = here.map(|&stage| rate_of(stage)).sum();
            assert!(rate >= 6.0 - 1e-9, "layer {layer} has {rate} of {laid:?}");
        }
        for t in 0..4 {
            assert!(laid.iter().filter(|stage| stage.0 == t).count() <= 4, "{laid:?}");
        }
        // Eight devices of 12 / k and eight of 6 / k layers hold 24 at a rate of 6, and no more.
        assert_eq!(dived(&yard_of(25), 6.0), None);
    }

    fn yard_of(layers: usize) -> Yard {
        yard(layers, 2.0)
    }

    #[test]
    fn requests_leave_a_site_by_no_more_at_once_than_ways_carry() {
        let (yard, layers, rate, way) = (yard(18, 2.0), 18, 6.0, 2.0);
        let laid = dived(&yard, rate).expect("a plan");
        let of = |layer: usize, site: usize| -> Vec<(usize, usize, usize)> {
            laid.iter().copied().filter(|s| s.0 / 2 == site && (s.1..s.2).contains(&layer)).collect()
        };
        let sum = |stages: &[(usize, usize, usize)]| stages.iter().map(|&stage| rate_of(stage)).sum::<f64>();
        for layer in 1..layers {
            // What the second site must take over here is at most what the ways of those that end and begin carry.
            let least = rate - sum(&of(layer, 0));
            let most = sum(&of(layer - 1, 1));
            let (from, to) = (of(layer - 1, 0), of(layer, 1));
            let ends = from.iter().filter(|stage| stage.2 == layer).count();
            let begins = to.iter().filter(|stage| stage.1 == layer).count();
            let ways = way * (ends * begins) as f64;
            assert!(least - most <= ways + 1e-6, "layer {layer}: {least} of {most} by {ways}, {laid:?}");
        }
        assert_eq!(laid.iter().filter(|s| s.1 == 0).map(|s| s.0 / 2).max(), Some(0), "begins at the first site");
    }

    #[test]
    fn ends_are_the_devices_that_begin_or_end_a_piece() {
        let device = || Box::new(Piece::Device(0, 1));
        let two = Piece::Beside(device(), device());
        let piece = Piece::Beside(Box::new(Piece::Then(Box::new(two), device())), Box::new(Piece::Device(1, 2)));
        assert_eq!((ends(&piece, false), ends(&piece, true)), (3, 2));
    }

    #[test]
    fn orders_that_need_few_steps_come_first() {
        let types = (0..3).map(|site| Type { site, kind: 0, count: 1 }).collect();
        let between = vec![vec![9.0, 1.0, 4.0], vec![1.0, 9.0, 3.0], vec![4.0, 3.0, 9.0]];
        let yard = Yard::new(4, types, &[Span::falling(2.0, 2)], between, vec![vec![f64::INFINITY; 3]; 3]);
        assert_eq!(orders(&yard, 10.0)[0], [0, 2, 1]);
    }

    #[test]
    fn no_order_leads_over_sites_without_a_way() {
        assert!(orders(&yard(18, 0.0), 6.0).is_empty());
        assert!(orders(&yard(18, 1e-30), 6.0).is_empty());
        assert_eq!(orders(&yard(18, f64::INFINITY), 6.0), [[0, 1]]);
        let types = (0..3).map(|site| Type { site, kind: 0, count: 1 }).collect();
        let between = vec![vec![9.0, 1.0, 0.0], vec![1.0, 9.0, 3.0], vec![0.0, 3.0, 9.0]];
        let yard = Yard::new(4, types, &[Span::falling(2.0, 2)], between, vec![vec![f64::INFINITY; 3]; 3]);
        assert_eq!(orders(&yard, 10.0), [[0, 1, 2]]);
    }
}
