//! One file per command.

pub mod access;
pub mod advise;
pub mod audit;
pub mod batch;
pub mod bench_planner;
pub mod bench_sim;
pub mod devices;
pub mod explain;
pub mod export;
pub mod fit_thermal;
pub mod generate;
pub mod import;
pub mod keys;
pub mod model;
pub mod plan;
pub mod probe;
pub mod query;
pub mod report;
pub mod run;
pub mod scenario;
pub mod seal;
pub mod simulate;
pub mod tour;
pub mod truth;
pub mod validate;
pub mod verify;
