//! One plan by stairs: a linear program over blocks, blocks that are made at its duals, and one taken after another.

use super::{Column, Row, ends};
use crate::budget::Budget;
use crate::formulation::program::{Program, Relation};
use crate::formulation::solve::{SolverFault, Verdict, solve};
use crate::throughput::blocks::Type;
use crate::throughput::dive::{KEPT, Laid, ROUNDS_FIRST, SHAKEN, SHORT, shaken};
use crate::throughput::random::Random;
use crate::throughput::series::{PARTS, Piece, Series};

/// Most layers of a step.
const STEP_MAX: usize = 6;
/// Columns of a master at most, and how many are kept where there are more.
const COLUMNS_MAX: usize = 3000;
const COLUMNS_MIN: usize = 1500;
/// Layers that so many rounds of pricing must gain for there to be more of them.
const GAIN: f64 = 0.03;
const GAIN_ROUNDS: usize = 3;
/// Layers short of all at which blocks are made at all places again.
const NEARLY: f64 = 1.0;
/// How often blocks are made again because they ask for more devices than there are: of many sites and kinds there are
/// few of each.
const DEARER: usize = 5;
/// Work of an entry of a table of blocks, in entries of a program.
const ENTRY_WORK: u64 = 1;
/// What devices at the ends of a step pass at most, in parts of the rate.
const WIDE: [usize; 3] = [PARTS, PARTS / 2, PARTS / 4];
/// Layers that a missing step is worth.
const STEP_WORTH: f64 = 5.0;

/// A dive and the blocks that were made for it and those before it.
pub(super) struct Dive<'a> {
    row: &'a Row<'a>,
    pub columns: Vec<Column>,
    pub free: Vec<u16>,
    /// Layers that are not held yet.
    pub left: usize,
    pub taken: Vec<Column>,
    /// Layers that the first master holds, less what missing steps are worth.
    pub value: f64,
    last: Option<Last>,
}

/// Duals of the last master, and the columns that it used.
struct Last {
    types: Vec<f64>,
    cells: Vec<Vec<f64>>,
    used: Vec<usize>,
}

/// What the master says: its value, how often each column is used, and the duals of types and cells.
struct Master {
    value: f64,
    used: Vec<(usize, f64)>,
    types: Vec<f64>,
    /// By place: what reaching up to each part of the way is worth.
    cells: Vec<Vec<f64>>,
}

/// Work of a table of blocks of up to so many layers: each is put together of two in every way.
fn table(layers: usize) -> u64 {
    (layers * (layers + 2) / 2 * PARTS) as u64 * ENTRY_WORK
}

/// What reaching from here to there is worth, where reaching up to each part of the way is worth so much.
fn worth(sums: &[f64], (from, to): (f64, f64)) -> f64 {
    let up_to = |y: f64| {
        let at = (y * PARTS as f64).clamp(0.0, PARTS as f64);
        let whole = at.floor() as usize;
        let next = sums[(whole + 1).min(PARTS)];
        sums[whole] + (next - sums[whole]) * (at - whole as f64)
    };
    up_to(to) - up_to(from)
}

/// What is worth so much for each unit of its length, summed up to each part of the way.
fn sums(worths: &[(f64, f64, f64)]) -> Vec<f64> {
    let mut sums = vec![0.0; PARTS + 1];
    for x in 0..PARTS {
        let (from, to) = (x as f64 / PARTS as f64, (x + 1) as f64 / PARTS as f64);
        let here = worths.iter().map(|&(a, b, each)| each * (b.min(to) - a.max(from)).max(0.0));
        sums[x + 1] = sums[x] + here.sum::<f64>();
    }
    sums
}

impl<'a> Dive<'a> {
    /// With these devices, for so many layers, beside what is taken already.
    pub fn new(row: &'a Row<'a>, columns: Vec<Column>, free: Vec<u16>, left: usize, taken: Vec<Column>) -> Self {
        Self { row, columns, free, left, taken, value: 0.0, last: None }
    }

    fn fits(&self, column: &Column) -> bool {
        column.layers <= self.left && column.counts.iter().zip(&self.free).all(|(used, free)| used <= free)
    }

