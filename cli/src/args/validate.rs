//! Arguments of the commands that read profiles and runs of LLMServingSim.

use clap::{Args, Subcommand};
use isotherm_core::units::{Bytes, BytesPerSecond, Seconds};
use std::path::PathBuf;

/// Subcommands of `isotherm validate`.
#[derive(Debug, Subcommand)]
pub enum ValidateCommand {
    /// A recorded vLLM run of LLMServingSim, predicted from a profile of its operators alone.
    #[command(name = "llmservingsim")]
    LlmServingSim(ValidateLlmServingSim),
}

/// What a profile does not say of the model that it was measured on.
#[derive(Debug, Clone, Default, Args)]
pub struct ModelShape {
    /// The model's config.json as its makers publish it, for a model that is not known by name.
    #[arg(long, value_name = "FILE")]
    pub model_config: Option<PathBuf>,
    /// Number of layers, for a model that is not known by name and has no experts.
    #[arg(long, value_name = "N", conflicts_with = "model_config", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub layers: Option<u32>,
}

/// Arguments of `isotherm validate llmservingsim`.
#[derive(Debug, Args)]
pub struct ValidateLlmServingSim {
    /// Folder of the profile: one with tp1, tp2 ... in it, one of these, or one that holds profiles of several models.
    #[arg(long, value_name = "DIR")]
    pub profile: PathBuf,
    /// Folder of the run: meta.json and requests.jsonl, there or in its folder vllm.
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// The requests that were sent, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub workload: PathBuf,
    /// What the profile does not say of the model.
    #[command(flatten)]
    pub model: ModelShape,
    /// Blocks of one engine's cache, where meta.json does not state them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub kv_blocks: Option<u32>,
    /// Rate of one device of a group to the next, in the place of the run's or the profile's.
    #[arg(long, value_name = "RATE", requires = "link_latency")]
    pub link_bandwidth: Option<BytesPerSecond>,
    /// Latency of a message between them.
    #[arg(long, value_name = "TIME", requires = "link_bandwidth")]
    pub link_latency: Option<Seconds>,
    /// File for the times of each request, measured and predicted, as CSV.
    #[arg(long, value_name = "FILE")]
    pub requests_out: Option<PathBuf>,
}

/// Arguments of `isotherm import llmservingsim`.
#[derive(Debug, Args)]
pub struct ImportLlmServingSim {
    /// Folder of the profile: one with tp1, tp2 ... in it, one of these, or one that holds profiles of several models.
    pub profile: PathBuf,
    /// Which model, where the folder holds several.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Memory of the device that weights and cache may take; a profile does not state it.
    #[arg(long, value_name = "SIZE")]
    pub memory: Bytes,
    /// Number of such devices.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub count: u32,
    /// What the profile does not say of the model.
    #[command(flatten)]
    pub shape: ModelShape,
    /// File to write the scenario to.
    #[arg(short, long, value_name = "SCENARIO")]
    pub output: PathBuf,
}
