//! Governors attached to the devices of a run: each reads its device's sensor, and together they pace the run.
//!
//! A run is paced between its steps, where nothing is under way on any device: the cache of every request stays where
//! it is, and a pause is nothing but a longer time between two steps.

use super::{Act, Action, Governor, Guarded, Means, Reading, Settings};
use crate::discover::{Card, Machine};
use crate::host::{Roots, number};
use crate::telemetry::nvml::NvmlCard;
use crate::telemetry::{Nvml, Sample, Sampler};
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::power::Draw;
use isotherm_core::thermal::ThermalNode;
use isotherm_core::units::{Celsius, Joules, Seconds, Watts};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shares are passed on in millionths.
const WHOLE: u64 = 1_000_000;
/// Longest nap of a paced run before it looks again at what it may do.
const NAP: Duration = Duration::from_millis(20);
/// Longest pause that one step earns, so that a share that rises is noticed.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A device that runs without a governor, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unguarded {
    /// The device.
    pub device: String,
    /// What is not known of it.
    pub why: &'static str,
}

/// What a run may do, told by the governors and obeyed between steps.
#[derive(Debug)]
pub struct Pace {
    /// Share of full work that is allowed, in millionths; 0 pauses.
    share: AtomicU64,
    /// Time worked since somebody asked, in nanoseconds.
    worked: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { share: AtomicU64::new(WHOLE), worked: AtomicU64::new(0) }
    }
}

impl Pace {
    /// Allows this share of full work from now on; 0 pauses.
    pub fn allow(&self, share: f64) {
        let share = (share.clamp(0.0, 1.0) * WHOLE as f64).round() as u64;
        self.share.store(share, Ordering::Relaxed);
    }

    /// The share that is allowed.
    #[must_use]
    pub fn allowed(&self) -> f64 {
        self.share.load(Ordering::Relaxed) as f64 / WHOLE as f64
    }

    /// Time worked since this was last asked.
    pub fn worked(&self) -> Duration {
        Duration::from_nanos(self.worked.swap(0, Ordering::Relaxed))
    }
}

/// The side of a run that keeps the pace.
#[derive(Debug)]
pub struct Paced<'a> {
    pace: &'a Pace,
    /// When the last step's pause was over.
    since: Instant,
}

impl<'a> Paced<'a> {
    /// A run that begins now.
    #[must_use]
    pub fn new(pace: &'a Pace) -> Self {
        Self { pace, since: Instant::now() }
    }

    /// After a step: rests as long as the pace asks for, and while it is 0, unless `ends` says that the run is over.
    pub fn rest(&mut self, ends: &dyn Fn() -> bool) {
        let worked = self.since.elapsed();
        let nanoseconds = u64::try_from(worked.as_nanos()).unwrap_or(u64::MAX);
        self.pace.worked.fetch_add(nanoseconds, Ordering::Relaxed);
        let begun = Instant::now();
        loop {
            let share = self.pace.allowed();
            let wanted =
                if share > 0.0 { worked.mul_f64((1.0 / share - 1.0).min(1e6)).min(PAUSE_MAX) } else { Duration::MAX };
            let rested = begun.elapsed();
            if rested >= wanted || ends() {
                break;
            }
            std::thread::sleep((wanted - rested).min(NAP));
        }
        self.since = Instant::now();
    }
}

/// A power limit that this program may set. It is set back when this goes.
#[derive(Debug)]
struct Cap {
    place: Place,
    before: Watts,
    range: (Watts, Watts),
}

/// Where a limit is set.
#[derive(Debug)]
enum Place {
    /// A file of the kernel's, in microwatts.
    File(PathBuf),
    /// NVIDIA's library, by the card's number there.
    Library(Arc<Nvml>, u32),
}

