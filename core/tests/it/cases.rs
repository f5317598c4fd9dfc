//! Bounds by cases: what proves them, and what does not.

use crate::build::*;
use isotherm_core::plan::{Case, EndWeights, Evidence, Plan};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::units::TokensPerSecond;
use std::collections::BTreeMap;

/// Two devices that hold a layer or two at these rates, and a model of so many layers.
fn pair(layers: usize, one: f64, two: f64) -> PlacementProblem {
    let model = model(layers);
    let mut flow = ["a", "b"].map(|name| device(name, &model, 1.0, 0)).to_vec();
    for device in &mut flow {
        device.profiles.clear();
        device.rates = vec![(1, TokensPerSecond::of(one)), (2, TokensPerSecond::of(two))];
    }
    let links = vec![flow_link("a", "b", 1e9), flow_link("b", "a", 1e9)];
    problem(parts(model, devices_file(flow, links), Objective::Throughput))
}

pub fn proof(a: f64, b: f64, counted: &[f64]) -> Case {
    let worths = BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
    Case::Proof { worths, counted: counted.to_vec() }
}

fn of_a() -> Vec<String> {
    vec!["a".to_owned()]
}

/// Two layers, one on each device at 10; a device with both carries 4. Divided by whether `a` holds one.
pub fn by_holding() -> (PlacementProblem, Plan) {
    let problem = pair(2, 10.0, 4.0);
    let mut plan = chain(&problem, &[("a", 0, 1), ("b", 1, 2)]);
    let divided = Case::Holding { devices: of_a(), layers_max: 1, count: 0 };
    let cases = vec![divided, proof(0.5, 0.9, &[0.5]), proof(2.0, 0.5, &[-1.2])];
    certify(&mut plan, 10.0, Evidence::Cases { ends: EndWeights::default(), cases, crossing: None });
    (problem, plan)
}

/// Four layers, two on each device at 10. Divided by whether `a` passes more than one layer alone.
pub fn by_layers_alone() -> (PlacementProblem, Plan) {
    let problem = pair(4, 20.0, 10.0);
    let mut plan = chain(&problem, &[("a", 0, 2), ("b", 2, 4)]);
    let divided = Case::Alone { devices: of_a(), count: 1 };
    let cases = vec![divided, proof(0.6, 1.6, &[0.5]), proof(1.6, 1.1, &[-0.5])];
    certify(&mut plan, 10.0, Evidence::Cases { ends: EndWeights::default(), cases, crossing: None });
    (problem, plan)
}

fn holds(
    problem: &PlacementProblem,
    plan: &Plan,
    bound: f64,
    ends: EndWeights,
    cases: Vec<Case>,
) -> Result<(), String> {
    let mut plan = plan.clone();
    plan.status = isotherm_core::plan::Status::Feasible;
    certify(&mut plan, bound, Evidence::Cases { ends, cases, crossing: None });
    plan.check(problem).map(|_| ()).map_err(|violations| format!("{violations:?}"))
}

