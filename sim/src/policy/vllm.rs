//! The policy of vLLM's V1 engine, version 0.19 (Apache-2.0): `v1/core/sched/scheduler.py`, `async_scheduler.py`,
//! `v1/core/kv_cache_manager.py`, `block_pool.py` and the loop in `v1/engine/core.py`.
//!
//! **Step.** There is no prefill and no decode: each request catches up with the tokens that are known of it. A step
//! serves, within the token budget:
//!
//! 1. *running* requests in order of admission. One that needs blocks which are not free takes them from the request
//!    admitted last, which goes back to the head of the queue with nothing computed; where that is the request itself,
//!    the step serves nobody else.
//! 2. *waiting* requests, first come, first served, unless somebody was preempted in this step: while fewer than
//!    `requests_max` run, and the blocks for all tokens known of the request, not only its first chunk, are free.
//!
//! **Cache.** A full block is known by its content and everything before it, prompt and answer alike, and stays known
//! when nobody holds it until it is given out again. A request that is admitted holds the known blocks of its
//! beginning, at most all but its last token, so that a preempted request finds again what nobody took meanwhile.
//!
//! **Look-ahead.** The next step is formed while one runs, so a token that is on its way counts as known though its
//! value is not; a request whose last token is on its way is left out. Requests that arrive during a step are seen
//! when it is over. What is not modelled: priorities, speculative decoding, sliding windows, remote caches.

mod pool;

#[cfg(test)]
mod tests;

use super::{Fullness, Policy};
use isotherm_core::cost::StepShape;
use isotherm_core::ids::RequestId;
use isotherm_core::serving::{Batch, Completed, Item, Request, Resources, ServingError, Work, Yield};
use isotherm_core::units::SimTime;
use pool::{Content, Pool};
use std::collections::VecDeque;

/// Settings of the engine beside its [`Resources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VllmOptions {
    /// Whether blocks stay known when nobody holds them (`enable_prefix_caching`).
    pub prefix_caching: bool,
    /// Whether a prompt may be divided over steps (`enable_chunked_prefill`).
    pub chunked_prefill: bool,
    /// Most tokens of one request in one step, 0 for no limit (`long_prefill_token_threshold`).
    pub long_prefill_tokens: u32,
    /// Whether a request is admitted only when all its known tokens fit (`scheduler_reserve_full_isl`).
    pub reserve_whole: bool,
    /// Whether a step is formed while another runs (`async_scheduling`).
    pub look_ahead: bool,
    /// Most tokens of a request, prompt and answer (`max_model_len`).
    pub context_max: u32,
}

impl Default for VllmOptions {
    /// The engine's own defaults.
    fn default() -> Self {
        Self {
            prefix_caching: true,
            chunked_prefill: true,
            long_prefill_tokens: 0,
            reserve_whole: true,
            look_ahead: true,
            context_max: u32::MAX,
        }
    }
}

/// What has been done for all requests together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VllmCounts {
    /// How often a request was preempted.
    pub preemptions: u64,
    /// Tokens that an admission found in the cache.
    pub reused_tokens: u64,
    /// Tokens that were known when an admission looked for them.
    pub looked_up_tokens: u64,
}

#[derive(Debug, Clone)]
struct Live {
    request: Request,
    /// Names of the full blocks of its prompt.
    names: Vec<u64>,
    /// Tokens whose value is known: prompt and answer so far.
    known: u32,
    /// Tokens whose work was handed out; the engine counts them as computed from then on.
    computed: u32,
    /// Tokens of the answer that are on their way.
    coming: u32,
    /// Whether it is admitted.
    running: bool,
    /// Whether it is answered and about to leave.
    done: bool,
    /// Its blocks in order of position.
    blocks: Vec<u32>,
    /// Tokens that these hold.
    room: u32,
    /// Its blocks each time that it was preempted, as far as they were full.
    former: Vec<Vec<u32>>,
    /// How many of them have a known content.
    filled: u32,
    /// Tokens of known value that make the next one's content known.
    fills_at: u32,
}

