//! A model as planning sees it: geometry and bytes, no weights.

mod public;

pub use public::{ExpertShape, PublicModel};

use crate::digest::Digest;
use crate::ids::Layers;
use crate::units::Bytes;
use serde::{Deserialize, Serialize};

/// A decoder-only transformer. Read from a GGUF file or written down in `scenarios/models/*.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Name, unique in a scenario.
    pub name: String,
    /// Family whose operations it uses, for example `llama`.
    pub architecture: String,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of the feed-forward layer.
    pub feed_forward: u32,
    /// Number of query heads.
    pub heads: u32,
    /// Number of key and value heads.
    pub kv_heads: u32,
    /// Width of one head.
    pub head_size: u32,
    /// Number of tokens in the vocabulary.
    pub vocabulary: u32,
    /// Longest sequence, in tokens.
    pub context_max: u32,
    /// Format of the layers' matrices, for example `Q4_1`.
    pub quantisation: String,
    /// Bytes of each layer's weights, first to last.
    pub layer_bytes: Vec<Bytes>,
    /// Bytes of the token embedding, needed by whoever holds the first layer.
    pub embedding_bytes: Bytes,
    /// Bytes of the output head and the final norm, needed by whoever holds the last layer. A model whose head is
    /// tied to its embedding still needs both at both ends; a stage that is both ends holds them once.
    pub head_bytes: Bytes,
    /// Whether head and embedding are one matrix.
    pub tied: bool,
    /// Bytes of one number in the key-value cache: 4 for f32, 2 for f16.
    pub kv_element_bytes: u32,
    /// Digest of the weights, where there is a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

impl Model {
    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> u32 {
        u32::try_from(self.layer_bytes.len()).unwrap_or(u32::MAX)
    }

    /// All layers.
    #[must_use]
    pub fn all_layers(&self) -> Layers {
        Layers::new(0, self.layers())
    }

    /// Bytes of weights that a stage with these layers holds, embedding and head included where it is an end.
    ///
    /// Layers past the model's last count nothing; the checker refuses such a stage.
    #[must_use]
    pub fn weight_bytes(&self, layers: Layers) -> Bytes {
        let range = layers.start as usize..(layers.end as usize).min(self.layer_bytes.len());
        let body: Bytes = self.layer_bytes.get(range).unwrap_or_default().iter().copied().sum();
        let (first, last) = (layers.start == 0, layers.end == self.layers());
        let ends = match (first && !layers.is_empty(), last && !layers.is_empty()) {
            (true, true) if self.tied => self.embedding_bytes.max(self.head_bytes),
            (true, true) => self.embedding_bytes.saturating_add(self.head_bytes),
            (true, false) => self.embedding_bytes,
            (false, true) => self.head_bytes,
            (false, false) => Bytes::ZERO,
        };
        body.saturating_add(ends)
    }

    /// Bytes that one token keeps in the key-value cache of one layer: keys and values of all KV heads.
    #[must_use]
    pub fn kv_bytes_per_token_layer(&self) -> Bytes {
        Bytes(2 * u64::from(self.kv_heads) * u64::from(self.head_size)).saturating_mul(self.kv_element_bytes.into())
    }

    /// Bytes that one token moves across a stage boundary: the residual stream in f32.
    #[must_use]
    pub fn boundary_bytes_per_token(&self) -> Bytes {
        Bytes(4 * u64::from(self.hidden))
    }

    /// Bytes of scratch a stage needs for a step of `tokens` tokens, in f32: the residual stream and its norm, the
    /// query, key, value and attention rows, gate, up and their product, and one row of logits per sequence at the
    /// last stage (bounded by `tokens`).
    #[must_use]
    pub fn activation_bytes(&self, layers: Layers, tokens: u64) -> Bytes {
        let attention = u64::from(self.head_size) * (2 * u64::from(self.heads) + 2 * u64::from(self.kv_heads));
        let row = 3 * u64::from(self.hidden) + attention + 3 * u64::from(self.feed_forward);
        let logits = if layers.end == self.layers() { u64::from(self.vocabulary) } else { 0 };
        Bytes(4).saturating_mul(row.saturating_add(logits).saturating_mul(tokens))
    }

    /// Weights multiplied per token in one layer; twice this is its floating-point work.
    #[must_use]
    pub fn layer_weights(&self) -> u64 {
        let (hidden, ff) = (u64::from(self.hidden), u64::from(self.feed_forward));
        let (q, kv) =
            (u64::from(self.heads) * u64::from(self.head_size), u64::from(self.kv_heads) * u64::from(self.head_size));
        hidden * q + 2 * hidden * kv + q * hidden + 3 * hidden * ff
    }

    /// Weights multiplied per token in the output head.
    #[must_use]
    pub fn head_weights(&self) -> u64 {
        u64::from(self.hidden) * u64::from(self.vocabulary)
    }

    /// What a device must have been measured on for its profile to speak about this model.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        Geometry {
            architecture: self.architecture.clone(),
            hidden: self.hidden,
            feed_forward: self.feed_forward,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_size: self.head_size,
            vocabulary: self.vocabulary,
            quantisation: self.quantisation.clone(),
        }
    }
}

/// The shape of a model's layers and their format. Two models of one geometry cost the same per layer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Geometry {
    /// Family of operations.
    pub architecture: String,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of the feed-forward layer.
    pub feed_forward: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Width of one head.
    pub head_size: u32,
    /// Tokens in the vocabulary.
    pub vocabulary: u32,
    /// Format of the layers' matrices.
    pub quantisation: String,
}
