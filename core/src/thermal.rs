//! How a device warms, cools and throttles: a linear thermal network, exact between events.
//!
//! One node and its throttle stand here; [`network`] has several nodes, [`fit`] identifies them from a [`log`].

pub mod crossing;
pub mod fit;
pub mod governor;
pub mod log;
pub mod matrix;
pub mod network;
pub mod throttling;

use crate::figure::Figure;
use crate::units::{Celsius, Joules, JoulesPerKelvin, Kelvin, KelvinPerWatt, Seconds, Watts};
use serde::{Deserialize, Serialize};

/// Thermal parameters of a device: one node that stores heat and loses it to the air around it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThermalRecord {
    /// Thermal resistance from the device to the air.
    pub resistance_kelvin_per_watt: Figure<KelvinPerWatt>,
    /// Heat capacity of the device.
    pub capacity_joules_per_kelvin: Figure<JoulesPerKelvin>,
    /// Temperature at which it slows itself; absent where it never does or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle_celsius: Option<Figure<Celsius>>,
    /// Temperature at which it returns to full speed; below `throttle_celsius`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_celsius: Option<Figure<Celsius>>,
    /// Speed while throttled as a share of full speed, above 0 and at most 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_speed: Option<Figure<f64>>,
    /// A die on top of the node above, which then is its sink; absent where the device is one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub die: Option<Branch>,
    /// What shares the heat of the node above and gives it to nothing else: board, brackets, walls of a case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<Branch>,
    /// A fan that cools better when the device is hot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fan: Option<Fan>,
}

impl ThermalRecord {
    /// The figures that must be above zero, by what they are called.
    pub(crate) fn above_zero(&self) -> Vec<(&'static str, f64)> {
        let mut figures = vec![
            ("thermal resistance", self.resistance_kelvin_per_watt.value.value()),
            ("heat capacity", self.capacity_joules_per_kelvin.value.value()),
        ];
        for branch in [&self.die, &self.case].into_iter().flatten() {
            figures.push(("thermal resistance of a part", branch.resistance_kelvin_per_watt.value.value()));
            figures.push(("heat capacity of a part", branch.capacity_joules_per_kelvin.value.value()));
        }
        // A fan may add nothing; what is no number, or less than nothing, is found out by adding a little.
        figures.extend(self.fan.as_ref().map(|fan| ("cooling of a fan", fan.watts_per_kelvin_squared.value + 1e-300)));
        figures
    }
}

/// A node beside the one that gives heat to the air, and what joins them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Branch {
    /// Thermal resistance between the two.
    pub resistance_kelvin_per_watt: Figure<KelvinPerWatt>,
    /// Heat capacity of this node.
    pub capacity_joules_per_kelvin: Figure<JoulesPerKelvin>,
}

/// A fan that follows the temperature of the device: over `start_celsius` each kelvin adds to the conductance to the
/// air.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fan {
    /// Temperature up to which it runs at its slowest; what the resistance was stated for.
    pub start_celsius: Figure<Celsius>,
    /// Conductance that each kelvin above adds, in W/K per K.
    pub watts_per_kelvin_squared: Figure<f64>,
    /// Temperature from which it runs at its fastest; absent where that was never reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_celsius: Option<Figure<Celsius>>,
}

/// One thermal node and the air around it: `C dT/dt = P - (T - T_air) / R`.
///
/// At constant power the temperature goes exponentially from where it is to `T_air + P R`, with the time constant
/// `R C`. Everything below is that closed form, so an answer over any span is exact and there is no step to choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ThermalNode {
    resistance: KelvinPerWatt,
    capacity: JoulesPerKelvin,
    air: Celsius,
}

/// Where the energy of a span went. What came in is what was stored and what was dissipated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeatFlow {
    /// Power times time.
    pub absorbed: Joules,
    /// Heat capacity times the rise in temperature; negative when it fell.
    pub stored: Joules,
    /// Heat that went into the air; negative where the air was warmer.
    pub dissipated: Joules,
}

impl ThermalNode {
    /// A node with this resistance to the air, this heat capacity, and air of this temperature.
    ///
    /// # Panics
    /// If resistance or capacity is not above zero; a validated device graph holds no such record.
    #[must_use]
    pub fn new(resistance: KelvinPerWatt, capacity: JoulesPerKelvin, air: Celsius) -> Self {
        assert!(
            resistance.value() > 0.0 && capacity.value() > 0.0,
            "thermal resistance {resistance} and capacity {capacity} must be above zero"
        );
        Self { resistance, capacity, air }
    }

    /// The node that a record describes, in air of this temperature.
    #[must_use]
    pub fn of(record: &ThermalRecord, air: Celsius) -> Self {
        Self::new(record.resistance_kelvin_per_watt.value, record.capacity_joules_per_kelvin.value, air)
    }

