//! The one source of chance: xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom number generators",
//! ACM TOMS 2021), seeded through SplitMix64 as its authors advise, split into streams by name.
//!
//! The algorithm is pinned by test vectors, so a seed means the same run for ever. Streams are independent: a new draw
//! in one does not shift the draws of another.

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): turns any seed into well mixed words.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// FNV-1a, 64 bits: a name as a number.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Stream([u64; 4]);

impl Stream {
    /// The stream of this name in one replication of a seed.
    #[must_use]
    pub fn new(seed: u64, replication: u32, name: &str) -> Self {
        let mut mixed = SplitMix(seed).next();
        for word in [u64::from(replication), name_hash(name)] {
            mixed = SplitMix(mixed ^ word).next();
        }
        let mut words = SplitMix(mixed);
        Self([words.next(), words.next(), words.next(), words.next()])
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A multiple of 2^-53 in `0..1`, uniform.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A whole number in `min..=max`, uniform without bias (Lemire, ACM TOMACS 2019); `min` where `max` is not above.
    pub fn between(&mut self, min: u32, max: u32) -> u32 {
        let range = u64::from(max.saturating_sub(min)) + 1;
        // Words below this would make some values one word likelier than others.
        let skewed = range.wrapping_neg() % range;
        loop {
            let product = u128::from(self.bits()) * u128::from(range);
            if product as u64 >= skewed {
                return min + (product >> 64) as u32;
            }
        }
    }

    /// A span between events that come independently at a mean rate of one.
    pub fn exponential(&mut self) -> f64 {
        -libm::log1p(-self.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generators_are_the_published_ones() {
        let mut mix = SplitMix(1_234_567);
        let words = [mix.next(), mix.next(), mix.next(), mix.next(), mix.next()];
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(words, published);
        let mut stream = Stream([1, 2, 3, 4]);
        let words: Vec<u64> = (0..6).map(|_| stream.bits()).collect();
        let published = [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
            9_228_616_714_210_784_205,
            9_973_669_472_204_895_162,
        ];
        assert_eq!(words, published);
    }

    #[test]
    fn streams_differ_by_seed_replication_and_name() {
        let first = |seed, replication, name| Stream::new(seed, replication, name).bits();
        let mut all = vec![first(0, 0, "a"), first(1, 0, "a"), first(0, 1, "a"), first(0, 0, "b"), first(1, 1, "b")];
        assert_eq!(first(0, 0, "a"), all[0]);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn every_value_between_the_bounds_is_as_likely() {
        let mut stream = Stream::new(7, 0, "die");
        let mut counts = [0_i32; 6];
        for _ in 0..60_000 {
            counts[(stream.between(1, 6) - 1) as usize] += 1;
        }
        // Five standard deviations of a count are 456.
        assert!(counts.iter().all(|c| (c - 10_000).abs() < 456), "{counts:?}");
        assert_eq!(stream.between(9, 9), 9);
        assert_eq!(stream.between(9, 3), 9);
        stream.between(0, u32::MAX);
    }

    #[test]
    fn exponential_spans_have_mean_and_variance_one() {
        let mut stream = Stream::new(7, 0, "spans");
        let spans: Vec<f64> = (0..100_000).map(|_| stream.exponential()).collect();
        let mean = spans.iter().sum::<f64>() / 1e5;
        let variance = spans.iter().map(|s| (s - mean) * (s - mean)).sum::<f64>() / 1e5;
        assert!((mean - 1.0).abs() < 0.015 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!(spans.iter().all(|s| s.is_finite() && *s >= 0.0));
    }
}
