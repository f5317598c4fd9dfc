//! Every kind of event comes from a command, and what a run does to a device is asked for, permission by permission.

use super::{Place, SCENARIO, sealed};
use isotherm_audit::log::EventKind;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON on standard output")
}

fn program(place: &Place, home: &str, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isotherm"));
    command.args(line.split_whitespace()).current_dir(place.0.path()).env("ISOTHERM_HOME", place.path(home));
    command
}

fn done(output: &Output, line: &str) {
    assert!(output.status.success(), "isotherm {line}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn put(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
    std::fs::write(path, text).expect("writable");
}

/// A host of files: a processor with a sensor and an energy counter, and so many cards.
fn rehearsed(place: &Place, cards: usize) -> PathBuf {
    let root = place.path("host");
    put(&root.join("sys/class/hwmon/hwmon0/name"), "k10temp");
    heat(&root, 50_000, 1_000_000);
    put(&root.join("sys/class/powercap/intel-rapl:0/name"), "package-0");
    for card in 0..cards {
        let folder = root.join(format!("sys/bus/pci/devices/0000:{card:02x}:00.0"));
        for (file, text) in [("vendor", "0x1002"), ("device", "0x744c"), ("class", "0x030000")] {
            put(&folder.join(file), text);
        }
    }
    root
}

/// What its sensors say: thousandths of a degree, and microjoules since it was switched on.
fn heat(root: &Path, millicelsius: u32, microjoules: u64) {
    put(&root.join("sys/class/hwmon/hwmon0/temp1_input"), &millicelsius.to_string());
    put(&root.join("sys/class/powercap/intel-rapl:0/energy_uj"), &microjoules.to_string());
}

/// A device of 0.5 K/W and 20 J/K that was given 10 W, then 60 W, then 10 W again, as a log of its sensors.
fn power_step() -> String {
    let (mut text, mut above) = ("time_s,power_w,temperature_c\n".to_owned(), 5.0_f64);
    for second in 0..180 {
        let watts = if (30..120).contains(&second) { 60.0 } else { 10.0 };
        writeln!(text, "{second},{watts},{:.3}", 25.0 + above).expect("text");
        above += (watts * 0.5 - above) * (1.0 - (-0.1_f64).exp());
    }
    text
}

/// The tiny model on a processor that is slowed so that a token takes tens of milliseconds, and that is known to warm.
fn slow_and_warm() -> Place {
    let place = Place::new();
    // Room for an answer of some seconds, that sensors are read several times in, on a quick machine too.
    place.write("scenario.toml", &SCENARIO.replace("output_tokens = 24", "output_tokens = 300"));
    place.write("step.csv", &power_step());
    let sources = "--devices devices.json --model model.gguf";
    place.expect(0, "-q model synth tiny -o model.gguf");
    place.expect(0, "-q probe --model model.gguf --budget 200ms --slow cpu=1000 -o devices.json");
    place.expect(0, "-q probe --from-log step.csv --device cpu -o devices.json");
    place.expect(0, &format!("-q plan scenario.toml {sources} -o plan.json"));
    place.expect(0, &format!("-q seal plan.json scenario.toml {sources}"));
    place
}

fn kinds(place: &Place, home: &str) -> BTreeSet<String> {
    let output = program(place, home, "-q audit export").output().expect("the program starts");
    done(&output, "audit export");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| json(line)["type"].as_str().expect("a type").to_owned()).collect()
}

