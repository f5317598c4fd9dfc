//! Which request runs next: the serving policy `isotherm` as a pure state machine.
//!
//! Simulator and runtime drive the very same [`Scheduler`], so a prediction and a run differ only by how long steps
//! take. It knows no device, no clock and no token values; the caller executes what it says:
//!
//! ```text
//! submit(request)                              a request arrives
//! while let Some(batch) = next_batch(now)      send the batch to the first stage of the pipeline
//! complete(batch, ended, now)                  its tokens are back at the caller
//! ```
//!
//! **Policy.** A batch holds, in this order and within `step_tokens_max` tokens:
//!
//! 1. *Decodes*, oldest request first, one token each. With several batches in flight they are spread: one batch
//!    takes at most `ceil(decoding / in_flight_max)` of them, so that micro-batches fill the pipeline.
//! 2. *Prefill chunks* of admitted requests, oldest first.
//! 3. *New requests*, first come, first served, while fewer than `requests_max` run and the blocks for the whole
//!    prefill are free. Those blocks are taken at admission, so only decodes can run out of them.
//!
//! A request whose next token depends on a batch in flight is in no other batch. A prefill chunk depends on no sampled
//! token, only on the chunks before it, so chunks of one prompt may follow each other through the pipeline; batches
//! therefore pass every stage in the order in which they were formed.
//!
//! When a decode finds no free block, the youngest running request gives up its blocks and goes back to the head of
//! the queue; all its tokens so far become prefill, whose last chunk yields its next token. Where that request is in
//! flight, the decode waits for it to come back. So whoever runs is older than whoever waits, and the oldest request
//! always gets on.
//!
//! That is preemption by recompute. Where host memory may hold cache ([`Scheduler::with_host`]), the request keeps its
//! tokens: its blocks are copied out, and are free when the copy is done; when it is admitted again it takes blocks, its
//! tokens are copied back, and it goes on where it was. A request whose prompt was prefilled elsewhere
//! ([`Scheduler::submit_prefilled`]) comes in by the same door. What is copied when is in [`Scheduler::moves`].
//!
//! **Cache.** A sampled token enters the cache when the next step feeds it, so a request of `prompt` tokens that has
//! produced `n >= 1` tokens keeps `prompt + n - 1` of them, and never more than `prompt + output - 1`.
//!
//! Another policy is another type with these three operations and the same [`Batch`] and [`Completed`]; policies of
//! peers live beside the simulator, not here.

mod cancel;
mod dealer;
mod live;
mod moves;
mod refusal;

pub use dealer::Dealer;
pub use moves::{Move, Way};
pub use refusal::ServingError;

use crate::cost::StepShape;
use crate::ids::{Layers, RequestId};
use crate::model::Model;
use crate::units::{Bytes, SimTime};
use crate::workload::Serving;
use live::{Ledger, Live};
use moves::{Host, Keep};
use std::collections::VecDeque;

/// What a [`Scheduler`] may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resources {
    /// Limits of the serving loop.
    pub serving: Serving,
    /// Blocks of `serving.kv_block_tokens` tokens. A token is cached at every stage of its route, so this is the
    /// number at the stage that has fewest; see [`cache_blocks`].
    pub kv_blocks: u32,
    /// Batches that may be between `next_batch` and `complete` at once; see [`crate::objective::in_flight`].
    pub in_flight_max: u32,
}

impl Resources {
    /// Errors: a limit is zero, so that nothing could be served.
    pub fn check(&self) -> Result<(), ServingError> {
        for (count, what) in [
            (self.serving.requests_max, "serving.requests_max"),
            (self.serving.step_tokens_max, "serving.step_tokens_max"),
            (self.serving.kv_block_tokens, "serving.kv_block_tokens"),
            (self.kv_blocks, "the number of cache blocks"),
            (self.in_flight_max, "the number of batches in flight"),
        ] {
            if count == 0 {
                return Err(ServingError::Zero(what));
            }
        }
        Ok(())
    }
}

/// A request, as a scheduler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Identifier; later requests have higher ones.
    pub id: RequestId,
    /// Tokens of its prompt, at least 1.
    pub prompt_tokens: u32,
    /// Most tokens of its answer, at least 1.
    pub output_tokens: u32,
}

