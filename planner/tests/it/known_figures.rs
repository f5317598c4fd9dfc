//! The figures that are known, on instances that others published.

use crate::helix;
use isotherm_core::plan::BoundKind;
use isotherm_planner::{Budget, Outcome, plan};

fn certified(instance: &str, expected: f64) {
    let Some(all) = helix::instances(instance) else { return };
    let problem = helix::problem(instance, &all[instance], false);
    let outcome = plan(&problem, &Budget::default()).expect("plans");
    let Outcome::Optimal(found) = &outcome else { panic!("{instance}: {outcome:?}") };
    let value = found.plan().objective_value.expect("a value");
    assert!((value - expected).abs() < 1e-3, "{instance}: {value} instead of {expected}");
    let certificate = found.plan().certificate.as_ref().expect("a certificate");
    assert_eq!(certificate.bound_kind, BoundKind::Certified, "{certificate:?}");
}

#[test]
fn single24_is_2045_641_and_certified() {
    certified("single24", 2045.641);
}

#[test]
fn l30b_a100_is_1044_533_and_certified() {
    certified("l30b_a100", 1044.533);
}

#[test]
fn quality10_is_286_587_and_certified() {
    certified("quality10", 286.587);
}
