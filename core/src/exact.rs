//! Exact arithmetic for the checker: a measured float is read as the dyadic rational that it is, so that no sum or
//! comparison rounds.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};

/// A rational number without rounding.
pub(crate) type Exact = BigRational;

/// Relative difference within which a stored figure agrees with the recomputed one: `1e-9`. Whoever stores a figure
/// may have summed in floats, in any order.
pub(crate) fn agreement() -> Exact {
    Exact::new(1.into(), 1_000_000_000.into())
}

/// The exact value of a float; none where it is not finite.
pub(crate) fn exact(value: f64) -> Option<Exact> {
    Exact::from_float(value)
}

/// A whole number.
pub(crate) fn whole(value: u64) -> Exact {
    Exact::from_integer(BigInt::from(value))
}

/// The nearest float; infinite where there is none.
pub(crate) fn nearest(value: &Exact) -> f64 {
    value.to_f64().unwrap_or(f64::INFINITY)
}

/// Whether two values differ by at most [`agreement`] of the larger one.
pub(crate) fn agree(a: &Exact, b: &Exact) -> bool {
    let scale = if a.abs() > b.abs() { a.abs() } else { b.abs() };
    (a - b).abs() <= scale * agreement()
}

/// The larger of two values.
pub(crate) fn larger(a: Exact, b: Exact) -> Exact {
    if a >= b { a } else { b }
}

/// The exact mean of a length's two ends, in halves: `(min + max) / 2`.
pub(crate) fn mean(length: crate::workload::Length) -> Exact {
    Exact::new((u64::from(length.min) + u64::from(length.max)).into(), 2.into())
}

/// Whether a value is above zero.
pub(crate) fn positive(value: &Exact) -> bool {
    *value > Exact::zero()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_that_floats_round_are_exact() {
        let tenth = exact(0.1).expect("finite");
        let sum = (0..10).fold(Exact::zero(), |sum, _| sum + &tenth);
        assert_ne!(sum, whole(1), "0.1 is no tenth");
        assert!(agree(&sum, &whole(1)));
        assert_eq!(nearest(&sum), 1.0);
    }

    #[test]
    fn agreement_is_relative_and_ends_at_a_billionth() {
        let at = |value: f64| exact(value).expect("finite");
        assert!(agree(&at(1e12), &at(1e12 + 999.0)));
        assert!(!agree(&at(1e12), &at(1e12 + 1001.0)));
        assert!(!agree(&at(1e-12), &at(2e-12)));
        assert!(agree(&at(0.0), &at(0.0)));
        assert_eq!(exact(f64::NAN), None);
    }
}
