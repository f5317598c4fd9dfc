//! Bounds by bridges between sites: what proves them, and what does not.

use crate::build::*;
use isotherm_core::plan::{Bridge, BridgeCase, Evidence, Plan, Status};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::units::TokensPerSecond;

/// Main devices pass nearly everything.
const MAIN: f64 = 1.0 - 1.0 / (1_u64 << 36) as f64;

/// Six layers, and devices that hold so many at most at a rate; the way from one to another carries so much.
fn cluster(held: &[(&str, u32, f64)], way: &dyn Fn(&str, &str) -> f64) -> PlacementProblem {
    let model = model(6);
    let of = |&(name, most, rate): &(&str, u32, f64)| {
        let mut device = device(name, &model, 1.0, 0);
        device.profiles.clear();
        device.rates = (1..=most).map(|layers| (layers, TokensPerSecond::of(rate))).collect();
        device
    };
    let mut links = Vec::new();
    for (from, ..) in held {
        links.extend(held.iter().filter(|(to, ..)| to != from).map(|(to, ..)| flow_link(from, to, way(from, to))));
    }
    let file = devices_file(held.iter().map(of).collect(), links);
    problem(parts(model, file, Objective::Throughput))
}

/// Site 0 has `a`, which holds two layers at 10, and `p` and `q`, which hold one; site 1 has `b`, as good as `a`. Ways to `b`
/// carry `way`, those from it `back`. Six layers, as many as all hold.
fn apart(way: f64, back: f64) -> PlacementProblem {
    let between = |from: &str, to: &str| match (from, to) {
        ("b", _) => back,
        (_, "b") => way,
        _ => 1e9,
    };
    cluster(&[("a", 2, 10.0), ("p", 1, 10.0), ("q", 1, 10.0), ("b", 2, 10.0)], &between)
}

fn case(mains: &[u32], [a, p, q, b]: [f64; 4], bridges: &[(u32, Option<u32>, f64)]) -> BridgeCase {
    let named = [("a", a), ("p", p), ("q", q), ("b", b)];
    let bridge = |&(from, to, waste): &(u32, Option<u32>, f64)| Bridge { from, to, waste };
    BridgeCase {
        mains: mains.to_vec(),
        worths: named.map(|(name, worth)| (name.to_owned(), worth)).into(),
        bridges: bridges.iter().map(bridge).collect(),
    }
}

/// Where `b` is no main device its worth is not needed, nor where none of site 0 is most of theirs. Where both sites have some,
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
    certify(&mut plan, 5.0, Evidence::Bridges { sites: sites(), main: MAIN, cases: cases() });
    (problem, plan)
}

/// Site 1 has two devices that pass half of what those of site 0 do, and never a layer alone.
fn halves(way: f64) -> PlacementProblem {
    let near = |name: &str| matches!(name, "a" | "p" | "q");
    let between = |from: &str, to: &str| if near(from) == near(to) { 1e9 } else { way };
    cluster(&[("a", 2, 10.0), ("p", 1, 10.0), ("q", 1, 10.0), ("b", 2, 5.0), ("c", 2, 5.0)], &between)
}

/// Six layers, the last two halved.
fn forked(problem: &PlacementProblem) -> Plan {
    let stages = [("a", 0, 2), ("p", 2, 3), ("q", 3, 4), ("b", 4, 6), ("c", 4, 6)];
    plan(problem, &stages, &[(&[0, 1, 2, 3], 0.5), (&[0, 1, 2, 4], 0.5)])
}

/// Six layers, the last two halved, through two ways of 4: the best there is. That `p` and `q` stand side by side before `b`
/// and `c` wastes a layer.
pub fn by_a_bridge_to_nowhere() -> (PlacementProblem, Plan) {
    let problem = halves(4.0);
    let mut plan = forked(&problem);
    certify(&mut plan, 8.0, Evidence::Bridges { sites: halved(), main: MAIN, cases: nowhere(&[(0, None, 1.0)]) });
    (problem, plan)
}

fn halved() -> Vec<Vec<String>> {
    let mut sites = sites();
    sites[1].push("c".into());
    sites
}

fn nowhere(bridges: &[(u32, Option<u32>, f64)]) -> Vec<BridgeCase> {
    let mut cases = vec![case(&[], [1.0, 0.5, 0.5, 1.0], &[]), case(&[0], [2.0, 1.0, 1.0, 1.2], bridges)];
    for case in &mut cases {
        let worth = case.worths["b"];
        case.worths.insert("c".into(), worth);
    }
    cases
}

