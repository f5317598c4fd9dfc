//! The receipt of a run: what the manifest promised beside what the run measured, and what the signatures show.

use crate::commands::audit::identity_if_any;
use crate::commands::verify::{accepted, digest_of, open_at, refused};
use crate::failure::{Code, Done, Failure};
use crate::trust::Trusted;
use crate::ui::{Ui, percent, table};
use crate::{files, trust};
use isotherm_audit::keys::{KeyId, TrustedKeys};
use isotherm_audit::manifest::Manifest;
use isotherm_audit::run::{Outcome, RunClaim};
use isotherm_audit::statement::RUN;
use isotherm_audit::{RunExpectations, inspect, open_run};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a signature by software can and cannot show, on every receipt.
const LIMITS: &str = "\
  These signatures show that the holders of the named keys signed exactly these figures, in this order after the log's\n\
  state. They do not show that the figures are true: the host that measured also signed, and whoever controls a host\n\
  controls what its software says. A second host that repeats the run shows more.\n";

#[derive(Serialize)]
struct Line {
    figure: String,
    predicted: Option<i64>,
    measured: i64,
    error: Option<f64>,
}

#[derive(Serialize)]
struct Receipt {
    verified: bool,
    manifest: String,
    run: String,
    signers: Vec<String>,
    started_on: String,
    finished_on: String,
    outcome: String,
    tokens: u64,
    figures: Vec<Line>,
    parts: BTreeMap<String, BTreeMap<String, i64>>,
    limits: &'static str,
}

/// Verifies a run record under its manifest and shows both.
pub fn show(ui: &Ui, manifest: &Path, bytes: &[u8], run: &Path, trusted: &Trusted) -> Done {
    let record = files::read(run)?;
    // A run is signed by the node that ran it alone, whatever number of keys a manifest needs.
    let nodes = TrustedKeys::new(trusted.keys.iter().cloned(), 1)
        .map_err(|e| Failure::new(Code::Verification, e.to_string()))?;
    // The manifest had to be valid when the run began, not now; what the record says of that is signed.
    let began = inspect::<RunClaim>(&record, &nodes).map_err(|e| refused(run, &e))?.statement.predicate.started_on;
    let opened = open_at(manifest, bytes, trusted, began, || Ok(BTreeMap::new()), (0, None))?;
    let mut presented = BTreeMap::new();
    let name = run.file_name().map(|name| name.to_string_lossy().replace(".signed.json", ".json"));
    if let Some(whole) = name.map(|name| run.with_file_name(name)).filter(|path| path.is_file() && path != run) {
        presented.insert(RUN.to_owned(), digest_of(&whole)?);
    }
    let successors = successors(&opened.manifest)?;
    let expected = RunExpectations { manifest: &opened.manifest, presented, successors };
    let claim = open_run(&record, &nodes, trust::now()?, &expected).map_err(|e| refused(run, &e))?;
    accepted("run", claim.payload_digest())?;
    let (said, promised) = (&claim.predicate, &opened.manifest.predicate.predicted);
    let figures = said
        .measured
        .iter()
        .map(|(figure, measured)| {
            let predicted = promised.get(figure);
            let error = predicted.filter(|_| measured != 0).map(|p| p as f64 / measured as f64 - 1.0);
            Line { figure: figure.to_owned(), predicted, measured, error }
        })
        .collect();
    let parts = said.stages.iter().chain(&said.devices).chain(&said.links);
    let receipt = Receipt {
        verified: true,
        manifest: opened.manifest.payload_digest().to_string(),
        run: claim.payload_digest().to_string(),
        signers: claim.signers().iter().map(ToString::to_string).collect(),
        started_on: said.started_on.to_string(),
        finished_on: said.finished_on.to_string(),
        outcome: match &said.outcome {
            Outcome::Completed => "completed".to_owned(),
            Outcome::Stopped { reason } => format!("stopped: {reason}"),
            Outcome::Failed { reason } => format!("failed: {reason}"),
        },
        tokens: said.token_count,
        figures,
        parts: parts
            .map(|part| (part.name.clone(), part.measured.iter().map(|(n, v)| (n.to_owned(), v)).collect()))
            .collect(),
        limits: LIMITS,
    };
    ui.result(&receipt, || text(&receipt))
}

/// This host's key, where the manifest names one that it had before.
fn successors(manifest: &Manifest) -> Result<BTreeSet<KeyId>, Failure> {
    if files::home().is_err() {
        return Ok(BTreeSet::new());
    }
    let former: BTreeSet<String> = trust::former_keys()?.iter().map(|key| key.id().to_string()).collect();
    let mut named = manifest.predicate.placements.iter().filter_map(|placement| placement.node_id.as_ref());
    let own = identity_if_any()?.filter(|_| named.any(|node| former.contains(node)));
    Ok(own.map(|identity| identity.id()).into_iter().collect())
}

fn text(receipt: &Receipt) -> String {
    let mut rows = vec![["figure", "predicted", "measured", "error"].map(str::to_owned).to_vec()];
    rows.extend(receipt.figures.iter().map(|line| {
        let predicted = line.predicted.map_or_else(|| "-".to_owned(), |predicted| predicted.to_string());
        let error = line.error.map_or_else(|| "-".to_owned(), percent);
        vec![line.figure.clone(), predicted, line.measured.to_string(), error]
    }));
    let mut text = format!(
        "the run verifies\n  manifest   {}\n  signed by  {}\n  ran        {} to {}, {}, {} tokens\n\n{}\n",
        receipt.manifest,
        receipt.signers.join(", "),
        receipt.started_on,
        receipt.finished_on,
        receipt.outcome,
        receipt.tokens,
        table(&rows, &[1, 2, 3]),
    );
    for (part, figures) in &receipt.parts {
        let figures: Vec<String> = figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
        text.push_str(&format!("  {part}: {}\n", figures.join(", ")));
    }
    format!("{text}\n{LIMITS}")
}
