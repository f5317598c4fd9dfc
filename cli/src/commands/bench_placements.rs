//! `isotherm bench placements`: many placements on unequal devices, each predicted from the probe and then run.
//!
//! Nothing is fitted to a run. The devices are probed once for each model; placements, contexts and batches are drawn from
//! a seed, and none of their contexts or batches is one that the probe samples. Beside the prediction stands what a model
//! says that knows nothing but layers and the number of devices.
//!
//! The probe tells what steps take where nobody outside this machine uses the same physical cores, as in a guest of a
//! virtual machine somebody may. So does what is measured: by how much neighbours lengthened steps is seen in each run and
//! left out. What was measured with it stands beside.

use crate::access::Wish;
use crate::args::{ArithmeticName, BenchPlacements};
use crate::commands::access::{PROBING, pass};
use crate::commands::others::Ticks;
use crate::commands::{bench_load, plan, probe};
use crate::failure::{Code, Done, Failure};
use crate::models::{self, LocalModel};
use crate::ui::{Ui, percent, table};
use crate::{files, interrupt, question, trust};
use isotherm_audit::keys::Identity;
use isotherm_core::artefact::Header;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::cost::OperatorProfile;
use isotherm_core::graph::{DEVICES_SCHEMA, DevicesFile};
use isotherm_core::ids::Layers;
use isotherm_core::plan::Plan;
use isotherm_core::problem::PlacementProblem;
use isotherm_core::record::metrics;
use isotherm_core::trace::{LinkRecord, Trace};
use isotherm_core::units::Seconds;
use isotherm_core::workload::{Arrivals, Length, Workload};
use isotherm_planner::Outcome;
use isotherm_planner::baselines::placed;
use isotherm_runtime::engine::Kernels;
use isotherm_runtime::execute::{Arriving, Orders, Prompt, Verdict, execute};
use isotherm_runtime::host::{Host, Roots};
use isotherm_runtime::model::Geometry;
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::synth::{self, SynthSpec, SynthTokenizer};
use isotherm_sim::Options;
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::Ordering;

mod judge;
mod slower;

use judge::Verdicts;
use slower::Slower;

/// Schema of what this command writes.
const SCHEMA: &str = "isotherm.placements/v2";
/// The device that is slowed as asked for, on the core of `cpu0`, and the one that is slowed by this factor besides, so
/// that no device is another's equal: of two placements on equals neither is the better one.
const SLOWED: &str = "cpu2";
const SLOWED_TOO: (&str, f64) = ("cpu1", 1.4);

/// Share of the cores beyond which what other programs took of them disturbs a run.
const OTHERS_MAX: f64 = 0.05;
/// Share of a probe's passes beyond which what was disturbed has it made again.
const DISTURBED_MAX: f64 = 0.5;
/// Most runs of a placement, in multiples of those asked for, and most probes: disturbed ones are made again.
const AGAIN: u32 = 3;

/// A load: clients, tokens of a prompt, tokens of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Load {
    clients: u32,
    prompt_tokens: u32,
    output_tokens: u32,
}

/// Loads of the first model. The probe samples contexts of 16, 256 and 1024 and batches of 1, 2, 4 and 8.
const LOADS: [Load; 3] = [
    Load { clients: 1, prompt_tokens: 91, output_tokens: 50 },
    Load { clients: 1, prompt_tokens: 387, output_tokens: 40 },
    Load { clients: 3, prompt_tokens: 53, output_tokens: 40 },
];
/// Loads of the second.
const OTHER_LOADS: [Load; 2] = [
    Load { clients: 1, prompt_tokens: 130, output_tokens: 200 },
    Load { clients: 3, prompt_tokens: 70, output_tokens: 150 },
];

