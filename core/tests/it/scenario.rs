//! Scenario texts: the shipped ones parse, wrong ones say what is wrong and where, none makes the reader panic.

use crate::build::Draw;
use isotherm_core::figure::How;
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::scenario::{BuildError, Kind, ModelSource, Scenario, ScenarioError};
use isotherm_core::units::{Bytes, BytesPerSecond, Seconds};
use isotherm_core::workload::{Arrivals, Length};
use std::path::{Path, PathBuf};

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn stems(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder of the project");
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let tables = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let mut names: Vec<String> = tables.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    names
}

/// The text of a shipped table, or the names there are.
pub fn shipped(kind: Kind, name: &str) -> Result<String, Vec<String>> {
    let folder = folder().join(match kind {
        Kind::Model => "models",
        Kind::Device => "devices",
    });
    std::fs::read_to_string(folder.join(format!("{name}.toml"))).map_err(|_| stems(&folder))
}

pub fn parse(text: &str) -> Result<Scenario, Vec<ScenarioError>> {
    Scenario::parse(text, &mut shipped)
}

fn problem(text: &str) -> PlacementProblem {
    let scenario = parse(text).unwrap_or_else(|errors| panic!("{}", listed(&errors)));
    scenario.problem(None, None).expect("a problem")
}

fn listed<E: std::fmt::Display>(errors: &[E]) -> String {
    errors.iter().map(|e| format!("{e}\n")).collect()
}

fn refusal(text: &str) -> String {
    listed(&parse(text).expect_err("this text is wrong"))
}

/// A scenario with everything it must have, and this beside it.
fn with(rest: &str) -> String {
    format!(
        "name = \"test\"\nquestion = \"?\"\n{rest}\n[model]\nname = \"smollm2-135m-instruct-q4_1\"\n\
         [[devices]]\ntable = \"cpu-2core\"\n"
    )
}

#[test]
fn a_name_with_a_control_character_is_refused_for_that_and_shown_escaped() {
    let said = refusal(&with("").replace("\"test\"", "\"te\\u001bst\""));
    assert!(said.contains(r"control character '\u{1b}'") && !said.contains("blank"), "{said}");
    let said = refusal(&with("").replace("\"test\"", "\" \""));
    assert!(said.contains("name is blank"), "{said}");
}

#[test]
fn every_shipped_scenario_asks_a_question_and_makes_a_problem() {
    let mut seen = 0;
    for group in ["smoke", "reference"] {
        for name in stems(&folder().join(group)) {
            let text = std::fs::read_to_string(folder().join(group).join(format!("{name}.toml"))).expect("readable");
            let problem = problem(&text);
            let scenario = parse(&text).expect("parsed above");
            assert_eq!(scenario.name, name, "a scenario is named like its file");
            assert!(scenario.question.ends_with('?'), "{name} asks {:?}", scenario.question);
            assert!(problem.graph.device_ids().any(|d| problem.usable(d)), "{name} has a usable device");
            assert_eq!(problem.inputs.len(), 3);
            seen += 1;
        }
    }
    assert!(seen >= 7, "{seen}");
}

#[test]
fn every_device_and_model_table_can_be_used_and_names_its_sources() {
    for table in stems(&folder().join("devices")) {
        let text = format!(
            "name = \"t\"\nquestion = \"?\"\n[model]\nname = \"llama-2-70b-f16\"\n[[devices]]\ntable = \"{table}\"\n"
        );
        let problem = problem(&text);
        let device = &problem.graph.devices()[0];
        assert_eq!(device.class, table);
        let stated = [
            device.memory_bytes.as_ref().map(|f| f.source.clone()),
            device.memory_bandwidth_bytes_per_second.as_ref().map(|f| f.source.clone()),
            device.compute_flops_per_second.as_ref().map(|f| f.source.clone()),
        ];
        // What no source states is absent, as the arithmetic of some devices is.
        assert!(stated[0].is_some() && stated[1].is_some(), "{table} states its memory");
        for source in stated.into_iter().flatten() {
            assert!(
                source.is_some_and(|s| s.len() > 10 && !s.starts_with("device table")),
                "{table} names its sources"
            );
        }
    }
    for table in stems(&folder().join("models")) {
        let text =
            format!("name = \"t\"\nquestion = \"?\"\n[model]\nname = \"{table}\"\n[[devices]]\ntable = \"rtx-4090\"\n");
        assert_eq!(problem(&text).model.name, table);
    }
}

