//! Samples of a time, their median and their spread.

/// Times of one thing, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<u64>);

impl Samples {
    /// One more sample.
    pub(super) fn add(&mut self, nanoseconds: u64) {
        self.0.push(nanoseconds);
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// The sample below which this share of them lie, by linear interpolation; zero without samples.
    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
        let at = share * last as f64;
        let (low, high) = (at.floor() as usize, at.ceil() as usize);
        let (low, high) = (sorted[low] as f64, sorted[high] as f64);
        low + (high - low) * at.fract()
    }

    /// The median in seconds.
    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5) * 1e-9
    }

    /// The mean in seconds, the lowest and the highest tenth left out; zero without samples.
    ///
    /// What is predicted from it are means over many steps, which a disturbance now and then lengthens: a median would
    /// leave those out, a plain mean would let a single long one decide.
    pub(super) fn typical(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let cut = sorted.len() / 10;
        let kept = &sorted[cut..sorted.len() - cut];
        if kept.is_empty() { 0.0 } else { kept.iter().map(|&t| t as f64).sum::<f64>() / kept.len() as f64 * 1e-9 }
    }

    /// Interquartile range over median; zero where the median is.
    pub(super) fn spread(&self) -> f64 {
        let median = self.quantile(0.5);
        if median > 0.0 { (self.quantile(0.75) - self.quantile(0.25)) / median } else { 0.0 }
    }
}

/// The middle of some figures; zero without any.
pub(super) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => 0.0,
        n if n % 2 == 1 => figures[n / 2],
        n => f64::midpoint(figures[n / 2 - 1], figures[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_disturbed_sample_moves_neither_median_nor_quartiles_far() {
        let mut samples = Samples::default();
        for nanoseconds in [100, 101, 102, 103, 1_000_000] {
            samples.add(nanoseconds);
        }
        assert_eq!(samples.median(), 102e-9);
        assert!(samples.spread() < 0.03, "{}", samples.spread());
        assert_eq!(Samples::default().median(), 0.0);
        assert_eq!(Samples::default().typical(), 0.0);
    }

    #[test]
    fn the_typical_time_is_a_mean_without_the_outer_tenths() {
        let mut samples = Samples::default();
        for nanoseconds in [1, 100, 100, 100, 100, 200, 200, 200, 200, 1_000_000] {
            samples.add(nanoseconds);
        }
        assert!((samples.typical() - 150e-9).abs() < 1e-15);
    }
}
