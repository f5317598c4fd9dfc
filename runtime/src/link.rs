//! Links between hosts, measured: how long a message of a size takes, each way and both at once, and which links share
//! something.
//!
//! One side answers ([`respond`]), the other asks ([`Link`]). Both prove that they know a shared secret before anything else is
//! read, and the answering side bounds what it sends, takes and waits. Times are of whole round trips on the asking side's
//! clock alone, so the clocks of the two hosts need not agree; a message that is only acknowledged by one byte stands for
//! one direction.

mod fit;
mod fresh;
mod session;

pub use fit::{Fit, Point};
pub use fresh::{Freshness, Glance, Known};
pub use session::{Bounds, LinkError, Secret, respond};

use session::{Session, Way};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Largest message of a sweep.
pub const MESSAGE_BYTES_MAX: u64 = 256 << 20;
/// Rounds of a short message before those that count: the first grow the windows of the connection.
const WARM_UP: u32 = 3;
/// Rounds of one size, at most.
const ROUNDS_MAX: u32 = 30;
/// Combined rate of two flows over the sum of each alone, below which they share something.
const SHARED_BELOW: f64 = 0.75;

/// What was measured of one way through a link.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sweep {
    /// Each size, with the median of its times and their spread.
    pub points: Vec<Point>,
    /// The line through them; absent with fewer than two sizes.
    pub fit: Option<Fit>,
}

/// What was measured of a link.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Median time of a byte there and back.
    pub round_trip_seconds: f64,
    /// Half the range between the quartiles of it.
    pub jitter_seconds: f64,
    /// Away from this host.
    pub away: Sweep,
    /// Towards it.
    pub towards: Sweep,
    /// There and back, as in a ping-pong.
    pub there_and_back: Sweep,
    /// Bytes per second away and towards while both are busy; absent where time ran out.
    pub both: Option<(f64, f64)>,
}

/// An open link to a responder.
pub struct Link {
    session: Session,
    second: Session,
}

impl Link {
    /// Opens a link: two connections, so that both directions can be busy at once.
    ///
    /// Errors: nobody there, a responder that does not know the secret, or one that takes this side for a stranger.
    pub fn open(address: SocketAddr, secret: &Secret, patience: Duration) -> Result<Self, LinkError> {
        Ok(Self {
            session: Session::open(address, secret, patience)?,
            second: Session::open(address, secret, patience)?,
        })
    }

    /// Measures the link with sizes from 1 byte in powers of two up to `bytes_max`, in about `budget`. Larger sizes get
    /// fewer rounds, and those that the budget has no room for are left out.
    ///
    /// Errors: the link broke.
    pub fn measure(&mut self, bytes_max: u64, budget: Duration) -> Result<Measured, LinkError> {
        let trips = self.times(Way::Back, 1, ROUNDS_MAX * 4, budget / 10)?;
        let trip = Point::of(1, &trips).expect("at least one round was made");
        let part = budget / 4;
        let away = self.sweep(Way::Away, bytes_max, part)?;
        let towards = self.sweep(Way::Towards, bytes_max, part)?;
        let there_and_back = self.sweep(Way::Back, bytes_max, part)?;
        // Large enough that latency hardly counts, and small enough for what is left of the budget.
        let rate = |sweep: &Sweep| sweep.fit.map_or(0.0, |fit| fit.bytes_per_second);
        let bytes = (rate(&away).min(rate(&towards)) * budget.as_secs_f64() / 10.0) as u64;
        let bytes = bytes.clamp(1 << 16, bytes_max.max(1 << 16));
        let both = both(&mut self.session, Way::Away, &mut self.second, Way::Towards, bytes)?;
        let round_trip_seconds = trip.seconds;
        Ok(Measured {
            round_trip_seconds,
            jitter_seconds: trip.spread / 2.0,
            away,
            towards,
            there_and_back,
            both: Some(both),
        })
    }

