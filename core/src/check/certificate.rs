//! Whether a certificate is consistent, and whether a certified bound is proved.
//!
//! A certified bound `B` is verified with one tolerance, [`crate::check`]'s `1e-9`: a verified throughput bound means
//! that no plan of this problem reaches `B * (1 + 1e-9)`, a verified latency bound that none goes below
//! `B * (1 - 1e-9)`. Which inequality proves it is said at [`super::cover`], [`super::worths`], [`super::cases`],
//! [`super::layered`], [`super::bridges`], [`super::enumeration`] and [`super::walk`].

use super::{bridges, cases, cover, divided, enumeration, layered, priced, routes, spending, walk, worths};
use super::{bridges::BridgeFault, cases::CaseFault, in_flight, walk::WalkFault};
use crate::exact::{Exact, agree, agreement, exact, nearest, whole};
use crate::plan::{BatchEvidence, BoundKind, Certificate, EndWeights, Evidence, Plan, Status};
use crate::problem::{Division, Goal, Objective, PlacementProblem};
use num_traits::{Signed, Zero};
use std::collections::BTreeSet;

/// Largest gap of a plan that may call itself optimal, without unit.
pub const GAP_OPTIMAL_MAX: f64 = 1e-6;

/// Something wrong with a certificate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BoundFault {
    /// There is a plan and no certificate.
    #[error("the plan has no certificate; state one, with bound_kind none where nothing is known")]
    Missing,
    /// A number is not finite.
    #[error("{what} of the certificate is {value}; it must be a finite number")]
    NotFinite {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// The certificate speaks of another objective value.
    #[error("the certificate is for an objective value of {certified}, the plan states {planned}")]
    Objective {
        /// The certificate's.
        certified: f64,
        /// The plan's.
        planned: f64,
    },
    /// Parts of the certificate that belong together and are not there together.
    #[error("bound_kind is {kind:?} and {part} is {}; {must}", if *present { "given" } else { "absent" })]
    Part {
        /// Who vouches for the bound.
        kind: BoundKind,
        /// `bound`, `gap` or `evidence`.
        part: &'static str,
        /// Whether it is there.
        present: bool,
        /// What must be.
        must: &'static str,
    },
    /// The stated gap is not the distance from objective to bound.
    #[error("the stated gap is {stated}; recomputed it is {recomputed}")]
    Gap {
        /// What the certificate says.
        stated: f64,
        /// What it is.
        recomputed: f64,
    },
    /// The plan is better than its bound.
    #[error("the plan's {objective} is better than its bound {bound}; the bound is wrong")]
    Beaten {
        /// The plan's value.
        objective: f64,
        /// The bound.
        bound: f64,
    },
    /// A plan called optimal that is not known to be.
    #[error("the status is Optimal with a gap of {gap}; at most {GAP_OPTIMAL_MAX} is optimal")]
    NotOptimal {
        /// Its gap, infinite without a bound.
        gap: f64,
    },
    /// A plan called optimal on somebody's word.
    #[error("the status is Optimal and bound_kind is {kind:?}; only a certified bound makes a plan optimal")]
    NotCertified {
        /// Who vouches for the bound.
        kind: BoundKind,
    },
    /// The certificate does not say how it was found.
    #[error("the certificate names no method; say how the plan was found")]
    NoMethod,
    /// Evidence of a kind that says nothing about this objective.
    #[error("evidence {evidence} proves no bound on {objective}")]
    WrongEvidence {
        /// The kind of evidence.
        evidence: &'static str,
        /// The objective.
        objective: &'static str,
    },
    /// The clip bound does not hold.
    #[error("just above the bound {bound} tok/s the devices cover {covered} layers of {layers}: not proved impossible")]
    ClipNotBinding {
        /// The bound.
        bound: f64,
        /// Layers that all devices cover at that rate.
        covered: f64,
        /// Layers of the model.
        layers: u32,
    },
    /// A price of requests in flight that is negative or not finite.
    #[error("the price of a second in flight is {price}; it must be finite and not negative")]
    Price {
        /// The price.
        price: f64,
    },
    /// The clip bound with a price on requests in flight does not hold.
    #[error(
        "just above the bound {bound} tok/s, in batches of {batch}, the devices and the price of requests in flight \
             cover {covered} layers of {whole}: not proved impossible"
    )]
    PriceNotBinding {
        /// The batch.
        batch: u32,
        /// The bound.
        bound: f64,
        /// Weight that is covered at that rate.
        covered: f64,
        /// Weight of all layers.
        whole: f64,
    },
    /// The cheapest route does not prove the bound.
    #[error(
        "just above the bound {bound} tok/s, in batches of {batch}, requests by the cheapest route pay {paid} a second, and \
             {most} is what all of them may pay: not proved impossible"
    )]
    RoutesNotBinding {
        /// The batch.
        batch: u32,
        /// The bound.
        bound: f64,
        /// What all pay at least.
        paid: f64,
        /// What all pay at most.
        most: f64,
    },
    /// Evidence by routes where a device has rates alone.
    #[error("evidence by routes needs step times of every device; one has rates alone")]
    Untimed,
    /// A worth of a device that is not there, or is negative or not finite.
    #[error("the worth of {device:?} is {worth}; worths are finite, not negative, of devices of this problem")]
    Worth {
        /// The device.
        device: String,
        /// Its worth.
        worth: f64,
    },
    /// The devices are worth as much as the layers.
    #[error("all devices are worth {sum} layers; less than {whole} would prove the bound")]
    WorthSum {
        /// Sum of the worths.
        sum: f64,
        /// Weight of all layers.
        whole: f64,
    },
    /// A weight of an end of the model that is negative or not finite.
    #[error("the ends of the model weigh {first} and {last} beyond 1; weights are finite and not negative")]
    EndWeights {
        /// Of the first layer.
        first: f64,
        /// Of the last.
        last: f64,
    },
    /// A device that is named twice, or not at all, or is none of this problem.
    #[error("{device:?} must be a device of this problem, named in exactly one of the certificate's sites")]
    Site {
        /// The device.
        device: String,
    },
    /// A capacity between sites that is none, or is named twice.
    #[error("{capacity} must be a capacity of this problem whose bandwidth is known, named once")]
    Capacity {
        /// The capacity, in words.
        capacity: String,
    },
    /// A way between sites that leads through none of the capacities named.
    #[error("a way joins site {site} and {device}, of another site, around all capacities named")]
    Way {
        /// Position of the site.
        site: usize,
        /// The device.
        device: String,
    },
    /// A site that could hold the whole model.
    #[error("site {site} alone is worth {sum} layers; less than {whole} would prove that requests leave it")]
    SiteSum {
        /// Position of the site.
        site: usize,
        /// Sum of the worths of its devices.
        sum: f64,
        /// Weight of all layers.
        whole: f64,
    },
    /// A way between sites that carries the bound.
    #[error("the way from {from} to {to}, of two sites, carries {rate} tok/s; less than the bound would prove it")]
    FastWay {
        /// Where it begins.
        from: String,
        /// Where it ends.
        to: String,
        /// Its rate.
        rate: f64,
    },
    /// Several devices that carry a layer for less than the sites need.
    #[error("{} together exceed the bound on one layer at a price of {cost}; {least} would prove it", cover.join(" + "))]
    CheapSeveral {
        /// Price of the cover.
        cost: f64,
        /// Device and layers it holds, of each.
        cover: Vec<String>,
        /// Price that would do.
        least: f64,
    },
    /// Devices that carry a layer for less than it is worth.
    #[error("{} together exceed the bound on one layer at a price of {cost}; at least 1 would prove it", cover.join(" + "))]
    CheapCover {
        /// Price of the cover.
        cost: f64,
        /// Device and layers it holds, of each.
        cover: Vec<String>,
    },
    /// Devices that hold all layers and waste no more than they may.
    #[error("{} carry the bound on each layer, and waste no more than worths leave; not proved impossible", laid.join(", "))]
    Laid {
        /// Devices and layers they hold.
        laid: Vec<String>,
    },
    /// Cases that are no division of all plans, or one that is not proved.
    #[error(transparent)]
    Case(#[from] CaseFault),
    /// Bridges between sites that prove nothing.
    #[error(transparent)]
    Bridge(#[from] BridgeFault),
    /// Prices that prove nothing.
    #[error(transparent)]
    Walk(#[from] WalkFault),
    /// A bound on divided plans that is not proved.
    #[error("just above the bound {bound} tok/s on divided plans: {what}; not proved impossible")]
    Divided {
        /// The bound.
        bound: f64,
        /// What is left open.
        what: String,
    },
    /// Evidence that speaks of fewer plans than may be chosen.
    #[error("evidence {evidence} says nothing of {what}, which may be chosen")]
    Choices {
        /// The kind of evidence.
        evidence: &'static str,
        /// What it leaves out.
        what: &'static str,
    },
    /// Prices of a layer that prove no bound on what a token costs.
    #[error("the prices of a layer prove {proved} in batches of {batch}, not {bound}")]
    LayerPrice {
        /// Requests in the batch.
        batch: u32,
        /// What they prove.
        proved: f64,
        /// What is claimed.
        bound: f64,
    },
    /// A batch with evidence that does not speak for it, or none.
    #[error("the batch of {batch} requests {what}")]
    Batch {
        /// Requests in the batch.
        batch: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// More work than the checker takes upon itself.
    #[error("{what}: {count} are too many to certify by enumeration; at most {max}")]
    TooLarge {
        /// What would be counted.
        what: &'static str,
        /// How many, at least.
        count: u128,
        /// The limit.
        max: u128,
    },
    /// A placement that beats the bound.
    #[error("{placement} takes {value} s, less than the bound {bound} s")]
    BetterPlacement {
        /// The placement in words.
        placement: String,
        /// Its value, rounded.
        value: f64,
        /// The bound.
        bound: f64,
    },
}

/// Everything wrong with the certificate of a plan whose objective value is `planned`.
pub(super) fn faults(plan: &Plan, problem: &PlacementProblem, planned: f64) -> Vec<BoundFault> {
    let Some(certificate) = &plan.certificate else { return vec![BoundFault::Missing] };
    let mut faults = Vec::new();
    for (what, value) in
        [("objective", Some(certificate.objective)), ("bound", certificate.bound), ("gap", certificate.gap)]
    {
        if let Some(value) = value.filter(|v| !v.is_finite()) {
            faults.push(BoundFault::NotFinite { what, value });
        }
    }
    if certificate.objective.to_bits() != planned.to_bits() {
        faults.push(BoundFault::Objective { certified: certificate.objective, planned });
    }
    if certificate.method.trim().is_empty() {
        faults.push(BoundFault::NoMethod);
    }
    faults.extend(parts(certificate));
    let kind = certificate.bound_kind;
    if plan.status == Status::Optimal && kind != BoundKind::Certified {
        faults.push(BoundFault::NotCertified { kind });
    }
    faults.extend(gap(plan.status, certificate, problem.objective));
    if certificate.bound_kind == BoundKind::Certified
        && let (Some(bound), Some(evidence)) = (certificate.bound.filter(|b| b.is_finite()), &certificate.evidence)
    {
        faults.extend(verify(problem, &plan.goals, bound, evidence));
    }
    faults
}

/// Bound, gap and evidence are there exactly where their kind says so.
fn parts(certificate: &Certificate) -> Vec<BoundFault> {
    let kind = certificate.bound_kind;
    let mut faults = Vec::new();
    let mut expect = |part, present: bool, expected: bool, must| {
        if present != expected {
            faults.push(BoundFault::Part { kind, part, present, must });
        }
    };
    let bounded = kind != BoundKind::None;
    expect("bound", certificate.bound.is_some(), bounded, "state a bound exactly where somebody vouches for it");
    expect("gap", certificate.gap.is_some(), bounded, "state a gap exactly where there is a bound");
    let certified = kind == BoundKind::Certified;
    expect("evidence", certificate.evidence.is_some(), certified, "give evidence exactly for a certified bound");
    faults
}

fn gap(status: Status, certificate: &Certificate, objective: Objective) -> Vec<BoundFault> {
    let mut faults = Vec::new();
    let (Some(value), Some(bound)) = (exact(certificate.objective), certificate.bound.and_then(exact)) else {
        if status == Status::Optimal {
            faults.push(BoundFault::NotOptimal { gap: f64::INFINITY });
        }
        return faults;
    };
    let beaten = if objective.maximises() { value > bound } else { value < bound };
    if beaten && !agree(&value, &bound) {
        faults.push(BoundFault::Beaten { objective: nearest(&value), bound: nearest(&bound) });
    }
    let recomputed = match (&bound - &value).abs() {
        distance if distance.is_zero() => distance,
        _ if value.is_zero() => {
            // No share of nothing: such a plan has no finite gap, and none can be stated.
            faults.push(BoundFault::Gap { stated: certificate.gap.unwrap_or(0.0), recomputed: f64::INFINITY });
            return [faults, optimal(status, f64::INFINITY)].concat();
        }
        distance => distance / value.abs(),
    };
    // A gap near zero is the rounded difference of two rounded numbers: it agrees in absolute terms only.
    let slack = exact(1e-12).unwrap_or_else(Zero::zero);
    if let Some(stated) = certificate.gap.and_then(exact)
        && (&stated - &recomputed).abs() > slack
        && !agree(&stated, &recomputed)
    {
        faults.push(BoundFault::Gap { stated: nearest(&stated), recomputed: nearest(&recomputed) });
    }
    faults.extend(optimal(status, nearest(&recomputed)));
    faults
}

fn optimal(status: Status, gap: f64) -> Vec<BoundFault> {
    if status == Status::Optimal && gap > GAP_OPTIMAL_MAX { vec![BoundFault::NotOptimal { gap }] } else { Vec::new() }
}

/// Verifies a certified bound from its evidence alone.
fn verify(problem: &PlacementProblem, goals: &[Goal], bound: f64, evidence: &Evidence) -> Vec<BoundFault> {
    let throughput = problem.objective == Objective::Throughput;
    let wrong = |evidence| vec![BoundFault::WrongEvidence { evidence, objective: problem.objective.name() }];
    let Some(stated) = exact(bound) else { return Vec::new() };
    let above = &stated * (whole(1) + agreement());
    if problem.may_group() {
        return vec![BoundFault::Choices { evidence: "for a bound", what: "devices that hold a stage together" }];
    }
    if problem.objective.spends() {
        return match evidence {
            Evidence::LayerPrices { prices } => spending::prices(problem, goals, bound, prices),
            _ => wrong("for another objective"),
        };
    }
    if throughput && !problem.limits.division.is_never() && problem.divisible().is_ok() {
        return divided_or_whole(problem, goals, bound, &above, evidence);
    }
    if let Some(faults) = rate(problem, bound, &above, evidence, None).filter(|_| throughput) {
        return faults;
    }
    match evidence {
        Evidence::Batches { batches } if throughput => by_batch(problem, bound, &above, batches),
        Evidence::Batches { .. } => wrong("batches"),
        Evidence::ClipBound => wrong("clip_bound"),
        Evidence::InFlight { .. } => wrong("in_flight"),
        Evidence::Routes { .. } => wrong("routes"),
        Evidence::DeviceWorths { .. } => wrong("device_worths"),
        Evidence::WeighedWorths { .. } => wrong("weighed_worths"),
        Evidence::Cases { .. } => wrong("cases"),
        Evidence::Bridges { .. } => wrong("bridges"),
        Evidence::LayerByLayer { .. } => wrong("layer_by_layer"),
        Evidence::Enumeration if throughput => wrong("enumeration"),
        Evidence::Enumeration if problem.formats().len() > 1 => {
            vec![BoundFault::Choices { evidence: "enumeration", what: "other formats" }]
        }
        Evidence::Enumeration => enumeration::best_at_least(problem, bound),
        Evidence::WalkPrices { .. } if throughput => wrong("walk_prices"),
        Evidence::WalkPrices { .. } if problem.formats().len() > 1 => {
            vec![BoundFault::Choices { evidence: "walk_prices", what: "other formats" }]
        }
        Evidence::WalkPrices { parts } => walk::prices(problem, bound, parts),
        Evidence::LayerPrices { .. } => wrong("layer_prices"),
        Evidence::Divided { .. } => wrong("divided"),
    }
}

/// Verifies a bound on divided plans, and on those that are not where the problem has both.
fn divided_or_whole(
    problem: &PlacementProblem,
    goals: &[Goal],
    bound: f64,
    above: &Exact,
    evidence: &Evidence,
) -> Vec<BoundFault> {
    let Evidence::Divided { weight, whole } = evidence else {
        return vec![BoundFault::Choices { evidence: "for a bound", what: "a division of prompts and answers" }];
    };
    let mut faults = divided::prove(problem, bound, above, *weight);
    if problem.limits.division == Division::Auto {
        let mut undivided = problem.clone();
        undivided.limits.division = Division::Never;
        match whole {
            Some(whole) => faults.extend(verify(&undivided, goals, bound, whole)),
            None => faults.push(BoundFault::Choices { evidence: "divided", what: "a plan that is not divided" }),
        }
    }
    faults
}

/// Verifies evidence for a bound on throughput, in batches of one size where one is named; none where it is not for that.
fn rate(
    problem: &PlacementProblem,
    bound: f64,
    above: &Exact,
    evidence: &Evidence,
    batch: Option<u32>,
) -> Option<Vec<BoundFault>> {
    let claim = match evidence {
        Evidence::ClipBound => return Some(cover::clip(problem, bound, above, batch)),
        Evidence::InFlight { price, ends } => {
            let claim = priced::Claim { price: *price, ends: *ends, batch };
            return Some(priced::prove(problem, bound, above, &claim));
        }
        Evidence::Routes { price, worths } => {
            let claim = routes::Claim { price: *price, worths, batch };
            return Some(routes::prove(problem, bound, above, &claim));
        }
        Evidence::Cases { ends, cases, crossing } => {
            return Some(cases::prove(problem, above, &cases::Claim { ends: *ends, cases, crossing, batch }));
        }
        Evidence::Bridges { sites, main, cases } => {
            return Some(bridges::prove(problem, above, &bridges::Claim { sites, main: *main, cases, batch }));
        }
        Evidence::LayerByLayer { worths } => return Some(layered::prove(problem, above, worths, batch)),
        Evidence::DeviceWorths { worths } => worths::Claim { worths, ends: EndWeights::default(), sites: &[], batch },
        Evidence::WeighedWorths { worths, ends, sites } => worths::Claim { worths, ends: *ends, sites, batch },
        _ => return None,
    };
    Some(worths::worths(problem, above, &claim))
}

/// Verifies evidence by batch: each that Little's law leaves open has some, and all that there is holds.
fn by_batch(problem: &PlacementProblem, bound: f64, above: &Exact, batches: &[BatchEvidence]) -> Vec<BoundFault> {
    if let Err(fault) = cover::tabulable(problem) {
        return vec![fault];
    }
    let known = in_flight::batches_of(&problem.variants());
    let mut named: BTreeSet<u32> = BTreeSet::new();
    for of in batches {
        if !known.contains(&of.batch) || !named.insert(of.batch) {
            // One is enough: a file may name millions.
            let what = "must be one that plans of this problem may have, named once";
            return vec![BoundFault::Batch { batch: of.batch, what }];
        }
    }
    let mut faults = Vec::new();
    for batch in in_flight::batches(problem, above).into_iter().filter(|batch| !named.contains(batch)) {
        faults.push(BoundFault::Batch { batch, what: "has no evidence, and is not ruled out by Little's law" });
    }
    for of in batches {
        let found = rate(problem, bound, above, &of.evidence, Some(of.batch));
        let wrong = "must have evidence that speaks of throughput";
        faults.extend(found.unwrap_or_else(|| vec![BoundFault::Batch { batch: of.batch, what: wrong }]));
    }
    faults
}

/// The batches for which a bound on throughput needs evidence: those that Little's law leaves open just above it.
#[must_use]
pub fn open_batches(problem: &PlacementProblem, bound: f64) -> Vec<u32> {
    let above = exact(bound).map(|stated| stated * (whole(1) + agreement()));
    above.map_or_else(|| in_flight::batches_of(&problem.variants()), |above| in_flight::batches(problem, &above))
}
