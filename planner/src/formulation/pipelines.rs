//! Disjoint pipelines by column generation.
//!
//! A *pipeline* is a chain of devices that holds all layers at some rate; a plan of disjoint pipelines carries the sum of
//! their rates. Master program: how many of each pipeline, within the devices there are, for the highest sum. Pricing: at
//! the duals `p` of the devices and for each rate `v`, the cheapest devices that hold all layers, a device of a kind
//! holding `m(v)` of them, is a knapsack solved by dynamic programming; the pipeline is worth adding where `v` exceeds
//! its price. When none is, the continuous master is solved, and the whole-number master over the columns made gives a
//! plan.

use super::program::{Program, Relation};
use super::rails::Stock;
use super::solve::{SolverFault, Verdict, solve};
use crate::budget::Budget;

/// A kind of pipeline.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pipeline {
    /// Its rate.
    pub rate: f64,
    /// The site of its devices; none where they may be of any.
    pub site: Option<usize>,
    /// Devices, by site and kind.
    pub devices: Vec<Vec<usize>>,
}

/// Most rounds of pricing.
const ROUNDS_MAX: usize = 60;
/// Nodes of the whole-number master.
const NODES_MAX: u64 = 2000;

/// Pipelines of the highest sum of rates that was found, each as often as it is to be made. `across` is the rate up to
/// which a pipeline may have devices of several sites.
pub(crate) fn pipelines(stock: &Stock, across: f64, budget: &Budget<'_>) -> Result<Vec<Pipeline>, SolverFault> {
    let mut rates: Vec<f64> = stock.greatest.iter().flatten().copied().filter(|&r| r > 0.0).collect();
    rates.push(across);
    rates.retain(|rate| rate.is_finite());
    rates.sort_by(|a, b| b.total_cmp(a));
    rates.dedup();
    let mut columns: Vec<Pipeline> = Vec::new();
    let mut prices: Vec<Vec<f64>> = stock.counts.iter().map(|kinds| vec![0.0; kinds.len()]).collect();
    for _ in 0..ROUNDS_MAX {
        let before = columns.len();
        for &rate in &rates {
            let sites = (0..stock.counts.len()).map(Some);
            let any = (rate <= across && stock.counts.len() > 1).then_some(None);
            for site in sites.chain(any) {
                if let Some((price, pipeline)) = cheapest(stock, rate, site, &prices)
                    && rate > price * (1.0 + 1e-9) + 1e-9
                    && !columns.contains(&pipeline)
                {
                    columns.push(pipeline);
                }
            }
        }
        if columns.len() == before || budget.exhausted().is_some() {
            break;
        }
        let (program, rows) = master(stock, &columns);
        let answer = solve(&program.relaxed(), None, 0.0, budget)?;
        if answer.verdict != Verdict::Optimal {
            break;
        }
        for (prices, rows) in prices.iter_mut().zip(&rows) {
            for (price, &row) in prices.iter_mut().zip(rows) {
                *price = answer.duals[row].max(0.0);
            }
        }
    }
    let (program, _) = master(stock, &columns);
    let nodes = Budget { nodes_max: NODES_MAX.min(budget.nodes_max), progress: None, ..*budget };
    let answer = solve(&program, None, 1e-6, &nodes)?;
    let made = answer.assignment.unwrap_or_default();
    let times = |(pipeline, count): (&Pipeline, f64)| vec![pipeline.clone(); count.round().max(0.0) as usize];
    Ok(columns.iter().zip(made).flat_map(times).collect())
}

/// The master program, and its rows by site and kind.
fn master(stock: &Stock, columns: &[Pipeline]) -> (Program, Vec<Vec<usize>>) {
    let mut program = Program { maximise: true, ..Program::default() };
    let most: usize = stock.counts.iter().flatten().sum();
    let made: Vec<usize> = columns.iter().map(|p| program.column(p.rate, 0.0, most as f64, true)).collect();
    let mut rows = Vec::new();
    for (site, kinds) in stock.counts.iter().enumerate() {
        let row = |(kind, &count): (usize, &usize)| {
            let uses = |(pipeline, &column): (&Pipeline, &usize)| {
                let n = pipeline.devices[site][kind];
                (n > 0).then_some((column, n as f64))
            };
            let terms = columns.iter().zip(&made).filter_map(uses).collect();
            program.row(terms, Relation::AtMost, count as f64)
        };
        rows.push(kinds.iter().enumerate().map(row).collect());
    }
    (program, rows)
}

