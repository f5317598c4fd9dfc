//! Ctrl-C: the first asks the running search to stop with what it has, the second ends the program.

use crate::failure::Failure;
use std::sync::atomic::{AtomicBool, Ordering};

static RAISED: AtomicBool = AtomicBool::new(false);

/// Raised by the first Ctrl-C.
pub fn flag() -> &'static AtomicBool {
    &RAISED
}

/// Begins to listen.
pub fn listen() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if RAISED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping; press Ctrl-C again to leave at once");
    })
    .map_err(|e| Failure::io(format!("cannot listen for Ctrl-C: {e}")))
}
