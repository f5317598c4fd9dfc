//! Measures devices with a model's real layers: step times, hand-over, contention, memory bandwidth.
//!
//! Everything is measured in place. A pass goes through all layers of the model, so that each layer finds the caches as
//! cold as it will find them in service; hand-over is what a pipeline of two devices takes beyond the work of its
//! stages; contention is the time of a pass while another device runs passes too. Shapes are visited in turn, round
//! after round, so that a disturbance spoils one sample of each instead of every sample of one.

mod contention;
mod disturbance;
mod kept;
mod memory;
mod now;
pub mod offload;
mod profile;
mod samples;
mod shapes;
mod step;
mod tables;
mod truth;
mod turns;
mod witness;

pub use now::conditions;
pub use step::{Step, StepError, StepSample, power_step};
pub use truth::{Held, TruthError, memory_truth};
pub use witness::{Witnessed, witness};

use crate::backend::peers::PeerError;
use crate::backend::{DeviceError, Hardware};
use crate::cpu::neighbours::settle;
use crate::engine::pipeline::StartError;
use crate::engine::weights::packed_bytes;
use crate::engine::{Card, CpuDevice, Kernels};
use crate::model::Geometry;
use crate::model::gguf::Gguf;
use isotherm_core::cost::{Conditions, OperatorProfile, TableError};
use isotherm_core::device::{Device, DeviceKind, Support};
use isotherm_core::figure::Figure;
use isotherm_core::graph::{CoRun, Link};
use isotherm_core::model::Model;
use isotherm_core::units::{Bytes, Seconds};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::mpsc::channel;
use turns::{Turn, Turns};

/// What to measure.
pub struct Request<'a> {
    /// The model's file.
    pub gguf: &'a Gguf,
    /// Its geometry.
    pub geometry: &'a Geometry,
    /// Its description, which names the profile.
    pub model: &'a Model,
    /// The devices.
    pub devices: &'a [CpuDevice],
    /// How kernels compute.
    pub kernels: Kernels,
    /// The host's name.
    pub host: &'a str,
    /// Memory that plans may use on this host, shared by all its CPU devices.
    pub memory: Option<Figure<Bytes>>,
    /// Time to spend, all devices together. A first round is always measured.
    pub budget: Seconds,
    /// The time now, RFC 3339, for the record.
    pub when: &'a str,
    /// Driver, clock and temperature of a device at the moment, as far as they are told.
    pub conditions: &'a (dyn Fn(&CpuDevice) -> Conditions + Sync),
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Probed {
    /// The devices, with profiles, in the order asked for.
    pub devices: Vec<Device>,
    /// Hand-over between devices, and to and from the coordinator.
    pub links: Vec<Link>,
    /// Devices that slow one another.
    pub co_run: Vec<CoRun>,
    /// The junction where requests come in.
    pub coordinator: String,
}

/// What is happening, and how much of it is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress<'a> {
    /// What is measured now.
    pub what: &'a str,
    /// Share of the whole probe that is done.
    pub done: f64,
}

