//! Devices and links, each figure with how it is known. Many devices of one class become one row with ranges.

use super::{cite, left_out, section};
use crate::html::{Cell, Html, element, element_with, name, seq, table};
use crate::report::Report;
use crate::show;
use isotherm_core::device::{Device, DeviceKind, Support};
use isotherm_core::figure::{Figure, How};
use isotherm_core::graph::{Link, LinkKind};
use std::collections::BTreeMap;
use std::fmt::Display;

/// Up to so many devices have a row each.
const SINGLE_MAX: usize = 24;
const ROWS_MAX: usize = 60;

/// The section.
pub(crate) fn devices(report: &Report) -> Html {
    let graph = &report.devices.value;
    let inside = seq![device_table(report), link_table(report), shared(report)];
    if graph.devices().is_empty() {
        return Html::none();
    }
    section("devices", "Devices and links, and how each figure is known", inside)
}

/// How a figure is known, in a word, with its details as title.
pub(crate) fn known<T>(figure: &Figure<T>) -> Html {
    let mut details = vec![figure.how.to_string()];
    details.extend(figure.source.clone());
    details.extend(figure.samples.map(|n| format!("{n} samples")));
    details.extend(figure.spread.and_then(show::percent).map(|s| format!("spread {s}")));
    details.extend(figure.when.clone());
    let class = match figure.how {
        How::Measured => "how measured",
        How::Declared => "how declared",
        How::Estimated => "how estimated",
    };
    element_with("span", &[("class", class), ("title", &details.join(", "))], figure.how.to_string())
}

/// A figure with how it is known and, where it was measured, its spread.
fn figure_cell<T: Display>(figure: Option<&Figure<T>>) -> Cell {
    figure.map_or_else(
        || Cell::absent("unknown"),
        |f| {
            let spread =
                f.spread.filter(|s| *s > 0.0).and_then(show::percent).map(|s| format!(" ± {s}")).unwrap_or_default();
            Cell::Number(seq![f.value.to_string(), element("small", spread), " ", known(f)])
        },
    )
}

/// The same figure of several devices: one value, or its range; how the weakest is known; how many lack it.
fn figures_cell<'a, T: Display + PartialOrd + Copy + 'a>(figures: &[Option<&'a Figure<T>>]) -> Cell {
    let there: Vec<&Figure<T>> = figures.iter().copied().flatten().collect();
    let smaller = |a: &'a Figure<T>, b: &'a Figure<T>| if b.value < a.value { b } else { a };
    let larger = |a: &'a Figure<T>, b: &'a Figure<T>| if b.value > a.value { b } else { a };
    let (Some(low), Some(high)) = (there.iter().copied().reduce(smaller), there.iter().copied().reduce(larger)) else {
        return Cell::absent("unknown");
    };
    if figures.len() == 1 {
        return figure_cell(figures[0]);
    }
    let weakest = there.iter().copied().reduce(|a, b| if b.how > a.how { b } else { a }).unwrap_or(low);
    let (from, to) = (low.value.to_string(), high.value.to_string());
    let range = if from == to { from } else { format!("{from} to {to}") };
    let missing = figures.len() - there.len();
    let lacking = if missing > 0 { format!(", {missing} unknown") } else { String::new() };
    Cell::Number(seq![range, lacking, " ", known(weakest)])
}

const fn kind_words(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Cpu => "processor",
        DeviceKind::Gpu => "graphics card",
        DeviceKind::Unified => "unified memory",
    }
}

const fn support_words(support: Support) -> &'static str {
    match support {
        Support::Supported => "self-test passed",
        Support::Partial => "some operations passed",
        Support::Experimental => "experimental",
        Support::Untested => "untested on this hardware",
    }
}

fn device_table(report: &Report) -> Html {
    let all = report.devices.value.devices();
    let mut groups: Vec<Vec<&Device>> = Vec::new();
    if all.len() <= SINGLE_MAX {
        groups.extend(all.iter().map(|device| vec![device]));
    } else {
        let mut by_class: BTreeMap<(&str, DeviceKind, &str, Support), Vec<&Device>> = BTreeMap::new();
        for d in all {
            by_class.entry((&d.class, d.kind, &d.backend, d.support)).or_default().push(d);
        }
        groups.extend(by_class.into_values());
    }
    let rows = groups.iter().take(ROWS_MAX).map(|group| device_row(group)).collect();
    let columns = [
        "device",
        "kind",
        "memory",
        "memory bandwidth",
        "compute",
        "busy power",
        "throttles at",
        "operator times",
        "state",
    ];
    let collapsed = if groups.len() < all.len() {
        format!(" {} devices in {} classes; a range spans a class.", all.len(), groups.len())
    } else {
        String::new()
    };
    let caption = seq!["Devices, from ", cite(report, &report.devices.digest), ".", collapsed];
    seq![table(caption, &columns, rows), left_out(groups.len(), ROWS_MAX, "rows")]
}

