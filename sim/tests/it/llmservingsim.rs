//! A real vLLM run, predicted from a measured profile.

use isotherm_core::cost::{LayerwiseProfile, Span};
use isotherm_core::ids::RequestId;
use isotherm_core::import::llmservingsim::*;
use isotherm_core::model::PublicModel;
use isotherm_core::serving::{Batch, Request, Resources};
use isotherm_core::units::SimTime;
use isotherm_core::workload::Serving;
use isotherm_sim::policy::{Policy, Vllm, VllmOptions};
use isotherm_sim::replica::{Arrival, serve, spans};
use std::path::{Path, PathBuf};

fn shared(test: &str) -> Option<PathBuf> {
    let named = std::env::var_os("ISOTHERM_SHARED").map(PathBuf::from);
    let found =
        named.into_iter().chain(Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared")));
    let folder = found.map(|f| f.join("data")).find(|f| f.join("validation").is_dir());
    if folder.is_none() {
        eprintln!("skipped: {test}: no shared data beside the checkout (set ISOTHERM_SHARED)");
    }
    folder
}

#[test]
fn a_real_run_at_overload_is_predicted_from_the_profile_alone() {
    let Some(data) = shared("a_real_run_at_overload_is_predicted_from_the_profile_alone") else { return };
    let read = |path: PathBuf| std::fs::read_to_string(path).expect("readable");
    let variant = data.join("profiles/llmservingsim-RTX4090/meta-llama/Llama-3.1-8B/bf16");
    let file = |name: &str| read(variant.join("tp1").join(name));
    let (dense, tail, attention) = (file("dense.csv"), file("per_sequence.csv"), file("attention.csv"));
    let skew = file("skew_fit.csv");
    let mut meta = ProfileMeta::read(&read(variant.join("meta.yaml")), 1);
    if std::env::var_os("SKEW").is_some() {
        meta.skew.enabled = Some(true);
    }
    let texts = ProfileTexts {
        dense: Some(&dense),
        per_sequence: Some(&tail),
        attention: Some(&attention),
        skew_fit: Some(&skew),
        ..Default::default()
    };
    let catalogue = Catalogue::read(meta, texts, ProfileTexts::default()).expect("a profile");
    let run = data.join("validation/RTX4090/Llama-3.1-8B");
    let engine = engine(&read(run.join("vllm/meta.json"))).expect("an engine");
    let model = PublicModel::named(&engine.model).expect("a known model");
    let around = Assembly {
        tensor_parallel: 1,
        expert_parallel: 1,
        link: None,
        element_bytes: 2,
        padded: if std::env::var_os("NOPAD").is_some() { vec![] } else { engine.graph_sizes.clone() },
    };
    let profile: LayerwiseProfile = catalogue.assemble(&model, &around).expect("a pass");
    let requests = workload(&read(data.join("validation/sharegpt-llama-3.1-8b-300-sps10.jsonl"))).expect("requests");
    let names = prompt_names(&requests, engine.block_tokens);
    let arrivals: Vec<Arrival> = requests
        .iter()
        .zip(names)
        .zip(0..)
        .map(|((r, prompt), id)| Arrival {
            at: SimTime(r.arrival_ns),
            request: Request { id: RequestId(id), prompt_tokens: r.prompt_tokens, output_tokens: r.output_tokens },
            prompt,
        })
        .collect();
    let resources = Resources {
        serving: Serving {
            requests_max: engine.requests_max,
            step_tokens_max: engine.step_tokens_max,
            kv_block_tokens: engine.block_tokens,
        },
        kv_blocks: engine.blocks.expect("blocks") - 1,
        in_flight_max: 1,
    };
    let mut engines: Vec<Box<dyn Policy>> =
        vec![Box::new(Vllm::new(resources, VllmOptions::default()).expect("limits"))];
    let mut batch: Vec<Span> = Vec::new();
    let trace = std::env::var_os("TRACE").is_some();
    let mut pass = |batches: &[Option<&Batch>]| {
        batch.clear();
        batch.extend(batches.iter().flatten().flat_map(|b| spans(b)));
        let t = profile.pass(&batch);
        if trace {
            let d: Vec<f64> = batch.iter().filter(|s| s.tokens == 1).map(|s| f64::from(s.cached)).collect();
            let toks: u32 = batch.iter().map(|s| s.tokens).sum();
            println!(
                "STEP {} n={} ctx={:.0} chunks={:?} tokens={} att={:.3}ms",
                t.value() * 1e3,
                d.len(),
                d.iter().sum::<f64>() / d.len().max(1) as f64,
                batch.iter().filter(|s| s.tokens > 1).map(|s| (s.tokens, s.cached)).collect::<Vec<_>>(),
                toks,
                profile.attention(&batch).value() * 32e3
            );
        }
        t
    };
    let served = serve(&mut engines, &arrivals, false, &mut pass).expect("served");
    let measured: Vec<Times> = measured(&read(run.join("vllm/requests.jsonl")))
        .expect("a run")
        .iter()
        .map(|m| Times::of(m.queued, m.first_token, m.last_token, m.output_tokens))
        .collect();
    let predicted: Vec<Times> = served
        .answers
        .iter()
        .zip(&requests)
        .map(|(a, r)| {
            let s = |t: SimTime| t.seconds().value();
            Times::of(s(a.queued), s(a.first_token), s(a.last_token), r.output_tokens)
        })
        .collect();
    println!("steps {} preemptions {} busy {}", served.steps, served.preemptions, served.busy);
    for row in rows(&measured, &predicted) {
        println!(
            "{:8} {:7} {:10.1} {:10.1} {:+.2} %",
            row.metric.name(),
            row.statistic,
            row.measured_ms,
            row.predicted_ms,
            row.error * 100.0
        );
    }
    for metric in METRICS {
        println!("{} {:?}", metric.name(), per_request(metric, &measured, &predicted));
    }
    if trace {
        for (i, (m, p)) in measured.iter().zip(&predicted).enumerate().take(60) {
            println!("REQ {i} {:.1} {:.1} {:.1} {:.1}", m.ttft, p.ttft, m.latency, p.latency);
        }
    }
}
