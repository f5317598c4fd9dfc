//! The reference: a decoder written as its definition, by which every fast path is judged.
//!
//! Plain loops, sums in rising order, no fused multiply-add, no rounding of activations, no cache: the whole sequence is
//! computed at once, causally. Generic over the arithmetic, so that the same text also runs in double precision.

use crate::model::Geometry;
use crate::model::geometry::{Activation, EMBEDDING, Experts, OUTPUT, OUTPUT_NORM, RopePairs};
use crate::model::gguf::{Gguf, Tensor};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// The arithmetic in which the reference computes.
pub trait Real:
    Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The nearest number.
    fn of(value: f64) -> Self;
    /// Square root.
    fn root(self) -> Self;
    /// `e` to this power.
    fn exp(self) -> Self;
    /// The number in double precision.
    fn wide(self) -> f64;
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
    fn root(self) -> Self {
        self.sqrt()
    }
    fn exp(self) -> Self {
        self.exp()
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
    fn root(self) -> Self {
        self.sqrt()
    }
    fn exp(self) -> Self {
        self.exp()
    }
    fn wide(self) -> f64 {
        self
    }
}

/// Numbers of some tokens: `[number][token]`, so that the loops over tokens are the inner ones.
struct Table<R> {
    tokens: usize,
    numbers: Vec<R>,
}

impl<R: Real> Table<R> {
    fn zeros(width: usize, tokens: usize) -> Self {
        Self { tokens, numbers: vec![R::of(0.0); width * tokens] }
    }

    fn row(&self, number: usize) -> &[R] {
        &self.numbers[number * self.tokens..][..self.tokens]
    }

    fn row_mut(&mut self, number: usize) -> &mut [R] {
        &mut self.numbers[number * self.tokens..][..self.tokens]
    }

    fn at(&self, number: usize, token: usize) -> R {
        self.numbers[number * self.tokens + token]
    }

    fn add(&mut self, other: &Self) {
        for (to, &value) in self.numbers.iter_mut().zip(&other.numbers) {
            *to = *to + value;
        }
    }
}

/// The logits of positions `first..` of a sequence: row `i` predicts the token after position `first + i`.
///
/// # Panics
/// When the file does not have the geometry's tensors, or a token is not in the vocabulary.
#[must_use]
pub fn logits<R: Real>(gguf: &Gguf, geometry: &Geometry, tokens: &[u32], first: usize) -> Vec<Vec<R>> {
    let embedding = gguf.tensor(EMBEDDING).expect("a geometry is read from a file with an embedding");
    let mut x = Table::<R>::zeros(geometry.hidden, tokens.len());
    let mut row = vec![0.0; geometry.hidden];
    for (t, &token) in tokens.iter().enumerate() {
        let bytes = embedding.row(u64::from(token)).expect("a token of the vocabulary");
        embedding.format.dequantise_row(bytes, &mut row);
        for (number, &value) in row.iter().enumerate() {
            x.row_mut(number)[t] = R::of(f64::from(value)) * R::of(f64::from(geometry.embedding_scale()));
        }
    }
    for layer in 0..geometry.layers {
        let tensor = |part: &str| {
            let name = format!("blk.{layer}.{part}.weight");
            gguf.tensor(&name).expect("a geometry is read from a file with all its tensors")
        };
        let bias = |part: &str, table: &mut Table<R>| {
            let name = format!("blk.{layer}.{part}.bias");
            if let Some(tensor) = gguf.tensor(&name) {
                for (number, bias) in tensor.dequantise().into_iter().enumerate() {
                    table.row_mut(number).iter_mut().for_each(|value| *value = *value + R::of(f64::from(bias)));
                }
            }
        };
        let family = geometry.architecture;
        let normed = norm(&x, &tensor("attn_norm"), geometry);
        let mut query = product(&tensor("attn_q"), &normed);
        let mut key = product(&tensor("attn_k"), &normed);
        let mut value = product(&tensor("attn_v"), &normed);
        bias("attn_q", &mut query);
        bias("attn_k", &mut key);
        bias("attn_v", &mut value);
        if family.norms_heads() {
            query = norm(&query, &tensor("attn_q_norm"), geometry);
            key = norm(&key, &tensor("attn_k_norm"), geometry);
        }
        rotate(&mut query, geometry, layer);
        rotate(&mut key, geometry, layer);
        let mut attended = product(&tensor("attn_output"), &attention(&query, &key, &value, geometry, layer));
        if family.norms_results() {
            attended = norm(&attended, &tensor("post_attention_norm"), geometry);
        }
        x.add(&attended);
        let normed = norm(&x, &tensor("ffn_norm"), geometry);
        let mut fed = match geometry.experts {
            None => gated(&tensor("ffn_gate"), &tensor("ffn_up"), &tensor("ffn_down"), &normed, family.activation()),
            Some(experts) => mixture(&tensor, experts, &normed, family.activation()),
        };
        if family.norms_results() {
            fed = norm(&fed, &tensor("post_ffw_norm"), geometry);
        }
        x.add(&fed);
    }
    let normed = norm(&x, &gguf.tensor(OUTPUT_NORM).expect("a geometry has an output norm"), geometry);
    let mut last = Table::zeros(geometry.hidden, tokens.len() - first);
    for number in 0..geometry.hidden {
        last.row_mut(number).copy_from_slice(&normed.row(number)[first..]);
    }
    let out = product(&gguf.tensor(OUTPUT).unwrap_or(embedding), &last);
    (0..tokens.len() - first).map(|t| (0..geometry.vocabulary).map(|number| out.at(number, t)).collect()).collect()
}

