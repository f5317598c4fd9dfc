//! What a query is for each part of isotherm, and its figures under each load.

use super::load::{self, Ask, Run};
use super::statistics::{Draws, interval, median};
use super::{Better, Case, Subject};
use crate::args::BenchLoad;
use crate::failure::{Code, Failure};
use crate::ui::Ui;
use isotherm_benches::clusters::{SETS, cluster};
use isotherm_core::percentile::Percentile;
use isotherm_core::problem::PlacementProblem;
use isotherm_planner::Budget;
use isotherm_runtime::cpu::{Arithmetic, Isa};
use isotherm_runtime::engine::{CpuDevice, Cut, Kernels, Runner, Sampling};
use isotherm_runtime::model::{Geometry, gguf::Gguf};
use isotherm_sim::Options;
use std::sync::Mutex;

/// Piles that plans are made for, in turn.
const PILES: u64 = 8;
/// The set they are from: step times, several classes, shared networks.
const SET: &str = "sheet32";
/// Gap that suffices for a plan.
const GAP: f64 = 0.01;
/// Requests of a simulation.
const REQUESTS: u32 = 200;
/// Tokens of the prompt and of the answer of the small model.
const TOKENS: (u32, usize) = (16, 8);
/// Bytes of a copy, and of a buffer that is made and filled.
const COPY_BYTES: usize = 32 << 20;
const FILL_BYTES: usize = 1 << 20;
/// A server's tail may take as many times the median of one query alone.
const TAIL: f64 = 10.0;
/// Queries before the first that counts.
const WARM_UP: u64 = 2;

fn pile(seed: u64) -> Result<PlacementProblem, Failure> {
    let recipe = SETS.iter().find(|recipe| recipe.name == SET);
    recipe.map(|recipe| cluster(recipe, seed)).ok_or_else(|| Failure::io(format!("there is no set {SET}")))
}

/// Measures one subject and adds its figures.
pub fn measure(
    ui: &Ui,
    subject: Subject,
    args: &BenchLoad,
    cases: &mut Vec<Case>,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    match subject {
        Subject::Planner => {
            let piles: Vec<PlacementProblem> = (1..=PILES).map(pile).collect::<Result<_, _>>()?;
            let ask = |i: u64| {
                let budget = Budget { gap_target: GAP, ..Budget::default() };
                let _ = std::hint::black_box(isotherm_planner::plan(&piles[(i % PILES) as usize], &budget));
            };
            let query = format!("a plan of a generated pile ({SET}), gap 1 %");
            all_loads(ui, "planner", &query, &ask, args, cases);
        }
        Subject::Sim => {
            let mut problem = pile(1)?;
            problem.workload.requests = REQUESTS;
            let budget = Budget { gap_target: GAP, ..Budget::default() };
            let outcome = isotherm_planner::plan(&problem, &budget)
                .map_err(|e| Failure::new(Code::Limit, format!("failed to plan {}: {e}", problem.name)))?;
            let Some(plan) = outcome.plan() else {
                notes.push(format!("the simulator was NOT measured: {} has no plan", problem.name));
                return Ok(());
            };
            let ask = |i: u64| {
                let options = Options { seed: i, ..Options::default() };
                let _ = std::hint::black_box(isotherm_sim::simulate(plan, &problem, &problem.workload, &options));
            };
            all_loads(ui, "sim", &format!("a simulation of {REQUESTS} requests ({SET}, seed 1)"), &ask, args, cases);
        }
        Subject::Runtime => runtime(ui, args, cases)?,
        Subject::Device => device(ui, args, cases),
    }
    Ok(())
}

