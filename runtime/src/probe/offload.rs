//! How quickly a device's layers come from where they lie when they are not held.

use super::samples::Samples;
use crate::backend::{DeviceError, Op, View};
use crate::cpu::memory;
use crate::engine::Card;
use crate::model::format::BlockFormat;
use isotherm_core::figure::Figure;
use isotherm_core::units::BytesPerSecond;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

/// Bytes of a piece that is brought at least: smaller layers are brought several at a time.
const PIECE_MIN: usize = 8 << 20;
/// Pieces that are brought.
const PIECES: usize = 8;
/// Columns of the matrices that are brought to a card.
const COLUMNS: usize = 1024;

/// The rate of these pieces; none where the clock saw nothing.
fn rate(samples: &Samples, bytes: usize, source: String, when: &str) -> Option<Figure<BytesPerSecond>> {
    let rate = BytesPerSecond::new(bytes as f64 / samples.median()).ok().filter(|rate| rate.value() > 0.0)?;
    Some(Figure::measured(rate, source, samples.count(), samples.spread(), Some(when.to_owned())))
}

fn nanoseconds(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Reads pieces of the size of a layer, one after another, from a file of their own in a folder. The file is written through
/// to the disk and the kernel is asked to forget it, so that what is measured is the disk, where the kernel complies.
///
/// # Errors
/// What the operating system says of the file.
pub fn from_folder(folder: &Path, layer_bytes: u64, when: &str) -> io::Result<Option<Figure<BytesPerSecond>>> {
    let piece = usize::try_from(layer_bytes).unwrap_or(usize::MAX).clamp(PIECE_MIN, 1 << 30);
    let mut file = tempfile::tempfile_in(folder)?;
    let mut buffer = memory::zeroed(piece)?;
    buffer.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i % 251) as u8);
    for _ in 0..PIECES {
        file.write_all(&buffer)?;
    }
    file.sync_all()?;
    #[cfg(target_os = "linux")]
    let forgotten = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).is_ok();
    #[cfg(not(target_os = "linux"))]
    let forgotten = false;
    file.seek(SeekFrom::Start(0))?;
    let mut samples = Samples::default();
    for _ in 0..PIECES {
        let begin = Instant::now();
        file.read_exact(&mut buffer)?;
        samples.add(nanoseconds(begin));
    }
    let cached = if forgotten { "" } else { ", which the kernel may still have had in memory" };
    let source = format!("reading {PIECES} pieces of {piece} bytes from a file{cached}");
    Ok(rate(&samples, piece, source, when))
}

/// Puts matrices of the size of a layer, kept in the host's memory as layers are that a card does not hold, one after
/// another in the place of one on the card.
///
/// # Errors
/// What the card says.
pub fn to_card(card: &Card, layer_bytes: u64, when: &str) -> Result<Option<Figure<BytesPerSecond>>, DeviceError> {
    let mut device = card.open()?;
    let most = device.limits().buffer_bytes_max.min(1 << 30);
    let piece = usize::try_from(layer_bytes.min(most)).unwrap_or(PIECE_MIN).max(PIECE_MIN);
    let (rows, columns) = (u32::try_from(piece / (4 * COLUMNS)).unwrap_or(u32::MAX), COLUMNS as u32);
    let bytes: Vec<u8> =
        (0..u64::from(rows) * u64::from(columns)).flat_map(|i| ((i % 251) as f32).to_le_bytes()).collect();
    let matrix = device.load(BlockFormat::F32, rows, columns, &bytes)?;
    let kept = device.laid_out(matrix, &bytes)?;
    let (index, out) = (device.allocate(4)?, device.allocate(4 * u64::from(columns))?);
    device.copy_in(index, 0, &0_u32.to_le_bytes())?;
    // A row is looked up when the matrix is there, and what is waited for is that.
    let look = Op::Lookup { table: matrix, indices: View::from(index), rows: 1, out: View::from(out) };
    let mut samples = Samples::default();
    // The first one also readies the way.
    for round in 0..=PIECES {
        device.synchronise()?;
        let begin = Instant::now();
        device.refill(matrix, &kept)?;
        device.launch(std::slice::from_ref(&look))?;
        device.synchronise()?;
        if round > 0 {
            samples.add(nanoseconds(begin));
        }
    }
    device.free(index)?;
    device.free(out)?;
    device.unload(matrix)?;
    let source = format!("bringing {PIECES} matrices of {} bytes to it from memory", bytes.len());
    Ok(rate(&samples, bytes.len(), source, when))
}