#[test]
fn the_table_of_the_test_model_has_the_bytes_of_its_file() {
    let problem = problem(&with(""));
    // Sums over the tensors of the public GGUF file.
    assert_eq!(problem.model.layer_bytes, vec![Bytes(2_216_448); 30]);
    assert_eq!(problem.model.embedding_bytes, Bytes(30_081_024));
    assert_eq!(problem.model.head_bytes, Bytes(30_081_024 + 2_304));
}

#[test]
fn published_layer_times_are_met_at_their_knots() {
    let text =
        "name = \"t\"\nquestion = \"?\"\n[model]\nname = \"llama-2-70b-f16\"\n[[devices]]\ntable = \"nvidia-t4\"\n";
    let problem = problem(text);
    let profile = problem.profile(isotherm_core::ids::DeviceId(0)).expect("the table has one for this model");
    assert_eq!(profile.how, How::Declared);
    // ms per layer: 1000 prompt tokens take 59, a decode batch of 100 takes 11.7.
    let close = |found: Seconds, ms: f64| assert!((found.value() * 1e3 - ms).abs() < 1e-3, "{found} is not {ms} ms");
    close(profile.dense_seconds.at(1000.0), 59.0);
    for context in [0.0, 500.0] {
        close(profile.dense_seconds.at(100.0) + profile.attention_decode_seconds.at(100.0, context), 11.7);
    }
}

#[test]
fn the_template_is_a_scenario_and_so_is_every_line_of_it() {
    let scenario = parse(Scenario::template()).unwrap_or_else(|errors| panic!("{}", listed(&errors)));
    scenario.problem(None, None).expect("a problem");
    // Every commented key must exist: uncommented in its section, it may be out of place but never unknown.
    for (i, line) in Scenario::template().lines().enumerate() {
        let Some(rest) = line.strip_prefix("# ").filter(|rest| rest.contains(" = ") && !rest.contains(" = \"a\""))
        else {
            continue;
        };
        let key = rest.split(" = ").next().expect("a key");
        if !key.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            continue;
        }
        let mut lines: Vec<String> = Scenario::template().lines().map(str::to_owned).collect();
        lines[i] = rest.to_owned();
        // The section it belongs to may be commented out too.
        let section = lines[..i].iter().rposition(|l| l.trim_start_matches("# ").starts_with('[')).filter(|&s| s > 12);
        if let Some(section) = section {
            lines[section] = lines[section].trim_start_matches("# ").to_owned();
        }
        if key == "junctions" {
            let junctions = lines.remove(i);
            lines.insert(0, junctions);
        }
        let refused = parse(&lines.join("\n")).map_or_else(|errors| listed(&errors), |_| String::new());
        assert!(!refused.contains("has no key") && !refused.contains("not TOML"), "line {}: {refused}", i + 1);
    }
}

