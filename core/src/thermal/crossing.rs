//! The first moment at which a sum of exponentials is zero.
//!
//! A node of a network goes to its steady state in a sum of exponentials, which may rise before it falls: a sink that
//! still cools while its die warms. A search that only looks at both ends of a span would miss a threshold met in
//! between. Each term is monotone, so over any span the sum lies between bounds made of the terms at the span's ends;
//! spans that these bounds exclude hold no crossing, and the rest is halved until it is monotone.

/// From which side a threshold is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From below.
    Up,
    /// From above.
    Down,
}

/// `constant + drift t + sum of a exp(-r t)` for `t` of zero or more.
#[derive(Debug, Clone, PartialEq)]
pub struct Sum {
    /// What it tends to without drift.
    pub constant: f64,
    /// Change per second that never ends.
    pub drift: f64,
    /// Amplitudes and rates of decay in 1/s, the rates above zero.
    pub terms: Vec<(f64, f64)>,
}

/// Times beyond which nothing is looked for, in seconds: more than 30 years.
const HORIZON: f64 = 1e9;
/// Spans that are not divided further, in seconds: a tenth of a nanosecond. What touches zero for less than this counts
/// as touching it.
const FINEST: f64 = 1e-10;

impl Sum {
    /// Its value after `t` seconds.
    #[must_use]
    pub fn at(&self, t: f64) -> f64 {
        self.terms.iter().fold(self.constant + self.drift * t, |sum, &(a, r)| sum + a * libm::exp(-r * t))
    }

    /// The first time at which it is zero or beyond, seen from the side it begins on; none where it never is.
    #[must_use]
    pub fn first(&self, way: Way) -> Option<f64> {
        let mut rising = self.clone();
        if way == Way::Down {
            rising.constant = -rising.constant;
            rising.drift = -rising.drift;
            rising.terms.iter_mut().for_each(|(a, _)| *a = -*a);
        }
        rising.first_above()
    }

    /// The first time at which it is zero or more.
    fn first_above(&self) -> Option<f64> {
        if self.at(0.0) >= 0.0 {
            return Some(0.0);
        }
        let most = |a: f64, factor: f64| (a * factor).max(0.0);
        let fastest = self.terms.iter().map(|&(_, r)| r).fold(0.0, f64::max);
        let (mut from, mut to) = (0.0, if fastest > 0.0 { (1.0 / fastest).min(HORIZON) } else { HORIZON });
        loop {
            // Whatever is left of the terms cannot lift it any more.
            let left: f64 = self.terms.iter().map(|&(a, r)| most(a, libm::exp(-r * from))).sum();
            if self.drift <= 0.0 && self.constant + self.drift * from + left < 0.0 {
                return None;
            }
            if let Some(found) = self.within(from, to) {
                return Some(found);
            }
            if to >= HORIZON {
                return None;
            }
            (from, to) = (to, (to * 2.0).min(HORIZON));
        }
    }

    /// The first zero in a span at whose beginning it is below zero.
    fn within(&self, from: f64, to: f64) -> Option<f64> {
        let ends = |r: f64| (libm::exp(-r * from), libm::exp(-r * to));
        let (mut most, mut slope_most, mut slope_least) = (self.constant, self.drift, self.drift);
        most += (self.drift * from).max(self.drift * to);
        for &(a, r) in &self.terms {
            let (early, late) = ends(r);
            most += if a > 0.0 { a * early } else { a * late };
            let (one, other) = (-a * r * early, -a * r * late);
            slope_most += one.max(other);
            slope_least += one.min(other);
        }
        if most < 0.0 {
            return None;
        }
        if slope_least >= 0.0 {
            return (self.at(to) >= 0.0).then(|| self.bisect(from, to));
        }
        if slope_most <= 0.0 {
            return None;
        }
        if to - from <= FINEST.max(f64::EPSILON * to) {
            return (self.at(to) >= 0.0).then_some(to);
        }
        let middle = from + (to - from) / 2.0;
        self.within(from, middle).or_else(
            || {
                if self.at(middle) >= 0.0 { Some(middle) } else { self.within(middle, to) }
            },
        )
    }

    /// The zero of a span over which it rises from below zero: bisection with secant steps, down to the last bit.
    fn bisect(&self, mut low: f64, mut high: f64) -> f64 {
        for _ in 0..200 {
            let middle = low + (high - low) / 2.0;
            if middle <= low || middle >= high {
                break;
            }
            if self.at(middle) >= 0.0 { high = middle } else { low = middle }
        }
        high
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    #[test]
    fn a_threshold_that_is_met_and_left_again_is_found() {
        // -0.1 + exp(-t) - exp(-2 t): up to 0.15 at ln 2, back to -0.1.
        let sum = Sum { constant: -0.1, drift: 0.0, terms: vec![(1.0, 1.0), (-1.0, 2.0)] };
        let exact = -libm::log(0.5 * (1.0 + libm::sqrt(0.6)));
        let found = sum.first(Way::Up).expect("it rises to 0.15");
        assert!((found - exact).abs() < 1e-12, "{found} {exact}");
    }

    #[test]
    fn what_only_comes_near_is_not_met() {
        let sum = Sum { constant: -0.250_000_1, drift: 0.0, terms: vec![(1.0, 1.0), (-1.0, 2.0)] };
        assert_eq!(sum.first(Way::Up), None);
        let drift = Sum { constant: -1.0, drift: 0.5, terms: Vec::new() };
        assert!((drift.first(Way::Up).expect("it drifts there") - 2.0).abs() < 1e-12);
        assert_eq!(drift.first(Way::Down), Some(0.0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
        #[test]
        fn no_crossing_comes_before_the_first(
            constant in -2.0..2.0, terms in prop::collection::vec((-3.0..3.0, 0.01..5.0), 1..5),
        ) {
            let sum = Sum { constant, drift: 0.0, terms };
            for way in [Way::Up, Way::Down] {
                let sign = if way == Way::Up { 1.0 } else { -1.0 };
                let found = sum.first(way);
                let end = found.unwrap_or(600.0);
                // A fine walk, which knows nothing of bounds, meets nothing earlier.
                for i in 0..4_000 {
                    let t = end * f64::from(i) / 4_000.0;
                    prop_assert!(t >= end || sign * sum.at(t) < 1e-9, "{way:?} {t} {end} {}", sum.at(t));
                }
                if let Some(t) = found.filter(|&t| t > 0.0) {
                    prop_assert!(sum.at(t).abs() < 1e-9, "{t} {}", sum.at(t));
                }
            }
        }
    }
}
