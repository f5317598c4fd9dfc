//! One opened device: its memory, its queue, its loss.

use super::encode::{Arena, Piece, Placed};
use super::pack::{self, Layout};
use super::pipelines::Pipelines;
use super::shader::Shape;
use super::timing::{ALL_SLOTS, Events};
use super::{WgpuOptions, answer};
use crate::backend::contract::{
    Backend, BufferId, Counters, DeviceInfo, Hardware, HostBytes, Limits, Matrix, MatrixId, MemoryInfo, PeerRoute,
    Readings,
};
use crate::backend::error::DeviceError;
use crate::backend::op::Op;
use crate::cpu::Arithmetic;
use crate::model::format::BlockFormat;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wgpu::{
    Adapter, BufferDescriptor, BufferUsages, CommandEncoderDescriptor, Device, DeviceDescriptor, ErrorFilter, Features,
    MapMode, MemoryHints, PollType, Queue, SubmissionIndex,
};

/// Longest wait for anything: a queue that does not end by then is taken for lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes that an arena of weights has at least, where memory allows.
const ARENA_BYTES: u64 = 64 << 20;
/// Least size of the buffer through which the host reads.
const STAGING_BYTES: u64 = 64 << 10;
/// Largest head that the attention shader takes: four numbers for each of its threads.
const HEAD_SIZE_MAX: u32 = 256;

/// What an interface that cannot be waited for cannot do.
const LATER: &str = "answers while they are asked for";

/// What the driver said behind our back.
#[derive(Default)]
pub(super) struct Said {
    lost: AtomicBool,
    words: Mutex<Option<String>>,
}

impl Said {
    fn tell(&self, words: String) {
        let mut slot = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        // The first words are the cause, the others follow from it.
        slot.get_or_insert(words);
    }

    fn words(&self) -> Option<String> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An opened device.
pub(super) struct Wgpu {
    pub(super) info: DeviceInfo,
    pub(super) limits: Limits,
    pub(super) device: Device,
    pub(super) queue: Queue,
    pub(super) shape: Shape,
    pub(super) alignment: u64,
    pub(super) pipelines: Pipelines,
    pub(super) buffers: BTreeMap<BufferId, wgpu::Buffer>,
    pub(super) arenas: Vec<Arena>,
    pub(super) matrices: BTreeMap<MatrixId, Placed>,
    pub(super) groups: BTreeMap<super::encode::GroupKey, wgpu::BindGroup>,
    pub(super) params: Option<wgpu::Buffer>,
    /// What the parameters' buffer holds.
    pub(super) told: Vec<u8>,
    pub(super) scratch: Option<wgpu::Buffer>,
    pub(super) counters: Counters,
    staging: Option<wgpu::Buffer>,
    events: Events,
    said: Arc<Said>,
    budget: Option<u64>,
    used: u64,
    next_arena: u64,
}

impl Wgpu {
    pub(super) fn open(
        adapter: &Adapter,
        info: DeviceInfo,
        wanted: Features,
        options: &WgpuOptions,
    ) -> Result<Self, DeviceError> {
        let label = format!("wgpu device {} ({})", info.index, info.name);
        let found = adapter.get_info();
        let features = adapter.features() & wanted;
        // The adapter's own limits: the default ones are smaller.
        let descriptor = DeviceDescriptor {
            label: None,
            required_features: features,
            required_limits: adapter.limits(),
            memory_hints: MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let later = || DeviceError::NotSupported { device: label.clone(), what: LATER.to_owned() };
        let (device, queue) = answer(adapter.request_device(&descriptor))
            .ok_or_else(later)?
            .map_err(|error| DeviceError::Driver { device: label, during: "opening", why: error.to_string() })?;
        let said = Arc::new(Said::default());
        let (on_error, on_loss) = (Arc::clone(&said), Arc::clone(&said));
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| on_error.tell(error.to_string())));
        device.set_device_lost_callback(move |reason, words| {
            on_loss.tell(format!("{reason:?}: {words}"));
            on_loss.lost.store(true, Ordering::Release);
        });
        let own = device.limits();
        let alignment = u64::from(own.min_storage_buffer_offset_alignment).max(4);
        let binding = own.max_storage_buffer_binding_size.min(options.binding_bytes_max.unwrap_or(u64::MAX)) / 4 * 4;
        let shape = shape(&info, features, (found.subgroup_min_size, found.subgroup_max_size), options);
        let limits = Limits {
            buffer_bytes_max: own.max_buffer_size.min(options.memory_bytes.unwrap_or(u64::MAX)),
            operand_bytes_max: binding.saturating_sub(alignment),
            head_size_max: HEAD_SIZE_MAX,
            arithmetics: vec![Arithmetic::F32, Arithmetic::Int8],
            formats: BlockFormat::ALL.to_vec(),
        };
        Ok(Self {
            pipelines: Pipelines::new(&device, shape, options.cache.as_deref()),
            events: Events::new(&device, &queue),
            info,
            limits,
            device,
            queue,
            shape,
            alignment,
            buffers: BTreeMap::new(),
            arenas: Vec::new(),
            matrices: BTreeMap::new(),
            groups: BTreeMap::new(),
            params: None,
            told: Vec::new(),
            scratch: None,
            counters: Counters::default(),
            staging: None,
            said,
            budget: options.memory_bytes,
            used: 0,
            next_arena: 0,
        })
    }

