//! Highest throughput: devices hold intervals of layers, requests flow through them.

pub(crate) mod annealing;
pub(crate) mod blocks;
pub(crate) mod bridges;
pub(crate) mod cases;
pub(crate) mod chain_rule;
pub(crate) mod clip;
mod covers;
pub(crate) mod dive;
pub(crate) mod groups;
mod layered;
mod lean;
mod mixed;
pub(crate) mod network;
mod plans;
pub(crate) mod priced;
pub(crate) mod profiles;
mod programs;
pub(crate) mod rails;
pub(crate) mod random;
pub(crate) mod replay;
pub(crate) mod routes;
pub(crate) mod series;
pub(crate) mod settle;
pub(crate) mod sharpen;
pub(crate) mod sites;
pub(crate) mod stairs;
pub(crate) mod stay;
mod stretches;
mod sweep;
pub(crate) mod within;
pub(crate) mod worths;

use crate::budget::{Budget, GAP_NONE, Limit, relative_gap};
use crate::formulation::routing::{path_through, route};
use crate::formulation::solve::SolverFault;
use crate::latency::chains::Link;
use crate::tables::Tables;
use bridges::Bridges;
use cases::Division;
use clip::{Span, Weights};
use isotherm_core::units::Seconds;
use layered::ByLayer;
use network::Network;
use plans::{Manner, Memory, plans};
use priced::Priced;
use programs::program;
pub(crate) use programs::twins;
use replay::{Carried, Path, replay};
use routes::Routed;
use settle::Seen;
use sites::Sites;
use worths::{Covers, Worths};

/// Most devices for which positions are an integer program of a size worth solving, where a plan is known.
const POSITIONS_DEVICES_MAX: usize = 26;
/// How many times what requests in flight allow all devices could carry, for few of them to be wanted.
const HURRY: f64 = 1.5;
/// Nodes (labels, in hundreds) of a search for the chain of least residence that is only to begin with.
const NODES_QUICK: u64 = 20;

/// Share of the traffic that is sent by way of a pinned device for which the best plan has no use: a hundredth of the gap
/// that counts as none.
const PINNED_SHARE: f64 = 1e-8;

/// Cases looked at for one rate.
const CASES: usize = 400;
/// The same times devices, at most: what a certificate lists of each case grows with them.
const CASE_DEVICES_MAX: usize = 40_000;
/// Rates looked at by cases.
const HALVINGS: usize = 12;
/// Relative distance of rates at which halving by cases ends.
const NEAR: f64 = 2e-4;
/// Share by which rates are lowered until one is not proved impossible.
const STRIDE: f64 = 0.06;
/// The same where the plan is near the bound, as a share of what is between them.
const PACE: f64 = 0.2;
/// Share of the time that a look at the plan's own rate may take.
const OWN: f64 = 0.3;
/// The same for a first look, before plans are searched for.
const CASES_EARLY: usize = 80;
const HALVINGS_EARLY: usize = 9;
const NEAR_EARLY: f64 = 1e-2;
/// Share of the time that it may take.
const EARLY: f64 = 0.15;
/// The same for plans on even ways, where the true ones are not; or of the work, where that is counted.
const EVEN: f64 = 0.7;
/// The same for a look at what crosses slow ways, while other searches wait.
const CROSSING: f64 = 0.05;
/// The same for bridges between sites.
const BRIDGES: f64 = 0.5;
/// Share of the time for plans after which bridges are glanced at, and of what is left for a glance.
const SOON: f64 = 0.12;
const GLANCE: f64 = 0.08;

/// What vouches for a bound on the rate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Proof {
    /// The clip bound.
    Clip,
    /// The word of the search for the chain of least residence.
    Chain,
    /// The clip bound with a price on requests in flight.
    InFlight(Priced),
    /// The cheapest route, with prices on work and on requests in flight.
    Routes(Routed),
    /// Worths of devices.
    Worths(Worths),
    /// Worths of devices, and sites between which no way carries the bound.
    Crossing(Worths, Sites),
    /// Worths of devices, and a search layer by layer of what they leave to waste.
    Layered(Worths),
    /// Worths of devices for each of several cases.
    Cases(cases::Proved),
    /// Worths of devices and what bridges between sites waste.
    Bridges(bridges::Proved),
    /// A solver's word.
    Solver(&'static str),
}

