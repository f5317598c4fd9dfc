//! The command line, as clap reads it.

mod analysis;
mod batch;
mod bench;
mod exchange;
mod heat;
pub mod planning;
mod run;
mod service;
mod trust;
mod validate;
mod watch;

pub use analysis::Analysis;
pub use batch::{
    Batch, BatchCommand, BatchEmit, BatchEngine, BatchExtract, BatchHow, BatchMerge, QueryArgs, SHARDS_MAX, Shard,
};
pub use bench::{BenchCompare, BenchLoad, BenchPlacements, BenchPlans, BenchProbe, BenchTargets};
pub use exchange::{
    Advise, AlgorithmName, BenchPlanner, Check, Engine, Export, ImportCommand, ImportHelix, ImportHelixFlow,
    PlanAndScenario,
};
pub use heat::{FitThermal, PowerSource};
pub use run::{ArithmeticName, BenchRuntime, Run};
pub use service::{BenchCuda, BenchSim, Router, Service};
pub use validate::{ImportLlmServingSim, ModelShape, ValidateCommand, ValidateLlmServingSim};
pub use watch::{Monitor, ProbeLinks, ProbeThermal};

pub use trust::{
    AccessCommand, Asked, AuditBench, AuditCommand, DraftKeySet, EventAbout, Grant, Guest, KeySetCommand, KeysCommand,
    LendLease, UseLease, WatchedLog, WitnessArgs,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use isotherm_core::problem::Objective;
use isotherm_core::units::{Celsius, Seconds};
use std::path::PathBuf;

/// Measure devices, plan a model's placement with a proof, simulate it, run it, and keep a signed record.
#[derive(Debug, Parser)]
#[command(name = "isotherm", version, propagate_version = true, max_term_width = 110)]
#[command(after_help = "\
Start here:  isotherm tour
Exit codes:  0 done, 1 input or output failed, 2 usage, 3 infeasible,
             4 limit reached without a plan, 5 verification failed,
             6 device absent or lost, 7 promise broken in simulation,
             8 denied by policy or quota, 101 bug")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// How to print results on standard output.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Print no progress on standard error.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON value.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole loop on this machine with a real model: probe, plan, simulate, seal, run, verify, report.
    Tour(Tour),
    /// Measure this host's devices and links with a model's real layers.
    Probe(Probe),
    /// List the devices of a measured graph, and how well each figure is known.
    Devices(Devices),
    /// Show what this host's devices do, live: temperature, power, clocks, memory, alerts.
    Monitor(Monitor),
    /// Obtain, describe or synthesise model files.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Write or check a scenario file.
    #[command(subcommand)]
    Scenario(ScenarioCommand),
    /// Solve the placement of a scenario's model and prove how good the answer is.
    Plan(Plan),
    /// Check a plan and its certificate independently of the planner.
    Check(Check),
    /// Say why a plan is as it is: what binds, what each device is worth, what would help.
    Explain(Explain),
    /// Predict a plan's behaviour in time and temperature.
    Simulate(Simulate),
    /// Sign an execution manifest that pins plan, model, devices and prediction by digest.
    Seal(Seal),
    /// Verify a manifest: signature, validity, and that every file it names is the one that was sealed.
    Verify(Verify),
    /// Execute a sealed plan, streaming the tokens.
    Run(Run),
    /// Write a report of a run directory as one HTML file, and its requests and runs as Parquet and CSV.
    Report(Report),
    /// Plan and simulate every scenario of a directory and every point of its sweeps.
    Batch(Box<Batch>),
    /// Ask a batch: the cheapest pile, the best upgrade, where an answer changes.
    Query(QueryArgs),
    /// Identify how a device warms from logs of its power and temperature.
    FitThermal(FitThermal),
    /// Turn other people's measurements into scenarios.
    #[command(subcommand)]
    Import(ImportCommand),
    /// Set predictions against somebody's real run.
    #[command(subcommand)]
    Validate(ValidateCommand),
    /// Write a plan as a command line or configuration of another engine, and what that engine cannot express.
    Export(Export),
    /// Say which models fit the devices at hand, how fast, and what one more device would give.
    Advise(Advise),
    /// Measure isotherm itself.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Read and check the append-only log of what was planned, sealed and run.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Say who may do what with which device, and ask why.
    #[command(subcommand)]
    Access(AccessCommand),
    /// Make, show and replace the key that signs here.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Print shell completions, or write the manual pages.
    #[command(subcommand)]
    Generate(GenerateCommand),
}

