//! Least latency of a request that has the devices to itself: one chain of stages.
//!
//! Several routes would be no better: a plan's latency is the mean over its routes, and the quickest route alone is
//! at most that.

pub(crate) mod chains;
pub(crate) mod costs;
pub(crate) mod few;
mod fronts;
pub(crate) mod labels;
mod polish;
pub(crate) mod prices;
#[cfg(test)]
mod scale;
mod several;
pub(crate) mod shares;
pub(crate) mod walk;

use crate::budget::{Budget, GAP_NONE, Limit, relative_gap};
use crate::formulation::chain::ChainProgram;
use crate::formulation::solve::{HIGHS, SolverFault, Verdict, solve};
use chains::{Band, Chains, Link, Prices, StageCount};
use isotherm_core::plan::{PathShares, WalkPart};
use labels::Ground;
use std::collections::BTreeMap;

/// Labels kept in all, per node of the budget: each takes some hundred bytes.
const LABELS_PER_NODE: u64 = 10;
/// Labels kept before prices are asked of the continuous program.
const LABELS_FIRST: u64 = 20_000;
/// Labels kept in looking for a chain of fewer stages.
const LABELS_FEWER: u64 = 20_000;
/// Labels of a layer that a first glance takes up.
const GLANCE: usize = 32;
/// Most columns of a program that is worth loading.
const COLUMNS_MAX: usize = 20_000;
/// Most columns of one that is worth solving in whole numbers.
const COLUMNS_WHOLE_MAX: usize = 8_000;
/// Additions that all steps towards better prices may take, and the fewest and most steps.
const ADDITIONS_MAX: usize = 800_000_000;
const STEPS: std::ops::RangeInclusive<usize> = 25..=3000;
/// What a chain that is only to be good gets of the steps, as a divisor.
const GOOD_SHARE: usize = 200;
/// Parts that the chains of several chunks are divided into, and then each that is left open.
const SPLITS: [usize; 2] = [12, 6];
/// Most parts: each costs the checker a table.
const PARTS_MAX: usize = 48;
/// Most parts that are each asked about every device that is left out.
const PARTS_FEW: usize = 6;

/// The chains of a band, and what is known of them.
pub(crate) struct Part {
    /// The band.
    pub band: Band,
    /// Prices that prove the bound, alone or by a search that they steer.
    pub prices: Prices,
    /// No chain of the band is quicker.
    pub bound: f64,
    /// The same by the prices alone, without a search.
    priced: f64,
    /// The same by the prices and the beginnings of walks.
    walked: f64,
    /// The classes of which a beginning of a walk uses each once; all of one device.
    once: Vec<usize>,
    /// The classes that its prices are improved with, where there are very many.
    few: Vec<usize>,
}

/// What is known about the best chain.
pub(crate) struct BestChain {
    /// The best chain found and its value in seconds.
    pub chain: Option<(Vec<Link>, f64)>,
    /// No chain is quicker; infinite where there is none.
    pub bound: f64,
    /// The same by parts, in order; together they are all chains.
    pub parts: Vec<Part>,
    /// How the bound was found.
    pub method: &'static str,
    /// Solver, where the bound is its word.
    pub solver: Option<&'static str>,
    /// Branch-and-bound nodes or labels.
    pub nodes: u64,
    /// What ended the search early.
    pub stopped: Option<Limit>,
}

/// Finds the best chain.
pub(crate) fn best_chain(chains: &Chains<'_>, budget: &Budget<'_>) -> Result<BestChain, SolverFault> {
    // Tables with a level for each stage are large, and a rule on the most stages seldom binds.
    if matches!(chains.count, StageCount::AtMost(_)) {
        let free = find(&chains.without_rule(), budget)?;
        if free.chain.as_ref().is_none_or(|(chain, _)| chains.count.allows(chain.len())) {
            return Ok(free);
        }
    }
    find(chains, budget)
}

/// A good chain, found in a moment: nothing is proved of it.
pub(crate) fn good_chain(chains: &Chains<'_>, budget: &Budget<'_>) -> Option<Vec<Link>> {
    let mut best = unsearched(chains);
    if best.bound < f64::INFINITY {
        if !chains.many() {
            glance(chains, &mut best, budget);
        }
        improve(chains, &mut best, budget, GOOD_SHARE);
        glance(chains, &mut best, budget);
    }
    best.chain.map(|(chain, _)| chain)
}

