#![forbid(unsafe_code)]
//! The nouns that cross rooms and the rules they obey: no input or output, no clock, no threads.

pub mod artefact;
mod calendar;
pub mod check;
pub mod conditions;
pub mod cost;
pub mod device;
pub mod digest;
mod exact;
pub mod figure;
pub mod format;
pub mod frontier;
pub mod graph;
pub mod ids;
pub mod import;
pub mod model;
pub mod objective;
pub mod offload;
pub mod percentile;
pub mod plan;
pub mod power;
pub mod problem;
pub mod query;
pub mod receipt;
pub mod record;
pub mod scenario;
pub mod serving;
pub mod spending;
pub mod sustained;
pub mod sweep;
pub mod text;
pub mod thermal;
pub mod trace;
pub mod units;
pub mod workload;
