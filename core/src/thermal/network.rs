//! A linear network of thermal nodes, exact between events.
//!
//! Nodes store heat (J/K) and are joined to one another and to the air by conductances (W/K):
//!
//! ```text
//! C dT/dt = P - G (T - T_air)
//! ```
//!
//! `G` is symmetric, so with `y = C^(1/2) (T - T_air)` the matrix `C^(-1/2) G C^(-1/2)` is symmetric too, has real
//! eigenvalues of zero or more, and every node is a constant and a sum of decaying exponentials. [`Modes`] holds that
//! decomposition for as long as no conductance changes; a fan changes them in steps, and each step is an event.

use super::crossing::{Sum, Way};
use super::matrix::{Eigen, eigen};

/// What joins the nodes of a network. Nodes are numbered from 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Network {
    /// Heat capacity of each node in J/K, above zero.
    pub capacities: Vec<f64>,
    /// Pairs of nodes and the conductance between them in W/K, zero or more.
    pub couplings: Vec<(usize, usize, f64)>,
    /// Conductance from each node to the air in W/K, zero or more.
    pub to_air: Vec<f64>,
}

/// Where the energy of a span went, in joules. What came in is what was stored and what was dissipated.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Balance {
    /// Power times time, over all nodes.
    pub absorbed: f64,
    /// Heat capacity times rise, over all nodes.
    pub stored: f64,
    /// Heat given to the air: the integral of conductance times temperature over that of the air.
    pub dissipated: f64,
}

impl Network {
    /// A network of nodes with these capacities that nothing joins yet.
    #[must_use]
    pub fn of(capacities: Vec<f64>) -> Self {
        let to_air = vec![0.0; capacities.len()];
        Self { capacities, couplings: Vec::new(), to_air }
    }

    /// Joins two nodes by a conductance.
    pub fn join(&mut self, one: usize, other: usize, conductance: f64) {
        self.couplings.push((one, other, conductance));
    }

    /// Its modes while these conductances hold.
    ///
    /// # Panics
    /// If a capacity is not above zero, or a coupling names a node that is not there.
    #[must_use]
    pub fn modes(&self) -> Modes {
        let n = self.capacities.len();
        assert!(self.capacities.iter().all(|&c| c > 0.0), "capacities {:?} must be above zero", self.capacities);
        let mut matrix = vec![0.0; n * n];
        for (i, g) in self.to_air.iter().enumerate() {
            matrix[i * n + i] += g;
        }
        for &(i, j, g) in &self.couplings {
            matrix[i * n + i] += g;
            matrix[j * n + j] += g;
            matrix[i * n + j] -= g;
            matrix[j * n + i] -= g;
        }
        let roots: Vec<f64> = self.capacities.iter().map(|c| c.sqrt()).collect();
        for i in 0..n {
            for j in 0..n {
                matrix[i * n + j] /= roots[i] * roots[j];
            }
        }
        let Eigen { values, vectors } = eigen(matrix, n);
        let rates = values.into_iter().map(|rate| rate.max(0.0)).collect();
        Modes { rates, vectors, roots, to_air: self.to_air.clone() }
    }
}

/// A network's independent modes: each decays at a rate of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Modes {
    /// 1/s, zero or more.
    rates: Vec<f64>,
    vectors: Vec<f64>,
    /// Square roots of the capacities.
    roots: Vec<f64>,
    to_air: Vec<f64>,
}

/// `(1 - exp(-x)) / x`, 1 at 0.
fn mean_decay(x: f64) -> f64 {
    if x < 1e-12 { 1.0 } else { -libm::expm1(-x) / x }
}

/// `(exp(-x) - 1 + x) / x^2`, 1/2 at 0: the mean of the mean. A series where the difference would cancel.
fn mean_mean_decay(x: f64) -> f64 {
    if x > 0.05 {
        return (libm::expm1(-x) + x) / (x * x);
    }
    // Sum of (-x)^k / (k + 2)!; the ninth term is below 1e-17 here.
    let (mut term, mut sum) = (0.5, 0.5);
    for k in 1..9_u32 {
        term *= -x / f64::from(k + 2);
        sum += term;
    }
    sum
}

