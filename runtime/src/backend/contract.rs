//! What a vendor interface must offer.

use super::error::DeviceError;
use super::op::Op;
use crate::cpu::Arithmetic;
use crate::model::format::BlockFormat;
use std::any::Any;
use std::time::Duration;

/// Number of a buffer, unique in this process for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub(super) u64);

/// Number of a matrix, unique in this process for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MatrixId(pub(super) u64);

/// A buffer on a device. A handle: copying it copies no memory, dropping it releases none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Buffer {
    pub(super) id: BufferId,
    pub(super) device: u64,
    pub(super) bytes: u64,
}

impl Buffer {
    /// Its number.
    #[must_use]
    pub const fn id(&self) -> BufferId {
        self.id
    }

    /// Its size in bytes, as asked for.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// A weight matrix on a device, in whatever layout its backend likes. A handle, as [`Buffer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Matrix {
    pub(super) id: MatrixId,
    pub(super) device: u64,
    pub(super) format: BlockFormat,
    pub(super) rows: u32,
    pub(super) columns: u32,
}

impl Matrix {
    /// Its number.
    #[must_use]
    pub const fn id(&self) -> MatrixId {
        self.id
    }

    /// How its values are packed.
    #[must_use]
    pub const fn format(&self) -> BlockFormat {
        self.format
    }

    /// Outputs.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        self.rows
    }

    /// Inputs, a whole number of blocks.
    #[must_use]
    pub const fn columns(&self) -> u32 {
        self.columns
    }

    /// Bytes of the matrix in a file.
    #[must_use]
    pub fn packed_bytes(&self) -> u64 {
        let row = self.format.row_bytes(u64::from(self.columns)).expect("a matrix has whole rows");
        row * u64::from(self.rows)
    }
}

/// A point in a device's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Event {
    pub(super) id: u64,
    pub(super) device: u64,
}

impl Event {
    /// Its number, rising in the order in which events were recorded on a device.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }
}

/// On what a device's operations are really executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hardware {
    /// A card with memory of its own.
    Discrete,
    /// A graphics unit that shares the host's memory.
    Integrated,
    /// A part of a card, or a card handed through by a hypervisor.
    Virtual,
    /// The processor, as a device of its own.
    Processor,
    /// A graphics driver that computes on the processor.
    Software,
    /// A stand-in of this project for a driver: kernels run on the processor.
    Emulated,
    /// The driver does not say.
    Unknown,
}

impl Hardware {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discrete => "card",
            Self::Integrated => "integrated",
            Self::Virtual => "part of a card",
            Self::Processor => "processor",
            Self::Software => "software rasteriser",
            Self::Emulated => "host-emulated",
            Self::Unknown => "unknown",
        }
    }

    /// Whether operations run on something other than this host's processor.
    #[must_use]
    pub const fn is_accelerator(self) -> bool {
        matches!(self, Self::Discrete | Self::Integrated | Self::Virtual)
    }
}

/// What is known of a device before it is opened. Unknown is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Backend that found it: `cpu`, `wgpu`, `cuda`.
    pub backend: &'static str,
    /// Its number among that backend's devices.
    pub index: usize,
    /// Name that the driver gives it.
    pub name: String,
    /// Interface that reaches it: `Vulkan`, `Metal`, `CUDA driver 12.9`.
    pub interface: String,
    /// Version of the driver.
    pub driver: Option<String>,
    /// What it runs on.
    pub hardware: Hardware,
    /// PCI address, `0000:01:00.0`.
    pub pci: Option<String>,
    /// Identifier that the vendor keeps across reboots and interfaces, in lower-case hexadecimal with hyphens.
    pub uuid: Option<String>,
    /// PCI vendor and device number.
    pub ids: Option<(u32, u32)>,
    /// Memory in all.
    pub memory_bytes: Option<u64>,
}

/// What a device takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of one buffer.
    pub buffer_bytes_max: u64,
    /// Most bytes of one operand of an operation; matrices are split by their backend and may be larger.
    pub operand_bytes_max: u64,
    /// Largest head that attention takes.
    pub head_size_max: u32,
    /// Arithmetics of products, the first one the default. [`Arithmetic::F32`] is always among them.
    pub arithmetics: Vec<Arithmetic>,
    /// Formats of matrices.
    pub formats: Vec<BlockFormat>,
}