impl Live {
    /// Tokens of prompt and answer when it is done.
    const fn total(&self) -> u32 {
        self.request.prompt_tokens.saturating_add(self.request.output_tokens)
    }

    fn content(&self, block: u32) -> Content {
        self.names.get(block as usize).map_or(Content::Own(self.request.id.0, block), |&name| Content::Prompt(name))
    }

    /// Whether the engine, which knows only how many tokens come, has handed out the work for the last one.
    const fn last_is_coming(&self) -> bool {
        self.coming > 0 && self.computed + 2 >= self.total() + self.coming
    }
}

/// A batch that is out: whom its tokens are for, in the order of its items, by slot. A request that ended early may have
/// left its slot to another.
#[derive(Debug, Clone, Default)]
struct Out {
    number: u64,
    yields: Vec<(u32, RequestId)>,
}

/// A batch that is formed.
#[derive(Debug, Clone, Default)]
struct Forming {
    items: Vec<Item>,
    shape: StepShape,
    /// Contexts of its decodes, summed up.
    contexts: u64,
    yields: Vec<(u32, RequestId)>,
    /// Tokens that it may still hold.
    budget: u32,
}

/// The `vllm` policy. What it does stands at the head of `vllm.rs`.
#[derive(Debug, Clone)]
pub struct Vllm {
    resources: Resources,
    options: VllmOptions,
    /// Whether batches name their requests, and tokens other than the first are told.
    whole: bool,
    pool: Pool,
    /// Requests that are not done, each in a place that it keeps.
    slots: Vec<Live>,
    vacant: Vec<u32>,
    last_submitted: Option<RequestId>,
    waiting: VecDeque<u32>,
    /// In order of admission.
    running: Vec<u32>,
    out: VecDeque<Out>,
    formed: u64,
    /// Whether the engine may look for another step: it does so when it was idle and when a step is over.
    awake: bool,
    preempted: Vec<RequestId>,
    counts: VllmCounts,
    /// Keep their allocations from batch to batch.
    spare: Vec<Vec<(u32, RequestId)>>,
    completed: Completed,
}

impl Vllm {
    /// An engine without requests. `resources.kv_blocks` are the blocks that requests can have: the engine keeps one of
    /// those that it reports for itself. Errors: a limit is zero.
    pub fn new(resources: Resources, options: VllmOptions) -> Result<Self, ServingError> {
        resources.check()?;
        if options.context_max == 0 {
            return Err(ServingError::Zero("the longest context"));
        }
        Ok(Self {
            resources,
            options,
            whole: true,
            pool: Pool::new(resources.kv_blocks),
            slots: Vec::new(),
            vacant: Vec::new(),
            last_submitted: None,
            waiting: VecDeque::new(),
            running: Vec::new(),
            out: VecDeque::new(),
            formed: 0,
            awake: true,
            preempted: Vec::new(),
            counts: VllmCounts::default(),
            spare: Vec::new(),
            completed: Completed::default(),
        })
    }

    /// The same engine, whose batches name no requests and which tells of first tokens and ends alone, where that is
    /// not `whole`. What it decides is the same.
    #[must_use]
    pub fn telling(self, whole: bool) -> Self {
        Self { whole, ..self }
    }

    /// What has been done so far.
    #[must_use]
    pub const fn counts(&self) -> VllmCounts {
        self.counts
    }

    /// Blocks that no request holds.
    #[must_use]
    pub const fn free_blocks(&self) -> u32 {
        self.pool.free()
    }

    /// Requests that are admitted and not done.
    #[must_use]
    pub const fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests that wait for admission.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn in_flight_max(&self) -> usize {
        let stated = self.resources.in_flight_max as usize;
        if self.options.look_ahead { stated.max(2) } else { stated }
    }

    fn live(&self, slot: u32) -> &Live {
        &self.slots[slot as usize]
    }

    fn live_mut(&mut self, slot: u32) -> &mut Live {
        &mut self.slots[slot as usize]
    }

