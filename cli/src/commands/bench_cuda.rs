//! `isotherm bench cuda`: what the CUDA kernels should reach on known cards, and what they reach on the cards here.

use crate::args::BenchCuda;
use crate::commands::check_cards::{self, Check};
use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::ui::{Ui, table};
use isotherm_core::artefact::TOOL_VERSION;
use isotherm_runtime::backend::cuda::CudaPlatform;
use isotherm_runtime::backend::decoder::Decoder;
use isotherm_runtime::backend::roofline::{Card, Work, decode_step, table as account};
use isotherm_runtime::backend::{Arithmetic, Device, DeviceError, DeviceInfo, Hardware, Platform};
use isotherm_runtime::model::Geometry;
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::gguf::Gguf;
use isotherm_runtime::model::synth::{self, SynthSpec, SynthTokenizer};
use serde::Serialize;

/// What a run of the command found.
#[derive(Serialize)]
struct Record {
    schema: &'static str,
    tool_version: &'static str,
    shape: String,
    layer_format: &'static str,
    output_format: &'static str,
    arithmetic: &'static str,
    positions: u64,
    /// Kernels that ran on NVIDIA's hardware during this command. Emulated ones do not count.
    kernels_executed_on_nvidia_hardware: u64,
    cards: Vec<Found>,
}

/// One card.
#[derive(Serialize)]
struct Found {
    name: String,
    hardware: &'static str,
    interface: String,
    uuid: Option<String>,
    operations: Vec<Operation>,
    /// One decoded token, all layers as one step.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Token>,
}

/// A decoded token.
#[derive(Serialize)]
struct Token {
    layers: usize,
    bytes: u64,
    measured_seconds: f64,
    measured_bytes_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_seconds: Option<f64>,
}

/// One operation of a decoded token.
#[derive(Serialize)]
struct Operation {
    part: String,
    kernel: String,
    bytes: u64,
    measured_seconds: f64,
    measured_bytes_per_second: f64,
    /// Absent for a card whose data sheet the account does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_seconds: Option<f64>,
}

/// Runs the command.
pub fn run(ui: &Ui, args: &BenchCuda) -> Done {
    let geometry = synth::named(&args.shape).ok_or_else(|| {
        Failure::new(Code::Usage, format!("there is no shape {:?}; there are {}", args.shape, synth::NAMES.join(", ")))
    })?;
    let format = |text: &str| text.parse::<BlockFormat>().map_err(|error| Failure::new(Code::Usage, error.to_string()));
    let (layer, output) = (format(&args.layer_format)?, format(&args.output_format)?);
    let arithmetic = if args.int8 { Arithmetic::Int8 } else { Arithmetic::F32 };
    let positions = u64::from(args.positions.max(1));
    let steps = decode_step(&geometry, layer, output, arithmetic, positions);

    let platform = CudaPlatform { cache: Some(files::home()?.join("kernels")), tensor_cores: false };
    let cards: Vec<DeviceInfo> = match platform.devices() {
        Ok(devices) => {
            let wanted =
                |hardware: Hardware| hardware.is_accelerator() || (args.emulated && hardware == Hardware::Emulated);
            devices.into_iter().filter(|device| wanted(device.hardware)).collect()
        }
        Err(DeviceError::NoDriver { why, .. }) => {
            ui.note(format!("no NVIDIA card here: {why}"));
            Vec::new()
        }
        Err(error) => return Err(lost(&error)),
    };
    if cards.is_empty() && args.check {
        return Err(Failure::new(Code::Device, "there is no NVIDIA card to check")
            .remedy("run this on a machine with one; without it `isotherm bench cuda` prints what is expected"));
    }
    if args.check {
        let only = ["cuda".to_owned()];
        let check = Check { backends: &only, model: None, size: 2048, samples: 5, output: args.output.as_deref() };
        check_cards::checked(ui, &check)?;
    }
    let names: Vec<String> = cards.iter().map(|card| format!("cuda{}", card.index)).collect();
    crate::access::timing(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let question = Question { geometry: &geometry, layer, output, arithmetic, positions: args.positions.max(1) };
    let (mut found, mut executed) = (Vec::new(), 0);
    for info in cards {
        let (card, kernels) = measure(&platform, &info, &question, &steps)?;
        // What ran on the processor in place of a card ran on no card.
        executed += if info.hardware.is_accelerator() { kernels } else { 0 };
        found.push(card);
    }
    let record = Record {
        schema: "isotherm/bench-cuda/v1",
        tool_version: TOOL_VERSION,
        shape: args.shape.clone(),
        layer_format: layer.name(),
        output_format: output.name(),
        arithmetic: arithmetic.name(),
        positions,
        kernels_executed_on_nvidia_hardware: executed,
        cards: found,
    };
    if let Some(folder) = &args.output {
        files::write_json(&folder.join("bench-cuda.json"), &record)?;
    }
    ui.result(&record, || describe(&record, &steps))
}

struct Question<'a> {
    geometry: &'a Geometry,
    layer: BlockFormat,
    output: BlockFormat,
    arithmetic: Arithmetic,
    positions: u32,
}

