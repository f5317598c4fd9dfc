//! Matrix times activations, for one token and for many.
//!
//! One kernel serves every case: a tile of `G` panels (sixteen rows each) by `T` tokens. Each output element is computed
//! by the same chain of operations in every tile shape, so neither the number of tokens in a step nor the number of
//! threads changes a bit of the result:
//!
//! * plain weights: `y = fma(w[c], x[c], y)` over columns `c` in rising order;
//! * nibbles: per block `p = fma(q[c], x[c], p)` from zero, then `y = fma(p, d, y)` and `y = fma(m, s, y)`, with `s` the
//!   sum of the block's activations and `m` the minimum (Q4_1, Q5_1), `-8 d` (Q4_0) or `-16 d` (Q5_0);
//! * bytes: as nibbles, without the minimum;
//! * super-blocks: the same with a scale and a minimum for each part;
//! * with eight-bit activations `p` is an exact integer sum times the activations' scale, `8`, `16` or `32` taken off each
//!   value of Q4_0, Q5_0 and Q6_K before.

mod blocks;
mod scales;

use super::Arithmetic;
use super::input::{Forms, Input};
use super::isa::{self, Isa, Kernel};
use super::lanes::Lanes;
use super::pack::{BLOCK, PANEL_ROWS, Packed, PanelKind};
use super::share::ColumnBlock;
use blocks::{Bytes, Rounded, RoundedBytes, Widened};
use scales::{OfBlock, OfHalves, OfParts};
use std::ops::Range;

/// What becomes of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// It replaces what is there.
    Set,
    /// It is added to what is there.
    Add,
}

/// Multiplies the rows `out.range()` of a matrix with every token of `input`; `out` has one row per token.
///
/// # Panics
/// When shapes do not match, or the range does not begin at a panel.
pub(crate) fn product(
    isa: Isa,
    arithmetic: Arithmetic,
    matrix: &Packed,
    input: &Input,
    store: Store,
    out: &mut ColumnBlock<'_>,
) {
    let range = out.range();
    let forms = input.forms();
    assert!(
        range.start.is_multiple_of(matrix.rows_together())
            && (range.end.is_multiple_of(matrix.rows_together()) || range.end == matrix.rows()),
        "rows {range:?} of a matrix of {} in slabs of {}",
        matrix.rows(),
        matrix.rows_together()
    );
    assert!(
        forms.width == matrix.columns() && forms.tokens == out.rows(),
        "{} tokens of {} times a matrix of {} columns into {} tokens",
        forms.tokens,
        forms.width,
        matrix.columns(),
        out.rows()
    );
    let job = Rows { isa, matrix, forms, store, range };
    match (matrix.kind(), arithmetic) {
        (PanelKind::Single, _) => job.run::<Single>(out),
        (PanelKind::Half, _) => job.run::<Half>(out),
        (PanelKind::Brain, _) => job.run::<Brain>(out),
        (PanelKind::Nibbles, Arithmetic::F32) => job.run::<Widened<OfBlock<false, 0>>>(out),
        (PanelKind::NibblesWithMinimum, Arithmetic::F32) => job.run::<Widened<OfBlock<true, 0>>>(out),
        (PanelKind::FiveBits, Arithmetic::F32) => job.run::<Widened<OfBlock<false, 1>>>(out),
        (PanelKind::FiveBitsWithMinimum, Arithmetic::F32) => job.run::<Widened<OfBlock<true, 1>>>(out),
        (PanelKind::Fours, Arithmetic::F32) => job.run::<Widened<OfParts<0>>>(out),
        (PanelKind::Fives, Arithmetic::F32) => job.run::<Widened<OfParts<1>>>(out),
        (PanelKind::Sixes, Arithmetic::F32) => job.run::<Widened<OfHalves>>(out),
        (PanelKind::Bytes, Arithmetic::F32) => job.run::<Bytes>(out),
        (PanelKind::Nibbles, Arithmetic::Int8) => job.run::<Rounded<OfBlock<false, 0>>>(out),
        (PanelKind::NibblesWithMinimum, Arithmetic::Int8) => job.run::<Rounded<OfBlock<true, 0>>>(out),
        (PanelKind::FiveBits, Arithmetic::Int8) => job.run::<Rounded<OfBlock<false, 1>>>(out),
        (PanelKind::FiveBitsWithMinimum, Arithmetic::Int8) => job.run::<Rounded<OfBlock<true, 1>>>(out),
        (PanelKind::Fours, Arithmetic::Int8) => job.run::<Rounded<OfParts<0>>>(out),
        (PanelKind::Fives, Arithmetic::Int8) => job.run::<Rounded<OfParts<1>>>(out),
        (PanelKind::Sixes, Arithmetic::Int8) => job.run::<Rounded<OfHalves>>(out),
        (PanelKind::Bytes, Arithmetic::Int8) => job.run::<RoundedBytes>(out),
    }
}

