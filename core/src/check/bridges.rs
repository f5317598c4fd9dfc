//! Throughput bounds from bridges between sites.
//!
//! A plan is slowed to the rate `F0` in question. Devices are divided into sites; what one device hands over to one of
//! another site is at most what the fastest way between the two sites carries. A *main* device passes more than a share `m` of
//! the rate, more than half of it: no layer has two.
//!
//! All plans are divided by the sites that have main devices: a case for each set `S` of sites. As in [`super::worths`], a
//! device of worth `u >= 0` that holds `k` layers pays `u / k` on each of them. In a case, where devices of sites that are not in
//! `S` pass no more than `m F0`, (a) all devices that pass a layer pay at least 1 on it. What they pay beyond 1 is *wasted*. Then
//! all layers collect their number and what is wasted, while devices pay no more than all worths.
//!
//! *Bridges.* Let devices of `a` and `b` in `S` be main ones, and none between them: the layers between are a bridge from `a` to
//! `b`. With partial inference forbidden, each device that begins gets all its requests from devices that end at its first
//! layer. Where ways are slow a bridge wastes something: a search over what may be active side by side tells how little
//! ([`search`]). Bridges of a plan have no layer in common and join all of `S`. So all layers waste at least what a spanning
//! tree of least sum does. Where `S` is one site whose devices together hold fewer layers than there are, there is a layer without
//! any of them, and so a bridge to such a layer. Where (b) all worths add to less than the number of layers and that sum, no
//! plan of the case reaches `F0`.
//!
//! A plan read backwards is one on reversed ways. So one end of each bridge is named as where the search begins, and where
//! ways differ by direction it is made for both.
//!
//! A case without bridges proves its set and every smaller one: (a) asks for more the larger the set.

mod choice;
pub mod search;

use super::certificate::BoundFault;
use super::cover::classes;
use super::worths::{Besides, COVERS_MAX, Figures, SLOTS_MAX, Search, Set};
use crate::exact::{Exact, exact, whole};
use crate::ids::DeviceId;
use crate::plan::BridgeCase;
use crate::problem::PlacementProblem;
use num_traits::{Signed, ToPrimitive};
use search::{BridgeSet, BridgeWay, Ground, UNIT};
use std::collections::{BTreeMap, BTreeSet};

/// Most sites that may have main devices.
const SITES_MAX: usize = 8;
/// Most steps of all searches for bridges together.
pub const BRIDGE_STEPS_MAX: u64 = 60_000_000;
/// Most partial covers looked at for all cases together.
const WORK_MAX: u64 = 10 * COVERS_MAX;
/// Most sites, and most devices: a search goes as deep as there are devices.
const SITES_ALL_MAX: usize = 64;
const DEVICES_MAX: usize = 1024;
/// Worths and wastes from here on are refused: numbers of a fixed size would not hold what they add to.
const VALUE_MAX: f64 = 1024.0;

/// What is wrong with bridges.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BridgeFault {
    /// The argument is about devices that pass all tokens on at their ends.
    #[error("bridges prove nothing where requests may enter and leave a device's layers in the middle")]
    Partial,
    /// A bound that is none.
    #[error("bridges prove nothing for a bound of 0 or less")]
    Bound,
    /// A share that is none, or that two devices of a layer may have.
    #[error("main devices are said to pass more than {main} of the rate; it must be more than a half and less than 1")]
    Main {
        /// The share.
        main: f64,
    },
    /// A site without devices.
    #[error("site {site} of the bridges has no devices; leave it out")]
    Empty {
        /// Position of the site.
        site: usize,
    },
    /// A case that is none.
    #[error("case {case} of the bridges is wrong: {what}")]
    Case {
        /// Position in the list.
        case: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Some plans belong to no case.
    #[error("no case speaks of plans in which the sites {sites:?}, and no others, have main devices")]
    Missing {
        /// Positions of the sites.
        sites: Vec<usize>,
    },
    /// The worths leave room.
    #[error("the worths of case {case} add to {sum}; less than {least} layers would prove it")]
    Sum {
        /// Position in the list.
        case: usize,
        /// All worths.
        sum: f64,
        /// All layers and what bridges waste.
        least: f64,
    },
    /// Devices that carry a layer for less than 1.
    #[error("{} together carry a layer for less than 1 in case {case}", cover.join(" + "))]
    Cheap {
        /// Position in the list.
        case: usize,
        /// Devices and layers they hold.
        cover: Vec<String>,
    },
    /// A bridge that wastes less than is said.
    #[error("bridge {bridge} of case {case} is said to waste {stated}; one that wastes {found} is not ruled out")]
    Waste {
        /// Position of the case.
        case: usize,
        /// Position of the bridge in the case.
        bridge: usize,
        /// What the certificate says.
        stated: f64,
        /// What the search found.
        found: f64,
    },
}

