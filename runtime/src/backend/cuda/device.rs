//! One opened device.

use super::driver::{Driver, Function, Launch, Pinned, Recorded};
use super::kernels::{HEAD_SIZE_MAX, Module, TENSOR_CAPABILITY};
use super::plan::{self, Planner};
use super::{CudaPlatform, compile, failed, planes};
use crate::backend::contract::{
    Backend, BufferId, Counters, DeviceInfo, HostBytes, Limits, Matrix, MatrixId, MemoryInfo, PeerRoute, Readings,
};
use crate::backend::error::DeviceError;
use crate::backend::op::{Op, View};
use crate::cpu::Arithmetic;
use crate::model::format::BlockFormat;
use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaEvent, DriverError};
use std::any::Any;
use std::collections::BTreeMap;
use std::time::Duration;

/// Parts of the pinned memory that copies take turns with.
const STAGES: usize = 4;
/// Bytes of each part.
const STAGE_BYTES: usize = 1 << 20;
/// Steps whose launches are kept; more where layers are brought, for a pass then has a step for each of them.
const STEPS_MAX: [usize; 2] = [32, 256];
/// Bytes of the copy that proves a way between two devices.
const PROOF_BYTES: usize = 4096;

/// Scratch memory by use. Operations of a device run in order, so that each use needs one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    Normed,
    Rounded,
    Steps,
    Totals,
    Up,
    Segments,
    Shares,
    Finished,
}

/// A step that was asked for before.
struct Step {
    ops: Vec<Op>,
    launches: Vec<Launch>,
    recorded: Recording,
}

/// What orders the content of a matrix that changes.
struct Refilled {
    /// It is there; none once somebody has waited for it.
    filled: Option<CudaEvent>,
    /// The launch that used it last is done; none before there is one.
    used: Option<CudaEvent>,
}

enum Recording {
    NotYet,
    Done(Recorded),
    /// The driver cannot: launches are started one by one.
    Cannot,
}

/// See [`super`].
pub struct CudaDevice {
    info: DeviceInfo,
    limits: Limits,
    platform: CudaPlatform,
    capability: u32,
    label: String,
    driver: Driver,
    buffers: BTreeMap<BufferId, u64>,
    matrices: BTreeMap<MatrixId, u64>,
    /// Matrices in whose place others were put.
    refilled: BTreeMap<MatrixId, Refilled>,
    scratch: BTreeMap<Slot, (u64, u64)>,
    /// How often scratch memory was replaced by a larger piece.
    grown: u64,
    functions: BTreeMap<String, Function>,
    modules: Vec<Module>,
    stage: Pinned,
    /// Copies that still read a part of `stage`.
    busy: [Option<CudaEvent>; STAGES],
    next_stage: usize,
    /// The most recently used one last.
    steps: Vec<Step>,
    events: BTreeMap<u64, CudaEvent>,
    counters: Counters,
    /// Ways to other devices that were tried, by their identifier.
    peers: BTreeMap<String, bool>,
    lost: bool,
}

type Answer<T> = Result<T, DeviceError>;

impl CudaDevice {
    pub(super) fn open(info: DeviceInfo, capability: u32, platform: CudaPlatform) -> Answer<Self> {
        let label = format!("{} device {} ({})", info.backend, info.index, info.name);
        let say = |error: DriverError| failed(&label, "opening it", error);
        let driver = Driver::open(info.index).map_err(say)?;
        let stage = driver.pin(STAGES * STAGE_BYTES).map_err(say)?;
        let memory = info.memory_bytes.unwrap_or(0);
        let limits = Limits {
            buffer_bytes_max: memory,
            operand_bytes_max: memory,
            head_size_max: HEAD_SIZE_MAX,
            arithmetics: vec![Arithmetic::F32, Arithmetic::Int8],
            formats: BlockFormat::ALL.to_vec(),
        };
        let mut device = Self {
            info,
            limits,
            platform,
            capability,
            label,
            driver,
            buffers: BTreeMap::new(),
            matrices: BTreeMap::new(),
            refilled: BTreeMap::new(),
            scratch: BTreeMap::new(),
            grown: 0,
            functions: BTreeMap::new(),
            modules: Vec::new(),
            stage,
            busy: [const { None }; STAGES],
            next_stage: 0,
            steps: Vec::new(),
            events: BTreeMap::new(),
            counters: Counters::default(),
            peers: BTreeMap::new(),
            lost: false,
        };
        // Without its kernels a device is of no use, so whoever opens it learns at once.
        device.need(Module::Common)?;
        Ok(device)
    }

