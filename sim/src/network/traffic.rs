//! Traffic of others: what it leaves of each channel, and when that changes.

use crate::random::Stream;
use isotherm_core::units::{Seconds, SimTime};

/// Something that takes a share of a channel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SourceLayout {
    /// The channel.
    pub(super) channel: u32,
    /// Share of its bandwidth.
    pub(super) share: f64,
    /// Mean times on and off; always on where absent.
    pub(super) on_off: Option<(Seconds, Seconds)>,
}

#[derive(Debug, Clone)]
struct Source {
    layout: SourceLayout,
    on: bool,
    /// When it turns on or off.
    turns: SimTime,
    carried: f64,
    stream: Stream,
}

/// All cross traffic of a replication.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    sources: Vec<Source>,
    /// Share that is left of each channel that has any.
    left: Vec<(u32, f64)>,
}

impl Traffic {
    pub(super) fn new(sources: &[SourceLayout], seed: u64, replication: u32) -> Self {
        let sources = sources.iter().enumerate().map(|(number, layout)| {
            let mut stream = Stream::new(seed, replication, &format!("cross traffic {number}"));
            // In the long run it is on for this share of the time, and a run begins at any of them.
            let on = layout.on_off.is_none_or(|(on, off)| stream.unit() * (on + off).value() < on.value());
            let mut source = Source { layout: layout.clone(), on, turns: SimTime::NEVER, carried: 0.0, stream };
            source.set(SimTime::ZERO);
            source
        });
        let mut traffic = Self { sources: sources.collect(), left: Vec::new() };
        traffic.weigh();
        traffic
    }

    /// Share of a channel that is left to the lanes.
    pub(super) fn left(&self, channel: usize) -> f64 {
        self.left.iter().find(|(at, _)| *at as usize == channel).map_or(1.0, |(_, left)| *left)
    }

    /// When the next source turns on or off.
    pub(super) fn due(&self) -> Option<SimTime> {
        self.sources.iter().map(|source| source.turns).min().filter(|&due| due < SimTime::NEVER)
    }

    /// Turns what is due by now; whether anything was.
    pub(super) fn turn(&mut self, now: SimTime) -> bool {
        let mut turned = false;
        for source in &mut self.sources {
            while source.turns <= now && source.turns < SimTime::NEVER {
                source.on = !source.on;
                source.set(source.turns);
                turned = true;
            }
        }
        if turned {
            self.weigh();
        }
        turned
    }

    fn weigh(&mut self) {
        self.left.clear();
        for source in &self.sources {
            let taken = if source.on { source.layout.share } else { 0.0 };
            match self.left.iter_mut().find(|(channel, _)| *channel == source.layout.channel) {
                // Several sources on one channel: each takes its share of what the others leave.
                Some((_, left)) => *left *= 1.0 - taken,
                None => self.left.push((source.layout.channel, 1.0 - taken)),
            }
        }
    }
}

impl Source {
    /// Draws when it turns next.
    fn set(&mut self, now: SimTime) {
        let Some((on, off)) = self.layout.on_off else { return };
        let mean = if self.on { on } else { off };
        let span = Seconds::new(mean.value() * self.stream.exponential()).unwrap_or(Seconds::ZERO);
        let (whole, rest) = span.whole_nanoseconds(self.carried);
        self.carried = rest;
        // At least a nanosecond, so that time goes on.
        self.turns = now + whole.max(isotherm_core::units::SimDuration(1));
    }
}
