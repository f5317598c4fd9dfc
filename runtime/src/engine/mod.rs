//! Executes a model in stages: one range of layers per device, activations handed from one to the next.

mod brought;
pub(crate) mod cache;
mod channel;
mod device;
mod device_stage;
mod gate;
pub(crate) mod pass;
pub(crate) mod pipeline;
pub(crate) mod sampling;
pub(crate) mod shaped;
pub(crate) mod shelf;
pub(crate) mod stage;
mod text;
pub(crate) mod weights;

pub use device::{Card, CpuDevice, Kernels};
pub use gate::GateError;
pub use pipeline::StartError;
pub use sampling::{Likelihood, Sampling};
pub use shelf::Offloaded;
pub use text::{Cut, Runner, RunnerError};
