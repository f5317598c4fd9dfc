//! The one layer between callers and backends: checks arguments, counts, remembers a loss.

use super::check;
use super::contract::{
    Backend, Buffer, BufferId, Counters, DeviceInfo, Event, HostBytes, Limits, Matrix, MatrixId, MemoryInfo, PeerRoute,
    Platform, Readings,
};
use super::error::{DeviceError, Refusal};
use super::op::Op;
use crate::model::format::BlockFormat;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Numbers of devices, buffers, matrices and events. Never used twice, so a stale handle is always recognised.
static NEXT: AtomicU64 = AtomicU64::new(1);

fn fresh() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The host's clock. In a browser the standard library has none, and asking it would end the program.
fn clock() -> Option<SystemTime> {
    if cfg!(all(target_family = "wasm", target_os = "unknown")) { None } else { Some(SystemTime::now()) }
}

/// Something that is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Its number, of a buffer or a matrix.
    pub id: u64,
    /// Bytes that it takes on the device.
    pub bytes: u64,
    /// Whether it is a matrix.
    pub matrix: bool,
    /// When it was made; absent where there is no clock.
    pub since: Option<SystemTime>,
}

/// A matrix in the host's memory, in the layout of one device.
pub struct LaidOut {
    device: u64,
    format: BlockFormat,
    rows: u32,
    columns: u32,
    kept: Box<dyn HostBytes>,
}

impl LaidOut {
    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.kept.bytes().len() as u64
    }
}

/// What is allocated, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Buffers.
    pub buffers: usize,
    /// Matrices.
    pub matrices: usize,
    /// Bytes of both on the device.
    pub bytes: u64,
}

/// An opened device. Everything that anyone asks of a device goes through here.
///
/// Dropping it releases everything it holds; [`Device::close`] does the same and tells what was never released.
pub struct Device {
    backend: Box<dyn Backend>,
    serial: u64,
    allocations: BTreeMap<u64, Allocation>,
    /// Events not yet forgotten.
    events: BTreeMap<u64, ()>,
    counters: Counters,
    /// Once lost, the answer to everything.
    lost: Option<DeviceError>,
}

