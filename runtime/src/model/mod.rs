//! From a file to mapped tensors, tokens and chat text.

pub mod atomic_file;
pub mod chat;
pub mod format;
pub mod geometry;
pub mod gguf;
pub mod library;
pub mod store;
pub mod synth;
pub mod tokenizer;

pub use self::geometry::Geometry;
