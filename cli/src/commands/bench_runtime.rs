//! `isotherm bench runtime`: a load simulated and served, request by request the same; or, with `--speed`, how fast the
//! kernels are.
//!
//! The devices are probed, a plan is made, simulated and sealed. Then, at shares of the capacity that the simulation
//! finds, requests arrive at random times; the very same arrivals and lengths are simulated first and served then, by
//! the same policy. What differs is how long steps really take. Tables of a profile hold undisturbed steps; a load is
//! foretold with steps as much longer as all of the probe's were on average, and the error of the tables alone, which is
//! what `isotherm simulate` says, stands beside it. A machine that is shared with others is now faster, now slower, for
//! seconds or minutes: the load is simulated once more with steps as much longer as its own were, those of prompts and
//! all others each in the mean. That error is of scheduling and queueing, without the mean error of steps, be it the
//! machine's or the tables'.

mod budget;
mod peer;
mod speed;
mod start;

use crate::args::BenchRuntime;
use crate::commands::run::load::drawn;
use crate::commands::simulate::requests_csv;
use crate::commands::truth::{Bench, Off, Sealed};
use crate::commands::verify;
use crate::execution::{self, Job, Ready};
use crate::failure::{Code, Done, Failure};
use crate::ui::{Ui, percent, table};
use crate::{files, interrupt, models, trust};
use isotherm_core::cost::StepShape;
use isotherm_core::problem::PlacementProblem;
use isotherm_core::record::SimulationReport;
use isotherm_core::trace::Statistic;
use isotherm_core::units::{Hertz, Seconds};
use isotherm_core::workload::replay::Replay;
use isotherm_core::workload::{Arrivals, Length, Workload};
use isotherm_runtime::execute::{Arriving, Idle, Taken, Verdict};
use isotherm_sim::Options;
use isotherm_sim::sensitivity::{READ, slowed};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Shortest and longest prompt: around what the probe samples, but other lengths.
const PROMPTS: Length = Length { min: 40, max: 140 };
/// Shortest and longest answer.
const ANSWERS: Length = Length { min: 16, max: 80 };
/// Requests of the run that finds the capacity.
const SATURATED: u32 = 64;
/// How far single steps may be from the probe before, in the pauses of, and after a load, as a share, and how often at
/// most a load is served whose machine changed meanwhile, each time after a new probe. Of several the one counts around
/// which it changed least, whatever came of it.
const STEADY: f64 = 0.03;
const TRIES: u32 = 3;
/// Tokens of the steps that are timed in pauses: what a decoding sequence sees, and a prompt short enough for a pause.
const SEEN: u32 = 91;
const SHORT: u32 = 32;
/// Fewest of each that tell.
const SEEN_MIN: usize = 10;

/// One figure, predicted and measured.
#[derive(Serialize)]
struct Row {
    metric: &'static str,
    predicted: f64,
    /// The same with steps as the tables alone say.
    tables: f64,
    /// The same with steps as fast as the load's own were, about, in the mean; absent where the device is unknown, or
    /// more requests are served together than steps that only decode can be told from others by.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_seen: Option<f64>,
    measured: f64,
    /// `predicted / measured - 1`.
    error: f64,
    /// `tables / measured - 1`.
    error_tables: f64,
    /// `as_seen / measured - 1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_as_seen: Option<f64>,
    /// How large an error may be; absent where none is aimed at.
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<f64>,
}

/// How fast the machine was around the load at a share.
#[derive(Serialize)]
struct Speed {
    /// How far steps were off that were timed alone before the load came.
    before: Off,
    /// The same after it.
    after: Off,
    /// In its pauses, one of one sequence and one of a short prompt, again and again; absent where there were too few.
    #[serde(skip_serializing_if = "Option::is_none")]
    during: Option<Off>,
    /// Of the load's own steps, all together; absent where there were none of either kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    own: Option<Off>,
}

/// What came of one share of the capacity.
#[derive(Serialize)]
struct Served {
    /// Share of the capacity at which requests arrived.
    share: f64,
    /// Requests per second that the simulation from this load's probe serves at most.
    capacity_hertz: f64,
    /// How many times as long as the tables say the simulation's steps are, as the probe's were on average; absent where
    /// that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    average_slow: Option<f64>,
    rows: Vec<Row>,
    /// How far single steps were off around the load; absent where their device is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<Speed>,
    record: PathBuf,
}

impl Served {
    /// How far the machine was from its probe around the load, as a share; zero where that is unknown. What the load
    /// itself met does not count, so that no load is chosen for how well it was foretold.
    fn drift(&self) -> f64 {
        let off = self.speed.iter().flat_map(|speed| [Some(speed.before), Some(speed.after), speed.during]);
        off.flatten().map(Off::most).fold(0.0, f64::max)
    }
}

