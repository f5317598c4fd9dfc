//! The page: its order, its head, its style.

use crate::html::{Html, element, element_with, seq};
use crate::report::Report;
use crate::sections::{
    attribution, certificates, devices, environment, evidence, frontier, plans, requests, series, thermal, truth,
};
use crate::verdict;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("page.js");

/// Renders a report as one HTML page that asks the network for nothing and is whole without its script.
///
/// Verdict first, then predicted beside measured, then the evidence. Everything that comes from an artefact is
/// escaped; a figure that is absent is shown as unknown or not measured, never as zero. The same report gives the
/// same page, byte by byte.
#[must_use]
pub fn render(report: &Report) -> String {
    let sections = [
        ("plan", "Plans", plans::plans(report)),
        ("frontier", "Pareto frontier", frontier::frontier(report)),
        ("truth", "Predicted and measured", truth::truth(report)),
        ("stages", "Stages", truth::busy_time(report)),
        ("attribution", "What holds requests up", attribution::attribution(report)),
        ("requests", "Runs", requests::requests(report)),
        ("temperature", "Temperature", thermal::temperature(report)),
        ("series", "Devices over time", series::series(report)),
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
    let page = seq![header, element("main", seq![verdict::section(report), contents, body])];
    wrap(&report.title, page)
}

/// The whole page around what it shows: head, style, the one script and its policy.
pub(crate) fn wrap(title: &str, inside: Html) -> String {
    let footer = element(
        "footer",
        seq![
            "Written by isotherm ",
            isotherm_core::artefact::TOOL_VERSION,
            ". No request to any network; everything is here without the script, which adds zoom, filters and hints."
        ],
    );
    // Even a hostile artefact that slipped through could load and run nothing: only the one script below may run.
    let policy = format!("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{}'", base64(SCRIPT));
    let head = seq![
        Html::literal("<meta charset=\"utf-8\" />\n"),
        Html::literal("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n"),
        Html::literal("<meta name=\"color-scheme\" content=\"light dark\" />\n"),
        Html::drawing(format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\" />\n")),
        element("title", title),
        element("style", Html::literal(STYLE)),
    ];
    let script = element("script", Html::literal(SCRIPT));
    let page = seq![inside, footer, script];
    let whole = element_with("html", &[("lang", "en")], seq![element("head", head), element("body", page)]);
    format!("<!DOCTYPE html>\n{}\n", whole.into_string())
}

/// The SHA-256 digest of a text in base 64, as a content security policy names a script.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digest = isotherm_core::digest::Digest::of(text.as_bytes());
    let mut out = String::new();
    for chunk in digest.bytes().chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63] as char;
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
}
