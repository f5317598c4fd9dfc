//! What the planner asks of a problem, asked once: who may hold which layers, in how much memory, sharing with whom.

use isotherm_core::figure::How;
use isotherm_core::ids::{DeviceId, Layers};
use isotherm_core::problem::PlacementProblem;
use isotherm_core::units::Bytes;

/// A value for every interval of layers `start..end` with `start < end <= layers`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Intervals<T> {
    layers: usize,
    values: Vec<T>,
}

impl<T: Copy + Default> Intervals<T> {
    /// The values of a function.
    pub fn of(layers: usize, mut value: impl FnMut(usize, usize) -> T) -> Self {
        let mut values = vec![T::default(); layers * (layers + 1)];
        for start in 0..layers {
            for end in start + 1..=layers {
                values[start * (layers + 1) + end] = value(start, end);
            }
        }
        Self { layers, values }
    }

    /// The values of a function that depends on how many layers an interval has and on which ends of the model are in
    /// it, and on nothing else: asked once for each.
    pub fn of_lengths(layers: usize, mut value: impl FnMut(usize, usize) -> T) -> Self {
        let mut known: Vec<Option<T>> = vec![None; (layers + 1) * 4];
        Self::of(layers, |start, end| {
            let ends = usize::from(start == 0) + 2 * usize::from(end == layers);
            *known[(end - start) * 4 + ends].get_or_insert_with(|| value(start, end))
        })
    }

    /// The value of `start..end`.
    pub fn at(&self, start: usize, end: usize) -> T {
        self.values[start * (self.layers + 1) + end]
    }
}

impl Intervals<f64> {
    /// The same, and zero where a kind cannot hold the layers.
    pub fn where_held(mut self, kind: &Kind) -> Self {
        for (start, &reach) in kind.reach.iter().enumerate() {
            self.values[start * (self.layers + 1)..][reach + 1..=self.layers].fill(0.0);
        }
        self
    }
}

/// Devices of one kind hold the same layers in the same memory at the same speed. Links do not matter.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// One of them, to ask the problem about.
    pub example: DeviceId,
    /// Greatest end of an interval that fits, by its start; the start itself where none does. What fits is closed
    /// under taking fewer layers, because every layer and end adds bytes.
    pub reach: Vec<usize>,
    /// Bytes of a stage.
    pub bytes: Intervals<u64>,
}

/// A device that may hold at least one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its identifier in the problem.
    pub id: DeviceId,
    /// Position of its kind.
    pub kind: usize,
    /// Whether it must hold a stage.
    pub pinned: bool,
    /// Position of the memory pool that it shares with another candidate.
    pub pool: Option<usize>,
}

/// A memory that several candidates draw from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    /// Positions of the candidates.
    pub members: Vec<usize>,
    /// Its size.
    pub size: u64,
}

/// A device that can hold nothing, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// The device.
    pub id: DeviceId,
    /// The reason, in scenario words.
    pub reason: String,
    /// Whether memory is the reason: with more of it, or a smaller model, it would be of use.
    pub for_memory: bool,
}

/// The problem as the planner sees it.
#[derive(Debug, Clone)]
pub(crate) struct Tables<'a> {
    /// The problem.
    pub problem: &'a PlacementProblem,
    /// Number of layers.
    pub layers: usize,
    /// Kinds of candidates.
    pub kinds: Vec<Kind>,
    /// The devices that may hold something, in order of their identifiers.
    pub candidates: Vec<Candidate>,
    /// Memories with more than one candidate.
    pub pools: Vec<Pool>,
    /// The other devices.
    pub left_out: Vec<LeftOut>,
}

impl<'a> Tables<'a> {
    /// Asks the problem. `timed` says whether step times are needed, as for latencies, or rates suffice.
    pub fn new(problem: &'a PlacementProblem, timed: bool) -> Self {
        let layers = problem.layers() as usize;
        let sizes = pool_sizes(problem);
        let (mut kinds, mut candidates, mut left_out) = (Vec::<Kind>::new(), Vec::new(), Vec::new());
        for id in problem.graph.device_ids() {
            if let Some(reason) = refusal(problem, id, timed) {
                left_out.push(LeftOut { id, reason, for_memory: false });
                continue;
            }
            let size = sizes[id.index()].1;
            let kind = kinds
                .iter()
                .position(|kind| sizes[kind.example.index()].1 == size && same_timing(problem, kind.example, id))
                .unwrap_or_else(|| {
                    kinds.push(Kind::new(problem, id, size));
                    kinds.len() - 1
                });
            if kinds[kind].reach.iter().enumerate().all(|(start, &end)| start == end) {
                left_out.push(LeftOut { id, reason: too_small(problem, id, size), for_memory: true });
                continue;
            }
            let pinned = problem.limits.pinned.contains(&problem.graph.device(id).name);
            candidates.push(Candidate { id, kind, pinned, pool: None });
        }
        let pools = shared(&sizes, &mut candidates);
        Self { problem, layers, kinds, candidates, pools, left_out }
    }