/// What a certificate says.
pub(super) struct Claim<'a> {
    /// Names of the devices of each site.
    pub sites: &'a [Vec<String>],
    /// Share of the rate that main devices pass more than.
    pub main: f64,
    /// The cases.
    pub cases: &'a [BridgeCase],
    /// The batch that it speaks of; all where none is named.
    pub batch: Option<u32>,
}

/// Devices of equal rates at one site, and the ways to use them: layers and rate in parts, by layers.
struct Group {
    site: usize,
    devices: Vec<DeviceId>,
    ways: Vec<(u32, u64)>,
}

/// Devices of one group and worth.
struct Alike {
    group: usize,
    worth: f64,
    devices: Vec<DeviceId>,
}

struct Verification<'a> {
    problem: &'a PlacementProblem,
    groups: Vec<Group>,
    between: Vec<Vec<u64>>,
    /// What main devices pass more than, in parts of the rate.
    main: u64,
    /// Sites of which some device may be a main one, in rising order.
    able: Vec<usize>,
    work: u64,
    steps: u64,
}

/// Where a bridge begins and ends, and what it wastes, in parts.
type Claimed = (usize, Option<usize>, u64);

/// A value of 0 or more in parts of [`UNIT`], rounded down; none where it is no such value or too large.
fn parts(value: f64) -> Option<u64> {
    // Scaling by a power of two is exact, and so is a float below 2^60 as a whole number.
    (0.0..VALUE_MAX).contains(&value).then(|| (value * UNIT as f64).floor() as u64)
}

fn as_float(parts: u128) -> f64 {
    parts as f64 / UNIT as f64
}

/// A share of the rate in question in parts, rounded up, at most all of it.
fn share(rate: &Exact, above: &Exact) -> u64 {
    let share = (rate / above * whole(UNIT)).ceil().to_integer().to_u64();
    share.map_or(UNIT, |share| share.min(UNIT))
}

/// Proves case by case that no plan reaches `above`, or says why not.
pub(super) fn prove(problem: &PlacementProblem, above: &Exact, claim: &Claim<'_>) -> Vec<BoundFault> {
    match proved(problem, above, claim) {
        Ok(()) => Vec::new(),
        Err(fault) => vec![fault],
    }
}

