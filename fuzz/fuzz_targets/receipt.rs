//! See `checks/receipt.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/receipt.rs"]
mod receipt;

fuzz_target!(|data: &[u8]| receipt::check(data));
