//! Ways between two cards, believed only after bytes have gone each way and come out the same.
//!
//! A driver that says two cards can reach one another may be wrong: an input-output unit in between turns addresses, and
//! the copy arrives changed or not at all. So each way is proven by copies of random bytes at odd offsets, read back
//! through the host; a way that carries one of them changed is no way.

use super::contract::PeerRoute;
use super::device::Device;
use super::error::DeviceError;
use serde::Serialize;
use std::time::Instant;

/// Bytes of the copies that are checked, small ones at odd places among them.
const SIZES: [u64; 4] = [1, 1003, 65_537, 4 << 20];
/// Free bytes around a copy, which must stay as they are.
const ROOM: u64 = 8;
/// Copies that are timed.
const TIMED: u32 = 4;

/// What was proven of the way from one card to another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Proof {
    /// Whether bytes go straight; else through memory of the host.
    pub direct: bool,
    /// Copies that came out the same, byte for byte.
    pub copies: u32,
    /// Bytes per second of the largest of them.
    pub bytes_per_second: f64,
}

/// Why a way is not to be used.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// A device did not take or give bytes.
    #[error("a copy of {bytes} bytes from {from} to {to} failed")]
    Device {
        /// Where it began.
        from: String,
        /// Where it was to end.
        to: String,
        /// Its size.
        bytes: u64,
        /// What the driver said.
        #[source]
        source: Box<DeviceError>,
    },
    /// Bytes arrived changed.
    #[error(
        "{bytes} bytes copied {how} from {from} to {to} arrived changed, first at byte {at}; \
         let no plan send activations this way"
    )]
    Changed {
        /// Where it began.
        from: String,
        /// Where it ended.
        to: String,
        /// Its size.
        bytes: u64,
        /// The first byte that differs; beyond the size for one after it.
        at: u64,
        /// `straight` or `through the host`.
        how: &'static str,
    },
}

/// Proves the ways between two cards: from the first to the second, and back.
///
/// # Errors
/// A device fails, or bytes arrive changed either way.
pub fn prove(one: &mut Device, other: &mut Device, seed: u64) -> Result<(Proof, Proof), PeerError> {
    Ok((way(one, other, seed)?, way(other, one, seed ^ 1)?))
}

fn way(from: &mut Device, to: &mut Device, seed: u64) -> Result<Proof, PeerError> {
    let names = (from.label(), to.label());
    let mut chance = seed;
    let (mut copies, mut direct, mut seconds) = (0, true, f64::INFINITY);
    for bytes in SIZES {
        let failed = |source| {
            let (from, to, source) = (names.0.clone(), names.1.clone(), Box::new(source));
            PeerError::Device { from, to, bytes, source }
        };
        let (a, b) = (from.allocate(bytes + ROOM).map_err(failed)?, to.allocate(bytes + ROOM).map_err(failed)?);
        let rounds = if bytes == SIZES[SIZES.len() - 1] { TIMED } else { 1 };
        for _ in 0..rounds {
            let (i, j) = (next(&mut chance) % ROOM, next(&mut chance) % ROOM);
            let (sent, mut wanted) = (random(bytes + ROOM, &mut chance), random(bytes + ROOM, &mut chance));
            from.copy_in(a, 0, &sent).map_err(failed)?;
            to.copy_in(b, 0, &wanted).map_err(failed)?;
            from.synchronise().map_err(failed)?;
            to.synchronise().map_err(failed)?;
            let begun = Instant::now();
            let route = from.copy_to_peer((a, i), to, (b, j), bytes).map_err(failed)?;
            from.synchronise().map_err(failed)?;
            to.synchronise().map_err(failed)?;
            seconds =
                if bytes == SIZES[SIZES.len() - 1] { begun.elapsed().as_secs_f64().min(seconds) } else { seconds };
            direct &= route == PeerRoute::Direct;
            wanted[j as usize..(j + bytes) as usize].copy_from_slice(&sent[i as usize..(i + bytes) as usize]);
            let mut got = vec![0; wanted.len()];
            to.copy_out(b, 0, &mut got).map_err(failed)?;
            if let Some(at) = got.iter().zip(&wanted).position(|(got, wanted)| got != wanted) {
                let how = if route == PeerRoute::Direct { "straight" } else { "through the host" };
                let at = (at as u64).saturating_sub(j);
                return Err(PeerError::Changed { from: names.0, to: names.1, bytes, at, how });
            }
            copies += 1;
        }
        from.free(a).map_err(failed)?;
        to.free(b).map_err(failed)?;
    }
    Ok(Proof { direct, copies, bytes_per_second: SIZES[SIZES.len() - 1] as f64 / seconds.max(1e-9) })
}

fn random(bytes: u64, chance: &mut u64) -> Vec<u8> {
    let words = bytes.div_ceil(8);
    let mut drawn: Vec<u8> = (0..words).flat_map(|_| next(chance).to_le_bytes()).collect();
    drawn.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
    drawn
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
