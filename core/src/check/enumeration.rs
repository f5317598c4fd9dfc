//! Latency bounds by trying every placement, for problems small enough.
//!
//! A plan for least latency is one chain: distinct devices, each with the next interval of layers. The search tries
//! every sequence of usable devices and every way to cut the layers between them, prunes nothing but what cannot be a
//! plan, and keeps the least value. Times are rounded down to multiples of 2^-80 s, and sums and maxima of rounded
//! times are at most those of the true ones, so the least value found is a lower bound on every plan's.

use super::certificate::BoundFault;
use super::holds;
use crate::exact::{Exact, agreement, exact, nearest, whole};
use crate::ids::{DeviceId, Layers};
use crate::problem::{Objective, PlacementProblem};
use crate::units::{Bytes, Seconds};
use num_bigint::BigInt;
use num_traits::One;
use std::collections::BTreeMap;

/// Most placements that the checker enumerates.
pub const PLACEMENTS_MAX: u128 = 2_000_000;

/// Fractional bits of a rounded time.
const BITS: i32 = 80;

/// A time in multiples of 2^-80 s, rounded down; times of 2^40 s and more count as 2^40 s.
fn rounded_down(time: Seconds) -> i128 {
    let (fraction, exponent) = libm::frexp(time.value().max(0.0));
    // fraction * 2^53 is a whole number below 2^53.
    let mantissa = (fraction * 9_007_199_254_740_992.0) as i128;
    match exponent - 53 + BITS {
        _ if exponent > 40 => 1 << (40 + BITS),
        shift if shift >= 0 => mantissa << shift,
        shift if shift > -53 => mantissa >> -shift,
        _ => 0,
    }
}

/// Number of chains: ordered choices of `s` of the devices times choices of `s - 1` cuts between layers.
fn placements(devices: u128, layers: u128, stages: std::ops::RangeInclusive<u128>) -> u128 {
    let (mut sum, mut orders, mut cuts) = (0_u128, devices, 1_u128);
    for s in 1..=devices.min(layers).min(*stages.end()) {
        if stages.contains(&s) {
            sum = sum.saturating_add(orders.saturating_mul(cuts));
        }
        if sum > PLACEMENTS_MAX {
            break;
        }
        orders = orders.saturating_mul(devices - s);
        cuts = cuts.saturating_mul(layers - s) / s;
    }
    sum
}

/// Proves that no plan takes less than `bound * (1 - 1e-9)`, or says which does.
pub(super) fn best_at_least(problem: &PlacementProblem, bound: f64) -> Vec<BoundFault> {
    let devices: Vec<DeviceId> = problem.graph.device_ids().filter(|&d| problem.usable(d)).collect();
    let limits = &problem.limits;
    let most = limits.stages_exact.or(limits.stages_max).unwrap_or(u32::MAX);
    let stages = u128::from(limits.stages_exact.unwrap_or(1))..=most.into();
    // Chains of fewer stages are passed through on the way, so they count as work too.
    let count = placements(devices.len() as u128, problem.layers().into(), 1..=*stages.end());
    if count > PLACEMENTS_MAX {
        return vec![BoundFault::TooLarge { what: "placements", count, max: PLACEMENTS_MAX }];
    }
    let mut search = Search::new(problem, devices, stages);
    search.extend(0, None);
    let Some((least, chain)) = search.best else { return Vec::new() };
    let value = Exact::new(BigInt::from(least), BigInt::one() << BITS);
    let Some(stated) = exact(bound) else { return Vec::new() };
    if value >= &stated * (whole(1) - agreement()) {
        return Vec::new();
    }
    let placement = chain.iter().map(|(d, layers)| format!("{layers} on {}", problem.graph.device(*d).name));
    let placement = placement.collect::<Vec<_>>().join(", then ");
    vec![BoundFault::BetterPlacement { placement, value: nearest(&value), bound }]
}

/// Times of the steps of one request (its one decode step, or each chunk of its prompt); none where one is unknown.
type Times = Option<Vec<i128>>;

struct Search<'a> {
    problem: &'a PlacementProblem,
    devices: Vec<DeviceId>,
    stages: std::ops::RangeInclusive<u128>,
    /// Bytes that each step moves across a boundary.
    messages: Vec<Bytes>,
    /// Tokens that come in.
    tokens: u64,
    step_times: BTreeMap<(DeviceId, Layers), Times>,
    hop_times: BTreeMap<(DeviceId, DeviceId), Times>,
    chain: Vec<(DeviceId, Layers)>,
    best: Option<(i128, Vec<(DeviceId, Layers)>)>,
}

impl<'a> Search<'a> {
    fn new(problem: &'a PlacementProblem, devices: Vec<DeviceId>, stages: std::ops::RangeInclusive<u128>) -> Self {
        let row = problem.model.boundary_bytes_per_token();
        let steps: Vec<u64> = match problem.objective {
            Objective::Ttft => problem.prefill_chunks().map(|chunk| chunk.tokens().into()).collect(),
            Objective::Tpot | Objective::Throughput => vec![1],
        };
        Self {
            problem,
            devices,
            stages,
            messages: steps.iter().map(|&tokens| row.saturating_mul(tokens)).collect(),
            tokens: steps.iter().sum(),
            step_times: BTreeMap::new(),
            hop_times: BTreeMap::new(),
            chain: Vec::new(),
            best: None,
        }
    }

