//! `isotherm bench runtime --speed`: prompts and tokens per second, beside peers where they are named.
//!
//! All sides run in turn, round by round, on the same pinned cores, with the same prompt and as many tokens; medians
//! are shown. Decoding reads every weight once per token, so its share of the memory's bandwidth says how much is left to gain.

use super::budget::{self, Slower};
use super::peer::{Peer, Which};
use crate::args::BenchRuntime;
use crate::failure::{Code, Done, Failure};
use crate::interrupt;
use crate::models::{self, LocalModel};
use crate::ui::{Ui, table};
use isotherm_core::units::Bytes;
use isotherm_runtime::backend::routes::{self, Routes};
use isotherm_runtime::cpu::{Arithmetic, Isa, read_bandwidth};
use isotherm_runtime::engine::{Card, CpuDevice, Cut, Kernels, Offloaded, Runner, RunnerError, Sampling, StartError};
use serde::Serialize;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Sequences that decode together.
const TOGETHER: [usize; 2] = [2, 8];
/// Tokens of each of their prompts.
const SHORT: usize = 16;
/// Bytes from which each core reads to find the bandwidth.
const READ_BYTES: usize = 128 << 20;

/// One way of running the model on some cores.
#[derive(Serialize)]
struct Row {
    cores: usize,
    /// `f32`, `int8`, or the peer.
    who: String,
    /// Tokens of the prompt per second.
    prefill: f64,
    /// Tokens of the answer per second.
    decode: f64,
    /// Bytes of weights read per second of decoding, over the bytes that these cores read at most.
    bandwidth_share: Option<f64>,
    /// Tokens per second of 2 and of 8 sequences together.
    together: Vec<f64>,
    /// Each figure over that of the peer that is best at it: prefill, decode, together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    over_peers: Vec<f64>,
}

#[derive(Serialize)]
struct Speeds<'a> {
    model: &'a str,
    quantisation: &'a str,
    instructions: &'static str,
    /// Bytes that a decoded token reads.
    bytes_per_token: Bytes,
    /// Bytes per second that one core and all cores read.
    bandwidth: [Option<f64>; 2],
    prompt_tokens: u32,
    output_tokens: u32,
    rounds: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_average: Option<f64>,
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    budgets: Vec<Slower>,
}

/// Runs the command.
pub(super) fn run(ui: &Ui, args: &BenchRuntime) -> Done {
    if args.rounds == 0 || args.prompt_tokens == 0 || args.output_tokens < 2 {
        let counts = "--rounds and --prompt-tokens are counts, --output-tokens at least 2";
        return Err(Failure::new(Code::Usage, counts));
    }
    let model = models::open(ui, &args.model)?;
    let cores = CpuDevice::host_cores();
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let load_average = load.and_then(|text| text.split(' ').next().and_then(|one| one.parse().ok()));
    let mut sizes = vec![1, cores.len()];
    sizes.dedup();
    let bandwidth = [1, cores.len()].map(|count| read_bandwidth(&cores[..count.min(cores.len())], READ_BYTES));
    let bytes = per_token(&model);
    let places: Vec<(CpuDevice, &[usize], Option<f64>)> = if let Some(name) = &args.device {
        let device = card(name)?;
        crate::access::timing(&[name])?;
        vec![(device, &cores, None)]
    } else {
        let of =
            |(count, bandwidth): (&usize, _)| (CpuDevice::new("cpu", &cores[..*count]), &cores[..*count], bandwidth);
        sizes.iter().zip(bandwidth).map(of).collect()
    };
    let whole = places.last().map(|(device, ..)| device);
    if args.weights_budget.is_some() {
        ui.note("  within the budget");
    }
    let budgets = whole.map(|device| within(args, &model, device)).transpose()?.unwrap_or_default();
    let mut rows = Vec::new();
    for (device, cores, bandwidth) in &places {
        match &args.device {
            Some(name) => ui.note(format!("  {name}")),
            None => ui.note(format!("  {} cores", cores.len())),
        }
        rows.extend(on_device(ui, args, &model, (device, cores), *bandwidth, bytes)?);
    }
    let result = Speeds {
        model: &model.model.name,
        quantisation: &model.model.quantisation,
        instructions: Isa::detect().name(),
        bytes_per_token: bytes,
        bandwidth,
        prompt_tokens: args.prompt_tokens,
        output_tokens: args.output_tokens,
        rounds: args.rounds,
        load_average,
        rows,
        budgets,
    };
    ui.result(&result, || describe(&result))
}

