//! Channels that serve their messages in the order of sending.
//!
//! A message's head takes the latency of each link in turn; its bytes occupy each link, and each shared capacity that
//! the link belongs to, for `bytes / bandwidth` from the moment the head gets in. It has arrived when its tail has
//! left the last link (virtual cut-through).

use super::layout::Way;
use super::traffic::Traffic;
use isotherm_core::units::{Seconds, SimTime};

/// Something that serves one message at a time: a link or a shared capacity.
#[derive(Debug, Clone, Default)]
struct Channel {
    /// When it is free again.
    free: SimTime,
    /// What `free` lacks to the full nanosecond.
    carried: f64,
}

/// All channels of a network.
#[derive(Debug)]
pub(super) struct Channels(Vec<Channel>);

impl Channels {
    pub(super) fn new(count: usize) -> Self {
        Self(vec![Channel::default(); count])
    }

    /// Puts a message on every channel of its way and returns how long it takes. Its bytes are `scale` times those that
    /// the way was made for.
    pub(super) fn occupy(&mut self, now: SimTime, way: &Way, scale: f64, traffic: &Traffic) -> Seconds {
        let (mut head, mut tail) = (Seconds::ZERO, Seconds::ZERO);
        let mut waited = false;
        for leg in &way.legs {
            let free = leg.uses.iter().map(|&(channel, _)| self.0[channel as usize].free.since(now).seconds());
            let start = free.fold(head, Seconds::max);
            waited |= start > head;
            tail += leg.latency;
            for &(channel, occupied) in &leg.uses {
                let occupied = occupied * scale / traffic.left(channel as usize);
                let channel = &mut self.0[channel as usize];
                let (whole, rest) = (start + occupied).whole_nanoseconds(channel.carried);
                channel.free = now + whole;
                channel.carried = rest;
                tail = tail.max(start + occupied + leg.latency);
            }
            head = start + leg.latency;
        }
        // Without waiting the two agree but for rounding, and this one is what planner and checker compute.
        if waited || scale > 1.0 { tail } else { way.alone }
    }
}
