//! The cheapest bridge: a search over the sets of devices that pass layers side by side.
//!
//! What is searched is looser than plans: nothing is said of where in the model a bridge lies, or of devices used up before.
//! A device that begins gets at most what the devices that end there hand over to it, and what has to go on must find its
//! way. All figures are whole parts, rates rounded up and prices down, so that what is not found is not there.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Parts of the rate in question, and of what one layer asks for.
pub const UNIT: u64 = 1 << 50;

/// A way to use a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeWay {
    /// Layers that it holds.
    pub layers: u32,
    /// What it passes at most, in parts of the rate, at most [`UNIT`].
    pub rate: u64,
    /// What it pays on each of its layers, in parts.
    pub price: u64,
}

/// Devices that may stand for one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSet {
    /// Their site.
    pub site: usize,
    /// How many there are.
    pub free: usize,
    /// The ways to use one of them.
    pub ways: Vec<BridgeWay>,
}

/// Devices, and what passes between their sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// The devices.
    pub sets: Vec<BridgeSet>,
    /// What a device of one site may hand over to one of another, in parts of the rate; `between[from][to]`.
    pub between: Vec<Vec<u64>>,
}

/// Layers that the same devices pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// How many layers.
    pub layers: u32,
    /// The devices: positions of set and way.
    pub devices: Vec<(usize, usize)>,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridging {
    /// The cheapest bridge below the limit, if there is one and it was found.
    pub bridge: Option<Vec<Stretch>>,
    /// No bridge wastes less than this, in parts.
    pub least: u64,
    /// Whether the search came to its end.
    pub complete: bool,
    /// Steps of the search.
    pub looked: u64,
}

/// A device at a border: at rest where no layers are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Active {
    slot: u32,
    site: u32,
    left: u32,
    rate: u64,
}

/// What is known after a stretch.
struct Node {
    active: Vec<Active>,
    before: usize,
    layers: u32,
    /// Whether the bridge is crossed.
    over: bool,
}

/// Most sets of devices that a search keeps.
const KEPT_MAX: usize = 500_000;
/// Steps between two looks at whether to stop.
const STEPS_BETWEEN: u64 = 1 << 16;

/// Slot of the device that begins a bridge, which belongs to no set.
const FIRST: u32 = u32::MAX;

impl Ground {
    /// The same with every way in the other direction.
    #[must_use]
    pub fn reversed(&self) -> Self {
        let sites = self.between.len();
        let between = (0..sites).map(|a| (0..sites).map(|b| self.between[b][a]).collect()).collect();
        Self { sets: self.sets.clone(), between }
    }

    /// The least that layers waste between one that a device of site `from` passes alone and the next that a device of `to`
    /// does; or, where `to` is none, up to and with the first stretch without devices of `from`, no other site having devices
    /// that pass layers alone. Only bridges that waste less than `below` are looked for, and so many steps are taken at most, fewer
    /// where somebody says stop.
    #[must_use]
    pub fn cheapest_bridge(
        &self,
        (from, to): (usize, Option<usize>),
        below: u64,
        steps_max: u64,
        stop: &dyn Fn() -> bool,
    ) -> Bridging {
        let slots: Vec<(usize, usize)> =
            (0..self.sets.len()).flat_map(|set| (0..self.sets[set].ways.len()).map(move |way| (set, way))).collect();
        let search = Search {
            ground: self,
            slots,
            ends: (from, to),
            below,
            nodes: Vec::new(),
            heap: BinaryHeap::new(),
            known: HashMap::new(),
            looked: 0,
            steps_max,
            stop,
            ended: false,
        };
        search.run()
    }
}

struct Search<'a> {
    ground: &'a Ground,
    slots: Vec<(usize, usize)>,
    ends: (usize, Option<usize>),
    below: u64,
    nodes: Vec<Node>,
    heap: BinaryHeap<Reverse<(u64, usize)>>,
    /// The least waste by what is active.
    known: HashMap<Vec<Active>, u64>,
    looked: u64,
    steps_max: u64,
    stop: &'a dyn Fn() -> bool,
    /// Whether a limit was reached.
    ended: bool,
}

