//! Both policies on one stage, in a time for each step that does not grow with the number of requests that decode.
//!
//! On one stage a batch is back before the next is formed, so all requests that decode advance together, one token a
//! step. A step therefore needs only sums: how many they are, their tokens, how many of them need a block now (those
//! whose tokens fill their blocks, counted by the step in which they do, modulo the tokens of a block), and who ends in
//! which step. Only where blocks run out are they looked at one by one.

use super::{Limits, Rule};
use crate::policy::{Fullness, Policy};
use isotherm_core::cost::StepShape;
use isotherm_core::ids::RequestId;
use isotherm_core::serving::{Batch, Completed, Request, Resources, ServingError, Yield};
use isotherm_core::units::SimTime;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// No slot.
const NONE: u32 = u32::MAX;

/// A request that was submitted and is not done.
#[derive(Debug)]
struct Live {
    request: Request,
    /// Tokens to prefill: the prompt, or all tokens so far after a restart.
    target: u32,
    /// Tokens so far; while it decodes, those at the step in which it began to.
    processed: u32,
    decoding: bool,
    /// Whether it has yielded a token.
    yielded: bool,
    /// The step in which it began to decode, and the number of steps after which it is done.
    joined: u64,
    end: u64,
    /// Neighbours in the list of those that decode.
    before: u32,
    after: u32,
}

/// A policy of Vidur on a route of one stage. See the [module](super) for what it does.
#[derive(Debug)]
pub struct Lockstep {
    limits: Limits,
    resources: Resources,
    slots: Vec<Live>,
    vacant: Vec<u32>,
    free: u32,
    held: usize,
    queue: VecDeque<u32>,
    /// Ends of the list of those that decode.
    first: u32,
    last: u32,
    decoding: u32,
    /// Steps of decoding so far, and that number modulo the tokens of a block.
    steps: u64,
    phase: usize,
    /// Sum of the tokens of those that decode.
    tokens: u64,
    /// How many of them need a block in a step of each phase.
    needing: Vec<u32>,
    /// When they end; entries of restarted requests stay and are passed over.
    ends: BinaryHeap<Reverse<(u64, RequestId, u32)>>,
    /// Begun prompts that had no part in the last batch, and those that had, in this order.
    begun: Vec<u32>,
    begun_last: Vec<u32>,
    out: bool,
    /// Prompts of the batch that is out, and their tokens in it.
    chunks: Vec<(u32, u32)>,
    formed: u64,
    restarted: Vec<RequestId>,
    spare: Vec<(u32, u32)>,
    completed: Completed,
}

impl Lockstep {
    /// A policy without requests. Errors: a limit is zero.
    pub fn new(rule: Rule, resources: Resources) -> Result<Self, ServingError> {
        let limits = Limits::new(rule, &Resources { in_flight_max: 1, ..resources })?;
        Ok(Self {
            limits,
            resources,
            slots: Vec::new(),
            vacant: Vec::new(),
            free: limits.blocks,
            held: 0,
            queue: VecDeque::new(),
            first: NONE,
            last: NONE,
            decoding: 0,
            steps: 0,
            phase: 0,
            tokens: 0,
            needing: vec![0; limits.block as usize],
            ends: BinaryHeap::new(),
            begun: Vec::new(),
            begun_last: Vec::new(),
            out: false,
            chunks: Vec::new(),
            formed: 0,
            restarted: Vec::new(),
            spare: Vec::new(),
            completed: Completed::default(),
        })
    }

    fn live(&self, slot: u32) -> &Live {
        &self.slots[slot as usize]
    }

    fn live_mut(&mut self, slot: u32) -> &mut Live {
        &mut self.slots[slot as usize]
    }

    /// Tokens so far.
    fn processed(&self, slot: u32) -> u32 {
        let live = self.live(slot);
        if live.decoding { live.processed + (self.steps - live.joined) as u32 } else { live.processed }
    }

    /// The phase of the steps in which a decoding request needs a block.
    fn phase_of(&self, slot: u32) -> usize {
        let (live, block) = (self.live(slot), u64::from(self.limits.block));
        ((live.joined % block + block - u64::from(live.processed - 1) % block) % block) as usize
    }

