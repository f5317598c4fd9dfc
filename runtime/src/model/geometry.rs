//! The shape of a model, read from its metadata and checked against its tensors.

use isotherm_core::digest::Digest;
use isotherm_core::model::Model;
use isotherm_core::units::Bytes;
use sha2::{Digest as _, Sha256};

use super::format::BlockFormat;
use super::gguf::{Gguf, Metadata, MetadataError, Tensor};

/// The name of the tensor that turns tokens into rows.
pub const EMBEDDING: &str = "token_embd.weight";
/// The name of the last norm's weights.
pub const OUTPUT_NORM: &str = "output_norm.weight";
/// The name of the output head; a tied model has none.
pub const OUTPUT: &str = "output.weight";
/// The name of the optional divisors of the rotary frequencies.
pub const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// The shape of a decoder-only transformer of the `llama` family.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// Number of layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub feed_forward: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_size: usize,
    /// Longest sequence the model was trained for, in tokens.
    pub context: usize,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Added to the mean square in every RMS norm.
    pub norm_epsilon: f32,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Whether the output head is the embedding matrix.
    pub tied: bool,
}

/// How queries and keys are rotated by position.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of frequencies.
    pub base: f64,
    /// Leading dimensions of each head that are rotated; the rest pass unchanged.
    pub dimensions: usize,
    /// Which two dimensions turn together.
    pub pairs: RopePairs,
    /// Positions are divided by this (linear scaling); 1 where the file asks for none.
    pub position_divisor: f64,
    /// One divisor per pair, from the tensor `rope_freqs.weight`; empty where there is none.
    pub divisors: Vec<f32>,
}

/// Which two dimensions of a head a rotation turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopePairs {
    /// `(2i, 2i + 1)`: files of architecture `llama`, whose converter permutes the rows of queries and keys.
    Adjacent,
    /// `(i, i + dimensions / 2)`.
    SplitHalves,
}

impl Rope {
    /// The angle in radians by which pair `i` turns per position: `base^(-2i / dimensions)`, over its divisors.
    pub fn frequencies(&self) -> Vec<f64> {
        (0..self.dimensions / 2)
            .map(|i| {
                let plain = self.base.powf(-2.0 * i as f64 / self.dimensions as f64);
                plain / self.position_divisor / self.divisors.get(i).map_or(1.0, |&divisor| f64::from(divisor))
            })
            .collect()
    }
}

/// Why a file cannot be run as a model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GeometryError {
    /// An entry is missing or of the wrong kind.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A model of another family.
    #[error("architecture {found:?} is not supported, only \"llama\"; choose a model of that family")]
    Architecture {
        /// What the file names.
        found: String,
    },
    /// A feature that would change the result and is not implemented.
    #[error("metadata {key:?} asks for {found}, which is not supported; choose another model")]
    Feature {
        /// The key.
        key: String,
        /// What it asks for.
        found: String,
    },
    /// A number outside its range.
    #[error("metadata {key:?} is {found}, allowed is {allowed}; the file is damaged, convert the model again")]
    Range {
        /// The key.
        key: String,
        /// The number in the file.
        found: f64,
        /// What is allowed, in words.
        allowed: String,
    },
    /// A tensor that the geometry needs is not there.
    #[error("tensor {tensor:?} is missing; the file is incomplete, download it again")]
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// A tensor of the wrong shape.
    #[error(
        "tensor {tensor:?} has the dimensions {found:?}, the metadata asks for {wanted:?}; convert the model again"
    )]
    Shape {
        /// Its name.
        tensor: String,
        /// Its dimensions, innermost first.
        found: Vec<u64>,
        /// The dimensions that the metadata implies.
        wanted: Vec<u64>,
    },
    /// Norm weights in a packed format.
    #[error("tensor {tensor:?} is stored as {found}, norm weights must be F32; convert the model again")]
    NormFormat {
        /// Its name.
        tensor: String,
        /// How it is stored.
        found: BlockFormat,
    },
    /// A tensor that this architecture has no use for: to ignore it would compute another model.
    #[error("tensor {tensor:?} is no part of a plain llama model, and ignoring it would change the result")]
    ForeignTensor {
        /// Its name.
        tensor: String,
    },
}

