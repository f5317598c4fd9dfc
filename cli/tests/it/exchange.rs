//! Import, export and what is refused there.

use crate::Place;
use std::path::{Path, PathBuf};

/// A file of the shared data; none, and a word about it, where it is absent.
fn shared(test: &str, file: &str) -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = || here.ancestors().map(|folder| folder.join("shared")).find(|folder| folder.join("data").is_dir());
    let folder = std::env::var_os("ISOTHERM_SHARED").map(PathBuf::from).or_else(beside);
    let found = folder.map(|folder| folder.join("data/helix").join(file)).filter(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: {test}: the shared data folder is absent");
    }
    found
}

/// Two nodes of two layers each, and one that is too slow to matter.
const FLOW: &str = r#"{"small": {"layers": 4, "partial": false,
    "nodes": {"a": {"1": 90.5, "2": 40.25}, "b": {"1": 90.5, "2": 40.25}, "c": {"4": 7.125}},
    "links": [["source", "a", 1000], ["source", "c", 1000], ["a", "b", 33.3], ["b", "a", 12.5],
              ["b", "sink", 1000], ["c", "sink", 3]]}}"#;

#[test]
fn a_flow_problem_is_imported_planned_and_checked_and_not_simulated() {
    let place = Place::new();
    place.write("flow.json", FLOW);
    place.expect(0, "import helix-flow flow.json --instance small -o small.toml");
    let (plan, _) = place.expect(0, "-q plan small.toml -o plan.json --format json");
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    // a then b, held back by the link between them; beside it c, held back by its link to the sink.
    let value = plan["objective_value"].as_f64().expect("a value");
    assert!((value - (33.3 + 3.0)).abs() < 1e-9, "{value}");
    assert!(plan["certificate"]["gap"].as_f64().is_some_and(|gap| gap < 1e-9));
    place.expect(0, "check plan.json small.toml");
    let (_, message) = place.expect(1, "simulate plan.json small.toml");
    assert!(message.contains("only output rates") && message.contains("what to do") || message.contains("probe it"));
}

#[test]
fn the_published_instances_give_the_figures_that_are_known() {
    let test = "the_published_instances_give_the_figures_that_are_known";
    let Some(file) = shared(test, "instances/parsed.json") else { return };
    let place = Place::new();
    for (instance, expected) in [("single24", 2045.641), ("quality10", 286.587), ("l30b_a100", 1044.533)] {
        let scenario = format!("{instance}.toml");
        place.expect(0, &format!("import helix-flow {} --instance {instance} -o {scenario}", file.display()));
        let (plan, _) = place.expect(0, &format!("-q plan {scenario} -o {instance}.json --format json"));
        let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
        let value = plan["objective_value"].as_f64().expect("a value");
        assert!((value - expected).abs() < 1e-3, "{instance}: {value}");
        assert_eq!(plan["certificate"]["bound_kind"], "certified", "{instance}");
        place.expect(0, &format!("check {instance}.json {scenario}"));
    }
}

#[test]
fn every_rate_and_capacity_of_an_imported_instance_is_the_stated_one() {
    let test = "every_rate_and_capacity_of_an_imported_instance_is_the_stated_one";
    let Some(file) = shared(test, "instances/parsed.json") else { return };
    let stated: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("readable")).expect("JSON");
    let place = Place::new();
    for (instance, problem) in stated.as_object().expect("instances") {
        place.expect(0, &format!("import helix-flow {} --instance {instance} -o s.toml", file.display()));
        let text = std::fs::read_to_string(place.path("s.toml")).expect("readable");
        let mut none = |_, _: &str| Err(Vec::new());
        let scenario = isotherm_core::scenario::Scenario::parse(&text, &mut none).expect("a scenario");
        let (devices, links) = (&scenario.devices.devices, &scenario.devices.links);
        assert_eq!(devices.len(), problem["nodes"].as_object().expect("nodes").len());
        for device in devices {
            let table = problem["nodes"][&device.name].as_object().expect("a table");
            assert_eq!(device.rates.len(), table.len());
            for (k, rate) in &device.rates {
                assert_eq!(table[&k.to_string()].as_f64().map(f64::to_bits), Some(rate.value().to_bits()));
            }
        }
        let listed = problem["links"].as_array().expect("links");
        assert_eq!(links.len(), listed.len());
        for link in listed {
            let same = |l: &&isotherm_core::graph::Link| l.from == link[0] && l.to == link[1];
            let found: Vec<_> = links.iter().filter(same).collect();
            assert_eq!(found.len(), 1, "{link}");
            assert_eq!(found[0].tokens_per_second.map(|t| t.value()), link[2].as_f64());
        }
    }
}

