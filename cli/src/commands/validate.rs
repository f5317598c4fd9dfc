//! `isotherm validate`: predictions against somebody's real run.

use crate::args::{ValidateCommand, ValidateLlmServingSim};
use crate::failure::{Done, Failure};
use crate::files;
use crate::llmservingsim::{Profile, shape};
use crate::ui::{Ui, table};
use isotherm_core::artefact::Header;
use isotherm_core::cost::{LayerwiseProfile, Span};
use isotherm_core::digest::Digest;
use isotherm_core::ids::RequestId;
use isotherm_core::import::llmservingsim::{
    Assembly, Engine, Link, METRICS, MeasuredRequest, PerRequest, ReplayRequest, Residuals, Row, Times, config_link,
    engine, measured, other_prediction, per_request, prompt_names, rows, widen, workload,
};
use isotherm_core::serving::{Batch, Request, Resources};
use isotherm_core::units::{BytesPerSecond, Seconds, SimTime};
use isotherm_core::workload::Serving;
use isotherm_sim::policy::{Policy, Vllm, VllmOptions};
use isotherm_sim::replica::{Arrival, Served, serve, spans};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(ui: &Ui, command: &ValidateCommand) -> Done {
    match command {
        ValidateCommand::LlmServingSim(args) => llmservingsim(ui, args),
    }
}

#[derive(Serialize)]
struct Validation<'a> {
    #[serde(flatten)]
    header: Header,
    policy: &'static str,
    model: &'a str,
    layers: u32,
    tensor_parallel: u32,
    data_parallel: u32,
    hardware: Option<&'a str>,
    requests: usize,
    rows: &'a [Row],
    per_request: BTreeMap<&'static str, PerRequest>,
    /// What LLMServingSim predicted of the same run, where its output lies beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Peer>,
    prediction: Summary,
    residuals: Spread,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Peer {
    name: &'static str,
    rows: Vec<Row>,
    per_request: BTreeMap<&'static str, PerRequest>,
}

/// What the predicted engines did.
#[derive(Serialize)]
struct Summary {
    steps: u64,
    preemptions: u64,
    busy_seconds: f64,
    attention_share: f64,
}

/// How well the profile's times between measured points are known, and what follows for the whole.
#[derive(Serialize)]
struct Spread {
    dense_median: f64,
    dense_p95: f64,
    attention_median: f64,
    attention_p95: f64,
    /// Share by which all costs were moved for the band of each row.
    band: f64,
}

fn llmservingsim(ui: &Ui, args: &ValidateLlmServingSim) -> Done {
    let run = if args.run.join("meta.json").is_file() { args.run.clone() } else { args.run.join("vllm") };
    let meta = files::read_text(&run.join("meta.json"))?;
    let engine = engine(&meta).map_err(|e| Failure::file(&run.join("meta.json"), e))?;
    let load = files::read_text(&args.workload)?;
    let mut requests = workload(&load).map_err(|e| Failure::file(&args.workload, e))?;
    let answers = files::read_text(&run.join("requests.jsonl"))?;
    let answers = measured(&answers).map_err(|e| Failure::file(&run.join("requests.jsonl"), e))?;
    let variant = if engine.element_bytes == 4 { "fp32" } else { "bf16" };
    let profile = Profile::find(&args.profile, &engine.model, engine.tensor_parallel, variant)?;
    let mut notes = profile.catalogue.notes.clone();
    let name = if engine.model.is_empty() { profile.catalogue.meta.model.clone() } else { Some(engine.model.clone()) };
    let model = shape(&name.unwrap_or_default(), &args.model)?;
    let assembly = assembly(args, &engine, &profile, &run, &mut notes);
    let cost = profile.catalogue.assemble(&model, &assembly).map_err(|e| Failure::file(&profile.folder, e))?;
    keep_answered(&mut requests, &answers, &mut notes)?;
    let resources = resources(args, &engine, &run)?;
    let question = Question { engine: &engine, resources, cost: &cost, requests: &requests };
    let (served, attention_share) = question.predict(1.0)?;
    let (truth, said) = pairs(&answers, &requests, &served);
    let mut compared = rows(&truth, &said);
    let band = band(&profile.catalogue.residuals(), attention_share);
    let mut others = Vec::new();
    for scale in [1.0 - band, 1.0 + band] {
        let (served, _) = question.predict(scale)?;
        others.push(rows(&truth, &pairs(&answers, &requests, &served).1));
    }
    widen(&mut compared, &others);
    let inputs = [meta.as_bytes(), load.as_bytes()].into_iter().map(Digest::of).chain(profile.digests.clone());
    let validation = Validation {
        header: Header::new("isotherm.validation/v1", inputs.collect()),
        policy: "vllm",
        model: &model.name,
        layers: model.layers,
        tensor_parallel: engine.tensor_parallel,
        data_parallel: engine.data_parallel,
        hardware: profile.catalogue.meta.hardware.as_deref().or(engine.card.as_deref()),
        requests: truth.len(),
        rows: &compared,
        per_request: by_metric(&truth, &said),
        peer: peer(&args.run, &truth, &mut notes),
        prediction: Summary {
            steps: served.steps,
            preemptions: served.preemptions,
            busy_seconds: served.busy.value(),
            attention_share,
        },
        residuals: spread(&profile.catalogue.residuals(), band),
        notes: &notes,
    };
    if let Some(path) = &args.requests_out {
        files::write(path, requests_csv(&answers, &truth, &said).as_bytes())?;
    }
    ui.result(&validation, || describe(&validation))
}

