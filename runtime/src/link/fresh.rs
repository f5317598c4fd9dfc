//! Whether what is known of a link still holds: how old it is, and what a quick look says against it.

use super::session::{LinkError, Way};
use super::{Link, Point};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Round trips of a quick look.
const TRIPS: u32 = 15;
/// Time that the message of a quick look should take.
const MESSAGE_TIME: f64 = 0.1;
/// Largest message of a quick look: it is no load for anybody.
const MESSAGE_BYTES_MAX: u64 = 16 << 20;
/// Least share by which a look has to differ before it contradicts, whatever the spread was.
const DIFFERENCE_MIN: f64 = 0.2;
/// Spreads by which a look has to differ.
const SPREADS: f64 = 3.0;
/// Difference of two latencies that schedulers make and no link.
const LATENCY_NOISE: f64 = 100e-6;

/// What was measured of one direction once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// Seconds of an empty message, one way; absent where it was not measured.
    pub latency_seconds: Option<f64>,
    /// Bytes per second; absent where it was not measured.
    pub bytes_per_second: Option<f64>,
    /// Interquartile range over median of what is behind them.
    pub spread: f64,
    /// How long ago that was; absent where nobody wrote it down.
    pub age: Option<Duration>,
}

/// A quick look at one direction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Glance {
    /// Seconds of a byte, one way: half of the median round trip.
    pub latency_seconds: f64,
    /// A longer message.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Whether a link is measured again, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Freshness {
    /// It still holds.
    Holds,
    /// Nobody knows how old it is, or it is older than what is trusted.
    Stale,
    /// A look says something else.
    Contradicted {
        /// What was expected and what was found, in words.
        why: String,
    },
}

impl Link {
    /// Looks quickly, away from this host: some round trips, and one message that takes about a tenth of a second at the
    /// rate that is known. That is a thousandth of the link's time where it is done every two minutes.
    ///
    /// # Errors
    /// The link broke.
    pub fn glance(&mut self, known: &Known) -> Result<Glance, LinkError> {
        let mut trips = Vec::new();
        for _ in 0..TRIPS {
            trips.push(self.session.once(Way::Back, 1)?.as_secs_f64());
        }
        let trip = Point::of(1, &trips).map_or(0.0, |point| point.seconds);
        let rate = known.bytes_per_second.unwrap_or(1e6);
        let bytes = ((rate * MESSAGE_TIME) as u64).clamp(1 << 10, MESSAGE_BYTES_MAX);
        // The first one opens the window of the connection again after its rest.
        self.session.once(Way::Away, bytes / 4 + 1)?;
        let begun = Instant::now();
        self.session.once(Way::Away, bytes)?;
        Ok(Glance { latency_seconds: trip / 2.0, bytes, seconds: begun.elapsed().as_secs_f64() })
    }
}

impl Known {
    /// Whether this holds, by its age and by a look.
    #[must_use]
    pub fn judged(&self, glance: &Glance, age_max: Duration) -> Freshness {
        let most = DIFFERENCE_MIN.max(SPREADS * self.spread);
        let far = |found: f64, known: f64| found > known * (1.0 + most) || found < known / (1.0 + most);
        if let Some(known) = self.latency_seconds
            && far(glance.latency_seconds, known)
            && (glance.latency_seconds - known).abs() > LATENCY_NOISE
        {
            let (found, known) = (glance.latency_seconds * 1e3, known * 1e3);
            return Freshness::Contradicted { why: format!("its latency was {known:.3} ms and is {found:.3} ms") };
        }
        if let Some(rate) = self.bytes_per_second {
            let known = self.latency_seconds.unwrap_or(0.0) + glance.bytes as f64 / rate;
            if far(glance.seconds, known) && (glance.seconds - known).abs() > LATENCY_NOISE {
                let (bytes, found, known) = (glance.bytes, glance.seconds * 1e3, known * 1e3);
                let why = format!("{bytes} bytes should take {known:.2} ms and took {found:.2} ms");
                return Freshness::Contradicted { why };
            }
        }
        match self.age {
            Some(age) if age <= age_max => Freshness::Holds,
            _ => Freshness::Stale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known = Known {
        latency_seconds: Some(1e-3),
        bytes_per_second: Some(10e6),
        spread: 0.02,
        age: Some(Duration::from_secs(60)),
    };

    fn judged(latency_seconds: f64, seconds: f64) -> Freshness {
        let glance = Glance { latency_seconds, bytes: 1_000_000, seconds };
        KNOWN.judged(&glance, Duration::from_secs(3600))
    }

    #[test]
    fn a_link_holds_while_a_look_agrees_and_is_measured_again_when_it_does_not() {
        assert_eq!(judged(1e-3, 0.101), Freshness::Holds);
        assert_eq!(judged(1.1e-3, 0.115), Freshness::Holds);
        // Slower or faster, in rate or in latency.
        for (latency, seconds) in [(1e-3, 0.2), (1e-3, 0.05), (3e-3, 0.103), (0.4e-3, 0.101)] {
            assert!(matches!(judged(latency, seconds), Freshness::Contradicted { .. }), "{latency} {seconds}");
        }
        // What was uncertain before is not contradicted by what lies within it.
        let unsure = Known { spread: 0.4, ..KNOWN };
        let glance = Glance { latency_seconds: 1e-3, bytes: 1_000_000, seconds: 0.2 };
        assert_eq!(unsure.judged(&glance, Duration::from_secs(3600)), Freshness::Holds);
    }

    #[test]
    fn a_link_is_stale_when_it_is_old_or_nobody_knows_how_old() {
        let glance = Glance { latency_seconds: 1e-3, bytes: 1_000_000, seconds: 0.101 };
        assert_eq!(KNOWN.judged(&glance, Duration::from_secs(59)), Freshness::Stale);
        assert_eq!(Known { age: None, ..KNOWN }.judged(&glance, Duration::from_secs(3600)), Freshness::Stale);
        // Two latencies within what schedulers make of one are the same.
        let quick = Known { latency_seconds: Some(20e-6), ..KNOWN };
        let glance = Glance { latency_seconds: 90e-6, ..glance };
        assert_eq!(quick.judged(&glance, Duration::from_secs(3600)), Freshness::Holds);
    }
}
