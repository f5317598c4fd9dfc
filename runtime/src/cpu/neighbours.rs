//! What somebody outside this machine does to its cores.
//!
//! A virtual machine's core is often one of two threads of a physical core. Whoever has the other thread takes half of its
//! units for milliseconds or minutes, and nothing in this machine tells: no thread waits, and the clock is as ever. A short
//! piece of work that keeps the core's arithmetic units busy tells: it takes some 1.4 to 1.9 times as long beside a neighbour as
//! without one, and nothing between. And whoever runs the machine moves its cores about: two that shared a cache do not share
//! it any more, and what threads on them tell each other takes several times as long. A word that goes round tells.
//!
//! On a machine of one's own there is nothing of the kind, and work that takes longer there tells of a clock that has fallen,
//! which is the device's own; there nothing is read.

use std::cell::Cell;
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Turns of the work: some microseconds.
const TURNS: u64 = 4_000;
/// Times that the work is done for a reading. The quickest counts: whoever is put aside meanwhile is so once.
const TIMES: usize = 3;
/// Thousandths of the quickest reading of a core beyond which it has a neighbour.
const CALM_MAX: u32 = 1_250;
/// Thousandths of the quickest round through some cores beyond which they were moved apart.
const TOGETHER_MAX: u32 = 1_500;
/// Share by which a reading must be quicker than the quickest so far to cast doubt on what was judged by that.
const QUICKER: f64 = 0.05;
/// Readings from which it is known how quick a core is, the time between two, and the most time for all cores.
const SETTLING: u32 = 200;
const SETTLING_EACH: Duration = Duration::from_millis(1);
const SETTLING_MAX: Duration = Duration::from_secs(2);

/// The quickest reading of each core in nanoseconds.
static QUICKEST: [AtomicU32; 1024] = [const { AtomicU32::new(u32::MAX) }; 1024];
/// Cores, and the nanoseconds of the quickest round through them.
static ROUNDS: Mutex<Vec<(Vec<usize>, u32)>> = Mutex::new(Vec::new());
/// How often a core turned out to be quicker than was known.
static REVISION: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The core that this thread is bound to.
    static BOUND: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// What a look at a core or several told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Thousandths of the quickest reading of its core, the slowest core's; zero where nothing is told.
    thousandths: u32,
    /// Thousandths of the quickest round through the cores; zero where nothing is told.
    round: u32,
    /// What was known when it was taken.
    revision: u32,
}

impl Reading {
    /// Of a core that nothing is told of.
    pub(crate) const UNKNOWN: Self = Self { thousandths: 0, round: 0, revision: 0 };

    /// Of a core with a neighbour.
    #[cfg(test)]
    pub(crate) const fn beside_a_neighbour() -> Self {
        Self { thousandths: 2 * CALM_MAX, round: 0, revision: 0 }
    }

    /// Whether the cores have no neighbour and are together, as far as is known now.
    pub(crate) fn is_calm(self) -> bool {
        let current = !self.is_told() || self.revision == REVISION.load(Ordering::Relaxed);
        current && self.thousandths <= CALM_MAX && self.round <= TOGETHER_MAX
    }

    /// Whether no core has a neighbour, together or not.
    pub(crate) fn is_alone(self) -> bool {
        Self { round: 0, ..self }.is_calm()
    }

    /// The worse of two, in each respect.
    pub(crate) fn or_worse(self, other: Self) -> Self {
        let oldest = match (self.is_told(), other.is_told()) {
            (true, true) if self.revision != other.revision => REVISION.load(Ordering::Relaxed).wrapping_sub(1),
            (true, _) => self.revision,
            (false, _) => other.revision,
        };
        Self {
            thousandths: self.thousandths.max(other.thousandths),
            round: self.round.max(other.round),
            revision: oldest,
        }
    }

    fn is_told(self) -> bool {
        self.thousandths > 0 || self.round > 0
    }
}

/// Notes that the calling thread is bound to a core.
pub(super) fn bound_to(core: usize) {
    BOUND.set(core);
}

/// Looks at the core that the calling thread is bound to.
pub(crate) fn read() -> Reading {
    let Some(quickest) = QUICKEST.get(BOUND.get()).filter(|_| has_strangers()) else { return Reading::UNKNOWN };
    let nanoseconds = (0..TIMES).map(|_| work()).min().unwrap_or(0).max(1);
    let before = quickest.fetch_min(nanoseconds, Ordering::Relaxed);
    let thousandths = held_against(nanoseconds, before);
    Reading { thousandths, round: 0, revision: REVISION.load(Ordering::Relaxed) }
}

