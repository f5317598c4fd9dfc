//! Others than the owner: holders of leases, planners and approvers of a set of keys, witnesses of two hosts.

use super::{Place, sealed};
use serde_json::Value;
use std::process::{Command, Output};

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON on standard output")
}

impl Place {
    /// Runs a line with another home in the same folder.
    fn elsewhere(&self, home: &str, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isotherm"));
        command.args(line.split_whitespace()).current_dir(self.0.path()).env("ISOTHERM_HOME", self.path(home));
        command.output().expect("the program starts")
    }

    fn expect_at(&self, home: &str, code: i32, line: &str) -> String {
        let output = self.elsewhere(home, line);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(
            output.status.code(),
            Some(code),
            "isotherm {line}\n{}\n{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// The public key of a home, in a file of that name.
    fn key_of(&self, home: &str) -> String {
        self.elsewhere(home, "-q keys new");
        let shown = json(&self.expect_at(home, 0, "-q keys show --format json"));
        let name = format!("{home}.pub");
        self.write(&name, shown["public_key"].as_str().expect("PEM"));
        name
    }

    /// Lets `home` believe the key in a file.
    fn believe(&self, home: &str, key: &str) {
        let folder = self.path(home).join("keys/trusted");
        std::fs::copy(self.path(key), folder.join(format!("{key}.pem"))).expect("writable");
    }
}

#[test]
fn a_guest_runs_under_a_lease_by_uses_that_count_once_and_not_after_it_is_revoked() {
    let place = sealed();
    let (owner, guest) = (place.key_of("home"), place.key_of("guest"));
    place.believe("guest", &owner);
    place.expect(0, &format!("-q access grant alice --key {guest} --role user"));
    let lend = "-q access lease --to alice --scope run --format json";
    let lease = json(&place.expect(0, lend).0);
    let run = "-q run manifest.json --prompt hello --raw --tokens 2 --lease lease.json --uses uses.json";
    place.expect_at("guest", 0, "-q access use lease.json --manifest manifest.json");
    place.expect(0, run);
    let (_, message) = place.expect(8, run);
    assert!(message.contains("made before"), "{message}");
    let id = json(&place.expect_at("guest", 0, "-q keys show --format json"))["key"].clone();
    let found = json(&place.expect(0, "-q audit query --principal alice --kind compute.execute --format json").0);
    assert_eq!(found["entries"][0]["principal"], id, "the log names the guest");
    assert!(found["entries"][0]["subjects"]["lease"].is_string());
    // Uses for something else, by somebody else, or of somebody else's lease.
    place.expect_at("guest", 0, "-q access use lease.json --permission compute:execute --device cpu");
    place.expect(8, run);
    let (_, message) = place.expect(2, "-q access use lease.json --manifest manifest.json");
    assert!(message.contains("the lease is for the key"), "{message}");
    place.write("uses.json", "[]");
    place.expect(8, run);
    place.write("uses.json", "no list");
    place.expect(1, run);
    // A lease that this host did not sign.
    place.expect_at("guest", 0, "-q access lease --to owner --scope compute:execute -o own.json");
    place.write("uses.json", "[]");
    place.expect(5, "-q run manifest.json --prompt hello --lease own.json --uses uses.json");
    // Revoked between two runs.
    place.expect_at("guest", 0, "-q access use lease.json --manifest manifest.json");
    place.expect(0, &format!("-q access revoke {}", lease["lease"].as_str().expect("an id")));
    let (_, message) = place.expect(8, run);
    assert!(message.contains("revoked"), "{message}");
    // The other door.
    place.expect(0, "-q access lease --to alice --scope probe");
    let probe = "-q probe --model model.gguf --budget 100ms -o other.json --lease lease.json --uses uses.json";
    place.expect_at("guest", 0, "-q access use lease.json --permission probe --device cpu");
    place.expect(0, probe);
    place.expect(8, probe);
}

#[test]
fn a_set_of_keys_says_who_signs_and_an_older_one_is_refused() {
    let place = sealed();
    let (planner, approver) = (place.key_of("home"), place.key_of("approver"));
    let root = place.key_of("root");
    for home in ["approver", "root"] {
        place.believe(home, &planner);
    }
    let draft = format!(
        "-q keys set draft --root {planner} --root {root} --root-threshold 2 --planner {planner} --approver {approver}"
    );
    place.expect(0, &draft);
    place.expect(5, "-q keys set accept key-set.json");
    place.expect_at("root", 0, "-q keys set sign key-set.json");
    place.expect(1, "-q keys set show");
    place.expect(0, "-q keys set accept key-set.json");
    std::fs::copy(place.path("key-set.json"), place.path("first.json")).expect("writable");
    let shown = json(&place.expect(0, "-q keys set show --format json").0);
    assert_eq!((&shown["version"], &shown["roles"]["root"]["threshold"]), (&1.into(), &2.into()));
    // A planner alone is not enough any more.
    let (_, message) = place.expect(5, "-q verify manifest.json");
    assert!(message.contains("distinct keys of the role approver signed"), "{message}");
    place.expect(5, "-q run manifest.json --prompt hello --raw --tokens 2");
    place.expect_at("approver", 0, "-q access grant all --key approver.pub --role admin");
    place.expect_at("approver", 0, "-q keys approve manifest.json");
    place.expect(0, "-q verify manifest.json");
    place.expect(0, "-q run manifest.json --prompt hello --raw --tokens 2");
    place.expect(0, "-q verify manifest.json --run run-1.signed.json");
    place.expect(5, "-q verify manifest.json --threshold 3");
    // The next set, without an approver's signature asked of roots it does not have; then the old one again.
    place.expect(0, "-q keys set draft --valid 24h");
    place.expect(5, "-q keys set accept key-set.json");
    place.expect_at("root", 0, "-q keys set sign key-set.json");
    place.expect(0, "-q keys set accept key-set.json");
    let (_, message) = place.expect(5, "-q keys set accept first.json");
    assert!(message.contains("below 3"), "{message}");
    place.expect(0, "-q verify manifest.json");
    let accepted = json(&place.expect(0, "-q audit query --kind keys.set_accepted --format json").0);
    assert_eq!(accepted["entries"].as_array().map(Vec::len), Some(2));
    // An older file in the place of the one in force is noticed, and then nothing counts.
    let folder = place.path("home").join("keys/key-sets");
    std::fs::copy(folder.join("000001.json"), folder.join("000002.json")).expect("writable");
    let (_, message) = place.expect(5, "-q verify manifest.json");
    assert!(message.contains("set of keys in force cannot be relied on"), "{message}");
}

#[test]
fn one_witness_watches_two_hosts_and_follows_one_to_its_new_key() {
    let place = Place::new();
    let witness = place.key_of("witness");
    for host in ["tower", "attic"] {
        let key = place.key_of(host);
        place.expect_at(host, 0, "-q audit request -o request");
        place.expect_at("witness", 0, &format!("-q audit witness request --log-key {key} -o line"));
        place.expect_at(host, 0, &format!("-q audit cosign line --name isotherm.local/witness --key {witness}"));
    }
    let origin = |host: &str| place.expect_at(host, 0, "-q audit checkpoint").lines().next().map(str::to_owned);
    assert_ne!(origin("tower"), origin("attic"));
    let named = origin("tower").expect("a name");
    let seen = |host: &str| -> u64 {
        let note = place.expect_at(host, 0, "-q audit checkpoint");
        note.lines().nth(1).and_then(|size| size.parse().ok()).expect("a size")
    };
    let before = seen("tower");
    std::fs::copy(place.path("tower.pub"), place.path("old.pub")).expect("writable");
    place.expect_at("tower", 0, "-q keys rotate");
    place.key_of("tower");
    assert_eq!(origin("tower"), Some(named), "the name stays");
    // By the new key alone it is a stranger.
    place.expect_at("tower", 0, &format!("-q audit request --old {before} -o request"));
    place.expect_at("witness", 5, "-q audit witness request --log-key tower.pub");
    place.expect_at("witness", 5, "-q audit witness request --log-key old.pub");
    let handover = "--handover handover.json --old-key old.pub";
    place.expect_at("witness", 5, "-q audit follow handover.json --log-key old.pub");
    place.expect_at("tower", 0, &format!("-q audit request --old {before} {handover} -o request"));
    place.expect_at("witness", 0, "-q audit witness request --log-key old.pub -o line");
    place.expect_at("witness", 0, "-q audit follow handover.json --log-key old.pub");
    let text = std::fs::read_to_string(place.path("request")).expect("readable");
    let handed = text.split("\n\n").nth(1).and_then(|note| note.lines().nth(1)).expect("a size").to_owned();
    place.expect_at("tower", 0, &format!("-q audit request --old {handed} -o request"));
    place.expect_at("witness", 0, "-q audit witness request --log-key tower.pub -o line");
    place.expect_at("tower", 0, &format!("-q audit cosign line --name isotherm.local/witness --key {witness}"));
    place.alter("handover.json");
    place.expect_at("witness", 5, "-q audit follow handover.json --log-key tower.pub");
}

#[test]
fn a_log_of_an_earlier_version_keeps_its_name() {
    let place = Place::new();
    place.key_of("home");
    let note = std::fs::read_to_string(place.path("home/log/checkpoint")).expect("readable");
    assert!(note.starts_with("isotherm.local/log/"), "{note}");
    // A name that no host gives opens nothing.
    std::fs::write(place.path("home/log/checkpoint"), note.replace("isotherm.local/log/", "elsewhere/log/"))
        .expect("writable");
    place.expect(5, "-q audit log");
    // Another host's name is refused by the signature.
    std::fs::write(place.path("home/log/checkpoint"), note.replace("isotherm.local/log/", "isotherm.local/log/0"))
        .expect("writable");
    place.expect(5, "-q audit log");
    std::fs::write(place.path("home/log/checkpoint"), note).expect("writable");
    place.expect(0, "-q audit log");
}
