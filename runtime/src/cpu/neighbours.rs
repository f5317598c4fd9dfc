//! What somebody outside this machine does to its cores.
//!
//! A virtual machine's core is often one of two threads of a physical core. Whoever has the other thread takes half of
//! its units for milliseconds or minutes, and nothing in this machine tells: no thread waits, and the clock is as ever.
//! A short piece of work that keeps the core's arithmetic units busy tells: on an EPYC of Zen 4 it took mostly 1.4 to
//! 1.9 times as long beside a neighbour, and up to 1.1 times without one. A few readings are much quicker than a core
//! is: on one of Zen 5, of 6,700 in a quiet time half were at 7.7 us, one in a hundred below 6.8 and the quickest at
//! 5.6. So what is held against is not the quickest but what one in twenty comes below. And whoever runs the machine
//! moves its cores about: two that shared a cache do not share it any more, and what threads on them tell each other
//! takes several times as long. A word that goes round tells.
//!
//! On a machine of one's own there is nothing of the kind, and work that takes longer there tells of a clock that has
//! fallen, which is the device's own; there nothing is read.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Turns of the work: some microseconds.
const TURNS: u64 = 4_000;
/// Times that the work is done for a reading. The quickest counts: whoever is put aside meanwhile is so once.
const TIMES: usize = 3;
/// Thousandths of a quick reading of a core beyond which it has a neighbour.
const CALM_MAX: u64 = 1_250;
/// Thousandths of a quick round through some cores beyond which they were moved apart.
const TOGETHER_MAX: u64 = 1_500;
/// Readings from which it is known how quick a core is, the time between two, and the most time for all cores.
const SETTLING: u32 = 200;
const SETTLING_EACH: Duration = Duration::from_millis(1);
const SETTLING_MAX: Duration = Duration::from_secs(2);

/// Of so many readings one is quicker than what the others are held against.
const QUICK_OF: u64 = 20;

/// Of each core, and of rounds through some cores; and through which.
static CORES: [Level; 1024] = [const { Level::new() }; 1024];
static ROUNDS: [Level; 256] = [const { Level::new() }; 256];
static THROUGH: Mutex<Vec<Vec<usize>>> = Mutex::new(Vec::new());

/// How quick readings of one place are.
struct Level {
    /// Nanoseconds that one reading in [`QUICK_OF`] does not exceed, rounded down as in `seen`; the greatest number
    /// before the first.
    quick: AtomicU32,
    /// How many readings there were of so many nanoseconds, rounded down to 6 binary digits.
    seen: Mutex<BTreeMap<u32, u64>>,
}

impl Level {
    const fn new() -> Self {
        Self { quick: AtomicU32::new(u32::MAX), seen: Mutex::new(BTreeMap::new()) }
    }

    fn add(&self, nanoseconds: u32) {
        let digits = (u32::BITS - nanoseconds.leading_zeros()).saturating_sub(6);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen.entry(nanoseconds >> digits << digits).or_default() += 1;
        let (all, mut below): (u64, u64) = (seen.values().sum(), 0);
        let quick = seen.iter().find(|(_, count)| {
            below += **count;
            below * QUICK_OF >= all
        });
        self.quick.store(quick.map_or(u32::MAX, |(nanoseconds, _)| *nanoseconds), Ordering::Relaxed);
    }
}

thread_local! {
    /// The core that this thread is bound to.
    static BOUND: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// What a look at a core or several told. It is held against what is known when somebody asks, so that one from before
/// it was known how quick a core is does not pass for a calm one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Of the core that was slowest by its own measure.
    core: Told,
    /// Of the word that went round.
    round: Told,
}

/// A time, and whose; zero where nothing is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    place: u32,
    nanoseconds: u32,
}

impl Told {
    /// Thousandths of what is quick there; zero where nothing is told.
    fn thousandths(self, known: &[Level]) -> u64 {
        let quick = known.get(self.place as usize).map_or(u32::MAX, |known| known.quick.load(Ordering::Relaxed));
        u64::from(self.nanoseconds) * 1000 / u64::from(quick.max(1))
    }

    fn or_worse(self, other: Self, known: &[Level]) -> Self {
        if self.thousandths(known) >= other.thousandths(known) { self } else { other }
    }
}

impl Reading {
    /// Of a core that nothing is told of.
    pub(crate) const UNKNOWN: Self =
        Self { core: Told { place: 0, nanoseconds: 0 }, round: Told { place: 0, nanoseconds: 0 } };

    /// Whether the cores have no neighbour and are together, as far as is known now.
    pub(crate) fn is_calm(self) -> bool {
        self.is_alone() && self.round.thousandths(&ROUNDS) <= TOGETHER_MAX
    }

    /// Whether no core has a neighbour, together or not.
    pub(crate) fn is_alone(self) -> bool {
        self.core.thousandths(&CORES) <= CALM_MAX
    }

    /// The worse of two, in each respect.
    pub(crate) fn or_worse(self, other: Self) -> Self {
        Self { core: self.core.or_worse(other.core, &CORES), round: self.round.or_worse(other.round, &ROUNDS) }
    }
}

