//! What happened in a run, predicted or measured: one type for both, so that "how wrong was the simulator" is one
//! join.

use crate::units::{Celsius, Joules, SimDuration, SimTime, Watts};
use serde::{Deserialize, Serialize};

/// Whether a trace was simulated or observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// By the simulator.
    Predicted,
    /// On the devices.
    Measured,
}

/// One request, from arrival to last token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Position in order of arrival.
    pub id: u32,
    /// When it arrived.
    pub arrival_ns: SimTime,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Tokens of its answer.
    pub output_tokens: u32,
    /// When its first token was out.
    pub first_token_ns: SimTime,
    /// When its last token was out.
    pub finished_ns: SimTime,
}

impl RequestRecord {
    /// Time to the first token.
    #[must_use]
    pub fn ttft(&self) -> SimDuration {
        self.first_token_ns.since(self.arrival_ns)
    }

    /// Time from arrival to the last token.
    #[must_use]
    pub fn e2e(&self) -> SimDuration {
        self.finished_ns.since(self.arrival_ns)
    }

    /// Seconds per output token after the first: `(finished - first) / (output - 1)`; none for a single token.
    #[must_use]
    pub fn tpot_seconds(&self) -> Option<f64> {
        let after_first = self.output_tokens.checked_sub(1).filter(|&n| n > 0)?;
        Some(self.finished_ns.since(self.first_token_ns).seconds().value() / f64::from(after_first))
    }
}

/// What one stage did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Position in the plan.
    pub stage: u32,
    /// Its device.
    pub device: String,
    /// Steps it ran.
    pub steps: u64,
    /// Tokens that passed through it.
    pub tokens: u64,
    /// Time it was busy.
    pub busy_ns: SimDuration,
}

/// A device's state at one time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DeviceSample {
    /// When.
    pub at_ns: SimTime,
    /// Temperature; absent without a model or sensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<Celsius>,
    /// Speed as a share of full speed; absent where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// Power drawn; absent without power figures or a sensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_watts: Option<Watts>,
    /// Energy drawn since the beginning; absent like the power.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_joules: Option<Joules>,
    /// Share of the time since the sample before that it was busy; absent at the first, and where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilisation: Option<f64>,
    /// Charge of its battery as a share of the capacity; absent on the mains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<f64>,
    /// Requests that wait for admission on routes through it; absent where nobody counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
    /// Share of the cache blocks of these routes that requests hold; absent where nobody counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<f64>,
}

/// What one device did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Its name.
    pub name: String,
    /// Time it was busy.
    pub busy_ns: SimDuration,
    /// Energy it drew; absent without power figures or a sensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_joules: Option<Joules>,
    /// Hottest it was; absent without a thermal record or sensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_max_celsius: Option<Celsius>,
    /// Time it was throttled; absent like the temperature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_ns: Option<SimDuration>,
    /// When heat first slowed it; absent where it never did, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_after_ns: Option<SimTime>,
    /// Mean speed while busy since heat first slowed it, as a share of full speed: sustained against cold. Absent like
    /// the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sustained_speed: Option<f64>,
    /// Where temperature or energy came from: a sensor's name, `simulated, assumed parameters`, or `no sensor`.
    pub source: String,
    /// Its state over time, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<DeviceSample>,
}

/// One step of a device: a batch passed through the layers that the device holds for its route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Position of the device in [`Trace::devices`].
    pub device: u32,
    /// When it began.
    pub start_ns: SimTime,
    /// When it ended.
    pub end_ns: SimTime,
    /// Position of the route in the plan.
    pub route: u32,
    /// Number of batches that the route formed before.
    pub batch: u64,
    /// Tokens of the batch.
    pub tokens: u32,
    /// Its requests.
    pub requests: Vec<u32>,
}

/// What went from one stage to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// The device that sent.
    pub from: String,
    /// The device that received.
    pub to: String,
    /// Batches that were handed over.
    pub messages: u64,
    /// Activations that were handed over, in bytes.
    pub bytes: u64,
    /// Time from the end of a batch on the one device to its begin on the other, summed: the hand-over, and waiting until
    /// the other is free.
    pub between_ns: SimDuration,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Simulated or observed.
    pub origin: Origin,
    /// The requests that finished, in order of their identifiers.
    pub requests: Vec<RequestRecord>,
    /// The stages, in the plan's order.
    pub stages: Vec<StageRecord>,
    /// What went between the stages; empty with a single stage, and where nobody counted it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkRecord>,
    /// The devices of the plan.
    pub devices: Vec<DeviceRecord>,
    /// When the last event happened.
    pub end_ns: SimTime,
    /// Steps of the devices in order of their ends, as many as were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepRecord>,
}

impl Trace {
    /// Output tokens per second from the first arrival to the last token; none without a request.
    #[must_use]
    pub fn tokens_per_second(&self) -> Option<f64> {
        let begin = self.requests.iter().map(|r| r.arrival_ns).min()?;
        let end = self.requests.iter().map(|r| r.finished_ns).max()?;
        let tokens: u64 = self.requests.iter().map(|r| u64::from(r.output_tokens)).sum();
        let span = end.since(begin).seconds().value();
        (span > 0.0).then(|| tokens as f64 / span)
    }

    /// Time to first token of every request, in seconds, in order of the requests.
    #[must_use]
    pub fn ttfts(&self) -> Vec<f64> {
        self.requests.iter().map(|r| r.ttft().seconds().value()).collect()
    }

    /// Seconds per output token of every request with at least two.
    #[must_use]
    pub fn tpots(&self) -> Vec<f64> {
        self.requests.iter().filter_map(RequestRecord::tpot_seconds).collect()
    }

    /// End-to-end time of every request, in seconds.
    #[must_use]
    pub fn e2es(&self) -> Vec<f64> {
        self.requests.iter().map(|r| r.e2e().seconds().value()).collect()
    }
}

/// Mean and percentiles of one metric over many requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Statistic {
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Half width of the 95 % confidence interval of the mean over seeds; absent with a single seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci95: Option<f64>,
    /// Share by which the percentiles may differ from the exact ones, which are not kept of very many values; absent
    /// where they are exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative_error: Option<f64>,
}

impl Statistic {
    /// Statistics of these values, by nearest rank; none without values.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let rank = |p: usize| values.get((p * count).div_ceil(100).max(1) - 1).copied();
        let mean = values.iter().sum::<f64>() / count as f64;
        Some(Self { mean, p50: rank(50)?, p90: rank(90)?, p99: rank(99)?, ci95: None, relative_error: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let statistic = Statistic::of((1..=100).rev().map(f64::from).collect()).expect("values");
        assert_eq!((statistic.p50, statistic.p90, statistic.p99, statistic.mean), (50.0, 90.0, 99.0, 50.5));
        assert_eq!(Statistic::of(vec![7.0]).expect("a value").p99, 7.0);
        assert_eq!(Statistic::of(vec![]), None);
    }

    #[test]
    fn time_per_output_token_leaves_the_first_out() {
        let record = RequestRecord {
            id: 0,
            arrival_ns: SimTime(0),
            prompt_tokens: 4,
            output_tokens: 5,
            first_token_ns: SimTime(1_000_000_000),
            finished_ns: SimTime(3_000_000_000),
        };
        assert_eq!(record.tpot_seconds(), Some(0.5));
        assert_eq!(RequestRecord { output_tokens: 1, ..record }.tpot_seconds(), None);
    }
}
