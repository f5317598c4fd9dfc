//! Bounds layer by layer: where worths alone leave a gap, the checker's own search of all that may be wasted closes it.
//!
//! Worths of devices that every cover of a layer pays at least 1 of add to little more than all layers, just above the
//! best plan. Which beginnings of plans waste no more than that is a search of the checker
//! ([`isotherm_core::check::layered`]), whose word is the certificate: here it is asked, rate by rate. The nearer the
//! bound, the less may be wasted and the shorter the search; so by halving, a search that takes too long counting like
//! a plan. Where it finds devices that carry the rate on all layers, they are looked at as a plan.

use super::clip::{Span, Weights};
use super::worths::{Covers, Worths};
use super::{BestFlow, Flows, Proof};
use crate::budget::Budget;
use crate::formulation::solve::SolverFault;
use crate::latency::chains::Link;
use isotherm_core::check::{Alike, LAYERED_KINDS_MAX, LAYERED_MAX, Layered, layered};
use isotherm_core::ids::Layers;
use std::collections::BTreeMap;

/// Rates looked at.
const HALVINGS: usize = 9;
/// Relative distance of rates at which halving ends.
const NEAR: f64 = 1e-4;
/// Share by which the first rate lies below the bound, where no plan is nearer.
const STRIDE: f64 = 0.02;
/// Searches in a row that may take too long.
const LONG: usize = 3;
/// Sets of devices that one search may look at before plans are searched for.
const EARLY: u64 = 60_000;
/// Sets of devices that a search may look at for each second that is left: fewer than it does.
const SETS_A_SECOND: f64 = 1e6;
/// Work of looking at one set of devices.
const SET_WORK: u64 = 20;
/// Share by which worths make up for what the checker rounds down.
const ROUNDING: f64 = 1e-11;

/// Looks for bounds of devices that may hold layers so.
pub(super) struct ByLayer<'a> {
    counts: &'a [usize],
    spans: &'a [Vec<Span>],
    /// Up to here, devices are known to hold all layers and to waste no more than they may.
    open: f64,
}

impl<'a> ByLayer<'a> {
    /// Of so many devices of each kind.
    pub const fn new(counts: &'a [usize], spans: &'a [Vec<Span>]) -> Self {
        Self { counts, spans, open: 0.0 }
    }

    /// A short look, before plans are searched for.
    pub fn early(&mut self, flows: &Flows<'_>, best: &mut BestFlow, budget: &Budget<'_>) -> Result<(), SolverFault> {
        self.look(flows, best, EARLY, budget)
    }

    /// Lowers the bound, and offers plans that the search comes across.
    pub fn lower(&mut self, flows: &Flows<'_>, best: &mut BestFlow, budget: &Budget<'_>) -> Result<(), SolverFault> {
        self.look(flows, best, LAYERED_MAX, budget)
    }

    fn look(
        &mut self,
        flows: &Flows<'_>,
        best: &mut BestFlow,
        most: u64,
        budget: &Budget<'_>,
    ) -> Result<(), SolverFault> {
        let (counts, spans) = (self.counts, self.spans);
        let (layers, kinds) = (flows.network.layers, counts.iter().filter(|&&count| count > 0).count());
        let (Ok(all), true) = (u32::try_from(layers), kinds <= LAYERED_KINDS_MAX) else { return Ok(()) };
        if flows.tables.problem.limits.partial {
            return Ok(());
        }
        let rates: Vec<Vec<(u32, f64)>> = spans.iter().map(|spans| greatest(spans)).collect();
        let mut covers = Covers::new(counts, spans, layers, Weights::PLAIN);
        let mut low = best.reach().max(self.open);
        let (mut target, mut long) = (low.max(best.bound / (1.0 + STRIDE)), 0);
        for _ in 0..HALVINGS {
            let near = best.bound - low <= NEAR * low || best.enough(budget);
            if near || long == LONG || budget.exhausted().is_some() {
                break;
            }
            let Some(worth) = covers.worths(target * (1.0 + 1e-9), budget)? else { break };
            let worth: Vec<f64> = worth.into_iter().map(|worth| worth * (1.0 + ROUNDING)).collect();
            let of_kind = |((&count, &worth), rates): ((&usize, &f64), &Vec<(u32, f64)>)| Alike {
                count,
                worth,
                rates: rates.clone(),
            };
            let devices: Vec<Alike> = counts.iter().zip(&worth).zip(&rates).map(of_kind).collect();
            // A search asks no clock.
            let most = budget.seconds_left().map_or(most, |left| most.min((left * SETS_A_SECOND) as u64));
            let (found, looked) = layered(&devices, all, target, most);
            budget.did(looked * SET_WORK);
            long = if matches!(found, Layered::Cheap(_) | Layered::Long) { long + 1 } else { 0 };
            match found {
                Layered::Impossible => {
                    best.lower(target, Proof::Layered(Worths { bound: target, worth, weights: Weights::PLAIN }));
                    best.report(budget);
                }
                Layered::Laid(laid) => {
                    (low, self.open) = (target, target);
                    offer(flows, &laid, best)?;
                }
                Layered::Cheap(_) | Layered::Long => low = target,
            }
            low = low.max(best.reach());
            target = f64::midpoint(low, best.bound);
        }
        Ok(())
    }
}

/// The greatest rate by number of layers held.
pub(super) fn greatest(spans: &[Span]) -> Vec<(u32, f64)> {
    let mut rates: BTreeMap<u32, f64> = BTreeMap::new();
    for span in spans {
        if let Ok(held) = u32::try_from(span.held) {
            let known = rates.entry(held).or_insert(0.0);
            *known = known.max(span.rate);
        }
    }
    rates.into_iter().collect()
}

/// Looks at devices that carry a rate on all layers as a plan.
fn offer(flows: &Flows<'_>, laid: &[(usize, Layers)], best: &mut BestFlow) -> Result<(), SolverFault> {
    let tables = flows.tables;
    let of_kind = |kind: usize| (0..tables.candidates.len()).rev().filter(move |&d| tables.candidates[d].kind == kind);
    let mut waiting: Vec<Vec<usize>> = (0..tables.kinds.len()).map(|kind| of_kind(kind).collect()).collect();
    let held = |&(kind, layers): &(usize, Layers)| {
        let device = waiting[kind].pop()?;
        Some((device, layers.start as usize, layers.end as usize))
    };
    let Some(placement) = laid.iter().map(held).collect::<Option<Vec<Link>>>() else { return Ok(()) };
    // One chain is asked for, which such plans are not.
    let one_chain = tables.problem.limits.stages_exact.is_some();
    if !one_chain && flows.fits(&placement) && flows.pins(&placement) {
        let carried = flows.carried(&placement)?;
        best.offer(placement, carried, "layer by layer");
    }
    Ok(())
}
