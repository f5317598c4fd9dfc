//! Block formats: blocks packed by hand from known numbers, and another reader's decoding of random ones.

use half::f16;
use isotherm_runtime::model::format::BlockFormat;
use isotherm_runtime::model::gguf::Gguf;
use isotherm_runtime::model::synth::{self, SynthSpec, SynthTokenizer};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// Packs 32 nibbles: element i in the low half of byte i, element i + 16 in its high half.
fn nibbles(quants: &[u8]) -> Vec<u8> {
    (0..16).map(|i| (quants[i] & 15) + 16 * (quants[i + 16] & 15)).collect()
}

/// The fifth bits of 32 values as one little-endian word, element i at bit i.
fn fifth_bits(quants: &[u8]) -> [u8; 4] {
    let word = quants.iter().enumerate().fold(0_u32, |word, (i, q)| word + (u32::from(q / 16) << i));
    word.to_le_bytes()
}

/// Packs eight six-bit scales and minima the way the description reads, bit by bit.
fn packed_scales(scales: &[u8], minima: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0_u8; 12];
    for j in 0..4 {
        bytes[j] += scales[j];
        bytes[j + 4] += minima[j];
    }
    for j in 4..8 {
        bytes[j + 4] += scales[j] % 16 + 16 * (minima[j] % 16);
        bytes[j - 4] += 64 * (scales[j] / 16);
        bytes[j] += 64 * (minima[j] / 16);
    }
    bytes
}

/// Random small numbers to build one block of any format from.
#[derive(Clone, Debug)]
struct Ingredients {
    d: f16,
    m: f16,
    /// 256 numbers below 64.
    quants: Vec<u8>,
    /// Sixteen numbers below 64.
    scales: Vec<u8>,
    minima: Vec<u8>,
}

fn ingredients() -> impl Strategy<Value = Ingredients> {
    let scale = || (-4000_i16..4000).prop_map(|n| f16::from_f32(f32::from(n) / 512.0));
    let six_bits = |count| prop::collection::vec(0_u8..64, count);
    (scale(), scale(), six_bits(256), six_bits(16), six_bits(8))
        .prop_map(|(d, m, quants, scales, minima)| Ingredients { d, m, quants, scales, minima })
}

/// One block of `format` and the values that the description gives it.
fn block(format: BlockFormat, from: &Ingredients) -> (Vec<u8>, Vec<f32>) {
    let (d, m) = (from.d.to_f32(), from.m.to_f32());
    let (d_bytes, m_bytes) = (from.d.to_le_bytes(), from.m.to_le_bytes());
    let below = |limit: u8, count: usize| from.quants[..count].iter().map(|q| q % limit).collect::<Vec<u8>>();
    let values = |quants: &[u8], value: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
        quants.iter().enumerate().map(|(i, &q)| value(i, f32::from(q))).collect()
    };
    let sub = |i: usize| (f32::from(from.scales[i / 32]), f32::from(from.minima[i / 32]));
    match format {
        BlockFormat::F32 => (d.to_le_bytes().to_vec(), vec![d]),
        BlockFormat::F16 => (d_bytes.to_vec(), vec![d]),
        // Halves of this range have at most eleven significant bits, so cut to the eight that BF16 keeps.
        BlockFormat::BF16 => {
            let cut = f32::from_bits(d.to_bits() & 0xffff_0000);
            (d.to_le_bytes()[2..].to_vec(), vec![cut])
        }
        BlockFormat::Q8_0 => {
            let signed: Vec<i8> = from.quants[..32].iter().map(|&q| (4 * i16::from(q) - 128) as i8).collect();
            let bytes = d_bytes.into_iter().chain(signed.iter().map(|&q| q as u8)).collect();
            (bytes, signed.iter().map(|&q| d * f32::from(q)).collect())
        }
        BlockFormat::Q4_0 => {
            let quants = below(16, 32);
            ([&d_bytes[..], &nibbles(&quants)].concat(), values(&quants, &|_, q| d * (q - 8.0)))
        }
        BlockFormat::Q4_1 => {
            let quants = below(16, 32);
            ([&d_bytes[..], &m_bytes, &nibbles(&quants)].concat(), values(&quants, &|_, q| d * q + m))
        }
        BlockFormat::Q5_0 => {
            let quants = below(32, 32);
            let bytes = [&d_bytes[..], &fifth_bits(&quants), &nibbles(&quants)].concat();
            (bytes, values(&quants, &|_, q| d * (q - 16.0)))
        }
        BlockFormat::Q5_1 => {
            let quants = below(32, 32);
            let bytes = [&d_bytes[..], &m_bytes, &fifth_bits(&quants), &nibbles(&quants)].concat();
            (bytes, values(&quants, &|_, q| d * q + m))
        }
        BlockFormat::Q4K => {
            let quants = below(16, 256);
            let mut bytes = [&d_bytes[..], &m_bytes, &packed_scales(&from.scales[..8], &from.minima)].concat();
            for pair in quants.chunks(64) {
                bytes.extend((0..32).map(|i| pair[i] + 16 * pair[i + 32]));
            }
            (bytes, values(&quants, &|i, q| d * sub(i).0 * q - m * sub(i).1))
        }
        BlockFormat::Q5K => {
            let quants = below(32, 256);
            let mut bytes = [&d_bytes[..], &m_bytes, &packed_scales(&from.scales[..8], &from.minima)].concat();
            bytes.extend((0..32).map(|i| (0..8).map(|sub| (quants[32 * sub + i] / 16) << sub).sum::<u8>()));
            for pair in quants.chunks(64) {
                bytes.extend((0..32).map(|i| pair[i] % 16 + 16 * (pair[i + 32] % 16)));
            }
            (bytes, values(&quants, &|i, q| d * sub(i).0 * q - m * sub(i).1))
        }
        BlockFormat::Q6K => {
            let quants = &from.quants;
            let mut bytes = Vec::new();
            for half in quants.chunks(128) {
                bytes.extend((0..64).map(|i| half[i] % 16 + 16 * (half[i + 64] % 16)));
            }
            for half in quants.chunks(128) {
                bytes.extend((0..32).map(|i| (0..4).map(|r| (half[32 * r + i] / 16) << (2 * r)).sum::<u8>()));
            }
            let scales: Vec<i8> = from.scales.iter().map(|&scale| (4 * i16::from(scale) - 128) as i8).collect();
            bytes.extend(scales.iter().map(|&scale| scale as u8));
            bytes.extend(d_bytes);
            (bytes, values(quants, &|i, q| d * f32::from(scales[i / 16]) * (q - 32.0)))
        }
    }
}

