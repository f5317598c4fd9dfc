//! What becomes of a plan whose devices slow themselves.
//!
//! A device that warms goes down its governor's steps as long as the steady temperature of each lies above where the
//! next begins. It stays on a step whose steady temperature lies between where it ends and where the next begins; else
//! it swings between that step and the one above. Warming and cooling of one node from `a` to `b` take `RC
//! ln((steady - a) / (steady - b))`, of which `RC` falls out of the share of time on each. Devices and the rate of the
//! plan depend on one another: a device that slows itself lets the others wait, and cool. They are brought together by
//! repetition, the one that is farthest from where it belongs first.
//!
//! Batches that follow one another evenly wait less than a plan's throughput counts, and a device that throttles is the
//! one that the others wait for. So both what the plan does cold and what is left of it are those of a run without
//! waits: of a faster run more is lost, since what heat leaves is the same for both.
//!
//! This is an estimate: it leaves aside that devices swing at different moments, and takes a device of several nodes
//! for one.

use super::{hottest_air, loads, mates, reserve, steady_celsius};
use crate::device::Device;
use crate::ids::DeviceId;
use crate::objective::{evaluate, unhindered};
use crate::plan::Plan;
use crate::problem::{Objective, PlacementProblem};
use crate::thermal::ThermalRecord;
use crate::thermal::governor::Governor;
use crate::units::{Celsius, TokensPerSecond, Watts};

/// Most repetitions.
const ROUNDS_MAX: usize = 40;
/// Most devices whose swings are told apart.
const SWINGING_MAX: usize = 6;
/// Change of every speed at which they end.
const SETTLED: f64 = 1e-4;

/// A plan in the long run, its devices slowing themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Throttled {
    /// What it does before anything is warm, in the unit of its objective.
    pub cold: f64,
    /// What it does then.
    pub value: f64,
    /// Devices that are slowed, with their mean share of full speed.
    pub slowed: Vec<(String, f64)>,
}

/// What a plan is worth once its devices are as warm as they get and slow themselves. None where the plan is malformed
/// or a time that it needs is unknown.
#[must_use]
pub fn throttled(plan: &Plan, problem: &PlacementProblem) -> Option<Throttled> {
    let capped = problem.capped(plan).into_owned();
    let full: Vec<f64> = capped.graph.device_ids().map(|id| capped.speed(id)).collect();
    let held = |id: DeviceId| plan.stages.iter().any(|stage| stage.devices.contains(&capped.graph.device(id).name));
    let governed: Vec<(DeviceId, Governor, &ThermalRecord)> = capped
        .graph
        .device_ids()
        .filter(|&id| held(id) && capped.power_span(id).is_some())
        .filter_map(|id| {
            let device = capped.graph.device(id);
            Some((id, governor(device)?, device.thermal.as_ref()?))
        })
        .collect();
    let at = |speeds: &[f64]| capped.at_speeds(|id| Some(speeds[id.index()]));
    let mut swings: Vec<Swing> = governed.iter().map(|(id, ..)| Swing::at(full[id.index()])).collect();
    let speeds = |swings: &[Swing]| {
        let mut speeds = full.clone();
        governed.iter().zip(swings).for_each(|((id, ..), swing)| speeds[id.index()] = swing.mean());
        speeds
    };
    for _ in 0..ROUNDS_MAX * governed.len().max(1) {
        let now = speeds(&swings);
        let loads = run(plan, &at(&now))?;
        let mut farthest: Option<(f64, usize, Swing)> = None;
        for (i, (id, governor, record)) in governed.iter().enumerate() {
            // Neighbours follow its swings slowly, so they are as in the mean; its own power follows at once.
            let steady = |speed: f64| {
                let mut own = now.clone();
                own[id.index()] = speed;
                let mut loads = loads.clone();
                loads[id.index()] =
                    run(plan, &at(&own)).map_or_else(|| super::drawn(&capped, *id, speed), |loads| loads[id.index()]);
                settled(&capped, *id, record, &loads)
            };
            let found = swing(governor, full[id.index()], steady);
            let moved = (found.mean() - swings[i].mean()).abs();
            if moved >= SETTLED && farthest.as_ref().is_none_or(|(known, ..)| moved > *known) {
                farthest = Some((moved, i, found));
            }
        }
        // One at a time: a device that slows itself relieves the others, which then need not.
        let Some((_, i, found)) = farthest else { break };
        swings[i] = if (found.slow, found.fast) == (swings[i].slow, swings[i].fast) {
            Swing { share: 0.5 * (swings[i].share + found.share), ..found }
        } else {
            found
        };
    }
    let cold = worth(plan, &capped)?;
    let value = mean_worth(plan, &at, &speeds(&swings), &governed, &swings)?;
    let slowed = governed.iter().zip(&swings).filter(|((id, ..), s)| s.mean() < full[id.index()] - 10.0 * SETTLED);
    let slowed = slowed.map(|((id, ..), swing)| (capped.graph.device(*id).name.clone(), swing.mean())).collect();
    Some(Throttled { cold, value, slowed })
}

