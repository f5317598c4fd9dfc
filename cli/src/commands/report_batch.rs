//! The page of a batch: what it found, over all its points.

use crate::commands::batch::{BATCH_SCHEMA, Description, Success, parts};
use crate::failure::Failure;
use crate::files;
use isotherm_core::artefact::TOOL_VERSION;
use isotherm_core::query::{Column, Table, Value};
use isotherm_reports::{Axis, Chart, Grid, GridRow, Mark, Sheet};
use std::collections::BTreeMap;
use std::path::Path;

/// Schema of the page as JSON.
const SHEET_SCHEMA: &str = "isotherm.batch-page/v1";
/// Points that are listed one by one; the tables have all.
const ROWS_MAX: usize = 2_000;
/// Marks of one chart.
const MARKS_MAX: usize = 2_000;

/// A table's cells by name.
struct Rows<'a>(&'a Table);

impl Rows<'_> {
    fn value(&self, name: &str, row: usize) -> Value {
        self.0.column(name).map_or(Value::Null, |column| column.value(row))
    }

    fn number(&self, name: &str, row: usize) -> Option<f64> {
        if let Value::Number(number) = self.value(name, row) { Some(number) } else { None }
    }

    fn text(&self, name: &str, row: usize) -> Option<String> {
        if let Value::Text(text) = self.value(name, row) { Some(text) } else { None }
    }

    /// Whether any row knows a column.
    fn any(&self, name: &str) -> bool {
        (0..self.0.rows()).any(|row| !self.value(name, row).is_null())
    }

    /// The point for people: its scenario and number.
    fn called(&self, row: usize) -> String {
        let number = self.number("number", row).unwrap_or_default();
        format!("{}#{number}", self.text("scenario", row).unwrap_or_default())
    }
}

/// Makes the sheet of a batch's folder.
pub fn sheet(folder: &Path) -> Result<Sheet, Failure> {
    let (batch, _) = files::read_artefact::<Description>(&folder.join("batch.json"), BATCH_SCHEMA)?;
    let (success, _) = parts(&folder.join("results"))?;
    let table = crate::commands::query::read(folder, "results")?;
    let rows = Rows(&table);
    let mut sheet =
        Sheet { schema: SHEET_SCHEMA, title: format!("Batch of {} points", table.rows()), ..Sheet::default() };
    verdict(&rows, &mut sheet);
    let shown = folder.display();
    let remake = format!("isotherm report {shown}");
    for (x, y) in [
        (("pile_price", "Price of the pile"), ("tokens_per_second", "Output tokens per second")),
        (("pile_price", "Price of the pile"), ("ttft_p90_seconds", "Time to first token, 90th percentile")),
        (("joules_per_token", "Energy per output token"), ("tokens_per_second", "Output tokens per second")),
        (
            ("tokens_per_second", "Output tokens per second"),
            ("ttft_p90_seconds", "Time to first token, 90th percentile"),
        ),
    ] {
        let chart = frontier(&rows, x, y, &success, &remake);
        sheet.charts.extend(chart.filter(|chart| chart.marks.len() > 1));
    }
    sheet.charts.extend(latencies(&rows, &success, &remake));
    sheet.charts.extend(warmth(&rows, &success, &remake));
    sheet.tables.extend(frontier_tables(&rows));
    sheet.tables.extend(bottlenecks(&rows));
    sheet.tables.extend(failures(&rows));
    sheet.tables.push(points(&rows));
    facts(&batch, &success, &mut sheet);
    sheet.commands = vec![
        format!("isotherm batch DIR -o {shown} {}", options(&batch)),
        format!("isotherm query {shown} \"SELECT scenario, number, status, tokens_per_second\""),
        format!("isotherm batch extract {shown} SCENARIO#NUMBER -o POINT"),
        remake,
    ];
    Ok(sheet)
}

fn options(batch: &Description) -> String {
    let how = &batch.how;
    let requests = how.requests.map_or_else(String::new, |requests| format!(" --requests {requests}"));
    format!("--seeds {}{requests} --gap {} --nodes {} --part-rows {}", how.seeds, how.gap, how.nodes, how.part_rows)
}

