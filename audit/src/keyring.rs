//! The public keys that lie beside an identity: those whose signatures count, and those it had before.

use crate::keys::{
    KeyError, KeyId, PublicKey, RETIRED_FOLDER, TRUSTED_FOLDER, TRUSTED_KEYS_MAX, read_key_file, refuse_open_directory,
};
use crate::storage;
use std::fs;
use std::path::{Path, PathBuf};

/// Whose signatures count from now on as well, once this returns. A key that counts already stays.
///
/// Errors: a directory that others can write, or a file system that refuses.
pub fn believe(directory: &Path, key: &PublicKey) -> Result<(), KeyError> {
    refuse_open_directory(directory)?;
    let folder = directory.join(TRUSTED_FOLDER);
    storage::private_folder(&folder).map_err(KeyError::io("making the key directory", &folder))?;
    put(&folder, key)
}

/// Whose signatures count no more, once this returns: every file of the key goes, whatever its name. Gives how many.
///
/// Errors: a directory that others can write, or a file system that refuses.
pub fn disbelieve(directory: &Path, id: KeyId) -> Result<usize, KeyError> {
    let folder = directory.join(TRUSTED_FOLDER);
    let mut removed = 0;
    for (path, _) in files(directory, TRUSTED_FOLDER)?.into_iter().filter(|(_, key)| key.id() == id) {
        fs::remove_file(&path).map_err(KeyError::io("no longer trusting", &path))?;
        removed += 1;
    }
    storage::sync_folder(&folder).map_err(KeyError::io("syncing", &folder))?;
    Ok(removed)
}

/// The public keys that a directory's identity had before its present one. Nothing believes them.
///
/// Errors: as [`crate::keys::TrustedKeys::load`].
pub fn retired(directory: &Path) -> Result<Vec<PublicKey>, KeyError> {
    if directory.join(RETIRED_FOLDER).exists() { read(directory, RETIRED_FOLDER) } else { Ok(Vec::new()) }
}

pub(crate) fn read(directory: &Path, name: &str) -> Result<Vec<PublicKey>, KeyError> {
    Ok(files(directory, name)?.into_iter().map(|(_, key)| key).collect())
}

/// Puts a key into a folder under a name that says which it is.
pub(crate) fn put(folder: &Path, key: &PublicKey) -> Result<(), KeyError> {
    let name = format!("{}.pem", &key.id().to_string()[..16]);
    storage::replace(folder, &name, key.to_pem()?.as_bytes()).map_err(KeyError::io("writing the public key", folder))
}

fn files(directory: &Path, name: &str) -> Result<Vec<(PathBuf, PublicKey)>, KeyError> {
    let folder = directory.join(name);
    refuse_open_directory(directory)?;
    refuse_open_directory(&folder)?;
    let mut keys = Vec::new();
    for found in fs::read_dir(&folder).map_err(KeyError::io("reading", &folder))? {
        let path = found.map_err(KeyError::io("reading", &folder))?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            let key = PublicKey::read(&read_key_file(&path, false)?)?;
            keys.push((path, key));
        }
        if keys.len() > TRUSTED_KEYS_MAX {
            return Err(KeyError::TooMany { keys: keys.len(), limit: TRUSTED_KEYS_MAX });
        }
    }
    Ok(keys)
}