/// One placement, predicted and run.
#[derive(Clone, Debug, Serialize)]
struct Row {
    model: String,
    load: Load,
    /// Device and layers of each stage.
    stages: Vec<(String, u32, u32)>,
    /// Whether the planner chose it for this load.
    chosen: bool,
    /// Seconds of an output token.
    predicted: f64,
    /// The same, measured, without what neighbours took: median of the runs that nothing else disturbed, or of all
    /// where there is none.
    measured: f64,
    /// Half the range of those runs.
    apart: f64,
    /// The same with what neighbours took.
    as_run: f64,
    as_run_apart: f64,
    /// Each run.
    runs: Vec<Timed>,
    /// `predicted / measured - 1`.
    error: f64,
    /// Seconds that each stage is busy with a step, mean over all steps: predicted, and measured in the last run.
    busy_predicted: Vec<f64>,
    busy_measured: Vec<f64>,
    /// Seconds from the end of a stage to the begin of the next, measured in the last run.
    between_measured: Vec<f64>,
    /// What layers over devices say, scaled so that its median error is none.
    null: f64,
}

/// One run of a placement.
#[derive(Clone, Copy, Debug, Serialize)]
struct Timed {
    /// Seconds of an output token.
    seconds: f64,
    /// How many times as long as without neighbours on the same physical cores stages were busy with a step; absent
    /// where too few steps were without.
    slowdown: Option<f64>,
    /// Share of the steps with a neighbour.
    beside: Option<f64>,
    /// Seconds of each token that went into looking for neighbours.
    looking: f64,
    /// Share of the cores that other programs took; absent where the system does not tell.
    others: Option<f64>,
}

impl Timed {
    /// Seconds of an output token with what neighbours took, without looking for them.
    fn as_run(&self) -> f64 {
        (self.seconds - self.looking).max(0.0)
    }

    /// Seconds of an output token without neighbours, as far as is known.
    fn alone(&self) -> f64 {
        self.as_run() / self.slowdown.unwrap_or(1.0)
    }

    /// Whether no other program took much of the processor, and what neighbours took is known. Where the former is not
    /// told, it is taken for granted.
    fn is_calm(&self) -> bool {
        self.others.is_none_or(|share| share <= OTHERS_MAX) && self.slowdown.is_some()
    }
}

#[derive(Serialize)]
struct Artefact {
    #[serde(flatten)]
    header: Header,
    load_average: Option<f64>,
    rows: Vec<Row>,
    verdicts: Verdicts,
    /// The same of what was measured with what neighbours took.
    as_run: Verdicts,
    slower: Option<Slower>,
}

/// Runs the command.
pub fn run(ui: &Ui, args: &BenchPlacements) -> Done {
    if args.placements == 0 || args.runs == 0 {
        return Err(Failure::new(Code::Usage, "--placements and --runs are counts; give at least 1"));
    }
    let identity = trust::identity(ui)?;
    pass(&identity, &Wish { guest: None, permissions: &PROBING, devices: &[("cpu", 0)], subjects: &[] })?;
    std::fs::create_dir_all(&args.output).map_err(|e| Failure::file(&args.output, e))?;
    let load_average = std::fs::read_to_string("/proc/loadavg").ok();
    let load_average = load_average.and_then(|text| text.split(' ').next().and_then(|one| one.parse().ok()));
    let first = Subject::new(ui, args, &identity, models::open(ui, &args.model)?, "first")?;
    let second = Subject::new(ui, args, &identity, second(ui, &args.output)?, "second")?;
    let asked: Vec<(&Subject, Load)> =
        LOADS.iter().map(|load| (&first, *load)).chain(OTHER_LOADS.iter().map(|load| (&second, *load))).collect();
    let mut placed = Vec::new();
    let mut chance = args.seed;
    for (turn, (subject, load)) in asked.iter().enumerate() {
        // The first loads get one more where the number does not divide.
        let share = args.placements as usize / asked.len() + usize::from(turn < args.placements as usize % asked.len());
        placed.extend(subject.placements(ui, *load, share, &mut chance)?);
    }
    let total = placed.len() as u64 * u64::from(args.runs);
    let mut bar = ui.bar(total, "running");
    let mut done = 0;
    // Run after run of all of them, so that a disturbance spoils one run of each; and again where too many were.
    'rounds: for run in 0..args.runs.saturating_mul(AGAIN) {
        for one in placed.iter_mut().filter(|one| one.calm() < args.runs as usize) {
            let before = Ticks::now();
            let timed = match one.run(u64::from(run) ^ args.seed) {
                Ok(timed) => timed,
                // Whoever stops it after the first round gets what there is.
                Err(_) if run > 0 && interrupt::flag().load(Ordering::Relaxed) => break 'rounds,
                Err(failure) => return Err(failure),
            };
            let others = before.zip(Ticks::now()).and_then(|(before, now)| now.others_since(before));
            one.runs.push(Timed { others, ..timed });
            done = (done + 1).min(total);
            bar.at(done, total);
        }
    }
    bar.finish();
    let rows = judge::rows(placed.iter().map(Placed::row).collect());
    let verdicts = judge::verdicts(&rows);
    let as_run = judge::verdicts(&judge::as_run(&rows));
    let inputs = [&first, &second].iter().filter_map(|subject| subject.model.model.digest).collect();
    let header = Header::new(SCHEMA, inputs);
    let mut artefact = Artefact { header, load_average, rows, verdicts, as_run, slower: None };
    let output = args.output.join("placements.json");
    files::write_json(&output, &artefact)?;
    if !args.skip_slower && !interrupt::flag().load(Ordering::Relaxed) {
        artefact.slower = Some(slower::run(ui, args, &identity, &first)?);
        files::write_json(&output, &artefact)?;
    }
    ui.result(&artefact, || text(&artefact))
}

