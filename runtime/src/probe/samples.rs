//! Samples of a time, their middle and their spread.
//!
//! A machine is seldom one's own. Samples that other programs disturbed, or neighbours on the same physical cores, as far
//! as that is known, do not count where there are enough others. Where there are not, the shortest quarter of all of them
//! does: nothing is disturbed into being fast.

use crate::cpu::neighbours::Reading;

/// Fewest undisturbed samples that are enough.
const CLEAN: usize = 3;

/// Times of one thing, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    all: Vec<Sample>,
}

/// One time, and what is known of what lengthened it.
#[derive(Clone, Copy, Debug)]
struct Sample {
    nanoseconds: u64,
    /// Whether no other program of this machine disturbed it.
    clean: bool,
    /// Who else was on its cores.
    beside: Reading,
}

impl Samples {
    /// One more sample.
    pub(super) fn add(&mut self, nanoseconds: u64) {
        self.add_if(true, Reading::UNKNOWN, nanoseconds);
    }

    /// One more sample, of which is known whether other programs disturbed it, and whether it had neighbours.
    pub(super) fn add_if(&mut self, clean: bool, beside: Reading, nanoseconds: u64) {
        self.all.push(Sample { nanoseconds, clean, beside });
    }

    /// How many there are, disturbed or not.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.all.len()).unwrap_or(u32::MAX)
    }

    /// How many of them other programs disturbed.
    pub(super) fn disturbed(&self) -> u32 {
        self.number(|sample| !sample.clean)
    }

    /// How many of them nothing is known to have lengthened.
    pub(super) fn calm(&self) -> u32 {
        self.number(|sample| sample.clean && sample.beside.is_calm())
    }

    /// How many of them had neighbours, or cores that were apart.
    pub(super) fn beside(&self) -> u32 {
        self.number(|sample| !sample.beside.is_calm())
    }

    fn number(&self, of: impl Fn(&Sample) -> bool) -> u32 {
        u32::try_from(self.all.iter().filter(|sample| of(sample)).count()).unwrap_or(u32::MAX)
    }

    /// Those that count, rising.
    fn counting(&self) -> Vec<u64> {
        let times = |of: &dyn Fn(&Sample) -> bool| {
            let mut times: Vec<u64> = self.all.iter().filter(|s| of(s)).map(|s| s.nanoseconds).collect();
            times.sort_unstable();
            times
        };
        // Cores that are apart for minutes are what the device is then.
        for counts in [Reading::is_calm, Reading::is_alone] {
            let counting = times(&|sample| sample.clean && counts(sample.beside));
            if counting.len() == self.all.len() || counting.len() >= CLEAN {
                return counting;
            }
        }
        let mut counting = times(&|_| true);
        counting.truncate(counting.len().div_ceil(4));
        counting
    }

    /// How many times as long as those that count the ones took that only neighbours lengthened; absent where there are
    /// not enough of both.
    pub(super) fn slowed_beside(&self) -> Option<f64> {
        let beside: Vec<u64> =
            self.all.iter().filter(|s| s.clean && !s.beside.is_calm()).map(|s| s.nanoseconds).collect();
        let enough = beside.len() >= CLEAN && self.calm() as usize >= CLEAN && self.mean() > 0.0;
        enough.then(|| mean(&beside) / self.mean())
    }

    /// Seconds that all of them took, disturbed or not, and that as many typical ones would have.
    pub(super) fn of_all(&self) -> (f64, f64) {
        let all = self.all.iter().map(|sample| sample.nanoseconds as f64).sum::<f64>() * 1e-9;
        (all, self.typical() * self.all.len() as f64)
    }

    /// The median in seconds.
    pub(super) fn median(&self) -> f64 {
        quantile(&self.counting(), 0.5) * 1e-9
    }

    /// The mean in seconds, the lowest and the highest tenth left out; zero without samples.
    ///
    /// What is predicted from it are means over many steps, which a disturbance now and then lengthens: a median would
    /// leave those out, a plain mean would let a single long one decide.
    pub(super) fn typical(&self) -> f64 {
        let sorted = self.counting();
        let cut = sorted.len() / 10;
        mean(&sorted[cut..sorted.len() - cut])
    }

    /// The mean in seconds of the densest half; zero without samples. For times that nothing tells the disturbance of.
    pub(super) fn dense(&self) -> f64 {
        mean(densest_half(&self.counting()))
    }

    /// The mean in seconds of all that count; zero without samples.
    pub(super) fn mean(&self) -> f64 {
        mean(&self.counting())
    }

    /// Interquartile range over median; zero where the median is.
    pub(super) fn spread(&self) -> f64 {
        let counting = self.counting();
        let median = quantile(&counting, 0.5);
        if median > 0.0 { (quantile(&counting, 0.75) - quantile(&counting, 0.25)) / median } else { 0.0 }
    }
}

