//! How long a search may go on, and who is told about it.

use isotherm_core::units::Seconds;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A gap at or below this counts as none: plan and bound agree to within the arithmetic of the solver.
pub const GAP_NONE: f64 = 1e-6;

/// Nodes of the first slice of a branch-and-bound search; each further slice may take twice as many.
///
/// HiGHS is interruptible only through a raw callback, which this room may not use. A search is therefore run in
/// slices whose node limits double, each warm-started from the last: the flag and the clock are read between slices,
/// and the work repeated is at most the work kept.
pub(crate) const SLICE_NODES: u64 = 512;

/// Columns times nodes of one branch-and-bound search, at most: the larger the program, the fewer nodes it is worth.
pub(crate) const COLUMN_NODES_MAX: u64 = 4_000_000;

/// Work that stands for one node of a call's limit, in entries of a program that are looked at: what a node of a
/// program of some hundred columns takes. 20,000 of them are about a third of a minute on one core.
const NODE_WORK: u64 = 150_000;

/// What has been done in one call, in steps that every machine counts alike, and how much may be.
///
/// Nodes of a large program take a thousand times as long as those of a small one, and a call makes many searches.
/// Where no clock ends them, this does, at the same step everywhere.
#[derive(Debug)]
pub struct Work {
    done: AtomicU64,
    most: u64,
}

impl Work {
    /// As much as so many nodes stand for.
    #[must_use]
    pub const fn of_nodes(nodes: u64) -> Self {
        Self { done: AtomicU64::new(0), most: nodes.saturating_mul(NODE_WORK) }
    }

    fn left(&self) -> u64 {
        self.most.saturating_sub(self.done.load(Ordering::Relaxed))
    }
}

/// What ended a search before its goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// The time given was used up.
    Time,
    /// The branch-and-bound nodes, labels or steps given, or the work that they stand for, were used up.
    Nodes,
    /// Somebody raised the interrupt flag.
    Interrupt,
    /// The gap asked for was reached; it is larger than none.
    Gap,
    /// Both sides of a division have plans, and those that were found do not go together.
    Sides,
    /// All searches ended, and none found a plan or proved that there is none.
    Searches,
}

impl Limit {
    /// That it came before something was reached, in words.
    #[must_use]
    pub fn before(self, what: &str) -> String {
        match self {
            Self::Sides => "the plans found for prompts and for answers do not go together".to_owned(),
            Self::Searches => format!("all searches ended before {what}, and none proved that there is none"),
            limit => format!("{limit} came before {what}"),
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Time => "the time limit",
            Self::Nodes => "the node limit",
            Self::Interrupt => "an interrupt",
            Self::Gap => "the gap asked for",
            Self::Sides => "sides whose plans do not go together",
            Self::Searches => "the end of all searches",
        })
    }
}

/// What is known in the course of a search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Value of the best plan so far.
    pub incumbent: Option<f64>,
    /// No plan is better than this.
    pub bound: Option<f64>,
    /// `|bound - incumbent| / |incumbent|`, where both are known.
    pub gap: Option<f64>,
}

/// Limits of one call. The default has none but the nodes: the same call then gives the same plan anywhere.
#[derive(Clone, Copy)]
pub struct Budget<'a> {
    /// Time left, asked whenever the search may stop; absent where time does not matter. The only clock there is.
    pub remaining: Option<&'a (dyn Fn() -> Seconds + Sync)>,
    /// Most branch-and-bound nodes (and labels of a label-setting search, in hundreds) of any one search. Where time
    /// does not matter, all searches of a call together do no more work than so many nodes stand for.
    pub nodes_max: u64,
    /// What has been done, and how much may be; absent where nobody counts.
    pub work: Option<&'a Work>,
    /// Relative gap that suffices.
    pub gap_target: f64,
    /// Ends the search when raised.
    pub interrupt: Option<&'a AtomicBool>,
    /// Told of every improvement.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    /// Raised where the clock ended any search, also one that had but a part of the time: another run may find another plan.
    pub clocked: Option<&'a AtomicBool>,
}

impl Default for Budget<'_> {
    fn default() -> Self {
        Self {
            remaining: None,
            nodes_max: 20_000,
            work: None,
            gap_target: GAP_NONE,
            interrupt: None,
            progress: None,
            clocked: None,
        }
    }
}

impl std::fmt::Debug for Budget<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget")
            .field("timed", &self.remaining.is_some())
            .field("nodes_max", &self.nodes_max)
            .field("gap_target", &self.gap_target)
            .finish_non_exhaustive()
    }
}

