//! What follows attention: a gated layer, or the few experts that a router chooses for each row.

use super::{Scratch, Task};
use crate::cpu::element::gate;
use crate::cpu::input::Input;
use crate::cpu::product::{Store, product};
use crate::cpu::share::Columns;
use crate::engine::pass::Pass;
use crate::engine::weights::{FeedForward, Gated, Layer, Mixture};
use crate::model::geometry::Experts;

/// What feed-forward layers work in.
pub(super) struct Wide {
    gate: Vec<f32>,
    up: Vec<f32>,
    input: Input,
}

impl Wide {
    pub(super) fn new(rows: usize, width: usize) -> Self {
        let table = vec![0.0; rows * width];
        Self { gate: table.clone(), up: table, input: Input::new(rows, width) }
    }
}

/// One expert for one row, and how much it counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    expert: usize,
    row: usize,
    weight: f32,
}

impl Task<'_> {
    pub(super) fn feed_forward(&self, layer: &Layer, scratch: &mut Scratch, pass: &mut Pass) {
        let (rows, hidden) = (pass.rows(), self.how.geometry.hidden);
        match &layer.feed_forward {
            FeedForward::Dense(weights) => {
                let matrices = [&weights.gate, &weights.up];
                self.normed(&pass.hidden, &layer.feed_forward_norm, &matrices, &mut scratch.narrow);
                let Scratch { narrow, wide, result, .. } = scratch;
                match &layer.result_norms {
                    None => self.gated(weights, narrow, rows, wide, Store::Add, &mut pass.hidden),
                    Some([_, weight]) => {
                        let result = &mut result[..rows * hidden];
                        self.gated(weights, narrow, rows, wide, Store::Set, result);
                        self.join(weight, result, &mut pass.hidden);
                    }
                }
            }
            FeedForward::Experts(mixture) => self.mixture(mixture, &layer.feed_forward_norm, scratch, pass),
        }
    }

    /// A gated layer over the rows of `input`.
    fn gated(&self, weights: &Gated, input: &Input, rows: usize, wide: &mut Wide, store: Store, out: &mut [f32]) {
        let how = self.how;
        let width = weights.gate.rows();
        let activation = how.geometry.architecture.activation();
        let (gates, ups) = (&mut wide.gate[..rows * width], &mut wide.up[..rows * width]);
        let piece = self.piece(&weights.gate).max(self.piece(&weights.up));
        let (gates, ups) = (Columns::new(gates, width, piece), Columns::new(ups, width, piece));
        self.team.run(width.div_ceil(piece), &|part| {
            let (mut gates, mut ups) = (gates.take(part), ups.take(part));
            product(how.isa, how.arithmetic, &weights.gate, input, Store::Set, &mut gates);
            product(how.isa, how.arithmetic, &weights.up, input, Store::Set, &mut ups);
            for row in 0..rows {
                gate(how.isa, activation, gates.row(row), ups.row(row));
            }
        });
        let gated = &wide.gate;
        let needs = how.needs(&[&weights.down]);
        wide.input.fill(self.team, how.isa, needs, rows, width, 1, &|first, rows| {
            rows.copy_from_slice(&gated[first * width..][..rows.len()]);
        });
        self.products([&weights.down], &wide.input, store, [out]);
    }

    /// The experts of every row. A row's experts are added in rising order of their numbers, whatever other rows want, so
    /// that a batch changes no bit of it.
    fn mixture(&self, mixture: &Mixture, norm: &[f32], scratch: &mut Scratch, pass: &mut Pass) {
        let how = self.how;
        let (rows, width) = (pass.rows(), how.geometry.hidden);
        let Some(experts) = how.geometry.experts else { return };
        let Scratch { narrow, wide, result, normed, routes, chosen, .. } = scratch;
        let normed = &mut normed[..rows * width];
        for (row, out) in pass.hidden.chunks_exact(width).zip(normed.chunks_exact_mut(width)) {
            how.norm(row, norm, out);
        }
        let normed = &*normed;
        let take = |input: &mut Input, needs, rows: usize, row_of: &(dyn Fn(usize) -> usize + Sync)| {
            input.fill(self.team, how.isa, needs, rows, width, 1, &|first, out| {
                for (i, out) in out.chunks_exact_mut(width).enumerate() {
                    out.copy_from_slice(&normed[row_of(first + i) * width..][..width]);
                }
            });
        };
        take(narrow, how.needs(&[&mixture.router]), rows, &|row| row);
        let routes = &mut routes[..rows * experts.count];
        self.products([&mixture.router], narrow, Store::Set, [&mut *routes]);
        choose(experts, routes, chosen);
        if let Some((weights, sight)) = &mixture.shared {
            take(narrow, how.needs(&[&weights.gate, &weights.up]), rows, &|row| row);
            let result = &mut result[..rows * width];
            self.gated(weights, narrow, rows, wide, Store::Set, result);
            let parts = pass.hidden.chunks_exact_mut(width).zip(result.chunks_exact(width));
            for ((hidden, result), normed) in parts.zip(normed.chunks_exact(width)) {
                let score: f32 = normed.iter().zip(sight).map(|(x, w)| x * w).sum();
                add(hidden, result, 1.0 / (1.0 + (-score).exp()));
            }
        }
        for served in chosen.chunk_by(|a, b| a.expert == b.expert) {
            let weights = &mixture.experts[served[0].expert];
            take(narrow, how.needs(&[&weights.gate, &weights.up]), served.len(), &|i| served[i].row);
            let result = &mut result[..served.len() * width];
            self.gated(weights, narrow, served.len(), wide, Store::Set, result);
            for (choice, result) in served.iter().zip(result.chunks_exact(width)) {
                add(&mut pass.hidden[choice.row * width..][..width], result, choice.weight);
            }
        }
    }
}

fn add(to: &mut [f32], result: &[f32], weight: f32) {
    to.iter_mut().zip(result).for_each(|(to, number)| *to += weight * number);
}

/// The experts of every row: those with the largest scores, the first of equals, in rising order of expert and row. Their
/// weights are a softmax over all experts, or over those chosen where they are to sum to one.
fn choose(experts: Experts, routes: &[f32], chosen: &mut Vec<Choice>) {
    chosen.clear();
    for (row, scores) in routes.chunks_exact(experts.count).enumerate() {
        let mut order: Vec<usize> = (0..experts.count).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let top = scores[order[0]];
        let likelihood = |&expert: &usize| (scores[expert] - top).exp();
        let used = &order[..experts.used];
        let total: f32 = if experts.normalised { used } else { &order }.iter().map(likelihood).sum();
        chosen.extend(used.iter().map(|expert| Choice { expert: *expert, row, weight: likelihood(expert) / total }));
    }
    chosen.sort_by_key(|choice| (choice.expert, choice.row));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_experts_are_chosen_with_the_softmax_of_all_or_of_themselves() {
        let scores = [1.0_f32, 3.0, 2.0, 0.0];
        let whole: f32 = scores.iter().map(|score| score.exp()).sum();
        for normalised in [false, true] {
            let experts = Experts { count: 4, used: 2, feed_forward: 8, shared: None, normalised };
            let mut chosen = Vec::new();
            choose(experts, &scores, &mut chosen);
            let total = if normalised { 3.0_f32.exp() + 2.0_f32.exp() } else { whole };
            assert_eq!(chosen.iter().map(|choice| choice.expert).collect::<Vec<_>>(), [1, 2]);
            for choice in chosen {
                assert!((choice.weight - scores[choice.expert].exp() / total).abs() < 1e-6);
            }
        }
    }
}
