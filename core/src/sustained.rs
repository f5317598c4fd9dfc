//! What heat and power limits allow in the long run.
//!
//! Steps take milliseconds and devices warm in seconds to minutes, so heat follows mean power. A device that works a
//! share `u` of the time at a speed `s` draws `idle + (busy - idle) u d(s)` in the mean, `d` being what its operating
//! points say and `d(s) = s` without any (see [`crate::power`]): with its *load* `x = u d(s)`, mean power is linear in
//! `x` whatever the speed. In the steady state of the thermal network, and for every power limit,
//!
//! ```text
//! temperature of i:  sum over j in its chassis of R_ij (idle_j + span_j x_j) <= limit_i - margin - air
//! power of a scope:  sum over its devices of        (idle_j + span_j x_j) <= most
//! R_ij = resistance of the chassis, and for j = i also of i's die and sink
//! ```
//!
//! A plan keeps these at the loads that its promise brings: for throughput those of the rate that it is worth, for a
//! time per token those of one request after another; for throughput with a [`reserve`] for runs that are faster than
//! that, since batches wait less. Power caps slow it where it would be faster still.
//!
//! These are the [`Row`]s of an [`Envelope`]. A fan cools a device better the hotter it is; since the heat that leaves
//! a device rises with its temperature, a device is below its limit exactly where it would be with the conductance that
//! its fan has at the limit, so the rows stay linear and exact. Air is taken at its hottest.
//!
//! A governor of several steps leaves a device several speeds, each up to another temperature; a device may be planned
//! for any of them but the last, which knows no limit.

mod governed;

pub use governed::{Throttled, throttled};

use crate::conditions::Conditions;
use crate::device::Device;
use crate::ids::DeviceId;
use crate::objective::{evaluate, unhindered, utilisation};
use crate::plan::{DeviceState, Plan, Sustained};
use crate::power::Draw;
use crate::problem::{Objective, PlacementProblem, PowerScope};
use crate::thermal::ThermalRecord;
use crate::thermal::governor::Chassis;
use crate::units::{Celsius, TokensPerSecond, Watts};
use std::fmt;

/// Kelvin that a plan stays below the temperature at which a device slows itself: sensors read whole degrees.
pub const MARGIN_KELVIN: f64 = 1.0;
/// Relative slack of a row, for rounding.
pub const ROW_SLACK: f64 = 1e-9;

/// What is limited.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A device's temperature, by its name.
    Temperature(String),
    /// The power of a scope.
    Power(PowerScope),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Temperature(device) => write!(f, "the temperature of {device}"),
            Self::Power(scope) => write!(f, "the power of {scope}"),
        }
    }
}

/// One limit, linear in the loads of devices.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What it limits.
    pub subject: Subject,
    /// Kelvin, or watts, that a device adds at full load; above zero.
    pub terms: Vec<(DeviceId, f64)>,
    /// Kelvin, or watts, that are left when all are idle; not above zero where nothing is.
    pub most: f64,
}

impl Row {
    /// Kelvin, or watts, above idle at these loads, by position of device.
    #[must_use]
    pub fn used(&self, loads: &[f64]) -> f64 {
        self.terms.iter().map(|(device, each)| each * loads.get(device.index()).copied().unwrap_or(0.0)).sum()
    }

    /// Whether these loads keep it.
    #[must_use]
    pub fn holds(&self, loads: &[f64]) -> bool {
        let used = self.used(loads);
        used == 0.0 || used <= self.most * (1.0 + ROW_SLACK)
    }
}

/// All that heat and power allow in the long run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Envelope {
    /// The limits.
    pub rows: Vec<Row>,
    /// Per device: greatest share of full speed that its governor allows at the temperature it is planned for.
    pub ceilings: Vec<f64>,
    /// Per device: the temperature it is planned for, where it has one.
    pub limits: Vec<Option<Celsius>>,
    /// Per device: what it draws at each speed, where that is known.
    pub draws: Vec<Option<Draw>>,
}