impl Request {
    /// Errors: it has no prompt, or wants no answer.
    pub fn check(&self) -> Result<(), ServingError> {
        match (self.prompt_tokens, self.output_tokens) {
            (0, _) => Err(ServingError::Zero("the number of prompt tokens")),
            (_, 0) => Err(ServingError::Zero("the number of output tokens")),
            _ => Ok(()),
        }
    }
}

/// Blocks that hold `tokens` tokens.
#[must_use]
pub fn blocks_for(tokens: u64, serving: &Serving) -> u64 {
    tokens.div_ceil(u64::from(serving.kv_block_tokens.max(1)))
}

/// Blocks that a stage with these layers has, given `kv` bytes of key-value cache.
#[must_use]
pub fn cache_blocks(model: &Model, layers: Layers, kv: Bytes, serving: &Serving) -> u32 {
    let token = model.kv_bytes_per_token_layer().saturating_mul(u64::from(layers.len()));
    let block = token.saturating_mul(u64::from(serving.kv_block_tokens)).0.max(1);
    u32::try_from(kv.0 / block).unwrap_or(u32::MAX)
}

/// Divides the cache of a stage over the routes that pass it: in proportion to their weights, but `least` blocks for each,
/// so that a route that few requests take can hold the longest of them. None where the stage has fewer than that.
#[must_use]
pub fn divided_blocks(blocks: u32, weights: &[f64], least: u64) -> Option<Vec<u32>> {
    let least_of_all = least.checked_mul(weights.len() as u64)?;
    if least_of_all > u64::from(blocks) {
        return None;
    }
    let mut short = vec![false; weights.len()];
    // Whoever would have too few gets `least`, and the others divide what is left, until nobody else has too few.
    loop {
        let rest = u64::from(blocks) - least * short.iter().filter(|&&short| short).count() as u64;
        let whole: f64 = weights.iter().zip(&short).filter(|(_, short)| !**short).map(|(weight, _)| weight).sum();
        let part = |i: usize| match short[i] {
            true => least as u32,
            false if whole <= 0.0 => 0,
            // The slack keeps a third of nine at three; it is too small to give out a block twice.
            false => libm::floor(rest as f64 * (weights[i] / whole).min(1.0) + 1e-6) as u32,
        };
        let parts: Vec<u32> = (0..weights.len()).map(part).collect();
        if parts.iter().all(|&part| u64::from(part) >= least) {
            return Some(parts);
        }
        short = parts.iter().zip(short).map(|(&part, short)| short || u64::from(part) < least).collect();
    }
}

/// What a batch does with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Feeds the tokens at positions `start .. start + tokens`; at `start == 0` whatever was cached is void.
    Prefill {
        /// Tokens cached before.
        start: u32,
        /// Tokens of the chunk.
        tokens: u32,
        /// Whether it completes the prefill and so yields a token.
        last: bool,
    },
    /// Feeds the token sampled last and yields the next.
    Decode {
        /// Position of the token that is fed: tokens cached before.
        start: u32,
    },
}

impl Work {
    /// Tokens cached before this work.
    #[must_use]
    pub const fn start(self) -> u32 {
        match self {
            Self::Prefill { start, .. } | Self::Decode { start } => start,
        }
    }

    /// Tokens that pass through the layers.
    #[must_use]
    pub const fn tokens(self) -> u32 {
        match self {
            Self::Prefill { tokens, .. } => tokens,
            Self::Decode { .. } => 1,
        }
    }

    /// Whether a token is sampled after it.
    #[must_use]
    pub const fn yields(self) -> bool {
        matches!(self, Self::Prefill { last: true, .. } | Self::Decode { .. })
    }
}

/// One request in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// The request.
    pub request: RequestId,
    /// What is done with it.
    pub work: Work,
}

