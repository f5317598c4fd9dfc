//! See `checks/machine.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/machine.rs"]
mod machine;

fuzz_target!(|data: &[u8]| machine::check(data));
