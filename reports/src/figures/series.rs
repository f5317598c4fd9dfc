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

/// Name of the strip whose points are shares of the time since the point before.
const UTILISATION: &str = "utilisation";
/// Stretches of time over which utilisation is averaged: a step is busy or not, and a curve of steps is a filled box.
const STRETCHES: usize = 100;
/// Measured points that are drawn of one strip.
const DOTS_MAX: usize = 200;

/// All strips, those without a value left out when drawn.
const STRIPS: [Strip; 8] = [
    Strip { name: UTILISATION, of: |s| s.utilisation, share: true },
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

/// Shares of the time since the point before as shares of even stretches of all the time, each at the end of its stretch;
/// few points as they are.
fn averaged(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let stretch = (last.0 - first.0) / STRETCHES as f64;
    if points.len() <= STRETCHES || stretch <= 0.0 {
        return points.to_vec();
    }
    let mut busy = vec![0.0; STRETCHES];
    let mut before = first.0;
    for &(at, share) in points {
        // What lies between two points counts in each stretch by how much of it lies there.
        let mut from = before;
        while from < at {
            let k = (((from - first.0) / stretch) as usize).min(STRETCHES - 1);
            let end = first.0 + stretch * (k + 1) as f64;
            let to = if k + 1 == STRETCHES || end <= from { at } else { at.min(end) };
            busy[k] += share * (to - from);
            from = to;
        }
        before = at;
    }
    let point = |(k, busy): (usize, f64)| (first.0 + stretch * (k + 1) as f64, (busy / stretch).min(1.0));
    busy.into_iter().enumerate().map(point).collect()
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
        let all = record.map_or_else(Vec::new, |record| points(record, strip));
        let known: Vec<(f64, f64)> = all.into_iter().filter(|point| point.1.is_finite()).collect();
        if strip.name == UTILISATION { averaged(&known) } else { known }
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
            let values = match strip {
                Strip { share: true, .. } => (0.0, found.1.max(1.0)),
                // Counts and sums begin at nothing, and one that stays there has an axis all the same.
                _ if ["requests", "energy"].iter().any(|word| strip.name.starts_with(word)) => (0.0, found.1.max(1.0)),
                _ if found.1 - found.0 < 1e-3 * found.1.abs() => (found.0 - 0.5, found.1 + 0.5),
                _ => found,
            };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averaged_shares_keep_the_busy_time() {
        // Steps of uneven length, busy every other time.
        let mut at = 0.0;
        let mut points = vec![(0.0, 0.0)];
        for i in 0..5000_u32 {
            at += 0.001 * f64::from(1 + i % 7);
            points.push((at, f64::from(i % 2)));
        }
        let busy: f64 = points.windows(2).map(|pair| pair[1].1 * (pair[1].0 - pair[0].0)).sum();
        let few = averaged(&points);
        assert_eq!(few.len(), STRETCHES);
        let kept: f64 = few.iter().map(|point| point.1 * at / STRETCHES as f64).sum();
        assert!((busy - kept).abs() < 1e-9 * busy, "{busy} {kept}");
        assert!(few.iter().all(|point| (0.0..=1.0).contains(&point.1)));
        assert_eq!(averaged(&points[..50]), points[..50], "few points are drawn as they are");
    }
}