/// What a round of a word through some cores tells that took so many nanoseconds.
pub(crate) fn gone_round(cores: &[usize], nanoseconds: u32) -> Reading {
    let nanoseconds = nanoseconds.max(1);
    let mut known = ROUNDS.lock().unwrap_or_else(PoisonError::into_inner);
    let before = match known.iter_mut().find(|(through, _)| through == cores) {
        Some((_, quickest)) => {
            let before = *quickest;
            *quickest = before.min(nanoseconds);
            before
        }
        None => {
            known.push((cores.to_vec(), nanoseconds));
            nanoseconds
        }
    };
    Reading { thousandths: 0, round: held_against(nanoseconds, before), revision: REVISION.load(Ordering::Relaxed) }
}

/// Thousandths of the quickest time before, or of itself where it is quicker. Where it is so by much, what was judged by the
/// other is in doubt.
fn held_against(nanoseconds: u32, before: u32) -> u32 {
    if f64::from(nanoseconds) < f64::from(before) * (1.0 - QUICKER) {
        REVISION.fetch_add(1, Ordering::Relaxed);
    }
    u32::try_from(u64::from(nanoseconds) * 1000 / u64::from(before.min(nanoseconds))).unwrap_or(u32::MAX)
}

/// Looks at the core that the calling thread is bound to until it is likely known how quick it is alone. So many cores share
/// the time.
pub(crate) fn settle(cores: usize) {
    if has_strangers() {
        let begin = Instant::now();
        for _ in 0..SETTLING {
            read();
            if begin.elapsed() * u32::try_from(cores.max(1)).unwrap_or(u32::MAX) > SETTLING_MAX {
                break;
            }
            std::thread::sleep(SETTLING_EACH);
        }
    }
}

/// Nanoseconds of a fixed piece of work: six chains of integer arithmetic, more than a core's units do at once.
fn work() -> u32 {
    let mut chains: [u64; 6] = black_box([1, 2, 3, 4, 5, 6]);
    let begin = Instant::now();
    for turn in 0..TURNS {
        for chain in &mut chains {
            *chain = chain.wrapping_mul(3).wrapping_add(turn) ^ (*chain >> 3);
        }
    }
    black_box(chains);
    u32::try_from(begin.elapsed().as_nanos()).unwrap_or(u32::MAX)
}

/// Whether this is a virtual machine, whose cores others may share: the kernel says so where the processor does
/// (`hypervisor` among the flags in `/proc/cpuinfo`, proc(5)).
pub(super) fn has_strangers() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| std::fs::read_to_string(Path::new("/proc/cpuinfo")).is_ok_and(|text| is_guest(&text)))
}

fn is_guest(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':'));
    flags.is_some_and(|(_, flags)| flags.split_ascii_whitespace().any(|flag| flag == "hypervisor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_told_by_its_flags() {
        assert!(is_guest("model name\t: AMD EPYC\nflags\t\t: fpu hypervisor avx\n"));
        assert!(!is_guest("model name\t: hypervisor\nflags\t\t: fpu avx\n"));
        assert!(!is_guest(""));
    }

    #[test]
    fn a_reading_much_above_the_quickest_tells_of_a_neighbour_and_an_outdated_one_of_nothing() {
        let now = REVISION.load(Ordering::Relaxed);
        let reading = |thousandths, round, revision| Reading { thousandths, round, revision };
        assert!(Reading::UNKNOWN.is_calm());
        assert!(!reading(1_400, 0, now).is_calm() && !reading(1_000, 1_600, now).is_calm());
        assert!(!reading(1_000, 0, now.wrapping_sub(1)).is_calm());
        let worse = reading(1_400, 0, now).or_worse(reading(1_000, 1_100, now));
        assert_eq!(worse, reading(1_400, 1_100, now));
        assert_eq!(Reading::UNKNOWN.or_worse(reading(1_000, 0, now)), reading(1_000, 0, now));
        assert!(!reading(1_000, 0, now.wrapping_sub(1)).or_worse(reading(1_000, 0, now)).is_calm());
    }

    #[test]
    fn a_round_is_held_against_the_quickest_through_the_same_cores() {
        let round = |nanoseconds| gone_round(&[1022, 1023], nanoseconds).round;
        assert_eq!((round(300), round(600), round(200), round(300)), (1_000, 2_000, 1_000, 1_500));
        assert_eq!(gone_round(&[1021, 1023], 900).round, 1_000);
    }
}