    fn say(&self, during: &'static str) -> impl Fn(DriverError) -> DeviceError + use<> {
        let label = self.label.clone();
        move |error| failed(&label, during, error)
    }

    fn alive(&self, during: &'static str) -> Answer<()> {
        if self.lost {
            return Err(DeviceError::Lost { device: self.label.clone(), during, why: "as asked for".to_owned() });
        }
        Ok(())
    }

    /// Compiles and loads a module, once.
    fn need(&mut self, module: Module) -> Answer<()> {
        if self.modules.contains(&module) {
            return Ok(());
        }
        let ptx = compile::ptx(module, self.capability, self.platform.cache.as_deref())
            .map_err(|error| DeviceError::NoDriver { backend: "cuda", why: error.to_string() })?;
        let functions = self.driver.load(module, &ptx, self.capability).map_err(|error| {
            compile::forget(module, self.capability, self.platform.cache.as_deref());
            failed(&self.label, "loading kernels", error)
        })?;
        let names = module.kernels(self.capability).into_iter().map(|kernel| kernel.name);
        self.functions.extend(names.zip(functions));
        self.modules.push(module);
        Ok(())
    }

    pub(super) fn function(&mut self, module: Module, name: &str) -> Answer<Function> {
        self.need(module)?;
        Ok(self.functions.get(name).expect("a module has the kernels of its table").clone())
    }

    pub(super) fn uses_tensor_cores(&self) -> bool {
        self.platform.tensor_cores && self.capability >= TENSOR_CAPABILITY
    }

    pub(super) fn address(&self, view: View) -> u64 {
        self.buffers[&view.buffer.id()] + view.offset
    }

    pub(super) fn planes(&self, id: MatrixId) -> u64 {
        self.matrices[&id]
    }

    /// Scratch memory of at least `bytes` bytes, zeros when it is fresh.
    pub(super) fn scratch(&mut self, slot: Slot, bytes: u64) -> Answer<u64> {
        if let Some(&(address, size)) = self.scratch.get(&slot)
            && size >= bytes
        {
            return Ok(address);
        }
        // Half as much again, so that growing batches do not allocate each time.
        let size = (bytes + bytes / 2).next_multiple_of(256).max(256);
        let address = self.obtain(size, "allocating scratch memory")?;
        self.driver.clear(address, usize::try_from(size).unwrap_or(usize::MAX)).map_err(self.say("clearing memory"))?;
        if let Some((before, _)) = self.scratch.insert(slot, (address, size)) {
            // Whoever named the smaller piece has to be planned again.
            self.grown += 1;
            self.steps.clear();
            self.driver.free(before).map_err(self.say("releasing scratch memory"))?;
        }
        Ok(address)
    }

    fn obtain(&mut self, bytes: u64, during: &'static str) -> Answer<u64> {
        match self.driver.allocate(bytes) {
            Ok(address) => Ok(address),
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(DeviceError::OutOfMemory {
                device: self.label.clone(),
                wanted: bytes,
                available: self.driver.memory().ok().map(|(free, _)| free),
            }),
            Err(error) => Err(failed(&self.label, during, error)),
        }
    }

    /// Launches operations, as planned before where they were launched before.
    fn launch_kept(&mut self, ops: &[Op]) -> Answer<()> {
        let key: Vec<Op> = ops.iter().map(plan::key).collect();
        if let Some(at) = self.steps.iter().position(|step| step.ops == key) {
            let step = self.steps.remove(at);
            self.steps.push(step);
            return self.start(self.steps.len() - 1);
        }
        // A later operation may need more scratch memory than an earlier one has named; the second time there is
        // enough.
        let launches = loop {
            let before = self.grown;
            let mut planner = Planner { device: self, launches: Vec::new() };
            for op in &key {
                planner.add(op)?;
            }
            let launches = planner.launches;
            if self.grown == before {
                break launches;
            }
        };
        self.start_all(&launches)?;
        if self.steps.len() >= STEPS_MAX[usize::from(!self.refilled.is_empty())] {
            self.steps.remove(0);
        }
        self.steps.push(Step { ops: key, launches, recorded: Recording::NotYet });
        Ok(())
    }

