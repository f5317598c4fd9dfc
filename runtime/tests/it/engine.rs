//! The engine against the reference, against recorded answers, and against itself in stages.

use isotherm_runtime::cpu::reference;
use isotherm_runtime::cpu::{Arithmetic, Isa};
use isotherm_runtime::engine::{CpuDevice, Cut, Kernels, Runner, RunnerError, Sampling};
use isotherm_runtime::model::Geometry;
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::gguf::Gguf;
use isotherm_runtime::model::synth::{self, SynthSpec, SynthTokenizer};
use std::ops::Range;

use crate::material;

/// One recorded run: a prompt and its greedy continuation.
struct Recorded {
    prompt: Vec<u32>,
    tokens: Vec<u32>,
    /// Per step, the five largest logits with their tokens; empty where they were not recorded.
    top: Vec<Vec<(u32, f64)>>,
}

impl Recorded {
    /// Prompt and continuation, without the last token, which is never fed.
    fn fed(&self) -> Vec<u32> {
        let mut all = [&self.prompt[..], &self.tokens].concat();
        all.pop();
        all
    }
}

fn recorded(test: &str, file: &str) -> Option<Vec<Recorded>> {
    let value = material::model_reference(test, file)?;
    let numbers = |value: &serde_json::Value| -> Vec<u32> {
        let items = value.as_array().expect("a list of tokens");
        items.iter().map(|token| token.as_u64().expect("a token") as u32).collect()
    };
    let run = |run: &serde_json::Value| Recorded {
        prompt: numbers(&run["prompt_tokens"]),
        tokens: numbers(&run["tokens"]),
        top: run["top5"].as_array().map_or_else(Vec::new, |steps| {
            let pair = |pair: &serde_json::Value| {
                (pair[0].as_u64().expect("a token") as u32, pair[1].as_f64().expect("a logit"))
            };
            steps.iter().map(|step| step.as_array().expect("five pairs").iter().map(pair).collect()).collect()
        }),
    };
    Some(value["runs"].as_array().expect("a list of runs").iter().map(run).collect())
}

fn largest(row: &[f32]) -> u32 {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = i;
        }
    }
    best as u32
}

/// A device for tests: threads, but no core of its own that another test could want.
fn device(threads: usize) -> CpuDevice {
    let cores = CpuDevice::host_cores();
    let core = |i: usize| cores.get(i % cores.len().max(1)).copied().unwrap_or(0);
    CpuDevice::new("test", (0..threads).map(core).collect::<Vec<_>>())
}

fn cuts(ranges: &[Range<usize>]) -> Vec<Cut> {
    ranges.iter().map(|layers| Cut { layers: layers.clone(), device: device(1) }).collect()
}

/// Layers in `stages` nearly equal parts.
fn even_cuts(layers: usize, stages: usize) -> Vec<Cut> {
    cuts(&(0..stages).map(|s| layers * s / stages..layers * (s + 1) / stages).collect::<Vec<_>>())
}

fn whole(geometry: &Geometry, threads: usize) -> Vec<Cut> {
    vec![Cut { layers: 0..geometry.layers, device: device(threads) }]
}

/// The logits of a whole sequence from position `first` on.
fn logits(runner: &mut Runner, tokens: &[u32], first: usize) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    runner.logits(tokens, first, &mut |_, row| rows.push(row.to_vec())).expect("a sequence that fits");
    rows
}

fn generate(runner: &mut Runner, prompt: &[u32], output: usize, sampling: Sampling) -> Vec<u32> {
    let mut tokens = Vec::new();
    let mut each = |token| {
        tokens.push(token);
        true
    };
    runner.generate(prompt, output, &[], sampling, &mut each).expect("a sequence that fits");
    tokens
}

/// The recorded tokens are the largest logits at every step, and the five largest logits are within 5e-4: the bound of
/// the correctness contract (knowledge/runtime.md, section 9).
fn agrees(name: &str, run: &Recorded, rows: &[Vec<f32>]) {
    assert_eq!(rows.len(), run.tokens.len());
    let mut worst = 0.0_f64;
    for (step, row) in rows.iter().enumerate() {
        assert_eq!(largest(row), run.tokens[step], "{name}, step {step}");
        for &(token, logit) in &run.top[step] {
            let error = (f64::from(row[token as usize]) - logit).abs();
            assert!(error < 5e-4, "{name}, step {step}, token {token}: off by {error}");
            worst = worst.max(error);
        }
    }
    eprintln!("{name}: {} tokens equal, largest error of a logit {worst:.2e}", rows.len());
}

