//! NVIDIA's cards through the CUDA driver.
//!
//! Nothing of CUDA is needed to build or start the program: driver and run-time compiler are looked for when they are
//! asked for. The kernels' source is part of the program and is compiled for the card that is found (`compile.rs`),
//! once for each format that a model uses; PTX is kept by digest. Every opened device has one stream; a step that is
//! asked for again is recorded as a graph and started as one (`plan.rs`).
//!
//! All unsafe code is in `driver.rs` and `library.rs`.

mod compile;
mod device;
mod driver;
pub mod kernels;
mod library;
mod plan;
pub mod planes;

use super::contract::{Backend, DeviceInfo, Hardware, Platform};
use super::error::DeviceError;
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;
use std::fmt::Write as _;
use std::path::PathBuf;

pub use compile::{MakeError, ptx};

/// The name that the project's stand-in for the driver gives its devices. It ends up in [`Hardware::Emulated`], so
/// that nothing that ran on it is ever taken for a card.
const EMULATED: &str = "host-emulated";

/// The CUDA driver of this host.
#[derive(Clone, Debug, Default)]
pub struct CudaPlatform {
    /// Folder that keeps compiled kernels; none are kept where it is absent.
    pub cache: Option<PathBuf>,
    /// Whether products of many rows in [`crate::cpu::Arithmetic::Int8`] may use tensor cores. Their sums are exact in
    /// the integers but added in another order than those of few rows, so that results depend on the batch in their
    /// last bits.
    pub tensor_cores: bool,
}

impl CudaPlatform {
    fn count() -> Result<usize, DeviceError> {
        if !library::has_driver() {
            let why = "the driver's library (libcuda) is not installed".to_owned();
            return Err(DeviceError::NoDriver { backend: "cuda", why });
        }
        driver::count().map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_NO_DEVICE => DeviceError::NoSuchDevice { backend: "cuda", wanted: 0, found: 0 },
            _ => DeviceError::NoDriver { backend: "cuda", why: words(error) },
        })
    }

    fn info(index: usize) -> Result<(DeviceInfo, driver::Facts), DeviceError> {
        let facts = driver::facts(index)
            .map_err(|error| failed(&format!("cuda device {index}"), "asking what it is", error))?;
        let emulated = facts.name.starts_with(EMULATED);
        // A slice of a card has its card's address on the bus, and is yet a device of its own.
        let slice = facts.name.contains("MIG ");
        let (domain, bus, device) = facts.pci;
        let version = format!("{}.{}", facts.driver / 1000, facts.driver % 1000 / 10);
        let info = DeviceInfo {
            // What runs on the stand-in is called by another name in everything that is printed.
            backend: if emulated { EMULATED } else { "cuda" },
            index,
            name: facts.name.clone(),
            interface: if emulated { "host-emulated driver".to_owned() } else { format!("CUDA driver {version}") },
            driver: (!emulated).then_some(version),
            hardware: if emulated {
                Hardware::Emulated
            } else if slice {
                Hardware::Virtual
            } else if facts.integrated {
                Hardware::Integrated
            } else {
                Hardware::Discrete
            },
            pci: (!slice && !emulated).then(|| format!("{domain:04x}:{bus:02x}:{device:02x}.0")),
            uuid: Some(uuid(facts.uuid)),
            ids: None,
            memory_bytes: Some(facts.memory_bytes),
        };
        Ok((info, facts))
    }
}

impl Platform for CudaPlatform {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>, DeviceError> {
        match Self::count() {
            Ok(count) => (0..count).map(|index| Self::info(index).map(|(info, _)| info)).collect(),
            // A driver without a card is an answer, not an error.
            Err(DeviceError::NoSuchDevice { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn open(&self, index: usize) -> Result<Box<dyn Backend>, DeviceError> {
        let found = Self::count()?;
        if index >= found {
            return Err(DeviceError::NoSuchDevice { backend: "cuda", wanted: index, found });
        }
        let (info, facts) = Self::info(index)?;
        Ok(Box::new(device::CudaDevice::open(info, facts.capability, self.clone())?))
    }

    fn refills_beside(&self) -> bool {
        true
    }
}

/// An identifier in the form that the vendor's tools print, without its prefix.
fn uuid(bytes: [u8; 16]) -> String {
    let mut out = String::new();
    for (i, byte) in bytes.into_iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// The driver's code and words.
fn words(error: DriverError) -> String {
    match error.error_name() {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => format!("code {}", error.0 as u32),
    }
}

/// What an answer of the driver means.
fn failed(device: &str, during: &'static str, error: DriverError) -> DeviceError {
    let (device, why) = (device.to_owned(), words(error));
    match error.0 {
        CUresult::CUDA_ERROR_NOT_SUPPORTED => DeviceError::NotSupported { device, what: during.to_owned() },
        // After these a context answers nothing else any more.
        CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE
        | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
        | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
        | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
        | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | CUresult::CUDA_ERROR_ASSERT
        | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
        | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | CUresult::CUDA_ERROR_INVALID_PC
        | CUresult::CUDA_ERROR_LAUNCH_FAILED
        | CUresult::CUDA_ERROR_UNKNOWN => DeviceError::Lost { device, during, why },
        _ => DeviceError::Driver { device, during, why },
    }
}
