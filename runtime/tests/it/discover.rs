//! Machines described by folders of files, in the shapes that real ones have.

use crate::host_tree::{Tree, board, dual_socket, jetson, laptop, phone, raspberry_pi, workstation};
use isotherm_core::units::{Bytes, Celsius, Joules, Watts};
use isotherm_runtime::discover::registry::{Change, Registry, RegistryError};
use isotherm_runtime::discover::{Machine, read_speed};
use std::time::Duration;

#[test]
fn an_nvidia_and_an_amd_card_in_one_box_are_two_cards_with_what_their_drivers_tell() {
    let tree = workstation();
    let machine = Machine::discover(&tree.roots());
    assert_eq!(machine.product.as_deref(), Some("Example Corp Tower 9"));
    let [nvidia, amd] = machine.cards.as_slice() else { panic!("{:?}", machine.cards) };
    let (nvidia, amd) = if nvidia.driver.as_deref() == Some("nvidia") { (nvidia, amd) } else { (amd, nvidia) };
    assert_eq!(nvidia.name, "NVIDIA GeForce RTX 4090");
    assert_eq!(nvidia.key, "GPU-0d7e3a1c-1111-2222-3333-444455556666");
    assert_eq!(nvidia.driver_version.as_deref(), Some("570.86.15"));
    assert_eq!(nvidia.memory_bytes, None, "its driver tells memory by its library alone");
    assert_eq!(nvidia.sensors.count(), 0);
    assert_eq!((amd.pci.as_deref(), amd.driver.as_deref()), (Some("0000:0b:00.0"), Some("amdgpu")));
    assert_eq!((amd.key.as_str(), amd.memory_bytes), ("a1b2c3d4e5f60718", Some(Bytes(25_753_026_560))));
    assert_eq!(amd.memory_used_bytes, Some(Bytes(28_311_552)));
    assert_eq!(amd.power_cap_watts, Some(Watts::of(303.0)));
    assert_eq!((amd.power_cap_min_watts, amd.power_cap_max_watts), (Some(Watts::ZERO), Some(Watts::of(348.0))));
    assert_eq!(amd.clock_max_hertz.map(|clock| clock.value()), Some(2.526e9));
    assert_eq!(amd.sensors.count(), 8, "edge, junction, memory, power, fan, clock, busy, memory in use");
    assert_eq!(amd.driver_version, None, "in-tree drivers have no version of their own");
}

#[test]
fn the_pci_tree_says_what_shares_a_bridge() {
    let tree = workstation();
    let machine = Machine::discover(&tree.roots());
    assert_eq!(machine.path_to_root("0000:0b:00.0"), ["0000:0a:00.0", "0000:09:00.0", "0000:00:03.1"]);
    assert_eq!(machine.path_to_root("0000:01:00.0"), ["0000:00:01.1"]);
    assert_eq!(machine.common_bridge("0000:0b:00.0", "0000:01:00.0"), None, "two roots");
    assert_eq!(
        machine.common_bridge("0000:0b:00.0", "0000:0b:00.1"),
        Some("0000:0a:00.0"),
        "two functions of one card"
    );
    let link = machine.pci.iter().find(|d| d.address == "0000:01:00.0").and_then(|d| d.link).expect("a link");
    assert_eq!((link.gigatransfers_max, link.lanes_max, link.lanes), (Some(16.0), Some(16), Some(8)));
    // 16 GT/s x 16 lanes x 128/130 / 8.
    assert!((link.bytes_per_second_max().expect("known") / 31.5077e9 - 1.0).abs() < 1e-4);
    let bridge = machine.pci.iter().find(|d| d.address == "0000:00:01.1").expect("there");
    assert_eq!((bridge.parent.as_deref(), bridge.link, bridge.numa_node), (None, None, None));
}

