//! The text that Prometheus reads (exposition format 0.0.4).

use super::{AlertKind, Ring, Sample, Watched};
use std::fmt::Write;

/// A label's value, with what would end it escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

type Metric = (&'static str, &'static str, &'static str, fn(&Sample) -> Option<f64>);

/// Name, kind and meaning of each figure, and where it is in a sample.
const METRICS: [Metric; 10] = [
    ("isotherm_device_temperature_celsius", "gauge", "Temperature of the die.", |s| Some(s.celsius?.value())),
    ("isotherm_device_hot_spot_celsius", "gauge", "Temperature of the hottest spot.", |s| {
        Some(s.hot_spot_celsius?.value())
    }),
    ("isotherm_device_memory_temperature_celsius", "gauge", "Temperature of the memory.", |s| {
        Some(s.memory_celsius?.value())
    }),
    ("isotherm_device_power_watts", "gauge", "Power.", |s| Some(s.watts?.value())),
    ("isotherm_device_energy_joules_total", "counter", "Energy since sampling began.", |s| Some(s.joules?.value())),
    ("isotherm_device_clock_hertz", "gauge", "Clock of the compute units.", |s| Some(s.clock_hertz?.value())),
    ("isotherm_device_busy_ratio", "gauge", "Share of the time it worked.", |s| s.busy),
    ("isotherm_device_memory_used_bytes", "gauge", "Memory in use.", |s| Some(s.memory_used_bytes?.0 as f64)),
    ("isotherm_device_fan_rpm", "gauge", "Turns of the fan in a minute.", |s| Some(f64::from(s.fan_rpm?))),
    ("isotherm_device_throttled", "gauge", "Whether it slows itself because it is hot.", |s| {
        Some(f64::from(s.throttled?))
    }),
];

/// What a scrape of a node is answered with. Stale values are left out, as the format asks; each device has a flag that says
/// whether it is.
#[must_use]
pub fn exposition(node: &str, devices: &[Watched], ring: &Ring, raised: &[(usize, AlertKind)], now_ms: u64) -> String {
    let mut text = String::new();
    let labels = |device: &Watched| {
        let (node, key, name) = (escaped(node), escaped(&device.key), escaped(&device.name));
        format!("node=\"{node}\",device_uuid=\"{key}\",name=\"{name}\"")
    };
    let last: Vec<_> = devices.iter().enumerate().map(|(at, device)| (device, ring.last(at, now_ms))).collect();
    let mut family = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
        if !values.is_empty() {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            values.iter().for_each(|(labels, value)| _ = writeln!(text, "{name}{{{labels}}} {value}"));
        }
    };
    for (name, kind, help, value) in METRICS {
        let fresh = |(device, last): &(&Watched, Option<(&Sample, bool)>)| {
            let (sample, stale) = (*last)?;
            Some((labels(device), value(sample).filter(|_| !stale)?))
        };
        family(name, kind, help, &last.iter().filter_map(fresh).collect::<Vec<_>>());
    }
    let stale = |(device, last): &(&Watched, Option<(&Sample, bool)>)| {
        (labels(device), f64::from(last.is_none_or(|(sample, stale)| stale || !sample.answered)))
    };
    let help = "Whether the last sample is too old to say anything, or the device did not answer.";
    family("isotherm_device_stale", "gauge", help, &last.iter().map(stale).collect::<Vec<_>>());
    let memory = |device: &Watched| Some((labels(device), device.memory_bytes?.0 as f64));
    family(
        "isotherm_device_memory_bytes",
        "gauge",
        "All its memory.",
        &devices.iter().filter_map(memory).collect::<Vec<_>>(),
    );
    let alert = |(at, kind): &(usize, AlertKind)| {
        let word = match kind {
            AlertKind::Memory => "memory",
            AlertKind::Temperature => "temperature",
            AlertKind::Throttling => "throttling",
            AlertKind::Lost => "lost",
        };
        Some((format!("{},alert=\"{word}\"", labels(devices.get(*at)?)), 1.0))
    };
    family(
        "isotherm_device_alert",
        "gauge",
        "What is wrong now.",
        &raised.iter().filter_map(alert).collect::<Vec<_>>(),
    );
    family(
        "isotherm_samples_dropped_total",
        "counter",
        "Samples that made room for newer ones.",
        &[(format!("node=\"{}\"", escaped(node)), ring.dropped() as f64)],
    );
    text
}
