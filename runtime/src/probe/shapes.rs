//! Which passes are timed: the knots of the tables, and shapes between them that tell how well the tables hold.

use crate::engine::cache::blocks_for;
use crate::engine::pass::Pass;
use crate::engine::sampling::Sampling;

/// Decoding sequences that are timed in any case. Kernels take rows in groups, so that the time of a few is no line; it
/// is these few that decide how fast answers come.
const SEQUENCES: [u32; 7] = [1, 2, 3, 4, 5, 6, 8];
/// Contexts of decoding sequences that are timed in any case, in tokens, the new one included: two, for the slope.
const CONTEXTS: [u32; 2] = [16, 256];
/// Longest context of a single one.
const CONTEXT_MAX: u32 = 1024;
/// Tokens of the prefill chunks that are timed in any case.
const CHUNKS: [u32; 3] = [16, 64, 256];
/// Tokens cached before a chunk: none, and so many.
pub(super) const CACHED: u32 = 512;
/// Chunks of so many tokens are bound by arithmetic, so that it does not matter how cold a layer's weights are: they
/// are timed with a part of the layers.
pub(super) const LONG: u32 = 64;
/// Two knots whose quotient is below this are near enough.
const NEAR: f64 = 1.3;

/// A pass to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Sequences of one token each, at this context.
    Decode { sequences: u32, context: u32 },
    /// A chunk of one prompt, so many tokens cached before it.
    Prefill { tokens: u32, cached: u32 },
}

impl Shape {
    pub(super) const fn tokens(self) -> u32 {
        match self {
            Self::Decode { sequences, .. } => sequences,
            Self::Prefill { tokens, .. } => tokens,
        }
    }

    /// Whether it says the same with a part of the layers.
    pub(super) const fn is_long(self) -> bool {
        self.tokens() >= LONG
    }

    fn positions(self) -> u32 {
        match self {
            Self::Decode { context, .. } => context,
            Self::Prefill { tokens, cached } => tokens + cached,
        }
    }

    /// Makes a pass of it. What the tokens are changes no time; they differ so that no row is another's copy. It yields
    /// tokens as it would in service.
    pub(super) fn fill(self, pass: &mut Pass) {
        pass.clear();
        match self {
            Self::Decode { sequences, context } => {
                let each = u32::try_from(blocks_for(context as usize)).unwrap_or(u32::MAX);
                for sequence in 0..sequences {
                    let token = [3 + sequence];
                    pass.push(context as usize - 1, &token, sequence * each.., [0]);
                }
            }
            Self::Prefill { tokens, cached } => {
                let chunk: Vec<u32> = (0..tokens).map(|i| 3 + i % 61).collect();
                pass.push(cached as usize, &chunk, 0.., [tokens as usize - 1]);
            }
        }
        let wanted = pass.wanted.len();
        for _ in 0..wanted {
            pass.ask(Sampling::GREEDY, 1, std::iter::empty());
        }
    }
}

/// The knots of a profile's tables, each list rising.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Knots {
    /// Decoding sequences.
    pub(super) sequences: Vec<u32>,
    /// Contexts of a single one.
    pub(super) contexts: Vec<u32>,
    /// Tokens of a prefill chunk.
    pub(super) chunks: Vec<u32>,
    /// Longest sequence that fits.
    room: u32,
}

/// Where two neighbouring knots are far apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Between {
    /// Two numbers of sequences.
    Sequences(u32),
    /// Two contexts.
    Contexts(u32),
    /// Two chunks, or the most sequences and the shortest chunk.
    Chunks(u32),
}

/// The number between two others that divides their quotient.
fn middle(low: u32, high: u32) -> Option<u32> {
    let between = (f64::from(low) * f64::from(high)).sqrt().round() as u32;
    (f64::from(high) > NEAR * f64::from(low) && between > low && between < high).then_some(between)
}

