//! The search of [`super::layered`]: beginnings of plans, layer by layer, that waste no more than they may.

use super::certificate::BoundFault;
use super::layered::{Alike, LAYERED_KINDS_MAX, WORTH_MAX};
use super::worths::{Besides, COVERS_MAX, Figures, PARTS_BITS, SLOTS_MAX, Search, Set};
use crate::exact::{Exact, exact, nearest, whole};
use crate::ids::Layers;
use num_traits::ToPrimitive;
use std::collections::BTreeMap;

/// Parts of the rate by which is told what devices are paid at least.
const GRID_BITS: u32 = 12;
/// The price of a layer.
const ONE: i64 = 1 << PARTS_BITS;

/// What tells kinds apart: layers held where most is passed, bits of the worth, layers and bits of their rates.
type Key = (u32, u64, Vec<(u32, u64)>);

/// Kinds, layers held, and how many of each.
type Cover = Vec<(usize, u32, u64)>;

/// That there is too much to look at.
pub(super) struct TooLong;

/// A way to use a device.
#[derive(Clone, Copy)]
struct Way {
    kind: usize,
    held: u16,
    rate: i64,
    /// What it pays on a layer.
    price: i64,
}

/// How many devices of each kind have been used.
type Used = [u8; LAYERED_KINDS_MAX];

/// A device that has not come to its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    way: u16,
    /// Layers that it has left.
    left: u16,
    /// What it may pass.
    passes: i64,
    /// Those that began with it and may not pass all that each may: position of what they may pass; none where it
    /// does not matter.
    group: Option<u16>,
}

/// What matters of a beginning but for what it has used.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Open {
    /// The first kind of its last stretch.
    kind: usize,
    /// Whether that has come.
    come: bool,
    /// What those that end here may hand over.
    handed: i64,
    /// What groups may pass.
    groups: Vec<i64>,
    held: Vec<Held>,
}

impl Open {
    /// Where nobody reaches over a border, a stretch of this kind or a later one may begin.
    const fn border(kind: usize) -> Self {
        Self { kind, come: false, handed: ONE, groups: Vec::new(), held: Vec::new() }
    }

    /// All that some devices may pass.
    fn passed<'a>(groups: &[i64], held: impl Iterator<Item = &'a Held>) -> i64 {
        let (mut alone, mut of_group) = (0, vec![0_i64; groups.len()]);
        for device in held {
            match device.group {
                None => alone += device.passes,
                Some(group) => of_group[usize::from(group)] += device.passes,
            }
        }
        alone + of_group.iter().zip(groups).map(|(&passed, &most)| passed.min(most)).sum::<i64>()
    }

    /// Leaves out groups whose limit does not matter, and puts what is left in order.
    fn sort(&mut self) {
        let mut of_group = vec![0_i64; self.groups.len()];
        for device in &self.held {
            device.group.iter().for_each(|&group| of_group[usize::from(group)] += device.passes);
        }
        for device in &mut self.held {
            device.group = device.group.filter(|&group| of_group[usize::from(group)] > self.groups[usize::from(group)]);
        }
        self.held.sort_unstable();
        let (mut known, mut groups) = (vec![None; self.groups.len()], Vec::new());
        for device in &mut self.held {
            let Some(group) = device.group.map(usize::from) else { continue };
            let position = *known[group].get_or_insert_with(|| {
                groups.push(self.groups[group]);
                groups.len() as u16 - 1
            });
            device.group = Some(position);
        }
        self.groups = groups;
        self.held.sort_unstable();
    }
}

/// No step before.
const FIRST: usize = usize::MAX;

/// Ways of devices that began at a layer.
struct Step {
    before: usize,
    at: usize,
    begun: Vec<u16>,
}

/// A device that holds the next layer: what it may pass, price, layers left.
type Holder = (i64, i64, u16);

/// The search.
pub(super) struct Laying {
    layers: usize,
    /// Longest first.
    ways: Vec<Way>,
    count: Vec<u8>,
    worth: Vec<i64>,
    /// What may be wasted.
    slack: i64,
    /// What devices that pass so many parts of the rate are paid at least.
    least: Vec<i64>,
    /// Sets of devices looked at so far.
    pub looked: u64,
    most: u64,
    steps: Vec<Step>,
    /// Beginnings by the layer where they end: what has been used, and the last step.
    waiting: Vec<BTreeMap<Open, Vec<(Used, usize)>>>,
}

