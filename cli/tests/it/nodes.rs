//! Which node runs a manifest and signs its run, whose keys are believed, and that each door and event is on record.

use super::{Place, sealed};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

const RUN: &str = "-q run manifest.json --prompt hello --raw --tokens 2";

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON on standard output")
}

fn elsewhere(place: &Place, home: &str, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isotherm"));
    command.args(line.split_whitespace()).current_dir(place.0.path()).env("ISOTHERM_HOME", place.path(home));
    command.output().expect("the program starts")
}

/// The public key of a home, which is made if absent, in a file of its name.
fn key_of(place: &Place, home: &str) -> String {
    elsewhere(place, home, "-q keys new");
    let shown = elsewhere(place, home, "-q keys show --ssh");
    let name = format!("{home}.pub");
    std::fs::write(place.path(&name), shown.stdout).expect("writable");
    name
}

fn copied(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp starts");
    assert!(status.success());
}

#[test]
fn another_home_on_a_host_of_the_same_name_does_not_run_what_was_sealed_for_this_ones_key() {
    let place = sealed();
    let host = key_of(&place, "home");
    key_of(&place, "other");
    let believed = elsewhere(&place, "other", &format!("-q keys trust {host}"));
    assert!(believed.status.success(), "{}", String::from_utf8_lossy(&believed.stderr));
    assert!(elsewhere(&place, "other", "-q verify manifest.json").status.success(), "looking at it is allowed");
    let refused = elsewhere(&place, "other", RUN);
    assert_eq!(refused.status.code(), Some(5));
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("it is for the node") && words.contains("seal the plan on the host"), "{words}");
    place.expect(0, RUN);
    // What this host ran verifies there too, by the key of the node that the manifest names.
    let receipt = elsewhere(&place, "other", "-q verify manifest.json --run run-1.signed.json");
    assert!(receipt.status.success(), "{}", String::from_utf8_lossy(&receipt.stderr));
}

#[test]
fn what_the_old_key_sealed_goes_on_running_where_the_rotation_said_so_and_its_runs_have_receipts() {
    let place = sealed();
    place.expect(0, RUN);
    place.expect(0, "-q keys rotate --keep-old");
    place.expect(0, RUN);
    for run in ["run-1", "run-2"] {
        place.expect(0, &format!("-q verify manifest.json --run {run}.signed.json"));
    }
    let old = json(&place.expect(0, "-q keys list --format json").0);
    let old = old.as_array().expect("a list").iter().find(|key| key["own"] == false).expect("two keys")["key"].clone();
    place.expect(0, &format!("-q keys distrust {}", old.as_str().expect("an id")));
    place.expect(5, RUN);
    place.expect(5, "-q verify manifest.json --run run-2.signed.json");
}

#[test]
fn a_receipt_takes_the_nodes_signature_alone_where_manifests_take_two() {
    let place = sealed();
    let (host, approver) = (key_of(&place, "home"), key_of(&place, "approver"));
    place.expect(0, &format!("-q keys trust {approver}"));
    place.expect(0, "-q keys threshold 2");
    elsewhere(&place, "approver", &format!("-q keys trust {host}"));
    let approved = elsewhere(&place, "approver", "-q keys approve manifest.json");
    assert!(approved.status.success(), "{}", String::from_utf8_lossy(&approved.stderr));
    place.expect(0, RUN);
    place.expect(0, "-q verify manifest.json --run run-1.signed.json");
}

#[test]
fn a_second_manifest_under_the_same_counter_does_not_run_beside_the_first() {
    let place = sealed();
    // Somebody who has a copy of the whole home seals beside it.
    copied(&place.path("home"), &place.path("copy"));
    let seal = "-q seal plan.json scenario.toml --devices devices.json --model model.gguf --simulation simulation.json";
    place.expect(0, &format!("{seal} -o first.json"));
    let second = elsewhere(&place, "copy", &format!("{seal} -o second.json"));
    assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
    let run = |name: &str| format!("-q run {name} --prompt hello --raw --tokens 2");
    place.expect(0, &run("first.json"));
    place.expect(0, &run("first.json"));
    let (_, message) = place.expect(5, &run("second.json"));
    assert!(message.contains("another one with it ran here before"), "{message}");
}

