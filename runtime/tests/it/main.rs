//! The integration tests of the runtime: one binary, one module per subject.

mod format;
mod geometry;
mod gguf;
mod material;
mod mutation;
mod tokenizer;
