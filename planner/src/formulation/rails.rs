//! Plans of regions and rails as an integer program, at a given rate `F`.
//!
//! The layers are divided into *regions*. In a region, *rails* run side by side: chains of devices from its first layer
//! to its last, whose rates add to `F`. A device on a rail of rate `v` holds `m(v)` layers at most, the largest number
//! at which it still carries `v`. Rails meet only where regions end, so such a plan needs no partial inference.
//!
//! Where ways between *sites* are slow, the sites follow one another in a given order, and each begins and ends with a
//! region whose rails and those across the border can hand over `F` within what the ways carry.
//!
//! Columns: `l[place, region]`, layers of a kind of region at a place (the beginning, middle or end of a site);
//! `u[place, region, rail, kind]`, devices on a rail; `b[place, region]`, whether a border is made so. Rows: every rail is
//! as long as its region; there are so many devices; borders fit. Positions do not appear, so there is nothing to permute.
//! The program asks for the most layers; the rate is had where these are all.

use super::program::{Program, Relation};
use super::solve::{SolverFault, Verdict, solve};
use crate::budget::Budget;
use crate::throughput::blocks::handed;

/// Rates of the rails of a region; they add to the rate asked for.
pub(crate) type Rails = Vec<f64>;

/// A region with its devices.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Region {
    /// The site.
    pub site: usize,
    /// Number of layers.
    pub layers: usize,
    /// Rate, and devices by kind, of each rail.
    pub rails: Vec<(f64, Vec<usize>)>,
}

/// Regions kept for the integer program after the continuous one.
const REGIONS_MAX: usize = 48;
/// Nodes of one integer program.
const NODES_MAX: u64 = 400;
/// The same for one site among several.
const SITE_REGIONS_MAX: usize = 32;
/// Nodes of its program.
const SITE_NODES_MAX: u64 = 60;

/// What rails may be made of.
pub(crate) struct Stock {
    /// Number of devices, by site and kind.
    pub counts: Vec<Vec<usize>>,
    /// Greatest rate by kind and number of layers from 1.
    pub greatest: Vec<Vec<f64>>,
    /// Layers of the model.
    pub layers: usize,
    /// Rate of a way between two sites.
    pub between: Vec<Vec<f64>>,
}

impl Stock {
    /// Most layers with which a device of a kind carries `rate`.
    pub fn holds(&self, kind: usize, rate: f64) -> usize {
        let carries = |&greatest: &f64| greatest >= rate * (1.0 - 1e-12);
        self.greatest[kind].iter().rposition(carries).map_or(0, |i| i + 1)
    }
}

/// Whether rails of one site can hand everything to rails of another, each pair of devices by a way of `rate`: no cut
/// of the complete bipartite network between them is smaller than the whole.
pub(crate) fn hands_over(from: &[f64], to: &[f64], rate: f64) -> bool {
    handed(from, to, rate) >= from.iter().sum::<f64>() * (1.0 - 1e-9)
}

/// Regions that cover all layers at the rate that `kinds` were made for, sites in this order; none where none were
/// found. Errors: the solver failed.
pub(crate) fn divide(
    stock: &Stock,
    kinds: &[Rails],
    order: &[usize],
    budget: &Budget<'_>,
) -> Result<Option<Vec<Region>>, SolverFault> {
    let build = |kinds: Vec<Rails>| RailProgram::new(stock, kinds, order);
    let found = choose(kinds, REGIONS_MAX, NODES_MAX, stock.layers, &build, budget)?;
    Ok(found.filter(|regions| regions.iter().map(|region| region.layers).sum::<usize>() == stock.layers))
}

/// Which kinds of regions may stand at an end of a site; any where nothing is asked.
pub(crate) type Door<'a> = Option<&'a dyn Fn(&Rails) -> bool>;

/// Regions of one site, as many layers as were found up to the stock's, of which the first and the last satisfy what lies
/// beyond them; none where there are no such regions. Errors: the solver failed.
pub(crate) fn fill(
    stock: &Stock,
    kinds: &[Rails],
    (begin, end): (Door<'_>, Door<'_>),
    least: usize,
    budget: &Budget<'_>,
) -> Result<Option<Vec<Region>>, SolverFault> {
    let build = |kinds: Vec<Rails>| RailProgram::between(stock, kinds, begin, end);
    choose(kinds, SITE_REGIONS_MAX, SITE_NODES_MAX, least, &build, budget)
}

