//! How well predictions hold: errors, the order of placements, and what the planner's choice costs.

use super::{Load, Row};
use serde::Serialize;

/// What the rows say together.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Verdicts {
    placements: usize,
    median_error: f64,
    worst_error: f64,
    /// Kendall's tau of predicted and measured times, over pairs of one model and load.
    tau: f64,
    /// The same over pairs whose measured times lie farther apart than their runs scatter; absent without any.
    tau_of_distinct: Option<f64>,
    /// How many such pairs there are, and pairs at all.
    distinct: usize,
    pairs: usize,
    /// Runs that other programs disturbed, of all runs.
    runs_disturbed: usize,
    runs: usize,
    /// Share of the steps with a neighbour on the same physical core, mean over runs, and how many times as long as
    /// without neighbours stages were busy, median over those runs where that is known.
    beside: Option<f64>,
    slowdown: Option<f64>,
    null_median_error: f64,
    null_worst_error: f64,
    null_tau: f64,
    /// Measured time of the planner's choice over the best measured of its model and load, less one; the worst of them.
    choice_behind_best: Option<f64>,
    /// The same for each model and load.
    choices: Vec<(String, Load, f64)>,
}

/// Writes into each row what layers over the number of devices say, scaled so that half of them are above what was measured.
pub(super) fn rows(mut rows: Vec<Row>) -> Vec<Row> {
    let plain = |row: &Row| {
        let layers = row.stages.last().map_or(0, |stage| stage.2);
        f64::from(layers) / row.stages.len().max(1) as f64
    };
    let scale = median(rows.iter().map(|row| row.measured / plain(row)).collect());
    for row in &mut rows {
        row.null = plain(row) * scale;
    }
    rows
}

/// The same rows, with what neighbours took of each run.
pub(super) fn as_run(rows: &[Row]) -> Vec<Row> {
    let with = |row: &Row| Row { measured: row.as_run, apart: row.as_run_apart, ..row.clone() };
    rows.iter().map(with).collect()
}

pub(super) fn verdicts(rows: &[Row]) -> Verdicts {
    let errors =
        |of: fn(&Row) -> f64| -> Vec<f64> { rows.iter().map(|row| (of(row) / row.measured - 1.0).abs()).collect() };
    let worst = |errors: &[f64]| errors.iter().copied().fold(0.0, f64::max);
    let (ours, null) = (errors(|row| row.predicted), errors(|row| row.null));
    let choices: Vec<(String, Load, f64)> = rows
        .iter()
        .filter(|row| row.chosen)
        .map(|chosen| {
            let best =
                rows.iter().filter(|row| alike(row, chosen)).map(|row| row.measured).fold(f64::INFINITY, f64::min);
            (chosen.model.clone(), chosen.load, chosen.measured / best - 1.0)
        })
        .collect();
    let (tau_of_all, pairs) = tau(rows, |row| row.predicted, |_, _| true);
    let (tau_of_distinct, distinct) = tau(rows, |row| row.predicted, are_distinct);
    let runs = || rows.iter().flat_map(|row| &row.runs);
    let beside: Vec<f64> = runs().filter_map(|run| run.beside).collect();
    let slowdowns: Vec<f64> = runs().filter_map(|run| run.slowdown).collect();
    Verdicts {
        placements: rows.len(),
        tau_of_distinct: (distinct > 0).then_some(tau_of_distinct),
        distinct,
        pairs,
        runs_disturbed: runs().filter(|run| run.others.is_some_and(|share| share > super::OTHERS_MAX)).count(),
        runs: runs().count(),
        beside: (!beside.is_empty()).then(|| beside.iter().sum::<f64>() / beside.len() as f64),
        slowdown: (!slowdowns.is_empty()).then(|| median(slowdowns)),
        worst_error: worst(&ours),
        median_error: median(ours),
        tau: tau_of_all,
        null_worst_error: worst(&null),
        null_median_error: median(null),
        null_tau: tau(rows, |row| row.null, |_, _| true).0,
        choice_behind_best: choices.iter().map(|choice| choice.2).reduce(f64::max),
        choices,
    }
}

fn alike(one: &Row, other: &Row) -> bool {
    one.model == other.model && one.load == other.load
}

/// Whether what was measured of two lies farther apart than both scatter.
fn are_distinct(one: &Row, other: &Row) -> bool {
    (one.measured - other.measured).abs() > one.apart + other.apart
}

/// Kendall's tau-a: pairs in the same order less pairs in the opposite one, over all pairs; ties count for neither. Over
/// the pairs that are asked for, and how many those are.
fn tau(rows: &[Row], of: fn(&Row) -> f64, asked: fn(&Row, &Row) -> bool) -> (f64, usize) {
    let (mut order, mut pairs) = (0_i64, 0_usize);
    for (i, one) in rows.iter().enumerate() {
        for other in rows[i + 1..].iter().filter(|other| alike(one, other) && asked(one, other)) {
            let (a, b) = (of(one).total_cmp(&of(other)) as i64, one.measured.total_cmp(&other.measured) as i64);
            order += a * b;
            pairs += 1;
        }
    }
    (if pairs == 0 { 1.0 } else { order as f64 / pairs as f64 }, pairs)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => 0.0,
        n if n % 2 == 1 => figures[n / 2],
        n => f64::midpoint(figures[n / 2 - 1], figures[n / 2]),
    }
}

