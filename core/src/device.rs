//! A device: a card, a set of processor cores, a phone. Unknown figures are absent.

use crate::cost::OperatorProfile;
use crate::figure::Figure;
use crate::offload::Offload;
use crate::power::PowerPoint;
use crate::thermal::ThermalRecord;
use crate::thermal::governor::{Battery, Governor};
use crate::units::{Bytes, BytesPerSecond, FlopsPerSecond, TokensPerSecond, Watts};
use serde::{Deserialize, Serialize};

/// What kind of hardware a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A set of processor cores with the host's memory.
    Cpu,
    /// A graphics card or accelerator with memory of its own.
    Gpu,
    /// A processor and accelerator that share one memory: Apple, Jetson, phones.
    Unified,
}

/// Whether a device may be trusted to compute. Earned by a self-test on that very device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Support {
    /// Its self-test passed.
    Supported,
    /// Some operations passed.
    Partial,
    /// Under development.
    Experimental,
    /// Never run on such hardware.
    #[default]
    Untested,
}

/// A device and what is known about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Name, unique in its graph.
    pub name: String,
    /// Devices of one class are interchangeable in planning; by default the device table's name.
    pub class: String,
    /// Host it sits in.
    pub host: String,
    /// Site of that host, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Kind of hardware.
    pub kind: DeviceKind,
    /// Backend that drives it: `cpu`, `wgpu`, `cuda`; or `declared` where it is only described.
    pub backend: String,
    /// Whether it may be trusted to compute.
    #[serde(default)]
    pub support: Support,
    /// Identifier that survives reboots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// PCI address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<String>,
    /// Processor cores it consists of, for CPU devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cores: Vec<u32>,
    /// Driver or kernel version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Factor by which it is slowed on purpose, to rehearse a slower device; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowed: Option<f64>,
    /// Memory that a plan may use. CPU devices of one host share theirs, see `memory_pool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<Figure<Bytes>>,
    /// Devices naming one pool draw from one memory, whose size is the smallest `memory_bytes` among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_pool: Option<String>,
    /// Rate at which it reads its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bandwidth_bytes_per_second: Option<Figure<BytesPerSecond>>,
    /// Rate of floating-point work at the model's arithmetic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_flops_per_second: Option<Figure<FlopsPerSecond>>,
    /// Where weights may lie that do not fit its memory; absent where there is no such place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offload: Option<Offload>,
    /// Power drawn when idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_watts: Option<Figure<Watts>>,
    /// Power drawn when busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_watts: Option<Figure<Watts>>,
    /// What it draws while busy at other speeds, fastest first; empty where nothing is known, and power then goes with
    /// the speed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub power_points: Vec<PowerPoint>,
    /// How it warms and throttles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thermal: Option<ThermalRecord>,
    /// How it slows itself when hot, where more than one step is known; in place of the record's throttle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<Governor>,
    /// What it runs on; absent where it runs on the mains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub battery: Option<Battery>,
    /// Measured or declared operator times, one per model geometry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<OperatorProfile>,
    /// Output rate while holding so many contiguous layers, where somebody states only that. A number of layers
    /// that is missing is not allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<(u32, TokensPerSecond)>,
    /// Formats of weights its backend can multiply; empty where nothing is known, which forbids nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub formats: Vec<String>,
    /// Operations that its backend has, by name (see [`OPERATIONS`]); empty where nothing is known, which forbids
    /// nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<String>,
}

/// What every layer of a decoder of the llama family asks of a backend: a norm, products of matrices, rotation by
/// position, the cache of keys and values, attention, the gate of the feed-forward part, sums.
pub const OPERATIONS: [&str; 7] = ["norm", "product", "rotate", "remember", "attend", "gate", "add"];

impl Device {
    /// The first operation of a layer that its backend is known not to have.
    #[must_use]
    pub fn missing_operation(&self) -> Option<&'static str> {
        let has = |operation: &str| self.operations.iter().any(|known| known == operation);
        OPERATIONS.into_iter().find(|operation| !self.operations.is_empty() && !has(operation))
    }

    /// A device of which nothing but its identity is known.
    #[must_use]
    pub fn named(name: impl Into<String>, host: impl Into<String>, kind: DeviceKind) -> Self {
        let name = name.into();
        Self {
            class: name.clone(),
            name,
            host: host.into(),
            site: None,
            kind,
            backend: "declared".to_owned(),
            support: Support::Untested,
            uuid: None,
            pci: None,
            cores: Vec::new(),
            driver: None,
            slowed: None,
            memory_bytes: None,
            memory_pool: None,
            memory_bandwidth_bytes_per_second: None,
            compute_flops_per_second: None,
            offload: None,
            idle_watts: None,
            busy_watts: None,
            power_points: Vec::new(),
            thermal: None,
            governor: None,
            battery: None,
            profiles: Vec::new(),
            rates: Vec::new(),
            formats: Vec::new(),
            operations: Vec::new(),
        }
    }
}