/// A model of another geometry, written beside the results: eight layers of 512 in another format.
fn second(ui: &Ui, folder: &Path) -> Result<LocalModel, Failure> {
    let shape = synth::named("smollm2-135m").map(|like| Geometry {
        layers: 8,
        hidden: 512,
        feed_forward: 1536,
        heads: 8,
        kv_heads: 4,
        vocabulary: 320,
        tied: false,
        ..like
    });
    let shape = shape.ok_or_else(|| Failure::io("there is no geometry to derive a second one from"))?;
    let spec = SynthSpec {
        geometry: &shape,
        format: BlockFormat::Q8_0,
        embedding: BlockFormat::Q8_0,
        seed: 7,
        tokenizer: SynthTokenizer::Small,
    };
    let path = folder.join("second.gguf");
    synth::write(&path, &spec).map_err(|e| Failure::file(&path, models::causes(&e)))?;
    models::open_file(ui, &path)
}

/// A model and the devices as they were probed with it.
struct Subject {
    model: LocalModel,
    devices: DevicesFile,
}

/// A placement about to be run.
struct Placed<'a> {
    subject: &'a Subject,
    load: Load,
    problem: PlacementProblem,
    plan: FeasiblePlan,
    stages: Vec<(String, Layers)>,
    chosen: bool,
    predicted: f64,
    busy_predicted: Vec<f64>,
    /// Of the last run: what each stage was busy with a step, and what passes waited between stages.
    busy: Vec<f64>,
    between: Vec<f64>,
    runs: Vec<Timed>,
}

impl Subject {
    fn new(
        ui: &Ui,
        args: &BenchPlacements,
        identity: &Identity,
        model: LocalModel,
        name: &str,
    ) -> Result<Self, Failure> {
        let slow = [(SLOWED.to_owned(), args.slow), (SLOWED_TOO.0.to_owned(), SLOWED_TOO.1)];
        let before = args.output.join(format!("devices-{name}.json"));
        if args.reuse && before.exists() {
            let (devices, _) = files::read_artefact::<DevicesFile>(&before, DEVICES_SCHEMA)?;
            let known = devices.devices.iter().flat_map(|device| &device.profiles);
            if known.into_iter().any(|profile| profile.geometry == model.model.geometry()) {
                return Ok(Self { model, devices });
            }
        }
        let devices = Self::probed(ui, args, identity, &model, &slow, &format!("devices-{name}.json"))?;
        Ok(Self { model, devices })
    }

