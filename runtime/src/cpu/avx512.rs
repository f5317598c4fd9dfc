//! Sixteen lanes as one AVX-512 register.

use super::lanes::Lanes;
use std::arch::x86_64::*;

/// One 512-bit register.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

// SAFETY of the blocks below: the contract of the trait gives a processor with AVX-512 F, BW, DQ, VL and VNNI and
// pointers valid for sixteen elements; every load and store is an unaligned one.
impl Lanes for Avx512 {
    type Words = __m512i;
    const BYTE_OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u8) -> Self {
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }
    #[inline(always)]
    unsafe fn load_brain(from: *const u8) -> Self {
        Self(unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(unsafe { _mm512_roundscale_ps::<0>(self.0) })
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        Self(unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        })
    }
    #[inline(always)]
    unsafe fn load_words(from: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_words(value: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(value) }
    }
    #[inline(always)]
    unsafe fn from_words(words: __m512i) -> Self {
        Self(unsafe { _mm512_cvtepi32_ps(words) })
    }
    #[inline(always)]
    unsafe fn nibble<const I: u32>(words: __m512i) -> Self {
        Self(unsafe {
            if I == 7 {
                _mm512_cvtepi32_ps(_mm512_srli_epi32::<28>(words))
            } else {
                _mm512_cvtepi32_ps(_mm512_and_si512(words, _mm512_set1_epi32(15 << (4 * I))))
            }
        })
    }
    #[inline(always)]
    unsafe fn byte<const I: u32>(words: __m512i) -> Self {
        Self(unsafe {
            let high = _mm512_set1_epi32(0xff << 24);
            _mm512_cvtepi32_ps(match I {
                0 => _mm512_slli_epi32::<24>(words),
                1 => _mm512_and_si512(_mm512_slli_epi32::<16>(words), high),
                2 => _mm512_and_si512(_mm512_slli_epi32::<8>(words), high),
                _ => _mm512_and_si512(words, high),
            })
        })
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self {
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) })
    }
    #[inline(always)]
    unsafe fn load_signed_bytes(from: *const u8) -> Self {
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) })
    }
    #[inline(always)]
    unsafe fn moved_up(words: __m512i, bits: u32) -> __m512i {
        unsafe { _mm512_sllv_epi32(words, _mm512_set1_epi32(bits as i32)) }
    }
    #[inline(always)]
    unsafe fn moved_down(words: __m512i, bits: u32) -> __m512i {
        unsafe { _mm512_srlv_epi32(words, _mm512_set1_epi32(bits as i32)) }
    }
    #[inline(always)]
    unsafe fn masked(words: __m512i, mask: i32) -> __m512i {
        unsafe { _mm512_and_si512(words, _mm512_set1_epi32(mask)) }
    }
    #[inline(always)]
    unsafe fn either(words: __m512i, other: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(words, other) }
    }
    #[inline(always)]
    unsafe fn low_nibbles(words: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(words, _mm512_set1_epi32(0x0f0f_0f0f)) }
    }
    #[inline(always)]
    unsafe fn high_nibbles(words: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(_mm512_srli_epi32::<4>(words), _mm512_set1_epi32(0x0f0f_0f0f)) }
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sum: __m512i, unsigned: __m512i, signed: i32) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, unsigned, _mm512_set1_epi32(signed)) }
    }
    #[inline(always)]
    unsafe fn raised(words: __m512i) -> __m512i {
        // The instruction below takes one unsigned factor: flipping the top bit of a signed byte raises it by 128.
        unsafe { _mm512_xor_si512(words, _mm512_set1_epi8(-128)) }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut i8) {
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(self.0))) }
    }
    #[inline(always)]
    unsafe fn dot_bytes(sum: __m512i, raised: __m512i, signed: i32) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, raised, _mm512_set1_epi32(signed)) }
    }
}
