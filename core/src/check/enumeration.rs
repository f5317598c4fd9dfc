//! Latency bounds by trying every placement, for problems small enough.
//!
//! A plan for least latency is one chain: distinct devices, each with the next interval of layers. The search tries
//! every sequence of usable devices and every way to cut the layers between them, and leaves out only what cannot be
//! a plan or cannot beat the bound: the beginning of a chain is dropped where the time it has taken already, plus the
//! least that the remaining layers take on the devices it has not used, is no less than the bound. That least is a
//! shortest path over the layers in which a device may serve again and again, so it is never more than what any
//! chain takes.
//!
//! Times are rounded down to multiples of 2^-80 s, and sums and maxima of rounded times are at most those of the true
//! ones, so no placement that beats the bound is missed.

use super::certificate::BoundFault;
use super::holds;
use crate::exact::{Exact, agreement, exact, nearest, whole};
use crate::ids::{DeviceId, Layers};
use crate::problem::{Objective, PlacementProblem};
use crate::units::{Bytes, Seconds};
use num_bigint::BigInt;
use num_traits::{One, ToPrimitive};
use std::collections::BTreeMap;

/// Most beginnings of chains, and steps of the shortest paths that bound them, that the checker looks at.
pub const ENUMERATED_MAX: u64 = 20_000_000;

/// Fractional bits of a rounded time.
pub(super) const BITS: i32 = 80;

/// A time in multiples of 2^-80 s, rounded down; times of 2^40 s and more count as 2^40 s.
pub(super) fn rounded_down(time: Seconds) -> i128 {
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

/// Proves that no plan takes less than `bound * (1 - 1e-9)`, or says which does.
pub(super) fn best_at_least(problem: &PlacementProblem, bound: f64) -> Vec<BoundFault> {
    let Some(stated) = exact(bound) else { return Vec::new() };
    let unit = Exact::from_integer(BigInt::one() << BITS);
    let target = (&stated * (whole(1) - agreement()) * &unit).ceil().to_integer();
    let target = target.to_i128().unwrap_or(if bound > 0.0 { i128::MAX } else { 0 });
    match Search::new(problem, target).and_then(Search::run) {
        Ok(None) => Vec::new(),
        Ok(Some((value, chain))) => {
            let name = |device: &DeviceId| problem.graph.device(*device).name.as_str();
            let placement = chain.iter().map(|(d, layers)| format!("{layers} on {}", name(d)));
            let placement = placement.collect::<Vec<_>>().join(", then ");
            let value = nearest(&(Exact::from_integer(BigInt::from(value)) / unit));
            vec![BoundFault::BetterPlacement { placement, value, bound }]
        }
        Err(fault) => vec![fault],
    }
}

/// Times of the steps of one request (its one decode step, or each chunk of its prompt); none where one is unknown.
type Times = Option<Vec<i128>>;

type Chain = Vec<(DeviceId, Layers)>;

struct Search<'a> {
    problem: &'a PlacementProblem,
    devices: Vec<DeviceId>,
    /// Fewest and most stages of a chain.
    stages: std::ops::RangeInclusive<usize>,
    /// Time that a placement has to beat.
    target: i128,
    /// Bytes that each step moves across a boundary.
    messages: Vec<Bytes>,
    /// Tokens that come in.
    tokens: u64,
    /// Time of the last step, by position of the device, first layer and number of layers less one.
    last_step: Vec<Vec<Vec<Option<i128>>>>,
    /// Least time in which the last step reaches a device from any other, by position of the device.
    least_hop: Vec<Option<i128>>,
    step_times: BTreeMap<(DeviceId, Layers), Times>,
    hop_times: BTreeMap<(DeviceId, DeviceId), Times>,
    /// Least time that the layers from each on take without some devices, by these devices in order.
    rest: BTreeMap<Vec<DeviceId>, Vec<i128>>,
    chain: Chain,
    looked: u64,
}

impl<'a> Search<'a> {
    /// Tabulates what the search needs. Errors: that alone is too much work.
    fn new(problem: &'a PlacementProblem, target: i128) -> Result<Self, BoundFault> {
        let row = problem.model.boundary_bytes_per_token();
        let steps: Vec<u64> = match problem.objective {
            Objective::Ttft => problem.prefill_chunks().map(|chunk| chunk.tokens().into()).collect(),
            _ => vec![1],
        };
        let devices: Vec<DeviceId> = problem.graph.device_ids().filter(|&d| problem.usable(d)).collect();
        let limits = &problem.limits;
        let most = limits.stages_exact.or(limits.stages_max).map_or(usize::MAX, |most| most as usize);
        let mut search = Self {
            problem,
            stages: limits.stages_exact.map_or(1, |exact| exact as usize)..=most.min(devices.len()),
            target,
            messages: steps.iter().map(|&tokens| row.saturating_mul(tokens)).collect(),
            tokens: steps.iter().sum(),
            last_step: Vec::new(),
            least_hop: Vec::new(),
            step_times: BTreeMap::new(),
            hop_times: BTreeMap::new(),
            rest: BTreeMap::new(),
            chain: Vec::new(),
            looked: 0,
            devices,
        };
        let (count, layers) = (search.devices.len() as u64, u64::from(problem.layers()));
        search.look(count.saturating_mul(layers).saturating_mul(layers).saturating_add(count.saturating_mul(count)))?;
        search.tabulate();
        Ok(search)
    }