#[test]
fn every_fault_is_reported_at_once_with_its_place_and_remedy() {
    let text = "\
name = \"t\"
qestion = \"?\"
[model]
name = \"llama-2-70b\"
[[devices]]
table = \"rtx-4090\"
memory = \"24 Gib\"
memmory_bandwidth = \"1 TB/s\"
[workload]
prompt_tokens = { min = 9, max = 3 }
clients = 0
[objective]
maximise = \"thruput\"
";
    let errors = parse(text).expect_err("seven faults");
    let shown = listed(&errors);
    for expected in [
        "line 1, column 1: the scenario lacks \"question\"; add it",
        "line 2, column 1: the scenario has no key \"qestion\"; did you mean \"question\"?",
        "line 4, column 8: there is no model table \"llama-2-70b\"; did you mean \"llama-2-70b-f16\"?",
        "line 7, column 10: memory: unit \"Gib\" in \"24 Gib\" is not a unit of memory; use one of B,",
        "line 8, column 1: [[devices]] number 1 has no key \"memmory_bandwidth\"; did you mean \"memory_bandwidth\"?",
        "max is 3; it must be at least min, which is 9",
        "line 11, column 11: clients is 0; it must be an integer from 1 to",
        "line 13, column 12: maximise is \"thruput\"; did you mean \"throughput\"?",
    ] {
        assert!(shown.contains(expected), "{expected}\nis not in\n{shown}");
    }
    let byte = text.find("qestion").expect("it is there");
    let unknown = errors.iter().find(|e| e.line == 2).expect("reported");
    assert_eq!((unknown.start, unknown.end), (byte, byte + "qestion".len()));
    assert!(errors.is_sorted_by_key(|e| e.start));
}

#[test]
fn text_that_is_no_toml_is_refused_where_it_breaks() {
    let refused = refusal("name = \"t\"\nquestion = ?\n[model\n");
    assert!(refused.contains("line 2") && refused.contains("not TOML"), "{refused}");
}

#[test]
fn faults_of_a_table_are_shown_in_that_table() {
    let mut lookup = |kind: Kind, name: &str| match kind {
        Kind::Device => Ok("kind = \"gpu\"\nmemory = \"many\"\n".to_owned()),
        Kind::Model => shipped(kind, name),
    };
    let errors = Scenario::parse(&with(""), &mut lookup).expect_err("a broken table");
    let shown = listed(&errors);
    assert!(shown.contains("device table \"cpu-2core\", line 2, column 10: memory: \"many\""), "{shown}");
    assert!(shown.contains("scenario, line 7, column 9: the device table \"cpu-2core\" has faults"), "{shown}");
}

#[test]
fn operating_points_are_read_with_who_states_them_and_full_speed_stands_for_the_busy_power() {
    let points = "power_points = [{ speed = 1, power = \"90 W\" }, { speed = 0.5, power = { value = \"30 W\", source = \"me\" } }]";
    let text = format!(
        "{}idle_power = \"10 W\"\n{points}\n",
        with("").replace("table = \"cpu-2core\"", "name = \"x\"\nkind = \"gpu\"")
    );
    let problem = problem(&text);
    let device = &problem.graph.devices()[0];
    assert_eq!(device.busy_watts.as_ref().map(|busy| busy.value.value()), Some(90.0));
    assert_eq!(device.power_points[1].watts.source.as_deref(), Some("me"));
    let json = serde_json::to_value(device).expect("serialises");
    assert_eq!(json["power_points"][1]["watts"]["value"], 30.0);
    assert_eq!(serde_json::from_value::<isotherm_core::device::Device>(json).expect("the same"), *device);
    // The busy power of a scenario is not that of its table, and so are points of that table.
    let own = parse(&with("").replace("cpu-2core\"", "rtx-3090\"\nbusy_power = \"300 W\"")).expect("valid");
    assert!(own.problem(None, None).expect("valid").graph.devices()[0].power_points.is_empty());
    for (points, said) in [
        ("[{ speed = 1.5, power = \"50 W\" }]", "0.001 to 1"),
        ("[{ power = \"50 W\" }]", "speed"),
        ("[{ speed = 0.5 }]", "power"),
        ("[{ speed = 0.5, power = \"50 W\", watts = 3 }]", "watts"),
        ("\"many\"", "power_points"),
    ] {
        let refused =
            refusal(&format!("{}idle_power = \"10 W\"\nbusy_power = \"90 W\"\npower_points = {points}\n", with("")));
        assert!(refused.contains(said), "{points}: {refused}");
    }
    let wrong = |points: &str| {
        let text = format!("{}idle_power = \"10 W\"\nbusy_power = \"90 W\"\npower_points = {points}\n", with(""));
        parse(&text)
            .map_err(|errors| listed(&errors))
            .and_then(|scenario| scenario.problem(None, None).map(|_| ()).map_err(|errors| format!("{errors:?}")))
    };
    for (points, said) in [
        ("[{ speed = 0.5, power = \"95 W\" }]", "below the busy power"),
        ("[{ speed = 0.5, power = \"5 W\" }]", "above the idle power"),
        ("[{ speed = 0.5, power = \"50 W\" }, { speed = 0.7, power = \"40 W\" }]", "slower than the one before"),
    ] {
        let refused = wrong(points).expect_err("no table of points");
        assert!(refused.contains(said), "{points}: {refused}");
    }
}

