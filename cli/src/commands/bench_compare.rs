//! `isotherm bench compare`: two records side by side; a change is called one only where it is beyond noise.

use super::bench_load::{Better, Case, Record, ratio_interval, read};
use crate::args::BenchCompare;
use crate::failure::{Code, Done, Failure};
use crate::ui::{Ui, table};
use serde::Serialize;

/// Seed of the resampling.
const SEED: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Better,
    Worse,
    /// Within noise, or smaller than what counts.
    Same,
    /// Too few runs on one side.
    Unknown,
}

#[derive(Debug, Serialize)]
struct Row {
    subject: String,
    scenario: String,
    query: String,
    metric: String,
    before: f64,
    after: f64,
    /// After over before.
    ratio: f64,
    /// Its 95 % interval; absent with too few runs.
    interval: Option<(f64, f64)>,
    verdict: Verdict,
}

#[derive(Serialize)]
struct Comparison {
    schema: &'static str,
    same_machine: bool,
    /// Whether the machine had little else to do, both times; false where it does not say.
    quiet: bool,
    share: f64,
    rows: Vec<Row>,
    only_before: Vec<String>,
    only_after: Vec<String>,
}

/// Runs the command.
pub fn run(ui: &Ui, args: &BenchCompare) -> Done {
    if !(args.share.is_finite() && args.share >= 0.0) {
        return Err(Failure::new(Code::Usage, format!("--share is {}; give a share of 0 or more", args.share)));
    }
    let ((before, _), (after, _)) = (read(&args.before)?, read(&args.after)?);
    let comparison = compare(&before, &after, args.share);
    let worse = comparison.rows.iter().filter(|row| row.verdict == Verdict::Worse).count();
    ui.result(&comparison, || text(&comparison))?;
    if worse == 0 || !comparison.same_machine || !comparison.quiet {
        return Ok(());
    }
    Err(Failure::new(Code::Promise, format!("{worse} figures are worse beyond noise"))
        .remedy("measure both again on a quiet machine before you believe it"))
}

fn name(case: &Case) -> String {
    format!("{} {} {} ({})", case.subject, case.scenario, case.metric, case.query)
}

fn compare(before: &Record, after: &Record, share: f64) -> Comparison {
    let same = |a: &Case, b: &Case| {
        (&a.subject, &a.scenario, &a.query, &a.metric) == (&b.subject, &b.scenario, &b.query, &b.metric)
    };
    // Runs in a row share what else the machine does, so their spread says nothing of a change in that.
    let quiet = before.system.is_quiet() && after.system.is_quiet();
    let mut rows = Vec::new();
    for old in &before.cases {
        let Some(new) = after.cases.iter().find(|new| same(old, new)) else { continue };
        let (Some(a), Some(b)) = (old.median, new.median) else { continue };
        let interval = ratio_interval(&old.runs, &new.runs, SEED).or_else(|| disjoint(old, new));
        let verdict = match interval {
            _ if !quiet => Verdict::Unknown,
            None => Verdict::Unknown,
            // Both the interval and the change itself must be past what counts.
            Some((low, _)) if low > 1.0 && b / a > 1.0 + share => judged(old.better == Better::Higher),
            Some((_, high)) if high < 1.0 && b / a < 1.0 - share => judged(old.better == Better::Lower),
            Some(_) => Verdict::Same,
        };
        rows.push(Row {
            subject: old.subject.clone(),
            scenario: old.scenario.clone(),
            query: old.query.clone(),
            metric: old.metric.clone(),
            before: a,
            after: b,
            ratio: b / a,
            interval,
            verdict,
        });
    }
    let missing = |from: &Record, other: &Record| {
        from.cases.iter().filter(|case| !other.cases.iter().any(|c| same(case, c))).map(name).collect()
    };
    Comparison {
        schema: "isotherm.bench-comparison/v1",
        quiet,
        same_machine: before.system.machine == after.system.machine
            && before.system.processor == after.system.processor,
        share,
        rows,
        only_before: missing(before, after),
        only_after: missing(after, before),
    }
}

