//! The driver, as far as this backend asks it: the one file that calls it without a net.
//!
//! Everything here is ordered by one stream for each opened device, but for copies aside, which events order with it.
//! Device memory is an address; the caller sees to it that ranges lie inside allocations, and the tables of
//! [`super::kernels`] that arguments are what a kernel takes.

use super::kernels::{Kernel, Module};
use crate::backend::contract::HostBytes;
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaGraph, CudaStream, DriverError, LaunchConfig, PushKernelArg,
};
use std::ffi::c_void;
use std::sync::Arc;

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// An address on the device, or 0.
    Pointer(u64),
    /// A 32-bit number.
    Word(u32),
    /// A number in single precision.
    Float(f32),
    /// A 64-bit number.
    Long(u64),
}

impl Arg {
    const fn letter(self) -> u8 {
        match self {
            Self::Pointer(_) => b'p',
            Self::Word(_) => b'u',
            Self::Float(_) => b'f',
            Self::Long(_) => b'l',
        }
    }
}

/// A kernel of a loaded module.
#[derive(Clone, Debug)]
pub struct Function {
    function: CudaFunction,
    kernel: Kernel,
    resident: u32,
}

impl Function {
    /// How many of its blocks the device holds at once, at least one.
    pub const fn resident(&self) -> u32 {
        self.resident
    }
}

/// A launch that can be repeated.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What.
    pub function: Function,
    /// Blocks in three dimensions.
    pub grid: (u32, u32, u32),
    /// Threads of a block.
    pub threads: u32,
    /// Its arguments.
    pub args: Vec<Arg>,
}

/// Launches that the driver keeps and starts at once.
pub struct Recorded(CudaGraph);

// SAFETY: a graph must not be used by two threads at once. It is owned by one device and used through `&mut` of it.
unsafe impl Send for Recorded {}

/// Memory of the host that the device reads and writes directly.
pub struct Pinned {
    at: *mut u8,
    bytes: usize,
    /// Streams whose copies may use it.
    streams: [Arc<CudaStream>; 2],
}

// SAFETY: the memory belongs to this value alone, and any thread may touch it.
unsafe impl Send for Pinned {}

// SAFETY: the program writes it through `&mut` alone; what a device copies to is owned by that device and not shared.
unsafe impl Sync for Pinned {}

impl HostBytes for Pinned {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `at` begins `bytes` bytes that `Driver::pin` filled, and nobody writes them while `&self` lives.
        unsafe { std::slice::from_raw_parts(self.at, self.bytes) }
    }
}

impl Pinned {
    /// Its bytes. Whoever handed a part of it to the device waits for the copy before touching that part again.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `at` begins `bytes` bytes that `Driver::pin` filled; `&mut self` makes it the only view.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // A copy may still use it. Of a device that does not say that it is done, it stays. Asking makes its context
        // current.
        if self.streams.iter().all(|stream| stream.synchronize().is_ok()) {
            // SAFETY: allocated by `Driver::pin` and freed once, after all copies that used it.
            let _ = unsafe { result::free_host(self.at.cast::<c_void>()) };
        }
    }
}

/// What the driver says of a device that is not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub name: String,
    pub uuid: [u8; 16],
    pub pci: (u32, u32, u32),
    pub memory_bytes: u64,
    pub capability: u32,
    pub integrated: bool,
    /// Version of the driver, times a thousand: 12080 is 12.8.
    pub driver: u32,
}

/// How many devices there are.
///
/// # Errors
/// What the driver says.
pub fn count() -> Result<usize, DriverError> {
    result::init()?;
    result::device::get_count().map(|count| usize::try_from(count).unwrap_or(0))
}

