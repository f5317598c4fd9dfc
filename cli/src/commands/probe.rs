//! `isotherm probe`: this host's devices, measured with a model's real layers.

use crate::access::{Guest, Wish};
use crate::args::{ArithmeticName, Probe};
use crate::commands::access::{PAIRING, PROBING, pass};
use crate::failure::{Code, Done, Failure};
use crate::models::{self, LocalModel};
use crate::receipts::Standing;
use crate::ui::Ui;
use crate::{commands::devices, files, registry, trust};
use isotherm_audit::keys::Identity;
use isotherm_audit::log::{EventKind, Severity};
use isotherm_core::artefact::Header;
use isotherm_core::digest::Digest;
use isotherm_core::figure::Figure;
use isotherm_core::graph::{DEVICES_SCHEMA, DevicesFile};
use isotherm_core::units::{Bytes, Seconds};
use isotherm_runtime::backend::routes::{self, Routes};
use isotherm_runtime::engine::{Card, CpuDevice, Kernels};
use isotherm_runtime::host::{Host, Roots, Sensors};
use isotherm_runtime::probe::{Request, conditions, probe};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

mod into;
mod link;
mod offload;
mod plan_memory;
mod thermal;
mod witness;

pub use witness::witnessed;

/// Runs the command.
pub fn run(ui: &Ui, args: &Probe) -> Done {
    if let Some(address) = args.links.respond {
        return link::respond(ui, address, &args.links);
    }
    if !args.links.peer.is_empty() {
        return link::measure(ui, args);
    }
    if args.thermal.thermal || args.thermal.from_log.is_some() {
        return thermal::run(ui, args);
    }
    if let Some(plan) = &args.plan {
        return plan_memory::run(ui, args, plan);
    }
    let model = models::open(ui, &args.model)?;
    let identity = trust::identity(ui)?;
    let (backends, arithmetic) = (args.backends.as_slice(), args.arithmetic);
    let (split, logical, offload) = (args.split, args.logical, args.offload.as_deref());
    let wanted = Wanted { split, backends, logical, slow: &args.slow, arithmetic, offload };
    let guest = Guest::open(&identity, &args.guest)?;
    let (file, _) = measure(ui, &identity, guest.as_ref(), &model, &wanted, args.budget, &args.output)?;
    files::write_json(&registry::last_devices()?, &file)?;
    ui.note(format!("wrote {}", args.output.display()));
    ui.result(&file, || devices::describe(&file))
}

/// Measures this host, writes the devices and logs it; gives them and the digest of the written file.
pub fn measure(
    ui: &Ui,
    identity: &Identity,
    guest: Option<&Guest>,
    model: &LocalModel,
    wanted: &Wanted<'_>,
    budget: Seconds,
    output: &Path,
) -> Result<(DevicesFile, Digest), Failure> {
    let devices = wanted.devices()?;
    wanted.record(identity)?;
    let names: Vec<(&str, u64)> = devices.iter().map(|device| (device.name.as_str(), 0)).collect();
    let cards = devices.iter().filter(|device| device.card.is_some()).count();
    let pairing: &[isotherm_access::Permission] = if cards > 1 { &PAIRING } else { &[] };
    let permissions = [&PROBING[..], pairing].concat();
    pass(identity, &Wish { guest, permissions: &permissions, devices: &names, subjects: &[] })?;
    let host = Host::discover(&Roots::default());
    let name = trust::host_id();
    let now = trust::now()?.to_string();
    let kernels = Kernels { arithmetic: wanted.arithmetic.arithmetic(), ..Kernels::detect() };
    let request = Request {
        gguf: &model.gguf,
        geometry: &model.geometry,
        model: &model.model,
        devices: &devices,
        kernels,
        host: &name,
        memory: memory(&host, &now),
        budget,
        when: &now,
        conditions: &|device| conditions(&Roots::default(), device, kernels),
    };
    let mut bar = ui.bar(1000, "measuring");
    let mut probed = probe(&request, &mut |progress| bar.at((progress.done * 1000.0) as u64, 1000))
        .map_err(|e| Failure::new(Code::Device, format!("failed to measure this host: {}", models::causes(&e))))?;
    bar.finish();
    if probed.devices.iter().any(|device| device.backend != "cpu") {
        let routes = Routes::discover(routes::platforms(), &[]);
        let standing = Standing::of(&routes);
        for device in &mut probed.devices {
            device.support = standing.of_measured(&routes, device);
        }
    }
    if let Some(folder) = wanted.offload {
        offload::measure(&mut probed.devices, &devices, model, folder, (memory(&host, &now), &now))?;
    }
    let file = DevicesFile {
        header: Header::new(DEVICES_SCHEMA, model.model.digest.into_iter().collect()),
        host: facts(&host),
        devices: probed.devices,
        junctions: vec![probed.coordinator.clone()],
        links: probed.links,
        groups: Vec::new(),
        co_run: probed.co_run,
        coordinator: Some(probed.coordinator),
    };
    let digest = files::write_json(output, &file)?;
    trust::record(identity, EventKind::Probe, Severity::Info, trust::Note::default().about("devices", digest))?;
    Ok((file, digest))
}

