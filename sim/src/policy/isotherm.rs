//! The policy `isotherm`: core's scheduler, which the runtime drives too.

use super::{Fullness, Policy};
use isotherm_core::ids::RequestId;
use isotherm_core::serving::{Batch, Completed, Move, Request, Resources, Scheduler, ServingError};
use isotherm_core::units::SimTime;

/// Core's scheduler as a policy, and the blocks that it has. It caches no prompt for another request.
#[derive(Debug)]
pub struct Isotherm(Scheduler, u32);

impl Isotherm {
    /// A scheduler without requests. Errors: a limit is zero.
    pub fn new(resources: Resources) -> Result<Self, ServingError> {
        let host = resources.serving.kv_swap_blocks.unwrap_or(0);
        Ok(Self(Scheduler::new(resources)?.with_host(host), resources.kv_blocks))
    }
}

impl Policy for Isotherm {
    fn submit(&mut self, request: Request, _prompt: &[u64]) -> Result<(), ServingError> {
        self.0.submit(request)
    }

    fn fullness(&self) -> Option<Fullness> {
        let held = (self.1 as usize).saturating_sub(self.0.free_blocks());
        let (waiting, running) = (self.0.waiting() as u32, self.0.running() as u32);
        Some(Fullness { waiting, running, held_blocks: held as u32 })
    }

    fn next_batch(&mut self, now: SimTime) -> Option<Batch> {
        self.0.next_batch(now)
    }

    fn complete(&mut self, batch: Batch, ended: &[RequestId], now: SimTime) -> Completed {
        self.0.complete(batch, ended, now)
    }

    fn submit_kept(&mut self, request: Request, _prompt: &[u64]) -> Result<(), ServingError> {
        self.0.submit_kept(request)
    }

    fn submit_prefilled(&mut self, request: Request) -> Result<(), ServingError> {
        self.0.submit_prefilled(request)
    }

    fn withdraw(&mut self, request: RequestId, now: SimTime) {
        self.0.cancel(request);
        // Nobody waits for a copy that was given up.
        self.0.moved(request, now);
    }

    fn release(&mut self, request: RequestId) {
        self.0.release(request);
    }

    fn moves(&mut self) -> Vec<Move> {
        self.0.moves()
    }

    fn moved(&mut self, request: RequestId, now: SimTime) {
        self.0.moved(request, now);
    }

    fn reuse(&mut self, completed: Completed) {
        self.0.reuse(completed);
    }
}
