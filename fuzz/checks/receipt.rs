//! Any bytes as a receipt of a self-test and as a detached signature: an error, or a receipt that is written and read back
//! and whose verdict comes to an end. No text that comes along is a signature over something else.

use isotherm_audit::ssh;
use isotherm_core::device::Support;
use isotherm_core::receipt::{Here, Receipt};

/// Panics where the promise above is broken.
pub fn check(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(ssh::verify(ssh::RECEIPT_NAMESPACE, b"something else", text).is_err());
    }
    let Ok(receipt) = Receipt::parse(data) else { return };
    let written = serde_json::to_vec(&receipt).expect("a receipt is JSON");
    assert_eq!(Receipt::parse(&written).expect("it was written here"), receipt);
    assert_eq!(receipt.support() == Support::Supported, receipt.shortcomings().is_empty());
    let (card, route) = (receipt.card.clone(), receipt.route.clone());
    let here = Here { card, route, accelerator: true, built_in: true };
    assert!(receipt.is_of(&here, true) && receipt.contradicted_by(&here).is_empty());
}
