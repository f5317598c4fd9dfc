//! The weights of one stage, packed for its device.

use crate::cpu::pack::{Packed, RowMajor};
use crate::model::Geometry;
use crate::model::geometry::{EMBEDDING, OUTPUT, OUTPUT_NORM};
use crate::model::gguf::{Gguf, Tensor};
use std::ops::Range;

/// One layer.
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Packed,
    pub(crate) key: Packed,
    pub(crate) value: Packed,
    pub(crate) attention_output: Packed,
    pub(crate) feed_forward_norm: Vec<f32>,
    pub(crate) gate: Packed,
    pub(crate) up: Packed,
    pub(crate) down: Packed,
}

/// The end of the model.
pub(crate) struct Head {
    pub(crate) norm: Vec<f32>,
    pub(crate) output: Packed,
}

/// Everything one stage multiplies with. Of the file, only these tensors are read.
pub(crate) struct Weights {
    pub(crate) layers: Vec<Layer>,
    /// Present where the stage holds the last layer.
    pub(crate) head: Option<Head>,
}

/// Names of a layer's matrices, in the order of [`Layer`].
const MATRICES: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

fn tensor<'a>(gguf: &'a Gguf, name: &str) -> Tensor<'a> {
    gguf.tensor(name).expect("a geometry is read from a file with all its tensors")
}

fn row_major<'a>(gguf: &'a Gguf, name: &str) -> RowMajor<'a> {
    let tensor = tensor(gguf, name);
    RowMajor {
        format: tensor.format,
        rows: tensor.rows() as usize,
        columns: tensor.row_values() as usize,
        bytes: tensor.bytes,
    }
}

/// The matrices of a stage, in the order in which they are packed.
fn matrices<'a>(gguf: &'a Gguf, geometry: &Geometry, layers: &Range<usize>) -> Vec<RowMajor<'a>> {
    let names = layers.clone().flat_map(|layer| MATRICES.map(|part| format!("blk.{layer}.{part}.weight")));
    let head = if geometry.tied { EMBEDDING } else { OUTPUT };
    let head = (layers.end == geometry.layers).then(|| head.to_owned());
    names.chain(head).map(|name| row_major(gguf, &name)).collect()
}

impl Weights {
    /// Packs the weights of `layers`.
    ///
    /// # Errors
    /// When the operating system does not give the memory.
    pub(crate) fn load(gguf: &Gguf, geometry: &Geometry, layers: Range<usize>) -> std::io::Result<Self> {
        let mut packed = Packed::all(&matrices(gguf, geometry, &layers))?.into_iter();
        let mut next = || packed.next().expect("one packed matrix per matrix");
        let norm = |layer: usize, part: &str| tensor(gguf, &format!("blk.{layer}.{part}.weight")).dequantise();
        let body = layers
            .clone()
            .map(|layer| Layer {
                attention_norm: norm(layer, "attn_norm"),
                query: next(),
                key: next(),
                value: next(),
                attention_output: next(),
                feed_forward_norm: norm(layer, "ffn_norm"),
                gate: next(),
                up: next(),
                down: next(),
            })
            .collect();
        let head = (layers.end == geometry.layers)
            .then(|| Head { norm: tensor(gguf, OUTPUT_NORM).dequantise(), output: next() });
        Ok(Self { layers: body, head })
    }
}
