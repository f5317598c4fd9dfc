//! Bounds by cases: where worths alone leave a gap, plans are divided by how many devices of a class hold few layers, or by
//! how many layers a site passes alone, and each case has worths of its own.
//!
//! In the linear program of [`super::worths`] a device may hold three layers by a half and eight by a half, and a site may
//! pass half a layer. Its duals say how often each cover is used, and so how many devices of a class hold so many layers:
//! where that is no whole number, two cases are made, in each of which it is excluded. This goes on until the worths of
//! each case prove the rate impossible, or until whole numbers are found, which prove nothing against the rate.
//!
//! In a case, what is counted has a value `v` of its own (see the checker's `cases` for the proof):
//!
//! ```text
//! min  sum of u_c N_c + sum of v_j c_j
//! s.t. sum over the devices of a cover of (u_c + sum of v_j) / w  +  sum of v_j, where one site alone  >=  1   for every cover
//!      u_c + sum of v_j >= 0      for every class and number of layers
//! ```

mod prices;

use super::clip::{Span, Weights};
use super::covers::{Cheap, Cover, Item, cheap_covers};
use super::network::Network;
use super::within::{Joined, Range, Shares};
use crate::budget::Budget;
use crate::formulation::program::{Program, Relation};
use crate::formulation::solve::{SolverFault, Verdict, solve};
use crate::tables::Tables;
use prices::{Prices, ways};
use std::collections::BTreeMap;

/// Most rows added in one case.
const ROWS_MAX: usize = 200;
/// Rows added at once of covers that are known.
const ROWS_AT_ONCE: usize = 12;
/// What a cover is paid at most to be of use below a case.
const NEAR: f64 = 1.05;
/// What a known cover may be paid too little before it is taken up.
const SHORT: f64 = 1e-7;
/// Most divisions above a case.
const DEPTH_MAX: usize = 60;
/// Share by which what is paid stays below what is asked for: enough to be seen in whole parts of fixed size.
const MARGIN: f64 = 1e-9;
/// A worth below this is none.
const DUST: f64 = 1e-12;
/// What makes up for rounding.
const ROUNDING: f64 = 1e-11;
/// A number this near to a whole one is whole.
const WHOLE: f64 = 1e-6;

/// Devices of one kind at one site.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Class {
    kind: usize,
    site: usize,
    /// Candidates.
    pub members: Vec<usize>,
    ways: Vec<Way>,
}

/// A way to use a device on a layer. Of one class, heaviest first.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Way {
    held: usize,
    weight: f64,
    rate: f64,
}

/// What a division counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Devices of a class that hold at most so many layers.
    Holding(usize, usize),
    /// Layers that a site passes alone.
    Alone(usize),
    /// The rate of requests that never leave a site.
    Within(usize),
}

/// A division, and the side on which a case lies.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rule {
    counted: Counted,
    /// The most of a first case, the least of a second.
    count: f64,
    more: bool,
}

/// How all plans are divided, and what proves each case.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Case {
    /// First those of which at most so many are counted.
    Divided(Counted, f64, Box<Case>, Box<Case>),
    /// Worths by class, values by division.
    Proved(Vec<f64>, Vec<f64>),
}

/// A bound and the cases that prove it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Proved {
    /// No plan is faster.
    pub bound: f64,
    /// Of the layers.
    pub weights: Weights,
    /// What the cases speak of.
    pub classes: Vec<Class>,
    /// Candidates by site.
    pub sites: Vec<Vec<usize>>,
    /// What joins the sites, where cases speak of it.
    pub joined: Option<Joined>,
    /// The cases.
    pub root: Case,
}

/// What became of one case.
enum Found {
    Proved(Vec<f64>, Vec<f64>),
    /// What is to be told apart: what is counted, and how many there are in fractions.
    Open(Counted, f64),
    /// Nothing speaks against the rate.
    Whole,
}

/// The search for cases.
pub(crate) struct Division {
    classes: Vec<Class>,
    sites: Vec<Vec<usize>>,
    joined: Option<Joined>,
    weights: Weights,
    whole: f64,
    /// Covers, whether they are covers at the rate in question, and the site of each that has one.
    known: Vec<Cover>,
    valid: Vec<bool>,
    site_of: Vec<Option<usize>>,
}

