//! A team of worker threads that share the work of one device.
//!
//! A forward pass is some hundred short operations, each split over all workers; waking threads through the operating
//! system would cost more than the work. Helpers therefore watch a word of memory: the leader publishes a job there,
//! everybody claims numbered parts of it until none is left, and the leader goes on when all claimed parts are done. A
//! helper that the system has put aside simply claims nothing, and nobody waits for it.
//!
//! Which worker computes a part must not matter to the result, and does not: parts are fixed by the caller.

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
    /// Job number (32 bits), its parts (16), parts claimed (16).
    claims: Line<AtomicU64>,
    /// Parts of the job that are finished.
    done: Line<AtomicU32>,
    /// The job: a pointer to a [`Job`] on the leader's stack.
    job: AtomicPtr<()>,
    /// Helpers that sleep, or are about to.
    sleeping: AtomicU32,
    /// What a part panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
}

impl Board {
    /// Claims a part of the current job, if one is left.
    ///
    /// The returned pointer is the job's: read before the claim, valid because the claim succeeded. The leader leaves a
    /// job only when all its parts are done, so the job outlives the part that was claimed.
    fn claim(&self) -> Option<(usize, *mut ())> {
        let mut seen = self.claims.0.load(Ordering::Acquire);
        loop {
            let (parts, claimed) = ((seen >> 16) & 0xffff, seen & 0xffff);
            if claimed >= parts {
                return None;
            }
            let job = self.job.load(Ordering::Relaxed);
            // A newer job has another number, so a claim on a job that is over fails here.
            match self.claims.0.compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some((claimed as usize, job)),
                Err(now) => seen = now,
            }
        }
    }

    /// Whether the current job has parts left to claim.
    fn has_work(&self) -> bool {
        let seen = self.claims.0.load(Ordering::SeqCst);
        (seen & 0xffff) < (seen >> 16) & 0xffff
    }

    /// Runs parts of the current job until none is left to claim.
    fn work(&self) {
        while let Some((part, job)) = self.claim() {
            // SAFETY: `claim` promises that the job, and the `Job` on the leader's stack that points to it, live until
            // this part is counted as done below.
            let job: Job<'_> = unsafe { *job.cast::<Job<'_>>() };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(part))) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
            self.done.0.fetch_add(1, Ordering::Release);
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

/// How a thread waits.
///
/// Watching memory answers within a microsecond, but occupies the core; being woken by the system takes several, and
/// leaves the core to others meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// On a core of one's own: watch, then let others run now and then, and sleep after a long time only.
    Watch,
    /// On a core that others need: watch for moments only, then sleep.
    Glance,
    /// On a core that others need, for waits that are long as a rule: sleep.
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

    /// How long others are let run after that, before sleep.
    const fn yielding(self) -> Duration {
        match self {
            Self::Watch => Duration::from_millis(20),
            Self::Glance | Self::Sleep => Duration::ZERO,
        }
    }
}

impl Team {
    /// A team of one worker per entry of `cores`, helper `i` pinned to `cores[i]` and waiting for work with `patience`.
    /// The leader is whoever calls [`Team::run`]; it pins itself with [`pin`].
    pub(crate) fn new(cores: &[usize], patience: Patience) -> std::io::Result<Self> {
        let board = Arc::new(Board {
            claims: Line(AtomicU64::new(0)),
            done: Line(AtomicU32::new(0)),
            job: AtomicPtr::new(std::ptr::null_mut()),
            sleeping: AtomicU32::new(0),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        let mut team = Self { board, helpers: Vec::new(), job_number: Cell::new(0), one_leader: PhantomData };
        for &core in cores.iter().skip(1) {
            let board = Arc::clone(&team.board);
            let helper = std::thread::Builder::new().name(format!("isotherm-core-{core}")).spawn(move || {
                pin(core);
                help(&board, patience);
            })?;
            team.helpers.push(helper);
        }
        Ok(team)
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
        let published = u64::from(number) << 32 | (parts as u64) << 16;
        // Sequentially consistent together with the load below: either the helper about to sleep sees the job, or we
        // see the helper.
        board.claims.0.store(published, Ordering::SeqCst);
        if board.sleeping.load(Ordering::SeqCst) > 0 {
            self.helpers.iter().for_each(|helper| helper.thread().unpark());
        }
        board.work();
        // Parts that are claimed are being worked on: this takes moments.
        let mut waiting = Waiting::new(Patience::Watch);
        while board.done.0.load(Ordering::Acquire) as usize != parts {
            waiting.pause();
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
fn help(board: &Board, patience: Patience) {
    loop {
        board.work();
        let mut waiting = Waiting::new(patience);
        while !board.has_work() {
            if board.stop.load(Ordering::SeqCst) {
                return;
            }
            if waiting.pause() {
                board.sleeping.fetch_add(1, Ordering::SeqCst);
                if !board.has_work() && !board.stop.load(Ordering::SeqCst) {
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

    /// Waits a little. True when the caller should sleep until called.
    pub(crate) fn pause(&mut self) -> bool {
        if self.spins < self.patience.spins() {
            self.spins += 1;
            std::hint::spin_loop();
            return false;
        }
        let yielding = self.patience.yielding();
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
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
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
    fn sleeping_helpers_wake_for_a_job() {
        let team = Team::new(&[0, 0], Patience::Glance).expect("threads");
        for _ in 0..3 {
            std::thread::sleep(2 * Patience::Watch.yielding());
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
