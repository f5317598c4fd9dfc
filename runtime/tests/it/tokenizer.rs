//! Tokens of real and small vocabularies.

use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::gguf::{Array, Gguf, Strings, Value, write};
use isotherm_runtime::model::synth::{self, SynthSpec, SynthTokenizer};
use isotherm_runtime::model::tokenizer::{EncodeError, Tokenizer, TokenizerError, UnknownToken, byte_as_char};
use proptest::prelude::*;

use crate::material;

fn small() -> Tokenizer {
    let geometry = synth::named("tiny").expect("a known name");
    let spec = SynthSpec {
        geometry: &geometry,
        format: BlockFormat::Q4_0,
        embedding: BlockFormat::Q4_0,
        seed: 1,
        tokenizer: SynthTokenizer::Small,
    };
    let gguf = Gguf::from_bytes(synth::bytes(&spec).expect("a sound specification")).expect("a sound file");
    Tokenizer::from_gguf(&gguf).expect("a sound tokenizer")
}

/// A tokenizer of all 256 bytes (token = byte), these words with their merges, and these extra entries.
fn built(pre: &str, words: &[&str], merges: &[&str], extra: &[(&str, Value)]) -> Result<Tokenizer, TokenizerError> {
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_as_char(byte).to_string()).collect();
    tokens.extend(words.iter().map(|word| (*word).to_owned()));
    let list = |texts: Strings| Value::Array(Array::Texts(texts));
    let mut metadata = vec![
        ("tokenizer.ggml.model", Value::Text("gpt2".into())),
        ("tokenizer.ggml.pre", Value::Text(pre.into())),
        ("tokenizer.ggml.tokens", list(tokens.iter().map(String::as_str).collect())),
        ("tokenizer.ggml.merges", list(merges.iter().copied().collect())),
    ];
    for (key, value) in extra {
        metadata.retain(|(other, _)| other != key);
        metadata.push((key, value.clone()));
    }
    let mut bytes = Vec::new();
    write(&mut bytes, &metadata, &[], &mut |_, _| Ok(())).expect("memory takes every byte");
    Tokenizer::from_gguf(&Gguf::from_bytes(bytes).expect("a sound container"))
}

/// Types of 256 byte tokens and those of the words after them.
fn kinds(words: &[i32]) -> (&'static str, Value) {
    ("tokenizer.ggml.token_type", Value::Array(Array::I32([&[1; 256][..], words].concat())))
}

#[test]
fn prompts_become_the_tokens_of_the_reference() {
    let test = "prompts_become_the_tokens_of_the_reference";
    let Some(gguf) = material::real_model(test) else { return };
    let Some(reference) = material::model_reference(test, "reference-f64.json") else { return };
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a sound tokenizer");
    let runs = reference["runs"].as_array().expect("the reference has runs");
    assert_eq!(runs.len(), 4);
    for run in runs {
        let prompt = run["prompt"].as_str().expect("a prompt is text");
        let tokens = tokenizer.encode_prompt(prompt).expect("a short text");
        assert_eq!(serde_json::json!(tokens), run["prompt_tokens"], "{prompt:?}");
        assert_eq!(tokenizer.decode(&tokens).expect("known tokens"), prompt);
    }
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.adds_bos()), (Some(1), Some(2), false));
    assert!(tokenizer.is_end(2) && tokenizer.is_end(0) && !tokenizer.is_end(1) && !tokenizer.is_end(504));
    assert!((0..17).all(|id| tokenizer.is_control(id)) && !tokenizer.is_control(17));
}

#[test]
fn generated_texts_of_the_reference_are_what_another_engine_printed() {
    let test = "generated_texts_of_the_reference_are_what_another_engine_printed";
    let Some(gguf) = material::real_model(test) else { return };
    let Some(printed) = material::model_reference(test, "llama-cpp-node-3.22.1-vulkan-lavapipe.json") else { return };
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a sound tokenizer");
    for run in printed["runs"].as_array().expect("the reference has runs") {
        let tokens: Vec<u32> = serde_json::from_value(run["tokens"].clone()).expect("tokens are numbers");
        let text = run["text"].as_str().expect("the run holds its text");
        assert_eq!(tokenizer.decode(&tokens).expect("known tokens"), text);
    }
}

