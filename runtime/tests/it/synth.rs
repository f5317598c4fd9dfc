//! Synthetic models: what can be asked for, and what comes out.

use isotherm_runtime::model::Geometry;
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::geometry::Rope;
use isotherm_runtime::model::gguf::Gguf;
use isotherm_runtime::model::synth::{self, SynthError, SynthSpec, SynthTokenizer};
use isotherm_runtime::model::tokenizer::Tokenizer;

fn spec(geometry: &Geometry, format: BlockFormat) -> SynthSpec<'_> {
    SynthSpec { geometry, format, embedding: BlockFormat::Q8_0, seed: 1, tokenizer: SynthTokenizer::Small }
}

#[test]
fn every_name_has_a_geometry_whose_heads_and_blocks_fit() {
    for name in synth::NAMES {
        let geometry = synth::named(name).expect("a listed name");
        assert_eq!(geometry.heads % geometry.kv_heads, 0, "{name}");
        assert!(geometry.head_size >= geometry.rope.dimensions, "{name}");
        assert_eq!((geometry.hidden % 32, geometry.feed_forward % 32), (0, 0), "{name}");
    }
    assert_eq!(synth::named("tiny-9000"), None);
}

#[test]
fn a_file_on_disk_is_the_file_in_memory() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tiny.gguf");
    let geometry = synth::named("tiny").expect("a listed name");
    synth::write(&path, &spec(&geometry, BlockFormat::Q5_0)).expect("writable");
    let bytes = synth::bytes(&spec(&geometry, BlockFormat::Q5_0)).expect("sound");
    assert_eq!(Gguf::open(&path).expect("sound").as_bytes(), bytes);
}

#[test]
fn a_tokenizer_is_taken_over_whole_and_only_if_it_fits() {
    let geometry = synth::named("tiny").expect("a listed name");
    let first = Gguf::from_bytes(synth::bytes(&spec(&geometry, BlockFormat::F16)).expect("sound")).expect("sound");
    let taken = SynthSpec { tokenizer: SynthTokenizer::From(&first), ..spec(&geometry, BlockFormat::F16) };
    assert_eq!(synth::bytes(&taken).expect("sound"), first.as_bytes());

    let larger = Geometry { vocabulary: 400, ..geometry.clone() };
    let refused = synth::bytes(&SynthSpec { geometry: &larger, ..taken });
    assert!(matches!(refused, Err(SynthError::Vocabulary { tokens: 320, wanted: 400 })), "{refused:?}");
    let smaller = Geometry { vocabulary: 100, ..geometry };
    let refused = synth::bytes(&spec(&smaller, BlockFormat::F16));
    assert!(matches!(refused, Err(SynthError::Vocabulary { tokens: 299, wanted: 100 })), "{refused:?}");
}

#[test]
fn a_built_in_vocabulary_of_any_size_gives_a_working_tokenizer() {
    let geometry = Geometry { vocabulary: 1000, layers: 1, ..synth::named("tiny").expect("a listed name") };
    let gguf = Gguf::from_bytes(synth::bytes(&spec(&geometry, BlockFormat::F16)).expect("sound")).expect("sound");
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a sound tokenizer");
    let text = "the world and the hell";
    let tokens = tokenizer.encode(text, false).expect("short");
    // Merged into at most half as many tokens as bytes, none of them unused.
    assert!(2 * tokens.len() <= text.len() && tokens.iter().all(|&id| id < 299), "{tokens:?}");
    assert_eq!(tokenizer.decode(&tokens).expect("known"), text);
}

#[test]
fn rows_that_do_not_fill_blocks_are_refused_by_name() {
    let geometry = synth::named("tiny").expect("a listed name");
    let refused = synth::bytes(&spec(&geometry, BlockFormat::Q4K)).expect_err("64 is no multiple of 256");
    let message = refused.to_string();
    assert!(message.starts_with("tensor \"blk.0.attn_q.weight\" has rows of 64 values, Q4_K needs"), "{message}");
}

#[test]
fn rotary_divisors_and_scaling_are_written_and_read_back() {
    let tiny = synth::named("tiny").expect("a listed name");
    let divisors = vec![1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0, 8.0];
    let geometry = Geometry { rope: Rope { divisors, position_divisor: 2.0, ..tiny.rope.clone() }, ..tiny };
    let gguf = Gguf::from_bytes(synth::bytes(&spec(&geometry, BlockFormat::F32)).expect("sound")).expect("sound");
    assert_eq!(Geometry::from_gguf(&gguf), Ok(geometry));
}