/// Why a host was not measured.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no device.
    #[error("there is no device to measure; name at least one")]
    NoDevices,
    /// A device has no cores.
    #[error("device {0:?} has no cores; give it at least one")]
    NoCores(String),
    /// A stage did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A card does not answer any more.
    #[error("device {device:?} is not listed any more")]
    Card {
        /// The device.
        device: String,
        /// What its interface says.
        #[source]
        source: DeviceError,
    },
    /// A card failed while it was measured.
    #[error("device {device:?} failed while it was measured")]
    Failed {
        /// The device.
        device: String,
        /// What it said.
        #[source]
        source: Box<DeviceError>,
    },
    /// Two ways of computing the same disagree: the device or its kernels are faulty.
    #[error(
        "the self-test of device {device:?} failed: logits differ by {found:.3e} from the portable kernels', at most \
         {limit:.3e} is right; do not use this device"
    )]
    SelfTest {
        /// The device.
        device: String,
        /// Largest difference of a logit.
        found: f64,
        /// What was allowed.
        limit: f64,
    },
    /// A way between two cards does not carry what it is given.
    #[error("the way between two cards was refused")]
    Peer(#[from] PeerError),
    /// The operating system gave no thread.
    #[error("a measuring thread could not be started")]
    Thread(#[source] std::io::Error),
    /// What was measured makes no cost table.
    #[error("the measurements make no cost table")]
    Table(#[from] TableError),
}

/// Name of the junction where requests come in: the thread that drives the stages.
const COORDINATOR: &str = "driver";

/// Share of the usable memory that devices measured in turns may take together.
const MEMORY_SHARE: f64 = 0.5;
/// What a device under measurement takes, over the weights of the whole model: a quarter and a half of them are there
/// again.
const WEIGHTS_TIMES: f64 = 2.0;

/// Measures devices. Each is measured alone, in turns of moments with the others; then pairs are measured together.
///
/// # Errors
/// When there is nothing to measure, a stage does not start, or a device fails its self-test.
pub fn probe(request: &Request<'_>, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Probed, ProbeError> {
    if request.devices.is_empty() {
        return Err(ProbeError::NoDevices);
    }
    if let Some(device) = request.devices.iter().find(|device| device.is_empty()) {
        return Err(ProbeError::NoCores(device.name.clone()));
    }
    let cores: BTreeSet<usize> = request.devices.iter().flat_map(|device| device.cores.iter().copied()).collect();
    settle(&Vec::from_iter(cores));
    let count = request.devices.len() as f64;
    // Pairs take about as long as one device.
    let share = Seconds::of(request.budget.value() / (count + 1.0));
    let mut devices = Vec::new();
    for group in groups(request) {
        let measured = in_turns(request, group, share, progress)?;
        devices.extend(measured);
    }
    progress(Progress { what: "hand-over and contention", done: count / (count + 1.0) });
    let (links, co_run) = contention::pairs(request, &devices, share)?;
    Ok(Probed { devices, links, co_run, coordinator: COORDINATOR.to_owned() })
}

/// Devices that are measured in turns: as many, in order, as memory has room for at the same time.
fn groups(request: &Request<'_>) -> Vec<Range<usize>> {
    let (layers, head) = packed_bytes(request.gguf, request.geometry, &(0..request.geometry.layers));
    let each = (layers.iter().sum::<usize>() + head) as f64 * WEIGHTS_TIMES;
    let room = request.memory.as_ref().map_or(f64::INFINITY, |memory| memory.value.0 as f64 * MEMORY_SHARE);
    let most = ((room / each.max(1.0)) as usize).clamp(1, request.devices.len());
    (0..request.devices.len()).step_by(most).map(|from| from..(from + most).min(request.devices.len())).collect()
}

/// Measures some of the devices, each on a thread of its own: measuring binds the thread to the device's first core.
fn in_turns(
    request: &Request<'_>,
    group: Range<usize>,
    share: Seconds,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<Device>, ProbeError> {
    let turns = Turns::of(group.len());
    let mut done: Vec<f64> = vec![0.0; group.len()];
    std::thread::scope(|scope| {
        let (tell, told) = channel();
        let mut threads = Vec::new();
        for (number, device) in request.devices[group.clone()].iter().enumerate() {
            // Should one not start, those that did end all the same: a turn is theirs once whoever has it ends.
            let (turns, tell) = (&turns, tell.clone());
            let turn = std::thread::Builder::new().name("isotherm-probe".to_owned());
            let thread = turn.spawn_scoped(scope, move || {
                let mut turn = turns.first(number, tell);
                measure(request, device, share, &mut turn).inspect_err(|_| turn.give_up())
            });
            threads.push(thread.map_err(|error| {
                turns.absent(number);
                ProbeError::Thread(error)
            }));
        }
        drop(tell);
        for (number, share) in told {
            done[number] = share;
            let all = (group.start as f64 + done.iter().sum::<f64>()) / (request.devices.len() as f64 + 1.0);
            progress(Progress { what: &request.devices[group.start + number].name, done: all });
        }
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Device, ProbeError>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(|thread| thread.and_then(join)).collect()
    })
}

/// One device, on the calling thread.
fn measure(
    request: &Request<'_>,
    device: &CpuDevice,
    share: Seconds,
    turn: &mut Turn<'_>,
) -> Result<Device, ProbeError> {
    let conditions = || (request.conditions)(device);
    let profile = profile::measure(request, device, share, &conditions, turn)?;
    if let Some(card) = &device.card {
        return card_of(request, device, card, profile);
    }
    let bandwidth = memory::read_bandwidth(&device.cores, request.when)?;
    let class = format!("{}-core", device.cores.len());
    Ok(Device {
        class,
        backend: "cpu".to_owned(),
        support: Support::Supported,
        slowed: device.slowdown(),
        cores: device.cores.iter().filter_map(|&core| u32::try_from(core).ok()).collect(),
        memory_bytes: request.memory.clone(),
        memory_pool: Some(format!("{}-ram", request.host)),
        memory_bandwidth_bytes_per_second: bandwidth,
        profiles: vec![profile],
        formats: vec![request.model.quantisation.clone()],
        ..Device::named(&device.name, request.host, DeviceKind::Cpu)
    })
}

/// A card with its profile: what its interface says of it, and no figure that it does not say.
fn card_of(
    request: &Request<'_>,
    device: &CpuDevice,
    card: &Card,
    profile: OperatorProfile,
) -> Result<Device, ProbeError> {
    let infos = card.platform.devices().map_err(|source| ProbeError::Card { device: device.name.clone(), source })?;
    let Some(info) = infos.into_iter().find(|info| info.index == card.index) else {
        let source = DeviceError::NoSuchDevice { backend: "", wanted: card.index, found: 0 };
        return Err(ProbeError::Card { device: device.name.clone(), source });
    };
    let own = info
        .memory_bytes
        .map(|bytes| Figure { when: Some(request.when.to_owned()), ..Figure::declared(Bytes(bytes), "the driver") });
    // What computes on the processor draws from the host's memory.
    let shared = !matches!(info.hardware, Hardware::Discrete | Hardware::Virtual);
    Ok(Device {
        class: format!("{} {}", info.name, info.interface),
        backend: info.backend.to_owned(),
        // The model's operations have passed on this very device. The whole suite has not: that is what `make
        // gpu-check` runs, and nothing that ran on a processor speaks for a card.
        support: if info.hardware.is_accelerator() { Support::Partial } else { Support::Experimental },
        uuid: info.uuid,
        pci: info.pci,
        driver: info.driver,
        slowed: device.slowdown(),
        memory_bytes: if shared { request.memory.clone() } else { own },
        memory_pool: shared.then(|| format!("{}-ram", request.host)),
        profiles: vec![profile],
        formats: vec![request.model.quantisation.clone()],
        ..Device::named(
            &device.name,
            request.host,
            match info.hardware {
                Hardware::Discrete | Hardware::Virtual => DeviceKind::Gpu,
                Hardware::Integrated => DeviceKind::Unified,
                _ => DeviceKind::Cpu,
            },
        )
    })
}

/// Runs `work` on a new thread and waits for it. A panic there goes on here.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, ProbeError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("isotherm-probe".to_owned())
            .spawn_scoped(scope, work)
            .map_err(ProbeError::Thread)?;
        thread.join().map_or_else(|panic| std::panic::resume_unwind(panic), Ok)
    })
}
