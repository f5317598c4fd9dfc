//! The probe on a small model: whole tables for every device, ways between all of them. How true its times are is the
//! business of `isotherm bench truth`, not of a test.

use isotherm_core::artefact::Header;
use isotherm_core::cost::{Conditions, StepShape};
use isotherm_core::figure::How;
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile};
use isotherm_core::ids::Layers;
use isotherm_core::units::{Bytes, Seconds};
use isotherm_runtime::engine::{CpuDevice, Kernels};
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::probe::{ProbeError, Request, probe, witness};
use std::collections::BTreeMap;

use crate::engine::small;

#[test]
fn a_probe_gives_every_device_a_profile_of_the_model_and_a_way_to_every_other() {
    let (gguf, geometry) = small(BlockFormat::Q4_1, BlockFormat::Q8_0);
    let model = geometry.describe(&gguf, "small", 4, None);
    let devices = [CpuDevice::new("a", [0]), CpuDevice::new("b", [0]), CpuDevice::new("c", [0])];
    let request = Request {
        gguf: &gguf,
        geometry: &geometry,
        model: &model,
        devices: &devices,
        kernels: Kernels::detect(),
        host: "host",
        memory: None,
        budget: Seconds::ZERO,
        when: "2026-01-01T00:00:00Z",
        conditions: &|_| Conditions { driver: Some("6.1".to_owned()), ..Conditions::default() },
    };
    let mut seen = Vec::new();
    let probed = probe(&request, &mut |progress| seen.push(progress.done)).expect("it measures");
    assert!(!seen.is_empty() && seen.is_sorted() && seen.iter().all(|done| (0.0..=1.0).contains(done)));
    assert_eq!(probed.devices.len(), 3);
    for device in &probed.devices {
        let [profile] = device.profiles.as_slice() else { panic!("one profile") };
        assert_eq!((profile.how, &profile.geometry), (How::Measured, &model.geometry()));
        assert_eq!(profile.arithmetic, "f32");
        assert!(profile.samples.is_some_and(|samples| samples > 0));
        let step = |shape: &StepShape| profile.step(Layers::new(0, model.layers()), model.layers(), shape).value();
        assert!(step(&StepShape::decode(1, 50.0)) > 0.0 && step(&StepShape::prefill(40, 0, true)) > 0.0);
    }
    let file = DevicesFile {
        header: Header::new(DEVICES_SCHEMA, Vec::new()),
        host: BTreeMap::new(),
        devices: probed.devices,
        junctions: vec![probed.coordinator.clone()],
        links: probed.links,
        groups: Vec::new(),
        co_run: probed.co_run,
        coordinator: Some(probed.coordinator.clone()),
    };
    let graph = DeviceGraph::new(file).expect("what is measured is a sound graph");
    let places = ["a", "b", "c", &probed.coordinator];
    for from in places {
        for to in places {
            assert!(graph.path(from, to, Bytes(1000)).is_some(), "from {from} to {to}");
        }
    }
}

#[test]
fn a_witness_times_every_shape_it_is_given_through_any_of_the_first_layers() {
    let (gguf, geometry) = small(BlockFormat::Q4_1, BlockFormat::Q8_0);
    let model = geometry.describe(&gguf, "small", 4, None);
    let devices = [CpuDevice::new("a", [0])];
    let request = Request {
        gguf: &gguf,
        geometry: &geometry,
        model: &model,
        devices: &devices,
        kernels: Kernels::detect(),
        host: "host",
        memory: None,
        budget: Seconds::ZERO,
        when: "2026-01-01T00:00:00Z",
        conditions: &|_| Conditions::default(),
    };
    let mixed = StepShape { prefills: vec![(20, 5)], decodes: 3, decode_context: 30.0, sequences: 4 };
    let shapes = [StepShape::decode(1, 17.0), StepShape::decode(3, 40.0), mixed, StepShape::prefill(90, 0, false)];
    for layers in [Layers::new(0, model.layers()), Layers::new(0, 1)] {
        let found = witness(&request, &devices[0], layers, &shapes, Seconds::ZERO).expect("it measures");
        let given: Vec<&StepShape> = found.iter().map(|one| &one.shape).collect();
        assert_eq!(given, shapes.iter().collect::<Vec<_>>());
        for one in &found {
            assert!(one.seconds > Seconds::ZERO && one.again > Seconds::ZERO && one.samples >= one.disturbed);
        }
    }
    let none = CpuDevice::new("none", []);
    let refused = witness(&request, &none, Layers::new(0, 1), &shapes, Seconds::ZERO);
    assert!(matches!(refused, Err(ProbeError::NoCores(_))));
}

#[test]
fn nothing_to_measure_is_refused() {
    let (gguf, geometry) = small(BlockFormat::Q4_1, BlockFormat::Q8_0);
    let model = geometry.describe(&gguf, "small", 4, None);
    let ask = |devices: &[CpuDevice]| {
        let request = Request {
            gguf: &gguf,
            geometry: &geometry,
            model: &model,
            devices,
            kernels: Kernels::detect(),
            host: "host",
            memory: None,
            budget: Seconds::ZERO,
            when: "2026-01-01T00:00:00Z",
            conditions: &|_| Conditions::default(),
        };
        probe(&request, &mut |_| {}).expect_err("nothing to measure")
    };
    assert!(matches!(ask(&[]), ProbeError::NoDevices));
    assert!(matches!(ask(&[CpuDevice::new("none", [])]), ProbeError::NoCores(_)));
}
