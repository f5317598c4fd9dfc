//! Everything a computer has, found without configuration: cards and how they are plugged in, disks, network cards,
//! batteries.
//!
//! The kernel's text files say it all, and their roots are parameters, so a server, a laptop, a board or a phone is
//! described by a folder of files. What a system does not tell is absent, and nothing is made up in its place: a card whose
//! maker tells nothing is a card with an address and a name by number.

mod cards;
mod network;
mod pci;
mod power;
pub mod registry;
mod storage;

pub(crate) use cards::celsius;
pub use cards::{Card, CardSensors};
pub use network::Nic;
pub use pci::{PciDevice, PciLink};
pub use power::{Battery, Supply};
pub use storage::{Disk, ReadSpeed, read_speed};

use crate::host::{Host, Roots, text};
use serde::Serialize;
use std::path::Path;

/// Most things of one kind that are looked at; beyond it a folder is taken for damaged.
const THINGS_MAX: usize = 4096;

/// A computer with all that is plugged into it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Machine {
    /// Its name by its maker, such as `Raspberry Pi 5 Model B Rev 1.0`.
    pub product: Option<String>,
    /// Processor, caches and memory.
    pub host: Host,
    /// Everything on a PCI bus, by address: the tree of [`PciDevice::parent`].
    pub pci: Vec<PciDevice>,
    /// Graphics cards and accelerators, on PCI or built in.
    pub cards: Vec<Card>,
    /// Disks.
    pub disks: Vec<Disk>,
    /// Network cards.
    pub nics: Vec<Nic>,
    /// Batteries.
    pub batteries: Vec<Battery>,
    /// Mains and other supplies.
    pub supplies: Vec<Supply>,
}

impl Machine {
    /// Finds everything that the kernel tells of.
    #[must_use]
    pub fn discover(roots: &Roots) -> Self {
        let pci = pci::devices(roots);
        let (batteries, supplies) = power::supplies(roots);
        Self {
            product: product(roots),
            host: Host::discover(roots),
            cards: cards::cards(roots, &pci),
            disks: storage::disks(roots),
            nics: network::nics(roots),
            batteries,
            supplies,
            pci,
        }
    }

    /// The bridges between a device and its root, nearest first.
    #[must_use]
    pub fn path_to_root(&self, address: &str) -> Vec<&str> {
        let mut path: Vec<&str> = Vec::new();
        let mut at = address;
        while let Some(parent) = self.pci.iter().find(|device| device.address == at).and_then(|d| d.parent.as_deref()) {
            // A tree has no way back; a damaged one ends here.
            if parent == address || path.contains(&parent) {
                break;
            }
            path.push(parent);
            at = parent;
        }
        path
    }

    /// The nearest bridge that two devices share: traffic between them need not go beyond it, and both share its link.
    #[must_use]
    pub fn common_bridge(&self, one: &str, other: &str) -> Option<&str> {
        let beyond = self.path_to_root(other);
        self.path_to_root(one).into_iter().find(|bridge| beyond.contains(bridge))
    }
}

/// What the firmware calls the machine: a device tree says it on boards and phones, DMI on computers.
fn product(roots: &Roots) -> Option<String> {
    let tree = known(&roots.proc.join("device-tree/model"));
    tree.or_else(|| {
        let dmi = |name: &str| known(&roots.sys.join("class/dmi/id").join(name));
        match (dmi("sys_vendor"), dmi("product_name")) {
            (Some(vendor), Some(name)) if !name.starts_with(&vendor) => Some(format!("{vendor} {name}")),
            (vendor, name) => name.or(vendor),
        }
    })
}

/// A name in a file, without what makers write where they had nothing to say.
fn known(path: &Path) -> Option<String> {
    let name = text(path)?;
    let name: String = name.trim_matches(char::from(0)).trim().chars().filter(|c| !c.is_control()).take(200).collect();
    let empty =
        ["", "none", "unknown", "to be filled by o.e.m.", "default string", "system product name", "not specified"];
    (!empty.contains(&name.to_ascii_lowercase().as_str())).then_some(name)
}

/// The names in a folder, sorted; none where there is no such folder.
fn names(folder: &Path) -> Vec<String> {
    let listing = folder.read_dir().into_iter().flatten().flatten().take(THINGS_MAX);
    let mut names: Vec<String> = listing.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The last part of where a link leads, such as the name of a driver.
fn target_name(link: &Path) -> Option<String> {
    std::fs::read_link(link).ok()?.file_name()?.to_str().map(str::to_owned)
}
