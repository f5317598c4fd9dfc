//! Stages on devices behind the contract: the reference's logits, the whole's bits, a loss that ends.

use crate::engine::{small, small_text};
use crate::material;
use isotherm_runtime::backend::scalar::ScalarPlatform;
use isotherm_runtime::backend::wgpu::{WgpuOptions, WgpuPlatform};
use isotherm_runtime::backend::{Backend, DeviceError, DeviceInfo, Input, Op, Platform};
use isotherm_runtime::cpu::{Arithmetic, reference};
use isotherm_runtime::engine::{Card, CpuDevice, Cut, Kernels, Runner, RunnerError, Sampling, StartError};
use isotherm_runtime::model::Geometry;
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::gguf::Gguf;
use isotherm_runtime::model::synth::{self, SynthSpec, SynthTokenizer};
use isotherm_runtime::probe::offload::to_card;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A software or real card, or a skip; on CI a driver is installed.
fn wgpu(test: &str) -> Option<Arc<dyn Platform>> {
    let platform = WgpuPlatform::new(WgpuOptions::default());
    match platform.devices() {
        Ok(_) => Some(Arc::new(platform)),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("skipped: {test}: {error}");
            None
        }
    }
}

fn scalar() -> Arc<dyn Platform> {
    Arc::new(ScalarPlatform { devices: 4, memory_bytes: 256 << 20 })
}

fn on(platform: &Arc<dyn Platform>, name: &str) -> CpuDevice {
    CpuDevice::of_card(name, Card { platform: Arc::clone(platform), index: 0 })
}

fn core() -> CpuDevice {
    CpuDevice::new("cpu", vec![CpuDevice::host_cores().first().copied().unwrap_or(0)])
}

fn kernels(arithmetic: Arithmetic) -> Kernels {
    Kernels { arithmetic, ..Kernels::detect() }
}

fn runner(gguf: &Gguf, geometry: &Geometry, cuts: &[(Range<usize>, CpuDevice)], chunk: usize) -> Runner {
    let cuts: Vec<Cut> =
        cuts.iter().map(|(layers, device)| Cut { layers: layers.clone(), device: device.clone() }).collect();
    Runner::start(gguf, geometry, kernels(Arithmetic::F32), &cuts, 96, chunk).expect("the stages load")
}

fn logits(runner: &mut Runner, tokens: &[u32], first: usize) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    runner.logits(tokens, first, &mut |_, row| rows.push(row.to_vec())).expect("a sequence that fits");
    rows
}

fn bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|x| x.to_bits()).collect()).collect()
}

/// A small random model of rows long enough for blocks of 256.
fn wide(format: BlockFormat) -> (Gguf, Geometry) {
    let geometry = synth::named("tiny-256").expect("a known name");
    let (embedding, tokenizer) = (BlockFormat::Q6K, SynthTokenizer::Small);
    let spec = SynthSpec { geometry: &geometry, format, embedding, seed: 5, tokenizer };
    let gguf = Gguf::from_bytes(synth::bytes(&spec).expect("a sound specification")).expect("a sound file");
    (gguf, geometry)
}

/// Largest difference of a logit, as a share of the largest logit.
fn apart(rows: &[Vec<f32>], exact: &[Vec<f64>]) -> f64 {
    assert_eq!(rows.len(), exact.len());
    let all = || rows.iter().flatten().zip(exact.iter().flatten());
    let largest = exact.iter().flatten().fold(0.0_f64, |m, x| m.max(x.abs()));
    assert!(all().all(|(a, _)| a.is_finite()));
    all().fold(0.0_f64, |m, (a, b)| m.max((f64::from(*a) - b).abs())) / largest
}

#[test]
fn the_reference_device_gives_the_reference_logits() {
    let (gguf, geometry) = small(BlockFormat::Q4_1, BlockFormat::Q8_0);
    let text = small_text(40);
    let exact = reference::logits::<f64>(&gguf, &geometry, &text, 0);
    let platform = scalar();
    let mut runner = runner(&gguf, &geometry, &[(0..geometry.layers, on(&platform, "scalar"))], 16);
    assert!(apart(&logits(&mut runner, &text, 0), &exact) < 1e-5);
}

#[test]
fn a_wgpu_stage_gives_the_reference_logits_in_every_format() {
    let Some(platform) = wgpu("a_wgpu_stage_gives_the_reference_logits_in_every_format") else { return };
    for format in [BlockFormat::F16, BlockFormat::Q8_0, BlockFormat::Q4_0, BlockFormat::Q4K, BlockFormat::Q6K] {
        let (gguf, geometry) =
            if format.values_per_block() == 256 { wide(format) } else { small(format, BlockFormat::Q8_0) };
        let text = small_text(40);
        let exact = reference::logits::<f64>(&gguf, &geometry, &text, 0);
        let mut runner = runner(&gguf, &geometry, &[(0..geometry.layers, on(&platform, "wgpu0"))], 16);
        let share = apart(&logits(&mut runner, &text, 0), &exact);
        eprintln!("{format}: logits differ by at most {share:.1e} of the largest");
        assert!(share < 1e-5, "{format}: {share}");
    }
}

