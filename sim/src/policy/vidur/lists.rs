//! Both policies by their lists, for any number of stages.

use super::{Limits, Rule};
use crate::policy::{Fullness, Policy};
use isotherm_core::cost::StepShape;
use isotherm_core::ids::RequestId;
use isotherm_core::serving::{Batch, Completed, Item, Request, Resources, ServingError, Work, Yield};
use isotherm_core::units::SimTime;
use std::collections::VecDeque;

/// A request that was submitted and is not done.
#[derive(Debug)]
struct Live {
    request: Request,
    /// Tokens to prefill: the prompt, or all tokens so far after a restart.
    target: u32,
    /// Tokens so far, counting the one that the end of the prefill yields.
    processed: u32,
    /// Blocks that it holds; none before it is admitted.
    blocks: u32,
    /// Tokens that it has yielded.
    produced: u32,
}

impl Live {
    /// Whether its prefill is done.
    fn decodes(&self) -> bool {
        self.processed > self.target
    }

    fn total(&self) -> u32 {
        self.request.prompt_tokens + self.request.output_tokens
    }
}

/// A policy of Vidur on a route of any number of stages. See the [module](super).
#[derive(Debug)]
pub struct Lists {
    limits: Limits,
    resources: Resources,
    free: u32,
    /// Requests that hold blocks.
    held: usize,
    /// Not admitted, or restarted.
    queue: VecDeque<Live>,
    /// Admitted and in no batch.
    idle: VecDeque<Live>,
    /// Batches that are out, and the tokens of each of their requests.
    flights: VecDeque<Vec<(Live, u32)>>,
    formed: u64,
    restarted: Vec<RequestId>,
}

impl Lists {
    /// A policy without requests. Errors: a limit is zero.
    pub fn new(rule: Rule, resources: Resources) -> Result<Self, ServingError> {
        let limits = Limits::new(rule, &resources)?;
        Ok(Self {
            limits,
            resources,
            free: limits.blocks,
            held: 0,
            queue: VecDeque::new(),
            idle: VecDeque::new(),
            flights: VecDeque::new(),
            formed: 0,
            restarted: Vec::new(),
        })
    }

    fn restart(&mut self, mut live: Live) {
        self.free += live.blocks;
        self.held -= 1;
        self.restarted.push(live.request.id);
        live.target = live.processed;
        live.processed = 0;
        live.blocks = 0;
        self.queue.push_front(live);
    }

    /// Gives a decoding request its block for the next token, at the cost of those behind it; none where it had to
    /// give up its own.
    fn with_room(&mut self, mut live: Live) -> Option<Live> {
        while self.free == 0 {
            match self.idle.pop_back() {
                Some(victim) => self.restart(victim),
                None => {
                    self.restart(live);
                    return None;
                }
            }
        }
        if live.processed > live.blocks * self.limits.block {
            live.blocks += 1;
            self.free -= 1;
        }
        Some(live)
    }

    /// Whether the head of the queue may have the blocks of its prompt, in a batch of so many requests.
    fn admits(&self, head: &Live, batch: usize) -> bool {
        let needed = self.limits.blocks_of(head.target);
        self.held < self.limits.held_max
            && batch < self.limits.batch_max
            && u64::from(self.free) >= u64::from(needed) + u64::from(self.limits.watermark)
    }

    fn admit(&mut self) -> Option<Live> {
        let mut live = self.queue.pop_front()?;
        live.blocks = self.limits.blocks_of(live.target);
        self.free -= live.blocks;
        self.held += 1;
        Some(live)
    }

    fn prefills_or_decodes(&mut self) -> Vec<(Live, u32)> {
        let mut chosen: Vec<(Live, u32)> = Vec::new();
        let mut longest = 0;
        while let Some(head) = self.queue.front() {
            let (tokens, count) = (head.target, chosen.len() as u64 + 1);
            let padded = count * u64::from(tokens.max(longest));
            if !self.admits(head, chosen.len()) || padded > self.limits.step.into() {
                break;
            }
            longest = longest.max(tokens);
            chosen.extend(self.admit().map(|live| (live, tokens)));
        }
        if !chosen.is_empty() {
            return chosen;
        }
        self.idle.make_contiguous().sort_by_key(|live| live.request.id);
        while chosen.len() < self.limits.batch_max
            && let Some(live) = self.idle.pop_front()
        {
            chosen.extend(self.with_room(live).map(|live| (live, 1)));
        }
        chosen
    }

