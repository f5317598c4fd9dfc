//! Keys, rules and the log, from outside: every door is watched, and what was done can be shown to strangers.

use super::sealed;
use serde_json::Value;
use std::process::Command;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON on standard output")
}

#[test]
fn a_denial_ends_every_door_with_8_and_is_in_the_log() {
    let place = sealed();
    let rights = json(&place.expect(0, "-q access list --format json").0);
    assert_eq!(rights["principals"][0]["roles"], serde_json::json!(["admin"]), "the first key is the administrator");
    let (said, _) = place.expect(0, "-q access explain compute:execute cpu0");
    assert!(said.contains("role-admin"), "{said}");
    // A forbid overrides the administrator too.
    place.write(
        "site.cedar",
        "@id(\"closed\") @reason(\"closed for the night\") forbid (principal, action == Action::\"compute:execute\", resource);",
    );
    place.expect(0, "-q access policies site.cedar --dry-run");
    place.expect(0, "-q access policies site.cedar");
    let sources = "--devices devices.json --model model.gguf";
    for door in [
        "-q run manifest.json --prompt hello --raw --tokens 2",
        "-q probe --model model.gguf --budget 100ms -o other.json",
        &format!("-q seal plan.json scenario.toml {sources} --simulation simulation.json -o other-manifest.json"),
        "-q access check compute:execute cpu",
    ] {
        let (_, message) = place.expect(8, door);
        assert!(message.contains("closed for the night"), "{door}: {message}");
    }
    assert!(!place.path("other.json").exists() && !place.path("other-manifest.json").exists());
    let denied = json(&place.expect(0, "-q audit query --kind security.access_denied --format json").0);
    assert!(denied["entries"].as_array().expect("a list").len() >= 4, "{denied}");
    place.write("wrong.cedar", "permit (principal, action == Action::\"memory:steal\", resource);");
    place.expect(5, "-q access policies wrong.cedar");
    place.write("none.cedar", "");
    place.expect(0, "-q access policies none.cedar");
    place.expect(0, "-q run manifest.json --prompt hello --raw --tokens 2");
    let held = json(&place.expect(0, "-q access list --format json").0);
    assert_eq!(held["principals"][0]["held_bytes"], 0, "what a run took it gave back");
    // A quota below what the plan takes.
    place.expect(0, "-q access grant owner --quota 1B");
    let (_, message) = place.expect(8, "-q run manifest.json --prompt hello --raw --tokens 2");
    assert!(message.contains("over-quota"), "{message}");
}

#[test]
fn a_run_has_a_receipt_and_an_altered_record_has_none() {
    let place = sealed();
    place.expect(0, "-q run manifest.json --prompt hello --raw --tokens 4");
    let receipt = json(&place.expect(0, "-q verify manifest.json --run run-1.signed.json --format json").0);
    assert_eq!(
        (&receipt["verified"], &receipt["outcome"], &receipt["tokens"]),
        (&true.into(), &"completed".into(), &4.into())
    );
    let figures = receipt["figures"].as_array().expect("a list");
    assert!(figures.iter().any(|line| line["predicted"].is_i64() && line["measured"].is_i64()), "{receipt}");
    assert!(receipt["parts"].as_object().expect("parts").keys().any(|name| name.starts_with("stage 0 on ")));
    let (said, _) = place.expect(0, "-q verify manifest.json --run run-1.signed.json");
    assert!(said.contains("do not show that the figures are true"), "{said}");
    place.alter("run-1.json");
    place.expect(5, "-q verify manifest.json --run run-1.signed.json");
}

#[test]
fn the_log_is_proven_witnessed_and_moved_out_by_commands() {
    let place = sealed();
    place.expect(0, "-q audit prove 1 -o one.proof");
    place.expect(0, "-q audit verify one.proof");
    place.expect(0, "-q audit fsck --against manifest.json");
    place.alter("one.entry.json");
    place.expect(5, "-q audit verify one.proof");
    let (lines, _) = place.expect(0, "-q audit export");
    assert!(lines.lines().all(|line| json(line)["specversion"] == "1.0"), "{lines}");
    // A witness with a home of its own sees the checkpoint and the key alone.
    let (key, _) = place.expect(0, "-q keys show --ssh");
    place.write("log.pub", &key);
    let witness = |line: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isotherm"));
        command.args(line.split_whitespace()).current_dir(place.0.path());
        command.env("ISOTHERM_HOME", place.path("witness-home")).output().expect("the program starts")
    };
    place.expect(0, "-q audit request -o request");
    let output = witness("-q audit witness request --log-key log.pub -o line");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = witness("-q keys show --ssh");
    std::fs::write(place.path("witness.pub"), shown.stdout).expect("writable");
    place.expect(0, "-q audit cosign line --name isotherm.local/witness --key witness.pub");
    let (note, _) = place.expect(0, "-q audit checkpoint");
    assert_eq!(note.lines().filter(|line| line.starts_with('\u{2014}')).count(), 2, "{note}");
    assert_eq!(witness("-q audit witness request --log-key log.pub").status.code(), Some(5), "it knows more by now");
    let moved = json(&place.expect(0, "-q audit retain --keep 1 --archive old.jsonl --format json").0);
    assert_eq!(moved["moved"], 0, "whole bundles of 256 alone");
}

#[test]
fn a_key_is_rotated_with_the_log_and_the_rules_and_a_lease_is_lent_and_revoked() {
    let place = sealed();
    let before = json(&place.expect(0, "-q keys show --format json").0);
    place.expect(0, "-q keys rotate");
    let after = json(&place.expect(0, "-q keys show --format json").0);
    assert_ne!(before["key"], after["key"]);
    place.expect(0, "-q audit fsck");
    place.expect(0, "-q access check compute:execute cpu");
    place.expect(5, "-q verify manifest.json");
    let sources = "--devices devices.json --model model.gguf";
    let again = format!(
        "-q seal plan.json scenario.toml {sources} --simulation simulation.json --bundle b.json --ssh-signature s.sig"
    );
    place.expect(0, &again);
    place.expect(0, "-q verify manifest.json");
    let bundle: Value = serde_json::from_slice(&place.keep("b.json")).expect("JSON");
    assert_eq!(bundle["mediaType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
    let lease =
        json(&place.expect(0, "-q access lease --to owner --scope compute:execute --valid 10min --format json").0);
    place.expect(0, &format!("-q access revoke {}", lease["lease"].as_str().expect("an id")));
    place.expect(2, "-q access lease --to owner --scope compute:execute --valid 48h");
    let (_, message) = place.expect(5, "-q access revoke owner");
    assert!(message.contains("no administrator would be left"), "{message}");
    place.expect(2, "-q keys new");
}
