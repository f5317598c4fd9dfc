//! The cheapest bridge: a search over the sets of devices that pass layers side by side.
//!
//! A main device passes more than a share of the rate, more than a half. A bridge lies between the layers of two, none being
//! between them. Looked at are the requests that the first of them passes, and the devices that hand those on. The main device
//! where the bridge ends passes all but a rest of them; what stands beside it passes little itself, and passes no more on its
//! other layers. So each device is either *small*, or comes to its end before the bridge does. Where main devices pass nearly
//! everything, requests that small ones pass are left out instead. Where no main device ends the bridge, all devices are
//! followed to their ends.
//!
//! What is searched is looser than plans: nothing is said of where in the model a bridge lies, or of devices used up before.
//! A device that begins gets at most what the devices that end there hand over to it, and what has to go on must find its
//! way. On each layer other devices are paid for what these do not pass, the least that devices are paid for that (from a
//! table). All layers that big devices hold belong to the bridge, so what those waste counts as soon as they begin; that only
//! grows as more devices begin, and sets that waste too much are given up while they are put together. All figures are whole
//! parts, rates rounded up and prices down, so that what is not found is not there.

use super::choice::{Begun, Choice, Entrant, Held, Rest};
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
    /// A device that passes more parts of the rate than this is a main one: more than half of [`UNIT`], so that no layer
    /// has two.
    pub main: u64,
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
    /// What others are paid at least on each layer for what these do not pass, in parts.
    pub beside: u64,
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
    /// Whether it may pass more than stands beside a main device.
    big: bool,
}

/// What is known after a stretch.
struct Node {
    active: Vec<Active>,
    before: usize,
    layers: u32,
    /// What has been wasted.
    waste: u64,
    /// Whether the bridge is crossed.
    over: bool,
}

/// Most sets of devices that a search keeps, and most devices in all of them.
const KEPT_MAX: usize = 500_000;
const DEVICES_KEPT_MAX: usize = 2_000_000;
/// Small devices are left out where all together pass no more than one of so many parts of the rate.
const LEFT_OUT: u64 = 1 << 24;

/// Slot of the device that begins a bridge, which belongs to no set.
const FIRST: u32 = u32::MAX;

impl Ground {
    /// The same with every way in the other direction.
    #[must_use]
    pub fn reversed(&self) -> Self {
        let sites = self.between.len();
        let between = (0..sites).map(|a| (0..sites).map(|b| self.between[b][a]).collect()).collect();
        Self { main: self.main, sets: self.sets.clone(), between }
    }

    /// The least that layers waste between a main device of site `from` and the next main one, of site `to`; or, where `to` is
    /// none, as long as devices last that hold layers up to the first stretch without devices of `from`, no other site having
    /// main ones. Only bridges that waste less than `below` are looked for, and so many steps are taken at most, fewer where
    /// somebody says stop.
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
            // Where no main device ends the bridge, others may follow while its devices last.
            rest: self.rest(if to.is_some() { self.main } else { UNIT }),
            asked: self.asked(),
            ends: (from, to),
            below,
            nodes: Vec::new(),
            kept: 0,
            heap: BinaryHeap::new(),
            known: HashMap::new(),
            looked: 0,
            steps_max,
            stop,
            ended: false,
        };
        search.run()
    }

    /// What passes each layer, and what arrives.
    fn asked(&self) -> Asked {
        let small = UNIT.saturating_sub(self.main);
        let devices: usize = self.sets.iter().map(|set| set.free).sum();
        // So much small devices pass together; it matters little where each passes next to nothing.
        let all = small.saturating_mul(devices as u64);
        let left_out = all <= UNIT / LEFT_OUT;
        let layer = self.main.saturating_sub(if left_out { all } else { 0 });
        Asked { layer, end: layer.saturating_sub(small), small, left_out }
    }

    /// What devices are paid at least for what others do not pass: on a bridge none is a main one.
    fn rest(&self, most: u64) -> Rest {
        let ways = self.sets.iter().flat_map(|set| set.ways.iter()).filter(|way| way.rate > 0);
        Rest::new(&ways.map(|way| (way.rate.min(most), way.price)).collect::<Vec<_>>())
    }
}

/// Of the requests that cross, the parts of the rate that pass each layer and arrive.
struct Asked {
    layer: u64,
    end: u64,
    /// What a small device passes at most.
    small: u64,
    /// Whether requests that small devices pass are left out.
    left_out: bool,
}

