//! Formats of weights, by the bytes of a block and the weights in it.

/// A format whose size is known: name, bytes of a block, weights of a block. Block layouts are those of GGUF (ggml's
/// `ggml-common.h`): quants and scales of one block.
const SIZES: [(&str, u64, u64); 15] = [
    ("F32", 4, 1),
    ("F16", 2, 1),
    ("BF16", 2, 1),
    ("Q8_0", 34, 32),
    ("Q6_K", 210, 256),
    ("Q5_1", 24, 32),
    ("Q5_0", 22, 32),
    ("Q5_K", 176, 256),
    ("Q4_1", 20, 32),
    ("Q4_0", 18, 32),
    ("Q4_K", 144, 256),
    ("Q3_K", 110, 256),
    ("Q2_K", 84, 256),
    ("IQ2_XXS", 66, 256),
    ("IQ1_S", 50, 256),
];

/// Names of the formats whose size is known, the largest first.
#[must_use]
pub fn known() -> Vec<&'static str> {
    SIZES.iter().map(|size| size.0).collect()
}

/// Bytes of a block and weights in it; none for a format of unknown size.
#[must_use]
pub fn block(name: &str) -> Option<(u64, u64)> {
    SIZES.iter().find(|size| size.0 == name).map(|&(_, bytes, weights)| (bytes, weights))
}

/// Bits per weight; none for a format of unknown size.
#[must_use]
pub fn bits_per_weight(name: &str) -> Option<f64> {
    block(name).map(|(bytes, weights)| 8.0 * bytes as f64 / weights as f64)
}

/// Bytes of matrices in one format that take `bytes` in another, in proportion to the bits per weight, rounded up. None
/// where a size is unknown; the same bytes for the same format.
#[must_use]
pub fn rescaled(bytes: u64, from: &str, to: &str) -> Option<u64> {
    if from == to {
        return Some(bytes);
    }
    let ((old, per_old), (new, per_new)) = (block(from)?, block(to)?);
    let scaled =
        (u128::from(bytes) * u128::from(new) * u128::from(per_old)).div_ceil(u128::from(old) * u128::from(per_new));
    u64::try_from(scaled).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_has_the_bytes_of_its_blocks_in_every_format() {
        // 4096 x 4096 weights.
        let weights = 4096_u64 * 4096;
        let bytes = |name: &str| block(name).map(|(bytes, per)| weights / per * bytes).expect("known");
        for from in known() {
            for to in known() {
                assert_eq!(rescaled(bytes(from), from, to), Some(bytes(to)), "{from} to {to}");
            }
        }
        assert_eq!(rescaled(100, "none", "Q8_0"), None);
        assert_eq!(rescaled(100, "none", "none"), Some(100));
        assert_eq!(bits_per_weight("Q4_0"), Some(4.5));
    }
}
