//! What runs say together: one figure per run, and how far the runs lie apart.

use crate::report::{Case, RunStatistic, Sealed};
use crate::show::Metric;
use isotherm_core::record::{RunRecord, TruthRow};
use isotherm_core::trace::{Statistic, Trace};

/// Several values of one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Smallest.
    pub min: f64,
    /// Median; the mean of the middle two of an even number.
    pub median: f64,
    /// Largest.
    pub max: f64,
    /// How many there are.
    pub count: usize,
}

impl Spread {
    /// The spread of these values; those that are not finite are left out. None without values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
        Some(Self { min, median, max, count })
    }

    /// Whether the two ranges have a value in common.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}

/// The figure that stands for one run: mean or median over its requests. `metric` is named as in
/// [`TruthRow::metric`]. None where the run has no such figure.
#[must_use]
pub fn run_figure(run: &RunRecord, metric: &str, statistic: RunStatistic) -> Option<f64> {
    let of = run.metrics.get(Metric::named(metric)?.key())?;
    Some(statistic.of(of)).filter(|value| value.is_finite())
}

impl RunStatistic {
    /// The chosen one of a metric's statistics.
    #[must_use]
    pub const fn of(self, statistic: &Statistic) -> f64 {
        match self {
            Self::Mean => statistic.mean,
            Self::Median => statistic.p50,
        }
    }

    /// Its name.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Median => "median",
        }
    }
}

/// What was measured of a metric: one figure per run, their median and range. The median is what a
/// [`TruthRow`] should hold as measured.
#[must_use]
pub fn measured<'a>(
    runs: impl IntoIterator<Item = &'a RunRecord>,
    metric: &str,
    statistic: RunStatistic,
) -> Option<Spread> {
    Spread::of(runs.into_iter().filter_map(|run| run_figure(run, metric, statistic)))
}

impl Case {
    /// Median and range of a metric over this case's runs.
    pub(crate) fn measured(&self, metric: Metric, statistic: RunStatistic) -> Option<Spread> {
        measured(self.runs.iter().map(|run| &run.value), metric.key(), statistic)
    }

    /// What the simulation says of a metric.
    pub(crate) fn simulated(&self, metric: Metric, statistic: RunStatistic) -> Option<f64> {
        let of = self.simulation.as_ref()?.value.metrics.get(metric.key())?;
        Some(statistic.of(of)).filter(|value| value.is_finite())
    }

    /// The row that compares a metric.
    pub(crate) fn row(&self, metric: Metric) -> Option<&TruthRow> {
        self.truth.iter().find(|row| Metric::named(&row.metric) == Some(metric))
    }

    /// A metric over the requests of all runs together.
    pub(crate) fn pooled(&self, metric: Metric) -> Option<(Statistic, usize)> {
        let values: Vec<f64> = self.runs.iter().flat_map(|run| values(&run.value.trace, metric)).collect();
        let count = values.len();
        Some((Statistic::of(values)?, count))
    }
}

impl Sealed {
    /// The sealed value of a metric.
    pub(crate) fn figure(&self, metric: Metric) -> Option<f64> {
        self.figures
            .iter()
            .find(|f| Metric::named(&f.metric) == Some(metric))
            .map(|f| f.value)
            .filter(|v| v.is_finite())
    }
}

/// A metric of every request of a trace; of the whole trace for tokens per second.
pub(crate) fn values(trace: &Trace, metric: Metric) -> Vec<f64> {
    match metric {
        Metric::Tpot => trace.tpots(),
        Metric::Ttft => trace.ttfts(),
        Metric::E2e => trace.e2es(),
        Metric::TokensPerSecond => trace.tokens_per_second().into_iter().collect(),
    }
}

/// Mean busy time of one step of a stage, in seconds; none where it ran no step.
pub(crate) fn step_seconds(trace: &Trace, stage: usize) -> Option<f64> {
    let record = trace.stages.iter().find(|s| s.stage as usize == stage)?;
    (record.steps > 0).then(|| record.busy_ns.seconds().value() / record.steps as f64)
}

/// Mean busy time of a step over the runs of a case.
pub(crate) fn measured_step(case: &Case, stage: usize) -> Option<Spread> {
    Spread::of(case.runs.iter().filter_map(|run| step_seconds(&run.value.trace, stage)))
}

/// Simulated busy time of a step.
pub(crate) fn predicted_step(case: &Case, stage: usize) -> Option<f64> {
    step_seconds(case.simulation.as_ref()?.value.trace.as_ref()?, stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_holds_the_worst_value_and_no_nonsense() {
        let spread = Spread::of([3.0, f64::NAN, 1.0, 2.0, 10.0]).expect("four values");
        assert_eq!((spread.min, spread.median, spread.max, spread.count), (1.0, 2.5, 10.0, 4));
        assert_eq!(Spread::of([f64::INFINITY]), None);
    }

    #[test]
    fn ranges_that_touch_overlap() {
        let range = |min, max| Spread { min, median: min, max, count: 2 };
        assert!(range(1.0, 2.0).overlaps(&range(2.0, 3.0)));
        assert!(!range(1.0, 2.0).overlaps(&range(2.5, 3.0)));
    }
}