fn unsearched(chains: &Chains<'_>) -> BestChain {
    let (band, prices) = (Band::all(chains.costs), chains.no_prices());
    let bound = chains.bound(&prices, &chains.completions(&band, &prices));
    BestChain {
        chain: None,
        bound,
        parts: vec![Part { band, prices, bound, priced: bound, walked: bound, once: Vec::new(), few: Vec::new() }],
        method: "device prices",
        solver: None,
        nodes: 0,
        stopped: None,
    }
}

fn find(chains: &Chains<'_>, budget: &Budget<'_>) -> Result<BestChain, SolverFault> {
    let mut best = unsearched(chains);
    if best.bound == f64::INFINITY {
        return Ok(best);
    }
    if chains.costs.chunks == 1 || chains.count.is_rule() {
        by_parts(chains, &mut best, budget)?;
    } else {
        several::find(chains, &mut best, budget);
        // Parts by the longest stage leave less open where chains have few stages.
        if !closed(&best, budget) && !chains.many() && budget.exhausted().is_none() {
            let mut parted = BestChain { chain: best.chain.clone(), ..unsearched(chains) };
            by_parts(chains, &mut parted, budget)?;
            offer(&mut best, parted.chain.take());
            let nodes = best.nodes + parted.nodes;
            best = if parted.bound > best.bound { BestChain { chain: best.chain, ..parted } } else { best };
            best.nodes = nodes;
        }
    }
    fewest_stages(chains, &mut best, budget);
    Ok(best)
}

/// Chains in parts by their longest stage, where there are several chunks.
fn by_parts(chains: &Chains<'_>, best: &mut BestChain, budget: &Budget<'_>) -> Result<(), SolverFault> {
    if !chains.many() {
        glance(chains, best, budget);
    }
    improve(chains, best, budget, if chains.costs.chunks > 1 { 4 } else { 1 });
    glance(chains, best, budget);
    if chains.costs.chunks > 1 {
        for count in SPLITS {
            if !closed(best, budget) && budget.exhausted().is_none() {
                split(chains, best, budget, count);
            }
        }
    }
    let labels = budget.nodes_max.saturating_mul(LABELS_PER_NODE);
    if chains.costs.chunks > 1 {
        search(chains, best, budget, labels);
    } else {
        search(chains, best, budget, labels.min(LABELS_FIRST));
        if !closed(best, budget) && best.stopped == Some(Limit::Nodes) {
            program(chains, best, budget)?;
        }
        if !closed(best, budget) && best.stopped == Some(Limit::Nodes) {
            search(chains, best, budget, labels);
        }
    }
    for part in best.parts.iter_mut().filter(|part| part.priced == f64::NEG_INFINITY) {
        part.priced = chains.bound(&part.prices, &chains.completions(&part.band, &part.prices));
    }
    Ok(())
}

/// Share of a value that a bound has to reach.
fn enough(budget: &Budget<'_>) -> f64 {
    if budget.gap_target > GAP_NONE { 1.0 - budget.gap_target } else { 1.0 - 0.1 * GAP_NONE }
}

fn closed(best: &BestChain, budget: &Budget<'_>) -> bool {
    best.chain.as_ref().is_some_and(|(_, value)| relative_gap(*value, best.bound) <= budget.gap_target.max(GAP_NONE))
}

fn value(best: &BestChain) -> f64 {
    best.chain.as_ref().map_or(f64::INFINITY, |chain| chain.1)
}

/// Takes note of a chain.
fn offer(best: &mut BestChain, chain: Option<(Vec<Link>, f64)>) {
    if let Some(chain) = chain.filter(|chain| chain.1 < value(best)) {
        best.chain = Some(chain);
    }
}

/// The bound of all parts, told to whoever listens.
fn join(best: &mut BestChain, budget: &Budget<'_>) {
    let least = best.parts.iter().map(|part| part.bound).fold(f64::INFINITY, f64::min).min(value(best));
    best.bound = best.bound.max(least);
    budget.report(best.chain.as_ref().map(|c| c.1), Some(best.bound).filter(|bound| bound.is_finite()));
}

