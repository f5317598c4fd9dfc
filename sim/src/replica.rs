//! Engines that answer a list of requests, each engine one device or one group that works as one: the policy says
//! what a step holds, the caller how long it takes, and nothing else happens. This is what a prediction of somebody's
//! recorded run needs; plans over several stages, links and heat are [`simulate`](crate::simulate)'s, which takes the time
//! of a step from a problem and cannot make engines wait for one another.
//!
//! It stands on what [`simulate`](crate::simulate) stands on: the [queue](crate::queue) and its order, the
//! [policies](crate::policy), and the carrying of roundings. On a plan of one stage without links and heat both give every
//! request the same times to the nanosecond, which a property test holds them to.
//!
//! An engine looks at its queue when it is idle and when a step is over, after everything else that is scheduled for that
//! moment. Steps of one engine run one after another; with look-ahead the next is formed while one runs. Engines that share
//! experts run their steps together: a joint step takes as long as the slowest, and an engine with nothing to do waits.

use crate::carry::Carry;
use crate::policy::Policy;
use crate::queue::EventQueue;
use crate::router::Balancer;
use isotherm_core::cost::Span;
use isotherm_core::ids::RequestId;
use isotherm_core::serving::{Batch, Request, ServingError};
use isotherm_core::units::{Seconds, SimTime};
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

/// What can happen.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The next request comes, with all that come at the same moment.
    Arrive,
    /// The step of a lane is over.
    Over { lane: usize },
    /// The engines of a lane look at their queues.
    Look { lane: usize },
}

/// Most steps that a lane has out: a joint step may hold a batch of an engine that has few out and one of an engine
/// that has many.
const STEPS_MAX: usize = 8;

/// A step that runs, or waits for the one that runs: its time, and its batches by engine.
type Step = (Seconds, Vec<Option<Batch>>);

/// Engines whose steps run together, or one.
#[derive(Debug)]
struct Lane {
    engines: Vec<usize>,
    /// Steps that are out; the first one runs.
    steps: VecDeque<Step>,
    carry: Carry,
    /// What the end of the step that runs leaves of the last nanosecond.
    rest: f64,
    /// Whether a look is scheduled.
    looks: bool,
}

/// Serves all requests.
///
/// Requests go to engines as vLLM [deals](Balancer) them. `together` says whether engines run their steps jointly. `pass`
/// gives the time of a step from the batches of the engines that run it.
///
/// Errors: there is no engine, a policy refuses a request, or the requests are not in order of arrival.
pub fn serve(
    engines: &mut [Box<dyn Policy>],
    arrivals: &[Arrival],
    together: bool,
    pass: &mut dyn FnMut(&[Option<&Batch>]) -> Seconds,
) -> Result<Served, ServingError> {
    let number = engines.len();
    if number == 0 {
        return Err(ServingError::Zero("the number of engines"));
    }
    if let Some(pair) = arrivals.windows(2).find(|pair| pair[1].at < pair[0].at) {
        return Err(ServingError::OutOfOrder { request: pair[1].request.id.0, last: pair[0].request.id.0 });
    }
    let lane = |engines: Vec<usize>| {
        let (steps, carry) = (VecDeque::new(), Carry::default());
        Lane { engines, steps, carry, rest: 0.0, looks: false }
    };
    let lanes = if together { vec![lane((0..number).collect())] } else { (0..number).map(|i| lane(vec![i])).collect() };
    let unanswered = Answer { queued: SimTime::NEVER, first_token: SimTime::NEVER, last_token: SimTime::NEVER };
    let mut run = Run {
        engines,
        arrivals,
        next: 0,
        queue: EventQueue::new(),
        lanes,
        pass,
        balancer: Balancer::new(number),
        unseen: vec![Vec::new(); number],
        served: Served { answers: vec![unanswered; arrivals.len()], ..Served::default() },
    };
    run.announce();
    while let Some((now, event)) = run.queue.pop() {
        match event {
            Event::Arrive => run.arrive(now)?,
            Event::Over { lane } => run.finish_step(now, lane),
            Event::Look { lane } => run.look(now, lane),
        }
    }
    Ok(run.served)
}

