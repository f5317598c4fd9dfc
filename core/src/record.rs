//! Records of predictions and of runs, and the comparison of the two.

use crate::artefact::Header;
use crate::conditions::Slo;
use crate::digest::Digest;
use crate::figure::How;
use crate::percentile::Percentile;
use crate::serving::Way;
use crate::trace::{Statistic, Trace};
use crate::units::{Bytes, Celsius, Joules, Seconds};
use crate::workload::Workload;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Schema of a simulation report.
pub const SIMULATION_SCHEMA: &str = "isotherm.simulation/v1";
/// Schema of a run record.
pub const RUN_SCHEMA: &str = "isotherm.run/v1";

/// What a device did over the simulated runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceSummary {
    /// Its name.
    pub name: String,
    /// Share of the time it was busy, over all seeds.
    pub utilisation: f64,
    /// Mean energy per run; absent without power figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_joules: Option<Joules>,
    /// Hottest over all runs; absent without thermal parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_max_celsius: Option<Celsius>,
    /// Mean time throttled per run; absent without thermal parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_seconds: Option<Seconds>,
    /// Time until heat first slowed it, the shortest of all runs; absent where it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_after_seconds: Option<Seconds>,
    /// Mean speed while busy since then as a share of full speed, over the runs in which it was slowed: what it sustains
    /// against what it does when cold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sustained_speed: Option<f64>,
    /// How well its step times are known.
    pub timing: How,
    /// Where its thermal and power figures come from.
    pub source: String,
}

/// How losses were dealt with, added up over runs.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Reliability {
    /// Failures of devices and links, slowdowns included.
    pub incidents: u64,
    /// Requests that were answered with an error.
    pub failed_requests: u64,
    /// Times that a request was computed again.
    pub recomputed_requests: u64,
    /// Tokens whose cache was lost and was computed again for them, as far as their requests had begun to answer.
    pub recomputed_tokens: u64,
    /// Simulated time.
    pub total_seconds: Seconds,
    /// Time during which at least one route served.
    pub serving_seconds: Seconds,
    /// Time weighted by the shares of the routes that served: over the total, the availability.
    pub available_seconds: Seconds,
    /// Losses of a route that threw requests back.
    #[serde(default)]
    pub outages: u64,
    /// Those after which at least one of these requests got on again.
    pub recoveries: u64,
    /// Time from each such loss until the last of its requests that got on had its next token, summed.
    pub recovery_seconds_sum: Seconds,
    /// The longest; absent without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_seconds_max: Option<Seconds>,
}

impl Reliability {
    /// Share of the time, weighted by the shares of the routes, that routes served.
    #[must_use]
    pub fn availability(&self) -> f64 {
        if self.total_seconds > Seconds::ZERO { self.available_seconds / self.total_seconds } else { 1.0 }
    }

    /// Mean time to recover; none without a recovery.
    #[must_use]
    pub fn recovery_seconds_mean(&self) -> Option<Seconds> {
        (self.recoveries > 0).then(|| self.recovery_seconds_sum / self.recoveries as f64)
    }

    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let most = [self.recovery_seconds_max, other.recovery_seconds_max].into_iter().flatten();
        Self {
            incidents: self.incidents + other.incidents,
            failed_requests: self.failed_requests + other.failed_requests,
            recomputed_requests: self.recomputed_requests + other.recomputed_requests,
            recomputed_tokens: self.recomputed_tokens + other.recomputed_tokens,
            total_seconds: self.total_seconds + other.total_seconds,
            serving_seconds: self.serving_seconds + other.serving_seconds,
            available_seconds: self.available_seconds + other.available_seconds,
            outages: self.outages + other.outages,
            recoveries: self.recoveries + other.recoveries,
            recovery_seconds_sum: self.recovery_seconds_sum + other.recovery_seconds_sum,
            recovery_seconds_max: most.reduce(Seconds::max),
        }
    }
}