/// Memory of a device in bytes. Unknown is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryInfo {
    /// In all.
    pub total: Option<u64>,
    /// In use, by anybody.
    pub used: Option<u64>,
    /// Free.
    pub available: Option<u64>,
    /// Held by the driver itself.
    pub reserved: Option<u64>,
}

/// What sensors say. Unknown is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings {
    /// Temperature, degrees Celsius.
    pub temperature_celsius: Option<f64>,
    /// Power drawn, watts.
    pub power_watts: Option<f64>,
    /// Power limit in force, watts.
    pub power_limit_watts: Option<f64>,
    /// Energy since the driver was loaded, joules.
    pub energy_joules: Option<f64>,
    /// Clock of the compute units, megahertz.
    pub clock_mhz: Option<f64>,
    /// Share of the last sample period in which something ran, 0 to 1.
    pub utilisation: Option<f64>,
    /// Fan, share of its full speed.
    pub fan: Option<f64>,
    /// Why the clock is held down; empty when it is not, absent when unknown.
    pub throttle_reasons: Option<Vec<String>>,
}

/// What a device has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Kernels started.
    pub dispatches: u64,
    /// Batches handed to the driver.
    pub submissions: u64,
    /// Bytes from the host, copies that a backend needs for itself (parameters) included.
    pub bytes_in: u64,
    /// Bytes to the host.
    pub bytes_out: u64,
    /// Allocations made.
    pub allocations: u64,
    /// Bytes allocated, all allocations together.
    pub allocated_bytes: u64,
}

impl Counters {
    /// What was done since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            dispatches: self.dispatches - earlier.dispatches,
            submissions: self.submissions - earlier.submissions,
            bytes_in: self.bytes_in - earlier.bytes_in,
            bytes_out: self.bytes_out - earlier.bytes_out,
            allocations: self.allocations - earlier.allocations,
            allocated_bytes: self.allocated_bytes - earlier.allocated_bytes,
        }
    }
}

/// How bytes came from one device to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerRoute {
    /// From device to device.
    Direct,
    /// Through memory of the host.
    Host,
}

/// One vendor interface on this host.
pub trait Platform: Send + Sync {
    /// Its name: `cpu`, `wgpu`, `cuda`.
    fn name(&self) -> &'static str;

    /// Its devices, none where it finds none; the same order each time while nothing is plugged in or out.
    ///
    /// # Errors
    /// [`DeviceError::NoDriver`] where the interface is not there at all.
    fn devices(&self) -> Result<Vec<DeviceInfo>, DeviceError>;

    /// Opens a device. The same one may be opened several times: each opening has its own queue and its own memory.
    ///
    /// # Errors
    /// [`DeviceError::NoDriver`], [`DeviceError::NoSuchDevice`], or what the driver says.
    fn open(&self, index: usize) -> Result<Box<dyn Backend>, DeviceError>;

    /// Whether its devices are refilled while they compute.
    fn refills_beside(&self) -> bool {
        false
    }
}

/// Bytes in the host's memory that a backend keeps where its copies to the device are quickest.
pub trait HostBytes: Any + Send + Sync {
    /// All of them.
    fn bytes(&self) -> &[u8];
}

impl HostBytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// One opened device, with a queue that works in order.
///
/// Called by [`super::Device`] alone. It promises: handles are of this device and alive, byte ranges lie inside their
/// buffers, shapes belong together, the operation's format and arithmetic are among [`Limits`], and nothing is asked
/// after a loss but releases.
///
/// Whatever the driver says, a backend never panics and never waits for ever: a wait that a lost device cannot end ends
/// with [`DeviceError::Lost`].
pub trait Backend: Send {
    /// What it is.
    fn info(&self) -> &DeviceInfo;

    /// What it takes.
    fn limits(&self) -> &Limits;

    /// Reserves memory of `bytes` bytes, content unspecified, to be known as `id`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] when there is not so much left; the device stays usable.
    fn allocate(&mut self, id: BufferId, bytes: u64) -> Result<(), DeviceError>;

    /// Releases a buffer. Work that was launched before may still use it; nothing launched later does.
    ///
    /// # Errors
    /// What the driver says.
    fn free(&mut self, id: BufferId) -> Result<(), DeviceError>;

