//! Simulations of the shipped scenarios give the digests that are written down, event by event the same.

use crate::Place;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Scenarios whose plan is proven optimal within seconds.
const SCENARIOS: [&str; 4] =
    ["smoke/two-cpu", "reference/dgx-h100-chat", "reference/edge-phones", "reference/home-pile"];

/// Those whose plan depends on the time it gets, so that it is kept in `tests/plans`. Infeasible scenarios and those of
/// rates alone are not simulated.
const KEPT: [&str; 2] = ["smoke/three-mixed", "reference/two-site"];

const HEAD: &str = "\
# Digests over every event of the simulations of shipped scenarios, three replications each: scenario, stages of the
# plan, digest. A change of any says that times, order or chance changed somewhere. Find out what changed it, say so in
# the commit, and write the file again:
#
#     ISOTHERM_GOLDEN=write cargo test -p isotherm-cli --test it golden
";

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden.txt")
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("JSON on standard output")
}

/// Whether the file is to be written again.
fn writes() -> bool {
    std::env::var_os("ISOTHERM_GOLDEN").is_some_and(|word| word == "write")
}

/// The stages of a plan in a few words: devices and layers.
fn stages(plan: &serde_json::Value) -> String {
    let stages = plan["stages"].as_array().expect("stages").iter();
    let words = stages.map(|stage| {
        let devices: Vec<&str> =
            stage["devices"].as_array().expect("devices").iter().flat_map(|d| d.as_str()).collect();
        format!("{}:{}..{}", devices.join("+"), stage["layers"]["start"], stage["layers"]["end"])
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn shipped_scenarios_simulate_event_by_event_as_written_down() {
    let place = Place::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut found = String::from(HEAD);
    for name in SCENARIOS {
        let scenario = folder.join(name).with_extension("toml");
        let scenario = scenario.display();
        let plan = json(&place.expect(0, &format!("-q plan {scenario} -o plan.json --format json")).0);
        assert_eq!(plan["status"], "optimal", "{name}");
        let run = json(&place.expect(0, &format!("-q simulate plan.json {scenario} --seeds 3 --format json")).0);
        let digest = run["digest"].as_str().expect("a digest");
        writeln!(found, "\n{name}\n  {}\n  {digest}", stages(&plan)).expect("a string grows");
    }
    for name in KEPT {
        let scenario = folder.join(name).with_extension("toml");
        let scenario = scenario.display();
        let kept = file().with_file_name("plans").join(format!("{}.json", name.replace('/', "-")));
        if writes() {
            place.expect(0, &format!("-q plan {scenario} --time-limit 20s -o {}", kept.display()));
        }
        let plan = json(&std::fs::read_to_string(&kept).expect("the plan is tracked"));
        let run = format!("-q simulate {} {scenario} --seeds 3 --format json", kept.display());
        let run = json(&place.expect(0, &run).0);
        let digest = run["digest"].as_str().expect("a digest");
        writeln!(found, "\n{name}\n  {}\n  {digest}", stages(&plan)).expect("a string grows");
    }
    if writes() {
        std::fs::write(file(), &found).expect("writable");
    }
    let stated = std::fs::read_to_string(file()).expect("the file is tracked");
    assert_eq!(found, stated, "{} says how to renew it", file().display());
}