/// A chain at the prices of the part of least bound.
fn glance(chains: &Chains<'_>, best: &mut BestChain, budget: &Budget<'_>) {
    if closed(best, budget) {
        return;
    }
    // Where there are many devices, chains of few of them are looked at with their prices.
    if chains.many() && best.chain.is_some() {
        join(best, budget);
        return;
    }
    if let Some(position) = (0..best.parts.len()).min_by(|&a, &b| best.parts[a].bound.total_cmp(&best.parts[b].bound)) {
        glance_at(chains, best, budget, position);
    }
    join(best, budget);
}

/// A chain at the prices of one part.
fn glance_at(chains: &Chains<'_>, best: &mut BestChain, budget: &Budget<'_>, position: usize) {
    let part = &best.parts[position];
    let completions = chains.completions(&part.band, &part.prices);
    let ground = Ground { chains, band: &part.band, prices: &part.prices, completions: &completions };
    let found = labels::glance(ground, value(best), GLANCE, budget);
    offer(best, found);
}

/// Better prices for every part that is open, in a `share` of the steps.
fn improve(chains: &Chains<'_>, best: &mut BestChain, budget: &Budget<'_>, share: usize) {
    let additions = ADDITIONS_MAX / share;
    let steps = ((*STEPS.start() / share).max(1), *STEPS.end() / share);
    let mut order: Vec<usize> = (0..best.parts.len()).collect();
    order.sort_by(|&a, &b| best.parts[a].bound.total_cmp(&best.parts[b].bound).then(a.cmp(&b)));
    for position in order {
        let (known, enough) = (value(best), enough(budget));
        let part = &mut best.parts[position];
        if part.bound >= known * enough || budget.exhausted().is_some() {
            continue;
        }
        let effort = few::Effort { additions, steps };
        let found =
            few::search(chains, &part.band, part.prices.clone(), &mut part.few, (known, enough), effort, budget);
        part.bound = part.bound.max(found.bound);
        if found.bound > part.priced {
            (part.priced, part.prices) = (found.bound, found.prices);
        }
        offer(best, found.best);
        // In a narrow part the longest stage is known, and so is the way that a good chain takes.
        if !chains.many() && best.parts.len() > 1 && best.parts[position].bound < value(best) * enough {
            glance_at(chains, best, budget, position);
        }
        join(best, budget);
    }
}

/// Divides every part that is open by the time of its longest stage.
fn split(chains: &Chains<'_>, best: &mut BestChain, budget: &Budget<'_>, count: usize) {
    let shortest = |part: &Part| {
        let of_kind = |steps: &chains::BandSteps| steps.all.least();
        part.band.steps.iter().map(of_kind).fold(f64::INFINITY, f64::min)
    };
    let (known, enough) = (value(best), enough(budget));
    let open = best.parts.iter().filter(|part| part.bound < known * enough).count();
    let count = count.min((PARTS_MAX.saturating_sub(best.parts.len() - open) / open.max(1)).max(1));
    for part in std::mem::take(&mut best.parts) {
        let (low, high) = (shortest(&part).max(part.band.over), part.band.most.min(known));
        // Infinite without a known chain: then there is nothing to divide by.
        if part.bound >= known * enough || !(low > 0.0 && low < high && high.is_finite()) {
            best.parts.push(part);
            continue;
        }
        let ratio = high / low;
        let edge = |i: usize| low * power(ratio, i as f64 / count as f64);
        let mut over = part.band.over;
        for i in 1..=count {
            let most = if i == count { part.band.most } else { edge(i) };
            let band = Band::new(chains.costs, over, most);
            let (prices, few) = (part.prices.clone(), part.few.clone());
            // Other stages are long in it, so that the same prices may prove less.
            let unknown = f64::NEG_INFINITY;
            best.parts.push(Part {
                band,
                prices,
                bound: part.bound,
                priced: unknown,
                walked: unknown,
                once: Vec::new(),
                few,
            });
            over = most;
        }
    }
    improve(chains, best, budget, 4);
}