/// Requests that kept the times asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Goodput {
    /// The times.
    pub slo: Slo,
    /// Requests, those answered with an error included.
    pub requests: u64,
    /// Those that kept them.
    pub kept: u64,
    /// Their share.
    pub share: f64,
    /// Half width of the 95 % confidence interval of the share over runs; absent with a single run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci95: Option<f64>,
    /// Those that kept them, per second of simulated time.
    pub requests_per_second: f64,
}

/// Why a request did not get on, or what got it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Waits to be admitted and for its first batch.
    Admission,
    /// Waits for its next batch: others are served, or it was preempted.
    Turn,
    /// Lost its cache and waits for a route, or for the loss to be noticed.
    Recovery,
    /// Its cache comes: back from host memory, or from where its prompt was prefilled.
    Transfer,
    /// Its batch waits for a device.
    Wait,
    /// A device computes, as much as it would take at full speed.
    Compute,
    /// What a device takes longer because of its clock: heat or a power cap.
    Throttle,
    /// What a device takes longer because a failure slows it.
    Straggling,
    /// What a device takes longer because others of a co-run set are busy.
    Contention,
    /// On a way, as long as it takes with nothing else there.
    Link,
    /// What a way takes longer: other messages, cross traffic, jitter, loss.
    LinkContention,
}

impl Cause {
    /// The cause in words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Turn => "turn",
            Self::Recovery => "recovery",
            Self::Transfer => "cache transfer",
            Self::Wait => "wait for device",
            Self::Compute => "compute",
            Self::Throttle => "throttle",
            Self::Straggling => "straggling",
            Self::Contention => "co-run contention",
            Self::Link => "link",
            Self::LinkContention => "link contention",
        }
    }
}

/// One part of the time of requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Why.
    pub cause: Cause,
    /// Device, or way as `from -> to`; empty for the coordinator and for ways that cost nothing.
    pub place: String,
    /// Mean share in the time to the first token.
    pub ttft_seconds: f64,
    /// Mean share in the time per output token after it.
    pub tpot_seconds: f64,
}

/// Where the time of requests went: the parts add up to the mean times to first token and per output token.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Attribution {
    /// The parts, by cause and place; those that took no time are left out.
    pub parts: Vec<Part>,
}

/// What one figure does to a prediction when it is moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Influence {
    /// The figure.
    pub input: String,
    /// Share by which it was moved down and up.
    pub share: f64,
    /// Whether its measurement states that share as its spread; else it is assumed.
    pub stated: bool,
    /// The value with the figure moved down.
    pub low: f64,
    /// The value with the figure moved up.
    pub high: f64,
}

impl Influence {
    /// Largest change of the value, as a share of what it is.
    #[must_use]
    pub fn reach(&self, base: f64) -> f64 {
        ((self.low - base).abs()).max((self.high - base).abs()) / base.abs()
    }

    /// Change of the value over change of the figure, both as shares: 1 where they move together, 0 without influence.
    #[must_use]
    pub fn elasticity(&self, base: f64) -> f64 {
        (self.high - self.low) / (2.0 * self.share * base)
    }
}

/// How much a prediction hangs on each figure that it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// What is predicted.
    pub metric: String,
    /// Its mean with every figure as it is; absent without a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The figures, the most influential first.
    pub influences: Vec<Influence>,
}

/// Cache that moved beside the batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CacheMoves {
    /// Times that a preempted request's cache went to host memory.
    pub swapped_out: u64,
    /// Times that it came back.
    pub swapped_in: u64,
    /// Bytes of both.
    pub swapped_bytes: Bytes,
    /// Requests whose cache went from where their prompt was prefilled to where their answer was decoded.
    pub handed_over: u64,
    /// Bytes of those.
    pub handed_over_bytes: Bytes,
}

