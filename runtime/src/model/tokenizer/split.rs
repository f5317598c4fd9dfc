//! How text is cut into words before merging. The patterns are those of llama.cpp's `llama-vocab.cpp` for the same
//! names; a pattern that ends in `\s+` after `\s+(?!\S)` covers white space at the end of a text.

use std::error::Error;

use tokenizers::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// One way of cutting text.
pub(super) struct Rule {
    name: &'static str,
    /// Applied one after another, each to the pieces of the one before.
    patterns: &'static [&'static str],
    /// Whether a word that is a token is taken whole, whatever the merges would make of it.
    pub(super) whole_words_first: bool,
    /// Whether a BOS token is added when the file does not say.
    pub(super) adds_bos: bool,
}

const RULES: [Rule; 4] = [
    Rule { name: "smollm", patterns: &[r"\p{N}", GPT2], whole_words_first: false, adds_bos: false },
    Rule { name: "gpt-2", patterns: &[GPT2], whole_words_first: false, adds_bos: false },
    Rule { name: "llama-bpe", patterns: &[LLAMA3], whole_words_first: true, adds_bos: true },
    Rule { name: "qwen2", patterns: &[QWEN2], whole_words_first: false, adds_bos: false },
];

/// The names that files may use.
pub(super) const NAMES: [&str; 4] = [RULES[0].name, RULES[1].name, RULES[2].name, RULES[3].name];

/// The rule of that name.
pub(super) fn rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

/// The rule as the tokenizer library applies it; the last step turns bytes into the characters of the vocabulary.
pub(super) fn pre_tokenizer(rule: &Rule) -> Result<Sequence, Box<dyn Error + Send + Sync>> {
    let mut steps = Vec::with_capacity(rule.patterns.len() + 1);
    for pattern in rule.patterns {
        let pattern = SplitPattern::Regex((*pattern).into());
        steps.push(PreTokenizerWrapper::Split(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?));
    }
    steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)));
    Ok(Sequence::new(steps))
}
