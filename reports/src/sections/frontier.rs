//! Plans of which none is better than another in every respect, and where this one stands among them.

use super::{cite, left_out, section};
use crate::html::{Cell, Html, element_with, name, seq, table};
use crate::measure::run_figure;
use crate::report::{Case, Report, Step, Stored};
use crate::sheet::{Axis, Chart, Mark, figure};
use crate::show::{self, Metric};
use crate::verdict::{feasible, label};
use isotherm_core::frontier::{Frontier, FrontierAxis, FrontierPoint};

/// Most points of a frontier that the table lists.
const ROWS_MAX: usize = 60;
/// Groups of marks.
const GROUPS: [&str; 3] = ["plan of the frontier", "this plan, predicted", "this plan, measured, one mark a run"];

/// The section; a sentence with the command where no frontier was asked for, nothing without a plan.
pub(crate) fn frontier(report: &Report) -> Html {
    if !report.cases.iter().any(feasible) {
        return Html::none();
    }
    let inside = match &report.frontier {
        Some(stored) if stored.value.axes.len() >= 2 && !stored.value.points.is_empty() => shown(report, stored),
        Some(stored) => element_with(
            "p",
            &[("class", "absent")],
            seq!["The frontier ", cite(report, &stored.digest), " compares plans by one figure only, or holds none."],
        ),
        None => absent(report),
    };
    section("frontier", "Pareto frontier: what one figure costs in another", inside)
}

fn absent(report: &Report) -> Html {
    // The plan's own line, asked for a frontier in the place of one plan.
    let plan = report.commands.iter().find(|command| command.step == Step::Plan).map(|command| command.line.as_str());
    let words = plan.unwrap_or("isotherm plan SCENARIO");
    let kept: Vec<&str> = words.split(" -o ").next().unwrap_or(words).split(" --objective ").take(1).collect();
    let line = format!("{} --pareto throughput,latency --pareto-out frontier", kept.join(" "));
    seq![
        element_with("p", &[("class", "absent")], "No frontier was asked for, so only the plans themselves are shown."),
        element_with(
            "p",
            &[("class", "note")],
            seq![
                "It is made by ",
                crate::html::element("code", &line),
                " and shown here when its folder lies beside the plans."
            ]
        )
    ]
}

fn shown(report: &Report, stored: &Stored<Frontier>) -> Html {
    let frontier = &stored.value;
    let (x, y) = (&frontier.axes[0], &frontier.axes[1]);
    let cases: Vec<(usize, &Case)> = report.cases.iter().enumerate().filter(|(_, case)| feasible(case)).collect();
    // A plan for another question stands on no frontier of this one.
    let asked = |case: &Case| case.plan.header.inputs == frontier.header.inputs && frontier.asked.may_be_of(&case.plan);
    let mut marks: Vec<Mark> =
        frontier.points.iter().enumerate().filter_map(|(i, point)| mark(point, i, frontier)).collect();
    let mut corners: Vec<(f64, f64)> = marks.iter().map(|mark| (mark.x, mark.y)).collect();
    corners.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (i, case) in cases.iter().filter(|(_, case)| asked(case)) {
        marks.extend(own(report, case, &label(report, *i), frontier));
    }
    let elsewhere = cases.iter().any(|(_, case)| asked(case) && point_of(case, frontier).is_none());
    let apart = cases.iter().filter(|(_, case)| !asked(case)).map(|(i, _)| label(report, *i)).collect::<Vec<_>>();
    let mut note = format!(
        "Each mark of the frontier is a plan; none of them is better than another in both figures. {}",
        if marks.iter().any(|mark| mark.group == GROUPS[2]) {
            "What was measured is of the load of the run, which need not use all that the plan can give."
        } else {
            "No run has both of the figures, so that none is drawn."
        }
    );
    if elsewhere {
        note.push_str(
            " A plan that is no point of the frontier is drawn with the planner's value by its own objective, and with \
             what was sealed or simulated, under the scenario's load, by the other figure, so that it may look further \
             from the frontier than it is.",
        );
    }
    note.push_str(
        " Pins, bans, goals and the air's temperature asked for on the command line are compared only as far as a \
         plan's file shows them: by the devices that hold layers, and by its air where heat was planned for.",
    );
    if !apart.is_empty() {
        note.push_str(&format!(
            " Not drawn, since they answer another scenario or were asked for otherwise: {}.",
            apart.join(", ")
        ));
    }
    let chart = Chart {
        title: format!("{} against {}", y.name, x.name),
        x: axis(x),
        y: axis(y),
        marks,
        line: corners,
        line_name: "frontier, joined for the eye".to_owned(),
        note,
        remake: frontier.command.clone(),
        source: stored.digest.short(),
    };
    let all = frontier.points.len();
    let mut columns = vec!["plan"];
    let heads: Vec<String> = frontier.axes.iter().map(words).collect();
    columns.extend(heads.iter().map(String::as_str));
    columns.extend(["vouched for", "gap", "devices"]);
    let rows = frontier.points.iter().take(ROWS_MAX).map(|point| row(report, point, frontier)).collect();
    let caption = seq!["Plans of the frontier ", cite(report, &stored.digest), ", best by the first figure first."];
    seq![figure(&chart), table(caption, &columns, rows), left_out(all, ROWS_MAX, "plans")]
}