proptest! {
    #[test]
    fn a_block_packed_by_hand_decodes_to_the_numbers_it_was_made_of(
        first in ingredients(),
        second in ingredients(),
        format in prop::sample::select(&BlockFormat::ALL[..]),
    ) {
        let (mut bytes, mut wanted) = block(format, &first);
        prop_assert_eq!(bytes.len(), format.bytes_per_block());
        prop_assert_eq!(wanted.len(), format.values_per_block());
        let (more_bytes, more) = block(format, &second);
        bytes.extend(more_bytes);
        wanted.extend(more);
        let mut values = vec![f32::NAN; wanted.len()];
        format.dequantise_row(&bytes, &mut values);
        prop_assert_eq!(values, wanted);
    }
}

#[test]
fn sizes_names_and_ids_are_those_of_the_format() {
    for format in BlockFormat::ALL {
        assert_eq!(BlockFormat::from_id(format.id()), Some(format));
        assert_eq!(format.name().parse(), Ok(format));
        assert_eq!(format.name().to_lowercase().parse(), Ok(format));
        let (values, bytes) = (format.values_per_block() as u64, format.bytes_per_block() as u64);
        assert_eq!(format.row_bytes(3 * values), Some(3 * bytes));
        assert_eq!(format.row_bytes(3 * values + 1).is_some(), values == 1);
    }
    assert_eq!(BlockFormat::Q6K.bits_per_weight(), 6.5625);
    assert!("Q9_9".parse::<BlockFormat>().is_err());
}

/// SHA-256 of what the Python package gguf 0.19.0 makes of `blk.1.ffn_down.weight` in the synthetic model `tiny-256`
/// with seed 1: all values as little-endian single precision, rows one after another.
const DECODED_ELSEWHERE: [(BlockFormat, &str); 11] = [
    (BlockFormat::F32, "842ac08b9df39c3e224b39752414dd1e997b84838ea30c3af119d13342260fe6"),
    (BlockFormat::F16, "8943a27c1f8040e1c3e5a54cb4e22a8d2ca13514547e194180ad73bc4256b66b"),
    (BlockFormat::BF16, "b98d99981a85d01393b965907692dba104681a3c69dfd8aac016199de8564bb4"),
    (BlockFormat::Q8_0, "0b011d4c05142c62f8c21e9b66c33c28d15ae2ea1339d4590fd48eb7f0a9fd0f"),
    (BlockFormat::Q4_0, "4ffe4800d457708ecf98b32f9c6eaa9ec70b14760f147e910536e91826f151e7"),
    (BlockFormat::Q4_1, "dddee77b841538d8da565160dd96144b462fa23bd516d3688434ab9792f2ab6f"),
    (BlockFormat::Q5_0, "21d5c2442353467abc0b453070f83a5a21178b72dc22d177658509c5034ed479"),
    (BlockFormat::Q5_1, "55b40bfad720c406c1135d0eb43f2eecb4fd862c607a40dc83b55f70579c5bdc"),
    (BlockFormat::Q4K, "53eb62b9b712d1bc0bd9c11004a53bbc59d6825dd5c2e8b873b339bb1ab5927f"),
    (BlockFormat::Q5K, "ffa3c3792bee7bff8cd5e45e7de0be82572d61e2c4f239c2c75c4d1c40233f3f"),
    (BlockFormat::Q6K, "55f54d5dc23a870669bcb1d57e880d75a1be4369811fee924a9693f9df025092"),
];

#[test]
fn random_blocks_decode_as_another_reader_decodes_them() {
    let geometry = synth::named("tiny-256").expect("a known name");
    for (format, wanted) in DECODED_ELSEWHERE {
        let (geometry, tokenizer) = (&geometry, SynthTokenizer::Small);
        let spec = SynthSpec { geometry, format, embedding: BlockFormat::Q8_0, seed: 1, tokenizer };
        let gguf = Gguf::from_bytes(synth::bytes(&spec).expect("a sound specification")).expect("a sound file");
        let tensor = gguf.tensor("blk.1.ffn_down.weight").expect("every layer has one");
        let raw: Vec<u8> = tensor.dequantise().iter().flat_map(|value| value.to_le_bytes()).collect();
        let digest: String = Sha256::digest(raw).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, wanted, "{format}");
    }
}
