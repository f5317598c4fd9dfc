//! The integration tests of the runtime: one binary, one module per subject.

mod gguf;
mod material;
