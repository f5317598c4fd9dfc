//! The event queue: the one clock and the one order of a simulation.
//!
//! Events come out in order of (time, sequence of scheduling): ties go to the event scheduled first. The queue is a radix heap
//! (Ahuja, Mehlhorn, Orlin, Tarjan, "Faster algorithms for the shortest path problem", JACM 1990): time never goes
//! back, so an event waits in the bucket of the highest bit in which its time differs from now. When the lowest
//! bucket comes up, its events move to lower ones; each moves at most 64 times, and neighbours move together. There is
//! no bucket width to tune.
//!
//! Events of one time are always in one bucket, since that depends on their time and now alone, and buckets are filled
//! and emptied front to back: that keeps their scheduling order without a number to store.

use isotherm_core::units::SimTime;
use std::collections::VecDeque;

/// One bucket for each bit of a time.
const BUCKETS: usize = 64;

/// An event that waits.
#[derive(Debug)]
struct Entry<E> {
    time: SimTime,
    event: E,
}

/// Pending events and the current time.
#[derive(Debug)]
pub struct EventQueue<E> {
    now: SimTime,
    pending: usize,
    /// Events of the current time, in order.
    due: VecDeque<Entry<E>>,
    /// Bucket `b` holds the events whose time differs from now in bit `b` and in none above.
    buckets: Vec<Vec<Entry<E>>>,
    /// Bit `b` is set where bucket `b` holds an event.
    occupied: u64,
    /// Keeps its allocation between moves.
    moving: Vec<Entry<E>>,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> EventQueue<E> {
    /// An empty queue at time zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            now: SimTime::ZERO,
            pending: 0,
            due: VecDeque::new(),
            buckets: std::iter::repeat_with(Vec::new).take(BUCKETS).collect(),
            occupied: 0,
            moving: Vec::new(),
        }
    }

    /// Time of the event that came out last.
    #[must_use]
    pub const fn now(&self) -> SimTime {
        self.now
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
        assert!(time >= self.now, "an event at {} ns was scheduled at {} ns", time.0, self.now.0);
        self.pending += 1;
        self.place(Entry { time, event });
    }

    /// Takes the next event out: its time and what it is. Now is its time.
    pub fn pop(&mut self) -> Option<(SimTime, E)> {
        if self.due.is_empty() {
            self.advance();
        }
        let entry = self.due.pop_front()?;
        self.pending -= 1;
        Some((entry.time, entry.event))
    }

    fn place(&mut self, entry: Entry<E>) {
        let differing = entry.time.0 ^ self.now.0;
        if differing == 0 {
            self.due.push_back(entry);
        } else {
            let bucket = differing.ilog2() as usize;
            self.occupied |= 1 << bucket;
            self.buckets[bucket].push(entry);
        }
    }

    /// Moves now to the earliest pending time and the events of its bucket to where they then belong.
    fn advance(&mut self) {
        if self.occupied == 0 {
            return;
        }
        let lowest = self.occupied.trailing_zeros() as usize;
        self.occupied &= self.occupied - 1;
        let mut moving = std::mem::take(&mut self.moving);
        std::mem::swap(&mut moving, &mut self.buckets[lowest]);
        if let Some(earliest) = moving.iter().map(|entry| entry.time).min() {
            self.now = earliest;
        }
        for entry in moving.drain(..) {
            self.place(entry);
        }
        self.moving = moving;
    }
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
        /// The oracle is a binary heap over (time, sequence); an event is its own sequence number.
        #[test]
        fn events_come_out_in_order_of_time_and_sequence(
            operations in prop::collection::vec((any::<bool>(), 0_u32..64, any::<u64>()), 1..400),
        ) {
            let (mut queue, mut heap) = (EventQueue::new(), BinaryHeap::new());
            let mut now = 0;
            for (number, (pop, bits, value)) in operations.into_iter().enumerate() {
                if pop {
                    let expected = heap.pop().map(|Reverse(e)| e);
                    let got = queue.pop().map(|(time, event)| (time.0, event));
                    prop_assert_eq!(got, expected);
                    now = got.map_or(now, |e| e.0);
                } else {
                    // Spans of every magnitude, many of them equal.
                    let time = now.saturating_add(value & ((1_u64 << bits) - 1));
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
        }
    }
}
