//! The published JSON Schema of the manifest says what the code says.

use crate::support::{edited_payload, manifest, payload_of, sealed};
use isotherm_audit::seal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/execution-manifest.schema.json");
    serde_json::from_slice(&std::fs::read(path).expect("it is tracked")).expect("JSON")
}

/// The words of JSON Schema that the schema uses, but for patterns, which are compared by their ends; anything else is a
/// fault of this test. Gives the first place that does not fit.
fn misfit(schema: &Value, value: &Value, at: &str) -> Option<String> {
    let fault = |why: &str| Some(format!("{at}: {why}"));
    for (word, wanted) in schema.as_object().expect("a schema is an object") {
        let number = || wanted.as_i64().expect("an integer");
        let fits = match word.as_str() {
            "$schema" | "$id" | "title" | "properties" | "propertyNames" | "items" | "additionalProperties" => true,
            "type" => match wanted.as_str().expect("one type") {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("the schema uses the type {other}"),
            },
            "const" => value == wanted,
            "enum" => wanted.as_array().expect("a list").contains(value),
            "minimum" => value.as_i64().is_some_and(|found| found >= number()),
            "maximum" => value.as_i64().is_some_and(|found| found <= number()),
            "minLength" => value.as_str().is_some_and(|found| found.len() as i64 >= number()),
            "maxLength" => value.as_str().is_some_and(|found| found.len() as i64 <= number()),
            "minItems" => value.as_array().is_some_and(|found| found.len() as i64 >= number()),
            "maxItems" => value.as_array().is_some_and(|found| found.len() as i64 <= number()),
            "maxProperties" => value.as_object().is_some_and(|found| found.len() as i64 <= number()),
            "required" => {
                wanted.as_array().expect("a list").iter().all(|key| value.get(key.as_str().expect("text")).is_some())
            }
            "pattern" => fits_pattern(wanted.as_str().expect("text"), value.as_str().unwrap_or_default()),
            other => panic!("the schema uses the word {other}"),
        };
        if !fits {
            return fault(word);
        }
    }
    let properties = schema.get("properties");
    for (key, item) in value.as_object().into_iter().flatten() {
        let below = format!("{at}/{key}");
        let known = properties.and_then(|known| known.get(key));
        let other = schema.get("additionalProperties");
        let wrong = match (known, other) {
            (Some(known), _) => misfit(known, item, &below),
            (None, Some(Value::Bool(false))) => fault(&format!("{key} is no property")),
            (None, Some(other)) if other.is_object() => misfit(other, item, &below),
            _ => None,
        };
        let wrong = wrong.or_else(|| misfit(schema.get("propertyNames")?, &json!(key), &below));
        if wrong.is_some() {
            return wrong;
        }
    }
    let items = schema.get("items").zip(value.as_array());
    items.and_then(|(items, values)| {
        values.iter().zip(0..).find_map(|(item, n)| misfit(items, item, &format!("{at}/{n}")))
    })
}

/// The patterns of the schema, each read by hand.
fn fits_pattern(pattern: &str, text: &str) -> bool {
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    match pattern {
        "^[0-9a-f]{64}$" => hex(text, 64),
        "^[0-9a-f]{32}$" => hex(text, 32),
        "^sha256:[0-9a-f]{64}$" => text.strip_prefix("sha256:").is_some_and(|digits| hex(digits, 64)),
        "^(0|[1-9][0-9]*)$" => {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
        }
        "^urn:isotherm:execution-manifest:v1(\\.[0-9]+)?$" => text.starts_with("urn:isotherm:execution-manifest:v1"),
        time if time.ends_with("[0-9]{2}Z$") => text.parse::<isotherm_audit::time::Timestamp>().is_ok(),
        names if names.starts_with("^[a-z0-9_]+_(") => isotherm_audit::figures::UNIT_ENDINGS
            .iter()
            .any(|ending| names.contains(&ending[1..]) && text.ends_with(ending)),
        other => panic!("the schema uses the pattern {other}"),
    }
}

fn full() -> Value {
    let mut whole = manifest();
    let placement = &mut whole.predicate.placements[0];
    placement.device_uuid = Some("GPU-1".to_owned());
    placement.host_id = Some("tower".to_owned());
    placement.node_id = Some("0".repeat(64));
    placement.power_cap_milliwatts = Some(300_000);
    let key = crate::support::identity(1);
    let sealed = seal(&whole, &[&key]).expect("it holds together");
    serde_json::from_slice(&payload_of(&sealed.envelope)).expect("JSON")
}

#[test]
fn what_is_sealed_fits_the_schema_and_every_field_it_may_have_is_in_it() {
    let schema = schema();
    let full = full();
    assert_eq!(misfit(&schema, &full, ""), None);
    let least: Value = serde_json::from_slice(&payload_of(&sealed(&[1]).envelope)).expect("JSON");
    assert_eq!(misfit(&schema, &least, ""), None);
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
    let listed = |pointer: &str| keys(schema.pointer(pointer).expect("there"));
    let mut predicate = keys(&full["predicate"]);
    predicate.insert("mustUnderstand".to_owned());
    assert_eq!(predicate, listed("/properties/predicate/properties"));
    let placement = keys(&full["predicate"]["placements"][0]);
    assert_eq!(placement, listed("/properties/predicate/properties/placements/items/properties"));
    for part in ["planner", "auditLog"] {
        assert_eq!(
            keys(&full["predicate"][part]),
            listed(&format!("/properties/predicate/properties/{part}/properties"))
        );
    }
}

#[test]
fn what_the_schema_requires_the_code_requires_and_what_it_refuses_the_code_refuses() {
    let schema = schema();
    let opens = |payload: &[u8]| {
        let forged = crate::support::Forged::signed(payload, &[1]).bytes();
        isotherm_audit::inspect::<isotherm_audit::manifest::ExecutionManifest>(
            &forged,
            &crate::support::trusting(&[1], 1),
        )
        .is_ok()
    };
    let required = schema["properties"]["predicate"]["required"].as_array().expect("a list");
    for field in required.iter().map(|field| field.as_str().expect("text")) {
        let without = edited_payload(|s| drop(s["predicate"].as_object_mut().expect("an object").remove(field)));
        assert!(!opens(&without), "{field} is required");
        let value = serde_json::from_slice(&without).expect("JSON");
        assert!(misfit(&schema, &value, "").is_some(), "{field} is required");
    }
    for (pointer, wrong) in [
        ("/predicate/counter", json!(-1)),
        ("/predicate/counter", json!("5")),
        ("/predicate/nonce", json!("xyz")),
        ("/predicate/expiresOn", json!("tomorrow")),
        ("/predicate/certificate/status", json!("infeasible")),
        ("/predicate/placements", json!([])),
        ("/predicate/clusterId", json!("")),
        ("/predicate/predicted/tpot_ns", json!("1")),
        ("/predicate/policyDigest", json!("abc")),
        ("/subject/0/digest/sha256", json!("abc")),
        ("/_type", json!("https://in-toto.io/Statement/v2")),
    ] {
        let payload = edited_payload(|s| *s.pointer_mut(pointer).expect("a field") = wrong.clone());
        assert!(!opens(&payload), "{pointer} as {wrong}");
        let value = serde_json::from_slice(&payload).expect("JSON");
        assert!(misfit(&schema, &value, "").is_some(), "{pointer} as {wrong}");
    }
}
