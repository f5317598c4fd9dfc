//! Any bytes as the tokenizer of a model file, and any text through it: what is encoded decodes to the same bytes.

use isotherm_runtime::model::gguf::Gguf;
use isotherm_runtime::model::tokenizer::Tokenizer;

/// Panics where the promise above is broken.
pub fn check(data: &[u8]) {
    // The file comes first, the text after it, the file's length in front of both.
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let (file, text) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    let Ok(file) = Gguf::from_bytes(file.to_vec()) else { return };
    let Ok(tokenizer) = Tokenizer::from_gguf(&file) else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    for special in [false, true] {
        let Ok(tokens) = tokenizer.encode(text, special) else { continue };
        for token in &tokens {
            assert!((*token as usize) < tokenizer.vocabulary(), "token {token} is outside the vocabulary");
        }
        assert!(tokenizer.decode(&tokens).is_ok(), "own tokens do not decode");
    }
}