/// What a budget for weights costs on a device, in each arithmetic; nothing where none is given.
fn within(args: &BenchRuntime, model: &LocalModel, device: &CpuDevice) -> Result<Vec<Slower>, Failure> {
    let Some(budget) = args.weights_budget else { return Ok(Vec::new()) };
    ways(model).iter().map(|&arithmetic| budget::slower(&Side { args, model, device, arithmetic }, budget)).collect()
}

/// The arithmetics that differ: where weights are not quantised, both are one.
fn ways(model: &LocalModel) -> &'static [Arithmetic] {
    let quantised = !matches!(model.model.quantisation.as_str(), "F32" | "F16" | "BF16");
    if quantised { &[Arithmetic::F32, Arithmetic::Int8] } else { &[Arithmetic::F32] }
}

/// The device of that name that another interface than the processor's shows.
fn card(name: &str) -> Result<CpuDevice, Failure> {
    let found = Routes::discover(routes::platforms(), &[]);
    let Some(device) = found.devices.iter().find(|device| device.name == name) else {
        let names: Vec<&str> = found.devices.iter().map(|device| device.name.as_str()).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(Failure::new(
            Code::Device,
            format!("there is no device {name:?} beside the processor; there are: {there}"),
        ));
    };
    let route = &device.routes[0];
    Ok(CpuDevice::of_card(name, Card { platform: route.platform.clone(), index: route.info.index }))
}

/// Bytes of weights that one decoded token reads: all layers, and the output head.
fn per_token(model: &LocalModel) -> Bytes {
    let head = if model.model.tied { model.model.embedding_bytes } else { model.model.head_bytes };
    model.model.layer_bytes.iter().copied().chain([head]).sum()
}

/// Samples of one side.
#[derive(Default)]
struct Samples {
    prefill: Vec<f64>,
    token: Vec<f64>,
    together: Vec<Vec<f64>>,
}

impl Samples {
    fn add_together(&mut self, rates: Vec<f64>) {
        self.together.resize(rates.len(), Vec::new());
        self.together.iter_mut().zip(rates).for_each(|(all, rate)| all.push(rate));
    }

    fn row(mut self, cores: usize, who: String, prompt: u32, bytes: Bytes, bandwidth: Option<f64>) -> Row {
        let decode = 1.0 / median(&mut self.token);
        Row {
            cores,
            who,
            prefill: f64::from(prompt) / median(&mut self.prefill),
            decode,
            bandwidth_share: bandwidth.map(|bandwidth| decode * bytes.0 as f64 / bandwidth),
            together: self.together.iter_mut().map(|rates| median(rates)).collect(),
            over_peers: Vec::new(),
        }
    }
}

impl Row {
    fn figures(&self) -> Vec<f64> {
        [self.prefill, self.decode].into_iter().chain(self.together.iter().copied()).collect()
    }
}

