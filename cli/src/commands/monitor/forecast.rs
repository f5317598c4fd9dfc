//! What a device will be like soon, and what a plan has put on it.
//!
//! The forecast is the thermal node that was identified for the device, from its temperature and power now. Without a node,
//! a temperature, a power or the temperature of the air there is none.

use super::{Ring, Watched};
use isotherm_core::device::Device;
use isotherm_core::graph::DevicesFile;
use isotherm_core::plan::Plan;
use isotherm_core::thermal::{ThermalNode, ThermalState};
use isotherm_core::units::{Celsius, Seconds, Watts};

/// How far ahead it looks.
pub(super) const AHEAD_SECONDS: f64 = 60.0;

/// What is known of one sampled device beside its samples.
#[derive(Default)]
pub(super) struct Known {
    node: Option<ThermalNode>,
    limit: Option<Celsius>,
    /// Stages that a plan put on it, in words.
    pub(super) stages: Vec<String>,
}

/// A temperature to come.
#[derive(Clone, Copy)]
pub(super) struct Forecast {
    /// After [`AHEAD_SECONDS`], if it goes on as now.
    pub(super) soon: Celsius,
    /// Time until its limit, where it gets there.
    pub(super) limit_in: Option<Seconds>,
}

/// What a file of devices and a plan tell of the sampled devices, in their order.
pub(super) fn known(
    watched: &[Watched],
    file: Option<&DevicesFile>,
    plan: Option<&Plan>,
    air: Option<Celsius>,
) -> Vec<Known> {
    let same = |watched: &Watched, device: &Device| {
        let by_pci = device.pci.as_ref().is_some_and(|pci| watched.key == format!("pci-{pci}"));
        (watched.key == "cpu" && device.backend == "cpu") || device.uuid.as_ref() == Some(&watched.key) || by_pci
    };
    let of = |watched: &Watched| {
        let devices: Vec<&Device> =
            file.iter().flat_map(|file| &file.devices).filter(|device| same(watched, device)).collect();
        let record = devices.iter().find_map(|device| device.thermal.as_ref());
        let throttle = record.and_then(|record| record.throttle_celsius.as_ref()).map(|figure| figure.value);
        let stages = plan.iter().flat_map(|plan| plan.stages.iter().enumerate()).filter_map(|(number, stage)| {
            let name = stage.devices.iter().find(|name| devices.iter().any(|device| device.name == **name))?;
            Some(format!("{number}: layers {}-{} on {name}", stage.layers.start, stage.layers.end.saturating_sub(1)))
        });
        Known {
            node: record.zip(air).map(|(record, air)| ThermalNode::of(record, air)),
            limit: throttle.or(watched.critical_celsius),
            stages: stages.collect(),
        }
    };
    watched.iter().map(of).collect()
}

/// The forecast of a device; none where something it takes is unknown.
pub(super) fn forecast(known: &Known, ring: &Ring, device: usize) -> Option<Forecast> {
    let mut newest = ring.of(device).rev();
    let (now, before) = (newest.next()?, newest.next());
    let watts = now.watts.or_else(|| {
        let before = before?;
        let seconds = now.at_ms.checked_sub(before.at_ms)? as f64 / 1e3;
        Watts::new((now.joules?.value() - before.joules?.value()) / seconds).ok().filter(|_| seconds > 0.0)
    })?;
    let state = ThermalState::new(known.node?, now.celsius?);
    let mut soon = state;
    soon.advance(Seconds::of(AHEAD_SECONDS), watts);
    Some(Forecast { soon: soon.temperature(), limit_in: known.limit.and_then(|limit| state.crossing(limit, watts)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_core::device::DeviceKind;
    use isotherm_core::figure::Figure;
    use isotherm_core::thermal::ThermalRecord;
    use isotherm_core::units::{JoulesPerKelvin, KelvinPerWatt};
    use isotherm_runtime::telemetry::Sample;

    #[test]
    fn a_forecast_is_the_node_advanced_and_takes_everything_it_needs() {
        let record = ThermalRecord {
            resistance_kelvin_per_watt: Figure::declared(KelvinPerWatt::of(0.5), "test"),
            capacity_joules_per_kelvin: Figure::declared(JoulesPerKelvin::of(100.0), "test"),
            throttle_celsius: Some(Figure::declared(Celsius::of(80.0), "test")),
            resume_celsius: None,
            throttled_speed: None,
            die: None,
            case: None,
            fan: None,
        };
        let card = Device {
            pci: Some("0000:0b:00.0".to_owned()),
            thermal: Some(record),
            ..Device::named("card", "host", DeviceKind::Gpu)
        };
        let file = DevicesFile {
            header: isotherm_core::artefact::Header::new("isotherm.devices/v1", Vec::new()),
            host: std::collections::BTreeMap::new(),
            devices: vec![card],
            junctions: Vec::new(),
            links: Vec::new(),
            groups: Vec::new(),
            co_run: Vec::new(),
            coordinator: None,
        };
        let watched = Watched {
            key: "pci-0000:0b:00.0".to_owned(),
            pci: None,
            name: "card".to_owned(),
            memory_bytes: None,
            critical_celsius: None,
        };
        let air = Some(Celsius::of(25.0));
        let all = known(std::slice::from_ref(&watched), Some(&file), None, air);
        let mut ring = Ring::new(4, 1000);
        let sample = Sample { celsius: Some(Celsius::of(60.0)), watts: Some(Watts::of(150.0)), ..Sample::default() };
        ring.push(Sample { watts: None, ..sample });
        assert!(forecast(&all[0], &ring, 0).is_none(), "its power is unknown");
        ring.push(sample);
        let found = forecast(&all[0], &ring, 0).expect("all is known");
        // Towards 100 °C with a time constant of 50 s: 100 - 40 exp(-60/50), and 80 °C after 50 ln 2.
        assert!((found.soon.value() - (100.0 - 40.0 * (-1.2_f64).exp())).abs() < 1e-9);
        assert!((found.limit_in.expect("it gets there").value() - 50.0 * 2.0_f64.ln()).abs() < 1e-9);
        let dark = known(std::slice::from_ref(&watched), Some(&file), None, None);
        assert!(forecast(&dark[0], &ring, 0).is_none(), "the air is unknown");
    }
}