/// A power, by square roots and products alone, so that it is the same everywhere.
fn power(base: f64, exponent: f64) -> f64 {
    let (mut result, mut root, mut rest) = (1.0, base, exponent);
    for _ in 0..30 {
        (root, rest) = (root.sqrt(), rest * 2.0);
        if rest >= 1.0 {
            (result, rest) = (result * root, rest - 1.0);
        }
    }
    result
}

/// Searches the parts that are open, those of least bound first: exact where it ends by itself.
fn search(chains: &Chains<'_>, best: &mut BestChain, budget: &Budget<'_>, labels_max: u64) {
    let mut left = labels_max;
    best.stopped = None;
    let mut order: Vec<usize> = (0..best.parts.len()).collect();
    order.sort_by(|&a, &b| best.parts[a].bound.total_cmp(&best.parts[b].bound).then(a.cmp(&b)));
    let mut open = order.iter().filter(|&&part| best.parts[part].bound < value(best) * enough(budget)).count();
    for position in order {
        if best.parts[position].bound >= value(best) * enough(budget) {
            continue;
        }
        // Those of least bound decide, so they may keep more than an equal share.
        let share = left / open.clamp(1, 3) as u64;
        open = open.saturating_sub(1);
        let part = &best.parts[position];
        let completions = chains.completions(&part.band, &part.prices);
        let ground = Ground { chains, band: &part.band, prices: &part.prices, completions: &completions };
        let found = labels::search(ground, value(best), share, budget);
        left = left.saturating_sub(found.kept);
        best.nodes += found.labels;
        best.stopped = best.stopped.or(found.stopped);
        offer(best, found.best);
        let bound = found.bound.min(value(best));
        best.parts[position].bound = best.parts[position].bound.max(bound);
        best.method = "device prices and label-setting search";
        join(best, budget);
    }
}

/// The integer program over what can still be part of a better chain: first relaxed, for prices that may prove the
/// bound; then whole.
fn program(chains: &Chains<'_>, best: &mut BestChain, budget: &Budget<'_>) -> Result<(), SolverFault> {
    let Some(part) = best.parts.first() else { return Ok(()) };
    let known = value(best);
    let kept = chains.survivors(&part.band, &part.prices, known * (1.0 + GAP_NONE));
    if kept.len() > COLUMNS_MAX {
        return Ok(());
    }
    let by_label = best.stopped;
    let scale = if known.is_finite() { known } else { best.bound };
    let scale = if scale > 0.0 && scale.is_finite() { scale } else { 1.0 };
    let mut program = ChainProgram::new(chains, &kept, scale);
    let relaxed = solve(&program.program.relaxed(), None, 0.0, budget)?;
    if relaxed.verdict == Verdict::Optimal {
        let prices = program.prices(chains, &relaxed.duals);
        let bound = chains.bound(&prices, &chains.completions(&best.parts[0].band, &prices));
        if bound > best.bound {
            best.bound = bound;
            (best.parts[0].bound, best.parts[0].priced, best.parts[0].prices) = (bound, bound, prices);
        }
    }
    if closed(best, budget) {
        best.stopped = None;
        return Ok(());
    }
    if program.program.columns.len() > COLUMNS_WHOLE_MAX {
        best.stopped = by_label;
        return Ok(());
    }
    loop {
        let start = best.chain.as_ref().and_then(|(chain, _)| program.assignment(chain));
        let answer = solve(&program.program, start.as_deref(), budget.solver_gap(), budget)?;
        best.nodes += answer.nodes;
        let walk = answer.assignment.as_deref().map(|at| program.walk(at));
        let chain = walk.as_ref().map(|walk| chains.chain(walk));
        if let (Some(None), Some(at)) = (&chain, &answer.assignment) {
            // The solver stretched a memory pool by its tolerance.
            program.forbid(at);
            continue;
        }
        offer(best, chain.flatten().map(|chain| (chain.clone(), chains.value(&chain))));
        best.stopped = match answer.verdict {
            Verdict::Optimal | Verdict::Infeasible => None,
            Verdict::Stopped(limit) => Some(limit),
        };
        // Every chain that is not in the program is worth more than the value kept for it.
        let bound = if answer.verdict == Verdict::Infeasible { value(best) } else { answer.bound * scale };
        if bound.min(value(best)) > best.bound {
            (best.bound, best.method, best.solver) = (bound.min(value(best)), "integer program", Some(HIGHS));
        }
        return Ok(());
    }
}

