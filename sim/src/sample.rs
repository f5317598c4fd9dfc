//! Values of one metric: all of them while they are few, then how many fell where.
//!
//! Up to [`EXACT_MAX`] values are kept, and their percentiles are exact. Beyond, a value counts in the bucket of its
//! leading `BITS` bits of fraction, whose middle differs from it by at most [`RELATIVE_ERROR`]; so memory stays bounded
//! however many values come, and two samples merge into the sample of both.

use isotherm_core::percentile::Percentile;
use isotherm_core::trace::Statistic;
use std::collections::VecDeque;

/// Most values that are kept one by one.
pub const EXACT_MAX: usize = 1 << 18;
/// Bits of a value's fraction that its bucket keeps.
const BITS: u32 = 10;
/// Share by which the middle of a bucket differs from a value in it at most: half a bucket of width 2^-10.
pub const RELATIVE_ERROR: f64 = 1.0 / (1 << (BITS + 1)) as f64;
/// Values below this count as zero: a thousandth of a nanosecond, in seconds.
const LEAST: f64 = 1e-12;

/// Values of one metric, none of them below zero.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    count: u64,
    sum: f64,
    /// All values, while there are no more than [`EXACT_MAX`].
    values: Vec<f64>,
    /// How many fell into each bucket, from the first that is not empty.
    counts: VecDeque<u64>,
    first: u64,
    /// Values that count as zero.
    zeros: u64,
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut sample = Self::default();
        values.into_iter().for_each(|value| sample.add(value));
        sample
    }
}

impl Sample {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        if self.count <= EXACT_MAX as u64 {
            self.values.push(value);
            return;
        }
        self.give_up_values();
        self.place(value, 1);
    }

    /// Adds all values of another sample.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        if self.count <= EXACT_MAX as u64 {
            self.values.extend_from_slice(&other.values);
            return;
        }
        self.give_up_values();
        other.values.iter().for_each(|&value| self.place(value, 1));
        self.zeros += other.zeros;
        for (&count, bucket) in other.counts.iter().zip(other.first..) {
            if count > 0 {
                self.place_in(bucket, count);
            }
        }
    }

    fn give_up_values(&mut self) {
        for value in std::mem::take(&mut self.values) {
            self.place(value, 1);
        }
    }

    fn place(&mut self, value: f64, count: u64) {
        if value < LEAST {
            self.zeros += count;
        } else {
            self.place_in(value.to_bits() >> (f64::MANTISSA_DIGITS - 1 - BITS), count);
        }
    }

    fn place_in(&mut self, bucket: u64, count: u64) {
        if self.counts.is_empty() {
            self.first = bucket;
        }
        while self.first > bucket {
            self.counts.push_front(0);
            self.first -= 1;
        }
        let place = (bucket - self.first) as usize;
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] += count;
    }

    /// Number of values.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Mean of the values; none without any.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The values by rank.
    #[must_use]
    pub fn ranked(mut self) -> Ranked {
        self.values.sort_by(f64::total_cmp);
        Ranked(self)
    }
}

/// Values of one metric by rank.
#[derive(Debug)]
pub struct Ranked(Sample);

impl Ranked {
    /// Number of values.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.0.count
    }

    /// Mean of the values; none without any.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        self.0.mean()
    }

    /// Mean and percentiles, by nearest rank; none without values.
    #[must_use]
    pub fn statistic(&self) -> Option<Statistic> {
        let percentile = |percent| Some(self.percentile(percent)?.value);
        Some(Statistic {
            mean: self.mean()?,
            p50: percentile(50.0)?,
            p90: percentile(90.0)?,
            p99: percentile(99.0)?,
            ci95: None,
            relative_error: (self.0.count > EXACT_MAX as u64).then_some(RELATIVE_ERROR),
        })
    }

    /// A percentile; none without values.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<Percentile> {
        Percentile::by_rank(self.0.count, percent, |rank| self.at(rank))
    }

    /// The value of a rank from 1 to the number of values, or the middle of its bucket.
    fn at(&self, rank: u64) -> f64 {
        let Sample { values, counts, first, zeros, .. } = &self.0;
        if let Some(&value) = values.get(rank as usize - 1) {
            return value;
        }
        let mut below = *zeros;
        if rank <= below {
            return 0.0;
        }
        let holds = |&(count, _): &(&u64, u64)| {
            below += *count;
            below >= rank
        };
        let bucket = counts.iter().zip(*first..).find(holds).map_or(*first, |(_, bucket)| bucket);
        let edge = |bucket: u64| f64::from_bits(bucket << (f64::MANTISSA_DIGITS - 1 - BITS));
        (edge(bucket) + edge(bucket + 1)) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn few_values_are_exact_in_any_parts() {
        let values: Vec<f64> = (1..=1_000).rev().map(f64::from).collect();
        let (mut whole, mut one, mut two) = (Sample::default(), Sample::default(), Sample::default());
        values.iter().for_each(|&value| whole.add(value));
        values[..300].iter().for_each(|&value| one.add(value));
        values[300..].iter().for_each(|&value| two.add(value));
        one.merge(&two);
        let (whole, one) = (whole.ranked().statistic().expect("values"), one.ranked().statistic().expect("values"));
        assert_eq!((whole.p50, whole.p90, whole.p99, whole.relative_error), (500.0, 900.0, 990.0, None));
        assert_eq!(whole, one);
        assert_eq!(Sample::default().ranked().statistic(), None);
    }

    #[test]
    fn percentiles_of_many_values_are_within_the_stated_share_in_any_parts() {
        let mut stream = Stream::new(3, 0, "values");
        // Zeros, and spans over nine decades.
        let draw = |stream: &mut Stream| match stream.between(0, 9) {
            0 => 0.0,
            _ => libm::exp(f64::from(stream.between(0, 20_000)) * 1e-3 - 16.0) * stream.unit(),
        };
        let values: Vec<f64> = (0..700_000).map(|_| draw(&mut stream)).collect();
        let exact = Statistic::of(values.clone()).expect("values");
        let mut whole = Sample::default();
        values.iter().for_each(|&value| whole.add(value));
        let mut merged = Sample::default();
        for part in values.chunks(250_000) {
            let mut sample = Sample::default();
            part.iter().for_each(|&value| sample.add(value));
            merged.merge(&sample);
        }
        assert!(whole.counts.len() < 64 << BITS, "{} buckets", whole.counts.len());
        for found in [whole.ranked().statistic().expect("values"), merged.ranked().statistic().expect("values")] {
            for (found, exact) in [(found.p50, exact.p50), (found.p90, exact.p90), (found.p99, exact.p99)] {
                assert!((found / exact - 1.0).abs() <= RELATIVE_ERROR, "{found} {exact}");
            }
            assert!((found.mean / exact.mean - 1.0).abs() < 1e-9);
            assert_eq!(found.relative_error, Some(RELATIVE_ERROR));
        }
    }

    #[test]
    fn the_least_values_count_as_zero() {
        let mut sample = Sample::default();
        (0..=EXACT_MAX).for_each(|_| sample.add(0.0));
        let statistic = sample.ranked().statistic().expect("values");
        assert_eq!((statistic.p50, statistic.p99, statistic.mean), (0.0, 0.0, 0.0));
    }
}