#[test]
fn a_model_in_stages_on_logical_wgpu_devices_gives_the_bits_of_the_whole() {
    let Some(platform) = wgpu("a_model_in_stages_on_logical_wgpu_devices_gives_the_bits_of_the_whole") else { return };
    let (gguf, geometry) = small(BlockFormat::Q4_1, BlockFormat::Q8_0);
    let text = small_text(40);
    let layers = geometry.layers;
    let mut whole = runner(&gguf, &geometry, &[(0..layers, on(&platform, "wgpu0"))], 16);
    let expected = bits(&logits(&mut whole, &text, 0));
    for stages in [2, 4] {
        let cuts: Vec<(Range<usize>, CpuDevice)> = (0..stages)
            .map(|s| (layers * s / stages..layers * (s + 1) / stages, on(&platform, &format!("wgpu0-{s}"))))
            .filter(|(layers, _)| !layers.is_empty())
            .collect();
        let mut staged = runner(&gguf, &geometry, &cuts, 16);
        assert_eq!(bits(&logits(&mut staged, &text, 0)), expected, "{} devices", cuts.len());
    }
    // However the prompt is cut, too: every row is computed in the same order whatever stands beside it.
    let mut chunked = runner(&gguf, &geometry, &[(0..layers, on(&platform, "wgpu0"))], 7);
    assert_eq!(bits(&logits(&mut chunked, &text, 0)), expected, "in chunks of 7");
}

#[test]
fn layers_that_are_brought_to_a_device_give_the_bits_of_those_that_it_holds() {
    let test = "layers_that_are_brought_to_a_device_give_the_bits_of_those_that_it_holds";
    let text = small_text(40);
    let cards = std::iter::once(scalar()).chain(wgpu(test));
    for platform in cards {
        let geometry = Geometry { layers: 7, ..synth::named("tiny").expect("a known name") };
        let (format, embedding) = (BlockFormat::Q4_1, BlockFormat::Q8_0);
        let spec = SynthSpec { geometry: &geometry, format, embedding, seed: 5, tokenizer: SynthTokenizer::Small };
        let gguf = Gguf::from_bytes(synth::bytes(&spec).expect("a sound specification")).expect("a sound file");
        let cuts = [Cut { layers: 0..7, device: on(&platform, "card") }];
        let kernels = kernels(Arithmetic::F32);
        let mut whole = Runner::start(&gguf, &geometry, kernels, &cuts, 96, 16).expect("the stage loads");
        let expected = bits(&logits(&mut whole, &text, 0));
        // One place that is never refilled, two that take turns, an odd number of layers in them, and all layers.
        for away in [1, 2, 3, 4, 7] {
            let mut some =
                Runner::start_bringing(&gguf, &geometry, kernels, (&cuts, &[away]), (96, 16)).expect("the stage loads");
            for _ in 0..2 {
                assert_eq!(bits(&logits(&mut some, &text, 0)), expected, "{away} layers away");
            }
            let brought = some.offloaded().expect("it says what was brought");
            assert_eq!((brought.layers, brought.away), (7, away));
            // Of equal layers, each that is away saves its bytes, but two places take turns.
            let own = |runner: &mut Runner| runner.card_memory().expect("a device that is there").expect("a device").0;
            let saved = own(&mut whole) - own(&mut some);
            let places = away.min(2);
            let layer = brought.held_bytes / (7 - away + places) as u64;
            assert_eq!(saved, (away - places) as u64 * layer, "{away} layers away");
            assert_eq!(brought.pass_bytes, if away > 2 { away as u64 * layer } else { 0 });
            assert!(brought.beside);
            assert_eq!(brought.read_bytes > 0, away > 2, "{brought:?}");
        }
    }
}

#[test]
fn bringing_to_a_device_is_timed_in_whole_matrices() {
    let test = "bringing_to_a_device_is_timed_in_whole_matrices";
    for platform in std::iter::once(scalar()).chain(wgpu(test)) {
        let card = Card { platform, index: 0 };
        // Pieces of 8 MiB at least, and no part of a row.
        for (layer, bytes) in [(1000, 8 << 20), (9_000_001, 9_000_001 / 4096 * 4096)] {
            let rate = to_card(&card, layer, "now").expect("a device that is there").expect("copies take time");
            assert!(rate.value.value() > 0.0);
            assert_eq!(rate.source, Some(format!("bringing 8 matrices of {bytes} bytes to it from memory")));
            assert_eq!(rate.samples, Some(8));
        }
    }
}

