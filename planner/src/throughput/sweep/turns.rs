//! Which beginnings are taken up where many wait.

use super::{Next, Sweep};
use std::collections::BTreeMap;

impl Sweep<'_> {
    /// Devices that are left at each site.
    fn left_at(&self, next: &Next) -> Vec<u16> {
        let mut left = vec![0; self.yard.sites];
        self.yard.types.iter().zip(&self.kept[next.before].free).for_each(|(t, free)| left[t.site] += free);
        next.set.iter().for_each(|way| left[self.site(way)] -= 1);
        left
    }

    /// Where those with as many devices left at each site take turns: some of each first, then some more of each.
    pub fn take_turns(&self, here: &mut [(usize, Next)]) {
        let Some(at_once) = self.alike else { return };
        let mut before: BTreeMap<Vec<u16>, usize> = BTreeMap::new();
        for (_, next) in here.iter_mut() {
            let before = before.entry(self.left_at(next)).or_insert(0);
            next.turn = *before / at_once;
            *before += 1;
        }
        here.sort_by_key(|(_, next)| next.turn);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::blocks::{Type, Yard};
    use super::super::super::clip::Span;
    use super::super::{Beginning, LUCKS, Set};
    use super::*;

    #[test]
    fn beginnings_with_other_devices_left_have_their_turn_before_more_of_the_same() {
        let span = |held: usize| Span { held, first: false, last: false, rate: 10.0 };
        let kinds = [vec![span(1)], vec![span(4)]];
        let types = [0, 1].into_iter().map(|site| Type { site, kind: site, count: 3 }).collect();
        let open = vec![vec![f64::INFINITY; 2]; 2];
        let yard = Yard::new(6, types, &kinds, open.clone(), open);
        let sweep = sweep_of(&yard);
        let way_of = |site: usize| (0..sweep.ways.len()).find(|&way| sweep.site(way) == site).expect("each has one");
        let next = |site: usize, waste: f64| {
            let mut set = Set::NONE;
            set.push(way_of(site));
            (0, Next { before: 0, set, waste, luck: waste, turn: 0 })
        };
        let waiting = [next(0, 0.0), next(0, 0.1), next(0, 0.2), next(0, 0.3), next(1, 0.4)];
        let order = |alike: Option<usize>| -> Vec<f64> {
            let (mut here, turns) = (waiting, Sweep { alike, ..sweep_of(&yard) });
            turns.take_turns(&mut here);
            here.iter().map(|(_, next)| next.waste).collect()
        };
        assert_eq!(order(None), [0.0, 0.1, 0.2, 0.3, 0.4]);
        assert_eq!(order(Some(1)), [0.0, 0.4, 0.1, 0.2, 0.3]);
        assert_eq!(order(Some(2)), [0.0, 0.1, 0.4, 0.2, 0.3]);
    }

    /// A sweep that has begun.
    fn sweep_of(yard: &Yard) -> Sweep<'_> {
        let mut sweep = Sweep::new(yard, 10.0, &[1.0, 1.0], LUCKS[0]);
        let (free, active, crossed) = (vec![3, 3], Vec::new(), Vec::new());
        sweep.kept.push(Beginning { step: None, start: 0, free, active, waste: 0.0, crossed });
        sweep
    }
}
