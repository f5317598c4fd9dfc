//! Identifies how a device warms from logs of its power and temperature.
//!
//! Each model of [`Shape::ALL`] is fitted to the training logs by least squares, free running from the first temperature
//! of each log with power as the only input ([`replay`]). The model is chosen by cross-validation inside the training
//! logs alone: each log is predicted by parameters fitted to the others (with a single log, each of four blocks by the
//! other three). Test logs are scored once, after that choice. A model whose parameters cannot be physical, or that the
//! logs do not determine, is refused with the reason.
//!
//! Errors of neighbouring samples are alike, so forty samples are taken to say as much about a parameter as one
//! independent one does; what is known beforehand (air between about 10 and 40 °C, a die that stores a fraction of what
//! its sink does) decides where logs say little, and only there.

pub mod candidate;
pub mod optimise;
pub mod power;
pub mod replay;
mod selection;

pub use candidate::{Name, Nodes, Shape, Values};
pub use selection::fit;

use super::log::ThermalLog;
use candidate::{Offer, Search, Start};
use replay::Course;
use serde::Serialize;
use std::collections::BTreeMap;

/// Errors of a prediction of temperature, over all samples of the logs named.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// Mean absolute error in K.
    pub mae_celsius: f64,
    /// 95th percentile of the absolute error, by nearest rank.
    pub p95_celsius: f64,
    /// Greatest absolute error.
    pub max_celsius: f64,
    /// Samples.
    pub samples: usize,
}

impl Score {
    /// The score of these errors; none without one.
    #[must_use]
    pub fn of(errors: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
        sorted.sort_by(f64::total_cmp);
        let samples = sorted.len();
        let p95_celsius = *sorted.get((samples * 95).div_ceil(100).max(1) - 1)?;
        let mae_celsius = sorted.iter().sum::<f64>() / samples as f64;
        Some(Self { mae_celsius, p95_celsius, max_celsius: sorted[samples - 1], samples })
    }
}

/// The score on one log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Named {
    /// The log.
    pub file: String,
    /// Its score.
    #[serde(flatten)]
    pub score: Score,
}

/// A model that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tried {
    /// Its name.
    pub model: &'static str,
    /// Its parameters.
    pub parameters: BTreeMap<&'static str, f64>,
    /// On the logs it was fitted to.
    pub train: Score,
    /// On logs left out of its fit.
    pub cross_validation: Score,
    /// The same, log by log.
    pub folds: Vec<Named>,
    /// Why it was not considered, where it was not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
}

/// A rule that needs no dynamics, to compare with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Baseline {
    /// `constant`, `static-linear` or `one-node`.
    pub name: &'static str,
    /// On the training logs.
    pub train: Score,
    /// On training logs left out of its fit.
    pub cross_validation: Score,
    /// On the test logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Score>,
}

/// The chosen model with power predicted from clock, utilisation and cap instead of measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Predicted {
    /// Mean absolute error of the power on the training logs, in W.
    pub power_mae_watts: f64,
    /// Temperatures of the training logs.
    pub train: Score,
    /// Temperatures of training logs left out of both fits.
    pub cross_validation: Score,
    /// Temperatures of the test logs, where all of them have the columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Score>,
}

/// What was identified.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fit {
    /// The chosen model.
    pub model: &'static str,
    /// Its parameters, with their units in their names.
    pub parameters: BTreeMap<&'static str, f64>,
    /// Intervals of the parameters, meant for 95 %: Gauss-Newton, widened by the correlation of the errors in time, by doubt about
    /// what is expected, and along the profile of what the die stores.
    pub intervals: BTreeMap<&'static str, (f64, f64)>,
    /// On the logs it was fitted to.
    pub train: Score,
    /// Log by log.
    pub train_files: Vec<Named>,
    /// On training logs left out of its fit, which chose the model.
    pub cross_validation: Score,
    /// How training logs were left out.
    pub scheme: &'static str,
    /// Log by log, or block by block.
    pub folds: Vec<Named>,
    /// On all test logs together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Score>,
    /// Test log by test log.
    pub test_files: Vec<Named>,
    /// Rules to compare with.
    pub baselines: Vec<Baseline>,
    /// With power predicted, where the training logs have clock and utilisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_power: Option<Predicted>,
    /// All models that were tried, the simplest first.
    pub candidates: Vec<Tried>,
    /// What was read from the logs and what was assumed.
    pub notes: Vec<String>,
    /// The chosen shape.
    #[serde(skip)]
    pub shape: Shape,
    /// Its parameters.
    #[serde(skip)]
    pub values: Values,
}

/// Why nothing was identified.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FitError {
    /// No log.
    #[error("no training log was given")]
    NoLog,
    /// The logs hold no change to learn from.
    #[error(
        "the training logs hold no step: power from {least_watts:.1} to {most_watts:.1} W, temperature from \
         {coldest:.1} to {hottest:.1} °C; record idling, a load of some minutes and the cooling after it"
    )]
    NoContrast {
        /// Least power.
        least_watts: f64,
        /// Greatest power.
        most_watts: f64,
        /// Lowest temperature.
        coldest: f64,
        /// Highest.
        hottest: f64,
    },
    /// The same log twice.
    #[error(
        "{second} holds the same samples as {first}; give each log once: one that is fitted and scored at once scores \
         nothing"
    )]
    Repeated {
        /// The first name.
        first: String,
        /// The second.
        second: String,
    },
    /// Every model is unphysical.
    #[error("no model has physical parameters: {}", .0.join("; "))]
    Unphysical(Vec<String>),
}

/// Name of a parameter in artefacts.
#[must_use]
pub const fn label(name: Name, offer_ambient: bool, offer_fan: bool) -> &'static str {
    match name {
        Name::Reference if offer_ambient => "reference_over_ambient_kelvin",
        Name::Reference => "reference_celsius",
        Name::Conductance => "resistance_kelvin_per_watt",
        Name::Capacity => "capacity_joules_per_kelvin",
        Name::DieResistance => "die_resistance_kelvin_per_watt",
        Name::DieCapacity => "die_capacity_joules_per_kelvin",
        Name::FanSlope if offer_fan => "fan_watts_per_kelvin",
        Name::FanSlope => "fan_watts_per_kelvin_squared",
        Name::FanStart => "fan_start_celsius",
        Name::CaseConductance => "case_resistance_kelvin_per_watt",
        Name::CaseCapacity => "case_capacity_joules_per_kelvin",
        Name::GapPower => "gap_power_watts",
        Name::Lag => "power_lag_samples",
        Name::MemoryPower => "memory_power_watts",
    }
}

/// Whether an artefact shows the inverse: conductances are searched for, resistances are spoken of.
const fn inverted(name: Name) -> bool {
    matches!(name, Name::Conductance | Name::CaseConductance)
}

#[cfg(test)]
mod tests;
