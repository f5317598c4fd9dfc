//! Step times of one device, and the cost tables made of them.

use super::samples::{Samples, median};
use super::{ProbeError, Request};
use crate::cpu::Isa;
use crate::engine::CpuDevice;
use crate::engine::Kernels;
use crate::engine::cache::blocks_for;
use crate::engine::pass::Pass;
use crate::engine::pipeline::{Pipeline, StagePlace};
use crate::engine::sampling::Sampling;
use crate::engine::stage::StageSpec;
use isotherm_core::cost::{Curve, Grid, OperatorProfile};
use isotherm_core::figure::How;
use isotherm_core::units::Seconds;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Decoding sequences that are timed.
const SEQUENCES: [u32; 4] = [1, 2, 4, 8];
/// Context of several decoding sequences, in tokens, the new one included: two, for the slope.
const CONTEXTS: [u32; 2] = [16, 256];
/// Longest context of a single one.
const CONTEXT_MAX: u32 = 1024;
/// Tokens of the prefill chunks that are timed.
const CHUNKS: [u32; 3] = [16, 64, 256];
/// Tokens cached before a chunk: none, and so many.
const CACHED: u32 = 512;
/// Fewest samples of a shape, and most: the spread of so many is known well enough.
const SAMPLES: Range<u32> = 2..80;
/// The step of one decoding sequence decides how fast a plan answers; it gets so many times the time of another shape.
const FAVOUR: f64 = 3.0;
/// Largest difference of a logit that rounding explains, as a share of the largest logit: two orders of summation of
/// some hundred terms in each of some hundred products.
const SELF_TEST_SHARE: f64 = 2e-3;
/// The same where activations are rounded to eight bits.
const SELF_TEST_SHARE_INT8: f64 = 0.15;

/// A pass to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Sequences of one token each, at this context.
    Decode { sequences: u32, context: u32 },
    /// A chunk of one prompt, so many tokens cached before it.
    Prefill { tokens: u32, cached: u32 },
}

/// A shape and its samples: the work through all layers, the output head after it, and what the pass took beyond both.
struct Timed {
    shape: Shape,
    layers: Samples,
    head: Samples,
    around: Samples,
    /// Time spent on it.
    spent: Duration,
}

impl Timed {
    fn new(shape: Shape) -> Self {
        let none = Samples::default;
        Self { shape, layers: none(), head: none(), around: none(), spent: Duration::ZERO }
    }

    /// How much of its share of the time it has had.
    fn served(&self) -> f64 {
        let favour = if matches!(self.shape, Shape::Decode { sequences: 1, .. }) { FAVOUR } else { 1.0 };
        self.spent.as_secs_f64() / favour
    }
}

/// The stages that a device is measured with: all layers on it.
pub(super) fn start(
    request: &Request<'_>,
    places: &[(&CpuDevice, Range<usize>)],
    kernels: Kernels,
    rows: usize,
    positions: usize,
    blocks: usize,
) -> Result<Pipeline, ProbeError> {
    let places: Vec<StagePlace> = places
        .iter()
        .map(|(device, layers)| StagePlace {
            device: (*device).clone(),
            spec: StageSpec {
                layers: layers.clone(),
                isa: kernels.isa,
                arithmetic: kernels.arithmetic,
                rows_max: rows,
                positions_max: positions,
                cache_blocks: blocks,
            },
        })
        .collect();
    Ok(Pipeline::start(request.gguf, request.geometry, &places)?)
}

/// Measures one device alone, within a time.
pub(super) fn measure(
    request: &Request<'_>,
    device: &CpuDevice,
    share: Seconds,
) -> Result<OperatorProfile, ProbeError> {
    let layers = request.geometry.layers;
    let room = request.geometry.context.min(CONTEXT_MAX as usize);
    let shapes = shapes(room);
    let rows = shapes.iter().map(|shape| shape.tokens() as usize).max().unwrap_or(1);
    let blocks = blocks_for(room).max(SEQUENCES[3] as usize * blocks_for(CONTEXTS[1] as usize));
    self_test(request, device)?;
    let mut pipeline = start(request, &[(device, 0..layers)], request.kernels, rows, room, blocks)?;
    let mut pass = Pass::default();
    let mut timed: Vec<Timed> = shapes.into_iter().map(Timed::new).collect();
    // The first passes warm caches, pages and clock, and do not count.
    for entry in timed.iter().filter(|entry| entry.shape.tokens() <= 16) {
        run(&mut pipeline, &mut pass, entry.shape);
    }
    let begin = Instant::now();
    // Each shape gets an equal share of the time, in turn: whichever has had least comes next.
    while let Some(entry) = next(&mut timed, begin.elapsed().as_secs_f64() < share.value()) {
        let wall = Instant::now();
        run(&mut pipeline, &mut pass, entry.shape);
        let elapsed = wall.elapsed();
        let (work, head) = (pass.busy_ns.iter().sum::<u64>(), pass.head_ns);
        entry.layers.add(work.saturating_sub(head));
        entry.head.add(head);
        entry.around.add(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).saturating_sub(work));
        entry.spent += elapsed;
    }
    sound(device, &mut pass)?;
    tables(request, &timed)
}

