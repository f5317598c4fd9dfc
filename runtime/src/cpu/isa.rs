//! Which instructions this processor has, and how a kernel is called with them.

use super::lanes::{Lanes, Portable};

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain loops: any processor, slow, and the oracle of the others.
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// NEON of 64-bit ARM, which every such processor has.
    Neon,
}

impl Isa {
    /// The best set that this processor has.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self::Portable)
    }

    /// Every set that this processor has, slowest first. The first is always [`Isa::Portable`].
    #[must_use]
    pub fn available() -> &'static [Self] {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            let avx512 =
                has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx512vnni");
            if avx2 && avx512 {
                return &[Self::Portable, Self::Avx2, Self::Avx512];
            }
            if avx2 {
                return &[Self::Portable, Self::Avx2];
            }
        }
        #[cfg(target_arch = "aarch64")]
        return &[Self::Portable, Self::Neon];
        #[cfg(not(target_arch = "aarch64"))]
        &[Self::Portable]
    }

    /// Its name in records: `portable`, `avx2`, `avx512`, `neon`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }
}

/// One kernel with its arguments.
pub(super) trait Kernel {
    /// What it returns.
    type Output;

    /// Runs with the lanes of one instruction set.
    ///
    /// # Safety
    /// The processor has the instruction set, and the pointers among the arguments hold what the kernel's own
    /// description asks.
    unsafe fn run<V: Lanes>(self) -> Self::Output;
}

/// Runs a kernel with an instruction set.
///
/// # Safety
/// The processor has the instruction set ([`Isa::available`]), and the kernel's own conditions hold.
pub(super) unsafe fn call<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    // SAFETY: handed on to the caller; each function is compiled for the instruction set that its lanes need.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon(kernel),
            _ => portable(kernel),
        }
    }
}

/// Runs a kernel with plain loops.
///
/// # Safety
/// The kernel's own conditions hold.
pub(super) unsafe fn portable<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller's promise, handed on.
    unsafe { kernel.run::<Portable>() }
}

/// Runs a kernel with AVX-512.
///
/// # Safety
/// As [`call`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller's promise, handed on.
    unsafe { kernel.run::<super::avx512::Avx512>() }
}

/// Runs a kernel with AVX2.
///
/// # Safety
/// As [`call`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller's promise, handed on.
    unsafe { kernel.run::<super::avx2::Avx2>() }
}

/// Runs a kernel with NEON.
///
/// # Safety
/// As [`call`].
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(super) unsafe fn neon<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller's promise, handed on.
    unsafe { kernel.run::<super::neon::Neon>() }
}