/// What is known about the best placement.
pub(crate) struct BestFlow {
    /// The placement and what it carries.
    pub placement: Option<(Vec<Link>, Carried)>,
    /// No plan is faster; zero where there is none.
    pub bound: f64,
    /// Who says so.
    pub proof: Proof,
    /// Bounds stated before, the last one the least, with what proves them.
    pub weaker: Vec<(f64, Proof)>,
    /// How the plan was found.
    pub method: &'static str,
    /// Branch-and-bound nodes.
    pub nodes: u64,
    /// What ended the search early.
    pub stopped: Option<Limit>,
    /// What a plan for other batches carries, for which slower ones are of no use; zero where there is none.
    pub beaten: f64,
    /// The bound with a price on requests in flight, where it was looked for.
    pub priced: Option<Priced>,
    /// The same for the bound by the cheapest route.
    pub routed: Option<Routed>,
}

impl BestFlow {
    /// What the placement carries; zero without one.
    pub fn rate(&self) -> f64 {
        self.placement.as_ref().map_or(0.0, |(_, carried)| carried.rate)
    }

    /// What the placement carries or one for other batches does: only what is faster is of use.
    pub fn reach(&self) -> f64 {
        self.rate().max(self.beaten)
    }

    /// States another bound.
    fn lower(&mut self, bound: f64, proof: Proof) {
        let before = std::mem::replace(&mut self.proof, proof);
        self.weaker.push((self.bound, before));
        self.bound = bound;
    }

    /// The last bound that no cases prove.
    pub fn without_cases(&self) -> (f64, &Proof) {
        let plain = |proof: &Proof| {
            !matches!(proof, Proof::Chain | Proof::Layered(_) | Proof::Cases(_) | Proof::Bridges(_) | Proof::Solver(_))
        };
        if plain(&self.proof) {
            return (self.bound, &self.proof);
        }
        let known = self.weaker.iter().rev().find(|(_, proof)| plain(proof));
        known.map_or((self.bound, &self.proof), |(bound, proof)| (*bound, proof))
    }

    fn closed(&self) -> bool {
        self.near(GAP_NONE)
    }

    /// Whether the search may end.
    fn enough(&self, budget: &Budget<'_>) -> bool {
        self.near(budget.gap_target.max(GAP_NONE))
    }

    /// Whether no plan is faster than what is reached by more than this share.
    fn near(&self, gap: f64) -> bool {
        let reached = self.reach();
        reached > 0.0 && (self.bound <= reached || relative_gap(reached, self.bound) <= gap)
    }

    /// The rate from which on nothing more is asked for.
    fn goal(&self, budget: &Budget<'_>) -> f64 {
        self.bound / (1.0 + budget.gap_target.max(0.0))
    }

    fn report(&self, budget: &Budget<'_>) {
        budget.report(Some(self.rate()).filter(|&rate| rate > 0.0), Some(self.bound));
    }

    fn offer(&mut self, placement: Vec<Link>, carried: Carried, method: &'static str) {
        if carried.rate > self.rate() {
            (self.placement, self.method) = (Some((placement, carried)), method);
        }
    }
}

/// A throughput problem.
pub(crate) struct Flows<'a> {
    /// Devices and memory.
    pub tables: &'a Tables<'a>,
    /// Rates.
    pub network: &'a Network,
    /// Most stages of a route, where that can bind.
    pub hops: Option<usize>,
    /// Where placements are noted that are looked at; none where nobody asks for them.
    pub seen: Option<&'a Seen>,
    /// What limits a search, where time does: routing many stages with partial inference is a large program.
    pub until: Option<Budget<'a>>,
}

