//! A real vLLM run, predicted from a measured profile.

#![expect(clippy::disallowed_methods, reason = "measured data of others is read from beside the checkout")]

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

/// The figures are those of vLLM 0.19.0's own `AsyncScheduler` on the recorded requests, where a step of `n` tokens
/// takes 20 ms and 90 us for each: an FNV-1a digest over the tokens of every request in every step and over all first
/// and last tokens, the number of steps and of preemptions, and the end in nanoseconds. `benches/peers/vllm_steps.py`
/// prints them.
#[test]
fn recorded_requests_take_the_very_steps_of_vllms_own_scheduler() {
    let Some(data) = shared("recorded_requests_take_the_very_steps_of_vllms_own_scheduler") else { return };
    let text = std::fs::read_to_string(data.join("validation/sharegpt-llama-3.1-8b-300-sps10.jsonl"));
    let requests = workload(&text.expect("readable")).expect("requests");
    let names = prompt_names(&requests, 16);
    let serving = Serving { requests_max: 256, step_tokens_max: 2048, ..Serving::default() };
    let resources = Resources { serving, kv_blocks: 2587, in_flight_max: 1 };
    let mut engine = Vllm::new(resources, VllmOptions::default()).expect("limits");
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    let mut mix = |number: u64| {
        for byte in number.to_le_bytes() {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    let mut times = vec![(0u64, 0u64); requests.len()];
    let (mut next, mut now, mut free_at, mut steps) = (0, 0, 0, 0);
    let mut out = std::collections::VecDeque::<(u64, Batch)>::new();
    loop {
        match out.pop_front() {
            Some((end, batch)) => {
                now = end;
                for token in engine.complete(batch, &[], SimTime(now)).tokens {
                    let (first, last) = &mut times[token.request.index()];
                    *first = if token.ordinal == 1 { now } else { *first };
                    *last = now;
                }
            }
            None if next == requests.len() => break,
            None => now = now.max(requests[next].arrival_ns),
        }
        while next < requests.len() && requests[next].arrival_ns <= now {
            let (prompt_tokens, output_tokens) = (requests[next].prompt_tokens, requests[next].output_tokens);
            let request = Request { id: RequestId(next as u32), prompt_tokens, output_tokens };
            engine.submit(request, &names[next]).expect("fits");
            next += 1;
        }
        while let Some(batch) = engine.next_batch(SimTime(now)) {
            for item in &batch.items {
                mix(item.request.0.into());
                mix(item.work.start().into());
                mix(item.work.tokens().into());
            }
            mix(0xffff_ffff);
            steps += 1;
            free_at = now.max(free_at) + 20_000_000 + 90_000 * u64::from(batch.shape.tokens());
            out.push_back((free_at, batch));
        }
    }
    for (first, last) in times {
        mix(first);
        mix(last);
    }
    assert_eq!((steps, engine.counts().preemptions, now), (6142, 196, 172_970_756_808));
    assert_eq!(digest, 1_687_571_092_138_833_562);
}
