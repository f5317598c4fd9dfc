//! A real vLLM run, predicted from a measured profile.

use isotherm_core::ids::RequestId;
use isotherm_core::import::llmservingsim::*;
use isotherm_core::model::PublicModel;
use isotherm_core::serving::{Batch, Request, Resources};
use isotherm_core::units::SimTime;
use isotherm_core::workload::Serving;
use isotherm_sim::policy::{Policy, Vllm, VllmOptions};
use isotherm_sim::replica::{Arrival, Served, serve, spans};
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

/// The run and its prediction, in the order of the workload.
fn predict(data: &Path, look: impl Fn(&mut VllmOptions, &mut Resources)) -> (Vec<Times>, Vec<Times>, Served) {
    let read = |path: PathBuf| std::fs::read_to_string(path).expect("readable");
    let variant = data.join("profiles/llmservingsim-RTX4090/meta-llama/Llama-3.1-8B/bf16");
    let file = |name: &str| read(variant.join("tp1").join(name));
    let (dense, tail, attention, skew) =
        (file("dense.csv"), file("per_sequence.csv"), file("attention.csv"), file("skew_fit.csv"));
    let meta = ProfileMeta::read(&read(variant.join("meta.yaml")), 1);
    let texts = ProfileTexts {
        dense: Some(&dense),
        per_sequence: Some(&tail),
        attention: Some(&attention),
        skew_fit: Some(&skew),
        ..ProfileTexts::default()
    };
    let catalogue = Catalogue::read(meta, texts, ProfileTexts::default()).expect("a profile");
    let run = data.join("validation/RTX4090/Llama-3.1-8B");
    let engine = engine(&read(run.join("vllm/meta.json"))).expect("an engine");
    let model = PublicModel::named(&engine.model).expect("a known model");
    let around = Assembly { padded: engine.graph_sizes.clone(), ..Assembly::default() };
    let profile = catalogue.assemble(&model, &around).expect("a pass");
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
    let serving = Serving {
        requests_max: engine.requests_max,
        step_tokens_max: engine.step_tokens_max,
        kv_block_tokens: engine.block_tokens,
        ..Serving::default()
    };
    let mut resources = Resources { serving, kv_blocks: engine.blocks.expect("blocks") - 1, in_flight_max: 1 };
    let mut options = VllmOptions::default();
    look(&mut options, &mut resources);
    let mut engines: Vec<Box<dyn Policy>> = vec![Box::new(Vllm::new(resources, options).expect("limits"))];
    let mut parts = Vec::new();
    let mut pass = |batches: &[Option<&Batch>]| {
        parts.clear();
        parts.extend(batches.iter().flatten().flat_map(|batch| spans(batch)));
        profile.pass(&parts)
    };
    let served = serve(&mut engines, &arrivals, false, &mut pass).expect("served");
    let measured = measured(&read(run.join("vllm/requests.jsonl"))).expect("a run");
    assert!(measured.iter().zip(0..).all(|(request, place)| request.index == place));
    let measured = measured.iter().map(|m| Times::of(m.queued, m.first_token, m.last_token, m.output_tokens));
    let seconds = |time: SimTime| time.seconds().value();
    let predicted = served.answers.iter().zip(&requests).map(|(answer, request)| {
        let (queued, first) = (seconds(answer.queued), seconds(answer.first_token));
        Times::of(queued, first, seconds(answer.last_token), request.output_tokens)
    });
    (measured.collect(), predicted.collect(), served)
}

fn error(rows: &[Row], metric: Metric, statistic: &str) -> f64 {
    let found = rows.iter().find(|row| row.metric == metric && row.statistic == statistic);
    found.expect("a row").error
}

#[test]
fn a_real_run_at_overload_is_predicted_from_the_profile_alone() {
    let Some(data) = shared("a_real_run_at_overload_is_predicted_from_the_profile_alone") else { return };
    let (measured, predicted, served) = predict(&data, |_, _| ());
    let rows = rows(&measured, &predicted);
    for row in &rows {
        let (name, percent) = (row.metric.name(), row.error * 100.0);
        println!("{name} {}: {:.1} {:.1} {percent:+.2} %", row.statistic, row.measured_ms, row.predicted_ms);
    }
    for (metric, most) in METRICS.into_iter().zip([0.02, 0.01, 0.02]) {
        assert!(error(&rows, metric, "mean").abs() <= most, "{metric:?}");
        assert!(error(&rows, metric, "median").abs() <= 0.05, "{metric:?}");
        let requests = per_request(metric, &measured, &predicted).expect("requests");
        assert!(requests.mape < 0.05, "{metric:?}: {requests:?}");
    }
    assert!(served.preemptions > 100);
}

#[test]
fn without_the_blocks_of_preempted_requests_a_run_at_overload_is_predicted_worse() {
    let Some(data) = shared("without_the_blocks_of_preempted_requests_a_run_at_overload_is_predicted_worse") else {
        return;
    };
    let latency = |prefix_caching| {
        let (measured, predicted, _) = predict(&data, |options, _| options.prefix_caching = prefix_caching);
        error(&rows(&measured, &predicted), Metric::Latency, "mean").abs()
    };
    assert!(latency(false) > 3.0 * latency(true));
}