impl Laying {
    /// Of these devices, and the positions that each kind is made of; none where they are too many.
    pub fn new(devices: &[Alike], layers: u32, above: &Exact, most: u64) -> Option<(Vec<Vec<usize>>, Self)> {
        let parts = whole(1 << PARTS_BITS);
        let rate_of = |rate: f64| exact(rate).map(|rate| (rate / above * &parts).ceil().to_integer());
        // By what tells kinds apart, so that the order of those asked about does not matter.
        let mut merged: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
        for (position, of) in devices.iter().enumerate() {
            if of.count == 0 {
                continue;
            }
            // Where it passes most: those that hold few layers there come first.
            let clipped = |rate: f64| rate.min(nearest(above));
            let best = of
                .rates
                .iter()
                .max_by(|a, b| (f64::from(a.0) * clipped(a.1)).total_cmp(&(f64::from(b.0) * clipped(b.1))))?;
            let rates = of.rates.iter().map(|&(held, rate)| (held, rate.to_bits())).collect();
            merged.entry((best.0, of.worth.to_bits(), rates)).or_default().push(position);
        }
        if merged.len() > LAYERED_KINDS_MAX {
            return None;
        }
        let kinds: Vec<Vec<usize>> = merged.into_values().collect();
        let (mut ways, mut count, mut worth) = (Vec::new(), Vec::new(), Vec::new());
        let mut all = 0_i128;
        for (kind, of) in kinds.iter().enumerate() {
            let Alike { worth: each, rates, .. } = &devices[of[0]];
            if !(0.0..WORTH_MAX).contains(each) {
                return None;
            }
            let of_kind = of.iter().map(|&at| devices[at].count).sum::<usize>();
            let each = (each * ONE as f64).ceil() as i64;
            all += i128::from(each) * of_kind as i128;
            count.push(u8::try_from(of_kind).ok()?);
            worth.push(each);
            for &(held, rate) in rates.iter().filter(|(held, rate)| *held > 0 && *rate > 0.0) {
                let rate = rate_of(rate)?.to_i64().unwrap_or(ONE).min(ONE);
                ways.push(Way { kind, held: u16::try_from(held).ok()?, rate, price: each / i64::from(held) });
            }
        }
        let slack = all - (i128::from(layers) << PARTS_BITS);
        if ways.len() > SLOTS_MAX || layers == 0 || layers > 4096 || all > (WORTH_MAX as i128) << PARTS_BITS {
            return None;
        }
        ways.sort_by_key(|way| (std::cmp::Reverse(way.held), way.rate, way.kind));
        let least = least(&ways);
        let laying = Self {
            layers: layers as usize,
            ways,
            count,
            worth,
            slack: slack as i64,
            least,
            looked: 0,
            most,
            steps: Vec::new(),
            waiting: vec![BTreeMap::new(); layers as usize],
        };
        Some((kinds, laying))
    }

    /// Devices that carry a layer and pay too little: kind, layers, count.
    pub fn cheap(&mut self) -> Result<Option<Cover>, BoundFault> {
        let sets = self.count.iter().map(|&count| Set { free: count.into(), part: Some(0) }).collect();
        let whole = |value: i64| u128::try_from(value).unwrap_or(0);
        let figures = Figures {
            rates: self.ways.iter().map(|way| whole(way.rate)).collect(),
            prices: self.ways.iter().map(|way| whole(way.price)).collect(),
            need: whole(ONE),
            price: whole(ONE),
            besides: Besides::Nothing,
        };
        let set_of = self.ways.iter().map(|way| way.kind).collect();
        let mut search = Search::new(set_of, sets, figures, COVERS_MAX);
        let found = search.cheap_cover();
        // In parts of a set of devices that begin: one takes about ten times as long.
        self.looked += search.looked / 10;
        let named = |chosen: Vec<u64>| {
            let used = self.ways.iter().zip(chosen).filter(|(_, count)| *count > 0);
            used.map(|(way, count)| (way.kind, way.held.into(), count)).collect()
        };
        Ok(found?.map(named))
    }

