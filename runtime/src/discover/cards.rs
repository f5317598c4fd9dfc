//! Graphics cards and accelerators: what each driver tells of its own.
//!
//! NVIDIA's driver writes under `/proc/driver/nvidia`, amdgpu beside the PCI device
//! (`Documentation/gpu/amdgpu/driver-misc.rst` in the Linux source), boards and phones have cards without PCI: DRM devices
//! of the platform, Jetson's `devfreq`, Adreno's `kgsl`, Mali's `misc` device.

use super::pci::PciDevice;
use super::{known, names, target_name};
use crate::host::{Roots, number, numbered, text};
use isotherm_core::units::{Bytes, Celsius, Hertz, Watts};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A card.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Card {
    /// What stays when slots change: its maker's UUID where the driver tells one; else where it is.
    pub key: String,
    /// Its name, by its driver; by numbers where the driver tells none.
    pub name: String,
    /// Its UUID or serial number, as its driver tells it.
    pub uuid: Option<String>,
    /// Its PCI address; absent for what is built in.
    pub pci: Option<String>,
    /// The driver that has it; absent where none does.
    pub driver: Option<String>,
    /// The driver's version, where the driver tells it.
    pub driver_version: Option<String>,
    /// Its own memory. Absent where it shares the host's, or nobody says.
    pub memory_bytes: Option<Bytes>,
    /// Its own memory in use.
    pub memory_used_bytes: Option<Bytes>,
    /// Highest clock.
    pub clock_max_hertz: Option<Hertz>,
    /// The power limit in force, and the least and most that may be set.
    pub power_cap_watts: Option<Watts>,
    /// Least power limit.
    pub power_cap_min_watts: Option<Watts>,
    /// Greatest power limit.
    pub power_cap_max_watts: Option<Watts>,
    /// The memory node it is next to.
    pub numa_node: Option<u32>,
    /// Its sensors, as far as the kernel has them.
    pub sensors: CardSensors,
}

/// Files that tell of a card from moment to moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CardSensors {
    /// Temperature of the die's edge, or the only one there is.
    #[serde(skip)]
    pub edge: Option<PathBuf>,
    /// Temperature of the hottest spot.
    #[serde(skip)]
    pub hot_spot: Option<PathBuf>,
    /// Temperature of the memory.
    #[serde(skip)]
    pub memory: Option<PathBuf>,
    /// Power, in microwatts.
    #[serde(skip)]
    pub power: Option<PathBuf>,
    /// Turns of the fan in a minute.
    #[serde(skip)]
    pub fan: Option<PathBuf>,
    /// Clock of the compute units, in hertz.
    #[serde(skip)]
    pub clock: Option<PathBuf>,
    /// Share of the time it works, in percent.
    #[serde(skip)]
    pub busy: Option<PathBuf>,
    /// Memory in use, in bytes.
    #[serde(skip)]
    pub memory_used: Option<PathBuf>,
}

impl CardSensors {
    /// How many of them there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let Self { edge, hot_spot, memory, power, fan, clock, busy, memory_used } = self;
        [edge, hot_spot, memory, power, fan, clock, busy, memory_used].into_iter().flatten().count()
    }
}

pub(super) fn cards(roots: &Roots, pci: &[PciDevice]) -> Vec<Card> {
    let mut cards: Vec<Card> =
        pci.iter().filter(|device| device.is_card()).map(|device| on_pci(roots, device)).collect();
    cards.extend(of_the_platform(roots));
    cards.extend(jetson(roots));
    cards.extend(adreno(roots));
    cards.extend(mali(roots));
    cards.sort_by(|a, b| a.key.cmp(&b.key));
    // One chip may be both a DRM device and a `devfreq` one.
    cards.dedup_by(|later, first| later.key == first.key && later.pci == first.pci);
    cards
}

fn on_pci(roots: &Roots, device: &PciDevice) -> Card {
    let folder = roots.sys.join("bus/pci/devices").join(&device.address);
    let number = |id: Option<u16>| id.map_or_else(|| "????".to_owned(), |id| format!("{id:04x}"));
    let by_number = format!("PCI device {}:{}", number(device.vendor), number(device.device));
    let mut card = Card {
        name: known(&folder.join("product_name")).or_else(|| known(&folder.join("label"))).unwrap_or(by_number),
        pci: Some(device.address.clone()),
        driver: device.driver.clone(),
        numa_node: device.numa_node,
        ..Card::default()
    };
    match device.driver.as_deref() {
        Some("nvidia") => nvidia(roots, &device.address, &mut card),
        Some("amdgpu") => amdgpu(&folder, &mut card),
        _ => {}
    }
    card.sensors = sensors(&folder);
    card.key = card.uuid.clone().unwrap_or_else(|| format!("pci-{}", device.address));
    card
}