/// One tensor that a geometry needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its name in the file.
    pub name: String,
    /// Its dimensions, innermost first.
    pub dims: Vec<u64>,
    /// Whether it is a norm's weights, which are always F32.
    pub norm: bool,
}

impl Geometry {
    /// Reads the geometry of a file and checks that every tensor is there in the shape it implies.
    ///
    /// # Errors
    /// When metadata is missing or out of range, the architecture is another, or tensors do not fit.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, GeometryError> {
        let metadata = gguf.metadata();
        let architecture = required(metadata.text("general.architecture")?, "general.architecture")?;
        if architecture != "llama" {
            return Err(GeometryError::Architecture { found: architecture.chars().take(64).collect() });
        }
        let hidden = number(metadata, "llama.embedding_length", None)?;
        let heads = number(metadata, "llama.attention.head_count", None)?;
        let kv_heads = number(metadata, "llama.attention.head_count_kv", Some(heads))?;
        let head_size = number(metadata, "llama.attention.key_length", Some(hidden / heads))?;
        let embedding = gguf.tensor(EMBEDDING).ok_or_else(|| missing(EMBEDDING))?;
        let geometry = Self {
            layers: number(metadata, "llama.block_count", None)?,
            hidden,
            feed_forward: number(metadata, "llama.feed_forward_length", None)?,
            heads,
            kv_heads,
            head_size,
            context: number(metadata, "llama.context_length", None)?,
            rope: rope(gguf, head_size)?,
            norm_epsilon: epsilon(metadata)?,
            vocabulary: embedding.rows() as usize,
            tied: gguf.tensor(OUTPUT).is_none(),
        };
        geometry.check_metadata(metadata)?;
        geometry.check_tensors(gguf)?;
        Ok(geometry)
    }

    /// Refuses numbers that contradict each other and features this program does not compute.
    fn check_metadata(&self, metadata: &Metadata) -> Result<(), GeometryError> {
        let range = |key: &str, found: usize, allowed: String| {
            Err(GeometryError::Range { key: key.into(), found: found as f64, allowed })
        };
        if !self.heads.is_multiple_of(self.kv_heads) {
            let allowed = format!("a divisor of the {} query heads", self.heads);
            return range("llama.attention.head_count_kv", self.kv_heads, allowed);
        }
        if metadata.get("llama.attention.key_length").is_none() && !self.hidden.is_multiple_of(self.heads) {
            let allowed = format!("a divisor of the width {}", self.hidden);
            return range("llama.attention.head_count", self.heads, allowed);
        }
        let value_length = number(metadata, "llama.attention.value_length", Some(self.head_size))?;
        if value_length != self.head_size {
            return range("llama.attention.value_length", value_length, format!("the key length {}", self.head_size));
        }
        let vocabulary = number(metadata, "llama.vocab_size", Some(self.vocabulary))?;
        if vocabulary != self.vocabulary {
            return range("llama.vocab_size", vocabulary, format!("the embedding's {} rows", self.vocabulary));
        }
        if self.vocabulary > i32::MAX as usize {
            return range("llama.vocab_size", self.vocabulary, format!("1 to {}", i32::MAX));
        }
        let tokens = metadata.texts("tokenizer.ggml.tokens")?.map_or(self.vocabulary, |tokens| tokens.len());
        if tokens != self.vocabulary {
            return range("tokenizer.ggml.tokens", tokens, format!("the embedding's {} rows", self.vocabulary));
        }
        for key in ["llama.expert_count", "llama.attention.sliding_window"] {
            if let Some(count) = metadata.count(key)?.filter(|&count| count > 0) {
                return Err(GeometryError::Feature { key: key.into(), found: count.to_string() });
            }
        }
        Ok(())
    }

    fn check_tensors(&self, gguf: &Gguf) -> Result<(), GeometryError> {
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
            Some(tensor) => Err(GeometryError::ForeignTensor { tensor: tensor.name.chars().take(64).collect() }),
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
    pub fn layer_tensors(&self, layer: usize) -> [Expected; 9] {
        let (hidden, wide) = (self.hidden as u64, self.feed_forward as u64);
        let (query, kv) = ((self.heads * self.head_size) as u64, (self.kv_heads * self.head_size) as u64);
        let tensor = |part: &str, dims: &[u64]| Expected {
            name: format!("blk.{layer}.{part}.weight"),
            dims: dims.into(),
            norm: dims.len() == 1,
        };
        [
            tensor("attn_norm", &[hidden]),
            tensor("attn_q", &[hidden, query]),
            tensor("attn_k", &[hidden, kv]),
            tensor("attn_v", &[hidden, kv]),
            tensor("attn_output", &[query, hidden]),
            tensor("ffn_norm", &[hidden]),
            tensor("ffn_gate", &[hidden, wide]),
            tensor("ffn_up", &[hidden, wide]),
            tensor("ffn_down", &[wide, hidden]),
        ]
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

    /// Bytes that one token keeps in the key-value cache of one layer, with numbers of `element_bytes` bytes.
    pub fn kv_bytes_per_token_layer(&self, element_bytes: u64) -> u64 {
        2 * (self.kv_heads * self.head_size) as u64 * element_bytes
    }

    /// The format that holds most bytes of the layers' matrices.
    pub fn quantisation(&self, gguf: &Gguf) -> BlockFormat {
        let bytes_in = |format: BlockFormat| -> usize {
            let matrices = gguf.tensors().filter(|tensor| is_layer_matrix(tensor) && tensor.format == format);
            matrices.map(|tensor| tensor.bytes.len()).sum()
        };
        BlockFormat::ALL.into_iter().max_by_key(|&format| bytes_in(format)).expect("there are formats")
    }

    /// The model as planning sees it. `kv_element_bytes` is 4 for a cache in f32, 2 for f16; `digest` is the whole
    /// file's, where it is known (see [`digest`]).
    pub fn describe(&self, gguf: &Gguf, name: &str, kv_element_bytes: u32, digest: Option<Digest>) -> Model {
        let narrow = |count: usize| u32::try_from(count).expect("geometry counts are checked to fit in 32 bits");
        Model {
            name: name.into(),
            architecture: "llama".into(),
            hidden: narrow(self.hidden),
            feed_forward: narrow(self.feed_forward),
            heads: narrow(self.heads),
            kv_heads: narrow(self.kv_heads),
            head_size: narrow(self.head_size),
            vocabulary: narrow(self.vocabulary),
            context_max: narrow(self.context),
            quantisation: self.quantisation(gguf).name().into(),
            layer_bytes: (0..self.layers).map(|layer| Bytes(self.layer_bytes(gguf, layer))).collect(),
            embedding_bytes: Bytes(self.embedding_bytes(gguf)),
            head_bytes: Bytes(self.head_bytes(gguf)),
            tied: self.tied,
            kv_element_bytes,
            digest,
        }
    }
}

/// The SHA-256 digest of a whole file. `progress` is told the bytes done and the bytes in all, every 4 MiB.
pub fn digest(gguf: &Gguf, progress: &mut dyn FnMut(u64, u64)) -> Digest {
    let mut hasher = Sha256::new();
    let mut done = 0;
    for piece in gguf.as_bytes().chunks(4 << 20) {
        hasher.update(piece);
        done += piece.len() as u64;
        progress(done, gguf.file_bytes());
    }
    Digest::from_bytes(hasher.finalize().into())
}

fn is_layer_matrix(tensor: &Tensor<'_>) -> bool {
    tensor.name.starts_with("blk.") && tensor.dims.len() > 1
}

fn tensor_bytes(gguf: &Gguf, name: &str) -> u64 {
    gguf.tensor(name).map_or(0, |tensor| tensor.bytes.len() as u64)
}

fn missing(tensor: &str) -> GeometryError {
    GeometryError::MissingTensor { tensor: tensor.into() }
}

fn required<T>(value: Option<T>, key: &str) -> Result<T, MetadataError> {
    value.ok_or_else(|| MetadataError::Missing { key: key.into() })
}

/// A count from 1 to `i32::MAX`, so that products of two fit in 64 bits and every one fits everywhere.
fn number(metadata: &Metadata, key: &str, default: Option<usize>) -> Result<usize, GeometryError> {
    let found = match (metadata.count(key)?, default) {
        (Some(count), _) => count,
        (None, Some(default)) => default as u64,
        (None, None) => return Err(MetadataError::Missing { key: key.into() }.into()),
    };
    let limit = i32::MAX as u64;
    if (1..=limit).contains(&found) {
        return Ok(found as usize);
    }
    Err(GeometryError::Range { key: key.into(), found: found as f64, allowed: format!("1 to {limit}") })
}

fn epsilon(metadata: &Metadata) -> Result<f32, GeometryError> {
    let key = "llama.attention.layer_norm_rms_epsilon";
    let found = required(metadata.real(key)?, key)?;
    if found > 0.0 && found < 1.0 {
        return Ok(found as f32);
    }
    Err(GeometryError::Range { key: key.into(), found, allowed: "above 0 and below 1".into() })
}

fn rope(gguf: &Gguf, head_size: usize) -> Result<Rope, GeometryError> {
    let metadata = gguf.metadata();
    let key = "llama.rope.dimension_count";
    let dimensions = number(metadata, key, Some(head_size))?;
    if !dimensions.is_multiple_of(2) || dimensions > head_size {
        let allowed = format!("an even number up to the head size {head_size}");
        return Err(GeometryError::Range { key: key.into(), found: dimensions as f64, allowed });
    }
    let key = "llama.rope.freq_base";
    let base = metadata.real(key)?.unwrap_or(10_000.0);
    if !(base.is_finite() && base >= 1.0) {
        return Err(GeometryError::Range { key: key.into(), found: base, allowed: "1 or more".into() });
    }
    let position_divisor = position_divisor(metadata)?;
    let divisors = match gguf.tensor(ROPE_DIVISORS) {
        None => Vec::new(),
        Some(tensor) => {
            let wanted = vec![dimensions as u64 / 2];
            if tensor.dims != wanted || tensor.format != BlockFormat::F32 {
                let found = tensor.dims.to_vec();
                return Err(GeometryError::Shape { tensor: ROPE_DIVISORS.into(), found, wanted });
            }
            tensor.dequantise()
        }
    };
    if let Some(&bad) = divisors.iter().find(|divisor| !(divisor.is_finite() && **divisor > 0.0)) {
        let (key, allowed) = (ROPE_DIVISORS.into(), "a finite number above 0".into());
        return Err(GeometryError::Range { key, found: f64::from(bad), allowed });
    }
    Ok(Rope { base, dimensions, pairs: RopePairs::Adjacent, position_divisor, divisors })
}

/// The divisor of positions: 1 without scaling, the factor of linear scaling; other kinds are refused.
fn position_divisor(metadata: &Metadata) -> Result<f64, GeometryError> {
    match metadata.text("llama.rope.scaling.type")? {
        None | Some("none") => Ok(1.0),
        Some("linear") => {
            let key = "llama.rope.scaling.factor";
            let found = required(metadata.real(key)?, key)?;
            if found.is_finite() && found > 0.0 {
                return Ok(found);
            }
            Err(GeometryError::Range { key: key.into(), found, allowed: "a finite number above 0".into() })
        }
        Some(other) => Err(GeometryError::Feature {
            key: "llama.rope.scaling.type".into(),
            found: other.chars().take(64).collect(),
        }),
    }
}
