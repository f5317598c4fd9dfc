//! The one integration binary: what works, what survives, and every attack.

#[path = "../attacks/mod.rs"]
mod attacks;
mod crash;
mod keys;
mod log;
mod log_strangers;
mod mutation;
mod schema;
mod seal_and_open;
mod strangers;
mod support;
mod threats;
mod tokens;
