//! Throughput bounds by cases: all plans are divided by how they use devices, and each case has worths of its own.
//!
//! A division names some devices and a whole number `m`. *Holding*: `n` is how many of the devices hold `1..=k` layers.
//! *Alone*: `n` is how many layers are passed by some of these devices and by no others. The first case is that of the
//! plans with `n <= m`, the second that of those with `n >= m + 1`; each plan belongs to one of the two, so a plan of rate
//! `F0` would belong to one case that is not divided further.
//!
//! *Proof of a case.* Each device has a worth `u_d >= 0`; what a division counts has a value `v_j`, of 0 or more in its first
//! case and of 0 or less in its second. A device that holds `k` layers pays in all
//!
//! ```text
//! p_d(k) = u_d + sum of v_j over the divisions by holding that count it        (it must not be negative)
//! ```
//!
//! on its layers, in proportion to their weights as in [`super::worths`]; a layer asks for its weight, less `v_j` for each
//! division that counts it as alone. With `c_j = m` in a first case and `m + 1` in a second, `v_j n_j <= v_j c_j`. So where
//! (a) any devices whose rates add to at least `F0` pay what a layer asks for that they alone pass, and (b)
//!
//! ```text
//! sum of u_d + sum of v_j c_j  <  weight of all layers
//! ```
//!
//! no plan of the case reaches `F0`: its layers would collect at least their weight less `sum of v_j n_j` over the divisions
//! by layers, and the devices pay at most `sum of u_d` and `sum of v_j n_j` over the divisions by holding.
//!
//! *Within*: `n` is the rate of the requests that never leave a site, in a plan slowed to `F0`. A case lies between rates
//! `a_s` and `b_s` of each site. Requests that visit several sites have a rate of `X` at most in all, and of `X_s` at most
//! those that visit `s` ([`super::crossing`]); so there is no plan in a case with `sum of b_s + X < F0` or `sum of a_s > F0`.
//! In any other, of the tokens of each layer at least `a_s` pass through devices of `s`, and at most `min(b_s + X_s, F0 -
//! sum of the other a)`, so that (a) need hold for such covers only. What these divisions count has no value.
//!
//! Everything is in whole parts of `2^-50`, rounded so that the proof is only made harder; (a) is the search of
//! [`super::worths`]. A layer of devices of two groups that are told apart is alone in neither.

use super::certificate::BoundFault;
use super::cover::{Class, Shape, classes, clipped};
use super::crossing::{Crossings, crossings};
use super::floors::{Floored, Item, Shares};
use super::tabled::Tabled;
use super::worths::{Besides, COVERS_MAX, Figures, PARTS_BITS, SLOTS_MAX, Search, Set};
use crate::exact::{Exact, exact, whole};
use crate::ids::DeviceId;
use crate::plan::{Case, Crossing, EndWeights};
use crate::problem::PlacementProblem;
use num_traits::{Signed, ToPrimitive, Zero};
use std::collections::{BTreeMap, BTreeSet};

/// Most divisions above a case.
const DEPTH_MAX: usize = 100;
/// Most partial covers looked at for all cases together.
const WORK_MAX: u64 = 10 * COVERS_MAX;
/// Partial covers looked at for one layer before tables are made.
const QUICK: u64 = 5_000;
/// Most ways to use devices that are looked at for all cases together.
const SLOTS_ALL_MAX: u64 = 4_000_000;
/// Worths and weights from here on are refused: numbers of a fixed size would not hold what they add to.
const VALUE_MAX: f64 = 1_048_576.0;

