//! The operators of a profile, and how a pass is put together from them.

use super::table::{Means, Table, curves};
use super::{LlmServingSimError, ProfileMeta};
use crate::cost::{AttentionTable, Collective, Curve, Experts, LayerwiseProfile, Residual, Skew, SkewBucket};
use crate::model::PublicModel;
use crate::units::{BytesPerSecond, Seconds};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Operators that a pass does once, not in each layer.
const ONCE: [&str; 2] = ["embedding", "final_layernorm"];
/// Operators that a layer does twice: before attention and before the feed-forward.
const TWICE: [&str; 1] = ["layernorm"];
/// Operators of the feed-forward of a layer without experts.
const FEED_FORWARD: [&str; 3] = ["gate_up_proj", "act_fn", "down_proj"];
/// Operators of the output: once for each sequence that gets a token.
const TAIL: [&str; 2] = ["lm_head", "sampler"];
/// What no model does without.
const NEEDED: [&str; 3] = ["qkv_proj", "o_proj", "layernorm"];

/// Greatest share of the way to the longest decode that is taken for one.
const ALPHA_MAX: f64 = 100.0;

/// Text of the files of one degree of tensor parallelism.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProfileTexts<'a> {
    /// `dense.csv`.
    pub dense: Option<&'a str>,
    /// `per_sequence.csv`.
    pub per_sequence: Option<&'a str>,
    /// `attention.csv`.
    pub attention: Option<&'a str>,
    /// `moe.csv`.
    pub moe: Option<&'a str>,
    /// `skew_fit.csv`.
    pub skew_fit: Option<&'a str>,
}

/// How far the times between measured points can be trusted: each inner point predicted from its neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Residuals {
    /// Of everything over tokens.
    pub dense: Residual,
    /// Of attention.
    pub attention: Residual,
    /// Of everything over sequences.
    pub tail: Residual,
}

/// A link between devices of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Rate of one device to the next.
    pub bandwidth: BytesPerSecond,
    /// Latency of one message.
    pub latency: Seconds,
}

/// What surrounds the operators: how many devices divide them and how an engine pads its steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Assembly {
    /// Devices of the tensor-parallel group, at least 1.
    pub tensor_parallel: u32,
    /// Engines that share the experts, at least 1.
    pub data_parallel: u32,
    /// Whether devices have whole experts, in the place of a share of each.
    pub expert_parallel: bool,
    /// The link between them; without it collectives take no time.
    pub link: Option<Link>,
    /// Bytes of one number between layers.
    pub element_bytes: u32,
    /// Numbers of tokens that a step is padded to.
    pub padded: Vec<u32>,
}

impl Default for Assembly {
    /// One device, numbers of two bytes, no padding.
    fn default() -> Self {
        Self {
            tensor_parallel: 1,
            data_parallel: 1,
            expert_parallel: false,
            link: None,
            element_bytes: 2,
            padded: Vec::new(),
        }
    }
}

/// All operators of one degree of tensor parallelism.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// What the profile says of itself.
    pub meta: ProfileMeta,
    dense: BTreeMap<String, Curve>,
    per_sequence: BTreeMap<String, Curve>,
    attention: AttentionTable,
    /// Time over tokens by number of activated experts.
    moe: Vec<(u32, Curve)>,
    skew: Option<Skew>,
    /// What the reading of it noted.
    pub notes: Vec<String>,
}

