//! Probes devices and executes plans on them.

pub mod backend;
#[allow(clippy::needless_range_loop, reason = "kernels index several arrays by the same lane, row and block numbers")]
pub mod cpu;
pub mod discover;
pub mod engine;
pub mod execute;
pub mod govern;
pub mod host;
pub mod link;
pub mod model;
pub mod probe;
pub mod telemetry;
