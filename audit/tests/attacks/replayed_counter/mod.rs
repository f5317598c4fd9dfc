//! Somebody brings an old manifest back while it is still valid.

use crate::support::{NOW, at, expected, sealed, trusting};
use isotherm_audit::{OpenError, open};
use isotherm_core::digest::Digest;

#[test]
fn a_counter_below_the_last_accepted_one_is_refused() {
    let sealed = sealed(&[1]);
    for (minimum, accepted) in [(0, true), (4, true), (5, true), (6, false), (u64::MAX, false)] {
        let mut expected = expected();
        expected.counter_min = minimum;
        let opened = open(&sealed.envelope, &trusting(&[1], 1), at(NOW), &expected);
        assert_eq!(opened.is_ok(), accepted, "minimum {minimum}");
        assert!(accepted || matches!(opened, Err(OpenError::Rollback { counter: 5, .. })));
    }
}

#[test]
fn a_manifest_that_does_not_follow_the_last_accepted_one_is_refused() {
    let sealed = sealed(&[1]);
    let mut expected = expected();
    expected.previous_manifest = Some(Digest::of(b"the one before"));
    open(&sealed.envelope, &trusting(&[1], 1), at(NOW), &expected).expect("it follows");
    expected.previous_manifest = Some(Digest::of(b"another one"));
    let refused = open(&sealed.envelope, &trusting(&[1], 1), at(NOW), &expected).expect_err("it does not follow");
    assert!(matches!(refused, OpenError::OtherPredecessor { .. }), "{refused}");
}
