//! What can pass between sites.
//!
//! Let devices be divided into sites, and let every way between devices of two sites lead through one at least of some
//! capacities. A request that visits two sites passes such a way, so it uses one of the capacities at least once: all such
//! requests together have a rate of at most the sum of the capacities, and those that visit a site `s` at most the sum of
//! the capacities that ways from `s` or to `s` may meet first or last. A pair of devices whose link states tokens per second
//! is bound by that alone, so each such link between two sites counts as a capacity of its own.
//!
//! That ways lead through the capacities is seen on the graph: without their links, no device reaches one of another site.

use super::certificate::BoundFault;
use crate::exact::{Exact, exact, larger};
use crate::graph::Link;
use crate::ids::DeviceId;
use crate::objective::bytes_per_output_token;
use crate::plan::{Capacity, Crossing};
use crate::problem::PlacementProblem;
use num_traits::Zero;
use std::collections::{BTreeMap, BTreeSet};

/// Most sites.
const SITES_MAX: usize = 64;
/// Most links times sites that are followed.
const STEPS_MAX: u128 = 20_000_000;

/// Sites and the rates between them.
pub(super) struct Crossings {
    /// The site of each device.
    pub site_of: BTreeMap<DeviceId, usize>,
    /// Most that all requests that visit several sites may have together.
    pub all: Exact,
    /// The same of those that visit a site, by site.
    pub at: Vec<Exact>,
}

/// Whether a link belongs to a capacity.
fn part_of(link: &Link, capacity: &Capacity) -> bool {
    match capacity {
        Capacity::Group { name } => link.groups.contains(name),
        Capacity::Link { from, to } => (&link.from, &link.to) == (from, to),
    }
}

/// The sites of a certificate and what can pass between them. Errors: a device in no site or in two, a capacity that is
/// none, a way around all capacities.
pub(super) fn crossings(problem: &PlacementProblem, stated: &Crossing) -> Result<Crossings, BoundFault> {
    let (graph, sites) = (&problem.graph, stated.sites.len());
    let mut site_of: BTreeMap<DeviceId, usize> = BTreeMap::new();
    for (site, names) in stated.sites.iter().enumerate() {
        for name in names {
            let device = graph.find(name).filter(|&device| site_of.insert(device, site).is_none());
            device.ok_or_else(|| BoundFault::Site { device: name.clone() })?;
        }
    }
    let variants = problem.variants();
    for device in graph.device_ids().filter(|&device| variants.iter().any(|problem| problem.usable(device))) {
        if !site_of.contains_key(&device) {
            return Err(BoundFault::Site { device: graph.device(device).name.clone() });
        }
    }
    if sites > SITES_MAX {
        let (count, max) = (sites as u128, SITES_MAX as u128);
        return Err(BoundFault::TooLarge { what: "sites", count, max });
    }
    let links = &graph.file().links;
    let count = links.len() as u128 * (sites as u128 + stated.capacities.len() as u128);
    if count > STEPS_MAX {
        return Err(BoundFault::TooLarge { what: "links between sites", count, max: STEPS_MAX });
    }
    let bytes = bytes_per_output_token(problem, problem.model.boundary_bytes_per_token());
    let mut rates: Vec<Exact> = Vec::new();
    let mut named: BTreeSet<&Capacity> = BTreeSet::new();
    for capacity in &stated.capacities {
        let of_link = |link: &Link| Some(link.bandwidth_bytes_per_second.as_ref()?.value.value());
        let bandwidths: Vec<f64> = match capacity {
            Capacity::Group { name } => {
                let groups = graph.file().groups.iter().filter(|group| group.name == *name);
                groups.map(|group| group.bandwidth_bytes_per_second.value.value()).collect()
            }
            Capacity::Link { .. } => {
                let of_capacity: Vec<&Link> = links.iter().filter(|link| part_of(link, capacity)).collect();
                let known: Option<Vec<f64>> = of_capacity.into_iter().map(of_link).collect();
                known.unwrap_or_default()
            }
        };
        let rate = bandwidths.into_iter().filter_map(exact).fold(Exact::zero(), larger) / &bytes;
        if rate.is_zero() || !named.insert(capacity) {
            return Err(BoundFault::Capacity { capacity: capacity.to_string() });
        }
        rates.push(rate);
    }
    let capacity_of: Vec<Option<usize>> =
        links.iter().map(|link| stated.capacities.iter().position(|capacity| part_of(link, capacity))).collect();
    let site = |name: &str| graph.find(name).and_then(|device| site_of.get(&device)).copied();
    let mut found = Crossings {
        all: rates.iter().fold(Exact::zero(), |sum, rate| sum + rate),
        at: Vec::new(),
        site_of: BTreeMap::new(),
    };
    // What links between devices of two sites state.
    let mut direct = vec![Exact::zero(); sites];
    for link in links {
        let (Some(rate), Some(a), Some(b)) = (link.tokens_per_second, site(&link.from), site(&link.to)) else {
            continue;
        };
        let rate = exact(rate.value()).unwrap_or_else(Exact::zero);
        if a != b {
            direct[a] += &rate;
            direct[b] += &rate;
            found.all += rate;
        }
    }
    for (own, direct) in direct.into_iter().enumerate() {
        let mut met: BTreeSet<usize> = BTreeSet::new();
        for forward in [true, false] {
            let ends = |link: &'_ Link| {
                if forward { (link.from.clone(), link.to.clone()) } else { (link.to.clone(), link.from.clone()) }
            };
            let mut next: BTreeMap<String, Vec<(String, Option<usize>)>> = BTreeMap::new();
            for (link, capacity) in links.iter().zip(&capacity_of) {
                // No way of several links uses one that states tokens alone.
                if link.tokens_per_second.is_none() || link.bandwidth_bytes_per_second.is_some() {
                    let (near, far) = ends(link);
                    next.entry(near).or_default().push((far, *capacity));
                }
            }
            let mut reached: BTreeSet<String> =
                site_of.iter().filter(|(_, site)| **site == own).map(|(&d, _)| graph.device(d).name.clone()).collect();
            let mut open: Vec<String> = reached.iter().cloned().collect();
            while let Some(place) = open.pop() {
                for (far, capacity) in next.get(&place).into_iter().flatten() {
                    if let Some(capacity) = capacity {
                        met.insert(*capacity);
                    } else if reached.insert(far.clone()) {
                        if site(far).is_some_and(|other| other != own) {
                            return Err(BoundFault::Way { site: own, device: far.clone() });
                        }
                        open.push(far.clone());
                    }
                }
            }
        }
        found.at.push(met.into_iter().fold(direct, |sum, capacity| sum + &rates[capacity]));
    }
    found.site_of = site_of;
    Ok(found)
}

/// The rates at which requests that visit several sites pass in all, and for each site those that visit it, at most; none
/// where the capacities are not what all ways between the sites lead through.
#[must_use]
pub fn crossing_rates(problem: &PlacementProblem, crossing: &Crossing) -> Option<(f64, Vec<f64>)> {
    let found = crossings(problem, crossing).ok()?;
    let float = crate::exact::nearest;
    Some((float(&found.all), found.at.iter().map(float).collect()))
}
