//! Arguments of the commands that exchange with others: import, export, check, advise, and the comparison of planners.

use clap::{Args, Subcommand, ValueEnum};
use isotherm_core::units::{BytesPerSecond, Seconds};
use isotherm_planner::baselines::Baseline;
use std::path::PathBuf;

/// Subcommands of `isotherm import`.
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// A flow problem of Helix: rates by number of layers and capacities of links, as JSON.
    HelixFlow(ImportHelixFlow),
    /// A cluster of Helix with its profiles: memory, operator times, network cards, links with latency.
    Helix(ImportHelix),
    /// Operator times of a model on a device, as LLMServingSim's profiler takes them out of vLLM.
    #[command(name = "llmservingsim")]
    LlmServingSim(super::ImportLlmServingSim),
}

/// A plan and what it answers.
#[derive(Debug, Args)]
pub struct PlanAndScenario {
    /// The plan.
    pub plan: PathBuf,
    /// The scenario it answers.
    pub scenario: PathBuf,
    /// Devices and model it was made with.
    #[command(flatten)]
    pub sources: super::Sources,
}

/// Arguments of `isotherm check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The plan and what it answers.
    #[command(flatten)]
    pub question: PlanAndScenario,
    /// Also write the inputs of the problem, which a second checker reads: `benches/peers/check_plan.py PLAN FILE`.
    #[arg(long, value_name = "FILE")]
    pub problem: Option<PathBuf>,
}

/// Arguments of `isotherm import helix-flow`.
#[derive(Debug, Args)]
pub struct ImportHelixFlow {
    /// JSON file with one or more instances.
    pub file: PathBuf,
    /// Name of the instance in it.
    #[arg(long, value_name = "NAME")]
    pub instance: String,
    /// File to write the scenario to.
    #[arg(short, long, value_name = "SCENARIO")]
    pub output: PathBuf,
}

/// Arguments of `isotherm import helix`.
#[derive(Debug, Args)]
pub struct ImportHelix {
    /// INI file with the nodes and links.
    #[arg(long, value_name = "INI")]
    pub cluster: PathBuf,
    /// Folder with the profiles, `MODEL_TYPE_prompt_bs2time.csv` and `MODEL_TYPE_decode_bs2time.csv`.
    #[arg(long, value_name = "DIR")]
    pub profiles: PathBuf,
    /// The model as Helix names it: llama2_70b or llama1_30b.
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// INI file with memory and network cards of machine types; by default the one beside the cluster that is called
    /// so, `*machine_profiles.ini`.
    #[arg(long, value_name = "INI")]
    pub machines: Option<PathBuf>,
    /// File to write the scenario to.
    #[arg(short, long, value_name = "SCENARIO")]
    pub output: PathBuf,
}

/// Engines that plans can be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// llama.cpp, over its RPC backend.
    #[value(name = "llama.cpp")]
    LlamaCpp,
    /// vLLM, pipeline parallel.
    Vllm,
    /// exo.
    Exo,
    /// prima.cpp.
    Prima,
    /// MLX distributed.
    Mlx,
}

/// Arguments of `isotherm export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The plan and what it answers.
    #[command(flatten)]
    pub question: PlanAndScenario,
    /// The engine to write for.
    #[arg(long, value_enum)]
    pub to: Engine,
    /// File to write; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `isotherm advise`.
#[derive(Debug, Args)]
pub struct Advise {
    /// The devices; by default those last measured on this host.
    #[arg(long, value_name = "FILE")]
    pub devices: Option<PathBuf>,
    /// Folder with GGUF files to consider beside the known models and the cache.
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// Requests at once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub clients: u32,
    /// Tokens of a prompt.
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub prompt_tokens: u32,
    /// Tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub output_tokens: u32,
    /// Time for each plan.
    #[arg(long, value_name = "TIME", default_value = "2 s")]
    pub time_limit: Seconds,
    /// TOML file with prices by name of a device table, and `currency`.
    #[arg(long, value_name = "FILE")]
    pub prices: Option<PathBuf>,
    /// Latency of the network that a new device would be joined by.
    #[arg(long, value_name = "TIME", default_value = "0.5 ms")]
    pub link_latency: Seconds,
    /// Bandwidth of that network.
    #[arg(long, value_name = "RATE", default_value = "1 Gbit/s")]
    pub link_bandwidth: BytesPerSecond,
}

/// Other planners, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AlgorithmName {
    /// The same number of layers on every device.
    Equal,
    /// Layers in proportion to memory, as exo divides them.
    MemoryProportional,
    /// The fastest device takes all that fits, then the next.
    Greedy,
    /// Least slowest stage by dynamic programming over devices in order, as Mesh-LLM divides layers.
    MinMax,
    /// Devices one after another take the span of layers that is served worst, as in Petals.
    Petals,
    /// Stages of equal length, devices spread over them by their rates, as in Swarm.
    Swarm,
    /// Least time per token over devices in order with memory as the limit, as Halda of prima.cpp.
    Halda,
    /// Helix's integer program over single devices, in HiGHS on one thread.
    HelixMilp,
}

impl From<AlgorithmName> for Baseline {
    fn from(name: AlgorithmName) -> Self {
        match name {
            AlgorithmName::Equal => Self::Equal,
            AlgorithmName::MemoryProportional => Self::MemoryProportional,
            AlgorithmName::Greedy => Self::Greedy,
            AlgorithmName::MinMax => Self::MinMax,
            AlgorithmName::Petals => Self::Petals,
            AlgorithmName::Swarm => Self::Swarm,
            AlgorithmName::Halda => Self::Halda,
            AlgorithmName::HelixMilp => Self::HelixMilp,
        }
    }
}

/// Arguments of `isotherm bench planner`.
#[derive(Debug, Args)]
pub struct BenchPlanner {
    /// Instances: published (from measured data beside the checkout), generated, or names of generated sets.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "published,generated")]
    pub sets: Vec<String>,
    /// Longest time of one planner on one instance.
    #[arg(long, value_name = "TIME", default_value = "120 s")]
    pub cap: Seconds,
    /// Seeds of each generated set.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seeds: u64,
    /// Folder for planner.json and planner.txt.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}
