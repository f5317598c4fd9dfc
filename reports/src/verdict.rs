//! The verdict: what the artefacts amount to, in plain sentences, each with where it comes from.

use crate::contradictions::{Order, contradictions, order};
use crate::html::{Html, element, element_with, name, seq};
use crate::measure::{Spread, run_figure};
use crate::report::{Case, Report, RunStatistic};
use crate::show::{self, Metric, counted, percent};
use isotherm_core::plan::{BoundKind, Plan, Status};
use isotherm_core::record::TruthRow;
use std::collections::BTreeSet;

/// A gap below this is no gap: two floating-point sums of the same numbers differ by as much.
const NO_GAP: f64 = 1e-9;

/// What the best plan's figure rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Basis {
    Measured,
    Sealed,
    Simulated,
    Planned,
}

impl Basis {
    const ALL: [Self; 4] = [Self::Measured, Self::Sealed, Self::Simulated, Self::Planned];

    const fn word(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Sealed | Self::Simulated | Self::Planned => "predicted",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Sealed => "predicted and sealed, not measured",
            Self::Simulated => "simulated, not measured",
            Self::Planned => "by the plan's own estimate, not measured",
        }
    }

    /// The case's figure of the metric on this basis.
    fn figure(self, case: &Case, metric: Metric, statistic: RunStatistic) -> Option<f64> {
        let value = match self {
            Self::Measured => case.row(metric).map(|row| row.measured),
            Self::Sealed => case.sealed.as_ref().and_then(|s| s.figure(metric)),
            Self::Simulated => case.simulated(metric, statistic),
            Self::Planned => case.plan.objective_value.filter(|_| show::objective_metric(&case.plan) == Some(metric)),
        };
        value.filter(|v| v.is_finite() && *v > 0.0)
    }
}

/// Whether a case has a plan at all.
pub(crate) fn feasible(case: &Case) -> bool {
    matches!(case.plan.status, Status::Optimal | Status::Feasible) && !case.plan.stages.is_empty()
}

/// Stages that one request passes: those of the longest route.
pub(crate) fn stages(plan: &Plan) -> usize {
    plan.routes.iter().map(|route| route.stages.len()).max().unwrap_or(plan.stages.len())
}

/// Short name of a case: its number of stages, and the plan's digest where two cases would share a name.
pub(crate) fn label(report: &Report, index: usize) -> String {
    let bare = |case: &Case| match (feasible(case), case.plan.routes.len()) {
        (false, _) => "no plan".to_owned(),
        (true, routes) if routes > 1 => {
            format!("{}, {}", counted(stages(&case.plan), "stage"), counted(routes, "route"))
        }
        (true, _) => counted(stages(&case.plan), "stage"),
    };
    let own = bare(&report.cases[index]);
    if report.cases.iter().filter(|case| bare(case) == own).count() > 1 {
        format!("{own} ({})", &report.cases[index].plan.digest().short()[..6])
    } else {
        own
    }
}

