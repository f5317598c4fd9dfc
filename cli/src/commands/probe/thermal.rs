//! How a device warms, identified: from a step of its power that is made here, or from a log that was recorded before.

use crate::access::{Guest, Wish};
use crate::args::Probe;
use crate::commands::access::{DESCRIBING, HEATING, pass};
use crate::failure::{Code, Done, Failure};
use crate::models;
use crate::roots::roots;
use crate::ui::Ui;
use crate::{files, interrupt, registry, trust};
use isotherm_access::Permission;
use isotherm_audit::log::{EventKind, Severity};
use isotherm_core::digest::Digest;
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DEVICES_SCHEMA, DevicesFile};
use isotherm_core::thermal::fit::{Fit, fit};
use isotherm_core::thermal::log::ThermalLog;
use isotherm_core::thermal::throttling::Throttling;
use isotherm_core::thermal::{Branch, Fan, ThermalRecord};
use isotherm_core::units::{Celsius, JoulesPerKelvin, KelvinPerWatt, Watts};
use isotherm_runtime::engine::Kernels;
use isotherm_runtime::execute::device;
use isotherm_runtime::probe::{Step, StepError, power_step};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

#[derive(Serialize)]
struct Identified<'a> {
    device: &'a str,
    log: &'a Path,
    fit: &'a Fit,
    throttling: Option<Throttling>,
    idle_watts: f64,
    busy_watts: f64,
}

/// Runs the command: the device's record in the file of devices gets its thermal figures.
pub(super) fn run(ui: &Ui, args: &Probe) -> Done {
    let path = if args.output.exists() { args.output.clone() } else { registry::last_devices()? };
    let (mut file, _) = files::read_artefact::<DevicesFile>(&path, DEVICES_SCHEMA)?;
    let known: Vec<&str> = file.devices.iter().map(|device| device.name.as_str()).collect();
    let name = args.thermal.device.clone().or_else(|| known.first().map(|name| (*name).to_owned())).unwrap_or_default();
    let Some(place) = known.iter().position(|known| *known == name) else {
        let known = known.join(", ");
        return Err(Failure::new(Code::Usage, format!("--device names {name:?}; {} has {known}", path.display())));
    };
    let identity = trust::identity(ui)?;
    let guest = Guest::open(&identity, &args.guest)?;
    // A log that is there already takes no device.
    let permissions: &[Permission] = if args.thermal.from_log.is_some() { &DESCRIBING } else { &HEATING };
    pass(&identity, &Wish { guest: guest.as_ref(), permissions, devices: &[(&name, 0)], subjects: &[] })?;
    let log_path = match &args.thermal.from_log {
        Some(log) => log.clone(),
        None => record(ui, args, &file, &name)?,
    };
    let text = files::read_text(&log_path)?;
    let log = ThermalLog::parse(&text).map_err(|e| Failure::file(&log_path, e))?;
    let found = fit(&[(log_path.display().to_string(), log.clone())], &[])
        .map_err(|e| Failure::io(format!("{name} was not identified: {e}")))?;
    let throttling = Throttling::of(&log);
    let (idle, busy) = levels(&log.watts);
    let when = trust::now()?.to_string();
    let source = format!(
        "power step in {}",
        log_path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
    );
    let entry = &mut file.devices[place];
    entry.thermal = Some(thermal(&found, throttling.as_ref(), &source, &when)?);
    let power =
        |value: f64| Watts::new(value).ok().map(|watts| Figure::measured(watts, &source, 1, 0.0, Some(when.clone())));
    (entry.idle_watts, entry.busy_watts) = (power(idle), power(busy));
    files::write_json(&path, &file)?;
    files::write_json(&registry::last_devices()?, &file)?;
    let note = trust::Note::default().with("device", name.as_str()).about("log", Digest::of(text.as_bytes()));
    trust::record(&identity, EventKind::Probe, Severity::Info, note)?;
    let result =
        Identified { device: &name, log: &log_path, fit: &found, throttling, idle_watts: idle, busy_watts: busy };
    ui.result(&result, || words(&result, &path))
}

/// Makes the step and writes its log beside the devices.
fn record(ui: &Ui, args: &Probe, file: &DevicesFile, name: &str) -> Result<PathBuf, Failure> {
    let graph = isotherm_core::graph::DeviceGraph::new(file.clone())
        .map_err(|faults| Failure::all(Code::Io, args.output.display(), &faults))?;
    let device = device(&graph, name).map_err(|e| Failure::new(Code::Device, models::causes(&e)))?;
    let model = models::open(ui, &args.model)?;
    let span = |seconds: f64| Duration::from_secs_f64(seconds.clamp(1.0, 3600.0));
    let load = args.thermal.load.value();
    let step = Step {
        idle: span(load / 6.0),
        load: span(load),
        cooling: span(load),
        interval: Duration::from_secs(1),
        gguf: &model.gguf,
        geometry: &model.geometry,
        kernels: Kernels::detect(),
    };
    let mut bar = ui.bar(1000, "idle, load, cooling");
    let samples = power_step(&roots(), &device, &step, &mut |done| {
        bar.at((done * 1000.0) as u64, 1000);
        !interrupt::flag().load(Ordering::Relaxed)
    })
    .map_err(|e| {
        let failure = Failure::new(Code::Device, models::causes(&e));
        match e {
            StepError::NoSensor { .. } => failure.remedy("give a log that was recorded elsewhere with --from-log FILE"),
            _ => failure,
        }
    })?;
    bar.finish();
    let path = args.output.with_file_name(format!("thermal-{name}.csv"));
    let mut text = "time (s),power (W),temperature (C),clock (MHz),utilization (%)\n".to_owned();
    for sample in samples {
        let or = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.3}"));
        text.push_str(&format!(
            "{:.3},{:.3},{:.3},{},{:.1}\n",
            sample.seconds,
            sample.watts,
            sample.celsius,
            or(sample.megahertz),
            sample.busy * 100.0
        ));
    }
    files::write(&path, text.as_bytes())?;
    Ok(path)
}

