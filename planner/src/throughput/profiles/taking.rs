//! Whole blocks for a profile: the block that the linear program uses most is taken, what is left is solved again with blocks
//! made for it, until the blocks taken hold all layers.

use super::{Laid, Profile, Search, Stretch, stretches};
use crate::budget::Budget;
use crate::formulation::program::{Program, Relation};
use crate::formulation::solve::{SolverFault, Verdict, solve};

/// Layers short of all at which it is given up.
const SHORT: f64 = 1.5;
/// What luck adds to the use of a block.
const LUCK: f64 = 0.35;
/// Share by which prices are shaken to make other blocks.
const SHAKEN: f64 = 0.3;
/// Most blocks taken one after another.
const STEPS: usize = 200;

/// Blocks taken, by position of the stretch and of the block, and the devices left, by type.
pub(super) struct Taken {
    pub free: Vec<u16>,
    pub blocks: Vec<(usize, usize)>,
}

impl Taken {
    /// Nothing of what a yard has.
    pub fn nothing(search: &Search<'_>) -> Self {
        let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        Self { free: search.yard.types.iter().map(|t| count(t.count)).collect(), blocks: Vec::new() }
    }

    /// Layers that are held of a stretch.
    pub fn held(&self, search: &Search<'_>, stretch: usize) -> usize {
        let here = self.blocks.iter().filter(|(of, _)| *of == stretch);
        here.map(|&(_, block)| search.blocks[block].layers).sum()
    }

    /// Blocks of a stretch whose ends pass no more than `most` each.
    pub fn doors(&self, search: &Search<'_>, stretch: usize, most: usize) -> usize {
        self.blocks.iter().filter(|(of, block)| *of == stretch && search.blocks[*block].most <= most).count()
    }
}