/// Errors: a device failed while it was timed. One that is lost fails every later pass too, so that looking at the last
/// one is enough.
pub(super) fn sound(device: &CpuDevice, pass: &mut Pass) -> Result<(), ProbeError> {
    let failed = |source| Err(ProbeError::Failed { device: device.name.clone(), source });
    pass.failed.take().map_or(Ok(()), failed)
}

/// The shape to time next; none when all have enough samples, or just enough once the time is up.
fn next(timed: &mut [Timed], time_left: bool) -> Option<&mut Timed> {
    let enough = if time_left { SAMPLES.end } else { SAMPLES.start };
    let open = timed.iter_mut().filter(|entry| entry.layers.count() < enough);
    open.min_by(|a, b| a.served().total_cmp(&b.served()))
}

fn shapes(room: usize) -> Vec<Shape> {
    let fits = |positions: u32| positions as usize <= room;
    let mut shapes: Vec<Shape> = SEQUENCES
        .iter()
        .flat_map(|&sequences| CONTEXTS.map(|context| Shape::Decode { sequences, context }))
        .chain([Shape::Decode { sequences: 1, context: CONTEXT_MAX }])
        .filter(|shape| matches!(shape, Shape::Decode { context, .. } if fits(*context)))
        .collect();
    let chunks = CHUNKS.iter().flat_map(|&tokens| [0, CACHED].map(|cached| Shape::Prefill { tokens, cached }));
    shapes.extend(chunks.filter(|shape| matches!(shape, Shape::Prefill { tokens, cached } if fits(tokens + cached))));
    shapes
}

impl Shape {
    const fn tokens(self) -> u32 {
        match self {
            Self::Decode { sequences, .. } => sequences,
            Self::Prefill { tokens, .. } => tokens,
        }
    }
}

/// Runs a pass of a shape; it yields tokens as it would in service.
fn run(pipeline: &mut Pipeline, pass: &mut Pass, shape: Shape) {
    let mut next = std::mem::take(pass);
    fill(&mut next, shape);
    pipeline.send(next);
    *pass = pipeline.receive();
}

/// Makes a pass of a shape. What the tokens are changes no time; they differ so that no row is another's copy.
fn fill(pass: &mut Pass, shape: Shape) {
    pass.clear();
    match shape {
        Shape::Decode { sequences, context } => {
            let each = u32::try_from(blocks_for(context as usize)).unwrap_or(u32::MAX);
            for sequence in 0..sequences {
                let token = [3 + sequence];
                pass.push(context as usize - 1, &token, sequence * each.., [0]);
            }
        }
        Shape::Prefill { tokens, cached } => {
            let chunk: Vec<u32> = (0..tokens).map(|i| 3 + i % 61).collect();
            pass.push(cached as usize, &chunk, 0.., [tokens as usize - 1]);
        }
    }
    let wanted = pass.wanted.len();
    for _ in 0..wanted {
        pass.ask(Sampling::GREEDY, 1, std::iter::empty());
    }
}

