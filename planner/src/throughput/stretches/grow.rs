//! Stretches at given prices of devices, grown from the first layer on.
//!
//! As in a sweep over all layers ([`super::super::sweep`]), others begin wherever devices end, so many that all that
//! hold the next layer carry the rate, and what devices are paid beyond 1 for a layer is waste. A beginning whose
//! devices all end at one layer is a stretch. The same way of the same type may begin several times at once, so that
//! many slow devices side by side are few choices.

use super::super::blocks::Yard;
use super::super::random::Random;
use super::line::passed;
use super::{Known, Stretch};
use crate::budget::Budget;
use std::collections::BTreeSet;

/// Ways that begin together, at most, and devices.
const WAYS: usize = 3;
const DEVICES: usize = 8;
/// Sets looked at for one beginning.
const SETS: usize = 300;
/// Shares of what a beginning may still waste that its next devices may waste on one layer, in turn, until there are
/// sets enough: in order of price, a set that wastes much would hide many others.
const WASTES: [f64; 4] = [1.0 / 64.0, 1.0 / 16.0, 0.25, 1.0];
/// Beginnings looked at for each that is kept, and stretches.
const LOOKED: usize = 6;
const ENDED: usize = 3;
/// What a stretch may waste, in layers, and for each of its layers.
const WASTED: f64 = 0.15;
const WASTED_EACH: f64 = 0.1;
/// Work of looking at one set.
const SET_WORK: u64 = 10;
/// What makes up for rounding.
const ROUNDING: f64 = 1e-9;
/// How many times the rate is no more looked for.
const FAST: f64 = 64.0;

/// What stretches are grown of.
pub(super) struct Ground<'a> {
    pub yard: &'a Yard,
    /// The rate that they are to pass.
    pub rate: f64,
    /// What devices are worth, by type, and how many there are.
    pub worths: &'a [f64],
    pub free: &'a [u16],
    /// What a stretch may waste, in layers.
    pub waste: f64,
    /// Most layers of one.
    pub longest: usize,
    /// Beginnings kept for each layer, and sets of devices that one goes on with.
    pub width: usize,
    pub branches: usize,
    /// What luck weighs.
    pub luck: f64,
}

/// A way to use a device: its type, how many layers it holds, at what rate, and what it is paid for each of them.
#[derive(Debug, Clone, Copy)]
struct Way {
    of: usize,
    held: usize,
    rate: f64,
    price: f64,
    /// Price per rate.
    by_rate: f64,
}

/// Ways that begin together, and how many devices each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Set {
    ways: [(u16, u16); WAYS],
    count: usize,
}

impl Set {
    fn iter(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.ways[..self.count].iter().map(|&(way, n)| (usize::from(way), usize::from(n)))
    }
}

/// The beginning of a stretch.
struct Beginning {
    /// The one it goes on from, and what began where that ends; none for nothing.
    step: Option<(usize, Set)>,
    start: usize,
    free: Vec<u16>,
    /// Ways and where they end.
    active: Vec<(usize, usize)>,
    waste: f64,
}

/// Devices that may begin where a beginning ends.
#[derive(Clone, Copy)]
struct Next {
    before: usize,
    start: usize,
    set: Set,
    waste: f64,
    luck: f64,
}

struct Growth<'a> {
    ground: &'a Ground<'a>,
    /// Cheapest per rate first.
    ways: Vec<Way>,
    kept: Vec<Beginning>,
    looked: usize,
}

/// A search for sets of devices that begin together.
struct Sets<'a> {
    ways: &'a [Way],
    free: Vec<u16>,
    room: usize,
    dust: f64,
    /// What they may be paid, at most.
    most: f64,
    chosen: Set,
    found: Vec<(f64, Set)>,
    left: usize,
}

