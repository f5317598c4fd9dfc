//! Which points a batch has: every scenario below a folder, every point of its sweep, in one order.

use super::below;
use super::shards::Which;
use crate::failure::Failure;
use crate::files;
use isotherm_core::digest::Digest;
use isotherm_core::sweep::{Point, Sweep};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Folders that hold tables, or what a batch wrote.
const NO_SCENARIOS: [&str; 2] = ["models", "devices"];
/// Files that only a folder of results holds.
const RESULTS: [&str; 3] = ["batch.json", "simulation.json", "run-1.json"];

/// One scenario file.
struct Source {
    path: PathBuf,
    /// Its path below the batch's folder, without its ending.
    name: String,
    /// Its points; where its sweep is wrong, why: it then is one point that fails.
    sweep: Result<Sweep, String>,
    /// Points of the sources before it.
    before: u64,
}

/// All points of a batch.
pub struct Points {
    sources: Vec<Source>,
    count: u64,
    paths: Vec<String>,
    ids: Vec<Digest>,
}

/// One point and what it is called.
pub struct Named<'a> {
    /// The scenario's file.
    pub path: &'a Path,
    /// Its path below the batch's folder, without its ending.
    pub scenario: &'a str,
    /// The point's number in its scenario.
    pub number: u64,
    /// What names it in every table.
    pub id: Digest,
    /// The point; where its sweep is wrong, why.
    pub point: Result<Point, String>,
}

impl Points {
    /// Every point below a folder. Errors: a folder or file cannot be read, or there is no scenario.
    pub fn read(directory: &Path) -> Result<Self, Failure> {
        let mut sources: Vec<Source> = Vec::new();
        let (mut count, mut paths) = (0_u64, BTreeSet::new());
        for path in scenarios(directory)? {
            let sweep = files::read_text(&path).map_err(|failure| failure.message).and_then(|text| {
                Sweep::read(&text).map_err(|faults| {
                    let first = faults.first().map_or_else(|| "no scenario".to_owned(), ToString::to_string);
                    format!("{} faults, the first: {first}", faults.len())
                })
            });
            let points = sweep.as_ref().map_or(1, Sweep::len);
            if let Ok(sweep) = &sweep {
                paths.extend(sweep.paths().map(str::to_owned));
            }
            let name = below(&path.with_extension(""), directory);
            sources.push(Source { path, name, sweep, before: count });
            count += points;
        }
        if sources.is_empty() {
            return Err(Failure::file(directory, "holds no scenario")
                .remedy("name a folder with .toml scenarios; `isotherm scenario new -o FILE` writes one"));
        }
        let mut points = Self { sources, count, paths: paths.into_iter().collect(), ids: Vec::new() };
        points.ids = (0..points.count).map(|order| points.name(order).id).collect();
        Ok(points)
    }

    /// Paths that any scenario varies, in order.
    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// What names the points, in their order.
    pub fn ids(&self) -> &[Digest] {
        &self.ids
    }

    /// The points of a shard, or all, in their order.
    pub fn of_shard(&self, shard: Option<Which>) -> Vec<u64> {
        let mine = |order: &u64| shard.is_none_or(|shard| shard.holds(&self.ids[*order as usize]));
        (0..self.count).filter(mine).collect()
    }

    /// The point of this place in the order, which must be one.
    pub fn name(&self, order: u64) -> Named<'_> {
        let at = self.sources.partition_point(|source| source.before <= order) - 1;
        let source = &self.sources[at];
        let number = order - source.before;
        let point = match &source.sweep {
            Ok(sweep) => sweep.point(number).ok_or_else(|| format!("there is no point {number}")),
            Err(why) => Err(why.clone()),
        };
        let text = point.as_ref().map_or("", |point| point.text.as_str());
        let id = self
            .ids
            .get(order as usize)
            .copied()
            .unwrap_or_else(|| Digest::of(format!("{}\0{number}\0{text}", source.name).as_bytes()));
        Named { path: &source.path, scenario: &source.name, number, id, point }
    }
}

/// Every scenario below a directory, in order of path; tables of models and devices are none, nor are copies beside
/// results.
fn scenarios(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(folder) = open.pop() {
        if RESULTS.iter().any(|name| folder.join(name).is_file()) {
            continue;
        }
        for entry in std::fs::read_dir(&folder).map_err(|e| Failure::file(&folder, e))? {
            let path = entry.map_err(|e| Failure::file(&folder, e))?.path();
            let tables = path.file_name().is_some_and(|name| NO_SCENARIOS.iter().any(|table| name == *table));
            if path.is_dir() && !tables {
                open.push(path);
            } else if path.is_file() && path.extension().is_some_and(|extension| extension == "toml") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
