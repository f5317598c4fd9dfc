//! The GGUF reader against an independent reader's answer for a real file, and against damaged ones.

use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::gguf::{
    Array, Gguf, GgufError, MetadataError, NewTensor, ParseError, Strings, Value, write,
};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::material;

/// The digest of a list as the reference data defines it: items as text, joined by line feeds.
fn digest_of(items: impl Iterator<Item = String>) -> String {
    let joined = items.collect::<Vec<_>>().join("\n");
    Sha256::digest(joined).iter().map(|byte| format!("{byte:02x}")).collect()
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
        Json::Array(all) => all.iter().map(|item| item.as_str().map(str::to_owned)).eq(items.into_iter().map(Some)),
        _ => {
            golden["count"].as_u64() == Some(items.len() as u64)
                && golden["sha256_of_items_joined_by_newline"].as_str() == Some(&digest_of(items.into_iter()))
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

    let metadata = golden["metadata"].as_object().expect("the reference has metadata");
    assert_eq!(gguf.metadata().iter().len(), metadata.len());
    for (key, value) in metadata {
        let ours = gguf.metadata().get(key).unwrap_or_else(|| panic!("{key} is missing"));
        assert!(agrees(ours, value), "{key}: {} against {value}", ours.kind());
    }

    let tensors = golden["tensors"].as_array().expect("the reference has tensors");
    assert_eq!(gguf.tensors().len(), tensors.len());
    for (ours, golden) in gguf.tensors().zip(tensors) {
        assert_eq!(Some(ours.name), golden["name"].as_str());
        assert_eq!(Some(ours.format.name()), golden["type"].as_str(), "{}", ours.name);
        assert_eq!(serde_json::json!(ours.dims), golden["dims_innermost_first"], "{}", ours.name);
        assert_eq!(Some(ours.offset), golden["absolute_offset"].as_u64(), "{}", ours.name);
        assert_eq!(Some(ours.bytes.len() as u64), golden["bytes"].as_u64(), "{}", ours.name);
        assert_eq!(gguf.tensor(ours.name), Some(ours), "{}", ours.name);
    }
}

/// A file of these metadata entries and tensor descriptors, each already encoded, with `data` zero bytes of weights.
fn file(entries: &[Vec<u8>], tensors: &[Vec<u8>], data: usize) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((entries.len() as u64).to_le_bytes());
    bytes.extend(entries.concat());
    bytes.extend(tensors.concat());
    bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key)[..], &kind.to_le_bytes(), value].concat()
}

fn tensor(name: &str, dims: &[u64], id: u32, offset: u64) -> Vec<u8> {
    let dims_bytes: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    let count = (dims.len() as u32).to_le_bytes();
    [&text(name)[..], &count, &dims_bytes, &id.to_le_bytes(), &offset.to_le_bytes()].concat()
}

fn refusal(bytes: Vec<u8>) -> ParseError {
    Gguf::from_bytes(bytes).expect_err("a damaged file is refused")
}

#[test]
fn every_value_kind_survives_writing_and_reading() {
    let texts = Strings::from_iter(["", "a", "Grüße\n"]);
    let entries = [
        ("u8", Value::U8(200)),
        ("i8", Value::I8(-100)),
        ("u16", Value::U16(60_000)),
        ("i16", Value::I16(-30_000)),
        ("u32", Value::U32(u32::MAX)),
        ("i32", Value::I32(i32::MIN)),
        ("f32", Value::F32(-0.1)),
        ("bool", Value::Bool(true)),
        ("text", Value::Text("text".into())),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f64", Value::F64(1e300)),
        ("texts", Value::Array(Array::Texts(texts))),
        ("u8s", Value::Array(Array::U8(vec![0, 255]))),
        ("i8s", Value::Array(Array::I8(vec![-128, 127]))),
        ("u16s", Value::Array(Array::U16(vec![0, u16::MAX]))),
        ("i16s", Value::Array(Array::I16(vec![i16::MIN]))),
        ("u32s", Value::Array(Array::U32(vec![]))),
        ("i32s", Value::Array(Array::I32(vec![-1, 1]))),
        ("f32s", Value::Array(Array::F32(vec![0.5]))),
        ("bools", Value::Array(Array::Bool(vec![true, false]))),
        ("u64s", Value::Array(Array::U64(vec![u64::MAX]))),
        ("i64s", Value::Array(Array::I64(vec![i64::MIN]))),
        ("f64s", Value::Array(Array::F64(vec![-1.5]))),
    ];
    let tensors = [
        NewTensor { name: "b".into(), dims: vec![3, 2], format: BlockFormat::F32 },
        NewTensor { name: "a".into(), dims: vec![32], format: BlockFormat::Q8_0 },
    ];
    let mut bytes = Vec::new();
    write(&mut bytes, &entries, &tensors, &mut |index, out| {
        out.write_all(&vec![index as u8 + 1; tensors[index].bytes().expect("whole blocks") as usize])
    })
    .expect("memory takes every byte");
    let gguf = Gguf::from_bytes(bytes).expect("a sound file");
    assert!(gguf.metadata().iter().eq(entries.iter().map(|(key, value)| (*key, value))));
    assert_eq!(gguf.tensors().map(|tensor| tensor.name).collect::<Vec<_>>(), ["b", "a"]);
    let b = gguf.tensor("b").expect("there");
    assert_eq!((b.row_values(), b.rows(), b.values(), b.bytes), (3, 2, 6, &[1; 24][..]));
    assert_eq!((b.row(1), b.row(2), b.row(u64::MAX)), (Some(&[1; 12][..]), None, None));
    assert_eq!(gguf.tensor("a").expect("there").bytes, [2; 34]);
    assert_eq!(gguf.tensor("c"), None);
}

