//! Why there is no plan, in the words of the scenario, and the nearest thing that fits.

use crate::budget::Budget;
use crate::latency::chains::{Band, Chains, StageCount};
use crate::latency::costs::{Costs, Steps};
use crate::latency::labels::{self, Ground};
use crate::outcome::{Nearest, Reason, Reasons};
use crate::tables::{Intervals, Kind, Tables};
use crate::throughput::network::Network;
use isotherm_core::format::{bits_per_weight, known};
use isotherm_core::graph::DeviceGraph;
use isotherm_core::model::Model;
use isotherm_core::problem::PlacementProblem;
use isotherm_core::units::Bytes;
use isotherm_core::workload::Length;

/// Labels of one search for any placement.
const LABELS_MAX: u64 = 3_000;

/// One unit of memory in an answer.
const MIB: u64 = 1 << 20;

/// Reasons that need no search: nothing may hold a layer, a pin cannot be kept, all devices together are too small.
pub(crate) fn at_once(tables: &Tables<'_>) -> Option<Reasons> {
    let mut reasons = certain(tables);
    if reasons.is_empty() {
        return None;
    }
    reasons.extend(conflict(tables.problem));
    reasons.extend(nearest(tables.problem).into_iter().map(Reason::Nearest));
    Some(Reasons(reasons))
}

/// Reasons after a search that looked everywhere.
pub(crate) fn searched(tables: &Tables<'_>) -> Reasons {
    let mut reasons = match few_rates(tables) {
        Some(few) => vec![few],
        None if !joined(tables) => vec![Reason::NoWay, Reason::Conflict],
        None => vec![Reason::Conflict],
    };
    reasons.extend(conflict(tables.problem));
    reasons.extend(nearest(tables.problem).into_iter().map(Reason::Nearest));
    Reasons(reasons)
}

