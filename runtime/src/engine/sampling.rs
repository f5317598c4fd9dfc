//! Choosing a token from logits.

use crate::cpu::element::largest;

/// How tokens are chosen. The same seed, logits, text so far and place in the answer give the same token, whatever else
/// runs.
///
/// In this order: logits of tokens seen lately are pushed down by `repetition_penalty`; `top_k`, `top_p` and `min_p`
/// each remove unlikely tokens; one of the rest is drawn by its probability at `temperature`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits before the softmax; zero or less chooses the largest logit always.
    pub temperature: f32,
    /// Keeps this many of the largest logits; zero keeps all.
    pub top_k: u32,
    /// Keeps the fewest of the most likely tokens whose probabilities reach this sum; one or more keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this many times as likely as the likeliest; zero keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens among the last `repetition_window` (Keskar et al.,
    /// "CTRL", 2019, section 4.1); one changes nothing.
    pub repetition_penalty: f32,
    /// How many of the last tokens of prompt and answer count as repeated.
    pub repetition_window: u32,
    /// Chooses among equals of chance.
    pub seed: u64,
    /// Natural logarithms of the model's own probabilities are given for the token chosen and this many likeliest ones;
    /// none where absent.
    pub log_probabilities: Option<u32>,
}

/// How likely a chosen token was to the model, before any penalty, temperature or cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// Natural logarithm of its probability.
    pub log_probability: f32,
    /// The likeliest tokens with theirs, most likely first.
    pub likeliest: Vec<(u32, f32)>,
}

impl Sampling {
    /// The largest logit, the first of equals.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        repetition_window: 64,
        seed: 0,
        log_probabilities: None,
    };

    /// The same choices with other chances for request number `request`: requests of one seed do not draw alike.
    #[must_use]
    pub fn for_request(self, request: u32) -> Self {
        Self { seed: mixed(self.seed.wrapping_add(u64::from(request).wrapping_mul(0x9e37_79b9_7f4a_7c15))), ..self }
    }

    /// How many tokens before a place this looks at.
    pub(crate) fn looks_back(&self) -> usize {
        if self.repetition_penalty == 1.0 { 0 } else { self.repetition_window as usize }
    }

    /// Whether the largest of the model's own logits is all that this asks for.
    pub(crate) fn takes_largest(&self) -> bool {
        self.temperature <= 0.0 && self.looks_back() == 0 && self.log_probabilities.is_none()
    }

    /// The token for place `ordinal` of an answer (from 1), `recent` being the tokens before it. The logits of repeated
    /// tokens are changed.
    ///
    /// # Panics
    /// When there are no logits, or a recent token has none.
    #[must_use]
    pub fn choose(&self, logits: &mut [f32], ordinal: u32, recent: &[u32]) -> u32 {
        let token = |index: usize| u32::try_from(index).expect("vocabularies fit in 32 bits");
        self.penalise(logits, recent);
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

    /// Pushes each recent token's logit down, once however often it stands there.
    fn penalise(&self, logits: &mut [f32], recent: &[u32]) {
        let recent = &recent[recent.len().saturating_sub(self.looks_back())..];
        for (place, &token) in recent.iter().enumerate() {
            if recent[..place].contains(&token) {
                continue;
            }
            let logit = &mut logits[token as usize];
            *logit = if *logit > 0.0 { *logit / self.repetition_penalty } else { *logit * self.repetition_penalty };
        }
    }

    /// The tokens that remain, most likely first, with weights in proportion to their probabilities.
    fn candidates(&self, logits: &[f32]) -> Vec<(usize, f64)> {
        let top = f64::from(rank(logits, largest(logits)));
        let temperature = f64::from(self.temperature);
        let weight = |i: usize| ((f64::from(rank(logits, i)) - top) / temperature).exp();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        if self.min_p > 0.0 {
            let floor = f64::from(self.min_p).min(1.0);
            order.retain(|&i| weight(i) >= floor);
        }
        let keep = self.top_k as usize;
        if keep > 0 && keep < order.len() {
            let first = |a: &usize, b: &usize| before(logits, *a, *b);
            order.select_nth_unstable_by(keep - 1, first);
            order.truncate(keep);
        }
        let enough = (self.top_p < 1.0).then(|| f64::from(self.top_p) * order.iter().map(|&i| weight(i)).sum::<f64>());
        // Only as many as the sum needs are put in order: sorting a whole vocabulary takes longer than a small model.
        let mut sorted = enough.map_or(order.len(), |_| 64.min(order.len()));
        loop {
            let first = |a: &usize, b: &usize| before(logits, *a, *b);
            if sorted < order.len() {
                order.select_nth_unstable_by(sorted, first);
            }
            order[..sorted].sort_unstable_by(first);
            let mut kept: Vec<(usize, f64)> = order[..sorted].iter().map(|&i| (i, weight(i))).collect();
            let Some(enough) = enough else { return kept };
            let mut sum = 0.0;
            let reached = kept.iter().position(|c| {
                sum += c.1;
                sum >= enough
            });
            if reached.is_some() || sorted == order.len() {
                kept.truncate(reached.map_or(kept.len(), |at| at + 1));
                return kept;
            }
            sorted = (8 * sorted).min(order.len());
        }
    }
}

