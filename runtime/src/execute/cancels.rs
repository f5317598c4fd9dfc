//! Taking requests back while a plan runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Requests to be taken back. Any thread may add to it; the run looks between two batches.
#[derive(Debug, Default)]
pub struct Cancels {
    wanted: Mutex<Vec<u32>>,
    /// Whether there are any, to be read without the lock.
    any: AtomicBool,
}

impl Cancels {
    /// Asks for the request at this position among the prompts to be taken back. One that is done stays done, and one that
    /// has not come yet comes all the same.
    pub fn add(&self, request: u32) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        self.any.store(true, Ordering::Release);
    }

    /// Those asked for since the last call.
    pub(super) fn take(&self) -> Vec<u32> {
        if !self.any.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