impl<'a> Flows<'a> {
    /// The problem of these tables.
    pub fn new(tables: &'a Tables<'a>, network: &'a Network) -> Self {
        let longest = tables.candidates.len().min(tables.layers);
        let hops = tables.problem.limits.stages_max.map(|most| most as usize).filter(|&most| most < longest);
        Self { tables, network, hops, seen: None, until: None }
    }

    /// What a placement carries on the true links; nothing where a pinned device is out of the way.
    pub fn carried(&self, placement: &[Link]) -> Result<Carried, SolverFault> {
        let partial = self.tables.problem.limits.partial;
        let simple = self.hops.is_none() && self.network.shared.is_empty() && !(partial && self.network.binds());
        let routed = || route(self.tables, self.network, placement, (self.hops, self.until.as_ref()));
        let mut carried = if simple { replay(self.tables, self.network, placement) } else { routed()? };
        // A maximum flow need not be the one of least residence.
        let stay = self.network.stay.as_ref().filter(|_| simple);
        if stay.is_some_and(|stay| stay.exceeded(self.tables, placement, &carried)) {
            carried = routed()?;
        }
        for stage in (0..placement.len()).filter(|&i| self.tables.candidates[placement[i].0].pinned) {
            if carried.rate <= 0.0 || carried.paths.iter().any(|path| path.stops.contains(&stage)) {
                continue;
            }
            // A stage that does not fit carries nothing, and leads nowhere.
            let fits = |&stop: &usize| {
                let (device, start, end) = placement[stop];
                self.network.stage[self.tables.candidates[device].kind].at(start, end) > 0.0
            };
            let path = path_through(self.tables, self.network, placement, self.hops, stage);
            let Some(stops) = path.filter(|stops| stops.iter().all(fits)) else { return Ok(Carried::default()) };
            carried.paths.push(Path { stops, rate: PINNED_SHARE * carried.rate });
        }
        if let Some(seen) = self.seen.filter(|_| self.fits(placement) && self.pins(placement)) {
            seen.note(placement, &carried);
        }
        Ok(carried)
    }

    /// Whether every pinned device is part of a placement.
    fn pins(&self, placement: &[Link]) -> bool {
        let held = |device: usize| placement.iter().any(|link| link.0 == device);
        (0..self.tables.candidates.len()).all(|device| !self.tables.candidates[device].pinned || held(device))
    }

    /// Whether no memory is overdrawn.
    fn fits(&self, placement: &[Link]) -> bool {
        let mut drawn = vec![0_u64; self.tables.pools.len()];
        for &(device, start, end) in placement {
            let candidate = self.tables.candidates[device];
            if let Some(pool) = candidate.pool {
                drawn[pool] = drawn[pool].saturating_add(self.tables.kinds[candidate.kind].bytes.at(start, end));
            }
        }
        drawn.iter().zip(&self.tables.pools).all(|(&drawn, pool)| drawn <= pool.size)
    }
}

/// How far to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Bounds in closed form, and plans without any search over placements.
    Quick,
    /// Everything.
    Full,
}

/// What is known before a search.
#[derive(Clone, Copy, Default)]
pub(crate) struct Before<'a> {
    /// A placement that is good for another batch.
    pub placement: Option<&'a [Link]>,
    /// What it carries there.
    pub rate: f64,
    /// What a quick look has found.
    pub quickly: Option<&'a BestFlow>,
    /// A bound that is known and that no other search can lower: a bound below it is of no use, a plan is.
    pub above: f64,
}