    const fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.resources.serving.kv_block_tokens)
    }

    /// At most as many tokens of one request as a step may hold.
    fn limited(&self, tokens: u32) -> u32 {
        let most = self.options.long_prefill_tokens;
        if most > 0 { tokens.min(most) } else { tokens }
    }

    fn serve_running(&mut self, forming: &mut Forming) {
        let mut i = 0;
        while i < self.running.len() && forming.budget > 0 {
            let slot = self.running[i];
            let live = &self.slots[slot as usize];
            let behind = live.known + live.coming - live.computed;
            // A prompt that fills the context is answered with one token all the same.
            let longest = self.options.context_max.max(live.request.prompt_tokens + 1);
            let room = (longest - 1).saturating_sub(live.computed);
            let tokens = self.limited(behind).min(forming.budget).min(room);
            i += 1;
            if live.last_is_coming() || tokens == 0 {
                continue;
            }
            if live.computed + tokens > live.room && !self.make_room(slot, tokens) {
                break;
            }
            self.hand_out(forming, slot, tokens);
        }
    }

    /// Blocks for the next tokens of a running request, if need be from those admitted last. False where the request
    /// itself was preempted.
    fn make_room(&mut self, slot: u32, tokens: u32) -> bool {
        loop {
            let live = self.live(slot);
            let needed = self.blocks_for(live.computed + tokens).saturating_sub(live.blocks.len() as u32);
            if needed <= self.pool.free() {
                self.extend(slot, needed);
                return true;
            }
            let Some(victim) = self.running.pop() else { return false };
            self.preempt(victim);
            if victim == slot {
                return false;
            }
        }
    }

    /// Gives a request so many more blocks.
    fn extend(&mut self, slot: u32, needed: u32) {
        let live = &mut self.slots[slot as usize];
        for _ in 0..needed {
            live.blocks.push(self.pool.take().expect("as many blocks are free as were counted"));
        }
        live.room = (live.blocks.len() as u32).saturating_mul(self.resources.serving.kv_block_tokens);
    }

    /// Makes the blocks known that the first `tokens` tokens of a request fill.
    fn fill(&mut self, slot: u32, tokens: u32) {
        let live = &mut self.slots[slot as usize];
        if tokens < live.fills_at || !self.options.prefix_caching {
            return;
        }
        let full = tokens / self.resources.serving.kv_block_tokens;
        while live.filled < full {
            self.pool.fill(live.blocks[live.filled as usize], live.content(live.filled));
            live.filled += 1;
        }
        live.fills_at = (full + 1).saturating_mul(self.resources.serving.kv_block_tokens);
    }

    fn preempt(&mut self, slot: u32) {
        let live = &mut self.slots[slot as usize];
        self.pool.release(&live.blocks);
        if self.options.prefix_caching {
            let mut full = std::mem::take(&mut live.blocks);
            full.truncate(live.filled as usize);
            live.former.push(full);
        }
        live.blocks.clear();
        live.computed = 0;
        (live.filled, live.fills_at, live.room) = (0, 0, 0);
        live.running = false;
        self.counts.preemptions += 1;
        self.preempted.push(live.request.id);
        self.waiting.push_front(slot);
    }

    fn serve_waiting(&mut self, forming: &mut Forming) {
        while forming.budget > 0
            && self.running.len() < self.resources.serving.requests_max as usize
            && let Some(&slot) = self.waiting.front()
        {
            let live = self.live(slot);
            // With more batches in flight than two, a preempted request may still have a token on its way.
            if live.coming > 0 {
                break;
            }
            let found = self.cached_beginning(live);
            let reused = found.len() as u32 * self.resources.serving.kv_block_tokens;
            let behind = self.limited(live.known - reused);
            if behind > forming.budget && !self.options.chunked_prefill {
                break;
            }
            let tokens = behind.min(forming.budget);
            // Blocks found free are no longer free once they are held.
            let revived = found.iter().filter(|&&block| self.pool.is_free(block)).count() as u32;
            let needed = |all: u32| self.blocks_for(all).saturating_sub(found.len() as u32);
            let known = live.known;
            if self.options.reserve_whole && needed(known) + revived > self.pool.free() {
                break;
            }
            let needed = needed(reused + tokens);
            if needed + revived > self.pool.free() {
                break;
            }
            for &block in &found {
                self.pool.hold(block);
            }
            let live = self.live_mut(slot);
            live.filled = found.len() as u32;
            live.blocks = found;
            live.computed = reused;
            live.running = true;
            self.waiting.pop_front();
            self.running.push(slot);
            self.counts.reused_tokens += u64::from(reused);
            self.counts.looked_up_tokens += u64::from(known);
            self.extend(slot, needed);
            self.hand_out(forming, slot, tokens);
        }
    }

    /// The known blocks of a request's beginning. Its last token is computed in any case, for what comes after it.
    fn cached_beginning(&self, live: &Live) -> Vec<u32> {
        if !self.options.prefix_caching {
            return Vec::new();
        }
        let most = live.known.saturating_sub(1) / self.resources.serving.kv_block_tokens;
        (0..most).map_while(|block| self.known_block(live, block)).collect()
    }

    /// A block with the content of one of a request's: the one filled first. What only this request can have is where it
    /// was before it was preempted, or nowhere.
    fn known_block(&self, live: &Live, block: u32) -> Option<u32> {
        let content = live.content(block);
        if matches!(content, Content::Prompt(_)) {
            return self.pool.find(content);
        }
        let former = live.former.iter().filter_map(|blocks| blocks.get(block as usize).copied());
        let known = former.filter_map(|at| Some((self.pool.since(at, content)?, at)));
        known.min().map(|(_, at)| at)
    }

    /// Counts the tokens as computed; the request yields when it has caught up. A single token is a decode whether or
    /// not it yields.
    fn hand_out(&mut self, forming: &mut Forming, slot: u32, tokens: u32) {
        let live = &mut self.slots[slot as usize];
        let start = live.computed;
        live.computed += tokens;
        let last = live.computed >= live.known + live.coming;
        let (id, full) = (live.request.id, live.computed.min(live.known));
        live.coming += u32::from(last);
        forming.budget -= tokens;
        if tokens == 1 {
            forming.shape.decodes += 1;
            forming.contexts += u64::from(start) + 1;
        } else {
            forming.shape.prefills.push((tokens, start));
        }
        if last {
            forming.yields.push((slot, id));
        }
        if self.whole {
            let work = match (tokens, last) {
                (1, true) => Work::Decode { start },
                _ => Work::Prefill { start, tokens, last },
            };
            forming.items.push(Item { request: id, work });
        }
        self.fill(slot, full);
    }

    /// The blocks of a request that is done come back.
    fn finish(&mut self, slot: u32) {
        let live = &mut self.slots[slot as usize];
        self.pool.release(&live.blocks);
        live.blocks.clear();
        live.done = true;
        self.completed.finished.push(live.request.id);
        if !live.running {
            // It was preempted while its last token was on its way.
            self.waiting.retain(|&other| other != slot);
            self.vacant.push(slot);
        }
    }

    /// Running requests that are done leave their places.
    fn leave(&mut self) {
        let (slots, vacant) = (&self.slots, &mut self.vacant);
        self.running.retain(|&slot| {
            let done = slots[slot as usize].done;
            if done {
                vacant.push(slot);
            }
            !done
        });
    }
}