    /// The processor whole, and each core as devices of one thread, all but the first of them slowed; cards where
    /// named.
    fn probed(
        ui: &Ui,
        args: &BenchPlacements,
        identity: &Identity,
        model: &LocalModel,
        slow: &[(String, f64)],
        file: &str,
    ) -> Result<DevicesFile, Failure> {
        let wanted = probe::Wanted {
            split: 3,
            backends: &args.backends,
            logical: 1,
            slow,
            arithmetic: ArithmeticName::F32,
            offload: None,
        };
        let output = args.output.join(file);
        let mut best: Option<(f64, DevicesFile)> = None;
        for _ in 0..AGAIN {
            let (devices, _) = probe::measure(ui, identity, None, model, &wanted, args.budget, &output)?;
            let disturbed = disturbed(&devices);
            if best.as_ref().is_none_or(|(least, _)| disturbed < *least) {
                best = Some((disturbed, devices));
            }
            if disturbed <= DISTURBED_MAX {
                break;
            }
        }
        let (_, devices) = best.ok_or_else(|| Failure::io("nothing was probed"))?;
        files::write_json(&output, &devices)?;
        Ok(devices)
    }

    fn layers(&self) -> u32 {
        self.model.model.layers()
    }

    fn problem(&self, scenario: &str) -> Result<PlacementProblem, Failure> {
        let path = Path::new("placements.toml");
        let scenario = question::parse(path, scenario)?;
        question::made(path, &scenario, Some(self.devices.clone()), Some(self.model.model.clone()), None)
    }

    /// So many placements under a load: what the planner chooses, each device alone, and the rest drawn.
    fn placements(&self, ui: &Ui, load: Load, count: usize, chance: &mut u64) -> Result<Vec<Placed<'_>>, Failure> {
        let problem = self.problem(&scenario(load, ""))?;
        let mut found: Vec<Placed<'_>> = Vec::new();
        let quiet = Ui { quiet: true, ..*ui };
        let (outcome, _) = plan::solve(&quiet, &problem, Seconds::of(20.0), 1e-6)?;
        if let Outcome::Optimal(plan) | Outcome::Feasible { plan, .. } = outcome {
            found.push(self.placed(load, &problem, plan, true)?);
        }
        let names: Vec<&str> = problem.graph.devices().iter().map(|device| device.name.as_str()).collect();
        let whole = Layers::new(0, self.layers());
        let mut wanted: Vec<Vec<(String, Layers)>> =
            names.iter().map(|name| vec![((*name).to_owned(), whole)]).collect();
        // Draws repeat themselves where there are few layers; then there are fewer placements than were asked for.
        wanted.extend((0..count * 20).map(|_| drawn(&names, self.layers(), chance)));
        for stages in wanted {
            if found.len() >= count {
                break;
            }
            if found.iter().any(|placed| placed.stages == stages) {
                continue;
            }
            let plan = placed(&problem, &stages, None, "drawn").map_err(|e| Failure::io(models::causes(&e)))?;
            if let Some(plan) = plan {
                found.push(self.placed(load, &problem, plan, false)?);
            }
        }
        Ok(found)
    }

    fn placed(
        &self,
        load: Load,
        problem: &PlacementProblem,
        plan: FeasiblePlan,
        chosen: bool,
    ) -> Result<Placed<'_>, Failure> {
        let options = Options { interrupt: Some(interrupt::flag()), trace: true, ..Options::default() };
        let report = isotherm_sim::simulate(&plan, problem, &workload(load), &options)
            .map_err(|e| Failure::io(format!("failed to simulate a placement: {}", models::causes(&e))))?;
        let predicted = report.metrics.get("tpot_seconds").map(|statistic| statistic.mean);
        let predicted = predicted.ok_or_else(|| Failure::io("the simulation of a placement gave no time per token"))?;
        let stages = stages(plan.plan());
        let busy_predicted = report.trace.as_ref().map_or_else(Vec::new, busy);
        Ok(Placed {
            subject: self,
            load,
            problem: problem.clone(),
            plan,
            stages,
            chosen,
            predicted,
            busy_predicted,
            busy: Vec::new(),
            between: Vec::new(),
            runs: Vec::new(),
        })
    }
}

