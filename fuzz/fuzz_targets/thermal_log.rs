//! See `checks/thermal_log.rs`.

#![no_main]

#[path = "../checks/thermal_log.rs"]
mod thermal_log;

libfuzzer_sys::fuzz_target!(|text: &str| thermal_log::check(text));