#[test]
fn metadata_of_the_wrong_kind_is_an_error_and_absent_metadata_is_not() {
    let bytes = file(&[entry("number", 5, &(-1_i32).to_le_bytes()), entry("flag", 7, &[1])], &[], 0);
    let gguf = Gguf::from_bytes(bytes).expect("a sound file");
    assert_eq!(gguf.metadata().count("absent"), Ok(None));
    assert_eq!(gguf.metadata().flag("flag"), Ok(Some(true)));
    let wrong = |wanted, found| MetadataError::Kind { key: "number".into(), wanted, found };
    assert_eq!(gguf.metadata().count("number"), Err(wrong("a whole number from 0 up", "a negative number")));
    assert_eq!(gguf.metadata().text("number"), Err(wrong("a text", "a negative number")));
}

#[test]
fn a_file_that_is_no_gguf_or_another_version_is_refused() {
    assert_eq!(refusal(b"PK\x03\x04".to_vec()), ParseError::Magic { found: "\"PK\\x03\\x04\"".into() });
    assert_eq!(refusal(Vec::new()), ParseError::Magic { found: "\"\"".into() });
    let with_version = |version: [u8; 4]| refusal([&b"GGUF"[..], &version, &[0; 16]].concat());
    assert_eq!(with_version([1, 0, 0, 0]), ParseError::Version { version: 1 });
    assert_eq!(with_version([0, 0, 0, 3]), ParseError::BigEndian);
}

#[test]
fn a_file_cut_anywhere_is_refused_and_the_message_says_to_download_it_again() {
    let whole = file(
        &[
            entry("general.name", 8, &text("cut")),
            entry("list", 9, &[&4_u32.to_le_bytes()[..], &[2, 0, 0, 0, 0, 0, 0, 0], &[7; 8]].concat()),
        ],
        &[tensor("a", &[4, 2], 0, 0), tensor("b", &[32], 8, 32)],
        66,
    );
    Gguf::from_bytes(whole.clone()).expect("the whole file is sound");
    for length in 4..whole.len() {
        let refused = refusal(whole[..length].to_vec());
        assert!(matches!(refused, ParseError::Truncated { .. } | ParseError::Count { .. }), "{length}: {refused}");
        assert!(refused.to_string().contains("download it again"), "{refused}");
    }
    let message = refusal(whole[..whole.len() - 1].to_vec()).to_string();
    let (end, size) = (whole.len(), whole.len() - 1);
    let wanted = format!("tensor \"b\" needs bytes {}..{end}, the file has {size}; download it again", end - 34);
    assert_eq!(message, format!("file is truncated: {wanted}"));
}

#[test]
fn counts_that_the_file_cannot_hold_are_refused_before_anything_is_allocated() {
    let huge = [&b"GGUF\x03\0\0\0"[..], &u64::MAX.to_le_bytes(), &0_u64.to_le_bytes(), &[0; 100]].concat();
    assert!(matches!(refusal(huge), ParseError::Count { count: u64::MAX, limit: 3, remaining: 100, .. }));
    let huge = [&b"GGUF\x03\0\0\0"[..], &0_u64.to_le_bytes(), &u64::MAX.to_le_bytes(), &[0; 100]].concat();
    assert!(matches!(refusal(huge), ParseError::Count { count: u64::MAX, limit: 7, remaining: 100, .. }));
    for kind in [0_u32, 7, 8, 12] {
        let list = [&kind.to_le_bytes()[..], &(u64::MAX / 2).to_le_bytes(), &[0; 64]].concat();
        assert!(matches!(refusal(file(&[entry("list", 9, &list)], &[], 0)), ParseError::Count { .. }), "{kind}");
    }
    let long = entry("name", 8, &(1_u64 << 63).to_le_bytes());
    assert!(matches!(refusal(file(&[long], &[], 0)), ParseError::Truncated { .. }));
}

