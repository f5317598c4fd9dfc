//! From a file to mapped tensors, tokens and chat text.

#[cfg(not(target_family = "wasm"))]
pub mod atomic_file;
#[cfg(not(target_family = "wasm"))]
pub mod chat;
pub mod format;
pub mod geometry;
pub mod gguf;
#[cfg(not(target_family = "wasm"))]
pub mod library;
#[cfg(not(target_family = "wasm"))]
pub mod store;
#[cfg(not(target_family = "wasm"))]
pub mod synth;
#[cfg(not(target_family = "wasm"))]
pub mod tokenizer;

pub use self::geometry::Geometry;
