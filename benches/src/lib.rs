#![forbid(unsafe_code)]
//! Development-only benchmarks and peer comparisons.

pub mod clusters;
