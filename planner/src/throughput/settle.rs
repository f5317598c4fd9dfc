//! Devices for the intervals of a plan where some pairs of devices have slower ways than others, or none.
//!
//! Searches for plans know devices by kind and site, and sites by the ways between them: where single ways are missing,
//! they would know nearly as many sites as devices. So they look at the [even](Network::evened) network first, in which
//! every pair has the fastest way between its two sites. What a plan passes there from stage to stage is then to pass
//! on the true ways too: devices of one kind change places, with each other or with such as hold nothing, and runs of
//! stages change places in the order of layers, until at every border between stages what ends there can hand over all
//! that it passed ([`Seats::lack`]), by annealing (Kirkpatrick, Gelatt, Vecchi 1983). A border is a small flow problem
//! of its own, so that a change costs a few of them.

use super::Flows;
use super::network::Network;
use super::random::Random;
use super::replay::Carried;
use crate::budget::Budget;
use crate::formulation::solve::SolverFault;
use crate::latency::chains::Link;
use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

/// Changes tried for one plan.
const CHANGES: usize = 40_000;
/// Pairs of devices at borders looked at, after which the budget is asked again.
const ASKED: u64 = 10_000;
/// Work of one of them, and of what a change takes beside them.
const PAIR_WORK: u64 = 4;
const CHANGE_PAIRS: u64 = 8;
/// Share of the rate by which a change may make things worse at first, in one try after another, and what of that is left
/// at last.
const HOT: [f64; 3] = [0.2, 0.03, 0.1];
const COOLED: f64 = 0.07;
/// One change in so many is one of the order of layers.
const ORDERS: usize = 6;
/// What makes up for rounding, as a share of the rate.
const ROUNDING: f64 = 1e-9;
/// Plans kept for being settled, and how many of them may be of one rate.
const KEPT: usize = 12;
const ALIKE: usize = 3;

/// Plans that searches have looked at, and what they carry on even ways.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<Vec<(Vec<Link>, Carried)>>);

impl Seen {
    /// Notes a plan, if it is among the best.
    pub fn note(&self, placement: &[Link], carried: &Carried) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let alike = |known: f64| (known - carried.rate).abs() <= ROUNDING * carried.rate;
        if carried.rate <= 0.0 || seen.iter().filter(|(_, known)| alike(known.rate)).count() >= ALIKE {
            return;
        }
        let position = seen.partition_point(|(_, known)| known.rate >= carried.rate);
        seen.insert(position, (placement.to_vec(), carried.clone()));
        seen.truncate(KEPT);
    }

    /// The plans noted since the last call, the fastest first.
    pub fn take(&self) -> Vec<(Vec<Link>, Carried)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Who holds what, and what passes at each border.
struct Seats<'a> {
    flows: &'a Flows<'a>,
    links: Vec<Link>,
    /// What each passes.
    passes: Vec<f64>,
    /// The position in `links` of each candidate that holds something.
    seat: Vec<Option<usize>>,
    /// Positions of those that end at a border, and of those that begin there.
    ended: Vec<Vec<usize>>,
    begun: Vec<Vec<usize>>,
    lacks: Vec<f64>,
    dust: f64,
    /// Pairs looked at since the budget was asked.
    looked: Cell<u64>,
}

impl<'a> Seats<'a> {
    fn new(flows: &'a Flows<'a>, placement: &[Link], carried: &Carried) -> Self {
        let mut passes = vec![0.0; placement.len()];
        for path in &carried.paths {
            path.stops.iter().for_each(|&stop| passes[stop] += path.rate);
        }
        let mut seats = Self {
            flows,
            links: placement.to_vec(),
            passes,
            seat: vec![None; flows.tables.candidates.len()],
            ended: Vec::new(),
            begun: Vec::new(),
            lacks: Vec::new(),
            dust: ROUNDING * carried.rate,
            looked: Cell::new(0),
        };
        placement.iter().enumerate().for_each(|(i, link)| seats.seat[link.0] = Some(i));
        seats.sort();
        seats
    }