impl Envelope {
    /// That of a problem: of the devices whose powers are known, and their thermal parameters and the temperature at
    /// which they slow themselves, or a power limit.
    #[must_use]
    pub fn of(problem: &PlacementProblem) -> Self {
        let count = problem.graph.devices().len();
        let draws = problem.graph.device_ids().map(|id| problem.draw(id)).collect();
        let mut envelope = Self { rows: Vec::new(), ceilings: vec![1.0; count], limits: vec![None; count], draws };
        let idle = |id: DeviceId| problem.graph.device(id).idle_watts.as_ref().map_or(0.0, |idle| idle.value.value());
        let span = |id: DeviceId| problem.power_span(id).map(|(_, span)| span.value());
        let air = hottest_air(problem).value();
        for id in problem.graph.device_ids() {
            let device = problem.graph.device(id);
            let (Some(record), Some(own)) = (&device.thermal, span(id)) else { continue };
            let mates = mates(problem, &device.name);
            let shared = mates.as_ref().map_or(0.0, |(chassis, _)| chassis.resistance_kelvin_per_watt.value());
            let around: f64 = mates.iter().flat_map(|(_, ids)| ids).map(|&mate| shared * idle(mate)).sum();
            let mut best: Option<(f64, f64, f64, f64, f64)> = None;
            // A device that works a part of the time only is at full speed below the first of them.
            let usable = if problem.objective.serves() { usize::MAX } else { 1 };
            for (limit, ceiling) in levels(device).into_iter().take(usable) {
                let resistance = resistance_at(record, limit);
                let most = limit - air - around - resistance * idle(id);
                let each = (resistance + shared) * own;
                let load = most / each;
                let alone = if load > 0.0 { envelope.work(id, load).min(ceiling) } else { load };
                if best.is_none_or(|(known, ..)| alone > known) {
                    best = Some((alone, limit, ceiling, each, most));
                }
            }
            let Some((_, limit, ceiling, each, most)) = best else { continue };
            let others = mates.iter().flat_map(|(_, ids)| ids).filter(|&&mate| mate != id);
            let warmed = others.filter_map(|&mate| Some((mate, shared * span(mate)?))).filter(|(_, each)| *each > 0.0);
            let terms = std::iter::once((id, each)).chain(warmed).collect();
            envelope.rows.push(Row { subject: Subject::Temperature(device.name.clone()), terms, most });
            envelope.ceilings[id.index()] = ceiling;
            envelope.limits[id.index()] = Some(Celsius::of(limit));
        }
        for limit in &problem.limits.power {
            let covered: Vec<DeviceId> =
                problem.graph.device_ids().filter(|&id| limit.scope.covers(problem.graph.device(id))).collect();
            let most = limit.most_watts.value() - covered.iter().map(|&id| idle(id)).sum::<f64>();
            let terms = covered.iter().filter_map(|&id| Some((id, span(id)?))).collect();
            envelope.rows.push(Row { subject: Subject::Power(limit.scope.clone()), terms, most });
        }
        envelope
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether every device may work all the time at full speed, whatever the others do.
    #[must_use]
    pub fn is_slack(&self) -> bool {
        let full = vec![1.0; self.ceilings.len()];
        self.ceilings.iter().all(|&ceiling| ceiling >= 1.0) && self.rows.iter().all(|row| row.holds(&full))
    }

    /// The greatest work of a device at a load, whatever its speed: its share of the time, times that speed.
    #[must_use]
    pub fn work(&self, device: DeviceId, load: f64) -> f64 {
        let work = self.draws[device.index()].as_ref().map_or(load, |draw| draw.work(load));
        work.min(self.ceilings[device.index()])
    }

    /// Per device: its greatest load while all others are idle. No plan loads a device more.
    #[must_use]
    pub fn alone(&self) -> Vec<f64> {
        let mut most = self.ceilings.clone();
        for (ceiling, draw) in most.iter_mut().zip(&self.draws) {
            *ceiling = draw.as_ref().map_or(*ceiling, |draw| draw.share(*ceiling));
        }
        for row in &self.rows {
            for &(device, each) in &row.terms {
                let share = &mut most[device.index()];
                *share = share.min((row.most / each).max(0.0));
            }
        }
        most
    }
}

/// The warmest that the air around the devices gets.
#[must_use]
pub fn hottest_air(problem: &PlacementProblem) -> Celsius {
    let Conditions { air, .. } = &problem.conditions;
    // A first step at the beginning stands in the place of the ambient temperature.
    let replaced = air.first().is_some_and(|step| step.at_seconds.value() <= 0.0);
    let begin = (!replaced).then_some(problem.ambient);
    let all = begin.into_iter().chain(air.iter().map(|step| step.celsius));
    all.reduce(|a, b| if b > a { b } else { a }).unwrap_or(problem.ambient)
}

/// The chassis that a device stands in, and its devices of known heat.
fn mates<'p>(problem: &'p PlacementProblem, device: &str) -> Option<(&'p Chassis, Vec<DeviceId>)> {
    let chassis = problem.conditions.chassis.iter().find(|chassis| chassis.devices.iter().any(|d| d == device))?;
    let known = |id: &DeviceId| {
        let device = problem.graph.device(*id);
        device.thermal.is_some() && device.idle_watts.is_some()
    };
    let ids = chassis.devices.iter().filter_map(|name| problem.graph.find(name)).filter(known).collect();
    Some((chassis, ids))
}

