//! `isotherm plan` and `isotherm check`.

mod change;
mod long_run;
mod pareto;
pub mod promises;
mod robust;
mod survive;
pub mod trials;

use crate::args::{Check as CheckArgs, Plan as PlanArgs, PlanAndScenario};
use crate::failure::{Code, Done, Failure};
use crate::question::{self, Question};
use crate::ui::{Ui, table};
use crate::{files, interrupt, trust};
use isotherm_audit::log::{EventKind, Severity};
use isotherm_core::check::{FeasiblePlan, ProblemRecord};
use isotherm_core::objective::evaluate;
use isotherm_core::offload::Store;
use isotherm_core::plan::{BoundKind, PLAN_SCHEMA, Plan, Provenance, Stage, Status};
use isotherm_core::problem::{Division, Objective, PlacementProblem};
use isotherm_core::spending::spent;
use isotherm_core::units::Seconds;
use isotherm_planner::baselines::Baseline;
use isotherm_planner::{Budget, Limit, Outcome};
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Runs `isotherm plan`.
pub fn run(ui: &Ui, args: &PlanArgs) -> Done {
    if !(args.gap.is_finite() && args.gap >= 0.0) {
        return Err(Failure::new(Code::Usage, format!("--gap is {}; give a share of 0 or more, like 0.01", args.gap)));
    }
    let objectives: Vec<Objective> = args.objective.iter().copied().map(Objective::from).collect();
    let mut question = question::load(ui, &args.scenario, &args.sources, objectives.last().copied())?;
    let goals = args.goals.asked().map_err(|what| Failure::new(Code::Usage, what))?;
    question.problem.limits.goals.extend(goals);
    question.problem.limits.cold |= args.cold;
    if let Some(when) = args.disaggregate {
        let limits = &mut question.problem.limits;
        if !limits.prefill.is_empty() {
            let what = "--disaggregate, and a scenario whose disaggregation.prefill divides the devices already";
            return Err(Failure::new(Code::Usage, what).remedy("leave out one of them"));
        }
        limits.division = when.into();
    }
    if let Some(algorithm) = args.algorithm {
        if question.problem.limits.division == Division::Always {
            let what = "--algorithm, and plans that are all divided (--disaggregate always, or disaggregation in the \
                        scenario): other planners divide none";
            return Err(
                Failure::new(Code::Usage, what).remedy("leave out --algorithm, or plan with --disaggregate auto")
            );
        }
        return other(ui, args, &question.problem, algorithm.into());
    }
    let asked = promises::asked(&args.promises)?;
    let problem = &question.problem;
    let several = args.trials > 0 || args.running.from.is_some() || args.guarded.robust.is_some() || !asked.is_empty();
    if args.nodes.is_some() && (several || !args.frontier.pareto.is_empty()) {
        let what = "--nodes together with --trials, --from, --robust, --pareto, or times to keep in simulation";
        return Err(Failure::new(Code::Usage, what).remedy("give --time-limit instead"));
    }
    let stop = args.nodes.map_or(Stop::Time(args.time_limit), Stop::Nodes);
    if !args.frontier.pareto.is_empty() {
        return pareto::show(ui, problem, args);
    }
    let otherwise = args.running.from.is_some() || args.guarded.robust.is_some() || !asked.is_empty();
    if args.trials > 0 && (otherwise || objectives.len() > 1) {
        let what = "--trials together with --from, --robust, several objectives, or times to keep in simulation";
        return Err(Failure::new(Code::Usage, what).remedy("leave one of them out"));
    }
    let (outcome, plan) = match (&args.running.from, args.guarded.robust) {
        (Some(path), _) => change::replace(ui, problem, path, &args.running, args.time_limit)?,
        (None, Some(guard)) => {
            if objectives.len() > 1 || !asked.is_empty() {
                let what = "--robust together with several objectives, or with times to keep in simulation";
                return Err(Failure::new(Code::Usage, what).remedy("give one objective, and goals for the others"));
            }
            robust::guard(ui, problem, guard, &args.guarded, args.time_limit)?
        }
        (None, None) if objectives.len() > 1 => {
            if !asked.is_empty() {
                let what = "several objectives in turn, and times to keep in simulation";
                return Err(Failure::new(Code::Usage, what).remedy("give one objective, and goals for the others"));
            }
            within(ui, problem, stop, args.gap, |budget| {
                isotherm_planner::goals::in_turn(problem, &objectives, args.goals.give, budget)
            })?
        }
        (None, None) if asked.is_empty() && args.trials > 0 => {
            trials::take(ui, problem, args.trials, args.time_limit, args.gap)?
        }
        (None, None) if asked.is_empty() => {
            within(ui, problem, stop, args.gap, |budget| isotherm_planner::plan(problem, budget))?
        }
        (None, None) => promises::keep(ui, problem, &asked, &args.promises, args.time_limit)?,
    };
    if let Some(path) = &args.output {
        files::write_json(path, &plan)?;
    }
    ui.result(&plan, || describe(&plan, &question.problem))?;
    match outcome {
        Outcome::Optimal(_) | Outcome::Feasible { .. } => {
            survive::prepare(ui, problem, &plan, &args.losses, args.time_limit)
        }
        Outcome::Infeasible(_) => Err(Failure::new(
            Code::Infeasible,
            format!("{} has no plan:\n  {}", question.problem.name, plan.reasons.join("\n  ")),
        )),
        Outcome::Unknown { stopped_by: Limit::Sides } => {
            let what = "the plans found for prompts and for answers do not go together: they overdraw a memory that devices \
                        share, or the cache does not get across; whether others do is not known";
            let remedy = "say who prefills (disaggregation.prefill), give the sides memories of their own, or plan with \
                          --disaggregate never";
            Err(Failure::new(Code::Limit, what).remedy(remedy))
        }
        Outcome::Unknown { stopped_by: stopped_by @ Limit::Searches } => {
            let remedy =
                "raise --time-limit, loosen a goal or a limit, or ask for one figure alone to see what can be had";
            Err(Failure::new(Code::Limit, stopped_by.before("any plan")).remedy(remedy))
        }
        Outcome::Unknown { stopped_by } => {
            let remedy = if args.nodes.is_some() { "raise --nodes" } else { "raise --time-limit" };
            Err(Failure::new(Code::Limit, format!("{stopped_by} came before any plan")).remedy(remedy))
        }
    }
}

