//! `isotherm bench device`: what the devices of this host take for the operations of a decoder, beside rooflines of cards.

use crate::args::BenchDevice;
use crate::commands::check_cards;
use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::models;
use crate::ui::{Ui, table};
use isotherm_core::artefact::TOOL_VERSION;
use isotherm_core::units::Seconds;
use isotherm_runtime::backend::Device;
use isotherm_runtime::backend::bench::{PEAKS, Timed, measure};
use isotherm_runtime::backend::routes::{self, Routes};
use isotherm_runtime::model::format::BlockFormat;
use serde::Serialize;

/// Formats whose products are timed.
pub const FORMATS: [BlockFormat; 5] =
    [BlockFormat::F16, BlockFormat::Q8_0, BlockFormat::Q4_0, BlockFormat::Q4K, BlockFormat::Q6K];

#[derive(Serialize)]
struct Record {
    schema: &'static str,
    tool_version: &'static str,
    devices: Vec<Measured>,
    /// Backends without a device here, and why.
    absent: Vec<(&'static str, String)>,
}

#[derive(Serialize)]
struct Measured {
    device: String,
    backend: &'static str,
    interface: String,
    name: String,
    hardware: &'static str,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    what: String,
    bytes: u64,
    flops: u64,
    seconds: f64,
    lowest: f64,
    highest: f64,
    samples: usize,
    gigabytes_per_second: f64,
    /// Seconds that cards need at least, by their makers' figures: never measured here. None for copies and launches.
    at_least: Vec<(&'static str, f64)>,
}

impl From<Timed> for Row {
    fn from(timed: Timed) -> Self {
        Self {
            gigabytes_per_second: timed.bytes as f64 / timed.seconds / 1e9,
            // Copies go over a bus, of which the card's own figures say nothing.
            at_least: PEAKS.iter().filter(|_| timed.flops > 0).map(|peak| (peak.name, timed.at_least(peak))).collect(),
            what: timed.what,
            bytes: timed.bytes,
            flops: timed.flops,
            seconds: timed.seconds,
            lowest: timed.range.0,
            highest: timed.range.1,
            samples: timed.samples,
        }
    }
}

/// Runs the command.
pub fn run(ui: &Ui, args: &BenchDevice) -> Done {
    if !(256..=16_384).contains(&args.size) || !args.size.is_multiple_of(256) {
        let size = args.size;
        return Err(Failure::new(Code::Usage, format!("--size is {size}; give a multiple of 256 up to 16384")));
    }
    if args.check {
        return check_cards::run(ui, &check_cards::Check::of(args));
    }
    let order: Vec<&str> = args.backends.iter().map(String::as_str).collect();
    let found = Routes::discover(routes::platforms(), &order);
    let names: Vec<&str> = found.devices.iter().map(|device| device.name.as_str()).collect();
    crate::access::timing(&names)?;
    let failed = |device: &str, error: &dyn std::error::Error| {
        Failure::new(Code::Device, format!("failed to measure {device}: {}", models::causes(error)))
    };
    let mut devices = Vec::new();
    for device in &found.devices {
        // Every route: which one is faster is what the order of preference should come from.
        for route in &device.routes {
            ui.note(format!("measuring {} through {} ...", device.name, route.info.interface));
            let mut opened =
                Device::open(&*route.platform, route.info.index).map_err(|error| failed(&device.name, &error))?;
            let rows = measure(&mut opened, args.size, &FORMATS, args.samples);
            devices.push(Measured {
                device: device.name.clone(),
                backend: route.info.backend,
                interface: route.info.interface.clone(),
                name: route.info.name.clone(),
                hardware: route.info.hardware.name(),
                rows: rows.map_err(|error| failed(&device.name, &error))?.into_iter().map(Row::from).collect(),
            });
        }
    }
    let absent = found.absent.iter().map(|(backend, why)| (*backend, why.to_string())).collect();
    let record = Record { schema: "isotherm.device-bench/1", tool_version: TOOL_VERSION, devices, absent };
    if let Some(folder) = &args.output {
        files::write_json(&folder.join("device.json"), &record)?;
    }
    ui.result(&record, || text(&record))
}

fn text(record: &Record) -> String {
    let mut text = String::new();
    for device in &record.devices {
        text.push_str(&format!(
            "{} through {} ({}): {}, {}\n",
            device.device, device.backend, device.interface, device.name, device.hardware
        ));
        let mut heading = vec!["operation".to_owned(), "median".to_owned(), "range".to_owned(), "GB/s".to_owned()];
        heading.extend(PEAKS.iter().map(|peak| format!("{} needs", peak.name)));
        let mut rows = vec![heading];
        for row in &device.rows {
            let mut cells = vec![
                row.what.clone(),
                Seconds::of(row.seconds).to_string(),
                format!("{} to {}", Seconds::of(row.lowest), Seconds::of(row.highest)),
                format!("{:.2}", row.gigabytes_per_second),
            ];
            cells.extend(row.at_least.iter().map(|(_, seconds)| Seconds::of(*seconds).to_string()));
            cells.resize(4 + PEAKS.len(), "-".to_owned());
            rows.push(cells);
        }
        text.push_str(&table(&rows, &[1, 2, 3, 4, 5]));
        text.push('\n');
    }
    for (backend, why) in &record.absent {
        text.push_str(&format!("{backend}: none ({why})\n"));
    }
    text.push_str(
        "What a card needs at least is its roofline by its maker's figures for bandwidth and single precision; it was not \
         measured.\nFigures of a software rasteriser say nothing of a card.\n",
    );
    text
}