pub(super) fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The rows of a device: both arithmetics, and the peers, which have the host's part of their work on `cores`.
fn on_device(
    ui: &Ui,
    args: &BenchRuntime,
    model: &LocalModel,
    (device, cores): (&CpuDevice, &[usize]),
    bandwidth: Option<f64>,
    bytes: Bytes,
) -> Result<Vec<Row>, Failure> {
    let index = device.card.as_ref().map(|card| card.index);
    let which = args.peer.iter().map(|folder| Which::LlamaCpp(folder));
    let which = which.chain(args.peer_program.iter().map(|program| Which::Program(program)));
    let mut peers = which
        .map(|which| Ok((Peer::start(args, which, &model.path, (cores, index), &TOGETHER)?, Samples::default())))
        .collect::<Result<Vec<_>, Failure>>()?;
    let ways = ways(model);
    let mut own: Vec<Samples> = ways.iter().map(|_| Samples::default()).collect();
    for round in 0..args.rounds {
        for (samples, &arithmetic) in own.iter_mut().zip(ways) {
            let seen = Side { args, model, device, arithmetic }.round(Load::All)?;
            samples.prefill.push(seen.prefill);
            samples.token.extend(seen.token);
            samples.add_together(seen.together);
        }
        for (peer, theirs) in &mut peers {
            let answer = peer.round()?;
            theirs.prefill.push(answer.prefill_s);
            theirs.token.extend(answer.token_s);
            theirs.add_together(answer.together);
        }
        ui.note(format!("    round {} of {}", round + 1, args.rounds));
        if interrupt::flag().load(Ordering::Relaxed) {
            return Err(Failure::io(format!("interrupted after round {} of {}", round + 1, args.rounds)));
        }
    }
    let row =
        |samples: Samples, who: String| samples.row(device.cores.len(), who, args.prompt_tokens, bytes, bandwidth);
    let mut rows: Vec<Row> = own.into_iter().zip(ways).map(|(own, way)| row(own, way.name().to_owned())).collect();
    let peers: Vec<Row> = peers.into_iter().map(|(peer, theirs)| row(theirs, peer.name.clone())).collect();
    let figures: Vec<Vec<f64>> = peers.iter().map(Row::figures).collect();
    for row in &mut rows {
        let best = |at: usize| figures.iter().filter_map(|all| all.get(at).copied()).reduce(f64::max);
        let own = row.figures().into_iter().enumerate();
        row.over_peers = own.filter_map(|(at, own)| Some(own / best(at)?)).collect();
    }
    rows.extend(peers);
    Ok(rows)
}

/// How much of the weights a device holds.
#[derive(Clone, Copy)]
pub(super) enum Load {
    All,
    /// At most so many bytes; the other layers lie in a file.
    Within(Bytes),
    /// All but so many layers, which lie in the host's memory.
    Away(usize),
}

/// What one round saw.
pub(super) struct Seen {
    /// Seconds of the prompt.
    prefill: f64,
    /// Seconds of each token after it.
    pub(super) token: Vec<f64>,
    /// Tokens per second of several sequences.
    together: Vec<f64>,
    /// What was brought, and how long it took.
    pub(super) offloaded: Option<Offloaded>,
    /// Memory of the card in use at the end.
    pub(super) card_bytes: Option<u64>,
}

/// A device and an arithmetic that a model is run with.
pub(super) struct Side<'a> {
    pub(super) args: &'a BenchRuntime,
    pub(super) model: &'a LocalModel,
    pub(super) device: &'a CpuDevice,
    pub(super) arithmetic: Arithmetic,
}

impl Side<'_> {
    /// A round on a thread of its own: the driver of a pipeline is bound to a core, and this leaves the caller's free.
    pub(super) fn round(&self, load: Load) -> Result<Seen, Failure> {
        std::thread::scope(|scope| scope.spawn(|| one_round(self, load)).join())
            .map_err(|_| Failure::io("a round ended in a panic"))?
    }
}

