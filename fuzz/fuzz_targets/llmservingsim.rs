//! See `checks/llmservingsim.rs`.

#![no_main]

#[path = "../checks/llmservingsim.rs"]
mod llmservingsim;

libfuzzer_sys::fuzz_target!(|text: &str| llmservingsim::check(text));