/// What the driver says of a device.
///
/// # Errors
/// What the driver says.
pub fn facts(ordinal: usize) -> Result<Facts, DriverError> {
    result::init()?;
    let device = result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX))?;
    let attribute = |which| {
        // SAFETY: `device` is a handle that the driver just gave.
        unsafe { result::device::get_attribute(device, which) }.map(|value| u32::try_from(value).unwrap_or(0))
    };
    let mut version = 0;
    // SAFETY: writes one number where it is told to.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result()?;
    let uuid = result::device::get_uuid(device)?;
    Ok(Facts {
        name: result::device::get_name(device)?,
        uuid: uuid.bytes.map(|byte| u8::from_ne_bytes(byte.to_ne_bytes())),
        pci: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?,
        ),
        // SAFETY: as above.
        memory_bytes: unsafe { result::device::total_mem(device) }? as u64,
        capability: 10 * attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?
            + attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        integrated: attribute(Attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0,
        driver: u32::try_from(version).unwrap_or(0),
    })
}

/// One device's context and stream.
pub struct Driver {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// For copies that go on beside what the first one does.
    aside: Arc<CudaStream>,
}

impl Driver {
    /// Opens a device with a stream of its own.
    ///
    /// # Errors
    /// What the driver says.
    pub fn open(ordinal: usize) -> Result<Self, DriverError> {
        let context = CudaContext::new(ordinal)?;
        // SAFETY: every use of memory is on this device's first stream, or ordered with it by an event; nothing needs
        // tracking.
        unsafe { context.disable_event_tracking() };
        let (stream, aside) = (context.new_stream()?, context.new_stream()?);
        Ok(Self { context, stream, aside })
    }

    /// Loads a module's kernels.
    ///
    /// # Errors
    /// What the compiler or the driver says.
    pub fn load(&self, module: Module, ptx: &str, capability: u32) -> Result<Vec<Function>, DriverError> {
        let multiprocessors = self.context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let multiprocessors = u32::try_from(multiprocessors).unwrap_or(1);
        let loaded = self.context.load_module(cudarc::nvrtc::Ptx::from_src(ptx))?;
        let functions = module.kernels(capability).into_iter().map(|kernel| {
            let function = loaded.load_function(&kernel.name)?;
            let of_one = function.occupancy_max_active_blocks_per_multiprocessor(kernel.threads(), 0, None)?;
            Ok(Function { function, kernel, resident: (of_one * multiprocessors).max(1) })
        });
        functions.collect()
    }

