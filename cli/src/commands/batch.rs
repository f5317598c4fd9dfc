//! `isotherm batch`: every point of every scenario of a directory planned and simulated, one row each.
//!
//! A point's row is kept as soon as it is known, under a name that says what it was made from; so a batch that was
//! killed goes on where it stopped, and its results are those of one that was not. Rows are put into files in one
//! order whatever the order in which they came, and nothing in them is a time: that has a table of its own.

mod emit;
mod extract;
mod merge;
mod point;
mod points;
mod prepare;
mod progress;
mod rows;
mod shards;
mod store;

pub use prepare::{BATCH_SCHEMA, Description};
pub use rows::{RESULTS_SCHEMA, SOLVE_SCHEMA};
pub use store::{Success, parts};

use crate::args::{Batch, BatchCommand, BatchHow, Format};
use crate::failure::{Code, Done, Failure};
use crate::interrupt;
use crate::ui::{Ui, table};
use isotherm_core::digest::Digest;
use points::Points;
use progress::Progress;
use rayon::prelude::*;
use rows::Kept;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use store::Store;

/// Failures that are listed by name; the table has all.
const LISTED_MAX: usize = 20;
/// Points that are put in order before the first of them is planned.
const WINDOW: usize = 4096;
/// Points up to which a row of each is printed.
const SHOWN_MAX: u64 = 60;

/// Runs the command.
pub fn run(ui: &Ui, args: &Batch) -> Done {
    match (&args.command, &args.directory, &args.output) {
        (Some(BatchCommand::Merge(args)), ..) => merge::run(ui, args),
        (Some(BatchCommand::Emit(args)), ..) => emit::run(args),
        (Some(BatchCommand::Extract(args)), ..) => extract::run(ui, args),
        (None, Some(directory), Some(output)) => all(ui, args, directory, output),
        (None, ..) => Err(Failure::new(Code::Usage, "name a folder with scenarios, and with -o one for results")),
    }
}

/// What became of a batch or a shard.
#[derive(Debug, Serialize)]
struct Summary {
    schema: &'static str,
    batch: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<String>,
    points: u64,
    resumed: u64,
    failed: u64,
    /// The largest gap of a plan; absent where no plan has one.
    gap_max: Option<f64>,
    /// Digest over the files of results.
    results: Digest,
    folder: String,
    wall_seconds: f64,
    points_per_second: f64,
    failures: Vec<String>,
}

/// Points that share a placement problem, of which the first is planned and the others take its plan: those that are
/// likely to take longest first, so that none is left to run alone at the end. Points that nothing is known of come by
/// themselves.
fn queue(window: &[u64], foresee: impl Fn(u64) -> Option<point::Foreseen> + Sync) -> Vec<(Option<Digest>, Vec<u64>)> {
    let foreseen: Vec<Option<point::Foreseen>> = window.par_iter().map(|&order| foresee(order)).collect();
    let mut groups: Vec<(u64, Option<Digest>, Vec<u64>)> = Vec::new();
    let mut known: BTreeMap<Digest, usize> = BTreeMap::new();
    for (&order, foreseen) in window.iter().zip(foreseen) {
        let Some(foreseen) = foreseen else {
            groups.push((0, None, vec![order]));
            continue;
        };
        let at = *known.entry(foreseen.placement).or_insert(groups.len());
        match groups.get_mut(at) {
            Some((.., orders)) => orders.push(order),
            None => groups.push((foreseen.effort, Some(foreseen.placement), vec![order])),
        }
    }
    groups.sort_by_key(|(effort, ..)| std::cmp::Reverse(*effort));
    groups.into_iter().map(|(_, placement, orders)| (placement, orders)).collect()
}

fn all(ui: &Ui, args: &Batch, directory: &Path, output: &Path) -> Done {
    let (summary, shown) = made(ui, args, directory, output)?;
    tell(ui, &summary, &shown)
}

/// What a batch took that was run to see how long it takes.
pub struct Timed {
    /// Seconds from first to last.
    pub wall_seconds: f64,
    /// How many points there were.
    pub points: u64,
    /// Why points had no answer.
    pub failures: Vec<String>,
}

/// Runs a batch in silence with so many workers.
pub fn timed(directory: &Path, output: &Path, how: BatchHow, jobs: usize) -> Result<Timed, Failure> {
    let ui = Ui { quiet: true, format: Format::Text };
    let (directory, output) = (directory.to_owned(), output.to_owned());
    let args = Batch {
        command: None,
        directory: Some(directory.clone()),
        output: Some(output.clone()),
        how,
        jobs: Some(jobs),
        shard: None,
    };
    let (summary, _) = made(&ui, &args, &directory, &output)?;
    Ok(Timed { wall_seconds: summary.wall_seconds, points: summary.points, failures: summary.failures })
}