fn facts(batch: &Description, success: &Success, sheet: &mut Sheet) {
    let mut fact = |name: &str, value: String| sheet.facts.push([name.to_owned(), value]);
    fact("isotherm", TOOL_VERSION.to_owned());
    fact("batch", batch.digest.to_string());
    fact("list of points", batch.list.to_string());
    fact("results", success.results.to_string());
    success.files.iter().for_each(|(name, digest)| fact(name, digest.to_string()));
    fact("how", options(batch));
}

fn tile(name: &str, value: impl Into<String>, basis: &str) -> [String; 3] {
    [name.to_owned(), value.into(), basis.to_owned()]
}

fn verdict(rows: &Rows<'_>, sheet: &mut Sheet) {
    let count = rows.0.rows();
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    for row in 0..count {
        *states.entry(rows.text("status", row).unwrap_or_else(|| "failed".to_owned())).or_default() += 1;
    }
    let of = |name: &str| states.get(name).copied().unwrap_or(0);
    let planned = of("optimal") + of("feasible");
    let gap = (0..count).filter_map(|row| rows.number("gap", row)).reduce(f64::max);
    let within =
        gap.map_or_else(String::new, |gap| format!(", none further than {:.3} % from the best possible", gap * 100.0));
    sheet.headline = format!("{planned} of {count} points have a plan{within}.");
    sheet.tiles.push(tile("proven optimal", of("optimal").to_string(), &format!("of {count} points")));
    sheet.tiles.push(tile("with a stated gap", of("feasible").to_string(), "the table has each gap"));
    sheet.tiles.push(tile("infeasible", of("infeasible").to_string(), "each with its reasons"));
    sheet.tiles.push(tile("failed or undecided", (of("failed") + of("unknown")).to_string(), "listed below"));
    let warm: Vec<f64> = (0..count).filter_map(|row| rows.number("throttled_devices", row)).collect();
    if !warm.is_empty() {
        let hot = warm.iter().filter(|devices| **devices > 0.0).count();
        sheet.sentences.push(format!(
            "Heat slows a device in {hot} of the {} points whose devices have a thermal model; of the others it is unknown.",
            warm.len()
        ));
    }
    sheet.sentences.push(
        "Every figure of time, energy and temperature here is predicted by simulation; none was measured on the devices named."
            .to_owned(),
    );
}

/// Whether the larger value of a figure is the better.
fn larger_is_better(name: &str) -> bool {
    name == "tokens_per_second"
}

fn axis(rows: &Rows<'_>, (name, words): (&str, &str), values: &[f64]) -> Axis {
    let unit = match name {
        "pile_price" => (0..rows.0.rows()).find_map(|row| rows.text("currency", row)).unwrap_or_default(),
        "tokens_per_second" => "tok/s".to_owned(),
        "joules_per_token" => "J".to_owned(),
        "temperature_max_celsius" => "°C".to_owned(),
        _ => "s".to_owned(),
    };
    let (low, high) = values.iter().fold((f64::INFINITY, 0.0_f64), |(l, h), v| (l.min(*v), h.max(*v)));
    Axis { name: words.to_owned(), unit, log: low > 0.0 && high / low > 30.0 }
}

/// The rows that no other beats in both figures, from the least `x` on. Scenarios of different questions share a chart,
/// never a claim: the caption says so.
fn best(points: &[(f64, f64, usize)], x: &str, y: &str) -> Vec<(f64, f64, usize)> {
    let signed = |value: f64, name: &str| if larger_is_better(name) { -value } else { value };
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| {
        signed(a.0, x).total_cmp(&signed(b.0, x)).then(signed(a.1, y).total_cmp(&signed(b.1, y))).then(a.2.cmp(&b.2))
    });
    let mut front: Vec<(f64, f64, usize)> = Vec::new();
    for point in sorted {
        if front.last().is_none_or(|last| signed(point.1, y) < signed(last.1, y)) {
            front.push(point);
        }
    }
    front
}

fn known(rows: &Rows<'_>, x: &str, y: &str) -> Vec<(f64, f64, usize)> {
    (0..rows.0.rows()).filter_map(|row| Some((rows.number(x, row)?, rows.number(y, row)?, row))).collect()
}

