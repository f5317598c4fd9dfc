//! Limits on the power that devices draw together in the long run.

use super::{Limits, ProblemError};
use crate::device::Device;
use crate::graph::DeviceGraph;
use crate::units::Watts;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whose power is limited.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerScope {
    /// One device's, by name.
    Device(String),
    /// That of all devices of a host.
    Host(String),
    /// That of all devices of a site.
    Site(String),
}

impl PowerScope {
    /// Whether a device belongs to it.
    #[must_use]
    pub fn covers(&self, device: &Device) -> bool {
        match self {
            Self::Device(name) => *name == device.name,
            Self::Host(host) => *host == device.host,
            Self::Site(site) => device.site.as_ref() == Some(site),
        }
    }
}

impl fmt::Display for PowerScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => write!(f, "device {name:?}"),
            Self::Host(name) => write!(f, "host {name:?}"),
            Self::Site(name) => write!(f, "site {name:?}"),
        }
    }
}

/// Most power that some devices may draw together, idle ones included, as a mean over the times of steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PowerLimit {
    /// Whose.
    pub scope: PowerScope,
    /// How much.
    pub most_watts: Watts,
}

/// Limits of nothing, and limits that nobody can hold.
pub(super) fn errors(limits: &Limits, graph: &DeviceGraph) -> Vec<ProblemError> {
    let mut errors = Vec::new();
    for limit in &limits.power {
        let mut covered = graph.devices().iter().filter(|device| limit.scope.covers(device)).peekable();
        if covered.peek().is_none() {
            errors.push(ProblemError::UnknownScope { scope: limit.scope.clone() });
        }
        let blind = |device: &&Device| {
            let known = device.idle_watts.is_some() && device.busy_watts.is_some();
            !known && !limits.banned.contains(&device.name)
        };
        for device in covered.filter(blind) {
            errors.push(ProblemError::UnknownPower { scope: limit.scope.clone(), device: device.name.clone() });
        }
    }
    errors
}
