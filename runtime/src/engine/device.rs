//! Devices that the engine runs stages on.

use crate::cpu::{Arithmetic, Isa};

/// Some cores of this host, as one device. Devices may share cores; they then share their time too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuDevice {
    /// Its name in plans.
    pub name: String,
    /// The cores, one worker thread on each; at least one.
    pub cores: Vec<usize>,
}

impl CpuDevice {
    /// A device of these cores.
    #[must_use]
    pub fn new(name: impl Into<String>, cores: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), cores: cores.into() }
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
    /// The best instructions of this processor, in single precision.
    #[must_use]
    pub fn detect() -> Self {
        Self { isa: Isa::detect(), arithmetic: Arithmetic::F32 }
    }
}