/// The regions of the program that `build` makes of the kinds that are of most use; none where they are fewer than the
/// least layers for certain, or none were found.
fn choose(
    kinds: &[Rails],
    kinds_max: usize,
    nodes_max: u64,
    least: usize,
    build: &dyn Fn(Vec<Rails>) -> RailProgram,
    budget: &Budget<'_>,
) -> Result<Option<Vec<Region>>, SolverFault> {
    let whole = build(kinds.to_vec());
    let relaxed = solve(&whole.program.relaxed(), None, 0.0, budget)?;
    let Some(at) = relaxed.assignment.filter(|_| relaxed.verdict == Verdict::Optimal) else { return Ok(None) };
    if whole.program.value(&at) < least as f64 - 1e-6 {
        return Ok(None);
    }
    let mut program = whole;
    if kinds.len() > kinds_max {
        // Regions of use to the continuous program, then those that miss it by least: the price of their rails.
        let used = |kind: usize| program.blocks.iter().filter(|b| b.kind == kind).map(|b| at[b.length]).sum::<f64>();
        let price = |kind: usize| {
            let of_kind = program.blocks.iter().filter(|b| b.kind == kind);
            let prices = of_kind.map(|b| b.rows.iter().map(|&row| relaxed.duals[row].abs()).sum::<f64>());
            prices.fold(f64::INFINITY, f64::min)
        };
        let rank = |kind: usize| if used(kind) > 1e-7 { -used(kind) } else { price(kind) };
        let mut ranked: Vec<(f64, usize)> = (0..kinds.len()).map(|kind| (rank(kind), kind)).collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut kept: Vec<usize> = ranked.into_iter().take(kinds_max).map(|(_, kind)| kind).collect();
        kept.sort_unstable();
        program = build(kept.into_iter().map(|kind| kinds[kind].clone()).collect());
    }
    let nodes = Budget { nodes_max: nodes_max.min(budget.nodes_max), progress: None, ..*budget };
    let answer = solve(&program.program, None, 1e-6, &nodes)?;
    Ok(answer.assignment.map(|at| program.regions(&at)))
}

/// A kind of region at a place.
struct Block {
    site: usize,
    kind: usize,
    /// `l`.
    length: usize,
    /// `b`, where the place is a border.
    border: Option<usize>,
    /// Row of each rail.
    rows: Vec<usize>,
    /// `u`, by rail and kind of device.
    devices: Vec<Vec<Option<usize>>>,
}

struct RailProgram {
    program: Program,
    kinds: Vec<Rails>,
    /// In the order of the places.
    blocks: Vec<Block>,
}

impl RailProgram {
    fn new(stock: &Stock, kinds: Vec<Rails>, order: &[usize]) -> Self {
        let program = Program { maximise: true, ..Program::default() };
        let mut built = Self { program, kinds, blocks: Vec::new() };
        let mut used: Vec<Vec<Vec<(usize, f64)>>> =
            stock.counts.iter().map(|kinds| vec![Vec::new(); kinds.len()]).collect();
        // Blocks at the end of the site before.
        let mut before: Option<(usize, std::ops::Range<usize>)> = None;
        for (i, &site) in order.iter().enumerate() {
            let begins = (i > 0).then(|| built.place(stock, site, true, &mut used));
            if let (Some((other, ends)), Some(begins)) = (before.take(), begins) {
                built.meet(ends, begins, stock.between[other][site]);
            }
            built.place(stock, site, false, &mut used);
            if i + 1 < order.len() {
                before = Some((site, built.place(stock, site, true, &mut used)));
            }
        }
        let all = built.blocks.iter().map(|block| (block.length, 1.0)).collect();
        built.program.row(all, Relation::AtMost, stock.layers as f64);
        for (kinds, counts) in used.into_iter().zip(&stock.counts) {
            for (terms, &count) in kinds.into_iter().zip(counts) {
                built.program.row(terms, Relation::AtMost, count as f64);
            }
        }
        built
    }

    /// One site, whose ends may ask for regions of some kinds only.
    fn between(stock: &Stock, kinds: Vec<Rails>, begin: Door<'_>, end: Door<'_>) -> Self {
        let program = Program { maximise: true, ..Program::default() };
        let mut built = Self { program, kinds, blocks: Vec::new() };
        let mut used = vec![vec![Vec::new(); stock.counts[0].len()]];
        for (door, here) in [(begin, begin.is_some()), (None, true), (end, end.is_some())] {
            if !here {
                continue;
            }
            for b in built.place(stock, 0, door.is_some(), &mut used) {
                if door.is_some_and(|fits| !fits(&built.kinds[built.blocks[b].kind])) {
                    built.program.columns[built.blocks[b].length].upper = 0.0;
                }
            }
        }
        let all = built.blocks.iter().map(|block| (block.length, 1.0)).collect();
        built.program.row(all, Relation::AtMost, stock.layers as f64);
        for (terms, &count) in used.into_iter().flatten().zip(&stock.counts[0]) {
            built.program.row(terms, Relation::AtMost, count as f64);
        }
        built
    }

