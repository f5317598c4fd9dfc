//! Models with random weights: any size, no network, the same bytes for the same seed.
//!
//! They carry every test and every timing but text. Weights are drawn directly in their packed form with one scale per
//! matrix, so that activations keep about the size they enter with; a file of gigabytes is written without ever being
//! held in memory.

mod blocks;
mod vocabulary;

use std::borrow::Cow;
use std::io;
use std::path::Path;

use self::blocks::Blocks;
use super::atomic_file::{WriteError, write_whole};
use super::format::BlockFormat;
use super::geometry::{
    Architecture, EMBEDDING, Experts, Geometry, OUTPUT, ROPE_DIVISORS, Rope, RopePairs, Window, Yarn,
};
use super::gguf::{Gguf, NewTensor, Value, write as write_gguf};

/// What to make.
#[derive(Clone, Copy, Debug)]
pub struct SynthSpec<'a> {
    /// The shape of the model; see [`named`].
    pub geometry: &'a Geometry,
    /// How the layers' matrices are packed.
    pub format: BlockFormat,
    /// How the embedding and the output head are packed.
    pub embedding: BlockFormat,
    /// Chooses the weights.
    pub seed: u64,
    /// Where tokens come from.
    pub tokenizer: SynthTokenizer<'a>,
}

/// The tokenizer of a synthetic model.
#[derive(Clone, Copy, Debug)]
pub enum SynthTokenizer<'a> {
    /// A built-in one: 256 bytes, a few merges, three chat tokens; the rest of the vocabulary is unused.
    Small,
    /// That of another file, whose vocabulary must be as large as the geometry's.
    From(&'a Gguf),
}

/// Why a synthetic model could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// A matrix that cannot be packed so.
    #[error(
        "tensor {tensor:?} has rows of {values} values, {format} needs a multiple of {block}; choose another format"
    )]
    RowLength {
        /// Its name.
        tensor: String,
        /// Values in a row.
        values: u64,
        /// The format asked for.
        format: BlockFormat,
        /// Values in a block of it.
        block: usize,
    },
    /// A vocabulary of the wrong size.
    #[error("the tokenizer has {tokens} tokens, the geometry asks for {wanted}; choose another tokenizer or geometry")]
    Vocabulary {
        /// Tokens there are.
        tokens: usize,
        /// Tokens the geometry has.
        wanted: usize,
    },
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The names [`named`] knows.
pub const NAMES: [&str; 12] = [
    "tiny",
    "tiny-256",
    "tiny-mistral",
    "tiny-mixtral",
    "tiny-yarn",
    "tiny-qwen2",
    "tiny-qwen3",
    "tiny-qwen2moe",
    "tiny-qwen3moe",
    "tiny-gemma3",
    "smollm2-135m",
    "llama-1b",
];