#[test]
fn a_table_name_cannot_leave_its_folder() {
    let text = with("").replace("cpu-2core", "../../secret");
    let mut asked = Vec::new();
    let mut lookup = |kind: Kind, name: &str| {
        asked.push(name.to_owned());
        shipped(kind, name)
    };
    assert!(Scenario::parse(&text, &mut lookup).is_err());
    assert_eq!(asked, ["smollm2-135m-instruct-q4_1"]);
}

#[test]
fn defaults_are_those_that_are_documented() {
    let scenario = parse(&with("")).expect("minimal");
    assert_eq!(scenario.objective, Objective::Throughput);
    assert_eq!(scenario.workload.arrivals, Arrivals::ClosedLoop { clients: 1 });
    assert_eq!(scenario.workload.prompt_tokens, Length::fixed(128));
    assert_eq!(scenario.workload.output_tokens, Length::fixed(64));
    assert_eq!(scenario.workload.requests, 16);
    assert_eq!((scenario.serving.requests_max, scenario.serving.step_tokens_max), (1, 256));
    assert_eq!(scenario.limits, isotherm_core::problem::Limits::default());
    assert_eq!(scenario.ambient.value(), 25.0);
    let busy = parse(&format!("{}[workload]\nclients = 6\n", with(""))).expect("minimal");
    assert_eq!(busy.serving.requests_max, 6);
}

#[test]
fn figures_can_be_replaced_and_say_who_states_them() {
    let text = format!("{}memory = {{ value = \"2 GiB\", source = \"me\", how = \"measured\" }}\n", with(""));
    let problem = problem(&text);
    let device = &problem.graph.devices()[0];
    let memory = device.memory_bytes.as_ref().expect("given");
    assert_eq!((memory.value, memory.how, memory.source.as_deref()), (Bytes(2 << 30), How::Measured, Some("me")));
    assert_eq!(device.memory_bandwidth_bytes_per_second.as_ref().map(|f| f.how), Some(How::Estimated));
    assert_eq!(device.class, "cpu-2core", "its entry has no name, so its class is its own, named like the table");
}

#[test]
fn network_levels_take_what_they_state() {
    let text = with("coordinator = \"one\"")
        + "name = \"a\"\ncount = 2\nhost = \"one\"\nsite = \"x\"\n\
           [[devices]]\ntable = \"cpu-2core\"\nname = \"b\"\nhost = \"two\"\nsite = \"x\"\n\
           [[devices]]\ntable = \"cpu-2core\"\nname = \"c\"\nhost = \"three\"\nsite = \"y\"\n\
           [network]\nwithin_host = { latency = \"10 us\", bandwidth = \"8 GB/s\" }\n\
           within_site = { latency = \"1 ms\", bandwidth = \"1 GB/s\" }\n\
           between_sites = { latency = \"20 ms\", bandwidth = \"10 MB/s\" }\n";
    let problem = problem(&text);
    let time = |from: &str, to: &str, bytes| {
        let path = problem.graph.path(from, to, Bytes(bytes)).expect("a way");
        (libm_round(path.latency.value() * 1e9), path.bandwidth)
    };
    let rate = |r: f64| Some(BytesPerSecond::of(r));
    assert_eq!(time("a-1", "a-2", 1), (10_000.0, rate(8e9)));
    assert_eq!(time("a-1", "b", 1), (1_000_000.0, rate(1e9)));
    assert_eq!(time("a-2", "c", 1), (20_000_000.0, rate(1e7)));
    assert_eq!(problem.graph.file().coordinator.as_deref(), Some("host:one"));
    assert!(problem.entry(problem.graph.find("c").expect("there"), 1).is_some());
}

