//! Devices that the engine runs stages on.

use crate::backend::{Device, DeviceError, Platform};
use crate::cpu::{Arithmetic, Isa};
use std::sync::Arc;

/// A device behind the contract of [`crate::backend`].
#[derive(Clone)]
pub struct Card {
    /// Who opens it.
    pub platform: Arc<dyn Platform>,
    /// Its number there.
    pub index: usize,
}

impl Card {
    /// Opens it anew.
    ///
    /// # Errors
    /// What the driver says.
    pub fn open(&self) -> Result<Device, DeviceError> {
        Device::open(&*self.platform, self.index)
    }
}

impl std::fmt::Debug for Card {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.platform.name(), self.index)
    }
}

impl PartialEq for Card {
    fn eq(&self, other: &Self) -> bool {
        (self.platform.name(), self.index) == (other.platform.name(), other.index)
    }
}

impl Eq for Card {}

/// Some cores of this host, or a card, as one device. Devices may share cores; they then share their time too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuDevice {
    /// Its name in plans.
    pub name: String,
    /// The cores, one worker thread on each; at least one.
    pub cores: Vec<usize>,
    /// The card, where it is one: then it has no cores.
    pub card: Option<Card>,
    /// Thousandths of its own time by which it holds every pass longer: 1000 makes it half as fast. To rehearse slower
    /// devices; 0 for none.
    pub held: u32,
}

impl CpuDevice {
    /// A device of these cores.
    #[must_use]
    pub fn new(name: impl Into<String>, cores: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), cores: cores.into(), card: None, held: 0 }
    }

    /// A device that is a card.
    #[must_use]
    pub fn of_card(name: impl Into<String>, card: Card) -> Self {
        Self { name: name.into(), cores: Vec::new(), card: Some(card), held: 0 }
    }

    /// The same device slowed by a factor of at least 1, to rehearse a slower one.
    #[must_use]
    pub fn slowed(self, factor: Option<f64>) -> Self {
        let held = factor.map_or(0.0, |factor| (factor - 1.0).clamp(0.0, 1000.0) * 1000.0);
        Self { held: held.round() as u32, ..self }
    }

    /// The factor by which it is slowed; absent where it is not.
    #[must_use]
    pub fn slowdown(&self) -> Option<f64> {
        (self.held > 0).then(|| 1.0 + f64::from(self.held) / 1000.0)
    }

    /// Whether there is nothing to compute on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cores.is_empty() && self.card.is_none()
    }

    /// This host's cores that the process may use; empty where the system does not say.
    #[must_use]
    pub fn host_cores() -> Vec<usize> {
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
    }

    /// The host's cores as `count` devices `cpu0`, `cpu1` ... of equal size. With more devices than cores they share
    /// cores in turn.
    #[must_use]
    pub fn split_host(count: usize) -> Vec<Self> {
        let mut cores = Self::host_cores();
        if cores.is_empty() {
            cores.push(0);
        }
        (0..count)
            .map(|device| {
                let each = cores.len() / count;
                let own = if each == 0 {
                    vec![cores[device % cores.len()]]
                } else {
                    cores[device * each..(device + 1) * each].to_vec()
                };
                Self::new(format!("cpu{device}"), own)
            })
            .collect()
    }
}

/// How kernels compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    /// Instruction set.
    pub isa: Isa,
    /// Arithmetic of products.
    pub arithmetic: Arithmetic,
}

impl Kernels {
    /// The best instructions of this processor, in an arithmetic by its name, as profiles and manifests give it; none where
    /// this program does not compute in it.
    #[must_use]
    pub fn of(arithmetic: &str) -> Option<Self> {
        let known = [Arithmetic::F32, Arithmetic::Int8].into_iter().find(|known| known.name() == arithmetic)?;
        Some(Self { arithmetic: known, ..Self::detect() })
    }

    /// The best instructions of this processor, in single precision.
    #[must_use]
    pub fn detect() -> Self {
        Self { isa: Isa::detect(), arithmetic: Arithmetic::F32 }
    }
}
