//! The last samples, in memory of a fixed size.

use super::Sample;
use std::collections::VecDeque;

/// A sample whose successor is overdue by this many periods says nothing about now.
const STALE_PERIODS: u64 = 3;

/// The last so many samples of a host's devices.
#[derive(Clone, Debug)]
pub struct Ring {
    samples: VecDeque<Sample>,
    capacity: usize,
    period_ms: u64,
    /// Samples that made room for newer ones.
    dropped: u64,
}

impl Ring {
    /// A ring for `capacity` samples, at least one, that come every `period_ms`.
    #[must_use]
    pub fn new(capacity: usize, period_ms: u64) -> Self {
        let capacity = capacity.max(1);
        Self { samples: VecDeque::with_capacity(capacity), capacity, period_ms: period_ms.max(1), dropped: 0 }
    }

    /// Takes a sample in. The oldest makes room for it.
    pub fn push(&mut self, sample: Sample) {
        if self.samples.len() == self.capacity {
            self.samples.pop_front();
            self.dropped += 1;
        }
        self.samples.push_back(sample);
    }

    /// All samples of a device, oldest first.
    pub fn of(&self, device: usize) -> impl DoubleEndedIterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.device == device)
    }

    /// All samples, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }

    /// The last sample of a device, and whether it is stale at `now_ms`.
    #[must_use]
    pub fn last(&self, device: usize, now_ms: u64) -> Option<(&Sample, bool)> {
        let last = self.of(device).next_back()?;
        Some((last, now_ms.saturating_sub(last.at_ms) > STALE_PERIODS * self.period_ms))
    }

    /// How many samples it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// How many it can hold without more memory.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.samples.capacity()
    }

    /// How many samples made room for newer ones.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}
