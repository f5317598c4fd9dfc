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

#[test]
fn the_own_key_is_not_locked_out_by_any_command_though_another_administrator_is_there() {
    let place = sealed();
    guest(&place);
    place.expect(0, "-q access grant guest --key guest.pub --role admin");
    for line in [
        "-q access revoke owner",
        "-q access grant owner --role monitor",
        "-q access grant owner --deny admin:full_access",
        "-q access grant owner --valid 1h",
    ] {
        let (_, message) = place.expect(5, line);
        assert!(message.contains("admin:full_access would be denied"), "{line}: {message}");
    }
    place.write("closed.cedar", "forbid (principal, action == Action::\"admin:full_access\", resource);");
    place.expect(5, "-q access policies closed.cedar");
    place.write(
        "undecided.cedar",
        "forbid (principal, action, resource) when { context.now * 9223372036854775807 > 0 };",
    );
    for line in ["-q access policies undecided.cedar --dry-run", "-q access policies undecided.cedar"] {
        let (_, message) = place.expect(5, line);
        assert!(message.contains("cannot decide"), "{line}: {message}");
    }
    place.expect(0, "-q access check admin:full_access");
}

/// The public key of somebody else with a home of their own, in `guest.pub`.
fn guest(place: &super::Place) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isotherm"));
    command.args(["-q", "keys", "new"]).current_dir(place.0.path());
    let made = command.env("ISOTHERM_HOME", place.path("guest-home")).output().expect("the program starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let output = as_guest(place, "-q keys show --ssh");
    std::fs::write(place.path("guest.pub"), output.stdout).expect("writable");
}

fn as_guest(place: &super::Place, line: &str) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isotherm"));
    command.args(line.split_whitespace()).current_dir(place.0.path());
    command.env("ISOTHERM_HOME", place.path("guest-home")).output().expect("the program starts")
}

#[test]
fn a_revoked_principal_comes_back_only_when_that_is_said_and_unknown_ids_are_no_success() {
    let place = sealed();
    guest(&place);
    place.expect(0, "-q access grant guest --key guest.pub --role user");
    place.expect(0, "-q access revoke guest");
    for line in ["-q access grant guest --quota 1GiB", "-q access grant guest --key guest.pub --role user"] {
        let (_, message) = place.expect(2, line);
        assert!(message.contains("was revoked") && message.contains("--again"), "{message}");
    }
    place.expect(8, "-q access check compute:execute cpu --principal guest");
    place.expect(0, "-q access grant guest --again");
    place.expect(0, "-q access check compute:execute cpu --principal guest");
    for unknown in ["nobody", &"ab".repeat(16), &"ab".repeat(32)] {
        let (_, message) = place.expect(2, &format!("-q access revoke {unknown}"));
        assert!(message.contains("neither one principal nor a lease"), "{message}");
    }
    for name in ["ab".repeat(16), "AB".repeat(32), "a\u{202e}b".to_owned()] {
        let (_, message) = place.expect(5, &format!("-q access grant {name} --key {} --role user", fresh_key(&place)));
        assert!(message.contains("the name"), "{message}");
    }
}

/// A public key that nobody here knows yet.
fn fresh_key(place: &super::Place) -> &'static str {
    std::fs::remove_dir_all(place.path("guest-home")).expect("it was made before");
    guest(place);
    "guest.pub"
}

#[test]
fn an_older_manifest_does_not_run_after_a_newer_one_and_the_same_one_does() {
    let place = sealed();
    let old = place.keep("manifest.json");
    place.expect(0, "-q run manifest.json --prompt hello --raw --tokens 2");
    let seal = "-q seal plan.json scenario.toml --devices devices.json --model model.gguf --simulation simulation.json";
    place.expect(0, seal);
    std::fs::write(place.path("old.json"), &old).expect("writable");
    place.expect(0, "-q run old.json --prompt hello --raw --tokens 2");
    place.expect(0, "-q run manifest.json --prompt hello --raw --tokens 2");
    place.expect(0, "-q run manifest.json --prompt hello --raw --tokens 2");
    let (_, message) = place.expect(5, "-q run old.json --prompt hello --raw --tokens 2");
    assert!(message.contains("a newer manifest was accepted before"), "{message}");
    place.expect(0, "-q verify old.json");
    // Without a log that goes on, the next manifest is still newer than what ran.
    std::fs::rename(place.path("home/log"), place.path("home/log-before")).expect("moved away");
    place.expect(0, seal);
    place.expect(0, "-q run manifest.json --prompt hello --raw --tokens 2");
    place.write("home/access/run-counters.json", "{}");
    let (_, message) = place.expect(5, "-q run manifest.json --prompt hello --raw --tokens 2");
    assert!(message.contains("is damaged"), "{message}");
}

#[test]
fn where_the_host_says_two_keys_one_opens_nothing() {
    let place = sealed();
    let run = "-q run manifest.json --prompt hello --raw --tokens 2";
    place.expect(5, &format!("{run} --threshold 2"));
    let (_, message) = place.expect(5, "-q keys threshold 2");
    assert!(message.contains('2'), "more keys than are trusted: {message}");
    guest(&place);
    let pem = json(&String::from_utf8(as_guest(&place, "-q keys show --format json").stdout).expect("UTF-8"));
    place.write("home/keys/trusted/guest.pem", pem["public_key"].as_str().expect("a key"));
    place.expect(0, "-q keys threshold 2");
    assert_eq!(json(&place.expect(0, "-q keys threshold --format json").0), 2);
    for line in
        [run, &format!("{run} --threshold 1"), "-q verify manifest.json", "-q verify manifest.json --threshold 1"]
    {
        place.expect(5, line);
    }
    // The guest believes the host's key, and signs as the second.
    let own = json(&place.expect(0, "-q keys show --format json").0);
    place.write("guest-home/keys/trusted/host.pem", own["public_key"].as_str().expect("a key"));
    let approved = as_guest(&place, "-q keys approve manifest.json");
    assert!(approved.status.success(), "{}", String::from_utf8_lossy(&approved.stderr));
    place.expect(0, "-q verify manifest.json");
    place.expect(0, run);
    place.write("home/keys/threshold", "none");
    place.expect(5, run);
}
