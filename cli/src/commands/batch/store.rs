//! The folder of a batch: rows as they are known, artefacts under their digests, and the finished tables.
//!
//! Whatever ends the program, a file is there whole or not at all: it is written beside its place and renamed. Rows and
//! artefacts are not synchronised one by one; what a power cut took is made again, because a row says what it was made
//! from and an artefact is named by its digest. Finished tables are synchronised, and `_SUCCESS` comes last.

use super::prepare::Description;
use super::rows::{self, KEPT_SCHEMA, Kept, RESULTS_SCHEMA, Row, SOLVE_SCHEMA, Solve};
use super::shards::Which;
use crate::failure::{Code, Failure};
use crate::{files, question};
use isotherm_core::artefact::TOOL_VERSION;
use isotherm_core::digest::Digest;
use isotherm_core::plan::Plan;
use isotherm_core::record::SimulationReport;
use isotherm_core::sweep::Point;
use isotherm_reports::tables::{Format, Values, write_columns};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Schema of the mark of a finished table.
pub const SUCCESS_SCHEMA: &str = "isotherm.batch-success/v1";
/// Name of that mark.
pub const SUCCESS: &str = "_SUCCESS";

/// Name of the file that is locked while a batch is written.
const LOCK: &str = ".lock";

/// What a finished table says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Success {
    pub schema: String,
    pub tool_version: String,
    /// Digest of the batch that it belongs to.
    pub batch: Digest,
    /// Which shard; absent for the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    /// Seed of the first simulated run.
    pub seed: u64,
    pub rows: u64,
    /// Digest of each file of results, by name.
    pub files: BTreeMap<String, Digest>,
    /// Digest over these.
    pub results: Digest,
}