/// Work for one pass through the pipeline. It is not `Clone`: [`Scheduler::complete`] takes it back, once.
#[derive(Debug, PartialEq)]
pub struct Batch {
    /// Number of batches formed before it.
    pub number: u64,
    /// Decodes, then prefill chunks, each oldest request first; every request at most once.
    pub items: Vec<Item>,
    /// What it asks of a stage.
    pub shape: StepShape,
    /// Requests that were preempted since the batch before; they begin again at position 0, unless [`Scheduler::moves`]
    /// says that their cache is copied out.
    pub preempted: Vec<RequestId>,
}

/// A token that came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Yield {
    /// Its request.
    pub request: RequestId,
    /// Which token of its answer it is, from 1.
    pub ordinal: u32,
}

/// What a completed batch brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Completed {
    /// Tokens, in the order of the batch's items.
    pub tokens: Vec<Yield>,
    /// Requests that are done.
    pub finished: Vec<RequestId>,
}

/// The `isotherm` policy. See the [module](self) for what it does.
#[derive(Debug, Clone)]
pub struct Scheduler {
    resources: Resources,
    ledger: Ledger,
    /// Not admitted, or preempted; oldest first, all younger than all of `running`.
    waiting: VecDeque<Live>,
    /// Admitted; oldest first.
    running: Vec<Live>,
    in_flight: u32,
    formed: u64,
    last_submitted: Option<RequestId>,
    preempted: Vec<RequestId>,
    preemptions: u64,
    /// Host memory for cache, and what is copied.
    host: Host,
    /// Cache of requests that are done here and go on elsewhere.
    keep: Keep,
    now: SimTime,
    /// Keep their allocations from batch to batch.
    items: Vec<Item>,
    completed: Completed,
}

impl Scheduler {
    /// A scheduler without requests. Errors: a limit is zero.
    pub fn new(resources: Resources) -> Result<Self, ServingError> {
        resources.check()?;
        Ok(Self {
            resources,
            ledger: Ledger::new(resources.kv_blocks),
            waiting: VecDeque::new(),
            running: Vec::new(),
            in_flight: 0,
            formed: 0,
            last_submitted: None,
            preempted: Vec::new(),
            preemptions: 0,
            host: Host::default(),
            keep: Keep::default(),
            now: SimTime::ZERO,
            items: Vec::new(),
            completed: Completed::default(),
        })
    }

    /// Takes a request in. Errors: it has no prompt or no answer, could never fit, or comes out of order.
    pub fn submit(&mut self, request: Request) -> Result<(), ServingError> {
        self.check(&request)?;
        self.waiting.push_back(Live::new(request));
        Ok(())
    }

    /// Whether a request can be taken in; it counts as submitted then.
    fn check(&mut self, request: &Request) -> Result<(), ServingError> {
        request.check()?;
        if let Some(last) = self.last_submitted.filter(|&last| last >= request.id) {
            return Err(ServingError::OutOfOrder { request: request.id.0, last: last.0 });
        }
        let tokens = u64::from(request.prompt_tokens) + u64::from(request.output_tokens) - 1;
        let needed = blocks_for(tokens, &self.resources.serving);
        if needed > u64::from(self.resources.kv_blocks) || tokens > u64::from(u32::MAX) {
            let blocks = self.resources.kv_blocks;
            return Err(ServingError::TooLong { request: request.id.0, tokens, needed, blocks });
        }
        self.last_submitted = Some(request.id);
        Ok(())
    }

    /// Forms the next batch; none while `in_flight_max` batches are out or nothing can be done before one comes back.
    /// Call it after every [`submit`](Self::submit) and [`complete`](Self::complete) until it gives none.
    ///
    /// # Panics
    /// If `now` is earlier than in an earlier call.
    pub fn next_batch(&mut self, now: SimTime) -> Option<Batch> {
        self.tick(now);
        if self.in_flight == self.resources.in_flight_max {
            return None;
        }
        let mut items = std::mem::take(&mut self.items);
        let mut budget = self.resources.serving.step_tokens_max;
        self.take_decodes(&mut items, &mut budget);
        self.take_chunks(&mut items, &mut budget, 0);
        // Whoever was preempted in this call heads the queue and needs more blocks than it just left free.
        let admitted_from = self.running.len();
        self.admit(budget);
        self.take_chunks(&mut items, &mut budget, admitted_from);
        if items.is_empty() {
            self.items = items;
            return None;
        }
        let batch = Batch {
            number: self.formed,
            shape: shape_of(&items),
            items,
            preempted: std::mem::take(&mut self.preempted),
        };
        self.formed += 1;
        self.in_flight += 1;
        Some(batch)
    }

