//! What was signed and logged, in order, and the digest of every file the page rests on.

use super::{cite, left_out, section};
use crate::html::{Cell, Html, element, element_with, name, seq, table};
use crate::report::{Event, Manifest, Report};
use crate::verdict::order_sentence;
use isotherm_core::digest::Digest;
use std::collections::{BTreeMap, BTreeSet};

const ROWS_MAX: usize = 300;

/// The section.
pub(crate) fn evidence(report: &Report) -> Html {
    let mut inside = Html::none();
    inside.push(match order_sentence(report) {
        Some(order) => element("p", element("strong", order)),
        None => Html::none(),
    });
    inside.push(manifests(report));
    inside.push(log(report));
    inside.push(files(report));
    section("evidence", "Evidence: signatures, log, digests", inside)
}

fn manifests(report: &Report) -> Html {
    if report.evidence.manifests.is_empty() {
        return element_with("p", &[("class", "note")], "Nothing was signed.");
    }
    let rows = report.evidence.manifests.iter().take(ROWS_MAX).map(|manifest| row(report, manifest)).collect();
    let columns = ["manifest", "file", "signed by", "signatures", "valid from", "valid to", "verification"];
    table("Signed manifests: they hold the predictions and allow the runs.", &columns, rows)
}

fn row(report: &Report, manifest: &Manifest) -> Vec<Cell> {
    let signers: Html = manifest
        .signers
        .iter()
        .take(10)
        .enumerate()
        .map(|(i, signer)| seq![if i == 0 { "" } else { ", " }, name(signer)])
        .collect();
    let or_unknown = |time: &Option<String>| time.as_deref().map_or_else(|| "unknown".into(), name);
    let verification = match &manifest.verification {
        None => element_with("span", &[("class", "absent")], "not verified"),
        Some(Ok(())) => element("strong", "verified"),
        Some(Err(why)) => seq![element_with("strong", &[("class", "bad")], "refused"), ": ", why],
    };
    vec![
        Cell::Head(cite(report, &manifest.digest)),
        Cell::Words(name(&manifest.file)),
        Cell::Words(if signers.is_empty() { "nobody".into() } else { signers }),
        Cell::Words(format!("{} of {} needed", manifest.signers.len(), manifest.threshold).into()),
        Cell::Words(or_unknown(&manifest.not_before)),
        Cell::Words(or_unknown(&manifest.expires)),
        Cell::Words(verification),
    ]
}

fn log(report: &Report) -> Html {
    let entries = &report.evidence.log;
    let rows = entries
        .iter()
        .take(ROWS_MAX)
        .map(|entry| {
            let event = match &entry.event {
                Event::Probe => "devices measured".into(),
                Event::Plan => "plan made".into(),
                Event::Simulate => "plan simulated".into(),
                Event::Seal => element("strong", "prediction sealed"),
                Event::Run => "plan executed".into(),
                Event::Other(words) => name(words),
            };
            vec![
                Cell::Number(entry.index.to_string().into()),
                Cell::Words(name(&entry.time)),
                Cell::Words(event),
                Cell::Words(entry.subject.as_ref().map_or_else(|| "nothing named".into(), |d| cite(report, d))),
            ]
        })
        .collect();
    if entries.is_empty() {
        return element_with("p", &[("class", "note")], "There is no log of the order of things.");
    }
    let table = table("Transparency log, in its order.", &["entry", "time", "what", "of"], rows);
    let checkpoint = report.evidence.checkpoint.as_ref().map_or_else(Html::none, |text| {
        seq![element_with("p", &[("class", "note")], "Checkpoint of the log:"), element("pre", text)]
    });
    seq![table, left_out(entries.len(), ROWS_MAX, "log entries"), checkpoint]
}

/// Every file the page rests on: digest, what it is, its name.
fn index(report: &Report) -> BTreeMap<Digest, (String, String)> {
    let mut files = BTreeMap::new();
    let mut add = |digest: Digest, role: &str, file: &str| {
        files.entry(digest).or_insert_with(|| (role.to_owned(), file.to_owned()));
    };
    for file in &report.evidence.files {
        add(file.digest, &file.role, &file.file);
    }
    add(report.devices.digest, "devices", &report.devices.file);
    if let Some(frontier) = &report.frontier {
        add(frontier.digest, "frontier", &frontier.file);
    }
    for case in &report.cases {
        add(case.plan.digest(), "plan, without its provenance", "");
        if let Some(simulation) = &case.simulation {
            add(simulation.digest, "simulation", &simulation.file);
        }
        for run in &case.runs {
            add(run.digest, "run record", &run.file);
        }
    }
    for manifest in &report.evidence.manifests {
        add(manifest.digest, "manifest", &manifest.file);
    }
    if let Some(digest) = report.model.as_ref().and_then(|m| m.digest) {
        add(digest, "model", "");
    }
    files
}

/// Digests that have a row, and so an anchor, on the page.
pub(crate) fn listed(report: &Report) -> BTreeSet<Digest> {
    index(report).into_keys().take(ROWS_MAX).collect()
}

fn files(report: &Report) -> Html {
    let index = index(report);
    let all = index.len();
    let mut rows: Vec<(String, Vec<Cell>)> = index
        .into_iter()
        .take(ROWS_MAX)
        .map(|(digest, (role, file))| {
            let anchor = format!("file-{}", digest.short());
            let code = element_with("code", &[("id", &anchor), ("class", "digest")], digest.to_string());
            let file_name = if file.is_empty() { Html::from("recorded by digest") } else { name(&file) };
            (format!("{role} {file}"), vec![Cell::Head(role.into()), Cell::Words(file_name), Cell::Words(code)])
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let rows = rows.into_iter().map(|r| r.1).collect();
    let caption = "Files and their digests. Check one with: sha256sum FILE";
    seq![table(caption, &["what", "file", "digest"], rows), left_out(all, ROWS_MAX, "files")]
}
