//! Sealing: a checked statement becomes signed bytes.

use crate::envelope::{Envelope, EnvelopeError, SIGNATURES_MAX, SignatureClaim};
use crate::keys::{Identity, KeyId, TrustedKeys};
use crate::open::{OpenError, inspect};
use crate::statement::{Predicate, Statement, StatementError};
use isotherm_core::digest::Digest;
use std::collections::BTreeSet;

/// Why nothing was sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The statement contradicts itself or cannot be written exactly.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The envelope would be larger than anybody reads.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Nobody signs.
    #[error("no identity was given to sign with")]
    NoSigner,
    /// More signers than a reader looks at.
    #[error("{found} signers; the limit is {SIGNATURES_MAX}")]
    TooManySigners {
        /// How many were given.
        found: usize,
    },
    /// One key twice is still one key.
    #[error("key {key} signs already; a second signature by it would not count")]
    SignsTwice {
        /// The key.
        key: KeyId,
    },
    /// What is to be approved does not verify.
    #[error("the envelope to approve does not verify: {0}")]
    NotVerified(#[source] Box<OpenError>),
}

/// Signed bytes, and the name of what was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The envelope, to be stored as it is.
    pub envelope: Vec<u8>,
    /// Digest of the payload: the same however many keys sign, so run records and later manifests refer to it.
    pub payload_digest: Digest,
}

/// Signs a statement with each identity.
///
/// Errors: a statement that [`crate::open()`] would not accept, no signer, or the same one twice.
pub fn seal<P: Predicate>(statement: &Statement<P>, signers: &[&Identity]) -> Result<Sealed, SealError> {
    if signers.is_empty() {
        return Err(SealError::NoSigner);
    }
    let mut envelope = Envelope { payload: statement.write()?, signatures: Vec::new() };
    for signer in signers {
        add_signature(&mut envelope, signer)?;
    }
    Ok(Sealed { envelope: envelope.write()?, payload_digest: Digest::of(&envelope.payload) })
}

/// Adds a signature to an envelope that verifies already: the second of k-of-n, made on another machine.
///
/// The approver sees the statement through [`inspect`] before; this verifies once more, so that nobody signs bytes
/// that no trusted key vouches for. Errors: the envelope does not verify, or this identity signed before.
pub fn approve<P: Predicate>(envelope: &[u8], trusted: &TrustedKeys, approver: &Identity) -> Result<Sealed, SealError> {
    inspect::<P>(envelope, trusted).map_err(|error| SealError::NotVerified(Box::new(error)))?;
    let mut envelope = Envelope::read(envelope)?;
    add_signature(&mut envelope, approver)?;
    Ok(Sealed { envelope: envelope.write()?, payload_digest: Digest::of(&envelope.payload) })
}

fn add_signature(envelope: &mut Envelope, signer: &Identity) -> Result<(), SealError> {
    let present: BTreeSet<KeyId> = envelope.signatures.iter().map(|claim| claim.key).collect();
    if present.contains(&signer.id()) {
        return Err(SealError::SignsTwice { key: signer.id() });
    }
    if envelope.signatures.len() >= SIGNATURES_MAX {
        return Err(SealError::TooManySigners { found: envelope.signatures.len() + 1 });
    }
    let bytes = signer.sign(&envelope.signed_bytes());
    envelope.signatures.push(SignatureClaim { key: signer.id(), bytes });
    Ok(())
}