impl Sets<'_> {
    /// Goes on from a position of the ways, where so much is still to be passed by so many devices and so much is
    /// paid.
    fn add(&mut self, from: usize, need: f64, devices: usize, paid: f64) {
        if need <= self.dust {
            self.found.push((paid, self.chosen));
            return;
        }
        if self.chosen.count == WAYS {
            return;
        }
        for position in from..self.ways.len() {
            let way = self.ways[position];
            if self.left == 0 || paid + need * way.by_rate > self.most {
                return;
            }
            let free = self.free[way.of];
            if free == 0 || way.held > self.room {
                continue;
            }
            let wanted = (need / way.rate - ROUNDING).ceil().max(1.0) as usize;
            for n in (1..=wanted.min(devices).min(usize::from(free))).rev() {
                let sum = paid + way.price * n as f64;
                if sum > self.most {
                    continue;
                }
                self.left = self.left.saturating_sub(1);
                self.free[way.of] = free - n as u16;
                self.chosen.ways[self.chosen.count] = (position as u16, n as u16);
                self.chosen.count += 1;
                self.add(position + 1, need - way.rate * n as f64, devices - n, sum);
                self.chosen.count -= 1;
                self.chosen.ways[self.chosen.count] = (0, 0);
            }
            self.free[way.of] = free;
        }
    }
}

impl Growth<'_> {
    /// Devices of a beginning and of a set that goes on with it: type, first layer, end.
    fn laid(&self, next: &Next) -> Vec<(usize, usize, usize)> {
        let mut laid = Vec::new();
        let mut lay = |set: &Set, start: usize| {
            for (way, n) in set.iter() {
                let way = self.ways[way];
                laid.extend(std::iter::repeat_n((way.of, start, start + way.held), n));
            }
        };
        lay(&next.set, next.start);
        let mut at = &self.kept[next.before];
        while let Some((before, set)) = &at.step {
            lay(set, at.start);
            at = &self.kept[*before];
        }
        laid
    }

    /// What may follow a beginning that ends at a layer, and where it ends.
    fn after(&mut self, before: usize, at: usize, random: &mut Random, waiting: &mut [Vec<Next>]) {
        let (ground, beginning) = (self.ground, &self.kept[before]);
        let (mut passed, mut paid, mut ended, mut first) = (0.0, 0.0, 0.0, usize::MAX);
        for &(way, end) in &beginning.active {
            let way = self.ways[way];
            if end > at {
                (passed, paid, first) = (passed + way.rate, paid + way.price, first.min(end));
            } else {
                ended += way.rate;
            }
        }
        let (need, dust) = (ground.rate - passed, ROUNDING * ground.rate);
        // Those that go on cannot take over what the others passed.
        if at > 0 && ended < need - dust {
            return;
        }
        let mut sets = Sets {
            ways: &self.ways,
            free: beginning.free.clone(),
            room: ground.longest - at,
            dust,
            most: 0.0,
            chosen: Set::default(),
            found: Vec::new(),
            left: 0,
        };
        let (least, left) = (1.0 - paid, ground.waste - beginning.waste);
        for share in WASTES {
            (sets.most, sets.left) = (least + left * share, SETS);
            sets.found.clear();
            sets.add(0, need, DEVICES, 0.0);
            self.looked += SETS - sets.left;
            if sets.found.len() >= ground.branches {
                break;
            }
        }
        let mut next: Vec<(usize, Next)> = Vec::new();
        for (more, set) in sets.found {
            let end = set.iter().map(|(way, _)| at + self.ways[way].held).fold(first, usize::min);
            if end > ground.longest {
                continue;
            }
            let waste = beginning.waste + (paid + more - 1.0) * (end - at) as f64;
            if waste <= ground.waste && waste <= WASTED + WASTED_EACH * end as f64 {
                // Waste is told by its root of layers: short ones have had less time to make up for it.
                let luck = waste / (end as f64).sqrt() + ground.luck * random.real();
                next.push((end, Next { before, start: at, set, waste, luck }));
            }
        }
        next.sort_by(|a, b| a.1.luck.total_cmp(&b.1.luck));
        next.into_iter().take(ground.branches).for_each(|(end, next)| waiting[end].push(next));
    }

    /// Free devices and those that are active or end at a layer, after a set has begun.
    fn begun(&self, next: &Next) -> (Vec<u16>, Vec<(usize, usize)>) {
        let before = &self.kept[next.before];
        let mut active: Vec<(usize, usize)> =
            before.active.iter().copied().filter(|(_, end)| *end > next.start).collect();
        let mut free = before.free.clone();
        for (way, n) in next.set.iter() {
            active.extend(std::iter::repeat_n((way, next.start + self.ways[way].held), n));
            free[self.ways[way].of] -= n as u16;
        }
        active.sort_unstable_by_key(|&(way, end)| (end, way));
        (free, active)
    }
}