    /// Takes back a batch whose tokens are known. `ended` names requests that end with the token they got in it,
    /// because it is an end-of-sequence token; an answer of full length ends by itself.
    ///
    /// # Panics
    /// If the batch is of another scheduler, an earlier chunk of one of its requests is still out, a request in
    /// `ended` got no token, or `now` is earlier than in an earlier call: bugs of the caller.
    pub fn complete(&mut self, batch: Batch, ended: &[RequestId], now: SimTime) -> Completed {
        self.tick(now);
        assert!(self.in_flight > 0 && batch.number < self.formed, "batch {} is not in flight", batch.number);
        self.in_flight -= 1;
        let mut completed = std::mem::take(&mut self.completed);
        completed.tokens.reserve(batch.items.len());
        // Items stand in order of age, decodes and prefills each, so the next is mostly right behind the last.
        let (mut next, mut left) = (0, false);
        for item in &batch.items {
            let follows = self.running.get(next).is_some_and(|live| live.request.id == item.request);
            let position = if follows { next } else { self.position(item.request) };
            next = position + 1;
            let live = &mut self.running[position];
            assert_eq!(item.work.start(), live.cached, "{:?} came back out of order", item.request);
            live.in_flight -= 1;
            live.cached += item.work.tokens();
            if live.cancelled {
                left |= live.leave_if_back(&mut self.ledger);
                continue;
            }
            if !item.work.yields() {
                continue;
            }
            live.produced += 1;
            // From here on the request decodes: each token that it produces is fed next.
            live.target = live.cached;
            completed.tokens.push(Yield { request: item.request, ordinal: live.produced });
            if live.produced == live.request.output_tokens || (!ended.is_empty() && ended.contains(&item.request)) {
                let blocks = std::mem::take(&mut live.blocks);
                if live.kept {
                    self.keep.hold(item.request, blocks);
                } else {
                    self.ledger.give_back(blocks);
                }
                live.done = true;
                completed.finished.push(item.request);
            }
        }
        if left || !completed.finished.is_empty() {
            self.running.retain(|live| !live.done);
        }
        self.items = batch.items;
        self.items.clear();
        for request in ended {
            assert!(
                completed.finished.contains(request),
                "{request:?} ended without a token in batch {}",
                batch.number
            );
        }
        completed
    }

    /// Takes back what [`complete`](Self::complete) gave, to use its memory again.
    pub fn reuse(&mut self, mut completed: Completed) {
        completed.tokens.clear();
        completed.finished.clear();
        self.completed = completed;
    }

    /// Requests that wait for admission.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that are admitted and not done.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Batches between `next_batch` and `complete`.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether every submitted request is done.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Blocks that no request holds.
    #[must_use]
    pub fn free_blocks(&self) -> usize {
        self.ledger.free()
    }

    /// Blocks of a running request, in order of position: the token at position `p` is in block
    /// `p / kv_block_tokens` of them. Empty for any other request.
    #[must_use]
    pub fn blocks_of(&self, request: RequestId) -> &[u32] {
        self.find(request).map_or(&[], |position| &self.running[position].blocks)
    }

    /// How often a request was preempted.
    #[must_use]
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    fn tick(&mut self, now: SimTime) {
        assert!(now >= self.now, "time went back from {:?} to {now:?}", self.now);
        self.now = now;
    }

    /// Running requests stand in order of arrival, hence of their identifiers.
    fn find(&self, request: RequestId) -> Option<usize> {
        self.running.binary_search_by_key(&request, |live| live.request.id).ok()
    }

    fn position(&self, request: RequestId) -> usize {
        self.find(request).unwrap_or_else(|| panic!("{request:?} is in a batch but not running"))
    }

