//! A pass through a model from times of its single operators, as an engine's own kernels showed them.
//!
//! ```text
//! pass = once(tokens) + layers * layer(tokens) + expert_layers * experts(tokens, activated)
//!      + dense_layers * feed_forward(tokens) + layers * attention(chunks, decodes) + tail(sequences) + collectives
//! ```
//!
//! [`OperatorProfile`](super::OperatorProfile) knows prefill and decode attention apart; here both are one kernel, as
//! measured, because an engine that mixes them in a step pays more for them together than for each alone.
//!
//! **Several chunks in one step.** The grid was measured with one chunk. Attention of a chunk of `q` tokens after `c`
//! does `q * (c + (q + 1) / 2)` products per head, and at a fixed number of tokens its time is affine in what was
//! cached. Chunks that share a step are therefore taken for one of all their tokens, after as many cached tokens as
//! give the same work. That number is below zero for many short prompts; the time then continues the line from no
//! cached tokens to as many as the chunk has, but not below the dearest of the chunks alone.
//!
//! **Decodes of unequal context** are taken at their mean, because what they read is its multiple. Where a profile
//! states how much more an uneven batch takes, the share `alpha` of the way from the time at the mean to the time at
//! the greatest context is added ([`Skew`]).

use super::{AttentionTable, Curve, Experts, TableError};
use crate::units::{BytesPerSecond, Seconds};

/// One request's part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Tokens of the request that are cached before the step.
    pub cached: u32,
    /// Tokens of the request in the step. One is a decode.
    pub tokens: u32,
    /// Whether a token is sampled after it.
    pub yields: bool,
}

/// How much of the way to its most expensive decode an uneven batch goes: `alpha` by bucket, each bucket the upper
/// bounds (inclusive) of its ranges.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Skew {
    /// Buckets in no particular order.
    pub buckets: Vec<SkewBucket>,
    /// What holds where no bucket does.
    pub default: f64,
}

/// A bucket of [`Skew`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SkewBucket {
    /// Tokens of the prefill chunk; the nearest in ratio counts.
    pub chunk: u32,
    /// Most decoding sequences.
    pub sequences: f64,
    /// Greatest position of the mean context between the least, 0, and the greatest, 1.
    pub rate: f64,
    /// Greatest longest context.
    pub longest: f64,
    /// Most tokens cached before the chunk.
    pub cached: f64,
    /// Share of the way from the time at the mean to the time at the greatest context.
    pub alpha: f64,
}

impl Skew {
    /// The share for a batch: that of the tightest bucket that holds it.
    #[must_use]
    pub fn alpha(&self, chunk: f64, sequences: f64, rate: f64, longest: f64, cached: f64) -> f64 {
        let ratio = |bucket: &SkewBucket| {
            let (a, b) = (f64::from(bucket.chunk) + 1.0, chunk + 1.0);
            if a > b { a / b } else { b / a }
        };
        let holds = |b: &&SkewBucket| {
            sequences <= b.sequences
                && rate <= b.rate
                && longest <= b.longest
                && cached <= b.cached
                && (b.chunk == 0) == (chunk == 0.0)
        };
        let order = |a: &&SkewBucket, b: &&SkewBucket| {
            ratio(a)
                .total_cmp(&ratio(b))
                .then(a.sequences.total_cmp(&b.sequences))
                .then(a.rate.total_cmp(&b.rate))
                .then(a.longest.total_cmp(&b.longest))
                .then(a.cached.total_cmp(&b.cached))
        };
        self.buckets.iter().filter(holds).min_by(order).map_or(self.default, |bucket| bucket.alpha)
    }
}

/// A ring over the devices of a tensor-parallel group: `2 (n - 1)` messages of `1 / n` of the bytes to sum, half as
/// many to gather.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Collective {
    /// Devices of the group.
    pub devices: u32,
    /// Rate of one device to the next.
    pub bandwidth: BytesPerSecond,
    /// Latency of one message.
    pub latency: Seconds,
    /// Bytes of one token between layers.
    pub token_bytes: f64,
    /// Bytes of the output head's values of one sequence, all devices together.
    pub head_bytes: f64,
}

impl Collective {
    fn gather(&self, bytes: f64) -> Seconds {
        let devices = f64::from(self.devices.max(1));
        (self.latency + Seconds::of(bytes / devices / self.bandwidth.value())) * (devices - 1.0)
    }

    /// Time to sum what each device holds of `tokens` tokens, at every device.
    #[must_use]
    pub fn sum(&self, tokens: f64) -> Seconds {
        self.gather(tokens * self.token_bytes) * 2.0
    }

