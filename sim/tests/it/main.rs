//! Integration tests of the simulator: hand formulas, queueing theory, conservation, determinism.

mod accounts;
mod contention;
mod determinism;
mod engines;
mod failures;
mod heat;
mod llmservingsim;
mod material;
mod moves;
mod peers;
mod pipelines;
mod pools;
mod queueing;
mod refusals;
mod sensitivity;
mod serving;
mod theory;
