//! Temperatures, power and energy that the kernel reports.

use std::path::{Path, PathBuf};

use isotherm_core::units::{Celsius, Joules, Watts};

use super::{Roots, number, numbered, text};

/// Every sensor of a host, in the order of the kernel's numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sensors {
    /// Temperatures: of chips with monitoring (`hwmon`) first, then of firmware zones (`thermal`), which often repeat
    /// the same sensor with less said about it.
    pub temperatures: Vec<TemperatureSensor>,
    /// Momentary power.
    pub powers: Vec<PowerSensor>,
    /// Energy counters of processor packages and their parts.
    pub energies: Vec<EnergyCounter>,
}

/// A temperature that can be read again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct TemperatureSensor {
    /// The chip or zone, such as `k10temp` or `x86_pkg_temp`.
    pub chip: String,
    /// Which of its temperatures, such as `Tctl`.
    pub label: Option<String>,
    /// The temperature its maker calls critical.
    pub critical: Option<Celsius>,
    path: PathBuf,
}

/// A momentary power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerSensor {
    /// The chip, such as `amdgpu`.
    pub chip: String,
    /// Which of its powers, such as `PPT`.
    pub label: Option<String>,
    path: PathBuf,
}

/// A counter of energy spent, which starts again from zero at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnergyCounter {
    /// What it counts, such as `package-0`, or `package-0/dram` for a part.
    pub name: String,
    /// One past the highest count, in microjoules.
    wrap: Option<u64>,
    path: PathBuf,
}

impl Sensors {
    /// Finds the sensors of a host. One that cannot be read now, perhaps for want of rights, is listed all the same.
    pub fn discover(roots: &Roots) -> Self {
        let chips = numbered(&roots.sys.join("class/hwmon"), "hwmon");
        let zones = numbered(&roots.sys.join("class/thermal"), "thermal_zone");
        let temperatures = chips.iter().flat_map(|(_, chip)| chip_temperatures(chip));
        Self {
            temperatures: temperatures.chain(zones.iter().filter_map(|(_, zone)| zone_temperature(zone))).collect(),
            powers: chips.iter().flat_map(|(_, chip)| chip_powers(chip)).collect(),
            energies: energy_counters(&roots.sys.join("class/powercap")),
        }
    }
}

impl TemperatureSensor {
    /// The temperature now; `None` when it cannot be read, or is outside -60 to 200 °C: a sensor that is switched off
    /// reports absolute zero or an extreme of its register.
    pub fn read(&self) -> Option<Celsius> {
        celsius(&self.path)
    }
}

impl PowerSensor {
    /// The power now; `None` when it cannot be read.
    pub fn read(&self) -> Option<Watts> {
        Watts::new(number(&self.path)? as f64 / 1e6).ok()
    }
}

impl EnergyCounter {
    /// The count now, in microjoules; `None` when it cannot be read, which most systems allow to the root user only.
    pub fn read(&self) -> Option<u64> {
        number(&self.path)
    }

    /// Energy spent between two counts. The counter may have started again once between them; `None` when it seems to
    /// have and its end is not known.
    pub fn spent(&self, before: u64, after: u64) -> Option<Joules> {
        let microjoules = match after.checked_sub(before) {
            Some(spent) => spent,
            None => self.wrap?.checked_sub(before)?.checked_add(after)?,
        };
        Joules::new(microjoules as f64 / 1e6).ok()
    }
}

/// A file with thousandths of a degree.
fn celsius(path: &Path) -> Option<Celsius> {
    let thousandths: i64 = text(path)?.parse().ok()?;
    (-60_000..=200_000).contains(&thousandths).then(|| Celsius::of(thousandths as f64 / 1e3))
}

/// The numbers `n` for which a chip has a file `{kind}{n}_{part}`, rising.
fn channels(chip: &Path, kind: &str, part: &str) -> Vec<u32> {
    let listing = chip.read_dir().into_iter().flatten().flatten();
    let mut found: Vec<u32> = listing
        .filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_prefix(kind)?.strip_suffix(part)?.strip_suffix('_')?.parse().ok()
        })
        .collect();
    found.sort_unstable();
    found
}

fn chip_temperatures(chip: &Path) -> Vec<TemperatureSensor> {
    let Some(name) = text(&chip.join("name")) else { return Vec::new() };
    let sensor = |channel: u32| TemperatureSensor {
        chip: name.clone(),
        label: text(&chip.join(format!("temp{channel}_label"))),
        critical: celsius(&chip.join(format!("temp{channel}_crit"))),
        path: chip.join(format!("temp{channel}_input")),
    };
    channels(chip, "temp", "input").into_iter().map(sensor).collect()
}

/// Chips report either a momentary power or an average over a short time; where both are there, the momentary one.
fn chip_powers(chip: &Path) -> Vec<PowerSensor> {
    let Some(name) = text(&chip.join("name")) else { return Vec::new() };
    let momentary = channels(chip, "power", "input");
    let average = channels(chip, "power", "average").into_iter().filter(|channel| !momentary.contains(channel));
    let mut all: Vec<(u32, &str)> = average.map(|channel| (channel, "average")).collect();
    all.extend(momentary.iter().map(|&channel| (channel, "input")));
    all.sort_unstable();
    let sensor = |(channel, part): (u32, &str)| PowerSensor {
        chip: name.clone(),
        label: text(&chip.join(format!("power{channel}_label"))),
        path: chip.join(format!("power{channel}_{part}")),
    };
    all.into_iter().map(sensor).collect()
}

fn zone_temperature(zone: &Path) -> Option<TemperatureSensor> {
    let path = zone.join("temp");
    path.exists().then_some(())?;
    let trips = channels(zone, "trip_point_", "type").into_iter();
    let critical = trips
        .filter(|trip| text(&zone.join(format!("trip_point_{trip}_type"))).as_deref() == Some("critical"))
        .find_map(|trip| celsius(&zone.join(format!("trip_point_{trip}_temp"))));
    Some(TemperatureSensor { chip: text(&zone.join("type"))?, label: None, critical, path })
}

/// RAPL zones, such as `intel-rapl:0` and its part `intel-rapl:0:1`; AMD processors use the same names.
fn energy_counters(folder: &Path) -> Vec<EnergyCounter> {
    let listing = folder.read_dir().into_iter().flatten().flatten();
    let mut zones: Vec<(Vec<u32>, PathBuf)> = listing
        .filter_map(|entry| {
            let name = entry.file_name();
            let numbers = name.to_str()?.strip_prefix("intel-rapl:")?.split(':').map(str::parse);
            Some((numbers.collect::<Result<_, _>>().ok()?, entry.path()))
        })
        .collect();
    zones.sort();
    let name_of = |numbers: &[u32]| {
        let zone = zones.iter().find(|(other, _)| other == numbers)?;
        text(&zone.1.join("name"))
    };
    let counter = |(numbers, zone): &(Vec<u32>, PathBuf)| {
        let own = text(&zone.join("name"))?;
        let parent = if numbers.len() > 1 { name_of(&numbers[..1]) } else { None };
        let path = zone.join("energy_uj");
        path.exists().then(|| EnergyCounter {
            name: parent.map_or(own.clone(), |parent| format!("{parent}/{own}")),
            // The file holds the highest count, after which comes 0.
            wrap: number(&zone.join("max_energy_range_uj")).and_then(|highest| highest.checked_add(1)),
            path,
        })
    };
    zones.iter().filter_map(counter).collect()
}