fn proved(problem: &PlacementProblem, above: &Exact, claim: &Claim<'_>) -> Result<(), BoundFault> {
    if problem.limits.partial {
        return Err(BridgeFault::Partial.into());
    }
    if !above.is_positive() {
        return Err(BridgeFault::Bound.into());
    }
    let main = parts(claim.main).filter(|&main| UNIT / 2 < main && main < UNIT);
    let main = main.ok_or(BridgeFault::Main { main: claim.main })?;
    let count = claim.sites.len();
    if count > SITES_ALL_MAX {
        return Err(BoundFault::TooLarge { what: "sites", count: count as u128, max: SITES_ALL_MAX as u128 });
    }
    if let Some(site) = claim.sites.iter().position(Vec::is_empty) {
        return Err(BridgeFault::Empty { site }.into());
    }
    let mut site_of: BTreeMap<DeviceId, usize> = BTreeMap::new();
    for (site, names) in claim.sites.iter().enumerate() {
        for name in names {
            let device = problem.graph.find(name).filter(|&device| site_of.insert(device, site).is_none());
            device.ok_or_else(|| BoundFault::Site { device: name.clone() })?;
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    for class in classes(problem, above, claim.batch)? {
        let mut ways: BTreeMap<u32, u64> = BTreeMap::new();
        for ((layers, ..), rate) in &class.rates {
            let fastest = ways.entry(*layers).or_default();
            *fastest = share(rate, above).max(*fastest);
        }
        let ways: Vec<(u32, u64)> = ways.into_iter().collect();
        let mut by_site: BTreeMap<usize, Vec<DeviceId>> = BTreeMap::new();
        for device in class.devices {
            let known = site_of.get(&device).copied();
            let site = known.ok_or_else(|| BoundFault::Site { device: problem.graph.device(device).name.clone() })?;
            by_site.entry(site).or_default().push(device);
        }
        groups.extend(by_site.into_iter().map(|(site, devices)| Group { site, devices, ways: ways.clone() }));
    }
    let count: usize = groups.iter().map(|group| group.devices.len()).sum();
    if count > DEVICES_MAX {
        return Err(BoundFault::TooLarge { what: "devices", count: count as u128, max: DEVICES_MAX as u128 });
    }
    let enough = |group: &&Group| group.ways.iter().any(|(_, rate)| *rate > main);
    let able: BTreeSet<usize> = groups.iter().filter(enough).map(|group| group.site).collect();
    if able.len() > SITES_MAX {
        let (what, count, max) = ("sites that may have main devices", able.len() as u128, SITES_MAX as u128);
        return Err(BoundFault::TooLarge { what, count, max });
    }
    let between = between(problem, above, &groups, claim.sites.len());
    let able = able.into_iter().collect();
    let mut verification = Verification { problem, groups, between, main, able, work: 0, steps: 0 };
    verification.cases(claim.cases)
}

/// The fastest ways between sites, in parts of the rate.
fn between(problem: &PlacementProblem, above: &Exact, groups: &[Group], sites: usize) -> Vec<Vec<u64>> {
    let mut fastest = vec![vec![0.0_f64; sites]; sites];
    for from in groups {
        for to in groups.iter().filter(|to| to.site != from.site) {
            let pairs = from.devices.iter().flat_map(|&a| to.devices.iter().map(move |&b| (a, b)));
            let rates = pairs.filter_map(|(a, b)| problem.hop_rate(a, b)).map(|rate| rate.value());
            let known = &mut fastest[from.site][to.site];
            *known = rates.fold(*known, f64::max);
        }
    }
    let of = |rate: f64| exact(rate).map_or(UNIT, |rate| share(&rate, above));
    fastest.into_iter().map(|row| row.into_iter().map(of).collect()).collect()
}

impl Verification<'_> {
    fn cases(&mut self, cases: &[BridgeCase]) -> Result<(), BoundFault> {
        let mut named: Vec<(BTreeSet<usize>, bool)> = Vec::new();
        for (position, case) in cases.iter().enumerate() {
            let fault = |what| BoundFault::from(BridgeFault::Case { case: position, what });
            let sites: BTreeSet<usize> = case.mains.iter().map(|&site| site as usize).collect();
            if sites.len() < case.mains.len() || !sites.iter().all(|site| self.able.contains(site)) {
                return Err(fault("it must name sites that can have main devices, each once"));
            }
            if named.iter().any(|(known, _)| *known == sites) {
                return Err(fault("there is a case of the same sites before it"));
            }
            self.case(position, case, &sites)?;
            named.push((sites, case.bridges.is_empty()));
        }
        // Every set of sites is one of the cases, or part of one that needs no bridges.
        for subset in 0..1_usize << self.able.len() {
            let sites: BTreeSet<usize> =
                self.able.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1).map(|(_, &site)| site).collect();
            if !named.iter().any(|(known, plain)| *known == sites || *plain && sites.is_subset(known)) {
                return Err(BridgeFault::Missing { sites: sites.into_iter().collect() }.into());
            }
        }
        Ok(())
    }

    fn case(&mut self, position: usize, case: &BridgeCase, mains: &BTreeSet<usize>) -> Result<(), BoundFault> {
        let mut worth_of: BTreeMap<DeviceId, f64> = BTreeMap::new();
        for (name, &worth) in &case.worths {
            let device = self.problem.graph.find(name).filter(|_| parts(worth).is_some());
            let device = device.ok_or_else(|| BoundFault::Worth { device: name.clone(), worth })?;
            worth_of.insert(device, worth);
        }
        let mut alike: Vec<Alike> = Vec::new();
        let mut sum: u128 = 0;
        for (group, of) in self.groups.iter().enumerate() {
            let mut by_worth: BTreeMap<u64, Vec<DeviceId>> = BTreeMap::new();
            for device in &of.devices {
                let worth = worth_of.get(device).copied().unwrap_or(0.0);
                sum += u128::from(parts(worth).unwrap_or(0)) + 1;
                by_worth.entry(worth.to_bits()).or_default().push(*device);
            }
            let worths = by_worth.into_iter().map(|(bits, devices)| (f64::from_bits(bits), devices));
            alike.extend(worths.map(|(worth, devices)| Alike { group, worth, devices }));
        }
        let ground = self.ground(&alike, mains);
        let (claims, wasted) = self.claims((position, case), mains)?;
        let least = (u128::from(self.problem.layers()) << UNIT.trailing_zeros()) + wasted;
        if sum >= least {
            let (sum, least) = (as_float(sum), as_float(least));
            return Err(BridgeFault::Sum { case: position, sum, least }.into());
        }
        // Searches last, for they take longest.
        self.covers(position, (&alike, &ground))?;
        self.bridges(position, &claims, &ground)
    }

    /// What devices pass and pay where certain sites have main devices, and no others.
    fn ground(&self, alike: &[Alike], mains: &BTreeSet<usize>) -> Ground {
        let set = |Alike { group, worth, devices }: &Alike| {
            let Group { site, ref ways, .. } = self.groups[*group];
            let worth = parts(*worth).unwrap_or(0);
            let most = if mains.contains(&site) { UNIT } else { self.main };
            let way = |&(layers, rate): &(u32, u64)| BridgeWay {
                layers,
                rate: rate.min(most),
                price: worth / u64::from(layers),
            };
            BridgeSet { site, free: devices.len(), ways: ways.iter().map(way).collect() }
        };
        Ground { main: self.main, sets: alike.iter().map(set).collect(), between: self.between.clone() }
    }

    /// That all devices that pass a layer pay at least 1.
    fn covers(&mut self, case: usize, (alike, ground): (&[Alike], &Ground)) -> Result<(), BoundFault> {
        let slots: Vec<(usize, usize)> = ground
            .sets
            .iter()
            .enumerate()
            .flat_map(|(set, of)| (0..of.ways.len()).map(move |way| (set, way)))
            .collect();
        if slots.len() > SLOTS_MAX {
            let (what, count, max) = ("ways to use devices on a layer", slots.len() as u128, SLOTS_MAX as u128);
            return Err(BoundFault::TooLarge { what, count, max });
        }
        let of = |(set, way): (usize, usize)| ground.sets[set].ways[way];
        let name = |(set, way): (usize, usize)| {
            let device = &self.problem.graph.device(alike[set].devices[0]).name;
            format!("{device} with {} layers", of((set, way)).layers)
        };
        let figures = Figures {
            rates: slots.iter().map(|&slot| u128::from(of(slot).rate)).collect(),
            prices: slots.iter().map(|&slot| u128::from(of(slot).price)).collect(),
            need: u128::from(UNIT),
            price: u128::from(UNIT),
            besides: Besides::Nothing,
        };
        let sets = ground.sets.iter().map(|set| Set { free: set.free as u64, part: None }).collect();
        let limit = COVERS_MAX.min(WORK_MAX.saturating_sub(self.work));
        let mut search = Search::new(slots.iter().map(|slot| slot.0).collect(), sets, figures, limit);
        let found = search.cheap_cover();
        self.work += search.looked;
        let Some(chosen) = found? else { return Ok(()) };
        let used = slots.iter().zip(chosen).filter(|(_, count)| *count > 0);
        let cover = used.map(|(&slot, count)| format!("{count} x {}", name(slot))).collect();
        Err(BridgeFault::Cheap { case, cover }.into())
    }

    /// The bridges of a case, with what each is said to waste, in parts; and what that makes of all together.
    fn claims(
        &self,
        (position, case): (usize, &BridgeCase),
        mains: &BTreeSet<usize>,
    ) -> Result<(Vec<Claimed>, u128), BoundFault> {
        let mut claims: Vec<Claimed> = Vec::new();
        let mut wastes: BTreeMap<(usize, Option<usize>), u64> = BTreeMap::new();
        for bridge in &case.bridges {
            let fault = |what| BoundFault::from(BridgeFault::Case { case: position, what });
            let (from, to) = (bridge.from as usize, bridge.to.map(|to| to as usize));
            let waste = parts(bridge.waste).filter(|_| bridge.waste <= f64::from(self.problem.layers()));
            let waste = waste.ok_or_else(|| fault("a bridge must waste 0 or more, and no more than all layers"))?;
            if !mains.contains(&from) || to.is_some_and(|to| to == from || !mains.contains(&to)) {
                return Err(fault("a bridge must join two of its sites"));
            }
            if to.is_none() && (mains.len() > 1 || self.held(from) >= self.problem.layers()) {
                return Err(fault("a bridge may lead nowhere only from the one site, if that cannot hold all layers"));
            }
            let joined = to.map_or((from, None), |to| (from.min(to), Some(from.max(to))));
            if wastes.insert(joined, waste).is_some() {
                return Err(fault("two bridges join the same sites"));
            }
            claims.push((from, to, waste));
        }
        let sum = if mains.len() > 1 {
            spanning(mains, &wastes)
        } else {
            wastes.values().map(|&waste| u128::from(waste)).sum()
        };
        Ok((claims, sum))
    }

    /// That no bridge wastes less than is said.
    fn bridges(&mut self, case: usize, claims: &[Claimed], ground: &Ground) -> Result<(), BoundFault> {
        let reversed = Some(ground.reversed()).filter(|reversed| reversed != ground);
        for (bridge, &(from, to, waste)) in claims.iter().enumerate() {
            for ground in std::iter::once(ground).chain(&reversed) {
                let left = BRIDGE_STEPS_MAX.saturating_sub(self.steps);
                let found = ground.cheapest_bridge((from, to), waste, left, &|| false);
                self.steps += found.looked;
                if !found.complete {
                    let (count, max) = (self.steps.into(), BRIDGE_STEPS_MAX.into());
                    return Err(BoundFault::TooLarge { what: "steps of searches for bridges", count, max });
                }
                if found.least < waste {
                    let (stated, found) = (as_float(waste.into()), as_float(found.least.into()));
                    return Err(BridgeFault::Waste { case, bridge, stated, found }.into());
                }
            }
        }
        Ok(())
    }

    /// Layers that all devices of a site hold together at most.
    fn held(&self, site: usize) -> u32 {
        let most = |group: &Group| group.ways.iter().map(|way| way.0).max().unwrap_or(0);
        let of = |group: &Group| most(group).saturating_mul(u32::try_from(group.devices.len()).unwrap_or(u32::MAX));
        self.groups.iter().filter(|group| group.site == site).map(of).fold(0, u32::saturating_add)
    }
}

