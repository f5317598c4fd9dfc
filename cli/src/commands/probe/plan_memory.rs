//! Whether the memory that a plan needs is really there.

use crate::access::{self, Guest, Wish};
use crate::args::Probe;
use crate::commands::access::FILLING;
use crate::failure::{Code, Done, Failure};
use crate::models;
use crate::roots::roots;
use crate::ui::{Ui, table};
use crate::{files, registry, trust};
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
    let wish = Wish { guest: guest.as_ref(), permissions: &FILLING, devices: &wished, subjects: &subjects };
    let mut gate = access::gate(&identity)?;
    let admission = access::enter(&mut gate, &identity, &wish)?;
    gate.commit(&admission, trust::now()?).map_err(|e| access::failure(&e))?;
    let available = Host::discover(&roots()).memory_available_bytes;
    let held = memory_truth(&stages, available).map_err(|e| Failure::new(Code::Device, models::causes(&e)));
    gate.leave(admission, trust::now()?, &mut access::recorder(&identity)).map_err(|e| access::failure(&e))?;
    let held = held?;
    ui.result(&held, || text(&held))
}

fn text(held: &[Held]) -> String {
    let mut rows = vec![["device", "bytes", "pieces"].map(str::to_owned).to_vec()];
    let row = |held: &Held| vec![held.device.clone(), held.bytes.0.to_string(), held.pieces.to_string()];
    rows.extend(held.iter().map(row));
    format!("{}\n  all of it was there at once, written and read back\n", table(&rows, &[1, 2]))
}
