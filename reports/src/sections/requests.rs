//! Every run and every request: the strips, the distribution, the list of runs.

use super::{Mark, cite, figures, left_out, legend, section};
use crate::figures::requests::{DOTS_MAX, strip};
use crate::html::{Cell, Html, element, element_with, name, seq, table};
use crate::measure::run_figure;
use crate::report::{Report, Step};
use crate::show::{Metric, count, counted};
use crate::verdict::label;
use isotherm_core::percentile::Percentile;
use isotherm_core::trace::Statistic;

const RUNS_MAX: usize = 200;
/// Fewest queries for which a 90th percentile is told, as MLPerf's early stopping asks for a single stream.
const P90_QUERIES_MIN: usize = 64;
/// Fewest queries for a 99th percentile, by the same rule.
const P99_QUERIES_MIN: usize = 662;

/// The section.
pub(crate) fn requests(report: &Report) -> Html {
    let (mut drawings, mut drawn, mut all) = (Vec::new(), 0, 0);
    for (i, case) in report.cases.iter().enumerate() {
        for metric in [Metric::Tpot, Metric::Ttft] {
            let strip = strip(case, &label(report, i), metric, report.run_statistic);
            drawings.push(strip.figure);
            drawn += strip.drawn;
            all += strip.all;
        }
    }
    let marks = [(Mark::Dot, "one request"), (Mark::Dashes, "prediction")];
    let mut caption = Html::from("A column is one run, in the order they were made, the worst included.");
    if drawn < all {
        caption.push(format!(
            " Thinned to {} of {} dots (at most {} in one panel): each run at even ranks, its fastest and slowest \
             request always among them. The run records hold every request.",
            count(drawn as u64),
            count(all as u64),
            count(DOTS_MAX as u64)
        ));
    }
    let mut inside = figures(report, drawings, legend(&marks), caption, &[Step::Run]);
    inside.push(distribution(report));
    inside.push(runs(report));
    if inside.is_empty() { Html::none() } else { section("requests", "Every run and every request", inside) }
}

fn runs(report: &Report) -> Html {
    let listed: Vec<_> = report
        .cases
        .iter()
        .enumerate()
        .flat_map(|(i, case)| case.runs.iter().enumerate().map(move |(k, run)| (i, k, run)))
        .collect();
    let rows = listed
        .iter()
        .take(RUNS_MAX)
        .map(|&(i, k, run)| {
            let figure = |metric: Metric| {
                Cell::number_or(
                    run_figure(&run.value, metric.key(), report.run_statistic).and_then(|v| metric.show(v)),
                    "not measured",
                )
            };
            vec![
                Cell::Label(label(report, i)),
                Cell::Number((k + 1).to_string().into()),
                Cell::Words(name(&run.value.started)),
                figure(Metric::Tpot),
                figure(Metric::Ttft),
                figure(Metric::TokensPerSecond),
                Cell::Number(count(run.value.trace.requests.len() as u64).into()),
                Cell::Words(name(&run.value.arithmetic)),
                Cell::Words(element_with(
                    "code",
                    &[("title", &run.value.tokens.to_string())],
                    run.value.tokens.short(),
                )),
                Cell::Words(cite(report, &run.digest)),
            ]
        })
        .collect();
    let columns =
        ["plan", "run", "started", "TPOT", "TTFT", "tokens/s", "requests", "arithmetic", "tokens sampled", "record"];
    let words = report.run_statistic.words();
    let caption = format!("Every run; times are the {words} over its requests.");
    seq![table(caption, &columns, rows), left_out(listed.len(), RUNS_MAX, "runs")]
}

/// Percentiles over all requests together; never an average of percentiles.
fn distribution(report: &Report) -> Html {
    let mut rows = Vec::new();
    for (i, case) in report.cases.iter().enumerate() {
        for metric in [Metric::Tpot, Metric::Ttft, Metric::E2e] {
            if let Some(simulation) = &case.simulation
                && let Some(statistic) = simulation.value.metrics.get(metric.key())
            {
                let queries = simulation.value.requests as usize * simulation.value.seeds as usize;
                let source = seq!["simulated, ", cite(report, &simulation.digest)];
                let enclosed = simulation.value.percentiles.get(metric.key()).map_or(&[][..], Vec::as_slice);
                rows.push(row(&label(report, i), metric, source, queries, (statistic, enclosed)));
            }
            if let Some((statistic, queries)) = case.pooled(metric) {
                let source = Html::from(format!("measured, {}", counted(case.runs.len(), "run")));
                rows.push(row(&label(report, i), metric, source, queries, (&statistic, &[])));
            }
        }
    }
    let caption = seq![
        "Distribution over all requests of all runs together. A percentile is told only where the queries suffice: ",
        P90_QUERIES_MIN.to_string(),
        " for the 90th, ",
        P99_QUERIES_MIN.to_string(),
        " for the 99th (the floors of MLPerf's early stopping). Beside a mean its 95 % interval over seeds; beside a \
         percentile the two values that enclose it in 95 of 100 cases, were requests independent of each other."
    ];
    table(caption, &["plan", "metric", "source", "requests", "mean", "median", "p90", "p99"], rows)
}

fn row(
    label: &str,
    metric: Metric,
    source: Html,
    queries: usize,
    (statistic, enclosed): (&Statistic, &[Percentile]),
) -> Vec<Cell> {
    let between = |percent: f64| {
        let known = enclosed.iter().find(|known| known.percent == percent)?;
        let (low, high) = known.interval?;
        Some(seq![" ", element("small", seq![metric.show(low)?, " to ", metric.show(high)?])])
    };
    let told = |value: f64, percent: f64| match metric.show(value) {
        Some(shown) => Cell::Number(seq![shown, between(percent).unwrap_or_else(Html::none)]),
        None => Cell::absent("unknown"),
    };
    let enough = |value: f64, percent: f64, least: usize| {
        if queries < least { Cell::absent("too few requests") } else { told(value, percent) }
    };
    let interval = statistic.ci95.and_then(|half| metric.show(half));
    let mean = metric.show(statistic.mean).map(|mean| match interval {
        Some(half) => seq![mean, " ", element("small", seq!["± ", half])],
        None => Html::from(mean),
    });
    vec![
        Cell::Label(label.to_owned()),
        Cell::Words(metric.words().into()),
        Cell::Words(source),
        Cell::Number(count(queries as u64).into()),
        mean.map_or_else(|| Cell::absent("unknown"), Cell::Number),
        told(statistic.p50, 50.0),
        enough(statistic.p90, 90.0, P90_QUERIES_MIN),
        enough(statistic.p99, 99.0, P99_QUERIES_MIN),
    ]
}
