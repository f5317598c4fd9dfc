//! The tokenizer part of a synthetic file.

use super::SynthError;
use crate::model::gguf::{Array, Gguf, Strings, Value};
use crate::model::tokenizer::byte_as_char;

/// Pairs that merge, most important first; each part is a byte or the result of an earlier line.
const MERGES: [&str; 40] = [
    "Ġ t", "h e", "Ġt he", "i n", "e r", "a n", "o n", "Ġ a", "r e", "Ġ o", "o u", "Ġ w", "a t", "e n", "o r", "i s",
    "i t", "Ġ s", "Ġ c", "in g", "e s", "n d", "Ġa nd", "Ġo f", "Ġt o", "l l", "a l", "a r", "Ġ m", "l o", "Ġ b",
    "Ġ p", "Ġ f", "Ġ d", "Ġ in", "e d", "i on", "l d", "or ld", "he ll",
];

const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Token types of the format: ordinary, control and unused.
const NORMAL: i32 = 1;
const CONTROL_KIND: i32 = 3;
const UNUSED: i32 = 5;

const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] \
    + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The built-in tokenizer, filled up with unused tokens to `size`.
pub(super) fn small(size: usize) -> Result<Vec<(&'static str, Value)>, SynthError> {
    let mut tokens: Vec<String> = CONTROL.map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|byte| byte_as_char(byte).to_string()));
    // "Ġt h" style pairs may build on each other, so the joined text of every pair is a token.
    tokens.extend(MERGES.map(|pair| pair.replacen(' ', "", 1)));
    if tokens.len() > size {
        return Err(SynthError::Vocabulary { tokens: tokens.len(), wanted: size });
    }
    let used = tokens.len();
    tokens.extend((used..size).map(|id| format!("<|unused_{id}|>")));
    let kinds = (0..size).map(|id| match id {
        _ if id < CONTROL.len() => CONTROL_KIND,
        _ if id < used => NORMAL,
        _ => UNUSED,
    });
    Ok(vec![
        ("tokenizer.ggml.model", Value::Text("gpt2".into())),
        ("tokenizer.ggml.pre", Value::Text("smollm".into())),
        ("tokenizer.ggml.tokens", Value::Array(Array::Texts(tokens.iter().map(String::as_str).collect()))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds.collect()))),
        ("tokenizer.ggml.merges", Value::Array(Array::Texts(Strings::from_iter(MERGES)))),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ("tokenizer.ggml.unknown_token_id", Value::U32(0)),
        ("tokenizer.ggml.padding_token_id", Value::U32(2)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
        ("tokenizer.chat_template", Value::Text(TEMPLATE.into())),
    ])
}

/// The tokenizer of another file.
pub(super) fn copied(gguf: &Gguf, size: usize) -> Result<Vec<(&str, Value)>, SynthError> {
    let tokens = match gguf.metadata().get("tokenizer.ggml.tokens") {
        Some(Value::Array(Array::Texts(tokens))) => tokens.len(),
        _ => 0,
    };
    if tokens != size {
        return Err(SynthError::Vocabulary { tokens, wanted: size });
    }
    let ours = gguf.metadata().iter().filter(|(key, _)| key.starts_with("tokenizer."));
    Ok(ours.map(|(key, value)| (key, value.clone())).collect())
}
