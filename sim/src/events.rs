//! The digest over every event of a replication: same inputs, same digest, on any machine and any number of threads.

use crate::world::Event;
use isotherm_core::digest::Digest;
use isotherm_core::units::SimTime;

/// Odd multipliers: the golden ratio's, and two of Steele and Vigna ("Computationally easy, spectrally good
/// multipliers", 2022).
const MULTIPLIERS: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0xd134_2543_de82_ef95, 0xf135_7aea_2e62_a9c5];

/// A running mix of 128 bits over the events so far, digested once at the end.
///
/// Every step is one-to-one in the state for a given event and in the event's time for a given state, so two runs that
/// differ once differ from there on, but for a chance of about 2^-128 at each later step. That finds accidents; it is no
/// proof against somebody who looks for two runs of one digest.
#[derive(Debug)]
pub struct Log {
    state: [u64; 2],
    events: u64,
}

impl Log {
    /// A log without events.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: [0x6973_6f74_6865_726d, 0x6576_656e_7473_2f32], events: 0 }
    }

    /// Adds an event.
    pub fn add(&mut self, now: SimTime, event: Event) {
        let (kind, numbers) = match event {
            Event::Arrive => (0, [0; 3]),
            Event::Schedule { route } => (1, [route, 0, 0]),
            Event::Reach { route, stop, slot } => (2, [route, stop, slot]),
            Event::Finish { server, version } => (3, [server, version, 0]),
            Event::Return { route, slot } => (4, [route, slot, 0]),
            Event::Clock { server, version } => (5, [server, version, 0]),
            Event::Links { version } => (6, [version, 0, 0]),
            Event::Incident => (7, [0; 3]),
            Event::Detect { route } => (8, [route, 0, 0]),
            Event::Loaded { load } => (9, [load, 0, 0]),
            Event::Moved { route, request } => (10, [route, request, 0]),
            Event::Severed { from, to } => (11, [from, to, 0]),
        };
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let [a, b] = self.state;
        let a = (a ^ now.0).rotate_left(23).wrapping_mul(MULTIPLIERS[0]).wrapping_add(b);
        let b = (b ^ pair(kind, numbers[0])).rotate_left(31).wrapping_mul(MULTIPLIERS[1]).wrapping_add(a);
        let a = (a ^ pair(numbers[1], numbers[2])).rotate_left(41).wrapping_mul(MULTIPLIERS[2]).wrapping_add(b);
        self.state = [a, b];
        self.events += 1;
    }

    /// Number of events.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.events
    }

    /// The digest of them all.
    #[must_use]
    pub fn digest(self) -> Digest {
        let mut bytes = b"isotherm.events/v2".to_vec();
        for word in [self.events, self.state[0], self.state[1]] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        Digest::of(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(events: &[(u64, Event)]) -> Digest {
        let mut log = Log::new();
        for &(time, event) in events {
            log.add(SimTime(time), event);
        }
        log.digest()
    }

    #[test]
    fn every_time_kind_number_and_place_counts() {
        let reach = |route, stop, slot| Event::Reach { route, stop, slot };
        let runs = [
            vec![],
            vec![(1, Event::Arrive)],
            vec![(2, Event::Arrive)],
            vec![(1, Event::Arrive), (1, Event::Arrive)],
            vec![(1, Event::Schedule { route: 0 })],
            vec![(1, Event::Schedule { route: 1 })],
            vec![(1, reach(0, 0, 0))],
            vec![(1, reach(1, 0, 0))],
            vec![(1, reach(0, 1, 0))],
            vec![(1, reach(0, 0, 1))],
            vec![(1, Event::Arrive), (1, reach(0, 0, 1))],
            vec![(1, reach(0, 0, 1)), (1, Event::Arrive)],
            vec![(1, Event::Finish { server: 0, version: 1 })],
            vec![(1, Event::Return { route: 0, slot: 1 })],
            vec![(1, Event::Clock { server: 0, version: 1 })],
        ];
        let mut digests: Vec<Digest> = runs.iter().map(|run| digest(run)).collect();
        assert_eq!(digests, runs.iter().map(|run| digest(run)).collect::<Vec<_>>());
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), runs.len());
    }
}
