//! Every plan as a picture and as a table of its stages.

use super::{cite, cite_all, figure, left_out, section};
use crate::figures::plan::{Row, listed, neighbours, picture, rows, way};
use crate::html::{Cell, Html, element, element_with, name, seq, table};
use crate::measure::{Spread, measured_step, predicted_step};
use crate::report::{Case, Report, Step};
use crate::show;
use crate::verdict::{feasible, label};
use isotherm_core::figure::How;
use isotherm_core::graph::Path;
use isotherm_core::ids::Layers;
use isotherm_core::plan::{Stage, Status};
use isotherm_core::problem::Role;
use isotherm_core::units::{BytesPerSecond, Seconds};
use std::collections::BTreeMap;

/// Up to so many stages have a row each.
const SINGLE_MAX: usize = 24;
const STAGES_MAX: usize = 120;
const HOPS_MAX: usize = 60;
const STOPS_MAX: usize = 20;

/// The section: every plan as a picture, then all their stages and links in one table each.
pub(crate) fn plans(report: &Report) -> Html {
    if report.cases.is_empty() {
        return Html::none();
    }
    let mut inside: Html = report.cases.iter().enumerate().map(|(i, case)| one(report, case, i)).collect();
    if report.cases.iter().any(feasible) {
        inside.push(stages(report));
        inside.push(hops(report));
        inside.push(routes(report));
    }
    section("plan", "The plans: which layers on which device", inside)
}

fn one(report: &Report, case: &Case, index: usize) -> Html {
    let plan = &case.plan;
    let heading = seq![label(report, index), ": ", name(&plan.model), ", plan ", cite(report, &plan.digest())];
    let mut inside = element("h3", heading);
    if !feasible(case) {
        inside.push(refused(case));
        return inside;
    }
    let first = report.cases.iter().position(feasible) == Some(index);
    let caption = if first {
        "Each row is a device, each box the layers it holds and the time of one step; requests walk from the top left \
         to the bottom right. On the arrows: latency and bandwidth of the link, and how they are known."
    } else {
        ""
    };
    inside.push(figure(report, picture(report, case), caption, &[Step::Plan, Step::Simulate]));
    inside.push(unused(case));
    inside
}

/// Why there is no plan.
fn refused(case: &Case) -> Html {
    let words = match case.plan.status {
        Status::Infeasible => "No placement fits:",
        Status::Unknown => "A limit came first; whether a placement exists is unknown.",
        Status::Optimal | Status::Feasible => "The plan has no stages.",
    };
    let reasons: Html = case.plan.reasons.iter().take(40).map(|reason| element("li", reason)).collect();
    let list = if reasons.is_empty() { Html::none() } else { element("ul", reasons) };
    seq![element("p", words), list, left_out(case.plan.reasons.len(), 40, "reasons"), unused(case)]
}

/// Every plan with its short name.
fn named(report: &Report) -> impl Iterator<Item = (String, &Case)> {
    report.cases.iter().enumerate().map(|(i, case)| (label(report, i), case))
}

/// Rows of a plan's tables: one per stage, or one per kind of stage where there are many.
fn gathered(report: &Report, case: &Case) -> Vec<Row> {
    let stages = &case.plan.stages;
    if stages.len() > SINGLE_MAX {
        return rows(&report.devices.value, stages);
    }
    let one = |(i, stage): (usize, &Stage)| Row::of(i, stage);
    stages.iter().enumerate().map(one).collect()
}

