//! The search for a cheap cover where sites pass at least, and at most, so much.
//!
//! Like [`super::worths`]'s search, with more to prune by: what a site still passes costs at least its cheapest rate, and no
//! site passes more than it may. Devices that pay nothing stand by every cover. Everything is in whole parts of a fixed size, rounded so that no cover is missed.

use super::certificate::BoundFault;
use super::worths::{PARTS_BITS, Set};

/// Prices per rate from here on are as good as any other: no cover with one of them is cheap.
const RATIO_MAX: u128 = 1 << 70;

/// A way to use any of some equal devices on a layer.
#[derive(Clone, Copy)]
pub(super) struct Item {
    /// The set of equal devices.
    pub set: usize,
    /// Their site.
    pub site: usize,
    /// In parts of the rate, rounded up.
    pub rate: u128,
    /// In parts of the price of a layer, rounded down.
    pub price: u128,
}

/// What sites pass of a layer, in parts of the rate.
#[derive(Clone)]
pub(super) struct Shares {
    /// At least, rounded down.
    pub floors: Vec<u128>,
    /// At most, rounded up.
    pub tops: Vec<u128>,
}

/// What has to stand by the items chosen, so that they are of several parts where that is asked: the cheapest of another;
/// `Err` where nothing can.
pub(super) fn second(items: &[Item], sets: &[Set], chosen: &[u64], apart: bool) -> Result<Option<usize>, ()> {
    let part = |item: usize| sets[items[item].set].part;
    let mut of_chosen = (0..items.len()).filter(|&item| chosen[item] > 0);
    let Some(first) = of_chosen.next().and_then(part).filter(|_| apart) else { return Ok(None) };
    if of_chosen.any(|item| part(item) != Some(first)) {
        return Ok(None);
    }
    let others = (0..items.len()).filter(|&item| part(item) != Some(first));
    others.min_by_key(|&item| (items[item].price, item)).map(Some).ok_or(())
}

/// The search.
pub(super) struct Floored<'a> {
    items: &'a [Item],
    /// Cheapest rate first.
    order: Vec<usize>,
    /// By position of the order: sites that have items from there on, with the price per rate of the cheapest, cheapest first.
    rest: Vec<Vec<(u128, usize)>>,
    /// The one item of use of sets that pay nothing; by set.
    gift: Vec<Option<usize>>,
    free: Vec<u64>,
    sets: &'a [Set],
    price: u128,
    /// Whether a cover of one part alone is none: then the cheapest item of another stands by it.
    apart: bool,
    /// Partial covers looked at so far.
    pub looked: u64,
    limit: u64,
    /// How many of each item.
    chosen: Vec<u64>,
}

impl<'a> Floored<'a> {
    /// Of items of these sets, for covers that cost less than `price`.
    pub fn new(items: &'a [Item], sets: &'a [Set], sites: usize, price: u128, apart: bool, limit: u64) -> Self {
        let ratio: Vec<u128> =
            items.iter().map(|item| ((item.price << PARTS_BITS) / item.rate.max(1)).min(RATIO_MAX)).collect();
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|&i| (ratio[i], i));
        let mut rest: Vec<Vec<(u128, usize)>> = vec![Vec::with_capacity(sites); items.len() + 1];
        for (at, &i) in order.iter().enumerate().rev() {
            let others = rest[at + 1].iter().filter(|(_, site)| *site != items[i].site);
            rest[at] = std::iter::once((ratio[i], items[i].site)).chain(others.copied()).collect();
        }
        let of_set = |set: usize| (0..items.len()).filter(move |&i| items[i].set == set);
        let fastest = |set: usize| of_set(set).max_by_key(|&i| items[i].rate);
        let gift = |set: usize| fastest(set).filter(|_| of_set(set).all(|i| items[i].price == 0));
        let gift = (0..sets.len()).map(gift).collect();
        let (free, chosen) = (sets.iter().map(|set| set.free).collect(), vec![0; items.len()]);
        Self { items, order, rest, gift, free, sets, price, apart, looked: 0, limit, chosen }
    }

    /// How many of each item make a cheap cover; none where there is no such cover.
    pub fn cheap_cover(&mut self, shares: &Shares) -> Result<Option<Vec<u64>>, BoundFault> {
        Ok(self.cheaper(0, 1 << PARTS_BITS, 0, &shares.clone())?.then(|| self.chosen.clone()))
    }

    /// Whether the items from a position on can pass `need` and what the sites have to, the whole staying below the price.
    fn cheaper(&mut self, at: usize, need: u128, spent: u128, shares: &Shares) -> Result<bool, BoundFault> {
        let short: u128 = shares.floors.iter().sum();
        if need == 0 && short == 0 {
            let Ok(second) = second(self.items, self.sets, &self.chosen, self.apart) else { return Ok(false) };
            let cheap = spent + second.map_or(0, |second| self.items[second].price) < self.price;
            if let Some(second) = second {
                self.chosen[second] += u64::from(cheap);
            }
            return Ok(cheap);
        }
        self.looked += 1;
        if self.looked > self.limit {
            let (count, max) = (self.looked.into(), self.limit.into());
            return Err(BoundFault::TooLarge { what: "partial covers of a layer", count, max });
        }
        let Some(&i) = self.order.get(at) else { return Ok(false) };
        // Even in fractions, what is left costs so much.
        let (mut least, mut beyond, mut unmet) = (0, need.saturating_sub(short), short);
        for &(ratio, site) in &self.rest[at] {
            let (floor, top) = (shares.floors[site], shares.tops[site]);
            let more = beyond.min(top.saturating_sub(floor));
            least += (floor + more) * ratio;
            beyond -= more;
            unmet -= floor;
        }
        if beyond > 0 || unmet > 0 || spent + (least >> PARTS_BITS) >= self.price {
            return Ok(false);
        }
        let Item { set, site, rate, price } = self.items[i];
        let free = self.free[set];
        let of_use = shares.floors[site].max(need.min(shares.tops[site])).div_ceil(rate.max(1));
        // More devices than needed only cost more; those that pay nothing are all there.
        let most = free.min(u64::try_from(of_use).unwrap_or(u64::MAX));
        let (least, most) = match self.gift[set] {
            None => (0, most),
            Some(gift) if gift == i => (most, most),
            Some(_) => (0, 0),
        };
        for count in (least..=most).rev() {
            (self.chosen[i], self.free[set]) = (count, free - count);
            let much = rate.saturating_mul(count.into());
            let mut left = shares.clone();
            left.floors[site] = left.floors[site].saturating_sub(much);
            let passed = much.min(left.tops[site]);
            left.tops[site] -= passed;
            let spent = spent.saturating_add(price.saturating_mul(count.into()));
            if self.cheaper(at + 1, need.saturating_sub(passed), spent, &left)? {
                return Ok(true);
            }
        }
        (self.chosen[i], self.free[set]) = (0, free);
        Ok(false)
    }
}