#[test]
fn one_pipeline_runs_over_processor_and_devices_of_several_kinds() {
    let Some(platform) = wgpu("one_pipeline_runs_over_processor_and_devices_of_several_kinds") else { return };
    let (gguf, geometry) = small(BlockFormat::Q4_1, BlockFormat::Q8_0);
    let text = small_text(40);
    let exact = reference::logits::<f64>(&gguf, &geometry, &text, 0);
    let layers = geometry.layers;
    let devices = [core(), on(&platform, "wgpu0"), on(&platform, "wgpu0-1"), on(&scalar(), "scalar")];
    let count = devices.len().min(layers);
    let cuts: Vec<(Range<usize>, CpuDevice)> = devices
        .into_iter()
        .take(count)
        .enumerate()
        .map(|(s, device)| (layers * s / count..layers * (s + 1) / count, device))
        .collect();
    let mut mixed = runner(&gguf, &geometry, &cuts, 16);
    assert!(apart(&logits(&mut mixed, &text, 0), &exact) < 1e-5);
}

#[test]
fn the_real_model_on_wgpu_agrees_with_the_reference_and_moves_little_more_than_it_must() {
    let test = "the_real_model_on_wgpu_agrees_with_the_reference_and_moves_little_more_than_it_must";
    let (Some(gguf), Some(platform)) = (material::real_model(test), wgpu(test)) else { return };
    let geometry = Geometry::from_gguf(&gguf).expect("a plain llama model");
    // "<|im_start|>user\nWhat is 2+2?" and so on: any ten tokens of the vocabulary serve.
    let text = [1, 4093, 198, 1780, 314, 216, 34, 27, 34, 47];
    let exact = reference::logits::<f32>(&gguf, &geometry, &text, 0);
    let exact: Vec<Vec<f64>> = exact.into_iter().map(|row| row.into_iter().map(f64::from).collect()).collect();
    let half = geometry.layers / 2;
    let mut whole = runner(&gguf, &geometry, &[(0..geometry.layers, on(&platform, "wgpu0"))], 16);
    let rows = logits(&mut whole, &text, 0);
    let share = apart(&rows, &exact);
    eprintln!("smollm2 on wgpu: {} positions, logits differ by at most {share:.1e} of the largest", rows.len());
    assert!(share < 2e-5, "{share}");
    account(&mut whole, &geometry, &text);
    drop(whole);
    let cuts = [(0..half, on(&platform, "wgpu0")), (half..geometry.layers, on(&platform, "wgpu0-1"))];
    let mut staged = runner(&gguf, &geometry, &cuts, 16);
    assert_eq!(bits(&logits(&mut staged, &text, 0)), bits(&rows), "two logical devices");
}

/// What one decoded token costs beyond the least: five dependent products and reductions per layer, a lookup, the
/// head's product and the choice; one submission; a token, its place and its blocks in, one token out; nothing
/// allocated.
fn account(runner: &mut Runner, geometry: &Geometry, prompt: &[u32]) {
    let tokens = 8;
    let mut counted = Vec::new();
    let mut answer = |runner: &mut Runner, output: usize| {
        let before = runner.counters().expect("the first stage is a card");
        let mut seen = Vec::new();
        let mut each = |token| {
            seen.push(token);
            true
        };
        runner.generate(prompt, output, &[], Sampling::GREEDY, &mut each).expect("it fits");
        counted.push(runner.counters().expect("as before").since(before));
        seen
    };
    // The first time grows what is kept; then one and the same prompt with one token more is one token's cost.
    answer(runner, tokens);
    let short = answer(runner, tokens);
    let long = answer(runner, tokens + 1);
    assert_eq!(short[..], long[..tokens], "greedy answers begin alike");
    let (a, b) = (counted[1], counted[2]);
    let layers = geometry.layers as u64;
    let blocks = (prompt.len() + tokens).div_ceil(16) as u64;
    let rows = [
        ("dispatches", b.dispatches - a.dispatches, 5 * layers + 3),
        ("submissions", b.submissions - a.submissions, 2),
        ("bytes out", b.bytes_out - a.bytes_out, 4),
        ("allocations", b.allocations - a.allocations, 0),
    ];
    for (what, found, least) in rows {
        eprintln!("per decoded token: {found} {what}, at least {least}");
        assert!(found as f64 <= 1.3 * least as f64, "{found} {what}; at least {least} are needed");
    }
    let told = 4 + 8 + 4 * blocks;
    eprintln!("per decoded token: {} bytes in, at least {told}", b.bytes_in - a.bytes_in);
    assert_eq!(b.bytes_in - a.bytes_in, told, "kernels' parameters did not change, and were sent again");
}