    /// Lets a request whose prefill is done decode from the next step on.
    fn join(&mut self, slot: u32) {
        let steps = self.steps;
        let live = self.live_mut(slot);
        live.decoding = true;
        live.joined = steps;
        let total = live.request.prompt_tokens + live.request.output_tokens;
        live.end = steps + u64::from(total - live.processed);
        let (end, request, processed) = (live.end, live.request.id, live.processed);
        self.ends.push(Reverse((end, request, slot)));
        self.tokens += u64::from(processed);
        let phase = self.phase_of(slot);
        self.needing[phase] += 1;
        self.decoding += 1;
        let mut before = self.last;
        if self.limits.rule == Rule::Vllm {
            // In order of arrival: only restarted requests are older than others of the list.
            while before != NONE && self.live(before).request.id > request {
                before = self.live(before).before;
            }
        }
        let after = if before == NONE { self.first } else { self.live(before).after };
        self.link(before, slot);
        self.link(slot, after);
    }

    fn link(&mut self, before: u32, after: u32) {
        match before {
            NONE => self.first = after,
            _ => self.live_mut(before).after = after,
        }
        match after {
            NONE => self.last = before,
            _ => self.live_mut(after).before = before,
        }
    }

    /// Takes a request out of those that decode.
    fn leave(&mut self, slot: u32) {
        let processed = self.processed(slot);
        let phase = self.phase_of(slot);
        self.needing[phase] -= 1;
        self.tokens -= u64::from(processed);
        self.decoding -= 1;
        let (before, after) = (self.live(slot).before, self.live(slot).after);
        self.link(before, after);
        let live = self.live_mut(slot);
        live.processed = processed;
        live.decoding = false;
    }

    /// Gives up a request's blocks and sends it back to the head of the queue. It has no block of the present step.
    fn restart(&mut self, slot: u32) {
        if self.live(slot).decoding {
            self.leave(slot);
            self.free += self.limits.blocks_of(self.live(slot).processed - 1);
        } else {
            self.free += self.limits.blocks_of(self.live(slot).target);
        }
        self.held -= 1;
        let live = self.live_mut(slot);
        live.target = live.processed;
        live.processed = 0;
        let request = live.request.id;
        self.restarted.push(request);
        self.queue.push_front(slot);
    }

    /// Takes the blocks that a step of all that decode needs; where they do not suffice, some restart.
    fn make_room(&mut self) {
        let needed = self.needing[self.phase];
        if self.free > needed {
            self.free -= needed;
            return;
        }
        let mut slot = self.first;
        while slot != NONE {
            while self.free == 0 {
                let victim = self.begun_last.pop().unwrap_or(self.last);
                self.restart(victim);
                if victim == slot {
                    return;
                }
            }
            self.free -= u32::from(self.phase_of(slot) == self.phase);
            slot = self.live(slot).after;
        }
    }

    fn admits(&self, slot: u32, batch: usize) -> bool {
        let needed = self.limits.blocks_of(self.live(slot).target);
        self.held < self.limits.held_max
            && batch < self.limits.batch_max
            && u64::from(self.free) >= u64::from(needed) + u64::from(self.limits.watermark)
    }

    /// Takes the head of the queue in, with a first chunk.
    fn admit(&mut self, slot: u32, tokens: u32) {
        self.queue.pop_front();
        self.free -= self.limits.blocks_of(self.live(slot).target);
        self.held += 1;
        self.chunks.push((slot, tokens));
    }

    /// Whole prompts of new requests, or else one token each of all that decode. How many decode.
    fn prefills_or_decodes(&mut self) -> u32 {
        let mut longest = 0;
        while let Some(&head) = self.queue.front() {
            let (tokens, count) = (self.live(head).target, self.chunks.len() as u64 + 1);
            let padded = count * u64::from(tokens.max(longest));
            if !self.admits(head, self.chunks.len()) || padded > self.limits.step.into() {
                break;
            }
            longest = longest.max(tokens);
            self.admit(head, tokens);
        }
        if self.chunks.is_empty() {
            self.make_room();
            self.decoding
        } else {
            0
        }
    }

    /// One token each of all that decode, then chunks of begun prompts and of new requests. How many decode.
    fn decodes_and_chunks(&mut self) -> u32 {
        if self.decoding > 0 {
            self.make_room();
        }
        let mut budget = self.limits.step.saturating_sub(self.decoding);
        let mut begun = std::mem::take(&mut self.begun);
        begun.append(&mut self.begun_last);
        begun.retain(|&slot| {
            let live = self.live(slot);
            let tokens = (live.target - live.processed).min(budget);
            if tokens > 0 {
                budget -= tokens;
                self.chunks.push((slot, tokens));
            }
            tokens == 0
        });
        begun.sort_by_key(|&slot| self.live(slot).request.id);
        self.begun = begun;
        while budget > 0
            && let Some(&head) = self.queue.front()
            && self.admits(head, self.decoding as usize + self.chunks.len())
        {
            let tokens = self.live(head).target.min(budget);
            budget -= tokens;
            self.admit(head, tokens);
        }
        self.decoding
    }