/// The folder of a batch.
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens a folder, which is made where there is none.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder).map_err(|e| Failure::file(folder, e))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Keeps others from writing to the folder until what is returned is dropped or the program ends, however it ends: a
    /// batch run whole keeps everybody out, a shard those who run it whole and the same shard. The system lets go of locks,
    /// so that none outlives its program; where files cannot be locked, nobody is kept out.
    pub fn held(&self, shard: Option<Which>) -> Result<Vec<File>, Failure> {
        let lock = |name: &str, shared: bool| {
            let path = self.folder.join(name);
            let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = open.map_err(|e| Failure::file(&path, e))?;
            match if shared { file.try_lock_shared() } else { file.try_lock() } {
                Ok(()) => Ok(file),
                Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(file),
                Err(TryLockError::Error(e)) => Err(Failure::file(&path, e)),
                Err(TryLockError::WouldBlock) => Err(self.busy(shard)),
            }
        };
        let Some(shard) = shard else { return Ok(vec![lock(LOCK, false)?]) };
        Ok(vec![lock(LOCK, true)?, lock(&format!("{LOCK}-{}-of-{}", shard.index, shard.of), false)?])
    }

    fn busy(&self, shard: Option<Which>) -> Failure {
        let folder = self.folder.display();
        let what = shard.map_or_else(
            || format!("another batch or a shard of one is writing to {folder}"),
            |shard| format!("another batch, or shard {shard} once more, is writing to {folder}"),
        );
        Failure::new(Code::Usage, what).remedy("wait until it ends or stop it, or name another folder with -o")
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the whole table stands.
    pub fn results(&self) -> PathBuf {
        self.folder.join("results")
    }

    /// Where the table of a shard stands.
    pub fn shard(&self, shard: Which) -> PathBuf {
        self.folder.join(format!("shards/of={}/shard={}", shard.of, shard.index))
    }

    /// Describes the batch in its folder. A batch run whole replaces the description, since rows say by themselves what
    /// they were made from; shards of one folder must agree.
    pub fn begin(&self, batch: &Description, whole: bool) -> Result<(), Failure> {
        let path = self.folder.join("batch.json");
        let bytes = files::json(batch)?;
        if !whole && path.exists() && files::read(&path)? != bytes {
            return Err(Failure::new(Code::Usage, format!("{} holds another batch", self.folder.display()))
                .remedy("give all shards the same scenarios, options and version, or name another folder with -o"));
        }
        if path.exists() && files::read(&path)? == bytes { Ok(()) } else { files::write(&path, &bytes) }
    }

    fn row_path(&self, id: &Digest) -> PathBuf {
        let hex = id.hex();
        self.folder.join("rows").join(&hex[..2]).join(format!("{hex}.json"))
    }

    /// The kept row of a point, whatever it was made from.
    pub fn row(&self, id: &Digest) -> Option<Kept> {
        let kept: Kept = serde_json::from_slice(&files::read(&self.row_path(id)).ok()?).ok()?;
        (kept.schema == KEPT_SCHEMA && kept.row.point == id.to_string()).then_some(kept)
    }

    /// The kept row of a point, if it was made from the same and its artefacts are there.
    pub fn kept(&self, id: &Digest, key: &Digest) -> Option<Kept> {
        let kept = self.row(id).filter(|kept| kept.key == *key)?;
        let there = |kind: &str, digest: Option<Digest>, ending: &str| {
            digest.is_none_or(|digest| {
                let path = self.object(kind, &digest, ending);
                std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
            })
        };
        let whole = there("plans", kept.row.plan, "json")
            && there("simulations", kept.row.simulation, "json")
            && (kept.row.plan.is_none() || there("scenarios", kept.row.scenario_text, "toml"));
        whole.then_some(kept)
    }

    /// Keeps a row.
    pub fn keep(&self, id: &Digest, kept: &Kept) -> Result<(), Failure> {
        place(&self.row_path(id), &files::json(kept)?)
    }

    fn object(&self, kind: &str, digest: &Digest, ending: &str) -> PathBuf {
        self.folder.join(kind).join(format!("{}.{ending}", digest.hex()))
    }

    /// Keeps a scenario's text under its digest.
    pub fn scenario(&self, digest: &Digest, text: &str) -> Result<(), Failure> {
        self.put("scenarios", digest, "toml", text.as_bytes())
    }

    /// Keeps a plan under its digest.
    pub fn plan(&self, plan: &Plan) -> Result<(), Failure> {
        self.put("plans", &plan.digest(), "json", &files::json(plan)?)
    }

    /// Keeps a simulation under the digest of its bytes, which is returned.
    pub fn simulation(&self, report: &SimulationReport) -> Result<Digest, Failure> {
        let bytes = files::json(report)?;
        let digest = Digest::of(&bytes);
        self.put("simulations", &digest, "json", &bytes)?;
        Ok(digest)
    }

    fn put(&self, kind: &str, digest: &Digest, ending: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.object(kind, digest, ending);
        if std::fs::metadata(&path).is_ok_and(|file| file.len() == bytes.len() as u64) {
            return Ok(());
        }
        place(&path, bytes)
    }

    /// Keeps the tables that a point refers to by name beside the scenarios, so that these can be planned again there.
    pub fn tables(&self, path: &Path, point: &Result<Point, String>) -> Result<(), Failure> {
        let Ok(point) = point else { return Ok(()) };
        for (folder, name, text) in question::tables_of(path, &point.text) {
            let path = self.folder.join(folder).join(format!("{name}.toml"));
            if let Ok(there) = files::read(&path) {
                if there == text.as_bytes() {
                    continue;
                }
                let what = format!("two tables called {name:?} differ: one is kept in {}", path.display());
                return Err(Failure::io(what).remedy("rename one of them, or empty the folder of results"));
            }
            place(&path, text.as_bytes())?;
        }
        Ok(())
    }
}