#[test]
fn a_dual_socket_server_has_two_memory_nodes_and_says_which_card_is_where() {
    let tree = dual_socket();
    let machine = Machine::discover(&tree.roots());
    assert_eq!(machine.host.packages, Some(2));
    assert_eq!(machine.host.numa_nodes.iter().map(|node| node.cpus.len()).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(machine.cards.iter().map(|card| card.numa_node).collect::<Vec<_>>(), [Some(0), Some(1)]);
    assert!(machine.cards.iter().all(|card| card.driver.is_none() && card.name == "PCI device 10de:2330"));
    assert_eq!(machine.nics.len(), 1, "bond and loopback have no hardware");
    let nic = &machine.nics[0];
    assert_eq!((nic.pci.as_deref(), nic.megabits_per_second), (Some("0000:81:00.0"), Some(100_000)));
    assert_eq!((nic.driver.as_deref(), nic.numa_node, nic.up), (Some("mlx5_core"), Some(1), Some(true)));
    let names: Vec<_> = machine.disks.iter().map(|disk| disk.name.as_str()).collect();
    assert_eq!(names, ["nvme0n1", "sda"], "loops and volumes are no disks");
    assert_eq!((machine.disks[1].rotational, machine.disks[1].bytes), (Some(true), Some(Bytes(16_000_900_661_248))));
    assert_eq!(machine.disks[0].serial.as_deref(), Some("S5XANE0R123456"));
}

#[test]
fn a_laptop_has_a_battery_and_a_card_of_its_processor() {
    let tree = laptop();
    let machine = Machine::discover(&tree.roots());
    let [battery] = machine.batteries.as_slice() else { panic!("the mouse's is none: {:?}", machine.batteries) };
    assert_eq!((battery.charge, battery.charging), (Some(0.83), Some(false)));
    // 48.3 Wh when full now, 57 Wh when new.
    assert_eq!(battery.capacity_joules, Some(Joules::of(48_300_000.0 * 3.6e-3)));
    assert_eq!(battery.design_joules, Some(Joules::of(57_000_000.0 * 3.6e-3)));
    assert_eq!(battery.watts, Some(Watts::of(11.5)));
    assert_eq!(
        machine.supplies.iter().map(|supply| (supply.name.as_str(), supply.online)).collect::<Vec<_>>(),
        [("AC", Some(false))]
    );
    let [card] = machine.cards.as_slice() else { panic!("{:?}", machine.cards) };
    assert_eq!((card.driver.as_deref(), card.memory_bytes), (Some("i915"), None), "it shares the host's memory");
    let [nic] = machine.nics.as_slice() else { panic!("{:?}", machine.nics) };
    assert!(nic.wireless && nic.megabits_per_second.is_none(), "over the air there is no agreed speed");
}

#[test]
fn boards_and_phones_have_cards_without_a_bus() {
    let tree = jetson();
    let machine = Machine::discover(&tree.roots());
    assert_eq!(machine.product.as_deref(), Some("NVIDIA Jetson Orin Nano Developer Kit"));
    let [card] = machine.cards.as_slice() else { panic!("{:?}", machine.cards) };
    assert_eq!((card.key.as_str(), card.pci.as_deref()), ("platform-17000000.ga10b", None));
    assert_eq!(card.clock_max_hertz.map(|clock| clock.value()), Some(6.24e8));
    assert_eq!(card.sensors.count(), 3, "temperature, clock, load");

    let tree = raspberry_pi();
    let machine = Machine::discover(&tree.roots());
    assert_eq!(machine.product.as_deref(), Some("Raspberry Pi 5 Model B Rev 1.0"));
    let [card] = machine.cards.as_slice() else { panic!("the display is no card: {:?}", machine.cards) };
    assert_eq!((card.name.as_str(), card.driver.as_deref()), ("brcm,2712-v3d", Some("v3d")));
    assert_eq!(machine.disks[0].name, "mmcblk0");
    assert_eq!(machine.nics[0].megabits_per_second, Some(1000));

    let tree = phone();
    let machine = Machine::discover(&tree.roots());
    let [card] = machine.cards.as_slice() else { panic!("{:?}", machine.cards) };
    assert_eq!((card.name.as_str(), card.driver.as_deref()), ("Adreno740v2", Some("kgsl")));
    let [battery] = machine.batteries.as_slice() else { panic!("{:?}", machine.batteries) };
    // 4.855 Ah at 3.87 V.
    assert!((battery.capacity_joules.expect("counted").value() / (4.855 * 3.87 * 3600.0) - 1.0).abs() < 1e-9);
    assert_eq!((battery.charge, battery.celsius), (Some(0.64), Some(Celsius::of(31.2))));
    assert!(
        (battery.watts.expect("measured").value() - 0.411_5 * 3.9).abs() < 1e-9,
        "charged or not, a power is positive"
    );
    assert!(
        machine.pci.is_empty() && machine.disks.is_empty() && machine.nics.is_empty(),
        "a phone tells an app nothing of these"
    );
    assert_eq!(machine.product, None);
}

#[test]
fn what_is_unreadable_or_damaged_is_absent_and_nothing_is_made_up() {
    let empty = Tree::new();
    assert_eq!(Machine::discover(&empty.roots()), Machine::default());
    for build in [workstation, dual_socket, laptop, jetson, raspberry_pi, phone] {
        let tree = build();
        let whole = Machine::discover(&tree.roots());
        for junk in
            [b"".as_slice(), b"-1", b"\xff\xfe", b"99999999999999999999999999", b"a: b: c\n\n: :\n", &[b'0'; 70_000]]
        {
            let damaged = build();
            damaged.overwrite_all(junk);
            let machine = Machine::discover(&damaged.roots());
            assert!(machine.pci.len() <= whole.pci.len() && machine.disks.len() <= whole.disks.len());
            let figures = machine
                .cards
                .iter()
                .flat_map(|c| [c.memory_bytes.map(|b| b.0 as f64), c.power_cap_watts.map(|w| w.value())]);
            // A file of zeros says 0 W honestly; no size or power appears from nowhere.
            assert!(figures.flatten().all(|figure| figure == 0.0), "{:?}", machine.cards);
            assert!(
                machine.batteries.iter().all(|battery| battery.capacity_joules.is_none()),
                "{:?}",
                machine.batteries
            );
        }
    }
}

#[test]
fn a_registry_says_what_came_went_moved_or_changed_its_driver() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new/registry.json");
    assert_eq!(Registry::load(&path).expect("nothing there"), None);
    let tree = workstation();
    let first = Registry::of(&Machine::discover(&tree.roots()));
    first.store(&path).expect("writable");
    let kept = Registry::load(&path).expect("readable").expect("there");
    assert_eq!(kept, first);
    assert!(first.since(&kept).is_empty());

    // The NVIDIA card goes to another slot under a newer driver, the AMD card is taken out, a disk comes in.
    let tree = workstation();
    tree.remove("sys/bus/pci/devices/0000:0b:00.0");
    tree.remove("sys/bus/pci/devices/0000:01:00.0");
    tree.pci("0000:41:00.0", &[], &[("vendor", "0x10de"), ("device", "0x2684"), ("class", "0x030000")], Some("nvidia"));
    board::nvidia(&tree, "0000:41:00.0");
    tree.put(
        "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.10  Mon Jan  1 00:00:00 UTC 2026",
    );
    tree.put("sys/block/sdz/size", "1000");
    let now = Registry::of(&Machine::discover(&tree.roots()));
    let changes = now.since(&kept);
    let key = "GPU-0d7e3a1c-1111-2222-3333-444455556666".to_owned();
    assert!(
        changes.contains(&Change::Moved {
            key: key.clone(),
            from: "0000:01:00.0".to_owned(),
            to: "0000:41:00.0".to_owned()
        }),
        "{changes:?}"
    );
    let (from, to) = (Some("nvidia 570.86.15".to_owned()), Some("nvidia 580.10".to_owned()));
    assert!(changes.contains(&Change::Driver { key, from, to }), "{changes:?}");
    assert!(changes.iter().any(|change| matches!(change, Change::Removed { key, .. } if key == "a1b2c3d4e5f60718")));
    assert!(changes.iter().any(|change| matches!(change, Change::Added { key, .. } if key == "disk-sdz")));
    assert_eq!(changes.len(), 4, "{changes:?}");
}

