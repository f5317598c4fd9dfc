//! The one door: a problem in, an outcome out.

use crate::assemble::{Parts, assemble_or};
use crate::budget::{Budget, GAP_NONE, Limit, relative_gap};
use crate::choices;
use crate::divide;
use crate::goals;
use crate::groups;
use crate::infeasible;
use crate::latency::chains::{Chains, Link, StageCount};
use crate::latency::costs::Costs;
use crate::latency::{BestChain, best_chain};
use crate::outcome::{Outcome, PlanError};
use crate::sustained;
use crate::tables::Tables;
use crate::throughput::bridges;
use crate::throughput::cases::{self, Counted, Proved};
use crate::throughput::clip::Weights;
use crate::throughput::network::Network;
use crate::throughput::replay::Carried;
use crate::throughput::routes::{self, Routed};
use crate::throughput::worths::Worths;
use crate::throughput::{Before, BestFlow, Depth, Flows, Proof, best_flow};
use isotherm_core::check::open_batches;
use isotherm_core::plan::{BatchEvidence, Bridge, BridgeCase, Case, EndWeights, Evidence, Unused};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::sustained::Envelope;
use std::collections::BTreeMap;

/// Most chains that a plan's reader is asked to enumerate.
const ENUMERATED_MAX: u128 = 200_000;

/// Most bounds that are tried where the checker cannot verify the least.
const WEAKER_MAX: usize = 3;

/// Most devices for which a search begins with the question whether there is any placement.
const NOWHERE_DEVICES_MAX: usize = 12;

/// By how much more a bound that the checker verifies may exceed a search's word to be stated instead.
const WORD_GAP: f64 = 0.01;