/// What NVIDIA's driver says of a card in `information`, lines of a name and a value.
fn nvidia(roots: &Roots, address: &str, card: &mut Card) {
    let told = text(&roots.proc.join("driver/nvidia/gpus").join(address).join("information")).unwrap_or_default();
    let value = |key: &str| {
        let line = told.lines().find_map(|line| line.split_once(':').filter(|(name, _)| name.trim() == key))?;
        let value = line.1.trim();
        // A card that is not awake has question marks for its numbers.
        (!value.is_empty() && !value.contains('?')).then(|| value.to_owned())
    };
    if let Some(model) = value("Model") {
        card.name = model;
    }
    card.uuid = value("GPU UUID");
    // `NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan ...`
    let version = text(&roots.proc.join("driver/nvidia/version"));
    let digits = |word: &&str| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    card.driver_version =
        version.and_then(|version| version.lines().next()?.split_whitespace().find(digits).map(str::to_owned));
}

fn amdgpu(folder: &Path, card: &mut Card) {
    let bytes = |name: &str| number(&folder.join(name)).filter(|bytes| *bytes > 0).map(Bytes);
    card.uuid = known(&folder.join("unique_id")).filter(|id| id.bytes().all(|b| b.is_ascii_hexdigit()) && id != "0");
    card.memory_bytes = bytes("mem_info_vram_total");
    card.memory_used_bytes = number(&folder.join("mem_info_vram_used")).map(Bytes);
    card.driver_version = known(&folder.join("driver/module/version"));
    // `0: 500Mhz`, `1: 2500Mhz *`: the last is the highest.
    card.clock_max_hertz = text(&folder.join("pp_dpm_sclk")).and_then(|table| {
        let clocks = table.lines().filter_map(|line| {
            let word = line.split_once(':')?.1.split_whitespace().next()?;
            word.to_ascii_lowercase().strip_suffix("mhz")?.parse::<u32>().ok()
        });
        clocks.max().map(|megahertz| Hertz::of(f64::from(megahertz) * 1e6))
    });
    let Some((_, chip)) = numbered(&folder.join("hwmon"), "hwmon").into_iter().next() else { return };
    let watts = |name: &str| Watts::new(number(&chip.join(name))? as f64 / 1e6).ok();
    card.power_cap_watts = watts("power1_cap");
    card.power_cap_min_watts = watts("power1_cap_min");
    card.power_cap_max_watts = watts("power1_cap_max");
}

/// The sensors of the chip that monitors a device. Labels say which is which; without labels the first is the edge.
fn sensors(folder: &Path) -> CardSensors {
    let exists = |path: PathBuf| path.exists().then_some(path);
    let mut found = CardSensors {
        busy: exists(folder.join("gpu_busy_percent")),
        memory_used: exists(folder.join("mem_info_vram_used")),
        ..CardSensors::default()
    };
    let Some((_, chip)) = numbered(&folder.join("hwmon"), "hwmon").into_iter().next() else { return found };
    for channel in 1..=16 {
        let Some(path) = exists(chip.join(format!("temp{channel}_input"))) else { continue };
        match text(&chip.join(format!("temp{channel}_label"))).as_deref() {
            Some("junction") => found.hot_spot = Some(path),
            Some("mem" | "memory" | "vram") => found.memory = Some(path),
            Some("edge") | None if found.edge.is_none() => found.edge = Some(path),
            _ => {}
        }
    }
    // Newer firmware reports a momentary power, older an average.
    found.power = exists(chip.join("power1_input")).or_else(|| exists(chip.join("power1_average")));
    found.fan = exists(chip.join("fan1_input"));
    found.clock = exists(chip.join("freq1_input"));
    found
}

