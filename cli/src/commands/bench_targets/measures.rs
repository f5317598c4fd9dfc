//! What each target's measurement does. Each gives one value a run, or says why it cannot here.

mod bounds;
mod points;

#[cfg(test)]
pub use bounds::NAMES as BOUNDS;
pub use bounds::bound;
pub use points::{Draws, texts as sweeps};

use isotherm_access::{Authority, Directory, Permission, Principal, Question, Role};
use isotherm_audit::keys::{Identity, Seed};
use isotherm_audit::log::{Event, EventKind, Log, OnLock};
use isotherm_audit::time::Timestamp;
use isotherm_benches::clusters::{SETS, cluster};
use isotherm_core::graph::DeviceGraph;
use isotherm_core::plan::Plan;
use isotherm_core::problem::PlacementProblem;
use isotherm_core::scenario::Scenario;
use isotherm_core::units::Seconds;
use isotherm_planner::Budget;
use isotherm_planner::baselines::{Baseline, baseline};
use isotherm_runtime::cpu::{Arithmetic, Isa};
use isotherm_runtime::engine::{CpuDevice, Cut, Kernels, Runner, Sampling};
use isotherm_runtime::host::{Host, Roots};
use isotherm_runtime::model::{Geometry, gguf::Gguf};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

/// Every measurement there is.
#[cfg(test)]
pub const NAMES: [&str; 21] = [
    "slow_link",
    "discovery",
    "stages_overhead",
    "two_unlike",
    "solver",
    "greedy",
    "telemetry_share",
    "telemetry",
    "state_update",
    "memory_state",
    "memory_device",
    "allocate",
    "synchronise",
    "monitor_query",
    "permission",
    "scale_devices",
    "scale_users",
    "audit_rate",
    "availability",
    "batch",
    "batch_threads",
];

type Values = Result<Vec<f64>, String>;

/// What a measurement gave.
pub struct Found {
    /// One value a run.
    pub values: Vec<f64>,
    /// What was measured along with it and the bound of the same row needs.
    beside: Option<f64>,
}

impl From<Vec<f64>> for Found {
    fn from(values: Vec<f64>) -> Self {
        Self { values, beside: None }
    }
}

/// Gap that suffices for a plan here.
const GAP: f64 = 0.01;
/// Most seconds of one search: a target that is missed by more is missed.
const LIMIT_SECONDS: f64 = 30.0;
/// How long a run of short calls takes: a single one is shorter than what disturbs it.
const RUN: Duration = Duration::from_millis(20);
/// Graphs that are held before memory is counted, so that none lies in memory that was free, and of each run.
const GRAPHS: (usize, usize) = (8, 4);
/// Principals and devices of a permission check.
const USERS: u8 = 100;
/// Entries of one batch of the log.
const ENTRIES: u64 = 4096;

/// Measures one target in so many runs. Errors: why it cannot be measured here.
pub fn measure(name: &str, runs: u32, draws: &mut Draws) -> Result<Found, String> {
    match name {
        "audit_rate" => audit_rate(runs),
        "stages_overhead" => stages_overhead(runs),
        "batch" => points::thousand(runs, draws),
        "batch_threads" => points::faster(runs, draws).map(Found::from),
        "slow_link" => slow_link(),
        "two_unlike" => two_unlike(),
        _ => plain(name, runs).map(Found::from),
    }
}

fn plain(name: &str, runs: u32) -> Values {
    match name {
        "discovery" | "telemetry" => timed(runs, || drop(black_box(Host::discover(&Roots::default())))),
        "telemetry_share" => {
            let seconds = timed(runs, || drop(black_box(Host::discover(&Roots::default()))))?;
            Ok(seconds.into_iter().map(|seconds| 100.0 * seconds).collect())
        }
        "monitor_query" => timed(runs, || drop(black_box(std::fs::read("/proc/loadavg")))),
        "solver" => piles(runs, |problem| solved(problem).is_ok()),
        "greedy" => piles(runs, |problem| baseline(problem, Baseline::Greedy, &Budget::default()).is_ok()),
        "state_update" => {
            let file = pile("mesh100", 1)?.graph.file().clone();
            timed(runs, || drop(black_box(DeviceGraph::new(file.clone()))))
        }
        "memory_state" => memory_state(runs),
        "memory_device" => {
            let devices = pile("mesh100", 1)?.graph.devices().len() as f64;
            Ok(memory_state(runs)?.into_iter().map(|megabytes| megabytes / devices).collect())
        }
        "allocate" => timed(runs, || drop(black_box(vec![1_u8; 1 << 20]))),
        "synchronise" => synchronise(runs),
        "permission" => permission(runs),
        "scale_users" => permission(1).map(|_| vec![f64::from(USERS)]),
        "scale_devices" => {
            let problem = pile("scale200", 1)?;
            let outcome = solved(&problem)?;
            outcome.plan().map(|_| vec![problem.graph.devices().len() as f64]).ok_or_else(|| "no plan".to_owned())
        }
        "availability" => availability(),
        other => Err(format!("there is no measurement {other:?}")),
    }
}