#[derive(Serialize)]
struct Rows {
    /// Load of this machine over the last minute before the runs, in runnable threads; absent where it is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    load_average: Option<f64>,
    requests: u32,
    /// How often the machine was probed, once unless it changed meanwhile.
    probes: u32,
    /// Whether Ctrl-C ended it: other shares may be missing, and the start was not measured.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    interrupted: bool,
    shares: Vec<Served>,
    /// How a cold process comes to its first token; absent where the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<start::Start>,
}

/// Runs the command.
pub fn run(ui: &Ui, args: &BenchRuntime) -> Done {
    if args.requests == 0 || args.together == 0 {
        return Err(Failure::new(Code::Usage, "--requests and --together are counts; give at least 1"));
    }
    if let Some(share) = args.shares.iter().find(|share| !(**share > 0.0 && **share <= 10.0)) {
        return Err(Failure::new(Code::Usage, format!("--shares names {share}; give shares above 0 and at most 10")));
    }
    if args.speed {
        return speed::run(ui, args);
    }
    let interrupted = || interrupt::flag().load(Ordering::Relaxed);
    let mut probes = 1;
    let mut prepared = Prepared::new(ui, args, &args.output)?;
    let load_average = std::fs::read_to_string("/proc/loadavg").ok();
    let load_average = load_average.and_then(|text| text.split(' ').next().and_then(|one| one.parse().ok()));
    let mut shares = Vec::new();
    for &share in &args.shares {
        let mut best = match prepared.served(ui, args, share) {
            Ok(best) => best,
            // What was served so far is shown.
            Err(failure) if interrupted() && !shares.is_empty() => {
                ui.note(format!("  stopped: {}", failure.message));
                break;
            }
            Err(failure) => return Err(failure),
        };
        for _ in 1..TRIES {
            if best.drift() <= STEADY || interrupted() {
                break;
            }
            ui.note(format!("  steps are up to {} from the probe; probing again", percent(best.drift())));
            let folder = args.output.join(format!("again-{probes}"));
            probes += 1;
            let again = Prepared::new(ui, args, &folder).and_then(|new| Ok((new.served(ui, args, share)?, new)));
            match again {
                Ok((again, new)) => {
                    prepared = new;
                    if again.drift() < best.drift() {
                        best = again;
                    }
                }
                // What was served so far stays.
                Err(failure) => {
                    ui.note(format!("  serving again failed: {}", failure.message));
                    break;
                }
            }
        }
        shares.push(best);
    }
    let interrupted = interrupted();
    let start = if interrupted { None } else { start::measure(&prepared.sealed)? };
    let result = Rows { load_average, requests: args.requests, probes, interrupted, shares, start };
    ui.result(&result, || describe(&result))
}

/// A plan made and sealed from one probe.
struct Prepared {
    bench: Bench,
    sealed: Sealed,
    ready: Ready,
    /// How many times as long as the tables say steps were on average while the machine was probed, where that is known,
    /// and the problem with such steps.
    average_slow: Option<f64>,
    average: PlacementProblem,
    /// Requests per second that the simulation serves at most.
    capacity: f64,
    /// The device that holds the model.
    device: String,
}

