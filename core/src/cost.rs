//! How long a step takes: operator profiles, their interpolation, and the roofline that stands in where nothing was
//! measured. The planner uses these figures as coefficients, the simulator as durations, the checker to recompute
//! both.
//!
//! A *step* runs one batch through one stage. Its time is
//!
//! ```text
//! step + layers * (share * dense(tokens) + sum over prefills attention_prefill(chunk, cached) + attention_decode(n, context))
//!      + expert layers * experts(tokens)
//!      + embedding(tokens)      where the stage holds the first layer
//!      + head(sequences)        where the stage holds the last layer
//! ```
//!
//! with a share of 1, or less where a stage is so small that caches keep of it ([`Resident`]); or, where a serving
//! engine was measured only from outside, a table of whole steps ([`IterationTable`]).
//!
//! Tables are interpolated linearly between their knots and extrapolated with the slope of the last segment (never
//! below zero), because each operator is affine in its argument once it is large.

mod attention;
mod conditions;
mod experts;
mod iterations;
mod layerwise;
mod resident;

pub use attention::{AXES, AttentionTable};
pub use conditions::Conditions;
pub use experts::Experts;
pub use iterations::{IterationTable, MIXED_FACTOR_MAX};
pub use layerwise::{Collective, LayerwiseProfile, Residual, Skew, SkewBucket, Span};
pub use resident::Resident;

use crate::device::Device;
use crate::figure::How;
use crate::ids::Layers;
use crate::model::{Geometry, Model};
use crate::units::{FlopsPerSecond, Seconds};
use serde::{Deserialize, Serialize};

/// Seconds over a count of tokens or sequences, as knots in rising order of the count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u32, Seconds)>", into = "Vec<(u32, Seconds)>")]
pub struct Curve(Vec<(u32, Seconds)>);

/// A table that cannot be interpolated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TableError {
    /// There is no knot.
    #[error("a cost table has no knots; give at least one")]
    Empty,
    /// Knots are not in strictly rising order.
    #[error("knot {second} follows {first} in a cost table; knots must rise strictly")]
    NotRising {
        /// A knot.
        first: u32,
        /// The one after it.
        second: u32,
    },
    /// The factor of a mixed step makes no sense.
    #[error("the factor of a mixed step is {0}; give a number from 0 to {MIXED_FACTOR_MAX}")]
    Factor(f64),
    /// Numbers of experts that make no sense.
    #[error(
        "a layer of {count} experts sends each token to {per_token} of them; give every count from 1 to \
         {}, and a token no more experts than there are",
        Experts::COUNT_MAX
    )]
    Experts {
        /// Experts of a layer.
        count: u32,
        /// Experts of a token.
        per_token: u32,
    },
    /// Popularities of experts that make no sense.
    #[error(
        "{given} popularities are given for {experts} experts; give one that is not below zero for each, not all zero"
    )]
    Popularity {
        /// Experts of a layer.
        experts: u32,
        /// Popularities.
        given: usize,
    },
    /// A count of weights that makes no sense.
    #[error("a table of shares has the knot {0} of layers; give rising numbers, zero or more")]
    Weights(f64),
    /// A share that makes no sense.
    #[error(
        "a table of shares holds {0}; give shares above 0 and at most 1 that do not fall as layers rise and end at 1"
    )]
    Share(f64),
    /// A time is below zero.
    #[error("a cost table holds {0} seconds at one knot; times are zero or more")]
    Negative(f64),
    /// The number of values is not the product of the two axes.
    #[error("a cost grid of {rows} by {columns} knots holds {values} values")]
    Shape {
        /// Knots of the first axis.
        rows: usize,
        /// Knots of the second axis.
        columns: usize,
        /// Values given.
        values: usize,
    },
}

fn rising(knots: impl Iterator<Item = u32>) -> Result<(), TableError> {
    let mut before: Option<u32> = None;
    for knot in knots {
        if let Some(first) = before
            && first >= knot
        {
            return Err(TableError::NotRising { first, second: knot });
        }
        before = Some(knot);
    }
    before.map(|_| ()).ok_or(TableError::Empty)
}

fn non_negative(times: impl Iterator<Item = Seconds>) -> Result<(), TableError> {
    times.map(Seconds::value).find(|&t| t < 0.0).map_or(Ok(()), |t| Err(TableError::Negative(t)))
}

/// The segment of `knots` around `at` and the position in it: 0 at its start, 1 at its end, outside when
/// extrapolating. A single knot is a constant.
fn segment(knots: &[u32], at: f64) -> (usize, usize, f64) {
    let last = knots.len() - 1;
    if last == 0 {
        return (0, 0, 0.0);
    }
    let right = knots.partition_point(|&k| f64::from(k) < at).clamp(1, last);
    let (a, b) = (f64::from(knots[right - 1]), f64::from(knots[right]));
    (right - 1, right, (at - a) / (b - a))
}

