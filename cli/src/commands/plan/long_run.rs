//! What a plan asks of its devices in the long run, in words.

use crate::ui::table;
use isotherm_core::plan::{DeviceState, Plan};
use isotherm_core::problem::PlacementProblem;
use isotherm_core::sustained::{Envelope, binding, throttled};

/// Share of a limit from which a plan is said to be at it.
const NEAR: f64 = 0.01;

/// The devices' clocks, powers and temperatures; or what heat would make of a plan that does not care.
pub fn describe(plan: &Plan, problem: &PlacementProblem) -> String {
    match &plan.sustained {
        Some(sustained) => {
            let mut text = format!("\n  in the long run, in air of {}:\n", sustained.air_celsius);
            let heading = ["device", "clock", "at work", "mean power", "temperature", "slows at"];
            let mut rows = vec![heading.map(str::to_owned).to_vec()];
            rows.extend(sustained.devices.iter().map(row));
            text.push_str(&table(&rows, &[1, 2, 3, 4, 5]));
            let tight: Vec<String> = binding(plan, problem, NEAR).iter().map(ToString::to_string).collect();
            if !tight.is_empty() {
                text.push_str(&format!("  at its limit: {}\n", tight.join(", ")));
            }
            text
        }
        None => cold(plan, problem).unwrap_or_default(),
    }
}

fn row(state: &DeviceState) -> Vec<String> {
    let unknown = || "unknown".to_owned();
    vec![
        state.device.clone(),
        format!("{:.1} %", state.speed * 100.0),
        format!("{:.1} %", state.utilisation * 100.0),
        state.watts.map_or_else(unknown, |watts| format!("{:.1} W", watts.value())),
        state.celsius.map_or_else(unknown, |celsius| format!("{:.1} °C", celsius.value())),
        state.limit_celsius.map_or_else(unknown, |celsius| celsius.to_string()),
    ]
}

/// What a plan that does not care for heat loses once its devices are warm; none where heat changes nothing.
fn cold(plan: &Plan, problem: &PlacementProblem) -> Option<String> {
    if Envelope::of(problem).is_empty() {
        return None;
    }
    let warm = throttled(plan, problem)?;
    if warm.slowed.is_empty() {
        return None;
    }
    let slowed: Vec<String> =
        warm.slowed.iter().map(|(device, speed)| format!("{device} to {:.1} %", speed * 100.0)).collect();
    let lost = (warm.value / warm.cold - 1.0) * 100.0;
    Some(format!(
        "\n  once warm (estimated): {} falls from {:.3} to {:.3} {}, {lost:+.1} %; heat slows {}\n",
        plan.objective_name,
        warm.cold,
        warm.value,
        plan.unit,
        slowed.join(", ")
    ))
}
