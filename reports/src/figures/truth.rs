//! Predicted against measured, one panel per metric: a diamond for the prediction, a dot for every run, a bar for
//! their median.

use super::canvas::{Anchor, Axis, Ink, drawing, fit, range, time_unit};
use crate::html::Html;
use crate::measure::run_figure;
use crate::report::Report;
use crate::show::{Metric, signed_percent};
use crate::verdict::label;

/// Most cases of one panel.
const CASES_MAX: usize = 12;
const HEIGHT: f64 = 268.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 34.0;

/// The least that an axis spans, over its upper end: differences of a percent shall look like it.
const SPAN_MIN: f64 = 0.12;

/// A range widened about its middle until it spans this share of its upper end.
fn at_least(low: f64, high: f64, share: f64) -> (f64, f64) {
    let lacking = (share * high.abs() - (high - low)).max(0.0) / 2.0;
    (low - lacking, high + lacking)
}

/// One column of a panel.
struct Column {
    label: String,
    predicted: Option<f64>,
    measured: Option<f64>,
    runs: Vec<f64>,
    error: Option<f64>,
}

/// The panel of a metric; nothing where no case was compared in it.
pub(crate) fn panel(report: &Report, metric: Metric) -> Html {
    let columns: Vec<Column> = report
        .cases
        .iter()
        .enumerate()
        .filter_map(|(i, case)| {
            let row = case.row(metric)?;
            let runs = case.runs.iter();
            Some(Column {
                label: label(report, i),
                predicted: Some(row.predicted).filter(|v| v.is_finite()),
                measured: Some(row.measured).filter(|v| v.is_finite()),
                runs: runs.filter_map(|r| run_figure(&r.value, metric.key(), report.run_statistic)).collect(),
                error: Some(row.error).filter(|v| v.is_finite()),
            })
        })
        .take(CASES_MAX)
        .collect();
    let values = columns.iter().flat_map(|c| c.runs.iter().copied().chain(c.predicted).chain(c.measured));
    let Some((low, high)) = range(values).map(|(low, high)| at_least(low, high, SPAN_MIN)) else { return Html::none() };
    let width = (LEFT + RIGHT + 88.0 * columns.len() as f64).max(240.0);
    let (unit_name, unit) = if metric.maximises() { ("tok/s", 1.0) } else { time_unit(high) };
    let title = format!("{}, predicted and measured", metric.words());
    let description = columns
        .iter()
        .map(|c| {
            let show = |v: Option<f64>| v.and_then(|v| metric.show(v)).unwrap_or_else(|| "unknown".to_owned());
            format!("{}: predicted {}, measured {}", c.label, show(c.predicted), show(c.measured))
        })
        .collect::<Vec<_>>()
        .join("; ");
    drawing((width, HEIGHT), &title, &description, |canvas| {
        let better = if metric.maximises() { "higher is better" } else { "lower is better" };
        canvas.text(Ink::Text, 13.0, (0.0, 10.0), Anchor::Start, &format!("{}, {unit_name}", metric.words()))?;
        canvas.text(Ink::Muted, 11.0, (0.0, 27.0), Anchor::Start, better)?;
        let axis = Axis { values: (low, high), pixels: (HEIGHT - BOTTOM, TOP) };
        axis.grid(canvas, LEFT, width - RIGHT, unit, 5)?;
        let step = (width - LEFT - RIGHT) / columns.len() as f64;
        for (i, column) in columns.iter().enumerate() {
            let x = LEFT + step * (i as f64 + 0.5);
            let (left, right) = (x - 15.0, x + 13.0);
            if let Some(value) = column.predicted {
                canvas.diamond(Ink::Predicted, (left, axis.at(value)), 6.0)?;
            }
            for (k, value) in column.runs.iter().enumerate() {
                // A fixed small offset per run, so that equal runs do not hide one another.
                let aside = (k % 5) as f64 * 3.5 - 7.0;
                canvas.dot(Ink::Measured, 0.6, (right + aside, axis.at(*value)), 3.0)?;
            }
            if let Some(value) = column.measured {
                canvas.line(Ink::Measured, 2.5, (right - 13.0, axis.at(value)), (right + 13.0, axis.at(value)))?;
            }
            canvas.text(Ink::Text, 12.0, (x, HEIGHT - 20.0), Anchor::Middle, &fit(&column.label, 12.0, step))?;
            let error = column.error.and_then(signed_percent).unwrap_or_else(|| "no error figure".to_owned());
            canvas.text(Ink::Muted, 11.0, (x, HEIGHT - 5.0), Anchor::Middle, &error)?;
        }
        Ok(())
    })
}