/// Finds the best placement.
pub(crate) fn best_flow(
    flows: &Flows<'_>,
    before: Before<'_>,
    depth: Depth,
    budget: &Budget<'_>,
) -> Result<BestFlow, SolverFault> {
    let flows = &Flows { until: budget.remaining.map(|_| *budget), ..*flows };
    let (tables, network) = (flows.tables, flows.network);
    let (counts, spans) = (clip::counts(tables), clip::spans(tables, network));
    let bound = clip::bound(&counts, &spans, network.layers, Weights::PLAIN);
    let mut best = BestFlow {
        placement: None,
        bound,
        proof: Proof::Clip,
        weaker: Vec::new(),
        method: "none",
        nodes: 0,
        stopped: None,
        beaten: before.rate,
        priced: before.quickly.and_then(|found| found.priced),
        routed: before.quickly.and_then(|found| found.routed.clone()),
    };
    if bound <= 0.0 {
        return Ok(best);
    }
    if let Some(placement) = before.placement {
        let carried = flows.carried(placement)?;
        best.offer(placement.to_vec(), carried, "placement for other batches");
    }
    let chains = if depth == Depth::Quick {
        Budget { nodes_max: NODES_QUICK.min(budget.nodes_max), ..*budget }
    } else {
        *budget
    };
    stay::in_flight(flows, &counts, &mut best, &chains)?;
    let one_chain = tables.problem.limits.stages_exact.is_some();
    let devices: Vec<usize> = (0..tables.candidates.len()).collect();
    if !one_chain
        && let Some((placement, _)) = chain_rule::chain(tables, network, &devices)
        && flows.pins(&placement)
    {
        let carried = flows.carried(&placement)?;
        best.offer(placement, carried, "chain rule");
    }
    best.report(budget);
    if depth == Depth::Quick {
        return Ok(best);
    }
    // Where requests may not stay for long, few devices are wanted, and no worths of all of them say more.
    let hurry = bound > best.bound * HURRY;
    let proving = best.bound > before.above;
    let mut covers = Covers::new(&counts, &spans, network.layers, Weights::PLAIN);
    if !best.closed() && proving && !hurry {
        let (weights, weighed) = clip::weigh(&counts, &spans, network.layers);
        if weighed < best.bound * (1.0 - GAP_NONE) {
            let worth = clip::worths(&spans, weights, weighed);
            best.lower(weighed, Proof::Worths(Worths { bound: weighed, worth, weights }));
            covers = Covers::new(&counts, &spans, network.layers, weights);
        }
        if let Some(found) = covers.bound(best.reach(), best.bound * (1.0 + GAP_NONE), budget)?
            && found.bound <= best.bound
        {
            best.lower(found.bound, Proof::Worths(found));
        }
        best.report(budget);
    }
    // Where trunks are slow, the bound is far off without them, and searches for plans aim at it.
    if proving && !best.enough(budget) {
        let looks = Looks { cases: CASES_EARLY, halvings: HALVINGS_EARLY, near: NEAR_EARLY, joined: true };
        let share = |share: f64| budget.remaining.map(|left| left().value() * (1.0 - share));
        let least = share(EARLY).unwrap_or(0.0);
        let early = || Seconds::of((budget.remaining.map_or(f64::INFINITY, |left| left().value()) - least).max(0.0));
        let early = if budget.remaining.is_some() { Budget { remaining: Some(&early), ..*budget } } else { *budget };
        by_cases(flows, &spans, &mut best, looks, &early)?;
    }
    // Plans may take half of the time, what proves that there are no better ones most of the rest; but where ways between
    // sites are slow, plans gain more by time, least so where what the sites share tells how far they may get.
    let sites = Sites::apart(network, best.bound);
    let apart = sites.members.len() > 1;
    // Bridges between sites where devices pass everything alone take time and prove much.
    let bridges = Bridges::new((tables, network), sites, &spans);
    let bridged = bridges.is_some_and(|search| search.useful(best.reach().max(best.bound / 2.0)));
    let kept = match (apart, network.shared.is_empty() && !bridged) {
        (false, _) => 0.5,
        (true, true) => 0.15,
        (true, false) => 0.35,
    };
    let left = || budget.remaining.map_or(f64::INFINITY, |left| left().value());
    let all = left();
    let part = |share: f64| {
        let kept = if all.is_finite() { share * all } else { 0.0 };
        move || Seconds::of((left() - kept).max(0.0))
    };
    let (early, most) = (part(kept), part(0.05));
    let timed = budget.remaining.is_some();
    let first = if timed { Budget { remaining: Some(&early), ..*budget } } else { *budget };
    let (manner, mut memory) = (Manner { brief: !proving, hurry }, Memory::default());
    // A moment of work, and what lowers the bound most where a chain would have to take a slow way between sites:
    // searches for plans that aim at a lower bound end when they reach it.
    // With more devices than layers a chain leaves some out, and the bound is not about chains.
    let chains = tables.candidates.len() <= network.layers;
    let cross = |best: &mut BestFlow| {
        if !proving || !chains || best.enough(budget) {
            return Ok(());
        }
        budget.part(CROSSING, |budget| crossing(flows, &counts, &spans, best, budget))?;
        best.report(budget);
        Ok(())
    };
    // Where all devices are at one site, all that may be wasted is soon looked at if it is little.
    let mut by_layer = ByLayer::new(&counts, &spans);
    if proving && !apart && !best.enough(budget) {
        by_layer.early(flows, &mut best, &first)?;
    }
    cross(&mut best)?;
    if !one_chain {
        if let Some(even) = network.evened(best.bound).filter(|_| !tables.problem.limits.partial) {
            let (seen, mut memory) = (Seen::default(), Memory::default());
            let search = Flows { network: &even, seen: Some(&seen), ..*flows };
            let look = |budget: &Budget<'_>| {
                plans((&search, Some(flows)), &spans, &mut covers, &mut best, (manner, &mut memory), budget)
            };
            first.share(EVEN, look)?;
        }
        // Plans that are soon found may be the best: bridges prove it at once, or leave it open.
        if proving && bridged && timed {
            let look = |budget: &Budget<'_>| {
                plans((flows, None), &spans, &mut covers, &mut best, (manner, &mut memory), budget)
            };
            first.share(SOON, look)?;
            memory.turns += 1;
            if !best.enough(budget) {
                first.share(GLANCE, |budget| bridges::lower(flows, &spans, &mut best, true, budget))?;
            }
        }
        plans((flows, None), &spans, &mut covers, &mut best, (manner, &mut memory), &first)?;
    }
    cross(&mut best)?;
    if proving && bridged && !best.enough(budget) {
        budget.share(BRIDGES, |budget| bridges::lower(flows, &spans, &mut best, false, budget))?;
    }
    if proving && !best.enough(budget) {
        let second = if timed { Budget { remaining: Some(&most), ..*budget } } else { *budget };
        if !apart {
            by_layer.lower(flows, &mut best, &second)?;
        }
        let looks = Looks { cases: CASES, halvings: HALVINGS, near: NEAR, joined: false };
        by_cases(flows, &spans, &mut best, looks, &second)?;
    }
    if !one_chain && first.exhausted().is_some() && !best.enough(budget) {
        let (before, again) = (best.rate(), proving && timed && !apart);
        let third = Budget { remaining: Some(&most), ..*budget };
        let third = if again && third.exhausted().is_none() { third } else { *budget };
        plans((flows, None), &spans, &mut covers, &mut best, (manner, &mut memory), &third)?;
        // A better plan may itself be the best.
        if again && best.rate() > before && !best.enough(budget) {
            by_layer.lower(flows, &mut best, budget)?;
            let looks = Looks { cases: CASES, halvings: HALVINGS, near: NEAR, joined: false };
            by_cases(flows, &spans, &mut best, looks, budget)?;
        }
    }
    if proving && !best.closed() {
        crossing(flows, &counts, &spans, &mut best, budget)?;
        best.report(budget);
    }
    let few = tables.candidates.len() <= POSITIONS_DEVICES_MAX || best.placement.is_none();
    if few && (proving || best.placement.is_none()) && !best.enough(budget) {
        program(flows, &mut best, budget)?;
    }
    Ok(best)
}

