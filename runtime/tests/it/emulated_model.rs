//! Whole models on the host-emulated driver: agreement with the reference, and stages that change nothing.

use super::emulated::{NOTHING_ON_A_CARD, inside, platform, ready, said};
use super::material;
use isotherm_runtime::backend::decoder::Decoder;
use isotherm_runtime::backend::{Arithmetic, Device, DeviceError};
use isotherm_runtime::cpu::reference;
use isotherm_runtime::model::Geometry;
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::gguf::Gguf;
use isotherm_runtime::model::synth::{self, SynthSpec, SynthTokenizer};

fn two_layers(format: BlockFormat) -> Gguf {
    let geometry = Geometry { layers: 2, ..synth::named("tiny").expect("a listed name") };
    let spec = SynthSpec {
        geometry: &geometry,
        format,
        embedding: BlockFormat::Q8_0,
        seed: 5,
        tokenizer: SynthTokenizer::Small,
    };
    Gguf::from_bytes(synth::bytes(&spec).expect("sound")).expect("sound")
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count).map(|i| (i * 37 % 290) as u32).collect()
}

fn open(index: usize) -> Device {
    Device::open(&platform(), index).expect("the stand-in has two devices")
}

/// Logits of all tokens, taken in pieces of these sizes in turn.
fn in_pieces(decoder: &mut Decoder, tokens: &[u32], sizes: &[usize]) -> Result<Vec<Vec<f32>>, DeviceError> {
    let (mut out, mut at) = (Vec::new(), 0);
    for &size in sizes.iter().cycle() {
        if at == tokens.len() {
            return Ok(out);
        }
        let end = tokens.len().min(at + size);
        out.extend(decoder.pass(&tokens[at..end])?);
        at = end;
    }
    Ok(out)
}

/// Largest distance between two tables of logits.
fn apart(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let rows = a.iter().zip(b).flat_map(|(a, b)| a.iter().zip(b));
    rows.fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()))
}

/// How often the largest logit is the same, and the largest margin of the reference where it is not.
fn agreement(reference: &[Vec<f32>], other: &[Vec<f32>]) -> (usize, f32) {
    let largest = |row: &[f32]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
    let mut worst = 0.0_f32;
    let mut same = 0;
    for (reference, other) in reference.iter().zip(other) {
        let (ours, theirs) = (largest(reference), largest(other));
        if ours == theirs {
            same += 1;
        } else {
            worst = worst.max(reference[ours] - reference[theirs]);
        }
    }
    (same, worst)
}

#[test]
fn a_two_layer_model_on_host_emulated_devices_agrees_with_the_reference_and_stages_change_nothing() {
    const NAME: &str = "a_two_layer_model_on_host_emulated_devices_agrees_with_the_reference_and_stages_change_nothing";
    let Some((library, compiler)) = ready(NAME) else { return };
    let output = inside("emulated_model::inside_two_layers", &library, &compiler, &[("ISOTHERM_EMULATED_SEED", "11")]);
    eprintln!("{}", said(&output));
    assert!(output.status.success() && said(&output).contains("1 passed"), "{}", said(&output));
}

#[test]
#[ignore = "run by a_two_layer_model_on_host_emulated_devices..., with the host-emulated driver in reach"]
fn inside_two_layers() {
    // More than one segment of attention, and a short text in another format.
    for (format, count) in [(BlockFormat::Q4_1, 270), (BlockFormat::Q8_0, 48)] {
        let tokens = tokens(count);
        let gguf = two_layers(format);
        let geometry = Geometry::from_gguf(&gguf).expect("it was made from one");
        let reference = reference::logits::<f32>(&gguf, &geometry, &tokens, 0);
        let decoder = |cuts, arithmetic| Decoder::load(&gguf, cuts, arithmetic, 64, 320).expect("it fits");
        let mut whole = decoder(vec![(0..2, open(0))], Arithmetic::F32);
        let unstaged = in_pieces(&mut whole, &tokens, &[64]).expect("no device is lost");
        let distance = apart(&reference, &unstaged);
        let (same, margin) = agreement(&reference, &unstaged);
        eprintln!(
            "host-emulated, {format}, 2 layers: top token of {same}/{} positions equal, logits within {distance:.1e}; {NOTHING_ON_A_CARD}",
            tokens.len()
        );
        assert!(margin < 0.01 && distance < 1e-3, "{format}: {same} equal, margin {margin}, distance {distance}");

        // Whatever is taken together, and however the model is cut: the same bits.
        let mut pieces = decoder(vec![(0..2, open(1))], Arithmetic::F32);
        let mixed = in_pieces(&mut pieces, &tokens, &[1, 3, 1, 9, 40, 2]).expect("no device is lost");
        assert!(mixed == unstaged, "{format}: the batch changes results by {}", apart(&mixed, &unstaged));
        let mut staged = decoder(vec![(0..1, open(0)), (1..2, open(1))], Arithmetic::F32);
        let two = in_pieces(&mut staged, &tokens, &[64]).expect("no device is lost");
        assert!(two == unstaged, "{format}: stages change results by {}", apart(&two, &unstaged));

        // Rounding activations to eight bits is another arithmetic, held to another bound.
        let mut rounded = decoder(vec![(0..2, open(0))], Arithmetic::Int8);
        let other = in_pieces(&mut rounded, &tokens[..40], &[7, 1]).expect("no device is lost");
        let (same, margin) = agreement(&reference[..40], &other);
        eprintln!("host-emulated, {format}, eight-bit activations: top token of {same}/40 equal, margin {margin:.2}");
        assert!(margin < 0.5, "{format}, eight-bit activations: {margin}");
    }
    per_token();
}