fn runtime(ui: &Ui, args: &BenchLoad, cases: &mut Vec<Case>) -> Result<(), Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::io(format!("the small model cannot be made: {e}"));
    let folder = tempfile::tempdir().map_err(|e| failed(&e))?;
    let path = folder.path().join("tiny.gguf");
    crate::commands::model::synthesise("tiny", &path, "Q4_1", args.seed)?;
    let gguf = Gguf::open(&path).map_err(|e| failed(&e))?;
    let geometry = Geometry::from_gguf(&gguf).map_err(|e| failed(&e))?;
    let device = CpuDevice::new("cpu", CpuDevice::host_cores());
    let isa = Isa::detect();
    let kernels = Kernels { isa, arithmetic: Arithmetic::Int8 };
    let cut = Cut { layers: 0..geometry.layers, device };
    let runner = Runner::start(&gguf, &geometry, kernels, &[cut], 512, 256).map_err(|e| failed(&e))?;
    // The model answers one at a time, as one stage does; more at once queue here.
    let runner = Mutex::new(runner);
    let vocabulary = geometry.vocabulary as u64;
    let ask = |i: u64| {
        let prompt: Vec<u32> = (0..u64::from(TOKENS.0)).map(|t| ((i * 31 + t * 37) % vocabulary) as u32).collect();
        if let Ok(mut runner) = runner.lock() {
            let _ = runner.generate(&prompt, TOKENS.1, &[], Sampling::GREEDY, &mut |_| true);
        }
    };
    let query =
        format!("{} tokens after a prompt of {} (synthetic tiny model, {}, int8)", TOKENS.1, TOKENS.0, isa.name());
    all_loads(ui, "runtime", &query, &ask, args, cases);
    Ok(())
}

fn device(ui: &Ui, args: &BenchLoad, cases: &mut Vec<Case>) {
    let source = vec![1_u8; COPY_BYTES];
    let target = Mutex::new(vec![0_u8; COPY_BYTES]);
    let copy = |_: u64| {
        if let Ok(mut target) = target.lock() {
            target.copy_from_slice(std::hint::black_box(&source));
            std::hint::black_box(&mut *target);
        }
    };
    let before = cases.len();
    all_loads(ui, "device", "a copy of 32 MiB in memory", &copy, args, cases);
    let rate = cases[before..].iter().find(|case| case.scenario == "offline").cloned();
    if let Some(rate) = rate {
        let runs: Vec<f64> = rate.runs.iter().map(|queries| queries * COPY_BYTES as f64).collect();
        cases.push(finished(
            Case { metric: "bytes_copied_per_second".into(), unit: "B/s".into(), runs, ..rate },
            args.seed,
        ));
    }
    let fill = |i: u64| drop(std::hint::black_box(vec![i as u8 | 1; FILL_BYTES]));
    single(ui, "device", "1 MiB of memory made and filled", &fill, args, cases);
}

fn finished(mut case: Case, seed: u64) -> Case {
    case.median = median(&case.runs);
    case.interval = interval(&case.runs, seed);
    case
}

/// Runs with their figure, throttled ones apart.
fn case(subject: &str, scenario: &str, query: &str, runs: &[Run], args: &BenchLoad, figure: Figure<'_>) -> Case {
    let (mut values, mut throttled) = (Vec::new(), Vec::new());
    for run in runs {
        if let Some(value) = (figure.of)(run) {
            if run.throttled == Some(true) { throttled.push(value) } else { values.push(value) }
        }
    }
    let case = Case {
        subject: subject.to_owned(),
        scenario: scenario.to_owned(),
        query: query.to_owned(),
        metric: figure.metric.to_owned(),
        unit: figure.unit.to_owned(),
        better: figure.better,
        runs: values,
        throttled_runs: throttled,
        median: None,
        interval: None,
        queries: runs.iter().map(|run| run.queries).sum(),
        queries_min: None,
        note: None,
    };
    finished(case, args.seed)
}

/// What is taken from each run.
#[derive(Clone, Copy)]
struct Figure<'a> {
    metric: &'a str,
    unit: &'a str,
    better: Better,
    of: &'a dyn Fn(&Run) -> Option<f64>,
}

