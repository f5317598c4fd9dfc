//! What a layer takes in stages of few layers: caches keep some of their weights from step to step.
//!
//! Steps of a few tokens through a half and a quarter of the layers are timed in turn with the same through all of
//! them, so that whatever disturbs meets all three. Steps of many tokens are bound by arithmetic and gain nothing.

use super::Request;
use super::profile::{Bench, Through, start};
use super::samples::{Samples, median};
use super::shapes::{Knots, LONG, Shape};
use crate::engine::CpuDevice;
use crate::engine::weights::packed_bytes;
use isotherm_core::cost::{OperatorProfile, Resident, TableError};
use std::ops::Range;

/// Rounds through all shapes.
const ROUNDS: Range<usize> = 2..8;
/// Share of a device's time after which no further round begins.
const UNTIL: f64 = 0.8;
/// A share above this is none that a table is kept for.
const HARDLY: f64 = 0.98;
/// No share is below this: what seems so is a disturbance of the whole model's step.
const SHARE_MIN: f64 = 0.02;

/// What is timed.
fn shapes() -> [Shape; 4] {
    let decode = |sequences| Shape::Decode { sequences, context: 16 };
    [decode(1), decode(4), decode(8), Shape::Prefill { tokens: 16, cached: 0 }]
}

/// Of each round, nanoseconds of a layer in a stage of few and of one in the whole model.
type Rounds = Vec<(f64, f64)>;

/// What layers took in stages of few.
pub(super) struct Kept {
    /// Layers of each stage, rising, and its rounds by shape.
    stages: Vec<(usize, Vec<Rounds>)>,
}

impl Kept {
    /// Times a device as far as its time goes.
    pub(super) fn measure(request: &Request<'_>, device: &CpuDevice, bench: &mut Bench<'_, '_>) -> Self {
        let all = request.geometry.layers;
        let half = all / 2;
        let mut ways: Vec<(Through, usize)> =
            bench.part_layers().map(|layers| (Through::Part, layers)).into_iter().collect();
        if half < all && ways.last().is_none_or(|(_, layers)| *layers < half) && half > 0 {
            let room = Knots::positions_max(request.geometry.context);
            let most = (Knots::rows_max(), Knots::blocks_max(room));
            bench.half = start(request, &[(device, 0..half)], request.kernels, most.0, room, most.1).ok();
            ways.extend(bench.half.is_some().then_some((Through::Half, half)));
        }
        let mut kept =
            Self { stages: ways.iter().map(|(_, layers)| (*layers, vec![Vec::new(); shapes().len()])).collect() };
        for _ in 0..ROUNDS.end {
            if ways.is_empty() || !bench.left(UNTIL) {
                break;
            }
            for (at, shape) in shapes().into_iter().enumerate() {
                let whole = bench.burst(shape, Through::All) / all as f64;
                for ((through, layers), (_, shares)) in ways.iter().zip(&mut kept.stages) {
                    shares[at].push((bench.burst(shape, *through) / *layers as f64, whole));
                }
                bench.may_pass_on();
            }
        }
        bench.half = None;
        kept
    }

    /// The table, where there are enough rounds and anything is kept, of a model of so many layers whose head weighs as
    /// much as so many of them. Errors: see [`Resident::new`].
    pub(super) fn table(
        &self,
        profile: &OperatorProfile,
        (layers, head_layers): (usize, f64),
    ) -> Result<Option<Resident>, TableError> {
        let shapes = shapes();
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for (_, by_shape) in &self.stages {
            let mut row = Vec::new();
            for (shape, rounds) in shapes.iter().zip(by_shape) {
                if rounds.len() < ROUNDS.start {
                    return Ok(None);
                }
                // What attention takes is read from the cache of keys and values, which is another's.
                let attention = match *shape {
                    Shape::Decode { sequences, context } => {
                        profile.attention_decode_seconds.at(f64::from(sequences), f64::from(context))
                    }
                    Shape::Prefill { tokens, cached } => {
                        profile.attention_prefill_seconds.at(f64::from(tokens), f64::from(cached))
                    }
                };
                let dense = |nanoseconds: f64| (nanoseconds * 1e-9 - attention.value()).max(1e-12);
                let shares = rounds.iter().map(|(few, all)| dense(*few) / dense(*all)).collect();
                row.push(median(shares).clamp(SHARE_MIN, 1.0));
            }
            rows.push(row);
        }
        if rows.iter().flatten().all(|share| *share > HARDLY) {
            return Ok(None);
        }
        // Whoever holds more keeps no more: where it seems so, samples erred.
        for at in 1..rows.len() {
            let (before, after) = rows.split_at_mut(at);
            for (share, less) in after[0].iter_mut().zip(&before[at - 1]) {
                *share = share.max(*less);
            }
        }
        let tokens: Vec<u32> = shapes.iter().map(|shape| shape.tokens()).chain([LONG]).collect();
        let few = self.stages.iter().map(|(layers, _)| *layers as f64);
        let knots = few.chain([layers as f64 + head_layers]).collect();
        let whole = vec![1.0; shapes.len()];
        let shares = rows.into_iter().chain([whole]).flat_map(|row| row.into_iter().chain([1.0])).collect();
        Resident::new(head_layers, knots, tokens, shares).map(Some)
    }
}