    /// By cell of a place: from where to where it is still to be reached. Half a way at either end is reached by the
    /// blocks before and after.
    fn open(&self, place: usize) -> Vec<Vec<(f64, f64)>> {
        let (cells, way) = (self.row.cells[place], self.row.ways[place]);
        let steps = self.taken.iter().filter_map(|column| {
            column.step.filter(|_| column.place == place).map(|(share, length)| self.row.reach(share, length))
        });
        let reached: Vec<(f64, f64)> = steps.chain([(0.0, way / 2.0), (1.0 - way / 2.0, 1.0)]).collect();
        let of_cell = |cell: usize| {
            let mut open = vec![(cell as f64 / cells as f64, (cell + 1) as f64 / cells as f64)];
            for &(from, to) in &reached {
                let rest = |(a, b): (f64, f64)| [(a, b.min(from)), (a.max(to), b)];
                open = open.into_iter().flat_map(rest).filter(|(a, b)| b - a > 1e-9).collect();
            }
            open
        };
        (0..cells).map(of_cell).collect()
    }

    /// Forgets those of many columns that were of least use at the last duals.
    fn prune(&mut self) {
        let Some(Last { types, cells, used }) = self.last.as_ref().filter(|_| self.columns.len() > COLUMNS_MAX) else {
            return;
        };
        let net = |column: &Column| {
            let cost: f64 = column.counts.iter().zip(types).map(|(&n, dual)| f64::from(n) * dual).sum();
            let reached = |(share, length)| worth(&cells[column.place], self.row.reach(share, length));
            (cost - column.step.map_or(0.0, reached)) / column.layers as f64
        };
        let mut ranked: Vec<(f64, usize)> = self.columns.iter().map(net).zip(0..).collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        ranked.truncate(COLUMNS_MIN);
        let mut kept: Vec<usize> = ranked.into_iter().map(|(_, c)| c).chain(used.iter().copied()).collect();
        kept.sort_unstable();
        kept.dedup();
        let mut columns = std::mem::take(&mut self.columns).into_iter().map(Some).collect::<Vec<_>>();
        self.columns = kept.into_iter().filter_map(|c| columns[c].take()).collect();
    }

    fn master(&mut self, budget: &Budget<'_>) -> Result<Option<Master>, SolverFault> {
        self.prune();
        let row = self.row;
        let mut program = Program { maximise: true, ..Program::default() };
        let fitting: Vec<usize> = (0..self.columns.len()).filter(|&c| self.fits(&self.columns[c])).collect();
        let mut devices = vec![Vec::new(); self.free.len()];
        let open: Vec<Vec<Vec<(f64, f64)>>> = (0..row.ways.len()).map(|place| self.open(place)).collect();
        let mut steps: Vec<Vec<Vec<(usize, f64)>>> = open.iter().map(|cells| vec![Vec::new(); cells.len()]).collect();
        for &c in &fitting {
            let column = &self.columns[c];
            let x = program.column(column.layers as f64, 0.0, f64::INFINITY, false);
            for (t, &used) in column.counts.iter().enumerate().filter(|(_, used)| **used > 0) {
                devices[t].push((x, f64::from(used)));
            }
            if let Some((share, length)) = column.step {
                let (from, to) = row.reach(share, length);
                for (cell, terms) in open[column.place].iter().zip(&mut steps[column.place]) {
                    let length: f64 = cell.iter().map(|&(a, b)| (b.min(to) - a.max(from)).max(0.0)).sum();
                    if length > 0.0 {
                        terms.push((x, -length / row.ways[column.place]));
                    }
                }
            }
        }
        for (terms, &free) in devices.into_iter().zip(&self.free) {
            program.row(terms, Relation::AtMost, f64::from(free));
        }
        // In steps of one way.
        for ((cells, steps), way) in open.iter().zip(steps).zip(&row.ways) {
            for (cell, mut terms) in cells.iter().zip(steps) {
                let lacking: f64 = cell.iter().map(|(a, b)| b - a).sum::<f64>() / way;
                let missed = program.column(-STEP_WORTH, 0.0, f64::INFINITY, false);
                terms.push((missed, -1.0));
                program.row(terms, Relation::AtMost, -lacking);
            }
        }
        let answer = solve(&program, None, 0.0, &Budget { progress: None, ..*budget })?;
        let Some(at) = answer.assignment.filter(|_| answer.verdict == Verdict::Optimal) else { return Ok(None) };
        let mut duals = answer.duals.iter().map(|dual| dual.max(0.0));
        let types = duals.by_ref().take(self.free.len()).collect();
        let of_place = |(cells, way): (&Vec<Vec<(f64, f64)>>, &f64)| {
            let mut worths = Vec::new();
            for cell in cells {
                let dual = duals.next().unwrap_or(0.0);
                worths.extend(cell.iter().map(|&(a, b)| (a, b, dual / way)));
            }
            sums(&worths)
        };
        let types: Vec<f64> = types;
        let cells: Vec<Vec<f64>> = open.iter().zip(&row.ways).map(of_place).collect();
        let value = program.value(&at);
        let used: Vec<(usize, f64)> = fitting.into_iter().zip(at).filter(|(_, x)| *x > 1e-6).collect();
        let columns = used.iter().map(|(c, _)| *c).collect();
        self.last = Some(Last { types: types.clone(), cells: cells.clone(), used: columns });
        Ok(Some(Master { value, used, types, cells }))
    }

