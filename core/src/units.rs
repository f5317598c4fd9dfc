//! Units as types: only arithmetic that means something compiles.
//!
//! Exact counts ([`Bytes`], [`SimTime`], [`SimDuration`]) are integers. Measured quantities are finite `f64`,
//! validated where they enter. JSON and CSV hold bare numbers in the base unit named by the field; scenario files
//! hold text with its unit (see [`crate::text`]).

use serde::{Deserialize, Serialize};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Sub};

/// A number that was not finite where a measured quantity was expected.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{value} is not a finite {unit}; give a finite number")]
pub struct NotFinite {
    /// The offending value.
    pub value: f64,
    /// Symbol of the base unit that was expected.
    pub unit: &'static str,
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $unit:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(f64);

        impl $name {
            /// Symbol of the base unit.
            pub const UNIT: &'static str = $unit;
            /// The quantity zero.
            pub const ZERO: Self = Self(0.0);

            /// The quantity of `value` base units. Errors: `value` is not finite.
            pub fn new(value: f64) -> Result<Self, NotFinite> {
                if value.is_finite() { Ok(Self(value)) } else { Err(NotFinite { value, unit: $unit }) }
            }

            /// The quantity of `value` base units, where the caller knows it to be finite.
            ///
            /// # Panics
            /// If it is not: that is a bug of the caller, not bad input.
            #[must_use]
            pub fn of(value: f64) -> Self {
                assert!(value.is_finite(), "{value} is not a finite {}", $unit);
                Self(value)
            }

            /// The number of base units.
            #[must_use]
            pub const fn value(self) -> f64 {
                self.0
            }

            /// The larger of two quantities.
            #[must_use]
            pub fn max(self, other: Self) -> Self {
                Self(self.0.max(other.0))
            }

            /// The smaller of two quantities.
            #[must_use]
            pub fn min(self, other: Self) -> Self {
                Self(self.0.min(other.0))
            }

            /// The total order of the underlying numbers.
            #[must_use]
            pub fn total_cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.0.total_cmp(&other.0)
            }
        }

        impl TryFrom<f64> for $name {
            type Error = NotFinite;
            fn try_from(value: f64) -> Result<Self, NotFinite> {
                Self::new(value)
            }
        }

        impl From<$name> for f64 {
            fn from(quantity: $name) -> f64 {
                quantity.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                crate::text::write_quantity(f, self.0, Self::UNIT)
            }
        }
    };
}

macro_rules! linear {
    ($($name:ident)*) => {$(
        impl Add for $name { type Output = Self; fn add(self, o: Self) -> Self { Self(self.0 + o.0) } }
        impl AddAssign for $name { fn add_assign(&mut self, o: Self) { self.0 += o.0; } }
        impl Sub for $name { type Output = Self; fn sub(self, o: Self) -> Self { Self(self.0 - o.0) } }
        impl Mul<f64> for $name { type Output = Self; fn mul(self, k: f64) -> Self { Self(self.0 * k) } }
        impl Div<f64> for $name { type Output = Self; fn div(self, k: f64) -> Self { Self(self.0 / k) } }
        impl Div for $name { type Output = f64; fn div(self, o: Self) -> f64 { self.0 / o.0 } }
        impl Sum for $name { fn sum<I: Iterator<Item = Self>>(i: I) -> Self { i.fold(Self::ZERO, Add::add) } }
    )*};
}

macro_rules! product {
    ($($a:ident * $b:ident = $c:ident;)*) => {$(
        impl Mul<$b> for $a { type Output = $c; fn mul(self, o: $b) -> $c { $c(self.0 * o.0) } }
        impl Mul<$a> for $b { type Output = $c; fn mul(self, o: $a) -> $c { $c(self.0 * o.0) } }
        impl Div<$a> for $c { type Output = $b; fn div(self, o: $a) -> $b { $b(self.0 / o.0) } }
        impl Div<$b> for $c { type Output = $a; fn div(self, o: $b) -> $a { $a(self.0 / o.0) } }
    )*};
}

quantity!(
    /// A span of measured or predicted time.
    Seconds, "s"
);
quantity!(
    /// Power.
    Watts, "W"
);
quantity!(
    /// Energy.
    Joules, "J"
);
quantity!(
    /// A temperature reading. Readings do not add; their difference is in [`Kelvin`].
    Celsius, "°C"
);
quantity!(
    /// A difference of temperatures.
    Kelvin, "K"
);
quantity!(
    /// Thermal resistance.
    KelvinPerWatt, "K/W"
);
quantity!(
    /// Thermal conductance.
    WattsPerKelvin, "W/K"
);
quantity!(
    /// Heat capacity.
    JoulesPerKelvin, "J/K"
);
quantity!(
    /// Rate at which bytes move.
    BytesPerSecond, "B/s"
);
quantity!(
    /// Rate at which tokens are produced.
    TokensPerSecond, "tok/s"
);
quantity!(
    /// Rate of floating-point operations; one fused multiply-add counts as two.
    FlopsPerSecond, "FLOP/s"
);
quantity!(
    /// A clock frequency or an event rate.
    Hertz, "Hz"
);