impl Prepared {
    fn new(ui: &Ui, args: &BenchRuntime, folder: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder).map_err(|e| Failure::file(folder, e))?;
        let bench = Bench::new(ui, models::open(ui, &args.model)?, folder)?;
        bench.note_session("A load simulated and served", "bench runtime", Vec::new())?;
        let sealed = bench.prepare_for(ui, 1, &scenario(args))?.ok_or_else(|| {
            Failure::new(Code::Infeasible, "this machine has no plan for the model and so many requests at once")
                .remedy("give a smaller --together, or a smaller model")
        })?;
        let ready = ready(ui, &sealed)?;
        let device = sealed.plan.stages.first().and_then(|stage| stage.devices.first()).cloned().unwrap_or_default();
        let graph = &ready.problem.graph;
        let profile = graph.find(&device).and_then(|device| graph.device(device).profiles.first());
        let times = profile.and_then(|profile| profile.conditions.as_ref()?.average_slow);
        let slower = times.and_then(|times| Some((times, slowed(&ready.problem, times, times)?)));
        let (average_slow, average) = slower.map_or_else(|| (None, ready.problem.clone()), |(t, p)| (Some(t), p));
        let capacity = capacity(&ready, &average, args)?;
        let longer =
            average_slow.map_or_else(|| "as long as".to_owned(), |times| format!("{times:.3} times as long as"));
        ui.note(format!(
            "  the simulation serves {capacity:.3} requests/s at most, with steps {longer} the probe's tables say"
        ));
        Ok(Self { bench, sealed, ready, average_slow, average, capacity, device })
    }

    /// Simulates and serves requests that arrive at a share of the capacity, single steps timed alone before, in its
    /// pauses, and after.
    fn served(&self, ui: &Ui, args: &BenchRuntime, share: f64) -> Result<Served, Failure> {
        let Self { bench, ready, average, .. } = self;
        let name = format!("{:.0}", share * 100.0);
        let rate = Hertz::new(share * self.capacity).map_err(|e| Failure::io(format!("the rate is no number: {e}")))?;
        let drawn_load = workload(Arrivals::Poisson { rate }, args.requests);
        let first = isotherm_sim::simulate(&ready.plan, average, &drawn_load, &options(args.seed))
            .map_err(|e| unsimulated(&e))?;
        let trace = first.trace.ok_or_else(|| Failure::io("the simulation kept no trace"))?;
        let text = requests_csv(&trace);
        files::write(&bench.folder.join(format!("load-{name}.csv")), text.as_bytes())?;
        let load = Replay::parse(&text).map_err(|e| Failure::io(format!("the drawn load is no load: {e}")))?;
        let simulated = |problem: &PlacementProblem| {
            isotherm_sim::replay(&ready.plan, problem, &load, &options(args.seed)).map_err(|e| unsimulated(&e))
        };
        let (predicted, of_tables) = (simulated(average)?, simulated(&ready.problem)?);
        files::write_json(&bench.folder.join(format!("simulation-load-{name}.json")), &predicted)?;
        let prompts = drawn(&load, ready.model.geometry.vocabulary, args.seed);
        let job = Job {
            prompts: &prompts,
            arriving: Arriving::At(load.requests().iter().map(|request| request.arrival).collect()),
            workload: predicted.workload.clone(),
            // Answers have the lengths that were predicted.
            stop: &[],
            waiting_max: None,
            idle: &[StepShape::decode(1, f64::from(SEEN)), StepShape::prefill(SHORT, 0, true)],
        };
        let output = bench.folder.join(format!("run-load-{name}.json"));
        let before = bench.drift(&self.device)?;
        ui.note(format!("  serving {} requests at {name} % of the capacity", args.requests));
        let (record, executed) = execution::run(&bench.identity, ready, &job, &output, &mut |_| Verdict::GoOn)?;
        if executed.interrupted {
            return Err(Failure::io("interrupted; the runs made so far are kept"));
        }
        let after = bench.drift(&self.device)?;
        let (during, own) = (self.during(&executed.idle), self.own(&executed.steps));
        let speed = before.zip(after).map(|(before, after)| Speed { before, after, during, own });
        // Of longer steps the tables do not tell whether they only decode.
        let told = own.filter(|_| args.together <= READ);
        let slower = told.and_then(|own| slowed(&ready.problem, 1.0 / (1.0 + own.decode), 1.0 / (1.0 + own.prompt)));
        let as_seen = slower.map(|problem| simulated(&problem)).transpose()?;
        let rows = compare(share, (&predicted, &of_tables), as_seen.as_ref(), &record.metrics);
        let (capacity_hertz, average_slow) = (self.capacity, self.average_slow);
        Ok(Served { share, capacity_hertz, average_slow, rows, speed, record: output })
    }

    /// What a step through all layers takes; none where the device is unknown.
    fn step(problem: &PlacementProblem, device: &str, shape: &StepShape) -> Option<Seconds> {
        problem.step(problem.graph.find(device)?, problem.model.all_layers(), shape)
    }

    /// How far steps in the pauses of a load, disturbed or not, were from what was foretold; none where too few were
    /// timed.
    fn during(&self, idle: &[Idle]) -> Option<Off> {
        let error = |idle: &Idle| {
            let predicted = Self::step(&self.average, &self.device, &idle.shape)?;
            let measured = idle.typical().filter(|_| idle.seconds.len() >= SEEN_MIN)?;
            Some(predicted / measured - 1.0)
        };
        let [decode, prompt] = idle else { return None };
        Some(Off { decode: error(decode)?, prompt: error(prompt)? })
    }

    fn own(&self, steps: &[Taken]) -> Option<Off> {
        off(steps, |shape| Self::step(&self.ready.problem, &self.device, shape))
    }
}

