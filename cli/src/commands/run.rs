//! `isotherm run`: a sealed plan executed, its tokens streaming.

pub mod load;

use crate::access::Guest;
use crate::args::{Format, Run};
use crate::commands::verify;
use crate::execution::{self, Job, Ready};
use crate::failure::{Code, Done, Failure};
use crate::ui::Ui;
use crate::{files, models, trust};
use isotherm_core::record::RunRecord;
use isotherm_core::units::{Bytes, SimDuration};
use isotherm_core::workload::{Arrivals, Length, Workload};
use isotherm_runtime::engine::Sampling;
use isotherm_runtime::execute::{Arriving, Ending, Executed, Prompt, Verdict, WeightsBudget};
use isotherm_runtime::model::chat::{ChatTemplate, Message};
use isotherm_runtime::model::gguf::Gguf;
use isotherm_runtime::model::tokenizer::{Stops, Tokenizer};
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(ui: &Ui, args: &Run) -> Done {
    let sampling = sampling(args)?;
    let bytes = files::read(&args.manifest)?;
    let opened = verify::open_to_run(&args.manifest, &bytes, &trust::trusted(args.threshold)?)?;
    let mut ready = execution::ready(ui, &opened)?;
    ready.remembered = Some(opened.manifest.predicate.counter);
    ready.temperature_max = args.temperature_max;
    let folder = args.weights_folder.clone().unwrap_or_else(std::env::temp_dir);
    let on_disk = ready.on_disk();
    if args.weights_budget.is_some() && on_disk > 0 {
        let what = format!("--weights-budget, and a plan that leaves {on_disk} layers on a disk as it is");
        return Err(Failure::new(Code::Usage, what).remedy("leave --weights-budget out"));
    }
    if (args.weights_budget.is_some() || on_disk > 0) && isotherm_runtime::host::is_in_memory(&folder) {
        let what = format!("{} is in memory, so that layers put there save none", folder.display());
        return Err(Failure::new(Code::Usage, what).remedy("name a folder on a disk with --weights-folder"));
    }
    ready.weights_budget = args.weights_budget.map(|bytes| WeightsBudget { bytes, folder: folder.clone() });
    ready.weights_folder = Some(folder);
    let identity = trust::identity(ui)?;
    ready.guest = Guest::open(&identity, &args.guest)?;
    let output = args.output.clone().unwrap_or_else(|| fresh(&args.manifest));
    let Some(prompt) = &args.prompt else {
        return load::serve(ui, &identity, &ready, args, sampling, &output);
    };
    let deadline = deadline(args)?;
    let asked = Asked { prompt, raw: args.raw, tokens: args.tokens, sampling, stop: &args.stop, deadline };
    let (record, answer) = ask(ui, &identity, &ready, &asked, &output)?;
    if ui.format == Format::Json {
        let result = Answer { answer, record: output, metrics: &record };
        return ui.result(&result, String::new);
    }
    ui.note(summary(&record));
    ui.note(format!("record: {}", output.display()));
    Ok(())
}

/// How tokens are chosen. Errors: a number outside its range.
fn sampling(args: &Run) -> Result<Sampling, Failure> {
    let usage = |message: String| Err(Failure::new(Code::Usage, message));
    if !(args.temperature.is_finite() && args.temperature >= 0.0) {
        return usage(format!("--temperature is {}; give 0 or more", args.temperature));
    }
    if !(args.top_p > 0.0 && args.top_p <= 1.0) {
        return usage(format!("--top-p is {}; give above 0 and at most 1", args.top_p));
    }
    if !(0.0..=1.0).contains(&args.min_p) {
        return usage(format!("--min-p is {}; give 0 to 1", args.min_p));
    }
    if !(args.repetition_penalty > 0.0 && args.repetition_penalty <= 100.0) {
        return usage(format!("--repetition-penalty is {}; give above 0 and at most 100", args.repetition_penalty));
    }
    if args.tokens == 0 {
        return usage("--tokens is 0; ask for at least one".to_owned());
    }
    if args.clients == 0 {
        return usage("--clients is 0; let at least one ask".to_owned());
    }
    if args.stop.iter().any(String::is_empty) {
        return usage("--stop is empty; give at least one character".to_owned());
    }
    Ok(Sampling {
        temperature: args.temperature as f32,
        top_k: args.top_k,
        top_p: args.top_p as f32,
        min_p: args.min_p as f32,
        repetition_penalty: args.repetition_penalty as f32,
        repetition_window: args.repetition_window,
        seed: args.seed,
        log_probabilities: args.log_probabilities,
    })
}

/// When a request is given up. Errors: no time.
fn deadline(args: &Run) -> Result<Option<SimDuration>, Failure> {
    match args.deadline {
        None => Ok(None),
        Some(seconds) if seconds > 0.0 && seconds < 1e9 => Ok(Some(SimDuration((seconds * 1e9) as u64))),
        Some(seconds) => Err(Failure::new(Code::Usage, format!("--deadline is {seconds}; give seconds above 0"))),
    }
}

/// One question to the model.
pub struct Asked<'a> {
    /// The text.
    pub prompt: &'a str,
    /// Whether it is passed as it stands.
    pub raw: bool,
    /// Most tokens of the answer.
    pub tokens: u32,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer.
    pub stop: &'a [String],
    /// How long after it was asked it is given up.
    pub deadline: Option<SimDuration>,
}

#[derive(Serialize)]
struct Answer<'a> {
    answer: String,
    record: PathBuf,
    metrics: &'a RunRecord,
}