/// Seconds of one call in each run, after one that does not count. A run makes as many calls as a moment holds.
fn timed(runs: u32, mut call: impl FnMut()) -> Values {
    call();
    Ok((0..runs)
        .map(|_| {
            let (begin, mut calls) = (Instant::now(), 0_u32);
            loop {
                call();
                calls += 1;
                let spent = begin.elapsed();
                if spent >= RUN {
                    return spent.as_secs_f64() / f64::from(calls);
                }
            }
        })
        .collect())
}

fn pile(name: &str, seed: u64) -> Result<PlacementProblem, String> {
    let recipe = SETS.iter().find(|recipe| recipe.name == name).ok_or_else(|| format!("there is no set {name}"))?;
    Ok(cluster(recipe, seed))
}

/// The outcome of a problem within the time that one search may take.
fn solved(problem: &PlacementProblem) -> Result<isotherm_planner::Outcome, String> {
    let begin = Instant::now();
    let remaining = || Seconds::of(LIMIT_SECONDS - begin.elapsed().as_secs_f64());
    let interrupt = Some(crate::interrupt::flag());
    let budget = Budget { gap_target: GAP, remaining: Some(&remaining), interrupt, ..Budget::default() };
    isotherm_planner::plan(problem, &budget).map_err(|e| e.to_string())
}

/// Seconds for each of several piles of 24 devices.
fn piles(runs: u32, solve: impl Fn(&PlacementProblem) -> bool) -> Values {
    (1..=u64::from(runs))
        .map(|seed| {
            let problem = pile("mesh24", seed)?;
            let begin = Instant::now();
            let solved = solve(&problem);
            solved.then(|| begin.elapsed().as_secs_f64()).ok_or_else(|| format!("mesh24 of seed {seed} was not solved"))
        })
        .collect()
}

/// The plan of a scenario written here.
fn planned(text: &str) -> Result<(PlacementProblem, Option<Plan>), String> {
    let mut lookup = |kind, name: &str| {
        let known = crate::builtin::of(kind);
        known.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned()).ok_or_else(Vec::new)
    };
    let scenario = Scenario::parse(text, &mut lookup).map_err(|faults| format!("{faults:?}"))?;
    let problem = scenario.problem(None, None).map_err(|faults| format!("{faults:?}"))?;
    let outcome = solved(&problem)?;
    let plan = outcome.plan().map(|plan| plan.plan().clone());
    Ok((problem, plan))
}

/// The value of a scenario's plan, and what the planner proves of all others.
fn valued(text: &str) -> Result<(f64, Option<f64>), String> {
    let plan = planned(text)?.1.ok_or("there is no plan")?;
    let value = plan.objective_value.ok_or("the plan has no value")?;
    Ok((value, plan.certificate.and_then(|certificate| certificate.bound)))
}

/// Two small cards that hold half of a model each, at this bandwidth between them.
fn halves(bandwidth: &str) -> String {
    format!(
        "name = \"slow\"\nquestion = \"?\"\n[model]\nname = \"llama-3.1-8b-q4_0\"\n[[devices]]\ntable = \"rtx-3060\"\n\
         name = \"a\"\nmemory = \"4 GB\"\n[[devices]]\ntable = \"rtx-3060\"\nname = \"b\"\nmemory = \"4 GB\"\n[network]\n\
         within_site = {{ latency = \"1 ms\", bandwidth = \"{bandwidth}\" }}\n[objective]\nminimise = \"tpot\"\n"
    )
}

/// The slowdown, and beside it the least that the planner does not exclude.
fn slow_link() -> Result<Found, String> {
    let (slow, bound) = valued(&halves("10 Mbit/s"))?;
    let (fast, _) = valued(&halves("1 Gbit/s"))?;
    Ok(Found { values: vec![slow / fast], beside: bound.map(|bound| bound / fast) })
}

/// A fast card and these beside it, under a load that neither the requests that come nor those admitted limit.
fn beside_a_fast_card(cards: &str) -> String {
    format!(
        "name = \"two\"\nquestion = \"?\"\n[model]\nname = \"llama-3.1-8b-q4_0\"\n[[devices]]\ntable = \"rtx-4090\"\n{cards}\
         [network]\nwithin_site = {{ latency = \"0.1 ms\", bandwidth = \"10 Gbit/s\" }}\n[workload]\nrate = \"2000 /s\"\n\
         prompt_tokens = 256\noutput_tokens = 128\n[serving]\nrequests_max = 256\n[objective]\nmaximise = \"throughput\"\n"
    )
}

