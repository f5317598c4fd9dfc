//! Keys: the identity that signs, the public keys that are trusted, and how both rest on disk.
//!
//! A key directory holds `identity.pem` (PKCS#8, readable by its owner only) and `trusted/*.pem` (public keys whose
//! signatures count). One Ed25519 key signs three kinds of bytes; no byte string of one kind is a byte string of
//! another: envelopes and log entries begin with `DSSEv1 ` and differ in their payload type, checkpoints begin with an
//! origin, which has no space.

use crate::{hex, keyring, storage};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{self, DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use isotherm_core::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use zeroize::{Zeroize, Zeroizing};

/// File of the private key inside a key directory.
pub const IDENTITY_FILE: &str = "identity.pem";
/// Folder of the public keys that count, inside a key directory.
pub const TRUSTED_FOLDER: &str = "trusted";
/// Folder of the public keys that were replaced, inside a key directory. Nothing believes them.
pub const RETIRED_FOLDER: &str = "retired";
/// Largest key file read: a PKCS#8 Ed25519 key takes about 120 bytes, with room for PEM comments.
const KEY_FILE_BYTES_MAX: usize = 8192;
/// Most public keys in one set.
pub const TRUSTED_KEYS_MAX: usize = 256;

/// Why a key or a set of keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system refused.
    #[error("{doing} {path:?}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A private key that others may read is not private any more.
    #[error(
        "key file {path:?} can be read or written by others (mode {mode:04o}); if nobody else used it run: chmod 600 {path:?}; otherwise make a new key"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Whoever can write a key that is believed decides who is believed.
    #[error(
        "key file {path:?} can be written by others (mode {mode:04o}); check whose key it holds, then run: chmod 644 {path:?}"
    )]
    Replaceable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Whoever can write the directory can replace the key.
    #[error("key directory {path:?} can be written by others (mode {mode:04o}); run: chmod 700 {path:?}")]
    OpenDirectory {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A device, a folder or something else that is no plain file.
    #[error("key file {path:?} is not a plain file")]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// A key of OpenSSH that cannot be used.
    #[error("key file {path:?}: {why}")]
    Ssh {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Far longer than any key.
    #[error("key file {path:?} has more than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest size read.
        limit: usize,
    },
    /// Not an Ed25519 private key in PKCS#8 PEM. The text is never part of the message.
    #[error("{path:?} is not an unencrypted Ed25519 private key in PKCS#8 PEM form")]
    NotAPrivateKey {
        /// The file.
        path: PathBuf,
    },
    /// Not an Ed25519 public key in SPKI PEM, or one of small order that would accept forged signatures.
    #[error("not a sound Ed25519 public key in SPKI PEM form: {0}")]
    NotAPublicKey(String),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    NoRandomness(getrandom::Error),
    /// A threshold that trusts nothing, or that no set of signatures can reach.
    #[error(
        "a threshold of {threshold} cannot be used with {keys} trusted keys; it must be at least 1 and at most the number of keys"
    )]
    Threshold {
        /// Signatures asked for.
        threshold: usize,
        /// Distinct keys in the set.
        keys: usize,
    },
    /// More keys than a reader should try.
    #[error("{keys} trusted keys; the limit is {limit}")]
    TooMany {
        /// Keys found.
        keys: usize,
        /// Most keys in one set.
        limit: usize,
    },
}

impl KeyError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// Names a public key: the SHA-256 of its SPKI DER bytes, 64 hexadecimal digits in lower case.
///
/// In an envelope it is a hint that says which trusted key to try; it is never a reason to trust.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; 32]);

