//! The crash matrix: a writer is killed at random points, and each of its system calls fails once. Afterwards the log is
//! sound, nothing that was acknowledged is lost, and the quotas are exact. A sample runs each time; `ISOTHERM_CAMPAIGN=1`
//! runs all of it.

use crate::support::{at, id};
use isotherm_access::Ledger;
use isotherm_access::ledger::JOURNAL_FILE;
use isotherm_access::rates::{RateError, Rates};
use isotherm_audit::keys::{Identity, Seed};
use isotherm_audit::log::witness::{Watched, Witness};
use isotherm_audit::log::{Event, EventKind, Log, OnLock, fsck};
use isotherm_audit::manifest::Nonce;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tempfile::tempdir;

const ORIGIN: &str = "isotherm.local/crash";
const STEPS: u64 = 12;
const STEPS_FILLED: u64 = 2;
/// The signal that nothing catches, by its name for strace.
const KILL: &str = "KILL";
/// Holdings with the longest owners that are more than a journal holds before it is written anew.
const FILLED: usize = 2_600;
/// Writers that run beside one another, each in a folder of its own.
const WRITERS: usize = 4;
/// How long a writer may take.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// Entries that the witness cosigned.
    seen: u64,
    /// Uses of leases that were accepted.
    used: Vec<u64>,
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
            } else if let Some(size) = line.strip_prefix("seen ") {
                said.seen = size.parse().expect("a size");
            } else if let Some(step) = line.strip_prefix("used ") {
                said.used.push(step.parse().expect("a number"));
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
    let rates = Rates::open(&folder.join("books")).unwrap_or_else(|e| panic!("{what}: {e}"));
    for step in &said.used {
        let made = [(Nonce(u128::from(*step).to_be_bytes()), at(crate::support::NOW))];
        let again = rates.fresh(key.id(), &made);
        assert!(matches!(again, Err(RateError::Replayed { .. })), "{what}: use {step} would count twice: {again:?}");
    }
    let other = Identity::from_seed(&Seed::from_bytes([2; 32])).expect("a key");
    let witness = Witness::open("witness.example/crash", &other, &folder.join("witness"));
    let witness = witness.unwrap_or_else(|e| panic!("{what}: {e}"));
    let watched = Watched { origin: ORIGIN.to_owned(), key: key.public().clone() };
    let known = witness.known(&watched).unwrap_or_else(|e| panic!("{what}: {e}")).map_or(0, |known| known.size);
    assert!(known >= said.seen, "{what}: the witness remembers {known} of {}", said.seen);
    let ledger = Ledger::open(&folder.join("books")).unwrap_or_else(|e| panic!("{what}: {e}"));
    let held = ledger.holdings().expect("readable");
    let own = held.iter().filter(|(_, holding)| holding.principal == id(1));
    let names: Vec<String> = own.map(|(booking, _)| booking.to_string()).collect();
    for (booking, expected) in &said.held {
        let found = names.contains(booking);
        assert!(expected.is_none_or(|expected| expected == found), "{what}: booking {booking} is held: {found}");
    }
    let unsaid = names.iter().filter(|name| !said.held.contains_key(*name)).count();
    assert!(unsaid <= 1, "{what}: at most the step that was interrupted is on record unsaid");
    assert_eq!(ledger.used(id(1)).expect("readable"), 10 * names.len() as u64, "{what}");
    let others = held.len() - names.len();
    assert!(others == 0 || others == FILLED, "{what}: {others} holdings of somebody else");
    assert!(ledger.fsck().expect("readable"), "{what}");
    ledger.sweep(at(crate::support::NOW), |_| false).expect("the writer is gone");
    assert_eq!((ledger.used(id(1)).ok(), ledger.used(id(2)).ok()), (Some(0), Some(0)), "{what}");
}

/// A journal so long that every further step writes it anew: a crash may come in the middle of that too.
fn filled() -> Arc<Vec<u8>> {
    static FILLED_ONCE: OnceLock<Arc<Vec<u8>>> = OnceLock::new();
    Arc::clone(FILLED_ONCE.get_or_init(|| Arc::new(made())))
}

fn made() -> Vec<u8> {
    let folder = tempdir().expect("a folder");
    let ledger = Ledger::open(folder.path()).expect("new");
    let (now, until, owner) = (at(crate::support::NOW), at("2026-11-24T12:00:00Z"), "x".repeat(256));
    for _ in 0..FILLED {
        ledger.reserve(id(2), 1, None, now, until, &owner).expect("no limit");
    }
    std::fs::read(folder.path().join(JOURNAL_FILE)).expect("readable")
}

