//! The closed set of operations: what a decoder of the llama family needs, and nothing else.
//!
//! All numbers are single precision and all indices are 32-bit, little-endian, row after row without gaps. What an
//! index table holds is the caller's responsibility; but whatever it holds, a backend touches no memory outside the
//! operands. Rounding is the backend's business within the bounds that [`super::conformance`] states; each backend
//! gives the same bits whenever it is asked the same.

use super::contract::{Buffer, Matrix};
use crate::cpu::Arithmetic;
use crate::model::geometry::RopePairs;

/// Where an operand begins. Its length follows from the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct View {
    /// The buffer.
    pub buffer: Buffer,
    /// First byte, a multiple of 4.
    pub offset: u64,
}

impl View {
    /// A view from a number's index on.
    #[must_use]
    pub const fn at(buffer: Buffer, number: u64) -> Self {
        Self { buffer, offset: 4 * number }
    }
}

impl From<Buffer> for View {
    fn from(buffer: Buffer) -> Self {
        Self { buffer, offset: 0 }
    }
}

/// The norm that an input passes first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormBy {
    /// One weight per column.
    pub weight: View,
    /// Added to the mean square.
    pub epsilon: f32,
}

/// What a product multiplies: `[row][column]`, through a norm where one is named.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Input {
    /// The numbers.
    pub numbers: View,
    /// Norm on the way; the numbers themselves stay as they are.
    pub norm: Option<NormBy>,
}

/// What becomes of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    /// It replaces what is there.
    Set,
    /// It is added to what is there.
    Add,
}

/// The heads of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Heads {
    /// Query heads.
    pub query: u32,
    /// Key and value heads; divides `query`. Query head `h` reads key-value head `h / (query / kv)`.
    pub kv: u32,
    /// Numbers of one head.
    pub size: u32,
}

/// Where each row of a batch stands in its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Places {
    /// `[row][2]`: positions that the row sees, its own included (so its position is one less), and where the blocks of
    /// its sequence begin in `blocks`.
    pub rows: View,
    /// Blocks of the cache, in order of position, [`super::CACHE_BLOCK`] positions each.
    pub blocks: View,
    /// How many there are.
    pub blocks_count: u32,
}

/// Rotation by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rope {
    /// `[position][pair][cosine, sine]`.
    pub table: View,
    /// Positions in the table.
    pub positions: u32,
    /// Leading numbers of a head that are rotated, an even number; the rest stay.
    pub dimensions: u32,
    /// Which two turn together: `(a, b)` becomes `(a cos - b sin, a sin + b cos)`.
    pub pairs: RopePairs,
}

/// The key-value cache of one layer: two tables `[block][kv head][position in block][number]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cache {
    /// Rotated keys.
    pub keys: View,
    /// Values.
    pub values: View,
    /// Blocks in each table.
    pub blocks: u32,
}

