//! What must not change an optimum, or only one way.

use crate::divided::rebuilt;
use crate::helix::flow_problem;
use crate::world::{Random, closed};
use isotherm_core::graph::{Link, LinkKind};
use isotherm_core::plan::{BoundKind, Evidence, Plan};
use isotherm_core::problem::Limits;
use isotherm_core::units::TokensPerSecond;
use isotherm_planner::{Budget, Outcome, plan};
use std::collections::{BTreeMap, BTreeSet};

type Rates = BTreeMap<String, Vec<(u32, TokensPerSecond)>>;

fn way(from: &str, to: &str, rate: f64) -> Link {
    Link {
        from: from.into(),
        to: to.into(),
        kind: LinkKind::Declared,
        latency_seconds: None,
        bandwidth_bytes_per_second: None,
        tokens_per_second: Some(TokensPerSecond::of(rate)),
        groups: Vec::new(),
    }
}

/// Ways between all devices; those of an odd and an even number are joined at `slow` only.
fn ways(rates: &Rates, fast: f64, slow: f64) -> Vec<Link> {
    let odd = |name: &str| name.ends_with(['1', '3', '5']);
    let pairs = rates.keys().flat_map(|a| rates.keys().filter(move |b| *b != a).map(move |b| (a, b)));
    pairs.map(|(a, b)| way(a, b, if odd(a) == odd(b) { fast } else { slow })).collect()
}

/// Devices of two kinds, whose rates fall with the layers they hold, not always.
fn devices(random: &mut Random, count: usize) -> Rates {
    let kinds: Vec<Vec<f64>> = (0..2)
        .map(|_| {
            let (speed, most) = (random.real(50.0, 200.0), random.whole(2, 4));
            (1..=most).map(|k| speed / k as f64 * random.real(0.7, 1.1)).collect()
        })
        .collect();
    let table = |kind: usize| {
        let rates = kinds[kind].iter().enumerate();
        rates.map(|(k, &rate)| (k as u32 + 1, TokensPerSecond::of(rate))).collect()
    };
    (0..count).map(|i| (format!("d{i}"), table(random.whole(0, 1) as usize))).collect()
}

/// The optimum; none where there is no plan.
fn optimum(rates: &Rates, links: Vec<Link>) -> Option<Plan> {
    let problem = flow_problem("invariance", 5, rates.clone(), links, false);
    match plan(&problem, &Budget::default()).expect("plans") {
        Outcome::Infeasible(_) => None,
        outcome => Some(closed(&outcome).unwrap_or_else(|| panic!("{outcome:?}")).plan().clone()),
    }
}

fn value(plan: Option<&Plan>) -> f64 {
    plan.and_then(|plan| plan.objective_value).unwrap_or(0.0)
}

#[test]
fn one_more_device_never_makes_the_optimum_worse() {
    for seed in 0..8 {
        let random = &mut Random(seed);
        let more = devices(random, 4);
        let fewer: Rates = more.iter().take(3).map(|(name, rates)| (name.clone(), rates.clone())).collect();
        let slow = random.real(10.0, 120.0);
        let [less, best] = [&fewer, &more].map(|rates| value(optimum(rates, ways(rates, 1e6, slow)).as_ref()));
        assert!(best >= less * (1.0 - 2e-6), "seed {seed}: {best} with one more than for {less}");
    }
}

#[test]
fn a_larger_unit_of_rates_changes_nothing_else() {
    for seed in 100..106 {
        let random = &mut Random(seed);
        let rates = devices(random, 4);
        let slow = random.real(10.0, 120.0);
        let scaled = |rows: &Vec<(u32, TokensPerSecond)>| {
            rows.iter().map(|&(k, rate)| (k, TokensPerSecond::of(rate.value() * 1024.0))).collect()
        };
        let large: Rates = rates.iter().map(|(name, rows)| (name.clone(), scaled(rows))).collect();
        let small = value(optimum(&rates, ways(&rates, 1e6, slow)).as_ref());
        let large = value(optimum(&large, ways(&large, 1024e6, 1024.0 * slow)).as_ref());
        assert!((large - 1024.0 * small).abs() <= 4e-6 * large, "seed {seed}: {large} for {small}");
    }
}

