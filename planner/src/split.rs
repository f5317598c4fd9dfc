//! Whether it pays to split the model over devices, and how quick links would have to be.
//!
//! A plan of routes of one stage each uses no way between devices. Splitting pays where the best plan of all is better
//! than the best of those. The verdict is asked again with the latency of every way changed, or the bandwidth: splits
//! suffer more from slower links than anything else does, so the change at which the verdict turns is found by halving.

use crate::budget::Budget;
use crate::door::plan as solve;
use crate::outcome::PlanError;
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DeviceGraph, DevicesFile};
use isotherm_core::problem::PlacementProblem;
use isotherm_core::units::{BytesPerSecond, Seconds};
use std::collections::BTreeSet;

/// Most devices of a problem that is solved so often.
const DEVICES_MAX: usize = 12;
/// Halvings of the range of a figure, which spans eleven decades.
const HALVINGS: usize = 14;
/// Latencies looked at, in seconds.
const LATENCIES: (f64, f64) = (1e-9, 100.0);
/// Bandwidths looked at, in bytes per second.
const BANDWIDTHS: (f64, f64) = (1e3, 1e14);
/// Share by which a split must be better to pay.
const BETTER: f64 = 1e-6;

/// Where the verdict turns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BreakEven<T> {
    /// At this figure of every way between two devices.
    At(T),
    /// A split pays with any figure looked at.
    Always,
    /// A split pays with none.
    Never,
}

/// Whether to split.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitVerdict {
    /// Whether the best plan passes requests from one device to another.
    pub pays: bool,
    /// The best objective without a split; none where no device holds the model.
    pub whole: Option<f64>,
    /// Latency of every way between two devices below which a split pays, bandwidths as they are.
    pub latency: BreakEven<Seconds>,
    /// Bandwidth of every link above which a split pays, latencies as they are.
    pub bandwidth: BreakEven<BytesPerSecond>,
}

/// The verdict; none for problems of rates, of a fixed number of stages, of many devices, and where the budget ends.
///
/// # Errors
/// The solver failed.
pub(crate) fn verdict(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Option<SplitVerdict>, PlanError> {
    let devices = problem.graph.devices().len();
    let limits = &problem.limits;
    let fixed = limits.stages_exact.is_some() || limits.stages_max == Some(1) || limits.pinned.len() > 1;
    if !problem.knows_times() || fixed || !(2..=DEVICES_MAX).contains(&devices) {
        return Ok(None);
    }
    let Some((pays, whole)) = pays(problem, budget)? else { return Ok(None) };
    let with = |latency: Option<f64>, bandwidth: Option<f64>| changed(problem, latency, bandwidth);
    // The range runs from the quickest links to the slowest.
    let latency = turn(LATENCIES, budget, |at| with(Some(at), None))?;
    let bandwidth = turn((BANDWIDTHS.1, BANDWIDTHS.0), budget, |at| with(None, Some(at)))?;
    let (Some(latency), Some(bandwidth)) = (latency, bandwidth) else { return Ok(None) };
    Ok(Some(SplitVerdict {
        pays,
        whole,
        latency: named(latency, |at| Seconds::new(at).ok()),
        bandwidth: named(bandwidth, |at| BytesPerSecond::new(at).ok()),
    }))
}

fn named<T>(turn: BreakEven<f64>, unit: impl Fn(f64) -> Option<T>) -> BreakEven<T> {
    match turn {
        BreakEven::At(at) => unit(at).map_or(BreakEven::Never, BreakEven::At),
        BreakEven::Always => BreakEven::Always,
        BreakEven::Never => BreakEven::Never,
    }
}

/// Whether a split pays, and the best value without one; none where that is not known.
fn pays(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Option<(bool, Option<f64>)>, PlanError> {
    let mut one = problem.clone();
    one.limits.stages_max = Some(1);
    let value = |problem: &PlacementProblem| -> Result<Option<f64>, PlanError> {
        Ok(solve(problem, budget)?.plan().and_then(|found| found.plan().objective_value))
    };
    if budget.exhausted().is_some() {
        return Ok(None);
    }
    let (all, whole) = (value(problem)?, value(&one)?);
    let better = |all: f64, whole: f64| {
        if problem.objective.maximises() { all > whole * (1.0 + BETTER) } else { all < whole * (1.0 - BETTER) }
    };
    Ok(all.map(|all| (whole.is_none_or(|whole| better(all, whole)), whole)))
}

/// Where the verdict turns between the quickest and the slowest figure; none where the budget ends first.
fn turn(
    (quick, slow): (f64, f64),
    budget: &Budget<'_>,
    problem: impl Fn(f64) -> Option<PlacementProblem>,
) -> Result<Option<BreakEven<f64>>, PlanError> {
    let at = |figure: f64| -> Result<Option<bool>, PlanError> {
        let Some(changed) = problem(figure) else { return Ok(None) };
        Ok(pays(&changed, budget)?.map(|(pays, _)| pays))
    };
    match (at(quick)?, at(slow)?) {
        (Some(false), _) => return Ok(Some(BreakEven::Never)),
        (Some(true), Some(true)) => return Ok(Some(BreakEven::Always)),
        (Some(true), Some(false)) => {}
        _ => return Ok(None),
    }
    let (mut paying, mut failing) = (quick.ln(), slow.ln());
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(paying, failing);
        match at(middle.exp())? {
            Some(true) => paying = middle,
            Some(false) => failing = middle,
            None => return Ok(None),
        }
    }
    Ok(Some(BreakEven::At(paying.exp())))
}

/// The problem with this bandwidth on every link that states one, or this latency on every way: half of it between a device
/// and a junction, where a way has its two ends, and nothing between junctions.
fn changed(problem: &PlacementProblem, latency: Option<f64>, bandwidth: Option<f64>) -> Option<PlacementProblem> {
    let mut file: DevicesFile = problem.graph.file().clone();
    let junctions: BTreeSet<String> = file.junctions.iter().cloned().collect();
    for link in &mut file.links {
        if let (Some(known), Some(at)) = (&mut link.latency_seconds, latency) {
            let ends = [&link.from, &link.to].into_iter().filter(|end| !junctions.contains(*end)).count();
            *known = Figure::declared(Seconds::new(at * ends as f64 / 2.0).ok()?, "what if");
        }
        if let (Some(known), Some(at)) = (&mut link.bandwidth_bytes_per_second, bandwidth) {
            *known = Figure::declared(BytesPerSecond::new(at).ok()?, "what if");
        }
    }
    let mut changed = problem.clone();
    changed.graph = DeviceGraph::new(file).ok()?;
    Some(changed)
}
