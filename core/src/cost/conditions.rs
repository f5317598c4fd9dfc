//! Under which conditions a profile was measured, and whether it still speaks for a device.

use crate::units::{Celsius, Hertz};
use serde::{Deserialize, Serialize};

/// Clock that differs by more than this share makes a profile one of another state of the device.
const CLOCK_SHARE: f64 = 0.05;

/// What held while a profile was measured, as far as somebody told it, and how well its tables hold between their knots.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// Driver and version; for the processor, the kernel's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Kernels that were timed: instruction set, version of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<String>,
    /// Clock of the compute units, after the measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_hertz: Option<Hertz>,
    /// Temperature after the measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<Celsius>,
    /// Largest share by which the tables miss a shape that was measured and is none of their knots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpolation_error: Option<f64>,
    /// Median of the same over those shapes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpolation_error_median: Option<f64>,
    /// How many such shapes there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shapes_between: Option<u32>,
    /// Share of the timed passes during which other programs took the device's cores; those count only where there are too
    /// few others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disturbed: Option<f64>,
    /// Share of the timed passes during which somebody outside this machine took the other half of a physical core, or
    /// had moved the device's cores apart, as in a guest of a virtual machine they may. Those count only where there
    /// are too few others; absent where none was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbours: Option<f64>,
    /// How many times as long such passes took as those that count, in the median over what was timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbours_slow: Option<f64>,
    /// How many times as long all timed passes took, on average, as the tables say, in which neither disturbed passes
    /// count nor the longest of the others: what sharing the device costs, as often as others came meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average_slow: Option<f64>,
    /// Factor by which the device was slowed on purpose; absent where it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowed: Option<f64>,
}

impl Conditions {
    /// Why a profile measured under these conditions does not speak for a device under `now`, in words; empty where
    /// nothing speaks against it. What either side does not know says nothing.
    #[must_use]
    pub fn contradicted_by(&self, now: &Self) -> Vec<String> {
        let mut reasons = Vec::new();
        let mut text = |what: &str, before: &Option<String>, now: &Option<String>| {
            if let (Some(before), Some(now)) = (before, now)
                && before != now
            {
                reasons.push(format!("its {what} was {before} and is {now}"));
            }
        };
        text("driver", &self.driver, &now.driver);
        text("kernels", &self.kernels, &now.kernels);
        if let (Some(before), Some(now)) = (self.clock_hertz, now.clock_hertz)
            && before.value() > 0.0
            && (now.value() / before.value() - 1.0).abs() > CLOCK_SHARE
        {
            let mega = |clock: Hertz| clock.value() / 1e6;
            reasons.push(format!("its clock was {:.0} MHz and is {:.0} MHz", mega(before), mega(now)));
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_contradicted_by_what_both_sides_know_and_by_nothing_else() {
        let before = Conditions {
            driver: Some("570.1".to_owned()),
            clock_hertz: Some(Hertz::of(2.0e9)),
            ..Conditions::default()
        };
        assert!(before.contradicted_by(&Conditions::default()).is_empty());
        assert!(before.contradicted_by(&before).is_empty());
        let near = Conditions { clock_hertz: Some(Hertz::of(1.95e9)), ..before.clone() };
        assert!(before.contradicted_by(&near).is_empty());
        let now = Conditions {
            driver: Some("575.2".to_owned()),
            kernels: Some("avx2".to_owned()),
            clock_hertz: Some(Hertz::of(1.5e9)),
            ..Conditions::default()
        };
        let reasons = before.contradicted_by(&now);
        assert_eq!(reasons, ["its driver was 570.1 and is 575.2", "its clock was 2000 MHz and is 1500 MHz"]);
    }
}