impl Search<'_> {
    /// The intervals of a plan by a profile, by type; none where it was not found.
    pub(super) fn dive(&mut self, profile: &Profile, budget: &Budget<'_>) -> Result<Option<Laid>, SolverFault> {
        let stretches = stretches(profile, &self.ways);
        let mut taken = Taken::nothing(self);
        for _ in 0..STEPS {
            if budget.exhausted().is_some() {
                return Ok(None);
            }
            if let Some(segments) = self.segments(profile, &stretches, &taken, budget)? {
                return Ok(self.laid(&stretches, &segments, &taken.blocks));
            }
            let (program, columns) = self.program(profile, &stretches, &taken, false);
            let answer = solve(&program, None, 0.0, &Budget { progress: None, ..*budget })?;
            let Some(at) = answer.assignment.filter(|_| answer.verdict == Verdict::Optimal) else { return Ok(None) };
            if at[..profile.len()].iter().sum::<f64>() < self.yard.layers as f64 - SHORT {
                return Ok(None);
            }
            let used = columns.iter().zip(&at[profile.len()..]).filter(|(_, x)| **x > 1e-6);
            let ranked = used.map(|(&column, &x)| (x.min(1.0) + LUCK * self.random.real(), column, x));
            let Some((_, (stretch, block), x)) = ranked.reduce(|a, b| if b.0 > a.0 { b } else { a }) else {
                return Ok(None);
            };
            for _ in 0..(x + 1e-6).floor().max(1.0) as usize {
                let counts = &self.blocks[block].counts;
                if counts.iter().zip(&taken.free).any(|(used, free)| used > free) {
                    break;
                }
                taken.free.iter_mut().zip(counts).for_each(|(free, used)| *free -= used);
                taken.blocks.push((stretch, block));
            }
            let random = &mut self.random;
            let prices = answer.duals.iter().skip(stretches.len()).take(taken.free.len());
            let shaken: Vec<f64> =
                prices.map(|price| price.max(0.0) * (1.0 + SHAKEN * (random.real() - 0.5))).collect();
            let site = self.blocks[block].site;
            let here: Vec<Stretch> = stretches.iter().filter(|stretch| stretch.site == site).cloned().collect();
            self.make(&here, &shaken, &taken.free);
        }
        Ok(None)
    }

    /// Layers by segment where the blocks taken hold all of them. What a stretch holds limits consecutive segments, so that a
    /// corner of the continuous program is whole.
    fn segments(
        &self,
        profile: &Profile,
        stretches: &[Stretch],
        taken: &Taken,
        budget: &Budget<'_>,
    ) -> Result<Option<Vec<usize>>, SolverFault> {
        let held: Vec<usize> = (0..stretches.len()).map(|s| taken.held(self, s)).collect();
        // Each site with a share throughout has to hold all layers.
        let all = |s: &usize| stretches[*s].segments.len() == profile.len();
        if (0..stretches.len()).filter(all).any(|s| held[s] < self.yard.layers) {
            return Ok(None);
        }
        let lacks = |s: usize| stretches[s].doors().into_iter().any(|(most, count)| taken.doors(self, s, most) < count);
        if (0..stretches.len()).any(lacks) {
            return Ok(None);
        }
        let layers = self.yard.layers as f64;
        let mut program = Program { maximise: true, ..Program::default() };
        let segments: Vec<usize> = profile.iter().map(|_| program.column(1.0, 1.0, layers, false)).collect();
        for (stretch, &held) in stretches.iter().zip(&held) {
            let terms = stretch.segments.clone().map(|j| (segments[j], 1.0)).collect();
            program.row(terms, Relation::AtMost, held as f64);
        }
        let answer = solve(&program, None, 0.0, &Budget { progress: None, ..*budget })?;
        let Some(at) = answer.assignment.filter(|_| answer.verdict == Verdict::Optimal) else { return Ok(None) };
        let mut lengths: Vec<usize> = at.iter().map(|length| (length + 1e-6).floor().max(1.0) as usize).collect();
        let sum: usize = lengths.iter().sum();
        let Some(mut over) = sum.checked_sub(self.yard.layers) else { return Ok(None) };
        for length in &mut lengths {
            let less = over.min(*length - 1);
            (*length, over) = (*length - less, over - less);
        }
        Ok((over == 0).then_some(lengths))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::blocks::{Type, Yard};
    use super::super::super::clip::Span;
    use super::super::super::random::Random;
    use super::super::super::series::Holds;
    use super::super::{PARTS, Ways};
    use super::*;

    /// What one of a few dives lays out at a rate of 6 on 12 layers by devices of `12 / k` at one site and of `6 / k` at
    /// another, between which pairs of devices have ways of `way`.
    fn dived(counts: [usize; 2], way: f64, profile: &Profile) -> Option<Laid> {
        let types = (0..2).map(|t| Type { site: t, kind: t, count: counts[t] }).collect();
        let table = |rate: f64| vec![vec![f64::INFINITY, rate], vec![rate, f64::INFINITY]];
        let yard =
            Yard::new(12, types, &[Span::falling(12.0, 4), Span::falling(6.0, 4)], table(way), table(f64::INFINITY));
        let (rate, prices, random) = (6.0, vec![1.0; 2], Random::new(3));
        let (ways, holds) = (Ways::new(&yard, rate, 3), Holds::new(&yard, rate, PARTS));
        let mut search = Search { yard: &yard, ways, holds, longest: 12, blocks: Vec::new(), prices, random };
        search.value(profile.clone(), 0.0, &Budget::default()).expect("the solver answers");
        (0..5).find_map(|_| search.dive(profile, &Budget::default()).expect("the solver answers"))
    }

    #[test]
    fn blocks_taken_hold_every_layer_at_the_shares_of_a_profile_and_no_more_devices_than_there_are() {
        // Half each and then all at the first site: eight layers need two and four devices, four more need two.
        let laid = dived([4, 4], 3.0, &vec![vec![200, 200], vec![400, 0]]).expect("a plan");
        let rate = |site: usize, layer: usize| -> f64 {
            let here = laid.iter().filter(|(t, start, end)| *t == site && (*start..*end).contains(&layer));
            here.map(|&(t, start, end)| [12.0, 6.0][t] / (end - start) as f64).sum()
        };
        let both = laid.iter().filter(|(t, ..)| *t == 1).map(|(.., end)| *end).max().expect("the second site has some");
        for layer in 0..12 {
            let shares = if layer < both { [3.0, 3.0] } else { [6.0, 0.0] };
            assert!((0..2).all(|site| rate(site, layer) >= shares[site] - 1e-9), "layer {layer} of {laid:?}");
        }
        assert!((0..2).all(|site| laid.iter().filter(|(t, ..)| *t == site).count() <= 4), "{laid:?}");
        assert!(laid.iter().all(|(_, start, end)| *end <= both || *start >= both), "nothing stands across: {laid:?}");
        // One device less, and there is no such plan.
        assert_eq!(dived([3, 4], 3.0, &vec![vec![200, 200], vec![400, 0]]), None);
    }

    #[test]
    fn where_a_way_does_not_carry_what_crosses_several_devices_end_and_begin_there() {
        // 3 cross; by ways of 0.75 four pairs are needed.
        let laid = dived([9, 9], 0.75, &vec![vec![200, 200], vec![400, 0]]).expect("a plan");
        let border =
            laid.iter().filter(|(t, ..)| *t == 1).map(|(.., end)| *end).max().expect("the second site has some");
        let ends = laid.iter().filter(|(t, _, end)| (*t, *end) == (1, border)).count();
        let begins = laid.iter().filter(|(t, start, _)| (*t, *start) == (0, border)).count();
        assert!(ends >= 2 && begins >= 2, "{laid:?}");
    }
}
