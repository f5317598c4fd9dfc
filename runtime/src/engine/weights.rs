//! The weights of one stage, packed for its device.
//!
//! Layers are held, or lie on a shelf and are brought one after another, see [`super::shelf`].

use super::shelf::{Offload, Shelf};
use crate::cpu::memory::zeroed;
use crate::cpu::pack::{Packed, RowMajor};
use crate::cpu::team::Team;
use crate::model::Geometry;
use crate::model::geometry::{EMBEDDING, Experts, OUTPUT, OUTPUT_NORM};
use crate::model::gguf::{Gguf, Tensor};
use memmap2::MmapMut;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Most matrices that a team packs in one job: a model of hundreds of experts has more than a job has parts.
const PARTS_MAX: usize = 1 << 12;

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

impl Layer {
    /// Says where the layer's matrices are from now on.
    pub(crate) fn move_to(&mut self, memory: &Arc<MmapMut>) {
        for matrix in [&mut self.query, &mut self.key, &mut self.value, &mut self.attention_output] {
            matrix.move_to(memory);
        }
        match &mut self.feed_forward {
            FeedForward::Dense(gated) => gated.move_to(memory),
            FeedForward::Experts(Mixture { router, experts, shared }) => {
                router.move_to(memory);
                experts.iter_mut().chain(shared.iter_mut().map(|(gated, _)| gated)).for_each(|one| one.move_to(memory));
            }
        }
    }
}

impl Gated {
    fn move_to(&mut self, memory: &Arc<MmapMut>) {
        for matrix in [&mut self.gate, &mut self.up, &mut self.down] {
            matrix.move_to(memory);
        }
    }
}

/// Everything one stage multiplies with. Of the file, only these tensors are read.
pub(crate) struct Weights {
    pub(crate) layers: Vec<Layer>,
    /// Present where the stage holds the last layer.
    pub(crate) head: Option<Head>,
    /// Where those layers lie that are not held; none where all are.
    pub(crate) shelf: Option<Shelf>,
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

/// All matrices of a layer.
fn matrices_of<'a>(gguf: &'a Gguf, geometry: &Geometry, layer: usize) -> Vec<RowMajor<'a>> {
    let mut all = Vec::new();
    for (part, parts) in matrices(geometry.experts) {
        push_matrices(&mut all, gguf, &format!("blk.{layer}.{part}.weight"), parts);
    }
    all
}

/// The matrix of the output head, where the stage holds the last layer.
fn output_of<'a>(gguf: &'a Gguf, geometry: &Geometry, layers: &Range<usize>) -> Vec<RowMajor<'a>> {
    let mut all = Vec::new();
    if layers.end == geometry.layers {
        push_matrices(&mut all, gguf, if geometry.tied { EMBEDDING } else { OUTPUT }, 1);
    }
    all
}

/// Bytes that a stage's matrices take: those of each layer, and of the head.
pub(crate) fn packed_bytes(gguf: &Gguf, geometry: &Geometry, layers: &Range<usize>) -> (Vec<usize>, usize) {
    let each = layers.clone().map(|layer| Packed::bytes_of(&matrices_of(gguf, geometry, layer))).collect();
    (each, Packed::bytes_of(&output_of(gguf, geometry, layers)))
}

/// Packs matrices side by side into memory that holds zeros, each by one worker. What is packed is not read again where
/// it came from, so that no weight is in memory twice.
fn pack(gguf: &Gguf, matrices: &[RowMajor<'_>], memory: &mut [u8], team: &Team) {
    let mut rest = memory;
    let mut places = Vec::with_capacity(matrices.len());
    for matrix in matrices {
        let (own, others) = rest.split_at_mut(matrix.packed_bytes());
        places.push(Mutex::new(own));
        rest = others;
    }
    for (matrices, places) in matrices.chunks(PARTS_MAX).zip(places.chunks(PARTS_MAX)) {
        team.run(matrices.len(), &|part| {
            let mut own = places[part].lock().unwrap_or_else(PoisonError::into_inner);
            Packed::write(std::slice::from_ref(&matrices[part]), &mut own);
            gguf.release(matrices[part].bytes);
        });
    }
}

impl Weights {
    /// Packs the weights of `layers`, and puts those on a shelf that an offload leaves no room for.
    ///
    /// # Errors
    /// When the operating system does not give the memory or the file.
    pub(crate) fn load(
        gguf: &Gguf,
        geometry: &Geometry,
        layers: Range<usize>,
        offload: Option<&Offload>,
        team: &Team,
    ) -> std::io::Result<Self> {
        let (each, head) = packed_bytes(gguf, geometry, &layers);
        let away = offload.map_or_else(Vec::new, |offload| offload.layers(&each, head));
        let mut all: Vec<RowMajor<'_>> = Vec::new();
        for layer in (0..layers.len()).filter(|layer| !away.contains(layer)) {
            all.extend(matrices_of(gguf, geometry, layers.start + layer));
        }
        all.extend(output_of(gguf, geometry, &layers));
        let shelf = match offload {
            Some(offload) if !away.is_empty() => {
                let file = |layer: usize| matrices_of(gguf, geometry, layers.start + layer);
                Some(Shelf::fill(&offload.folder, &away, &each, |layer, to| pack(gguf, &file(layer), to, team))?)
            }
            _ => None,
        };
        // One piece, so that the system can back it with large pages.
        let mut memory = zeroed(Packed::bytes_of(&all))?;
        pack(gguf, &all, &mut memory, team);
        let mut packed = Packed::placed(&all, &Arc::new(memory)).into_iter();
        let mut body = Vec::new();
        for layer in 0..layers.len() {
            let at = layers.start + layer;
            body.push(match &shelf {
                Some(shelf) if away.contains(&layer) => {
                    let mut placed = Packed::placed(&matrices_of(gguf, geometry, at), shelf.nowhere()).into_iter();
                    load_layer(gguf, geometry, at, &mut placed)
                }
                _ => load_layer(gguf, geometry, at, &mut packed),
            });
        }
        let mut next = || packed.next().expect("one packed matrix per matrix");
        let head = (layers.end == geometry.layers)
            .then(|| Head { norm: tensor(gguf, OUTPUT_NORM).dequantise(), output: next() });
        Ok(Self { layers: body, head, shelf })
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
