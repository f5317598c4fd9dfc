//! How a simulated load is served: policy, router, recorded load; and the measurement of the simulator itself.

use clap::{Args, ValueEnum};
use isotherm_sim::policy::PolicyName;
use isotherm_sim::router::RouterName;
use std::path::PathBuf;

/// Arguments of `isotherm simulate` about the serving loop.
#[derive(Debug, Clone, Default, Args)]
pub struct Service {
    /// What decides which request runs next: the runtime's own rule, or that of another system.
    #[arg(long, value_enum, value_name = "NAME", default_value_t)]
    pub policy: Policy,
    /// Which route a request takes.
    #[arg(long, value_enum, value_name = "NAME", default_value_t)]
    pub router: Router,
    /// Recorded requests in place of the scenario's load: CSV or JSON lines with arrival, prompt and output tokens.
    #[arg(long, value_name = "FILE")]
    pub workload: Option<PathBuf>,
    /// Only so many of the recorded requests.
    #[arg(long, value_name = "N", requires = "workload")]
    pub first: Option<usize>,
}

/// Arguments of `isotherm bench sim`.
#[derive(Debug, Args)]
pub struct BenchSim {
    /// Requests of the longest run, whose memory is compared with that of a tenth of it.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub requests: u32,
    /// Only the run of so many requests whose memory is measured, as JSON: what the command asks of itself, so that each
    /// has a process, and so a memory, of its own.
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub length: Option<u32>,
    /// Folder for sim.json and sim.txt.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Arguments of `isotherm bench cuda`.
#[derive(Debug, Args)]
pub struct BenchCuda {
    /// Shape of the model: tiny, tiny-256, smollm2-135m or llama-1b.
    #[arg(long, value_name = "NAME", default_value = "llama-1b")]
    pub shape: String,
    /// Format of the layers' weights.
    #[arg(long, value_name = "FORMAT", default_value = "Q8_0")]
    pub layer_format: String,
    /// Format of the output matrix.
    #[arg(long, value_name = "FORMAT", default_value = "Q8_0")]
    pub output_format: String,
    /// Round activations to eight bits.
    #[arg(long)]
    pub int8: bool,
    /// Positions that the token sees.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub positions: u32,
    /// Run the conformance suite and a whole model on each card first, and sign the record.
    #[arg(long)]
    pub check: bool,
    /// Take devices of the host-emulated driver too. Nothing about a card follows from them.
    #[arg(long)]
    pub emulated: bool,
    /// Folder for bench-cuda.json and, with --check, its signature.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Serving policies by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Policy {
    /// The runtime's own: decodes, then chunks of prompts, the youngest preempted and computed again.
    #[default]
    Isotherm,
    /// Vidur's vllm: a step prefills whole prompts or decodes.
    VidurVllm,
    /// Vidur's sarathi: decodes, then chunks of prompts.
    VidurSarathi,
    /// SplitwiseSim's mixed instance: whole prompts beside decodes.
    Splitwise,
    /// vLLM's V1 engine: whoever runs, then the queue; blocks of the preempted stay in the prefix cache.
    Vllm,
}

impl From<Policy> for PolicyName {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Isotherm => Self::Isotherm,
            Policy::VidurVllm => Self::VidurVllm,
            Policy::VidurSarathi => Self::VidurSarathi,
            Policy::Splitwise => Self::Splitwise,
            Policy::Vllm => Self::Vllm,
        }
    }
}

/// Routers by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Router {
    /// By the plan's shares.
    #[default]
    Share,
    /// One route after another.
    RoundRobin,
    /// The route with fewest unanswered requests.
    LeastOutstanding,
    /// The route with fewest requests that wait for admission, Vidur's lor.
    LeastWaiting,
    /// The route with fewest tokens before it, SplitwiseSim's token_jsq.
    LeastTokens,
    /// By the plan's shares, each request by chance.
    Random,
    /// Requests wait together; a route with room takes the next.
    Pull,
}

impl From<Router> for RouterName {
    fn from(router: Router) -> Self {
        match router {
            Router::Share => Self::Share,
            Router::RoundRobin => Self::RoundRobin,
            Router::LeastOutstanding => Self::LeastOutstanding,
            Router::LeastWaiting => Self::LeastWaiting,
            Router::LeastTokens => Self::LeastTokens,
            Router::Random => Self::Random,
            Router::Pull => Self::Pull,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_and_router_can_be_named_as_the_simulator_names_it() {
        for (policy, name) in Policy::value_variants().iter().zip(PolicyName::ALL) {
            assert_eq!(PolicyName::from(*policy), name);
            assert_eq!(policy.to_possible_value().expect("not hidden").get_name(), name.name());
        }
        assert_eq!(Policy::value_variants().len(), PolicyName::ALL.len());
        for (router, name) in Router::value_variants().iter().zip(RouterName::ALL) {
            assert_eq!(RouterName::from(*router), name);
            assert_eq!(router.to_possible_value().expect("not hidden").get_name(), name.name());
        }
        assert_eq!(Router::value_variants().len(), RouterName::ALL.len());
    }
}
