//! What slows a device when it is hot, what air and case it shares with others, and what it runs on.

use super::{ThermalRecord, Throttle};
use crate::figure::Figure;
use crate::units::{Celsius, Joules, JoulesPerKelvin, KelvinPerWatt, Seconds, Watts};
use serde::{Deserialize, Serialize};

/// One step down: from `at_celsius` on the device runs at `speed`, until it is at `resume_celsius` again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Temperature at which it steps down.
    pub at_celsius: Celsius,
    /// Lower temperature at which it steps up again.
    pub resume_celsius: Celsius,
    /// Speed as a share of full speed, above 0 and at most 1.
    pub speed: f64,
    /// Power when busy at this point; absent where it follows from the speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watts: Option<Watts>,
}

/// How a device slows itself: steps, each hotter and slower than the one before. A throttle is one step; a table of
/// operating points (DVFS) is steps with powers; a proportional governor is many fine steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Governor {
    /// The steps, from the coolest.
    pub steps: Vec<Step>,
}

/// Steps as a file has them, before they are checked.
#[derive(Deserialize)]
struct Unchecked {
    steps: Vec<Step>,
}

impl TryFrom<Unchecked> for Governor {
    type Error = GovernorError;
    fn try_from(unchecked: Unchecked) -> Result<Self, GovernorError> {
        Self::new(unchecked.steps)
    }
}

/// Why a governor cannot be.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum GovernorError {
    /// No step.
    #[error("a governor has no step; give at least one")]
    NoStep,
    /// A step resumes at or above where it begins.
    #[error("step {step} begins at {at} and ends at {resume}; it must end below where it begins")]
    NoHysteresis {
        /// Position from 1.
        step: usize,
        /// Where it begins.
        at: Celsius,
        /// Where it ends.
        resume: Celsius,
    },
    /// A step is not hotter, or not slower, than the one before.
    #[error(
        "step {step} is not both hotter and slower than the one before, or it draws more; order the steps by temperature"
    )]
    Disorder {
        /// Position from 1.
        step: usize,
    },
    /// A speed that is none.
    #[error("step {step} has speed {speed}; a speed is above 0 and at most 1")]
    Speed {
        /// Position from 1.
        step: usize,
        /// The speed.
        speed: f64,
    },
    /// A power below nothing.
    #[error("step {step} draws {watts}; a power is zero or more")]
    Power {
        /// Position from 1.
        step: usize,
        /// The power.
        watts: Watts,
    },
}

impl Governor {
    /// Checks steps. Errors: see [`GovernorError`].
    pub fn new(steps: Vec<Step>) -> Result<Self, GovernorError> {
        if steps.is_empty() {
            return Err(GovernorError::NoStep);
        }
        for (i, now) in steps.iter().enumerate() {
            let (step, before) = (i + 1, i.checked_sub(1).map(|i| steps[i]));
            if now.resume_celsius >= now.at_celsius {
                let (at, resume) = (now.at_celsius, now.resume_celsius);
                return Err(GovernorError::NoHysteresis { step, at, resume });
            }
            if !(now.speed > 0.0 && now.speed <= 1.0) {
                return Err(GovernorError::Speed { step, speed: now.speed });
            }
            if let Some(watts) = now.watts.filter(|watts| *watts < Watts::ZERO) {
                return Err(GovernorError::Power { step, watts });
            }
            let disorder = before.is_some_and(|before| {
                let draws_more = now.watts.zip(before.watts).is_some_and(|(now, before)| now > before);
                now.at_celsius <= before.at_celsius
                    || now.resume_celsius <= before.resume_celsius
                    || now.speed >= before.speed
                    || draws_more
            });
            if disorder {
                return Err(GovernorError::Disorder { step });
            }
        }
        Ok(Self { steps })
    }

    /// A governor that takes speed away in proportion to the temperature over `target`, down to `floor` at `full`, in
    /// `count` equal steps that each end half a step cooler than they begin. Errors: see [`GovernorError`].
    pub fn proportional(target: Celsius, full: Celsius, floor: f64, count: u32) -> Result<Self, GovernorError> {
        let count = count.clamp(1, 1_000);
        let width = (full - target) * (1.0 / f64::from(count));
        let step = |i: u32| {
            let at_celsius = target + width * f64::from(i);
            let share = f64::from(i) / f64::from(count);
            let resume_celsius = at_celsius - width * 0.5;
            Step { at_celsius, resume_celsius, speed: 1.0 - share * (1.0 - floor), watts: None }
        };
        Self::new((1..=count).map(step).collect())
    }

