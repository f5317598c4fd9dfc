//! What becomes of a plan whose devices slow themselves.
//!
//! A device that warms goes down its governor's steps as long as the steady temperature of each lies above where the
//! next begins. It stays on a step whose steady temperature lies between where it ends and where the next begins; else
//! it swings between that step and the one above. Warming and cooling of one node from `a` to `b` take `RC
//! ln((steady - a) / (steady - b))`, of which `RC` falls out of the share of time on each. Devices and the rate of the
//! plan depend on one another; they are brought together by repetition, half a step at a time.
//!
//! This is an estimate: it leaves aside that devices swing at different moments, and takes a device of several nodes
//! for one.

use super::{hottest_air, mates, steady_celsius};
use crate::device::Device;
use crate::ids::DeviceId;
use crate::objective::{evaluate, utilisation};
use crate::plan::Plan;
use crate::problem::PlacementProblem;
use crate::thermal::ThermalRecord;
use crate::thermal::governor::Governor;
use crate::units::{Celsius, Watts};

/// Most repetitions.
const ROUNDS_MAX: usize = 40;
/// Change of every speed at which they end.
const SETTLED: f64 = 1e-4;

/// A plan in the long run, its devices slowing themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Throttled {
    /// What it is worth then, in the unit of its objective.
    pub value: f64,
    /// Devices that are slowed, with their mean share of full speed.
    pub slowed: Vec<(String, f64)>,
}

/// What a plan is worth once its devices are as warm as they get and slow themselves. None where the plan is malformed or
/// a time that it needs is unknown.
#[must_use]
pub fn throttled(plan: &Plan, problem: &PlacementProblem) -> Option<Throttled> {
    let capped = problem.capped(plan).into_owned();
    let mut speeds: Vec<f64> = capped.graph.device_ids().map(|id| capped.speed(id)).collect();
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
    for _ in 0..ROUNDS_MAX {
        let loads = super::loads(plan, &at(&speeds))?;
        let mut moved: f64 = 0.0;
        let mut next = speeds.clone();
        for (id, governor, record) in &governed {
            let most = capped.speed(*id);
            let mut eager = speeds.clone();
            eager[id.index()] = most;
            let share = share_of(plan, &at(&eager), *id)?;
            let wanted = share * most;
            let steady = |speed: f64| {
                let mut loads = loads.clone();
                loads[id.index()] = wanted.min(speed);
                settled(&capped, *id, record, &loads)
            };
            let found = mean_speed(governor, most, steady);
            moved = moved.max((found - speeds[id.index()]).abs());
            next[id.index()] = 0.5 * (speeds[id.index()] + found);
        }
        speeds = next;
        if moved < SETTLED {
            break;
        }
    }
    let value = evaluate(plan, &at(&speeds)).value(problem.objective)?;
    let slowed = governed.iter().filter(|(id, ..)| speeds[id.index()] < capped.speed(*id) - 10.0 * SETTLED);
    let slowed = slowed.map(|(id, ..)| (capped.graph.device(*id).name.clone(), speeds[id.index()])).collect();
    Some(Throttled { value, slowed })
}

/// Share of the time that a device works.
fn share_of(plan: &Plan, problem: &PlacementProblem, id: DeviceId) -> Option<f64> {
    let name = &problem.graph.device(id).name;
    let stage = plan.stages.iter().position(|stage| stage.devices.contains(name))?;
    utilisation(plan, problem)?.get(stage).copied()
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

/// Mean speed of a device whose steady temperature at a speed is `steady`, of which a cap leaves `most`.
fn mean_speed(governor: &Governor, most: f64, steady: impl Fn(f64) -> f64) -> f64 {
    let speed = |level: usize| governor.speed(level).min(most);
    let mut level = 0;
    while governor.down_at(level).is_some_and(|at| steady(speed(level)) >= at.value()) {
        level += 1;
    }
    let Some(above) = level.checked_sub(1) else { return speed(0) };
    let (Some(down), Some(up)) = (governor.down_at(above), governor.up_at(level)) else { return speed(level) };
    let (cool, warm) = (steady(speed(level)), steady(speed(above)));
    if cool > up.value() {
        return speed(level);
    }
    // From where it steps up to where it steps down again, and back.
    let span = |steady: f64, from: f64, to: f64| libm::log(((steady - from) / (steady - to)).max(1.0));
    let fast = span(warm, up.value(), down.value());
    let slow = span(cool, down.value(), up.value());
    // At the very edge the one or the other takes for ever.
    if !fast.is_finite() || (fast + slow) <= 0.0 {
        return speed(above);
    }
    if !slow.is_finite() {
        return speed(level);
    }
    (fast * speed(above) + slow * speed(level)) / (fast + slow)
}