fn product<R: Real>(matrix: &Tensor<'_>, x: &Table<R>) -> Table<R> {
    let mut out = Table::zeros(matrix.rows() as usize, x.tokens);
    let mut weights = vec![0.0; matrix.row_values() as usize];
    for r in 0..matrix.rows() {
        matrix.format.dequantise_row(matrix.row(r).expect("a row of the matrix"), &mut weights);
        let sums = out.row_mut(r as usize);
        for (column, &weight) in weights.iter().enumerate() {
            let weight = R::of(f64::from(weight));
            for (sum, &x) in sums.iter_mut().zip(x.row(column)) {
                *sum = *sum + weight * x;
            }
        }
    }
    out
}

/// The gated feed-forward layer.
fn gated<R: Real>(
    gate: &Tensor<'_>,
    up: &Tensor<'_>,
    down: &Tensor<'_>,
    x: &Table<R>,
    activation: Activation,
) -> Table<R> {
    let mut gate = product(gate, x);
    let up = product(up, x);
    for (gate, &up) in gate.numbers.iter_mut().zip(&up.numbers) {
        let x = *gate;
        let u = match activation {
            Activation::Silu => x,
            // 0.5 (1 + tanh(v)) is 1 / (1 + exp(-2 v)).
            Activation::Gelu => {
                let v = x + R::of(0.044_715) * x * x * x;
                R::of(2.0 * (2.0 / std::f64::consts::PI).sqrt()) * v
            }
        };
        *gate = x / (R::of(1.0) + (-u).exp()) * up;
    }
    product(down, &gate)
}

/// Every expert computed for every token; each token then takes those that its router scores highest.
fn mixture<'a, R: Real>(
    tensor: &impl Fn(&str) -> Tensor<'a>,
    experts: Experts,
    x: &Table<R>,
    activation: Activation,
) -> Table<R> {
    let scores = product(&tensor("ffn_gate_inp"), x);
    let part = |name: &str, expert: usize| {
        let whole = tensor(name);
        let length = whole.bytes.len() / experts.count;
        Tensor { dims: &whole.dims[..2], bytes: &whole.bytes[expert * length..][..length], ..whole }
    };
    let mut out = Table::zeros(x.numbers.len() / x.tokens, x.tokens);
    for expert in 0..experts.count {
        let [gate, up, down] = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"].map(|name| part(name, expert));
        let mut one = gated(&gate, &up, &down, x, activation);
        for t in 0..x.tokens {
            let score = |other: usize| scores.at(other, t);
            // How many come before this one: with a larger score, or an equal one and a smaller number.
            let comes_first =
                |&other: &usize| score(other) > score(expert) || score(other) == score(expert) && other < expert;
            let rank = (0..experts.count).filter(comes_first).count();
            let in_use = |&other: &usize| {
                let before =
                    |&third: &usize| score(third) > score(other) || score(third) == score(other) && third < other;
                !experts.normalised || (0..experts.count).filter(before).count() < experts.used
            };
            let total = (0..experts.count).filter(in_use).fold(R::of(0.0), |sum, other| sum + score(other).exp());
            let weight = if rank < experts.used { score(expert).exp() / total } else { R::of(0.0) };
            for number in 0..one.numbers.len() / x.tokens {
                one.row_mut(number)[t] = one.at(number, t) * weight;
            }
        }
        out.add(&one);
    }
    if experts.shared.is_some() {
        let names = ["ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"].map(tensor);
        let mut one = gated(&names[0], &names[1], &names[2], x, activation);
        let sight = tensor("ffn_gate_inp_shexp").dequantise();
        for t in 0..x.tokens {
            let mut score = R::of(0.0);
            for (number, &weight) in sight.iter().enumerate() {
                score = score + x.at(number, t) * R::of(f64::from(weight));
            }
            for number in 0..sight.len() {
                one.row_mut(number)[t] = one.at(number, t) / (R::of(1.0) + (-score).exp());
            }
        }
        out.add(&one);
    }
    out
}