/// How far steps were, all together, from what is foretold of each: those that took in prompts, and all others. None
/// where there were none of either, or nothing is foretold. Handing a step over, some microseconds, is foretold but not
/// in what its stage was busy.
fn off(steps: &[Taken], foretold: impl Fn(&StepShape) -> Option<Seconds>) -> Option<Off> {
    let error = |prompts: bool| {
        let (mut predicted, mut measured) = (0.0, 0.0);
        for step in steps.iter().filter(|step| step.shape.prefills.is_empty() != prompts) {
            predicted += foretold(&step.shape)?.value();
            measured += step.busy.iter().map(|busy| busy.seconds().value()).sum::<f64>();
        }
        (measured > 0.0).then(|| predicted / measured - 1.0)
    };
    Some(Off { decode: error(false)?, prompt: error(true)? })
}

/// One stage on any device, with room for the requests in service.
fn scenario(args: &BenchRuntime) -> String {
    format!(
        "name = \"this-machine-serving\"\n\
         question = \"How fast is this machine when requests come at random times?\"\n\n\
         [model]\nfile = \"model.gguf\"  # the file given with --model stands in its place\n\n\
         [workload]\nclients = {together}\nrequests = {requests}\n\
         prompt_tokens = {{ min = {}, max = {} }}\noutput_tokens = {{ min = {}, max = {} }}\n\n\
         [serving]\nrequests_max = {together}\n\n\
         [objective]\nminimise = \"tpot\"\n\n\
         [limits]\nstages_exact = 1\n",
        PROMPTS.min,
        PROMPTS.max,
        ANSWERS.min,
        ANSWERS.max,
        together = args.together,
        requests = args.requests,
    )
}

fn ready(ui: &Ui, sealed: &Sealed) -> Result<Ready, Failure> {
    let quiet = Ui { quiet: true, ..*ui };
    let bytes = files::read(&sealed.manifest)?;
    execution::ready(&quiet, &verify::open(&sealed.manifest, &bytes, &trust::trusted(1)?)?)
}

fn options(seed: u64) -> Options {
    Options { seeds: 1, seed, trace: true, interrupt: Some(interrupt::flag()), ..Options::default() }
}

fn workload(arrivals: Arrivals, requests: u32) -> Workload {
    Workload { arrivals, prompt_tokens: PROMPTS, output_tokens: ANSWERS, requests }
}

fn unsimulated(error: &dyn std::error::Error) -> Failure {
    Failure::io(format!("failed to simulate the load: {}", models::causes(error)))
}

/// Requests per second with twice as many clients as are served at once.
fn capacity(ready: &Ready, problem: &PlacementProblem, args: &BenchRuntime) -> Result<f64, Failure> {
    let clients = args.together.saturating_mul(2);
    let load = workload(Arrivals::ClosedLoop { clients }, SATURATED.max(4 * args.together));
    let report =
        isotherm_sim::simulate(&ready.plan, problem, &load, &options(args.seed)).map_err(|e| unsimulated(&e))?;
    let mean = f64::from(ANSWERS.min + ANSWERS.max) / 2.0;
    match report.metrics.get("tokens_per_second") {
        Some(rate) if rate.mean > 0.0 => Ok(rate.mean / mean),
        _ => Err(Failure::io("the simulation of a full load gave no rate")),
    }
}

/// What the row is called, the metric it is of, the statistic it shows, and the error aimed at.
type Figure = (&'static str, &'static str, fn(&Statistic) -> f64, Option<f64>);

/// The rows of one share.
fn compare(
    share: f64,
    (predicted, of_tables): (&SimulationReport, &SimulationReport),
    as_seen: Option<&SimulationReport>,
    measured: &std::collections::BTreeMap<String, Statistic>,
) -> Vec<Row> {
    // Near capacity a small error of the service time grows in the queue, so that no time to a first token is aimed at.
    let calm = |goal| (share <= 0.6).then_some(goal);
    let figures: [Figure; 4] = [
        ("tpot mean", "tpot_seconds", |s| s.mean, Some(0.05)),
        ("tokens/s", "tokens_per_second", |s| s.mean, Some(0.05)),
        ("ttft p50", "ttft_seconds", |s| s.p50, calm(0.10)),
        ("ttft p90", "ttft_seconds", |s| s.p90, calm(0.15)),
    ];
    let row = |(metric, key, of, goal): Figure| {
        let (predicted, measured) = (of(predicted.metrics.get(key)?), of(measured.get(key)?));
        let tables = of(of_tables.metrics.get(key)?);
        let as_seen = as_seen.and_then(|report| report.metrics.get(key)).map(of);
        let error_as_seen = as_seen.map(|as_seen| as_seen / measured - 1.0);
        let (error, error_tables) = (predicted / measured - 1.0, tables / measured - 1.0);
        Some(Row { metric, predicted, tables, as_seen, measured, error, error_tables, error_as_seen, goal })
    };
    figures.into_iter().filter_map(row).collect()
}

