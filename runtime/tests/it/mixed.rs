//! One model over four stages on four devices of three kinds: the processor, two logical devices of a software rasteriser, a
//! host-emulated CUDA device.

use super::emulated::{NOTHING_ON_A_CARD, inside, platform, ready, said};
use isotherm_runtime::backend::peers::prove;
use isotherm_runtime::backend::wgpu::{WgpuOptions, WgpuPlatform};
use isotherm_runtime::backend::{Device, Platform};
use isotherm_runtime::cpu::{Arithmetic, reference};
use isotherm_runtime::engine::{Card, CpuDevice, Cut, Kernels, Runner};
use isotherm_runtime::model::Geometry;
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::gguf::Gguf;
use isotherm_runtime::model::synth::{self, SynthSpec, SynthTokenizer};
use std::sync::Arc;

#[test]
fn a_plan_over_processor_rasteriser_and_host_emulated_devices_agrees_with_the_reference() {
    const NAME: &str = "a_plan_over_processor_rasteriser_and_host_emulated_devices_agrees_with_the_reference";
    let Some((library, compiler)) = ready(NAME) else { return };
    if let Err(error) = WgpuPlatform::new(WgpuOptions::default()).devices() {
        assert!(std::env::var_os("CI").is_none(), "{error}");
        eprintln!("skipped: {NAME}: {error}");
        return;
    }
    let output = inside("mixed::inside_four_stages", &library, &compiler, &[]);
    eprintln!("{}", said(&output));
    assert!(output.status.success() && said(&output).contains("1 passed"), "{}", said(&output));
}

#[test]
#[ignore = "run by a_plan_over_processor_rasteriser_and_host_emulated_devices..., with the host-emulated driver in reach"]
fn inside_four_stages() {
    // Two layers for each stage.
    let geometry = Geometry { layers: 8, ..synth::named("tiny").expect("a listed name") };
    let (format, embedding) = (BlockFormat::Q4_1, BlockFormat::Q8_0);
    let spec = SynthSpec { geometry: &geometry, format, embedding, seed: 5, tokenizer: SynthTokenizer::Small };
    let gguf = Gguf::from_bytes(synth::bytes(&spec).expect("sound")).expect("sound");
    let tokens: Vec<u32> = (0..60).map(|i| i * 37 % 290).collect();
    let cuda: Arc<dyn Platform> = Arc::new(platform());
    let wgpu: Arc<dyn Platform> = Arc::new(WgpuPlatform::new(WgpuOptions::default()));
    let card =
        |name: &str, of: &Arc<dyn Platform>| CpuDevice::of_card(name, Card { platform: Arc::clone(of), index: 0 });
    let core = CpuDevice::host_cores().first().copied().unwrap_or(0);
    let devices = [
        CpuDevice::new("cpu", vec![core]),
        card("wgpu0-0", &wgpu),
        card("wgpu0-1", &wgpu),
        card("host-emulated0", &cuda),
    ];
    let cuts: Vec<Cut> = devices
        .iter()
        .enumerate()
        .map(|(stage, device)| Cut { layers: 2 * stage..2 * stage + 2, device: device.clone() })
        .collect();
    let kernels = Kernels { arithmetic: Arithmetic::F32, ..Kernels::detect() };
    let mut runner = Runner::start(&gguf, &geometry, kernels, &cuts, 96, 24).expect("every stage passes the gate");
    let mut rows: Vec<Vec<f32>> = Vec::new();
    runner.logits(&tokens, 0, &mut |_, row| rows.push(row.to_vec())).expect("it fits");
    let exact = reference::logits::<f64>(&gguf, &geometry, &tokens, 0);
    let largest = exact.iter().flatten().fold(0.0_f64, |most, x| most.max(x.abs()));
    let pairs = || rows.iter().flatten().zip(exact.iter().flatten());
    let apart = pairs().fold(0.0_f64, |most, (a, b)| most.max((f64::from(*a) - b).abs())) / largest;
    eprintln!(
        "cpu, wgpu0-0, wgpu0-1, host-emulated0 with two layers each: {} positions, logits within {apart:.1e} of the largest; \
         {NOTHING_ON_A_CARD}",
        tokens.len()
    );
    assert_eq!(rows.len(), exact.len());
    assert!(apart < 2e-5, "{apart}");
    // Layers that are brought beside what is computed give the bits of those that are held.
    let alone = [Cut { layers: 0..8, device: devices[3].clone() }];
    let bits = |away: usize| -> Vec<u32> {
        let mut runner =
            Runner::start_bringing(&gguf, &geometry, kernels, (&alone, &[away]), (96, 24)).expect("the gate passes");
        let mut bits = Vec::new();
        runner.logits(&tokens, 0, &mut |_, row| bits.extend(row.iter().map(|x| x.to_bits()))).expect("it fits");
        bits
    };
    assert!(bits(0) == bits(5), "layers that are brought change results");
    // Two host-emulated devices reach one another as their driver says, and what is said is proven both ways.
    let open = |index| Device::open(&*cuda, index).expect("the stand-in has two devices");
    let (there, back) = prove(&mut open(0), &mut open(1), 3).expect("both ways carry");
    eprintln!("host-emulated devices: {} and {} copies, straight: {}", there.copies, back.copies, there.direct);
    assert!(there.copies >= 4 && back.copies >= 4 && there.direct == back.direct);
}
