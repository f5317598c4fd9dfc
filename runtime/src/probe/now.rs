//! What holds for a device at the moment: its driver, its clock, its temperature.

use crate::discover::Machine;
use crate::engine::{CpuDevice, Kernels};
use crate::host::{Roots, text};
use crate::telemetry::Sampler;
use isotherm_core::artefact::TOOL_VERSION;
use isotherm_core::cost::Conditions;
use isotherm_core::units::Hertz;

/// Driver, kernels, clock and temperature of a device, as far as system and driver tell them.
#[must_use]
pub fn conditions(roots: &Roots, device: &CpuDevice, kernels: Kernels) -> Conditions {
    let machine = Machine::discover(roots);
    let mut sampler = Sampler::of_host(roots, &machine);
    let samples = sampler.sample(0);
    let Some(card) = &device.card else {
        let sample = samples.first();
        let release = text(&roots.proc.join("sys/kernel/osrelease"));
        return Conditions {
            driver: release.map(|release| format!("kernel {release}")),
            kernels: Some(format!("{:?}, isotherm {TOOL_VERSION}", kernels.isa).to_lowercase()),
            clock_hertz: sample.and_then(|sample| sample.clock_hertz).or_else(|| told_clock(roots, &device.cores)),
            temperature_celsius: sample.and_then(|sample| sample.celsius),
            ..Conditions::default()
        };
    };
    let info = card.platform.devices().ok().and_then(|all| all.into_iter().find(|info| info.index == card.index));
    let Some(info) = info else { return Conditions::default() };
    let place = machine.cards.iter().position(|card| card.pci.is_some() && card.pci == info.pci);
    // The processor comes before the cards.
    let sample = place.and_then(|place| samples.get(place + 1));
    Conditions {
        driver: info.driver,
        kernels: Some(format!("{}, isotherm {TOOL_VERSION}", info.backend)),
        clock_hertz: sample.and_then(|sample| sample.clock_hertz),
        temperature_celsius: sample.and_then(|sample| sample.celsius),
        ..Conditions::default()
    }
}

/// The clock that `/proc/cpuinfo` tells of a device's first core. Guests of virtual machines know no other.
fn told_clock(roots: &Roots, cores: &[usize]) -> Option<Hertz> {
    let info = text(&roots.proc.join("cpuinfo"))?;
    let first = cores.first().copied().unwrap_or(0);
    let mut clocks = info.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "cpu MHz").then(|| value.trim().parse::<f64>().ok()).flatten()
    });
    Hertz::new(clocks.nth(first)? * 1e6).ok().filter(|clock| clock.value() > 0.0)
}
