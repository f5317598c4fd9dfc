//! See `checks/scenario.rs`.

#![no_main]

#[path = "../checks/scenario.rs"]
mod scenario;

libfuzzer_sys::fuzz_target!(|text: &str| scenario::check(text));
