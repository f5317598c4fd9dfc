//! The governor: keeps a running device within its temperature by acting before a limit is reached.
//!
//! A device's temperature is predicted some seconds ahead with the thermal node that planner and simulator use. A node
//! that was measured wrong, or dust in a fan, would make every prediction wrong by the same heat, so an observer
//! (Luenberger, with one state for the temperature and one for a heat that nobody accounts for) learns that heat from
//! the difference between prediction and sensor. What is left over is the greatest power with which the device stays
//! below its limit over the horizon, and the governor asks for the cheapest thing that keeps it there.
//!
//! No clock and no device is touched here: readings come in, actions go out, each with the forecast that caused it.

use isotherm_core::power::Draw;
use isotherm_core::thermal::{ThermalNode, ThermalState};
use isotherm_core::units::{Celsius, Kelvin, Seconds, Watts};
use serde::Serialize;

mod keeper;
mod observer;

pub use keeper::{Acted, Keeper, Pace, Paced, Unguarded};

use observer::Observer;

/// A temperature that must not be passed, and what the governor knows of the way there.
#[derive(Clone, Debug, PartialEq)]
pub struct Guarded {
    /// What is guarded, such as `gpu0 die` or `phone skin`.
    pub name: String,
    /// The temperature that must not be passed.
    pub limit: Celsius,
    /// How it warms, as it was identified.
    pub node: ThermalNode,
    /// What it draws at each speed.
    pub draw: Draw,
}

/// What can be done about a device's power, besides pausing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Means {
    /// Least and greatest power limit, where this program may set one.
    pub caps: Option<(Watts, Watts)>,
    /// Whether a smaller batch makes for less power.
    pub batch: bool,
    /// Whether another route can take micro-batches.
    pub shift: bool,
}

/// How the governor is set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Time between two readings.
    pub period: Seconds,
    /// How far ahead it looks.
    pub horizon: Seconds,
    /// How far below the limit it aims, with a sensor.
    pub margin: Kelvin,
    /// The same without a sensor, where only the model says how warm it is.
    pub margin_blind: Kelvin,
    /// Share by which the allowed power has to change before the device is told, so that noise moves nothing.
    pub hysteresis: f64,
    /// Least share of the work that is still worth doing; below it the device pauses.
    pub share_min: f64,
    /// Readings that may be missing in a row before the sensor counts as lost.
    pub missing_max: u32,
    /// Share of the demand that a device has to bear in the long run; below it the plan is in question.
    pub sustained_min: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            period: Seconds::of(1.0),
            horizon: Seconds::of(10.0),
            margin: Kelvin::of(1.0),
            margin_blind: Kelvin::of(6.0),
            hysteresis: 0.02,
            share_min: 0.1,
            missing_max: 3,
            sustained_min: 0.5,
        }
    }
}

/// What was read in one period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// The temperature; absent where the sensor said nothing.
    pub temperature: Option<Celsius>,
    /// The mean power over the period; absent where nothing measures it.
    pub power: Option<Watts>,
    /// Temperature of the air, where it is measured.
    pub air: Option<Celsius>,
    /// Share of full work that the device did in the period, for where nothing measures its power.
    pub work: f64,
    /// Share of full work that is asked of it from now on.
    pub demand: f64,
    /// Charge of the battery that it runs on; absent on the mains.
    pub charge: Option<f64>,
}

/// What the governor expects.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The temperature now: of the observer, which the sensor corrects.
    pub now: Celsius,
    /// The temperature at the horizon if nothing were done.
    pub unacted: Celsius,
    /// Time until the limit would be reached if nothing were done; absent where it would not be.
    pub reached_in: Option<Seconds>,
    /// The greatest power that keeps it below the limit over the horizon.
    pub allowed: Watts,
    /// The greatest power that it can bear for good.
    pub sustained: Watts,
    /// Heat that nobody accounts for, as the observer has learnt it.
    pub unaccounted: Watts,
    /// Whether a sensor stands behind it, or the model alone.
    pub measured: bool,
}

