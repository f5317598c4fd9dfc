//! Arguments of `isotherm batch` and `isotherm query`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::str::FromStr;

/// Arguments of `isotherm batch`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Batch {
    /// What else to do with a batch.
    #[command(subcommand)]
    pub command: Option<BatchCommand>,
    /// Folder with scenarios; folders below it are searched.
    #[arg(required = true)]
    pub directory: Option<PathBuf>,
    /// Folder for results, plans, simulations and scenarios.
    #[arg(short, long, value_name = "DIR", required = true)]
    pub output: Option<PathBuf>,
    /// How each point is planned and simulated.
    #[command(flatten)]
    pub how: BatchHow,
    /// Points planned at once; by default one per core.
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Only the points of shard I of N, from 0; `auto/N` takes I from SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX.
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
}

/// Subcommands of `isotherm batch`.
#[derive(Debug, Subcommand)]
pub enum BatchCommand {
    /// Join the shards of a batch into one table; refuses gaps, duplicates and shards of different versions.
    Merge(BatchMerge),
    /// Write the job file with which a cluster or GNU parallel runs the shards of a batch.
    Emit(BatchEmit),
    /// Copy what belongs to one point into a folder for `isotherm report`, `explain`, `check` and `seal`.
    Extract(BatchExtract),
}

/// What decides the results of a batch, beside its scenarios.
#[derive(Debug, Clone, Args)]
pub struct BatchHow {
    /// Number of simulated runs of each plan.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub seeds: u32,
    /// Requests of each run, in place of the scenario's.
    #[arg(long, value_name = "N")]
    pub requests: Option<u32>,
    /// A plan is good enough when no plan can be better by more than this share.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    pub gap: f64,
    /// Most branch-and-bound nodes of one search; all searches of a point together do no more work than so many nodes of a
    /// small program. With the gap, what ends one. Time never does, so that results repeat.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub nodes: u64,
    /// Rows of one file of results.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub part_rows: u32,
}

/// One shard of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which one, from 0; none where the environment says so.
    pub index: Option<u32>,
    /// How many there are.
    pub of: u32,
}

/// Most shards of a batch: Slurm's own limit for array jobs is of this order.
pub const SHARDS_MAX: u32 = 100_000;

impl FromStr for Shard {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no shard; write 0/8 for the first of eight, up to 7/8, or auto/8");
        let (index, of) = text.split_once('/').ok_or_else(wrong)?;
        let of: u32 = of.parse().ok().filter(|n| (1..=SHARDS_MAX).contains(n)).ok_or_else(wrong)?;
        let index = if index == "auto" { None } else { Some(index.parse::<u32>().map_err(|_| wrong())?) };
        if index.is_some_and(|index| index >= of) {
            return Err(wrong());
        }
        Ok(Self { index, of })
    }
}

/// Arguments of `isotherm batch merge`.
#[derive(Debug, Args)]
pub struct BatchMerge {
    /// Folder of the batch: what its shards were given as `-o`.
    pub output: PathBuf,
    /// The number of shards, where the folder holds those of several divisions.
    #[arg(long, value_name = "N")]
    pub of: Option<u32>,
}

/// What runs the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BatchEngine {
    /// An array job for Slurm's sbatch.
    Slurm,
    /// An indexed Job for Kubernetes.
    K8s,
    /// A shell script around GNU parallel.
    Parallel,
}

/// Arguments of `isotherm batch emit`.
#[derive(Debug, Args)]
pub struct BatchEmit {
    /// What runs the shards.
    #[arg(value_enum)]
    pub engine: BatchEngine,
    /// Folder with scenarios, as the machines see it.
    pub directory: PathBuf,
    /// Folder for the batch, as the machines see it; one that all of them share.
    #[arg(long = "into", value_name = "DIR")]
    pub into: PathBuf,
    /// Number of shards.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub shards: u32,
    /// How each point is planned and simulated.
    #[command(flatten)]
    pub how: BatchHow,
    /// Cores of each shard.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub cores: u32,
    /// The program, as the machines see it.
    #[arg(long, value_name = "FILE", default_value = "isotherm")]
    pub program: String,
    /// Container image, for Kubernetes.
    #[arg(long, value_name = "IMAGE", default_value = "isotherm:latest")]
    pub image: String,
    /// File to write; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `isotherm batch extract`.
#[derive(Debug, Args)]
pub struct BatchExtract {
    /// Folder of the batch.
    pub batch: PathBuf,
    /// The point: the beginning of its digest in the column `point`, or SCENARIO#NUMBER.
    pub point: String,
    /// Folder to write to.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

/// Arguments of `isotherm query`.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// Folder of a batch, or a Parquet file of isotherm's.
    pub source: PathBuf,
    /// The question, in SQL: SELECT ... FROM results WHERE ... ; `FROM solve` asks how long planning took.
    pub question: Option<String>,
    /// List the columns there are instead.
    #[arg(long, conflicts_with = "question")]
    pub columns: bool,
    /// File for the answer too; its ending says how: .csv or .parquet.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}
