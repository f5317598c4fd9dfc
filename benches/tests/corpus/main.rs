//! Replays every saved input of the fuzz targets through the same checks, so that what a fuzzer once found stays found
//! on machines without one. The seeds must be accepted, or the corpus would only show how refusals work.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use isotherm_audit::keys::{Identity, Seed, TrustedKeys};
use isotherm_audit::log::{Checkpoint, Entry};
use isotherm_audit::manifest::ExecutionManifest;
use isotherm_core::scenario::Scenario;
use isotherm_runtime::model::gguf::Gguf;
use isotherm_runtime::model::tokenizer::Tokenizer;

#[path = "../../../fuzz/checks/devices.rs"]
mod devices;
#[path = "../../../fuzz/checks/dsse.rs"]
mod dsse;
#[path = "../../../fuzz/checks/gguf.rs"]
mod gguf;
#[path = "../../../fuzz/checks/helix.rs"]
mod helix;
#[path = "../../../fuzz/checks/lease.rs"]
mod lease;
#[path = "../../../fuzz/checks/llmservingsim.rs"]
mod llmservingsim;
#[path = "../../../fuzz/checks/machine.rs"]
mod machine;
#[path = "../../../fuzz/checks/ollama.rs"]
mod ollama;
#[path = "../../../fuzz/checks/plan.rs"]
mod plan;
#[path = "../../../fuzz/checks/policies.rs"]
mod policies;
#[path = "../../../fuzz/checks/prompts.rs"]
mod prompts;
#[path = "../../../fuzz/checks/quantity.rs"]
mod quantity;
#[path = "../../../fuzz/checks/query.rs"]
mod query;
#[path = "../../../fuzz/checks/receipt.rs"]
mod receipt;
#[path = "../../../fuzz/checks/replay.rs"]
mod replayed;
#[path = "../../../fuzz/checks/scenario.rs"]
mod scenario;
#[path = "../../../fuzz/checks/ssh_key.rs"]
mod ssh_key;
#[path = "../../../fuzz/checks/sweep.rs"]
mod sweep;
#[path = "../../../fuzz/checks/thermal_log.rs"]
mod thermal_log;
#[path = "../../../fuzz/checks/tile.rs"]
mod tile;
#[path = "../../../fuzz/checks/tokenizer.rs"]
mod tokenizer;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The saved inputs of a target, in order of their names; at least one.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz().join("corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("the folder can be listed").path();
            let bytes = std::fs::read(&path).expect("saved inputs can be read");
            (path.file_name().expect("a file has a name").to_string_lossy().into_owned(), bytes)
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} holds no input", folder.display());
    inputs
}

/// Replays a target's inputs; the name of the input stands in the output when one breaks the promise.
fn replay(target: &str, check: impl Fn(&[u8])) {
    for (name, input) in corpus(target) {
        println!("{target}/{name}");
        check(&input);
    }
}

/// As libFuzzer gives bytes to a target that takes text: other bytes are not given.
fn as_text(check: impl Fn(&str)) -> impl Fn(&[u8]) {
    move |input| {
        if let Ok(text) = std::str::from_utf8(input) {
            check(text);
        }
    }
}

fn seed(target: &str, name: &str) -> Vec<u8> {
    std::fs::read(fuzz().join("corpus").join(target).join(name)).expect("seeds are tracked")
}

#[test]
fn saved_model_files_keep_the_promise() {
    replay("gguf", gguf::check);
    let file = Gguf::from_bytes(seed("gguf", "seed-model")).expect("the seed is a model file");
    assert_eq!(file.tensors().len(), 4);
}

#[test]
fn saved_tokenizers_keep_the_promise() {
    replay("tokenizer", tokenizer::check);
    let file = Gguf::from_bytes(seed("tokenizer", "seed-tokenizer").split_off(2)).expect("the seed is a model file");
    let tokenizer = Tokenizer::from_gguf(&file).expect("the seed holds a tokenizer");
    assert_eq!(tokenizer.encode("the", false).expect("short text").len(), 1, "both merges apply");
}

#[test]
fn saved_scenarios_keep_the_promise() {
    replay("scenario", as_text(scenario::check));
    let text = String::from_utf8(seed("scenario", "seed-whole")).expect("a scenario is text");
    let scenario = Scenario::parse(&text, &mut |_, _| Err(Vec::new())).expect("the seed is a scenario");
    assert!(scenario.problem(None, None).is_ok());
}

#[test]
fn saved_manifests_of_ollama_keep_the_promise() {
    replay("ollama", as_text(ollama::check));
    let text = String::from_utf8(seed("ollama", "seed-manifest")).expect("a manifest is text");
    assert!(isotherm_core::import::ollama::model_digest(&text).is_ok());
}

#[test]
fn saved_prompts_keep_the_promise() {
    replay("prompts", as_text(prompts::check));
    let text = String::from_utf8(seed("prompts", "seed-arrivals")).expect("prompts are text");
    assert_eq!(isotherm_core::workload::prompts::parse(&text).map(|requests| requests.len()), Ok(2));
}

#[test]
fn saved_quantities_keep_the_promise() {
    replay("quantity", as_text(quantity::check));
    assert!("80 GiB".parse::<isotherm_core::units::Bytes>().is_ok());
}

