//! Many requests from a file through a sealed plan.

use super::{deadline, ends, prompt_tokens, summary};
use crate::args::{Format, Run};
use crate::commands::simulate::requests_csv;
use crate::execution::{self, Job, Ready};
use crate::failure::{Done, Failure};
use crate::files;
use crate::ui::{Ui, table};
use isotherm_audit::keys::Identity;
use isotherm_core::digest::Digest;
use isotherm_core::trace::Statistic;
use isotherm_core::workload::prompts;
use isotherm_core::workload::replay::Replay;
use isotherm_core::workload::{Arrivals, Length, Workload};
use isotherm_runtime::engine::{Likelihood, Sampling};
use isotherm_runtime::execute::{Arriving, Ending, Executed, Prompt, Verdict};
use isotherm_runtime::model::tokenizer::{Stops, Stream, Tokenizer};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The requests of a file, made ready for the model.
struct Load {
    prompts: Vec<Prompt>,
    arriving: Arriving,
    workload: Workload,
    /// Texts that end each answer; empty where lengths are given and nothing ends an answer early.
    stops: Vec<Vec<String>>,
    /// Whether end tokens end answers: not under a recorded load, whose answers have the lengths that were recorded.
    ends_early: bool,
}

/// What is put out.
#[derive(Serialize)]
struct Served<'a> {
    requests: usize,
    /// How many requests ended in each way.
    endings: BTreeMap<&'static str, u64>,
    preemptions: u64,
    metrics: &'a BTreeMap<String, Statistic>,
    record: PathBuf,
}

/// One answer, as a line of the answers' file.
#[derive(Serialize)]
struct Answer<'a> {
    id: usize,
    ending: &'static str,
    text: &'a str,
    tokens: &'a [u32],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    log_probabilities: Vec<Scored>,
}

/// One token's log-probability, with the likeliest tokens and theirs.
#[derive(Serialize)]
struct Scored {
    log_probability: f32,
    likeliest: Vec<(u32, f32)>,
}

/// The text of an answer as it comes.
struct Writing<'a> {
    stream: Option<Stream<'a>>,
    stops: Stops,
    text: String,
    likelihoods: Vec<Likelihood>,
}

/// Serves a file's requests, writes the record and what else was asked for.
pub fn serve(ui: &Ui, identity: &Identity, ready: &Ready, args: &Run, sampling: Sampling, output: &Path) -> Done {
    let path = args.workload.as_deref().unwrap_or(Path::new(""));
    let text = files::read_text(path)?;
    let tokenizer = Tokenizer::from_gguf(&ready.model.gguf).map_err(|e| Failure::file(&ready.model.path, e))?;
    let load = if prompts::is_prompts(&text) {
        texts(path, &text, ready, args, sampling, &tokenizer)?
    } else {
        recorded(ui, path, &text, ready, args, sampling)?
    };
    let stop = if load.ends_early { ends(&tokenizer) } else { Vec::new() };
    let mut writings: Vec<Writing<'_>> = load
        .stops
        .iter()
        .map(|stops| Writing {
            stream: Some(tokenizer.stream()),
            stops: Stops::new(stops.iter().cloned()),
            text: String::new(),
            likelihoods: Vec::new(),
        })
        .collect();
    let job = Job {
        prompts: &load.prompts,
        arriving: load.arriving,
        workload: load.workload,
        stop: &stop,
        waiting_max: args.waiting_max,
        idle: &[],
    };
    let mut bar = ui.bar(load.prompts.len() as u64, "serving");
    let mut begun = 0;
    let (record, executed) = execution::run(identity, ready, &job, output, &mut |token| {
        begun += u64::from(token.ordinal == 1);
        bar.at(begun, load.prompts.len() as u64);
        let Some(writing) = writings.get_mut(token.request as usize) else { return Verdict::GoOn };
        writing.likelihoods.extend(token.likelihood.cloned());
        if let Some(stream) = writing.stream.as_mut().filter(|_| !stop.contains(&token.token))
            && let Ok(piece) = stream.push(token.token)
        {
            writing.text.push_str(&writing.stops.push(&piece));
        }
        if writing.stops.found() { Verdict::EndAnswer } else { Verdict::GoOn }
    })?;
    bar.finish();
    if let Some(path) = &args.requests_out {
        files::write(path, requests_csv(&record.trace).as_bytes())?;
    }
    if let Some(path) = &args.answers_out {
        files::write(path, answers(&executed, writings)?.as_bytes())?;
    }
    let mut endings: BTreeMap<&'static str, u64> = BTreeMap::new();
    for ending in &executed.endings {
        *endings.entry(ending.name()).or_default() += 1;
    }
    let served = Served {
        requests: executed.endings.len(),
        endings,
        preemptions: executed.preemptions,
        metrics: &record.metrics,
        record: output.to_owned(),
    };
    if ui.format == Format::Text {
        ui.note(summary(&record));
    }
    ui.result(&served, || describe(&served))
}

