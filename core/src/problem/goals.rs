//! What a plan is the best by, and what it has to reach beside that.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What to optimise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Most output tokens per second that the devices can sustain (a rate, larger is better).
    Throughput,
    /// Least time per output token of a request that has the devices to itself (seconds, smaller is better).
    Tpot,
    /// Least time to the first token of such a request (seconds, smaller is better).
    Ttft,
    /// Least energy per output token while the plan runs at its throughput (joules, smaller is better).
    Energy,
    /// Least money per million output tokens then, in the currency of the prices (smaller is better).
    Money,
    /// Least money per hour then.
    MoneyPerHour,
}

impl Objective {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Throughput, Self::Tpot, Self::Ttft, Self::Energy, Self::Money, Self::MoneyPerHour];

    /// Name in artefacts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Tpot => "tpot",
            Self::Ttft => "ttft",
            Self::Energy => "energy",
            Self::Money => "money",
            Self::MoneyPerHour => "money_per_hour",
        }
    }

    /// Unit of its value.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Throughput => "tok/s",
            Self::Tpot | Self::Ttft => "s",
            Self::Energy => "J/token",
            Self::Money => "per Mtok",
            Self::MoneyPerHour => "per h",
        }
    }

    /// Whether larger values are better.
    #[must_use]
    pub const fn maximises(self) -> bool {
        matches!(self, Self::Throughput)
    }

    /// Whether it is about many requests at once, as many as the devices sustain; else about one that has them to itself.
    #[must_use]
    pub const fn serves(self) -> bool {
        !matches!(self, Self::Tpot | Self::Ttft)
    }

    /// Whether it is about what serving costs.
    #[must_use]
    pub const fn spends(self) -> bool {
        matches!(self, Self::Energy | Self::Money | Self::MoneyPerHour)
    }
}

/// A figure that a plan has to reach: at least so much where more is better, else at most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// The figure, named as an objective.
    pub figure: Objective,
    /// Its limit, in the unit of the objective.
    pub limit: f64,
}

/// Relative difference by which a figure may miss its limit: figures are sums, rounded.
const SLACK: f64 = 1e-9;

impl Goal {
    /// Whether a figure reaches it; one that is not known does not.
    #[must_use]
    pub fn reached(&self, figure: Option<f64>) -> bool {
        figure.is_some_and(|figure| {
            if self.figure.maximises() {
                figure >= self.limit * (1.0 - SLACK)
            } else {
                figure <= self.limit * (1.0 + SLACK)
            }
        })
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.figure.maximises() { "at least" } else { "at most" };
        write!(f, "{} {side} {} {}", self.figure.name(), self.limit, self.figure.unit())
    }
}

/// The least throughput that goals ask for; 0 where none does.
#[must_use]
pub fn floor(goals: &[Goal]) -> f64 {
    let of_rate = goals.iter().filter(|goal| goal.figure == Objective::Throughput);
    of_rate.map(|goal| goal.limit).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_asked_of_a_rate_and_less_of_what_it_costs() {
        let (rate, energy) =
            (Goal { figure: Objective::Throughput, limit: 10.0 }, Goal { figure: Objective::Energy, limit: 10.0 });
        assert!(rate.reached(Some(11.0)) && !rate.reached(Some(9.0)) && !rate.reached(None));
        assert!(energy.reached(Some(9.0)) && !energy.reached(Some(11.0)) && !energy.reached(Some(f64::NAN)));
        assert_eq!(floor(&[energy, rate]), 10.0);
        assert_eq!(rate.to_string(), "throughput at least 10 tok/s");
    }
}