/// A platform whose devices are lost after some launches; the first opening, which the gate takes, is sound.
struct Fragile {
    inner: Arc<dyn Platform>,
    launches: u32,
    opened: AtomicU32,
}

impl Platform for Fragile {
    fn name(&self) -> &'static str {
        "fragile"
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>, DeviceError> {
        self.inner.devices()
    }

    fn open(&self, index: usize) -> Result<Box<dyn Backend>, DeviceError> {
        let inner = self.inner.open(index)?;
        if self.opened.fetch_add(1, Ordering::Relaxed) == 0 {
            return Ok(inner);
        }
        Ok(isotherm_runtime::backend::losing(inner, self.launches))
    }
}

#[test]
fn a_device_that_is_lost_in_the_middle_ends_the_run_with_its_loss_and_no_hang() {
    let test = "a_device_that_is_lost_in_the_middle_ends_the_run_with_its_loss_and_no_hang";
    let (gguf, geometry) = small(BlockFormat::Q4_1, BlockFormat::Q8_0);
    let platforms = [Some(scalar()), wgpu(test)];
    for inner in platforms.into_iter().flatten() {
        let fragile = || -> Arc<dyn Platform> {
            Arc::new(Fragile { inner: Arc::clone(&inner), launches: 5, opened: AtomicU32::new(0) })
        };
        for cuts in [
            vec![(0..geometry.layers, on(&fragile(), "lost"))],
            vec![(0..1, core()), (1..geometry.layers, on(&fragile(), "lost"))],
            vec![(0..1, on(&fragile(), "lost")), (1..geometry.layers, core())],
        ] {
            let mut runner = runner(&gguf, &geometry, &cuts, 16);
            let outcome = runner.generate(&small_text(20), 40, &[], Sampling::GREEDY, &mut |_| true);
            match outcome {
                Err(RunnerError::Device(error)) => assert!(error.is_lost(), "{error}"),
                other => panic!("the run ended with {other:?}"),
            }
        }
    }
}

/// A platform whose devices do one operation wrongly.
struct Wrong {
    inner: Arc<dyn Platform>,
    operation: &'static str,
}

impl Platform for Wrong {
    fn name(&self) -> &'static str {
        "wrong"
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>, DeviceError> {
        self.inner.devices()
    }

    fn open(&self, index: usize) -> Result<Box<dyn Backend>, DeviceError> {
        let operation = self.operation;
        let spoil = move |op: &Op| {
            let mut op = op.clone();
            match &mut op {
                Op::Attend { scale, .. } if operation == "attend" => *scale *= 1.001,
                Op::Gated { input: Input { norm: Some(norm), .. }, .. } if operation == "gated" => norm.epsilon += 0.01,
                Op::Remember { rope, .. } if operation == "remember" => rope.dimensions -= 2,
                _ => {}
            }
            op
        };
        Ok(isotherm_runtime::backend::altering(self.inner.open(index)?, Box::new(spoil)))
    }
}

#[test]
fn the_gate_names_the_operation_that_a_device_gets_wrong() {
    let (gguf, geometry) = small(BlockFormat::Q4_1, BlockFormat::Q8_0);
    for operation in ["attend", "gated", "remember"] {
        let wrong: Arc<dyn Platform> = Arc::new(Wrong { inner: scalar(), operation });
        let cuts = [Cut { layers: 0..geometry.layers, device: on(&wrong, "wrong0") }];
        match Runner::start(&gguf, &geometry, kernels(Arithmetic::F32), &cuts, 32, 8) {
            Err(RunnerError::Start(StartError::Gate { source, .. })) => assert_eq!(source.operation, operation),
            Err(other) => panic!("{operation}: {other}"),
            Ok(_) => panic!("{operation}: the gate let it through"),
        }
    }
}

#[test]
fn a_mixed_run_with_rounded_activations_passes_the_gate_within_its_stated_tolerance() {
    let test = "a_mixed_run_with_rounded_activations_passes_the_gate_within_its_stated_tolerance";
    let Some(platform) = wgpu(test) else { return };
    let (gguf, geometry) = small(BlockFormat::Q4_1, BlockFormat::Q8_0);
    let cuts =
        [Cut { layers: 0..2, device: core() }, Cut { layers: 2..geometry.layers, device: on(&platform, "wgpu0") }];
    let mut runner =
        Runner::start(&gguf, &geometry, kernels(Arithmetic::Int8), &cuts, 64, 16).expect("the gate lets it through");
    let text = small_text(30);
    let exact = reference::logits::<f64>(&gguf, &geometry, &text, 0);
    let share = apart(&logits(&mut runner, &text, 0), &exact);
    eprintln!("eight-bit activations: logits differ by {share:.1e} of the largest");
    assert!(share < 0.15, "{share}");
}
