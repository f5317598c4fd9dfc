//! Latency bounds from prices of devices and of shared memory.
//!
//! A *walk* passes all layers in order, as a chain does, but may use a device more than once (not twice in a row); each
//! time it pays the device's price `u >= 0`, and `q >= 0` for each byte it draws from a shared memory. A chain is a
//! walk, pays each `u` at most once and at most `q * size` for a memory. So
//!
//! ```text
//! cheapest walk - sum of u - sum of q * size  <=  every chain
//! ```
//!
//! A pinned device is used exactly once by every chain, so its price may have any sign. The cheapest walk is a shortest
//! path over (layer, device).
//!
//! A prompt in chunks makes the chain a flow shop, of which the finish is the longest path over (chunk, stage).
//! Chains are divided by how long their longest stage takes, all chunks up to the last that is as long as the first
//! together: a part's walks have no longer stage than its greatest, and one that is longer than the greatest of the
//! part before. Stages within a tenth of that are *long*. The path taken passes stages with the first chunk up to the
//! first long one; this one with all chunks up to the last that is as long as the first, the *followed* one; then
//! stages with that one. A shorter chunk after it waits behind it for as long as stages are long: the path passes the
//! last long one with both, and stages after it with the shorter one alone.
//!
//! Or walks are charged a mean over paths instead, by the [shares](super::shares) that a part states.
//!
//! What the cheapest walk leaves open is searched by [`super::beginnings`].
//!
//! Times are whole multiples of 2^-80 s, rounded down. A price is taken as the whole number it rounds to, the same
//! where it is paid and where it is subtracted, so its rounding costs nothing.

use super::beginnings;
use super::certificate::BoundFault;
use super::enumeration::{BITS, rounded_down};
use super::holds;
use super::shares::{self, Shares};
use crate::cost::StepShape;
use crate::exact::{Exact, agreement, exact, nearest, whole};
use crate::ids::{DeviceId, Layers};
use crate::plan::WalkPart;
use crate::problem::{Objective, PlacementProblem};
use crate::units::Seconds;
use num_bigint::BigInt;
use num_traits::{One, ToPrimitive};

/// Most work on one bound: entries of tables, and beginnings of chains and their comparisons.
pub const WALK_WORK_MAX: u64 = 200_000_000;
/// Most entries of a table of times, of 16 bytes each.
const TABLE_MAX: u64 = 1 << 24;
/// Most chunks of a prompt.
const CHUNKS_MAX: usize = 10_000;

/// No way: more than any time, and small enough to be added to itself.
pub(super) const NEVER: i128 = 1 << 125;
/// Bounds and prices are below this.
const TIME_MAX: i128 = 1 << 124;
/// A stage is long where it takes longer than the greatest stage time of the part before less one in so many parts of
/// it.
const LONG_SHARE: i128 = 10;
/// Greatest price of a device, and of all bytes of a memory, in seconds.
const PRICE_MAX: f64 = 1_048_576.0;

/// Prices that prove nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WalkFault {
    /// The parts leave chains out, or are in disorder.
    #[error("the greatest stage times of the parts must be finite and rise, and the last part have none")]
    Parts,
    /// Shares that no paths can have.
    #[error(
        "shares of paths must rise from 0 to 65536 over the boundaries between layers, those at the last chunk be no \
         more than those that have left the first, and be given for just the chunks that paths can turn to; no more than 64 usable devices are used once"
    )]
    Shares,
    /// A price of something that is not there, or that no price can be.
    #[error(
        "the price of {of:?} is {price}; prices are of usable devices and shared memories of this problem, in all at \
         most {PRICE_MAX} s, and not negative but for pinned devices"
    )]
    Price {
        /// The device or pool.
        of: String,
        /// Its price.
        price: f64,
    },
    /// The bound is longer than the checker counts.
    #[error("the bound of {bound} s is more than can be verified")]
    Long {
        /// The bound.
        bound: f64,
    },
}

