//! Samples, their ring, alerts and what Prometheus reads.

use crate::host_tree::{Tree, phone, workstation};
use isotherm_core::units::{Bytes, Celsius, Watts};
use isotherm_runtime::discover::Machine;
use isotherm_runtime::discover::registry::Change;
use isotherm_runtime::telemetry::prometheus::exposition;
use isotherm_runtime::telemetry::{Alert, AlertKind, Alerts, Limits, Plugged, Ring, Sample, Sampler, Watched};
use std::collections::BTreeSet;

fn sampler(tree: &Tree) -> Sampler {
    let roots = tree.roots();
    Sampler::new(&roots, &Machine::discover(&roots))
}

#[test]
fn a_sample_holds_what_the_files_say_and_nothing_else() {
    let tree = workstation();
    tree.put("proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0");
    let mut sampler = sampler(&tree);
    let place = |key: &str| sampler.devices().iter().position(|device| device.key == key).expect("watched");
    let (amd, nvidia) = (place("a1b2c3d4e5f60718"), place("GPU-0d7e3a1c-1111-2222-3333-444455556666"));
    let first = sampler.sample(1000);
    let sample = first[amd];
    assert_eq!((sample.celsius, sample.hot_spot_celsius), (Some(Celsius::of(47.0)), Some(Celsius::of(55.0))));
    assert_eq!((sample.memory_celsius, sample.watts), (Some(Celsius::of(60.0)), Some(Watts::of(131.0))));
    assert_eq!((sample.busy, sample.fan_rpm), (Some(0.37), Some(1480)));
    assert_eq!(sample.memory_used_bytes, Some(Bytes(28_311_552)));
    assert_eq!(sample.clock_hertz.map(|clock| clock.value()), Some(1.218e9));
    assert_eq!(
        first[nvidia],
        Sample { device: nvidia, at_ms: 1000, answered: true, ..Sample::default() },
        "no library, no value"
    );
    assert_eq!(first[0].busy, None, "one reading of a counter is no share");
    tree.put("proc/stat", "cpu  150 0 100 850 0 0 0 0 0 0");
    assert_eq!(sampler.sample(2000)[0].busy, Some(0.5));
    // The card falls off its bus.
    tree.remove("sys/bus/pci/devices/0000:0b:00.0");
    let lost = sampler.sample(3000)[amd];
    assert!(!lost.answered && lost.celsius.is_none() && lost.watts.is_none());
}

#[test]
fn a_phone_tells_little_and_that_is_said() {
    let tree = phone();
    let mut sampler = sampler(&tree);
    let samples = sampler.sample(0);
    assert_eq!((samples[1].busy, samples[1].celsius), (Some(0.12), None));
    assert_eq!(samples[0], Sample { answered: true, ..Sample::default() });
}

#[test]
fn energy_counts_up_over_the_counters_end() {
    let tree = Tree::new();
    let zone = "sys/class/powercap/intel-rapl:0";
    tree.put(&format!("{zone}/name"), "package-0");
    tree.put(&format!("{zone}/max_energy_range_uj"), "9999999");
    tree.put("sys/class/powercap/intel-rapl:0:0/name", "core");
    tree.put("sys/class/powercap/intel-rapl:0:0/energy_uj", "77");
    let mut told = Vec::new();
    let mut sampler = {
        tree.put(&format!("{zone}/energy_uj"), "9000000");
        sampler(&tree)
    };
    for count in ["9000000", "9500000", "500000"] {
        tree.put(&format!("{zone}/energy_uj"), count);
        told.push(sampler.sample(0)[0].joules.map(|joules| joules.value()));
    }
    assert_eq!(told, [Some(0.0), Some(0.5), Some(1.5)]);
}