#[test]
fn a_torn_or_foreign_registry_is_refused_and_a_failed_write_leaves_the_old_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("registry.json");
    let registry = Registry::of(&Machine::discover(&laptop().roots()));
    registry.store(&path).expect("writable");
    let whole = std::fs::read(&path).expect("readable");
    for length in 0..whole.len() - 2 {
        std::fs::write(&path, &whole[..length]).expect("own file");
        assert!(matches!(Registry::load(&path), Err(RegistryError::Damaged { .. })), "cut at {length}");
    }
    std::fs::write(&path, String::from_utf8(whole.clone()).expect("text").replace("registry/v1", "registry/v2"))
        .expect("own file");
    assert!(matches!(Registry::load(&path), Err(RegistryError::Damaged { .. })));
    std::fs::write(&path, &whole).expect("own file");
    // A folder in the way of the file: the rename fails, and nothing unfinished stays.
    let blocked = folder.path().join("blocked");
    std::fs::create_dir_all(blocked.join("child")).expect("own folder");
    assert!(registry.store(&blocked).is_err());
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("own folder").map(|e| e.expect("listed").file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn two_cards_of_one_serial_number_are_two() {
    let tree = workstation();
    for address in ["0000:21:00.0", "0000:22:00.0"] {
        tree.pci(
            address,
            &[],
            &[("vendor", "0x1002"), ("device", "0x744c"), ("class", "0x030000"), ("unique_id", "77")],
            Some("amdgpu"),
        );
    }
    let machine = Machine::discover(&tree.roots());
    let registry = Registry::of(&machine);
    let twins = registry.entries.keys().filter(|key| key.starts_with("77")).count();
    assert_eq!(twins, 2, "{:?}", registry.entries.keys());
}

#[test]
fn a_file_is_read_from_end_to_end_and_in_no_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weights");
    std::fs::write(&path, vec![7; 3 << 20]).expect("own file");
    let speed = read_speed(&path, Duration::from_millis(50)).expect("readable");
    assert!(speed.bytes <= 3 << 20 && speed.reads > 0 && speed.sequential_bytes_per_second > 0.0);
    std::fs::write(&path, b"short").expect("own file");
    assert!(read_speed(&path, Duration::from_millis(1)).is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn this_machine_is_found_the_same_twice() {
    let roots = isotherm_runtime::host::Roots::default();
    let (one, other) = (Registry::of(&Machine::discover(&roots)), Registry::of(&Machine::discover(&roots)));
    assert!(one.since(&other).is_empty());
}
