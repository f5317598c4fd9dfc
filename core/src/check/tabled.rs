//! The search for a cheap cover with tables of what the rest costs at least.
//!
//! Where sites must pass so much, or no more, prices per rate say little of what is left, and where devices are of many
//! kinds, many partial covers cost about the same. In coarse parts of the rate, the least that passing `x` parts costs is a
//! table, by dynamic programming over the devices of a site:
//!
//! ```text
//! E(j copies, x) = min(E(j - 1, x), price of a way + E(j - 1, x - its parts))        E(0, x) = table of the sets that follow
//! V(site, x)     = min over what the site counts for, c, of E(all its sets, c) + V(next site, x - c)
//! ```
//!
//! What a device passes is rounded up to whole parts, what is still needed and a floor down, a top up; so no table exceeds
//! the cost of any cover, and what a bound by tables excludes is not there. The search itself is in the parts that it is
//! asked in.

use super::certificate::BoundFault;
use super::floors::{Item, Shares, second};
use super::worths::{PARTS_BITS, Set};

/// Most and fewest coarse parts of the rate, as powers of two.
const BITS_MAX: u32 = 10;
const BITS_MIN: u32 = 7;
/// Steps that tables of one search may take, about.
const STEPS: u64 = 1_000_000;
/// Steps in tables that count as one partial cover looked at.
const STEPS_EACH: u64 = 40;
/// What cannot be had.
const NEVER: u64 = u64::MAX;

/// Equal devices at one site.
struct Group {
    set: usize,
    /// Ways to use one: an item, and what it passes in coarse parts.
    ways: Vec<(usize, usize)>,
    copies: usize,
    /// All of them stand by every cover.
    gift: bool,
    /// By copies left: the least cost of so many coarse parts by them and the groups of the site that follow. Where it ends,
    /// more copies change nothing.
    costs: Vec<Vec<u64>>,
}

/// A site and the groups that lie there.
struct Site {
    site: usize,
    first: usize,
    end: usize,
    /// In coarse parts.
    floor: usize,
    top: usize,
}

/// Where the search is: at a group of a site, whose ways from one on may be used, by so many copies.
#[derive(Clone, Copy)]
struct Place {
    position: usize,
    group: usize,
    way: usize,
    left: usize,
}

/// The search.
pub(super) struct Tabled<'a> {
    items: &'a [Item],
    sets: &'a [Set],
    shares: &'a Shares,
    groups: Vec<Group>,
    sites: Vec<Site>,
    /// By position: least cost of so many coarse parts by that site and those after it.
    later: Vec<Vec<u64>>,
    /// Bits by which coarse parts are coarser.
    shift: u32,
    price: u128,
    /// Whether a cover of one part alone is none: then the cheapest item of another stands by it.
    apart: bool,
    chosen: Vec<u64>,
    /// Partial covers looked at so far, tables included.
    pub looked: u64,
    limit: u64,
}

/// So much in coarse parts, rounded up.
fn up(much: u128, shift: u32) -> usize {
    let most = 1_usize << (PARTS_BITS - shift);
    usize::try_from(much.div_ceil(1 << shift)).map_or(most, |parts| parts.min(most))
}

/// So much in coarse parts, rounded down.
fn down(much: u128, shift: u32) -> usize {
    let most = 1_usize << (PARTS_BITS - shift);
    usize::try_from(much >> shift).map_or(most, |parts| parts.min(most))
}

/// What a table begins with: nothing costs nothing.
fn nothing(shift: u32) -> Vec<u64> {
    let mut costs = vec![NEVER; (1 << (PARTS_BITS - shift)) + 1];
    costs[0] = 0;
    costs
}

impl<'a> Tabled<'a> {
    /// Of items of these sets, for covers that cost less than `price`, where sites pass such shares.
    pub fn new(
        items: &'a [Item],
        sets: &'a [Set],
        shares: &'a Shares,
        (price, apart): (u128, bool),
        limit: u64,
    ) -> Self {
        let of_set = |set: usize| (0..items.len()).filter(move |&i| items[i].set == set);
        let steps: u64 = (0..sets.len()).map(|set| sets[set].free.saturating_mul(of_set(set).count() as u64)).sum();
        let fits = |bits: &u32| steps.saturating_mul(1 << bits) <= STEPS;
        let shift = PARTS_BITS - (BITS_MIN..=BITS_MAX).rev().find(fits).unwrap_or(BITS_MIN);
        let mut groups: Vec<(usize, Group)> = Vec::new();
        for (set, held) in sets.iter().enumerate() {
            let Some(first) = of_set(set).next() else { continue };
            let gift = of_set(set).all(|i| items[i].price == 0);
            let fastest = of_set(set).max_by_key(|&i| items[i].rate).filter(|_| gift);
            let ways = of_set(set).filter(|&i| fastest.is_none_or(|fastest| fastest == i));
            let ways = ways.map(|i| (i, up(items[i].rate, shift))).collect();
            let copies = usize::try_from(held.free).unwrap_or(usize::MAX);
            groups.push((items[first].site, Group { set, ways, copies, gift, costs: Vec::new() }));
        }
        groups.sort_by_key(|(site, group)| (*site, !group.gift, group.set));
        let mut sites: Vec<Site> = Vec::new();
        for site in 0..shares.floors.len() {
            let here: Vec<usize> = (0..groups.len()).filter(|&g| groups[g].0 == site).collect();
            let (first, end) = (here.first().copied().unwrap_or(0), here.last().map_or(0, |last| last + 1));
            let (floor, top) = (down(shares.floors[site], shift), up(shares.tops[site], shift));
            if !here.is_empty() || shares.floors[site] > 0 {
                sites.push(Site { site, first, end, floor, top });
            }
        }
        let groups = groups.into_iter().map(|(_, group)| group).collect();
        let later = vec![nothing(shift); sites.len() + 1];
        let chosen = vec![0; items.len()];
        let mut search =
            Self { items, sets, shares, groups, sites, later, shift, price, apart, chosen, looked: 0, limit };
        search.tabulate();
        search
    }

