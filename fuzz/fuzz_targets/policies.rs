//! See `checks/policies.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/policies.rs"]
mod policies;

fuzz_target!(|data: &str| policies::check(data));