impl Policy for Vllm {
    fn submit(&mut self, request: Request, prompt: &[u64]) -> Result<(), ServingError> {
        request.check()?;
        if let Some(last) = self.last_submitted.filter(|&last| last >= request.id) {
            return Err(ServingError::OutOfOrder { request: request.id.0, last: last.0 });
        }
        let tokens = u64::from(request.prompt_tokens) + u64::from(request.output_tokens) - 1;
        let needed = tokens.div_ceil(u64::from(self.resources.serving.kv_block_tokens));
        // Half of the range, so that no sum of counts of one request can overflow.
        if needed > u64::from(self.resources.kv_blocks) || tokens > u64::from(u32::MAX / 2) {
            let blocks = self.resources.kv_blocks;
            return Err(ServingError::TooLong { request: request.id.0, tokens, needed, blocks });
        }
        self.last_submitted = Some(request.id);
        let full = request.prompt_tokens / self.resources.serving.kv_block_tokens;
        let live = Live {
            request,
            names: prompt.iter().take(full as usize).copied().collect(),
            known: request.prompt_tokens,
            computed: 0,
            coming: 0,
            running: false,
            done: false,
            blocks: Vec::new(),
            former: Vec::new(),
            room: 0,
            filled: 0,
            fills_at: 0,
        };
        let slot = match self.vacant.pop() {
            Some(slot) => {
                // A request before it leaves the memory of its list of blocks.
                let blocks = std::mem::take(&mut self.slots[slot as usize].blocks);
                self.slots[slot as usize] = Live { blocks, ..live };
                slot
            }
            None => {
                self.slots.push(live);
                self.slots.len() as u32 - 1
            }
        };
        self.waiting.push_back(slot);
        Ok(())
    }

