//! Passes that stand for a step of some shape, to time it.

use super::Sampling;
use super::cache::blocks_for;
use super::pass::Pass;
use super::pipeline::Pipeline;
use isotherm_core::cost::StepShape;

/// Positions of a shape's longest sequence.
pub(crate) fn longest(shape: &StepShape) -> usize {
    let chunks = shape.prefills.iter().map(|&(tokens, cached)| (tokens + cached) as usize);
    chunks.max().unwrap_or(0).max(context(shape))
}

/// Cache blocks of all of a shape's sequences.
pub(crate) fn blocks_of(shape: &StepShape) -> usize {
    let chunks = shape.prefills.iter().map(|&(tokens, cached)| blocks_for((tokens + cached) as usize));
    chunks.sum::<usize>() + shape.decodes as usize * blocks_for(context(shape))
}

fn context(shape: &StepShape) -> usize {
    (shape.decode_context.round() as usize).max(1)
}

/// One pass of a shape through a pipeline that has nothing else to do: decoding sequences first, as the scheduler orders
/// them, in the first blocks of the cache.
pub(crate) fn once(pipeline: &mut Pipeline, pass: &mut Pass, shape: &StepShape, looks_beside: bool) {
    let mut next = std::mem::take(pass);
    next.clear();
    next.looks_beside = looks_beside;
    let mut block = 0_u32;
    let mut take = |positions: usize| {
        let first = block;
        block += u32::try_from(blocks_for(positions)).unwrap_or(0);
        first..
    };
    for sequence in 0..shape.decodes {
        next.push(context(shape) - 1, &[3 + sequence % 61], take(context(shape)), [0]);
    }
    let mut yields = shape.sequences.saturating_sub(shape.decodes);
    for &(tokens, cached) in &shape.prefills {
        let chunk: Vec<u32> = (0..tokens).map(|i| 3 + i % 61).collect();
        let last = (yields > 0).then(|| tokens as usize - 1);
        yields = yields.saturating_sub(1);
        next.push(cached as usize, &chunk, take((tokens + cached) as usize), last);
    }
    for _ in 0..next.wanted.len() {
        next.ask(Sampling::GREEDY, 1, std::iter::empty());
    }
    pipeline.send(next);
    *pass = pipeline.receive();
}