/// DRM devices that are on no PCI bus: boards.
fn of_the_platform(roots: &Roots) -> Vec<Card> {
    let folder = roots.sys.join("class/drm");
    let card = |(_, path): (u32, PathBuf)| {
        let device = path.join("device");
        let place = device.canonicalize().ok()?;
        let place = place.file_name()?.to_str()?.to_owned();
        let uevent = text(&device.join("uevent"))?;
        let value =
            |key: &str| uevent.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned));
        // A display without a compute unit has no renderer, and a PCI card was found on its bus.
        if value("PCI_ID").is_some() || names(&device.join("drm")).iter().all(|name| !name.starts_with("renderD")) {
            return None;
        }
        let name = value("OF_COMPATIBLE_0").or_else(|| value("DRIVER"))?;
        let driver = target_name(&device.join("driver")).or_else(|| value("DRIVER"));
        Some(Card { key: format!("platform-{place}"), name, driver, sensors: sensors(&device), ..Card::default() })
    };
    numbered(&folder, "card").into_iter().filter_map(card).collect()
}

/// Jetson's chip has its clock in `devfreq` and its temperature in a thermal zone of the name `GPU-therm`.
fn jetson(roots: &Roots) -> Vec<Card> {
    let folder = roots.sys.join("class/devfreq");
    let is_chip = |name: &String| {
        let kind = name.rsplit_once('.').map_or(name.as_str(), |(_, kind)| kind);
        matches!(kind, "ga10b" | "gv11b" | "gp10b" | "gm20b" | "gpu")
    };
    let zone = |wanted: &str| {
        let zones = numbered(&roots.sys.join("class/thermal"), "thermal_zone");
        let named = |path: &PathBuf| text(&path.join("type")).is_some_and(|kind| kind.eq_ignore_ascii_case(wanted));
        zones.into_iter().map(|(_, path)| path).find(named).map(|path| path.join("temp"))
    };
    let card = |name: String| {
        let device = folder.join(&name);
        let load = device.join("device/load");
        Card {
            key: format!("platform-{name}"),
            name: known(&roots.proc.join("device-tree/model")).unwrap_or_else(|| name.clone()),
            driver: target_name(&device.join("device/driver")),
            clock_max_hertz: number(&device.join("max_freq")).map(|hertz| Hertz::of(hertz as f64)),
            sensors: CardSensors {
                edge: zone("GPU-therm").or_else(|| zone("gpu-thermal")),
                clock: Some(device.join("cur_freq")).filter(|path| path.exists()),
                busy: Some(load).filter(|path| path.exists()),
                ..CardSensors::default()
            },
            ..Card::default()
        }
    };
    names(&folder).into_iter().filter(is_chip).map(card).collect()
}

/// Qualcomm's driver on phones.
fn adreno(roots: &Roots) -> Option<Card> {
    let folder = roots.sys.join("class/kgsl/kgsl-3d0");
    folder.exists().then(|| Card {
        key: "platform-kgsl-3d0".to_owned(),
        name: known(&folder.join("gpu_model")).unwrap_or_else(|| "Adreno".to_owned()),
        driver: Some("kgsl".to_owned()),
        clock_max_hertz: number(&folder.join("max_gpuclk"))
            .filter(|hertz| *hertz > 0)
            .map(|hertz| Hertz::of(hertz as f64)),
        sensors: CardSensors {
            edge: Some(folder.join("temp")).filter(|path| path.exists()),
            clock: Some(folder.join("gpuclk")).filter(|path| path.exists()),
            busy: Some(folder.join("gpu_busy_percentage")).filter(|path| path.exists()),
            ..CardSensors::default()
        },
        ..Card::default()
    })
}

/// ARM's driver on phones and boards.
fn mali(roots: &Roots) -> Option<Card> {
    let folder = roots.sys.join("class/misc/mali0/device");
    // `Mali-G78 24 cores r0p1 0x9002`
    let name = known(&folder.join("gpuinfo"));
    folder.exists().then(|| Card {
        key: "platform-mali0".to_owned(),
        name: name.unwrap_or_else(|| "Mali".to_owned()),
        driver: target_name(&folder.join("driver")).or_else(|| Some("mali".to_owned())),
        sensors: CardSensors {
            clock: Some(folder.join("clock")).filter(|path| path.exists()),
            busy: Some(folder.join("utilization")).filter(|path| path.exists()),
            ..CardSensors::default()
        },
        ..Card::default()
    })
}

/// A temperature in thousandths of a degree, as the kernel writes it; `None` outside -60 to 200 °C.
#[must_use]
pub(crate) fn celsius(path: &Path) -> Option<Celsius> {
    let thousandths: i64 = text(path)?.parse().ok()?;
    (-60_000..=200_000).contains(&thousandths).then(|| Celsius::of(thousandths as f64 / 1e3))
}