    /// A part of the pinned memory that no copy uses any more.
    fn stage(&mut self, during: &'static str) -> Answer<usize> {
        let stage = self.next_stage;
        self.next_stage = (stage + 1) % STAGES;
        if let Some(event) = self.busy[stage].take() {
            event.synchronize().map_err(self.say(during))?;
        }
        Ok(stage)
    }

    fn send(&mut self, to: u64, bytes: &[u8]) -> Answer<()> {
        const DURING: &str = "copying to it";
        for (i, piece) in bytes.chunks(STAGE_BYTES).enumerate() {
            let stage = self.stage(DURING)?;
            let range = stage * STAGE_BYTES..stage * STAGE_BYTES + piece.len();
            self.stage.bytes_mut()[range.clone()].copy_from_slice(piece);
            let at = to + (i * STAGE_BYTES) as u64;
            self.driver.copy_in(at, &mut self.stage, range).map_err(self.say(DURING))?;
            self.busy[stage] = Some(self.driver.event(false).map_err(self.say(DURING))?);
        }
        Ok(())
    }

    fn receive(&mut self, from: u64, bytes: &mut [u8]) -> Answer<()> {
        const DURING: &str = "copying from it";
        for (i, piece) in bytes.chunks_mut(STAGE_BYTES).enumerate() {
            let stage = self.stage(DURING)?;
            let range = stage * STAGE_BYTES..stage * STAGE_BYTES + piece.len();
            let at = from + (i * STAGE_BYTES) as u64;
            self.driver.copy_out(at, &mut self.stage, range.clone()).map_err(self.say(DURING))?;
            self.driver.synchronise().map_err(self.say(DURING))?;
            piece.copy_from_slice(&self.stage.bytes_mut()[range]);
        }
        Ok(())
    }

    /// Whether bytes really arrive at a device when they are sent there directly: the driver's word and a copy that is
    /// read back.
    fn proven(&mut self, peer: &mut Self) -> Answer<bool> {
        let name = peer.info.uuid.clone().unwrap_or_default();
        if let Some(&known) = self.peers.get(&name) {
            return Ok(known);
        }
        let reaches = self.driver.reach(&peer.driver).map_err(self.say("asking for a way to a peer"))?;
        let works = reaches && {
            let pattern: Vec<u8> = (0..PROOF_BYTES).map(|i| (i * 37 + i / 251) as u8).collect();
            let from = self.obtain(PROOF_BYTES as u64, "proving a way to a peer")?;
            let to = peer.obtain(PROOF_BYTES as u64, "proving a way from a peer")?;
            self.send(from, &pattern)?;
            self.driver
                .copy_to_peer(from, &peer.driver, to, PROOF_BYTES)
                .map_err(self.say("proving a way to a peer"))?;
            let mut arrived = vec![0; PROOF_BYTES];
            peer.receive(to, &mut arrived)?;
            self.driver.free(from).map_err(self.say("proving a way to a peer"))?;
            peer.driver.free(to).map_err(peer.say("proving a way from a peer"))?;
            arrived == pattern
        };
        self.peers.insert(name, works);
        Ok(works)
    }

    /// Starts a step whose launches are known, as one where it was asked for before.
    fn start(&mut self, at: usize) -> Answer<()> {
        let step = &mut self.steps[at];
        if matches!(step.recorded, Recording::NotYet) {
            step.recorded = match self.driver.record(&step.launches) {
                Some(recorded) => Recording::Done(recorded),
                None => Recording::Cannot,
            };
        }
        let say = |error| failed(&self.label, "launching", error);
        self.counters.dispatches += step.launches.len() as u64;
        // A stream takes kernels one by one or a whole graph; a batch counts once either way, and its kernels are
        // counted above.
        self.counters.submissions += 1;
        if let Recording::Done(recorded) = &step.recorded {
            return self.driver.replay(recorded).map_err(say);
        }
        step.launches.iter().try_for_each(|launch| self.driver.launch(launch)).map_err(say)
    }

