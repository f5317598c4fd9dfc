//! `isotherm batch merge`: the tables of all shards as the one table that a single process writes, byte for byte.

use super::prepare::{BATCH_SCHEMA, Description, list_digest};
use super::store::{self, Parts, SUCCESS, Store};
use crate::args::BatchMerge;
use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::ui::Ui;
use isotherm_core::artefact::TOOL_VERSION;
use isotherm_core::digest::Digest;
use isotherm_reports::tables::{Values, read_columns};
use serde::Serialize;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Summary {
    schema: &'static str,
    batch: Digest,
    shards: u32,
    points: u64,
    results: Digest,
    folder: String,
}

fn refused(what: impl Into<String>, remedy: &str) -> Failure {
    Failure::new(Code::Verification, what).remedy(remedy)
}

/// Runs the command.
pub fn run(ui: &Ui, args: &BatchMerge) -> Done {
    let store = Store::open(&args.output)?;
    let _held = store.held(None)?;
    let (batch, _) = files::read_artefact::<Description>(&store.folder().join("batch.json"), BATCH_SCHEMA)?;
    if batch.header.tool_version != TOOL_VERSION {
        let what = format!("the batch was made by isotherm {}, and this is {TOOL_VERSION}", batch.header.tool_version);
        return Err(refused(what, "merge with the version that made the shards"));
    }
    let of = division(store.folder(), args.of)?;
    let mut shards = Vec::new();
    for index in 0..of {
        shards.push(Shard::open(&store, &batch, super::shards::Which { index, of })?);
    }
    let (results, ids) = merged(&store, &batch, &mut shards)?;
    if ids.len() as u64 != batch.points || list_digest(ids.iter()) != batch.list {
        // The table must not look finished.
        let _ = std::fs::remove_file(store.results().join(SUCCESS));
        let what = format!("the shards hold {} points that are not the {} of the batch", ids.len(), batch.points);
        return Err(refused(what, "run the shards again with the same scenarios"));
    }
    let folder = store.results().display().to_string();
    let schema = "isotherm.batch-merge/v1";
    let summary = Summary { schema, batch: batch.digest, shards: of, points: batch.points, results, folder };
    ui.result(&summary, || {
        format!("{} points of {of} shards\n  {}\n  results {results}\n", batch.points, summary.folder)
    })
}

/// How many shards there are, from the folders of a batch.
fn division(folder: &Path, asked: Option<u32>) -> Result<u32, Failure> {
    let shards = folder.join("shards");
    let entries = std::fs::read_dir(&shards).map_err(|_| {
        Failure::file(folder, "holds no shards").remedy("run `isotherm batch DIR -o OUT --shard I/N` for each")
    })?;
    let number = |path: PathBuf| path.file_name()?.to_str()?.strip_prefix("of=")?.parse::<u32>().ok();
    let mut found: Vec<u32> = entries.filter_map(|entry| number(entry.ok()?.path())).collect();
    found.sort_unstable();
    match (asked, found.as_slice()) {
        (Some(of), _) if found.contains(&of) => Ok(of),
        (None, [of]) => Ok(*of),
        _ => {
            let listed: Vec<String> = found.iter().map(ToString::to_string).collect();
            let what = format!("{} holds divisions into {} shards", shards.display(), listed.join(" and "));
            Err(Failure::new(Code::Usage, what).remedy("name one of them with --of N"))
        }
    }
}

/// A shard's rows, one file at a time.
struct Shard {
    which: super::shards::Which,
    files: VecDeque<PathBuf>,
    columns: Vec<(String, Values)>,
    times: Vec<(String, Values)>,
    next: usize,
}

fn text(columns: &[(String, Values)], name: &str, row: usize) -> Option<String> {
    match columns.iter().find(|(known, _)| known == name)? {
        (_, Values::Text(words)) => words.get(row).cloned().flatten(),
        _ => None,
    }
}

fn count(columns: &[(String, Values)], name: &str, row: usize) -> Option<u64> {
    match columns.iter().find(|(known, _)| known == name)? {
        (_, Values::Counts(counts)) => counts.get(row).copied().flatten(),
        _ => None,
    }
}

fn rows(columns: &[(String, Values)]) -> usize {
    columns.first().map_or(0, |(_, values)| values.len())
}

