//! The event queue against the binary heap of the standard library.

use crate::usage::thread_seconds;
use isotherm_sim::holds::Holds;
use serde::Serialize;

/// Events taken and scheduled in one measurement.
const HOLDS: usize = 2_000_000;

/// Both at one number of pending events.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub pending: u32,
    pub queue_events_per_second: f64,
    pub heap_events_per_second: f64,
    pub ratio: f64,
    /// Whether both gave all events in the same order.
    pub same_order: bool,
}

pub(super) fn rows() -> Vec<Row> {
    [16, 1 << 10, 1 << 16, 1 << 20].map(row).to_vec()
}

fn row(pending: u32) -> Row {
    let mut holds = Holds::new(pending, HOLDS);
    let begin = thread_seconds();
    let queue = holds.through_queue();
    let between = thread_seconds();
    let heap = holds.through_heap();
    let end = thread_seconds();
    let rate = |seconds: f64| HOLDS as f64 / seconds;
    let (ours, theirs) = (rate(between - begin), rate(end - between));
    Row {
        pending,
        queue_events_per_second: ours,
        heap_events_per_second: theirs,
        ratio: ours / theirs,
        same_order: queue == heap,
    }
}
