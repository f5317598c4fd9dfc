//! NVIDIA's management library: what its cards do, read through the library that comes with the driver.
//!
//! The library is looked for when it is asked for and never linked, so that the same program runs without it. Names, codes
//! and layouts are those of the header `nvml.h` (NVIDIA, "NVML API Reference Guide", version 12). A figure that a card does
//! not have is answered by an error of the library, and is absent here. Untested on hardware: it was run against a stand-in
//! library of the same interface.

use super::Sample;
use isotherm_core::units::{Bytes, Celsius, Hertz, Joules, Watts};
use libloading::Library;
use serde::{Serialize, Serializer};
use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Names of the library, by platform.
const NAMES: [&str; 3] = ["libnvidia-ml.so.1", "libnvidia-ml.so", "nvml.dll"];
/// Cards beyond which the library is taken for damaged.
const CARDS_MAX: u32 = 256;

/// A card as the library knows it: a pointer of its own that stays valid until the library is shut down.
type Handle = *mut c_void;

/// Why there is no library.
#[derive(Debug, thiserror::Error)]
pub enum NvmlError {
    /// None of its names can be loaded.
    #[error("NVIDIA's management library cannot be loaded: {0}")]
    Absent(String),
    /// It has not what this program needs.
    #[error("NVIDIA's management library lacks {0}; install a newer driver")]
    Lacks(&'static str),
    /// It does not start.
    #[error("NVIDIA's management library does not start: code {0}")]
    Start(c_int),
}

/// Why a card's clock is held down, as flags of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reasons(pub u64);

impl Reasons {
    const NAMES: [(u64, &'static str); 9] = [
        (0x1, "idle"),
        (0x2, "clock set by an application"),
        (0x4, "power limit"),
        (0x8, "hardware slowdown"),
        (0x10, "held to other cards"),
        (0x20, "temperature, by software"),
        (0x40, "temperature, by hardware"),
        (0x80, "power brake"),
        (0x100, "clock set for a display"),
    ];

    /// The reasons in words.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(flag, _)| self.0 & flag != 0).map(|(_, name)| name)
    }

    /// Whether heat is among them.
    #[must_use]
    pub const fn is_heat(self) -> bool {
        self.0 & (0x8 | 0x20 | 0x40) != 0
    }
}

impl Serialize for Reasons {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.words())
    }
}

/// What does not change of a card.
#[derive(Clone, Debug, PartialEq)]
pub struct NvmlCard {
    /// Its number.
    pub index: u32,
    /// Its UUID, `GPU-...` or `MIG-...`.
    pub uuid: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its PCI address, `dddd:bb:dd.f`.
    pub pci: Option<String>,
    /// All its memory.
    pub memory_bytes: Option<Bytes>,
    /// Temperature at which it slows itself.
    pub slowdown_celsius: Option<Celsius>,
    /// The power limit in force, and the least and most that may be set.
    pub power_limit_watts: Option<Watts>,
    /// See `power_limit_watts`.
    pub power_range_watts: Option<(Watts, Watts)>,
}

/// The library, started.
#[derive(Debug)]
pub struct Nvml {
    library: Library,
    driver: Option<String>,
    cards: Vec<NvmlCard>,
}

/// Layouts of the header.
#[repr(C)]
#[derive(Default)]
struct Memory {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

#[repr(C)]
#[derive(Default)]
struct Utilisation {
    gpu: c_uint,
    memory: c_uint,
}

#[repr(C)]
struct PciInfo {
    legacy: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    ids: c_uint,
    subsystem_ids: c_uint,
    address: [c_char; 32],
}

impl Nvml {
    /// Loads and starts the library, from the system's search path or from a file.
    ///
    /// # Errors
    /// It is not there, is too old, or does not start.
    pub fn open(file: Option<&Path>) -> Result<Self, NvmlError> {
        let mut last = "no name was tried".to_owned();
        let mut load = |name: &std::ffi::OsStr| {
            // SAFETY: loads NVIDIA's library, or the file that the caller names in its place; its initialisers run, as they
            // do for every program that uses it.
            unsafe { Library::new(name) }.map_err(|error| last = error.to_string()).ok()
        };
        let library = match file {
            Some(file) => load(file.as_os_str()),
            None => NAMES.iter().find_map(|name| load(name.as_ref())),
        };
        let Some(library) = library else { return Err(NvmlError::Absent(last)) };
        let mut nvml = Self { library, driver: None, cards: Vec::new() };
        let init =
            nvml.function::<unsafe extern "C" fn() -> c_int>("nvmlInit_v2").ok_or(NvmlError::Lacks("nvmlInit_v2"))?;
        // SAFETY: the signature is the header's; it takes nothing.
        match unsafe { init() } {
            0 => {}
            code => return Err(NvmlError::Start(code)),
        }
        nvml.driver = nvml.text(|nvml| {
            let read: unsafe extern "C" fn(*mut c_char, c_uint) -> c_int =
                *nvml.function("nvmlSystemGetDriverVersion")?;
            // SAFETY: the buffer is as long as it is said to be.
            Some(Box::new(move |buffer: &mut [c_char]| unsafe { read(buffer.as_mut_ptr(), buffer.len() as c_uint) }))
        });
        let count: u32 = nvml.system("nvmlDeviceGetCount_v2").unwrap_or(0);
        nvml.cards = (0..count.min(CARDS_MAX)).filter_map(|index| nvml.card(index)).collect();
        Ok(nvml)
    }

