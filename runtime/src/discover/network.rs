//! Network cards (`Documentation/ABI/testing/sysfs-class-net`).

use super::pci::is_address;
use super::{known, names, target_name};
use crate::host::{Roots, text};
use serde::Serialize;

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Nic {
    /// The kernel's name, such as `enp5s0`.
    pub name: String,
    /// Its hardware address.
    pub address: Option<String>,
    /// Whether something is at the other end.
    pub up: Option<bool>,
    /// What both ends agreed on, in 10^6 bits per second. Absent without a cable, and over the air.
    pub megabits_per_second: Option<u64>,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// Whether it works over the air.
    pub wireless: bool,
    /// Its PCI address; absent for what is built in or on a USB port.
    pub pci: Option<String>,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The memory node it is next to.
    pub numa_node: Option<u32>,
}

/// Cards with hardware behind them: bridges, tunnels and the loop back to the host are none.
pub(super) fn nics(roots: &Roots) -> Vec<Nic> {
    let folder = roots.sys.join("class/net");
    let nic = |name: String| {
        let path = folder.join(&name);
        let device = path.join("device");
        device.exists().then(|| Nic {
            address: known(&path.join("address"))
                .filter(|address| address.bytes().any(|b| b.is_ascii_hexdigit() && b != b'0')),
            up: text(&path.join("operstate")).and_then(|state| match state.as_str() {
                "up" => Some(true),
                "down" | "lowerlayerdown" | "notpresent" | "dormant" => Some(false),
                _ => None,
            }),
            // -1 says that nobody knows.
            megabits_per_second: text(&path.join("speed"))
                .and_then(|speed| speed.parse().ok())
                .filter(|speed| *speed > 0),
            mtu: text(&path.join("mtu")).and_then(|mtu| mtu.parse().ok()).filter(|mtu| *mtu > 0),
            wireless: path.join("wireless").exists() || path.join("phy80211").exists(),
            pci: target_name(&device).filter(|place| is_address(place)),
            driver: target_name(&device.join("driver")),
            numa_node: text(&device.join("numa_node")).and_then(|node| node.parse().ok()),
            name,
        })
    };
    names(&folder).into_iter().filter_map(nic).collect()
}