/// Plans as another planner does.
fn other(ui: &Ui, args: &PlanArgs, problem: &PlacementProblem, rule: Baseline) -> Done {
    if !rule.plans_for(problem.objective) {
        let (name, objective) = (rule.name(), problem.objective.name());
        let what = format!("{name} plans for many requests at once; the objective of {} is {objective}", problem.name);
        return Err(Failure::new(Code::Usage, what).remedy("ask for throughput, or plan without --algorithm"));
    }
    let begin = Instant::now();
    let remaining = || Seconds::of(args.time_limit.value() - begin.elapsed().as_secs_f64());
    let budget = Budget { remaining: Some(&remaining), interrupt: Some(interrupt::flag()), ..Budget::default() };
    let found = isotherm_planner::baselines::baseline(problem, rule, &budget)
        .map_err(|e| Failure::new(Code::Limit, format!("failed to plan {} by {}: {e}", problem.name, rule.name())))?;
    let Some(feasible) = found else {
        let what = format!("{} gives no plan of {} that holds", rule.name(), problem.name);
        return Err(Failure::new(Code::Infeasible, what).remedy("plan without --algorithm"));
    };
    let mut plan = feasible.plan().clone();
    plan.provenance.solve_seconds = Some(begin.elapsed().as_secs_f64());
    plan.provenance.machine = Some(trust::host_id());
    if let Some(path) = &args.output {
        files::write_json(path, &plan)?;
    }
    ui.result(&plan, || describe(&plan, problem))
}

/// Solves a problem within a time, and gives the answer and its artefact.
pub fn solve(ui: &Ui, problem: &PlacementProblem, limit: Seconds, gap: f64) -> Result<(Outcome, Plan), Failure> {
    within(ui, problem, Stop::Time(limit), gap, |budget| isotherm_planner::plan(problem, budget))
}

