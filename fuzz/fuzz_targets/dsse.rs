//! See `checks/dsse.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/dsse.rs"]
mod dsse;

fuzz_target!(|data: &[u8]| dsse::check(data));
