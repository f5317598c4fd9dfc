//! Quantities as people write them: a number and its unit, `"80 GiB"`, `"83 °C"`, `"10 Gbit/s"`.

use crate::units::{
    Bytes, BytesPerSecond, Celsius, FlopsPerSecond, Hertz, Joules, JoulesPerKelvin, Kelvin, KelvinPerWatt, Seconds,
    TokensPerSecond, Watts, WattsPerKelvin,
};
use std::fmt;
use std::str::FromStr;

/// Why a text is not the quantity that was expected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QuantityError {
    /// The text does not begin with a number.
    #[error("{text:?} does not begin with a number; write a number and its unit, for example {example:?}")]
    NoNumber {
        /// The text.
        text: String,
        /// A text that would do.
        example: &'static str,
    },
    /// There is no unit.
    #[error("{text:?} has no unit; write it as one of {units}, for example {example:?}")]
    NoUnit {
        /// The text.
        text: String,
        /// The units that would do.
        units: String,
        /// A text that would do.
        example: &'static str,
    },
    /// The unit is not one of this quantity.
    #[error("unit {unit:?} in {text:?} is not a unit of {what}; use one of {units}")]
    WrongUnit {
        /// The text.
        text: String,
        /// Its unit.
        unit: String,
        /// What was expected, in words.
        what: &'static str,
        /// The units that would do.
        units: String,
    },
    /// The number is outside what the quantity can hold.
    #[error("{text:?} is out of range for {what}; give a number from {min} to {max}")]
    OutOfRange {
        /// The text.
        text: String,
        /// What was expected, in words.
        what: &'static str,
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
}

/// A text's leading number and what follows it; none where it does not begin with a number.
pub(crate) fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let trimmed = text.trim();
    let cut = trimmed
        .char_indices()
        .find(|&(i, c)| {
            let exponent = matches!(c, 'e' | 'E')
                && trimmed[i + 1..].starts_with(|d: char| d.is_ascii_digit() || d == '-' || d == '+');
            let sign = matches!(c, '-' | '+') && (i == 0 || trimmed[..i].ends_with(['e', 'E']));
            !(c.is_ascii_digit() || matches!(c, '.' | '_') || exponent || sign)
        })
        .map_or(trimmed.len(), |(i, _)| i);
    let number = f64::from_str(&trimmed[..cut].replace('_', "")).ok()?;
    Some((number, trimmed[cut..].trim()))
}

/// The value of a text that is some quantity, in that quantity's base unit; no unit belongs to two.
pub(crate) fn base_value(text: &str) -> Option<f64> {
    quantity(text).map(|(_, value)| value)
}

/// How many of one unit make one of another, where both measure the same: 1000 of `Mbit/s` make one `Gbit/s`.
pub(crate) fn units_in(unit: &str, other: &str) -> Option<f64> {
    let ((one, size), (two, whole)) = (quantity(&format!("1 {unit}"))?, quantity(&format!("1 {other}"))?);
    (one == two && size > 0.0).then_some(whole / size)
}

/// Which quantity a text is, as a number that stands for its kind, and its value in base units.
fn quantity(text: &str) -> Option<(u8, f64)> {
    fn of<T: FromStr>(kind: u8, text: &str, value: impl Fn(T) -> f64) -> Option<(u8, f64)> {
        text.parse().ok().map(|quantity| (kind, value(quantity)))
    }
    of(0, text, Seconds::value)
        .or_else(|| of(1, text, |bytes: Bytes| bytes.0 as f64))
        .or_else(|| of(2, text, BytesPerSecond::value))
        .or_else(|| of(3, text, Celsius::value))
        .or_else(|| of(4, text, Watts::value))
        .or_else(|| of(5, text, Hertz::value))
        .or_else(|| of(6, text, FlopsPerSecond::value))
        .or_else(|| of(7, text, TokensPerSecond::value))
        .or_else(|| of(8, text, Joules::value))
        .or_else(|| of(9, text, Kelvin::value))
        .or_else(|| of(10, text, KelvinPerWatt::value))
        .or_else(|| of(11, text, WattsPerKelvin::value))
        .or_else(|| of(12, text, JoulesPerKelvin::value))
}