/// The norm of each run of as many numbers as there are weights: a whole row, or each head.
fn norm<R: Real>(x: &Table<R>, weight: &Tensor<'_>, geometry: &Geometry) -> Table<R> {
    let weight = weight.dequantise();
    let width = weight.len();
    let mut out = Table::zeros(x.numbers.len() / x.tokens, x.tokens);
    for first in (0..x.numbers.len() / x.tokens).step_by(width) {
        for t in 0..x.tokens {
            let mut squares = R::of(0.0);
            for number in first..first + width {
                squares = squares + x.at(number, t) * x.at(number, t);
            }
            let mean = squares / R::of(width as f64);
            let scale = R::of(1.0) / (mean + R::of(f64::from(geometry.norm_epsilon))).root();
            for number in first..first + width {
                out.row_mut(number)[t] = x.at(number, t) * scale * R::of(f64::from(weight[number - first]));
            }
        }
    }
    out
}

fn rotate<R: Real>(x: &mut Table<R>, geometry: &Geometry, layer: usize) {
    let rope = geometry.rope_of(layer);
    let heads = x.numbers.len() / x.tokens / geometry.head_size;
    for (pair, frequency) in rope.frequencies().into_iter().enumerate() {
        let (a, b) = match rope.pairs {
            RopePairs::Adjacent => (2 * pair, 2 * pair + 1),
            RopePairs::SplitHalves => (pair, pair + rope.dimensions / 2),
        };
        for t in 0..x.tokens {
            let (sine, cosine) = (t as f64 * frequency).sin_cos();
            let (sine, cosine) = (R::of(sine * rope.magnitude()), R::of(cosine * rope.magnitude()));
            for head in 0..heads {
                let (a, b) = (head * geometry.head_size + a, head * geometry.head_size + b);
                let (old_a, old_b) = (x.at(a, t), x.at(b, t));
                x.row_mut(a)[t] = old_a * cosine - old_b * sine;
                x.row_mut(b)[t] = old_a * sine + old_b * cosine;
            }
        }
    }
}

fn attention<R: Real>(
    query: &Table<R>,
    key: &Table<R>,
    value: &Table<R>,
    geometry: &Geometry,
    layer: usize,
) -> Table<R> {
    let size = geometry.head_size;
    let scale = R::of(f64::from(geometry.attention_scale()));
    let mut out = Table::zeros(geometry.heads * size, query.tokens);
    for head in 0..geometry.heads {
        let kv_head = head / (geometry.heads / geometry.kv_heads);
        for t in 0..query.tokens {
            let first = geometry.window_of(layer).map_or(0, |window| (t + 1).saturating_sub(window));
            let mut weights: Vec<R> = (first..=t)
                .map(|seen| {
                    let mut score = R::of(0.0);
                    for i in 0..size {
                        score = score + query.at(head * size + i, t) * key.at(kv_head * size + i, seen);
                    }
                    score * scale
                })
                .collect();
            let largest = weights.iter().copied().fold(weights[0], |m, w| if w > m { w } else { m });
            let mut sum = R::of(0.0);
            for weight in &mut weights {
                *weight = (*weight - largest).exp();
                sum = sum + *weight;
            }
            for i in 0..size {
                let mut mean = R::of(0.0);
                for (seen, &weight) in weights.iter().enumerate() {
                    mean = mean + weight * value.at(kv_head * size + i, first + seen);
                }
                out.row_mut(head * size + i)[t] = mean / sum;
            }
        }
    }
    out
}