#[test]
fn the_reference_reproduces_the_float64_tokens_and_logits() {
    let test = "the_reference_reproduces_the_float64_tokens_and_logits";
    let (Some(gguf), Some(runs)) = (material::real_model(test), recorded(test, "reference-f64.json")) else { return };
    let geometry = Geometry::from_gguf(&gguf).expect("a plain llama model");
    for run in &runs {
        let rows = reference::logits::<f32>(&gguf, &geometry, &run.fed(), run.prompt.len() - 1);
        agrees("reference", run, &rows);
    }
}

#[test]
fn the_reference_in_double_precision_reproduces_the_recorded_logits_to_their_last_digit() {
    let test = "the_reference_in_double_precision_reproduces_the_recorded_logits_to_their_last_digit";
    let (Some(gguf), Some(runs)) = (material::real_model(test), recorded(test, "reference-f64.json")) else { return };
    let geometry = Geometry::from_gguf(&gguf).expect("a plain llama model");
    let run = &runs[1];
    let fed = &run.fed()[..run.prompt.len() + 4];
    let rows = reference::logits::<f64>(&gguf, &geometry, fed, run.prompt.len() - 1);
    for (row, top) in rows.iter().zip(&run.top) {
        for &(token, logit) in top {
            assert!((row[token as usize] - logit).abs() < 6e-6, "{} for {logit}", row[token as usize]);
        }
    }
}

#[test]
fn the_fast_path_reproduces_the_float64_tokens_and_logits_and_speaks_them_freely() {
    let test = "the_fast_path_reproduces_the_float64_tokens_and_logits_and_speaks_them_freely";
    let (Some(gguf), Some(runs)) = (material::real_model(test), recorded(test, "reference-f64.json")) else { return };
    let geometry = Geometry::from_gguf(&gguf).expect("a plain llama model");
    for &isa in Isa::available().iter().filter(|isa| **isa != Isa::Portable) {
        let kernels = Kernels { isa, arithmetic: Arithmetic::F32 };
        let mut runner =
            Runner::start(&gguf, &geometry, kernels, &whole(&geometry, 2), 256, 64).expect("the model loads");
        for run in &runs {
            let rows = logits(&mut runner, &run.fed(), run.prompt.len() - 1);
            agrees(isa.name(), run, &rows);
            assert_eq!(generate(&mut runner, &run.prompt, run.tokens.len(), Sampling::GREEDY), run.tokens);
        }
    }
}

/// What teacher forcing found: two choosers over the same texts, one of them judged by the other's logits.
#[derive(Debug, Default)]
struct Agreement {
    positions: usize,
    differs: usize,
    /// How far below the judge's largest logit the other's token is, where they differ.
    worst: f32,
}

impl Agreement {
    /// `judge` gives its logits, the other chose `token`.
    fn note(&mut self, judge: &[f32], token: u32) {
        let own = largest(judge);
        self.positions += 1;
        if own != token {
            self.differs += 1;
            self.worst = self.worst.max(judge[own as usize] - judge[token as usize]);
        }
    }

    /// Rule 5 of the correctness contract (knowledge/runtime.md, section 9).
    fn holds(&self) -> bool {
        self.differs * 20 <= self.positions && self.worst <= 0.5
    }
}

const ENGINES: [&str; 4] = [
    "llama-cpp-node-3.22.1-vulkan-lavapipe.json",
    "candle-0.11.1-native.json",
    "llama-cpp-2-0.1.160-x86-64-baseline.json",
    "llama-cpp-node-3.22.1-avx512.json",
];

fn runner(gguf: &Gguf, geometry: &Geometry, arithmetic: Arithmetic) -> Runner {
    let kernels = Kernels { isa: Isa::detect(), arithmetic };
    Runner::start(gguf, geometry, kernels, &whole(geometry, 2), 256, 64).expect("the model loads")
}