fn judged(better: bool) -> Verdict {
    if better { Verdict::Better } else { Verdict::Worse }
}

/// For figures that come with an interval and no runs: the extreme ratios of the two intervals.
fn disjoint(old: &Case, new: &Case) -> Option<(f64, f64)> {
    let ((a, b), (c, d)) =
        old.interval.filter(|_| old.runs.is_empty()).zip(new.interval.filter(|_| new.runs.is_empty()))?;
    (a > 0.0).then(|| (c / b, d / a))
}

fn text(comparison: &Comparison) -> String {
    let mut rows = vec![
        ["subject", "load", "figure", "before", "after", "ratio", "95 % interval", "verdict"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for row in &comparison.rows {
        rows.push(vec![
            row.subject.clone(),
            row.scenario.clone(),
            if row.subject == "criterion" { row.query.clone() } else { row.metric.clone() },
            format!("{:.4e}", row.before),
            format!("{:.4e}", row.after),
            format!("{:.3}", row.ratio),
            row.interval.map_or_else(|| "-".to_owned(), |(low, high)| format!("{low:.3} to {high:.3}")),
            format!("{:?}", row.verdict).to_lowercase(),
        ]);
    }
    let mut text = table(&rows, &[3, 4, 5, 6]);
    text.push_str(&format!("\n  a change counts from {} % on, and only beyond noise\n", comparison.share * 100.0));
    if !comparison.quiet {
        text.push_str("  the machine was busy during one of them, so no figure is called worse or better\n");
    }
    if !comparison.same_machine {
        text.push_str("  the machines differ, so no figure is called worse or better for the program's sake\n");
    }
    for (which, names) in [("before", &comparison.only_before), ("after", &comparison.only_after)] {
        if !names.is_empty() {
            text.push_str(&format!("  {} figures are only in the one of {which}\n", names.len()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench_load::System;

    fn record(scale: f64) -> Record {
        let runs: Vec<f64> = [1.0, 1.02, 0.98, 1.01, 0.99].iter().map(|run| run * scale).collect();
        let case = |metric: &str, better| Case {
            subject: "sim".into(),
            scenario: "offline".into(),
            query: "q".into(),
            metric: metric.into(),
            unit: "s".into(),
            better,
            median: Some(scale),
            interval: None,
            throttled_runs: Vec::new(),
            queries: 5,
            queries_min: None,
            note: None,
            runs: runs.clone(),
        };
        Record {
            schema: String::new(),
            tool_version: String::new(),
            started: String::new(),
            seed: 1,
            system: System { load: Some(0.0), ..System::read() },
            cases: vec![case("time", Better::Lower), case("rate", Better::Higher)],
            notes: Vec::new(),
            command: String::new(),
        }
    }

    fn verdicts(scale: f64) -> Vec<Verdict> {
        compare(&record(1.0), &record(scale), 0.03).rows.iter().map(|row| row.verdict).collect()
    }

    #[test]
    fn nothing_is_called_a_change_on_a_busy_machine() {
        let mut busy = record(1.5);
        busy.system.load = Some(100.0);
        let rows = compare(&record(1.0), &busy, 0.03).rows;
        assert!(rows.iter().all(|row| row.verdict == Verdict::Unknown));
    }

    #[test]
    fn a_change_is_called_one_only_beyond_noise_and_the_right_way_round() {
        assert_eq!(verdicts(1.0), [Verdict::Same, Verdict::Same]);
        assert_eq!(verdicts(1.02), [Verdict::Same, Verdict::Same], "smaller than what counts");
        assert_eq!(verdicts(1.5), [Verdict::Worse, Verdict::Better]);
        assert_eq!(verdicts(0.5), [Verdict::Better, Verdict::Worse]);
    }
}