/// What a plan does in the mean while devices swing between two steps, each at moments of its own.
fn mean_worth(
    plan: &Plan,
    at: &dyn Fn(&[f64]) -> PlacementProblem,
    speeds: &[f64],
    governed: &[(DeviceId, Governor, &ThermalRecord)],
    swings: &[Swing],
) -> Option<f64> {
    let swinging: Vec<(usize, &Swing)> = governed
        .iter()
        .zip(swings)
        .filter(|(_, swing)| swing.share > 0.0 && swing.share < 1.0)
        .map(|((id, ..), swing)| (id.index(), swing))
        .take(SWINGING_MAX)
        .collect();
    let mut mean = 0.0;
    for fast in 0_u32..1 << swinging.len() {
        let (mut speeds, mut share) = (speeds.to_vec(), 1.0);
        for (i, (device, swing)) in swinging.iter().enumerate() {
            let is_fast = fast >> i & 1 == 1;
            speeds[*device] = if is_fast { swing.fast } else { swing.slow };
            share *= if is_fast { swing.share } else { 1.0 - swing.share };
        }
        mean += share * worth(plan, &at(&speeds))?;
    }
    Some(mean)
}

/// The load of every device in a run without waits.
fn run(plan: &Plan, problem: &PlacementProblem) -> Option<Vec<f64>> {
    let mut loads = loads(plan, problem)?;
    if problem.objective.serves() {
        let reserve = reserve(plan, problem)?;
        for id in problem.graph.device_ids() {
            let load = &mut loads[id.index()];
            *load = (*load * reserve).min(super::drawn(problem, id, problem.speed(id))).max(*load);
        }
    }
    Some(loads)
}

/// What such a run does.
fn worth(plan: &Plan, problem: &PlacementProblem) -> Option<f64> {
    if problem.objective == Objective::Throughput {
        unhindered(plan, problem).map(TokensPerSecond::value)
    } else {
        evaluate(plan, problem).value(problem.objective)
    }
}

fn governor(device: &Device) -> Option<Governor> {
    device.governor.clone().or_else(|| device.thermal.as_ref().and_then(Governor::of_throttle))
}

/// Steady temperature of a device at these loads.
fn settled(problem: &PlacementProblem, id: DeviceId, record: &ThermalRecord, loads: &[f64]) -> f64 {
    let mean = |id: DeviceId| -> f64 {
        let idle = problem.graph.device(id).idle_watts.as_ref().map_or(0.0, |idle| idle.value.value());
        idle + problem.power_span(id).map_or(0.0, |(_, span)| span.value() * loads[id.index()])
    };
    let warmth = mates(problem, &problem.graph.device(id).name).map_or(0.0, |(chassis, ids)| {
        chassis.resistance_kelvin_per_watt.value() * ids.into_iter().map(mean).sum::<f64>()
    });
    let air = Celsius::of(hottest_air(problem).value() + warmth);
    steady_celsius(record, air, Watts::of(mean(id))).value()
}

/// Two speeds between which a device goes back and forth, and the share of the time at the faster one.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Swing {
    slow: f64,
    fast: f64,
    share: f64,
}

impl Swing {
    /// A device that stays at one speed.
    const fn at(speed: f64) -> Self {
        Self { slow: speed, fast: speed, share: 1.0 }
    }

    fn mean(&self) -> f64 {
        self.share * self.fast + (1.0 - self.share) * self.slow
    }
}

/// How a device goes whose steady temperature at a speed is `steady`, of which a cap leaves `most`.
fn swing(governor: &Governor, most: f64, steady: impl Fn(f64) -> f64) -> Swing {
    let speed = |level: usize| governor.speed(level).min(most);
    let mut level = 0;
    while governor.down_at(level).is_some_and(|at| steady(speed(level)) >= at.value()) {
        level += 1;
    }
    let Some(above) = level.checked_sub(1) else { return Swing::at(speed(0)) };
    let (Some(down), Some(up)) = (governor.down_at(above), governor.up_at(level)) else {
        return Swing::at(speed(level));
    };
    let (cool, warm) = (steady(speed(level)), steady(speed(above)));
    if cool > up.value() {
        return Swing::at(speed(level));
    }
    // From where it steps up to where it steps down again, and back.
    let span = |steady: f64, from: f64, to: f64| libm::log(((steady - from) / (steady - to)).max(1.0));
    let fast = span(warm, up.value(), down.value());
    let slow = span(cool, down.value(), up.value());
    // At the very edge the one or the other takes for ever.
    if !fast.is_finite() || (fast + slow) <= 0.0 {
        return Swing::at(speed(above));
    }
    if !slow.is_finite() {
        return Swing::at(speed(level));
    }
    Swing { slow: speed(level), fast: speed(above), share: fast / (fast + slow) }
}
