//! Temperature of one device over a run: the simulated curve, the measured one where there is a sensor, and the limit
//! at which the device slows itself.

use super::canvas::{Anchor, Axis, Ink, drawing, fit, text_width, ticks, time_unit};
use crate::html::Html;
use crate::show;
use isotherm_core::figure::Figure;
use isotherm_core::trace::DeviceRecord;
use isotherm_core::units::Celsius;

/// Most points of one curve.
const POINTS_MAX: usize = 400;
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 30.0;

/// What is known of one device's temperature.
pub(crate) struct Curves<'a> {
    /// Which device, under which plan.
    pub(crate) label: String,
    /// What the simulator says.
    pub(crate) predicted: Option<&'a DeviceRecord>,
    /// What a run says.
    pub(crate) measured: Option<&'a DeviceRecord>,
    /// Where it slows itself.
    pub(crate) throttle: Option<&'a Figure<Celsius>>,
}

/// Points of a record that have a temperature: seconds and degrees.
pub(crate) fn points(record: Option<&DeviceRecord>) -> Vec<(f64, f64)> {
    record
        .into_iter()
        .flat_map(|r| &r.samples)
        .filter_map(|s| Some((s.at_ns.seconds().value(), s.temperature_celsius?.value())))
        .collect()
}

/// Where the curves come from, in words: never more than the artefacts say.
pub(crate) fn sources(curves: &Curves<'_>) -> (String, String) {
    let predicted = match curves.predicted {
        Some(record) if !points(Some(record)).is_empty() && record.source.starts_with("simulated") => {
            record.source.clone()
        }
        Some(record) if !points(Some(record)).is_empty() => format!("simulated, {}", record.source),
        _ => "not simulated".to_owned(),
    };
    let measured = match curves.measured {
        None => "not measured".to_owned(),
        Some(record) if points(Some(record)).is_empty() => "no sensor".to_owned(),
        Some(record) => record.source.clone(),
    };
    (predicted, measured)
}

/// The figure; nothing where no curve has a point.
pub(crate) fn chart(curves: &Curves<'_>) -> Html {
    let (predicted, measured) = (thin(points(curves.predicted)), thin(points(curves.measured)));
    let all = || predicted.iter().chain(&measured);
    let seconds = all().map(|p| p.0).fold(0.0, f64::max);
    let hottest = all().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    // A limit far above the curve would flatten it; it is then named instead of drawn.
    let limit = curves.throttle.map(|f| (f.value.value(), f.how)).filter(|(limit, _)| *limit - hottest < 60.0);
    if !hottest.is_finite() {
        return Html::none();
    }
    // No reading is nearer to nothing than another, so the axis does not begin at 0 °C.
    let coolest = all().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let top = limit.map_or(hottest, |l| l.0.max(hottest));
    let margin = ((top - coolest) * 0.12).max(1.0);
    let (low, high) = (coolest - margin, top + margin);
    let (source, sensor) = sources(curves);
    let title = format!("Temperature of {}", curves.label);
    let description = format!(
        "predicted: {source}; measured: {sensor}; hottest {}",
        Celsius::new(hottest).map_or_else(|_| "unknown".to_owned(), |t| t.to_string())
    );
    drawing((WIDTH, HEIGHT), &title, &description, |canvas| {
        canvas.text(
            Ink::Text,
            13.0,
            (0.0, 10.0),
            Anchor::Start,
            &fit(&format!("{}, °C", curves.label), 13.0, WIDTH),
        )?;
        let caption = format!("predicted: {source}; measured: {sensor}");
        canvas.text(Ink::Muted, 11.0, (0.0, 27.0), Anchor::Start, &fit(&caption, 11.0, WIDTH))?;
        let axis = Axis { values: (low, high), pixels: (HEIGHT - BOTTOM, TOP) };
        axis.grid(canvas, LEFT, WIDTH - RIGHT, 1.0, 5)?;
        let end = if seconds > 0.0 { seconds } else { 1.0 };
        let time = Axis { values: (0.0, end), pixels: (LEFT, WIDTH - RIGHT) };
        let (unit_name, unit) = time_unit(end);
        for tick in ticks(0.0, end / unit, 6) {
            let shown = format!("{} {unit_name}", show::number(tick).unwrap_or_default());
            canvas.text(Ink::Muted, 11.0, (time.at(tick * unit), HEIGHT - 14.0), Anchor::Middle, &shown)?;
        }
        if let Some((value, how)) = limit {
            let y = axis.at(value);
            canvas.dashed(Ink::Limit, 1.5, (LEFT, y), (WIDTH - RIGHT, y))?;
            let text = format!("throttles at {} ({how})", Celsius::of(value));
            let x = WIDTH - RIGHT - text_width(&text, 11.0).min(WIDTH - LEFT - RIGHT);
            canvas.text(Ink::Text, 11.0, (x, y - 8.0), Anchor::Start, &text)?;
        }
        let place = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
            points.iter().map(|&(t, celsius)| (time.at(t), axis.at(celsius))).collect()
        };
        if !predicted.is_empty() {
            canvas.polyline(Ink::Predicted, 1.75, place(&predicted))?;
        }
        for at in place(&measured) {
            canvas.dot(Ink::Measured, 0.8, at, 1.8)?;
        }
        Ok(())
    })
}

/// At most [`POINTS_MAX`] points: of every stretch of time the coolest and the hottest.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= POINTS_MAX {
        return points;
    }
    let stretch = (2 * points.len()).div_ceil(POINTS_MAX);
    points
        .chunks(stretch)
        .flat_map(|part| {
            let low = part.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
            let high = part.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
            let mut ends: Vec<(f64, f64)> = low.into_iter().chain(high).collect();
            ends.sort_by(|a, b| a.0.total_cmp(&b.0));
            ends.dedup();
            ends
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_curve_keeps_its_peak() {
        let mut many: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), 40.0)).collect();
        many[7_777].1 = 91.0;
        let few = thin(many);
        assert!(few.len() <= POINTS_MAX, "{}", few.len());
        assert!(few.contains(&(7_777.0, 91.0)));
    }
}
