//! Choosing a token from logits.

use crate::cpu::element::largest;

/// How tokens are chosen. The same seed, logits and place in the answer give the same token, whatever else runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits before the softmax; zero or less chooses the largest logit always.
    pub temperature: f32,
    /// Keeps this many of the largest logits; zero keeps all.
    pub top_k: u32,
    /// Keeps the fewest of the most likely tokens whose probabilities reach this sum; one or more keeps all.
    pub top_p: f32,
    /// Chooses among equals of chance.
    pub seed: u64,
}

impl Sampling {
    /// The largest logit, the first of equals.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };

    /// The token for place `ordinal` of an answer (from 1).
    ///
    /// # Panics
    /// When there are no logits.
    #[must_use]
    pub fn choose(&self, logits: &[f32], ordinal: u32) -> u32 {
        let token = |index: usize| u32::try_from(index).expect("vocabularies fit in 32 bits");
        if self.temperature <= 0.0 {
            return token(largest(logits));
        }
        let candidates = self.candidates(logits);
        let total: f64 = candidates.iter().map(|c| c.1).sum();
        let mut left = unit(self.seed, ordinal) * total;
        for &(index, weight) in &candidates {
            left -= weight;
            if left < 0.0 {
                return token(index);
            }
        }
        token(candidates.last().map_or_else(|| largest(logits), |c| c.0))
    }

    /// The tokens that remain, most likely first, with weights in proportion to their probabilities.
    fn candidates(&self, logits: &[f32]) -> Vec<(usize, f64)> {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        // Larger logits first, then smaller indices; a NaN stands last.
        let rank = |&i: &usize| if logits[i].is_nan() { f32::NEG_INFINITY } else { logits[i] };
        let first = |a: &usize, b: &usize| rank(b).total_cmp(&rank(a)).then(a.cmp(b));
        let keep = self.top_k as usize;
        if keep > 0 && keep < order.len() {
            order.select_nth_unstable_by(keep - 1, first);
            order.truncate(keep);
        }
        order.sort_unstable_by(first);
        let top = f64::from(rank(&order[0]));
        let temperature = f64::from(self.temperature);
        let weight = |i: &usize| ((f64::from(rank(i)) - top) / temperature).exp();
        let mut kept: Vec<(usize, f64)> = order.iter().map(|i| (*i, weight(i))).collect();
        if self.top_p < 1.0 {
            let enough = f64::from(self.top_p) * kept.iter().map(|c| c.1).sum::<f64>();
            let mut sum = 0.0;
            let reached = kept.iter().position(|c| {
                sum += c.1;
                sum >= enough
            });
            kept.truncate(reached.map_or(kept.len(), |at| at + 1));
        }
        kept
    }
}

/// A number from 0 up to 1 for a place of an answer: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) at `seed + ordinal`
/// steps.
fn unit(seed: u64, ordinal: u32) -> f64 {
    let mut z = seed.wrapping_add(u64::from(ordinal).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, -1.0];

    /// How often each token is chosen at 20000 places.
    fn frequencies(sampling: Sampling) -> Vec<f64> {
        let mut counts = vec![0.0; LOGITS.len()];
        for ordinal in 1..=20_000 {
            counts[sampling.choose(&LOGITS, ordinal) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(Sampling::GREEDY.choose(&LOGITS, 1), 1);
    }

    #[test]
    fn frequencies_follow_the_softmax_at_the_temperature() {
        let sampling = Sampling { temperature: 2.0, top_k: 0, top_p: 1.0, seed: 7 };
        let weights = LOGITS.map(|l| (f64::from(l) / 2.0).exp());
        let total: f64 = weights.iter().sum();
        for (got, weight) in frequencies(sampling).iter().zip(weights) {
            // Four standard deviations of a count of 20000.
            assert!((got - weight / total).abs() < 4.0 * 0.5 / 20_000_f64.sqrt());
        }
    }

    #[test]
    fn only_the_k_largest_and_only_the_likeliest_p_are_chosen() {
        let two = frequencies(Sampling { temperature: 1.0, top_k: 2, top_p: 1.0, seed: 1 });
        assert!(two[1] > 0.4 && two[3] > 0.4 && two[0] + two[2] + two[4] == 0.0);
        // Probabilities are 0.38, 0.38, 0.14 ...: the first reaches 0.3 alone, the first two reach 0.7.
        let one = frequencies(Sampling { temperature: 1.0, top_k: 0, top_p: 0.3, seed: 1 });
        assert!(one[1] > 0.999);
        let pair = frequencies(Sampling { temperature: 1.0, top_k: 0, top_p: 0.7, seed: 1 });
        assert!(pair[1] > 0.4 && pair[3] > 0.4 && pair[2] == 0.0);
    }

    #[test]
    fn a_seed_repeats_itself_and_another_differs() {
        let draw = |seed| {
            let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed };
            (1..100).map(|ordinal| sampling.choose(&LOGITS, ordinal)).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