impl Catalogue {
    /// Reads the files of a degree of tensor parallelism. `single` are those of one device: operators that do not
    /// change with the degree, and experts, may stand only there.
    ///
    /// Errors: a file or a column is missing, a cell is no number, or an operator that every pass needs is not there.
    pub fn read(
        meta: ProfileMeta,
        texts: ProfileTexts<'_>,
        single: ProfileTexts<'_>,
    ) -> Result<Self, LlmServingSimError> {
        let mut notes = Vec::new();
        let missing = |file| LlmServingSimError::Missing { file, remedy: "name a folder that holds it with --profile" };
        let dense_text = texts.dense.ok_or_else(|| missing("dense.csv"))?;
        let mut dense = curves("dense.csv", dense_text, "tokens")?;
        let tail_text = texts.per_sequence.ok_or_else(|| missing("per_sequence.csv"))?;
        let mut per_sequence = curves("per_sequence.csv", tail_text, "sequences")?;
        let mut borrow = |own: &mut BTreeMap<String, Curve>, other: BTreeMap<String, Curve>| {
            for (name, curve) in other {
                if let Entry::Vacant(free) = own.entry(name) {
                    let name = free.key();
                    notes.push(format!("{name} is taken from the profile of one device: that of the group lacks it"));
                    free.insert(curve);
                }
            }
        };
        if let Some(text) = single.dense {
            borrow(&mut dense, curves("dense.csv", text, "tokens")?);
        }
        if let Some(text) = single.per_sequence {
            borrow(&mut per_sequence, curves("per_sequence.csv", text, "sequences")?);
        }
        for needed in NEEDED {
            if !dense.contains_key(needed) {
                return Err(LlmServingSimError::Operator { file: "dense.csv", operator: needed.to_owned() });
            }
        }
        if !per_sequence.contains_key("lm_head") {
            return Err(LlmServingSimError::Operator { file: "per_sequence.csv", operator: "lm_head".to_owned() });
        }
        let attention = attention(texts.attention.ok_or_else(|| missing("attention.csv"))?)?;
        let moe = texts.moe.or(single.moe).map(experts).transpose()?.unwrap_or_default();
        let skew = match (texts.skew_fit, meta.skew.enabled) {
            (Some(_), Some(false)) => {
                notes.push(
                    "skew_fit.csv is there, but meta.yaml says that it is not enabled: uneven decodes are taken at \
                     their mean"
                        .to_owned(),
                );
                None
            }
            (Some(text), _) => Some(skew(text, meta.skew.default)?),
            (None, _) => None,
        };
        for (name, _) in dense.iter().filter(|(name, _)| !known(name)) {
            notes.push(format!("operator {name} is not among those that we know: taken once in every layer"));
        }
        Ok(Self { meta, dense, per_sequence, attention, moe, skew, notes })
    }

    /// Whether the model has experts.
    #[must_use]
    pub fn has_experts(&self) -> bool {
        !self.moe.is_empty()
    }

    /// Operators over tokens, by name.
    #[must_use]
    pub const fn dense(&self) -> &BTreeMap<String, Curve> {
        &self.dense
    }

    /// Operators over sequences, by name.
    #[must_use]
    pub const fn per_sequence(&self) -> &BTreeMap<String, Curve> {
        &self.per_sequence
    }

    /// Attention of one layer.
    #[must_use]
    pub const fn attention(&self) -> &AttentionTable {
        &self.attention
    }

