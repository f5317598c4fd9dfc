//! Sixteen lanes of arithmetic, the alphabet in which every kernel is written once.
//!
//! A kernel is generic over [`Lanes`] and runs on AVX-512, AVX2 or plain loops. Each operation is defined lane by lane,
//! fused multiply-adds round once, and no instruction set reorders a sum, so that **all instruction sets give the same
//! bits**. The plain loops are therefore the oracle of the others, exactly, not within a tolerance.

/// Sixteen single-precision numbers of one instruction set.
///
/// # Safety
/// Every method may only be called on a processor that has the instruction set of the implementing type, from a function
/// compiled for it (see [`super::isa::call`]). Pointers must be valid for the sixteen elements that the method names;
/// no alignment is needed.
pub(super) trait Lanes: Copy {
    /// Sixteen 32-bit words.
    type Words: Copy;

    /// What [`Self::raised`] adds to each signed byte.
    const BYTE_OFFSET: i32;

    /// Asks for the cache line at `address`, which may be any address at all.
    unsafe fn prefetch(address: *const u8);

    /// One number in all lanes.
    unsafe fn splat(value: f32) -> Self;
    /// Sixteen numbers from memory.
    unsafe fn load(from: *const f32) -> Self;
    /// Sixteen half-precision numbers from memory, widened.
    unsafe fn load_half(from: *const u8) -> Self;
    /// Sixteen upper halves of single-precision numbers from memory, widened.
    unsafe fn load_brain(from: *const u8) -> Self;
    /// Sixteen numbers to memory.
    unsafe fn store(self, to: *mut f32);
    /// `self * factor + addend`, rounded once.
    unsafe fn fma(self, factor: Self, addend: Self) -> Self;
    /// Sum.
    unsafe fn add(self, other: Self) -> Self;
    /// Difference.
    unsafe fn sub(self, other: Self) -> Self;
    /// Product.
    unsafe fn mul(self, other: Self) -> Self;
    /// Quotient.
    unsafe fn div(self, other: Self) -> Self;
    /// The larger; neither may be NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// The smaller; neither may be NaN.
    unsafe fn min(self, other: Self) -> Self;
    /// Nearest integer, ties to even; magnitudes below 2^22 only.
    unsafe fn round(self) -> Self;
    /// Two to the power of lanes that hold integers in -126..=127.
    unsafe fn power_of_two(self) -> Self;

    /// Sixteen words from memory.
    unsafe fn load_words(from: *const u8) -> Self::Words;
    /// One word in all lanes.
    unsafe fn splat_words(value: i32) -> Self::Words;
    /// Words as numbers.
    unsafe fn from_words(words: Self::Words) -> Self;
    /// Nibble `I` of each word, 0 the lowest, times `16^I`; nibble 7 comes unscaled, because the scaled one would not
    /// fit a signed word. The scale costs nothing: the other factor carries its inverse, and powers of two are exact.
    unsafe fn nibble<const I: u32>(words: Self::Words) -> Self;
    /// Signed byte `I` of each word, 0 the lowest, times `2^24`.
    unsafe fn byte<const I: u32>(words: Self::Words) -> Self;
    /// Sixteen bytes from memory as numbers.
    unsafe fn load_bytes(from: *const u8) -> Self;
    /// Sixteen signed bytes from memory as numbers.
    unsafe fn load_signed_bytes(from: *const u8) -> Self;
    /// Words moved up by `bits`, below 32.
    unsafe fn moved_up(words: Self::Words, bits: u32) -> Self::Words;
    /// Words moved down by `bits`, below 32, zeros coming in.
    unsafe fn moved_down(words: Self::Words, bits: u32) -> Self::Words;
    /// The bits of each word that `mask` has too.
    unsafe fn masked(words: Self::Words, mask: i32) -> Self::Words;
    /// The bits that either has.
    unsafe fn either(words: Self::Words, other: Self::Words) -> Self::Words;
    /// The low nibbles of all bytes.
    unsafe fn low_nibbles(words: Self::Words) -> Self::Words;
    /// The high nibbles of all bytes, moved low.
    unsafe fn high_nibbles(words: Self::Words) -> Self::Words;
    /// To each lane, the sum of products of its four unsigned bytes (at most 63 each) with the four signed bytes of
    /// `signed`.
    unsafe fn dot_nibbles(sum: Self::Words, unsigned: Self::Words, signed: i32) -> Self::Words;
    /// Each signed byte raised by [`Self::BYTE_OFFSET`].
    unsafe fn raised(words: Self::Words) -> Self::Words;
    /// To each lane, the sum of products of its four raised bytes with the four signed bytes of `signed`, none of which may
    /// be -128. The caller starts `sum` at minus the offset times the sum of all `signed`, so that the offset leaves no
    /// trace.
    unsafe fn dot_bytes(sum: Self::Words, raised: Self::Words, signed: i32) -> Self::Words;
    /// Sixteen integers from -128 to 127 to memory, as signed bytes.
    unsafe fn store_bytes(self, to: *mut i8);
}

/// The sum of sixteen lanes in the order of a balanced tree: lane `i` with `i + 8`, then 4, 2, 1.
#[inline(always)]
pub(super) fn tree_sum(mut lanes: [f32; 16]) -> f32 {
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest of sixteen numbers, none of which is NaN.
#[inline(always)]
pub(super) fn tree_max(mut lanes: [f32; 16]) -> f32 {
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] = if lanes[i] > lanes[i + width] { lanes[i] } else { lanes[i + width] };
        }
        width /= 2;
    }
    lanes[0]
}

