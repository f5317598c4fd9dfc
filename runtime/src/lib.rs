//! Probes devices and executes plans on them.

pub mod model;
