//! Devices that share the air of a case, and devices of several thermal nodes: one network, exact between events.
//!
//! Events are crossings, found in closed form and scheduled: a governor's next step down or up, the fan's next step, a
//! change of the air outside, a battery that runs low. Each is found for the powers of now; whatever changes a power
//! asks again. A fan's conductance goes in steps of one kelvin, each left a tenth of a kelvin beyond its ends, so that
//! it does not flutter.

use crate::body::{Pace, Samples, Toll};
use isotherm_core::power::Draw;
use isotherm_core::thermal::ThermalRecord;
use isotherm_core::thermal::crossing::Way;
use isotherm_core::thermal::governor::{AirStep, Battery, Chassis, Governor};
use isotherm_core::thermal::network::{Balance, Modes, Network};
use isotherm_core::trace::DeviceSample;
use isotherm_core::units::{Celsius, Joules, SimDuration, SimTime, Watts};

/// Kelvin of one step of a fan.
const FAN_STEP: f64 = 1.0;
/// Kelvin by which a step is left late.
const FAN_HYSTERESIS: f64 = 0.1;
/// Most steps of a fan.
const FAN_STEPS_MAX: u32 = 500;
/// A crossing that is scheduled to the nanosecond is met within this many kelvin.
const NEAR: f64 = 1e-7;
/// Share of a battery that must be there again before its device resumes, beyond where it stopped.
const RECHARGED: f64 = 0.05;

/// A device as it enters a pile.
#[derive(Debug, Clone)]
pub struct Item {
    /// What it draws at each speed.
    pub draw: Draw,
    /// Share of full speed that its power cap allows.
    pub cap: f64,
    /// How it warms; none where nobody knows.
    pub record: Option<ThermalRecord>,
    /// How it slows itself.
    pub governor: Option<Governor>,
    /// What it runs on.
    pub battery: Option<Battery>,
}

#[derive(Debug, Clone)]
struct Member {
    item: Item,
    /// The node with the sensor and the power, and the one that gives heat to the air; none without a record.
    nodes: Option<(usize, usize)>,
    fan_step: u32,
    level: usize,
    cell: Option<Cell>,
    working: bool,
    power: Watts,
    absorbed: Joules,
    hottest: f64,
    slowed: SimDuration,
    pace: Pace,
    samples: Option<Samples>,
}

/// A battery at one moment.
#[derive(Debug, Clone, Copy)]
struct Cell {
    joules: f64,
    low: bool,
    empty: bool,
}

/// Devices that warm one another, or one of several nodes.
#[derive(Debug, Clone)]
pub struct Pile {
    members: Vec<Member>,
    network: Network,
    modes: Modes,
    /// Temperatures of the nodes over the air outside.
    rises: Vec<f64>,
    powers: Vec<f64>,
    air: f64,
    schedule: Vec<AirStep>,
    /// Next of the schedule.
    next: usize,
    /// Node of the shared air; none where each device has the room to itself.
    case: Option<usize>,
    since: SimTime,
    balance: Balance,
}

