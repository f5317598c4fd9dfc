//! Telemetry: what every card does, once a second, in one type; kept for a while, watched, and shown to others.
//!
//! A value that could not be read is absent, and a sample that is late is stale: neither is filled with an older one. Files
//! are kept by path and opened anew at each reading, since a card that fell off its bus takes its files with it.

pub mod alerts;
pub mod nvml;
mod plugged;
pub mod prometheus;
pub mod ring;

pub use alerts::{Alert, AlertKind, Alerts, Limits};
pub use nvml::{Nvml, Reasons};
pub use plugged::Plugged;
pub use ring::Ring;

use crate::discover::{Card, Machine};
use crate::host::{Roots, Sensors, number, text};
use isotherm_core::device::Device;
use isotherm_core::units::{Bytes, Celsius, Hertz, Joules, Watts};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was read of one device at one moment. Nothing in it is estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Position of the device in [`Sampler::devices`].
    pub device: usize,
    /// When it was read, in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether the device answered at all.
    pub answered: bool,
    /// Temperature of the die.
    pub celsius: Option<Celsius>,
    /// Temperature of its hottest spot.
    pub hot_spot_celsius: Option<Celsius>,
    /// Temperature of its memory.
    pub memory_celsius: Option<Celsius>,
    /// Power.
    pub watts: Option<Watts>,
    /// Energy since the sampler began, from its counter.
    pub joules: Option<Joules>,
    /// Clock of its compute units.
    pub clock_hertz: Option<Hertz>,
    /// Share of the time it worked.
    pub busy: Option<f64>,
    /// Memory in use.
    pub memory_used_bytes: Option<Bytes>,
    /// Turns of its fan in a minute.
    pub fan_rpm: Option<u32>,
    /// Whether it slows itself because it is hot.
    pub throttled: Option<bool>,
    /// Why its clock is held down, where its driver tells.
    pub reasons: Option<Reasons>,
}

/// A device that is sampled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Watched {
    /// Its identity, as in the registry.
    pub key: String,
    /// Where it is on the bus, for what is there.
    pub pci: Option<String>,
    /// Its name.
    pub name: String,
    /// All its memory, where it has its own or is the host.
    pub memory_bytes: Option<Bytes>,
    /// The temperature its maker calls critical.
    pub critical_celsius: Option<Celsius>,
}

impl Watched {
    /// Whether it is the card of a planned device. Tools of the maker put a word before the identifier that the driver gives;
    /// the place on the bus tells a card of which only one of the two is known by its identifier.
    #[must_use]
    pub fn is_of(&self, device: &Device) -> bool {
        let plain = |text: &str| text.trim_start_matches("GPU-").trim_start_matches("MIG-").to_ascii_lowercase();
        let same = |uuid: &str| plain(uuid) == plain(&self.key);
        device.uuid.as_deref().is_some_and(same) || (self.pci.is_some() && self.pci == device.pci)
    }
}

/// Where the values of one device are.
#[derive(Clone, Debug)]
enum Source {
    Card(Box<Card>, Option<PathBuf>),
    /// A card that NVIDIA's library tells of, by its number there.
    Nvidia(Arc<Nvml>, u32),
    Processor(Box<Processor>),
}

#[derive(Clone, Debug)]
struct Processor {
    roots: Roots,
    sensors: Sensors,
    /// Busy and all ticks at the last reading.
    ticks: Option<(u64, u64)>,
    /// Counts of the packages at the last reading, and the energy since the first.
    counts: Vec<Option<u64>>,
    joules: Option<Joules>,
    throttles: Option<u64>,
}

/// Reads the devices of a host.
#[derive(Clone, Debug)]
pub struct Sampler {
    devices: Vec<Watched>,
    sources: Vec<Source>,
}

impl Sampler {
    /// Everything of a machine that can be sampled: its processors first, then its cards.
    #[must_use]
    pub fn new(roots: &Roots, machine: &Machine) -> Self {
        let sensors = Sensors::discover(roots);
        let host = Watched {
            key: "cpu".to_owned(),
            pci: None,
            name: machine.host.cpu_model.clone().unwrap_or_else(|| "processor".to_owned()),
            memory_bytes: machine.host.memory_total_bytes,
            critical_celsius: processor_sensor(&sensors).and_then(|sensor| sensor.critical),
        };
        let processor = Processor {
            roots: roots.clone(),
            counts: vec![None; sensors.energies.len()],
            joules: None,
            ticks: None,
            throttles: None,
            sensors,
        };
        let (mut devices, mut sources) = (vec![host], vec![Source::Processor(Box::new(processor))]);
        for card in &machine.cards {
            let (device, source) = watched(roots, card);
            devices.push(device);
            sources.push(source);
        }
        Self { devices, sources }
    }