/// Which devices and model to take instead of the scenario's own.
#[derive(Debug, Clone, Default, Args)]
pub struct Sources {
    /// Measured devices (from `isotherm probe`) in place of the scenario's.
    #[arg(long, value_name = "FILE")]
    pub devices: Option<PathBuf>,
    /// A model in place of the scenario's: a GGUF file or a name from `isotherm model list`.
    #[arg(long, value_name = "FILE|NAME")]
    pub model: Option<String>,
    /// Temperature of the air, in place of the scenario's `environment.ambient` and `air`.
    #[arg(long, value_name = "TEMPERATURE", allow_hyphen_values = true)]
    pub ambient: Option<Celsius>,
    /// A device that must hold a stage, beside those that the scenario pins; may be repeated.
    #[arg(long, value_name = "DEVICE")]
    pub pin: Vec<String>,
    /// A device that must not hold one, beside those that the scenario bans; may be repeated.
    #[arg(long, value_name = "DEVICE")]
    pub ban: Vec<String>,
}

/// Arguments of `isotherm tour`.
#[derive(Debug, Args)]
pub struct Tour {
    /// Folder for everything the tour makes.
    #[arg(short, long, value_name = "DIR", default_value = "isotherm-tour")]
    pub output: PathBuf,
    /// Model to run: a GGUF file or a name from `isotherm model list`.
    #[arg(long, value_name = "FILE|NAME", default_value = "smollm2")]
    pub model: String,
    /// What to ask the model.
    #[arg(long, default_value = "Explain in two sentences why the sky is blue.")]
    pub prompt: String,
}

/// Arguments of `isotherm probe`.
#[derive(Debug, Args)]
pub struct Probe {
    /// File to write.
    #[arg(short, long, value_name = "FILE", default_value = "devices.json")]
    pub output: PathBuf,
    /// Model whose layers are timed: a GGUF file or a name from `isotherm model list`.
    #[arg(long, value_name = "FILE|NAME", default_value = "smollm2")]
    pub model: String,
    /// Also present the host's cores as this many CPU devices (`cpu0`, `cpu1` ...), beside `cpu`, all of them.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub split: u32,
    /// Time to spend measuring.
    #[arg(long, value_name = "TIME", default_value = "30 s")]
    pub budget: Seconds,
    /// Backends to measure, preferred first, such as `wgpu,cpu`; software rasterisers only when named. By default the
    /// processor and every card.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub backends: Vec<String>,
    /// Present each device of another backend as this many logical ones (`wgpu0-0`, `wgpu0-1` ...), each with memory and
    /// queue of its own.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub logical: u32,
    /// Rehearse a slower device: `cpu1=2` makes every pass of `cpu1` take twice as long, here and in every run with these
    /// devices. May be repeated.
    #[arg(long, value_name = "DEVICE=FACTOR", value_parser = slowed)]
    pub slow: Vec<(String, f64)>,
    /// Also measure how quickly layers come to the processor from a file in this folder, which should be on a disk, and to
    /// cards from the host's memory. Plans may then leave layers there (`[choices]` of a scenario, `offload = true`).
    #[arg(long, value_name = "DIR")]
    pub offload: Option<PathBuf>,
    /// Arithmetic that layers are timed in, and that plans made with this file are run in.
    #[arg(long, value_enum, default_value_t = ArithmeticName::F32)]
    pub arithmetic: ArithmeticName,
    /// On whose behalf.
    #[command(flatten)]
    pub guest: Guest,
    /// Measure nothing but this: take exactly the memory that each stage of a plan needs, on its device and all at once,
    /// write it, read it back, and give it up.
    #[arg(long, value_name = "FILE", conflicts_with = "peer")]
    pub plan: Option<PathBuf>,
    /// How a device warms.
    #[command(flatten)]
    pub thermal: ProbeThermal,
    /// Links to other hosts.
    #[command(flatten)]
    pub links: ProbeLinks,
}