/// How many of the `left` tokens a tile takes, and how many panels at most.
fn shape<F: Family>(isa: Isa, left: usize) -> (usize, usize) {
    match (isa, left) {
        (Isa::Portable, _) => (1, 1),
        // Sixteen accumulators and what they are fed with fill the registers. Widening a weight costs as much as multiplying
        // it, so it should serve many tokens; integer products need no widening.
        (Isa::Avx512, 8..) if F::WIDENS => (8, 2),
        (Isa::Avx512, 4..) => (4, 4),
        (Isa::Avx512, _) => (left, 4),
        // Half and quarter registers: four accumulators of sixteen lanes fill them.
        (_, 4..) => (4, 1),
        (_, _) => (left, 4 / left),
    }
}

/// A product over a range of rows.
struct Rows<'a> {
    isa: Isa,
    matrix: &'a Packed,
    forms: Forms<'a>,
    store: Store,
    range: Range<usize>,
}

impl Rows<'_> {
    /// Cuts the rows into tiles. All tokens pass a slab before the next slab is read, so that its weights come from memory
    /// once, however many tokens there are, and from a near cache after that.
    fn run<F: Family>(&self, out: &mut ColumnBlock<'_>) {
        let together = self.matrix.rows_together();
        for slab in self.range.start / together..self.range.end.div_ceil(together) {
            let panels = self.matrix.slabs().slab(slab).panels;
            let mut token = 0;
            while token < self.forms.tokens {
                let (tokens, panels_max) = shape::<F>(self.isa, self.forms.tokens - token);
                for first in (0..panels).step_by(panels_max) {
                    let panels = first..panels.min(first + panels_max);
                    self.tile::<F>(slab, panels, token..token + tokens, out);
                }
                token += tokens;
            }
        }
    }

    /// One tile, with its shape as constants: for each instruction set those that [`shape`] asks for.
    fn tile<F: Family>(&self, slab: usize, panels: Range<usize>, tokens: Range<usize>, out: &mut ColumnBlock<'_>) {
        macro_rules! shapes {
            ($call:path: $($g:literal x $t:literal),*) => {
                match (panels.len(), tokens.len()) {
                    $(($g, $t) => self.shaped::<F, $g, $t>(slab, panels.start, tokens, out, $call),)*
                    (g, t) => unreachable!("a tile of {g} panels by {t} tokens"),
                }
            };
        }
        match self.isa {
            Isa::Portable => shapes!(isa::portable: 1 x 1),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => shapes!(isa::avx2: 1 x 1, 2 x 1, 3 x 1, 4 x 1, 1 x 2, 2 x 2, 1 x 3, 1 x 4),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => shapes!(isa::avx512:
                1 x 1, 2 x 1, 3 x 1, 4 x 1, 1 x 2, 2 x 2, 3 x 2, 4 x 2, 1 x 3, 2 x 3, 3 x 3, 4 x 3,
                1 x 4, 2 x 4, 3 x 4, 4 x 4, 1 x 8, 2 x 8
            ),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => shapes!(isa::neon: 1 x 1, 2 x 1, 3 x 1, 4 x 1, 1 x 2, 2 x 2, 1 x 3, 1 x 4),
            #[allow(unreachable_patterns, reason = "sets of other processors are never chosen here")]
            other => unreachable!("{} on this processor", other.name()),
        }
    }

    /// The tile of `G` panels from `panel` of a slab by `T` tokens.
    fn shaped<F: Family, const G: usize, const T: usize>(
        &self,
        slab: usize,
        panel: usize,
        tokens: Range<usize>,
        out: &mut ColumnBlock<'_>,
        call: unsafe fn(Tile<F, G, T>),
    ) {
        let (kind, columns) = (self.matrix.kind(), self.matrix.columns());
        let slabs = self.matrix.slabs();
        let place = slabs.slab(slab);
        assert!(panel + G <= place.panels, "panels {panel} to {} of {}", panel + G, place.panels);
        let bytes = self.matrix.bytes();
        let forms = &self.forms;
        let (from, blocks) = (tokens.start * columns, columns / BLOCK);
        let operands = Operands {
            weights: bytes[place.start + panel * kind.group_bytes()..].as_ptr(),
            scales: bytes[place.start + kind.groups_bytes(place.panels) + panel * kind.scale_bytes()..].as_ptr(),
            groups_apart: place.panels * kind.group_bytes(),
            step: kind.step_bytes(place.panels),
            columns,
            plain: forms.plain[from..].as_ptr(),
            scaled: forms.scaled[from..].as_ptr(),
            rounded: forms.rounded[from..].as_ptr().cast(),
            interleaved: forms.interleaved[from..].as_ptr().cast(),
            sums: forms.sums[tokens.start * blocks..].as_ptr(),
            half_sums: forms.half_sums[2 * tokens.start * blocks..].as_ptr(),
            token_scales: forms.scales[tokens.start * blocks..].as_ptr(),
            rounded_sums: forms.rounded_sums[tokens.start * blocks..].as_ptr(),
            rounded_half_sums: forms.rounded_half_sums[2 * tokens.start * blocks..].as_ptr(),
        };
        let mut result = [[[0.0_f32; PANEL_ROWS]; T]; G];
        let tile = Tile::<F, G, T> { operands, result: &raw mut result, family: std::marker::PhantomData };
        // SAFETY: `tile` pairs `call` with an instruction set that comes from `Isa::available`. The slab holds the `G`
        // panels; the forms hold `T` tokens of `columns` activations from the offsets taken above, as `product` checked and
        // slicing confirmed; `result` outlives the call.
        unsafe { call(tile) };
        for g in 0..G {
            let first = (slab * slabs.each + panel + g) * PANEL_ROWS - self.range.start;
            let rows = PANEL_ROWS.min(self.range.len() - first);
            for (t, token) in tokens.clone().enumerate() {
                let to = &mut out.row(token)[first..first + rows];
                match self.store {
                    Store::Set => to.copy_from_slice(&result[g][t][..rows]),
                    Store::Add => {
                        for (to, value) in to.iter_mut().zip(result[g][t]) {
                            *to += value;
                        }
                    }
                }
            }
        }
    }
}

