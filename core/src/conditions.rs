//! Conditions of a simulation beside plan and load: how links share, jitter, lose and carry other traffic, what fails
//! and comes back, what becomes of requests then, and which times a request has to keep.
//!
//! All of it is part of the question, none of it is measured: a scenario states it, the simulator acts on it. The planner
//! sees the cases and the warmest air, and nothing else.

use crate::thermal::governor::{AirStep, Chassis};
use crate::units::{Seconds, SimDuration};
use serde::{Deserialize, Serialize};

/// How flows that meet on a link, or in a capacity that links share, divide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Max-min fair: each of the flows gets as much as the others, and more where others cannot use their part.
    #[default]
    Fair,
    /// One message after another, in the order of sending.
    Fifo,
}

/// A distribution of a time that is zero or more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Spread {
    /// Every time between two bounds is as likely.
    Uniform {
        /// Least time.
        min: Seconds,
        /// Greatest time, at least `min`.
        max: Seconds,
    },
    /// A normal distribution of which only the part from zero on is taken.
    Normal {
        /// Mean of the whole normal distribution.
        mean: Seconds,
        /// Its standard deviation, above zero.
        deviation: Seconds,
    },
    /// The logarithm is normal.
    Lognormal {
        /// Median, above zero.
        median: Seconds,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
    },
    /// Measured quantiles, linear between them; the first at 0, the last at 1, both coordinates rising.
    Quantiles {
        /// Pairs of a share and the time that this share of the messages does not exceed.
        quantiles: Vec<(f64, Seconds)>,
    },
}

/// A directed link by its ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Between {
    /// Where it begins.
    pub from: String,
    /// Where it ends.
    pub to: String,
}

/// What happens to messages on one link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkCondition {
    /// The link.
    pub link: Between,
    /// Time that a message takes beyond the link's latency; each message draws its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Spread>,
    /// Share of packets that are lost, each independently, from 0 to below 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

/// What cross traffic loads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// One link.
    Link(Between),
    /// A capacity that links share, by name.
    Group(String),
}

/// Traffic of others, which yields to nobody: it takes a share of a capacity, always or now and then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CrossTraffic {
    /// What it loads.
    pub place: Place,
    /// Share of the capacity that it takes, from 0 to below 1.
    pub share: f64,
    /// Mean time that it lasts and mean time until it comes again, both exponential; always on where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_off: Option<(Seconds, Seconds)>,
}

/// What fails.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A device, by name.
    Device(String),
    /// A link in one direction.
    Link(Between),
    /// The links in both directions.
    Cable(Between),
}

/// How bad a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Gone, with what it held.
    Lost,
    /// Still there, at this share of its speed or bandwidth, above 0.
    Slowed(f64),
}

/// When a failure happens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Once, at a stated time, and back after another; for good where that is absent.
    At {
        /// When it begins.
        at: Seconds,
        /// How long it lasts.
        repair_after: Option<Seconds>,
    },
    /// Again and again, independently: both spans are exponential.
    Random {
        /// Mean time from working (again) to failing.
        mean_between: Seconds,
        /// Mean time from failing to working again.
        mean_repair: Seconds,
    },
}

/// Something that fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What.
    pub target: Target,
    /// How badly.
    pub severity: Severity,
    /// When.
    pub moment: Moment,
}

/// What becomes of requests whose cache or batch was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InFlight {
    /// They go to a route that works and are computed again from their prompt and the tokens they have.
    #[default]
    Recompute,
    /// They are answered with an error.
    Fail,
}

/// How losses are dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// Requests in flight on a route that is lost.
    pub in_flight: InFlight,
    /// Time from a loss to when the coordinator acts on it.
    pub detect: Seconds,
    /// Most times that one request is computed again before it is answered with an error.
    pub attempts_max: u32,
}

impl Default for Recovery {
    fn default() -> Self {
        Self { in_flight: InFlight::Recompute, detect: Seconds::ZERO, attempts_max: 8 }
    }
}

/// Times that a request has to keep to count towards goodput.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Slo {
    /// Most time to the first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft: Option<Seconds>,
    /// Most time per output token after the first; a request of one token keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpot: Option<Seconds>,
}

impl Slo {
    /// Whether nothing is asked.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.ttft.is_none() && self.tpot.is_none()
    }

    /// Whether these times keep it.
    #[must_use]
    pub fn kept(&self, ttft: SimDuration, tpot_seconds: Option<f64>) -> bool {
        // Times are whole nanoseconds, and a mean of them has the error of a division; limits are decimal.
        self.ttft.is_none_or(|most| ttft.0 as f64 <= libm::round(most.value() * 1e9))
            && self.tpot.is_none_or(|most| tpot_seconds.is_none_or(|tpot| tpot <= most.value() * (1.0 + 1e-12)))
    }
}

