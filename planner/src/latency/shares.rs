//! The finish of a prompt in chunks as a mean over paths.
//!
//! A chain is a flow shop, whose finish is the longest path over (chunk, stage); any mean of paths is no longer. A good
//! chain makes many paths about equally long, so that no single one tells what it takes. Shares say which part of all
//! paths has left the first chunk behind at each boundary between layers, and which part has gone on to the last: they
//! depend on layers alone, so a walk that knows only where it stands can be charged the mean. Like prices they are
//! chosen to make the bound great; whatever they are, it is a bound.

use super::chains::{Chains, ClassLink};
use super::costs::{Costs, Steps};
use isotherm_core::plan::PathShares;

/// Shares are whole multiples of one in so many, so that a checker reads them without rounding.
pub(crate) const WHOLE: f64 = 65_536.0;
/// Least mass of a layer before masses are made to add to one: none is given up for good.
const MASS_MIN: f64 = 1e-7;
/// How far a mass may grow or shrink in one step.
const FACTOR_MAX: f64 = 2.0;
/// Pace of the shares, in which a step is told relative to the value of a chain.
const PACE: f64 = 12.0;

/// Shares of all paths by boundary between layers, from before the first to after the last.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shares {
    /// Those that have left the first chunk for the followed one.
    pub followed: Vec<f64>,
    /// Those that have gone on to the last, where it is shorter.
    pub last: Vec<f64>,
    /// What the shares are rounded sums of, by layer.
    masses: [Vec<f64>; 2],
}

impl Shares {
    /// Paths that leave the first chunk anywhere alike, and go on to the last in the last quarter of the layers.
    pub fn even(costs: &Costs) -> Self {
        let from = costs.layers - costs.layers.div_ceil(4);
        let late = (0..costs.layers).map(|layer| if layer < from { MASS_MIN } else { 1.0 }).collect();
        Self::of(costs, [vec![1.0; costs.layers], late])
    }

    /// Paths that change chunks in each layer in these proportions.
    fn of(costs: &Costs, masses: [Vec<f64>; 2]) -> Self {
        let sums = |mass: &[f64]| {
            let all: f64 = mass.iter().sum();
            let mut sum = 0.0;
            let mut shares = vec![0.0];
            shares.extend(mass.iter().map(|part| {
                sum += part;
                (sum / all * WHOLE).round().min(WHOLE) / WHOLE
            }));
            shares[mass.len()] = 1.0;
            shares
        };
        let followed = if costs.followed() == 0 { vec![1.0; costs.layers + 1] } else { sums(&masses[0]) };
        let last = if costs.followed() + 1 == costs.chunks { vec![0.0; costs.layers + 1] } else { sums(&masses[1]) };
        let last = last.iter().zip(&followed).map(|(last, followed)| last.min(*followed)).collect();
        Self { followed, last, masses }
    }

    /// The shares as a plan states them.
    pub fn stated(&self, costs: &Costs) -> PathShares {
        let inner = |shares: &[f64], wanted: bool| {
            let inner = if wanted { &shares[1..costs.layers] } else { &[] };
            inner.iter().map(|share| (share * WHOLE) as u32).collect()
        };
        PathShares {
            followed: inner(&self.followed, costs.followed() > 0),
            last: inner(&self.last, costs.followed() + 1 < costs.chunks),
            once: Vec::new(),
        }
    }

    /// What a partial chain has taken, as a mean over paths, where the first, the followed and the last chunk have
    /// come so far.
    pub fn mean(&self, layer: usize, [first, followed, last]: [f64; 3]) -> f64 {
        let (turned, ended) = (self.followed[layer], self.last[layer]);
        // A chunk that no path follows may have no way at all.
        let part = |share: f64, time: f64| if share > 0.0 { share * time } else { 0.0 };
        part(1.0 - turned, first) + part(turned - ended, followed) + part(ended, last)
    }

