//! Bounds by bridges: between layers of which devices of different sites pass nearly all requests lie others that cost more.
//!
//! Where ways between sites are slow, no device can hand everything over to one of another site: several must stand side by
//! side before the border, or after it, or both, and side by side devices hold less for their worth. Plain worths know
//! nothing of that. Here plans are divided by which sites have main devices, which pass more than some share of the rate (see the
//! checker's `bridges` for the proof), and in each case worths and wastes `z` of the bridges between those sites are found
//! together:
//!
//! ```text
//! max  t - sum of u_c N_c
//! s.t. sum over the devices of a cover of u_c / k  >=  1            for every cover that the case allows
//!      z_e  <=  sum over the layers of a bridge of (what its devices pay - 1)      for every bridge between the sites of e
//!      t  <=  sum of z_e                                            for every spanning tree of the sites
//! ```
//!
//! Covers and bridges are found one at a time, the cheapest at the worths so far. A bridge takes its devices from those that
//! there are: its row says so, by the worths. The rate is impossible where `sum of u_c N_c < L + t` in each case.

use super::clip::Span;
use super::covers::{Cheap, Cover, Item, cheap_covers};
use super::layered::greatest;
use super::network::Network;
use super::sites::Sites;
use super::within::Shares;
use super::{BestFlow, Flows, NEAR, OWN, Proof};
use crate::budget::Budget;
use crate::formulation::program::{Program, Relation};
use crate::formulation::solve::{SolverFault, Verdict, solve};
use crate::tables::Tables;
use isotherm_core::check::{BRIDGE_STEPS_MAX, BridgeSet, BridgeWay, Bridging, Ground, Stretch, UNIT};
use std::collections::{BTreeMap, BTreeSet};

/// Most sites that may have main devices.
const SITES_MAX: usize = 4;
/// Most ways to use devices: with more, one look at a border takes too long.
const WAYS_MAX: usize = 400;
/// Share of the time left that is for one rate.
const TARGET: f64 = 0.4;
/// Rates looked at after the plan's own.
const HALVINGS: usize = 6;
/// Most rounds of one case.
const ROUNDS_MAX: usize = 200;
/// Steps of one search for a bridge, and of all that the checker has to make again: a part of what it takes, for it rounds
/// differently and is to be quick.
const STEPS: u64 = BRIDGE_STEPS_MAX / 3;
/// Steps of one search, few at first, and the share of the time left for such searches.
const LIMITS: [(u64, f64); 2] = [(STEPS / 20, 0.5), (STEPS, 1.0)];
/// Steps of the searches by which it is decided where the one for a bridge begins.
const STEPS_TRIED: u64 = 200_000;
/// Work of a thousand steps.
const STEPS_WORK: u64 = 400;
/// Waste of the cheapest bridges, in layers, that are looked for first, and how much further each look goes.
const WASTE_FIRST: f64 = 0.25;
const WASTE_MORE: f64 = 1.6;
/// Waste below which a bridge is of no use.
const WASTE_LEAST: f64 = 1e-6;
/// Share of the layers by which worths are to stay below them and the wastes: asking for more makes bridges harder to find.
const SPARE: f64 = 2e-5;
/// What a bridge's waste costs in the program.
const DEAR: f64 = 1e-6;
/// The share that suffices.
const MARGIN: f64 = 1e-9;
/// What makes up for rounding.
const ROUNDING: f64 = 1e-12;
/// Parts of a rate that make up for it.
const PARTS: u64 = 8;
/// Shares of the rate that main devices may be said to pass more than.
const MAIN: [f64; 3] = [1.0 - 1.0 / (1_u64 << 36) as f64, 0.9, 0.8];

/// Devices of one kind at one site.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Class {
    site: usize,
    /// Candidates.
    pub members: Vec<usize>,
    /// Layers held, and the rate; most layers first.
    ways: Vec<(usize, f64)>,
}

/// What proves a case: the sites that have main devices, worths by class, and bridges.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Case {
    /// Positions of the sites.
    pub mains: Vec<usize>,
    /// By class.
    pub worths: Vec<f64>,
    /// Where a bridge begins and ends, and the layers that it wastes at least.
    pub bridges: Vec<(usize, Option<usize>, f64)>,
}

/// A bound and the cases that prove it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Proved {
    /// No plan is faster.
    pub bound: f64,
    /// Candidates by site.
    pub sites: Vec<Vec<usize>>,
    /// What worths are of.
    pub classes: Vec<Class>,
    /// The cases.
    pub cases: Vec<Case>,
    /// Share of the rate that a main device passes more than.
    pub main: f64,
}