#[test]
fn merges_apply_in_their_order_and_not_from_left_to_right() {
    // "bc" is the more important pair, so "abc" is a + bc although "ab" comes first in the text.
    let words = ["bc", "ab", "abc"];
    let tokenizer = built("gpt-2", &words, &["b c", "a b"], &[]).expect("sound");
    assert_eq!(tokenizer.encode("abc", false).expect("short"), [97, 256]);
    assert_eq!(tokenizer.encode("abd", false).expect("short"), [257, 100]);
    let tokenizer = built("gpt-2", &words, &["b c", "a b", "a bc"], &[]).expect("sound");
    assert_eq!(tokenizer.encode("abc", false).expect("short"), [258]);
    // Only this rule takes a word that is a token whole, whatever the merges say.
    let tokenizer = built("llama-bpe", &words, &["a b"], &[]).expect("sound");
    assert_eq!(tokenizer.encode("abc", false).expect("short"), [258]);
}

#[test]
fn each_rule_cuts_digits_spaces_and_contractions_in_its_own_way() {
    // Merges that would join across every cut of interest; where the text is cut, they cannot.
    let words = ["12", "34", "1234", "Ġ1", "Ġa", "'S", "!Ċ", "ĠĠ", "123"];
    let merges = ["1 2", "3 4", "12 34", "12 3", "Ġ 1", "Ġ a", "' S", "! Ċ", "Ġ Ġ"];
    let pieces = |pre: &str, text: &str| -> Vec<String> {
        let tokenizer = built(pre, &words, &merges, &[]).expect("sound");
        let tokens = tokenizer.encode(text, false).expect("short");
        tokens.iter().map(|&id| tokenizer.decode(&[id]).expect("known")).collect()
    };
    assert_eq!(pieces("smollm", "1234"), ["1", "2", "3", "4"]);
    assert_eq!(pieces("gpt-2", "1234"), ["1234"]);
    assert_eq!(pieces("llama-bpe", "1234"), ["123", "4"]);
    assert_eq!(pieces("qwen2", "1234"), ["1", "2", "3", "4"]);
    assert_eq!(pieces("smollm", "x 1"), ["x", " ", "1"]);
    assert_eq!(pieces("gpt-2", "x 1"), ["x", " 1"]);
    assert_eq!(pieces("qwen2", "x 1"), ["x", " ", "1"]);
    assert_eq!(pieces("gpt-2", "   a"), ["  ", " a"]);
    assert_eq!(pieces("gpt-2", "a'S"), ["a", "'", "S"]);
    assert_eq!(pieces("llama-bpe", "a'S"), ["a", "'S"]);
    assert_eq!(pieces("gpt-2", "!\n"), ["!", "\n"]);
    assert_eq!(pieces("qwen2", "!\n"), ["!\n"]);
}

#[test]
fn control_tokens_are_recognised_only_when_asked_and_the_longest_wins() {
    let words = ["<|end|>", "<|end|>!", "<tool>", "<|"];
    let tokenizer = built("gpt-2", &words, &[], &[kinds(&[3, 3, 4, 3])]).expect("sound");
    let text = "a<|end|>!b<tool><|";
    assert_eq!(tokenizer.encode(text, true).expect("short"), [97, 257, 98, 258, 259]);
    let plain = tokenizer.encode(text, false).expect("short");
    assert!(plain.iter().all(|&id| id < 256 || id == 258), "{plain:?}");
    assert_eq!(plain.iter().filter(|&&id| id == 258).count(), 1, "a user-defined token is recognised always");
    assert_eq!(tokenizer.decode(&plain).expect("known"), text);
    assert_eq!(tokenizer.control_token("<|end|>"), Some(256));
    assert_eq!(tokenizer.control_token("<tool>"), None);
}