/// Groups of marks: scenarios where there are few, else their folders.
fn grouped(rows: &Rows<'_>) -> impl Fn(usize) -> String {
    let names = |of: &dyn Fn(&str) -> String| {
        (0..rows.0.rows()).map(|row| of(&rows.text("scenario", row).unwrap_or_default())).collect::<Vec<_>>()
    };
    let distinct = |names: &[String]| names.iter().collect::<std::collections::BTreeSet<_>>().len();
    let whole = names(&str::to_owned);
    let names = if distinct(&whole) <= 5 {
        whole
    } else {
        names(&|name| name.split_once('/').map_or("here", |(folder, _)| folder).to_owned())
    };
    move |row| names[row].clone()
}

fn frontier(rows: &Rows<'_>, x: (&str, &str), y: (&str, &str), success: &Success, remake: &str) -> Option<Chart> {
    let mut points = known(rows, x.0, y.0);
    let front = best(&points, x.0, y.0);
    let all = points.len();
    thin(&mut points);
    let group = grouped(rows);
    let xs: Vec<f64> = points.iter().map(|point| point.0).collect();
    let ys: Vec<f64> = points.iter().map(|point| point.1).collect();
    let (x_axis, y_axis) = (axis(rows, x, &xs), axis(rows, y, &ys));
    let marks = points.iter().map(|&(px, py, row)| {
        let interval = (y.0 == "tokens_per_second")
            .then(|| rows.number("tokens_per_second_ci95", row).map(|half| (py - half, py + half)))
            .flatten();
        let words = format!(
            "{}\n{}: {} {}\n{}: {} {}",
            rows.called(row),
            x_axis.name,
            figure(px),
            x_axis.unit,
            y_axis.name,
            figure(py),
            y_axis.unit
        );
        Mark { x: px, y: py, interval, words, group: group(row), row: row as u64 }
    });
    let marks: Vec<Mark> = marks.collect();
    (!marks.is_empty()).then(|| Chart {
        title: format!("{} against {}", y.1, x.1.to_lowercase()),
        marks,
        x: x_axis,
        y: y_axis,
        // A line through one point is none.
        line: front.iter().filter(|_| front.len() > 1).map(|(x, y, _)| (*x, *y)).collect(),
        line_name: "Pareto frontier: no other point is better in both".to_owned(),
        note: format!(
            "{} of {all} points drawn. Points of different scenarios answer different questions: compare within one. \
             Whiskers are 95 % intervals over the simulated runs, where there are several.",
            points.len()
        ),
        remake: remake.to_owned(),
        source: success.results.to_string(),
    })
}

/// Evenly fewer points, where there are too many to draw.
fn thin<T: Clone>(points: &mut Vec<T>) {
    if points.len() > MARKS_MAX {
        let step = points.len() as f64 / MARKS_MAX as f64;
        *points = (0..MARKS_MAX).map(|i| points[(i as f64 * step) as usize].clone()).collect();
    }
}

/// Times to first token of each point, sorted: the median as a mark, from there to the 99th or 90th percentile.
fn latencies(rows: &Rows<'_>, success: &Success, remake: &str) -> Option<Chart> {
    let mut points: Vec<(f64, f64, usize)> = (0..rows.0.rows())
        .filter_map(|row| {
            let high = rows.number("ttft_p99_seconds", row).or_else(|| rows.number("ttft_p90_seconds", row))?;
            Some((rows.number("ttft_p50_seconds", row)?, high, row))
        })
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.2.cmp(&b.2)));
    thin(&mut points);
    let group = grouped(rows);
    let values: Vec<f64> = points.iter().flat_map(|point| [point.0, point.1]).collect();
    let mark = |(rank, &(middle, high, row)): (usize, &(f64, f64, usize))| Mark {
        x: rank as f64 + 1.0,
        y: middle,
        interval: Some((middle, high)),
        words: format!("{}\nmedian {} s, tail {} s", rows.called(row), figure(middle), figure(high)),
        group: group(row),
        row: row as u64,
    };
    (points.len() > 1).then(|| Chart {
        title: "Distribution of the time to first token".to_owned(),
        x: Axis { name: "Points, from the quickest median".to_owned(), ..Axis::default() },
        y: axis(rows, ("ttft_seconds", "Time to first token"), &values),
        marks: points.iter().enumerate().map(mark).collect(),
        note: "Marks are medians over all requests; a line reaches to the 99th percentile, or to the 90th where there \
               are too few requests for the 99th by MLPerf's early-stopping rule."
            .to_owned(),
        remake: remake.to_owned(),
        source: success.results.to_string(),
        ..Chart::default()
    })
}