impl Device {
    /// Opens a device of a platform.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn open(platform: &dyn Platform, index: usize) -> Result<Self, DeviceError> {
        Ok(Self::new(platform.open(index)?))
    }

    /// Takes an opened backend.
    #[must_use]
    pub fn new(backend: Box<dyn Backend>) -> Self {
        Self {
            backend,
            serial: fresh(),
            allocations: BTreeMap::new(),
            events: BTreeMap::new(),
            counters: Counters::default(),
            lost: None,
        }
    }

    /// What it is.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        self.backend.info()
    }

    /// What it takes.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        self.backend.limits()
    }

    /// Its name in errors: backend, number and name.
    #[must_use]
    pub fn label(&self) -> String {
        let info = self.info();
        format!("{} device {} ({})", info.backend, info.index, info.name)
    }

    /// Reserves memory, content unspecified.
    ///
    /// # Errors
    /// [`Refusal::Empty`], [`Refusal::TooLarge`], or [`DeviceError::OutOfMemory`].
    pub fn allocate(&mut self, bytes: u64) -> Result<Buffer, DeviceError> {
        self.alive()?;
        if bytes == 0 {
            return Err(self.refused(Refusal::Empty));
        }
        let limit = self.limits().buffer_bytes_max;
        if bytes > limit {
            return Err(self.refused(Refusal::TooLarge { bytes, limit }));
        }
        let id = fresh();
        let answer = self.backend.allocate(BufferId(id), bytes);
        self.noted(answer)?;
        self.keep(id, bytes, false);
        Ok(Buffer { id: BufferId(id), device: self.serial, bytes })
    }

    /// Releases a buffer. Work already launched may go on using it.
    ///
    /// # Errors
    /// [`Refusal::Freed`] when it was released before, [`Refusal::OtherDevice`].
    pub fn free(&mut self, buffer: Buffer) -> Result<(), DeviceError> {
        self.own(buffer)?;
        self.allocations.remove(&buffer.id.0);
        // What a lost device held is gone with it: releasing it is no error, so that cleaning up needs no special case.
        if self.lost.is_some() {
            return Ok(());
        }
        let answer = self.backend.free(buffer.id);
        self.noted(answer)
    }

    /// Takes a weight matrix in: `rows` rows of `columns` values, packed as in a file.
    ///
    /// # Errors
    /// When shape and bytes do not belong together, the format is not supported, or memory is short.
    pub fn load(&mut self, format: BlockFormat, rows: u32, columns: u32, packed: &[u8]) -> Result<Matrix, DeviceError> {
        self.alive()?;
        let wanted = format.row_bytes(u64::from(columns)).and_then(|row| row.checked_mul(u64::from(rows)));
        if rows == 0 || columns == 0 || wanted != Some(packed.len() as u64) {
            let why = format!("{} bytes do not hold {rows} rows of {columns} values as {format}", packed.len());
            return Err(self.refused(Refusal::Shape { op: "load", why }));
        }
        if !self.limits().formats.contains(&format) {
            return Err(DeviceError::NotSupported { device: self.label(), what: format!("{format} weights") });
        }
        let id = fresh();
        let matrix = Matrix { id: MatrixId(id), device: self.serial, format, rows, columns };
        let answer = self.backend.load(matrix, packed);
        let bytes = self.noted(answer)?;
        self.counters.bytes_in += bytes;
        self.keep(id, bytes, true);
        Ok(matrix)
    }

    /// A matrix as it lies on this device, to be put in the place of one of its format and shape.
    ///
    /// # Errors
    /// The bytes are not those of such a matrix.
    pub fn laid_out(&self, like: Matrix, packed: &[u8]) -> Result<LaidOut, DeviceError> {
        self.own_matrix(like)?;
        if like.packed_bytes() != packed.len() as u64 {
            let (rows, columns, format) = (like.rows, like.columns, like.format);
            let why = format!("{} bytes do not hold {rows} rows of {columns} values as {format}", packed.len());
            return Err(self.refused(Refusal::Shape { op: "lay out", why }));
        }
        let kept = self.backend.laid_out(like, packed);
        Ok(LaidOut { device: self.serial, format: like.format, rows: like.rows, columns: like.columns, kept })
    }

    /// Puts another matrix in the place of one: whatever is launched later sees it, and what was launched before does
    /// not. Work that does not use the matrix may go on meanwhile.
    ///
    /// # Errors
    /// It is of another device, format or shape, or what the driver says.
    pub fn refill(&mut self, matrix: Matrix, by: &LaidOut) -> Result<(), DeviceError> {
        self.alive()?;
        self.own_matrix(matrix)?;
        if (by.device, by.format, by.rows, by.columns) != (self.serial, matrix.format, matrix.rows, matrix.columns) {
            let why = format!(
                "{} rows of {} values as {} do not stand where {} rows of {} values as {} do",
                by.rows, by.columns, by.format, matrix.rows, matrix.columns, matrix.format
            );
            return Err(self.refused(Refusal::Shape { op: "refill", why }));
        }
        self.counters.bytes_in += by.bytes();
        let answer = self.backend.refill(matrix.id, by.kept.as_ref());
        self.noted(answer)
    }

    /// Releases a matrix.
    ///
    /// # Errors
    /// As [`Device::free`].
    pub fn unload(&mut self, matrix: Matrix) -> Result<(), DeviceError> {
        self.own_matrix(matrix)?;
        self.allocations.remove(&matrix.id.0);
        if self.lost.is_some() {
            return Ok(());
        }
        let answer = self.backend.unload(matrix.id);
        self.noted(answer)
    }

    /// Copies bytes to the device, after everything launched before.
    ///
    /// # Errors
    /// A bad range or handle, or what the driver says.
    pub fn copy_in(&mut self, to: Buffer, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.alive()?;
        self.range("copy in", to, offset, bytes.len() as u64)?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.counters.bytes_in += bytes.len() as u64;
        let answer = self.backend.copy_in(to.id, offset, bytes);
        self.noted(answer)
    }

    /// Copies bytes to the host, after everything launched before, and waits for them.
    ///
    /// # Errors
    /// A bad range or handle, or what the driver says.
    pub fn copy_out(&mut self, from: Buffer, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.alive()?;
        self.range("copy out", from, offset, bytes.len() as u64)?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.counters.bytes_out += bytes.len() as u64;
        let answer = self.backend.copy_out(from.id, offset, bytes);
        self.noted(answer)
    }

    /// Copies bytes between two buffers of the device, or inside one.
    ///
    /// # Errors
    /// A bad range or handle, overlapping ranges, or what the driver says.
    pub fn copy_within(
        &mut self,
        (from, from_offset): (Buffer, u64),
        (to, to_offset): (Buffer, u64),
        bytes: u64,
    ) -> Result<(), DeviceError> {
        self.alive()?;
        self.range("copy within, from", from, from_offset, bytes)?;
        self.range("copy within, to", to, to_offset, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        if from == to && from_offset < to_offset + bytes && to_offset < from_offset + bytes {
            return Err(self.refused(Refusal::Overlap { op: "copy within", written: "to", read: "from" }));
        }
        let answer = self.backend.copy_within((from.id, from_offset), (to.id, to_offset), bytes);
        self.noted(answer)
    }

    /// Copies bytes to another device: straight where the two can, through the host where they cannot.
    ///
    /// # Errors
    /// A bad range or handle, or what either driver says.
    pub fn copy_to_peer(
        &mut self,
        (from, from_offset): (Buffer, u64),
        peer: &mut Self,
        (to, to_offset): (Buffer, u64),
        bytes: u64,
    ) -> Result<PeerRoute, DeviceError> {
        self.alive()?;
        peer.alive()?;
        self.range("peer copy, from", from, from_offset, bytes)?;
        peer.range("peer copy, to", to, to_offset, bytes)?;
        if bytes == 0 {
            return Ok(PeerRoute::Direct);
        }
        let answer = self.backend.copy_to_peer((from.id, from_offset), &mut *peer.backend, (to.id, to_offset), bytes);
        if let Some(route) = self.noted(answer)? {
            return Ok(route);
        }
        // A few megabytes at a time bound what the host needs.
        let mut staging = vec![0; usize::try_from(bytes.min(4 << 20)).expect("four megabytes fit")];
        let mut done = 0;
        while done < bytes {
            let piece = usize::try_from((bytes - done).min(staging.len() as u64)).expect("a piece fits");
            self.copy_out(from, from_offset + done, &mut staging[..piece])?;
            peer.copy_in(to, to_offset + done, &staging[..piece])?;
            done += piece as u64;
        }
        Ok(PeerRoute::Host)
    }

    /// Queues operations, in order, as one batch where the interface can. Nothing is queued when one is refused.
    ///
    /// # Errors
    /// The first operation that makes no sense or is not supported; or what the driver says.
    pub fn launch(&mut self, ops: &[Op]) -> Result<(), DeviceError> {
        self.alive()?;
        for op in ops {
            self.checked(op)?;
        }
        if ops.is_empty() {
            return Ok(());
        }
        let answer = self.backend.launch(ops);
        self.noted(answer)
    }

    /// Whether the device takes an operation, without running it.
    ///
    /// # Errors
    /// As [`Device::launch`].
    pub fn checked(&self, op: &Op) -> Result<(), DeviceError> {
        check::supported(op, self.limits()).map_err(|what| DeviceError::NotSupported { device: self.label(), what })?;
        let operands = check::operands(op).map_err(|refusal| self.refused(refusal))?;
        for matrix in operands.matrices {
            self.own_matrix(matrix)?;
        }
        for operand in &operands.views {
            let (view, what) = (operand.view, operand.name);
            self.own(view.buffer)?;
            if !view.offset.is_multiple_of(4) {
                return Err(self.refused(Refusal::Unaligned { what, offset: view.offset }));
            }
            self.range(what, view.buffer, view.offset, operand.bytes)?;
            let limit = self.limits().operand_bytes_max;
            if operand.bytes > limit {
                return Err(self.refused(Refusal::TooLarge { bytes: operand.bytes, limit }));
            }
        }
        check::overlaps(op.name(), &operands.views).map_err(|refusal| self.refused(refusal))
    }

    /// Waits until everything that was asked is done.
    ///
    /// # Errors
    /// What the driver says, about anything launched before.
    pub fn synchronise(&mut self) -> Result<(), DeviceError> {
        self.alive()?;
        let answer = self.backend.synchronise();
        self.noted(answer)
    }

    /// Marks the end of everything asked so far.
    ///
    /// # Errors
    /// What the driver says.
    pub fn record(&mut self) -> Result<Event, DeviceError> {
        self.alive()?;
        let id = fresh();
        let answer = self.backend.record(id);
        self.noted(answer)?;
        self.events.insert(id, ());
        Ok(Event { id, device: self.serial })
    }

    /// Whether everything before an event is done.
    ///
    /// # Errors
    /// A stale or foreign event, or what the driver says.
    pub fn is_done(&mut self, event: Event) -> Result<bool, DeviceError> {
        self.own_event(event)?;
        self.alive()?;
        let answer = self.backend.is_done(event.id);
        self.noted(answer)
    }

    /// Waits for an event.
    ///
    /// # Errors
    /// A stale or foreign event, or what the driver says.
    pub fn wait(&mut self, event: Event) -> Result<(), DeviceError> {
        self.own_event(event)?;
        self.alive()?;
        let answer = self.backend.wait(event.id);
        self.noted(answer)
    }

    /// Time on the device between two events, waiting for both; `None` where it has no such clock.
    ///
    /// # Errors
    /// A stale or foreign event, or what the driver says.
    pub fn elapsed(&mut self, from: Event, to: Event) -> Result<Option<Duration>, DeviceError> {
        self.wait(from)?;
        self.wait(to)?;
        let answer = self.backend.elapsed(from.id, to.id);
        self.noted(answer)
    }

    /// Forgets an event.
    ///
    /// # Errors
    /// A stale or foreign event.
    pub fn forget(&mut self, event: Event) -> Result<(), DeviceError> {
        self.own_event(event)?;
        self.events.remove(&event.id);
        self.backend.forget(event.id);
        Ok(())
    }

    /// Its memory.
    ///
    /// # Errors
    /// What the driver says.
    pub fn memory(&mut self) -> Result<MemoryInfo, DeviceError> {
        self.alive()?;
        let answer = self.backend.memory();
        self.noted(answer)
    }

    /// Its sensors.
    ///
    /// # Errors
    /// What the driver says.
    pub fn readings(&mut self) -> Result<Readings, DeviceError> {
        self.alive()?;
        let answer = self.backend.readings();
        self.noted(answer)
    }

    /// What it has done since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let (own, backend) = (self.counters, self.backend.counters());
        Counters {
            dispatches: own.dispatches + backend.dispatches,
            submissions: own.submissions + backend.submissions,
            bytes_in: own.bytes_in + backend.bytes_in,
            bytes_out: own.bytes_out + backend.bytes_out,
            allocations: own.allocations + backend.allocations,
            allocated_bytes: own.allocated_bytes + backend.allocated_bytes,
        }
    }

    /// Everything that is allocated, in the order of allocation.
    #[must_use]
    pub fn allocations(&self) -> Vec<Allocation> {
        self.allocations.values().copied().collect()
    }

    /// What is allocated, counted.
    #[must_use]
    pub fn live(&self) -> Live {
        let matrices = self.allocations.values().filter(|allocation| allocation.matrix).count();
        Live {
            buffers: self.allocations.len() - matrices,
            matrices,
            bytes: self.allocations.values().map(|allocation| allocation.bytes).sum(),
        }
    }

    /// Closes the device and tells what was never released: nothing, if all went well.
    #[must_use]
    pub fn close(self) -> Vec<Allocation> {
        self.allocations()
    }

    /// Rehearses the loss of the device: from here on, everything but releases answers [`DeviceError::Lost`].
    pub fn lose(&mut self) {
        self.backend.lose();
    }

    fn keep(&mut self, id: u64, bytes: u64, matrix: bool) {
        self.counters.allocations += 1;
        self.counters.allocated_bytes += bytes;
        self.allocations.insert(id, Allocation { id, bytes, matrix, since: clock() });
    }

    /// Errors: the device was lost before.
    fn alive(&self) -> Result<(), DeviceError> {
        self.lost.clone().map_or(Ok(()), Err)
    }

    /// Hands a backend's answer on, remembering a loss.
    fn noted<T>(&mut self, answer: Result<T, DeviceError>) -> Result<T, DeviceError> {
        if let Err(error) = &answer
            && error.is_lost()
        {
            self.lost = Some(error.clone());
        }
        answer
    }

    fn refused(&self, refusal: Refusal) -> DeviceError {
        DeviceError::Refused { device: self.label(), refusal }
    }

    fn own(&self, buffer: Buffer) -> Result<(), DeviceError> {
        self.owned("buffer", buffer.id.0, buffer.device)
    }

    fn own_matrix(&self, matrix: Matrix) -> Result<(), DeviceError> {
        self.owned("matrix", matrix.id.0, matrix.device)
    }

    fn owned(&self, what: &'static str, id: u64, device: u64) -> Result<(), DeviceError> {
        if device != self.serial {
            return Err(self.refused(Refusal::OtherDevice { what, id }));
        }
        if !self.allocations.contains_key(&id) {
            return Err(self.refused(Refusal::Freed { what, id }));
        }
        Ok(())
    }

    fn own_event(&self, event: Event) -> Result<(), DeviceError> {
        if event.device != self.serial {
            return Err(self.refused(Refusal::OtherDevice { what: "event", id: event.id }));
        }
        if !self.events.contains_key(&event.id) {
            return Err(self.refused(Refusal::Freed { what: "event", id: event.id }));
        }
        Ok(())
    }

    fn range(&self, what: &'static str, buffer: Buffer, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.own(buffer)?;
        let size = buffer.bytes;
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(()),
            _ => Err(self.refused(Refusal::OutOfRange { what, offset, length, size })),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.lost.is_some() {
            return;
        }
        for (id, allocation) in std::mem::take(&mut self.allocations) {
            // Closing goes on whatever the driver says of one piece.
            let _ = if allocation.matrix { self.backend.unload(MatrixId(id)) } else { self.backend.free(BufferId(id)) };
        }
    }
}