#[test]
fn damaged_metadata_is_refused_by_name() {
    let key = || "\"key\"".to_owned();
    let one = |kind, value: &[u8]| refusal(file(&[entry("key", kind, value)], &[], 0));
    assert_eq!(one(13, &[]), ParseError::ValueKind { key: key(), kind: 13 });
    assert_eq!(one(7, &[2]), ParseError::Flag { key: key(), value: 2 });
    assert_eq!(one(9, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), ParseError::NestedArray { key: key() });
    assert!(matches!(one(8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]), ParseError::Text { at: 47, .. }));
    let twice = [entry("key", 7, &[1]), entry("key", 7, &[1])];
    assert_eq!(refusal(file(&twice, &[], 0)), ParseError::DuplicateKey { key: key() });
    let alignment = |value: u32| refusal(file(&[entry("general.alignment", 4, &value.to_le_bytes())], &[], 0));
    for value in [0, 1, 4, 24, u32::MAX] {
        assert_eq!(alignment(value), ParseError::Alignment { found: value.to_string() });
    }
    let long = refusal(file(&[entry(&"k".repeat(65_536), 7, &[1])], &[], 0));
    assert!(matches!(long, ParseError::NameLength { length: 65_536, .. }));
}

#[test]
fn damaged_tensors_are_refused_by_name() {
    let name = || "\"t\"".to_owned();
    let one = |tensor: Vec<u8>| refusal(file(&[], &[tensor], 256));
    assert_eq!(one(tensor("t", &[], 0, 0)), ParseError::Dimensions { tensor: name(), count: 0 });
    assert_eq!(one(tensor("t", &[1; 5], 0, 0)), ParseError::Dimensions { tensor: name(), count: 5 });
    assert_eq!(one(tensor("t", &[4, 0], 0, 0)), ParseError::Size { tensor: name(), dims: vec![4, 0] });
    let product = vec![1 << 32, 1 << 32];
    assert_eq!(one(tensor("t", &product, 0, 0)), ParseError::Size { tensor: name(), dims: product });
    assert_eq!(one(tensor("t", &[4], 4, 0)), ParseError::UnknownFormat { tensor: name(), id: 4 });
    let short = ParseError::RowLength { tensor: name(), values: 33, format: "Q4_0", block: 32 };
    assert_eq!(one(tensor("t", &[33], 2, 0)), short);
    assert_eq!(one(tensor("t", &[4], 0, 16)), ParseError::Unaligned { tensor: name(), offset: 16, alignment: 32 });
    assert!(matches!(one(tensor("t", &[64], 0, 32)), ParseError::Truncated { .. }));
    assert!(matches!(one(tensor("t", &[4], 0, u64::MAX - 31)), ParseError::Truncated { .. }));

    let two = |second: Vec<u8>| refusal(file(&[], &[tensor("t", &[16], 0, 32), second], 256));
    assert_eq!(two(tensor("t", &[4], 0, 128)), ParseError::DuplicateTensor { tensor: name() });
    let overlap = two(tensor("u", &[4], 0, 64));
    assert!(matches!(&overlap, ParseError::Overlap { first, second, .. } if first == "\"t\"" && second == "\"u\""));
    let overlap = two(tensor("u", &[16], 0, 0));
    assert!(matches!(&overlap, ParseError::Overlap { first, second, .. } if first == "\"u\"" && second == "\"t\""));
}

#[test]
fn a_path_that_cannot_be_opened_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert!(matches!(Gguf::open(folder.path()), Err(GgufError::NotAFile { .. })));
    let absent = folder.path().join("absent.gguf");
    assert!(matches!(Gguf::open(&absent), Err(GgufError::Read { path, .. }) if path == absent));
    let empty = folder.path().join("empty.gguf");
    std::fs::write(&empty, []).expect("writable");
    assert!(matches!(Gguf::open(&empty), Err(GgufError::Parse { source: ParseError::Magic { .. }, .. })));
}
