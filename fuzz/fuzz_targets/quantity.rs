//! See `checks/quantity.rs`.

#![no_main]

#[path = "../checks/quantity.rs"]
mod quantity;

libfuzzer_sys::fuzz_target!(|text: &str| quantity::check(text));
