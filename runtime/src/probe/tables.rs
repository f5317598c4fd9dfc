//! Cost tables made of times of whole passes.

use super::Request;
use super::profile::Timed;
use super::samples::median;
use super::shapes::{CACHED, Knots, Shape};
use isotherm_core::cost::{Conditions, Curve, Grid, OperatorProfile, TableError};
use isotherm_core::figure::How;
use isotherm_core::units::Seconds;

/// Turns times of whole passes into times per layer.
///
/// With `T` the time of a pass over `L` layers, head excepted, a layer takes `T / L`. What grows with the context is
/// attention, the rest is dense; at every knot their sum is what was measured.
pub(super) fn tables(request: &Request<'_>, knots: &Knots, timed: &[Timed]) -> Result<OperatorProfile, TableError> {
    let layers = request.geometry.layers as f64;
    let layer = |wanted: Shape| timed.iter().find(|t| t.shape == wanted).map(|t| t.work() / layers);
    let decode_at = |sequences, context| layer(Shape::Decode { sequences, context });
    let several = knots.several();
    let (first, last) = (several[0], several[several.len() - 1]);
    let mut dense: Vec<(u32, f64)> = Vec::new();
    // What one sequence's attention takes at each context beyond what it takes at none.
    let single: Vec<(u32, f64)> = {
        let times: Vec<(u32, f64)> = knots.contexts.iter().filter_map(|&c| Some((c, decode_at(1, c)?))).collect();
        let times = rising(&times);
        let near = near(decode_at(1, first), decode_at(1, last), (first, last));
        let base = times.first().map_or(0.0, |(_, time)| *time);
        times.iter().map(|(context, time)| (*context, (near + time - base).max(0.0))).collect()
    };
    let columns: Vec<u32> = std::iter::once(0).chain(single.iter().map(|(context, _)| *context)).collect();
    let (mut rows, mut decode): (Vec<u32>, Vec<f64>) = (Vec::new(), Vec::new());
    for &sequences in &knots.sequences {
        let Some(low) = decode_at(sequences, first) else { continue };
        let near = near(Some(low), decode_at(sequences, last), (first, last));
        dense.push((sequences, low - near));
        rows.push(sequences);
        decode.push(0.0);
        // Where several were not timed, they cost so many times what one costs more than where they were.
        let (mut known, mut from) = (near, single.first().map_or(0.0, |(_, time)| *time));
        for &(context, one) in &single {
            if let Some(time) = decode_at(sequences, context) {
                (known, from) = ((near + time - low).max(0.0), one);
            }
            decode.push((known + (one - from) * f64::from(sequences)).max(0.0));
        }
    }
    let one = single.iter().find(|(context, _)| *context == last).map_or(0.0, |(c, time)| time / f64::from(*c));
    let (mut prefill, mut chunks) = (vec![one, one * f64::from(CACHED + 1)], vec![1]);
    for &tokens in &knots.chunks {
        let Some(first) = layer(Shape::Prefill { tokens, cached: 0 }) else { continue };
        let later = layer(Shape::Prefill { tokens, cached: CACHED });
        let per_cached = later.map_or(one * f64::from(tokens), |later| ((later - first) / f64::from(CACHED)).max(0.0));
        // Each of the chunk's tokens sees, of the chunk itself, half on average.
        let own = (per_cached * f64::from(tokens + 1) / 2.0).min(first);
        dense.push((tokens, first - own));
        chunks.push(tokens);
        prefill.extend([own, own + per_cached * f64::from(CACHED)]);
    }
    let head = |sequences: u32| {
        let entry = timed.iter().find(|t| t.shape == Shape::Decode { sequences, context: first })?;
        Some((sequences, entry.head.typical()))
    };
    let heads: Vec<(u32, f64)> = knots.sequences.iter().filter_map(|&sequences| head(sequences)).collect();
    let seconds = |values: Vec<f64>| values.into_iter().map(Seconds::of).collect();
    let curve = |knots: Vec<(u32, f64)>| Curve::new(knots.into_iter().map(|(k, t)| (k, Seconds::of(t))).collect());
    Ok(OperatorProfile {
        geometry: request.model.geometry(),
        arithmetic: request.kernels.arithmetic.name().to_owned(),
        how: How::Measured,
        source: Some(format!("whole passes of {} through all layers", request.model.name)),
        samples: timed.iter().map(|t| t.layers.count()).min(),
        spread: Some(median(timed.iter().map(|t| t.layers.spread()).collect())),
        when: Some(request.when.to_owned()),
        dense_seconds: curve(dense)?,
        attention_prefill_seconds: Grid::new(chunks, vec![0, CACHED], seconds(prefill))?,
        attention_decode_seconds: Grid::new(rows, columns, seconds(decode))?,
        head_seconds: curve(heads)?,
        embedding_seconds: Curve::constant(Seconds::ZERO),
        step_seconds: Seconds::of(median(timed.iter().map(|t| t.around.typical() + t.fixed).collect())),
        iterations: None,
        experts: None,
        resident: None,
        conditions: None,
    })
}