#[test]
fn a_governed_run_logs_each_action_with_the_forecast_that_caused_it_and_what_its_sensors_told() {
    let place = slow_and_warm();
    let root = rehearsed(&place, 0);
    let line = "run manifest.json --prompt hello --raw --tokens 120";
    let mut run = program(&place, "home", line);
    run.args(["--temperature-max", "45 °C"]).env("ISOTHERM_HOST_ROOT", &root);
    // Once it is held back it cools: the sensor falls as the run goes on, and 80 J go by.
    let mut child = heard(&mut run);
    let (mut said, _) = until(&mut child, "governor: cpu");
    let mut step = 0;
    while child.try_wait().expect("it is ours").is_none() {
        std::thread::sleep(Duration::from_millis(500));
        step += 1;
        heat(
            &root,
            50_000_u32.saturating_sub(1_500 * step).max(30_000),
            1_000_000 + 8_000_000 * u64::from(step.min(10)),
        );
    }
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("text");
    assert!(child.wait().expect("it ends").success(), "{rest}");
    let entries = json(&place.expect(0, "-q audit query --kind thermal.action --format json").0);
    let first = entries["entries"].as_array().and_then(|list| list.last()).expect("at least one action").clone();
    let manifest = json(&place.expect(0, "-q verify manifest.json --format json").0)["manifest"].clone();
    assert_eq!((&first["device"], &first["subjects"]["manifest"]), (&"cpu".into(), &manifest));
    let milli = |name: &str| first["details"][name].as_str().expect(name).parse::<i64>().expect("an integer");
    // It was above the limit when it was read, and would have become warmer.
    assert!(milli("now_millicelsius") > 45_000 && milli("unacted_millicelsius") > 45_000, "{first}");
    assert!(milli("allowed_milliwatts") < 60_000, "{first}");
    assert_eq!(first["details"]["sensor"], "true");
    let receipt = json(&place.expect(0, "-q verify manifest.json --run run-1.signed.json --format json").0);
    let cpu = &receipt["parts"]["cpu"];
    assert_eq!(cpu["temperature_max_millicelsius"], 50_000, "{receipt}");
    assert!(cpu["energy_mj"].as_i64().is_some_and(|spent| spent > 0 && spent % 8_000 == 0), "{receipt}");
    let figures = receipt["figures"].as_array().expect("a list");
    let hottest = figures.iter().find(|line| line["figure"] == "temperature_max_millicelsius").expect("it is promised");
    assert!(hottest["predicted"].is_i64() && hottest["measured"] == 50_000, "{hottest}");
}

#[test]
fn what_goes_over_a_link_is_counted_and_signed() {
    let place = Place::new();
    place.write("scenario.toml", SCENARIO);
    place.expect(0, "-q model synth tiny -o model.gguf");
    place.expect(0, "-q probe --model model.gguf --split 2 --budget 200ms -o devices.json");
    // Only the halves of the processor, and neither has room for both layers.
    let mut devices = json(&String::from_utf8(place.keep("devices.json")).expect("UTF-8"));
    devices["devices"].as_array_mut().expect("a list").retain(|device| device["name"] != "cpu");
    devices["links"].as_array_mut().expect("a list").retain(|link| link["from"] != "cpu" && link["to"] != "cpu");
    let sets = devices["co_run"].as_array_mut();
    sets.into_iter().for_each(|sets| sets.retain(|set| !set.to_string().contains("\"cpu\"")));
    place.write("devices.json", &devices.to_string());
    let sources = "--devices devices.json --model model.gguf";
    let pinned = format!("{SCENARIO}\n[limits]\npinned = [\"cpu0\", \"cpu1\"]\n");
    place.write("scenario.toml", &pinned);
    place.expect(0, &format!("-q plan scenario.toml {sources} -o plan.json"));
    place.expect(0, &format!("-q seal plan.json scenario.toml {sources}"));
    place.expect(0, "-q run manifest.json --prompt hello --raw --tokens 6");
    let receipt = json(&place.expect(0, "-q verify manifest.json --run run-1.signed.json --format json").0);
    let parts = receipt["parts"].as_object().expect("parts");
    let (name, link) = parts.iter().find(|(name, _)| name.contains("->")).expect("two stages have a link");
    assert!(["cpu0->cpu1", "cpu1->cpu0"].contains(&name.as_str()), "{name}");
    let stage = parts.iter().find(|(name, _)| name.starts_with("stage 1 on ")).expect("a second stage").1;
    assert_eq!(link["messages_count"], stage["steps_count"]);
    assert_eq!(link["sent_bytes"].as_i64(), stage["tokens_count"].as_i64().map(|tokens| tokens * 4 * 64));
    assert!(link["between_ns"].as_i64().is_some_and(|time| time > 0));
}