    /// A step towards the shares at which this walk would take longest: `pace` is relative to its time.
    pub fn step(&self, chains: &Chains<'_>, paths: &[PathSteps], walk: &[ClassLink], pace: f64) -> Self {
        let costs = chains.costs;
        let n = chains.classes.len();
        // How its mean time changes with the share at each boundary.
        let mut slopes = [vec![0.0; costs.layers + 1], vec![0.0; costs.layers + 1]];
        for (i, &(class, start, end)) in walk.iter().enumerate() {
            let steps = &paths[chains.kind_of(class)];
            slopes[0][start] -= steps.before.at(start, end);
            slopes[0][end] += steps.later.at(start, end);
            slopes[1][start] -= steps.followed.at(start, end);
            slopes[1][end] += steps.last.at(start, end);
            if let (true, Some(last)) = (i > 0, chains.ways.get(2)) {
                let way = walk[i - 1].0 * n + class;
                slopes[1][start] += last[way] - chains.ways[0][way];
            }
        }
        let mut masses = self.masses.clone();
        for (mass, slopes) in masses.iter_mut().zip(&slopes) {
            // A mass is part of all shares after it.
            let mut sum = 0.0;
            let mut gains: Vec<f64> = slopes[1..]
                .iter()
                .rev()
                .map(|slope| {
                    sum += slope;
                    sum
                })
                .collect();
            gains.reverse();
            let all: f64 = mass.iter().sum();
            let mean: f64 = mass.iter().zip(&gains).map(|(mass, gain)| mass * gain).sum::<f64>() / all;
            for (mass, gain) in mass.iter_mut().zip(&gains) {
                let factor = (1.0 + PACE * pace * (gain - mean)).clamp(1.0 / FACTOR_MAX, FACTOR_MAX);
                *mass = (*mass / all * factor).max(MASS_MIN);
            }
        }
        Self::of(costs, masses)
    }
}

/// Times of a kind's stages by what paths pass of them.
#[derive(Debug, Clone)]
pub(crate) struct PathSteps {
    /// First chunk; infinite where the stage may not be.
    first: Steps,
    /// All chunks after the first, up to the followed one.
    later: Steps,
    /// The followed one.
    followed: Steps,
    /// The last, where it is another.
    last: Steps,
    /// All up to the followed one but that: what a path that has left the first chunk before does not pass.
    before: Steps,
}

impl PathSteps {
    /// Those of a kind, of whose stages `all` is the time of all chunks up to the followed one.
    pub fn new(costs: &Costs, kind: usize, all: &Steps) -> Self {
        let (f, chunks) = (costs.followed(), &costs.stage[kind]);
        let finite = |steps: &Steps| steps.map(|time| if time.is_finite() { time } else { 0.0 });
        let less = |a: &Steps, b: &Steps| finite(a).with(&finite(b), |a, b| a - b);
        let last = finite(&chunks[costs.chunks - 1]);
        Self {
            first: chunks[0].masked(all, f64::is_finite),
            later: less(all, &chunks[0]),
            followed: finite(&chunks[f]),
            last: if f + 1 == costs.chunks { last.map(|_| 0.0) } else { last },
            before: less(all, &chunks[f]),
        }
    }

    /// Time of a stage as a mean over paths.
    pub fn mean(&self, shares: &Shares, start: usize, end: usize) -> f64 {
        let (on, at_last) = (shares.followed[end], shares.last[end]);
        let (turned, ended) = (shares.followed[start], shares.last[start]);
        let whole = self.first.at(start, end) + on * self.later.at(start, end) + at_last * self.last.at(start, end);
        whole - turned * self.before.at(start, end) - ended * self.followed.at(start, end)
    }

    /// The least mean of stages that begin at a layer, hold `inner` layers at most and not the last of all, and of what
    /// comes `after` each.
    pub fn least(&self, shares: &Shares, start: usize, inner: usize, after: &[f64]) -> f64 {
        let (turned, ended) = (shares.followed[start], shares.last[start]);
        let ends = 2 * usize::from(start == 0);
        let [first, later, last, before, followed] =
            [&self.first, &self.later, &self.last, &self.before, &self.followed].map(|s| &s.row(ends)[1..][..inner]);
        let [on, at_last, after] = [&shares.followed[..], &shares.last, after].map(|s| &s[start + 1..][..inner]);
        let mut best = f64::INFINITY;
        for i in 0..inner {
            let whole = first[i] + on[i] * later[i] + at_last[i] * last[i];
            let cost = whole - turned * before[i] - ended * followed[i] + after[i];
            best = if cost < best { cost } else { best };
        }
        best
    }

