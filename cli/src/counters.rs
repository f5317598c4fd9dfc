//! What ran here last: the greatest counter of a manifest, by cluster, so that none with a smaller one runs after it.

use crate::access;
use crate::failure::{Code, Failure};
use isotherm_audit::storage;
use isotherm_core::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const FILE: &str = "run-counters.json";
const LOCK: &str = "run-counters.lock";
const SCHEMA: &str = "isotherm.run-counters/v1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counters {
    schema: String,
    greatest: BTreeMap<String, u64>,
    /// The manifest with that counter. Files of earlier versions do not say.
    #[serde(default)]
    manifests: BTreeMap<String, Digest>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { schema: SCHEMA.to_owned(), greatest: BTreeMap::new(), manifests: BTreeMap::new() }
    }
}

/// The greatest counter of a manifest of a cluster that ran here; `None` before the first.
///
/// Errors: a file that cannot be read or is damaged. Then nothing says what ran.
pub fn greatest(cluster: &str) -> Result<Option<u64>, Failure> {
    Ok(load(&access::directory()?.join(FILE))?.greatest.get(cluster).copied())
}

/// Remembers that a manifest of a cluster runs now; when this returns it is on disk.
///
/// Errors: one with a greater counter ran before, be it a moment ago, or another one with the same; a file that cannot
/// be read or written.
pub fn remember(cluster: &str, counter: u64, manifest: Digest) -> Result<(), Failure> {
    let folder = access::directory()?;
    let (path, lock_path) = (folder.join(FILE), folder.join(LOCK));
    let lock = storage::private_file().open(&lock_path).map_err(|e| Failure::file(&lock_path, e))?;
    lock.lock().map_err(|e| Failure::file(&lock_path, e))?;
    let mut counters = load(&path)?;
    let (newest, ran) = (counters.greatest.get(cluster).copied(), counters.manifests.get(cluster).copied());
    match newest {
        Some(newest) if newest > counter => return Err(older(counter, newest)),
        Some(newest) if newest == counter => match ran {
            Some(ran) if ran == manifest => return Ok(()),
            Some(ran) => return Err(twin(counter, ran)),
            None => {}
        },
        _ => {}
    }
    counters.greatest.insert(cluster.to_owned(), counter);
    counters.manifests.insert(cluster.to_owned(), manifest);
    let bytes = serde_json::to_vec_pretty(&counters).map_err(|e| Failure::file(&path, e))?;
    storage::replace(&folder, FILE, &bytes).map_err(|e| Failure::file(&path, e))
}

/// A host never seals two manifests under one counter, so one of them comes from a copy of its log.
fn twin(counter: u64, ran: Digest) -> Failure {
    Failure::new(
        Code::Verification,
        format!("the manifest has the counter {counter}, and another one with it ran here before ({ran})"),
    )
    .remedy("find out who else seals with this key; seal the plan again")
}

fn older(counter: u64, newest: u64) -> Failure {
    Failure::new(
        Code::Verification,
        format!("the manifest has the counter {counter}, and one with {newest} ran here before"),
    )
    .remedy("seal the plan again")
}

fn load(path: &Path) -> Result<Counters, Failure> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Counters::default()),
        read => read.map_err(|e| Failure::file(path, e))?,
    };
    let counters = serde_json::from_slice::<Counters>(&bytes).ok().filter(|read| read.schema == SCHEMA);
    counters.ok_or_else(|| {
        Failure::new(Code::Verification, format!("{} is damaged, so nothing says what ran here before", path.display()))
            .remedy("restore it; without it every older manifest that is still valid runs again")
    })
}