    fn take_decodes(&mut self, items: &mut Vec<Item>, budget: &mut u32) {
        let share = match self.resources.in_flight_max {
            1 => usize::MAX,
            batches => self.running.iter().filter(|live| live.decodes()).count().div_ceil(batches as usize),
        };
        let mut i = 0;
        while i < self.running.len() && items.len() < share && *budget > 0 {
            let live = &self.running[i];
            if live.in_flight > 0 || !live.decodes() || !self.make_room(i) {
                // A request that preempts itself leaves the list, so that nothing is left to look at after it.
                i += 1;
                continue;
            }
            let live = &mut self.running[i];
            items.push(Item { request: live.request.id, work: Work::Decode { start: live.cached } });
            live.issued += 1;
            live.in_flight = 1;
            *budget -= 1;
            i += 1;
        }
    }

    fn take_chunks(&mut self, items: &mut Vec<Item>, budget: &mut u32, from: usize) {
        for live in &mut self.running[from..] {
            if *budget == 0 {
                break;
            }
            let tokens = live.target.saturating_sub(live.issued).min(*budget);
            if tokens == 0 || live.moving {
                continue;
            }
            let start = live.issued;
            live.issued += tokens;
            live.in_flight += 1;
            *budget -= tokens;
            let last = live.issued == live.target;
            items.push(Item { request: live.request.id, work: Work::Prefill { start, tokens, last } });
        }
    }

    /// Admits requests in order while their prefill fits the blocks and the batch has tokens left for it.
    fn admit(&mut self, mut budget: u32) {
        while budget > 0
            && self.running.len() < self.resources.serving.requests_max as usize
            && let Some(head) = self.waiting.front()
        {
            // Whoever brings tokens along takes the block of the next one too, or it could be put out at once.
            let tokens = if head.cached > 0 { head.target.max(head.cached + 1) } else { head.target };
            let needed = blocks_for(tokens.into(), &self.resources.serving) as usize;
            if needed > self.ledger.free() || head.moving {
                break;
            }
            let Some(mut live) = self.waiting.pop_front() else { break };
            live.blocks.extend((0..needed).map_while(|_| self.ledger.take()));
            if live.cached > 0 {
                self.host.bring(&mut live, &self.resources.serving);
            } else {
                budget = budget.saturating_sub(live.target);
            }
            self.running.push(live);
        }
    }

    /// Makes sure that the request at `i` has a block for one more token. False where it cannot have one now: it
    /// waits for the youngest, which is in flight, or it was the youngest and is preempted itself.
    fn make_room(&mut self, i: usize) -> bool {
        let live = &self.running[i];
        let room = live.blocks.len() as u64 * u64::from(self.resources.serving.kv_block_tokens);
        if u64::from(live.cached) < room {
            return true;
        }
        while self.ledger.free() == 0 {
            if self.host.leaving() > 0 {
                // Blocks are on their way out.
                return false;
            }
            if self.running.last().is_none_or(|youngest| youngest.in_flight > 0) {
                return false;
            }
            self.preempt_youngest();
            if self.running.len() == i {
                return false;
            }
        }
        self.running[i].blocks.extend(self.ledger.take());
        true
    }

    fn preempt_youngest(&mut self) {
        let Some(mut live) = self.running.pop() else { return };
        assert_eq!((live.in_flight, live.issued), (0, live.cached), "{:?} is in flight", live.request.id);
        self.preempted.push(live.request.id);
        self.preemptions += 1;
        if self.host.put_out(&mut live, &self.resources.serving) {
            self.waiting.push_front(live);
            return;
        }
        self.ledger.give_back(std::mem::take(&mut live.blocks));
        live.target = live.request.prompt_tokens + live.produced;
        live.issued = 0;
        live.cached = 0;
        self.waiting.push_front(live);
    }
}

fn shape_of(items: &[Item]) -> StepShape {
    let mut shape = StepShape::default();
    let mut context = 0.0;
    for item in items {
        match item.work {
            Work::Prefill { start, tokens, .. } => shape.prefills.push((tokens, start)),
            Work::Decode { start } => {
                shape.decodes += 1;
                context += f64::from(start) + 1.0;
            }
        }
        shape.sequences += u32::from(item.work.yields());
    }
    if shape.decodes > 0 {
        shape.decode_context = context / f64::from(shape.decodes);
    }
    shape
}

#[cfg(test)]
mod tests;
