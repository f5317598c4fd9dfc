//! One device over a simulated run: how busy it is, who waits, how full its cache is, its clock, power, temperature,
//! energy and charge, each in a strip of its own over one time axis.

use super::canvas::{Anchor, Axis, Ink, drawing, fit, range, ticks, time_unit};
use crate::html::Html;
use crate::show;
use isotherm_core::trace::{DeviceRecord, DeviceSample};

const WIDTH: f64 = 460.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 26.0;
/// Height of a strip, its name included, and of the curve in it.
const STRIP: f64 = 66.0;
const CURVE: f64 = 40.0;

/// One figure over time.
struct Strip {
    name: &'static str,
    of: fn(&DeviceSample) -> Option<f64>,
    /// The axis begins at zero, and ends at one where the figure is a share.
    share: bool,
}

/// All strips, those without a value left out when drawn.
const STRIPS: [Strip; 8] = [
    Strip { name: "utilisation", of: |s| s.utilisation, share: true },
    Strip { name: "requests that wait", of: |s| s.waiting.map(f64::from), share: false },
    Strip { name: "share of cache held", of: |s| s.cache, share: true },
    Strip { name: "clock, share of full speed", of: |s| s.speed, share: true },
    Strip { name: "power, W", of: |s| s.power_watts.map(|watts| watts.value()), share: false },
    Strip { name: "temperature, °C", of: |s| s.temperature_celsius.map(|celsius| celsius.value()), share: false },
    Strip { name: "energy, J", of: |s| s.energy_joules.map(|joules| joules.value()), share: false },
    Strip { name: "charge, share of battery", of: |s| s.charge, share: true },
];

/// Seconds and values of a strip.
fn points(record: &DeviceRecord, strip: &Strip) -> Vec<(f64, f64)> {
    record.samples.iter().filter_map(|s| Some((s.at_ns.seconds().value(), (strip.of)(s)?))).collect()
}

/// The names of the figures that a device has over time.
pub(crate) fn known(record: &DeviceRecord) -> Vec<&'static str> {
    STRIPS.iter().filter(|strip| points(record, strip).len() > 1).map(|strip| strip.name).collect()
}

/// The drawing; nothing where the record has no figure over time.
pub(crate) fn strips(record: &DeviceRecord, label: &str) -> Html {
    let drawn: Vec<(&Strip, Vec<(f64, f64)>)> =
        STRIPS.iter().map(|strip| (strip, points(record, strip))).filter(|(_, points)| points.len() > 1).collect();
    let end = drawn.iter().flat_map(|(_, points)| points).map(|point| point.0).fold(0.0, f64::max);
    if drawn.is_empty() || end <= 0.0 {
        return Html::none();
    }
    let height = TOP + STRIP * drawn.len() as f64 + BOTTOM;
    let last = |points: &[(f64, f64)]| points.last().and_then(|point| show::number(point.1)).unwrap_or_default();
    let words: Vec<String> =
        drawn.iter().map(|(strip, points)| format!("{}: {} at the end", strip.name, last(points))).collect();
    drawing((WIDTH, height), &format!("{label} over time"), &words.join("; "), |canvas| {
        canvas.text(Ink::Text, 13.0, (0.0, 10.0), Anchor::Start, &fit(label, 13.0, WIDTH))?;
        let time = Axis { values: (0.0, end), pixels: (LEFT, WIDTH - RIGHT) };
        let (unit_name, unit) = time_unit(end);
        for (row, (strip, points)) in drawn.iter().enumerate() {
            let top = TOP + STRIP * row as f64;
            canvas.text(Ink::Muted, 11.0, (LEFT, top + 8.0), Anchor::Start, strip.name)?;
            let found = range(points.iter().map(|point| point.1)).unwrap_or((0.0, 1.0));
            let values = if strip.share { (0.0, found.1.max(1.0)) } else { found };
            let axis = Axis { values, pixels: (top + 18.0 + CURVE, top + 18.0) };
            axis.grid(canvas, LEFT, WIDTH - RIGHT, 1.0, 2)?;
            // A figure that goes in steps keeps its value until the next sample says another.
            let counted = ["requests", "clock", "power"].iter().any(|word| strip.name.starts_with(word));
            let mut line: Vec<(f64, f64)> = Vec::with_capacity(points.len() * 2);
            for &(at, value) in points {
                let (x, y) = (time.at(at), axis.at(value));
                if let Some(&(_, before)) = line.last().filter(|_| counted) {
                    line.push((x, before));
                }
                line.push((x, y));
            }
            canvas.polyline(Ink::Predicted, 1.5, line)?;
        }
        for tick in ticks(0.0, end / unit, 6) {
            let shown = format!("{} {unit_name}", show::number(tick).unwrap_or_default());
            canvas.text(Ink::Muted, 11.0, (time.at(tick * unit), height - 12.0), Anchor::Middle, &shown)?;
        }
        Ok(())
    })
}
