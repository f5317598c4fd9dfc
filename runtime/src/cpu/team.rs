//! A team of worker threads that share the work of one device.
//!
//! A forward pass is some hundred short operations, each split over all workers; waking threads through the operating
//! system would cost more than the work. Helpers therefore watch a word of memory: the leader publishes a job there, and
//! goes on when all its parts are done. A helper that the system has put aside simply claims nothing, and nobody waits for
//! it.
//!
//! Each worker has a run of the parts of its own, on a cache line of its own, and claims those first: the same parts in
//! every step, and no line goes from core to core for each of them, which costs a third of a microsecond where cores
//! share no cache. Whoever is done with its own takes from the others' what they have not begun.
//!
//! Which worker computes a part must not matter to the result, and does not: parts are fixed by the caller.

use super::neighbours::{self, Reading};
use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A job: called once with each part's number.
type Job<'a> = &'a (dyn Fn(usize) + Sync);

/// A cache line of its own, so that watching one word does not slow writers of another.
#[repr(align(128))]
struct Line<T>(T);

/// What leader and helpers share.
struct Board {
    /// Of each worker: job number (32 bits), end of its run of parts (16), the next of them (16).
    claims: Box<[Line<AtomicU64>]>,
    /// Parts of the job that are finished.
    done: Line<AtomicU32>,
    /// The job: a pointer to a [`Job`] on the leader's stack.
    job: AtomicPtr<()>,
    /// Helpers that sleep, or are about to.
    sleeping: AtomicU32,
    /// What a part panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    /// The workers' cores.
    cores: Vec<usize>,
    /// Whether the leader is between the first job and the last of something.
    at_work: AtomicBool,
}

/// Teams of this process that are at work on each core. Cores beyond it count as needed by others.
static AT_WORK: [AtomicU32; 1024] = [const { AtomicU32::new(0) }; 1024];

/// How many teams of this process are at work on a core now.
pub(crate) fn at_work_on(core: usize) -> u32 {
    AT_WORK.get(core).map_or(u32::MAX, |count| count.load(Ordering::SeqCst))
}

/// While it lives, a team is at work on its cores, and whoever waits there for something else leaves them to it.
pub(crate) struct AtWork(Arc<Board>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.at_work.store(false, Ordering::SeqCst);
        for count in self.0.cores.iter().filter_map(|&core| AT_WORK.get(core)) {
            count.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Board {
    /// Claims the next part of a worker's run, if one is left.
    ///
    /// The returned pointer is the job's: read before the claim, valid because the claim succeeded. The leader leaves a
    /// job only when all its parts are done, so the job outlives the part that was claimed.
    fn claim(&self, run: usize) -> Option<(usize, *mut ())> {
        let claims = &self.claims[run].0;
        let mut seen = claims.load(Ordering::Acquire);
        loop {
            let (end, next) = ((seen >> 16) & 0xffff, seen & 0xffff);
            if next >= end {
                return None;
            }
            let job = self.job.load(Ordering::Relaxed);
            // A newer job has another number, so a claim on a job that is over fails here.
            match claims.compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some((next as usize, job)),
                Err(now) => seen = now,
            }
        }
    }

    /// Whether a worker's run has parts left to claim.
    fn has_work(&self, worker: usize) -> bool {
        let seen = self.claims[worker].0.load(Ordering::SeqCst);
        (seen & 0xffff) < (seen >> 16) & 0xffff
    }

    /// Runs parts of the current job until none is left to claim: the worker's own, then others'.
    fn work(&self, worker: usize) {
        let workers = self.claims.len();
        for run in (worker..workers).chain(0..worker) {
            let mut done = 0;
            while let Some((part, job)) = self.claim(run) {
                // SAFETY: `claim` promises that the job, and the `Job` on the leader's stack that points to it, live
                // until this part is counted as done below.
                let job: Job<'_> = unsafe { *job.cast::<Job<'_>>() };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(part))) {
                    *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
                }
                done += 1;
            }
            if done > 0 {
                self.done.0.fetch_add(done, Ordering::Release);
            }
        }
    }
}

