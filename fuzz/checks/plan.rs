//! Any bytes as a stored plan: an error, or a plan that is written and read back unchanged and that the checker judges
//! without a panic, whatever it says.

use isotherm_core::plan::Plan;
use isotherm_core::problem::PlacementProblem;
use isotherm_core::scenario::Scenario;
use std::path::Path;
use std::sync::LazyLock;

/// A problem of the project's own, with its tables.
static PROBLEM: LazyLock<PlacementProblem> = LazyLock::new(|| {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let text = std::fs::read_to_string(scenarios.join("smoke/three-mixed.toml")).expect("the scenario is tracked");
    let mut lookup = |kind: isotherm_core::scenario::Kind, name: &str| {
        let table = scenarios.join(format!("{}s/{name}.toml", kind.word()));
        std::fs::read_to_string(table).map_err(|_| Vec::new())
    };
    let scenario = Scenario::parse(&text, &mut lookup).expect("the scenario is sound");
    scenario.problem(None, None).expect("the scenario makes a problem")
});

/// Panics where the promise above is broken.
pub fn check(data: &[u8]) {
    let Ok(plan) = serde_json::from_slice::<Plan>(data) else { return };
    let written = serde_json::to_vec(&plan).expect("a plan that was read can be written");
    let again: Plan = serde_json::from_slice(&written).expect("a plan that was written can be read");
    assert_eq!(again, plan);
    assert_eq!(again.digest(), plan.digest());
    let found = plan.violations(&PROBLEM);
    assert_eq!(plan.check(&PROBLEM).is_ok(), found.is_empty() && again.status.has_plan());
}