    /// The throttle of a record as a governor; none unless it is known whole.
    #[must_use]
    pub fn of_throttle(record: &ThermalRecord) -> Option<Self> {
        let _ = Throttle::of(record)?;
        let at_celsius = record.throttle_celsius.as_ref()?.value;
        let resume_celsius = record.resume_celsius.as_ref()?.value;
        let speed = record.throttled_speed.as_ref()?.value;
        Some(Self { steps: vec![Step { at_celsius, resume_celsius, speed, watts: None }] })
    }

    /// Speed after so many steps down.
    #[must_use]
    pub fn speed(&self, level: usize) -> f64 {
        level.checked_sub(1).map_or(1.0, |i| self.steps[i].speed)
    }

    /// Power at that point, where it is stated.
    #[must_use]
    pub fn watts(&self, level: usize) -> Option<Watts> {
        level.checked_sub(1).and_then(|i| self.steps[i].watts)
    }

    /// Temperature at which it goes a step further down; none at the last.
    #[must_use]
    pub fn down_at(&self, level: usize) -> Option<Celsius> {
        self.steps.get(level).map(|step| step.at_celsius)
    }

    /// Temperature at which it goes a step up; none at full speed.
    #[must_use]
    pub fn up_at(&self, level: usize) -> Option<Celsius> {
        level.checked_sub(1).map(|i| self.steps[i].resume_celsius)
    }
}

/// A battery that a device runs on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Battery {
    /// Energy when full.
    pub capacity_joules: Figure<Joules>,
    /// Charge at the start as a share of the capacity.
    pub charge: f64,
    /// Share at which the device stops.
    pub cutoff: f64,
    /// Share below which it slows to `low_speed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Its speed then, as a share of full speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_speed: Option<f64>,
    /// Power that charges it all the time; absent where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charging_watts: Option<Watts>,
}

impl Battery {
    /// Why it cannot be; none where it can.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let share = |name: &str, value: f64| {
            (!(0.0..=1.0).contains(&value)).then(|| format!("{name} is {value}; it must be a share from 0 to 1"))
        };
        if self.capacity_joules.value <= Joules::ZERO {
            return Some(format!("capacity is {}; it must be above zero", self.capacity_joules.value));
        }
        let faults = share("charge", self.charge).or_else(|| share("cutoff", self.cutoff));
        if let Some(fault) = faults.or_else(|| self.low.and_then(|low| share("low", low))) {
            return Some(fault);
        }
        if self.charge <= self.cutoff {
            return Some(format!(
                "charge is {} and cutoff {}; it must begin above its cutoff",
                self.charge, self.cutoff
            ));
        }
        if self.low.is_some_and(|low| low <= self.cutoff) {
            return Some(format!("low is {:?} and cutoff {}; low must be above it", self.low, self.cutoff));
        }
        if self.low.is_some() != self.low_speed.is_some() {
            return Some("low and low_speed belong together; give both or neither".to_owned());
        }
        let speed = self.low_speed.filter(|speed| !(*speed > 0.0 && *speed <= 1.0));
        speed.map(|speed| format!("low_speed is {speed}; it must be above 0 and at most 1"))
    }
}

/// A case whose air several devices share: what one gives off warms the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chassis {
    /// Its name.
    pub name: String,
    /// The devices in it.
    pub devices: Vec<String>,
    /// Thermal resistance from its air to the room.
    pub resistance_kelvin_per_watt: KelvinPerWatt,
    /// Heat capacity of its air and walls.
    pub capacity_joules_per_kelvin: JoulesPerKelvin,
}

/// A change of the air's temperature.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AirStep {
    /// When, from the beginning of the run.
    pub at_seconds: Seconds,
    /// The temperature from then on.
    pub celsius: Celsius,
}

