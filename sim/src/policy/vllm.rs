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

use super::Policy;
use isotherm_core::cost::StepShape;
use isotherm_core::ids::RequestId;
use isotherm_core::serving::{Batch, Completed, Item, Request, Resources, ServingError, Work, Yield};
use isotherm_core::units::SimTime;
use pool::{Content, Pool};
use std::collections::{BTreeMap, VecDeque};

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
    /// Its blocks in order of position.
    blocks: Vec<u32>,
    /// How many of them have a known content.
    filled: u32,
}

impl Live {
    /// Tokens of prompt and answer when it is done.
    fn total(&self) -> u64 {
        u64::from(self.request.prompt_tokens) + u64::from(self.request.output_tokens)
    }

    fn content(&self, block: u32) -> Content {
        self.names.get(block as usize).map_or(Content::Own(self.request.id.0, block), |&name| Content::Prompt(name))
    }
}

/// The `vllm` policy. What it does stands at the head of `vllm.rs`.
#[derive(Debug, Clone)]
pub struct Vllm {
    resources: Resources,
    options: VllmOptions,
    pool: Pool,
    requests: BTreeMap<RequestId, Live>,
    waiting: VecDeque<RequestId>,
    /// In order of admission.
    running: Vec<RequestId>,
    in_flight: u32,
    formed: u64,
    /// Whether the engine may look for another step: it does so when it was idle and when a step is over.
    awake: bool,
    preempted: Vec<RequestId>,
    counts: VllmCounts,
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
            pool: Pool::new(resources.kv_blocks),
            requests: BTreeMap::new(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            in_flight: 0,
            formed: 0,
            awake: true,
            preempted: Vec::new(),
            counts: VllmCounts::default(),
        })
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

    fn in_flight_max(&self) -> u32 {
        if self.options.look_ahead { self.resources.in_flight_max.max(2) } else { self.resources.in_flight_max }
    }

    fn live(&self, id: RequestId) -> &Live {
        self.requests.get(&id).unwrap_or_else(|| panic!("{id:?} is scheduled and not known"))
    }

    fn live_mut(&mut self, id: RequestId) -> &mut Live {
        self.requests.get_mut(&id).unwrap_or_else(|| panic!("{id:?} is scheduled and not known"))
    }

    const fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.resources.serving.kv_block_tokens)
    }

    /// Longest sequence of a request: a prompt that fills the context is answered with one token all the same.
    fn context_max(&self, live: &Live) -> u32 {
        self.options.context_max.max(live.request.prompt_tokens + 1)
    }

    /// At most as many tokens of one request as a step may hold.
    fn limited(&self, tokens: u32) -> u32 {
        let most = self.options.long_prefill_tokens;
        if most > 0 { tokens.min(most) } else { tokens }
    }

    fn serve_running(&mut self, items: &mut Vec<Item>, budget: &mut u32) {
        let mut i = 0;
        while i < self.running.len() && *budget > 0 {
            let id = self.running[i];
            let live = self.live(id);
            let last_is_coming =
                live.coming > 0 && u64::from(live.computed) + 2 >= live.total() + u64::from(live.coming);
            let behind = live.known + live.coming - live.computed;
            let room = self.context_max(live).saturating_sub(1).saturating_sub(live.computed);
            let tokens = self.limited(behind).min(*budget).min(room);
            if last_is_coming || tokens == 0 {
                i += 1;
                continue;
            }
            if !self.make_room(id, tokens) {
                break;
            }
            items.push(self.hand_out(id, tokens));
            *budget -= tokens;
            i += 1;
        }
    }

    /// Blocks for the next tokens of a running request, if need be from those admitted last. False where the request
    /// itself was preempted.
    fn make_room(&mut self, id: RequestId, tokens: u32) -> bool {
        loop {
            let live = self.live(id);
            let needed = self.blocks_for(live.computed + tokens).saturating_sub(live.blocks.len() as u32);
            if needed <= self.pool.free() {
                self.extend(id, needed, tokens);
                return true;
            }
            let Some(victim) = self.running.pop() else { return false };
            self.preempt(victim);
            if victim == id {
                return false;
            }
        }
    }

    /// Gives a request `needed` more blocks for its next `tokens` tokens and makes those known that these fill with
    /// tokens of known value.
    fn extend(&mut self, id: RequestId, needed: u32, tokens: u32) {
        for _ in 0..needed {
            let block = self.pool.take().expect("as many blocks are free as were counted");
            self.live_mut(id).blocks.push(block);
        }
        let live = self.live(id);
        self.fill(id, (live.computed + tokens).min(live.known));
    }

    /// Makes the blocks known that the first `tokens` tokens of a request fill.
    fn fill(&mut self, id: RequestId, tokens: u32) {
        if !self.options.prefix_caching {
            return;
        }
        let full = tokens / self.resources.serving.kv_block_tokens;
        let live = self.requests.get_mut(&id).unwrap_or_else(|| panic!("{id:?} is scheduled and not known"));
        while live.filled < full {
            self.pool.fill(live.blocks[live.filled as usize], live.content(live.filled));
            live.filled += 1;
        }
    }

    fn preempt(&mut self, id: RequestId) {
        let live = self.live_mut(id);
        live.computed = 0;
        live.filled = 0;
        live.running = false;
        let blocks = std::mem::take(&mut live.blocks);
        self.pool.release(&blocks);
        self.counts.preemptions += 1;
        self.preempted.push(id);
        self.waiting.push_front(id);
    }

    fn serve_waiting(&mut self, items: &mut Vec<Item>, budget: &mut u32) {
        while *budget > 0
            && self.running.len() < self.resources.serving.requests_max as usize
            && let Some(&id) = self.waiting.front()
        {
            let live = self.live(id);
            // With more batches in flight than two, a preempted request may still have a token on its way.
            if live.coming > 0 {
                break;
            }
            let found = self.cached_beginning(live);
            let reused = found.len() as u32 * self.resources.serving.kv_block_tokens;
            let behind = self.limited(live.known - reused);
            if behind > *budget && !self.options.chunked_prefill {
                break;
            }
            let tokens = behind.min(*budget);
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
            let live = self.live_mut(id);
            live.filled = found.len() as u32;
            live.blocks = found;
            live.computed = reused;
            live.running = true;
            self.waiting.pop_front();
            self.running.push(id);
            self.counts.reused_tokens += u64::from(reused);
            self.counts.looked_up_tokens += u64::from(known);
            self.extend(id, needed, tokens);
            items.push(self.hand_out(id, tokens));
            *budget -= tokens;
        }
    }

    /// The known blocks of a request's beginning. Its last token is computed in any case, for what comes after it.
    fn cached_beginning(&self, live: &Live) -> Vec<u32> {
        if !self.options.prefix_caching {
            return Vec::new();
        }
        let most = live.known.saturating_sub(1) / self.resources.serving.kv_block_tokens;
        (0..most).map_while(|block| self.pool.find(live.content(block))).collect()
    }

    /// Counts the tokens as computed; the request yields when it has caught up.
    fn hand_out(&mut self, id: RequestId, tokens: u32) -> Item {
        let live = self.live_mut(id);
        let start = live.computed;
        live.computed += tokens;
        let last = live.computed >= live.known + live.coming;
        live.coming += u32::from(last);
        let work = match (tokens, last) {
            (1, true) => Work::Decode { start },
            _ => Work::Prefill { start, tokens, last },
        };
        Item { request: id, work }
    }

    /// Takes a request out that is done.
    fn finish(&mut self, id: RequestId) {
        let Some(live) = self.requests.remove(&id) else { return };
        self.pool.release(&live.blocks);
        if live.running {
            self.running.retain(|&other| other != id);
        } else {
            self.waiting.retain(|&other| other != id);
        }
    }
}