/// The hottest device against the air, where points have a thermal model and vary the air.
fn warmth(rows: &Rows<'_>, success: &Success, remake: &str) -> Option<Chart> {
    let points = known(rows, "vary.environment.ambient.base", "temperature_max_celsius");
    let slowed = |row: usize| match rows.number("throttled_devices", row) {
        Some(devices) if devices > 0.0 => "slowed by heat",
        Some(_) => "not slowed",
        None => "slowing unknown",
    };
    let mark = |&(x, y, row): &(f64, f64, usize)| Mark {
        x,
        y,
        words: format!("{}\nair {} °C, hottest device {} °C\n{}", rows.called(row), figure(x), figure(y), slowed(row)),
        group: slowed(row).to_owned(),
        row: row as u64,
        ..Mark::default()
    };
    (points.len() > 1).then(|| Chart {
        title: "Hottest device against the air".to_owned(),
        x: Axis { name: "Air".to_owned(), unit: "°C".to_owned(), log: false },
        y: Axis { name: "Hottest device".to_owned(), unit: "°C".to_owned(), log: false },
        marks: points.iter().map(mark).collect(),
        remake: remake.to_owned(),
        source: success.results.to_string(),
        ..Chart::default()
    })
}

/// Four significant digits.
fn figure(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    let shown = format!("{value:.digits$}");
    if shown.contains('.') { shown.trim_end_matches('0').trim_end_matches('.').to_owned() } else { shown }
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(String::new, figure)
}

/// The frontier of rate and price within each scenario that has several points.
fn frontier_tables(rows: &Rows<'_>) -> Option<Grid> {
    let mut scenarios: BTreeMap<String, Vec<(f64, f64, usize)>> = BTreeMap::new();
    for point in known(rows, "pile_price", "tokens_per_second") {
        scenarios.entry(rows.text("scenario", point.2).unwrap_or_default()).or_default().push(point);
    }
    let mut grid = Grid {
        title: "What more money buys".to_owned(),
        note: "Within each scenario, the points that no other beats in price and rate, and the rate that each step of money adds."
            .to_owned(),
        columns: ["scenario", "no.", "pile", "price", "tokens/s", "tokens/s per unit of money more"]
            .iter()
            .enumerate()
            .map(|(i, name)| ((*name).to_owned(), i == 1 || i > 2))
            .collect(),
        rows: Vec::new(),
    };
    for (scenario, points) in scenarios {
        let front = best(&points, "pile_price", "tokens_per_second");
        let mut before: Option<(f64, f64)> = None;
        for (price, rate, row) in front.into_iter().filter(|_| points.len() > 1) {
            let gain =
                before.filter(|(other, _)| price > *other).map(|(other, slower)| (rate - slower) / (price - other));
            before = Some((price, rate));
            let number = cell(rows.number("number", row));
            let pile = rows.text("pile", row).unwrap_or_default();
            let cells = vec![scenario.clone(), number, pile, figure(price), figure(rate), cell(gain)];
            grid.rows.push(GridRow { row: None, cells });
        }
    }
    (!grid.rows.is_empty()).then_some(grid)
}

