//! Plans whose routes prefill or decode, and bounds on all of them.
//!
//! Let `P_d(k)` be the greatest rate of device `d` with `k` layers where it prefills and `D_d(k)` where it decodes,
//! both in output tokens per second of the plan, and `cover(T) = max over k of k * min(T(k), F) / F` the layers that a
//! device covers at a rate `F` ([`super::cover`]). A device is on one side at most. If a plan of rate `F` puts the
//! devices `S` on the side that prefills, then
//!
//! ```text
//! sum over d in S of cover(P_d) >= L        sum over d not in S of cover(D_d) >= L
//! ```
//!
//! *Weight.* The first times `w`, added to the second times `1 - w`, says `sum over d of max(w * cover(P_d), (1 - w) *
//! cover(D_d)) >= L`. Where that does not hold just above the bound, for a weight from 0 to 1, no division reaches it.
//!
//! *Division by division.* Devices with the same pair of covers differ in nothing of this, so that a division is a
//! number of each kind. Where no division fulfils both, and there are few, the bound holds too.
//!
//! Ways and requests in flight are left aside, as in the clip bound.

use super::certificate::BoundFault;
use super::cover::{self, clipped};
use super::{Check, Violation};
use crate::exact::{Exact, exact, larger, mean, nearest, whole};
use crate::ids::DeviceId;
use crate::plan::Plan;
use crate::problem::{Division, PlacementProblem, Role};
use num_traits::{Signed, ToPrimitive, Zero};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Most divisions, by number of each kind of device, that are looked at one by one.
pub const DIVISIONS_MAX: u128 = 200_000;

/// Parts of a layer that are counted, as a power of two: a division is a sum of whole numbers, and all are summed up in
/// a fraction of a second.
const PARTS_BITS: u32 = 60;
/// More parts than any model has.
const PARTS_MAX: u128 = 1 << 100;

/// The problem as a plan was asked: it says whether divided plans were looked at.
pub(super) fn asked<'p>(plan: &Plan, problem: &'p PlacementProblem) -> Cow<'p, PlacementProblem> {
    if plan.division == problem.limits.division || problem.role().is_some() {
        return Cow::Borrowed(problem);
    }
    let mut asked = problem.clone();
    // What is demanded of all plans is demanded of this one. Devices that a scenario names prefill in simulation of a
    // plan that is not divided.
    if problem.limits.division != Division::Always || !problem.limits.prefill.is_empty() {
        asked.limits.division = plan.division;
    }
    Cow::Owned(asked)
}

impl Check<'_> {
    /// Routes have roles where they may, each device one role, and cache gets from one side to the other.
    pub(super) fn division(&mut self) {
        let (plan, problem) = (self.plan, self.problem);
        let asked = self.asked.limits.division;
        let divided = plan.is_divided();
        let mut faults = Vec::new();
        match (divided, asked) {
            (true, Division::Never) => {
                faults.push("it was made for no division; its division must be auto or always".to_owned());
            }
            (false, Division::Always) => {
                faults.push("every plan of this problem has one; no route has a role".to_owned());
            }
            _ => {}
        }
        if divided {
            if let Err(reason) = problem.divisible() {
                faults.push(reason);
            }
            if plan.batch.is_none() {
                faults.push("it states no batch".to_owned());
            }
            for role in Role::ALL {
                if !plan.routes.iter().any(|route| route.role == Some(role)) {
                    faults.push(format!("no route {}", role.verb()));
                }
            }
            for (i, _) in plan.routes.iter().enumerate().filter(|(_, route)| route.role.is_none()) {
                faults.push(format!("route {i} has no role"));
            }
            for (i, stage) in plan.stages.iter().enumerate() {
                let passes = |role: Role| {
                    let passing = plan.routes.iter().filter(|route| route.role == Some(role));
                    passing.flat_map(|route| &route.stages).any(|stop| stop.stage as usize == i)
                };
                if Role::ALL.into_iter().all(passes) {
                    faults.push(format!("routes that prefill and routes that decode pass stage {i}"));
                }
                // The members of a group are on one side, all of them.
                let named = &self.asked.limits.prefill;
                let members = self.stated.stages.get(i).map_or(&stage.devices, |stated| &stated.devices);
                let (role, asked) = (self.roles[i], |role| role == Role::Prefill);
                let apart = |role| members.iter().any(|member| named.contains(member) != asked(role));
                if !named.is_empty() && role.is_some_and(apart) {
                    let (device, verb) = (stage.devices.join(" + "), role.map_or("", Role::verb));
                    faults
                        .push(format!("{device} {verb}, which is not how disaggregation.prefill divides the devices"));
                }
            }
        }
        self.found.extend(faults.into_iter().map(Violation::Division));
        if divided {
            self.cache_ways();
        }
    }

    /// Where two routes hold the same layers, cache gets from the one that prefills to the other.
    fn cache_ways(&mut self) {
        let (plan, problem) = (self.plan, self.problem);
        let of = |role| plan.routes.iter().enumerate().filter(move |(_, route)| route.role == Some(role));
        let mut missing = Vec::new();
        for (i, prefill) in of(Role::Prefill) {
            for (_, decode) in of(Role::Decode) {
                for (held, wanted) in prefill.stages.iter().flat_map(|a| decode.stages.iter().map(move |b| (a, b))) {
                    let device = |stage: u32| plan.stages.get(stage as usize).and_then(|stage| self.device(stage));
                    let (Some(from), Some(to)) = (device(held.stage), device(wanted.stage)) else { continue };
                    let meet = held.layers.start.max(wanted.layers.start) < held.layers.end.min(wanted.layers.end);
                    let bytes = problem.prompt_cache_bytes(from, held.layers);
                    if meet && problem.hop(from, to, bytes).is_none() {
                        let name = |id: DeviceId| problem.graph.device(id).name.clone();
                        missing.push(Violation::NoWay { route: i, from: name(from), to: name(to) });
                    }
                }
            }
        }
        self.found.extend(missing);
    }
}

