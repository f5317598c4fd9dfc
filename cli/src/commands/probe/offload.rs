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
/// host's memory, of which each card may have an equal part and the processor one too.
pub(super) fn measure(
    probed: &mut [Device],
    devices: &[CpuDevice],
    model: &LocalModel,
    folder: &Path,
    (memory, now): (Option<Figure<Bytes>>, &str),
) -> Result<(), Failure> {
    if isotherm_runtime::host::is_in_memory(folder) {
        return Err(Failure::file(folder, "is in memory, so that layers there save none; name a folder on a disk"));
    }
    let layer = model.model.layer_bytes.iter().max().map_or(0, |bytes| bytes.0);
    let parts = 1 + devices.iter().filter(|device| device.card.is_some()).count() as u64;
    let part = memory.map(|free| Figure { value: Bytes(free.value.0 / parts), ..free });
    let from_disk = from_folder(folder, layer, now).map_err(|e| Failure::file(folder, e))?;
    for device in probed {
        let card = devices.iter().find(|known| known.name == device.name).and_then(|known| known.card.as_ref());
        let beside = card.is_none_or(|card| card.platform.refills_beside());
        let (store, rate, room_bytes) = match card {
            None => (Store::Disk, from_disk.clone(), None),
            Some(card) => {
                let failed = |e| Failure::new(Code::Device, format!("failed to copy to it: {}", models::causes(&e)));
                (Store::HostMemory, to_card(card, layer, now).map_err(failed)?, part.clone())
            }
        };
        device.offload = rate.map(|rate| Offload { store, bandwidth_bytes_per_second: rate, beside, room_bytes });
    }
    Ok(())
}
