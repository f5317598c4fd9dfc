//! Devices behind one contract: memory, a closed set of model operations, events, sensors.
//!
//! A [`Platform`] is one vendor interface (the processor, wgpu, CUDA): it lists devices and opens them. A [`Backend`]
//! is one opened device with one queue that works in order. Nobody calls a backend but [`Device`], which checks every
//! argument once, counts what is alive and what was moved, and answers a lost device at once. Backends trust it.
//!
//! [`conformance`] is the contract as a program: every backend and every device must pass it, and passing it on a card
//! is what makes that card supported.

#[cfg(not(target_family = "wasm"))]
pub mod bench;
mod check;
#[cfg(not(target_family = "wasm"))]
pub mod conformance;
mod contract;
#[cfg(not(target_family = "wasm"))]
pub mod cuda;
pub mod decoder;
mod device;
mod error;
mod faulty;
mod op;
#[cfg(not(target_family = "wasm"))]
pub mod peers;
#[cfg(not(target_family = "wasm"))]
pub mod roofline;
#[cfg(not(target_family = "wasm"))]
pub mod routes;
pub mod scalar;
#[cfg(not(target_family = "wasm"))]
pub mod self_test;
pub mod wgpu;

pub use contract::{
    Backend, Buffer, BufferId, Counters, DeviceInfo, Event, Hardware, HostBytes, Limits, Matrix, MatrixId, MemoryInfo,
    PeerRoute, Platform, Readings,
};
pub use device::{Allocation, Device, LaidOut, Live};
pub use error::{DeviceError, Refusal};
pub use faulty::{altering, clipping, losing};
pub use op::{Cache, Heads, Input, NormBy, Op, Places, Rope, Store, View};

pub use crate::cpu::Arithmetic;
/// Positions in a block of the key-value cache.
pub const CACHE_BLOCK: usize = crate::cpu::CACHE_BLOCK;
