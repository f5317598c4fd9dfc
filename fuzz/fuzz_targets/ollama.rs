//! See `checks/ollama.rs`.

#![no_main]

#[path = "../checks/ollama.rs"]
mod ollama;

libfuzzer_sys::fuzz_target!(|text: &str| ollama::check(text));
