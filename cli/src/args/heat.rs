//! Arguments of `isotherm fit-thermal`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Arguments of `isotherm fit-thermal`.
#[derive(Debug, Args)]
pub struct FitThermal {
    /// Logs to learn from: CSV with time, power and temperature; columns and units are found by their headings.
    #[arg(required = true, value_name = "TRAIN")]
    pub train: Vec<PathBuf>,
    /// Logs to score the chosen model on, once; they choose nothing.
    #[arg(long, num_args = 1.., value_name = "TEST")]
    pub test: Vec<PathBuf>,
    /// Power that the headline figures are for: as measured, or predicted from clock, utilisation and cap.
    #[arg(long, value_enum, default_value_t = PowerSource::Measured)]
    pub power: PowerSource,
    /// File for the identified parameters: TOML to put into a device table, or JSON of the whole result (`.json`).
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Where power comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PowerSource {
    /// The log's power column.
    Measured,
    /// A rule over clock, utilisation and cap, fitted to the training logs.
    Predicted,
}
