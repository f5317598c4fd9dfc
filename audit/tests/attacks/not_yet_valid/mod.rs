//! Somebody uses a manifest before its time.

use crate::support::{NOW, at, expected, identity, manifest, sealed, trusting};
use isotherm_audit::{OpenError, open, seal};

#[test]
fn a_manifest_before_its_time_is_refused() {
    for now in ["2026-11-23T11:58:59Z", "1970-01-01T00:00:00Z"] {
        let refused = open(&sealed(&[1]).envelope, &trusting(&[1], 1), at(now), &expected()).expect_err("too early");
        assert!(matches!(refused, OpenError::NotYetValid { .. }), "{refused}");
    }
}

#[test]
fn a_manifest_that_says_it_was_made_later_than_now_is_refused() {
    let mut manifest = manifest();
    manifest.predicate.created_on = at("2026-11-23T12:00:01Z");
    let sealed = seal(&manifest, &[&identity(1)]).expect("it holds together");
    let refused = open(&sealed.envelope, &trusting(&[1], 1), at(NOW), &expected()).expect_err("from the future");
    assert!(matches!(refused, OpenError::FromTheFuture { what: "createdOn", .. }), "{refused}");
}