/// Among chains of the best value, one of fewest stages, so that equal optima do not flip.
fn fewest_stages(chains: &Chains<'_>, best: &mut BestChain, budget: &Budget<'_>) {
    if matches!(chains.count, StageCount::Exactly(_)) || value(best) == 0.0 {
        return;
    }
    loop {
        let Some((chain, value)) = best.chain.clone().filter(|_| closed(best, budget)) else { return };
        if chain.len() < 2 || budget.exhausted().is_some() {
            return;
        }
        let limit = value * (1.0 + 4e-12);
        let fewer = chains.with_rule(StageCount::AtMost(chain.len() - 1));
        let mut found = None;
        for part in best.parts.iter().filter(|part| part.bound <= limit) {
            let completions = fewer.completions(&part.band, &part.prices);
            if fewer.bound(&part.prices, &completions) < limit {
                let ground =
                    Ground { chains: &fewer, band: &part.band, prices: &part.prices, completions: &completions };
                found = found.or(labels::search(ground, limit, LABELS_FEWER, budget).best);
            }
        }
        match found {
            Some(found) if found.0.len() < chain.len() => best.chain = Some(found),
            _ => return,
        }
    }
}

impl BestChain {
    /// Bounds that are weaker, and of less work to a checker: by prices and the beginnings of walks, and by prices
    /// alone, which any checker sees at once.
    pub fn weaker(&self) -> [f64; 2] {
        let least = |of: fn(&Part) -> f64| self.parts.iter().map(of).fold(value(self), f64::min);
        [least(|part| part.walked), least(|part| part.priced)]
    }

    /// The prices as a plan states them.
    pub fn evidence(&self, chains: &Chains<'_>) -> Vec<WalkPart> {
        let tables = chains.tables;
        let part = |part: &Part| {
            let priced = part.prices.class.iter().zip(&chains.classes).filter(|(price, _)| **price != 0.0);
            let of_class = |(price, class): (&f64, &Vec<usize>)| {
                class.iter().map(|&member| (tables.name(member).to_owned(), *price)).collect::<Vec<_>>()
            };
            let pool = |(price, pool): (&f64, &crate::tables::Pool)| {
                let device = tables.problem.graph.device(tables.candidates[pool.members[0]].id);
                Some((device.memory_pool.clone()?, *price)).filter(|_| *price > 0.0)
            };
            WalkPart {
                stage_seconds_max: Some(part.band.most).filter(|most| most.is_finite()),
                devices: priced.flat_map(of_class).collect(),
                pools: part.prices.byte.iter().zip(&tables.pools).filter_map(pool).collect::<BTreeMap<_, _>>(),
                shares: part.prices.shares.as_ref().map(|shares| {
                    let once = part.once.iter().map(|&class| tables.name(chains.classes[class][0]).to_owned());
                    PathShares { once: once.collect(), ..shares.stated(chains.costs) }
                }),
            }
        };
        self.parts.iter().map(part).collect()
    }

    /// For every candidate, a lower bound on the chains that use it, a rule on stages left aside.
    pub fn at_least_with(&self, chains: &Chains<'_>) -> Vec<f64> {
        let mut least = vec![f64::INFINITY; chains.tables.candidates.len()];
        let whole = Band::all(chains.costs);
        let weakest = self.parts.iter().min_by(|a, b| a.bound.total_cmp(&b.bound));
        // Many parts take long; all chains at once, at the prices of the part that is least sure, say less.
        let bands: Vec<(&Band, &Prices)> = match weakest {
            Some(part) if self.parts.len() > PARTS_FEW => vec![(&whole, &part.prices)],
            _ => self.parts.iter().map(|part| (&part.band, &part.prices)).collect(),
        };
        for (band, prices) in bands {
            for (class, bound) in chains.at_least_with(band, prices).into_iter().enumerate() {
                chains.classes[class].iter().for_each(|&member| least[member] = bound.min(least[member]));
            }
        }
        least
    }
}
