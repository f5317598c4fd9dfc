//! What this computer is: processor, caches, memory, and the sensors it has.
//!
//! Everything is read from the kernel's text files (`proc` and `sysfs`, documented under `Documentation/ABI` in the
//! Linux source). Their roots are parameters, so that any machine can be described by a folder of files. What a system
//! does not tell is absent: `None` or an empty list, never 0. A system without these files gives a host of which
//! nothing is known.

mod sensors;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use isotherm_core::units::{Bytes, Hertz};
use serde::Serialize;

pub use self::sensors::{EnergyCounter, PowerSensor, Sensors, TemperatureSensor};

/// Whether a folder lies in memory (tmpfs, ramfs) as far as the system says.
#[must_use]
pub fn is_in_memory(folder: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        /// As `linux/magic.h` numbers them.
        const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
        let kind = rustix::fs::statfs(folder).ok().and_then(|known| u64::try_from(known.f_type).ok());
        kind.is_some_and(|kind| IN_MEMORY.contains(&kind))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        false
    }
}

/// Bytes of a kernel file that are looked at.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// Processors in a kernel list beyond which it is taken for damaged.
const CPUS_MAX: u32 = 1 << 16;

/// Where the kernel's text files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The folder that is `/proc` on a running system.
    pub proc: PathBuf,
    /// The folder that is `/sys` on a running system.
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into() }
    }
}

/// A computer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Host {
    /// The processor's name.
    pub cpu_model: Option<String>,
    /// Logical processors that are switched on.
    pub cpus: Option<u32>,
    /// Physical cores among them.
    pub cores: Option<u32>,
    /// Sockets among them.
    pub packages: Option<u32>,
    /// Highest clock the processor promises.
    pub clock_max_hertz: Option<Hertz>,
    /// Processor time this program may use, in processors, where a control group limits it.
    pub cpu_limit: Option<f64>,
    /// Caches, from the smallest level up.
    pub caches: Vec<Cache>,
    /// Memory nodes in order of their number.
    pub numa_nodes: Vec<NumaNode>,
    /// Main memory.
    pub memory_total_bytes: Option<Bytes>,
    /// Main memory that can be had without swapping.
    pub memory_available_bytes: Option<Bytes>,
    /// Main memory this program may use, where a control group limits it.
    pub memory_limit_bytes: Option<Bytes>,
}

/// Caches of one level, kind and size.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Cache {
    /// 1, 2, 3.
    pub level: u32,
    /// `Data`, `Instruction` or `Unified`.
    pub kind: String,
    /// Size of each.
    pub bytes: Bytes,
    /// How many there are.
    pub count: u32,
    /// Logical processors that share each.
    pub shared_by: u32,
}

/// A part of memory and the processors next to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NumaNode {
    /// The kernel's number.
    pub id: u32,
    /// Logical processors of this node, rising.
    pub cpus: Vec<u32>,
    /// Its memory.
    pub memory_total_bytes: Option<Bytes>,
    /// Its memory that nothing uses.
    pub memory_free_bytes: Option<Bytes>,
}

impl Host {
    /// Reads what the kernel tells.
    pub fn discover(roots: &Roots) -> Self {
        let cpu_folder = roots.sys.join("devices/system/cpu");
        let online = text(&cpu_folder.join("online")).and_then(|list| cpu_list(&list));
        let cpus = online.clone().unwrap_or_default();
        let meminfo = text(&roots.proc.join("meminfo"));
        let memory = |key| meminfo.as_deref().and_then(|text| kibibytes(text, key));
        let topology = |name: &str| -> Option<Vec<u64>> {
            cpus.iter().map(|cpu| number(&cpu_folder.join(format!("cpu{cpu}/topology/{name}")))).collect()
        };
        let packages = topology("physical_package_id").filter(|ids| !ids.is_empty());
        // A core's number is unique within its socket only.
        let cores =
            packages.as_ref().zip(topology("core_id")).map(|(packages, cores)| packages.iter().zip(cores).collect());
        Self {
            cpu_model: text(&roots.proc.join("cpuinfo")).and_then(|text| cpu_model(&text)),
            cpus: online.map(|cpus| cpus.len() as u32),
            cores: cores.map(|cores: BTreeSet<(&u64, u64)>| cores.len() as u32),
            packages: packages.as_ref().map(|ids| ids.iter().collect::<BTreeSet<_>>().len() as u32),
            clock_max_hertz: clock_max(&cpu_folder, &cpus),
            cpu_limit: limits(roots, "cpu.max").filter_map(|line| quota(&line)).min_by(f64::total_cmp),
            caches: caches(&cpu_folder, &cpus),
            numa_nodes: numa_nodes(&roots.sys.join("devices/system/node")),
            memory_total_bytes: memory("MemTotal"),
            memory_available_bytes: memory("MemAvailable"),
            memory_limit_bytes: limits(roots, "memory.max").filter_map(|line| line.parse().ok().map(Bytes)).min(),
        }
    }
}

/// The content of a small file without white space around it; `None` when there is none to be read.
pub(crate) fn text(path: &Path) -> Option<String> {
    let mut content = Vec::new();
    // The kernel's own are far shorter; whatever else lies there may not fill the memory.
    std::fs::File::open(path).ok()?.take(TEXT_BYTES_MAX).read_to_end(&mut content).ok()?;
    Some(String::from_utf8_lossy(&content).trim().to_owned())
}