/// What is wrong with cases.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CaseFault {
    /// The list ends within a case, or goes on after the last.
    #[error("the list of {cases} cases is no division of all plans: each division must be followed by both its cases")]
    Shape {
        /// Entries of the list.
        cases: usize,
    },
    /// Divisions within divisions, too many.
    #[error("case {case} lies below more than {DEPTH_MAX} divisions; divide less")]
    Deep {
        /// Position in the list.
        case: usize,
    },
    /// A name that is none, or is there twice, or belongs to two groups.
    #[error("case {case} names {device:?}, which is no device of this problem, is named twice, or is in two groups")]
    Device {
        /// Position in the list.
        case: usize,
        /// The name.
        device: String,
    },
    /// A rate within a site that is none.
    #[error(
        "case {case} divides by a rate of {rate} within site {site}; it must be 0 or more, of a site of the crossing"
    )]
    Within {
        /// Position in the list.
        case: usize,
        /// Position of the site.
        site: u32,
        /// The rate.
        rate: f64,
    },
    /// A value that is not there for each division, or has the wrong sign.
    #[error("case {case} values what division {division} counts at {value:?}; {must}")]
    Value {
        /// Position in the list.
        case: usize,
        /// Position among the divisions above, outermost first.
        division: usize,
        /// The value; none where it is absent or needless.
        value: Option<f64>,
        /// What must be.
        must: &'static str,
    },
    /// A device that would be paid for holding layers.
    #[error("{device} would pay {pays} for {layers} layers in case {case}; what a device pays is not negative")]
    Negative {
        /// Position in the list.
        case: usize,
        /// The device.
        device: String,
        /// Layers it holds.
        layers: u32,
        /// What it would pay.
        pays: f64,
    },
    /// All that is paid is as much as all that is asked for.
    #[error("case {case} has {sum} to pay for {whole}; less would prove it")]
    Sum {
        /// Position in the list.
        case: usize,
        /// What devices pay and counted layers are let off.
        sum: f64,
        /// Weight of all layers.
        whole: f64,
    },
    /// Devices that carry a layer for less than it asks for.
    #[error("{} together exceed the bound on a layer that asks for {asked} in case {case}", cover.join(" + "))]
    Cheap {
        /// Position in the list.
        case: usize,
        /// Devices and layers they hold.
        cover: Vec<String>,
        /// What the layer asks for.
        asked: f64,
    },
}

/// A value in parts of `2^-50`, rounded down; none where it is too large.
fn parts(value: f64) -> Option<i128> {
    let scaled = value * (1_u64 << PARTS_BITS) as f64;
    // Scaling by a power of two is exact, and so is a float of no more than 70 bits as a whole number.
    (value.is_finite() && value.abs() < VALUE_MAX).then(|| scaled.floor() as i128)
}

/// The same rounded up.
fn parts_up(value: f64) -> Option<i128> {
    parts(-value).map(|negative| -negative)
}

fn as_float(parts: i128) -> f64 {
    parts as f64 / (1_u64 << PARTS_BITS) as f64
}

/// A way to hold layers.
struct Way {
    layers: u32,
    /// Weight of the layers, rounded up.
    weight: i128,
    /// Rate in parts of the rate in question, rounded up.
    rate: u128,
}

/// What a division counts.
enum Counted<'a> {
    Holding(BTreeSet<DeviceId>, u32),
    Alone(&'a [String]),
    Within(usize, Exact),
}

/// What a certificate says.
pub(super) struct Claim<'a> {
    /// What the ends of the model weigh beyond 1.
    pub ends: EndWeights,
    /// The cases.
    pub cases: &'a [Case],
    /// What joins sites.
    pub crossing: &'a Option<Crossing>,
    /// The batch that it speaks of; all where none is named.
    pub batch: Option<u32>,
}

/// A division above a case, and on which side of it the case lies.
struct Above<'a> {
    counted: Counted<'a>,
    /// The most of a first case, the least of a second.
    count: u32,
    more: bool,
}

/// The verification of a list of cases.
struct Verification<'a> {
    problem: &'a PlacementProblem,
    cases: &'a [Case],
    /// By class: its devices and the ways to use them.
    classes: Vec<(Vec<DeviceId>, Vec<Way>)>,
    /// Weight of all layers, rounded down.
    whole: i128,
    plain: bool,
    /// The groups whose layers are counted, by device.
    groups: BTreeMap<DeviceId, usize>,
    names: Vec<&'a [String]>,
    above: Vec<Above<'a>>,
    work: u64,
    slots: u64,
    /// The rate in question.
    rate: &'a Exact,
    /// What can pass between sites.
    crossing: Option<Crossings>,
}