    /// The same for the host that this program runs on, whose NVIDIA cards are asked through their library where it is
    /// there. A rehearsed host of files has none.
    #[must_use]
    pub fn of_host(roots: &Roots, machine: &Machine) -> Self {
        let mut sampler = Self::new(roots, machine);
        if *roots == Roots::default()
            && let Some(library) = Nvml::of_host()
        {
            sampler.ask(library);
        }
        sampler
    }

    /// Takes the cards of a machine that was looked at again: new ones join at the end, known ones are read where they are
    /// now, whichever slot that is.
    pub fn adopt(&mut self, roots: &Roots, machine: &Machine) {
        for card in &machine.cards {
            let (device, source) = watched(roots, card);
            match self.devices.iter().position(|known| known.key == card.key) {
                // What a library tells of stays with it, wherever its card is.
                Some(place) if matches!(self.sources[place], Source::Nvidia(..)) => {}
                Some(place) => (self.devices[place], self.sources[place]) = (device, source),
                None => {
                    self.devices.push(device);
                    self.sources.push(source);
                }
            }
        }
    }

    /// Reads NVIDIA's cards through their library from now on; a card that the kernel's files do not show joins at the end.
    pub fn ask(&mut self, library: &Arc<Nvml>) {
        for card in library.cards() {
            let by_pci = |key: &str| card.pci.as_deref().is_some_and(|pci| key == format!("pci-{pci}"));
            let known = |device: &Watched| card.uuid.as_deref() == Some(device.key.as_str()) || by_pci(&device.key);
            let source = Source::Nvidia(Arc::clone(library), card.index);
            let place = self.devices.iter().position(known);
            let told = Watched {
                key: card.uuid.clone().unwrap_or_else(|| format!("nvidia-{}", card.index)),
                pci: card.pci.clone(),
                name: card.name.clone().unwrap_or_else(|| "NVIDIA card".to_owned()),
                memory_bytes: card.memory_bytes,
                critical_celsius: card.slowdown_celsius,
            };
            match place {
                Some(place) => (self.devices[place], self.sources[place]) = (told, source),
                None => {
                    self.devices.push(told);
                    self.sources.push(source);
                }
            }
        }
    }

    /// The devices, in the order of samples.
    #[must_use]
    pub fn devices(&self) -> &[Watched] {
        &self.devices
    }

    /// Reads every device once.
    pub fn sample(&mut self, at_ms: u64) -> Vec<Sample> {
        let read = |(device, source): (usize, &mut Source)| match source {
            Source::Card(card, folder) => of_card(device, at_ms, card, folder.as_deref()),
            Source::Nvidia(library, index) => library.sample(*index, device, at_ms),
            Source::Processor(processor) => processor.sample(device, at_ms),
        };
        self.sources.iter_mut().enumerate().map(read).collect()
    }
}

/// A card to sample, and where its values are.
fn watched(roots: &Roots, card: &Card) -> (Watched, Source) {
    let device = Watched {
        key: card.key.clone(),
        pci: card.pci.clone(),
        name: card.name.clone(),
        memory_bytes: card.memory_bytes,
        critical_celsius: critical(card),
    };
    let folder = card.pci.as_ref().map(|address| roots.sys.join("bus/pci/devices").join(address));
    (device, Source::Card(Box::new(card.clone()), folder))
}

fn critical(card: &Card) -> Option<Celsius> {
    let edge = card.sensors.edge.as_ref()?;
    let name = edge.file_name()?.to_str()?.replace("_input", "_crit");
    crate::discover::celsius(&edge.with_file_name(name))
}