/// The temperatures that a device may be planned for, in °C with the margin taken off, and the speed it has up to each.
fn levels(device: &Device) -> Vec<(f64, f64)> {
    if let Some(governor) = &device.governor {
        let step = |level: usize| Some((governor.down_at(level)?.value() - MARGIN_KELVIN, governor.speed(level)));
        return (0..governor.steps.len()).filter_map(step).collect();
    }
    let throttle = device.thermal.as_ref().and_then(|record| record.throttle_celsius.as_ref());
    throttle.map(|at| (at.value.value() - MARGIN_KELVIN, 1.0)).into_iter().collect()
}

/// Thermal resistance from where a device's temperature is read to the air around it, in K/W, its fan being as fast as
/// it is at this temperature.
fn resistance_at(record: &ThermalRecord, celsius: f64) -> f64 {
    let plain = 1.0 / record.resistance_kelvin_per_watt.value.value();
    let blown = record.fan.as_ref().map_or(0.0, |fan| {
        let start = fan.start_celsius.value.value();
        let full = fan.full_celsius.as_ref().map_or(f64::INFINITY, |full| full.value.value());
        fan.watts_per_kelvin_squared.value * (celsius.min(full) - start).max(0.0)
    });
    let die = record.die.as_ref().map_or(0.0, |die| die.resistance_kelvin_per_watt.value.value());
    1.0 / (plain + blown) + die
}

/// The steady temperature of a device at a mean power, in air of this temperature. With a fan it is where the heat that
/// is given off meets the heat that comes in; what is given off rises with the temperature, so bisection finds it.
#[must_use]
pub fn steady_celsius(record: &ThermalRecord, air: Celsius, power: Watts) -> Celsius {
    let (air, power) = (air.value(), power.value().max(0.0));
    let (mut low, mut high) = (air, air + power * resistance_at(record, f64::NEG_INFINITY));
    if record.fan.is_none() {
        return Celsius::of(high);
    }
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if air + power * resistance_at(record, middle) > middle { low = middle } else { high = middle }
    }
    Celsius::of(high)
}