/// Proves case by case that no plan reaches `above`, or says why not.
pub(super) fn prove(problem: &PlacementProblem, above: &Exact, claim: &Claim<'_>) -> Vec<BoundFault> {
    let Claim { ends, cases, crossing, batch } = *claim;
    let end = |value: f64| parts(value).zip(parts_up(value)).filter(|_| value >= 0.0);
    let (Some(first), Some(last)) = (end(ends.first), end(ends.last)) else {
        return vec![BoundFault::EndWeights { first: ends.first, last: ends.last }];
    };
    if !above.is_positive() {
        return vec![CaseFault::Shape { cases: cases.len() }.into()];
    }
    let classes = match classes(problem, above, batch) {
        Ok(classes) => classes,
        Err(fault) => return vec![fault],
    };
    let crossing = match crossing.as_ref().map(|stated| crossings(problem, stated)).transpose() {
        Ok(crossing) => crossing,
        Err(fault) => return vec![fault],
    };
    let weight = |(k, begins, ends): Shape| {
        let end = |there: bool, weight: i128| if there { weight } else { 0 };
        (i128::from(k) << PARTS_BITS) + end(begins, first.1) + end(ends, last.1)
    };
    let ways = |class: &Class| ways(class, above, &weight);
    let classes = classes.iter().map(|class| (class.devices.clone(), ways(class))).collect();
    let whole = (i128::from(problem.layers()) << PARTS_BITS) + first.0 + last.0;
    let mut verification = Verification {
        problem,
        cases,
        classes,
        whole,
        plain: ends == EndWeights::default(),
        groups: BTreeMap::new(),
        names: Vec::new(),
        above: Vec::new(),
        work: 0,
        slots: 0,
        rate: above,
        crossing,
    };
    match verification.case(0) {
        Ok(end) if end == cases.len() => Vec::new(),
        Ok(_) => vec![CaseFault::Shape { cases: cases.len() }.into()],
        Err(fault) => vec![fault],
    }
}

/// The fastest way of each weight.
fn ways(class: &Class, above: &Exact, weight: &dyn Fn(Shape) -> i128) -> Vec<Way> {
    let parts = whole(1 << PARTS_BITS);
    let of = |(shape, rate): &(Shape, Exact)| {
        let share = (clipped(rate, above) / above * &parts).ceil().to_integer().to_u128();
        Way { layers: shape.0, weight: weight(*shape), rate: share.unwrap_or(1 << PARTS_BITS) }
    };
    let mut ways: Vec<Way> = class.rates.iter().map(of).collect();
    ways.sort_by_key(|way| std::cmp::Reverse((way.weight, way.layers, way.rate)));
    ways.dedup_by(|next, kept| (next.weight, next.layers) == (kept.weight, kept.layers));
    ways
}

impl<'a> Verification<'a> {
    /// Verifies the case at a position of the list and all below it; where the next one begins.
    fn case(&mut self, at: usize) -> Result<usize, BoundFault> {
        if self.above.len() > DEPTH_MAX {
            return Err(CaseFault::Deep { case: at }.into());
        }
        let shape = CaseFault::Shape { cases: self.cases.len() };
        let (counted, count) = match self.cases.get(at).ok_or(shape)? {
            Case::Proof { worths, counted } => return self.proof(at, worths, counted).map(|()| at + 1),
            Case::Holding { devices, layers_max, count } => {
                (Counted::Holding(self.devices(at, devices)?.into_iter().collect(), *layers_max), *count)
            }
            Case::Alone { devices, count } => {
                self.group(at, devices)?;
                (Counted::Alone(devices), *count)
            }
            Case::Within { site, rate } => {
                let sites = self.crossing.as_ref().map_or(0, |crossing| crossing.at.len());
                let known = usize::try_from(*site).ok().filter(|&site| site < sites);
                let within = known.zip(exact(*rate).filter(|rate| !rate.is_negative()));
                let (site, rate) = within.ok_or(CaseFault::Within { case: at, site: *site, rate: *rate })?;
                (Counted::Within(site, rate), 0)
            }
        };
        self.above.push(Above { counted, count, more: false });
        let middle = self.case(at + 1)?;
        if let Some(last) = self.above.last_mut() {
            (last.more, last.count) = (true, count.saturating_add(1));
        }
        let end = self.case(middle)?;
        self.above.pop();
        Ok(end)
    }

    fn devices(&self, case: usize, names: &[String]) -> Result<Vec<DeviceId>, BoundFault> {
        let mut devices: Vec<DeviceId> = Vec::new();
        let mut seen = BTreeSet::new();
        for name in names {
            let device = self.problem.graph.find(name).filter(|&device| seen.insert(device));
            devices.push(device.ok_or_else(|| CaseFault::Device { case, device: name.clone() })?);
        }
        Ok(devices)
    }