    const fn network(&self) -> &'a Network {
        self.flows.network
    }

    /// Finds out anew who begins and ends where, and what each border lacks.
    fn sort(&mut self) {
        let layers = self.network().layers;
        self.ended = vec![Vec::new(); layers + 1];
        self.begun = vec![Vec::new(); layers + 1];
        for (i, &(_, start, end)) in self.links.iter().enumerate() {
            self.begun[start].push(i);
            self.ended[end].push(i);
        }
        self.lacks = (0..=layers).map(|border| self.lack(border)).collect();
    }

    /// What passed at a border and cannot on the true ways.
    fn lack(&self, border: usize) -> f64 {
        let (ended, begun, network) = (&self.ended[border], &self.begun[border], self.network());
        self.looked.set(self.looked.get() + (ended.len().max(1) * begun.len().max(1)) as u64);
        let over = |i: &usize, way: f64| (self.passes[*i] - way).max(0.0);
        if border == 0 {
            return begun.iter().map(|i| over(i, network.source[self.links[*i].0])).sum();
        }
        if border == network.layers {
            return ended.iter().map(|i| over(i, network.sink[self.links[*i].0])).sum();
        }
        if let ([from], [to]) = (&ended[..], &begun[..]) {
            let much = self.passes[*from].min(self.passes[*to]);
            return (much - network.pair[self.links[*from].0][self.links[*to].0]).max(0.0);
        }
        let supply: Vec<f64> = ended.iter().map(|&i| self.passes[i]).collect();
        let demand: Vec<f64> = begun.iter().map(|&i| self.passes[i]).collect();
        let way = |i: usize, j: usize| network.pair[self.links[ended[i]].0][self.links[begun[j]].0];
        let all = supply.iter().sum::<f64>().min(demand.iter().sum());
        (all - handed(supply, demand, way, self.dust)).max(0.0)
    }

    fn lacking(&self) -> f64 {
        self.lacks.iter().sum()
    }

    /// Gives the seat of `one` to `other` and the other way round; either may have none. Returns what all borders lack
    /// more than before.
    fn swap(&mut self, one: usize, other: usize) -> f64 {
        let seats = [self.seat[one], self.seat[other]];
        for (seat, device) in seats.into_iter().zip([other, one]) {
            self.seat[device] = seat;
            if let Some(seat) = seat {
                self.links[seat].0 = device;
            }
        }
        let mut borders: Vec<usize> =
            seats.into_iter().flatten().flat_map(|seat| [self.links[seat].1, self.links[seat].2]).collect();
        borders.sort_unstable();
        borders.dedup();
        let mut more = 0.0;
        for border in borders {
            let lack = self.lack(border);
            more += lack - self.lacks[border];
            self.lacks[border] = lack;
        }
        more
    }

    /// Lets the stages of two neighbouring runs of layers, which nothing overlaps, change places: what was held from
    /// `a` to `b` comes after what was held from `b` to `c`. False, and nothing done, where a stage passes less there.
    fn exchange(&mut self, [a, b, c]: [usize; 3]) -> bool {
        let moved = |&(device, start, end): &Link| match start {
            start if (a..b).contains(&start) => (device, start + c - b, end + c - b),
            start if (b..c).contains(&start) => (device, start + a - b, end + a - b),
            _ => (device, start, end),
        };
        let links: Vec<Link> = self.links.iter().map(moved).collect();
        let tables = self.flows.tables;
        let carries = |(&(device, start, end), &passes): (&Link, &f64)| {
            self.network().stage[tables.candidates[device].kind].at(start, end) >= passes - self.dust
        };
        if !links.iter().zip(&self.passes).all(carries) {
            return false;
        }
        self.links = links;
        self.sort();
        true
    }

    /// Whether every pinned device holds something, and no shared memory is overdrawn.
    fn allowed(&self) -> bool {
        self.flows.pins(&self.links) && self.flows.fits(&self.links)
    }

    /// Borders at which nothing goes on, the first and the last among them.
    fn cuts(&self) -> Vec<usize> {
        let mut open = vec![false; self.network().layers + 1];
        for &(_, start, end) in &self.links {
            open[start + 1..end].fill(true);
        }
        (0..open.len()).filter(|&border| !open[border]).collect()
    }

    fn anneal(&mut self, hot: f64, random: &mut Random, budget: &Budget<'_>) {
        let tables = self.flows.tables;
        let alike = |device: usize| -> Vec<usize> {
            let of_kind = |other: &usize| tables.candidates[*other].kind == tables.candidates[device].kind;
            (0..tables.candidates.len()).filter(of_kind).collect()
        };
        let alike: Vec<Vec<usize>> = (0..tables.candidates.len()).map(alike).collect();
        let rate = self.dust / ROUNDING;
        let mut best = (self.lacking(), self.links.clone());
        let mut lacking = best.0;
        for change in 0..CHANGES {
            self.looked.set(self.looked.get() + CHANGE_PAIRS);
            if self.looked.get() >= ASKED {
                budget.did(self.looked.replace(0) * PAIR_WORK);
                if budget.exhausted().is_some() {
                    break;
                }
            }
            let short: Vec<usize> = (0..self.lacks.len()).filter(|&border| self.lacks[border] > self.dust).collect();
            if short.is_empty() {
                return;
            }
            let border = short[random.below(short.len())];
            let heat = rate * hot * COOLED.powf(change as f64 / CHANGES as f64);
            let stays = |more: f64, random: &mut Random| more <= 0.0 || random.real() < (-more / heat).exp();
            if random.below(ORDERS) == 0 {
                let cuts = self.cuts();
                let mut three = [border, cuts[random.below(cuts.len())], cuts[random.below(cuts.len())]];
                three.sort_unstable();
                let before = self.links.clone();
                if cuts.binary_search(&border).is_ok()
                    && three[0] < three[1]
                    && three[1] < three[2]
                    && self.exchange(three)
                    && !(stays(self.lacking() - lacking, random) && self.allowed())
                {
                    self.links = before;
                    self.sort();
                }
            } else {
                let here = self.ended[border].len() + self.begun[border].len();
                let chosen = random.below(here.max(1));
                let Some(&seat) = self.ended[border].iter().chain(&self.begun[border]).nth(chosen) else { continue };
                let device = self.links[seat].0;
                let other = alike[device][random.below(alike[device].len())];
                if other == device {
                    continue;
                }
                let more = self.swap(device, other);
                if !(stays(more, random) && self.allowed()) {
                    self.swap(device, other);
                }
            }
            lacking = self.lacking();
            if lacking < best.0 {
                best = (lacking, self.links.clone());
            }
        }
        self.links = best.1;
        self.seat.fill(None);
        self.links.iter().enumerate().for_each(|(i, link)| self.seat[link.0] = Some(i));
        self.sort();
    }
}

