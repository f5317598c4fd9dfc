//! Series-parallel plans: regions of rails, at the highest rate for which an integer program finds enough devices.

use super::Flows;
use super::chain_rule::chain;
use super::clip::greatest_rates;
use super::replay::Carried;
use super::sites::Sites;
use super::worths::Covers;
use crate::budget::Budget;
use crate::formulation::pipelines::pipelines;
use crate::formulation::rails::{Rails, Region, Stock, divide};
use crate::formulation::solve::SolverFault;
use crate::latency::chains::Link;

/// Halvings of the distance between what is had and what is known to be impossible.
const HALVINGS: usize = 12;
/// Relative distance at which halving ends.
const NEAR: f64 = 1e-4;
/// Most distinct rates of slots that regions of three rails are made of.
const TRIPLE_MAX: usize = 24;
/// Most rails of equal rate.
const EQUAL_MAX: usize = 4;
/// Most sites whose orders are tried.
const SITES_MAX: usize = 3;

/// The best such plan faster than `rate`, no plan being faster than `above`.
pub(crate) fn search(
    flows: &Flows<'_>,
    covers: &mut Covers,
    rate: f64,
    above: f64,
    budget: &Budget<'_>,
) -> Result<Option<(Vec<Link>, Carried)>, SolverFault> {
    let (mut low, mut high) = (rate, above);
    let mut best: Option<(Vec<Link>, Carried)> = None;
    for step in 0..HALVINGS {
        if high - low <= NEAR * high || budget.exhausted().is_some() {
            break;
        }
        // First just above what is had: most often there is something.
        let target = if step == 0 { (low * 1.002).min(f64::midpoint(low, high)) } else { f64::midpoint(low, high) };
        // Ways that carry the target bind nothing, so the sites are fewer the lower it is.
        let sites = Sites::close(flows.network, target);
        if sites.members.len() > SITES_MAX {
            high = target;
            continue;
        }
        let (stock, orders) = (stock(flows, &sites), orders(&sites));
        let mut kinds = regions(&stock, target);
        kinds.extend(covers.patterns(target, budget)?);
        let mut found = None;
        for order in &orders {
            let regions = divide(&stock, &kinds, order, budget)?;
            let Some(placement) = regions.and_then(|regions| lay_out(flows, &sites, &regions)) else { continue };
            if !flows.fits(&placement) || !flows.pins(&placement) {
                continue;
            }
            let carried = flows.carried(&placement)?;
            if carried.rate > low {
                low = carried.rate;
                found = Some((placement, carried));
            }
            if low >= target {
                break;
            }
        }
        match found {
            Some(found) => best = Some(found),
            None => high = target,
        }
        high = high.max(low);
    }
    Ok(best)
}

/// The best disjoint pipelines that were found, laid out.
pub(crate) fn disjoint(
    flows: &Flows<'_>,
    above: f64,
    budget: &Budget<'_>,
) -> Result<Option<(Vec<Link>, Carried)>, SolverFault> {
    let sites = Sites::close(flows.network, above);
    let across = sites.between.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let made = pipelines(&stock(flows, &sites), across, budget)?;
    let mut waiting = waiting(flows, &sites);
    let mut placement = Vec::new();
    for pipeline in made {
        let mut devices = Vec::new();
        for (site, kinds) in pipeline.devices.iter().enumerate() {
            for (kind, &count) in kinds.iter().enumerate() {
                devices.extend((0..count).filter_map(|_| waiting[site][kind].pop()));
            }
        }
        // The ends of the model cost more than the rates of the program say, so the true rate is found again.
        if let Some((chain, _)) = chain(flows.tables, flows.network, &devices) {
            placement.extend(chain);
        }
    }
    if placement.is_empty() || !flows.fits(&placement) || !flows.pins(&placement) {
        return Ok(None);
    }
    let carried = flows.carried(&placement)?;
    Ok(Some((placement, carried)))
}

/// Devices not yet placed, by site and kind; the lowest comes last.
fn waiting(flows: &Flows<'_>, sites: &Sites) -> Vec<Vec<Vec<usize>>> {
    let mut waiting = vec![vec![Vec::new(); flows.tables.kinds.len()]; sites.members.len()];
    for (site, members) in sites.members.iter().enumerate() {
        for &device in members.iter().rev() {
            waiting[site][flows.tables.candidates[device].kind].push(device);
        }
    }
    waiting
}

