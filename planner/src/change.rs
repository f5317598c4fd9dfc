//! From a running plan to the next: what is held stays where it is as far as it can.
//!
//! A device that is gone leaves layers behind. The *least* that any plan has to move are the bytes of the layers that
//! nobody holds any more. Repairs keep every stage that is still there, and give what a lost one held to its neighbours,
//! which hold more for it, to a device that held nothing, or to both; what they carry then is a flow over all routes. Of
//! the repairs that move little the best is taken; a plan from scratch replaces it only where it is better by more than a
//! stated share and earns back, within a stated time, what moving costs.

use crate::assemble::{Found, Parts, assemble, certify};
use crate::budget::Budget;
use crate::door::{self, unused_for};
use crate::latency::chains::Link;
use crate::outcome::{Outcome, PlanError};
use crate::sustained;
use crate::tables::{Tables, interval};
use crate::throughput::Flows;
use crate::throughput::network::Network;
use isotherm_core::ids::Layers;
use isotherm_core::plan::Plan;
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::sustained::Envelope;
use isotherm_core::units::{Bytes, BytesPerSecond, Seconds};

/// Repairs that are valued, of those that look best.
const VALUED_MAX: usize = 24;

/// How a change is weighed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighing {
    /// Most bytes that a repair may move, as a multiple of the least.
    pub moved_max: f64,
    /// Whether what lost devices held may be moved too where others hold it still: to serve as much as before.
    pub restore: bool,
    /// Whether a plan from scratch is considered too.
    pub afresh: Option<Afresh>,
}

impl Default for Weighing {
    fn default() -> Self {
        Self { moved_max: 1.2, restore: false, afresh: None }
    }
}

/// When a plan from scratch replaces what runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Afresh {
    /// Share by which it has to be better.
    pub hysteresis: f64,
    /// Time within which it has to earn back what moving costs.
    pub horizon: Seconds,
    /// Rate at which a device takes in weights.
    pub rate: BytesPerSecond,
}

/// How a plan came of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Nothing is gone: it stays.
    Kept,
    /// What is left of it serves, or what was lost was given to others.
    Repaired,
    /// Planned from scratch.
    Afresh,
}

/// A plan that replaces a running one.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The plan.
    pub outcome: Outcome,
    /// How it came about.
    pub way: Way,
    /// Bytes that devices take in which they did not hold.
    pub moved: Bytes,
    /// What any plan has to move: the layers that nobody holds any more.
    pub least: Bytes,
    /// What moves where.
    pub moves: Vec<Move>,
}

/// Layers that a device takes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The device.
    pub device: String,
    /// The layers that its stage will hold.
    pub layers: Layers,
    /// Bytes that it does not hold yet.
    pub bytes: Bytes,
}

/// The plan that replaces `old` on the devices that the problem still has. None where no plan was found.
///
/// # Errors
/// The solver failed, or the checker refused what was found.
pub fn change(
    problem: &PlacementProblem,
    old: &Plan,
    weighing: &Weighing,
    budget: &Budget<'_>,
) -> Result<Option<Change>, PlanError> {
    let least = least(problem, old);
    let kept = repaired(problem, old, weighing, least)?;
    let Some(afresh) = weighing.afresh.or_else(|| kept.is_none().then(never)) else { return Ok(kept) };
    let outcome = door::plan(problem, budget)?;
    let Some(plan) = outcome.plan().map(|found| found.plan().clone()) else { return Ok(kept) };
    let moves = moves(problem, old, &plan);
    let moved = total(&moves);
    let fresh = Change { outcome, way: Way::Afresh, moved, least, moves };
    let Some(kept) = kept else { return Ok(Some(fresh)) };
    Ok(Some(if pays(problem, &kept, &fresh, afresh) { fresh } else { kept }))
}

const fn never() -> Afresh {
    Afresh { hysteresis: f64::INFINITY, horizon: Seconds::ZERO, rate: BytesPerSecond::ZERO }
}

/// Whether the second plan is worth its moves.
fn pays(problem: &PlacementProblem, kept: &Change, fresh: &Change, afresh: Afresh) -> bool {
    let value = |change: &Change| change.outcome.plan().and_then(|found| found.plan().objective_value).unwrap_or(0.0);
    // A time per token is a rate of one request.
    let pace = |change: &Change| if problem.objective.maximises() { value(change) } else { 1.0 / value(change) };
    let (now, then) = (pace(kept), pace(fresh));
    // Devices take in their parts at once; the largest sets the time.
    let slowest = |change: &Change| change.moves.iter().map(|one| one.bytes.0).max().unwrap_or(0) as f64;
    let left = |change: &Change| {
        if afresh.rate <= BytesPerSecond::ZERO {
            return if slowest(change) > 0.0 { 0.0 } else { afresh.horizon.value() };
        }
        (afresh.horizon.value() - slowest(change) / afresh.rate.value()).max(0.0)
    };
    then > now * (1.0 + afresh.hysteresis) && then * left(fresh) > now * left(kept)
}