linear!(Seconds Watts Joules Kelvin KelvinPerWatt WattsPerKelvin JoulesPerKelvin BytesPerSecond TokensPerSecond
        FlopsPerSecond Hertz);

product! {
    Watts * Seconds = Joules;
    Watts * KelvinPerWatt = Kelvin;
    WattsPerKelvin * Kelvin = Watts;
    JoulesPerKelvin * Kelvin = Joules;
    KelvinPerWatt * JoulesPerKelvin = Seconds;
}

impl Sub for Celsius {
    type Output = Kelvin;
    fn sub(self, other: Self) -> Kelvin {
        Kelvin(self.0 - other.0)
    }
}

impl Add<Kelvin> for Celsius {
    type Output = Self;
    fn add(self, rise: Kelvin) -> Self {
        Self(self.0 + rise.0)
    }
}

impl Sub<Kelvin> for Celsius {
    type Output = Self;
    fn sub(self, fall: Kelvin) -> Self {
        Self(self.0 - fall.0)
    }
}

/// A count of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Bytes(pub u64);

impl Bytes {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// Whether there are none.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// The sum, or the largest count where it would overflow: a saturated need never fits, so no plan is wrongly
    /// accepted.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The product with a count, saturating like [`Bytes::saturating_add`].
    #[must_use]
    pub const fn saturating_mul(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// What is left after taking `other`, or nothing.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, Self::saturating_add)
    }
}

impl Div<BytesPerSecond> for Bytes {
    type Output = Seconds;
    fn div(self, rate: BytesPerSecond) -> Seconds {
        // A count past 2^53 loses its last bits here; a transfer that long is not timed to the byte.
        Seconds(self.0 as f64 / rate.0)
    }
}

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        crate::text::write_bytes(f, self.0)
    }
}

/// A point of simulated or measured time, in nanoseconds since the start of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct SimTime(pub u64);

/// A span of simulated or measured time in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct SimDuration(pub u64);

impl SimTime {
    /// The start of the run.
    pub const ZERO: Self = Self(0);
    /// Later than any event.
    pub const NEVER: Self = Self(u64::MAX);

    /// The span since `earlier`, or none where `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> SimDuration {
        SimDuration(self.0.saturating_sub(earlier.0))
    }

    /// The same point in seconds.
    #[must_use]
    pub fn seconds(self) -> Seconds {
        Seconds(self.0 as f64 * 1e-9)
    }
}

impl Add<SimDuration> for SimTime {
    type Output = Self;
    fn add(self, span: SimDuration) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl SimDuration {
    /// The same span in seconds.
    #[must_use]
    pub fn seconds(self) -> Seconds {
        Seconds(self.0 as f64 * 1e-9)
    }
}

impl Seconds {
    /// Splits a span into whole nanoseconds, rounded down, and the remainder in nanoseconds, in `0.0..1.0`.
    ///
    /// A server adds the remainder to its next span: rounding each one alone flips scheduling decisions. Negative
    /// spans count as none; spans past 584 years saturate.
    #[must_use]
    pub fn whole_nanoseconds(self, carried: f64) -> (SimDuration, f64) {
        let nanoseconds = self.0.max(0.0) * 1e9 + carried;
        // Towards zero, which is down; past the last nanosecond it saturates.
        let whole = nanoseconds as u64;
        // From 2^53 on, a double is whole.
        let rest = if whole < 1 << 53 { nanoseconds - whole as f64 } else { 0.0 };
        (SimDuration(whole), rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_over_a_time_is_an_energy_and_back() {
        let energy = Watts::of(50.0) * Seconds::of(2.0);
        assert_eq!(energy, Joules::of(100.0));
        assert_eq!(energy / Seconds::of(2.0), Watts::of(50.0));
    }

    #[test]
    fn a_difference_of_readings_is_a_kelvin() {
        assert_eq!(Celsius::of(80.0) - Celsius::of(25.0), Kelvin::of(55.0));
        assert_eq!(Celsius::of(25.0) + Kelvin::of(55.0), Celsius::of(80.0));
    }

    #[test]
    fn no_quantity_is_infinite() {
        assert!(Watts::new(f64::INFINITY).is_err());
        assert!(serde_json::from_str::<Watts>("1e999").is_err());
    }

    #[test]
    fn carried_remainders_lose_no_time() {
        let third = Seconds::of(1e-9 / 3.0);
        let (mut total, mut carried) = (0, 0.0);
        for _ in 0..3_000 {
            let (whole, rest) = third.whole_nanoseconds(carried);
            total += whole.0;
            carried = rest;
        }
        assert!((999..=1000).contains(&total), "{total}");
    }
}
