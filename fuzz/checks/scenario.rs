//! Any text as a scenario and its tables: faults that each say where and what to do, or a problem whose questions all
//! have an answer.

use isotherm_core::ids::Layers;
use isotherm_core::scenario::Scenario;

/// Layers and devices up to which every question is asked.
const ASKED_MAX: usize = 8;

/// Panics where the promise above is broken.
pub fn check(text: &str) {
    // What follows a zero byte is the text of every table that the scenario refers to.
    let (text, table) = text.split_once('\0').unwrap_or((text, ""));
    let mut lookup = |_, _: &str| if table.is_empty() { Err(vec!["known".to_owned()]) } else { Ok(table.to_owned()) };
    let scenario = match Scenario::parse(text, &mut lookup) {
        Ok(scenario) => scenario,
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a fault");
            for fault in faults {
                assert!(!fault.to_string().is_empty());
                assert!(!fault.fault.remedy().is_empty(), "{fault} has no remedy");
            }
            return;
        }
    };
    let Ok(problem) = scenario.problem(None, None) else { return };
    let layers = Layers::new(0, problem.layers());
    for device in problem.graph.device_ids().take(ASKED_MAX) {
        let _ = problem.stage_bytes(device, layers);
        let _ = problem.rate(device, layers, &problem.life(2));
        let _ = problem.exclusion(device);
        for other in problem.graph.device_ids().take(ASKED_MAX) {
            let _ = problem.decode_hop(device, other);
        }
    }
}
