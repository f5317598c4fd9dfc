//! Whether other programs disturbed a measurement: what Linux tells of cores that were waited for and of who else runs.
//!
//! Two things lengthen a pass. Somebody takes a core of ours: then a thread of ours waits, and for how long the kernel
//! counts. Or somebody runs on a core beside: it shares caches, memory and often the very units of the core, and nobody
//! waits; but then there are more threads ready to run than those of ours.

use std::fs;

/// Share of a time that threads may have waited meanwhile before it counts as disturbed.
const WAITED_SHARE: f64 = 0.01;

/// A look at the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// Nanoseconds that all threads of this process together have waited for a core so far; none where it is not told.
    waited: Option<u64>,
    /// Threads of others that run or could, now; none where it is not told.
    others: Option<u32>,
}

impl Look {
    /// Now.
    pub(super) fn now() -> Self {
        let running = fs::read_to_string("/proc/stat").ok().and_then(|text| running(&text));
        let (mut waited, mut own) = (Some(0_u64), Some(0_u32));
        let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Self::default() };
        for task in tasks.flatten() {
            // A thread may end between two looks at it.
            let read = |file: &str| fs::read_to_string(task.path().join(file));
            if let Ok(text) = read("schedstat") {
                waited = waited.zip(waited_by(&text)).map(|(sum, more)| sum.saturating_add(more));
            }
            if let Ok(text) = read("stat") {
                own = own.zip(is_running(&text)).map(|(sum, runs)| sum + u32::from(runs));
            }
        }
        Self { waited, others: running.zip(own).map(|(running, own)| running.saturating_sub(own)) }
    }

    /// Whether nothing is known to have disturbed what took so many nanoseconds from this look to a later one. Threads that
    /// are more than the cores they run on wait for each other, which says nothing of others.
    pub(super) fn undisturbed_until(self, later: Self, nanoseconds: u64, may_wait: bool) -> bool {
        let alone = |look: Self| look.others.is_none_or(|others| others == 0);
        let waited = later.waited.zip(self.waited).map_or(0, |(later, before)| later.saturating_sub(before));
        alone(self) && alone(later) && (may_wait || waited as f64 <= nanoseconds as f64 * WAITED_SHARE)
    }
}

/// Threads of the whole host that run or could (`procs_running` of `/proc/stat`, proc(5)).
fn running(text: &str) -> Option<u32> {
    text.lines().find_map(|line| line.strip_prefix("procs_running "))?.trim().parse().ok()
}

/// Nanoseconds that a thread has waited for a core: the second figure of its `schedstat`
/// (Documentation/scheduler/sched-stats.rst).
fn waited_by(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether a thread runs or could: its state, after the name in parentheses, which may hold anything (proc(5)).
fn is_running(text: &str) -> Option<bool> {
    Some(text[text.rfind(')')? + 1..].split_ascii_whitespace().next()? == "R")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_disturbed_by_more_than_a_hundredth_of_waiting_and_by_anybody_else_at_either_end() {
        let look = |waited, others| Look { waited, others };
        let calm = look(Some(5), Some(0));
        let clean = |later| calm.undisturbed_until(later, 1000, false);
        assert!(clean(look(Some(15), Some(0))) && !clean(look(Some(16), Some(0))));
        assert!(calm.undisturbed_until(look(Some(16), Some(0)), 1000, true));
        assert!(!clean(look(Some(5), Some(1))) && !look(Some(5), Some(1)).undisturbed_until(calm, 1000, true));
        // What is not told says nothing.
        assert!(clean(Look::default()) && Look::default().undisturbed_until(look(Some(16), None), 1000, false));
    }

    #[test]
    fn the_kernels_words_are_read_whatever_a_thread_is_called() {
        assert_eq!(running("cpu 1 2\nprocs_running 3\nprocs_blocked 0\n"), Some(3));
        assert_eq!(running("cpu 1 2\n"), None);
        assert_eq!((waited_by("264127 484159 1\n"), waited_by("7")), (Some(484_159), None));
        assert_eq!(is_running("7 (a) S b) R 1 7"), Some(true));
        assert_eq!((is_running("7 (R) S 1"), is_running("7 R")), (Some(false), None));
    }
}
