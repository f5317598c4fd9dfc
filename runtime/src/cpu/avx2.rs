//! Sixteen lanes as two AVX2 registers.

use super::lanes::Lanes;
use std::arch::x86_64::*;

/// Lanes 0..8 and 8..16.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256, __m256);

// SAFETY of the blocks below: the contract of the trait gives a processor with AVX2, FMA and F16C and pointers valid for
// sixteen elements; every load and store is an unaligned one.
impl Lanes for Avx2 {
    type Words = (__m256i, __m256i);
    const BYTE_OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        let half = unsafe { _mm256_set1_ps(value) };
        Self(half, half)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u8) -> Self {
        unsafe {
            Self(_mm256_cvtph_ps(_mm_loadu_si128(from.cast())), _mm256_cvtph_ps(_mm_loadu_si128(from.add(16).cast())))
        }
    }
    #[inline(always)]
    unsafe fn load_brain(from: *const u8) -> Self {
        unsafe {
            let widen = |at: *const u8| {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            };
            Self(widen(from), widen(from.add(16)))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, addend.0), _mm256_fmadd_ps(self.1, factor.1, addend.1)) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        unsafe { Self(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        unsafe { Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        unsafe { Self(_mm256_round_ps::<0x08>(self.0), _mm256_round_ps::<0x08>(self.1)) }
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        unsafe {
            let power = |n: __m256| {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            };
            Self(power(self.0), power(self.1))
        }
    }
    #[inline(always)]
    unsafe fn load_words(from: *const u8) -> Self::Words {
        unsafe { (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())) }
    }
    #[inline(always)]
    unsafe fn splat_words(value: i32) -> Self::Words {
        let half = unsafe { _mm256_set1_epi32(value) };
        (half, half)
    }
    #[inline(always)]
    unsafe fn from_words(words: Self::Words) -> Self {
        unsafe { Self(_mm256_cvtepi32_ps(words.0), _mm256_cvtepi32_ps(words.1)) }
    }
    #[inline(always)]
    unsafe fn nibble<const I: u32>(words: Self::Words) -> Self {
        unsafe {
            let nibble = |w: __m256i| {
                _mm256_cvtepi32_ps(if I == 7 {
                    _mm256_srli_epi32::<28>(w)
                } else {
                    _mm256_and_si256(w, _mm256_set1_epi32(15 << (4 * I)))
                })
            };
            Self(nibble(words.0), nibble(words.1))
        }
    }
    #[inline(always)]
    unsafe fn byte<const I: u32>(words: Self::Words) -> Self {
        unsafe {
            let byte = |w: __m256i| {
                let high = _mm256_set1_epi32(0xff << 24);
                _mm256_cvtepi32_ps(match I {
                    0 => _mm256_slli_epi32::<24>(w),
                    1 => _mm256_and_si256(_mm256_slli_epi32::<16>(w), high),
                    2 => _mm256_and_si256(_mm256_slli_epi32::<8>(w), high),
                    _ => _mm256_and_si256(w, high),
                })
            };
            Self(byte(words.0), byte(words.1))
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self {
        unsafe {
            let bytes = _mm_loadu_si128(from.cast());
            let low = _mm256_cvtepu8_epi32(bytes);
            let high = _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes));
            Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn load_signed_bytes(from: *const u8) -> Self {
        unsafe {
            let bytes = _mm_loadu_si128(from.cast());
            let low = _mm256_cvtepi8_epi32(bytes);
            let high = _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes));
            Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn moved_up(words: Self::Words, bits: u32) -> Self::Words {
        unsafe {
            let bits = _mm256_set1_epi32(bits as i32);
            (_mm256_sllv_epi32(words.0, bits), _mm256_sllv_epi32(words.1, bits))
        }
    }
    #[inline(always)]
    unsafe fn moved_down(words: Self::Words, bits: u32) -> Self::Words {
        unsafe {
            let bits = _mm256_set1_epi32(bits as i32);
            (_mm256_srlv_epi32(words.0, bits), _mm256_srlv_epi32(words.1, bits))
        }
    }
    #[inline(always)]
    unsafe fn masked(words: Self::Words, mask: i32) -> Self::Words {
        unsafe {
            let mask = _mm256_set1_epi32(mask);
            (_mm256_and_si256(words.0, mask), _mm256_and_si256(words.1, mask))
        }
    }
    #[inline(always)]
    unsafe fn either(words: Self::Words, other: Self::Words) -> Self::Words {
        unsafe { (_mm256_or_si256(words.0, other.0), _mm256_or_si256(words.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn low_nibbles(words: Self::Words) -> Self::Words {
        unsafe {
            let mask = _mm256_set1_epi32(0x0f0f_0f0f);
            (_mm256_and_si256(words.0, mask), _mm256_and_si256(words.1, mask))
        }
    }
    #[inline(always)]
    unsafe fn high_nibbles(words: Self::Words) -> Self::Words {
        unsafe { Self::low_nibbles((_mm256_srli_epi32::<4>(words.0), _mm256_srli_epi32::<4>(words.1))) }
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sum: Self::Words, unsigned: Self::Words, signed: i32) -> Self::Words {
        // Pairs of products are at most 2 * 63 * 128 and fit sixteen bits.
        unsafe {
            let other = _mm256_set1_epi32(signed);
            let dot = |s: __m256i, u: __m256i| {
                let pairs = _mm256_maddubs_epi16(u, other);
                _mm256_add_epi32(s, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            };
            (dot(sum.0, unsigned.0), dot(sum.1, unsigned.1))
        }
    }
    #[inline(always)]
    unsafe fn raised(words: Self::Words) -> Self::Words {
        words
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut i8) {
        unsafe {
            // Packing works within halves of a register; the last step puts the four runs of four in order.
            let pairs = _mm256_packs_epi32(_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
            let bytes = _mm256_packs_epi16(pairs, pairs);
            let order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5);
            let bytes = _mm256_permutevar8x32_epi32(bytes, order);
            _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(bytes));
        }
    }
    #[inline(always)]
    unsafe fn dot_bytes(sum: Self::Words, weights: Self::Words, signed: i32) -> Self::Words {
        // |w| is at most 128 and the other factor at most 127 in magnitude: pairs are at most 32512 and fit.
        unsafe {
            let other = _mm256_set1_epi32(signed);
            let dot = |s: __m256i, w: __m256i| {
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(other, w));
                _mm256_add_epi32(s, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            };
            (dot(sum.0, weights.0), dot(sum.1, weights.1))
        }
    }
}