/// Notes which core the calling thread is bound to; none where the system refused.
pub(super) fn bound_to(core: Option<usize>) {
    BOUND.set(core.unwrap_or(usize::MAX));
}

/// Looks at the core that the calling thread is bound to.
pub(crate) fn read() -> Reading {
    let core = BOUND.get();
    let Some(level) = CORES.get(core).filter(|_| has_strangers()) else { return Reading::UNKNOWN };
    let nanoseconds = (0..TIMES).map(|_| work()).min().unwrap_or(0).max(1);
    level.add(nanoseconds);
    Reading { core: told(core, nanoseconds), ..Reading::UNKNOWN }
}

/// What a round of a word through some cores tells that took so many nanoseconds.
pub(crate) fn gone_round(cores: &[usize], nanoseconds: u32) -> Reading {
    let mut through = THROUGH.lock().unwrap_or_else(PoisonError::into_inner);
    let place = through.iter().position(|known| known == cores).unwrap_or_else(|| {
        through.push(cores.to_vec());
        through.len() - 1
    });
    let Some(level) = ROUNDS.get(place) else { return Reading::UNKNOWN };
    level.add(nanoseconds.max(1));
    Reading { round: told(place, nanoseconds.max(1)), ..Reading::UNKNOWN }
}

fn told(place: usize, nanoseconds: u32) -> Told {
    Told { place: u32::try_from(place).unwrap_or(u32::MAX), nanoseconds }
}

/// Looks at cores until it is likely known how quick each is alone; those that were looked at before are known. A core
/// that no thread can be bound to stays unknown.
pub(crate) fn settle(cores: &[usize]) {
    let unknown = |core: usize| CORES.get(core).is_some_and(|known| known.quick.load(Ordering::Relaxed) == u32::MAX);
    let open: Vec<usize> = cores.iter().copied().filter(|&core| unknown(core)).collect();
    if !has_strangers() {
        return;
    }
    for &core in &open {
        let share = SETTLING_MAX / u32::try_from(open.len()).unwrap_or(u32::MAX);
        let looking = std::thread::Builder::new().name("isotherm-look".to_owned()).spawn(move || {
            super::team::pin(core);
            let begin = Instant::now();
            for _ in 0..SETTLING {
                read();
                if begin.elapsed() > share {
                    break;
                }
                std::thread::sleep(SETTLING_EACH);
            }
        });
        // Without it, how quick the core is shows later.
        let _ = looking.map(std::thread::JoinHandle::join);
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

/// A core with a neighbour, for tests.
#[cfg(test)]
pub(crate) fn beside_a_neighbour() -> Reading {
    // A place that no machine of a test has and no other test names.
    CORES[1020].add(1_000);
    Reading { core: told(1020, 2_000), ..Reading::UNKNOWN }
}

/// Cores that are apart, for tests.
#[cfg(test)]
pub(crate) fn apart() -> Reading {
    gone_round(&[1019, 1020], 100);
    gone_round(&[1019, 1020], 400)
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

    /// Places that no machine of a test has and no other test names.
    const UNNAMED: std::ops::Range<usize> = 1010..1020;

    fn of(core: usize, nanoseconds: u32) -> Reading {
        assert!(UNNAMED.contains(&core));
        CORES[core].add(nanoseconds);
        Reading { core: told(core, nanoseconds), ..Reading::UNKNOWN }
    }

    #[test]
    fn a_reading_much_above_the_quickest_tells_of_a_neighbour_whenever_that_is_known() {
        let (first, later) = (of(1010, 1_400), of(1010, 1_000));
        assert!(later.is_calm() && of(1010, 1_200).is_calm() && Reading::UNKNOWN.is_calm());
        // It passed for a calm one until it was known how quick the core is.
        assert!(!first.is_calm() && !first.is_alone());
        // By its own core's measure: 900 is much on a core of 600.
        let (_, slow) = (of(1011, 600), of(1011, 900));
        assert_eq!(later.or_worse(slow), slow);
        assert_eq!(Reading::UNKNOWN.or_worse(later), later);
    }

    #[test]
    fn a_rare_reading_that_is_much_quicker_makes_no_neighbours_of_the_others() {
        for _ in 0..QUICK_OF {
            of(1012, 7_000);
        }
        of(1012, 5_000);
        assert!(of(1012, 7_000).is_alone() && !of(1012, 9_500).is_alone());
        // Where as quick a one is not rare, it is what the core can do.
        assert!(of(1012, 5_000).is_alone() && !of(1012, 7_000).is_alone());
    }

    #[test]
    fn a_round_is_held_against_the_quickest_through_the_same_cores() {
        let round = |nanoseconds| gone_round(&[1022, 1023], nanoseconds);
        let (apart, together) = (round(600), round(200));
        assert!(together.is_calm() && round(300).is_calm() && gone_round(&[1021, 1023], 900).is_calm());
        assert!(!apart.is_calm() && apart.is_alone());
        assert!(!together.or_worse(apart).is_calm());
    }
}
