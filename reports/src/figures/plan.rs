//! The picture of a plan: layers from left to right, one row per device, so that a request walks down the stairs.
//! Rows that look alike (same class, same layers) become one row with a count.

use super::canvas::{Anchor, Canvas, Drawn, Ink, drawing, fit, text_width, ticks};
use crate::html::Html;
use crate::measure::{Spread, measured_step, predicted_step};
use crate::report::{Case, Report};
use crate::show;
use isotherm_core::figure::How;
use isotherm_core::graph::{DeviceGraph, Path};
use isotherm_core::ids::Layers;
use isotherm_core::plan::Stage;
use isotherm_core::units::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Most rows that are drawn.
const ROWS_MAX: usize = 20;
const WIDTH: f64 = 960.0;
const LEFT: f64 = 215.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 46.0;
const BAR: f64 = 32.0;
const GAP: f64 = 34.0;

/// Stages that look alike.
pub(crate) struct Row {
    /// The layers that each of them holds.
    pub(crate) layers: Layers,
    /// Their positions in the plan.
    pub(crate) stages: Vec<usize>,
    /// Device of a single stage, or how many of which class.
    pub(crate) name: String,
    below: String,
}

impl Row {
    /// The row of one stage.
    pub(crate) fn of(position: usize, stage: &Stage) -> Self {
        let name = stage.devices.join(" + ");
        Self { layers: stage.layers, stages: vec![position], name, below: String::new() }
    }
}

/// The picture, and how many rows did not fit.
pub(crate) fn picture(report: &Report, case: &Case) -> Html {
    let graph = &report.devices.value;
    let layers = report.model.as_ref().map_or(0, isotherm_core::model::Model::layers);
    let layers = case.plan.stages.iter().map(|s| s.layers.end).fold(layers.max(1), u32::max);
    let rows = rows(graph, &case.plan.stages);
    let shown = &rows[..rows.len().min(ROWS_MAX)];
    let row_of: BTreeMap<usize, usize> =
        shown.iter().enumerate().flat_map(|(i, row)| row.stages.iter().map(move |&stage| (stage, i))).collect();
    let hops = hops(report, case, &row_of);
    let hidden = rows.len() - shown.len();
    let height = TOP + shown.len() as f64 * (BAR + GAP) - GAP + 18.0 + if hidden > 0 { 22.0 } else { 0.0 };
    let title = format!("Plan of {}: which layers on which device", case.plan.model);
    let description =
        shown.iter().map(|row| format!("{}: {}", row.name, show::layers(row.layers))).collect::<Vec<_>>().join("; ");
    drawing((WIDTH, height), &title, &description, |canvas| {
        let x = |layer: u32| LEFT + (WIDTH - LEFT - RIGHT) * (f64::from(layer) / f64::from(layers)).min(1.0);
        axis(canvas, layers, height - if hidden > 0 { 34.0 } else { 12.0 }, &x)?;
        for (&(from, to), hop) in &hops {
            connector(canvas, &shown[from], &shown[to], (from, to), hop, &x)?;
        }
        for (i, row) in shown.iter().enumerate() {
            bar(canvas, case, row, i, &x)?;
        }
        if hidden > 0 {
            let text = format!("{} not drawn; the table below has them", show::counted(hidden, "more row"));
            canvas.text(Ink::Muted, 12.0, (LEFT, height - 12.0), Anchor::Start, &text)?;
        }
        Ok(())
    })
}

/// Stages gathered by class, layers and format; by first layer, then last, then class.
pub(crate) fn rows(graph: &DeviceGraph, stages: &[Stage]) -> Vec<Row> {
    let class = |name: &str| graph.find(name).map(|id| graph.device(id).class.clone());
    let mut alike: BTreeMap<(Layers, String), Vec<usize>> = BTreeMap::new();
    for (i, stage) in stages.iter().enumerate() {
        let key = stage.devices.iter().map(|d| class(d).unwrap_or_else(|| d.clone())).collect::<Vec<_>>().join(" + ");
        alike.entry((stage.layers, format!("{key}\u{0}{}", stage.quantisation))).or_default().push(i);
    }
    alike
        .into_iter()
        .map(|((layers, key), stages_of)| {
            let class = key.split('\u{0}').next().unwrap_or_default().to_owned();
            let first = &stages[stages_of[0]];
            let host = first.devices.first().and_then(|d| graph.find(d)).map(|id| graph.device(id).host.clone());
            let (name, below) = match stages_of.len() {
                1 => (first.devices.join(" + "), host.map_or_else(String::new, |host| format!("on {host}"))),
                n => (format!("{n} × {class}"), format!("stages {}", listed(&stages_of))),
            };
            Row { layers, stages: stages_of, name, below }
        })
        .collect()
}