    /// Makes the cheapest blocks at some prices of types, and keeps those that are of use at others; whether there are
    /// new ones. Only at one place where one is named, and with the next.
    fn make(
        &mut self,
        prices: &[f64],
        duals: &[f64],
        cells: &[Vec<f64>],
        only: Option<usize>,
        budget: &Budget<'_>,
    ) -> bool {
        let before = self.columns.len();
        let row = self.row;
        let here = |place: usize| only.is_none_or(|only| only == place) && budget.exhausted().is_none();
        for (place, &site) in row.order.iter().enumerate().filter(|(place, _)| here(*place)) {
            let mut prices = self.priced_at(site, prices);
            // A block may ask for more of a type than there are: those become dearer, and it is made again.
            for _ in 0..=DEARER {
                let wanted = self.make_at(place, &prices, duals, budget);
                if wanted.iter().all(|wanted| !wanted) {
                    break;
                }
                let dearer = |(price, wanted): (&mut Option<f64>, bool)| {
                    *price = price.map(|price| if wanted { price * 1.5 + 0.01 } else { price });
                };
                prices.iter_mut().zip(wanted).for_each(dearer);
            }
        }
        for (place, sums) in cells.iter().enumerate() {
            if here(place) || here(place + 1) {
                let mut prices = prices.to_vec();
                for _ in 0..=DEARER {
                    let wanted = self.make_steps(place, &prices, (duals, sums), budget);
                    if wanted.iter().all(|wanted| !wanted) {
                        break;
                    }
                    for (price, _) in prices.iter_mut().zip(&wanted).filter(|(_, wanted)| **wanted) {
                        *price = *price * 1.5 + 0.01;
                    }
                }
            }
        }
        self.columns.len() > before
    }

    fn priced_at(&self, site: usize, prices: &[f64]) -> Vec<Option<f64>> {
        let here = self.row.yard.types.iter().zip(&self.free).zip(prices);
        here.map(|((t, free), price): ((&Type, &u16), &f64)| (t.site == site && *free > 0).then_some(*price)).collect()
    }

    /// Makes blocks of the site at a place; the types of which they would have had more than there are.
    fn make_at(&mut self, place: usize, prices: &[Option<f64>], duals: &[f64], budget: &Budget<'_>) -> Vec<bool> {
        let longest = self.left.min(self.row.longest);
        budget.did(table(longest));
        let series = Series::rows(&self.row.holds, prices, longest);
        let mut wanted = vec![false; self.free.len()];
        for layers in 1..=longest {
            let Some(piece) = series.made(layers, PARTS) else { continue };
            let mut counts = vec![0; self.free.len()];
            piece.count(&mut counts);
            let cost: f64 = counts.iter().zip(duals).map(|(&n, dual)| f64::from(n) * dual).sum();
            if cost >= layers as f64 * (1.0 + KEPT) {
                continue;
            }
            let over = counts.iter().zip(&self.free).map(|(used, free)| used > free);
            wanted.iter_mut().zip(over).for_each(|(wanted, over)| *wanted |= over);
            self.keep(Column { place, step: None, layers, counts, piece });
        }
        wanted
    }