/// How the operators are surrounded in this run.
fn assembly(
    args: &ValidateLlmServingSim,
    engine: &Engine,
    profile: &Profile,
    run: &Path,
    notes: &mut Vec<String>,
) -> Assembly {
    let given = args.link_bandwidth.zip(args.link_latency).map(|(bandwidth, latency)| Link { bandwidth, latency });
    let beside = [run.join("config.json"), run.join("../config.json")].into_iter().find(|path| path.is_file());
    let stated = beside.and_then(|path| config_link(&files::read_text(&path).ok()?)).or_else(|| profile.link());
    let stated = stated.and_then(|(gigabytes, nanoseconds)| {
        let bandwidth = BytesPerSecond::new(gigabytes * 1e9).ok()?;
        Some(Link { bandwidth, latency: Seconds::new(nanoseconds * 1e-9).ok()? })
    });
    let link = given.or(stated);
    let grouped = engine.tensor_parallel > 1 || (engine.data_parallel > 1 && profile.catalogue.has_experts());
    if grouped && link.is_none() {
        notes.push(
            "the devices of a group exchange messages, and neither the run nor the profile states the bandwidth and \
             latency of their link: the messages are taken to cost nothing (--link-bandwidth, --link-latency)"
                .to_owned(),
        );
    }
    Assembly {
        tensor_parallel: engine.tensor_parallel,
        data_parallel: engine.data_parallel,
        expert_parallel: engine.expert_parallel,
        link,
        element_bytes: engine.element_bytes,
        padded: engine.graph_sizes.clone(),
    }
}

/// Leaves only requests that the run answered, with the lengths that their answers had.
fn keep_answered(
    requests: &mut Vec<ReplayRequest>,
    answers: &[MeasuredRequest],
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    let sent = answers.iter().map(|answer| answer.index + 1).max().unwrap_or(0);
    if sent > requests.len() {
        return Err(Failure::io(format!(
            "the run answered request {} and the workload has {}",
            sent - 1,
            requests.len()
        ))
        .remedy("name the workload that this run was sent with --workload"));
    }
    if sent < requests.len() {
        notes.push(format!(
            "the run stops after {sent} of the workload's {} requests, so the prediction does",
            requests.len()
        ));
        requests.truncate(sent);
    }
    for answer in answers.iter().filter(|answer| answer.output_tokens > 0) {
        requests[answer.index].output_tokens = answer.output_tokens;
    }
    Ok(())
}

fn resources(args: &ValidateLlmServingSim, engine: &Engine, run: &Path) -> Result<Resources, Failure> {
    // The front end of several engines reports the sum of their blocks (vLLM's `v1/engine/utils.py`).
    let stated = engine.blocks.map(|blocks| blocks / engine.data_parallel);
    let blocks = args.kv_blocks.or(stated).ok_or_else(|| {
        Failure::file(&run.join("meta.json"), "does not state kv_cache.num_gpu_blocks")
            .remedy("give the number of cache blocks with --kv-blocks")
    })?;
    let serving = Serving {
        requests_max: engine.requests_max,
        step_tokens_max: engine.step_tokens_max,
        kv_block_tokens: engine.block_tokens,
        ..Serving::default()
    };
    // One block is the engine's own: it stands for positions that hold nothing.
    Ok(Resources { serving, kv_blocks: blocks.saturating_sub(1), in_flight_max: 1 })
}

/// What is predicted.
struct Question<'a> {
    engine: &'a Engine,
    resources: Resources,
    cost: &'a LayerwiseProfile,
    requests: &'a [ReplayRequest],
}