    /// Tries every stage that can hold the layers from `start` on, and what can follow it. `before`: when each step
    /// leaves the stage before.
    fn extend(&mut self, start: u32, before: Option<&[i128]>) {
        let total = self.problem.layers();
        let stages = self.chain.len() as u128 + 1;
        if stages > *self.stages.end() {
            return;
        }
        for i in 0..self.devices.len() {
            let device = self.devices[i];
            if self.chain.iter().any(|(used, _)| *used == device) {
                continue;
            }
            let Some(arrived) = self.arrivals(before, device) else { continue };
            for end in start + 1..=total {
                let layers = Layers::new(start, end);
                let Some(left) = self.pass(&arrived, device, layers) else { continue };
                self.chain.push((device, layers));
                if end < total {
                    self.extend(end, Some(&left));
                } else if self.stages.contains(&stages) && self.pinned() && self.pools() {
                    self.finish(&left, device);
                }
                self.chain.pop();
            }
        }
    }

    /// When each step arrives at the next device.
    fn arrivals(&mut self, before: Option<&[i128]>, device: DeviceId) -> Times {
        let problem = self.problem;
        let (Some(before), Some(&(from, _))) = (before, self.chain.last()) else {
            let entry = rounded_down(problem.entry(device, self.tokens)?);
            return Some(vec![entry; self.messages.len()]);
        };
        let messages = &self.messages;
        let hops = self
            .hop_times
            .entry((from, device))
            .or_insert_with(|| messages.iter().map(|&m| problem.hop(from, device, m).map(rounded_down)).collect());
        Some(before.iter().zip(hops.as_ref()?).map(|(left, hop)| left.saturating_add(*hop)).collect())
    }

    /// When each step leaves a stage; none where it does not fit or a time is unknown.
    fn pass(&mut self, arrived: &[i128], device: DeviceId, layers: Layers) -> Times {
        let problem = self.problem;
        let steps = self.step_times.entry((device, layers)).or_insert_with(|| {
            if !holds(problem, device, layers) {
                return None;
            }
            if problem.objective == Objective::Ttft {
                return problem
                    .prefill_chunks()
                    .map(|chunk| problem.step(device, layers, &chunk).map(rounded_down))
                    .collect();
            }
            Some(vec![rounded_down(problem.decode_time(device, layers)?)])
        });
        let mut done = 0;
        let leave = |(arrived, step): (&i128, &i128)| {
            done = done.max(*arrived).saturating_add(*step);
            done
        };
        Some(arrived.iter().zip(steps.as_ref()?).map(leave).collect())
    }

    fn pinned(&self) -> bool {
        let name = |id: DeviceId| &self.problem.graph.device(id).name;
        self.problem.limits.pinned.iter().all(|pin| self.chain.iter().any(|(d, _)| name(*d) == pin))
    }

    fn pools(&self) -> bool {
        let needed = |members: &[DeviceId]| -> Bytes {
            let stages = self.chain.iter().filter(|(d, _)| members.contains(d));
            stages.map(|&(d, layers)| self.problem.stage_bytes(d, layers).total).sum()
        };
        self.problem.memory_pools().iter().all(|(members, memory)| {
            let needed = needed(members);
            needed == Bytes::ZERO || memory.is_some_and(|memory| needed <= memory)
        })
    }

    fn finish(&mut self, left: &[i128], last: DeviceId) {
        let Some(exit) = self.problem.exit(last, 1) else { return };
        let value = left.last().copied().unwrap_or(0).saturating_add(rounded_down(exit));
        if self.best.as_ref().is_none_or(|(least, _)| value < *least) {
            self.best = Some((value, self.chain.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_down_loses_less_than_one_unit_and_never_adds() {
        for value in [0.0, 1e-30, 1.3e-9, 0.1, 1.0, 12.5, 1e9] {
            let fixed = Exact::new(BigInt::from(rounded_down(Seconds::of(value))), BigInt::one() << BITS);
            let lost = exact(value).expect("finite") - fixed;
            assert!(lost >= whole(0) && lost < Exact::new(1.into(), BigInt::one() << BITS), "{value}");
        }
        assert_eq!(rounded_down(Seconds::of(1e300)), 1 << (40 + BITS));
    }

    #[test]
    fn placements_are_counted_as_enumeration_counts_them() {
        // 2 devices, 3 layers: 2 alone, 2 orders x 2 cuts.
        assert_eq!(placements(2, 3, 1..=9), 2 + 4);
        // 3 devices, 3 layers, exactly 3: 6 orders x 1 way to cut.
        assert_eq!(placements(3, 3, 3..=3), 6);
        assert_eq!(placements(3, 3, 1..=1), 3);
        assert!(placements(40, 80, 1..=40) > PLACEMENTS_MAX);
        assert_eq!(placements(u128::from(u32::MAX), 1, 1..=u128::from(u32::MAX)), u128::from(u32::MAX));
    }
}
