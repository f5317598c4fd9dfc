//! What the temperature really is, and the heat that the model does not know of.

use isotherm_core::thermal::ThermalState;
use isotherm_core::units::{Celsius, Seconds, Watts};

/// Share of its errors that the observer keeps from one period to the next: both poles of it. Nearer to one is smoother and
/// slower; at a reading each second it learns within about ten.
const POLE: f64 = 0.8;
/// Most heat that is laid to the model's account, as a multiple of what crossed the node at the time.
const SHARE_MAX: f64 = 2.0;

/// A thermal node whose temperature and unknown heat are corrected by a sensor.
#[derive(Clone, Debug)]
pub(super) struct Observer {
    state: ThermalState,
    unaccounted: f64,
    period: Seconds,
}

impl Observer {
    pub(super) fn new(state: ThermalState, period: Seconds) -> Self {
        Self { state, unaccounted: 0.0, period }
    }

    pub(super) const fn state(&self) -> ThermalState {
        self.state
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
        let Some(sensor) = sensor else { return };
        let mut unit = ThermalState::new(*before.node(), before.temperature());
        unit.advance(self.period, power + Watts::of(self.unaccounted + 1.0));
        let b = (unit.temperature() - self.state.temperature()).value();
        let a = (-(self.period / before.node().time_constant())).exp();
        let error = (sensor - self.state.temperature()).value();
        let gain = (1.0 + a - 2.0 * POLE).max(0.0);
        let corrected = self.state.temperature() + (sensor - self.state.temperature()) * gain;
        self.state = ThermalState::new(*before.node(), corrected);
        if b > 0.0 {
            let most = SHARE_MAX * (power.value().abs() + 10.0);
            self.unaccounted = (self.unaccounted + error * (1.0 - POLE) * (1.0 - POLE) / b).clamp(-most, most);
        }
    }
}