/// Bytes of the layers that no device of the problem holds any more, each taken in once.
#[must_use]
pub fn least(problem: &PlacementProblem, old: &Plan) -> Bytes {
    let held: Vec<Layers> = surviving(problem, old).into_iter().map(|(_, layers)| layers).collect();
    let bare = |layer: &u32| !held.iter().any(|layers| layers.start <= *layer && *layer < layers.end);
    let (model, last) = (&problem.model, problem.layers().saturating_sub(1));
    let (first_bare, last_bare) = (bare(&0), bare(&last));
    let lost = (0..problem.layers()).filter(bare).filter_map(|layer| model.layer_bytes.get(layer as usize).copied());
    let body: Bytes = lost.sum();
    // Where embedding and head are one matrix, who holds one of them may be who takes in the other.
    let ends = match (model.tied, first_bare, last_bare) {
        (true, true, true) => model.embedding_bytes,
        (true, ..) => Bytes::ZERO,
        (false, first, last) => {
            let embedding = if first { model.embedding_bytes } else { Bytes::ZERO };
            embedding.saturating_add(if last { model.head_bytes } else { Bytes::ZERO })
        }
    };
    body.saturating_add(ends)
}

/// Stages of a plan whose device may still hold them, with their position.
fn surviving(problem: &PlacementProblem, old: &Plan) -> Vec<(usize, Layers)> {
    let stays = |stage: &&(usize, &isotherm_core::plan::Stage)| {
        let known = |name: &String| problem.graph.find(name).is_some_and(|id| problem.usable(id));
        !stage.1.devices.is_empty() && stage.1.devices.iter().all(known)
    };
    let all: Vec<(usize, &isotherm_core::plan::Stage)> = old.stages.iter().enumerate().collect();
    all.iter().filter(stays).map(|(i, stage)| (*i, stage.layers)).collect()
}

/// What devices of a plan take in beyond what they hold under another: whole layers, embedding and head, in the format of
/// the new stage.
#[must_use]
pub fn moves(problem: &PlacementProblem, old: &Plan, new: &Plan) -> Vec<Move> {
    let mut all = Vec::new();
    for stage in &new.stages {
        for device in &stage.devices {
            let Some(id) = problem.graph.find(device) else { continue };
            let bytes = |layers: Layers| problem.chosen(new).weight_bytes(id, layers);
            let before = old.stages.iter().find(|before| {
                before.devices.contains(device)
                    && before.quantisation == stage.quantisation
                    && before.devices.len() == stage.devices.len()
            });
            let common = before.map(|before| {
                let (start, end) =
                    (before.layers.start.max(stage.layers.start), before.layers.end.min(stage.layers.end));
                if start < end { bytes(Layers::new(start, end)) } else { Bytes::ZERO }
            });
            let taken = bytes(stage.layers).saturating_sub(common.unwrap_or(Bytes::ZERO));
            if taken > Bytes::ZERO {
                all.push(Move { device: device.clone(), layers: stage.layers, bytes: taken });
            }
        }
    }
    all
}

fn total(moves: &[Move]) -> Bytes {
    moves.iter().map(|one| one.bytes).sum()
}