fn tried(plan: &Plan, problem: &PlacementProblem, sites: Vec<Vec<String>>, cases: Vec<BridgeCase>) -> String {
    let mut plan = plan.clone();
    let bound = plan.certificate.as_ref().and_then(|certificate| certificate.bound).expect("stated");
    certify(&mut plan, bound, Evidence::Bridges { sites, main: MAIN, cases });
    plan.status = Status::Feasible;
    plan.check(problem).map_or_else(|violations| format!("{violations:?}"), |_| "holds".into())
}

#[test]
fn bridges_prove_that_a_slow_way_binds_and_no_change_goes_unnoticed() {
    let (problem, plan) = by_bridges();
    assert_eq!(plan.objective_value, Some(5.0));
    plan.clone().check(&problem).expect("proved");
    let judged = |cases: Vec<BridgeCase>| tried(&plan, &problem, sites(), cases);
    assert_eq!(judged(cases()), "holds");
    let with = |position: usize, case: BridgeCase| {
        let mut cases = cases();
        cases[position] = case;
        judged(cases)
    };
    // Where a bridge begins does not matter, for ways are alike in both directions.
    let (both, tight) = ([2.0, 1.0, 1.0, 2.9], [2.0, 1.0, 1.0, 1.9]);
    assert_eq!(with(2, case(&[0, 1], both, &[(1, Some(0), 1.0)])), "holds");
    let elsewhere = |sites: Vec<Vec<String>>| tried(&plan, &problem, sites, cases());
    // On other ways, the same plan and what it carries there.
    let on = |way: f64, back: f64| {
        let problem = apart(way, back);
        let mut plan = chain(&problem, &[("a", 0, 2), ("p", 2, 3), ("q", 3, 4), ("b", 4, 6)]);
        certify(&mut plan, way, Evidence::ClipBound);
        tried(&plan, &problem, sites(), cases())
    };
    let refused = [
        ("Waste", with(2, case(&[0, 1], both, &[(0, Some(1), 1.001)]))),
        ("Sum", with(2, case(&[0, 1], both, &[(0, Some(1), 0.899)]))),
        ("Sum", with(2, case(&[0, 1], both, &[]))),
        ("Sum", with(2, case(&[0, 1], [2.0, 1.0, 1.0, 3.0], &[(0, Some(1), 1.0)]))),
        ("Cheap", with(2, case(&[0, 1], [1.9, 1.0, 1.0, 2.9], &[(0, Some(1), 1.0)]))),
        ("Cheap", with(1, case(&[1], [1.0, 0.4, 0.5, 2.0], &[]))),
        ("Cheap", with(0, case(&[0], [2.0, 0.9, 1.0, 0.0], &[]))),
        ("must join two", with(2, case(&[0, 1], tight, &[(0, Some(0), 1.0)]))),
        ("must join two", with(1, case(&[1], [1.0, 0.5, 0.5, 2.0], &[(0, Some(1), 1.0)]))),
        ("nowhere only", with(2, case(&[0, 1], tight, &[(0, None, 1.0)]))),
        ("join the same", with(2, case(&[0, 1], both, &[(0, Some(1), 1.0), (1, Some(0), 1.0)]))),
        ("each once", with(2, case(&[0, 2], both, &[(0, Some(2), 1.0)]))),
        ("each once", with(2, case(&[0, 1, 1], both, &[(0, Some(1), 1.0)]))),
        ("before it", with(1, case(&[0], [2.0, 1.0, 1.0, 0.0], &[]))),
        ("Worth", with(0, case(&[0], [2.0, 1.0, 1.0, -1.0], &[]))),
        ("0 or more", with(2, case(&[0, 1], both, &[(0, Some(1), f64::NAN)]))),
        ("no more than all", with(2, case(&[0, 1], both, &[(0, Some(1), 6.5)]))),
        ("Missing", judged(cases().split_off(1))),
        ("Site", elsewhere(vec![sites()[0].clone()])),
        ("Empty", elsewhere([sites(), vec![Vec::new()]].concat())),
        ("TooLarge", elsewhere([sites(), vec![Vec::new(); 100_000]].concat())),
        // Faster back than forth: read backwards, nothing needs a bridge.
        ("Waste", on(5.0, 6.0)),
    ];
    for (what, found) in refused {
        assert!(found.contains(what), "{what}: {found}");
    }
    for main in [0.5, 1.0, 1.5, f64::NAN] {
        let mut plan = plan.clone();
        certify(&mut plan, 5.0, Evidence::Bridges { sites: sites(), main, cases: cases() });
        let found = format!("{:?}", plan.check(&problem).expect_err("no share of main devices"));
        assert!(found.contains("Main"), "{found}");
    }
    // Where main devices pass a little less, the way carries what one has to hand over.
    let mut less = plan.clone();
    certify(&mut less, 5.0, Evidence::Bridges { sites: sites(), main: 0.9, cases: cases() });
    let found = format!("{:?}", less.check(&problem).expect_err("no bridge is needed"));
    assert!(found.contains("Waste"), "{found}");
    // A way back that is slower still changes nothing.
    assert_eq!(on(5.0, 4.0), "holds");
    let mut partial = problem.clone();
    partial.limits.partial = true;
    assert!(tried(&plan, &partial, sites(), cases()).contains("Partial"), "requests may leave in the middle");
}