/// The nearest times, by least squares, that do not fall while their counts rise: more context never takes less, so
/// that where it seems to, samples erred on both sides (pool adjacent violators; Ayer et al., 1955).
fn rising(times: &[(u32, f64)]) -> Vec<(u32, f64)> {
    // Mean and number of what was pooled.
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for &(_, time) in times {
        let mut pool = (time, 1);
        while let Some(&(before, count)) = pools.last().filter(|(before, _)| *before > pool.0) {
            let both = count + pool.1;
            pool = ((before * count as f64 + pool.0 * pool.1 as f64) / both as f64, both);
            pools.pop();
        }
        pools.push(pool);
    }
    let pooled = pools.into_iter().flat_map(|(time, count)| std::iter::repeat_n(time, count));
    times.iter().zip(pooled).map(|(&(count, _), time)| (count, time)).collect()
}

/// What attention takes at the shorter of two contexts, by the line through both: it takes nothing at none.
fn near(low: Option<f64>, high: Option<f64>, (first, last): (u32, u32)) -> f64 {
    let (Some(low), Some(high)) = (low, high) else { return 0.0 };
    if last <= first {
        return 0.0;
    }
    let slope = ((high - low) / f64::from(last - first)).max(0.0);
    (slope * f64::from(first)).min(low)
}

/// What the tables say that one layer takes for a shape.
pub(super) fn predicted(profile: &OperatorProfile, shape: Shape) -> f64 {
    let dense = profile.dense_seconds.at(f64::from(shape.tokens()));
    let attention = match shape {
        Shape::Decode { sequences, context } => {
            profile.attention_decode_seconds.at(f64::from(sequences), f64::from(context))
        }
        Shape::Prefill { tokens, cached } => profile.attention_prefill_seconds.at(f64::from(tokens), f64::from(cached)),
    };
    (dense + attention).value()
}

/// By how much the tables miss a shape that was timed, as a share of what it took.
pub(super) fn miss(profile: &OperatorProfile, timed: &Timed, layers: usize) -> f64 {
    let measured = timed.work() / layers.max(1) as f64;
    if measured > 0.0 { predicted(profile, timed.shape) / measured - 1.0 } else { 0.0 }
}

/// Writes into the conditions how well the tables hold between their knots.
pub(super) fn judged(
    profile: &OperatorProfile,
    between: &[Timed],
    layers: usize,
    conditions: Conditions,
) -> Conditions {
    let misses: Vec<f64> = between.iter().map(|timed| miss(profile, timed, layers).abs()).collect();
    let worst = misses.iter().copied().reduce(f64::max);
    Conditions {
        interpolation_error: worst,
        interpolation_error_median: worst.map(|_| median(misses)),
        shapes_between: worst.map(|_| u32::try_from(between.len()).unwrap_or(u32::MAX)),
        ..conditions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_fall_are_pooled_and_no_rising_line_is_nearer() {
        let given = [(16, 5.0), (64, 4.0), (256, 6.0), (512, 5.5), (1024, 9.0)];
        let found = rising(&given);
        assert_eq!(found, [(16, 4.5), (64, 4.5), (256, 5.75), (512, 5.75), (1024, 9.0)]);
        assert_eq!(rising(&found), found);
        // Of all rising sequences on a grid of quarters none is nearer by least squares.
        let far = |times: &[f64]| times.iter().zip(given).map(|(t, (_, wanted))| (t - wanted).powi(2)).sum::<f64>();
        let best = far(&found.iter().map(|(_, time)| *time).collect::<Vec<_>>());
        let mut tried = vec![vec![]];
        for _ in 0..given.len() {
            tried = tried
                .iter()
                .flat_map(|times: &Vec<f64>| {
                    let least = times.last().copied().unwrap_or(3.5);
                    (14..=36).map(|q| f64::from(q) / 4.0).filter(move |t| *t >= least).map(|t| {
                        let mut more = times.clone();
                        more.push(t);
                        more
                    })
                })
                .collect();
        }
        assert!(tried.iter().all(|times| far(times) >= best - 1e-12));
    }
}
