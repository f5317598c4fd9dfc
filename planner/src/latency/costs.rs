//! The times a chain of stages is made of, for one token (time per output token) or for the chunks of a prompt (time
//! to first token).

use crate::tables::{Intervals, Tables, interval};
use isotherm_core::cost::StepShape;
use isotherm_core::ids::DeviceId;
use isotherm_core::units::{Bytes, Seconds};

/// Times in seconds; infinite where there is no way. Chunk 0 comes first; a decoded token is one chunk.
#[derive(Debug, Clone)]
pub(crate) struct Costs {
    /// Number of layers.
    pub layers: usize,
    /// Number of chunks, at least one.
    pub chunks: usize,
    /// Time of a stage: `[kind][chunk]`, infinite where the layers do not fit.
    pub stage: Vec<Vec<Intervals<f64>>>,
    /// Time between candidates: `[chunk][from][to]`.
    pub hop: Vec<Vec<Vec<f64>>>,
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
        let ids: Vec<DeviceId> = tables.candidates.iter().map(|c| c.id).collect();
        let stage = tables
            .kinds
            .iter()
            .map(|kind| {
                let time = |shape: &StepShape| {
                    Intervals::of(tables.layers, |s, e| {
                        if e > kind.reach[s] {
                            return f64::INFINITY;
                        }
                        value(problem.step(kind.example, interval(s, e), shape))
                    })
                };
                shapes.iter().map(time).collect()
            })
            .collect();
        let hops = |bytes: Bytes| -> Vec<Vec<f64>> {
            let to_all = |&from: &DeviceId| {
                ids.iter()
                    .map(|&to| if from == to { f64::INFINITY } else { value(problem.hop(from, to, bytes)) })
                    .collect()
            };
            ids.iter().map(to_all).collect()
        };
        let mut hop: Vec<Vec<Vec<f64>>> = Vec::with_capacity(shapes.len());
        for (i, shape) in shapes.iter().enumerate() {
            // Chunks are of equal length but for the last.
            let known = shapes[..i].iter().position(|before| before.tokens() == shape.tokens());
            hop.push(match known {
                Some(before) => hop[before].clone(),
                None => hops(row.saturating_mul(shape.tokens().into())),
            });
        }
        Self {
            layers: tables.layers,
            chunks: shapes.len(),
            stage,
            hop,
            entry: ids.iter().map(|&id| value(problem.entry(id, entering))).collect(),
            exit: ids.iter().map(|&id| value(problem.exit(id, 1))).collect(),
        }
    }

    /// Time of a stage of a kind for the chunks `from..` one after another.
    pub fn chunks_from(&self, kind: usize, from: usize, start: usize, end: usize) -> f64 {
        self.stage[kind][from..].iter().map(|times| times.at(start, end)).sum()
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
            let arrives = from.map_or(0.0, |from| *done + self.hop[chunk][from][to]);
            free = free.max(arrives) + self.stage[kind][chunk].at(start, end);
            *done = free;
        }
    }
}