/// The best repair that moves little; none where there is none, or where devices hold stages together.
fn repaired(
    problem: &PlacementProblem,
    old: &Plan,
    weighing: &Weighing,
    least: Bytes,
) -> Result<Option<Change>, PlanError> {
    if old.stages.iter().any(|stage| stage.devices.len() != 1) {
        return Ok(None);
    }
    let chosen = problem.chosen(old);
    let tables = Tables::new(&chosen, !chosen.objective.serves());
    let position = |name: &str| (0..tables.candidates.len()).find(|&device| tables.name(device) == name);
    let fits = |link: &Link| link.2 <= tables.kind(link.0).reach[link.1];
    let (mut kept, mut lost): (Vec<Link>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
    for stage in &old.stages {
        let (start, end) = (stage.layers.start as usize, stage.layers.end as usize);
        let holds = end <= tables.layers && start < end;
        let device = stage.devices.first().and_then(|name| position(name)).filter(|_| holds);
        match device.map(|device| (device, start, end)).filter(fits) {
            Some(link) => kept.push(link),
            None if holds => lost.push((start, end)),
            None => {}
        }
    }
    let spares: Vec<usize> =
        (0..tables.candidates.len()).filter(|device| !kept.iter().any(|link| link.0 == *device)).collect();
    let mut ways: Vec<Vec<Link>> = vec![kept.clone()];
    for &(start, end) in &lost {
        let more = ways.iter().flat_map(|way| filled(&tables, way, &spares, start, end)).collect::<Vec<_>>();
        ways.extend(more);
        rank(&tables, &kept, &mut ways);
    }
    let held = |&(start, end): &(usize, usize)| problem.model.weight_bytes(interval(start, end));
    let wanted = if weighing.restore { lost.iter().map(held).sum() } else { least };
    let room = Bytes((wanted.0 as f64 * weighing.moved_max.max(1.0)).ceil() as u64);
    let mut best: Option<Change> = None;
    ways.retain(|way| *way != kept);
    for placement in std::iter::once(kept).chain(ways.into_iter().take(VALUED_MAX)) {
        let Some(plan) = planned(&tables, problem, old, &placement)? else { continue };
        let Some(found) = plan.plan().map(|found| found.plan().clone()) else { continue };
        let moves = moves(problem, old, &found);
        let moved = total(&moves);
        let way = if lost.is_empty() && moves.is_empty() { Way::Kept } else { Way::Repaired };
        let next = Change { outcome: plan, way, moved, least, moves };
        if best.as_ref().is_none_or(|known| ahead(problem, &next, known, room)) {
            best = Some(next);
        }
    }
    Ok(best)
}

/// Whether a repair is preferred to another: one that moves no more than there is room for, then the better.
fn ahead(problem: &PlacementProblem, next: &Change, known: &Change, room: Bytes) -> bool {
    let value = |change: &Change| change.outcome.plan().and_then(|found| found.plan().objective_value).unwrap_or(0.0);
    let better = if problem.objective.maximises() { value(next) > value(known) } else { value(next) < value(known) };
    match (next.moved <= room, known.moved <= room) {
        (true, true) => better,
        (false, false) => next.moved < known.moved,
        (within, _) => within,
    }
}

/// The placements in which a lost interval is held again: by stages before and after it that hold more, by a device that
/// held nothing, or by both.
fn filled(tables: &Tables<'_>, kept: &[Link], spares: &[usize], start: usize, end: usize) -> Vec<Vec<Link>> {
    let mut befores: Vec<Option<usize>> = (0..kept.len()).filter(|&i| kept[i].2 == start).map(Some).collect();
    let mut afters: Vec<Option<usize>> = (0..kept.len()).filter(|&i| kept[i].1 == end).map(Some).collect();
    befores.push(None);
    afters.push(None);
    let idle: Vec<usize> = spares.iter().copied().filter(|spare| !kept.iter().any(|link| link.0 == *spare)).collect();
    let mut ways = Vec::new();
    for before in &befores {
        for after in &afters {
            for from in start..=if before.is_some() { end } else { start } {
                for to in if after.is_some() { from } else { end }..=end {
                    for filler in fillers(tables, &idle, from, to) {
                        let mut way = kept.to_vec();
                        if let Some(before) = *before {
                            way[before].2 = from;
                        }
                        if let Some(after) = *after {
                            way[after].1 = to;
                        }
                        way.extend(filler);
                        let fits = |link: &Link| link.2 <= tables.kind(link.0).reach[link.1];
                        if way != kept && way.iter().all(fits) {
                            ways.push(way);
                        }
                    }
                }
            }
        }
    }
    ways
}

/// Ways to hold an interval by devices of one kind that hold nothing, as evenly as layers allow: by as few as can, by a
/// few more, and by as many as there are. One way without any device where there is nothing to hold.
fn fillers(tables: &Tables<'_>, idle: &[usize], from: usize, to: usize) -> Vec<Vec<Link>> {
    let layers = to - from;
    if layers == 0 {
        return vec![Vec::new()];
    }
    let mut ways: Vec<Vec<Link>> = Vec::new();
    for kind in 0..tables.kinds.len() {
        let alike: Vec<usize> = idle.iter().copied().filter(|&spare| tables.candidates[spare].kind == kind).collect();
        let most = alike.len().min(layers);
        let even = |count: usize| -> Vec<Link> {
            let cut = |i: usize| from + layers * i / count;
            (0..count).map(|i| (alike[i], cut(i), cut(i + 1))).collect()
        };
        let fits = |way: &Vec<Link>| way.iter().all(|link| link.2 <= tables.kinds[kind].reach[link.1]);
        let able: Vec<Vec<Link>> = (1..=most).map(even).filter(fits).collect();
        ways.extend(able.iter().take(3).cloned());
        ways.extend(able.last().filter(|_| able.len() > 3).cloned());
    }
    ways
}

/// The placements in the order in which they look best, and as few as may be valued: by the slowest stage that is not as
/// it was, layers that nobody holds last.
fn rank(tables: &Tables<'_>, kept: &[Link], ways: &mut Vec<Vec<Link>>) {
    let problem = tables.problem;
    let life = problem.life(problem.batches().first().copied().unwrap_or(1));
    let score = |way: &Vec<Link>| {
        let bare =
            (0..tables.layers).filter(|layer| !way.iter().any(|link| link.1 <= *layer && *layer < link.2)).count();
        let slowest = way.iter().filter(|link| !kept.contains(link)).map(|&(device, start, end)| {
            let (id, layers) = (tables.candidates[device].id, interval(start, end));
            match problem.objective {
                Objective::Tpot => problem.decode_time(id, layers).map_or(0.0, |time| -time.value()),
                Objective::Ttft => problem.prefill_time(id, layers).map_or(0.0, |time| -time.value()),
                _ => problem.rate(id, layers, &life).map_or(0.0, |rate| rate.value()),
            }
        });
        let sum = if problem.objective.serves() { slowest.fold(f64::INFINITY, f64::min) } else { slowest.sum() };
        (bare, sum)
    };
    let mut scored: Vec<((usize, f64), Vec<Link>)> = ways.drain(..).map(|way| (score(&way), way)).collect();
    scored.sort_by(|a, b| a.0.0.cmp(&b.0.0).then(b.0.1.total_cmp(&a.0.1)));
    ways.extend(scored.into_iter().map(|(_, way)| way).take(VALUED_MAX));
}

/// The plan of a placement with what its routes carry, within heat and power; none where it carries nothing.
fn planned(
    tables: &Tables<'_>,
    problem: &PlacementProblem,
    old: &Plan,
    placement: &[Link],
) -> Result<Option<Outcome>, PlanError> {
    let chosen = tables.problem;
    let mut batch = None;
    let (stages, routes) = if chosen.objective.serves() {
        let known = chosen.batches();
        let size = old.batch.filter(|batch| known.contains(batch)).or(known.first().copied()).unwrap_or(1);
        batch = Some(size).filter(|_| chosen.knows_times());
        let network = Network::new(tables, &chosen.life(size));
        let carried = Flows::new(tables, &network).carried(placement)?;
        if carried.rate <= 0.0 {
            return Ok(None);
        }
        door::passed(placement, &carried)
    } else {
        let mut chain = placement.to_vec();
        chain.sort_by_key(|link| link.1);
        let joined = chain.first().is_some_and(|link| link.1 == 0)
            && chain.last().is_some_and(|link| link.2 == tables.layers)
            && chain.windows(2).all(|pair| pair[0].2 == pair[1].1);
        if !joined {
            return Ok(None);
        }
        let route = (0..chain.len()).collect();
        (chain, vec![(route, 1.0)])
    };
    let parts = Parts {
        unused: unused_for(tables, &stages, "held nothing before the change"),
        placement: stages,
        routes,
        bound: None,
        evidence: Vec::new(),
        method: "repair of a running plan".to_owned(),
        solver: None,
        nodes: None,
        stopped: None,
        batch,
    };
    // A pin or a limit that it breaks makes it no plan.
    let Ok(outcome) = assemble(tables, parts) else { return Ok(None) };
    let Some(plan) = outcome.plan().map(|found| found.plan().clone()) else { return Ok(None) };
    let envelope = Envelope::of(problem);
    let fitting = if envelope.is_empty() || problem.limits.cold {
        Some(plan)
    } else {
        sustained::fitted(problem, plan, &envelope.ceilings)
    };
    let method = "repair of a running plan".to_owned();
    let found = Found { bound: None, evidence: Vec::new(), method, solver: None, nodes: None, stopped: None };
    fitting.map(|plan| certify(problem, plan, found)).transpose().or(Ok(None))
}