    fn sweep(&mut self, way: Way, bytes_max: u64, budget: Duration) -> Result<Sweep, LinkError> {
        let begun = Instant::now();
        let mut points: Vec<Point> = Vec::new();
        let mut bytes = 1;
        while bytes <= bytes_max.min(MESSAGE_BYTES_MAX) {
            let left = budget.saturating_sub(begun.elapsed());
            // A size twice as large takes at most twice as long as the last one, and its warm-up as long again.
            let last = points.last().map_or(0.0, |last| last.seconds);
            let expected = last * 2.0 * f64::from(warm_up(last) + 2);
            if expected > left.as_secs_f64() {
                break;
            }
            let share = left / 4;
            points.extend(Point::of(bytes, &self.times(way, bytes, ROUNDS_MAX, share)?));
            bytes *= 2;
        }
        let fit = Fit::of(&points);
        Ok(Sweep { points, fit })
    }

    fn times(&mut self, way: Way, bytes: u64, rounds: u32, budget: Duration) -> Result<Vec<f64>, LinkError> {
        let mut warm = 0;
        while warm < warm_up(self.session.once(way, bytes)?.as_secs_f64()) {
            warm += 1;
        }
        let begun = Instant::now();
        let mut times = Vec::new();
        while times.len() < 2 || (times.len() < rounds as usize && begun.elapsed() < budget) {
            times.push(self.session.once(way, bytes)?.as_secs_f64());
        }
        Ok(times)
    }
}

/// Rounds before those that count: a message that takes long warms its connection up by itself.
fn warm_up(seconds: f64) -> u32 {
    if seconds > 0.05 { 1 } else { WARM_UP }
}

/// Bytes per second of two messages that are under way at once.
fn both(one: &mut Session, way: Way, other: &mut Session, back: Way, bytes: u64) -> Result<(f64, f64), LinkError> {
    std::thread::scope(|scope| {
        let first = scope.spawn(|| one.once(way, bytes));
        let second = other.once(back, bytes)?;
        let first = first.join().map_err(|_| LinkError::Broken("a measuring thread broke off".to_owned()))??;
        let rate = |time: Duration| bytes as f64 / time.as_secs_f64().max(1e-9);
        Ok((rate(first), rate(second)))
    })
}

/// Two links alone and together, away from this host.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Contention {
    /// Bytes per second of each alone.
    pub alone: (f64, f64),
    /// Bytes per second of each while both are busy.
    pub together: (f64, f64),
    /// Whether they share something: a network card, a cable, a bridge.
    pub shared: bool,
}

/// Finds out whether two links share something: flows that share nothing are as fast together as alone.
///
/// Errors: a link broke.
pub fn contention(one: &mut Link, other: &mut Link, bytes: u64) -> Result<Contention, LinkError> {
    let bytes = bytes.clamp(1 << 16, MESSAGE_BYTES_MAX);
    let alone = |link: &mut Link| -> Result<f64, LinkError> {
        link.session.once(Way::Away, bytes / 4)?;
        Ok(bytes as f64 / link.session.once(Way::Away, bytes)?.as_secs_f64().max(1e-9))
    };
    let apart = (alone(one)?, alone(other)?);
    // The faster flow gets more to carry, so that both are busy all the time.
    let slow = apart.0.min(apart.1);
    let share = |rate: f64| ((bytes as f64 * rate / slow) as u64).clamp(bytes, MESSAGE_BYTES_MAX);
    let (first, second) = (share(apart.0), share(apart.1));
    let together = std::thread::scope(|scope| {
        let begun = scope.spawn(|| one.session.once(Way::Away, first));
        let second_time = other.session.once(Way::Away, second)?;
        let first_time = begun.join().map_err(|_| LinkError::Broken("a measuring thread broke off".to_owned()))??;
        let rate = |bytes: u64, time: Duration| bytes as f64 / time.as_secs_f64().max(1e-9);
        Ok::<_, LinkError>((rate(first, first_time), rate(second, second_time)))
    })?;
    let shared = together.0 + together.1 < SHARED_BELOW * (apart.0 + apart.1);
    Ok(Contention { alone: apart, together, shared })
}
