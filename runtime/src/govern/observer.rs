//! What the temperature really is, and the heat that the model does not know of.

use isotherm_core::thermal::ThermalState;
use isotherm_core::units::{Celsius, Kelvin, Seconds, Watts};

/// Share of its errors that the observer keeps from one period to the next: both poles of it. Nearer to one is smoother and
/// slower; at a reading each second it learns within about ten.
const POLE: f64 = 0.8;
/// Most heat that is laid to the model's account, as a multiple of what crossed the node at the time.
const SHARE_MAX: f64 = 2.0;

/// Differences, in K, that every model of one node has and no jump is; the share of a jump that is expected a period later
/// still; and the most that is expected, in K.
const JUMP_MIN: f64 = 0.3;
const JUMP_KEPT: f64 = 0.997;
const JUMP_MAX: f64 = 1.5;

/// Steps in which sensors show temperatures, in K, the coarsest first.
const STEPS: [f64; 5] = [1.0, 0.5, 0.25, 0.125, 0.1];

/// Share of a difference that is believed although rounding explains it, and poles for readings that are rounded.
const WITHIN: f64 = 0.5;
const POLE_ROUNDED: f64 = 0.9;

/// The coarsest step that all readings so far are multiples of: most sensors show whole degrees and none says so.
#[derive(Clone, Copy, Debug, Default)]
struct Grid {
    /// The first of [`STEPS`] that no reading has ruled out.
    finest: usize,
}

impl Grid {
    fn see(&mut self, celsius: f64) {
        let on = |step: f64| ((celsius / step).round() * step - celsius).abs() < 1e-6;
        while STEPS.get(self.finest).is_some_and(|&step| !on(step)) {
            self.finest += 1;
        }
    }

    /// Half the step of the readings: as much as a reading may be off.
    fn half(self) -> f64 {
        STEPS.get(self.finest).map_or(0.0, |step| step / 2.0)
    }

    /// Both poles of an observer of such readings: slow within a step and a half of what was expected, and as quick as with
    /// an exact sensor beyond, where a device really warms faster than it was believed to.
    fn pole(self, difference: f64) -> f64 {
        if self.half() > 0.2 && difference.abs() <= 3.0 * self.half() { POLE_ROUNDED } else { POLE }
    }

    /// What a reading says of the temperature beyond what was expected of it: [`WITHIN`] of the difference while rounding
    /// explains it, and all that is over half a step.
    ///
    /// Half a step would otherwise come and go with every rounding, and the heat that is learnt from it would make the power
    /// swing for as long as the device is near the middle between two readings. With much less of it, the power drifts to and
    /// fro between the ends of a step.
    fn beyond(self, difference: f64) -> f64 {
        let within = difference.clamp(-self.half(), self.half());
        difference - within * (1.0 - WITHIN)
    }
}

/// A thermal node whose temperature and unknown heat are corrected by a sensor.
#[derive(Clone, Debug)]
pub(super) struct Observer {
    state: ThermalState,
    unaccounted: f64,
    period: Seconds,
    grid: Grid,
    /// By how much, in K, the device lately got warmer within a period than the model told, whatever rounding explains left
    /// out.
    jump: f64,
    /// Whether the period before had a reading.
    seen: bool,
}

impl Observer {
    pub(super) fn new(state: ThermalState, period: Seconds) -> Self {
        Self { state, unaccounted: 0.0, period, grid: Grid::default(), jump: 0.0, seen: false }
    }

    pub(super) const fn state(&self) -> ThermalState {
        self.state
    }

    /// How far a sudden rise of power may take the device beyond what the model tells of it.
    pub(super) fn jump(&self) -> Kelvin {
        Kelvin::of(self.jump)
    }

    pub(super) fn unaccounted(&self) -> Watts {
        Watts::of(self.unaccounted)
    }

    /// The air is measured: from now on the node is in air of that temperature.
    pub(super) fn set_air(&mut self, air: Celsius) {
        self.state = ThermalState::new(self.state.node().in_air(air), self.state.temperature());
    }

    /// A period at this power, and what the sensor says at its end.
    ///
    /// With `T+ = a T + b (P + d)`, `b = R (1 - a)`, gains `l1 = 1 + a - 2 p` and `l2 = (1 - p)^2 / b` put both poles of
    /// the error at `p` (pole placement, as in any text on state observers).
    pub(super) fn step(&mut self, power: Watts, sensor: Option<Celsius>) {
        let before = self.state;
        self.state.advance(self.period, power + Watts::of(self.unaccounted));
        let was_seen = std::mem::replace(&mut self.seen, sensor.is_some());
        let Some(sensor) = sensor else { return };
        let mut unit = ThermalState::new(*before.node(), before.temperature());
        unit.advance(self.period, power + Watts::of(self.unaccounted + 1.0));
        let b = (unit.temperature() - self.state.temperature()).value();
        let a = (-(self.period / before.node().time_constant())).exp();
        self.grid.see(sensor.value());
        let difference = (sensor - self.state.temperature()).value();
        // After readings were missing the difference is of more than a period.
        let jumped = if was_seen { difference - JUMP_MIN - 2.0 * self.grid.half() } else { 0.0 };
        self.jump = (self.jump * JUMP_KEPT).max(jumped).min(JUMP_MAX);
        let (error, pole) = (self.grid.beyond(difference), self.grid.pole(difference));
        let gain = (1.0 + a - 2.0 * pole).max(0.0);
        let corrected = self.state.temperature() + Kelvin::of(error * gain);
        self.state = ThermalState::new(*before.node(), corrected);
        if b > 0.0 {
            let most = SHARE_MAX * (power.value().abs() + 10.0);
            self.unaccounted = (self.unaccounted + error * (1.0 - pole) * (1.0 - pole) / b).clamp(-most, most);
        }
    }
}