/// A slower card in the list of devices.
const SLOW_CARD: &str = "[[devices]]\ntable = \"rtx-3060\"\n";

/// The gain, and beside it the greatest that the planner does not exclude.
fn two_unlike() -> Result<Found, String> {
    let (both, bound) = valued(&beside_a_fast_card(SLOW_CARD))?;
    let (alone, _) = valued(&beside_a_fast_card(""))?;
    Ok(Found { values: vec![both / alone], beside: bound.map(|bound| bound / alone) })
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok().map(|kib| kib * 1024.0)
}

fn memory_state(runs: u32) -> Values {
    let file = pile("mesh100", 1)?.graph.file().clone();
    let mut held = Vec::new();
    let mut more = |count: usize| {
        held.extend((0..count).map(|_| DeviceGraph::new(file.clone())));
        black_box(&held);
        resident_bytes().ok_or_else(|| "this system does not say how much memory a process has".to_owned())
    };
    let mut before = more(GRAPHS.0)?;
    let mut values = Vec::new();
    for _ in 0..runs {
        let after = more(GRAPHS.1)?;
        values.push((after - before) / 1e6 / GRAPHS.1 as f64);
        before = after;
    }
    Ok(values)
}

fn synchronise(runs: u32) -> Values {
    let (to, inside) = std::sync::mpsc::channel::<u32>();
    let (back, from) = std::sync::mpsc::channel::<u32>();
    let worker = std::thread::spawn(move || {
        inside.iter().for_each(|n| {
            let _ = back.send(n);
        });
    });
    let values = timed(runs, || {
        if to.send(1).is_ok() {
            let _ = from.recv();
        }
    });
    drop(to);
    let _ = worker.join();
    values
}

fn now() -> Result<Timestamp, String> {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().parse().map_err(|e| format!("{e}"))
}

fn identity(number: u8) -> Result<Identity, String> {
    Identity::from_seed(&Seed::from_bytes([number; 32])).map_err(|e| e.to_string())
}

/// A directory with principals and devices, and their keys.
fn directory(now: Timestamp) -> Result<(Directory, Vec<Identity>), String> {
    let keys: Vec<Identity> = (1..=USERS).map(identity).collect::<Result<_, _>>()?;
    let mut directory = Directory::first("admin", keys[0].public(), now).map_err(|e| e.to_string())?;
    for (key, number) in keys.iter().zip(0..).skip(1) {
        let named = format!("user {number}");
        let mut principal = Principal::new(&named, key.public(), Role::User, now).map_err(|e| e.to_string())?;
        principal.quota_bytes = Some(80 << 30);
        principal.pools = Some(["lab".to_owned()].into());
        directory.principals.insert(key.id(), principal);
    }
    directory.pools.insert("lab".to_owned(), (0..USERS).map(|number| format!("gpu{number}")).collect());
    Ok((directory, keys))
}

fn permission(runs: u32) -> Values {
    let now = now()?;
    let (directory, keys) = directory(now)?;
    let authority = Authority::new(directory, "").map_err(|e| e.to_string())?;
    let mut refused = 0;
    let mut turn = 0_usize;
    let values = timed(runs, || {
        turn += 1;
        let device = format!("gpu{}", turn % 11);
        let question = Question {
            principal: keys[1 + turn % 7].id(),
            permission: Permission::MemoryAllocate,
            device: &device,
            now,
            used_bytes: 1 << 30,
            request_bytes: 1 << 20,
            lease: None,
        };
        refused += u32::from(!authority.decide(black_box(&question)).allowed);
    });
    if refused == 0 { values } else { Err(format!("{refused} decisions were refused that should not be")) }
}

fn audit_rate(runs: u32) -> Result<Found, String> {
    let (now, key) = (now()?, identity(1)?);
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (mut log, _) =
        Log::open(folder.path(), "isotherm.local/bench", &key, OnLock::Refuse).map_err(|e| e.to_string())?;
    let event = |number: u64| {
        let mut event = Event::new(EventKind::MemoryAllocate, now, key.id());
        event.device = Some("gpu0".to_owned());
        event.metadata.insert("bytes".to_owned(), (number as i64).into());
        event
    };
    let events: Vec<Event> = (0..ENTRIES).map(event).collect();
    let (mut failed, mut batches) = (None, 0_u32);
    let before = bounds::bytes_under(folder.path());
    let seconds = timed(runs, || {
        batches += 1;
        if let Err(e) = log.append_all(&events) {
            failed = Some(e.to_string());
        }
    })?;
    let grown = bounds::bytes_under(folder.path()).saturating_sub(before);
    let values = seconds.into_iter().map(|seconds| ENTRIES as f64 / seconds).collect();
    let beside = Some(grown as f64 / f64::from(batches.max(1)));
    failed.map_or(Ok(Found { values, beside }), Err)
}

