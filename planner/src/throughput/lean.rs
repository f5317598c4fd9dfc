//! Plans of few chains on which requests stay for least.
//!
//! Where Little's law leaves room for few requests, a plan is not what carries most but what carries enough in the
//! least time. For each small number of chains, each to carry its part, the chain of least residence is found among
//! devices that carry as much, then the next among the devices that are left; requests are then routed over all of
//! them.

use super::Flows;
use super::replay::Carried;
use crate::budget::Budget;
use crate::formulation::solve::SolverFault;
use crate::latency::chains::Link;

/// Most chains of a plan.
const CHAINS_MAX: usize = 8;
/// Share of a part that a chain may lack: what all of them carry is found exactly afterwards.
const LACK: f64 = 1e-9;

/// The best such plan that was found, no plan being faster than `above`; what carries `goal` is enough.
pub(super) fn search(
    flows: &Flows<'_>,
    above: f64,
    goal: f64,
    budget: &Budget<'_>,
) -> Result<Option<(Vec<Link>, Carried)>, SolverFault> {
    let (tables, network) = (flows.tables, flows.network);
    let Some(stay) = &network.stay else { return Ok(None) };
    let mut best: Option<(Vec<Link>, Carried)> = None;
    for count in 1..=CHAINS_MAX {
        let part = above / count as f64 * (1.0 - LACK);
        let mut used = vec![false; tables.candidates.len()];
        let mut placement: Vec<Link> = Vec::new();
        for _ in 0..count {
            if budget.exhausted().is_some() {
                return Ok(best);
            }
            let Some(chain) = stay.lean(tables, network, (part, &used), budget) else { break };
            chain.iter().for_each(|link| used[link.0] = true);
            placement.extend(chain);
        }
        if placement.is_empty() || !flows.fits(&placement) || !flows.pins(&placement) {
            continue;
        }
        let carried = flows.carried(&placement)?;
        if best.as_ref().is_none_or(|(_, known)| carried.rate > known.rate) {
            best = Some((placement, carried));
        }
        if best.as_ref().is_some_and(|(_, known)| known.rate >= goal) {
            break;
        }
    }
    Ok(best)
}