/// Where a tile's factors lie. Pointers to activations are those of the tile's first token; a token's activations follow
/// those of the one before it.
#[derive(Clone, Copy)]
struct Operands {
    /// The first group of the tile's first panel; those of its other panels follow.
    weights: *const u8,
    /// The first block's scales, likewise.
    scales: *const u8,
    /// Bytes from one group to the next in a block.
    groups_apart: usize,
    /// Bytes from one block to the next, or from one group to the next where there are no blocks.
    step: usize,
    columns: usize,
    plain: *const f32,
    scaled: *const f32,
    rounded: *const u8,
    interleaved: *const u8,
    sums: *const f32,
    half_sums: *const f32,
    token_scales: *const f32,
    rounded_sums: *const i32,
    rounded_half_sums: *const i32,
}

/// One tile of a product.
struct Tile<F, const G: usize, const T: usize> {
    operands: Operands,
    result: *mut [[[f32; PANEL_ROWS]; T]; G],
    family: std::marker::PhantomData<F>,
}

impl<F: Family, const G: usize, const T: usize> Kernel for Tile<F, G, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        // SAFETY: the operands and the result are those that `Rows::shaped` vouches for.
        unsafe {
            let sums = F::sums::<V, G, T>(&self.operands);
            let result = &mut *self.result;
            for g in 0..G {
                for t in 0..T {
                    sums[g][t].store(result[g][t].as_mut_ptr());
                }
            }
        }
    }
}

