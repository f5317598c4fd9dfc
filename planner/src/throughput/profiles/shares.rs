//! Shares of sites from segment to segment: what crosses between sites, and which changes prices speak for.

use super::super::blocks::Yard;
use super::super::random::Random;
use super::{PARTS, Profile};

/// Share of what a change is worth that is not left to the draw.
const CERTAIN: f64 = 0.3;
/// Devices that a border may need on either side of it, for ways of one pair each to carry what crosses there.
const DOORS: f64 = 4.0;
/// Draws for a change that ways can carry.
const DRAWS: usize = 40;

/// What ways between sites carry, in parts of a rate.
pub(super) struct Ways {
    /// At all borders together.
    trunk: Vec<Vec<usize>>,
    /// At one border, by one pair of devices.
    way: Vec<Vec<usize>>,
    /// At one border, by as many as there may be.
    border: Vec<Vec<usize>>,
    /// Most segments.
    pub segments: usize,
}

/// What crosses between sites at a border: shares from a site to another.
fn crossed(
    before: &[usize],
    after: &[usize],
    room: &mut dyn FnMut(usize, usize) -> usize,
) -> Option<Vec<(usize, usize, usize)>> {
    let mut out: Vec<usize> = before.iter().zip(after).map(|(b, a)| b.saturating_sub(*a)).collect();
    let mut into: Vec<usize> = after.iter().zip(before).map(|(a, b)| a.saturating_sub(*b)).collect();
    let mut moved = Vec::new();
    for (from, out) in out.iter_mut().enumerate() {
        // The widest way first.
        let mut ways: Vec<usize> = (0..into.len()).filter(|&to| into[to] > 0 && to != from).collect();
        ways.sort_by_key(|&to| (std::cmp::Reverse(room(from, to)), to));
        for to in ways {
            let much = (*out).min(into[to]).min(room(from, to));
            if much > 0 {
                *out -= much;
                into[to] -= much;
                moved.push((from, to, much));
            }
        }
    }
    out.iter().all(|&left| left == 0).then_some(moved)
}

impl Ways {
    /// Between the sites of a yard at a rate, for profiles of so many segments.
    pub fn new(yard: &Yard, rate: f64, segments: usize) -> Self {
        let parts = |way: f64| ((way / rate * PARTS as f64).min(8.0 * PARTS as f64)) as usize;
        let table = |of: &dyn Fn(usize, usize) -> f64| -> Vec<Vec<usize>> {
            (0..yard.sites).map(|a| (0..yard.sites).map(|b| parts(of(a, b))).collect()).collect()
        };
        let way = table(&|a, b| yard.between[a][b]);
        let border = table(&|a, b| yard.between[a][b] * DOORS * DOORS);
        Self { trunk: table(&|a, b| yard.trunk[a][b]), way, border, segments }
    }

    /// Whether they carry what crosses at all borders of a profile.
    pub fn carry(&self, profile: &Profile) -> bool {
        self.crossings(profile).is_some()
    }

    /// Borders at which the way of one pair does not do: before which segment, from which site to which, and the share of what
    /// a site passes that a device there passes at most. Ends of shares `x` and `y` of what their sites pass share `x y` of
    /// what crosses.
    pub fn doors(&self, profile: &Profile) -> Vec<(usize, usize, usize, f64)> {
        let narrow = |&(_, a, b, much): &(usize, usize, usize, usize)| much > self.way[a][b];
        let all = self.crossings(profile).unwrap_or_default().into_iter().filter(narrow);
        all.map(|(border, a, b, much)| (border, a, b, (self.way[a][b] as f64 / much as f64).sqrt())).collect()
    }