impl Modes {
    /// Number of nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.roots.len()
    }

    /// Rates of decay in 1/s; the slowest is the inverse of the longest time constant.
    #[must_use]
    pub fn rates(&self) -> &[f64] {
        &self.rates
    }

    fn component(&self, mode: usize, weigh: impl Fn(usize) -> f64) -> f64 {
        let n = self.nodes();
        (0..n).map(|i| self.vectors[i * n + mode] * weigh(i)).sum()
    }

    /// Temperatures over the air that constant powers lead to; none where a part of the network is cut off from it.
    #[must_use]
    pub fn steady(&self, powers: &[f64]) -> Option<Vec<f64>> {
        let n = self.nodes();
        let fastest = self.rates.iter().copied().fold(0.0, f64::max);
        let modal: Option<Vec<f64>> = (0..n)
            .map(|k| {
                let drive = self.component(k, |i| powers[i] / self.roots[i]);
                (self.rates[k] > fastest * 1e-14).then(|| drive / self.rates[k])
            })
            .collect();
        let modal = modal?;
        let node = |i: usize| (0..n).map(|k| self.vectors[i * n + k] * modal[k]).sum::<f64>() / self.roots[i];
        Some((0..n).map(node).collect())
    }

    /// Lets `span` seconds pass at constant powers (W). `rises` are temperatures over the air.
    pub fn advance(&self, rises: &mut [f64], powers: &[f64], span: f64) -> Balance {
        let n = self.nodes();
        let span = span.max(0.0);
        let mut change = vec![0.0; n];
        let mut mean = vec![0.0; n];
        for k in 0..n {
            let state = self.component(k, |i| rises[i] * self.roots[i]);
            let drive = self.component(k, |i| powers[i] / self.roots[i]);
            let x = self.rates[k] * span;
            // y' = y exp(-x) + drive span m(x); written as a change, so that short spans lose nothing.
            let pull = drive - self.rates[k] * state;
            let moved = pull * span * mean_decay(x);
            let average = state + pull * span * mean_mean_decay(x);
            for i in 0..n {
                let v = self.vectors[i * n + k] / self.roots[i];
                change[i] += v * moved;
                mean[i] += v * average;
            }
        }
        let mut balance = Balance::default();
        for i in 0..n {
            balance.absorbed += powers[i] * span;
            balance.stored += self.roots[i] * self.roots[i] * change[i];
            balance.dissipated += self.to_air[i] * mean[i] * span;
            rises[i] += change[i];
        }
        balance
    }

    /// Seconds until node `node` first reaches `threshold` (over the air) from where it is, at constant powers. Zero
    /// where it is there or past it already (above a threshold approached upwards, below one approached downwards).
    #[must_use]
    pub fn crossing(&self, rises: &[f64], powers: &[f64], node: usize, threshold: f64, way: Way) -> Option<f64> {
        self.course(rises, powers, node, threshold).first(way)
    }

    /// How far a node is over a threshold in the course of time, as a sum of exponentials and a drift.
    fn course(&self, rises: &[f64], powers: &[f64], node: usize, threshold: f64) -> Sum {
        let n = self.nodes();
        let fastest = self.rates.iter().copied().fold(0.0, f64::max);
        let mut sum = Sum { constant: -threshold, drift: 0.0, terms: Vec::with_capacity(n) };
        for k in 0..n {
            let v = self.vectors[node * n + k] / self.roots[node];
            let state = self.component(k, |i| rises[i] * self.roots[i]);
            let drive = self.component(k, |i| powers[i] / self.roots[i]);
            if self.rates[k] <= fastest * 1e-14 {
                sum.constant += v * state;
                sum.drift += v * drive;
            } else {
                let steady = drive / self.rates[k];
                sum.constant += v * steady;
                sum.terms.push((v * (state - steady), self.rates[k]));
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests;
