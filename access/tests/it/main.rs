//! The one integration binary of the gate: what it lets in, what it keeps out, and every attack.

#[path = "../attacks/mod.rs"]
mod attacks;
mod crash;
mod decisions;
mod ledger;
mod support;
