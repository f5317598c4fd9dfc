//! How much a prediction hangs on each figure that it was made from.
//!
//! One figure at a time is moved down and up by the spread that its measurement states, or by a tenth where it states
//! none, and the plan is simulated again with the same seeds, so that both meet the same arrivals, lengths and luck.
//! What is left is the figure's own influence.

use crate::{Asked, Options, SimulateError, replications};
use isotherm_core::check::FeasiblePlan;
use isotherm_core::cost::{Curve, Grid, OperatorProfile};
use isotherm_core::figure::Figure;
use isotherm_core::graph::{CoRun, DeviceGraph, DevicesFile};
use isotherm_core::problem::{Objective, PlacementProblem, ProblemParts};
use isotherm_core::record::{Influence, Sensitivity};
use isotherm_core::units::{BytesPerSecond, KelvinPerWatt, Seconds, Watts};
use rayon::prelude::*;
use std::collections::BTreeSet;

/// Share by which a figure is moved that states no spread.
pub const ASSUMED: f64 = 0.1;

/// Largest share by which a figure is moved: beyond it a difference says nothing about the figure as it is.
const MOST: f64 = 0.4;

/// A figure to move.
#[derive(Debug, Clone)]
struct Input {
    name: String,
    share: f64,
    stated: bool,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// Times of the steps of a device.
    Steps(usize),
    Bandwidth(usize),
    Latency(usize),
    Shared(usize),
    BusyPower(usize),
    Resistance(usize),
}

/// Moves every figure that the prediction may depend on, the most influential first. The value is what the problem's
/// objective asks for: output tokens per second, or the mean time per output token or to the first.
///
/// Errors: see [`SimulateError`].
pub fn sensitivity(
    plan: &FeasiblePlan,
    problem: &PlacementProblem,
    asked: Asked<'_>,
    options: &Options,
) -> Result<Sensitivity, SimulateError> {
    let options = Options { trace: false, attribution: false, ..*options };
    let metric = match problem.objective {
        Objective::Tpot => "tpot_seconds",
        Objective::Ttft => "ttft_seconds",
        _ => "tokens_per_second",
    };
    let value = |problem: &PlacementProblem| -> Result<Option<f64>, SimulateError> {
        let report = replications(plan, None, problem, asked, &options)?;
        Ok(report.metrics.get(metric).map(|statistic| statistic.mean))
    };
    // Where nothing is answered there is nothing to compare with.
    let Some(base) = value(problem)?.filter(|&base| base > 0.0) else {
        return Ok(Sensitivity { metric: metric.to_owned(), value: None, influences: Vec::new() });
    };
    let inputs = inputs(plan, problem);
    let moved: Vec<Option<Influence>> = inputs
        .par_iter()
        .map(|input| {
            let with = |factor: f64| moved(problem, input.what, factor).map(|problem| value(&problem)).transpose();
            let (Some(Some(low)), Some(Some(high))) = (with(1.0 - input.share)?, with(1.0 + input.share)?) else {
                return Ok(None);
            };
            Ok(Some(Influence { input: input.name.clone(), share: input.share, stated: input.stated, low, high }))
        })
        .collect::<Result<_, SimulateError>>()?;
    let mut influences: Vec<Influence> = moved.into_iter().flatten().collect();
    influences.sort_by(|a, b| b.reach(base).total_cmp(&a.reach(base)).then_with(|| a.input.cmp(&b.input)));
    Ok(Sensitivity { metric: metric.to_owned(), value: Some(base), influences })
}

/// The figures that the plan's devices, and the ways between them, have.
fn inputs(plan: &FeasiblePlan, problem: &PlacementProblem) -> Vec<Input> {
    let file = problem.graph.file();
    let used: Vec<&String> = plan.plan().stages.iter().flat_map(|stage| &stage.devices).collect();
    let mut inputs = Vec::new();
    let mut add = |name: String, spread: Option<f64>, what: What| {
        let stated = spread.filter(|&spread| spread > 0.0);
        let share = stated.unwrap_or(ASSUMED).min(MOST);
        inputs.push(Input { name, share, stated: stated.is_some(), what });
    };
    for (position, device) in file.devices.iter().enumerate().filter(|(_, device)| used.contains(&&device.name)) {
        let id = problem.graph.find(&device.name).and_then(|id| problem.profile(id));
        add(format!("step times of {}", device.name), id.and_then(|profile| profile.spread), What::Steps(position));
        if let (Some(busy), true) = (&device.busy_watts, device.thermal.is_some()) {
            add(format!("busy power of {}", device.name), busy.spread, What::BusyPower(position));
        }
        if let Some(thermal) = &device.thermal {
            let resistance = &thermal.resistance_kelvin_per_watt;
            add(format!("thermal resistance of {}", device.name), resistance.spread, What::Resistance(position));
        }
    }
    let links = ways(plan, problem);
    for &position in &links {
        let link = &file.links[position];
        let between = format!("{} -> {}", link.from, link.to);
        if let Some(bandwidth) = &link.bandwidth_bytes_per_second {
            add(format!("bandwidth of {between}"), bandwidth.spread, What::Bandwidth(position));
        }
        if let Some(latency) = link.latency_seconds.as_ref().filter(|latency| latency.value > Seconds::ZERO) {
            add(format!("latency of {between}"), latency.spread, What::Latency(position));
        }
    }
    let in_use = |name: &String| links.iter().any(|&link| file.links[link].groups.contains(name));
    for (position, group) in file.groups.iter().enumerate().filter(|(_, group)| in_use(&group.name)) {
        let bandwidth = &group.bandwidth_bytes_per_second;
        add(format!("bandwidth of {}", group.name), bandwidth.spread, What::Shared(position));
    }
    inputs
}

