//! Layers brought from a file: the same answers in less memory, and a clear word where it is too little.

use isotherm_runtime::engine::{CpuDevice, Cut, Kernels, Runner, RunnerError, Sampling, StartError};
use isotherm_runtime::model::Geometry;
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::gguf::Gguf;
use isotherm_runtime::model::synth::{self, SynthSpec, SynthTokenizer};

/// A model of many small layers.
fn model(name: &str, layers: usize) -> (Gguf, Geometry) {
    let geometry = Geometry { layers, ..synth::named(name).expect("a known geometry") };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    let spec = SynthSpec {
        geometry: &geometry,
        format: BlockFormat::Q4_1,
        embedding: BlockFormat::Q8_0,
        seed: 11,
        tokenizer: SynthTokenizer::Small,
    };
    synth::write(&path, &spec).expect("a small file is written");
    let gguf = Gguf::open(&path).expect("it opens");
    let geometry = Geometry::from_gguf(&gguf).expect("it has a geometry");
    (gguf, geometry)
}

/// Bytes of the matrices of all layers, as the file has them; packed they are about as many.
fn layer_bytes(gguf: &Gguf) -> u64 {
    gguf.tensors().filter(|tensor| tensor.name.starts_with("blk.")).map(|tensor| tensor.bytes.len() as u64).sum()
}

fn head_bytes(gguf: &Gguf) -> u64 {
    gguf.tensors()
        .filter(|tensor| !tensor.name.starts_with("blk."))
        .map(|tensor| tensor.bytes.len() as u64)
        .max()
        .unwrap_or(0)
}

fn cuts(layers: usize, stages: usize) -> Vec<Cut> {
    let core = CpuDevice::host_cores().first().copied().unwrap_or(0);
    (0..stages)
        .map(|stage| Cut {
            layers: stage * layers / stages..(stage + 1) * layers / stages,
            device: CpuDevice::new(format!("part{stage}"), [core]),
        })
        .collect()
}

/// The runner's answer to a prompt in chunks, twice: the second starts where the circle of layers has come to.
fn answers(runner: &mut Runner) -> Vec<u32> {
    let mut answers = Vec::new();
    for prompt in [vec![3, 7, 11, 13, 17], vec![40; 9]] {
        let mut each = |token| {
            answers.push(token);
            true
        };
        runner.generate(&prompt, 6, &[], Sampling::GREEDY, &mut each).expect("it fits");
    }
    answers
}

#[test]
fn layers_brought_from_a_file_give_the_same_answers_in_every_budget_and_number_of_stages() {
    for name in ["tiny", "tiny-mixtral"] {
        let (gguf, geometry) = model(name, 8);
        let expected = answers(
            &mut Runner::start(&gguf, &geometry, Kernels::detect(), &cuts(8, 1), 64, 4).expect("the model loads"),
        );
        let (layers, head) = (layer_bytes(&gguf), head_bytes(&gguf));
        for stages in [1, 2] {
            for eighths in [5, 6, 7] {
                let budget = head + layers * eighths / 8;
                let folder = std::env::temp_dir();
                let mut runner = Runner::start_within(
                    &gguf,
                    &geometry,
                    Kernels::detect(),
                    &cuts(8, stages),
                    (64, 4),
                    Some((budget, &folder)),
                )
                .expect("the model loads");
                assert_eq!(answers(&mut runner), expected, "{name} in {stages} stages, {eighths} eighths");
                let figures = runner.offloaded().expect("some layers are brought");
                assert!(figures.away > 0 && figures.read_bytes >= figures.pass_bytes, "{figures:?}");
                assert!(figures.held_bytes <= budget, "{figures:?} within {budget}");
            }
        }
    }
}

#[test]
fn a_budget_for_everything_puts_nothing_away() {
    let (gguf, geometry) = model("tiny", 4);
    let budget = 2 * (layer_bytes(&gguf) + head_bytes(&gguf));
    let folder = std::env::temp_dir();
    let mut runner =
        Runner::start_within(&gguf, &geometry, Kernels::detect(), &cuts(4, 1), (64, 4), Some((budget, &folder)))
            .expect("the model loads");
    answers(&mut runner);
    assert_eq!(runner.offloaded(), None);
}

#[test]
fn a_budget_too_small_for_two_layers_is_refused_with_the_least_that_would_do() {
    let (gguf, geometry) = model("tiny", 8);
    let folder = std::env::temp_dir();
    let start = |budget: u64| {
        Runner::start_within(&gguf, &geometry, Kernels::detect(), &cuts(8, 1), (64, 4), Some((budget, &folder)))
    };
    let Err(RunnerError::Start(StartError::Budget { least, .. })) = start(1) else { panic!("it is refused") };
    assert!(start(least as u64 - 1).is_err());
    assert!(start(least as u64).is_ok());
}
