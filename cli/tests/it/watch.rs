//! What this host has and does, from outside.

use super::Place;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

#[test]
fn what_the_host_has_is_remembered_and_compared_at_the_next_look() {
    let place = Place::new();
    let (first, _) = place.expect(0, "-q devices --here --format json");
    let first: Value = serde_json::from_str(&first).expect("JSON");
    assert_eq!(first["changes"], Value::Null);
    let (again, _) = place.expect(0, "-q devices --here");
    assert!(again.contains("nothing changed since the last look"), "{again}");
    // A card that was here once and is gone.
    let path = place.path("home").join("machine.json");
    let mut kept: Value = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("JSON");
    kept["entries"]["GPU-77"] =
        serde_json::json!({"kind": "card", "name": "Card 77", "slot": "0000:77:00.0", "driver": "nvidia 1.0"});
    std::fs::write(&path, kept.to_string()).expect("writable");
    let (told, _) = place.expect(0, "-q devices --here");
    assert!(told.contains("removed: card Card 77 from 0000:77:00.0"), "{told}");
    std::fs::write(&path, "{").expect("writable");
    place.expect(1, "-q devices --here");
}

#[test]
fn samples_come_as_lines_and_as_a_table() {
    let place = Place::new();
    let (lines, said) =
        place.expect(0, "monitor --plain --samples 3 --interval 20ms --format json --table samples.csv");
    let samples: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
    assert!(samples.len() >= 3 && samples[0]["device"] == "cpu", "{lines}");
    assert!(said.contains("of a core"), "{said}");
    let table = String::from_utf8(place.keep("samples.csv")).expect("text");
    assert_eq!(table.lines().count(), samples.len() + 1);
    place.expect(0, "-q monitor --samples 1 --table samples.parquet");
    assert_eq!(&place.keep("samples.parquet")[..4], b"PAR1");
    place.expect(2, "-q monitor --samples 1 --table samples.txt");
    place.expect(2, "-q monitor --samples 1 --interval 1ms");
}

#[test]
fn whoever_may_not_watch_sees_nothing() {
    let place = Place::new();
    place.expect(0, "-q access list");
    place.write("site.cedar", "@id(\"blind\") forbid (principal, action == Action::\"monitor:power\", resource);");
    place.expect(0, "-q access policies site.cedar");
    place.expect(8, "-q monitor --plain --samples 1");
}

#[test]
fn prometheus_reads_what_is_kept() {
    let place = Place::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_isotherm"))
        .args(["monitor", "--plain", "--interval", "50ms", "--serve", "127.0.0.1:0"])
        .env("ISOTHERM_HOME", place.path("home"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    let address = loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).expect("text") > 0, "it says where it listens");
        if let Some((_, rest)) = line.split_once("http://") {
            break rest.trim().trim_end_matches("/metrics").to_owned();
        }
    };
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(&address).expect("it listens");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        answer
    };
    std::thread::sleep(std::time::Duration::from_millis(300));
    let answer = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("isotherm_device_memory_used_bytes{"), "{answer}");
    assert!(ask("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

/// A host of files: a processor with a sensor, and nothing else.
fn rehearsed(place: &Place) -> std::path::PathBuf {
    let root = place.path("host");
    for (file, text) in [("sys/class/hwmon/hwmon0/name", "k10temp"), ("sys/class/hwmon/hwmon0/temp1_input", "50000")] {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        std::fs::write(path, text).expect("writable");
    }
    root
}

#[test]
fn what_is_plugged_in_while_the_monitor_runs_is_told_and_logged() {
    let place = Place::new();
    let root = rehearsed(&place);
    let mut child = Command::new(env!("CARGO_BIN_EXE_isotherm"))
        .args(["monitor", "--plain", "--interval", "20ms", "--look", "20ms", "--serve", "127.0.0.1:0"])
        .env("ISOTHERM_HOME", place.path("home"))
        .env("ISOTHERM_HOST_ROOT", &root)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    let mut heard = |wanted: &str| loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).expect("text") > 0, "{wanted} is told");
        if line.contains(wanted) {
            break;
        }
    };
    // By then it has looked for the first time.
    heard("Prometheus reads");
    let card = root.join("sys/bus/pci/devices/0000:0c:00.0");
    std::fs::create_dir_all(&card).expect("writable");
    for (file, text) in [("vendor", "0x1002"), ("device", "0x744c"), ("class", "0x030000")] {
        std::fs::write(card.join(file), text).expect("writable");
    }
    heard("noticed: added: card");
    std::fs::remove_dir_all(&card).expect("writable");
    heard("noticed: removed: card");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let (log, _) = place.expect(0, "-q audit log --format json");
    assert!(log.contains("added: card") && log.contains("removed: card"), "{log}");
}