impl Policy for Vllm {
    fn submit(&mut self, request: Request, prompt: &[u64]) -> Result<(), ServingError> {
        request.check()?;
        if let Some((&last, _)) = self.requests.last_key_value().filter(|(last, _)| **last >= request.id) {
            return Err(ServingError::OutOfOrder { request: request.id.0, last: last.0 });
        }
        let tokens = u64::from(request.prompt_tokens) + u64::from(request.output_tokens) - 1;
        let needed = tokens.div_ceil(u64::from(self.resources.serving.kv_block_tokens));
        // Half of the range, so that no sum of counts of one request can overflow.
        if needed > u64::from(self.resources.kv_blocks) || tokens > u64::from(u32::MAX / 2) {
            let blocks = self.resources.kv_blocks;
            return Err(ServingError::TooLong { request: request.id.0, tokens, needed, blocks });
        }
        let full = request.prompt_tokens / self.resources.serving.kv_block_tokens;
        let live = Live {
            request,
            names: prompt.iter().take(full as usize).copied().collect(),
            known: request.prompt_tokens,
            computed: 0,
            coming: 0,
            running: false,
            blocks: Vec::new(),
            filled: 0,
        };
        self.requests.insert(request.id, live);
        self.waiting.push_back(request.id);
        Ok(())
    }

    fn next_batch(&mut self, _now: SimTime) -> Option<Batch> {
        if self.in_flight >= self.in_flight_max() || (self.in_flight > 0 && !self.awake) {
            return None;
        }
        let mut items = Vec::new();
        let mut budget = self.resources.serving.step_tokens_max;
        let before = self.counts.preemptions;
        self.serve_running(&mut items, &mut budget);
        if self.counts.preemptions == before {
            self.serve_waiting(&mut items, &mut budget);
        }
        if items.is_empty() {
            // The engine now sleeps until a step is over; without one it looks again when a request arrives.
            self.awake = false;
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
        self.awake = true;
        Some(batch)
    }

    fn complete(&mut self, batch: Batch, ended: &[RequestId], _now: SimTime) -> Completed {
        assert!(self.in_flight > 0 && batch.number < self.formed, "batch {} is not in flight", batch.number);
        self.in_flight -= 1;
        self.awake = true;
        let mut completed = Completed::default();
        for item in batch.items {
            if !item.work.yields() {
                continue;
            }
            let Some(live) = self.requests.get_mut(&item.request) else { continue };
            live.known += 1;
            live.coming -= 1;
            let ordinal = live.known - live.request.prompt_tokens;
            let (computed, running) = (live.computed - live.coming.min(live.computed), live.running);
            let done = ordinal >= live.request.output_tokens
                || live.known >= self.options.context_max
                || ended.contains(&item.request);
            completed.tokens.push(Yield { request: item.request, ordinal });
            if running {
                self.fill(item.request, computed);
            }
            if done {
                self.finish(item.request);
                completed.finished.push(item.request);
            }
        }
        completed
    }
}

/// What the items ask of a stage; a single token is a decode whether or not it yields.
fn shape_of(items: &[Item]) -> StepShape {
    let mut shape = StepShape::default();
    let mut context = 0.0;
    for item in items {
        if item.work.tokens() == 1 {
            shape.decodes += 1;
            context += f64::from(item.work.start()) + 1.0;
        } else {
            shape.prefills.push((item.work.tokens(), item.work.start()));
        }
        shape.sequences += u32::from(item.work.yields());
    }
    if shape.decodes > 0 {
        shape.decode_context = context / f64::from(shape.decodes);
    }
    shape
}