    /// A block of each kind of region. A border has exactly one of them, of at least one layer.
    fn place(
        &mut self,
        stock: &Stock,
        site: usize,
        border: bool,
        used: &mut [Vec<Vec<(usize, f64)>>],
    ) -> std::ops::Range<usize> {
        let first = self.blocks.len();
        for kind in 0..self.kinds.len() {
            let program = &mut self.program;
            let length = program.column(1.0, 0.0, stock.layers as f64, true);
            let made = border.then(|| {
                let made = program.column(0.0, 0.0, 1.0, true);
                program.row(vec![(length, 1.0), (made, -1.0)], Relation::AtLeast, 0.0);
                program.row(vec![(length, 1.0), (made, -(stock.layers as f64))], Relation::AtMost, 0.0);
                made
            });
            let mut block = Block { site, kind, length, border: made, rows: Vec::new(), devices: Vec::new() };
            for &rate in &self.kinds[kind] {
                let mut terms = vec![(length, -1.0)];
                let devices = (0..stock.counts[site].len()).map(|device| {
                    let (held, count) = (stock.holds(device, rate), stock.counts[site][device]);
                    (held > 0 && count > 0).then(|| {
                        let column = program.column(0.0, 0.0, count as f64, true);
                        terms.push((column, held as f64));
                        used[site][device].push((column, 1.0));
                        column
                    })
                });
                block.devices.push(devices.collect());
                block.rows.push(program.row(terms, Relation::AtLeast, 0.0));
            }
            self.blocks.push(block);
        }
        let places = first..self.blocks.len();
        if border {
            let terms = self.blocks[places.clone()].iter().filter_map(|b| b.border).map(|b| (b, 1.0)).collect();
            self.program.row(terms, Relation::Equal, 1.0);
        }
        places
    }

    /// A border's two sides can hand over.
    fn meet(&mut self, ends: std::ops::Range<usize>, begins: std::ops::Range<usize>, rate: f64) {
        for (near, far, forward) in [(&ends, &begins, true), (&begins, &ends, false)] {
            for i in near.clone() {
                let fits = |j: &usize| {
                    let (a, b) = (&self.kinds[self.blocks[i].kind], &self.kinds[self.blocks[*j].kind]);
                    if forward { hands_over(a, b, rate) } else { hands_over(b, a, rate) }
                };
                let others = far.clone().filter(fits).filter_map(|j| self.blocks[j].border);
                let mut terms: Vec<(usize, f64)> = others.map(|b| (b, -1.0)).collect();
                terms.extend(self.blocks[i].border.map(|b| (b, 1.0)));
                self.program.row(terms, Relation::AtMost, 0.0);
            }
        }
    }

    fn regions(&self, at: &[f64]) -> Vec<Region> {
        let number = |column: usize| at[column].round().max(0.0) as usize;
        let region = |block: &Block| {
            let rail = |(rate, columns): (&f64, &Vec<Option<usize>>)| {
                (*rate, columns.iter().map(|column| column.map_or(0, number)).collect())
            };
            Region {
                site: block.site,
                layers: number(block.length),
                rails: self.kinds[block.kind].iter().zip(&block.devices).map(rail).collect(),
            }
        };
        self.blocks.iter().map(region).filter(|region| region.layers > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sender_needs_two_takers_where_a_way_carries_half() {
        assert!(!hands_over(&[10.0], &[10.0], 5.0));
        assert!(hands_over(&[10.0], &[5.0, 5.0], 5.0));
        assert!(!hands_over(&[10.0], &[7.0, 3.0], 5.0));
        assert!(hands_over(&[6.0, 4.0], &[7.0, 3.0], 5.0));
        assert!(hands_over(&[10.0], &[10.0], f64::INFINITY));
    }

    #[test]
    fn two_kinds_side_by_side_cover_what_neither_does_alone() {
        // Ten layers at rate 10. Fast devices carry 10 with 3 layers, slow ones 5 with 4: three fast hold 9 layers,
        // six slow ones in two rails the last.
        let greatest = vec![vec![30.0, 15.0, 10.0], vec![20.0, 10.0, 7.0, 5.0]];
        let greatest: Vec<Vec<f64>> = greatest
            .into_iter()
            .map(|mut rates| {
                rates.resize(10, 0.0);
                rates
            })
            .collect();
        let stock = |slow| Stock {
            counts: vec![vec![3, slow]],
            greatest: greatest.clone(),
            layers: 10,
            between: vec![vec![0.0]],
        };
        let kinds = [vec![10.0], vec![5.0, 5.0]];
        let found = divide(&stock(2), &kinds, &[0], &Budget::default()).expect("solves");
        assert_eq!(found.map(|regions| regions.iter().map(|r| r.layers).sum::<usize>()), Some(10));
        assert_eq!(divide(&stock(0), &kinds, &[0], &Budget::default()).expect("solves"), None);
    }
}
