//! Sixteen lanes as four NEON registers of 64-bit ARM.

use super::lanes::Lanes;
use std::arch::aarch64::*;
use std::arch::asm;

/// Lanes 0..4, 4..8, 8..12 and 12..16.
#[derive(Clone, Copy)]
pub(super) struct Neon([float32x4_t; 4]);

/// Four registers of four words.
type Quads = [int32x4_t; 4];

/// Applies a function to corresponding registers.
macro_rules! each {
    ($a:expr, $b:expr, $f:expr) => {{
        let (a, b) = ($a, $b);
        Neon([$f(a.0[0], b.0[0]), $f(a.0[1], b.0[1]), $f(a.0[2], b.0[2]), $f(a.0[3], b.0[3])])
    }};
}

/// Applies a function to each of four registers.
macro_rules! quads {
    ($words:expr, $f:expr) => {{
        let words = $words;
        [$f(words[0]), $f(words[1]), $f(words[2]), $f(words[3])]
    }};
}

/// Four half-precision numbers, widened.
///
/// # Safety
/// None beyond the instruction set: registers only.
#[inline(always)]
unsafe fn widened(halves: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: one instruction of the base set, on registers. The intrinsic needs a type that stable Rust does not have.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) halves, options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// The sum of products of four signed bytes each, added to each word. Products are at most 128 * 127 in magnitude, two of
/// them fit sixteen bits.
///
/// # Safety
/// None beyond the instruction set: registers only.
#[inline(always)]
unsafe fn dot(sum: int32x4_t, weights: int32x4_t, other: int8x16_t) -> int32x4_t {
    unsafe {
        let weights = vreinterpretq_s8_s32(weights);
        let low = vmull_s8(vget_low_s8(weights), vget_low_s8(other));
        let high = vmull_high_s8(weights, other);
        vpadalq_s16(sum, vpaddq_s16(low, high))
    }
}

/// Sixteen signed 16-bit numbers as words.
///
/// # Safety
/// None beyond the instruction set: registers only.
#[inline(always)]
unsafe fn words_of(low: int16x8_t, high: int16x8_t) -> Quads {
    unsafe { [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)] }
}