    /// Devices that hold all layers: kind and layers.
    pub fn run(&mut self) -> Result<Option<Vec<(usize, Layers)>>, TooLong> {
        if self.slack < 0 {
            return Ok(None);
        }
        self.wait(0, Open::border(0), [0; LAYERED_KINDS_MAX], FIRST);
        for at in 0..self.layers {
            for (open, all) in std::mem::take(&mut self.waiting[at]) {
                for (used, step) in all {
                    if let Some(last) = self.expand(at, &open, used, step)? {
                        return Ok(Some(self.laid(last)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// What used devices are worth.
    fn spent(&self, used: &Used) -> i64 {
        self.worth.iter().zip(used).map(|(&worth, &used)| worth * i64::from(used)).sum()
    }

    /// What devices have still to pay.
    fn unpaid(&self, held: &[Held]) -> i64 {
        held.iter().map(|device| self.ways[usize::from(device.way)].price * i64::from(device.left)).sum()
    }

    /// All that may follow a beginning that ends at a layer; the step by which the last layer is held, if one is.
    fn expand(&mut self, at: usize, open: &Open, used: Used, step: usize) -> Result<Option<usize>, TooLong> {
        let holder = |held: &Held| (held.passes, self.ways[usize::from(held.way)].price, held.left);
        let mut holders: Vec<Holder> = open.held.iter().map(holder).collect();
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.2));
        let need = ONE - Open::passed(&open.groups, open.held.iter());
        let room = self.layers - at;
        let ways: Vec<u16> = (0..self.ways.len() as u16).filter(|&way| usize::from(self.held(way)) <= room).collect();
        let border = open.held.is_empty();
        for kind in open.kind..if border { self.worth.len() } else { open.kind + 1 } {
            if border && used[kind] == self.count[kind] {
                continue;
            }
            let mut used = used;
            // What is left of the kinds before is wasted.
            used[..kind].copy_from_slice(&self.count[..kind]);
            let wasted = self.spent(&used) - self.unpaid(&open.held) - at as i64 * ONE;
            if wasted > self.slack {
                break;
            }
            let mut sets = Sets {
                laying: self,
                used,
                most: self.slack - wasted,
                need,
                handed: open.handed,
                holders: holders.clone(),
                chosen: Vec::new(),
                found: Vec::new(),
                looked: 0,
            };
            sets.add(&ways, 0);
            let (found, looked) = (sets.found, sets.looked);
            self.looked += looked;
            if self.looked > self.most {
                return Err(TooLong);
            }
            for begun in found {
                if let Some(last) = self.follow((at, kind), open, used, (step, begun)) {
                    return Ok(Some(last));
                }
            }
        }
        Ok(None)
    }

    /// Layers that a device holds in a way.
    fn held(&self, way: u16) -> u16 {
        self.ways[usize::from(way)].held
    }

    /// Goes on with devices that begin, to where the next one ends; the step, where that is the last layer.
    fn follow(
        &mut self,
        (at, kind): (usize, usize),
        open: &Open,
        mut used: Used,
        (before, begun): (usize, Vec<u16>),
    ) -> Option<usize> {
        let mut next = Open { kind, ..open.clone() };
        let passes = |way: u16| self.ways[usize::from(way)].rate.min(open.handed);
        let group = (begun.iter().map(|&way| passes(way)).sum::<i64>() > open.handed).then(|| {
            next.groups.push(open.handed);
            next.groups.len() as u16 - 1
        });
        for &way in &begun {
            let of = self.ways[usize::from(way)].kind;
            used[of] += 1;
            next.come |= of == kind;
            next.held.push(Held { way, left: self.held(way), passes: passes(way), group });
        }
        let passed = next.held.iter().map(|device| device.left).min()?;
        let end = at + usize::from(passed);
        next.held.iter_mut().for_each(|device| device.left -= passed);
        if self.spent(&used) - self.unpaid(&next.held) - end as i64 * ONE > self.slack {
            return None;
        }
        let step = self.steps.len();
        if end == self.layers {
            // Nobody holds more than there is.
            self.steps.push(Step { before, at, begun });
            return next.come.then_some(step);
        }
        next.handed = Open::passed(&next.groups, next.held.iter().filter(|device| device.left == 0)).min(ONE);
        next.held.retain(|device| device.left > 0);
        if next.held.is_empty() {
            if !next.come {
                return None;
            }
            next = Open::border(kind);
        } else {
            next.sort();
        }
        self.steps.push(Step { before, at, begun });
        self.wait(end, next, used, step);
        None
    }

    /// Keeps a beginning for later, unless one is known that is at least as good.
    fn wait(&mut self, end: usize, open: Open, used: Used, step: usize) {
        let known = self.waiting[end].entry(open).or_default();
        let fewer = |a: &Used, b: &Used| a.iter().zip(b).all(|(a, b)| a <= b);
        if !known.iter().any(|(other, _)| fewer(other, &used)) {
            known.retain(|(other, _)| !fewer(&used, other));
            known.push((used, step));
        }
    }

    /// What is held after a step.
    fn laid(&self, last: usize) -> Vec<(usize, Layers)> {
        let (mut laid, mut step) = (Vec::new(), last);
        while let Some(Step { before, at, begun }) = self.steps.get(step) {
            let held = |&way: &u16| {
                let way = self.ways[usize::from(way)];
                (way.kind, Layers::new(*at as u32, *at as u32 + u32::from(way.held)))
            };
            laid.extend(begun.iter().map(held));
            step = *before;
        }
        laid.reverse();
        laid
    }
}

/// What devices that pass so many parts of the rate are paid at least, and no more than a layer.
fn least(ways: &[Way]) -> Vec<i64> {
    let shift = PARTS_BITS - GRID_BITS;
    let mut least = vec![ONE; (1 << GRID_BITS) + 1];
    least[0] = 0;
    for need in 1..least.len() {
        for way in ways {
            // Whole parts, rounded up.
            let parts = ((way.rate + (1 << shift) - 1) >> shift) as usize;
            least[need] = least[need].min(way.price.saturating_add(least[need.saturating_sub(parts)]));
        }
    }
    least
}

/// The search for sets of devices that begin together.
struct Sets<'a> {
    laying: &'a Laying,
    used: Used,
    /// What they may waste.
    most: i64,
    /// What they must be able to pass, and what is handed over to them.
    need: i64,
    handed: i64,
    /// Those that hold the next layer, the longest first.
    holders: Vec<Holder>,
    chosen: Vec<u16>,
    found: Vec<Vec<u16>>,
    looked: u64,
}

impl Sets<'_> {
    /// Adds any of some ways, in order, to those that pass so much.
    fn add(&mut self, ways: &[u16], passed: i64) {
        self.looked += 1;
        if !self.chosen.is_empty() && passed.min(self.handed) >= self.need {
            self.found.push(self.chosen.clone());
        }
        // What is too much by itself is too much with others.
        let fits: Vec<u16> = ways.iter().copied().filter(|&position| self.fits(position)).collect();
        for (next, &position) in fits.iter().enumerate() {
            if self.laying.looked + self.looked > self.laying.most {
                return;
            }
            let way = self.laying.ways[usize::from(position)];
            let at = self.insert(way);
            self.used[way.kind] += 1;
            self.chosen.push(position);
            self.add(&fits[next..], passed + way.rate.min(self.handed));
            self.chosen.pop();
            self.used[way.kind] -= 1;
            self.holders.remove(at);
        }
    }

    /// Whether a way may be added.
    fn fits(&mut self, position: u16) -> bool {
        let way = self.laying.ways[usize::from(position)];
        if self.used[way.kind] == self.laying.count[way.kind] {
            return false;
        }
        let at = self.insert(way);
        let fits = self.wasted() <= self.most;
        self.holders.remove(at);
        fits
    }

    fn insert(&mut self, way: Way) -> usize {
        let at = self.holders.partition_point(|holder| holder.2 >= way.held);
        self.holders.insert(at, (way.rate.min(self.handed), way.price, way.held));
        at
    }

    /// What is wasted at least until all that hold the next layer have come to their end.
    fn wasted(&self) -> i64 {
        let (mut rate, mut price, mut wasted) = (0, 0, 0);
        for (position, holder) in self.holders.iter().enumerate() {
            rate += holder.0;
            price += holder.1;
            let next = self.holders.get(position + 1).map_or(0, |next| next.2);
            let need = ((ONE - rate).max(0) >> (PARTS_BITS - GRID_BITS)) as usize;
            wasted += (price + self.laying.least[need] - ONE).max(0) * i64::from(holder.2 - next);
        }
        wasted
    }
}
