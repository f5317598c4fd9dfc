//! Predictions against runs: profiles of every form, written here, and runs that took exactly what a hand computes.

use crate::Place;
use std::path::{Path, PathBuf};

/// Times that do not depend on the number of tokens, one by one: a layer of the dense model takes 40 us beside
/// attention, a pass 9 us more and the output 36.
const DENSE: &str = "layer,tokens,time_us\nembedding,1,5\nlayernorm,1,1\nqkv_proj,1,10\nrotary_emb,1,2\no_proj,1,3\n\
gate_up_proj,1,15\nact_fn,1,1\ndown_proj,1,7\nfinal_layernorm,1,4\n";
const TAIL: &str = "layer,sequences,time_us\nlm_head,1,30\nsampler,1,6\n";
/// A chunk of 16 tokens takes 20 us, of 32 it takes 36; a decode takes 10.
const ATTENTION: &str = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,1,16,10\n16,0,0,0,20\n32,0,0,0,36\n";

/// A profile folder `card/MODEL/bf16`.
fn profile(place: &Place, model: &str, degree: u32, dense: &str, more: &[(&str, &str)]) {
    let folder = place.path("profiles").join("card").join(model).join("bf16");
    let tp = folder.join(format!("tp{degree}"));
    std::fs::create_dir_all(&tp).expect("writable");
    let write = |path: PathBuf, text: &str| std::fs::write(path, text).expect("writable");
    write(folder.join("meta.yaml"), &format!("model: {model}\nhardware: card\n"));
    for (name, text) in [("dense.csv", dense), ("per_sequence.csv", TAIL), ("attention.csv", ATTENTION)] {
        write(tp.join(name), text);
    }
    for (name, text) in more {
        write(tp.join(name), text);
    }
}

/// A run of one request of 16 tokens answered by two: the first after `first` us, the second `second` us later.
fn run(place: &Place, model: &str, kwargs: &str, first: f64, second: f64) {
    let folder = place.path("run").join("vllm");
    std::fs::create_dir_all(&folder).expect("writable");
    let meta = format!(
        "{{\"model\": \"{model}\", \"engine_kwargs\": {{{kwargs}}}, \"kv_cache\": {{\"num_gpu_blocks\": 100}}}}"
    );
    std::fs::write(folder.join("meta.json"), meta).expect("writable");
    let (first, last) = (1.0 + first * 1e-6, 1.0 + (first + second) * 1e-6);
    let line = format!(
        "{{\"request_id\": \"bench-0\", \"output_toks\": 2, \"arrival_time\": 9e8, \"queued_ts\": 1.0, \
         \"first_token_ts\": {first:.9}, \"last_token_ts\": {last:.9}}}\n"
    );
    std::fs::write(folder.join("requests.jsonl"), line).expect("writable");
    place.write("load.jsonl", "{\"input_toks\": 16, \"output_toks\": 2, \"arrival_time_ns\": 7}\n");
}

