//! Models as they are written down: geometry, format, and bytes where these do not follow from both.

use super::fault::Fault;
use super::reader::Reader;
use crate::digest::Digest;
use crate::model::Model;
use crate::units::Bytes;

/// Formats of weights: name, weights in a block, bytes of a block (the GGUF format's own).
const FORMATS: [(&str, u64, u64); 14] = [
    ("F32", 1, 4),
    ("F16", 1, 2),
    ("BF16", 1, 2),
    ("Q8_0", 32, 34),
    ("Q4_0", 32, 18),
    ("Q4_1", 32, 20),
    ("Q5_0", 32, 22),
    ("Q5_1", 32, 24),
    ("Q2_K", 256, 84),
    ("Q3_K", 256, 110),
    ("Q4_K", 256, 144),
    ("Q5_K", 256, 176),
    ("Q6_K", 256, 210),
    ("Q8_K", 256, 292),
];

/// Keys that write a model down, in the place of its table's name.
pub(super) const KEYS: [&str; 16] = [
    "architecture",
    "layers",
    "hidden",
    "feed_forward",
    "heads",
    "kv_heads",
    "head_size",
    "vocabulary",
    "context_max",
    "quantisation",
    "embedding_format",
    "tied",
    "kv_element_bytes",
    "layer_bytes",
    "embedding_bytes",
    "head_bytes",
];

/// Most layers of a model.
pub(super) const LAYERS_MAX: u32 = 10_000;
/// Longest context of a model in tokens.
const CONTEXT_MAX: u32 = 1 << 24;
/// Largest width or vocabulary.
const WIDTH_MAX: u32 = 1 << 24;
/// Most heads, and their greatest width.
const HEADS_MAX: u32 = 1 << 16;

/// Bytes of `weights` weights in a format, in whole blocks; none for a format whose size is not known here.
fn bytes_in(format: &str, weights: u64) -> Option<u64> {
    let (_, block, bytes) = FORMATS.iter().find(|(name, ..)| *name == format)?;
    Some(weights.div_ceil(*block).saturating_mul(*bytes))
}

/// A model from its table. None where something it needs is missing or wrong; the faults are in the reader.
///
/// Bytes that are not given follow from geometry and format: a layer's matrices plus two norms in f32, the embedding
/// in `embedding_format` (the layers' format unless given), the head like the embedding plus one norm.
pub(super) fn read(reader: &Reader<'_, '_>, name: &str) -> Option<Model> {
    let _ = reader.text("source");
    let own_name = reader.name("name").map_or_else(|| name.to_owned(), |own| own.value);
    let architecture = reader.name("architecture").map_or_else(|| "llama".to_owned(), |a| a.value);
    let count = |key: &'static str, max: u32, example: &'static str| {
        if !reader.has(key) {
            reader.missing(key, example);
        }
        reader.integer(key, 1, max)
    };
    let layers = count("layers", LAYERS_MAX, "layers = 32");
    let hidden = count("hidden", WIDTH_MAX, "hidden = 4096");
    let feed_forward = count("feed_forward", WIDTH_MAX, "feed_forward = 14336");
    let heads = count("heads", HEADS_MAX, "heads = 32");
    let vocabulary = count("vocabulary", WIDTH_MAX, "vocabulary = 128256");
    let context_max = count("context_max", CONTEXT_MAX, "context_max = 8192");
    let kv_heads = reader.integer("kv_heads", 1, HEADS_MAX).or(heads);
    let head_size = reader.integer("head_size", 1, HEADS_MAX).or_else(|| hidden?.checked_div(heads?));
    let quantisation = reader.name("quantisation");
    if quantisation.is_none() && !reader.has("quantisation") {
        reader.missing("quantisation", "quantisation = \"Q4_0\"");
    }
    let embedding_format = reader.name("embedding_format");
    let tied = reader.boolean("tied").unwrap_or(false);
    let kv_element_bytes = reader.integer("kv_element_bytes", 1, 8).unwrap_or(2);
    let digest = reader.text("digest").and_then(|text| {
        let parsed = text.value.parse::<Digest>();
        if parsed.is_err() {
            let must = "sha256: and 64 hexadecimal digits in lower case".to_owned();
            let value = format!("{:?}", text.value.chars().take(80).collect::<String>());
            reader.source.fault(text.span, Fault::OutOfRange { key: "digest".to_owned(), value, must });
        }
        parsed.ok()
    });
    let embedding_bytes = reader.quantity::<Bytes>("embedding_bytes");
    let head_bytes = reader.quantity::<Bytes>("head_bytes");
    let layer_bytes = layer_bytes(reader, layers);

    let (layers, hidden, quantisation) = (layers?, hidden?, quantisation?.value);
    let mut model = Model {
        name: own_name,
        architecture,
        hidden,
        feed_forward: feed_forward?,
        heads: heads?,
        kv_heads: kv_heads?,
        head_size: head_size.filter(|&size| size > 0)?,
        vocabulary: vocabulary?,
        context_max: context_max?,
        layer_bytes: Vec::new(),
        embedding_bytes: Bytes::ZERO,
        head_bytes: Bytes::ZERO,
        tied,
        kv_element_bytes,
        digest,
        quantisation,
    };
    let norm = 4 * u64::from(hidden);
    let format = embedding_format.map_or_else(|| model.quantisation.clone(), |f| f.value);
    let known = |key: &'static str, bytes: Option<u64>| {
        if bytes.is_none() {
            reader.missing(key, "the bytes, as the size of this format is not known, for example \"112 MiB\"");
        }
        bytes.map(Bytes)
    };
    model.layer_bytes = match layer_bytes {
        Some(given) => given,
        None => {
            let matrices = bytes_in(&model.quantisation, model.layer_weights());
            vec![known("layer_bytes", matrices.map(|m| m + 2 * norm))?; layers as usize]
        }
    };
    let matrix = bytes_in(&format, model.head_weights());
    model.embedding_bytes = embedding_bytes.or_else(|| known("embedding_bytes", matrix))?;
    model.head_bytes = head_bytes.or_else(|| known("head_bytes", matrix.map(|m| m + norm)))?;
    Some(model)
}

/// Bytes of every layer, as one quantity for all or one for each.
fn layer_bytes(reader: &Reader<'_, '_>, layers: Option<u32>) -> Option<Vec<Bytes>> {
    let value = reader.get("layer_bytes")?;
    let Some(items) = value.get_ref().as_array() else {
        return Some(vec![reader.quantity_of("layer_bytes", value)?; layers? as usize]);
    };
    let bytes: Vec<Option<Bytes>> = items.iter().map(|item| reader.quantity_of("layer_bytes", item)).collect();
    if let Some(layers) = layers.filter(|&layers| layers as usize != bytes.len()) {
        let (key, found) = ("layer_bytes".to_owned(), format!("a list of {}", bytes.len()));
        let must = format!("one quantity, or a list of {layers}, one for each layer");
        reader.source.fault(value.span(), Fault::OutOfRange { key, value: found, must });
        return None;
    }
    bytes.into_iter().collect()
}
