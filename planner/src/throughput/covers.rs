//! The cheapest devices that carry a layer together: knapsacks solved by depth-first search.

use super::within::Shares;
use crate::budget::Budget;
use std::collections::BTreeMap;

mod tabled;

/// Partial covers looked at before tables are made.
const QUICK: u64 = 3_000;
/// Most partial covers looked at with tables.
const LOOKED_MAX: u64 = 100_000;
/// Work of looking at one.
const LOOK_WORK: u64 = 20;
/// Steps of tables that are as much work as an entry of a program.
const TABLE_STEPS: u64 = 8;
/// Covers that one search gives at most.
const COVERS_AT_ONCE: usize = 6;

/// Devices of a cover, by class and position of the way.
pub(super) type Cover = BTreeMap<(usize, usize), usize>;

/// A way to use a device of a class on a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    /// Class and position of the way.
    pub key: (usize, usize),
    /// Site of the class.
    pub site: usize,
    /// What it is paid on a layer.
    pub price: f64,
    /// What it adds to the rate of a layer.
    pub rate: f64,
    /// The class, of which there are so many devices.
    pub set: usize,
}

/// Depth-first search for the cheapest cover of a rate.
struct Cheapest<'a> {
    /// Cheapest per rate first.
    items: &'a [Item],
    /// Devices of each class that are still free.
    free: Vec<usize>,
    chosen: Vec<usize>,
    /// Each cheaper than the one before.
    found: Vec<(f64, Vec<usize>)>,
    looked: u64,
    rounding: f64,
    /// Whether a cover must have devices of two sites.
    apart: bool,
    /// What covers that are of interest cost less than.
    below: f64,
    /// What sites have still to pass, and may.
    shares: Shares,
    /// By position: sites that have items from there on, with the price per rate of the cheapest, cheapest first.
    rest: Vec<Vec<(f64, usize)>>,
    /// Items that cost nothing and are all there is of their set: they stand by every cover.
    gifts: Vec<bool>,
}

/// What a search for covers found.
pub(super) struct Cheap {
    /// What each pays; the cheapest among them.
    pub covers: Vec<(f64, Cover)>,
    /// Whether none is cheaper.
    pub complete: bool,
}

/// The cheapest cover that costs less than `below` and the last few found on the way to it, of several sites if so asked, of
/// which each passes its share.
pub(super) fn cheap_covers(
    items: &[Item],
    free: &[usize],
    rate: f64,
    shares: &Shares,
    (apart, below): (bool, f64),
    budget: &Budget<'_>,
) -> Cheap {
    let chosen = vec![0; items.len()];
    let rounding = 1e-12 * rate;
    let mut rest: Vec<Vec<(f64, usize)>> = vec![Vec::new(); items.len() + 1];
    for (i, item) in items.iter().enumerate().rev() {
        let others = rest[i + 1].iter().filter(|(_, site)| *site != item.site);
        rest[i] = std::iter::once((item.price / item.rate, item.site)).chain(others.copied()).collect();
    }
    let gift = |item: &Item| item.price <= 0.0 && items.iter().filter(|other| other.set == item.set).count() == 1;
    let gifts = items.iter().map(gift).collect();
    let (found, left) = (Vec::new(), shares.clone());
    let mut search = Cheapest {
        items,
        free: free.to_vec(),
        chosen,
        found,
        below,
        looked: 0,
        rounding,
        apart,
        shares: left,
        rest,
        gifts,
    };
    search.cover(0, rate, 0.0);
    let quick = search.looked <= QUICK;
    let mut work = search.looked * LOOK_WORK;
    let (found, complete) = if quick {
        (search.found.into_iter().rev().take(COVERS_AT_ONCE).collect(), true)
    } else {
        let (found, complete, looked) = tabled::search(items, free, rate, shares, (apart, below));
        work += tabled::STEPS as u64 / TABLE_STEPS + looked * LOOK_WORK;
        (found, complete)
    };
    budget.did(work);
    let named = |(price, chosen): (f64, Vec<usize>)| {
        let mut cover = Cover::new();
        for (item, n) in items.iter().zip(chosen).filter(|(_, n)| *n > 0) {
            *cover.entry(item.key).or_insert(0) += n;
        }
        (price, cover)
    };
    Cheap { covers: found.into_iter().map(named).collect(), complete }
}

/// What has to stand by the devices chosen, so that they are of several sites: the cheapest of another; `Err` where there is
/// none.
fn second(items: &[Item], chosen: &[usize], apart: bool) -> Result<Option<usize>, ()> {
    let mut sites = (0..items.len()).filter(|&i| chosen[i] > 0).map(|i| items[i].site);
    let Some(first) = sites.next().filter(|_| apart) else { return Ok(None) };
    if sites.any(|site| site != first) {
        return Ok(None);
    }
    let others = (0..items.len()).filter(|&i| items[i].site != first);
    let cheapest = others.min_by(|&a, &b| items[a].price.total_cmp(&items[b].price).then(a.cmp(&b)));
    cheapest.map(Some).ok_or(())
}

impl Cheapest<'_> {
    fn cover(&mut self, i: usize, need: f64, spent: f64) {
        let short: f64 = self.shares.floors.iter().filter(|floor| **floor > self.rounding).sum();
        if need <= self.rounding && short <= 0.0 {
            let Ok(second) = second(self.items, &self.chosen, self.apart) else { return };
            let spent = spent + second.map_or(0.0, |second| self.items[second].price);
            if spent < self.below {
                self.below = spent;
                let mut chosen = self.chosen.clone();
                if let Some(second) = second {
                    chosen[second] += 1;
                }
                self.found.push((spent, chosen));
            }
            return;
        }
        self.looked += 1;
        let Some(&item) = self.items.get(i).filter(|_| self.looked <= QUICK) else { return };
        // Even in fractions the rest costs so much.
        let (mut least, mut beyond, mut unmet) = (spent, (need - short).max(0.0), short);
        for &(ratio, site) in &self.rest[i] {
            let floor = if self.shares.floors[site] > self.rounding { self.shares.floors[site] } else { 0.0 };
            let more = beyond.min((self.shares.tops[site] - floor).max(0.0));
            least += (floor + more) * ratio;
            beyond -= more;
            unmet -= floor;
        }
        if beyond > self.rounding || unmet > self.rounding || least >= self.below {
            return;
        }
        let free = self.free[item.set];
        let (floor, top) = (self.shares.floors[item.site], self.shares.tops[item.site]);
        let most = ((need.min(top).max(floor) / item.rate).ceil() as usize).min(free);
        let least = if self.gifts[i] { most } else { 0 };
        for n in (least..=most).rev() {
            (self.chosen[i], self.free[item.set]) = (n, free - n);
            let much = item.rate * n as f64;
            let passed = much.min(top);
            self.shares.floors[item.site] = (floor - much).max(0.0);
            self.shares.tops[item.site] = top - passed;
            self.cover(i + 1, need - passed, spent + item.price * n as f64);
        }
        (self.chosen[i], self.free[item.set]) = (0, free);
        (self.shares.floors[item.site], self.shares.tops[item.site]) = (floor, top);
    }
}
