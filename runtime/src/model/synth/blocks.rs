//! Random weights, drawn in their packed form.

use half::{bf16, f16};

use crate::model::format::BlockFormat;

/// A stream of random blocks for one tensor.
pub(super) struct Blocks {
    random: SplitMix64,
}

impl Blocks {
    /// The stream of tensor `name`; another tensor's draws do not shift it.
    pub(super) fn new(seed: u64, name: &str) -> Self {
        // FNV-1a, 64 bits: the published offset basis and prime.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        let mut mixer = SplitMix64(seed);
        Self { random: SplitMix64(mixer.next() ^ hash) }
    }

    /// Norm weights from 0.9 to 1.1, in F32.
    pub(super) fn fill_norm(&mut self, row: &mut [u8]) {
        for value in row.chunks_exact_mut(4) {
            value.copy_from_slice(&(1.0 + 0.2 * self.centred() as f32).to_le_bytes());
        }
    }

    /// Whole blocks of weights, close to uniform about 0, whose standard deviation is `deviation`.
    pub(super) fn fill(&mut self, format: BlockFormat, deviation: f64, row: &mut [u8]) {
        match format {
            // Bytes first, then the few that are not random are put over them.
            BlockFormat::F32 | BlockFormat::F16 | BlockFormat::BF16 => {}
            _ => self.random.fill(row),
        }
        let width = 12.0_f64.sqrt() * deviation;
        for block in row.chunks_exact_mut(format.bytes_per_block()) {
            match format {
                BlockFormat::F32 => block.copy_from_slice(&((width * self.centred()) as f32).to_le_bytes()),
                BlockFormat::F16 => block.copy_from_slice(&f16::from_f64(width * self.centred()).to_le_bytes()),
                BlockFormat::BF16 => block.copy_from_slice(&bf16::from_f64(width * self.centred()).to_le_bytes()),
                BlockFormat::Q8_0 => {
                    put_half(block, 0, width / 255.0);
                    // No quantiser writes -128, and kernels may rely on that.
                    block[2..].iter_mut().filter(|byte| **byte == 0x80).for_each(|byte| *byte = 0x81);
                }
                BlockFormat::Q4_0 => put_half(block, 0, width / 16.0),
                BlockFormat::Q5_0 => put_half(block, 0, width / 32.0),
                BlockFormat::Q4_1 => {
                    put_half(block, 0, width / 16.0);
                    put_half(block, 2, -7.5 * width / 16.0);
                }
                BlockFormat::Q5_1 => {
                    put_half(block, 0, width / 32.0);
                    put_half(block, 2, -15.5 * width / 32.0);
                }
                BlockFormat::Q4K => self.scale_sub_blocks(block, width / 16.0, 7.5),
                BlockFormat::Q5K => self.scale_sub_blocks(block, width / 32.0, 15.5),
                BlockFormat::Q6K => {
                    put_half(block, 208, width / 64.0 / 32.0);
                    for scale in &mut block[192..208] {
                        *scale = 24 + *scale % 17;
                    }
                }
            }
        }
    }

    /// Scales from 24 to 40 about the mean 32, each with the minimum that centres its sub-block on 0.
    fn scale_sub_blocks(&mut self, block: &mut [u8], step: f64, middle: f64) {
        put_half(block, 0, step / 32.0);
        put_half(block, 2, middle * step / 32.0);
        let scales: [u8; 8] = self.random.next().to_le_bytes().map(|byte| 24 + byte % 17);
        block[4..16].copy_from_slice(&pack_six_bits(&scales, &scales));
    }

    /// From -0.5 up to 0.5.
    fn centred(&mut self) -> f64 {
        (self.random.next() >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    }
}

fn put_half(block: &mut [u8], at: usize, value: f64) {
    block[at..at + 2].copy_from_slice(&f16::from_f64(value).to_le_bytes());
}

/// The twelve bytes of a Q4_K or Q5_K block that hold eight scales and eight minima, six bits each.
fn pack_six_bits(scales: &[u8; 8], minima: &[u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..4 {
        packed[j] = scales[j] | (scales[j + 4] >> 4) << 6;
        packed[j + 4] = minima[j] | (minima[j + 4] >> 4) << 6;
        packed[j + 8] = (scales[j + 4] & 15) | (minima[j + 4] & 15) << 4;
    }
    packed
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::format::six_bit_scale_and_minimum;

    #[test]
    fn the_generator_draws_the_published_sequence() {
        // Seed 1234567 of the reference C implementation by Sebastiano Vigna, as test vectors commonly quote it.
        let mut random = SplitMix64(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn six_bit_numbers_survive_packing() {
        for shift in 0..64 {
            let scales: [u8; 8] = std::array::from_fn(|j| ((shift + 7 * j) % 64) as u8);
            let minima: [u8; 8] = std::array::from_fn(|j| ((5 * shift + 11 * j) % 64) as u8);
            let packed = pack_six_bits(&scales, &minima);
            for j in 0..8 {
                assert_eq!(six_bit_scale_and_minimum(&packed, j), (scales[j], minima[j]));
            }
        }
    }

    #[test]
    fn weights_of_every_format_have_the_deviation_asked_for_and_mean_near_zero() {
        for format in BlockFormat::ALL {
            let count = 1 << 15;
            let mut row = vec![0; format.row_bytes(count as u64).expect("whole blocks") as usize];
            Blocks::new(7, format.name()).fill(format, 0.02, &mut row);
            let mut values = vec![0.0; count];
            format.dequantise_row(&row, &mut values);
            let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count as f64;
            let square = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / count as f64;
            assert!(mean.abs() < 0.003, "{format}: mean {mean}");
            assert!((square.sqrt() / 0.02 - 1.0).abs() < 0.05, "{format}: deviation {}", square.sqrt());
        }
    }
}