/// How far to look by cases.
#[derive(Debug, Clone, Copy)]
struct Looks {
    /// Cases at one rate, at most.
    cases: usize,
    /// Rates, at most.
    halvings: usize,
    /// Relative distance of rates at which halving ends.
    near: f64,
    /// Whether only trunks are of interest.
    joined: bool,
}

/// Lowers the bound by cases.
fn by_cases(
    flows: &Flows<'_>,
    spans: &[Vec<Span>],
    best: &mut BestFlow,
    looks: Looks,
    budget: &Budget<'_>,
) -> Result<(), SolverFault> {
    let proofs = best.weaker.iter().rev().map(|(_, proof)| proof);
    let mut weights = std::iter::once(&best.proof).chain(proofs).filter_map(|proof| match proof {
        Proof::Worths(found) => Some(found.weights),
        Proof::Cases(found) => Some(found.weights),
        _ => None,
    });
    let weights = weights.next().unwrap_or(Weights::PLAIN);
    let (tables, network) = (flows.tables, flows.network);
    let sites = Sites::apart(network, best.reach().max(best.bound * 1e-3) * (1.0 + 1e-9)).members;
    let devices = tables.candidates.len();
    let cases = looks.cases.min(CASE_DEVICES_MAX / devices.max(1));
    let mut division = Division::new((tables, network), sites, spans, weights, best.bound);
    if looks.joined && !division.joined() {
        return Ok(());
    }
    // Near the bound a rate is soon proved impossible, near the plan it may take all cases to see that it is not: so from
    // above by strides, and by halving from the first rate that is not proved. Where the plan is near the bound, it may
    // itself be the best, which is worth a look, but not all the time.
    let (mut low, mut steps) = (best.reach(), 0);
    let near_by = best.near(STRIDE / 3.0);
    let stride = |best: &BestFlow, low: f64| {
        let strides = if near_by { best.bound - (best.bound - low) * PACE } else { best.bound / (1.0 + STRIDE) };
        low.max(strides)
    };
    let mut target = if near_by { low } else { stride(best, low) };
    let mut missed = false;
    let open = |best: &BestFlow, low: f64| best.bound > low * (1.0 + GAP_NONE) && !best.enough(budget);
    while open(best, low) && steps < looks.halvings && budget.exhausted().is_none() {
        let own = near_by && steps == 0;
        let found = if own {
            budget.part(OWN, |budget| division.impossible(target, cases, budget))?
        } else {
            division.impossible(target, cases, budget)?
        };
        match found {
            Some(found) => {
                best.lower(found.bound, Proof::Cases(found));
                best.report(budget);
            }
            // Nothing follows for the rates above.
            None if own => {}
            None => (low, missed) = (target, true),
        }
        if best.bound - low <= looks.near * low {
            break;
        }
        target = if missed { f64::midpoint(low, best.bound) } else { stride(best, low) };
        steps += 1;
    }
    Ok(())
}

