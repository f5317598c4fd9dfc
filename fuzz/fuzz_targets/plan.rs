//! Any bytes as a stored plan: an error, or a plan that is written and read back unchanged.

#![no_main]

use isotherm_core::plan::Plan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(plan) = serde_json::from_slice::<Plan>(data) else { return };
    let written = serde_json::to_vec(&plan).expect("a plan that was read can be written");
    let again: Plan = serde_json::from_slice(&written).expect("a plan that was written can be read");
    assert_eq!(again, plan);
    assert_eq!(again.digest(), plan.digest());
});