fn stages(report: &Report) -> Html {
    let all: Vec<(String, &Case, Row)> = named(report)
        .flat_map(|(label, case)| gathered(report, case).into_iter().map(move |row| (label.clone(), case, row)))
        .collect();
    let rows = all.iter().take(STAGES_MAX).map(|(label, case, row)| stage_row(label, case, row)).collect();
    let columns = [
        "plan",
        "stage",
        "device",
        "layers",
        "weights as",
        "weights",
        "KV cache",
        "memory in all",
        "power cap",
        "step, predicted",
        "step, measured",
    ];
    let mut caption = Html::from("Stages of all plans. A step is one pass of a batch through the stage");
    let simulations = cite_all(report, report.cases.iter().filter_map(|c| c.simulation.as_ref()).map(|s| &s.digest));
    if !simulations.is_empty() {
        caption.push("; predicted by simulation ");
        caption.push(simulations);
    }
    let runs: usize = report.cases.iter().map(|case| case.runs.len()).sum();
    if runs > 0 {
        caption.push("; measured: the median over the runs of the plan");
    }
    caption.push(".");
    if all.iter().any(|(_, _, row)| row.stages.len() > 1) {
        caption.push(" Stages of one class that hold the same layers share a row; bytes are of each.");
    }
    seq![table(caption, &columns, rows), left_out(all.len(), STAGES_MAX, "rows")]
}

fn stage_row(label: &str, case: &Case, row: &Row) -> Vec<Cell> {
    let stage = &case.plan.stages[row.stages[0]];
    let times = |of: &dyn Fn(usize) -> Option<f64>| {
        let spread = Spread::of(row.stages.iter().filter_map(|&i| of(i)))?;
        Some(show::low_high(show::seconds(spread.min)?, &show::seconds(spread.max)?))
    };
    let predicted = times(&|i| predicted_step(case, i));
    let measured = times(&|i| Some(measured_step(case, i)?.median));
    vec![
        Cell::Label(label.to_owned()),
        Cell::Number(listed(&row.stages).into()),
        Cell::Words(name(&row.name)),
        Cell::Number(show::layer_range(stage.layers).into()),
        Cell::Words(name(&stage.quantisation)),
        Cell::Number(stage.bytes.weights.to_string().into()),
        Cell::Number(stage.bytes.kv.to_string().into()),
        Cell::Number(stage.bytes.total.to_string().into()),
        Cell::number_or(stage.power_cap_watts.map(|cap| cap.to_string()), "none set"),
        Cell::number_or(predicted, "not predicted"),
        Cell::number_or(measured, "not measured"),
    ]
}

/// Links between rows of a plan: from row, to row, and the stages that they join.
type Hops = BTreeMap<(usize, usize), Vec<(usize, usize)>>;

fn hops(report: &Report) -> Html {
    let mut rows = Vec::new();
    for (label, case) in named(report) {
        let gathered = gathered(report, case);
        let row_of = row_of(&gathered);
        let mut hops: Hops = BTreeMap::new();
        for (a, b) in neighbours(case) {
            hops.entry((row_of[&a], row_of[&b])).or_default().push((a, b));
        }
        for ((from, to), pairs) in hops {
            let ways = pairs.iter().map(|&(a, b)| way(report, &case.plan.stages[a], &case.plan.stages[b])).collect();
            rows.push(hop_row(&label, (&gathered[from], &gathered[to]), &pairs, ways));
        }
    }
    let all = rows.len();
    rows.truncate(HOPS_MAX);
    let caption = seq!["Links between stages, from devices ", cite(report, &report.devices.digest), "."];
    let columns = ["plan", "stages", "from and to", "latency", "bandwidth", "known how"];
    seq![table(caption, &columns, rows), left_out(all, HOPS_MAX, "rows")]
}