/// Stage numbers as people count them, the first few.
pub(crate) fn listed(stages: &[usize]) -> String {
    let first: Vec<String> = stages.iter().take(4).map(|s| (s + 1).to_string()).collect();
    if stages.len() > 4 { format!("{} …", first.join(", ")) } else { first.join(", ") }
}

fn y_of(row: usize) -> f64 {
    TOP + row as f64 * (BAR + GAP)
}

fn axis(canvas: &Canvas<'_>, layers: u32, bottom: f64, x: &impl Fn(u32) -> f64) -> Drawn {
    canvas.text(Ink::Muted, 12.0, (LEFT - 10.0, 12.0), Anchor::End, "layers of the model")?;
    // The last label is the number of layers itself; a round value too near to it would run into it.
    let mut marks: BTreeSet<u32> = ticks(0.0, f64::from(layers), 8).into_iter().map(|t| t as u32).collect();
    marks.retain(|m| *m == 0 || f64::from(layers - m.min(&layers)) / f64::from(layers) > 0.05);
    marks.insert(layers);
    for mark in marks {
        canvas.line(Ink::Grid, 0.5, (x(mark), 22.0), (x(mark), bottom))?;
        canvas.text(Ink::Muted, 11.0, (x(mark), 12.0), Anchor::Middle, &mark.to_string())?;
    }
    Ok(())
}

fn bar(canvas: &Canvas<'_>, case: &Case, row: &Row, i: usize, x: &impl Fn(u32) -> f64) -> Drawn {
    let (left, right) = (x(row.layers.start), x(row.layers.end).max(x(row.layers.start) + 3.0));
    let (top, middle) = (y_of(i), y_of(i) + BAR / 2.0);
    let lines = if row.below.is_empty() { 0.0 } else { 7.0 };
    let width = LEFT - 22.0;
    canvas.text(Ink::Text, 13.0, (LEFT - 10.0, middle - lines), Anchor::End, &fit(&row.name, 13.0, width))?;
    canvas.text(Ink::Muted, 11.0, (LEFT - 10.0, middle + lines + 1.0), Anchor::End, &fit(&row.below, 11.0, width))?;
    canvas.filled(Ink::Soft, (left, top), (right, top + BAR))?;
    canvas.outlined(Ink::Predicted, 1.5, (left, top), (right, top + BAR))?;
    let time = step_time(case, row).map(|time| format!(", {time}")).unwrap_or_default();
    let what = match row.stages.as_slice() {
        [only] => format!("stage {}: {}", only + 1, show::layers(row.layers)),
        many => format!("{} stages: {} each", many.len(), show::layers(row.layers)),
    };
    let brief = show::counted(row.layers.len() as usize, "layer");
    let texts = [format!("{what}{time}"), format!("{brief}{time}"), time.trim_start_matches(", ").to_owned()];
    let wide = |text: &String| text_width(text, 12.0) + 12.0;
    let inside = texts.iter().find(|text| right - left >= wide(text) && !text.is_empty());
    let (text, at, anchor) = match inside {
        Some(text) => (text, (left + right) / 2.0, Anchor::Middle),
        None if WIDTH - right >= wide(&texts[0]) => (&texts[0], right + 7.0, Anchor::Start),
        None => (&texts[0], left - 7.0, Anchor::End),
    };
    canvas.text(Ink::Text, 12.0, (at, middle), anchor, text)
}

/// Time of one step of the row's stages, simulated where it was, else measured.
fn step_time(case: &Case, row: &Row) -> Option<String> {
    let of = |time: &dyn Fn(usize) -> Option<f64>| Spread::of(row.stages.iter().filter_map(|&stage| time(stage)));
    let (spread, how) = of(&|stage| predicted_step(case, stage))
        .map(|spread| (spread, ""))
        .or_else(|| Some((of(&|stage| Some(measured_step(case, stage)?.median))?, " measured")))?;
    Some(format!("{}{how}", show::low_high(show::seconds(spread.min)?, &show::seconds(spread.max)?)))
}

