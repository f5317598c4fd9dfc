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
use super::blocks::{Block, Rail, Yard};
use super::clip::Span;
use super::dive::{NEAR, ROUNDS_AGAIN, ROUNDS_FIRST, every_order, longest_block};
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
/// Rounds of pricing at a rate that is new.
const ROUNDS: usize = 40;
/// Share of the rate at which the linear program holds all layers that is taken to be laid out with ease.
const EASE: f64 = 0.97;
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

impl Column {
    /// Its rails, each of which is a row of devices.
    fn block(&self, yard: &Yard) -> Block {
        let mut rails = Vec::new();
        rails_of(&self.piece, &mut rails);
        let site = rails.first().and_then(|rail| rail.types.first()).map_or(0, |&t| yard.types[usize::from(t)].site);
        Block { site, layers: self.layers, rails, flow: 0.0 }
    }
}

fn rails_of(piece: &Piece, rails: &mut Vec<Rail>) {
    match piece {
        Piece::Beside(a, b) => {
            rails_of(a, rails);
            rails_of(b, rails);
        }
        row => {
            let mut types = Vec::new();
            row.lay(0, &mut |t, _, _| types.push(t as u16));
            rails.push(Rail { types, rate: 0.0 });
        }
    }
}

/// A plan by stairs.
pub(crate) struct Climb {
    pub placement: Vec<Link>,
    /// The same as blocks, in the order in which requests pass them.
    pub blocks: Vec<Block>,
    /// The rate that was asked for: it may carry less, by what its steps do not hand over or by slower last layers.
    pub target: f64,
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

    /// Columns made at another rate, as they are at this one; without those that do not pass it.
    fn adapted(&self, mut columns: Vec<Column>) -> Vec<Column> {
        columns.retain_mut(|column| match &column.piece {
            Piece::Beside(from, to) if column.step.is_some() => {
                column.step = self.step(column.place, from, to);
                column.step.is_some()
            }
            piece => piece.passes(&self.holds) >= PARTS,
        });
        columns
    }

    /// The share of the second site and the length of a step with this of the first site and that of the second, each
    /// rail of which passes its share; none where they do not pass the rate.
    fn step(&self, place: usize, from: &Piece, to: &Piece) -> Option<(usize, f64)> {
        let (first, second) = (from.passes(&self.holds), to.passes(&self.holds));
        let share = (PARTS * second + (first + second) / 2) / (first + second).max(1);
        let length = self.ways[place] * (ends(from, true) * ends(to, false)) as f64;
        (first + second >= PARTS).then_some((share, length))
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
    /// Whether the linear program has told how fast plans may be.
    told: bool,
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
        let new = |order| Tried { order, low: BEGIN * above, high: above, told: false, dives: 0, columns: Vec::new() };
        let tried = orders(&yard, above).into_iter().map(new).collect();
        Self { sites, yard, tried, random: Random::new(31), left: DIVES, above }
    }

    /// A plan that holds all layers, for a rate of more than `known`. None where dives find none, or time is up.
    pub fn next(&mut self, flows: &Flows<'_>, known: f64, budget: &Budget<'_>) -> Result<Option<Climb>, SolverFault> {
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
            let columns = row.adapted(std::mem::take(&mut tried.columns));
            let rounds = if tried.dives == 0 { ROUNDS } else { ROUNDS_AGAIN };
            let Dived { passed, whole, columns, value } = dive(&row, (columns, rounds), &mut self.random, budget)?;
            tried.columns = columns;
            if !whole && budget.exhausted().is_some() {
                // Nothing is known of a rate at which there was no time to find a plan.
                return Ok(None);
            }
            if !tried.told && value > 0.0 {
                // Layers held are about as the inverse of the rate; and a plan may have been found all the same.
                let rate = (target * value / self.yard.layers as f64).max(if whole { target } else { 0.0 });
                let rate = rate.min(self.above);
                (tried.told, tried.low, tried.high) = (true, rate * EASE, rate);
            }
            tried.dives += 1;
            if whole {
                tried.low = target;
            } else if tried.dives == TRIES || passed.is_none() {
                tried.high = target;
            }
            if target != middle(tried) {
                tried.dives = 0;
            }
            if tried.high - tried.low <= NEAR * tried.high {
                tried.low = (tried.low - LOWER * self.above).max(0.0);
            }
            let Some(passed) = passed else { continue };
            if let Some(placement) = placed(flows, &self.yard, &self.sites, &dive::laid(&passed)) {
                let blocks = passed.iter().map(|column| column.block(&self.yard)).collect();
                return Ok(Some(Climb { placement, blocks, target }));
            }
        }
        Ok(None)
    }
}

