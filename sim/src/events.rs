//! The digest over every event of a replication: same inputs, same digest, on any machine and any number of threads.

use crate::world::Event;
use isotherm_core::digest::Digest;
use isotherm_core::units::SimTime;

/// Bytes of one event in the log: its time, its kind, three numbers.
const ENTRY: usize = 21;
/// Events between two links of the chain.
const BLOCK: usize = 1024;

/// A chain of digests over the events so far: each block of events is digested together with the digest before it.
#[derive(Debug)]
pub struct Log {
    chain: Digest,
    block: Vec<u8>,
    events: u64,
}

impl Log {
    /// A log without events.
    #[must_use]
    pub fn new() -> Self {
        let chain = Digest::of(b"isotherm.events/v1");
        let mut block = Vec::with_capacity(32 + BLOCK * ENTRY);
        block.extend_from_slice(chain.bytes());
        Self { chain, block, events: 0 }
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
        };
        let mut entry = [0; ENTRY];
        entry[..8].copy_from_slice(&now.0.to_le_bytes());
        entry[8] = kind;
        for (number, place) in numbers.iter().zip(entry[9..].chunks_exact_mut(4)) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.block.extend_from_slice(&entry);
        self.events += 1;
        if self.events.is_multiple_of(BLOCK as u64) {
            self.link();
        }
    }

    /// Number of events.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.events
    }

    /// The digest of them all.
    #[must_use]
    pub fn digest(mut self) -> Digest {
        self.link();
        self.chain
    }

    fn link(&mut self) {
        self.chain = Digest::of(&self.block);
        self.block.clear();
        self.block.extend_from_slice(self.chain.bytes());
    }
}