/// What texts a quantity accepts.
struct Grammar {
    what: &'static str,
    example: &'static str,
    /// Unit symbol and its size in base units.
    units: &'static [(&'static str, f64)],
    min: f64,
    max: f64,
}

impl Grammar {
    fn names(&self) -> String {
        self.units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    fn parse(&self, text: &str) -> Result<f64, QuantityError> {
        let (number, unit) = number_and_unit(text)
            .ok_or_else(|| QuantityError::NoNumber { text: text.to_owned(), example: self.example })?;
        if unit.is_empty() {
            return Err(QuantityError::NoUnit { text: text.to_owned(), units: self.names(), example: self.example });
        }
        let Some((_, size)) = self.units.iter().find(|(name, _)| *name == unit) else {
            return Err(QuantityError::WrongUnit {
                text: text.to_owned(),
                unit: unit.to_owned(),
                what: self.what,
                units: self.names(),
            });
        };
        let value = number * size;
        if !(value >= self.min && value <= self.max) {
            return Err(QuantityError::OutOfRange {
                text: text.to_owned(),
                what: self.what,
                min: self.min,
                max: self.max,
            });
        }
        Ok(value)
    }
}

const KIB: f64 = 1024.0;

macro_rules! grammar {
    ($name:ident, $what:literal, $example:literal, $min:expr, $max:expr, [$(($unit:literal, $size:expr)),* $(,)?]) => {
        impl FromStr for $name {
            type Err = QuantityError;
            fn from_str(text: &str) -> Result<Self, QuantityError> {
                const GRAMMAR: Grammar = Grammar {
                    what: $what,
                    example: $example,
                    units: &[$(($unit, $size)),*],
                    min: $min,
                    max: $max,
                };
                GRAMMAR.parse(text).map(Self::of)
            }
        }
    };
}

grammar!(
    Seconds,
    "time",
    "5 ms",
    0.0,
    1e12,
    [("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("min", 60.0), ("h", 3600.0),]
);
grammar!(Watts, "power", "350 W", 0.0, 1e9, [("W", 1.0), ("mW", 1e-3), ("kW", 1e3)]);
grammar!(Joules, "energy", "50 J", 0.0, 1e15, [("J", 1.0), ("kJ", 1e3), ("Wh", 3600.0), ("kWh", 3.6e6)]);
grammar!(Celsius, "temperature", "83 °C", -273.15, 1000.0, [("°C", 1.0), ("C", 1.0)]);
grammar!(Kelvin, "temperature difference", "5 K", -1000.0, 1000.0, [("K", 1.0)]);
grammar!(KelvinPerWatt, "thermal resistance", "0.31 K/W", 0.0, 1e6, [("K/W", 1.0)]);
grammar!(WattsPerKelvin, "thermal conductance", "3.2 W/K", 0.0, 1e6, [("W/K", 1.0)]);
grammar!(JoulesPerKelvin, "heat capacity", "500 J/K", 0.0, 1e9, [("J/K", 1.0), ("kJ/K", 1e3)]);
grammar!(
    BytesPerSecond,
    "data rate",
    "10 Gbit/s",
    0.0,
    1e18,
    [
        ("B/s", 1.0),
        ("kB/s", 1e3),
        ("MB/s", 1e6),
        ("GB/s", 1e9),
        ("TB/s", 1e12),
        ("KiB/s", KIB),
        ("MiB/s", KIB * KIB),
        ("GiB/s", KIB * KIB * KIB),
        ("bit/s", 0.125),
        ("kbit/s", 125.0),
        ("Mbit/s", 1.25e5),
        ("Gbit/s", 1.25e8),
        ("Tbit/s", 1.25e11),
    ]
);
grammar!(TokensPerSecond, "token rate", "25 tok/s", 0.0, 1e15, [("tok/s", 1.0)]);
grammar!(
    FlopsPerSecond,
    "compute rate",
    "80 TFLOP/s",
    0.0,
    1e24,
    [("FLOP/s", 1.0), ("MFLOP/s", 1e6), ("GFLOP/s", 1e9), ("TFLOP/s", 1e12), ("PFLOP/s", 1e15),]
);
grammar!(
    Hertz,
    "rate",
    "2 /s",
    0.0,
    1e12,
    [("/s", 1.0), ("/min", 1.0 / 60.0), ("/h", 1.0 / 3600.0), ("Hz", 1.0), ("kHz", 1e3), ("MHz", 1e6), ("GHz", 1e9),]
);

impl FromStr for Bytes {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        const GRAMMAR: Grammar = Grammar {
            what: "memory",
            example: "80 GiB",
            units: &[
                ("B", 1.0),
                ("kB", 1e3),
                ("MB", 1e6),
                ("GB", 1e9),
                ("TB", 1e12),
                ("KiB", KIB),
                ("MiB", KIB * KIB),
                ("GiB", KIB * KIB * KIB),
                ("TiB", KIB * KIB * KIB * KIB),
            ],
            min: 0.0,
            // Past 2^53 a byte count is no longer exact.
            max: 9_007_199_254_740_992.0,
        };
        GRAMMAR.parse(text).map(|value| Self(libm::round(value) as u64))
    }
}

/// Writes a measured quantity with four significant digits and a prefix that keeps it readable.
pub(crate) fn write_quantity(f: &mut fmt::Formatter<'_>, value: f64, unit: &'static str) -> fmt::Result {
    let scales: &[(f64, &str)] = match unit {
        "s" => &[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")],
        "B/s" => &[(1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")],
        "FLOP/s" => &[(1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s"), (1.0, "FLOP/s")],
        "J" => &[(1e3, "kJ"), (1.0, "J"), (1e-3, "mJ")],
        _ => &[],
    };
    let (size, name) = scales
        .iter()
        .find(|(size, _)| value.abs() >= *size)
        .or(if value == 0.0 { scales.first() } else { scales.last() })
        .copied()
        .unwrap_or((1.0, unit));
    let shown = value / size;
    let digits = match shown.abs() {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        v if v >= 1.0 || v == 0.0 => 3,
        _ => 4,
    };
    write!(f, "{shown:.digits$} {name}")
}

/// Writes a byte count in the largest binary unit that keeps it at least 1.
pub(crate) fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: u64) -> fmt::Result {
    for (power, name) in [(4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")] {
        let size = 1_u64 << (10 * power);
        if bytes >= size {
            return write!(f, "{:.2} {name}", bytes as f64 / size as f64);
        }
    }
    write!(f, "{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_a_unit_is_read_in_base_units() {
        assert_eq!("80 GiB".parse(), Ok(Bytes(80 << 30)));
        assert_eq!("83 °C".parse(), Ok(Celsius::of(83.0)));
        assert_eq!("10 Gbit/s".parse(), Ok(BytesPerSecond::of(1.25e9)));
        assert_eq!("1.5e3 ms".parse(), Ok(Seconds::of(1.5)));
        assert_eq!("50us".parse::<Seconds>().map(|s| libm::round(s.value() * 1e9)), Ok(50_000.0));
    }

    #[test]
    fn a_wrong_unit_is_named_with_the_right_ones() {
        let error = "80 Gb".parse::<Bytes>().unwrap_err().to_string();
        assert!(error.contains("\"Gb\"") && error.contains("GiB"), "{error}");
        assert!("80".parse::<Bytes>().unwrap_err().to_string().contains("no unit"));
        assert!("much".parse::<Bytes>().unwrap_err().to_string().contains("number"));
        assert!("-5 W".parse::<Watts>().unwrap_err().to_string().contains("out of range"));
        assert!("1e400 W".parse::<Watts>().is_err());
        assert!("e5 W".parse::<Watts>().is_err());
        assert!("é".parse::<Watts>().is_err());
    }

    #[test]
    fn quantities_are_shown_with_a_readable_prefix() {
        assert_eq!(Seconds::of(0.0123).to_string(), "12.30 ms");
        assert_eq!(Bytes(1536).to_string(), "1.50 KiB");
        assert_eq!(Celsius::of(83.0).to_string(), "83.00 °C");
        assert_eq!(Seconds::ZERO.to_string(), "0.000 s");
    }
}