    /// A request is done; it holds the blocks of all its tokens but the last.
    fn finish(&mut self, slot: u32) {
        if self.live(slot).decoding {
            self.leave(slot);
        }
        self.free += self.limits.blocks_of(self.live(slot).processed - 1);
        self.held -= 1;
        self.completed.finished.push(self.live(slot).request.id);
        self.vacant.push(slot);
    }

    fn finish_those_that_end(&mut self, ended: &[RequestId]) {
        while let Some(&Reverse((end, request, slot))) = self.ends.peek()
            && end <= self.steps
        {
            self.ends.pop();
            let live = self.live(slot);
            if live.decoding && live.end == end && live.request.id == request {
                self.finish(slot);
            }
        }
        if ended.is_empty() {
            return;
        }
        let mut slot = self.first;
        while slot != NONE {
            let after = self.live(slot).after;
            if ended.contains(&self.live(slot).request.id) {
                self.finish(slot);
            }
            slot = after;
        }
    }
}

impl Policy for Lockstep {
    fn submit(&mut self, request: Request, _prompt: &[u64]) -> Result<(), ServingError> {
        self.limits.admissible(&request, &self.resources)?;
        let live = Live {
            request,
            target: request.prompt_tokens,
            processed: 0,
            decoding: false,
            yielded: false,
            joined: 0,
            end: 0,
            before: NONE,
            after: NONE,
        };
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.slots[slot as usize] = live;
                slot
            }
            None => {
                self.slots.push(live);
                self.slots.len() as u32 - 1
            }
        };
        self.queue.push_back(slot);
        Ok(())
    }

    fn fullness(&self) -> Option<Fullness> {
        let (waiting, running) = (self.queue.len() as u32, self.held as u32);
        Some(Fullness { waiting, running, held_blocks: self.limits.blocks - self.free })
    }

    fn next_batch(&mut self, _now: SimTime) -> Option<Batch> {
        if self.out {
            return None;
        }
        let decodes = match self.limits.rule {
            Rule::Vllm => self.prefills_or_decodes(),
            Rule::Sarathi => self.decodes_and_chunks(),
        };
        if decodes == 0 && self.chunks.is_empty() {
            return None;
        }
        let mut prefills = std::mem::take(&mut self.spare);
        let mut sequences = decodes;
        for &(slot, tokens) in &self.chunks {
            let live = self.live(slot);
            prefills.push((tokens, live.processed));
            sequences += u32::from(live.processed + tokens == live.target);
        }
        let decode_context = if decodes > 0 { self.tokens as f64 / f64::from(decodes) } else { 0.0 };
        let shape = StepShape { prefills, decodes, decode_context, sequences };
        let number = self.formed;
        self.formed += 1;
        self.out = true;
        Some(Batch { number, items: Vec::new(), shape, preempted: std::mem::take(&mut self.restarted) })
    }

    fn complete(&mut self, batch: Batch, ended: &[RequestId], _now: SimTime) -> Completed {
        self.out = false;
        if batch.shape.decodes > 0 {
            self.steps += 1;
            self.phase = (self.phase + 1) % self.needing.len();
            self.tokens += u64::from(self.decoding);
            self.finish_those_that_end(ended);
        }
        let mut chunks = std::mem::take(&mut self.chunks);
        for (slot, tokens) in chunks.drain(..) {
            let live = self.live_mut(slot);
            live.processed += tokens;
            if live.processed < live.target {
                self.begun_last.push(slot);
                continue;
            }
            live.processed += 1;
            let request = live.request;
            let done = live.processed == request.prompt_tokens + request.output_tokens;
            if !std::mem::replace(&mut live.yielded, true) {
                self.completed.tokens.push(Yield { request: request.id, ordinal: 1 });
            }
            if done || ended.contains(&request.id) {
                self.finish(slot);
            } else {
                self.join(slot);
            }
        }
        self.chunks = chunks;
        self.spare = batch.shape.prefills;
        self.spare.clear();
        std::mem::take(&mut self.completed)
    }

    fn reuse(&mut self, mut completed: Completed) {
        completed.tokens.clear();
        completed.finished.clear();
        self.completed = completed;
    }
}
