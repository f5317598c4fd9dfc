//! `isotherm bench runtime --speed`: prompts and tokens per second, beside a peer where one is named.
//!
//! Both sides run in turn, round by round, on the same pinned cores, with the same prompt and as many tokens; medians are
//! shown. Decoding reads every weight once per token, so its share of the memory's bandwidth says how much is left to gain.

use super::peer::Peer;
use crate::args::BenchRuntime;
use crate::failure::{Code, Done, Failure};
use crate::models::{self, LocalModel};
use crate::ui::{Ui, table};
use isotherm_core::units::Bytes;
use isotherm_runtime::backend::routes::{self, Routes};
use isotherm_runtime::cpu::{Arithmetic, Isa, read_bandwidth};
use isotherm_runtime::engine::{Card, CpuDevice, Cut, Kernels, Runner, Sampling};
use serde::Serialize;
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
    /// The same figures over the peer's: prefill, decode, together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    over_peer: Vec<f64>,
}

/// What less memory costs.
#[derive(Serialize)]
struct Slower {
    arithmetic: &'static str,
    budget: Bytes,
    held: Bytes,
    layers_away: usize,
    /// Bytes per second at which layers were read.
    read_rate: f64,
    tpot_held: f64,
    /// The longer of computing and reading.
    tpot_predicted: f64,
    tpot_measured: f64,
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
    let mut rows = Vec::new();
    let mut budgets = Vec::new();
    if let Some(name) = &args.device {
        ui.note(format!("  {name}"));
        let device = card(name)?;
        crate::access::timing(&[name])?;
        rows.extend(on_device(ui, args, &model, (&device, &cores), None, bytes)?);
        sizes.clear();
    }
    for (at, &count) in sizes.iter().enumerate() {
        ui.note(format!("  {count} cores"));
        let device = CpuDevice::new("cpu", &cores[..count]);
        rows.extend(on_device(ui, args, &model, (&device, &cores[..count]), bandwidth[at.min(1)], bytes)?);
    }
    if let Some(budget) = args.weights_budget {
        for arithmetic in [Arithmetic::F32, Arithmetic::Int8] {
            budgets.push(slower(args, &model, &cores, arithmetic, budget)?);
        }
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
            over_peer: Vec::new(),
        }
    }
}

