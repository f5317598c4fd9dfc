//! The figures that are known, on instances that others published and on one that anybody can add up.

use crate::helix;
use crate::world::closed;
use isotherm_core::plan::{BoundKind, Evidence};
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

#[test]
fn what_whole_devices_cannot_share_is_seen_layer_by_layer() {
    // At 10, three devices of two layers are worth three layers, two of which they can hold.
    let tables: [&[f64]; 3] = [&[6.0, 5.0], &[6.0, 5.0], &[6.0, 5.0]];
    let optimum = |partial: bool| {
        let problem = crate::baselines::mesh(3, &tables, 1e9, partial);
        let outcome = plan(&problem, &Budget::default()).expect("plans");
        let found = closed(&outcome).unwrap_or_else(|| panic!("{outcome:?}")).plan().clone();
        (found.objective_value, found.certificate.and_then(|certificate| certificate.evidence))
    };
    let (value, evidence) = optimum(false);
    assert_eq!(value, Some(6.0));
    assert!(matches!(evidence, Some(Evidence::LayerByLayer { .. })), "{evidence:?}");
    let (_, evidence) = optimum(true);
    assert!(!matches!(evidence, Some(Evidence::LayerByLayer { .. })), "{evidence:?}");
}
