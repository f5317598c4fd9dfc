//! See `checks/lease.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/lease.rs"]
mod lease;

fuzz_target!(|data: &[u8]| lease::check(data));
