//! Folders that look like the kernel's of real machines.

use isotherm_runtime::host::Roots;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder with `proc` and `sys` in it.
pub struct Tree(TempDir);

impl Tree {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn roots(&self) -> Roots {
        Roots { proc: self.0.path().join("proc"), sys: self.0.path().join("sys") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn put(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("files have folders")).expect("writable");
        fs::write(path, format!("{content}\n")).expect("writable");
    }

    /// A link to a folder of this tree, which is made.
    pub fn link(&self, name: &str, target: &str) {
        let (path, target) = (self.path(name), self.path(target));
        fs::create_dir_all(&target).expect("writable");
        fs::create_dir_all(path.parent().expect("links have folders")).expect("writable");
        symlink(target, path).expect("writable");
    }

    pub fn remove(&self, name: &str) {
        let path = self.path(name);
        if path.is_symlink() { fs::remove_file(path) } else { fs::remove_dir_all(path) }.expect("it is there");
    }

    /// A device behind these bridges, root first.
    pub fn pci(&self, address: &str, bridges: &[&str], files: &[(&str, &str)], driver: Option<&str>) {
        let root = bridges.first().unwrap_or(&address);
        let mut folder = format!("sys/devices/pci{}", &root[..7]);
        for bridge in bridges {
            folder = format!("{folder}/{bridge}");
        }
        folder = format!("{folder}/{address}");
        self.link(&format!("sys/bus/pci/devices/{address}"), &folder);
        for (name, content) in files {
            self.put(&format!("{folder}/{name}"), content);
        }
        if let Some(driver) = driver {
            self.link(&format!("{folder}/driver"), &format!("sys/bus/pci/drivers/{driver}"));
        }
    }

    /// Puts the same bytes into every file.
    pub fn overwrite_all(&self, bytes: &[u8]) {
        fn all(folder: &Path, bytes: &[u8]) {
            for entry in fs::read_dir(folder).expect("own folder") {
                let path = entry.expect("listed").path();
                if path.is_symlink() {
                    continue;
                }
                if path.is_dir() { all(&path, bytes) } else { fs::write(&path, bytes).expect("own file") }
            }
        }
        all(self.0.path(), bytes);
    }
}

/// Parts that several machines have.
pub mod board {
    use super::Tree;

    /// What NVIDIA's driver 570 says of a card.
    pub fn nvidia(tree: &Tree, address: &str) {
        tree.put(
            &format!("proc/driver/nvidia/gpus/{address}/information"),
            "Model: \t\t NVIDIA GeForce RTX 4090\nIRQ:   \t\t 181\nGPU UUID: \t GPU-0d7e3a1c-1111-2222-3333-444455556666\n\
             Video BIOS: \t ??.??.??.??.??\nBus Type: \t PCIe\nDMA Size: \t 47 bits\nBus Location: \t 0000:01:00.0\nGPU Excluded:\t No",
        );
        tree.put(
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 03:57:26 UTC 2025\nGCC version:  gcc version 13.3.0",
        );
    }