impl Curve {
    /// A curve through these knots. Errors: no knots, not rising, or a time below zero.
    pub fn new(knots: Vec<(u32, Seconds)>) -> Result<Self, TableError> {
        rising(knots.iter().map(|k| k.0))?;
        non_negative(knots.iter().map(|k| k.1))?;
        Ok(Self(knots))
    }

    /// The same time whatever the count.
    #[must_use]
    pub fn constant(time: Seconds) -> Self {
        Self(vec![(1, time.max(Seconds::ZERO))])
    }

    /// The time at a count.
    #[must_use]
    pub fn at(&self, count: f64) -> Seconds {
        let last = self.0.len() - 1;
        if last == 0 {
            return self.0[0].1;
        }
        let right = self.0.partition_point(|k| f64::from(k.0) < count).clamp(1, last);
        let ((a, ta), (b, tb)) = (self.0[right - 1], self.0[right]);
        let share = (count - f64::from(a)) / (f64::from(b) - f64::from(a));
        (ta * (1.0 - share) + tb * share).max(Seconds::ZERO)
    }

    /// The knots, in rising order.
    #[must_use]
    pub fn knots(&self) -> &[(u32, Seconds)] {
        &self.0
    }
}

impl TryFrom<Vec<(u32, Seconds)>> for Curve {
    type Error = TableError;
    fn try_from(knots: Vec<(u32, Seconds)>) -> Result<Self, TableError> {
        Self::new(knots)
    }
}

impl From<Curve> for Vec<(u32, Seconds)> {
    fn from(curve: Curve) -> Self {
        curve.0
    }
}

/// Seconds over two counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "GridText")]
pub struct Grid {
    /// Knots of the first count, rising.
    rows: Vec<u32>,
    /// Knots of the second count, rising.
    columns: Vec<u32>,
    /// Times, row by row.
    seconds: Vec<Seconds>,
}

#[derive(Deserialize)]
struct GridText {
    rows: Vec<u32>,
    columns: Vec<u32>,
    seconds: Vec<Seconds>,
}

impl TryFrom<GridText> for Grid {
    type Error = TableError;
    fn try_from(text: GridText) -> Result<Self, TableError> {
        Self::new(text.rows, text.columns, text.seconds)
    }
}

impl Grid {
    /// A grid over `rows` x `columns`, times row by row. Errors: as [`Curve::new`], or a wrong number of times.
    pub fn new(rows: Vec<u32>, columns: Vec<u32>, seconds: Vec<Seconds>) -> Result<Self, TableError> {
        rising(rows.iter().copied())?;
        rising(columns.iter().copied())?;
        non_negative(seconds.iter().copied())?;
        if Some(seconds.len()) != rows.len().checked_mul(columns.len()) {
            return Err(TableError::Shape { rows: rows.len(), columns: columns.len(), values: seconds.len() });
        }
        Ok(Self { rows, columns, seconds })
    }

    /// The time at two counts, bilinear between knots.
    #[must_use]
    pub fn at(&self, row: f64, column: f64) -> Seconds {
        let (r0, r1, u) = segment(&self.rows, row);
        let (c0, c1, v) = segment(&self.columns, column);
        let value = |r: usize, c: usize| self.seconds[r * self.columns.len() + c];
        let top = value(r0, c0) * (1.0 - v) + value(r0, c1) * v;
        let bottom = value(r1, c0) * (1.0 - v) + value(r1, c1) * v;
        (top * (1.0 - u) + bottom * u).max(Seconds::ZERO)
    }

    /// Knots of the first count.
    #[must_use]
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Knots of the second count.
    #[must_use]
    pub fn columns(&self) -> &[u32] {
        &self.columns
    }

    /// Times at the knots, row by row.
    #[must_use]
    pub fn seconds(&self) -> &[Seconds] {
        &self.seconds
    }
}