/// Verifies that no plan takes less than `bound * (1 - 1e-9)`, or says which does or what is not proved.
pub(super) fn prices(problem: &PlacementProblem, bound: f64, parts: &[WalkPart]) -> Vec<BoundFault> {
    let Some(stated) = exact(bound) else { return Vec::new() };
    let unit = Exact::from_integer(BigInt::one() << BITS);
    let target = (&stated * (whole(1) - agreement()) * &unit).ceil().to_integer();
    let Some(target) = target.to_i128().filter(|target| *target <= TIME_MAX) else {
        return vec![WalkFault::Long { bound }.into()];
    };
    if target <= 0 {
        return Vec::new();
    }
    let verified = Walks::new(problem).and_then(|mut walks| {
        let mut longer_than = -1;
        for (position, part) in parts.iter().enumerate() {
            let last = position + 1 == parts.len();
            let most = match part.stage_seconds_max.map(|max| fixed(max, f64::MAX)) {
                None if last => NEVER,
                Some(Some(most)) if !last && most > longer_than => most,
                _ => return Err(WalkFault::Parts.into()),
            };
            if let Some(found) = walks.part(part, (longer_than, most), target)? {
                return Ok(Some(found));
            }
            longer_than = most;
        }
        if parts.is_empty() { Err(WalkFault::Parts.into()) } else { Ok(None) }
    });
    match verified {
        Ok(None) => Vec::new(),
        Ok(Some((value, chain))) => {
            let name = |device: &DeviceId| problem.graph.device(*device).name.as_str();
            let placement = chain.iter().map(|(d, layers)| format!("{layers} on {}", name(d)));
            let placement = placement.collect::<Vec<_>>().join(", then ");
            let value = nearest(&(Exact::from_integer(BigInt::from(value)) / unit));
            vec![BoundFault::BetterPlacement { placement, value, bound }]
        }
        Err(fault) => vec![fault],
    }
}

/// A number of seconds of at most `max` in size, as a whole number of units; none where it is none.
fn fixed(seconds: f64, max: f64) -> Option<i128> {
    let size = Seconds::new(seconds.abs()).ok().filter(|size| size.value() <= max).map(rounded_down)?;
    Some(if seconds < 0.0 { -size } else { size })
}

/// A memory that several devices draw from.
pub(super) struct Memory {
    name: String,
    pub size: u64,
}

/// A chain, and its value.
pub(super) type Found = Option<(i128, Vec<(DeviceId, Layers)>)>;

/// The times of all stages and ways, and who may hold what.
pub(super) struct Walks<'a> {
    problem: &'a PlacementProblem,
    pub devices: Vec<DeviceId>,
    pub layers: usize,
    pub chunks: usize,
    /// The chunk that walks follow from the first long stage on.
    pub followed: usize,
    /// By device: time of a stage by chunk (then those up to the followed one together, then those after it), by which
    /// ends it holds, by number of layers.
    steps: Vec<Vec<i128>>,
    /// By device and first layer: one past the furthest last layer that fits.
    pub reach: Vec<Vec<usize>>,
    /// Times between devices, by message: `[from][to]`.
    hops: Vec<Vec<i128>>,
    /// The message of each chunk.
    message_of: Vec<usize>,
    pub entry: Vec<i128>,
    pub exit: Vec<i128>,
    pub pinned: Vec<bool>,
    /// Whether a pinned device can hold nothing, so that there is no chain.
    pub unmet: bool,
    pub memories: Vec<Memory>,
    pub memory_of: Vec<Option<usize>>,
    /// Fewest and most stages of a chain, where there is a rule.
    pub rule: Option<(usize, usize)>,
    /// Work done so far.
    work: u64,
}

/// The prices of one part, in units.
pub(super) struct Prices {
    pub device: Vec<i128>,
    pub byte: Vec<i128>,
    pub sum: i128,
}

/// Cheapest completions: from the end of a stage, and from the start of one: `[phase][level][layer][device]`.
pub(super) struct Completions {
    pub after: Vec<Vec<i128>>,
    pub from: Vec<Vec<i128>>,
    /// Stages still allowed to a whole chain; 0 where there is no rule.
    pub top: usize,
}