impl Placed<'_> {
    /// One run. What others took is not known here.
    fn run(&mut self, seed: u64) -> Result<Timed, Failure> {
        let executed = self.executed(seed)?;
        self.busy = busy(&executed.trace);
        let mean = |link: &LinkRecord| link.between_ns.0 as f64 * 1e-9 / link.messages.max(1) as f64;
        self.between = executed.trace.links.iter().map(mean).collect();
        let found = metrics(&executed.trace).get("tpot_seconds").map(|statistic| statistic.mean);
        let seconds = found.ok_or_else(|| Failure::io("a run gave no time per token"))?;
        let seen = executed.neighbours.unwrap_or_default();
        let (slowdown, beside) = (seen.slowdown(), seen.share());
        Ok(Timed { seconds, slowdown, beside, looking: seen.looking_seconds(), others: None })
    }

    fn executed(&self, seed: u64) -> Result<isotherm_runtime::execute::Executed, Failure> {
        let Self { subject, load, .. } = self;
        let vocabulary = u64::try_from(subject.model.geometry.vocabulary).unwrap_or(u64::MAX).max(1);
        let mut chance = seed;
        let mut prompt = || {
            let tokens = (0..load.prompt_tokens).map(|_| (next(&mut chance) % vocabulary) as u32).collect();
            Prompt::greedy(tokens, load.output_tokens)
        };
        let prompts: Vec<Prompt> = (0..load.clients).map(|_| prompt()).collect();
        let orders = Orders {
            plan: &self.plan,
            graph: &self.problem.graph,
            gguf: &subject.model.gguf,
            geometry: &subject.model.geometry,
            serving: self.problem.serving,
            kernels: Kernels::detect(),
            stop: &[],
            waiting_max: None,
            cancels: None,
            memory_available: Host::discover(&Roots::default()).memory_available_bytes,
            weights_budget: None,
            weights_folder: None,
            looks_beside: true,
            idle: &[],
            keeps_steps: false,
        };
        let mut go_on = |_: isotherm_runtime::execute::Token<'_>| {
            if interrupt::flag().load(Ordering::Relaxed) { Verdict::EndRun } else { Verdict::GoOn }
        };
        let executed = execute(&orders, &prompts, &Arriving::Clients(load.clients), &mut go_on)
            .map_err(|e| Failure::new(Code::Device, format!("failed to run a placement: {}", models::causes(&e))))?;
        if executed.interrupted { Err(Failure::io("interrupted")) } else { Ok(executed) }
    }

    /// How many runs nothing disturbed.
    fn calm(&self) -> usize {
        self.runs.iter().filter(|run| run.is_calm()).count()
    }

    fn row(&self) -> Row {
        let any = self.runs.iter().any(Timed::is_calm);
        let counting: Vec<&Timed> = self.runs.iter().filter(|run| run.is_calm() || !any).collect();
        let middle = |of: fn(&Timed) -> f64| {
            let times: Vec<f64> = counting.iter().map(|run| of(run)).collect();
            let (least, most) = times.iter().fold((f64::INFINITY, 0.0_f64), |(a, b), &run| (a.min(run), b.max(run)));
            (bench_load::median(&times).unwrap_or(0.0), (most - least).max(0.0) / 2.0)
        };
        let (measured, apart) = middle(Timed::alone);
        let (as_run, as_run_apart) = middle(Timed::as_run);
        Row {
            model: self.subject.model.model.name.clone(),
            load: self.load,
            stages: self.stages.iter().map(|(name, layers)| (name.clone(), layers.start, layers.end)).collect(),
            chosen: self.chosen,
            predicted: self.predicted,
            measured,
            apart,
            as_run,
            as_run_apart,
            runs: self.runs.clone(),
            error: self.predicted / measured - 1.0,
            busy_predicted: self.busy_predicted.clone(),
            busy_measured: self.busy.clone(),
            between_measured: self.between.clone(),
            null: 0.0,
        }
    }
}

/// Seconds that each stage of a trace was busy with a step.
fn busy(trace: &Trace) -> Vec<f64> {
    trace.stages.iter().map(|stage| stage.busy_ns.0 as f64 * 1e-9 / stage.steps.max(1) as f64).collect()
}