/// Prompts are prefilled on some devices and answers decoded on the others; the cache moves between them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Disaggregation {
    /// Names of the devices whose routes prefill. A route lies on these alone or on others alone.
    pub prefill: Vec<String>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Conditions {
    /// How flows share.
    #[serde(default)]
    pub sharing: Sharing,
    /// Jitter and loss.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkCondition>,
    /// Traffic of others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cross_traffic: Vec<CrossTraffic>,
    /// What fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// How losses are dealt with.
    #[serde(default)]
    pub recovery: Recovery,
    /// Which routes prefill and which decode; every route does both where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disaggregation: Option<Disaggregation>,
    /// Times to keep.
    #[serde(default, skip_serializing_if = "Slo::is_none")]
    pub slo: Slo,
    /// Cases whose air devices share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chassis: Vec<Chassis>,
    /// Changes of the air's temperature, in order of time; until the first it is the problem's ambient temperature.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub air: Vec<AirStep>,
}

impl Conditions {
    /// Whether a simulation draws something for them, so that runs of different seeds differ.
    #[must_use]
    pub fn draw(&self) -> bool {
        let random = |failure: &Failure| matches!(failure.moment, Moment::Random { .. });
        self.links.iter().any(|link| link.jitter.is_some() || link.loss.is_some_and(|loss| loss > 0.0))
            || self.cross_traffic.iter().any(|traffic| traffic.on_off.is_some())
            || self.failures.iter().any(random)
    }

    /// The same conditions where the ends of links, and devices, have other names. What concerns links of an end without
    /// a name is left out.
    #[must_use]
    pub fn renamed(
        &self,
        rename: impl Fn(&str) -> Option<String>,
        device_named: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let link = |link: &Between| {
            let (from, to) = (rename(&link.from)?, rename(&link.to)?);
            (from != to).then_some(Between { from, to })
        };
        let mut renamed = self.clone();
        renamed.links =
            self.links.iter().filter_map(|c| Some(LinkCondition { link: link(&c.link)?, ..c.clone() })).collect();
        renamed.cross_traffic.retain_mut(|traffic| match &mut traffic.place {
            Place::Group(_) => true,
            Place::Link(at) => link(at).map(|new| *at = new).is_some(),
        });
        renamed.failures.retain_mut(|failure| match &mut failure.target {
            Target::Device(device) => device_named(device).map(|new| *device = new).is_some(),
            Target::Link(at) | Target::Cable(at) => link(at).map(|new| *at = new).is_some(),
        });
        if let Some(disaggregation) = &mut renamed.disaggregation {
            disaggregation.prefill = disaggregation.prefill.iter().filter_map(|device| device_named(device)).collect();
        }
        for chassis in &mut renamed.chassis {
            chassis.devices = chassis.devices.iter().filter_map(|device| device_named(device)).collect();
        }
        renamed.chassis.retain(|chassis| !chassis.devices.is_empty());
        renamed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_times_at_the_limit_and_breaks_them_above() {
        let slo = Slo { ttft: Some(Seconds::of(1.0)), tpot: Some(Seconds::of(0.5)) };
        assert!(slo.kept(SimDuration(1_000_000_000), Some(0.5)));
        assert!(!slo.kept(SimDuration(1_000_000_001), Some(0.5)));
        assert!(!slo.kept(SimDuration(0), Some(0.6)));
        assert!(slo.kept(SimDuration(0), None), "a single token has no time per token after the first");
        assert!(Slo::default().kept(SimDuration(u64::MAX), Some(9e9)));
    }

    #[test]
    fn conditions_read_back_the_same_and_absent_ones_are_none() {
        let conditions = Conditions {
            sharing: Sharing::Fifo,
            links: vec![LinkCondition {
                link: Between { from: "a".into(), to: "b".into() },
                jitter: Some(Spread::Lognormal { median: Seconds::of(1e-3), sigma: 0.5 }),
                loss: Some(0.01),
            }],
            failures: vec![Failure {
                target: Target::Device("a".into()),
                severity: Severity::Slowed(0.5),
                moment: Moment::At { at: Seconds::of(3.0), repair_after: None },
            }],
            ..Conditions::default()
        };
        let text = serde_json::to_string(&conditions).expect("serialises");
        assert_eq!(serde_json::from_str::<Conditions>(&text).expect("reads"), conditions);
        assert_eq!(serde_json::from_str::<Conditions>("{}").expect("reads"), Conditions::default());
    }
}
