//! See `checks/devices.rs`.

#![no_main]

#[path = "../checks/devices.rs"]
mod devices;

libfuzzer_sys::fuzz_target!(|data: &[u8]| devices::check(data));