    /// Puts the operators of a model together.
    ///
    /// Errors: the profile has experts and the model does not say how many, or the model's layers need a feed-forward
    /// that was not measured.
    pub fn assemble(&self, model: &PublicModel, around: &Assembly) -> Result<LayerwiseProfile, LlmServingSimError> {
        let sum = |file, curves: &[(&Curve, f64)]| {
            Curve::sum(curves).map_err(|source| LlmServingSimError::Table { file, source })
        };
        let named = |names: &[&str]| -> Vec<(&Curve, f64)> {
            names.iter().filter_map(|&name| Some((self.dense.get(name)?, 1.0))).collect()
        };
        let once = named(&ONCE);
        let once = if once.is_empty() { Curve::constant(Seconds::ZERO) } else { sum("dense.csv", &once)? };
        let layer: Vec<(&Curve, f64)> = self
            .dense
            .iter()
            .filter(|(name, _)| !ONCE.contains(&name.as_str()) && !FEED_FORWARD.contains(&name.as_str()))
            .map(|(name, curve)| (curve, if TWICE.contains(&name.as_str()) { 2.0 } else { 1.0 }))
            .collect();
        let experts = self.experts_of(model, around)?;
        let expert_layers = experts.as_ref().map_or(0, |experts| experts.layers);
        let feed_forward = named(&FEED_FORWARD);
        let feed_forward = match (expert_layers < model.layers, feed_forward.is_empty()) {
            (false, _) => None,
            (true, true) => {
                return Err(LlmServingSimError::Operator { file: "dense.csv", operator: "gate_up_proj".to_owned() });
            }
            (true, false) => Some(sum("dense.csv", &feed_forward)?),
        };
        let tail: Vec<(&Curve, f64)> =
            TAIL.iter().filter_map(|&name| Some((self.per_sequence.get(name)?, 1.0))).collect();
        let group = |devices: u32| {
            around.link.filter(|_| devices > 1).map(|link| Collective {
                devices,
                bandwidth: link.bandwidth,
                latency: link.latency,
                token_bytes: f64::from(model.hidden) * f64::from(around.element_bytes),
                head_bytes: f64::from(model.vocabulary) * f64::from(around.element_bytes),
            })
        };
        Ok(LayerwiseProfile {
            layers: model.layers,
            once,
            layer: sum("dense.csv", &layer)?,
            feed_forward,
            experts,
            attention: self.attention.clone(),
            skew: self.skew.clone(),
            tail: sum("per_sequence.csv", &tail)?,
            collective: group(around.tensor_parallel),
            exchange: group(around.data_parallel).filter(|_| self.has_experts()),
            padded: around.padded.clone(),
        })
    }

    fn experts_of(&self, model: &PublicModel, around: &Assembly) -> Result<Option<Experts>, LlmServingSimError> {
        if self.moe.is_empty() {
            return Ok(None);
        }
        let Some(experts) = model.experts else {
            return Err(LlmServingSimError::Missing {
                file: "the model's number of experts",
                remedy: "give its config.json with --model-config",
            });
        };
        // One token goes to as many experts as the profiled layer chose for it.
        let of_one = self.moe.iter().filter(|(_, curve)| curve.knots()[0].0 <= 1).map(|&(activated, _)| activated);
        let measured_per_token = of_one.max().unwrap_or(experts.per_token).min(experts.per_token).max(1);
        let all = around.tensor_parallel.max(1).saturating_mul(around.data_parallel.max(1));
        let (devices, width) = if around.expert_parallel { (all, 1) } else { (1, all) };
        let experts = Experts {
            count: experts.count,
            per_token: experts.per_token,
            layers: experts.layers.min(model.layers),
            devices,
            width,
            measured_per_token,
            popularity: Vec::new(),
            by_activated: self.moe.clone(),
        };
        let table = |source| LlmServingSimError::Table { file: "moe.csv", source };
        experts.checked().map(Some).map_err(table)
    }

    /// How well inner points are predicted from their neighbours.
    #[must_use]
    pub fn residuals(&self) -> Residuals {
        Residuals {
            dense: Residual::of(self.dense.values().flat_map(Curve::residuals).collect()),
            attention: Residual::of(self.attention.residuals().to_vec()),
            tail: Residual::of(self.per_sequence.values().flat_map(Curve::residuals).collect()),
        }
    }
}

fn known(name: &str) -> bool {
    let others = ["qkv_proj", "qk_norm", "rotary_emb", "o_proj"];
    [&ONCE[..], &TWICE[..], &FEED_FORWARD[..], &others[..]].iter().any(|names| names.contains(&name))
}

fn attention(text: &str) -> Result<AttentionTable, LlmServingSimError> {
    let table = Table::read("attention.csv", text)?;
    let axes = ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode"];
    let columns = [table.column(axes[0])?, table.column(axes[1])?, table.column(axes[2])?, table.column(axes[3])?];
    let time = table.column("time_us")?;
    let mut means: Means<[u32; 4]> = Means::default();
    for row in table.rows() {
        let mut at = [0; 4];
        for (count, &column) in at.iter_mut().zip(&columns) {
            *count = table.count(row, column)?;
        }
        means.add(at, table.micros(row, time)?);
    }
    AttentionTable::new(&means.points()).map_err(|source| LlmServingSimError::Table { file: "attention.csv", source })
}