/// A text that names no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key id; it has 64 hexadecimal digits in lower case")]
pub struct NotAKeyId(String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::write(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl KeyId {
    /// The 32 bytes of the SHA-256.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = NotAKeyId;

    fn from_str(text: &str) -> Result<Self, NotAKeyId> {
        hex::read(text).map(Self).ok_or_else(|| NotAKeyId(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for KeyId {
    type Error = NotAKeyId;

    fn try_from(text: String) -> Result<Self, NotAKeyId> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

/// An Ed25519 public key of full order, with its name.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    id: KeyId,
}

impl PublicKey {
    /// Errors: the key has small order, so that one signature would fit many messages.
    fn new(key: VerifyingKey) -> Result<Self, KeyError> {
        if key.is_weak() {
            return Err(KeyError::NotAPublicKey("it has small order".to_owned()));
        }
        let der = key.to_public_key_der().map_err(|error| KeyError::NotAPublicKey(error.to_string()))?;
        Ok(Self { key, id: KeyId(*Digest::of(der.as_bytes()).bytes()) })
    }

    /// The key with these 32 bytes of RFC 8032.
    ///
    /// Errors: not a point of the curve, or one of small order.
    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|error| KeyError::NotAPublicKey(error.to_string()))?;
        Self::new(key)
    }

    /// Reads a public key in either form: SPKI PEM, or a line of OpenSSH.
    ///
    /// Errors: neither, another algorithm, or a key of small order.
    pub fn read(text: &str) -> Result<Self, KeyError> {
        if text.trim_start().starts_with("-----BEGIN") {
            return Self::from_pem(text);
        }
        crate::ssh::read_public(text).map_err(|error| KeyError::NotAPublicKey(error.to_string()))
    }

    /// Reads SPKI PEM (`-----BEGIN PUBLIC KEY-----`).
    ///
    /// Errors: another format, another algorithm, or a key of small order.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let key =
            VerifyingKey::from_public_key_pem(text).map_err(|error| KeyError::NotAPublicKey(error.to_string()))?;
        Self::new(key)
    }

    /// The key as SPKI PEM, readable by openssl and everything else.
    ///
    /// Errors: none in practice; the encoder of the DER library is fallible.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.key.to_public_key_pem(LineEnding::LF).map_err(|error| KeyError::NotAPublicKey(error.to_string()))
    }

    /// The name of the key.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The 32 bytes of RFC 8032.
    #[must_use]
    pub fn bytes(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// Whether this key signed exactly these bytes, by the strict rules: no second encoding of a signature passes.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id)
    }
}

/// Thirty-two secret random bytes, wiped when dropped.
pub struct Seed(Zeroizing<[u8; 32]>);

impl Seed {
    /// The seed with these bytes. A test gives fixed ones; everything else must give unpredictable ones.
    #[must_use]
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let seed = Self(Zeroizing::new(bytes));
        bytes.zeroize();
        seed
    }

    /// The seed of a private key file: PKCS#8 PEM or OpenSSH, without a passphrase.
    ///
    /// Errors: no such file, one that others can read, or no Ed25519 key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = read_key_file(path, true)?;
        if crate::ssh::is_private(&text) {
            return crate::ssh::read_private(&text)
                .map_err(|error| KeyError::Ssh { path: path.to_owned(), why: error.to_string() });
        }
        let pair = KeypairBytes::from_pkcs8_pem(&text);
        let pair = pair.map_err(|_: pkcs8::Error| KeyError::NotAPrivateKey { path: path.to_owned() })?;
        Ok(Self::from_bytes(pair.secret_key))
    }

    /// A seed from the operating system's generator.
    ///
    /// Errors: the system has no entropy source.
    pub fn draw() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut()).map_err(KeyError::NoRandomness)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// A private key: who signs. The secret is wiped when dropped and never shown.
pub struct Identity {
    key: SigningKey,
    public: PublicKey,
}

/// An identity from disk, and whether it was made just now.
#[derive(Debug)]
pub struct Loaded {
    /// The identity.
    pub identity: Identity,
    /// True on first use: a new key was written, and whoever talks to the user should say so.
    pub created: bool,
}