impl Question<'_> {
    /// The engines' answers with all costs times `scale`, and the share of time that attention takes.
    fn predict(&self, scale: f64) -> Result<(Served, f64), Failure> {
        let options = VllmOptions {
            prefix_caching: self.engine.prefix_caching,
            chunked_prefill: self.engine.chunked_prefill,
            long_prefill_tokens: self.engine.long_prefill_tokens,
            reserve_whole: self.engine.reserve_whole,
            look_ahead: self.engine.look_ahead,
            context_max: self.engine.context_max.unwrap_or(u32::MAX),
        };
        let mut engines: Vec<Box<dyn Policy>> = Vec::new();
        for _ in 0..self.engine.data_parallel {
            let engine = Vllm::new(self.resources, options);
            engines.push(Box::new(engine.map_err(|e| Failure::io(format!("the engine cannot be set up: {e}")))?));
        }
        let names = prompt_names(self.requests, self.engine.block_tokens);
        let arrivals = self.requests.iter().zip(names).zip(0..).map(|((request, prompt), id)| Arrival {
            at: SimTime(request.arrival_ns),
            request: Request {
                id: RequestId(id),
                prompt_tokens: request.prompt_tokens,
                output_tokens: request.output_tokens,
            },
            prompt,
        });
        let arrivals: Vec<Arrival> = arrivals.collect();
        // Engines that share experts meet in every layer; others never do.
        let together = self.engine.data_parallel > 1 && self.cost.experts.is_some();
        let mut parts: Vec<Vec<Span>> = vec![Vec::new(); engines.len()];
        let (mut all, mut attention) = (Seconds::ZERO, Seconds::ZERO);
        let mut pass = |batches: &[Option<&Batch>]| {
            let time = self.joint(batches, &mut parts);
            all += time;
            let slowest = parts.iter().take(batches.len()).map(|spans| self.cost.attention(spans));
            attention += slowest.fold(Seconds::ZERO, Seconds::max) * f64::from(self.cost.layers);
            time * scale
        };
        let served = serve(&mut engines, &arrivals, together, &mut pass)
            .map_err(|e| Failure::io(format!("the engine refused the workload: {e}")))?;
        let share = if all > Seconds::ZERO { attention / all } else { 0.0 };
        Ok((served, share))
    }

    /// The time of a step of all engines that run it: each pads to the longest where all replay graphs, an engine
    /// without work passes one token through, and all wait for the slowest.
    fn joint(&self, batches: &[Option<&Batch>], parts: &mut [Vec<Span>]) -> Seconds {
        let mut longest = 0;
        let (mut graphs, mut sum) = (true, 0u64);
        let last_size = self.cost.padded.last().copied().unwrap_or(0);
        for (spans_of, batch) in parts.iter_mut().zip(batches) {
            spans_of.clear();
            spans_of.extend(batch.iter().flat_map(|batch| spans(batch)));
            let tokens = self.cost.padded(batch.map_or(1, |batch| batch.shape.tokens()));
            longest = longest.max(tokens);
            graphs &= tokens <= last_size;
            sum += u64::from(tokens);
        }
        if graphs {
            sum = u64::from(longest) * batches.len() as u64;
        }
        let times = parts.iter().take(batches.len()).map(|spans| {
            let tokens = spans.iter().fold(0u32, |sum, span| sum.saturating_add(span.tokens)).max(1);
            let tokens = if graphs { longest } else { self.cost.padded(tokens) };
            self.cost.pass_among(spans, tokens, sum)
        });
        times.fold(Seconds::ZERO, Seconds::max)
    }
}

/// Times of all requests that the run answered, measured and predicted.
fn pairs(answers: &[MeasuredRequest], requests: &[ReplayRequest], served: &Served) -> (Vec<Times>, Vec<Times>) {
    let seconds = |time: SimTime| time.seconds().value();
    let pair = |m: &MeasuredRequest| {
        let (answer, tokens) = (&served.answers[m.index], requests[m.index].output_tokens);
        let said = (seconds(answer.queued), seconds(answer.first_token), seconds(answer.last_token));
        (Times::of(m.queued, m.first_token, m.last_token, tokens), Times::of(said.0, said.1, said.2, tokens))
    };
    answers.iter().map(pair).unzip()
}

fn by_metric(truth: &[Times], said: &[Times]) -> BTreeMap<&'static str, PerRequest> {
    METRICS.iter().filter_map(|&metric| Some((metric.name(), per_request(metric, truth, said)?))).collect()
}

