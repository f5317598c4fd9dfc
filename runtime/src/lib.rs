//! Probes devices and executes plans on them.

pub mod host;
pub mod model;