/// The same pass by this device's kernels and by the portable ones must give the same logits.
fn self_test(request: &Request<'_>, device: &CpuDevice) -> Result<(), ProbeError> {
    let layers = request.geometry.layers;
    let logits = |device: &CpuDevice, kernels: Kernels| -> Result<Vec<f32>, ProbeError> {
        let mut pipeline = start(request, &[(device, 0..layers)], kernels, 4, 16, 1)?;
        let mut pass = Pass::default();
        pass.push(0, &[3, 4, 5], 0.., [2]);
        pipeline.send(pass);
        let pass = pipeline.receive();
        match pass.failed {
            Some(source) => Err(ProbeError::Failed { device: device.name.clone(), source }),
            None => Ok(pass.logits),
        }
    };
    let found = logits(device, request.kernels)?;
    // A card is judged by the processor's plainest kernels.
    let core = CpuDevice::host_cores().first().copied().unwrap_or(0);
    let processor = CpuDevice::new("reference", vec![core]);
    let judge = if device.card.is_some() { &processor } else { device };
    let expected = logits(judge, Kernels { isa: Isa::Portable, ..request.kernels })?;
    let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let worst = found.iter().zip(&expected).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
    let share =
        if request.kernels.arithmetic == crate::cpu::Arithmetic::F32 { SELF_TEST_SHARE } else { SELF_TEST_SHARE_INT8 };
    let limit = f64::from(largest) * share;
    // A device that gives no numbers at all fails too: NaN is not at most anything.
    if found.len() == expected.len() && f64::from(worst) <= limit && found.iter().all(|x| x.is_finite()) {
        return Ok(());
    }
    Err(ProbeError::SelfTest { device: device.name.clone(), found: worst.into(), limit })
}

/// Turns times of whole passes into times per layer.
///
/// With `T` the time of a pass over `L` layers, head excepted, a layer takes `T / L`. What grows with the context is
/// attention, the rest is dense; at every measured shape their sum is what was measured.
fn tables(request: &Request<'_>, timed: &[Timed]) -> Result<OperatorProfile, ProbeError> {
    let layers = request.geometry.layers as f64;
    let layer = |wanted: Shape| timed.iter().find(|t| t.shape == wanted).map(|t| t.layers.typical() / layers);
    let mut dense: Vec<(u32, f64)> = Vec::new();
    let mut decode_columns = vec![0, CONTEXTS[0], CONTEXTS[1]];
    let longest = layer(Shape::Decode { sequences: 1, context: CONTEXT_MAX });
    if longest.is_some() {
        decode_columns.push(CONTEXT_MAX);
    }
    let mut decode: Vec<f64> = Vec::new();
    let mut decode_rows: Vec<u32> = Vec::new();
    for sequences in SEQUENCES {
        let at = |context| layer(Shape::Decode { sequences, context });
        let (Some(low), Some(high)) = (at(CONTEXTS[0]), at(CONTEXTS[1]).or_else(|| at(CONTEXTS[0]))) else { continue };
        let slope = ((high - low) / f64::from(CONTEXTS[1] - CONTEXTS[0])).max(0.0);
        let near = (slope * f64::from(CONTEXTS[0])).min(low);
        dense.push((sequences, low - near));
        decode_rows.push(sequences);
        let far = near + (high - low).max(0.0);
        decode.extend([0.0, near, far]);
        if let Some(longest) = longest {
            // Only one sequence is timed this far; more cost as many times what lies beyond.
            let beyond = layer(Shape::Decode { sequences: 1, context: CONTEXTS[1] }).map_or(0.0, |one| longest - one);
            decode.push(far + beyond.max(0.0) * f64::from(sequences));
        }
    }
    let one = decode_slope(&decode_columns, &decode);
    let (mut prefill, mut chunks) = (vec![one, one * f64::from(CACHED + 1)], vec![1]);
    for tokens in CHUNKS {
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
        let entry = timed.iter().find(|t| t.shape == Shape::Decode { sequences, context: CONTEXTS[0] })?;
        Some((sequences, entry.head.typical()))
    };
    let heads: Vec<(u32, f64)> = SEQUENCES.iter().filter_map(|&sequences| head(sequences)).collect();
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
        attention_decode_seconds: Grid::new(decode_rows, decode_columns, seconds(decode))?,
        head_seconds: curve(heads)?,
        embedding_seconds: Curve::constant(Seconds::ZERO),
        step_seconds: Seconds::of(median(timed.iter().map(|t| t.around.typical()).collect())),
        iterations: None,
        experts: None,
        conditions: None,
    })
}

/// Attention of one token per token of context, from the first row of the decode grid.
fn decode_slope(columns: &[u32], decode: &[f64]) -> f64 {
    match (columns.get(2), decode.get(2)) {
        (Some(&context), Some(&time)) => time / f64::from(context),
        _ => 0.0,
    }
}
