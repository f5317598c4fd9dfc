//! Which devices begin at a border: all choices that waste no more than there is room for.

use super::search::UNIT;
use std::cmp::Ordering;

/// Parts of the rate by which it is known what others are paid at least.
const REST_PARTS: usize = 4096;
/// Steps between two looks at whether to stop.
const STEPS_BETWEEN: u64 = 1 << 16;

/// What devices are paid at least that pass some part of the rate, by so many of [`REST_PARTS`].
pub(super) struct Rest {
    least: Vec<u64>,
    /// What the cheapest device is paid.
    one: u64,
}

impl Rest {
    /// Of devices of these rates and prices.
    pub(super) fn new(ways: &[(u64, u64)]) -> Self {
        // By parts, rates rounded up.
        let mut least = vec![0_u64; REST_PARTS + 1];
        for at in 1..=REST_PARTS {
            let with = |&(rate, price): &(u64, u64)| {
                let parts = usize::try_from(rate.div_ceil(UNIT / REST_PARTS as u64)).unwrap_or(REST_PARTS);
                least[at.saturating_sub(parts)].saturating_add(price)
            };
            least[at] = ways.iter().map(with).min().unwrap_or(u64::MAX);
        }
        Self { least, one: ways.iter().map(|way| way.1).min().unwrap_or(u64::MAX) }
    }

    /// What devices are paid that pass so much.
    pub(super) fn pays(&self, of: u64) -> u64 {
        if of == 0 {
            return 0;
        }
        let parts = usize::try_from(of / (UNIT / REST_PARTS as u64)).unwrap_or(REST_PARTS);
        self.least[parts.min(REST_PARTS)].max(self.one)
    }
}

/// A device that may begin at a border.
#[derive(Clone, Copy)]
pub(super) struct Entrant {
    pub(super) slot: u32,
    pub(super) set: usize,
    pub(super) site: usize,
    pub(super) layers: u32,
    /// Of the requests that cross, at most.
    pub(super) rate: u64,
    /// Of all requests, at most.
    pub(super) whole: u64,
    pub(super) price: u64,
    pub(super) big: bool,
    /// The least price per rate of this and all that follow.
    pub(super) follow: (u64, u64),
}

/// A device that holds the next layers.
#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) left: u32,
    pub(super) whole: u64,
    pub(super) price: u64,
    pub(super) big: bool,
}

/// Devices that begin at a border.
pub(super) struct Begun {
    pub(super) devices: Vec<Entrant>,
    /// Layers up to the next border.
    pub(super) layers: u32,
    /// What those waste.
    pub(super) waste: u64,
    /// What is wasted until the last of all that hold them comes to its end, where that has to be before the bridge is crossed.
    pub(super) ahead: u64,
}

/// The choice of devices that begin at one border.
pub(super) struct Choice<'a> {
    pub(super) rest: &'a Rest,
    /// Devices of each set that are still free.
    pub(super) free: Vec<usize>,
    /// What may be chosen, those of deeper choices last.
    pub(super) options: Vec<Entrant>,
    pub(super) chosen: Vec<Entrant>,
    /// All that hold the next layers, the longest first.
    pub(super) held: Vec<Held>,
    /// What each set passes at most, and the least price per rate.
    pub(super) offers: Vec<(u64, (u64, u64))>,
    /// What may be wasted.
    pub(super) room: u64,
    pub(super) looked: &'a mut u64,
    pub(super) steps_max: u64,
    /// Devices in all that was found, and how many there may be.
    pub(super) devices: usize,
    pub(super) most: usize,
    pub(super) stop: &'a dyn Fn() -> bool,
    /// Whether a limit was reached, or somebody said stop.
    pub(super) ended: bool,
    pub(super) found: Vec<Begun>,
}