/// A geometry by name: `tiny` (2 layers of 64, for tests), `tiny-256` (2 layers of 256, for formats with blocks of
/// 256), small ones of every other family (`tiny-mistral` sees a window), `smollm2-135m` (the real test model's),
/// `llama-1b` (16 layers of 2048, for timing).
pub fn named(name: &str) -> Option<Geometry> {
    let llama = |layers, hidden, feed_forward, heads, kv_heads, vocabulary, tied| Geometry {
        architecture: Architecture::Llama,
        layers,
        hidden,
        feed_forward,
        heads,
        kv_heads,
        head_size: hidden / heads,
        context: 8192,
        rope: Rope {
            base: 100_000.0,
            dimensions: hidden / heads,
            pairs: RopePairs::Adjacent,
            position_divisor: 1.0,
            yarn: None,
            divisors: Vec::new(),
        },
        local_rope: None,
        window: None,
        experts: None,
        norm_epsilon: 1e-5,
        vocabulary,
        tied,
    };
    let tiny = |architecture: Architecture| {
        let plain = llama(3, 64, 192, 4, 2, 320, true);
        let pairs = RopePairs::SplitHalves;
        Geometry { architecture, rope: Rope { pairs, ..plain.rope.clone() }, ..plain }
    };
    let mixture =
        |shared: Option<usize>, normalised| Some(Experts { count: 5, used: 2, feed_forward: 96, shared, normalised });
    let with_experts = |geometry: Geometry, experts: Option<Experts>| {
        let feed_forward = experts.map_or(0, |e| e.used * e.feed_forward + e.shared.unwrap_or(0));
        Geometry { experts, feed_forward, ..geometry }
    };
    let window = |every| Some(Window { positions: 40, every });
    Some(match name {
        "tiny-mistral" => Geometry { window: window(None), ..llama(2, 64, 192, 4, 2, 320, false) },
        "tiny-mixtral" => with_experts(llama(2, 64, 192, 4, 2, 320, false), mixture(None, true)),
        "tiny-yarn" => {
            let plain = llama(2, 64, 192, 4, 2, 320, true);
            let yarn = Yarn { factor: 4.0, context: 64.0, fast: 32.0, slow: 1.0, magnitude: 1.0 };
            Geometry { rope: Rope { yarn: Some(yarn), ..plain.rope.clone() }, ..plain }
        }
        "tiny-qwen2" => tiny(Architecture::Qwen2),
        "tiny-qwen3" => {
            let plain = tiny(Architecture::Qwen3);
            Geometry { head_size: 32, rope: Rope { dimensions: 32, ..plain.rope.clone() }, ..plain }
        }
        "tiny-qwen2moe" => with_experts(tiny(Architecture::Qwen2Moe), mixture(Some(128), false)),
        "tiny-qwen3moe" => with_experts(tiny(Architecture::Qwen3Moe), mixture(None, true)),
        "tiny-gemma3" => {
            let plain = tiny(Architecture::Gemma3);
            let local = Rope { base: 10_000.0, ..plain.rope.clone() };
            Geometry { window: window(Some(3)), local_rope: Some(local), ..plain }
        }
        "tiny" => llama(2, 64, 192, 4, 2, 320, true),
        "tiny-256" => llama(2, 256, 512, 8, 2, 320, false),
        "smollm2-135m" => llama(30, 576, 1536, 9, 3, 49_152, true),
        "llama-1b" => llama(16, 2048, 8192, 32, 8, 49_152, false),
        _ => return None,
    })
}

/// Writes a model file; a failure leaves no file behind.
///
/// # Errors
/// When rows do not fit the format, the vocabulary does not fit the geometry, or the file cannot be written.
pub fn write(path: &Path, spec: &SynthSpec<'_>) -> Result<(), SynthError> {
    let plan = Plan::of(spec)?;
    write_whole(path, |out| {
        plan.write(spec, out).map_err(|source| SynthError::Write(WriteError { path: path.into(), source }))
    })
}

/// The same file in memory, for tests and fuzzing.
///
/// # Errors
/// As [`write()`], without the file.
pub fn bytes(spec: &SynthSpec<'_>) -> Result<Vec<u8>, SynthError> {
    let plan = Plan::of(spec)?;
    let mut out = Vec::new();
    plan.write(spec, &mut out).expect("memory takes every byte, and each tensor is filled as it was planned");
    Ok(out)
}

/// What a tensor is filled with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Weights,
    Norm,
    RopeDivisors,
}

/// Everything about the file but its weights.
struct Plan<'a> {
    metadata: Vec<(Cow<'a, str>, Value)>,
    tensors: Vec<NewTensor>,
    /// What is in each of `tensors`.
    contents: Vec<Content>,
}

impl<'a> Plan<'a> {
    fn of(spec: &SynthSpec<'a>) -> Result<Self, SynthError> {
        let mut metadata = describe(spec.geometry, spec.format);
        let tokenizer = match spec.tokenizer {
            SynthTokenizer::Small => vocabulary::small(spec.geometry.vocabulary)?,
            SynthTokenizer::From(gguf) => vocabulary::copied(gguf, spec.geometry.vocabulary)?,
        };
        metadata.extend(tokenizer.into_iter().map(|(key, value)| (Cow::from(key), value)));
        let (mut tensors, mut contents) = (Vec::new(), Vec::new());
        for expected in spec.geometry.expected_tensors() {
            let format = match expected.name.as_str() {
                // Routers are small and decide much, so converters leave them in single precision.
                name if expected.norm || name.contains("ffn_gate_inp") => BlockFormat::F32,
                EMBEDDING | OUTPUT => spec.embedding,
                _ => spec.format,
            };
            let tensor = NewTensor { name: expected.name, dims: expected.dims, format };
            if tensor.bytes().is_none() {
                let (values, block) = (tensor.dims[0], format.values_per_block());
                return Err(SynthError::RowLength { tensor: tensor.name, values, format, block });
            }
            tensors.push(tensor);
            contents.push(if expected.norm { Content::Norm } else { Content::Weights });
        }
        let divisors = spec.geometry.rope.divisors.len() as u64;
        if divisors > 0 {
            tensors.push(NewTensor { name: ROPE_DIVISORS.into(), dims: vec![divisors], format: BlockFormat::F32 });
            contents.push(Content::RopeDivisors);
        }
        Ok(Self { metadata, tensors, contents })
    }