fn of_card(device: usize, at_ms: u64, card: &Card, folder: Option<&Path>) -> Sample {
    let sensors = &card.sensors;
    let celsius = |path: &Option<PathBuf>| path.as_deref().and_then(crate::discover::celsius);
    let whole = |path: &Option<PathBuf>| path.as_deref().and_then(number);
    let busy = sensors.busy.as_deref().and_then(|path| {
        // `37` or `37 %`; Jetson's load is in thousandths.
        let word = text(path)?;
        let share: f64 = word.trim_end_matches('%').trim().parse().ok()?;
        let whole = if path.ends_with("load") { 1000.0 } else { 100.0 };
        (0.0..=whole).contains(&share).then_some(share / whole)
    });
    Sample {
        device,
        at_ms,
        answered: folder.is_none_or(Path::exists),
        celsius: celsius(&sensors.edge),
        hot_spot_celsius: celsius(&sensors.hot_spot),
        memory_celsius: celsius(&sensors.memory),
        watts: whole(&sensors.power).and_then(|microwatts| Watts::new(microwatts as f64 / 1e6).ok()),
        joules: None,
        clock_hertz: whole(&sensors.clock).and_then(|hertz| Hertz::new(hertz as f64).ok()),
        busy,
        memory_used_bytes: whole(&sensors.memory_used).map(Bytes),
        fan_rpm: whole(&sensors.fan).and_then(|turns| u32::try_from(turns).ok()),
        throttled: None,
        reasons: None,
    }
}

/// The processor's own sensor: the chips that report it by the names their drivers give.
fn processor_sensor(sensors: &Sensors) -> Option<&crate::host::TemperatureSensor> {
    let chips =
        ["k10temp", "coretemp", "zenpower", "x86_pkg_temp", "cpu_thermal", "cpu-thermal", "CPU-therm", "soc_thermal"];
    chips.iter().find_map(|chip| sensors.temperatures.iter().find(|sensor| sensor.chip == *chip))
}

impl Processor {
    fn sample(&mut self, device: usize, at_ms: u64) -> Sample {
        let stat = text(&self.roots.proc.join("stat"));
        let ticks = stat.as_deref().and_then(ticks);
        let busy = self.ticks.zip(ticks).and_then(|((busy_before, before), (busy, all))| {
            let (busy, all) = (busy.checked_sub(busy_before)?, all.checked_sub(before)?);
            (all > 0).then(|| (busy as f64 / all as f64).min(1.0))
        });
        let meminfo = text(&self.roots.proc.join("meminfo"));
        let memory = |key| meminfo.as_deref().and_then(|text| crate::host::kibibytes(text, key));
        let used = memory("MemTotal").zip(memory("MemAvailable")).and_then(|(all, free)| all.0.checked_sub(free.0));
        let throttles = number(&self.roots.sys.join("devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"));
        let throttled = self.throttles.zip(throttles).map(|(before, now)| now > before);
        (self.ticks, self.throttles) = (ticks.or(self.ticks), throttles.or(self.throttles));
        let cpufreq = self.roots.sys.join("devices/system/cpu/cpu0/cpufreq/scaling_cur_freq");
        Sample {
            device,
            at_ms,
            answered: true,
            celsius: processor_sensor(&self.sensors).and_then(crate::host::TemperatureSensor::read),
            joules: self.energy(),
            clock_hertz: number(&cpufreq).and_then(|kilohertz| Hertz::new(kilohertz as f64 * 1e3).ok()),
            busy,
            memory_used_bytes: used.map(Bytes),
            throttled,
            ..Sample::default()
        }
    }

    /// Energy of all packages since the first reading; parts of a package are in it already.
    fn energy(&mut self) -> Option<Joules> {
        let mut spent = Joules::ZERO;
        let mut any = false;
        for (counter, before) in self.sensors.energies.iter().zip(&mut self.counts) {
            if counter.name.contains('/') {
                continue;
            }
            let Some(now) = counter.read() else { continue };
            if let Some(before) = *before
                && let Some(more) = counter.spent(before, now)
            {
                spent += more;
            }
            (*before, any) = (Some(now), true);
        }
        if any {
            self.joules = Some(self.joules.unwrap_or(Joules::ZERO) + spent);
        }
        self.joules
    }
}

/// Busy and all ticks of the line `cpu` in `/proc/stat`; waiting for a disk is not work.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    // user nice system idle iowait irq softirq steal; what guests used is in user already.
    let all = ticks.iter().take(8).try_fold(0_u64, |sum, ticks| sum.checked_add(*ticks))?;
    let idle = ticks.get(3)?.checked_add(*ticks.get(4).unwrap_or(&0))?;
    Some((all.checked_sub(idle)?, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_or_refused() {
        assert_eq!(ticks("cpu  10 1 5 100 4 0 0 0 3 0\ncpu0 1 1"), Some((16, 120)));
        for bad in ["", "cpu0 1 2 3 4", "cpu  1 2", "cpu  x 2 3 4", "cpu  18446744073709551615 1 1 1 1"] {
            assert_eq!(ticks(bad), None, "{bad}");
        }
    }
}