impl Knots {
    /// Those that are timed in any case, of sequences that fit into so many positions.
    pub(super) fn within(room: usize) -> Self {
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let fit = |knots: &[u32]| knots.iter().copied().filter(|&knot| knot <= room).collect::<Vec<_>>();
        let longest = CONTEXT_MAX.min(room);
        let mut contexts = fit(&CONTEXTS);
        if contexts.last().is_some_and(|&last| last < longest) && contexts.len() == CONTEXTS.len() {
            contexts.push(longest);
        }
        if contexts.is_empty() {
            contexts.push(room.max(1));
        }
        Self { sequences: SEQUENCES.to_vec(), contexts, chunks: fit(&CHUNKS), room }
    }

    /// Contexts at which several sequences are timed.
    pub(super) fn several(&self) -> Vec<u32> {
        let fit: Vec<u32> = CONTEXTS.into_iter().filter(|&context| context <= self.room).collect();
        if fit.is_empty() { vec![self.room.max(1)] } else { fit }
    }

    /// Positions of the longest sequence that any shape has.
    pub(super) fn positions_max(room: usize) -> usize {
        room.min(CONTEXT_MAX as usize)
    }

    /// Rows of the largest pass that any shape has.
    pub(super) fn rows_max() -> usize {
        CHUNKS[2] as usize
    }

    /// Cache blocks that any shape needs.
    pub(super) fn blocks_max(room: usize) -> usize {
        blocks_for(Self::positions_max(room))
            .max(SEQUENCES[SEQUENCES.len() - 1] as usize * blocks_for(CONTEXTS[1] as usize))
    }

    /// The passes that make the tables.
    pub(super) fn shapes(&self) -> Vec<Shape> {
        let several = self.several();
        let mut shapes: Vec<Shape> = self
            .sequences
            .iter()
            .flat_map(|&sequences| several.iter().map(move |&context| Shape::Decode { sequences, context }))
            .collect();
        let single = self.contexts.iter().filter(|context| !several.contains(context));
        shapes.extend(single.map(|&context| Shape::Decode { sequences: 1, context }));
        let chunks = self.chunks.iter().flat_map(|&tokens| [0, CACHED].map(|cached| Shape::Prefill { tokens, cached }));
        shapes.extend(chunks.filter(|shape| shape.positions() <= self.room));
        shapes
    }

    /// Shapes between neighbouring knots, and what a knot there would be.
    pub(super) fn between(&self) -> Vec<(Between, Shape)> {
        let pairs =
            |knots: &[u32]| -> Vec<u32> { knots.windows(2).filter_map(|pair| middle(pair[0], pair[1])).collect() };
        let context = self.several().pop().unwrap_or(1);
        let decode = |sequences, context| Shape::Decode { sequences, context };
        // The shortest chunk and the most sequences are neighbours in the dense table.
        let chunks: Vec<u32> = self.sequences.last().into_iter().chain(&self.chunks).copied().collect();
        let mut found: Vec<(Between, Shape)> = Vec::new();
        found.extend(pairs(&self.contexts).into_iter().map(|knot| (Between::Contexts(knot), decode(1, knot))));
        found.extend(pairs(&self.sequences).into_iter().map(|knot| (Between::Sequences(knot), decode(knot, context))));
        let chunk = |tokens| (Between::Chunks(tokens), Shape::Prefill { tokens, cached: 0 });
        found.extend(pairs(&chunks).into_iter().map(chunk).filter(|(_, shape)| shape.positions() <= self.room));
        found
    }

