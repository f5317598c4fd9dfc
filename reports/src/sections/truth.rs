//! Predicted beside measured: the rows, the panels, the busy time of stages.

use super::{Mark, cite, cite_all, figures, legend, section};
use crate::figures::{busy, truth::panel};
use crate::html::{Cell, Html, element, element_with, seq, table};
use crate::measure::run_figure;
use crate::report::{Case, Report, Step};
use crate::show::{self, Metric, counted};
use crate::verdict::label;
use isotherm_core::record::TruthRow;

/// The section: predictions alone where nothing was run.
pub(crate) fn truth(report: &Report) -> Html {
    let mut inside = Html::none();
    inside.push(rows(report));
    let panels = Metric::ALL.into_iter().map(|metric| panel(report, metric)).collect();
    let marks = [
        (Mark::Diamond, "predicted, sealed where it was"),
        (Mark::Dot, "one run"),
        (Mark::Bar, "measured, as in the table"),
    ];
    let caption = "Below each plan: the error of its prediction. An axis need not begin at 0.";
    let steps = [Step::Simulate, Step::Seal, Step::Run];
    inside.push(figures(report, panels, legend(&marks), caption, &steps));
    inside.push(predictions(report));
    if inside.is_empty() {
        return Html::none();
    }
    section("truth", "Predicted and measured", inside)
}

fn rows(report: &Report) -> Html {
    let rows: Vec<Vec<Cell>> = report
        .cases
        .iter()
        .enumerate()
        .flat_map(|(i, case)| case.truth.iter().map(move |row| (i, case, row)))
        .map(|(i, case, row)| one(report, &label(report, i), case, row))
        .collect();
    if rows.is_empty() {
        return element_with("p", &[("class", "note")], "No prediction was compared with a run: not measured.");
    }
    let manifests = report.cases.iter().filter_map(|case| case.sealed.as_ref()).map(|s| &s.manifest);
    let statistic = report.run_statistic.words();
    let sealed = cite_all(report, manifests);
    let mut caption = Html::from("Predicted figures ");
    if sealed.is_empty() {
        caption.push("were not sealed");
    } else {
        caption.push("are those sealed in manifest ");
        caption.push(sealed);
    }
    caption
        .push(format!("; a run counts by the {statistic} over its requests. Error: predicted over measured, minus 1."));
    let columns = ["plan", "metric", "predicted", "measured", "error", "range over runs", "worst run", "runs"];
    table(caption, &columns, rows)
}

fn one(report: &Report, label: &str, case: &Case, row: &TruthRow) -> Vec<Cell> {
    let metric = Metric::named(&row.metric);
    let show = |value: f64| metric.map_or_else(|| show::number(value), |m| m.show(value));
    let spread = metric.and_then(|m| case.measured(m, report.run_statistic));
    let range = spread.and_then(|s| Some(format!("{} to {}", show(s.min)?, show(s.max)?)));
    let worst = case
        .runs
        .iter()
        .filter_map(|run| run_figure(&run.value, &row.metric, report.run_statistic))
        .map(|value| row.predicted / value - 1.0)
        .filter(|e| e.is_finite())
        .max_by(|a, b| a.abs().total_cmp(&b.abs()));
    let words = metric.map_or_else(|| Html::from(&row.metric), |m| Html::from(m.words()));
    let sealed = metric.and_then(|m| case.sealed.as_ref()?.figure(m)).is_some();
    let predicted = match (show(row.predicted), sealed) {
        (Some(shown), true) => Cell::Number(shown.into()),
        (Some(shown), false) => {
            Cell::Number(seq![shown, " ", element_with("span", &[("class", "absent")], "not sealed")])
        }
        (None, _) => Cell::absent("unknown"),
    };
    vec![
        Cell::Label(label.to_owned()),
        Cell::Words(words),
        predicted,
        Cell::number_or(show(row.measured), "not measured"),
        show::signed_percent(row.error)
            .map_or_else(|| Cell::absent("unknown"), |error| Cell::Number(element("strong", error))),
        Cell::number_or(range, "not measured"),
        Cell::number_or(worst.and_then(show::signed_percent), "not measured"),
        Cell::Number(spread.map_or(0, |s| s.count).to_string().into()),
    ]
}

/// What was predicted of the cases that have no row: sealed figures, else simulated ones.
fn predictions(report: &Report) -> Html {
    let rows: Vec<Vec<Cell>> = report
        .cases
        .iter()
        .enumerate()
        .filter(|(_, case)| case.truth.is_empty())
        .flat_map(|(i, case)| {
            let sealed = case.sealed.iter().flat_map(move |sealed| {
                let source = || seq!["sealed in ", cite(report, &sealed.manifest)];
                sealed.figures.iter().map(move |f| (f.metric.clone(), f.value, source()))
            });
            let simulated = case.simulation.iter().filter(|_| case.sealed.is_none()).flat_map(move |simulation| {
                let source = || seq!["simulation ", cite(report, &simulation.digest)];
                let figure = |metric: Metric| case.simulated(metric, report.run_statistic);
                Metric::ALL.into_iter().filter_map(move |m| Some((m.key().to_owned(), figure(m)?, source())))
            });
            sealed.chain(simulated).map(move |(metric, value, source)| (label(report, i), metric, value, source))
        })
        .map(|(label, metric, value, source)| {
            let known = Metric::named(&metric);
            let words = known.map_or_else(|| Html::from(&metric), |m| Html::from(m.words()));
            let shown = known.map_or_else(|| show::number(value), |m| m.show(value));
            vec![
                Cell::Label(label.to_owned()),
                Cell::Words(words),
                Cell::number_or(shown, "unknown"),
                Cell::Words(source),
                Cell::absent("not measured"),
            ]
        })
        .collect();
    table("Predictions without a run.", &["plan", "metric", "predicted", "from", "measured"], rows)
}

/// The section on stages.
pub(crate) fn busy_time(report: &Report) -> Html {
    let graph = &report.devices.value;
    let most = busy::longest(graph, &report.cases);
    let bars: Vec<busy::Bars> =
        report.cases.iter().enumerate().map(|(i, case)| busy::bars(graph, case, &label(report, i), most)).collect();
    let (drawn, all) = bars.iter().fold((0, 0), |(drawn, all), b| (drawn + b.drawn, all + b.all));
    let marks =
        [(Mark::Outline, "predicted"), (Mark::Bar, "measured, median over runs"), (Mark::Whisker, "range over runs")];
    let mut caption = Html::from("Mean busy time of one step in each stage.");
    if drawn < all {
        caption.push(format!(" The {drawn} longest of {all} are drawn."));
    }
    let simulations = report.cases.iter().filter_map(|case| case.simulation.as_ref()).map(|s| &s.digest);
    let cited = cite_all(report, simulations);
    if !cited.is_empty() {
        caption.push(" From simulations ");
        caption.push(cited);
        let runs: usize = report.cases.iter().map(|case| case.runs.len()).sum();
        caption.push(if runs == 0 { ".".to_owned() } else { format!(" and {}.", counted(runs, "run")) });
    }
    let drawings = bars.into_iter().map(|b| b.figure).collect();
    let figures = figures(report, drawings, legend(&marks), caption, &[Step::Simulate, Step::Run]);
    if figures.is_empty() {
        Html::none()
    } else {
        section("stages", "Where the time goes: busy time of each stage", figures)
    }
}