pub(crate) fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// The entries of a folder whose names are `prefix` and a number, in the order of the number.
pub(crate) fn numbered(folder: &Path, prefix: &str) -> Vec<(u32, PathBuf)> {
    let listing = folder.read_dir().into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = listing
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// The processors of a kernel list such as `0-3,8`.
fn cpu_list(list: &str) -> Option<Vec<u32>> {
    let mut cpus = BTreeSet::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if last < first || last >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus.into_iter().collect())
}

/// The processor's name in `/proc/cpuinfo`: x86 says `model name`, other families use the other keys or say nothing.
fn cpu_model(cpuinfo: &str) -> Option<String> {
    ["model name", "Model", "Hardware", "cpu model", "cpu"].into_iter().find_map(|wanted| {
        cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            let value = value.trim();
            (key.trim() == wanted && !value.is_empty()).then(|| value.to_owned())
        })
    })
}

/// The number after `key` in a file like `/proc/meminfo`, whose unit is written `kB` and means 1024 bytes.
pub(crate) fn kibibytes(text: &str, key: &str) -> Option<Bytes> {
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        // Lines of a memory node have its name first.
        (name.split_whitespace().next_back()? == key).then_some(value)
    })?;
    let count: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    count.checked_mul(1024).map(Bytes)
}

fn clock_max(cpu_folder: &Path, cpus: &[u32]) -> Option<Hertz> {
    let kilohertz =
        cpus.iter().filter_map(|cpu| number(&cpu_folder.join(format!("cpu{cpu}/cpufreq/cpuinfo_max_freq"))));
    Some(Hertz::of(kilohertz.max()? as f64 * 1e3))
}

fn caches(cpu_folder: &Path, cpus: &[u32]) -> Vec<Cache> {
    // Every processor lists all caches it uses; one cache is listed by all that share it.
    let mut seen: BTreeSet<(u32, String, Bytes, Vec<u32>)> = BTreeSet::new();
    for cpu in cpus {
        for (_, folder) in numbered(&cpu_folder.join(format!("cpu{cpu}/cache")), "index") {
            let read = || {
                let level = u32::try_from(number(&folder.join("level"))?).ok()?;
                let shared = cpu_list(&text(&folder.join("shared_cpu_list"))?)?;
                Some((level, text(&folder.join("type"))?, cache_size(&text(&folder.join("size"))?)?, shared))
            };
            seen.extend(read());
        }
    }
    let mut counted: BTreeMap<(u32, String, Bytes, u32), u32> = BTreeMap::new();
    for (level, kind, bytes, shared) in seen {
        *counted.entry((level, kind, bytes, shared.len() as u32)).or_default() += 1;
    }
    let cache = |((level, kind, bytes, shared_by), count)| Cache { level, kind, bytes, count, shared_by };
    counted.into_iter().map(cache).collect()
}

/// A size such as `1024K`.
fn cache_size(size: &str) -> Option<Bytes> {
    let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &size[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).map(Bytes)
}

fn numa_nodes(folder: &Path) -> Vec<NumaNode> {
    let node = |(id, path): (u32, PathBuf)| {
        let meminfo = text(&path.join("meminfo"));
        let memory = |key| meminfo.as_deref().and_then(|text| kibibytes(text, key));
        Some(NumaNode {
            id,
            cpus: cpu_list(&text(&path.join("cpulist"))?)?,
            memory_total_bytes: memory("MemTotal"),
            memory_free_bytes: memory("MemFree"),
        })
    };
    numbered(folder, "node").into_iter().filter_map(node).collect()
}

/// The file of that name in this program's control group (version 2) and in every group around it. A group without
/// the file, or with `max` in it, sets no limit.
fn limits(roots: &Roots, file: &'static str) -> impl Iterator<Item = String> {
    let mount = roots.sys.join("fs/cgroup");
    let group = text(&roots.proc.join("self/cgroup")).and_then(|groups| {
        let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        // Inside a container the path may lead out of what is mounted there.
        (!group.split('/').any(|part| part == "..")).then(|| mount.join(group))
    });
    let groups: Vec<PathBuf> = match group {
        Some(group) => group.ancestors().take_while(|path| path.starts_with(&mount)).map(Path::to_owned).collect(),
        None => vec![mount],
    };
    groups.into_iter().filter_map(move |group| text(&group.join(file)))
}

/// Processors in a line of `cpu.max`: quota and period in microseconds.
fn quota(line: &str) -> Option<f64> {
    let (quota, period) = line.split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    let processors = quota / period;
    (processors.is_finite() && processors > 0.0).then_some(processors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_lists_are_read_or_refused() {
        assert_eq!(cpu_list("0-3,8"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpu_list(""), Some(vec![]));
        for bad in ["3-0", "x", "0-", "0-4294967295", "-1"] {
            assert_eq!(cpu_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_and_quotas_are_read_or_refused() {
        assert_eq!(cache_size("1024K"), Some(Bytes(1 << 20)));
        assert_eq!(cache_size("512"), Some(Bytes(512)));
        for bad in ["", "K", "1T", "99999999999999999999K", "18446744073709551615K"] {
            assert_eq!(cache_size(bad), None, "{bad}");
        }
        assert_eq!(quota("150000 100000"), Some(1.5));
        for bad in ["max 100000", "1", "1 0", "0 100000", ""] {
            assert_eq!(quota(bad), None, "{bad}");
        }
    }
}