/// A device that may begin at a border, and the rate that it gets there.
#[derive(Clone, Copy)]
struct Entrant {
    slot: u32,
    set: usize,
    site: usize,
    layers: u32,
    rate: u64,
    price: u64,
}

/// The choice of devices that begin at one border.
struct Choice<'a> {
    options: Vec<Entrant>,
    /// Devices of each set that are still free.
    free: Vec<usize>,
    chosen: Vec<usize>,
    /// What may be wasted.
    room: u64,
    looked: &'a mut u64,
    steps_max: u64,
    /// How many more may be found.
    most: usize,
    stop: &'a dyn Fn() -> bool,
    /// Whether a limit was reached, or somebody said stop.
    ended: bool,
    /// Devices that begin, and the layers up to the next border.
    found: Vec<(Vec<usize>, u64, u32)>,
}

impl Choice<'_> {
    fn choose(&mut self, at: usize, need: u64, paid: u64, shortest: u32) {
        if need == 0 && !self.chosen.is_empty() {
            let waste = paid.saturating_sub(UNIT).saturating_mul(shortest.into());
            if waste <= self.room {
                self.found.push((self.chosen.clone(), waste, shortest));
            }
        }
        for position in at..self.options.len() {
            let option = self.options[position];
            *self.looked += 1;
            self.ended |= *self.looked > self.steps_max
                || self.found.len() > self.most
                || self.looked.is_multiple_of(STEPS_BETWEEN) && (self.stop)();
            if self.ended {
                return;
            }
            // Even in fractions what is needed costs so much, for one layer at least.
            let rest = u128::from(need) * u128::from(option.price) / u128::from(option.rate);
            if (u128::from(paid) + rest).saturating_sub(UNIT.into()) > self.room.into() {
                return;
            }
            let paid = paid.saturating_add(option.price);
            if self.free[option.set] == 0 || paid.saturating_sub(UNIT) > self.room {
                continue;
            }
            self.free[option.set] -= 1;
            self.chosen.push(position);
            self.choose(position, need.saturating_sub(option.rate), paid, shortest.min(option.layers));
            self.chosen.pop();
            self.free[option.set] += 1;
        }
    }
}

