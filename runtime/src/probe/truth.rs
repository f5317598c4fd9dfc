//! Whether a plan's memory is really there: exactly what each stage needs is taken on its device, all at the same time,
//! written with a pattern, read back, and given up.
//!
//! What a driver calls free may be held by somebody else a moment later, or be there in pieces only; and a kernel promises
//! memory that it gives only when it is touched. So every byte is touched.

use crate::backend::{Buffer, Device, DeviceError};
use crate::engine::CpuDevice;
use isotherm_core::units::Bytes;
use serde::Serialize;

/// Largest piece of a device's memory that is asked for at once: drivers refuse larger buffers than they can bind.
const PIECE_MAX: u64 = 64 << 20;

/// A stage whose memory was there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// The device.
    pub device: String,
    /// What was taken, written and read back.
    pub bytes: Bytes,
    /// In how many pieces.
    pub pieces: usize,
}

/// A stage whose memory was not there.
#[derive(Debug, thiserror::Error)]
pub enum TruthError {
    /// The host has less than the plan takes of it.
    #[error("the plan takes {needed} of this host's memory, of which {available} is free; plan for less or free some")]
    Short {
        /// All stages of the host's memory together.
        needed: Bytes,
        /// What is free.
        available: Bytes,
    },
    /// The system gave less than it was asked for.
    #[error("device {device:?} gave no memory for its stage of {bytes}")]
    Refused {
        /// The device.
        device: String,
        /// What its stage needs.
        bytes: Bytes,
    },
    /// A card did not give it.
    #[error("device {device:?} gave {given} of {bytes} for its stage")]
    Card {
        /// The device.
        device: String,
        /// What its stage needs.
        bytes: Bytes,
        /// What it gave before that.
        given: Bytes,
        /// What it said.
        #[source]
        source: DeviceError,
    },
    /// What was read is not what was written.
    #[error("device {device:?} gave back something else than was written, {at} bytes into its stage; do not use it")]
    Changed {
        /// The device.
        device: String,
        /// Where.
        at: u64,
    },
}

/// What one stage holds meanwhile.
enum Holding {
    Processor(Vec<u64>),
    Card(Device, Vec<Buffer>),
}

/// Takes exactly so many bytes on each device, all at once, and checks that they hold a pattern.
///
/// `available` is what the host has free, where that is known: a kernel that promises more kills somebody when it is
/// touched, so it is asked before.
///
/// # Errors
/// The first stage whose memory is not there or does not hold.
pub fn memory_truth(stages: &[(CpuDevice, Bytes)], available: Option<Bytes>) -> Result<Vec<Held>, TruthError> {
    let needed: Bytes = stages.iter().filter(|(device, _)| device.card.is_none()).map(|(_, bytes)| *bytes).sum();
    if let Some(available) = available.filter(|&available| available < needed) {
        return Err(TruthError::Short { needed, available });
    }
    let mut holdings = Vec::new();
    for (seed, (device, bytes)) in stages.iter().enumerate() {
        holdings.push(take(device, *bytes, seed as u64)?);
    }
    let mut held = Vec::new();
    for (seed, ((device, bytes), holding)) in stages.iter().zip(&mut holdings).enumerate() {
        let pieces = check(device, *bytes, seed as u64, holding)?;
        held.push(Held { device: device.name.clone(), bytes: *bytes, pieces });
    }
    for holding in holdings {
        if let Holding::Card(device, _) = holding {
            // Closing gives everything back; that buffers were alive is no leak here.
            let _ = device.close();
        }
    }
    Ok(held)
}

fn take(device: &CpuDevice, bytes: Bytes, seed: u64) -> Result<Holding, TruthError> {
    let name = || device.name.clone();
    let Some(card) = &device.card else {
        let words = usize::try_from(bytes.0.div_ceil(8)).unwrap_or(usize::MAX);
        let mut memory: Vec<u64> = Vec::new();
        memory.try_reserve_exact(words).map_err(|_| TruthError::Refused { device: name(), bytes })?;
        memory.extend((0..words as u64).map(|word| pattern(seed, word)));
        return Ok(Holding::Processor(memory));
    };
    let mut given = 0;
    let failed = |given, source| TruthError::Card { device: name(), bytes, given: Bytes(given), source };
    let mut opened = card.open().map_err(|source| failed(0, source))?;
    let most = opened.limits().buffer_bytes_max.clamp(8, PIECE_MAX) & !7;
    let mut buffers = Vec::new();
    while given < bytes.0 {
        let piece = (bytes.0 - given).min(most);
        let buffer = opened.allocate(piece).map_err(|source| failed(given, source))?;
        let filled = written(seed, given, piece);
        opened.copy_in(buffer, 0, &filled).map_err(|source| failed(given, source))?;
        buffers.push(buffer);
        given += piece;
    }
    opened.synchronise().map_err(|source| failed(given, source))?;
    Ok(Holding::Card(opened, buffers))
}

/// The number of pieces, where all of them hold what was written.
fn check(device: &CpuDevice, bytes: Bytes, seed: u64, holding: &mut Holding) -> Result<usize, TruthError> {
    let changed = |at| TruthError::Changed { device: device.name.clone(), at };
    match holding {
        Holding::Processor(memory) => {
            let wrong = memory.iter().zip(0_u64..).find(|(found, word)| **found != pattern(seed, *word));
            wrong.map_or(Ok(1), |(_, word)| Err(changed(word * 8)))
        }
        Holding::Card(opened, buffers) => {
            let mut at = 0;
            for buffer in buffers.iter() {
                let failed = |source| TruthError::Card { device: device.name.clone(), bytes, given: Bytes(at), source };
                let mut found = vec![0; usize::try_from(buffer.bytes()).unwrap_or(0)];
                opened.copy_out(*buffer, 0, &mut found).map_err(failed)?;
                let wanted = written(seed, at, buffer.bytes());
                if let Some(wrong) = found.iter().zip(&wanted).position(|(found, wanted)| found != wanted) {
                    return Err(changed(at + wrong as u64));
                }
                at += buffer.bytes();
            }
            Ok(buffers.len())
        }
    }
}

/// The bytes of a piece that begins at a multiple of eight.
fn written(seed: u64, from: u64, bytes: u64) -> Vec<u8> {
    let words = from / 8..(from + bytes).div_ceil(8);
    let mut filled: Vec<u8> = words.flat_map(|word| pattern(seed, word).to_le_bytes()).collect();
    filled.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
    filled
}

/// A word that tells its own place, so that memory which is there twice under two addresses is noticed.
fn pattern(seed: u64, word: u64) -> u64 {
    let mut z = word.wrapping_add(seed << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    z ^ (z >> 32)
}