/// Loads the model, and runs one prompt and its answer, and several sequences together.
fn one_round(side: &Side<'_>, load: Load) -> Result<Seen, Failure> {
    let &Side { args, model, device, arithmetic } = side;
    let (prompt, output) = (args.prompt_tokens as usize, args.output_tokens as usize);
    let most = TOGETHER.iter().max().copied().unwrap_or(1);
    let room = (prompt + output).max(most * (SHORT + output).next_multiple_of(16));
    let cut = Cut { layers: 0..model.geometry.layers, device: device.clone() };
    let kernels = Kernels { arithmetic, ..Kernels::detect() };
    let folder = std::env::temp_dir();
    let failed = |e: RunnerError| {
        let code = match &e {
            RunnerError::Start(StartError::Budget { .. }) => Code::Usage,
            RunnerError::Start(StartError::Device { .. } | StartError::Gate { .. }) | RunnerError::Device(_) => {
                Code::Device
            }
            _ => Code::Io,
        };
        Failure::new(code, models::causes(&e))
    };
    let (cuts, room) = ([cut], (room, prompt.max(most)));
    let mut runner = match load {
        Load::All => Runner::start_within(&model.gguf, &model.geometry, kernels, &cuts, room, None),
        Load::Within(budget) => {
            let budget = Some((budget.0, folder.as_path()));
            Runner::start_within(&model.gguf, &model.geometry, kernels, &cuts, room, budget)
        }
        Load::Away(away) => Runner::start_bringing(&model.gguf, &model.geometry, kernels, (&cuts, &[away]), room),
    }
    .map_err(failed)?;
    let vocabulary = model.geometry.vocabulary;
    let text = |length: usize, salt: usize| -> Vec<u32> {
        (0..length).map(|i| ((i * 37 + salt) % vocabulary.min(250)) as u32).collect()
    };
    // The first pass touches memory for the first time, and does not count.
    runner.generate(&text(2, 1), 2, &[], Sampling::GREEDY, &mut |_| true).map_err(failed)?;
    let mut times = Vec::new();
    let mut last = Instant::now();
    let mut each = |_| {
        times.push(last.elapsed().as_secs_f64());
        last = Instant::now();
        true
    };
    runner.generate(&text(prompt, 0), output + 1, &[], Sampling::GREEDY, &mut each).map_err(failed)?;
    let prefill = times.remove(0);
    let mut together = Vec::new();
    for count in TOGETHER {
        let prompts: Vec<Vec<u32>> = (0..count).map(|salt| text(SHORT, salt)).collect();
        let mut ends = Vec::new();
        runner.together(&prompts, output, &mut || ends.push(Instant::now())).map_err(failed)?;
        if let [first, .., end] = ends.as_slice() {
            together.push((count * (output - 1)) as f64 / (*end - *first).as_secs_f64());
        }
    }
    let card = runner.card_memory().map_err(failed)?;
    let card_bytes = card.map(|(own, memory)| memory.used.unwrap_or(own));
    Ok(Seen { prefill, token: times, together, offloaded: runner.offloaded(), card_bytes })
}

fn describe(result: &Speeds<'_>) -> String {
    let heading =
        ["cores", "who", "prefill", "decode", "of bandwidth", "2 together", "8 together", "over the best peer"];
    let mut cells = vec![heading.map(str::to_owned).to_vec()];
    cells.extend(result.rows.iter().map(|row| {
        let rate = |rate: f64| format!("{rate:.1} tok/s");
        let share = row.bandwidth_share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0));
        let together = |at: usize| row.together.get(at).map_or_else(|| "-".to_owned(), |&r| rate(r));
        let over = row.over_peers.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" ");
        let (prefill, decode) = (rate(row.prefill), rate(row.decode));
        vec![row.cores.to_string(), row.who.clone(), prefill, decode, share, together(0), together(1), over]
    }));
    let rate = |rate: Option<f64>| rate.map_or_else(|| "unknown".to_owned(), |rate| format!("{:.1} GB/s", rate * 1e-9));
    let busy = result.load_average.map_or_else(String::new, |load| format!("; load average before {load:.2}"));
    let budgets: String = result.budgets.iter().map(Slower::line).collect();
    format!(
        "{}\n  {} in {}, {}; {} read per token; one core reads {}, all {}\n  prompts of {} tokens, answers of {}, medians of {} \
         rounds; over the best peer: prefill, decode, 2 and 8 together{busy}\n{budgets}",
        table(&cells, &[0, 2, 3, 4, 5, 6]),
        result.model,
        result.quantisation,
        result.instructions,
        result.bytes_per_token,
        rate(result.bandwidth[0]),
        rate(result.bandwidth[1]),
        result.prompt_tokens,
        result.output_tokens,
        result.rounds
    )
}
