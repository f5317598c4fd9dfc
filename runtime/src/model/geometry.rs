//! The shape of a model, read from its metadata and checked against its tensors.

use isotherm_core::digest::Digest;
use isotherm_core::model::Model;
use isotherm_core::units::Bytes;
use sha2::{Digest as _, Sha256};

mod family;
mod rope;
mod tensors;

pub use family::{Activation, Architecture, Experts, Window};
pub use rope::{Rope, RopePairs, Yarn};
pub use tensors::Expected;

use super::format::BlockFormat;
use super::gguf::{Gguf, Metadata, MetadataError};

/// The name of the tensor that turns tokens into rows.
pub const EMBEDDING: &str = "token_embd.weight";
/// The name of the last norm's weights.
pub const OUTPUT_NORM: &str = "output_norm.weight";
/// The name of the output head; a tied model has none.
pub const OUTPUT: &str = "output.weight";
/// The name of the optional divisors of the rotary frequencies.
pub const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// The shape of a decoder-only transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// Its family, which says what else a layer does.
    pub architecture: Architecture,
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
    /// That of layers which see a window, where it is another.
    pub local_rope: Option<Rope>,
    /// How far back layers see, where it is not everything.
    pub window: Option<Window>,
    /// Experts in the place of the feed-forward layer.
    pub experts: Option<Experts>,
    /// Added to the mean square in every RMS norm.
    pub norm_epsilon: f32,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Whether the output head is the embedding matrix.
    pub tied: bool,
}

/// Why a file cannot be run as a model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GeometryError {
    /// An entry is missing or of the wrong kind.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A model of another family.
    #[error("architecture {found:?} is not supported, only {known}; choose a model of those families",
        known = family::ALL.map(Architecture::name).join(", "))]
    Architecture {
        /// What the file names.
        found: String,
    },
    /// A feature that would change the result, and that no kernel here computes.
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
    #[error("tensor {tensor:?} is no part of a plain {architecture} model, and ignoring it would change the result")]
    ForeignTensor {
        /// Its name.
        tensor: String,
        /// The family of the file.
        architecture: &'static str,
    },
}

