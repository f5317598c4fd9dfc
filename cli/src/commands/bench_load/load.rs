//! The four load scenarios of MLPerf Inference (Reddi et al., ISCA 2020) over anything that answers queries.

use super::statistics::Draws;
use super::system::{energy_joules, throttles};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Queries that come together in a MultiStream sample.
pub const STREAMS: u64 = 8;
/// Shares of the offline rate at which a server is tried, least first.
const RATES: [f64; 5] = [0.2, 0.4, 0.6, 0.75, 0.9];

/// Answers one query, named by its number.
pub type Ask<'a> = dyn Fn(u64) + Sync + 'a;

/// One run of one scenario.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Latencies of its queries, or of samples of several.
    pub latencies: Vec<f64>,
    /// Queries that were answered.
    pub queries: u64,
    /// How long it took.
    pub seconds: f64,
    /// Energy of the processors meanwhile; none where nothing counts it.
    pub joules: Option<f64>,
    /// Whether a core was throttled meanwhile; none where nothing counts it.
    pub throttled: Option<bool>,
    /// Arrivals per second that were asked for; none where queries do not come by themselves.
    pub rate: Option<f64>,
}

/// Times something, and what the sensors say of the time.
fn observed(run: impl FnOnce() -> (Vec<f64>, u64)) -> Run {
    let (energy, throttled, begin) = (energy_joules(), throttles(), Instant::now());
    let (latencies, queries) = run();
    let seconds = begin.elapsed().as_secs_f64();
    // A counter that wrapped says nothing.
    let joules = energy.zip(energy_joules()).map(|(before, after)| after - before).filter(|joules| *joules >= 0.0);
    let throttled = throttled.zip(throttles()).map(|(before, after)| after > before);
    Run { latencies, queries, seconds, joules, throttled, rate: None }
}

/// One query after another.
pub fn single_stream(ask: &Ask<'_>, span: f64, first: u64) -> Run {
    observed(|| {
        let (begin, mut latencies) = (Instant::now(), Vec::new());
        while latencies.is_empty() || begin.elapsed().as_secs_f64() < span {
            let asked = Instant::now();
            ask(first + latencies.len() as u64);
            latencies.push(asked.elapsed().as_secs_f64());
        }
        let queries = latencies.len() as u64;
        (latencies, queries)
    })
}

/// Samples of [`STREAMS`] queries, the next when all of one are answered; a latency is that of a whole sample.
pub fn multi_stream(ask: &Ask<'_>, span: f64, first: u64, workers: usize) -> Run {
    observed(|| {
        let (begin, mut latencies) = (Instant::now(), Vec::new());
        while latencies.is_empty() || begin.elapsed().as_secs_f64() < span {
            let asked = Instant::now();
            let next = AtomicU64::new(0);
            let base = first + latencies.len() as u64 * STREAMS;
            std::thread::scope(|scope| {
                for _ in 0..workers {
                    scope.spawn(|| {
                        loop {
                            let i = next.fetch_add(1, Ordering::Relaxed);
                            if i >= STREAMS {
                                return;
                            }
                            ask(base + i);
                        }
                    });
                }
            });
            latencies.push(asked.elapsed().as_secs_f64());
        }
        let queries = latencies.len() as u64 * STREAMS;
        (latencies, queries)
    })
}

/// As many queries as can be answered, in no order.
pub fn offline(ask: &Ask<'_>, span: f64, first: u64, workers: usize) -> Run {
    observed(|| {
        let (begin, next) = (Instant::now(), AtomicU64::new(0));
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    loop {
                        ask(first + next.fetch_add(1, Ordering::Relaxed));
                        done.fetch_add(1, Ordering::Relaxed);
                        if begin.elapsed().as_secs_f64() >= span {
                            return;
                        }
                    }
                });
            }
        });
        (Vec::new(), done.load(Ordering::Relaxed))
    })
}

/// Queries that come by themselves at a mean rate, exponential gaps between them; a latency counts from arrival.
pub fn server_at(ask: &Ask<'_>, span: f64, first: u64, workers: usize, rate: f64, draws: &mut Draws) -> Run {
    let (mut arrivals, mut at) = (Vec::new(), 0.0);
    loop {
        at -= (1.0 - draws.unit()).ln() / rate;
        if at > span && !arrivals.is_empty() {
            break;
        }
        arrivals.push(at);
    }
    let mut run = observed(|| {
        let (begin, next) = (Instant::now(), AtomicU64::new(0));
        let latencies = Mutex::new(Vec::with_capacity(arrivals.len()));
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(arrival) = arrivals.get(i as usize) else { return };
                        let due = Duration::from_secs_f64(*arrival);
                        std::thread::sleep(due.saturating_sub(begin.elapsed()));
                        ask(first + i);
                        let latency = begin.elapsed().as_secs_f64() - arrival;
                        if let Ok(mut latencies) = latencies.lock() {
                            latencies.push(latency);
                        }
                    }
                });
            }
        });
        let latencies = latencies.into_inner().unwrap_or_default();
        let queries = latencies.len() as u64;
        (latencies, queries)
    });
    run.rate = Some(rate);
    run
}

/// The highest of a few rates at which the tail stays below a bound, and its run; none where not even the lowest does.
pub fn server(
    ask: &Ask<'_>,
    span: f64,
    first: u64,
    workers: usize,
    offline_rate: f64,
    bound: f64,
    draws: &mut Draws,
) -> Option<Run> {
    let mut best = None;
    for share in RATES {
        let run = server_at(ask, span, first, workers, share * offline_rate, draws);
        let mut sorted = run.latencies.clone();
        sorted.sort_by(f64::total_cmp);
        // The largest of what there is: stricter than the percentile where queries are few.
        let tail = sorted.get((sorted.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::INFINITY);
        if tail > bound {
            break;
        }
        best = Some(run);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_asked_once_and_counted() {
        let asked = Mutex::new(Vec::new());
        let ask = |i: u64| asked.lock().expect("no panic").push(i);
        let run = multi_stream(&ask, 0.0, 100, 3);
        let mut seen = asked.lock().expect("no panic").clone();
        seen.sort_unstable();
        assert_eq!((run.queries, run.latencies.len()), (STREAMS, 1));
        assert_eq!(seen, (100..100 + STREAMS).collect::<Vec<_>>());
        asked.lock().expect("no panic").clear();
        let run = server_at(&ask, 0.05, 0, 2, 1000.0, &mut Draws(1));
        assert_eq!(run.queries as usize, asked.lock().expect("no panic").len());
        assert!(run.latencies.iter().all(|latency| *latency >= 0.0));
    }
}
