//! Bounds by what can pass between sites: what proves them, and what does not.

use crate::build::*;
use crate::cases::proof;
use isotherm_core::check::crossing_rates;
use isotherm_core::figure::Figure;
use isotherm_core::graph::SharedCapacity;
use isotherm_core::plan::{Capacity, Case, Crossing, EndWeights, Evidence, Plan, Status};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::units::{BytesPerSecond, TokensPerSecond};

/// Two devices that hold a layer at 10 or two at 4, and two layers. The way between them is a trunk of so many tokens per
/// second, for both directions together.
fn apart(trunk: f64) -> PlacementProblem {
    let model = model(2);
    let mut devices = ["a", "b"].map(|name| device(name, &model, 1.0, 0)).to_vec();
    for device in &mut devices {
        device.profiles.clear();
        device.rates = vec![(1, TokensPerSecond::of(10.0)), (2, TokensPerSecond::of(4.0))];
    }
    let mut links = vec![link("a", "hub", 0.1, 1e9), link("hub", "b", 0.1, 1e9), link("b", "hub", 0.1, 1e9)];
    links.push(link("hub", "a", 0.1, 1e9));
    links[1].groups = vec!["trunk".into()];
    links[2].groups = vec!["trunk".into()];
    let mut file = devices_file(devices, links);
    file.junctions = vec!["hub".into()];
    let row = model.boundary_bytes_per_token().0 as f64;
    let bandwidth = BytesPerSecond::of(trunk * row * 2.0);
    file.groups =
        vec![SharedCapacity { name: "trunk".into(), bandwidth_bytes_per_second: Figure::declared(bandwidth, "test") }];
    // A row for each of 4 + 3 - 1 tokens, of which 3 are put out.
    problem(parts(model, file, Objective::Throughput))
}

fn trunk() -> Crossing {
    let capacities = vec![Capacity::Group { name: "trunk".into() }];
    Crossing { sites: vec![vec!["a".into()], vec!["b".into()]], capacities }
}

/// Below 4.1 within the first site, the second one carries 3.1 at least; above it, the first has to hold each layer alone.
fn divided(rate: f64) -> Vec<Case> {
    vec![Case::Within { site: 0, rate }, proof(0.5, 1.0, &[0.0]), proof(1.0, 0.0, &[0.0])]
}

/// A trunk of 1: each device holds both layers and serves alone, 8 in all; without the trunk, 10 would be had.
pub fn by_rates_within() -> (PlacementProblem, Plan) {
    let problem = apart(1.0);
    let mut plan = plan(&problem, &[("a", 0, 2), ("b", 0, 2)], &[(&[0], 0.5), (&[1], 0.5)]);
    certify(&mut plan, 8.2, evidence(divided(4.1), Some(trunk())));
    plan.status = Status::Feasible;
    (problem, plan)
}

const fn evidence(cases: Vec<Case>, crossing: Option<Crossing>) -> Evidence {
    Evidence::Cases { ends: EndWeights { first: 0.0, last: 0.0 }, cases, crossing }
}

fn holds(
    problem: &PlacementProblem,
    plan: &Plan,
    bound: f64,
    cases: Vec<Case>,
    crossing: Option<Crossing>,
) -> Result<(), String> {
    let mut plan = plan.clone();
    certify(&mut plan, bound, evidence(cases, crossing));
    plan.status = Status::Feasible;
    plan.check(problem).map(|_| ()).map_err(|violations| format!("{violations:?}"))
}

