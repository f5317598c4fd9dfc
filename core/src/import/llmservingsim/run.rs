//! A run: what the engine was set to, what was asked of it and what it answered.

use super::table::Table;
use super::{LlmServingSimError, Times};
use crate::workload::replay::{block_names, lines};
use serde::Deserialize;
use serde_json::Value;

/// Settings of a vLLM engine, as `meta.json` of a run records them. What it does not state has the engine's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Name of the model; empty where it is not stated.
    pub model: String,
    /// Version of vLLM.
    pub version: Option<String>,
    /// Name of the card.
    pub card: Option<String>,
    /// Devices that divide each layer.
    pub tensor_parallel: u32,
    /// Engines that share the requests.
    pub data_parallel: u32,
    /// Whether the engines of a group divide the experts.
    pub expert_parallel: bool,
    /// Bytes of one number between layers.
    pub element_bytes: u32,
    /// Most requests at once.
    pub requests_max: u32,
    /// Most tokens of a step.
    pub step_tokens_max: u32,
    /// Longest sequence.
    pub context_max: Option<u32>,
    /// Blocks of the cache, as the engine reports them; none where it is not stated.
    pub blocks: Option<u32>,
    /// Tokens of a block.
    pub block_tokens: u32,
    /// Whether blocks stay known when nobody holds them.
    pub prefix_caching: bool,
    /// Whether a prompt may be divided over steps.
    pub chunked_prefill: bool,
    /// Most tokens of one request in a step; 0 for no limit.
    pub long_prefill_tokens: u32,
    /// Whether a request is admitted only when all its known tokens fit.
    pub reserve_whole: bool,
    /// Whether a step is formed while another runs.
    pub look_ahead: bool,
    /// Numbers of tokens for which graphs were recorded, rising; empty where steps are not replayed from graphs.
    pub graph_sizes: Vec<u32>,
}

/// A request as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRequest {
    /// When it was sent, nanoseconds after the first could be.
    pub arrival_ns: u64,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Tokens of its answer.
    pub output_tokens: u32,
    /// Identifiers of the prompt's tokens; empty where they are not stated.
    pub prompt: Vec<u32>,
}

/// A request as it was answered, seconds on one clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasuredRequest {
    /// Which request of the workload it is.
    pub index: usize,
    /// Tokens of its answer.
    pub output_tokens: u32,
    /// When the engine took it off its queue.
    pub queued: f64,
    /// When its first token was out.
    pub first_token: f64,
    /// When its last token was out.
    pub last_token: f64,
}

const META: &str = "meta.json";
/// Most engines and cache blocks of a run: a bound on what its text can make us allocate.
const ENGINES_MAX: u32 = 1024;
const BLOCKS_MAX: u32 = 1 << 26;

