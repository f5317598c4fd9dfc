//! The times a chain of stages is made of, for one token (time per output token) or for the chunks of a prompt (time
//! to first token).

use crate::tables::{Kind, Tables, interval};
use isotherm_core::cost::StepShape;
use isotherm_core::units::{Bytes, Seconds};

/// A time for every number of layers, and whether the first and the last are among them: all that a step's time depends
/// on, by `core::cost`. Whether the layers fit is not asked here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Steps {
    layers: usize,
    values: Vec<f64>,
}

impl Steps {
    /// The values of a function of (start, end), asked where a kind can hold such an interval; infinite elsewhere.
    pub fn of(kind: &Kind, layers: usize, mut value: impl FnMut(usize, usize) -> f64) -> Self {
        let mut values = vec![f64::INFINITY; 4 * (layers + 1)];
        let mut place = |start: usize, end: usize| {
            let at = Self::place(layers, start, end);
            if end <= kind.reach[start] && values[at] == f64::INFINITY {
                values[at] = value(start, end);
            }
        };
        for length in 1..=layers {
            place(0, length);
            place(layers - length, layers);
            // The first inner interval that fits stands for all of its length.
            if let Some(start) = (1..layers.saturating_sub(length)).find(|&s| s + length <= kind.reach[s]) {
                place(start, start + length);
            }
        }
        Self { layers, values }
    }

    /// Which ends an interval holds: 2 for the first layer, 1 for the last.
    pub fn ends(layers: usize, start: usize, end: usize) -> usize {
        2 * usize::from(start == 0) + usize::from(end == layers)
    }

    fn place(layers: usize, start: usize, end: usize) -> usize {
        Self::ends(layers, start, end) * (layers + 1) + end - start
    }

    /// The value of `start..end`.
    pub fn at(&self, start: usize, end: usize) -> f64 {
        self.values[Self::place(self.layers, start, end)]
    }

    /// The values by number of layers, of intervals that hold these ends.
    pub fn row(&self, ends: usize) -> &[f64] {
        &self.values[ends * (self.layers + 1)..][..=self.layers]
    }

    /// The least value.
    pub fn least(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Each value changed.
    pub fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        Self { layers: self.layers, values: self.values.iter().map(|&value| change(value)).collect() }
    }

    /// Each value and another's made one.
    pub fn with(&self, other: &Self, join: impl Fn(f64, f64) -> f64) -> Self {
        let values = self.values.iter().zip(&other.values).map(|(&a, &b)| join(a, b)).collect();
        Self { layers: self.layers, values }
    }

    /// The values where another's satisfy a condition; infinite elsewhere.
    pub fn masked(&self, other: &Self, condition: impl Fn(f64) -> bool) -> Self {
        let kept = |(&value, &other): (&f64, &f64)| if condition(other) { value } else { f64::INFINITY };
        Self { layers: self.layers, values: self.values.iter().zip(&other.values).map(kept).collect() }
    }

    /// Adds another's values.
    fn add(&mut self, other: &Self) {
        self.values.iter_mut().zip(&other.values).for_each(|(value, other)| *value += other);
    }
}

/// Times in seconds; infinite where there is no way. Chunk 0 comes first; a decoded token is one chunk.
#[derive(Debug, Clone)]
pub(crate) struct Costs {
    /// Number of layers.
    pub layers: usize,
    /// Number of chunks, at least one.
    pub chunks: usize,
    /// Time of a stage: `[kind][chunk]`.
    pub stage: Vec<Vec<Steps>>,
    /// Number of candidates.
    pub candidates: usize,
    /// Time between candidates, by size of the message: `[from][to]` in one row.
    pub hop: Vec<Vec<f64>>,
    /// The message of each chunk.
    pub message_of: Vec<usize>,
    /// Time for a request to reach a candidate.
    pub entry: Vec<f64>,
    /// Time for a token to leave it.
    pub exit: Vec<f64>,
}

fn value(time: Option<Seconds>) -> f64 {
    time.map_or(f64::INFINITY, Seconds::value)
}

impl Costs {
    /// Times per output token, at the mean context.
    pub fn decode(tables: &Tables<'_>) -> Self {
        let context = tables.problem.mean_context();
        Self::of(tables, &[StepShape::decode(1, context)], 1)
    }

    /// Times to the first token of a mean prompt.
    pub fn prefill(tables: &Tables<'_>) -> Self {
        let chunks: Vec<StepShape> = tables.problem.prefill_chunks().collect();
        let prompt = chunks.iter().map(|c| u64::from(c.tokens())).sum();
        Self::of(tables, &chunks, prompt)
    }

