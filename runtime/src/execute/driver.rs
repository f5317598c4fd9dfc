//! The coordinator: the scheduler's batches through the pipeline, in the order in which they were formed.

use super::idle::Idling;
use super::{
    Arriving, Ending, ExecuteError, Executed, Neighbours, Orders, Prompt, Taken, Token, Verdict, WeightsBudget,
};
use crate::engine::Offloaded;
use crate::engine::pass::Pass;
use crate::engine::pipeline::{Pipeline, StagePlace};
use isotherm_core::ids::RequestId;
use isotherm_core::serving::{Batch, Request, Resources, Scheduler, Work};
use isotherm_core::trace::{DeviceRecord, LinkRecord, Origin, RequestRecord, StageRecord, Trace};
use isotherm_core::units::{SimDuration, SimTime};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

/// What the caller hears and says.
type Observer<'a> = &'a mut (dyn FnMut(Token<'_>) -> Verdict + Send);

pub(super) struct Driver<'a> {
    orders: &'a Orders<'a>,
    prompts: &'a [Prompt],
    pipeline: Pipeline,
    scheduler: Scheduler,
    /// Batches on their way, oldest first.
    flying: VecDeque<Batch>,
    spare: Vec<Pass>,
    answers: Vec<Vec<u32>>,
    endings: Vec<Option<Ending>>,
    /// Deadlines of requests, earliest first; of those that are done too.
    deadlines: BinaryHeap<Reverse<(SimTime, u32)>>,
    records: BTreeMap<u32, RequestRecord>,
    stages: Vec<StageRecord>,
    links: Vec<LinkRecord>,
    offloaded: Option<Offloaded>,
    neighbours: Option<Neighbours>,
    idling: Idling,
    taken: Vec<Taken>,
    begin: Instant,
    submitted: usize,
    last: SimTime,
}

impl<'a> Driver<'a> {
    pub(super) fn start(
        orders: &'a Orders<'a>,
        places: &[StagePlace],
        prompts: &'a [Prompt],
    ) -> Result<Self, ExecuteError> {
        let blocks = places.iter().map(|place| place.spec.cache_blocks).min().unwrap_or(0);
        let scheduler = Scheduler::new(Resources {
            serving: orders.serving,
            kv_blocks: u32::try_from(blocks).unwrap_or(u32::MAX),
            in_flight_max: orders.plan.plan().batches_of_one_route(orders.serving.requests_max),
        })?;
        let bytes = |budget: &WeightsBudget| usize::try_from(budget.bytes.0).unwrap_or(usize::MAX);
        let budget = orders.weights_budget.as_ref().map(|budget| (bytes(budget), budget.folder.as_path()));
        let pipeline = Pipeline::start_within(orders.gguf, orders.geometry, places, budget)?;
        let stages = places
            .iter()
            .zip(orders.plan.plan().routes.iter().flat_map(|route| &route.stages))
            .map(|(place, stop)| StageRecord {
                stage: stop.stage,
                device: place.device.name.clone(),
                steps: 0,
                tokens: 0,
                busy_ns: SimDuration(0),
            })
            .collect();
        let link = |pair: &[StagePlace]| LinkRecord {
            from: pair[0].device.name.clone(),
            to: pair[1].device.name.clone(),
            messages: 0,
            bytes: 0,
            between_ns: SimDuration(0),
        };
        let links = places.windows(2).map(link).collect();
        Ok(Self {
            orders,
            prompts,
            pipeline,
            scheduler,
            flying: VecDeque::new(),
            spare: Vec::new(),
            answers: vec![Vec::new(); prompts.len()],
            endings: vec![None; prompts.len()],
            deadlines: BinaryHeap::new(),
            records: BTreeMap::new(),
            stages,
            links,
            offloaded: None,
            neighbours: orders.looks_beside.then(Neighbours::default),
            idling: Idling::new(orders.idle, places),
            taken: Vec::new(),
            begin: Instant::now(),
            submitted: 0,
            last: SimTime::ZERO,
        })
    }

    pub(super) fn run(mut self, arriving: &Arriving, observe: Observer<'_>) -> Result<Executed, ExecuteError> {
        // Loading is over: time begins here.
        self.begin = Instant::now();
        let mut interrupted = false;
        if let Arriving::Clients(clients) = arriving {
            for _ in 0..*clients {
                self.submit_next(SimTime::ZERO)?;
            }
        }
        loop {
            if let Arriving::At(times) = arriving {
                while self.submitted < times.len() && times[self.submitted] <= self.now() {
                    self.submit(times[self.submitted])?;
                }
            }
            self.give_up(arriving)?;
            if !interrupted {
                let now = self.now();
                if let Some(batch) = self.scheduler.next_batch(now) {
                    self.send(batch);
                    // Passes that are back already make room for better batches.
                    while let Some(pass) = self.pipeline.try_receive() {
                        interrupted |= !self.finish(pass, arriving, observe)?;
                    }
                    continue;
                }
            }
            let next = match arriving {
                Arriving::At(times) if !interrupted => times.get(self.submitted),
                _ => None,
            };
            match (self.flying.is_empty(), next) {
                (true, None) => break,
                (true, Some(&time)) => self.rest_until(time),
                (false, None) => {
                    let pass = self.pipeline.receive();
                    interrupted |= !self.finish(pass, arriving, observe)?;
                }
                (false, Some(&time)) => {
                    // Whichever comes first: a pass, or a request that could enter an idle first stage.
                    self.pipeline.wait(self.begin + Duration::from_nanos(time.0));
                    if let Some(pass) = self.pipeline.try_receive() {
                        interrupted |= !self.finish(pass, arriving, observe)?;
                    }
                }
            }
        }
        Ok(self.end(interrupted))
    }

    fn now(&mut self) -> SimTime {
        let elapsed = SimTime(u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.last = self.last.max(elapsed);
        self.last
    }

    /// Waits for a point of time with no request there. Sleeping threads wake late, so the last millisecond is watched.
    fn rest_until(&mut self, time: SimTime) {
        const WATCHED: u64 = 1_000_000;
        self.idling.fill(&mut self.pipeline, self.begin + Duration::from_nanos(time.0));
        let left = time.since(self.now()).0;
        std::thread::sleep(Duration::from_nanos(left.saturating_sub(WATCHED)));
        while self.now() < time {
            std::thread::yield_now();
        }
    }

    /// Submits prompts until one is taken in; those refused at the door make room for the next.
    fn submit_next(&mut self, arrival: SimTime) -> Result<(), ExecuteError> {
        while self.submitted < self.prompts.len() {
            if self.submit(arrival)? {
                break;
            }
        }
        Ok(())
    }

    /// Submits the next prompt, if there is one; whether it was taken in.
    fn submit(&mut self, arrival: SimTime) -> Result<bool, ExecuteError> {
        let Some(prompt) = self.prompts.get(self.submitted) else { return Ok(false) };
        let id = u32::try_from(self.submitted).unwrap_or(u32::MAX);
        self.submitted += 1;
        if self.orders.waiting_max.is_some_and(|most| self.scheduler.waiting() >= most as usize) {
            self.endings[id as usize] = Some(Ending::Refused);
            return Ok(false);
        }
        let prompt_tokens = u32::try_from(prompt.tokens.len()).unwrap_or(u32::MAX);
        let output_tokens = prompt.output_tokens;
        self.scheduler.submit(Request { id: RequestId(id), prompt_tokens, output_tokens })?;
        if let Some(deadline) = prompt.deadline {
            self.deadlines.push(Reverse((SimTime(arrival.0.saturating_add(deadline.0)), id)));
        }
        let record = RequestRecord {
            id,
            arrival_ns: arrival,
            prompt_tokens,
            output_tokens: 0,
            first_token_ns: arrival,
            finished_ns: arrival,
        };
        self.records.insert(id, record);
        Ok(true)
    }

    /// Takes requests out whose deadline has passed or whose client took them back.
    fn give_up(&mut self, arriving: &Arriving) -> Result<(), ExecuteError> {
        let mut gone: Vec<(u32, Ending)> = Vec::new();
        if let Some(cancels) = self.orders.cancels {
            gone.extend(cancels.take().into_iter().map(|request| (request, Ending::Cancelled)));
        }
        if !self.deadlines.is_empty() {
            let now = self.now();
            while let Some(&Reverse((_, request))) = self.deadlines.peek().filter(|next| next.0.0 <= now) {
                self.deadlines.pop();
                gone.push((request, Ending::Deadline));
            }
        }
        for (request, ending) in gone {
            if self.scheduler.cancel(RequestId(request)) {
                self.endings[request as usize] = Some(ending);
                if matches!(arriving, Arriving::Clients(_)) {
                    let now = self.now();
                    self.submit_next(now)?;
                }
            }
        }
        Ok(())
    }

    /// Writes a batch into a pass and takes it through the first stage.
    fn send(&mut self, batch: Batch) {
        let mut pass = self.spare.pop().unwrap_or_default();
        pass.clear();
        pass.looks_beside = self.neighbours.is_some();
        for item in &batch.items {
            let request = item.request.index();
            let (start, count) = (item.work.start() as usize, item.work.tokens() as usize);
            let (prompt, answer) = (&self.prompts[request], &self.answers[request]);
            let blocks = self.scheduler.blocks_of(item.request).iter().copied();
            let wanted = item.work.yields().then(|| count - 1);
            match item.work {
                Work::Decode { .. } => pass.push(start, &[known(&prompt.tokens, answer, start)], blocks, wanted),
                Work::Prefill { .. } => {
                    let tokens: Vec<u32> = (start..start + count).map(|at| known(&prompt.tokens, answer, at)).collect();
                    pass.push(start, &tokens, blocks, wanted);
                }
            }
            if wanted.is_some() {
                let ordinal = u32::try_from(answer.len() + 1).unwrap_or(u32::MAX);
                let before = answer.iter().rev().chain(prompt.tokens.iter().rev());
                pass.ask(prompt.sampling, ordinal, before.copied());
            }
        }
        self.flying.push_back(batch);
        self.pipeline.send(pass);
    }

    /// Takes a pass back: its tokens go to the observer, its times into the trace. False to end the run.
    fn finish(&mut self, mut pass: Pass, arriving: &Arriving, observe: Observer<'_>) -> Result<bool, ExecuteError> {
        if let Some(error) = pass.failed.take() {
            return Err(ExecuteError::Device(error));
        }
        let batch = self.flying.pop_front().expect("a pass that is back was sent");
        let now = self.now();
        let tokens = u64::from(batch.shape.tokens());
        for (record, busy) in self.stages.iter_mut().zip(&pass.busy_ns) {
            record.steps += 1;
            record.tokens += tokens;
            record.busy_ns = SimDuration(record.busy_ns.0.saturating_add(*busy));
        }
        // Between stages a row of the residual stream is handed over for each token.
        let bytes = tokens * (self.orders.geometry.hidden * size_of::<f32>()) as u64;
        for (record, between) in self.links.iter_mut().zip(&pass.between_ns) {
            record.messages += 1;
            record.bytes += bytes;
            record.between_ns = SimDuration(record.between_ns.0.saturating_add(*between));
        }
        self.offloaded = pass.offloaded.or(self.offloaded);
        if let Some(neighbours) = &mut self.neighbours {
            let decodes = batch.shape.prefills.is_empty().then_some(batch.shape.decodes);
            neighbours.add(decodes, &pass.busy_ns, &pass.beside, pass.looking_ns);
        }
        if self.orders.keeps_steps {
            let busy = pass.busy_ns.iter().map(|&busy| SimDuration(busy)).collect();
            self.taken.push(Taken { shape: batch.shape.clone(), busy });
        }
        let mut go_on = true;
        let mut ended: Vec<RequestId> = Vec::new();
        let yielding = batch.items.iter().filter(|item| item.work.yields()).map(|item| item.request);
        for ((id, &token), likelihood) in yielding.zip(&pass.chosen).zip(&pass.likelihoods) {
            if self.endings[id.index()].is_some() {
                // It was given up while this pass was on its way.
                continue;
            }
            let answer = &mut self.answers[id.index()];
            answer.push(token);
            let ordinal = u32::try_from(answer.len()).unwrap_or(u32::MAX);
            if let Some(record) = self.records.get_mut(&id.0) {
                record.output_tokens = ordinal;
                record.finished_ns = now;
                if ordinal == 1 {
                    record.first_token_ns = now;
                }
            }
            let verdict = observe(Token { request: id.0, ordinal, token, likelihood: likelihood.as_ref() });
            go_on &= verdict != Verdict::EndRun;
            if verdict == Verdict::EndAnswer || self.orders.stop.contains(&token) {
                ended.push(id);
            }
        }
        let completed = self.scheduler.complete(batch, &ended, now);
        self.spare.push(pass);
        for id in &completed.finished {
            let ending = if ended.contains(id) { Ending::Stopped } else { Ending::Length };
            self.endings[id.index()] = Some(ending);
            if matches!(arriving, Arriving::Clients(_)) && go_on {
                let now = self.now();
                self.submit_next(now)?;
            }
        }
        self.scheduler.reuse(completed);
        Ok(go_on)
    }

    fn end(mut self, interrupted: bool) -> Executed {
        let end_ns = self.now();
        let devices = self.stages.iter().map(|stage| DeviceRecord {
            name: stage.device.clone(),
            busy_ns: stage.busy_ns,
            energy_joules: None,
            temperature_max_celsius: None,
            throttled_ns: None,
            throttled_after_ns: None,
            sustained_speed: None,
            source: "no sensor".to_owned(),
            samples: Vec::new(),
        });
        let endings: Vec<Ending> =
            self.endings.into_iter().map(|ending| ending.unwrap_or(Ending::Interrupted)).collect();
        let counts = |record: &RequestRecord| {
            let ending = endings[record.id as usize];
            record.output_tokens > 0 && (ending.is_answered() || ending == Ending::Interrupted)
        };
        let trace = Trace {
            origin: Origin::Measured,
            requests: self.records.into_values().filter(counts).collect(),
            devices: devices.collect(),
            stages: self.stages,
            links: self.links,
            end_ns,
            steps: Vec::new(),
        };
        let preemptions = self.scheduler.preemptions();
        let Self { answers, offloaded, neighbours, idling, taken: steps, .. } = self;
        let idle = idling.taken();
        Executed { trace, answers, endings, preemptions, interrupted, offloaded, neighbours, idle, steps }
    }
}

/// The token at a position of a request: of its prompt, then of its answer so far.
fn known(prompt: &[u32], answer: &[u32], position: usize) -> u32 {
    prompt.get(position).or_else(|| answer.get(position - prompt.len())).copied().expect("only known tokens are fed")
}