#[test]
fn saved_questions_and_sweeps_keep_the_promise() {
    replay("query", as_text(query::check));
    for name in ["seed-group", "seed-over", "seed-arithmetic"] {
        let text = String::from_utf8(seed("query", name)).expect("a question is text");
        isotherm_core::query::Query::parse(&text).expect("the seed is a question");
    }
    replay("sweep", as_text(sweep::check));
    for (name, points) in [("seed-both", 8), ("seed-grid", 9)] {
        let text = String::from_utf8(seed("sweep", name)).expect("a sweep is text");
        assert_eq!(isotherm_core::sweep::Sweep::read(&text).expect("the seed is a sweep").len(), points);
    }
}

#[test]
fn saved_plans_keep_the_promise() {
    replay("plan", plan::check);
    let plan: isotherm_core::plan::Plan =
        serde_json::from_slice(&seed("plan", "seed-plan")).expect("the seed is a plan");
    assert!(!plan.stages.is_empty());
}

#[test]
fn saved_device_files_keep_the_promise() {
    replay("devices", devices::check);
    let file = serde_json::from_slice(&seed("devices", "seed-devices")).expect("the seed is a devices file");
    assert!(isotherm_core::graph::DeviceGraph::new(file).is_ok());
}

/// The targets of signed things also sign their input themselves; here the input is opened as it stands, and none may
/// verify under a key that signed nothing.
#[test]
fn saved_signed_things_verify_under_no_strange_key() {
    let identity = Identity::from_seed(&Seed::from_bytes([77; 32])).expect("any seed is a key");
    let trusted = TrustedKeys::new([identity.public().clone()], 1).expect("one of one");
    replay("manifest", |input| {
        assert!(isotherm_audit::inspect::<ExecutionManifest>(input, &trusted).is_err());
    });
    replay("token", |input| {
        assert!(isotherm_audit::inspect::<isotherm_audit::lease::Lease>(input, &trusted).is_err());
    });
    replay("checkpoint", |input| {
        assert!(Checkpoint::open(input, "isotherm.example/fuzz", identity.public()).is_err());
    });
    replay("log_entry", |input| {
        // An entry has no signature of its own: the tree says whether it was logged, and none is in an empty one.
        if let Ok(entry) = Entry::read(input) {
            assert!(entry.belongs("isotherm.example/elsewhere", entry.index, &entry.previous).is_err());
        }
    });
}

#[test]
fn saved_leases_keys_and_tiles_keep_the_promise() {
    replay("lease", lease::check);
    replay("dsse", dsse::check);
    replay("tile", tile::check);
    replay("receipt", receipt::check);
    assert!(isotherm_core::receipt::Receipt::parse(&seed("receipt", "seed-card")).is_ok(), "the seed is a receipt");
    replay("ssh_key", as_text(ssh_key::check));
    let line = String::from_utf8(seed("ssh_key", "seed-public")).expect("a key is text");
    assert!(isotherm_audit::ssh::read_public(&line).is_ok(), "the seed is a key");
}

#[cfg(unix)]
#[test]
fn saved_machines_keep_the_promise() {
    replay("machine", machine::check);
    assert_eq!(seed("machine", "seed-card").split(|byte| *byte == 0).count(), 28, "every file has a piece");
}

#[test]
fn saved_policies_keep_the_promise() {
    replay("policies", as_text(policies::check));
    let text = String::from_utf8(seed("policies", "seed-site")).expect("policies are text");
    assert!(isotherm_access::Authority::new(policies::directory(), &text).is_ok(), "the seed holds");
}

#[test]
fn saved_flows_and_clusters_keep_the_promise() {
    use isotherm_core::import::helix_flow;
    replay("helix", as_text(helix::check));
    let text = String::from_utf8(seed("helix", "seed-flow")).expect("the seed is text");
    helix_flow::scenario(&text, "a").expect("the seed is a flow problem");
}

#[test]
fn saved_logs_of_heat_keep_the_promise() {
    use isotherm_core::thermal::log::ThermalLog;
    replay("thermal_log", as_text(thermal_log::check));
    for name in ["seed-smi", "seed-own"] {
        let text = String::from_utf8(seed("thermal_log", name)).expect("the seed is text");
        assert_eq!(ThermalLog::parse(&text).expect("the seed is a log").len(), 24);
    }
}

#[test]
fn saved_loads_keep_the_promise() {
    use isotherm_core::workload::replay::Replay;
    replay("replay", as_text(replayed::check));
    for name in ["seed-seconds", "seed-dates", "seed-blocks", "seed-tokens"] {
        let text = String::from_utf8(seed("replay", name)).expect("the seed is text");
        Replay::parse(&text).expect("the seed is a load");
    }
}

#[test]
fn saved_profiles_and_runs_keep_the_promise() {
    use isotherm_core::import::llmservingsim::{measured, workload};
    replay("llmservingsim", as_text(llmservingsim::check));
    let profile = String::from_utf8(seed("llmservingsim", "seed-profile")).expect("the seed is text");
    assert_eq!(profile.split('\0').count(), 6, "all files of a profile");
    let run = String::from_utf8(seed("llmservingsim", "seed-run")).expect("the seed is text");
    assert_eq!((workload(&run).expect("requests").len(), measured(&run).expect("answers").len()), (1, 1));
}