/// Seconds per token of a small model with these cuts, as the least of a few answers. It works on a thread of its own: the
/// thread that serves a single stage is bound to that stage's core, and all other rows are measured after it on this one.
fn per_token(path: &Path, cuts: usize) -> Result<f64, String> {
    let apart = std::thread::scope(|scope| scope.spawn(|| per_token_here(path, cuts)).join());
    apart.map_err(|_| "the model's thread ended early".to_owned())?
}

fn per_token_here(path: &Path, cuts: usize) -> Result<f64, String> {
    let gguf = Gguf::open(path).map_err(|e| e.to_string())?;
    let geometry = Geometry::from_gguf(&gguf).map_err(|e| e.to_string())?;
    let cores = CpuDevice::host_cores();
    if cores.len() < 2 {
        return Err("needs two cores: two stages on one would only wait for each other".to_owned());
    }
    let kernels = Kernels { isa: Isa::detect(), arithmetic: Arithmetic::Int8 };
    let bounds: Vec<_> = (0..=cuts).map(|i| i * geometry.layers / cuts).collect();
    // Each stage has a core of its own; of one request, only one of them works at a time.
    let cut =
        |(core, pair): (&usize, &[usize])| Cut { layers: pair[0]..pair[1], device: CpuDevice::new("cpu", [*core]) };
    let cuts: Vec<Cut> = cores.iter().zip(bounds.windows(2)).map(cut).collect();
    let mut runner = Runner::start(&gguf, &geometry, kernels, &cuts, 256, 64).map_err(|e| e.to_string())?;
    let prompt: Vec<u32> = (0..16).map(|i| i * 37 % geometry.vocabulary as u32).collect();
    let mut best = f64::INFINITY;
    for _ in 0..2 {
        let (mut count, mut first) = (0_u32, None);
        runner
            .generate(&prompt, 17, &[], Sampling::GREEDY, &mut |_| {
                first.get_or_insert_with(Instant::now);
                count += 1;
                true
            })
            .map_err(|e| e.to_string())?;
        if let Some(first) = first {
            best = best.min(first.elapsed().as_secs_f64() / f64::from(count.max(2) - 1));
        }
    }
    Ok(best)
}

fn stages_overhead(runs: u32) -> Result<Found, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = folder.path().join("model.gguf");
    // A model whose layers take a while: of a tiny one, the hand-over is nearly all.
    crate::commands::model::synthesise("smollm2-135m", &path, "Q4_1", 1).map_err(|failure| failure.message)?;
    let (mut values, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (two, one) = (per_token(&path, 2)?, per_token(&path, 1)?);
        values.push(100.0 * (two / one - 1.0));
        whole.push(one);
    }
    Ok(Found { values, beside: super::median(&whole) })
}

fn availability() -> Values {
    let text = "name = \"pair\"\nquestion = \"?\"\n[model]\nname = \"llama-3.1-8b-q4_0\"\n[[devices]]\ntable = \"rtx-4090\"\n\
                name = \"card\"\ncount = 2\n[network]\nwithin_site = { latency = \"0.1 ms\", bandwidth = \"10 Gbit/s\" }\n\
                [workload]\nrate = \"0.0005 /s\"\nprompt_tokens = 256\noutput_tokens = 64\nrequests = 5000\n\
                [serving]\nrequests_max = 16\n[objective]\nmaximise = \"throughput\"\n\
                [[failures]]\ndevice = \"card-1\"\nmean_between = \"200 h\"\nmean_repair = \"10 min\"\n\
                [[failures]]\ndevice = \"card-2\"\nmean_between = \"200 h\"\nmean_repair = \"10 min\"\n";
    let (problem, plan) = planned(text)?;
    let plan = plan.ok_or("there is no plan")?.check(&problem).map_err(|v| format!("{v:?}"))?;
    let run = |seed: u64| {
        let options = isotherm_sim::Options { seed, ..isotherm_sim::Options::default() };
        let report = isotherm_sim::simulate(&plan, &problem, &problem.workload, &options).map_err(|e| e.to_string())?;
        let reliability = report.reliability.ok_or("nothing failed in the simulation")?;
        Ok((100.0 * (reliability.serving_seconds / reliability.total_seconds)).min(100.0))
    };
    (1..=5).map(run).collect()
}
