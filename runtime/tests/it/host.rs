//! Hosts described by folders of files.

use std::fs;
use std::path::Path;

use isotherm_core::units::{Bytes, Celsius, Hertz, Joules, Watts};
use isotherm_runtime::host::{Cache, Host, NumaNode, Roots, Sensors};
use tempfile::TempDir;

/// A folder with these files in it.
fn tree(files: &[(&str, &str)]) -> (TempDir, Roots) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("files have folders")).expect("writable");
        fs::write(path, format!("{content}\n")).expect("writable");
    }
    let roots = Roots { proc: folder.path().join("proc"), sys: folder.path().join("sys") };
    (folder, roots)
}

/// Two sockets of two cores with two threads each; processor 7 is switched off.
fn server() -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    let mut put = |name: String, content: &str| files.push((name, content.to_owned()));
    put("proc/cpuinfo".into(), "processor\t: 0\nmodel name\t: Example 9000 CPU\nflags\t: fpu\n\nprocessor\t: 1");
    put("proc/meminfo".into(), "MemTotal:       1000 kB\nMemFree: 10 kB\nMemAvailable:    600 kB\nHugePages_Total: 0");
    let cpu = "sys/devices/system/cpu";
    put(format!("{cpu}/online"), "0-6");
    for id in 0..7 {
        let (package, core) = (id / 4, id % 4 / 2);
        put(format!("{cpu}/cpu{id}/topology/physical_package_id"), &package.to_string());
        put(format!("{cpu}/cpu{id}/topology/core_id"), &core.to_string());
        let siblings = format!("{}-{}", id / 2 * 2, id / 2 * 2 + 1);
        let socket = if package == 0 { "0-3" } else { "4-6" };
        let caches =
            [("1", "Data", "32K", &*siblings), ("1", "Instruction", "32K", &siblings), ("3", "Unified", "4M", socket)];
        for (index, (level, kind, size, shared)) in caches.into_iter().enumerate() {
            let folder = format!("{cpu}/cpu{id}/cache/index{index}");
            put(format!("{folder}/level"), level);
            put(format!("{folder}/type"), kind);
            put(format!("{folder}/size"), size);
            put(format!("{folder}/shared_cpu_list"), shared);
        }
    }
    put(format!("{cpu}/cpu0/cpufreq/cpuinfo_max_freq"), "3500000");
    put(format!("{cpu}/cpu4/cpufreq/cpuinfo_max_freq"), "3600000");
    put("sys/devices/system/node/node0/cpulist".into(), "0-3");
    put("sys/devices/system/node/node0/meminfo".into(), "Node 0 MemTotal: 500 kB\nNode 0 MemFree: 5 kB");
    put("sys/devices/system/node/node10/cpulist".into(), "4-6");
    put("sys/devices/system/node/node2/cpulist".into(), "");
    put("proc/self/cgroup".into(), "0::/outer/inner");
    put("sys/fs/cgroup/outer/inner/memory.max".into(), "max");
    put("sys/fs/cgroup/outer/memory.max".into(), "409600");
    put("sys/fs/cgroup/outer/inner/cpu.max".into(), "250000 100000");
    put("sys/fs/cgroup/outer/cpu.max".into(), "max 100000");
    files
}

