//! See `checks/prompts.rs`.

#![no_main]

#[path = "../checks/prompts.rs"]
mod prompts;

libfuzzer_sys::fuzz_target!(|text: &str| prompts::check(text));