#[test]
fn other_engines_choose_our_token_or_one_within_half_a_logit() {
    let test = "other_engines_choose_our_token_or_one_within_half_a_logit";
    let Some(gguf) = material::real_model(test) else { return };
    let geometry = Geometry::from_gguf(&gguf).expect("a plain llama model");
    let mut runner = runner(&gguf, &geometry, Arithmetic::F32);
    let mut all = Agreement::default();
    for (i, file) in ENGINES.into_iter().enumerate() {
        let Some(runs) = recorded(test, file) else { return };
        let mut found = Agreement::default();
        for run in &runs {
            for (row, &token) in logits(&mut runner, &run.fed(), run.prompt.len() - 1).iter().zip(&run.tokens) {
                found.note(row, token);
                all.note(row, token);
            }
        }
        eprintln!("{file}: {found:?}");
        assert!(i != 0 || found.differs == 0, "an engine that does not round agrees at every position");
    }
    eprintln!("all engines: {all:?}");
    assert_eq!(all.positions, 797);
    assert!(all.holds(), "{all:?}");
}

#[test]
fn eight_bit_activations_choose_the_unrounded_token_or_one_within_half_a_logit() {
    let test = "eight_bit_activations_choose_the_unrounded_token_or_one_within_half_a_logit";
    let Some(gguf) = material::real_model(test) else { return };
    let geometry = Geometry::from_gguf(&gguf).expect("a plain llama model");
    let mut plain = runner(&gguf, &geometry, Arithmetic::F32);
    let mut rounded = runner(&gguf, &geometry, Arithmetic::Int8);
    let mut found = Agreement::default();
    for file in ENGINES.into_iter().chain(["reference-f64.json"]) {
        let Some(runs) = recorded(test, file) else { return };
        for run in &runs {
            let rows = logits(&mut plain, &run.fed(), run.prompt.len() - 1);
            let others = logits(&mut rounded, &run.fed(), run.prompt.len() - 1);
            rows.iter().zip(&others).for_each(|(row, other)| found.note(row, largest(other)));
        }
    }
    eprintln!("int8 judged by f32: {found:?}");
    assert_eq!(found.positions, 797 + 256);
    assert!(found.holds(), "{found:?}");
}

#[test]
fn the_real_model_in_stages_gives_the_bits_of_the_whole() {
    let test = "the_real_model_in_stages_gives_the_bits_of_the_whole";
    let Some(gguf) = material::real_model(test) else { return };
    let geometry = Geometry::from_gguf(&gguf).expect("a plain llama model");
    let prompt = [504, 3575, 282, 4649, 314];
    let kernels = Kernels::detect();
    let mut one = Runner::start(&gguf, &geometry, kernels, &whole(&geometry, 2), 64, 16).expect("the model loads");
    let tokens = generate(&mut one, &prompt, 12, Sampling::GREEDY);
    let text = [&prompt[..], &tokens].concat();
    let expected = bits(&logits(&mut one, &text, 0));
    drop(one);
    for stages in [1, 2, 3, 5, 30] {
        let cuts = even_cuts(geometry.layers, stages);
        let mut staged = Runner::start(&gguf, &geometry, kernels, &cuts, 64, 16).expect("the model loads");
        assert_eq!(generate(&mut staged, &prompt, 12, Sampling::GREEDY), tokens, "{stages} stages");
        assert_eq!(bits(&logits(&mut staged, &text, 0)), expected, "{stages} stages");
    }
}

fn bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|logit| logit.to_bits()).collect()).collect()
}

/// A small random model of five layers with an odd number of heads.
pub fn small(format: BlockFormat, embedding: BlockFormat) -> (Gguf, Geometry) {
    let mut geometry = synth::named("tiny").expect("a known name");
    geometry.layers = 5;
    geometry.hidden = 96;
    geometry.head_size = 32;
    geometry.heads = 3;
    geometry.kv_heads = 1;
    geometry.feed_forward = 160;
    geometry.rope.dimensions = 32;
    let spec = SynthSpec { geometry: &geometry, format, embedding, seed: 11, tokenizer: SynthTokenizer::Small };
    let gguf = Gguf::from_bytes(synth::bytes(&spec).expect("a sound specification")).expect("a sound file");
    let geometry = Geometry::from_gguf(&gguf).expect("the geometry it was made with");
    (gguf, geometry)
}

/// A text that every small model knows.
pub fn small_text(length: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * i * 31 + 7 * i + 3) % 300) as u32).collect()
}