/// One operation on whole tensors. Operations of one device take effect in the order in which they were launched.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `out[row] = table[indices[row]]`, dequantised as [`crate::model::format::BlockFormat`] says; where a
    /// minimum is added to a product, the device may round once instead of twice.
    Lookup {
        /// The table.
        table: Matrix,
        /// One index per row.
        indices: View,
        /// Rows.
        rows: u32,
        /// `[row][column of the table]`.
        out: View,
    },
    /// RMS norm: `out = input / sqrt(mean(input^2) + epsilon) * weight`, row by row.
    Norm {
        /// Input and its norm, which is not optional here.
        input: View,
        /// Weight and epsilon.
        by: NormBy,
        /// Rows.
        rows: u32,
        /// Columns.
        width: u32,
        /// The result; may be the input itself.
        out: View,
    },
    /// Products of one input with up to three matrices: `out[row][m] = sum over k of matrix[m][k] * input[row][k]`.
    Product {
        /// What is multiplied.
        input: Input,
        /// Rows of the input.
        rows: u32,
        /// Matrices of equal columns, and where each one's product goes.
        outs: Vec<(Matrix, View)>,
        /// Replace or add.
        store: Store,
        /// In which arithmetic.
        arithmetic: Arithmetic,
    },
    /// The gated half of a feed-forward layer: `out = silu(gate * input) * (up * input)`, with `silu(x) = x / (1 +
    /// e^-x)`.
    Gated {
        /// What is multiplied.
        input: Input,
        /// Rows of the input.
        rows: u32,
        /// The matrix whose product is the gate.
        gate: Matrix,
        /// The other one, of the same shape.
        up: Matrix,
        /// `[row][row of the matrices]`.
        out: View,
        /// In which arithmetic.
        arithmetic: Arithmetic,
    },
    /// Rotates heads in place, each row by its position.
    Rotate {
        /// `[row][head][number]`.
        numbers: View,
        /// Rows.
        rows: u32,
        /// Heads in a row.
        heads: u32,
        /// Numbers in a head.
        size: u32,
        /// Positions, as in [`Places::rows`].
        places: Places,
        /// The rotation.
        rope: Rope,
    },
    /// Rotates queries in place, and writes rotated keys, and values, into the cache at each row's position.
    Remember {
        /// `[row][query head][number]`, rotated in place.
        query: View,
        /// `[row][kv head][number]`, read only.
        key: View,
        /// `[row][kv head][number]`.
        value: View,
        /// Rows; no two of them at the same place.
        rows: u32,
        /// The heads.
        heads: Heads,
        /// Where the rows stand.
        places: Places,
        /// The rotation.
        rope: Rope,
        /// Where to.
        cache: Cache,
    },
    /// Attention of each row over the positions it sees, softmax included:
    /// `out = sum of softmax(scale * query . key) * value`.
    Attend {
        /// `[row][query head][number]`, rotated.
        query: View,
        /// Rows.
        rows: u32,
        /// The heads.
        heads: Heads,
        /// Where the rows stand.
        places: Places,
        /// Keys and values.
        cache: Cache,
        /// What scores are multiplied with.
        scale: f32,
        /// Most positions that any of the rows sees, at least 1: how much work there is.
        seen_max: u32,
        /// `[row][query head][number]`.
        out: View,
    },
    /// `gate = silu(gate) * up`, number by number.
    Gate {
        /// In and out.
        gate: View,
        /// The other factor.
        up: View,
        /// How many numbers.
        count: u64,
    },
    /// `to = to + from`, number by number.
    Add {
        /// In and out.
        to: View,
        /// What is added.
        from: View,
        /// How many numbers.
        count: u64,
    },
    /// `to = from`, number by number.
    Copy {
        /// Where from.
        from: View,
        /// Where to.
        to: View,
        /// How many numbers.
        count: u64,
    },
    /// Index of the largest number of each row, the first of equals.
    Argmax {
        /// `[row][number]`.
        input: View,
        /// Rows.
        rows: u32,
        /// Numbers in a row.
        width: u32,
        /// One index per row.
        out: View,
    },
}

impl Op {
    /// The matrices that it reads.
    pub fn matrices(&self) -> impl Iterator<Item = Matrix> + '_ {
        let (one, several): ([Option<Matrix>; 2], &[(Matrix, View)]) = match self {
            Self::Lookup { table, .. } => ([Some(*table), None], &[]),
            Self::Product { outs, .. } => ([None, None], outs),
            Self::Gated { gate, up, .. } => ([Some(*gate), Some(*up)], &[]),
            _ => ([None, None], &[]),
        };
        one.into_iter().flatten().chain(several.iter().map(|(matrix, _)| *matrix))
    }

    /// Names of all operations, in the order of the variants.
    pub const NAMES: [&'static str; 11] =
        ["lookup", "norm", "product", "gated", "rotate", "remember", "attend", "gate", "add", "copy", "argmax"];

    /// The operation's name in errors, reports and profiles.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Lookup { .. } => "lookup",
            Self::Norm { .. } => "norm",
            Self::Product { .. } => "product",
            Self::Gated { .. } => "gated",
            Self::Rotate { .. } => "rotate",
            Self::Remember { .. } => "remember",
            Self::Attend { .. } => "attend",
            Self::Gate { .. } => "gate",
            Self::Add { .. } => "add",
            Self::Copy { .. } => "copy",
            Self::Argmax { .. } => "argmax",
        }
    }
}