/// Lowers the bound where ways between sites are slower than the best plan.
fn crossing(
    flows: &Flows<'_>,
    counts: &[usize],
    spans: &[Vec<Span>],
    best: &mut BestFlow,
    budget: &Budget<'_>,
) -> Result<(), SolverFault> {
    let (tables, network) = (flows.tables, flows.network);
    let of_site = |site: &Vec<usize>| {
        let mut counts = vec![0; tables.kinds.len()];
        site.iter().for_each(|&device| counts[tables.candidates[device].kind] += 1);
        counts
    };
    // What is had may be less than the slow ways carry.
    let slow = network.pair.iter().flatten().copied().filter(|&rate| rate < best.bound * (1.0 - NEAR));
    let slow = slow.fold(0.0, f64::max).max(best.reach());
    let mut looked = Vec::new();
    for above in [best.reach().max(best.bound * 1e-3), slow] {
        let sites = Sites::apart(network, above * (1.0 + 1e-9));
        if sites.members.len() < 2 || sites.fastest >= best.bound || looked == sites.members {
            continue;
        }
        looked.clone_from(&sites.members);
        let by_site = sites.members.iter().map(of_site).collect();
        let mut covers = Covers::new(counts, spans, network.layers, Weights::PLAIN).crossing(by_site);
        if let Some(found) = covers.bound(best.reach().max(sites.fastest), best.bound, budget)? {
            best.lower(found.bound, Proof::Crossing(found, sites));
            break;
        }
    }
    Ok(())
}