#[test]
fn a_small_model_gives_the_same_bits_for_every_cut_chunk_thread_count_and_instruction_set() {
    for format in [BlockFormat::Q4_0, BlockFormat::Q4_1, BlockFormat::Q8_0, BlockFormat::F16, BlockFormat::F32] {
        let (gguf, geometry) = small(format, BlockFormat::Q8_0);
        let text = small_text(150);
        for arithmetic in [Arithmetic::F32, Arithmetic::Int8] {
            let kernels = |isa| Kernels { isa, arithmetic };
            let start = |isa, cuts: &[Cut], chunk| {
                Runner::start(&gguf, &geometry, kernels(isa), cuts, 200, chunk).expect("the model loads")
            };
            let best = Isa::detect();
            let expected = bits(&logits(&mut start(best, &whole(&geometry, 1), 200), &text, 0));
            for stages in [2, 3, 5] {
                let got = logits(&mut start(best, &even_cuts(geometry.layers, stages), 64), &text, 0);
                assert_eq!(bits(&got), expected, "{format} {arithmetic:?}: {stages} stages");
            }
            for chunk in [1, 7, 16, 100] {
                let got = logits(&mut start(best, &whole(&geometry, 3), chunk), &text, 0);
                assert_eq!(bits(&got), expected, "{format} {arithmetic:?}: chunks of {chunk} on three threads");
            }
            for &isa in Isa::available() {
                let got = logits(&mut start(isa, &whole(&geometry, 1), 16), &text, 0);
                assert_eq!(bits(&got), expected, "{format} {arithmetic:?}: {isa:?}");
            }
        }
    }
}

#[test]
fn a_small_model_agrees_with_the_reference_in_every_format() {
    for format in BlockFormat::ALL.into_iter().filter(|format| format.values_per_block() <= 32) {
        let (gguf, geometry) = small(format, BlockFormat::F16);
        agrees_with_reference(&gguf, &geometry, format);
    }
    for format in [BlockFormat::Q4K, BlockFormat::Q5K, BlockFormat::Q6K] {
        let geometry = synth::named("tiny-256").expect("a known name");
        let spec = SynthSpec {
            geometry: &geometry,
            format,
            embedding: BlockFormat::Q6K,
            seed: 5,
            tokenizer: SynthTokenizer::Small,
        };
        let gguf = Gguf::from_bytes(synth::bytes(&spec).expect("a sound specification")).expect("a sound file");
        agrees_with_reference(&gguf, &geometry, format);
    }
}

fn agrees_with_reference(gguf: &Gguf, geometry: &Geometry, format: BlockFormat) {
    let text = small_text(40);
    let exact = reference::logits::<f64>(gguf, geometry, &text, 0);
    let plain = reference::logits::<f32>(gguf, geometry, &text, 0);
    let mut runner =
        Runner::start(gguf, geometry, Kernels::detect(), &whole(geometry, 2), 64, 16).expect("the model loads");
    let fast = logits(&mut runner, &text, 0);
    let size = exact.iter().flatten().fold(0.0_f64, |m, v| m.max(v.abs()));
    let error = |rows: &[Vec<f32>]| -> f64 {
        let pairs = rows.iter().flatten().zip(exact.iter().flatten());
        pairs.map(|(got, exact)| (f64::from(*got) - exact).abs()).fold(0.0, f64::max) / size
    };
    // Single precision, a few layers, sums of a few hundred terms: 1e-5 of the largest logit is generous by ten.
    assert!(error(&plain) < 1e-5 && error(&fast) < 1e-5, "{format}: {} and {}", error(&plain), error(&fast));
}

#[test]
fn a_sampled_answer_depends_on_its_seed_alone() {
    let (gguf, geometry) = small(BlockFormat::Q4_1, BlockFormat::Q8_0);
    let sampling = |seed| Sampling { temperature: 1.0, top_k: 40, top_p: 0.95, seed, ..Sampling::GREEDY };
    let answer = |threads, chunk, seed| {
        let cuts = whole(&geometry, threads);
        let mut runner =
            Runner::start(&gguf, &geometry, Kernels::detect(), &cuts, 128, chunk).expect("the model loads");
        generate(&mut runner, &small_text(20), 60, sampling(seed))
    };
    assert_eq!(answer(1, 32, 1), answer(2, 7, 1));
    assert_ne!(answer(1, 32, 1), answer(1, 32, 2));
}

#[test]
fn an_answer_ends_at_a_stop_token_or_when_the_listener_has_enough() {
    let (gguf, geometry) = small(BlockFormat::Q4_1, BlockFormat::Q8_0);
    let mut runner =
        Runner::start(&gguf, &geometry, Kernels::detect(), &whole(&geometry, 1), 128, 32).expect("the model loads");
    let sampling = Sampling { temperature: 1.5, top_k: 0, top_p: 1.0, seed: 4, ..Sampling::GREEDY };
    let all = generate(&mut runner, &small_text(9), 40, sampling);
    let stop = all[10];
    let first = all.iter().position(|&token| token == stop).expect("it is there");
    let mut heard = Vec::new();
    let mut each = |token| {
        heard.push(token);
        true
    };
    runner.generate(&small_text(9), 40, &[stop], sampling, &mut each).expect("it fits");
    assert_eq!(heard, all[..=first]);
    let mut count = 0;
    let mut three = |_| {
        count += 1;
        count < 3
    };
    runner.generate(&small_text(9), 40, &[], sampling, &mut three).expect("it fits");
    assert_eq!(count, 3);
}