    fn start_all(&mut self, launches: &[Launch]) -> Answer<()> {
        self.counters.dispatches += launches.len() as u64;
        self.counters.submissions += 1;
        launches.iter().try_for_each(|launch| self.driver.launch(launch)).map_err(self.say("launching"))
    }

    fn event(&self, id: u64) -> &CudaEvent {
        &self.events[&id]
    }
}

impl Backend for CudaDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn allocate(&mut self, id: BufferId, bytes: u64) -> Answer<()> {
        self.alive("allocating")?;
        let address = self.obtain(bytes, "allocating")?;
        self.buffers.insert(id, address);
        Ok(())
    }

    fn free(&mut self, id: BufferId) -> Answer<()> {
        let Some(address) = self.buffers.remove(&id) else { return Ok(()) };
        // Kept steps may name the address, which may soon be another buffer's.
        self.steps.clear();
        self.driver.free(address).map_err(self.say("releasing memory"))
    }

    fn load(&mut self, matrix: Matrix, packed: &[u8]) -> Answer<u64> {
        self.alive("loading weights")?;
        self.need(Module::Of(matrix.format()))?;
        let bytes = packed.len() as u64;
        let address = self.obtain(bytes, "loading weights")?;
        self.matrices.insert(matrix.id(), address);
        planes::lay_out(matrix.format(), packed, |at, piece| self.send(address + at, piece))?;
        Ok(bytes)
    }

    /// In memory that copies use directly; where the system gives no more of that, in any.
    fn laid_out(&self, matrix: Matrix, packed: &[u8]) -> Box<dyn HostBytes> {
        let fill = |laid: &mut [u8]| {
            let put = |at: u64, piece: &[u8]| {
                laid[at as usize..][..piece.len()].copy_from_slice(piece);
                Ok::<(), std::convert::Infallible>(())
            };
            match planes::lay_out(matrix.format(), packed, put) {
                Ok(()) => {}
            }
        };
        if let Ok(mut pinned) = self.driver.pin(packed.len()) {
            fill(pinned.bytes_mut());
            return Box::new(pinned);
        }
        let mut laid = vec![0; packed.len()];
        fill(&mut laid);
        Box::new(laid)
    }

    fn refill(&mut self, id: MatrixId, laid_out: &dyn HostBytes) -> Answer<()> {
        const DURING: &str = "refilling weights";
        self.alive(DURING)?;
        // The launch that used it last, or whatever was launched where none is known.
        let used = match self.refilled.remove(&id).and_then(|refilled| refilled.used) {
            Some(used) => used,
            None => self.driver.event(false).map_err(self.say(DURING))?,
        };
        self.driver.hold_aside(&used).map_err(self.say(DURING))?;
        let address = self.matrices[&id];
        if let Some(pinned) = (laid_out as &dyn Any).downcast_ref::<Pinned>() {
            self.driver.copy_all_aside(address, pinned).map_err(self.say(DURING))?;
        } else {
            for (i, piece) in laid_out.bytes().chunks(STAGE_BYTES).enumerate() {
                let stage = self.stage(DURING)?;
                let range = stage * STAGE_BYTES..stage * STAGE_BYTES + piece.len();
                self.stage.bytes_mut()[range.clone()].copy_from_slice(piece);
                let to = address + (i * STAGE_BYTES) as u64;
                let copied = self.driver.copy_in_aside(to, &mut self.stage, range).map_err(self.say(DURING))?;
                self.busy[stage] = Some(copied);
            }
        }
        let filled = self.driver.mark_aside().map_err(self.say(DURING))?;
        self.refilled.insert(id, Refilled { filled: Some(filled), used: None });
        Ok(())
    }

    fn unload(&mut self, id: MatrixId) -> Answer<()> {
        let Some(address) = self.matrices.remove(&id) else { return Ok(()) };
        self.refilled.remove(&id);
        self.steps.clear();
        self.driver.free(address).map_err(self.say("releasing weights"))
    }

    fn copy_in(&mut self, to: BufferId, offset: u64, bytes: &[u8]) -> Answer<()> {
        self.alive("copying to it")?;
        self.send(self.buffers[&to] + offset, bytes)
    }

    fn copy_out(&mut self, from: BufferId, offset: u64, bytes: &mut [u8]) -> Answer<()> {
        self.alive("copying from it")?;
        self.receive(self.buffers[&from] + offset, bytes)
    }

    fn copy_within(&mut self, from: (BufferId, u64), to: (BufferId, u64), bytes: u64) -> Answer<()> {
        self.alive("copying inside it")?;
        let (source, target) = (self.buffers[&from.0] + from.1, self.buffers[&to.0] + to.1);
        let bytes = usize::try_from(bytes).expect("a range of memory fits");
        self.driver.copy_within(source, target, bytes).map_err(self.say("copying inside it"))
    }

    fn copy_to_peer(
        &mut self,
        from: (BufferId, u64),
        peer: &mut dyn Backend,
        to: (BufferId, u64),
        bytes: u64,
    ) -> Answer<Option<PeerRoute>> {
        self.alive("copying to a peer")?;
        let Some(peer) = peer.as_any().downcast_mut::<Self>() else { return Ok(None) };
        peer.alive("copying from a peer")?;
        if !self.proven(peer)? {
            return Ok(None);
        }
        let (source, target) = (self.buffers[&from.0] + from.1, peer.buffers[&to.0] + to.1);
        let bytes = usize::try_from(bytes).expect("a range of memory fits");
        self.driver.copy_to_peer(source, &peer.driver, target, bytes).map_err(self.say("copying to a peer"))?;
        Ok(Some(PeerRoute::Direct))
    }

    fn launch(&mut self, ops: &[Op]) -> Answer<()> {
        self.alive("launching")?;
        if self.refilled.is_empty() {
            return self.launch_kept(ops);
        }
        const DURING: &str = "waiting for weights";
        let ids: Vec<MatrixId> = ops.iter().flat_map(Op::matrices).map(|matrix| matrix.id()).collect();
        let ids: Vec<MatrixId> = ids.into_iter().filter(|id| self.refilled.contains_key(id)).collect();
        for id in &ids {
            let filled = self.refilled.get_mut(id).and_then(|refilled| refilled.filled.take());
            filled.map_or(Ok(()), |filled| self.driver.hold(&filled)).map_err(self.say(DURING))?;
        }
        self.launch_kept(ops)?;
        for id in ids {
            let used = self.driver.event(false).map_err(self.say(DURING))?;
            self.refilled.insert(id, Refilled { filled: None, used: Some(used) });
        }
        Ok(())
    }

    fn synchronise(&mut self) -> Answer<()> {
        self.alive("waiting")?;
        self.driver.synchronise().map_err(self.say("waiting"))
    }

    fn record(&mut self, id: u64) -> Answer<()> {
        self.alive("marking")?;
        let event = self.driver.event(true).map_err(self.say("marking"))?;
        self.events.insert(id, event);
        Ok(())
    }

    fn is_done(&mut self, id: u64) -> Answer<bool> {
        self.alive("asking for an event")?;
        self.event(id).try_is_complete().map_err(self.say("asking for an event"))
    }

    fn wait(&mut self, id: u64) -> Answer<()> {
        self.alive("waiting")?;
        self.event(id).synchronize().map_err(self.say("waiting"))
    }

    fn elapsed(&mut self, from: u64, to: u64) -> Answer<Option<Duration>> {
        self.alive("timing")?;
        let milliseconds = self.event(from).elapsed_ms(self.event(to)).map_err(self.say("timing"))?;
        Ok(Some(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3)))
    }

    fn forget(&mut self, id: u64) {
        self.events.remove(&id);
    }

    fn memory(&mut self) -> Answer<MemoryInfo> {
        self.alive("asking for its memory")?;
        let (free, total) = self.driver.memory().map_err(self.say("asking for its memory"))?;
        Ok(MemoryInfo { total: Some(total), used: Some(total - free), available: Some(free), reserved: None })
    }

    fn readings(&mut self) -> Answer<Readings> {
        self.alive("reading its sensors")?;
        Ok(Readings::default())
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn lose(&mut self) {
        self.lost = true;
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        // Nothing can be done about a driver that does not take memory back; what it holds ends with the process.
        self.steps.clear();
        let _ = self.driver.synchronise_aside();
        let _ = self.driver.synchronise();
        let scratch = self.scratch.values().map(|(address, _)| address);
        for &address in self.buffers.values().chain(self.matrices.values()).chain(scratch) {
            let _ = self.driver.free(address);
        }
    }
}