fn fill(folder: &Path, journal: &[u8]) {
    let books = folder.join("books");
    isotherm_audit::storage::private_folder(&books).expect("own folder");
    std::fs::write(books.join(JOURNAL_FILE), journal).expect("own file");
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
    let (rounds, mut dice, filled) = (if campaign() { 1000 } else { 25 }, 11, filled());
    let mut acknowledged = 0;
    for round in 0..rounds {
        let folder = tempdir().expect("a folder");
        if round % 3 == 2 {
            fill(folder.path(), &filled);
        }
        let mut command = Command::new(&writer);
        command.arg(folder.path()).arg("100000").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the writer starts");
        std::thread::sleep(Duration::from_micros(1_000 + draw(&mut dice) % 120_000));
        child.kill().expect("it runs until it is killed");
        child.wait().expect("it ends");
        let mut text = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
        let said = Said::read(&text);
        acknowledged += said.log;
        check(folder.path(), &said, &format!("round {round}"));
    }
    println!("{rounds} writers killed, {acknowledged} entries acknowledged");
    assert!(acknowledged > 0, "no writer came so far that it had something to lose");
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
        command.args(["-f", "-qq", "-o"]).arg(trace).args([
            "-e",
            "trace=openat,write,fsync,fdatasync,rename,renameat,renameat2,mkdir,ftruncate,unlink,rmdir,flock,lseek,read,close,statx,fcntl",
        ]);
        if let Some(inject) = inject {
            command.args(["-e", &format!("inject={inject}")]);
        }
        let steps = if folder.join("books").exists() { STEPS_FILLED } else { STEPS };
        command.arg(&writer).arg(folder).arg(steps.to_string()).stdout(Stdio::piped()).stderr(Stdio::null());
        ended(command.spawn().expect("strace starts"))
    };
    let scratch = tempdir().expect("a folder");
    let trace = scratch.path().join("trace");
    let folder = tempdir().expect("a folder");
    let whole = run(folder.path(), None, &trace);
    if !whole.status.success() || whole.stdout.is_empty() {
        eprintln!("skipped: {TEST}: strace may not trace here");
        return;
    }
    let said = Said::read(&String::from_utf8_lossy(&whole.stdout));
    assert!(said.log > STEPS && said.seen > 0 && !said.used.is_empty() && !said.held.is_empty(), "the writer wrote");
    let mut failed = injected(&run, &std::fs::read_to_string(&trace).expect("a trace"), None);
    let (folder, filled) = (tempdir().expect("a folder"), filled());
    fill(folder.path(), &filled);
    assert!(run(folder.path(), None, &trace).status.success());
    failed += injected(&run, &std::fs::read_to_string(&trace).expect("a trace"), Some(&filled));
    assert!(failed > 0, "no injected error reached the writer");
}

/// Waits for strace and the writer under it. A `close` that fails by injection leaves the file open, so a writer may wait
/// for a lock that it holds itself: whatever takes too long is killed, which is one more way to end.
fn ended(strace: Child) -> Output {
    let (pid, done) = (strace.id(), Arc::new(AtomicBool::new(false)));
    let watched = Arc::clone(&done);
    let watch = std::thread::spawn(move || {
        let until = Instant::now() + PATIENCE;
        while !watched.load(Ordering::Relaxed) {
            if Instant::now() > until {
                let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
                for child in children.split_ascii_whitespace() {
                    // It may have ended meanwhile.
                    let _ = Command::new("kill").args(["-9", child]).status();
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let output = strace.wait_with_output().expect("it ends");
    done.store(true, Ordering::Relaxed);
    watch.join().expect("it only looks");
    output
}

/// Fails each system call of a whole run once, in a new folder each, or every so many of them. Gives how often the writer
/// ended early.
fn injected(run: &(dyn Fn(&Path, Option<&str>, &Path) -> Output + Sync), calls: &str, journal: Option<&[u8]>) -> usize {
    let (mut points, mut seen) = (Vec::new(), BTreeSet::new());
    for (call, error) in [
        ("write", "ENOSPC"),
        ("write", "EIO"),
        ("fsync", "EIO"),
        ("fdatasync", "EIO"),
        ("rename", "EIO"),
        ("renameat", "EIO"),
        ("renameat", "ENOSPC"),
        ("renameat2", "EIO"),
        ("mkdir", "ENOSPC"),
        ("openat", "EMFILE"),
        ("flock", "EINTR"),
        ("ftruncate", "EIO"),
        ("unlink", "EIO"),
        ("rmdir", "EIO"),
        ("lseek", "EIO"),
        ("read", "EIO"),
        ("close", "EIO"),
        ("statx", "EIO"),
        ("fcntl", "EIO"),
        // Killed at the very call, which random moments hardly ever hit.
        ("write", KILL),
        ("fsync", KILL),
        ("fdatasync", KILL),
        ("rename", KILL),
        ("renameat", KILL),
        ("renameat2", KILL),
        ("mkdir", KILL),
        ("openat", KILL),
        ("ftruncate", KILL),
        ("unlink", KILL),
        ("rmdir", KILL),
        ("close", KILL),
    ] {
        let count =
            calls.lines().filter(|line| line.split(' ').any(|word| word.starts_with(&format!("{call}(")))).count();
        if count > 0 {
            seen.insert(call.trim_end_matches("at2").trim_end_matches("at"));
        }
        let stride = if campaign() { 1 } else { (count / 4).max(1) };
        points.extend((1..=count).step_by(stride).map(|when| (call, error, when, count)));
    }
    // A library that calls by another name would leave the matrix empty without a word.
    for needed in ["open", "write", "fsync", "fdatasync", "rename", "flock", "read", "close"] {
        assert!(seen.contains(needed), "no {needed} among the calls of the writer: {seen:?}");
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Each waits for the disk most of the time.
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let scratch = tempdir().expect("a folder");
                let trace = scratch.path().join("trace");
                while let Some(&(call, error, when, count)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let folder = tempdir().expect("a folder");
                    journal.into_iter().for_each(|journal| fill(folder.path(), journal));
                    let how = if error == KILL { format!("signal={KILL}") } else { format!("error={error}") };
                    let output = run(folder.path(), Some(&format!("{call}:{how}:when={when}")), &trace);
                    failed.fetch_add(usize::from(!output.status.success()), Ordering::Relaxed);
                    let text = String::from_utf8_lossy(&output.stdout).into_owned();
                    let what = format!("{call} number {when} of {count} with {error}");
                    check(folder.path(), &Said::read(&text), &what);
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{} points, the writer ended early at {failed}", points.len());
    failed
}