#[test]
fn what_cannot_run_is_refused_with_its_reason() {
    let (gguf, geometry) = small(BlockFormat::Q4_1, BlockFormat::Q8_0);
    let start = |cuts: &[Cut]| Runner::start(&gguf, &geometry, Kernels::detect(), cuts, 32, 32);
    let one = |range: Range<usize>| vec![range];
    for ranges in [vec![0..2, 3..5], vec![0..3, 2..5], one(0..4), one(1..5), vec![0..5, 5..5]] {
        assert!(matches!(start(&cuts(&ranges)), Err(RunnerError::Cuts { .. })), "{ranges:?}");
    }
    let nowhere = Cut { layers: 0..5, device: CpuDevice::new("none", []) };
    assert!(matches!(start(&[nowhere]), Err(RunnerError::NoCores(_))));
    let mut runner = start(&whole(&geometry, 1)).expect("the model loads");
    let mut ignore = |_: usize, _: &[f32]| {};
    let long = runner.logits(&small_text(33), 0, &mut ignore);
    assert!(matches!(long, Err(RunnerError::TooLong { tokens: 33, room: 32 })));
    assert!(matches!(runner.logits(&[], 0, &mut ignore), Err(RunnerError::TooLong { .. })));
    let unknown = runner.logits(&[320], 0, &mut ignore);
    assert!(matches!(unknown, Err(RunnerError::UnknownToken { token: 320, vocabulary: 320 })));
}

/// A small model of a family, with random weights.
fn of_family(name: &str, format: BlockFormat) -> (Gguf, Geometry) {
    let geometry = synth::named(name).expect("a known name");
    let spec = SynthSpec {
        geometry: &geometry,
        format,
        embedding: BlockFormat::Q8_0,
        seed: 11,
        tokenizer: SynthTokenizer::Small,
    };
    let gguf = Gguf::from_bytes(synth::bytes(&spec).expect("a sound specification")).expect("a sound file");
    let read = Geometry::from_gguf(&gguf).expect("a supported family");
    assert_eq!(read, geometry, "{name}");
    (gguf, geometry)
}

/// Every family: the engine's logits are those of its definition computed in double precision, and the same bits come out
/// of every instruction set, cut, chunk and thread count.
#[test]
fn every_family_agrees_with_its_definition_and_with_itself() {
    for name in synth::NAMES.into_iter().filter(|name| name.starts_with("tiny-") && *name != "tiny-256") {
        for format in [BlockFormat::F32, BlockFormat::Q4_0] {
            let (gguf, geometry) = of_family(name, format);
            // Longer than a window of 40 and a segment of 128.
            let text = small_text(150);
            let expected = reference::logits::<f64>(&gguf, &geometry, &text, 0);
            let mut first: Option<Vec<Vec<f32>>> = None;
            for &isa in Isa::available() {
                let kernels = Kernels { isa, arithmetic: Arithmetic::F32 };
                for (stages, threads, chunk) in [(1, 1, 150), (1, 2, 7), (2, 1, 64)] {
                    if isa == Isa::Portable && chunk == 7 {
                        continue;
                    }
                    let cuts = if stages == 1 { whole(&geometry, threads) } else { even_cuts(geometry.layers, stages) };
                    let mut runner = Runner::start(&gguf, &geometry, kernels, &cuts, 256, chunk).expect("it loads");
                    let rows = logits(&mut runner, &text, 0);
                    for (position, (row, expected)) in rows.iter().zip(&expected).enumerate() {
                        for (got, want) in row.iter().zip(expected) {
                            let error = (f64::from(*got) - want).abs();
                            assert!(error < 2e-3, "{name} {format} {isa:?} at {position}: {got} for {want}");
                        }
                    }
                    match &first {
                        None => first = Some(rows),
                        Some(first) => assert!(*first == rows, "{name} {format} {isa:?} {stages} {threads} {chunk}"),
                    }
                }
            }
        }
    }
}