// SAFETY of the blocks below: the contract of the trait gives pointers valid for sixteen elements; loads and stores need no
// alignment; every 64-bit ARM processor has these instructions.
impl Lanes for Neon {
    type Words = Quads;
    const BYTE_OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        unsafe { asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly)) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([unsafe { vdupq_n_f32(value) }; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self([vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))]) }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u8) -> Self {
        unsafe {
            let (low, high) = (vld1q_u8(from), vld1q_u8(from.add(16)));
            let (low, high) = (vreinterpretq_u16_u8(low), vreinterpretq_u16_u8(high));
            Self([
                widened(vget_low_u16(low)),
                widened(vget_high_u16(low)),
                widened(vget_low_u16(high)),
                widened(vget_high_u16(high)),
            ])
        }
    }
    #[inline(always)]
    unsafe fn load_brain(from: *const u8) -> Self {
        unsafe {
            let (low, high) = (vld1q_u8(from), vld1q_u8(from.add(16)));
            let (low, high) = (vreinterpretq_u16_u8(low), vreinterpretq_u16_u8(high));
            let wide = |half: uint16x4_t| vreinterpretq_f32_u32(vshll_n_u16::<16>(half));
            Self([
                wide(vget_low_u16(low)),
                wide(vget_high_u16(low)),
                wide(vget_low_u16(high)),
                wide(vget_high_u16(high)),
            ])
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            vst1q_f32(to, self.0[0]);
            vst1q_f32(to.add(4), self.0[1]);
            vst1q_f32(to.add(8), self.0[2]);
            vst1q_f32(to.add(12), self.0[3]);
        }
    }
    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        unsafe {
            Self([
                vfmaq_f32(addend.0[0], self.0[0], factor.0[0]),
                vfmaq_f32(addend.0[1], self.0[1], factor.0[1]),
                vfmaq_f32(addend.0[2], self.0[2], factor.0[2]),
                vfmaq_f32(addend.0[3], self.0[3], factor.0[3]),
            ])
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { each!(self, other, vaddq_f32) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { each!(self, other, vsubq_f32) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { each!(self, other, vmulq_f32) }
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        unsafe { each!(self, other, vdivq_f32) }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // A choice, not the instruction of that name: of two zeros it must give the one that the others give.
        unsafe { each!(self, other, |a, b| vbslq_f32(vcgtq_f32(a, b), a, b)) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        unsafe { each!(self, other, |a, b| vbslq_f32(vcltq_f32(a, b), a, b)) }
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(unsafe { quads!(self.0, vrndnq_f32) })
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        unsafe {
            let power = |n: float32x4_t| {
                let biased = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
            };
            Self(quads!(self.0, power))
        }
    }
    #[inline(always)]
    unsafe fn load_words(from: *const u8) -> Quads {
        unsafe {
            let four = |at: usize| vreinterpretq_s32_u8(vld1q_u8(from.add(at)));
            [four(0), four(16), four(32), four(48)]
        }
    }
    #[inline(always)]
    unsafe fn splat_words(value: i32) -> Quads {
        [unsafe { vdupq_n_s32(value) }; 4]
    }
    #[inline(always)]
    unsafe fn from_words(words: Quads) -> Self {
        Self(unsafe { quads!(words, vcvtq_f32_s32) })
    }
    #[inline(always)]
    unsafe fn nibble<const I: u32>(words: Quads) -> Self {
        unsafe {
            Self::from_words(if I == 7 { Self::moved_down(words, 28) } else { Self::masked(words, 15 << (4 * I)) })
        }
    }
    #[inline(always)]
    unsafe fn byte<const I: u32>(words: Quads) -> Self {
        unsafe {
            let up = Self::moved_up(words, 24 - 8 * I);
            Self::from_words(Self::masked(up, 0xff << 24))
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self {
        unsafe {
            let bytes = vld1q_u8(from);
            let low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes)));
            let high = vreinterpretq_s16_u16(vmovl_high_u8(bytes));
            Self::from_words(words_of(low, high))
        }
    }
    #[inline(always)]
    unsafe fn load_signed_bytes(from: *const u8) -> Self {
        unsafe {
            let bytes = vreinterpretq_s8_u8(vld1q_u8(from));
            Self::from_words(words_of(vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)))
        }
    }
    #[inline(always)]
    unsafe fn moved_up(words: Quads, bits: u32) -> Quads {
        unsafe {
            let bits = vdupq_n_s32(bits as i32);
            quads!(words, |word| vshlq_s32(word, bits))
        }
    }
    #[inline(always)]
    unsafe fn moved_down(words: Quads, bits: u32) -> Quads {
        unsafe {
            let bits = vdupq_n_s32(-(bits as i32));
            quads!(words, |word| vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(word), bits)))
        }
    }
    #[inline(always)]
    unsafe fn masked(words: Quads, mask: i32) -> Quads {
        unsafe {
            let mask = vdupq_n_s32(mask);
            quads!(words, |word| vandq_s32(word, mask))
        }
    }
    #[inline(always)]
    unsafe fn either(words: Quads, other: Quads) -> Quads {
        unsafe {
            [
                vorrq_s32(words[0], other[0]),
                vorrq_s32(words[1], other[1]),
                vorrq_s32(words[2], other[2]),
                vorrq_s32(words[3], other[3]),
            ]
        }
    }
    #[inline(always)]
    unsafe fn low_nibbles(words: Quads) -> Quads {
        unsafe { Self::masked(words, 0x0f0f_0f0f) }
    }
    #[inline(always)]
    unsafe fn high_nibbles(words: Quads) -> Quads {
        unsafe { Self::masked(Self::moved_down(words, 4), 0x0f0f_0f0f) }
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sum: Quads, unsigned: Quads, signed: i32) -> Quads {
        // Bytes of at most 63 are the same signed and unsigned.
        unsafe { Self::dot_bytes(sum, unsigned, signed) }
    }
    #[inline(always)]
    unsafe fn raised(words: Quads) -> Quads {
        words
    }
    #[inline(always)]
    unsafe fn dot_bytes(sum: Quads, raised: Quads, signed: i32) -> Quads {
        unsafe {
            let other = vreinterpretq_s8_s32(vdupq_n_s32(signed));
            [
                dot(sum[0], raised[0], other),
                dot(sum[1], raised[1], other),
                dot(sum[2], raised[2], other),
                dot(sum[3], raised[3], other),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut i8) {
        unsafe {
            let words = quads!(self.0, vcvtnq_s32_f32);
            let low = vcombine_s16(vqmovn_s32(words[0]), vqmovn_s32(words[1]));
            let high = vcombine_s16(vqmovn_s32(words[2]), vqmovn_s32(words[3]));
            vst1q_s8(to, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
        }
    }
}
