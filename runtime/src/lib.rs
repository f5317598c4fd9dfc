//! Probes devices and executes plans on them.
//!
//! For WebAssembly only what needs no file, no thread and no socket is compiled: the contract, the wgpu backend, the
//! reference device, and models from bytes.

pub mod backend;
#[allow(clippy::needless_range_loop, reason = "kernels index several arrays by the same lane, row and block numbers")]
pub mod cpu;
#[cfg(not(target_family = "wasm"))]
pub mod discover;
#[cfg(not(target_family = "wasm"))]
pub mod engine;
#[cfg(not(target_family = "wasm"))]
pub mod execute;
#[cfg(not(target_family = "wasm"))]
pub mod govern;
#[cfg(not(target_family = "wasm"))]
pub mod host;
#[cfg(not(target_family = "wasm"))]
pub mod link;
pub mod model;
#[cfg(not(target_family = "wasm"))]
pub mod probe;
#[cfg(not(target_family = "wasm"))]
pub mod telemetry;