impl Pile {
    /// Devices that have idled for a long time in air of this temperature.
    ///
    /// # Panics
    /// If a resistance or capacity is not above zero; a validated scenario holds none such.
    #[must_use]
    pub fn new(items: Vec<Item>, chassis: Option<&Chassis>, ambient: Celsius, schedule: Vec<AirStep>) -> Self {
        let mut network = Network::default();
        let node = |network: &mut Network, capacity: f64| {
            network.capacities.push(capacity);
            network.to_air.push(0.0);
            network.capacities.len() - 1
        };
        let case = chassis.map(|chassis| {
            let case = node(&mut network, chassis.capacity_joules_per_kelvin.value());
            network.to_air[case] = 1.0 / chassis.resistance_kelvin_per_watt.value();
            case
        });
        let mut members = Vec::with_capacity(items.len());
        for item in items {
            let nodes = item.record.as_ref().map(|record| {
                let sink = node(&mut network, record.capacity_joules_per_kelvin.value.value());
                let joined = |network: &mut Network, branch: &isotherm_core::thermal::Branch| {
                    let node = node(network, branch.capacity_joules_per_kelvin.value.value());
                    network.join(sink, node, 1.0 / branch.resistance_kelvin_per_watt.value.value());
                    node
                };
                let die = record.die.as_ref().map(|branch| joined(&mut network, branch));
                if let Some(branch) = &record.case {
                    joined(&mut network, branch);
                }
                (die.unwrap_or(sink), sink)
            });
            let cell = item.battery.as_ref().map(|battery| Cell {
                joules: battery.capacity_joules.value.value() * battery.charge,
                low: false,
                empty: false,
            });
            members.push(Member {
                power: item.draw.idle(),
                item,
                nodes,
                fan_step: 0,
                level: 0,
                cell,
                working: false,
                absorbed: Joules::ZERO,
                hottest: f64::NEG_INFINITY,
                slowed: SimDuration(0),
                pace: Pace::default(),
                samples: None,
            });
        }
        let mut pile = Self {
            rises: vec![0.0; network.capacities.len()],
            powers: vec![0.0; network.capacities.len()],
            modes: network.modes(),
            members,
            network,
            air: ambient.value(),
            schedule,
            next: 0,
            case,
            since: SimTime::ZERO,
            balance: Balance::default(),
        };
        pile.begin();
        pile
    }

    /// Lets it idle until nothing changes any more.
    fn begin(&mut self) {
        if self.schedule.first().is_some_and(|step| step.at_seconds.value() <= 0.0) {
            self.air = self.schedule[0].celsius.value();
            self.next = 1;
        }
        self.set_powers();
        loop {
            self.set_conductances();
            if let Some(steady) = self.modes.steady(&self.powers) {
                self.rises = steady;
            }
            // Fans only go up here: a faster fan cools, so this ends.
            let mut changed = false;
            for member in 0..self.members.len() {
                changed |= self.fan(member, true);
            }
            if !changed {
                break;
            }
        }
        for member in 0..self.members.len() {
            self.govern(member, SimTime::ZERO);
            self.feed(member);
        }
        self.set_powers();
        self.note_hottest();
    }

    /// The same devices, keeping their states over time.
    #[must_use]
    pub fn sampled(mut self) -> Self {
        for member in 0..self.members.len() {
            self.members[member].samples = Some(Samples::default());
            self.sample(member, self.since, true);
        }
        self
    }

    /// Clock of a member as a share of full speed: what heat, power cap and battery allow. Zero where it stands still.
    #[must_use]
    pub fn clock(&self, member: usize) -> f64 {
        let Member { item, level, .. } = &self.members[member];
        let governed = item.governor.as_ref().map_or(1.0, |governor| governor.speed(*level));
        governed.min(item.cap).min(self.fed(member))
    }

    /// Share of full speed that a member's battery allows.
    fn fed(&self, member: usize) -> f64 {
        let Member { item, cell, .. } = &self.members[member];
        match (cell, &item.battery) {
            (Some(cell), _) if cell.empty => 0.0,
            (Some(cell), Some(battery)) if cell.low => battery.low_speed.unwrap_or(1.0),
            _ => 1.0,
        }
    }

    /// Temperature of a member at the last event of the pile.
    #[must_use]
    pub fn temperature(&self, member: usize) -> Option<Celsius> {
        self.members[member].nodes.map(|(sensor, _)| Celsius::of(self.air + self.rises[sensor]))
    }

    /// Energy so far, of all members that have a thermal record together.
    #[must_use]
    pub const fn balance(&self) -> Balance {
        self.balance
    }

    /// Whether a member's battery is empty for good.
    #[must_use]
    pub fn is_spent(&self, member: usize) -> bool {
        let member = &self.members[member];
        let charging = member.item.battery.as_ref().and_then(|battery| battery.charging_watts);
        member.cell.is_some_and(|cell| cell.empty) && charging.is_none_or(|charging| charging <= member.power)
    }

