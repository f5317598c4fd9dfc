//! `isotherm bench planner`: planners side by side on the same instances, one thread, each under the same cap.

mod cpsat;
pub mod instances;

use crate::args::BenchPlanner;
use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::interrupt;
use crate::ui::{Ui, table};
use crate::usage::Usage;
use isotherm_core::artefact::TOOL_VERSION;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::plan::BoundKind;
use isotherm_core::problem::PlacementProblem;
use isotherm_core::units::Seconds;
use isotherm_planner::Budget;
use isotherm_planner::baselines::{Baseline, baseline};
use serde::Serialize;
use std::time::Instant;

/// Name of this planner in the table.
const OURS: &str = "isotherm";
/// Most devices for planners that have a column for every link.
const LINK_PLANNERS_MAX: usize = 60;

/// One planner on one instance.
#[derive(Debug, Clone, Serialize)]
struct Row {
    instance: String,
    devices: usize,
    planner: String,
    value: Option<f64>,
    bound: Option<f64>,
    bound_kind: Option<BoundKind>,
    gap: Option<f64>,
    wall_seconds: f64,
    /// Absent where the system does not say.
    cpu_seconds: Option<f64>,
    /// Largest memory of the process while it planned, all else it holds included.
    peak_bytes: Option<u64>,
    /// Seconds until its own gap was no larger than that of isotherm; absent where that never was.
    seconds_to_equal_gap: Option<f64>,
    /// Seconds of isotherm over these.
    ours_over_theirs: Option<f64>,
    /// Why there is no plan, or what else is to be said.
    note: Option<String>,
}

#[derive(Serialize)]
struct Record<'a> {
    schema: &'static str,
    tool_version: &'static str,
    machine: String,
    cap_seconds: f64,
    rows: &'a [Row],
    notes: &'a [String],
}

/// What a run gave.
struct Found {
    plan: Option<FeasiblePlan>,
    /// A bound without a plan.
    bound: Option<f64>,
    note: Option<String>,
    /// What a process of its own took, in the place of what this one did.
    seconds: Option<f64>,
    peak_bytes: Option<u64>,
}

impl Found {
    fn of(plan: Option<FeasiblePlan>, note: Option<String>) -> Self {
        Self { plan, bound: None, note, seconds: None, peak_bytes: None }
    }
}

/// Runs the command.
pub fn run(ui: &Ui, args: &BenchPlanner) -> Done {
    if args.cap.value() <= 0.0 || args.seeds == 0 {
        return Err(Failure::new(Code::Usage, "--cap and --seeds must be above zero"));
    }
    let (instances, mut notes) = instances::all(&args.sets, args.seeds)?;
    let peer = cpsat::Peer::find();
    match &peer {
        Ok(peer) => notes.push(format!("CP-SAT: {}", peer.described())),
        Err(why) => notes.push(format!("CP-SAT was NOT run: {why}")),
    }
    notes.iter().for_each(|note| ui.note(note));
    let mut rows = Vec::new();
    for (i, problem) in instances.iter().enumerate() {
        ui.note(format!("{}/{} {}", i + 1, instances.len(), problem.name));
        compare(ui, problem, args.cap, peer.as_ref().ok(), &mut rows)?;
        if interrupt::flag().load(std::sync::atomic::Ordering::Relaxed) {
            notes.push("interrupted: the remaining instances were not run".to_owned());
            break;
        }
    }
    let machine = crate::trust::host_id();
    let cap_seconds = args.cap.value();
    let (schema, tool_version) = ("isotherm.bench-planner/v1", TOOL_VERSION);
    let record = Record { schema, tool_version, machine, cap_seconds, rows: &rows, notes: &notes };
    let text = describe(&rows, &notes, args.cap);
    if let Some(folder) = &args.output {
        files::write_json(&folder.join("planner.json"), &record)?;
        files::write(&folder.join("planner.txt"), text.as_bytes())?;
    }
    ui.result(&record, || text)
}

/// Every planner on one instance, isotherm first.
fn compare(ui: &Ui, problem: &PlacementProblem, cap: Seconds, peer: Option<&cpsat::Peer>, rows: &mut Vec<Row>) -> Done {
    let failed = |who: &str, e: &dyn std::fmt::Display| {
        Failure::new(Code::Limit, format!("{who} failed on {}: {e}", problem.name))
    };
    let ours = timed(ui, problem, OURS, None, || {
        within(cap, |budget| {
            let outcome = isotherm_planner::plan(problem, budget).map_err(|e| failed(OURS, &e))?;
            Ok(Found::of(outcome.plan().cloned(), None))
        })
    })?;
    rows.push(ours.clone());
    let small = problem.graph.devices().len() <= LINK_PLANNERS_MAX;
    let too_large = || {
        let why = format!("not run: a column for every link, more than {LINK_PLANNERS_MAX} devices");
        Found::of(None, Some(why))
    };
    for rule in Baseline::ALL {
        rows.push(timed(ui, problem, rule.name(), Some(&ours), || {
            if rule == Baseline::HelixMilp && !small {
                return Ok(too_large());
            }
            within(cap, |budget| {
                let plan = baseline(problem, rule, budget).map_err(|e| failed(rule.name(), &e))?;
                let planned = rule.plans_for(problem.objective);
                let why = if planned { "gives no plan that holds" } else { "plans for many requests at once" };
                let note = plan.is_none().then(|| why.to_owned());
                Ok(Found::of(plan, note))
            })
        })?);
    }
    if let Some(peer) = peer {
        rows.push(timed(ui, problem, "cp_sat", Some(&ours), || {
            if small { peer.plan(problem, cap) } else { Ok(too_large()) }
        })?);
    }
    Ok(())
}