/// The calling thread as leader, and its helpers.
///
/// A team belongs to one thread at a time: it can be sent, not shared.
pub(crate) struct Team {
    board: Arc<Board>,
    helpers: Vec<JoinHandle<()>>,
    job_number: Cell<u32>,
    one_leader: PhantomData<Cell<()>>,
}

/// How long workers wait for each other before they look at their cores.
const MEETING_MAX: Duration = Duration::from_micros(50);

/// Times that a word goes round them.
const WORD_ROUNDS: u32 = 6;

/// How a thread waits.
///
/// Watching memory answers within a microsecond, but occupies the core; being woken by the system takes several, and
/// leaves the core to others meanwhile. Where a core is shared with other stages, what counts is whether one of them is at
/// work there: while none is, a thread watches, but lets others run at every look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// On a core of one's own: watch, then let others run now and then, and sleep after a long time only.
    Watch,
    /// On a core that others may need: while they do, watch for moments only, then sleep.
    Glance,
    /// On a core that others may need, for waits that are long as a rule: while they do, sleep.
    Sleep,
}

impl Patience {
    /// How often memory is looked at without a break.
    const fn spins(self) -> u32 {
        match self {
            Self::Watch | Self::Glance => 2_000,
            Self::Sleep => 0,
        }
    }

    /// How long others are let run after that, before sleep; `needed` is whether others are at work on the core.
    const fn yielding(self, needed: bool) -> Duration {
        match self {
            Self::Glance | Self::Sleep if needed => Duration::ZERO,
            Self::Watch | Self::Glance | Self::Sleep => Duration::from_millis(20),
        }
    }
}

impl Team {
    /// A team of one worker per entry of `cores`, helper `i` pinned to `cores[i]` and waiting for work with `patience`.
    /// The leader is whoever calls [`Team::run`]; it pins itself with [`pin`].
    pub(crate) fn new(cores: &[usize], patience: Patience) -> std::io::Result<Self> {
        let board = Arc::new(Board {
            claims: cores.iter().map(|_| Line(AtomicU64::new(0))).collect(),
            done: Line(AtomicU32::new(0)),
            job: AtomicPtr::new(std::ptr::null_mut()),
            sleeping: AtomicU32::new(0),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            cores: cores.to_vec(),
            at_work: AtomicBool::new(false),
        });
        let mut team = Self { board, helpers: Vec::new(), job_number: Cell::new(0), one_leader: PhantomData };
        for (worker, &core) in cores.iter().enumerate().skip(1) {
            let board = Arc::clone(&team.board);
            let helper = std::thread::Builder::new().name(format!("isotherm-core-{core}")).spawn(move || {
                pin(core);
                help(&board, worker, core, patience);
            })?;
            team.helpers.push(helper);
        }
        Ok(team)
    }

    /// Says that jobs will follow one another until what is returned is dropped.
    pub(crate) fn begin(&self) -> AtWork {
        for count in self.board.cores.iter().filter_map(|&core| AT_WORK.get(core)) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        self.board.at_work.store(true, Ordering::SeqCst);
        AtWork(Arc::clone(&self.board))
    }

