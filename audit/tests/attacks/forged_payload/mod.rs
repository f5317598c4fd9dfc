//! A trusted key signs something that must not be believed anyway.

use crate::support::{Forged, NOW, at, edited_payload, expected, identity, payload_of, run_claim, sealed, trusting};
use isotherm_audit::manifest::ExecutionManifest;
use isotherm_audit::run::RunClaim;
use isotherm_audit::statement::StatementError;
use isotherm_audit::{OpenError, inspect, open, seal};
use serde_json::{Value, json};

fn open_payload(payload: &[u8]) -> Result<(), OpenError> {
    open(&Forged::signed(payload, &[1]).bytes(), &trusting(&[1], 1), at(NOW), &expected()).map(|_| ())
}

fn refused(edit: impl FnOnce(&mut Value)) -> StatementError {
    match open_payload(&edited_payload(edit)) {
        Err(OpenError::Statement(refused)) => refused,
        other => panic!("not refused as a statement: {other:?}"),
    }
}

#[test]
fn an_edit_that_changes_nothing_is_accepted() {
    open_payload(&edited_payload(|_| {})).expect("the same payload");
}

#[test]
fn other_spellings_of_the_same_statement_are_refused() {
    let payload = String::from_utf8(payload_of(&sealed(&[1]).envelope)).expect("UTF-8");
    for other in [
        format!("{payload}\n"),
        format!(" {payload}"),
        payload.replacen(':', ": ", 1),
        payload.replacen("\"counter\":5", "\"counter\":4,\"counter\":5", 1),
        payload.replacen("\"counter\":5", "\"counter\":5.0", 1),
        payload.replacen("\"counter\":5", "\"counter\":5e0", 1),
        payload.replacen("home", "\\u0068ome", 1),
        serde_json::to_string_pretty(&serde_json::from_str::<Value>(&payload).expect("JSON")).expect("JSON"),
    ] {
        assert_ne!(other, payload);
        let refused = open_payload(other.as_bytes()).expect_err("not canonical");
        assert!(matches!(refused, OpenError::Statement(StatementError::Canonical(_))), "{refused}");
    }
}

#[test]
fn floats_and_large_integers_are_refused_wherever_they_stand() {
    for number in [json!(1.5), json!(1u64 << 53), json!(-(1i64 << 53)), json!(1e300)] {
        for place in [
            "/predicate/counter",
            "/predicate/predicted/tpot_ns",
            "/predicate/placements/0/memoryBytes",
            "/predicate/certificate/objectiveNano",
        ] {
            let refused = refused(|statement| *statement.pointer_mut(place).expect("a field") = number.clone());
            assert!(matches!(refused, StatementError::Canonical(_)), "{number} at {place}: {refused}");
        }
        let unknown = refused(|statement| statement["predicate"]["laterField"] = number.clone());
        assert!(matches!(unknown, StatementError::Canonical(_)));
    }
}

#[test]
fn a_run_record_is_no_manifest_and_a_manifest_no_run_record() {
    let run = seal(&run_claim(sealed(&[1]).payload_digest), &[&identity(1)]).expect("it holds together");
    let refused = open(&run.envelope, &trusting(&[1], 1), at(NOW), &expected()).expect_err("another kind");
    assert!(matches!(refused, OpenError::Statement(StatementError::Predicate { .. })), "{refused}");
    let refused = inspect::<RunClaim>(&sealed(&[1]).envelope, &trusting(&[1], 1)).expect_err("another kind");
    assert!(matches!(refused, OpenError::Statement(StatementError::Predicate { .. })), "{refused}");
}

#[test]
fn a_later_major_version_is_refused_and_a_later_minor_one_read() {
    for later in ["v2", "v10", "v0"] {
        let refused = refused(|s| s["predicateType"] = format!("urn:isotherm:execution-manifest:{later}").into());
        assert!(matches!(refused, StatementError::Major { expected: 1, .. }), "{refused}");
    }
    for other in ["", "v1x", "v01", "v1.", "v1.x", "v1.0.0", "v+1", "1", "v99999999999"] {
        let refused = refused(|s| s["predicateType"] = format!("urn:isotherm:execution-manifest:{other}").into());
        assert!(matches!(refused, StatementError::Predicate { .. }), "{other}: {refused}");
    }
    let later = edited_payload(|statement| {
        statement["predicateType"] = "urn:isotherm:execution-manifest:v1.7".into();
        statement["predicate"]["laterField"] = json!({"links": [1, 2]});
        statement["predicate"]["placements"][0]["laterField"] = true.into();
        statement["subject"][0]["downloadLocation"] = "later".into();
    });
    open_payload(&later).expect("only additions");
}

