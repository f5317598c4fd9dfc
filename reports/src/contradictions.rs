//! What artefacts say against one another. A page that shows two figures for one fact says so itself.

use crate::measure::run_figure;
use crate::report::{Case, Event, Report};
use crate::show::{Metric, counted};
use isotherm_core::digest::Digest;

/// Two stored copies of one figure may differ by rounding in text, not by more.
const SAME: f64 = 1e-6;

/// When the predictions were sealed and the runs made, by the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// There are no runs.
    NoRuns,
    /// Nothing was sealed.
    NotSealed,
    /// The log says nothing of the sealing, or of this many runs.
    Unlogged {
        /// Runs whose entry is missing.
        runs: usize,
    },
    /// Every run comes after the sealing of its predictions.
    Sealed {
        /// Last entry of a sealing.
        seal: u64,
        /// First entry of a run.
        first: u64,
        /// Last entry of a run.
        last: u64,
    },
    /// Runs whose entry comes before that of the manifest that holds their prediction.
    TooLate {
        /// Entries of those runs.
        runs: Vec<u64>,
    },
}

/// The order of sealing and running, over all cases.
pub(crate) fn order(report: &Report) -> Order {
    let entry = |wanted: &Event, subject: &Digest| {
        report.evidence.log.iter().find(|e| e.event == *wanted && e.subject.as_ref() == Some(subject)).map(|e| e.index)
    };
    if report.cases.iter().all(|case| case.runs.is_empty()) {
        return Order::NoRuns;
    }
    let (mut seals, mut runs, mut late, mut missing, mut unsealed) = (Vec::new(), Vec::new(), Vec::new(), 0, false);
    for case in report.cases.iter().filter(|case| !case.runs.is_empty()) {
        let Some(sealed) = &case.sealed else {
            unsealed = true;
            continue;
        };
        let seal = entry(&Event::Seal, &sealed.manifest);
        seals.extend(seal);
        for run in &case.runs {
            match (seal, entry(&Event::Run, &run.digest)) {
                (Some(before), Some(at)) if before < at => runs.push(at),
                (Some(_), Some(at)) => late.push(at),
                _ => missing += 1,
            }
        }
    }
    if !late.is_empty() {
        return Order::TooLate { runs: late };
    }
    if unsealed {
        return Order::NotSealed;
    }
    match (seals.iter().max(), runs.iter().min(), runs.iter().max()) {
        (Some(&seal), Some(&first), Some(&last)) if missing == 0 => Order::Sealed { seal, first, last },
        _ => Order::Unlogged { runs: missing },
    }
}

/// Everything in the report that cannot be true together, in words.
pub(crate) fn contradictions(report: &Report) -> Vec<String> {
    let mut found = Vec::new();
    for (i, case) in report.cases.iter().enumerate() {
        let label = crate::verdict::label(report, i);
        found.extend(digests(case).into_iter().map(|what| format!("{label}: {what}")));
        found.extend(figures(report, case).into_iter().map(|what| format!("{label}: {what}")));
    }
    if let Order::TooLate { runs } = order(report) {
        let entries: Vec<String> = runs.iter().take(10).map(u64::to_string).collect();
        found.push(format!(
            "{} logged before the prediction was sealed: log entries {}",
            counted(runs.len(), "run"),
            entries.join(", ")
        ));
    }
    for manifest in &report.evidence.manifests {
        if let Some(Err(why)) = &manifest.verification {
            found.push(format!("manifest {} does not verify: {why}", manifest.digest.short()));
        }
        if u32::try_from(manifest.signers.len()).unwrap_or(u32::MAX) < manifest.threshold {
            let (have, need) = (manifest.signers.len(), manifest.threshold);
            found.push(format!("manifest {} has {have} of {need} signers", manifest.digest.short()));
        }
    }
    found
}

fn digests(case: &Case) -> Vec<String> {
    let mut found = Vec::new();
    let plan = case.plan.digest();
    if let Some(simulation) = case.simulation.as_ref().filter(|s| s.value.plan != plan) {
        let other = simulation.value.plan.short();
        found.push(format!("the simulation is of plan {other}, not of {}", plan.short()));
    }
    for run in &case.runs {
        if run.value.plan != plan {
            let (run, other) = (run.digest.short(), run.value.plan.short());
            found.push(format!("run {run} executed plan {other}, not {}", plan.short()));
        }
        if let Some(sealed) = case.sealed.as_ref().filter(|s| s.manifest != run.value.manifest) {
            let (run, other) = (run.digest.short(), run.value.manifest.short());
            found.push(format!("run {run} was allowed by manifest {other}, not by {}", sealed.manifest.short()));
        }
    }
    found
}

fn figures(report: &Report, case: &Case) -> Vec<String> {
    let mut found = Vec::new();
    let near = |a: f64, b: f64| (a - b).abs() <= SAME * a.abs().max(b.abs());
    for row in &case.truth {
        let Some(metric) = Metric::named(&row.metric) else { continue };
        let show = |value: f64| metric.show(value).unwrap_or_else(|| "no number".to_owned());
        if let Some(sealed) = case.sealed.as_ref().and_then(|s| s.figure(metric))
            && !near(sealed, row.predicted)
        {
            found.push(format!(
                "{} was sealed as {}, compared as {}",
                metric.short(),
                show(sealed),
                show(row.predicted)
            ));
        }
        let runs: Vec<f64> =
            case.runs.iter().filter_map(|run| run_figure(&run.value, metric.key(), report.run_statistic)).collect();
        let (low, high) = runs.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        let inside = (low..=high).contains(&row.measured) || near(low, row.measured) || near(high, row.measured);
        if !runs.is_empty() && !inside {
            let (row, low, high) = (show(row.measured), show(low), show(high));
            found.push(format!("{} is compared as measured {row}, its runs lie from {low} to {high}", metric.short()));
        }
        if (row.predicted / row.measured - 1.0 - row.error).abs() > 1e-6 {
            found.push(format!("the error of {} is not that of its two figures", metric.short()));
        }
    }
    found
}