    /// When the first, the followed and the last chunk leave a stage that they have reached then, where all between
    /// the first and the followed one pass a stage together.
    pub fn pass(&self, [first, followed, last]: [f64; 3], start: usize, end: usize) -> [f64; 3] {
        let first = first + self.first.at(start, end);
        let followed = (followed + self.followed.at(start, end)).max(first + self.later.at(start, end));
        let last = (last + self.last.at(start, end)).max(followed + self.last.at(start, end));
        [first, followed, last]
    }
}

#[cfg(test)]
mod tests {
    use super::super::chains::{Band, StageCount};
    use super::super::scale::mesh::{Ways, problem};
    use super::*;
    use crate::tables::Tables;
    use isotherm_core::problem::{Objective, PlacementProblem, ProblemParts};
    use isotherm_core::workload::Length;

    /// The problem with another prompt.
    fn prompt(problem: &PlacementProblem, tokens: u32) -> PlacementProblem {
        let mut parts = ProblemParts {
            name: problem.name.clone(),
            model: problem.model.clone(),
            graph: problem.graph.clone(),
            workload: problem.workload.clone(),
            serving: problem.serving,
            objective: problem.objective,
            limits: problem.limits.clone(),
            ambient: problem.ambient,
            inputs: Vec::new(),
        };
        parts.workload.prompt_tokens = Length::fixed(tokens);
        PlacementProblem::new(parts).expect("as well formed as before")
    }

    #[test]
    fn no_mean_of_paths_is_longer_than_a_chain_and_steps_make_it_longer() {
        // Four chunks, the last shorter; four alike; two, the last shorter; two alike.
        for tokens in [2000, 2048, 600, 1024] {
            let problem = prompt(&problem(5, 24, Ways::Any, Objective::Ttft), tokens);
            let tables = Tables::new(&problem, true);
            let costs = Costs::prefill(&tables);
            let chains = Chains::new(&tables, &costs, StageCount::Any);
            let (band, mut prices) = (Band::all(&costs), chains.no_prices());
            // The largest devices one after another, the last taking what is left.
            let mut walk: Vec<ClassLink> = Vec::new();
            for class in (0..chains.classes.len()).filter(|class| class % 6 == 0).chain(1..24) {
                let start = walk.last().map_or(0, |link| link.2);
                if start < costs.layers && walk.iter().all(|link| link.0 != class) {
                    walk.push((class, start, chains.kind(class).reach[start]));
                }
            }
            let chain = chains.chain(&walk).expect("each device once");
            let value = chains.value(&chain);
            let mut shares = Shares::even(&costs);
            let mut means = Vec::new();
            for _ in 0..200 {
                prices.shares = Some(shares.clone());
                let mut mean = costs.entry[chain[0].0] + costs.exit[chain[chain.len() - 1].0];
                for (i, &(class, start, end)) in walk.iter().enumerate() {
                    mean += band.paths[chains.kind_of(class)].mean(&shares, start, end);
                    if i > 0 {
                        mean += chains.way(&prices, 0, start, walk[i - 1].0, class);
                    }
                }
                assert!(mean <= value * (1.0 + 1e-12), "{tokens} tokens: {mean}, {value}");
                assert!(shares.followed.is_sorted() && shares.last.is_sorted(), "{tokens} tokens");
                assert!(shares.last.iter().zip(&shares.followed).all(|(last, followed)| last <= followed));
                means.push(mean);
                shares = shares.step(&chains, &band.paths, &walk, 1.0);
            }
            let last = means[means.len() - 1];
            assert!(last >= means[0] && last > 0.97 * value, "{tokens} tokens: {} to {last} of {value}", means[0]);
        }
    }
}