    /// The shapes at the knots below and above a place, and how far it lies from the first to the second. Between them
    /// the tables are linear.
    pub(super) fn around(&self, between: Between) -> Option<([Shape; 2], f64)> {
        let context = self.several().pop().unwrap_or(1);
        let decode = |sequences, context| Shape::Decode { sequences, context };
        let chunk = |tokens| Shape::Prefill { tokens, cached: 0 };
        let pair = |knots: &[u32], knot: u32| {
            let above = knots.partition_point(|&known| known < knot);
            let (low, high) = (*knots.get(above.checked_sub(1)?)?, *knots.get(above)?);
            Some((low, high, f64::from(knot - low) / f64::from(high - low)))
        };
        match between {
            Between::Sequences(knot) => {
                let (low, high, share) = pair(&self.sequences, knot)?;
                Some(([decode(low, context), decode(high, context)], share))
            }
            Between::Contexts(knot) => {
                let (low, high, share) = pair(&self.contexts, knot)?;
                Some(([decode(1, low), decode(1, high)], share))
            }
            Between::Chunks(knot) => {
                let most = self.sequences.last().copied();
                let chunks: Vec<u32> = most.into_iter().chain(self.chunks.iter().copied()).collect();
                let (low, high, share) = pair(&chunks, knot)?;
                let first = self.several().first().copied().unwrap_or(1);
                let below = if Some(low) == most { decode(low, first) } else { chunk(low) };
                Some(([below, chunk(high)], share))
            }
        }
    }

    /// Takes a knot in.
    pub(super) fn insert(&mut self, between: Between) {
        let (knots, knot) = match between {
            Between::Sequences(knot) => (&mut self.sequences, knot),
            Between::Contexts(knot) => (&mut self.contexts, knot),
            Between::Chunks(knot) => (&mut self.chunks, knot),
        };
        if let Err(place) = knots.binary_search(&knot) {
            knots.insert(place, knot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_knot_taken_in_divides_its_interval_and_is_asked_for_no_more() {
        let mut knots = Knots::within(4096);
        assert_eq!(knots.contexts, [16, 256, 1024]);
        let all: Vec<Between> = knots.between().into_iter().map(|(between, _)| between).collect();
        assert!(all.contains(&Between::Contexts(512)) && all.contains(&Between::Sequences(7)), "{all:?}");
        assert!(all.contains(&Between::Chunks(128)) && all.contains(&Between::Chunks(11)), "{all:?}");
        knots.insert(Between::Chunks(128));
        knots.insert(Between::Chunks(128));
        assert_eq!(knots.chunks, [16, 64, 128, 256]);
        assert!(knots.shapes().contains(&Shape::Prefill { tokens: 128, cached: CACHED }));
        assert!(!knots.between().iter().any(|(between, _)| *between == Between::Chunks(128)));
    }

    #[test]
    fn the_neighbours_of_a_place_are_timed_and_enclose_it() {
        let mut knots = Knots::within(4096);
        for _ in 0..4 {
            let shapes = knots.shapes();
            for (between, shape) in knots.between() {
                let ([low, high], share) = knots.around(between).expect("a place between knots");
                assert!(shapes.contains(&low) && shapes.contains(&high), "{low:?} {shape:?} {high:?}");
                let size = |shape: Shape| match (shape, between) {
                    (Shape::Decode { context, .. }, Between::Contexts(_)) => context,
                    _ => shape.tokens(),
                };
                let expected = f64::from(size(low)) * (1.0 - share) + f64::from(size(high)) * share;
                assert!((expected - f64::from(size(shape))).abs() < 1e-9, "{low:?} {shape:?} {high:?}: {share}");
                knots.insert(between);
            }
        }
    }

    #[test]
    fn every_shape_fits_into_the_room_there_is() {
        for room in [1, 16, 40, 256, 300, 700, 1024, 100_000] {
            let mut knots = Knots::within(room);
            for _ in 0..4 {
                for (between, shape) in knots.between() {
                    assert!(shape.positions() as usize <= room && shape.tokens() as usize <= Knots::rows_max());
                    knots.insert(between);
                }
            }
            for shape in knots.shapes() {
                let blocks = match shape {
                    Shape::Decode { sequences, context } => sequences as usize * blocks_for(context as usize),
                    Shape::Prefill { .. } => blocks_for(shape.positions() as usize),
                };
                assert!(shape.positions() as usize <= room.min(1024), "{shape:?} in {room}");
                assert!(blocks <= Knots::blocks_max(room), "{shape:?} in {room}");
            }
        }
    }
}