/// The most that passes from some to others, none passing more than it has or may take, nor a pair more than its way.
fn handed(mut supply: Vec<f64>, mut demand: Vec<f64>, way: impl Fn(usize, usize) -> f64, dust: f64) -> f64 {
    let (n, m) = (supply.len(), demand.len());
    let mut given = vec![vec![0.0; m]; n];
    let mut all = 0.0;
    loop {
        // A path of pairs to fill and, backwards, pairs to empty, from one with something left to one with room left.
        let mut from: Vec<Option<usize>> = vec![None; m];
        let mut back: Vec<Option<usize>> = vec![None; n];
        let mut reached: Vec<bool> = supply.iter().map(|&left| left > dust).collect();
        let mut open: Vec<usize> = (0..n).filter(|&i| reached[i]).collect();
        let mut last = None;
        while let Some(i) = open.pop() {
            for j in 0..m {
                if from[j].is_some() || way(i, j) - given[i][j] <= dust {
                    continue;
                }
                from[j] = Some(i);
                if demand[j] > dust {
                    last = Some(j);
                    open.clear();
                    break;
                }
                for k in 0..n {
                    if !reached[k] && given[k][j] > dust {
                        (reached[k], back[k]) = (true, Some(j));
                        open.push(k);
                    }
                }
            }
        }
        let Some(last) = last else { return all };
        let mut path = Vec::new();
        let mut j = last;
        let first = loop {
            let i = from[j].unwrap_or_default();
            path.push((i, j));
            match back[i] {
                Some(before) => j = before,
                None => break i,
            }
        };
        let mut much = supply[first].min(demand[last]);
        for (position, &(i, j)) in path.iter().enumerate() {
            much = much.min(way(i, j) - given[i][j]);
            if position + 1 < path.len() {
                much = much.min(given[i][path[position + 1].1]);
            }
        }
        for (position, &(i, j)) in path.iter().enumerate() {
            given[i][j] += much;
            if position + 1 < path.len() {
                given[i][path[position + 1].1] -= much;
            }
        }
        supply[first] -= much;
        demand[last] -= much;
        all += much;
    }
}

