//! The event queue: the one clock and the one order of a simulation.
//!
//! Events come out in order of (time, sequence of scheduling): ties go to the event scheduled first. The queue is a
//! radix heap (Ahuja, Mehlhorn, Orlin, Tarjan, "Faster algorithms for the shortest path problem", JACM 1990) over
//! digits of six bits, with a short sorted list in front as in a ladder queue (Tang, Goh, Thng, ACM TOMACS 2005). Time
//! never goes back, so an event waits in the bucket of the highest digit in which its time differs from an anchor that
//! is no later. When the earliest bucket comes up, it is sorted if it is short; if not, the anchor moves to its
//! beginning and its events to buckets of lower digits. An event moves at most ten times, mostly once or twice, and
//! there is no bucket width to tune.
//!
//! Events of one time stay in their scheduling order without a number to store: which bucket an event belongs to depends
//! on its time and the anchor alone, buckets are filled and emptied front to back, and sorting is stable.

use isotherm_core::units::SimTime;
use std::collections::VecDeque;

/// Bits of a digit.
const BITS: u32 = 6;
/// Buckets of a level, one for each digit.
const DIGITS: usize = 1 << BITS;
/// Digits of a time.
const LEVELS: usize = u64::BITS.div_ceil(BITS) as usize;
/// Most events of a bucket that is sorted rather than divided; a power of two.
const SORTED_MAX: usize = 32;
/// Most events of the sorted list; beyond it, its later half goes back to the buckets.
const FRONT_MAX: usize = 64;

/// An event that waits.
#[derive(Debug, Clone, Copy)]
struct Entry<E> {
    time: u64,
    event: E,
}

/// Pending events and the current time.
#[derive(Debug)]
pub struct EventQueue<E> {
    now: u64,
    pending: usize,
    /// Events that were scheduled for the current time since it is current, in order.
    instant: VecDeque<E>,
    /// The events before `horizon`, the next one last.
    front: Vec<Entry<E>>,
    horizon: u64,
    /// No later than any event in a bucket.
    anchor: u64,
    /// Bucket `64 * l + d` holds the events whose time differs from the anchor in digit `l`, which is `d`, and in none
    /// above.
    buckets: Vec<Vec<Entry<E>>>,
    /// Bit `d` is set where bucket `64 * l + d` holds an event.
    occupied: [u64; LEVELS],
    /// Bit `l` is set where a bucket of level `l` holds an event.
    levels: u16,
    /// Keeps its allocation between moves.
    moving: Vec<Entry<E>>,
}

impl<E: Copy> Default for EventQueue<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Copy> EventQueue<E> {
    /// An empty queue at time zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            now: 0,
            pending: 0,
            instant: VecDeque::new(),
            front: Vec::new(),
            horizon: 0,
            anchor: 0,
            buckets: std::iter::repeat_with(Vec::new).take(LEVELS * DIGITS).collect(),
            occupied: [0; LEVELS],
            levels: 0,
            moving: Vec::new(),
        }
    }

    /// Time of the event that came out last.
    #[must_use]
    pub const fn now(&self) -> SimTime {
        SimTime(self.now)
    }

    /// Number of pending events.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.pending
    }

    /// Whether nothing is pending.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pending == 0
    }

    /// Schedules an event.
    ///
    /// # Panics
    /// If `time` is before now: effects do not precede their causes.
    pub fn schedule(&mut self, time: SimTime, event: E) {
        let time = time.0;
        assert!(time >= self.now, "an event at {time} ns was scheduled at {} ns", self.now);
        self.pending += 1;
        if time == self.now {
            self.instant.push_back(event);
        } else if time < self.horizon {
            let place = self.front.iter().rposition(|entry| entry.time > time).map_or(0, |later| later + 1);
            self.front.insert(place, Entry { time, event });
            if self.front.len() > FRONT_MAX {
                self.shorten();
            }
        } else {
            self.place(Entry { time, event });
        }
    }

    /// Takes the next event out: its time and what it is. Now is its time.
    pub fn pop(&mut self) -> Option<(SimTime, E)> {
        // What was scheduled for now before it was now comes first.
        if self.front.last().is_none_or(|entry| entry.time > self.now) {
            if let Some(event) = self.instant.pop_front() {
                self.pending -= 1;
                return Some((SimTime(self.now), event));
            }
            if self.front.is_empty() {
                self.advance();
            }
        }
        let entry = self.front.pop()?;
        self.pending -= 1;
        self.now = entry.time;
        Some((SimTime(entry.time), entry.event))
    }

    fn place(&mut self, entry: Entry<E>) {
        let differing = entry.time ^ self.anchor;
        let level = (u64::BITS - 1 - (differing | 1).leading_zeros()) / BITS;
        let digit = (entry.time >> (level * BITS)) as usize % DIGITS;
        self.occupied[level as usize] |= 1 << digit;
        self.levels |= 1 << level;
        self.buckets[level as usize * DIGITS + digit].push(entry);
    }

    /// Fills the empty front with the events of the earliest bucket.
    fn advance(&mut self) {
        while self.levels != 0 {
            let level = self.levels.trailing_zeros();
            let digit = self.occupied[level as usize].trailing_zeros();
            self.occupied[level as usize] &= self.occupied[level as usize] - 1;
            if self.occupied[level as usize] == 0 {
                self.levels &= self.levels - 1;
            }
            let (low, width) = (level * BITS, (level + 1) * BITS);
            let above = if width < u64::BITS { self.anchor >> width << width } else { 0 };
            self.anchor = above | u64::from(digit) << low;
            let bucket = &mut self.buckets[level as usize * DIGITS + digit as usize];
            // In a bucket of the last level times are too far apart for the numbers that are sorted.
            if level == 0 || (bucket.len() <= SORTED_MAX && level + 1 < LEVELS as u32) {
                self.horizon = self.anchor.saturating_add(1 << low);
                // The latest first, and of one time the one scheduled last.
                if level == 0 {
                    self.front.extend(bucket.iter().rev());
                } else {
                    let mut keys = [0; SORTED_MAX];
                    let keys = latest_first(bucket, self.anchor, &mut keys);
                    self.front.extend(keys.iter().map(|key| bucket[*key as usize % SORTED_MAX]));
                }
                bucket.clear();
                return;
            }
            let mut moving = std::mem::take(&mut self.moving);
            std::mem::swap(&mut moving, bucket);
            for entry in moving.drain(..) {
                self.place(entry);
            }
            self.moving = moving;
        }
    }

    /// Puts the later half of the front back into buckets.
    fn shorten(&mut self) {
        // All events of one time go or stay together; those that go are not before the horizon from now on.
        let horizon = self.front[FRONT_MAX / 2].time;
        let kept = self.front.partition_point(|entry| entry.time >= horizon);
        self.horizon = horizon;
        let mut moving = std::mem::take(&mut self.moving);
        moving.extend(self.front.drain(..kept));
        for entry in moving.drain(..).rev() {
            self.place(entry);
        }
        self.moving = moving;
    }
}