impl CacheMoves {
    /// Counts a copy that begins.
    pub fn begin(&mut self, way: Way, bytes: Bytes) {
        let (count, sum) = match way {
            Way::Out => (&mut self.swapped_out, &mut self.swapped_bytes),
            Way::Back => (&mut self.swapped_in, &mut self.swapped_bytes),
            Way::Over => (&mut self.handed_over, &mut self.handed_over_bytes),
        };
        *count += 1;
        *sum = sum.saturating_add(bytes);
    }

    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            swapped_out: self.swapped_out + other.swapped_out,
            swapped_in: self.swapped_in + other.swapped_in,
            swapped_bytes: self.swapped_bytes.saturating_add(other.swapped_bytes),
            handed_over: self.handed_over + other.handed_over,
            handed_over_bytes: self.handed_over_bytes.saturating_add(other.handed_over_bytes),
        }
    }
}

/// A prediction: what the simulator says of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SimulationReport {
    /// Schema, tool and digests of plan, scenario and devices.
    #[serde(flatten)]
    pub header: Header,
    /// Digest of the plan.
    pub plan: Digest,
    /// The load that was simulated.
    pub workload: Workload,
    /// Requests of one run.
    pub requests: u32,
    /// Independent runs, one seed each.
    pub seeds: u32,
    /// `ttft_seconds`, `tpot_seconds`, `e2e_seconds` over all requests of all runs; `tokens_per_second` over runs.
    pub metrics: BTreeMap<String, Statistic>,
    /// Percentiles of the times of requests, over all requests of all runs together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub percentiles: BTreeMap<String, Vec<Percentile>>,
    /// Requests that kept the times asked for; absent where none were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodput: Option<Goodput>,
    /// The plan's devices.
    pub devices: Vec<DeviceSummary>,
    /// Where the time of requests went, over all runs; absent where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribution: Option<Attribution>,
    /// How much the prediction hangs on each figure; absent where nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<Sensitivity>,
    /// How losses were dealt with, over all runs; absent where nothing may fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reliability: Option<Reliability>,
    /// Cache that moved, over all runs; absent where none could.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<CacheMoves>,
    /// Trace of the first seed; absent where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// Digest over every event of every run: the same for any number of threads and any build.
    pub digest: Digest,
}

/// A measurement: what a run on the devices did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Schema, tool and digests of manifest, plan and model.
    #[serde(flatten)]
    pub header: Header,
    /// Digest of the manifest that allowed the run.
    pub manifest: Digest,
    /// Digest of the plan.
    pub plan: Digest,
    /// When it began, RFC 3339.
    pub started: String,
    /// Arithmetic of the kernels.
    pub arithmetic: String,
    /// What it was asked to do.
    pub workload: Workload,
    /// Digest of all sampled tokens, in order of requests.
    pub tokens: Digest,
    /// The same metrics as a [`SimulationReport`].
    pub metrics: BTreeMap<String, Statistic>,
    /// What happened.
    pub trace: Trace,
}

/// One predicted figure beside the measured one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TruthRow {
    /// Number of stages of the plan.
    pub stages: u32,
    /// `tpot`, `ttft` (seconds) or `tokens_per_second`.
    pub metric: String,
    /// As sealed before the run.
    pub predicted: f64,
    /// As measured.
    pub measured: f64,
    /// `predicted / measured - 1`.
    pub error: f64,
}

impl TruthRow {
    /// The row of a predicted and a measured figure.
    #[must_use]
    pub fn new(stages: u32, metric: impl Into<String>, predicted: f64, measured: f64) -> Self {
        Self { stages, metric: metric.into(), predicted, measured, error: predicted / measured - 1.0 }
    }
}

/// Metrics of one trace under the names that reports use. `tokens_per_second` is one figure, so all its statistics
/// are equal. A metric without values is left out.
#[must_use]
pub fn metrics(trace: &Trace) -> BTreeMap<String, Statistic> {
    [
        ("ttft_seconds", trace.ttfts()),
        ("tpot_seconds", trace.tpots()),
        ("e2e_seconds", trace.e2es()),
        ("tokens_per_second", trace.tokens_per_second().into_iter().collect()),
    ]
    .into_iter()
    .filter_map(|(name, values)| Some((name.to_owned(), Statistic::of(values)?)))
    .collect()
}