fn libm_round(value: f64) -> f64 {
    value.round()
}

#[test]
fn links_join_what_they_name_and_nothing_else() {
    let text = with("junctions = [\"switch\"]")
        + "[[devices]]\ntable = \"cpu-2core\"\nname = \"b\"\n\
           [[links]]\nbetween = [\"cpu-2core\", \"switch\"]\nlatency = \"1 ms\"\nbandwidth = \"1 GB/s\"\ngroups = [\"nic\"]\n\
           [[links]]\nfrom = \"switch\"\nto = \"b\"\nlatency = \"1 ms\"\nbandwidth = \"1 GB/s\"\n\
           [[groups]]\nname = \"nic\"\nbandwidth = \"1 MB/s\"\n";
    let problem = problem(&text);
    let way = |from, to| problem.graph.path(from, to, Bytes(1)).and_then(|p| p.bandwidth);
    assert_eq!(way("cpu-2core", "b"), Some(BytesPerSecond::of(1e6)));
    assert_eq!(way("b", "cpu-2core"), None, "one direction only");
    let refused = refusal(&text.replace("to = \"b\"", "to = \"bb\"").replace("[\"nic\"]", "[\"nik\"]"));
    assert!(refused.contains("to names \"bb\"") && refused.contains("groups names \"nik\""), "{refused}");
}

#[test]
fn a_host_with_several_devices_needs_a_way_between_them() {
    let text = with("")
        + "count = 2\nhost = \"box\"\n[network]\nwithin_site = { latency = \"1 ms\", bandwidth = \"1 GB/s\" }\n";
    assert!(refusal(&text).contains("within_host"));
}

#[test]
fn a_flow_scenario_needs_nothing_but_layers_rates_and_links() {
    let text = "name = \"f\"\nquestion = \"?\"\n[model]\nlayers = 2\n[[devices]]\nname = \"n\"\nkind = \"gpu\"\ncount = 2\n\
                rates = [[1, \"10 tok/s\"], [2, \"4 tok/s\"]]\n[flow]\nsource = \"5 tok/s\"\nsink = \"6 tok/s\"\n\
                between_devices = \"7 tok/s\"\n";
    let problem = problem(text);
    let plan = crate::build::chain(&problem, &[("n-1", 0, 1), ("n-2", 1, 2)]);
    assert_eq!(plan.objective_value, Some(5.0));
    plan.check(&problem).expect("feasible");
}

#[test]
fn the_flow_scenario_of_helix_is_the_published_instance() {
    let name = "the_flow_scenario_of_helix_is_the_published_instance";
    let Some(data) = crate::helix::shared(name) else { return };
    let text = std::fs::read_to_string(folder().join("reference/helix-single24.toml")).expect("readable");
    let problem = problem(&text);
    let published = crate::helix::instance(&data, "single24");
    let tables = |problem: &PlacementProblem| {
        let mut tables: Vec<String> = problem
            .graph
            .devices()
            .iter()
            .map(|d| {
                let mut rates = d.rates.clone();
                rates.sort_by_key(|r| r.0);
                format!("{rates:?}")
            })
            .collect();
        tables.sort();
        tables
    };
    assert_eq!(tables(&problem), tables(&published));
    let links = |problem: &PlacementProblem, from: Option<&str>| {
        let all = problem.graph.file().links.iter().filter(|l| from.is_none_or(|f| l.from == f));
        let mut rates: Vec<f64> = all.filter_map(|l| l.tokens_per_second).map(|r| r.value()).collect();
        rates.sort_by(f64::total_cmp);
        rates
    };
    assert_eq!(links(&problem, None), links(&published, None));
    assert_eq!(links(&problem, Some("source")), links(&published, Some("source")));
}