/// LLMServingSim's own prediction beside the run, where it is of as many requests.
fn peer(run: &Path, truth: &[Times], notes: &mut Vec<String>) -> Option<Peer> {
    let places: [PathBuf; 3] = [run.join("outputs/sim.csv"), run.join("../outputs/sim.csv"), run.join("sim.csv")];
    let path = places.into_iter().find(|path| path.is_file())?;
    let text = files::read_text(&path).ok()?;
    let read = match other_prediction(&text) {
        Ok(read) => read,
        Err(error) => {
            notes.push(format!("{}: {error}", path.display()));
            return None;
        }
    };
    if read.len() != truth.len() {
        notes.push(format!("{} is of {} requests and the run of {}", path.display(), read.len(), truth.len()));
        return None;
    }
    let mut said: Vec<(usize, Times)> = read;
    said.sort_unstable_by_key(|(id, _)| *id);
    let said: Vec<Times> = said.into_iter().map(|(_, times)| times).collect();
    Some(Peer { name: "LLMServingSim", rows: rows(truth, &said), per_request: by_metric(truth, &said) })
}

/// The residual of a whole pass: that of its parts by their share of the time.
fn band(residuals: &Residuals, attention_share: f64) -> f64 {
    let share = attention_share.clamp(0.0, 1.0);
    (residuals.attention.median * share + residuals.dense.median * (1.0 - share)).min(0.5)
}

fn spread(residuals: &Residuals, band: f64) -> Spread {
    Spread {
        dense_median: residuals.dense.median,
        dense_p95: residuals.dense.p95,
        attention_median: residuals.attention.median,
        attention_p95: residuals.attention.p95,
        band,
    }
}

fn requests_csv(answers: &[MeasuredRequest], truth: &[Times], said: &[Times]) -> String {
    let mut text = String::from(
        "request,measured_ttft_ms,predicted_ttft_ms,measured_tpot_ms,predicted_tpot_ms,measured_latency_ms,\
         predicted_latency_ms\n",
    );
    let cell = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.4}"));
    for ((answer, truth), said) in answers.iter().zip(truth).zip(said) {
        let pairs = METRICS.map(|metric| format!("{},{}", cell(truth.get(metric)), cell(said.get(metric))));
        text.push_str(&format!("{},{}\n", answer.index, pairs.join(",")));
    }
    text
}

fn describe(validation: &Validation<'_>) -> String {
    let percent = |share: f64| format!("{:+.2} %", share * 100.0);
    let number = |value: f64| format!("{value:.1}");
    let mut head: Vec<String> =
        ["metric", "statistic", "measured ms", "predicted ms", "error", "band ms"].map(str::to_owned).to_vec();
    if validation.peer.is_some() {
        head.extend(["LLMServingSim ms", "error"].map(str::to_owned));
    }
    let mut lines = vec![head];
    for (i, row) in validation.rows.iter().enumerate() {
        let band = row.predicted_band_ms.map_or_else(String::new, |(a, b)| format!("{a:.1} .. {b:.1}"));
        let mut line = vec![
            row.metric.name().to_owned(),
            row.statistic.to_owned(),
            number(row.measured_ms),
            number(row.predicted_ms),
            percent(row.error),
            band,
        ];
        if let Some(other) = validation.peer.as_ref().and_then(|peer| peer.rows.get(i)) {
            line.extend([number(other.predicted_ms), percent(other.error)]);
        }
        lines.push(line);
    }
    let mut text = format!(
        "{} on {}, {} requests, {} layers, policy {}\n",
        validation.model,
        validation.hardware.unwrap_or("an unnamed device"),
        validation.requests,
        validation.layers,
        validation.policy
    );
    text.push_str(&table(&lines, &[2, 3, 4, 5, 6, 7]));
    for (who, errors) in [
        ("per request", Some(&validation.per_request)),
        ("LLMServingSim", validation.peer.as_ref().map(|p| &p.per_request)),
    ] {
        for (metric, error) in errors.into_iter().flatten() {
            let (mape, p95) = (error.mape * 100.0, error.p95_abs_ms);
            text.push_str(&format!("  {who}, {metric}: mean absolute error {mape:.2} %, 95 % within {p95:.1} ms\n"));
        }
    }
    let prediction = &validation.prediction;
    text.push_str(&format!(
        "  {} steps, {} preemptions, busy {:.1} s, {:.0} % of it in attention\n",
        prediction.steps,
        prediction.preemptions,
        prediction.busy_seconds,
        prediction.attention_share * 100.0
    ));
    text.push_str(&format!("  band: all costs moved by {:.2} %\n", validation.residuals.band * 100.0));
    text.extend(validation.notes.iter().map(|note| format!("  {note}\n")));
    text
}
