//! See `checks/replay.rs`.

#![no_main]

#[path = "../checks/replay.rs"]
mod replay;

libfuzzer_sys::fuzz_target!(|text: &str| replay::check(text));