/// What ends a search that has not ended by itself.
#[derive(Debug, Clone, Copy)]
enum Stop {
    /// A clock.
    Time(Seconds),
    /// The work of so many nodes, wherever and whenever it is done.
    Nodes(u64),
}

/// Runs a planner until it is stopped, telling how far it is.
fn within(
    ui: &Ui,
    problem: &PlacementProblem,
    stop: Stop,
    gap: f64,
    run: impl FnOnce(&Budget<'_>) -> Result<Outcome, isotherm_planner::PlanError>,
) -> Result<(Outcome, Plan), Failure> {
    let begin = Instant::now();
    let limit = match stop {
        Stop::Time(limit) => limit.value(),
        Stop::Nodes(_) => f64::INFINITY,
    };
    let remaining = || Seconds::of(limit - begin.elapsed().as_secs_f64());
    let told = |progress: isotherm_planner::Progress| {
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.6}"));
        let gap = progress.gap.map_or_else(|| "-".to_owned(), |gap| format!("{:.4} %", gap * 100.0));
        ui.note(format!("  best {}  bound {}  gap {gap}", shown(progress.incumbent), shown(progress.bound)));
    };
    let clocked = AtomicBool::new(false);
    let budget = Budget {
        gap_target: gap,
        interrupt: Some(interrupt::flag()),
        progress: Some(&told),
        clocked: Some(&clocked),
        ..match stop {
            Stop::Time(_) => Budget { remaining: Some(&remaining), ..Budget::default() },
            Stop::Nodes(nodes_max) => Budget { nodes_max, ..Budget::default() },
        }
    };
    let outcome =
        run(&budget).map_err(|e| Failure::new(Code::Limit, format!("failed to plan {}: {e}", problem.name)))?;
    let mut plan = outcome.artefact(problem);
    plan.provenance = Provenance {
        solve_seconds: Some(begin.elapsed().as_secs_f64()),
        machine: Some(trust::host_id()),
        time_limited: plan.provenance.time_limited || clocked.into_inner(),
        ..plan.provenance
    };
    Ok((outcome, plan))
}

/// Runs `isotherm check`.
pub fn check(ui: &Ui, args: &CheckArgs) -> Done {
    let CheckArgs { question: args, problem } = args;
    let (plan, question) = load_plan(ui, args)?;
    if let Some(path) = problem {
        files::write_json(path, &ProblemRecord::of(&question.problem))?;
    }
    let violations: Vec<String> = plan.violations(&question.problem).iter().map(ToString::to_string).collect();
    judged(&plan, violations.first().map(String::as_str))?;
    let kind = plan.certificate.as_ref().map_or(BoundKind::None, |c| c.bound_kind);
    let verdict = Verdict { holds: violations.is_empty(), status: plan.status, bound_kind: kind, violations };
    ui.result(&verdict, || match (verdict.holds, plan.status.has_plan()) {
        (true, true) => format!("the plan holds: {}\n", certificate_words(&plan)),
        (true, false) => {
            let status = format!("{:?}", plan.status).to_lowercase();
            format!(
                "there is no plan to check: its status is {status}, on the word of who made it; nothing proves that\n"
            )
        }
        (false, _) => String::new(),
    })?;
    if verdict.holds {
        Ok(())
    } else {
        let what = format!("{} against {}", args.plan.display(), args.scenario.display());
        Err(Failure::all(Code::Verification, what, &verdict.violations))
    }
}

/// Writes down what the checker said of a plan, where this host has a log.
pub fn judged(plan: &Plan, fault: Option<&str>) -> Result<(), Failure> {
    // Without a home there is no log of this host.
    if files::home().is_err() {
        return Ok(());
    }
    let Some(identity) = super::audit::identity_if_any()? else { return Ok(()) };
    let note = trust::Note::default().about("plan", plan.digest());
    let (kind, severity, note) = match fault {
        None => (EventKind::PlanAccepted, Severity::Info, note),
        Some(fault) => (EventKind::PlanRejected, Severity::Warning, note.with("reason", fault)),
    };
    trust::record_or_warn(&identity, kind, severity, note);
    Ok(())
}