/// What holds points back, and where their time goes, counted.
fn bottlenecks(rows: &Rows<'_>) -> Option<Grid> {
    let mut counts: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for (column, words) in [
        ("bottleneck", "bounds the rate"),
        ("ttft_cause", "largest part of the time to first token"),
        ("tpot_cause", "largest part of the time per token"),
    ] {
        for row in 0..rows.0.rows() {
            // The kind of cause, without the device it names.
            let cause = rows.text(column, row).map(|cause| {
                let brief = cause.split(" on ").next().unwrap_or_default();
                brief.split(" from ").next().unwrap_or_default().to_owned()
            });
            if let Some(cause) = cause {
                *counts.entry((words, cause)).or_default() += 1;
            }
        }
    }
    let mut sorted: Vec<((&str, String), usize)> = counts.into_iter().collect();
    sorted.sort_by(|a, b| (a.0.0, b.1, &a.0.1).cmp(&(b.0.0, a.1, &b.0.1)));
    let cells = |((what, cause), count): ((&str, String), usize)| GridRow {
        row: None,
        cells: vec![what.to_owned(), cause, count.to_string()],
    };
    let grid = Grid {
        title: "What holds points back".to_owned(),
        note: String::new(),
        columns: vec![("what".to_owned(), false), ("cause".to_owned(), false), ("points".to_owned(), true)],
        rows: sorted.into_iter().map(cells).collect(),
    };
    (!grid.rows.is_empty()).then_some(grid)
}

/// Points without a plan or a simulation, and why.
fn failures(rows: &Rows<'_>) -> Option<Grid> {
    let row = |row: usize| {
        let note = rows.text("note", row)?;
        let status = rows.text("status", row).unwrap_or_else(|| "failed".to_owned());
        Some(GridRow { row: None, cells: vec![rows.called(row), status, note] })
    };
    let grid = Grid {
        title: "Points without an answer".to_owned(),
        note: String::new(),
        columns: ["point", "status", "why"].map(|name| (name.to_owned(), false)).to_vec(),
        rows: (0..rows.0.rows()).filter_map(row).take(ROWS_MAX).collect(),
    };
    (!grid.rows.is_empty()).then_some(grid)
}

/// Every point, as far as there is room.
fn points(rows: &Rows<'_>) -> Grid {
    let figures: Vec<(&str, &str)> = [
        ("tokens_per_second", "tokens/s"),
        ("ttft_p50_seconds", "TTFT p50, s"),
        ("ttft_p90_seconds", "TTFT p90, s"),
        ("tpot_p50_seconds", "TPOT p50, s"),
        ("joules_per_token", "J/token"),
        ("temperature_max_celsius", "hottest, °C"),
        ("pile_price", "price"),
    ]
    .into_iter()
    .filter(|(name, _)| rows.any(name))
    .collect();
    let varied: Vec<String> = rows
        .0
        .columns()
        .iter()
        .filter(|(name, column)| name.starts_with("vary.") && matches!(column, Column::Texts(_)))
        .map(|(name, _)| name.clone())
        .collect();
    let mut columns: Vec<(String, bool)> =
        [("point", false), ("varied", false), ("status", false), ("gap, %", true), ("devices", true)]
            .map(|(name, number)| (name.to_owned(), number))
            .to_vec();
    columns.extend(figures.iter().map(|(_, words)| ((*words).to_owned(), true)));
    columns.push(("plan".to_owned(), false));
    let row = |row: usize| {
        let set = varied
            .iter()
            .filter_map(|name| Some(format!("{} = {}", name.trim_start_matches("vary."), rows.text(name, row)?)));
        let used = rows.number("devices_used", row).zip(rows.number("devices", row));
        let plan = rows.text("plan", row).unwrap_or_default();
        let mut cells = vec![
            rows.called(row),
            set.collect::<Vec<_>>().join(", "),
            rows.text("status", row).unwrap_or_else(|| "failed".to_owned()),
            cell(rows.number("gap", row).map(|gap| gap * 100.0)),
            used.map_or_else(String::new, |(used, all)| format!("{used} of {all}")),
        ];
        cells.extend(figures.iter().map(|(name, _)| cell(rows.number(name, row))));
        cells.push(plan.trim_start_matches("sha256:").chars().take(12).collect());
        GridRow { row: Some(row as u64), cells }
    };
    let all = rows.0.rows();
    let note = if all > ROWS_MAX {
        format!("The first {ROWS_MAX} of {all}; the table beside this page has all.")
    } else {
        String::new()
    };
    Grid { title: "Points".to_owned(), note, columns, rows: (0..all.min(ROWS_MAX)).map(row).collect() }
}