/// Power when idle and when busy: the lowest and the highest tenth.
fn levels(watts: &[f64]) -> (f64, f64) {
    let mut sorted = watts.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let at = |share: f64| sorted.get((last as f64 * share) as usize).copied().unwrap_or(0.0);
    (at(0.1), at(0.9))
}

/// The record of a device, from what was fitted and what the clock showed.
fn thermal(found: &Fit, throttling: Option<&Throttling>, source: &str, when: &str) -> Result<ThermalRecord, Failure> {
    let samples = u32::try_from(found.train.samples).unwrap_or(u32::MAX);
    let spread = |name: &str, value: f64| {
        let half = found.intervals.get(name).map_or(0.0, |(low, high)| (high - low) / (2.0 * 1.96));
        if value.abs() > 0.0 { (half / value.abs()).min(1e6) } else { 0.0 }
    };
    fn figure<T>(value: T, source: &str, samples: u32, spread: f64, when: &str) -> Figure<T> {
        Figure::measured(value, source, samples, spread, Some(when.to_owned()))
    }
    let value = |name: &str| found.parameters.get(name).copied();
    let needed = |name: &str| {
        value(name).ok_or_else(|| Failure::io(format!("{} has no {name}; record a longer step", found.model)))
    };
    let resistance =
        |name: &str, value: f64| figure(KelvinPerWatt::of(value), source, samples, spread(name, value), when);
    let capacity =
        |name: &str, value: f64| figure(JoulesPerKelvin::of(value), source, samples, spread(name, value), when);
    let branch = |r: &str, c: &str| {
        Some(Branch {
            resistance_kelvin_per_watt: resistance(r, value(r)?),
            capacity_joules_per_kelvin: capacity(c, value(c)?),
        })
    };
    let (r, c) = ("resistance_kelvin_per_watt", "capacity_joules_per_kelvin");
    let fan = value("fan_watts_per_kelvin_squared").zip(value("fan_start_celsius")).map(|(slope, start)| Fan {
        start_celsius: figure(Celsius::of(start), source, samples, spread("fan_start_celsius", start), when),
        watts_per_kelvin_squared: figure(slope, source, samples, spread("fan_watts_per_kelvin_squared", slope), when),
        full_celsius: None,
    });
    let falls = |found: &Throttling| u32::try_from(found.falls).unwrap_or(u32::MAX);
    Ok(ThermalRecord {
        resistance_kelvin_per_watt: resistance(r, needed(r)?),
        capacity_joules_per_kelvin: capacity(c, needed(c)?),
        throttle_celsius: throttling.map(|t| figure(t.at_celsius, source, falls(t), 0.0, when)),
        resume_celsius: throttling.and_then(|t| Some(figure(t.back_celsius?, source, falls(t), 0.0, when))),
        throttled_speed: throttling.map(|t| figure(t.speed, source, falls(t), 0.0, when)),
        die: branch("die_resistance_kelvin_per_watt", "die_capacity_joules_per_kelvin"),
        case: branch("case_resistance_kelvin_per_watt", "case_capacity_joules_per_kelvin"),
        fan,
    })
}

fn words(found: &Identified<'_>, path: &Path) -> String {
    let fit = found.fit;
    let mut text = format!(
        "  {}: {}, mean error {:.2} K on its log, {:.2} K on parts left out\n",
        found.device, fit.model, fit.train.mae_celsius, fit.cross_validation.mae_celsius
    );
    for (name, value) in &fit.parameters {
        let interval = fit.intervals.get(name);
        let interval = interval.map_or_else(String::new, |(low, high)| format!("  ({low:.4} to {high:.4})"));
        text.push_str(&format!("    {name} {value:.4}{interval}\n"));
    }
    text.push_str(&match found.throttling {
        Some(t) => format!(
            "    throttles at {:.0} °C to {:.0} % of {:.0} MHz, {} times in this log\n",
            t.at_celsius.value(),
            t.speed * 100.0,
            t.full_megahertz,
            t.falls
        ),
        None => "    this log shows no throttling by heat\n".to_owned(),
    });
    text.push_str(&format!(
        "    {:.0} W idle, {:.0} W busy; written into {}\n",
        found.idle_watts,
        found.busy_watts,
        path.display()
    ));
    text
}
