//! What was here last time: a file of everything that has an identity, compared at each start.

use super::Machine;
use isotherm_core::artefact::TOOL_VERSION;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Schema of a registry.
pub const SCHEMA: &str = "isotherm.registry/v1";
/// Largest registry read.
const BYTES_MAX: u64 = 16 << 20;

/// Why a registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
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
    /// Not a registry.
    #[error("{path:?} is no registry of devices: {why}; move it away, and the next start writes it anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// What is remembered of a thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// `card`, `disk`, `nic` or `battery`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Where it is: a PCI address or the kernel's name.
    pub slot: String,
    /// The driver that has it, with its version where it tells one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

/// Everything with an identity, by UUID, serial number or hardware address; by its place where it has none of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Kind and version.
    pub schema: String,
    /// The program that wrote it.
    pub tool_version: String,
    /// The things.
    pub entries: BTreeMap<String, Entry>,
}

/// What is different from last time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// It was not here.
    Added {
        /// Its identity.
        key: String,
        /// It.
        now: Entry,
    },
    /// It is gone.
    Removed {
        /// Its identity.
        key: String,
        /// As it was.
        before: Entry,
    },
    /// It is in another slot.
    Moved {
        /// Its identity.
        key: String,
        /// Where it was.
        from: String,
        /// Where it is.
        to: String,
    },
    /// Another driver has it, or another version: what was measured under the old one is stale.
    Driver {
        /// Its identity.
        key: String,
        /// The driver it had.
        from: Option<String>,
        /// The driver it has.
        to: Option<String>,
    },
}

impl Change {
    /// The identity of what is different.
    #[must_use]
    pub fn key(&self) -> &str {
        let (Self::Added { key, .. } | Self::Removed { key, .. } | Self::Moved { key, .. } | Self::Driver { key, .. }) =
            self;
        key
    }
}

impl Registry {
    /// The registry of a machine as it is.
    #[must_use]
    pub fn of(machine: &Machine) -> Self {
        let mut entries = BTreeMap::new();
        // Two cards of one serial number, which some makers ship, are told apart by their places.
        let mut put = |key: String, entry: Entry| {
            let key = if entries.contains_key(&key) { format!("{key}@{}", entry.slot) } else { key };
            entries.insert(key, entry);
        };
        for card in &machine.cards {
            let version = card.driver_version.as_ref().map_or_else(String::new, |version| format!(" {version}"));
            put(
                card.key.clone(),
                Entry {
                    kind: "card".to_owned(),
                    name: card.name.clone(),
                    slot: card.pci.clone().unwrap_or_else(|| card.key.clone()),
                    driver: card.driver.as_ref().map(|driver| format!("{driver}{version}")),
                },
            );
        }
        for disk in &machine.disks {
            let key = disk.serial.clone().unwrap_or_else(|| disk.name.clone());
            let name = disk.model.clone().unwrap_or_else(|| disk.name.clone());
            let (slot, driver) = (disk.name.clone(), disk.driver.clone());
            put(format!("disk-{key}"), Entry { kind: "disk".to_owned(), name, slot, driver });
        }
        for nic in &machine.nics {
            let key = nic.address.clone().unwrap_or_else(|| nic.name.clone());
            let slot = nic.pci.clone().unwrap_or_else(|| nic.name.clone());
            put(
                format!("nic-{key}"),
                Entry { kind: "nic".to_owned(), name: nic.name.clone(), slot, driver: nic.driver.clone() },
            );
        }
        for battery in &machine.batteries {
            let name = battery.name.clone();
            put(
                format!("battery-{name}"),
                Entry { kind: "battery".to_owned(), slot: name.clone(), name, driver: None },
            );
        }
        Self { schema: SCHEMA.to_owned(), tool_version: TOOL_VERSION.to_owned(), entries }
    }

    /// What is different from an earlier state, in the order of identities.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (key, was) in &before.entries {
            let key = key.clone();
            match self.entries.get(&key) {
                None => changes.push(Change::Removed { key, before: was.clone() }),
                Some(now) => {
                    if now.slot != was.slot {
                        changes.push(Change::Moved { key: key.clone(), from: was.slot.clone(), to: now.slot.clone() });
                    }
                    if now.driver != was.driver {
                        changes.push(Change::Driver { key, from: was.driver.clone(), to: now.driver.clone() });
                    }
                }
            }
        }
        let new = self.entries.iter().filter(|(key, _)| !before.entries.contains_key(*key));
        changes.extend(new.map(|(key, now)| Change::Added { key: key.clone(), now: now.clone() }));
        changes
    }

    /// The registry in a file; `None` where there is no such file.
    ///
    /// Errors: a file that cannot be read or is no registry.
    pub fn load(path: &Path) -> Result<Option<Self>, RegistryError> {
        let io = |doing| move |source| RegistryError::Io { doing, path: path.to_owned(), source };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io("opening"))?,
        };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io("reading"))?;
        let damaged = |why: String| RegistryError::Damaged { path: path.to_owned(), why };
        if bytes.len() as u64 > BYTES_MAX {
            return Err(damaged(format!("it is larger than {BYTES_MAX} bytes")));
        }
        let registry: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if registry.schema != SCHEMA {
            return Err(damaged(format!("schema {:?} is not {SCHEMA:?}", registry.schema)));
        }
        Ok(Some(registry))
    }

    /// Puts the registry in the place of whatever the file holds: readers see the old state or the new one, also after a
    /// crash.
    ///
    /// Errors: the file system refuses; the old file is still there then.
    pub fn store(&self, path: &Path) -> Result<(), RegistryError> {
        let write = || {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
        };
        write().map_err(|source| RegistryError::Io { doing: "writing", path: path.to_owned(), source })
    }
}