/// How likely `token` is by the model's logits, with the `count` likeliest tokens beside it.
pub(crate) fn likelihood(logits: &[f32], token: u32, count: u32) -> Likelihood {
    let top = f64::from(rank(logits, largest(logits)));
    let total: f64 = (0..logits.len()).map(|i| (f64::from(rank(logits, i)) - top).exp()).sum();
    let log = |i: usize| (f64::from(rank(logits, i)) - top - total.ln()) as f32;
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let count = (count as usize).min(order.len());
    if count > 0 {
        order.select_nth_unstable_by(count - 1, |a, b| before(logits, *a, *b));
    }
    order.truncate(count);
    order.sort_unstable_by(|a, b| before(logits, *a, *b));
    let likeliest = order.into_iter().filter_map(|i| Some((u32::try_from(i).ok()?, log(i)))).collect();
    Likelihood { log_probability: log(token as usize), likeliest }
}

/// A logit, where a NaN stands below all others.
fn rank(logits: &[f32], i: usize) -> f32 {
    if logits[i].is_nan() { f32::NEG_INFINITY } else { logits[i] }
}

/// Larger logits first, then smaller indices.
fn before(logits: &[f32], a: usize, b: usize) -> std::cmp::Ordering {
    rank(logits, b).total_cmp(&rank(logits, a)).then(a.cmp(&b))
}

