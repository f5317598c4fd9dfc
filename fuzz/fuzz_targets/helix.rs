//! See `checks/helix.rs`.

#![no_main]

#[path = "../checks/helix.rs"]
mod helix;

libfuzzer_sys::fuzz_target!(|text: &str| helix::check(text));
