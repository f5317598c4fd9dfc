//! Where a device throttles, read from a log of its clock and temperature.
//!
//! A device that is busy and falls from its full clock at the same temperature each time throttles by heat. One that falls
//! at all sorts of temperatures is held down by something else, such as a power cap, and says nothing about heat.

use super::log::ThermalLog;
use crate::units::Celsius;
use serde::Serialize;

/// Share of the time that a device works, from which on its clock says what it can do.
const BUSY: f64 = 0.5;
/// Share of the full clock below which it is held down, and from which on it is back.
const HELD: f64 = 0.93;
const BACK: f64 = 0.96;
/// Largest spread of the temperatures at which a device falls, in kelvin, that one threshold explains.
const SPREAD_MAX: f64 = 2.5;
/// Falls that a threshold takes, and samples at full clock before a fall counts as one.
const FALLS_MIN: usize = 2;
const FULL_MIN: usize = 3;
/// Kelvin above the threshold at which a busy device at full clock contradicts it, and the share of busy samples that may.
const ABOVE: f64 = 2.0;
const ABOVE_SHARE: f64 = 0.02;

/// A step that a device takes when it is hot.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Throttling {
    /// Temperature at which it slows itself: median over the falls.
    pub at_celsius: Celsius,
    /// Temperature at which it is at full clock again; absent where the log shows no return.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_celsius: Option<Celsius>,
    /// Clock while it is slowed, as a share of its full clock: the median.
    pub speed: f64,
    /// How often it fell.
    pub falls: usize,
    /// Full clock in MHz.
    pub full_megahertz: f64,
}

impl Throttling {
    /// The throttle that a log shows; none where it shows none, or has no clock.
    #[must_use]
    pub fn of(log: &ThermalLog) -> Option<Self> {
        let clock = log.clock.as_ref()?;
        let busy = |at: usize| log.utilisation.as_ref().is_none_or(|share| share[at] >= BUSY);
        let mut clocks: Vec<f64> = (0..log.len()).filter(|&at| busy(at)).map(|at| clock[at]).collect();
        clocks.sort_by(f64::total_cmp);
        // Not the very highest, which a device has for a moment when it begins.
        let full = *clocks.get(clocks.len().checked_sub(1)? * 95 / 100)?;
        let (mut falls, mut returns, mut slowed) = (Vec::new(), Vec::new(), Vec::new());
        let (mut run, mut held) = (0, false);
        for (at, &megahertz) in clock.iter().enumerate() {
            if !busy(at) {
                (run, held) = (0, false);
                continue;
            }
            if held {
                if megahertz >= BACK * full {
                    returns.push(log.celsius[at]);
                    (run, held) = (1, false);
                } else {
                    slowed.push(megahertz / full);
                }
            } else if megahertz < HELD * full {
                if run >= FULL_MIN {
                    // The sensor was read just before the clock answered to it.
                    falls.push(log.celsius[at].max(log.celsius[at - 1]));
                    slowed.push(megahertz / full);
                    held = true;
                }
                run = 0;
            } else {
                run += 1;
            }
        }
        let at = median(&mut falls)?;
        if falls.len() < FALLS_MIN || falls[falls.len() - 1] - falls[0] > SPREAD_MAX {
            return None;
        }
        let above =
            (0..log.len()).filter(|&i| busy(i) && clock[i] >= BACK * full && log.celsius[i] > at + ABOVE).count();
        if above as f64 > ABOVE_SHARE * clocks.len() as f64 {
            return None;
        }
        Some(Self {
            at_celsius: Celsius::new(at).ok()?,
            back_celsius: median(&mut returns).filter(|back| *back < at).and_then(|back| Celsius::new(back).ok()),
            speed: median(&mut slowed)?,
            falls: falls.len(),
            full_megahertz: full,
        })
    }
}

/// The middle of some figures, which are sorted; none of none.
fn median(figures: &mut [f64]) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that is busy and throttles at 83 °C until 78 °C; `cap` lowers the clock by power instead.
    fn log(throttles: bool, cap: bool) -> ThermalLog {
        let (mut celsius, mut slow) = (40.0, false);
        let mut log = ThermalLog { clock: Some(Vec::new()), utilisation: Some(Vec::new()), ..ThermalLog::default() };
        for second in 0..1200 {
            let busy = second % 300 > 20;
            if throttles {
                slow = if slow { celsius > 78.0 } else { celsius >= 83.0 };
            }
            // A cap that binds while some phases of the work draw much.
            let capped = cap && second % 37 < 9;
            let speed = if slow {
                0.6
            } else if capped {
                0.8
            } else {
                1.0
            };
            let watts = if busy { 30.0 + 270.0 * speed } else { 30.0 };
            celsius += (watts * 0.25 + 25.0 - celsius) / 60.0;
            log.seconds.push(f64::from(second));
            log.watts.push(watts);
            log.celsius.push(f64::round(celsius));
            log.clock.as_mut().expect("there").push(if busy { 1800.0 * speed } else { 210.0 });
            log.utilisation.as_mut().expect("there").push(if busy { 0.98 } else { 0.0 });
        }
        log
    }

    #[test]
    fn a_throttle_is_found_where_it_is_with_its_hysteresis_and_speed() {
        let found = Throttling::of(&log(true, false)).expect("it throttles");
        assert!((found.at_celsius.value() - 83.0).abs() <= 1.0, "{found:?}");
        assert!(found.back_celsius.is_some_and(|back| (back.value() - 78.0).abs() <= 1.0), "{found:?}");
        assert!((found.speed - 0.6).abs() < 0.01 && found.falls >= 3 && found.full_megahertz == 1800.0, "{found:?}");
    }

    #[test]
    fn what_never_falls_or_falls_at_all_temperatures_is_no_throttle() {
        assert_eq!(Throttling::of(&log(false, false)), None);
        assert_eq!(Throttling::of(&log(false, true)), None);
        assert_eq!(Throttling::of(&ThermalLog { clock: None, ..log(true, false) }), None);
        assert_eq!(Throttling::of(&ThermalLog { clock: Some(Vec::new()), ..ThermalLog::default() }), None);
    }
}
