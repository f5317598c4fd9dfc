//! What is attainable at each target: proven by the planner, counted, or measured of the least that must happen anyway.

use super::{ENTRIES, Found, USERS, Values, directory, now, pile, piles, timed};
use crate::commands::bench_targets::median;
use isotherm_core::check::FeasiblePlan;
use isotherm_planner::Budget;
use isotherm_planner::baselines::{Baseline, baseline};
use isotherm_runtime::host::{Host, Roots};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// Every bound there is.
#[cfg(test)]
pub const NAMES: [&str; 20] = [
    "slow_link",
    "two_unlike",
    "reads",
    "reads_share",
    "stages_overhead",
    "solver",
    "greedy",
    "state_update",
    "memory_state",
    "memory_device",
    "allocate",
    "synchronise",
    "monitor_query",
    "permission",
    "scale_devices",
    "scale_users",
    "audit_rate",
    "availability",
    "batch",
    "batch_threads",
];

/// A file that every Linux has and that costs little to read.
const SMALL_FILE: &str = "/proc/loadavg";
/// Bytes of one link: two ends, latency, bandwidth.
const LINK_BYTES: f64 = 4.0 + 4.0 + 8.0 + 8.0;
/// Bytes that a core fills to show how fast it does.
const FILL_BYTES: usize = 1 << 20;
/// Turns of two cores that hand a word to each other.
const TURNS: u32 = 20_000;
/// Hours between failures and until repair in the simulated pair.
const FAILURE_HOURS: (f64, f64) = (200.0, 10.0 / 60.0);

/// The bound of this name, in the unit of its row. Errors: why it is not known here.
pub fn bound(name: &str, runs: u32, found: &Found) -> Result<f64, String> {
    let middle = |values: Values| median(&values?).ok_or_else(|| "nothing was measured".to_owned());
    // What must happen anyway takes no longer than it once took: any other run was disturbed.
    let least = |values: Values| shortest(&values?);
    let beside = || found.beside.ok_or_else(|| "this system does not count what it needs".to_owned());
    match name {
        "reads" => reads(runs),
        "reads_share" => reads(runs).map(|seconds| 100.0 * seconds),
        "stages_overhead" => Ok(100.0 * 2.0 * least(super::synchronise(runs))? / beside()?),
        "solver" => middle(piles(runs, |problem| baseline(problem, Baseline::Greedy, &Budget::default()).is_ok())),
        "greedy" => middle(checked(runs)),
        "state_update" => {
            let file = pile("mesh100", 1)?.graph.file().clone();
            least(timed(runs, || drop(black_box(file.clone()))))
        }
        "memory_state" => Ok(LINK_BYTES * links()? / 1e6),
        "memory_device" => Ok(LINK_BYTES * links()? / 1e6 / pile("mesh100", 1)?.graph.devices().len() as f64),
        "allocate" => {
            let mut held = vec![1_u8; FILL_BYTES];
            least(timed(runs, || black_box(&mut held).fill(black_box(2))))
        }
        "synchronise" => handed_over(runs),
        "monitor_query" => open_read(runs),
        "permission" => looked_up(runs),
        "scale_devices" => Ok(pile("scale200", 1)?.graph.devices().len() as f64),
        "scale_users" => Ok(f64::from(USERS)),
        "audit_rate" => least(written(runs, beside()?)).map(|seconds| ENTRIES as f64 / seconds),
        "availability" => {
            let (between, repair) = FAILURE_HOURS;
            Ok(100.0 * (1.0 - (repair / (between + repair)).powi(2)))
        }
        // Both ratios rest on what the planner proved when it planned.
        "slow_link" | "two_unlike" | "batch" => beside(),
        "batch_threads" => arithmetic(runs),
        other => Err(format!("there is no bound {other:?}")),
    }
}

/// The least of some times.
fn shortest(seconds: &[f64]) -> Result<f64, String> {
    seconds.iter().copied().reduce(f64::min).ok_or_else(|| "nothing was measured".to_owned())
}

fn links() -> Result<f64, String> {
    Ok(pile("mesh100", 1)?.graph.file().links.len() as f64)
}

/// Read calls that this process has made; Linux counts them.
fn read_calls() -> Result<f64, String> {
    let counted = || {
        let text = std::fs::read_to_string("/proc/self/io").ok()?;
        text.lines().find_map(|line| line.strip_prefix("syscr:"))?.trim().parse::<f64>().ok()
    };
    counted().ok_or_else(|| "this system does not count read calls".to_owned())
}

