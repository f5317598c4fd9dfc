//! Any bytes as the kernel's text files: a machine with what could be read, and never a panic.

use isotherm_runtime::discover::Machine;
use isotherm_runtime::discover::registry::Registry;
use isotherm_runtime::host::Roots;
use isotherm_runtime::telemetry::Sampler;
use std::path::PathBuf;
use std::sync::LazyLock;

/// The files that the pieces of the input become, in order.
const FILES: [&str; 28] = [
    "proc/cpuinfo",
    "proc/meminfo",
    "proc/stat",
    "proc/device-tree/model",
    "proc/driver/nvidia/version",
    "proc/driver/nvidia/gpus/0000:01:00.0/information",
    "sys/devices/system/cpu/online",
    "sys/bus/pci/devices/0000:01:00.0/class",
    "sys/bus/pci/devices/0000:01:00.0/vendor",
    "sys/bus/pci/devices/0000:01:00.0/numa_node",
    "sys/bus/pci/devices/0000:01:00.0/max_link_speed",
    "sys/bus/pci/devices/0000:01:00.0/max_link_width",
    "sys/bus/pci/devices/0000:01:00.0/unique_id",
    "sys/bus/pci/devices/0000:01:00.0/mem_info_vram_total",
    "sys/bus/pci/devices/0000:01:00.0/pp_dpm_sclk",
    "sys/bus/pci/devices/0000:01:00.0/gpu_busy_percent",
    "sys/bus/pci/devices/0000:01:00.0/hwmon/hwmon0/temp1_input",
    "sys/bus/pci/devices/0000:01:00.0/hwmon/hwmon0/power1_cap",
    "sys/block/sda/size",
    "sys/block/sda/device/model",
    "sys/class/net/eth0/speed",
    "sys/class/net/eth0/device/numa_node",
    "sys/class/power_supply/BAT0/type",
    "sys/class/power_supply/BAT0/charge_full",
    "sys/class/power_supply/BAT0/voltage_now",
    "sys/class/power_supply/BAT0/temp",
    "sys/class/drm/card0/device/uevent",
    "sys/class/powercap/intel-rapl:0/energy_uj",
];

/// A folder of this process in which the files are written over and over.
static TREE: LazyLock<PathBuf> = LazyLock::new(|| {
    let tree = std::env::temp_dir().join(format!("isotherm-machine-{}", std::process::id()));
    for driver in ["amdgpu", "nvidia"] {
        std::fs::create_dir_all(tree.join("drivers").join(driver)).expect("the scratch folder is writable");
    }
    for name in FILES {
        let path = tree.join(name);
        std::fs::create_dir_all(path.parent().expect("files have folders")).expect("the scratch folder is writable");
    }
    tree
});

/// Panics where the promise above is broken.
pub fn check(data: &[u8]) {
    let mut pieces = data.split(|byte| *byte == 0);
    for name in FILES {
        std::fs::write(TREE.join(name), pieces.next().unwrap_or_default()).expect("the scratch folder is writable");
    }
    let driver = TREE.join("sys/bus/pci/devices/0000:01:00.0/driver");
    let _ = std::fs::remove_file(&driver);
    #[cfg(unix)]
    let _ = std::os::unix::fs::symlink(
        TREE.join("drivers").join(if data.len().is_multiple_of(2) { "amdgpu" } else { "nvidia" }),
        driver,
    );
    let roots = Roots { proc: TREE.join("proc"), sys: TREE.join("sys") };
    let machine = Machine::discover(&roots);
    for device in &machine.pci {
        assert!(machine.path_to_root(&device.address).len() <= machine.pci.len());
        assert!(
            device.link.and_then(|link| link.bytes_per_second_max()).is_none_or(|rate| rate.is_finite() && rate > 0.0)
        );
    }
    for battery in &machine.batteries {
        assert!(battery.capacity_joules.is_none_or(|energy| energy.value().is_finite() && energy.value() > 0.0));
    }
    let registry = Registry::of(&machine);
    assert!(registry.since(&registry).is_empty());
    let mut sampler = Sampler::new(&roots, &machine);
    for at_ms in [0, 1] {
        for sample in sampler.sample(at_ms) {
            assert!(sample.busy.is_none_or(|busy| (0.0..=1.0).contains(&busy)));
            assert!(sample.celsius.is_none_or(|celsius| celsius.value().abs() <= 200.0));
        }
    }
}
