//! What this host remembers between commands: the devices it last measured.

use crate::failure::Failure;
use crate::files;
use std::path::PathBuf;

/// Where what this host has is kept, to be compared at the next start.
pub fn machine() -> Result<PathBuf, Failure> {
    files::home().map(|home| home.join("machine.json"))
}

/// Where the devices last measured on this host are kept.
pub fn last_devices() -> Result<PathBuf, Failure> {
    files::home().map(|home| home.join("devices.json"))
}
