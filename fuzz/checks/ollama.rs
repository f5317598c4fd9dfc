//! Any text as a manifest of Ollama: an error in words, or a digest.

use isotherm_core::import::ollama::model_digest;

/// Panics where the promise above is broken.
pub fn check(text: &str) {
    match model_digest(text) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(digest) => assert_eq!(digest.hex().len(), 64),
    }
}
