//! Where it happened, and the commands that remake it all.

use super::section;
use crate::html::{Cell, Html, element, element_with, name, seq, table};
use crate::report::{Report, Step};

/// The section on the machine.
pub(crate) fn environment(report: &Report) -> Html {
    let environment = &report.environment;
    let unknown = || element_with("span", &[("class", "absent")], "unknown");
    let or_unknown = |value: &Option<String>| value.as_deref().map_or_else(unknown, name);
    let mut rows = vec![
        vec![Cell::Head("isotherm".into()), Cell::Words(name(&environment.tool_version))],
        vec![Cell::Head("kernel".into()), Cell::Words(or_unknown(&environment.kernel))],
        vec![Cell::Head("load during the runs".into()), Cell::Words(or_unknown(&environment.load))],
    ];
    let probed = report.devices.value.file().host.iter();
    let host = environment.host.iter().map(|(key, value)| (key, value)).chain(probed);
    let mut seen = std::collections::BTreeSet::new();
    for (key, value) in host.filter(|(key, _)| seen.insert(key.as_str())).take(60) {
        rows.push(vec![Cell::Head(name(key)), Cell::Words(value.into())]);
    }
    section("environment", "Environment", table("The machine that ran it.", &["fact", "value"], rows))
}

/// The section on commands.
pub(crate) fn commands(report: &Report) -> Html {
    let items: Html = report
        .commands
        .iter()
        .enumerate()
        .map(|(i, command)| {
            let what = match command.step {
                Step::Tour => "all of it",
                Step::Probe => "measure the devices",
                Step::Plan => "plan",
                Step::Simulate => "predict",
                Step::Seal => "seal the prediction",
                Step::Run => "run",
                Step::Report => "write this page",
            };
            let anchor = format!("command-{}", i + 1);
            element_with("li", &[("id", &anchor)], seq![element("code", &command.line), " ", element("small", what)])
        })
        .collect();
    let list = if items.is_empty() {
        element_with("p", &[("class", "note")], "No command was recorded.")
    } else {
        element("ol", items)
    };
    let inferred = if report.commands_inferred && !report.commands.is_empty() {
        let words = "Nobody recorded the command lines of this folder. These were put together from what its artefacts \
                     say of themselves, to be run in it; options that leave no trace in them are not there.";
        element_with("p", &[("class", "note")], words)
    } else {
        Html::none()
    };
    section("commands", "Commands that remake every figure", seq![inferred, list])
}

/// What the terms mean.
pub(crate) fn glossary() -> Html {
    const TERMS: [(&str, &str); 8] = [
        ("TPOT", "time per output token after the first, of one request"),
        ("TTFT", "time from a request's arrival to its first token"),
        ("tokens/s", "output tokens of all requests over the time from first arrival to last token"),
        (
            "stage",
            "layers of the model that one device holds; stages, runs and routes are counted from 1, layers from 0",
        ),
        ("bound", "a value that no placement can beat; the gap is the plan's distance from it"),
        (
            "measured, declared, estimated",
            "found by a probe on that device; stated by a driver, data sheet or user; \
          computed by a model because nothing was measured",
        ),
        ("sealed", "signed and logged, so that it cannot be changed afterwards without notice"),
        ("unknown, not measured", "nobody knows; never a zero"),
    ];
    let items: Html = TERMS.iter().map(|&(term, meaning)| seq![element("dt", term), element("dd", meaning)]).collect();
    section("terms", "Terms", element_with("dl", &[("class", "terms")], items))
}