    fn of(tables: &Tables<'_>, shapes: &[StepShape], entering: u64) -> Self {
        let problem = tables.problem;
        let row = problem.model.boundary_bytes_per_token();
        let stage = tables
            .kinds
            .iter()
            .map(|kind| {
                let time = |shape: &StepShape| {
                    Steps::of(kind, tables.layers, |s, e| value(problem.step(kind.example, interval(s, e), shape)))
                };
                shapes.iter().map(time).collect()
            })
            .collect();
        let hops = |bytes: Bytes| -> Vec<f64> {
            let mut times = Vec::with_capacity(tables.candidates.len() * tables.candidates.len());
            for from in &tables.candidates {
                let all = problem.graph.times_from(from.id, bytes);
                let to_one = |to: isotherm_core::ids::DeviceId| {
                    if from.id == to { f64::INFINITY } else { value(all[to.index()]) }
                };
                times.extend(tables.candidates.iter().map(|to| to_one(to.id)));
            }
            times
        };
        // Chunks are of equal length but for the last.
        let (mut sizes, mut message_of): (Vec<u32>, Vec<usize>) = (Vec::new(), Vec::new());
        for shape in shapes {
            let known = sizes.iter().position(|&tokens| tokens == shape.tokens());
            message_of.push(known.unwrap_or(sizes.len()));
            if known.is_none() {
                sizes.push(shape.tokens());
            }
        }
        Self {
            layers: tables.layers,
            chunks: shapes.len(),
            stage,
            candidates: tables.candidates.len(),
            hop: sizes.iter().map(|&tokens| hops(row.saturating_mul(tokens.into()))).collect(),
            message_of,
            entry: tables.candidates.iter().map(|c| value(problem.entry(c.id, entering))).collect(),
            exit: tables.candidates.iter().map(|c| value(problem.exit(c.id, 1))).collect(),
        }
    }

    /// Time of a chunk between two candidates.
    pub fn way(&self, chunk: usize, from: usize, to: usize) -> f64 {
        self.hop[self.message_of[chunk]][from * self.candidates + to]
    }

    /// The chunk that a walk follows between the first and the last of its long stages: the last one that is as long
    /// as the first. A shorter one at the end passes stages in less time and waits behind the others.
    pub fn followed(&self) -> usize {
        let last = self.chunks - 1;
        if self.message_of[last] == self.message_of[0] { last } else { last - 1 }
    }

    /// Phases of a walk: with the first chunk up to the first long stage, with the followed one from there, and with
    /// the last, where that is another one, from the last long stage on. One chunk has one.
    pub fn phases(&self) -> usize {
        if self.chunks == 1 { 1 } else { 2 + usize::from(self.followed() < self.chunks - 1) }
    }

    /// The chunk that a walk follows in a phase.
    pub fn chunk_of(&self, phase: usize) -> usize {
        [0, self.followed(), self.chunks - 1][phase]
    }

    /// The least value of a chain that has been followed up to here, `value` being that of the cheapest walk which
    /// goes on in a phase; `turned` where a long stage is behind. Where none is, one is to come: then walks in both
    /// of the first phases are paths of the chain. Where one is, there may be another or not.
    pub fn least_to_come(&self, turned: bool, value: impl Fn(usize) -> f64) -> f64 {
        match (self.phases(), turned) {
            (1, _) => value(0),
            (_, false) => value(0).max(value(1)),
            (2, true) => value(1),
            (_, true) => value(1).min(value(2)),
        }
    }

    /// Time of the stages of a kind for these chunks one after another.
    pub fn some_chunks(&self, kind: usize, chunks: std::ops::Range<usize>) -> Option<Steps> {
        let mut times = self.stage[kind][chunks].iter();
        let mut sum = times.next()?.clone();
        times.for_each(|times| sum.add(times));
        Some(sum)
    }

    /// Time of the stages of a kind for all chunks one after another.
    pub fn all_chunks(&self, kind: usize) -> Steps {
        let mut sum = self.stage[kind][0].clone();
        self.stage[kind][1..].iter().for_each(|times| sum.add(times));
        sum
    }

    /// Value of a chain of (candidate, start, end), with `kinds` the kind of each candidate: the flow-shop recurrence
    /// of the objective, of which one chunk is the sum.
    pub fn value(&self, chain: &[(usize, usize, usize)], kinds: &[usize]) -> f64 {
        let mut done = vec![0.0; self.chunks];
        let (Some(first), Some(last)) = (chain.first(), chain.last()) else { return f64::INFINITY };
        let mut before = None;
        for &(device, start, end) in chain {
            self.advance(&mut done, before, device, kinds[device], start, end);
            before = Some(device);
        }
        self.entry[first.0] + done[self.chunks - 1] + self.exit[last.0]
    }

    /// Passes all chunks through one more stage: `done` holds when each left the last.
    pub fn advance(&self, done: &mut [f64], from: Option<usize>, to: usize, kind: usize, start: usize, end: usize) {
        let mut free = 0.0_f64;
        for (chunk, done) in done.iter_mut().enumerate() {
            let arrives = from.map_or(0.0, |from| *done + self.way(chunk, from, to));
            free = free.max(arrives) + self.stage[kind][chunk].at(start, end);
            *done = free;
        }
    }
}
