//! What requests spend their time on, and where: the bottlenecks by name.

use super::{Mark, cite, cite_all, figures, left_out, legend, section};
use crate::figures::parts::{PARTS_MAX, parts};
use crate::html::{Cell, Html, name, seq, table};
use crate::report::{Report, Step};
use crate::show;
use crate::verdict::label;
use isotherm_core::record::{Attribution, Part};

/// Most parts of one plan that the table lists.
const ROWS_MAX: usize = 24;

/// The section; nothing where no simulation says where the time went.
pub(crate) fn attribution(report: &Report) -> Html {
    let cases = report.cases.iter().enumerate();
    let known: Vec<_> = cases
        .filter_map(|(i, case)| {
            let simulation = case.simulation.as_ref()?;
            Some((i, simulation.digest, simulation.value.attribution.as_ref().filter(|all| !all.parts.is_empty())?))
        })
        .collect();
    if known.is_empty() {
        return Html::none();
    }
    let drawings = known.iter().map(|(i, _, all)| parts(all, &label(report, *i))).collect();
    let mut caption = seq![
        "The parts add up to the mean times to first token and per output token, over all requests of all simulated \
         runs. From simulations ",
        cite_all(report, known.iter().map(|(_, digest, _)| digest)),
        "."
    ];
    if known.iter().any(|(.., all)| all.parts.len() > PARTS_MAX) {
        caption.push(format!(" Drawn are the {PARTS_MAX} greatest parts of each; the table has more."));
    }
    let marks =
        [(Mark::Outline, "share of the time to first token"), (Mark::Filled, "share of the time per output token")];
    let mut inside = figures(report, drawings, legend(&marks), caption, &[Step::Simulate]);
    let mut rows = Vec::new();
    let mut all_parts = 0;
    for (i, digest, all) in known {
        let sum = sums(all);
        all_parts += all.parts.len();
        for part in ranked(all).into_iter().take(ROWS_MAX) {
            rows.push(vec![
                Cell::Label(label(report, i)),
                Cell::Words(part.cause.word().into()),
                Cell::Words(if part.place.is_empty() { "no device".into() } else { name(&part.place) }),
                Cell::number_or(show::seconds(part.ttft_seconds), "unknown"),
                Cell::number_or(share(part.ttft_seconds, sum.0), "unknown"),
                Cell::number_or(show::seconds(part.tpot_seconds), "unknown"),
                Cell::number_or(share(part.tpot_seconds, sum.1), "unknown"),
                Cell::Words(cite(report, &digest)),
            ]);
        }
    }
    let shown = rows.len();
    let columns = ["plan", "cause", "where", "TTFT", "share", "TPOT", "share", "simulation"];
    inside.push(table("Where the time of requests goes, greatest parts first.", &columns, rows));
    inside.push(left_out(all_parts, shown, "parts"));
    section("attribution", "What holds requests up: where their time goes", inside)
}

/// The means that the parts add up to.
pub(crate) fn sums(all: &Attribution) -> (f64, f64) {
    all.parts.iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.ttft_seconds, sum.1 + part.tpot_seconds))
}

/// The parts by the greater of their two shares.
pub(crate) fn ranked(all: &Attribution) -> Vec<&Part> {
    let sum = sums(all);
    let weight = |part: &Part| {
        let of = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        of(part.ttft_seconds, sum.0).max(of(part.tpot_seconds, sum.1))
    };
    let mut parts: Vec<&Part> = all.parts.iter().collect();
    parts.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
    parts
}

fn share(part: f64, whole: f64) -> Option<String> {
    (whole > 0.0).then(|| part / whole).filter(|share| share.is_finite()).map(|share| format!("{:.1} %", 100.0 * share))
}