/// What a dive ends with.
struct Dived {
    /// Blocks in the order in which requests pass them, if they hold all layers.
    passed: Option<Vec<Column>>,
    /// Whether they do at the rate asked for.
    whole: bool,
    /// The columns made so far.
    columns: Vec<Column>,
    /// Layers that the linear program holds at the rate asked for, less what missing steps are worth.
    value: f64,
}

/// One dive, and the last layers as well as can be.
fn dive(
    row: &Row<'_>,
    (columns, rounds): (Vec<Column>, usize),
    random: &mut Random,
    budget: &Budget<'_>,
) -> Result<Dived, SolverFault> {
    let free: Vec<u16> = row.yard.types.iter().map(|t| u16::try_from(t.count).unwrap_or(u16::MAX)).collect();
    let mut first = Dive::new(row, columns, free, row.yard.layers, Vec::new());
    let whole = first.begun(rounds, random, budget)?;
    let Dive { columns, mut free, mut left, mut taken, value, .. } = first;
    // The last layers more slowly.
    let (mut rate, mut slower) = (row.rate, 0);
    while left > 0 && LAST * left <= row.yard.layers && slower < SLOWER_MAX && budget.exhausted().is_none() {
        (rate, slower) = (rate * SLOWER, slower + 1);
        let row = Row::new(row.yard, row.order, rate);
        let mut rest = Dive::new(&row, Vec::new(), free, left, taken);
        rest.begun(ROUNDS_FIRST, random, budget)?;
        (free, left, taken) = (rest.free, rest.left, rest.taken);
    }
    if left > 0 && LAST * left <= row.yard.layers {
        left -= fill(row, &mut free, left, &mut taken);
    }
    let passed = (left == 0).then(|| dive::in_order(row.order.len(), taken));
    Ok(Dived { passed, whole, columns, value })
}