/// Links on the ways of the plan's routes, in their order.
fn ways(plan: &FeasiblePlan, problem: &PlacementProblem) -> Vec<usize> {
    let (graph, row) = (&problem.graph, problem.model.boundary_bytes_per_token());
    let coordinator = graph.file().coordinator.as_deref();
    let mut links = Vec::new();
    for route in &plan.plan().routes {
        let stages = route.stages.iter().filter_map(|stop| plan.plan().stages.get(stop.stage as usize));
        let inner: Vec<&str> = stages.filter_map(|stage| stage.devices.first().map(String::as_str)).collect();
        let mut places: Vec<&str> = coordinator.into_iter().chain(inner).collect();
        places.extend(coordinator);
        for pair in places.windows(2) {
            links.extend(graph.path(pair[0], pair[1], row).into_iter().flat_map(|path| path.links));
        }
    }
    links.sort_unstable();
    links.dedup();
    links.into_iter().map(isotherm_core::ids::LinkId::index).collect()
}

/// Most tokens of a step that weights are read for rather than computed with: what slows decoding slows it.
pub const READ: u32 = 8;

/// The problem on devices whose steps take so many times as long as measured, as where somebody else uses their memory
/// or cores too: those that decode, and those that take in prompts. None where that makes no problem, where times of
/// whole iterations are all that is known, or where those of experts stand apart.
#[must_use]
pub fn slowed(problem: &PlacementProblem, decodes: f64, prompts: f64) -> Option<PlacementProblem> {
    let slow = |profile: &mut OperatorProfile| -> Option<()> {
        if profile.iterations.is_some() || profile.experts.is_some() {
            return None;
        }
        let of = |tokens: u32| if tokens <= READ { decodes } else { prompts };
        let curve = |curve: &Curve, of: &dyn Fn(u32) -> f64| {
            // A table without a knot between the two would blend them.
            let mut knots: BTreeSet<u32> = curve.knots().iter().map(|&(at, _)| at).collect();
            knots.extend([1, READ, READ + 1]);
            Curve::new(knots.into_iter().map(|at| (at, curve.at(f64::from(at)) * of(at))).collect()).ok()
        };
        let grid = |grid: &Grid, by: f64| {
            let seconds = grid.seconds().iter().map(|&time| time * by).collect();
            Grid::new(grid.rows().to_vec(), grid.columns().to_vec(), seconds).ok()
        };
        profile.step_seconds = Seconds::new(profile.step_seconds.value() * decodes).ok()?;
        profile.dense_seconds = curve(&profile.dense_seconds, &of)?;
        profile.head_seconds = curve(&profile.head_seconds, &|_| decodes)?;
        profile.attention_decode_seconds = grid(&profile.attention_decode_seconds, decodes)?;
        profile.attention_prefill_seconds = grid(&profile.attention_prefill_seconds, prompts)?;
        Some(())
    };
    with(problem, |file| file.devices.iter_mut().flat_map(|device| &mut device.profiles).try_for_each(slow))
}

/// The problem with one figure multiplied by a factor; none where that makes no problem.
fn moved(problem: &PlacementProblem, what: What, factor: f64) -> Option<PlacementProblem> {
    with(problem, |file| apply(file, what, factor))
}

/// The problem with its devices changed; none where that makes no problem.
fn with(problem: &PlacementProblem, change: impl FnOnce(&mut DevicesFile) -> Option<()>) -> Option<PlacementProblem> {
    let mut file = problem.graph.file().clone();
    change(&mut file)?;
    let parts = ProblemParts {
        name: problem.name.clone(),
        model: problem.model.clone(),
        graph: DeviceGraph::new(file).ok()?,
        workload: problem.workload.clone(),
        serving: problem.serving,
        objective: problem.objective,
        limits: problem.limits.clone(),
        ambient: problem.ambient,
        inputs: problem.inputs.clone(),
    };
    let mut moved = PlacementProblem::new(parts).ok()?;
    moved.conditions = problem.conditions.clone();
    Some(moved)
}

fn apply(file: &mut DevicesFile, what: What, factor: f64) -> Option<()> {
    match what {
        // A set of one device that is always slower by the factor: every step takes so much longer, whatever the table.
        What::Steps(device) => file.co_run.push(CoRun {
            name: format!("moved {device}"),
            devices: vec![file.devices[device].name.clone()],
            slowdown: vec![Figure::declared(factor, "moved")],
            ..CoRun::default()
        }),
        What::Bandwidth(link) => {
            let figure = file.links[link].bandwidth_bytes_per_second.as_mut()?;
            figure.value = BytesPerSecond::of(figure.value.value() * factor);
        }
        What::Latency(link) => {
            let figure = file.links[link].latency_seconds.as_mut()?;
            figure.value = Seconds::of(figure.value.value() * factor);
        }
        What::Shared(group) => {
            let figure = &mut file.groups[group].bandwidth_bytes_per_second;
            figure.value = BytesPerSecond::of(figure.value.value() * factor);
        }
        What::BusyPower(device) => {
            let device = &mut file.devices[device];
            let idle = device.idle_watts.as_ref().map_or(0.0, |figure| figure.value.value());
            let figure = device.busy_watts.as_mut()?;
            let (from, to) = (figure.value.value(), figure.value.value() * factor);
            figure.value = Watts::of(to);
            // Its other points draw as much more above idle.
            for point in &mut device.power_points {
                let above = (point.watts.value.value() - idle) * (to - idle) / (from - idle);
                point.watts.value = Watts::new(idle + above).ok()?;
            }
        }
        What::Resistance(device) => {
            let figure = &mut file.devices[device].thermal.as_mut()?.resistance_kelvin_per_watt;
            figure.value = KelvinPerWatt::of(figure.value.value() * factor);
        }
    }
    Some(())
}
