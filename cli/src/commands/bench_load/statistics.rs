//! Medians and their bootstrap intervals (Efron, Annals of Statistics 1979; the percentile method).

/// Resamples of one interval.
const RESAMPLES: usize = 4_000;

/// A stream of random numbers for resampling: the generator SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub struct Draws(pub u64);

impl Draws {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to below 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }
}

/// The median; of an even number, the mean of the two in the middle. None without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (n, middle) = (sorted.len(), sorted.len() / 2);
    match n {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(0.5 * (sorted[middle - 1] + sorted[middle])),
    }
}

/// The mean; none without values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn resampled(values: &[f64], draws: &mut Draws, middle: fn(&[f64]) -> Option<f64>) -> f64 {
    let sample: Vec<f64> = (0..values.len()).map(|_| values[draws.below(values.len())]).collect();
    middle(&sample).unwrap_or(f64::NAN)
}

fn ends(mut found: Vec<f64>) -> Option<(f64, f64)> {
    found.retain(|value| value.is_finite());
    found.sort_by(f64::total_cmp);
    let at =
        |share: f64| found.get(((found.len() as f64 * share) as usize).min(found.len().saturating_sub(1))).copied();
    Some((at(0.025)?, at(0.975)?))
}

/// The 95 % interval of a median over runs; none with fewer than five.
pub fn interval(values: &[f64], seed: u64) -> Option<(f64, f64)> {
    interval_of(values, seed, median)
}

/// The same of a mean.
pub fn mean_interval(values: &[f64], seed: u64) -> Option<(f64, f64)> {
    interval_of(values, seed, mean)
}

fn interval_of(values: &[f64], seed: u64, middle: fn(&[f64]) -> Option<f64>) -> Option<(f64, f64)> {
    let mut draws = Draws(seed);
    (values.len() >= 5).then(|| ends((0..RESAMPLES).map(|_| resampled(values, &mut draws, middle)).collect()))?
}

/// The 95 % interval of the ratio of two medians, second over first; none where either has fewer than five runs.
pub fn ratio_interval(before: &[f64], after: &[f64], seed: u64) -> Option<(f64, f64)> {
    let mut draws = Draws(seed);
    (before.len() >= 5 && after.len() >= 5).then(|| {
        let ratio = |_| resampled(after, &mut draws, median) / resampled(before, &mut draws, median);
        ends((0..RESAMPLES).map(ratio).collect())
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_encloses_its_median_and_is_the_same_again() {
        let values = [3.0, 1.0, 2.0, 5.0, 4.0, 9.0, 7.0];
        let (low, high) = interval(&values, 1).expect("enough runs");
        assert!(low <= 4.0 && 4.0 <= high && low < high, "{low} {high}");
        assert_eq!(interval(&values, 1), Some((low, high)));
        assert_eq!(interval(&values[..4], 1), None, "four runs are too few");
        assert_eq!(median(&values), Some(4.0));
        assert_eq!(median(&[]), None);
        // One long run in five moves the mean and not the median.
        let skewed = [1.0, 1.0, 1.0, 1.0, 11.0];
        assert_eq!((mean(&skewed), median(&skewed), mean(&[])), (Some(3.0), Some(1.0), None));
        let (low, high) = mean_interval(&skewed, 1).expect("enough runs");
        assert!(low < 3.0 && 3.0 < high && high <= 11.0, "{low} {high}");
    }

    #[test]
    fn the_true_median_lies_in_most_intervals() {
        // Uniform values, whose median is 0.5: nine in ten intervals of eleven runs should enclose it, nominally 95 %.
        let mut draws = Draws(7);
        let enclosed = (0..300)
            .filter(|seed| {
                let runs: Vec<f64> = (0..11).map(|_| draws.unit()).collect();
                interval(&runs, *seed).is_some_and(|(low, high)| low <= 0.5 && 0.5 <= high)
            })
            .count();
        assert!(enclosed > 260, "{enclosed} of 300");
    }

    #[test]
    fn equal_runs_have_a_ratio_of_one_and_doubled_ones_of_two() {
        let runs = [1.0, 1.1, 0.9, 1.05, 0.95];
        let (low, high) = ratio_interval(&runs, &runs, 1).expect("enough runs");
        assert!(low <= 1.0 && 1.0 <= high);
        let (low, _) = ratio_interval(&runs, &runs.map(|x| 2.0 * x), 1).expect("enough runs");
        assert!(low > 1.5);
    }
}
