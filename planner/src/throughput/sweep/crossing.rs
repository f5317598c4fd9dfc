//! What crosses between sites that share a capacity, added up from border to border.

use super::{Beginning, ROUNDING, Set, Sweep};

/// What using up all that two sites share weighs, in layers.
const CROSSING: f64 = 0.3;

impl Sweep<'_> {
    /// What devices pass, by site.
    fn by_site(&self, devices: impl Iterator<Item = usize>) -> Vec<f64> {
        let mut rates = vec![0.0; self.yard.sites];
        devices.for_each(|way| rates[self.site(way)] += self.ways[way].rate);
        rates
    }

    /// Notes what crosses between sites where so much is handed over from some to others; false where that is more than
    /// the sites share.
    fn cross(&self, out: &[f64], into: &[f64], need: f64, crossed: &mut [f64]) -> bool {
        let (sites, dust) = (self.yard.sites, ROUNDING * self.rate);
        let here: f64 = out.iter().zip(into).map(|(out, into)| out.min(*into)).sum();
        let mut left = need - here;
        let over = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| (a - b).max(0.0)).collect() };
        let (mut more, mut less) = (over(out, into), over(into, out));
        while left > dust {
            let room = |a: usize, b: usize| self.yard.trunk[a][b] - crossed[a.min(b) * sites + a.max(b)];
            let pairs = (0..sites).flat_map(|a| (0..sites).map(move |b| (a, b)));
            let open = pairs.filter(|&(a, b)| a != b && more[a] > dust && less[b] > dust);
            let widest = open.max_by(|&(a, b), &(c, d)| room(a, b).total_cmp(&room(c, d)));
            let Some((a, b)) = widest else { return false };
            let much = left.min(more[a]).min(less[b]).min(room(a, b));
            if much <= dust {
                return false;
            }
            crossed[a.min(b) * sites + a.max(b)] += much;
            (more[a], less[b], left) = (more[a] - much, less[b] - much, left - much);
        }
        true
    }

    /// What crossing has cost, in layers: what is left of what sites share is of use later.
    pub fn spent(&self, crossed: &[f64]) -> f64 {
        let sites = self.yard.sites;
        let share = |(pair, &much): (usize, &f64)| much / self.yard.trunk[pair / sites][pair % sites];
        CROSSING * crossed.iter().enumerate().map(share).filter(|share| share.is_finite()).sum::<f64>()
    }

    /// What has crossed when devices begin after a beginning that ends at a layer; none where sites share less.
    pub fn crossed(&self, before: &Beginning, at: usize, set: &Set) -> Option<Vec<f64>> {
        let mut crossed = before.crossed.clone();
        if at == 0 || crossed.is_empty() {
            return Some(crossed);
        }
        let ended = before.active.iter().filter(|(_, end)| *end <= at).map(|&(way, _)| way);
        let going = before.active.iter().filter(|(_, end)| *end > at);
        let need = self.rate - going.map(|&(way, _)| self.ways[way].rate).sum::<f64>();
        self.cross(&self.by_site(ended), &self.by_site(set.iter()), need, &mut crossed).then_some(crossed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::blocks::{Type, Yard};
    use super::super::super::clip::Span;
    use super::super::LUCKS;
    use super::*;

    #[test]
    fn what_crosses_is_added_up_from_border_to_border() {
        let kinds = [vec![Span { held: 1, first: false, last: false, rate: 10.0 }]];
        let types = [0, 1].into_iter().map(|site| Type { site, kind: 0, count: 1 }).collect();
        let trunk = vec![vec![f64::INFINITY, 25.0], vec![25.0, f64::INFINITY]];
        let yard = Yard::new(6, types, &kinds, trunk.clone(), trunk);
        let sweep = Sweep::new(&yard, 10.0, &[1.0, 1.0], LUCKS[0]);
        let mut crossed = vec![0.0; 4];
        assert!(sweep.cross(&[10.0, 0.0], &[0.0, 10.0], 10.0, &mut crossed));
        assert!(sweep.cross(&[4.0, 6.0], &[6.0, 4.0], 10.0, &mut crossed));
        assert_eq!(crossed, [0.0, 12.0, 0.0, 0.0]);
        assert!(sweep.cross(&[0.0, 10.0], &[10.0, 0.0], 10.0, &mut crossed));
        assert!(!sweep.cross(&[10.0, 0.0], &[0.0, 10.0], 10.0, &mut crossed), "{crossed:?} of 25");
    }
}