    /// What amdgpu says of a card, in its folder.
    pub const AMDGPU: [(&str, &str); 26] = [
        ("vendor", "0x1002"),
        ("device", "0x744c"),
        ("class", "0x030000"),
        ("numa_node", "-1"),
        ("current_link_speed", "16.0 GT/s PCIe"),
        ("current_link_width", "16"),
        ("max_link_speed", "16.0 GT/s PCIe"),
        ("max_link_width", "16"),
        ("unique_id", "a1b2c3d4e5f60718"),
        ("mem_info_vram_total", "25753026560"),
        ("mem_info_vram_used", "28311552"),
        ("gpu_busy_percent", "37"),
        ("pp_dpm_sclk", "0: 500Mhz \n1: 1218Mhz *\n2: 2526Mhz"),
        ("hwmon/hwmon3/name", "amdgpu"),
        ("hwmon/hwmon3/temp1_label", "edge"),
        ("hwmon/hwmon3/temp1_input", "47000"),
        ("hwmon/hwmon3/temp1_crit", "100000"),
        ("hwmon/hwmon3/temp2_label", "junction"),
        ("hwmon/hwmon3/temp2_input", "55000"),
        ("hwmon/hwmon3/temp3_label", "mem"),
        ("hwmon/hwmon3/temp3_input", "60000"),
        ("hwmon/hwmon3/power1_average", "131000000"),
        ("hwmon/hwmon3/power1_cap", "303000000"),
        ("hwmon/hwmon3/power1_cap_min", "0"),
        ("hwmon/hwmon3/power1_cap_max", "348000000"),
        ("hwmon/hwmon3/fan1_input", "1480"),
    ];
}

/// An NVIDIA card and an AMD card in one box; the AMD card brings two bridges of its own.
pub fn workstation() -> Tree {
    let tree = Tree::new();
    tree.put("sys/class/dmi/id/sys_vendor", "Example Corp");
    tree.put("sys/class/dmi/id/product_name", "Tower 9");
    let bridge = [
        ("vendor", "0x1022"),
        ("device", "0x14db"),
        ("class", "0x060400"),
        ("numa_node", "-1"),
        ("max_link_width", "255"),
    ];
    tree.pci("0000:00:01.1", &[], &bridge, Some("pcieport"));
    tree.pci("0000:00:03.1", &[], &bridge, Some("pcieport"));
    tree.pci("0000:09:00.0", &["0000:00:03.1"], &[("vendor", "0x1002"), ("class", "0x060400")], Some("pcieport"));
    tree.pci(
        "0000:0a:00.0",
        &["0000:00:03.1", "0000:09:00.0"],
        &[("vendor", "0x1002"), ("class", "0x060400")],
        Some("pcieport"),
    );
    let on = ["0000:00:03.1", "0000:09:00.0", "0000:0a:00.0"];
    tree.pci("0000:0b:00.0", &on, &board::AMDGPU, Some("amdgpu"));
    tree.put(&format!("sys/devices/pci0000:00/{}/0000:0b:00.0/hwmon/hwmon3/freq1_input", on.join("/")), "1218000000");
    tree.pci(
        "0000:0b:00.1",
        &on,
        &[("vendor", "0x1002"), ("device", "0xab30"), ("class", "0x040300")],
        Some("snd_hda_intel"),
    );
    let files = [
        ("vendor", "0x10de"),
        ("device", "0x2684"),
        ("class", "0x030000"),
        ("numa_node", "-1"),
        ("current_link_speed", "2.5 GT/s PCIe"),
        ("current_link_width", "8"),
        ("max_link_speed", "16.0 GT/s PCIe"),
        ("max_link_width", "16"),
    ];
    tree.pci("0000:01:00.0", &["0000:00:01.1"], &files, Some("nvidia"));
    board::nvidia(&tree, "0000:01:00.0");
    tree
}

/// Two sockets, a card beside each, whose driver is not installed; a fast network card, and disks.
pub fn dual_socket() -> Tree {
    let tree = Tree::new();
    let cpu = "sys/devices/system/cpu";
    tree.put(&format!("{cpu}/online"), "0-3");
    for id in 0..4 {
        tree.put(&format!("{cpu}/cpu{id}/topology/physical_package_id"), &(id / 2).to_string());
        tree.put(&format!("{cpu}/cpu{id}/topology/core_id"), &(id % 2).to_string());
    }
    tree.put("sys/devices/system/node/node0/cpulist", "0-1");
    tree.put("sys/devices/system/node/node1/cpulist", "2-3");
    for (address, node) in [("0000:17:00.0", "0"), ("0000:97:00.0", "1")] {
        let files = [("vendor", "0x10de"), ("device", "0x2330"), ("class", "0x030200"), ("numa_node", node)];
        tree.pci(address, &[], &files, None);
    }
    let files = [("vendor", "0x15b3"), ("device", "0x1017"), ("class", "0x020000"), ("numa_node", "1")];
    tree.pci("0000:81:00.0", &[], &files, Some("mlx5_core"));
    let net = "sys/class/net/ens8np0";
    tree.link(&format!("{net}/device"), "sys/devices/pci0000:81/0000:81:00.0");
    for (name, content) in [("address", "94:6d:ae:12:34:56"), ("operstate", "up"), ("speed", "100000"), ("mtu", "9000")]
    {
        tree.put(&format!("{net}/{name}"), content);
    }
    tree.put("sys/class/net/lo/address", "00:00:00:00:00:00");
    tree.put("sys/class/net/bond0/speed", "200000");
    for (name, size, rotational) in
        [("sda", "31251759104", "1"), ("nvme0n1", "7501476528", "0"), ("loop0", "8", "0"), ("dm-0", "100", "0")]
    {
        tree.put(&format!("sys/block/{name}/size"), size);
        tree.put(&format!("sys/block/{name}/queue/rotational"), rotational);
        tree.put(&format!("sys/block/{name}/removable"), "0");
    }
    tree.put("sys/block/nvme0n1/device/model", "SAMSUNG MZQL23T8HCLS-00A07");
    tree.put("sys/block/nvme0n1/device/serial", "S5XANE0R123456");
    tree.put("sys/block/sda/device/model", "ST16000NM001G-2K");
    tree.put("sys/block/sda/wwid", "naa.5000c500c1234567");
    tree
}

/// A laptop off the mains, with a mouse that has a battery too.
pub fn laptop() -> Tree {
    let tree = Tree::new();
    tree.put("sys/class/dmi/id/sys_vendor", "To Be Filled By O.E.M.");
    tree.put("sys/class/dmi/id/product_name", "Laptop 14");
    let files = [("vendor", "0x8086"), ("device", "0x46a6"), ("class", "0x030000"), ("numa_node", "-1")];
    tree.pci("0000:00:02.0", &[], &files, Some("i915"));
    let bat = "sys/class/power_supply/BAT0";
    for (name, content) in [
        ("type", "Battery"),
        ("status", "Discharging"),
        ("capacity", "83"),
        ("energy_full", "48300000"),
        ("energy_full_design", "57000000"),
        ("energy_now", "40100000"),
        ("power_now", "11500000"),
        ("voltage_now", "15400000"),
    ] {
        tree.put(&format!("{bat}/{name}"), content);
    }
    tree.put("sys/class/power_supply/AC/type", "Mains");
    tree.put("sys/class/power_supply/AC/online", "0");
    let mouse = "sys/class/power_supply/hidpp_battery_0";
    for (name, content) in [("type", "Battery"), ("scope", "Device"), ("capacity", "50")] {
        tree.put(&format!("{mouse}/{name}"), content);
    }
    tree.pci("0000:00:14.3", &[], &[("vendor", "0x8086"), ("class", "0x028000")], Some("iwlwifi"));
    tree.link("sys/class/net/wlp0s20f3/device", "sys/devices/pci0000:00/0000:00:14.3");
    tree.put("sys/class/net/wlp0s20f3/operstate", "up");
    tree.put("sys/class/net/wlp0s20f3/address", "a0:b1:c2:d3:e4:f5");
    tree.put("sys/class/net/wlp0s20f3/wireless/status", "0");
    tree
}

/// Jetson Orin Nano: the card is a device of the platform.
pub fn jetson() -> Tree {
    let tree = Tree::new();
    tree.put("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0");
    let device = "sys/class/devfreq/17000000.ga10b";
    tree.put(&format!("{device}/max_freq"), "624750000");
    tree.put(&format!("{device}/cur_freq"), "306000000");
    tree.put(&format!("{device}/device/load"), "402");
    tree.put(&format!("{device}/max_freq"), "624000000");
    tree.put("sys/class/devfreq/15480000.nvdec/max_freq", "793600000");
    tree.put("sys/class/thermal/thermal_zone0/type", "cpu-thermal");
    tree.put("sys/class/thermal/thermal_zone0/temp", "49000");
    tree.put("sys/class/thermal/thermal_zone1/type", "gpu-thermal");
    tree.put("sys/class/thermal/thermal_zone1/temp", "47500");
    tree
}

/// Raspberry Pi 5: a renderer and a display that is none.
pub fn raspberry_pi() -> Tree {
    let tree = Tree::new();
    tree.put("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0");
    let chip = "sys/devices/platform/axi/1002000000.v3d";
    tree.put(&format!("{chip}/uevent"), "DRIVER=v3d\nOF_NAME=v3d\nOF_COMPATIBLE_0=brcm,2712-v3d\nOF_COMPATIBLE_N=1");
    tree.put(&format!("{chip}/drm/renderD128/dev"), "226:128");
    tree.link(&format!("{chip}/driver"), "sys/bus/platform/drivers/v3d");
    tree.link("sys/class/drm/card0/device", chip);
    let display = "sys/devices/platform/axi/axi:gpu";
    tree.put(&format!("{display}/uevent"), "DRIVER=vc4-drm\nOF_COMPATIBLE_0=brcm,bcm2712-vc6");
    tree.put(&format!("{display}/drm/card1/dev"), "226:1");
    tree.link("sys/class/drm/card1/device", display);
    tree.put("sys/block/mmcblk0/size", "62333952");
    tree.put("sys/block/mmcblk0/device/name", "SN32G");
    tree.put("sys/block/mmcblk0/device/serial", "0x1a2b3c4d");
    tree.put("sys/block/zram0/size", "8388608");
    tree.link("sys/class/net/eth0/device", "sys/devices/platform/axi/1f00100000.ethernet");
    tree.put("sys/class/net/eth0/speed", "1000");
    tree.put("sys/class/net/eth0/operstate", "up");
    tree
}

/// A phone as an app under Termux sees it: most of the kernel's files are closed to it.
pub fn phone() -> Tree {
    let tree = Tree::new();
    tree.put("proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 38.40\nHardware\t: Qualcomm Technologies, Inc SM8550");
    let card = "sys/class/kgsl/kgsl-3d0";
    tree.put(&format!("{card}/gpu_model"), "Adreno740v2");
    tree.put(&format!("{card}/max_gpuclk"), "680000000");
    tree.put(&format!("{card}/gpuclk"), "220000000");
    tree.put(&format!("{card}/gpu_busy_percentage"), "12 %");
    let bat = "sys/class/power_supply/battery";
    for (name, content) in [
        ("type", "Battery"),
        ("status", "Charging"),
        ("capacity", "64"),
        ("charge_full", "4855000"),
        ("voltage_min_design", "3870000"),
        ("voltage_now", "3900000"),
        ("current_now", "-411500"),
        ("temp", "312"),
    ] {
        tree.put(&format!("{bat}/{name}"), content);
    }
    tree
}
