//! The CP-SAT peer: a Python script beside the checkout, run as a process of its own.

use super::{Found, instances};
use crate::failure::Failure;
use crate::files;
use isotherm_core::ids::{DeviceId, Layers};
use isotherm_core::objective::{SINK, SOURCE};
use isotherm_core::problem::{Life, PlacementProblem};
use isotherm_core::units::{Seconds, TokensPerSecond};
use isotherm_planner::baselines::placed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// Where the script lies below a checkout.
const SCRIPT: &str = "benches/peers/cpsat_planner.py";

/// The script and a Python that has what it needs.
pub(super) struct Peer {
    python: PathBuf,
    script: PathBuf,
    version: String,
}

/// A problem as the script reads it.
#[derive(Serialize)]
struct Question {
    layers: u32,
    partial: bool,
    rates: Vec<BTreeMap<u32, f64>>,
    source: Vec<Option<f64>>,
    sink: Vec<Option<f64>>,
    pair: Vec<Vec<Option<f64>>>,
}

/// What the script answers.
#[derive(Deserialize)]
struct Answer {
    error: Option<String>,
    status: Option<String>,
    bound: Option<f64>,
    seconds: Option<f64>,
    peak_bytes: Option<u64>,
    #[serde(default)]
    placement: Vec<(usize, u32, u32)>,
}

impl Peer {
    /// Finds script and Python. Errors: what is missing, in words.
    pub fn find() -> Result<Self, String> {
        let folders = instances::folders();
        let script = folders.iter().map(|folder| folder.join(SCRIPT)).find(|path| path.is_file());
        let script = script.ok_or_else(|| format!("{SCRIPT} is not beside this program"))?;
        let venv = folders.iter().map(|folder| folder.join("target/venv/bin/python")).find(|path| path.is_file());
        let python = std::env::var_os("ISOTHERM_PYTHON").map(PathBuf::from).or(venv);
        let python = python.unwrap_or_else(|| PathBuf::from("python3"));
        let asked = Command::new(&python).args(["-c", "import ortools; print(ortools.__version__)"]).output();
        let asked = asked.map_err(|e| format!("{} does not start: {e}", python.display()))?;
        if !asked.status.success() {
            return Err(format!(
                "ortools is not installed for {} (pip install ortools, or set ISOTHERM_PYTHON)",
                python.display()
            ));
        }
        let version = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        Ok(Self { python, script, version })
    }

    /// What it is, in words.
    pub fn described(&self) -> String {
        format!("OR-Tools {}, one worker, its plans replayed and checked here", self.version)
    }

    /// Plans one problem within a time.
    pub fn plan(&self, problem: &PlacementProblem, cap: Seconds) -> Result<Found, Failure> {
        let folder = tempfile::tempdir().map_err(|e| Failure::io(format!("no temporary folder: {e}")))?;
        let path = folder.path().join("problem.json");
        let devices: Vec<DeviceId> = problem.graph.device_ids().filter(|&id| problem.usable(id)).collect();
        files::write_json(&path, &question(problem, &devices))?;
        let output = Command::new(&self.python)
            .arg(&self.script)
            .arg(&path)
            .arg(cap.value().to_string())
            .output()
            .map_err(|e| Failure::file(&self.python, e))?;
        let answer: Option<Answer> = serde_json::from_slice(&output.stdout).ok();
        let Some(answer) = answer.filter(|_| output.status.success()) else {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().last().unwrap_or("nothing").to_owned();
            return Ok(Found::of(None, Some(format!("the script failed: {said}"))));
        };
        if let Some(error) = answer.error {
            return Ok(Found::of(None, Some(error)));
        }
        let named = |&(device, start, end): &(usize, u32, u32)| {
            let id = devices.get(device)?;
            (start < end).then(|| (problem.graph.device(*id).name.clone(), Layers::new(start, end)))
        };
        let placement: Option<Vec<_>> = answer.placement.iter().map(named).collect();
        let plan = match placement {
            Some(placement) => placed(problem, &placement, answer.bound, "CP-SAT (OR-Tools)")
                .map_err(|e| Failure::io(format!("the plan of CP-SAT was not judged: {e}")))?,
            None => None,
        };
        let note = answer.status.map(|status| format!("ended {status}"));
        Ok(Found { plan, bound: answer.bound, note, seconds: answer.seconds, peak_bytes: answer.peak_bytes })
    }
}

/// The problem in plain rates. What several ways share is left out, which only helps the peer's bound to hold.
fn question(problem: &PlacementProblem, devices: &[DeviceId]) -> Question {
    let layers = problem.layers();
    let stated: BTreeMap<(&str, &str), f64> = problem
        .graph
        .file()
        .links
        .iter()
        .rev()
        .filter_map(|l| l.tokens_per_second.map(|rate| ((l.from.as_str(), l.to.as_str()), rate.value())))
        .collect();
    let lives: Vec<Life> = problem.batches().into_iter().map(|batch| problem.life(batch)).collect();
    let name = |id: DeviceId| problem.graph.device(id).name.as_str();
    let rates = |&id: &DeviceId| {
        let memory = problem.memory(id);
        let rate = |k: u32| {
            // The largest rate over positions and batches: who relaxes may not forbid.
            let fits = |held: &Layers| {
                let bytes = problem.stage_bytes(id, *held).total;
                bytes.0 == 0 || memory.is_some_and(|memory| bytes <= memory)
            };
            let places = (0..=layers - k).map(|start| Layers::new(start, start + k)).filter(fits);
            let best = |held: Layers| lives.iter().filter_map(move |life| problem.rate(id, held, life));
            let most = places.flat_map(best).map(TokensPerSecond::value);
            most.fold(None, |most: Option<f64>, rate| Some(most.map_or(rate, |m| m.max(rate))))
        };
        (1..=layers).filter_map(|k| rate(k).map(|rate| (k, rate))).filter(|(_, rate)| *rate > 0.0).collect()
    };
    let source_states = stated.keys().any(|(from, _)| *from == SOURCE);
    let sink_states = stated.keys().any(|(_, to)| *to == SINK);
    let end =
        |states: bool, key: (&str, &str)| if states { Some(stated.get(&key).copied().unwrap_or(0.0)) } else { None };
    let pair = |&from: &DeviceId, &to: &DeviceId| {
        if from == to {
            return Some(0.0);
        }
        let rate = stated.get(&(name(from), name(to))).copied();
        Some(rate.or_else(|| problem.hop_rate(from, to).map(TokensPerSecond::value)).unwrap_or(0.0))
    };
    Question {
        layers,
        partial: problem.limits.partial,
        rates: devices.iter().map(rates).collect(),
        source: devices.iter().map(|&id| end(source_states, (SOURCE, name(id)))).collect(),
        sink: devices.iter().map(|&id| end(sink_states, (name(id), SINK))).collect(),
        pair: devices.iter().map(|from| devices.iter().map(|to| pair(from, to)).collect()).collect(),
    }
}
