//! The policy `isotherm`: core's scheduler, which the runtime drives too.

use super::Policy;
use isotherm_core::ids::RequestId;
use isotherm_core::serving::{Batch, Completed, Request, Resources, Scheduler, ServingError};
use isotherm_core::units::SimTime;

/// Core's scheduler as a policy. It caches no prompt for another request.
#[derive(Debug)]
pub struct Isotherm(Scheduler);

impl Isotherm {
    /// A scheduler without requests. Errors: a limit is zero.
    pub fn new(resources: Resources) -> Result<Self, ServingError> {
        Scheduler::new(resources).map(Self)
    }
}

impl Policy for Isotherm {
    fn submit(&mut self, request: Request, _prompt: &[u64]) -> Result<(), ServingError> {
        self.0.submit(request)
    }

    fn next_batch(&mut self, now: SimTime) -> Option<Batch> {
        self.0.next_batch(now)
    }

    fn complete(&mut self, batch: Batch, ended: &[RequestId], now: SimTime) -> Completed {
        self.0.complete(batch, ended, now)
    }

    fn reuse(&mut self, completed: Completed) {
        self.0.reuse(completed);
    }
}
