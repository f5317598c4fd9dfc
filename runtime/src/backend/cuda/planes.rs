//! Weights as they lie on a device: the parts of all blocks, each in a plane of its own.
//!
//! Blocks of 34, 18, 20, 22, 24 and 210 bytes begin where no wide load can; parts of blocks, put together, do. The
//! planes follow one another in the order given here and take exactly the bytes of the blocks. `kernels/format.cu`
//! reads them.

use crate::model::format::BlockFormat;

/// The planes of a format: where a part begins in its block, and its bytes.
const fn planes(format: BlockFormat) -> &'static [(usize, usize)] {
    match format {
        BlockFormat::Q8_0 => &[(2, 32), (0, 2)],
        BlockFormat::Q4_0 => &[(2, 16), (0, 2)],
        BlockFormat::Q4_1 => &[(4, 16), (0, 4)],
        BlockFormat::Q5_0 => &[(6, 16), (2, 4), (0, 2)],
        BlockFormat::Q5_1 => &[(8, 16), (4, 4), (0, 4)],
        BlockFormat::Q6K => &[(0, 128), (128, 64), (192, 16), (208, 2)],
        // Stored as in the file.
        BlockFormat::F32 | BlockFormat::F16 | BlockFormat::BF16 | BlockFormat::Q4K | BlockFormat::Q5K => &[],
    }
}

/// Largest piece that is put together at once.
const PIECE: usize = 1 << 20;

/// Hands the planes of packed blocks to `put`, piece by piece, with the byte of the matrix where a piece belongs.
///
/// # Errors
/// The first error of `put`.
pub fn lay_out<E>(
    format: BlockFormat,
    packed: &[u8],
    mut put: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let block_bytes = format.bytes_per_block();
    let parts = planes(format);
    if parts.is_empty() {
        for (i, piece) in packed.chunks(PIECE).enumerate() {
            put((i * PIECE) as u64, piece)?;
        }
        return Ok(());
    }
    let blocks = packed.len() / block_bytes;
    let mut plane = 0;
    for &(from, bytes) in parts {
        let together = PIECE / bytes;
        let mut piece = Vec::with_capacity(together * bytes);
        for (i, some) in packed.chunks(together * block_bytes).enumerate() {
            piece.clear();
            for block in some.chunks_exact(block_bytes) {
                piece.extend_from_slice(&block[from..from + bytes]);
            }
            put((plane + i * together * bytes) as u64, &piece)?;
        }
        plane += blocks * bytes;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_hold_every_byte_of_the_blocks_once() {
        for format in BlockFormat::ALL {
            // More than one piece, and a last one that is not full.
            let blocks = (2 * PIECE + 12345) / format.bytes_per_block();
            let packed: Vec<u8> = (0..blocks * format.bytes_per_block()).map(|i| (i % 251) as u8).collect();
            let mut laid = vec![0_u8; packed.len()];
            let mut written = vec![0_u8; packed.len()];
            let put = |at: u64, piece: &[u8]| {
                let at = at as usize;
                laid[at..at + piece.len()].copy_from_slice(piece);
                written[at..at + piece.len()].iter_mut().for_each(|count| *count += 1);
                Ok::<(), ()>(())
            };
            lay_out(format, &packed, put).unwrap();
            assert!(written.iter().all(|&count| count == 1), "{format}: a byte is written twice or never");
            let mut before = 0;
            for &(from, bytes) in planes(format) {
                for block in [0, 1, blocks / 2, blocks - 1] {
                    let want = &packed[block * format.bytes_per_block() + from..][..bytes];
                    assert_eq!(&laid[before + block * bytes..][..bytes], want, "{format}, block {block}");
                }
                before += blocks * bytes;
            }
            assert!(before == packed.len() || (before == 0 && laid == packed), "{format}");
        }
    }
}
