//! What criterion measured, in the same form: its `estimates.json`, medians in nanoseconds with their intervals.

use super::{Better, Case};
use crate::failure::Failure;
use crate::files;
use serde::Deserialize;
use std::path::Path;

/// Deepest folder below criterion's.
const DEPTH_MAX: usize = 6;

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

#[derive(Deserialize)]
struct Estimate {
    confidence_interval: Interval,
    point_estimate: f64,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

/// Every benchmark below a folder, by name.
pub fn cases(folder: &Path) -> Result<Vec<Case>, Failure> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((place, depth)) = open.pop() {
        let estimates = place.join("new/estimates.json");
        if estimates.is_file() {
            let read: Estimates = serde_json::from_slice(&files::read(&estimates)?)
                .map_err(|e| Failure::file(&estimates, format!("is none of criterion's: {e}")))?;
            let name = place.strip_prefix(folder).unwrap_or(&place).display().to_string();
            let seconds = |nanoseconds: f64| nanoseconds * 1e-9;
            let interval = &read.median.confidence_interval;
            found.push(Case {
                subject: "criterion".to_owned(),
                scenario: "criterion".to_owned(),
                query: name,
                metric: "median_time".to_owned(),
                unit: "s".to_owned(),
                better: Better::Lower,
                runs: Vec::new(),
                throttled_runs: Vec::new(),
                median: Some(seconds(read.median.point_estimate)),
                interval: Some((seconds(interval.lower_bound), seconds(interval.upper_bound))),
                queries: 0,
                queries_min: None,
                note: Some("criterion's own median and interval".to_owned()),
            });
            continue;
        }
        if depth < DEPTH_MAX {
            let entries = std::fs::read_dir(&place).map_err(|e| Failure::file(&place, e))?;
            open.extend(
                entries.filter_map(|e| e.ok().map(|e| e.path())).filter(|p| p.is_dir()).map(|p| (p, depth + 1)),
            );
        }
    }
    found.sort_by(|a, b| a.query.cmp(&b.query));
    Ok(found)
}
