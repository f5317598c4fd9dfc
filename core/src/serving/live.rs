//! Requests under way and the blocks that they hold.

use super::Request;

/// Blocks of the key-value cache: which are free.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    /// Blocks that came back; the last one goes out first.
    returned: Vec<u32>,
    /// Blocks never given out are `fresh..total`.
    fresh: u32,
    total: u32,
}

impl Ledger {
    /// All of them are free.
    pub(super) const fn new(total: u32) -> Self {
        Self { returned: Vec::new(), fresh: 0, total }
    }

    pub(super) fn free(&self) -> usize {
        (self.total - self.fresh) as usize + self.returned.len()
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        if let Some(block) = self.returned.pop() {
            return Some(block);
        }
        let block = self.fresh;
        (block < self.total).then(|| self.fresh += 1).map(|()| block)
    }

    pub(super) fn give_back(&mut self, blocks: Vec<u32>) {
        self.returned.extend(blocks.into_iter().rev());
    }
}

/// A request that was submitted and is not done.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) request: Request,
    /// Tokens produced.
    pub(super) produced: u32,
    /// Tokens to prefill before the next token comes: the prompt, or all tokens so far after a preemption.
    pub(super) target: u32,
    /// Tokens whose work was handed out; equal to `cached` when nothing is in flight.
    pub(super) issued: u32,
    /// Tokens in the cache, or in the host's memory, or wherever the prompt was prefilled.
    pub(super) cached: u32,
    /// Batches in flight that hold it, and one where its cache is on its way in.
    pub(super) in_flight: u32,
    /// Whether it was cancelled while in flight or copied: it leaves with the last batch or copy that holds it.
    pub(super) cancelled: bool,
    /// Whether it has ended and is about to leave.
    pub(super) done: bool,
    /// Whether its cache is on its way, in or out.
    pub(super) moving: bool,
    /// Whether its cache is to be kept when it is done.
    pub(super) kept: bool,
    /// Blocks of host memory that hold its tokens.
    pub(super) on_host: u32,
    /// Its blocks, in order of position.
    pub(super) blocks: Vec<u32>,
}

impl Live {
    pub(super) const fn new(request: Request) -> Self {
        Self {
            request,
            produced: 0,
            target: request.prompt_tokens,
            issued: 0,
            cached: 0,
            in_flight: 0,
            cancelled: false,
            done: false,
            moving: false,
            kept: false,
            on_host: 0,
            blocks: Vec::new(),
        }
    }

    /// Whether all of its prefill was handed out.
    pub(super) const fn decodes(&self) -> bool {
        self.issued >= self.target
    }
}