/// A device and the factor by which it is slowed.
fn slowed(text: &str) -> Result<(String, f64), String> {
    let (name, factor) = text.split_once('=').ok_or("write DEVICE=FACTOR, such as cpu1=2")?;
    match factor.parse::<f64>() {
        Ok(factor) if (1.0..=1000.0).contains(&factor) => Ok((name.to_owned(), factor)),
        _ => Err(format!("the factor is {factor}; give a number from 1 to 1000")),
    }
}

/// Arguments of `isotherm devices`.
#[derive(Debug, Args)]
pub struct Devices {
    /// Measured devices; by default those last measured on this host.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Find what this host has, measured or not, and say what changed since it was last looked at.
    #[arg(long, conflicts_with = "file")]
    pub here: bool,
    /// Score the devices for a model that they were measured with: the tokens a second that each would give alone, and what
    /// its time goes into.
    #[arg(long, value_name = "FILE|NAME", conflicts_with = "here")]
    pub model: Option<String>,
}

/// Subcommands of `isotherm model`.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// List the models that can be fetched and those already here: in isotherm's own folder, in the caches of Hugging
    /// Face and llama.cpp, in the stores of Ollama and LM Studio, and in a folder.
    List {
        /// A folder to look in too, with all below it.
        folder: Option<PathBuf>,
        /// Tokens of cache that a model must have room for beside its weights, to count as fitting.
        #[arg(long, value_name = "N", default_value_t = 4096)]
        context: u32,
    },
    /// Download a model once, check it, and keep it in the cache.
    Fetch {
        /// Its name, see `isotherm model list`.
        name: String,
    },
    /// Describe a model file: geometry, formats, bytes, digest.
    Show {
        /// A GGUF file or a name.
        model: String,
    },
    /// How well a model foretells a text, in each arithmetic of the kernels and by the plainest computation there is.
    Perplexity {
        /// A GGUF file or a name.
        model: String,
        /// The text; a few sentences of our own without it.
        #[arg(long, value_name = "FILE")]
        text: Option<PathBuf>,
        /// Only so many of its tokens.
        #[arg(long, value_name = "N", default_value_t = 96)]
        tokens: usize,
        /// Leave out the plain computation, which takes minutes for a large model.
        #[arg(long)]
        skip_reference: bool,
    },
    /// Write a model with random weights, for machines without a network and for benchmarks.
    Synth {
        /// Geometry: tiny, tiny-FAMILY, smollm2-135m or llama-1b; a wrong name lists all.
        geometry: String,
        /// File to write.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Format of the layers' matrices.
        #[arg(long, default_value = "Q4_1")]
        quantisation: String,
        /// Seed of the weights.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// Subcommands of `isotherm scenario`.
#[derive(Debug, Subcommand)]
pub enum ScenarioCommand {
    /// Write a commented scenario to start from.
    New {
        /// File to write; standard output without it.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Read a scenario and report every fault in it.
    Check {
        /// The scenario.
        scenario: PathBuf,
    },
}

/// Arguments of `isotherm plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// The scenario.
    pub scenario: PathBuf,
    /// Devices and model to take instead of the scenario's.
    #[command(flatten)]
    pub sources: Sources,
    /// What to optimise, in place of the scenario's objective; several in turn, the first before the second:
    /// `throughput,energy`.
    #[arg(long, value_enum, value_name = "FIGURES", value_delimiter = ',')]
    pub objective: Vec<ObjectiveName>,
    /// Plans that are simulated under the scenario's load, the fastest of which is taken: the planner's own, those of other
    /// planners, and some beside them. For throughput; none where it is 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub trials: usize,
    /// What the plan has to reach.
    #[command(flatten)]
    pub goals: planning::Goals,
    /// Stop after this time with the best plan so far.
    #[arg(long, value_name = "TIME", default_value = "60 s")]
    pub time_limit: Seconds,
    /// Stop when no plan can be better by more than this share.
    #[arg(long, value_name = "SHARE", default_value_t = 1e-6)]
    pub gap: f64,
    /// Stop after the work that so many branch-and-bound nodes stand for, by no clock: the same call gives the same plan.
    #[arg(long, value_name = "N", conflicts_with_all = ["time_limit", "algorithm"],
        value_parser = clap::value_parser!(u64).range(1..))]
    pub nodes: Option<u64>,
    /// Plan as another planner does, to compare with; its plan is judged by the same checker.
    #[arg(long, value_enum, value_name = "NAME")]
    pub algorithm: Option<AlgorithmName>,
    /// Plan as if nothing ever got hot, beyond what heat and power limits allow in the long run.
    #[arg(long)]
    pub cold: bool,
    /// Whether some devices prefill and the others decode, in place of what the scenario says.
    #[arg(long, value_enum, value_name = "WHEN")]
    pub disaggregate: Option<planning::Disaggregate>,
    /// Times to keep.
    #[command(flatten)]
    pub promises: planning::Promises,
    /// Slow devices to be ready for.
    #[command(flatten)]
    pub guarded: planning::Guarded,
    /// Losses to be ready for.
    #[command(flatten)]
    pub losses: planning::Losses,
    /// What runs already.
    #[command(flatten)]
    pub running: planning::Running,
    /// Several figures at once.
    #[command(flatten)]
    pub frontier: planning::Frontier,
    /// File to write the plan to.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Objectives by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ObjectiveName {
    /// Most output tokens per second.
    Throughput,
    /// Least time per output token of one request.
    Tpot,
    /// Least time to first token of one request.
    Ttft,
    /// Least energy per output token.
    Energy,
    /// Least money per million output tokens.
    Money,
    /// Least money per hour.
    MoneyPerHour,
}