/// Share of a probe's passes that other programs disturbed, or whoever runs this machine, of the device where that is
/// largest; none where it is not told.
fn disturbed(devices: &DevicesFile) -> f64 {
    let profiles = devices.devices.iter().flat_map(|device| &device.profiles);
    let of = |profile: &OperatorProfile| {
        let conditions = profile.conditions.as_ref()?;
        Some(conditions.disturbed.unwrap_or(0.0).max(conditions.neighbours.unwrap_or(0.0)))
    };
    profiles.filter_map(of).fold(0.0, f64::max)
}

/// Device and layers of each stage of a plan, in order.
fn stages(plan: &Plan) -> Vec<(String, Layers)> {
    let stops = plan.routes.iter().take(1).flat_map(|route| &route.stages);
    let device = |stage: u32| plan.stages.get(stage as usize).and_then(|stage| stage.devices.first());
    stops.filter_map(|stop| Some((device(stop.stage)?.clone(), stop.layers))).collect()
}

fn workload(load: Load) -> Workload {
    Workload {
        arrivals: Arrivals::ClosedLoop { clients: load.clients },
        prompt_tokens: Length::fixed(load.prompt_tokens),
        output_tokens: Length::fixed(load.output_tokens),
        requests: load.clients,
    }
}

fn scenario(load: Load, limits: &str) -> String {
    format!(
        "name = \"placements\"\nquestion = \"How fast is each of many placements?\"\n\n\
         [model]\nfile = \"model.gguf\"\n\n\
         [workload]\nclients = {clients}\nprompt_tokens = {}\noutput_tokens = {}\nrequests = {clients}\n\n\
         [serving]\nrequests_max = {clients}\n\n{}",
        load.prompt_tokens,
        load.output_tokens,
        if limits.is_empty() { "[objective]\nminimise = \"tpot\"\n" } else { limits },
        clients = load.clients,
    )
}

/// One to three stages on different devices, cut anywhere.
fn drawn(names: &[&str], layers: u32, chance: &mut u64) -> Vec<(String, Layers)> {
    let mut below = |most: usize| (next(chance) % most.max(1) as u64) as usize;
    let count = (1 + below(3)).min(names.len()).min(layers as usize);
    let mut left: Vec<&str> = names.to_vec();
    let chosen: Vec<&str> = (0..count).map(|_| left.remove(below(left.len()))).collect();
    let mut cuts = vec![0, layers];
    while cuts.len() < count + 1 {
        let cut = 1 + below(layers as usize - 1) as u32;
        if let Err(place) = cuts.binary_search(&cut) {
            cuts.insert(place, cut);
        }
    }
    chosen.iter().zip(cuts.windows(2)).map(|(name, cut)| ((*name).to_owned(), Layers::new(cut[0], cut[1]))).collect()
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn text(artefact: &Artefact) -> String {
    let time = |seconds: f64| Seconds::new(seconds).map_or_else(|_| "-".to_owned(), |seconds| seconds.to_string());
    let heading = ["model", "load", "stages", "predicted", "measured", "error", "layers / devices"];
    let mut cells = vec![heading.map(str::to_owned).to_vec()];
    cells.extend(artefact.rows.iter().map(|row| {
        let stages: Vec<String> = row.stages.iter().map(|(name, from, to)| format!("{name} {}", to - from)).collect();
        let Load { clients, prompt_tokens, output_tokens } = row.load;
        vec![
            row.model.clone(),
            format!("{clients} x {prompt_tokens}+{output_tokens}"),
            format!("{}{}", stages.join(", "), if row.chosen { "  (planner's)" } else { "" }),
            time(row.predicted),
            time(row.measured),
            percent(row.error),
            percent(row.null / row.measured - 1.0),
        ]
    }));
    let busy = artefact.load_average.map_or_else(String::new, |load| format!("; load average before {load:.2}"));
    let mut text = format!("{}\n{}{busy}\n", table(&cells, &[3, 4, 5, 6]), artefact.verdicts.words());
    text.push_str(&artefact.as_run.words_as_run());
    if let Some(slower) = &artefact.slower {
        text.push_str(&slower.words());
    }
    text
}
