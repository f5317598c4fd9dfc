//! The crash matrix: a writer is killed at random points, and each of its system calls fails once. Afterwards the log is
//! sound, nothing that was acknowledged is lost, and the quotas are exact. A sample runs each time; `ISOTHERM_CAMPAIGN=1`
//! runs all of it.

use crate::support::{at, id};
use isotherm_access::Ledger;
use isotherm_audit::keys::{Identity, Seed};
use isotherm_audit::log::{Event, EventKind, Log, OnLock, fsck};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::tempdir;

const ORIGIN: &str = "isotherm.local/crash";
const STEPS: u64 = 12;

fn campaign() -> bool {
    std::env::var_os("ISOTHERM_CAMPAIGN").is_some_and(|value| value == "1")
}

/// The built example beside this test, or a word on why it is not there.
fn writer(test: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().expect("a test knows where it is");
    let path = own.parent().and_then(Path::parent).expect("in target/debug/deps").join("examples/crash_writer");
    if !path.is_file() {
        eprintln!("skipped: {test}: the example crash_writer is not built; `cargo test -p isotherm-access` builds it");
        return None;
    }
    Some(path)
}

/// What a writer said before it ended.
#[derive(Default)]
struct Said {
    log: u64,
    /// Bookings and whether they must be held; absent where either is right.
    held: BTreeMap<String, Option<bool>>,
}

impl Said {
    fn read(text: &str) -> Self {
        let mut said = Self::default();
        // A last line without its end was not said.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            if let Some(size) = line.strip_prefix("log ") {
                said.log = size.parse().expect("a size");
            } else if let Some(booking) = line.strip_prefix("hold ") {
                said.held.insert(booking.to_owned(), Some(true));
            } else if let Some(booking) = line.strip_prefix("let go ") {
                said.held.insert(booking.to_owned(), None);
            } else if let Some(booking) = line.strip_prefix("free ") {
                said.held.insert(booking.to_owned(), Some(false));
            }
        }
        said
    }
}

/// What has to hold after any end.
fn check(folder: &Path, said: &Said, what: &str) {
    let key = Identity::from_seed(&Seed::from_bytes([1; 32])).expect("a key");
    let path = folder.join("log");
    if said.log > 0 {
        let found = fsck(&path, ORIGIN, key.public(), &[]).expect("readable");
        assert!(found.is_sound(), "{what}: {:?}", found.findings);
        assert!(found.entries >= said.log, "{what}: {} of {} acknowledged entries", found.entries, said.log);
    }
    let (mut log, _) = Log::open(&path, ORIGIN, &key, OnLock::Refuse).unwrap_or_else(|e| panic!("{what}: {e}"));
    let event = Event::new(EventKind::MemoryAllocate, at(crate::support::NOW), key.id());
    assert!(log.append(&event).expect("goes on") >= said.log, "{what}");
    drop(log);
    assert!(fsck(&path, ORIGIN, key.public(), &[]).expect("readable").is_sound(), "{what}");
    let ledger = Ledger::open(&folder.join("books")).unwrap_or_else(|e| panic!("{what}: {e}"));
    let held = ledger.holdings().expect("readable");
    let names: Vec<String> = held.keys().map(ToString::to_string).collect();
    for (booking, expected) in &said.held {
        let found = names.contains(booking);
        assert!(expected.is_none_or(|expected| expected == found), "{what}: booking {booking} is held: {found}");
    }
    let unsaid = names.iter().filter(|name| !said.held.contains_key(*name)).count();
    assert!(unsaid <= 1, "{what}: at most the step that was interrupted is on record unsaid");
    assert_eq!(ledger.used(id(1)).expect("readable"), 10 * held.len() as u64, "{what}");
    assert!(ledger.fsck().expect("readable"), "{what}");
    ledger.sweep(at(crate::support::NOW), |_| false).expect("the writer is gone");
    assert_eq!(ledger.used(id(1)).expect("readable"), 0, "{what}");
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn a_writer_killed_at_random_points_loses_nothing_it_acknowledged() {
    let Some(writer) = writer("a_writer_killed_at_random_points_loses_nothing_it_acknowledged") else { return };
    let (rounds, mut dice) = (if campaign() { 1000 } else { 25 }, 11);
    for round in 0..rounds {
        let folder = tempdir().expect("a folder");
        let mut command = Command::new(&writer);
        command.arg(folder.path()).arg("100000").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the writer starts");
        std::thread::sleep(Duration::from_micros(1_000 + draw(&mut dice) % 120_000));
        child.kill().expect("it runs until it is killed");
        child.wait().expect("it ends");
        let mut text = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
        check(folder.path(), &Said::read(&text), &format!("round {round}"));
    }
}

#[test]
fn every_system_call_of_a_writer_may_fail_once() {
    const TEST: &str = "every_system_call_of_a_writer_may_fail_once";
    let Some(writer) = writer(TEST) else { return };
    if !Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {TEST}: strace does not start");
        return;
    }
    let run = |folder: &Path, inject: Option<&str>, trace: &Path| {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-o"])
            .arg(trace)
            .args(["-e", "trace=openat,write,fsync,fdatasync,rename,mkdir,ftruncate,unlink,flock,lseek,read,close"]);
        if let Some(inject) = inject {
            command.args(["-e", &format!("inject={inject}")]);
        }
        command.arg(&writer).arg(folder).arg(STEPS.to_string()).stderr(Stdio::null());
        command.output().expect("strace starts")
    };
    let scratch = tempdir().expect("a folder");
    let trace = scratch.path().join("trace");
    let folder = tempdir().expect("a folder");
    let whole = run(folder.path(), None, &trace);
    if !whole.status.success() || whole.stdout.is_empty() {
        eprintln!("skipped: {TEST}: strace may not trace here");
        return;
    }
    let calls = std::fs::read_to_string(&trace).expect("a trace");
    let mut failed = 0;
    for (call, error) in [
        ("write", "ENOSPC"),
        ("write", "EIO"),
        ("fsync", "EIO"),
        ("fdatasync", "EIO"),
        ("rename", "EIO"),
        ("mkdir", "ENOSPC"),
        ("openat", "EMFILE"),
        ("flock", "EINTR"),
        ("ftruncate", "EIO"),
        ("unlink", "EIO"),
        ("lseek", "EIO"),
        ("read", "EIO"),
        ("close", "EIO"),
    ] {
        let count =
            calls.lines().filter(|line| line.split(' ').any(|word| word.starts_with(&format!("{call}(")))).count();
        let stride = if campaign() { 1 } else { (count / 4).max(1) };
        for when in (1..=count).step_by(stride) {
            let folder = tempdir().expect("a folder");
            let output = run(folder.path(), Some(&format!("{call}:error={error}:when={when}")), &trace);
            failed += usize::from(!output.status.success());
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            check(folder.path(), &Said::read(&text), &format!("{call} number {when} of {count} with {error}"));
        }
    }
    assert!(failed > 0, "no injected error reached the writer");
}