/// The percentile of latencies in each run, reported only where all runs together have the queries that it needs.
fn percentile(
    (subject, scenario, query): (&str, &str, &str),
    runs: &[Run],
    args: &BenchLoad,
    percent: f64,
    metric: &str,
) -> Case {
    let of = |run: &Run| {
        let mut sorted = run.latencies.clone();
        sorted.sort_by(f64::total_cmp);
        Percentile::of(&sorted, percent).map(|percentile| percentile.value)
    };
    let figure = Figure { metric, unit: "s", better: Better::Lower, of: &of };
    let mut case = case(subject, scenario, query, runs, args, figure);
    let samples: u64 = runs.iter().map(|run| run.latencies.len() as u64).sum();
    let mut pooled: Vec<f64> = runs.iter().flat_map(|run| run.latencies.iter().copied()).collect();
    pooled.sort_by(f64::total_cmp);
    case.queries_min = Percentile::of(&pooled, percent).map(|percentile| percentile.queries_min);
    if case.queries_min.is_some_and(|least| samples < least) {
        (case.median, case.interval) = (None, None);
        case.note = Some(format!("not enough queries for p{percent}: {samples}; use a longer --span"));
    }
    case
}

fn energy(ids: (&str, &str, &str), runs: &[Run], args: &BenchLoad, cases: &mut Vec<Case>) {
    if runs.iter().all(|run| run.joules.is_some()) {
        let of = |run: &Run| run.joules.map(|joules| joules / run.queries.max(1) as f64);
        let figure = Figure { metric: "joules_per_query", unit: "J", better: Better::Lower, of: &of };
        cases.push(case(ids.0, ids.1, ids.2, runs, args, figure));
    }
}

fn single(ui: &Ui, subject: &str, query: &str, ask: &Ask<'_>, args: &BenchLoad, cases: &mut Vec<Case>) -> f64 {
    ui.note(format!("  {query}: SingleStream"));
    (0..WARM_UP).for_each(ask);
    let span = args.span.value();
    let runs: Vec<Run> = (0..args.runs).map(|run| load::single_stream(ask, span, u64::from(run) * 1_000_003)).collect();
    let ids = (subject, "single_stream", query);
    let middle = percentile(ids, &runs, args, 50.0, "latency_p50");
    let alone = middle.median.unwrap_or(span);
    cases.push(middle);
    cases.push(percentile(ids, &runs, args, 90.0, "latency_p90"));
    energy(ids, &runs, args, cases);
    alone
}

fn all_loads(ui: &Ui, subject: &str, query: &str, ask: &Ask<'_>, args: &BenchLoad, cases: &mut Vec<Case>) {
    let alone = single(ui, subject, query, ask, args, cases);
    let span = args.span.value();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let first = |run: u32| u64::from(run) * 1_000_003;
    ui.note("    MultiStream");
    let runs: Vec<Run> = (0..args.runs).map(|run| load::multi_stream(ask, span, first(run), workers)).collect();
    cases.push(percentile((subject, "multi_stream", query), &runs, args, 99.0, "latency_p99_of_8"));
    ui.note("    Offline");
    let runs: Vec<Run> = (0..args.runs).map(|run| load::offline(ask, span, first(run), workers)).collect();
    let rate = |run: &Run| Some(run.queries as f64 / run.seconds);
    let figure = Figure { metric: "queries_per_second", unit: "/s", better: Better::Higher, of: &rate };
    let offline = case(subject, "offline", query, &runs, args, figure);
    let offline_rate = offline.median.unwrap_or(0.0);
    cases.push(offline);
    energy((subject, "offline", query), &runs, args, cases);
    ui.note("    Server");
    let mut draws = Draws(args.seed);
    let bound = TAIL * alone;
    let found: Vec<Option<Run>> = (0..args.runs)
        .map(|run| {
            (offline_rate > 0.0)
                .then(|| load::server(ask, span, first(run), workers, offline_rate, bound, &mut draws))
                .flatten()
        })
        .collect();
    let runs: Vec<Run> = found.into_iter().flatten().collect();
    let reached = |run: &Run| run.rate;
    let figure = Figure { metric: "arrivals_per_second", unit: "/s", better: Better::Higher, of: &reached };
    let mut server = case(subject, "server", query, &runs, args, figure);
    let words = format!("the highest of five rates whose p99 stays below {TAIL} times the median alone, {bound:.3e} s");
    server.note = Some(if runs.len() < args.runs as usize {
        format!("{words}; in {} of {} runs not even the lowest did", args.runs as usize - runs.len(), args.runs)
    } else {
        words
    });
    cases.push(server);
    cases.push(percentile((subject, "server", query), &runs, args, 99.0, "latency_p99"));
}