#[test]
fn a_probe_of_several_cards_asks_for_copies_between_them() {
    let place = sealed();
    let probe = "-q probe --backends wgpu --logical 2 --model model.gguf --budget 100ms -o cards.json";
    // What else it asks for is on record, though one of these things is not allowed.
    place.expect(0, "-q access grant owner --deny compute:execute");
    let output = place.run(probe);
    if output.status.code() == Some(6) {
        eprintln!("skipped: a_probe_of_several_cards_asks_for_copies_between_them: no GPU, nor one in software");
        return;
    }
    assert_eq!(output.status.code(), Some(8), "{}", String::from_utf8_lossy(&output.stderr));
    let asked = "-q audit query --kind memory.copy_device_to_device --format json";
    assert_eq!(json(&place.expect(0, asked).0)["entries"].as_array().map(Vec::len), Some(2));
    place.expect(0, "-q access grant owner --allow compute:execute --deny memory:copy_device_to_device");
    let (_, message) = place.expect(8, probe);
    assert!(message.contains("memory:copy_device_to_device"), "{message}");
}

#[test]
fn each_thing_that_a_run_does_to_a_device_is_asked_for() {
    let place = sealed();
    let run = "-q run manifest.json --prompt hello --raw --tokens 2";
    for permission in [
        "memory:allocate",
        "memory:copy_to_device",
        "compute:execute",
        "compute:synchronize",
        "memory:copy_from_device",
    ] {
        place.expect(0, &format!("-q access grant owner --deny {permission}"));
        let (_, message) = place.expect(8, run);
        assert!(message.contains(permission), "{message}");
        place.expect(0, &format!("-q access grant owner --allow {permission}"));
    }
    place.expect(0, run);
    // Keeping a device busy alone is more than running on it.
    place.expect(0, "-q access grant owner --deny device:allocate");
    place.expect(0, run);
    place.expect(8, "-q probe --thermal --device cpu --model model.gguf -o devices.json");
}

/// Reads what a command says until it says something; gives what it says from then on, and the rest of that line.
fn until(child: &mut Child, wanted: &str) -> (BufReader<ChildStderr>, String) {
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).expect("text") > 0, "{wanted} is said");
        if let Some((_, rest)) = line.split_once(wanted) {
            return (said, rest.trim().to_owned());
        }
    }
}