/// The mean in seconds; zero of none.
fn mean(nanoseconds: &[u64]) -> f64 {
    if nanoseconds.is_empty() {
        return 0.0;
    }
    nanoseconds.iter().map(|&t| t as f64).sum::<f64>() / nanoseconds.len() as f64 * 1e-9
}

/// The shortest stretch of rising figures that holds more than half of them (the "shorth" of Andrews et al., Robust
/// Estimates of Location, 1972): whatever the other half does, it does not move it far.
fn densest_half(rising: &[u64]) -> &[u64] {
    let held = rising.len() / 2 + 1;
    rising.windows(held.min(rising.len().max(1))).min_by_key(|half| half[half.len() - 1] - half[0]).unwrap_or(rising)
}

/// The figure below which this share of rising ones lie, by linear interpolation; zero of none.
fn quantile(rising: &[u64], share: f64) -> f64 {
    let Some(last) = rising.len().checked_sub(1) else { return 0.0 };
    let at = share * last as f64;
    let (low, high) = (rising[at.floor() as usize] as f64, rising[at.ceil() as usize] as f64);
    low + (high - low) * at.fract()
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
    use crate::cpu::neighbours::{apart, beside_a_neighbour};

    fn of(nanoseconds: &[u64]) -> Samples {
        let mut samples = Samples::default();
        nanoseconds.iter().for_each(|&time| samples.add(time));
        samples
    }

    #[test]
    fn one_disturbed_sample_moves_neither_median_nor_quartiles_far() {
        let samples = of(&[100, 101, 102, 103, 1_000_000]);
        assert_eq!(samples.median(), 102e-9);
        assert!(samples.spread() < 0.03, "{}", samples.spread());
        assert_eq!(Samples::default().median(), 0.0);
        assert_eq!(Samples::default().typical(), 0.0);
        assert_eq!(Samples::default().dense(), 0.0);
    }

    #[test]
    fn the_typical_time_is_a_mean_without_the_outer_tenths() {
        let samples = of(&[1, 100, 100, 100, 100, 200, 200, 200, 200, 1_000_000]);
        assert!((samples.typical() - 150e-9).abs() < 1e-15);
    }

    #[test]
    fn the_densest_half_is_the_shortest_stretch_of_all_that_hold_more_than_half() {
        // By enumeration of all pairs that enclose enough.
        let figures = [3_u64, 50, 51, 53, 54, 90, 400, 7000];
        let mut best = (u64::MAX, 0, 0);
        for from in 0..figures.len() {
            for to in from..figures.len() {
                if to - from + 1 > figures.len() / 2 {
                    best = best.min((figures[to] - figures[from], from, to));
                }
            }
        }
        assert_eq!(densest_half(&figures), &figures[best.1..=best.2]);
        assert_eq!(densest_half(&[7]), [7]);
        assert!(densest_half(&[]).is_empty());
    }

    #[test]
    fn samples_beside_neighbours_do_not_count_and_those_of_cores_apart_do_where_there_is_nothing_else() {
        let mut samples = Samples::default();
        for (beside, time) in [(apart(), 200), (apart(), 202), (apart(), 204), (beside_a_neighbour(), 330)] {
            samples.add_if(true, beside, time);
        }
        assert!((samples.typical() - 202e-9).abs() < 1e-15);
        assert_eq!((samples.beside(), samples.calm(), samples.slowed_beside()), (4, 0, None));
        for time in [100, 101, 102] {
            samples.add_if(true, Reading::UNKNOWN, time);
        }
        assert!((samples.typical() - 101e-9).abs() < 1e-15);
        assert_eq!((samples.beside(), samples.calm()), (4, 3));
        let slowed = samples.slowed_beside().expect("enough of both");
        assert!((slowed - 234.0 / 101.0).abs() < 1e-12, "{slowed}");
    }

    #[test]
    fn what_sharing_costs_is_seen_in_all_samples_against_those_that_count() {
        let mut samples = of(&[100, 102, 104]);
        assert_eq!(samples.of_all(), (306e-9, 306e-9));
        samples.add_if(false, Reading::UNKNOWN, 300);
        samples.add_if(true, beside_a_neighbour(), 204);
        let (all, counted) = samples.of_all();
        assert!((all - 810e-9).abs() < 1e-15 && (counted - 5.0 * 102e-9).abs() < 1e-15, "{all} {counted}");
        assert_eq!(Samples::default().of_all(), (0.0, 0.0));
    }

    #[test]
    fn disturbed_samples_count_only_where_there_are_too_few_others() {
        let mut samples = of(&[100, 102]);
        for time in [700, 900, 950] {
            samples.add_if(false, Reading::UNKNOWN, time);
        }
        assert!((samples.typical() - 101e-9).abs() < 1e-15, "two of five: {}", samples.typical());
        samples.add_if(true, Reading::UNKNOWN, 110);
        assert!((samples.typical() - 104e-9).abs() < 1e-15);
        assert_eq!((samples.count(), samples.disturbed()), (6, 3));
    }
}