impl Choice<'_> {
    /// What is wasted at least as long as big devices hold layers, and on so many first layers: the more devices, the more.
    fn waste(&self, first: u32) -> u64 {
        let until = self.held.iter().find(|held| held.big).map_or(0, |held| held.left).max(first);
        let (mut paid, mut whole, mut waste) = (0_u64, 0_u64, 0_u64);
        for (i, held) in self.held.iter().enumerate() {
            paid = paid.saturating_add(held.price);
            whole = whole.saturating_add(held.whole);
            let next = self.held.get(i + 1).map_or(0, |next| next.left).min(until);
            let layers = held.left.min(until).saturating_sub(next);
            if layers > 0 {
                waste = waste.saturating_add(self.each(paid, whole).saturating_mul(layers.into()));
            }
        }
        waste
    }

    /// What one layer wastes: others pass what its devices do not.
    fn each(&self, paid: u64, whole: u64) -> u64 {
        paid.saturating_add(self.rest.pays(UNIT.saturating_sub(whole))).saturating_sub(UNIT)
    }

    fn hold(&mut self, option: &Entrant) -> usize {
        let Entrant { layers: left, whole, price, big, .. } = *option;
        let at = self.held.partition_point(|held| held.left > left);
        self.held.insert(at, Held { left, whole, price, big });
        at
    }

    /// Whether what is needed still costs more on one layer than there is room for, each set giving the most that one of its
    /// devices may pass for the least price per rate that one asks.
    fn dearer(&mut self, begin: usize, need: u64, paid: u64) -> bool {
        self.offers.clear();
        self.offers.resize(self.free.len(), (0, (1, 0)));
        for option in &self.options[begin..] {
            let (most, price) = &mut self.offers[option.set];
            *most = option.rate.max(*most);
            *price =
                if price.1 == 0 { (option.price, option.rate) } else { cheaper(*price, (option.price, option.rate)) };
        }
        for (offer, &free) in self.offers.iter_mut().zip(&self.free) {
            offer.0 = offer.0.saturating_mul(free as u64);
        }
        self.offers.retain(|offer| offer.0 > 0);
        self.offers.sort_unstable_by(|a, b| compare(a.1, b.1));
        let (mut need, mut paid) = (need, paid);
        for &(most, price) in &self.offers {
            let of = most.min(need);
            paid = paid.saturating_add(part(of, price));
            need -= of;
        }
        need > 0 || paid.saturating_sub(UNIT) > self.room
    }

    /// Chooses from a part of the options, so much being needed still.
    pub(super) fn choose(&mut self, (from, to): (usize, usize), need: u64, paid: u64) {
        if self.ended {
            return;
        }
        if need == 0 && !self.chosen.is_empty() {
            let layers = self.held.last().map_or(0, |held| held.left);
            let (ahead, whole) =
                (self.waste(layers), self.held.iter().map(|held| held.whole).fold(0, u64::saturating_add));
            if ahead <= self.room {
                let waste = self.each(paid, whole).saturating_mul(layers.into());
                self.devices += self.held.len();
                self.found.push(Begun { devices: self.chosen.clone(), layers, waste, ahead });
            }
        }
        let begin = self.options.len();
        for position in from..to {
            let before = *self.looked;
            // Many devices side by side take longer.
            *self.looked += 1 + self.held.len() as u64 / 16;
            self.ended |= *self.looked > self.steps_max
                || self.devices > self.most
                || before / STEPS_BETWEEN != *self.looked / STEPS_BETWEEN && (self.stop)();
            if self.ended {
                self.options.truncate(begin);
                return;
            }
            let option = self.options[position];
            if self.free[option.set] > 0 {
                let at = self.hold(&option);
                if self.waste(1) <= self.room {
                    self.options.push(option);
                }
                self.held.remove(at);
            }
        }
        let end = self.options.len();
        if need > 0 && self.dearer(begin, need, paid) {
            self.options.truncate(begin);
            return;
        }
        for position in (begin..end).rev() {
            let option = self.options[position];
            let own = (option.price, option.rate);
            let follow = if position + 1 < end { cheaper(self.options[position + 1].follow, own) } else { own };
            self.options[position].follow = follow;
        }
        for position in begin..end {
            let option = self.options[position];
            // Even in fractions what is needed costs so much, for one layer at least.
            if paid.saturating_add(part(need, option.follow)).saturating_sub(UNIT) > self.room {
                break;
            }
            self.free[option.set] -= 1;
            self.chosen.push(option);
            let at = self.hold(&option);
            self.choose((position, end), need.saturating_sub(option.rate), paid.saturating_add(option.price));
            self.held.remove(at);
            self.chosen.pop();
            self.free[option.set] += 1;
        }
        self.options.truncate(begin);
    }
}

/// Compares two prices, each for a rate.
fn compare(a: (u64, u64), b: (u64, u64)) -> Ordering {
    (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1)))
}

/// The lesser of two prices, each for a rate.
fn cheaper(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    if compare(a, b).is_le() { a } else { b }
}

/// What so many parts cost at a price for a rate, rounded down.
fn part(of: u64, (price, rate): (u64, u64)) -> u64 {
    u64::try_from(u128::from(of) * u128::from(price) / u128::from(rate)).unwrap_or(u64::MAX)
}