#[test]
fn rates_within_sites_prove_a_bound_that_a_trunk_makes_and_no_change_goes_unnoticed() {
    let (problem, plan) = by_rates_within();
    assert_eq!(plan.objective_value, Some(8.0));
    plan.clone().check(&problem).expect("proved");
    let tried = |bound: f64, cases: Vec<Case>, crossing| holds(&problem, &plan, bound, cases, crossing);
    assert_eq!(tried(8.2, divided(4.1), Some(trunk())), Ok(()));
    assert!(tried(8.2, divided(4.1), None).is_err(), "nothing is known of trunks");
    assert!(
        tried(8.2, divided(7.3), Some(trunk())).is_err(),
        "less within the first site says too little of the second"
    );
    assert!(tried(8.2, divided(3.9), Some(trunk())).is_err(), "the first site may hold both layers");
    assert!(tried(8.2, divided(f64::NAN), Some(trunk())).is_err(), "a rate that is none");
    assert!(tried(8.2, divided(-1.0), Some(trunk())).is_err(), "a negative rate");
    assert!(tried(7.9, divided(4.1), Some(trunk())).is_err(), "the plan beats it");
    let cases = |first: Case, second: Case| vec![Case::Within { site: 0, rate: 4.1 }, first, second];
    let (first, second) = (proof(0.5, 1.0, &[0.0]), proof(1.0, 0.0, &[0.0]));
    let refused = [
        ("the second site alone is cheap", cases(proof(0.5, 0.9, &[0.0]), second.clone())),
        ("both are cheap", cases(proof(0.4, 1.0, &[0.0]), second.clone())),
        ("the first site alone is cheap", cases(first.clone(), proof(0.9, 0.0, &[0.0]))),
        ("the cases are exchanged", cases(second.clone(), first.clone())),
        ("a rate is given a value", cases(proof(0.5, 1.0, &[0.1]), second.clone())),
        ("no such site", vec![Case::Within { site: 2, rate: 4.1 }, first.clone(), second.clone()]),
    ];
    for (what, cases) in refused {
        assert!(tried(8.2, cases, Some(trunk())).is_err(), "{what}");
    }
    let crossing = |sites: &[&[&str]], capacities: Vec<Capacity>| {
        let named = |site: &&[&str]| site.iter().map(|&name| name.to_owned()).collect();
        Some(Crossing { sites: sites.iter().map(named).collect(), capacities })
    };
    let (two, group) = ([["a"].as_slice(), &["b"]], Capacity::Group { name: "trunk".into() });
    let uplink = Capacity::Link { from: "a".into(), to: "hub".into() };
    let refused = [
        ("a way around all capacities", crossing(&two, Vec::new())),
        ("one direction only", crossing(&two, vec![uplink])),
        ("no such capacity", crossing(&two, vec![Capacity::Group { name: "road".into() }])),
        ("a capacity named twice", crossing(&two, vec![group.clone(), group.clone()])),
        ("a device of no site", crossing(&[&["a"]], vec![group.clone()])),
        ("a device of two sites", crossing(&[&["a"], &["b", "a"]], vec![group.clone()])),
        ("no device", crossing(&[&["a"], &["b", "c"]], vec![group])),
    ];
    for (what, crossing) in refused {
        assert!(tried(8.2, divided(4.1), crossing).is_err(), "{what}");
    }
}

#[test]
fn a_wider_trunk_lets_the_same_certificate_fail_and_a_division_without_plans_needs_no_worths() {
    let (_, plan) = by_rates_within();
    let wide = apart(5.0);
    assert!(holds(&wide, &plan, 8.2, divided(4.1), Some(trunk())).is_err());
    assert_eq!(crossing_rates(&wide, &trunk()), Some((5.0, vec![5.0, 5.0])));
    // No more than 3 within each and 1 between them are not 8.2.
    let narrow = apart(1.0);
    let nothing = proof(0.0, 0.0, &[0.0, 0.0]);
    let within = |site, rate| Case::Within { site, rate };
    let second = [within(1, 4.1), proof(1.0, 0.0, &[0.0, 0.0]), proof(1.0, 0.0, &[0.0, 0.0])];
    let first = [within(1, 3.0), nothing, proof(0.5, 1.0, &[0.0, 0.0])];
    let cases = [&[within(0, 3.0)], first.as_slice(), second.as_slice()].concat();
    let refused =
        holds(&narrow, &plan, 8.2, cases, Some(trunk())).expect_err("more than 3 within the first is not proved");
    assert!(refused.contains("Cheap { case: 5") || refused.contains("Cheap { case: 6"), "{refused}");
}
