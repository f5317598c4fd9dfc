//! The WGSL of every kernel, made from a few texts for each shape of use.

use super::{product_shader as product, row_shader as rows};
use crate::model::format::BlockFormat;
use std::fmt::Write as _;

/// How many threads work together, and how they add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Shape {
    /// Threads of a workgroup.
    pub(super) threads: u32,
    /// Threads that share a row of a matrix; a power of two. With subgroups, their size.
    pub(super) lanes: u32,
    /// Whether lanes add up by a subgroup operation instead of shared memory.
    pub(super) subgroups: bool,
    /// Whether half-precision numbers are read as such instead of being unpacked from words.
    pub(super) halves: bool,
}

/// One kernel in one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// Products of up to three matrices of a format with `tile` rows at a time.
    Product {
        format: BlockFormat,
        tile: u32,
        norm: bool,
        add: bool,
        ragged: bool,
        gated: bool,
    },
    /// The same with activations in eight bits.
    ProductInt8 {
        format: BlockFormat,
        tile: u32,
        add: bool,
        gated: bool,
    },
    /// Rows to eight bits, through a norm or not.
    Quantise {
        norm: bool,
    },
    Lookup {
        format: BlockFormat,
    },
    Norm,
    Rotate {
        split: bool,
    },
    Remember {
        split: bool,
    },
    Attend {
        size: u32,
        together: u32,
    },
    Gate,
    Add,
    Copy,
    Argmax,
}

/// A kernel's text, and what it is bound to besides its parameters: the arena of weights or not, so many operands, and
/// the arena once more where it is also read as half-precision numbers.
pub(super) struct Kernel {
    pub(super) source: String,
    pub(super) weights: bool,
    pub(super) operands: usize,
    pub(super) halves: bool,
}

impl Kernel {
    pub(super) fn new(source: String, weights: bool, operands: usize) -> Self {
        Self { source, weights, operands, halves: false }
    }

    /// The same, which reads the halves among its weights through a second view of the arena, bound behind the operands.
    /// The language cannot take a word for two halves; both ways widen exactly.
    fn with_halves(self) -> Self {
        if !self.source.contains(UNPACKED) {
            return self;
        }
        let binding = 1 + usize::from(self.weights) + self.operands;
        let view = format!("enable f16;\n@group(0) @binding({binding}) var<storage, read> H: array<vec2<f16>>;\n");
        Self { source: view + &self.source.replace(UNPACKED, "vec2<f32>(H["), halves: true, ..self }
    }
}

/// How two halves of a word of weights are unpacked, as far as the word's number.
const UNPACKED: &str = "unpack2x16float(A[";

pub(super) fn header(params: &[&str], weights: bool, operands: &[(&str, &str)]) -> String {
    let mut text = String::new();
    text += "struct Params {\n";
    for name in params {
        let _ = writeln!(text, "  {name}: u32,");
    }
    text += "};\n@group(0) @binding(0) var<uniform> P: Params;\n";
    if weights {
        text += "@group(0) @binding(1) var<storage, read> A: array<u32>;\n";
    }
    for (i, (name, kind)) in operands.iter().enumerate() {
        let binding = i + 1 + usize::from(weights);
        let _ = writeln!(text, "@group(0) @binding({binding}) var<storage, read_write> {name}: array<{kind}>;");
    }
    text
}

pub(super) fn entry(shape: Shape) -> String {
    let subgroup = if shape.subgroups {
        ",\n  @builtin(subgroup_invocation_id) sg_lane: u32, @builtin(subgroup_id) sg: u32"
    } else {
        ""
    };
    format!(
        "@compute @workgroup_size({})\nfn main(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) li: \
         u32{subgroup}) {{\n",
        shape.threads
    )
}

/// Which lane of which row a thread is.
pub(super) fn lanes(shape: Shape) -> String {
    if shape.subgroups {
        "  let lane = sg_lane;\n  let slot = sg;\n".to_owned()
    } else {
        format!("  let lane = li % {0}u;\n  let slot = li / {0}u;\n", shape.lanes)
    }
}

/// Adds a variable up over the lanes of a row; afterwards every lane has the sum. A tree, so that the order is fixed.
pub(super) fn sum_lanes(shape: Shape, variable: &str) -> String {
    if shape.lanes == 1 {
        return String::new();
    }
    if shape.subgroups {
        return format!("  {variable} = subgroupAdd({variable});\n");
    }
    let mut text = format!("  red[li] = {variable};\n  workgroupBarrier();\n");
    let mut step = shape.lanes / 2;
    while step > 0 {
        let _ =
            write!(text, "  if (lane < {step}u) {{ red[li] = red[li] + red[li + {step}u]; }}\n  workgroupBarrier();\n");
        step /= 2;
    }
    let _ = write!(text, "  {variable} = red[li - lane];\n  workgroupBarrier();\n");
    text
}

pub(super) fn reduction(shape: Shape) -> String {
    if shape.subgroups { String::new() } else { format!("var<workgroup> red: array<f32, {}>;\n", shape.threads) }
}

/// The text of a kernel. `None` where a format has no such form.
pub(super) fn kernel(key: Key, shape: Shape) -> Option<Kernel> {
    let kernel = match key {
        Key::Product { format, tile, norm, add, ragged, gated } => {
            product::product(shape, format, tile, norm, add, ragged, gated)
        }
        Key::ProductInt8 { format, tile, add, gated } => product::product_int8(shape, format, tile, add, gated)?,
        Key::Quantise { norm } => rows::quantise(shape, norm),
        Key::Lookup { format } => rows::lookup(shape, format),
        Key::Norm => rows::norm(shape),
        Key::Rotate { split } => rows::rotate(shape, split),
        Key::Remember { split } => rows::remember(shape, split),
        Key::Attend { size, together } => rows::attend(size, together),
        Key::Gate => {
            rows::pointwise(shape, "f32", "let x = X[P.a + id];\n  X[P.a + id] = x / (1.0 + exp(-x)) * Y[P.b + id];")
        }
        Key::Add => rows::pointwise(shape, "f32", "X[P.a + id] = X[P.a + id] + Y[P.b + id];"),
        Key::Copy => rows::pointwise(shape, "u32", "Y[P.b + id] = X[P.a + id];"),
        Key::Argmax => rows::argmax(shape),
    };
    Some(if shape.halves { kernel.with_halves() } else { kernel })
}
