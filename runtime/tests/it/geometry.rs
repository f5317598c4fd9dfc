//! The geometry of real and damaged models.

use isotherm_core::digest::Digest;
use isotherm_core::units::Bytes;
use isotherm_runtime::model::Geometry;
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::geometry::{GeometryError, Rope, digest};
use isotherm_runtime::model::gguf::{Gguf, NewTensor, Value, write};
use isotherm_runtime::model::synth::{self, SynthSpec, SynthTokenizer};

use crate::material;

fn tiny() -> Gguf {
    let geometry = synth::named("tiny").expect("a known name");
    let spec = SynthSpec {
        geometry: &geometry,
        format: BlockFormat::Q4_0,
        embedding: BlockFormat::Q8_0,
        seed: 1,
        tokenizer: SynthTokenizer::Small,
    };
    Gguf::from_bytes(synth::bytes(&spec).expect("a sound specification")).expect("a sound file")
}

/// The tiny model with its metadata and tensor list changed; weights become zeros.
fn altered(change: impl FnOnce(&mut Vec<(&str, Value)>, &mut Vec<NewTensor>)) -> Result<Geometry, GeometryError> {
    let gguf = tiny();
    let mut metadata: Vec<(&str, Value)> = gguf.metadata().iter().map(|(key, value)| (key, value.clone())).collect();
    let mut tensors: Vec<NewTensor> = gguf
        .tensors()
        .map(|tensor| NewTensor { name: tensor.name.into(), dims: tensor.dims.into(), format: tensor.format })
        .collect();
    change(&mut metadata, &mut tensors);
    let mut bytes = Vec::new();
    write(&mut bytes, &metadata, &tensors, &mut |index, out| {
        out.write_all(&vec![0; tensors[index].bytes().expect("whole blocks") as usize])
    })
    .expect("memory takes every byte");
    Geometry::from_gguf(&Gguf::from_bytes(bytes).expect("a sound container"))
}

fn with(key: &'static str, value: Value) -> Result<Geometry, GeometryError> {
    altered(|metadata, _| {
        metadata.retain(|(other, _)| *other != key);
        metadata.push((key, value));
    })
}

#[test]
fn the_real_model_has_the_published_shape_and_bytes() {
    let Some(gguf) = material::real_model("the_real_model_has_the_published_shape_and_bytes") else { return };
    let geometry = Geometry::from_gguf(&gguf).expect("a plain llama model");
    let published = synth::named("smollm2-135m").expect("a known name");
    assert_eq!(geometry, Geometry { norm_epsilon: geometry.norm_epsilon, ..published });
    assert!((f64::from(geometry.norm_epsilon) - 1e-5).abs() < 1e-11);

    assert_eq!(geometry.embedding_bytes(&gguf), 30_081_024);
    assert_eq!(geometry.head_bytes(&gguf), 30_081_024 + 2_304);
    for layer in 0..geometry.layers {
        assert_eq!(geometry.layer_bytes(&gguf, layer), 2_211_840 + 4_608);
    }
    assert_eq!(geometry.kv_bytes_per_token_layer(4) * 30, 46_080);
    assert_eq!(geometry.quantisation(&gguf), BlockFormat::Q4_1);

    let mut told = Vec::new();
    let digest = digest(&gguf, &mut |done, all| told.push((done, all)));
    assert_eq!(digest.hex(), "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");
    assert_eq!(told.last(), Some(&(98_362_432, 98_362_432)));

    let model = geometry.describe(&gguf, "smollm2", 4, Some(digest));
    assert_eq!(model.layers(), 30);
    assert_eq!(model.weight_bytes(model.all_layers()), Bytes(98_362_432 - 1_785_664));
    assert_eq!(model.quantisation, "Q4_1");
}

#[test]
fn a_synthetic_file_has_the_geometry_it_was_made_from() {
    for name in synth::NAMES.into_iter().filter(|name| name.starts_with("tiny")) {
        let geometry = synth::named(name).expect("a known name");
        let spec = SynthSpec {
            geometry: &geometry,
            format: BlockFormat::Q4_1,
            embedding: BlockFormat::F16,
            seed: 3,
            tokenizer: SynthTokenizer::Small,
        };
        let bytes = synth::bytes(&spec).expect("a sound specification");
        assert_eq!(bytes, synth::bytes(&spec).expect("a sound specification"), "a seed gives one file");
        let other = SynthSpec { seed: 4, ..spec };
        assert_ne!(bytes, synth::bytes(&other).expect("a sound specification"), "another seed gives another");
        let gguf = Gguf::from_bytes(bytes.clone()).expect("a sound file");
        assert_eq!(Geometry::from_gguf(&gguf), Ok(geometry));
        assert_eq!(digest(&gguf, &mut |_, _| ()), Digest::of(&bytes));
    }
}

#[test]
fn bytes_of_layers_embedding_and_head_account_for_every_weight() {
    let gguf = tiny();
    let model = Geometry::from_gguf(&gguf).expect("sound").describe(&gguf, "tiny", 2, None);
    let all: usize = gguf.tensors().map(|tensor| tensor.bytes.len()).sum();
    // The embedding of a tied model is counted once where one stage holds both ends, with the last norm.
    assert_eq!(model.weight_bytes(model.all_layers()), Bytes(all as u64));
}