    /// The library of this host, loaded once for the life of the process; none where there is none.
    #[must_use]
    pub fn of_host() -> Option<&'static Arc<Self>> {
        static FOUND: OnceLock<Option<Arc<Nvml>>> = OnceLock::new();
        FOUND.get_or_init(|| Self::open(None).ok().map(Arc::new)).as_ref()
    }

    /// The driver's version.
    #[must_use]
    pub fn driver(&self) -> Option<&str> {
        self.driver.as_deref()
    }

    /// The cards, in the library's order.
    #[must_use]
    pub fn cards(&self) -> &[NvmlCard] {
        &self.cards
    }

    /// Reads a card once; a card that does not answer any more gives a sample that says so.
    #[must_use]
    pub fn sample(&self, index: u32, device: usize, at_ms: u64) -> Sample {
        let silent = Sample { device, at_ms, ..Sample::default() };
        let Some(handle) = self.handle(index) else { return silent };
        let memory: Option<Memory> = self.figure("nvmlDeviceGetMemoryInfo", handle);
        let busy: Option<Utilisation> = self.figure("nvmlDeviceGetUtilizationRates", handle);
        let temperature: Option<c_uint> = self.chosen("nvmlDeviceGetTemperature", handle, 0);
        let reasons: Option<c_ulonglong> = self
            .figure("nvmlDeviceGetCurrentClocksEventReasons", handle)
            .or_else(|| self.figure("nvmlDeviceGetCurrentClocksThrottleReasons", handle));
        let reasons = reasons.map(Reasons);
        let milli = |value: c_uint| f64::from(value) / 1e3;
        let energy: Option<c_ulonglong> = self.figure("nvmlDeviceGetTotalEnergyConsumption", handle);
        Sample {
            device,
            at_ms,
            // A card that fell off its bus answers no question at all.
            answered: memory.is_some() || temperature.is_some() || busy.is_some(),
            celsius: temperature.and_then(|celsius| Celsius::new(f64::from(celsius)).ok()),
            hot_spot_celsius: None,
            memory_celsius: None,
            watts: self.figure("nvmlDeviceGetPowerUsage", handle).and_then(|mw| Watts::new(milli(mw)).ok()),
            joules: energy.and_then(|mj| Joules::new(mj as f64 / 1e3).ok()),
            clock_hertz: self
                .chosen::<c_uint>("nvmlDeviceGetClockInfo", handle, 1)
                .and_then(|mhz| Hertz::new(f64::from(mhz) * 1e6).ok()),
            busy: busy.filter(|busy| busy.gpu <= 100).map(|busy| f64::from(busy.gpu) / 100.0),
            memory_used_bytes: memory.map(|memory| Bytes(memory.used)),
            // The library tells a share of full speed, no turns.
            fan_rpm: None,
            throttled: reasons.map(Reasons::is_heat),
            reasons,
        }
    }

    /// Sets a card's power limit; whether the driver took it, which it does from the root user only.
    #[must_use]
    pub fn set_power_limit(&self, index: u32, watts: Watts) -> bool {
        let set = self.function::<unsafe extern "C" fn(Handle, c_uint) -> c_int>("nvmlDeviceSetPowerManagementLimit");
        let (Some(set), Some(handle)) = (set, self.handle(index)) else { return false };
        // SAFETY: the handle is one that the library gave.
        unsafe { set(handle, (watts.value().max(0.0) * 1e3) as c_uint) == 0 }
    }

