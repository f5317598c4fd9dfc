//! Prompts and answers on devices of their own.
//!
//! A *divided* plan has routes that prefill and routes that decode. A prompt yields its first token where it is
//! prefilled; then its cache moves to a route that decodes, which holds it until the answer is done. Each side is a
//! placement problem like any other, [`PlacementProblem::side`]: the layers are placed twice, on devices that the sides
//! do not share.
//!
//! ```text
//! side that prefills   the same prompts, answers of one token: R_p requests per second
//! side that decodes    no prompts, answers of o - 1 steps: R_d requests per second
//! rate                 o * min(R_p, R_d, what ways carry beside both, requests in flight / time of a request)
//! ```
//!
//! Requests that one side admits are those that the plan admits: the time that a request spends on both sides, and the
//! time that its cache takes from one to the other, are one residence for Little's law.

use super::{Objective, PlacementProblem};
use crate::ids::{DeviceId, Layers};
use crate::plan::Plan;
use crate::units::Bytes;
use crate::workload::Length;
use serde::{Deserialize, Serialize};

/// What a route of a divided plan does with its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Their prompts, up to the first token.
    Prefill,
    /// Their answers, from the second token on.
    Decode,
}

impl Role {
    /// Both, in the order in which a request meets them.
    pub const ALL: [Self; 2] = [Self::Prefill, Self::Decode];

    /// What such a route does, in words.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Prefill => "prefills",
            Self::Decode => "decodes",
        }
    }
}

/// Whether plans divide their devices into those that prefill and those that decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Division {
    /// None does.
    #[default]
    Never,
    /// Those do that are better for it.
    Auto,
    /// All do.
    Always,
}

impl Division {
    /// Whether no plan divides.
    // Serde's skip condition takes a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    #[must_use]
    pub const fn is_never(&self) -> bool {
        matches!(self, Self::Never)
    }

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Auto => "auto",
            Self::Always => "always",
        }
    }
}

impl PlacementProblem {
    /// The side that this problem is, where it is one of a divided plan.
    #[must_use]
    pub const fn role(&self) -> Option<Role> {
        self.role
    }

    /// One side of the problem in divided plans: throughput of what this side does, on any of the devices. In the side
    /// that prefills an answer has one token, so that its output tokens are requests; in the side that decodes they are
    /// those of the whole problem.
    #[must_use]
    pub fn side(&self, role: Role) -> Self {
        let mut side = self.clone();
        side.role = Some(role);
        side.limits.division = Division::Never;
        side.limits.prefill.clear();
        if role == Role::Prefill {
            side.workload.output_tokens = Length::fixed(1);
        }
        side
    }

    /// The side of the problem that a route of this role belongs to; the problem itself for a route that does
    /// everything.
    #[must_use]
    pub fn side_of(&self, role: Option<Role>) -> std::borrow::Cow<'_, Self> {
        match role {
            Some(role) if self.role.is_none() => std::borrow::Cow::Owned(self.side(role)),
            _ => std::borrow::Cow::Borrowed(self),
        }
    }

    /// Output tokens of the whole problem for one of a side.
    #[must_use]
    pub fn outputs_per(&self, role: Role) -> f64 {
        match role {
            Role::Prefill => self.workload.output_tokens.mean(),
            Role::Decode => 1.0,
        }
    }

    /// Whether plans of this problem may divide their devices at all: it is about throughput, times of steps are known,
    /// and an answer has more than the token that its prompt yields. Errors: what is missing.
    pub fn divisible(&self) -> Result<(), String> {
        if self.objective != Objective::Throughput {
            return Err(format!("plans are divided for throughput, not for {}", self.objective.name()));
        }
        if !self.knows_times() {
            return Err("only rates of devices are known, which say nothing of prompts and answers apart".to_owned());
        }
        if self.workload.output_tokens.mean() <= 1.0 {
            return Err("answers of one token need no device that decodes".to_owned());
        }
        if self.limits.stages_exact.is_some() {
            return Err("limits.stages_exact asks for one chain".to_owned());
        }
        Ok(())
    }

    /// Whether plans of this problem are divided. Where a scenario names who prefills and plans cannot be divided, or
    /// have goals beside, none is: its routes are divided in simulation.
    #[must_use]
    pub fn division(&self) -> Division {
        let named = !self.limits.prefill.is_empty();
        let apart = self.divisible().is_ok() && self.limits.goals.is_empty();
        if named && !apart { Division::Never } else { self.limits.division }
    }

    /// Tokens that cross a boundary between two stages for each request, in the mean: all but the last token of the
    /// answer, and of these what this side passes.
    #[must_use]
    pub fn crossing_tokens(&self) -> f64 {
        let output = self.workload.output_tokens.mean();
        match self.role {
            Some(Role::Decode) => output - 1.0,
            _ => self.workload.prompt_tokens.mean() + output - 1.0,
        }
    }

    /// Bytes of cache of these layers that a mean prompt leaves on a device, or on each member of a group: whole
    /// blocks.
    #[must_use]
    pub fn prompt_cache_bytes(&self, device: DeviceId, layers: Layers) -> Bytes {
        let block = u64::from(self.serving.kv_block_tokens.max(1));
        let blocks = (libm::ceil(self.workload.prompt_tokens.mean()) as u64).div_ceil(block);
        let token = self.model.kv_bytes_per_token_layer().saturating_mul(layers.len().into());
        Bytes(token.saturating_mul(block).0 / self.degree(device)).saturating_mul(blocks)
    }
}

impl Plan {
    /// Whether some of its routes prefill and others decode.
    #[must_use]
    pub fn is_divided(&self) -> bool {
        self.routes.iter().any(|route| route.role.is_some())
    }

    /// The role of each stage: that of the first route that passes it; none where that does everything, or none passes.
    #[must_use]
    pub fn stage_roles(&self) -> Vec<Option<Role>> {
        let mut roles = vec![None; self.stages.len()];
        // Of several, the first counts.
        for route in self.routes.iter().rev() {
            for stop in &route.stages {
                if let Some(role) = roles.get_mut(stop.stage as usize) {
                    *role = route.role;
                }
            }
        }
        roles
    }
}
