//! The GGUF reader against an independent reader's answer for a real file.

use isotherm_runtime::model::gguf::{Array, Value};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::material;

/// The digest of a list as the reference data defines it: items as text, joined by line feeds.
fn digest_of(items: impl Iterator<Item = String>) -> String {
    let joined = items.collect::<Vec<_>>().join("\n");
    Sha256::digest(joined)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn agrees(ours: &Value, golden: &Json) -> bool {
    let items: Vec<String> = match ours {
        Value::Text(text) => return golden.as_str() == Some(text),
        Value::Bool(flag) => return golden.as_bool() == Some(*flag),
        Value::U32(number) => return golden.as_u64() == Some(u64::from(*number)),
        Value::F32(number) => return golden.as_f64() == Some(f64::from(*number)),
        Value::Array(Array::Texts(texts)) => texts.iter().map(str::to_owned).collect(),
        Value::Array(Array::I32(numbers)) => numbers.iter().map(i32::to_string).collect(),
        _ => return false,
    };
    match golden {
        Json::Array(all) => all
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .eq(items.into_iter().map(Some)),
        _ => {
            golden["count"].as_u64() == Some(items.len() as u64)
                && golden["sha256_of_items_joined_by_newline"].as_str()
                    == Some(&digest_of(items.into_iter()))
        }
    }
}

#[test]
fn the_header_of_the_real_model_is_what_another_reader_finds() {
    let test = "the_header_of_the_real_model_is_what_another_reader_finds";
    let Some(gguf) = material::real_model(test) else {
        return;
    };
    let Some(golden) = material::model_reference(test, "gguf-header.json") else {
        return;
    };

    assert_eq!(Some(u64::from(gguf.version())), golden["version"].as_u64());
    assert_eq!(Some(gguf.alignment()), golden["alignment"].as_u64());
    assert_eq!(Some(gguf.data_offset()), golden["data_offset"].as_u64());
    assert_eq!(gguf.file_bytes(), 98_362_432);

    let metadata = golden["metadata"]
        .as_object()
        .expect("the reference has metadata");
    assert_eq!(gguf.metadata().iter().len(), metadata.len());
    for (key, value) in metadata {
        let ours = gguf
            .metadata()
            .get(key)
            .unwrap_or_else(|| panic!("{key} is missing"));
        assert!(
            agrees(ours, value),
            "{key}: {} against {value}",
            ours.kind()
        );
    }

    let tensors = golden["tensors"]
        .as_array()
        .expect("the reference has tensors");
    assert_eq!(gguf.tensors().len(), tensors.len());
    for (ours, golden) in gguf.tensors().zip(tensors) {
        assert_eq!(Some(ours.name), golden["name"].as_str());
        assert_eq!(
            Some(ours.format.name()),
            golden["type"].as_str(),
            "{}",
            ours.name
        );
        assert_eq!(
            serde_json::json!(ours.dims),
            golden["dims_innermost_first"],
            "{}",
            ours.name
        );
        assert_eq!(
            Some(ours.offset),
            golden["absolute_offset"].as_u64(),
            "{}",
            ours.name
        );
        assert_eq!(
            Some(ours.bytes.len() as u64),
            golden["bytes"].as_u64(),
            "{}",
            ours.name
        );
        assert_eq!(gguf.tensor(ours.name), Some(ours), "{}", ours.name);
    }
}
