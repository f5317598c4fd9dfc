//! Named integer figures: what was promised and what was measured, without a float.

use crate::canonical::INTEGER_LIMIT;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Endings a figure's name may have. The ending is the unit; `milli` and its like scale the unit written before them.
pub const UNIT_ENDINGS: [&str; 12] = [
    "_ns",
    "_bytes",
    "_milli",
    "_micro",
    "_nano",
    "_ppm",
    "_count",
    "_tokens",
    "_mj",
    "_mw",
    "_millicelsius",
    "_percent",
];
/// Most figures in one set.
pub const FIGURES_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 64;

/// Time to the first token, in nanoseconds.
pub const TTFT_NS: &str = "ttft_ns";
/// Time per output token after the first, in nanoseconds.
pub const TPOT_NS: &str = "tpot_ns";
/// Time from arrival to the last token, in nanoseconds.
pub const E2E_NS: &str = "e2e_ns";
/// Output tokens per second, in thousandths.
pub const TOKENS_PER_SECOND_MILLI: &str = "tokens_per_second_milli";
/// Energy of a run, in millijoules.
pub const ENERGY_MJ: &str = "energy_mj";
/// Hottest temperature, in thousandths of a degree Celsius.
pub const TEMPERATURE_MAX_MILLICELSIUS: &str = "temperature_max_millicelsius";

/// Why a figure is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FigureError {
    /// A name without a unit says nothing.
    #[error("figure {name:?} is not lower-case words joined by '_' that end in a unit (such as _ns, _bytes, _milli)")]
    Name {
        /// The name.
        name: String,
    },
    /// Not an integer below 2^53 in magnitude once scaled.
    #[error("figure {name:?} has the value {value}, which is no integer below 2^53 in magnitude")]
    Value {
        /// The name.
        name: String,
        /// The value after scaling.
        value: String,
    },
    /// More figures than a reader should hold.
    #[error("{found} figures; the limit is {FIGURES_MAX}")]
    TooMany {
        /// How many there are.
        found: usize,
    },
}

/// Integers by name; each name ends in its unit, as in `ttft_ns`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<String, i64>);

/// `value * per_unit` rounded to the nearest integer, halves away from zero; `None` from 2^53 on or where not finite.
#[must_use]
pub fn whole(value: f64, per_unit: f64) -> Option<i64> {
    let scaled = (value * per_unit).round();
    let exact = scaled.is_finite() && scaled.abs() < INTEGER_LIMIT as f64;
    exact.then_some(scaled as i64)
}

impl Figures {
    /// Adds or replaces a figure that is an integer already.
    ///
    /// Errors: a name without a unit, a value of 2^53 or more in magnitude, too many figures.
    pub fn set(&mut self, name: &str, value: i64) -> Result<(), FigureError> {
        check_name(name)?;
        check_value(name, value)?;
        self.0.insert(name.to_owned(), value);
        self.check()
    }

    /// Adds or replaces a measured quantity, scaled and rounded by [`whole`]: seconds become nanoseconds with
    /// `per_unit` 1e9.
    ///
    /// Errors: as [`Figures::set`], and a value that is not finite.
    pub fn set_scaled(&mut self, name: &str, value: f64, per_unit: f64) -> Result<(), FigureError> {
        let refused = || FigureError::Value { name: name.to_owned(), value: (value * per_unit).to_string() };
        self.set(name, whole(value, per_unit).ok_or_else(refused)?)
    }

    /// The figure of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<i64> {
        self.0.get(name).copied()
    }

    /// All figures in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Errors: a name, a value or a count that [`Figures::set`] would have refused.
    pub(crate) fn check(&self) -> Result<(), FigureError> {
        if self.0.len() > FIGURES_MAX {
            return Err(FigureError::TooMany { found: self.0.len() });
        }
        for (name, value) in &self.0 {
            check_name(name)?;
            check_value(name, *value)?;
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), FigureError> {
    let words = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let unit = UNIT_ENDINGS.iter().any(|ending| name.len() > ending.len() && name.ends_with(ending));
    if words && unit && name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(FigureError::Name { name: name.chars().take(NAME_BYTES_MAX).collect() })
}

fn check_value(name: &str, value: i64) -> Result<(), FigureError> {
    if -INTEGER_LIMIT < value && value < INTEGER_LIMIT {
        return Ok(());
    }
    Err(FigureError::Value { name: name.to_owned(), value: value.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_becomes_the_nearest_integer_of_its_unit() {
        let mut figures = Figures::default();
        figures.set_scaled(TPOT_NS, 0.041_733_281_4, 1e9).expect("finite");
        figures.set_scaled(TOKENS_PER_SECOND_MILLI, 23.9615, 1e3).expect("finite");
        figures.set_scaled(TEMPERATURE_MAX_MILLICELSIUS, -3.25, 1e3).expect("finite");
        assert_eq!(
            figures.iter().collect::<Vec<_>>(),
            [("temperature_max_millicelsius", -3250), ("tokens_per_second_milli", 23962), ("tpot_ns", 41_733_281)]
        );
    }

    #[test]
    fn what_no_integer_holds_is_refused_and_not_clamped() {
        let mut figures = Figures::default();
        for value in [f64::NAN, f64::INFINITY, -1e300, 9_007_199.254_740_992] {
            assert!(figures.set_scaled(TTFT_NS, value, 1e9).is_err(), "{value}");
        }
        assert!(figures.set(TTFT_NS, INTEGER_LIMIT).is_err());
        assert!(figures.set_scaled(TTFT_NS, 9_007_199.254_740_99, 1e9).is_ok());
    }

    #[test]
    fn a_name_without_a_unit_is_refused() {
        let mut figures = Figures::default();
        for name in ["", "tpot", "_ns", "TPOT_NS", "tpot ns", "tpot_ns ", "é_ns", "tpot_seconds"] {
            assert!(figures.set(name, 1).is_err(), "{name}");
        }
        assert_eq!(figures, Figures::default());
    }
}
