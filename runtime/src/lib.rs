//! Probes devices and executes plans on them.

pub mod cpu;
pub mod engine;
pub mod execute;
pub mod host;
pub mod model;
pub mod probe;