#[test]
fn bos_comes_first_where_the_file_asks_and_never_twice() {
    let extra = [
        kinds(&[3]),
        ("tokenizer.ggml.bos_token_id", Value::U32(256)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
    ];
    let tokenizer = built("gpt-2", &["<s>"], &[], &extra).expect("sound");
    assert_eq!(tokenizer.encode_prompt("a").expect("short"), [256, 97]);
    assert_eq!(tokenizer.encode_prompt("<s>a").expect("short"), [256, 97]);
    assert_eq!(tokenizer.encode("a", true).expect("short"), [97]);
}

#[test]
fn a_contradictory_tokenizer_is_refused() {
    let text = |text: &str| Value::Text(text.into());
    let build = |words: &[&str], merges: &[&str], extra: &[(&str, Value)]| {
        built("gpt-2", words, merges, extra).expect_err("contradictory")
    };
    assert!(
        matches!(build(&[], &[], &[("tokenizer.ggml.model", text("t5"))]), TokenizerError::Kind { found } if found == "t5")
    );
    assert!(
        matches!(build(&[], &[], &[("tokenizer.ggml.pre", text("new"))]), TokenizerError::PreTokenizer { found } if found == "new")
    );
    for merge in ["ab", "a b", " ", "", "a  b", "a x y"] {
        assert!(
            matches!(build(&[], &[merge], &[]), TokenizerError::Merge { index: 0, text } if text == merge),
            "{merge:?}"
        );
    }
    assert!(matches!(build(&[], &[], &[kinds(&[1])]), TokenizerError::Length { found: 257, tokens: 256, .. }));
    let eos = ("tokenizer.ggml.eos_token_id", Value::U32(256));
    assert!(matches!(build(&[], &[], &[eos]), TokenizerError::Special { id: 256, tokens: 256, .. }));
    assert!(matches!(build(&[], &[], &[("tokenizer.ggml.tokens", text("a"))]), TokenizerError::Metadata(_)));
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error() {
    let tokenizer = small();
    let unknown = UnknownToken { id: 320, tokens: 320 };
    assert_eq!(tokenizer.decode(&[5, 320]), Err(unknown));
    assert_eq!(tokenizer.stream().push(320), Err(unknown));
    assert!(tokenizer.decode(&[319]).is_ok());
}

#[test]
fn a_byte_that_the_vocabulary_lacks_leaves_no_token() {
    let tokens = Strings::from_iter(["a", "b"]);
    let extra = [("tokenizer.ggml.tokens", Value::Array(Array::Texts(tokens)))];
    let tokenizer = built("gpt-2", &[], &[], &extra).expect("sound");
    assert_eq!(tokenizer.encode("aéb", false).expect("short"), [0, 1]);
}

#[test]
fn long_runs_of_white_space_are_cut_rightly_or_refused() {
    let tokenizer = small();
    let text = format!("{}a", " ".repeat(499_999));
    let tokens = tokenizer.encode(&text, false).expect("below the limit");
    // One space belongs to the word, as "Ġ a" is a merge; the others stand alone.
    assert_eq!(tokens.len(), 499_999);
    assert_eq!(tokenizer.decode(&tokens).expect("known"), text);
    let refused = tokenizer.encode(&" ".repeat(600_000), false).expect_err("above the limit");
    assert!(matches!(refused, EncodeError::WhiteSpace { limit: 500_000, .. }));
}

#[test]
fn the_byte_alphabet_is_the_published_one() {
    assert_eq!([b' ', b'\n', b'\t', 0, 0x7f, 0xa0, 0xad].map(byte_as_char), ['Ġ', 'Ċ', 'ĉ', 'Ā', 'ġ', 'ł', 'Ń']);
    let distinct: std::collections::BTreeSet<char> = (0..=255).map(byte_as_char).collect();
    assert_eq!(distinct.len(), 256);
}

proptest! {
    #[test]
    fn text_survives_encoding_and_decoding(text in "(?s).{0,40}", special in any::<bool>()) {
        let tokenizer = small();
        let marked = format!("<|im_start|>{text}<|im_end|>the world");
        let tokens = tokenizer.encode(&marked, special).expect("short");
        prop_assert_eq!(tokens[0] == 1, special);
        prop_assert_eq!(tokenizer.decode(&tokens).expect("its own tokens"), marked);
    }

    #[test]
    fn streamed_pieces_join_to_the_text_decoded_at_once(tokens in prop::collection::vec(0_u32..320, 0..60)) {
        let tokenizer = small();
        let mut stream = tokenizer.stream();
        let mut joined = String::new();
        for &id in &tokens {
            joined.push_str(&stream.push(id).expect("in the vocabulary"));
        }
        joined.push_str(&stream.finish());
        prop_assert_eq!(joined, tokenizer.decode(&tokens).expect("in the vocabulary"));
    }
}

#[test]
fn a_character_cut_between_tokens_appears_when_it_is_whole() {
    let tokenizer = built("gpt-2", &[], &[], &[]).expect("sound");
    let mut stream = tokenizer.stream();
    let pieces: Vec<String> = "é€".bytes().map(|byte| stream.push(byte.into()).expect("known")).collect();
    assert_eq!(pieces, ["", "é", "", "", "€"]);
    assert_eq!(stream.push(0xe2).expect("known"), "");
    assert_eq!(stream.push(b'a'.into()).expect("known"), "\u{fffd}a");
    assert_eq!(stream.push(0xe2).expect("known"), "");
    assert_eq!(stream.finish(), "\u{fffd}");
}

/// A SentencePiece vocabulary: three control tokens, all bytes, and words with scores.
fn sentence_pieces(words: &[(&str, f32)], extra: &[(&str, Value)]) -> Result<Tokenizer, TokenizerError> {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(words.iter().map(|word| word.0.to_owned()));
    let scores = [vec![0.0; 259], words.iter().map(|word| word.1).collect()].concat();
    let kinds = [vec![2, 3, 3], vec![6; 256], vec![1; words.len()]].concat();
    let mut metadata = vec![
        ("tokenizer.ggml.model", Value::Text("llama".into())),
        ("tokenizer.ggml.tokens", Value::Array(Array::Texts(tokens.iter().map(String::as_str).collect()))),
        ("tokenizer.ggml.scores", Value::Array(Array::F32(scores))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds))),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ("tokenizer.ggml.unknown_token_id", Value::U32(0)),
    ];
    for (key, value) in extra {
        metadata.retain(|(other, _)| other != key);
        metadata.push((key, value.clone()));
    }
    let mut bytes = Vec::new();
    write(&mut bytes, &metadata, &[], &mut |_, _| Ok(())).expect("memory takes every byte");
    Tokenizer::from_gguf(&Gguf::from_bytes(bytes).expect("a sound container"))
}