fn experts(text: &str) -> Result<Vec<(u32, Curve)>, LlmServingSimError> {
    let table = Table::read("moe.csv", text)?;
    let (tokens, time) = (table.column("tokens")?, table.column("time_us")?);
    let activated = table.column("activated_experts")?;
    let mut by_activated: BTreeMap<u32, Means<u32>> = BTreeMap::new();
    for row in table.rows() {
        let (activated, tokens) = (table.count(row, activated)?, table.count(row, tokens)?);
        by_activated.entry(activated).or_default().add(tokens, table.micros(row, time)?);
    }
    let rows: Vec<(u32, Curve)> =
        by_activated.iter().map(|(&n, means)| Ok((n, means.curve("moe.csv")?))).collect::<Result<_, _>>()?;
    if rows.is_empty() {
        return Err(LlmServingSimError::Table { file: "moe.csv", source: crate::cost::TableError::Empty });
    }
    Ok(rows)
}

fn skew(text: &str, default: Option<f64>) -> Result<Skew, LlmServingSimError> {
    let table = Table::read("skew_fit.csv", text)?;
    let chunk = table.column("pc")?;
    let labels = [
        table.column("n_label")?,
        table.column("skew_rate_label")?,
        table.column("kv_big_label")?,
        table.column("kp_label")?,
    ];
    let (alpha, samples) = (table.column("alpha")?, table.column("n_samples").ok());
    let mut skew = Skew::default();
    let (mut sum, mut weight) = (0.0, 0.0);
    for row in table.rows() {
        let mut bounds = [0.0; 4];
        for (bound, &column) in bounds.iter_mut().zip(&labels) {
            let label = row.1[column];
            let read = upper_bound(label).ok_or_else(|| table.bad(row.0, format!("{label:?} is no range")))?;
            *bound = read;
        }
        let share = table.number(row, alpha)?;
        if share.abs() > ALPHA_MAX {
            return Err(table.bad(row.0, format!("alpha is {share}, beyond {ALPHA_MAX}")));
        }
        let counted = samples.map(|column| table.number(row, column)).transpose()?.unwrap_or(1.0).max(0.0);
        sum += share * counted;
        weight += counted;
        skew.buckets.push(SkewBucket {
            chunk: table.count(row, chunk)?,
            sequences: bounds[0],
            rate: bounds[1],
            longest: bounds[2],
            cached: bounds[3],
            alpha: share,
        });
    }
    skew.default = default.unwrap_or(if weight > 0.0 { sum / weight } else { 0.0 });
    Ok(skew)
}

/// The upper bound of a range such as `n<=64`, `kvB<=16k`, `sr<=40%`, `kp=0`; none at all for `n>256`.
fn upper_bound(label: &str) -> Option<f64> {
    let (text, above) = match (label.split_once("<="), label.split_once('>'), label.split_once('=')) {
        (Some((_, bound)), _, _) | (None, None, Some((_, bound))) => (bound, false),
        (None, Some((_, bound)), _) => (bound, true),
        _ => return None,
    };
    let (digits, scale) = match text.trim() {
        text if text.ends_with('%') => (&text[..text.len() - 1], 0.01),
        text if text.ends_with(['k', 'K']) => (&text[..text.len() - 1], 1024.0),
        text => (text, 1.0),
    };
    let bound = digits.parse::<f64>().ok().filter(|bound| bound.is_finite())? * scale;
    Some(if above { f64::INFINITY } else { bound })
}

#[cfg(test)]
mod bounds {
    use super::upper_bound;

    #[test]
    fn ranges_are_read_by_their_upper_bound() {
        for (label, bound) in [("n<=64", 64.0), ("kvB<=16k", 16_384.0), ("sr<=40%", 0.4), ("kp=0", 0.0)] {
            assert_eq!(upper_bound(label), Some(bound), "{label}");
        }
        assert_eq!(upper_bound("kvB>16k"), Some(f64::INFINITY));
        assert_eq!((upper_bound("n"), upper_bound("n<=x")), (None, None));
    }
}