/// Something to be done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Act {
    /// Set the power limit.
    Cap {
        /// To this.
        watts: Watts,
    },
    /// Do this share of full work: a smaller batch, or pauses between steps.
    Batch {
        /// Above 0 and at most 1.
        share: f64,
    },
    /// Give this share of the micro-batches to another route.
    Shift {
        /// Above 0 and at most 1.
        share: f64,
    },
    /// Do nothing for a time: then the device is cool enough to work at its least share for a horizon.
    Pause {
        /// So long.
        seconds: Seconds,
    },
    /// Go on as before all this.
    Resume,
    /// Plan again: the device does not bear in the long run what the plan asks of it.
    Replan {
        /// The share of the demand that it bears.
        bears: f64,
    },
    /// The sensor is lost: from now on the model alone says how warm it is, with more distance to the limit.
    SensorLost,
    /// The sensor is back.
    SensorFound,
    /// The battery is low; only this share of full work is done.
    BatteryLow {
        /// Above 0 and at most 1.
        share: f64,
    },
}

/// An action and the forecast that caused it, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Action {
    /// Periods since the governor began.
    pub period: u64,
    /// What is to be done.
    pub act: Act,
    /// Why.
    pub forecast: Forecast,
}

/// Charge below which a device on its battery does [`BATTERY_SHARE`] of the work; and where it stops.
const BATTERY_LOW: f64 = 0.2;
const BATTERY_STOP: f64 = 0.08;
const BATTERY_SHARE: f64 = 0.5;
/// Periods over which a plan has to be out of reach before it is questioned, and is questioned again.
const REPLAN_PERIODS: u64 = 60;
/// Share of the range between idle and full work by which the power may rise in a period. Of drawn cards of three
/// nodes, each known as one with a resistance up to 30 % off, the hottest passes its limit by 4.8 K without a bound to
/// it (of 300), by 0.6 K at 0.03 (of 800), by 0.2 K at 0.02 (of 300), and by less than 0.1 K at 0.01 (of 600).
const RISE: f64 = 0.01;

/// The governor of one guarded temperature.
#[derive(Clone, Debug)]
pub struct Governor {
    guarded: Guarded,
    means: Means,
    settings: Settings,
    observer: Observer,
    /// Power that was last allowed; absent while nothing is held back.
    allowed: Option<Watts>,
    /// The most that forecasts have allowed lately: falls with them at once, rises by [`RISE`] a period.
    bound: Watts,
    /// Periods that a pause still lasts.
    pause: u64,
    missing: u32,
    lost: bool,
    battery: bool,
    short: u64,
    period: u64,
}

impl Governor {
    /// A governor of a device that is at `temperature` now; absent where nobody knows, and then it may be at its limit.
    #[must_use]
    pub fn new(guarded: Guarded, means: Means, settings: Settings, temperature: Option<Celsius>) -> Self {
        // Without a reading the device may have worked until a moment ago.
        let state = ThermalState::new(guarded.node, temperature.unwrap_or(guarded.limit));
        Self {
            observer: Observer::new(state, settings.period),
            guarded,
            means,
            settings,
            allowed: None,
            bound: Watts::of(f64::MAX),
            pause: 0,
            missing: 0,
            lost: temperature.is_none(),
            battery: false,
            short: 0,
            period: 0,
        }
    }

    /// Whether the model alone says how warm it is.
    #[must_use]
    pub const fn is_blind(&self) -> bool {
        self.lost
    }