const WORDS: [(&str, f32); 9] = [
    ("\u{2581}", -10.0),
    ("h", -11.0),
    ("i", -12.0),
    ("hi", -3.0),
    ("\u{2581}hi", -2.0),
    ("\u{2581}t", -4.0),
    ("t", -13.0),
    ("here", -5.0),
    ("e", -14.0),
];

#[test]
fn a_scored_vocabulary_begins_with_bos_and_a_space_merges_by_score_and_falls_back_to_bytes() {
    let tokenizer = sentence_pieces(&WORDS, &[]).expect("a sound tokenizer");
    let word = |text: &str| 259 + WORDS.iter().position(|word| word.0 == text).expect("a word") as u32;
    let space = "\u{2581}";
    assert_eq!(tokenizer.encode_prompt("hi hi").expect("short"), [1, word("\u{2581}hi"), word("\u{2581}hi")]);
    // No space is put after an ordinary token, one is after a control token.
    let tokens = tokenizer.encode("</s>hit", true).expect("short");
    assert_eq!(tokens, [2, word("\u{2581}hi"), word("t")]);
    let tokens = tokenizer.encode("\u{e9}", false).expect("short");
    assert_eq!(tokens, [word(space), 3 + 0xc3, 3 + 0xa9]);
    assert_eq!(tokenizer.decode(&tokens).expect("known"), " \u{e9}");
    let plain = sentence_pieces(&WORDS, &[("tokenizer.ggml.add_space_prefix", Value::Bool(false))]);
    let plain = plain.expect("a sound tokenizer");
    assert_eq!(plain.encode("hi", false).expect("short"), [word("hi")]);
    assert!(plain.adds_bos() && plain.is_end(2));
    let few = ("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; 3])));
    assert!(matches!(sentence_pieces(&WORDS, &[few]), Err(TokenizerError::Length { found: 3, .. })));
}

proptest! {
    #[test]
    fn text_survives_a_scored_vocabulary_but_for_the_space_before_it(text in "[a-i\u{e9}\u{4e16} ]{1,40}") {
        let tokenizer = sentence_pieces(&WORDS, &[]).expect("a sound tokenizer");
        let tokens = tokenizer.encode(&text, false).expect("short");
        prop_assert_eq!(tokenizer.decode(&tokens).expect("known"), format!(" {text}"));
    }
}
