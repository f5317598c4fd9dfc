//! SentencePiece vocabularies with scores (`tokenizer.ggml.model` of `llama`): Llama 2, Mistral, Gemma.
//!
//! Text is cut into characters; of all neighbours whose joined text is a token, those with the highest score merge, the
//! leftmost of equals, until none is left. What is then no token is given byte by byte (Kudo and Richardson,
//! "SentencePiece", 2018; the merging order is that of llama.cpp's `llm_tokenizer_spm`). A space is written as `U+2581`.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

/// What stands for a space.
pub(super) const SPACE: &str = "\u{2581}";

/// A vocabulary with scores.
pub(super) struct Pieces {
    by_text: HashMap<Box<str>, u32>,
    scores: Vec<f32>,
    /// The token of each byte, where there is one.
    bytes: [Option<u32>; 256],
    /// For what is neither a token nor has bytes.
    unknown: Option<u32>,
    /// Whether a space is put before a text.
    pub(super) space_prefix: bool,
}

/// A part of the text: a character, or what merged. Parts are a list linked both ways.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    end: usize,
    before: Option<usize>,
    after: Option<usize>,
}

/// Two neighbours that could merge.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both when this was found: a part that has changed since is another.
    length: usize,
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl Pieces {
    /// `tokens` with `scores`; tokens for which `ordinary` says no are not made from text.
    pub(super) fn new<'a>(
        tokens: impl Iterator<Item = &'a str>,
        scores: Vec<f32>,
        ordinary: impl Fn(u32) -> bool,
        unknown: Option<u32>,
        space_prefix: bool,
    ) -> Self {
        let mut by_text: HashMap<Box<str>, u32> = HashMap::new();
        let mut bytes = [None; 256];
        for (id, token) in (0_u32..).zip(tokens) {
            if let Some(byte) = byte_of(token) {
                bytes[byte as usize] = Some(id);
            } else if ordinary(id) {
                // Of tokens with the same text the first counts.
                by_text.entry(token.into()).or_insert(id);
            }
        }
        Self { by_text, scores, bytes, unknown, space_prefix }
    }

    /// Adds the tokens of a text, whose spaces are written as spaces.
    pub(super) fn encode(&self, text: &str, prefix: bool, tokens: &mut Vec<u32>) {
        let text = text.replace(' ', SPACE);
        let text = if prefix { format!("{SPACE}{text}") } else { text };
        let mut parts: Vec<Part> = Vec::new();
        for (start, c) in text.char_indices() {
            let at = parts.len();
            let part = Part { start, end: start + c.len_utf8(), before: at.checked_sub(1), after: Some(at + 1) };
            parts.push(part);
        }
        if let Some(last) = parts.last_mut() {
            last.after = None;
        }
        let mut pairs = BinaryHeap::new();
        for right in 1..parts.len() {
            self.consider(&text, &parts, right - 1, right, &mut pairs);
        }
        while let Some(pair) = pairs.pop() {
            let (left, right) = (parts[pair.left], parts[pair.right]);
            let whole = left.end == right.start && left.start != left.end && right.start != right.end;
            if !whole || right.end - left.start != pair.length {
                continue;
            }
            parts[pair.left].end = right.end;
            parts[pair.left].after = right.after;
            // An empty part is gone.
            parts[pair.right].end = right.start;
            if let Some(after) = right.after {
                parts[after].before = Some(pair.left);
                self.consider(&text, &parts, pair.left, after, &mut pairs);
            }
            if let Some(before) = left.before {
                self.consider(&text, &parts, before, pair.left, &mut pairs);
            }
        }
        for part in parts.iter().filter(|part| part.start != part.end) {
            let piece = &text[part.start..part.end];
            match self.by_text.get(piece) {
                Some(&id) => tokens.push(id),
                None => {
                    let each = piece.bytes().map(|byte| self.bytes[byte as usize].or(self.unknown));
                    tokens.extend(each.flatten());
                }
            }
        }
    }

    fn consider(&self, text: &str, parts: &[Part], left: usize, right: usize, pairs: &mut BinaryHeap<Pair>) {
        let (start, end) = (parts[left].start, parts[right].end);
        if let Some(&id) = self.by_text.get(&text[start..end]) {
            let score = self.scores.get(id as usize).copied().unwrap_or(0.0);
            pairs.push(Pair { score, left, right, length: end - start });
        }
    }
}

/// The byte that a token like `<0x0A>` stands for.
pub(super) fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens of the merging rule done the slow way: look at all neighbours, merge the best, begin again.
    fn slowly(words: &[(&str, f32)], text: &str) -> Vec<String> {
        let mut parts: Vec<String> = text.chars().map(String::from).collect();
        loop {
            let score = |joined: &str| words.iter().find(|word| word.0 == joined).map(|word| word.1);
            let mut best: Option<(f32, usize)> = None;
            for i in 1..parts.len() {
                if let Some(score) = score(&[parts[i - 1].as_str(), &parts[i]].concat())
                    && best.is_none_or(|best| score > best.0)
                {
                    best = Some((score, i));
                }
            }
            let Some((_, i)) = best else { return parts };
            let right = parts.remove(i);
            parts[i - 1].push_str(&right);
        }
    }

    #[test]
    fn merges_are_those_of_the_slow_rule() {
        let words: Vec<(&str, f32)> = ["a", "b", "c", "ab", "bc", "abc", "aa", "aab", "ca", "\u{e9}", "a\u{e9}"]
            .into_iter()
            .zip([0.0, 0.0, 0.0, -1.0, -0.5, -3.0, -1.0, -2.0, -0.7, 0.0, -4.0])
            .collect();
        let scores = words.iter().map(|word| word.1).collect();
        let pieces = Pieces::new(words.iter().map(|word| word.0), scores, |_| true, None, false);
        let letters = ['a', 'b', 'c', '\u{e9}'];
        for number in 0..4_usize.pow(6) {
            let text: String = (0..6).map(|place| letters[number / 4_usize.pow(place) % 4]).collect();
            let mut tokens = Vec::new();
            pieces.encode(&text, false, &mut tokens);
            let found: Vec<&str> = tokens.iter().map(|&id| words[id as usize].0).collect();
            assert_eq!(found, slowly(&words, &text), "{text}");
        }
    }

    #[test]
    fn what_is_no_token_is_given_in_bytes() {
        let words = ["<0xC3>", "<0xA9>", "x", SPACE];
        let pieces = Pieces::new(words.into_iter(), vec![0.0; 4], |_| true, None, true);
        let mut tokens = Vec::new();
        pieces.encode("x \u{e9}", true, &mut tokens);
        assert_eq!(tokens, [3, 2, 3, 0, 1]);
        assert_eq!((byte_of("<0x0A>"), byte_of("<0xA>"), byte_of("<s>")), (Some(10), None, None));
    }
}