impl Row {
    fn figures(&self) -> Vec<f64> {
        [self.prefill, self.decode].into_iter().chain(self.together.iter().copied()).collect()
    }
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The rows of a device: both arithmetics, and the peer, which has the host's part of its work on `cores`.
fn on_device(
    ui: &Ui,
    args: &BenchRuntime,
    model: &LocalModel,
    (device, cores): (&CpuDevice, &[usize]),
    bandwidth: Option<f64>,
    bytes: Bytes,
) -> Result<Vec<Row>, Failure> {
    let index = device.card.as_ref().map(|card| card.index);
    let mut peer = match &args.peer {
        Some(folder) => Some(Peer::start(args, folder, &model.path, cores, &TOGETHER, index)?),
        None => None,
    };
    // Where weights are not quantised, both arithmetics are one.
    let quantised = !matches!(model.model.quantisation.as_str(), "F32" | "F16" | "BF16");
    let ways: &[Arithmetic] = if quantised { &[Arithmetic::F32, Arithmetic::Int8] } else { &[Arithmetic::F32] };
    let mut own: Vec<Samples> = ways.iter().map(|_| Samples::default()).collect();
    let mut theirs = Samples::default();
    for round in 0..args.rounds {
        for (samples, &arithmetic) in own.iter_mut().zip(ways) {
            // The driver of a pipeline is bound to a core; a thread of its own leaves this one free.
            let done =
                std::thread::scope(|scope| scope.spawn(|| one_round(args, model, device, arithmetic, None)).join());
            let (prefill, tokens, together, _) = done.map_err(|_| Failure::io("a round ended in a panic"))??;
            samples.prefill.push(prefill);
            samples.token.extend(tokens);
            samples.add_together(together);
        }
        if let Some(peer) = &mut peer {
            let answer = peer.round()?;
            theirs.prefill.push(answer.prefill_s);
            theirs.token.extend(answer.token_s);
            theirs.add_together(answer.together);
        }
        ui.note(format!("    round {} of {}", round + 1, args.rounds));
    }
    let row =
        |samples: Samples, who: String| samples.row(device.cores.len(), who, args.prompt_tokens, bytes, bandwidth);
    let mut rows: Vec<Row> = own.into_iter().zip(ways).map(|(own, way)| row(own, way.name().to_owned())).collect();
    if let Some(peer) = peer {
        let theirs = row(theirs, peer.name.clone());
        for row in &mut rows {
            row.over_peer = row.figures().iter().zip(theirs.figures()).map(|(own, other)| own / other).collect();
        }
        rows.push(theirs);
    }
    Ok(rows)
}

/// Seconds of the prompt, seconds of each token, tokens per second of several sequences, and bytes and seconds of reading.
type Round = (f64, Vec<f64>, Vec<f64>, Option<isotherm_runtime::engine::Offloaded>);

/// Loads the model, and runs one prompt and its answer, and several sequences together.
fn one_round(
    args: &BenchRuntime,
    model: &LocalModel,
    device: &CpuDevice,
    arithmetic: Arithmetic,
    budget: Option<Bytes>,
) -> Result<Round, Failure> {
    let (prompt, output) = (args.prompt_tokens as usize, args.output_tokens as usize);
    let most = TOGETHER.iter().max().copied().unwrap_or(1);
    let room = (prompt + output).max(most * (SHORT + output).next_multiple_of(16));
    let cut = Cut { layers: 0..model.geometry.layers, device: device.clone() };
    let kernels = Kernels { arithmetic, ..Kernels::detect() };
    let folder = std::env::temp_dir();
    let budget = budget.map(|budget| (budget.0, folder.as_path()));
    let failed = |e: isotherm_runtime::engine::RunnerError| Failure::io(models::causes(&e));
    let mut runner =
        Runner::start_within(&model.gguf, &model.geometry, kernels, &[cut], (room, prompt.max(most)), budget)
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
    Ok((prefill, times, together, runner.offloaded()))
}

/// Decoding with everything held, and with a budget.
fn slower(
    args: &BenchRuntime,
    model: &LocalModel,
    cores: &[usize],
    arithmetic: Arithmetic,
    budget: Bytes,
) -> Result<Slower, Failure> {
    let device = CpuDevice::new("cpu", cores);
    let round = |budget| {
        std::thread::scope(|scope| scope.spawn(|| one_round(args, model, &device, arithmetic, budget)).join())
            .map_err(|_| Failure::io("a round ended in a panic"))?
    };
    let (_, mut held, _, _) = round(None)?;
    let (_, mut less, _, figures) = round(Some(budget))?;
    let figures = figures.unwrap_or_default();
    let rate = figures.read_bytes as f64 / figures.reading.as_secs_f64().max(1e-9);
    let tpot_held = median(&mut held);
    Ok(Slower {
        arithmetic: arithmetic.name(),
        budget,
        held: Bytes(figures.held_bytes),
        layers_away: figures.away,
        read_rate: rate,
        tpot_held,
        tpot_predicted: tpot_held.max(if figures.away == 0 { 0.0 } else { figures.pass_bytes as f64 / rate }),
        tpot_measured: median(&mut less),
    })
}

fn describe(result: &Speeds<'_>) -> String {
    let heading = ["cores", "who", "prefill", "decode", "of bandwidth", "2 together", "8 together", "over the peer"];
    let mut cells = vec![heading.map(str::to_owned).to_vec()];
    cells.extend(result.rows.iter().map(|row| {
        let rate = |rate: f64| format!("{rate:.1} tok/s");
        let share = row.bandwidth_share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0));
        let together = |at: usize| row.together.get(at).map_or_else(|| "-".to_owned(), |&r| rate(r));
        let over = row.over_peer.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" ");
        let (prefill, decode) = (rate(row.prefill), rate(row.decode));
        vec![row.cores.to_string(), row.who.clone(), prefill, decode, share, together(0), together(1), over]
    }));
    let rate = |rate: Option<f64>| rate.map_or_else(|| "unknown".to_owned(), |rate| format!("{:.1} GB/s", rate * 1e-9));
    let busy = result.load_average.map_or_else(String::new, |load| format!("; load average before {load:.2}"));
    let budgets: String = result
        .budgets
        .iter()
        .map(|row| {
            format!(
                "  {} within {}: {} held, {} layers read at {:.1} GB/s, {:.1} ms a token predicted, {:.1} measured, {:.1} with \
                 all held\n",
                row.arithmetic,
                row.budget,
                row.held,
                row.layers_away,
                row.read_rate * 1e-9,
                row.tpot_predicted * 1e3,
                row.tpot_measured * 1e3,
                row.tpot_held * 1e3
            )
        })
        .collect();
    format!(
        "{}\n  {} in {}, {}; {} read per token; one core reads {}, all {}\n  prompts of {} tokens, answers of {}, medians of {} \
         rounds; over the peer: prefill, decode, 2 and 8 together{busy}\n{budgets}",
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