impl Division {
    /// Of the devices at these sites, which may hold layers so.
    pub fn new(
        (tables, network): (&Tables<'_>, &Network),
        sites: Vec<Vec<usize>>,
        spans: &[Vec<Span>],
        weights: Weights,
        rate: f64,
    ) -> Self {
        let mut classes: Vec<Class> = Vec::new();
        for (site, members) in sites.iter().enumerate() {
            for &device in members {
                let kind = tables.candidates[device].kind;
                if let Some(class) = classes.iter_mut().find(|class| (class.kind, class.site) == (kind, site)) {
                    class.members.push(device);
                } else {
                    let (members, ways) = (vec![device], ways(&spans[kind], weights));
                    classes.push(Class { kind, site, members, ways });
                }
            }
        }
        classes.retain(|class| !class.ways.is_empty());
        Self {
            classes,
            joined: Joined::new(tables, network, &sites, rate),
            sites,
            weights,
            whole: weights.whole(network.layers),
            known: Vec::new(),
            valid: Vec::new(),
            site_of: Vec::new(),
        }
    }
    /// Whether what joins the sites matters.
    pub const fn joined(&self) -> bool {
        self.joined.is_some()
    }

    /// Cases that prove a rate impossible, of which so many are looked at; none where that was not found.
    pub fn impossible(
        &mut self,
        rate: f64,
        cases_max: usize,
        budget: &Budget<'_>,
    ) -> Result<Option<Proved>, SolverFault> {
        // The checker asks a billionth above the bound stated.
        let at = rate * (1.0 + 1e-9);
        for position in 0..self.known.len() {
            let devices = self.known[position].iter();
            let carried: f64 = devices.map(|(&(c, way), &n)| self.classes[c].ways[way].rate.min(at) * n as f64).sum();
            self.valid[position] = carried >= at * (1.0 - ROUNDING);
        }
        let mut active = Vec::new();
        for c in 0..self.classes.len() {
            for (position, way) in self.classes[c].ways.clone().iter().enumerate() {
                let needed = (at / way.rate.min(at)).ceil() as usize;
                if needed <= self.classes[c].members.len() {
                    active.push(self.learn(Cover::from([((c, position), needed)])));
                }
            }
        }
        let mut left = cases_max;
        let root = self.divide(at, &mut Vec::new(), active, &mut left, budget)?;
        Ok(root.map(|root| Proved {
            bound: rate,
            weights: self.weights,
            classes: self.classes.clone(),
            sites: self.sites.clone(),
            joined: self.joined.clone(),
            root,
        }))
    }

    fn divide(
        &mut self,
        rate: f64,
        rules: &mut Vec<Rule>,
        mut active: Vec<usize>,
        left: &mut usize,
        budget: &Budget<'_>,
    ) -> Result<Option<Case>, SolverFault> {
        if *left == 0 || rules.len() >= DEPTH_MAX || budget.exhausted().is_some() {
            return Ok(None);
        }
        *left -= 1;
        let (counted, much) = match self.case(rate, rules, &mut active, budget)? {
            None | Some(Found::Whole) => return Ok(None),
            Some(Found::Proved(worths, values)) => return Ok(Some(Case::Proved(worths, values))),
            Some(Found::Open(counted, much)) => (counted, much),
        };
        // Rates need not be whole.
        let within = matches!(counted, Counted::Within(_));
        let most = if within { much } else { much.floor() };
        let mut cases = [None, None];
        // The nearer side first: where nothing speaks against the rate, that is where it shows.
        let more_first = much - much.floor() > 0.5;
        for more in [more_first, !more_first] {
            let count = if more && !within { most + 1.0 } else { most };
            rules.push(Rule { counted, count, more });
            let case = self.divide(rate, rules, active.clone(), left, budget)?;
            rules.pop();
            let Some(case) = case else { return Ok(None) };
            cases[usize::from(more)] = Some(Box::new(case));
        }
        let [Some(first), Some(second)] = cases else { return Ok(None) };
        Ok(Some(Case::Divided(counted, most, first, second)))
    }

    /// Adds a cover of the rate, and returns its position.
    fn learn(&mut self, cover: Cover) -> usize {
        if let Some(known) = self.known.iter().position(|known| *known == cover) {
            self.valid[known] = true;
            return known;
        }
        self.site_of.push(self.site(&cover));
        self.known.push(cover);
        self.valid.push(true);
        self.known.len() - 1
    }

    /// Whether a rule counts a device of a class that holds so many layers.
    fn counts(rule: &Rule, class: usize, held: usize) -> bool {
        matches!(rule.counted, Counted::Holding(of, most) if of == class && held <= most)
    }

    /// The site of a cover; none where it has several.
    fn site(&self, cover: &Cover) -> Option<usize> {
        let mut sites = cover.keys().map(|&(class, _)| self.classes[class].site);
        let first = sites.next()?;
        sites.all(|site| site == first).then_some(first)
    }

    /// Looks for worths that prove one case. `active` are the covers of use above it, and then those of use below it.
    fn case(
        &mut self,
        rate: f64,
        rules: &[Rule],
        active: &mut Vec<usize>,
        budget: &Budget<'_>,
    ) -> Result<Option<Found>, SolverFault> {
        let within = rules.iter().filter_map(|rule| match rule.counted {
            Counted::Within(site) => Some((site, rule.count, rule.more)),
            Counted::Holding(..) | Counted::Alone(_) => None,
        });
        let range = self.joined.as_ref().map(|joined| joined.range(within, rate));
        let (range, shares) = match (&self.joined, range) {
            (Some(joined), Some(Some(range))) => {
                let shares = joined.shares(&range, rate);
                (Some(range), shares)
            }
            // There is no such plan.
            (_, Some(None)) => return Ok(Some(Found::Proved(vec![0.0; self.classes.len()], vec![0.0; rules.len()]))),
            _ => (None, Shares::unknown(self.sites.len())),
        };
        active.retain(|&position| self.carries(position, &shares, rate));
        let mut fit: Vec<bool> =
            (0..self.known.len()).map(|p| self.valid[p] && self.carries(p, &shares, rate)).collect();
        for _ in 0..ROWS_MAX {
            if budget.exhausted().is_some() {
                return Ok(None);
            }
            let Some((at, used)) = self.cheapest_worths(rules, active, budget)? else { return Ok(None) };
            let (worths, values) = at.split_at(self.classes.len());
            let below = |sum: f64| sum < self.whole * (1.0 - MARGIN);
            let sum = |worths: &[f64], values: &[f64]| -> f64 {
                let devices = self.classes.iter().zip(worths).map(|(class, u)| class.members.len() as f64 * u);
                devices.sum::<f64>() + rules.iter().zip(values).map(|(rule, v)| rule.count * v).sum::<f64>()
            };
            let prices = Prices::new(self, rules, worths, values);
            let paid = |position: usize| prices.paid(self, position);
            if !below(sum(worths, values)) {
                let open = self.open(rules, worths, &used, (range.as_ref(), rate));
                active.retain(|&position| paid(position) < NEAR);
                return Ok(Some(open));
            }
            // Those known that are paid too little, the worst first; only then others are searched for.
            let inactive = (0..self.known.len()).filter(|&position| fit[position]);
            let mut short: Vec<(f64, usize)> =
                inactive.map(|position| (paid(position), position)).filter(|(paid, _)| *paid < 1.0 - SHORT).collect();
            short.retain(|(_, position)| !active.contains(position));
            if !short.is_empty() {
                short.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                active.extend(short.into_iter().take(ROWS_AT_ONCE).map(|(_, position)| position));
                continue;
            }
            let Cheap { covers, complete } = self.cheapest_covers(rate, &prices, &shares, budget);
            let least = covers.iter().map(|(paid, _)| *paid).fold(f64::INFINITY, f64::min);
            if complete && least > 0.0 {
                // All rows are homogeneous: what is paid too little for the cheapest cover is made up for by scale.
                let scale = (1.0 + ROUNDING) / least.min(1.0);
                let scaled = |values: &[f64]| values.iter().map(|v| v * scale).collect::<Vec<f64>>();
                let (mut worths, values) = (scaled(worths), scaled(values));
                // Those who pay nothing whatever they hold go on paying nothing: they stand by every cover.
                let counted = |c: usize| rules.iter().any(|rule| Self::counts(rule, c, 0));
                let pays = worths.iter_mut().enumerate().filter(|(c, worth)| **worth > 0.0 || counted(*c));
                pays.for_each(|(_, worth)| *worth += ROUNDING);
                if below(sum(&worths, &values)) {
                    return Ok(Some(Found::Proved(worths, values)));
                }
            }
            let mut new = false;
            for (_, cover) in covers.into_iter().filter(|(paid, _)| *paid < 1.0 - MARGIN) {
                let known = self.learn(cover);
                fit.resize(self.known.len(), true);
                fit[known] = true;
                if !active.contains(&known) {
                    active.push(known);
                    new = true;
                }
            }
            if !new {
                return Ok(complete.then(|| self.open(rules, worths, &used, (range.as_ref(), rate))));
            }
        }
        Ok(None)
    }

    /// What each site has of a cover, no device counting for more than the rate.
    fn by_site(&self, position: usize, rate: f64) -> Vec<f64> {
        let mut had = vec![0.0; self.sites.len()];
        for (&(c, way), &n) in &self.known[position] {
            had[self.classes[c].site] += self.classes[c].ways[way].rate.min(rate) * n as f64;
        }
        had
    }

    /// Whether a known cover passes a rate, and each site its share.
    fn carries(&self, position: usize, shares: &Shares, rate: f64) -> bool {
        let had = self.by_site(position, rate);
        let slack = rate * ROUNDING;
        let floors = had.iter().zip(&shares.floors).all(|(had, floor)| *had >= floor - slack);
        floors && had.iter().zip(&shares.tops).map(|(had, top)| had.min(*top)).sum::<f64>() >= rate - slack
    }

    /// What to divide by: what the covers in use count in fractions.
    fn open(
        &self,
        rules: &[Rule],
        worths: &[f64],
        used: &[(usize, f64)],
        (range, rate): (Option<&Range>, f64),
    ) -> Found {
        if let (Some(joined), Some(range)) = (&self.joined, range) {
            let had: Vec<Vec<f64>> = used.iter().map(|&(position, _)| self.by_site(position, rate)).collect();
            if let Some((site, at)) = joined.divide(range, &had, rate) {
                return Found::Open(Counted::Within(site), at);
            }
        }
        let mut best: Option<(f64, Counted, f64)> = None;
        // What is furthest from whole, and worth most.
        let mut offer = |counted: Counted, much: f64| {
            let off = (much - much.round()).abs();
            let worth = if let Counted::Holding(class, _) = counted { worths[class].max(0.1) } else { 1.0 };
            if off > WHOLE && best.as_ref().is_none_or(|(most, ..)| off * worth > *most) {
                best = Some((off * worth, counted, much));
            }
        };
        for (c, class) in self.classes.iter().enumerate() {
            // Devices by layers held; what a way carries beyond the rate is of no use, so it may hold for others.
            let mut held: BTreeMap<usize, f64> = BTreeMap::new();
            for &(cover, layers) in used {
                for (&(of, way), &n) in self.known[cover].iter().filter(|((of, _), _)| *of == c) {
                    let way = self.classes[of].ways[way];
                    *held.entry(way.held).or_insert(0.0) += layers * n as f64 / way.weight;
                }
            }
            let needed: f64 = held.values().map(|n| (n - WHOLE).ceil()).sum();
            if needed <= class.members.len() as f64 && !rules.iter().any(|rule| Self::counts(rule, c, 0)) {
                continue;
            }
            let mut sum = 0.0;
            for (&most, n) in &held {
                sum += n;
                offer(Counted::Holding(c, most), sum);
            }
        }
        let apart = self.sites.len() > 1 && self.weights == Weights::PLAIN;
        if apart {
            for site in 0..self.sites.len() {
                let alone = used.iter().filter(|&&(cover, _)| self.site_of[cover] == Some(site));
                offer(Counted::Alone(site), alone.map(|(_, layers)| layers).sum());
            }
        }
        best.map_or(Found::Whole, |(_, counted, much)| Found::Open(counted, much))
    }

    /// The worths and values of least sum for which every known cover pays enough; and how many layers use each cover.
    #[allow(clippy::type_complexity)]
    fn cheapest_worths(
        &self,
        rules: &[Rule],
        active: &[usize],
        budget: &Budget<'_>,
    ) -> Result<Option<(Vec<f64>, Vec<(usize, f64)>)>, SolverFault> {
        let mut program = Program::default();
        for class in &self.classes {
            program.column(class.members.len() as f64, 0.0, 2.0 * self.whole, false);
        }
        for rule in rules {
            let most = 2.0 * self.whole;
            let (lower, upper) = match (rule.counted, rule.more) {
                (Counted::Within(_), _) => (0.0, 0.0),
                (_, true) => (-most, 0.0),
                (_, false) => (0.0, most),
            };
            program.column(rule.count, lower, upper, false);
        }
        let first = self.classes.len();
        for &position in active {
            let cover = &self.known[position];
            let mut terms: BTreeMap<usize, f64> = BTreeMap::new();
            for (&(c, way), &n) in cover {
                let way = self.classes[c].ways[way];
                let share = n as f64 / way.weight;
                *terms.entry(c).or_insert(0.0) += share;
                for (j, _) in rules.iter().enumerate().filter(|(_, rule)| Self::counts(rule, c, way.held)) {
                    *terms.entry(first + j).or_insert(0.0) += share;
                }
            }
            for (j, rule) in rules.iter().enumerate() {
                if matches!(rule.counted, Counted::Alone(of) if Some(of) == self.site_of[position]) {
                    terms.insert(first + j, 1.0);
                }
            }
            program.row(terms.into_iter().collect(), Relation::AtLeast, 1.0);
        }
        // What a device pays in all is not negative.
        for rule in rules.iter().filter(|rule| rule.more) {
            if let Counted::Holding(c, held) = rule.counted {
                for held in [held, 0].into_iter().chain(rules.iter().filter_map(|rule| match rule.counted {
                    Counted::Holding(of, most) if of == c && most < held => Some(most),
                    _ => None,
                })) {
                    let counted = rules.iter().enumerate().filter(|(_, rule)| Self::counts(rule, c, held));
                    let terms = counted.map(|(j, _)| (first + j, 1.0)).chain([(c, 1.0)]).collect();
                    program.row(terms, Relation::AtLeast, 0.0);
                }
            }
        }
        let answer = solve(&program, None, 0.0, &Budget { progress: None, ..*budget })?;
        let Some(at) = answer.assignment.filter(|_| answer.verdict == Verdict::Optimal) else { return Ok(None) };
        let clean =
            |(column, value): (&crate::formulation::program::Column, f64)| value.clamp(column.lower, column.upper);
        let mut at: Vec<f64> = program.columns.iter().zip(at).map(clean).collect();
        at[..first].iter_mut().filter(|worth| **worth < DUST).for_each(|worth| *worth = 0.0);
        let used = active.iter().copied().zip(answer.duals).filter(|(_, layers)| *layers > WHOLE).collect();
        Ok(Some((at, used)))
    }

    /// Cheap covers and what they pay, the cheapest among them: of each site whose layers are counted, of several sites, of
    /// any.
    fn cheapest_covers(&self, rate: f64, prices: &Prices, shares: &Shares, budget: &Budget<'_>) -> Cheap {
        let mut items: Vec<Item> = Vec::new();
        for (c, class) in self.classes.iter().enumerate() {
            let mut before: Option<(f64, f64)> = None;
            // Of devices that pay nothing only the fastest way is of use.
            let gift = prices.pays[c].iter().all(|pays| *pays <= 0.0);
            let fastest = class.ways.iter().map(|way| way.rate).fold(0.0, f64::max);
            for (way, of) in class.ways.iter().enumerate().filter(|(_, of)| !gift || of.rate >= fastest) {
                let (pays, rate) = (prices.pays[c][way], of.rate.min(rate));
                if before.is_some_and(|(paid, fastest)| paid == pays && fastest >= rate) {
                    continue;
                }
                before = Some((pays, rate));
                items.push(Item { key: (c, way), site: class.site, price: pays / of.weight, rate, set: c });
            }
        }
        items.sort_by(|a, b| (a.price / a.rate).total_cmp(&(b.price / b.rate)).then(a.key.cmp(&b.key)));
        let free: Vec<usize> = self.classes.iter().map(|class| class.members.len()).collect();
        if prices.let_off.iter().all(|&off| off == 0.0) {
            return cheap_covers(&items, &free, rate, shares, (false, 1.0), budget);
        }
        let mut all = Cheap { covers: Vec::new(), complete: true };
        let mut add = |found: Cheap, off: f64| {
            all.complete &= found.complete;
            all.covers.extend(found.covers.into_iter().map(|(price, cover)| (price + off, cover)));
        };
        for (site, &off) in prices.let_off.iter().enumerate() {
            let here: Vec<Item> = items.iter().filter(|item| item.site == site).copied().collect();
            add(cheap_covers(&here, &free, rate, shares, (false, 1.0 - off), budget), off);
        }
        add(cheap_covers(&items, &free, rate, shares, (true, 1.0), budget), 0.0);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Devices of one kind each, which hold `1..` layers at these rates.
    fn division(layers: usize, kinds: &[(usize, &[f64])]) -> Division {
        let spans = |rates: &[f64]| -> Vec<Span> {
            let of = |(i, &rate): (usize, &f64)| Span { held: i + 1, first: false, last: false, rate };
            rates.iter().enumerate().map(of).collect()
        };
        let mut first = 0;
        let mut classes = Vec::new();
        for (kind, &(count, rates)) in kinds.iter().enumerate() {
            let members = (first..first + count).collect();
            classes.push(Class { kind, site: kind, members, ways: ways(&spans(rates), Weights::PLAIN) });
            first += count;
        }
        Division {
            sites: classes.iter().map(|class| class.members.clone()).collect(),
            joined: None,
            classes,
            weights: Weights::PLAIN,
            whole: layers as f64,
            known: Vec::new(),
            valid: Vec::new(),
            site_of: Vec::new(),
        }
    }

    /// The greatest rate at which devices, each with some layers in a row, cover all of them, by trying everything.
    fn enumerated(layers: usize, kinds: &[(usize, &[f64])]) -> f64 {
        fn go(devices: &[&[f64]], carried: &mut [f64], best: &mut f64) {
            let Some((rates, rest)) = devices.split_first() else {
                *best = best.max(carried.iter().copied().fold(f64::INFINITY, f64::min));
                return;
            };
            for (held, rate) in rates.iter().enumerate().map(|(i, rate)| (i + 1, rate)) {
                for start in 0..=carried.len().saturating_sub(held) {
                    if start + held <= carried.len() {
                        carried[start..start + held].iter_mut().for_each(|sum| *sum += rate);
                        go(rest, carried, best);
                        carried[start..start + held].iter_mut().for_each(|sum| *sum -= rate);
                    }
                }
            }
        }
        let devices: Vec<&[f64]> = kinds.iter().flat_map(|&(count, rates)| std::iter::repeat_n(rates, count)).collect();
        let mut best = 0.0;
        go(&devices, &mut vec![0.0; layers], &mut best);
        best
    }

    #[test]
    fn no_rate_that_enumeration_reaches_is_called_impossible_and_some_that_worths_leave_open_are() {
        let (mut proved, mut divided) = (0, 0);
        let mut draws = crate::throughput::random::Random::new(5);
        for _ in 0..60 {
            let tables: Vec<Vec<f64>> = (0..3)
                .map(|_| {
                    let (speed, most) = (10.0 + 20.0 * draws.real(), 2 + (draws.real() * 3.0) as usize);
                    (1..=most).map(|k| speed / k as f64 * (1.0 - 0.3 * draws.real())).collect()
                })
                .collect();
            let kinds = [(2, tables[0].as_slice()), (1, tables[1].as_slice()), (1, tables[2].as_slice())];
            let best = enumerated(6, &kinds);
            if best <= 0.0 {
                continue;
            }
            let mut search = division(6, &kinds);
            let mut impossible = |rate: f64| search.impossible(rate, 200, &Budget::default()).expect("solves");
            assert!(impossible(best * (1.0 - 1e-6)).is_none(), "{kinds:?} reach {best}");
            for more in [1.0, 1.01, 1.05, 1.2] {
                let found = impossible(best * more);
                proved += usize::from(found.is_some());
                divided += usize::from(matches!(found, Some(Proved { root: Case::Divided(..), .. })));
            }
        }
        assert!(proved > 20 && divided > 0, "{proved} proved, {divided} of them by cases");
    }
}
