//! See `checks/ssh_key.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/ssh_key.rs"]
mod ssh_key;

fuzz_target!(|data: &str| ssh_key::check(data));