    /// Time to gather what each device has of `tokens` tokens at every device, and to sum their shares again.
    fn there_and_back(&self, tokens: f64) -> Seconds {
        self.gather(tokens * self.token_bytes) * 2.0
    }

    /// All collectives of a pass: one after the embedding, two in each layer, and the gathering of the head's values.
    fn pass(&self, layers: f64, tokens: f64, sequences: f64) -> Seconds {
        self.sum(tokens) * (2.0 * layers + 1.0) + self.gather(sequences * self.head_bytes)
    }
}

/// Times of a model's operators on a device or a tensor-parallel group, by the engine's own kernels.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerwiseProfile {
    /// Layers of the model.
    pub layers: u32,
    /// What a pass does once for its tokens: embedding and final norm.
    pub once: Curve,
    /// What every layer does for its tokens beside attention and feed-forward.
    pub layer: Curve,
    /// Feed-forward of a layer without experts; none where every layer has experts.
    pub feed_forward: Option<Curve>,
    /// Feed-forward by experts; none where no layer has them.
    pub experts: Option<Experts>,
    /// Attention of a layer.
    pub attention: AttentionTable,
    /// What uneven decodes add to attention; none where nothing is known of it.
    pub skew: Option<Skew>,
    /// What a pass does for each sequence that gets a token: output head and sampling.
    pub tail: Curve,
    /// Messages among the devices of a tensor-parallel group; none on one device.
    pub collective: Option<Collective>,
    /// Messages among the devices that divide the experts: each layer's tokens to all, the sums back.
    pub exchange: Option<Collective>,
    /// Numbers of tokens that a pass is padded to, rising; passes beyond the last are not padded. Engines replay
    /// recorded graphs of a few sizes.
    pub padded: Vec<u32>,
}

impl LayerwiseProfile {
    /// Tokens that the layers compute where the step has `tokens`.
    #[must_use]
    pub fn padded(&self, tokens: u32) -> u32 {
        self.padded.get(self.padded.partition_point(|&size| size < tokens)).copied().unwrap_or(tokens)
    }

    /// The time of one pass.
    #[must_use]
    pub fn pass(&self, spans: &[Span]) -> Seconds {
        let tokens = self.padded(spans.iter().fold(0u32, |sum, span| sum.saturating_add(span.tokens)));
        self.pass_among(spans, tokens, u64::from(tokens))
    }

    /// The time of one pass whose layers compute `tokens` tokens, in a group whose experts get `tokens_of_all`: engines
    /// that share experts pad their steps to the longest and take each layer's experts together.
    #[must_use]
    pub fn pass_among(&self, spans: &[Span], tokens: u32, tokens_of_all: u64) -> Seconds {
        let sequences = f64::from(spans.iter().map(|span| u32::from(span.yields)).sum::<u32>());
        let (tokens, all) = (f64::from(tokens), tokens_of_all as f64);
        let layers = f64::from(self.layers);
        let expert_layers = self.experts.as_ref().map_or(0, |experts| experts.layers.min(self.layers));
        let mut total = self.once.at(tokens) + (self.layer.at(tokens) + self.attention(spans)) * layers;
        if let Some(experts) = &self.experts {
            let exchange = self.exchange.map_or(Seconds::ZERO, |exchange| exchange.there_and_back(all));
            total += (experts.at(all) + exchange) * f64::from(expert_layers);
        }
        if let Some(feed_forward) = &self.feed_forward {
            total += feed_forward.at(tokens) * f64::from(self.layers - expert_layers);
        }
        if sequences > 0.0 {
            total += self.tail.at(sequences);
        }
        if let Some(collective) = &self.collective {
            total += collective.pass(layers, tokens, sequences);
        }
        total
    }

    /// Attention of one layer; none where nobody is served, as when an engine passes a token through for others.
    #[must_use]
    pub fn attention(&self, spans: &[Span]) -> Seconds {
        if spans.is_empty() {
            return Seconds::ZERO;
        }
        let mut batch = Mixed::default();
        for span in spans {
            batch.add(span);
        }
        let (sequences, mean) = (batch.decodes, if batch.decodes > 0.0 { batch.contexts / batch.decodes } else { 0.0 });
        let at = |context: f64| self.chunks(&batch, sequences, context);
        let even = at(mean);
        let (Some(skew), true) = (&self.skew, batch.decodes > 1.0 && batch.longest > batch.shortest) else {
            return even;
        };
        let rate = (mean - batch.shortest) / (batch.longest - batch.shortest);
        let alpha = skew.alpha(batch.tokens, sequences, rate, batch.longest, batch.cached.max(0.0));
        let longest = if alpha == 0.0 { even } else { at(batch.longest) };
        // A table may fall where the batch grows by a hair; uneven decodes do not gain by that.
        if longest > even { (even + (longest - even) * alpha).max(Seconds::ZERO) } else { even }
    }

