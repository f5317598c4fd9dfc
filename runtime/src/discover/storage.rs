//! Disks, and how fast they are read.

use super::{known, names, target_name};
use crate::host::{Roots, number, text};
use isotherm_core::units::Bytes;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of a sector in `size`, whatever the disk's own sectors (`Documentation/ABI/stable/sysfs-block`).
const SECTOR: u64 = 512;

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// The kernel's name, such as `nvme0n1`.
    pub name: String,
    /// Its name by its maker.
    pub model: Option<String>,
    /// Its serial number or world-wide name.
    pub serial: Option<String>,
    /// Its size.
    pub bytes: Option<Bytes>,
    /// Whether it turns.
    pub rotational: Option<bool>,
    /// Whether it can be taken out.
    pub removable: Option<bool>,
    /// The driver that has it.
    pub driver: Option<String>,
}

pub(super) fn disks(roots: &Roots) -> Vec<Disk> {
    let folder = roots.sys.join("block");
    // Made by software from other disks or from memory.
    let made = ["loop", "ram", "zram", "dm-", "md", "nbd", "fd", "sr"];
    let real = |name: &String| {
        !made.iter().any(|kind| name.strip_prefix(kind).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit())))
    };
    let flag = |path: &Path| match text(path)?.as_str() {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    };
    let disk = |name: String| {
        let path = folder.join(&name);
        Disk {
            model: known(&path.join("device/model")).or_else(|| known(&path.join("device/name"))),
            serial: known(&path.join("device/serial")).or_else(|| known(&path.join("wwid"))),
            bytes: number(&path.join("size"))
                .filter(|size| *size > 0)
                .and_then(|size| size.checked_mul(SECTOR))
                .map(Bytes),
            rotational: flag(&path.join("queue/rotational")),
            removable: flag(&path.join("removable")),
            driver: target_name(&path.join("device/driver")),
            name,
        }
    };
    names(&folder).into_iter().filter(real).map(disk).collect()
}

/// How fast a file was read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReadSpeed {
    /// Bytes per second from end to end.
    pub sequential_bytes_per_second: f64,
    /// Reads per second of 4096 bytes each at places in no order.
    pub random_reads_per_second: f64,
    /// Bytes that were read from end to end.
    pub bytes: u64,
    /// Reads at places in no order.
    pub reads: u64,
}

/// Reads a file from its beginning and then at places in no order, for at most `budget` each. What the kernel has in its
/// memory comes faster than from the disk, so a file that was just written or read says nothing of the disk.
///
/// Errors: a file that cannot be read, or is shorter than one block.
pub fn read_speed(path: &Path, budget: Duration) -> io::Result<ReadSpeed> {
    const BLOCK: u64 = 4096;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length < BLOCK {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} is shorter than {BLOCK} bytes")));
    }
    let mut buffer = vec![0; 1 << 20];
    let begun = Instant::now();
    let mut bytes = 0;
    while begun.elapsed() < budget {
        let read = file.read(&mut buffer)? as u64;
        bytes += read;
        if read == 0 {
            break;
        }
    }
    let sequential = bytes as f64 / begun.elapsed().as_secs_f64().max(1e-9);
    let (begun, mut reads, mut place) = (Instant::now(), 0_u64, 1_u64);
    while begun.elapsed() < budget {
        // A full-period generator (Knuth's constants) over the blocks of the file.
        place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        file.seek(SeekFrom::Start((place >> 16) % (length / BLOCK) * BLOCK))?;
        file.read_exact(&mut buffer[..BLOCK as usize])?;
        reads += 1;
    }
    let random = reads as f64 / begun.elapsed().as_secs_f64().max(1e-9);
    Ok(ReadSpeed { sequential_bytes_per_second: sequential, random_reads_per_second: random, bytes, reads })
}
