//! The planner against enumeration, on hundreds of small random problems.

mod oracle;
mod world;

mod against_enumeration;
mod baselines;
mod explaining;
mod helix;
mod known_figures;
mod latency;
mod mesh;