struct Run<'a> {
    engines: &'a mut [Box<dyn Policy>],
    arrivals: &'a [Arrival],
    /// Place of the next request.
    next: usize,
    queue: EventQueue<Event>,
    lanes: Vec<Lane>,
    pass: &'a mut dyn FnMut(&[Option<&Batch>]) -> Seconds,
    balancer: Balancer,
    /// Requests of each engine that it has not looked at.
    unseen: Vec<Vec<usize>>,
    served: Served,
}

impl Run<'_> {
    fn announce(&mut self) {
        if let Some(arrival) = self.arrivals.get(self.next) {
            self.queue.schedule(arrival.at, Event::Arrive);
        }
    }

    fn arrive(&mut self, now: SimTime) -> Result<(), ServingError> {
        while let Some(arrival) = self.arrivals.get(self.next).filter(|arrival| arrival.at == now) {
            let (engines, unseen) = (&self.engines, &self.unseen);
            let counts = |engine: usize| {
                let fullness = engines[engine].fullness().unwrap_or_default();
                (u64::from(fullness.waiting).saturating_sub(unseen[engine].len() as u64), fullness.running.into())
            };
            let engine = self.balancer.deal(now, counts).unwrap_or(0);
            self.engines[engine].submit(arrival.request, &arrival.prompt)?;
            self.unseen[engine].push(self.next);
            self.next += 1;
            let lane = if self.lanes.len() == 1 { 0 } else { engine };
            if self.lanes[lane].steps.is_empty() {
                self.look_soon(now, lane);
            }
        }
        self.announce();
        Ok(())
    }

    fn look_soon(&mut self, now: SimTime, lane: usize) {
        if !std::mem::replace(&mut self.lanes[lane].looks, true) {
            self.queue.schedule(now, Event::Look { lane });
        }
    }

    /// Takes note of what came and forms steps as long as there is something to do and room for it.
    fn look(&mut self, now: SimTime, lane: usize) {
        let Self { engines, lanes, pass, unseen, served, .. } = self;
        let of = &mut lanes[lane];
        of.looks = false;
        let idle = of.steps.is_empty();
        for &engine in &of.engines {
            for place in unseen[engine].drain(..) {
                served.answers[place].queued = now;
            }
        }
        while of.steps.len() < STEPS_MAX {
            let batches: Vec<Option<Batch>> =
                of.engines.iter().map(|&engine| engines[engine].next_batch(now)).collect();
            if batches.iter().all(Option::is_none) {
                break;
            }
            for batch in batches.iter().flatten() {
                served.preemptions += batch.preempted.len() as u64;
            }
            let views: Vec<Option<&Batch>> = batches.iter().map(Option::as_ref).collect();
            let time = pass(&views);
            served.steps += 1;
            served.busy += time;
            of.steps.push_back((time, batches));
        }
        if idle {
            self.begin(now, lane);
        }
    }

    /// The first of the steps that are out begins.
    fn begin(&mut self, now: SimTime, lane: usize) {
        let of = &mut self.lanes[lane];
        let Some(&(time, _)) = of.steps.front() else { return };
        let (span, rest) = time.whole_nanoseconds(of.carry.offset(now));
        of.rest = rest;
        self.queue.schedule(now + span, Event::Over { lane });
    }

    fn finish_step(&mut self, now: SimTime, lane: usize) {
        let of = &mut self.lanes[lane];
        let Some((_, batches)) = of.steps.pop_front() else { return };
        of.carry.end(now, of.rest);
        let engines = of.engines.clone();
        self.begin(now, lane);
        for (engine, batch) in engines.into_iter().zip(batches) {
            let Some(batch) = batch else { continue };
            let completed = self.engines[engine].complete(batch, &[], now);
            for token in completed.tokens.iter().filter(|token| token.ordinal == 1) {
                self.served.answers[token.request.index()].first_token = now;
            }
            for RequestId(id) in &completed.finished {
                self.served.answers[*id as usize].last_token = now;
            }
            self.engines[engine].reuse(completed);
        }
        self.look_soon(now, lane);
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
