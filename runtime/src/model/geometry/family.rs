//! What families of models do differently.

use super::{GeometryError, RopePairs, number};
use crate::model::gguf::Metadata;

/// A family of models, as files name it in `general.architecture`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2 and 3, SmolLM2, Mistral; with experts, Mixtral.
    Llama,
    /// Qwen 2 and 2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen 3: norms on each head's queries and keys.
    Qwen3,
    /// Qwen 2 with experts, one of which serves every token.
    Qwen2Moe,
    /// Qwen 3 with experts.
    Qwen3Moe,
    /// Gemma 3: norms after attention and feed-forward too, most layers see a short window.
    Gemma3,
}

/// Every family that this program computes.
pub(super) const ALL: [Architecture; 6] = [
    Architecture::Llama,
    Architecture::Qwen2,
    Architecture::Qwen3,
    Architecture::Qwen2Moe,
    Architecture::Qwen3Moe,
    Architecture::Gemma3,
];

impl Architecture {
    /// Its name in files, which begins its metadata's keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen2Moe => "qwen2moe",
            Self::Qwen3Moe => "qwen3moe",
            Self::Gemma3 => "gemma3",
        }
    }

    /// The family of this name.
    pub(super) fn named(name: &str) -> Result<Self, GeometryError> {
        ALL.into_iter()
            .find(|family| family.name() == name)
            .ok_or_else(|| GeometryError::Architecture { found: name.chars().take(64).collect() })
    }

    /// Whether queries, keys and values have biases.
    #[must_use]
    pub const fn has_biases(self) -> bool {
        matches!(self, Self::Qwen2 | Self::Qwen2Moe)
    }

    /// Whether each head's queries and keys are normed before they are rotated.
    #[must_use]
    pub const fn norms_heads(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Qwen3Moe | Self::Gemma3)
    }

    /// Whether what attention and feed-forward give is normed before it joins the residual stream.
    #[must_use]
    pub const fn norms_results(self) -> bool {
        matches!(self, Self::Gemma3)
    }

    /// Which function gates the feed-forward layer.
    #[must_use]
    pub const fn activation(self) -> Activation {
        if matches!(self, Self::Gemma3) { Activation::Gelu } else { Activation::Silu }
    }

    /// Which dimensions turn together.
    pub(super) const fn pairs(self) -> RopePairs {
        if matches!(self, Self::Llama) { RopePairs::Adjacent } else { RopePairs::SplitHalves }
    }
}

/// The function that gates a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// The tanh form of GELU (Hendrycks and Gimpel, 2016).
    Gelu,
}

/// How far back some layers see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Positions that a token sees, itself included.
    pub positions: usize,
    /// Every so many layers one sees everything; absent where none does.
    pub every: Option<usize>,
}

impl Window {
    /// Whether layer `layer` sees everything.
    #[must_use]
    pub fn opens(&self, layer: usize) -> bool {
        self.every.is_some_and(|every| (layer + 1).is_multiple_of(every))
    }

    pub(super) fn read(metadata: &Metadata, family: Architecture) -> Result<Option<Self>, GeometryError> {
        let key = format!("{}.attention.sliding_window", family.name());
        let Some(found) = metadata.count(&key)?.filter(|&positions| positions > 0) else { return Ok(None) };
        let positions = number(metadata, &key, Some(1)).map(|_| usize::try_from(found).unwrap_or(usize::MAX))?;
        let key = format!("{}.attention.sliding_window_pattern", family.name());
        let default = matches!(family, Architecture::Gemma3).then_some(6);
        let every = match metadata.get(&key) {
            None => default,
            Some(_) => Some(number(metadata, &key, None)?),
        };
        Ok(Some(Self { positions, every }))
    }
}

/// A feed-forward layer cut into experts, of which a token uses a few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// How many there are.
    pub count: usize,
    /// How many a token uses.
    pub used: usize,
    /// Width of one.
    pub feed_forward: usize,
    /// Width of the one that every token uses besides, weighed by a gate of its own.
    pub shared: Option<usize>,
    /// Whether the weights of those used are made to sum to one.
    pub normalised: bool,
}

impl Experts {
    pub(super) fn read(metadata: &Metadata, family: Architecture) -> Result<Option<Self>, GeometryError> {
        let name = family.name();
        let key = |part: &str| format!("{name}.{part}");
        let moe = matches!(family, Architecture::Qwen2Moe | Architecture::Qwen3Moe);
        if !moe && metadata.count(&key("expert_count"))?.is_none_or(|count| count == 0) {
            return Ok(None);
        }
        if matches!(family, Architecture::Qwen2 | Architecture::Qwen3 | Architecture::Gemma3) {
            let count = metadata.count(&key("expert_count"))?.unwrap_or(0);
            return Err(GeometryError::Feature { key: key("expert_count"), found: count.to_string() });
        }
        let count = number(metadata, &key("expert_count"), None)?;
        let used = number(metadata, &key("expert_used_count"), None)?;
        if used > count {
            let allowed = format!("at most the {count} experts");
            return Err(GeometryError::Range { key: key("expert_used_count"), found: used as f64, allowed });
        }
        let whole = number(metadata, &key("feed_forward_length"), None);
        let feed_forward = match metadata.get(&key("expert_feed_forward_length")) {
            Some(_) => number(metadata, &key("expert_feed_forward_length"), None)?,
            None => whole?,
        };
        let shared = match family {
            Architecture::Qwen2Moe => Some(number(metadata, &key("expert_shared_feed_forward_length"), None)?),
            _ => None,
        };
        Ok(Some(Self { count, used, feed_forward, shared, normalised: !matches!(family, Architecture::Qwen2Moe) }))
    }
}