    /// Makes steps from the site at a place to the next: for each number of layers and each cell the best share.
    fn make_steps(
        &mut self,
        place: usize,
        prices: &[f64],
        (duals, cells): (&[f64], &[f64]),
        budget: &Budget<'_>,
    ) -> Vec<bool> {
        let row = self.row;
        let mut wanted = vec![false; self.free.len()];
        let count = row.cells[place];
        if count == 0 {
            return wanted;
        }
        let way = row.ways[place];
        let longest = self.left.min(row.longest).div_ceil(2).min(STEP_MAX);
        budget.did(2 * table(longest) + ((longest * WIDE.len() * WIDE.len()) * PARTS) as u64 * ENTRY_WORK);
        let [first, second] = [place, place + 1]
            .map(|place| Series::rows(&row.holds, &self.priced_at(row.order[place], prices), longest));
        for layers in 1..=longest {
            let [a, b] = [&first, &second].map(|series| WIDE.map(|most| series.rails(layers, most)));
            let mut best: Vec<Option<(f64, usize, usize, usize)>> = vec![None; 3 * count];
            for (i, (ra, &most_a)) in a.iter().zip(&WIDE).enumerate() {
                for (j, (rb, &most_b)) in b.iter().zip(&WIDE).enumerate() {
                    let (Some(a), Some(b)) = (ra, rb) else { continue };
                    for x in 1..PARTS {
                        let cost = f64::from(a.price(PARTS - x) + b.price(x));
                        if !cost.is_finite() {
                            continue;
                        }
                        let pairs = (PARTS - x).div_ceil(most_a) * x.div_ceil(most_b);
                        let gain = worth(cells, row.reach(x, way * pairs as f64));
                        let cell = 3 * (x * count / PARTS) + usize::from(i > 0) + usize::from(j > 0);
                        if best[cell].is_none_or(|(least, ..)| cost - gain < least) {
                            best[cell] = Some((cost - gain, x, i, j));
                        }
                    }
                }
            }
            for (_, x, i, j) in best.into_iter().flatten().filter(|(net, ..)| *net < layers as f64 * (1.0 + 2.0 * KEPT))
            {
                let (Some(a), Some(b)) = (&a[i], &b[j]) else { continue };
                let (Some(from), Some(to)) = (a.made(PARTS - x), b.made(x)) else { continue };
                let Some((x, length)) = row.step(place, &from, &to) else { continue };
                let piece = Piece::Beside(Box::new(from), Box::new(to));
                let mut counts = vec![0; self.free.len()];
                piece.count(&mut counts);
                let cost: f64 = counts.iter().zip(duals).map(|(&n, dual)| f64::from(n) * dual).sum();
                if cost - worth(cells, row.reach(x, length)) < layers as f64 * (1.0 + KEPT) {
                    let over = counts.iter().zip(&self.free).map(|(used, free)| used > free);
                    wanted.iter_mut().zip(over).for_each(|(wanted, over)| *wanted |= over);
                    self.keep(Column { place, step: Some((x, length)), layers, counts, piece });
                }
            }
        }
        wanted
    }

    /// Keeps a block that is of use and not known.
    fn keep(&mut self, column: Column) {
        let known = |c: &Column| {
            (c.place, c.step, c.layers) == (column.place, column.step, column.layers) && c.counts == column.counts
        };
        if self.fits(&column) && !self.columns.iter().any(known) {
            self.columns.push(column);
        }
    }

    /// The master with blocks that were made at its duals, again and again while that gains something.
    fn priced(
        &mut self,
        rounds: usize,
        random: &mut Random,
        budget: &Budget<'_>,
    ) -> Result<Option<Master>, SolverFault> {
        let mut master = self.master(budget)?;
        let mut values = Vec::new();
        for round in 0..rounds {
            let Some(found) = master.as_ref().filter(|_| budget.exhausted().is_none()) else { return Ok(None) };
            values.push(found.value);
            if round >= GAIN_ROUNDS && found.value - values[round - GAIN_ROUNDS] < GAIN {
                break;
            }
            let (duals, shaken) = (found.types.clone(), shaken(&found.types, SHAKEN, random));
            let new = self.make(&duals, &duals, &found.cells, None, budget);
            if self.make(&shaken, &duals, &found.cells, None, budget) || new {
                master = self.master(budget)?;
            }
        }
        Ok(master)
    }