    /// Notes a group of devices, which is known already or has none in common with others.
    fn group(&mut self, case: usize, names: &'a [String]) -> Result<(), BoundFault> {
        if self.names.contains(&names) {
            return Ok(());
        }
        for (device, name) in self.devices(case, names)?.into_iter().zip(names) {
            if self.groups.insert(device, self.names.len()).is_some() {
                return Err(CaseFault::Device { case, device: name.clone() }.into());
            }
        }
        self.names.push(names);
        Ok(())
    }

    fn proof(&mut self, case: usize, worths: &BTreeMap<String, f64>, counted: &[f64]) -> Result<(), BoundFault> {
        let mut worth_of: BTreeMap<DeviceId, f64> = BTreeMap::new();
        for (name, &worth) in worths {
            let device = self.problem.graph.find(name).filter(|_| (0.0..VALUE_MAX).contains(&worth));
            let device = device.ok_or_else(|| BoundFault::Worth { device: name.clone(), worth })?;
            worth_of.insert(device, worth);
        }
        let values = self.values(case, counted)?;
        let shares = match self.shares() {
            Between::Anything => None,
            Between::These(shares) => Some(shares),
            Between::Nothing => return Ok(()),
        };
        let worth = |device: &DeviceId| worth_of.get(device).copied().unwrap_or(0.0);
        // What is paid in all, and what layers of each group are let off.
        let mut sum: i128 = 0;
        for device in self.classes.iter().flat_map(|(devices, _)| devices) {
            sum += parts_up(worth(device)).unwrap_or(i128::MAX / 4);
        }
        let mut let_off = vec![0_i128; self.names.len()];
        for (above, &value) in self.above.iter().zip(&values) {
            let up = parts_up(value).unwrap_or(i128::MAX >> 40);
            sum = sum.saturating_add(up.saturating_mul(above.count.into()));
            if let Counted::Alone(names) = above.counted
                && let Some(group) = self.names.iter().position(|known| *known == names)
            {
                let_off[group] += parts(value).unwrap_or(0);
            }
        }
        if sum >= self.whole {
            return Err(CaseFault::Sum { case, sum: as_float(sum), whole: as_float(self.whole) }.into());
        }
        let slots = self.slots(case, &worth, &values)?;
        // A layer asks for less, or more, where one group alone passes it.
        let shares = shares.as_ref();
        if let_off.iter().all(|&off| off == 0) {
            return self.search(case, &slots, 1 << PARTS_BITS, (Besides::Nothing, shares));
        }
        for (group, &off) in let_off.iter().enumerate() {
            let here: Vec<(Slot, Set)> = slots.iter().filter(|(_, set)| set.part == Some(group)).copied().collect();
            self.search(case, &here, (1 << PARTS_BITS) - off, (Besides::Nothing, shares))?;
        }
        self.search(case, &slots, 1 << PARTS_BITS, (Besides::Part, shares))
    }

    /// What sites pass of each layer in the case at hand.
    fn shares(&self) -> Between {
        let within = self.above.iter().filter_map(|above| match &above.counted {
            Counted::Within(site, rate) => Some((*site, rate, above.more)),
            Counted::Holding(..) | Counted::Alone(_) => None,
        });
        let Some(crossing) = self.crossing.as_ref().filter(|_| within.clone().next().is_some()) else {
            return Between::Anything;
        };
        let sites = crossing.at.len();
        let (mut least, mut most) = (vec![Exact::zero(); sites], vec![self.rate.clone(); sites]);
        for (site, rate, more) in within {
            let known = if more { &mut least[site] } else { &mut most[site] };
            if more == (rate > known) {
                *known = rate.clone();
            }
        }
        let sum = |rates: &[Exact]| rates.iter().fold(Exact::zero(), |sum, rate| sum + rate);
        let empty = least.iter().zip(&most).any(|(least, most)| least > most);
        if empty || sum(&least) > *self.rate || sum(&most) + &crossing.all < *self.rate {
            return Between::Nothing;
        }
        // The others pass what they must at least, and no more than they may with all that crosses.
        let (low, high) = (sum(&least), sum(&most));
        for site in 0..sites {
            let (others, above) = (&low - &least[site], self.rate - &crossing.all - (&high - &most[site]));
            most[site] = most[site].clone().min(self.rate - others);
            least[site] = least[site].clone().max(above);
        }
        let (parts, low) = (whole(1 << PARTS_BITS), sum(&least));
        let share = |rate: Exact| (rate / self.rate * &parts).max(Exact::zero());
        let top = |site: usize| (&most[site] + &crossing.at[site]).min(self.rate - (&low - &least[site]));
        Between::These(Shares {
            floors: least.iter().map(|rate| share(rate.clone()).floor().to_integer().to_u128().unwrap_or(0)).collect(),
            tops: (0..sites).map(|s| share(top(s)).ceil().to_integer().to_u128().unwrap_or(1 << PARTS_BITS)).collect(),
        })
    }

