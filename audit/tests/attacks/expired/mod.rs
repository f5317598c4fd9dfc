//! Somebody uses a manifest after its time.

use crate::support::{at, expected, sealed, trusting};
use isotherm_audit::{OpenError, open};

#[test]
fn an_expired_manifest_is_refused_with_both_times() {
    for now in ["2026-11-24T11:59:00Z", "2030-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
        let refused = open(&sealed(&[1]).envelope, &trusting(&[1], 1), at(now), &expected()).expect_err("expired");
        assert!(matches!(refused, OpenError::Expired { .. }));
        assert_eq!(refused.to_string(), format!("expired on 2026-11-24T11:59:00Z; it is {now}"));
    }
}
