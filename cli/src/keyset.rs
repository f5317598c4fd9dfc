//! The set of keys of this host's cluster: the versions that were accepted, and which of them is in force.

use crate::failure::{Code, Failure};
use crate::trust;
use isotherm_audit::keyset::KeySet;
use isotherm_audit::storage;
use isotherm_core::digest::Digest;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Folder of the sets, in the folder of keys.
const FOLDER: &str = "key-sets";
/// File that says which set is in force.
const POINTER: &str = "in-force.json";
const SCHEMA: &str = "isotherm.key-set-in-force/v1";

/// Which set is in force. It is replaced in one step, so that a crash leaves the old one or the new one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InForce {
    schema: String,
    version: u64,
    payload: Digest,
}

fn folder() -> Result<PathBuf, Failure> {
    Ok(trust::key_directory()?.join(FOLDER))
}

fn file_name(version: u64) -> String {
    format!("{version:06}.json")
}

/// The set in force; `None` where none was ever accepted.
///
/// Errors: a set that is gone, or is not the one that was accepted. Then nothing counts as signed.
pub fn in_force() -> Result<Option<KeySet>, Failure> {
    // Without a home there are no keys of this host, and no set of them.
    if crate::files::home().is_err() {
        return Ok(None);
    }
    let folder = folder()?;
    let path = folder.join(POINTER);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|e| Failure::file(&path, e))?,
    };
    let damaged = |why: String| {
        Failure::new(Code::Verification, format!("the set of keys in force cannot be relied on: {why}"))
            .remedy("restore the folder key-sets beside this host's keys")
    };
    let pointer: InForce = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if pointer.schema != SCHEMA {
        return Err(damaged(format!("schema {:?} is not {SCHEMA:?}", pointer.schema)));
    }
    let path = folder.join(file_name(pointer.version));
    let envelope = std::fs::read(&path).map_err(|e| damaged(format!("{}: {e}", path.display())))?;
    let set = KeySet::kept(&envelope, pointer.payload);
    set.map(Some).map_err(|e| damaged(crate::models::causes(&e)))
}

/// Puts an accepted set in force; when this returns it is on disk.
pub fn put_in_force(set: &KeySet, envelope: &[u8]) -> Result<(), Failure> {
    let folder = folder()?;
    let failed = |e: std::io::Error| Failure::file(&folder, e);
    storage::private_folder(&folder).map_err(failed)?;
    let version = set.claim().version;
    storage::replace(&folder, &file_name(version), envelope).map_err(failed)?;
    let pointer = InForce { schema: SCHEMA.to_owned(), version, payload: set.payload_digest() };
    let bytes = serde_json::to_vec_pretty(&pointer).map_err(|e| Failure::file(&folder, e))?;
    storage::replace(&folder, POINTER, &bytes).map_err(failed)
}
