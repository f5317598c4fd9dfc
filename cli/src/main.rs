#![forbid(unsafe_code)]
//! The command line: files, arguments, exit codes, wiring.
fn main() {}