impl Search<'_> {
    fn run(mut self) -> Bridging {
        let site = u32::try_from(self.ends.0).unwrap_or(u32::MAX);
        self.note(vec![Active { slot: FIRST, site, left: 0, rate: UNIT }], 0, (usize::MAX, 0, false));
        while let Some(Reverse((waste, at))) = self.heap.pop() {
            if self.nodes[at].over {
                let bridge = Some(self.stretches(at));
                return Bridging { bridge, least: waste, complete: true, looked: self.looked };
            }
            if self.known.get(&self.nodes[at].active).is_some_and(|&least| least < waste) {
                continue;
            }
            self.expand(at, waste);
            if self.ended || self.nodes.len() > KEPT_MAX || (self.stop)() {
                return Bridging { bridge: None, least: waste, complete: false, looked: self.looked };
            }
        }
        Bridging { bridge: None, least: self.below, complete: true, looked: self.looked }
    }

    fn stretches(&self, mut at: usize) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        while at != usize::MAX {
            let node = &self.nodes[at];
            if node.layers > 0 {
                let devices = node.active.iter().map(|active| self.slots[active.slot as usize]).collect();
                stretches.push(Stretch { layers: node.layers, devices });
            }
            at = node.before;
        }
        stretches.reverse();
        stretches
    }

    fn note(&mut self, mut active: Vec<Active>, waste: u64, (before, layers, over): (usize, u32, bool)) {
        if waste >= self.below {
            return;
        }
        active.sort_unstable();
        if !over {
            if self.known.get(&active).is_some_and(|&least| least <= waste) {
                return;
            }
            self.known.insert(active.clone(), waste);
        }
        self.heap.push(Reverse((waste, self.nodes.len())));
        self.nodes.push(Node { active, before, layers, over });
    }

    /// What a device of a site hands over at most to each of another.
    fn passes(&self, from: usize, to: usize) -> u64 {
        if from == to { UNIT } else { self.ground.between[from][to] }
    }

    fn expand(&mut self, at: usize, waste: u64) {
        let (ended, going): (Vec<Active>, Vec<Active>) =
            self.nodes[at].active.iter().copied().partition(|active| active.left == 0);
        let passed: u64 = going.iter().map(|active| active.rate).sum();
        let need = UNIT.saturating_sub(passed);
        let sites = self.ground.between.len();
        let handed: Vec<u64> = (0..sites)
            .map(|to| ended.iter().map(|active| active.rate.min(self.passes(active.site as usize, to))).sum())
            .collect();
        let mut options: Vec<Entrant> = Vec::new();
        for (slot, &(set, way)) in self.slots.iter().enumerate() {
            let BridgeSet { site, ref ways, .. } = self.ground.sets[set];
            let BridgeWay { layers, rate, price } = ways[way];
            let rate = rate.min(handed[site]);
            if rate > 0 {
                let slot = u32::try_from(slot).unwrap_or(FIRST);
                options.push(Entrant { slot, set, site, layers, rate, price });
            }
        }
        let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
        options.sort_by(|a, b| product(a.price, b.rate).cmp(&product(b.price, a.rate)).then(a.slot.cmp(&b.slot)));
        // What ends finds its way to what begins.
        let leaves = |begun: &[Entrant]| -> u64 {
            let leaves = |active: &Active| {
                let takes = |option: &Entrant| option.rate.min(self.passes(active.site as usize, option.site));
                active.rate.min(begun.iter().map(takes).fold(0, u64::saturating_add))
            };
            ended.iter().map(leaves).sum()
        };
        let (from, to) = self.ends;
        // The layer that a device of the other site passes alone is no part of the bridge.
        let reached = |option: &&Entrant| {
            going.is_empty() && to == Some(option.site) && option.rate >= UNIT && leaves(&[**option]) >= UNIT
        };
        let over = options.iter().any(|option| reached(&option));
        let mut free: Vec<usize> = self.ground.sets.iter().map(|set| set.free).collect();
        let (mut paid, mut shortest) = (0_u64, u32::MAX);
        for active in &going {
            let (set, way) = self.slots[active.slot as usize];
            free[set] = free[set].saturating_sub(1);
            paid = paid.saturating_add(self.ground.sets[set].ways[way].price);
            shortest = shortest.min(active.left);
        }
        let (chosen, room) = (Vec::new(), self.below.saturating_sub(waste + 1));
        let (found, steps_max, mut looked) = (Vec::new(), self.steps_max, self.looked);
        let (most, stop) = (KEPT_MAX.saturating_sub(self.nodes.len()), self.stop);
        let mut choice =
            Choice { options, free, chosen, room, looked: &mut looked, steps_max, most, stop, ended: false, found };
        choice.choose(0, need, paid, shortest);
        let Choice { options, found, ended: given_up, .. } = choice;
        let mut after = Vec::new();
        for (chosen, wasted, layers) in found {
            let begun: Vec<Entrant> = chosen.iter().map(|&position| options[position]).collect();
            // A device alone ends this bridge, and may begin another.
            if (going.is_empty() && begun.len() == 1) || leaves(&begun) < need {
                continue;
            }
            let here = going.iter().map(|active| active.site as usize).chain(begun.iter().map(|option| option.site));
            let over = to.is_none() && here.clone().all(|site| site != from);
            let active = |option: &Entrant| Active {
                slot: option.slot,
                site: u32::try_from(option.site).unwrap_or(u32::MAX),
                left: option.layers - layers,
                rate: option.rate,
            };
            let still = going.iter().map(|active| Active { left: active.left - layers, ..*active });
            let active: Vec<Active> = still.chain(begun.iter().map(active)).collect();
            after.push((active, waste.saturating_add(wasted), (at, layers, over)));
        }
        self.looked = looked;
        self.ended |= given_up;
        if over {
            self.note(Vec::new(), waste, (at, 0, true));
        }
        for (active, waste, how) in after {
            self.note(active, waste, how);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(site: usize, free: usize, ways: &[(u32, f64, f64)]) -> BridgeSet {
        let parts = |value: f64| (value * UNIT as f64) as u64;
        let way =
            |&(layers, rate, price): &(u32, f64, f64)| BridgeWay { layers, rate: parts(rate), price: parts(price) };
        BridgeSet { site, free, ways: ways.iter().map(way).collect() }
    }

    /// Two sites, each with big devices that pass everything alone and small ones that pass half of it.
    fn two(way: f64) -> Ground {
        let sets = vec![
            set(0, 2, &[(4, 1.0, 1.0)]),
            set(0, 4, &[(2, 0.5, 0.625)]),
            set(1, 2, &[(4, 1.0, 1.0)]),
            set(1, 4, &[(2, 0.5, 0.75)]),
        ];
        let way = (way * UNIT as f64) as u64;
        Ground { sets, between: vec![vec![UNIT, way], vec![way, UNIT]] }
    }

    #[test]
    fn a_way_that_carries_everything_needs_no_bridge_and_a_slower_one_the_cheapest() {
        let found = |way: f64, to| two(way).cheapest_bridge((0, to), 8 * UNIT, 1_000_000, &|| false);
        assert_eq!(found(1.0, Some(1)).least, 0);
        // One device cannot hand all over to one; two of site 0 can, or two of site 1 may take it. The former is cheaper.
        let half = found(0.5, Some(1));
        assert_eq!((half.least, half.complete), (UNIT / 2, true));
        let devices = vec![(1, 0), (1, 0)];
        assert_eq!(half.bridge, Some(vec![Stretch { layers: 2, devices }]));
        // Two of each site where a way carries a quarter.
        assert_eq!(found(0.25, Some(1)).least, UNIT / 2 + UNIT);
        assert_eq!(found(0.25, None).least, UNIT / 2 + UNIT);
        // With a hundredth from each to each nothing leads over.
        let none = found(0.01, Some(1));
        assert_eq!((none.bridge, none.least, none.complete), (None, 8 * UNIT, true));
    }

    #[test]
    fn a_search_with_millions_of_choices_at_one_border_gives_up() {
        let small = (0..26).map(|i| set(0, 1, &[(1, 0.07 + 0.0001 * f64::from(i), 0.07)]));
        let sets = two(0.25).sets.into_iter().chain(small).collect();
        let found = Ground { sets, ..two(0.25) }.cheapest_bridge((0, Some(1)), 8 * UNIT, u64::MAX, &|| false);
        assert!(!found.complete && found.bridge.is_none() && found.looked < 1 << 28, "{found:?}");
    }

    #[test]
    fn a_search_that_is_stopped_claims_no_more_than_it_saw_and_a_lower_limit_finds_nothing() {
        let ground = two(0.25);
        let whole = ground.cheapest_bridge((0, Some(1)), 8 * UNIT, 1_000_000, &|| false);
        for steps in 0..whole.looked {
            let part = ground.cheapest_bridge((0, Some(1)), 8 * UNIT, steps, &|| false);
            assert!(!part.complete && part.least <= whole.least, "{steps}: {part:?}");
        }
        let below = ground.cheapest_bridge((0, Some(1)), whole.least, 1_000_000, &|| false);
        assert_eq!((below.bridge, below.complete), (None, true));
        assert!(!ground.cheapest_bridge((0, Some(1)), 8 * UNIT, 1_000_000, &|| true).complete);
        assert_eq!(ground.reversed(), ground);
    }
}