    /// What crosses: before which segment, from which site to which, and how much; none where ways do not carry it.
    fn crossings(&self, profile: &Profile) -> Option<Vec<(usize, usize, usize, usize)>> {
        let sites = self.trunk.len();
        let mut used = vec![vec![0_usize; sites]; sites];
        if profile.len() > self.segments {
            return None;
        }
        let mut all = Vec::new();
        for (j, pair) in profile.windows(2).enumerate() {
            let mut room =
                |a: usize, b: usize| self.border[a][b].min(self.trunk[a][b].saturating_sub(used[a.min(b)][a.max(b)]));
            for (a, b, much) in crossed(&pair[0], &pair[1], &mut room)? {
                used[a.min(b)][a.max(b)] += much;
                all.push((j + 1, a, b, much));
            }
        }
        Some(all)
    }

    /// The change that prices of a layer, by site and share, speak for most, with some luck: a layer of all segments in use
    /// is worth 1. None where every change that can be carried is known or costs more.
    pub fn cheaper(
        &self,
        profile: &Profile,
        costs: &[Vec<f64>],
        known: &[Profile],
        random: &mut Random,
    ) -> Option<Profile> {
        let mut best: Option<(f64, Profile)> = None;
        let mut offer = |next: Option<(f64, Profile)>, random: &mut Random| {
            let Some((gain, next)) = next.filter(|(gain, _)| *gain > 1e-9) else { return };
            let luck = gain * (CERTAIN + (1.0 - CERTAIN) * random.real());
            if best.as_ref().is_none_or(|(most, _)| luck > *most) && !known.contains(&next) {
                best = Some((luck, next));
            }
        };
        let price = |shares: &[usize]| -> f64 { shares.iter().zip(costs).map(|(&share, costs)| costs[share]).sum() };
        for j in 0..profile.len() {
            let now = price(&profile[j]);
            for s in 0..costs.len() {
                for t in (0..costs.len()).filter(|&t| t != s) {
                    let (from, to) = (profile[j][s], profile[j][t]);
                    let gain = |much: usize| {
                        1.0 - (now - costs[s][from] - costs[t][to] + costs[s][from - much] + costs[t][to + much])
                    };
                    for how in [How::Instead, How::Before, How::After] {
                        let made = |much: usize| {
                            let mut shares = profile[j].clone();
                            shares[s] -= much;
                            shares[t] += much;
                            how.put(profile, j, shares).filter(|next| self.carry(next))
                        };
                        // What is carried of much is carried of less.
                        let (mut low, mut high) = (0, from);
                        while low < high {
                            let middle = (low + high).div_ceil(2);
                            if made(middle).is_some() { low = middle } else { high = middle - 1 }
                        }
                        let most = (1..=low).max_by(|&a, &b| gain(a).total_cmp(&gain(b)));
                        offer(most.and_then(|much| Some((gain(much), made(much)?))), random);
                    }
                }
            }
        }
        let cheapest = cheapest(costs);
        for j in 0..profile.len() {
            for how in [How::Instead, How::Before, How::After] {
                let next = how.put(profile, j, cheapest.clone()).filter(|next| self.carry(next));
                offer(next.map(|next| (1.0 - price(&cheapest), next)), random);
            }
        }
        best.map(|(_, next)| next)
    }

    /// A profile a little different, which ways can carry.
    pub fn drawn(&self, profile: &Profile, random: &mut Random) -> Option<Profile> {
        let sites = self.trunk.len();
        for _ in 0..DRAWS {
            let mut next = profile.clone();
            let j = random.below(next.len());
            let (s, t) = (random.below(sites), random.below(sites));
            let shift = |shares: &mut Vec<usize>, much: usize| {
                let much = much.min(shares[s]);
                shares[s] -= much;
                shares[t] += much;
                much > 0
            };
            let much = [1, 4, 10, 20, 50, 100, 150, PARTS][random.below(8)];
            let done = match random.below(8) {
                0..=2 => s != t && shift(&mut next[j], much),
                3 if s != t => next.iter_mut().map(|shares| shift(shares, much)).filter(|done| *done).count() > 0,
                4..=5 if next.len() < self.segments && s != t => {
                    let mut other = next[j].clone();
                    let done = shift(&mut other, much);
                    next.insert(j + random.below(2), other);
                    done
                }
                6 if next.len() > 1 => {
                    next.remove(j);
                    true
                }
                7 if next.len() > 1 => {
                    let k = random.below(next.len());
                    next.swap(j, k);
                    j != k
                }
                _ => false,
            };
            next.dedup();
            if done && next != *profile && self.carry(&next) {
                return Some(next);
            }
        }
        None
    }
}