    /// Looks at the cores of all workers, at the same time, for neighbours, and at how long a word takes through all of
    /// them.
    pub(crate) fn look_beside(&self) -> Reading {
        if self.helpers.is_empty() || !neighbours::has_strangers() {
            return neighbours::read();
        }
        let workers = u32::try_from(self.workers()).unwrap_or(u32::MAX);
        let (there, word) = (AtomicU32::new(0), AtomicU32::new(0));
        let found = Mutex::new((Reading::UNKNOWN, u32::MAX));
        // Whoever is put aside is not waited for.
        let wait = |until: &dyn Fn() -> bool| {
            let since = Instant::now();
            while !until() {
                if since.elapsed() > MEETING_MAX {
                    return false;
                }
                std::hint::spin_loop();
            }
            true
        };
        self.run(self.workers(), &|part| {
            // Each part should meet another worker.
            there.fetch_add(1, Ordering::SeqCst);
            let mut met = wait(&|| there.load(Ordering::SeqCst) == workers);
            let part = u32::try_from(part).unwrap_or(u32::MAX);
            let mut quickest = u32::MAX;
            for round in 0..WORD_ROUNDS {
                let begin = Instant::now();
                met = met && wait(&|| word.load(Ordering::Acquire) == round * workers + part);
                if met {
                    word.store(round * workers + part + 1, Ordering::Release);
                }
                // In the first round some are still on their way.
                if part == 0 && met && round > 0 {
                    quickest = quickest.min(u32::try_from(begin.elapsed().as_nanos()).unwrap_or(u32::MAX));
                }
            }
            let reading = neighbours::read();
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            *found = (found.0.or_worse(reading), found.1.min(quickest));
        });
        let (worst, quickest) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        if quickest == u32::MAX { worst } else { worst.or_worse(neighbours::gone_round(&self.board.cores, quickest)) }
    }