impl Shard {
    fn open(store: &Store, batch: &Description, which: super::shards::Which) -> Result<Self, Failure> {
        let folder = store.shard(which);
        if !folder.join(SUCCESS).is_file() {
            return Err(refused(format!("shard {which} is missing or not finished"), "run it, then merge again"));
        }
        let (success, files) = store::parts(&folder)?;
        if success.batch != batch.digest || success.tool_version != batch.header.tool_version {
            let what = format!(
                "shard {which} belongs to another batch: version {}, batch {}; this one is version {}, batch {}",
                success.tool_version, success.batch, batch.header.tool_version, batch.digest
            );
            return Err(refused(what, "run it again with the same scenarios, options and version"));
        }
        if success.shard != Some(which.to_string()) {
            let says = success.shard.unwrap_or_else(|| "no shard".to_owned());
            return Err(refused(format!("the folder of shard {which} holds {says}"), "run that shard again"));
        }
        let mut shard = Self { which, files: files.into(), columns: Vec::new(), times: Vec::new(), next: 0 };
        shard.advance()?;
        Ok(shard)
    }

    /// Reads the next file, where the present one is used up.
    fn advance(&mut self) -> Result<(), Failure> {
        while self.next >= rows(&self.columns) {
            let Some(path) = self.files.pop_front() else { return Ok(()) };
            let read = |path: &Path| {
                let table =
                    read_columns(&files::read(path)?).map_err(|e| Failure::file(path, crate::models::causes(&e)))?;
                Ok::<_, Failure>(table.columns)
            };
            self.columns = read(&path)?;
            let name = path.file_name().map(|name| name.to_string_lossy().replace("part-", "solve-"));
            self.times = read(&path.with_file_name(name.unwrap_or_default()))?;
            if rows(&self.columns) != rows(&self.times) {
                let what = format!("{} and the times beside it differ in length", path.display());
                return Err(refused(what, "run that shard again"));
            }
            self.next = 0;
        }
        Ok(())
    }

    /// Where the next row belongs; none where there is no more.
    fn place(&self) -> Option<(String, u64)> {
        Some((text(&self.columns, "scenario", self.next)?, count(&self.columns, "number", self.next)?))
    }
}

/// Columns with a row more.
fn push(columns: &mut Vec<(String, Values)>, from: &[(String, Values)], row: usize) -> bool {
    if columns.is_empty() {
        let empty = |values: &Values| match values {
            Values::Text(_) => Values::Text(Vec::new()),
            Values::Counts(_) => Values::Counts(Vec::new()),
            Values::Numbers(_) => Values::Numbers(Vec::new()),
        };
        *columns = from.iter().map(|(name, values)| (name.clone(), empty(values))).collect();
    }
    columns.len() == from.len()
        && columns.iter_mut().zip(from).all(|((name, to), (other, from))| {
            name == other
                && match (to, from) {
                    (Values::Text(to), Values::Text(from)) => from.get(row).map(|v| to.push(v.clone())).is_some(),
                    (Values::Counts(to), Values::Counts(from)) => from.get(row).map(|v| to.push(*v)).is_some(),
                    (Values::Numbers(to), Values::Numbers(from)) => from.get(row).map(|v| to.push(*v)).is_some(),
                    _ => false,
                }
        })
}

fn merged(store: &Store, batch: &Description, shards: &mut [Shard]) -> Result<(Digest, Vec<Digest>), Failure> {
    let mut parts = Parts::begin(&store.results())?;
    let (mut columns, mut times, mut ids): (Vec<_>, Vec<_>, Vec<Digest>) = (Vec::new(), Vec::new(), Vec::new());
    let mut last: Option<(String, u64)> = None;
    loop {
        let next = shards.iter().enumerate().filter_map(|(i, shard)| shard.place().map(|place| (place, i))).min();
        let Some((place, i)) = next else { break };
        let shard = &mut shards[i];
        if last.as_ref().is_some_and(|last| *last >= place) {
            let what =
                format!("point {}#{} is there twice, or out of order, in shard {}", place.0, place.1, shard.which);
            return Err(refused(what, "remove that shard's folder and run it again"));
        }
        let id = text(&shard.columns, "point", shard.next).and_then(|id| id.parse::<Digest>().ok());
        let id = id.filter(|id| shard.which.holds(id)).ok_or_else(|| {
            let what = format!("point {}#{} does not belong to shard {}", place.0, place.1, shard.which);
            refused(what, "remove that shard's folder and run it again")
        })?;
        if !push(&mut columns, &shard.columns, shard.next) || !push(&mut times, &shard.times, shard.next) {
            let what = format!("shard {} has other columns than the others", shard.which);
            return Err(refused(what, "run it again with the same scenarios and version"));
        }
        ids.push(id);
        last = Some(place);
        shard.next += 1;
        shard.advance()?;
        if rows(&columns) == batch.how.part_rows as usize {
            parts.write(std::mem::take(&mut columns), std::mem::take(&mut times))?;
        }
    }
    if rows(&columns) > 0 {
        parts.write(columns, times)?;
    }
    Ok((parts.end(batch, None)?, ids))
}
