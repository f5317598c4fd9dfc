//! What the simulated devices do over a run: utilisation, queue, cache, clock, power, temperature, energy.

use super::{Mark, cite_all, figures, legend, section};
use crate::figures::series::{known, strips};
use crate::html::{Html, seq};
use crate::report::{Report, Step};
use crate::verdict::label;
use isotherm_core::trace::DeviceRecord;
use std::collections::BTreeSet;

/// Most devices that are drawn.
const DEVICES_MAX: usize = 8;

/// The section; nothing where no simulated device has a figure over time.
pub(crate) fn series(report: &Report) -> Html {
    let mut drawings: Vec<(u64, Html)> = Vec::new();
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for (i, case) in report.cases.iter().enumerate() {
        let traced = case.simulation.iter().filter_map(|simulation| simulation.value.trace.as_ref());
        for record in traced.flat_map(|trace| &trace.devices) {
            let figure = strips(record, &format!("{}, {}", record.name, label(report, i)));
            if !figure.is_empty() {
                names.extend(known(record));
                drawings.push((busy(record), figure));
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
    if all > DEVICES_MAX {
        caption.push(format!(" The {DEVICES_MAX} busiest of {all}."));
    }
    let simulations = report.cases.iter().filter_map(|case| case.simulation.as_ref()).map(|s| &s.digest);
    let cited = cite_all(report, simulations);
    if !cited.is_empty() {
        caption.push(seq![" Simulations: ", cited, "."]);
    }
    let drawings = drawings.into_iter().map(|drawing| drawing.1).collect();
    let inside = figures(report, drawings, legend(&[(Mark::Line, "predicted")]), caption, &[Step::Simulate]);
    if inside.is_empty() { inside } else { section("series", "Devices over time", inside) }
}

const fn busy(record: &DeviceRecord) -> u64 {
    record.busy_ns.0
}
