//! Cache that is copied: to host memory and back, and from where a prompt was prefilled.
//!
//! A copy takes time, so each has two ends. [`Scheduler::moves`] says which begin; the caller copies and says when one is
//! over with [`Scheduler::moved`]. Until then a block that is read or written by a copy belongs to its request and to
//! nobody else: blocks that are copied out are free only when the copy is done.

use super::live::Live;
use super::{Request, Scheduler, ServingError, blocks_for};
use crate::ids::RequestId;
use crate::units::SimTime;
use crate::workload::Serving;
use std::collections::BTreeMap;

/// Where cache goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To the memory of the device's host.
    Out,
    /// Back from there.
    Back,
    /// From where the prompt was prefilled.
    Over,
}

/// A copy that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Whose cache it is.
    pub request: RequestId,
    /// Where it goes.
    pub way: Way,
    /// Whole blocks of it, `kv_block_tokens` tokens each.
    pub blocks: u32,
}

/// Host memory for cache.
#[derive(Debug, Clone, Default)]
pub(super) struct Host {
    total: u32,
    used: u32,
    /// Blocks of the device that are copied out.
    leaving: u32,
    begun: Vec<Move>,
}

impl Host {
    /// Blocks that are on their way out and come free.
    pub(super) const fn leaving(&self) -> u32 {
        self.leaving
    }

    /// A preempted request keeps its tokens, where host memory has room for them. False where it has not.
    pub(super) fn put_out(&mut self, live: &mut Live, serving: &Serving) -> bool {
        let blocks = u32::try_from(blocks_for(live.cached.into(), serving)).unwrap_or(u32::MAX);
        if blocks == 0 || blocks > self.total - self.used {
            return false;
        }
        self.used += blocks;
        self.leaving += u32::try_from(live.blocks.len()).unwrap_or(u32::MAX);
        live.on_host = blocks;
        live.moving = true;
        self.begun.push(Move { request: live.request.id, way: Way::Out, blocks });
        true
    }

    /// The host's memory no longer holds tokens of this request.
    pub(super) fn forget(&mut self, live: &mut Live) {
        self.used -= std::mem::take(&mut live.on_host);
    }

    /// The tokens of a request that was admitted come to its blocks.
    pub(super) fn bring(&mut self, live: &mut Live, serving: &Serving) {
        let (way, blocks) = match live.on_host {
            0 => (Way::Over, u32::try_from(blocks_for(live.cached.into(), serving)).unwrap_or(u32::MAX)),
            blocks => (Way::Back, blocks),
        };
        live.moving = true;
        live.in_flight += 1;
        self.begun.push(Move { request: live.request.id, way, blocks });
    }
}

/// Cache of requests that are done here, until it was fetched.
#[derive(Debug, Clone, Default)]
pub(super) struct Keep(BTreeMap<RequestId, Vec<u32>>);

impl Keep {
    pub(super) fn hold(&mut self, request: RequestId, blocks: Vec<u32>) {
        self.0.insert(request, blocks);
    }

    /// Blocks that are held.
    pub(super) fn blocks(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

impl Scheduler {
    /// The same scheduler where host memory holds so many blocks of preempted requests: they are swapped out and in as
    /// long as that suffices, and computed again beyond. The caller must then ask for [`moves`](Self::moves).
    #[must_use]
    pub fn with_host(mut self, blocks: u32) -> Self {
        self.host.total = blocks;
        self
    }

    /// Takes a request in of which only the prompt is computed here: when it is done, its blocks stay its own until
    /// [`release`](Self::release). Errors: as [`submit`](Self::submit).
    pub fn submit_kept(&mut self, request: Request) -> Result<(), ServingError> {
        self.check(&request)?;
        self.waiting.push_back(Live { kept: true, ..Live::new(request) });
        Ok(())
    }

    /// Takes a request in whose prompt was prefilled elsewhere, so that it has its first token already. When it is
    /// admitted, a move of way [`Way::Over`] begins. Errors: as [`submit`](Self::submit); it wants no second token.
    pub fn submit_prefilled(&mut self, request: Request) -> Result<(), ServingError> {
        if request.output_tokens < 2 {
            return Err(ServingError::Zero("the number of output tokens after the first"));
        }
        self.check(&request)?;
        let prompt = request.prompt_tokens;
        self.waiting.push_back(Live { produced: 1, issued: prompt, cached: prompt, ..Live::new(request) });
        Ok(())
    }

    /// Gives back the cache of a request that is done here and was fetched. Whether there was any.
    pub fn release(&mut self, request: RequestId) -> bool {
        let blocks = self.keep.0.remove(&request);
        let found = blocks.is_some();
        self.ledger.give_back(blocks.unwrap_or_default());
        found
    }

    /// The copies that begin now. Ask after each [`next_batch`](Self::next_batch), also where it formed none.
    pub fn moves(&mut self) -> Vec<Move> {
        std::mem::take(&mut self.host.begun)
    }

    /// A copy is over. A request that nothing is copied for is left as it is.
    ///
    /// # Panics
    /// If `now` is earlier than in an earlier call.
    pub fn moved(&mut self, request: RequestId, now: SimTime) {
        self.tick(now);
        if let Some(position) = self.find(request) {
            let live = &mut self.running[position];
            if std::mem::replace(&mut live.moving, false) {
                live.in_flight -= 1;
                self.host.forget(live);
                if live.cancelled && live.leave_if_back(&mut self.ledger) {
                    self.running.remove(position);
                }
            }
            return;
        }
        // Those that were put out last are at the head.
        if let Some(place) = self.waiting.iter().position(|live| live.request.id == request && live.moving) {
            let live = &mut self.waiting[place];
            live.moving = false;
            let blocks = std::mem::take(&mut live.blocks);
            self.host.leaving -= u32::try_from(blocks.len()).unwrap_or(u32::MAX);
            self.ledger.give_back(blocks);
            if live.cancelled {
                self.host.forget(live);
                self.waiting.remove(place);
            }
        }
    }

    /// Blocks of host memory that hold tokens of preempted requests.
    #[must_use]
    pub const fn host_blocks_used(&self) -> u32 {
        self.host.used
    }

    /// Blocks of requests that are done here and whose cache was not fetched yet.
    #[must_use]
    pub fn kept_blocks(&self) -> usize {
        self.keep.blocks()
    }
}

#[cfg(test)]
mod tests;