    /// Number of workers, the leader included.
    pub(crate) fn workers(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `job` once with each of `0..parts`, on any worker, and returns when all calls have returned.
    ///
    /// # Panics
    /// When a call panics, with what it panicked with, after all other parts are done.
    pub(crate) fn run(&self, parts: usize, job: Job<'_>) {
        if self.helpers.is_empty() || parts <= 1 {
            (0..parts).for_each(job);
            return;
        }
        assert!(parts < 1 << 16, "{parts} parts of a job; at most 65535");
        let board = &*self.board;
        let number = self.job_number.get().wrapping_add(1);
        self.job_number.set(number);
        board.job.store((&raw const job).cast_mut().cast(), Ordering::Relaxed);
        board.done.0.store(0, Ordering::Relaxed);
        let workers = board.claims.len();
        // Sequentially consistent together with the load below: either the helper about to sleep sees the job, or we
        // see the helper.
        for (worker, claims) in board.claims.iter().enumerate().rev() {
            let (from, end) = (worker * parts / workers, (worker + 1) * parts / workers);
            claims.0.store(u64::from(number) << 32 | (end as u64) << 16 | from as u64, Ordering::SeqCst);
        }
        if board.sleeping.load(Ordering::SeqCst) > 0 {
            self.helpers.iter().for_each(|helper| helper.thread().unpark());
        }
        board.work(0);
        // Parts that are claimed are being worked on: this takes moments.
        let mut waiting = Waiting::new(Patience::Watch);
        while board.done.0.load(Ordering::Acquire) as usize != parts {
            waiting.pause(false);
        }
        let panic = board.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.board.stop.store(true, Ordering::SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A helper does not panic: parts are caught. There is nothing to do about it here if it did.
            let _ = helper.join();
        }
    }
}

/// A helper's life: work, watch, yield, sleep.
fn help(board: &Board, worker: usize, core: usize, patience: Patience) {
    loop {
        board.work(worker);
        let mut waiting = Waiting::new(patience);
        while !board.has_work(worker) {
            if board.stop.load(Ordering::SeqCst) {
                return;
            }
            let own = u32::from(board.at_work.load(Ordering::SeqCst));
            if waiting.pause(at_work_on(core) > own) {
                board.sleeping.fetch_add(1, Ordering::SeqCst);
                if !board.has_work(worker) && !board.stop.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                board.sleeping.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

/// One wait.
pub(crate) struct Waiting {
    patience: Patience,
    spins: u32,
    since: Option<Instant>,
}

impl Waiting {
    /// A wait that begins now.
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, spins: 0, since: None }
    }

    /// Waits a little, on a core that others are at work on or not. True when the caller should sleep until called.
    pub(crate) fn pause(&mut self, needed: bool) -> bool {
        if self.spins < self.patience.spins() {
            self.spins += 1;
            std::hint::spin_loop();
            return false;
        }
        let yielding = self.patience.yielding(needed);
        if yielding.is_zero() {
            return true;
        }
        std::thread::yield_now();
        let since = *self.since.get_or_insert_with(Instant::now);
        since.elapsed() > yielding
    }
}

/// Binds the calling thread to a processor core. False when the system refuses; the thread then runs where it likes.
pub(crate) fn pin(core: usize) -> bool {
    let bound = core_affinity::set_for_current(core_affinity::CoreId { id: core });
    neighbours::bound_to(bound.then_some(core));
    bound
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn every_part_runs_exactly_once() {
        let team = Team::new(&[0, 0, 0], Patience::Watch).expect("threads");
        for parts in [0, 1, 2, 3, 7, 64, 500] {
            for _ in 0..200 {
                let runs: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                team.run(parts, &|part| {
                    runs[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|r| r.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_worker_that_is_put_aside_leaves_its_parts_to_the_others() {
        let team = Team::new(&[0, 0], Patience::Watch).expect("threads");
        let (held, free) = (AtomicBool::new(false), AtomicUsize::new(0));
        // The second worker's first part goes on until all others are done, those of its own run among them.
        team.run(8, &|part| {
            if part == 4 {
                held.store(true, Ordering::SeqCst);
                while free.load(Ordering::SeqCst) < 7 {
                    std::thread::yield_now();
                }
            } else {
                // Nobody else is done before it has begun.
                while part == 0 && !held.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                free.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert_eq!(free.into_inner(), 7);
    }

    #[test]
    fn sleeping_helpers_wake_for_a_job() {
        let team = Team::new(&[0, 0], Patience::Glance).expect("threads");
        for _ in 0..3 {
            std::thread::sleep(2 * Patience::Watch.yielding(false));
            let both = AtomicUsize::new(0);
            // Two parts that need each other can only finish when two workers run them.
            team.run(2, &|_| {
                both.fetch_add(1, Ordering::SeqCst);
                while both.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn a_core_is_needed_while_a_team_is_at_work_there_and_teams_count_apart() {
        // Cores that no machine of a test has and no other test names.
        let (one, other) = (1001, 1002);
        let teams =
            [Team::new(&[one], Patience::Sleep), Team::new(&[one], Patience::Sleep)].map(|t| t.expect("a team"));
        let count = || [one, other].map(at_work_on);
        assert_eq!(count(), [0, 0]);
        let first = teams[0].begin();
        let second = teams[1].begin();
        assert_eq!(count(), [2, 0]);
        drop(first);
        assert_eq!(count(), [1, 0]);
        drop(second);
        assert_eq!((count(), at_work_on(usize::MAX)), ([0, 0], u32::MAX));
    }

    #[test]
    fn whoever_waits_sleeps_at_once_only_where_the_core_is_needed() {
        for (patience, needed, sleeps) in [
            (Patience::Sleep, true, true),
            (Patience::Sleep, false, false),
            (Patience::Watch, true, false),
            (Patience::Glance, true, false),
        ] {
            assert_eq!(Waiting::new(patience).pause(needed), sleeps, "{patience:?} {needed}");
        }
        let mut glance = Waiting::new(Patience::Glance);
        assert_eq!((0..=Patience::Glance.spins()).filter(|_| glance.pause(true)).count(), 1);
    }

    #[test]
    fn a_panic_in_a_part_reaches_the_leader_and_leaves_the_team_usable() {
        let team = Team::new(&[0, 0], Patience::Glance).expect("threads");
        let caught = catch_unwind(AssertUnwindSafe(|| {
            team.run(8, &|part| assert!(part != 5, "part five"));
        }));
        assert!(caught.is_err());
        let count = AtomicUsize::new(0);
        team.run(8, &|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 8);
    }
}