/// Times of a model's operators on one device, at full clock with nothing else running on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorProfile {
    /// What it was measured on.
    pub geometry: Geometry,
    /// Arithmetic of the kernels: `f32`, `int8`, `f16` ...
    pub arithmetic: String,
    /// How the times are known.
    pub how: How,
    /// Method of measurement, or document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Samples behind each knot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u32>,
    /// Median over the knots of interquartile range over median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// When it was measured, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Everything in one layer but attention over the cache, over the tokens of the step.
    pub dense_seconds: Curve,
    /// Attention of one prefill chunk in one layer, over (tokens of the chunk, tokens cached before it).
    pub attention_prefill_seconds: Grid,
    /// Attention of all decoding sequences in one layer, over (sequences, mean context tokens).
    pub attention_decode_seconds: Grid,
    /// Final norm, output head and sampling, over the sequences that need a token.
    pub head_seconds: Curve,
    /// Embedding lookup, over the tokens of the step.
    pub embedding_seconds: Curve,
    /// Cost of a step that does not depend on what is in it.
    pub step_seconds: Seconds,
    /// Times of whole steps, where only those are known: they stand in the place of all of the above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterations: Option<IterationTable>,
    /// Feed-forward by experts, beside everything in `dense_seconds`; absent where no layer has any, or where their
    /// time is in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<Experts>,
    /// How much less a layer takes in stages of few layers; absent where nothing is known of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident: Option<Resident>,
    /// Under which conditions it was measured, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Conditions>,
}

/// What one step asks of a stage.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepShape {
    /// Prefill chunks: tokens of the chunk, tokens of that request cached before it.
    pub prefills: Vec<(u32, u32)>,
    /// Number of decoding sequences, one token each.
    pub decodes: u32,
    /// Mean context of those sequences, in tokens, the new one included.
    pub decode_context: f64,
    /// Sequences that need an output token after this step.
    pub sequences: u32,
}

impl StepShape {
    /// One decode step of `sequences` sequences at a mean context.
    #[must_use]
    pub fn decode(sequences: u32, context: f64) -> Self {
        Self { prefills: Vec::new(), decodes: sequences, decode_context: context, sequences }
    }

    /// One prefill chunk; `last` when it completes its prompt and so yields a token.
    #[must_use]
    pub fn prefill(tokens: u32, cached: u32, last: bool) -> Self {
        Self { prefills: vec![(tokens, cached)], decodes: 0, decode_context: 0.0, sequences: u32::from(last) }
    }

    /// Tokens that pass through the layers.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.prefills.iter().fold(self.decodes, |sum, p| sum.saturating_add(p.0))
    }
}

impl OperatorProfile {
    /// Time of one step through `layers` of a model with `layers_total` layers.
    #[must_use]
    pub fn step(&self, layers: Layers, layers_total: u32, shape: &StepShape) -> Seconds {
        if let Some(table) = &self.iterations {
            return table.step(shape) * (f64::from(layers.len()) / f64::from(layers_total.max(1)));
        }
        let tokens = f64::from(shape.tokens());
        let mut layer = self.dense_seconds.at(tokens);
        if let Some(resident) = &self.resident {
            layer = layer * resident.share(layers, layers_total, tokens);
        }
        for &(chunk, cached) in &shape.prefills {
            layer += self.attention_prefill_seconds.at(f64::from(chunk), f64::from(cached));
        }
        if shape.decodes > 0 {
            layer += self.attention_decode_seconds.at(f64::from(shape.decodes), shape.decode_context);
        }
        let mut total = self.step_seconds + layer * f64::from(layers.len());
        if let Some(experts) = &self.experts {
            // Layers with and without experts are taken to alternate evenly, so that every stage has its part.
            let share = f64::from(experts.layers.min(layers_total)) / f64::from(layers_total.max(1));
            total += experts.at(tokens) * (f64::from(layers.len()) * share);
        }
        if layers.start == 0 {
            total += self.embedding_seconds.at(tokens);
        }
        if layers.end == layers_total && shape.sequences > 0 {
            total += self.head_seconds.at(f64::from(shape.sequences));
        }
        total
    }
}

