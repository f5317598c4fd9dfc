//! The program from outside: the whole loop on a tiny model, and what is refused.

mod batch;
mod bench_cuda;
mod browser;
mod events;
mod exchange;
mod golden;
mod guests;
#[cfg(target_os = "linux")]
mod links;
mod nodes;
mod placements;
mod replaced;
mod scenarios;
#[cfg(target_os = "linux")]
mod speed;
mod tables;
mod trust;
mod validate;
mod watch;

use std::path::Path;
use std::process::{Command, Output};

/// A folder with a home of its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn run(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_isotherm"))
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .env("ISOTHERM_HOME", self.0.path().join("home"))
            .output()
            .expect("the program starts")
    }

    /// Runs a line that must end with this code; gives standard output and standard error.
    fn expect(&self, code: i32, line: &str) -> (String, String) {
        let output = self.run(line);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "isotherm {line}\n{out}\n{err}");
        (out, err)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("writable");
    }

    /// Changes one byte in the middle of a file.
    fn alter(&self, name: &str) {
        let mut bytes = std::fs::read(self.path(name)).expect("readable");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(self.path(name), bytes).expect("writable");
    }

    fn keep(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("readable")
    }
}

const SCENARIO: &str = "name = \"tiny\"\nquestion = \"Does the loop close?\"\n[model]\nfile = \"model.gguf\"\n\
[workload]\nclients = 1\nprompt_tokens = 24\noutput_tokens = 24\nrequests = 2\n[objective]\nminimise = \"tpot\"\n";

/// A tiny model, probed, planned, simulated and sealed.
fn sealed() -> Place {
    let place = Place::new();
    place.write("scenario.toml", SCENARIO);
    place.expect(0, "-q model synth tiny -o model.gguf");
    let sources = "--devices devices.json --model model.gguf";
    // Steps of this model take microseconds: whatever else runs here may disturb a measurement beyond all measure, and the
    // simulation then contradicts the plan, as it should. Another probe is another chance; a mistake fails each.
    let keeps = |last: bool| {
        place.expect(0, "-q probe --model model.gguf --split 2 --budget 200ms -o devices.json");
        place.expect(0, &format!("-q plan scenario.toml {sources} -o plan.json"));
        place.expect(0, &format!("-q check plan.json scenario.toml {sources}"));
        let simulate = format!("-q simulate plan.json scenario.toml {sources} --seeds 2 -o .");
        if last {
            place.expect(0, &simulate);
        }
        last || place.run(&simulate).status.success()
    };
    assert!((0..8).any(|probe| keeps(probe == 7)));
    place.expect(0, &format!("-q seal plan.json scenario.toml {sources} --simulation simulation.json"));
    place
}

