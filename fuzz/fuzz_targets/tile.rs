//! See `checks/tile.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/tile.rs"]
mod tile;

fuzz_target!(|data: &[u8]| tile::check(data));
