//! Recorded loads: requests with their arrival and lengths, from text.
//!
//! Four forms are told apart by their first line:
//!
//! * CSV whose columns name an arrival in seconds, prompt tokens and output tokens, as
//!   `arrived_at,num_prefill_tokens,num_decode_tokens` (Vidur), `Timestamp,...,Request tokens,Response tokens,...`
//!   (BurstGPT) or `arrival_seconds,prompt_tokens,output_tokens` (the requests that isotherm itself writes);
//! * CSV whose arrivals are dates, `TIMESTAMP,ContextTokens,GeneratedTokens` (Azure): the earliest is time zero;
//! * JSON lines with `timestamp` in milliseconds, `input_length`, `output_length` and `hash_ids`, the names of the
//!   prompt's blocks of 512 tokens (Mooncake);
//! * JSON lines with `arrival_time_ns`, `input_toks`, `output_toks` and `input_tok_ids`, the prompt itself
//!   (LLMServingSim).
//!
//! Decimal fractions are read digit by digit, so that an arrival is the nanosecond that the text says. Columns and keys
//! that are not named here are passed over. A request without a prompt or without an answer is left out and counted.

mod csv;
pub(crate) mod lines;

use super::Length;
use crate::digest::Digest;
use crate::units::SimTime;

/// Tokens of one block that Mooncake names.
const MOONCAKE_BLOCK: u32 = 512;

/// One recorded request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// When it arrives.
    pub arrival: SimTime,
    /// Tokens of its prompt, at least 1.
    pub prompt_tokens: u32,
    /// Tokens of its answer, at least 1.
    pub output_tokens: u32,
    /// Where its content begins, and how much of it there is.
    content: (usize, usize),
}

/// What is known of the prompts' content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Content {
    #[default]
    Unknown,
    /// The tokens.
    Tokens(Vec<u32>),
    /// Names of blocks of so many tokens; equal names mean that the block and all before it are equal.
    Blocks { tokens: u32, names: Vec<u64> },
}

/// A recorded load, in order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    requests: Vec<Recorded>,
    content: Content,
    dropped: u64,
    digest: Digest,
}

/// Why a text is no recorded load. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// There is nothing to replay.
    #[error("the workload holds no request; give at least one with a prompt and an answer")]
    Empty,
    /// The first line names no known columns.
    #[error(
        "line 1 names the columns {found:?}; there must be one for the arrival ({times}), one for prompt tokens \
         ({prompts}) and one for output tokens ({outputs})"
    )]
    Columns {
        /// The line, shortened.
        found: String,
        /// Known names of the arrival.
        times: String,
        /// Known names of prompt tokens.
        prompts: String,
        /// Known names of output tokens.
        outputs: String,
    },
    /// The columns are not divided by commas.
    #[error("line 1 divides its columns by {found}: {line:?}; write a comma in its place, and a point for decimals")]
    Delimiter {
        /// What stands between the columns.
        found: &'static str,
        /// The line, shortened.
        line: String,
    },
    /// Several columns would do.
    #[error("line 1 names {count} columns for {what}: {names}; leave one of them, or rename the others")]
    Ambiguous {
        /// For what.
        what: &'static str,
        /// How many.
        count: usize,
        /// Their names.
        names: String,
    },
    /// A field is not what it must be.
    #[error("line {line}: {what} is {value:?}; it must be {must}")]
    Field {
        /// The line.
        line: usize,
        /// Which field.
        what: &'static str,
        /// What stands there, shortened.
        value: String,
        /// What should.
        must: &'static str,
    },
    /// A line of JSON cannot be read.
    #[error("line {line} is no request: {cause}")]
    Json {
        /// The line.
        line: usize,
        /// What the reader says.
        cause: String,
    },
    /// Identifiers would run out.
    #[error("the workload holds more than {max} requests; give it in parts")]
    TooMany {
        /// The limit.
        max: u32,
    },
}

impl Replay {
    /// Most requests of a recorded load.
    pub const REQUESTS_MAX: u32 = 100_000_000;

