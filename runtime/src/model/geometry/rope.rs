//! How queries and keys are turned by position.

use super::{GeometryError, ROPE_DIVISORS, number, required};
use crate::model::format::BlockFormat;
use crate::model::gguf::{Gguf, Metadata};
use std::f64::consts::PI;

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
    /// Scaling by YaRN, where the file asks for it.
    pub yarn: Option<Yarn>,
    /// One divisor per pair, from the tensor `rope_freqs.weight`, which is how Llama 3 scales; empty where there is none.
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

/// Scaling by parts (Peng et al., "YaRN", 2023): pairs that turn often within the trained context keep their frequency,
/// pairs that turn seldom are slowed by the whole factor, those between by a part of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// By how much the context is stretched.
    pub factor: f64,
    /// The context the model was trained for, in tokens.
    pub context: f64,
    /// Turns within that context from which on a pair keeps its frequency.
    pub fast: f64,
    /// Turns below which a pair is slowed by the whole factor.
    pub slow: f64,
    /// Multiplies the paper's own growth of queries and keys.
    pub magnitude: f64,
}

impl Rope {
    /// The angle in radians by which pair `i` turns per position: `base^(-2i / dimensions)`, over its divisors.
    pub fn frequencies(&self) -> Vec<f64> {
        (0..self.dimensions / 2)
            .map(|i| {
                let plain = self.base.powf(-2.0 * i as f64 / self.dimensions as f64);
                let plain = plain / self.position_divisor / self.divisors.get(i).map_or(1.0, |&d| f64::from(d));
                self.yarn.map_or(plain, |yarn| yarn.scaled(plain, i, self))
            })
            .collect()
    }

    /// What rotated numbers are multiplied by: one but for YaRN, whose `0.1 ln(factor) + 1` is equation 22 of the paper.
    pub fn magnitude(&self) -> f64 {
        self.yarn.map_or(1.0, |yarn| yarn.magnitude * (1.0 + 0.1 * yarn.factor.ln()))
    }

    /// The rotation that a file asks for. `pairs` is its family's.
    pub(super) fn read(gguf: &Gguf, family: &str, head_size: usize, pairs: RopePairs) -> Result<Self, GeometryError> {
        let metadata = gguf.metadata();
        let key = format!("{family}.rope.dimension_count");
        let dimensions = number(metadata, &key, Some(head_size))?;
        if !dimensions.is_multiple_of(2) || dimensions > head_size {
            let allowed = format!("an even number up to the head size {head_size}");
            return Err(GeometryError::Range { key, found: dimensions as f64, allowed });
        }
        let key = format!("{family}.rope.freq_base");
        let base = metadata.real(&key)?.unwrap_or(10_000.0);
        if !(base.is_finite() && base >= 1.0) {
            return Err(GeometryError::Range { key, found: base, allowed: "1 or more".into() });
        }
        let (position_divisor, yarn) = scaling(metadata, family)?;
        let divisors = divisors(gguf, dimensions)?;
        Ok(Self { base, dimensions, pairs, position_divisor, yarn, divisors })
    }
}

impl Yarn {
    /// The frequency of pair `i` whose plain frequency is `plain`.
    fn scaled(self, plain: f64, i: usize, rope: &Rope) -> f64 {
        let dimensions = rope.dimensions as f64;
        // The pair that turns so often within the context (equation 17 of the paper, solved for the dimension).
        let pair_of = |turns: f64| dimensions * (self.context / (turns * 2.0 * PI)).ln() / (2.0 * rope.base.ln());
        let low = pair_of(self.fast).floor().max(0.0);
        let high = pair_of(self.slow).ceil().min(dimensions - 1.0);
        let slowed = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
        plain / self.factor * slowed + plain * (1.0 - slowed)
    }
}

/// One divisor per pair, where the file has them.
fn divisors(gguf: &Gguf, dimensions: usize) -> Result<Vec<f32>, GeometryError> {
    let Some(tensor) = gguf.tensor(ROPE_DIVISORS) else { return Ok(Vec::new()) };
    let wanted = vec![dimensions as u64 / 2];
    if tensor.dims != wanted || tensor.format != BlockFormat::F32 {
        let found = tensor.dims.to_vec();
        return Err(GeometryError::Shape { tensor: ROPE_DIVISORS.into(), found, wanted });
    }
    let divisors = tensor.dequantise();
    match divisors.iter().find(|divisor| !(divisor.is_finite() && **divisor > 0.0)) {
        None => Ok(divisors),
        Some(&bad) => {
            let (key, allowed) = (ROPE_DIVISORS.into(), "a finite number above 0".into());
            Err(GeometryError::Range { key, found: f64::from(bad), allowed })
        }
    }
}

/// The divisor of positions and YaRN's numbers; kinds of scaling that are not known are refused.
fn scaling(metadata: &Metadata, family: &str) -> Result<(f64, Option<Yarn>), GeometryError> {
    let positive = |name: &str, default: Option<f64>| {
        let key = format!("{family}.rope.scaling.{name}");
        let found = match (metadata.real(&key)?, default) {
            (Some(found), _) => found,
            (None, Some(default)) => default,
            (None, None) => required(None, &key)?,
        };
        if found.is_finite() && found > 0.0 {
            return Ok(found);
        }
        Err(GeometryError::Range { key, found, allowed: "a finite number above 0".into() })
    };
    let key = format!("{family}.rope.scaling.type");
    match metadata.text(&key)? {
        None | Some("none") => Ok((1.0, None)),
        Some("linear") => Ok((positive("factor", None)?, None)),
        Some("yarn") => {
            let context_key = format!("{family}.rope.scaling.original_context_length");
            let context = number(metadata, &context_key, None)? as f64;
            let yarn = Yarn {
                factor: positive("factor", None)?,
                context,
                fast: positive("yarn_beta_fast", Some(32.0))?,
                slow: positive("yarn_beta_slow", Some(1.0))?,
                magnitude: positive("yarn_attn_factor", Some(1.0))?,
            };
            Ok((1.0, Some(yarn)))
        }
        Some(other) => Err(GeometryError::Feature { key, found: other.chars().take(64).collect() }),
    }
}
