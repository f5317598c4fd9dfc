//! The policy `splitwise`: that of one mixed instance of SplitwiseSim (Patel et al., ISCA 2024; Mutinifni/splitwise-sim,
//! MIT), request by request.
//!
//! A request is two tasks, its prompt and the rest of its answer; the second can run once the first has. A batch is
//! chosen anew whenever one ends, within `requests_max` tasks and `step_tokens_max` tokens, of which a prompt counts
//! all of its own (none is divided) and an answer one. The first task enters whatever it counts. In this order:
//!
//! 1. tasks that were passed over at least `PASSES_MAX` times, from the head of the list of those that wait;
//! 2. prompts, first come, first served;
//! 3. answers that were put out of a batch;
//! 4. answers of the batch before;
//! 5. whatever else waits, by arrival.
//!
//! Each of these stops at the first that does not fit. An answer of the batch before that is not chosen is put out; it
//! keeps its cache. Whoever waits when a batch begins was passed over once more.
//!
//! A batch with a prompt takes one step. A batch of answers goes on unchanged until the first of them ends, or, where an
//! arrival finds room beside the batch, until the step that is under way ends. Room is judged by the batch as it was
//! chosen: a place and the tokens of its prompt, or those tokens beside the batch's prompts alone, or a place and one
//! token, for its answer.
//!
//! A prompt takes the cache of its tokens and one more, an answer that of its tokens but the first when it begins; all is
//! given back when the request is done. Blocks are whole here; with blocks of one token the cache is exactly that of
//! SplitwiseSim.

use super::{Fullness, Policy};
use isotherm_core::cost::StepShape;
use isotherm_core::ids::RequestId;
use isotherm_core::serving::{Batch, Completed, Item, Request, Resources, ServingError, Work, Yield, blocks_for};
use isotherm_core::units::SimTime;
use std::collections::VecDeque;

/// Passes after which a task goes first.
const PASSES_MAX: u32 = 4;

/// Half of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Prompt,
    Answer,
}

/// A task of the request in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Task {
    slot: u32,
    kind: Kind,
}

#[derive(Debug)]
struct Live {
    request: Request,
    /// Tokens produced.
    produced: u32,
    /// How often its tasks were passed over.
    passes: [u32; 2],
    /// Whether its answer has its cache.
    begun: bool,
    /// Blocks that it holds.
    blocks: u64,
    /// Whether the batch under choice has a task of it.
    chosen: bool,
}

impl Live {
    fn next(&self) -> Kind {
        if self.produced == 0 { Kind::Prompt } else { Kind::Answer }
    }
}

/// The policy. See the [module](self) for what it does.
#[derive(Debug)]
pub struct Splitwise {
    resources: Resources,
    /// Whether batches name their requests.
    whole: bool,
    slots: Vec<Live>,
    vacant: Vec<u32>,
    free: u64,
    /// Requests that are not done, by arrival.
    pool: Vec<u32>,
    /// Tasks that wait, by passes when they came and arrival.
    pending: Vec<Task>,
    prompts: VecDeque<u32>,
    /// Answers that were put out of a batch.
    put_out: Vec<u32>,
    batch: Vec<Task>,
    batch_tokens: u64,
    /// Steps that the batch has left; none while it is over.
    left: u32,
    /// Whether it ends with the step under way.
    cut: bool,
    out: bool,
    formed: u64,
    completed: Completed,
}

/// A batch under choice.
struct Choice {
    tasks: Vec<Task>,
    tokens: u64,
    free: u64,
}

impl Splitwise {
    /// A policy without requests. `whole` makes its batches name their requests. Errors: a limit is zero.
    pub fn new(resources: Resources, whole: bool) -> Result<Self, ServingError> {
        resources.check()?;
        Ok(Self {
            resources,
            whole,
            slots: Vec::new(),
            vacant: Vec::new(),
            free: resources.kv_blocks.into(),
            pool: Vec::new(),
            pending: Vec::new(),
            prompts: VecDeque::new(),
            put_out: Vec::new(),
            batch: Vec::new(),
            batch_tokens: 0,
            left: 0,
            cut: false,
            out: false,
            formed: 0,
            completed: Completed::default(),
        })
    }

    fn live(&self, slot: u32) -> &Live {
        &self.slots[slot as usize]
    }

    fn live_mut(&mut self, slot: u32) -> &mut Live {
        &mut self.slots[slot as usize]
    }

    fn tokens(&self, task: Task) -> u64 {
        match task.kind {
            Kind::Prompt => self.live(task.slot).request.prompt_tokens.into(),
            Kind::Answer => 1,
        }
    }

