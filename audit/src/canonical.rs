//! Canonical JSON (RFC 8785) without floats: one value, one byte string.
//!
//! Two machines must never disagree about what was signed. RFC 8785 fixes key order, spacing and escapes; numbers are
//! where implementations still differ, so only integers that an IEEE double holds exactly are let through.

use serde::Serialize;
use serde_json::Value;

/// The smallest magnitude refused: 2^53, from where on doubles skip integers.
pub const INTEGER_LIMIT: i64 = 1 << 53;

/// Why a value or text is not canonical JSON as this crate signs it.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// Not JSON at all, or a value that has no JSON form.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A number that is no integer of less than 2^53.
    #[error("number {number} at {at:?} is not an integer below 2^53 in magnitude")]
    Number {
        /// Path of keys and positions to the number, in the form of RFC 6901.
        at: String,
        /// The number as written.
        number: String,
    },
    /// JSON, but not spelled the one way RFC 8785 allows.
    #[error("not in canonical form: byte {at} differs from RFC 8785")]
    Spelling {
        /// Offset of the first byte that differs.
        at: usize,
    },
}

/// The canonical bytes of a value.
pub(crate) fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let value = serde_json::to_value(value)?;
    refuse_inexact(&value, &mut String::new())?;
    Ok(serde_json_canonicalizer::to_vec(&value)?)
}

/// A text in its one canonical spelling (RFC 8785, 3.2.2.2): the two-letter escapes, `\u00xx` for other control
/// characters, everything else as it is.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[done..at]);
        done = at + 1;
        let letter = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            0x0c => b'f',
            b'\r' => b'r',
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
                continue;
            }
        };
        out.extend([b'\\', letter]);
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}

/// An integer below 2^53 in magnitude, which its caller has made sure of.
pub(crate) fn write_integer(out: &mut Vec<u8>, number: i64) {
    debug_assert!(-INTEGER_LIMIT < number && number < INTEGER_LIMIT);
    out.extend_from_slice(number.to_string().as_bytes());
}

/// The value of canonical bytes; any other spelling of the same value, a repeated key included, is refused.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, CanonicalError> {
    let value: Value = serde_json::from_slice(bytes)?;
    refuse_inexact(&value, &mut String::new())?;
    let again = serde_json_canonicalizer::to_vec(&value)?;
    if again != bytes {
        let common = again.iter().zip(bytes).take_while(|(ours, theirs)| ours == theirs).count();
        return Err(CanonicalError::Spelling { at: common });
    }
    Ok(value)
}

/// Recursion is bounded: a parsed value is at most 128 deep and a built one as deep as its Rust type.
fn refuse_inexact(value: &Value, at: &mut String) -> Result<(), CanonicalError> {
    let length = at.len();
    match value {
        Value::Number(number) => {
            let exact = number.as_i64().is_some_and(|n| -INTEGER_LIMIT < n && n < INTEGER_LIMIT);
            if !exact {
                return Err(CanonicalError::Number { at: at.clone(), number: number.to_string() });
            }
        }
        Value::Array(items) => {
            for (position, item) in items.iter().enumerate() {
                at.push('/');
                at.push_str(&position.to_string());
                refuse_inexact(item, at)?;
                at.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (key, item) in fields {
                at.push('/');
                at.push_str(&key.replace('~', "~0").replace('/', "~1"));
                refuse_inexact(item, at)?;
                at.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_sorted_by_utf16_and_control_characters_escaped_as_the_rfc_says() {
        // The key order example of RFC 8785 section 3.2.3, and escapes of section 3.2.2.2.
        let value = json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": "\u{f}\n\"\\/"});
        let expected = "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":\"\\u000f\\n\\\"\\\\/\",\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}";
        assert_eq!(String::from_utf8(write(&value).expect("integers only")).expect("UTF-8"), expected);
        assert_eq!(read(expected.as_bytes()).expect("canonical"), value);
    }

    #[test]
    fn floats_and_integers_from_2_to_the_53_are_refused_with_their_place() {
        for value in
            [json!(1.5), json!(1.0), json!(INTEGER_LIMIT), json!(-INTEGER_LIMIT), json!(u64::MAX), json!(i64::MIN)]
        {
            let refused = write(&json!({"a": [0, {"b/~": value}]})).expect_err("inexact");
            assert!(matches!(&refused, CanonicalError::Number { at, .. } if at == "/a/1/b~1~0"), "{refused}");
        }
        for value in [json!(INTEGER_LIMIT - 1), json!(1 - INTEGER_LIMIT), json!(0)] {
            assert!(write(&value).is_ok());
        }
    }

    #[test]
    fn a_text_is_spelled_as_the_general_encoder_spells_it() {
        for text in ["", "plain", "\u{0}\u{1}\u{7}\u{8}\t\n\u{b}\u{c}\r\u{1f} \"\\/\u{7f}\u{80}\u{2028}\u{1f600}"] {
            let mut out = Vec::new();
            write_text(&mut out, text);
            assert_eq!(out, write(&json!(text)).expect("text"));
        }
    }

    #[test]
    fn every_other_spelling_of_a_value_is_refused() {
        let canonical = br#"{"a":[1,"x"],"b":null}"#;
        assert!(read(canonical).is_ok());
        for text in [
            r#"{"b":null,"a":[1,"x"]}"#,
            r#"{"a":[1, "x"],"b":null}"#,
            r#"{"a":[1,"x"],"b":null} "#,
            r#"{"a":[1,"\u0078"],"b":null}"#,
            r#"{"a":0,"a":[1,"x"],"b":null}"#,
            r#"{"a":[1.0,"x"],"b":null}"#,
            r#"{"a":[1e0,"x"],"b":null}"#,
            r#"{"a":[-0,"x"],"b":null}"#,
            r#"{"a":[9007199254740992,"x"],"b":null}"#,
            r#"{"a":[99999999999999999999,"x"],"b":null}"#,
            "\u{feff}{}",
            "",
            "{",
            "{}{}",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
        assert!(read(&[b'[', 0xff, b']']).is_err());
        assert!(read("[".repeat(100_000).as_bytes()).is_err());
    }
}