#[test]
fn the_same_budget_of_nodes_gives_the_same_plan() {
    let random = &mut Random(7);
    let rates = devices(random, 9);
    let once = || {
        let problem = flow_problem("twice", 17, rates.clone(), ways(&rates, 1e6, 40.0), false);
        let budget = Budget { nodes_max: 100, ..Budget::default() };
        plan(&problem, &budget).expect("plans").plan().map(|found| found.plan().clone())
    };
    assert_eq!(once(), once());
}

#[test]
fn a_chain_across_a_slow_way_is_certified_by_its_sites() {
    let table = || vec![(1, TokensPerSecond::of(20.0)), (2, TokensPerSecond::of(10.0))];
    let rates: Rates = [("d0".to_owned(), table()), ("d1".to_owned(), table())].into();
    let problem = flow_problem("crossing", 4, rates.clone(), ways(&rates, 1e6, 6.0), false);
    let outcome = plan(&problem, &Budget::default()).expect("plans");
    let Outcome::Optimal(found) = &outcome else { panic!("{outcome:?}") };
    let certificate = found.plan().certificate.as_ref().expect("a certificate");
    assert_eq!((certificate.objective, certificate.bound_kind), (6.0, BoundKind::Certified), "{certificate:?}");
    let Some(Evidence::WeighedWorths { sites, .. }) = &certificate.evidence else { panic!("{certificate:?}") };
    assert_eq!(sites.len(), 2);
}

/// Ways along a secret order of all devices, and so many in a hundred of the others.
fn along(rates: &Rates, others: u64, random: &mut Random) -> Vec<Link> {
    let mut order: Vec<&String> = rates.keys().collect();
    for i in (1..order.len()).rev() {
        order.swap(i, random.whole(0, i as u64) as usize);
    }
    let next: BTreeSet<(&String, &String)> = order.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let mut links = ways(rates, 1e6, 1e6);
    links.retain(|link| next.contains(&(&link.from, &link.to)) || random.chance(others));
    links
}

#[test]
fn single_ways_that_are_missing_do_not_hide_a_plan_that_goes_round_them() {
    let random = &mut Random(11);
    // Thirty devices of two kinds must all be in the chain, in an order in which there are ways. To thirty more there
    // are none.
    let table = |i: usize| if i.is_multiple_of(2) { vec![(1, 20.0), (2, 10.0)] } else { vec![(1, 10.0)] };
    let rated = |i: usize| table(i).into_iter().map(|(held, rate)| (held, TokensPerSecond::of(rate))).collect();
    let joined: Rates = (0..30).map(|i| (format!("d{i:02}"), rated(i))).collect();
    let first: Rates = (0..30).map(|i| (format!("a{i}"), rated(1))).collect();
    let rates: Rates = joined.clone().into_iter().chain(first.clone()).collect();
    for _ in 0..3 {
        let mut links = along(&joined, 30, random);
        links.extend(first.keys().map(|name| way(name, "d00", 1e6)));
        let problem = flow_problem("gaps", 45, rates.clone(), links, false);
        let outcome = plan(&problem, &Budget::default()).expect("plans");
        let Outcome::Optimal(found) = &outcome else { panic!("{outcome:?}") };
        let certificate = found.plan().certificate.as_ref().expect("a certificate");
        assert_eq!((certificate.objective, certificate.bound_kind), (10.0, BoundKind::Certified), "{certificate:?}");
    }
}

#[test]
fn a_pinned_device_holds_its_stage_on_whatever_ways_there_are_and_few_nodes_give_the_same_plan() {
    let random = &mut Random(5);
    let rates = devices(random, 12);
    let mut links = along(&rates, 25, random);
    links.retain(|link| link.to != "d3" || link.from == "d7");
    let once = || {
        let plain = flow_problem("pinned", 20, rates.clone(), links.clone(), false);
        let pinned = vec!["d3".to_owned()];
        let limits = Limits { pinned, ..plain.limits.clone() };
        let problem = rebuilt(&plain, plain.graph.file().clone(), |parts| parts.limits = limits);
        let budget = Budget { nodes_max: 30, ..Budget::default() };
        plan(&problem, &budget).expect("plans").plan().map(|found| found.plan().clone())
    };
    let found = once().expect("a plan");
    assert!(found.stages.iter().any(|stage| stage.devices == ["d3"]), "{found:?}");
    assert_eq!(Some(found), once());
}
