//! Any text as a key of OpenSSH, public or private, or as a PEM: an error, or a key that is written and read back.

use isotherm_audit::keys::{Identity, PublicKey};
use isotherm_audit::ssh;

/// Panics where the promise above is broken.
pub fn check(text: &str) {
    if let Ok(key) = ssh::read_public(text) {
        assert_eq!(ssh::read_public(&ssh::write_public(&key)).expect("it was written here"), key);
    }
    if let Ok(seed) = ssh::read_private(text) {
        assert!(Identity::from_seed(&seed).is_ok());
    }
    if let Ok(key) = PublicKey::read(text) {
        assert_eq!(PublicKey::from_pem(&key.to_pem().expect("encodes")).expect("it was written here"), key);
    }
}
