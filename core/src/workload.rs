//! What is asked of a plan: how requests arrive and how long they are.

pub mod prompts;
pub mod replay;

use crate::digest::Digest;
use crate::units::Hertz;
use serde::{Deserialize, Serialize};

/// How requests arrive.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Arrivals {
    /// A fixed number of clients; each sends its next request when the last is answered.
    ClosedLoop {
        /// Number of clients.
        clients: u32,
    },
    /// Requests arrive independently at a mean rate.
    Poisson {
        /// Mean arrivals per second.
        rate: Hertz,
    },
    /// Requests arrive as they were recorded, see [`replay`].
    Recorded {
        /// Digest of the recording.
        digest: Digest,
    },
}

/// A number of tokens, fixed or drawn uniformly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Length {
    /// Fewest tokens.
    pub min: u32,
    /// Most tokens, at least `min`.
    pub max: u32,
}

impl Length {
    /// Always the same number.
    #[must_use]
    pub const fn fixed(tokens: u32) -> Self {
        Self { min: tokens, max: tokens }
    }

    /// The mean number of tokens.
    #[must_use]
    pub fn mean(self) -> f64 {
        (f64::from(self.min) + f64::from(self.max)) / 2.0
    }
}

/// A stream of requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// How they arrive.
    pub arrivals: Arrivals,
    /// Tokens of each prompt.
    pub prompt_tokens: Length,
    /// Tokens of each answer, at least 1.
    pub output_tokens: Length,
    /// Number of requests to run.
    pub requests: u32,
}

/// Limits of the serving loop, the same in simulator and runtime.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Serving {
    /// Most requests admitted at once; each holds key-value cache.
    pub requests_max: u32,
    /// Most tokens in one step: decodes count one each, the rest is prefill.
    pub step_tokens_max: u32,
    /// Tokens in one block of the key-value cache.
    pub kv_block_tokens: u32,
    /// Blocks of the key-value cache; absent where the cache is to hold every admitted request at its greatest length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_blocks: Option<u32>,
    /// Share of the blocks that a policy with a watermark leaves free when it admits a request; absent where none is
    /// stated, which is a share of zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_watermark: Option<f64>,
    /// Blocks of host memory, for each route, that hold the cache of preempted requests; absent where it is computed
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_swap_blocks: Option<u32>,
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            requests_max: 1,
            step_tokens_max: 256,
            kv_block_tokens: 16,
            kv_blocks: None,
            kv_watermark: None,
            kv_swap_blocks: None,
        }
    }
}