fn stock(flows: &Flows<'_>, sites: &Sites) -> Stock {
    let tables = flows.tables;
    let count = |site: &Vec<usize>| {
        let mut counts = vec![0; tables.kinds.len()];
        site.iter().for_each(|&device| counts[tables.candidates[device].kind] += 1);
        counts
    };
    Stock {
        counts: sites.members.iter().map(count).collect(),
        greatest: greatest_rates(tables, flows.network),
        layers: flows.network.layers,
        between: sites.between.clone(),
    }
}

/// Orders in which sites may follow one another: all of all sites, and of all but some; of an order and its reverse
/// only the first where ways are alike in both directions.
fn orders(sites: &Sites) -> Vec<Vec<usize>> {
    let n = sites.members.len();
    let even = (0..n).all(|a| (0..n).all(|b| sites.between[a][b] == sites.between[b][a]));
    let mut orders: Vec<Vec<usize>> = Vec::new();
    let mut stack: Vec<Vec<usize>> = (0..n).map(|site| vec![site]).collect();
    while let Some(order) = stack.pop() {
        let last = order[order.len() - 1];
        stack.extend((0..n).filter(|next| !order.contains(next) && sites.between[last][*next] > 0.0).map(|next| {
            let mut longer = order.clone();
            longer.push(next);
            longer
        }));
        if !even || order[0] <= last {
            orders.push(order);
        }
    }
    orders.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
    orders
}

/// What regions at a rate may be made of: one rail; two, one of which is as fast as some slot; three, two of which are;
/// several of one rate.
pub(crate) fn regions(stock: &Stock, rate: f64) -> Vec<Rails> {
    let mut slots: Vec<f64> = stock.greatest.iter().flatten().copied().filter(|&r| r > 0.0 && r < rate).collect();
    slots.sort_by(|a, b| b.total_cmp(a));
    slots.dedup();
    let mut regions = vec![vec![rate]];
    for (i, &first) in slots.iter().enumerate() {
        regions.push(vec![first, rate - first]);
        if slots.len() > TRIPLE_MAX || stock.counts.len() > 1 {
            continue;
        }
        for &second in slots[i..].iter().filter(|&&second| first + second < rate) {
            regions.push(vec![first, second, rate - first - second]);
        }
    }
    regions.extend((2..=EQUAL_MAX).map(|rails| vec![rate / rails as f64; rails]));
    regions
}

/// Gives each rail its devices and each device its layers; none where the ends of the model, which cost more, leave no
/// way to do it.
fn lay_out(flows: &Flows<'_>, sites: &Sites, regions: &[Region]) -> Option<Vec<Link>> {
    let mut waiting = waiting(flows, sites);
    let mut placement = Vec::new();
    let mut start = 0;
    for region in regions {
        let end = start + region.layers;
        for (rate, kinds) in &region.rails {
            let mut devices = Vec::new();
            for (kind, &count) in kinds.iter().enumerate() {
                for _ in 0..count {
                    devices.push(waiting[region.site][kind].pop()?);
                }
            }
            placement.extend(lay_rail(flows, &devices, (start, end), *rate)?);
        }
        start = end;
    }
    (start == flows.network.layers).then_some(placement)
}

/// Divides layers among devices in order so that each carries `rate`; devices may be left out.
pub(crate) fn lay_rail(
    flows: &Flows<'_>,
    devices: &[usize],
    (start, end): (usize, usize),
    rate: f64,
) -> Option<Vec<Link>> {
    let (tables, network) = (flows.tables, flows.network);
    let length = end - start;
    // came[i][x]: layers that device i - 1 takes so that the first i devices hold x; none where they cannot.
    let mut came: Vec<Vec<Option<usize>>> = vec![vec![None; length + 1]; devices.len() + 1];
    came[0][0] = Some(0);
    for (i, &device) in devices.iter().enumerate() {
        let kind = tables.candidates[device].kind;
        for x in 0..=length {
            if came[i][x].is_none() {
                continue;
            }
            if came[i + 1][x].is_none() {
                came[i + 1][x] = Some(0);
            }
            for held in 1..=length - x {
                let first = start + x;
                if network.stage[kind].at(first, first + held) >= rate * (1.0 - 1e-12) {
                    came[i + 1][x + held] = Some(held);
                }
            }
        }
    }
    let mut x = length;
    let mut rail = Vec::new();
    for i in (0..devices.len()).rev() {
        let held = came[i + 1][x]?;
        if held > 0 {
            rail.push((devices[i], start + x - held, start + x));
        }
        x -= held;
    }
    rail.reverse();
    (x == 0).then_some(rail)
}