impl<'a> Walks<'a> {
    fn new(problem: &'a PlacementProblem) -> Result<Self, BoundFault> {
        let layers = problem.layers() as usize;
        let shapes: Vec<StepShape> = match problem.objective {
            Objective::Ttft => problem.prefill_chunks().take(CHUNKS_MAX + 1).collect(),
            _ => vec![StepShape::decode(1, problem.mean_context())],
        };
        too_large(shapes.len() as u64, CHUNKS_MAX as u64)?;
        let devices: Vec<DeviceId> =
            problem.graph.device_ids().filter(|&d| problem.usable(d) && problem.profile(d).is_some()).collect();
        let chunks = shapes.len();
        let (count, entries) = (devices.len() as u64, 4 * (chunks as u64 + 2) * (layers as u64 + 1));
        let work = count.saturating_mul(entries).saturating_add(2 * count.saturating_mul(count));
        too_large(work, TABLE_MAX)?;
        let prompt: u64 = shapes.iter().map(|shape| u64::from(shape.tokens())).sum();
        let row = problem.model.boundary_bytes_per_token();
        let like_the_first = shapes.first().map(StepShape::tokens) == shapes.last().map(StepShape::tokens);
        let followed = chunks.saturating_sub(if like_the_first { 1 } else { 2 });
        let mut sizes: Vec<u32> = Vec::new();
        let mut message_of = Vec::new();
        for shape in &shapes {
            let known = sizes.iter().position(|&tokens| tokens == shape.tokens());
            message_of.push(known.unwrap_or(sizes.len()));
            if known.is_none() {
                sizes.push(shape.tokens());
            }
        }
        let time = |time: Option<Seconds>| time.map_or(NEVER, rounded_down);
        let hops = |&tokens: &u32| {
            let from = |&from: &DeviceId| {
                let all = problem.graph.times_from(from, row.saturating_mul(tokens.into()));
                let one = move |to: &DeviceId| if *to == from { NEVER } else { time(all[to.index()]) };
                devices.iter().map(one).collect::<Vec<_>>()
            };
            devices.iter().flat_map(from).collect()
        };
        let limits = &problem.limits;
        let most = devices.len().min(layers);
        let rule = match (limits.stages_exact, limits.stages_max) {
            (Some(exact), _) => Some((exact as usize, exact as usize)),
            (None, Some(max)) => Some((1, (max as usize).min(most))),
            (None, None) => None,
        };
        let mut walks = Self {
            steps: devices.iter().map(|&device| steps(problem, device, &shapes, followed)).collect(),
            reach: devices.iter().map(|&device| reach(problem, device)).collect(),
            hops: sizes.iter().map(hops).collect(),
            entry: devices.iter().map(|&d| time(problem.entry(d, prompt))).collect(),
            exit: devices.iter().map(|&d| time(problem.exit(d, 1))).collect(),
            pinned: devices.iter().map(|&d| limits.pinned.contains(&problem.graph.device(d).name)).collect(),
            unmet: limits.pinned.iter().any(|pin| !devices.iter().any(|&d| problem.graph.device(d).name == *pin)),
            memories: Vec::new(),
            memory_of: vec![None; devices.len()],
            work,
            problem,
            devices,
            layers,
            chunks,
            followed,
            message_of,
            rule,
        };
        walks.share_memories();
        Ok(walks)
    }

    /// The memories that more than one device draws from, or that are smaller than a device itself says since one that
    /// holds nothing says so. One of unknown size holds nothing.
    fn share_memories(&mut self) {
        for (members, size) in self.problem.memory_pools() {
            let position = |member| self.devices.iter().position(|device| *device == member);
            let members: Vec<usize> = members.into_iter().filter_map(position).collect();
            let own = members.first().and_then(|&first| self.problem.memory(self.devices[first]));
            let Some(&first) = members.first().filter(|_| members.len() > 1 || own != size) else { continue };
            let name = self.problem.graph.device(self.devices[first]).memory_pool.clone().unwrap_or_default();
            members.into_iter().for_each(|member| self.memory_of[member] = Some(self.memories.len()));
            self.memories.push(Memory { name, size: size.map_or(0, |bytes| bytes.0) });
        }
    }