#[test]
fn a_damaged_flow_problem_is_one_clear_error_and_writes_nothing() {
    let place = Place::new();
    let nodes = r#""nodes": {"a": {"1": 5}, "b": {"1": 5}}"#;
    let links = r#""links": [["source", "a", 9], ["a", "b", 9], ["b", "sink", 9]]"#;
    let cases = [
        (format!("{{\"x\": {{\"layers\": 2, {nodes}, {links}}}}}"), "holds no instance \"i\"; it holds: x"),
        (format!("{{\"i\": {{\"layers\": 2, {nodes}, {links}}}, \"i\": 1}}"), "instance \"i\" occurs twice"),
        (format!("{{\"i\": {{\"layers\": 1e9, {nodes}, {links}}}}}"), "\"layers\" of instance \"i\" is 1000000000"),
        (format!("{{\"i\": {{\"layers\": NaN, {nodes}, {links}}}}}"), "is no JSON"),
        (format!("{{\"i\": {{\"layers\": 2, {nodes}}}}}"), "has no \"links\""),
        (
            format!("{{\"i\": {{\"layers\": 2, \"nodes\": {{\"a\": {{\"1\": -5}}}}, {links}}}}}"),
            "the rate of node \"a\" of instance \"i\" for \"1\" layers is -5",
        ),
        (
            format!("{{\"i\": {{\"layers\": 2, \"nodes\": {{\"a\": {{\"1\": 1e999}}}}, {links}}}}}"),
            "number out of range",
        ),
        (
            format!("{{\"i\": {{\"layers\": 2, \"nodes\": {{\"a\": {{\"1\": 5}}, \"a\": {{\"1\": 5}}}}, {links}}}}}"),
            "node \"a\" of instance \"i\" occurs twice",
        ),
        (
            format!("{{\"i\": {{\"layers\": 2, {nodes}, \"links\": [[\"source\", \"z\", 9]]}}}}"),
            "link number 1 of instance \"i\" names \"z\", which is no node; nodes: a, b",
        ),
        (
            format!("{{\"i\": {{\"layers\": 2, {nodes}, \"links\": [[\"a\", \"b\", 9], [\"a\", \"b\", 8]]}}}}"),
            "the link from \"a\" to \"b\" occurs twice",
        ),
        (
            format!("{{\"i\": {{\"layers\": 2, {nodes}, \"links\": [[\"a\", \"b\", \"9\"]]}}}}"),
            "the capacity of link number 1 of instance \"i\" is a text",
        ),
        (
            format!("{{\"i\": {{\"layers\": 2, \"nodes\": {{\"a\": {{\"4294967296\": 5}}}}, {links}}}}}"),
            "a number of layers of node \"a\" is \"4294967296\"",
        ),
        (
            format!("{{\"i\": {{\"layers\": 2, {nodes}, {links}, \"partial\": 1}}}}"),
            "\"partial\" of instance \"i\" is a number",
        ),
        ("[]".to_owned(), "the file is a list"),
        (format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), "recursion limit"),
    ];
    for (text, named) in cases {
        place.write("damaged.json", &text);
        let (_, message) = place.expect(1, "import helix-flow damaged.json --instance i -o out.toml");
        assert!(message.contains(named), "{named}: {message}");
        assert!(message.lines().count() <= 3, "{message}");
        assert!(!place.path("out.toml").exists(), "{named}");
    }
    let many: String = (0..2_000).map(|i| format!("\"n{i}\": {{\"1\": 1}},")).collect();
    let many = many.trim_end_matches(',');
    place.write("many.json", &format!("{{\"i\": {{\"layers\": 2, \"nodes\": {{{many}}}, {links}}}}}"));
    let (_, message) = place.expect(1, "import helix-flow many.json --instance i -o out.toml");
    assert!(message.contains("the number of nodes of instance \"i\" is 2000; it must be from 1 to 1000"), "{message}");
}