/// Stretches that are not known yet, each of which passes the rate.
pub(super) fn grow(ground: &Ground<'_>, known: &mut Known, random: &mut Random, budget: &Budget<'_>) -> Vec<Stretch> {
    let (yard, rate) = (ground.yard, ground.rate);
    let mut ways = Vec::new();
    for (of, worth) in ground.worths.iter().enumerate().filter(|(of, _)| ground.free[*of] > 0) {
        for held in 1..=ground.longest {
            let passes = yard.rate_of(of, held).min(rate);
            if passes > 0.0 {
                let price = worth / held as f64;
                ways.push(Way { of, held, rate: passes, price, by_rate: price / passes });
            }
        }
    }
    ways.sort_by(|a, b| a.by_rate.total_cmp(&b.by_rate).then(b.held.cmp(&a.held)));
    ways.truncate(usize::from(u16::MAX));
    let mut growth = Growth { ground, ways, kept: Vec::new(), looked: 0 };
    growth.kept.push(Beginning { step: None, start: 0, free: ground.free.to_vec(), active: Vec::new(), waste: 0.0 });
    let mut waiting: Vec<Vec<Next>> = vec![Vec::new(); ground.longest + 1];
    growth.after(0, 0, random, &mut waiting);
    let mut stretches = Vec::new();
    for at in 1..=ground.longest {
        if budget.exhausted().is_some() {
            break;
        }
        let mut here = std::mem::take(&mut waiting[at]);
        // What is the same keeps the order in which it was found.
        here.sort_by(|a, b| a.luck.total_cmp(&b.luck));
        let (mut seen, mut kept, mut ended) = (BTreeSet::new(), 0, 0);
        for next in here.into_iter().take(LOOKED * ground.width) {
            let (free, active) = growth.begun(&next);
            let whole = active.last().is_none_or(|(_, end)| *end <= at);
            let passes = |laid: &[(usize, usize, usize)], most: f64| {
                let held: Vec<_> = laid.iter().map(|&(t, a, b)| (a, b, yard.rate_of(t, b - a).min(most))).collect();
                passed(&held, at, most)
            };
            if whole {
                let counts: Vec<u16> = ground.free.iter().zip(&free).map(|(had, left)| had - left).collect();
                let slow = |known: &f64| *known < rate * (1.0 - ROUNDING);
                if ended == ENDED * ground.width || !known.get(&(at, counts.clone())).is_none_or(slow) {
                    continue;
                }
                let laid = growth.laid(&next);
                if passes(&laid, rate) >= rate * (1.0 - ROUNDING) {
                    let rate = passes(&laid, FAST * rate);
                    known.insert((at, counts.clone()), rate);
                    stretches.push(Stretch { layers: at, counts, laid, rate });
                    ended += 1;
                }
            } else if kept < ground.width && seen.insert((free.clone(), active.clone())) {
                if passes(&growth.laid(&next), rate) < rate * (1.0 - ROUNDING) {
                    continue;
                }
                kept += 1;
                let (step, start, waste) = (Some((next.before, next.set)), next.start, next.waste);
                growth.kept.push(Beginning { step, start, free, active, waste });
                growth.after(growth.kept.len() - 1, at, random, &mut waiting);
            }
        }
    }
    budget.did(growth.looked as u64 * SET_WORK);
    stretches
}
