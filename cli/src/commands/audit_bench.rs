//! `isotherm audit bench`: how many entries a second the log takes, on a disk and without one.

use crate::args::AuditBench;
use crate::failure::{Code, Done, Failure};
use crate::ui::{Ui, table};
use crate::{files, trust};
use isotherm_audit::keys::{Identity, Seed};
use isotherm_audit::log::{Event, EventKind, Log, OnLock};
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A folder in memory, where a synced file costs no disk.
const MEMORY: &str = "/dev/shm";
/// Least entries of a measurement, so that the batches are more than one.
const ENTRIES_MIN: u32 = 100;
/// Runs of each measurement; the median is shown.
const RUNS: usize = 5;

#[derive(Serialize)]
struct Record {
    schema: &'static str,
    entries: u32,
    batch: u32,
    rows: Vec<Row>,
    /// One entry at a time, against the same system calls with bytes of the same lengths and nothing else.
    times_the_bare_calls: f64,
}

#[derive(Serialize)]
struct Row {
    what: &'static str,
    place: PathBuf,
    durable: bool,
    entries_per_second: f64,
    lowest: f64,
    highest: f64,
}

/// Runs the command.
pub fn run(ui: &Ui, args: &AuditBench) -> Done {
    if args.entries < ENTRIES_MIN || args.batch == 0 {
        let why = format!("--entries must be at least {ENTRIES_MIN} and --batch at least 1");
        return Err(Failure::new(Code::Usage, why));
    }
    let disk = match &args.folder {
        Some(folder) => folder.clone(),
        None => files::home()?,
    };
    isotherm_audit::storage::private_folder(&disk).map_err(|e| Failure::file(&disk, e))?;
    let memory = Path::new(MEMORY);
    let mut rows = Vec::new();
    for (place, durable) in [(disk.as_path(), true), (memory, false)] {
        if !place.is_dir() {
            ui.note(format!("{} is not there: no figure without a disk", place.display()));
            continue;
        }
        let mut row = |what, each: u32, together: u32| -> Result<(), Failure> {
            let mut rates = (0..RUNS).map(|_| appended(place, each, together)).collect::<Result<Vec<f64>, _>>()?;
            rates.sort_by(f64::total_cmp);
            let (lowest, highest) = (rates[0], rates[RUNS - 1]);
            let entries_per_second = rates[RUNS / 2];
            rows.push(Row { what, place: place.to_owned(), durable, entries_per_second, lowest, highest });
            Ok(())
        };
        row("in batches", args.entries, args.batch)?;
        row("one by one", args.entries.min(args.singles.max(1)), 1)?;
    }
    let times_the_bare_calls = against_bare_calls(&disk, args.singles.clamp(1, args.entries))?;
    let record = Record {
        schema: "isotherm.audit-bench/v1",
        entries: args.entries,
        batch: args.batch,
        rows,
        times_the_bare_calls,
    };
    ui.result(&record, || text(&record))
}

fn event(identity: &Identity, number: u32) -> Result<Event, Failure> {
    let mut event = Event::new(EventKind::MemoryAllocate, trust::now()?, identity.id());
    event.device = Some("gpu0".to_owned());
    event.operation = Some("memory:allocate".to_owned());
    event.metadata.insert("bytes".to_owned(), i64::from(number).into());
    Ok(event)
}

fn key() -> Result<Identity, Failure> {
    let seed = Seed::draw().map_err(|e| Failure::io(e.to_string()))?;
    Identity::from_seed(&seed).map_err(|e| Failure::io(e.to_string()))
}

