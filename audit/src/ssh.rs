//! Keys and signatures of OpenSSH: people who have an Ed25519 key there need no second one.
//!
//! Sources: RFC 4253 section 6.6 and RFC 8709 (public keys), OpenSSH `PROTOCOL.key` (private keys), `PROTOCOL.sshsig`
//! (detached signatures). Private keys behind a passphrase are not read: decrypt a copy, or let the agent sign elsewhere.

use crate::keys::{Identity, KeyError, PublicKey, Seed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha512};
use zeroize::Zeroizing;

const KIND: &[u8] = b"ssh-ed25519";
const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const SIGNATURE_MAGIC: &[u8] = b"SSHSIG";
/// Namespace of detached signatures over manifests, which `ssh-keygen -Y verify -n` has to be told.
pub const NAMESPACE: &str = "isotherm-manifest";
/// Namespace of detached signatures over receipts of self-tests: a signature over one is none over the other.
pub const RECEIPT_NAMESPACE: &str = "isotherm-receipt";
const SIGNATURE_BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const SIGNATURE_END: &str = "-----END SSH SIGNATURE-----";
/// Longest text that is read as a signature, in bytes. Ours have some three hundred.
const SIGNATURE_TEXT_MAX: usize = 4096;

/// Why a text is no key that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SshKeyError {
    /// Not the form of OpenSSH.
    #[error("not an OpenSSH key: {why}")]
    Form {
        /// What is wrong.
        why: &'static str,
    },
    /// Another algorithm.
    #[error("the OpenSSH key is of another kind than ssh-ed25519")]
    Kind,
    /// Behind a passphrase.
    #[error("the OpenSSH key is behind a passphrase; make a copy without one: ssh-keygen -p -N '' -f COPY")]
    Passphrase,
    /// Not a key after all.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// In the form of a signature, but none of this key over this message.
    #[error("the signature is not of these bytes")]
    Signature,
}

/// Reads length-prefixed strings, the one building block of all these forms.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], SshKeyError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(SshKeyError::Form { why: "it ends early" })?;
        self.0 = rest;
        Ok(head)
    }

    fn number(&mut self) -> Result<u32, SshKeyError> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn string(&mut self) -> Result<&'a [u8], SshKeyError> {
        let length = self.number()? as usize;
        self.take(length)
    }
}

fn put(bytes: &mut Vec<u8>, string: &[u8]) {
    bytes.extend_from_slice(&u32::try_from(string.len()).expect("short strings").to_be_bytes());
    bytes.extend_from_slice(string);
}

/// What a key signs in place of a message: the digest, bound to what it is for.
fn to_be_signed(namespace: &str, message: &[u8]) -> Vec<u8> {
    let mut signed = SIGNATURE_MAGIC.to_vec();
    for part in [namespace.as_bytes(), b"", b"sha512", &Sha512::digest(message)] {
        put(&mut signed, part);
    }
    signed
}

fn public_blob(key: &PublicKey) -> Vec<u8> {
    let mut blob = Vec::new();
    put(&mut blob, KIND);
    put(&mut blob, &key.bytes());
    blob
}

fn read_public_blob(blob: &[u8]) -> Result<PublicKey, SshKeyError> {
    let mut reader = Reader(blob);
    if reader.string()? != KIND {
        return Err(SshKeyError::Kind);
    }
    let key = reader.string()?.try_into().map_err(|_| SshKeyError::Form { why: "the key is not 32 bytes long" })?;
    if !reader.0.is_empty() {
        return Err(SshKeyError::Form { why: "something follows the key" });
    }
    Ok(PublicKey::from_bytes(key)?)
}

/// Reads a line of an `id_ed25519.pub`: kind, base64, and a comment that means nothing here.
///
/// Errors: another form or kind, or a key of small order.
pub fn read_public(text: &str) -> Result<PublicKey, SshKeyError> {
    let mut words = text.split_ascii_whitespace();
    let kind = words.next().ok_or(SshKeyError::Form { why: "it is empty" })?;
    if kind.as_bytes() != KIND {
        return Err(SshKeyError::Kind);
    }
    let blob = words.next().ok_or(SshKeyError::Form { why: "nothing follows the kind" })?;
    let blob = STANDARD.decode(blob).map_err(|_| SshKeyError::Form { why: "it is not base64" })?;
    read_public_blob(&blob)
}

/// Whether a text looks like a private key of OpenSSH.
#[must_use]
pub fn is_private(text: &str) -> bool {
    text.trim_start().starts_with(BEGIN)
}

/// Reads a private key without a passphrase.
///
/// Errors: another form or kind, a passphrase, or halves that do not fit each other.
pub fn read_private(text: &str) -> Result<Seed, SshKeyError> {
    let wrong = |why| SshKeyError::Form { why };
    let body = text.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).ok_or(wrong("its frame"))?;
    let base64: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    let bytes = Zeroizing::new(STANDARD.decode(base64.as_bytes()).map_err(|_| wrong("it is not base64"))?);
    let mut reader = Reader(bytes.strip_prefix(MAGIC).ok_or(wrong("it does not begin with openssh-key-v1"))?);
    let (cipher, derivation, _) = (reader.string()?, reader.string()?, reader.string()?);
    if cipher != b"none" || derivation != b"none" {
        return Err(SshKeyError::Passphrase);
    }
    if reader.number()? != 1 {
        return Err(wrong("it holds several keys"));
    }
    let public = read_public_blob(reader.string()?)?;
    let mut private = Reader(reader.string()?);
    if private.number()? != private.number()? {
        return Err(wrong("its check numbers differ"));
    }
    if private.string()? != KIND {
        return Err(SshKeyError::Kind);
    }
    let again = private.string()?;
    let pair: &[u8; 64] = private.string()?.try_into().map_err(|_| wrong("the pair is not 64 bytes long"))?;
    let (secret, half) = pair.split_at(32);
    let seed = Seed::from_bytes(secret.try_into().expect("32 bytes"));
    let fits = again == public.bytes() && half == public.bytes() && Identity::from_seed(&seed)?.id() == public.id();
    if fits { Ok(seed) } else { Err(wrong("its halves do not fit each other")) }
}

