//! The PCI tree (`Documentation/ABI/testing/sysfs-bus-pci`).

use super::{names, target_name};
use crate::host::{Roots, text};
use serde::Serialize;
use std::path::Path;

/// A function of a device on a PCI bus.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PciDevice {
    /// Its address, such as `0000:01:00.0`.
    pub address: String,
    /// Number of its maker.
    pub vendor: Option<u16>,
    /// Its number at its maker.
    pub device: Option<u16>,
    /// What it is for: class, subclass, interface.
    pub class: Option<u32>,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The bridge it is behind; absent at a root.
    pub parent: Option<String>,
    /// The memory node it is next to, where the firmware says so.
    pub numa_node: Option<u32>,
    /// Its link, where it has one.
    pub link: Option<PciLink>,
}

/// A PCI Express link, at present and at best.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PciLink {
    /// Transfers per second of one lane now, in 10^9.
    pub gigatransfers: Option<f64>,
    /// Lanes now.
    pub lanes: Option<u32>,
    /// Transfers per second of one lane at best, in 10^9.
    pub gigatransfers_max: Option<f64>,
    /// Lanes at best.
    pub lanes_max: Option<u32>,
}

impl PciLink {
    /// Payload bytes per second that the link could carry in one direction at best: 8b/10b coding up to 5 GT/s,
    /// 128b/130b beyond (PCI Express Base Specification, 3.0), before packet headers. A bound, never a measurement.
    #[must_use]
    pub fn bytes_per_second_max(&self) -> Option<f64> {
        let (rate, lanes) = (self.gigatransfers_max?, self.lanes_max?);
        let coding = if rate <= 5.0 { 0.8 } else { 128.0 / 130.0 };
        Some(rate * 1e9 * f64::from(lanes) * coding / 8.0)
    }
}

impl PciDevice {
    /// Graphics and accelerators: classes 0x03 and 0x12.
    #[must_use]
    pub fn is_card(&self) -> bool {
        self.class.is_some_and(|class| matches!(class >> 16, 0x03 | 0x12))
    }
}

/// `dddd:bb:dd.f`, hexadecimal, with a domain of four digits or more.
pub(super) fn is_address(name: &str) -> bool {
    let hex = |part: &str, least: usize| {
        part.len() >= least && part.len() <= 8 && part.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let Some((domain, rest)) = name.split_once(':') else { return false };
    let Some((bus, rest)) = rest.split_once(':') else { return false };
    let Some((slot, function)) = rest.split_once('.') else { return false };
    hex(domain, 4)
        && hex(bus, 2)
        && bus.len() == 2
        && hex(slot, 2)
        && slot.len() == 2
        && hex(function, 1)
        && function.len() == 1
}

pub(super) fn devices(roots: &Roots) -> Vec<PciDevice> {
    let folder = roots.sys.join("bus/pci/devices");
    names(&folder).into_iter().filter(|name| is_address(name)).map(|name| device(&folder.join(&name), name)).collect()
}

fn device(path: &Path, address: String) -> PciDevice {
    let hexadecimal = |name: &str| {
        let word = text(&path.join(name))?;
        u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()
    };
    let short = |name: &str| hexadecimal(name).and_then(|number| u16::try_from(number).ok());
    // The folder itself lies in its bridge's, and the entry in the list of the bus is a link to it.
    let parent = path.canonicalize().ok().and_then(|real| {
        let name = real.parent()?.file_name()?.to_str()?;
        is_address(name).then(|| name.to_owned())
    });
    PciDevice {
        vendor: short("vendor"),
        device: short("device"),
        class: hexadecimal("class").filter(|class| *class <= 0xff_ffff),
        driver: target_name(&path.join("driver")),
        parent: parent.filter(|parent| *parent != address),
        // -1 says that nobody knows.
        numa_node: text(&path.join("numa_node")).and_then(|node| node.parse().ok()),
        link: link(path),
        address,
    }
}

fn link(path: &Path) -> Option<PciLink> {
    let rate = |name: &str| {
        let word = text(&path.join(name))?;
        let rate: f64 = word.split_once(" GT/s")?.0.parse().ok()?;
        (rate > 0.0 && rate <= 1024.0).then_some(rate)
    };
    // 0 lanes and 255 lanes say that there is no link.
    let lanes = |name: &str| text(&path.join(name))?.parse().ok().filter(|lanes| (1..=32).contains(lanes));
    let found = PciLink {
        gigatransfers: rate("current_link_speed"),
        lanes: lanes("current_link_width"),
        gigatransfers_max: rate("max_link_speed"),
        lanes_max: lanes("max_link_width"),
    };
    let some = found.lanes.is_some() || found.lanes_max.is_some() || found.gigatransfers_max.is_some();
    some.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_other_names() {
        for good in ["0000:01:00.0", "10000:e1:1f.7", "ffff:ff:1f.7"] {
            assert!(is_address(good), "{good}");
        }
        for bad in
            ["", "01:00.0", "0000:1:00.0", "0000:01:00", "0000:01:00.10", "pci0000:00", "0000:01:0g.0", "../x:00:00.0"]
        {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