/// What each class pays, and how much of that is no waste.
type Row = (BTreeMap<usize, f64>, f64);
/// Two sites, or one and nowhere.
type Edge = (usize, Option<usize>);

/// The search for bridges.
pub(crate) struct Bridges {
    classes: Vec<Class>,
    sites: Sites,
    /// Fastest way from one site to another.
    fastest: Vec<Vec<f64>>,
    layers: usize,
    /// Share of the rate that a main device passes more than; one of [`MAIN`].
    main: f64,
    known: Vec<Cover>,
    /// Where the search for a bridge begins, by what it joins, for this share.
    begins: BTreeMap<Edge, Edge>,
    /// Steps that the checker needs for what is proved.
    steps: u64,
    /// Steps of one search, at most.
    limit: u64,
}

impl Bridges {
    /// Of the devices at these sites; none where bridges would prove nothing, or are too hard to find.
    pub fn new((tables, network): (&Tables<'_>, &Network), sites: Sites, spans: &[Vec<Span>]) -> Option<Self> {
        if tables.problem.limits.partial || sites.members.len() < 2 {
            return None;
        }
        let mut classes: Vec<(usize, Class)> = Vec::new();
        for (site, members) in sites.members.iter().enumerate() {
            for &device in members {
                let kind = tables.candidates[device].kind;
                if let Some((_, class)) = classes.iter_mut().find(|(of, class)| (*of, class.site) == (kind, site)) {
                    class.members.push(device);
                    continue;
                }
                let ways = greatest(&spans[kind]).into_iter().rev().map(|(held, rate)| (held as usize, rate)).collect();
                classes.push((kind, Class { site, members: vec![device], ways }));
            }
        }
        let classes: Vec<Class> =
            classes.into_iter().map(|(_, class)| class).filter(|class| !class.ways.is_empty()).collect();
        let count: usize = classes.iter().map(|class| class.ways.len()).sum();
        let between = |from: &Vec<usize>, to: &Vec<usize>| {
            let rates = from.iter().flat_map(|&a| to.iter().map(move |&b| network.pair[a][b]));
            rates.fold(0.0, f64::max)
        };
        let fastest = sites.members.iter().map(|a| sites.members.iter().map(|b| between(a, b)).collect()).collect();
        let (known, begins) = (Vec::new(), BTreeMap::new());
        (count <= WAYS_MAX).then_some(Self {
            classes,
            sites,
            fastest,
            layers: network.layers,
            main: MAIN[0],
            known,
            begins,
            steps: 0,
            limit: STEPS,
        })
    }

    /// Sites of which some device may be a main one.
    fn able(&self, rate: f64) -> BTreeSet<usize> {
        let main = rate * self.main * (1.0 - ROUNDING);
        self.classes.iter().filter(|class| class.ways.iter().any(|way| way.1 >= main)).map(|class| class.site).collect()
    }

    /// Whether bridges may prove something of a rate.
    pub fn useful(&self, rate: f64) -> bool {
        (1..=SITES_MAX).contains(&self.able(rate).len())
    }

    /// Cases that prove a rate impossible, main devices being those that pass more than some share of it; none where that was
    /// not found, by searches of so many steps each.
    pub fn impossible(
        &mut self,
        rate: f64,
        (main, limit): (f64, u64),
        budget: &Budget<'_>,
    ) -> Result<Option<Proved>, SolverFault> {
        if main != self.main {
            (self.main, self.begins) = (main, BTreeMap::new());
        }
        self.limit = limit;
        // The checker asks a billionth above the bound stated.
        let at = rate * (1.0 + 1e-9);
        if !self.useful(at) {
            return Ok(None);
        }
        for (c, class) in self.classes.iter().enumerate() {
            for (way, &(_, rate)) in class.ways.iter().enumerate() {
                for top in [at, at * self.main] {
                    let needed = (at / rate.min(top)).ceil() as usize;
                    let cover = Cover::from([((c, way), needed)]);
                    if needed <= class.members.len() && !self.known.contains(&cover) {
                        self.known.push(cover);
                    }
                }
            }
        }
        self.steps = 0;
        let able: Vec<usize> = self.able(at).into_iter().collect();
        let sets = 0..1_usize << able.len();
        let mut sets: Vec<Vec<usize>> =
            sets.map(|set| (0..able.len()).filter(|i| set >> i & 1 == 1).map(|i| able[i]).collect()).collect();
        // What no bridge helps with first, then the hardest.
        sets.sort_by_key(|set| (!set.is_empty(), std::cmp::Reverse(set.len())));
        let mut cases: Vec<Case> = Vec::new();
        for mains in sets {
            let part_of = |case: &Case| case.bridges.is_empty() && mains.iter().all(|site| case.mains.contains(site));
            if cases.iter().any(part_of) {
                continue;
            }
            let plain = self.case(at, &mains, false, budget)?;
            let case = if plain.is_none() && !mains.is_empty() { self.case(at, &mains, true, budget)? } else { plain };
            let Some(case) = case else { return Ok(None) };
            cases.push(case);
        }
        if self.steps > STEPS {
            return Ok(None);
        }
        let (sites, classes) = (self.sites.members.clone(), self.classes.clone());
        Ok(Some(Proved { bound: rate, sites, classes, cases, main: self.main }))
    }

    /// Cases that prove a rate impossible, by one of these shares of main devices; what proves it comes first then.
    fn tried(
        &mut self,
        rate: f64,
        mains: &mut [f64],
        limit: u64,
        budget: &Budget<'_>,
    ) -> Result<Option<Proved>, SolverFault> {
        for i in 0..mains.len() {
            let share = if i + 1 < mains.len() { 0.5 } else { 1.0 };
            let found = budget.share(share, |budget| self.impossible(rate, (mains[i], limit), budget))?;
            if found.is_some() {
                mains[..=i].rotate_right(1);
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// What may be joined in a case, and the spanning trees, by position.
    fn edges(&self, mains: &[usize]) -> (Vec<Edge>, Vec<Vec<usize>>) {
        if let [site] = *mains {
            let of_site = self.classes.iter().filter(|class| class.site == site);
            let held: usize = of_site.map(|class| class.members.len() * class.ways[0].0).sum();
            return if held < self.layers { (vec![(site, None)], vec![vec![0]]) } else { (Vec::new(), Vec::new()) };
        }
        let pairs = mains.iter().enumerate().flat_map(|(i, &a)| mains[i + 1..].iter().map(move |&b| (a, Some(b))));
        let edges: Vec<Edge> = pairs.collect();
        let trees = (0..1_usize << edges.len()).map(|set| (0..edges.len()).filter(|i| set >> i & 1 == 1).collect());
        let spans = |tree: &Vec<usize>| {
            let mut joined = vec![mains[0]];
            for _ in tree {
                for &edge in tree {
                    let (a, Some(b)) = edges[edge] else { continue };
                    match (joined.contains(&a), joined.contains(&b)) {
                        (true, false) => joined.push(b),
                        (false, true) => joined.push(a),
                        _ => {}
                    }
                }
            }
            tree.len() + 1 == mains.len() && joined.len() == mains.len()
        };
        let trees = trees.filter(spans).collect();
        (edges, trees)
    }

    /// Whether a known cover is one at a rate in a case.
    fn covers(&self, cover: &Cover, rate: f64, mains: &[usize]) -> bool {
        let rates = cover.iter().map(|(&(c, way), &n)| self.passes(rate, mains, (c, way)) * n as f64);
        rates.sum::<f64>() >= rate * (1.0 - ROUNDING)
    }

    /// What a device passes in a case.
    fn passes(&self, rate: f64, mains: &[usize], (c, way): (usize, usize)) -> f64 {
        let class = &self.classes[c];
        class.ways[way].1.min(if mains.contains(&class.site) { rate } else { rate * self.main })
    }

    /// Worths and bridges of one case; none where they were not found.
    fn case(
        &mut self,
        rate: f64,
        mains: &[usize],
        bridged: bool,
        budget: &Budget<'_>,
    ) -> Result<Option<Case>, SolverFault> {
        let (edges, trees) = if bridged { self.edges(mains) } else { (Vec::new(), Vec::new()) };
        if bridged && trees.is_empty() {
            return Ok(None);
        }
        let count = self.classes.len();
        let layers = self.layers as f64;
        let counts: Vec<f64> = self.classes.iter().map(|class| class.members.len() as f64).collect();
        let sum = |worths: &[f64]| -> f64 { counts.iter().zip(worths).map(|(n, u)| n * u).sum() };
        let mut most = vec![layers; edges.len()];
        let mut rows: Vec<(usize, Row)> = Vec::new();
        for _ in 0..ROUNDS_MAX {
            if budget.exhausted().is_some() {
                return Ok(None);
            }
            let Some(at) = self.worths(rate, mains, (&most, &rows, &trees), budget)? else { return Ok(None) };
            let (worths, wastes) = (&at[..count], &at[count..]);
            let total = |wastes: &[f64]| {
                let sums = trees.iter().map(|tree| tree.iter().map(|&edge| wastes[edge]).sum::<f64>());
                if trees.is_empty() { 0.0 } else { sums.fold(f64::INFINITY, f64::min) }
            };
            let below = |worths: &[f64], wastes: &[f64]| sum(worths) < (layers + total(wastes)) * (1.0 - MARGIN);
            if !below(worths, wastes) {
                return Ok(None);
            }
            let (worths, wastes) = (worths.to_vec(), wastes.to_vec());
            let Some((least, new)) = self.cheapest_covers(rate, mains, &worths, budget) else { return Ok(None) };
            if !new.is_empty() {
                self.known.extend(new);
                continue;
            }
            let scale = (1.0 + ROUNDING) / least.min(1.0);
            let worths: Vec<f64> = worths.iter().map(|u| u * scale).collect();
            let mut bridges = Vec::new();
            let (before, mut missed, mut steps) = (rows.len(), false, 0);
            for (edge, &waste) in wastes.iter().enumerate().filter(|(_, waste)| **waste > WASTE_LEAST) {
                let (begin, found) = self.cheapest_bridge((rate, mains), edges[edge], &worths, waste, budget);
                steps += found.looked;
                match found.bridge {
                    Some(bridge) => rows.push((edge, self.row((rate, mains), &worths, &bridge))),
                    None if !found.complete => {
                        most[edge] = (found.least as f64 / UNIT as f64) * (1.0 - MARGIN);
                        missed = true;
                    }
                    None => bridges.push((begin.0, begin.1, waste * (1.0 - MARGIN))),
                }
            }
            if rows.len() == before && !missed {
                self.steps += steps;
                let proved: Vec<f64> = wastes
                    .iter()
                    .map(|waste| if *waste > WASTE_LEAST { waste * (1.0 - MARGIN) } else { 0.0 })
                    .collect();
                return Ok(below(&worths, &proved).then(|| Case { mains: mains.to_vec(), worths, bridges }));
            }
        }
        Ok(None)
    }

    /// What a bridge wastes, as a sum of worths and what is to be subtracted. What others pay for the rest of the rate is put
    /// down to the way that asks least for what it passes at these worths, where both come to the same.
    fn row(&self, (rate, mains): (f64, &[usize]), worths: &[f64], bridge: &[Stretch]) -> Row {
        let (mut shares, mut length): Row = (BTreeMap::new(), 0.0);
        let all = self.classes.iter().enumerate().flat_map(|(c, of)| (0..of.ways.len()).map(move |way| (c, way)));
        let price = |(c, way): (usize, usize)| worths[c] / self.classes[c].ways[way].0 as f64;
        let ratio = |slot: (usize, usize)| price(slot) / self.passes(rate, mains, slot);
        let priced = all.filter(|&slot| price(slot) > 0.0);
        let rest = priced.min_by(|&a, &b| ratio(a).total_cmp(&ratio(b)));
        for stretch in bridge {
            let beside = stretch.beside as f64 / UNIT as f64;
            let paid: f64 = stretch.devices.iter().map(|&slot| price(slot)).sum();
            // All that pass a layer pay 1 at least.
            if paid + beside <= 1.0 {
                continue;
            }
            length += f64::from(stretch.layers);
            let rest = rest.map(|rest| (rest, beside / price(rest)));
            for ((c, way), count) in stretch.devices.iter().map(|&slot| (slot, 1.0)).chain(rest) {
                let share = count * f64::from(stretch.layers) / self.classes[c].ways[way].0 as f64;
                *shares.entry(c).or_insert(0.0) += share;
            }
        }
        (shares, length)
    }

    /// Worths by class and wastes by edge of the program so far; none where it has no solution.
    #[allow(clippy::type_complexity)]
    fn worths(
        &self,
        rate: f64,
        mains: &[usize],
        (most, rows, trees): (&[f64], &[(usize, Row)], &[Vec<usize>]),
        budget: &Budget<'_>,
    ) -> Result<Option<Vec<f64>>, SolverFault> {
        let (count, layers) = (self.classes.len(), self.layers as f64);
        let mut program = Program::default();
        for class in &self.classes {
            program.column(class.members.len() as f64, 0.0, 2.0 * layers, false);
        }
        for &most in most {
            // No more than is needed.
            program.column(DEAR, 0.0, most, false);
        }
        let total = program.column(-1.0, 0.0, if trees.is_empty() { 0.0 } else { layers }, false);
        for cover in self.known.iter().filter(|cover| self.covers(cover, rate, mains)) {
            let mut terms: BTreeMap<usize, f64> = BTreeMap::new();
            for (&(c, way), &n) in cover {
                *terms.entry(c).or_insert(0.0) += n as f64 / self.classes[c].ways[way].0 as f64;
            }
            program.row(terms.into_iter().collect(), Relation::AtLeast, 1.0);
        }
        for (edge, (shares, length)) in rows {
            let terms = shares.iter().map(|(&c, &share)| (c, share)).chain([(count + edge, -1.0)]);
            program.row(terms.collect(), Relation::AtLeast, *length);
        }
        for tree in trees {
            let terms = tree.iter().map(|&edge| (count + edge, 1.0)).chain([(total, -1.0)]).collect();
            program.row(terms, Relation::AtLeast, 0.0);
        }
        let worths = self.classes.iter().enumerate().map(|(c, class)| (c, class.members.len() as f64));
        program.row(worths.chain([(total, -1.0)]).collect(), Relation::AtLeast, layers * (1.0 - SPARE));
        let answer = solve(&program, None, 0.0, &Budget { progress: None, ..*budget })?;
        let at = answer.assignment.filter(|_| answer.verdict == Verdict::Optimal);
        Ok(at.map(|at| at[..total].iter().map(|value| value.max(0.0)).collect()))
    }

    /// The price of the cheapest cover, and covers that are new and pay too little; none where it was not found.
    fn cheapest_covers(
        &self,
        rate: f64,
        mains: &[usize],
        worths: &[f64],
        budget: &Budget<'_>,
    ) -> Option<(f64, Vec<Cover>)> {
        let mut items: Vec<Item> = Vec::new();
        for (c, class) in self.classes.iter().enumerate() {
            for (way, &(held, _)) in class.ways.iter().enumerate() {
                let (price, rate) = (worths[c] / held as f64, self.passes(rate, mains, (c, way)));
                items.push(Item { key: (c, way), site: class.site, price, rate, set: c });
            }
        }
        items.sort_by(|a, b| (a.price / a.rate).total_cmp(&(b.price / b.rate)).then(a.key.cmp(&b.key)));
        let free: Vec<usize> = self.classes.iter().map(|class| class.members.len()).collect();
        let shares = Shares::unknown(self.sites.members.len());
        let Cheap { covers, complete } = cheap_covers(&items, &free, rate, &shares, (false, 1.0), budget);
        if !complete {
            return None;
        }
        let least = covers.iter().map(|(price, _)| *price).fold(1.0, f64::min);
        if least <= 0.0 {
            // Nothing is to be scaled; what is new raises it.
            let new: Vec<Cover> =
                covers.into_iter().map(|(_, cover)| cover).filter(|c| !self.known.contains(c)).collect();
            return (!new.is_empty()).then_some((0.0, new));
        }
        let short = covers.into_iter().filter(|(price, _)| *price < 1.0 - MARGIN).map(|(_, cover)| cover);
        let mut new: Vec<Cover> = Vec::new();
        for cover in short {
            if !self.known.contains(&cover) && !new.contains(&cover) {
                new.push(cover);
            }
        }
        Some((least, new))
    }

    /// Devices, what they pay, and what passes between sites.
    fn ground(&self, rate: f64, mains: &[usize], worths: &[f64]) -> Ground {
        let share = |of: f64| {
            let share = (of / rate).min(1.0) * UNIT as f64;
            if share > 0.0 { (share.ceil() as u64 + PARTS).min(UNIT) } else { 0 }
        };
        let main = (self.main * UNIT as f64) as u64;
        let set = |(class, worth): (&Class, &f64)| {
            let worth = (worth * UNIT as f64).floor() as u64;
            let most = if mains.contains(&class.site) { UNIT } else { main };
            let way = |&(held, of): &(usize, f64)| {
                let layers = u32::try_from(held).unwrap_or(u32::MAX);
                BridgeWay { layers, rate: share(of).min(most), price: worth / u64::from(layers) }
            };
            BridgeSet { site: class.site, free: class.members.len(), ways: class.ways.iter().map(way).collect() }
        };
        let between = self.fastest.iter().map(|row| row.iter().map(|&of| share(of)).collect()).collect();
        Ground { main, sets: self.classes.iter().zip(worths).map(set).collect(), between }
    }

    /// The cheapest bridge that wastes less than `waste` layers, and where the search for it begins.
    fn cheapest_bridge(
        &mut self,
        (rate, mains): (f64, &[usize]),
        edge: Edge,
        worths: &[f64],
        waste: f64,
        budget: &Budget<'_>,
    ) -> (Edge, Bridging) {
        let ground = self.ground(rate, mains, worths);
        let reversed = Some(ground.reversed()).filter(|reversed| *reversed != ground);
        let below = (waste * UNIT as f64) as u64;
        let stop = || budget.exhausted().is_some();
        let search = |ends: Edge, steps: u64| -> (Bridging, u64) {
            let (mut layers, mut proved, mut looked) = (WASTE_FIRST, 0, 0);
            loop {
                let limit = below.min((layers * UNIT as f64) as u64);
                let mut least = ground.cheapest_bridge(ends, limit, steps, &stop);
                looked += least.looked;
                if let Some(reversed) = &reversed {
                    // Only what is cheaper still is of interest. A bridge that was found stays one.
                    let other = reversed.cheapest_bridge(ends, least.least, steps, &stop);
                    looked += other.looked;
                    if other.bridge.is_some() || least.bridge.is_none() && !other.complete {
                        least = Bridging { looked: least.looked + other.looked, ..other };
                    } else {
                        least.looked += other.looked;
                    }
                }
                if least.bridge.is_some() || !least.complete || limit >= below {
                    least.least = least.least.max(proved);
                    return (least, looked);
                }
                (proved, layers) = (limit, layers * WASTE_MORE);
            }
        };
        let begin = if let (&(a, Some(b)), None) = (&edge, self.begins.get(&edge)) {
            let ways = [edge, (b, Some(a))];
            let tried = ways.map(|way| search(way, STEPS_TRIED));
            budget.did(tried.iter().map(|(_, looked)| looked).sum::<u64>() * STEPS_WORK / 1000);
            let better = tried[1].0.least > tried[0].0.least;
            let begin = ways[usize::from(better)];
            self.begins.insert(edge, begin);
            begin
        } else {
            self.begins.get(&edge).copied().unwrap_or(edge)
        };
        let (found, looked) = search(begin, self.limit);
        budget.did(looked * STEPS_WORK / 1000);
        (begin, found)
    }
}

/// Lowers the bound by bridges between sites; a brief look takes short searches of one kind only.
pub(super) fn lower(
    flows: &Flows<'_>,
    spans: &[Vec<Span>],
    best: &mut BestFlow,
    brief: bool,
    budget: &Budget<'_>,
) -> Result<(), SolverFault> {
    let low = best.reach();
    let sites = Sites::apart(flows.network, low.max(best.bound * 1e-3) * (1.0 + 1e-9));
    let Some(mut search) = Bridges::new((flows.tables, flows.network), sites, spans) else { return Ok(()) };
    // What proved something comes first. Short searches find by halving where longer ones begin.
    let mut mains = MAIN;
    if brief {
        return halved(&mut search, (&mut mains[..1], LIMITS[0].0), best, budget);
    }
    for (limit, share) in LIMITS {
        budget.share(share, |budget| halved(&mut search, (&mut mains, limit), best, budget))?;
    }
    Ok(())
}

/// Looks at the plan's own rate first, then halves, by searches of so many steps each.
fn halved(
    search: &mut Bridges,
    (mains, limit): (&mut [f64], u64),
    best: &mut BestFlow,
    budget: &Budget<'_>,
) -> Result<(), SolverFault> {
    let (mut low, mut target) = (best.reach(), best.reach());
    for _ in 0..=HALVINGS {
        if target <= 0.0 || budget.exhausted().is_some() || best.bound - low <= NEAR * low {
            break;
        }
        // At that rate a look is worth much, but not all the time.
        let share = if target <= best.reach() { OWN } else { TARGET };
        match budget.share(share, |budget| search.tried(target, mains, limit, budget))? {
            Some(found) => {
                best.lower(target, Proof::Bridges(found));
                best.report(budget);
            }
            None => low = target,
        }
        target = f64::midpoint(low, best.bound);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