/// What a device covers on either side at a rate: layers.
type Covers = (Exact, Exact);

/// The kinds of devices by what they cover, and how many there are of each.
fn kinds(problem: &PlacementProblem, above: &Exact) -> Result<Vec<(Covers, Vec<DeviceId>)>, BoundFault> {
    let mut covers: BTreeMap<DeviceId, Covers> =
        problem.graph.device_ids().map(|id| (id, (Exact::zero(), Exact::zero()))).collect();
    for role in Role::ALL {
        let side = problem.side(role);
        let at = match role {
            Role::Prefill => above / mean(problem.workload.output_tokens),
            Role::Decode => above.clone(),
        };
        for class in cover::classes(&side, &at, None)? {
            let layers = |(shape, rate): &(cover::Shape, Exact)| clipped(rate, &at) * whole(shape.0.into());
            let most = class.rates.iter().map(layers).fold(Exact::zero(), larger) / &at;
            for device in class.devices {
                let Some(of) = covers.get_mut(&device) else { continue };
                match role {
                    Role::Prefill => of.0 = most.clone(),
                    Role::Decode => of.1 = most.clone(),
                }
            }
        }
    }
    let named = &problem.limits.prefill;
    let mut kinds: Vec<(Covers, Vec<DeviceId>)> = Vec::new();
    for (id, mut of) in covers {
        // Who may only be on one side covers nothing on the other.
        match (named.is_empty(), named.contains(&problem.graph.device(id).name)) {
            (true, _) => {}
            (false, true) => of.1 = Exact::zero(),
            (false, false) => of.0 = Exact::zero(),
        }
        match kinds.iter_mut().find(|(known, _)| *known == of) {
            Some((_, devices)) => devices.push(id),
            None => kinds.push((of, vec![id])),
        }
    }
    Ok(kinds)
}

/// Proves that no divided plan reaches `above`, or says why not.
pub(super) fn prove(problem: &PlacementProblem, bound: f64, above: &Exact, weight: Option<f64>) -> Vec<BoundFault> {
    if !above.is_positive() {
        return vec![BoundFault::Divided { bound, what: "the bound is not positive".to_owned() }];
    }
    let kinds = match kinds(problem, above) {
        Ok(kinds) => kinds,
        Err(fault) => return vec![fault],
    };
    let layers = whole(problem.layers().into());
    match weight {
        Some(weight) => match exact(weight).filter(|w| !w.is_negative() && *w <= whole(1)) {
            None => vec![BoundFault::Divided { bound, what: format!("the weight is {weight}; it is from 0 to 1") }],
            Some(w) => {
                let other = whole(1) - &w;
                let most = |((prefill, decode), devices): &(Covers, Vec<DeviceId>)| {
                    larger(&w * prefill, &other * decode) * whole(devices.len() as u64)
                };
                let covered: Exact = kinds.iter().map(most).fold(Exact::zero(), |sum, each| sum + each);
                if covered < layers {
                    return Vec::new();
                }
                let what = format!("both sides cover {} layers of {}", nearest(&covered), problem.layers());
                vec![BoundFault::Divided { bound, what }]
            }
        },
        None => by_division(&kinds, &layers, bound),
    }
}

/// Looks at every number of each kind on the side that prefills.
fn by_division(kinds: &[(Covers, Vec<DeviceId>)], layers: &Exact, bound: f64) -> Vec<BoundFault> {
    let count = kinds.iter().fold(1_u128, |all, (_, devices)| all.saturating_mul(devices.len() as u128 + 1));
    if count > DIVISIONS_MAX {
        return vec![BoundFault::TooLarge { what: "divisions of the devices", count, max: DIVISIONS_MAX }];
    }
    // Whole parts of a layer, rounded up: what covers too little in them covers too little.
    let parts = |covered: &Exact| (covered * whole(1 << PARTS_BITS)).ceil().to_integer().to_u128().unwrap_or(PARTS_MAX);
    let each: Vec<(u128, u128)> = kinds.iter().map(|((p, d), _)| (parts(p), parts(d))).collect();
    let needed = (layers * whole(1 << PARTS_BITS)).floor().to_integer().to_u128().unwrap_or(0);
    let mut numbers = vec![0_usize; kinds.len()];
    loop {
        let (mut prefill, mut decode) = (0_u128, 0_u128);
        for (&number, ((p, d), (_, devices))) in numbers.iter().zip(each.iter().zip(kinds)) {
            prefill = prefill.saturating_add(p.saturating_mul(number as u128));
            decode = decode.saturating_add(d.saturating_mul((devices.len() - number) as u128));
        }
        if prefill >= needed && decode >= needed {
            let what =
                format!("with {numbers:?} of each kind of device on the side that prefills, both cover all layers");
            return vec![BoundFault::Divided { bound, what }];
        }
        // Counts on, as an odometer does.
        let Some(at) = (0..kinds.len()).find(|&at| numbers[at] < kinds[at].1.len()) else { return Vec::new() };
        numbers[at] += 1;
        numbers[..at].fill(0);
    }
}