    fn decodes_and_chunks(&mut self) -> Vec<(Live, u32)> {
        let mut chosen: Vec<(Live, u32)> = Vec::new();
        let mut begun = Vec::new();
        while chosen.len() < self.limits.batch_max
            && let Some(live) = self.idle.pop_front()
        {
            if live.decodes() {
                chosen.extend(self.with_room(live).map(|live| (live, 1)));
            } else {
                begun.push(live);
            }
        }
        let mut budget = self.limits.step.saturating_sub(chosen.len() as u32);
        for live in begun {
            let tokens = (live.target - live.processed).min(budget);
            if tokens == 0 {
                self.idle.push_back(live);
            } else {
                budget -= tokens;
                chosen.push((live, tokens));
            }
        }
        self.idle.make_contiguous().sort_by_key(|live| live.request.id);
        while budget > 0
            && let Some(head) = self.queue.front()
            && self.admits(head, chosen.len())
        {
            let tokens = head.target.min(budget);
            budget -= tokens;
            chosen.extend(self.admit().map(|live| (live, tokens)));
        }
        chosen
    }
}

impl Policy for Lists {
    fn submit(&mut self, request: Request, _prompt: &[u64]) -> Result<(), ServingError> {
        self.limits.admissible(&request, &self.resources)?;
        self.queue.push_back(Live { request, target: request.prompt_tokens, processed: 0, blocks: 0, produced: 0 });
        Ok(())
    }

    fn fullness(&self) -> Option<Fullness> {
        let (waiting, running) = (self.queue.len() as u32, self.held as u32);
        Some(Fullness { waiting, running, held_blocks: self.limits.blocks - self.free })
    }

    fn next_batch(&mut self, _now: SimTime) -> Option<Batch> {
        if self.flights.len() == self.limits.flights_max {
            return None;
        }
        let chosen = match self.limits.rule {
            Rule::Vllm => self.prefills_or_decodes(),
            Rule::Sarathi => self.decodes_and_chunks(),
        };
        if chosen.is_empty() {
            return None;
        }
        let mut shape = StepShape::default();
        let mut context = 0;
        let mut items = Vec::with_capacity(chosen.len());
        for (live, tokens) in &chosen {
            let (start, tokens) = (live.processed, *tokens);
            let work = if live.decodes() {
                Work::Decode { start }
            } else {
                Work::Prefill { start, tokens, last: start + tokens == live.target }
            };
            items.push(Item { request: live.request.id, work });
            if live.decodes() {
                shape.decodes += 1;
                context += u64::from(live.processed);
                shape.sequences += 1;
            } else {
                shape.prefills.push((tokens, live.processed));
                shape.sequences += u32::from(live.processed + tokens == live.target);
            }
        }
        if shape.decodes > 0 {
            shape.decode_context = context as f64 / f64::from(shape.decodes);
        }
        self.flights.push_back(chosen);
        let number = self.formed;
        self.formed += 1;
        Some(Batch { number, items, shape, preempted: std::mem::take(&mut self.restarted) })
    }

    fn complete(&mut self, _batch: Batch, ended: &[RequestId], _now: SimTime) -> Completed {
        let mut completed = Completed::default();
        for (mut live, tokens) in self.flights.pop_front().unwrap_or_default() {
            let request = live.request.id;
            let prefilled = !live.decodes();
            live.processed += tokens;
            if prefilled && live.processed == live.target {
                live.processed += 1;
            }
            if live.decodes() {
                live.produced += 1;
                completed.tokens.push(Yield { request, ordinal: live.produced });
            }
            if live.processed == live.total() || (live.decodes() && ended.contains(&request)) {
                self.free += live.blocks;
                self.held -= 1;
                completed.finished.push(request);
            } else {
                self.idle.push_back(live);
            }
        }
        completed
    }
}
