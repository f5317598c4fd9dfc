#![forbid(unsafe_code)]
//! Seals manifests, opens only what verifies, and keeps the append-only log.

pub mod canonical;
pub mod envelope;
pub mod figures;
mod hex;
pub mod keys;
pub mod log;
pub mod manifest;
pub mod open;
pub mod run;
pub mod seal;
pub mod statement;
mod storage;
pub mod text;
pub mod time;

pub use open::{Expectations, Inspected, OpenError, RunExpectations, Verified, inspect, open, open_run};
pub use seal::{SealError, Sealed, approve, seal};