    /// Takes a matrix in, in the backend's own layout, split where the interface limits operands. `packed` holds rows
    /// of blocks as in a file. Gives the bytes that it takes on the device.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] when there is not so much left; the device stays usable.
    fn load(&mut self, matrix: Matrix, packed: &[u8]) -> Result<u64, DeviceError>;

    /// A matrix of this format and shape in the layout that it has on the device, for [`refill`](Self::refill).
    fn laid_out(&self, matrix: Matrix, packed: &[u8]) -> Box<dyn HostBytes>;

    /// Puts another matrix of the same format and shape in the place of one. It is there for whatever is launched later;
    /// what was launched before with the matrix still sees the old one. Work that does not use it need not wait.
    ///
    /// # Errors
    /// What the driver says.
    fn refill(&mut self, id: MatrixId, laid_out: &dyn HostBytes) -> Result<(), DeviceError>;

    /// Releases a matrix, as [`free`](Self::free).
    ///
    /// # Errors
    /// What the driver says.
    fn unload(&mut self, id: MatrixId) -> Result<(), DeviceError>;

    /// Copies bytes to the device, after everything launched before. The slice is free when the call returns. Any
    /// offset and length.
    ///
    /// # Errors
    /// What the driver says.
    fn copy_in(&mut self, to: BufferId, offset: u64, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Copies bytes to the host, after everything launched before, and waits for them. Any offset and length.
    ///
    /// # Errors
    /// What the driver says.
    fn copy_out(&mut self, from: BufferId, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError>;

    /// Copies bytes between buffers of the device, or inside one where ranges do not overlap. Any offset and length.
    ///
    /// # Errors
    /// What the driver says.
    fn copy_within(&mut self, from: (BufferId, u64), to: (BufferId, u64), bytes: u64) -> Result<(), DeviceError>;

    /// Copies bytes straight to another opened device, after everything launched before on either; anything launched
    /// later on either sees them. `None` where there is no direct way: the caller then goes through the host.
    ///
    /// # Errors
    /// What the driver says.
    fn copy_to_peer(
        &mut self,
        from: (BufferId, u64),
        peer: &mut dyn Backend,
        to: (BufferId, u64),
        bytes: u64,
    ) -> Result<Option<PeerRoute>, DeviceError>;

    /// Queues operations, in order, as one batch where the interface can. Returns without waiting for them.
    ///
    /// # Errors
    /// What the driver says. An error found later is given by the next call that waits.
    fn launch(&mut self, ops: &[Op]) -> Result<(), DeviceError>;

    /// Waits until everything that was asked is done.
    ///
    /// # Errors
    /// What the driver says.
    fn synchronise(&mut self) -> Result<(), DeviceError>;

    /// Marks the end of everything asked so far as event `id`.
    ///
    /// # Errors
    /// What the driver says.
    fn record(&mut self, id: u64) -> Result<(), DeviceError>;

    /// Whether everything before an event is done.
    ///
    /// # Errors
    /// What the driver says.
    fn is_done(&mut self, id: u64) -> Result<bool, DeviceError>;

    /// Waits for an event.
    ///
    /// # Errors
    /// What the driver says.
    fn wait(&mut self, id: u64) -> Result<(), DeviceError>;

    /// Time on the device between two events, both done; `None` where the interface has no such clock.
    ///
    /// # Errors
    /// What the driver says.
    fn elapsed(&mut self, from: u64, to: u64) -> Result<Option<Duration>, DeviceError>;

    /// Forgets an event.
    fn forget(&mut self, id: u64);

    /// Its memory.
    ///
    /// # Errors
    /// What the driver says.
    fn memory(&mut self) -> Result<MemoryInfo, DeviceError>;

    /// Its sensors.
    ///
    /// # Errors
    /// What the driver says.
    fn readings(&mut self) -> Result<Readings, DeviceError>;

    /// Kernels, batches, and bytes that the backend moved for itself. The rest is counted by [`super::Device`].
    fn counters(&self) -> Counters;

    /// Makes this opening unusable as a loss of the device would: every later call answers [`DeviceError::Lost`]. For
    /// rehearsals of a loss; other openings of the same device go on.
    fn lose(&mut self);

    /// Itself, for a peer copy between two devices of one backend.
    fn as_any(&mut self) -> &mut dyn Any;
}