#[test]
fn a_key_is_believed_and_believed_no_more_by_commands_that_leave_a_trace() {
    let place = sealed();
    let guest = key_of(&place, "guest");
    let own = json(&place.expect(0, "-q keys show --format json").0)["key"].clone();
    place.expect(0, &format!("-q keys trust {guest}"));
    place.expect(0, &format!("-q keys trust {guest}"));
    assert_eq!(json(&place.expect(0, "-q keys list --format json").0).as_array().map(Vec::len), Some(2));
    place.expect(0, "-q keys threshold 2");
    let (_, message) = place.expect(5, &format!("-q keys distrust {guest}"));
    assert!(message.contains("1 keys would be left, and 2 must sign"), "{message}");
    place.expect(0, "-q keys threshold 1");
    place.expect(0, &format!("-q keys distrust {guest}"));
    place.expect(2, &format!("-q keys distrust {guest}"));
    let (_, message) = place.expect(2, &format!("-q keys distrust {}", own.as_str().expect("an id")));
    assert!(message.contains("always believes its own key"), "{message}");
    let found = json(&place.expect(0, "-q audit query --kind security.policy_removed --format json").0);
    assert_eq!(found["entries"].as_array().map(Vec::len), Some(1), "{found}");
}

#[test]
fn every_step_of_a_plan_to_its_receipt_is_an_event_of_its_own_kind() {
    let place = sealed();
    place.expect(0, RUN);
    place.expect(0, "-q verify manifest.json");
    place.expect(0, "-q devices --here");
    place.write("none.json", "{}");
    place.expect(5, "-q verify none.json");
    for kind in [
        "keys.created",
        "probe",
        "plan.accepted",
        "seal",
        "verify.accepted",
        "verify.refused",
        "run.started",
        "run.finished",
        "system.backend_initialized",
        "system.backend_shutdown",
        "system.discovery_started",
        "system.discovery_completed",
        "device.list",
        "device.info",
        "memory.allocate",
        "memory.deallocate",
        "compute.execute",
    ] {
        let found = json(&place.expect(0, &format!("-q audit query --kind {kind} --format json")).0);
        assert!(found["entries"].as_array().is_some_and(|found| !found.is_empty()), "{kind}");
    }
    // A plan that does not hold is an event as well.
    let plan = place.keep("plan.json");
    let wrong = String::from_utf8(plan).expect("UTF-8").replacen("\"start\": 0", "\"start\": 1", 1);
    place.write("plan.json", &wrong);
    place.expect(5, "-q check plan.json scenario.toml --devices devices.json --model model.gguf");
    let found = json(&place.expect(0, "-q audit query --kind plan.rejected --severity warning --format json").0);
    assert_eq!(found["entries"].as_array().map(Vec::len), Some(1), "{found}");
    let denied = json(&place.expect(0, "-q audit query --result denied --format json").0);
    assert_eq!(denied["entries"].as_array().map(Vec::len), Some(0), "{denied}");
    place.expect(2, "-q audit query --result maybe");
}

#[test]
fn the_commands_that_time_devices_are_doors_like_any_other() {
    let place = sealed();
    place.write("site.cedar", "@id(\"closed\") @reason(\"closed for the night\") forbid (principal, action == Action::\"compute:execute\", resource);");
    place.expect(0, "-q access policies site.cedar");
    for door in ["-q bench all --only device -o b", "-q bench targets -o b"] {
        let (_, message) = place.expect(8, door);
        assert!(message.contains("closed for the night"), "{door}: {message}");
    }
    assert!(!place.path("b").exists());
    let denied = json(&place.expect(0, "-q audit query --result denied --format json").0);
    assert_eq!(denied["entries"].as_array().map(Vec::len), Some(2), "{denied}");
}

#[test]
fn the_logs_speed_is_measured_with_and_without_a_disk_and_no_log_of_the_host_is_touched() {
    let place = sealed();
    let before = std::fs::read(place.path("home/log/checkpoint")).expect("readable");
    let measured = json(&place.expect(0, "-q audit bench --entries 200 --batch 50 --singles 3 --format json").0);
    let rows = measured["rows"].as_array().expect("rows");
    assert!(rows.iter().any(|row| row["durable"] == true && row["what"] == "in batches"), "{measured}");
    assert!(rows.iter().all(|row| row["entries_per_second"].as_f64().is_some_and(|rate| rate > 0.0)), "{measured}");
    assert!(measured["times_the_bare_calls"].as_f64().is_some_and(|times| times > 0.0), "{measured}");
    assert_eq!(std::fs::read(place.path("home/log/checkpoint")).expect("readable"), before);
    place.expect(2, "-q audit bench --entries 1");
    place.expect(2, "-q audit bench --batch 0");
}
