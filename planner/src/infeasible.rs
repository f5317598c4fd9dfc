//! Why there is no plan, in the words of the scenario.

use crate::outcome::{Reason, Reasons};
use crate::tables::Tables;
use isotherm_core::units::Bytes;

/// Reasons that need no search: nothing may hold a layer, a pin cannot be kept, all devices together are too small.
pub(crate) fn at_once(tables: &Tables<'_>) -> Option<Reasons> {
    let problem = tables.problem;
    let mut reasons = Vec::new();
    for out in &tables.left_out {
        let device = problem.graph.device(out.id).name.clone();
        if problem.limits.pinned.contains(&device) {
            reasons.push(Reason::PinnedUnusable { device, why: out.reason.clone() });
        }
    }
    if tables.candidates.is_empty() {
        reasons.insert(0, Reason::NoUsableDevice);
        for out in &tables.left_out {
            let device = problem.graph.device(out.id).name.clone();
            reasons.push(Reason::LeftOut { device, why: out.reason.clone() });
        }
    } else {
        reasons.extend(too_large(tables));
        let most = tables.candidates.len().min(tables.layers);
        let asked = problem.limits.stages_exact.map(|n| n as usize);
        if let Some(asked) = asked.filter(|&n| n > most || n == 0) {
            let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            reasons.push(Reason::Stages { asked: narrow(asked), most: narrow(most) });
        }
    }
    (!reasons.is_empty()).then_some(Reasons(reasons))
}

/// Reasons after a search that looked everywhere.
pub(crate) fn searched(tables: &Tables<'_>) -> Reasons {
    Reasons(too_large(tables).into_iter().chain([Reason::Conflict]).collect())
}

/// Whether even with ways between all devices some layers fit nowhere.
fn too_large(tables: &Tables<'_>) -> Option<Reason> {
    let problem = tables.problem;
    let most: usize = tables
        .candidates
        .iter()
        .map(|c| tables.kinds[c.kind].reach.iter().enumerate().map(|(start, &end)| end - start).max().unwrap_or(0))
        .sum();
    if most >= tables.layers {
        return None;
    }
    let all = problem.model.all_layers();
    let example = problem.stage_bytes(tables.candidates.first()?.id, all);
    let mut seen = vec![false; tables.pools.len()];
    let available = tables
        .candidates
        .iter()
        .filter(|c| c.pool.is_none_or(|pool| !std::mem::replace(&mut seen[pool], true)))
        .map(|c| match c.pool {
            Some(pool) => Bytes(tables.pools[pool].size),
            None => problem.memory(c.id).unwrap_or(Bytes::ZERO),
        })
        .sum();
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Some(Reason::TooLarge {
        model: problem.model.name.clone(),
        needed: example.weights.saturating_add(example.kv),
        available,
        layers_fit: narrow(most),
        layers: narrow(tables.layers),
    })
}
