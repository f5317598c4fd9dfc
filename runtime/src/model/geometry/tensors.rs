//! The tensors that a geometry needs, and their bytes.

use super::{EMBEDDING, Geometry, GeometryError, OUTPUT, OUTPUT_NORM, ROPE_DIVISORS, missing};
use crate::model::format::BlockFormat;
use crate::model::gguf::{Gguf, Tensor};

/// One tensor that a geometry needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its name in the file.
    pub name: String,
    /// Its dimensions, innermost first.
    pub dims: Vec<u64>,
    /// Whether it is a norm's weights or a bias, which are always F32.
    pub norm: bool,
}

impl Geometry {
    pub(super) fn check_tensors(&self, gguf: &Gguf) -> Result<(), GeometryError> {
        // Every layer has tensors of its own, so this bounds the list below by the size of the file.
        if self.layers > gguf.tensors().len() {
            return Err(missing(&format!("blk.{}.attn_norm.weight", self.layers - 1)));
        }
        let mut known = 0;
        for expected in self.expected_tensors() {
            let tensor = gguf.tensor(&expected.name).ok_or_else(|| missing(&expected.name))?;
            if tensor.dims != expected.dims {
                let (found, wanted) = (tensor.dims.to_vec(), expected.dims);
                return Err(GeometryError::Shape { tensor: expected.name, found, wanted });
            }
            if expected.norm && tensor.format != BlockFormat::F32 {
                return Err(GeometryError::NormFormat { tensor: expected.name, found: tensor.format });
            }
            known += 1;
        }
        if known + usize::from(gguf.tensor(ROPE_DIVISORS).is_some()) == gguf.tensors().len() {
            return Ok(());
        }
        let names: std::collections::BTreeSet<String> = self.expected_tensors().map(|expected| expected.name).collect();
        match gguf.tensors().find(|tensor| tensor.name != ROPE_DIVISORS && !names.contains(tensor.name)) {
            Some(tensor) => Err(GeometryError::ForeignTensor {
                tensor: tensor.name.chars().take(64).collect(),
                architecture: self.architecture.name(),
            }),
            None => Ok(()),
        }
    }

    /// Every tensor a model of this shape has, in the order of use.
    pub fn expected_tensors(&self) -> impl Iterator<Item = Expected> + '_ {
        let (hidden, vocabulary) = (self.hidden as u64, self.vocabulary as u64);
        let matrix = move |name: &str, dims: [u64; 2]| Expected { name: name.into(), dims: dims.into(), norm: false };
        let head = (!self.tied).then(|| matrix(OUTPUT, [hidden, vocabulary]));
        let norm = Expected { name: OUTPUT_NORM.into(), dims: vec![hidden], norm: true };
        std::iter::once(matrix(EMBEDDING, [hidden, vocabulary]))
            .chain((0..self.layers).flat_map(|layer| self.layer_tensors(layer)))
            .chain(std::iter::once(norm))
            .chain(head)
    }

    /// The tensors of one layer, in the order of use.
    pub fn layer_tensors(&self, layer: usize) -> Vec<Expected> {
        let (hidden, wide, size) = (self.hidden as u64, self.feed_forward as u64, self.head_size as u64);
        let (query, kv) = ((self.heads * self.head_size) as u64, (self.kv_heads * self.head_size) as u64);
        let named = |name: String, dims: &[u64]| Expected { name, dims: dims.into(), norm: dims.len() == 1 };
        let tensor = |part: &str, dims: &[u64]| named(format!("blk.{layer}.{part}.weight"), dims);
        let bias = |part: &str, dims: &[u64]| named(format!("blk.{layer}.{part}.bias"), dims);
        let family = self.architecture;
        let mut all = vec![
            tensor("attn_norm", &[hidden]),
            tensor("attn_q", &[hidden, query]),
            tensor("attn_k", &[hidden, kv]),
            tensor("attn_v", &[hidden, kv]),
        ];
        if family.has_biases() {
            all.extend([bias("attn_q", &[query]), bias("attn_k", &[kv]), bias("attn_v", &[kv])]);
        }
        if family.norms_heads() {
            all.extend([tensor("attn_q_norm", &[size]), tensor("attn_k_norm", &[size])]);
        }
        all.push(tensor("attn_output", &[query, hidden]));
        if family.norms_results() {
            all.push(tensor("post_attention_norm", &[hidden]));
        }
        all.push(tensor("ffn_norm", &[hidden]));
        match self.experts {
            None => all.extend([
                tensor("ffn_gate", &[hidden, wide]),
                tensor("ffn_up", &[hidden, wide]),
                tensor("ffn_down", &[wide, hidden]),
            ]),
            Some(experts) => {
                let (count, wide) = (experts.count as u64, experts.feed_forward as u64);
                all.extend([
                    tensor("ffn_gate_inp", &[hidden, count]),
                    tensor("ffn_gate_exps", &[hidden, wide, count]),
                    tensor("ffn_up_exps", &[hidden, wide, count]),
                    tensor("ffn_down_exps", &[wide, hidden, count]),
                ]);
                if let Some(shared) = experts.shared {
                    let wide = shared as u64;
                    all.extend([
                        tensor("ffn_gate_inp_shexp", &[hidden]),
                        tensor("ffn_gate_shexp", &[hidden, wide]),
                        tensor("ffn_up_shexp", &[hidden, wide]),
                        tensor("ffn_down_shexp", &[wide, hidden]),
                    ]);
                }
            }
        }
        if family.norms_results() {
            all.push(tensor("post_ffw_norm", &[hidden]));
        }
        all
    }

    /// Bytes of the weights of layer `layer`, norms included.
    pub fn layer_bytes(&self, gguf: &Gguf, layer: usize) -> u64 {
        self.layer_tensors(layer).iter().map(|expected| tensor_bytes(gguf, &expected.name)).sum()
    }

    /// Bytes of the embedding matrix.
    pub fn embedding_bytes(&self, gguf: &Gguf) -> u64 {
        tensor_bytes(gguf, EMBEDDING)
    }

    /// Bytes of the output head and the last norm; of a tied model, the embedding matrix counts here too.
    pub fn head_bytes(&self, gguf: &Gguf) -> u64 {
        tensor_bytes(gguf, if self.tied { EMBEDDING } else { OUTPUT }) + tensor_bytes(gguf, OUTPUT_NORM)
    }

    /// The format that holds most bytes of the layers' matrices.
    pub fn quantisation(&self, gguf: &Gguf) -> BlockFormat {
        let bytes_in = |format: BlockFormat| -> usize {
            let matrices = gguf.tensors().filter(|tensor| is_layer_matrix(tensor) && tensor.format == format);
            matrices.map(|tensor| tensor.bytes.len()).sum()
        };
        BlockFormat::ALL.into_iter().max_by_key(|&format| bytes_in(format)).expect("there are formats")
    }
}

fn is_layer_matrix(tensor: &Tensor<'_>) -> bool {
    tensor.name.starts_with("blk.") && tensor.dims.len() > 1
}

fn tensor_bytes(gguf: &Gguf, name: &str) -> u64 {
    gguf.tensor(name).map_or(0, |tensor| tensor.bytes.len() as u64)
}