/// The ways between two rows.
#[derive(Default)]
struct Hop {
    paths: Vec<Path>,
    unknown: usize,
}

/// The ways that requests take from row to row, in the message size of one decoded token.
fn hops(report: &Report, case: &Case, row_of: &BTreeMap<usize, usize>) -> BTreeMap<(usize, usize), Hop> {
    let mut hops: BTreeMap<(usize, usize), Hop> = BTreeMap::new();
    for (from, to) in neighbours(case) {
        let (Some(&a), Some(&b)) = (row_of.get(&from), row_of.get(&to)) else { continue };
        let hop = hops.entry((a, b)).or_default();
        match way(report, &case.plan.stages[from], &case.plan.stages[to]) {
            Some(path) => hop.paths.push(path),
            None => hop.unknown += 1,
        }
    }
    hops
}

/// Pairs of stages that follow one another on some route.
pub(crate) fn neighbours(case: &Case) -> BTreeSet<(usize, usize)> {
    let count = case.plan.stages.len();
    case.plan
        .routes
        .iter()
        .flat_map(|route| route.stages.windows(2))
        .map(|pair| (pair[0].stage as usize, pair[1].stage as usize))
        .filter(|&(a, b)| a < count && b < count)
        .collect()
}

/// The quickest way from one stage's last device to another's first.
pub(crate) fn way(report: &Report, from: &Stage, to: &Stage) -> Option<Path> {
    let size = report.model.as_ref().map_or(Bytes::ZERO, isotherm_core::model::Model::boundary_bytes_per_token);
    report.devices.value.path(from.devices.last()?, to.devices.first()?, size)
}

fn connector(
    canvas: &Canvas<'_>,
    from: &Row,
    to: &Row,
    (a, b): (usize, usize),
    hop: &Hop,
    x: &impl Fn(u32) -> f64,
) -> Drawn {
    let (x0, x1) = (x(from.layers.end), x(to.layers.start));
    let (y0, y1) = if a < b { (y_of(a) + BAR, y_of(b)) } else { (y_of(a), y_of(b) + BAR) };
    // Just inside both bars, so that an arrow between bars that touch does not run along their edges.
    let (x0, x1) = (x0 - 4.0, x1 + 4.0);
    let halfway = y1 - (y1 - y0).signum() * GAP / 2.0;
    canvas.polyline(Ink::Text, 1.25, [(x0, y0), (x0, halfway), (x1, halfway), (x1, y1)])?;
    let back = (y1 - y0).signum() * 7.0;
    canvas.polygon(Ink::Text, [(x1, y1), (x1 - 3.5, y1 - back), (x1 + 3.5, y1 - back)])?;
    if b != a + 1 {
        return Ok(());
    }
    let text = hop_text(hop);
    let right_of = x1.max(x0) + 9.0;
    if right_of + text_width(&text, 11.0) <= WIDTH {
        canvas.text(Ink::Muted, 11.0, (right_of, halfway), Anchor::Start, &text)
    } else {
        canvas.text(Ink::Muted, 11.0, (x0.min(x1) - 9.0, halfway), Anchor::End, &text)
    }
}

fn hop_text(hop: &Hop) -> String {
    let Some(latency) = Spread::of(hop.paths.iter().map(|p| p.latency.value())) else {
        return "link unknown".to_owned();
    };
    let unknown = || "unknown".to_owned();
    let (low, high) = (show::seconds(latency.min), show::seconds(latency.max));
    let mut text = show::low_high(low.unwrap_or_else(unknown), &high.unwrap_or_else(unknown));
    let rates = || hop.paths.iter().filter_map(|p| p.bandwidth);
    if let (Some(low), Some(high)) = (rates().reduce(|a, b| a.min(b)), rates().reduce(|a, b| a.max(b))) {
        text.push_str(&format!(", {}", show::low_high(low.to_string(), &high.to_string())));
    }
    if let Some(how) = hop.paths.iter().map(|p| p.how).reduce(How::weaker) {
        text.push_str(&format!(" ({how})"));
    }
    if hop.unknown > 0 {
        text.push_str(&format!(", {} unknown", hop.unknown));
    }
    text
}
