//! Least squares by the method of Levenberg and Marquardt, in deterministic arithmetic.

use crate::thermal::matrix::{cholesky, inverse_diagonal, solve};

/// A point that was found, and what is known about it.
#[derive(Debug, Clone)]
pub struct Found {
    /// The point.
    pub point: Vec<f64>,
    /// Half the sum of squares there.
    pub cost: f64,
    /// Diagonal of the inverse of `Jᵀ J`; none where the residuals do not determine the point.
    pub inverse: Option<Vec<f64>>,
}

/// Most iterations of one search.
const ITERATIONS_MAX: usize = 80;

/// The point near `start` at which the sum of squared residuals is least (Marquardt 1963, with the damping scaled by the
/// diagonal). `steps` are those of forward differences.
pub fn least_squares(start: Vec<f64>, steps: &[f64], residuals: &mut dyn FnMut(&[f64]) -> Vec<f64>) -> Found {
    let n = start.len();
    let half = |r: &[f64]| 0.5 * r.iter().map(|r| r * r).sum::<f64>();
    let mut point = start;
    let mut here = residuals(&point);
    let mut cost = half(&here);
    let mut damping = 1e-3;
    let mut inverse = None;
    for _ in 0..ITERATIONS_MAX {
        let (normal, gradient) = normal_equations(&point, &here, steps, residuals);
        inverse = cholesky(&normal, n).map(|l| inverse_diagonal(&l, n));
        let mut moved = false;
        for _ in 0..12 {
            let mut damped = normal.clone();
            for i in 0..n {
                damped[i * n + i] += damping * normal[i * n + i].max(1e-12);
            }
            let Some(l) = cholesky(&damped, n) else {
                damping *= 10.0;
                continue;
            };
            let step = solve(&l, &gradient);
            let trial: Vec<f64> = point.iter().zip(&step).map(|(x, d)| x - d).collect();
            let there = residuals(&trial);
            let reached = half(&there);
            if reached.is_finite() && reached < cost {
                let gain = (cost - reached) / cost.max(1e-300);
                (point, here, cost) = (trial, there, reached);
                damping = (damping * 0.2).max(1e-9);
                moved = gain > 1e-6;
                break;
            }
            damping *= 5.0;
        }
        if !moved {
            break;
        }
    }
    Found { point, cost, inverse }
}

/// `Jᵀ J` and `Jᵀ r`.
pub fn normal_equations(
    point: &[f64],
    here: &[f64],
    steps: &[f64],
    residuals: &mut dyn FnMut(&[f64]) -> Vec<f64>,
) -> (Vec<f64>, Vec<f64>) {
    let n = point.len();
    let columns: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let mut beside = point.to_vec();
            beside[i] += steps[i];
            let there = residuals(&beside);
            there.iter().zip(here).map(|(there, here)| (there - here) / steps[i]).collect()
        })
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut normal = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            normal[i * n + j] = dot(&columns[i], &columns[j]);
            normal[j * n + i] = normal[i * n + j];
        }
    }
    (normal, columns.iter().map(|column| dot(column, here)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curved_valley_is_followed_to_its_end() {
        // Rosenbrock's function, least at (1, 1).
        let mut residuals = |x: &[f64]| vec![10.0 * (x[1] - x[0] * x[0]), 1.0 - x[0]];
        let found = least_squares(vec![-1.2, 1.0], &[1e-7, 1e-7], &mut residuals);
        assert!((found.point[0] - 1.0).abs() < 1e-4 && (found.point[1] - 1.0).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn a_parameter_that_changes_nothing_has_no_variance() {
        let mut residuals = |x: &[f64]| vec![x[0] - 3.0, 2.0 * (x[0] - 3.0)];
        let found = least_squares(vec![0.0, 5.0], &[1e-6, 1e-6], &mut residuals);
        assert!((found.point[0] - 3.0).abs() < 1e-6 && found.point[1] == 5.0);
        assert_eq!(found.inverse, None);
    }
}