/// The cheapest devices that hold all layers at a rate, and their price; none where there are too few.
fn cheapest(stock: &Stock, rate: f64, site: Option<usize>, prices: &[Vec<f64>]) -> Option<(f64, Pipeline)> {
    // Single devices in turn: site, kind, layers held, price. A count is split into powers of two, so that each of
    // these bundles is taken or not.
    let mut bundles: Vec<(usize, usize, usize, usize, f64)> = Vec::new();
    for (s, kinds) in stock.counts.iter().enumerate().filter(|(s, _)| site.is_none_or(|only| only == *s)) {
        for (kind, &count) in kinds.iter().enumerate() {
            let held = stock.holds(kind, rate);
            let needed = if held > 0 { count.min(stock.layers.div_ceil(held)) } else { 0 };
            let (mut left, mut size) = (needed, 1);
            while left > 0 {
                let taken = size.min(left);
                bundles.push((s, kind, taken, taken * held, prices[s][kind] * taken as f64));
                left -= taken;
                size *= 2;
            }
        }
    }
    let layers = stock.layers;
    // Least price of holding x layers with the first bundles; fewest devices break ties.
    let mut least = vec![(f64::INFINITY, usize::MAX); layers + 1];
    least[0] = (0.0, 0);
    let mut taken = vec![vec![false; layers + 1]; bundles.len()];
    for (b, &(_, _, devices, held, price)) in bundles.iter().enumerate() {
        for x in (1..=layers).rev() {
            let before = least[x.saturating_sub(held)];
            let with = (before.0 + price, before.1.saturating_add(devices));
            if with.0 < least[x].0 || (with.0 <= least[x].0 && with.1 < least[x].1) {
                least[x] = with;
                taken[b][x] = true;
            }
        }
    }
    let (price, _) = least[layers];
    if !price.is_finite() {
        return None;
    }
    let mut devices: Vec<Vec<usize>> = stock.counts.iter().map(|kinds| vec![0; kinds.len()]).collect();
    let mut x = layers;
    for (b, &(s, kind, count, held, _)) in bundles.iter().enumerate().rev() {
        if taken[b][x] {
            devices[s][kind] += count;
            x = x.saturating_sub(held);
        }
    }
    Some((price, Pipeline { rate, site, devices }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stock(counts: &[usize], greatest: &[&[f64]], layers: usize) -> Stock {
        Stock {
            counts: vec![counts.to_vec()],
            greatest: greatest.iter().map(|r| r.to_vec()).collect(),
            layers,
            between: vec![vec![0.0]],
        }
    }

    /// Sum of rates of the best disjoint pipelines of a few devices, by trying every division.
    fn enumerated(stock: &Stock, left: &[usize]) -> f64 {
        let mut best = 0.0_f64;
        let mut part = vec![0; left.len()];
        loop {
            let Some(i) = (0..left.len()).find(|&i| part[i] < left[i]) else { return best };
            part[..i].fill(0);
            part[i] += 1;
            let holds = |rate: f64| {
                (0..part.len()).map(|kind| part[kind] * stock.holds(kind, rate)).sum::<usize>() >= stock.layers
            };
            let rates = stock.greatest.iter().flatten().copied();
            if let Some(rate) = rates.filter(|&rate| rate > 0.0 && holds(rate)).reduce(f64::max) {
                let rest: Vec<usize> = left.iter().zip(&part).map(|(l, p)| l - p).collect();
                best = best.max(rate + enumerated(stock, &rest));
            }
        }
    }

    #[test]
    fn pipelines_are_as_good_as_trying_every_division() {
        type Case<'a> = (&'a [usize], &'a [&'a [f64]], usize);
        let tables: [Case<'_>; 4] = [
            (&[3, 2], &[&[9.0, 5.0, 3.0], &[4.0, 2.0]], 3),
            (&[4], &[&[10.0, 6.0, 4.0, 3.0]], 4),
            (&[2, 2, 1], &[&[8.0, 5.0], &[6.0, 2.0], &[20.0, 12.0, 7.0, 5.0]], 4),
            (&[2], &[&[8.0]], 3),
        ];
        for (counts, greatest, layers) in tables {
            let stock = stock(counts, greatest, layers);
            let found = pipelines(&stock, f64::INFINITY, &Budget::default()).expect("solves");
            let rate: f64 = found.iter().map(|p| p.rate).sum();
            assert!((rate - enumerated(&stock, counts)).abs() < 1e-9, "{counts:?}: {rate}");
        }
    }
}
