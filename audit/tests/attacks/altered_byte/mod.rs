//! Somebody changes, cuts or extends a sealed manifest.

use crate::support::{NOW, at, expected, payload_of, sealed, trusting};
use isotherm_audit::open;

fn accepted(envelope: &[u8], keys: &[u8], threshold: usize) -> bool {
    open(envelope, &trusting(keys, threshold), at(NOW), &expected()).is_ok()
}

#[test]
fn every_bit_of_every_byte_matters() {
    let envelope = sealed(&[1]).envelope;
    assert!(accepted(&envelope, &[1], 1));
    for position in 0..envelope.len() {
        for bit in 0..8 {
            let mut altered = envelope.clone();
            altered[position] ^= 1 << bit;
            assert!(!accepted(&altered, &[1], 1), "bit {bit} of byte {position} altered and accepted");
        }
    }
}

#[test]
fn no_byte_can_become_white_space_a_quote_or_its_neighbour() {
    let envelope = sealed(&[1, 2]).envelope;
    assert!(accepted(&envelope, &[1, 2], 2));
    for position in 0..envelope.len() {
        for replacement in [b' ', b'\n', b'"', b'\\', b'=', b'A', 0, 0xff, envelope[position].wrapping_add(1)] {
            let mut altered = envelope.clone();
            altered[position] = replacement;
            assert!(altered == envelope || !accepted(&altered, &[1, 2], 2), "byte {position} as {replacement}");
        }
    }
}

#[test]
fn no_byte_can_be_left_out_or_written_twice() {
    let envelope = sealed(&[1]).envelope;
    for position in 0..envelope.len() {
        let (before, after) = envelope.split_at(position);
        assert!(!accepted(before, &[1], 1), "cut at {position}");
        assert!(!accepted(&[before, &after[1..]].concat(), &[1], 1), "without byte {position}");
        // A doubled byte between tokens of JSON would be white space, and the envelope has none.
        assert!(!accepted(&[before, &after[..1], after].concat(), &[1], 1), "byte {position} twice");
    }
}

#[test]
fn nothing_can_follow_or_stand_beside_the_three_fields() {
    let envelope = String::from_utf8(sealed(&[1]).envelope).expect("UTF-8");
    for altered in [
        format!("{envelope}{envelope}"),
        format!("{envelope}x"),
        envelope.replacen('{', "{\"extra\":1,", 1),
        envelope.replacen('{', "{\"payloadType\":\"application/vnd.in-toto+json\",", 1),
        envelope.replacen("{\"keyid\"", "{\"extra\":1,\"keyid\"", 1),
        format!("[{envelope}]"),
        format!("\u{feff}{envelope}"),
    ] {
        assert!(!accepted(altered.as_bytes(), &[1], 1), "{}", &altered[..80]);
    }
}

#[test]
fn other_spellings_of_base64_are_refused() {
    let envelope = String::from_utf8(sealed(&[1]).envelope).expect("UTF-8");
    let value: serde_json::Value = serde_json::from_str(&envelope).expect("JSON");
    let (payload, sig) =
        (value["payload"].as_str().expect("text"), value["signatures"][0]["sig"].as_str().expect("text"));
    assert!(sig.ends_with("=="), "64 bytes leave two padding characters");
    for (from, to) in [
        (sig, sig.trim_end_matches('=').to_owned()),
        (sig, format!("{sig}=")),
        (sig, sig.replace('+', "-").replace('/', "_") + " "),
        (payload, format!("{}\\n{}", &payload[..76], &payload[76..])),
        (payload, format!(" {payload}")),
        (payload, format!("{payload}====")),
    ] {
        assert!(!accepted(envelope.replace(from, &to).as_bytes(), &[1], 1), "{to}");
    }
    // Bits that no byte uses: the last letter before the padding carries four of them.
    let last = sig.len() - 3;
    for letter in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
        let mut other = sig.as_bytes().to_vec();
        other[last] = *letter;
        let other = String::from_utf8(other).expect("ASCII");
        assert!(other == sig || !accepted(envelope.replace(sig, &other).as_bytes(), &[1], 1), "{other}");
    }
}

#[test]
fn the_envelopes_layout_alone_may_change() {
    // DSSE signs the payload, not the envelope: another tool may lay it out anew, and the digest stays the same.
    let sealed = sealed(&[1]);
    let value: serde_json::Value = serde_json::from_slice(&sealed.envelope).expect("JSON");
    let pretty = serde_json::to_vec_pretty(&value).expect("JSON");
    assert!(accepted(&pretty, &[1], 1));
    assert_eq!(payload_of(&pretty), payload_of(&sealed.envelope));
}
