//! How long many points of a batch take: a draw of 16 from sweeps over 24 to 60 devices, a new one in each run.

use super::{Found, Values};
use crate::args::BatchHow;
use crate::commands::batch::{Timed, timed};
use crate::failure::Failure;
use crate::interrupt;
use crate::usage::Usage;
use isotherm_core::artefact::TOOL_VERSION;
use isotherm_core::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Scenarios of which each run draws points: racks, rows, sites and volunteers, for every objective in time or rate.
const SCENARIOS: [(&str, &str); 8] = [
    ("first-token", include_str!("../batch/first-token.toml")),
    ("mixed-rack", include_str!("../batch/mixed-rack.toml")),
    ("models", include_str!("../batch/models.toml")),
    ("small-cards", include_str!("../batch/small-cards.toml")),
    ("three-sites", include_str!("../batch/three-sites.toml")),
    ("two-rows", include_str!("../batch/two-rows.toml")),
    ("volunteers", include_str!("../batch/volunteers.toml")),
    ("volunteers-latency", include_str!("../batch/volunteers-latency.toml")),
];

/// Points that the target speaks of.
const POINTS: f64 = 1000.0;
/// Workers that it speaks of.
const JOBS: usize = 2;
/// Requests simulated at each point.
const REQUESTS: u32 = 1000;
/// Most branch-and-bound nodes of one search: the default of `isotherm batch`.
const NODES: u64 = 20_000;

/// What the draws are made from, so that a figure can say whether it is of the same.
pub fn texts() -> String {
    let texts: Vec<&str> = SCENARIOS.iter().flat_map(|(name, text)| [*name, *text]).collect();
    format!("{POINTS} {JOBS} {REQUESTS} {NODES} {}\n{}", super::GAP, texts.join("\n"))
}

/// What one draw took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Drawn {
    wall_seconds: f64,
    cpu_seconds: Option<f64>,
    points: u64,
}

/// Draws that were made. Both rows of batches look at those with two workers, and a measurement that was stopped goes on
/// after the last one.
#[derive(Debug, Default)]
pub struct Draws {
    /// Where they are kept; nowhere without a folder.
    file: Option<PathBuf>,
    known: BTreeMap<String, Drawn>,
}

impl Draws {
    /// Those of a folder, or none of them where they are to be made anew. Errors: the file is damaged.
    pub fn open(folder: Option<&Path>, keep: bool) -> Result<Self, Failure> {
        let file = folder.map(|folder| folder.join("draws.json"));
        let known = match file.as_ref().filter(|file| keep && file.is_file()) {
            None => BTreeMap::new(),
            Some(file) => serde_json::from_slice(&crate::files::read(file)?).map_err(|e| {
                Failure::file(file, format!("is damaged: {e}"))
                    .remedy("move it away, and its draws are made again, or name another folder with -o")
            })?,
        };
        Ok(Self { file, known })
    }

    /// One draw with so many workers. Errors: a point had no answer, or the user asked to stop.
    fn draw(&mut self, folder: &Path, draw: u32, jobs: usize) -> Result<Drawn, String> {
        // The same points on the same machine, whatever the build of this version.
        let basis = format!("{}\n{TOOL_VERSION}\n{}\n{draw} {jobs}", texts(), crate::trust::host_id());
        let key = Digest::of(basis.as_bytes()).to_string();
        if let Some(known) = self.known.get(&key) {
            return Ok(*known);
        }
        let usage = Usage::begin();
        let found = drawn(folder, draw, jobs)?;
        if interrupt::flag().load(Ordering::Relaxed) {
            return Err("interrupted".to_owned());
        }
        let (wall_seconds, points) = (found.wall_seconds, found.points.max(1));
        let made = Drawn { wall_seconds, cpu_seconds: usage.end().cpu_seconds, points };
        self.known.insert(key, made);
        if let Some(file) = &self.file {
            crate::files::write_json(file, &self.known).map_err(|failure| failure.message)?;
        }
        Ok(made)
    }
}

/// One draw with so many workers. Errors: a point had no answer.
fn drawn(folder: &Path, draw: u32, jobs: usize) -> Result<Timed, String> {
    let (from, to) = (folder.join(format!("draw-{draw}")), folder.join(format!("results-{draw}-{jobs}")));
    for (name, text) in SCENARIOS {
        let text = text.replace("seed = 1", &format!("seed = {draw}"));
        crate::files::write(&from.join(format!("{name}.toml")), text.as_bytes()).map_err(|failure| failure.message)?;
    }
    let how = BatchHow { seeds: 1, requests: Some(REQUESTS), gap: super::GAP, nodes: NODES, part_rows: 4096 };
    let found = timed(&from, &to, how, jobs).map_err(|failure| failure.message)?;
    found.failures.first().map_or(Ok(()), |why| Err(format!("a point has no answer: {why}")))?;
    Ok(found)
}

fn cores() -> Result<(), String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores < JOBS { Err(format!("needs {JOBS} cores, and there are {cores}")) } else { Ok(()) }
}

/// Seconds for a thousand such points with two workers; beside them the processor's seconds over the workers.
pub(super) fn thousand(runs: u32, draws: &mut Draws) -> Result<Found, String> {
    cores()?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (mut values, mut shared) = (Vec::new(), Vec::new());
    for draw in 1..=runs {
        let found = draws.draw(folder.path(), draw, JOBS)?;
        let scale = POINTS / found.points as f64;
        shared.extend(found.cpu_seconds.map(|seconds| seconds * scale / JOBS as f64));
        values.push(found.wall_seconds * scale);
    }
    Ok(Found { values, beside: super::super::mean(&shared) })
}

/// How many times faster two workers are than one, on the same draw.
pub(super) fn faster(runs: u32, draws: &mut Draws) -> Values {
    cores()?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut ratio = |draw: u32| {
        let alone = draws.draw(folder.path(), draw, 1)?.wall_seconds;
        Ok(alone / draws.draw(folder.path(), draw, JOBS)?.wall_seconds)
    };
    (1..=runs).map(&mut ratio).collect()
}
