//! What comes and goes while a host is watched: cards in an eye of Thunderbolt, disks, network cards, batteries.
//!
//! The kernel's files are looked at again every so often and compared with what was there. That finds whatever has an
//! identity there, on any bus, without a daemon that tells of it.

use super::Sampler;
use crate::discover::Machine;
use crate::discover::registry::{Change, Registry};
use crate::host::Roots;

/// Notices what comes and goes.
#[derive(Clone, Debug)]
pub struct Plugged {
    roots: Roots,
    known: Registry,
}

impl Plugged {
    /// Compares from now on with a machine as it is.
    #[must_use]
    pub fn new(roots: &Roots, machine: &Machine) -> Self {
        Self { roots: roots.clone(), known: Registry::of(machine) }
    }

    /// Looks again. What came is sampled from now on; what went keeps its place among the devices and does not answer, so
    /// that it has the same place when it returns.
    pub fn look(&mut self, sampler: &mut Sampler) -> Vec<Change> {
        let machine = Machine::discover(&self.roots);
        let now = Registry::of(&machine);
        let changes = now.since(&self.known);
        if !changes.is_empty() {
            sampler.adopt(&self.roots, &machine);
            self.known = now;
        }
        changes
    }
}
