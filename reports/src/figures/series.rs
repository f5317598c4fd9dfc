//! One device over a run, simulated and measured: how busy it is, who waits, how full its cache is, its clock, power,
//! temperature, energy and charge, each in a strip of its own over one time axis, with its limit where there is one.

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

/// What a device may not exceed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// Watts that the plan caps it at.
    pub(crate) power: Option<f64>,
    /// Degrees Celsius at which it slows itself.
    pub(crate) temperature: Option<f64>,
}

impl Limits {
    /// Whether there is one for the strip of this name.
    pub(crate) fn known(self, name: &str) -> bool {
        STRIPS.iter().any(|strip| strip.name == name && self.of(strip).is_some())
    }

    fn of(self, strip: &Strip) -> Option<f64> {
        match strip.name {
            "power, W" => self.power,
            "temperature, °C" => self.temperature,
            _ => None,
        }
    }
}

/// Measured points that are drawn of one strip.
const DOTS_MAX: usize = 200;

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

/// One strip and its points, simulated and measured.
type Drawn<'a> = (&'a Strip, Vec<(f64, f64)>, Vec<(f64, f64)>);

/// The drawing; nothing where neither record has a figure over time.
pub(crate) fn strips(
    simulated: Option<&DeviceRecord>,
    measured: Option<&DeviceRecord>,
    limits: Limits,
    label: &str,
) -> Html {
    let of = |record: Option<&DeviceRecord>, strip| {
        record.map_or_else(Vec::new, |record| points(record, strip)).into_iter().filter(|p| p.1.is_finite()).collect()
    };
    let both = STRIPS.iter().map(|strip| -> Drawn<'_> { (strip, of(simulated, strip), of(measured, strip)) });
    let drawn: Vec<Drawn<'_>> = both.filter(|(_, line, dots)| line.len() > 1 || dots.len() > 1).collect();
    let all = drawn.iter().flat_map(|(_, line, dots)| line.iter().chain(dots));
    let end = all.map(|point| point.0).fold(0.0, f64::max);
    if drawn.is_empty() || end <= 0.0 {
        return Html::none();
    }
    let height = TOP + STRIP * drawn.len() as f64 + BOTTOM;
    let last = |points: &[(f64, f64)]| points.last().and_then(|point| show::number(point.1)).unwrap_or_default();
    let words: Vec<String> = drawn
        .iter()
        .map(|(strip, line, dots)| {
            let said = |what: &str, points: &[(f64, f64)]| match points.is_empty() {
                true => String::new(),
                false => format!(" {what} {}", last(points)),
            };
            let limit = limits.of(strip).and_then(show::number).map_or_else(String::new, |l| format!(", limit {l}"));
            format!("{}, at the end:{}{}{limit}", strip.name, said("predicted", line), said("measured", dots))
        })
        .collect();
    drawing((WIDTH, height), &format!("{label} over time"), &words.join("; "), |canvas| {
        canvas.text(Ink::Text, 13.0, (0.0, 10.0), Anchor::Start, &fit(label, 13.0, WIDTH))?;
        let time = Axis { values: (0.0, end), pixels: (LEFT, WIDTH - RIGHT) };
        let (unit_name, unit) = time_unit(end);
        for (row, (strip, points, dots)) in drawn.iter().enumerate() {
            let top = TOP + STRIP * row as f64;
            canvas.text(Ink::Muted, 11.0, (LEFT, top + 8.0), Anchor::Start, strip.name)?;
            // A limit far above all values would flatten them; it is then named instead of drawn.
            let values = || points.iter().chain(dots).map(|point| point.1);
            let highest = values().fold(0.0, f64::max);
            let limit = limits.of(strip).filter(|limit| limit.is_finite());
            let near = limit.filter(|limit| *limit <= 3.0 * highest);
            let found = range(values().chain(near)).unwrap_or((0.0, 1.0));
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
            if let Some(limit) = limit {
                let words = format!("limit {}", show::number(limit).unwrap_or_default());
                canvas.text(Ink::Muted, 11.0, (WIDTH - RIGHT, top + 8.0), Anchor::End, &words)?;
            }
            if let Some(limit) = near {
                canvas.dashed(Ink::Limit, 1.25, (LEFT, axis.at(limit)), (WIDTH - RIGHT, axis.at(limit)))?;
            }
            if line.len() > 1 {
                canvas.polyline(Ink::Predicted, 1.5, line)?;
            }
            for &(at, value) in dots.iter().step_by(dots.len().div_ceil(DOTS_MAX).max(1)) {
                canvas.dot(Ink::Measured, 0.8, (time.at(at), axis.at(value)), 1.6)?;
            }
        }
        for tick in ticks(0.0, end / unit, 6) {
            let shown = format!("{} {unit_name}", show::number(tick).unwrap_or_default());
            canvas.text(Ink::Muted, 11.0, (time.at(tick * unit), height - 12.0), Anchor::Middle, &shown)?;
        }
        Ok(())
    })
}
