//! What a sealed plan is run with.

use super::Guest;
use clap::{Args, ValueEnum};
use isotherm_core::units::{Bytes, Celsius};
use isotherm_runtime::cpu::Arithmetic;
use std::path::PathBuf;

/// In what arithmetic weights and activations are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ArithmeticName {
    /// Single precision: nothing is rounded but sums.
    F32,
    /// Activations rounded to eight bits where weights are quantised, as llama.cpp does: several times faster prompts, and
    /// now and then another token.
    Int8,
}

impl ArithmeticName {
    /// The kernels' own.
    pub fn arithmetic(self) -> Arithmetic {
        match self {
            Self::F32 => Arithmetic::F32,
            Self::Int8 => Arithmetic::Int8,
        }
    }
}

/// Arguments of `isotherm run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The sealed manifest.
    pub manifest: PathBuf,
    /// What to ask the model.
    #[arg(long, required_unless_present = "workload", conflicts_with = "workload")]
    pub prompt: Option<String>,
    /// Requests from a file: JSON lines, each with a `prompt`; or a recorded load as `isotherm simulate` takes it, with
    /// arrivals and lengths, whose prompts are drawn at random.
    #[arg(long, value_name = "FILE")]
    pub workload: Option<PathBuf>,
    /// Only so many of the file's requests.
    #[arg(long, value_name = "N", requires = "workload")]
    pub first: Option<usize>,
    /// Requests in service at once where the file names no arrivals.
    #[arg(long, value_name = "N", requires = "workload", default_value_t = 1)]
    pub clients: u32,
    /// Refuse requests that come while so many others wait.
    #[arg(long, value_name = "N", requires = "workload")]
    pub waiting_max: Option<u32>,
    /// One row per answered request: the columns that `isotherm simulate --requests-out` writes.
    #[arg(long, value_name = "FILE", requires = "workload")]
    pub requests_out: Option<PathBuf>,
    /// One JSON object per request: how it ended, its text, its tokens.
    #[arg(long, value_name = "FILE", requires = "workload")]
    pub answers_out: Option<PathBuf>,
    /// Pass prompts as they stand, without the model's chat template.
    #[arg(long)]
    pub raw: bool,
    /// Most tokens to answer with.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub tokens: u32,
    /// End an answer at this text, which is left out; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Give a request up so many seconds after it came.
    #[arg(long, value_name = "SECONDS")]
    pub deadline: Option<f64>,
    /// Randomness of sampling; 0 takes the likeliest token.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f64,
    /// Sample among this many likeliest tokens; 0 for all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: u32,
    /// Sample among the likeliest tokens of this total probability.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f64,
    /// Sample among tokens at least this many times as likely as the likeliest; 0 for all.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub min_p: f64,
    /// Divide the logits of tokens seen lately by this; 1 changes nothing.
    #[arg(long, value_name = "F", default_value_t = 1.0)]
    pub repetition_penalty: f64,
    /// How many of the last tokens count as seen lately.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub repetition_window: u32,
    /// Give the log-probability of each token and of this many likeliest ones, with --answers-out.
    #[arg(long, value_name = "N", requires = "answers_out")]
    pub log_probabilities: Option<u32>,
    /// Seed of sampling.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Let no device get warmer: the run is slowed before it does. By default each device's own limit, where how it
    /// warms was identified (`isotherm probe --thermal`).
    #[arg(long, value_name = "TEMPERATURE")]
    pub temperature_max: Option<Celsius>,
    /// File to write the run record to; by default beside the manifest.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Hold at most so much of the weights in memory, such as `600 MiB`; the other layers lie in a file without a name and are read while the layer before them is computed.
    #[arg(long, value_name = "SIZE")]
    pub weights_budget: Option<Bytes>,
    /// Folder on a disk for the layers that the plan or the budget leaves there; by default that for temporary files.
    #[arg(long, value_name = "DIR")]
    pub weights_folder: Option<PathBuf>,
    /// Number of distinct trusted keys that must have signed; never less than `isotherm keys threshold` says.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threshold: u32,
    /// On whose behalf.
    #[command(flatten)]
    pub guest: Guest,
}

/// Arguments of `isotherm bench runtime`.
#[derive(Debug, Args)]
pub struct BenchRuntime {
    /// Folder for its artefacts.
    #[arg(short, long, value_name = "DIR", default_value = "isotherm-runtime-bench")]
    pub output: PathBuf,
    /// Model to run.
    #[arg(long, value_name = "FILE|NAME", default_value = "smollm2")]
    pub model: String,
    /// Requests at each share.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub requests: u32,
    /// Requests in service at once, at most.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub together: u32,
    /// Shares of the predicted capacity at which requests arrive.
    #[arg(long, value_name = "SHARE", value_delimiter = ',', default_values_t = [0.3, 0.6, 0.9])]
    pub shares: Vec<f64>,
    /// Seed of arrivals, lengths and tokens.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Measure speed instead: prompts and tokens per second on one core and on all, in both arithmetics, one sequence and
    /// several together, and the share of the memory's bandwidth.
    #[arg(long)]
    pub speed: bool,
    /// Folder with node-llama-cpp, to measure llama.cpp in turn with this program; benches/peers/llama_cpp.mjs says how it
    /// gets there.
    #[arg(long, value_name = "DIR", requires = "speed")]
    pub peer: Option<PathBuf>,
    /// The script that measures it.
    #[arg(long, value_name = "FILE", requires = "peer", default_value = "benches/peers/llama_cpp.mjs")]
    pub peer_script: PathBuf,
    /// Program that measures another peer in turn, as benches/peers/candle does for candle. May be repeated.
    #[arg(long, value_name = "FILE", requires = "speed", conflicts_with = "device")]
    pub peer_program: Vec<PathBuf>,
    /// Rounds of --speed; medians over them are shown.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rounds: u32,
    /// Tokens of the prompt of --speed.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub prompt_tokens: u32,
    /// Tokens of its answers.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub output_tokens: u32,
    /// Measure --speed with at most so much memory for weights too, other layers in a file or, a card's, in the host's
    /// memory: predicted and measured slowdown, and memory of the card.
    #[arg(long, value_name = "SIZE", requires = "speed")]
    pub weights_budget: Option<Bytes>,
    /// With --speed, run on this card in place of the cores, by the name that `isotherm devices` gives it or, for what is no
    /// card, `isotherm bench device`; the peer then runs on it through Vulkan.
    #[arg(long, value_name = "NAME", requires = "speed")]
    pub device: Option<String>,
}