/// Makes all points and their table; what became of them, and rows to print.
fn made(ui: &Ui, args: &Batch, directory: &Path, output: &Path) -> Result<(Summary, Vec<Vec<String>>), Failure> {
    let how = prepare::how(&args.how)?;
    let shard = args.shard.map(shards::resolve).transpose()?;
    let points = Points::read(directory)?;
    let store = Store::open(output)?;
    let _held = store.held(shard)?;
    let batch = prepare::describe(&points, &how);
    store.begin(&batch, shard.is_none())?;
    let mine: Vec<u64> = points.of_shard(shard);
    let jobs = args.jobs.unwrap_or(0);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .build()
        .map_err(|e| Failure::io(format!("cannot start {jobs} workers: {e}")))?;
    let progress = Progress::begin(ui, mine.len() as u64);
    let solver = point::Solver::new(&store, &how);
    let stopped: Mutex<Option<Failure>> = Mutex::new(None);
    let ended = || interrupt::flag().load(Ordering::Relaxed) || stopped.lock().is_ok_and(|stopped| stopped.is_some());
    let make = |order: u64, placement: Option<Digest>| {
        if ended() {
            return;
        }
        match solver.point(&points, order, placement) {
            Ok(Some(done)) => progress.done(&done),
            Ok(None) => {}
            Err(failure) => {
                if let Ok(mut stopped) = stopped.lock() {
                    stopped.get_or_insert(failure);
                }
            }
        }
    };
    // In which order points are made changes no row of theirs.
    pool.install(|| {
        for window in mine.chunks(WINDOW) {
            queue(window, |order| if ended() { None } else { solver.foresee(&points, order) })
                .into_iter()
                .par_bridge()
                .for_each(|(placement, orders)| {
                    let Some((first, others)) = orders.split_first() else { return };
                    make(*first, placement);
                    others.par_iter().for_each(|order| make(*order, placement));
                });
        }
    });
    if let Ok(Some(failure)) = stopped.into_inner() {
        return Err(failure);
    }
    if interrupt::flag().load(Ordering::Relaxed) {
        return Err(Failure::new(
            Code::Limit,
            "the batch was interrupted; finished points are kept, those in progress are lost",
        )
        .remedy("run the same command again: it goes on with the points that are not finished"));
    }
    let place = shard.map_or_else(|| store.results(), |shard| store.shard(shard));
    let mut seen = Seen::default();
    let rows = mine.iter().map(|&order| {
        let kept = solver.kept(&points, order)?;
        seen.take(&kept);
        Ok(kept)
    });
    let results = store::write_parts(&place, &batch, shard, points.paths(), rows, how.part_rows)?;
    let (wall_seconds, resumed) = progress.end();
    let computed = mine.len() as u64 - resumed;
    let summary = Summary {
        schema: "isotherm.batch-summary/v1",
        batch: batch.digest,
        shard: shard.map(|shard| shard.to_string()),
        points: mine.len() as u64,
        resumed,
        failed: seen.failed,
        gap_max: seen.gap_max,
        results,
        folder: place.display().to_string(),
        wall_seconds,
        points_per_second: computed as f64 / wall_seconds.max(1e-9),
        failures: seen.failures,
    };
    Ok((summary, seen.shown))
}

/// What is counted while rows pass.
#[derive(Default)]
struct Seen {
    failed: u64,
    failures: Vec<String>,
    gap_max: Option<f64>,
    count: u64,
    shown: Vec<Vec<String>>,
}

impl Seen {
    fn take(&mut self, kept: &Kept) {
        let row = &kept.row;
        self.count += 1;
        self.gap_max = self.gap_max.into_iter().chain(row.gap).reduce(f64::max);
        if row.status.is_none() {
            self.failed += 1;
            if self.failures.len() < LISTED_MAX {
                let why = row.note.as_deref().unwrap_or("unknown");
                self.failures.push(format!("{}#{}: {why}", row.scenario, row.number));
            }
        }
        if self.count <= SHOWN_MAX {
            self.shown.push(row.cells());
        }
    }
}

fn tell(ui: &Ui, summary: &Summary, shown: &[Vec<String>]) -> Done {
    if ui.format == Format::Json {
        return ui.result(summary, String::new);
    }
    if summary.resumed > 0 {
        ui.note(format!("{} points, {} taken from an earlier run", summary.points, summary.resumed));
    }
    if summary.failed > 0 {
        ui.note("what is wrong with a scenario that failed: isotherm scenario check FILE");
    }
    ui.result(summary, || {
        let mut rows = vec![rows::HEADING.map(str::to_owned).to_vec()];
        rows.extend(shown.iter().cloned());
        let mut text = table(&rows, &[1, 4, 5, 6, 7, 8, 9]);
        if summary.points > SHOWN_MAX {
            text.push_str(&format!("  ... and {} more\n", summary.points - SHOWN_MAX));
        }
        for failure in &summary.failures {
            text.push_str(&format!("\n  failed: {failure}"));
        }
        if summary.failed > summary.failures.len() as u64 {
            text.push_str(&format!("\n  ... and {} more", summary.failed - summary.failures.len() as u64));
        }
        let gap = summary.gap_max.map_or_else(|| "unknown".to_owned(), |gap| format!("{:.3} %", gap * 100.0));
        text.push_str(&format!(
            "\n  {} points, {} failed, largest gap {gap}\n  {}\n  results {}\n",
            summary.points, summary.failed, summary.folder, summary.results
        ));
        text
    })
}

/// A path below a folder as text with `/`, so that names are the same on every system.
fn below(path: &Path, folder: &Path) -> String {
    let parts = path.strip_prefix(folder).unwrap_or(path).components();
    parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect::<Vec<_>>().join("/")
}
