//! Busy time of each stage in one step: predicted above measured, with the range over the runs.

use super::canvas::{Anchor, Canvas, Drawn, Ink, drawing, fit};
use super::plan::{Row, rows};
use crate::html::Html;
use crate::measure::{Spread, measured_step, predicted_step};
use crate::report::Case;
use crate::show;
use isotherm_core::graph::DeviceGraph;

/// Most stages of one figure.
const STAGES_MAX: usize = 12;
const WIDTH: f64 = 460.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 84.0;
const TOP: f64 = 30.0;
const ROW: f64 = 46.0;

/// One stage, or stages that look alike.
struct Entry {
    name: String,
    device: String,
    predicted: Option<Spread>,
    measured: Option<Spread>,
}

impl Entry {
    fn longest(&self) -> f64 {
        self.predicted.iter().chain(&self.measured).map(|s| s.max).fold(0.0, f64::max)
    }

    fn sentence(&self) -> String {
        let show = |spread: Option<Spread>, absent: &str| {
            spread.and_then(|s| show::seconds(s.median)).unwrap_or_else(|| absent.to_owned())
        };
        let (p, m) = (show(self.predicted, "not predicted"), show(self.measured, "not measured"));
        format!("{}: predicted {p}, measured {m}", self.name)
    }
}

fn entries(graph: &DeviceGraph, case: &Case) -> Vec<Entry> {
    let stages = &case.plan.stages;
    let single = stages.len() <= STAGES_MAX;
    let gathered: Vec<Row> =
        if single { stages.iter().enumerate().map(|(i, s)| Row::of(i, s)).collect() } else { rows(graph, stages) };
    gathered
        .into_iter()
        .map(|row| {
            let measured: Vec<Spread> = row.stages.iter().filter_map(|&i| measured_step(case, i)).collect();
            let median = Spread::of(measured.iter().map(|s| s.median));
            let name = match row.stages.as_slice() {
                [only] => format!("stage {}", only + 1),
                many => format!("{} stages", many.len()),
            };
            Entry {
                name,
                device: row.name,
                predicted: Spread::of(row.stages.iter().filter_map(|&i| predicted_step(case, i))),
                // The range is over runs and, in a row of many, over its stages.
                measured: median.map(|of| Spread {
                    min: measured.iter().map(|s| s.min).fold(of.min, f64::min),
                    max: measured.iter().map(|s| s.max).fold(of.max, f64::max),
                    ..of
                }),
            }
        })
        .filter(|entry| entry.predicted.is_some() || entry.measured.is_some())
        .collect()
}

/// The longest time of a step in these cases: one scale for all figures.
pub(crate) fn longest(graph: &DeviceGraph, cases: &[Case]) -> f64 {
    cases.iter().flat_map(|case| entries(graph, case)).map(|e| e.longest()).fold(0.0, f64::max)
}

/// A figure and how many of its rows are drawn, of how many.
pub(crate) struct Bars {
    /// The drawing; empty where no stage has a time.
    pub(crate) figure: Html,
    /// Rows drawn.
    pub(crate) drawn: usize,
    /// Rows there are.
    pub(crate) all: usize,
}

/// The figure of one case, on a scale that ends at `most` seconds.
pub(crate) fn bars(graph: &DeviceGraph, case: &Case, label: &str, most: f64) -> Bars {
    let mut entries = entries(graph, case);
    let all = entries.len();
    if entries.is_empty() || most <= 0.0 || !most.is_finite() {
        return Bars { figure: Html::none(), drawn: 0, all };
    }
    if all > STAGES_MAX {
        entries.sort_by(|a, b| b.longest().total_cmp(&a.longest()));
        entries.truncate(STAGES_MAX);
    }
    let height = TOP + entries.len() as f64 * ROW + 4.0;
    let title = format!("Busy time per step and stage, {label}");
    let description = entries.iter().map(Entry::sentence).collect::<Vec<_>>().join("; ");
    let drawn = entries.len();
    let figure = drawing((WIDTH, height), &title, &description, |canvas| {
        canvas.text(Ink::Text, 13.0, (0.0, 10.0), Anchor::Start, &format!("{label}: busy time of one step"))?;
        let x = |seconds: f64| LEFT + (WIDTH - LEFT - RIGHT) * (seconds / most).clamp(0.0, 1.0);
        canvas.line(Ink::Muted, 0.75, (LEFT, TOP - 2.0), (LEFT, height - 6.0))?;
        for (row, entry) in entries.iter().enumerate() {
            let y = TOP + row as f64 * ROW + 4.0;
            canvas.text(Ink::Text, 12.0, (LEFT - 8.0, y + 9.0), Anchor::End, &entry.name)?;
            let device = fit(&entry.device, 11.0, LEFT - 10.0);
            canvas.text(Ink::Muted, 11.0, (LEFT - 8.0, y + 25.0), Anchor::End, &device)?;
            let value = |spread: Spread, y: f64| {
                let shown = show::seconds(spread.median).unwrap_or_default();
                canvas.text(Ink::Text, 11.0, (x(spread.max) + 6.0, y), Anchor::Start, &shown)
            };
            let nothing = |text: &str, y: f64| canvas.text(Ink::Muted, 11.0, (LEFT + 6.0, y), Anchor::Start, text);
            match entry.predicted {
                Some(spread) => {
                    canvas.outlined(Ink::Predicted, 1.5, (LEFT, y), (x(spread.median), y + 14.0))?;
                    whisker(canvas, y + 7.0, (x(spread.min), x(spread.max)))?;
                    value(spread, y + 7.0)?;
                }
                None => nothing("not predicted", y + 7.0)?,
            }
            match entry.measured {
                Some(spread) => {
                    canvas.filled(Ink::Measured, (LEFT, y + 18.0), (x(spread.median), y + 32.0))?;
                    whisker(canvas, y + 25.0, (x(spread.min), x(spread.max)))?;
                    value(spread, y + 25.0)?;
                }
                None => nothing("not measured", y + 25.0)?,
            }
        }
        Ok(())
    });
    Bars { figure, drawn, all }
}

fn whisker(canvas: &Canvas<'_>, y: f64, (low, high): (f64, f64)) -> Drawn {
    if high - low < 1.0 {
        return Ok(());
    }
    canvas.line(Ink::Text, 1.25, (low, y), (high, y))?;
    canvas.line(Ink::Text, 1.25, (low, y - 4.0), (low, y + 4.0))?;
    canvas.line(Ink::Text, 1.25, (high, y - 4.0), (high, y + 4.0))
}