    /// One value for each division above, of the right sign.
    fn values(&self, case: usize, counted: &[f64]) -> Result<Vec<f64>, BoundFault> {
        for division in 0..self.above.len().max(counted.len()) {
            let (above, value) = (self.above.get(division), counted.get(division).copied());
            let fault = |must| BoundFault::Case(CaseFault::Value { case, division, value, must });
            let (Some(above), Some(value)) = (above, value) else {
                return Err(fault("there must be one value for each division above"));
            };
            if !(value.is_finite() && value.abs() < VALUE_MAX) {
                return Err(fault("it must be a finite number below a million"));
            }
            if value != 0.0 && matches!(above.counted, Counted::Within(..)) {
                return Err(fault("it must be 0 where a rate is counted"));
            }
            if above.more && value > 0.0 {
                return Err(fault("it must not be above 0 where there are more"));
            }
            if !above.more && value < 0.0 {
                return Err(fault("it must not be below 0 where there are at most so many"));
            }
            if value != 0.0 && !self.plain && matches!(above.counted, Counted::Alone(_)) {
                return Err(fault("it must be 0 where layers differ in weight"));
            }
        }
        Ok(counted.to_vec())
    }

    /// All ways to use devices on a layer, and what each pays.
    fn slots(
        &mut self,
        case: usize,
        worth: &dyn Fn(&DeviceId) -> f64,
        values: &[f64],
    ) -> Result<Vec<(Slot, Set)>, BoundFault> {
        let mut slots: Vec<(Slot, Set)> = Vec::new();
        let mut set = 0;
        for (class, (devices, ways)) in self.classes.iter().enumerate() {
            // Devices of equal worth that divisions count alike.
            let mut alike: BTreeMap<Alike, Vec<DeviceId>> = BTreeMap::new();
            for device in devices {
                let holds = |above: &Above<'_>| match &above.counted {
                    Counted::Holding(devices, _) => devices.contains(device),
                    Counted::Alone(_) | Counted::Within(..) => false,
                };
                let counted = self.above.iter().map(holds).collect();
                let site = self.crossing.as_ref().and_then(|crossing| crossing.site_of.get(device).copied());
                let key = (worth(device).to_bits(), counted, [self.groups.get(device).copied(), site]);
                alike.entry(key).or_default().push(*device);
            }
            for ((bits, counted, [part, _]), devices) in alike {
                let pays = |layers: u32| {
                    let mut pays = parts(f64::from_bits(bits)).unwrap_or(0);
                    for ((above, &value), _) in self.above.iter().zip(values).zip(&counted).filter(|(_, c)| **c) {
                        if let Counted::Holding(_, most) = above.counted
                            && layers <= most
                        {
                            pays += parts(value).unwrap_or(0);
                        }
                    }
                    pays
                };
                let free = Set { free: devices.len() as u64, part };
                let mut fastest: Option<(i128, u128)> = None;
                for (way, of) in ways.iter().enumerate() {
                    let pays = pays(of.layers);
                    if pays < 0 {
                        let device = self.problem.graph.device(devices[0]).name.clone();
                        let (layers, pays) = (of.layers, as_float(pays));
                        return Err(CaseFault::Negative { case, device, layers, pays }.into());
                    }
                    // Heaviest first: a lighter one that pays as much in all is of use only where it is faster.
                    if fastest.is_some_and(|(before, rate)| before == pays && rate >= of.rate) {
                        continue;
                    }
                    fastest = Some((pays, of.rate));
                    let price = u128::try_from((pays << PARTS_BITS) / of.weight).unwrap_or(0);
                    slots.push((Slot { class, way, set, rate: of.rate, price, device: devices[0] }, free));
                }
                set += 1;
            }
        }
        self.slots += slots.len() as u64;
        for (count, max) in [(self.slots, SLOTS_ALL_MAX), (slots.len() as u64, SLOTS_MAX as u64)] {
            if count > max {
                let (what, count, max) = ("ways to use devices on a layer", count.into(), max.into());
                return Err(BoundFault::TooLarge { what, count, max });
            }
        }
        Ok(slots)
    }

    /// That no cover is cheap.
    fn search(
        &mut self,
        case: usize,
        slots: &[(Slot, Set)],
        price: i128,
        (besides, shares): (Besides, Option<&Shares>),
    ) -> Result<(), BoundFault> {
        let Some(price) = u128::try_from(price).ok().filter(|&price| price > 0) else { return Ok(()) };
        // Sets are counted anew: only those of these slots.
        let mut sets: Vec<Set> = Vec::new();
        let mut set_of: Vec<usize> = Vec::new();
        let mut known: BTreeMap<usize, usize> = BTreeMap::new();
        for (slot, set) in slots {
            let position = *known.entry(slot.set).or_insert_with(|| {
                sets.push(*set);
                sets.len() - 1
            });
            set_of.push(position);
        }
        let limit = COVERS_MAX.min(WORK_MAX.saturating_sub(self.work));
        let price_of = |slot: &Slot| slot.price.min(u64::MAX.into());
        let quick = limit.min(QUICK);
        let apart = matches!(besides, Besides::Part);
        let crossing = self.crossing.as_ref().filter(|_| shares.is_some());
        let site = |slot: &Slot| crossing.and_then(|crossing| crossing.site_of.get(&slot.device).copied()).unwrap_or(0);
        let item = |((slot, _), &set): (&(Slot, Set), &usize)| Item {
            set,
            site: site(slot),
            rate: slot.rate,
            price: price_of(slot),
        };
        let items: Vec<Item> = slots.iter().zip(&set_of).map(item).collect();
        let (found, looked) = if let (Some(shares), Some(crossing)) = (shares, crossing) {
            let mut search = Floored::new(&items, &sets, crossing.at.len(), price, apart, quick);
            (search.cheap_cover(shares), search.looked)
        } else {
            let (rates, prices) = items.iter().map(|item| (item.rate, item.price)).unzip();
            let figures = Figures { rates, prices, need: 1 << PARTS_BITS, price, besides };
            let mut search = Search::new(set_of, sets.clone(), figures, quick);
            (search.cheap_cover(), search.looked)
        };
        self.work += looked;
        // Where that takes long, tables tell sooner.
        let found = if matches!(found, Err(BoundFault::TooLarge { .. })) && limit > quick {
            let anything = Shares { floors: vec![0], tops: vec![1 << PARTS_BITS] };
            let shares = shares.unwrap_or(&anything);
            let mut search = Tabled::new(&items, &sets, shares, (price, apart), limit - quick);
            let found = search.cheap_cover();
            self.work += search.looked;
            found
        } else {
            found
        };
        let Some(chosen) = found? else { return Ok(()) };
        let used = slots.iter().zip(chosen).filter(|(_, count)| *count > 0);
        let named = |((slot, _), count): (&(Slot, Set), u64)| {
            let layers = self.classes[slot.class].1[slot.way].layers;
            format!("{count} x {} with {layers} layers", self.problem.graph.device(slot.device).name)
        };
        let cover = used.map(named).collect();
        Err(CaseFault::Cheap { case, cover, asked: price as f64 / (1_u64 << PARTS_BITS) as f64 }.into())
    }
}

/// What sites pass of the layers of a case.
enum Between {
    /// Nothing is known of it.
    Anything,
    /// So much.
    These(Shares),
    /// There is no such plan.
    Nothing,
}

/// What devices of a class have in common that may stand for one another: the bits of their worth, which divisions count
/// them, their group and their site.
type Alike = (u64, Vec<bool>, [Option<usize>; 2]);

/// A way to use any of some equal devices of one worth on a layer.
#[derive(Clone, Copy)]
struct Slot {
    class: usize,
    way: usize,
    set: usize,
    rate: u128,
    /// What it pays on a layer of weight 1, rounded down.
    price: u128,
    device: DeviceId,
}
