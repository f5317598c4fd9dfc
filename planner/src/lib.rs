#![forbid(unsafe_code)]
//! Solves the placement of a model's layers as an integer program and proves how good the answer is.
//!
//! ```text
//! PlacementProblem -> tables -> bounds and plans (latency | throughput) -> assemble -> Plan::check -> Outcome
//! ```
//!
//! The door is [`plan()`]; [`explain()`] says why a plan is as it is. What is proved, and how, stands in
//! `docs/formulation.md`.

mod assemble;
pub mod baselines;
pub mod budget;
pub mod change;
mod choices;
mod divide;
mod door;
pub mod explain;
mod formulation;
pub mod goals;
mod groups;
mod heat_cost;
mod infeasible;
mod latency;
mod outcome;
pub mod pareto;
mod points;
pub mod refine;
pub mod robust;
mod split;
pub mod survive;
mod sustained;
mod tables;
mod throughput;
pub mod trial;

pub use budget::{Budget, Limit, Progress, Work};
pub use door::plan;
pub use explain::{DivisionWorth, Explanation, TightMemory, Worth, explain};
pub use formulation::solve::SolverFault;
pub use heat_cost::HeatCost;
pub use outcome::{Nearest, Outcome, PlanError, Reason, Reasons};
pub use split::{BreakEven, SplitVerdict};
