//! Vulkan, Metal, Direct3D 12 and OpenGL through wgpu, loaded at run time: where none is there, there is no device.

mod decode;
mod encode;
#[cfg(target_os = "linux")]
mod hush;
mod pack;
mod pipelines;
mod product_shader;
mod products;
mod queue;
mod row_shader;
mod shader;
mod timing;

use super::contract::{Backend, DeviceInfo, Hardware, Platform};
use super::error::DeviceError;
use std::path::PathBuf;
use std::sync::OnceLock;
use wgpu::{Adapter, Backends, DeviceType, DownlevelFlags, Features, Instance, InstanceDescriptor};

/// What the kernels are made from: the texts that write them, lay weights out for them and choose among them. A receipt
/// holds for exactly these.
pub const SOURCES: [&str; 8] = [
    include_str!("decode.rs"),
    include_str!("encode.rs"),
    include_str!("pack.rs"),
    include_str!("product_shader.rs"),
    include_str!("products.rs"),
    include_str!("queue.rs"),
    include_str!("row_shader.rs"),
    include_str!("shader.rs"),
];

/// The name of OpenGL among interfaces.
pub const GL: &str = "OpenGL";

/// How devices are opened. The default is what a card takes; tests make limits small on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WgpuOptions {
    /// Most bytes of one binding, where it is to be less than the device's own limit.
    pub binding_bytes_max: Option<u64>,
    /// Memory that an opening may take; unbounded but by the driver where absent.
    pub memory_bytes: Option<u64>,
    /// Whether subgroup operations are used: absent to use them where the device has one size of them.
    pub subgroups: Option<bool>,
    /// Whether half-precision numbers among weights are read as such: absent to do so where the device can.
    pub halves: Option<bool>,
    /// Whether OpenGL is asked beside the other interfaces, and not only where none of them has a device.
    pub gl: bool,
    /// Threads that share a row of a matrix, a power of two up to 64; absent to choose for the device.
    pub lanes: Option<u32>,
    /// Folder where compiled pipelines are kept, where the interface lets them.
    pub cache: Option<PathBuf>,
}

/// The graphics interfaces of this host.
pub struct WgpuPlatform {
    instance: Instance,
    /// OpenGL alone, made when nothing else has a device.
    gl: OnceLock<Instance>,
    options: WgpuOptions,
}

/// Interfaces without OpenGL: on a host that has one of these it is the same card again, with less.
const BETTER: Backends = Backends::VULKAN.union(Backends::METAL).union(Backends::DX12).union(Backends::BROWSER_WEBGPU);

fn instance(backends: Backends) -> Instance {
    // Drivers of Linux ask the window system which card it uses.
    #[cfg(target_os = "linux")]
    hush::wayland();
    let mut descriptor = InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    Instance::new(descriptor)
}

impl WgpuPlatform {
    /// Looks for interfaces. Finding none is no error: there are no devices then.
    #[must_use]
    pub fn new(options: WgpuOptions) -> Self {
        let backends = if options.gl { BETTER | Backends::GL } else { BETTER };
        Self { instance: instance(backends), gl: OnceLock::new(), options }
    }

    /// Adapters that compute, one for each device and interface, those of OpenGL last.
    fn adapters(&self) -> Vec<Adapter> {
        let of = |instance: &Instance| answer(instance.enumerate_adapters(Backends::all())).unwrap_or_default();
        let mut adapters = of(&self.instance);
        if adapters.is_empty() && !self.options.gl {
            adapters = of(self.gl.get_or_init(|| instance(Backends::GL)));
        }
        adapters.retain(|adapter| adapter.get_downlevel_capabilities().flags.contains(DownlevelFlags::COMPUTE_SHADERS));
        adapters.sort_by_key(|adapter| adapter.get_info().backend == wgpu::Backend::Gl);
        adapters
    }
}

/// What an interface answers. Those of a host answer while they are asked. A browser answers later, and nobody may wait
/// for it there: an answer that is not there at once is `None`.
fn answer<T>(future: impl Future<Output = T>) -> Option<T> {
    #[cfg(not(target_family = "wasm"))]
    return Some(pollster::block_on(future));
    #[cfg(target_family = "wasm")]
    match std::pin::pin!(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(answer) => Some(answer),
        std::task::Poll::Pending => None,
    }
}

fn info(adapter: &Adapter, index: usize) -> DeviceInfo {
    let found = adapter.get_info();
    let hardware = match found.device_type {
        DeviceType::DiscreteGpu => Hardware::Discrete,
        DeviceType::IntegratedGpu => Hardware::Integrated,
        DeviceType::VirtualGpu => Hardware::Virtual,
        DeviceType::Cpu => Hardware::Software,
        DeviceType::Other => Hardware::Unknown,
    };
    let some = |text: &str| (!text.trim().is_empty()).then(|| text.trim().to_owned());
    DeviceInfo {
        backend: "wgpu",
        index,
        name: found.name.clone(),
        interface: match found.backend {
            wgpu::Backend::Vulkan => "Vulkan",
            wgpu::Backend::Metal => "Metal",
            wgpu::Backend::Dx12 => "Direct3D 12",
            wgpu::Backend::Gl => GL,
            wgpu::Backend::BrowserWebGpu => "WebGPU",
            wgpu::Backend::Noop => "none",
        }
        .to_owned(),
        driver: some(&format!("{} {}", found.driver, found.driver_info)),
        hardware,
        pci: some(&found.device_pci_bus_id.to_lowercase()).filter(|_| hardware != Hardware::Software),
        uuid: None,
        ids: (found.vendor != 0).then_some((found.vendor, found.device)),
        // The portable interfaces do not tell.
        memory_bytes: None,
    }
}

/// Features that are used where the device has them.
const WANTED: Features = Features::SUBGROUP
    .union(Features::SHADER_F16)
    .union(Features::PIPELINE_CACHE)
    .union(Features::TIMESTAMP_QUERY)
    .union(Features::TIMESTAMP_QUERY_INSIDE_ENCODERS);

impl Platform for WgpuPlatform {
    fn name(&self) -> &'static str {
        "wgpu"
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>, DeviceError> {
        let adapters = self.adapters();
        if adapters.is_empty() {
            let why = "no Vulkan, Metal, Direct3D 12 or OpenGL driver answers".to_owned();
            return Err(DeviceError::NoDriver { backend: "wgpu", why });
        }
        Ok(adapters.iter().enumerate().map(|(index, adapter)| info(adapter, index)).collect())
    }

    fn open(&self, index: usize) -> Result<Box<dyn Backend>, DeviceError> {
        let adapters = self.adapters();
        let found = adapters.len();
        if found == 0 {
            let why = "no Vulkan, Metal, Direct3D 12 or OpenGL driver answers".to_owned();
            return Err(DeviceError::NoDriver { backend: "wgpu", why });
        }
        let Some(adapter) = adapters.into_iter().nth(index) else {
            return Err(DeviceError::NoSuchDevice { backend: "wgpu", wanted: index, found });
        };
        Ok(Box::new(queue::Wgpu::open(&adapter, info(&adapter, index), WANTED, &self.options)?))
    }
}