    fn fullness(&self) -> Option<Fullness> {
        let held_blocks = self.resources.kv_blocks - self.pool.free();
        let (waiting, running) = (self.waiting.len() as u32, self.running.len() as u32);
        Some(Fullness { waiting, running, held_blocks })
    }

    fn next_batch(&mut self, _now: SimTime) -> Option<Batch> {
        if self.out.len() >= self.in_flight_max() || (!self.out.is_empty() && !self.awake) {
            return None;
        }
        let budget = self.resources.serving.step_tokens_max;
        let yields = self.spare.pop().unwrap_or_default();
        let mut forming = Forming { yields, budget, ..Forming::default() };
        let before = self.counts.preemptions;
        self.serve_running(&mut forming);
        if self.counts.preemptions == before {
            self.serve_waiting(&mut forming);
        }
        let Forming { items, mut shape, contexts, yields, .. } = forming;
        if shape.decodes == 0 && shape.prefills.is_empty() {
            // The engine now sleeps until a step is over; without one it looks again when a request arrives.
            self.awake = false;
            self.spare.push(yields);
            return None;
        }
        if shape.decodes > 0 {
            shape.decode_context = contexts as f64 / f64::from(shape.decodes);
        }
        shape.sequences = yields.len() as u32;
        let number = self.formed;
        self.formed += 1;
        self.out.push_back(Out { number, yields });
        self.awake = true;
        Some(Batch { number, shape, items, preempted: std::mem::take(&mut self.preempted) })
    }

    fn complete(&mut self, batch: Batch, ended: &[RequestId], _now: SimTime) -> Completed {
        let place = self.out.iter().position(|out| out.number == batch.number);
        let out = place.and_then(|place| self.out.remove(place));
        let Some(Out { mut yields, .. }) = out else { panic!("batch {} is not in flight", batch.number) };
        self.awake = true;
        for &(slot, id) in &yields {
            let live = &mut self.slots[slot as usize];
            if live.done || live.request.id != id {
                continue;
            }
            live.known += 1;
            live.coming -= 1;
            let ordinal = live.known - live.request.prompt_tokens;
            let (computed, running) = (live.computed - live.coming.min(live.computed), live.running);
            let done = ordinal >= live.request.output_tokens
                || live.known >= self.options.context_max
                || (!ended.is_empty() && ended.contains(&id));
            if ordinal == 1 || self.whole {
                self.completed.tokens.push(Yield { request: id, ordinal });
            }
            if running {
                self.fill(slot, computed);
            }
            if done {
                self.finish(slot);
            }
        }
        if !self.completed.finished.is_empty() {
            self.leave();
        }
        yields.clear();
        self.spare.push(yields);
        std::mem::take(&mut self.completed)
    }

    fn reuse(&mut self, mut completed: Completed) {
        completed.tokens.clear();
        completed.finished.clear();
        self.completed = completed;
    }
}