/// Entries a second into a new log, so many under each checkpoint.
fn appended(place: &Path, entries: u32, together: u32) -> Result<f64, Failure> {
    let folder = tempfile::tempdir_in(place).map_err(|e| Failure::file(place, e))?;
    let key = key()?;
    let opened = Log::open(folder.path(), "isotherm.local/bench", &key, OnLock::Refuse);
    let (mut log, _) = opened.map_err(|e| trust::log_failure(&e))?;
    let events = (0..entries).map(|number| event(&key, number)).collect::<Result<Vec<_>, _>>()?;
    let begun = Instant::now();
    for batch in events.chunks(together as usize) {
        log.append_all(batch).map_err(|e| trust::log_failure(&e))?;
    }
    Ok(f64::from(entries) / begun.elapsed().as_secs_f64())
}

/// One by one, in turns with the system calls that an append makes, so that a slow moment of the disk strikes both.
fn against_bare_calls(place: &Path, rounds: u32) -> Result<f64, Failure> {
    let folder = tempfile::tempdir_in(place).map_err(|e| Failure::file(place, e))?;
    let key = key()?;
    let opened = Log::open(&folder.path().join("log"), "isotherm.local/bench", &key, OnLock::Refuse);
    let (mut log, _) = opened.map_err(|e| trust::log_failure(&e))?;
    let bare = folder.path().join("bare");
    let failed = |e: std::io::Error| Failure::file(&bare, e);
    for name in ["entries", "tiles"] {
        std::fs::create_dir_all(bare.join(name)).map_err(failed)?;
    }
    let (mut ours, mut theirs) = (0.0, 0.0);
    let mut bundle = 0;
    for number in 0..rounds {
        let event = event(&key, number)?;
        let begun = Instant::now();
        let at = log.append(&event).map_err(|e| trust::log_failure(&e))?;
        ours += begun.elapsed().as_secs_f64();
        if at.is_multiple_of(256) {
            bundle = 0;
        }
        bundle += log.line(at).map_err(|e| trust::log_failure(&e))?.len() + 2;
        let (bundle, tile) = (vec![b'x'; bundle], vec![b'x'; 32 * (at as usize % 256 + 1)]);
        let note = log.note().as_bytes().to_vec();
        let begun = Instant::now();
        calls(&bare, at, &bundle, &tile, &note).map_err(failed)?;
        theirs += begun.elapsed().as_secs_f64();
    }
    Ok(ours / theirs)
}

/// The system calls of one append: bundle, tile, their folders, checkpoint, its folder, and what is over.
fn calls(folder: &Path, number: u64, bundle: &[u8], tile: &[u8], note: &[u8]) -> std::io::Result<()> {
    let write = |path: &Path, bytes: &[u8]| {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_data()
    };
    let sync = |path: &Path| File::open(path)?.sync_all();
    let (bundles, tiles) = (folder.join("entries"), folder.join("tiles"));
    write(&bundles.join(number.to_string()), bundle)?;
    write(&tiles.join(number.to_string()), tile)?;
    sync(&bundles)?;
    sync(&tiles)?;
    let unfinished = folder.join(".unfinished");
    let mut file = File::create(&unfinished)?;
    file.write_all(note)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, folder.join("checkpoint"))?;
    sync(folder)?;
    if number >= 2 {
        for folder in [&bundles, &tiles] {
            std::fs::remove_file(folder.join((number - 2).to_string()))?;
        }
    }
    Ok(())
}

fn text(record: &Record) -> String {
    let mut rows = vec![["entries", "where", "durable", "a second", "lowest", "highest"].map(str::to_owned).to_vec()];
    rows.extend(record.rows.iter().map(|row| {
        let (durable, figure) = (if row.durable { "yes" } else { "no" }, |rate: f64| format!("{rate:.0}"));
        vec![
            row.what.to_owned(),
            row.place.display().to_string(),
            durable.to_owned(),
            figure(row.entries_per_second),
            figure(row.lowest),
            figure(row.highest),
        ]
    }));
    format!(
        "{}\n  batches of {}; medians of {RUNS} runs; one by one takes {:.2} times what the same system calls take alone\n",
        table(&rows, &[3, 4, 5]),
        record.batch,
        record.times_the_bare_calls
    )
}