    /// Time of a stage for one chunk; where `chunk` is their number, for all up to the followed one together.
    pub fn step(&self, device: usize, chunk: usize, start: usize, end: usize) -> i128 {
        let ends = 2 * usize::from(start == 0) + usize::from(end == self.layers);
        self.steps[device][(chunk * 4 + ends) * (self.layers + 1) + end - start]
    }

    /// Phases of a walk: before the first long stage, from there on, and after the last one where a chunk is left to
    /// follow.
    pub fn phases(&self) -> usize {
        if self.chunks == 1 { 1 } else { 2 + usize::from(self.followed + 1 < self.chunks) }
    }

    /// The chunk followed in a phase.
    pub fn chunk_of(&self, phase: usize) -> usize {
        [0, self.followed, self.chunks - 1][phase]
    }

    /// Time of a chunk from one device to another.
    pub fn hop(&self, chunk: usize, from: usize, to: usize) -> i128 {
        self.hops[self.message_of[chunk]][from * self.devices.len() + to]
    }

    /// Bytes that a stage draws.
    pub fn bytes(&self, device: usize, start: usize, end: usize) -> u64 {
        self.problem.stage_bytes(self.devices[device], interval(start, end)).total.0
    }

    /// Whether two devices may change places in any chain.
    pub fn alike(&self, a: usize, b: usize) -> bool {
        let others = || (0..self.devices.len()).filter(|&other| other != a && other != b);
        let n = self.devices.len();
        self.pinned[a] == self.pinned[b]
            && self.memory_of[a] == self.memory_of[b]
            && (self.entry[a], self.exit[a]) == (self.entry[b], self.exit[b])
            && self.steps[a] == self.steps[b]
            && self.reach[a] == self.reach[b]
            && self.hops.iter().all(|hop| {
                hop[a * n + b] == hop[b * n + a]
                    && others().all(|c| hop[a * n + c] == hop[b * n + c] && hop[c * n + a] == hop[c * n + b])
            })
    }

    /// Counts work done. Errors: it is more than the checker takes upon itself.
    pub fn look(&mut self, work: u64) -> Result<(), BoundFault> {
        self.work = self.work.saturating_add(work);
        too_large(self.work, WALK_WORK_MAX)
    }