struct Search<'a> {
    ground: &'a Ground,
    slots: Vec<(usize, usize)>,
    rest: Rest,
    asked: Asked,
    ends: (usize, Option<usize>),
    below: u64,
    nodes: Vec<Node>,
    /// Devices in all of them.
    kept: usize,
    heap: BinaryHeap<Reverse<(u64, usize)>>,
    /// The least waste by what is active.
    known: HashMap<Vec<Active>, u64>,
    looked: u64,
    steps_max: u64,
    stop: &'a dyn Fn() -> bool,
    /// Whether a limit was reached.
    ended: bool,
}

impl Search<'_> {
    fn run(mut self) -> Bridging {
        let site = u32::try_from(self.ends.0).unwrap_or(u32::MAX);
        let active = vec![Active { slot: FIRST, site, left: 0, rate: UNIT, big: true }];
        self.note(Node { active, before: usize::MAX, layers: 0, waste: 0, over: false }, 0);
        while let Some(Reverse((least, at))) = self.heap.pop() {
            let Node { ref active, waste, over, .. } = self.nodes[at];
            if over {
                let bridge = Some(self.stretches(at));
                return Bridging { bridge, least, complete: true, looked: self.looked };
            }
            if self.known.get(active).is_some_and(|&least| least < waste) {
                continue;
            }
            self.expand(at);
            if self.ended || self.nodes.len() > KEPT_MAX || self.kept > DEVICES_KEPT_MAX || (self.stop)() {
                return Bridging { bridge: None, least, complete: false, looked: self.looked };
            }
        }
        Bridging { bridge: None, least: self.below, complete: true, looked: self.looked }
    }

    fn stretches(&self, mut at: usize) -> Vec<Stretch> {
        let stretch = |layers: u32, active: &[Active]| {
            let whole = active.iter().map(|active| self.whole(active)).fold(0, u64::saturating_add);
            let devices = active.iter().map(|active| self.slots[active.slot as usize]).collect();
            Stretch { layers, devices, beside: self.rest.pays(UNIT.saturating_sub(whole)) }
        };
        let mut stretches = Vec::new();
        // Devices that hold layers of the last stretch hold some of those that follow.
        let mut left: Vec<Active> = self.nodes[at].active.iter().copied().filter(|active| active.left > 0).collect();
        left.sort_unstable_by_key(|active| active.left);
        for (i, active) in left.iter().enumerate().rev() {
            let layers = active.left - i.checked_sub(1).map_or(0, |before| left[before].left);
            if layers > 0 {
                stretches.push(stretch(layers, &left[i..]));
            }
        }
        while at != usize::MAX {
            let node = &self.nodes[at];
            if node.layers > 0 {
                stretches.push(stretch(node.layers, &node.active));
            }
            at = node.before;
        }
        stretches.reverse();
        stretches
    }

    /// What a device passes of all requests, at most.
    fn whole(&self, active: &Active) -> u64 {
        let (set, way) = self.slots[active.slot as usize];
        let main = self.ground.main;
        self.ground.sets[set].ways[way].rate.min(if active.big { main } else { UNIT - main })
    }

    /// Keeps a node from which so much at least is wasted in all.
    fn note(&mut self, mut node: Node, least: u64) {
        if least >= self.below {
            return;
        }
        node.active.sort_unstable();
        if !node.over {
            if self.known.get(&node.active).is_some_and(|&least| least <= node.waste) {
                return;
            }
            self.known.insert(node.active.clone(), node.waste);
        }
        self.kept += node.active.len();
        self.heap.push(Reverse((least, self.nodes.len())));
        self.nodes.push(node);
    }

    /// What a device of a site hands over at most to each of another.
    fn passes(&self, from: usize, to: usize) -> u64 {
        if from == to { UNIT } else { self.ground.between[from][to] }
    }

    /// Devices that may begin where others end, the longest first; and whether one of them is the main one of the other side.
    fn entrants(&self, ended: &[Active]) -> (Vec<Entrant>, bool) {
        let main = self.ground.main;
        let sites = self.ground.between.len();
        let handed: Vec<u64> = (0..sites)
            .map(|to| ended.iter().map(|active| active.rate.min(self.passes(active.site as usize, to))).sum())
            .collect();
        let (_, to) = self.ends;
        // Small ones may stand beside the main device at the end; without one, all are followed to their ends.
        let small = Some(self.asked.small).filter(|_| to.is_some() && !self.asked.left_out);
        let (mut options, mut over): (Vec<Entrant>, bool) = (Vec::new(), false);
        for (slot, &(set, way)) in self.slots.iter().enumerate() {
            let BridgeSet { site, ref ways, .. } = self.ground.sets[set];
            let BridgeWay { layers, rate, price } = ways[way];
            over |= to == Some(site) && rate > main && rate.min(handed[site]) >= self.asked.end;
            let slot = u32::try_from(slot).unwrap_or(FIRST);
            let mut option = |most: u64, big: bool| {
                let whole = rate.min(most);
                let rate = whole.min(handed[site]);
                if rate > 0 {
                    let follow = (price, rate);
                    options.push(Entrant { slot, set, site, layers, rate, whole, price, big, follow });
                }
            };
            if let Some(small) = small {
                option(small, false);
            }
            if small.is_none_or(|small| rate > small) {
                option(main, true);
            }
        }
        options.sort_by_key(|option| (Reverse(option.layers), option.slot, option.big));
        (options, over)
    }

    fn expand(&mut self, at: usize) {
        let waste = self.nodes[at].waste;
        let (ended, going): (Vec<Active>, Vec<Active>) =
            self.nodes[at].active.iter().copied().partition(|active| active.left == 0);
        let passed: u64 = going.iter().map(|active| active.rate).sum();
        let need = self.asked.layer.saturating_sub(passed);
        let (options, over) = self.entrants(&ended);
        // What ends finds its way to what begins.
        let leaves = |begun: &[Entrant]| -> u64 {
            let leaves = |active: &Active| {
                let takes = |option: &Entrant| option.rate.min(self.passes(active.site as usize, option.site));
                active.rate.min(begun.iter().map(takes).fold(0, u64::saturating_add))
            };
            ended.iter().map(leaves).sum()
        };
        // The layers of the other site's main device are no part of the bridge; beside it stand small ones alone.
        let over = over && going.iter().all(|active| !active.big);
        let mut free: Vec<usize> = self.ground.sets.iter().map(|set| set.free).collect();
        let (mut held, mut paid) = (Vec::new(), 0_u64);
        for active in &going {
            let (set, way) = self.slots[active.slot as usize];
            free[set] = free[set].saturating_sub(1);
            let way = self.ground.sets[set].ways[way];
            paid = paid.saturating_add(way.price);
            held.push(Held { left: active.left, whole: self.whole(active), price: way.price, big: active.big });
        }
        held.sort_by_key(|held| Reverse(held.left));
        let (mut looked, count) = (self.looked, options.len());
        let mut choice = Choice {
            rest: &self.rest,
            free,
            options,
            chosen: Vec::new(),
            held,
            offers: Vec::new(),
            room: self.below.saturating_sub(waste + 1),
            looked: &mut looked,
            steps_max: self.steps_max,
            devices: 0,
            most: DEVICES_KEPT_MAX.saturating_sub(self.kept),
            stop: self.stop,
            ended: false,
            found: Vec::new(),
        };
        choice.choose((0, count), need, paid);
        let Choice { found, ended: given_up, .. } = choice;
        let (from, to) = self.ends;
        let mut after = Vec::new();
        for Begun { devices, layers, waste: wasted, ahead } in found {
            // A device that passes all that crosses is a main one, unless some of it was left out.
            let main = going.is_empty() && devices.len() == 1 && !self.asked.left_out;
            if main || leaves(&devices) < need {
                continue;
            }
            let mut here =
                going.iter().map(|active| active.site as usize).chain(devices.iter().map(|option| option.site));
            let over = to.is_none() && here.all(|site| site != from);
            let active = |option: &Entrant| Active {
                slot: option.slot,
                site: u32::try_from(option.site).unwrap_or(u32::MAX),
                left: option.layers - layers,
                rate: option.rate,
                big: option.big,
            };
            let still = going.iter().map(|active| Active { left: active.left - layers, ..*active });
            let active: Vec<Active> = still.chain(devices.iter().map(active)).collect();
            let node = Node { active, before: at, layers, waste: waste.saturating_add(wasted), over };
            after.push((node, waste.saturating_add(ahead)));
        }
        self.looked = looked;
        self.ended |= given_up;
        if over {
            self.note(Node { active: Vec::new(), before: at, layers: 0, waste, over }, waste);
        }
        for (node, least) in after {
            self.note(node, least);
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
        Ground { main: UNIT - (1 << 14), sets, between: vec![vec![UNIT, way], vec![way, UNIT]] }
    }

    #[test]
    fn a_way_that_carries_everything_needs_no_bridge_and_a_slower_one_the_cheapest() {
        let found = |way: f64, to| two(way).cheapest_bridge((0, to), 8 * UNIT, 1_000_000, &|| false);
        assert_eq!(found(1.0, Some(1)).least, 0);
        // One device cannot hand all over to one; two of site 0 can, or two of site 1 may take it. The former is cheaper.
        let half = found(0.5, Some(1));
        assert_eq!((half.least, half.complete), (UNIT / 2, true));
        let devices = vec![(1, 0), (1, 0)];
        assert_eq!(half.bridge, Some(vec![Stretch { layers: 2, devices, beside: 0 }]));
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
