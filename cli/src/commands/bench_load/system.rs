//! The system that was measured, as far as it says what it is.

use serde::{Deserialize, Serialize};
use std::path::Path;

/// A description of this host, after MLPerf's system description; what nobody states is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct System {
    /// Identifier of the host.
    pub machine: String,
    pub processor: Option<String>,
    pub cores: usize,
    pub memory_bytes: Option<u64>,
    pub kernel: Option<String>,
    pub governor: Option<String>,
    /// Load average over the last minute when the measurement began.
    pub load: Option<f64>,
    /// Whether the build checks itself as it runs.
    pub debug_assertions: bool,
    pub energy_counter: bool,
    pub throttle_counter: bool,
}

fn line(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

impl System {
    /// Reads what the system says.
    pub fn read() -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let after = |text: &str, key: &str| {
            let found = text.lines().find(|line| line.starts_with(key))?;
            found.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = after(&memory, "MemTotal").and_then(|v| v.split(' ').next()?.parse::<u64>().ok());
        let load = line("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok());
        Self {
            machine: crate::trust::host_id(),
            processor: after(&cpu, "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib.map(|kib| kib << 10),
            kernel: line("/proc/sys/kernel/osrelease"),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            load,
            debug_assertions: cfg!(debug_assertions),
            energy_counter: energy_joules().is_some(),
            throttle_counter: throttles().is_some(),
        }
    }

    /// Whether the machine had little else to do; false where it does not say.
    pub fn is_quiet(&self) -> bool {
        self.load.is_some_and(|load| load <= 0.5 * self.cores as f64)
    }

    /// What a reader must know of the figures.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.energy_counter {
            notes.push("energy was NOT measured: this system has no readable energy counter".to_owned());
        }
        if !self.throttle_counter {
            notes.push("whether the processor was throttled is unknown: this system does not count it".to_owned());
        }
        if let Some(load) = self.load.filter(|_| !self.is_quiet()) {
            notes.push(format!("the machine was busy: load {load} on {} cores when it began", self.cores));
        }
        if self.debug_assertions {
            notes.push("this build checks itself as it runs, which costs time".to_owned());
        }
        notes
    }
}

/// Energy of all processor packages so far; none where there is no counter that may be read.
pub fn energy_joules() -> Option<f64> {
    let entries = std::fs::read_dir("/sys/class/powercap").ok()?;
    let package = |path: &Path| {
        let name = std::fs::read_to_string(path.join("name")).ok()?;
        name.starts_with("package")
            .then(|| std::fs::read_to_string(path.join("energy_uj")).ok()?.trim().parse::<f64>().ok())?
    };
    let all: Vec<f64> = entries.filter_map(|entry| package(&entry.ok()?.path())).collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() * 1e-6)
}

/// How often cores were throttled so far; none where the system does not count it.
pub fn throttles() -> Option<u64> {
    let entries = std::fs::read_dir("/sys/devices/system/cpu").ok()?;
    let count = |path: &Path| {
        std::fs::read_to_string(path.join("thermal_throttle/core_throttle_count")).ok()?.trim().parse::<u64>().ok()
    };
    let all: Vec<u64> = entries.filter_map(|entry| count(&entry.ok()?.path())).collect();
    (!all.is_empty()).then(|| all.iter().sum())
}