    /// Attention with the chunks of a batch and its decodes at one context.
    fn chunks(&self, batch: &Mixed, sequences: f64, context: f64) -> Seconds {
        if batch.tokens == 0.0 {
            return self.attention.at(0.0, 0.0, sequences, context);
        }
        if batch.chunks == 1 {
            return self.attention.at(batch.tokens, batch.cached, sequences, context);
        }
        let equal = batch.work / batch.tokens - (batch.tokens + 1.0) / 2.0;
        if equal >= 0.0 {
            return self.attention.at(batch.tokens, equal, sequences, context);
        }
        let none = self.attention.at(batch.tokens, 0.0, sequences, context);
        let same = self.attention.at(batch.tokens, batch.tokens, sequences, context);
        let line = none + (same - none) * (equal / batch.tokens);
        line.max(self.attention.at(batch.dearest.0, batch.dearest.1, sequences, context))
    }
}

/// A step's attention in a few sums.
#[derive(Debug, Default)]
struct Mixed {
    chunks: u32,
    tokens: f64,
    /// Tokens cached before all chunks together.
    cached: f64,
    /// Products per head of all chunks.
    work: f64,
    /// Tokens, and cached before them, of the chunk with most products.
    dearest: (f64, f64),
    dearest_work: f64,
    decodes: f64,
    contexts: f64,
    longest: f64,
    shortest: f64,
}

impl Mixed {
    fn add(&mut self, span: &Span) {
        let (tokens, cached) = (f64::from(span.tokens), f64::from(span.cached));
        if span.tokens == 1 {
            self.shortest = if self.decodes == 0.0 { cached } else { self.shortest.min(cached) };
            self.longest = self.longest.max(cached);
            self.decodes += 1.0;
            self.contexts += cached;
            return;
        }
        let work = tokens * (cached + (tokens + 1.0) / 2.0);
        self.chunks += 1;
        self.tokens += tokens;
        self.cached += cached;
        self.work += work;
        if work > self.dearest_work {
            (self.dearest, self.dearest_work) = ((tokens, cached), work);
        }
    }
}

/// How far from the truth a table is between its points, relative to it: each inner point left out in turn and
/// predicted from its neighbours. A grid twice as coarse is a harsher judge than the table deserves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Residual {
    /// Median of the absolute errors.
    pub median: f64,
    /// Their 95th percentile.
    pub p95: f64,
    /// Mean of the signed errors.
    pub bias: f64,
    /// Points that were left out.
    pub points: usize,
}

impl Residual {
    /// The summary of signed relative errors; zeros where there are none.
    #[must_use]
    pub fn of(errors: Vec<f64>) -> Self {
        let points = errors.len();
        if points == 0 {
            return Self { median: 0.0, p95: 0.0, bias: 0.0, points };
        }
        let bias = errors.iter().sum::<f64>() / points as f64;
        let mut sizes: Vec<f64> = errors.into_iter().map(f64::abs).collect();
        sizes.sort_unstable_by(f64::total_cmp);
        Self { median: sizes[(points - 1) / 2], p95: sizes[(points - 1) * 95 / 100], bias, points }
    }
}

impl Curve {
    /// Relative errors of the inner knots when each is predicted from its neighbours.
    #[must_use]
    pub fn residuals(&self) -> Vec<f64> {
        let error = |three: &[(u32, Seconds)]| {
            let at = |i: usize| (f64::from(three[i].0), three[i].1.value());
            let ((a, low), (x, truth), (b, high)) = (at(0), at(1), at(2));
            (truth > 0.0).then(|| (low + (high - low) * (x - a) / (b - a)) / truth - 1.0)
        };
        self.knots().windows(3).filter_map(error).collect()
    }

    /// The sum of curves, each taken `times`: exact, because a sum of lines is a line between the knots of all.
    /// Errors: there is no curve.
    pub fn sum(curves: &[(&Self, f64)]) -> Result<Self, TableError> {
        let mut knots: Vec<u32> = curves.iter().flat_map(|(curve, _)| curve.knots().iter().map(|k| k.0)).collect();
        knots.sort_unstable();
        knots.dedup();
        let at = |k: u32| curves.iter().map(|&(curve, times)| curve.at(f64::from(k)) * times).sum();
        Self::new(knots.into_iter().map(|k| (k, at(k))).collect())
    }
}
