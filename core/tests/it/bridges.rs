//! Bounds by bridges between sites: what proves them, and what does not.

use crate::build::*;
use isotherm_core::plan::{Bridge, BridgeCase, Evidence, Plan, Status};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::units::TokensPerSecond;

/// Site 0 has `a`, which holds two layers at 10, and `p` and `q`, which hold one; site 1 has `b`, as good as `a`. Ways between
/// the sites carry `way`. Six layers, as many as all hold.
fn apart(way: f64, back: f64) -> PlacementProblem {
    let model = model(6);
    let mut devices = ["a", "p", "q", "b"].map(|name| device(name, &model, 1.0, 0)).to_vec();
    let ten = TokensPerSecond::of(10.0);
    for device in &mut devices {
        device.profiles.clear();
        device.rates = vec![(1, ten), (2, ten)];
    }
    for device in &mut devices[1..3] {
        device.rates.pop();
    }
    let mut links = Vec::new();
    for from in ["a", "p", "q", "b"] {
        for to in ["a", "p", "q", "b"].into_iter().filter(|to| *to != from) {
            let rate = if from == "b" {
                back
            } else if to == "b" {
                way
            } else {
                1e9
            };
            links.push(flow_link(from, to, rate));
        }
    }
    problem(parts(model, devices_file(devices, links), Objective::Throughput))
}

fn case(alone: &[u32], [a, p, q, b]: [f64; 4], bridges: &[(u32, Option<u32>, f64)]) -> BridgeCase {
    let named = [("a", a), ("p", p), ("q", q), ("b", b)];
    let bridge = |&(from, to, waste): &(u32, Option<u32>, f64)| Bridge { from, to, waste };
    BridgeCase {
        alone: alone.to_vec(),
        worths: named.map(|(name, worth)| (name.to_owned(), worth)).into(),
        bridges: bridges.iter().map(bridge).collect(),
    }
}

/// Where `b` passes no layer alone its worth is not needed, nor where none of site 0 does most of theirs. Where both sites do,
/// `p` and `q` stand side by side between them: that wastes a layer.
fn cases() -> Vec<BridgeCase> {
    vec![
        case(&[0], [2.0, 1.0, 1.0, 0.0], &[]),
        case(&[1], [1.0, 0.5, 0.5, 2.0], &[]),
        case(&[0, 1], [2.0, 1.0, 1.0, 2.9], &[(0, Some(1), 1.0)]),
    ]
}

fn sites() -> Vec<Vec<String>> {
    [["a", "p", "q"].as_slice(), &["b"]].map(|site| site.iter().map(|&name| name.to_owned()).collect()).to_vec()
}

/// Six layers in a row, through a way that carries 5: the best there is.
pub fn by_bridges() -> (PlacementProblem, Plan) {
    let problem = apart(5.0, 5.0);
    let mut plan = chain(&problem, &[("a", 0, 2), ("p", 2, 3), ("q", 3, 4), ("b", 4, 6)]);
    certify(&mut plan, 5.0, Evidence::Bridges { sites: sites(), cases: cases() });
    (problem, plan)
}

fn holds(
    problem: &PlacementProblem,
    bound: f64,
    sites: Vec<Vec<String>>,
    cases: Vec<BridgeCase>,
) -> Result<(), String> {
    let (_, mut plan) = by_bridges();
    certify(&mut plan, bound, Evidence::Bridges { sites, cases });
    plan.status = Status::Feasible;
    plan.check(problem).map(|_| ()).map_err(|violations| format!("{violations:?}"))
}

#[test]
fn bridges_prove_that_a_slow_way_binds_and_no_change_goes_unnoticed() {
    let (problem, plan) = by_bridges();
    assert_eq!(plan.objective_value, Some(5.0));
    plan.check(&problem).expect("proved");
    let tried = |cases: Vec<BridgeCase>| holds(&problem, 5.0, sites(), cases);
    assert_eq!(tried(cases()), Ok(()));
    let with = |position: usize, case: BridgeCase| {
        let mut cases = cases();
        cases[position] = case;
        tried(cases)
    };
    // Where a bridge begins does not matter, for ways are alike in both directions.
    assert_eq!(with(2, case(&[0, 1], [2.0, 1.0, 1.0, 2.9], &[(1, Some(0), 1.0)])), Ok(()));
    let both = [2.0, 1.0, 1.0, 2.9];
    let refused = [
        ("it wastes less", with(2, case(&[0, 1], both, &[(0, Some(1), 1.001)]))),
        ("its waste does not make up for the worths", with(2, case(&[0, 1], both, &[(0, Some(1), 0.899)]))),
        ("no bridge", with(2, case(&[0, 1], both, &[]))),
        ("the worths leave room", with(2, case(&[0, 1], [2.0, 1.0, 1.0, 3.0], &[(0, Some(1), 1.0)]))),
        ("a device alone is cheap", with(2, case(&[0, 1], [1.9, 1.0, 1.0, 2.9], &[(0, Some(1), 1.0)]))),
        ("two devices are cheap", with(1, case(&[1], [1.0, 0.4, 0.5, 2.0], &[]))),
        ("a bridge to its own site", with(2, case(&[0, 1], both, &[(0, Some(0), 1.0)]))),
        ("a bridge to nowhere", with(2, case(&[0, 1], both, &[(0, None, 1.0)]))),
        ("two bridges between two sites", with(2, case(&[0, 1], both, &[(0, Some(1), 1.0), (1, Some(0), 1.0)]))),
        ("a bridge of another case", with(1, case(&[1], [1.0, 0.5, 0.5, 2.0], &[(0, Some(1), 1.0)]))),
        ("no such site", with(2, case(&[0, 2], both, &[(0, Some(2), 1.0)]))),
        ("a site twice", with(2, case(&[0, 1, 1], both, &[(0, Some(1), 1.0)]))),
        ("a case twice", with(1, case(&[0], [2.0, 1.0, 1.0, 0.0], &[]))),
        ("a negative worth", with(0, case(&[0], [2.0, 1.0, 1.0, -1.0], &[]))),
        ("a waste that is none", with(2, case(&[0, 1], both, &[(0, Some(1), f64::NAN)]))),
        ("a case is missing", tried(cases().split_off(1))),
        ("a lower bound", holds(&problem, 4.9, sites(), cases())),
        ("a device at no site", holds(&problem, 5.0, vec![sites()[0].clone()], cases())),
        ("a faster way", holds(&apart(6.0, 6.0), 5.0, sites(), cases())),
        ("a faster way back", holds(&apart(5.0, 6.0), 5.0, sites(), cases())),
    ];
    for (what, found) in refused {
        assert!(found.is_err(), "{what}");
    }
    let mut partial = problem.clone();
    partial.limits.partial = true;
    assert!(holds(&partial, 5.0, sites(), cases()).is_err(), "requests may leave in the middle");
    assert!(problem.objective == Objective::Throughput);
}