fn words(axis: &FrontierAxis) -> String {
    if axis.unit.is_empty() { axis.name.clone() } else { format!("{}, {}", axis.name, axis.unit) }
}

fn axis(of: &FrontierAxis) -> Axis {
    let better = if of.maximise { "more is better" } else { "less is better" };
    Axis { name: format!("{} ({better})", of.name), unit: of.unit.clone(), log: false }
}

fn value(axis: &FrontierAxis, figure: f64) -> String {
    let shown = if axis.unit == "s" { show::seconds(figure) } else { show::number(figure) };
    shown.unwrap_or_else(|| "unknown".to_owned())
}

fn mark(point: &FrontierPoint, index: usize, frontier: &Frontier) -> Option<Mark> {
    let (x, y) = (*point.figures.first()?, *point.figures.get(1)?);
    let words: Vec<String> = frontier
        .axes
        .iter()
        .zip(&point.figures)
        .map(|(axis, figure)| format!("{} {}", axis.name, value(axis, *figure)))
        .collect();
    Some(Mark {
        x,
        y,
        words: format!("plan {}: {}; {}", index + 1, words.join(", "), point.vouched),
        group: GROUPS[0].to_owned(),
        ..Mark::default()
    })
}

/// The point of the frontier that is this very plan.
fn point_of<'a>(case: &Case, frontier: &'a Frontier) -> Option<&'a FrontierPoint> {
    let digest = case.plan.digest();
    frontier.points.iter().find(|point| point.plan == digest)
}

/// A plan's own figures on both axes: predicted once, measured once a run.
fn own(report: &Report, case: &Case, label: &str, frontier: &Frontier) -> Vec<Mark> {
    let (x, y) = (&frontier.axes[0], &frontier.axes[1]);
    let mark = |group: usize, figures: Option<(f64, f64)>, what: &str| {
        figures.map(|(a, b)| Mark {
            x: a,
            y: b,
            words: format!("{label}, {what}: {} {}, {} {}", x.name, value(x, a), y.name, value(y, b)),
            group: GROUPS[group].to_owned(),
            ..Mark::default()
        })
    };
    let predicted = |axis: &FrontierAxis| {
        let planned = case.plan.objective_value.filter(|_| case.plan.objective_name == axis.objective);
        let metric = metric(axis)?;
        planned
            .or_else(|| case.sealed.as_ref()?.figure(metric))
            .or_else(|| case.simulated(metric, report.run_statistic))
    };
    // A point of the frontier has both of its figures from the planner, for the same load as its neighbours.
    let point = point_of(case, frontier).and_then(|point| point.figures.first().zip(point.figures.get(1)));
    let figures = point.map(|(a, b)| (*a, *b)).or_else(|| predicted(x).zip(predicted(y)));
    let mut marks: Vec<Mark> = mark(1, figures, "predicted").into_iter().collect();
    for (i, run) in case.runs.iter().enumerate() {
        let of = |axis: &FrontierAxis| run_figure(&run.value, metric(axis)?.key(), report.run_statistic);
        marks.extend(mark(2, of(x).zip(of(y)), &format!("run {}", i + 1)));
    }
    marks
}

/// What is predicted and measured of an axis, where anything is.
fn metric(axis: &FrontierAxis) -> Option<Metric> {
    match axis.objective.as_str() {
        "throughput" => Metric::named("tokens_per_second"),
        "tpot" => Metric::named("tpot"),
        _ => None,
    }
}

fn row(report: &Report, point: &FrontierPoint, frontier: &Frontier) -> Vec<Cell> {
    let mut cells = vec![Cell::Words(seq![name(&point.file), " ", cite(report, &point.plan)])];
    let figure = |i: usize| point.figures.get(i).map(|figure| value(&frontier.axes[i], *figure));
    cells.extend((0..frontier.axes.len()).map(|i| Cell::number_or(figure(i), "unknown")));
    let vouched = match point.vouched.as_str() {
        "certified" => "certified: the best for one figure, or the cheapest at its rate",
        "solver" => "on the solver's word: the best for one figure, or the cheapest at its rate",
        _ => "by nobody: what the sweep found",
    };
    cells.push(Cell::Words(vouched.into()));
    cells.push(Cell::number_or(point.gap.and_then(show::percent), "no bound"));
    cells.push(Cell::Words(name(&point.devices.join(" > "))));
    cells
}