    fn tabulate(&mut self) {
        let (problem, total) = (self.problem, self.problem.layers());
        let last = problem.prefill_chunks().last();
        let time = |device, layers| match (problem.objective, &last) {
            (Objective::Ttft, Some(chunk)) => problem.step(device, layers, chunk),
            _ => problem.decode_time(device, layers),
        };
        let of_layers = |device, layers| {
            if holds(problem, device, layers) { time(device, layers).map(rounded_down) } else { None }
        };
        let from = |device, start| (start + 1..=total).map(|end| of_layers(device, Layers::new(start, end))).collect();
        self.last_step =
            self.devices.iter().map(|&device| (0..total).map(|start| from(device, start)).collect()).collect();
        for i in 0..self.devices.len() {
            let into = self.devices[i];
            let others = self.devices.clone().into_iter().filter(|&other| other != into);
            let least = others.filter_map(|other| self.hops(other, into)?.last().copied()).min();
            self.least_hop.push(least);
        }
    }

    /// Counts work done. Errors: it is more than the checker takes upon itself.
    fn look(&mut self, work: u64) -> Result<(), BoundFault> {
        self.looked = self.looked.saturating_add(work);
        if self.looked > ENUMERATED_MAX {
            let (count, max) = (self.looked.into(), ENUMERATED_MAX.into());
            return Err(BoundFault::TooLarge { what: "beginnings of placements", count, max });
        }
        Ok(())
    }

    /// A placement that beats the target, or none.
    fn run(mut self) -> Result<Option<(i128, Chain)>, BoundFault> {
        let found = self.extend(0, None)?;
        Ok(found.map(|value| (value, self.chain)))
    }

    /// Tries every stage that can hold the layers from `start` on, and what can follow it. `before`: when each step
    /// leaves the stage before. The value of the first placement that beats the target, which is then the chain.
    fn extend(&mut self, start: u32, before: Option<&[i128]>) -> Result<Option<i128>, BoundFault> {
        let total = self.problem.layers();
        let stages = self.chain.len() + 1;
        if stages > *self.stages.end() {
            return Ok(None);
        }
        for i in 0..self.devices.len() {
            let device = self.devices[i];
            if self.chain.iter().any(|(used, _)| *used == device) {
                continue;
            }
            let Some(arrived) = self.arrivals(before, device) else { continue };
            let rest = self.rest_without(device)?;
            for end in start + 1..=total {
                self.look(1)?;
                let Some(own) = self.last_step[i][start as usize][(end - start - 1) as usize] else { continue };
                let at_least = arrived.last().map_or(0, |at| at.saturating_add(own));
                if at_least.saturating_add(rest[end as usize]) >= self.target {
                    continue;
                }
                let layers = Layers::new(start, end);
                let Some(left) = self.pass(&arrived, device, layers) else { continue };
                self.chain.push((device, layers));
                let value = if end < total {
                    self.extend(end, Some(&left))?
                } else if self.stages.contains(&stages) && self.pinned() && self.pools() {
                    self.finish(&left, device).filter(|value| *value < self.target)
                } else {
                    None
                };
                if value.is_some() {
                    return Ok(value);
                }
                self.chain.pop();
            }
        }
        Ok(None)
    }

    /// For each layer, the least that the layers from it on take where neither the chain's devices nor `next` serve
    /// them; other devices may serve any number of intervals.
    fn rest_without(&mut self, next: DeviceId) -> Result<Vec<i128>, BoundFault> {
        let mut without: Vec<DeviceId> = self.chain.iter().map(|(d, _)| *d).chain([next]).collect();
        without.sort_unstable();
        if let Some(known) = self.rest.get(&without) {
            return Ok(known.clone());
        }
        let total = self.problem.layers() as usize;
        let free: Vec<usize> = (0..self.devices.len()).filter(|&i| !without.contains(&self.devices[i])).collect();
        self.look((free.len() * total * total / 2) as u64)?;
        let mut rest = vec![i128::MAX; total];
        rest.push(0);
        for start in (0..total).rev() {
            for &i in &free {
                let Some(hop) = self.least_hop[i] else { continue };
                for (own, after) in self.last_step[i][start].iter().zip(start + 1..) {
                    if let Some(own) = own {
                        let through = hop.saturating_add(*own).saturating_add(rest[after]);
                        rest[start] = rest[start].min(through);
                    }
                }
            }
        }
        self.rest.insert(without, rest.clone());
        Ok(rest)
    }

    /// Times in which each step passes from one device to another.
    fn hops(&mut self, from: DeviceId, to: DeviceId) -> Option<&[i128]> {
        let (problem, messages) = (self.problem, &self.messages);
        let times = self
            .hop_times
            .entry((from, to))
            .or_insert_with(|| messages.iter().map(|&m| problem.hop(from, to, m).map(rounded_down)).collect());
        times.as_deref()
    }

    /// When each step arrives at the next device.
    fn arrivals(&mut self, before: Option<&[i128]>, device: DeviceId) -> Times {
        let problem = self.problem;
        let (Some(before), Some(&(from, _))) = (before, self.chain.last()) else {
            let entry = rounded_down(problem.entry(device, self.tokens)?);
            return Some(vec![entry; self.messages.len()]);
        };
        let hops = self.hops(from, device)?;
        Some(before.iter().zip(hops).map(|(left, hop)| left.saturating_add(*hop)).collect())
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

    /// When the request is done, by the step that ends it.
    fn finish(&self, left: &[i128], last: DeviceId) -> Option<i128> {
        Some(left.last().copied().unwrap_or(0).saturating_add(rounded_down(self.problem.exit(last, 1)?)))
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
}