/// Plain loops over sixteen numbers: for processors without a kernel of their own, and the oracle of those that have.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 16]);

/// Applies a function to corresponding lanes.
#[inline(always)]
fn each(a: Portable, b: Portable, f: impl Fn(f32, f32) -> f32) -> Portable {
    Portable(std::array::from_fn(|i| f(a.0[i], b.0[i])))
}

/// The sixteen 16-bit numbers at `from`.
///
/// # Safety
/// `from` is valid for 32 bytes.
#[inline(always)]
unsafe fn sixteen_halves(from: *const u8) -> [u16; 16] {
    // SAFETY: the caller promises 32 readable bytes; the read is unaligned.
    unsafe { from.cast::<[u16; 16]>().read_unaligned() }.map(u16::from_le)
}

// SAFETY of the blocks below: pointers are valid for sixteen elements by the contract of the trait, and read or written
// unaligned; nothing else here is unsafe.
impl Lanes for Portable {
    type Words = [i32; 16];
    const BYTE_OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 16])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u8) -> Self {
        Self(unsafe { sixteen_halves(from) }.map(|bits| half::f16::from_bits(bits).to_f32()))
    }
    #[inline(always)]
    unsafe fn load_brain(from: *const u8) -> Self {
        Self(unsafe { sixteen_halves(from) }.map(|bits| f32::from_bits(u32::from(bits) << 16)))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { to.cast::<[f32; 16]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(factor.0[i], addend.0[i])))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        each(self, other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        each(self, other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        each(self, other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        each(self, other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        each(self, other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        each(self, other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        Self(self.0.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23)))
    }
    #[inline(always)]
    unsafe fn load_words(from: *const u8) -> [i32; 16] {
        unsafe { from.cast::<[i32; 16]>().read_unaligned() }.map(i32::from_le)
    }
    #[inline(always)]
    unsafe fn splat_words(value: i32) -> [i32; 16] {
        [value; 16]
    }
    #[inline(always)]
    unsafe fn from_words(words: [i32; 16]) -> Self {
        Self(words.map(|word| word as f32))
    }
    #[inline(always)]
    unsafe fn nibble<const I: u32>(words: [i32; 16]) -> Self {
        Self(words.map(|word| {
            let nibble = (word as u32 >> (4 * I)) & 15;
            nibble as f32 * if I == 7 { 1.0 } else { (1_u32 << (4 * I)) as f32 }
        }))
    }
    #[inline(always)]
    unsafe fn byte<const I: u32>(words: [i32; 16]) -> Self {
        Self(words.map(|word| f32::from(word.to_le_bytes()[I as usize] as i8) * 16_777_216.0))
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self {
        Self(unsafe { from.cast::<[u8; 16]>().read_unaligned() }.map(f32::from))
    }
    #[inline(always)]
    unsafe fn load_signed_bytes(from: *const u8) -> Self {
        Self(unsafe { from.cast::<[i8; 16]>().read_unaligned() }.map(f32::from))
    }
    #[inline(always)]
    unsafe fn moved_up(words: [i32; 16], bits: u32) -> [i32; 16] {
        words.map(|word| word << bits)
    }
    #[inline(always)]
    unsafe fn moved_down(words: [i32; 16], bits: u32) -> [i32; 16] {
        words.map(|word| (word as u32 >> bits) as i32)
    }
    #[inline(always)]
    unsafe fn masked(words: [i32; 16], mask: i32) -> [i32; 16] {
        words.map(|word| word & mask)
    }
    #[inline(always)]
    unsafe fn either(words: [i32; 16], other: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|lane| words[lane] | other[lane])
    }
    #[inline(always)]
    unsafe fn low_nibbles(words: [i32; 16]) -> [i32; 16] {
        words.map(|word| word & 0x0f0f_0f0f)
    }
    #[inline(always)]
    unsafe fn high_nibbles(words: [i32; 16]) -> [i32; 16] {
        words.map(|word| (word >> 4) & 0x0f0f_0f0f)
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sum: [i32; 16], unsigned: [i32; 16], signed: i32) -> [i32; 16] {
        std::array::from_fn(|lane| {
            let (u, s) = (unsigned[lane].to_le_bytes(), signed.to_le_bytes());
            sum[lane] + (0..4).map(|i| i32::from(u[i]) * i32::from(s[i] as i8)).sum::<i32>()
        })
    }
    #[inline(always)]
    unsafe fn raised(words: [i32; 16]) -> [i32; 16] {
        words
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut i8) {
        unsafe { to.cast::<[i8; 16]>().write_unaligned(self.0.map(|value| value as i8)) }
    }
    #[inline(always)]
    unsafe fn dot_bytes(sum: [i32; 16], weights: [i32; 16], signed: i32) -> [i32; 16] {
        std::array::from_fn(|lane| {
            let (w, s) = (weights[lane].to_le_bytes(), signed.to_le_bytes());
            sum[lane] + (0..4).map(|i| i32::from(w[i] as i8) * i32::from(s[i] as i8)).sum::<i32>()
        })
    }
}