#[test]
fn the_loop_closes_on_a_tiny_model_and_every_altered_file_is_refused() {
    let place = sealed();
    let (verified, _) = place.expect(0, "-q verify manifest.json --format json");
    let verdict: serde_json::Value = serde_json::from_str(&verified).expect("JSON on standard output");
    assert_eq!(verdict["verified"], true);
    let compared = serde_json::to_string(&verdict["compared"]).expect("JSON");
    assert_eq!(compared, r#"["devices","model","plan","scenario","simulation"]"#);
    place.expect(0, "-q run manifest.json --prompt hello --raw --tokens 5");
    assert!(place.path("run-1.json").is_file() && place.path("run-1.signed.json").is_file());
    place.expect(0, "-q report .");
    let runs = String::from_utf8(place.keep("runs.csv")).expect("UTF-8");
    assert!(runs.contains(",predicted,") && runs.contains(",measured,"), "{runs}");
    let page = String::from_utf8(place.keep("report.html")).expect("UTF-8");
    assert!(page.contains("run-1.json, of another load than the predicted one"), "no run goes unmentioned");
    let stranger = Command::new(env!("CARGO_BIN_EXE_isotherm"))
        .args(["-q", "report", ".", "-o", "stranger.html"])
        .current_dir(place.0.path())
        .env("ISOTHERM_HOME", place.path("another-home"))
        .output()
        .expect("the program starts");
    assert!(stranger.status.success(), "{}", String::from_utf8_lossy(&stranger.stderr));
    let page = String::from_utf8(place.keep("stranger.html")).expect("UTF-8");
    assert!(page.contains("does not verify"), "to whom nobody is trusted, nothing is verified");
    place.expect(0, "-q audit fsck");
    let (log, _) = place.expect(0, "-q audit log --format json");
    let kinds: Vec<String> = serde_json::from_str::<Vec<serde_json::Value>>(&log)
        .expect("a list")
        .iter()
        .filter_map(|entry| entry["kind"].as_str().map(str::to_owned))
        .collect();
    let position = |kind: &str| kinds.iter().position(|k| k == kind).expect(kind);
    let order = ["isotherm.probe", "isotherm.seal", "isotherm.run.started", "isotherm.run.finished"].map(position);
    assert!(order.is_sorted(), "{kinds:?}");

    for (file, named) in [
        ("plan.json", "plan differs"),
        ("model.gguf", "model differs"),
        ("scenario.toml", "scenario differs"),
        ("devices.json", "devices differs"),
        ("simulation.json", "simulation differs"),
        ("manifest.json", "does not verify"),
    ] {
        let before = place.keep(file);
        place.alter(file);
        for command in ["verify manifest.json", "run manifest.json --prompt hello --raw"] {
            let (_, message) = place.expect(5, &format!("-q {command}"));
            assert!(message.contains(named), "{file}: {message}");
        }
        std::fs::write(place.path(file), before).expect("writable");
    }
    place.expect(0, "-q verify manifest.json");
    let bundles = std::fs::read_dir(place.path("home/log/tile/entries/000.p")).expect("a log in tiles");
    for bundle in bundles {
        let name = bundle.expect("listed").file_name().into_string().expect("a number");
        place.alter(&format!("home/log/tile/entries/000.p/{name}"));
    }
    let (_, message) = place.expect(5, "-q audit log");
    assert!(message.contains("entry"), "{message}");
}

#[test]
fn bad_input_is_named_and_leaves_nothing_behind() {
    let place = Place::new();
    place.expect(0, "-q model synth tiny -o model.gguf");
    let whole = place.keep("model.gguf");
    std::fs::write(place.path("short.gguf"), &whole[..whole.len() / 2]).expect("writable");
    let (_, message) = place.expect(1, "-q model show short.gguf");
    assert!(message.contains("truncated"), "{message}");
    let (_, message) = place.expect(1, "-q probe --model short.gguf -o devices.json");
    assert!(message.contains("truncated") && !place.path("devices.json").exists(), "{message}");

    place.write("units.toml", &format!("{SCENARIO}[environment]\nambient = \"25 K\"\n"));
    let (_, message) = place.expect(1, "-q scenario check units.toml");
    assert!(message.contains("\"K\"") && message.contains("°C"), "{message}");

    place.write("device.toml", &format!("{SCENARIO}[[devices]]\ntable = \"no-such-card\"\n"));
    let (_, message) = place.expect(1, "-q plan device.toml --model model.gguf -o plan.json");
    assert!(message.contains("no-such-card") && !place.path("plan.json").exists(), "{message}");

    place.write(
        "small.toml",
        &format!("{SCENARIO}[[devices]]\nname = \"toy\"\nkind = \"cpu\"\nmemory = \"100 kB\"\nmemory_bandwidth = \"1 GB/s\"\n"),
    );
    let (_, message) = place.expect(3, "-q plan small.toml --model model.gguf");
    assert!(message.contains("too much"), "{message}");
    place.expect(2, "plan");
    place.expect(2, "no-such-command");
}

#[test]
fn every_command_explains_itself() {
    let place = Place::new();
    let (reference, _) = place.expect(0, "generate reference");
    for command in ["tour", "probe", "plan", "check", "simulate", "seal", "verify", "run", "report", "model", "devices"]
    {
        assert!(reference.contains(&format!("## isotherm {command}\n")), "{command}");
    }
    place.expect(0, "generate man -o man");
    assert!(Path::new(&place.path("man/isotherm-plan.1")).is_file());
    let (completions, _) = place.expect(0, "generate completions bash");
    assert!(completions.contains("isotherm"));
}

#[test]
fn the_command_reference_is_what_the_program_says() {
    let (reference, _) = Place::new().expect(0, "generate reference");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/commands.md");
    let page = std::fs::read_to_string(page).unwrap_or_default();
    assert!(page == reference, "run: isotherm generate reference > docs/reference/commands.md");
}