/// Where a new segment goes.
#[derive(Clone, Copy)]
enum How {
    Instead,
    Before,
    After,
}

impl How {
    fn put(self, profile: &Profile, j: usize, shares: Vec<usize>) -> Option<Profile> {
        let mut next = profile.clone();
        match self {
            Self::Instead => next[j] = shares,
            Self::Before => next.insert(j, shares),
            Self::After => next.insert(j + 1, shares),
        }
        next.dedup();
        (next != *profile).then_some(next)
    }
}

/// The shares of all sites that are cheapest together.
fn cheapest(costs: &[Vec<f64>]) -> Vec<usize> {
    // By site: what so many parts cost of it and those before it, and how many of them are its own.
    let mut least: Vec<(f64, usize)> = (0..=PARTS).map(|parts| (costs[0][parts], parts)).collect();
    let mut tables = vec![least.clone()];
    for costs in &costs[1..] {
        let of = |parts: usize| {
            let ways = (0..=parts).map(|own| (costs[own] + least[parts - own].0, own));
            ways.reduce(|a, b| if b.0 < a.0 { b } else { a }).unwrap_or((f64::INFINITY, 0))
        };
        least = (0..=PARTS).map(of).collect();
        tables.push(least.clone());
    }
    let (mut shares, mut left) = (vec![0; costs.len()], PARTS);
    for (site, table) in tables.iter().enumerate().rev() {
        shares[site] = table[left].1;
        left -= shares[site];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_shares_are_those_of_all_that_enumeration_finds_cheapest() {
        let mut random = Random::new(3);
        for _ in 0..5 {
            let mut steps = |_| {
                let mut sum = 0.0;
                let mut of = |parts: usize| {
                    sum += if parts.is_multiple_of(37) && parts > 0 { random.real() } else { 0.0 };
                    sum
                };
                (0..=PARTS).map(&mut of).collect::<Vec<f64>>()
            };
            let costs: Vec<Vec<f64>> = (0..3).map(&mut steps).collect();
            let price = |a: usize, b: usize| costs[0][a] + costs[1][b] + costs[2][PARTS - a - b];
            let pairs = (0..=PARTS).flat_map(|a| (0..=PARTS - a).map(move |b| (a, b)));
            let least = pairs.map(|(a, b)| price(a, b)).fold(f64::INFINITY, f64::min);
            let found = cheapest(&costs);
            assert_eq!(found.iter().sum::<usize>(), PARTS);
            assert!((price(found[0], found[1]) - least).abs() < 1e-12, "{found:?}");
        }
    }

    #[test]
    fn no_border_carries_more_than_its_ways_and_all_no_more_than_the_trunk() {
        let ways = Ways {
            trunk: vec![vec![usize::MAX, 300], vec![300, usize::MAX]],
            way: vec![vec![100; 2]; 2],
            border: vec![vec![250; 2]; 2],
            segments: 3,
        };
        let half = vec![200, 200];
        assert!(ways.carry(&vec![half.clone(), vec![400, 0]]));
        assert!(!ways.carry(&vec![vec![0, 400], vec![400, 0]]), "400 at one border");
        assert!(ways.carry(&vec![half.clone(), vec![350, 50], half.clone()]), "150 twice");
        assert!(!ways.carry(&vec![half.clone(), vec![400, 0], half.clone()]), "200 twice");
        // Half of 150 each by ends of 82 % of what their sites pass: 100 by a pair.
        let doors = ways.doors(&vec![half, vec![350, 50]]);
        assert!(matches!(doors[..], [(1, 1, 0, share)] if (share * share * 150.0 - 100.0).abs() < 1e-9), "{doors:?}");
    }
}
