//! Recorded loads as JSON lines, with what is known of the prompts' content.

use super::{Content, MOONCAKE_BLOCK, Recorded, Replay, ReplayError};
use crate::units::SimTime;
use serde::Deserialize;
use serde_json::Number;

#[derive(Deserialize)]
struct Row {
    #[serde(alias = "input_toks")]
    input_length: Option<u32>,
    #[serde(alias = "output_toks")]
    output_length: Option<u32>,
    /// Milliseconds.
    #[serde(default)]
    timestamp: Option<Number>,
    #[serde(default)]
    arrival_time_ns: Option<Number>,
    #[serde(default)]
    hash_ids: Vec<u64>,
    #[serde(default)]
    input_tok_ids: Vec<u32>,
    /// There where the line is a session of several calls.
    #[serde(default)]
    sub_requests: Option<serde::de::IgnoredAny>,
}

/// A line that is one request.
#[derive(Debug)]
pub(crate) struct Line {
    /// Which line of the text, from 1.
    pub(crate) line: usize,
    /// When it arrives; none where the line does not say.
    pub(crate) arrival: Option<SimTime>,
    /// Tokens of the prompt: as many as are listed, else as stated.
    pub(crate) prompt_tokens: u32,
    /// Tokens of the answer.
    pub(crate) output_tokens: u32,
    /// The prompt itself, as far as it is listed.
    pub(crate) tokens: Vec<u32>,
    /// Names of its blocks, as far as they are listed.
    names: Vec<u64>,
}

/// The requests of a text, line by line; those that are sessions of several calls are passed over, as the recorder of
/// runs passes them over. Both readers of recorded requests read through this.
pub(crate) fn read(text: &str) -> impl Iterator<Item = Result<Line, ReplayError>> + '_ {
    text.lines().zip(1..).filter(|(row, _)| !row.trim().is_empty()).filter_map(|(row, line)| one(row, line).transpose())
}

fn one(row: &str, line: usize) -> Result<Option<Line>, ReplayError> {
    let row: Row = serde_json::from_str(row).map_err(|error| ReplayError::Json { line, cause: error.to_string() })?;
    if row.sub_requests.is_some() {
        return Ok(None);
    }
    let stated = row.arrival_time_ns.as_ref().map(|n| (n, 1)).or(row.timestamp.as_ref().map(|n| (n, 1_000_000)));
    let arrival = match stated {
        None => None,
        Some((number, unit)) => Some(nanoseconds(number, unit).ok_or_else(|| no_arrival(line, number.to_string()))?),
    };
    let listed = u32::try_from(row.input_tok_ids.len()).ok().filter(|&count| count > 0);
    let missing = |what: &str| ReplayError::Json { line, cause: format!("it does not state {what}") };
    Ok(Some(Line {
        line,
        arrival,
        prompt_tokens: listed.or(row.input_length).ok_or_else(|| missing("input_length or input_toks"))?,
        output_tokens: row.output_length.ok_or_else(|| missing("output_length or output_toks"))?,
        tokens: row.input_tok_ids,
        names: row.hash_ids,
    }))
}

const fn no_arrival(line: usize, value: String) -> ReplayError {
    let must = "timestamp in milliseconds or arrival_time_ns, at least 0 and below 584 years";
    ReplayError::Field { line, what: "the arrival", value, must }
}

pub(super) fn parse(text: &str) -> Result<Replay, ReplayError> {
    let mut replay = Replay::of(text);
    let (mut tokens, mut names) = (Vec::new(), Vec::new());
    for line in read(text) {
        let line = line?;
        let arrival = line.arrival.ok_or_else(|| no_arrival(line.line, String::new()))?;
        let content =
            if line.tokens.is_empty() { (names.len(), line.names.len()) } else { (tokens.len(), line.tokens.len()) };
        tokens.extend(line.tokens);
        names.extend(line.names);
        let (prompt_tokens, output_tokens) = (line.prompt_tokens, line.output_tokens);
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