#[test]
fn another_architecture_is_refused_by_name() {
    let refused = with("general.architecture", Value::Text("mamba".into())).expect_err("not supported");
    assert_eq!(refused, GeometryError::Architecture { found: "mamba".into() });
}

#[test]
fn numbers_that_contradict_each_other_or_the_tensors_are_refused() {
    for (key, value) in [
        ("llama.attention.head_count_kv", Value::U32(3)),
        ("llama.attention.head_count", Value::U32(0)),
        ("llama.attention.value_length", Value::U32(8)),
        ("llama.rope.dimension_count", Value::U32(18)),
        ("llama.rope.dimension_count", Value::U32(15)),
        ("llama.rope.freq_base", Value::F32(f32::NAN)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(0.0)),
        ("llama.vocab_size", Value::U32(319)),
        ("llama.context_length", Value::U64(1 << 40)),
    ] {
        let refused = with(key, value).expect_err(key);
        assert!(matches!(&refused, GeometryError::Range { key: named, .. } if named == key), "{key}: {refused}");
    }
    assert!(matches!(with("llama.block_count", Value::U32(3)), Err(GeometryError::MissingTensor { .. })));
    assert!(matches!(with("llama.block_count", Value::U32(1)), Err(GeometryError::ForeignTensor { .. })));
    assert!(matches!(with("llama.block_count", Value::U32(2_000_000_000)), Err(GeometryError::MissingTensor { .. })));
    assert!(matches!(with("llama.embedding_length", Value::U32(32)), Err(GeometryError::Shape { .. })));
    assert!(matches!(with("llama.block_count", Value::Text("2".into())), Err(GeometryError::Metadata(_))));
}

#[test]
fn features_that_would_change_the_result_are_refused_and_not_ignored() {
    for (key, value) in [
        ("llama.attn_logit_softcapping", Value::F32(50.0)),
        ("llama.final_logit_softcapping", Value::F32(30.0)),
        ("llama.rope.scaling.type", Value::Text("longrope".into())),
    ] {
        let refused = with(key, value).expect_err(key);
        assert!(matches!(&refused, GeometryError::Feature { key: named, .. } if named == key), "{key}: {refused}");
    }
    let more = with("llama.expert_used_count", Value::U32(9)).expect("without experts it says nothing");
    assert_eq!(more.experts, None);
    let bias = NewTensor { name: "blk.0.attn_q.bias".into(), dims: vec![64], format: BlockFormat::F32 };
    let refused = altered(|_, tensors| tensors.push(bias)).expect_err("a bias changes the result");
    let tensor = "blk.0.attn_q.bias".into();
    assert_eq!(refused, GeometryError::ForeignTensor { tensor, architecture: "llama" });
}

#[test]
fn yarn_keeps_fast_pairs_slows_slow_ones_and_grows_both_by_the_papers_formula() {
    let stretched = synth::named("tiny-yarn").expect("a known name").rope;
    let plain = Rope { yarn: None, ..stretched.clone() };
    let ratios: Vec<f64> =
        plain.frequencies().iter().zip(stretched.frequencies()).map(|(plain, slowed)| plain / slowed).collect();
    // Of 8 pairs over 64 tokens, pair 0 turns 10 times (fewer than 32, more than 1) and pair 7 less than once.
    assert!((1.0..4.0).contains(&ratios[0]) && (ratios[7] - 4.0).abs() < 1e-12, "{ratios:?}");
    assert!(ratios.windows(2).all(|pair| pair[0] <= pair[1]), "{ratios:?}");
    assert!((stretched.magnitude() - (1.0 + 0.1 * 4.0_f64.ln())).abs() < 1e-15);
}

#[test]
fn a_missing_or_repacked_tensor_is_named() {
    let refused = altered(|_, tensors| tensors.retain(|tensor| tensor.name != "blk.1.ffn_up.weight"));
    assert_eq!(refused, Err(GeometryError::MissingTensor { tensor: "blk.1.ffn_up.weight".into() }));
    let refused = altered(|_, tensors| {
        let norm = tensors.iter_mut().find(|tensor| tensor.name == "output_norm.weight").expect("there is one");
        norm.format = BlockFormat::F16;
    });
    let tensor = "output_norm.weight".to_owned();
    assert_eq!(refused, Err(GeometryError::NormFormat { tensor, found: BlockFormat::F16 }));
}

#[test]
fn rotation_frequencies_fall_geometrically_and_obey_divisors() {
    let plain = Geometry::from_gguf(&tiny()).expect("sound").rope;
    let frequencies = plain.frequencies();
    assert_eq!(frequencies.len(), 8);
    assert_eq!(frequencies[0], 1.0);
    for pair in frequencies.windows(2) {
        assert!((pair[1] / pair[0] - 1e5_f64.powf(-1.0 / 8.0)).abs() < 1e-15);
    }
    let stretched = altered(|metadata, _| {
        metadata.push(("llama.rope.scaling.type", Value::Text("linear".into())));
        metadata.push(("llama.rope.scaling.factor", Value::F32(4.0)));
    });
    let stretched = stretched.expect("linear scaling is supported").rope.frequencies();
    assert!(stretched.iter().zip(&frequencies).all(|(slow, fast)| slow * 4.0 == *fast));
}