impl Budget<'_> {
    /// The limit that has been reached, if one has.
    #[must_use]
    pub fn exhausted(&self) -> Option<Limit> {
        if self.interrupt.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Some(Limit::Interrupt);
        }
        if self.work.is_some_and(|work| work.left() == 0) {
            return Some(Limit::Nodes);
        }
        self.remaining.filter(|left| left().value() <= 0.0)?;
        self.by_clock();
        Some(Limit::Time)
    }

    /// Notes that the clock has decided something.
    pub(crate) fn by_clock(&self) {
        if let Some(clocked) = self.clocked {
            clocked.store(true, Ordering::Relaxed);
        }
    }

    /// Runs a call whose work is counted, unless a clock ends it or it is part of one that counts.
    pub(crate) fn counted<T>(&self, run: impl FnOnce(&Budget<'_>) -> T) -> T {
        if self.remaining.is_some() || self.work.is_some() {
            return run(self);
        }
        let work = Work::of_nodes(self.nodes_max);
        run(&Budget { work: Some(&work), ..*self })
    }

    /// Counts what was done.
    pub(crate) fn did(&self, steps: u64) {
        if let Some(work) = self.work {
            work.done.fetch_add(steps, Ordering::Relaxed);
        }
    }

    /// Work left; none where nobody counts.
    pub(crate) fn work_left(&self) -> Option<u64> {
        self.work.map(Work::left)
    }

    /// Runs something that may take a share of the time that is left, from 0 to 1.
    pub(crate) fn part<T>(&self, share: f64, run: impl FnOnce(&Budget<'_>) -> T) -> T {
        let Some(remaining) = self.remaining else { return run(self) };
        let others = remaining().value().max(0.0) * (1.0 - share.clamp(0.0, 1.0));
        let own = || Seconds::new(remaining().value() - others).unwrap_or(Seconds::ZERO);
        run(&Budget { remaining: Some(&own), ..*self })
    }

    /// The same, of the work where that is counted in place of time.
    pub(crate) fn share<T>(&self, share: f64, run: impl FnOnce(&Budget<'_>) -> T) -> T {
        let Some(work) = self.work else { return self.part(share, run) };
        let own = Work { done: AtomicU64::new(0), most: (work.left() as f64 * share.clamp(0.0, 1.0)) as u64 };
        let result = run(&Budget { work: Some(&own), ..*self });
        self.did(own.done.into_inner());
        result
    }

    /// Seconds left; none where time does not matter.
    pub(crate) fn seconds_left(&self) -> Option<f64> {
        self.remaining.map(|left| left().value().max(0.0))
    }

    /// Gap at which a solver may stop: a tenth of none where none is asked for, so that what it leaves does not show.
    pub(crate) fn solver_gap(&self) -> f64 {
        if self.gap_target <= GAP_NONE { 0.1 * GAP_NONE } else { self.gap_target }
    }

    /// Tells whoever listens.
    pub(crate) fn report(&self, incumbent: Option<f64>, bound: Option<f64>) {
        if let Some(listener) = self.progress {
            let gap = incumbent.zip(bound).map(|(value, bound)| relative_gap(value, bound));
            listener(Progress { incumbent, bound, gap });
        }
    }
}

/// `|bound - value| / |value|`; none of either zero divides: equal values have no gap, others an infinite one.
#[must_use]
pub fn relative_gap(value: f64, bound: f64) -> f64 {
    let distance = (bound - value).abs();
    if distance == 0.0 { 0.0 } else { distance / value.abs() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_flag_and_a_spent_clock_end_a_search() {
        let flag = AtomicBool::new(false);
        let spent = || Seconds::ZERO;
        let mut budget = Budget { interrupt: Some(&flag), ..Budget::default() };
        assert_eq!(budget.exhausted(), None);
        budget.remaining = Some(&spent);
        assert_eq!(budget.exhausted(), Some(Limit::Time));
        flag.store(true, Ordering::Relaxed);
        assert_eq!(budget.exhausted(), Some(Limit::Interrupt));
    }

    #[test]
    fn work_ends_a_search_where_no_clock_does_and_parts_count_together() {
        let budget = Budget { nodes_max: 2, ..Budget::default() };
        budget.counted(|counted| {
            counted.did(NODE_WORK);
            assert_eq!(counted.exhausted(), None);
            let part = Budget { nodes_max: 1, ..*counted };
            part.counted(|part| part.did(NODE_WORK));
            assert_eq!(counted.exhausted(), Some(Limit::Nodes));
        });
        budget.counted(|counted| {
            counted.share(0.5, |half| {
                half.did(NODE_WORK);
                assert_eq!(half.exhausted(), Some(Limit::Nodes));
            });
            assert_eq!((counted.work_left(), counted.exhausted()), (Some(NODE_WORK), None));
        });
        assert_eq!(budget.exhausted(), None, "each call has its own");
        let hour = || Seconds::of(3600.0);
        let timed = Budget { remaining: Some(&hour), nodes_max: 0, ..Budget::default() };
        timed.counted(|timed| assert_eq!((timed.work_left(), timed.exhausted()), (None, None)));
    }

    #[test]
    fn a_gap_is_relative_and_zero_only_for_equals() {
        assert!((relative_gap(4.0, 5.0) - 0.25).abs() < 1e-15);
        assert_eq!(relative_gap(0.0, 0.0), 0.0);
        assert_eq!(relative_gap(0.0, 1.0), f64::INFINITY);
    }
}
