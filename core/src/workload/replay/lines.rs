//! Recorded loads as JSON lines, with what is known of the prompts' content.

use super::{Content, MOONCAKE_BLOCK, Recorded, Replay, ReplayError};
use crate::units::SimTime;
use serde::Deserialize;
use serde_json::Number;

#[derive(Deserialize)]
struct Row {
    #[serde(alias = "input_toks")]
    input_length: u32,
    #[serde(alias = "output_toks")]
    output_length: u32,
    /// Milliseconds.
    #[serde(default)]
    timestamp: Option<Number>,
    #[serde(default)]
    arrival_time_ns: Option<Number>,
    #[serde(default)]
    hash_ids: Vec<u64>,
    #[serde(default)]
    input_tok_ids: Vec<u32>,
}

pub(super) fn parse(text: &str) -> Result<Replay, ReplayError> {
    let mut replay = Replay::of(text);
    let (mut tokens, mut names) = (Vec::new(), Vec::new());
    for (row, line) in text.lines().zip(1..).filter(|(row, _)| !row.trim().is_empty()) {
        let row: Row =
            serde_json::from_str(row).map_err(|error| ReplayError::Json { line, cause: error.to_string() })?;
        let stated = row.arrival_time_ns.as_ref().map(|n| (n, 1)).or(row.timestamp.as_ref().map(|n| (n, 1_000_000)));
        let arrival =
            stated.and_then(|(number, unit)| nanoseconds(number, unit)).ok_or_else(|| ReplayError::Field {
                line,
                what: "the arrival",
                value: stated.map(|(number, _)| number.to_string()).unwrap_or_default(),
                must: "timestamp in milliseconds or arrival_time_ns, at least 0 and below 584 years",
            })?;
        let content = if row.input_tok_ids.is_empty() {
            (names.len(), row.hash_ids.len())
        } else {
            (tokens.len(), row.input_tok_ids.len())
        };
        tokens.extend(row.input_tok_ids);
        names.extend(row.hash_ids);
        let (prompt_tokens, output_tokens) = (row.input_length, row.output_length);
        replay.push(Recorded { arrival, prompt_tokens, output_tokens, content })?;
    }
    replay.content = match (tokens.is_empty(), names.is_empty()) {
        (false, true) => Content::Tokens(tokens),
        (true, false) => Content::Blocks { tokens: MOONCAKE_BLOCK, names },
        // Both would be two opinions; neither is none.
        _ => Content::Unknown,
    };
    Ok(replay)
}

fn nanoseconds(number: &Number, unit: u64) -> Option<SimTime> {
    let whole = match number.as_u64() {
        Some(count) => count.checked_mul(unit)?,
        None => {
            let count = libm::round(number.as_f64()? * unit as f64);
            (count >= 0.0 && count < u64::MAX as f64).then_some(count as u64)?
        }
    };
    (whole < SimTime::NEVER.0).then_some(SimTime(whole))
}