#[test]
fn a_bridge_from_the_only_site_with_main_devices_leads_to_where_none_of_it_is_used() {
    let (problem, plan) = by_a_bridge_to_nowhere();
    assert_eq!(plan.objective_value, Some(8.0));
    plan.clone().check(&problem).expect("proved");
    let judged = |bridges: &[(u32, Option<u32>, f64)]| tried(&plan, &problem, halved(), nowhere(bridges));
    assert_eq!(judged(&[(0, None, 1.0)]), "holds");
    for (what, bridges) in [
        ("Sum", &[][..]),
        ("Waste", &[(0, None, 1.5)]),
        ("must join two", &[(1, None, 1.0)]),
        ("must join two", &[(0, Some(1), 1.0)]),
        ("join the same", &[(0, None, 0.5), (0, None, 1.0)]),
    ] {
        let found = judged(bridges);
        assert!(found.contains(what), "{what}: {found}");
    }
}

/// Where main devices pass more than four fifths, ways that carry less than three fifths need a bridge, and small devices may
/// stand beside what it leads to.
#[test]
fn bridges_between_devices_that_pass_most_are_proved_to_waste_as_much_as_they_do_and_no_more() {
    let judged = |problem: &PlacementProblem, plan: &Plan, bound: f64, sites: Vec<Vec<String>>, cases| {
        let mut plan = plan.clone();
        certify(&mut plan, bound, Evidence::Bridges { sites, main: 0.8, cases });
        plan.status = Status::Feasible;
        plan.check(problem).map_or_else(|violations| format!("{violations:?}"), |_| "holds".into())
    };
    let problem = apart(5.0, 5.0);
    let row = chain(&problem, &[("a", 0, 2), ("p", 2, 3), ("q", 3, 4), ("b", 4, 6)]);
    let with = |bound: f64, waste: f64| {
        let mut cases = cases();
        cases[2].bridges[0].waste = waste;
        judged(&problem, &row, bound, sites(), cases)
    };
    assert_eq!(with(8.4, 1.0), "holds");
    assert!(with(8.4, 1.001).contains("Waste"), "{}", with(8.4, 1.001));
    // Three fifths of less cross the way.
    assert!(with(8.3, 1.0).contains("Waste"), "{}", with(8.3, 1.0));
    // To `b` and `c`, which no single device hands enough over to: `p` and `q` before them, and those two waste two fifths.
    let (problem, forked) = by_a_bridge_of_most();
    let with = |waste: f64| judged(&problem, &forked, 8.4, halved(), nowhere(&[(0, None, waste)]));
    assert_eq!(with(1.3999), "holds");
    assert!(with(1.4001).contains("Waste"), "{}", with(1.4001));
}

/// The bridge to nowhere of the test above, as both checkers are asked.
pub fn by_a_bridge_of_most() -> (PlacementProblem, Plan) {
    let problem = halves(3.0);
    let mut plan = forked(&problem);
    certify(&mut plan, 8.4, Evidence::Bridges { sites: halved(), main: 0.8, cases: nowhere(&[(0, None, 1.3999)]) });
    plan.status = Status::Feasible;
    (problem, plan)
}