impl Geometry {
    /// Reads the geometry of a file and checks that every tensor is there in the shape it implies.
    ///
    /// # Errors
    /// When metadata is missing or out of range, the architecture is another, or tensors do not fit.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, GeometryError> {
        let metadata = gguf.metadata();
        let name = required(metadata.text("general.architecture")?, "general.architecture")?;
        let architecture = Architecture::named(name)?;
        let family = architecture.name();
        let key = |part: &str| format!("{family}.{part}");
        let count = |part: &str, default| number(metadata, &key(part), default);
        let hidden = count("embedding_length", None)?;
        let heads = count("attention.head_count", None)?;
        let kv_heads = count("attention.head_count_kv", Some(heads))?;
        let head_size = count("attention.key_length", Some((hidden / heads).max(1)))?;
        let embedding = gguf.tensor(EMBEDDING).ok_or_else(|| missing(EMBEDDING))?;
        let experts = Experts::read(metadata, architecture)?;
        let window = Window::read(metadata, architecture)?;
        let rope = Rope::read(gguf, family, head_size, architecture.pairs())?;
        // Gemma 3's layers with a window turn by the base of Gemma 2, unscaled (technical report, 2025, section 2).
        let local_rope = window.filter(|_| architecture == Architecture::Gemma3).map(|_| Rope {
            base: 10_000.0,
            position_divisor: 1.0,
            yarn: None,
            divisors: Vec::new(),
            ..rope.clone()
        });
        let geometry = Self {
            architecture,
            layers: count("block_count", None)?,
            hidden,
            feed_forward: match experts {
                None => count("feed_forward_length", None)?,
                Some(experts) => experts.used * experts.feed_forward + experts.shared.unwrap_or(0),
            },
            heads,
            kv_heads,
            head_size,
            context: count("context_length", None)?,
            rope,
            local_rope,
            window,
            experts,
            norm_epsilon: epsilon(metadata, family)?,
            vocabulary: embedding.rows() as usize,
            tied: gguf.tensor(OUTPUT).is_none(),
        };
        geometry.check_metadata(metadata)?;
        geometry.check_tensors(gguf)?;
        Ok(geometry)
    }

    /// Refuses numbers that contradict each other and features this program does not compute.
    fn check_metadata(&self, metadata: &Metadata) -> Result<(), GeometryError> {
        let name = |part: &str| format!("{}.{part}", self.architecture.name());
        let range = |key: String, found: usize, allowed: String| {
            Err(GeometryError::Range { key, found: found as f64, allowed })
        };
        if !self.heads.is_multiple_of(self.kv_heads) {
            let allowed = format!("a divisor of the {} query heads", self.heads);
            return range(name("attention.head_count_kv"), self.kv_heads, allowed);
        }
        if metadata.get(&name("attention.key_length")).is_none() && !self.hidden.is_multiple_of(self.heads) {
            let allowed = format!("a divisor of the width {}", self.hidden);
            return range(name("attention.head_count"), self.heads, allowed);
        }
        let value_length = number(metadata, &name("attention.value_length"), Some(self.head_size))?;
        if value_length != self.head_size {
            let allowed = format!("the key length {}", self.head_size);
            return range(name("attention.value_length"), value_length, allowed);
        }
        let vocabulary = number(metadata, &name("vocab_size"), Some(self.vocabulary))?;
        if vocabulary != self.vocabulary {
            return range(name("vocab_size"), vocabulary, format!("the embedding's {} rows", self.vocabulary));
        }
        if self.vocabulary > i32::MAX as usize {
            return range(name("vocab_size"), self.vocabulary, format!("1 to {}", i32::MAX));
        }
        let tokens = metadata.texts("tokenizer.ggml.tokens")?.map_or(self.vocabulary, |tokens| tokens.len());
        if tokens != self.vocabulary {
            return range("tokenizer.ggml.tokens".into(), tokens, format!("the embedding's {} rows", self.vocabulary));
        }
        for part in ["final_logit_softcapping", "attn_logit_softcapping"] {
            if let Some(cap) = metadata.real(&name(part))?.filter(|&cap| cap != 0.0) {
                return Err(GeometryError::Feature { key: name(part), found: cap.to_string() });
            }
        }
        Ok(())
    }

    /// What embedding rows are multiplied by before the first layer.
    #[must_use]
    pub fn embedding_scale(&self) -> f32 {
        if self.architecture == Architecture::Gemma3 { (self.hidden as f32).sqrt() } else { 1.0 }
    }

    /// What scores of attention are multiplied by: one over the root of the head's size, but for the 62 layers of Gemma
    /// 3 27B, which take the width over the number of heads in its place.
    #[must_use]
    pub fn attention_scale(&self) -> f32 {
        let wide = self.architecture == Architecture::Gemma3 && self.layers == 62;
        let size = if wide { self.hidden / self.heads } else { self.head_size };
        1.0 / (size as f32).sqrt()
    }

    /// The rotation of a layer.
    #[must_use]
    pub fn rope_of(&self, layer: usize) -> &Rope {
        self.local_rope.as_ref().filter(|_| self.window_of(layer).is_some()).unwrap_or(&self.rope)
    }

    /// Positions that a token sees in a layer, itself included; all where absent.
    #[must_use]
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        self.window.filter(|window| !window.opens(layer)).map(|window| window.positions)
    }

    /// What this model does beyond a plain Llama, if anything: for devices that compute only that.
    #[must_use]
    pub fn beyond_llama(&self) -> Option<&'static str> {
        match self.architecture {
            _ if self.experts.is_some() => Some("experts"),
            _ if self.window.is_some() => Some("a sliding window"),
            _ if self.rope.magnitude() != 1.0 => Some("rotations that lengthen"),
            Architecture::Llama => None,
            family if family.has_biases() => Some("biases on queries, keys and values"),
            family if family.norms_heads() => Some("norms on queries and keys"),
            _ => Some("layers of another family"),
        }
    }

    /// Bytes that one token keeps in the key-value cache of one layer, with numbers of `element_bytes` bytes.
    pub fn kv_bytes_per_token_layer(&self, element_bytes: u64) -> u64 {
        2 * (self.kv_heads * self.head_size) as u64 * element_bytes
    }

    /// The model as planning sees it. `kv_element_bytes` is 4 for a cache in f32, 2 for f16; `digest` is the whole
    /// file's, where it is known (see [`digest`]).
    pub fn describe(&self, gguf: &Gguf, name: &str, kv_element_bytes: u32, digest: Option<Digest>) -> Model {
        let narrow = |count: usize| u32::try_from(count).expect("geometry counts are checked to fit in 32 bits");
        Model {
            name: name.into(),
            architecture: self.architecture.name().into(),
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
        // Whoever reads a file once does not keep it in memory.
        gguf.release(piece);
        done += piece.len() as u64;
        progress(done, gguf.file_bytes());
    }
    Digest::from_bytes(hasher.finalize().into())
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

fn epsilon(metadata: &Metadata, family: &str) -> Result<f32, GeometryError> {
    let key = format!("{family}.attention.layer_norm_rms_epsilon");
    let found = required(metadata.real(&key)?, &key)?;
    if found > 0.0 && found < 1.0 {
        return Ok(found as f32);
    }
    Err(GeometryError::Range { key, found, allowed: "above 0 and below 1".into() })
}
