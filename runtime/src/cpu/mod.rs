//! The processor as a device: packed weights, kernels for its instruction sets, and a team of pinned threads.

pub(crate) mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bandwidth;
pub(crate) mod element;
pub(crate) mod input;
mod isa;
mod lanes;
pub(crate) mod memory;
#[cfg(target_arch = "aarch64")]
mod neon;
pub(crate) mod pack;
pub(crate) mod product;
pub mod reference;
pub(crate) mod share;
pub(crate) mod team;

#[cfg(test)]
mod tests;

pub use bandwidth::read_bandwidth;
pub use isa::Isa;

/// In which arithmetic weights and activations are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// Weights widened, activations unrounded, single-precision fused multiply-adds.
    F32,
    /// Activations rounded to eight bits in blocks of 32 where the weights are quantised; integer products.
    Int8,
}

impl Arithmetic {
    /// Its name in plans and records: `f32`, `int8`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        }
    }
}
