//! What the requests of one replication took: statistics of all, records of those that are wanted.

use crate::sample::Sample;
use isotherm_core::conditions::Slo;
use isotherm_core::ids::RequestId;
use isotherm_core::serving::Request;
use isotherm_core::trace::RequestRecord;
use isotherm_core::units::SimTime;
use std::collections::VecDeque;

/// Statistics of the requests that are answered.
#[derive(Debug, Default)]
pub struct Tally {
    /// Seconds to the first token.
    pub ttft: Sample,
    /// Seconds for each token after it.
    pub tpot: Sample,
    /// Seconds to the last token.
    pub e2e: Sample,
    /// Requests that kept the times asked for.
    pub kept: u64,
    /// Those times.
    slo: Slo,
    /// Tokens of the answers.
    tokens: u64,
    /// First arrival and last end, requests answered with an error included.
    span: Option<(SimTime, SimTime)>,
}

impl Tally {
    fn add(&mut self, record: &RequestRecord) {
        self.kept += u64::from(self.slo.kept(record.ttft(), record.tpot_seconds()));
        self.ttft.add(record.ttft().seconds().value());
        self.e2e.add(record.e2e().seconds().value());
        if let Some(tpot) = record.tpot_seconds() {
            self.tpot.add(tpot);
        }
        self.tokens += u64::from(record.output_tokens);
        self.stretch(record.arrival_ns, record.finished_ns);
    }

    /// The time of a request is part of the whole.
    fn stretch(&mut self, arrival: SimTime, finished: SimTime) {
        let (begin, end) = self.span.unwrap_or((arrival, finished));
        self.span = Some((begin.min(arrival), end.max(finished)));
    }

    /// Output tokens per second from the first arrival to the last token or error; none without a request, or within no
    /// time.
    #[must_use]
    pub fn tokens_per_second(&self) -> Option<f64> {
        let (begin, end) = self.span?;
        let span = end.since(begin).seconds().value();
        (span > 0.0).then(|| self.tokens as f64 / span)
    }
}

/// The requests that are under way, and what is kept of those that are not.
///
/// Requests are numbered in order of arrival, so those under way lie in a window that begins with the oldest of them:
/// memory grows with the number that arrived since then, not with the number of all.
#[derive(Debug)]
pub struct Requests {
    /// Number of the first of the window.
    oldest: u32,
    /// None where the request is answered.
    window: VecDeque<Option<RequestRecord>>,
    /// Records of the answered, where they are wanted.
    records: Option<Vec<RequestRecord>>,
    tally: Tally,
    answered: u32,
}

impl Requests {
    /// No requests. `recorded` keeps the record of each; those that keep `slo` are counted.
    #[must_use]
    pub fn new(recorded: bool, slo: Slo) -> Self {
        Self {
            oldest: 0,
            window: VecDeque::new(),
            records: recorded.then(Vec::new),
            tally: Tally { slo, ..Tally::default() },
            answered: 0,
        }
    }

    /// A request arrives; its number is one above that of the last.
    pub fn arrive(&mut self, request: &Request, now: SimTime) {
        self.window.push_back(Some(RequestRecord {
            id: request.id.0,
            arrival_ns: now,
            prompt_tokens: request.prompt_tokens,
            output_tokens: request.output_tokens,
            first_token_ns: SimTime::NEVER,
            finished_ns: SimTime::NEVER,
        }));
    }

    fn of(&mut self, request: RequestId) -> Option<&mut Option<RequestRecord>> {
        self.window.get_mut(request.0.checked_sub(self.oldest)? as usize)
    }

    /// Tokens of the prompt and of the answer of a request that is under way.
    #[must_use]
    pub fn lengths(&self, request: RequestId) -> (u32, u32) {
        let place = request.0.checked_sub(self.oldest).map(|place| place as usize);
        let record = place.and_then(|place| self.window.get(place)?.as_ref());
        record.map_or((0, 0), |record| (record.prompt_tokens, record.output_tokens))
    }

    /// A token of a request is out; whether it is its first. One that is computed again has had it.
    pub fn first_token(&mut self, request: RequestId, now: SimTime) -> bool {
        let Some(Some(record)) = self.of(request) else { return false };
        let first = record.first_token_ns == SimTime::NEVER;
        if first {
            record.first_token_ns = now;
        }
        first
    }

    /// A request is answered. Gives the tokens of its answer.
    pub fn finish(&mut self, request: RequestId, now: SimTime) -> u32 {
        let Some(mut record) = self.of(request).and_then(Option::take) else { return 0 };
        record.finished_ns = now;
        self.tally.add(&record);
        let output_tokens = record.output_tokens;
        if let Some(records) = &mut self.records {
            records.push(record);
        }
        self.leave();
        output_tokens
    }

    /// A request is answered with an error: it has no times, but the time until then was there for tokens.
    pub fn fail(&mut self, request: RequestId, now: SimTime) {
        if let Some(record) = self.of(request).and_then(Option::take) {
            self.tally.stretch(record.arrival_ns, now);
            self.leave();
        }
    }

    fn leave(&mut self) {
        self.answered += 1;
        while let Some(None) = self.window.front() {
            self.window.pop_front();
            self.oldest += 1;
        }
    }

    /// Number of answered requests, those with an error included.
    #[must_use]
    pub const fn answered(&self) -> u32 {
        self.answered
    }

    /// The statistics, and the records in order of arrival where they were wanted.
    #[must_use]
    pub fn into_parts(self) -> (Tally, Vec<RequestRecord>) {
        let mut records = self.records.unwrap_or_default();
        records.sort_unstable_by_key(|record| record.id);
        (self.tally, records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u32) -> Request {
        Request { id: RequestId(id), prompt_tokens: 3, output_tokens: 5 }
    }

    #[test]
    fn what_is_answered_leaves_the_window_and_counts_once() {
        let mut requests = Requests::new(true, Slo::default());
        for id in 0..4 {
            requests.arrive(&request(id), SimTime(u64::from(id) * 10));
        }
        for id in [1, 0, 3] {
            requests.first_token(RequestId(id), SimTime(1_000));
            requests.finish(RequestId(id), SimTime(5_000));
            requests.finish(RequestId(id), SimTime(9_000));
        }
        assert_eq!((requests.window.len(), requests.oldest, requests.answered()), (2, 2, 3));
        let (tally, records) = requests.into_parts();
        assert_eq!(records.iter().map(|record| record.id).collect::<Vec<_>>(), [0, 1, 3]);
        assert_eq!(records[1].ttft().0, 990);
        assert_eq!(tally.e2e.count(), 3);
        assert!((tally.tpot.mean().expect("three") - 1e-6).abs() < 1e-18);
        assert_eq!(tally.tokens_per_second(), Some(15.0 / 5e-6));
    }

    #[test]
    fn without_records_memory_is_that_of_the_window() {
        let mut requests = Requests::new(false, Slo::default());
        for id in 0..10_000 {
            requests.arrive(&request(id), SimTime(id.into()));
            if id >= 7 {
                requests.finish(RequestId(id - 7), SimTime(id.into()));
            }
        }
        assert!(requests.window.capacity() <= 16, "{}", requests.window.capacity());
        assert!(requests.into_parts().1.is_empty());
    }
}