    /// Reads a recorded load. Errors: the first thing that is wrong, with its line.
    pub fn parse(text: &str) -> Result<Self, ReplayError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let json = text.trim_start().starts_with('{');
        let mut replay = if json { lines::parse(text)? } else { csv::parse(text)? };
        if replay.requests.is_empty() {
            return Err(ReplayError::Empty);
        }
        // A stable sort: requests of one moment keep their order.
        replay.requests.sort_by_key(|request| request.arrival);
        Ok(replay)
    }

    fn of(text: &str) -> Self {
        let digest = Digest::of(text.as_bytes());
        Self { requests: Vec::new(), content: Content::Unknown, dropped: 0, digest }
    }

    /// Adds a request, or counts it as left out where it asks for nothing.
    fn push(&mut self, request: Recorded) -> Result<(), ReplayError> {
        if request.prompt_tokens == 0 || request.output_tokens == 0 {
            self.dropped += 1;
            return Ok(());
        }
        if self.requests.len() >= Self::REQUESTS_MAX as usize {
            return Err(ReplayError::TooMany { max: Self::REQUESTS_MAX });
        }
        self.requests.push(request);
        Ok(())
    }

    /// The requests, in order of arrival; at least one.
    #[must_use]
    pub fn requests(&self) -> &[Recorded] {
        &self.requests
    }

    /// Requests of the text that ask for nothing and were left out.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Digest of the text.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Only the first `count` requests; all where there are fewer, one where `count` is zero: a load is never empty.
    #[must_use]
    pub fn first(mut self, count: usize) -> Self {
        self.requests.truncate(count.max(1));
        self
    }

    /// Shortest and longest prompt and answer.
    #[must_use]
    pub fn lengths(&self) -> (Length, Length) {
        let of = |tokens: fn(&Recorded) -> u32| Length {
            min: self.requests.iter().map(tokens).min().unwrap_or(1),
            max: self.requests.iter().map(tokens).max().unwrap_or(1),
        };
        (of(|request| request.prompt_tokens), of(|request| request.output_tokens))
    }

    /// Writes the names of the full blocks of a request's prompt, of `block_tokens` tokens each, into `names`: equal
    /// names mean that the blocks and all before them are equal. None where the content is unknown, or known in
    /// blocks that are no multiple of these.
    pub fn prompt_blocks(&self, request: &Recorded, block_tokens: u32, names: &mut Vec<u64>) {
        names.clear();
        let (start, length) = request.content;
        let size = block_tokens.max(1) as usize;
        match &self.content {
            Content::Unknown => {}
            Content::Tokens(tokens) => {
                names.extend(block_names(tokens.get(start..start + length).unwrap_or_default(), size));
            }
            Content::Blocks { tokens, names: known } => {
                if tokens % block_tokens.max(1) != 0 {
                    return;
                }
                let parts = (tokens / block_tokens.max(1)) as usize;
                let full = (request.prompt_tokens / block_tokens.max(1)) as usize;
                let given = known.get(start..start + length).unwrap_or_default();
                let split = given.iter().flat_map(|&name| (0..parts).map(move |part| mixed(mixed(name) ^ part as u64)));
                names.extend(split.take(full));
            }
        }
    }
}

/// A name for each full block of so many of these tokens, made of it and of all before it.
pub(crate) fn block_names(prompt: &[u32], block_tokens: usize) -> impl Iterator<Item = u64> + '_ {
    prompt.chunks_exact(block_tokens.max(1)).scan(0, |name, block| {
        *name = block.iter().fold(mixed(*name), |name, &token| mixed(name ^ u64::from(token)));
        Some(*name)
    })
}

