//! Somebody runs a rightful manifest in another cluster, or on another host of the same.

use crate::support::{NOW, at, expected, sealed, trusting};
use isotherm_audit::{Expectations, OpenError, open};

fn refused(edit: impl FnOnce(&mut Expectations)) -> OpenError {
    let mut expected = expected();
    edit(&mut expected);
    open(&sealed(&[1]).envelope, &trusting(&[1], 1), at(NOW), &expected).expect_err("an attack")
}

#[test]
fn another_cluster_or_host_is_refused() {
    let other = refused(|expected| expected.cluster_id = "work".to_owned());
    assert_eq!(other.to_string(), "it is for the cluster \"home\"; this is \"work\"");
    let other = refused(|expected| expected.host_id = "laptop".to_owned());
    assert_eq!(other.to_string(), "it is for the host \"tower\"; this is \"laptop\"");
}
