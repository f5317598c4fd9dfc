//! The hold model, to compare the event queue with the binary heap of the standard library: with a fixed number of
//! pending events, take the next one and schedule another after a random span (Vaucher and Duval, CACM 1975).
//!
//! Both keep the order (time, sequence of scheduling) and carry a payload of the size of the simulator's events. The
//! caller measures; here is no clock.

use crate::queue::EventQueue;
use crate::random::Stream;
use isotherm_core::units::{SimDuration, SimTime};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Longest span between an event and what it causes, in nanoseconds; spans are uniform.
pub const SPAN_MAX: u32 = 1_000_000;

type Event = [u32; 4];

/// A queue and a heap with the same pending events, and the spans to come.
#[derive(Debug)]
pub struct Holds {
    queue: EventQueue<Event>,
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    spans: Vec<u64>,
}

impl Holds {
    /// So many pending events, and so many to take and schedule.
    #[must_use]
    pub fn new(pending: u32, holds: usize) -> Self {
        let mut stream = Stream::new(1, 0, "spans");
        let mut span = || u64::from(stream.between(0, SPAN_MAX));
        let (mut queue, mut heap) = (EventQueue::new(), BinaryHeap::new());
        for number in 0..pending {
            let first = span();
            queue.schedule(SimTime(first), [number; 4]);
            heap.push(Reverse((first, number.into(), [number; 4])));
        }
        Self { queue, heap, sequence: pending.into(), spans: (0..holds).map(|_| span()).collect() }
    }

    /// Takes and schedules through the queue; a number that depends on the order of all that came out.
    pub fn through_queue(&mut self) -> u64 {
        let mut order = 0;
        for &span in &self.spans {
            if let Some((now, event)) = self.queue.pop() {
                order = with(order, now.0, event);
                self.queue.schedule(now + SimDuration(span), event);
            }
        }
        order
    }

    /// The same through the heap.
    pub fn through_heap(&mut self) -> u64 {
        let mut order = 0;
        for &span in &self.spans {
            if let Some(Reverse((now, _, event))) = self.heap.pop() {
                order = with(order, now, event);
                self.heap.push(Reverse((now + span, self.sequence, event)));
                self.sequence += 1;
            }
        }
        order
    }
}

fn with(order: u64, now: u64, event: Event) -> u64 {
    order.wrapping_mul(31).wrapping_add(now ^ u64::from(event[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_give_the_same_order() {
        for pending in [1, 16, 1_000, 20_000] {
            let mut holds = Holds::new(pending, 50_000);
            assert_eq!(holds.through_queue(), holds.through_heap(), "{pending}");
        }
    }
}
