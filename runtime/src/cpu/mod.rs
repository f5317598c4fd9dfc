//! The processor as a device: packed weights, kernels for its instruction sets, and a team of pinned threads.

#[cfg(not(target_family = "wasm"))]
pub(crate) mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(not(target_family = "wasm"))]
mod bandwidth;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod element;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod input;
#[cfg(not(target_family = "wasm"))]
mod isa;
#[cfg(not(target_family = "wasm"))]
mod lanes;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod memory;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod neighbours;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod pack;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod product;
#[cfg(not(target_family = "wasm"))]
pub mod reference;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod share;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod team;

#[cfg(test)]
mod tests;

#[cfg(not(target_family = "wasm"))]
pub use bandwidth::read_bandwidth;
#[cfg(not(target_family = "wasm"))]
pub use isa::Isa;

/// Positions in a block of the key-value cache.
pub(crate) const CACHE_BLOCK: usize = 16;

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
