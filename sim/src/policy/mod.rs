//! Serving policies by name: which request runs next on a route.
//!
//! The world drives every policy by the same three operations, those of core's
//! [`Scheduler`](isotherm_core::serving::Scheduler), which is the policy `isotherm`. A policy that another system
//! follows has a file of its own here, which says what it does and where that is written down, so that agreement with
//! that system can be shown request by request.
//!
//! To add one: a file with a type that is a [`Policy`], a [`PolicyName`], and its line in [`PolicyName::start`].

mod isotherm;
pub mod splitwise;
pub mod vidur;
mod vllm;

pub use isotherm::Isotherm;
pub use splitwise::Splitwise;
pub use vllm::{Vllm, VllmCounts, VllmOptions};

use isotherm_core::ids::RequestId;
use isotherm_core::serving::{Batch, Completed, Move, Request, Resources, ServingError};
use isotherm_core::units::SimTime;
use std::fmt;
use vidur::{Lists, Lockstep, Rule};

/// What decides which request runs next.
///
/// ```text
/// submit(request, prompt)                      a request arrives
/// while let Some(batch) = next_batch(now)      the batch goes to the first stage of the pipeline
/// complete(batch, ended, now)                  its tokens are back
/// ```
///
/// Batches of one route come back in the order in which they were formed.
///
/// The world reads of a batch its shape and who was preempted, and of what it brought the first tokens of requests
/// (ordinal 1) and who is done. A policy may leave out the rest unless it is started `whole`: where requests can be lost, or
/// somebody asks where their time went.
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

    /// Takes a request in of which only the prompt is computed here; its cache stays until it is
    /// [released](Self::release). Errors: as [`submit`](Self::submit), or the policy knows no such requests
    /// ([`PolicyName::moves_cache`]).
    fn submit_kept(&mut self, request: Request, _prompt: &[u64]) -> Result<(), ServingError> {
        Err(ServingError::MovesNothing { request: request.id.0 })
    }

    /// Takes a request in whose prompt was prefilled elsewhere. Errors: as [`submit_kept`](Self::submit_kept).
    fn submit_prefilled(&mut self, request: Request) -> Result<(), ServingError> {
        Err(ServingError::MovesNothing { request: request.id.0 })
    }

    /// How full it is; none where the policy does not count it that way.
    fn fullness(&self) -> Option<Fullness> {
        None
    }

    /// Takes a request back whose cache is not there yet and never comes: it leaves, with the blocks kept for it.
    fn withdraw(&mut self, _request: RequestId, _now: SimTime) {}

    /// The cache of a request that is done here was fetched.
    fn release(&mut self, _request: RequestId) {}

    /// The copies of cache that begin now; asked after [`next_batch`](Self::next_batch) gave none.
    fn moves(&mut self) -> Vec<Move> {
        Vec::new()
    }

    /// A copy is over.
    fn moved(&mut self, _request: RequestId, _now: SimTime) {}

    /// Takes back what [`complete`](Self::complete) gave once it is read, so that a policy can use its memory again.
    fn reuse(&mut self, _completed: Completed) {}
}

/// How full a policy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fullness {
    /// Requests that wait for admission.
    pub waiting: u32,
    /// Requests that are admitted and not done.
    pub running: u32,
    /// Blocks that requests hold.
    pub held_blocks: u32,
}

/// The policies there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum PolicyName {
    /// The runtime's own, see [`isotherm_core::serving`].
    #[default]
    Isotherm,
    /// Vidur's `vllm`, see [`vidur`].
    VidurVllm,
    /// Vidur's `sarathi`, see [`vidur`].
    VidurSarathi,
    /// SplitwiseSim's mixed instance, see [`splitwise`].
    Splitwise,
    /// vLLM's V1 engine, see [`Vllm`].
    Vllm,
}

impl PolicyName {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Isotherm, Self::VidurVllm, Self::VidurSarathi, Self::Splitwise, Self::Vllm];

    /// How users write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Isotherm => "isotherm",
            Self::VidurVllm => "vidur-vllm",
            Self::VidurSarathi => "vidur-sarathi",
            Self::Splitwise => "splitwise",
            Self::Vllm => "vllm",
        }
    }

    /// Whether it copies cache: to host memory and back, and from where a prompt was prefilled.
    #[must_use]
    pub const fn moves_cache(self) -> bool {
        matches!(self, Self::Isotherm)
    }

    /// The policy of this name on a route of so many stages, without requests. The policy `isotherm` has as many
    /// batches in flight as the plan says, others one for each stage. `whole` forbids it to leave out items of batches and
    /// tokens other than the first. Errors: a limit is zero.
    pub fn start(self, resources: Resources, stages: usize, whole: bool) -> Result<Box<dyn Policy>, ServingError> {
        let stages = u32::try_from(stages).unwrap_or(u32::MAX);
        let one_each = Resources { in_flight_max: stages, ..resources };
        Ok(match self {
            Self::Isotherm => Box::new(Isotherm::new(resources)?),
            Self::VidurVllm => vidur(Rule::Vllm, one_each, whole)?,
            Self::VidurSarathi => vidur(Rule::Sarathi, one_each, whole)?,
            Self::Splitwise => Box::new(Splitwise::new(one_each, whole)?),
            Self::Vllm => Box::new(Vllm::new(one_each, VllmOptions::default())?.telling(whole)),
        })
    }
}

fn vidur(rule: Rule, resources: Resources, whole: bool) -> Result<Box<dyn Policy>, ServingError> {
    Ok(if resources.in_flight_max == 1 && !whole {
        Box::new(Lockstep::new(rule, resources)?)
    } else {
        Box::new(Lists::new(rule, resources)?)
    })
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