/// Read calls of a piece of work, without those of counting.
fn calls_of(work: impl FnOnce()) -> Result<f64, String> {
    let (first, second) = (read_calls()?, read_calls()?);
    work();
    Ok((read_calls()? - second - (second - first)).max(1.0))
}

/// Seconds that the read calls of looking at this host take, each as long as one of a small file.
fn reads(runs: u32) -> Result<f64, String> {
    let calls = calls_of(|| drop(black_box(Host::discover(&Roots::default()))))?;
    let small = calls_of(|| drop(black_box(std::fs::read(SMALL_FILE))))?;
    let seconds = shortest(&timed(runs, || drop(black_box(std::fs::read(SMALL_FILE))))?)?;
    Ok(calls * seconds / small)
}

/// Seconds of checking the greedy plan of each pile.
fn checked(runs: u32) -> Values {
    (1..=u64::from(runs))
        .map(|seed| {
            let problem = pile("mesh24", seed)?;
            let plan = baseline(&problem, Baseline::Greedy, &Budget::default()).map_err(|e| e.to_string())?;
            let plan = plan.as_ref().map(FeasiblePlan::plan).ok_or("the greedy baseline has no plan")?;
            let begin = Instant::now();
            black_box(plan.clone().check(&problem).is_ok());
            Ok(begin.elapsed().as_secs_f64())
        })
        .collect()
}

/// Seconds of a word from one core to another and back, neither of them asleep.
fn handed_over(runs: u32) -> Result<f64, String> {
    if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2 {
        return Err("needs two cores".to_owned());
    }
    let once = || {
        let word = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| answer(&word));
            let begin = Instant::now();
            for turn in 0..TURNS {
                word.store(2 * turn + 1, Ordering::Release);
                while word.load(Ordering::Acquire) != 2 * turn + 2 {
                    std::hint::spin_loop();
                }
            }
            begin.elapsed().as_secs_f64() / f64::from(TURNS)
        })
    };
    // The least of all runs: in any other, one of the two was not on a core.
    Ok((0..runs).map(|_| once()).fold(f64::INFINITY, f64::min))
}

fn answer(word: &AtomicU32) {
    for turn in 0..TURNS {
        while word.load(Ordering::Acquire) != 2 * turn + 1 {
            std::hint::spin_loop();
        }
        word.store(2 * turn + 2, Ordering::Release);
    }
}

/// Seconds of one read of a small file that is held open.
fn open_read(runs: u32) -> Result<f64, String> {
    use std::io::{Read, Seek};
    let mut file = std::fs::File::open(SMALL_FILE).map_err(|e| format!("{SMALL_FILE}: {e}"))?;
    let mut bytes = [0_u8; 256];
    let seconds = timed(runs, || {
        let _ = file.rewind();
        let _ = black_box(file.read(&mut bytes));
    })?;
    shortest(&seconds)
}

/// Seconds of finding who asks and which pools hold the device.
fn looked_up(runs: u32) -> Result<f64, String> {
    let (directory, keys) = directory(now()?)?;
    let mut turn = 0_usize;
    let seconds = timed(runs, || {
        turn += 1;
        let device = format!("gpu{}", turn % 11);
        let who = directory.principals.get(&keys[1 + turn % 7].id());
        let pools = directory.pools.iter().filter(|(_, devices)| devices.contains(&device)).count();
        black_box((who, pools));
    })?;
    shortest(&seconds)
}

/// Bytes of all files below a folder.
pub(super) fn bytes_under(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_under(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Seconds of writing so many bytes to a plain file and synchronising it.
fn written(runs: u32, bytes: f64) -> Values {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let block = vec![7_u8; bytes.max(1.0) as usize];
    let mut file = std::fs::File::create(folder.path().join("plain")).map_err(|e| e.to_string())?;
    let mut failed = None;
    let seconds = timed(runs, || {
        if let Err(e) = file.write_all(&block).and_then(|()| file.sync_data()) {
            failed = Some(e.to_string());
        }
    })?;
    failed.map_or(Ok(seconds), Err)
}

/// How many times more two threads compute than one.
fn arithmetic(runs: u32) -> Result<f64, String> {
    let work = || {
        let mut x = black_box(1_u64);
        for _ in 0..20_000_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        }
        black_box(x);
    };
    let alone = median(&timed(runs, work)?);
    let both = timed(runs, || {
        std::thread::scope(|scope| {
            scope.spawn(work);
            work();
        });
    })?;
    alone.zip(median(&both)).map(|(one, two)| 2.0 * one / two).ok_or_else(|| "nothing was measured".to_owned())
}