#[test]
fn a_rate_next_to_nothing_is_refused_rather_than_divided_by() {
    for figure in ["memory_bandwidth = \"1e-320 GB/s\"", "compute = \"1e-320 TFLOP/s\""] {
        let scenario = parse(&format!("{}{figure}\n", with(""))).expect("well formed");
        let errors = listed(&scenario.problem(None, None).expect_err("no quotient of it is finite"));
        assert!(errors.contains("it must be from 1 to"), "{errors}");
    }
}

#[test]
fn the_best_chain_of_the_home_pile_is_certified_by_enumeration() {
    let text = std::fs::read_to_string(folder().join("reference/home-pile.toml")).expect("readable");
    let problem = problem(&text);
    let certified = |stages: &[(&str, u32, u32)]| {
        let mut plan = crate::build::chain(&problem, stages);
        let value = plan.objective_value.expect("evaluated");
        crate::build::certify(&mut plan, value, isotherm_core::plan::Evidence::Enumeration);
        plan.check(&problem).map(|_| ()).map_err(|faults| listed(&faults))
    };
    // Two million chains, of which few can beat this one even at best.
    certified(&[("older-card", 0, 1), ("gaming-card", 1, 48), ("studio", 48, 80)]).expect("nothing is quicker");
    let refused = certified(&[("gaming-card", 0, 46), ("studio", 46, 80)]).expect_err("the head start is worth it");
    assert!(refused.contains("less than the bound"), "{refused}");
}

#[test]
fn a_model_file_is_left_to_the_caller() {
    let text = with("").replace("name = \"smollm2-135m-instruct-q4_1\"", "file = \"model.gguf\"");
    let scenario = parse(&text).expect("valid");
    assert_eq!(scenario.model, ModelSource::File("model.gguf".into()));
    assert_eq!(scenario.problem(None, None).expect_err("no model"), [BuildError::ModelFile("model.gguf".into())]);
    scenario.problem(None, Some(crate::build::model(4))).expect("the file as somebody read it");
}

#[test]
fn measured_devices_stand_in_the_place_of_declared_ones_and_change_the_inputs() {
    let scenario = parse(&with("")).expect("valid");
    let declared = scenario.problem(None, None).expect("a problem");
    let mut measured = scenario.devices.clone();
    measured.devices[0].name = "real".into();
    let replaced = scenario.problem(Some(measured), None).expect("a problem");
    assert_eq!(replaced.graph.devices()[0].name, "real");
    assert_eq!(declared.inputs[0], replaced.inputs[0]);
    assert_ne!(declared.inputs[1], replaced.inputs[1]);
    let mut foreign = scenario.devices.clone();
    foreign.header.schema = "isotherm.plan/v1".into();
    assert!(matches!(scenario.problem(Some(foreign), None).expect_err("a plan")[..], [BuildError::Schema(_)]));
}

