//! Governors attached to devices: sensors from files, a plant that answers to what they ask for, a run that is paused.

use crate::host_tree::Tree;
use isotherm_core::device::{Device, DeviceKind};
use isotherm_core::figure::Figure;
use isotherm_core::thermal::{ThermalNode, ThermalRecord, ThermalState};
use isotherm_core::units::{Celsius, JoulesPerKelvin, KelvinPerWatt, Seconds, Watts};
use isotherm_runtime::govern::{Act, Keeper, Pace, Paced, Settings};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const AIR: f64 = 25.0;
const IDLE: f64 = 20.0;
const BUSY: f64 = 90.0;
const LIMIT: f64 = 80.0;
/// What the processor really is; it is known to be 30 % better.
const RESISTANCE: f64 = 0.9;

fn device(name: &str) -> Device {
    let declared = |value| Figure::declared(Watts::of(value), "test");
    Device {
        backend: "cpu".to_owned(),
        idle_watts: Some(declared(IDLE)),
        busy_watts: Some(declared(BUSY)),
        thermal: Some(ThermalRecord {
            resistance_kelvin_per_watt: Figure::declared(KelvinPerWatt::of(RESISTANCE * 0.7), "test"),
            capacity_joules_per_kelvin: Figure::declared(JoulesPerKelvin::of(120.0), "test"),
            throttle_celsius: Some(Figure::declared(Celsius::of(LIMIT), "test")),
            resume_celsius: None,
            throttled_speed: None,
            die: None,
            case: None,
            fan: None,
        }),
        ..Device::named(name, "host", DeviceKind::Cpu)
    }
}

fn put(tree: &Tree, celsius: f64) {
    tree.put("sys/class/hwmon/hwmon0/temp1_input", &format!("{:.0}", celsius * 1e3));
}

fn host() -> Tree {
    let tree = Tree::new();
    tree.put("sys/class/hwmon/hwmon0/name", "k10temp");
    put(&tree, 40.0);
    tree
}

#[test]
fn a_run_is_slowed_before_its_processor_reaches_the_limit_and_a_lost_sensor_is_an_alarm_with_a_safe_cap() {
    let tree = host();
    let known = device("cpu");
    let (mut keeper, unguarded) = Keeper::attach(&tree.roots(), &[&known], Celsius::of(AIR), None, Settings::default());
    assert!(unguarded.is_empty() && keeper.guarded().eq([("cpu", true)]));
    let plant = ThermalNode::new(KelvinPerWatt::of(RESISTANCE), JoulesPerKelvin::of(120.0), Celsius::of(AIR));
    let mut state = ThermalState::new(plant, Celsius::of(40.0));
    let pace = Pace::default();
    let (mut hottest, mut acted, mut blind_hottest) = (f64::MIN, Vec::new(), f64::MIN);
    let mut course = |keeper: &mut Keeper, seconds: std::ops::Range<u64>, sensor: bool, hottest: &mut f64| {
        for second in seconds {
            let work = pace.allowed();
            state.advance(Seconds::of(1.0), Watts::of(IDLE + (BUSY - IDLE) * work));
            *hottest = hottest.max(state.temperature().value());
            if sensor {
                put(&tree, state.temperature().value());
            } else {
                std::fs::remove_file(tree.path("sys/class/hwmon/hwmon0/temp1_input")).unwrap_or_default();
            }
            acted.extend(keeper.step(second * 1000, work, &pace));
        }
        pace.allowed()
    };
    let seen = course(&mut keeper, 1..1200, true, &mut hottest);
    assert!(hottest <= LIMIT + 1.0, "{hottest}");
    // The plant bears (79 - 25) / 0.9 = 60 W at one kelvin below its limit: 57 % of the range.
    assert!((0.5..0.62).contains(&seen), "{seen}");
    // It takes a while to cool down to the greater distance.
    course(&mut keeper, 1200..1800, false, &mut hottest);
    let blind = course(&mut keeper, 1800..2400, false, &mut blind_hottest);
    assert!(blind < seen && blind_hottest <= LIMIT - 3.0, "{blind} of {seen}, {blind_hottest} °C");
    assert!(keeper.guarded().eq([("cpu", false)]));
    course(&mut keeper, 2400..2410, true, &mut hottest);
    assert!(keeper.guarded().eq([("cpu", true)]));
    let told = |wanted: fn(&Act) -> bool| acted.iter().filter(|acted| wanted(&acted.action.act)).count();
    assert_eq!(told(|act| matches!(act, Act::SensorLost)), 1);
    assert_eq!(told(|act| matches!(act, Act::SensorFound)), 1);
    assert!(told(|act| matches!(act, Act::Batch { .. })) > 0);
    assert!(acted.iter().all(|acted| acted.device == "cpu" && acted.set.is_none()));
}