    fn label(&self) -> String {
        format!("wgpu device {} ({})", self.info.index, self.info.name)
    }

    fn loss(&self, during: &'static str) -> DeviceError {
        let why = self.said.words().unwrap_or_else(|| "the driver gave no reason".to_owned());
        DeviceError::Lost { device: self.label(), during, why }
    }

    /// Errors: the device is lost, or the driver found something wrong with what was asked before.
    pub(super) fn sound(&self, during: &'static str) -> Result<(), DeviceError> {
        if self.said.lost.load(Ordering::Acquire) {
            return Err(self.loss(during));
        }
        match self.said.words() {
            None => Ok(()),
            Some(why) => Err(DeviceError::Driver { device: self.label(), during, why }),
        }
    }

    /// Makes a buffer, or says that memory is short.
    pub(super) fn make(&mut self, bytes: u64, usage: BufferUsages) -> Result<wgpu::Buffer, DeviceError> {
        let short = |available| DeviceError::OutOfMemory { device: self.label(), wanted: bytes, available };
        if let Some(budget) = self.budget
            && self.used + bytes > budget
        {
            return Err(short(Some(budget - self.used.min(budget))));
        }
        let scope = self.device.push_error_scope(ErrorFilter::OutOfMemory);
        let buffer =
            self.device.create_buffer(&BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false });
        if self.heard(answer(scope.pop()))? {
            return Err(short(None));
        }
        self.sound("allocate")?;
        self.used += bytes;
        Ok(buffer)
    }

    /// Whether a scope caught an error.
    fn heard(&self, caught: Option<Option<wgpu::Error>>) -> Result<bool, DeviceError> {
        let later = || DeviceError::NotSupported { device: self.label(), what: LATER.to_owned() };
        caught.ok_or_else(later).map(|error| error.is_some())
    }

    fn drop_buffer(&mut self, buffer: &wgpu::Buffer) {
        self.used -= buffer.size().min(self.used);
    }

    /// Waits for a submission, or for all of them.
    pub(super) fn wait_for(
        &self,
        during: &'static str,
        submission: Option<SubmissionIndex>,
    ) -> Result<(), DeviceError> {
        self.sound(during)?;
        let polled = self.device.poll(PollType::Wait { submission_index: submission, timeout: Some(PATIENCE) });
        self.sound(during)?;
        polled.map(|_| ()).map_err(|error| DeviceError::Lost {
            device: self.label(),
            during,
            why: format!("no end after {} s: {error}", PATIENCE.as_secs()),
        })
    }

    /// Reads words of a buffer: `at` and `bytes` are multiples of 4.
    fn read_words(&mut self, from: &wgpu::Buffer, at: u64, bytes: u64) -> Result<Vec<u8>, DeviceError> {
        let large_enough = self.staging.as_ref().is_some_and(|staging| staging.size() >= bytes);
        if !large_enough {
            // Memory of the host, not of the device: it does not count against the device's budget, and a device that
            // is full can still be read.
            let size = bytes.next_power_of_two().max(STAGING_BYTES);
            let usage = BufferUsages::COPY_DST | BufferUsages::MAP_READ;
            let descriptor = BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            let scope = self.device.push_error_scope(ErrorFilter::OutOfMemory);
            let staging = self.device.create_buffer(&descriptor);
            if self.heard(answer(scope.pop()))? {
                let available = None;
                return Err(DeviceError::OutOfMemory { device: self.label(), wanted: size, available });
            }
            self.staging = Some(staging);
        }
        let staging = self.staging.clone().expect("made above");
        let mut encoder = self.device.create_command_encoder(&CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(from, at, &staging, 0, bytes);
        let submission = self.queue.submit([encoder.finish()]);
        self.counters.submissions += 1;
        let failed = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&failed);
        staging.map_async(MapMode::Read, 0..bytes, move |result| {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        self.wait_for("copy out", Some(submission))?;
        match failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                return Err(DeviceError::Driver { device: self.label(), during: "copy out", why: error.to_string() });
            }
            None => return Err(self.loss("copy out")),
        }
        let bytes = staging.get_mapped_range(0..bytes).map(|view| view.to_vec());
        staging.unmap();
        bytes.map_err(|error| DeviceError::Driver { device: self.label(), during: "copy out", why: error.to_string() })
    }

    fn read_any(&mut self, from: &wgpu::Buffer, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let start = offset / 4 * 4;
        let end = (offset + bytes.len() as u64).next_multiple_of(4);
        let mut done = 0;
        // Large reads go in pieces, so that staging stays small.
        let mut at = start;
        while at < end {
            let piece = (end - at).min(64 << 20);
            let words = self.read_words(from, at, piece)?;
            let skip = (offset + done as u64 - at) as usize;
            let take = (words.len() - skip).min(bytes.len() - done);
            bytes[done..done + take].copy_from_slice(&words[skip..skip + take]);
            done += take;
            at += piece;
        }
        Ok(())
    }

    /// A new arena of at least `bytes` bytes, if memory allows.
    fn arena(&mut self, bytes: u64, most: u64) -> Result<usize, DeviceError> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        let roomy = bytes.max(ARENA_BYTES).min(most);
        let buffer = match self.make(roomy, usage) {
            Err(DeviceError::OutOfMemory { .. }) if roomy > bytes => self.make(bytes, usage)?,
            other => other?,
        };
        self.next_arena += 1;
        self.arenas.push(Arena { id: self.next_arena, buffer, filled: 0, live: 0 });
        Ok(self.arenas.len() - 1)
    }

    fn unload_pieces(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            if let Some(at) = self.arenas.iter().position(|arena| arena.id == piece.arena) {
                self.arenas[at].live -= 1;
                if self.arenas[at].live == 0 {
                    let arena = self.arenas.swap_remove(at);
                    self.drop_buffer(&arena.buffer);
                    self.groups.retain(|key, _| key.arena != Some(arena.id));
                }
            }
        }
    }
}