    /// The kind of a candidate.
    pub fn kind(&self, candidate: usize) -> &Kind {
        &self.kinds[self.candidates[candidate].kind]
    }

    /// The name of a candidate.
    pub fn name(&self, candidate: usize) -> &str {
        &self.problem.graph.device(self.candidates[candidate].id).name
    }
}

/// The interval in the types of core.
pub(crate) fn interval(start: usize, end: usize) -> Layers {
    let narrow = |layer| u32::try_from(layer).unwrap_or(u32::MAX);
    Layers::new(narrow(start), narrow(end))
}

impl Kind {
    fn new(problem: &PlacementProblem, example: DeviceId, size: Option<u64>) -> Self {
        let layers = problem.layers() as usize;
        let bytes = Intervals::of(layers, |s, e| problem.stage_bytes(example, interval(s, e)).total.0);
        // No bytes fit anywhere, also in a memory of unknown size.
        let fits = |bytes: u64| bytes == 0 || size.is_some_and(|size| bytes <= size);
        let reach = (0..layers)
            .map(|start| (start + 1..=layers).take_while(|&end| fits(bytes.at(start, end))).last().unwrap_or(start))
            .collect();
        Self { example, reach, bytes }
    }
}

/// Position and size of the memory that each device draws from.
fn pool_sizes(problem: &PlacementProblem) -> Vec<(usize, Option<u64>)> {
    let mut sizes = vec![(0, None); problem.graph.devices().len()];
    for (i, (members, size)) in problem.memory_pools().into_iter().enumerate() {
        for member in members {
            sizes[member.index()] = (i, size.map(|bytes: Bytes| bytes.0));
        }
    }
    sizes
}

/// The pools that more than one candidate draws from; each of these candidates learns of its pool.
fn shared(sizes: &[(usize, Option<u64>)], candidates: &mut [Candidate]) -> Vec<Pool> {
    let mut pools: Vec<(usize, Pool)> = Vec::new();
    for (i, candidate) in candidates.iter().enumerate() {
        let (position, size) = sizes[candidate.id.index()];
        match pools.iter_mut().find(|(known, _)| *known == position) {
            Some((_, pool)) => pool.members.push(i),
            // Candidates in a memory of unknown size hold no bytes, so any size will do.
            None => pools.push((position, Pool { members: vec![i], size: size.unwrap_or(0) })),
        }
    }
    let pools: Vec<Pool> = pools.into_iter().map(|(_, pool)| pool).filter(|pool| pool.members.len() > 1).collect();
    for (position, pool) in pools.iter().enumerate() {
        for &member in &pool.members {
            candidates[member].pool = Some(position);
        }
    }
    pools
}

fn same_timing(problem: &PlacementProblem, a: DeviceId, b: DeviceId) -> bool {
    let paces = |id| (problem.speed(id), problem.duty(id));
    if problem.format(a) != problem.format(b) || paces(a) != paces(b) || problem.offload(a) != problem.offload(b) {
        return false;
    }
    match (problem.profile(a), problem.profile(b)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => problem.graph.device(a).rates == problem.graph.device(b).rates,
        _ => false,
    }
}

/// Why a device may hold nothing, whatever its memory.
fn refusal(problem: &PlacementProblem, id: DeviceId, timed: bool) -> Option<String> {
    if let Some(reason) = problem.exclusion(id) {
        return Some(reason);
    }
    let rates_only = problem.profile(id).is_none() && problem.timing_source(id) == Some(How::Declared);
    (timed && rates_only).then(|| "only its rates are known, not the time of a step; probe it".to_owned())
}

/// Says by how much the smallest stage misses.
fn too_small(problem: &PlacementProblem, id: DeviceId, size: Option<u64>) -> String {
    let layers = problem.layers();
    let least = (0..layers).map(|s| problem.stage_bytes(id, Layers::new(s, s + 1)).total).min();
    match (least, size) {
        (Some(least), Some(size)) => {
            let missing = least.saturating_sub(Bytes(size));
            format!("one layer needs {least} of its {} of memory: {missing} too much", Bytes(size))
        }
        (_, None) => "its memory is unknown; probe it".to_owned(),
        (None, _) => "the model has no layers".to_owned(),
    }
}
