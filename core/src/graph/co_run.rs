//! Devices that slow one another.

use crate::figure::Figure;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Devices that slow one another when busy at once: cores on one memory bus, cards under one power limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CoRun {
    /// Name, unique in the graph.
    pub name: String,
    /// Names of the devices.
    pub devices: Vec<String>,
    /// Time of a step with 1, 2, 3 ... of them busy over its time alone; the first is 1. More busy devices than
    /// entries take the last.
    pub slowdown: Vec<Figure<f64>>,
    /// The same for single devices, where they do not slow one another alike: one of two threads that shares one of its
    /// cores loses less than one that has no other. Whoever is not named takes `slowdown`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slowdown_of: BTreeMap<String, Vec<Figure<f64>>>,
}

impl CoRun {
    /// The factors of a device with 1, 2, 3 ... of the set busy.
    #[must_use]
    pub fn factors_of(&self, device: &str) -> &[Figure<f64>] {
        self.slowdown_of.get(device).unwrap_or(&self.slowdown)
    }
}