/// How threads share the work. On a card, sixteen threads per row; in software every wait of a workgroup is dear, and a
/// thread per row needs none. Subgroup operations only where asked for: no card has
/// shown yet which is faster.
fn shape(info: &DeviceInfo, features: Features, sizes: (u32, u32), options: &WgpuOptions) -> Shape {
    let one_size = sizes.0 == sizes.1 && sizes.0.is_power_of_two() && (4..=64).contains(&sizes.0);
    let possible = features.contains(Features::SUBGROUP) && one_size;
    let software = info.hardware == Hardware::Software;
    let subgroups = possible && options.subgroups.unwrap_or(false);
    let lanes = if subgroups { sizes.0 } else { options.lanes.unwrap_or(if software { 1 } else { 16 }) };
    let threads = if software { 16.max(lanes) } else { 64.max(lanes) };
    let halves = features.contains(Features::SHADER_F16) && options.halves.unwrap_or(true);
    Shape { threads, lanes: lanes.clamp(1, 64), subgroups, halves }
}

impl Backend for Wgpu {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn allocate(&mut self, id: BufferId, bytes: u64) -> Result<(), DeviceError> {
        self.sound("allocate")?;
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let buffer = self.make(bytes.next_multiple_of(4), usage)?;
        self.buffers.insert(id, buffer);
        Ok(())
    }

