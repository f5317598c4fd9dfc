//! Why a serving policy takes a limit or a request not at all.

/// Why a scheduler or a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServingError {
    /// A count that must be at least one is zero.
    #[error("{0} is 0; it must be at least 1")]
    Zero(&'static str),
    /// The request can never be served: its tokens do not fit the cache even alone.
    #[error(
        "request {request} needs {needed} cache blocks for its {tokens} tokens and there are {blocks}; \
         shorten it or give the stage more memory for its cache"
    )]
    TooLong {
        /// The request.
        request: u32,
        /// Tokens it caches at most.
        tokens: u64,
        /// Blocks for those.
        needed: u64,
        /// Blocks there are.
        blocks: u32,
    },
    /// The prompt does not fit one step, under a policy that divides none.
    #[error(
        "request {request} has a prompt of {prompt_tokens} tokens and a step takes {step_tokens_max}, under a policy that \
         divides no prompt; raise serving.step_tokens_max, or choose a policy with chunked prefill"
    )]
    PromptTooLong {
        /// The request.
        request: u32,
        /// Tokens of its prompt.
        prompt_tokens: u32,
        /// Most tokens of a step.
        step_tokens_max: u32,
    },
    /// The policy cannot take over or keep cache.
    #[error(
        "request {request} would bring or leave its cache, and the policy moves none; serve it under policy isotherm"
    )]
    MovesNothing {
        /// The request.
        request: u32,
    },
    /// The identifier is not above those submitted before.
    #[error("request {request} was submitted after request {last}; identifiers rise in order of arrival")]
    OutOfOrder {
        /// The request.
        request: u32,
        /// The one before it.
        last: u32,
    },
}
