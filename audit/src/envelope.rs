//! The DSSE envelope: bytes, what kind they are, and who signed both.
//!
//! Source: DSSE protocol and envelope, version 1.0.2. Nothing here says whether a signature holds; that is
//! [`crate::open()`]'s.

use crate::keys::KeyId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The one payload type this crate opens: an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Largest envelope read. A manifest takes a few kilobytes.
pub const ENVELOPE_BYTES_MAX: usize = 1 << 20;
/// Most signatures looked at.
pub const SIGNATURES_MAX: usize = 64;

/// Why bytes are no envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Refused before a single byte is parsed.
    #[error("envelope has {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The largest length read.
        limit: usize,
    },
    /// Not the three fields of an envelope, or more than them.
    #[error("not a DSSE envelope: {0}")]
    Json(#[from] serde_json::Error),
    /// A kind of payload that this crate has no meaning for.
    #[error("payload type {found:?} is not {PAYLOAD_TYPE:?}")]
    PayloadType {
        /// What the envelope says.
        found: String,
    },
    /// Not the one standard base64 spelling (RFC 4648 section 4, padded).
    #[error("{what} is not strict base64: {source}")]
    Base64 {
        /// The field.
        what: &'static str,
        /// What the decoder said.
        #[source]
        source: base64::DecodeError,
    },
    /// An Ed25519 signature has 64 bytes.
    #[error("signature {position} has {bytes} bytes instead of 64")]
    SignatureLength {
        /// Which one, from 0.
        position: usize,
        /// Its length.
        bytes: usize,
    },
    /// None, or more than a reader should try.
    #[error("envelope has {found} signatures; it needs 1 to {SIGNATURES_MAX}")]
    SignatureCount {
        /// How many there are.
        found: usize,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    payload: String,
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature {
    keyid: KeyId,
    sig: String,
}

/// One claim that a key signed.
pub(crate) struct SignatureClaim {
    pub key: KeyId,
    pub bytes: [u8; 64],
}

/// Bytes that say they are a signed statement.
pub(crate) struct Envelope {
    pub payload: Vec<u8>,
    pub signatures: Vec<SignatureClaim>,
}

/// What is really signed: type and bytes, each with its length, so that no pair runs into another.
///
/// `DSSEv1 <length of type> <type> <length of payload> <payload>`, lengths in decimal bytes (DSSE, "PAE").
#[must_use]
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl Envelope {
    /// Reads the outer shell: sizes, fields and base64. The payload stays opaque.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::TooLarge { bytes: bytes.len(), limit: ENVELOPE_BYTES_MAX });
        }
        let wire: Wire = serde_json::from_slice(bytes)?;
        if wire.payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::PayloadType { found: wire.payload_type.chars().take(100).collect() });
        }
        if wire.signatures.is_empty() || wire.signatures.len() > SIGNATURES_MAX {
            return Err(EnvelopeError::SignatureCount { found: wire.signatures.len() });
        }
        let decode = |what, text: &str| STANDARD.decode(text).map_err(|source| EnvelopeError::Base64 { what, source });
        let payload = decode("payload", &wire.payload)?;
        let mut signatures = Vec::with_capacity(wire.signatures.len());
        for (position, claim) in wire.signatures.iter().enumerate() {
            let bytes = decode("signature", &claim.sig)?;
            let bytes = bytes
                .try_into()
                .map_err(|bytes: Vec<u8>| EnvelopeError::SignatureLength { position, bytes: bytes.len() })?;
            signatures.push(SignatureClaim { key: claim.keyid, bytes });
        }
        Ok(Self { payload, signatures })
    }

    /// The envelope as compact JSON without a final newline, so that every byte of it matters.
    pub(crate) fn write(&self) -> Result<Vec<u8>, EnvelopeError> {
        let signatures =
            self.signatures.iter().map(|claim| WireSignature { keyid: claim.key, sig: STANDARD.encode(claim.bytes) });
        let wire = Wire {
            payload: STANDARD.encode(&self.payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: signatures.collect(),
        };
        let bytes = serde_json::to_vec(&wire)?;
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::TooLarge { bytes: bytes.len(), limit: ENVELOPE_BYTES_MAX });
        }
        Ok(bytes)
    }

    /// The bytes that each signature covers.
    pub(crate) fn signed_bytes(&self) -> Vec<u8> {
        pre_authentication_encoding(PAYLOAD_TYPE, &self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_the_one_the_specification_prints() {
        // DSSE protocol 1.0.2, "Test Vectors".
        let encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
        // Lengths count bytes, not characters.
        assert_eq!(pre_authentication_encoding("é", "ü".as_bytes()), "DSSEv1 2 é 2 ü".as_bytes());
        assert_eq!(pre_authentication_encoding("", b""), b"DSSEv1 0  0 ");
    }

    #[test]
    fn moving_bytes_between_type_and_payload_changes_what_is_signed() {
        assert_ne!(pre_authentication_encoding("a", b"b c"), pre_authentication_encoding("a b", b"c"));
    }
}
