//! The closing line of `make test` says what the runner said.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::checkout::root;

/// What `scripts/summary.awk` prints for a log of `cargo test -- --show-output`.
fn summarise(log: &str) -> Vec<String> {
    let mut child = Command::new("awk")
        .args(["-f", "scripts/summary.awk"])
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("awk is part of every Unix system");
    child.stdin.take().expect("stdin is piped").write_all(log.as_bytes()).expect("awk reads all of its input");
    let output = child.wait_with_output().expect("awk ends");
    String::from_utf8(output.stdout).expect("the summary is text").lines().map(str::to_owned).collect()
}

const LOG: &str = "\
     Running unittests src/lib.rs (target/debug/deps/isotherm_core-0)

running 4 tests
test a::holds ... ok
test b::needs_a_file ... ok
test c::slow ... ignored, takes an hour
test d::breaks ... FAILED

successes:

---- b::needs_a_file stdout ----
skipped: b::needs_a_file: no shared folder

successes:
    a::holds
    b::needs_a_file

failures:

---- d::breaks stdout ----
skipped: half of d: said before it broke

failures:
    d::breaks

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

     Running tests/it/main.rs (target/debug/deps/it-0)

running 1 test
test b::needs_a_file ... ok

successes:

---- b::needs_a_file stdout ----
skipped: b::needs_a_file: first reason
skipped: b::needs_a_file: second reason

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

#[test]
fn a_skipped_test_counts_once_and_not_as_passed() {
    let lines = summarise(LOG);
    assert_eq!(lines.last().map(String::as_str), Some("1 passed, 1 failed, 3 skipped"));
    assert_eq!(lines.iter().filter(|line| line.contains("needs_a_file")).count(), 3, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("c::slow") && line.contains("takes an hour")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("half of d")), "{lines:?}");
}

#[test]
fn a_runner_that_died_counts_as_a_failure() {
    let died = "running 2 tests\ntest a ... ok\nerror: test failed, to rerun pass `-p x --lib`\n\nCaused by:\n  process didn't exit successfully: `x` (signal: 6, SIGABRT: process abort signal)\n";
    assert_eq!(summarise(died).last().map(String::as_str), Some("0 passed, 1 failed, 0 skipped"));
}

#[test]
fn an_empty_log_passes_nothing() {
    assert_eq!(summarise("").last().map(String::as_str), Some("0 passed, 0 failed, 0 skipped"));
}