impl Identity {
    /// The identity of a seed, in memory only.
    ///
    /// Errors: none in practice; the encoder of the DER library is fallible.
    pub fn from_seed(seed: &Seed) -> Result<Self, KeyError> {
        Self::new(SigningKey::from_bytes(&seed.0))
    }

    fn new(key: SigningKey) -> Result<Self, KeyError> {
        let public = PublicKey::new(key.verifying_key())?;
        Ok(Self { key, public })
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The name of the key.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.public.id
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// Reads `identity.pem` of a key directory.
    ///
    /// Errors: no such file, a file that others can read, a directory that others can write, not a key.
    pub fn load(directory: &Path) -> Result<Self, KeyError> {
        refuse_open_directory(directory)?;
        let path = directory.join(IDENTITY_FILE);
        let pem = read_key_file(&path, true)?;
        let pair = KeypairBytes::from_pkcs8_pem(&pem)
            .map_err(|_: pkcs8::Error| KeyError::NotAPrivateKey { path: path.clone() })?;
        let key = SigningKey::try_from(&pair).map_err(|_: pkcs8::Error| KeyError::NotAPrivateKey { path })?;
        Self::new(key)
    }

    /// Writes a new key into a key directory, which is made if absent, and trusts its public half.
    ///
    /// Both files reach the disk before this returns. Errors: there is a key already, or the file system refuses.
    pub fn create(directory: &Path, seed: &Seed) -> Result<Self, KeyError> {
        let identity = Self::from_seed(seed)?;
        let trusted = directory.join(TRUSTED_FOLDER);
        storage::private_folder(&trusted).map_err(KeyError::io("making the key directory", &trusted))?;
        refuse_open_directory(directory)?;
        let (path, pem) = identity.private_pem(directory)?;
        storage::write_new(directory, IDENTITY_FILE, pem.as_bytes())
            .map_err(KeyError::io("writing the private key", &path))?;
        keyring::put(&trusted, identity.public())?;
        Ok(identity)
    }

    fn private_pem(&self, directory: &Path) -> Result<(PathBuf, Zeroizing<String>), KeyError> {
        // Version 1 of PKCS#8, without the public half: openssl 3.0 does not read version 2.
        let pair = KeypairBytes { secret_key: self.key.to_bytes(), public_key: None };
        let path = directory.join(IDENTITY_FILE);
        match pair.to_pkcs8_pem(LineEnding::LF) {
            Ok(pem) => Ok((path, pem)),
            Err(_) => Err(KeyError::NotAPrivateKey { path }),
        }
    }

    /// Puts the key of a seed in the place of a directory's present one, and trusts it. The public half of the old one is
    /// kept in `retired`, and stays trusted only where `keep_old` says so.
    ///
    /// Errors: no key to replace, or a file system that refuses; the old key is still there then.
    pub fn replace(directory: &Path, seed: &Seed, keep_old: bool) -> Result<Self, KeyError> {
        let old = Self::load(directory)?;
        let new = Self::from_seed(seed)?;
        // What could not be read afterwards would end a rotation half way.
        keyring::read(directory, TRUSTED_FOLDER)?;
        let (trusted, retired) = (directory.join(TRUSTED_FOLDER), directory.join(RETIRED_FOLDER));
        storage::private_folder(&retired).map_err(KeyError::io("making the folder", &retired))?;
        keyring::put(&retired, old.public())?;
        keyring::put(&trusted, new.public())?;
        let (path, pem) = new.private_pem(directory)?;
        storage::replace(directory, IDENTITY_FILE, pem.as_bytes())
            .map_err(KeyError::io("writing the private key", &path))?;
        if !keep_old {
            keyring::disbelieve(directory, old.id())?;
        }
        Ok(new)
    }

    /// Reads the identity of a key directory, or makes one on first use from the seed that `draw` gives.
    ///
    /// Errors: those of [`Identity::load`] and [`Identity::create`]. A key that is there but not usable is never
    /// replaced.
    pub fn load_or_create(directory: &Path, draw: impl FnOnce() -> Result<Seed, KeyError>) -> Result<Loaded, KeyError> {
        match Self::load(directory) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            answer => return answer.map(|identity| Loaded { identity, created: false }),
        }
        match Self::create(directory, &draw()?) {
            // Another process was first: its key is the identity.
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                Self::load(directory).map(|identity| Loaded { identity, created: false })
            }
            answer => answer.map(|identity| Loaded { identity, created: true }),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.id())
    }
}

