//! The same envelope in the form that Sigstore's tools read: a bundle of version 0.3 with a public-key hint.
//!
//! Source: sigstore protobuf-specs, `sigstore_bundle.proto`, media type below; a bundle carries one signature.

use crate::envelope::{Envelope, EnvelopeError};
use crate::keys::KeyId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// Media type of a bundle.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not an envelope.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The signer asked for did not sign.
    #[error("key {key} did not sign this envelope")]
    NotSigned {
        /// The key.
        key: KeyId,
    },
}

/// The bundle of an envelope with the signature of one of its keys, as one JSON object. Nothing is verified here: whoever
/// reads the bundle does.
///
/// Errors: not an envelope, or no signature by that key.
pub fn sigstore(envelope: &[u8], signer: KeyId) -> Result<Vec<u8>, BundleError> {
    let read = Envelope::read(envelope)?;
    let claim = read.signatures.iter().find(|claim| claim.key == signer);
    let claim = claim.ok_or(BundleError::NotSigned { key: signer })?;
    let bundle = json!({
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": { "publicKey": { "hint": signer.to_string() }, "tlogEntries": [] },
        "dsseEnvelope": {
            "payload": STANDARD.encode(&read.payload),
            "payloadType": crate::envelope::PAYLOAD_TYPE,
            "signatures": [{ "sig": STANDARD.encode(claim.bytes), "keyid": signer.to_string() }],
        },
    });
    Ok(serde_json::to_vec(&bundle).expect("text and lists are JSON"))
}
