//! Busy time of each stage in one step: predicted above measured, with the range over the runs.

use super::canvas::{Anchor, Ink, drawing, fit};
use crate::html::Html;
use crate::measure::{Spread, measured_step, predicted_step};
use crate::report::Case;
use crate::show;

/// Most stages of one figure.
pub(crate) const STAGES_MAX: usize = 12;
const WIDTH: f64 = 460.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 84.0;
const TOP: f64 = 30.0;
const ROW: f64 = 46.0;

/// The longest time of a step in these cases: one scale for all figures.
pub(crate) fn longest(cases: &[Case]) -> f64 {
    let of = |case: &Case| {
        let times = |i| [predicted_step(case, i), measured_step(case, i).map(|s| s.max)];
        (0..case.plan.stages.len()).flat_map(times).flatten().fold(0.0, f64::max)
    };
    cases.iter().map(of).fold(0.0, f64::max)
}

/// The figure, on a scale that ends at `most` seconds; nothing where no stage has a time.
pub(crate) fn bars(case: &Case, label: &str, most: f64) -> Html {
    let mut stages: Vec<(usize, Option<f64>, Option<Spread>)> = (0..case.plan.stages.len())
        .map(|i| (i, predicted_step(case, i), measured_step(case, i)))
        .filter(|(_, predicted, measured)| predicted.is_some() || measured.is_some())
        .collect();
    let longest = |(_, p, m): &(usize, Option<f64>, Option<Spread>)| p.unwrap_or(0.0).max(m.map_or(0.0, |s| s.max));
    if stages.is_empty() || most <= 0.0 || !most.is_finite() {
        return Html::none();
    }
    if stages.len() > STAGES_MAX {
        stages.sort_by(|a, b| longest(b).total_cmp(&longest(a)));
        stages.truncate(STAGES_MAX);
        stages.sort_by_key(|s| s.0);
    }
    let height = TOP + stages.len() as f64 * ROW + 4.0;
    let title = format!("Busy time per step and stage, {label}");
    let description = stages.iter().map(|(i, p, m)| sentence(*i, *p, *m)).collect::<Vec<_>>().join("; ");
    drawing((WIDTH, height), &title, &description, |canvas| {
        canvas.text(Ink::Text, 13.0, (0.0, 10.0), Anchor::Start, &format!("{label}: busy time of one step"))?;
        let x = |seconds: f64| LEFT + (WIDTH - LEFT - RIGHT) * (seconds / most).clamp(0.0, 1.0);
        canvas.line(Ink::Muted, 0.75, (LEFT, TOP - 2.0), (LEFT, height - 6.0))?;
        for (row, (i, predicted, measured)) in stages.iter().enumerate() {
            let y = TOP + row as f64 * ROW + 4.0;
            let stage = &case.plan.stages[*i];
            canvas.text(Ink::Text, 12.0, (LEFT - 8.0, y + 9.0), Anchor::End, &format!("stage {}", i + 1))?;
            let device = fit(&stage.devices.join(" + "), 11.0, LEFT - 10.0);
            canvas.text(Ink::Muted, 11.0, (LEFT - 8.0, y + 25.0), Anchor::End, &device)?;
            match predicted {
                Some(value) => {
                    canvas.outlined(Ink::Predicted, 1.5, (LEFT, y), (x(*value), y + 14.0))?;
                    let shown = show::seconds(*value).unwrap_or_default();
                    canvas.text(Ink::Text, 11.0, (x(*value) + 6.0, y + 7.0), Anchor::Start, &shown)?;
                }
                None => canvas.text(Ink::Muted, 11.0, (LEFT + 6.0, y + 7.0), Anchor::Start, "not predicted")?,
            }
            match measured {
                Some(spread) => {
                    canvas.filled(Ink::Measured, (LEFT, y + 18.0), (x(spread.median), y + 32.0))?;
                    whisker(canvas, y + 25.0, (x(spread.min), x(spread.max)))?;
                    let shown = show::seconds(spread.median).unwrap_or_default();
                    let at = (x(spread.max) + 6.0, y + 25.0);
                    canvas.text(Ink::Text, 11.0, at, Anchor::Start, &shown)?;
                }
                None => canvas.text(Ink::Muted, 11.0, (LEFT + 6.0, y + 25.0), Anchor::Start, "not measured")?,
            }
        }
        Ok(())
    })
}

fn whisker(canvas: &super::canvas::Canvas<'_>, y: f64, (low, high): (f64, f64)) -> super::canvas::Drawn {
    if high - low < 1.0 {
        return Ok(());
    }
    canvas.line(Ink::Text, 1.25, (low, y), (high, y))?;
    canvas.line(Ink::Text, 1.25, (low, y - 4.0), (low, y + 4.0))?;
    canvas.line(Ink::Text, 1.25, (high, y - 4.0), (high, y + 4.0))
}

fn sentence(stage: usize, predicted: Option<f64>, measured: Option<Spread>) -> String {
    let show = |v: Option<f64>, absent: &str| v.and_then(show::seconds).unwrap_or_else(|| absent.to_owned());
    let (p, m) = (show(predicted, "not predicted"), show(measured.map(|s| s.median), "not measured"));
    format!("stage {}: predicted {p}, measured {m}", stage + 1)
}