/// The public keys whose signatures count, and how many distinct ones a document needs.
#[derive(Debug, Clone)]
pub struct TrustedKeys {
    keys: BTreeMap<KeyId, PublicKey>,
    threshold: usize,
}

impl TrustedKeys {
    /// Trusts these keys; a key given twice is one key.
    ///
    /// Errors: a threshold of 0 or above the number of distinct keys; more than [`TRUSTED_KEYS_MAX`] keys.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>, threshold: usize) -> Result<Self, KeyError> {
        let keys: BTreeMap<_, _> = keys.into_iter().map(|key| (key.id, key)).collect();
        if keys.len() > TRUSTED_KEYS_MAX {
            return Err(KeyError::TooMany { keys: keys.len(), limit: TRUSTED_KEYS_MAX });
        }
        if threshold == 0 || threshold > keys.len() {
            return Err(KeyError::Threshold { threshold, keys: keys.len() });
        }
        Ok(Self { keys, threshold })
    }

    /// Trusts every `trusted/*.pem` of a key directory.
    ///
    /// Errors: a directory that others can write, a file that is no public key, or a threshold that does not fit.
    pub fn load(directory: &Path, threshold: usize) -> Result<Self, KeyError> {
        Self::new(keyring::read(directory, TRUSTED_FOLDER)?, threshold)
    }

    /// The key of that name, if it is trusted.
    #[must_use]
    pub fn get(&self, id: KeyId) -> Option<&PublicKey> {
        self.keys.get(&id)
    }

    /// Distinct keys that must have signed.
    #[must_use]
    pub const fn threshold(&self) -> usize {
        self.threshold
    }

    /// The keys in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.values()
    }
}

/// Reads a small file whole; permissions are those of the opened file, so that it cannot be swapped in between.
pub(crate) fn read_key_file(path: &Path, private: bool) -> Result<Zeroizing<String>, KeyError> {
    let file = File::open(path).map_err(KeyError::io("opening", path))?;
    let metadata = file.metadata().map_err(KeyError::io("inspecting", path))?;
    if !metadata.is_file() {
        return Err(KeyError::NotAFile { path: path.to_owned() });
    }
    // A private key is for its owner alone; a public one that others can write is whatever key they choose.
    let refused = if private { 0o077 } else { 0o022 };
    match storage::mode(&metadata) {
        Some(mode) if mode & refused != 0 && private => return Err(KeyError::Exposed { path: path.to_owned(), mode }),
        Some(mode) if mode & refused != 0 => return Err(KeyError::Replaceable { path: path.to_owned(), mode }),
        _ => {}
    }
    // Reserved at once: a growing buffer would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX + 1));
    file.take(KEY_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(KeyError::io("reading", path))?;
    if bytes.len() > KEY_FILE_BYTES_MAX {
        return Err(KeyError::TooLarge { path: path.to_owned(), limit: KEY_FILE_BYTES_MAX });
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) if private => Err(KeyError::NotAPrivateKey { path: path.to_owned() }),
        Err(_) => Err(KeyError::NotAPublicKey(format!("{path:?} is not text"))),
    }
}

pub(crate) fn refuse_open_directory(path: &Path) -> Result<(), KeyError> {
    let metadata = fs::metadata(path).map_err(KeyError::io("inspecting", path))?;
    match storage::mode(&metadata) {
        Some(mode) if mode & 0o022 != 0 => Err(KeyError::OpenDirectory { path: path.to_owned(), mode }),
        _ => Ok(()),
    }
}
