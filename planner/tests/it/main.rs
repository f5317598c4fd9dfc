//! The planner against enumeration, on hundreds of small random problems.

mod oracle;
mod points;
mod world;

mod against_enumeration;
mod baselines;
mod change;
mod choices;
mod divided;
mod explaining;
mod heat;
mod helix;
mod in_flight;
mod infeasible;
mod invariance;
mod known_figures;
mod latency;
mod mesh;
mod robust;
mod spending;
mod trial;