/// Which devices to measure.
pub struct Wanted<'a> {
    /// CPU devices beside `cpu`.
    pub split: u32,
    /// Backends, preferred first; empty for the processor and every card.
    pub backends: &'a [String],
    /// In what arithmetic layers are timed, and later run.
    pub arithmetic: ArithmeticName,
    /// Logical devices for each of another backend.
    pub logical: u32,
    /// Devices to slow on purpose, and by which factor.
    pub slow: &'a [(String, f64)],
    /// A folder from which layers may be brought.
    pub offload: Option<&'a Path>,
}

impl Wanted<'_> {
    /// Logs that the user turned the order of backends round, or left some out.
    fn record(&self, identity: &Identity) -> Result<(), Failure> {
        if self.backends.is_empty() {
            return Ok(());
        }
        let usual: Vec<&str> = routes::priority(std::env::consts::OS).iter().copied().chain(["cpu"]).collect();
        let note = trust::Note::default()
            .with("backends_asked_for", self.backends.join(",").as_str())
            .with("backends_usual", usual.join(",").as_str());
        trust::record(identity, EventKind::SystemBackendInitialized, Severity::Info, note).map(|_| ())
    }

    fn devices(&self) -> Result<Vec<CpuDevice>, Failure> {
        for (option, count) in [("--split", self.split), ("--logical", self.logical)] {
            if count > 64 {
                return Err(Failure::new(Code::Usage, format!("{option} is {count}; present at most 64 devices")));
            }
        }
        let known = || std::iter::once("cpu").chain(routes::platforms().iter().map(|platform| platform.name()));
        if let Some(name) = self.backends.iter().find(|name| !known().any(|known| known == name.as_str())) {
            let known = known().collect::<Vec<_>>().join(", ");
            return Err(Failure::new(Code::Usage, format!("--backends names {name:?}; known here are {known}")));
        }
        let named: Vec<&str> = self.backends.iter().map(String::as_str).collect();
        let mut devices = Vec::new();
        if named.is_empty() || named.contains(&"cpu") {
            devices.extend(self.processor());
        }
        let others: Vec<&str> = named.iter().copied().filter(|name| *name != "cpu").collect();
        if named.is_empty() || !others.is_empty() {
            devices.extend(self.cards(&others)?);
        }
        for (name, factor) in self.slow {
            let known = devices.iter().map(|device| device.name.clone()).collect::<Vec<_>>().join(", ");
            let Some(device) = devices.iter_mut().find(|device| device.name == *name) else {
                return Err(Failure::new(Code::Usage, format!("--slow names {name:?}; known here are {known}")));
            };
            *device = device.clone().slowed(Some(*factor));
        }
        Ok(devices)
    }

    /// All of this host's cores as `cpu`, and beside it the same cores as `split` devices.
    fn processor(&self) -> Vec<CpuDevice> {
        let cores = CpuDevice::host_cores();
        let cores = if cores.is_empty() { vec![0] } else { cores };
        let mut devices = vec![CpuDevice::new("cpu", cores)];
        devices.extend(CpuDevice::split_host(self.split as usize));
        devices
    }

    /// Devices of other backends. A software rasteriser is the processor again, and slower: only where asked for.
    fn cards(&self, named: &[&str]) -> Result<Vec<CpuDevice>, Failure> {
        let found = Routes::discover(routes::platforms(), named);
        if let Some((_, why)) = found.absent.first().filter(|_| !named.is_empty()) {
            return Err(Failure::new(Code::Device, why.to_string()));
        }
        let mut devices = Vec::new();
        for device in &found.devices {
            let route = &device.routes[0];
            if named.is_empty() && !route.info.hardware.is_accelerator() {
                continue;
            }
            let card = Card { platform: Arc::clone(&route.platform), index: route.info.index };
            if self.logical <= 1 {
                devices.push(CpuDevice::of_card(&device.name, card));
            } else {
                let name = |i| format!("{}-{i}", device.name);
                devices.extend((0..self.logical).map(|i| CpuDevice::of_card(name(i), card.clone())));
            }
        }
        Ok(devices)
    }
}

/// Memory that plans may use: what the kernel says is available, less than any limit on this process.
fn memory(host: &Host, now: &str) -> Option<Figure<Bytes>> {
    let available = host.memory_available_bytes?;
    let usable = host.memory_limit_bytes.map_or(available, |limit| Bytes(available.0.min(limit.0)));
    Some(Figure::measured(usable, "MemAvailable of the kernel", 1, 0.0, Some(now.to_owned())))
}

/// Facts of the host, for people. What is unknown is left out, but for sensors, whose absence is a fact.
fn facts(host: &Host) -> BTreeMap<String, String> {
    let sensors = Sensors::discover(&Roots::default());
    let found = |count: usize| if count == 0 { "no sensor".to_owned() } else { count.to_string() };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    let known = [
        ("processor", host.cpu_model.clone()),
        ("cores", host.cores.or(host.cpus).map(|count| count.to_string())),
        ("memory", host.memory_total_bytes.map(|bytes| bytes.to_string())),
        ("instructions", Some(format!("{:?}", Kernels::detect().isa).to_lowercase())),
        ("kernel", kernel.map(|release| release.trim().to_owned())),
        ("temperature sensors", Some(found(sensors.temperatures.len()))),
        ("energy counters", Some(found(sensors.energies.len()))),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}