#[test]
fn a_server_is_described_as_its_files_say() {
    let files = server();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, content)| (&**name, &**content)).collect();
    let (_folder, roots) = tree(&files);
    let host = Host::discover(&roots);
    assert_eq!(host.cpu_model.as_deref(), Some("Example 9000 CPU"));
    assert_eq!((host.cpus, host.cores, host.packages), (Some(7), Some(4), Some(2)));
    assert_eq!(host.clock_max_hertz, Some(Hertz::of(3.6e9)));
    assert_eq!(host.cpu_limit, Some(2.5));
    assert_eq!(host.memory_total_bytes, Some(Bytes(1_024_000)));
    assert_eq!(host.memory_available_bytes, Some(Bytes(614_400)));
    assert_eq!(host.memory_limit_bytes, Some(Bytes(409_600)));
    let cache =
        |level, kind: &str, bytes, count, shared_by| Cache { level, kind: kind.into(), bytes, count, shared_by };
    assert_eq!(
        host.caches,
        [
            cache(1, "Data", Bytes(32 << 10), 4, 2),
            cache(1, "Instruction", Bytes(32 << 10), 4, 2),
            cache(3, "Unified", Bytes(4 << 20), 1, 3),
            cache(3, "Unified", Bytes(4 << 20), 1, 4),
        ]
    );
    let node = |id, cpus: &[u32], total: Option<u64>, free: Option<u64>| NumaNode {
        id,
        cpus: cpus.into(),
        memory_total_bytes: total.map(Bytes),
        memory_free_bytes: free.map(Bytes),
    };
    let nodes = [
        node(0, &[0, 1, 2, 3], Some(512_000), Some(5_120)),
        node(2, &[], None, None),
        node(10, &[4, 5, 6], None, None),
    ];
    assert_eq!(host.numa_nodes, nodes);
}

#[test]
fn what_a_system_does_not_tell_is_absent() {
    let (_folder, roots) = tree(&[]);
    assert_eq!(Host::discover(&roots), Host::default());
    assert_eq!(Sensors::discover(&roots), Sensors::default());
    // Half a description, as some phones and virtual machines give.
    let (_folder, roots) = tree(&[
        ("sys/devices/system/cpu/online", "0-1"),
        ("sys/devices/system/cpu/cpu0/topology/physical_package_id", "0"),
        ("proc/cpuinfo", "processor : 0\nModel : Example Board\nHardware : Chip"),
        ("proc/meminfo", "MemTotal: lots"),
        ("proc/self/cgroup", "0::/../escaped"),
        ("sys/fs/cgroup/memory.max", "4096"),
    ]);
    let host = Host::discover(&roots);
    assert_eq!(host.cpu_model.as_deref(), Some("Example Board"));
    assert_eq!((host.cpus, host.cores, host.packages, host.memory_total_bytes), (Some(2), None, None, None));
    assert_eq!(host.memory_limit_bytes, Some(Bytes(4096)));
}

#[test]
fn temperatures_have_names_limits_and_readings_or_none() {
    let (folder, roots) = tree(&[
        ("sys/class/hwmon/hwmon10/name", "nvme"),
        ("sys/class/hwmon/hwmon10/temp1_input", "-274000"),
        ("sys/class/hwmon/hwmon2/name", "k10temp"),
        ("sys/class/hwmon/hwmon2/temp3_input", "50250"),
        ("sys/class/hwmon/hwmon2/temp3_label", "Tccd1"),
        ("sys/class/hwmon/hwmon2/temp1_input", "61500"),
        ("sys/class/hwmon/hwmon2/temp1_label", "Tctl"),
        ("sys/class/hwmon/hwmon2/temp1_crit", "95000"),
        ("sys/class/hwmon/hwmon2/temp1_max", "70000"),
        ("sys/class/hwmon/hwmon3/temp1_input", "20000"),
        ("sys/class/thermal/thermal_zone0/type", "x86_pkg_temp"),
        ("sys/class/thermal/thermal_zone0/temp", "62000"),
        ("sys/class/thermal/thermal_zone0/trip_point_0_type", "passive"),
        ("sys/class/thermal/thermal_zone0/trip_point_0_temp", "80000"),
        ("sys/class/thermal/thermal_zone0/trip_point_1_type", "critical"),
        ("sys/class/thermal/thermal_zone0/trip_point_1_temp", "100000"),
        ("sys/class/thermal/cooling_device0/type", "fan"),
    ]);
    let sensors = Sensors::discover(&roots).temperatures;
    let told: Vec<_> = sensors.iter().map(|s| (&*s.chip, s.label.as_deref(), s.critical, s.read())).collect();
    let celsius = |value| Some(Celsius::of(value));
    assert_eq!(
        told,
        [
            ("k10temp", Some("Tctl"), celsius(95.0), celsius(61.5)),
            ("k10temp", Some("Tccd1"), None, celsius(50.25)),
            ("nvme", None, None, None),
            ("x86_pkg_temp", None, celsius(100.0), celsius(62.0)),
        ]
    );
    fs::write(folder.path().join("sys/class/hwmon/hwmon2/temp1_input"), "62000\n").expect("writable");
    assert_eq!(sensors[0].read(), celsius(62.0));
    fs::remove_file(folder.path().join("sys/class/hwmon/hwmon2/temp1_input")).expect("there");
    assert_eq!(sensors[0].read(), None);
}

