//! Whether the memory that a plan needs is really there.

use crate::access::{Guest, Wish};
use crate::args::Probe;
use crate::commands::access::pass;
use crate::failure::{Code, Done, Failure};
use crate::models;
use crate::roots::roots;
use crate::ui::{Ui, table};
use crate::{files, registry, trust};
use isotherm_access::Permission;
use isotherm_audit::log::{EventKind, Severity};
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile};
use isotherm_core::plan::{PLAN_SCHEMA, Plan};
use isotherm_core::units::Bytes;
use isotherm_runtime::engine::CpuDevice;
use isotherm_runtime::execute::device;
use isotherm_runtime::host::Host;
use isotherm_runtime::probe::{Held, memory_truth};
use std::path::Path;

/// Takes exactly what each stage of a plan needs on each of its devices, and gives it up again.
pub(super) fn run(ui: &Ui, args: &Probe, plan_path: &Path) -> Done {
    let devices_path = if args.output.exists() { args.output.clone() } else { registry::last_devices()? };
    let (file, _) = files::read_artefact::<DevicesFile>(&devices_path, DEVICES_SCHEMA)?;
    let (plan, digest) = files::read_artefact::<Plan>(plan_path, PLAN_SCHEMA)?;
    let graph = DeviceGraph::new(file).map_err(|faults| Failure::all(Code::Io, devices_path.display(), &faults))?;
    let mut stages: Vec<(CpuDevice, Bytes)> = Vec::new();
    for stage in &plan.stages {
        for name in &stage.devices {
            let found = device(&graph, name).map_err(|e| Failure::new(Code::Device, models::causes(&e)))?;
            stages.push((found, stage.bytes.total));
        }
    }
    if stages.is_empty() {
        return Err(Failure::file(plan_path, "has no stage, so that it needs no memory"));
    }
    let identity = trust::identity(ui)?;
    let guest = Guest::open(&identity, &args.guest)?;
    let wished: Vec<(&str, u64)> = stages.iter().map(|(device, bytes)| (device.name.as_str(), bytes.0)).collect();
    let subjects = [("plan", digest)];
    let permissions = [Permission::MemoryAllocate];
    pass(&identity, &Wish { guest: guest.as_ref(), permissions: &permissions, devices: &wished, subjects: &subjects })?;
    let available = Host::discover(&roots()).memory_available_bytes;
    let held = memory_truth(&stages, available).map_err(|e| Failure::new(Code::Device, models::causes(&e)))?;
    let total: u64 = held.iter().map(|held| held.bytes.0).sum();
    let note = trust::Note::default().about("plan", digest).with("bytes", i64::try_from(total).unwrap_or(i64::MAX));
    trust::record(&identity, EventKind::MemoryAllocate, Severity::Info, note)?;
    ui.result(&held, || text(&held))
}

fn text(held: &[Held]) -> String {
    let mut rows = vec![["device", "bytes", "pieces"].map(str::to_owned).to_vec()];
    let row = |held: &Held| vec![held.device.clone(), held.bytes.0.to_string(), held.pieces.to_string()];
    rows.extend(held.iter().map(row));
    format!("{}\n  all of it was there at once, written and read back\n", table(&rows, &[1, 2]))
}
