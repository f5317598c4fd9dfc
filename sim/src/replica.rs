//! Engines that answer a list of requests, each engine one device or one group that works as one: the policy says
//! what a step holds, the caller how long it takes, and nothing else happens. This is what a prediction of somebody's
//! recorded run needs; plans over several stages, links and heat are [`simulate`](crate::simulate)'s.
//!
//! An engine looks at its queue when it is idle and when a step is over. Steps of one engine run one after another;
//! with look-ahead the next is formed while one runs. Engines that share experts run their steps together: a joint step
//! takes as long as the slowest, and an engine with nothing to do waits.

use crate::policy::Policy;
use isotherm_core::cost::Span;
use isotherm_core::ids::RequestId;
use isotherm_core::serving::{Batch, Request, ServingError};
use isotherm_core::units::{Seconds, SimDuration, SimTime};
use std::collections::VecDeque;

/// A request and when it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// When it is sent.
    pub at: SimTime,
    /// The request; its identifier is its place in the list.
    pub request: Request,
    /// Names of the full blocks of its prompt, see [`Policy::submit`].
    pub prompt: Vec<u64>,
}

/// When a request got where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// When its engine took it off its queue.
    pub queued: SimTime,
    /// When its first token was out.
    pub first_token: SimTime,
    /// When its last token was out.
    pub last_token: SimTime,
}

/// What the engines did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Served {
    /// One for each request, in their order.
    pub answers: Vec<Answer>,
    /// Steps, joint ones counted once.
    pub steps: u64,
    /// How often a request was preempted.
    pub preemptions: u64,
    /// Time of all steps together.
    pub busy: Seconds,
}

/// Counts of an engine as the one that deals requests knows them.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    waiting: u64,
    running: u64,
}

/// How often the one that deals requests hears of the engines, vLLM's `v1/engine/coordinator.py`.
const NEWS_EVERY: SimDuration = SimDuration(100_000_000);

/// Engines whose steps run together, or one.
#[derive(Debug)]
struct Lane {
    engines: Vec<usize>,
    /// Batches by engine of each step that runs or is formed, and when it will be over.
    steps: VecDeque<(SimTime, Vec<Option<Batch>>)>,
    /// When the last of them will be over.
    free_at: SimTime,
    /// What rounding to nanoseconds left over.
    remainder: f64,
    /// Requests that came during a step: engine, place in the list.
    inbox: Vec<(usize, usize)>,
}

/// Serves all requests.
///
/// Requests go to the engine with the least of four times its waiting and once its running requests, known every
/// tenth of a second and counted up in between, as vLLM deals them. `together` says whether engines run their steps
/// jointly. `pass` gives the time of a step from the batches of the engines that run it.
///
/// Errors: a policy refuses a request, or the requests are not in order of arrival.
pub fn serve(
    engines: &mut [Box<dyn Policy>],
    arrivals: &[Arrival],
    together: bool,
    pass: &mut dyn FnMut(&[Option<&Batch>]) -> Seconds,
) -> Result<Served, ServingError> {
    let number = engines.len();
    let lane = |engines: Vec<usize>| Lane {
        engines,
        steps: VecDeque::new(),
        free_at: SimTime::ZERO,
        remainder: 0.0,
        inbox: Vec::new(),
    };
    let lanes = if together { vec![lane((0..number).collect())] } else { (0..number).map(|i| lane(vec![i])).collect() };
    if number == 0 {
        return Err(ServingError::Zero("the number of engines"));
    }
    let unanswered = Answer { queued: SimTime::NEVER, first_token: SimTime::NEVER, last_token: SimTime::NEVER };
    let mut run = Run {
        engines,
        arrivals,
        lanes,
        pass,
        loads: vec![Load::default(); number],
        known: vec![Load::default(); number],
        news_at: SimTime::ZERO,
        engine_of: vec![0; arrivals.len()],
        served: Served { answers: vec![unanswered; arrivals.len()], ..Served::default() },
    };
    run.all()?;
    Ok(run.served)
}

struct Run<'a> {
    engines: &'a mut [Box<dyn Policy>],
    arrivals: &'a [Arrival],
    lanes: Vec<Lane>,
    pass: &'a mut dyn FnMut(&[Option<&Batch>]) -> Seconds,
    /// What is true of the engines, and what is known of them.
    loads: Vec<Load>,
    known: Vec<Load>,
    news_at: SimTime,
    engine_of: Vec<usize>,
    served: Served,
}

