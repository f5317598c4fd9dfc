//! Percentiles with what is known of them: intervals without any assumption about the distribution, and whether there
//! are enough values at all.

use serde::{Deserialize, Serialize};

/// Percentiles that reports state.
pub const PERCENTS: [f64; 5] = [50.0, 90.0, 95.0, 99.0, 99.9];

/// A percentile of a metric over the requests of all runs together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// Which one, for example 99.9.
    pub percent: f64,
    /// Its value by nearest rank.
    pub value: f64,
    /// Two of the values that enclose it in 95 of 100 cases, as far as requests are independent of each other (in a
    /// queue they are not, and the interval over seeds is the one to trust); absent where there are too few values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
    /// Half width of the 95 % confidence interval from the percentiles of the single runs by Student's t; absent with a
    /// single run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci95: Option<f64>,
    /// Values that there are.
    pub queries: u64,
    /// Fewest values with which MLPerf's early-stopping rule gives an estimate; see [`queries_min`].
    pub queries_min: u64,
}

impl Percentile {
    /// Whether there are enough values for an estimate by MLPerf's rule.
    #[must_use]
    pub const fn is_supported(&self) -> bool {
        self.queries >= self.queries_min
    }

    /// This percentile of values in rising order; none without values.
    #[must_use]
    pub fn of(sorted: &[f64], percent: f64) -> Option<Self> {
        Self::by_rank(sorted.len() as u64, percent, |rank| sorted[rank as usize - 1])
    }

    /// This percentile of `count` values, given the value of each rank from 1; none without values.
    #[must_use]
    pub fn by_rank(count: u64, percent: f64, at: impl Fn(u64) -> f64) -> Option<Self> {
        let share = percent / 100.0;
        let value = Some(rank(count, share)).filter(|&rank| rank > 0).map(&at)?;
        let interval = ranks(count, share, 0.95).map(|(low, high)| (at(low), at(high)));
        Some(Self { percent, value, interval, ci95: None, queries: count, queries_min: queries_min(share, 0.99) })
    }
}

/// The nearest rank of a quantile, from 1; 0 without values.
fn rank(count: u64, share: f64) -> u64 {
    // What a decimal share lacks or has too much in binary is no rank.
    (libm::ceil(share * count as f64 - 1e-9) as u64).clamp(u64::from(count > 0), count)
}

/// Ranks, from 1, of two of `count` independent values between which the quantile `share` lies with at least this
/// confidence, each tail below half of the rest; none where there are too few. The number of values below the quantile
/// is binomial (David and Nagaraja, "Order Statistics", 3rd edition, 2003, section 7.1).
#[must_use]
pub fn ranks(count: u64, share: f64, confidence: f64) -> Option<(u64, u64)> {
    let tail = (1.0 - confidence) / 2.0;
    // Greatest low with P(fewer than low values are below) <= tail, least high with P(fewer than high) >= 1 - tail.
    let low = first(count + 1, |k| k > 0 && binomial_below(k, count, share) > tail).checked_sub(1)?;
    let high = first(count + 1, |k| binomial_below(k, count, share) >= 1.0 - tail);
    (low >= 1 && high <= count).then_some((low, high))
}

/// Fewest queries from which MLPerf's early-stopping rule estimates a percentile of latency: one more than the fewest
/// queries `h` that have to stay below it, when one is allowed above, so that a system whose true rate above it were
/// `1 - share` would do as well in at most `1 - confidence` of the cases:
///
/// ```text
/// sum over x = 0..1 of binomial(h + 1, x) share^(h + 1 - x) (1 - share)^x  =  I_share(h, 2)  <  1 - confidence
/// ```
///
/// (MLPerf inference rules, appendix "Early Stopping Criterion", with tolerance 0 and confidence 0.99; LoadGen computes
/// it by the same incomplete beta function.)
#[must_use]
pub fn queries_min(share: f64, confidence: f64) -> u64 {
    first(1 << 40, |h| h > 0 && incomplete_beta(share, h as f64, 2.0) < 1.0 - confidence) + 1
}

