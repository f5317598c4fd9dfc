//! The page: its order, its head, its style.

use crate::html::{Html, element, element_with, seq};
use crate::report::Report;
use crate::sections::{certificates, devices, environment, evidence, plans, requests, thermal, truth};
use crate::verdict;

const STYLE: &str = include_str!("style.css");

/// Renders a report as one HTML page that asks the network for nothing and needs no script.
///
/// Verdict first, then predicted beside measured, then the evidence. Everything that comes from an artefact is
/// escaped; a figure that is absent is shown as unknown or not measured, never as zero. The same report gives the
/// same page, byte by byte.
#[must_use]
pub fn render(report: &Report) -> String {
    let sections = [
        ("plan", "Plans", plans::plans(report)),
        ("truth", "Predicted and measured", truth::truth(report)),
        ("stages", "Stages", truth::busy_time(report)),
        ("requests", "Runs", requests::requests(report)),
        ("temperature", "Temperature", thermal::temperature(report)),
        ("certificate", "Certificates", certificates::certificates(report)),
        ("devices", "Devices", devices::devices(report)),
        ("evidence", "Evidence", evidence::evidence(report)),
        ("environment", "Environment", environment::environment(report)),
        ("commands", "Commands", environment::commands(report)),
        ("terms", "Terms", environment::glossary()),
    ];
    let links: Html = sections
        .iter()
        .filter(|(_, _, section)| !section.is_empty())
        .map(|(id, title, _)| element("li", element_with("a", &[("href", &format!("#{id}"))], *title)))
        .collect();
    let contents = element_with("nav", &[("aria-label", "Sections")], element("ul", links));
    let body: Html = sections.into_iter().map(|(_, _, section)| section).collect();
    let notice = report
        .notice
        .as_ref()
        .map_or_else(Html::none, |text| element_with("p", &[("class", "notice"), ("role", "note")], text));
    let question = if report.question.is_empty() {
        Html::none()
    } else {
        element_with("p", &[("class", "question")], seq![element("q", &report.question)])
    };
    let header = element(
        "header",
        seq![
            notice,
            element("h1", &report.title),
            element_with("p", &[("class", "scenario")], seq!["Scenario ", crate::html::name(&report.scenario)]),
            question
        ],
    );
    let footer = element(
        "footer",
        seq!["Written by isotherm ", &report.environment.tool_version, ". No script, no request to any network."],
    );
    let page = seq![header, element("main", seq![verdict::section(report), contents, body]), footer];
    let head = seq![
        Html::literal("<meta charset=\"utf-8\" />\n"),
        Html::literal("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n"),
        Html::literal("<meta name=\"color-scheme\" content=\"light dark\" />\n"),
        // Even a hostile artefact that slipped through could load and run nothing.
        Html::literal(
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\" />\n"
        ),
        element("title", &report.title),
        element("style", Html::literal(STYLE)),
    ];
    let whole = element_with("html", &[("lang", "en")], seq![element("head", head), element("body", page)]);
    format!("<!DOCTYPE html>\n{}\n", whole.into_string())
}