#[test]
fn a_day_of_samples_takes_no_more_memory_than_the_first_hour() {
    let mut ring = Ring::new(3600 * 2, 1000);
    let allocated = ring.allocated();
    for second in 0..86_400_u64 {
        for device in 0..2 {
            ring.push(Sample { device, at_ms: second * 1000, answered: true, ..Sample::default() });
        }
    }
    assert_eq!((ring.len(), ring.allocated()), (7200, allocated));
    assert_eq!(ring.dropped(), 86_400 * 2 - 7200);
    assert_eq!(ring.of(1).count(), 3600);
    assert_eq!(ring.of(1).next().map(|sample| sample.at_ms), Some((86_400 - 3600) * 1000));
    let (last, stale) = ring.last(1, 86_399_000).expect("there");
    assert!(last.at_ms == 86_399_000 && !stale);
    assert!(
        !ring.last(1, 86_402_000).expect("there").1 && ring.last(1, 86_402_001).expect("there").1,
        "after three periods"
    );
    assert!(ring.last(7, 0).is_none());
}

fn card() -> Watched {
    Watched {
        pci: None,
        key: "gpu".to_owned(),
        name: "Card \"X\"".to_owned(),
        memory_bytes: Some(Bytes(1000)),
        critical_celsius: None,
    }
}

#[test]
fn alerts_begin_after_three_samples_and_end_well_below() {
    let mut alerts = Alerts::new(Limits::default());
    let step = |alerts: &mut Alerts, celsius: f64| -> Vec<bool> {
        let sample = Sample { answered: true, celsius: Some(Celsius::of(celsius)), ..Sample::default() };
        alerts.step(&card(), &sample).into_iter().map(|alert| alert.raised).collect()
    };
    let mut heard = Vec::new();
    for celsius in [90.0, 90.0, 84.0, 85.0, 86.0, 85.0, 84.0, 81.0, 79.0, 79.0, 81.0, 79.0, 79.0, 79.0, 79.0] {
        heard.push(step(&mut alerts, celsius));
    }
    let raised: Vec<usize> = heard.iter().enumerate().filter(|(_, h)| **h == [true]).map(|(i, _)| i).collect();
    let ended: Vec<usize> = heard.iter().enumerate().filter(|(_, h)| **h == [false]).map(|(i, _)| i).collect();
    assert_eq!((raised, ended), (vec![5], vec![13]));
}

#[test]
fn each_kind_of_alert_has_its_cause_and_a_silent_sensor_changes_nothing() {
    let mut alerts = Alerts::new(Limits { samples: 1, ..Limits::default() });
    let fine = Sample { answered: true, ..Sample::default() };
    assert_eq!(alerts.step(&card(), &fine), []);
    let bad = Sample {
        answered: false,
        at_ms: 5,
        memory_used_bytes: Some(Bytes(901)),
        memory_celsius: Some(Celsius::of(95.0)),
        throttled: Some(true),
        ..Sample::default()
    };
    let kinds: BTreeSet<AlertKind> = alerts.step(&card(), &bad).into_iter().map(|alert| alert.kind).collect();
    assert_eq!(kinds.len(), 4);
    let ended = alerts.step(&card(), &fine);
    let back = Alert { at_ms: 0, device: "gpu".to_owned(), kind: AlertKind::Lost, raised: false, value: Some(0.0) };
    assert_eq!(ended, [back], "it answers again; of the rest nobody says that it is over");
    assert_eq!(alerts.raised().count(), 3);
    // A maker's own limit counts before the usual one.
    let mut alerts = Alerts::new(Limits { samples: 1, ..Limits::default() });
    let tough = Watched { critical_celsius: Some(Celsius::of(110.0)), ..card() };
    let warm = |celsius: f64| Sample { answered: true, celsius: Some(Celsius::of(celsius)), ..Sample::default() };
    assert!(alerts.step(&tough, &warm(99.0)).is_empty());
    assert_eq!(alerts.step(&tough, &warm(100.0)).len(), 1);
}

