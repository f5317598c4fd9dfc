//! What sensors tell of a run's devices while it goes on: how hot they became, what they drew, how long heat slowed them.

use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::trace::{DeviceRecord, Trace};
use isotherm_core::units::{Celsius, Joules, SimDuration};
use isotherm_runtime::discover::Machine;
use isotherm_runtime::host::Roots;
use isotherm_runtime::telemetry::{Sample, Sampler};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time between two readings: an average of power over less says nothing, and a spike of heat lasts longer.
const PERIOD: Duration = Duration::from_millis(200);
/// Longest nap before it is looked whether the run is over.
const NAP: Duration = Duration::from_millis(20);

/// The sensors behind the devices of a run.
pub(super) struct Sensed {
    sampler: Sampler,
    /// The devices of the plan, and which of the sampled ones each is; absent where nothing samples it.
    devices: Vec<(String, Option<usize>)>,
    seen: Vec<Seen>,
}

/// What was read of one sampled device.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Seen {
    hottest: Option<Celsius>,
    /// The energy counter at the first reading that had one.
    counted_from: Option<Joules>,
    /// Energy since then by the counter.
    counted: Option<Joules>,
    /// When power was read last, and how much it was.
    power: Option<(u64, f64)>,
    /// Energy by the power, between readings taken as a straight line.
    summed: Option<f64>,
    /// When it was last told whether heat slows it.
    told_ms: Option<u64>,
    /// Time during which it did.
    throttled_ms: Option<u64>,
}

impl Seen {
    fn take(&mut self, sample: &Sample) {
        let read = [sample.celsius, sample.hot_spot_celsius].into_iter().flatten();
        self.hottest = read.chain(self.hottest).max_by(|a, b| a.value().total_cmp(&b.value()));
        if let Some(now) = sample.joules {
            let from = *self.counted_from.get_or_insert(now);
            self.counted = Joules::new(now.value() - from.value()).ok();
        }
        if let Some(watts) = sample.watts {
            let now = (sample.at_ms, watts.value());
            if let Some((at, before)) = self.power.replace(now) {
                let seconds = now.0.saturating_sub(at) as f64 / 1e3;
                self.summed = Some(self.summed.unwrap_or(0.0) + seconds * f64::midpoint(before, now.1));
            }
        }
        if let Some(throttled) = sample.throttled {
            // A reading tells of the time since the one before it.
            let since = self.told_ms.replace(sample.at_ms).map_or(0, |before| sample.at_ms.saturating_sub(before));
            self.throttled_ms = Some(self.throttled_ms.unwrap_or(0) + if throttled { since } else { 0 });
        }
    }

    fn energy(&self) -> Option<Joules> {
        self.counted.or_else(|| Joules::new(self.summed?).ok())
    }
}

impl Sensed {
    /// The sensors of these devices, read once.
    pub(super) fn attach(roots: &Roots, devices: &[&Device]) -> Self {
        let machine = Machine::discover(roots);
        let sampler = Sampler::of_host(roots, &machine);
        let place = |device: &Device| match device.kind {
            // All cores share their processor's sensors, which come first.
            DeviceKind::Cpu if device.backend == "cpu" => Some(0),
            _ => sampler.devices().iter().position(|sampled| sampled.is_of(device)),
        };
        let devices = devices.iter().map(|device| (device.name.clone(), place(device))).collect();
        let seen = vec![Seen::default(); sampler.devices().len()];
        let mut sensed = Self { sampler, devices, seen };
        sensed.read(0);
        sensed
    }

    fn read(&mut self, at_ms: u64) {
        for sample in self.sampler.sample(at_ms) {
            self.seen[sample.device].take(&sample);
        }
    }

    /// Reads until the run is over, and once more.
    pub(super) fn watch(mut self, over: &AtomicBool) -> Self {
        let begun = Instant::now();
        let at = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut next = PERIOD;
        while !over.load(Ordering::Relaxed) {
            std::thread::sleep(NAP.min(next.saturating_sub(begun.elapsed())));
            if begun.elapsed() >= next {
                self.read(at());
                next = begun.elapsed() + PERIOD;
            }
        }
        self.read(at());
        self
    }

    /// Writes what was read into a trace: from before the weights were loaded until the end.
    pub(super) fn tell(&self, trace: &mut Trace) {
        for record in &mut trace.devices {
            let known = self.devices.iter().find(|(name, _)| *name == record.name);
            if let Some(place) = known.and_then(|(_, place)| *place) {
                self.tell_of(record, place);
            }
        }
    }

    fn tell_of(&self, record: &mut DeviceRecord, place: usize) {
        let seen = &self.seen[place];
        let sharing = self.devices.iter().filter(|(_, other)| *other == Some(place)).count();
        // What several devices drew together is none's alone.
        let energy = seen.energy().filter(|_| sharing == 1);
        if seen.hottest.is_none() && seen.energy().is_none() && seen.throttled_ms.is_none() {
            return;
        }
        record.temperature_max_celsius = seen.hottest;
        record.energy_joules = energy;
        record.throttled_ns = seen.throttled_ms.map(|ms| SimDuration(ms.saturating_mul(1_000_000)));
        let key = &self.sampler.devices()[place].key;
        record.source = match sharing {
            1 => format!("sensors of {key}"),
            _ => format!("sensors of {key}, which {sharing} devices share"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_core::units::Watts;

    fn sample(at_ms: u64) -> Sample {
        Sample { at_ms, answered: true, ..Sample::default() }
    }

    #[test]
    fn energy_is_the_counters_and_without_one_the_area_under_the_power() {
        let mut seen = Seen::default();
        for (at_ms, watts) in [(0, 100.0), (1000, 200.0), (3000, 200.0)] {
            seen.take(&Sample { watts: Watts::new(watts).ok(), ..sample(at_ms) });
        }
        assert_eq!(seen.energy(), Joules::new(150.0 + 400.0).ok());
        for joules in [7.0, 19.5] {
            seen.take(&Sample { joules: Joules::new(joules).ok(), ..sample(4000) });
        }
        assert_eq!(seen.energy(), Joules::new(12.5).ok());
        assert_eq!(Seen::default().energy(), None);
    }

    #[test]
    fn the_hottest_reading_and_the_time_slowed_by_heat_are_kept() {
        let mut seen = Seen::default();
        for (at_ms, celsius, spot, throttled) in
            [(0, 50.0, 60.0, false), (100, 71.0, 69.0, true), (300, 64.0, 66.0, true), (400, 55.0, 56.0, false)]
        {
            let (celsius, hot_spot_celsius) = (Some(Celsius::of(celsius)), Some(Celsius::of(spot)));
            seen.take(&Sample { celsius, hot_spot_celsius, throttled: Some(throttled), ..sample(at_ms) });
        }
        assert_eq!((seen.hottest, seen.throttled_ms), (Some(Celsius::of(71.0)), Some(300)));
    }
}
