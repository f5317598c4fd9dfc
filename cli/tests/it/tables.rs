//! Reports and tables of what was planned and simulated, and of a batch.

use crate::Place;
use std::path::{Path, PathBuf};

fn smoke() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/smoke").canonicalize().expect("scenarios are tracked")
}

/// Lines of a CSV file below its heading.
fn csv_rows(place: &Place, name: &str) -> usize {
    String::from_utf8(place.keep(name)).expect("UTF-8").lines().count() - 1
}

fn is_parquet(place: &Place, name: &str) -> bool {
    let bytes = place.keep(name);
    bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1")
}

#[test]
fn a_prediction_has_tables_and_all_that_a_report_needs() {
    let place = Place::new();
    let scenario = smoke().join("two-cpu.toml");
    let scenario = scenario.display();
    place.expect(0, &format!("-q plan {scenario} -o plan.json"));
    place.expect(0, &format!("-q simulate plan.json {scenario} -o prediction"));
    assert_eq!(csv_rows(&place, "prediction/requests.csv"), 4, "one row a request");
    assert_eq!(csv_rows(&place, "prediction/runs.csv"), 1, "one row a trace");
    place.expect(0, "-q report prediction");
    let page = String::from_utf8(place.keep("prediction/report.html")).expect("UTF-8");
    assert!(page.contains("How long does a token of SmolLM2 take"), "the page asks the scenario's question");
    assert!(["requests", "runs"].iter().all(|name| is_parquet(&place, &format!("prediction/{name}.parquet"))));
    assert_eq!(csv_rows(&place, "prediction/requests.csv"), 4, "the report writes the same table");
}

#[test]
fn a_prediction_replaces_nobodys_plan() {
    let place = Place::new();
    let scenario = smoke().join("two-cpu.toml");
    let scenario = scenario.display();
    place.expect(0, &format!("-q plan {scenario} -o plan.json"));
    std::fs::create_dir(place.path("prediction")).expect("writable");
    place.write("prediction/plan.json", "another");
    let (_, message) = place.expect(1, &format!("-q simulate plan.json {scenario} -o prediction"));
    assert!(message.contains("differs"), "{message}");
    assert_eq!(place.keep("prediction/plan.json"), b"another");
    assert!(!place.path("prediction/simulation.json").exists());
}