#[test]
fn power_is_read_in_watts_and_the_momentary_figure_is_preferred() {
    let (_folder, roots) = tree(&[
        ("sys/class/hwmon/hwmon0/name", "amdgpu"),
        ("sys/class/hwmon/hwmon0/power1_average", "181500000"),
        ("sys/class/hwmon/hwmon0/power1_label", "PPT"),
        ("sys/class/hwmon/hwmon0/power2_average", "1000000"),
        ("sys/class/hwmon/hwmon0/power2_input", "2000000"),
    ]);
    let powers = Sensors::discover(&roots).powers;
    let told: Vec<_> = powers.iter().map(|p| (&*p.chip, p.label.as_deref(), p.read())).collect();
    assert_eq!(told, [("amdgpu", Some("PPT"), Some(Watts::of(181.5))), ("amdgpu", None, Some(Watts::of(2.0)))]);
}

#[test]
fn energy_counters_have_whole_names_and_survive_their_own_end() {
    let zone = "sys/class/powercap";
    let files = [
        (format!("{zone}/intel-rapl:0/name"), "package-0"),
        (format!("{zone}/intel-rapl:0/energy_uj"), "5000000"),
        (format!("{zone}/intel-rapl:0/max_energy_range_uj"), "9999999"),
        (format!("{zone}/intel-rapl:0:1/name"), "dram"),
        (format!("{zone}/intel-rapl:0:1/energy_uj"), "7"),
        (format!("{zone}/intel-rapl:1/name"), "package-1"),
        (format!("{zone}/intel-rapl-mmio:0/name"), "package-0"),
        (format!("{zone}/intel-rapl/enabled"), "1"),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, content)| (&**name, *content)).collect();
    let (_folder, roots) = tree(&files);
    let counters = Sensors::discover(&roots).energies;
    let names: Vec<&str> = counters.iter().map(|counter| &*counter.name).collect();
    assert_eq!(names, ["package-0", "package-0/dram"]);
    assert_eq!((counters[0].read(), counters[1].read()), (Some(5_000_000), Some(7)));
    assert_eq!(counters[0].spent(5_000_000, 6_500_000), Some(Joules::of(1.5)));
    assert_eq!(counters[0].spent(9_000_000, 500_000), Some(Joules::of(1.5)));
    assert_eq!(counters[0].spent(11_000_000, 500_000), None, "a count past the counter's end is no count");
    assert_eq!(counters[1].spent(9, 8), None, "where it starts again is not known");
}

#[test]
fn this_very_host_is_read_without_contradictions() {
    let host = Host::discover(&Roots::default());
    if !Path::new("/proc/meminfo").exists() {
        eprintln!("skipped: this_very_host_is_read_without_contradictions: no /proc here");
        return;
    }
    assert!(host.memory_available_bytes <= host.memory_total_bytes && host.memory_total_bytes.is_some());
    assert!(host.cores <= host.cpus && host.packages <= host.cores.or(host.packages));
    for sensor in Sensors::discover(&Roots::default()).temperatures {
        assert!(sensor.read().is_none_or(|now| now > Celsius::of(-61.0)), "{sensor:?}");
    }
}