/// A cluster of two machines, as [`crate::Place`] files.
fn cluster(place: &Place) {
    let link = |ends: &str| format!("[Link-{ends}]\nbandwidth=1000 * mbps\nlatency=1 * MilliSec\n");
    let links: String = ["source-0", "source-1", "0-1", "0-sink", "1-sink"].map(link).concat();
    place.write("two.ini", &format!("# two\n[ComputeNode-0]\ntype=A100\n[ComputeNode-1]\ntype=A100x\n{links}"));
    let machine = |name: &str, memory: u32| {
        format!("[{name}]\ninbound_nic_speed = 10 * gbps\noutbound_nic_speed = 10 * gbps\nvram_size = {memory} * GB\n")
    };
    place.write("some_machine_profiles.ini", &(machine("A100", 80) + &machine("A100x", 120)));
    for machine in ["a100", "a100x"] {
        place.write(&format!("llama2_70b_{machine}_prompt_bs2time.csv"), "0,0\n250,5\n1000,18\n");
        place.write(&format!("llama2_70b_{machine}_decode_bs2time.csv"), "0,0\n1,2\n64,4\n");
    }
}

#[test]
fn a_cluster_is_imported_planned_checked_and_simulated() {
    let place = Place::new();
    cluster(&place);
    place.expect(0, "import helix --cluster two.ini --profiles . --model llama2_70b -o two.toml");
    place.expect(0, "-q plan two.toml -o plan.json");
    place.expect(0, "check plan.json two.toml");
    let (simulated, _) = place.expect(0, "-q simulate plan.json two.toml --seeds 1 --format json");
    let simulated: serde_json::Value = serde_json::from_str(&simulated).expect("JSON");
    assert!(simulated["metrics"]["tokens_per_second"]["mean"].as_f64().is_some_and(|rate| rate > 0.0));
}

#[test]
fn a_damaged_cluster_is_one_clear_error() {
    let place = Place::new();
    cluster(&place);
    let line = "import helix --cluster two.ini --profiles . --model llama2_70b -o two.toml";
    let (_, message) = place.expect(1, &line.replace("llama2_70b", "gpt-9"));
    assert!(message.contains("gpt-9") && message.contains("llama1_30b"), "{message}");
    let whole = String::from_utf8(place.keep("two.ini")).expect("text");
    for (from, to, named) in [
        ("1000 * mbps", "NaN", "bandwidth is \"NaN\""),
        ("type=A100x", "type=H900", "section [H900]"),
        ("[Link-0-1]", "[Link-0-7]", "names a node that is not there"),
        ("[ComputeNode-1]", "[ComputeNode-0]", "occurs twice"),
        ("latency=1 * MilliSec", "latency=-1 * MilliSec", "below zero"),
        ("# two", "two", "neither [section] nor key"),
    ] {
        place.write("two.ini", &whole.replacen(from, to, 1));
        let (_, message) = place.expect(1, line);
        assert!(message.contains(named), "{named}: {message}");
    }
    place.write("two.ini", &whole);
    place.write("llama2_70b_a100_decode_bs2time.csv", "0,0\n8,2\n4,3\n");
    let (_, message) = place.expect(1, line);
    assert!(message.contains("line 3") && message.contains("does not rise"), "{message}");
    std::fs::remove_file(place.path("llama2_70b_a100_decode_bs2time.csv")).expect("removed");
    let (_, message) = place.expect(1, line);
    assert!(message.contains("no Decode profile of A100"), "{message}");
}

#[test]
fn a_plan_is_written_for_every_engine_and_says_what_is_lost() {
    let place = Place::new();
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/reference/home-pile.toml");
    let scenario = scenario.display();
    let (plan, _) = place.expect(0, &format!("-q plan {scenario} -o plan.json --format json"));
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    let layers: Vec<String> = plan["routes"][0]["stages"]
        .as_array()
        .expect("stops")
        .iter()
        .map(|stop| {
            (stop["layers"]["end"].as_u64().expect("a layer") - stop["layers"]["start"].as_u64().expect("a layer"))
                .to_string()
        })
        .collect();
    let partition = format!("VLLM_PP_LAYER_PARTITION={}", layers.join(","));
    let windows = format!("-lw \"{}\"", layers.join(","));
    for (engine, expected) in [
        ("llama.cpp", "--tensor-split"),
        ("vllm", partition.as_str()),
        ("exo", "startLayer"),
        ("prima", windows.as_str()),
        ("mlx", "mlx.launch --hostfile"),
    ] {
        let (script, _) = place.expect(0, &format!("export plan.json {scenario} --to {engine}"));
        assert!(script.contains(expected), "{engine}: {script}");
        assert!(script.contains("# Not expressed here:"), "{engine}: {script}");
        let (json, _) =
            place.expect(0, &format!("export plan.json {scenario} --to {engine} -o {engine}.sh --format json"));
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["script"].as_str(), String::from_utf8(place.keep(&format!("{engine}.sh"))).ok().as_deref());
    }
}