    /// A member begins to work, or stops.
    pub fn work(&mut self, now: SimTime, member: usize, working: bool) {
        self.settle(now);
        self.members[member].working = working;
        self.set_powers();
        self.sample(member, now, false);
    }

    /// Keeps a sample of a member, if one is wanted, and changes nothing else: whether samples are kept decides
    /// nothing.
    pub fn observe(&mut self, now: SimTime, member: usize) {
        self.sample(member, now, false);
    }

    /// When something changes next by itself, rounded up to a nanosecond; none where nothing does.
    #[must_use]
    pub fn due(&self) -> Option<SimTime> {
        let mut after: Option<f64> = None;
        let mut earlier = |seconds: Option<f64>| {
            if let Some(seconds) = seconds {
                after = Some(after.map_or(seconds, |best: f64| best.min(seconds)));
            }
        };
        for (position, member) in self.members.iter().enumerate() {
            if let Some((sensor, _)) = member.nodes {
                let mut meets = |celsius: Option<f64>, way: Way| {
                    earlier(celsius.and_then(|celsius| {
                        self.modes.crossing(&self.rises, &self.powers, sensor, celsius - self.air, way)
                    }));
                };
                if let Some(governor) = &member.item.governor {
                    meets(governor.down_at(member.level).map(Celsius::value), Way::Up);
                    meets(governor.up_at(member.level).map(Celsius::value), Way::Down);
                }
                let (up, down) = self.fan_ends(position);
                meets(up, Way::Up);
                meets(down, Way::Down);
            }
            earlier(self.battery_after(position));
        }
        let crossing = after.map(|seconds| self.since + SimDuration(libm::ceil(seconds * 1e9) as u64));
        let outside = self
            .schedule
            .get(self.next)
            .map(|step| SimTime(libm::ceil(step.at_seconds.value() * 1e9) as u64).max(self.since));
        let due = match (crossing, outside) {
            (Some(crossing), Some(outside)) => Some(crossing.min(outside)),
            (crossing, outside) => crossing.or(outside),
        };
        due.filter(|&due| due < SimTime::NEVER)
    }

    /// What is due happens: governors and fans step, the air changes, batteries run low.
    pub fn change(&mut self, now: SimTime) {
        self.settle(now);
        while let Some(step) = self.schedule.get(self.next).filter(|step| step.at_seconds.value() * 1e9 <= now.0 as f64)
        {
            let warmer = step.celsius.value() - self.air;
            self.air = step.celsius.value();
            self.rises.iter_mut().for_each(|rise| *rise -= warmer);
            self.next += 1;
        }
        let (mut blown, mut stepped) = (false, Vec::new());
        for member in 0..self.members.len() {
            blown |= self.fan(member, false);
            if self.govern(member, now) | self.feed(member) {
                stepped.push(member);
            }
        }
        if blown {
            self.set_conductances();
        }
        self.set_powers();
        for member in stepped {
            self.sample(member, now, true);
        }
    }

    /// What a member used until now.
    #[must_use]
    pub fn toll(&mut self, now: SimTime, member: usize) -> Toll {
        self.settle(now);
        self.sample(member, now, true);
        let member = &mut self.members[member];
        let governed = member.nodes.is_some() && member.item.governor.is_some();
        Toll {
            absorbed: member.absorbed,
            // Heat mixes in the network: what left it is known of all together.
            dissipated: None,
            hottest: member.nodes.map(|_| Celsius::of(member.hottest)),
            slowed: governed.then_some(member.slowed),
            slowed_after: member.pace.first(),
            sustained: member.pace.sustained(),
            samples: member.samples.take().map(Samples::kept).unwrap_or_default(),
        }
    }