    /// Blocks that a task takes when it begins; none where it has them.
    fn blocks(&self, task: Task) -> u64 {
        let live = self.live(task.slot);
        let tokens = match task.kind {
            Kind::Prompt => u64::from(live.request.prompt_tokens) + 1,
            Kind::Answer if live.begun => 0,
            Kind::Answer => u64::from(live.request.output_tokens) - 1,
        };
        blocks_for(tokens, &self.resources.serving)
    }

    /// Puts a task among those that wait: behind those with no more passes and no later arrival. Passes grow while
    /// tasks wait, so the list need not be in order; the place is where a binary search ends.
    fn wait(&mut self, task: Task) {
        let key = |task: &Task| (self.live(task.slot).passes[task.kind as usize], self.live(task.slot).request.id);
        let mine = key(&task);
        let place = self.pending.partition_point(|other| key(other) <= mine);
        self.pending.insert(place, task);
    }

    /// Whether a task fits beside those chosen so far by places and tokens.
    fn fits(&self, choice: &Choice, task: Task) -> bool {
        choice.tasks.is_empty() || choice.tokens + self.tokens(task) <= self.resources.serving.step_tokens_max.into()
    }

    fn choose(&mut self, choice: &mut Choice, task: Task) {
        choice.tokens += self.tokens(task);
        choice.free -= self.blocks(task);
        choice.tasks.push(task);
        self.live_mut(task.slot).chosen = true;
    }

    fn select(&mut self) {
        let mut choice = Choice { tasks: Vec::new(), tokens: 0, free: self.free };
        let most = self.resources.serving.requests_max as usize;
        for i in 0..self.pending.len() {
            let task = self.pending[i];
            let passed = self.live(task.slot).passes[task.kind as usize];
            if passed < PASSES_MAX || choice.tasks.len() == most || !self.fits(&choice, task) {
                break;
            }
            if !self.live(task.slot).chosen && self.blocks(task) <= choice.free {
                self.choose(&mut choice, task);
            }
        }
        let prompts = std::mem::take(&mut self.prompts);
        self.choose_all(&mut choice, prompts.iter().map(|&slot| Task { slot, kind: Kind::Prompt }));
        self.prompts = prompts;
        let put_out = std::mem::take(&mut self.put_out);
        self.choose_all(&mut choice, put_out.iter().map(|&slot| Task { slot, kind: Kind::Answer }));
        self.put_out = put_out;
        let before = std::mem::take(&mut self.batch);
        self.choose_all(&mut choice, before.iter().copied());
        let pool = std::mem::take(&mut self.pool);
        for &slot in &pool {
            let task = Task { slot, kind: self.live(slot).next() };
            if choice.tasks.len() == most {
                break;
            }
            if self.live(slot).chosen {
                continue;
            }
            if !self.fits(&choice, task) || self.blocks(task) > choice.free {
                break;
            }
            self.choose(&mut choice, task);
        }
        self.pool = pool;
        self.begin(choice, before);
    }

    /// Takes tasks in order up to the first that does not fit.
    fn choose_all(&mut self, choice: &mut Choice, tasks: impl Iterator<Item = Task>) {
        for task in tasks {
            if choice.tasks.len() == self.resources.serving.requests_max as usize || !self.fits(choice, task) {
                break;
            }
            if self.live(task.slot).chosen {
                continue;
            }
            if self.blocks(task) > choice.free {
                break;
            }
            self.choose(choice, task);
        }
    }

    /// Makes the chosen tasks the batch.
    fn begin(&mut self, choice: Choice, before: Vec<Task>) {
        self.batch_tokens = choice.tokens;
        let (kept, lost): (Vec<Task>, Vec<Task>) = before.into_iter().partition(|task| self.live(task.slot).chosen);
        for task in lost {
            self.wait(task);
            self.put_out.push(task.slot);
        }
        let new: Vec<Task> = choice.tasks.into_iter().filter(|task| !kept.contains(task)).collect();
        self.batch = kept;
        for task in new {
            self.pending.retain(|other| *other != task);
            match task.kind {
                Kind::Prompt => self.prompts.retain(|&slot| slot != task.slot),
                Kind::Answer => self.put_out.retain(|&slot| slot != task.slot),
            }
            let blocks = self.blocks(task);
            self.free -= blocks;
            let live = self.live_mut(task.slot);
            live.blocks += blocks;
            live.begun |= task.kind == Kind::Answer;
            self.batch.push(task);
        }
        for i in 0..self.pool.len() {
            let slot = self.pool[i];
            let live = self.live_mut(slot);
            let kind = live.next() as usize;
            if !std::mem::replace(&mut live.chosen, false) {
                live.passes[kind] += 1;
            }
        }
        let left = |task: &Task| match task.kind {
            Kind::Prompt => 1,
            Kind::Answer => self.live(task.slot).request.output_tokens - self.live(task.slot).produced,
        };
        let with_prompt = self.batch.iter().any(|task| task.kind == Kind::Prompt);
        self.left = if with_prompt { 1 } else { self.batch.iter().map(left).min().unwrap_or(0) };
        self.cut = false;
    }

