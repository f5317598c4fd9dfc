//! Profiles and runs of LLMServingSim (casys-kaist/LLMServingSim, MIT): operator times that its profiler took out of
//! vLLM, and the requests of a real vLLM run beside them.
//!
//! A profile is a folder `HARDWARE/MODEL/VARIANT` with `meta.yaml` and, for each degree of tensor parallelism, `tpN`
//! with `dense.csv` (layer, tokens), `per_sequence.csv` (layer, sequences), `attention.csv` (four counts), for models
//! with experts `moe.csv` (tokens, activated_experts) and, where uneven batches were measured, `skew_fit.csv`. Times
//! are microseconds of one layer. Columns are found by name; what is absent is absent. Files are read elsewhere; here
//! text becomes types.

mod catalogue;
mod compare;
mod meta;
mod run;
mod scenario;
mod table;

pub use catalogue::{Assembly, Catalogue, Link, ProfileTexts, Residuals};
pub use compare::{METRICS, Metric, PerRequest, Row, Times, per_request, rows, widen};
pub use meta::{ProfileMeta, SkewMeta, read_link};
pub use run::{
    Engine, MeasuredRequest, ReplayRequest, config_link, engine, measured, other_prediction, prompt_names, workload,
};
pub use scenario::{DeviceFacts, scenario};

/// Why a file of a profile or a run cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LlmServingSimError {
    /// A file that is needed is not there.
    #[error("{file} is missing; {remedy}")]
    Missing {
        /// The file.
        file: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A table lacks a column.
    #[error("{file} has no column {column:?}; its columns are {found}")]
    Column {
        /// The file.
        file: &'static str,
        /// The column.
        column: &'static str,
        /// Those it has.
        found: String,
    },
    /// A line cannot be read.
    #[error("{file}, line {line}: {problem}")]
    Line {
        /// The file.
        file: &'static str,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The workload cannot be read.
    #[error("the workload, {0}")]
    Workload(crate::workload::replay::ReplayError),
    /// An operator that every pass needs was not measured.
    #[error("{file} holds no times of {operator:?}, which every pass of this model needs")]
    Operator {
        /// The file.
        file: &'static str,
        /// The operator.
        operator: String,
    },
    /// A table cannot be interpolated.
    #[error("{file}: {source}")]
    Table {
        /// The file.
        file: &'static str,
        /// Why.
        source: crate::cost::TableError,
    },
    /// A document is not what it should be.
    #[error("{file}: {problem}")]
    Document {
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Something of the run that cannot be predicted.
    #[error("the run has {what}, which is not predicted; {remedy}")]
    Unsupported {
        /// What.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
}

#[cfg(test)]
mod tests;