/// A one-to-one scramble of 64 bits: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), moved off zero.
const fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The beginning of a text, for messages.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(u64, u32, u32)> {
        let replay = Replay::parse(text).expect("a load");
        replay.requests().iter().map(|r| (r.arrival.0, r.prompt_tokens, r.output_tokens)).collect()
    }

    fn refused(text: &str) -> String {
        Replay::parse(text).expect_err("this text is wrong").to_string()
    }

    #[test]
    fn an_arrival_is_the_nanosecond_that_the_text_says() {
        let text = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,374,44\n4.314579,396,109\n\
                    5.8926549999999995,91,16\n8.1234567894,1,1\n9,2,3\n1e1,5,6\n";
        let times: Vec<u64> = read(text).iter().map(|r| r.0).collect();
        assert_eq!(times, [0, 4_314_579_000, 5_892_655_000, 8_123_456_789, 9_000_000_000, 10_000_000_000]);
    }

    #[test]
    fn dates_count_from_the_earliest() {
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n\
                    2023-11-16 18:15:50.9951690,396,109\r\n2023-11-17 00:00:00,1,2\r\n";
        let day = 86_400_u64;
        let (first, midnight) = (18 * 3_600 + 15 * 60 + 46, day);
        assert_eq!(
            read(text),
            [(0, 374, 44), (4_314_579_000, 396, 109), ((midnight - first) * 1_000_000_000 - 680_590_000, 1, 2)]
        );
        // A zone moves the moment, not the clock's face; a leap day is a day.
        let zones = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-02-28T23:30:00+00:00,1,1\n\
                     2024-03-01 00:30:00.5+00:30,2,2\n2024-03-01T00:00:00Z,3,3\n";
        let second = 1_000_000_000;
        let (to_march, before) = ((day + 1_800) * second, (day + 1_800) * second + second / 2);
        assert_eq!(read(zones), [(0, 1, 1), (to_march, 3, 3), (before, 2, 2)]);
    }

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,API\n\
                     45,GPT-4,9,0,9,API\n";
        let replay = Replay::parse(burst).expect("a load");
        assert_eq!((replay.requests().len(), replay.dropped()), (1, 1));
        let own = "id,arrival_seconds,prompt_tokens,output_tokens,ttft_seconds\n0,0.250000000,7,8,0.1\n";
        assert_eq!(read(own), [(250_000_000, 7, 8)]);
        assert_eq!(read("arrival,prompt_tokens,output_tokens\n0.5,7,8\n"), [(500_000_000, 7, 8)]);
    }

    #[test]
    fn json_lines_of_both_kinds_are_read() {
        let mooncake = "{\"timestamp\": 0, \"input_length\": 1100, \"output_length\": 5, \"hash_ids\": [7, 8, 9]}\n\
                        {\"timestamp\": 27.5, \"input_length\": 600, \"output_length\": 5, \"hash_ids\": [7, 10]}\n";
        assert_eq!(read(mooncake), [(0, 1100, 5), (27_500_000, 600, 5)]);
        let replay = Replay::parse(mooncake).expect("a load");
        let mut names = [Vec::new(), Vec::new()];
        for (request, names) in replay.requests().iter().zip(&mut names) {
            replay.prompt_blocks(request, 256, names);
        }
        // Full blocks only: 1100 tokens are four of 256, 600 are two; those of the first 512 tokens are shared.
        assert_eq!((names[0].len(), names[1].len()), (4, 2));
        assert_eq!(names[0][..2], names[1][..2]);
        assert!(names[0][2..].iter().all(|name| !names[1].contains(name)));
        let tokens = "{\"input_toks\": 5, \"output_toks\": 2, \"arrival_time_ns\": 3, \"input_tok_ids\": [1,2,3,4,5]}\n\
                      {\"input_toks\": 4, \"output_toks\": 2, \"arrival_time_ns\": 9, \"input_tok_ids\": [1,2,4,3]}\n";
        let replay = Replay::parse(tokens).expect("a load");
        for (request, names) in replay.requests().iter().zip(&mut names) {
            replay.prompt_blocks(request, 2, names);
        }
        assert_eq!(names[0][0], names[1][0]);
        assert_ne!(names[0][1], names[1][1]);
        assert_eq!((names[0].len(), names[1].len()), (2, 2));
    }

    #[test]
    fn requests_stand_in_order_of_arrival_and_those_of_one_moment_as_they_came() {
        let text = "arrived_at,num_prefill_tokens,num_decode_tokens\n2,1,1\n1,2,1\n2,3,1\n1,4,1\n";
        let prompts: Vec<u32> = read(text).iter().map(|r| r.1).collect();
        assert_eq!(prompts, [2, 4, 1, 3]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let head = "arrived_at,num_prefill_tokens,num_decode_tokens\n";
        for (text, words) in [
            (String::new(), "holds no request"),
            (head.to_owned(), "holds no request"),
            ("a,b,c\n1,2,3\n".to_owned(), "line 1 names the columns \"a,b,c\""),
            ("arrival;prompt_tokens;output_tokens\n1;2;3\n".to_owned(), "divides its columns by semicolons"),
            ("arrival,arrival,prompt_tokens,output_tokens\n1,1,2,3\n".to_owned(), "2 columns for the arrival"),
            (
                "arrival,prompt_tokens,input_length,output_tokens\n1,2,2,3\n".to_owned(),
                "2 columns for prompt tokens: prompt_tokens, input_length",
            ),
            (format!("{head}1,2\n"), "line 2: the number of output tokens is \"\""),
            (format!("{head}-1,2,3\n"), "line 2: the arrival is \"-1\""),
            (format!("{head}1,2.5,3\n"), "line 2: the number of prompt tokens is \"2.5\""),
            (format!("{head}1,2,3\n\nyesterday,2,3\n"), "line 4: the arrival is \"yesterday\""),
            (format!("{head}99999999999999999999,2,3\n"), "the arrival is \"99999999999999999999\""),
            ("{\"timestamp\": 0}\n".to_owned(), "line 1 is no request"),
            ("{\"input_length\": 3, \"output_length\": 3}\n".to_owned(), "line 1: the arrival"),
            ("{\"input_length\": 3, \"output_length\": 3, \"timestamp\": -4}\n".to_owned(), "the arrival is \"-4\""),
        ] {
            assert!(refused(&text).contains(words), "{text:?}: {}", refused(&text));
        }
    }
}