/// The first number up to `most` that fulfils a condition which, once fulfilled, stays so; `most` where none does.
fn first(most: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// Probability that fewer than `k` of `count` independent values are below the quantile `share`.
fn binomial_below(k: u64, count: u64, share: f64) -> f64 {
    if k == 0 {
        return 0.0;
    }
    if k > count {
        return 1.0;
    }
    incomplete_beta(1.0 - share, (count - k + 1) as f64, k as f64)
}

/// The regularised incomplete beta function by its continued fraction (Abramowitz and Stegun 26.5.8, evaluated by the
/// method of Lentz).
#[must_use]
pub fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges quickly below the mean; above it the complement does.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front =
        libm::exp(libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * libm::log(x) + b * libm::log1p(-x)) / a;
    let tiny = 1e-300;
    let keep = |value: f64| if value.abs() < tiny { tiny } else { value };
    let (mut c, mut d) = (1.0, 1.0 / keep(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for step in 1..100_000 {
        let m = f64::from(step);
        for numerator in [
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        ] {
            d = 1.0 / keep(1.0 + numerator * d);
            c = keep(1.0 + numerator / c);
            fraction *= d * c;
        }
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The binomial distribution function, term by term.
    fn summed(k: u64, n: u64, p: f64) -> f64 {
        let mut term = libm::pow(1.0 - p, n as f64);
        let mut sum = term;
        for x in 1..=k {
            term *= (n - x + 1) as f64 / x as f64 * p / (1.0 - p);
            sum += term;
        }
        sum
    }

    #[test]
    fn the_incomplete_beta_function_is_the_sum_of_binomial_terms() {
        for n in [1, 2, 5, 17, 60] {
            for k in 0..n {
                for p in [0.01, 0.3, 0.5, 0.77, 0.9] {
                    let beta = binomial_below(k + 1, n, p);
                    assert!((beta - summed(k, n, p)).abs() < 1e-12, "{n} {k} {p}: {beta} {}", summed(k, n, p));
                }
            }
        }
    }

    #[test]
    fn the_fewest_queries_are_those_that_mlperf_states() {
        // MLPerf's rules: single-stream, 90th percentile: 64 queries; multi-stream, 99th: 662.
        assert_eq!(queries_min(0.9, 0.99), 64);
        assert_eq!(queries_min(0.99, 0.99), 662);
        assert!(queries_min(0.5, 0.99) < 64 && queries_min(0.999, 0.99) > 6_000);
    }

    #[test]
    fn intervals_by_rank_are_those_of_the_tables_and_enclose_the_quantile_as_often_as_they_say() {
        // The median of ten values lies between the second and the ninth with probability 0.979.
        assert_eq!(ranks(10, 0.5, 0.95), Some((2, 9)));
        assert_eq!(ranks(5, 0.5, 0.95), None);
        for (count, share) in [(50, 0.5), (200, 0.9), (1_000, 0.99), (10_000, 0.999)] {
            let (low, high) = ranks(count, share, 0.95).expect("enough values");
            let covered = binomial_below(high, count, share) - binomial_below(low, count, share);
            assert!((0.95..0.985).contains(&covered), "{count} {share}: {low} {high} {covered}");
        }
    }

    #[test]
    fn percentiles_are_nearest_ranks_and_say_when_there_are_too_few_values() {
        let values: Vec<f64> = (1..=1_000).map(f64::from).collect();
        let of = |percent| Percentile::of(&values, percent).expect("values");
        assert_eq!(PERCENTS.map(|p| of(p).value), [500.0, 900.0, 950.0, 990.0, 999.0]);
        assert_eq!(PERCENTS.map(|p| of(p).is_supported()), [true, true, true, true, false]);
        let median = of(50.0).interval.expect("enough");
        assert!((469.0..471.0).contains(&median.0) && (530.0..533.0).contains(&median.1), "{median:?}");
        assert_eq!(of(99.9).interval, None);
        assert_eq!(Percentile::of(&[], 50.0), None);
        assert_eq!(Percentile::of(&[7.0], 99.9).expect("a value").value, 7.0);
    }
}