/// What needs no search.
pub(crate) fn certain(tables: &Tables<'_>) -> Vec<Reason> {
    let problem = tables.problem;
    let mut reasons = Vec::new();
    let name = |id| problem.graph.device(id).name.clone();
    if tables.candidates.is_empty() {
        reasons.push(Reason::NoUsableDevice);
    }
    for out in &tables.left_out {
        let device = name(out.id);
        if problem.limits.pinned.contains(&device) {
            reasons.push(Reason::PinnedUnusable { device, why: out.reason.clone() });
        } else if tables.candidates.is_empty() {
            reasons.push(Reason::LeftOut { device, why: out.reason.clone() });
        }
    }
    if !tables.candidates.is_empty() {
        reasons.extend(too_large(tables));
        let most = tables.candidates.len().min(tables.layers);
        let limits = &problem.limits;
        for asked in limits.stages_exact.into_iter().chain(limits.stages_max.filter(|&n| n == 0)) {
            if asked as usize > most || asked == 0 {
                reasons.push(Reason::Stages { asked, most: narrow(most) });
            }
        }
    }
    reasons
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Whether even with ways between all devices some layers fit nowhere.
fn too_large(tables: &Tables<'_>) -> Option<Reason> {
    let problem = tables.problem;
    let longest =
        |kind: usize| tables.kinds[kind].reach.iter().enumerate().map(|(start, &end)| end - start).max().unwrap_or(0);
    let most: usize = tables.candidates.iter().map(|c| longest(c.kind)).sum();
    if most >= tables.layers {
        return None;
    }
    let example = problem.stage_bytes(tables.candidates.first()?.id, problem.model.all_layers());
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
    Some(Reason::TooLarge {
        model: problem.model.name.clone(),
        needed: example.weights.saturating_add(example.kv),
        available,
        layers_fit: narrow(most),
        layers: narrow(tables.layers),
    })
}

/// Whether tables of rates speak of too few layers, though memory would hold more.
fn few_rates(tables: &Tables<'_>) -> Option<Reason> {
    let problem = tables.problem;
    let timed = tables.candidates.iter().all(|candidate| problem.profile(candidate.id).is_some());
    if timed || !problem.objective.serves() {
        return None;
    }
    let network = Network::new(tables, &problem.life(1));
    let longest = |kind: usize| {
        let intervals = (0..tables.layers).flat_map(|s| (s + 1..=tables.layers).map(move |e| (s, e)));
        let held = intervals.filter(|&(s, e)| network.stage[kind].at(s, e) > 0.0);
        held.map(|(s, e)| e - s).max().unwrap_or(0)
    };
    let longest: Vec<usize> = (0..tables.kinds.len()).map(longest).collect();
    let most: usize = tables.candidates.iter().map(|candidate| longest[candidate.kind]).sum();
    (most < tables.layers).then(|| Reason::Tables { layers_fit: narrow(most), layers: narrow(tables.layers) })
}

/// Whether the ways join enough devices: with all memory and no rule, is there a placement?
fn joined(tables: &Tables<'_>) -> bool {
    let mut roomy = tables.clone();
    roomy.pools.iter_mut().for_each(|pool| pool.size = u64::MAX);
    roomy.kinds.iter_mut().for_each(|kind| kind.reach.fill(tables.layers));
    roomy.candidates.iter_mut().for_each(|candidate| candidate.pinned = false);
    placeable(&roomy, StageCount::Any) != Some(false)
}

/// Whether there is any placement; none where the search was too long.
fn feasible(problem: &PlacementProblem) -> Option<bool> {
    let tables = Tables::new(problem, !problem.objective.serves());
    if !certain(&tables).is_empty() {
        return Some(false);
    }
    placeable(&tables, StageCount::of(&tables))
}

/// Whether a short search shows that there is no placement at all. With partial inference one may be without any chain of
/// stages that are passed whole.
pub(crate) fn nowhere(tables: &Tables<'_>) -> bool {
    let limits = &tables.problem.limits;
    if limits.partial {
        return false;
    }
    // Several routes may pass pinned devices between them, unless there is only one.
    let mut free = tables.clone();
    if limits.stages_exact.is_none() {
        free.candidates.iter_mut().for_each(|candidate| candidate.pinned = false);
    }
    placeable(&free, StageCount::of(&free)) == Some(false)
}

/// Whether there is any chain. A placement of several routes has at least one; its pinned devices may be on others,
/// which is left aside.
fn placeable(tables: &Tables<'_>, count: StageCount) -> Option<bool> {
    let costs = possible(tables);
    let chains = Chains::new(tables, &costs, count);
    let (band, prices) = (Band::all(&costs), chains.no_prices());
    let completions = chains.completions(&band, &prices);
    let ground = Ground { chains: &chains, band: &band, prices: &prices, completions: &completions };
    let found = labels::search(ground, 1.0, LABELS_MAX, &Budget::default());
    match (found.best, found.stopped) {
        (Some(_), _) => Some(true),
        (None, None) => Some(false),
        (None, Some(_)) => None,
    }
}

/// Costs of nothing for what is possible.
fn possible(tables: &Tables<'_>) -> Costs {
    let nothing = |possible: bool| if possible { 0.0 } else { f64::INFINITY };
    if tables.problem.objective.serves() {
        let network = Network::new(tables, &tables.problem.life(1));
        let stage = |(rates, kind): (&Intervals<f64>, &Kind)| {
            vec![Steps::of(kind, tables.layers, |s, e| nothing(rates.at(s, e) > 0.0))]
        };
        let open = |rates: &Vec<f64>| rates.iter().map(|&rate| nothing(rate > 0.0)).collect::<Vec<_>>();
        return Costs {
            layers: tables.layers,
            chunks: 1,
            stage: network.stage.iter().zip(&tables.kinds).map(stage).collect(),
            candidates: tables.candidates.len(),
            hop: vec![network.pair.iter().flat_map(open).collect()],
            message_of: vec![0],
            entry: open(&network.source),
            exit: open(&network.sink),
        };
    }
    let mut costs = Costs::decode(tables);
    for times in costs.stage.iter_mut().flatten() {
        *times = times.map(|time| nothing(time.is_finite()));
    }
    let ends = costs.entry.iter_mut().chain(&mut costs.exit);
    ends.chain(costs.hop.iter_mut().flatten()).for_each(|time| *time = nothing(time.is_finite()));
    costs
}

/// The largest `value` of `low..=high` for which a problem changed so has a plan, where more is harder.
fn most(low: u32, high: u32, changed: impl Fn(u32) -> Option<PlacementProblem>) -> Option<u32> {
    let fits = |value: u32| changed(value).is_some_and(|problem| feasible(&problem) == Some(true));
    if low > high || !fits(low) {
        return None;
    }
    let (mut fitting, mut failing) = (low, high + 1);
    while failing - fitting > 1 {
        let middle = fitting + (failing - fitting) / 2;
        if fits(middle) { fitting = middle } else { failing = middle }
    }
    Some(fitting)
}

/// Changes after which there is a plan, each by itself and as small as it can be.
fn nearest(problem: &PlacementProblem) -> Vec<Nearest> {
    let mut found = Vec::new();
    found.extend(without_rules(problem));
    let asked = problem.serving.requests_max;
    let fewer = |requests: u32| {
        let mut changed = problem.clone();
        changed.serving.requests_max = requests;
        Some(changed)
    };
    found.extend(most(1, asked.saturating_sub(1), fewer).map(|most| Nearest::Requests { most, asked }));
    let asked = problem.workload.prompt_tokens.max.saturating_add(problem.workload.output_tokens.max);
    let shorter = |tokens: u32| {
        let mut changed = problem.clone();
        let cut = |length: Length, most: u32| Length { min: length.min.min(most), max: length.max.min(most) };
        let output = problem.workload.output_tokens.max.min(tokens - 1);
        changed.workload.output_tokens = cut(problem.workload.output_tokens, output.max(1));
        changed.workload.prompt_tokens = cut(problem.workload.prompt_tokens, tokens - output.max(1));
        Some(changed)
    };
    found.extend(most(2, asked.saturating_sub(1), shorter).map(|most| Nearest::Tokens { most, asked }));
    found.extend(smaller_weights(problem));
    found.extend(more_memory(problem));
    found
}

/// Something that is asked, in words, and the problem without it.
type Demand = (String, Box<dyn Fn(&mut PlacementProblem)>);

/// Everything that is asked beside what devices and links are.
fn demands(problem: &PlacementProblem) -> Vec<Demand> {
    let (limits, serving, load) = (&problem.limits, &problem.serving, &problem.workload);
    let mut demands: Vec<Demand> = Vec::new();
    for name in &limits.pinned {
        let own = name.clone();
        demands.push((format!("pinning {name}"), Box::new(move |p| p.limits.pinned.retain(|pin| *pin != own))));
    }
    for name in &limits.banned {
        let own = name.clone();
        demands.push((format!("banning {name}"), Box::new(move |p| p.limits.banned.retain(|ban| *ban != own))));
    }
    if let Some(exact) = limits.stages_exact {
        demands.push((format!("exactly {exact} stages"), Box::new(|p| p.limits.stages_exact = None)));
    }
    if let Some(most) = limits.stages_max {
        demands.push((format!("at most {most} stages"), Box::new(|p| p.limits.stages_max = None)));
    }
    if limits.reserve_bytes > Bytes::ZERO {
        let words = format!("{} left free on every device", limits.reserve_bytes);
        demands.push((words, Box::new(|p| p.limits.reserve_bytes = Bytes::ZERO)));
    }
    if serving.requests_max > 1 {
        let words = format!("cache for {} requests at once", serving.requests_max);
        demands.push((words, Box::new(|p| p.serving.requests_max = 1)));
    }
    let longest = load.prompt_tokens.max.saturating_add(load.output_tokens.max);
    if longest > 2 {
        let words = format!("cache for requests of {longest} tokens");
        demands.push((
            words,
            Box::new(|p| (p.workload.prompt_tokens, p.workload.output_tokens) = (Length::fixed(1), Length::fixed(1))),
        ));
    }
    demands
}

/// A set of demands that leave no plan together, of which none can be left out: each is dropped in turn, and taken back
/// where there is a plan without it. None where there is no plan without all of them, or a search was too long.
fn conflict(problem: &PlacementProblem) -> Option<Reason> {
    let all = demands(problem);
    let without = |dropped: &[usize]| {
        let mut changed = problem.clone();
        dropped.iter().for_each(|&demand| all[demand].1(&mut changed));
        feasible(&changed)
    };
    if without(&(0..all.len()).collect::<Vec<_>>()) != Some(true) {
        return None;
    }
    let mut dropped = Vec::new();
    for demand in 0..all.len() {
        dropped.push(demand);
        if without(&dropped) != Some(false) {
            dropped.pop();
        }
    }
    let kept = || (0..all.len()).filter(|demand| !dropped.contains(demand));
    let any = kept().all(|demand| without(&[demand]) == Some(true));
    Some(Reason::Together { demands: kept().map(|demand| all[demand].0.clone()).collect(), any })
}

fn without_rules(problem: &PlacementProblem) -> Vec<Nearest> {
    let limits = &problem.limits;
    let mut rules: Vec<(String, PlacementProblem)> = Vec::new();
    let mut rule = |there: bool, words: String, drop: &dyn Fn(&mut PlacementProblem)| {
        if there {
            let mut changed = problem.clone();
            drop(&mut changed);
            rules.push((words, changed));
        }
    };
    let elsewhere = problem.graph.devices().iter().any(|device| device.offload.is_some());
    let held = "holding all layers in memory (write offload = true under [choices])".to_owned();
    rule(elsewhere && !limits.choices.offload && !limits.partial, held, &|p| p.limits.choices.offload = true);
    rule(limits.stages_exact.is_some(), "the exact number of stages".to_owned(), &|p| p.limits.stages_exact = None);
    rule(limits.stages_max.is_some(), "the limit on stages".to_owned(), &|p| p.limits.stages_max = None);
    for (i, name) in limits.pinned.iter().enumerate() {
        rule(true, format!("pinning {name}"), &|p| {
            p.limits.pinned.remove(i);
        });
    }
    for (i, name) in limits.banned.iter().enumerate() {
        rule(true, format!("banning {name}"), &|p| {
            p.limits.banned.remove(i);
        });
    }
    let fits = rules.into_iter().filter(|(_, changed)| feasible(changed) == Some(true));
    fits.map(|(rule, _)| Nearest::Without { rule }).collect()
}

fn smaller_weights(problem: &PlacementProblem) -> Option<Nearest> {
    let scaled = |model: &Model, percent: u32| {
        let scale = |bytes: Bytes| Bytes(bytes.0 / 100 * u64::from(percent));
        let mut model = model.clone();
        model.layer_bytes.iter_mut().for_each(|bytes| *bytes = scale(*bytes));
        (model.embedding_bytes, model.head_bytes) = (scale(model.embedding_bytes), scale(model.head_bytes));
        model
    };
    let smaller = |percent: u32| {
        let mut changed = problem.clone();
        changed.model = scaled(&problem.model, percent);
        Some(changed)
    };
    let percent = most(1, 99, smaller)?;
    let model = &problem.model;
    let bytes: u64 = model.layer_bytes.iter().map(|bytes| bytes.0).sum();
    let weights = model.layer_weights().saturating_mul(u64::from(model.layers())).max(1);
    // Layers with experts have more weights than their shape says: what the format takes is then the truth.
    let stated = bits_per_weight(&model.quantisation).unwrap_or(f64::INFINITY);
    let bits = stated.min(8.0 * bytes as f64 / weights as f64) * f64::from(percent) / 100.0;
    let format = known().into_iter().find(|name| bits_per_weight(name).is_some_and(|of_format| of_format <= bits));
    Some(Nearest::Quantisation { percent, format, present: model.quantisation.clone() })
}

/// More memory on the device that has most of it.
fn more_memory(problem: &PlacementProblem) -> Option<Nearest> {
    let usable = problem.graph.device_ids().filter(|&id| problem.usable(id) && problem.memory(id).is_some());
    let device = usable.max_by_key(|&id| (problem.memory(id), std::cmp::Reverse(id)))?;
    let enough = problem.stage_bytes(device, problem.model.all_layers()).total.0 / MIB + 1;
    let enough = u32::try_from(enough).ok()?;
    // Counted down from enough, so that more of the count is harder.
    let with = |less: u32| {
        let mut file = problem.graph.file().clone();
        let more = Bytes(u64::from(enough - less) * MIB);
        let known = file.devices[device.index()].memory_pool.clone();
        for (i, other) in file.devices.iter_mut().enumerate() {
            let shares = known.is_some() && other.memory_pool == known;
            if let Some(memory) = other.memory_bytes.as_mut().filter(|_| i == device.index() || shares) {
                memory.value = memory.value.saturating_add(more);
            }
        }
        let mut changed = problem.clone();
        changed.graph = DeviceGraph::new(file).ok()?;
        Some(changed)
    };
    let less = most(0, enough - 1, with)?;
    let more = Bytes(u64::from(enough - less) * MIB);
    Some(Nearest::Memory { device: problem.graph.device(device).name.clone(), more })
}