/// Finds the best plan for a problem, within the limits of `budget`.
///
/// The same problem and budget give the same plan, unless time or an interrupt ends the search. Every plan has passed
/// [`isotherm_core::plan::Plan::check`].
///
/// # Errors
/// The solver failed, or the checker refused what was found; neither is the scenario's fault.
pub fn plan(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Outcome, PlanError> {
    budget.counted(|budget| within(problem, budget))
}

fn within(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Outcome, PlanError> {
    if problem.division() != problem.limits.division {
        return within(&divide::undivided(problem), budget);
    }
    if goals::concerns(problem) {
        return goals::plan(problem, budget);
    }
    let envelope = Envelope::of(problem);
    if envelope.is_empty() || problem.limits.cold {
        unlimited(problem, budget)
    } else {
        sustained::plan(problem, budget)
    }
}

/// The same where neither heat nor power limits anything.
pub(crate) fn unlimited(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Outcome, PlanError> {
    if problem.limits.division.is_never() { undivided(problem, budget) } else { divide::plan(problem, budget) }
}

/// The same where no plan is divided.
pub(crate) fn undivided(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Outcome, PlanError> {
    if problem.may_group() { groups::plan(problem, budget) } else { alone(problem, budget) }
}

/// The same where every device is by itself.
pub(crate) fn alone(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Outcome, PlanError> {
    if problem.formats().len() > 1 { choices::plan(problem, budget) } else { without_choices(problem, budget) }
}

/// The same where every device has its format.
pub(crate) fn without_choices(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Outcome, PlanError> {
    let tables = Tables::new(problem, !problem.objective.serves());
    if let Some(reasons) = infeasible::at_once(&tables) {
        return Ok(Outcome::Infeasible(reasons));
    }
    match problem.objective {
        Objective::Tpot => latency(&tables, &Costs::decode(&tables), budget),
        Objective::Ttft => latency(&tables, &Costs::prefill(&tables), budget),
        _ => throughput(&tables, budget),
    }
}

fn latency(tables: &Tables<'_>, costs: &Costs, budget: &Budget<'_>) -> Result<Outcome, PlanError> {
    let chains = Chains::new(tables, costs, StageCount::of(tables));
    let best = best_chain(&chains, budget)?;
    let Some((chain, value)) = &best.chain else {
        return Ok(match best.stopped {
            Some(stopped_by) if best.bound.is_finite() => Outcome::Unknown { stopped_by },
            _ => Outcome::Infeasible(infeasible::searched(tables)),
        });
    };
    let mut evidence = Vec::new();
    if best.solver.is_none() {
        evidence.push(Evidence::WalkPrices { parts: best.evidence(&chains) });
    }
    if placements(tables) <= ENUMERATED_MAX {
        evidence.push(Evidence::Enumeration);
    }
    let parts = Parts {
        placement: chain.clone(),
        routes: vec![((0..chain.len()).collect(), 1.0)],
        unused: unused_in_chain(&chains, &best, chain, *value),
        bound: Some(best.bound),
        evidence,
        method: best.method.to_owned(),
        solver: best.solver.map(str::to_owned),
        nodes: Some(best.nodes).filter(|&n| n > 0),
        stopped: stopped(best.stopped, relative_gap(*value, best.bound), budget),
        batch: None,
    };
    // What a search has added to prices may take the checker too long.
    let weaker = best.weaker().map(|bound| bound * (1.0 - 1e-12)).into_iter();
    let weaker = weaker.filter(|bound| *bound > 0.0 && *bound < best.bound);
    let weaker = weaker.filter_map(|bound| Some((bound, parts.evidence.first().cloned()?))).collect();
    assemble_or(tables, parts, weaker)
}

/// The limit that ended a search; reaching the gap asked for is one too.
fn stopped(by: Option<Limit>, gap: f64, budget: &Budget<'_>) -> Option<Limit> {
    if gap <= budget.gap_target { Some(Limit::Gap) } else { by }
}

/// Number of chains of the problem's devices, saturating.
fn placements(tables: &Tables<'_>) -> u128 {
    let (devices, layers) = (tables.problem.graph.devices().len() as u128, tables.layers as u128);
    let (mut sum, mut orders, mut cuts) = (0_u128, devices, 1_u128);
    for stages in 1..=devices.min(layers) {
        sum = sum.saturating_add(orders.saturating_mul(cuts));
        orders = orders.saturating_mul(devices - stages);
        cuts = cuts.saturating_mul(layers - stages) / stages;
        if sum > ENUMERATED_MAX {
            break;
        }
    }
    sum
}

/// Why each candidate outside the chain is outside: what a chain with it would take at least.
fn unused_in_chain(chains: &Chains<'_>, best: &BestChain, chain: &[Link], value: f64) -> Vec<Unused> {
    let tables = chains.tables;
    let with = best.at_least_with(chains);
    let idle = (0..tables.candidates.len()).filter(|device| !chain.iter().any(|link| link.0 == *device));
    idle.map(|device| {
        let (least, unit) = (with[device], if chains.costs.chunks > 1 { "to the first token" } else { "per token" });
        let reason = if !least.is_finite() {
            "no chain can pass it: it has no known ways to and from the others".to_owned()
        } else if least > value * (1.0 + 1e-9) {
            let (milliseconds, percent) = (least * 1e3, (least / value - 1.0) * 100.0);
            format!("would slow: any chain with it takes at least {milliseconds:.3} ms {unit}, {percent:.1} % more")
        } else {
            "no gain: no chain with it is quicker".to_owned()
        };
        Unused { device: tables.name(device).to_owned(), reason }
    })
    .collect()
}

/// The best placement over all batches, its batch, and a bound on every plan in any batch.
///
/// What proves the bound of each batch comes third.
fn best_over_batches(tables: &Tables<'_>, budget: &Budget<'_>) -> Result<(BestFlow, u32, Vec<BatchProof>), PlanError> {
    let problem = tables.problem;
    let mut networks: Vec<Network> = Vec::new();
    for batch in problem.batches() {
        let life = problem.life(batch);
        networks.push(networks.first().map_or_else(|| Network::new(tables, &life), |known| known.again(tables, &life)));
    }
    if let ([network], [batch]) = (networks.as_slice(), problem.batches().as_slice()) {
        let mut best = best_flow(&Flows::new(tables, network), Before::default(), Depth::Full, budget)?;
        if matches!(best.proof, Proof::Chain)
            && let Some(found) = by_routes(tables, network, (best.without_cases().0, best.bound), budget)?
        {
            let proof = Proof::Routes(found.clone());
            if found.bound <= best.bound { best.proof = proof } else { best.weaker.push((found.bound, proof)) }
        }
        return Ok((best, *batch, Vec::new()));
    }
    // What is quickly found for each batch; then the most promising first: what it reaches rules out others.
    let quick = |network: &Network| best_flow(&Flows::new(tables, network), Before::default(), Depth::Quick, budget);
    let mut open: Vec<(BestFlow, u32, &Network)> = Vec::new();
    for (batch, network) in problem.batches().into_iter().zip(&networks) {
        open.push((quick(network)?, batch, network));
    }
    open.sort_by(|a, b| b.0.bound.total_cmp(&a.0.bound).then(b.1.cmp(&a.1)));
    let mut placement: Option<(Vec<Link>, f64)> = None;
    for (flow, ..) in &open {
        let rate = placement.as_ref().map_or(0.0, |(_, rate)| *rate);
        if let Some((known, carried)) = flow.placement.as_ref().filter(|(_, carried)| carried.rate > rate) {
            placement = Some((known.clone(), carried.rate));
        }
    }
    let mut found: Option<(BestFlow, u32)> = None;
    let mut proofs: Vec<BatchProof> = Vec::new();
    for (quickly, batch, network) in open {
        let rate = placement.as_ref().map_or(0.0, |(_, rate)| *rate);
        let needless = quickly.bound <= rate * (1.0 + budget.gap_target.max(GAP_NONE));
        let exhausted = budget.exhausted().filter(|_| found.is_some() && !needless);
        let flow = if needless || exhausted.is_some() {
            BestFlow { stopped: quickly.stopped.or(exhausted), ..quickly }
        } else {
            let known = placement.as_ref().map(|(known, _)| known.as_slice());
            let above = found.as_ref().map_or(0.0, |(found, _): &(BestFlow, u32)| found.bound);
            let before = Before { placement: known, rate, quickly: Some(&quickly), above };
            best_flow(&Flows::new(tables, network), before, Depth::Full, budget)?
        };
        if let Some((known, carried)) = flow.placement.as_ref().filter(|(_, carried)| carried.rate > rate) {
            placement = Some((known.clone(), carried.rate));
        }
        let (bound, plain) = flow.without_cases();
        proofs.push(BatchProof { batch, proof: flow.proof.clone(), plain: (bound, plain.clone()) });
        found = Some(match found {
            None => (flow, batch),
            Some(before) => merged(before, (flow, batch)),
        });
    }
    let (flow, batch) = found.expect("there is at least one batch");
    let open = open_batches(problem, flow.bound);
    for (known, network) in problem.batches().into_iter().zip(&networks).filter(|(batch, _)| open.contains(batch)) {
        let words = proofs.iter_mut().filter(|of| of.batch == known && matches!(of.proof, Proof::Chain));
        for of in words {
            if of.plain.0 > flow.bound
                && let Some(found) = by_routes(tables, network, (of.plain.0, flow.bound), budget)?
                && found.bound < of.plain.0
            {
                of.plain = (found.bound, Proof::Routes(found));
            }
            if of.plain.0 <= flow.bound {
                of.proof = of.plain.1.clone();
            }
        }
    }
    Ok((flow, batch, proofs))
}

/// The bound by the cheapest route, no plan being faster than `above`, where a search for one chain says that none is faster
/// than `most`; none where it is much greater. It takes a moment, also where time is up.
fn by_routes(
    tables: &Tables<'_>,
    network: &Network,
    (above, most): (f64, f64),
    budget: &Budget<'_>,
) -> Result<Option<Routed>, PlanError> {
    let Some(stay) = &network.stay else { return Ok(None) };
    let found = routes::bound(tables, network, stay, (above, most), &Budget { remaining: None, ..*budget })?;
    Ok(found.filter(|found| found.bound <= most * (1.0 + WORD_GAP)))
}

/// The better of two, under a bound on both.
fn merged(a: (BestFlow, u32), b: (BestFlow, u32)) -> (BestFlow, u32) {
    let (mut better, other) = if b.0.rate() > a.0.rate() { (b, a.0) } else { (a, b.0) };
    if other.bound > better.0.bound {
        (better.0.bound, better.0.proof) = (other.bound, other.proof);
    }
    better.0.nodes += other.nodes;
    better.0.stopped = better.0.stopped.or(other.stopped);
    better
}

fn throughput(tables: &Tables<'_>, budget: &Budget<'_>) -> Result<Outcome, PlanError> {
    if tables.candidates.len() <= NOWHERE_DEVICES_MAX && infeasible::nowhere(tables) {
        return Ok(Outcome::Infeasible(infeasible::searched(tables)));
    }
    let (best, batch, proofs) = best_over_batches(tables, budget)?;
    let Some((placement, carried)) = &best.placement else {
        return Ok(match best.stopped {
            _ if infeasible::nowhere(tables) => Outcome::Infeasible(infeasible::searched(tables)),
            stopped if best.bound > 0.0 => {
                let stopped_by = stopped.or_else(|| budget.exhausted()).unwrap_or(Limit::Searches);
                Outcome::Unknown { stopped_by }
            }
            _ => Outcome::Infeasible(infeasible::searched(tables)),
        });
    };
    let (used, routes) = passed(placement, carried);
    let gap = relative_gap(carried.rate, best.bound);
    let parts = Parts {
        unused: unused_in_flow(tables, &best, &used, gap),
        placement: used,
        routes,
        bound: Some(best.bound),
        evidence: evidence(tables, &best.proof).into_iter().chain(by_batch(tables, best.bound, &proofs)).collect(),
        method: best.method.to_owned(),
        solver: match best.proof {
            Proof::Solver(name) => Some(name.to_owned()),
            Proof::Clip
            | Proof::Chain
            | Proof::InFlight(_)
            | Proof::Routes(_)
            | Proof::Worths(_)
            | Proof::Crossing(..)
            | Proof::Layered(_)
            | Proof::Cases(_)
            | Proof::Bridges(_) => None,
        },
        nodes: Some(best.nodes).filter(|&n| n > 0),
        stopped: stopped(best.stopped, gap, budget),
        batch: Some(batch).filter(|_| tables.problem.knows_times()),
    };
    let searched = |proof: &Proof| matches!(proof, Proof::Layered(_) | Proof::Cases(_) | Proof::Bridges(_));
    let hard = searched(&best.proof) || proofs.iter().any(|of| searched(&of.proof));
    let mut others = if hard { weaker(tables, &best, &proofs) } else { Vec::new() };
    others.extend(routed(tables, &best, &proofs));
    assemble_or(tables, parts, others)
}

/// Bounds that are not as good and easier to verify, with what proves them, to be tried in order.
fn weaker(tables: &Tables<'_>, best: &BestFlow, proofs: &[BatchProof]) -> Vec<(f64, Evidence)> {
    let of = |(bound, proof): (f64, &Proof)| evidence(tables, proof).into_iter().map(move |found| (bound, found));
    if proofs.len() < 2 {
        let tried = best.weaker.iter().rev().take(WEAKER_MAX).map(|(bound, proof)| (*bound, proof));
        return tried.chain([best.without_cases()]).flat_map(of).collect();
    }
    let mut plain: Vec<BatchProof> = proofs.to_vec();
    plain.iter_mut().for_each(|of| of.proof.clone_from(&of.plain.1));
    let Some(greatest) = plain.iter().max_by(|a, b| a.plain.0.total_cmp(&b.plain.0)) else { return Vec::new() };
    let (bound, proof) = (greatest.plain.0, &greatest.plain.1);
    let all = by_batch(tables, bound, &plain).map(|found| (bound, found));
    all.into_iter().chain(of((bound, proof))).collect()
}

/// A bound a little above what a search for one chain says, where prices of routes prove it.
fn routed(tables: &Tables<'_>, best: &BestFlow, proofs: &[BatchProof]) -> Option<(f64, Evidence)> {
    // A search that left nothing says more.
    if relative_gap(best.rate(), best.bound) <= GAP_NONE {
        return None;
    }
    if proofs.is_empty() {
        let known = best.weaker.last().filter(|_| matches!(best.proof, Proof::Chain));
        let (bound, proof) = known.filter(|(_, proof)| matches!(proof, Proof::Routes(_)))?;
        return Some((*bound, evidence(tables, proof).pop()?));
    }
    let open = open_batches(tables.problem, best.bound);
    let (mut bound, mut plain) = (best.bound, proofs.to_vec());
    for of in plain.iter_mut().filter(|of| matches!(of.proof, Proof::Chain) && open.contains(&of.batch)) {
        bound = bound.max(of.plain.0);
        of.proof.clone_from(&of.plain.1);
    }
    let little = bound > best.bound && bound <= best.bound * (1.0 + WORD_GAP);
    Some((bound, by_batch(tables, bound, &plain).filter(|_| little)?))
}

/// The stages that anything passes, and the ways through them with their rates.
pub(crate) fn passed(placement: &[Link], carried: &Carried) -> (Vec<Link>, Vec<(Vec<usize>, f64)>) {
    let passed: Vec<bool> =
        (0..placement.len()).map(|i| carried.paths.iter().any(|path| path.stops.contains(&i))).collect();
    let mut position = vec![0; placement.len()];
    let mut used = Vec::new();
    for (i, &stage) in placement.iter().enumerate().filter(|(i, _)| passed[*i]) {
        position[i] = used.len();
        used.push(stage);
    }
    let ways =
        carried.paths.iter().map(|path| (path.stops.iter().map(|&stop| position[stop]).collect(), path.rate)).collect();
    (used, ways)
}

/// Every candidate that holds none of these stages, for one reason.
pub(crate) fn unused_for(tables: &Tables<'_>, stages: &[Link], reason: &str) -> Vec<Unused> {
    let idle = (0..tables.candidates.len()).filter(|device| !stages.iter().any(|link| link.0 == *device));
    idle.map(|device| Unused { device: tables.name(device).to_owned(), reason: reason.to_owned() }).collect()
}

/// A batch and what proves the bound on its plans.
#[derive(Clone)]
struct BatchProof {
    batch: u32,
    proof: Proof,
    /// A bound that no cases prove, and what does.
    plain: (f64, Proof),
}

/// What proves the bound batch by batch, where the proof of one does not speak for the others; none where one is a
/// solver's word.
fn by_batch(tables: &Tables<'_>, bound: f64, proofs: &[BatchProof]) -> Option<Evidence> {
    if proofs.len() < 2 {
        return None;
    }
    let open = open_batches(tables.problem, bound);
    let needed = proofs.iter().filter(|of| open.contains(&of.batch));
    let proven = |BatchProof { batch, proof, .. }: &BatchProof| {
        evidence(tables, proof).into_iter().next().map(|evidence| BatchEvidence { batch: *batch, evidence })
    };
    Some(Evidence::Batches { batches: needed.map(proven).collect::<Option<Vec<_>>>()? })
}

/// What proves a bound on the rate without a solver.
fn evidence(tables: &Tables<'_>, proof: &Proof) -> Vec<Evidence> {
    let named = |found: &Worths| {
        let worth = |i: usize| (tables.name(i).to_owned(), found.worth[tables.candidates[i].kind]);
        (0..tables.candidates.len()).map(worth).collect()
    };
    match proof {
        Proof::Clip => vec![Evidence::ClipBound],
        Proof::InFlight(found) => {
            let ends = EndWeights { first: found.weights.first, last: found.weights.last };
            vec![Evidence::InFlight { price: found.price, ends }]
        }
        Proof::Routes(found) => {
            let worth = |i: usize| (tables.name(i).to_owned(), found.worth[tables.candidates[i].kind]);
            let worths = (0..tables.candidates.len()).map(worth).collect();
            vec![Evidence::Routes { price: found.price, worths }]
        }
        Proof::Worths(found) if found.weights == Weights::PLAIN => {
            // With a bound by Little's law, no worths may be needed.
            vec![Evidence::DeviceWorths { worths: named(found) }, Evidence::ClipBound]
        }
        Proof::Worths(found) => {
            let ends = EndWeights { first: found.weights.first, last: found.weights.last };
            vec![Evidence::WeighedWorths { worths: named(found), ends, sites: Vec::new() }]
        }
        Proof::Crossing(found, sites) => {
            let ends = EndWeights { first: found.weights.first, last: found.weights.last };
            let names = |site: &Vec<usize>| site.iter().map(|&device| tables.name(device).to_owned()).collect();
            let sites = sites.members.iter().map(names).collect();
            vec![Evidence::WeighedWorths { worths: named(found), ends, sites }]
        }
        Proof::Layered(found) => vec![Evidence::LayerByLayer { worths: named(found) }],
        Proof::Cases(found) => {
            let ends = EndWeights { first: found.weights.first, last: found.weights.last };
            let mut cases = Vec::new();
            in_order(tables, found, &found.root, &mut cases);
            // What joins the sites matters only where rates within them are counted.
            let within = cases.iter().any(|case| matches!(case, Case::Within { .. }));
            let crossing = found.joined.as_ref().filter(|_| within).map(|joined| joined.named.clone());
            vec![Evidence::Cases { ends, cases, crossing }]
        }
        Proof::Bridges(found) => vec![bridged(tables, found)],
        Proof::Chain | Proof::Solver(_) => Vec::new(),
    }
}

/// Bridges as a certificate lists them.
fn bridged(tables: &Tables<'_>, found: &bridges::Proved) -> Evidence {
    let position = |site: usize| u32::try_from(site).unwrap_or(u32::MAX);
    let name = |device: &usize| tables.name(*device).to_owned();
    let worths = |case: &bridges::Case| -> BTreeMap<String, f64> {
        let of_class = found.classes.iter().zip(&case.worths);
        of_class.flat_map(|(class, &worth)| class.members.iter().map(move |device| (name(device), worth))).collect()
    };
    let case = |case: &bridges::Case| BridgeCase {
        mains: case.mains.iter().map(|&site| position(site)).collect(),
        worths: worths(case),
        bridges: case
            .bridges
            .iter()
            .map(|&(from, to, waste)| Bridge { from: position(from), to: to.map(position), waste })
            .collect(),
    };
    Evidence::Bridges {
        sites: found.sites.iter().map(|site| site.iter().map(name).collect()).collect(),
        main: found.main,
        cases: found.cases.iter().map(case).collect(),
    }
}

/// The cases below one, it first, as a certificate lists them.
fn in_order(tables: &Tables<'_>, found: &Proved, case: &cases::Case, list: &mut Vec<Case>) {
    let named = |members: &[usize]| members.iter().map(|&device| tables.name(device).to_owned()).collect();
    let whole = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let counts = |count: f64| whole(count.max(0.0) as usize);
    match case {
        cases::Case::Divided(counted, count, first, second) => {
            list.push(match *counted {
                Counted::Holding(class, most) => {
                    let devices = named(&found.classes[class].members);
                    Case::Holding { devices, layers_max: whole(most), count: counts(*count) }
                }
                Counted::Alone(site) => Case::Alone { devices: named(&found.sites[site]), count: counts(*count) },
                Counted::Within(site) => Case::Within { site: whole(site), rate: *count },
            });
            in_order(tables, found, first, list);
            in_order(tables, found, second, list);
        }
        cases::Case::Proved(worths, values) => {
            let of_class = found.classes.iter().zip(worths);
            let of_device = of_class.flat_map(|(class, &worth)| class.members.iter().map(move |&d| (d, worth)));
            let worths = of_device.map(|(device, worth)| (tables.name(device).to_owned(), worth)).collect();
            list.push(Case::Proof { worths, counted: values.clone() });
        }
    }
}

fn unused_in_flow(tables: &Tables<'_>, best: &BestFlow, used: &[Link], gap: f64) -> Vec<Unused> {
    let idle = (0..tables.candidates.len()).filter(|device| !used.iter().any(|link| link.0 == *device));
    let rate = best.placement.as_ref().map_or(0.0, |(_, carried)| carried.rate);
    idle.map(|device| {
        let reason = if gap <= GAP_NONE {
            format!("no gain: no plan, with it or without, exceeds {rate:.3} tok/s")
        } else {
            format!(
                "no plan with it that exceeds {rate:.3} tok/s was found; the bound on all plans is {:.3}",
                best.bound
            )
        };
        Unused { device: tables.name(device).to_owned(), reason }
    })
    .collect()
}
