//! Arguments of the benchmarks that report in one form.

use crate::commands::bench_load::Subject;
use clap::Args;
use isotherm_core::units::{Celsius, Seconds};
use std::path::PathBuf;

/// Arguments of `isotherm bench all`.
#[derive(Debug, Args)]
pub struct BenchLoad {
    /// Folder for bench.json and report.html.
    #[arg(short, long, value_name = "DIR", default_value = "isotherm-bench")]
    pub output: PathBuf,
    /// Only these parts of the program.
    #[arg(long, value_name = "PARTS", value_delimiter = ',', default_values_t = Subject::ALL)]
    pub only: Vec<Subject>,
    /// Independent runs of each figure, at least 5.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub runs: u32,
    /// Time of one run of one scenario; longer runs answer more queries, and percentiles need many.
    #[arg(long, value_name = "TIME", default_value = "1 s")]
    pub span: Seconds,
    /// Seed of queries, arrivals and intervals.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Folder of criterion's results to take in; `target/criterion` where that is.
    #[arg(long, value_name = "DIR")]
    pub criterion: Option<PathBuf>,
}

/// Arguments of `isotherm bench plans`.
#[derive(Debug, Args)]
pub struct BenchPlans {
    /// The scenarios.
    #[arg(required = true, value_name = "SCENARIO")]
    pub scenarios: Vec<PathBuf>,
    /// Simulated runs of each plan.
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub seeds: u32,
    /// Requests of each run, in the place of the scenario's.
    #[arg(long, value_name = "N")]
    pub requests: Option<u32>,
    /// Clients that wait for their answers, all of them admitted at once, in the place of the scenario's load.
    #[arg(long, value_name = "N")]
    pub clients: Option<u32>,
    /// Mean tokens of an answer, in the place of the scenario's: of each of them.
    #[arg(long, value_name = "N")]
    pub output_tokens: Option<u32>,
    /// A placement of somebody's, as JSON: device names and their layers, `{"desk": [0, 12]}` (half open); may be
    /// repeated.
    #[arg(long, value_name = "FILE")]
    pub placement: Vec<PathBuf>,
    /// Temperature of the air, in place of the scenario's.
    #[arg(long, value_name = "TEMPERATURE", allow_hyphen_values = true)]
    pub ambient: Option<Celsius>,
    /// Percent of the requests that have to keep the scenario's times.
    #[arg(long, value_name = "PERCENT", default_value_t = 95.0)]
    pub percentile: f64,
    /// Plans that this planner has simulated on other seeds, to take the fastest, as with `isotherm plan --trials`; 0 takes
    /// the plan of most worth.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub trials: usize,
    /// Longest time of one planner on one scenario.
    #[arg(long, value_name = "TIME", default_value = "60 s")]
    pub cap: Seconds,
    /// Folder for plans.json and plans.txt.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Arguments of `isotherm bench compare`.
#[derive(Debug, Args)]
pub struct BenchCompare {
    /// Folder or bench.json of before.
    pub before: PathBuf,
    /// Folder or bench.json of after.
    pub after: PathBuf,
    /// Changes smaller than this share are never called one, however sure they are.
    #[arg(long, value_name = "SHARE", default_value_t = 0.03)]
    pub share: f64,
}

/// Arguments of `isotherm bench targets`.
#[derive(Debug, Args)]
pub struct BenchTargets {
    /// Folder for targets.json, targets.md and report.html.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Only these targets; what the folder has of the others stays in its table.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Keep rows of the folder that were taken of the same inputs, with as many runs, on the same machine and version.
    #[arg(long, requires = "output")]
    pub keep: bool,
    /// Runs of each measurement.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub runs: u32,
}

/// Arguments of `isotherm bench placements`.
#[derive(Debug, Args)]
pub struct BenchPlacements {
    /// Folder for devices and placements.json.
    #[arg(short, long, value_name = "DIR", default_value = "isotherm-placements")]
    pub output: PathBuf,
    /// The first model; a second of another geometry is made.
    #[arg(long, value_name = "FILE|NAME", default_value = "smollm2")]
    pub model: String,
    /// Placements to run, over all models and loads.
    #[arg(long, value_name = "N", default_value_t = 45)]
    pub placements: u32,
    /// Runs of each.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub runs: u32,
    /// Factor by which the device `cpu2` is slowed.
    #[arg(long, value_name = "FACTOR", default_value_t = 2.0)]
    pub slow: f64,
    /// Time of each probe.
    #[arg(long, value_name = "TIME", default_value = "25 s")]
    pub budget: Seconds,
    /// Backends whose devices take part, such as `cpu,wgpu`; by default the processor and every card.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub backends: Vec<String>,
    /// Take the devices that an earlier run of this command measured into the same folder, where they are there.
    #[arg(long)]
    pub reuse: bool,
    /// Leave out slowing a device and probing it again.
    #[arg(long)]
    pub skip_slower: bool,
    /// Seed of placements and prompts.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
}

/// Arguments of `isotherm bench probe`.
#[derive(Debug, Args)]
pub struct BenchProbe {
    /// Folder for the devices of each probe and probe.json.
    #[arg(short, long, value_name = "DIR", default_value = "isotherm-probe")]
    pub output: PathBuf,
    /// Model whose layers are timed.
    #[arg(long, value_name = "FILE|NAME", default_value = "smollm2")]
    pub model: String,
    /// Probes.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub runs: u32,
    /// CPU devices beside `cpu`, as for `isotherm probe`.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub split: u32,
    /// Time of each probe.
    #[arg(long, value_name = "TIME", default_value = "30 s")]
    pub budget: Seconds,
    /// Time for which each device is looked at apart after each probe, through all layers and again through half of them.
    #[arg(long, value_name = "TIME", default_value = "3 s")]
    pub look: Seconds,
    /// Backends to measure, as for `isotherm probe`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub backends: Vec<String>,
    /// Slow a device, as for `isotherm probe`: `cpu0=2`.
    #[arg(long, value_name = "DEVICE=FACTOR", value_parser = super::slowed)]
    pub slow: Vec<(String, f64)>,
}