    /// Whether an arrival ends the batch with its present step.
    fn finds_room(&self, prompt_tokens: u32) -> bool {
        let most: u64 = self.resources.serving.step_tokens_max.into();
        let place = self.batch.len() < self.resources.serving.requests_max as usize;
        let answers = self.batch.iter().filter(|task| task.kind == Kind::Answer).count();
        let beside_prompts = self.batch_tokens - answers as u64 + u64::from(prompt_tokens) <= most;
        (place && self.batch_tokens < most) || (answers > 0 && beside_prompts)
    }

    fn finish(&mut self, slot: u32) {
        self.free += self.live(slot).blocks;
        self.pool.retain(|&other| other != slot);
        self.pending.retain(|task| task.slot != slot);
        self.completed.finished.push(self.live(slot).request.id);
        self.vacant.push(slot);
    }
}

impl Policy for Splitwise {
    fn submit(&mut self, request: Request, _prompt: &[u64]) -> Result<(), ServingError> {
        request.check()?;
        let of = |tokens: u64| blocks_for(tokens, &self.resources.serving);
        let tokens = u64::from(request.prompt_tokens) + u64::from(request.output_tokens);
        let needed = of(u64::from(request.prompt_tokens) + 1) + of(u64::from(request.output_tokens) - 1);
        if needed > self.resources.kv_blocks.into() {
            let blocks = self.resources.kv_blocks;
            return Err(ServingError::TooLong { request: request.id.0, tokens, needed, blocks });
        }
        let live = Live { request, produced: 0, passes: [0; 2], begun: false, blocks: 0, chosen: false };
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
        self.pool.push(slot);
        self.prompts.push_back(slot);
        for kind in [Kind::Prompt, Kind::Answer] {
            self.wait(Task { slot, kind });
        }
        if self.out && self.left > 0 && self.finds_room(request.prompt_tokens) {
            self.cut = true;
        }
        Ok(())
    }

    fn fullness(&self) -> Option<Fullness> {
        let held = u64::from(self.resources.kv_blocks) - self.free;
        let waiting = self.prompts.len() as u32;
        Some(Fullness { waiting, running: self.pool.len() as u32 - waiting, held_blocks: held as u32 })
    }

    fn next_batch(&mut self, _now: SimTime) -> Option<Batch> {
        if self.out {
            return None;
        }
        if self.left == 0 || self.cut {
            self.select();
        }
        if self.batch.is_empty() {
            return None;
        }
        let mut shape = StepShape::default();
        let mut context = 0;
        let mut items = Vec::new();
        for task in &self.batch {
            let live = self.live(task.slot);
            if self.whole {
                let (prompt, produced) = (live.request.prompt_tokens, live.produced);
                let work = match task.kind {
                    Kind::Prompt => Work::Prefill { start: 0, tokens: prompt, last: true },
                    Kind::Answer => Work::Decode { start: prompt + produced },
                };
                items.push(Item { request: live.request.id, work });
            }
            match task.kind {
                Kind::Prompt => shape.prefills.push((live.request.prompt_tokens, 0)),
                Kind::Answer => {
                    shape.decodes += 1;
                    context += u64::from(live.request.prompt_tokens) + u64::from(live.produced);
                }
            }
        }
        shape.sequences = self.batch.len() as u32;
        if shape.decodes > 0 {
            shape.decode_context = context as f64 / f64::from(shape.decodes);
        }
        self.out = true;
        self.formed += 1;
        Some(Batch { number: self.formed - 1, items, shape, preempted: Vec::new() })
    }

    fn complete(&mut self, _batch: Batch, ended: &[RequestId], _now: SimTime) -> Completed {
        self.out = false;
        self.left = self.left.saturating_sub(1);
        let mut batch = std::mem::take(&mut self.batch);
        batch.retain(|&Task { slot, kind }| {
            let live = self.live_mut(slot);
            live.produced += 1;
            let (request, ordinal) = (live.request.id, live.produced);
            let done = ordinal == live.request.output_tokens || ended.contains(&request);
            self.completed.tokens.push(Yield { request, ordinal });
            if done {
                self.finish(slot);
                // The batch is chosen anew when one of its tasks is over.
                self.left = 0;
            }
            !done && kind == Kind::Answer
        });
        self.batch = batch;
        std::mem::take(&mut self.completed)
    }

    fn reuse(&mut self, mut completed: Completed) {
        completed.tokens.clear();
        completed.finished.clear();
        self.completed = completed;
    }
}
