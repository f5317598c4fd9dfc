//! From a file to mapped tensors, tokens and chat text.

pub mod format;
pub mod gguf;