#[test]
fn an_addition_that_must_be_understood_is_refused_by_whoever_does_not() {
    for musts in [json!(["approvals"]), json!("approvals"), json!([7]), json!({"a": 1})] {
        let refused = refused(|s| s["predicate"]["mustUnderstand"] = musts);
        assert!(matches!(refused, StatementError::MustUnderstand { .. }), "{refused}");
    }
    open_payload(&edited_payload(|s| s["predicate"]["mustUnderstand"] = json!([]))).expect("nothing is demanded");
}

#[test]
fn a_statement_of_another_shape_is_refused() {
    assert!(matches!(refused(|s| s["_type"] = "https://in-toto.io/Statement/v2".into()), StatementError::Type { .. }));
    assert!(matches!(refused(|s| s["extra"] = 1.into()), StatementError::Shape(_)));
    for place in [
        "/predicate/counter",
        "/predicate/expiresOn",
        "/predicate/nonce",
        "/subject/0/digest/sha256",
        "/predicate/planner",
    ] {
        for value in [Value::Null, json!([]), json!("x"), json!(-1)] {
            let refused = refused(|s| *s.pointer_mut(place).expect("a field") = value.clone());
            assert!(matches!(refused, StatementError::Shape(_)), "{place} as {value}: {refused}");
        }
    }
    let upper = isotherm_core::digest::Digest::of(b"the plan").hex().to_uppercase();
    assert!(matches!(refused(|s| s["subject"][0]["digest"]["sha256"] = upper.into()), StatementError::Shape(_)));
    for payload in [b"".as_slice(), b"null", b"[]", b"{}", b"\xff", b"{\"_type\":1}"] {
        assert!(matches!(open_payload(payload), Err(OpenError::Statement(_))));
    }
}

#[test]
fn what_sealing_would_not_write_opening_does_not_read() {
    let twice = refused(|s| {
        let first = s["subject"][0].clone();
        s["subject"].as_array_mut().expect("a list").push(first);
    });
    assert!(matches!(twice, StatementError::SubjectTwice { .. }));
    assert!(matches!(refused(|s| s["subject"] = json!([])), StatementError::SubjectMissing { name: "plan" }));
    assert!(matches!(refused(|s| s["predicate"]["placements"] = json!([])), StatementError::NoPlacement));
    assert!(matches!(
        refused(|s| s["predicate"]["placements"][0]["layers"]["start"] = 99.into()),
        StatementError::Layers { .. }
    ));
    assert!(matches!(refused(|s| s["predicate"]["predicted"]["speed"] = 1.into()), StatementError::Figure(_)));
    assert!(matches!(
        refused(|s| s["predicate"]["certificate"]["status"] = "infeasible".into()),
        StatementError::Status { .. }
    ));
    assert!(matches!(refused(|s| s["predicate"]["clusterId"] = "ho\nme".into()), StatementError::Text(_)));
    assert!(matches!(
        refused(|s| s["predicate"]["expiresOn"] = "2026-11-23T11:59:00Z".into()),
        StatementError::Order { .. }
    ));
    let many: Vec<Value> =
        (0..1100).map(|n| json!({"name": format!("s{n}"), "digest": {"sha256": "0".repeat(64)}})).collect();
    assert!(matches!(
        refused(|s| s["subject"].as_array_mut().expect("a list").extend(many)),
        StatementError::TooMany { .. }
    ));
}

#[test]
fn a_well_signed_payload_is_still_not_trusted_below_the_threshold() {
    // Order of checks: with one of two signatures missing, the payload is not even parsed.
    let refused = inspect::<ExecutionManifest>(&Forged::signed(b"not JSON", &[1]).bytes(), &trusting(&[1, 2], 2));
    assert!(matches!(refused, Err(OpenError::BelowThreshold { .. })));
}