/// A roofline profile of a model on a device: each operator takes the longer of moving its bytes at the device's
/// memory bandwidth and doing its work at the device's compute rate (Williams, Waterman, Patterson, CACM 2009).
///
/// None where the device's bandwidth is unknown: nothing is assumed. An unknown compute rate leaves the bandwidth
/// bound alone. The result is marked estimated.
#[must_use]
pub fn roofline(device: &Device, model: &Model) -> Option<OperatorProfile> {
    let bandwidth = device.memory_bandwidth_bytes_per_second.as_ref()?.value;
    if bandwidth.value() <= 0.0 {
        return None;
    }
    let flops = device.compute_flops_per_second.as_ref().map(|f| f.value).filter(|f| f.value() > 0.0);
    let layers = f64::from(model.layers().max(1));
    let layer_bytes: f64 = model.layer_bytes.iter().map(|b| b.0 as f64).sum::<f64>() / layers;
    let kv = model.kv_bytes_per_token_layer().0 as f64;
    let moved = |bytes: f64| Seconds::of(bytes / bandwidth.value());
    let worked =
        |operations: f64| flops.map_or(Seconds::ZERO, |rate: FlopsPerSecond| Seconds::of(operations / rate.value()));
    let matrix = |weights: u64, bytes: f64| {
        let time = |count: u32| moved(bytes).max(worked(2.0 * weights as f64 * f64::from(count)));
        // Knots on both sides of the ridge, so that the kink is met to within one token.
        let ridge = flops.map_or(1.0, |rate| bytes / bandwidth.value() * rate.value() / (2.0 * weights.max(1) as f64));
        let ridge = libm::floor(ridge.clamp(1.0, 1e6)) as u32;
        let mut knots: Vec<u32> = vec![1, ridge, ridge + 1, 2 * ridge + 2];
        knots.dedup();
        Curve(knots.into_iter().map(|k| (k, time(k))).collect())
    };
    let row = f64::from(model.heads) * f64::from(model.head_size);
    // Scores and weighted sum: two multiply-adds per query element and cached token.
    let attention = |queries: f64, cached: f64| {
        moved(kv * (cached + queries)).max(worked(4.0 * row * queries * (cached + (queries + 1.0) / 2.0)))
    };
    let (chunks, contexts, sequences) = ([1, 64, 256, 1024, 4096], [0, 256, 1024, 4096, 16384], [1, 8, 32, 128, 512]);
    let grid = |rows: &[u32], time: &dyn Fn(f64, f64) -> Seconds| Grid {
        rows: rows.to_vec(),
        columns: contexts.to_vec(),
        seconds: rows
            .iter()
            .flat_map(|&r| contexts.iter().map(move |&c| (r, c)))
            .map(|(r, c)| time(f64::from(r), f64::from(c)))
            .collect(),
    };
    Some(OperatorProfile {
        geometry: model.geometry(),
        arithmetic: "roofline".to_owned(),
        how: How::Estimated,
        source: Some("roofline from memory bandwidth and compute rate".to_owned()),
        samples: None,
        spread: None,
        when: None,
        dense_seconds: matrix(model.layer_weights(), layer_bytes),
        attention_prefill_seconds: grid(&chunks, &attention),
        attention_decode_seconds: grid(&sequences, &|n, context| attention(1.0, context) * n),
        head_seconds: matrix(model.head_weights(), model.head_bytes.0 as f64),
        embedding_seconds: Curve::constant(Seconds::ZERO),
        step_seconds: Seconds::ZERO,
        iterations: None,
        experts: None,
        resident: None,
        conditions: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(knots: &[(u32, f64)]) -> Curve {
        Curve::new(knots.iter().map(|&(k, t)| (k, Seconds::of(t))).collect()).expect("rising knots")
    }

    #[test]
    fn a_curve_meets_its_knots_and_is_straight_between_and_beyond() {
        let curve = curve(&[(1, 1.0), (3, 2.0), (5, 6.0)]);
        for (count, time) in [(1.0, 1.0), (2.0, 1.5), (3.0, 2.0), (4.0, 4.0), (6.0, 8.0), (0.0, 0.5)] {
            assert!((curve.at(count).value() - time).abs() < 1e-12, "{count}");
        }
    }

    #[test]
    fn no_time_is_below_zero() {
        assert_eq!(curve(&[(1, 4.0), (2, 1.0)]).at(9.0), Seconds::ZERO);
        assert!(Curve::new(vec![(1, Seconds::of(-1.0))]).is_err());
    }

    #[test]
    fn disordered_and_empty_tables_are_refused() {
        assert_eq!(Curve::new(vec![]), Err(TableError::Empty));
        assert!(Curve::new(vec![(2, Seconds::ZERO), (2, Seconds::ZERO)]).is_err());
        assert!(Grid::new(vec![1], vec![1, 2], vec![Seconds::ZERO]).is_err());
    }

    #[test]
    fn a_grid_reproduces_any_bilinear_function() {
        let f = |r: f64, c: f64| 1.0 + 2.0 * r + 3.0 * c + 0.5 * r * c;
        let (rows, columns) = (vec![1, 4, 6], vec![0, 10]);
        let seconds = rows
            .iter()
            .flat_map(|&r| columns.iter().map(move |&c| Seconds::of(f(f64::from(r), f64::from(c)))))
            .collect();
        let grid = Grid::new(rows, columns, seconds).expect("well formed");
        for (r, c) in [(1.0, 0.0), (2.5, 5.0), (6.0, 10.0), (8.0, 20.0)] {
            assert!((grid.at(r, c).value() - f(r, c)).abs() < 1e-9, "{r} {c}");
        }
    }
}