/// Reads `meta.json`. Errors: it is no JSON object, or the run has something that is not predicted.
pub fn engine(text: &str) -> Result<Engine, LlmServingSimError> {
    let document = |problem: String| LlmServingSimError::Document { file: META, problem };
    let value: Value = serde_json::from_str(text).map_err(|e| document(e.to_string()))?;
    if !value.is_object() {
        return Err(document("is no JSON object".to_owned()));
    }
    // The first place of several where a value stands.
    let find = |paths: &[&str]| paths.iter().find_map(|path| value.pointer(path)).filter(|found| !found.is_null());
    let count = |paths: &[&str]| find(paths).and_then(Value::as_u64).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let truth = |paths: &[&str], default: bool| find(paths).and_then(Value::as_bool).unwrap_or(default);
    let word = |paths: &[&str]| find(paths).and_then(Value::as_str).map(str::to_owned);
    let parallel = |what: &str| {
        let (asked, resolved) = (format!("/engine_kwargs/{what}"), format!("/resolved_config/parallel_config/{what}"));
        count(&[&asked, &resolved]).unwrap_or(1).max(1)
    };
    let scheduler =
        |what: &str| [format!("/resolved_config/scheduler_config/{what}"), format!("/engine_kwargs/{what}")];
    let limit = |what: &str| count(&scheduler(what).each_ref().map(String::as_str));
    let flag = |what: &str, default: bool| truth(&scheduler(what).each_ref().map(String::as_str), default);
    let refuse = |what: String, remedy| Err(LlmServingSimError::Unsupported { what, remedy });
    if parallel("pipeline_parallel_size") > 1 {
        return refuse("more than one pipeline stage".to_owned(), "predict a run of one stage");
    }
    if find(&["/resolved_config/speculative_config"]).is_some() {
        return refuse("speculative decoding".to_owned(), "predict a run without it");
    }
    if let Some(policy) = word(&["/resolved_config/scheduler_config/policy"]).filter(|policy| policy != "fcfs") {
        return refuse(format!("the scheduling policy {policy:?}"), "predict a run of policy fcfs");
    }
    let block_tokens =
        count(&["/kv_cache/block_size", "/resolved_config/cache_config/block_size"]).unwrap_or(16).max(1);
    let blocks = count(&["/kv_cache/num_gpu_blocks", "/resolved_config/cache_config/num_gpu_blocks"])
        .or_else(|| count(&["/kv_cache/num_kv_tokens"]).map(|tokens| tokens / block_tokens));
    if parallel("data_parallel_size") > ENGINES_MAX {
        return refuse(format!("more than {ENGINES_MAX} engines"), "predict a run of fewer");
    }
    if blocks.is_some_and(|blocks| blocks > BLOCKS_MAX) {
        return refuse(format!("more than {BLOCKS_MAX} cache blocks"), "predict a run of fewer");
    }
    let dtype = word(&["/engine_kwargs/dtype", "/resolved_config/model_config/dtype"]).unwrap_or_default();
    Ok(Engine {
        model: word(&["/model", "/engine_kwargs/model"]).unwrap_or_default(),
        version: word(&["/vllm_version"]),
        card: word(&["/hardware/device_name"]),
        tensor_parallel: parallel("tensor_parallel_size"),
        data_parallel: parallel("data_parallel_size"),
        expert_parallel: truth(
            &["/engine_kwargs/enable_expert_parallel", "/resolved_config/parallel_config/enable_expert_parallel"],
            false,
        ),
        element_bytes: if dtype.contains("float32") { 4 } else { 2 },
        requests_max: limit("max_num_seqs").unwrap_or(256),
        step_tokens_max: limit("max_num_scheduled_tokens").or_else(|| limit("max_num_batched_tokens")).unwrap_or(2048),
        context_max: count(&["/engine_kwargs/max_model_len", "/resolved_config/model_config/max_model_len"]),
        blocks,
        block_tokens,
        prefix_caching: truth(
            &["/kv_cache/enable_prefix_caching", "/resolved_config/cache_config/enable_prefix_caching"],
            true,
        ),
        chunked_prefill: flag("enable_chunked_prefill", true),
        long_prefill_tokens: limit("long_prefill_token_threshold").unwrap_or(0),
        reserve_whole: flag("scheduler_reserve_full_isl", true),
        look_ahead: flag("async_scheduling", true),
        graph_sizes: graph_sizes(&value),
    })
}

/// The sizes of recorded graphs, unless the run was eager or recorded none.
fn graph_sizes(value: &Value) -> Vec<u32> {
    let eager = ["/engine_kwargs/enforce_eager", "/resolved_config/model_config/enforce_eager"];
    if eager.iter().any(|path| value.pointer(path).and_then(Value::as_bool) == Some(true)) {
        return Vec::new();
    }
    let Some(compilation) = value.pointer("/resolved_config/compilation_config") else { return Vec::new() };
    let none = |mode: &Value| match mode {
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.to_uppercase().ends_with("NONE"),
        // One mode for decodes, one for everything else.
        Value::Array(modes) => modes.iter().all(|mode| mode.as_u64() == Some(0)),
        _ => false,
    };
    if compilation.get("cudagraph_mode").is_some_and(none) {
        return Vec::new();
    }
    let sizes = compilation.get("cudagraph_capture_sizes").and_then(Value::as_array).map(Vec::as_slice);
    let mut sizes: Vec<u32> =
        sizes.unwrap_or_default().iter().filter_map(Value::as_u64).filter_map(|n| u32::try_from(n).ok()).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Reads a workload: one JSON object in each line, as [`Replay`](crate::workload::replay::Replay) reads it. A request
/// that does not say when it arrives comes at the beginning.
pub fn workload(text: &str) -> Result<Vec<ReplayRequest>, LlmServingSimError> {
    const FILE: &str = "the workload";
    let mut requests = Vec::new();
    for read in lines::read(text) {
        let read = read.map_err(LlmServingSimError::Workload)?;
        let (prompt_tokens, output_tokens) = (read.prompt_tokens, read.output_tokens);
        if prompt_tokens == 0 || output_tokens == 0 {
            let problem = "states no input_toks or no output_toks above zero".to_owned();
            return Err(LlmServingSimError::Line { file: FILE, line: read.line, problem });
        }
        let arrival_ns = read.arrival.map_or(0, |arrival| arrival.0);
        requests.push(ReplayRequest { arrival_ns, prompt_tokens, output_tokens, prompt: read.tokens });
    }
    if requests.is_empty() {
        return Err(LlmServingSimError::Document { file: FILE, problem: "holds no requests".to_owned() });
    }
    Ok(requests)
}

#[derive(Deserialize)]
struct MeasuredLine {
    #[serde(default)]
    request_id: Option<String>,
    output_toks: Option<u32>,
    arrival_time: Option<f64>,
    queued_ts: Option<f64>,
    first_token_ts: Option<f64>,
    last_token_ts: Option<f64>,
}

/// Reads `requests.jsonl`. A request is the one of the workload whose number its identifier ends with; where
/// identifiers hold no numbers, the one in the same place.
///
/// The engine stamps queueing and tokens on one clock and arrival on another, so the clock starts when the engine took
/// the request off its queue; where that was not recorded, at arrival.
pub fn measured(text: &str) -> Result<Vec<MeasuredRequest>, LlmServingSimError> {
    const FILE: &str = "requests.jsonl";
    let mut requests = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |problem: String| LlmServingSimError::Line { file: FILE, line: at + 1, problem };
        let read: MeasuredLine = serde_json::from_str(line).map_err(|e| bad(e.to_string()))?;
        let (Some(queued), Some(first_token), Some(last_token)) =
            (read.queued_ts.or(read.arrival_time), read.first_token_ts, read.last_token_ts)
        else {
            // A request that was not answered has no latency.
            continue;
        };
        if !(queued <= first_token && first_token <= last_token) {
            return Err(bad(format!("its times do not rise: {queued}, {first_token}, {last_token}")));
        }
        let numbered = read.request_id.as_deref().and_then(trailing_number);
        let index = numbered.unwrap_or(requests.len());
        let output_tokens = read.output_toks.unwrap_or(0);
        requests.push(MeasuredRequest { index, output_tokens, queued, first_token, last_token });
    }
    if requests.is_empty() {
        return Err(LlmServingSimError::Document { file: FILE, problem: "holds no answered requests".to_owned() });
    }
    Ok(requests)
}