/// A public key as a line for `allowed_signers` and `authorized_keys`.
#[must_use]
pub fn write_public(key: &PublicKey) -> String {
    format!("ssh-ed25519 {}", STANDARD.encode(public_blob(key)))
}

/// A detached signature that `ssh-keygen -Y verify` accepts, over any message.
#[must_use]
pub fn sign(identity: &Identity, namespace: &str, message: &[u8]) -> String {
    let mut blob = SIGNATURE_MAGIC.to_vec();
    blob.extend_from_slice(&1_u32.to_be_bytes());
    for part in [&public_blob(identity.public()), namespace.as_bytes(), b"", b"sha512"] {
        put(&mut blob, part);
    }
    let mut signature = Vec::new();
    put(&mut signature, KIND);
    put(&mut signature, &identity.sign(&to_be_signed(namespace, message)));
    put(&mut blob, &signature);
    let encoded = STANDARD.encode(blob);
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(70).map(|line| str::from_utf8(line).expect("base64 is ASCII")).collect();
    format!("{SIGNATURE_BEGIN}\n{}\n{SIGNATURE_END}\n", lines.join("\n"))
}

/// The key that made a detached signature over exactly these bytes in this namespace. Whether it is believed is for the
/// caller to ask: anybody can make a key.
///
/// Errors: another form, another algorithm, another namespace, or a signature over other bytes.
pub fn verify(namespace: &str, message: &[u8], signature: &str) -> Result<PublicKey, SshKeyError> {
    let wrong = |why| SshKeyError::Form { why };
    if signature.len() > SIGNATURE_TEXT_MAX {
        return Err(wrong("the signature is longer than one is"));
    }
    let body = signature.trim().strip_prefix(SIGNATURE_BEGIN).and_then(|rest| rest.strip_suffix(SIGNATURE_END));
    let base64: String = body.ok_or(wrong("the frame of a signature"))?.split_ascii_whitespace().collect();
    let bytes = STANDARD.decode(base64).map_err(|_| wrong("the signature is not base64"))?;
    let mut reader = Reader(bytes.strip_prefix(SIGNATURE_MAGIC).ok_or(wrong("it does not begin with SSHSIG"))?);
    if reader.number()? != 1 {
        return Err(wrong("the signature is of another version"));
    }
    let key = read_public_blob(reader.string()?)?;
    if reader.string()? != namespace.as_bytes() {
        return Err(wrong("the signature was made for something else"));
    }
    if !reader.string()?.is_empty() || reader.string()? != b"sha512" {
        return Err(wrong("the signature's digest is not sha512"));
    }
    let mut inner = Reader(reader.string()?);
    if inner.string()? != KIND {
        return Err(SshKeyError::Kind);
    }
    let signed: &[u8; 64] = inner.string()?.try_into().map_err(|_| wrong("the signature is not 64 bytes long"))?;
    if !inner.0.is_empty() || !reader.0.is_empty() {
        return Err(wrong("something follows the signature"));
    }
    if key.verifies(&to_be_signed(namespace, message), signed) { Ok(key) } else { Err(SshKeyError::Signature) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_survives_its_line_and_others_are_refused() {
        let key = Identity::from_seed(&Seed::from_bytes([3; 32])).expect("a key");
        let line = write_public(key.public());
        assert_eq!(read_public(&format!("{line} somebody@somewhere\n")).expect("a key").id(), key.id());
        for other in ["", "ssh-ed25519", "ssh-rsa AAAA", "ssh-ed25519 !!", &line[..line.len() - 8]] {
            assert!(read_public(other).is_err(), "{other}");
        }
        for text in ["", BEGIN, &format!("{BEGIN}\nAAAA\n{END}")] {
            assert!(read_private(text).is_err(), "{text}");
        }
    }
    #[test]
    fn a_signature_holds_for_its_bytes_its_purpose_and_its_form_alone() {
        let identity = Identity::from_seed(&Seed::from_bytes([3; 32])).expect("a key");
        let signature = sign(&identity, RECEIPT_NAMESPACE, b"what was found");
        let key = verify(RECEIPT_NAMESPACE, b"what was found", &signature).expect("it is what was signed");
        assert_eq!(key.id(), identity.id());
        assert!(matches!(verify(RECEIPT_NAMESPACE, b"what was lost", &signature), Err(SshKeyError::Signature)));
        assert!(
            verify(NAMESPACE, b"what was found", &signature).is_err(),
            "a manifest's signature is none of a receipt"
        );
        // Whatever character is changed, nothing verifies as another key's or as other bytes.
        for at in 0..signature.len() {
            let mut bytes = signature.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(bytes).expect("ASCII");
            assert!(verify(RECEIPT_NAMESPACE, b"what was found", &altered).is_err(), "character {at}");
        }
        for length in 0..signature.len() - 1 {
            assert!(verify(RECEIPT_NAMESPACE, b"what was found", &signature[..length]).is_err(), "{length}");
        }
    }
}