/// The load of every device, by its position: the share of the time that it works, times what it draws then above idle
/// as a share of what full speed adds, while the plan runs at the rate that it is worth. None where the plan is
/// malformed or a time that it needs is unknown.
#[must_use]
pub fn loads(plan: &Plan, problem: &PlacementProblem) -> Option<Vec<f64>> {
    summed(plan, problem, |id, utilisation, speed| utilisation * drawn(problem, id, speed))
}

/// The work of every device, by its position: share of the time that it works, times its speed. None as for [`loads`].
#[must_use]
pub fn works(plan: &Plan, problem: &PlacementProblem) -> Option<Vec<f64>> {
    summed(plan, problem, |_, utilisation, speed| utilisation * speed)
}

fn summed(plan: &Plan, problem: &PlacementProblem, of: impl Fn(DeviceId, f64, f64) -> f64) -> Option<Vec<f64>> {
    let mut sums = vec![0.0; problem.graph.devices().len()];
    for (device, busy) in busy(plan, problem)? {
        let id = problem.graph.find(&device)?;
        sums[id.index()] += of(id, busy.0, busy.1);
    }
    Some(sums)
}

/// The share of what full speed adds to idle power that a device draws while busy at a speed.
fn drawn(problem: &PlacementProblem, id: DeviceId, speed: f64) -> f64 {
    problem.draw(id).map_or(speed, |draw| draw.share(speed))
}

/// Per device that holds a stage: share of the time that it works, and its speed.
fn busy(plan: &Plan, problem: &PlacementProblem) -> Option<Vec<(String, (f64, f64))>> {
    let shares = utilisation(plan, problem)?;
    let capped = problem.capped(plan);
    let mut all = Vec::new();
    for (stage, share) in plan.stages.iter().zip(shares) {
        let slowest = stage.devices.iter().filter_map(|name| Some(capped.speed(problem.graph.find(name)?)));
        let speed = slowest.fold(1.0, f64::min);
        all.extend(stage.devices.iter().map(|name| (name.clone(), (share, speed))));
    }
    Some(all)
}

/// What a plan asks of its devices in the long run: speed, share of the time at work, mean power and the temperature
/// that it leads to. None as for [`loads`].
#[must_use]
pub fn state(plan: &Plan, problem: &PlacementProblem) -> Option<Sustained> {
    let loads = loads(plan, problem)?;
    let envelope = Envelope::of(problem);
    let air = hottest_air(problem);
    let mean = |id: DeviceId| {
        let idle = problem.graph.device(id).idle_watts.as_ref()?.value;
        let span = problem.power_span(id).map_or(Watts::ZERO, |(_, span)| span);
        Some(idle + span * loads[id.index()])
    };
    let device = |(name, (utilisation, speed)): (String, (f64, f64))| {
        let id = problem.graph.find(&name)?;
        let watts = problem.power_span(id).and_then(|_| mean(id));
        let celsius = watts.zip(problem.graph.device(id).thermal.as_ref()).map(|(watts, record)| {
            let warmth: f64 = mates(problem, &name).map_or(0.0, |(chassis, ids)| {
                let heat: f64 = ids.iter().filter_map(|&mate| mean(mate)).map(Watts::value).sum();
                chassis.resistance_kelvin_per_watt.value() * heat
            });
            steady_celsius(record, Celsius::of(air.value() + warmth), watts)
        });
        let limit_celsius = envelope.limits[id.index()].map(|limit| Celsius::of(limit.value() + MARGIN_KELVIN));
        Some(DeviceState { device: name, speed, utilisation, watts, celsius, limit_celsius })
    };
    let devices = busy(plan, problem)?.into_iter().map(device).collect::<Option<Vec<_>>>()?;
    Some(Sustained { air_celsius: air, devices })
}

