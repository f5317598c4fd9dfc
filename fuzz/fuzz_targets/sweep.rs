//! See `checks/sweep.rs`.

#![no_main]

#[path = "../checks/sweep.rs"]
mod sweep;

libfuzzer_sys::fuzz_target!(|text: &str| sweep::check(text));