impl Cap {
    /// The limit beside a power sensor of a card, or the one that its library takes, where it may be set.
    fn of(card: &Card) -> Option<Self> {
        let cap = card.sensors.power.as_deref().and_then(Self::of_file).or_else(|| Self::of_library(card))?;
        // What is in force already changes nothing; who may not set it learns it here and not in the middle of a run.
        (cap.range.0 < cap.range.1 && cap.set(cap.before)).then_some(cap)
    }

    fn of_file(power: &Path) -> Option<Self> {
        let file = |part: &str| power.with_file_name(format!("power1_{part}"));
        let read = |part: &str| number(&file(part)).map(|microwatts| Watts::of(microwatts as f64 / 1e6));
        let range = (read("cap_min")?, read("cap_max")?);
        Some(Self { place: Place::File(file("cap")), before: read("cap")?, range })
    }

    fn of_library(card: &Card) -> Option<Self> {
        let library = Nvml::of_host()?;
        let same = |told: &&NvmlCard| {
            told.uuid == card.uuid && card.uuid.is_some() || told.pci == card.pci && card.pci.is_some()
        };
        let told = library.cards().iter().find(same)?;
        let place = Place::Library(Arc::clone(library), told.index);
        Some(Self { place, before: told.power_limit_watts?, range: told.power_range_watts? })
    }

    fn set(&self, watts: Watts) -> bool {
        match &self.place {
            Place::File(path) => std::fs::write(path, format!("{:.0}", watts.value() * 1e6)).is_ok(),
            Place::Library(library, index) => library.set_power_limit(*index, watts),
        }
    }
}

impl Drop for Cap {
    fn drop(&mut self) {
        // A card that is gone keeps no limit.
        let _ = self.set(self.before);
    }
}

/// One device and its governor.
#[derive(Debug)]
struct Ward {
    device: String,
    governor: Governor,
    /// Its position among the sampled devices; absent where nothing samples it.
    source: Option<usize>,
    cap: Option<Cap>,
    /// Energy counter at the last reading, and when that was.
    joules: Option<(Joules, u64)>,
}

/// The governors of a run's devices.
#[derive(Debug)]
pub struct Keeper {
    wards: Vec<Ward>,
    sampler: Sampler,
    period: Seconds,
}

/// An action on a device, for the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Acted {
    /// The device.
    pub device: String,
    /// What is done, and the forecast that caused it.
    pub action: Action,
    /// Whether a power limit was set as asked; absent where none was asked for.
    pub set: Option<bool>,
}

impl Keeper {
    /// Attaches a governor to each device of which enough is known: how it warms, what it draws idle and busy, and a
    /// temperature that it must not pass (`limit`, or where it throttles, or what its maker calls critical). Gives what
    /// stays without one, and why.
    #[must_use]
    pub fn attach(
        roots: &Roots,
        devices: &[&Device],
        air: Celsius,
        limit: Option<Celsius>,
        settings: Settings,
    ) -> (Self, Vec<Unguarded>) {
        let machine = Machine::discover(roots);
        let mut sampler = Sampler::of_host(roots, &machine);
        let now = sampler.sample(0);
        let (mut wards, mut unguarded) = (Vec::new(), Vec::new());
        for device in devices {
            // Sets of cores share their processor's sensor; the first of the samples is its.
            let source = match device.kind {
                DeviceKind::Cpu if device.backend == "cpu" => Some(0),
                _ => machine
                    .cards
                    .iter()
                    .position(|card| known_as(device, &card.key, card.pci.as_deref()))
                    .map(|at| at + 1),
            };
            let critical = source.and_then(|source| sampler.devices()[source].critical_celsius);
            match guarded(device, air, limit, critical) {
                Err(why) => unguarded.push(Unguarded { device: device.name.clone(), why }),
                Ok(guarded) => {
                    let card = source.and_then(|source| machine.cards.get(source.checked_sub(1)?));
                    let cap = card.and_then(Cap::of);
                    let means = Means { caps: cap.as_ref().map(|cap| cap.range), batch: true, shift: false };
                    let celsius = source.and_then(|source| hottest(&now[source]));
                    let governor = Governor::new(guarded, means, settings, celsius);
                    let joules = source.and_then(|source| Some((now[source].joules?, 0)));
                    wards.push(Ward { device: device.name.clone(), governor, source, cap, joules });
                }
            }
        }
        (Self { wards, sampler, period: settings.period }, unguarded)
    }

