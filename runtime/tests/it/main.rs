//! The integration tests of the runtime: one binary, one module per subject.

mod backend;
mod chat;
mod device_stage;
mod emulated;
mod emulated_faults;
mod emulated_model;
mod engine;
mod execute;
mod format;
mod geometry;
mod gguf;
mod host;
mod kernels;
mod material;
mod mutation;
mod probe;
mod store;
mod synth;
mod tokenizer;