    /// Makes the tables.
    fn tabulate(&mut self) {
        let mut steps = 0_u64;
        for position in (0..self.sites.len()).rev() {
            let Site { first, end, floor, top, .. } = self.sites[position];
            let mut rest = nothing(self.shift);
            for group in self.groups[first..end].iter_mut().rev() {
                group.costs.push(rest);
                let mut left = 0;
                while left < group.copies {
                    let before = &group.costs[left];
                    let mut costs = before.clone();
                    for &(item, step) in &group.ways {
                        let price = u64::try_from(self.items[item].price).unwrap_or(NEVER);
                        for (much, cost) in costs.iter_mut().enumerate().skip(1) {
                            *cost = (*cost).min(price.saturating_add(before[much.saturating_sub(step)]));
                        }
                    }
                    steps += (group.ways.len() * costs.len()) as u64;
                    left += 1;
                    let same = costs == *before;
                    group.costs.push(costs);
                    if same {
                        break;
                    }
                }
                rest = group.costs[left].clone();
            }
            let after = &self.later[position + 1];
            let least = |need: usize| {
                let count = |share: usize| rest[share].saturating_add(after[need.saturating_sub(share)]);
                (floor..=top.max(floor).min(need.max(floor))).map(count).min().unwrap_or(NEVER)
            };
            let costs: Vec<u64> = (0..rest.len()).map(least).collect();
            steps += (costs.len() * costs.len() / 2) as u64;
            self.later[position] = costs;
        }
        self.looked = steps / STEPS_EACH;
    }

    /// How many of each item make a cheap cover; none where there is no such cover.
    pub fn cheap_cover(&mut self) -> Result<Option<Vec<u64>>, BoundFault> {
        Ok(self.site(0, 1 << PARTS_BITS, 0)?.then(|| self.chosen.clone()))
    }

    /// Whether the sites from a position on can pass `need` and their floors, the whole staying below the price.
    fn site(&mut self, position: usize, need: u128, spent: u128) -> Result<bool, BoundFault> {
        if need == 0 && self.sites[position..].iter().all(|site| self.shares.floors[site.site] == 0) {
            let Ok(second) = second(self.items, self.sets, &self.chosen, self.apart) else { return Ok(false) };
            let cheap = spent + second.map_or(0, |second| self.items[second].price) < self.price;
            if let Some(second) = second {
                self.chosen[second] += u64::from(cheap);
            }
            return Ok(cheap);
        }
        let Some(&Site { first, end, site, .. }) = self.sites.get(position) else { return Ok(false) };
        if first == end {
            // Nobody is there to pass the floor.
            return if self.shares.floors[site] > 0 { Ok(false) } else { self.site(position + 1, need, spent) };
        }
        let left = self.groups[first].copies;
        self.devices(Place { position, group: first, way: 0, left }, need, 0, spent)
    }

    /// What all that is still to pass costs at least, `passed` of it being passed by the site already.
    fn least(&self, at: Place, need: u128, passed: u128) -> u64 {
        let Site { floor, top, .. } = self.sites[at.position];
        let (had, need) = (up(passed, self.shift), down(need, self.shift));
        let costs = &self.groups[at.group].costs;
        let (here, after) = (&costs[at.left.min(costs.len() - 1)], &self.later[at.position + 1]);
        if at.position + 1 == self.sites.len() {
            return if need > top { NEVER } else { here[need.max(floor).saturating_sub(had)] };
        }
        let count = |share: usize| here[share.saturating_sub(had)].saturating_add(after[need.saturating_sub(share)]);
        (floor..=top.max(floor).min(need.max(floor))).map(count).min().unwrap_or(NEVER)
    }