    fn free(&mut self, id: BufferId) -> Result<(), DeviceError> {
        if let Some(buffer) = self.buffers.remove(&id) {
            self.drop_buffer(&buffer);
            self.groups.retain(|key, _| !key.holds(id));
        }
        Ok(())
    }

    fn load(&mut self, matrix: Matrix, packed: &[u8]) -> Result<u64, DeviceError> {
        self.sound("load")?;
        let (format, columns) = (matrix.format(), matrix.columns() as usize);
        let layout = Layout::of(format, columns);
        let (row_bytes, packed_row) = (4 * layout.row as u64, packed.len() / matrix.rows() as usize);
        let most = (self.limits.operand_bytes_max / 4 * 4).min(self.limits.buffer_bytes_max);
        if row_bytes > most {
            let what = format!("rows of {row_bytes} bytes; one binding takes {most}");
            return Err(DeviceError::NotSupported { device: self.label(), what });
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut first = 0;
        let all = u64::from(matrix.rows());
        while first < all {
            let left = (all - first) * row_bytes;
            // The last arena, where the rest fits; a matrix is split only where no arena could hold it.
            let fits = |arena: &Arena| arena.buffer.size() - arena.filled >= left.min(most);
            let arena = match self.arenas.iter().position(fits) {
                Some(arena) => arena,
                None => match self.arena(left.min(most / row_bytes * row_bytes), most) {
                    Ok(arena) => arena,
                    Err(error) => {
                        self.unload_pieces(&pieces);
                        return Err(error);
                    }
                },
            };
            let arena = &mut self.arenas[arena];
            let rows = (all - first).min((arena.buffer.size() - arena.filled) / row_bytes);
            let piece = Piece { arena: arena.id, word: arena.filled / 4, first, rows };
            // A few megabytes at a time: the repacked form never exists as a whole.
            let step = ((4 << 20) / row_bytes).max(1);
            let mut done = 0;
            while done < rows {
                let some = step.min(rows - done);
                let from = (first + done) as usize * packed_row;
                let words = pack::lay_out(format, columns, &packed[from..from + some as usize * packed_row]);
                self.queue.write_buffer(&arena.buffer, arena.filled + done * row_bytes, &words);
                done += some;
            }
            arena.filled += rows * row_bytes;
            arena.live += 1;
            pieces.push(piece);
            first += rows;
            // Staging of the interface is released as submissions end.
            self.queue.submit([]);
        }
        self.sound("load")?;
        self.matrices.insert(matrix.id(), Placed { layout, pieces });
        Ok(all * row_bytes)
    }

    fn laid_out(&self, matrix: Matrix, packed: &[u8]) -> Box<dyn HostBytes> {
        Box::new(pack::lay_out(matrix.format(), matrix.columns() as usize, packed))
    }

    fn refill(&mut self, id: MatrixId, laid_out: &dyn HostBytes) -> Result<(), DeviceError> {
        self.sound("refill")?;
        let placed = &self.matrices[&id];
        let row_bytes = 4 * placed.layout.row as u64;
        for piece in &placed.pieces {
            let arena = self.arenas.iter().find(|arena| arena.id == piece.arena).expect("an arena outlives its pieces");
            let from = piece.first * row_bytes;
            let bytes = &laid_out.bytes()[from as usize..(from + piece.rows * row_bytes) as usize];
            self.queue.write_buffer(&arena.buffer, 4 * piece.word, bytes);
        }
        self.sound("refill")
    }

    fn unload(&mut self, id: MatrixId) -> Result<(), DeviceError> {
        if let Some(placed) = self.matrices.remove(&id) {
            self.unload_pieces(&placed.pieces);
        }
        Ok(())
    }

    fn copy_in(&mut self, to: BufferId, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.sound("copy in")?;
        let buffer = self.buffers[&to].clone();
        let (start, end) = (offset / 4 * 4, (offset + bytes.len() as u64).next_multiple_of(4));
        if start == offset && end == offset + bytes.len() as u64 {
            self.queue.write_buffer(&buffer, offset, bytes);
            return self.sound("copy in");
        }
        // The interface writes whole words: what shares the first and the last one is read and written back.
        let mut words = vec![0; (end - start) as usize];
        let length = words.len();
        let mut edge = [0; 4];
        for at in [0, length - 4] {
            self.read_any(&buffer, start + at as u64, &mut edge)?;
            words[at..at + 4].copy_from_slice(&edge);
        }
        words[(offset - start) as usize..][..bytes.len()].copy_from_slice(bytes);
        self.queue.write_buffer(&buffer, start, &words);
        self.sound("copy in")
    }

    fn copy_out(&mut self, from: BufferId, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.sound("copy out")?;
        let buffer = self.buffers[&from].clone();
        self.read_any(&buffer, offset, bytes)
    }

    fn copy_within(
        &mut self,
        (from, from_offset): (BufferId, u64),
        (to, to_offset): (BufferId, u64),
        bytes: u64,
    ) -> Result<(), DeviceError> {
        self.sound("copy within")?;
        let aligned = [from_offset, to_offset, bytes].iter().all(|number| number.is_multiple_of(4));
        if aligned && from != to {
            let mut encoder = self.device.create_command_encoder(&CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(&self.buffers[&from], from_offset, &self.buffers[&to], to_offset, bytes);
            self.queue.submit([encoder.finish()]);
            self.counters.submissions += 1;
            return self.sound("copy within");
        }
        // Odd ranges, and copies inside one buffer, which the interface refuses: through the host.
        let mut piece = vec![0; bytes as usize];
        self.copy_out(from, from_offset, &mut piece)?;
        self.copy_in(to, to_offset, &piece)
    }

    fn copy_to_peer(
        &mut self,
        _: (BufferId, u64),
        _: &mut dyn Backend,
        _: (BufferId, u64),
        _: u64,
    ) -> Result<Option<PeerRoute>, DeviceError> {
        // The portable interfaces know no other device.
        self.sound("peer copy")?;
        Ok(None)
    }

    fn launch(&mut self, ops: &[Op]) -> Result<(), DeviceError> {
        self.sound("launch")?;
        self.encode(ops)?;
        self.sound("launch")
    }

    fn synchronise(&mut self) -> Result<(), DeviceError> {
        self.wait_for("synchronise", None)
    }

    fn record(&mut self, id: u64) -> Result<(), DeviceError> {
        self.sound("record")?;
        let mut encoder = self.device.create_command_encoder(&CommandEncoderDescriptor::default());
        self.events.stamp(&mut encoder);
        let submission = self.queue.submit([encoder.finish()]);
        self.counters.submissions += 1;
        self.events.add(id, &self.queue, submission);
        self.sound("record")
    }

    fn is_done(&mut self, id: u64) -> Result<bool, DeviceError> {
        self.sound("event")?;
        // Nothing to hear of a failed poll: the flag stays as it is.
        let _ = self.device.poll(PollType::Poll);
        self.sound("event")?;
        Ok(self.events.get(id).is_some_and(|mark| mark.done.load(Ordering::Acquire)))
    }

    fn wait(&mut self, id: u64) -> Result<(), DeviceError> {
        let submission = self.events.get(id).map(|mark| mark.submission.clone());
        self.wait_for("event", submission)
    }

    fn elapsed(&mut self, from: u64, to: u64) -> Result<Option<Duration>, DeviceError> {
        self.sound("event")?;
        let events = std::mem::replace(&mut self.events, Events::none());
        let elapsed = events.elapsed(from, to, |set, buffer, bytes| {
            let mut encoder = self.device.create_command_encoder(&CommandEncoderDescriptor::default());
            encoder.resolve_query_set(set, ALL_SLOTS, buffer, 0);
            self.queue.submit([encoder.finish()]);
            self.read_words(buffer, 0, bytes)
        });
        self.events = events;
        elapsed
    }

    fn forget(&mut self, id: u64) {
        self.events.forget(id);
    }

    fn memory(&mut self) -> Result<MemoryInfo, DeviceError> {
        Ok(MemoryInfo {
            total: self.budget,
            used: self.budget.map(|_| self.used),
            available: self.budget.map(|budget| budget - self.used.min(budget)),
            reserved: None,
        })
    }

    fn readings(&mut self) -> Result<Readings, DeviceError> {
        // The portable interfaces have no sensors.
        Ok(Readings::default())
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn lose(&mut self) {
        self.said.tell("destroyed on purpose".to_owned());
        self.device.destroy();
        // The callback comes with the next poll, if at all.
        self.said.lost.store(true, Ordering::Release);
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