/// Asks a question, streaming the answer: to standard output for people, to standard error where standard output is
/// for programs. Gives the record and the answer.
pub fn ask(
    ui: &Ui,
    identity: &isotherm_audit::keys::Identity,
    ready: &Ready,
    asked: &Asked<'_>,
    output: &Path,
) -> Result<(RunRecord, String), Failure> {
    let tokenizer = Tokenizer::from_gguf(&ready.model.gguf).map_err(|e| Failure::file(&ready.model.path, e))?;
    let tokens = prompt_tokens(&ready.model.gguf, &tokenizer, asked.prompt, asked.raw)?;
    let room = ready.problem.workload.prompt_tokens.max + ready.problem.workload.output_tokens.max;
    let prompt = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
    let allowed = room.saturating_sub(prompt).min(asked.tokens);
    if allowed == 0 {
        return Err(Failure::io(format!(
            "the prompt has {prompt} tokens; the plan has room for {room} tokens of prompt and answer together"
        ))
        .remedy("shorten the prompt, or plan for longer requests ([workload] prompt_tokens, output_tokens)"));
    }
    let workload = Workload {
        arrivals: Arrivals::ClosedLoop { clients: 1 },
        prompt_tokens: Length::fixed(prompt),
        output_tokens: Length::fixed(allowed),
        requests: 1,
    };
    let stop = ends(&tokenizer);
    let prompts = [Prompt { tokens, output_tokens: allowed, sampling: asked.sampling, deadline: asked.deadline }];
    let job =
        Job { prompts: &prompts, arriving: Arriving::Clients(1), workload, stop: &stop, waiting_max: None, idle: &[] };
    let mut stops = Stops::new(asked.stop.iter().cloned());
    let mut stream = tokenizer.stream();
    let mut answer = String::new();
    let people = ui.format == Format::Text;
    let mut show = |piece: &str| {
        answer.push_str(piece);
        if people {
            emit(&mut std::io::stdout(), piece);
        } else if !ui.quiet {
            emit(&mut std::io::stderr(), piece);
        }
    };
    let (record, executed) = execution::run(identity, ready, &job, output, &mut |token| {
        if !stop.contains(&token.token)
            && let Ok(piece) = stream.push(token.token)
        {
            show(&stops.push(&piece));
        }
        if stops.found() { Verdict::EndAnswer } else { Verdict::GoOn }
    })?;
    let rest = stops.push(&stream.finish());
    show(&rest);
    show(&stops.finish());
    show("\n");
    ui.note_some(brought(&executed));
    if executed.endings.first() == Some(&Ending::Deadline) {
        ui.note("the answer was given up at its deadline");
    }
    Ok((record, answer))
}

/// Writes a piece at once. A closed reader does not stop the run: its record is still to be written.
fn emit(out: &mut dyn Write, piece: &str) {
    let _ = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
}

/// Tokens that end an answer.
fn ends(tokenizer: &Tokenizer) -> Vec<u32> {
    let all = 0..u32::try_from(tokenizer.vocabulary()).unwrap_or(u32::MAX);
    all.filter(|&token| tokenizer.is_end(token)).collect()
}

fn prompt_tokens(gguf: &Gguf, tokenizer: &Tokenizer, prompt: &str, raw: bool) -> Result<Vec<u32>, Failure> {
    let broken = |e: &dyn std::error::Error| Failure::io(format!("the prompt was not encoded: {}", models::causes(e)));
    let tokens = if raw {
        tokenizer.encode_prompt(prompt).map_err(|e| broken(&e))?
    } else {
        let template = ChatTemplate::from_gguf(gguf).map_err(|e| broken(&e))?;
        let messages = [Message::new("user", prompt)];
        let text = template.render(&messages, true, None).map_err(|e| broken(&e))?;
        tokenizer.encode(&text, true).map_err(|e| broken(&e))?
    };
    if tokens.is_empty() {
        return Err(Failure::io("the prompt is empty; give at least one character"));
    }
    Ok(tokens)
}

/// What bringing layers did, in one line; none where all weights were held.
pub fn brought(executed: &Executed) -> Option<String> {
    let figures = executed.offloaded.as_ref()?;
    let rate = figures.reading.map(|time| figures.read_bytes as f64 / time.as_secs_f64().max(1e-9) * 1e-9);
    let rate = rate.map_or_else(String::new, |rate| format!(" at {rate:.1} GB/s"));
    let waited = figures.waiting.map(|time| format!(", waited {:.2} s for them", time.as_secs_f64()));
    Some(format!(
        "{} of {} layers were brought at each pass: {} of weights held at most, {} brought{rate}{}",
        figures.away,
        figures.layers,
        Bytes(figures.held_bytes),
        Bytes(figures.read_bytes),
        waited.unwrap_or_default()
    ))
}

/// What a run did, in one line.
pub fn summary(record: &RunRecord) -> String {
    let tokens: u64 = record.trace.requests.iter().map(|r| u64::from(r.output_tokens)).sum();
    let figure = |name: &str| record.metrics.get(name).map(|statistic| statistic.mean);
    let time = |name: &str| {
        figure(name)
            .and_then(|seconds| isotherm_core::units::Seconds::new(seconds).ok())
            .map_or_else(|| "-".to_owned(), |seconds| seconds.to_string())
    };
    let rate = figure("tokens_per_second").map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"));
    format!(
        "{tokens} tokens, first after {}, then {} each, {rate} tokens/s",
        time("ttft_seconds"),
        time("tpot_seconds")
    )
}

/// A name beside the manifest that no file has.
fn fresh(manifest: &Path) -> PathBuf {
    let folder = manifest.parent().unwrap_or(Path::new(""));
    (1..)
        .map(|number| folder.join(format!("run-{number}.json")))
        .find(|path| !path.exists())
        .unwrap_or_else(|| folder.join("run.json"))
}