impl Run<'_> {
    fn all(&mut self) -> Result<(), ServingError> {
        let mut next = 0;
        let mut last = SimTime::ZERO;
        loop {
            let over = (0..self.lanes.len()).filter_map(|lane| Some((self.lanes[lane].steps.front()?.0, lane))).min();
            let arrival = self.arrivals.get(next).map(|arrival| arrival.at);
            match (arrival, over) {
                (Some(at), over) if over.is_none_or(|(end, _)| at <= end) => {
                    if at < last {
                        let id = self.arrivals[next].request.id.0;
                        return Err(ServingError::OutOfOrder { request: id, last: id.saturating_sub(1) });
                    }
                    last = at;
                    // All that come at once are in the queue when the engine looks.
                    while self.arrivals.get(next).is_some_and(|arrival| arrival.at == at) {
                        let engine = self.deal(at);
                        self.engine_of[next] = engine;
                        self.lane_of(engine).inbox.push((engine, next));
                        next += 1;
                    }
                    for lane in 0..self.lanes.len() {
                        if self.lanes[lane].steps.is_empty() {
                            self.look(lane, at)?;
                        }
                    }
                }
                (_, Some((at, lane))) => {
                    self.finish_step(lane, at);
                    self.look(lane, at)?;
                }
                (_, None) => return Ok(()),
            }
        }
    }

    fn lane_of(&mut self, engine: usize) -> &mut Lane {
        let lane = if self.lanes.len() == 1 { 0 } else { engine };
        &mut self.lanes[lane]
    }

    fn deal(&mut self, now: SimTime) -> usize {
        if self.engines.len() == 1 {
            return 0;
        }
        if now >= self.news_at {
            self.known.clone_from(&self.loads);
            self.news_at = now + NEWS_EVERY;
        }
        let score = |load: &Load| load.waiting * 4 + load.running;
        let engine = (0..self.known.len()).min_by_key(|&i| score(&self.known[i])).unwrap_or(0);
        self.known[engine].waiting += 1;
        engine
    }

    /// Takes in what came and forms steps as long as there is something to do and room for it.
    fn look(&mut self, lane: usize, now: SimTime) -> Result<(), ServingError> {
        for (engine, place) in std::mem::take(&mut self.lanes[lane].inbox) {
            let arrival = &self.arrivals[place];
            self.engines[engine].submit(arrival.request, &arrival.prompt)?;
            self.served.answers[place].queued = now;
            self.loads[engine].waiting += 1;
        }
        // A joint step may hold a batch of an engine that has few out and one of an engine that has many.
        while self.lanes[lane].steps.len() < 8 {
            let engines = &self.lanes[lane].engines;
            let batches: Vec<Option<Batch>> =
                engines.iter().map(|&engine| self.engines[engine].next_batch(now)).collect();
            if batches.iter().all(Option::is_none) {
                break;
            }
            for batch in batches.iter().flatten() {
                self.served.preemptions += batch.preempted.len() as u64;
            }
            let views: Vec<Option<&Batch>> = batches.iter().map(Option::as_ref).collect();
            let time = (self.pass)(&views);
            self.served.steps += 1;
            self.served.busy += time;
            let lane = &mut self.lanes[lane];
            let (whole, remainder) = time.whole_nanoseconds(lane.remainder);
            lane.remainder = remainder;
            lane.free_at = lane.free_at.max(now) + whole;
            lane.steps.push_back((lane.free_at, batches));
        }
        Ok(())
    }

    fn finish_step(&mut self, lane: usize, now: SimTime) {
        let Some((_, batches)) = self.lanes[lane].steps.pop_front() else { return };
        let engines = self.lanes[lane].engines.clone();
        for (engine, batch) in engines.into_iter().zip(batches) {
            let Some(batch) = batch else { continue };
            let completed = self.engines[engine].complete(batch, &[], now);
            for token in completed.tokens.iter().filter(|token| token.ordinal == 1) {
                self.served.answers[token.request.index()].first_token = now;
                self.loads[engine].waiting = self.loads[engine].waiting.saturating_sub(1);
                self.loads[engine].running += 1;
            }
            for RequestId(id) in &completed.finished {
                self.served.answers[*id as usize].last_token = now;
                self.loads[engine].running = self.loads[engine].running.saturating_sub(1);
            }
            self.engines[engine].reuse(completed);
        }
    }
}