impl From<ObjectiveName> for Objective {
    fn from(name: ObjectiveName) -> Self {
        match name {
            ObjectiveName::Throughput => Self::Throughput,
            ObjectiveName::Tpot => Self::Tpot,
            ObjectiveName::Ttft => Self::Ttft,
            ObjectiveName::Energy => Self::Energy,
            ObjectiveName::Money => Self::Money,
            ObjectiveName::MoneyPerHour => Self::MoneyPerHour,
        }
    }
}

/// Arguments of `isotherm explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The plan and what it answers.
    #[command(flatten)]
    pub question: PlanAndScenario,
    /// Time for solving again, without each device and with one more of each class.
    #[arg(long, value_name = "TIME", default_value = "20 s")]
    pub time_limit: Seconds,
}

/// Arguments of `isotherm simulate`.
#[derive(Debug, Args)]
pub struct Simulate {
    /// The plan.
    pub plan: PathBuf,
    /// The scenario it answers.
    pub scenario: PathBuf,
    /// Devices and model it was made with.
    #[command(flatten)]
    pub sources: Sources,
    /// Number of independent runs: 5 unless stated; one with a recorded workload where nothing else is drawn.
    #[arg(long, value_name = "N")]
    pub seeds: Option<u32>,
    /// Seed of the first run.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// How load is served.
    #[command(flatten)]
    pub service: Service,
    /// What is reported.
    #[command(flatten)]
    pub analysis: Analysis,
    /// Folder for the prediction with the trace of its first run, its tables, and what `isotherm report` needs besides.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// CSV file for one row per request of the first run.
    #[arg(long, value_name = "FILE")]
    pub requests_out: Option<PathBuf>,
}

/// Arguments of `isotherm seal`.
#[derive(Debug, Args)]
pub struct Seal {
    /// The plan.
    pub plan: PathBuf,
    /// The scenario it answers.
    pub scenario: PathBuf,
    /// The devices it was made with.
    #[arg(long, value_name = "FILE")]
    pub devices: PathBuf,
    /// The model file to run: a GGUF file or a name from `isotherm model list`.
    #[arg(long, value_name = "FILE|NAME")]
    pub model: String,
    /// The prediction to pin; simulated now when left out.
    #[arg(long, value_name = "FILE")]
    pub simulation: Option<PathBuf>,
    /// How long the manifest allows runs.
    #[arg(long, value_name = "TIME", default_value = "168 h")]
    pub valid: Seconds,
    /// File to write the manifest to.
    #[arg(short, long, value_name = "FILE", default_value = "manifest.json")]
    pub output: PathBuf,
    /// Also write the manifest as a Sigstore bundle.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// Also write a detached signature of the manifest file, for `ssh-keygen -Y verify -n isotherm-manifest`.
    #[arg(long, value_name = "FILE")]
    pub ssh_signature: Option<PathBuf>,
}