    fn settle(&mut self, now: SimTime) {
        let passed = now.since(self.since);
        self.since = now;
        let span = passed.seconds();
        let flow = self.modes.advance(&mut self.rises, &self.powers, span.value());
        self.balance.absorbed += flow.absorbed;
        self.balance.stored += flow.stored;
        self.balance.dissipated += flow.dissipated;
        for position in 0..self.members.len() {
            let clock = self.clock(position);
            let member = &mut self.members[position];
            member.absorbed += member.power * span;
            member.pace.pass(span.value(), member.working, clock);
            if member.level > 0 {
                member.slowed = SimDuration(member.slowed.0.saturating_add(passed.0));
            }
            if let (Some(cell), Some(battery)) = (&mut member.cell, &member.item.battery) {
                let net = battery.charging_watts.unwrap_or(Watts::ZERO) - member.power;
                let full = battery.capacity_joules.value.value();
                cell.joules = (cell.joules + net.value() * span.value()).clamp(0.0, full);
            }
        }
        self.note_hottest();
    }

    /// The hottest is noted at events; powers are constant between them, and a crossing is an event.
    fn note_hottest(&mut self) {
        for member in &mut self.members {
            if let Some((sensor, _)) = member.nodes {
                member.hottest = member.hottest.max(self.air + self.rises[sensor]);
            }
        }
    }

    fn set_powers(&mut self) {
        self.powers.fill(0.0);
        for position in 0..self.members.len() {
            let (clock, fed) = (self.clock(position), self.fed(position));
            let member = &mut self.members[position];
            let item = &member.item;
            let stated = item.governor.as_ref().and_then(|governor| governor.watts(member.level));
            let busy = item.draw.power(clock);
            let allowed = item.cap.min(fed);
            member.power = match (member.working && clock > 0.0, stated, &member.cell) {
                // An empty battery feeds nothing.
                (_, _, Some(cell)) if cell.empty => Watts::ZERO,
                // What is stated for an operating point holds there; a cap, or a battery that is low, allows less.
                (true, Some(stated), _) if allowed < 1.0 => stated.min(item.draw.power(allowed)),
                (true, Some(stated), _) => stated,
                (true, None, _) => busy,
                (false, ..) => item.draw.idle(),
            };
            if let Some((sensor, _)) = member.nodes {
                self.powers[sensor] = member.power.value();
            }
        }
    }

    /// Joins each sink to its air at the present step of its fan.
    fn set_conductances(&mut self) {
        let mut network = self.network.clone();
        for member in &self.members {
            let (Some((_, sink)), Some(record)) = (member.nodes, &member.item.record) else { continue };
            let slope = record.fan.as_ref().map_or(0.0, |fan| fan.watts_per_kelvin_squared.value);
            let conductance =
                1.0 / record.resistance_kelvin_per_watt.value.value() + slope * FAN_STEP * f64::from(member.fan_step);
            match self.case {
                Some(case) => network.join(sink, case, conductance),
                None => network.to_air[sink] += conductance,
            }
        }
        self.modes = network.modes();
    }

    /// Temperatures at which a member's fan goes a step up and down.
    fn fan_ends(&self, member: usize) -> (Option<f64>, Option<f64>) {
        let Member { item, fan_step, .. } = &self.members[member];
        let Some(fan) = item.record.as_ref().and_then(|record| record.fan.as_ref()) else { return (None, None) };
        let start = fan.start_celsius.value.value();
        let end = |steps: f64| start + steps * FAN_STEP;
        let most = fan.full_celsius.as_ref().map_or(f64::INFINITY, |full| full.value.value() - start) / FAN_STEP;
        let step = f64::from(*fan_step);
        let up = (step + 0.5 <= most && *fan_step < FAN_STEPS_MAX).then(|| end(step + 0.5) + FAN_HYSTERESIS);
        let down = (*fan_step > 0).then(|| end(step - 0.5) - FAN_HYSTERESIS);
        (up, down)
    }

    /// Steps a fan to where its temperature wants it. Whether it did.
    fn fan(&mut self, member: usize, only_up: bool) -> bool {
        let Some(celsius) = self.temperature(member).map(Celsius::value) else { return false };
        let before = self.members[member].fan_step;
        loop {
            match self.fan_ends(member) {
                (Some(up), _) if celsius >= up - NEAR => self.members[member].fan_step += 1,
                (_, Some(down)) if !only_up && celsius <= down + NEAR => self.members[member].fan_step -= 1,
                _ => return self.members[member].fan_step != before,
            }
        }
    }