/// Layers of a model, and its head's weights over those of a layer.
pub(super) fn weights(request: &Request<'_>) -> (usize, f64) {
    let (each, head) = packed_bytes(request.gguf, request.geometry, &(0..request.geometry.layers));
    (each.len(), head as f64 * each.len() as f64 / each.iter().sum::<usize>().max(1) as f64)
}

impl Bench<'_, '_> {
    /// Nanoseconds of a shape through some of the layers, the head excepted, in the median of a burst.
    fn burst(&mut self, shape: Shape, through: Through) -> f64 {
        self.warm(shape, through);
        let mut samples = Samples::default();
        self.for_a_burst(|bench| {
            let before = bench.pass.worst_beside();
            bench.run(shape, through, bench.is_card);
            let beside = before.or_worse(bench.pass.worst_beside());
            let work = bench.pass.busy_ns.iter().sum::<u64>().saturating_sub(bench.pass.head_ns);
            samples.add_if(true, beside, work);
        });
        (samples.median() * 1e9 - self.fixed * 1e9).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_core::cost::{Curve, Grid};
    use isotherm_core::figure::How;
    use isotherm_core::ids::Layers;
    use isotherm_core::model::Geometry;
    use isotherm_core::units::Seconds;

    /// A layer's attention takes 100 ns in every step.
    fn profile() -> OperatorProfile {
        let grid = || Grid::new(vec![1], vec![0], vec![Seconds::of(100e-9)]).expect("one knot");
        let none = || Curve::constant(Seconds::ZERO);
        OperatorProfile {
            geometry: Geometry {
                architecture: "llama".to_owned(),
                hidden: 8,
                feed_forward: 8,
                heads: 1,
                kv_heads: 1,
                head_size: 8,
                vocabulary: 8,
                quantisation: "F32".to_owned(),
            },
            arithmetic: "f32".to_owned(),
            how: How::Measured,
            source: None,
            samples: None,
            spread: None,
            when: None,
            dense_seconds: none(),
            attention_prefill_seconds: grid(),
            attention_decode_seconds: grid(),
            head_seconds: none(),
            embedding_seconds: none(),
            step_seconds: Seconds::ZERO,
            iterations: None,
            experts: None,
            resident: None,
            conditions: None,
        }
    }

    /// Two stages of 2 and 4 of 8 layers; each of a layer's times is nanoseconds beyond attention, in all rounds but
    /// one.
    fn kept(two: f64, four: f64, all: f64, rounds: usize) -> Kept {
        let of = |few: f64| -> Rounds {
            let round = |at| if at == 0 { (9e9, 1.0) } else { (100.0 + few, 100.0 + all) };
            (0..rounds).map(round).collect()
        };
        Kept { stages: [(2, two), (4, four)].map(|(layers, few)| (layers, vec![of(few); shapes().len()])).to_vec() }
    }

    fn share(kept: &Kept, layers: u32, tokens: f64) -> Option<f64> {
        let table = kept.table(&profile(), (8, 2.0)).expect("a table that holds");
        table.map(|table| table.share(Layers::new(0, layers), 8, tokens))
    }

    #[test]
    fn shares_are_those_of_most_rounds_without_attention() {
        let kept = kept(600.0, 900.0, 1000.0, 5);
        for (layers, tokens, expected) in
            [(2, 1.0, 0.6), (4, 8.0, 0.9), (3, 4.0, 0.75), (8, 1.0, 1.0), (2, 64.0, 1.0), (2, 40.0, 0.8)]
        {
            let found = share(&kept, layers, tokens).expect("kept");
            assert!((found - expected).abs() < 1e-9, "{layers} {tokens}: {found}");
        }
    }

    #[test]
    fn more_layers_never_seem_to_keep_more_and_nothing_takes_longer_than_in_the_whole() {
        let odd = kept(800.0, 700.0, 1000.0, 5);
        assert!(share(&odd, 4, 1.0).is_some_and(|share| (share - 0.8).abs() < 1e-9));
        let slow = kept(700.0, 1300.0, 1000.0, 5);
        assert_eq!(share(&slow, 4, 1.0), Some(1.0));
    }

    #[test]
    fn there_is_no_table_where_nothing_is_kept_or_too_little_was_timed() {
        assert_eq!(share(&kept(995.0, 1001.0, 1000.0, 5), 2, 1.0), None);
        assert_eq!(share(&kept(600.0, 900.0, 1000.0, 1), 2, 1.0), None);
        assert_eq!(share(&Kept { stages: Vec::new() }, 2, 1.0), None);
    }
}
