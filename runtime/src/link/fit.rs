//! The line through times and sizes: `time = latency + bytes / rate`.

use serde::Serialize;

/// A size and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The size.
    pub bytes: u64,
    /// Median of its times.
    pub seconds: f64,
    /// Range between their quartiles, in seconds.
    pub spread: f64,
    /// How many times there were.
    pub samples: u32,
}

impl Point {
    /// The point of some times; `None` without any.
    #[must_use]
    pub fn of(bytes: u64, times: &[f64]) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let quantile = |share: f64| {
            let at = share * last as f64;
            let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
            low + (high - low) * at.fract()
        };
        let samples = u32::try_from(times.len()).unwrap_or(u32::MAX);
        Some(Self { bytes, seconds: quantile(0.5), spread: quantile(0.75) - quantile(0.25), samples })
    }
}

/// Latency and rate of a link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// Time of a message of nothing.
    pub latency_seconds: f64,
    /// Bytes per second beyond that.
    pub bytes_per_second: f64,
    /// Root of the mean squared relative error over the points.
    pub residual: f64,
}

/// Points whose times are within this factor of the longest say what the rate is.
const LARGE: f64 = 16.0;
/// Points of whose times the bytes take at most this share say what the latency is.
const SMALL: f64 = 0.1;

/// The line `a + b x` with the least squares of relative errors; `None` where there is none.
fn line(points: &[&Point]) -> Option<(f64, f64)> {
    // Minimise the sum of (a u + b v - 1)^2 with u = 1 / t and v = x / t by its two normal equations.
    let rows: Vec<(f64, f64)> = points.iter().map(|p| (1.0 / p.seconds, p.bytes as f64 / p.seconds)).collect();
    let sum = |f: fn(&(f64, f64)) -> f64| rows.iter().map(f).sum::<f64>();
    let (uu, uv, vv) = (sum(|r| r.0 * r.0), sum(|r| r.0 * r.1), sum(|r| r.1 * r.1));
    let (u, v) = (sum(|r| r.0), sum(|r| r.1));
    let determinant = uu * vv - uv * uv;
    let (a, b) = ((u * vv - v * uv) / determinant, (uu * v - uv * u) / determinant);
    (determinant > 0.0 && a.is_finite() && b.is_finite() && b > 0.0).then_some((a, b))
}

impl Fit {
    /// Rate from the large messages, latency from the small ones, each by relative errors: what lies between may follow
    /// neither, since a shaper lets a burst through and a connection opens its window. The residual says how far the one
    /// line is from all points. `None` with fewer than two sizes, or where larger messages take no longer.
    #[must_use]
    pub fn of(points: &[Point]) -> Option<Self> {
        let points: Vec<&Point> = points.iter().filter(|p| p.seconds > 0.0).collect();
        let longest = points.iter().map(|p| p.seconds).reduce(f64::max)?;
        let large: Vec<&Point> = points.iter().copied().filter(|p| p.seconds * LARGE >= longest).collect();
        let (_, b) = line(&large).or_else(|| line(&points))?;
        // Of messages so small that their bytes hardly count; the smallest does in any case.
        let small = |p: &&&Point| b * p.bytes as f64 <= SMALL * p.seconds;
        let least = points.iter().min_by_key(|p| p.bytes)?;
        let mut rests: Vec<f64> =
            points.iter().filter(small).chain([least]).map(|p| p.seconds - b * p.bytes as f64).collect();
        rests.sort_by(f64::total_cmp);
        let a = rests[rests.len() / 2].max(0.0);
        let error = |p: &&Point| ((a + b * p.bytes as f64) / p.seconds - 1.0).powi(2);
        let residual = (points.iter().map(error).sum::<f64>() / points.len() as f64).sqrt();
        Some(Self { latency_seconds: a, bytes_per_second: 1.0 / b, residual })
    }

    /// The time it gives a size.
    #[must_use]
    pub fn seconds(&self, bytes: u64) -> f64 {
        self.latency_seconds + bytes as f64 / self.bytes_per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points(latency: f64, rate: f64, noise: impl Fn(u32) -> f64) -> Vec<Point> {
        let point = |power: u32| Point::of(1 << power, &[(latency + f64::from(1 << power) / rate) * noise(power)]);
        (0..25).filter_map(point).collect()
    }

    #[test]
    fn times_have_their_median_and_quartiles() {
        let point = Point::of(8, &[5.0, 1.0, 3.0, 2.0, 4.0]).expect("times");
        assert_eq!((point.seconds, point.spread, point.samples), (3.0, 2.0, 5));
        assert_eq!(Point::of(8, &[]), None);
        assert_eq!(Fit::of(&[point]), None);
    }

    #[test]
    fn a_burst_that_a_shaper_lets_through_does_not_make_the_link_faster() {
        // 16 KiB pass at once, the rest at 6 MB/s.
        let time = |bytes: f64| 40e-6 + bytes / 2e9 + f64::max(bytes - 16384.0, 0.0) / 6e6;
        let points: Vec<Point> = (0..22).filter_map(|p| Point::of(1 << p, &[time(f64::from(1 << p))])).collect();
        let fit = Fit::of(&points).expect("many sizes");
        assert!((fit.bytes_per_second / 6e6 - 1.0).abs() < 0.01, "{fit:?}");
        assert!((fit.latency_seconds / 40e-6 - 1.0).abs() < 0.05 && fit.residual > 0.1, "{fit:?}");
    }

    proptest! {
        #[test]
        fn a_line_is_found_again(latency in 1e-6..0.1, rate in 1e6..1e10) {
            let fit = Fit::of(&points(latency, rate, |_| 1.0)).expect("many sizes");
            prop_assert!((fit.latency_seconds / latency - 1.0).abs() < 1e-6, "{:?}", fit);
            prop_assert!(fit.residual < 1e-6);
            // Where the largest message hardly takes longer than the smallest there is no rate to be found.
            if f64::from(1 << 24) / rate > latency {
                prop_assert!((fit.bytes_per_second / rate - 1.0).abs() < 1e-6, "{:?}", fit);
            }
        }

        #[test]
        fn noise_of_some_percent_moves_it_by_no_more(latency in 1e-5..1e-2, rate in 1e7..1e9, seed in any::<u64>()) {
            let noise = |power: u32| 1.0 + 0.03 * (((seed >> power) & 3) as f64 / 1.5 - 1.0);
            if let Some(fit) = Fit::of(&points(latency, rate, noise)) {
                prop_assert!((fit.latency_seconds / latency - 1.0).abs() < 0.06, "{:?}", fit);
                if f64::from(1 << 24) / rate > 10.0 * latency {
                    prop_assert!((fit.bytes_per_second / rate - 1.0).abs() < 0.06, "{:?}", fit);
                }
            }
        }
    }
}
