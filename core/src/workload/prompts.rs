//! Requests with their texts, from JSON lines.
//!
//! One object per line; only `prompt` must be there:
//!
//! ```text
//! {"prompt": "Name three rivers.", "output_tokens": 40, "arrival_seconds": 0.5, "stop": ["\n\n"], "deadline_seconds": 20}
//! ```
//!
//! Either every line has an arrival or none has. A key that is not named here is an error, so that a misspelt one does
//! not pass for a default.

use crate::units::{SimDuration, SimTime};
use serde::Deserialize;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRequest {
    /// What is asked.
    pub prompt: String,
    /// Most tokens of the answer; the caller's default where absent.
    pub output_tokens: Option<u32>,
    /// When it arrives; absent where requests come as clients send them.
    pub arrival: Option<SimTime>,
    /// Texts that end the answer; the caller's where absent.
    pub stop: Option<Vec<String>>,
    /// How long after its arrival it is given up; the caller's where absent.
    pub deadline: Option<SimDuration>,
}

/// Why a text is no list of requests. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromptsError {
    /// There is no request.
    #[error("there is no request; write one JSON object with a prompt on each line")]
    Empty,
    /// A line that is no request.
    #[error("line {line} is no request: {cause}")]
    Json {
        /// The line.
        line: usize,
        /// What the reader says.
        cause: String,
    },
    /// A number outside its range.
    #[error("line {line}: {what} is {value}; it must be {must}")]
    Field {
        /// The line.
        line: usize,
        /// Which key.
        what: &'static str,
        /// What stands there.
        value: String,
        /// What should.
        must: &'static str,
    },
    /// Some requests have an arrival and some have none.
    #[error(
        "line {line} has {this} arrival_seconds and the lines before it have {others}; give all lines one, or none"
    )]
    Mixed {
        /// The first line that is unlike those before.
        line: usize,
        /// `an` or `no`.
        this: &'static str,
        /// The other.
        others: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    prompt: String,
    output_tokens: Option<u32>,
    arrival_seconds: Option<f64>,
    stop: Option<Vec<String>>,
    deadline_seconds: Option<f64>,
}

/// Whether a text is meant as requests with their texts: its first line is an object with a `prompt`.
#[must_use]
pub fn is_prompts(text: &str) -> bool {
    let first = text.trim_start_matches('\u{feff}').trim_start().lines().next().unwrap_or_default();
    serde_json::from_str::<serde_json::Value>(first).is_ok_and(|value| value.get("prompt").is_some())
}

/// Reads requests, in order of arrival; those of one moment keep their order. Errors: the first thing that is wrong.
pub fn parse(text: &str) -> Result<Vec<TextRequest>, PromptsError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut requests: Vec<TextRequest> = Vec::new();
    for (row, line) in text.lines().zip(1..).filter(|(row, _)| !row.trim().is_empty()) {
        let row: Row =
            serde_json::from_str(row).map_err(|error| PromptsError::Json { line, cause: error.to_string() })?;
        let field = |what, value: String, must| Err(PromptsError::Field { line, what, value, must });
        if row.prompt.is_empty() {
            return field("prompt", "empty".to_owned(), "at least one character");
        }
        if row.output_tokens == Some(0) {
            return field("output_tokens", "0".to_owned(), "at least 1");
        }
        if row.stop.as_ref().is_some_and(|stop| stop.iter().any(String::is_empty)) {
            return field("stop", "an empty text".to_owned(), "texts of at least one character");
        }
        let time = |what, value: Option<f64>, must| match value.map(|seconds| (seconds, nanoseconds(seconds))) {
            None => Ok(None),
            Some((_, Some(time))) => Ok(Some(time)),
            Some((seconds, None)) => Err(PromptsError::Field { line, what, value: seconds.to_string(), must }),
        };
        let arrival = time("arrival_seconds", row.arrival_seconds, "at least 0 and below a billion")?;
        let deadline = time("deadline_seconds", row.deadline_seconds, "at least 0 and below a billion")?;
        if let Some(first) = requests.first().filter(|first| first.arrival.is_some() != arrival.is_some()) {
            let word = |there| if there { "an" } else { "no" };
            let (this, others) = (word(arrival.is_some()), word(first.arrival.is_some()));
            return Err(PromptsError::Mixed { line, this, others });
        }
        requests.push(TextRequest {
            prompt: row.prompt,
            output_tokens: row.output_tokens,
            arrival: arrival.map(SimTime),
            stop: row.stop,
            deadline: deadline.map(SimDuration),
        });
    }
    if requests.is_empty() {
        return Err(PromptsError::Empty);
    }
    requests.sort_by_key(|request| request.arrival);
    Ok(requests)
}

/// Whole nanoseconds; none outside the range.
fn nanoseconds(seconds: f64) -> Option<u64> {
    (0.0..1e9).contains(&seconds).then(|| (seconds * 1e9).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_with_what_they_say_and_sorted_by_arrival() {
        let text = "{\"prompt\": \"b\", \"arrival_seconds\": 1.5, \"output_tokens\": 4}\n\n\
                    {\"prompt\": \"a\", \"arrival_seconds\": 0.25, \"stop\": [\"x\"], \"deadline_seconds\": 2}\n";
        assert!(is_prompts(text));
        let read = parse(text).expect("two requests");
        assert_eq!((read[0].prompt.as_str(), read[0].arrival), ("a", Some(SimTime(250_000_000))));
        assert_eq!(
            (read[0].deadline, read[0].stop.as_deref()),
            (Some(SimDuration(2_000_000_000)), Some(&["x".to_owned()][..]))
        );
        assert_eq!((read[1].prompt.as_str(), read[1].output_tokens), ("b", Some(4)));
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_line() {
        for (text, part) in [
            ("", "no request"),
            ("{\"prompt\": \"\"}", "line 1: prompt is empty"),
            ("{\"prompt\": \"a\"}\n{\"prompt\": \"a\", \"output_tokens\": 0}", "line 2: output_tokens is 0"),
            ("{\"prompt\": \"a\", \"outputs\": 3}", "unknown field"),
            ("{\"prompt\": \"a\", \"arrival_seconds\": -1}", "arrival_seconds is -1"),
            ("{\"prompt\": \"a\", \"deadline_seconds\": 1e30}", "deadline_seconds"),
            ("{\"prompt\": \"a\", \"stop\": [\"\"]}", "an empty text"),
            ("{\"prompt\": \"a\"}\n{\"prompt\": \"b\", \"arrival_seconds\": 1}", "line 2 has an arrival_seconds"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(!is_prompts("arrived_at,num_prefill_tokens"));
        assert!(!is_prompts("{\"timestamp\": 3, \"input_length\": 4}"));
    }
}