    fn card(&self, index: u32) -> Option<NvmlCard> {
        let handle = self.handle(index)?;
        let words = |name: &'static str| {
            self.text(|nvml| {
                let read: unsafe extern "C" fn(Handle, *mut c_char, c_uint) -> c_int = *nvml.function(name)?;
                // SAFETY: the handle is the library's, and the buffer as long as it is said to be.
                Some(Box::new(move |buffer: &mut [c_char]| unsafe {
                    read(handle, buffer.as_mut_ptr(), buffer.len() as c_uint)
                }))
            })
        };
        let milli = |value: c_uint| Watts::of(f64::from(value) / 1e3);
        let pci: Option<PciInfo> = self.figure("nvmlDeviceGetPciInfo_v3", handle);
        let memory: Option<Memory> = self.figure("nvmlDeviceGetMemoryInfo", handle);
        Some(NvmlCard {
            index,
            uuid: words("nvmlDeviceGetUUID"),
            name: words("nvmlDeviceGetName"),
            pci: pci.map(|pci| format!("{:04x}:{:02x}:{:02x}.0", pci.domain, pci.bus & 0xff, pci.device & 0x1f)),
            memory_bytes: memory.map(|memory| Bytes(memory.total)),
            slowdown_celsius: self
                .chosen::<c_uint>("nvmlDeviceGetTemperatureThreshold", handle, 1)
                .and_then(|celsius| Celsius::new(f64::from(celsius)).ok()),
            power_limit_watts: self.figure("nvmlDeviceGetPowerManagementLimit", handle).map(milli),
            power_range_watts: self.range(handle),
        })
    }

    /// The least and greatest power limit, which the library writes to two places.
    fn range(&self, handle: Handle) -> Option<(Watts, Watts)> {
        let read: unsafe extern "C" fn(Handle, *mut c_uint, *mut c_uint) -> c_int =
            *self.function("nvmlDeviceGetPowerManagementLimitConstraints")?;
        let (mut least, mut most) = (0, 0);
        // SAFETY: the handle is the library's, and both places are of this function.
        let code = unsafe { read(handle, &raw mut least, &raw mut most) };
        (code == 0 && least < most).then(|| (Watts::of(f64::from(least) / 1e3), Watts::of(f64::from(most) / 1e3)))
    }

    fn function<F>(&self, name: &'static str) -> Option<libloading::Symbol<'_, F>> {
        // SAFETY: every caller names a type that is the header's for this function.
        unsafe { self.library.get(name.as_bytes()) }.ok()
    }

    fn handle(&self, index: u32) -> Option<Handle> {
        let get: unsafe extern "C" fn(c_uint, *mut Handle) -> c_int =
            *self.function("nvmlDeviceGetHandleByIndex_v2")?;
        let mut handle: Handle = std::ptr::null_mut();
        // SAFETY: the place is of this function.
        let code = unsafe { get(index, &raw mut handle) };
        (code == 0 && !handle.is_null()).then_some(handle)
    }

    /// A figure of the whole system.
    fn system<T: Default>(&self, name: &'static str) -> Option<T> {
        let read: unsafe extern "C" fn(*mut T) -> c_int = *self.function(name)?;
        let mut value = T::default();
        // SAFETY: the place is of the layout that the header gives this function.
        (unsafe { read(&raw mut value) } == 0).then_some(value)
    }

    /// A figure of a card.
    fn figure<T>(&self, name: &'static str, handle: Handle) -> Option<T> {
        let read: unsafe extern "C" fn(Handle, *mut T) -> c_int = *self.function(name)?;
        let mut value = std::mem::MaybeUninit::<T>::zeroed();
        // SAFETY: the handle is the library's, and the place is of the layout that the header gives this function. All
        // layouts here are of integers, of which zeroes are valid ones, so that what a function leaves out is zero.
        unsafe { if read(handle, value.as_mut_ptr()) == 0 { Some(value.assume_init()) } else { None } }
    }

    /// A figure of a card, of a kind.
    fn chosen<T>(&self, name: &'static str, handle: Handle, kind: c_int) -> Option<T> {
        let read: unsafe extern "C" fn(Handle, c_int, *mut T) -> c_int = *self.function(name)?;
        let mut value = std::mem::MaybeUninit::<T>::zeroed();
        // SAFETY: as above; enumerations are passed as C integers.
        unsafe { if read(handle, kind, value.as_mut_ptr()) == 0 { Some(value.assume_init()) } else { None } }
    }

    /// A text that some function of the library writes.
    fn text<'n>(&'n self, reader: impl FnOnce(&'n Self) -> Option<Read<'n>>) -> Option<String> {
        let read = reader(self)?;
        let mut buffer: [c_char; 128] = [0; 128];
        if read(&mut buffer[..127]) != 0 {
            return None;
        }
        let bytes: Vec<u8> = buffer.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8).collect();
        String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
    }
}

/// Fills a buffer and gives a code.
type Read<'n> = Box<dyn Fn(&mut [c_char]) -> c_int + 'n>;

impl Drop for Nvml {
    fn drop(&mut self) {
        let end = self.function::<unsafe extern "C" fn() -> c_int>("nvmlShutdown").map(|end| *end);
        if let Some(end) = end {
            // SAFETY: the library was started, and no handle is used after this.
            unsafe { end() };
        }
    }
}