/// The load of every device, by its position, for which heat and power have to leave room: at throughput the load of a
/// run that is faster than the plan is worth by its [`reserve`], as far as power caps let it be; else as in [`loads`].
/// None as there.
#[must_use]
pub fn burden(plan: &Plan, problem: &PlacementProblem) -> Option<Vec<f64>> {
    let mut burden = loads(plan, problem)?;
    if problem.objective.serves() {
        let (capped, reserve) = (problem.capped(plan), reserve(plan, problem)?);
        for id in problem.graph.device_ids() {
            let load = &mut burden[id.index()];
            *load = (*load * reserve).min(drawn(problem, id, capped.speed(id))).max(*load);
        }
    }
    Some(burden)
}

/// The least burden of the same work: each device at the speed at which its work takes least power. What exceeds a
/// limit then exceeds it at any speed. None as for [`loads`].
#[must_use]
pub fn least_burden(plan: &Plan, problem: &PlacementProblem) -> Option<Vec<f64>> {
    let mut works = works(plan, problem)?;
    if problem.objective.serves() {
        let (capped, reserve) = (problem.capped(plan), reserve(plan, problem)?);
        for id in problem.graph.device_ids() {
            let work = &mut works[id.index()];
            *work = (*work * reserve).min(capped.speed(id)).max(*work);
        }
    }
    let least = |id: DeviceId| problem.draw(id).map_or(works[id.index()], |draw| draw.least(works[id.index()]));
    Some(problem.graph.device_ids().map(least).collect())
}

/// How much faster than it is worth a plan for throughput may run, as a factor of 1 or more: as fast as if no batch
/// ever waited for another. Where a stage or a way holds it back, that is no faster. None as for [`loads`].
#[must_use]
pub fn reserve(plan: &Plan, problem: &PlacementProblem) -> Option<f64> {
    let mut serving = problem.at_duties(|_| Some(1.0));
    serving.objective = Objective::Throughput;
    let rate = |found: Option<TokensPerSecond>| found.map(TokensPerSecond::value).filter(|rate| *rate > 0.0);
    let (least, most) = (rate(evaluate(plan, &serving).throughput)?, rate(unhindered(plan, &serving))?);
    Some((most / least).max(1.0))
}

/// The limits that a plan exceeds in the long run, each with what the plan takes of it; none where it is malformed.
#[must_use]
pub fn exceeded(plan: &Plan, problem: &PlacementProblem) -> Option<Vec<(Row, f64)>> {
    Some(exceeded_at(&burden(plan, problem)?, problem))
}

/// The limits that these loads exceed, each with what they take of it.
#[must_use]
pub fn exceeded_at(loads: &[f64], problem: &PlacementProblem) -> Vec<(Row, f64)> {
    let used = |row: Row| {
        let used = row.used(loads);
        (!row.holds(loads)).then_some((row, used))
    };
    Envelope::of(problem).rows.into_iter().filter_map(used).collect()
}

/// The limits that a plan is at, within a share of `near`, tightest first.
#[must_use]
pub fn binding(plan: &Plan, problem: &PlacementProblem, near: f64) -> Vec<Subject> {
    let Some(loads) = burden(plan, problem) else { return Vec::new() };
    let mut tight: Vec<(f64, Subject)> = Envelope::of(problem)
        .rows
        .into_iter()
        .filter(|row| row.most > 0.0 && row.used(&loads) >= row.most * (1.0 - near))
        .map(|row| (row.used(&loads) / row.most, row.subject))
        .collect();
    tight.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    tight.into_iter().map(|(_, subject)| subject).collect()
}

impl PlacementProblem {
    /// The problem whose plans no plan within heat and power beats: for throughput, every device works as much as it
    /// bears while all others are idle. For a time per token it is this problem, less the devices that bear nothing.
    #[must_use]
    pub fn sustained(&self) -> Self {
        let envelope = Envelope::of(self);
        let most = envelope.alone();
        self.at_duties(|id| match (self.objective, envelope.work(id, most.get(id.index()).copied()?)) {
            (objective, share) if objective.serves() => Some(share.min(self.duty(id))),
            (_, share) => (share <= 0.0).then_some(0.0),
        })
    }
}

#[cfg(test)]
mod tests;
