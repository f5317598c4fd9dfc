//! `isotherm probe --offload DIR`: how quickly layers come that a device does not hold.

use crate::failure::{Code, Failure};
use crate::models::{self, LocalModel};
use isotherm_core::device::Device;
use isotherm_core::figure::Figure;
use isotherm_core::offload::{Offload, Store};
use isotherm_core::units::Bytes;
use isotherm_runtime::engine::CpuDevice;
use isotherm_runtime::probe::offload::{from_folder, to_card};
use std::path::Path;

/// Writes into each probed device where its layers may lie: those of the processor in a folder, those of cards in the
/// host's memory, of which so much is free.
pub(super) fn measure(
    probed: &mut [Device],
    devices: &[CpuDevice],
    model: &LocalModel,
    folder: &Path,
    (memory, now): (Option<Figure<Bytes>>, &str),
) -> Result<(), Failure> {
    let layer = model.model.layer_bytes.iter().max().map_or(0, |bytes| bytes.0);
    let from_disk = from_folder(folder, layer, now).map_err(|e| Failure::file(folder, e))?;
    for device in probed {
        let card = devices.iter().find(|known| known.name == device.name).and_then(|known| known.card.as_ref());
        let (store, rate, room_bytes) = match card {
            None => (Store::Disk, from_disk.clone(), None),
            Some(card) => {
                let failed = |e| Failure::new(Code::Device, format!("failed to copy to it: {}", models::causes(&e)));
                (Store::HostMemory, to_card(card, layer, now).map_err(failed)?, memory.clone())
            }
        };
        device.offload = rate.map(|rate| Offload { store, bandwidth_bytes_per_second: rate, room_bytes });
    }
    Ok(())
}
