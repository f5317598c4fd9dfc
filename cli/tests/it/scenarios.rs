//! The pages of `scenarios/` state answers; planning and simulating the scenarios gives them.

use crate::Place;
use std::path::{Path, PathBuf};

/// Time for a plan that the page calls optimal, which takes seconds; ample, so that a busy machine does not matter.
const PROVEN_LIMIT: &str = "120s";
/// Time for a plan whose proof is open. It may end at the limit, and so is held to little below.
const OPEN_LIMIT: &str = "8s";
/// Share by which a figure may differ from the page, which rounds.
const ROUNDED: f64 = 0.01;
/// Share by which a plan whose proof is open may fall behind: a busy machine finds less in time.
const OPEN: f64 = 0.5;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").canonicalize().expect("scenarios are tracked")
}

/// The rows of a page's table: scenario, planned, proven, simulated.
fn rows(page: &str) -> Vec<[String; 4]> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = page.lines().filter(|line| line.starts_with("| [")).map(cells);
    rows.map(|row| <[String; 4]>::try_from(row).expect("four cells")).collect()
}

/// A figure as a page writes it, in seconds or tokens per second.
fn figure(words: &str) -> f64 {
    let (value, unit) = words.split_once(' ').expect("a number and its unit");
    let scale = match unit {
        "ms" => 1e-3,
        "s" | "tok/s" => 1.0,
        other => panic!("unit {other:?} of {words:?}"),
    };
    value.parse::<f64>().expect("a number") * scale
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("JSON on standard output")
}

/// Asserts that a figure is what the page says; where the plan is not proven optimal, a better one may have come.
fn assert_figure(what: &str, found: f64, stated: f64, more_is_better: bool, optimal: bool) {
    let share = found / stated - 1.0;
    let behind = if more_is_better { -share } else { share };
    let holds = if optimal { behind.abs() <= ROUNDED } else { behind <= OPEN };
    assert!(holds, "{what}: found {found}, the page says {stated}; mend the page or the planner");
}

fn assert_row(place: &Place, scenario: &Path, [name, planned, proven, simulated]: &[String; 4]) {
    let scenario = scenario.display();
    if proven == "infeasible" {
        let (plan, _) = place.expect(3, &format!("-q plan {scenario} --format json"));
        assert_eq!(json(&plan)["status"], "infeasible", "{name}");
        return;
    }
    let optimal = proven == "optimal";
    let limit = if optimal { PROVEN_LIMIT } else { OPEN_LIMIT };
    let plan = format!("-q plan {scenario} --time-limit {limit} -o plan.json --format json");
    let plan = json(&place.expect(0, &plan).0);
    let (objective, value) = planned.split_once(' ').expect("an objective and its value");
    assert_eq!(plan["objective_name"], objective, "{name}");
    let more_is_better = objective == "throughput";
    let found = plan["objective_value"].as_f64().expect("a value");
    assert_figure(&format!("{name}, planned"), found, figure(value), more_is_better, optimal);
    if optimal {
        assert_eq!(plan["status"], "optimal", "{name}");
    } else {
        // However little time there was, no plan and no bound may contradict what the page claims.
        let stated = proven.strip_prefix("within ").and_then(|p| p.strip_suffix(" %")).expect("within N %");
        let stated: f64 = stated.parse().expect("a number");
        let bound = plan["certificate"]["bound"].as_f64().expect("a bound");
        assert!(
            found <= figure(value) * (1.0 + stated / 100.0) * (1.0 + ROUNDED),
            "{name}: {found} is past the page's bound"
        );
        assert!(bound >= figure(value) * (1.0 - ROUNDED), "{name}: the bound {bound} refutes the page's plan");
    }
    if simulated == "nothing" {
        return;
    }
    let (simulation, _) = place.expect(0, &format!("-q simulate plan.json {scenario} --seeds 3 --format json"));
    let metric = match objective {
        "throughput" => "tokens_per_second".to_owned(),
        time => format!("{time}_seconds"),
    };
    let found = json(&simulation)["metrics"][&metric]["mean"].as_f64().expect("a mean");
    // Another plan of the same value may simulate differently, and so may one found in less time.
    let times = if optimal { 1.05 } else { 3.0 };
    let share = found / figure(simulated);
    assert!(share < times && share > 1.0 / times, "{name}, simulated: found {found}, the page says {simulated}");
}

#[test]
fn each_scenario_has_the_answer_that_its_page_states() {
    let place = Place::new();
    for part in ["smoke", "reference"] {
        let folder = folder().join(part);
        let page = std::fs::read_to_string(folder.join("README.md")).expect("each folder has its page");
        let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
        let rows = rows(&page);
        let mut listed = Vec::new();
        for row in &rows {
            let file = row[0].split(['(', ')']).nth(1).expect("a link to the scenario");
            let text = std::fs::read_to_string(folder.join(file)).expect("the scenario is there");
            let question = text.lines().find_map(|line| line.strip_prefix("question = \"")).expect("a question");
            assert!(words.contains(question.trim_end_matches('"')), "{part}/README.md does not ask {question:?}");
            listed.push(file.to_owned());
            assert_row(&place, &folder.join(file), row);
        }
        let entries = std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        let mut present: Vec<String> = entries
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
            .collect();
        present.sort();
        listed.sort();
        assert_eq!(listed, present, "{part}/README.md has one row for each scenario");
    }
}

#[test]
fn the_scenario_template_plans_and_simulates_with_the_devices_it_describes() {
    let place = Place::new();
    place.expect(0, "-q scenario new -o scenario.toml");
    place.expect(0, "-q scenario check scenario.toml");
    place.expect(0, "-q plan scenario.toml -o plan.json");
    place.expect(0, "-q check plan.json scenario.toml");
    place.expect(0, "-q simulate plan.json scenario.toml -o prediction");
}

#[test]
fn a_search_that_no_clock_ends_gives_the_same_plan_again() {
    let place = Place::new();
    let scenario = folder().join("smoke/three-mixed.toml");
    let again = || {
        let plan = format!("-q plan {} --nodes 200 --format json", scenario.display());
        let mut plan = json(&place.expect(0, &plan).0);
        let provenance = plan["provenance"].take();
        assert_eq!(provenance["time_limited"], false);
        plan
    };
    assert_eq!(again(), again());
    let (_, words) = place.expect(2, &format!("-q plan {} --nodes 5 --time-limit 3s", scenario.display()));
    assert!(words.contains("--time-limit"), "{words}");
}