    /// Steps a governor to where its temperature wants it. Whether it did.
    fn govern(&mut self, member: usize, now: SimTime) -> bool {
        let Some(celsius) = self.temperature(member).map(Celsius::value) else { return false };
        let member = &mut self.members[member];
        let Some(governor) = &member.item.governor else { return false };
        let before = member.level;
        while governor.down_at(member.level).is_some_and(|at| celsius >= at.value() - NEAR) {
            member.level += 1;
        }
        if member.level == before {
            while governor.up_at(member.level).is_some_and(|at| celsius <= at.value() + NEAR) {
                member.level -= 1;
            }
        }
        if member.level > before {
            member.pace.slow(now);
        }
        member.level != before
    }

    /// Seconds until a battery's next threshold at the present power.
    fn battery_after(&self, member: usize) -> Option<f64> {
        let Member { item, cell, power, .. } = &self.members[member];
        let (battery, cell) = (item.battery.as_ref()?, (*cell)?);
        let full = battery.capacity_joules.value.value();
        let net = (battery.charging_watts.unwrap_or(Watts::ZERO) - *power).value();
        let at = |share: f64| ((share * full - cell.joules) / net).max(0.0);
        if net < 0.0 {
            let low = battery.low.filter(|_| !cell.low && !cell.empty).map(at);
            return low.or_else(|| (!cell.empty).then(|| at(battery.cutoff)));
        }
        if net > 0.0 {
            let resume = (battery.cutoff + RECHARGED).min(1.0);
            let again = cell.empty.then(|| at(resume));
            let freed = battery.low.filter(|_| cell.low).map(|low| at((low + RECHARGED).min(1.0)));
            return match (again, freed) {
                (Some(again), Some(freed)) => Some(again.min(freed)),
                (again, freed) => again.or(freed),
            };
        }
        None
    }

    /// Notes that a battery is low, empty, or has recovered. Whether that changed.
    fn feed(&mut self, member: usize) -> bool {
        let member = &mut self.members[member];
        let (Some(battery), Some(cell)) = (&member.item.battery, &mut member.cell) else { return false };
        let share = cell.joules / battery.capacity_joules.value.value();
        let before = (cell.low, cell.empty);
        let near = 1e-9;
        if cell.empty {
            cell.empty = share < (battery.cutoff + RECHARGED).min(1.0) - near;
        } else {
            cell.empty = share <= battery.cutoff + near;
        }
        if let Some(low) = battery.low {
            let end = if cell.low { (low + RECHARGED).min(1.0) - near } else { low + near };
            cell.low = share <= end;
        }
        before != (cell.low, cell.empty)
    }

    fn sample(&mut self, member: usize, now: SimTime, must: bool) {
        let wanted = self.members[member].samples.as_ref().map(|samples| must || samples.wants(now));
        if wanted != Some(true) {
            return;
        }
        let span = now.since(self.since).seconds();
        let mut rises = self.rises.clone();
        self.modes.advance(&mut rises, &self.powers, span.value());
        let clock = self.clock(member);
        let member = &mut self.members[member];
        let charge = member.cell.as_ref().zip(member.item.battery.as_ref()).map(|(cell, battery)| {
            let net = battery.charging_watts.unwrap_or(Watts::ZERO) - member.power;
            let full = battery.capacity_joules.value.value();
            ((cell.joules + net.value() * span.value()) / full).clamp(0.0, 1.0)
        });
        let sample = DeviceSample {
            at_ns: now,
            temperature_celsius: member.nodes.map(|(sensor, _)| Celsius::of(self.air + rises[sensor])),
            speed: Some(clock),
            power_watts: Some(member.power),
            energy_joules: Some(member.absorbed + member.power * span),
            utilisation: None,
            charge,
            waiting: None,
            cache: None,
        };
        let busy = member.pace.busy_seconds() + if member.working { span.value() } else { 0.0 };
        if let Some(samples) = &mut member.samples {
            samples.add(sample, busy);
        }
    }
}

#[cfg(test)]
mod tests;
