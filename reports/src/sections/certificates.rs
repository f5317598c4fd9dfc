//! How good each plan is known to be, and who says so.

use super::{cite, section};
use crate::html::{Cell, Html, element, name, seq, table};
use crate::report::{Case, Report};
use crate::show::{self, count};
use crate::verdict::label;
use isotherm_core::plan::{BoundKind, Certificate, Evidence, Status};

/// The section.
pub(crate) fn certificates(report: &Report) -> Html {
    let rows = report.cases.iter().enumerate().map(|(i, case)| row(report, case, &label(report, i))).collect();
    let columns = ["plan", "found", "objective", "bound", "gap", "who vouches for the bound", "method", "plan file"];
    let table = table(
        "Certificates. No placement within the limits of the plan's own problem is better than the bound; the gap is \
         how far the plan is from it.",
        &columns,
        rows,
    );
    if table.is_empty() { Html::none() } else { section("certificate", "Is that the best?", table) }
}

fn row(report: &Report, case: &Case, label: &str) -> Vec<Cell> {
    let plan = &case.plan;
    let certificate = plan.certificate.as_ref();
    let found = match plan.status {
        Status::Optimal => "the best plan",
        Status::Feasible => "a plan, perhaps not the best",
        Status::Infeasible => "that there is no plan",
        Status::Unknown => "nothing: a limit came first",
    };
    let objective = plan.objective_value.and_then(|value| show::objective(plan, value));
    let objective = objective.map(|shown| format!("{shown} ({})", plan.objective_name));
    let bound = certificate.and_then(|c| c.bound).and_then(|value| show::objective(plan, value));
    let mut method = certificate.map_or_else(|| Html::from("no certificate"), method);
    if plan.provenance.time_limited {
        method.push("; a time limit ended the search, so another run may find another plan");
    }
    if let Some(time) = plan.provenance.solve_seconds.and_then(show::seconds) {
        method.push(format!("; {time}"));
        if let Some(machine) = &plan.provenance.machine {
            method.push(" on ");
            method.push(name(machine));
        }
    }
    vec![
        Cell::Label(label.to_owned()),
        Cell::Words(found.into()),
        Cell::number_or(objective, "none"),
        Cell::number_or(bound, "unknown"),
        Cell::number_or(certificate.and_then(|c| show::percent(c.gap?)), "unknown"),
        Cell::Words(certificate.map_or_else(|| "nobody".into(), kind)),
        Cell::Words(method),
        Cell::Words(cite(report, &plan.digest())),
    ]
}

fn kind(certificate: &Certificate) -> Html {
    match certificate.bound_kind {
        BoundKind::Certified => {
            let why = match &certificate.evidence {
                Some(Evidence::ClipBound) => {
                    "if the bound were exceeded, the devices together could not cover all layers"
                }
                Some(Evidence::Enumeration) => "every placement was enumerated by the checker itself",
                Some(
                    Evidence::DeviceWorths { .. }
                    | Evidence::InFlight { .. }
                    | Evidence::WeighedWorths { .. }
                    | Evidence::Cases { .. }
                    | Evidence::Bridges { .. }
                    | Evidence::Batches { .. },
                ) => "the worths of the devices leave no room for more",
                Some(Evidence::Routes { .. }) => {
                    "requests by the cheapest route would work the devices, or be in flight, for longer than they can"
                }
                Some(Evidence::LayerByLayer { .. }) => {
                    "the worths of the devices leave so little to waste that no way to hold all layers at more is left"
                }
                Some(Evidence::WalkPrices { .. }) => {
                    "at the prices of the devices no way through the layers is quicker"
                }
                Some(Evidence::Divided { .. }) => {
                    "in no division could the devices of both sides cover all layers at more"
                }
                Some(Evidence::LayerPrices { .. }) => "at the prices of a layer no device passes layers for less",
                None => "evidence not kept",
            };
            seq![element("strong", "certified"), ": the checker verified it without a solver; ", why]
        }
        BoundKind::Solver => seq![
            element("strong", "solver's word"),
            ": ",
            certificate.solver.as_deref().map_or_else(|| "the solver".into(), name),
            " says so; nobody checked"
        ],
        BoundKind::None => seq![element("strong", "none"), ": how far it is from the best is unknown"],
    }
}

fn method(certificate: &Certificate) -> Html {
    let mut text = Html::from(&certificate.method);
    if let Some(solver) = &certificate.solver {
        text.push(", ");
        text.push(name(solver));
    }
    if let Some(nodes) = certificate.nodes {
        text.push(format!(", {} nodes", count(nodes)));
    }
    text
}