/// The air of a day as steps: a sine about `mean` with `swing` to either side, hottest at `hottest_at` of each day, from
/// `begins_at` on, for `days`, in steps of a quarter of an hour, each with the sine's value in its middle.
#[must_use]
pub fn day(mean: Celsius, swing: f64, hottest_at: Seconds, begins_at: Seconds, days: u32) -> Vec<AirStep> {
    const DAY: f64 = 86_400.0;
    const STEP: f64 = 900.0;
    let count = (DAY / STEP) as u32 * days.clamp(1, 366);
    let step = |i: u32| {
        let at = f64::from(i) * STEP;
        let phase = (begins_at.value() + at + STEP / 2.0 - hottest_at.value()) / DAY;
        let swung = swing * libm::cos(2.0 * std::f64::consts::PI * phase);
        AirStep { at_seconds: Seconds::of(at), celsius: Celsius::of(mean.value() + swung) }
    };
    (0..count).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(at: f64, resume: f64, speed: f64) -> Step {
        Step { at_celsius: Celsius::of(at), resume_celsius: Celsius::of(resume), speed, watts: None }
    }

    #[test]
    fn steps_are_in_order_and_have_hysteresis() {
        let governor = Governor::new(vec![step(80.0, 76.0, 0.8), step(86.0, 81.0, 0.5)]).expect("in order");
        assert_eq!((governor.speed(0), governor.speed(1), governor.speed(2)), (1.0, 0.8, 0.5));
        assert_eq!((governor.down_at(1), governor.up_at(1)), (Some(Celsius::of(86.0)), Some(Celsius::of(76.0))));
        assert_eq!((governor.down_at(2), governor.up_at(0)), (None, None));
        assert_eq!(Governor::new(vec![]), Err(GovernorError::NoStep));
        assert!(matches!(Governor::new(vec![step(80.0, 80.0, 0.8)]), Err(GovernorError::NoHysteresis { step: 1, .. })));
        let disorder = Governor::new(vec![step(80.0, 76.0, 0.8), step(86.0, 81.0, 0.9)]);
        assert_eq!(disorder, Err(GovernorError::Disorder { step: 2 }));
        assert!(matches!(Governor::new(vec![step(80.0, 76.0, 0.0)]), Err(GovernorError::Speed { step: 1, .. })));
    }

    #[test]
    fn a_proportional_governor_reaches_its_floor_at_its_full_temperature() {
        let governor = Governor::proportional(Celsius::of(70.0), Celsius::of(90.0), 0.4, 10).expect("valid");
        assert_eq!(governor.steps.len(), 10);
        assert!((governor.speed(5) - 0.7).abs() < 1e-12 && (governor.speed(10) - 0.4).abs() < 1e-12);
        assert_eq!(governor.steps[9].at_celsius, Celsius::of(90.0));
        assert!(Governor::proportional(Celsius::of(90.0), Celsius::of(70.0), 0.4, 10).is_err());
    }

    #[test]
    fn a_stored_governor_is_checked_like_a_written_one() {
        let governor = Governor::new(vec![step(80.0, 76.0, 0.8)]).expect("valid");
        let text = serde_json::to_string(&governor).expect("writes");
        assert_eq!(serde_json::from_str::<Governor>(&text).expect("reads"), governor);
        assert!(serde_json::from_str::<Governor>(&text.replace("76", "96")).is_err(), "{text}");
    }

    #[test]
    fn a_day_is_hottest_when_it_should_be() {
        let hours = |h: f64| Seconds::of(h * 3_600.0);
        let air = day(Celsius::of(25.0), 8.0, hours(15.0), hours(0.0), 1);
        let hottest = air.iter().max_by(|a, b| a.celsius.total_cmp(&b.celsius)).expect("steps");
        assert!(
            (hottest.at_seconds.value() / 3_600.0 - 15.0).abs() < 0.3 && (hottest.celsius.value() - 33.0).abs() < 0.1
        );
        let mean = air.iter().map(|step| step.celsius.value()).sum::<f64>() / air.len() as f64;
        assert!((mean - 25.0).abs() < 1e-9 && air.len() == 96);
    }

    #[test]
    fn a_battery_that_cannot_be_is_told_why() {
        let good = Battery {
            capacity_joules: Figure::declared(Joules::of(54_000.0), "test"),
            charge: 1.0,
            cutoff: 0.05,
            low: Some(0.2),
            low_speed: Some(0.5),
            charging_watts: None,
        };
        assert_eq!(good.fault(), None);
        for (bad, word) in [
            (Battery { charge: 0.05, ..good.clone() }, "cutoff"),
            (Battery { low: Some(0.01), ..good.clone() }, "low"),
            (Battery { low_speed: None, ..good.clone() }, "together"),
            (Battery { charge: 1.5, ..good.clone() }, "charge"),
        ] {
            assert!(bad.fault().expect("refused").contains(word), "{bad:?}");
        }
    }
}