fn hop_row(label: &str, ends: (&Row, &Row), pairs: &[(usize, usize)], ways: Vec<Option<Path>>) -> Vec<Cell> {
    let known: Vec<Path> = ways.into_iter().flatten().collect();
    let missing = pairs.len() - known.len();
    let lacking = if missing > 0 && !known.is_empty() { format!(", {missing} unknown") } else { String::new() };
    let latencies = || known.iter().map(|p| p.latency);
    let latency = latencies().reduce(Seconds::min).zip(latencies().reduce(Seconds::max));
    let rates = || known.iter().filter_map(|p| p.bandwidth);
    let rate = rates().reduce(BytesPerSecond::min).zip(rates().reduce(BytesPerSecond::max));
    let latency = latency.map(|(a, b)| show::low_high(a.to_string(), &b.to_string()) + &lacking);
    let rate = rate.map(|(a, b)| show::low_high(a.to_string(), &b.to_string()));
    // Within one device nothing moves, so there is no bandwidth to know.
    let absent = if known.is_empty() { "unknown" } else { "not needed" };
    let how = known.iter().map(|p| p.how).reduce(How::weaker);
    let first: Vec<String> = pairs.iter().take(2).map(|(a, b)| format!("{} to {}", a + 1, b + 1)).collect();
    let more = if pairs.len() > 2 { " …" } else { "" };
    vec![
        Cell::Label(label.to_owned()),
        Cell::Words(format!("{}{more}", first.join(", ")).into()),
        Cell::Words(seq![name(&ends.0.name), " to ", name(&ends.1.name)]),
        Cell::number_or(latency, "unknown"),
        Cell::number_or(rate, absent),
        Cell::Words(how.map_or_else(|| "unknown".to_owned(), |how| how.to_string()).into()),
    ]
}

fn row_of(gathered: &[Row]) -> BTreeMap<usize, usize> {
    gathered.iter().enumerate().flat_map(|(i, row)| row.stages.iter().map(move |&stage| (stage, i))).collect()
}

/// Where a route stops: the row, and the layers served there.
type Stops = Vec<(Option<usize>, Layers)>;

/// The ways through plans that have more than one; ways over the same rows are one row.
fn routes(report: &Report) -> Html {
    let mut rows = Vec::new();
    for (label, case) in named(report).filter(|(_, case)| case.plan.routes.len() > 1) {
        let gathered = gathered(report, case);
        let row_of = row_of(&gathered);
        let mut alike: BTreeMap<(Option<Role>, Stops), Vec<f64>> = BTreeMap::new();
        for route in &case.plan.routes {
            let stops = route.stages.iter().take(STOPS_MAX);
            let key = stops.map(|s| (row_of.get(&(s.stage as usize)).copied(), s.layers)).collect();
            alike.entry((route.role, key)).or_default().push(route.share);
        }
        for ((role, stops), shares) in alike {
            let verb = role.map_or_else(String::new, |role| format!("{}: ", role.verb()));
            let way: Html = stops
                .iter()
                .enumerate()
                .map(|(k, &(row, layers))| {
                    let device = row.map_or_else(|| "no such stage".into(), |row| name(&gathered[row].name));
                    seq![if k == 0 { "" } else { " → " }, device, format!(": {}", show::layers(layers))]
                })
                .collect();
            let words = seq![verb, way];
            let total: f64 = shares.iter().sum();
            rows.push(vec![
                Cell::Label(label.clone()),
                Cell::Number(shares.len().to_string().into()),
                Cell::Words(words),
                Cell::number_or(show::percent(total), "unknown"),
            ]);
        }
    }
    let all = rows.len();
    rows.truncate(HOPS_MAX);
    let columns = ["plan", "routes", "over", "share of requests"];
    seq![table("Routes: the ways that requests take.", &columns, rows), left_out(all, HOPS_MAX, "rows")]
}

/// Devices that hold nothing, by reason.
fn unused(case: &Case) -> Html {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for unused in &case.plan.unused {
        by_reason.entry(&unused.reason).or_default().push(&unused.device);
    }
    if by_reason.is_empty() {
        return Html::none();
    }
    let items: Html = by_reason
        .iter()
        .take(30)
        .map(|(reason, devices)| {
            let names: Html = devices
                .iter()
                .take(8)
                .enumerate()
                .map(|(i, device)| seq![if i == 0 { "" } else { ", " }, name(device)])
                .collect();
            let more = if devices.len() > 8 { format!(" and {} more", devices.len() - 8) } else { String::new() };
            element("li", seq![names, more, ": ", *reason])
        })
        .collect();
    seq![
        element_with("p", &[("class", "note")], "Devices that hold nothing, and why:"),
        element("ul", items),
        left_out(by_reason.len(), 30, "reasons")
    ]
}