    /// The position of a device that may hold layers.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.problem.graph.find(name).and_then(|id| self.devices.binary_search(&id).ok())
    }

    fn priced(&self, part: &WalkPart) -> Result<Prices, BoundFault> {
        let refuse = |of: &str, price: f64| BoundFault::Walk(WalkFault::Price { of: of.to_owned(), price });
        let mut prices = Prices { device: vec![0; self.devices.len()], byte: vec![0; self.memories.len()], sum: 0 };
        for (name, &price) in &part.devices {
            let known = self.find(name);
            let sign = |device: &usize| price >= 0.0 || self.pinned[*device];
            let (Some(device), Some(units)) = (known.filter(sign), fixed(price, PRICE_MAX)) else {
                return Err(refuse(name, price));
            };
            prices.device[device] = units;
            prices.sum += units;
        }
        for (name, &price) in &part.pools {
            let known = self.memories.iter().position(|memory| &memory.name == name).filter(|_| price >= 0.0);
            let (Some(memory), Some(units)) = (known, fixed(price, PRICE_MAX)) else {
                return Err(refuse(name, price));
            };
            let all = units.checked_mul(i128::from(self.memories[memory].size));
            let Some(all) = all.filter(|all| *all <= rounded_down(Seconds::of(PRICE_MAX))) else {
                return Err(refuse(name, price));
            };
            prices.byte[memory] = units;
            prices.sum += all;
        }
        Ok(prices)
    }

    /// What a stage pays.
    pub fn pay(&self, prices: &Prices, device: usize, start: usize, end: usize) -> i128 {
        let bytes = self.memory_of[device].map_or(0, |memory| match prices.byte[memory] {
            0 => 0,
            price => price.saturating_mul(i128::from(self.bytes(device, start, end))),
        });
        prices.device[device].saturating_add(bytes)
    }

    /// A chain of this part that takes less than the target; none where there is none.
    fn part(&mut self, part: &WalkPart, between: (i128, i128), target: i128) -> Result<Found, BoundFault> {
        let shares = part.shares.as_ref().map(|shares| Shares::new(self, shares)).transpose()?;
        let prices = self.priced(part)?;
        // A rule on stages makes tables larger; often the bound holds without it.
        let free = self.completions(&prices, shares.as_ref(), between, None)?;
        if self.cheapest(&free).saturating_sub(prices.sum) >= target {
            return Ok(None);
        }
        if let Some(shares) = &shares
            && !shares::quicker_walk(self, &prices, shares, &free, between.1, target)?
        {
            return Ok(None);
        }
        let ruled = match self.rule {
            Some(_) => self.completions(&prices, shares.as_ref(), between, self.rule)?,
            None => free,
        };
        if self.cheapest(&ruled).saturating_sub(prices.sum) >= target {
            return Ok(None);
        }
        beginnings::search(self, (&prices, shares.as_ref()), &ruled, between, target)
    }

    fn cheapest(&self, completions: &Completions) -> i128 {
        let first = completions.top * (self.layers + 1) * self.devices.len();
        let whole = |device: usize| self.entry[device].saturating_add(completions.from[0][first + device]);
        (0..self.devices.len()).map(whole).min().unwrap_or(NEVER)
    }

    fn completions(
        &mut self,
        prices: &Prices,
        shares: Option<&Shares>,
        (longer_than, most): (i128, i128),
        rule: Option<(usize, usize)>,
    ) -> Result<Completions, BoundFault> {
        let (n, layers) = (self.devices.len(), self.layers);
        let top = rule.map_or(0, |(_, most)| most);
        let levels = (top as u64).saturating_add(1);
        let phases = if shares.is_some() { 1 } else { self.phases() };
        let many = phases as u64;
        too_large(levels.saturating_mul(2 * many * ((layers + 1) * n) as u64), TABLE_MAX)?;
        self.look(levels.saturating_mul(many * (n * layers * (n + layers / 2 + 1)) as u64) / 4)?;
        let size = (top + 1) * (layers + 1) * n;
        let empty = || vec![vec![NEVER; size]; phases];
        let mut table = Completions { after: empty(), from: empty(), top };
        let long_from = longer_than - longer_than.max(0) / LONG_SHARE;
        for level in 0..=top {
            let row = |layer: usize| (level * (layers + 1) + layer) * n;
            if rule.is_none_or(|(least, most)| least != most || level == 0) {
                table.after[phases - 1][row(layers)..][..n].copy_from_slice(&self.exit);
            }
            for start in (0..layers).rev() {
                let below = match rule {
                    None => Some(0),
                    Some(_) => level.checked_sub(1),
                };
                for device in (0..n).filter(|_| below.is_some()) {
                    let below = below.unwrap_or(0) * (layers + 1);
                    let mut best = [NEVER; 3];
                    for end in start + 1..=self.reach[device][start] {
                        let all = self.step(device, self.chunks, start, end);
                        if all > most {
                            continue;
                        }
                        let (at, pay) = ((below + end) * n + device, self.pay(prices, device, start, end));
                        let long = all > long_from;
                        let mut may = |phase: usize, next: usize, time: i128| {
                            let cost = table.after[next][at].saturating_add(pay).saturating_add(time);
                            best[phase] = best[phase].min(cost);
                        };
                        if let Some(shares) = shares {
                            may(0, 0, shares.stage(self, device, start, end));
                            continue;
                        }
                        let [first, mid, last, rest] = [0, self.followed, self.chunks - 1, self.chunks + 1]
                            .map(|chunk| self.step(device, chunk, start, end));
                        if phases > 1 && long {
                            may(0, 1, all);
                        } else {
                            may(0, 0, first);
                        }
                        if phases > 1 {
                            may(1, 1, mid);
                        }
                        match (phases, long) {
                            (3, true) => {
                                may(0, 2, all.saturating_add(rest));
                                may(1, 2, mid.saturating_add(rest));
                            }
                            (3, false) => may(2, 2, last),
                            _ => {}
                        }
                    }
                    for (from, best) in table.from.iter_mut().zip(best) {
                        from[row(start) + device] = best.min(NEVER);
                    }
                }
                if let Some(shares) = shares.filter(|shares| start > 0 && shares.turns_last(start)) {
                    let from = &table.from[0][row(start)..][..n];
                    for device in 0..n {
                        let ways = from.iter().enumerate().map(|(to, from)| shares.way(self, start, device, to) + from);
                        table.after[0][row(start) + device] = ways.fold(NEVER, i128::min);
                    }
                    continue;
                }
                for phase in (0..phases).filter(|_| start > 0) {
                    let hops = &self.hops[self.message_of[self.chunk_of(phase)]];
                    let from = &table.from[phase][row(start)..][..n];
                    for device in 0..n {
                        let ways = hops[device * n..][..n].iter().zip(from);
                        // Each is at most NEVER, so a sum cannot overflow.
                        let best = ways.map(|(hop, from)| hop + from).fold(NEVER, i128::min);
                        table.after[phase][row(start) + device] = best;
                    }
                }
            }
        }
        Ok(table)
    }
}