fn lost(error: &DeviceError) -> Failure {
    Failure::new(Code::Device, error.to_string())
}

/// Times one card; gives how many kernels ran on it.
fn measure(
    platform: &CudaPlatform,
    info: &DeviceInfo,
    question: &Question<'_>,
    steps: &[(u64, Work)],
) -> Result<(Found, u64), Failure> {
    // What is no card is slow: one layer and the output are every kernel of a token once.
    let layers = if info.hardware.is_accelerator() { question.geometry.layers } else { 1 };
    let geometry = Geometry { layers, ..question.geometry.clone() };
    let spec = SynthSpec {
        geometry: &geometry,
        format: question.layer,
        embedding: question.output,
        seed: 1,
        tokenizer: SynthTokenizer::Small,
    };
    let bytes = synth::bytes(&spec).map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
    let gguf = Gguf::from_bytes(bytes).map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
    let device = Device::open(platform, info.index).map_err(|error| lost(&error))?;
    let positions = question.positions as usize;
    let mut decoder = Decoder::load(&gguf, vec![(0..layers, device)], question.arithmetic, 64, positions)
        .map_err(|error| lost(&error))?;
    let tokens = vec![1; positions];
    for piece in tokens.chunks(64) {
        decoder.pass(piece).map_err(|error| lost(&error))?;
    }
    let timed = decoder.timed(9).map_err(|error| lost(&error))?;
    let kernels = decoder.counters().iter().map(|counters| counters.dispatches).sum::<u64>();
    let card = Card::of(&info.name);
    let token = timed.as_ref().map(|timed| {
        // Steps name how often a layer's operations are there in the whole model.
        let times = |times: u64| if times > 1 { layers as u64 } else { times };
        let bytes = steps.iter().map(|(count, work)| times(*count) * work.bytes).sum::<u64>();
        let of = |card: &Card| steps.iter().map(|(n, work)| Some(times(*n) as f64 * work.on(card)?.seconds)).sum();
        Token {
            layers,
            bytes,
            measured_seconds: timed.token,
            measured_bytes_per_second: bytes as f64 / timed.token,
            expected_seconds: card.as_ref().and_then(of),
        }
    });
    // The first operation looks the token up, which the account leaves out; so does the pass leave out the argmax.
    let operations = timed
        .iter()
        .flat_map(|timed| &timed.operations)
        .skip(1)
        .zip(steps)
        .map(|(&(_, seconds), (_, work))| Operation {
            part: work.part.clone(),
            kernel: work.kernel.clone(),
            bytes: work.bytes,
            measured_seconds: seconds,
            measured_bytes_per_second: work.bytes as f64 / seconds,
            expected_seconds: card.as_ref().and_then(|card| work.on(card)).map(|expected| expected.seconds),
        })
        .collect();
    let found = Found {
        name: info.name.clone(),
        hardware: info.hardware.name(),
        interface: info.interface.clone(),
        uuid: info.uuid.clone(),
        operations,
        token,
    };
    Ok((found, kernels))
}

fn describe(record: &Record, steps: &[(u64, Work)]) -> String {
    let mut text = format!(
        "one decoded token of {}, layers {}, output {}, arithmetic {}, {} positions\n\n",
        record.shape, record.layer_format, record.output_format, record.arithmetic, record.positions
    );
    for card in Card::KNOWN {
        text.push_str(&account(steps, &card));
        text.push('\n');
    }
    for card in &record.cards {
        text.push_str(&format!("{} ({}), {}\n", card.name, card.hardware, card.interface));
        let mut rows = vec![["part", "kernel", "us", "GB/s", "expected us"].map(str::to_owned).to_vec()];
        rows.extend(card.operations.iter().map(|operation| {
            vec![
                operation.part.clone(),
                operation.kernel.clone(),
                format!("{:.2}", operation.measured_seconds * 1e6),
                format!("{:.0}", operation.measured_bytes_per_second / 1e9),
                operation.expected_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.2}", seconds * 1e6)),
            ]
        }));
        text.push_str(&table(&rows, &[2, 3, 4]));
        if let Some(token) = &card.token {
            let expected = token.expected_seconds.map_or_else(String::new, |s| format!("; expected {:.0} us", s * 1e6));
            text.push_str(&format!(
                "one token, {} layers as one step: {:.0} us, {:.0} tokens a second, {:.0} GB/s{expected}\n",
                token.layers,
                token.measured_seconds * 1e6,
                1.0 / token.measured_seconds,
                token.measured_bytes_per_second / 1e9
            ));
        }
        text.push('\n');
    }
    text.push_str(&format!("kernels executed on NVIDIA hardware: {}\n", record.kernels_executed_on_nvidia_hardware));
    text
}
