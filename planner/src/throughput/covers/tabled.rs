//! The same search with tables of what the rest costs at least.
//!
//! Where sites must pass so much, or no more, prices per rate say little of what is left: the cheapest site may be full
//! already. In parts of the rate, rounded so that no cover is missed, the least cost of passing so much is a table for each
//! site, by dynamic programming over its devices; sites follow one another, so one more table says what those that come
//! later cost at least. With these bounds few partial covers besides the cheapest are looked at.

use super::super::within::Shares;
use super::{COVERS_AT_ONCE, Item, LOOKED_MAX, second};

/// Most and fewest parts of the rate.
const PARTS_MAX: usize = 1024;
const PARTS_MIN: usize = 128;
/// Steps that tables may take, about.
pub(super) const STEPS: usize = 2_000_000;

/// Where a search is: at a group of a site, whose ways from one on may be used, by so many copies.
#[derive(Clone, Copy)]
struct Place {
    position: usize,
    group: usize,
    way: usize,
    left: usize,
}

/// Devices of one set at one site.
struct Group {
    site: usize,
    /// Items, cheapest rate first, and what each passes in parts, rounded up.
    ways: Vec<(usize, usize)>,
    copies: usize,
    /// All of them stand by every cover, because they cost nothing.
    gift: bool,
    /// By number of copies left: least cost of passing so many parts by them and the groups of the site that follow. Where it
    /// ends, more copies change nothing.
    costs: Vec<Vec<f64>>,
}

struct Tabled<'a> {
    items: &'a [Item],
    groups: Vec<Group>,
    /// By position of the order of sites: its first group, its name, and what it passes at least and at most, in parts.
    sites: Vec<(usize, usize, usize, usize)>,
    /// By position: least cost of passing so many parts by that site and those after it.
    later: Vec<Vec<f64>>,
    shares: &'a Shares,
    rounding: f64,
    part: f64,
    apart: bool,
    chosen: Vec<usize>,
    found: Vec<(f64, Vec<usize>)>,
    below: f64,
    looked: u64,
}

/// Covers of a rate cheaper than `below`, the last of them the cheapest; whether all were looked at, and how many were.
pub(super) fn search(
    items: &[Item],
    free: &[usize],
    rate: f64,
    shares: &Shares,
    (apart, below): (bool, f64),
) -> (Vec<(f64, Vec<usize>)>, bool, u64) {
    let mut sets: Vec<(usize, usize)> = items.iter().map(|item| (item.site, item.set)).collect();
    sets.sort_unstable();
    sets.dedup();
    let ways = |set: (usize, usize)| (0..items.len()).filter(move |&i| (items[i].site, items[i].set) == set);
    let steps: usize = sets.iter().map(|&set| free[set.1] * ways(set).count()).sum();
    let parts = (STEPS / steps.max(1)).clamp(PARTS_MIN, PARTS_MAX);
    let part = rate / parts as f64;
    let up = |much: f64| ((much / part - 1e-9).ceil().max(0.0) as usize).min(parts);
    let mut groups: Vec<Group> = Vec::new();
    for set in sets {
        let of: Vec<(usize, usize)> = ways(set).map(|i| (i, up(items[i].rate))).collect();
        let gift = of.len() == 1 && items[of[0].0].price <= 0.0;
        groups.push(Group { site: set.0, ways: of, copies: free[set.1], gift, costs: Vec::new() });
    }
    groups.sort_by_key(|group| (group.site, !group.gift));
    let mut sites: Vec<(usize, usize, usize, usize)> = Vec::new();
    for (g, group) in groups.iter().enumerate() {
        if sites.last().is_none_or(|last| last.1 != group.site) {
            let floor = (shares.floors[group.site] / part + 1e-9).floor().max(0.0) as usize;
            sites.push((g, group.site, floor.min(parts), up(shares.tops[group.site])));
        }
    }
    // A site without devices that has to pass something: there is no cover.
    let rounding = 1e-12 * rate;
    let lacks = |site: usize| shares.floors[site] > rounding && sites.iter().all(|known| known.1 != site);
    if (0..shares.floors.len()).any(lacks) {
        return (Vec::new(), true, 0);
    }
    let nothing = || {
        let mut costs = vec![f64::INFINITY; parts + 1];
        costs[0] = 0.0;
        costs
    };
    let mut later = vec![nothing(); sites.len() + 1];
    for (position, &(first, _, floor, top)) in sites.iter().enumerate().rev() {
        let end = sites.get(position + 1).map_or(groups.len(), |next| next.0);
        let mut rest = nothing();
        for group in groups[first..end].iter_mut().rev() {
            group.costs.push(rest);
            for left in 0..group.copies {
                let before = &group.costs[left];
                let mut costs = before.clone();
                for &(item, step) in &group.ways {
                    let price = items[item].price;
                    for (much, cost) in costs.iter_mut().enumerate().skip(1) {
                        *cost = cost.min(price + before[much.saturating_sub(step)]);
                    }
                }
                let same = costs == *before;
                group.costs.push(costs);
                if same {
                    break;
                }
            }
            rest = group.costs.last().cloned().unwrap_or_default();
        }
        let after = later[position + 1].clone();
        for (need, cost) in later[position].iter_mut().enumerate() {
            let shares = floor..=top.max(floor);
            *cost = shares.map(|share| rest[share] + after[need.saturating_sub(share)]).fold(f64::INFINITY, f64::min);
        }
    }
    let chosen = vec![0; items.len()];
    let (found, looked) = (Vec::new(), 0);
    let mut tabled =
        Tabled { items, groups, sites, later, shares, rounding, part, apart, chosen, found, below, looked };
    tabled.site(0, rate, 0.0);
    let looked = tabled.looked;
    let covers = tabled.found.into_iter().rev().take(COVERS_AT_ONCE).collect();
    (covers, looked <= LOOKED_MAX, looked)
}