/// A stored plan and the question it answers, under the objective the plan names.
pub fn load_plan(ui: &Ui, args: &PlanAndScenario) -> Result<(Plan, Question), Failure> {
    let (plan, _) = files::read_artefact::<Plan>(&args.plan, PLAN_SCHEMA)?;
    let question = question::load(ui, &args.scenario, &args.sources, objective_of(&plan, &args.plan)?)?;
    Ok((plan, question))
}

/// A stored plan that holds for its question.
pub fn load_feasible(ui: &Ui, args: &PlanAndScenario) -> Result<(FeasiblePlan, Question), Failure> {
    let (plan, question) = load_plan(ui, args)?;
    if matches!(plan.status, Status::Infeasible | Status::Unknown) {
        return Err(Failure::new(Code::Infeasible, format!("{} holds no plan", args.plan.display()))
            .remedy("see its reasons, or run `isotherm explain`"));
    }
    let feasible = plan.check(&question.problem).map_err(|violations| {
        Failure::all(Code::Verification, format!("{} against its scenario", args.plan.display()), &violations)
            .remedy("plan again, with the same --devices and --model")
    })?;
    Ok((feasible, question))
}

/// The objective that a plan names.
pub fn objective_of(plan: &Plan, path: &Path) -> Result<Option<Objective>, Failure> {
    let found = Objective::ALL.into_iter().find(|objective| objective.name() == plan.objective_name);
    found.map(Some).ok_or_else(|| {
        Failure::new(Code::Verification, format!("{}: objective {:?} is unknown", path.display(), plan.objective_name))
    })
}

#[derive(Serialize)]
struct Verdict {
    holds: bool,
    status: Status,
    bound_kind: BoundKind,
    violations: Vec<String>,
}

/// What a certificate says, in words.
pub fn certificate_words(plan: &Plan) -> String {
    let Some(certificate) = &plan.certificate else { return "no certificate".to_owned() };
    let vouched = match certificate.bound_kind {
        BoundKind::Certified => "certified, checked here without any solver",
        BoundKind::Solver => "on the solver's word",
        BoundKind::None => "without a bound",
    };
    match (plan.status, certificate.gap) {
        (Status::Optimal, _) => format!("optimal, {vouched}"),
        (_, Some(gap)) => format!("within {:.3} % of the best possible, {vouched}", gap * 100.0),
        _ => vouched.to_owned(),
    }
}

/// The layers that a stage leaves where they are brought from, in words.
fn away(stage: &Stage, problem: &PlacementProblem) -> String {
    let bytes = &stage.bytes;
    if bytes.away_layers == 0 {
        return "-".to_owned();
    }
    let place = stage.devices.first().and_then(|name| problem.graph.find(name)).and_then(|id| problem.offload(id));
    let place = place.map_or("", |place| match place.store {
        Store::HostMemory => " in its host's memory",
        Store::Disk => " on its disk",
    });
    format!("{} layers, {}{place}", bytes.away_layers, bytes.away)
}

