//! Every plan as a picture and as a table of its stages.

use super::{cite, cite_all, figure, left_out, section};
use crate::figures::plan::{neighbours, picture, way};
use crate::html::{Cell, Html, element, element_with, name, seq, table};
use crate::measure::{measured_step, predicted_step};
use crate::report::{Case, Report, Step};
use crate::show;
use crate::verdict::{feasible, label};
use isotherm_core::plan::Status;
use std::collections::BTreeMap;

const STAGES_MAX: usize = 120;
const HOPS_MAX: usize = 60;

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

fn stages(report: &Report) -> Html {
    let all = report.cases.iter().map(|case| case.plan.stages.len()).sum();
    let rows = named(report)
        .flat_map(|(label, case)| (0..case.plan.stages.len()).map(move |i| stage_row(&label, case, i)))
        .take(STAGES_MAX)
        .collect();
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
    seq![table(caption, &columns, rows), left_out(all, STAGES_MAX, "stages")]
}

fn stage_row(label: &str, case: &Case, i: usize) -> Vec<Cell> {
    let stage = &case.plan.stages[i];
    let devices: Html = stage
        .devices
        .iter()
        .take(16)
        .enumerate()
        .map(|(k, device)| seq![if k == 0 { "" } else { " + " }, name(device)])
        .collect();
    vec![
        Cell::Label(label.to_owned()),
        Cell::Number((i + 1).to_string().into()),
        Cell::Words(devices),
        Cell::Words(show::layers(stage.layers).into()),
        Cell::Words(name(&stage.quantisation)),
        Cell::Number(stage.bytes.weights.to_string().into()),
        Cell::Number(stage.bytes.kv.to_string().into()),
        Cell::Number(stage.bytes.total.to_string().into()),
        Cell::number_or(stage.power_cap_watts.map(|cap| cap.to_string()), "none set"),
        Cell::number_or(predicted_step(case, i).and_then(show::seconds), "not predicted"),
        Cell::number_or(measured_step(case, i).and_then(|s| show::seconds(s.median)), "not measured"),
    ]
}

fn hops(report: &Report) -> Html {
    let pairs: Vec<_> = named(report)
        .flat_map(|(label, case)| neighbours(case).into_iter().map(move |p| (label.clone(), case, p)))
        .collect();
    let rows = pairs
        .iter()
        .take(HOPS_MAX)
        .map(|(label, case, (a, b))| {
            let (from, to) = (&case.plan.stages[*a], &case.plan.stages[*b]);
            let path = way(report, from, to);
            let ends = (from.devices.last().map_or("", String::as_str), to.devices.first().map_or("", String::as_str));
            let bandwidth = path.as_ref().and_then(|p| p.bandwidth).map(|b| b.to_string());
            // Within one device nothing moves, so there is no bandwidth to know.
            let absent = if path.is_some() { "not needed" } else { "unknown" };
            vec![
                Cell::Label(label.to_owned()),
                Cell::Words(format!("{} to {}", a + 1, b + 1).into()),
                Cell::Words(seq![name(ends.0), " to ", name(ends.1)]),
                Cell::number_or(path.as_ref().map(|p| p.latency.to_string()), "unknown"),
                Cell::number_or(bandwidth, absent),
                Cell::Words(path.map_or_else(|| "unknown".to_owned(), |p| p.how.to_string()).into()),
            ]
        })
        .collect();
    let caption = seq!["Links between stages, from devices ", cite(report, &report.devices.digest), "."];
    let columns = ["plan", "stages", "from and to", "latency", "bandwidth", "known how"];
    seq![table(caption, &columns, rows), left_out(pairs.len(), HOPS_MAX, "links between stages")]
}

/// The ways through plans that have more than one.
fn routes(report: &Report) -> Html {
    let split = || named(report).filter(|(_, case)| case.plan.routes.len() > 1);
    let all = split().map(|(_, case)| case.plan.routes.len()).sum();
    let rows = split()
        .flat_map(|(label, case)| case.plan.routes.iter().enumerate().map(move |(i, route)| (label.clone(), i, route)))
        .take(HOPS_MAX)
        .map(|(label, i, route)| {
            let stops: Vec<String> = route
                .stages
                .iter()
                .take(20)
                .map(|s| format!("{} ({})", s.stage.saturating_add(1), show::layers(s.layers)))
                .collect();
            vec![
                Cell::Label(label.to_owned()),
                Cell::Number((i + 1).to_string().into()),
                Cell::Words(stops.join(" → ").into()),
                Cell::number_or(show::percent(route.share), "unknown"),
            ]
        })
        .collect();
    let columns = ["plan", "route", "stages", "share of requests"];
    seq![table("Routes: the ways that requests take.", &columns, rows), left_out(all, HOPS_MAX, "routes")]
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