/// The script of the plan of a scenario of the checkout for an engine.
fn exported(scenario: &str, engine: &str) -> String {
    let place = Place::new();
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(scenario);
    let scenario = scenario.display();
    place.expect(0, &format!("-q plan {scenario} -o plan.json"));
    place.expect(0, &format!("export plan.json {scenario} --to {engine}")).0
}

#[test]
fn a_script_has_the_devices_of_its_plan_and_only_the_layers_that_lie_on_them() {
    let mixed = exported("home/amd-and-nvidia.toml", "llama.cpp");
    assert!(mixed.contains("--device ROCm0,CUDA0 ") || mixed.contains("--device CUDA0,ROCm0 "), "{mixed}");
    assert!(exported("home/amd-and-nvidia.toml", "vllm").contains("(AMD, NVIDIA): vLLM is built for one"));
    assert!(exported("lab/experts-over-cards.toml", "vllm").contains("--enable-expert-parallel"));
    let boards = exported("edge/lossy-radio.toml", "llama.cpp");
    assert!(boards.contains("CUDA0") && !boards.contains("Metal"), "{boards}");
    assert!(!exported("edge/lossy-radio.toml", "vllm").contains("does not run on"));
    // 32 layers, some of them in the computer's memory, and the head.
    let large = exported("home/larger-than-the-card.toml", "llama.cpp");
    let offloaded = large.split("-ngl ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(offloaded.is_some_and(|layers| (2..32).contains(&layers)), "{large}");
}

#[test]
fn lengths_that_a_flow_problem_does_not_state_are_not_written_down() {
    let place = Place::new();
    place.write("flow.json", FLOW);
    place.expect(0, "-q import helix-flow flow.json --instance small -o small.toml");
    place.expect(0, "-q plan small.toml -o plan.json");
    for (engine, flag) in [("vllm", "--max-model-len"), ("llama.cpp", " -c ")] {
        let (script, _) = place.expect(0, &format!("export plan.json small.toml --to {engine}"));
        let commands: Vec<&str> = script.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(!commands.join("\n").contains(flag), "{engine}: {script}");
        assert!(script.contains("states no lengths"), "{engine}: {script}");
    }
}

#[test]
fn an_algorithm_that_is_not_for_an_objective_says_so() {
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/home/amd-and-nvidia.toml");
    let (_, message) = Place::new().expect(2, &format!("plan {} --algorithm helix-milp", scenario.display()));
    assert!(message.contains("many requests at once") && message.contains("tpot"), "{message}");
}

/// A scenario of the checkout.
fn reference(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/reference").join(name).display().to_string()
}

/// Whether a plan states a value, a bound and the gap between them.
fn states_its_gap(plan: &str) -> bool {
    let plan: serde_json::Value = serde_json::from_str(plan).expect("JSON on standard output");
    let figure = |key: &str| plan["certificate"][key].as_f64();
    let (Some(value), Some(bound), Some(gap)) = (figure("objective"), figure("bound"), figure("gap")) else {
        return false;
    };
    value > 0.0 && bound >= value && ((bound - value) / value - gap).abs() < 1e-9
}

#[test]
fn a_time_limit_leaves_the_best_plan_so_far_with_its_true_gap() {
    let scenario = reference("helix-24-gpus.toml");
    let (plan, _) = Place::new().expect(0, &format!("-q plan {scenario} --time-limit 1s --format json"));
    assert!(states_its_gap(&plan), "{plan}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_the_best_plan_so_far_with_its_true_gap() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};
    let place = Place::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_isotherm"))
        .args(["plan", &reference("helix-24-gpus.toml"), "--format", "json", "--time-limit", "120s"])
        .env("ISOTHERM_HOME", place.path("home"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut messages = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("best ") || line.contains("best -") {
        line.clear();
        assert!(messages.read_line(&mut line).expect("readable") > 0, "it tells of the best so far");
    }
    // Where the search has ended meanwhile there is nobody to interrupt, and the plan is the best there is.
    let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    let drain = std::thread::spawn(move || messages.read_to_string(&mut String::new()));
    let mut plan = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut plan).expect("readable");
    assert!(child.wait().expect("ends").success());
    drain.join().expect("no panic").expect("readable");
    assert!(states_its_gap(&plan), "{plan}");
}

#[test]
fn every_algorithm_gives_a_plan_that_the_checker_accepts() {
    let place = Place::new();
    place.write("flow.json", FLOW);
    place.expect(0, "-q import helix-flow flow.json --instance small -o small.toml");
    let mut plans = 0;
    for algorithm in ["equal", "memory-proportional", "greedy", "min-max", "petals", "swarm", "halda", "helix-milp"] {
        let line = format!("-q plan small.toml --algorithm {algorithm} --time-limit 20s -o {algorithm}.json");
        match place.run(&line).status.code() {
            Some(0) => {
                place.expect(0, &format!("check {algorithm}.json small.toml"));
                plans += 1;
            }
            // A rule that does not look may give nothing that holds, and says so.
            status => assert_eq!(status, Some(3), "{algorithm}"),
        }
    }
    assert!(plans >= 3, "{plans}");
    place.expect(2, "plan small.toml --algorithm magic");
}

#[test]
fn advice_names_what_fits_and_what_a_purchase_would_give() {
    let place = Place::new();
    place.expect(0, "-q model synth tiny -o model.gguf");
    place.expect(0, "-q probe --model model.gguf --budget 200ms -o devices.json");
    place.write("prices.toml", "currency = \"EUR\"\nrtx-4090 = 1800\n");
    let line = "-q advise --devices devices.json --models . --prices prices.toml --time-limit 1s";
    let (advice, _) = place.expect(0, &format!("{line} --format json"));
    let advice: serde_json::Value = serde_json::from_str(&advice).expect("JSON");
    let models = advice["models"].as_array().expect("a list");
    let row = |name: &str, format: &str| {
        models.iter().find(|row| row["model"] == name && row["quantisation"] == format).expect("a row")
    };
    assert_eq!(row("llama-2-70b", "F16")["fits"], false, "no test machine holds 138 GB");
    assert_eq!(row("smollm2-135m-instruct", "Q4_0")["fits"], true);
    assert!(row("smollm2-135m-instruct", "Q4_0")["tpot_seconds"]["value"].as_f64().is_some_and(|t| t > 0.0));
    assert!(models.iter().any(|row| row["origin"] == "file" && row["model"] == "model"));
    let purchases = advice["purchases"].as_array().expect("a list");
    assert_eq!(purchases[0]["device"], "rtx-4090", "the only one with a price comes first");
    assert_eq!(purchases[0]["currency"], "EUR");
    let (text, _) = place.expect(0, line);
    assert!(text.contains("What fits:") && text.contains("What one more device would give"), "{text}");
    let (_, message) = Place::new().expect(1, "advise");
    assert!(message.contains("isotherm probe"), "{message}");
}

#[test]
fn planners_are_compared_on_a_generated_set() {
    let place = Place::new();
    let (text, _) = place.expect(0, "-q bench planner --sets partial24 --cap 1s -o out");
    for planner in ["isotherm", "equal", "petals", "helix_milp"] {
        assert!(text.contains(planner), "{text}");
    }
    let record: serde_json::Value = serde_json::from_slice(&place.keep("out/planner.json")).expect("JSON");
    let rows = record["rows"].as_array().expect("rows");
    let ours = &rows[0];
    assert_eq!(ours["planner"], "isotherm");
    let best = ours["bound"].as_f64().expect("a bound");
    assert!(rows.iter().all(|row| row["value"].as_f64().is_none_or(|value| value <= best * (1.0 + 1e-9))), "{text}");
    let (_, message) = place.expect(2, "bench planner --sets no-such-set");
    assert!(message.contains("regions24"), "{message}");
}
