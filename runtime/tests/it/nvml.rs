//! NVIDIA's management library, against a stand-in of the same interface. No card is involved.

use crate::emulated::target;
use crate::host_tree::workstation;
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::units::{Bytes, Celsius, Joules, Watts};
use isotherm_runtime::discover::Machine;
use isotherm_runtime::telemetry::nvml::NvmlError;
use isotherm_runtime::telemetry::{Nvml, Reasons, Sample, Sampler};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// The stand-in, compiled; a skip aloud where there is no compiler.
fn stand_in(test: &str) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/nvml_stand_in.c");
    let library = target().join(format!("nvml-{}.so", std::process::id()));
    match Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).output() {
        Ok(output) if output.status.success() => Some(library),
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            eprintln!("skipped: {test}: cc: {error}");
            None
        }
    }
}

#[test]
fn a_card_tells_through_the_library_what_it_has_and_the_rest_is_absent() {
    let Some(path) = stand_in("a_card_tells_through_the_library_what_it_has_and_the_rest_is_absent") else { return };
    let library = Nvml::open(Some(&path)).expect("it starts");
    assert_eq!(library.driver(), Some("575.51.03"));
    let [first, second] = library.cards() else { panic!("two cards") };
    assert_eq!(first.pci.as_deref(), Some("0000:01:00.0"));
    assert_eq!((first.memory_bytes, first.slowdown_celsius), (Some(Bytes(24 << 30)), Some(Celsius::of(96.0))));
    assert_eq!(first.power_range_watts, Some((Watts::of(100.0), Watts::of(450.0))));
    assert_eq!((second.slowdown_celsius, second.power_limit_watts), (None, None));
    let sample = library.sample(0, 5, 1000);
    assert_eq!((sample.device, sample.at_ms, sample.answered), (5, 1000, true));
    assert_eq!((sample.celsius, sample.watts), (Some(Celsius::of(71.0)), Some(Watts::of(287.5))));
    assert_eq!((sample.joules, sample.busy), (Some(Joules::of(123_456.789)), Some(0.93)));
    assert_eq!(sample.clock_hertz.map(|clock| clock.value()), Some(2.52e9));
    assert_eq!((sample.memory_used_bytes, sample.throttled), (Some(Bytes(3 << 30)), Some(true)));
    assert_eq!(sample.reasons, Some(Reasons(0x24)));
    let words = serde_json::to_value(sample).expect("JSON")["reasons"].clone();
    assert_eq!(words, serde_json::json!(["power limit", "temperature, by software"]));
    let little = library.sample(1, 6, 1000);
    let told =
        Sample { device: 6, at_ms: 1000, answered: true, memory_used_bytes: Some(Bytes(0)), ..Sample::default() };
    assert_eq!(little, told);
    assert!(!library.sample(7, 0, 0).answered, "there is no such card");
    assert!(library.set_power_limit(0, Watts::of(250.0)) && !library.set_power_limit(0, Watts::of(10.0)));
    assert!(!library.set_power_limit(1, Watts::of(250.0)));
    // The card that the kernel's files show is the same one; the other joins.
    let tree = workstation();
    let roots = tree.roots();
    let mut sampler = Sampler::new(&roots, &Machine::discover(&roots));
    let before = sampler.devices().len();
    sampler.ask(&Arc::new(library));
    assert_eq!(sampler.devices().len(), before + 1);
    let place = sampler.devices().iter().position(|device| device.key.starts_with("GPU-0d7e3a1c")).expect("watched");
    // Drivers give the identifier without the word before it; Vulkan gives none, and the place on the bus has to do.
    let card = |uuid: Option<&str>, pci: Option<&str>| Device {
        uuid: uuid.map(str::to_owned),
        pci: pci.map(str::to_owned),
        ..Device::named("card0", "host", DeviceKind::Gpu)
    };
    let told = sampler.devices()[place].clone();
    let bare = told.key.trim_start_matches("GPU-").to_owned();
    assert!(told.is_of(&card(Some(&bare), None)) && told.is_of(&card(None, Some("0000:01:00.0"))));
    assert!(!told.is_of(&card(Some("another"), Some("0000:02:00.0"))) && !told.is_of(&card(None, None)));
    assert_eq!(sampler.sample(1)[place].watts, Some(Watts::of(287.5)));
}

#[test]
fn a_host_without_the_library_is_told_so() {
    let error = Nvml::open(Some(Path::new("/nowhere/libnvidia-ml.so.1"))).expect_err("it is not there");
    assert!(matches!(error, NvmlError::Absent(_)), "{error}");
}