fn trailing_number(text: &str) -> Option<usize> {
    let digits = text.len() - text.bytes().rev().take_while(u8::is_ascii_digit).count();
    text[digits..].parse().ok()
}

/// Names for the full blocks of prompts: two blocks have one name when they and all before them are equal.
#[must_use]
pub fn prompt_names(requests: &[ReplayRequest], block_tokens: u32) -> Vec<Vec<u64>> {
    let of = |request: &ReplayRequest| block_names(&request.prompt, block_tokens.max(1) as usize).collect();
    requests.iter().map(of).collect()
}

/// Reads `sim.csv`, what LLMServingSim itself predicted: the number of each request and its times.
pub fn other_prediction(text: &str) -> Result<Vec<(usize, Times)>, LlmServingSimError> {
    const FILE: &str = "sim.csv";
    // The list of token times is quoted and holds commas: what stands before it is what is read.
    let before = |line: &str| line.split('"').next().unwrap_or("").trim_end_matches(',').to_owned() + "\n";
    let plain: String = text.lines().map(before).collect();
    let plain = plain.replacen(",ITL", "", 1);
    let table = Table::read(FILE, &plain)?;
    let (id, output, latency) = (table.column("request id")?, table.column("output")?, table.column("latency")?);
    let (ttft, tpot) = (table.column("TTFT")?, table.column("TPOT")?);
    let row = |row| {
        let ms = |column| Ok::<_, LlmServingSimError>(table.number(row, column)? / 1e6);
        let several = table.count(row, output)? > 1;
        let tpot = if several { Some(ms(tpot)?) } else { None };
        Ok((table.count(row, id)? as usize, Times { ttft: ms(ttft)?, tpot, latency: ms(latency)? }))
    };
    table.rows().iter().map(row).collect()
}

/// Bandwidth (gigabytes per second) and latency (nanoseconds) of the link that `config.json` of a run states for its
/// devices; none where it does not state both.
#[must_use]
pub fn config_link(text: &str) -> Option<(f64, f64)> {
    let value: Value = serde_json::from_str(text).ok()?;
    let number = |key: &str| {
        let places = [value.get(key), value.pointer(&format!("/nodes/0/{key}"))];
        let found = places.into_iter().flatten().next()?;
        // One number for each dimension of a topology; the first is that of the devices side by side.
        found.as_f64().or_else(|| found.get(0)?.as_f64()).filter(|number| number.is_finite() && *number >= 0.0)
    };
    Some((number("link_bw").filter(|&rate| rate > 0.0)?, number("link_latency")?))
}