#[test]
fn without_any_sensor_the_model_alone_governs_and_what_is_not_known_is_said() {
    let tree = Tree::new();
    let (known, unknown) = (device("cpu"), Device::named("other", "host", DeviceKind::Gpu));
    let no_power = Device { busy_watts: None, ..device("dark") };
    let (mut keeper, unguarded) =
        Keeper::attach(&tree.roots(), &[&known, &unknown, &no_power], Celsius::of(AIR), None, Settings::default());
    assert!(keeper.guarded().eq([("cpu", false)]));
    let why: Vec<(&str, &str)> = unguarded.iter().map(|one| (one.device.as_str(), one.why)).collect();
    assert_eq!(why, [("other", "how it warms was never identified"), ("dark", "its power when busy is unknown")]);
    let pace = Pace::default();
    // It may have been at its limit a moment ago, so that it begins with rest.
    let first = keeper.step(1000, 1.0, &pace);
    assert!(!first.is_empty() && first.iter().all(|acted| !acted.action.forecast.measured), "{first:?}");
    for second in 2..2000 {
        let work = pace.allowed();
        keeper.step(second * 1000, work, &pace);
    }
    // The node bears (74 - 25) / 0.63 = 77.8 W six kelvin below the limit: 82 % of the range.
    assert!((pace.allowed() - 0.825).abs() < 0.03, "{}", pace.allowed());
}

#[test]
fn a_power_limit_that_the_kernel_lets_be_set_is_set_and_set_back() {
    let tree = Tree::new();
    let files = [
        ("class", "0x030000"),
        ("vendor", "0x1002"),
        ("device", "0x744c"),
        ("hwmon/hwmon1/temp1_input", "60000"),
        ("hwmon/hwmon1/power1_average", "80000000"),
        ("hwmon/hwmon1/power1_cap", "90000000"),
        ("hwmon/hwmon1/power1_cap_min", "30000000"),
        ("hwmon/hwmon1/power1_cap_max", "90000000"),
    ];
    tree.pci("0000:0b:00.0", &[], &files, Some("amdgpu"));
    let cap = tree.path("sys/bus/pci/devices/0000:0b:00.0/hwmon/hwmon1/power1_cap");
    let read = || std::fs::read_to_string(&cap).expect("there").trim().parse::<f64>().expect("a number") / 1e6;
    let card = Device {
        backend: "wgpu".to_owned(),
        kind: DeviceKind::Gpu,
        pci: Some("0000:0b:00.0".to_owned()),
        ..device("wgpu0")
    };
    let (mut keeper, unguarded) =
        Keeper::attach(&tree.roots(), &[&card], Celsius::of(AIR), Some(Celsius::of(70.0)), Settings::default());
    assert!(unguarded.is_empty(), "{unguarded:?}");
    let pace = Pace::default();
    let mut set = Vec::new();
    for (second, celsius) in [60, 61, 63, 64, 66, 67].into_iter().enumerate() {
        tree.put("sys/bus/pci/devices/0000:0b:00.0/hwmon/hwmon1/temp1_input", &(celsius * 1000).to_string());
        set.extend(keeper.step(second as u64 * 1000, 1.0, &pace).into_iter().filter_map(|acted| acted.set));
    }
    assert!(!set.is_empty() && set.iter().all(|set| *set));
    assert!(read() < 90.0 && (pace.allowed() - 1.0).abs() < 1e-9, "it holds itself: {} W, {}", read(), pace.allowed());
    drop(keeper);
    assert_eq!(read(), 90.0);
}

#[test]
fn a_paced_run_works_its_share_and_a_pause_lasts_until_it_is_lifted() {
    let pace = Pace::default();
    pace.allow(0.25);
    let mut paced = Paced::new(&pace);
    let begun = Instant::now();
    let mut worked = Duration::ZERO;
    for _ in 0..5 {
        let step = Instant::now();
        while step.elapsed() < Duration::from_millis(2) {}
        worked += step.elapsed();
        paced.rest(&|| false);
    }
    // Sleeps are never short of what was asked for; a busy machine only makes them longer.
    assert!(begun.elapsed() >= worked * 4 - Duration::from_millis(1), "{:?} for {worked:?}", begun.elapsed());
    assert!(pace.worked() >= worked);
    assert_eq!(pace.worked(), Duration::ZERO, "counted once");
    pace.allow(0.0);
    let lifted = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(60));
            lifted.store(true, Ordering::SeqCst);
            pace.allow(1.0);
        });
        paced.rest(&|| false);
        assert!(lifted.load(Ordering::SeqCst), "it went on before the pause was over");
    });
    // Whoever ends the run ends the pause as well.
    pace.allow(0.0);
    paced.rest(&|| true);
}