/// A case as the subject of a sentence.
fn subject(case: &Case) -> String {
    let devices: BTreeSet<&str> = case.plan.stages.iter().flat_map(|s| &s.devices).map(String::as_str).collect();
    match (devices.len(), case.plan.routes.len()) {
        (1, _) => "one device".to_owned(),
        (n, routes) if routes > 1 => format!("{n} devices on {routes} routes"),
        (n, _) if stages(&case.plan) == 1 => format!("{n} devices together"),
        (n, _) => format!("a split over {n} devices"),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// A figure of the objective in a sentence.
fn phrase(metric: Metric, value: f64) -> String {
    let shown = metric.show(value).unwrap_or_else(|| "unknown".to_owned());
    match metric {
        Metric::Tpot => format!("{shown} per token"),
        Metric::Ttft => format!("{shown} to the first token"),
        Metric::E2e => format!("{shown} to the last token"),
        Metric::TokensPerSecond => shown.replace("tok/s", "tokens per second"),
    }
}

/// The answer to the scenario's question.
struct Answer {
    headline: String,
    sentences: Vec<String>,
    best: Option<usize>,
}

fn answer(report: &Report) -> Answer {
    let candidates: Vec<usize> = (0..report.cases.len()).filter(|&i| feasible(&report.cases[i])).collect();
    let Some(&first) = candidates.first() else { return no_answer(report) };
    let metric = show::objective_metric(&report.cases[first].plan);
    let ranked = metric.and_then(|metric| {
        let basis = Basis::ALL.into_iter().find(|basis| {
            candidates.iter().all(|&i| basis.figure(&report.cases[i], metric, report.run_statistic).is_some())
        })?;
        let mut figures: Vec<(usize, f64)> = candidates
            .iter()
            .filter_map(|&i| Some((i, basis.figure(&report.cases[i], metric, report.run_statistic)?)))
            .collect();
        figures.sort_by(|a, b| if metric.maximises() { b.1.total_cmp(&a.1) } else { a.1.total_cmp(&b.1) });
        Some((metric, basis, figures))
    });
    let Some((metric, basis, figures)) = ranked else {
        let headline = format!("{} can serve it; no figure to compare.", capital(&subject(&report.cases[first])));
        return Answer { headline, sentences: Vec::new(), best: Some(first) };
    };
    let (best, value) = figures[0];
    let who = capital(&subject(&report.cases[best]));
    let is_best = if figures.len() > 1 { " is best" } else { "" };
    let mut sentences = Vec::new();
    let others: Vec<String> =
        figures[1..].iter().map(|other| compared(report, metric, basis, figures[0], *other)).collect();
    let mut headline = format!("{who}{is_best}: {}, {}", phrase(metric, value), basis.word());
    match others.as_slice() {
        [] => {}
        [only] => headline.push_str(&format!("; {only}")),
        [second, rest @ ..] => {
            headline.push_str(&format!("; {second}"));
            sentences.push(format!("{}.", capital(&rest.join("; "))));
        }
    }
    headline.push('.');
    if basis == Basis::Measured {
        sentences.extend(ranking(report, metric, &figures));
    } else {
        sentences.push(format!("This is {}.", basis.words()));
    }
    Answer { headline, sentences, best: Some(best) }
}

/// What a plan costs against the best one.
fn compared(report: &Report, metric: Metric, basis: Basis, best: (usize, f64), other: (usize, f64)) -> String {
    let (verb, share) =
        if metric.maximises() { ("loses", 1.0 - other.1 / best.1) } else { ("costs", other.1 / best.1 - 1.0) };
    let share = percent(share).unwrap_or_else(|| "an unknown share".to_owned());
    let more = if metric.maximises() { "" } else { " more" };
    let spread = |i: usize| report.cases[i].measured(metric, report.run_statistic).filter(|s| s.count > 1);
    let unclear = basis == Basis::Measured
        && spread(best.0).zip(spread(other.0)).is_some_and(|(a, b): (Spread, Spread)| a.overlaps(&b));
    let note = if unclear { ", less than the spread between runs" } else { "" };
    format!("{} {verb} {share}{more}{note}", subject(&report.cases[other.0]))
}

/// Whether the predictions had ranked the plans as the measurements did.
fn ranking(report: &Report, metric: Metric, measured: &[(usize, f64)]) -> Option<String> {
    if measured.len() < 2 {
        return None;
    }
    let mut predicted: Vec<(usize, f64)> =
        measured.iter().filter_map(|&(i, _)| Some((i, report.cases[i].row(metric)?.predicted))).collect();
    predicted.sort_by(|a, b| if metric.maximises() { b.1.total_cmp(&a.1) } else { a.1.total_cmp(&b.1) });
    let order = |figures: &[(usize, f64)]| figures.iter().map(|f| f.0).collect::<Vec<_>>();
    Some(if order(&predicted) == order(measured) {
        "The predictions had put the plans in the same order.".to_owned()
    } else {
        let names: Vec<String> = predicted.iter().map(|&(i, _)| subject(&report.cases[i])).collect();
        format!("The predictions had put them in another order, best first: {}.", names.join(", "))
    })
}

fn no_answer(report: &Report) -> Answer {
    let refused = report.cases.iter().find(|case| case.plan.status == Status::Infeasible);
    let headline = match (refused, report.cases.is_empty()) {
        (_, true) => "There is no plan in this report.".to_owned(),
        (Some(_), _) => "There is no placement that fits.".to_owned(),
        (None, _) => "A limit came before an answer: whether a placement exists is unknown.".to_owned(),
    };
    let sentences = refused.map(|case| case.plan.reasons.iter().take(5).map(|r| format!("{r}.")).collect());
    Answer { headline, sentences: sentences.unwrap_or_default(), best: None }
}

/// Every compared row, with the case it belongs to.
fn truth_rows(report: &Report) -> impl Iterator<Item = (usize, &TruthRow)> {
    report.cases.iter().enumerate().flat_map(|(i, case)| case.truth.iter().map(move |row| (i, row)))
}

/// How far predictions lay from measurements.
fn accuracy(report: &Report) -> Option<String> {
    let rows: Vec<(usize, &TruthRow)> = truth_rows(report).collect();
    let errors: Vec<f64> = rows.iter().map(|(_, row)| row.error.abs()).filter(|e| e.is_finite()).collect();
    let median = Spread::of(errors.iter().copied())?.median;
    let (case, worst) =
        rows.iter().filter(|r| r.1.error.is_finite()).max_by(|a, b| a.1.error.abs().total_cmp(&b.1.error.abs()))?;
    let metric = Metric::named(&worst.metric).map_or(worst.metric.as_str(), |known| known.short());
    let mut text = format!("Predicted within {} of measured", percent(median)?);
    if errors.len() > 1 {
        let (rows, share, label) = (counted(errors.len(), "row"), percent(worst.error)?, label(report, *case));
        text.push_str(&format!(" (median of {rows}); worst row {share}: {metric}, {label}"));
    }
    let run_errors = rows.iter().flat_map(|&(i, row)| {
        let runs = report.cases[i].runs.iter();
        runs.filter_map(|run| {
            Some((row.predicted / run_figure(&run.value, &row.metric, report.run_statistic)? - 1.0).abs())
        })
    });
    if let Some(spread) = Spread::of(run_errors)
        && let Some(share) = percent(spread.max)
    {
        text.push_str(&format!("; worst single run {share}"));
    }
    text.push('.');
    let lost = rows.len() - errors.len();
    if lost > 0 {
        text.push_str(&format!(" {} without a comparable figure.", counted(lost, "row")));
    }
    Some(text)
}

/// How good the best plan is known to be.
fn proof(case: &Case) -> String {
    let Some(certificate) = &case.plan.certificate else {
        return "How much better another placement could be is unknown: the plan has no certificate.".to_owned();
    };
    let claim = match certificate.gap.filter(|gap| gap.is_finite()) {
        Some(gap) if gap.abs() <= NO_GAP => "No placement is better within the limits of its problem".to_owned(),
        Some(gap) => format!(
            "No placement is better by more than {} within the limits of its problem",
            percent(gap).unwrap_or_default()
        ),
        None => return "How much better another placement could be is unknown: there is no bound.".to_owned(),
    };
    match certificate.bound_kind {
        BoundKind::Certified => format!("{claim}: certified, checked without a solver."),
        BoundKind::Solver => {
            let solver = certificate.solver.as_deref().unwrap_or("the solver");
            format!("{claim}: by the word of {solver}, not checked independently.")
        }
        BoundKind::None => {
            "How much better another placement could be is unknown: nobody vouches for the bound.".to_owned()
        }
    }
}

/// Whether predictions came first.
pub(crate) fn order_sentence(report: &Report) -> Option<String> {
    match order(report) {
        Order::NoRuns => None,
        Order::NotSealed => {
            Some("The predictions were not sealed: nothing shows that they came before the runs.".into())
        }
        Order::Unlogged { .. } => {
            Some("The log does not show that the predictions were sealed before the runs.".to_owned())
        }
        Order::Sealed { seal, first, last } if first == last => {
            Some(format!("Predictions were sealed (log entry {seal}) before the run (entry {first})."))
        }
        Order::Sealed { seal, first, last } => {
            Some(format!("Predictions were sealed (log entry {seal}) before the runs (entries {first} to {last})."))
        }
        Order::TooLate { .. } => Some("Predictions were sealed after runs had been made: they predict nothing.".into()),
    }
}

/// What the runs sampled.
fn tokens(report: &Report) -> Option<String> {
    let runs: Vec<_> = report.cases.iter().flat_map(|case| &case.runs).collect();
    let workload = &runs.first()?.value.workload;
    if runs.len() < 2 || runs.iter().any(|run| run.value.workload != *workload) {
        return None;
    }
    let distinct: BTreeSet<_> = runs.iter().map(|run| run.value.tokens).collect();
    let count = counted(runs.len(), "run");
    Some(match distinct.iter().next() {
        Some(digest) if distinct.len() == 1 => format!("All {count} sampled the same tokens ({}).", digest.short()),
        _ => format!("The {count} sampled {} different sequences of tokens.", distinct.len()),
    })
}

/// What is known of temperature.
fn temperature(report: &Report) -> Option<String> {
    let simulated: Vec<_> =
        report.cases.iter().filter_map(|c| c.simulation.as_ref()).flat_map(|s| &s.value.devices).collect();
    let hot: BTreeSet<&str> = simulated
        .iter()
        .filter(|d| d.throttled_seconds.is_some_and(|t| t.value() > 0.0))
        .map(|d| d.name.as_str())
        .collect();
    let known: Vec<_> = simulated.iter().filter(|d| d.temperature_max_celsius.is_some()).collect();
    let sensed = report
        .cases
        .iter()
        .flat_map(|case| &case.runs)
        .flat_map(|run| &run.value.trace.devices)
        .any(|d| d.temperature_max_celsius.is_some() || d.samples.iter().any(|s| s.temperature_celsius.is_some()));
    let ran = report.cases.iter().any(|case| !case.runs.is_empty());
    let sensor = match (ran, sensed) {
        (false, _) => "",
        (true, true) => " Temperatures were measured as well.",
        (true, false) => " Measured: no sensor.",
    };
    let sources: BTreeSet<&str> = known.iter().map(|d| d.source.as_str()).collect();
    let sources = sources.into_iter().take(3).collect::<Vec<_>>().join("; ");
    match (known.is_empty(), hot.is_empty()) {
        (true, _) => None,
        (false, true) => Some(format!("No device is predicted to throttle ({sources}).{sensor}")),
        (false, false) => {
            let names = hot.into_iter().take(5).collect::<Vec<_>>().join(", ");
            Some(format!("Predicted to throttle ({sources}): {names}.{sensor}"))
        }
    }
}

/// How much was run.
fn effort(report: &Report) -> String {
    let runs: usize = report.cases.iter().map(|case| case.runs.len()).sum();
    let failed = report.failures.len();
    match (runs, failed) {
        (0, 0) => "No run of this load is here.".to_owned(),
        (runs, 0) => format!("{} made, all of them shown.", counted(runs, "run")),
        (runs, failed) => {
            format!(
                "{} made, all of them shown; {} gave no record.",
                counted(runs, "run"),
                counted(failed, "further run")
            )
        }
    }
}

/// The section at the top of the page.
pub(crate) fn section(report: &Report) -> Html {
    let answer = answer(report);
    let mut inside = element_with("h2", &[("class", "visually-hidden")], "Verdict");
    inside.push(element_with("p", &[("class", "headline")], answer.headline));
    inside.push(tiles(report, answer.best));
    let mut lines: Vec<(Html, &'static str)> = Vec::new();
    if !answer.sentences.is_empty() {
        lines.push((answer.sentences.join(" ").into(), "#truth"));
    }
    lines.extend(accuracy(report).map(|text| (text.into(), "#truth")));
    lines.extend(answer.best.map(|best| (proof(&report.cases[best]).into(), "#certificate")));
    lines.extend(order_sentence(report).map(|text| (text.into(), "#evidence")));
    lines.extend(tokens(report).map(|text| (text.into(), "#requests")));
    lines.extend(temperature(report).map(|text| (text.into(), "#temperature")));
    lines.push((effort(report).into(), "#requests"));
    lines.extend(report.notes.iter().map(|note| (note.into(), "")));
    let items: Html = lines
        .into_iter()
        .map(|(text, anchor)| {
            let more = match anchor {
                "" => Html::none(),
                "#truth" | "#requests" if answer.best.is_none() => Html::none(),
                anchor => seq![" ", element_with("a", &[("href", anchor), ("class", "more")], where_to(anchor))],
            };
            element("li", seq![text, more])
        })
        .collect();
    inside.push(element_with("ul", &[("class", "sentences")], items));
    inside.push(warnings(report));
    element_with("section", &[("id", "verdict")], inside)
}

/// What stands behind an anchor, in a word.
fn where_to(anchor: &str) -> &'static str {
    match anchor {
        "#truth" => "rows",
        "#certificate" => "certificate",
        "#evidence" => "log",
        "#temperature" => "curves",
        _ => "runs",
    }
}

/// What the page itself found wrong.
fn warnings(report: &Report) -> Html {
    let found = contradictions(report);
    if found.is_empty() && report.failures.is_empty() {
        return Html::none();
    }
    let mut inside = Html::none();
    if !found.is_empty() {
        inside.push(element("h3", "This report contradicts itself"));
        inside.push(element("ul", found.iter().take(20).map(|text| element("li", text)).collect::<Html>()));
    }
    if !report.failures.is_empty() {
        inside.push(element("h3", "Runs without a record"));
        let items = report.failures.iter().take(20).map(|f| element("li", seq![name(&f.run), ": ", &f.reason]));
        inside.push(element("ul", items.collect::<Html>()));
    }
    for (shown, all) in [(20, found.len()), (20, report.failures.len())] {
        if all > shown {
            inside.push(element("p", format!("and {} more.", all - shown)));
        }
    }
    element_with("div", &[("class", "warning"), ("role", "note")], inside)
}

/// The figures of the best plan at a glance.
fn tiles(report: &Report, best: Option<usize>) -> Html {
    let Some(best) = best else { return Html::none() };
    let case = &report.cases[best];
    let metric = show::objective_metric(&case.plan);
    let mut tiles: Vec<(String, String, String)> = Vec::new();
    let label = label(report, best);
    if let Some(metric) = metric {
        let measured = case.row(metric).and_then(|row| metric.show(row.measured));
        let spread = case.measured(metric, report.run_statistic).filter(|s| s.count > 1);
        let range = spread
            .and_then(|s| Some(format!("{} to {} in {} runs", metric.show(s.min)?, metric.show(s.max)?, s.count)));
        let measured_note = range.unwrap_or_else(|| label.clone());
        tiles.push((
            format!("measured {}", metric.short()),
            measured.unwrap_or_else(|| "not measured".to_owned()),
            measured_note,
        ));
        let (basis, predicted) = Basis::ALL[1..]
            .iter()
            .find_map(|basis| Some((*basis, metric.show(basis.figure(case, metric, report.run_statistic)?)?)))
            .map_or(("", "unknown".to_owned()), |(basis, shown)| (basis.words(), shown));
        let note = basis.split(',').next().unwrap_or_default().to_owned();
        let note = if case.sealed.is_some() { "sealed before the run".to_owned() } else { note };
        tiles.push((format!("predicted {}", metric.short()), predicted, note));
        if let Some(error) = case.row(metric).and_then(|row| show::signed_percent(row.error)) {
            tiles.push(("prediction error".to_owned(), error, "predicted over measured".to_owned()));
        }
    }
    let gap = case.plan.certificate.as_ref().and_then(|c| percent(c.gap?));
    let kind = case.plan.certificate.as_ref().map_or("no certificate", |c| match c.bound_kind {
        BoundKind::Certified => "certified",
        BoundKind::Solver => "solver's word",
        BoundKind::None => "no bound",
    });
    tiles.push(("gap to the bound".to_owned(), gap.unwrap_or_else(|| "unknown".to_owned()), kind.to_owned()));
    let items: Html = tiles
        .into_iter()
        .map(|(what, value, note)| {
            let value = element_with("dd", &[("class", "value")], value);
            element_with("div", &[("class", "tile")], seq![element("dt", what), value, element("dd", note)])
        })
        .collect();
    element_with("dl", &[("class", "tiles")], items)
}
