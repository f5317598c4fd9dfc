//! Serving policies by name: which request runs next on a route.
//!
//! The world drives every policy by the same three operations, those of core's
//! [`Scheduler`](isotherm_core::serving::Scheduler), which is the policy `isotherm`. A policy that another system
//! follows has a file of its own here, which says what it does and where that is written down, so that agreement with
//! that system can be shown request by request.
//!
//! To add one: a file with a type that is a [`Policy`], a [`PolicyName`], and its line in [`PolicyName::start`].

mod isotherm;
mod vllm;

pub use isotherm::Isotherm;
pub use vllm::{Vllm, VllmCounts, VllmOptions};

use isotherm_core::ids::RequestId;
use isotherm_core::serving::{Batch, Completed, Request, Resources, ServingError};
use isotherm_core::units::SimTime;
use std::fmt;

/// What decides which request runs next.
///
/// ```text
/// submit(request, prompt)                      a request arrives
/// while let Some(batch) = next_batch(now)      the batch goes to the first stage of the pipeline
/// complete(batch, ended, now)                  its tokens are back
/// ```
///
/// Batches of one route come back in the order in which they were formed.
pub trait Policy: fmt::Debug {
    /// Takes a request in. Identifiers rise in order of arrival.
    ///
    /// `prompt` names the content of each full block of the prompt, `kv_block_tokens` tokens each: equal names mean
    /// that these blocks and all before them are equal, so that what is cached for one request serves another. Empty
    /// where nothing is known of the content.
    ///
    /// Errors: the request could never be served.
    fn submit(&mut self, request: Request, prompt: &[u64]) -> Result<(), ServingError>;

    /// Forms the next batch; none while nothing can be done before one comes back, or as many are out as may be.
    fn next_batch(&mut self, now: SimTime) -> Option<Batch>;

    /// Takes back a batch whose tokens are known. `ended` names requests that end with the token they got in it; an
    /// answer of full length ends by itself.
    fn complete(&mut self, batch: Batch, ended: &[RequestId], now: SimTime) -> Completed;

    /// Takes back what [`complete`](Self::complete) gave once it is read, so that a policy can use its memory again.
    fn reuse(&mut self, _completed: Completed) {}
}

/// The policies there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum PolicyName {
    /// The runtime's own, see [`isotherm_core::serving`].
    #[default]
    Isotherm,
    /// vLLM's V1 engine, see [`Vllm`].
    Vllm,
}

impl PolicyName {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Isotherm, Self::Vllm];

    /// How users write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Isotherm => "isotherm",
            Self::Vllm => "vllm",
        }
    }

    /// The policy of this name, without requests. Errors: a limit is zero.
    pub fn start(self, resources: Resources) -> Result<Box<dyn Policy>, ServingError> {
        Ok(match self {
            Self::Isotherm => Box::new(Isotherm::new(resources)?),
            Self::Vllm => Box::new(Vllm::new(resources, VllmOptions::default())?),
        })
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
