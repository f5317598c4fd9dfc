//! The integration tests of the runtime: one binary, one module per subject.

mod backend;
mod chat;
mod device_stage;
#[cfg(unix)]
mod discover;
mod emulated;
mod emulated_faults;
mod emulated_model;
mod engine;
mod execute;
mod format;
mod geometry;
mod gguf;
mod govern;
mod govern_logs;
mod host;
#[cfg(unix)]
mod host_tree;
#[cfg(unix)]
mod keeper;
mod kernels;
mod link;
mod material;
mod mixed;
mod mutation;
#[cfg(unix)]
mod nvml;
mod offload;
mod probe;
mod store;
mod synth;
#[cfg(unix)]
mod telemetry;
mod tokenizer;
mod truth;
