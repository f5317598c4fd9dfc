//! What neighbours on the same physical cores did to decoding steps.

use crate::cpu::neighbours::Reading;
use std::collections::BTreeMap;

/// Fewest steps of a number of sequences without a neighbour that tell how long such steps take.
const CALM_MIN: u64 = 3;

/// Steps and their time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    steps: u64,
    nanoseconds: u64,
}

impl Sum {
    fn add(&mut self, nanoseconds: u64) {
        self.steps += 1;
        self.nanoseconds = self.nanoseconds.saturating_add(nanoseconds);
    }

    fn mean(self) -> f64 {
        self.nanoseconds as f64 / self.steps.max(1) as f64
    }
}

/// What the stages of a run saw on their cores around each decoding step.
///
/// In a guest of a virtual machine somebody outside may take the other half of a physical core, or move cores apart. Steps
/// at whose begin and end nobody did tell how long steps take by themselves, and so how much of the others' time was the
/// neighbours'.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Neighbours {
    /// By stage and number of sequences: all steps, and those without a neighbour at either end.
    steps: BTreeMap<(usize, u32), (Sum, Sum)>,
    /// What each stage saw last.
    last: Vec<Reading>,
    passes: u64,
    looking_ns: u64,
}

impl Neighbours {
    /// Takes in a pass: its decoding sequences, none where it holds parts of prompts too, how long each stage was busy with
    /// it, and what it saw afterwards.
    pub(super) fn add(&mut self, decodes: Option<u32>, busy_ns: &[u64], beside: &[Reading], looking_ns: u64) {
        self.passes += 1;
        self.looking_ns = self.looking_ns.saturating_add(looking_ns);
        let before = std::mem::replace(&mut self.last, beside.to_vec());
        let Some(decodes) = decodes else { return };
        for (stage, ((busy, after), before)) in busy_ns.iter().zip(beside).zip(&before).enumerate() {
            let (all, calm) = self.steps.entry((stage, decodes)).or_default();
            all.add(*busy);
            if before.or_worse(*after).is_calm() {
                calm.add(*busy);
            }
        }
    }

    /// How many times as long as without neighbours the stages were busy with decoding steps, where enough steps tell.
    /// Numbers of sequences that were hardly met without a neighbour are left out.
    #[must_use]
    pub fn slowdown(&self) -> Option<f64> {
        let told = self.steps.values().filter(|(_, calm)| calm.steps >= CALM_MIN);
        let (all, calm) = told.fold((0.0, 0.0), |(all, without), (some, calm)| {
            (all + some.nanoseconds as f64, without + calm.mean() * some.steps as f64)
        });
        let steps = |of: fn(&(Sum, Sum)) -> bool| -> u64 {
            self.steps.values().filter(|sums| of(sums)).map(|(all, _)| all.steps).sum()
        };
        // What is left out must be the lesser part.
        let most = 2 * steps(|(_, calm)| calm.steps >= CALM_MIN) > steps(|_| true);
        // Nobody makes steps shorter: what seems so is chance among few.
        (most && calm > 0.0).then(|| (all / calm).max(1.0))
    }

    /// Share of the decoding steps with a neighbour at either end; absent without any step.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let (all, calm) = self.steps.values().fold((0, 0), |(a, c), (all, calm)| (a + all.steps, c + calm.steps));
        (all > 0).then(|| 1.0 - calm as f64 / all as f64)
    }

    /// Seconds that looking took of the whole run, all stages together.
    #[must_use]
    pub fn looking_total_seconds(&self) -> f64 {
        self.looking_ns as f64 * 1e-9
    }

    /// Seconds that looking took of each pass, all its stages together.
    #[must_use]
    pub fn looking_seconds(&self) -> f64 {
        self.looking_ns as f64 * 1e-9 / self.passes.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::neighbours::beside_a_neighbour;

    #[test]
    fn where_nothing_is_told_of_cores_nothing_was_taken() {
        let mut seen = Neighbours::default();
        assert_eq!((seen.slowdown(), seen.share()), (None, None));
        for busy in [100, 110, 120, 130, 140] {
            seen.add(Some(1), &[busy, 2 * busy], &[Reading::UNKNOWN; 2], 7);
        }
        // The first step has no look before it.
        assert_eq!((seen.slowdown(), seen.share()), (Some(1.0), Some(0.0)));
        assert!((seen.looking_seconds() - 7e-9).abs() < 1e-18);
    }

    #[test]
    fn steps_beside_a_neighbour_are_held_against_those_of_as_many_sequences_without() {
        let (calm, beside) = (Reading::UNKNOWN, beside_a_neighbour());
        let mut seen = Neighbours::default();
        seen.add(None, &[999], &[calm], 0);
        for (busy, after) in [(100, calm), (100, calm), (100, calm), (150, beside), (150, beside), (130, calm)] {
            seen.add(Some(1), &[busy], &[after], 0);
        }
        // Too few of two sequences without a neighbour: these steps tell nothing.
        seen.add(Some(2), &[900], &[beside], 0);
        assert_eq!(seen.slowdown(), Some(730.0 / 600.0));
        assert_eq!(seen.share(), Some(4.0 / 7.0));
        let mut quicker = Neighbours::default();
        for (busy, after) in [(90, beside), (100, calm), (100, calm), (100, calm), (100, calm), (80, beside)] {
            quicker.add(Some(1), &[busy], &[after], 0);
        }
        assert_eq!(quicker.slowdown(), Some(1.0));
    }
}