fn too_large(count: u64, max: u64) -> Result<(), BoundFault> {
    let (what, count, max) = ("steps of walks and beginnings of chains", u128::from(count), u128::from(max));
    if count > max { Err(BoundFault::TooLarge { what, count, max }) } else { Ok(()) }
}

pub(super) fn interval(start: usize, end: usize) -> Layers {
    let narrow = |layer| u32::try_from(layer).unwrap_or(u32::MAX);
    Layers::new(narrow(start), narrow(end))
}

/// Times of all stages of a device. By [`crate::cost`], a step's time depends on how many layers a stage holds, and on
/// whether the first and the last are among them.
fn steps(problem: &PlacementProblem, device: DeviceId, shapes: &[StepShape], followed: usize) -> Vec<i128> {
    let layers = problem.layers() as usize;
    let mut times = vec![NEVER; (shapes.len() + 2) * 4 * (layers + 1)];
    for ends in 0..4 {
        for length in 1..=layers {
            let start = usize::from(ends & 2 == 0).min(layers - length);
            let (start, end) = if ends & 1 == 1 { (layers - length, layers) } else { (start, start + length) };
            if usize::from(start == 0) * 2 + usize::from(end == layers) != ends {
                continue;
            }
            let (mut all, mut rest) = (0_i128, 0_i128);
            for (chunk, shape) in shapes.iter().enumerate() {
                let time = problem.step(device, interval(start, end), shape).map_or(NEVER, rounded_down);
                times[(chunk * 4 + ends) * (layers + 1) + length] = time;
                let sum = if chunk <= followed { &mut all } else { &mut rest };
                *sum = sum.saturating_add(time).min(NEVER);
            }
            times[(shapes.len() * 4 + ends) * (layers + 1) + length] = all;
            times[((shapes.len() + 1) * 4 + ends) * (layers + 1) + length] = rest;
        }
    }
    times
}

/// By first layer, one past the furthest last layer that fits. What fits is closed under taking fewer layers, because
/// every layer and end adds bytes; so the furthest never falls.
fn reach(problem: &PlacementProblem, device: DeviceId) -> Vec<usize> {
    let layers = problem.layers() as usize;
    let mut end = 0;
    let furthest = |start: usize| {
        end = end.max(start);
        while end < layers && holds(problem, device, interval(start, end + 1)) {
            end += 1;
        }
        end
    };
    (0..layers).map(furthest).collect()
}