/// A plan as text: verdict, stages, unused devices, figures.
pub fn describe(plan: &Plan, problem: &PlacementProblem) -> String {
    let (Some(value), Some(certificate)) = (plan.objective_value, &plan.certificate) else { return String::new() };
    let mut text = format!("{}: {} = {}\n", plan.scenario, plan.objective_name, quantity(value, &plan.unit));
    let bound = certificate.bound.map_or_else(|| "unknown".to_owned(), |bound| quantity(bound, &plan.unit));
    let gap = certificate.gap.map_or_else(|| "unknown".to_owned(), |gap| format!("{:.4} %", gap * 100.0));
    text.push_str(&format!("  {}; bound {bound}, gap {gap}\n", certificate_words(plan)));
    text.push_str(&format!("  method: {}", certificate.method));
    if let Some(seconds) = plan.provenance.solve_seconds {
        text.push_str(&format!("; solved in {}", Seconds::of(seconds)));
    }
    text.push_str("\n\n");
    let elsewhere = plan.stages.iter().any(|stage| stage.bytes.away_layers > 0);
    let mut heading =
        ["stage", "device", "layers", "format", "weights", "cache", "total", "of"].map(str::to_owned).to_vec();
    heading.extend(elsewhere.then(|| "left elsewhere".to_owned()));
    heading.extend(plan.is_divided().then(|| "role".to_owned()));
    let mut rows = vec![heading];
    let roles = plan.stage_roles();
    for (i, stage) in plan.stages.iter().enumerate() {
        let memory = stage.devices.first().and_then(|name| problem.graph.find(name)).and_then(|id| problem.memory(id));
        rows.push(vec![
            i.to_string(),
            format!("{}{}", stage.devices.join("+"), if stage.parallel.is_tensor() { "" } else { " by experts" }),
            stage.layers.to_string(),
            stage.quantisation.clone(),
            stage.bytes.weights.to_string(),
            stage.bytes.kv.to_string(),
            stage.bytes.total.to_string(),
            memory.map_or_else(|| "unknown".to_owned(), |m| m.to_string()),
        ]);
        if let Some(row) = rows.last_mut() {
            row.extend(elsewhere.then(|| away(stage, problem)));
            row.extend(roles[i].map(|role| role.verb().to_owned()));
        }
    }
    text.push_str(&table(&rows, &[0, 4, 5, 6, 7]));
    if plan.routes.len() > 1 {
        text.push_str(&format!("\n  {} routes:\n", plan.routes.len()));
        for route in &plan.routes {
            let stops: Vec<String> = route.stages.iter().map(|stop| stop.stage.to_string()).collect();
            let role = route.role.map_or_else(String::new, |role| format!(", {}", role.verb()));
            text.push_str(&format!("    {:>6.2} % through stages {}{role}\n", route.share * 100.0, stops.join(" > ")));
        }
    }
    if !plan.unused.is_empty() {
        text.push_str("\n  not used:\n");
        text.extend(plan.unused.iter().map(|unused| format!("    {}: {}\n", unused.device, unused.reason)));
    }
    text.push_str(&format!("\n  {}\n", figures_words(plan, problem)));
    text.push_str(&spending_words(plan, problem));
    text.push_str(&long_run::describe(plan, problem));
    text
}

/// What the plan is worth by every measure, and what holds it back.
fn figures_words(plan: &Plan, problem: &PlacementProblem) -> String {
    let figures = evaluate(plan, problem);
    let parts = [
        figures.tpot.map(|t| format!("time per output token {t}")),
        figures.ttft.map(|t| format!("time to first token {t}")),
        figures.throughput.map(|rate| format!("throughput {rate}")),
    ];
    let mut words = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    if let Some(batch) = plan.batch {
        words.push_str(&format!(" in batches of {batch}"));
    }
    if let Some(bottleneck) = &figures.bottleneck {
        // It says nothing of why a request takes its time.
        let what = if problem.objective.serves() { "" } else { "the throughput " };
        words.push_str(&format!(", {what}held back by {bottleneck}"));
    }
    words
}

/// What serving by a plan costs, as far as it is known, and what was asked of it.
fn spending_words(plan: &Plan, problem: &PlacementProblem) -> String {
    let known = |figure: Objective| spent(plan, problem, figure);
    let currency = problem.prices.currency.as_deref().unwrap_or("money");
    let parts = [
        known(Objective::Energy).map(|joules| format!("{joules:.3} J per token")),
        known(Objective::Money).map(|money| format!("{money:.4} {currency} per million tokens")),
        known(Objective::MoneyPerHour).map(|money| format!("{money:.4} {currency} per hour")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let mut words = String::new();
    if !parts.is_empty() {
        words.push_str(&format!("  at its throughput: {}; devices that hold nothing are off\n", parts.join(", ")));
    }
    if !plan.goals.is_empty() {
        let goals: Vec<String> = plan.goals.iter().map(ToString::to_string).collect();
        words.push_str(&format!("  asked of it: {}\n", goals.join(", ")));
    }
    words
}

/// A value with its unit, readable.
pub fn quantity(value: f64, unit: &str) -> String {
    if unit == "s" && value.is_finite() { Seconds::of(value).to_string() } else { format!("{value:.3} {unit}") }
}