    /// The same node in air of another temperature.
    #[must_use]
    pub const fn in_air(self, air: Celsius) -> Self {
        Self { air, ..self }
    }

    /// Time in which the distance to the steady state falls to 1/e.
    #[must_use]
    pub fn time_constant(&self) -> Seconds {
        self.resistance * self.capacity
    }

    /// Temperature that constant power leads to.
    #[must_use]
    pub fn steady(&self, power: Watts) -> Celsius {
        self.air + power * self.resistance
    }

    /// Power that a temperature can be held at; negative below that of the air.
    #[must_use]
    pub fn sustained(&self, limit: Celsius) -> Watts {
        (limit - self.air) / self.resistance
    }
}

/// A thermal node at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ThermalState {
    node: ThermalNode,
    temperature: Celsius,
}

impl ThermalState {
    /// The node at this temperature.
    #[must_use]
    pub const fn new(node: ThermalNode, temperature: Celsius) -> Self {
        Self { node, temperature }
    }

    /// The node after a long time at this power.
    #[must_use]
    pub fn settled(node: ThermalNode, power: Watts) -> Self {
        Self { node, temperature: node.steady(power) }
    }

    /// Its temperature.
    #[must_use]
    pub const fn temperature(&self) -> Celsius {
        self.temperature
    }

    /// Its parameters.
    #[must_use]
    pub const fn node(&self) -> &ThermalNode {
        &self.node
    }

    /// Lets `span` pass at constant power: `T' = T_steady + (T - T_steady) exp(-span / RC)`. Negative spans count as
    /// none.
    pub fn advance(&mut self, span: Seconds, power: Watts) -> HeatFlow {
        let span = span.max(Seconds::ZERO);
        let distance = self.node.steady(power) - self.temperature;
        // `expm1` keeps what a step much shorter than the time constant changes; `1 - exp` would round it away.
        let covered = -libm::expm1(-(span / self.node.time_constant()));
        let rise = distance * covered;
        self.temperature = self.temperature + rise;
        // The mean of the decaying distance over the span is `distance * RC / span * covered`.
        let absorbed = power * span;
        let lag = distance / self.node.resistance * self.node.time_constant() * covered;
        HeatFlow { absorbed, stored: self.node.capacity * rise, dissipated: absorbed - lag }
    }

    /// Time until the temperature is `threshold`, at constant power: `RC ln((T_steady - T) / (T_steady - threshold))`.
    /// Zero where it is that already; none where it moves away or never gets there.
    #[must_use]
    pub fn crossing(&self, threshold: Celsius, power: Watts) -> Option<Seconds> {
        let ahead = threshold - self.temperature;
        if ahead == Kelvin::ZERO {
            return Some(Seconds::ZERO);
        }
        let distance = self.node.steady(power) - self.temperature;
        // The share of the way to the steady state; below 0 it lies behind, from 1 on it is never reached.
        let share = ahead / distance;
        (share > 0.0 && share < 1.0).then(|| self.node.time_constant() * -libm::log1p(-share))
    }
}

/// When a device slows itself and when it recovers, with hysteresis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throttle {
    /// At this temperature it slows.
    throttle: Celsius,
    /// At this lower temperature it returns to full speed.
    resume: Celsius,
    /// Speed while slow, as a share of full speed.
    speed: f64,
    slowed: bool,
}

impl Throttle {
    /// The throttle that a record describes, at full speed; none unless both temperatures and the speed are known.
    #[must_use]
    pub fn of(record: &ThermalRecord) -> Option<Self> {
        let (throttle, resume) = (record.throttle_celsius.as_ref()?.value, record.resume_celsius.as_ref()?.value);
        let speed = record.throttled_speed.as_ref()?.value;
        (resume < throttle && speed > 0.0 && speed <= 1.0).then_some(Self { throttle, resume, speed, slowed: false })
    }

    /// Whether it is slow now.
    #[must_use]
    pub const fn slowed(&self) -> bool {
        self.slowed
    }

    /// Its speed now, as a share of full speed.
    #[must_use]
    pub const fn speed(&self) -> f64 {
        if self.slowed { self.speed } else { 1.0 }
    }

    /// The temperature at which it changes next: upwards at full speed, downwards when slow.
    #[must_use]
    pub const fn threshold(&self) -> Celsius {
        if self.slowed { self.resume } else { self.throttle }
    }

    /// Whether it changes at this temperature.
    #[must_use]
    pub fn is_due(&self, temperature: Celsius) -> bool {
        if self.slowed { temperature <= self.resume } else { temperature >= self.throttle }
    }

