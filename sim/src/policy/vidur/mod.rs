//! The policies `vidur-vllm` and `vidur-sarathi`: those of the simulator Vidur (Agrawal et al., MLSys 2024;
//! microsoft/vidur, MIT), request by request.
//!
//! Common to both:
//!
//! * A route of `s` stages has at most `s` batches in flight, each of at most `requests_max / s` requests. At most
//!   `requests_max` requests hold cache.
//! * A new request takes the blocks of its whole prompt, if after that the watermark's share of all blocks is still
//!   free. A step of decoding takes a block where the tokens so far no longer fit, and is allowed only while at least
//!   one block is free, whether it needs one or not.
//! * Where none is free, the last request of the list of those that run and are not looked at yet gives up its blocks
//!   and goes to the head of the queue; all its tokens so far are then its prompt. Where there is no such request, the
//!   one that asks does so itself. One that restarts in the middle of its prompt takes the tokens so far for the whole
//!   prompt and counts the others to its answer; that is how Vidur has it.
//! * The step that completes a prompt yields a token.
//!
//! `vidur-vllm`: a step prefills or decodes. New requests come first, whole prompts in order of arrival, while the
//! number of prompts times the longest of them is at most `step_tokens_max` (they are padded). Only a step without new
//! requests decodes: all that run, in order of arrival, one token each.
//!
//! `vidur-sarathi` (Agrawal et al., OSDI 2024): a step decodes all that run, one token each; what then is left of
//! `step_tokens_max` goes to prompts that were begun, then to new requests, in chunks.
//!
//! Identifiers stand for times of arrival, so requests of one moment are in the order in which they came.
//!
//! [`Lists`] is written down as above and serves any number of stages; [`Lockstep`] does the same on one stage in a
//! time that does not grow with the number of requests that decode.

mod lists;
mod lockstep;

pub use lists::Lists;
pub use lockstep::Lockstep;

use isotherm_core::serving::{Request, Resources, ServingError, blocks_for};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// `vidur-vllm`.
    Vllm,
    /// `vidur-sarathi`.
    Sarathi,
}

/// Limits of a route.
#[derive(Debug, Clone, Copy)]
struct Limits {
    rule: Rule,
    /// Tokens of a block.
    block: u32,
    /// Blocks in all.
    blocks: u32,
    /// Blocks that admission leaves free.
    watermark: u32,
    /// Requests that hold cache at once.
    held_max: usize,
    /// Requests of one batch.
    batch_max: usize,
    /// Tokens of one step.
    step: u32,
    /// Batches in flight.
    flights_max: usize,
}

impl Limits {
    fn new(rule: Rule, resources: &Resources) -> Result<Self, ServingError> {
        let serving = &resources.serving;
        resources.check()?;
        if serving.requests_max < resources.in_flight_max {
            return Err(ServingError::Zero("serving.requests_max over the number of stages"));
        }
        let share = serving.kv_watermark.unwrap_or(0.0).clamp(0.0, 1.0);
        Ok(Self {
            rule,
            block: serving.kv_block_tokens,
            blocks: resources.kv_blocks,
            watermark: (share * f64::from(resources.kv_blocks)) as u32,
            held_max: serving.requests_max as usize,
            batch_max: (serving.requests_max / resources.in_flight_max) as usize,
            step: serving.step_tokens_max,
            flights_max: resources.in_flight_max as usize,
        })
    }

    /// Refuses a request that could never be served to its end.
    fn admissible(&self, request: &Request, serving: &Resources) -> Result<(), ServingError> {
        request.check()?;
        if self.rule == Rule::Vllm && request.prompt_tokens > self.step {
            return Err(ServingError::PromptTooLong {
                request: request.id.0,
                prompt_tokens: request.prompt_tokens,
                step_tokens_max: self.step,
            });
        }
        let tokens = u64::from(request.prompt_tokens) + u64::from(request.output_tokens) - 1;
        let prompt = blocks_for(request.prompt_tokens.into(), &serving.serving) + u64::from(self.watermark);
        // Decoding wants one block to be free besides.
        let spare = u64::from(request.output_tokens > 1);
        let needed = prompt.max(blocks_for(tokens, &serving.serving) + spare);
        if needed > u64::from(self.blocks) || tokens >= u64::from(u32::MAX) {
            return Err(ServingError::TooLong { request: request.id.0, tokens, needed, blocks: self.blocks });
        }
        Ok(())
    }

    fn blocks_of(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block)
    }
}

#[cfg(test)]
mod tests;