impl Tabled<'_> {
    /// Goes on with the next site.
    fn site(&mut self, position: usize, need: f64, spent: f64) {
        let floors: f64 = self.sites[position..].iter().map(|site| self.shares.floors[site.1]).sum();
        if need <= self.rounding && floors <= self.rounding {
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
        } else if position < self.sites.len() {
            let first = self.sites[position].0;
            self.devices(Place { position, group: first, way: 0, left: self.groups[first].copies }, need, 0.0, spent);
        }
    }

    /// What all that is still to pass costs at least, `passed` of it being passed by the site already.
    fn least(&self, at: Place, need: f64, passed: f64) -> f64 {
        let (_, _, floor, top) = self.sites[at.position];
        let had = (passed / self.part - 1e-9).ceil() as usize;
        let need = (need / self.part + 1e-9).floor().max(0.0) as usize;
        let costs = &self.groups[at.group].costs;
        let (here, after) = (&costs[at.left.min(costs.len() - 1)], &self.later[at.position + 1]);
        if at.position + 1 == self.sites.len() {
            return if need > top { f64::INFINITY } else { here[need.max(floor).saturating_sub(had)] };
        }
        let shares = floor..=top.max(floor).min(need.max(floor));
        let cost = |share: usize| here[share.saturating_sub(had)] + after[need.saturating_sub(share)];
        shares.map(cost).fold(f64::INFINITY, f64::min)
    }

    /// Goes on with the devices of a site.
    fn devices(&mut self, at: Place, need: f64, passed: f64, spent: f64) {
        self.looked += 1;
        if self.looked > LOOKED_MAX || spent + self.least(at, need, passed) >= self.below {
            return;
        }
        let (site, group) = (self.sites[at.position].1, &self.groups[at.group]);
        let (floor, top, gift) = (self.shares.floors[site], self.shares.tops[site], group.gift);
        let enough = passed >= floor - self.rounding && passed.min(top) >= need.min(top) - self.rounding;
        if at.left > 0 && !enough {
            for way in at.way..group.ways.len() {
                let item = self.groups[at.group].ways[way].0;
                let Item { price, rate, .. } = self.items[item];
                self.chosen[item] += 1;
                self.devices(Place { left: at.left - 1, way, ..at }, need, passed + rate, spent + price);
                self.chosen[item] -= 1;
            }
            if gift {
                return;
            }
        }
        let next = at.group + 1;
        let end = self.sites.get(at.position + 1).map_or(self.groups.len(), |next| next.0);
        if next < end && !enough {
            self.devices(Place { group: next, way: 0, left: self.groups[next].copies, ..at }, need, passed, spent);
        } else if passed >= floor - self.rounding {
            self.site(at.position + 1, need - passed.min(top), spent);
        }
    }
}