/// Changes a text in a place or two: a byte, a piece, a line, or a word for another.
fn mutate(text: &str, draw: &mut Draw) -> String {
    const WORDS: [&str; 21] = [
        "-1",
        "0",
        "1e400",
        "nan",
        "inf",
        "9999999999999999999",
        "\"\"",
        "\"é\"",
        "[]",
        "{}",
        "[[]]",
        "true",
        "'",
        "\"",
        "\"1e308 GB/s\"",
        "\"1e-320 GB/s\"",
        "\"1e-320 TFLOP/s\"",
        "\"1e18 B/s\"",
        "4294967295",
        "\u{0}",
        "1979-05-27",
    ];
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=draw.below(2) {
        let at = draw.below(bytes.len());
        let length = draw.below(12).min(bytes.len() - at);
        match draw.below(6) {
            0 => bytes[at] = draw.below(128) as u8,
            1 => drop(bytes.drain(at..at + length)),
            2 => {
                let copy = bytes[at..at + length].to_vec();
                let to = draw.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            3 => {
                let word = WORDS[draw.below(WORDS.len())].bytes();
                bytes.splice(at..at + length, word);
            }
            4 => {
                // The value of some key.
                let value = (at..bytes.len()).find(|&i| bytes[i] == b'=').map_or(at, |i| i + 1);
                let end = (value..bytes.len()).find(|&i| bytes[i] == b'\n').unwrap_or(bytes.len());
                bytes.splice(value..end, WORDS[draw.below(WORDS.len())].bytes());
            }
            _ => {
                let start = bytes[..at].iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
                let end = (at..bytes.len()).find(|&i| bytes[i] == b'\n').unwrap_or(bytes.len());
                let line = bytes[start..end].to_vec();
                let to = draw.below(bytes.len());
                bytes.splice(to..to, line);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn no_mutation_of_a_scenario_makes_the_reader_panic() {
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let mut texts = vec![Scenario::template().to_owned()];
    for name in ["smoke/two-cpu", "smoke/three-mixed", "reference/edge-phones", "reference/home-pile"] {
        texts.push(std::fs::read_to_string(folder().join(format!("{name}.toml"))).expect("readable"));
    }
    let (mut parsed, mut refused) = (0, 0);
    for round in 0..6_000 {
        let text = mutate(&texts[round % texts.len()], &mut draw);
        match parse(&text) {
            Ok(scenario) => {
                parsed += 1;
                // Whatever the figures, the problem's answers are figures or nothing.
                if let Ok(problem) = scenario.problem(None, None) {
                    for device in problem.graph.device_ids().take(3) {
                        let _ = problem.hop_rate(device, isotherm_core::ids::DeviceId(0));
                        let _ = problem.rate(device, problem.model.all_layers(), &problem.life(2));
                        let _ = problem.stage_bytes(device, problem.model.all_layers());
                    }
                }
            }
            Err(errors) => {
                refused += 1;
                assert!(!errors.is_empty(), "refused without a reason:\n{text}");
                for error in &errors {
                    let within = error.start <= error.end && error.line >= 1 && error.column >= 1;
                    assert!(within, "{error:?}");
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
    assert!(parsed > 300 && refused > 2_000, "{parsed} parsed, {refused} refused");
}

#[test]
fn no_mutation_of_a_table_makes_the_reader_panic() {
    let mut draw = Draw(0x2545_f491_4f6c_dd1d);
    let tables = ["nvidia-l4", "apple-m2-max"].map(|name| shipped(Kind::Device, name).expect("shipped"));
    let models = ["llama-2-70b-f16", "smollm2-135m-instruct-q4_1"].map(|n| shipped(Kind::Model, n).expect("shipped"));
    for round in 0..3_000 {
        let (device, model) = (mutate(&tables[round % 2], &mut draw), mutate(&models[round / 2 % 2], &mut draw));
        let mut lookup = |kind: Kind, _: &str| match kind {
            Kind::Device => Ok(device.clone()),
            Kind::Model => Ok(model.clone()),
        };
        let _ = Scenario::parse(&with(""), &mut lookup).map(|scenario| scenario.problem(None, None));
    }
}

#[test]
fn formats_that_may_be_chosen_are_known_and_named_once() {
    let with_choice = |list: &str| with(&format!("[choices]\nquantisations = {list}\n"));
    let problem = problem(&with_choice("[\"Q8_0\", \"Q4_0\"]"));
    assert_eq!(problem.formats(), ["Q8_0", "Q4_0"]);
    let refused = refusal(&with_choice("[\"Q8_0\", \"Q8_0\"]"));
    assert!(refused.contains("Q8_0"), "{refused}");
    let scenario = parse(&with_choice("[\"Q8_0\", \"Q3_X\"]")).expect("a list of words");
    let errors = listed(&scenario.problem(None, None).expect_err("nobody knows the bytes of Q3_X"));
    assert!(errors.contains("\"Q3_X\"") && errors.contains("Q4_1"), "{errors}");
    assert_eq!(self::problem(&with("")).formats(), ["Q4_1"]);
}
