//! What `isotherm simulate` is asked beside how long requests take.

use clap::Args;
use isotherm_core::units::Seconds;
use std::path::PathBuf;

/// Arguments of `isotherm simulate` about what it reports.
#[derive(Debug, Clone, Default, Args)]
pub struct Analysis {
    /// Most time to the first token for a request to count towards goodput, in place of the scenario's `slo.ttft`.
    #[arg(long, value_name = "TIME")]
    pub slo_ttft: Option<Seconds>,
    /// Most time per output token for a request to count towards goodput, in place of the scenario's `slo.tpot`.
    #[arg(long, value_name = "TIME")]
    pub slo_tpot: Option<Seconds>,
    /// Move each figure by its measured spread, or by a tenth, and say how much the prediction moves.
    #[arg(long)]
    pub sensitivity: bool,
    /// A plan that is kept for a loss: it takes over when a device that it does without is lost.
    #[arg(long, value_name = "PLAN", conflicts_with = "sensitivity")]
    pub fallback: Option<PathBuf>,
    /// The scenario that the fallback answers, where it is another one: the same but for the device that is banned.
    #[arg(long, value_name = "SCENARIO", requires = "fallback")]
    pub fallback_scenario: Option<PathBuf>,
    /// JSON file for the first run as Perfetto and Chrome open it: devices, requests, counters.
    #[arg(long, value_name = "FILE")]
    pub trace_out: Option<PathBuf>,
}