    /// Devices that have a governor, and whether a sensor stands behind it.
    pub fn guarded(&self) -> impl Iterator<Item = (&str, bool)> {
        self.wards.iter().map(|ward| (ward.device.as_str(), !ward.governor.is_blind()))
    }

    /// Time between two readings.
    #[must_use]
    pub const fn period(&self) -> Seconds {
        self.period
    }

    /// Reads every device after a period, in which the run worked this share of the time, and lets its governor act.
    /// The pace follows the device that bears least.
    pub fn step(&mut self, at_ms: u64, work: f64, pace: &Pace) -> Vec<Acted> {
        let samples = self.sampler.sample(at_ms);
        let mut acted = Vec::new();
        for ward in &mut self.wards {
            let sample = ward.source.and_then(|source| samples.get(source));
            let reading = Reading {
                temperature: sample.and_then(hottest),
                power: sample.and_then(|sample| sample.watts.or_else(|| ward.mean_power(sample))),
                air: None,
                work,
                demand: 1.0,
                charge: None,
            };
            for action in ward.governor.step(&reading) {
                let set = match (action.act, &ward.cap) {
                    (Act::Cap { watts }, Some(cap)) => Some(cap.set(watts)),
                    (Act::Resume, Some(cap)) => Some(cap.set(cap.range.1)),
                    _ => None,
                };
                acted.push(Acted { device: ward.device.clone(), action, set });
            }
        }
        pace.allow(self.share());
        acted
    }

    /// The share of full work that the run may do: that of the device that bears least. A power limit that was set
    /// holds its device by itself, and only a pause counts there.
    #[must_use]
    pub fn share(&self) -> f64 {
        let share = |ward: &Ward| match (&ward.cap, ward.governor.share()) {
            (Some(_), share) if share > 0.0 => 1.0,
            (_, share) => share,
        };
        self.wards.iter().map(share).fold(1.0, f64::min)
    }
}

impl Ward {
    /// Mean power since the last reading, from a counter of energy.
    fn mean_power(&mut self, sample: &Sample) -> Option<Watts> {
        let now = (sample.joules?, sample.at_ms);
        let before = self.joules.replace(now)?;
        let seconds = now.1.checked_sub(before.1)? as f64 / 1e3;
        Watts::new((now.0.value() - before.0.value()) / seconds).ok().filter(|_| seconds > 0.0)
    }
}

/// Whether a planned device is a card that was found.
fn known_as(device: &Device, key: &str, pci: Option<&str>) -> bool {
    device.uuid.as_deref() == Some(key) || (pci.is_some() && device.pci.as_deref() == pci)
}

/// The hottest that a sample tells of.
fn hottest(sample: &Sample) -> Option<Celsius> {
    [sample.celsius, sample.hot_spot_celsius].into_iter().flatten().max_by(|a, b| a.value().total_cmp(&b.value()))
}

/// What the governor has to know of a device. Errors: what of it nobody told.
fn guarded(
    device: &Device,
    air: Celsius,
    limit: Option<Celsius>,
    critical: Option<Celsius>,
) -> Result<Guarded, &'static str> {
    let record = device.thermal.as_ref().ok_or("how it warms was never identified")?;
    let throttle = record.throttle_celsius.as_ref().map(|figure| figure.value);
    let limit = limit.or(throttle).or(critical).ok_or("no temperature is known that it must not pass")?;
    device.idle_watts.as_ref().ok_or("its power when idle is unknown")?;
    let draw = Draw::of(device).ok_or("its power when busy is unknown")?;
    Ok(Guarded { name: device.name.clone(), limit, node: ThermalNode::of(record, air), draw })
}
