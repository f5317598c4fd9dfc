//! One integration binary: the checker fed with right and wrong plans.

mod bridges;
mod build;
mod cases;
mod check;
mod heat;
mod helix;
mod import;
mod mutation;
mod peer;
mod scenario;
mod trunks;
mod walk_prices;