fn describe(result: &Rows) -> String {
    let heading =
        ["load", "metric", "predicted", "measured", "error", "goal", "by the tables alone", "at the speed seen"];
    let mut cells = vec![heading.map(str::to_owned).to_vec()];
    let rows = result.shares.iter().flat_map(|served| served.rows.iter().map(move |row| (served.share, row)));
    cells.extend(rows.map(|(share, row)| {
        let show = |value: f64| match row.metric {
            "tokens/s" => format!("{value:.1}"),
            _ => Seconds::new(value).map_or_else(|_| "-".to_owned(), |seconds| seconds.to_string()),
        };
        let goal = row.goal.map_or_else(|| "none".to_owned(), |goal| format!("{:.0} %", goal * 100.0));
        let share = format!("{:.0} %", share * 100.0);
        let as_seen = row.error_as_seen.map_or_else(|| "-".to_owned(), percent);
        let (error, tables) = (percent(row.error), percent(row.error_tables));
        vec![share, row.metric.to_owned(), show(row.predicted), show(row.measured), error, goal, tables, as_seen]
    }));
    let busy = result.load_average.map_or_else(String::new, |load| format!(", load average before {load:.2}"));
    let of_each = |words: &dyn Fn(&Served) -> String| {
        let each: Vec<String> =
            result.shares.iter().map(|served| format!("{:.0} %: {}", served.share * 100.0, words(served))).collect();
        each.join("; ")
    };
    let speeds = of_each(&|served| match &served.speed {
        Some(speed) => {
            let off = |off: Off| format!("{} and {}", percent(off.decode), percent(off.prompt));
            let during = speed.during.map_or_else(|| "too few".to_owned(), off);
            let own = speed.own.map_or_else(|| "none".to_owned(), off);
            let (before, after) = (off(speed.before), off(speed.after));
            format!("{before} before, {during} in its pauses, {after} after, {own} of its own")
        }
        None => "not timed, the device is unknown".to_owned(),
    });
    let capacities: Vec<String> = result.shares.iter().map(|served| format!("{:.3}", served.capacity_hertz)).collect();
    let capacities = capacities.join(", ");
    let stopped = if result.interrupted { "; stopped before its end" } else { "" };
    let probed = if result.probes == 1 { "once".to_owned() } else { format!("{} times", result.probes) };
    format!(
        "{}\n  single steps alone around and in each load, and its own together, predicted against measured, of \
         decoding and of a prompt: {speeds}\n  {} requests at each share of the capacity ({capacities} requests/s); the machine was probed {probed}\
         {busy}{stopped}\n{}",
        table(&cells, &[2, 3, 4, 5, 6, 7]),
        result.requests,
        result.start.as_ref().map_or_else(String::new, start::Start::lines)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_core::units::SimDuration;

    #[test]
    fn the_loads_own_steps_are_held_against_what_was_foretold_of_each_kind() {
        let taken = |shape: StepShape, milliseconds: &[u64]| Taken {
            shape,
            busy: milliseconds.iter().map(|time| SimDuration(time * 1_000_000)).collect(),
        };
        let mixed = StepShape { decodes: 2, decode_context: 50.0, ..StepShape::prefill(30, 0, true) };
        let steps = [
            taken(StepShape::decode(1, 40.0), &[3]),
            taken(StepShape::decode(3, 40.0), &[1, 4]),
            taken(mixed, &[20]),
            taken(StepShape::prefill(60, 0, true), &[30]),
        ];
        // Two milliseconds a sequence that decodes, half of one for each token of a prompt.
        let foretold = |shape: &StepShape| {
            let prompt: u32 = shape.prefills.iter().map(|prefill| prefill.0).sum();
            Some(Seconds::of(f64::from(shape.decodes) * 2e-3 + f64::from(prompt) * 0.5e-3))
        };
        let found = off(&steps, foretold).expect("both kinds");
        assert!((found.decode - (8.0 / 8.0 - 1.0)).abs() < 1e-12, "{found:?}");
        assert!((found.prompt - (49.0 / 50.0 - 1.0)).abs() < 1e-12, "{found:?}");
        assert!(off(&steps[..2], foretold).is_none(), "no prompt");
        assert!(off(&steps[2..], foretold).is_none(), "nothing but prompts");
        assert!(off(&steps, |_| None).is_none(), "nothing foretold");
    }
}
