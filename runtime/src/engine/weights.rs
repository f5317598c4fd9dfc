//! The weights of one stage, packed for its device.

use crate::cpu::pack::{Packed, RowMajor};
use crate::model::Geometry;
use crate::model::geometry::{EMBEDDING, Experts, OUTPUT, OUTPUT_NORM};
use crate::model::gguf::{Gguf, Tensor};
use std::ops::Range;

/// One layer.
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Packed,
    pub(crate) key: Packed,
    pub(crate) value: Packed,
    /// Biases of queries, keys and values.
    pub(crate) biases: Option<[Vec<f32>; 3]>,
    /// Norms of each head's queries and keys.
    pub(crate) head_norms: Option<[Vec<f32>; 2]>,
    pub(crate) attention_output: Packed,
    /// Norms of what attention and feed-forward give.
    pub(crate) result_norms: Option<[Vec<f32>; 2]>,
    pub(crate) feed_forward_norm: Vec<f32>,
    pub(crate) feed_forward: FeedForward,
}

/// What follows attention.
pub(crate) enum FeedForward {
    /// One for all tokens.
    Dense(Gated),
    /// A few of many for each token.
    Experts(Mixture),
}

/// A gated feed-forward layer.
pub(crate) struct Gated {
    pub(crate) gate: Packed,
    pub(crate) up: Packed,
    pub(crate) down: Packed,
}

/// Experts, and what chooses among them.
pub(crate) struct Mixture {
    pub(crate) router: Packed,
    pub(crate) experts: Vec<Gated>,
    /// The one that every token uses, and its gate.
    pub(crate) shared: Option<(Gated, Vec<f32>)>,
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

fn tensor<'a>(gguf: &'a Gguf, name: &str) -> Tensor<'a> {
    gguf.tensor(name).expect("a geometry is read from a file with all its tensors")
}

/// Adds the matrices of a tensor that holds `parts` of them, one after another.
fn push_matrices<'a>(all: &mut Vec<RowMajor<'a>>, gguf: &'a Gguf, name: &str, parts: usize) {
    let tensor = tensor(gguf, name);
    let rows = tensor.rows() as usize / parts;
    let (format, columns) = (tensor.format, tensor.row_values() as usize);
    let each = tensor.bytes.chunks_exact(tensor.bytes.len() / parts);
    all.extend(each.map(|bytes| RowMajor { format, rows, columns, bytes }));
}

/// Names of a layer's matrices with the number of matrices in each, in the order in which they are packed and taken.
fn matrices(experts: Option<Experts>) -> Vec<(&'static str, usize)> {
    let mut all = vec![("attn_q", 1), ("attn_k", 1), ("attn_v", 1), ("attn_output", 1)];
    match experts {
        None => all.extend([("ffn_gate", 1), ("ffn_up", 1), ("ffn_down", 1)]),
        Some(Experts { count, shared, .. }) => {
            all.push(("ffn_gate_inp", 1));
            all.extend([("ffn_gate_exps", count), ("ffn_up_exps", count), ("ffn_down_exps", count)]);
            if shared.is_some() {
                all.extend([("ffn_gate_shexp", 1), ("ffn_up_shexp", 1), ("ffn_down_shexp", 1)]);
            }
        }
    }
    all
}

impl Weights {
    /// Packs the weights of `layers`.
    ///
    /// # Errors
    /// When the operating system does not give the memory.
    pub(crate) fn load(gguf: &Gguf, geometry: &Geometry, layers: Range<usize>) -> std::io::Result<Self> {
        let mut all: Vec<RowMajor<'_>> = Vec::new();
        for layer in layers.clone() {
            for (part, parts) in matrices(geometry.experts) {
                push_matrices(&mut all, gguf, &format!("blk.{layer}.{part}.weight"), parts);
            }
        }
        if layers.end == geometry.layers {
            push_matrices(&mut all, gguf, if geometry.tied { EMBEDDING } else { OUTPUT }, 1);
        }
        let mut packed = Packed::all(&all)?.into_iter();
        let body = layers.clone().map(|layer| load_layer(gguf, geometry, layer, &mut packed)).collect();
        let mut next = || packed.next().expect("one packed matrix per matrix");
        let head = (layers.end == geometry.layers)
            .then(|| Head { norm: tensor(gguf, OUTPUT_NORM).dequantise(), output: next() });
        Ok(Self { layers: body, head })
    }
}

fn load_layer(gguf: &Gguf, geometry: &Geometry, layer: usize, packed: &mut impl Iterator<Item = Packed>) -> Layer {
    let mut next = || packed.next().expect("one packed matrix per matrix");
    let numbers = |part: &str| tensor(gguf, &format!("blk.{layer}.{part}")).dequantise();
    let family = geometry.architecture;
    let [query, key, value, attention_output] = std::array::from_fn(|_| next());
    let feed_forward = match geometry.experts {
        None => {
            let [gate, up, down] = std::array::from_fn(|_| next());
            FeedForward::Dense(Gated { gate, up, down })
        }
        Some(Experts { count, shared, .. }) => {
            let router = next();
            let mut each = || (0..count).map(|_| next()).collect::<Vec<_>>().into_iter();
            let (gates, ups, downs) = (each(), each(), each());
            let experts = gates.zip(ups).zip(downs).map(|((gate, up), down)| Gated { gate, up, down }).collect();
            let shared = shared.map(|_| {
                let [gate, up, down] = std::array::from_fn(|_| next());
                (Gated { gate, up, down }, numbers("ffn_gate_inp_shexp.weight"))
            });
            FeedForward::Experts(Mixture { router, experts, shared })
        }
    };
    Layer {
        attention_norm: numbers("attn_norm.weight"),
        query,
        key,
        value,
        biases: family.has_biases().then(|| ["attn_q.bias", "attn_k.bias", "attn_v.bias"].map(numbers)),
        head_norms: family.norms_heads().then(|| ["attn_q_norm.weight", "attn_k_norm.weight"].map(numbers)),
        attention_output,
        result_norms: family
            .norms_results()
            .then(|| ["post_attention_norm.weight", "post_ffw_norm.weight"].map(numbers)),
        feed_forward_norm: numbers("ffn_norm.weight"),
        feed_forward,
    }
}