    /// Goes on with the devices of a site, which pass `passed` of the `need` that there is for it and those after it.
    fn devices(&mut self, at: Place, need: u128, passed: u128, spent: u128) -> Result<bool, BoundFault> {
        // Where sites follow, what is least takes a look at each share that this one may pass.
        let Site { floor, top, .. } = self.sites[at.position];
        let shares = if at.position + 1 < self.sites.len() { top.saturating_sub(floor) as u64 / STEPS_EACH } else { 0 };
        self.looked += 1 + shares;
        if self.looked > self.limit {
            let (count, max) = (self.looked.into(), self.limit.into());
            return Err(BoundFault::TooLarge { what: "partial covers of a layer", count, max });
        }
        if spent + u128::from(self.least(at, need, passed)) >= self.price {
            return Ok(false);
        }
        let Site { site, end, .. } = self.sites[at.position];
        let (floor, top) = (self.shares.floors[site], self.shares.tops[site]);
        // More devices than needed only cost more; those that pay nothing are all there.
        let enough = passed >= floor && passed.min(top) >= need.min(top);
        if at.left > 0 && !enough {
            for way in at.way..self.groups[at.group].ways.len() {
                let item = self.groups[at.group].ways[way].0;
                let Item { rate, price, .. } = self.items[item];
                self.chosen[item] += 1;
                let place = Place { left: at.left - 1, way, ..at };
                if self.devices(place, need, passed + rate, spent + price)? {
                    return Ok(true);
                }
                self.chosen[item] -= 1;
            }
            if self.groups[at.group].gift {
                return Ok(false);
            }
        }
        let group = at.group + 1;
        if group < end && !enough {
            let left = self.groups[group].copies;
            return self.devices(Place { group, way: 0, left, ..at }, need, passed, spent);
        }
        if passed < floor { Ok(false) } else { self.site(at.position + 1, need.saturating_sub(passed.min(top)), spent) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::floors::Floored;
    use super::*;

    /// Whether some numbers of items, within their sets, make a cover that costs less, by trying all of them.
    fn enumerated(items: &[Item], sets: &[Set], shares: &Shares, price: u128, apart: bool) -> bool {
        fn go(chosen: &mut Vec<u64>, (items, sets): (&[Item], &[Set]), covers: &dyn Fn(&[u64]) -> bool) -> bool {
            if chosen.len() == items.len() {
                return covers(chosen);
            }
            let set = items[chosen.len()].set;
            let used: u64 = chosen.iter().zip(items).filter(|(_, item)| item.set == set).map(|(n, _)| n).sum();
            (0..=sets[set].free - used).any(|count| {
                chosen.push(count);
                let found = go(chosen, (items, sets), covers);
                chosen.pop();
                found
            })
        }
        let covers = |chosen: &[u64]| {
            let mut passed = vec![0_u128; shares.floors.len()];
            let (mut cost, mut parts) = (0, Vec::new());
            for (item, &count) in items.iter().zip(chosen).filter(|(_, count)| **count > 0) {
                passed[item.site] += item.rate * u128::from(count);
                cost += item.price * u128::from(count);
                parts.push(sets[item.set].part);
            }
            let counted: u128 = passed.iter().zip(&shares.tops).map(|(passed, top)| passed.min(top)).sum();
            let alone = parts.iter().all(|part| part.is_some() && *part == parts[0]);
            let floors = passed.iter().zip(&shares.floors).all(|(passed, floor)| passed >= floor);
            floors && counted >= 1 << PARTS_BITS && cost < price && !(apart && alone)
        };
        go(&mut Vec::new(), (items, sets), &covers)
    }

    #[test]
    fn both_searches_find_a_cheap_cover_exactly_where_enumeration_does() {
        let mut state = 7_u64;
        let mut below = |most: u128| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (u128::from(state >> 33) * most) >> 31
        };
        let whole = 1_u128 << PARTS_BITS;
        let mut cheap = 0;
        for _ in 0..400 {
            let (mut items, mut sets, sites) = (Vec::new(), Vec::new(), 1 + below(2) as usize);
            for set in 0..1 + below(3) as usize {
                let (site, gift) = (below(sites as u128) as usize, below(6) == 0);
                sets.push(Set { free: 1 + below(3) as u64, part: (below(4) > 0).then_some(site) });
                for _ in 0..=below(3) {
                    let price = if gift { 0 } else { below(whole) };
                    items.push(Item { set, site, rate: 1 + below(whole), price });
                }
            }
            let mut share = |most: u128| if below(2) == 0 { 0 } else { below(most) };
            let floors: Vec<u128> = (0..sites).map(|_| share(whole / 2)).collect();
            let tops = floors.iter().map(|floor| whole - share(whole - floor)).collect();
            let shares = Shares { floors, tops };
            let (price, apart) = (1 + below(2 * whole), below(2) == 0);
            let expected = enumerated(&items, &sets, &shares, price, apart);
            let tabled = Tabled::new(&items, &sets, &shares, (price, apart), 1 << 20).cheap_cover();
            let plain = Floored::new(&items, &sets, sites, price, apart, 1 << 20).cheap_cover(&shares);
            assert_eq!(tabled.map(|found| found.is_some()), Ok(expected), "{price} {apart}");
            assert_eq!(plain.map(|found| found.is_some()), Ok(expected), "{price} {apart}");
            cheap += usize::from(expected);
        }
        assert!((40..360).contains(&cheap), "{cheap} had one");
    }
}