/// What one decoded token costs in launches and bytes, against the least possible.
fn per_token() {
    let gguf = two_layers(BlockFormat::Q4_1);
    let geometry = Geometry::from_gguf(&gguf).expect("it was made from one");
    let mut decoder = Decoder::load(&gguf, vec![(0..2, open(0))], Arithmetic::F32, 4, 64).expect("it fits");
    for token in 0..4 {
        decoder.pass(&[token]).expect("no device is lost");
    }
    let before = decoder.counters()[0];
    decoder.pass(&[9]).expect("no device is lost");
    let spent = decoder.counters()[0].since(before);
    // A launch an operation, one submission, a token and its place in, logits out, nothing allocated.
    let (launches, bytes_out) = (1 + 6 * 2 + 1, 4 * geometry.vocabulary as u64);
    eprintln!(
        "host-emulated, per decoded token: {} launches (least {launches}), {} submissions (1), {} bytes in (12), {} out \
         ({bytes_out}), {} allocated (0)",
        spent.dispatches, spent.submissions, spent.bytes_in, spent.bytes_out, spent.allocated_bytes
    );
    assert_eq!((spent.submissions, spent.allocated_bytes, spent.bytes_in, spent.bytes_out), (1, 0, 12, bytes_out));
    assert!(10 * spent.dispatches <= 13 * launches, "{} launches, at most 1.3 times {launches}", spent.dispatches);
}

#[test]
fn the_real_model_on_a_host_emulated_device_agrees_with_the_reference() {
    const NAME: &str = "the_real_model_on_a_host_emulated_device_agrees_with_the_reference";
    if material::real_model_path(NAME).is_none() {
        return;
    }
    let Some((library, compiler)) = ready(NAME) else { return };
    let output = inside("emulated_model::inside_real_model", &library, &compiler, &[]);
    eprintln!("{}", said(&output));
    assert!(output.status.success() && said(&output).contains("1 passed"), "{}", said(&output));
}

#[test]
#[ignore = "run by the_real_model_on_a_host_emulated_device..., with the host-emulated driver in reach"]
fn inside_real_model() {
    let gguf = material::real_model("inside_real_model").expect("the outer test found it");
    let geometry = Geometry::from_gguf(&gguf).expect("a model of the family");
    // A few tokens each time, a text in a campaign.
    let count = if std::env::var_os("ISOTHERM_CAMPAIGN").is_some() { 64 } else { 3 };
    let tokens: Vec<u32> = (0..count).map(|i| 300 + i * 411).collect();
    let reference = reference::logits::<f32>(&gguf, &geometry, &tokens, 0);
    let cut = geometry.layers / 2;
    let cuts = vec![(0..cut, open(0)), (cut..geometry.layers, open(1))];
    let mut decoder = Decoder::load(&gguf, cuts, Arithmetic::F32, 16, 64).expect("it fits");
    let logits = in_pieces(&mut decoder, &tokens, &[2, 1, 16]).expect("no device is lost");
    let (same, margin) = agreement(&reference, &logits);
    let distance = apart(&reference, &logits);
    eprintln!(
        "host-emulated, SmolLM2 in two stages: top token of {same}/{} positions equal, logits within {distance:.1e}; {NOTHING_ON_A_CARD}",
        tokens.len()
    );
    assert!(margin < 0.01 && distance < 1e-2, "{same} equal, margin {margin}, distance {distance}");
}
