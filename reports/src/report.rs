//! What a page is made from: finished artefacts, filled in by the command line, which reads them.

use isotherm_core::digest::Digest;
use isotherm_core::frontier::Frontier;
use isotherm_core::graph::DeviceGraph;
use isotherm_core::model::Model;
use isotherm_core::plan::Plan;
use isotherm_core::record::{RunRecord, SimulationReport, TruthRow};

/// Everything that one page shows.
#[derive(Debug, Clone)]
pub struct Report {
    /// Title of the page.
    pub title: String,
    /// Name of the scenario.
    pub scenario: String,
    /// The question that the scenario asks, in words; may be empty.
    pub question: String,
    /// A banner above everything, for example that the data are made up.
    pub notice: Option<String>,
    /// Sentences to add to the verdict, for example what a tour checked besides.
    pub notes: Vec<String>,
    /// The model, where its file was at hand: it sizes the messages between stages.
    pub model: Option<Model>,
    /// Devices and links, and the file they came from.
    pub devices: Stored<DeviceGraph>,
    /// How a run of many requests is summed up as one figure per metric.
    pub run_statistic: RunStatistic,
    /// The plans, usually one per number of stages, in the order to show them.
    pub cases: Vec<Case>,
    /// Plans of the same question of which none is better than another; absent where nobody asked.
    pub frontier: Option<Stored<Frontier>>,
    /// Runs that were begun and gave no record.
    pub failures: Vec<Failure>,
    /// What was signed and logged.
    pub evidence: Evidence,
    /// Where it all happened.
    pub environment: Environment,
    /// The command lines that made the artefacts, in order.
    pub commands: Vec<Command>,
    /// Whether nobody recorded them, so that they were put together from what the artefacts say.
    pub commands_inferred: bool,
}

/// An artefact as it was stored.
#[derive(Debug, Clone)]
pub struct Stored<T> {
    /// Name of its file, a hint for people; no path of a particular machine.
    pub file: String,
    /// Digest of the file's bytes.
    pub digest: Digest,
    /// What was read from it.
    pub value: T,
}

/// One plan, what was predicted of it, and what came of it.
#[derive(Debug, Clone)]
pub struct Case {
    /// The plan.
    pub plan: Plan,
    /// Figures predicted before any run, as sealed; absent where nothing was sealed.
    pub sealed: Option<Sealed>,
    /// The simulation, with its trace where it was kept.
    pub simulation: Option<Stored<SimulationReport>>,
    /// Every run made, in order, the worst included.
    pub runs: Vec<Stored<RunRecord>>,
    /// Predicted beside measured figures.
    pub truth: Vec<TruthRow>,
}

/// Figures taken from a sealed manifest, never recomputed.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    /// The manifest that holds them.
    pub manifest: Digest,
    /// The figures.
    pub figures: Vec<SealedFigure>,
}

/// One predicted figure.
#[derive(Debug, Clone, PartialEq)]
pub struct SealedFigure {
    /// Named as in [`TruthRow::metric`].
    pub metric: String,
    /// In seconds, or tokens per second.
    pub value: f64,
}

/// Which statistic over its requests stands for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatistic {
    /// The arithmetic mean.
    Mean,
    /// The median.
    Median,
}

/// A run that gave no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which run: plan, time.
    pub run: String,
    /// What went wrong.
    pub reason: String,
}

/// What was signed and logged.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The manifests.
    pub manifests: Vec<Manifest>,
    /// Entries of the transparency log that concern this report, in order of their index.
    pub log: Vec<LogEntry>,
    /// Signed checkpoint of the log, as text.
    pub checkpoint: Option<String>,
    /// Files that stand nowhere else in the report: scenario, model.
    pub files: Vec<FileDigest>,
}

/// Facts of one sealed manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Name of its file.
    pub file: String,
    /// Digest of its file.
    pub digest: Digest,
    /// Names of the distinct keys whose signatures hold.
    pub signers: Vec<String>,
    /// Signers it needs.
    pub threshold: u32,
    /// Begin of validity, RFC 3339.
    pub not_before: Option<String>,
    /// End of validity, RFC 3339.
    pub expires: Option<String>,
    /// What verifying it said; absent where nobody did.
    pub verification: Option<Result<(), String>>,
}

/// What an entry of the log records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Devices were measured.
    Probe,
    /// A plan was made.
    Plan,
    /// A plan was simulated.
    Simulate,
    /// A manifest, with its predictions, was signed.
    Seal,
    /// A plan was executed.
    Run,
    /// Something else, in words.
    Other(String),
}

/// One entry of the transparency log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Position in the log.
    pub index: u64,
    /// Time it carries, RFC 3339.
    pub time: String,
    /// What it records.
    pub event: Event,
    /// Digest of what it is about: a devices file, a plan, a manifest, a run record.
    pub subject: Option<Digest>,
}

/// A file and its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDigest {
    /// What it is: `scenario`, `model`.
    pub role: String,
    /// Its name.
    pub file: String,
    /// Digest of its bytes.
    pub digest: Digest,
}

/// Where it all happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// Version of isotherm that wrote the page.
    pub tool_version: String,
    /// Operating system kernel.
    pub kernel: Option<String>,
    /// Load of the machine during the runs, in words.
    pub load: Option<String>,
    /// More facts of the host: name and value.
    pub host: Vec<(String, String)>,
}

/// What a command line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// All of it.
    Tour,
    /// Measures devices.
    Probe,
    /// Makes a plan.
    Plan,
    /// Predicts.
    Simulate,
    /// Signs.
    Seal,
    /// Executes.
    Run,
    /// Writes this page.
    Report,
}

/// A command line that anybody can run again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What it is for.
    pub step: Step,
    /// The line.
    pub line: String,
}
