//! Batteries and supplies (`Documentation/ABI/testing/sysfs-class-power`).

use super::{known, names};
use crate::host::{Roots, text};
use isotherm_core::units::{Celsius, Joules, Watts};
use serde::Serialize;
use std::path::Path;

/// Joules of one microwatt hour.
const MICROWATT_HOUR: f64 = 3.6e-3;

/// A battery.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Battery {
    /// The kernel's name, such as `BAT0`.
    pub name: String,
    /// Charge as a share of what it holds when full.
    pub charge: Option<f64>,
    /// Energy it holds when full.
    pub capacity_joules: Option<Joules>,
    /// Energy it held when full as it was new.
    pub design_joules: Option<Joules>,
    /// Whether it is being charged; absent where nobody says.
    pub charging: Option<bool>,
    /// Power that flows in or out.
    pub watts: Option<Watts>,
    /// Its temperature.
    pub celsius: Option<Celsius>,
}

/// Another supply, such as the mains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Supply {
    /// The kernel's name, such as `AC`.
    pub name: String,
    /// `Mains` or `USB`.
    pub kind: String,
    /// Whether it is plugged in.
    pub online: Option<bool>,
}

pub(super) fn supplies(roots: &Roots) -> (Vec<Battery>, Vec<Supply>) {
    let folder = roots.sys.join("class/power_supply");
    let (mut batteries, mut others) = (Vec::new(), Vec::new());
    for name in names(&folder) {
        let path = folder.join(&name);
        match text(&path.join("type")).as_deref() {
            // The battery of a mouse is a battery, but not this machine's.
            Some("Battery") if text(&path.join("scope")).as_deref() != Some("Device") => {
                batteries.push(battery(&path, name));
            }
            Some(kind @ ("Mains" | "USB" | "Wireless")) => {
                let online = text(&path.join("online")).and_then(|word| Some(word.parse::<u8>().ok()? > 0));
                others.push(Supply { name, kind: kind.to_owned(), online });
            }
            _ => {}
        }
    }
    (batteries, others)
}

fn battery(path: &Path, name: String) -> Battery {
    // Each number in millionths: microwatt hours, microampere hours, microvolts.
    let millionths = |name: &str| text(&path.join(name))?.parse::<i64>().ok().map(|number| number as f64);
    let volts = millionths("voltage_min_design").or_else(|| millionths("voltage_now")).filter(|volts| *volts > 0.0);
    // Some count energy, others charge, which is energy at the voltage it was rated for.
    let energy = |energy: &str, charge: &str| {
        let microwatt_hours = millionths(energy).or_else(|| Some(millionths(charge)? * volts? / 1e6))?;
        Joules::new(microwatt_hours * MICROWATT_HOUR).ok().filter(|energy| *energy > Joules::ZERO)
    };
    let percent = millionths("capacity").filter(|percent| (0.0..=100.0).contains(percent));
    let watts = millionths("power_now").or_else(|| Some(millionths("current_now")? * millionths("voltage_now")? / 1e6));
    Battery {
        charge: percent.map(|percent| percent / 100.0),
        capacity_joules: energy("energy_full", "charge_full"),
        design_joules: energy("energy_full_design", "charge_full_design"),
        charging: known(&path.join("status")).and_then(|status| match status.as_str() {
            "Charging" | "Full" => Some(true),
            "Discharging" => Some(false),
            // Plugged in and still not charging: neither.
            _ => None,
        }),
        watts: watts.and_then(|microwatts| Watts::new(microwatts.abs() / 1e6).ok()),
        // In tenths of a degree.
        celsius: millionths("temp")
            .map(|tenths| tenths / 10.0)
            .filter(|c| (-60.0..=200.0).contains(c))
            .map(Celsius::of),
        name,
    }
}