/// Writes a file whole or not at all, without waiting for the disk.
fn place(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |e: std::io::Error| {
        let failure = Failure::file(path, format!("was not written: {e}"));
        if e.kind() == std::io::ErrorKind::StorageFull {
            failure.remedy("free some space and run the command again")
        } else {
            failure
        }
    };
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// Writes rows, which come in their order, as files of results and of times, then the mark. Gives the digest over the
/// files of results. At most the rows of one file are in memory.
pub fn write_parts(
    folder: &Path,
    batch: &Description,
    shard: Option<Which>,
    paths: &[String],
    rows: impl Iterator<Item = Result<Kept, Failure>>,
    part_rows: u32,
) -> Result<Digest, Failure> {
    let mut parts = Parts::begin(folder)?;
    let mut pending: Vec<(Row, Solve)> = Vec::new();
    let mut flush = |pending: &mut Vec<(Row, Solve)>| {
        let (results, solve): (Vec<Row>, Vec<(Row, Solve)>) =
            pending.drain(..).map(|(row, solve)| (row.clone(), (row, solve))).unzip();
        parts.write(rows::columns(&results, paths), rows::solve_columns(&solve))
    };
    for kept in rows {
        let kept = kept?;
        pending.push((kept.row, kept.solve));
        if pending.len() == part_rows as usize {
            flush(&mut pending)?;
        }
    }
    if !pending.is_empty() {
        flush(&mut pending)?;
    }
    parts.end(batch, shard)
}

/// A table that is being written, file by file.
pub struct Parts {
    folder: PathBuf,
    files: BTreeMap<String, Digest>,
    rows: u64,
    number: u32,
}

impl Parts {
    /// Begins; the mark of an earlier table goes first, its files as they are replaced.
    pub fn begin(folder: &Path) -> Result<Self, Failure> {
        let mark = folder.join(SUCCESS);
        if mark.exists() {
            std::fs::remove_file(&mark).map_err(|e| Failure::file(&mark, e))?;
        }
        Ok(Self { folder: folder.to_owned(), files: BTreeMap::new(), rows: 0, number: 0 })
    }

    /// Writes the next file of results and that of times.
    pub fn write(&mut self, results: Vec<(String, Values)>, solve: Vec<(String, Values)>) -> Result<(), Failure> {
        let name = format!("part-{:05}.parquet", self.number);
        let (mut bytes, mut times) = (Vec::new(), Vec::new());
        let failed = |e| Failure::file(&self.folder, crate::models::causes(&e));
        self.rows += write_columns(RESULTS_SCHEMA, results, Format::Parquet, &mut bytes).map_err(failed)? as u64;
        write_columns(SOLVE_SCHEMA, solve, Format::Parquet, &mut times).map_err(failed)?;
        files::write(&self.folder.join(&name), &bytes)?;
        files::write(&self.folder.join(name.replace("part-", "solve-")), &times)?;
        self.files.insert(name, Digest::of(&bytes));
        self.number += 1;
        Ok(())
    }

    /// Ends: files of an earlier, longer table go, then the mark is written. Gives the digest over the results.
    pub fn end(self, batch: &Description, shard: Option<Which>) -> Result<Digest, Failure> {
        if self.folder.is_dir() {
            let entries = std::fs::read_dir(&self.folder).map_err(|e| Failure::file(&self.folder, e))?;
            for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
                let name = path.file_name().map(|name| name.to_string_lossy().replace("solve-", "part-"));
                let parquet = path.extension().is_some_and(|extension| extension == "parquet");
                if parquet && name.is_some_and(|name| !self.files.contains_key(&name)) {
                    std::fs::remove_file(&path).map_err(|e| Failure::file(&path, e))?;
                }
            }
        }
        let results = results_digest(&self.files);
        let success = Success {
            schema: SUCCESS_SCHEMA.to_owned(),
            tool_version: TOOL_VERSION.to_owned(),
            batch: batch.digest,
            shard: shard.map(|shard| shard.to_string()),
            seed: 1,
            rows: self.rows,
            files: self.files,
            results,
        };
        files::write_json(&self.folder.join(SUCCESS), &success)?;
        Ok(results)
    }
}

/// The digest over files of results, by name.
pub fn results_digest(files: &BTreeMap<String, Digest>) -> Digest {
    let lines: Vec<String> = files.iter().map(|(name, digest)| format!("{name} {digest}\n")).collect();
    Digest::of(lines.concat().as_bytes())
}

/// The mark of a finished table and its files, each with its bytes checked against the digest in the mark. Errors: it is
/// not finished, or a file was changed.
pub fn parts(folder: &Path) -> Result<(Success, Vec<PathBuf>), Failure> {
    let mark = folder.join(SUCCESS);
    if !mark.is_file() {
        return Err(Failure::file(folder, "holds no finished table: there is no _SUCCESS in it")
            .remedy("run the batch to its end; what is done is kept"));
    }
    let success: Success =
        serde_json::from_slice(&files::read(&mark)?).map_err(|e| Failure::file(&mark, format!("is damaged: {e}")))?;
    if success.schema != SUCCESS_SCHEMA || success.results != results_digest(&success.files) {
        return Err(Failure::new(
            Code::Verification,
            format!("{} is no {SUCCESS_SCHEMA}, or was changed", mark.display()),
        ));
    }
    let mut paths = Vec::new();
    for (name, digest) in &success.files {
        let plain = name.starts_with("part-") && !name.contains(['/', '\\']);
        let path = folder.join(name);
        if !plain || !Digest::of(&files::read(&path)?).eq(digest) {
            let what = format!("{} is not the file that {} names", path.display(), mark.display());
            return Err(Failure::new(Code::Verification, what).remedy("run that shard again"));
        }
        paths.push(path);
    }
    Ok((success, paths))
}
