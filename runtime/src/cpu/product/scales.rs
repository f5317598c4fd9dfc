//! Where the packings of nibbles keep their scales and minima. See [`crate::cpu::pack`] for how they lie in memory.

use super::super::lanes::Lanes;
use super::super::pack::{BLOCK, PANEL_ROWS, SUPER_BLOCK};

/// What is added to a run besides value times scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Minimum {
    /// Nothing.
    None,
    /// Minus the middle of the values times the scale.
    Middle,
    /// A number of its own.
    Stored,
}

/// The scales of one packing.
pub(super) trait Scales {
    /// Columns of a block.
    const COLUMNS: usize;
    /// Columns that one scale covers.
    const RUN: usize;
    /// Bits above the nibbles.
    const HIGH: usize;
    /// Bytes of scales and minima of one panel in one block.
    const BYTES: usize;
    /// What stands for zero among the values; 0 where a minimum is stored.
    const MIDDLE: i32;
    /// Where minima come from.
    const MINIMUM: Minimum = if Self::MIDDLE > 0 { Minimum::Middle } else { Minimum::Stored };

    /// Scales of run `run` of a block, `scales` being those of one panel.
    ///
    /// # Safety
    /// `scales` holds [`Self::BYTES`] bytes.
    unsafe fn scale<V: Lanes>(scales: *const u8, run: usize) -> V;

    /// Its minima, where they are stored.
    ///
    /// # Safety
    /// As for [`Self::scale`].
    unsafe fn minimum<V: Lanes>(scales: *const u8, run: usize) -> V;
}

/// Q4_0, Q4_1, Q5_0 and Q5_1: 32 columns with one scale, and one minimum where `STORED`.
pub(super) struct OfBlock<const STORED: bool, const HIGH: usize>;

impl<const STORED: bool, const HIGH: usize> Scales for OfBlock<STORED, HIGH> {
    const COLUMNS: usize = BLOCK;
    const RUN: usize = BLOCK;
    const HIGH: usize = HIGH;
    const BYTES: usize = if STORED { 4 } else { 2 } * PANEL_ROWS;
    const MIDDLE: i32 = if STORED { 0 } else { 8 << HIGH };

    #[inline(always)]
    unsafe fn scale<V: Lanes>(scales: *const u8, _: usize) -> V {
        // SAFETY: as the caller promises.
        unsafe { V::load_half(scales) }
    }

    #[inline(always)]
    unsafe fn minimum<V: Lanes>(scales: *const u8, _: usize) -> V {
        // SAFETY: as the caller promises.
        unsafe { V::load_half(scales.add(2 * PANEL_ROWS)) }
    }
}

/// Q4_K and Q5_K: eight parts of 32 columns, each with a scale and a minimum of a byte, in units of the block's two halves.
/// Products of a half-precision number with a byte are exact.
pub(super) struct OfParts<const HIGH: usize>;

impl<const HIGH: usize> Scales for OfParts<HIGH> {
    const COLUMNS: usize = SUPER_BLOCK;
    const RUN: usize = BLOCK;
    const HIGH: usize = HIGH;
    const BYTES: usize = (4 + 16) * PANEL_ROWS;
    const MIDDLE: i32 = 0;

    #[inline(always)]
    unsafe fn scale<V: Lanes>(scales: *const u8, run: usize) -> V {
        // SAFETY: as the caller promises.
        unsafe { V::load_half(scales).mul(V::load_bytes(scales.add((4 + run) * PANEL_ROWS))) }
    }

    #[inline(always)]
    unsafe fn minimum<V: Lanes>(scales: *const u8, run: usize) -> V {
        // SAFETY: as the caller promises.
        unsafe {
            let unit = V::load_half(scales.add(2 * PANEL_ROWS));
            unit.mul(V::load_bytes(scales.add((12 + run) * PANEL_ROWS))).mul(V::splat(-1.0))
        }
    }
}

/// Q6_K: sixteen runs of 16 columns, each with a signed scale of a byte in units of the block's half.
pub(super) struct OfHalves;

impl Scales for OfHalves {
    const COLUMNS: usize = SUPER_BLOCK;
    const RUN: usize = BLOCK / 2;
    const HIGH: usize = 2;
    const BYTES: usize = (2 + 16) * PANEL_ROWS;
    const MIDDLE: i32 = 32;

    #[inline(always)]
    unsafe fn scale<V: Lanes>(scales: *const u8, run: usize) -> V {
        // SAFETY: as the caller promises.
        unsafe { V::load_half(scales).mul(V::load_signed_bytes(scales.add((2 + run) * PANEL_ROWS))) }
    }

    #[inline(always)]
    unsafe fn minimum<V: Lanes>(scales: *const u8, run: usize) -> V {
        // SAFETY: as the caller promises. Without stored minima this is the middle's share.
        unsafe { Self::scale::<V>(scales, run).mul(V::splat(-(Self::MIDDLE as f32))) }
    }
}