/// Requests with their texts.
fn texts(
    path: &Path,
    text: &str,
    ready: &Ready,
    args: &Run,
    sampling: Sampling,
    tokenizer: &Tokenizer,
) -> Result<Load, Failure> {
    let mut requests = prompts::parse(text).map_err(|e| Failure::file(path, e))?;
    requests.truncate(args.first.unwrap_or(usize::MAX).max(1));
    let common = deadline(args)?;
    let (mut made, mut stops) = (Vec::new(), Vec::new());
    for (id, request) in (0..).zip(&requests) {
        let tokens = prompt_tokens(&ready.model.gguf, tokenizer, &request.prompt, args.raw)?;
        made.push(Prompt {
            tokens,
            output_tokens: request.output_tokens.unwrap_or(args.tokens),
            sampling: sampling.for_request(id),
            deadline: request.deadline.or(common),
        });
        stops.push(request.stop.clone().unwrap_or_else(|| args.stop.clone()));
    }
    let times: Option<Vec<_>> = requests.iter().map(|request| request.arrival).collect();
    let arrivals = match &times {
        Some(_) => Arrivals::Recorded { digest: Digest::of(text.as_bytes()) },
        None => Arrivals::ClosedLoop { clients: args.clients },
    };
    let lengths = |of: fn(&Prompt) -> u32| Length {
        min: made.iter().map(of).min().unwrap_or(1),
        max: made.iter().map(of).max().unwrap_or(1),
    };
    let workload = Workload {
        arrivals,
        prompt_tokens: lengths(|prompt| u32::try_from(prompt.tokens.len()).unwrap_or(u32::MAX)),
        output_tokens: lengths(|prompt| prompt.output_tokens),
        requests: u32::try_from(made.len()).unwrap_or(u32::MAX),
    };
    let arriving = times.map_or(Arriving::Clients(args.clients), Arriving::At);
    Ok(Load { prompts: made, arriving, workload, stops, ends_early: true })
}

/// Requests of which lengths and arrivals are known. Their tokens are drawn at random, evenly from the vocabulary,
/// which costs the time that text of the same length does.
fn recorded(ui: &Ui, path: &Path, text: &str, ready: &Ready, args: &Run, sampling: Sampling) -> Result<Load, Failure> {
    let mut load = Replay::parse(text).map_err(|e| Failure::file(path, e))?;
    if load.dropped() > 0 {
        ui.note(format!("  {} requests without prompt or answer are left out", load.dropped()));
    }
    if let Some(count) = args.first {
        load = load.first(count);
    }
    let deadline = deadline(args)?;
    let drawn = drawn(&load, ready.model.geometry.vocabulary, args.seed);
    let prompts: Vec<Prompt> = (0..)
        .zip(drawn)
        .map(|(id, prompt)| Prompt { sampling: sampling.for_request(id), deadline, ..prompt })
        .collect();
    let (prompt_tokens, output_tokens) = load.lengths();
    let workload = Workload {
        arrivals: Arrivals::Recorded { digest: load.digest() },
        prompt_tokens,
        output_tokens,
        requests: u32::try_from(prompts.len()).unwrap_or(u32::MAX),
    };
    let times = load.requests().iter().map(|request| request.arrival).collect();
    let stops = vec![args.stop.clone(); prompts.len()];
    Ok(Load { prompts, arriving: Arriving::At(times), workload, stops, ends_early: false })
}

/// Prompts of the lengths of a recorded load, their tokens drawn evenly from a vocabulary.
pub fn drawn(load: &Replay, vocabulary: usize, seed: u64) -> Vec<Prompt> {
    let vocabulary = u64::try_from(vocabulary).unwrap_or(u64::MAX).max(1);
    let mut chance = seed;
    let mut tokens = |count| (0..count).map(|_| (next(&mut chance) % vocabulary) as u32).collect();
    load.requests().iter().map(|request| Prompt::greedy(tokens(request.prompt_tokens), request.output_tokens)).collect()
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The answers as JSON lines, in the order of the requests.
fn answers(executed: &Executed, writings: Vec<Writing<'_>>) -> Result<String, Failure> {
    let mut lines = String::new();
    for (id, (mut writing, tokens)) in writings.into_iter().zip(&executed.answers).enumerate() {
        let rest = writing.stream.take().map_or_else(String::new, Stream::finish);
        let rest = writing.stops.push(&rest);
        writing.text.push_str(&rest);
        writing.text.push_str(&writing.stops.finish());
        let scored = |Likelihood { log_probability, likeliest }| Scored { log_probability, likeliest };
        let answer = Answer {
            id,
            ending: executed.endings.get(id).copied().unwrap_or(Ending::Interrupted).name(),
            text: &writing.text,
            tokens,
            log_probabilities: writing.likelihoods.into_iter().map(scored).collect(),
        };
        let line = serde_json::to_string(&answer).map_err(|e| Failure::io(format!("an answer is no JSON: {e}")))?;
        lines.push_str(&line);
        lines.push('\n');
    }
    Ok(lines)
}

fn describe(served: &Served<'_>) -> String {
    let ended: Vec<String> = served.endings.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let mut rows = vec![["metric", "mean", "p50", "p90", "p99"].map(str::to_owned).to_vec()];
    rows.extend(served.metrics.iter().map(|(name, statistic)| {
        let shown = [statistic.mean, statistic.p50, statistic.p90, statistic.p99].map(|value| format!("{value:.4}"));
        [vec![name.clone()], shown.to_vec()].concat()
    }));
    format!(
        "{} requests: {}; {} preemptions\n\n{}\n  record: {}\n",
        served.requests,
        ended.join(", "),
        served.preemptions,
        table(&rows, &[1, 2, 3, 4]),
        served.record.display()
    )
}