    /// The master with blocks that were made at its shaken duals for one place, or at its duals for all where it falls
    /// short.
    fn again(&mut self, place: usize, random: &mut Random, budget: &Budget<'_>) -> Result<Option<Master>, SolverFault> {
        let master = self.master(budget)?;
        let Some(found) = &master else { return Ok(master) };
        if found.value < self.left as f64 - NEARLY {
            return self.priced(ROUNDS_FIRST, random, budget);
        }
        let (duals, shaken) = (found.types.clone(), shaken(&found.types, SHAKEN, random));
        let new = self.make(&shaken, &duals, &found.cells, Some(place), budget);
        if new { self.master(budget) } else { Ok(master) }
    }

    /// Makes first blocks where there are none, and takes blocks until all layers are held; whether they are.
    pub fn begun(&mut self, rounds: usize, random: &mut Random, budget: &Budget<'_>) -> Result<bool, SolverFault> {
        if self.columns.is_empty() {
            let (even, nothing) = (vec![1.0; self.free.len()], vec![0.0; self.free.len()]);
            let cells = vec![vec![0.0; PARTS + 1]; self.row.cells.len()];
            self.make(&even, &nothing, &cells, None, budget);
        }
        self.run(rounds, random, budget)
    }

    /// Takes blocks until all layers are held; whether they are.
    fn run(&mut self, rounds: usize, random: &mut Random, budget: &Budget<'_>) -> Result<bool, SolverFault> {
        let mut master = self.priced(rounds, random, budget)?;
        self.value = master.as_ref().map_or(0.0, |master| master.value);
        while self.left > 0 {
            let Some(found) = &master else { return Ok(false) };
            if budget.exhausted().is_some() || found.value < self.left as f64 - SHORT {
                return Ok(false);
            }
            // Steps first, while there is most to make them of.
            let score = |&(c, used): &(usize, f64), random: &mut Random| {
                let step = if self.columns[c].step.is_some() { 0.5 } else { 0.0 };
                (used.min(1.0) + 0.35 * random.real() + step, c, used)
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
                self.taken.push(column);
            }
            let place = self.columns[c].place;
            master = if self.left > 0 { self.again(place, random, budget)? } else { None };
        }
        Ok(true)
    }
}

/// What was taken, in the order in which requests pass it.
pub(super) fn in_order(places: usize, taken: Vec<Column>) -> Vec<Column> {
    let mut of_place: Vec<(Vec<Column>, Vec<Column>)> = vec![Default::default(); places];
    for column in taken {
        let (alone, steps) = &mut of_place[column.place];
        if column.step.is_none() { alone.push(column) } else { steps.push(column) }
    }
    let mut passed = Vec::new();
    for (place, (mut alone, mut steps)) in of_place.into_iter().enumerate() {
        // Most devices stand where requests come in and where they leave.
        alone.sort_by_key(|column| ends(&column.piece, true));
        if alone.len() > 1 && place > 0 {
            let first = (0..alone.len() - 1).max_by_key(|&i| ends(&alone[i].piece, false)).unwrap_or(0);
            alone.swap(0, first);
        }
        steps.sort_by_key(|column| column.step.map(|(share, _)| share));
        passed.extend(alone);
        passed.extend(steps);
    }
    passed
}

/// The intervals of columns that follow one another, by type.
pub(super) fn laid(passed: &[Column]) -> Laid {
    let (mut laid, mut start) = (Vec::new(), 0);
    for column in passed {
        start = column.piece.lay(start, &mut |t, from, to| laid.push((t, from, to)));
    }
    laid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reached_is_worth_what_its_parts_are() {
        let sums = sums(&[(0.0, 0.25, 4.0), (0.5, 0.75, 8.0)]);
        let cases =
            [((0.0, 1.0), 3.0), ((0.125, 0.5), 0.5), ((0.25, 0.5), 0.0), ((0.6, 0.7), 0.8), ((0.7504, 1.0), 0.0)];
        for (reach, expected) in cases {
            assert!((worth(&sums, reach) - expected).abs() < 1e-9, "{reach:?}");
        }
    }
}