/// The best plan on the true ways that devices for the stages of these, fast on even ones, were found for, if it
/// carries more than `rate`.
pub(super) fn settled(
    flows: &Flows<'_>,
    plans: Vec<(Vec<Link>, Carried)>,
    mut rate: f64,
    random: &mut Random,
    budget: &Budget<'_>,
) -> Result<Option<(Vec<Link>, Carried)>, SolverFault> {
    let mut best = None;
    for (placement, carried) in plans {
        if carried.rate <= rate {
            break;
        }
        // As it is where time is up.
        let mut seats = Seats::new(flows, &placement, &carried);
        for hot in HOT {
            if seats.lacking() > seats.dust {
                seats.anneal(hot, random, budget);
            }
        }
        if !seats.allowed() {
            continue;
        }
        let carried = flows.carried(&seats.links)?;
        if carried.rate > rate {
            rate = carried.rate;
            best = Some((seats.links, carried));
        }
        if budget.exhausted().is_some() {
            break;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least cut between what is had and what is taken, over all of them.
    fn cut(supply: &[f64], demand: &[f64], ways: &[Vec<f64>]) -> f64 {
        let (n, m) = (supply.len(), demand.len());
        let cuts = (0..1_u32 << (n + m)).map(|near| {
            let near = |node: usize| near >> node & 1 == 1;
            let mut sum = 0.0;
            for i in 0..n {
                sum += if near(i) { 0.0 } else { supply[i] };
                sum += (0..m).filter(|&j| near(i) && !near(n + j)).map(|j| ways[i][j]).sum::<f64>();
            }
            sum + (0..m).filter(|&j| near(n + j)).map(|j| demand[j]).sum::<f64>()
        });
        cuts.fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn what_is_handed_over_is_what_the_least_cut_lets_through() {
        let mut random = Random::new(3);
        let (mut open, mut short) = (0, 0);
        for _ in 0..400 {
            let (n, m) = (1 + random.below(4), 1 + random.below(4));
            let mut draws =
                |count: usize, most: usize| -> Vec<f64> { (0..count).map(|_| random.below(most) as f64).collect() };
            let (supply, demand) = (draws(n, 9), draws(m, 9));
            let ways: Vec<Vec<f64>> = (0..n).map(|_| draws(m, 5)).collect();
            let passed = handed(supply.clone(), demand.clone(), |i, j| ways[i][j], 1e-9);
            assert_eq!(passed, cut(&supply, &demand, &ways), "{supply:?} {demand:?} {ways:?}");
            let most = supply.iter().sum::<f64>().min(demand.iter().sum());
            open += usize::from(passed == most);
            short += usize::from(passed < most);
        }
        assert!(open > 50 && short > 50, "{open} {short}");
    }

    #[test]
    fn of_the_plans_seen_the_fastest_are_kept_few_of_them_alike() {
        let seen = Seen::default();
        for rate in [3.0, 9.0, 9.0, 9.0, 9.0, 0.0].into_iter().chain((0..20).map(|i| 10.0 + f64::from(i))) {
            seen.note(&[], &Carried { rate, paths: Vec::new() });
        }
        let rates = |seen: &Seen| -> Vec<f64> { seen.take().iter().map(|(_, carried)| carried.rate).collect() };
        assert_eq!(rates(&seen), (18..30).rev().map(f64::from).collect::<Vec<_>>());
        for rate in [3.0, 9.0, 9.0, 9.0, 9.0, 0.0] {
            seen.note(&[], &Carried { rate, paths: Vec::new() });
        }
        assert_eq!(rates(&seen), [9.0, 9.0, 9.0, 3.0]);
    }
}
