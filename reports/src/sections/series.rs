//! What the devices do over a run, simulated and measured: utilisation, queue, cache, clock, power, temperature, energy.

use super::{Mark, cite_all, figures, legend, section};
use crate::figures::series::{Limits, known, strips};
use crate::html::{Html, seq};
use crate::report::{Case, Report, Step};
use crate::verdict::label;
use isotherm_core::trace::DeviceRecord;
use std::collections::BTreeSet;

/// Most devices that are drawn.
const DEVICES_MAX: usize = 8;

/// The section; nothing where no simulated device has a figure over time.
pub(crate) fn series(report: &Report) -> Html {
    let mut drawings: Vec<(u64, Html)> = Vec::new();
    let mut names: BTreeSet<&str> = BTreeSet::new();
    let (mut sampled, mut limited) = (false, false);
    for (i, case) in report.cases.iter().enumerate() {
        let traced = case.simulation.iter().filter_map(|simulation| simulation.value.trace.as_ref());
        let simulated: Vec<&DeviceRecord> = traced.flat_map(|trace| &trace.devices).collect();
        // The first run stands for all, as the first simulated one does.
        let measured: Vec<&DeviceRecord> = case.runs.first().iter().flat_map(|run| &run.value.trace.devices).collect();
        let mut seen = BTreeSet::new();
        for device in simulated.iter().chain(&measured).map(|record| record.name.as_str()) {
            if !seen.insert(device) {
                continue;
            }
            let of = |records: &[&'_ DeviceRecord]| records.iter().position(|record| record.name == device);
            let (line, dots) = (of(&simulated).map(|k| simulated[k]), of(&measured).map(|k| measured[k]));
            let limits = limits(report, case, device);
            let figure = strips(line, dots, limits, &format!("{device}, {}", label(report, i)));
            if !figure.is_empty() {
                names.extend([line, dots].into_iter().flatten().flat_map(known));
                let heat = |record: &DeviceRecord| known(record).iter().any(|name| limits.known(name));
                limited |= [line, dots].into_iter().flatten().any(heat);
                sampled |= dots.is_some_and(|record| !known(record).is_empty());
                drawings.push(([line, dots].into_iter().flatten().map(busy).max().unwrap_or(0), figure));
            }
        }
    }
    let all = drawings.len();
    if all > DEVICES_MAX {
        let mut order: Vec<u64> = drawings.iter().map(|drawing| drawing.0).collect();
        order.sort_unstable_by(|a, b| b.cmp(a));
        let least = order[DEVICES_MAX - 1];
        drawings.retain(|drawing| drawing.0 >= least);
        drawings.truncate(DEVICES_MAX);
    }
    let said: Vec<&str> = names.into_iter().collect();
    let mut caption =
        Html::from(format!("The first simulated run of each plan, device by device: {}.", said.join("; ")));
    caption.push(if sampled {
        " Dots are the first run made, as far as the device has sensors."
    } else {
        " No sensor said anything of these over a run."
    });
    if all > DEVICES_MAX {
        caption.push(format!(" The {DEVICES_MAX} busiest of {all}."));
    }
    let simulations = report.cases.iter().filter_map(|case| case.simulation.as_ref()).map(|s| &s.digest);
    let cited = cite_all(report, simulations);
    if !cited.is_empty() {
        caption.push(seq![" Simulations: ", cited, "."]);
    }
    let drawings = drawings.into_iter().map(|drawing| drawing.1).collect();
    let mut marks = vec![(Mark::Line, "predicted")];
    marks.extend(sampled.then_some((Mark::Dot, "measured")));
    marks.extend(limited.then_some((Mark::Limit, "limit")));
    let inside = figures(report, drawings, legend(&marks), caption, &[Step::Simulate, Step::Run]);
    if inside.is_empty() { inside } else { section("series", "Devices over time", inside) }
}

/// What a device of a plan may not exceed: the cap of its stage, where it slows itself.
fn limits(report: &Report, case: &Case, device: &str) -> Limits {
    let stage = case.plan.stages.iter().find(|stage| stage.devices.iter().any(|name| name == device));
    let graph = &report.devices.value;
    let throttle = graph.find(device).and_then(|id| graph.device(id).thermal.as_ref()?.throttle_celsius.as_ref());
    Limits {
        power: stage.and_then(|stage| stage.power_cap_watts).map(|watts| watts.value()),
        temperature: throttle.map(|figure| figure.value.value()),
    }
}

const fn busy(record: &DeviceRecord) -> u64 {
    record.busy_ns.0
}