/// The least sum of what joins all sites.
fn spanning(sites: &BTreeSet<usize>, wastes: &BTreeMap<(usize, Option<usize>), u64>) -> u128 {
    let between = |a: usize, b: usize| wastes.get(&(a.min(b), Some(a.max(b)))).copied().unwrap_or(0);
    let mut left = sites.clone();
    let mut joined: Vec<usize> = left.pop_first().into_iter().collect();
    let mut sum = 0;
    while !left.is_empty() {
        let nearest =
            left.iter().map(|&site| (joined.iter().map(|&other| between(site, other)).min().unwrap_or(0), site));
        let Some((waste, site)) = nearest.min() else { break };
        sum += u128::from(waste);
        left.remove(&site);
        joined.push(site);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spanning_tree_takes_the_cheapest_ways_that_join_all() {
        let sites = BTreeSet::from([0, 2, 5]);
        let wastes = BTreeMap::from([((0, Some(2)), 7), ((2, Some(5)), 4), ((0, Some(5)), 9)]);
        assert_eq!(spanning(&sites, &wastes), 11);
        // Nothing is known of a bridge that is not named.
        assert_eq!(spanning(&sites, &BTreeMap::from([((0, Some(2)), 7), ((2, Some(5)), 4)])), 4);
    }
}
