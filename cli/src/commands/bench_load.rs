//! `isotherm bench all`: figures under the load scenarios of MLPerf, in one form for all parts of isotherm.
//!
//! A query is one plan, one simulation, one short answer of a model, one copy. Queries come one after another
//! (SingleStream), eight at a time (MultiStream), at random times at a rate that the tail bears (Server), or all at once
//! (Offline). Each figure is taken in several independent runs after a warm-up; what is reported is the median over runs
//! with a bootstrap interval. A percentile for which there are too few queries by MLPerf's early-stopping rule is not
//! reported. A run during which the processor was throttled counts apart.

mod criterion;
mod load;
mod page;
mod statistics;
mod subjects;
mod system;

pub use page::{read, sheet};
pub use statistics::{interval, mean, mean_interval, median, ratio_interval};
pub use system::System;

use crate::args::BenchLoad;
use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::ui::Ui;
use isotherm_core::artefact::TOOL_VERSION;
use serde::{Deserialize, Serialize};

/// Schema of a record.
pub const BENCH_SCHEMA: &str = "isotherm.bench/v1";
/// Fewest runs of a figure.
const RUNS_MIN: u32 = 5;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Subject {
    /// Plans of generated piles.
    Planner,
    /// Simulations of one of them.
    Sim,
    /// Answers of a small model on this host's cores.
    Runtime,
    /// Memory of this host.
    Device,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Planner, Self::Sim, Self::Runtime, Self::Device];

    const fn name(self) -> &'static str {
        match self {
            Self::Planner => "planner",
            Self::Sim => "sim",
            Self::Runtime => "runtime",
            Self::Device => "device",
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether more or less of a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Less, as of time.
    Lower,
    /// More, as of a rate.
    Higher,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// What was measured.
    pub subject: String,
    /// Under which load: `single_stream`, `multi_stream`, `server`, `offline`, `criterion`.
    pub scenario: String,
    /// What a query is.
    pub query: String,
    /// The figure.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// Its value in each run that was not throttled.
    pub runs: Vec<f64>,
    /// Its value in each run during which the processor was throttled; never mixed with the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttled_runs: Vec<f64>,
    /// Median over runs; absent without a run, or with too few queries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median: Option<f64>,
    /// Bootstrap interval of the median, 95 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
    /// Queries of all runs together.
    pub queries: u64,
    /// Queries that this figure needs; absent where it needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries_min: Option<u64>,
    /// What is to be known besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A benchmark's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub schema: String,
    pub tool_version: String,
    /// When it began, RFC 3339.
    pub started: String,
    pub seed: u64,
    pub system: System,
    pub cases: Vec<Case>,
    pub notes: Vec<String>,
    /// The command line.
    pub command: String,
}

/// Runs the command.
pub fn run(ui: &Ui, args: &BenchLoad) -> Done {
    let subjects = &args.only;
    if args.runs < RUNS_MIN || args.span.value() <= 0.0 {
        return Err(Failure::new(Code::Usage, format!("--runs must be at least {RUNS_MIN} and --span above zero")));
    }
    crate::access::timing(&["cpu"])?;
    let started = jiff::Timestamp::now().to_string();
    let system = System::read();
    let mut notes = system.notes();
    let mut cases = Vec::new();
    for subject in subjects {
        ui.note(format!("{} ...", subject.name()));
        subjects::measure(ui, *subject, args, &mut cases, &mut notes)?;
    }
    let folder = args.criterion.clone().unwrap_or_else(|| "target/criterion".into());
    if folder.is_dir() {
        cases.extend(criterion::cases(&folder)?);
    } else if args.criterion.is_some() {
        return Err(Failure::file(&folder, "is no folder of criterion's results"));
    }
    let only: Vec<&str> = subjects.iter().map(|subject| subject.name()).collect();
    let command = format!(
        "isotherm bench all --only {} -o {} --runs {} --span '{}' --seed {}",
        only.join(","),
        args.output.display(),
        args.runs,
        args.span,
        args.seed
    );
    let (schema, tool_version) = (BENCH_SCHEMA.to_owned(), TOOL_VERSION.to_owned());
    let record = Record { schema, tool_version, started, seed: args.seed, system, cases, notes, command };
    files::write_json(&args.output.join("bench.json"), &record)?;
    let page = args.output.join("report.html");
    files::write(&page, isotherm_reports::render_sheet(&page::of(&record, &args.output)?).as_bytes())?;
    ui.result(&record, || format!("{}\n  {}\n", page::text(&record), page.display()))
}