/// Holds so many layers as well as the devices that are left over do; how many. Searches that begin there take what
/// these lack from others.
fn fill(row: &Row<'_>, free: &mut [u16], left: usize, taken: &mut Vec<Column>) -> usize {
    let yard = row.yard;
    let rate = |t: usize| yard.rate_of(t, 1);
    for held in 0..left {
        let power = |site: usize| -> f64 {
            let here = (0..free.len()).filter(|&t| yard.types[t].site == site);
            here.map(|t| f64::from(free[t]) * rate(t)).sum()
        };
        let most = (0..row.order.len()).reduce(|a, b| if power(row.order[b]) > power(row.order[a]) { b } else { a });
        let Some(place) = most else { return held };
        let mut here: Vec<usize> = (0..free.len()).filter(|&t| yard.types[t].site == row.order[place]).collect();
        here.sort_by(|&a, &b| rate(b).total_cmp(&rate(a)));
        let (mut piece, mut sum) = (None, 0.0);
        let mut counts = vec![0; free.len()];
        for t in here {
            while free[t] > 0 && rate(t) > 0.0 && sum < row.rate {
                free[t] -= 1;
                counts[t] += 1;
                sum += rate(t);
                let device = Piece::Device(t, 1);
                piece = Some(match piece {
                    None => device,
                    Some(others) => Piece::Beside(Box::new(others), Box::new(device)),
                });
            }
        }
        let Some(piece) = piece else { return held };
        taken.push(Column { place, step: None, layers: 1, counts, piece });
    }
    left
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
    use crate::budget::{Limit, Work};
    use crate::throughput::blocks::Type;
    use crate::throughput::dive::Laid;

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
            let rounds = if columns.is_empty() { ROUNDS } else { ROUNDS_AGAIN };
            let dived = dive(&row, (columns, rounds), &mut random, &Budget::default()).expect("the solver answers");
            if dived.whole {
                return dived.passed.map(|passed| dive::laid(&passed));
            }
            columns = dived.columns;
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

    #[test]
    fn last_layers_have_the_devices_that_are_left_of_the_site_with_most_of_them() {
        let yard = yard(18, 2.0);
        let row = Row::new(&yard, &[0, 1], 6.0);
        let (mut free, mut taken) = ([0, 1, 1, 1], Vec::new());
        assert_eq!(fill(&row, &mut free, 4, &mut taken), 3);
        assert_eq!(free, [0; 4]);
        let held: Vec<(usize, usize, Vec<u16>)> = taken.into_iter().map(|c| (c.place, c.layers, c.counts)).collect();
        // One of the second site carries all, then one of each.
        assert_eq!(held, [(1, 1, vec![0, 0, 1, 0]), (0, 1, vec![0, 1, 0, 0]), (1, 1, vec![0, 0, 0, 1])]);
        // Two that carry a third each stand side by side.
        let (row, mut free, mut taken) = (Row::new(&yard, &[0, 1], 18.0), [0, 2, 0, 0], Vec::new());
        assert_eq!(fill(&row, &mut free, 1, &mut taken), 1);
        assert_eq!(taken[0].counts, [0, 2, 0, 0]);
    }

    #[test]
    fn blocks_have_the_devices_and_layers_of_the_columns_that_they_are_made_of() {
        let yard = yard(18, 2.0);
        let row = Row::new(&yard, &[0, 1], 6.0);
        let dived =
            dive(&row, (Vec::new(), ROUNDS), &mut Random::new(3), &Budget::default()).expect("the solver answers");
        let passed = dived.passed.expect("a plan");
        let mut start = 0;
        for column in &passed {
            let (block, mut counts) = (column.block(&yard), vec![0; 4]);
            block.rails.iter().flat_map(|rail| &rail.types).for_each(|&t| counts[usize::from(t)] += 1);
            assert_eq!((block.layers, &counts), (column.layers, &column.counts));
            let of_one = |rail: &Rail| rail.types.iter().all(|t| t / 2 == rail.types[0] / 2);
            assert!(block.rails.iter().all(of_one), "{block:?}");
            let sum: f64 = block.rails.iter().map(|rail| yard.rail_of(&rail.types, block.layers)).sum();
            assert!(!dived.whole || sum >= 6.0 * (1.0 - 1e-9), "{block:?} carries {sum}");
            start += block.layers;
        }
        assert_eq!(start, 18);
    }

    #[test]
    fn columns_are_kept_at_a_lower_rate_and_given_up_at_a_higher_one() {
        let yard = yard(18, 2.0);
        let device = |t: usize| Piece::Device(t, 2);
        let beside = |a: Piece, b: Piece| Piece::Beside(Box::new(a), Box::new(b));
        let column = |step, piece: Piece| {
            let mut counts = vec![0; 4];
            piece.count(&mut counts);
            Column { place: 0, step, layers: 2, counts, piece }
        };
        // Devices of the first kind carry 6 with two layers, those of the second 3.
        let columns = || vec![column(None, device(0)), column(Some((500, 1.0 / 3.0)), beside(device(1), device(2)))];
        let kept = |rate: f64| Row::new(&yard, &[0, 1], rate).adapted(columns());
        // 3 of the one and 6 of the other, each rail its share, over one way of 2.
        assert_eq!(kept(8.9).iter().map(|column| column.step).collect::<Vec<_>>(), [Some((667, 2.0 / 8.9))]);
        assert_eq!(kept(6.0).len(), 2);
        assert_eq!(kept(9.1), []);
        // What exceeds the rate is cut off at it: 4.5 and all of 4.5.
        assert_eq!(kept(4.5)[1].step.map(|(share, _)| share), Some(600));
    }

    #[test]
    fn what_a_dive_does_is_counted_and_ends_it_at_the_same_step_each_time() {
        let yard = yard(18, 2.0);
        let row = Row::new(&yard, &[0, 1], 6.0);
        let dived = |nodes: u64| {
            let work = Work::of_nodes(nodes);
            let budget = Budget { work: Some(&work), ..Budget::default() };
            let dived = dive(&row, (Vec::new(), ROUNDS), &mut Random::new(3), &budget).expect("the solver answers");
            (dived.passed, dived.columns, budget.exhausted())
        };
        let (passed, columns, exhausted) = dived(2);
        assert_eq!((passed, exhausted), (None, Some(Limit::Nodes)));
        let (_, more, _) = dived(2_000);
        assert!(columns.len() < more.len(), "{} and {}", columns.len(), more.len());
        for nodes in [2, 20, 200, 2_000] {
            assert_eq!(dived(nodes), dived(nodes), "{nodes}");
        }
    }
}
