//! Alerts, with hysteresis: one begins where a limit is passed for some samples, and ends well on the other side of it.

use super::{Sample, Watched};
use serde::Serialize;
use std::collections::BTreeMap;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// Its memory is nearly full.
    Memory,
    /// It is hot.
    Temperature,
    /// It slows itself.
    Throttling,
    /// It does not answer.
    Lost,
}

/// An alert that began or ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The device's identity.
    pub device: String,
    /// What is wrong.
    pub kind: AlertKind,
    /// Whether it began; else it ended.
    pub raised: bool,
    /// The value that did it, in the unit of the limit.
    pub value: Option<f64>,
}

/// When an alert begins and ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Share of the memory at which it begins.
    pub memory: f64,
    /// Temperature in °C at which it begins, for devices whose maker tells none.
    pub celsius: f64,
    /// Kelvin below what its maker calls critical at which it begins.
    pub below_critical: f64,
    /// Share of the memory, and kelvin, by which it has to go back before it ends.
    pub memory_back: f64,
    /// See `memory_back`.
    pub celsius_back: f64,
    /// Samples in a row that have to say the same.
    pub samples: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 0.9, celsius: 85.0, below_critical: 10.0, memory_back: 0.05, celsius_back: 5.0, samples: 3 }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    raised: bool,
    /// Samples in a row that contradict it.
    against: u32,
}

/// What is wrong with each device.
#[derive(Clone, Debug)]
pub struct Alerts {
    limits: Limits,
    states: BTreeMap<(usize, AlertKind), State>,
}

impl Alerts {
    /// None, and when they begin.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, states: BTreeMap::new() }
    }

    /// What is wrong now.
    pub fn raised(&self) -> impl Iterator<Item = (usize, AlertKind)> {
        self.states.iter().filter(|(_, state)| state.raised).map(|(key, _)| *key)
    }

    /// Takes a sample, and gives what began or ended by it. What a sample does not say changes nothing.
    pub fn step(&mut self, device: &Watched, sample: &Sample) -> Vec<Alert> {
        let limits = self.limits;
        let hot = device.critical_celsius.map_or(limits.celsius, |critical| critical.value() - limits.below_critical);
        let hottest = [sample.celsius, sample.hot_spot_celsius, sample.memory_celsius].into_iter().flatten();
        let hottest = hottest.map(|celsius| celsius.value()).max_by(f64::total_cmp);
        let memory = sample.memory_used_bytes.zip(device.memory_bytes).filter(|(_, all)| all.0 > 0);
        let memory = memory.map(|(used, all)| used.0 as f64 / all.0 as f64);
        let throttled = sample.throttled.map(f64::from);
        let lost = Some(f64::from(!sample.answered));
        let watched = [
            (AlertKind::Memory, memory, limits.memory, limits.memory_back),
            (AlertKind::Temperature, hottest, hot, limits.celsius_back),
            (AlertKind::Throttling, throttled, 0.5, 0.0),
            (AlertKind::Lost, lost, 0.5, 0.0),
        ];
        let mut changes = Vec::new();
        for (kind, value, limit, back) in watched {
            let Some(number) = value else { continue };
            let state = self.states.entry((sample.device, kind)).or_default();
            let against = if state.raised { number < limit - back } else { number >= limit };
            state.against = if against { state.against + 1 } else { 0 };
            if state.against >= limits.samples {
                *state = State { raised: !state.raised, against: 0 };
                let (at_ms, device) = (sample.at_ms, device.key.clone());
                changes.push(Alert { at_ms, device, kind, raised: state.raised, value });
            }
        }
        changes
    }
}