/// Runs something with a budget that ends after the cap.
pub(super) fn within<T>(cap: Seconds, run: impl FnOnce(&Budget<'_>) -> T) -> T {
    let begin = Instant::now();
    let remaining = || Seconds::of(cap.value() - begin.elapsed().as_secs_f64());
    run(&Budget { remaining: Some(&remaining), interrupt: Some(interrupt::flag()), ..Budget::default() })
}

/// Runs a planner and makes its row.
fn timed(
    ui: &Ui,
    problem: &PlacementProblem,
    planner: &str,
    ours: Option<&Row>,
    run: impl FnOnce() -> Result<Found, Failure>,
) -> Result<Row, Failure> {
    let usage = Usage::begin();
    let found = run()?;
    let spent = usage.end();
    let wall_seconds = found.seconds.unwrap_or(spent.wall_seconds);
    let plan = found.plan.as_ref().map(FeasiblePlan::plan);
    let certificate = plan.and_then(|plan| plan.certificate.as_ref());
    let gap = certificate.and_then(|c| c.gap);
    // A gap that counts as none is as good as any other that does.
    let enough = ours.and_then(|ours| ours.gap).map(|gap| gap.max(isotherm_planner::budget::GAP_NONE));
    let reached = gap.zip(enough).is_some_and(|(gap, enough)| gap <= enough);
    let seconds_to_equal_gap = reached.then_some(wall_seconds);
    let row = Row {
        instance: problem.name.clone(),
        devices: problem.graph.devices().len(),
        planner: planner.to_owned(),
        value: plan.and_then(|plan| plan.objective_value),
        bound: certificate.and_then(|c| c.bound).or(found.bound),
        bound_kind: certificate.map(|c| c.bound_kind),
        gap,
        wall_seconds,
        cpu_seconds: spent.cpu_seconds,
        peak_bytes: found.peak_bytes.or(spent.peak_bytes),
        ours_over_theirs: seconds_to_equal_gap.zip(ours).map(|(theirs, ours)| ours.wall_seconds / theirs),
        seconds_to_equal_gap,
        note: found.note,
    };
    let shown = row.value.map_or_else(|| "no plan".to_owned(), |value| format!("{value:.3} tok/s"));
    ui.note(format!("  {planner}: {shown} in {}", Seconds::of(row.wall_seconds)));
    Ok(row)
}

fn describe(rows: &[Row], notes: &[String], cap: Seconds) -> String {
    let heading = [
        "instance",
        "planner",
        "tok/s",
        "bound",
        "kind",
        "gap",
        "wall",
        "CPU",
        "peak",
        "to equal gap",
        "ours : theirs",
    ];
    let mut cells = vec![heading.map(str::to_owned).to_vec()];
    let dash = || "-".to_owned();
    for row in rows {
        let ours = row.planner == OURS;
        let kind = row.bound_kind.map_or_else(dash, |kind| format!("{kind:?}").to_lowercase());
        let never = || if ours { dash() } else { "never".to_owned() };
        cells.push(vec![
            row.instance.clone(),
            row.planner.clone(),
            row.value.map_or_else(dash, |value| format!("{value:.3}")),
            row.bound.map_or_else(dash, |bound| format!("{bound:.3}")),
            kind,
            row.gap.map_or_else(dash, |gap| format!("{:.4} %", gap * 100.0)),
            Seconds::of(row.wall_seconds).to_string(),
            row.cpu_seconds.map_or_else(dash, |cpu| Seconds::of(cpu).to_string()),
            row.peak_bytes.map_or_else(dash, |peak| isotherm_core::units::Bytes(peak).to_string()),
            row.seconds_to_equal_gap.map_or_else(never, |seconds| Seconds::of(seconds).to_string()),
            row.ours_over_theirs.map_or_else(never, |ratio| format!("1 : {:.3e}", 1.0 / ratio)),
        ]);
    }
    let mut text = table(&cells, &[2, 3, 5, 6, 7, 8, 9, 10]);
    text.push_str(&format!("\n  each planner on one thread, at most {cap} on one instance\n"));
    text.extend(notes.iter().map(|note| format!("  {note}\n")));
    for row in rows {
        if let Some(note) = &row.note {
            text.push_str(&format!("  {} on {}: {note}\n", row.planner, row.instance));
        }
    }
    text
}