/// The places of a short bucket's events, the latest first and of one time the last first, each in the low bits of a
/// number that holds its time above them. Each is carried past all before it without a branch: which way a comparison
/// of two times goes is what a processor guesses wrong half of the time.
fn latest_first<'a, E>(bucket: &[Entry<E>], anchor: u64, keys: &'a mut [u64; SORTED_MAX]) -> &'a [u64] {
    for (place, entry) in bucket.iter().enumerate() {
        let mut key = (entry.time - anchor) * SORTED_MAX as u64 + place as u64;
        for held in &mut keys[..place] {
            let (later, earlier) = ((*held).max(key), (*held).min(key));
            *held = later;
            key = earlier;
        }
        keys[place] = key;
    }
    &keys[..bucket.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    #[test]
    fn events_at_one_time_keep_their_scheduling_order() {
        let mut queue = EventQueue::new();
        // Scheduled from near and far, before and after other events, all for one time.
        for (time, name) in [(7, 'a'), (1, 'x'), (7, 'b'), (5, 'y'), (7, 'c')] {
            queue.schedule(SimTime(time), name);
        }
        let mut order = Vec::new();
        while let Some((time, name)) = queue.pop() {
            order.push(name);
            match name {
                'x' => queue.schedule(SimTime(7), 'd'),
                'y' => queue.schedule(SimTime(7), 'e'),
                'a' => queue.schedule(time, 'f'),
                _ => {}
            }
        }
        assert_eq!(order, ['x', 'y', 'a', 'b', 'c', 'd', 'e', 'f']);
    }

    #[test]
    fn the_last_nanosecond_can_be_scheduled() {
        let mut queue = EventQueue::new();
        queue.schedule(SimTime::NEVER, 1);
        queue.schedule(SimTime::ZERO, 0);
        assert_eq!(queue.pop().map(|e| e.1), Some(0));
        assert_eq!(queue.pop(), Some((SimTime::NEVER, 1)));
        assert!(queue.is_empty() && queue.pop().is_none());
    }

    #[test]
    #[should_panic(expected = "an event at 4 ns was scheduled at 5 ns")]
    fn nothing_is_scheduled_in_the_past() {
        let mut queue = EventQueue::new();
        queue.schedule(SimTime(5), ());
        queue.pop();
        queue.schedule(SimTime(4), ());
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::with_cases(500) })]
        /// The oracle is a binary heap over (time, sequence); an event is its own sequence number. Spans are of every
        /// magnitude, many of them equal.
        #[test]
        fn events_come_out_in_order_of_time_and_sequence(
            operations in prop::collection::vec((any::<bool>(), 0_u32..64, any::<u64>()), 1..400),
        ) {
            let operations = operations.into_iter().map(|(pop, bits, value)| (pop, value & ((1_u64 << bits) - 1)));
            agrees_with_a_heap(operations)?;
        }

        /// Long runs of spans that are alike, so that many events come between now and what was next.
        #[test]
        fn crowds_come_out_in_order_too(
            operations in prop::collection::vec((0_u32..5, any::<u64>()), 1..6_000), bits in 0_u32..30, far in 0_u32..64,
        ) {
            let span = |value: u64| if value.is_multiple_of(97) { 1_u64 << far } else { value & ((1_u64 << bits) - 1) };
            agrees_with_a_heap(operations.into_iter().map(|(pop, value)| (pop < 2, span(value))))?;
        }
    }

    fn agrees_with_a_heap(operations: impl Iterator<Item = (bool, u64)>) -> Result<(), TestCaseError> {
        let (mut queue, mut heap) = (EventQueue::new(), BinaryHeap::new());
        let mut now = 0_u64;
        for (number, (pop, span)) in operations.enumerate() {
            if pop {
                let expected = heap.pop().map(|Reverse(e)| e);
                let got = queue.pop().map(|(time, event)| (time.0, event));
                prop_assert_eq!(got, expected);
                now = got.map_or(now, |e| e.0);
            } else {
                let time = now.saturating_add(span);
                queue.schedule(SimTime(time), number);
                heap.push(Reverse((time, number)));
            }
            prop_assert_eq!(queue.len(), heap.len());
            prop_assert_eq!(queue.now().0, now);
        }
        while let Some(Reverse(expected)) = heap.pop() {
            prop_assert_eq!(queue.pop().map(|(time, event)| (time.0, event)), Some(expected));
        }
        prop_assert!(queue.pop().is_none());
        Ok(())
    }
}