/// Validates and demands that nothing is off by more than a nanosecond; gives the result.
fn agrees(place: &Place, options: &str) -> serde_json::Value {
    let line =
        format!("-q --format json validate llmservingsim --profile profiles --run run --workload load.jsonl {options}");
    let (out, _) = place.expect(0, &line);
    let result: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(result["schema"], "isotherm.validation/v1");
    let rows = result["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 15);
    for row in rows {
        let (measured, predicted) = (row["measured_ms"].as_f64(), row["predicted_ms"].as_f64());
        let off = measured.zip(predicted).map(|(m, p)| (m - p).abs());
        assert!(off.is_some_and(|off| off < 5e-6), "{row}");
    }
    assert!(result["per_request"]["ttft"]["mape"].as_f64().is_some_and(|mape| mape < 1e-4));
    result
}

#[test]
fn a_dense_model_takes_its_operators_once_in_each_of_its_layers() {
    let place = Place::new();
    profile(&place, "meta-llama/Llama-3.1-8B", 1, DENSE, &[]);
    let layers = 32.0 * 40.0 + 9.0 + 36.0;
    run(&place, "meta-llama/Llama-3.1-8B", "", layers + 32.0 * 20.0, layers + 32.0 * 10.0);
    let result = agrees(&place, "");
    assert_eq!((&result["layers"], &result["hardware"]), (&32.into(), &"card".into()));
}

#[test]
fn norms_of_queries_and_keys_and_a_model_given_by_its_configuration_are_counted() {
    let place = Place::new();
    profile(&place, "acme/own-model", 1, &format!("{DENSE}qk_norm,1,2\n"), &[]);
    let layers = 5.0 * 42.0 + 9.0 + 36.0;
    run(&place, "acme/own-model", "", layers + 5.0 * 20.0, layers + 5.0 * 10.0);
    let line = "validate llmservingsim --profile profiles --run run --workload load.jsonl";
    let (_, message) = place.expect(1, line);
    assert!(message.contains("acme/own-model") && message.contains("--model-config"), "{message}");
    agrees(&place, "--layers 5");
    place.write("config.json", r#"{"num_hidden_layers": 5, "hidden_size": 64, "num_attention_heads": 8}"#);
    agrees(&place, "--model-config config.json");
}

#[test]
fn two_devices_of_a_group_pay_for_their_messages_over_the_link_that_the_run_states() {
    let place = Place::new();
    profile(&place, "Qwen/Qwen3-32B", 1, DENSE, &[]);
    profile(&place, "Qwen/Qwen3-32B", 2, &DENSE.replace("layernorm,1,1\n", ""), &[]);
    // Without the link the messages cost nothing, and that is said. The norm is that of one device.
    let pass = 64.0 * 40.0 + 9.0 + 36.0;
    let (prompt, token) = (pass + 64.0 * 20.0, pass + 64.0 * 10.0);
    run(&place, "Qwen/Qwen3-32B", "\"tensor_parallel_size\": 2", prompt, token);
    let notes = agrees(&place, "")["notes"].to_string();
    assert!(notes.contains("--link-bandwidth") && notes.contains("layernorm"), "{notes}");
    // 1 GB/s and 1 us: a sum of T tokens of 5120 numbers is twice 1 us and the time of half of its bytes, 129 times in
    // a pass; the head's values of one sequence are gathered once.
    let sum = |tokens: f64| 2.0 * (1.0 + tokens * 5120.0 * 2.0 / 2.0 / 1e3);
    let head = 1.0 + 151_936.0 * 2.0 / 2.0 / 1e3;
    let messages = |tokens| 129.0 * sum(tokens) + head;
    run(&place, "Qwen/Qwen3-32B", "\"tensor_parallel_size\": 2", prompt + messages(16.0), token + messages(1.0));
    place.write("run/config.json", "{\"link_bw\": 1, \"link_latency\": 1000}");
    agrees(&place, "");
    std::fs::remove_file(place.path("run/config.json")).expect("it is there");
    agrees(&place, "--link-bandwidth 1GB/s --link-latency 1us");
}

/// A layer without the feed-forward takes 17 us beside attention and experts.
fn attention_only() -> String {
    DENSE
        .lines()
        .filter(|l| !["gate", "act_", "down"].iter().any(|w| l.starts_with(w)))
        .fold(String::new(), |all, l| all + l + "\n")
}

/// Experts take 8 us for each token, and 72 more where all of them are activated.
const EXPERTS: &str = "activated_experts,time_us,tokens\n8,8,1\n8,16,2\n128,200,16\n128,208,17\n";

#[test]
fn experts_are_activated_as_even_choices_would() {
    let place = Place::new();
    profile(&place, "Qwen/Qwen3-30B-A3B-Instruct-2507", 1, &attention_only(), &[("moe.csv", EXPERTS)]);
    // One token goes to 8 experts of 128; sixteen reach 128 (1 - (15/16)^16), between the rows at sixteen tokens.
    let activated = 128.0 * (1.0 - (15.0_f64 / 16.0).powi(16));
    let (below, above) = (8.0 * 16.0, 200.0);
    let experts = below + (above - below) * (activated - 8.0) / 120.0;
    let pass = 48.0 * 17.0 + 9.0 + 36.0;
    let (prompt, token) = (pass + 48.0 * (20.0 + experts), pass + 48.0 * (10.0 + 8.0));
    run(&place, "Qwen/Qwen3-30B-A3B-Instruct-2507", "", prompt, token);
    let result = agrees(&place, "");
    assert_eq!(result["layers"], 48);
}

#[test]
fn engines_that_share_experts_pass_a_token_through_for_one_another() {
    let place = Place::new();
    profile(&place, "Qwen/Qwen3-30B-A3B", 1, &attention_only(), &[("moe.csv", EXPERTS)]);
    // The engine without work adds one token; each device has half of the experts and of the pairs.
    let experts = |tokens: f64| {
        let activated = 128.0 * (1.0 - (15.0_f64 / 16.0).powf(tokens)) / 2.0;
        let tokens = (tokens / 2.0).max(1.0);
        let (below, above) = (8.0 * tokens, 200.0 + 8.0 * (tokens - 16.0));
        if activated <= 8.0 { below } else { below + (above.max(0.0) - below) * (activated - 8.0) / 120.0 }
    };
    let pass = 48.0 * 17.0 + 9.0 + 36.0;
    let (prompt, token) = (pass + 48.0 * (20.0 + experts(17.0)), pass + 48.0 * (10.0 + experts(2.0)));
    let kwargs = "\"data_parallel_size\": 2, \"enable_expert_parallel\": true";
    run(&place, "Qwen/Qwen3-30B-A3B", kwargs, prompt, token);
    let result = agrees(&place, "");
    assert_eq!(result["data_parallel"], 2);
}

#[test]
fn what_does_not_belong_together_is_named() {
    let place = Place::new();
    profile(&place, "meta-llama/Llama-3.1-8B", 1, DENSE, &[]);
    run(&place, "meta-llama/Llama-3.1-8B", "\"tensor_parallel_size\": 4", 1.0, 1.0);
    let line = "validate llmservingsim --profile profiles --run run --workload load.jsonl";
    let (_, message) = place.expect(1, line);
    assert!(message.contains("tp4/attention.csv"), "{message}");
    run(&place, "meta-llama/Llama-3.1-8B", "", 1.0, 1.0);
    let requests = std::fs::read_to_string(place.path("run/vllm/requests.jsonl")).expect("readable");
    place.write("run/vllm/requests.jsonl", &requests.replace("bench-0", "bench-3"));
    let (_, message) = place.expect(1, line);
    assert!(message.contains("request 3") && message.contains("--workload"), "{message}");
}

/// The measured run beside the checkout; none, and a word about it, where it is absent.
fn shared(test: &str) -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = || here.ancestors().map(|folder| folder.join("shared")).find(|folder| folder.join("data").is_dir());
    let folder = std::env::var_os("ISOTHERM_SHARED").map(PathBuf::from).or_else(beside);
    let found = folder.map(|folder| folder.join("data")).filter(|data| data.join("validation").is_dir());
    if found.is_none() {
        eprintln!("skipped: {test}: the shared data folder is absent");
    }
    found
}

#[test]
fn a_measured_profile_is_imported_planned_and_simulated() {
    let Some(data) = shared("a_measured_profile_is_imported_planned_and_simulated") else { return };
    let place = Place::new();
    let profiles = data.join("profiles/llmservingsim-RTX4090");
    place.expect(0, &format!("import llmservingsim {} --memory 24GB -o card.toml", profiles.display()));
    place.expect(0, "-q plan card.toml -o plan.json");
    place.expect(0, "check plan.json card.toml");
    place.expect(0, "-q simulate plan.json card.toml --seeds 1");
}