    /// Memory on the device, its content whatever was there before.
    ///
    /// # Errors
    /// What the driver says.
    pub fn allocate(&self, bytes: u64) -> Result<u64, DriverError> {
        self.context.bind_to_thread()?;
        let bytes = usize::try_from(bytes).map_err(|_| DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY))?;
        // SAFETY: nothing reads the memory before it was written but kernels, to which any bits are numbers.
        unsafe { result::malloc_sync(bytes) }
    }

    /// Releases memory, after everything that was launched.
    ///
    /// # Errors
    /// What the driver says.
    pub fn free(&self, address: u64) -> Result<(), DriverError> {
        self.context.bind_to_thread()?;
        // SAFETY: `address` was given by `allocate` and is released once: the caller forgets it. The driver waits for
        // work.
        unsafe { result::free_sync(address) }
    }

    /// Memory of the host that copies may use directly.
    ///
    /// # Errors
    /// What the driver says.
    pub fn pin(&self, bytes: usize) -> Result<Pinned, DriverError> {
        self.context.bind_to_thread()?;
        // SAFETY: a fresh allocation of `bytes` bytes, written before it is read as bytes.
        let at = unsafe { result::malloc_host(bytes, 0) }?.cast::<u8>();
        // SAFETY: as above; zeros make every byte a value.
        unsafe { std::ptr::write_bytes(at, 0, bytes) };
        let streams = [Arc::clone(&self.stream), Arc::clone(&self.aside)];
        Ok(Pinned { at, bytes, streams })
    }

    /// Copies a part of pinned memory to the device without waiting. The part stays untouched until the copy is done.
    ///
    /// # Errors
    /// What the driver says.
    pub fn copy_in(&self, to: u64, from: &mut Pinned, range: std::ops::Range<usize>) -> Result<(), DriverError> {
        self.context.bind_to_thread()?;
        let part = &from.bytes_mut()[range];
        // SAFETY: the caller keeps `to` and `part.len()` inside an allocation and leaves the part alone until it is
        // copied.
        unsafe { result::memcpy_htod_async(to, part, self.stream.cu_stream()) }
    }

    /// The same beside everything launched: nothing but events orders it.
    ///
    /// # Errors
    /// What the driver says.
    pub fn copy_in_aside(
        &self,
        to: u64,
        from: &mut Pinned,
        range: std::ops::Range<usize>,
    ) -> Result<CudaEvent, DriverError> {
        self.context.bind_to_thread()?;
        let part = &from.bytes_mut()[range];
        // SAFETY: as for `copy_in`; the caller sees to it that nothing launched uses `to` meanwhile.
        unsafe { result::memcpy_htod_async(to, part, self.aside.cu_stream()) }?;
        self.mark_aside()
    }

    /// Copies all of it aside. The memory outlives the copy, for its end waits; whoever owns it leaves it as it is till
    /// then.
    ///
    /// # Errors
    /// What the driver says.
    pub fn copy_all_aside(&self, to: u64, from: &Pinned) -> Result<(), DriverError> {
        self.context.bind_to_thread()?;
        // SAFETY: the caller keeps `to` and as many bytes inside an allocation that nothing launched uses meanwhile, and
        // does not write the memory.
        unsafe { result::memcpy_htod_async(to, from.bytes(), self.aside.cu_stream()) }
    }

    /// A mark at the end of all copies aside so far.
    ///
    /// # Errors
    /// What the driver says.
    pub fn mark_aside(&self) -> Result<CudaEvent, DriverError> {
        let event = self.context.new_event(Some(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING))?;
        event.record(&self.aside)?;
        Ok(event)
    }

    /// Lets copies aside wait for a mark of the first stream.
    ///
    /// # Errors
    /// What the driver says.
    pub fn hold_aside(&self, until: &CudaEvent) -> Result<(), DriverError> {
        self.aside.wait(until)
    }

    /// Lets whatever is launched later wait for a copy aside.
    ///
    /// # Errors
    /// What the driver says.
    pub fn hold(&self, until: &CudaEvent) -> Result<(), DriverError> {
        self.stream.wait(until)
    }

    /// Copies to pinned memory without waiting.
    ///
    /// # Errors
    /// What the driver says.
    pub fn copy_out(&self, from: u64, to: &mut Pinned, range: std::ops::Range<usize>) -> Result<(), DriverError> {
        self.context.bind_to_thread()?;
        let part = &mut to.bytes_mut()[range];
        // SAFETY: as for `copy_in`.
        unsafe { result::memcpy_dtoh_async(part, from, self.stream.cu_stream()) }
    }

    /// Copies on the device.
    ///
    /// # Errors
    /// What the driver says.
    pub fn copy_within(&self, from: u64, to: u64, bytes: usize) -> Result<(), DriverError> {
        self.context.bind_to_thread()?;
        // SAFETY: the caller keeps both ranges inside allocations, and apart.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }
    }

    /// Fills memory with zeros.
    ///
    /// # Errors
    /// What the driver says.
    pub fn clear(&self, at: u64, bytes: usize) -> Result<(), DriverError> {
        self.context.bind_to_thread()?;
        // SAFETY: the caller keeps the range inside an allocation.
        unsafe { result::memset_d8_async(at, 0, bytes, self.stream.cu_stream()) }
    }

    /// Whether this device may read and write the other one's memory; allows it where the driver says so.
    ///
    /// # Errors
    /// What the driver says.
    pub fn reach(&self, peer: &Self) -> Result<bool, DriverError> {
        self.context.bind_to_thread()?;
        if self.context.cu_device() == peer.context.cu_device() {
            return Ok(true);
        }
        let mut can = 0;
        // SAFETY: writes one number; both handles are of opened devices.
        unsafe { sys::cuDeviceCanAccessPeer(&raw mut can, self.context.cu_device(), peer.context.cu_device()) }
            .result()?;
        if can == 0 {
            return Ok(false);
        }
        // SAFETY: a context that is alive, because `peer` holds it.
        match unsafe { sys::cuCtxEnablePeerAccess(peer.context.cu_ctx(), 0) } {
            CUresult::CUDA_SUCCESS | CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => Ok(true),
            // A card has room for few peers at once; without it the host is in between, as without any.
            CUresult::CUDA_ERROR_TOO_MANY_PEERS | CUresult::CUDA_ERROR_PEER_ACCESS_UNSUPPORTED => Ok(false),
            other => Err(DriverError(other)),
        }
    }

    /// Copies to another device, after everything launched on either; what either launches later sees it.
    ///
    /// # Errors
    /// What the driver says.
    pub fn copy_to_peer(&self, from: u64, peer: &Self, to: u64, bytes: usize) -> Result<(), DriverError> {
        let before = peer.event(false)?;
        self.stream.wait(&before)?;
        let (own, other) = (self.context.cu_ctx(), peer.context.cu_ctx());
        self.context.bind_to_thread()?;
        // SAFETY: the caller keeps both ranges inside allocations of the devices named; both contexts are alive.
        unsafe { result::memcpy_peer_async(other, to, own, from, bytes, self.stream.cu_stream()) }?;
        let after = self.event(false)?;
        peer.stream.wait(&after)
    }

    /// Starts a kernel.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// When the arguments are not those of the kernel's table: a mistake of this backend.
    pub fn launch(&self, launch: &Launch) -> Result<(), DriverError> {
        let letters = launch.args.iter().map(|arg| arg.letter());
        let Function { function, kernel, .. } = &launch.function;
        assert!(letters.eq(kernel.takes.bytes()), "{} takes {}, not {:?}", kernel.name, kernel.takes, launch.args);
        let mut builder = self.stream.launch_builder(function);
        for arg in &launch.args {
            match arg {
                Arg::Pointer(value) | Arg::Long(value) => builder.arg(value),
                Arg::Word(value) => builder.arg(value),
                Arg::Float(value) => builder.arg(value),
            };
        }
        let config = LaunchConfig { grid_dim: launch.grid, block_dim: (launch.threads, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the arguments are those that the kernel's source declares (tests compare the table with compiled
        // PTX), and the caller made pointers and sizes from one operation whose operands were checked.
        unsafe { builder.launch(config) }.map(|_| ())
    }

    /// Lets the driver record what `launches` do, to be started at once later. Nothing runs. `None` where it cannot.
    pub fn record(&self, launches: &[Launch]) -> Option<Recorded> {
        self.stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).ok()?;
        let all = launches.iter().all(|launch| self.launch(launch).is_ok());
        // A recording is ended even after an error: the stream takes nothing else before.
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0));
        match (all, graph) {
            (true, Ok(Some(graph))) => Some(Recorded(graph)),
            _ => None,
        }
    }

    /// Starts what was recorded.
    ///
    /// # Errors
    /// What the driver says.
    pub fn replay(&self, recorded: &Recorded) -> Result<(), DriverError> {
        recorded.0.launch()
    }

    /// A mark at the end of everything launched so far, with or without the time.
    ///
    /// # Errors
    /// What the driver says.
    pub fn event(&self, timed: bool) -> Result<CudaEvent, DriverError> {
        let flags =
            if timed { sys::CUevent_flags::CU_EVENT_DEFAULT } else { sys::CUevent_flags::CU_EVENT_DISABLE_TIMING };
        let event = self.context.new_event(Some(flags))?;
        event.record(&self.stream)?;
        Ok(event)
    }

    /// Waits for copies aside.
    ///
    /// # Errors
    /// What the driver says.
    pub fn synchronise_aside(&self) -> Result<(), DriverError> {
        self.aside.synchronize()
    }

    /// Waits for everything launched.
    ///
    /// # Errors
    /// What the driver says.
    pub fn synchronise(&self) -> Result<(), DriverError> {
        self.stream.synchronize()
    }

    /// Bytes free and in all.
    ///
    /// # Errors
    /// What the driver says.
    pub fn memory(&self) -> Result<(u64, u64), DriverError> {
        self.context.mem_get_info().map(|(free, total)| (free as u64, total as u64))
    }
}