/// A number from 0 up to 1 for a place of an answer: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) at `seed + ordinal`
/// steps.
fn unit(seed: u64, ordinal: u32) -> f64 {
    let state = seed.wrapping_add(u64::from(ordinal).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (mixed(state) >> 11) as f64 / (1_u64 << 53) as f64
}

/// The output function of SplitMix64.
fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, -1.0];

    /// How often each token is chosen at 20000 places.
    fn frequencies(sampling: Sampling) -> Vec<f64> {
        let mut counts = vec![0.0; LOGITS.len()];
        for ordinal in 1..=20_000 {
            counts[sampling.choose(&mut LOGITS.clone(), ordinal, &[]) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(Sampling::GREEDY.choose(&mut LOGITS.clone(), 1, &[]), 1);
    }

    #[test]
    fn frequencies_follow_the_softmax_at_the_temperature() {
        let sampling = Sampling { temperature: 2.0, top_k: 0, top_p: 1.0, seed: 7, ..Sampling::GREEDY };
        let weights = LOGITS.map(|l| (f64::from(l) / 2.0).exp());
        let total: f64 = weights.iter().sum();
        for (got, weight) in frequencies(sampling).iter().zip(weights) {
            // Four standard deviations of a count of 20000.
            assert!((got - weight / total).abs() < 4.0 * 0.5 / 20_000_f64.sqrt());
        }
    }

    #[test]
    fn only_the_k_largest_and_only_the_likeliest_p_are_chosen() {
        let two = frequencies(Sampling { temperature: 1.0, top_k: 2, top_p: 1.0, seed: 1, ..Sampling::GREEDY });
        assert!(two[1] > 0.4 && two[3] > 0.4 && two[0] + two[2] + two[4] == 0.0);
        // Probabilities are 0.38, 0.38, 0.14 ...: the first reaches 0.3 alone, the first two reach 0.7.
        let one = frequencies(Sampling { temperature: 1.0, top_k: 0, top_p: 0.3, seed: 1, ..Sampling::GREEDY });
        assert!(one[1] > 0.999);
        let pair = frequencies(Sampling { temperature: 1.0, top_k: 0, top_p: 0.7, seed: 1, ..Sampling::GREEDY });
        assert!(pair[1] > 0.4 && pair[3] > 0.4 && pair[2] == 0.0);
    }

    #[test]
    fn a_seed_repeats_itself_and_another_differs() {
        let draw = |seed| {
            let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed, ..Sampling::GREEDY };
            (1..100).map(|ordinal| sampling.choose(&mut LOGITS.clone(), ordinal, &[])).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn only_tokens_near_the_likeliest_are_kept_by_min_p() {
        // Against the largest, the others are e^-1 = 0.37 and e^-2 = 0.14 as likely.
        let kept = |min_p| {
            let counts = frequencies(Sampling { temperature: 1.0, min_p, seed: 5, ..Sampling::GREEDY });
            counts.iter().filter(|&&count| count > 0.0).count()
        };
        assert_eq!([kept(0.0), kept(0.1), kept(0.2), kept(0.4)], [5, 4, 3, 2]);
    }

    #[test]
    fn repeated_tokens_are_pushed_down_once_and_only_within_the_window() {
        let choose = |window, recent: &[u32]| {
            let sampling = Sampling { repetition_penalty: 1.2, repetition_window: window, ..Sampling::GREEDY };
            let mut logits = LOGITS;
            let token = sampling.choose(&mut logits, 1, recent);
            (token, logits[1], logits[4])
        };
        assert_eq!(choose(8, &[]), (1, 3.0, -1.0));
        assert_eq!(choose(8, &[1, 4, 1]), (3, 3.0 / 1.2, -1.2));
        // The window ends before the token that would have won.
        assert_eq!(choose(1, &[1, 4]), (1, 3.0, -1.2));
    }

    #[test]
    fn log_probabilities_are_those_of_the_plain_softmax() {
        let total: f64 = LOGITS.iter().map(|&l| f64::from(l).exp()).sum();
        let expected = |i: usize| (f64::from(LOGITS[i]) - total.ln()) as f32;
        let found = likelihood(&LOGITS, 2, 3);
        assert!((found.log_probability - expected(2)).abs() < 1e-6);
        assert_eq!(found.likeliest.iter().map(|pair| pair.0).collect::<Vec<_>>(), [1, 3, 2]);
        assert!(found.likeliest.iter().all(|&(token, log)| (log - expected(token as usize)).abs() < 1e-6));
    }

    #[test]
    fn a_vocabulary_sorted_in_part_gives_the_same_tokens_as_one_sorted_whole() {
        let logits: Vec<f32> = (0..5000).map(|i| (unit(3, i) * 4.0) as f32).collect();
        for top_p in [0.02_f32, 0.3, 0.97, 0.9999] {
            let sampling = Sampling { temperature: 1.3, top_p, ..Sampling::GREEDY };
            let kept = sampling.candidates(&logits);
            let mut all: Vec<(usize, f64)> =
                Sampling { top_p: 1.0, ..sampling }.candidates(&logits).into_iter().collect();
            let enough = f64::from(top_p) * all.iter().map(|c| c.1).sum::<f64>();
            let mut sum = 0.0;
            all.retain(|c| {
                let before = sum;
                sum += c.1;
                before < enough
            });
            // Sums in two orders may differ by a rounding at the very end.
            assert!(kept.len().abs_diff(all.len()) <= 1, "{} and {}", kept.len(), all.len());
            assert!(kept.iter().zip(&all).all(|(a, b)| a.0 == b.0));
        }
    }
}