#[test]
fn cases_by_how_many_devices_hold_few_layers_prove_a_bound_and_no_change_goes_unnoticed() {
    let (problem, plan) = by_holding();
    plan.clone().check(&problem).expect("proved");
    let plain = EndWeights::default();
    let divided = |count: u32, layers_max: u32| Case::Holding { devices: of_a(), layers_max, count };
    let try_cases = |bound: f64, cases: Vec<Case>| holds(&problem, &plan, bound, plain, cases);
    let (first, second) = (proof(0.5, 0.9, &[0.5]), proof(2.0, 0.5, &[-1.2]));
    assert_eq!(try_cases(10.0, vec![divided(0, 1), first.clone(), second.clone()]), Ok(()));
    let refused = [
        ("the second case has no proof", vec![divided(0, 1), first.clone()]),
        ("nothing is proved", Vec::new()),
        ("there is a third case", vec![divided(0, 1), first.clone(), second.clone(), second.clone()]),
        ("the cases are exchanged", vec![divided(0, 1), second.clone(), first.clone()]),
        ("the first case is not that of few", vec![divided(2, 1), first.clone(), second.clone()]),
        ("both numbers of layers are counted", vec![divided(0, 2), first.clone(), proof(2.0, 0.5, &[-2.1])]),
        ("nothing is divided", vec![first.clone()]),
        ("a layer of b is cheap", vec![divided(0, 1), proof(0.5, 0.7, &[0.5]), second.clone()]),
        ("a layer of a is cheap", vec![divided(0, 1), first.clone(), proof(1.9, 0.5, &[-1.2])]),
        ("the worths are too many", vec![divided(0, 1), proof(0.5, 1.5, &[0.5]), second.clone()]),
        ("a negative worth", vec![divided(0, 1), proof(-0.5, 0.9, &[0.5]), second.clone()]),
        ("no value", vec![divided(0, 1), proof(0.5, 0.9, &[]), second.clone()]),
        ("two values", vec![divided(0, 1), proof(0.5, 0.9, &[0.5, 0.0]), second.clone()]),
        ("a value of the wrong sign", vec![divided(0, 1), proof(0.5, 0.9, &[-0.1]), second.clone()]),
        ("another of the wrong sign", vec![divided(0, 1), first.clone(), proof(0.8, 0.5, &[0.1])]),
        ("a value that is none", vec![divided(0, 1), proof(0.5, 0.9, &[f64::NAN]), second.clone()]),
        ("a value beyond all measure", vec![divided(0, 1), proof(0.5, 0.9, &[1e300]), second.clone()]),
        ("a is paid for its layer", vec![divided(0, 1), first.clone(), proof(1.0, 1.1, &[-1.2])]),
    ];
    for (what, cases) in refused {
        assert!(try_cases(10.0, cases).is_err(), "{what}");
    }
    assert!(try_cases(9.9, vec![divided(0, 1), first.clone(), second.clone()]).is_err(), "the plan beats it");
    for devices in [vec!["z".to_owned()], vec!["a".to_owned(), "a".to_owned()]] {
        let divided = Case::Holding { devices, layers_max: 1, count: 0 };
        assert!(try_cases(10.0, vec![divided, first.clone(), second.clone()]).is_err());
    }
    let weighed = EndWeights { first: -0.5, last: 0.0 };
    let cases = vec![divided(0, 1), first, second];
    assert!(holds(&problem, &plan, 10.0, weighed, cases).is_err(), "an end that weighs less than nothing");
}

#[test]
fn cases_by_layers_that_some_devices_pass_alone_prove_a_bound_and_no_change_goes_unnoticed() {
    let (problem, plan) = by_layers_alone();
    plan.clone().check(&problem).expect("proved");
    let plain = EndWeights::default();
    let divided = |names: &[&str], count: u32| {
        let devices = names.iter().map(|&name| name.to_owned()).collect();
        Case::Alone { devices, count }
    };
    let (first, second) = (proof(0.6, 1.6, &[0.5]), proof(1.6, 1.1, &[-0.5]));
    let try_cases = |cases: Vec<Case>| holds(&problem, &plan, 10.0, plain, cases);
    assert_eq!(try_cases(vec![divided(&["a"], 1), first.clone(), second.clone()]), Ok(()));
    let refused = [
        (
            "a layer of a alone asks for half at least",
            vec![divided(&["a"], 1), proof(0.4, 1.6, &[0.5]), second.clone()],
        ),
        ("one of both asks for 1", vec![divided(&["a"], 1), proof(0.6, 1.3, &[0.5]), second.clone()]),
        ("many layers are let off", vec![divided(&["a"], 4), first.clone(), second.clone()]),
        ("more is asked for", vec![divided(&["a"], 1), first.clone(), proof(1.4, 1.1, &[-0.5])]),
        ("b alone asks for 1", vec![divided(&["a"], 1), first.clone(), proof(1.6, 0.9, &[-0.5])]),
        ("it is b that is counted", vec![divided(&["b"], 1), first.clone(), second.clone()]),
        (
            "groups that overlap",
            vec![
                divided(&["a"], 1),
                divided(&["a", "b"], 9),
                proof(0.6, 1.6, &[0.5, 0.0]),
                proof(0.6, 1.6, &[0.5, 0.0]),
                second.clone(),
            ],
        ),
    ];
    for (what, cases) in refused {
        assert!(try_cases(cases).is_err(), "{what}");
    }
    let weighed = EndWeights { first: 0.5, last: 0.0 };
    let cases = vec![divided(&["a"], 1), first, second];
    assert!(holds(&problem, &plan, 10.0, weighed, cases).is_err(), "layers that differ are not counted");
}

#[test]
fn divisions_without_end_are_refused() {
    let (problem, plan) = by_holding();
    let divided = Case::Holding { devices: of_a(), layers_max: 1, count: 0 };
    let refused = holds(&problem, &plan, 10.0, EndWeights::default(), vec![divided; 100_000]);
    assert!(refused.expect_err("too deep").contains("Deep"));
}