/// The arithmetic of one packing.
trait Family {
    /// Whether weights are turned into single precision one by one.
    const WIDENS: bool;

    /// The products of `G` panels with `T` tokens.
    ///
    /// # Safety
    /// The operands are valid for `G` panels of this family and `T` tokens, with the forms of activations it reads.
    unsafe fn sums<V: Lanes, const G: usize, const T: usize>(o: &Operands) -> [[V; T]; G];
}

/// A table of accumulators at zero.
#[inline(always)]
unsafe fn zeros<V: Lanes, const G: usize, const T: usize>() -> [[V; T]; G] {
    // SAFETY: the caller's instruction set.
    [[unsafe { V::splat(0.0) }; T]; G]
}

/// `into[g][t] += weights[g] * x[t]` for one column; `x` points at the first token's activation.
#[inline(always)]
unsafe fn column<V: Lanes, const G: usize, const T: usize>(
    weights: [V; G],
    x: *const f32,
    stride: usize,
    into: &mut [[V; T]; G],
) {
    for t in 0..T {
        // SAFETY: the caller's operands hold `T` tokens `stride` apart.
        unsafe {
            let x = V::splat(*x.add(t * stride));
            for g in 0..G {
                into[g][t] = weights[g].fma(x, into[g][t]);
            }
        }
    }
}

/// Weights that are numbers already.
trait Plain {
    /// Bytes of a weight.
    const BYTES: usize;

    /// Sixteen weights.
    ///
    /// # Safety
    /// `from` holds sixteen weights.
    unsafe fn load<V: Lanes>(from: *const u8) -> V;
}

impl<P: Plain> Family for P {
    const WIDENS: bool = true;

    #[inline(always)]
    unsafe fn sums<V: Lanes, const G: usize, const T: usize>(o: &Operands) -> [[V; T]; G] {
        // SAFETY: panels hold `columns` columns of sixteen weights, tokens `columns` activations.
        unsafe {
            let mut sums = zeros::<V, G, T>();
            for c in 0..o.columns {
                let at = o.weights.add(c * o.step);
                let mut weights = [V::splat(0.0); G];
                for g in 0..G {
                    let at = at.add(g * PANEL_ROWS * P::BYTES);
                    V::prefetch(at.wrapping_add(AHEAD));
                    weights[g] = P::load(at);
                }
                column(weights, o.plain.add(c), o.columns, &mut sums);
            }
            sums
        }
    }
}

/// Weights in single precision.
struct Single;

impl Plain for Single {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const u8) -> V {
        // SAFETY: as the caller promises.
        unsafe { V::load(from.cast()) }
    }
}

/// Weights in half precision.
struct Half;

impl Plain for Half {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const u8) -> V {
        // SAFETY: as the caller promises.
        unsafe { V::load_half(from) }
    }
}

/// Weights as upper halves of single precision.
struct Brain;

impl Plain for Brain {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const u8) -> V {
        // SAFETY: as the caller promises.
        unsafe { V::load_brain(from) }
    }
}

/// The words of one group in each panel.
#[inline(always)]
unsafe fn words_of<V: Lanes, const G: usize>(at: *const u8) -> [V::Words; G] {
    // SAFETY: the caller's panels hold sixteen words there.
    unsafe {
        let mut words = [V::splat_words(0); G];
        for (g, word) in words.iter_mut().enumerate() {
            let at = at.add(g * WORDS_BYTES);
            V::prefetch(at.wrapping_add(AHEAD));
            *word = V::load_words(at);
        }
        words
    }
}

/// How far ahead of their use weights are asked for, in bytes: the time to multiply these is longer than memory takes to
/// answer.
const AHEAD: usize = 4096;

/// Bytes of sixteen words.
const WORDS_BYTES: usize = 4 * PANEL_ROWS;
