//! What sites pass of the layers of a plan, where what joins them is slow.
//!
//! Requests that visit several sites use what joins the sites at least once, so they are few where it is slow; the others
//! never leave a site. Bounds on the rates within sites say how much of each layer every site passes at least, and at most;
//! the checker's `cases` has the proof.

use super::network::Network;
use crate::tables::Tables;
use isotherm_core::check::crossing_rates;
use isotherm_core::plan::{Capacity, Crossing};
use std::collections::{BTreeMap, BTreeSet};

/// Sites and what joins them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Joined {
    /// Most that requests that visit several sites pass in all.
    all: f64,
    /// The same of those that visit a site.
    at: Vec<f64>,
    /// Both as a certificate names them.
    pub named: Crossing,
}

/// Rates of the requests that never leave a site, by site.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Range {
    /// At least.
    pub least: Vec<f64>,
    /// At most.
    pub most: Vec<f64>,
}

/// What sites pass of each layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shares {
    /// At least.
    pub floors: Vec<f64>,
    /// At most.
    pub tops: Vec<f64>,
}

impl Shares {
    /// Where nothing is known of any of so many sites.
    pub fn unknown(sites: usize) -> Self {
        Self { floors: vec![0.0; sites], tops: vec![f64::INFINITY; sites] }
    }
}

impl Joined {
    /// What joins these sites; none where it is not known by shared capacities, or too fast to matter to plans of a rate.
    pub fn new(tables: &Tables<'_>, network: &Network, sites: &[Vec<usize>], rate: f64) -> Option<Self> {
        let mut site_of = vec![0; tables.candidates.len()];
        for (site, members) in sites.iter().enumerate() {
            members.iter().for_each(|&device| site_of[device] = site);
        }
        if sites.len() < 2 {
            return None;
        }
        // The slowest capacity that each way between two sites shares with others.
        let mut slowest: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for (i, shared) in network.shared.iter().enumerate() {
            for &(a, b) in shared.pairs.iter().filter(|(a, b)| site_of[*a] != site_of[*b]) {
                let known = slowest.entry((a, b)).or_insert(i);
                if shared.rate < network.shared[*known].rate {
                    *known = i;
                }
            }
        }
        let chosen: BTreeSet<usize> = slowest.into_values().collect();
        let capacities: Vec<Capacity> = chosen.into_iter().map(|i| network.shared[i].capacity.clone()).collect();
        let names = |site: &Vec<usize>| site.iter().map(|&device| tables.name(device).to_owned()).collect();
        let named = Crossing { sites: sites.iter().map(names).collect(), capacities };
        let (all, at) = crossing_rates(tables.problem, &named)?;
        // What makes up for rounding.
        let up = |rate: f64| rate * (1.0 + 1e-12);
        let slow = all < rate || at.iter().any(|&at| at < rate);
        slow.then(|| Self { all: up(all), at: at.into_iter().map(up).collect(), named })
    }

    /// The rates within sites under bounds of (site, rate, whether at least); none where no plan of `rate` has such.
    pub(super) fn range(&self, bounds: impl Iterator<Item = (usize, f64, bool)>, rate: f64) -> Option<Range> {
        let sites = self.at.len();
        let (mut least, mut most) = (vec![0.0_f64; sites], vec![rate; sites]);
        for (site, bound, more) in bounds {
            if more { least[site] = least[site].max(bound) } else { most[site] = most[site].min(bound) }
        }
        let slack = 1e-12 * rate;
        let (low, high): (f64, f64) = (least.iter().sum(), most.iter().sum());
        let empty = least.iter().zip(&most).any(|(least, most)| *least > most + slack);
        if empty || low > rate + slack || high + self.all < rate - slack {
            return None;
        }
        for site in 0..sites {
            let (others, above) = (low - least[site], rate - self.all - (high - most[site]));
            most[site] = most[site].min(rate - others);
            least[site] = least[site].max(above - slack);
        }
        Some(Range { least, most })
    }

    /// What sites pass of each layer then.
    pub(super) fn shares(&self, range: &Range, rate: f64) -> Shares {
        let low: f64 = range.least.iter().sum();
        let top = |site: usize| (range.most[site] + self.at[site]).min(rate - (low - range.least[site]));
        let floors = range.least.iter().map(|least| least.max(0.0)).collect();
        Shares { floors, tops: (0..self.at.len()).map(top).collect() }
    }

    /// The site whose rate within is to be divided next, and where: of what each used cover has at each site, some is not
    /// what a single plan could do. None where it might be, or nothing is left to divide.
    pub(super) fn divide(&self, range: &Range, used: &[Vec<f64>], rate: f64) -> Option<(usize, f64)> {
        let sites = self.at.len();
        let had = |site: usize| used.iter().map(|cover| cover[site]).fold(f64::INFINITY, f64::min);
        let within: Vec<f64> = (0..sites).map(|site| range.most[site].min(had(site))).collect();
        let passes = |cover: &Vec<f64>| -> f64 { (0..sites).map(|s| cover[s].min(within[s] + self.at[s])).sum() };
        let enough = rate * (1.0 - 1e-7);
        if within.iter().sum::<f64>() + self.all >= enough && used.iter().all(|cover| passes(cover) >= enough) {
            return None;
        }
        let width = |site: usize| range.most[site] - within[site].max(range.least[site]);
        let site = (0..sites).max_by(|&a, &b| width(a).total_cmp(&width(b)).then(b.cmp(&a)))?;
        let from = within[site].max(range.least[site]);
        (width(site) > NARROW * rate).then(|| (site, f64::midpoint(from, range.most[site])))
    }
}

/// Share of the rate below which ranges are not divided.
const NARROW: f64 = 1e-3;