/// Arguments of `isotherm verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The manifest.
    pub manifest: PathBuf,
    /// Public key (PEM) to trust in place of this host's own; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// Number of distinct trusted keys that must have signed; never less than `isotherm keys threshold` says.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threshold: u32,
    /// Do not look at the files that the manifest names.
    #[arg(long)]
    pub signature_only: bool,
    /// A signed record of a run under the manifest (`run-1.signed.json`): shown as a receipt, predicted beside measured.
    #[arg(long, value_name = "FILE", conflicts_with = "signature_only")]
    pub run: Option<PathBuf>,
}

/// Arguments of `isotherm report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Folder with the artefacts of a tour, a truth bench or a run, of a batch, or of a benchmark.
    pub directory: PathBuf,
    /// File to write; by default report.html in that folder. Of a batch or benchmark, .md, .json or .parquet instead.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Subcommands of `isotherm bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Predicted against measured TPOT, TTFT and tokens/s for one, two and three stages, from the probe alone.
    Truth {
        /// Folder for its artefacts.
        #[arg(short, long, value_name = "DIR", default_value = "isotherm-truth")]
        output: PathBuf,
        /// Model to run.
        #[arg(long, value_name = "FILE|NAME", default_value = "smollm2")]
        model: String,
        /// Runs of each plan.
        #[arg(long, value_name = "N", default_value_t = 5)]
        runs: u32,
    },
    /// Many placements on unequal devices, each predicted from the probe and run: errors, order, the planner's choice.
    Placements(BenchPlacements),
    /// The probe repeated: how well its times agree, and what they say of steps that it did not time.
    Probe(BenchProbe),
    /// Planners side by side on the same instances: value, bound, time to an equal certified gap.
    Planner(BenchPlanner),
    /// What plans come to in simulation, this planner's and those of others in the same runs.
    Plans(BenchPlans),
    /// The runtime under load: the same arrivals simulated and served, at shares of the capacity.
    Runtime(BenchRuntime),
    /// The simulator's speed, memory and agreement with its peers, side by side in one run.
    Sim(BenchSim),
    /// Copies and products on every device found, beside what cards that are not here would need at least.
    Device(BenchDevice),
    /// What CUDA kernels should reach on an H100 and a 4090, and what they reach on the NVIDIA cards here.
    Cuda(BenchCuda),
    /// Planner, simulator, runtime and device under MLPerf's loads (SingleStream, MultiStream, Server, Offline), in one
    /// record and one page; `--only` takes one of them.
    All(BenchLoad),
    /// Set two records side by side; a change is called one only beyond noise. Ends with 7 when a figure is worse.
    Compare(BenchCompare),
    /// Every target with what this host achieves, or why that cannot be measured here.
    Targets(BenchTargets),
}

/// Arguments of `isotherm bench device`.
#[derive(Debug, Args)]
pub struct BenchDevice {
    /// Backends to look at, preferred first; every one by default, software rasterisers included.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub backends: Vec<String>,
    /// Rows and columns of the matrices.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub size: u32,
    /// Samples of each time.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub samples: usize,
    /// Test every way to every card by the conformance suite, a whole model and these times, and sign a receipt of each:
    /// what makes a card supported. Ends with 6 where there is no card, with 5 where one does not pass.
    #[arg(long)]
    pub check: bool,
    /// Model of the check: a file or a name. By default smollm2, or random weights in its shape where it
    /// cannot be had.
    #[arg(long, value_name = "MODEL", requires = "check")]
    pub model: Option<String>,
    /// Folder for device.json, which `isotherm report` shows; with `--check`, for copies of the receipts.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Subcommands of `isotherm generate`.
#[derive(Debug, Subcommand)]
pub enum GenerateCommand {
    /// Completions for a shell, on standard output.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Manual pages, one per command.
    Man {
        /// Folder to write them to.
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
    },
    /// The command reference of the book, as Markdown on standard output.
    Reference,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
