//! Requests: when they arrive and how long they are.

use crate::random::Stream;
use isotherm_core::ids::RequestId;
use isotherm_core::serving::Request;
use isotherm_core::units::{Seconds, SimTime};
use isotherm_core::workload::replay::Replay;
use isotherm_core::workload::{Arrivals, Workload};

/// The requests of one replication, in order of arrival.
#[derive(Debug)]
pub struct Load<'a> {
    workload: &'a Workload,
    recording: Option<&'a Replay>,
    /// Names of the blocks of the prompt of the last request.
    prompt: Vec<u64>,
    arrivals: Stream,
    prompts: Stream,
    outputs: Stream,
    /// Requests handed out.
    made: u32,
    /// Arrivals announced.
    announced: u32,
    last_arrival: SimTime,
    carried: f64,
}

impl<'a> Load<'a> {
    /// The load of one replication of a seed.
    #[must_use]
    pub fn new(workload: &'a Workload, recording: Option<&'a Replay>, seed: u64, replication: u32) -> Self {
        let stream = |name| Stream::new(seed, replication, name);
        let (arrivals, prompts, outputs) = (stream("arrivals"), stream("prompts"), stream("outputs"));
        Self {
            workload,
            recording,
            prompt: Vec::new(),
            arrivals,
            prompts,
            outputs,
            made: 0,
            announced: 0,
            last_arrival: SimTime::ZERO,
            carried: 0.0,
        }
    }

    /// How many requests arrive without waiting for an answer at time zero: one per client.
    #[must_use]
    pub fn at_start(&mut self) -> u32 {
        match self.workload.arrivals {
            Arrivals::ClosedLoop { clients } => {
                self.announced = clients.min(self.workload.requests);
                self.announced
            }
            Arrivals::Poisson { .. } | Arrivals::Recorded { .. } => 0,
        }
    }

    /// When the next request of an open stream arrives; none after the last, and in a closed loop.
    pub fn next_arrival(&mut self) -> Option<SimTime> {
        if self.announced == self.workload.requests {
            return None;
        }
        let rate = match self.workload.arrivals {
            Arrivals::ClosedLoop { .. } => return None,
            Arrivals::Poisson { rate } => rate,
            Arrivals::Recorded { .. } => {
                self.announced += 1;
                return self.recording?.requests().get(self.announced as usize - 1).map(|request| request.arrival);
            }
        };
        self.announced += 1;
        let gap = Seconds::new(self.arrivals.exponential() / rate.value()).unwrap_or(Seconds::of(f64::MAX));
        let (whole, rest) = gap.whole_nanoseconds(self.carried);
        self.carried = rest;
        self.last_arrival = self.last_arrival + whole;
        Some(self.last_arrival)
    }

    /// Requests that have arrived, or will without anybody's answer: those of a closed loop's clients, all of others.
    #[must_use]
    pub const fn announced(&self) -> u32 {
        match self.workload.arrivals {
            Arrivals::ClosedLoop { .. } => self.announced,
            Arrivals::Poisson { .. } | Arrivals::Recorded { .. } => self.workload.requests,
        }
    }

    /// Whether the client of an answered request sends another one.
    pub fn sends_again(&mut self) -> bool {
        let again =
            matches!(self.workload.arrivals, Arrivals::ClosedLoop { .. }) && self.announced < self.workload.requests;
        self.announced += u32::from(again);
        again
    }

    /// The request that arrives now, and the names of its prompt's blocks of this many tokens as far as they are known.
    pub fn request(&mut self, block_tokens: u32) -> (Request, &[u64]) {
        let id = RequestId(self.made);
        self.made += 1;
        let recorded = self.recording.and_then(|load| Some((load, load.requests().get(id.index())?)));
        if let Some((load, recorded)) = recorded {
            load.prompt_blocks(recorded, block_tokens, &mut self.prompt);
            let (prompt_tokens, output_tokens) = (recorded.prompt_tokens, recorded.output_tokens);
            return (Request { id, prompt_tokens, output_tokens }, &self.prompt);
        }
        let (prompt, output) = (self.workload.prompt_tokens, self.workload.output_tokens);
        let prompt_tokens = self.prompts.between(prompt.min, prompt.max);
        let output_tokens = self.outputs.between(output.min, output.max);
        (Request { id, prompt_tokens, output_tokens }, &[])
    }
}