    /// The share of full work that may be done now.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.pause > 0 {
            return 0.0;
        }
        let cap = if self.battery { BATTERY_SHARE } else { 1.0 };
        self.allowed.map_or(cap, |allowed| self.share_of(allowed).min(cap))
    }

    /// The power that may be drawn now.
    #[must_use]
    pub fn power(&self) -> Watts {
        let draw = &self.guarded.draw;
        match (self.pause > 0, self.means.caps) {
            (true, _) => draw.idle(),
            (false, Some((least, _))) if self.allowed.is_none_or(|allowed| allowed >= least) => {
                draw.power(self.share())
            }
            (false, _) => self.power_of(self.share()),
        }
    }

    /// The share of full work that is done with this power: at the operating point that a power limit leaves where one
    /// may be set; else by pauses, which save in proportion.
    fn share_of(&self, power: Watts) -> f64 {
        let draw = &self.guarded.draw;
        let range = draw.span().value();
        match self.means.caps {
            _ if range <= 0.0 => 1.0,
            Some((least, _)) if power >= least => draw.speed_under(power),
            _ => ((power - draw.idle()).value() / range).clamp(0.0, 1.0),
        }
    }

    /// Mean power while a share of full work is done at full speed.
    fn power_of(&self, share: f64) -> Watts {
        self.guarded.draw.idle() + self.guarded.draw.span() * share
    }

    /// Takes what was read in a period, and gives what is to be done for the next.
    pub fn step(&mut self, reading: &Reading) -> Vec<Action> {
        self.period += 1;
        let mut acts = Vec::new();
        self.observe(reading, &mut acts);
        let forecast = self.forecast(reading);
        self.watch_battery(reading, &mut acts);
        self.ease(forecast.allowed);
        self.hold(&forecast, reading, &mut acts);
        self.question(&forecast, reading, &mut acts);
        acts.into_iter().map(|act| Action { period: self.period, act, forecast }).collect()
    }

    fn observe(&mut self, reading: &Reading, acts: &mut Vec<Act>) {
        if let Some(air) = reading.air {
            self.observer.set_air(air);
        }
        let power = reading.power.unwrap_or_else(|| self.power_of(reading.work.clamp(0.0, 1.0)));
        self.observer.step(power, reading.temperature);
        if reading.temperature.is_some() {
            self.missing = 0;
            if std::mem::take(&mut self.lost) {
                acts.push(Act::SensorFound);
            }
        } else {
            self.missing = self.missing.saturating_add(1);
            if !self.lost && self.missing > self.settings.missing_max {
                self.lost = true;
                acts.push(Act::SensorLost);
            }
        }
    }

    /// The temperature that is aimed at.
    fn target(&self) -> Celsius {
        let margin = if self.lost { self.settings.margin_blind } else { self.settings.margin + self.observer.jump() };
        self.guarded.limit - margin
    }

    /// What it expects if the demand of a reading goes on: what stands behind every action.
    #[must_use]
    pub fn forecast(&self, reading: &Reading) -> Forecast {
        let (state, extra) = (self.observer.state(), self.observer.unaccounted());
        let demanded = self.power_of(reading.demand.clamp(0.0, 1.0)) + extra;
        let mut unacted = state;
        unacted.advance(self.settings.horizon, demanded);
        let sustained = state.node().sustained(self.target()) - extra;
        // From `T` the node is at `target` after the horizon for `steady = T + (target - T) / covered`.
        let covered = -(-(self.settings.horizon / state.node().time_constant())).exp_m1();
        let steady = state.temperature() + (self.target() - state.temperature()) * (1.0 / covered);
        Forecast {
            now: state.temperature(),
            unacted: unacted.temperature(),
            reached_in: state.crossing(self.guarded.limit, demanded),
            allowed: state.node().sustained(steady) - extra,
            sustained,
            unaccounted: extra,
            measured: !self.lost,
        }
    }

    fn watch_battery(&mut self, reading: &Reading, acts: &mut Vec<Act>) {
        let low = reading.charge.is_some_and(|charge| charge < BATTERY_LOW + if self.battery { 0.05 } else { 0.0 });
        if low != self.battery {
            self.battery = low;
            acts.push(if low { Act::BatteryLow { share: BATTERY_SHARE } } else { Act::Resume });
        }
        if reading.charge.is_some_and(|charge| charge < BATTERY_STOP) && self.pause == 0 {
            self.pause_for(self.settings.horizon, acts);
        }
    }

    fn pause_for(&mut self, seconds: Seconds, acts: &mut Vec<Act>) {
        self.pause = (seconds / self.settings.period).ceil().clamp(1.0, 1e6) as u64;
        acts.push(Act::Pause { seconds: self.settings.period * self.pause as f64 });
    }

    /// Lets the power rise no faster than the model can be corrected.
    ///
    /// What the model takes for one node has a die that follows the power within seconds. Its jump looks like heat that
    /// nobody accounts for, which goes when the power does: without a limit to its rise the power would come and go
    /// with it.
    fn ease(&mut self, allowed: Watts) {
        let range = self.guarded.draw.span();
        let free = self.guarded.draw.busy() + range * (2.0 * self.settings.hysteresis);
        // A forecast far above the limit asks for less than nothing; what is made up for later is no more than
        // idleness.
        self.bound = allowed.max(self.guarded.draw.idle()).min(self.bound.min(free) + range * RISE);
    }

    /// The cheapest thing that keeps the power within what is allowed.
    fn hold(&mut self, forecast: &Forecast, reading: &Reading, acts: &mut Vec<Act>) {
        if self.pause > 0 {
            self.pause -= 1;
            if self.pause > 0 {
                return;
            }
        }
        let demanded = self.power_of(reading.demand.clamp(0.0, 1.0));
        let range = self.guarded.draw.span().value().max(1e-9);
        let floor = self.power_of(self.settings.share_min);
        let allowed = self.bound.min(demanded);
        match self.allowed {
            None if self.bound >= demanded => return,
            // Held back until there is room for what is asked and for the noise as well.
            Some(_) if (self.bound - demanded).value() > self.settings.hysteresis * range => {
                self.allowed = None;
                acts.push(Act::Resume);
                return;
            }
            _ => {}
        }
        if allowed < floor {
            // So long until the least share of work can be done for a horizon.
            let steady_floor = self.observer.state().node().steady(floor + forecast.unaccounted);
            let covered = -(-(self.settings.horizon / self.observer.state().node().time_constant())).exp_m1();
            let share = covered.clamp(1e-6, 1.0 - 1e-6);
            // `T (1 - covered) + steady covered = target`
            let cool = Celsius::of((self.target().value() - steady_floor.value() * share) / (1.0 - share));
            let wait = self.observer.state().crossing(cool, self.guarded.draw.idle() + forecast.unaccounted);
            self.allowed = Some(floor);
            self.pause_for(wait.unwrap_or(self.settings.horizon).max(self.settings.period), acts);
            return;
        }
        let told = self.allowed.unwrap_or(demanded);
        let change = (allowed - told).value() / range;
        // What gets hotter is told at once; what gets cooler only when it is worth it.
        if self.allowed.is_some() && change > -self.settings.hysteresis * 0.25 && change < self.settings.hysteresis {
            return;
        }
        self.allowed = Some(allowed);
        let share = self.share_of(allowed);
        acts.push(match self.means {
            Means { caps: Some((least, most)), .. } if allowed >= least => Act::Cap { watts: allowed.min(most) },
            Means { batch: true, .. } => Act::Batch { share },
            Means { shift: true, .. } => Act::Shift { share: 1.0 - share },
            _ => Act::Batch { share },
        });
    }

    /// Whether the plan asks for more than the device bears in the long run.
    fn question(&mut self, forecast: &Forecast, reading: &Reading, acts: &mut Vec<Act>) {
        let demand = reading.demand.clamp(0.0, 1.0);
        let bears = self.share_of(forecast.sustained);
        if demand > 0.0 && bears < self.settings.sustained_min * demand {
            self.short += 1;
            if self.short.is_multiple_of(REPLAN_PERIODS) {
                acts.push(Act::Replan { bears: bears / demand });
            }
        } else {
            self.short = 0;
        }
    }
}