    fn write(&self, spec: &SynthSpec<'_>, out: &mut dyn io::Write) -> io::Result<()> {
        let metadata: Vec<(&str, Value)> =
            self.metadata.iter().map(|(key, value)| (key.as_ref(), value.clone())).collect();
        write_gguf(out, &metadata, &self.tensors, &mut |index, out| {
            let tensor = &self.tensors[index];
            let mut blocks = Blocks::new(spec.seed, &tensor.name);
            let rows = tensor.dims[1..].iter().product::<u64>();
            let length = tensor.format.row_bytes(tensor.dims[0]).expect("the plan has whole rows") as usize;
            let mut row = vec![0; length];
            for _ in 0..rows {
                match self.contents[index] {
                    Content::Weights => blocks.fill(tensor.format, (tensor.dims[0] as f64).sqrt().recip(), &mut row),
                    Content::Norm => blocks.fill_norm(&mut row),
                    Content::RopeDivisors => {
                        let divisors = spec.geometry.rope.divisors.iter().flat_map(|divisor| divisor.to_le_bytes());
                        row = divisors.collect();
                    }
                }
                out.write_all(&row)?;
            }
            Ok(())
        })
    }
}

/// The metadata that [`Geometry::from_gguf`] reads back.
fn describe<'a>(geometry: &Geometry, format: BlockFormat) -> Vec<(Cow<'a, str>, Value)> {
    let family = geometry.architecture.name();
    let number = |count: usize| Value::U32(u32::try_from(count).expect("geometry counts fit in 32 bits"));
    let real = |value: f64| Value::F32(value as f32);
    let mut of_family = vec![
        ("block_count", number(geometry.layers)),
        ("context_length", number(geometry.context)),
        ("embedding_length", number(geometry.hidden)),
        ("feed_forward_length", number(geometry.experts.map_or(geometry.feed_forward, |e| e.feed_forward))),
        ("attention.head_count", number(geometry.heads)),
        ("attention.head_count_kv", number(geometry.kv_heads)),
        ("attention.key_length", number(geometry.head_size)),
        ("attention.value_length", number(geometry.head_size)),
        ("attention.layer_norm_rms_epsilon", Value::F32(geometry.norm_epsilon)),
        ("rope.freq_base", real(geometry.rope.base)),
        ("rope.dimension_count", number(geometry.rope.dimensions)),
        ("vocab_size", number(geometry.vocabulary)),
    ];
    if geometry.rope.position_divisor != 1.0 {
        of_family.push(("rope.scaling.type", Value::Text("linear".into())));
        of_family.push(("rope.scaling.factor", real(geometry.rope.position_divisor)));
    }
    if let Some(yarn) = geometry.rope.yarn {
        of_family.extend([
            ("rope.scaling.type", Value::Text("yarn".into())),
            ("rope.scaling.factor", real(yarn.factor)),
            ("rope.scaling.original_context_length", number(yarn.context as usize)),
            ("rope.scaling.yarn_beta_fast", real(yarn.fast)),
            ("rope.scaling.yarn_beta_slow", real(yarn.slow)),
            ("rope.scaling.yarn_attn_factor", real(yarn.magnitude)),
        ]);
    }
    if let Some(window) = geometry.window {
        of_family.push(("attention.sliding_window", number(window.positions)));
        of_family.extend(window.every.map(|every| ("attention.sliding_window_pattern", number(every))));
    }
    if let Some(experts) = geometry.experts {
        of_family.push(("expert_count", number(experts.count)));
        of_family.push(("expert_used_count", number(experts.used)));
        of_family.push(("expert_feed_forward_length", number(experts.feed_forward)));
        of_family.extend(experts.shared.map(|width| ("expert_shared_feed_forward_length", number(width))));
    }
    let general = [
        (Cow::from("general.architecture"), Value::Text(family.into())),
        ("general.name".into(), Value::Text(format!("synthetic random weights, {format}").into())),
    ];
    let named = of_family.into_iter().map(|(part, value)| (Cow::from(format!("{family}.{part}")), value));
    general.into_iter().chain(named).collect()
}