impl Verdicts {
    pub(super) fn words(&self) -> String {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let behind = self.choice_behind_best.map_or_else(|| "unknown".to_owned(), percent);
        let distinct = match self.tau_of_distinct {
            Some(tau) => format!(
                "{tau:.3} over the {} of {} pairs whose measured times lie farther apart than their runs scatter",
                self.distinct, self.pairs
            ),
            None => "no two placements' measured times lie farther apart than their runs scatter".to_owned(),
        };
        format!(
            "  {} placements: median error {}, worst {}, Kendall's tau {:.3}\n  \
             {distinct}\n  \
             {} of {} runs were disturbed by other programs\n  \
             layers / devices: median error {}, worst {}, Kendall's tau {:.3}\n  \
             the planner's choice is at most {behind} slower than the best measured",
            self.placements,
            percent(self.median_error),
            percent(self.worst_error),
            self.tau,
            self.runs_disturbed,
            self.runs,
            percent(self.null_median_error),
            percent(self.null_worst_error),
            self.null_tau,
        )
    }

    /// The same of what was measured with what neighbours took.
    pub(super) fn words_as_run(&self) -> String {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let (Some(beside), Some(slowdown)) = (self.beside.filter(|share| *share > 0.0), self.slowdown) else {
            return String::new();
        };
        format!(
            "  neighbours on the same physical cores were there during {} of the steps and lengthened all of them by \
             {} in the median run;\n  with that, median error {}, worst {}, Kendall's tau {:.3}, choice at most {} behind\n",
            percent(beside),
            percent(slowdown - 1.0),
            percent(self.median_error),
            percent(self.worst_error),
            self.tau,
            self.choice_behind_best.map_or_else(|| "an unknown share".to_owned(), percent),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(model: &str, predicted: f64, measured: f64, stages: usize, chosen: bool) -> Row {
        Row {
            model: model.to_owned(),
            load: Load { clients: 1, prompt_tokens: 1, output_tokens: 2 },
            stages: (0..stages).map(|i| (format!("d{i}"), i as u32, i as u32 + 1)).collect(),
            chosen,
            predicted,
            measured,
            apart: measured * 0.04,
            as_run: measured * 2.0,
            as_run_apart: 0.0,
            runs: vec![super::super::Timed {
                seconds: measured,
                slowdown: Some(1.25),
                beside: Some(0.5),
                looking: 0.0,
                others: None,
            }],
            busy_predicted: Vec::new(),
            busy_measured: Vec::new(),
            between_measured: Vec::new(),
            error: predicted / measured - 1.0,
            null: 0.0,
        }
    }

    #[test]
    fn the_order_is_judged_within_a_model_and_the_choice_against_its_best() {
        let all = rows(vec![
            row("a", 1.0, 1.1, 1, true),
            row("a", 2.0, 1.0, 2, false),
            row("a", 3.0, 3.0, 3, false),
            row("b", 9.0, 8.0, 1, true),
        ]);
        let found = verdicts(&all);
        // Of three pairs of `a` one is the wrong way round.
        assert!((found.tau - 1.0 / 3.0).abs() < 1e-12, "{found:?}");
        // Times of 1.0 and 1.1 lie farther apart than 0.084, by which these runs scatter; 1.0 and 1.05 do not.
        assert_eq!((found.distinct, found.pairs), (3, 3));
        let near = rows(vec![row("a", 1.0, 1.05, 1, true), row("a", 2.0, 1.0, 2, false), row("a", 3.0, 3.0, 3, false)]);
        let near = verdicts(&near);
        assert!((near.tau - 1.0 / 3.0).abs() < 1e-12, "{near:?}");
        assert_eq!((near.tau_of_distinct, near.distinct), (Some(1.0), 2));
        assert!((found.choice_behind_best.expect("chosen") - 0.1).abs() < 1e-12);
        assert!((found.worst_error - 1.0).abs() < 1e-12);
        assert_eq!(found.choices.len(), 2);
        // Layers over devices are 1 for all of `a`, a tie for every pair.
        assert_eq!(found.null_tau, 0.0);
        // Runs of twice the time are predicted half as long.
        let with = verdicts(&as_run(&all));
        assert!((with.tau - found.tau).abs() < 1e-12 && (with.median_error - 0.5).abs() < 0.1, "{with:?}");
        assert_eq!((with.beside, with.slowdown), (Some(0.5), Some(1.25)));
    }
}
