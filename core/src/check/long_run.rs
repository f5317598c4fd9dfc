//! Whether what a plan says of the long run is so, and whether heat and power leave room for it.

use super::Violation;
use crate::plan::{DeviceState, Plan, Sustained};
use crate::problem::PlacementProblem;
use crate::sustained::{exceeded, state};
use crate::units::{Celsius, Watts};

/// Relative difference up to which two figures agree: temperatures come of sums and of a bisection.
const AGREE: f64 = 1e-6;

/// Everything wrong with what a plan states of the long run; nothing where it states nothing.
pub(super) fn faults(plan: &Plan, problem: &PlacementProblem) -> Vec<Violation> {
    let Some(stated) = &plan.sustained else { return Vec::new() };
    let (Some(found), Some(exceeded)) = (state(plan, problem), exceeded(plan, problem)) else {
        // What is missing has been reported with stages and routes.
        return Vec::new();
    };
    let hot = |(row, used): (crate::sustained::Row, f64)| {
        let (what, most) = (row.subject.to_string(), row.most);
        Violation::TooHot { what, used, most }
    };
    exceeded.into_iter().map(hot).chain(differences(stated, &found)).collect()
}

fn differences(stated: &Sustained, found: &Sustained) -> Vec<Violation> {
    let names = |all: &Sustained| all.devices.iter().map(|d| d.device.as_str()).collect::<Vec<_>>().join(", ");
    if names(stated) != names(found) {
        let (place, stated, recomputed) = ("the list of devices".to_owned(), names(stated), names(found));
        return vec![Violation::Sustained { place, stated, recomputed }];
    }
    let figures = |said: &DeviceState| {
        [
            ("speed", Some(said.speed)),
            ("utilisation", Some(said.utilisation)),
            ("power", said.watts.map(Watts::value)),
            ("temperature", said.celsius.map(Celsius::value)),
            ("temperature limit", said.limit_celsius.map(Celsius::value)),
        ]
    };
    let mut all = vec![("the air".to_owned(), Some(stated.air_celsius.value()), Some(found.air_celsius.value()))];
    for (said, is) in stated.devices.iter().zip(&found.devices) {
        let pairs = figures(said).into_iter().zip(figures(is));
        all.extend(pairs.map(|((what, a), (_, b))| (format!("the {what} of {}", said.device), a, b)));
    }
    let shown = |value: Option<f64>| value.map_or_else(|| "absent".to_owned(), |v| v.to_string());
    all.into_iter()
        .filter(|(_, a, b)| match (a, b) {
            // A figure that is no number agrees with nothing.
            (Some(a), Some(b)) => (a - b).is_nan() || (a - b).abs() > AGREE * b.abs().max(1.0),
            (a, b) => a != b,
        })
        .map(|(place, a, b)| Violation::Sustained { place, stated: shown(a), recomputed: shown(b) })
        .collect()
}