/// A batch as the parts of requests that a pass is made of.
pub fn spans(batch: &Batch) -> impl Iterator<Item = Span> + '_ {
    batch.items.iter().map(|item| Span {
        cached: item.work.start(),
        tokens: item.work.tokens(),
        yields: item.work.yields(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Vllm, VllmOptions};
    use isotherm_core::serving::Resources;
    use isotherm_core::workload::Serving;

    fn engine() -> Box<dyn Policy> {
        let serving = Serving { requests_max: 4, step_tokens_max: 64, kv_block_tokens: 4, ..Serving::default() };
        let resources = Resources { serving, kv_blocks: 100, in_flight_max: 1 };
        Box::new(Vllm::new(resources, VllmOptions::default()).expect("limits"))
    }

    fn arrival(id: u32, at: u64, output_tokens: u32) -> Arrival {
        Arrival {
            at: SimTime(at),
            request: Request { id: RequestId(id), prompt_tokens: 8, output_tokens },
            prompt: vec![],
        }
    }

    fn run(engines: usize, arrivals: &[Arrival], together: bool) -> Served {
        let mut engines: Vec<Box<dyn Policy>> = (0..engines).map(|_| engine()).collect();
        let mut pass = |batches: &[Option<&Batch>]| {
            let longest = batches.iter().flatten().map(|batch| batch.shape.tokens()).max().unwrap_or(0);
            Seconds::of(f64::from(longest) * 1e-6)
        };
        serve(&mut engines, arrivals, together, &mut pass).expect("served")
    }

    #[test]
    fn a_request_alone_takes_its_prompt_and_then_one_step_for_each_further_token() {
        let served = run(1, &[arrival(0, 500, 3)], false);
        let at = |ns: u64| SimTime(500 + ns);
        let expected = Answer { queued: at(0), first_token: at(8_000), last_token: at(10_000) };
        assert_eq!((served.answers.as_slice(), served.steps), ([expected].as_slice(), 3));
        assert!((served.busy.value() - 10e-6).abs() < 1e-15);
    }

    #[test]
    fn who_comes_during_a_step_is_seen_when_it_is_over_and_served_after_the_one_that_was_formed() {
        // The prompt runs until 8 us and the first decode, formed when the prompt began, until 9 us.
        let served = run(1, &[arrival(0, 0, 4), arrival(1, 1_000, 1)], false);
        assert_eq!(served.answers[1].queued, SimTime(8_000));
        // Formed at 8 us behind the decode: the decode of the first and the prompt of the second.
        assert_eq!(served.answers[1].first_token, SimTime(9_000 + 9_000));
    }

    #[test]
    fn engines_apart_work_side_by_side_and_engines_together_wait_for_the_slowest() {
        let requests = [arrival(0, 0, 2), arrival(1, 0, 6)];
        let apart = run(2, &requests, false);
        assert_eq!(apart.answers[0].last_token, SimTime(9_000));
        assert_eq!(apart.answers[1].last_token, SimTime(13_000));
        assert_eq!(run(2, &requests, true).answers, apart.answers);
        // One engine with both in its step has sixteen tokens to do first.
        assert_eq!(run(1, &requests, false).answers[0].first_token, SimTime(16_000));
    }

    #[test]
    fn requests_go_to_the_engine_that_is_known_to_have_least() {
        let requests: Vec<Arrival> = (0..4).map(|id| arrival(id, 0, 50)).collect();
        let served = run(2, &requests, false);
        // Two prompts in the first step of each engine.
        assert!(served.answers.iter().all(|answer| answer.first_token == SimTime(16_000)), "{served:?}");
    }

    #[test]
    fn requests_out_of_order_are_refused() {
        let mut engines = vec![engine()];
        let requests = [arrival(0, 10, 1), arrival(1, 5, 1)];
        assert!(serve(&mut engines, &requests, false, &mut |_| Seconds::of(1e-9)).is_err());
    }
}
