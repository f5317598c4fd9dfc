//! Links between network namespaces whose rate is shaped, measured by the command. Needs a Linux kernel, the tools `ip`
//! and `tc`, and the right to make namespaces; skipped aloud without them.

use super::Place;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Two namespaces with a cable between them, taken away at the end.
struct Cable {
    names: [String; 2],
    responders: Vec<Child>,
}

impl Drop for Cable {
    fn drop(&mut self) {
        for child in &mut self.responders {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

fn done(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program");
    Command::new(program).args(words).output().is_ok_and(|output| output.status.success())
}

impl Cable {
    /// Cables shaped to so many megabits each way; `None` where that is not permitted here.
    fn lay(test: &str, megabits: &[u32]) -> Option<Self> {
        let id = std::process::id() % 10_000;
        let names = [format!("iso{id}a{test}"), format!("iso{id}b{test}")];
        let cable = Self { names, responders: Vec::new() };
        let [a, b] = &cable.names;
        let mut lines =
            vec![format!("ip netns add {a}"), format!("ip netns add {b}"), format!("ip -n {b} link set lo up")];
        for (number, rate) in megabits.iter().enumerate() {
            let (one, other) = (format!("v{id}{test}{number}a"), format!("v{id}{test}{number}b"));
            lines.push(format!("ip link add {one} type veth peer name {other}"));
            for (end, name, host) in [(&one, a, 1), (&other, b, 2)] {
                lines.push(format!("ip link set {end} netns {name}"));
                lines.push(format!("ip -n {name} addr add 10.97.{number}.{host}/24 dev {end}"));
                lines.push(format!("ip -n {name} link set {end} up"));
                lines.push(format!(
                    "tc -n {name} qdisc add dev {end} root tbf rate {rate}mbit burst 16kb latency 100ms"
                ));
            }
        }
        if let Some(failed) = lines.iter().find(|line| !done(line)) {
            eprintln!("skipped: links: not permitted here: {failed}");
            return None;
        }
        Some(cable)
    }

    fn respond(&mut self, place: &Place, address: &str) {
        let mut child = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.names[1],
                env!("CARGO_BIN_EXE_isotherm"),
                "-q",
                "probe",
                "--respond",
                address,
            ])
            .args(["--secret", "secret"])
            .current_dir(place.0.path())
            .env("ISOTHERM_HOME", place.path(&format!("home-{}", address.replace([':', '.'], "-"))))
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says where");
        assert!(line.contains("answering"), "{line}");
        self.responders.push(child);
    }

    fn measure(&self, place: &Place, arguments: &str) -> Value {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.names[0], env!("CARGO_BIN_EXE_isotherm"), "-q", "probe", "--format", "json"])
            .args(["--secret", "secret"])
            .args(arguments.split_whitespace())
            .current_dir(place.0.path())
            .env("ISOTHERM_HOME", place.path("home-asks"))
            .output()
            .expect("ip starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// Takes everything from one connection, and says how many bytes a second came after the first quarter of a megabyte.
const SINK: &str = "import socket,time\ns=socket.create_server(('10.97.0.2',7100))\nprint('up',flush=True)\nc,_=s.accept()\nn=0;t=None\nwhile True:\n b=c.recv(1<<18)\n if not b: break\n n+=len(b)\n if t is None and n>=1<<18: t=time.perf_counter();m=n\nprint((n-m)/(time.perf_counter()-t))";
/// Sends eight megabytes.
const SOURCE: &str = "import socket\nc=socket.create_connection(('10.97.0.2',7100))\nc.sendall(bytes(8<<20))";

impl Cable {
    /// Bytes per second of one long transfer by another program; `None` without Python.
    fn by_another(&self) -> Option<f64> {
        let python = |name: &str, program: &str| {
            let mut command = Command::new("ip");
            command
                .args(["netns", "exec", name, "python3", "-c", program])
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            command
        };
        let mut sink = python(&self.names[1], SINK).spawn().ok()?;
        let mut said = BufReader::new(sink.stdout.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).ok()?;
        let sent = python(&self.names[0], SOURCE).status().ok()?.success();
        if !sent {
            let _ = sink.kill();
        }
        line.clear();
        said.read_line(&mut line).ok()?;
        let _ = sink.wait();
        line.trim().parse().ok()
    }
}

#[test]
fn the_rate_of_a_shaped_link_is_found_in_both_directions() {
    // Both programs wait for the same processors: what counts as a figure is measured on a quiet host, by the campaign.
    let campaign = std::env::var_os("ISOTHERM_CAMPAIGN").is_some_and(|value| value == "1");
    let tolerance = if campaign { 0.03 } else { 0.2 };
    for (test, megabits) in [("x", 50), ("y", 200)] {
        let Some(mut cable) = Cable::lay(test, &[megabits]) else { return };
        let place = Place::new();
        place.write("secret", "a secret that both of them know");
        cable.respond(&place, "10.97.0.2:7000");
        let found = cable.measure(&place, "--peer 10.97.0.2:7000 --budget 12s --message 8MiB");
        // A transfer may be held up on a busy host, and is never faster than the link: the best of some counts.
        let others = (0..3).filter_map(|_| cable.by_another()).reduce(f64::max);
        let Some(expected) = others else {
            eprintln!("skipped: links: no python3 to measure a shaped link by another way");
            return;
        };
        assert!(expected < f64::from(megabits) * 1e6 / 8.0, "the link is shaped: {expected}");
        for way in ["away", "towards"] {
            let fit = &found["links"][0][way]["fit"];
            let rate = fit["bytes_per_second"].as_f64().expect("a rate");
            eprintln!(
                "{megabits} Mbit/s {way}: {:.2} % off, residual {}",
                (rate / expected - 1.0) * 100.0,
                fit["residual"]
            );
            assert!((rate / expected - 1.0).abs() < tolerance, "{megabits} Mbit/s {way}: {rate} of {expected}");
        }
        let trip = found["links"][0]["round_trip_seconds"].as_f64().expect("a time");
        assert!(trip > 0.0 && trip < 0.05, "{trip}");
    }
}

#[test]
fn two_links_through_one_bottleneck_are_found_to_share_it_and_two_cables_are_not() {
    let place = Place::new();
    place.write("secret", "a secret that both of them know");
    // Two responders behind one cable.
    let Some(mut one) = Cable::lay("s", &[100]) else { return };
    one.respond(&place, "10.97.0.2:7001");
    one.respond(&place, "10.97.0.2:7002");
    let peers = "--peer 10.97.0.2:7001 --peer 10.97.0.2:7002 --budget 4s --message 4MiB";
    let found = one.measure(&place, peers);
    assert_eq!(found["contention"]["shared"], true, "{}", found["contention"]);
    drop(one);
    let Some(mut two) = Cable::lay("t", &[100, 100]) else { return };
    two.respond(&place, "10.97.0.2:7003");
    two.respond(&place, "10.97.1.2:7004");
    let found = two.measure(&place, "--peer 10.97.0.2:7003 --peer 10.97.1.2:7004 --budget 4s --message 4MiB");
    assert_eq!(found["contention"]["shared"], false, "{}", found["contention"]);
}

#[test]
fn a_responder_denies_whoever_has_another_secret() {
    let Some(mut cable) = Cable::lay("d", &[100]) else { return };
    let place = Place::new();
    place.write("secret", "a secret that both of them know");
    cable.respond(&place, "10.97.0.2:7005");
    place.write("secret", "another secret of good length");
    let output = Command::new("ip")
        .args(["netns", "exec", &cable.names[0], env!("CARGO_BIN_EXE_isotherm"), "-q", "probe"])
        .args(["--secret", "secret", "--peer", "10.97.0.2:7005"])
        .current_dir(place.0.path())
        .env("ISOTHERM_HOME", place.path("home-asks"))
        .output()
        .expect("ip starts");
    assert_eq!(output.status.code(), Some(8), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_link_that_is_old_or_contradicted_is_measured_again_and_one_that_holds_is_not() {
    let place = Place::new();
    place.write("secret", "sixteen bytes and more of a secret");
    place.expect(0, "-q model synth tiny -o model.gguf");
    place.expect(0, "-q probe --model model.gguf --budget 200ms -o devices.json");
    let mut responder = Command::new(env!("CARGO_BIN_EXE_isotherm"))
        .args(["-q", "probe", "--respond", "127.0.0.1:0", "--secret"])
        .arg(place.path("secret"))
        .env("ISOTHERM_HOME", place.path("home"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut said = String::new();
    BufReader::new(responder.stdout.take().expect("piped")).read_line(&mut said).expect("text");
    let peer = said.trim().trim_start_matches("answering at ").to_owned();
    let line = format!("-q probe --peer {peer} --secret secret --budget 1s --message 1MiB --into devices.json");
    place.expect(0, &line);
    let read = || -> Value { serde_json::from_slice(&place.keep("devices.json")).expect("JSON") };
    let write = |file: &Value| std::fs::write(place.path("devices.json"), file.to_string()).expect("writable");
    let position = |file: &Value| {
        let links = file["links"].as_array().expect("links");
        links.iter().position(|link| link["to"] == peer.as_str()).expect("the link is in the file")
    };
    let again = |more: &str| {
        let (told, _) = place.expect(0, &format!("{line} --refresh --format json {more}"));
        let looked: Value = serde_json::from_str(&told).expect("JSON");
        looked[0].clone()
    };
    let mut file = read();
    let at = position(&file);
    assert_eq!(
        (file["links"][at]["kind"].as_str(), file["links"][at]["from"].as_str()),
        (Some("socket"), Some("driver"))
    );
    // Nobody believes that a message to oneself goes at a hundred bytes in a second.
    file["links"][at]["bandwidth_bytes_per_second"]["value"] = 100.0.into();
    file["links"][at]["bandwidth_bytes_per_second"]["spread"] = 0.01.into();
    file["links"][at]["latency_seconds"]["spread"] = 0.01.into();
    write(&file);
    let looked = again("");
    assert_eq!((looked["verdict"].as_str(), looked["measured_again"].as_bool()), (Some("contradicted"), Some(true)));
    let rate = |file: &Value| file["links"][position(file)]["bandwidth_bytes_per_second"]["value"].as_f64();
    assert!(rate(&read()).is_some_and(|rate| rate > 1e6), "{:?}", rate(&read()));
    // So uncertain that no look speaks against it, and of a time that nobody trusts.
    let mut file = read();
    let at = position(&file);
    for figure in ["bandwidth_bytes_per_second", "latency_seconds"] {
        file["links"][at][figure]["spread"] = 1000.0.into();
        file["links"][at][figure]["when"] = "2020-01-01T00:00:00Z".into();
    }
    write(&file);
    let looked = again("--age-max 1000000000s");
    assert_eq!((looked["verdict"].as_str(), looked["measured_again"].as_bool()), (Some("holds"), Some(false)));
    assert_eq!(read()["links"][at]["latency_seconds"]["when"], "2020-01-01T00:00:00Z");
    let looked = again("");
    assert_eq!((looked["verdict"].as_str(), looked["measured_again"].as_bool()), (Some("stale"), Some(true)));
    assert_ne!(read()["links"][position(&read())]["latency_seconds"]["when"], "2020-01-01T00:00:00Z");
    responder.kill().expect("it runs");
    responder.wait().expect("it ends");
}