#[test]
fn prometheus_gets_every_fresh_value_once_with_its_kind() {
    let mut ring = Ring::new(10, 1000);
    let sample =
        Sample { answered: true, at_ms: 1000, celsius: Some(Celsius::of(61.5)), busy: Some(0.25), ..Sample::default() };
    ring.push(sample);
    let text = exposition("tower", &[card()], &ring, &[(0, AlertKind::Memory)], 1500);
    let labels = "{node=\"tower\",device_uuid=\"gpu\",name=\"Card \\\"X\\\"\"}";
    assert!(
        text.contains(&format!(
            "# TYPE isotherm_device_temperature_celsius gauge\nisotherm_device_temperature_celsius{labels} 61.5\n"
        )),
        "{text}"
    );
    assert!(text.contains(&format!("isotherm_device_busy_ratio{labels} 0.25\n")));
    assert!(text.contains(&format!("isotherm_device_stale{labels} 0\n")));
    assert!(text.contains("alert=\"memory\"} 1\n") && !text.contains("power_watts"), "{text}");
    // Every line is a comment or a sample of a family that was announced before it.
    let mut announced = BTreeSet::new();
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => assert!(announced.insert(rest.split(' ').next().expect("a name")), "twice: {line}"),
            None if line.starts_with("# HELP ") => {}
            None => {
                let (name, rest) = line.split_once('{').expect("labels");
                assert!(announced.contains(name), "{line}");
                rest.rsplit_once("} ").expect("a value").1.parse::<f64>().expect("a number");
            }
        }
    }
    let stale = exposition("tower", &[card()], &ring, &[], 60_000);
    assert!(stale.contains(&format!("isotherm_device_stale{labels} 1\n")) && !stale.contains("celsius"), "{stale}");
}

#[test]
fn a_card_that_comes_or_goes_while_the_host_is_watched_is_noticed_and_keeps_its_place() {
    let tree = workstation();
    let roots = tree.roots();
    let machine = Machine::discover(&roots);
    let mut sampler = Sampler::new(&roots, &machine);
    let mut plugged = Plugged::new(&roots, &machine);
    assert_eq!(plugged.look(&mut sampler), [], "nothing happened");
    let (before, amd) = (sampler.devices().len(), "a1b2c3d4e5f60718");
    let place = sampler.devices().iter().position(|device| device.key == amd).expect("watched");
    // It is unplugged.
    let folder = tree.path("sys/bus/pci/devices/0000:0b:00.0");
    let aside = tree.path("aside");
    std::fs::rename(&folder, &aside).expect("moved");
    let gone = plugged.look(&mut sampler);
    assert!(gone.iter().any(|change| matches!(change, Change::Removed { key, .. } if key == amd)), "{gone:?}");
    assert!(!sampler.sample(1)[place].answered);
    assert_eq!(plugged.look(&mut sampler), [], "it is told once");
    // Another one comes while it is away, and then it returns, in another slot.
    let other = "sys/bus/pci/devices/0000:0c:00.0";
    for (file, text) in [("class", "0x030000"), ("vendor", "0x1002"), ("device", "0x744c")] {
        tree.put(&format!("{other}/{file}"), text);
    }
    let came = plugged.look(&mut sampler);
    assert!(matches!(&came[..], [Change::Added { now, .. }] if now.slot == "0000:0c:00.0"), "{came:?}");
    std::fs::rename(&aside, tree.path("sys/bus/pci/devices/0000:0d:00.0")).expect("moved");
    let back = plugged.look(&mut sampler);
    assert!(back.iter().any(|change| matches!(change, Change::Added { key, .. } if key == amd)), "{back:?}");
    assert_eq!(sampler.devices().len(), before + 1);
    let sample = sampler.sample(2)[place];
    assert!(sample.answered && sample.celsius.is_some(), "{sample:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn this_machine_is_sampled() {
    let roots = isotherm_runtime::host::Roots::default();
    let mut sampler = Sampler::new(&roots, &Machine::discover(&roots));
    sampler.sample(0);
    let begun = std::time::Instant::now();
    let rounds = 50;
    let mut last = Vec::new();
    for round in 0..rounds {
        last = sampler.sample(round);
    }
    eprintln!("sampling: {:?} for {} devices", begun.elapsed() / rounds as u32, last.len());
    assert!(last[0].answered && last[0].memory_used_bytes.is_some());
}