    /// Time until it changes, at constant power; none where it never does.
    #[must_use]
    pub fn change_after(&self, state: &ThermalState, power: Watts) -> Option<Seconds> {
        if self.is_due(state.temperature()) {
            return Some(Seconds::ZERO);
        }
        state.crossing(self.threshold(), power)
    }

    /// Changes: slows, or returns to full speed.
    pub fn change(&mut self) {
        self.slowed = !self.slowed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn node(resistance: f64, capacity: f64, air: f64) -> ThermalNode {
        ThermalNode::new(KelvinPerWatt::of(resistance), JoulesPerKelvin::of(capacity), Celsius::of(air))
    }

    fn record(throttle: f64, resume: f64, speed: f64) -> ThermalRecord {
        ThermalRecord {
            resistance_kelvin_per_watt: Figure::declared(KelvinPerWatt::of(0.5), "test"),
            capacity_joules_per_kelvin: Figure::declared(JoulesPerKelvin::of(100.0), "test"),
            throttle_celsius: Some(Figure::declared(Celsius::of(throttle), "test")),
            resume_celsius: Some(Figure::declared(Celsius::of(resume), "test")),
            throttled_speed: Some(Figure::declared(speed, "test")),
            die: None,
            case: None,
            fan: None,
        }
    }

    #[test]
    fn one_time_constant_covers_all_but_one_part_in_e() {
        let mut state = ThermalState::new(node(0.5, 100.0, 25.0), Celsius::of(25.0));
        state.advance(Seconds::of(50.0), Watts::of(100.0));
        // 25 + 50 (1 - 1/e), with 1/e from a table.
        let exact = 25.0 + 50.0 * (1.0 - 0.367_879_441_171_442_33);
        assert!((state.temperature().value() - exact).abs() < 1e-12);
    }

    #[test]
    fn the_fit_of_a_real_card_settles_where_its_parameters_say() {
        // One-node fit of an RTX 4000 Ada: reference 47.51 C, 0.3119 K/W, 501.07 J/K.
        let card = node(0.3119, 501.07, 47.51);
        assert!((card.steady(Watts::of(100.0)).value() - 78.70).abs() < 1e-9);
        assert!((card.time_constant().value() - 156.283_733).abs() < 1e-6);
        assert!((card.sustained(Celsius::of(78.70)).value() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn the_closed_form_is_what_small_explicit_steps_converge_to() {
        let (card, power) = (node(0.3119, 501.07, 47.51), 120.0);
        let mut exact = ThermalState::new(card, Celsius::of(50.0));
        exact.advance(Seconds::of(30.0), Watts::of(power));
        // Fourth-order Runge-Kutta of C dT/dt = P - (T - air) / R, knowing nothing of exponentials.
        let slope = |t: f64| (power - (t - 47.51) / 0.3119) / 501.07;
        let (steps, mut t) = (3_000, 50.0);
        let h = 30.0 / f64::from(steps);
        for _ in 0..steps {
            let k1 = slope(t);
            let k2 = slope(t + h / 2.0 * k1);
            let k3 = slope(t + h / 2.0 * k2);
            let k4 = slope(t + h * k3);
            t += h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4);
        }
        assert!((exact.temperature().value() - t).abs() < 1e-9, "{} {t}", exact.temperature());
    }

    #[test]
    fn a_throttle_has_hysteresis() {
        let mut throttle = Throttle::of(&record(80.0, 70.0, 0.5)).expect("complete");
        let hot = ThermalState::new(node(0.5, 100.0, 25.0), Celsius::of(75.0));
        assert!(!throttle.is_due(hot.temperature()) && throttle.speed() == 1.0);
        assert!(throttle.change_after(&hot, Watts::of(200.0)).is_some());
        assert_eq!(throttle.change_after(&hot, Watts::of(100.0)), None);
        throttle.change();
        assert!(throttle.slowed() && throttle.speed() == 0.5 && !throttle.is_due(hot.temperature()));
        assert!(throttle.change_after(&hot, Watts::of(20.0)).is_some());
        assert_eq!(throttle.change_after(&hot, Watts::of(200.0)), None);
        let over = ThermalState::new(*hot.node(), Celsius::of(69.0));
        assert_eq!(throttle.change_after(&over, Watts::of(200.0)), Some(Seconds::ZERO));
    }

    #[test]
    fn nothing_throttles_on_half_a_record() {
        assert_eq!(Throttle::of(&ThermalRecord { resume_celsius: None, ..record(80.0, 70.0, 0.5) }), None);
        assert_eq!(Throttle::of(&ThermalRecord { throttled_speed: None, ..record(80.0, 70.0, 0.5) }), None);
        assert_eq!(Throttle::of(&record(70.0, 80.0, 0.5)), None);
    }

    prop_compose! {
        fn any_node()(r in 0.01..5.0, c in 1.0..5_000.0, air in -20.0..50.0) -> ThermalNode { node(r, c, air) }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
        #[test]
        fn what_comes_in_is_stored_or_dissipated(
            node in any_node(), start in -20.0..120.0,
            spans in prop::collection::vec((0.0..1_000.0, 0.0..800.0), 1..20),
        ) {
            let mut state = ThermalState::new(node, Celsius::of(start));
            let (mut absorbed, mut dissipated) = (0.0, 0.0);
            for (span, power) in spans {
                let before = state.temperature();
                let flow = state.advance(Seconds::of(span), Watts::of(power));
                let stored = (state.temperature() - before).value() * node.capacity.value();
                let scale = flow.absorbed.value().abs() + flow.dissipated.value().abs() + 1.0;
                prop_assert!((stored - flow.stored.value()).abs() <= 1e-9 * (scale + node.capacity.value()));
                absorbed += flow.absorbed.value();
                dissipated += flow.dissipated.value();
            }
            let stored = (state.temperature() - Celsius::of(start)).value() * node.capacity.value();
            let scale = absorbed + dissipated.abs() + node.capacity.value();
            prop_assert!((absorbed - stored - dissipated).abs() <= 1e-9 * scale);
        }

        #[test]
        fn heat_into_the_air_is_the_integral_of_the_difference_over_the_resistance(
            node in any_node(), start in 20.0..120.0, span in 0.1..2.0, power in 0.0..800.0,
        ) {
            let span = span * node.time_constant().value();
            let flow = ThermalState::new(node, Celsius::of(start)).advance(Seconds::of(span), Watts::of(power));
            // Simpson's rule over the temperatures at 401 moments.
            let at = |i: u32| {
                let mut state = ThermalState::new(node, Celsius::of(start));
                state.advance(Seconds::of(span * f64::from(i) / 400.0), Watts::of(power));
                node.sustained(state.temperature()).value()
            };
            let weighted: f64 = (0..=400).map(|i| at(i) * match i { 0 | 400 => 1.0, i if i % 2 == 1 => 4.0, _ => 2.0 }).sum();
            let integral = weighted * span / 1_200.0;
            let scale = integral.abs() + flow.absorbed.value() + 1e-3;
            prop_assert!((integral - flow.dissipated.value()).abs() <= 1e-9 * scale, "{integral} {:?}", flow);
        }

        #[test]
        fn two_spans_are_as_good_as_one(node in any_node(), start in 20.0..120.0, a in 0.0..500.0, b in 0.0..500.0, power in 0.0..800.0) {
            let (mut once, mut twice) = (ThermalState::new(node, Celsius::of(start)), ThermalState::new(node, Celsius::of(start)));
            once.advance(Seconds::of(a + b), Watts::of(power));
            twice.advance(Seconds::of(a), Watts::of(power));
            twice.advance(Seconds::of(b), Watts::of(power));
            let scale = node.steady(Watts::of(power)).value().abs() + 150.0;
            prop_assert!((once.temperature() - twice.temperature()).value().abs() <= 1e-12 * scale);
        }

        #[test]
        fn more_power_never_cools(node in any_node(), start in -20.0..120.0, span in 0.0..1_000.0, power in 0.0..800.0, more in 0.0..200.0) {
            let (mut mild, mut hot) = (ThermalState::new(node, Celsius::of(start)), ThermalState::new(node, Celsius::of(start)));
            mild.advance(Seconds::of(span), Watts::of(power));
            hot.advance(Seconds::of(span), Watts::of(power + more));
            prop_assert!(hot.temperature() >= mild.temperature());
        }

        #[test]
        fn at_its_crossing_time_a_temperature_is_the_threshold(node in any_node(), start in 0.0..120.0, power in 0.0..800.0, share in 0.001..0.999) {
            let state = ThermalState::new(node, Celsius::of(start));
            let steady = node.steady(Watts::of(power));
            prop_assume!((steady - state.temperature()).value().abs() > 1e-3);
            let threshold = state.temperature() + (steady - state.temperature()) * share;
            let after = state.crossing(threshold, Watts::of(power)).expect("on the way");
            let mut there = state;
            there.advance(after, Watts::of(power));
            prop_assert!((there.temperature() - threshold).value().abs() <= 1e-9 * (1.0 + steady.value().abs()));
            let beyond = steady + (steady - state.temperature()) * share;
            prop_assert_eq!(state.crossing(beyond, Watts::of(power)), None);
            let behind = state.temperature() + (state.temperature() - steady) * share;
            prop_assert_eq!(state.crossing(behind, Watts::of(power)), None);
        }
    }
}