fn heard(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

#[test]
fn every_kind_of_event_is_made_by_a_command() {
    // These are made by what takes long, or takes what not every machine has, and are looked at elsewhere.
    let elsewhere = [
        (EventKind::Plan, "a tour"),
        (EventKind::Simulate, "a tour"),
        (EventKind::MemoryCopyDeviceToDevice, "the probe of several cards above"),
        (EventKind::ThermalAction, "the governed run above"),
        (EventKind::KeySetAccepted, "the sets of keys in guests.rs"),
    ];
    let place = slow_and_warm();
    let root = rehearsed(&place, 70);
    let here = |line: &str| done(&program(&place, "home", line).output().expect("the program starts"), line);
    let rehearse =
        |line: &str| program(&place, "home", line).env("ISOTHERM_HOST_ROOT", &root).output().expect("starts");
    for line in [
        "-q run manifest.json --prompt hello --raw --tokens 2",
        "-q verify manifest.json",
        "-q access lease --to owner --scope run --format json",
    ] {
        here(line);
    }
    // Nobody has sensors in an empty tree, so the device was taken for nothing.
    let line = "-q probe --thermal --device cpu --model model.gguf -o devices.json";
    let nothing = program(&place, "home", line).env("ISOTHERM_HOST_ROOT", place.path("none")).output().expect("starts");
    assert_eq!(nothing.status.code(), Some(6), "{}", String::from_utf8_lossy(&nothing.stderr));
    // Somebody comes in, changes and goes; what the host allows of its own comes, and goes.
    let guest = |line: &str| program(&place, "guest", line).output().expect("the program starts");
    done(&guest("-q keys new"), "keys new");
    std::fs::write(place.path("guest.pub"), guest("-q keys show --ssh").stdout).expect("writable");
    place.write("site.cedar", "@id(\"shut\") forbid (principal, action == Action::\"monitor:clock\", resource);");
    place.write("none.cedar", "");
    for (line, code) in [
        ("-q access grant guest --key guest.pub --role user", 0),
        ("-q access grant guest --quota 1GiB", 0),
        ("-q access revoke guest", 0),
        ("-q access policies site.cedar", 0),
        ("-q monitor --plain --samples 1", 8),
        ("-q access policies none.cedar", 0),
        ("-q access grant owner --quota 1B", 0),
        ("-q run manifest.json --prompt hello --raw --tokens 2", 8),
        ("-q access grant owner --quota 64GiB", 0),
        ("-q verify devices.json", 5),
    ] {
        place.expect(code, line);
    }
    let plan = String::from_utf8(place.keep("plan.json")).expect("UTF-8");
    place.write("wrong.json", &plan.replacen("\"start\": 0", "\"start\": 1", 1));
    place.expect(5, "-q check wrong.json scenario.toml --devices devices.json --model model.gguf");
    // A run that is killed while it holds memory; whoever comes next gives that back.
    let run = program(&place, "home", "-q run manifest.json --prompt hello --raw --tokens 100");
    let held = |place: &Place| {
        let listed = json(&place.expect(0, "-q access list --format json").0);
        listed["principals"].as_array().expect("a list").iter().any(|one| one["held_bytes"].as_u64() > Some(0))
    };
    let mut run = { run }.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    let begun = Instant::now();
    while !held(&place) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the run takes memory");
        assert!(run.try_wait().expect("it is ours").is_none(), "the run goes on long enough to be killed");
    }
    run.kill().expect("it runs");
    run.wait().expect("it ends");
    here("-q access list");
    // What a crash leaves beyond the checkpoint is cleared away by the next that writes.
    let log = place.path("home/log");
    put(&log.join("tile/entries/000.p/255"), "unfinished");
    here("-q access check device:list cpu");
    // Seventy cards on which four things are asked for each fill a bundle, which can be moved out.
    done(&rehearse("-q devices --here"), "devices --here");
    done(&rehearse("-q monitor --plain --samples 1"), "monitor");
    here("-q audit retain --keep 1 --archive old.jsonl");
    here("-q keys rotate --keep-old");
    here("-q keys approve manifest.json");
    let mut watch = program(&place, "home", "monitor --plain --interval 50ms --serve 127.0.0.1:0");
    watch.env("ISOTHERM_HOST_ROOT", place.path("none"));
    let mut watch = heard(&mut watch);
    let (_said, address) = until(&mut watch, "http://");
    let mut stream = TcpStream::connect(address.trim_end_matches("/metrics")).expect("it listens");
    stream.write_all(b"POST /admin HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    stream.read_to_string(&mut String::new()).expect("answered");
    let begun = Instant::now();
    while !kinds(&place, "home").contains("isotherm.security.connection_refused") {
        assert!(begun.elapsed() < Duration::from_secs(60), "a refused connection is logged");
    }
    watch.kill().expect("it runs");
    watch.wait().expect("it ends");
    // One request a minute, so that the second is too soon; last, since it counts for this host's own key.
    here("-q access grant owner --burst 1 --per-minute 1");
    program(&place, "home", "-q devices --here").output().expect("starts");
    place.expect(8, "-q devices --here");
    let archived = std::fs::read_to_string(place.path("old.jsonl")).expect("it was moved there");
    let mut made = kinds(&place, "home");
    made.extend(archived.lines().map(|line| json(line)["type"].as_str().expect("a type").to_owned()));
    let missing: Vec<_> = EventKind::ALL
        .iter()
        .filter(|kind| elsewhere.iter().all(|(other, _)| other != *kind))
        .map(|kind| kind.name())
        .filter(|name| !made.contains(*name))
        .collect();
    assert!(missing.is_empty(), "no command made {missing:?}");
    here("-q audit fsck");
}
