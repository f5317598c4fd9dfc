//! Any bytes as a devices file: an error, or a graph in which every path between devices can be asked for.

use isotherm_core::graph::{DeviceGraph, DevicesFile};
use isotherm_core::units::Bytes;

/// Devices up to which all pairs are asked.
const DEVICES_MAX: usize = 16;

/// Panics where the promise above is broken.
pub fn check(data: &[u8]) {
    let Ok(file) = serde_json::from_slice::<DevicesFile>(data) else { return };
    let Ok(graph) = DeviceGraph::new(file) else { return };
    for from in graph.device_ids().take(DEVICES_MAX) {
        for to in graph.device_ids().take(DEVICES_MAX) {
            if let Some(path) = graph.device_path(from, to, Bytes(1 << 20)) {
                assert!(path.time(Bytes(1 << 20)).value() >= 0.0);
            }
        }
    }
}