fn device_row(group: &[&Device]) -> Vec<Cell> {
    let first = group[0];
    let head = if group.len() == 1 {
        seq![name(&first.name), " ", element("small", seq!["on ", name(&first.host)])]
    } else {
        seq![format!("{} × ", group.len()), name(&first.class)]
    };
    let of = |pick: &dyn Fn(&Device) -> usize| group.iter().map(|d| pick(d)).sum::<usize>();
    let (profiles, rates) = (of(&|d| d.profiles.len()), of(&|d| d.rates.len()));
    let times = match first.profiles.first() {
        Some(profile) => {
            let spread = profile.spread.and_then(show::percent).map(|s| format!(", spread {s}")).unwrap_or_default();
            Html::from(format!("{} ({}{spread})", profile.how, profile.arithmetic))
        }
        None if profiles > 0 => "on some of them".into(),
        None if rates > 0 => "rates declared".into(),
        None => element_with("span", &[("class", "absent")], "none: a roofline stands in"),
    };
    fn throttle(device: &Device) -> Option<&Figure<isotherm_core::units::Celsius>> {
        device.thermal.as_ref()?.throttle_celsius.as_ref()
    }
    let busy: Vec<_> = group.iter().map(|d| d.busy_watts.as_ref()).collect();
    let memory: Vec<_> = group.iter().map(|d| d.memory_bytes.as_ref()).collect();
    let bandwidth: Vec<_> = group.iter().map(|d| d.memory_bandwidth_bytes_per_second.as_ref()).collect();
    let compute: Vec<_> = group.iter().map(|d| d.compute_flops_per_second.as_ref()).collect();
    let limits: Vec<_> = group.iter().map(|d| throttle(d)).collect();
    vec![
        Cell::Head(head),
        Cell::Words(seq![kind_words(first.kind), ", ", name(&first.backend)]),
        figures_cell(&memory),
        figures_cell(&bandwidth),
        figures_cell(&compute),
        figures_cell(&busy),
        figures_cell(&limits),
        Cell::Words(times),
        Cell::Words(support_words(first.support).into()),
    ]
}

const fn link_words(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::InProcess => "within one process",
        LinkKind::PeerToPeer => "card to card",
        LinkKind::HostStaged => "through host memory",
        LinkKind::Pcie => "PCI Express",
        LinkKind::Socket => "socket",
        LinkKind::Rdma => "RDMA",
        LinkKind::Declared => "declared",
    }
}

fn link_table(report: &Report) -> Html {
    let graph = &report.devices.value;
    let links = &graph.file().links;
    let class = |place: &str| graph.find(place).map_or(place, |id| graph.device(id).class.as_str()).to_owned();
    let mut groups: Vec<(Html, Vec<&Link>)> = Vec::new();
    if links.len() <= SINGLE_MAX {
        groups.extend(links.iter().map(|l| (seq![name(&l.from), " to ", name(&l.to)], vec![l])));
    } else {
        let mut alike: BTreeMap<(String, String, LinkKind), Vec<&Link>> = BTreeMap::new();
        for link in links {
            alike.entry((class(&link.from), class(&link.to), link.kind)).or_default().push(link);
        }
        groups.extend(alike.into_iter().map(|((from, to, _), links)| {
            (seq![format!("{} × ", links.len()), name(&from), " to ", name(&to)], links)
        }));
    }
    let count = groups.len();
    let rows = groups
        .into_iter()
        .take(ROWS_MAX)
        .map(|(head, group)| {
            let latency: Vec<_> = group.iter().map(|l| l.latency_seconds.as_ref()).collect();
            let bandwidth: Vec<_> = group.iter().map(|l| l.bandwidth_bytes_per_second.as_ref()).collect();
            let stated = group.iter().filter_map(|l| l.tokens_per_second).reduce(|a, b| a.min(b));
            let mut cells = vec![
                Cell::Head(head),
                Cell::Words(link_words(group[0].kind).into()),
                figures_cell(&latency),
                figures_cell(&bandwidth),
            ];
            cells.push(Cell::Words(group[0].groups.iter().take(4).map(|g| seq![name(g), " "]).collect()));
            if let Some(rate) = stated {
                cells[3] = Cell::Number(seq![rate.to_string(), " ", element("small", "stated")]);
            }
            cells
        })
        .collect();
    let columns = ["from and to", "kind", "latency", "bandwidth", "shares"];
    let caption = seq!["Links, from ", cite(report, &report.devices.digest), "."];
    let table = table(caption, &columns, rows);
    if table.is_empty() {
        return element_with("p", &[("class", "note")], "No links are known.");
    }
    seq![table, left_out(count, ROWS_MAX, "rows")]
}

/// Capacities that links share and devices that slow one another.
fn shared(report: &Report) -> Html {
    let file = report.devices.value.file();
    let mut items = Html::none();
    for group in file.groups.iter().take(20) {
        let rate = &group.bandwidth_bytes_per_second;
        let text =
            seq!["Links that share ", name(&group.name), ": ", rate.value.to_string(), " together ", known(rate)];
        items.push(element("li", text));
    }
    for set in file.co_run.iter().take(20) {
        let names: Html = set
            .devices
            .iter()
            .take(8)
            .enumerate()
            .map(|(i, device)| seq![if i == 0 { "" } else { ", " }, name(device)])
            .collect();
        let factors: Html = set
            .slowdown
            .iter()
            .take(8)
            .enumerate()
            .filter_map(|(i, f)| {
                Some(seq![if i == 0 { "" } else { ", " }, format!("{}: {}× ", i + 1, show::number(f.value)?), known(f)])
            })
            .collect();
        items.push(element("li", seq!["Busy together (", names, "), a step takes ", factors]));
    }
    if items.is_empty() { Html::none() } else { element("ul", items) }
}
