//! Predicted against measured times of requests: what is compared and how.

use serde::Serialize;

/// What is compared, of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// From the engine's queue to the first token.
    Ttft,
    /// From the first token to the last, over the tokens after the first.
    Tpot,
    /// From the engine's queue to the last token.
    Latency,
}

/// All metrics, in the order in which they are shown.
pub const METRICS: [Metric; 3] = [Metric::Ttft, Metric::Tpot, Metric::Latency];

impl Metric {
    /// How outputs name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::Tpot => "tpot",
            Self::Latency => "latency",
        }
    }
}

/// Times of one request, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Times {
    /// To the first token.
    pub ttft: f64,
    /// For each token after the first; none where there is but one.
    pub tpot: Option<f64>,
    /// To the last token.
    pub latency: f64,
}

impl Times {
    /// The times of a request that was queued, had its first and its last token at these seconds.
    #[must_use]
    pub fn of(queued: f64, first_token: f64, last_token: f64, output_tokens: u32) -> Self {
        let further = f64::from(output_tokens.saturating_sub(1));
        Self {
            ttft: (first_token - queued) * 1e3,
            tpot: (further > 0.0).then(|| (last_token - first_token) * 1e3 / further),
            latency: (last_token - queued) * 1e3,
        }
    }

    /// One of them.
    #[must_use]
    pub const fn get(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Ttft => Some(self.ttft),
            Metric::Tpot => self.tpot,
            Metric::Latency => Some(self.latency),
        }
    }
}

/// One statistic of a metric over all requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What is compared.
    pub metric: Metric,
    /// `mean`, `median`, `p90`, `p95`, `p99`.
    pub statistic: &'static str,
    /// Of the run.
    pub measured_ms: f64,
    /// Of the prediction.
    pub predicted_ms: f64,
    /// Predicted over measured, less 1.
    pub error: f64,
    /// Least and greatest of the predictions with all costs moved by their residual; none where none was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_band_ms: Option<(f64, f64)>,
}

/// Errors request by request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PerRequest {
    /// Mean of the absolute errors relative to the measured time.
    pub mape: f64,
    /// 95th percentile of the absolute errors, milliseconds.
    pub p95_abs_ms: f64,
}

const STATISTICS: [(&str, Option<f64>); 5] =
    [("mean", None), ("median", Some(0.5)), ("p90", Some(0.9)), ("p95", Some(0.95)), ("p99", Some(0.99))];

/// The mean, or a percentile with linear interpolation between ranks (the definition that numpy has by default).
fn statistic(sorted: &[f64], share: Option<f64>) -> f64 {
    let Some(share) = share else { return sorted.iter().sum::<f64>() / sorted.len() as f64 };
    let rank = share * (sorted.len() - 1) as f64;
    let low = (rank as usize).min(sorted.len() - 1);
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + (sorted[high] - sorted[low]) * (rank - low as f64)
}

/// All statistics of all metrics, of requests measured and predicted in the same order. A metric that no request has
/// gets no rows.
#[must_use]
pub fn rows(measured: &[Times], predicted: &[Times]) -> Vec<Row> {
    let mut rows = Vec::new();
    for metric in METRICS {
        let sorted = |times: &[Times]| {
            let mut values: Vec<f64> = times.iter().filter_map(|times| times.get(metric)).collect();
            values.sort_unstable_by(f64::total_cmp);
            values
        };
        let (truth, said) = (sorted(measured), sorted(predicted));
        if truth.is_empty() || said.is_empty() {
            continue;
        }
        for (name, share) in STATISTICS {
            let (measured_ms, predicted_ms) = (statistic(&truth, share), statistic(&said, share));
            let error = if measured_ms == 0.0 { 0.0 } else { predicted_ms / measured_ms - 1.0 };
            rows.push(Row { metric, statistic: name, measured_ms, predicted_ms, error, predicted_band_ms: None });
        }
    }
    rows
}

/// Writes into rows how far each statistic moves in other predictions of the same requests.
pub fn widen(rows: &mut [Row], others: &[Vec<Row>]) {
    for (i, row) in rows.iter_mut().enumerate() {
        let of_others = others.iter().filter_map(|rows| Some(rows.get(i)?.predicted_ms));
        let (low, high) = of_others.fold((row.predicted_ms, row.predicted_ms), |(a, b), v| (a.min(v), b.max(v)));
        row.predicted_band_ms = Some((low, high));
    }
}

/// Errors of one metric request by request; none where no request has it in both.
#[must_use]
pub fn per_request(metric: Metric, measured: &[Times], predicted: &[Times]) -> Option<PerRequest> {
    let pairs: Vec<(f64, f64)> = measured
        .iter()
        .zip(predicted)
        .filter_map(|(truth, said)| Some((truth.get(metric)?, said.get(metric)?)))
        .collect();
    if pairs.is_empty() {
        return None;
    }
    let relative: Vec<f64> =
        pairs.iter().filter(|(truth, _)| *truth > 0.0).map(|(truth, said)| (said / truth - 1.0).abs()).collect();
    let mape = if relative.is_empty() { 0.0 } else { relative.iter().sum::<f64>() / relative.len() as f64 };
    let mut sizes: Vec<f64> = pairs.iter().map(|(truth, said)| (said - truth).abs()).collect();
    sizes.sort_unstable_by(f64::total_cmp);
    Some(PerRequest { mape, p95_abs_ms: statistic(&sizes, Some(0.95)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(latency: f64) -> Times {
        Times { ttft: latency, tpot: None, latency }
    }

    #[test]
    fn percentiles_lie_between_ranks_as_numpy_has_them() {
        // numpy.percentile([1, 2, 4, 8], [50, 90, 95, 99]) = 3, 6.8, 7.4, 7.88
        let measured: Vec<Times> = [8.0, 1.0, 4.0, 2.0].map(times).to_vec();
        let rows = rows(&measured, &measured);
        let ttft: Vec<f64> = rows.iter().filter(|row| row.metric == Metric::Ttft).map(|row| row.measured_ms).collect();
        for (got, expected) in ttft.iter().zip([3.75, 3.0, 6.8, 7.4, 7.88]) {
            assert!((got - expected).abs() < 1e-9, "{got} instead of {expected}");
        }
        assert!(rows.iter().all(|row| row.error == 0.0 && row.metric != Metric::Tpot));
    }

    #[test]
    fn errors_of_requests_do_not_cancel_as_those_of_means_do() {
        let (measured, predicted) = ([times(10.0), times(20.0)], [times(20.0), times(10.0)]);
        assert_eq!(rows(&measured, &predicted)[0].error, 0.0);
        let errors = per_request(Metric::Ttft, &measured, &predicted).expect("requests");
        assert!((errors.mape - 0.75).abs() < 1e-12 && (errors.p95_abs_ms - 10.0).abs() < 1e-12);
        assert_eq!(per_request(Metric::Tpot, &measured, &predicted), None);
    }

    #[test]
    fn times_start_at_the_queue_and_a_single_token_has_no_further_ones() {
        let two = Times::of(1.0, 1.5, 2.0, 3);
        assert_eq!((two.ttft, two.tpot, two.latency), (500.0, Some(250.0), 1000.0));
        assert_eq!(Times::of(1.0, 1.5, 1.5, 1).tpot, None);
    }
}
