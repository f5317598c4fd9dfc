//! Small dense matrices in plain deterministic arithmetic: eigenvalues of symmetric ones, and least squares.

/// Most sweeps of the Jacobi method; it converges quadratically, so a handful is enough for any matrix of this project.
const SWEEPS_MAX: usize = 60;

/// Eigenvalues of a symmetric matrix and an orthonormal basis of its eigenvectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigen {
    /// The eigenvalues, in no particular order.
    pub values: Vec<f64>,
    /// Row `i`, column `k`: component `i` of the eigenvector of value `k`.
    pub vectors: Vec<f64>,
}

/// Eigenvalues and eigenvectors of the symmetric `n` by `n` matrix `a` (row by row), by cyclic Jacobi rotations (Golub
/// and Van Loan, Matrix Computations, section 8.5). Only `+ - * / sqrt` are used, so the bits are the same everywhere.
///
/// # Panics
/// If `a` has not `n * n` entries.
#[must_use]
pub fn eigen(mut a: Vec<f64>, n: usize) -> Eigen {
    assert_eq!(a.len(), n * n, "a square matrix of {n} rows");
    let mut vectors = vec![0.0; n * n];
    for i in 0..n {
        vectors[i * n + i] = 1.0;
    }
    for _ in 0..SWEEPS_MAX {
        let mut changed = false;
        for p in 0..n {
            for q in p + 1..n {
                let off = a[p * n + q];
                // Below the last bit of both diagonal entries a rotation changes nothing.
                if off.abs() <= f64::EPSILON * 0.25 * (a[p * n + p].abs() * a[q * n + q].abs()).sqrt() {
                    continue;
                }
                changed = true;
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * off);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                rotate(&mut a, &mut vectors, n, (p, q), (c, t * c));
            }
        }
        if !changed {
            break;
        }
    }
    Eigen { values: (0..n).map(|i| a[i * n + i]).collect(), vectors }
}

/// One rotation of rows and columns `p` and `q` by the angle of cosine `c` and sine `s`.
fn rotate(a: &mut [f64], vectors: &mut [f64], n: usize, (p, q): (usize, usize), (c, s): (f64, f64)) {
    for k in 0..n {
        let (x, y) = (a[k * n + p], a[k * n + q]);
        a[k * n + p] = c * x - s * y;
        a[k * n + q] = s * x + c * y;
    }
    for k in 0..n {
        let (x, y) = (a[p * n + k], a[q * n + k]);
        a[p * n + k] = c * x - s * y;
        a[q * n + k] = s * x + c * y;
    }
    a[p * n + q] = 0.0;
    a[q * n + p] = 0.0;
    for k in 0..n {
        let (x, y) = (vectors[k * n + p], vectors[k * n + q]);
        vectors[k * n + p] = c * x - s * y;
        vectors[k * n + q] = s * x + c * y;
    }
}

/// The Cholesky factor of a symmetric positive definite matrix; none where it is not, to working precision.
#[must_use]
pub fn cholesky(a: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum();
            let rest = a[i * n + j] - sum;
            if i == j {
                if rest <= f64::EPSILON * a[i * n + i].abs() || !rest.is_finite() {
                    return None;
                }
                l[i * n + i] = rest.sqrt();
            } else {
                l[i * n + j] = rest / l[j * n + j];
            }
        }
    }
    Some(l)
}

/// Solves `L Lᵀ x = b`.
#[must_use]
pub fn solve(l: &[f64], b: &[f64]) -> Vec<f64> {
    let n = b.len();
    let mut x = b.to_vec();
    for i in 0..n {
        let sum: f64 = (0..i).map(|k| l[i * n + k] * x[k]).sum();
        x[i] = (x[i] - sum) / l[i * n + i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| l[k * n + i] * x[k]).sum();
        x[i] = (x[i] - sum) / l[i * n + i];
    }
    x
}

/// The diagonal of the inverse of `L Lᵀ`.
#[must_use]
pub fn inverse_diagonal(l: &[f64], n: usize) -> Vec<f64> {
    let unit = |i: usize| (0..n).map(|k| if k == i { 1.0 } else { 0.0 }).collect::<Vec<f64>>();
    (0..n).map(|i| solve(l, &unit(i))[i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    #[test]
    fn a_matrix_of_the_textbook_has_its_eigenvalues() {
        let mut values = eigen(vec![2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 2.0], 3).values;
        values.sort_by(f64::total_cmp);
        let root = 2.0_f64.sqrt();
        for (value, exact) in values.iter().zip([2.0 - root, 2.0, 2.0 + root]) {
            assert!((value - exact).abs() < 1e-14, "{value} {exact}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
        #[test]
        fn a_symmetric_matrix_is_its_eigenvectors_times_its_eigenvalues(
            n in 1_usize..9, entries in prop::collection::vec(-10.0..10.0_f64, 64),
        ) {
            let a: Vec<f64> = (0..n * n).map(|i| entries[(i / n).max(i % n) * 8 + (i / n).min(i % n)]).collect();
            let Eigen { values, vectors } = eigen(a.clone(), n);
            for i in 0..n {
                for j in 0..n {
                    let back: f64 = (0..n).map(|k| vectors[i * n + k] * values[k] * vectors[j * n + k]).sum();
                    let product: f64 = (0..n).map(|k| vectors[i * n + k] * vectors[j * n + k]).sum();
                    prop_assert!((back - a[i * n + j]).abs() < 1e-11);
                    prop_assert!((product - f64::from(u8::from(i == j))).abs() < 1e-12);
                }
            }
        }

        #[test]
        fn what_is_solved_is_a_solution(n in 1_usize..7, entries in prop::collection::vec(-3.0..3.0_f64, 49)) {
            // A Aᵀ + 1 is positive definite.
            let of = |i: usize, j: usize| (0..n).map(|k| entries[i * 7 + k] * entries[j * 7 + k]).sum::<f64>();
            let a: Vec<f64> = (0..n * n).map(|p| of(p / n, p % n) + f64::from(u8::from(p / n == p % n))).collect();
            let l = cholesky(&a, n).expect("positive definite");
            let x = solve(&l, &entries[..n]);
            for i in 0..n {
                let back: f64 = (0..n).map(|k| a[i * n + k] * x[k]).sum();
                prop_assert!((back - entries[i]).abs() < 1e-8);
            }
        }
    }
}
